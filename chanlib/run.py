"""run: the same program on asyncio, uvloop, trio, or on threads without any loop."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, get_args

from ._core.lane import lanes, refuse_loop
from ._core.running import run_here
from ._core.tokens import Token
from .checks import check_function
from .scopes import CancelScope

__all__ = ["run"]

T = TypeVar("T")
Args = TypeVarTuple("Args")

BackendName = Literal["asyncio", "uvloop", "trio", "threads"]


def run(
    main: Callable[[Unpack[Args]], Awaitable[T]],
    /,
    *args: *Args,
    backend: BackendName = "asyncio",
) -> T:
    """Run `await main(*args)` to its end, in this thread; its result.

    `backend` is "asyncio", "uvloop" or "trio", whose loop is made for it, or "threads": then this thread drives the
    coroutine itself, an `await` of an operation blocks it, and children of groups are threads. On "threads" nothing
    can be awaited but operations and groups of chanlib, and coroutines made of them.

    A thread that runs inside a cancel scope, such as a child of a group, hands a cancellation on to what it runs here.
    """
    check_backend(backend)
    check_function(main, "main", "run")
    lane = lanes.lane
    refuse_loop(lane, "run()")

    async def entry() -> T:
        made = main(*args)
        if not isinstance(made, Awaitable):
            raise TypeError(
                f"main must be an async function: {getattr(main, '__qualname__', main)}() returned {made!r}"
            )
        return await made

    if backend == "threads":
        return contextvars.copy_context().run(run_here, entry())
    token = lane.token
    loop: Callable[[Callable[[], Coroutine[Any, Any, T]]], T] = _RUNNERS[backend]
    if token is None:
        return loop(entry)
    lane.leave(None)  # its operations are the loop's now
    linked = _Linked(token, entry)
    try:
        return loop(linked.live)
    except _WasCancelled:
        pass
    finally:
        lane.enter(token)
    if token.left() > 0:  # by its clock not yet, or the deadline has been moved since
        token.expire(linked.until)
    token.check()
    raise AssertionError("a scope that was cancelled does not know it")  # pragma: no cover


def check_backend(backend: object) -> None:
    names = get_args(BackendName)
    if backend not in names:
        raise ValueError(f"backend must be one of {', '.join(map(repr, names))}, not {backend!r}")


class _WasCancelled(Exception):
    """The loop was cancelled by a scope of the thread that runs it."""


class _Linked:
    """A program in a loop whose thread is in scopes: cancelled with them."""

    __slots__ = ("entry", "scope", "token", "until")

    def __init__(self, token: Token, entry: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.token = token
        self.entry = entry
        self.scope = CancelScope()
        self.until = math.inf  # the deadline of the thread, as last seen

    async def live(self) -> Any:
        with self.scope:
            self.token.below.add(self)
            try:
                self.poke()
                return await self.entry()
            finally:
                self.token.below.discard(self)
        raise _WasCancelled

    def poke(self) -> None:
        """From any thread: something has changed above."""
        backend = self.scope._backend
        assert backend is not None
        until = self.until = self.token.until()
        if until == -math.inf:
            self.scope.cancel(self.token.why())
        elif until < math.inf or self.scope.deadline < math.inf:
            self.scope.deadline = until if until == math.inf else backend.now() + until - monotonic()


def _with_asyncio(entry: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(entry())


def _with_uvloop(entry: Callable[[], Coroutine[Any, Any, T]]) -> T:
    uvloop = _needed("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(entry())


def _with_trio(entry: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return _needed("trio").run(entry)  # type: ignore[no-any-return]


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name != module:
            raise
        raise ImportError(
            f"backend={module!r} needs {module}, which is not installed: pip install 'chanlib[{module}]'", name=module
        ) from error


_RUNNERS: dict[str, Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]] = {
    "asyncio": _with_asyncio,
    "uvloop": _with_uvloop,
    "trio": _with_trio,
}
