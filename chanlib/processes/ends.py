"""The handles of a channel between processes: `ProcessSender`, `ProcessReceiver`, and `ProcessChannel`, which is both.

    what                    between processes
    ----------------------  -------------------------------------------------------------------------
    capacity                at least 1: a rendezvous would need the receiver's word that it has taken the value, and a
                            process can be killed before it gives it
    order, overflow         first in, first out; senders wait
    reserve, force_send     not: a place or value taken back by a process that dies could be nobody's
    on_undelivered          not: whoever sent it may be gone
    values                  copies, made by pickle or `serializer` when the send is performed
    statistics              `sent`, `received` and who waits: of this process
    wait_closed             felt within HEARTBEAT seconds if another process ends it
    cause of the end        a copy; `RemoteError` if it does not survive pickling

Source of the semantics: `Channel` and `open_channel`; the counting by the kernel is that of pipes.
"""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, cast

from typing_extensions import TypeVar

from .._core.engine import Op
from ..blocks import ClosedAtEnd
from ..channels import ChannelStatistics
from ..checks import check_cause, check_count, check_max, check_name
from ..errors import BrokenChannel, ChannelEmpty, EndOfChannel, HandleClosed
from ..iterating import Received
from ..sending import SendAll
from .conduit import Conduit
from .features import SHARED
from .handles import SharedHandle
from .leases import Lease, ReceiveView
from .messages import Serializer
from .operations import Closed, Receive, ReceiveSome, Send, SendSome
from .ports import CANCELLED, CLOSED, Port
from .pump import Pumped
from .ring import MOST

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ProcessChannel", "ProcessReceiver", "ProcessSender", "open_process_channel"]

Item = TypeVar("Item", default=Any)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

_LEAST_BYTES, _MOST_BYTES = 512, 1 << 34
_KIND: type[Conduit] = Conduit if SHARED else cast("type[Conduit]", Pumped)
"""What handles lead to. The two answer the same calls."""


def _conduit(capacity: Any, buffer_bytes: Any, serializer: Any, name: Any) -> Conduit:
    if capacity == 0 and not isinstance(capacity, bool):
        raise ValueError(
            "capacity must be at least 1: between processes there is no rendezvous, since whoever takes a value "
            "can be killed before he says so"
        )
    if capacity != math.inf:
        check_count(capacity, "capacity", 1, MOST, "math.inf")
    check_count(buffer_bytes, "buffer_bytes", _LEAST_BYTES, _MOST_BYTES)
    if serializer is not None and not (
        callable(getattr(serializer, "dumps", None)) and callable(getattr(serializer, "loads", None))
    ):
        raise TypeError(f"serializer must have the functions dumps and loads, as pickle has, not {serializer!r}")
    check_name(name)
    return _KIND.create(0 if capacity == math.inf else capacity, buffer_bytes)


class open_process_channel(tuple["ProcessSender[Item]", "ProcessReceiver[Item]"]):
    """A new channel between processes as its two ends, which are counted: `tx, rx = open_process_channel(100)`.

    An end is a value that can be given to other processes: as an argument of a process that is started, of
    `ProcessPoolExecutor.submit` or the like, or through a process channel. There it is another end, as if cloned. The
    last sender's close ends the stream. If the last sender dies without one, receivers get what it has sent, and then
    `BrokenChannel`; so do senders when the last receiver is gone.

    `capacity` is how many values it holds, `math.inf` no number. `buffer_bytes` is how many bytes of them, together,
    and about how long a value may be that goes that way; a longer one goes through memory of its own, or, if `spill` is
    false, raises `MessageTooLarge`. `serializer` stands in for pickle: a module or object with `dumps` and `loads`,
    itself pickled by reference. Pickle runs code of the sender's choice: a channel is for processes of one program.

    Raises `OSError` if memory or descriptors cannot be had; about twice `buffer_bytes` are taken from memory at once.
    """

    __slots__ = ()

    def __new__(  # type: ignore[misc]
        cls,
        capacity: float,
        *,
        buffer_bytes: int = 1 << 20,
        serializer: Serializer | None = None,
        spill: bool = True,
        name: str | None = None,
    ) -> tuple[ProcessSender[Item], ProcessReceiver[Item]]:
        conduit = _conduit(capacity, buffer_bytes, serializer, name)
        options = serializer, spill, name
        ends = ProcessSender[Item]._shut_one(conduit, options), ProcessReceiver[Item]._shut_one(conduit, options)
        conduit.open(ends)
        return ends


