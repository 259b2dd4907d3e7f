"""Structured concurrency on asyncio (and uvloop): scopes and nurseries are anyio's.

So code written for anyio nests with ours in any order. Scopes of ours add one thing: cancelling one warns the lane, so
that from then on every operation of this loop looks before it happens.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import anyio

from .backends import Child, Children, Nursery
from .lane import Lane, current_task, lanes, running_loop

__all__ = ["AsyncioBackend"]


class AsyncioBackend:
    __slots__ = ("loop",)

    name = "asyncio"
    cancelled: type[BaseException] = asyncio.CancelledError

    def __init__(self, lane: Lane) -> None:
        loop = running_loop()
        assert loop is not None
        self.loop = loop

    def now(self) -> float:
        return self.loop.time()

    def scope(self, deadline: float, shield: bool) -> Any:
        make = _scope_class or _learn()
        if deadline == math.inf and not shield:  # named arguments cost as much as the call
            return make()
        return make(deadline=deadline, shield=shield)

    def nursery(self, scope: Any) -> Nursery:
        return _Nursery()

    def here(self) -> bool:
        return running_loop() is self.loop

    def call(self, function: Callable[[], object]) -> None:
        loop = self.loop
        if running_loop() is loop and current_task(loop) is not None:
            function()
            return
        try:  # a callback is told apart from a signal handler by nothing: the loop may have to be woken
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # closed
            pass

    def until(self) -> float:
        return anyio.current_effective_deadline()


_scope_class: Any = None
_group_class: Any = None


def _learn() -> Any:
    """The classes that anyio uses on asyncio: to make them directly costs a third of going through its front."""
    global _scope_class, _group_class
    native: Any = type(anyio.CancelScope())
    _group_class = type(anyio.create_task_group())

    leave, cancel = native.__exit__, native.cancel

    class Scope(native):  # type: ignore[misc]
        """anyio's scope, which warns the lane once it is cancelled, by whomever. Not to be cancelled after it is left.

        It then changes its class, so that one that is never cancelled, as most are, pays nothing for it.
        """

        __slots__ = ()

        def cancel(self, reason: str | None = None) -> None:
            self.__class__ = CancelledScope
            lanes.lane.warn(+1)
            cancel(self, reason)

    class CancelledScope(native):  # type: ignore[misc]
        """One that was cancelled: it ends the warning when it is left."""

        __slots__ = ()

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> Any:
            try:
                caught = leave(self, kind, error, traceback)
            except RuntimeError:  # in another task, or not the innermost: it is entered still
                raise
            except BaseException:
                lanes.lane.warn(-1)
                raise
            lanes.lane.warn(-1)
            return caught

    _scope_class = Scope
    return Scope


class _Nursery:
    __slots__ = ("group",)

    group: Any

    wants_cancelled = False
    anywhere = False

    async def open(self) -> None:
        if _group_class is None:
            _learn()
        make: Any = _group_class
        self.group = make()
        await self.group.__aenter__()

    def start(self, coroutine: Coroutine[Any, Any, object], child: Child) -> None:
        child._native = self.group.create_task(coroutine, name=child.name)

    def stop(self, child: Child) -> None:
        child._native.cancel()
        lanes.lane.warn(+1)

    def stopped(self, child: Child) -> None:
        lanes.lane.warn(-1)

    def revoke(self, child: Child) -> bool:
        return child._native is None

    def discard(self, child: Child) -> None:
        child._native.coro.close()

    async def start_and_wait(self, function: Callable[..., Coroutine[Any, Any, object]], name: str) -> Any:
        return await self.group.start(function, name=name)

    async def close(self, children: Children, interrupted: bool) -> None:
        await self.group.__aexit__(None, None, None)
