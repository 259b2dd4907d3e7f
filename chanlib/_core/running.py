"""Driving a coroutine by the thread that it is on: its awaits block the thread.

The seed of the threads backend: whatever is written once as a coroutine over operations has its blocking form
for free.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from .lane import lanes, refuse_loop
from .unraisable import note

__all__ = ["run_here"]

T = TypeVar("T")


def run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end on this thread. Operations of this library block; nothing else can be awaited."""
    lane = lanes.lane
    try:
        refuse_loop(lane, "driving a coroutine by its thread")
    except RuntimeError:
        coroutine.close()
        raise
    before = lane.driving
    try:
        lane.driving = True
        foreign = coroutine.send(None)
        while True:  # the error comes out where it was awaited
            foreign = coroutine.throw(_refusal(foreign, coroutine))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except RuntimeError as error:
        if str(error) in _LOOPLESS:
            note(error, f"asyncio.sleep, trio.sleep and the like {_ADVICE}")
        raise
    finally:
        lane.driving = before


# what asyncio and trio say where there is no loop of theirs, before anything comes to be awaited
_LOOPLESS = ("no running event loop", "must be called from async context")
_ADVICE = (
    "cannot be awaited in a coroutine that is driven by its thread: only operations of chanlib can; "
    "use asyncio or trio for this one"
)


def _refusal(awaited: object, coroutine: Any) -> RuntimeError:
    what = repr(awaited)
    if awaited is None:  # a bare yield: tell by whom
        while coroutine is not None:
            what = f"what {getattr(coroutine, '__qualname__', coroutine)}() yields"
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return RuntimeError(f"{what} {_ADVICE}")
