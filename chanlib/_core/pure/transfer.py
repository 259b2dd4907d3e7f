"""Transfer: the operations that put values into a ring and take them out of it.

Each is an attempt under the lock, in terms of what `ring` offers. `Send` and `Receive` have a short way beside it, for
a ring on which nobody waits: the locked section written out, with no call but those of the lock and the buffer. It does
what the long way would do, or leaves all to that.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from ...errors import ChannelEmpty, ChannelFull, WouldBlock
from ..lane import Lane, gate, lanes, modules, turn
from ..parking import waiter_here
from .leaf import Leaf
from .ops import DONE, PENDING, twice
from .ring import WAIT, Refused, Ring
from .source import SECTIONS
from .waiters import FEW, NOBODY, WaitQueue

__all__ = ["Drain", "Receive", "ReceiveSome", "RingLeaf", "Send", "SendSome", "Sending"]

T = TypeVar("T")


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
        if type(waiter.value) is Refused:
            return waiter.value.error
        return ring._over(self._sends)


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
