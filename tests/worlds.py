"""Where tests run: one coroutine function as the body, driven by any of the worlds.

    async def body() -> None:
        ch = Channel[int](0)
        sending = spawn(ch.send, 1)                                 # a child: task, or thread
        await settle(lambda: ch.statistics().waiting_senders == 1)  # wait until it is parked
        assert await ch.receive() == 1
        await sending.wait()                                        # its result, or its error

    world.run(body)

`spawn` starts an asyncio task, a child of trio's nursery, or a thread that drives the coroutine:
whichever fits the world that runs the body. Nothing here waits by means of chanlib. A run ends when
all its children have; an error of a child that nobody waited for is raised by the run. What hangs
is left to the timeout of pytest, which shows the stacks.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import trio
from trio.abc import Clock

from chanlib._core.running import run_here

# Of `Task.cancel` that meets a send which was delivered: does the send return (`Task.uncancel` can take a pending
# cancellation back), or raise with a note?
REARMS = sys.version_info >= (3, 13)
NET = 20.0  # seconds after which something that should settle is given up: a safety net

Body = Callable[..., Awaitable[Any]]


class ChildCancelled(Exception):
    """`wait()` for a child that ended as cancelled."""


class Handle:
    """A child of a run. Each world's own kind says how it is started, joined and cancelled."""

    done: bool
    cancelled: bool = False  # did it end by being cancelled?

    def __init__(self, fn: Body, args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.result: Any = None
        self.error: BaseException | None = None
        self.waited = False

    async def live(self) -> None:
        try:
            self.result = await self.fn(*self.args)
        except Exception as error:
            self.error = error

    def start(self) -> None:
        raise NotImplementedError

    async def join(self) -> None:
        """Wait until it is over, however it ended."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel it as its world does; only where `world.can_cancel`."""
        raise NotImplementedError("a thread cannot be cancelled")

    async def wait(self) -> Any:
        """Its result; raises its error, or `ChildCancelled`."""
        self.waited = True
        await self.join()
        if self.cancelled:
            raise ChildCancelled
        if self.error is not None:
            raise self.error
        return self.result

    def __repr__(self) -> str:
        return f"<child {getattr(self.fn, '__qualname__', self.fn)}{self.args!r}>"


class AsyncioHandle(Handle):
    done = property(lambda self: self.task.done())  # type: ignore[assignment]
    cancelled = property(lambda self: self.task.cancelled())  # type: ignore[assignment]

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.live())

    async def join(self) -> None:
        await asyncio.wait([self.task])

    def cancel(self) -> None:
        self.task.cancel()


class TrioHandle(Handle):
    done = property(lambda self: self.over.is_set())  # type: ignore[assignment]
    cancelled = property(lambda self: self.scope.cancelled_caught)  # type: ignore[assignment]

    def start(self) -> None:
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        nursery = _run.get().nursery
        assert nursery is not None
        nursery.start_soon(self._scoped)

    async def _scoped(self) -> None:
        try:
            with self.scope:
                await self.live()
        finally:
            self.over.set()

    async def join(self) -> None:
        await self.over.wait()

    def cancel(self) -> None:
        self.scope.cancel()


class ThreadHandle(Handle):
    done = property(lambda self: not self.thread.is_alive())  # type: ignore[assignment]

    def start(self) -> None:
        run = contextvars.copy_context().run
        self.thread = threading.Thread(target=run, args=(run_here, self.live()), daemon=True)
        self.thread.start()

    async def join(self) -> None:
        self.thread.join()


class Run:
    """One run of a body: its children, and how its world gives others a turn."""

    def __init__(self, handle: type[Handle], turn: Callable[[], Awaitable[None]]) -> None:
        self.handle = handle
        self.turn = turn
        self.handles: list[Handle] = []
        self.nursery: trio.Nursery | None = None

    async def supervise(self, main: Body, args: tuple[Any, ...]) -> Any:
        _run.set(self)
        try:
            result = await main(*args)
            for handle in self.handles:  # grows while children make children
                await handle.join()
        except Exception as error:
            for handle in self.unseen():
                error.add_note(f"{handle!r} failed too: {handle.error!r}")
            raise
        errors = [handle.error for handle in self.unseen()]
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("children failed", errors)
        return result

    def unseen(self) -> list[Any]:
        return [h for h in self.handles if h.error is not None and not h.waited]


_run: contextvars.ContextVar[Run] = contextvars.ContextVar("run")


def spawn(fn: Body, *args: Any) -> Handle:
    """Start `fn(*args)`, which gives something to await, as a child of the run it is called in."""
    run = _run.get()
    handle = run.handle(fn, args)
    run.handles.append(handle)
    handle.start()
    return handle


