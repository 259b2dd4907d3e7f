"""Counter: a source that holds units, taken by whoever waits first. Semaphores and locks are counters.

Invariant, whenever the lock is free: the first who waits wants more than there is (so nobody passes it), and
`_free` plus what is taken is constant but for `release`.
"""

from __future__ import annotations

from typing import Any

from .ops import PENDING
from .queued import Queued, QueuedLeaf
from .waiters import SERVED, WITHDRAWN

__all__ = ["Acquire", "Counter"]


class Counter(Queued):
    __slots__ = ("_free",)

    def __init__(self, free: Any) -> None:
        super().__init__()
        self._free: Any = free  # an integer, or math.inf

    def _put_back(self, units: int) -> None:
        """Under the lock: so many more are free."""
        self._free += units
        self._serve()

    def _serve(self) -> None:
        """Serve those who wait, in their order, while there is enough for the first. Can be repeated."""
        queue = self._queue
        while queue:
            first = queue.first()
            if first is not None and not first.alive():
                queue.evict(first, self._after)  # its loop is closed: it must not hold back others
                continue
            waiter = queue.claim(self._after, self._fits)
            if waiter is None:
                return
            self._taken(waiter.op._units, waiter.value)
            waiter.state = SERVED

    def _fits(self, waiter: Any) -> bool:
        op = waiter.op
        return op is None or op._units <= self._free  # None: an arm that is losing its select just now

    def _taken(self, units: int, who: Any) -> None:
        """Under the lock: `who` has got them. One store decides."""
        self._free -= units

    def _who(self) -> Any:
        """Who performs an operation, if that matters."""
        return None

    def _mend(self) -> None:
        self._serve()


class Acquire(QueuedLeaf[None]):
    """Take `units` of a counter, all at once."""

    __slots__ = ("_units",)

    def __init__(self, counter: Counter, units: int) -> None:
        self._units = units
        self._src = counter

    def _attempt(self, counter: Counter) -> Any:
        queue = counter._queue
        if self._units > counter._free or (queue and queue.first() is not None):
            return PENDING
        counter._taken(self._units, counter._who())
        return None

    def _enqueue(self, counter: Counter, waiter: Any) -> None:
        waiter.value = counter._who()
        counter._stand(waiter)

    def _withdraw(self, counter: Counter, waiter: Any) -> None:
        super()._withdraw(counter, waiter)
        counter._serve()  # a smaller one behind it may fit

    def _undo(self, counter: Counter, waiter: Any) -> bool:
        waiter.state = WITHDRAWN  # with the next store: cut by an interrupt, this is not done twice
        counter._free += self._units
        counter._serve()
        return True

    def _forget(self, counter: Counter, arm: Any) -> None:
        if counter._free:  # the units may do for one behind it
            counter._locked(self._withdraw, counter, arm)
        else:
            super()._forget(counter, arm)

    def _received(self, counter: Counter, value: Any) -> None:
        return None

    def _ended(self, counter: Counter, waiter: Any) -> BaseException:
        return RuntimeError(f"the loop in which {counter!r} was waited for is closed")

    def _describe(self, counter: Counter) -> str:
        return f"acquire {self._units} of {counter!r}" if self._units != 1 else f"acquire {counter!r}"
