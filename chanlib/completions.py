"""Completions: the children of a group in the order in which they end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ._core.engine import PENDING, Leaf, Op, WaitQueue
from .errors import EndOfChannel
from .handles import TaskHandle
from .iterating import Received

if TYPE_CHECKING:
    from .roster import Roster

__all__ = ["Completions"]


class Completions(Received[TaskHandle[Any]]):
    """Children in the order of their end: `group.as_completed()` makes one. Iterate over it, or `receive()`."""

    __slots__ = ("__weakref__", "_group", "_over", "_waiters")

    def __init__(self, group: Roster) -> None:
        self._group = group
        self._over: deque[TaskHandle[Any]] = deque()  # this and the next under the group's lock
        self._waiters = WaitQueue()

    def receive(self) -> Op[TaskHandle[Any]]:
        """Wait for the next child to end; the result is its handle. `EndOfChannel` when no child is left."""
        return _NextEnded(self)

    __op__ = receive

    def _put(self, child: TaskHandle[Any]) -> None:
        self._over.append(child)
        self._group._after += [waiter for waiter in self._waiters if waiter.waiting()]

    def __repr__(self) -> str:
        return f"<completions of {self._group!r}>"


class _NextEnded(Leaf[TaskHandle[Any]]):
    __slots__ = ("_stream",)

    def __init__(self, stream: Completions) -> None:
        self._stream = stream
        self._src = stream._group

    def _attempt(self, group: Roster) -> Any:
        stream = self._stream
        if stream._over:
            return stream._over.popleft()
        if not group._children:
            raise EndOfChannel(f"{group!r} has no child left", channel=stream)
        return PENDING

    def _enqueue(self, group: Roster, waiter: Any) -> None:
        self._stream._waiters.append(waiter)

    def _withdraw(self, group: Roster, waiter: Any) -> None:
        self._stream._waiters.withdrawn()

    def _describe(self, group: Roster) -> str:
        return f"the next child of {group!r} to end"
