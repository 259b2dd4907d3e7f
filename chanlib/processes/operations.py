"""The operations of a channel between processes: sending and receiving, one value or several.

They are readiness operations. Encoding and decoding, which call a user's code, are done outside of the lock: before the
first look (`_hint`, which comes first wherever an operation is looked at), and on the way out (`_finish`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.engine import PENDING, QueuedLeaf
from .._core.lane import lanes, running_loop
from ..errors import BrokenChannel, ChannelEmpty, ChannelFull, EndOfChannel, HandleClosed, MessageTooLarge, WouldBlock
from .layout import UNIT
from .messages import LARGEST, SMALLEST, Message
from .ports import CANCELLED, CLOSED, DESERTED, HEARTBEAT, SPINS
from .ring import EMPTY

if TYPE_CHECKING:
    from .bells import Bell
    from .ends import Handle
    from .ports import Inbound, Outbound

__all__ = ["Closed", "Receive", "ReceiveSome", "Receiving", "Send", "SendSome"]

T_co = TypeVar("T_co", covariant=True)


class PortLeaf(QueuedLeaf[T_co]):
    """An operation that came through a handle."""

    __slots__ = ("_bell", "_via")

    _via: Handle
    _outbound: bool  # does it wait as senders do?
    _bell: Bell | None  # it must stay open while somebody sleeps on it

    def _seems_ready(self, port: Any) -> bool:
        raise NotImplementedError

    def _finish(self, got: Any) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return got

    def _hint(self, port: Any, /) -> bool:
        if self._via._inherited:
            self._via._own(True)
        return True

    def _now(self, port: Any, /) -> Any:
        got = self._snapshot(port)
        return got if got is not PENDING or not (port.spins and self._spin(port)) else self._snapshot(port)

    def _spin(self, port: Any) -> bool:
        """In a thread that nobody else runs in: let others run for a moment. Does it seem ready now?"""
        if running_loop() is None and not lanes.lane.trio:
            pause = os.sched_yield
            for _ in range(SPINS):
                pause()
                if self._seems_ready(port):
                    return True
        return False

    def _snapshot(self, port: Any, /) -> Any:
        self._hint(port)
        got = port._locked(self._attempt, port)
        return got if got is PENDING else self._finish(got)

    def _enroll(self, port: Any, waiter: Any, /) -> Any:
        got = super()._enroll(port, waiter)
        return got if got is PENDING else self._finish(got)

    def _enqueue(self, port: Any, waiter: Any, /) -> None:
        port._stand(waiter)
        self._bell = port.rest(waiter, self._seems_ready)


class _Sending(PortLeaf[T_co]):
    __slots__ = ()
    _outbound = True

    def _enqueue(self, port: Any, waiter: Any, /) -> None:
        for message in self._all():
            if type(message) is Message:
                port._drop(message.keep())
        super()._enqueue(port, waiter)

    def _all(self) -> Sequence[Any]:
        """The messages."""
        raise NotImplementedError

    def _seems_ready(self, port: Outbound) -> bool:
        return bool(port.ended) or port.ring.has_room(self._first())

    def _first(self) -> Any:
        """The message for which there must be room."""
        raise NotImplementedError

    def _check(self, port: Outbound) -> None:
        """Under the lock: raise if nothing can be sent any more."""
        via = self._via
        if not via._open:
            raise via._shut()
        ended = port.ended
        if ended == DESERTED or (not ended and monotonic() >= port.look_at and via._nobody(port, True) is not False):
            raise BrokenChannel(f"{via!r} has no receiver any more", channel=via, cause=via._cause_of_end())
        if ended:
            state = "cancelled" if ended == CANCELLED else "closed"
            raise HandleClosed(f"{via!r} is {state}", channel=via, cause=via._cause_of_end())

    def _full(self, port: Outbound) -> Any:
        """It would have to wait: is there anybody to make room?"""
        port.look_at = 0.0
        self._check(port)
        return PENDING

    def _encode(self, port: Outbound, value: Any) -> Any:
        via = self._via
        message = port.encode(value, via._serializer)
        if type(message) is int or message.units <= port.ring.longest:
            return message
        if not via._spill:
            message.abandon()
            size, most = UNIT * message.units, UNIT * port.ring.longest
            raise MessageTooLarge(f"a message of {size} bytes does not fit {via!r}, which takes {most}")
        return message.fits(port.ring.longest)

    def _would_block(self, port: Any) -> WouldBlock:
        return ChannelFull(f"{self._via!r} is full")


class Send(_Sending[None]):
    """Made by setting `_via`, `_value`, `_message` to None, and `_src`."""

    __slots__ = ("_message", "_value")

    _value: Any
    _message: Any  # what is left of the value once it is encoded

    def _hint(self, port: Any, /) -> bool:
        super()._hint(port)
        if self._message is None:
            self._message = self._encode(port, self._value)
            self._value = None
        return True

    def _now(self, port: Any, /) -> Any:
        via = self._via
        message: Any = self._message
        if message is None:
            value: Any = self._value
            message = value
            if type(value) is not int or via._serializer is not None or not SMALLEST <= value <= LARGEST:
                self._hint(port)
                message = self._message
        if (
            (type(message) is int or message.courier is None)
            and via._open
            and not via._inherited
            and port.put_one(message)
        ):
            return None
        return super()._now(port)

    def _attempt(self, port: Outbound) -> Any:
        self._check(port)
        return None if port.put((self._message,)) else self._full(port)

    def _first(self) -> Any:
        return self._message

    def _all(self) -> Sequence[Any]:
        return (self._message,)

    def _describe(self, port: Any) -> str:
        return f"send to {self._via!r}"


class SendSome(_Sending[int]):
    __slots__ = ("_messages", "_values")

    def __init__(self, via: Handle, port: Outbound, values: Any) -> None:
        self._via = via
        self._values = values
        self._messages: list[Any] | None = None
        self._src = port

    def _hint(self, port: Any, /) -> bool:
        super()._hint(port)
        if self._messages is None:
            self._messages = [self._encode(port, value) for value in self._values]
        return True

    def _attempt(self, port: Outbound) -> Any:
        self._check(port)
        if not self._messages:
            return 0
        return port.put(self._messages) or self._full(port)

    def _first(self) -> Any:
        assert self._messages
        return self._messages[0]

    def _all(self) -> Sequence[Any]:
        return self._messages or ()

    def _describe(self, port: Any) -> str:
        return f"send_some to {self._via!r}"


class Receiving(PortLeaf[T_co]):
    __slots__ = ()
    _outbound = False

    def _seems_ready(self, port: Inbound) -> bool:
        return bool(port.ended) or not (port.empty() or port.leased)

    def _look(self, port: Inbound, look: Callable[[], Any]) -> Any:
        """Under the lock: what `look` finds, or PENDING; raises at the end."""
        via = self._via
        if not via._open:
            raise via._shut()
        ended = port.ended
        if ended >= CANCELLED:
            raise HandleClosed(f"{via!r} is cancelled", channel=via, cause=via._cause_of_end())
        found = look()
        if found is not EMPTY:
            return found
        if ended != CLOSED:
            gone = via._nobody(port, False)
            if gone is False or not port.empty():
                return PENDING
            if gone is None:
                raise BrokenChannel(
                    f"the last sender of {via!r} has died: what it has sent may be incomplete", channel=via
                )
        cause = via._cause_of_end()
        if cause is not None:
            raise BrokenChannel(f"{via!r} ended with an error", channel=via, cause=cause)
        raise EndOfChannel(f"{via!r} has ended", channel=via)

    def _would_block(self, port: Any) -> WouldBlock:
        return ChannelEmpty(f"{self._via!r} is empty")


class Receive(Receiving[T_co]):
    """Made by setting `_via` and `_src`."""

    __slots__ = ()

    def _now(self, port: Any, /) -> Any:
        via = self._via
        if not via._open or via._inherited:
            return super()._now(port)
        record = port.get_one()
        if record is PENDING and port.spins and not port.ended and self._spin(port):
            record = port.get_one()
        if record is PENDING:
            return self._snapshot(port)
        return record if type(record) is int else port.decode(record, via._serializer)

    def _attempt(self, port: Inbound) -> Any:
        found = self._look(port, lambda: port.get(1))
        return found if found is PENDING else found[0]

    def _finish(self, got: Any) -> Any:
        return self._via._channel.inbound.decode(got, self._via._serializer)

    def _describe(self, port: Any) -> str:
        return f"receive from {self._via!r}"


class ReceiveSome(Receiving[Any]):
    __slots__ = ("_most",)

    def __init__(self, via: Handle, port: Inbound, most: float) -> None:
        self._via = via
        self._most = most
        self._src = port

    def _attempt(self, port: Inbound) -> Any:
        if self._most:
            return self._look(port, lambda: port.get(self._most))
        found = self._look(port, lambda: EMPTY if port.empty() else [])  # it may have ended
        return [] if found is PENDING else found

    def _finish(self, got: Any) -> Any:
        """Those that unpickle; for each that does not, one of the next receives of this process raises."""
        serializer = self._via._serializer
        values: list[Any] = []
        errors: list[Exception] = []
        port = self._via._channel.inbound
        for number, record in enumerate(got):
            try:
                values.append(port.decode(record, serializer))
            except Exception as error:
                errors.append(error)
            except BaseException:  # an interrupt: what it has not come to is for the next
                port.put_back([*errors, *got[number + 1 :]])
                raise
        port.put_back(errors[not values :])
        if errors and not values:
            raise errors[0]
        return values

    def _describe(self, port: Any) -> str:
        return f"receive_some from {self._via!r}"


class Closed(PortLeaf[None]):
    """Waiting for the end. Another process that ends it does not ring for this: it is looked for now and then."""

    __slots__ = ("_outbound",)

    def __init__(self, via: Handle, port: Any) -> None:
        self._via = via
        self._outbound = via._sends
        self._src = port

    def _now(self, port: Any, /) -> Any:
        return port._locked(self._attempt, port)

    def _attempt(self, port: Any) -> Any:
        return None if self._via.is_closed else PENDING

    def _enqueue(self, port: Any, waiter: Any, /) -> None:
        port._stand(waiter)
        waiter.wake_in(HEARTBEAT)

    def _describe(self, port: Any) -> str:
        return f"wait for the end of {self._via!r}"
