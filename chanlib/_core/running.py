"""Driving a coroutine by the thread that it is on: its awaits block the thread.

The seed of the threads backend: whatever is written once as a coroutine over operations has its blocking form
for free.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from .lane import lanes, refuse_loop

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
            foreign = coroutine.throw(_foreign(foreign))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        lane.driving = before


def _foreign(awaited: object) -> RuntimeError:
    return RuntimeError(
        f"{awaited!r} cannot be awaited in a coroutine that is driven by its thread: "
        "only operations of chanlib can; use asyncio or trio for this one"
    )
