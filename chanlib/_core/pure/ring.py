"""Ring: the source behind a channel. A buffer between two queues of waiters.

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

import math
from bisect import bisect
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar

from ...errors import ChannelEmpty, ChannelFull, WouldBlock
from ..lane import Lane, gate, lanes, modules, turn
from ..parking import waiter_here
from .buffers import Order, consume, displace, empty, prepared
from .leaf import Leaf
from .ops import DONE, PENDING, twice
from .source import SECTIONS, Source
from .waiters import ENDED, FEW, NOBODY, SERVED, WaitQueue

__all__ = [
    "CANCELLED",
    "CLOSED",
    "DROP_NEWEST",
    "DROP_OLDEST",
    "OPEN",
    "RAISE",
    "WAIT",
    "Drain",
    "Receive",
    "ReceiveSome",
    "Ring",
    "RingLeaf",
    "Send",
    "SendSome",
    "Sending",
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
                    sender.value = _Refused(error)
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


class RingLeaf(Leaf[T]):
    __slots__ = ()

    _sends = False

    def _queue(self, ring: Ring[Any]) -> WaitQueue:
        return ring._senders if self._sends else ring._receivers

    def _withdraw(self, ring: Ring[Any], waiter: Any) -> None:
        queue = self._queue(ring)
        if queue is not NOBODY:
            queue.withdrawn()
            if ring._reserving and ring._senders and not ring._end:
                ring._refill()  # a big reservation may have held back those behind it
            ring._refresh()

    def _forget(self, ring: Ring[Any], arm: Any) -> None:
        if len(self._queue(ring)) > FEW or ring._reserving:
            ring._locked(self._withdraw, ring, arm)

    def _ended(self, ring: Ring[Any], waiter: Any) -> BaseException:
        if type(waiter.value) is _Refused:
            return waiter.value.error
        return ring._over(self._sends)


class _Refused:
    """In place of a waiting sender's value: why the buffer did not take it."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _sends(waiter: Any) -> bool:
    op = waiter.op
    return op is None or not op._places


class Sending(RingLeaf[T]):
    __slots__ = ("_value",)

    _sends = True
    _places = 0  # how many it reserves
    _value: Any

    def _hint(self, ring: Ring[Any], /) -> bool:
        room = ring._room  # read once: it may change under us
        return room < 0 or len(ring._buffer) < room or ring._overflow != WAIT

    def _snapshot(self, ring: Ring[Any]) -> Any:
        try:
            return ring._locked(self._attempt, ring)
        except ChannelFull:  # by the policy "raise"; for `poll` that is a no, and the operation can be tried again
            return PENDING

    def _undo(self, ring: Ring[Any], waiter: Any) -> bool:
        return False  # it is with the receiver

    def _would_block(self, ring: Ring[Any]) -> WouldBlock:
        return ring._full()

    def _describe(self, ring: Ring[Any]) -> str:
        return f"send to {ring!r}"


