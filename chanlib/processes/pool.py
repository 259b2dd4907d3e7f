"""A pool of processes that make calls: `WorkerPool`.

Each worker is a child of a task group, driven by a thread of its own: the thread takes a call, hands it over by a
process channel, and waits for whatever comes first: the result, the death of the process, a cancellation, the end of
the call's time. So a call that has to be killed takes its own worker along and nobody else's; the thread starts another
one for the next call.

Invariants:
- a call is with one driver from when it is taken to when its future is done.
- a worker has one call at a time, so what it says is about that one.
- nothing here is reachable from the threads that would keep a pool alive which nobody has any more (`_Works`).
"""

from __future__ import annotations

import atexit
import concurrent.futures
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from .._core.engine import Op, seconds
from ..channels import Channel
from ..checks import check_count, check_function
from ..errors import ChannelClosed, HandleClosed, TaskCancelled, WorkerDied
from ..events import Event
from ..futures import Future
from ..groups import TaskGroup
from ..handles import TaskHandle
from ..scopes import CancelScope
from ..selecting import select
from ..timers import Timer, after
from .children import StartMethod
from .ends import ProcessReceiver, ProcessSender, open_process_channel
from .reports import unpack_error
from .serving import DONE, FAILED, STOPPED, serve

if TYPE_CHECKING:
    from typing import Self

__all__ = ["BrokenPool", "WorkerFuture", "WorkerPool"]

T = TypeVar("T")

NOTES = 4096  # bytes of a channel that carries numbers
_STARTS = 3  # processes that may die before they have taken a call, until that is its error


class BrokenPool(concurrent.futures.BrokenExecutor):
    """The initializer of a pool has failed, which is the cause: no call can be made."""


