"""Queued: a source with one queue of waiters, and the leaf that stands in it. Most sources are this and little more.

A losing arm stays in a short queue as a tombstone: it is not worth the lock.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .leaf import Leaf
from .source import Source
from .waiters import FEW, NOBODY, WaitQueue

__all__ = ["Queued", "QueuedLeaf"]

T_co = TypeVar("T_co", covariant=True)


class Queued(Source):
    __slots__ = ("_queue",)

    def __init__(self) -> None:
        super().__init__()
        self._queue: WaitQueue = NOBODY

    def _stand(self, waiter: Any) -> None:
        """Under the lock: one more waits."""
        if self._queue is NOBODY:
            self._queue = WaitQueue()
        self._queue.append(waiter)

    def _wake_all(self) -> None:
        """Under the lock: let all who wait look again."""
        self._after += [waiter for waiter in self._queue if waiter.waiting()]

    def _forget_waiters(self) -> None:
        self._queue = NOBODY

    def _waiting(self) -> int:
        """How many wait, as a snapshot."""
        queue = self._queue
        return queue.live() if queue else 0


class QueuedLeaf(Leaf[T_co]):
    __slots__ = ()

    def _enqueue(self, src: Any, waiter: Any, /) -> None:
        src._stand(waiter)

    def _withdraw(self, src: Any, waiter: Any, /) -> None:
        if src._queue is not NOBODY:
            src._queue.withdrawn()

    def _forget(self, src: Any, arm: Any, /) -> None:
        if len(src._queue) > FEW:
            src._locked(self._withdraw, src, arm)
