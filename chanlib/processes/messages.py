"""Messages: how a value becomes a record, and a record a value.

All that runs a user's code, pickling and unpickling, is done outside of every lock: a sender encodes before it looks
for room, a receiver decodes what it has copied out. A small integer stands in the header; bytes and strings are copied
as they are; everything else is pickled (protocol 5), with its large buffers beside the pickle, so that an array is
copied once on each side. What is longer than the ring takes goes into memory of its own, whose descriptor travels with
it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol, cast

from ..errors import ChannelClosed, WouldBlock
from .courier import Courier, Flight, carried, here
from .descriptors import close_all
from .layout import (
    BYTEARRAY,
    BYTES,
    CUSTOM,
    HEADER,
    PAIR,
    PARCEL,
    PICKLE,
    SPILLED,
    STR,
    UNIT,
    VIEW,
    units_of,
)
from .memory import Memory, look

__all__ = ["LARGEST", "SMALLEST", "Message", "Record", "Serializer", "decode", "encode", "read", "write"]

SMALLEST, LARGEST = -(2**63), 2**63 - 1
"""Of the integers that stand in the header of a record."""
_MOST_BUFFERS = 1 << 16
_ALONE = {type(None), bool, float, complex, int}  # nothing is inside them


class Serializer(Protocol):
    """What can stand in for pickle: a module such as `json` or `marshal`, or any object with these two functions."""

    def dumps(self, value: Any, /) -> bytes | str: ...
    def loads(self, data: Any, /) -> Any: ...


class Message:
    """A value, ready to be written."""

    __slots__ = ("buffers", "courier", "kind", "length", "payload", "units")

    payload: Any
    buffers: Sequence[memoryview]
    courier: Courier | None  # with the descriptors that travel along

    def __init__(self, kind: int, payload: Any, buffers: Sequence[memoryview] = (), courier: Any = None) -> None:
        self.kind = kind
        self.payload = payload
        self.buffers = buffers
        self.length = length = len(payload)
        self.courier = courier
        units = (length + (2 * UNIT - 1)) // UNIT
        if buffers:
            units += units_of(8 * len(buffers))
            for buffer in buffers:
                units += units_of(buffer.nbytes)
        if courier is not None:
            units += 1
        self.units = units

    def fits(self, longest: int) -> Message:
        """Itself, or a message of one unit and more that leads to where it is, if it is longer than that."""
        if self.units <= longest:
            return self
        memory = Memory.create(self.units * UNIT)
        try:
            write(memory.view, 0, self, 0)
        except BaseException:
            memory.close()
            raise
        courier = self.courier or Courier([])
        courier.take_aboard(memory)
        short = Message(self.kind, b"", (), courier)
        short.length = self.units * UNIT
        return short

    def keep(self) -> object:
        """It has to wait: what its sender does to his buffers meanwhile is not to be seen. What it had before."""
        before = self.payload, self.buffers
        if type(self.payload) is memoryview:
            self.payload = bytes(self.payload)
        self.buffers = [memoryview(bytes(buffer)) for buffer in self.buffers]
        return before

    def abandon(self) -> None:
        """It will not be sent."""
        if self.courier is not None:
            self.courier.turn_back()


def encode(value: Any, serializer: Serializer | None) -> Any:
    """`value` as a message, or the integer itself. Raises whatever its pickling raises."""
    kind: object = type(value)  # pyright: ignore[reportUnknownVariableType]
    if serializer is not None:
        data: Any = serializer.dumps(value)
        if isinstance(data, str):  # as that of json
            data = data.encode()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"serializer.dumps() must return bytes, not {type(data).__name__}")
        return Message(CUSTOM, _flat(data))
    if kind is int and SMALLEST <= value <= LARGEST:
        return value
    if kind is bytes:
        return Message(BYTES, value)
    if kind is str:
        try:
            return Message(STR, value.encode())
        except UnicodeEncodeError:  # lone surrogates: pickle knows how
            pass
    elif kind is bytearray:
        return Message(BYTEARRAY, _flat(value))
    elif kind is memoryview:
        return Message(VIEW, _flat(value))
    elif kind in _ALONE:
        return Message(PICKLE, pickle.dumps(value, 5))
    try:
        return _pickled(value, pickle.dumps)
    except (TypeError, pickle.PicklingError, BufferError):
        try:
            return _pickled(value, _dumps_more)
        except Exception:
            pass  # the first error says it in the user's words
        raise


def _pickled(value: Any, dumps: Any) -> Message:
    parts: list[pickle.PickleBuffer] = []
    before = here.flights
    flights: list[Flight] = []
    here.flights = flights
    try:
        data = dumps(value, protocol=5, buffer_callback=parts.append)
        buffers = [part.raw() for part in parts] if parts else ()
        if len(buffers) >= _MOST_BUFFERS:
            data, buffers = dumps(value, protocol=5), ()
    except BaseException:
        Courier(flights).turn_back()
        raise
    finally:
        here.flights = before
    return Message(PICKLE, data, buffers, Courier(flights) if flights else None)


def _dumps_more(value: Any, protocol: int, buffer_callback: Any = None) -> Any:
    """What processes know how to pickle besides: connections, sockets."""
    stream = io.BytesIO()
    pickler = ForkingPickler(stream, protocol)
    pickler.dump(value)
    return stream.getvalue()


def _flat(data: Any) -> Any:
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def write(data: memoryview, at: int, message: Message, number: int) -> None:
    """Write it there; its descriptors travel under `number`."""
    buffers = message.buffers
    courier: Any = message.courier
    flags = 0
    if number:
        flags = PARCEL | SPILLED if courier.memory is not None else PARCEL
    HEADER.pack_into(data, at, message.units, message.kind, flags, len(buffers), message.length)
    at += UNIT
    if number:
        PAIR.pack_into(data, at, number, courier.count)
        at += UNIT
    if buffers:
        lengths = data[at : at + 8 * len(buffers)].cast("Q")
        for i, buffer in enumerate(buffers):
            lengths[i] = buffer.nbytes
        at += UNIT * units_of(8 * len(buffers))
    payload = message.payload
    data[at : at + len(payload)] = payload
    if buffers:
        at += UNIT * units_of(len(payload))
        for buffer in buffers:
            data[at : at + buffer.nbytes] = buffer
            at += UNIT * units_of(buffer.nbytes)


class Record:
    """What has been read, to be decoded."""

    __slots__ = ("_at", "_data", "buffers", "copied", "count", "fds", "kind", "number", "payload", "spilled", "units")

    fds: list[int] | None  # the descriptors that came along; -1 where one has been taken

    def __init__(self, data: memoryview, at: int, copy: bool) -> None:
        self.fds = None
        self.copied = copy
        self._data: memoryview | None = None if copy else data
        self._at = at
        self.units, kind, flags, buffers, length = HEADER.unpack_from(data, at)
        self.kind = kind
        at += UNIT
        self.number = self.count = 0
        if flags & PARCEL:
            self.number, self.count = PAIR.unpack_from(data, at)
            at += UNIT
        self.spilled = flags & SPILLED != 0
        self.buffers: list[Any] | None = None
        if self.spilled:
            self.payload: Any = None
            return
        lengths: list[int] = data[at : at + 8 * buffers].cast("Q").tolist()
        at += UNIT * units_of(8 * buffers)
        view = data[at : at + length]
        if not copy:
            self.payload = view
        elif kind in (BYTEARRAY, VIEW):
            self.payload = bytearray(view)
        else:
            self.payload = view.tobytes()
        if buffers:
            at += UNIT * units_of(length)
            self.buffers = []
            for size in lengths:
                part = data[at : at + size]
                self.buffers.append(bytearray(part) if copy else part)
                at += UNIT * units_of(size)

    def copy(self) -> Record:
        """The same, copied out."""
        return self if self._data is None else Record(self._data, self._at, True)

    def __del__(self) -> None:
        """Nobody has wanted it, or an interrupt has kept him from it."""
        fds: list[int] | None = getattr(self, "fds", None)
        if fds:
            close_all(fd for fd in fds if fd >= 0)


def read(data: memoryview, at: int) -> tuple[Any, int]:
    """The record that is there, and its units. Copied out: the place may be used again.

    A plain one, which is nothing but a payload, is that and its kind.
    """
    units, kind, flags, buffers, length = HEADER.unpack_from(data, at)
    if flags or buffers or kind in (BYTEARRAY, VIEW):
        record = Record(data, at, True)
        return record, units
    at += UNIT
    return (kind, data[at : at + length].tobytes()), units


def decode(record: Any, serializer: Serializer | None) -> Any:
    """The value. Raises whatever its unpickling raises; it is then lost.

    What would mean something else to who receives, that there is no more above all, is a RuntimeError (as PEP 479).
    """
    try:
        return _decoded(record, serializer)
    except (StopIteration, StopAsyncIteration, ChannelClosed, WouldBlock) as error:
        raise RuntimeError(f"the unpickling of a value raised {type(error).__name__}") from error


def _decoded(record: Any, serializer: Serializer | None) -> Any:
    if type(record) is int:
        return record
    kind: int
    payload: Any
    if type(record) is tuple:
        kind, payload = cast("tuple[int, Any]", record)
        if kind == PICKLE:
            return pickle.loads(payload)
        if kind == BYTES:
            return payload
        return str(payload, "utf-8") if kind == STR else cast(Serializer, serializer).loads(payload)
    fds = record.fds
    inside = record
    if record.spilled:
        if not fds:
            raise OSError("the memory with this message has not come along: no descriptor was free")
        inside = Record(look(fds.pop()), 0, False)
    kind, payload = inside.kind, inside.payload
    if kind == PICKLE:
        with carried(fds):
            return pickle.loads(payload, buffers=inside.buffers or ())
    if kind == CUSTOM:
        return cast(Serializer, serializer).loads(bytes(payload))
    if kind == STR:
        return str(payload, "utf-8")
    if kind == BYTES:
        return payload if type(payload) is bytes else bytes(payload)
    if kind == BYTEARRAY:
        return payload if type(payload) is bytearray else bytearray(payload)
    return memoryview(payload)
