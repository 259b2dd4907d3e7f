"""Broadcast: every subscriber gets every value from its subscription on.

One buffer for all, and a cursor for each subscriber: the number of the value that it gets next. Values are numbered
from 0 in the order in which they were sent; the buffer holds those from `_first` on. Receiving is a readiness
operation: a new value wakes the receivers of every subscription, and each looks for itself. Sending is a
committing one, so that waiting senders are served in their order.

Invariants, whenever the lock is free:
1.  An entry is [value, how many subscribers have yet to get it]. That number never falls from one entry to the next,
    so the entries that somebody still has to get are those from `_unread` on.
2.  With overflow="wait" at most `capacity` entries lie from `_unread` on, and senders wait only while it is so many.
    With "lag" the buffer holds at most `capacity` entries; a cursor may lie before `_first`, and what lies between
    is what that subscriber has missed.
3.  An entry that everybody has got is kept only while it is among the last `replay`.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ._core.engine import ENDED, PENDING, SERVED, Op, QueuedLeaf, Reentered, WaitQueue, consume
from .endings import Closes, Ending
from .errors import ChannelFull, Lagged, WouldBlock
from .subscriptions import Cursor, Subscription

__all__ = ["Broadcast", "BroadcastStatistics"]

T = TypeVar("T")


class BroadcastStatistics(NamedTuple):
    """A snapshot of a broadcast. `buffered` counts the values kept, for whomever."""

    capacity: float
    buffered: int
    subscribers: int
    waiting_senders: int
    waiting_receivers: int
    sent: int


class Broadcast(Ending, Closes, Generic[T]):
    """Values from senders to all subscribers.

    `capacity` (at least 1, or `math.inf`) is how far the fastest may be ahead of the slowest. `overflow` says what
    happens then: "lag", sending never waits and the slow ones miss the oldest values, about which `Lagged(missed)`
    tells them exactly, once, before they go on with the oldest value that is left; or "wait", senders wait for the
    slowest. A new subscriber first gets the last `replay` values, if so many were sent.

    A send without subscribers succeeds. Source of the semantics: tokio's `broadcast`; waiting and replay as in
    Kotlin's `SharedFlow`.

        news: Broadcast[str] = Broadcast(16)
        with news.subscribe() as mine:
            async for item in mine: ...
    """

    __slots__ = (
        "_capacity",
        "_closing",
        "_cursors",
        "_first",
        "_items",
        "_lags",
        "_name",
        "_replay",
        "_unread",
    )

    def __init__(
        self,
        capacity: float,
        *,
        overflow: Literal["lag", "wait"] = "lag",
        replay: int = 0,
        name: str | None = None,
    ) -> None:
        if isinstance(capacity, bool) or not (isinstance(capacity, int) or capacity == math.inf):
            raise TypeError(f"capacity must be an integer of at least 1, or math.inf for no bound, not {capacity!r}")
        if capacity < 1:
            raise ValueError(f"capacity must be an integer of at least 1, or math.inf for no bound, not {capacity!r}")
        if overflow not in ("lag", "wait"):
            raise ValueError(f"overflow must be 'lag' or 'wait', not {overflow!r}")
        if isinstance(replay, bool) or not isinstance(replay, int):
            raise TypeError(f"replay must be an integer from 0 to the capacity, not {replay!r}")
        if not 0 <= replay <= capacity:
            raise ValueError(f"replay must be an integer from 0 to the capacity, {capacity}, not {replay!r}")
        super().__init__()
        self._capacity = capacity
        self._lags = overflow == "lag"
        self._replay = replay
        self._name = name
        self._items: deque[list[Any]] = deque()
        self._first = self._unread = 0
        self._cursors: dict[int, Cursor] = {}
        self._closing = None

    # ------------------------------------------------------------- sending
    def send(self, value: T, /) -> Op[None]:
        """Send `value` to all who are subscribed when it happens.

        With overflow="wait" it waits while the slowest subscriber has `capacity` values to get; a cancelled one has
        no effect, as of `Channel.send`. Raises `HandleClosed` if the broadcast is closed, also while it waits.
        """
        return _Send(self, value)

    def send_nowait(self, value: T, /) -> None:
        """Send `value` if that need not wait, else raise `ChannelFull`. From anywhere, as `Channel.send_nowait`."""
        op = _Send(self, value)
        op._src = None
        try:
            if self._locked(op._attempt, self) is None:
                return
        except Reentered as inside:
            inside.source._defer(lambda: self.send_nowait(value))
            return
        raise op._would_block(self)

    def _full(self) -> bool:
        return not self._lags and self._first + len(self._items) - self._unread >= self._capacity

    def _published(self) -> None:
        """A value has been put in: whatever follows from that. Can be repeated."""
        while self._lags and len(self._items) > self._capacity:
            self._drop_first()
        for cursor in self._cursors.values():
            if cursor.queue:
                self._wake(cursor)
        self._advance()

    def _drop_first(self) -> None:
        self._drop(self._items[0])
        self._first += 1  # the call comes last, for the sake of interrupts
        if self._unread < self._first:
            self._unread = self._first
        self._items.popleft()

    def _advance(self) -> None:
        """Somebody has got values, or has left: forget those that nobody has to get any more."""
        while self._unread < self._first + len(self._items) and not self._items[self._unread - self._first][1]:
            self._unread += 1
        while self._first < self._unread and len(self._items) > self._replay:
            self._drop_first()

    def _refill(self) -> None:
        """There may be room: let waiting senders send."""
        while self._queue and not self._full():
            sender = self._queue.claim(self._after)
            if sender is None:
                return
            entry = [sender.value, len(self._cursors)]
            sender.value = None
            sender.state = SERVED  # and its value put in by one call, for the sake of interrupts
            self._items.append(entry)
            self._published()

    # ------------------------------------------------------------- subscribers
    def subscribe(self) -> Subscription[T]:
        """A new subscriber: gets the replay, then what is sent from now on; after the close, the replay and the end."""
        subscription: Subscription[T] = Subscription(self, Cursor())  # first: should it be lost, it leaves
        self._locked(self._subscribe, subscription._cursor)
        return subscription

    def _subscribe(self, cursor: Cursor) -> None:
        end = self._first + len(self._items)
        at = max(end - self._replay, self._first)
        counted = self._counted(at, 1)
        unread = min(self._unread, at)
        key = id(cursor)
        # from here on one call only, the last, for the sake of interrupts
        cursor.at = at
        cursor.open = True
        self._unread = unread
        self._cursors[key] = cursor
        consume(counted)

    def _leave(self, cursor: Cursor) -> bool:
        if not cursor.open:
            return False
        counted = self._counted(max(cursor.at, self._first), -1)
        key = id(cursor)
        self._wake(cursor)  # to find that it is closed
        cursor.open = False  # from here on as above
        del self._cursors[key]
        consume(counted)
        self._advance()
        self._refill()
        return True

    def _counted(self, number: int, change: int) -> Iterator[object]:
        """What counts one subscriber more or less for the values from `number` on, once it is run through."""
        entries = list(itertools.islice(self._items, number - self._first, None))
        counts = [entry[1] + change for entry in entries]
        return map(operator.setitem, entries, itertools.repeat(1), counts)

    def _wake(self, cursor: Cursor) -> None:
        self._after += [waiter for waiter in cursor.queue if waiter.waiting()]

    def _next(self, cursor: Cursor) -> Any:
        """Under the lock: the next value of this subscriber, or PENDING."""
        place = cursor.at - self._first
        if place < 0:
            cursor.at = self._first
            raise Lagged(-place)
        if place >= len(self._items):
            return PENDING
        entry = self._items[place]
        cursor.at += 1
        entry[1] -= 1
        if not entry[1]:
            self._advance()
            if self._queue:
                self._refill()
        return entry[0]

    # ------------------------------------------------------------- ending
    def close(self, cause: BaseException | None = None) -> bool:
        """Nothing more can be sent: subscribers get the rest, then `EndOfChannel`, or `BrokenChannel` from `cause`.

        Senders that wait fail with `HandleClosed`, unsent. Returns True the first time. Never blocks; from anywhere.
        """
        return super().close(cause)

    def _conclude(self) -> None:
        while self._queue and (sender := self._queue.claim(self._after)) is not None:
            sender.state = ENDED
        for cursor in self._cursors.values():
            self._wake(cursor)
        self._tell_closing()

    def _mend(self) -> None:
        if self._closed:
            self._conclude()
        self._published()
        self._refill()

    def _forget_waiters(self) -> None:
        super()._forget_waiters()
        for cursor in self._cursors.values():
            cursor.queue = WaitQueue()

    # ------------------------------------------------------------- looking
    @property
    def capacity(self) -> float:
        """How far the fastest may be ahead of the slowest: an integer, or `math.inf`."""
        return self._capacity

    def statistics(self) -> BroadcastStatistics:
        """A snapshot; never blocks."""
        return BroadcastStatistics(
            capacity=self._capacity,
            buffered=len(self._items),
            subscribers=len(self._cursors),
            waiting_senders=self._waiting(),
            waiting_receivers=sum(cursor.queue.live() for cursor in list(self._cursors.values())),
            sent=self._first + len(self._items),
        )

    def __repr__(self) -> str:
        return f"<Broadcast {self._label(self._name)} to {len(self._cursors)}{' closed' if self._closed else ''}>"


class _Send(QueuedLeaf[None]):
    __slots__ = ("_value",)

    def __init__(self, broadcast: Broadcast[Any], value: Any) -> None:
        self._value = value
        self._src = broadcast

    def _attempt(self, broadcast: Broadcast[Any]) -> Any:
        if broadcast._closed:
            raise broadcast._shut()
        if broadcast._full():
            return PENDING
        broadcast._items.append([self._value, len(broadcast._cursors)])
        broadcast._published()
        return None

    def _enqueue(self, broadcast: Broadcast[Any], waiter: Any) -> None:
        waiter.value = self._value
        broadcast._stand(waiter)

    def _undo(self, broadcast: Broadcast[Any], waiter: Any) -> bool:
        return False

    def _ended(self, broadcast: Broadcast[Any], waiter: Any) -> BaseException:
        return broadcast._shut()

    def _would_block(self, broadcast: Broadcast[Any]) -> WouldBlock:
        return ChannelFull(f"{broadcast!r} is full: its slowest subscriber has {broadcast._capacity} values to get")

    def _describe(self, broadcast: Broadcast[Any]) -> str:
        return f"send to {broadcast!r}"
