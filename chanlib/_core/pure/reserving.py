"""Reserving places in a ring: an operation that stands in the queue of senders and takes no value.

A reservation asks for several places at once and gets all of them or none. It is first in, first out with the
senders: nobody passes a big one that waits.

Invariant: `ring._held` is the sum of `_left` over all `Places`; both change together, without a call in between.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .buffers import consume, prepared
from .ops import PENDING
from .ring import CANCELLED, Ring
from .transfer import Sending

__all__ = ["Places", "Reserve"]

P = TypeVar("P", bound="Places")


class Places:
    """Places in a ring, promised to whoever holds this: `_left` of `_count` still to be used."""

    __slots__ = ("_count", "_left", "_ring")

    def __init__(self, ring: Ring[Any], count: int) -> None:
        self._left = 0  # none before it is granted
        self._count = count
        self._ring = ring

    def _give_up(self) -> None:
        """Under the lock: what is left goes to others."""
        ring = self._ring
        ring._held -= self._left
        self._left = 0
        ring._released()

    def _use(self, value: Any) -> bool:
        """Under the lock: put `value` into one of the places. False if none is left."""
        ring = self._ring
        if not self._left:
            return False
        if ring._end == CANCELLED:
            raise ring._over(True)
        if ring._receivers and ring._hand_over(value):
            self._left -= 1
            ring._held -= 1
        else:
            stores = prepared(ring._buffer, value)
            self._left -= 1
            ring._held -= 1
            consume(stores)
            ring._peak = max(ring._peak, len(ring._buffer))
        ring._released()
        return True


class Reserve(Sending[P]):
    """`reserve(n)`. Its value is the `Places` that it asks for."""

    __slots__ = ("_places",)

    _value: P

    def __init__(self, ring: Ring[Any], places: P) -> None:
        self._places = places._count
        self._value = places
        self._src = ring

    def _hint(self, ring: Ring[Any]) -> bool:
        return True

    def _attempt(self, ring: Ring[Any]) -> Any:
        ring._reserving = True
        if ring._end:
            raise ring._over(True)
        if ring._senders and ring._senders.first() is not None:
            return PENDING
        places = self._value
        if len(ring._buffer) + len(ring._returned) + ring._held + places._count > ring._capacity:
            return PENDING
        ring._held += places._count
        places._left = places._count
        ring._refresh()
        return places

    def _enqueue(self, ring: Ring[Any], waiter: Any) -> None:
        ring._wait_to_send(waiter, self._value)

    def _undo(self, ring: Ring[Any], waiter: Any) -> bool:
        waiter.value._give_up()
        return True

    def _received(self, ring: Ring[Any], value: Any) -> Any:
        return value

    def _describe(self, ring: Ring[Any]) -> str:
        return f"reserve {self._places} of {ring!r}"
