"""Watch: a value of which only the latest counts, and observers who see that it changed.

Every change makes a new pair of (version, value); an observer remembers the version that it has seen. Waiting is a
readiness operation: a change wakes everybody, and each looks for himself, so a cancelled one takes nothing.

A predicate or an update is user code and runs outside the lock, on a pair that was read in one piece; what it said
counts only if the version is still the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from ._core.engine import PENDING, Op, QueuedLeaf, Reentered
from .endings import Ending
from .errors import ChannelEmpty, WouldBlock
from .iterating import Received

__all__ = ["Observer", "Watch", "WatchStatistics"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class WatchStatistics(NamedTuple):
    """A snapshot of a watch. `version` counts the changes."""

    version: int
    waiting: int


class Watch(Ending, Generic[T]):
    """A value that changes, for any number of observers; those who are slow skip what lies between.

    Setting an equal value counts as a change. After `close()` nothing can be set, and observers that have seen the
    last value get `EndOfChannel`.
    Source of the semantics: tokio's `watch`, Kotlin's `StateFlow`.
    """

    __slots__ = ("_name", "_state")

    def __init__(self, initial: T, /, *, name: str | None = None) -> None:
        super().__init__()
        self._state: tuple[int, T] = (0, initial)
        self._name = name

    @property
    def value(self) -> T:
        """The latest value."""
        return self._state[1]

    def set(self, value: T, /) -> None:
        """Change the value and wake who waits. Never blocks; from anywhere. `HandleClosed` if it is closed.

        Called by a finalizer or signal handler in the middle of an operation of this very thread on this watch, it
        takes effect when that is over.
        """
        try:
            self._locked(self._set_locked, None, value)
        except Reentered as inside:
            inside.source._defer(lambda: self.set(value))

    def update(self, function: Callable[[T], T], /) -> T:
        """Set the value to `function(value)`, atomically, and return it.

        The function runs outside every lock; it is called again if somebody else changed the value meanwhile, so
        it should have no side effects. If it raises, nothing changes. `HandleClosed` if the watch is closed.
        """
        if not callable(function):
            raise TypeError(f"update() takes a function of the value, not {function!r}")
        while True:
            state = self._state
            if self._closed:
                raise self._shut()
            value = function(state[1])
            if self._locked(self._set_locked, state, value):
                return value

    def _set_locked(self, seen: tuple[int, T] | None, value: T) -> tuple[int, T] | None:
        """What was there before: the old value is to die outside the lock. None if that is not what was `seen`."""
        if self._closed:
            raise self._shut()
        before = self._state
        if seen is not None and seen is not before:
            return None
        self._state = (before[0] + 1, value)
        self._wake_all()
        return before

    def close(self, cause: BaseException | None = None) -> bool:
        """No more changes: observers see the last one, then `EndOfChannel`, or `BrokenChannel` from `cause`.

        Returns True the first time. Never blocks; may be called from anywhere.
        """
        return super().close(cause)

    def _conclude(self) -> None:
        self._wake_all()

    def observe(self) -> Observer[T]:
        """A new observer, who has seen the present value."""
        return Observer(self)

    def statistics(self) -> WatchStatistics:
        """A snapshot; never blocks."""
        return WatchStatistics(version=self._state[0], waiting=self._waiting())

    def _mend(self) -> None:
        self._wake_all()

    def __repr__(self) -> str:
        return f"<Watch {self._label(self._name)} version {self._state[0]}{' closed' if self._closed else ''}>"


class Observer(Received[T_co]):
    """One who watches: `Watch.observe()` makes them. For one task or thread at a time.

    `async for` and `for` give the latest value after each change, until the end.
    """

    __slots__ = ("_seen", "_watch")

    def __init__(self, watch: Watch[Any]) -> None:
        self._watch = watch
        self._seen: int = watch._state[0]

    @property
    def value(self) -> T_co:
        """The latest value. Looking does not count as having seen the change."""
        return self._watch._state[1]  # type: ignore[no-any-return]

    def changed(self) -> Op[T_co]:
        """Wait until there is a change that this observer has not seen; the result is the latest value.

        Raises `EndOfChannel`, or `BrokenChannel` from the cause, if there is none and the watch is closed.
        """
        return _Changed(self)

    __op__ = changed

    def wait_for(self, predicate: Callable[[Any], object], /) -> Op[T_co]:
        """Wait until `predicate(value)` is true of the latest value, which may be the present one; the result is it.

        The predicate runs outside every lock, once for each value that is looked at. What it raises is raised here.
        Raises as `changed` if the watch is closed and the last value does not do.
        """
        if not callable(predicate):
            raise TypeError(f"wait_for() takes a function of the value, not {predicate!r}")
        return _WaitFor(self, predicate)

    def __repr__(self) -> str:
        return f"<Observer of {self._watch!r}, has seen version {self._seen}>"


class _Changed(QueuedLeaf[Any]):
    __slots__ = ("_observer",)

    def __init__(self, observer: Observer[Any]) -> None:
        self._observer = observer
        self._src = observer._watch

    def _hint(self, watch: Watch[Any]) -> bool:
        return watch._closed or watch._state[0] != self._observer._seen

    def _attempt(self, watch: Watch[Any]) -> Any:
        version, value = watch._state
        if version != self._observer._seen:
            self._observer._seen = version
            return value
        if watch._closed:
            raise watch._over()
        return PENDING

    def _would_block(self, watch: Watch[Any]) -> WouldBlock:
        return ChannelEmpty(f"{watch!r} has not changed")

    def _describe(self, watch: Watch[Any]) -> str:
        return f"wait for a change of {watch!r}"


class _WaitFor(_Changed):
    """The predicate is asked in `_hint`, without the lock; `_attempt` only uses what it said."""

    __slots__ = ("_asked", "_fits", "_predicate")

    def __init__(self, observer: Observer[Any], predicate: Callable[[Any], object]) -> None:
        self._predicate = predicate
        self._asked = -1  # of which version
        self._fits = False
        super().__init__(observer)

    def _hint(self, watch: Watch[Any]) -> bool:
        version, value = watch._state
        if version != self._asked:
            self._fits = bool(self._predicate(value))
            self._asked = version
        return self._fits or watch._closed

    def _snapshot(self, watch: Watch[Any]) -> Any:
        self._hint(watch)
        return super()._snapshot(watch)

    def _attempt(self, watch: Watch[Any]) -> Any:
        version, value = watch._state
        if version != self._asked:
            return PENDING
        if self._fits:
            self._observer._seen = version
            return value
        if watch._closed:
            raise watch._over()
        return PENDING

    def _enqueue(self, watch: Watch[Any], waiter: Any) -> None:
        if watch._state[0] != self._asked:
            waiter.wake_in(0)  # it has changed since: to be asked again, outside the lock
        super()._enqueue(watch, waiter)

    def _describe(self, watch: Watch[Any]) -> str:
        return f"wait for a value of {watch!r}"