class Handle(SharedHandle[Conduit], ClosedAtEnd):
    """What the kinds of handle of a channel have in common."""

    __slots__ = ("_cause", "_serializer", "_spill")

    _kind = _KIND
    _serializer: Serializer | None
    _spill: bool
    _cause: BaseException | None

    def _configure(self, *options: Any) -> None:
        serializer, self._spill, self._name = options
        self._serializer = serializer.module() if isinstance(serializer, _Named) else serializer
        self._cause = None

    def _options(self) -> tuple[Any, ...]:
        serializer: Any = self._serializer
        if isinstance(serializer, ModuleType):
            serializer = _Named(serializer.__name__)
        return serializer, self._spill, self._name

    # ------------------------------------------------------------- for the operations
    def _nobody(self, port: Port, sending: bool) -> bool | None:
        return port.nobody(self._channel.slots, sending)

    def _cause_of_end(self) -> BaseException | None:
        return self._channel.cause()

    def _shut(self) -> HandleClosed:
        return HandleClosed(f"{self!r} is closed", channel=self, cause=self._cause)

    # ------------------------------------------------------------- ends
    def clone(self) -> Self:
        """Another handle of the same kind, to be closed by itself. Raises `HandleClosed` if this one is closed."""
        return self._made(self._used(), self._options())

    def close(self, cause: BaseException | None = None) -> bool:
        """Close this end, and the channel if it is the last of its kind in all processes.

        Operations that wait through this end fail with `HandleClosed`, undone. `cause` is kept, as a copy: when the
        last sender is closed, receivers drain and then get `BrokenChannel` from the first cause that any sender was
        closed with. Returns True the first time. Does not block; may be called from anywhere.
        """
        check_cause(cause)
        if self._open:
            self._cause = cause
        return self._let_go(cause)

    async def aclose(self) -> None:
        """As `close()`, under the name that anyio's streams have for it."""
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether this end or the channel is closed, or the other side has gone, in whatever way."""
        if not self._open or self._channel.ended():
            return True
        conduit = self._channel
        return self._nobody(conduit.outbound if self._sends else conduit.inbound, self._sends) is not False

    def wait_closed(self) -> Op[None]:
        """Wait until the channel is closed, this end is, or the other side has gone, in whatever way.

        Felt within 0.2 s if another process does it.
        """
        conduit = self._channel
        return Closed(self, conduit.outbound if self._sends else conduit.inbound)

    @property
    def capacity(self) -> float:
        """How many values it holds."""
        return self._channel.ring.capacity

    def statistics(self) -> ChannelStatistics:
        """A snapshot. `sent`, `received` and those who wait are of this process; ends count in all processes."""
        return self._channel.statistics()

    def __len__(self) -> int:
        return len(self._channel.ring)

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied: use clone()")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied: use clone()")

    def _state(self) -> str:
        ring = self._channel.ring
        return f" {len(ring)}/{ring.capacity}"


class _Named:
    """A module as a serializer, on its way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def module(self) -> Any:
        return importlib.import_module(self.name)


class _Counted(Handle):
    __slots__ = ()

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not sys.is_finalizing():  # then the kernel counts it as lost
            if self._sent or self._is_inherited():  # it was for another process; it is here by a fork only
                self.close()
                return
            try:
                warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self.close(RuntimeError("an end of this channel was dropped without close()"))


class _SendsTo(Handle, Generic[T_contra]):
    __slots__ = ()
    _sends = True

    def send(self, value: T_contra, /) -> Op[None]:
        """Put `value` in, waiting for room. It is pickled when this is performed; what then fails raises here.

        Waits while the channel is full. A cancelled or timed-out send has had no effect.
        Raises `HandleClosed` if the channel or this end is closed, `BrokenChannel` once nobody is left to receive, also
        while it waits; `MessageTooLarge`, `OSError` if there is no memory for a long one.
        """
        op = Send()
        op._via = self
        op._value = value
        op._message = None
        op._src = self._channel.outbound
        return op

    def send_nowait(self, value: T_contra, /) -> None:
        """Put `value` in if there is room, else raise `ChannelFull`. Never blocks."""
        self.send(value).poll()

    def send_some(self, values: Sequence[T_contra], /) -> Op[int]:
        """Put in as many of `values` as there is room for, from the first on; the result says how many.

        Waits until there is room for at least one. All that go in do so in one step. Raises as `send`.
        """
        values = values if isinstance(values, (list, tuple)) else list(values)
        return SendSome(self, self._channel.outbound, values)

    def send_all(self, values: Iterable[T_contra], /) -> SendAll[T_contra]:
        """Put in all of `values`, waiting for room as often as needed: `await` it, or call its `sync()`."""
        return SendAll(self, values)

    def reserve(self, places: int = 1, /) -> NoReturn:
        """Not between processes."""
        raise NotImplementedError("a process channel cannot reserve places: who has one may be killed; use send()")

    def force_send(self, value: T_contra, /) -> NoReturn:
        """Not between processes."""
        raise NotImplementedError("a process channel cannot displace values: use receive_nowait(), then send()")


