"""TaskGroup: children of every kind, which all have ended when the block has.

A group consists of a scope, which cancels what is inside; a nursery, which starts coroutines in the world the group
was entered in; a roster of its children; and what stands here, which is the same for all worlds: the block, how
children are started, and what an error means. To its nursery no child ever fails: errors are collected here, and
raised as one group when all children have ended.

A child in a thread is a thread below the group's token where there is no loop. On a loop it is a task that attends
the thread: it waits for it, and hands a cancellation on to it.

Source of the semantics: trio's nurseries and anyio's groups.

Invariants: a group is entered once, and is in `entered` from then until its last child has ended. An error that is to
be raised is in `_errors` before the child that has raised it has ended.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, Unpack, cast, overload

from ._core.backends import backend_here
from ._core.engine import Op
from ._core.lane import lanes, refuse_loop
from ._core.origins import DEBUG, caller, recorded
from ._core.running import run_here
from .checks import check_count, check_function
from .children import (
    Job,
    Started,
    attend,
    check_coroutine,
    check_plain,
    coroutine_of,
    current_child,
    in_this_thread,
)
from .errors import Cancelled, ChannelClosed, TaskCancelled
from .handles import TaskHandle, called
from .roster import Place, Roster
from .run import BackendName, check_backend, run
from .scopes import CancelScope

if TYPE_CHECKING:
    from typing import Self

    from .processes.children import StartMethod

__all__ = ["TaskGroup"]

T = TypeVar("T")
Args = TypeVarTuple("Args")

_COROUTINE: Any = CoroutineType

OnError = Literal["cancel", "supervise", "collect"]

entered: set[TaskGroup] = set()
"""The groups that are open, for those who look from outside."""


class TaskGroup(Roster):
    """Children that run side by side and have all ended when the block is left.

    `async with TaskGroup() as group:` in a task; `with TaskGroup() as group:` in a plain thread, whose children are
    threads. Leaving the block waits for all children. If the block is left by an error, or a child fails, what
    `on_error` says happens:

    - "cancel": the others are cancelled; all errors are raised as one `ExceptionGroup`.
    - "supervise": the others go on; the errors of children are raised in the end.
    - "collect": the others go on, and errors of children are not raised: they stay in the handles.

    An error of the block itself always cancels the children and is raised in the group of errors; so is what is no
    `Exception`, such as KeyboardInterrupt, from wherever. A child that is cancelled, by its handle or natively
    (`Task.cancel()`), has ended, as cancelled; this neither cancels the group nor is it an error. (But a native cancel
    before its first step never reaches the child, and anyio then cancels the group.)

    `limit`: how many children may run at a time, None for any number. `cancel()` and handles may be used from any
    thread; children are started where the group was entered (in threads: from any thread).
    """

    __slots__ = ("_errors", "_made_at", "_name", "_on_error", "_parent")

    @recorded
    def __init__(self, *, limit: int | None = None, on_error: OnError = "cancel", name: str | None = None) -> None:
        if limit is not None:
            check_count(limit, "limit", 1)
        if on_error not in ("cancel", "supervise", "collect"):
            raise ValueError(f"on_error must be 'cancel', 'supervise' or 'collect', not {on_error!r}")
        super().__init__(limit)
        self._on_error = on_error
        self._name = name
        self._parent: TaskHandle[Any] | None = None
        self._errors: list[BaseException] = []

    # ------------------------------------------------------------- the block
    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(f"{self!r} can be entered only once; make a new one for each block")
        backend = backend_here("a task group")
        self._scope.__enter__()
        try:
            self._nursery = backend.nursery(self._scope._native)
            await self._nursery.open()
        except BaseException as error:
            self._scope.__exit__(type(error), error, error.__traceback__)
            raise
        self._backend = backend
        self._parent = current_child.get()
        self._state = "open"
        entered.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._backend is not None
        final = error
        if error is not None:
            if not self._only_cancelled(error):
                self._errors.append(error)
            self._scope.cancel(f"the block of {self!r} has failed" if self._errors else None)
        interrupted = isinstance(error, KeyboardInterrupt)
        while True:
            try:
                await self._nursery.close(self, interrupted)
            except BaseException as cut:
                if not self._only_cancelled(cut):
                    interrupted = True
                    self._errors.append(cut)
                    if self._nursery.anywhere and isinstance(cut, KeyboardInterrupt) and self._children:
                        self._state = "ended"  # who is left is left
                elif final is None:
                    final = cut
            if self._locked(self._is_over):
                break
        entered.discard(self)
        if self._children and not self._nursery.anywhere:
            self._sweep()
        try:
            if self._errors:
                final = self._raised()
            kind, where = (None, None) if final is None else (type(final), final.__traceback__)
            if self._scope.__exit__(kind, final, where):
                return True
            if final is None or final is error:
                return final is None and error is not None
            raise final from None
        finally:
            del final, error, traceback  # they lead to this frame
            where = None

    def __enter__(self) -> Self:
        refuse_loop(lanes.lane, "`with` over a task group (`async with` is the form for tasks)")
        return run_here(self.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return run_here(self.__aexit__(kind, error, traceback))

    # ------------------------------------------------------------- errors
    def _failed(self, child: TaskHandle[Any], error: BaseException) -> bool:
        """A child has raised. Is the error to go on to the nursery?"""
        if isinstance(error, GeneratorExit):
            self._end(child, "cancelled")
            return True
        assert self._backend is not None
        native = self._backend.cancelled
        if self._only_cancelled(error):
            self._end(child, "cancelled")
            return self._nursery.wants_cancelled and _has(error, native)
        if _has(error, native, Cancelled):  # beside others, in a group
            error = self._without_cancelled(error)
        child._left = error
        child._traceback = error.__traceback__
        grave = not isinstance(error, Exception)
        if self._on_error != "collect" or grave:
            self._errors.append(error)
        if self._on_error == "cancel" or grave:
            self._scope.cancel(f"{child.name!r} has failed")
        self._end(child, "failed")
        return False

    def _only_cancelled(self, error: BaseException) -> bool:
        """Is it a cancellation and nothing else?"""
        assert self._backend is not None
        kinds = (self._backend.cancelled, Cancelled)
        if isinstance(error, kinds):
            return True
        if isinstance(error, TaskCancelled) or (isinstance(error, ChannelClosed) and isinstance(error.cause, kinds)):
            # a sibling was cancelled, and closed its end: to who is cancelled himself, that is the cancellation
            return self._backend.until() == -math.inf
        if isinstance(error, BaseExceptionGroup):  # not by `split`, which is the user's if the class is
            return all(map(self._only_cancelled, cast("BaseExceptionGroup[BaseException]", error).exceptions))
        return False

    def _without_cancelled(self, error: BaseException) -> BaseException:
        """What is left of a group of errors."""
        assert self._backend is not None
        try:
            rest = cast("BaseExceptionGroup[BaseException]", error).split((self._backend.cancelled, Cancelled))[1]
        except Exception:  # of a class of the user's
            return error
        return error if rest is None else rest

    def _raised(self) -> BaseException:
        """All errors as one, none of them twice."""
        errors = list({id(error): error for error in self._errors}.values())
        self._errors = []
        return BaseExceptionGroup(f"errors in {self!r}", errors)

    # ------------------------------------------------------------- starting
    def start_soon(
        self,
        fn: Callable[[Unpack[Args]], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        name: str | None = None,
    ) -> TaskHandle[T]:
        """Start `await fn(*args)` as a child and return its handle. Never waits.

        Over the limit the child is queued, and started when a place is free, before those who wait in `spawn`.
        """
        self._may_start()
        given: Any = fn
        call: Any = fn  # apart from what is asked whether it can be called: no cast, which is itself a call
        made: Any = call(*args) if callable(given) else None
        if type(made) is not _COROUTINE:
            check_coroutine(fn, made)
        child: TaskHandle[T] = TaskHandle(self, made, fn if name is None else name)
        if self._limit is None or self._locked(self._admit, child):
            self._start(child)
        return child

    def spawn(
        self,
        fn: Callable[[Unpack[Args]], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        name: str | None = None,
    ) -> Op[TaskHandle[T]]:
        """As `start_soon`, but waits for a free place first: an operation, whose result is the handle.

        If it raises, nothing has been started.
        """
        check_function(fn, "fn", "spawn")

        def begin(_: None) -> TaskHandle[T]:
            try:
                self._may_start()
                child = TaskHandle(self, coroutine_of(fn, args), fn if name is None else name)
            except BaseException:
                self._locked(self._put_back, 1)
                raise
            self._start(child)
            return child

        return Place(self, 1).map(begin)

    async def start(self, fn: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any, name: str | None = None) -> Any:
        """Start `fn(*args, task_status=...)` as a child and wait until it calls `task_status.started(value)`.

        Returns that value. Until then the child belongs to the caller: if the caller is cancelled, so is the child; if
        it fails, that is raised here. It takes a place, but does not wait for one.
        """
        self._may_start()
        made_at = caller() if DEBUG else None  # the child is made in a task of its own

        async def live(*, task_status: Any) -> None:
            status = Started(task_status)
            coroutine = coroutine_of(fn, args, task_status=status)
            child = TaskHandle(self, coroutine, fn if name is None else name)
            if DEBUG:
                child._made_at = made_at
            self._locked(self._take_place, child)
            try:
                value = await coroutine
            except BaseException as error:
                if not status.called:
                    child._reason = ""  # whose scope it was in is no matter of those who are queued
                    self._end(child, "cancelled")
                    raise
                if self._failed(child, error):
                    raise
            else:
                child._left = value
                self._end(child, "done")

        return await self._nursery.start_and_wait(live, called(fn, name))

    def start_thread(
        self,
        fn: Callable[[Unpack[Args]], T],
        /,
        *args: *Args,
        name: str | None = None,
        abandon: bool = False,
    ) -> TaskHandle[T]:
        """Start `fn(*args)`, a plain function, in a thread, as a child like any other. Never waits.

        It runs in a copy of the caller's context. When it is cancelled, whatever operation it waits in raises
        `Cancelled`, as does each that follows; it may use `with CancelScope()` itself. Code that does not wait by
        operations of chanlib cannot be cut: the group waits for it, unless `abandon` is true. Then a cancelled child
        is given up: it ends as cancelled at once, and what its thread returns is dropped. Under a loop it learns of
        cancellations only: the deadlines of the scopes around are not its own (`current_effective_deadline()`).
        """
        self._may_start()
        check_plain(fn)
        assert self._backend is not None
        coroutine: Coroutine[Any, Any, T]
        if self._backend.name == "threads" and not abandon:
            coroutine = in_this_thread(fn, args)
        else:
            coroutine = attend(Job(fn, args), called(fn, name), self._scope, abandon)
        child = TaskHandle(self, coroutine, fn if name is None else name)
        if self._limit is None or self._locked(self._admit, child):
            self._start(child)
        return child

    @overload
    def start_process(
        self,
        fn: Callable[[Unpack[Args]], Coroutine[Any, Any, T]],
        /,
        *args: *Args,
        name: str | None = ...,
        grace: float = ...,
        start_method: StartMethod | None = ...,
        backend: BackendName | None = ...,
        logging: bool = ...,
    ) -> TaskHandle[T]: ...
    @overload
    def start_process(
        self,
        fn: Callable[[Unpack[Args]], T],
        /,
        *args: *Args,
        name: str | None = ...,
        grace: float = ...,
        start_method: StartMethod | None = ...,
        backend: None = ...,
        logging: bool = ...,
    ) -> TaskHandle[T]: ...
    def start_process(
        self,
        fn: Callable[[Unpack[Args]], Any],
        /,
        *args: *Args,
        name: str | None = None,
        grace: float = 1.0,
        start_method: StartMethod | None = None,
        backend: BackendName | None = None,
        logging: bool = False,
    ) -> TaskHandle[Any]:
        """Start `fn(*args)` in a process of its own, as a child like any other. Never waits.

        It runs in the main thread of the process, an async function by `run` on `backend` ("asyncio" if None).
        `start_method` is "fork", "forkserver" or "spawn", as in `multiprocessing`; None: "forkserver" on Linux, else
        "spawn". Function and arguments are pickled at once; with "fork" they are not, and the process has them as they
        are when it is forked, a moment later, or when there is a place for it. The result is pickled, and so is an
        exception, with its remote traceback as the cause; one that cannot be comes as `RemoteError`. A handle (an end
        of a channel, an event, ...) in the result cannot be had, for its process has gone by then: let the parent make
        it, or send it through a channel and wait until it is received.

        When the child is cancelled, whatever operation `fn` waits in raises `Cancelled` there, as does each that
        follows (in a loop it is the loop's own cancellation). `grace` seconds later the process gets SIGTERM, which
        raises `Cancelled` in code that knows nothing of operations; after as many again it is killed, with all that
        it has started. 0: killed at once; `math.inf`: waited for. It is always waited for, and reaped.

        A process that ends without a result, killed or by `sys.exit()`, is a `WorkerDied`. It ignores Ctrl-C, which
        is its parent's affair, and does not outlive a parent that is killed. With `logging` its log records are
        handled in this process; else they stay there. What cannot be pickled, or a process that cannot be started, is
        an error of the child; ValueError for a `backend` of a function that is not async.
        """
        self._may_start()
        from .processes.children import process_child

        called_so = called(fn, name)
        coroutine = process_child(fn, args, called_so, self._scope, grace, start_method, backend, logging)
        child: TaskHandle[Any] = TaskHandle(self, coroutine, called_so)
        if self._limit is None or self._locked(self._admit, child):
            self._start(child)
        return child

    def start_async(
        self,
        fn: Callable[[Unpack[Args]], Awaitable[T]],
        /,
        *args: *Args,
        backend: BackendName = "asyncio",
        name: str | None = None,
    ) -> TaskHandle[T]:
        """Start `run(fn, *args, backend=backend)` in a thread, as a child: a loop of its own, owned by the group."""
        check_function(fn, "fn", "start_async")
        check_backend(backend)

        def live() -> T:
            try:
                return run(fn, *args, backend=backend)
            except asyncio.CancelledError as error:  # natively, in there
                raise Cancelled(str(error)) from error

        return self.start_thread(live, name=called(fn, name))

    def _may_start(self) -> None:
        backend = self._backend
        if backend is None:
            raise RuntimeError(
                f"{self!r} is not entered: write `async with TaskGroup() as group:` in a task, "
                "`with TaskGroup() as group:` in a plain thread"
            )
        if self._state == "ended":
            raise self._over()
        if not backend.here():
            raise RuntimeError(
                f"{self!r} belongs to the {backend.name} loop of another thread: start children there; "
                "a channel can carry the work to it"
            )

    # ------------------------------------------------------------- cancelling
    def cancel(self, reason: str | None = None) -> None:
        """Cancel the block and all children. Never blocks; may be called from any thread. Only the first call counts.

        The group then ends without an error, as soon as all have ended.
        """
        self._scope.cancel(reason)

    @property
    def cancel_scope(self) -> CancelScope:
        """The scope of the block and all children: for its deadline, its shield, `wait_cancelled()`."""
        return self._scope

    def __repr__(self) -> str:
        return f"<TaskGroup {self._label(self._name)} {self._state}, {len(self._children)} children>"


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Is it of one of `kinds`, or a group that has such a one?"""
    if isinstance(error, BaseExceptionGroup):
        return any(_has(one, *kinds) for one in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, kinds)


def _after_fork_in_child() -> None:
    for group in list(entered):
        if group._backend is not None and group._backend.name == "threads":
            group._children.clear()  # their threads live in the parent
            group._queued.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