class Send(Sending[None]):
    """`send(value)`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        """As `Op.__await__`, but no generator if it need not wait."""
        ring = self._src
        if ring is None:
            raise twice(self)
        self._src = None
        lane = lanes.lane
        left = lane.left
        if left and "trio" not in modules:
            lane.left = left - 1
        elif gate(lane):
            return self._after_turn(ring, lane)
        if self._now(ring) is PENDING:
            return self._wait(ring, waiter_here)
        return DONE  # type: ignore[no-any-return]

    def _after_turn(self, ring: Ring[Any], lane: Lane) -> Generator[Any, Any, None]:
        yield from turn(lane)
        if self._now(ring) is PENDING:
            yield from self._wait(ring, waiter_here)

    def _now(self, ring: Ring[Any]) -> Any:
        """As `Leaf._now`, with the short way written out: a free place in a buffer that nobody waits for."""
        if len(ring._buffer) >= ring._room:
            return ring._locked(self._attempt, ring) if ring._room < 0 or ring._overflow else PENDING
        entered = put = released = False
        try:
            if not ring._lock.acquire(False):
                ring._contended()
            if not ring._busy:
                entered = True
                ring._busy = True
                used = len(ring._buffer)
                if used < ring._room:
                    if used >= ring._peak:
                        ring._peak = used + 1
                    put = True
                    ring._buffer.append(self._value)
                ring._busy = False
            released = True
            ring._lock.release()
            if ring._after:
                ring._settle()
        except BaseException:
            cut = [released, entered, None]
            try:
                ring._recover(cut)
            except BaseException:
                ring._recover(cut)
                raise
            raise
        return None if put else ring._locked(self._attempt, ring)

    def _attempt(self, ring: Ring[Any]) -> Any:
        if ring._end:
            raise ring._over(True)
        return None if ring._put(self._value) else ring._crowd(self._value)

    def _enqueue(self, ring: Ring[Any], waiter: Any) -> None:
        ring._wait_to_send(waiter, self._value)

    def _received(self, ring: Ring[Any], value: Any) -> None:
        return None


class SendSome(Sending[int]):
    """`send_some(values)`: as many of the first as there is room for now, at least one."""

    __slots__ = ()

    _value: Sequence[Any]

    def _hint(self, ring: Ring[Any]) -> bool:
        return not self._value or super()._hint(ring)

    def _attempt(self, ring: Ring[Any]) -> Any:
        if ring._end:
            raise ring._over(True)
        count = 0
        for value in self._value:
            try:
                if not ring._put(value) and ring._crowd(value) is PENDING:
                    break
            except Exception as error:  # full, or not to be compared: the first ones are in
                if not count:
                    raise
                ring._drop(error)
                break
            count += 1
        return PENDING if self._value and not count else count

    def _enqueue(self, ring: Ring[Any], waiter: Any) -> None:
        ring._wait_to_send(waiter, self._value[0])

    def _received(self, ring: Ring[Any], value: Any) -> int:
        return 1


class Receiving(RingLeaf[T]):
    __slots__ = ()

    def _hint(self, ring: Ring[Any]) -> bool:
        return bool(ring._buffer or not ring._plain)

    def _enqueue(self, ring: Ring[Any], waiter: Any) -> None:
        ring._wait_to_receive(waiter)

    def _undo(self, ring: Ring[Any], waiter: Any) -> bool:
        ring._give_back(waiter.order, waiter.value)
        return True

    def _would_block(self, ring: Ring[Any]) -> WouldBlock:
        return ChannelEmpty(f"{ring!r} is empty and nobody waits to send")

    def _describe(self, ring: Ring[Any]) -> str:
        return f"receive from {ring!r}"


class Receive(Receiving[T]):
    """`receive()`."""

    __slots__ = ()

    def _now(self, ring: Ring[T]) -> Any:
        """As `Leaf._now`, with the short way written out: a value in a buffer that nobody waits to fill."""
        plain = ring._plain
        if not plain:
            return ring._locked(self._attempt, ring)
        if not ring._buffer:
            return PENDING
        value: Any = PENDING
        entered = released = False
        try:
            if not ring._lock.acquire(False):
                ring._contended()
            if not ring._busy:
                entered = True
                ring._busy = True
                if ring._plain and len(ring._buffer):  # looked at again, now under the lock
                    ring._received += 1
                    value = ring._buffer.popleft()
                ring._busy = False
            released = True
            ring._lock.release()
            if ring._after:
                ring._settle()
        except BaseException:
            cut = [released, entered, None]
            try:
                ring._recover(cut)
            except BaseException:
                ring._recover(cut)
                raise
            raise
        return ring._locked(self._attempt, ring) if value is PENDING else value

    def _attempt(self, ring: Ring[T]) -> Any:
        value = ring._take()
        if value is PENDING and ring._end and ring._ending():
            raise ring._over(False)
        return value


class ReceiveSome(Receiving[list[T]]):
    """`receive_some(max)`: what is there now, at least one and at most `max`."""

    __slots__ = ("_max",)

    _max: float

    def _hint(self, ring: Ring[T]) -> bool:
        return not self._max or super()._hint(ring)

    def _attempt(self, ring: Ring[T]) -> Any:
        values = self._taken(ring)
        if values or not self._max:
            return values
        if ring._end and ring._ending():
            raise ring._over(False)
        return PENDING

    def _taken(self, ring: Ring[T]) -> list[T]:
        values: list[T] = []
        while len(values) < self._max:
            try:
                value = ring._take()
            except Exception as error:  # of a comparison: what was taken before must not be lost
                if not values:
                    raise
                ring._drop(error)
                break
            if value is PENDING:
                break
            values.append(value)
        return values

    def _received(self, ring: Ring[T], value: Any) -> list[T]:
        return [value]


class Drain(ReceiveSome[T]):
    """`drain()`: everything that is there now, perhaps nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self._max = math.inf

    def _attempt(self, ring: Ring[T]) -> Any:
        return self._taken(ring)


SECTIONS[Send._now.__code__] = "ring"
SECTIONS[Receive[Any]._now.__code__] = "ring"
