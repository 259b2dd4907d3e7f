"""Structured concurrency on asyncio (and uvloop): scopes and nurseries are anyio's.

So code written for anyio nests with ours in any order. Scopes of ours add one thing: cancelling one warns the lane, so
that from then on every operation of this loop looks before it happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import anyio

from .backends import Child, Nursery
from .lane import lanes, running_loop
from .mailbox import Errand
from .park_asyncio import box_here

__all__ = ["AsyncioBackend"]


class AsyncioBackend:
    __slots__ = ("box",)

    name = "asyncio"
    cancelled: type[BaseException] = asyncio.CancelledError

    def __init__(self) -> None:
        self.box = box_here()

    def now(self) -> float:
        return self.box.home.time()  # type: ignore[no-any-return]

    def scope(self, deadline: float, shield: bool) -> Any:
        return (_scope_class or _learn())(deadline=deadline, shield=shield)

    def nursery(self, scope: Any) -> Nursery:
        return _Nursery()

    def here(self) -> bool:
        return running_loop() is self.box.home

    def call(self, function: Callable[[], object]) -> None:
        if running_loop() is self.box.home:
            function()
        else:
            self.box.put(Errand(function))

    def until(self) -> float:
        return anyio.current_effective_deadline()


_scope_class: Any = None
_group_class: Any = None


def _learn() -> Any:
    """The classes that anyio uses on asyncio: to make them directly costs a third of going through its front."""
    global _scope_class, _group_class
    native: Any = type(anyio.CancelScope())
    _group_class = type(anyio.create_task_group())

    class Scope(native):  # type: ignore[misc]
        """anyio's scope, which warns the lane from when it is cancelled, by whomever, until it is left."""

        __slots__ = ("_warned",)

        _warned: bool

        def __enter__(self) -> Any:
            self._warned = False
            super().__enter__()
            if self.cancel_called:
                self._warn()
            return self

        def cancel(self, reason: str | None = None) -> None:
            super().cancel(reason)
            if hasattr(self, "_warned"):  # entered, and not left
                self._warn()

        def _warn(self) -> None:
            if not self._warned:
                self._warned = True
                lanes.lane.warn(+1)

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> Any:
            if self._warned:
                lanes.lane.warn(-1)
            del self._warned
            return super().__exit__(kind, error, traceback)

    _scope_class = Scope
    return Scope


class _Nursery:
    __slots__ = ("group",)

    group: Any

    wants_cancelled = False

    async def open(self) -> None:
        if _group_class is None:
            _learn()
        self.group = _group_class()
        await self.group.__aenter__()

    def start(self, coroutine: Coroutine[Any, Any, object], child: Child) -> None:
        child._native = self.group.create_task(coroutine, name=child.name)

    def stop(self, child: Child) -> None:
        child._native.cancel()
        lanes.lane.warn(+1)

    def stopped(self, child: Child) -> None:
        lanes.lane.warn(-1)

    async def start_and_wait(self, function: Callable[..., Coroutine[Any, Any, object]], name: str) -> Any:
        return await self.group.start(function, name=name)

    async def close(self) -> None:
        await self.group.__aexit__(None, None, None)
