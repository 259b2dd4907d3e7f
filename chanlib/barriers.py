"""Barrier: a place where so many parties meet before any of them goes on."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from ._core.engine import CLAIMED, PENDING, SERVED, Op, Queued, QueuedLeaf
from .checks import check_count

__all__ = ["Barrier", "BarrierStatistics"]


class BarrierStatistics(NamedTuple):
    """A snapshot of a barrier."""

    parties: int
    waiting: int


class Barrier(Queued):
    """Lets its waiters go on, all at once, whenever `parties` of them have come; then it starts afresh.

    Tasks and threads of any kind may meet. One who gives up (a timeout, a cancellation, another arm of its select)
    before the others have come has not come; the rest waits on. Nothing is ever broken by it.
    Source of the semantics: tokio's `Barrier`; the result as of `threading.Barrier`.
    """

    __slots__ = ("_meeting", "_name", "_parties")

    def __init__(self, parties: int, /, *, name: str | None = None) -> None:
        check_count(parties, "parties", 1)
        super().__init__()
        self._parties = parties
        self._name = name
        self._meeting: list[Any] = []  # those who have been claimed to go on together

    def wait(self) -> Op[int]:
        """Wait until all parties have come. The result is the place in the order of arrival, from 0 on."""
        return _Meet(self)

    __op__ = wait

    def __await__(self) -> Generator[Any, Any, int]:
        return self.wait().__await__()

    @property
    def parties(self) -> int:
        """How many have to come."""
        return self._parties

    def statistics(self) -> BarrierStatistics:
        """A snapshot; never blocks."""
        return BarrierStatistics(parties=self._parties, waiting=self._waiting())

    def _arrive(self) -> Any:
        """Under the lock: the place of the one who comes last, or PENDING."""
        others = self._parties - 1
        if len(self._queue) < others:
            return PENDING
        come: set[int] = set()  # a select may stand here with several arms: it is one party
        for waiter in tuple(self._queue):
            if waiter.waiting():
                if waiter.alive():
                    come.add(id(waiter if waiter.cell is None else waiter.cell))
                else:
                    self._queue.evict(waiter, self._after)
        if len(come) < others:
            return PENDING
        meeting: list[Any] = []
        while len(meeting) < others:
            waiter = self._queue.claim(self._after)
            if waiter is None:  # a select chose another arm just now: those claimed are woken and come again
                return PENDING
            waiter.value = len(meeting)
            meeting.append(waiter)
        self._meeting = meeting
        self._mend()
        return others

    def _mend(self) -> None:
        """Once all are claimed they all go on."""
        for waiter in self._meeting:
            if waiter.state == CLAIMED:
                waiter.state = SERVED
        self._meeting = []

    def _forget_waiters(self) -> None:
        super()._forget_waiters()
        self._meeting = []

    def __repr__(self) -> str:
        return f"<Barrier {self._label(self._name)} {self._waiting()}/{self._parties}>"


class _Meet(QueuedLeaf[int]):
    __slots__ = ()

    def __init__(self, barrier: Barrier) -> None:
        self._src = barrier

    def _attempt(self, barrier: Barrier) -> Any:
        return barrier._arrive()

    def _ended(self, barrier: Barrier, waiter: Any) -> BaseException:
        return RuntimeError(f"the loop of a party of {barrier!r} is closed")

    def _describe(self, barrier: Barrier) -> str:
        return f"wait at {barrier!r}"
