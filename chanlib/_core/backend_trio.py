"""Structured concurrency in trio: scopes and nurseries are trio's own, which are anyio's there, too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from .backends import Child, Children, Nursery
from .lane import Lane

__all__ = ["TrioBackend"]


class TrioBackend:
    __slots__ = ("clock", "token")

    name = "trio"
    cancelled: type[BaseException] = trio.Cancelled

    def __init__(self, lane: Lane) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.clock = trio.lowlevel.current_clock()

    def now(self) -> float:
        return self.clock.current_time()  # any thread may ask

    def scope(self, deadline: float, shield: bool) -> Any:
        return trio.CancelScope(deadline=deadline, shield=shield)

    def nursery(self, scope: Any) -> Nursery:
        return _Nursery()

    def here(self) -> bool:
        return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self.token

    def call(self, function: Callable[[], object]) -> None:
        if trio.lowlevel.in_trio_task() and trio.lowlevel.current_trio_token() is self.token:
            function()
            return
        try:
            self.token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass

    def until(self) -> float:
        return trio.current_effective_deadline()


class _Nursery:
    __slots__ = ("manager", "nursery")

    manager: Any
    nursery: trio.Nursery

    wants_cancelled = True  # else it does not know that the host was cancelled while it waited
    anywhere = False

    async def open(self) -> None:
        self.manager = trio.open_nursery()
        self.nursery = await self.manager.__aenter__()

    def start(self, coroutine: Coroutine[Any, Any, object], child: Child) -> None:
        scope = trio.CancelScope()
        try:
            self.nursery.start_soon(_inside, scope, coroutine, name=child.name)
            child._native = scope
        except RuntimeError as error:  # no child was left, and the block is being left
            raise RuntimeError("the group has ended: children can be started until its block has been left") from error

    def revoke(self, child: Child) -> bool:
        return child._native is None

    def discard(self, child: Child) -> None:
        pass

    async def start_and_wait(self, function: Callable[..., Coroutine[Any, Any, object]], name: str) -> Any:
        return await self.nursery.start(function, name=name)

    def stop(self, child: Child) -> None:
        child._native.cancel()

    def stopped(self, child: Child) -> None:
        pass

    async def close(self, children: Children, interrupted: bool) -> None:
        await self.manager.__aexit__(None, None, None)


async def _inside(scope: trio.CancelScope, coroutine: Coroutine[Any, Any, object]) -> None:
    with scope:
        await coroutine
