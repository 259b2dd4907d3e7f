"""Subscription: one who gets every value of a broadcast, from its cursor on. See `broadcasts` for the invariants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ._core.engine import PENDING, Leaf, Op, Reentered, WaitQueue
from .checks import check_max
from .errors import ChannelEmpty, HandleClosed, WouldBlock
from .iterating import Received

if TYPE_CHECKING:
    from typing import Self

    from .broadcasts import Broadcast

__all__ = ["Subscription", "SubscriptionStatistics"]

T_co = TypeVar("T_co", covariant=True)


class SubscriptionStatistics(NamedTuple):
    """A snapshot of a subscription. `pending` counts the values that it can receive now, `missed` those it will
    learn to have missed."""

    pending: int
    missed: int
    waiting_receivers: int


class Cursor:
    """A subscription, as the broadcast sees it: it must not keep the `Subscription` alive."""

    __slots__ = ("at", "open", "queue")

    def __init__(self) -> None:
        self.at = 0
        self.open = False
        self.queue = WaitQueue()


class Subscription(Received[T_co]):
    """A subscriber of a broadcast: `Broadcast.subscribe()` makes them.

    Several tasks or threads may share one; each value goes to one of them. It is left by `close()`, by leaving
    `with`, or by being dropped.
    """

    __slots__ = ("__weakref__", "_broadcast", "_cursor")

    def __init__(self, broadcast: Broadcast[Any], cursor: Cursor) -> None:
        self._broadcast = broadcast
        self._cursor = cursor

    def receive(self) -> Op[T_co]:
        """Take the next value, waiting for one. A cancelled receive takes nothing.

        Raises `Lagged` if values were missed, once; then goes on with the oldest that is left. At the end raises
        `EndOfChannel`, or `BrokenChannel` from the cause; `HandleClosed` if this subscription is closed.
        """
        return _Receive(self)

    def receive_nowait(self) -> T_co:
        """Take the next value if there is one, else raise `ChannelEmpty`; otherwise as `receive`."""
        return self.receive().poll()

    def receive_some(self, max: float = math.inf, /) -> Op[list[T_co]]:
        """Take what is there, at least one value and at most `max`, in one atomic step; waits for the first."""
        return _ReceiveSome(self, check_max(max))

    __op__ = receive

    def close(self) -> bool:
        """Leave. Those who wait here get `HandleClosed`. Returns True the first time. Never blocks; from anywhere."""
        try:
            first: bool = self._broadcast._locked(self._broadcast._leave, self._cursor)
        except Reentered as inside:
            broadcast, cursor = self._broadcast, self._cursor
            inside.source._defer(lambda: broadcast._locked(broadcast._leave, cursor))
            return cursor.open
        return first

    @property
    def is_closed(self) -> bool:
        """Whether this subscription or the broadcast is closed; there may still be values to receive."""
        return not self._cursor.open or self._broadcast.is_closed

    def statistics(self) -> SubscriptionStatistics:
        """A snapshot; never blocks."""
        broadcast, cursor = self._broadcast, self._cursor
        first, at = broadcast._first, cursor.at
        return SubscriptionStatistics(
            pending=max(first + len(broadcast._items) - max(at, first), 0) if cursor.open else 0,
            missed=max(first - at, 0) if cursor.open else 0,
            waiting_receivers=cursor.queue.live(),
        )

    def __len__(self) -> int:
        return self.statistics().pending

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: subscribe() once more")

    def __repr__(self) -> str:
        return f"<Subscription{'' if self._cursor.open else ' (closed)'} to {self._broadcast!r}>"

    def __del__(self) -> None:
        cursor = getattr(self, "_cursor", None)  # an interrupt may have come while it was made
        if cursor is not None and cursor.open:
            self.close()


class _Receive(Leaf[Any]):
    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription[Any]) -> None:
        self._subscription = subscription  # kept: it leaves when it is dropped
        self._src = subscription._broadcast

    def _attempt(self, broadcast: Broadcast[Any]) -> Any:
        cursor = self._subscription._cursor
        if not cursor.open:
            raise HandleClosed(f"{self._subscription!r} is closed", channel=broadcast)
        value = broadcast._next(cursor)
        if value is PENDING and broadcast._closed:
            raise broadcast._over()
        return value

    def _enqueue(self, broadcast: Broadcast[Any], waiter: Any) -> None:
        self._subscription._cursor.queue.append(waiter)

    def _withdraw(self, broadcast: Broadcast[Any], waiter: Any) -> None:
        self._subscription._cursor.queue.withdrawn()

    def _would_block(self, broadcast: Broadcast[Any]) -> WouldBlock:
        return ChannelEmpty(f"{self._subscription!r} has nothing to receive")

    def _describe(self, broadcast: Broadcast[Any]) -> str:
        return f"receive from {self._subscription!r}"


class _ReceiveSome(_Receive):
    __slots__ = ("_max",)

    def __init__(self, subscription: Subscription[Any], max: float) -> None:
        self._max = max
        super().__init__(subscription)

    def _attempt(self, broadcast: Broadcast[Any]) -> Any:
        values: list[Any] = []
        while len(values) < self._max:
            if values and not len(self._subscription):
                break
            value = super()._attempt(broadcast)
            if value is PENDING:
                return PENDING
            values.append(value)
        return values
