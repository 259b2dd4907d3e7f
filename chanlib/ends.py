"""Counted ends: `open_channel` gives a sender and a receiver, and the channel ends when one side has gone.

The last sender's close ends the stream; when the last receiver goes, what is inside is discarded and senders get
`BrokenChannel`. Operations are those of the channel in the middle; each remembers the end that it came through, and
fails once that end is closed, also while it waits.

Invariants, under the lock of the channel in the middle:
- `_open` of an end is True until its one close, and the channel's count of its side is the number of open ends.
- an operation that came through a closed end neither starts nor waits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import anyio.abc
from typing_extensions import TypeVar

from ._core.engine import (
    CANCELLED,
    CLOSED,
    Op,
    Order,
    Receive,
    ReceiveSome,
    Reentered,
    Reserve,
    RingLeaf,
    Send,
    SendSome,
)
from .blocks import ClosedAtEnd
from .channels import Channel, ChannelStatistics, Overflow
from .checks import check_cause, check_max
from .errors import BrokenChannel, HandleClosed
from .iterating import Received
from .permits import Permit
from .sending import SendAll

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Receiver", "Sender", "open_channel"]

Item = TypeVar("Item", default=Any)
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class open_channel(tuple["Sender[Item]", "Receiver[Item]"]):
    """A new channel as its two ends, which are counted: `tx, rx = open_channel(10)`, or `open_channel[str](10)`.

    The arguments are those of `Channel`. Each end can be cloned, and is closed once: by `close()`, or by leaving
    `with`. The last sender's close ends the stream for the receivers; when the last receiver is closed, values
    inside go to `on_undelivered` and senders get `BrokenChannel`.

        tx, rx = open_channel[int](10)
        with tx: ...
        async with rx:
            async for value in rx: ...
    """

    __slots__ = ()

    def __new__(  # type: ignore[misc]
        cls,
        capacity: float,
        *,
        order: Order = "fifo",
        overflow: Overflow = "wait",
        name: str | None = None,
        on_undelivered: Callable[[Item], object] | None = None,
    ) -> tuple[Sender[Item], Receiver[Item]]:
        middle = _Middle(capacity, order=order, overflow=overflow, name=name, on_undelivered=on_undelivered)
        return Sender(middle), Receiver(middle)


class _Middle(Channel[Any]):
    """The channel between counted ends."""

    __slots__ = ("_counts", "_deserted", "_first_cause")

    def __init__(self, capacity: float, **options: Any) -> None:
        super().__init__(capacity, **options)
        self._counts = {True: 0, False: 0}  # of open ends, by whether they send
        self._deserted = False  # has the last receiver gone?
        self._first_cause: BaseException | None = None

    def _ends(self, sending: bool) -> int | None:
        return self._counts[sending]

    def _opened(self, end: _End) -> None:
        """Under the lock: one more."""
        self._counts[end._sends] += 1
        end._open = True

    def _cloned(self, end: _End, twin: _End) -> bool:
        if not end._open:
            return False
        self._opened(twin)
        return True

    def _closed(self, end: _End, cause: BaseException | None) -> bool:
        """Under the lock: one less. False if it was closed."""
        if not end._open:
            return False
        end._cause = cause
        if end._sends and cause is not None and self._first_cause is None:
            self._first_cause = cause
        end._open = False  # with the next store: cut by an interrupt, the rest is done by `_mend`
        self._counts[end._sends] -= 1
        self._follow(cause)
        return True

    def _follow(self, cause: BaseException | None = None) -> None:
        """Whatever follows from the ends that are closed. Can be repeated."""
        if not self._counts[True] and not self._end:
            self._end_locked(CLOSED, self._first_cause)
        if not self._counts[False] and self._end < CANCELLED:
            self._deserted = True
            self._end_locked(CANCELLED, cause)
        for queue in (self._senders, self._receivers):
            for waiter in tuple(queue):
                via = getattr(waiter.op, "_via", None)
                if via is not None and not via._open:
                    queue.evict(waiter, self._after)
        self._released()  # whoever stood behind one of them may have room now

    def _mend(self) -> None:
        super()._mend()
        self._follow()

    def _over(self, sending: bool) -> BaseException:
        if sending and self._deserted:
            return BrokenChannel(f"{self!r} has no receiver any more", channel=self, cause=self._cause)
        return super()._over(sending)


class _Via(RingLeaf[Any]):
    """An operation that came through an end."""

    __slots__ = ()

    _via: _End

    def _hint(self, ring: Any) -> bool:
        return not self._via._open or super()._hint(ring)

    def _now(self, ring: Any) -> Any:
        if not self._via._open:
            raise self._via._shut()
        return super()._now(ring)

    def _attempt(self, ring: Any) -> Any:
        if not self._via._open:
            raise self._via._shut()
        return super()._attempt(ring)

    def _ended(self, ring: Any, waiter: Any) -> BaseException:
        return super()._ended(ring, waiter) if self._via._open else self._via._shut()


class _Send(_Via, Send):
    __slots__ = ("_via",)


class _SendSome(_Via, SendSome):
    __slots__ = ("_via",)


class _Reserve(_Via, Reserve[Any]):
    __slots__ = ("_via",)


class _Receive(_Via, Receive[Any]):
    __slots__ = ("_via",)


class _ReceiveSome(_Via, ReceiveSome[Any]):
    __slots__ = ("_via",)


class _End(ClosedAtEnd, anyio.TypedAttributeProvider):
    """What the two kinds of end have in common."""

    _sends: bool
    _open = False
    _cause: BaseException | None = None

    def __init__(self, middle: _Middle) -> None:
        self._middle = middle
        middle._locked(middle._opened, self)

    def clone(self) -> Self:
        """Another end of the same kind, to be closed by itself. Raises `HandleClosed` if this one is closed."""
        twin = object.__new__(type(self))
        twin._middle = self._middle
        if not self._middle._locked(self._middle._cloned, self, twin):
            raise self._shut()
        return twin

    def close(self, cause: BaseException | None = None) -> bool:
        """Close this end, and the channel if it is the last of its kind.

        Operations that wait through this end fail with `HandleClosed`, undone. `cause` is kept: when the last
        sender is closed, receivers drain and then get `BrokenChannel` from the first cause that any sender was
        closed with; without one they get `EndOfChannel`. When the last receiver is closed, senders get
        `BrokenChannel`. Returns True the first time. Never blocks; may be called from anywhere.
        """
        check_cause(cause)
        try:
            first: bool = self._middle._locked(self._middle._closed, self, cause)
        except Reentered as inside:
            inside.source._defer(lambda: self.close(cause))
            return self._open
        return first

    async def aclose(self) -> None:
        """As `close()`, under the name that anyio's streams have for it."""
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether this end is closed, or the channel as a whole."""
        return not self._open or self._middle.is_closed

    def wait_closed(self) -> Op[None]:
        """Wait until the channel is closed: by the last sender, or because nobody is left to receive."""
        return self._middle.wait_closed()

    @property
    def capacity(self) -> float:
        """As `Channel.capacity`."""
        return self._middle.capacity

    def statistics(self) -> ChannelStatistics:
        """As `Channel.statistics`, with the counts of open ends."""
        return self._middle.statistics()

    def __len__(self) -> int:
        return len(self._middle)

    def __bool__(self) -> bool:
        return True

    def _shut(self) -> HandleClosed:
        return HandleClosed(f"{self!r} is closed", channel=self._middle, cause=self._cause)

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: use clone()")

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind}{'' if self._open else ' (closed)'} of {self._middle!r}>"

    def __del__(self) -> None:
        if self._open:
            try:
                warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self.close(RuntimeError(f"an end of {self._middle!r} was dropped without close()"))


class Sender(_End, Generic[T_contra]):
    """A counted end to send through: `open_channel` and `clone()` make them.

    Leaving `with` by an exception closes it with that as the cause. One that is dropped without `close()` warns
    (`ResourceWarning`) and closes with a cause, so that nobody takes the stream for complete.
    It has the surface of anyio's `ObjectSendStream` and is registered as one.
    """

    _sends = True

    def send(self, value: T_contra, /) -> Op[None]:
        """As `Channel.send`. Raises `BrokenChannel` once nobody is left to receive, also while it waits."""
        op = _Send()
        op._value = value
        op._via = self
        op._src = self._middle
        return op

    def send_nowait(self, value: T_contra, /) -> None:
        """As `Channel.send_nowait`."""
        op = _Send()
        op._via = self
        self._middle._send_now(op, value)

    def send_some(self, values: Sequence[T_contra], /) -> Op[int]:
        """As `Channel.send_some`."""
        op = _SendSome()
        op._value = values if isinstance(values, (list, tuple)) else list(values)
        op._via = self
        op._src = self._middle
        return op

    def send_all(self, values: Iterable[T_contra], /) -> SendAll[T_contra]:
        """As `Channel.send_all`."""
        return SendAll(self, values)

    def force_send(self, value: T_contra, /) -> list[Any]:
        """As `Channel.force_send`."""
        if not self._open:
            raise self._shut()
        return self._middle.force_send(value)

    def reserve(self, places: int = 1, /) -> Op[Permit[T_contra]]:
        """As `Channel.reserve`. The permit outlives this end: it is honoured past the last sender's close."""
        self._middle._check_places(places)
        op = _Reserve(self._middle, Permit(self._middle, places))
        op._via = self
        return op


