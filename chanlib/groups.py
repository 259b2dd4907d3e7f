"""TaskGroup: children of every kind, which all have ended when the block has.

A group consists of a scope, which cancels what is inside; a nursery, which starts coroutines in the world the group
was entered in; and what stands here, which is the same for all worlds: who may start, what an error means, who is told.
To its nursery no child ever fails: errors are collected here, and raised as one group when all children have ended.

A child in a thread is a thread below the group's token where there is no loop. On a loop it is a task that attends
the thread: it waits for it, and hands a cancellation on to it.

Source of the semantics: trio's nurseries and anyio's groups; `limit` and `spawn` are errgroup's `SetLimit` and `Go`.

Invariants, under the group's lock:
- units of the counter are places; a child that has been started has one, and passes it on at its end: to the first
  that is queued, else to the first who waits in `spawn`.
- `_children` has all who have been accepted and have not ended. A child ends once, in `_end`.
- what a child leaves behind is written before its state, and its state before those are woken
  who wait for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, Unpack, cast, overload

from ._core.backends import Backend, Nursery, backend_here
from ._core.engine import PENDING, Acquire, Counter, Leaf, Op, Reentered, WaitQueue
from ._core.lane import lanes, refuse_loop
from ._core.origins import DEBUG, caller, recorded
from ._core.running import run_here
from .checks import check_count
from .children import (
    Job,
    Started,
    attend,
    check_callable,
    check_coroutine,
    check_plain,
    coroutine_of,
    current_child,
    in_this_thread,
)
from .completions import Completions
from .errors import Cancelled, ChannelClosed, TaskCancelled
from .handles import TaskHandle, called
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


class TaskGroup(Counter):
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

    __slots__ = (
        "_backend",
        "_children",
        "_ending",
        "_errors",
        "_idlers",
        "_limit",
        "_made_at",
        "_name",
        "_nursery",
        "_on_error",
        "_parent",
        "_queued",
        "_scope",
        "_state",
        "_streams",
    )

    __hash__ = object.__hash__

    @recorded
    def __init__(self, *, limit: int | None = None, on_error: OnError = "cancel", name: str | None = None) -> None:
        if limit is not None:
            check_count(limit, "limit", 1)
        if on_error not in ("cancel", "supervise", "collect"):
            raise ValueError(f"on_error must be 'cancel', 'supervise' or 'collect', not {on_error!r}")
        super().__init__(math.inf if limit is None else limit)
        self._limit = limit
        self._on_error = on_error
        self._name = name
        self._state = "new"
        self._scope = CancelScope()
        self._backend: Backend | None = None
        self._nursery: Nursery
        self._parent: TaskHandle[Any] | None = None
        self._children: dict[TaskHandle[Any], None] = {}
        self._queued: deque[TaskHandle[Any]] = deque()
        self._ending: TaskHandle[Any] | None = None  # whose place is being passed on
        self._errors: list[BaseException] = []
        self._streams: list[weakref.ref[Completions]] = []
        self._idlers = WaitQueue()  # who wait for there to be no child

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

    def _is_over(self) -> bool:
        """Under the lock: nobody is started from now on, unless somebody has just been, by another thread."""
        if not (self._nursery.anywhere and self._children):
            self._state = "ended"
        return self._state == "ended"

    def _sweep(self) -> None:
        """Children that were cancelled natively before they had begun: nobody has told us."""
        self._scope.cancel()
        for child in list(self._children):
            coroutine = child._coroutine
            if child._state == "running":
                self._nursery.discard(child)
            self._end(child, "cancelled")
            if coroutine is not None:
                coroutine.close()

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
        if not callable(fn):
            raise TypeError(f"fn must be an async function, not {fn!r}")

        def begin(_: None) -> TaskHandle[T]:
            try:
                self._may_start()
                child = TaskHandle(self, coroutine_of(fn, args), fn if name is None else name)
            except BaseException:
                self._locked(self._put_back, 1)
                raise
            self._start(child)
            return child

        return _Place(self, 1).map(begin)

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
        exception, with its remote traceback as the cause; one that cannot be comes as `RemoteError`.

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
        check_callable(fn, "start_async")
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

    def _over(self) -> RuntimeError:
        return RuntimeError(f"{self!r} has ended: children can be started until its block has been left")

    def _admit(self, child: TaskHandle[Any]) -> bool:
        """Under the lock: take a place for `child`, or queue it."""
        self._children[child] = None
        if self._free >= 1 and not self._queued and (not self._queue or self._queue.first() is None):
            self._free -= 1
            child._state = "running"
            return True
        child._native = contextvars.copy_context()  # of who has started it, not of the one whose place it will take
        self._queued.append(child)
        return False

    def _take_place(self, child: TaskHandle[Any]) -> None:
        self._accept(child)
        self._free -= 1

    def _start(self, child: TaskHandle[Any]) -> None:
        life, coroutine = self._live(child), child._coroutine
        try:
            if self._nursery.anywhere:
                self._locked(self._accept, child)
            else:
                self._accept(child)
            self._nursery.start(life, child)
        except BaseException:  # no thread can be had; the loop is closed; an interrupt
            if self._nursery.revoke(child):
                self._end(child, "cancelled")
                life.close()
                if coroutine is not None:
                    coroutine.close()
            raise

    def _accept(self, child: TaskHandle[Any]) -> None:
        if self._state == "ended":
            raise self._over()
        self._children[child] = None
        child._state = "running"

    # ------------------------------------------------------------- the life of a child
    async def _live(self, child: TaskHandle[Any]) -> None:
        current_child.set(child)
        if child._reason is not None:  # asked to stop before its thread was there to be told
            self._stop_here(child)
        try:
            assert child._coroutine is not None
            value = await child._coroutine
        except BaseException as error:
            passed_on = self._failed(child, error)
            del child  # the traceback of the error leads to this frame
            if passed_on:
                raise
        else:
            child._left = value
            self._end(child, "done")

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

    def _end(self, child: TaskHandle[Any], state: str) -> None:
        try:
            self._locked(self._end_locked, child, state)
        except Reentered as inside:
            inside.source._defer(lambda: self._end(child, state))

    def _end_locked(self, child: TaskHandle[Any], state: Any) -> None:
        if child.done:  # an interrupt has come in between
            return
        queued = child._state == "queued"
        if queued:
            self._drop(child._native)  # the context it was to be started in
        child._state = state
        child._coroutine = None
        self._children.pop(child, None)
        if child._ended is not None:
            self._after.append(child._ended)
        if child._stopping:
            child._stopping = False
            self._nursery.stopped(child)
        child._native = None
        if self._streams:
            self._streams = [stream for stream in self._streams if stream() is not None]
            for reference in self._streams:
                stream = reference()
                if stream is not None:
                    stream._put(child)
                    self._drop(stream)  # by now we may be the last to have it
        if not self._children:
            self._after += [waiter for waiter in self._idlers if waiter.waiting()]
        if queued:
            self._queued.remove(child)  # mostly the first
        elif self._limit is not None:
            self._free += 1  # may be below zero before that: `start` takes a place that is not there
            self._ending = child
            self._serve()
            self._ending = None

    def _serve(self) -> None:
        """Under the lock: places are free. Those who are queued come first."""
        while self._queued and self._free >= 1:
            self._free -= 1
            child = self._queued.popleft()
            child._state = "running"
            self._after.append(_Turn(self, child, self._ending))
        super()._serve()

    def _take_turn(self, child: TaskHandle[Any], ended: TaskHandle[Any] | None) -> None:
        """A queued child has a place: that of `ended`, or one that was given back."""
        if self._is_cancelled(ended):
            for coroutine in self._locked(self._drop_queued, child):
                coroutine.close()
        else:
            context, child._native = child._native, None
            assert self._backend is not None
            self._backend.call(lambda: self._start_now(context, child))

    def _drop_queued(self, first: TaskHandle[Any]) -> list[Coroutine[Any, Any, Any]]:
        """Under the lock: none of those who are queued is to run, nor `first`, who has got a place."""
        children = [*self._queued, first]
        coroutines = [child._coroutine for child in children if child._coroutine is not None]
        for child in children:
            self._end_locked(child, "cancelled")
        return coroutines

    def _start_now(self, context: contextvars.Context, child: TaskHandle[Any]) -> None:
        try:
            context.run(self._start, child)
        except Exception as error:
            self._failed(child, error)

    def _is_cancelled(self, ended: TaskHandle[Any] | None) -> bool:
        """Asked by `ended` at its end: has the group been cancelled, by its own scope or one around it?"""
        assert self._backend is not None
        if self._scope.cancel_called:
            return True
        return ended is not None and ended._reason is None and self._backend.until() == -math.inf

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

    def _stop(self, child: TaskHandle[Any], reason: str) -> bool:
        try:
            running, coroutine = self._locked(self._stop_locked, child, reason)
        except Reentered as inside:
            inside.source._defer(lambda: self._stop(child, reason))
            return not child.done
        if coroutine is not None:
            coroutine.close()
        elif running:
            assert self._backend is not None
            self._backend.call(lambda: self._stop_here(child))
        return running or coroutine is not None

    def _stop_locked(self, child: TaskHandle[Any], reason: str) -> tuple[bool, Coroutine[Any, Any, Any] | None]:
        """Under the lock: does it run? If it is queued it ends now; its coroutine."""
        if child.done:
            return False, None
        if child._reason is None:
            child._reason = reason
        if child._state == "running":
            return True, None
        coroutine = child._coroutine
        self._end_locked(child, "cancelled")
        return False, coroutine

    def _stop_here(self, child: TaskHandle[Any]) -> None:
        """On the thread of the backend: tell its nursery, once."""
        if not child.done and not child._stopping and not isinstance(child._native, contextvars.Context | None):
            child._stopping = True
            self._nursery.stop(child)

    # ------------------------------------------------------------- asking
    def as_completed(self) -> Completions:
        """The children in the order in which they end, to iterate over: those that run or are queued now, and later
        ones.

        It ends when no child is left. Make it before those children are started that it is not to miss.
        """
        stream = Completions(self)
        self._locked(self._streams.append, weakref.ref(stream))
        return stream

    def wait_empty(self) -> Op[None]:
        """Wait until no child runs or is queued. In the block, or from elsewhere; it does not close the group."""
        return _Empty(self)

    def __len__(self) -> int:
        """How many children run or are queued."""
        return len(self._children)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<TaskGroup {self._label(self._name)} {self._state}, {len(self._children)} children>"


def _has(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Is it of one of `kinds`, or a group that has such a one?"""
    if isinstance(error, BaseExceptionGroup):
        return any(_has(one, *kinds) for one in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, kinds)


