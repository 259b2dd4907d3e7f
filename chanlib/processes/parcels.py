"""Parcels: messages as they go through a pump, where no memory is shared.

The formats are those of `messages`; what of a message lies in somebody's object is copied once, when the parcel is
made, so that nobody can change it on the way. It is made and unpacked outside of every lock, as records are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from .courier import Courier
from .layout import BYTEARRAY, INT, VIEW
from .messages import Message, Serializer, decode, encode
from .tickets import Ticket, give_up

__all__ = ["Parcel", "Wire", "pack", "unpack", "unwire", "wire"]

Wire = tuple[int, int, int, Any, Any, Sequence[Ticket]]
"""A parcel between two processes: its number, units and kind, its payload and its buffers, and the handles inside."""


class _Ticketed(Protocol):
    ticket: Ticket


_SHORT = 2  # units that a long value counts for: in a ring it would lie elsewhere


class Parcel:
    """`decode` takes it as the record that it would have become."""

    __slots__ = ("buffers", "courier", "doubt", "fds", "kind", "number", "payload", "spilled", "tickets", "units")

    spilled: bool
    fds: None

    def __init__(
        self, number: int, units: int, kind: int, payload: Any, buffers: Sequence[Any] | None, tickets: Sequence[Ticket]
    ) -> None:
        self.number = number  # in the order of sending; 0: it has not been sent
        self.units = units
        self.kind = kind
        self.payload = payload
        self.buffers = buffers
        self.tickets = tickets
        self.courier: Courier | None = None
        self.doubt: Any = None  # the call by which it may have been sent
        self.spilled = False
        self.fds = None

    def fits(self, longest: int) -> Parcel:
        """It is longer than a ring would take."""
        self.units = min(self.units, _SHORT)
        return self

    def abandon(self) -> None:
        """It will not be sent."""
        if self.courier is not None:
            self.courier.turn_back()

    def size(self) -> int:
        """Bytes, more or less."""
        if self.kind == INT:
            return 8
        return len(self.payload) + sum(len(buffer) for buffer in self.buffers or ())


def pack(value: Any, serializer: Serializer | None) -> Parcel:
    """Raises whatever the pickling of `value` raises."""
    message: Any = encode(value, serializer)
    if type(message) is int:
        return Parcel(0, 1, INT, message, None, ())
    assert isinstance(message, Message)
    payload: Any = message.payload
    if message.kind in (BYTEARRAY, VIEW):
        payload = bytearray(payload)
    elif type(payload) is not bytes:
        payload = bytes(payload)
    buffers = [bytearray(buffer) for buffer in message.buffers] or None
    courier = message.courier
    tickets = [] if courier is None else [cast(_Ticketed, flight).ticket for flight in courier.flights]
    made = Parcel(0, message.units, message.kind, payload, buffers, tickets)
    made.courier = courier
    return made


def unpack(parcel: Parcel, serializer: Serializer | None) -> Any:
    """The value. Raises whatever its unpickling raises; it is then lost."""
    if parcel.kind == INT:
        return parcel.payload
    try:
        return decode(parcel, serializer)
    except BaseException:
        give_up(parcel.tickets)
        raise


def wire(parcels: Iterable[Parcel]) -> list[Wire]:
    return [(one.number, one.units, one.kind, one.payload, one.buffers, one.tickets) for one in parcels]


def unwire(wires: Iterable[Wire]) -> list[Parcel]:
    return [Parcel(*one) for one in wires]
