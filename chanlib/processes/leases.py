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
from .messages import Record
from .operations import Receiving
from .parcels import Parcel
from .ports import Hold

if TYPE_CHECKING:
    from .conduit import Conduit
    from .ends import Handle
    from .ports import Inbound

__all__ = ["Lease", "ReceiveView"]


class Lease:
    """A received value, in place: `with rx.receive_view().sync() as value:`. It is over when the block is left.

    `value` is a read-only memoryview of what was sent as bytes, bytearray or memoryview, and is released at the end;
    of any other value it is a copy, as `receive` gives it. Leaving the block raises `BufferError` if something, such as
    an array, still looks into the memory; it must not be used any more. Other receivers wait meanwhile.
    """

    __slots__ = ("_conduit", "_hold", "_place", "value")

    def __init__(self, conduit: Conduit) -> None:
        self._hold = Hold()
        self._place: weakref.ref[Any] | None = None  # where it lies: alive as long as anybody looks
        self.value: Any = None
        self._conduit: Conduit | None = conduit  # last: what has none needs no end

    def release(self) -> None:
        """End it, once. Called by leaving the block."""
        conduit = self._conduit
        if conduit is None:
            return
        value = self.value
        self.value = None
        if self._place is not None and value is not None:  # else an interrupt has cut this before
            try:
                value.release()
            except BufferError:
                pass
        del value
        _end(conduit, self._hold)
        self._conduit = None
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
        if getattr(self, "_conduit", None) is not None:
            self.release()


def _end(conduit: Conduit, hold: Hold) -> None:
    def end() -> None:
        port = conduit.inbound
        if port.hold is not hold:
            return
        while not port._locked(port.end_lease, hold):  # another process has the mutex, and is stopped
            time.sleep(0.001)
        if not (conduit.senders or conduit.receivers):  # all its handles were closed meanwhile
            conduit.outbound._locked(conduit._leave)

    now_or_after(end, None)


class ReceiveView(Receiving[Lease]):
    """Receiving a value in place. The lease is made beforehand: an interrupt that comes later ends it."""

    __slots__ = ("_lease",)

    def __init__(self, via: Handle, port: Inbound) -> None:
        self._via = via
        self._src = port
        self._lease = Lease(via._channel)

    def _attempt(self, port: Inbound) -> Any:
        hold = self._lease._hold
        hold.slot = self._via._channel.slot or 0
        return self._look(port, lambda: port.lease(hold))

    def _finish(self, got: Any) -> Lease:
        lease, via = self._lease, self._via
        if type(got) is Record and not got.copied:
            if got.kind in (BYTES, BYTEARRAY, VIEW):
                view = got.payload
                place = (ctypes.c_char * view.nbytes).from_buffer(view)
                lease._place = weakref.ref(place)
                lease.value = memoryview(place).cast("B").toreadonly()
                return lease
            got = got.copy()
        lease.release()  # it is not looked at where it lies
        lease.value = via._channel.inbound.decode(got, via._serializer)
        if type(got) is Parcel and got.kind in (BYTES, BYTEARRAY, VIEW):
            lease.value = memoryview(lease.value).toreadonly()
        return lease

    def _describe(self, port: Any) -> str:
        return f"receive_view from {self._via!r}"