class Receiver(_End, Received[T_co]):
    """A counted end to receive through: `open_channel` and `clone()` make them.

    One that is dropped without `close()` warns (`ResourceWarning`) and is closed. It has the surface of anyio's
    `ObjectReceiveStream` and is registered as one.
    """

    _sends = False

    def receive(self) -> Op[T_co]:
        """As `Channel.receive`."""
        op = _Receive()
        op._via = self
        op._src = self._middle
        return op

    def receive_nowait(self) -> T_co:
        """As `Channel.receive_nowait`."""
        op = _Receive()
        op._via = self
        return self._middle._receive_now(op)  # type: ignore[no-any-return]

    def receive_some(self, max: float = math.inf, /) -> Op[list[T_co]]:
        """As `Channel.receive_some`."""
        op = _ReceiveSome()
        op._via = self
        op._max = check_max(max)
        op._src = self._middle
        return op

    def drain(self) -> list[T_co]:
        """As `Channel.drain`."""
        if not self._open:
            raise self._shut()
        return self._middle.drain()

    def __op__(self) -> Op[T_co]:
        return self.receive()

    async def __anext__(self) -> T_co:
        return await anext(aiter(self))


anyio.abc.ObjectSendStream.register(Sender)
anyio.abc.ObjectReceiveStream.register(Receiver)