class WorkerFuture(concurrent.futures.Future[T], Generic[T]):
    """The result of a call that a pool makes: a `concurrent.futures.Future` that can be awaited, in any world.

    It is an arm of `select` as well. Cancelling who waits for it does not cancel the call; `cancel()` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stop = Event()
        self._stopped = False
        self._waited: Future[T] | None = None

    def cancel(self) -> bool:
        """Cancel the call. One that runs is stopped, if need be with its process. False if it is done.

        Never blocks. A call that is under way ends as cancelled a moment later, or with its result if it is faster.
        """
        if super().cancel():
            return True
        if self.done():
            return False
        self._stop.set()
        return True

    def cancelled(self) -> bool:
        """Whether it has ended as cancelled."""
        return self._stopped or super().cancelled()

    def wait(self) -> Op[T]:
        """Wait for the result: its value, or its exception, raised."""
        if self._waited is None:
            self._waited = Future[T].from_concurrent(self)
        return self._waited.wait()

    __op__ = wait

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait().__await__()

    def _end_cancelled(self) -> None:
        self._stopped = True
        self.set_exception(concurrent.futures.CancelledError())


class WorkerPool(concurrent.futures.Executor):
    """Processes that make calls: `with WorkerPool(4) as pool: pool.submit(fn, 1).result()`.

    A `concurrent.futures.Executor`; its futures can be awaited in any world. A worker is started when there is a call
    and none is free, at most `workers` of them (None: as many as there are processors). Functions, arguments and
    results are pickled; large buffers are copied once on each side.

    A call that is cancelled, or has had `call_timeout` seconds, is stopped: its next chanlib operation raises
    `Cancelled`; after `grace` seconds its process is ended, as a child of a task group is (`TaskGroup.start_process`),
    and another one takes its place. No other call is touched. A process that dies by itself costs one call, which
    raises `WorkerDied`.

    `initializer(*initargs)` is called in each worker before its first call, and `finalizer()` when it ends in order; if
    the initializer fails the pool is broken (`BrokenPool`). After `max_tasks` calls a worker is replaced.
    `start_method` is as for `start_process`.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        kind: Literal["process"] = "process",
        start_method: StartMethod | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        max_tasks: int | None = None,
        call_timeout: float | None = None,
        grace: float = 1.0,
        name: str = "pool",
    ) -> None:
        if workers is not None:
            check_count(workers, "workers", 1)
        if max_tasks is not None:
            check_count(max_tasks, "max_tasks", 1)
        if kind != "process":
            raise ValueError(f"kind must be 'process', not {kind!r}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {name!r}")
        for given, argument in ((initializer, "initializer"), (finalizer, "finalizer")):
            if given is not None and not callable(given):
                raise TypeError(f"{argument} must be a function, not {given!r}")
        limit = None if call_timeout is None else seconds(call_timeout, "call_timeout")
        start = partial(_Worker, start_method, seconds(grace, "grace"), name, (initializer, tuple(initargs), finalizer))
        self._works = _Works(workers or os.cpu_count() or 1, start, max_tasks, limit, name)
        self._size = self._works.size

    # ------------------------------------------------------------- calls
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> WorkerFuture[T]:
        """Have `fn(*args, **kwargs)` called by a worker. Never waits: calls queue.

        The future has the result, or the exception with its remote traceback as the cause; `RemoteError` if it does not
        survive pickling, `WorkerDied` if the process dies, `TimeoutError` if its time is over. Raises `RuntimeError`
        after `shutdown`, `BrokenPool` if the initializer has failed.
        """
        return self._works.take(fn, args, kwargs, self._works.limit)

    async def run(self, fn: Callable[..., T], /, *args: Any, timeout: float | None = None) -> T:
        """Have `fn(*args)` called by a worker and wait for the result. Cancelled, it stops the call and waits for that.

        `timeout` is in seconds, in place of the pool's `call_timeout`.
        """
        limit = self._works.limit if timeout is None else seconds(timeout, "timeout")
        future: WorkerFuture[T] = self._works.take(fn, args, {}, limit)
        try:
            return await future
        except BaseException:
            if not future.done():
                future.cancel()
                with CancelScope(shield=True):
                    await _over(future)
            raise

    def map(  # type: ignore[override]
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        window: int | None = None,
        ordered: bool = True,
        call_timeout: float | None = None,
    ) -> Iterator[T]:
        """`fn` of each item, as `map` does: an iterator over the results, in order, or as they come (`ordered=False`).

        At most `window` calls (None: twice the workers) are under way or done and not yet taken, so the iterables may
        be endless. The first window is submitted at once. `chunksize` items make one call. `timeout`: seconds from now
        on after which the iterator raises `TimeoutError`; `call_timeout` is that of each call. An iterator that is left
        early cancels what is under way.
        """
        check_function(fn, "fn", "map", "a function")
        check_count(chunksize, "chunksize", 1)
        if window is not None:
            check_count(window, "window", 1)
        end = None if timeout is None else after(seconds(timeout, "timeout"))
        limit = self._works.limit if call_timeout is None else seconds(call_timeout, "call_timeout")
        items: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        submit = partial(self._works.take, named={}, limit=limit)
        return _Results(submit, fn, items, chunksize, window or 2 * self._size, ordered, end)

    # ------------------------------------------------------------- the end
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. `cancel_futures` cancels those that have not begun. `wait`: until all have ended.

        Waiting blocks this thread: not on the thread of a loop (`async with` does it there without blocking).
        """
        self._works.close(cancel_futures)
        if wait:
            self._works.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._works.close(error is not None)
        if error is not None:
            self._works.stop()
        with CancelScope(shield=error is not None):
            await self._works.over.wait()

    def __repr__(self) -> str:
        works = self._works
        state = "shut down" if works.jobs.is_closed else f"{len(works.jobs)} calls queued"
        return f"<WorkerPool {works.name!r} of {works.size}, {state}>"

    def __del__(self) -> None:
        works = getattr(self, "_works", None)
        if works is not None:
            works.jobs.close()


_living: set[_Works] = set()
"""The pools that have threads, also those that nobody has any more and that are ending."""


async def _over(future: WorkerFuture[Any]) -> None:
    try:
        await future
    except BaseException as error:
        if not future.done():
            raise
        del error


class _Job:
    """A call that is to be made."""

    __slots__ = ("call", "future", "limit")

    def __init__(self, call: tuple[Any, ...], future: WorkerFuture[Any], limit: float | None) -> None:
        self.call: tuple[Any, ...] | None = call
        self.future = future
        self.limit = limit


class _Works:
    """What a pool consists of, as its threads see it."""

    def __init__(
        self, size: int, start: Callable[[TaskGroup], _Worker], max_tasks: int | None, limit: float | None, name: str
    ) -> None:
        self.size = size
        self.start = start
        self.max_tasks = max_tasks
        self.limit = limit
        self.name = name
        self.jobs: Channel[_Job] = Channel(math.inf)
        self.guard = threading.Lock()
        self.drivers = 0
        self.idle = 0
        self.busy: set[WorkerFuture[Any]] = set()
        self.broken: BaseException | None = None
        self.home = os.getpid()
        self.group: TaskGroup | None = None
        self.opened = threading.Event()
        self.over = Event()
        self.thread: threading.Thread | None = None

    def take(
        self, fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], limit: float | None
    ) -> WorkerFuture[Any]:
        check_function(fn, "fn", "submit", "a function")
        if os.getpid() != self.home:
            raise RuntimeError("this pool belongs to the process that has made it: make one in this process")
        future: WorkerFuture[Any] = WorkerFuture()
        with self.guard:
            self._check()
            try:
                self.jobs.send_nowait(_Job((fn, args, named), future, limit))
            except HandleClosed:
                raise RuntimeError(f"the pool {self.name!r} is shut down: it takes no more calls") from None
            if self.idle < len(self.jobs) and self.drivers < self.size:
                self.drivers += 1
                self._hire()
        return future

    def _check(self) -> None:
        if self.broken is not None:
            raise BrokenPool(f"the initializer of the pool {self.name!r} has failed") from self.broken

    def _hire(self) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=self._live, name=f"chanlib {self.name}", daemon=True)
            _living.add(self)
            self.thread.start()
            self.opened.wait()
        assert self.group is not None
        self.group.start_thread(self._drive, name=f"driver of {self.name}")

    def _live(self) -> None:
        try:
            with TaskGroup(on_error="collect", name=self.name) as self.group:
                self.opened.set()
                self.jobs.wait_closed().sync()
        finally:
            _living.discard(self)
            self.over.set()

    # ------------------------------------------------------------- one worker
    def _drive(self) -> None:
        worker: _Worker | None = None
        try:
            while True:
                with self.guard:
                    self.idle += 1
                try:
                    job = self.jobs.receive().sync()
                finally:
                    with self.guard:
                        self.idle -= 1
                worker = self._perform(job, worker)
                del job
        except ChannelClosed:
            pass
        finally:
            if worker is not None:
                worker.retire()

    def _perform(self, job: _Job, worker: _Worker | None) -> _Worker | None:
        """Make the call, by this worker or another one; who is to make the next."""
        future = job.future
        if not future.set_running_or_notify_cancel():
            return worker
        with self.guard:
            self.busy.add(future)
        try:
            if self.broken is not None:
                self._check()
            call, job.call = job.call, None
            for _ in range(_STARTS):
                if worker is None:
                    assert self.group is not None
                    worker = self.start(self.group)
                try:
                    worker.calls.send(call).sync()
                    break
                except ChannelClosed:  # it has died while it had nothing to do
                    died = self._bury(worker)
                    worker = None
            else:
                raise died or WorkerDied(self.name, None)
            del call
            worker.made += 1
            if not worker.attend(future, job.limit):
                died = self._bury(worker)
                worker = None
                if not future.done():
                    future.set_exception(died or WorkerDied(self.name, None))
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            with self.guard:
                self.busy.discard(future)
        if worker is not None and worker.made == self.max_tasks:
            worker.retire()
            return None
        return worker

    def _bury(self, worker: _Worker) -> BaseException | None:
        """What it has died of. If that was before its first call, and no accident, no worker will do better."""
        died = worker.bury()
        if worker.made <= 1 and isinstance(died, Exception) and not isinstance(died, WorkerDied | OSError):
            self.broken = died
            self._check()
        return died

    # ------------------------------------------------------------- the end
    def close(self, cancel: bool) -> None:
        self.jobs.close()
        if cancel:
            for job in self.jobs.drain():
                job.future.cancel()
                job.future.set_running_or_notify_cancel()
        with self.guard:
            if self.thread is None:
                self.over.set()

    def stop(self) -> None:
        """Stop the calls that are under way, too."""
        with self.guard:
            busy = list(self.busy)
        for future in busy:
            future.cancel()

    def join(self) -> None:
        self.over.wait().sync()
        if self.thread is not None:
            self.thread.join()


class _Worker:
    """One process, as its driver sees it."""

    def __init__(
        self,
        start_method: StartMethod | None,
        grace: float,
        name: str,
        hooks: tuple[Any, Any, Any],
        group: TaskGroup,
    ) -> None:
        self.grace = grace
        self.made = 0
        calls, theirs = open_process_channel[Any](1)
        told: tuple[ProcessSender[Any], ProcessReceiver[Any]] = open_process_channel(1)
        stops: tuple[ProcessSender[int], ProcessReceiver[int]] = open_process_channel(1, buffer_bytes=NOTES)
        self.calls = calls
        self.results = told[1]
        self.stops = stops[0]
        given = (theirs, told[0], stops[1])
        try:
            self.handle: TaskHandle[None] = group.start_process(
                serve, *given, *hooks, name=f"worker of {name}", grace=grace, start_method=start_method
            )
        except BaseException:
            self.close()
            raise
        finally:
            for end in given:
                end.close()

    def attend(self, future: WorkerFuture[Any], limit: float | None) -> bool:
        """Wait for the end of the call, and tell its future. False: the process has ended."""
        end = None if limit is None else after(limit)
        try:
            which, said = select(self.results.receive(), future._stop.wait(), end).sync()
        except ChannelClosed:
            return False
        if which == 0:
            self._tell(future, said)
            return True
        error = TimeoutError(f"the call has taken more than {limit} s") if which == 2 else None
        said = self._stop()
        if said is not None and error is None and said[0] != STOPPED:  # it was faster
            self._tell(future, said)
        elif error is None:
            future._end_cancelled()
        else:
            future.set_exception(error)
        return said is not None

    def _stop(self) -> tuple[int, Any] | None:
        """Have the call end, and hear what it says; None: its process had to go."""
        try:
            if self.grace:
                self.stops.send(self.made).sync(self.grace)
                return self.results.receive().sync(self.grace)
        except (TimeoutError, ChannelClosed):
            pass
        self.handle.cancel("its call was cancelled")
        self.bury()
        return None

    def _tell(self, future: WorkerFuture[Any], said: tuple[int, Any]) -> None:
        how, outcome = said
        if how == DONE:
            future.set_result(outcome)
        elif how == FAILED:
            future.set_exception(unpack_error(outcome))
        else:  # by something that cancels scopes in there
            future._end_cancelled()

    def retire(self) -> None:
        """Let it end, in order; nobody waits for that but the group."""
        for end in (self.calls, self.results, self.stops):
            end.close()

    def bury(self) -> BaseException | None:
        """Wait for its end; what it has died of."""
        self.retire()
        try:
            self.handle.sync()
        except TaskCancelled:
            return None
        except BaseException as error:
            if not self.handle.done:
                raise
            return error
        return None


def _shut_all() -> None:
    """At the end of the interpreter, before `multiprocessing` waits for all processes."""
    for works in list(_living):
        works.close(False)
        works.join()


atexit.register(_shut_all)


def _after_fork_in_child() -> None:
    _living.clear()  # their threads and workers are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ------------------------------------------------------------- map
def _each(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*item) for item in chunk]


class _Results(Iterator[T]):
    """The results of `map`, with a window of calls under way."""

    def __init__(
        self,
        submit: Callable[..., WorkerFuture[list[T]]],
        fn: Callable[..., T],
        items: Iterator[tuple[Any, ...]],
        chunksize: int,
        window: int,
        ordered: bool,
        end: Timer | None,
    ) -> None:
        self.submit = submit
        self.fn = fn
        self.items = items
        self.chunksize = chunksize
        self.window = window
        self.end = end
        self.failed: BaseException | None = None  # of the iterable: raised when the results before it are taken
        self.ready: deque[T] = deque()
        self.waiting: deque[WorkerFuture[list[T]]] = deque()
        self.done: Channel[WorkerFuture[list[T]]] | None = None if ordered else Channel(math.inf)
        self.fill()

    def fill(self) -> None:
        while len(self.waiting) < self.window and self.failed is None:
            try:
                chunk = list(islice(self.items, self.chunksize))
            except Exception as error:
                self.failed = error
                return
            if not chunk:
                return
            future = self.submit(_each, (self.fn, chunk))
            self.waiting.append(future)
            if self.done is not None:
                future.add_done_callback(self.done.send_nowait)

    def __next__(self) -> T:
        while not self.ready:
            if not self.waiting:
                failed, self.failed = self.failed, None
                if failed is not None:
                    raise failed
                raise StopIteration
            try:
                self.ready.extend(self.first())
            except BaseException:
                self.close()
                raise
            self.fill()
        return self.ready.popleft()

    def first(self) -> list[T]:
        """The next results, taken out of what is waited for."""
        if self.done is None:
            which, values = select(self.waiting[0], self.end).sync()
            if which == 0:
                self.waiting.popleft()
                return values  # type: ignore[no-any-return]
        else:
            which, future = select(self.done.receive(), self.end).sync()
            if which == 0:
                self.waiting.remove(future)
                return future.result()  # type: ignore[no-any-return]
        raise TimeoutError("map() has had its time")

    def close(self) -> None:
        """Cancel what is under way."""
        self.items = iter(())
        while self.waiting:
            self.waiting.popleft().cancel()

    def __del__(self) -> None:
        if getattr(self, "waiting", None):
            self.close()
