"""A pool of processes that make calls: `WorkerPool`.

What it consists of is in `works`, its threads and processes in `crew`; `calls` has its futures, `mapping` what `map`
gives, and `serving` what runs in a worker. A pool that nobody has any more makes the calls it was given, and ends. At
the end of the interpreter too; but CPython 3.12 starts no thread any more by then, and calls that need one fail.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .._core.engine import seconds
from ..checks import check_count, check_function
from ..processes.children import StartMethod, _method
from ..scopes import CancelScope
from ..timers import after
from .calls import WorkerFuture, ended
from .crew import Worker
from .mapping import Results
from .works import Works

if TYPE_CHECKING:
    from typing import Self

__all__ = ["WorkerPool"]

T = TypeVar("T")


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
        _method(start_method)  # it is used when there is a call
        limit = None if call_timeout is None else seconds(call_timeout, "call_timeout")
        start = partial(Worker, start_method, seconds(grace, "grace"), name, (initializer, tuple(initargs), finalizer))
        self._works = Works(workers or os.cpu_count() or 1, start, max_tasks, limit, name)
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
                    await ended(future)
            raise

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        window: int | None = None,
        ordered: bool = True,
        call_timeout: float | None = None,
    ) -> Results[T]:
        """`fn` of each item, as `map` does: an iterator over the results, in order, or as they come (`ordered=False`).

        `for` blocks this thread; `async for` does not.

        At most `window` calls (None: twice the workers) are under way or done and not yet taken, so the iterables may
        be endless. The first window is submitted at once. `chunksize` items make one call. `timeout`: seconds from now
        on after which the iterator raises `TimeoutError`; `call_timeout` is that of each call. An iterator that is left
        early cancels what is under way. `StopIteration` from a call is a `RuntimeError`, as from inside a generator.

        To be iterated inside the block of the pool: after `shutdown` it gives what was submitted ahead, and raises
        `RuntimeError` for the rest.
        """
        check_function(fn, "fn", "map", "a function")
        check_count(chunksize, "chunksize", 1)
        if window is not None:
            check_count(window, "window", 1)
        end = None if timeout is None else after(seconds(timeout, "timeout"))
        limit = self._works.limit if call_timeout is None else seconds(call_timeout, "call_timeout")
        items: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        submit = partial(self._submit, limit)  # the pool lives as long as the iterator
        return Results(submit, fn, items, chunksize, window or 2 * self._size, ordered, end)

    def _submit(self, limit: float | None, fn: Callable[..., T], args: tuple[Any, ...]) -> WorkerFuture[T]:
        return self._works.take(fn, args, {}, limit)

    # ------------------------------------------------------------- the end
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. `cancel_futures` cancels those that have not begun. `wait`: until all have ended.

        Waiting blocks this thread: not on the thread of a loop (`async with` does it there without blocking), nor on
        one of the pool, in a callback of a future: `RuntimeError`.
        """
        self._works.close()
        if cancel_futures:
            self._works.cancel_queue()
        if wait:
            self._works.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        works = self._works
        works.close()
        try:
            if error is None:
                await works.over.wait()
        finally:  # not over: the block has failed, or the wait was cancelled
            if not works.over.is_set():
                works.cancel_queue()
                works.halt()
                with CancelScope(shield=True):
                    await works.over.wait()

    def __repr__(self) -> str:
        works = self._works
        state = "shut down" if works.closed else f"{len(works.queue)} calls queued"
        return f"<WorkerPool {works.name!r} of {works.size}, {state}>"

    def __del__(self) -> None:
        works = getattr(self, "_works", None)
        if works is not None:
            works.close()
