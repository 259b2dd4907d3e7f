"""Across processes: channels, events, semaphores and futures, with the operations that they have everywhere; pools.

    from chanlib.processes import open_process_channel

What is asked for is loaded then: a child in a process needs little of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pools.calls import WorkerFuture as WorkerFuture
    from ..pools.pool import WorkerPool as WorkerPool
    from ..pools.works import BrokenPool as BrokenPool
    from .ends import ProcessChannel as ProcessChannel
    from .ends import ProcessReceiver as ProcessReceiver
    from .ends import ProcessSender as ProcessSender
    from .ends import open_process_channel as open_process_channel
    from .events import ProcessEvent as ProcessEvent
    from .futures import ProcessFuture as ProcessFuture
    from .futures import ProcessPromise as ProcessPromise
    from .futures import open_process_future as open_process_future
    from .leases import Lease as Lease
    from .semaphores import ProcessLock as ProcessLock
    from .semaphores import ProcessSemaphore as ProcessSemaphore
    from .semaphores import ProcessSemaphoreStatistics as ProcessSemaphoreStatistics

_HOMES = {
    ".ends": ("ProcessChannel", "ProcessReceiver", "ProcessSender", "open_process_channel"),
    ".events": ("ProcessEvent",),
    ".futures": ("ProcessFuture", "ProcessPromise", "open_process_future"),
    ".leases": ("Lease",),
    ".semaphores": ("ProcessLock", "ProcessSemaphore", "ProcessSemaphoreStatistics"),
    "..pools.calls": ("WorkerFuture",),
    "..pools.pool": ("WorkerPool",),
    "..pools.works": ("BrokenPool",),
}
_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BrokenPool",
    "Lease",
    "ProcessChannel",
    "ProcessEvent",
    "ProcessFuture",
    "ProcessLock",
    "ProcessPromise",
    "ProcessReceiver",
    "ProcessSemaphore",
    "ProcessSemaphoreStatistics",
    "ProcessSender",
    "WorkerFuture",
    "WorkerPool",
    "open_process_channel",
    "open_process_future",
]


def __getattr__(name: str) -> Any:
    home = _WHERE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
