"""Structured concurrency without a loop: a child is a thread, a scope is a token."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any

from ..errors import Cancelled
from .backends import Child, Children, Nursery
from .engine import Latch, Passed
from .lane import Lane, lanes
from .running import run_here
from .threads import start as start_thread
from .tokens import Token
from .unraisable import note

__all__ = ["ThreadsBackend", "in_thread"]


class ThreadsBackend:
    __slots__ = ()

    name = "threads"
    cancelled: type[BaseException] = Cancelled

    def __init__(self, lane: Lane) -> None:
        pass

    def now(self) -> float:
        return monotonic()

    def scope(self, deadline: float, shield: bool) -> Token:
        return Token(deadline, shield)

    def nursery(self, scope: Token) -> Nursery:
        return _Nursery(scope)

    def here(self) -> bool:
        return True  # a token may be touched by any thread, and a thread be started

    def call(self, function: Callable[[], object]) -> None:
        function()

    def until(self) -> float:
        token = lanes.lane.token
        return math.inf if token is None else token.until()


def in_thread(function: Callable[[], object], token: Token, name: str) -> None:
    """Run `function()` in a thread, in a copy of this context, inside `token`."""
    if token.parent is not None:
        token.parent.below.add(token)  # at once: it may be cancelled before its thread has come to enter it

    def live() -> None:
        if not token.claim():
            return
        try:
            with token:
                function()
        except Cancelled:  # of a scope above
            pass
        finally:
            lane = lanes.lane
            if lane.token is not None:  # a scope was left open: the next job of this thread is not in it
                lane.leave(None)

    # no frame keeps the context: it leads to the child, and an error of the child to all frames
    start_thread(partial(contextvars.copy_context().run, live), name)


class _Nursery:
    """Children in threads of their own, below `scope`."""

    __slots__ = ("scope",)

    wants_cancelled = False
    anywhere = True

    def __init__(self, scope: Token) -> None:
        self.scope = scope

    async def open(self) -> None:
        pass

    def start(self, coroutine: Coroutine[Any, Any, object], child: Child) -> None:
        token = child._native = Token(parent=self.scope)
        in_thread(lambda: run_here(coroutine), token, child.name)

    def stop(self, child: Child) -> None:
        child._native.cancel(child._reason)

    def stopped(self, child: Child) -> None:
        pass

    def revoke(self, child: Child) -> bool:
        token = child._native
        if token is not None and not token.claim():
            return False
        self.scope.below.discard(token)
        return True

    def discard(self, child: Child) -> None:
        pass

    async def start_and_wait(self, function: Callable[..., Coroutine[Any, Any, object]], name: str) -> Any:
        status = _Status(self, Token(parent=lanes.lane.token))
        in_thread(lambda: status.live(function), status.token, name)
        try:
            await Passed(status)
        except BaseException:
            status.token.cancel()
            with Token(shield=True):
                await Passed(status.ended)
            raise
        if status.error is not None:
            raise status.error
        return status.value

    async def close(self, children: Children, interrupted: bool) -> None:
        held: BaseException | None = None
        try:
            while len(children):
                try:
                    with Token(shield=held is not None):
                        await children.wait_empty()
                except BaseException as error:
                    held = error
                    if isinstance(error, Cancelled):  # by a scope around: the children see it themselves
                        continue
                    if interrupted:
                        note(error, f"left running: {children!r}")
                        raise
                    interrupted = True
                    self.scope.cancel()
            if held is not None:
                raise held
        finally:
            del held


class _Status(Latch):
    """What a child that is being started says `started(value)` to. Open once it has, or has ended without."""

    __slots__ = ("ended", "error", "nursery", "token", "value")

    def __init__(self, nursery: _Nursery, token: Token) -> None:
        super().__init__()
        self.nursery = nursery
        self.token = token
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = Latch()

    def live(self, function: Callable[..., Coroutine[Any, Any, object]]) -> None:
        try:
            run_here(function(task_status=self))
            if not self._set:
                self.error = RuntimeError("the child has ended without calling task_status.started()")
        except BaseException as error:
            if self._set:
                raise
            self.error = error
        finally:
            self._locked(self._open)
            self.ended._locked(self.ended._open)

    def started(self, value: Any = None) -> None:
        if self._set:
            raise RuntimeError("task_status.started() was called twice")
        self.value = value
        token, scope = self.token, self.nursery.scope
        if token.parent is None or not token.parent.is_called():  # else whoever started it waits for its end
            if token.parent is not None:
                token.parent.below.discard(token)
            token.parent = scope
            scope.below.add(token)
        self._locked(self._open)

    def __repr__(self) -> str:
        return "the start of a child"
