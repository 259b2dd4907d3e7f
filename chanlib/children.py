"""What children of a group run: the coroutine that was asked for, or one that attends a thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import FunctionType
from typing import Any, TypeVar

from ._core.backend_threads import in_thread
from ._core.engine import Latch, Passed
from ._core.lane import lanes
from ._core.tokens import Token
from ._core.unraisable import report
from .checks import check_function
from .errors import Cancelled
from .handles import TaskHandle, called
from .scopes import CancelScope

__all__ = [
    "Job",
    "Started",
    "attend",
    "check_coroutine",
    "check_plain",
    "coroutine_of",
    "current_child",
    "in_this_thread",
    "reason_of",
]

T = TypeVar("T")

current_child: contextvars.ContextVar[TaskHandle[Any] | None] = contextvars.ContextVar("current_child", default=None)
"""The child that runs here."""


def coroutine_of(fn: Any, args: tuple[Any, ...], **more: Any) -> Coroutine[Any, Any, Any]:
    """`fn(*args)`, which is to be a coroutine."""
    made: Any = fn(*args, **more) if callable(fn) else None
    check_coroutine(fn, made)
    return made  # type: ignore[no-any-return]


def check_coroutine(fn: Any, made: Any) -> None:
    if isinstance(made, Coroutine):
        return
    check_function(fn, "fn", "start_soon")
    name = getattr(fn, "__qualname__", repr(fn))
    if isinstance(made, Awaitable):
        raise TypeError(f"{name}() gave {made!r}, which is no coroutine: wrap it in an `async def` that awaits it")
    raise TypeError(
        f"{name}() is not async, it returned {made!r}: write start_thread({name}, ...) for a plain function"
    )


def check_plain(fn: Any) -> None:
    check_function(fn, "fn", "start_thread", "a function")
    if inspect.iscoroutinefunction(fn) if type(fn) is not FunctionType else fn.__code__.co_flags & inspect.CO_COROUTINE:
        raise TypeError(
            f"{called(fn, None)}() is async: write start_soon(fn, ...) to run it here, "
            "start_async(fn, ..., backend=...) to run it in a thread with a loop of its own"
        )


async def in_this_thread(fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    return _plain(fn, args)


def _plain(fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Call `fn` as plain code, which may block."""
    lane = lanes.lane
    driving, lane.driving = lane.driving, False
    try:
        made = fn(*args)
    finally:
        lane.driving = driving
    if isinstance(made, Coroutine):
        made.close()
        raise TypeError(
            f"{getattr(fn, '__qualname__', fn)}() gave the coroutine {made!r}: write start_soon() for an async function"
        )
    return made


class Job(Latch):
    """A call that runs in a thread, attended by a task. Open once it is over."""

    __slots__ = ("abandoned", "args", "error", "fn", "value")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        self.fn = fn
        self.args = args
        self.value: Any = None
        self.error: BaseException | None = None
        self.abandoned = False

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self.value = _plain(self.fn, self.args)
        except BaseException as raised:
            error = raised
        if not self._locked(self._over, error) and error is not None and not isinstance(error, Cancelled):
            report(error, "Error in a thread that its group had abandoned", self.fn)

    def _over(self, error: BaseException | None) -> bool:
        """Under the lock: it has come to its end. Does anybody want to know?"""
        self.error = error
        self._open()
        return not self.abandoned

    def abandon(self) -> bool:
        """From now on nobody wants to know how it ends. False: it has ended already."""
        return bool(self._locked(self._abandon))

    def _abandon(self) -> bool:
        self.abandoned = not self._set
        return self.abandoned

    def __repr__(self) -> str:
        return f"the thread of {getattr(self.fn, '__qualname__', self.fn)}"


async def attend(job: Job, name: str, scope: CancelScope, abandon: bool) -> Any:
    """Run `job` in a thread, and hand a cancellation on to it."""
    token = Token()
    in_thread(job.run, token, name)
    try:
        await Passed(job)
    except BaseException as cut:
        child = current_child.get()
        given_up = abandon and job.abandon()
        token.cancel((child and child._reason) or scope._called or reason_of(cut))
        if given_up or isinstance(cut, GeneratorExit):  # its loop is over: nobody can wait here
            raise
        while not job._set:
            try:
                with CancelScope(shield=True):
                    await Passed(job)
            except asyncio.CancelledError:  # natively once more: the thread is waited for all the same
                pass
        if isinstance(job.error, Cancelled) or isinstance(cut, KeyboardInterrupt | SystemExit):
            raise
    if job.error is not None:
        raise job.error
    return job.value


def reason_of(cut: BaseException) -> str | None:
    """Why a task was cancelled, if it is said: trio has it as an attribute, anyio in the message."""
    reason = getattr(cut, "reason", None) or str(cut).partition("; reason: ")[2]
    return reason or None


class Started:
    """The `task_status` of a child; remembers whether it was used."""

    __slots__ = ("called", "status")

    def __init__(self, status: Any) -> None:
        self.status = status
        self.called = False

    def started(self, value: Any = None) -> None:
        self.status.started(value)
        self.called = True