class _Turn:
    """A queued child that has got a place: to be started once the lock is free."""

    __slots__ = ("child", "ended", "group")

    def __init__(self, group: TaskGroup, child: TaskHandle[Any], ended: TaskHandle[Any] | None) -> None:
        self.group = group
        self.child: TaskHandle[Any] | None = child
        self.ended = ended

    def wake(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            self.group._take_turn(child, self.ended)


class _Place(Acquire):
    """Waiting for a place in a group."""

    __slots__ = ()

    def _describe(self, counter: Any) -> str:
        return f"spawn in {counter!r}"

    def _ended(self, counter: Any, waiter: Any) -> BaseException:
        return RuntimeError(f"the loop of who waited for a place in {counter!r} is closed")


class _Empty(Leaf[None]):
    __slots__ = ()

    def __init__(self, group: TaskGroup) -> None:
        self._src = group

    def _attempt(self, group: TaskGroup) -> Any:
        return PENDING if group._children else None

    def _enqueue(self, group: TaskGroup, waiter: Any) -> None:
        group._idlers.append(waiter)

    def _withdraw(self, group: TaskGroup, waiter: Any) -> None:
        group._idlers.withdrawn()

    def _describe(self, group: TaskGroup) -> str:
        return f"the last child of {group!r} to end"


def _after_fork_in_child() -> None:
    for group in list(entered):
        if group._backend is not None and group._backend.name == "threads":
            group._children.clear()  # their threads live in the parent
            group._queued.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