async def settle(predicate: Callable[[], object]) -> None:
    """Wait until `predicate()` holds, letting children and other threads go on."""
    run = _run.get()
    end = time.monotonic() + NET
    turns = 0
    while not predicate():
        await run.turn()
        turns += 1
        if turns > 50:
            time.sleep(0.0002)  # it is for another thread to do: let it
        if time.monotonic() > end:
            failed = [(handle, handle.error) for handle in run.unseen()]
            raise AssertionError(f"not settled within {NET} s; failed children: {failed}")


def settle_here(predicate: Callable[[], object]) -> None:
    """`settle` for a plain thread, outside any run."""
    end = time.monotonic() + NET
    while not predicate():
        assert time.monotonic() < end, f"not settled within {NET} s"
        time.sleep(0.0002)


def waiting(side: Any) -> tuple[int, int]:
    """How many wait there to send or to reserve, and to receive."""
    found = side.statistics()
    return found.waiting_senders, found.waiting_receivers


async def parked(side: Any, *, senders: int = 0, receivers: int = 0) -> None:
    """Wait until exactly so many wait there."""
    await settle(lambda: waiting(side) == (senders, receivers))


async def collect(side: AsyncIterable[Any], into: list[Any]) -> None:
    """All that comes, to its end."""
    async for item in side:
        into.append(item)


async def fail_in(context: AbstractAsyncContextManager[Any], error: Exception) -> None:
    """Leave the `async with` by an error."""
    async with context:
        raise error


@dataclass(frozen=True)
class World:
    """A way to run a body."""

    name: str
    can_cancel = True

    def run(self, main: Body, *args: Any) -> Any:
        """Run `main(*args)` and all its children to their end; the result of `main`."""
        raise NotImplementedError


@dataclass(frozen=True)
class AsyncioWorld(World):
    debug: bool = False
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def run(self, main: Body, *args: Any) -> Any:
        async def turn() -> None:
            await asyncio.sleep(0)

        with asyncio.Runner(debug=self.debug, loop_factory=self.loop_factory) as runner:
            return runner.run(Run(AsyncioHandle, turn).supervise(main, args))


@dataclass(frozen=True)
class TrioWorld(World):
    clock: Callable[[], Clock] | None = None

    def run(self, main: Body, *args: Any) -> Any:
        async def entry() -> Any:
            run = Run(TrioHandle, trio.lowlevel.checkpoint)
            result = error = None
            async with trio.open_nursery() as run.nursery:
                try:
                    result = await run.supervise(main, args)
                except Exception as failure:  # raised outside, so that the nursery does not wrap it
                    error = failure
                    run.nursery.cancel_scope.cancel()
            if error is not None:
                raise error
            return result

        return trio.run(entry, clock=self.clock() if self.clock else None)


@dataclass(frozen=True)
class ThreadsWorld(World):
    can_cancel = False

    def run(self, main: Body, *args: Any) -> Any:
        async def turn() -> None:
            time.sleep(0)

        run = Run(ThreadHandle, turn)
        return contextvars.copy_context().run(run_here, run.supervise(main, args))


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


ALL: dict[str, World] = {
    world.name: world
    for world in (
        AsyncioWorld("asyncio"),
        AsyncioWorld("asyncio-debug", debug=True),
        AsyncioWorld("uvloop", loop_factory=_uvloop),
        TrioWorld("trio"),
        ThreadsWorld("threads"),
    )
}


def run_together(*parts: tuple[Any, ...]) -> list[Any]:
    """Run each `(world, main, *args)` in a thread of its own, all at once; the results in order.

    Once one has failed the others get a moment; then its error is raised, ended or not.
    """
    results: list[Any] = [None] * len(parts)
    errors: list[BaseException] = []

    def live(place: int) -> None:
        world, main, *args = parts[place]
        try:
            results[place] = world.run(main, *args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=live, args=(n,), daemon=True) for n in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.1)
        thread.join(2.0 if errors else None)
    if errors:
        raise errors[0] if len(errors) == 1 else BaseExceptionGroup("several sides failed", errors)
    return results


@dataclass(frozen=True)
class Pair:
    """Two worlds that meet, each in a thread of its own."""

    producer: World
    consumer: World

    def run(self, produce: Body, consume: Body) -> tuple[Any, Any]:
        """Run `produce()` and `consume()` at once; their results."""
        made, taken = run_together((self.producer, produce), (self.consumer, consume))
        return made, taken
