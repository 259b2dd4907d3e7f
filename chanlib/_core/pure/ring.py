"""Ring: the source behind a channel. A buffer between two queues of waiters. `transfer` has its operations.

Source of the algorithm: Go's `runtime/chan.go`: the arriving side completes both sides under the lock.

Invariants, whenever the lock is free:
1.  Receivers wait only while there is nothing to receive: buffer and `_returned` are empty and no sender
    waits (but a select may stand on both sides: it never pairs with itself).
2.  Senders wait only while there is no room. Whoever makes room moves the first of them into it (`_refill`),
    so nobody passes a waiting sender.
3.  A value sits in exactly one place: with the operation that sends it, in the buffer, in `_returned`, with a
    receiver that was served, or in the `_bin`, for it must not die under the lock.
4.  `_returned` holds what cancelled receivers gave back, as (order of its commit, value), sorted: it is received
    before the buffer, in the order in which it was first taken. It may exceed the capacity for a moment.
5.  `_room` is the capacity less `_held` while the way into the buffer is free of anything else to look at: open,
    no receiver waiting, nothing returned; else -1. `_plain` is True while a receive needs to look at the buffer
    only. Both are hints for the short way; the long way looks for itself. Comparing may raise, so a heap has no
    short way.
6.  `_held` places are promised to permits and count as taken. Nobody passes a reservation that waits, so once
    somebody has reserved (`_reserving`) a sender looks whether anybody waits, and receivers may wait beside senders.
    Places that were promised before the close delay the end for receivers until they are used or given back.
7.  What has gone in equals what has come out plus what is inside: `sent = _received + _dropped + buffered`.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from typing import Any, Generic, TypeVar

from ...errors import ChannelFull
from .buffers import Order, consume, displace, empty, prepared
from .ops import PENDING
from .source import Source
from .waiters import ENDED, NOBODY, SERVED, WaitQueue

__all__ = [
    "CANCELLED",
    "CLOSED",
    "DROP_NEWEST",
    "DROP_OLDEST",
    "OPEN",
    "RAISE",
    "WAIT",
    "Refused",
    "Ring",
]

T = TypeVar("T")

OPEN, CLOSED, CANCELLED = range(3)
WAIT, RAISE, DROP_OLDEST, DROP_NEWEST = range(4)  # what a send does that finds no room


def _order(entry: tuple[int, Any]) -> int:
    return entry[0]


class Ring(Source, Generic[T]):
    """The state of a channel. `_over(sending)` makes the error of an operation on what is over."""

    __slots__ = (
        "_buffer",
        "_capacity",
        "_commits",
        "_compares",
        "_dropped",
        "_end",
        "_held",
        "_overflow",
        "_peak",
        "_plain",
        "_received",
        "_receivers",
        "_reserving",
        "_returned",
        "_room",
        "_senders",
    )

    def __init__(self, capacity: float, order: Order = "fifo", overflow: int = WAIT) -> None:
        super().__init__()
        self._capacity = capacity
        self._overflow = overflow
        self._buffer: deque[T] = empty(order)  # or what looks like one
        self._compares = order == "priority"  # then putting in and taking out may raise
        self._returned: list[tuple[int, T]] = []
        self._senders: WaitQueue = NOBODY
        self._receivers: WaitQueue = NOBODY
        self._end = OPEN
        self._held = 0
        self._reserving = False
        self._commits = 0
        self._received = 0
        self._dropped = 0
        self._peak = 0
        self._refresh()

    def _over(self, sending: bool) -> BaseException:
        raise NotImplementedError

    def _full(self) -> ChannelFull:
        return ChannelFull(f"{self!r} is full and nobody waits to receive")

    # ------------------------------------------------------------- under the lock
    def _hand_over(self, value: T, order: int = 0) -> bool:
        """Serve the first waiting receiver with `value`, if there is one. `order`: of its first commit."""
        receivers = self._receivers
        waiter = receivers.claim(self._after)
        if not receivers:
            self._refresh()
        if waiter is None:
            return False
        if not order:
            order = self._commits = self._commits + 1
        waiter.order = order
        self._received += 1
        waiter.value = value
        waiter.state = SERVED
        return True

    def _put(self, value: T) -> bool:
        """Give `value` to a receiver or to the buffer. False: no room, or somebody waits for it already."""
        if self._reserving and self._senders and self._senders.first() is not None:
            return False
        if self._receivers and self._hand_over(value):
            return True
        if len(self._buffer) + len(self._returned) + self._held < self._capacity:
            self._append(value)
            return True
        return False

    def _append(self, value: T) -> None:
        self._buffer.append(value)
        if len(self._buffer) > self._peak:
            self._peak = len(self._buffer)

    def _crowd(self, value: T) -> Any:
        """There is no room for `value`: PENDING, or what the policy says."""
        if self._overflow == WAIT:
            return PENDING
        if self._overflow == RAISE:
            raise self._full()
        unwanted: Any = self._bin()
        if self._overflow == DROP_OLDEST:
            self._displace(value, unwanted)
        else:
            self._dropped += 1
            unwanted += (value,)
        self._tell()
        return None

    def _displace(self, value: T, into: Any) -> None:
        """Put `value` in and move what has been inside for longest to `into`."""
        if self._returned:
            stores = prepared(self._buffer, value)
            self._dropped += 1
            into += (self._returned[0][1],)
            del self._returned[0]
            consume(stores)
        else:
            displace(self._buffer, value, into)
            self._dropped += 1

    def _force(self, value: T) -> list[T]:
        """Put `value` in, if need be in place of another one, which is returned."""
        if self._end:
            raise self._over(True)
        if self._receivers and self._hand_over(value):
            return []
        if len(self._buffer) + len(self._returned) + self._held < self._capacity:
            self._append(value)
            return []
        if not self._buffer and not self._returned:
            raise self._full()
        displaced: list[T] = []
        self._displace(value, displaced)
        return displaced

    def _take(self) -> T:
        """The next value: returned, buffered, or of a waiting sender; PENDING if there is none."""
        if self._returned:
            value = self._returned[0][1]
            del self._returned[0]
        elif self._buffer:
            value = self._buffer.popleft()
        else:
            senders = self._senders
            if not senders or (sender := senders.claim(self._after, _sends if self._reserving else None)) is None:
                return PENDING  # type: ignore[no-any-return]
            value = sender.value
            sender.value = None
            sender.state = SERVED
        self._received += 1
        if self._senders:
            self._refill()
        if not self._plain:
            self._refresh()
        return value

    def _refill(self) -> None:
        """There may be room: move waiting senders' values into it, and grant waiting reservations."""
        fits = self._fits if self._reserving else None
        while len(self._buffer) + len(self._returned) + self._held < self._capacity:
            sender = self._senders.claim(self._after, fits)
            if sender is None:
                return
            value = sender.value
            if self._reserving and sender.op._places:
                self._held += value._count
                value._left = value._count
                sender.state = SERVED
                continue
            if self._receivers and self._hand_over(value):  # they wait beside senders while places are promised
                sender.value = None
                sender.state = SERVED
                continue
            # the sender is served and its value put in by two stores and one call of C, for the sake of interrupts
            if self._compares:
                try:
                    stores = prepared(self._buffer, value)
                except Exception as error:  # its priority does not compare with those inside
                    sender.value = Refused(error)
                    sender.state = ENDED
                    continue
                sender.value = None
                sender.state = SERVED
                consume(stores)
            else:
                sender.value = None
                sender.state = SERVED
                self._buffer.append(value)
            if len(self._buffer) > self._peak:
                self._peak = len(self._buffer)
        if self._reserving and self._receivers:
            self._pair()

    def _pair(self) -> None:
        """There is no room, all of it is promised: senders at the head may still serve receivers that wait."""
        while self._senders and self._receivers and self._receivers.first() is not None:
            sender = self._senders.claim(self._after, _sends)
            if sender is None or not self._hand_over(sender.value):
                return  # the sender was claimed, finds that nothing happened, and starts again
            sender.value = None
            sender.state = SERVED

    def _fits(self, sender: Any) -> bool:
        op = sender.op  # None: an arm that is losing its select just now
        used = len(self._buffer) + len(self._returned) + self._held
        return op is None or used + (op._places or 1) <= self._capacity

    def _released(self) -> None:
        """Promised places have been used or given back."""
        if self._senders:
            self._refill()
        if self._end and not self._held:
            self._conclude()
        else:
            self._refresh()

    def _ending(self) -> bool:
        """Has it ended for receivers that find nothing?"""
        return self._end == CANCELLED or (self._end == CLOSED and not self._held)

    def _refresh(self) -> None:
        """Make the two hints true again."""
        plain = self._plain = not (self._senders or self._returned or self._end or self._compares)
        self._room = self._capacity - self._held if plain and not self._receivers else -1

    def _give_back(self, order: int, value: T) -> None:
        """A receiver that was served is gone: its value goes to the next, or to the head."""
        if self._end == CANCELLED:
            self._received -= 1
            self._dropped += 1
            self._discard([value])
        elif self._receivers and self._hand_over(value, order):
            self._received -= 1
        else:
            place = bisect(self._returned, order, key=_order)
            # from here on no call, and one store that decides: cut by an interrupt, this is done again
            self._returned = [*self._returned[:place], (order, value), *self._returned[place:]]
            self._received -= 1
            self._plain = False
            self._room = -1
            self._peak = max(self._peak, int(min(self._buffered(), self._capacity)))  # not what is above it

    def _bin(self) -> deque[T]:
        """Where values go that were taken and will never be delivered."""
        raise NotImplementedError

    def _tell(self) -> None:
        """See to it that the bin is emptied outside the lock, and told of to who wants to know. Can be repeated."""
        raise NotImplementedError

    def _discard(self, values: list[T]) -> None:
        unwanted = self._bin()
        unwanted += values
        self._tell()

    def _finish(self, end: int) -> bool:
        """Close, or cancel. False if that had happened before."""
        if self._end >= end:
            return False
        self._end = end
        self._conclude()
        return True

    def _conclude(self) -> None:
        """It has ended: everybody who waits is told, and what was cancelled is discarded. Can be repeated."""
        for queue in (self._receivers if self._ending() else NOBODY, self._senders):
            while queue and (waiter := queue.claim(self._after)) is not None:
                waiter.state = ENDED
        if self._end == CANCELLED:
            if self._buffer or self._returned:
                rest = [value for _, value in self._returned]
                rest += self._buffer
                count, fresh = len(rest), deque[T]()
                unwanted: Any = self._bin()
                # from here on no call: an interrupt finds all of it done, or nothing
                self._returned = []
                self._buffer = fresh
                self._dropped += count
                unwanted += rest
            self._tell()
        self._refresh()

    def _mend(self) -> None:
        self._tell()
        if self._end:
            self._conclude()
        else:
            if self._senders:
                self._refill()
            self._refresh()

    def _wait_to_send(self, waiter: Any, value: Any) -> None:
        if self._compares and not waiter.op._places:
            heap: Any = self._buffer
            heap.probe(value)
        waiter.value = value
        if self._senders is NOBODY:
            self._senders = WaitQueue()
        self._plain = False
        self._room = -1
        self._senders.append(waiter)

    def _wait_to_receive(self, waiter: Any) -> None:
        if self._receivers is NOBODY:
            self._receivers = WaitQueue()
        self._room = -1
        self._receivers.append(waiter)

    def _forget_waiters(self) -> None:
        self._senders = self._receivers = NOBODY
        self._refresh()

    # ------------------------------------------------------------- snapshots, without the lock
    def _buffered(self) -> int:
        return len(self._buffer) + len(self._returned)

    def _waiting(self) -> tuple[int, int]:
        senders, receivers = self._senders, self._receivers
        return (senders.live() if senders else 0, receivers.live() if receivers else 0)


class Refused:
    """In place of a waiting sender's value: why the buffer did not take it."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _sends(waiter: Any) -> bool:
    op = waiter.op
    return op is None or not op._places