class _ReceivesFrom(Handle, Received[T_co]):
    __slots__ = ()
    _receives = True

    def receive(self) -> Op[T_co]:
        """Take the next value, waiting for one. A cancelled or timed-out receive consumes nothing.

        A value that fails to unpickle raises here, and is gone; the channel goes on.
        Raises `EndOfChannel` once it is closed and drained, `BrokenChannel` if it was closed with a cause, or the last
        sender has died; `HandleClosed` if this end is closed or the channel was cancelled.
        """
        op: Receive[T_co] = Receive()  # not Receive[T_co](): that is made twice as slowly
        op._via = self
        op._src = self._channel.inbound
        return op

    def receive_nowait(self) -> T_co:
        """Take the next value if there is one, else raise `ChannelEmpty`; at the end, as `receive`."""
        return self.receive().poll()

    def receive_some(self, max: float = math.inf, /) -> Op[list[T_co]]:
        """Take what is there, at least one value and at most `max`, in one step; waits for the first.

        One that fails to unpickle is left out, and gone: the next receive of this process raises for it. If there is no
        other one this does.
        """
        return ReceiveSome(self, self._channel.inbound, check_max(max))

    def receive_view(self) -> Op[Lease]:
        """Take the next value where it lies, without a copy: `with rx.receive_view().sync() as value:`.

        Of what was sent as bytes, bytearray or memoryview `value` is a read-only memoryview into the shared memory, for
        as long as the block lasts; other receivers wait meanwhile. Other values are as `receive` gives them. If this
        process dies inside the block, the value is there for the next receiver. Waits and raises as `receive`.
        """
        return ReceiveView(self, self._channel.inbound)

    def drain(self) -> list[T_co]:
        """Take everything that is there now; `[]` if there is nothing."""
        self._used()
        try:
            return self.receive_some().poll()
        except (ChannelEmpty, EndOfChannel, BrokenChannel):
            return []

    __op__ = receive

    async def __anext__(self) -> T_co:
        try:
            return await self.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None


class ProcessSender(_SendsTo[T_contra], _Counted):
    """A counted end to send through, in this process or another; `open_process_channel`, `clone` and pickling make it.

    Leaving `with` by an exception closes it with that as the cause. One that is dropped without `close()` warns
    (`ResourceWarning`) and closes with a cause, so that nobody takes the stream for complete; but not if it was pickled
    before: then the other one is what matters.
    """

    __slots__ = ()
    _receives = False


class ProcessReceiver(_ReceivesFrom[T_co], _Counted):
    """A counted end to receive from, in this process or another; `open_process_channel`, `clone` and pickling make it.

    One that is dropped without `close()` warns (`ResourceWarning`) and is closed.
    """

    __slots__ = ()
    _sends = False


class ProcessChannel(_SendsTo[T], _ReceivesFrom[T]):
    """A channel between processes as one handle for both directions, which ends by `close()` as a `Channel` does.

    The arguments are those of `open_process_channel`. It is not ended by its last user: each of them could still send.
    """

    __slots__ = ()

    def __new__(
        cls,
        capacity: float,
        *,
        buffer_bytes: int = 1 << 20,
        serializer: Serializer | None = None,
        spill: bool = True,
        name: str | None = None,
    ) -> Self:
        conduit = _conduit(capacity, buffer_bytes, serializer, name)
        return cls._made(conduit, (serializer, spill, name))

    def close(self, cause: BaseException | None = None) -> bool:
        """End the channel, in all processes: nothing more can be sent, what is in it can still be received.

        As `Channel.close`; the cause that others see is a copy.
        """
        check_cause(cause)
        return self._used().end(CLOSED, cause)

    def cancel(self, cause: BaseException | None = None) -> bool:
        """End the channel and discard what is in it, in all processes: every operation now raises `HandleClosed`."""
        check_cause(cause)
        conduit = self._used()
        first = conduit.end(CANCELLED, cause)
        conduit.inbound._locked(conduit.inbound.discard)
        return first

    def sender(self) -> ProcessSender[T]:
        """A counted end of it to send through, to be closed by itself."""
        return ProcessSender[T]._made(self._used(), self._options())

    def receiver(self) -> ProcessReceiver[T]:
        """A counted end of it to receive from, to be closed by itself."""
        return ProcessReceiver[T]._made(self._used(), self._options())

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not sys.is_finalizing():
            super().close()
