"""Latch: a source that is open for everybody once it is set. Events and futures are latches.

Invariant: while the latch is set nobody waits. Setting serves all waiters under one lock.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .ops import PENDING
from .queued import Queued, QueuedLeaf
from .waiters import SERVED

__all__ = ["Latch", "Passed"]

T_co = TypeVar("T_co", covariant=True)


class Latch(Queued):
    __slots__ = ("_set",)

    def __init__(self) -> None:
        super().__init__()
        self._set = False

    def _outcome(self) -> Any:
        """What a waiter gets, outside the lock; it may raise. A subclass decides."""
        return None

    def _outcome_inside(self) -> Any:
        """The same, under the lock."""
        return self._outcome()

    def _open(self, *_: Any) -> bool:
        """Under the lock: set it and serve everybody. False if it was set."""
        if self._set:
            return False
        self._set = True
        self._serve()
        return True

    def _serve(self) -> None:
        """It is set: everybody who waits goes on. Can be repeated."""
        queue = self._queue
        while queue and (waiter := queue.claim(self._after)) is not None:
            waiter.state = SERVED

    def _mend(self) -> None:
        if self._set:
            self._serve()

    def _shut(self) -> None:
        """Under the lock: later waiters wait again."""
        self._set = False


class Passed(QueuedLeaf[T_co]):
    """The operation of waiting for a latch."""

    __slots__ = ()

    def __init__(self, latch: Latch) -> None:
        self._src = latch

    def _describe(self, latch: Latch) -> str:
        return f"wait for {latch!r}"

    def _hint(self, latch: Latch) -> bool:
        return latch._set

    def _attempt(self, latch: Latch) -> Any:
        return latch._outcome_inside() if latch._set else PENDING

    def _received(self, latch: Latch, value: Any) -> Any:
        return latch._outcome()
