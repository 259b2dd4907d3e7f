"""Semaphore, Lock and Condition: taking turns.

Both a semaphore and a lock are counters (`_core`): whoever waits first is served first, nobody barges in, and an
acquire that is cancelled after it was served passes its turn on. A condition is a lock and a queue of its own; one
who waits there gives the lock back in the very step that makes him wait.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Generator
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import anyio

from ._core.engine import (
    PENDING,
    SERVED,
    WITHDRAWN,
    Acquire,
    Counter,
    Leaf,
    Op,
    Reentered,
    Source,
    WaitQueue,
    clock_here,
    seconds,
    who_performs,
)
from ._core.lane import Lane, World, lanes, refuse_loop, world
from ._core.running import run_here

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Condition",
    "ConditionStatistics",
    "Lock",
    "LockStatistics",
    "Semaphore",
    "SemaphoreStatistics",
    "Waiting",
]

R = TypeVar("R")


class SemaphoreStatistics(NamedTuple):
    """A snapshot of a semaphore."""

    value: int
    waiting: int


class Semaphore(Counter):
    """So many units, taken by `acquire` and given back by `release`, by anybody, from any world.

    First in, first out: a big request holds back smaller ones behind it. `with` and `async with` take one unit.
    `max_value`, if given, is the most there can be: a release above it is a `ValueError` and changes nothing.
    Source of the semantics: tokio's `Semaphore`, Go's `x/sync/semaphore`.
    """

    __slots__ = ("_max", "_name")

    def __init__(self, value: int, /, *, max_value: int | None = None, name: str | None = None) -> None:
        _check_count(value, "value", 0)
        if max_value is not None:
            _check_count(max_value, "max_value", 1)
            if value > max_value:
                raise ValueError(f"value must be at most max_value, {max_value}, not {value!r}")
        super().__init__(value)
        self._max = max_value
        self._name = name

    def acquire(self, units: int = 1, /) -> Op[None]:
        """Take so many units, all at once, waiting until there are enough and it is our turn.

        A cancelled one takes nothing. Raises `ValueError` for less than one, or for more than `max_value`.
        """
        _check_count(units, "units", 1)
        if self._max is not None and units > self._max:
            raise ValueError(f"units must be at most max_value of {self!r}, {self._max}, not {units!r}")
        return Acquire(self, units)

    __op__ = acquire

    def acquire_nowait(self, units: int = 1, /) -> None:
        """Take so many units if there are enough and nobody waits, else raise `WouldBlock`."""
        self.acquire(units).poll()

    def release(self, units: int = 1, /) -> None:
        """Give back so many units and let those go on who wait for them. Never blocks; from anywhere."""
        _check_count(units, "units", 1)
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
        return self._free

    @property
    def max_value(self) -> int | None:
        """The most there can be, or None."""
        return self._max

    def statistics(self) -> SemaphoreStatistics:
        """A snapshot; never blocks."""
        return SemaphoreStatistics(value=self._free, waiting=self._waiting())

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __enter__(self) -> Self:
        refuse_loop(lanes.lane, "`with` over a semaphore")
        self.acquire().sync()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        label = repr(self._name) if self._name is not None else f"#{self._number}"
        return f"<Semaphore {label} {self._free}{'' if self._max is None else f'/{self._max}'}>"


class LockStatistics(NamedTuple):
    """A snapshot of a lock. `owner` is the task that holds it, or True for a plain thread; None if it is free."""

    locked: bool
    owner: Any
    waiting: int


class Lock(Counter):
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

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __enter__(self) -> Self:
        refuse_loop(lanes.lane, "`with` over a lock")
        self.acquire().sync()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        label = repr(self._name) if self._name is not None else f"#{self._number}"
        return f"<Lock {label}{'' if self._free else ' locked'}>"


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


class ConditionStatistics(NamedTuple):
    """A snapshot of a condition."""

    locked: bool
    waiting: int


class Condition:
    """A lock, and a place to wait in until somebody who holds it says that things have changed.

    `wait` and `wait_for` are no arms of a select, since they end by taking the lock again; `notified()` is one.
    Those who wait are notified in the order of arrival, and then come to the lock as their worlds run them.
    Source of the semantics: `threading.Condition`.
    """

    __slots__ = ("__weakref__", "_bell", "_lock")

    def __init__(self, lock: Lock | None = None, *, name: str | None = None) -> None:
        if lock is not None and not isinstance(lock, Lock):
            raise TypeError(f"lock must be a chanlib.Lock or None, not {lock!r}")
        self._lock = Lock(name=name) if lock is None else lock
        self._bell = _Bell(self)

    @property
    def lock(self) -> Lock:
        """The lock that belongs to it."""
        return self._lock

    def acquire(self) -> Op[None]:
        """As `Lock.acquire`."""
        return self._lock.acquire()

    def acquire_nowait(self) -> None:
        """As `Lock.acquire_nowait`."""
        self._lock.acquire_nowait()

    def release(self) -> None:
        """As `Lock.release`."""
        self._lock.release()

    def locked(self) -> bool:
        """As `Lock.locked`."""
        return self._lock.locked()

    def wait(self) -> Waiting[None]:
        """Give the lock back, wait for a notification, take the lock again: `await` it, or call its `sync()`.

        The lock is held again whenever it returns or raises, a cancellation included. A notification that meets a
        cancellation is passed on to the next who waits. Raises `RuntimeError` where the lock is not held.
        """
        return Waiting(self, None)

    def wait_for(self, predicate: Callable[[], R], /) -> Waiting[R]:
        """Wait until `predicate()` is true, and give its value. It is called with the lock held."""
        if not callable(predicate):
            raise TypeError(f"wait_for() takes a function without arguments, not {predicate!r}")
        return Waiting(self, predicate)

    def notified(self) -> Op[None]:
        """Wait for a notification, without regard to the lock: an arm of a select."""
        return _Notified(self, False)

    def notify(self, n: int = 1, /) -> None:
        """Let the first `n` who wait go on. The lock must be held, else `RuntimeError`."""
        _check_count(n, "n", 0)
        self._check_held("notify")
        self._bell._locked(self._bell._ring, n)

    def notify_all(self) -> None:
        """Let all who wait go on. The lock must be held, else `RuntimeError`."""
        self._check_held("notify_all")
        self._bell._locked(self._bell._ring, None)

    def _check_held(self, what: str) -> None:
        if self._lock._free or self._lock._owner is not who_performs():
            raise RuntimeError(f"{what}() needs the lock of {self!r} to be held by the caller")

    def statistics(self) -> ConditionStatistics:
        """A snapshot; never blocks."""
        return ConditionStatistics(locked=self._lock.locked(), waiting=self._bell._queue.live())

    async def __aenter__(self) -> Self:
        await self._lock.acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit or self._lock._owner is who_performs():  # closed while it waited: not held
            self._lock.release()

    def __enter__(self) -> Self:
        self._lock.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: it is one object for all who wait on it")

    def __repr__(self) -> str:
        return f"<Condition on {self._lock!r}>"


class Waiting(Generic[R]):
    """Waiting for a condition, not yet begun: `await` it in a task, or `sync()` in a thread, once."""

    __slots__ = ("_condition", "_limit", "_predicate", "_told")

    def __init__(self, condition: Condition, predicate: Callable[[], R] | None) -> None:
        self._told = False  # somebody knows by an error that it did not happen
        self._predicate = predicate
        self._limit = math.inf
        self._condition: Condition | None = condition

    def within(self, limit: float, /) -> Waiting[R]:
        """The same, or `TimeoutError` after `limit` seconds, with the lock held again as always.

        The time counts from performing and leaves out what it takes to get the lock again.
        """
        try:
            self._limit = min(self._limit, seconds(limit, "within"))
        except Exception:
            self._told = True
            raise
        return self

    async def _run(self) -> Any:
        condition, self._condition = self._condition, None
        if condition is None:
            raise RuntimeError(f"{self!r} has been performed already; make a new one for each time")
        condition._check_held("wait")
        clock = clock_here()
        end = clock() + self._limit
        if self._predicate is None:
            return await self._once(condition, self._limit)
        while not (value := self._predicate()):
            await self._once(condition, end - clock())
        return value

    async def _once(self, condition: Condition, limit: float) -> None:
        notified = False
        try:
            await _Notified(condition, True).within(limit)
            notified = True
            await _take_again(condition._lock)
        except BaseException as error:
            if notified:  # somebody else shall have the notification
                condition._bell._locked(condition._bell._ring, 1)
            elif not isinstance(error, GeneratorExit):
                await _take_again(condition._lock)
            raise

    def __await__(self) -> Generator[Any, Any, R]:
        return self._run().__await__()

    def sync(self, timeout: float | None = None) -> R:
        """Wait in this thread, blocking it, for `timeout` seconds at most (None: no limit), else `TimeoutError`."""
        try:
            refuse_loop(lanes.lane, "sync()")
            if timeout is not None:
                self._limit = min(self._limit, seconds(timeout, "timeout"))
        except Exception:
            self._told = True
            raise
        return run_here(self._run())  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<wait for {self._condition!r}>" if self._condition is not None else "<wait for a condition, performed>"

    def __del__(self) -> None:
        if self._condition is not None and not self._told:
            warnings.warn(f"{self!r} was never performed: await it, or call its sync()", RuntimeWarning, stacklevel=2)


async def _take_again(lock: Lock) -> None:
    """Acquire the lock whatever comes between: a cancellation is kept back until it is held."""
    late: BaseException | None = None
    tasks = world(lanes.lane) in (World.ASYNCIO, World.TRIO)
    with anyio.CancelScope(shield=True) if tasks else nullcontext():
        while lock._free or lock._owner is not who_performs():
            try:
                await lock.acquire()
            except GeneratorExit:
                raise
            except BaseException as error:
                late = error
    if late is not None:
        try:
            raise late
        finally:
            del late


class _Bell(Source):
    """Where those wait who wait for a notification."""

    __slots__ = ("_condition", "_queue")

    def __init__(self, condition: Condition) -> None:
        super().__init__()
        self._condition = weakref.ref(condition)
        self._queue = WaitQueue()

    def _ring(self, n: int | None) -> None:
        while n is None or n > 0:
            waiter = self._queue.claim(self._after)
            if waiter is None:
                return
            waiter.state = SERVED
            if n is not None:
                n -= 1

    def _forget_waiters(self) -> None:
        self._queue = WaitQueue()

    def __repr__(self) -> str:
        return repr(self._condition() or "a condition")


class _Notified(Leaf[None]):
    """The next notification; with the lock given back once it waits for that."""

    __slots__ = ("_holds", "_keep")

    def __init__(self, condition: Condition, holds: bool) -> None:
        self._keep = condition
        self._holds = holds
        self._src = condition._bell

    def _hint(self, bell: _Bell) -> bool:
        return False

    def _attempt(self, bell: _Bell) -> Any:
        return PENDING

    def _enqueue(self, bell: _Bell, waiter: Any) -> None:
        if self._holds:
            bell._after.append(_LetGo(self._keep._lock))
        bell._queue.append(waiter)

    def _withdraw(self, bell: _Bell, waiter: Any) -> None:
        bell._queue.withdrawn()

    def _undo(self, bell: _Bell, waiter: Any) -> bool:
        waiter.state = WITHDRAWN
        bell._ring(1)  # somebody else shall have it
        return True

    def _received(self, bell: _Bell, value: Any) -> None:
        return None

    def _describe(self, bell: _Bell) -> str:
        return f"wait for {bell!r}"


class _LetGo:
    """Gives the lock back once the bell's own lock is free. Woken twice, it has done so already."""

    __slots__ = ("lock", "me")

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.me = who_performs()

    def wake(self) -> None:
        if not self.lock._free and self.lock._owner is self.me:
            self.lock._locked(self.lock._release_locked, self.me)


def _shown(owner: Any) -> Any:
    return True if isinstance(owner, Lane) else owner


def _named(who: Any) -> str:
    return "a plain thread" if isinstance(who, Lane) else repr(who)


def _check_count(value: Any, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an integer of at least {least}, not {value!r}")
    if value < least:
        raise ValueError(f"{argument} must be an integer of at least {least}, not {value!r}")
