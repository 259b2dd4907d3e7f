"""Channel: values from senders to receivers, in order, across tasks, loops and threads.

A channel is a ring (`_core`) with a policy on top: names, errors, what becomes of values nobody will get. It ends
by `close()`, after which receivers drain it, or by `cancel()`, which discards what is in it.

Lock discipline: whatever touches the ring's state goes through `Ring._locked`; `on_undelivered` is called outside, and
values that nobody will get die there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ._core.engine import (
    CANCELLED,
    CLOSED,
    DROP_NEWEST,
    DROP_OLDEST,
    PENDING,
    RAISE,
    WAIT,
    Drain,
    Op,
    Order,
    Receive,
    ReceiveSome,
    Reentered,
    Reserve,
    Ring,
    Send,
    SendSome,
)
from ._core.origins import recorded
from .blocks import ClosedAtEnd
from .checks import check_cause, check_max
from .endings import Closes
from .errors import BrokenChannel, ChannelClosed, ChannelFull, EndOfChannel, HandleClosed
from .iterating import Received
from .permits import Permit
from .sending import SendAll
from .views import ReceiveView, SendView

__all__ = ["Channel", "ChannelStatistics"]

T = TypeVar("T")

Overflow = Literal["wait", "raise", "drop_oldest", "drop_newest"]

_ORDERS = get_args(Order)
_POLICIES = {"wait": WAIT, "raise": RAISE, "drop_oldest": DROP_OLDEST, "drop_newest": DROP_NEWEST}


class ChannelStatistics(NamedTuple):
    """A snapshot of a channel. `senders` and `receivers` count open ends; None where ends are not counted."""

    capacity: float
    buffered: int
    waiting_senders: int
    waiting_receivers: int
    senders: int | None
    receivers: int | None
    sent: int
    received: int
    dropped: int
    peak: int


class Channel(Ring[T], Received[T], Closes, ClosedAtEnd):
    """A channel of values of type `T` for any number of senders and receivers.

    `capacity` is how many values it holds for receivers to come: 0 means rendezvous (a send returns only after
    a receiver has taken the value), `math.inf` no bound. It may be made anywhere, also before any loop runs, and
    used at the same moment by tasks of several asyncio loops, of trio and by threads. It is always true.

    `order` says which of the values inside is received next: "fifo", the one that came first; "lifo", the one that
    came last; "priority", the smallest (`<`), and of equal ones the first. A value that does not compare with
    one that it meets inside is refused with the error of the comparison. If two values inside turn out not to compare
    with each other when the order is restored, that error comes out of the receive, and nothing is changed or lost:
    give all of them a total order. Comparisons run while the channel is locked.

    `overflow` says what a send does that finds no room: "wait"; "raise" `ChannelFull`; "drop_oldest", which makes
    room by dropping what has been inside for longest; "drop_newest", which drops the value itself. Dropped values
    are counted and go to `on_undelivered`. A rendezvous can only wait.

    `name` shows in its `repr` and in errors. `on_undelivered` is called, outside of every lock, with each value
    that the channel had taken and will never deliver. A value whose send raised is not among them.

    Raises `ValueError` or `TypeError` for a capacity that is not an integer of at least 0 or `math.inf`, and for an
    unknown `order` or `overflow`.
    Source of the semantics: Go's channels; closing as in trio and anyio; overflow as in Kotlin's channels.

        jobs: Channel[str] = Channel(10)
        await jobs.send("a")         # in a task
        jobs.send("b").sync()        # in a thread
        async for job in jobs: ...
    """

    __slots__ = ("_cause", "_closing", "_made_at", "_name", "_undelivered", "_unwanted")

    __hash__ = object.__hash__

    @recorded
    def __init__(
        self,
        capacity: float,
        *,
        order: Order = "fifo",
        overflow: Overflow = "wait",
        name: str | None = None,
        on_undelivered: Callable[[T], object] | None = None,
    ) -> None:
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {', '.join(map(repr, _ORDERS))}, not {order!r}")
        if overflow not in tuple(_POLICIES):
            raise ValueError(f"overflow must be one of {', '.join(map(repr, _POLICIES))}, not {overflow!r}")
        super().__init__(_capacity(capacity), order, _POLICIES[overflow])
        if not self._capacity and self._overflow != WAIT:
            raise ValueError(f"overflow must be 'wait' if the capacity is 0, not {overflow!r}: there is no buffer")
        if on_undelivered is not None and not callable(on_undelivered):
            raise TypeError(f"on_undelivered must be a function of one value, not {on_undelivered!r}")
        self._name = name
        self._cause: BaseException | None = None
        self._closing = None
        self._undelivered = on_undelivered
        self._unwanted: _Bin[T] | None = None  # made when needed

    # ------------------------------------------------------------- sending
    def send(self, value: T, /) -> Op[None]:
        """Put `value` in, waiting for room; on a rendezvous, for a receiver to take it.

        Waits while the channel is full. A cancelled or timed-out send has had no effect. On asyncio one case is
        left: a native `Task.cancel()` that comes after a receiver took the value; see the documentation on
        cancellation. Values of one sender are received in the order in which they were sent.

        Raises `HandleClosed` if the channel is closed, also while waiting; the value was then not delivered.
        """
        op: Send = Send()
        op._value = value
        op._src = self
        return op

    def send_nowait(self, value: T, /) -> None:
        """Put `value` in if there is room or a waiting receiver, else raise `ChannelFull`.

        Never blocks and may be called from anywhere. It does not pass senders that wait. Called by a finalizer or
        signal handler in the middle of an operation of this very thread on this channel, it returns at once and
        takes effect when that operation is over; if it is refused then, the value goes to `on_undelivered`.
        """
        self._send_now(Send(), value)

    def _send_now(self, op: Send, value: T) -> None:
        op._value = value
        op._src = None
        try:
            if op._now(self) is None or op._snapshot(self) is None:
                return
        except Reentered as inside:
            inside.source._defer(lambda: self._send_late(op))
            return
        raise self._full()

    def _send_late(self, op: Send) -> None:
        try:
            if self._locked(op._attempt, self) is None:
                return
        except (ChannelClosed, ChannelFull):
            pass
        if self._undelivered is not None:
            self._undelivered(op._value)

    def force_send(self, value: T, /) -> list[T]:
        """Put `value` in at once: if there is no room, in place of the value that has been inside for longest.

        Returns what it displaced, a list of one value or none; that counts as dropped, and is not told to
        `on_undelivered`. It passes senders that wait. Never blocks. Raises `ChannelFull` where nothing can be
        displaced (a rendezvous without a receiver, or all places reserved), and as `send` if the channel is closed.
        Source of the semantics: async-channel.
        """
        return self._locked(self._force, value)  # type: ignore[no-any-return]

    def reserve(self, places: int = 1, /) -> Op[Permit[T]]:
        """Wait until `places` are free and take them, all at once: the `Permit` fills them later, without waiting.

        First in, first out with the senders: nobody passes a reservation that waits. A cancelled one has no
        effect. A channel that is closed meanwhile honours permits granted before; its receivers wait for them.

        Raises `ValueError` for fewer than one place or more than the capacity, and so on a rendezvous, and where
        `overflow` is not "wait"; otherwise as `send`. Source of the semantics: tokio's `mpsc`.
        """
        self._check_places(places)
        return Reserve(self, Permit(self, places))

    def _check_places(self, places: Any) -> None:
        if isinstance(places, bool) or not isinstance(places, int):
            raise TypeError(f"places must be an integer, not {places!r}")
        if not 1 <= places <= self._capacity:
            raise ValueError(f"places must be from 1 to the capacity of {self!r}, not {places!r}")
        if self._overflow != WAIT:
            raise ValueError(
                f"{self!r} does not make senders wait, so there is nothing to reserve: use overflow='wait'"
            )

    def send_some(self, values: Sequence[T], /) -> Op[int]:
        """Put in as many of `values` as there is room for, from the first on; the result says how many.

        Waits until there is room for at least one. `send_some([])` is 0 at once. All that go in do so in one
        atomic step, but for those that a waiting sender adds later. Raises as `send`.
        """
        if not isinstance(values, (list, tuple)):
            values = list(values)
        op = SendSome()
        op._value = values
        op._src = self
        return op

    def send_all(self, values: Iterable[T], /) -> SendAll[T]:
        """Put in all of `values`, waiting for room as often as needed: `await` it, or call its `sync()`.

        It consists of many operations, so it is no arm of a select. If it is cut short by an error or a
        cancellation, a first part has been sent; from an iterator no more was taken than that and one.
        """
        return SendAll(self, values)

    # ------------------------------------------------------------- receiving
    def receive(self) -> Op[T]:
        """Take the next value, waiting for one.

        Waits while the channel is empty and open. A cancelled or timed-out receive never consumes: a value that
        it had already been given goes to the next receiver or back to the head.

        Raises `EndOfChannel` once the channel is closed and drained, `BrokenChannel` with the cause if it was
        closed with one, `HandleClosed` if it was cancelled.
        """
        op: Receive[T] = Receive()
        op._src = self
        return op

    def receive_nowait(self) -> T:
        """Take the next value if there is one, else raise `ChannelEmpty`; at the end, as `receive`."""
        return self._receive_now(Receive())

    def _receive_now(self, op: Receive[T]) -> T:
        op._src = None
        try:
            value = op._now(self)
            if value is PENDING:
                value = op._snapshot(self)
        except Reentered:
            value = PENDING
        if value is PENDING:
            raise op._would_block(self)
        return value  # type: ignore[no-any-return]

    def receive_some(self, max: float = math.inf, /) -> Op[list[T]]:
        """Take what is there, at least one value and at most `max`, in one atomic step; waits for the first.

        `receive_some(0)` is `[]` at once. Raises as `receive`.
        """
        op: ReceiveSome[T] = ReceiveSome()
        op._max = check_max(max)
        op._src = self
        return op

    def drain(self) -> list[T]:
        """Take everything that is there now, those of waiting senders included; `[]` if there is nothing."""
        op: Drain[T] = Drain()
        op._src = None
        return self._locked(op._attempt, self)  # type: ignore[no-any-return]

    def __op__(self) -> Op[T]:
        return self.receive()

    # ------------------------------------------------------------- ending
    def close(self, cause: BaseException | None = None) -> bool:
        """End the channel: nothing more can be sent, what is in it can still be received.

        Senders that wait fail with `HandleClosed`, undelivered. Receivers get the rest and then `EndOfChannel`, or
        `BrokenChannel` from `cause` if that is given; each waiter gets an error of its own. Returns True the first
        time and False ever after. Never blocks; may be called from anywhere, also from a finalizer.
        """
        return self._end_now(CLOSED, cause)

    def cancel(self, cause: BaseException | None = None) -> bool:
        """End the channel and discard what is in it: every operation now raises `HandleClosed`.

        The values discarded go to `on_undelivered`. Returns False if the channel had been cancelled before.
        """
        return self._end_now(CANCELLED, cause)

    def _end_now(self, end: int, cause: BaseException | None) -> bool:
        check_cause(cause)
        try:
            first: bool = self._locked(self._end_locked, end, cause)
        except Reentered as inside:
            inside.source._defer(lambda: self._end_now(end, cause))
            return self._end < end
        return first

    def _end_locked(self, end: int, cause: BaseException | None) -> bool:
        if self._end < end and (cause is not None or not self._end):
            self._drop(self._cause)
            self._cause = cause
        return self._finish(end)

    @property
    def is_closed(self) -> bool:
        """Whether `close()` or `cancel()` was called; there may still be values to receive."""
        return self._end != 0

    def _over(self, sending: bool) -> BaseException:
        cause = self._cause
        if sending or self._end == CANCELLED:
            state = "cancelled" if self._end == CANCELLED else "closed"
            return HandleClosed(f"{self!r} is {state}", channel=self, cause=cause)
        if cause is not None:
            return BrokenChannel(f"{self!r} ended with an error", channel=self, cause=cause)
        return EndOfChannel(f"{self!r} has ended", channel=self)

    def _conclude(self) -> None:
        super()._conclude()
        self._tell_closing()

    def _bin(self) -> deque[T]:
        if self._unwanted is None:
            self._unwanted = _Bin()
        return self._unwanted

    def _tell(self) -> None:
        if self._unwanted:
            self._after.append(self._unwanted if self._undelivered is None else _Undelivered(self))

    def _tell_undelivered(self) -> None:
        """Outside the lock: hand over what will never be delivered. Errors are raised together, at the end."""
        tell, unwanted = self._undelivered, self._unwanted
        errors: list[Exception] = []
        while tell is not None and unwanted is not None:
            try:
                value = unwanted.popleft()
            except IndexError:
                break
            try:
                tell(value)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"on_undelivered of {self!r} failed", errors)

    # ------------------------------------------------------------- looking
    def __len__(self) -> int:
        return self._buffered()

    def __bool__(self) -> bool:
        return True

    @property
    def capacity(self) -> float:
        """How many values it holds: an integer, or `math.inf`."""
        return self._capacity

    @property
    def name(self) -> str | None:
        """The name given to it."""
        return self._name

    def sender(self) -> SendView[T]:
        """A view of this channel that can only send. Not counted: the channel ends by `close()`."""
        return SendView(self)

    def receiver(self) -> ReceiveView[T]:
        """A view of this channel that can only receive. Not counted."""
        return ReceiveView(self)

    def statistics(self) -> ChannelStatistics:
        """A snapshot; never blocks. While others use the channel, `sent` may be off by what is under way."""
        senders, receivers = self._waiting()
        received = dropped = buffered = 0
        for _ in range(8):  # the three belong together: read again if somebody was at it, but never wait
            received, dropped, buffered = self._received, self._dropped, self._buffered()
            if not self._busy and received == self._received and dropped == self._dropped:
                break
        return ChannelStatistics(
            capacity=self._capacity,
            buffered=buffered,
            waiting_senders=senders,
            waiting_receivers=receivers,
            senders=self._ends(True),
            receivers=self._ends(False),
            sent=received + dropped + buffered,
            received=received,
            dropped=dropped,
            peak=self._peak,
        )

    def _ends(self, sending: bool) -> int | None:
        """How many ends are open; None: they are not counted."""
        return None

    def __repr__(self) -> str:
        state = ("", " closed", " cancelled")[self._end]
        capacity = "inf" if self._capacity == math.inf else self._capacity
        return f"<Channel {self._label(self._name)} {self._buffered()}/{capacity}{state}>"


class _Bin(deque[T]):
    """What will never be delivered. Nobody wants to know of it: it is emptied once the lock is free."""

    __slots__ = ()
    wake = deque[T].clear


class _Undelivered:
    """Tells `on_undelivered` once the lock is free."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel[Any]) -> None:
        self.channel = channel

    def wake(self) -> None:
        self.channel._tell_undelivered()


def _capacity(value: Any) -> float:
    if isinstance(value, float) and value == math.inf:
        return value
    what = f"capacity must be an integer of at least 0, or math.inf for no bound, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(what)
    if value != value or value < 0 or int(value) != value:
        raise ValueError(what)
    return int(value)
