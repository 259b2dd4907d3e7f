"""What a pool consists of, as its threads see it: the queue, the crew, the group that the workers are children of.

Nothing here is reachable from the threads that would keep a pool alive which nobody has any more: such a pool is
closed, and ends when it has made the calls that it was given.

Invariants, with the guard:
- `idle` counts the drivers that sleep and were not woken; `woken` those that were and have not looked yet.
- a driver sleeps only while there is nothing in the queue.
- a pool that is closed has a driver as long as there is something in the queue.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import util
from typing import Any

from ..checks import check_function
from ..events import Event
from ..groups import TaskGroup
from .calls import Call, WorkerFuture
from .crew import Driver, Worker

__all__ = ["BrokenPool", "Works"]

_FIRST = 1000  # at the end of a process, among what `multiprocessing` does then: before it hangs up on its children

_living: set[Works] = set()
"""The pools that have threads, also those that nobody has any more and that are ending."""


class BrokenPool(concurrent.futures.BrokenExecutor):
    """The initializer of a pool has failed, which is the cause: no call can be made."""


class Works:
    def __init__(
        self, size: int, start: Callable[[TaskGroup], Worker], max_tasks: int | None, limit: float | None, name: str
    ) -> None:
        self.size = size
        self.start = start
        self.max_tasks = max_tasks
        self.limit = limit
        self.name = name
        self.guard = threading.RLock()  # a finalizer may close a pool in the middle
        self.news = threading.Condition(self.guard)
        self.queue: deque[Call] = deque()
        self.closed = False
        self.halted = False  # are all calls to be stopped?
        self.idle = 0
        self.woken = 0
        self.crew: set[Driver] = set()
        self.broken: BaseException | None = None
        self.home = os.getpid()
        self.group: TaskGroup | None = None
        self.opened = threading.Event()
        self.ending = Event()
        self.over = Event()
        self.thread: threading.Thread | None = None
        self.at_exit: util.Finalize | None = None

    # ------------------------------------------------------------- calls come
    def take(
        self, fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], limit: float | None
    ) -> WorkerFuture[Any]:
        check_function(fn, "fn", "submit", "a function")
        if os.getpid() != self.home:
            raise RuntimeError("this pool belongs to the process that has made it: make one in this process")
        future: WorkerFuture[Any] = WorkerFuture()
        with self.guard:
            self.check()
            if self.closed:
                raise RuntimeError(f"the pool {self.name!r} is shut down: it takes no more calls")
            self.queue.append(Call((fn, args, named), future, limit))
            try:
                self._call_in(1)
            except BaseException:  # no thread can be had
                self.queue.pop()
                raise
        return future

    def return_calls(self, calls: list[Call]) -> None:
        """They are the first to be made."""
        if calls:
            with self.guard:
                self.queue.extendleft(reversed(calls))
                with suppress(Exception):  # no thread can be had: the driver that returns them will take them itself
                    self._call_in(len(calls))

    def _call_in(self, number: int) -> None:
        awake = min(number, self.idle)
        if awake:
            self.idle -= awake
            self.woken += awake
            self.news.notify(awake)
        elif len(self.queue) > self.woken and len(self.crew) < self.size and not self.closed:
            self._hire()

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken_pool()

    def broken_pool(self) -> BrokenPool:
        error = BrokenPool(f"the initializer of the pool {self.name!r} has failed")
        error.__cause__ = self.broken
        return error

    def break_down(self, error: BaseException) -> None:
        """No call can be made any more."""
        with self.guard:
            self.broken = error
            left = list(self.queue)
            self.queue.clear()
        for call in left:
            if call.take(None):
                call.future._end(None, self.broken_pool())

    # ------------------------------------------------------------- drivers
    def _hire(self) -> None:
        """Raises if no thread can be had; nothing has changed then. (A driver asks for the guard first of all.)"""
        if self.thread is None:
            thread = threading.Thread(target=self._live, name=f"chanlib {self.name}", daemon=True)
            thread.start()
            self.thread = thread
            _living.add(self)
            self.at_exit = util.Finalize(None, _shut_all, exitpriority=_FIRST)
            self.opened.wait()
        assert self.group is not None
        driver = Driver(self)
        self.group.start_thread(driver.live, name=f"driver of {self.name}")
        self.crew.add(driver)

    def _live(self) -> None:
        try:
            with TaskGroup(on_error="collect", name=self.name) as self.group:
                self.opened.set()
                self.ending.wait().sync()
        finally:
            _living.discard(self)
            assert self.at_exit is not None
            self.at_exit.cancel()
            self.over.set()

    def next_call(self, driver: Driver) -> Call | None:
        """The next call for a driver that has nothing to do; None: there will be none."""
        with self.guard:
            while not self.queue:
                laden = [other for other in self.crew if len(other.given) > 1]
                for other in laden:
                    if not other.wanted:
                        other.wanted = True
                        other.attention.set()
                if self.closed and not laden:
                    return None
                self.idle += 1
                self.news.wait()
                self.woken -= 1
            return self.queue.popleft()

    def call_ahead(self) -> Call | None:
        """A call for a driver whose worker is busy, if there is one that nobody else is about to take."""
        if len(self.queue) <= self.woken:
            return None
        with self.guard:
            return self.queue.popleft() if len(self.queue) > self.woken else None

    def tell_idle(self) -> None:
        """A driver that was asked for what it had been given ahead has looked: let the others look again."""
        with self.guard:
            self._wake_all()

    def left(self, driver: Driver) -> None:
        with self.guard:
            self.crew.discard(driver)
            self._wake_all()  # who has waited for what it had been given ahead: there will be no more

    def _wake_all(self) -> None:
        self.woken += self.idle
        self.idle = 0
        self.news.notify_all()

    # ------------------------------------------------------------- the end
    def close(self) -> None:
        """Take no more calls. May be called from a finalizer."""
        if os.getpid() != self.home:
            return
        with self.guard:
            self.closed = True
            self._wake_all()
            (self.ending if self.thread is not None else self.over).set()

    def cancel_queue(self) -> None:
        with self.guard:
            left = list(self.queue)
            self.queue.clear()
        for call in left:
            call.future.cancel()
            call.take(None)

    def halt(self) -> None:
        """Stop the calls that are under way, too."""
        with self.guard:
            self.halted = True
            crew = list(self.crew)
        for driver in crew:
            driver.attention.set()

    def join(self) -> None:
        if os.getpid() != self.home:
            return
        with self.guard:
            if any(driver.thread == threading.get_ident() for driver in self.crew):  # in a callback of a future
                raise RuntimeError(
                    f"a thread of the pool {self.name!r} cannot wait for the end of the pool: use shutdown(wait=False)"
                )
        self.over.wait().sync()
        if self.thread is not None:
            self.thread.join()


def _shut_all(living: Iterable[Works] = _living) -> None:
    """At the end of the interpreter, before `multiprocessing` waits for all processes.

    One that `multiprocessing` has forked does not come to `atexit`, but does what that has to do at its end.
    """
    for works in list(living):
        works.close()
        works.join()


atexit.register(_shut_all)


def _after_fork_in_child() -> None:
    _living.clear()  # their threads and workers are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
