"""The timer leaf: something that becomes ready by itself.

No task, no thread, and no loop timer while nobody waits: a waiter is told when to look again (`wake_in`).
The clock is that of the world where the time starts to run: the loop's, trio's, or `time.monotonic`. Another
world may wait for it too; it sleeps for what is left on that clock and, should the clocks differ, looks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from ..lane import World, lanes, running_loop, trio_module, world
from .leaf import Leaf
from .ops import PENDING
from .select import TIME

__all__ = ["Instant", "Sleep", "clock_here"]

T_co = TypeVar("T_co", covariant=True)


def clock_here() -> Callable[[], float]:
    """The clock of the world that calls, as a function that may be called from any thread."""
    lane = lanes.lane
    here = world(lane)
    loop = running_loop()
    if here is World.ASYNCIO or (here is World.CALLBACK and loop is not None):
        assert loop is not None
        return loop.time
    if here is World.TRIO or here is World.CALLBACK:
        trio = trio_module()
        assert trio is not None
        return trio.lowlevel.current_clock().current_time  # type: ignore[no-any-return]
    return monotonic


class Instant(Leaf[T_co]):
    """Ready from the moment `due` on; its result is `due`."""

    __slots__ = ("_clock", "_due")

    def __init__(self, due: float, clock: Callable[[], float]) -> None:
        self._due = due
        self._clock = clock
        self._src = TIME

    def _describe(self, src: Any) -> str:
        return f"timer due at {self._due:.3f}"

    def _now(self, src: Any) -> Any:
        return self._attempt(src)

    def _snapshot(self, src: Any, /) -> Any:
        return self._attempt(src)

    def _hint(self, src: Any) -> bool:
        return self._attempt(src) is not PENDING

    def _attempt(self, src: Any) -> Any:
        due = self._due
        return due if due < math.inf and self._clock() >= due else PENDING

    def _enqueue(self, src: Any, waiter: Any) -> None:
        if self._due < math.inf:
            waiter.wake_in(max(self._due - self._clock(), 0.0))

    def _enroll(self, src: Any, waiter: Any) -> Any:
        waiter.cell = []  # nobody else can claim it
        got = self._attempt(src)
        if got is PENDING:
            self._enqueue(src, waiter)
        return got

    def _retract(self, waiter: Any) -> bool:
        return True


class Sleep(Instant[None]):
    """Ready so many seconds after it is first looked at; its result is None."""

    __slots__ = ("_seconds",)

    def __init__(self, delay: float) -> None:
        self._seconds = delay
        self._due = -1.0  # not looked at yet
        self._src = TIME

    def _restart(self) -> None:
        self._due = -1.0

    def _describe(self, src: Any) -> str:
        return f"sleep of {self._seconds} s"

    def _attempt(self, src: Any) -> Any:
        due = self._due
        if due < 0:
            self._clock = clock_here()
            self._due = due = self._clock() + self._seconds
        return None if due < math.inf and self._clock() >= due else PENDING
