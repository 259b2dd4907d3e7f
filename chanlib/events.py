"""Event: something that happens once, or until it is cleared."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from ._core.engine import Latch, Op, Passed, Reentered

__all__ = ["Event", "EventStatistics"]


class EventStatistics(NamedTuple):
    """A snapshot of an event."""

    waiting: int


class Event(Latch):
    """A flag that tasks and threads of any kind can wait for.

    Everybody who waits while it is set, or when it gets set, goes on; `clear` makes later waiters wait again.
    An event may stand in a `select` itself.
    """

    __slots__ = ("_name",)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__()
        self._name = name

    def set(self) -> None:
        """Set the flag and wake everybody who waits.

        Never blocks; may be called from anywhere, also from a finalizer or a signal handler.
        """
        try:
            self._locked(self._open)
        except Reentered as inside:
            inside.source._defer(self.set)

    def clear(self) -> None:
        """Reset the flag. Those who were woken by an earlier `set` are not held up."""
        try:
            self._locked(self._shut)
        except Reentered as inside:
            inside.source._defer(self.clear)

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._set

    def wait(self) -> Op[None]:
        """Wait until the flag is set. Cancelling it has no effect on the event."""
        return Passed(self)

    def __op__(self) -> Op[None]:
        return Passed(self)

    def __await__(self) -> Generator[Any, Any, None]:
        op: Passed[None] = Passed(self)
        return op.__await__()

    def statistics(self) -> EventStatistics:
        """A snapshot; never blocks."""
        return EventStatistics(waiting=self._waiting())

    def __repr__(self) -> str:
        return f"<Event {self._label(self._name)}{' set' if self._set else ''}>"
