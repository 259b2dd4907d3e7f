"""Leases: a value that is looked at where it lies, in the shared memory, instead of being copied out.

Who has a lease holds up the other receivers: the first record is his, and the ring goes on behind it. LEASE says who
that is. If he dies the record is there for the next one.

Invariant: while LEASE is set the record at HEAD is written by nobody and HEAD is moved by nobody but the lessee.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._core.reentry import now_or_after
from .layout import BYTEARRAY, BYTES, VIEW
from .messages import Record, decode
from .operations import Receiving
from .parcels import Parcel

if TYPE_CHECKING:
    from .ends import Handle
    from .ports import Inbound

__all__ = ["Lease", "ReceiveView"]


class Lease:
    """A received value, in place: `with rx.receive_view().sync() as value:`. It is over when the block is left.

    `value` is a read-only memoryview of what was sent as bytes, bytearray or memoryview, and is released at the end;
    of any other value it is a copy, as `receive` gives it. Leaving the block raises `BufferError` if something, such as
    an array, still looks into the memory; it must not be used any more. Other receivers wait meanwhile.
    """

    __slots__ = ("_place", "_port", "value")

    def __init__(self, value: Any, port: Inbound | None = None, place: Any = None) -> None:
        self.value = value
        self._port = port
        self._place = None if place is None else weakref.ref(place)  # where it lies: alive as long as anybody looks

    def release(self) -> None:
        """End it, once. Called by leaving the block."""
        value: Any = self.value
        self.value = None
        port, self._port = self._port, None
        if port is None:
            return
        try:
            value.release()
            del value
        except BufferError:
            pass
        finally:
            _end(port)
        if self._place is not None and self._place() is not None:
            raise BufferError(
                "something still looks into the memory of a received value after its `with` block: drop it inside"
            )

    def __enter__(self) -> Any:
        return self.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if self._port is not None:
            self.release()


def _end(port: Inbound) -> None:
    def end() -> None:
        while not port._locked(port.end_lease):  # another process has the mutex, and is stopped
            time.sleep(0.001)

    now_or_after(end, None)


class ReceiveView(Receiving[Lease]):
    """Receiving a value in place."""

    __slots__ = ("_port",)

    def __init__(self, via: Handle, port: Inbound) -> None:
        self._via = via
        self._src = self._port = port

    def _attempt(self, port: Inbound) -> Any:
        slot = self._via._channel.slot
        assert slot is not None
        return self._look(port, lambda: port.lease(slot))

    def _finish(self, got: Any) -> Lease:
        port = self._port
        if type(got) is not Record or got.copied:  # it has been taken out
            value = port.decode(got, self._via._serializer)
            if type(got) is Parcel and got.kind in (BYTES, BYTEARRAY, VIEW):
                value = memoryview(value).toreadonly()
            return Lease(value)
        if got.kind in (BYTES, BYTEARRAY, VIEW):
            view = got.payload
            place = (ctypes.c_char * view.nbytes).from_buffer(view)
            return Lease(memoryview(place).cast("B").toreadonly(), port, place)
        try:
            return Lease(decode(got.copy(), self._via._serializer))
        finally:
            _end(port)

    def _describe(self, port: Any) -> str:
        return f"receive_view from {self._via!r}"
