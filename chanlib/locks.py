"""Semaphore and Lock: taking turns.

Both are counters (`_core`): whoever waits first is served first, nobody barges in, and an acquire that is cancelled
after it was served passes its turn on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._core.engine import WITHDRAWN, Acquire, Counter, Op, Reentered, who_performs
from ._core.lane import Lane
from .blocks import HeldInside
from .checks import check_count

__all__ = ["Lock", "LockStatistics", "Semaphore", "SemaphoreStatistics"]


class SemaphoreStatistics(NamedTuple):
    """A snapshot of a semaphore."""

    value: int
    waiting: int


class Semaphore(Counter, HeldInside):
    """So many units, taken by `acquire` and given back by `release`, by anybody, from any world.

    First in, first out: a big request holds back smaller ones behind it. `with` and `async with` take one unit.
    `max_value`, if given, is the most there can be: a release above it is a `ValueError` and changes nothing.
    Source of the semantics: tokio's `Semaphore`, Go's `x/sync/semaphore`.
    """

    __slots__ = ("_max", "_name")

    def __init__(self, value: int, /, *, max_value: int | None = None, name: str | None = None) -> None:
        check_count(value, "value", 0)
        if max_value is not None:
            check_count(max_value, "max_value", 1)
            if value > max_value:
                raise ValueError(f"value must be at most max_value, {max_value}, not {value!r}")
        super().__init__(value)
        self._max = max_value
        self._name = name

    def acquire(self, units: int = 1, /) -> Op[None]:
        """Take so many units, all at once, waiting until there are enough and it is our turn.

        A cancelled one takes nothing. Raises `ValueError` for less than one, or for more than `max_value`.
        """
        check_count(units, "units", 1)
        if self._max is not None and units > self._max:
            raise ValueError(f"units must be at most max_value of {self!r}, {self._max}, not {units!r}")
        return Acquire(self, units)

    __op__ = acquire

    def acquire_nowait(self, units: int = 1, /) -> None:
        """Take so many units if there are enough and nobody waits, else raise `WouldBlock`."""
        self.acquire(units).poll()

    def release(self, units: int = 1, /) -> None:
        """Give back so many units and let those go on who wait for them. Never blocks; from anywhere."""
        check_count(units, "units", 1)
        try:
            self._locked(self._release_locked, units)
        except Reentered as inside:
            inside.source._defer(lambda: self.release(units))

    def _release_locked(self, units: int) -> None:
        if self._max is not None and self._free + units > self._max:
            raise ValueError(f"release of {units} would raise {self!r} above its max_value of {self._max}")
        self._put_back(units)

    @property
    def value(self) -> int:
        """How many units are free, as a snapshot."""
        free: int = self._free
        return free

    @property
    def max_value(self) -> int | None:
        """The most there can be, or None."""
        return self._max

    def statistics(self) -> SemaphoreStatistics:
        """A snapshot; never blocks."""
        return SemaphoreStatistics(value=self._free, waiting=self._waiting())

    def __repr__(self) -> str:
        return f"<Semaphore {self._label(self._name)} {self._free}{'' if self._max is None else f'/{self._max}'}>"


class LockStatistics(NamedTuple):
    """A snapshot of a lock. `owner` is the task that holds it, or True for a plain thread; None if it is free."""

    locked: bool
    owner: Any
    waiting: int


class Lock(Counter, HeldInside):
    """Mutual exclusion between tasks and threads of any kind, first come, first served.

    It belongs to the task, or the plain thread, that acquired it: only that may release it, and acquiring it once
    more there is an error instead of a deadlock. Use it with `async with` in tasks and `with` in threads.
    Source of the semantics: trio's `Lock`.
    """

    __slots__ = ("_name", "_owner")

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(1)
        self._owner: Any = None
        self._name = name

    def _taken(self, units: int, who: Any) -> None:
        self._owner = who
        self._free = 0

    def _who(self) -> Any:
        return who_performs()

    def acquire(self) -> Op[None]:
        """Wait for the lock and take it. A cancelled one does not have it.

        Performing it where the lock is held already raises `RuntimeError`.
        """
        return _AcquireLock(self, 1)

    __op__ = acquire

    def acquire_nowait(self) -> None:
        """Take the lock if it is free and nobody waits for it, else raise `WouldBlock`."""
        self.acquire().poll()

    def release(self) -> None:
        """Give the lock to whoever waits first, or free it. Never blocks.

        Raises `RuntimeError` if it is not held by the calling task or thread; nothing changes then.
        """
        me = who_performs()
        try:
            self._locked(self._release_locked, me)
        except Reentered as inside:
            inside.source._defer(lambda: self._locked(self._release_locked, me))

    def _release_locked(self, me: Any) -> None:
        if self._free or self._owner is not me:
            holder = "nobody holds it" if self._free else f"it is held by {_named(self._owner)}"
            raise RuntimeError(f"{self!r} cannot be released by {_named(me)}: {holder}")
        self._owner = None  # with the next store, for the sake of interrupts
        self._free = 1
        self._serve()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return not self._free

    def statistics(self) -> LockStatistics:
        """A snapshot; never blocks."""
        owner = self._owner
        return LockStatistics(locked=not self._free, owner=_shown(owner), waiting=self._waiting())

    def __repr__(self) -> str:
        return f"<Lock {self._label(self._name)}{'' if self._free else ' locked'}>"


class _AcquireLock(Acquire):
    __slots__ = ()

    def _attempt(self, counter: Any) -> Any:
        lock: Lock = counter
        if not lock._free and lock._owner is lock._who():
            raise RuntimeError(f"{lock!r} is held here already: it is not re-entrant")
        return super()._attempt(lock)

    def _undo(self, counter: Any, waiter: Any) -> bool:
        lock: Lock = counter
        waiter.state = WITHDRAWN
        lock._owner = None
        lock._free = 1
        lock._serve()
        return True


def _shown(owner: Any) -> Any:
    return True if isinstance(owner, Lane) else owner


def _named(who: Any) -> str:
    return "a plain thread" if isinstance(who, Lane) else repr(who)
