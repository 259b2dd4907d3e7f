"""What each world brings to structured concurrency: its scopes, its nurseries, its clock, the way in from outside.

A `Backend` belongs to one running loop, or to a thread; `backend_here()` gives that of the caller. A nursery starts
coroutines side by side and waits for them; what a child's end means is the business of the group above it, so to a
nursery no child ever fails. One module per world, loaded when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .lane import Lane, World, lanes, world

if TYPE_CHECKING:
    from .engine import Op

__all__ = ["Backend", "Child", "Children", "NativeScope", "Nursery", "backend_here"]


class NativeScope(Protocol):
    """A cancel scope of the world. Used on the thread of its backend; a thread's may be used from any."""

    @property
    def deadline(self) -> float: ...
    @deadline.setter
    def deadline(self, value: float, /) -> None: ...
    @property
    def shield(self) -> bool: ...
    @shield.setter
    def shield(self, value: bool, /) -> None: ...
    @property
    def cancel_called(self) -> bool: ...
    @property
    def cancelled_caught(self) -> bool: ...

    def cancel(self, reason: str | None = None) -> object: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None: ...


class Child(Protocol):
    """What a nursery has to know of a child: its name, and why it was told to stop. `_native` is the nursery's own."""

    _native: Any
    _reason: str | None

    @property
    def name(self) -> str: ...


class Children(Protocol):
    """All that have been started and have not ended."""

    def wait_empty(self) -> Op[None]: ...

    def __len__(self) -> int: ...


class Nursery(Protocol):
    """Starts children. They are cancelled by the scope that it was opened in."""

    wants_cancelled: bool  # is a child that was cancelled by a scope to end with that error?
    anywhere: bool  # may children be started from any thread?

    async def open(self) -> None: ...

    def start(self, coroutine: Coroutine[Any, Any, object], child: Child) -> None:
        """Run `coroutine` beside others. `child._native` is set before it can come to its end."""

    def stop(self, child: Child) -> None:
        """Cancel one child that was started. On the thread of the backend."""

    def stopped(self, child: Child) -> None:
        """A child that was told to stop has come to its end."""

    def revoke(self, child: Child) -> bool:
        """`start` has been cut: see to it that the child does not run. False: it does."""
        ...

    def discard(self, child: Child) -> None:
        """A child has come to its end without having begun."""

    async def start_and_wait(self, function: Callable[..., Coroutine[Any, Any, object]], name: str) -> Any:
        """Run `function(task_status=)` in the caller's scope until it says `started(value)`, then here; that value."""
        ...

    async def close(self, children: Children, interrupted: bool) -> None:
        """Wait until all children have ended. Cancelled while waiting, it waits on, and raises that in the end.

        `interrupted`: the block has been left by a KeyboardInterrupt. Where no loop sees to those, one more makes it
        give up waiting.
        """


class Backend(Protocol):
    """One running loop, or a thread."""

    name: str
    cancelled: type[BaseException]

    def now(self) -> float:
        """The clock of deadlines, in seconds."""
        ...

    def scope(self, deadline: float, shield: bool) -> NativeScope: ...

    def nursery(self, scope: Any) -> Nursery:
        """`scope` is the native scope in which it is opened."""
        ...

    def here(self) -> bool:
        """Does the caller run where children can be started and scopes be touched?"""
        ...

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called there: now in a task of it, else soon. Nothing happens if its loop is over."""

    def until(self) -> float:
        """The deadline that applies to the caller, -inf if it is cancelled."""
        ...


_makers: dict[World, Callable[[Lane], Backend]] = {}


def backend_here(what: str) -> Backend:
    """The backend of the caller; RuntimeError where nothing can wait, naming `what`."""
    lane = lanes.lane
    here = world(lane)
    make = _makers.get(here)
    return (_maker(here, what) if make is None else make)(lane)


def _maker(here: World, what: str) -> Callable[[Lane], Backend]:
    make: Callable[[Lane], Backend]
    if here is World.ASYNCIO:
        from .backend_asyncio import AsyncioBackend as make
    elif here is World.TRIO:
        from .backend_trio import TrioBackend as make
    elif here is World.CALLBACK:
        raise RuntimeError(f"{what} needs a task or a thread, not {here.value}")
    else:
        from .backend_threads import ThreadsBackend as make
    _makers[here] = make
    return make
