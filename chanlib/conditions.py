"""Condition: a lock, and a place to wait in until what it guards has changed.

One who waits gives the lock back in the very step that makes him wait (`_LetGo`), so no notification falls between,
and has it again whatever ends the wait.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from ._core.engine import (
    CLAIMED,
    PENDING,
    SERVED,
    WAITING,
    WITHDRAWN,
    Op,
    Queued,
    QueuedLeaf,
    clock_here,
    seconds,
    who_performs,
)
from ._core.lane import lanes, refuse_loop
from ._core.running import run_here
from .blocks import HeldInside
from .checks import check_count
from .locks import Lock
from .scopes import CancelScope

__all__ = ["Condition", "ConditionStatistics", "Waiting"]

R = TypeVar("R")


class ConditionStatistics(NamedTuple):
    """A snapshot of a condition."""

    locked: bool
    waiting: int


class Condition(HeldInside):
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
        self._bell = _Bell(self._lock)

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
        return _Notified(self._bell, False)

    def notify(self, n: int = 1, /) -> None:
        """Let the first `n` who wait go on. The lock must be held, else `RuntimeError`."""
        check_count(n, "n", 0)
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
        return ConditionStatistics(locked=self._lock.locked(), waiting=self._bell._waiting())

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit or self._lock._owner is who_performs():  # closed while it waited: not held
            self._lock.release()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: it is one object for all who wait on it")

    def __repr__(self) -> str:
        return repr(self._bell)


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
            notification = _Notified(condition._bell, True)
            await (notification if limit == math.inf else notification.within(limit))
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
    with CancelScope(shield=True):
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


class _Bell(Queued):
    """Where those wait who wait for a notification."""

    __slots__ = ("_guard",)

    def __init__(self, guard: Lock) -> None:
        super().__init__()
        self._guard = guard

    def _ring(self, n: int | None) -> None:
        while self._queue and (n is None or n > 0):
            waiter = self._queue.claim(self._after)
            if waiter is None:
                return
            waiter.state = SERVED
            if n is not None:
                n -= 1

    def _mend(self) -> None:
        """Who was claimed is notified. Woken in vain, he would be away from the queue for the next notification."""
        rest: list[Any] = []
        woken: list[Any] = [*self._after]
        for item in woken:
            state = getattr(item, "state", None)
            if state == CLAIMED or (state == WAITING and item.cell and item.cell[0] is item):
                item.state = SERVED
            if state != WAITING or item.cell:
                rest.append(item)
        self._after = rest

    def __repr__(self) -> str:
        return f"<Condition on {self._guard!r}>"


class _Notified(QueuedLeaf[None]):
    """The next notification; with the lock given back once it waits for that."""

    __slots__ = ("_holds",)

    def __init__(self, bell: _Bell, holds: bool) -> None:
        self._holds = holds
        self._src = bell

    def _hint(self, bell: _Bell) -> bool:
        return False

    def _attempt(self, bell: _Bell) -> Any:
        return PENDING

    def _enqueue(self, bell: _Bell, waiter: Any) -> None:
        if self._holds:
            bell._after.append(_LetGo(bell._guard))
        bell._stand(waiter)

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
