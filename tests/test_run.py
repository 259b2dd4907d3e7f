"""`run`: the same program on each backend. What comes out of it, what it refuses, what it leaves.

Some cases follow trio's `test_run.py`, written afresh; each says whose it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import pytest
import trio
from census import Census
from elsewhere import Elsewhere, once_parked

from chanlib import (
    Cancelled,
    CancelScope,
    Channel,
    Event,
    Future,
    TaskGroup,
    checkpoint,
    get_cancelled_exc_class,
    move_on_after,
    race,
    run,
    sleep,
)
from chanlib._core.lane import lanes

pytestmark = pytest.mark.usefixtures("census")


async def add(a: int, b: int) -> int:
    await checkpoint()
    return a + b


def test_it_gives_the_result_and_passes_the_arguments(backend: str) -> None:
    """As trio: test_basic."""
    assert run(add, 1, 2, backend=backend) == 3
    assert run(functools.partial(add, b=2), 1, backend=backend) == 3


def test_asyncio_is_the_default() -> None:
    async def body() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(body).startswith("asyncio.")


def test_each_backend_is_what_it_is_called(backend: str) -> None:
    async def body() -> str:
        if trio.lowlevel.in_trio_task():
            return "trio"
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return "threads"
        return type(loop).__module__.partition(".")[0]

    assert run(body, backend=backend) == backend


def test_it_runs_in_the_thread_that_calls(backend: str) -> None:
    async def body() -> int:
        await checkpoint()
        return threading.get_ident()

    assert run(body, backend=backend) == threading.get_ident()
    side = Elsewhere(lambda: run(body, backend=backend))
    assert side.join() == side.thread.ident


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, Cancelled])
def test_it_raises_the_very_error(backend: str, error: type[BaseException]) -> None:
    """As trio: test_initial_task_error."""
    mine = error("mine")

    async def body() -> None:
        await checkpoint()
        raise mine

    with pytest.raises(error) as caught:
        run(body, backend=backend)
    if error is asyncio.CancelledError and backend in ("asyncio", "uvloop"):
        return  # asyncio makes a new one for whoever awaits the task
    assert caught.value is mine


def test_whatever_can_be_awaited_is_good_enough(backend: str) -> None:
    class Waits:
        def __call__(self) -> Awaitable[int]:
            return self

        def __await__(self) -> Generator[Any, Any, int]:
            yield from checkpoint().__await__()
            return 5

    done = Future[int]()
    done.set_result(7)
    ch = Channel[int](1)
    ch.send_nowait(6)
    assert run(Waits(), backend=backend) == 5
    assert run(ch.receive, backend=backend) == 6
    assert run(lambda: done, backend=backend) == 7


@pytest.mark.parametrize("name", ["curio", "Asyncio", "", None, 5, ["trio"], "thread"])
def test_an_unknown_backend_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="backend must be one of 'asyncio', 'uvloop', 'trio', 'threads', not "):
        run(add, 1, 2, backend=name)


def test_a_coroutine_is_refused_and_closed(backend: str) -> None:
    """As trio: test_nice_error_on_bad_calls_to_run_or_spawn."""
    coroutine: Any = add(1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=r"run\(main, \*args\), not the coroutine"):
            run(coroutine, backend=backend)
        del coroutine
        gc.collect()


@pytest.mark.parametrize("main", [5, None, "main", [add]])
def test_what_cannot_be_called_is_refused(backend: str, main: Any) -> None:
    with pytest.raises(TypeError, match="main must be an async function, not "):
        run(main, backend=backend)


def test_a_plain_function_is_refused(backend: str) -> None:
    """As trio: test_nice_error_on_bad_calls_to_run_or_spawn."""

    def plain() -> int:
        return 5

    with pytest.raises(TypeError, match=r"must be an async function: .*plain\(\) returned 5"):
        run(plain, backend=backend)  # type: ignore[arg-type]

    async def generates() -> Any:
        yield 1

    with pytest.raises(TypeError, match="must be an async function"):
        run(generates, backend=backend)


def test_wrong_arguments_are_an_error_of_the_call(backend: str) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        run(add, 1, backend=backend)  # type: ignore[call-arg]


@pytest.mark.parametrize("inner", ["asyncio", "trio", "threads"])
def test_inside_a_running_loop_it_is_refused(backend: str, inner: str) -> None:
    """As trio: test_run_nesting."""
    if backend == "threads":
        pytest.skip("a thread may")

    async def body() -> str:
        with pytest.raises(RuntimeError, match=r"run\(\) would block the thread of a running .* loop"):
            run(add, 1, 2, backend=inner)
        await checkpoint()
        return "goes on"

    assert run(body, backend=backend) == "goes on"


@pytest.mark.parametrize("inner", ["asyncio", "trio", "threads"])
def test_inside_a_driven_coroutine_it_may_be_called(inner: str) -> None:
    async def body() -> int:
        before = await add(1, 2)
        inside = run(add, before, 3, backend=inner)
        return await add(inside, 4)

    assert run(body, backend="threads") == 10


def test_one_after_the_other(backend: str) -> None:
    for n in range(20):
        assert run(add, n, 1, backend=backend) == n + 1
        with pytest.raises(ValueError, match="mine"):
            run(fails, backend=backend)


async def fails() -> None:
    raise ValueError("mine")


def test_several_at_once_in_threads(backend: str, census: Census) -> None:
    there, back = census.watch(Channel[int](0)), census.watch(Channel[int](0))

    async def one() -> int:
        await there.send(1)
        return await back.receive()

    async def other() -> int:
        got = await there.receive()
        await back.send(got + 1)
        return got

    first, second = (Elsewhere(lambda main=main: run(main, backend=backend)) for main in (one, other))
    assert (first.join(), second.join()) == (2, 1)


def test_context_variables(backend: str) -> None:
    """As trio: test_contextvar_support. What the program sets, those outside do not see on a loop."""
    variable = contextvars.ContextVar("variable", default="nothing")

    async def body() -> str:
        seen = variable.get()

        async def child() -> str:
            inherited = variable.get()
            variable.set("set by a child")
            return inherited

        variable.set("set inside")
        async with TaskGroup() as group:
            handle = group.start_soon(child)
        assert await handle == "set inside"
        assert variable.get() == "set inside"
        return seen

    def live() -> str:
        variable.set("set outside")
        return run(body, backend=backend)

    assert contextvars.copy_context().run(live) == "set outside"
    assert variable.get() == "nothing"


def test_the_thread_is_a_plain_one_again_afterwards(backend: str) -> None:
    ch = Channel[int](1)
    lane = lanes.lane
    for main in (lambda: add(1, 2), fails):
        try:
            run(main, backend=backend)
        except ValueError:
            pass
        assert not lane.driving
        assert lane.token is None
        ch.send(1).sync()
        assert ch.receive().sync() == 1
        assert get_cancelled_exc_class() is Cancelled


def test_the_thread_is_in_its_scopes_again_afterwards(backend: str) -> None:
    event = Event()
    event.set()

    async def many() -> None:
        for _ in range(300):
            await event.wait()

    with CancelScope() as scope:
        token = lanes.lane.token
        run(many, backend=backend)
        with pytest.raises(ValueError, match="mine"):
            run(fails, backend=backend)
        assert lanes.lane.token is token
        event.wait().sync()
        scope.cancel()
        with pytest.raises(Cancelled):
            event.wait().sync()
        with pytest.raises(Cancelled):
            sleep(0).sync()
    assert lanes.lane.token is None
    event.wait().sync()


def test_a_child_left_behind_is_impossible(backend: str, census: Census) -> None:
    """A group ends before `run` does, however its block is left."""
    event = census.watch(Event())

    async def body() -> None:
        async with TaskGroup() as group:
            group.start_soon(event.wait)
            raise ValueError("mine")

    with pytest.RaisesGroup(ValueError):
        run(body, backend=backend)
    assert event.statistics().waiting == 0


# ------------------------------------------------------------------------------ on threads
class Foreign:
    """An awaitable of somebody else's."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield self

    def __repr__(self) -> str:
        return "<mine to await>"


def test_a_foreign_awaitable_is_named() -> None:
    """As trio: test_calling_asyncio_function_gives_nice_error."""
    log = []

    async def body() -> None:
        try:
            await Foreign()
        finally:
            log.append("closed")

    with pytest.raises(
        RuntimeError, match=r"<mine to await> cannot be awaited in a coroutine that is driven"
    ) as caught:
        run(body, backend="threads")
    assert "use asyncio or trio" in str(caught.value)
    assert log == ["closed"]
    assert not lanes.lane.driving


@pytest.mark.parametrize(
    "wait",
    [lambda: asyncio.sleep(1), lambda: asyncio.sleep(0), lambda: trio.sleep(1), lambda: anyio.sleep(1)],
    ids=["asyncio.sleep(1)", "asyncio.sleep(0)", "trio.sleep", "anyio.sleep"],
)
def test_what_needs_a_loop_fails_on_threads(wait: Callable[[], Any]) -> None:
    async def body() -> None:
        await wait()
        pytest.fail("there is no loop")

    with pytest.raises((RuntimeError, anyio.NoEventLoopError)):
        run(body, backend="threads")
    assert not lanes.lane.driving


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_foreign_awaitable_in_a_child_is_an_error_of_the_group(census: Census) -> None:
    async def child() -> None:
        await Foreign()

    async def body() -> None:
        async with TaskGroup() as group:
            group.start_soon(child)
            await census.watch(Event()).wait()

    with move_on_after(2) as scope, pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="mine to await")):
        run(body, backend="threads")
    assert not scope.cancelled_caught


def test_a_foreign_awaitable_fails_where_it_is_awaited() -> None:
    async def body() -> str:
        try:
            await Foreign()
        except RuntimeError as error:
            return str(error)
        return "awaited"

    assert "mine to await" in run(body, backend="threads")


@pytest.mark.parametrize("delay", [0, 1])
def test_asyncio_sleep_is_named_on_threads(delay: int) -> None:
    async def body() -> None:
        await asyncio.sleep(delay)

    with pytest.raises(RuntimeError) as caught:
        run(body, backend="threads")
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "sleep" in said
    assert "use asyncio or trio" in said


def test_children_are_threads_on_threads(census: Census) -> None:
    async def body() -> set[int]:
        meet = census.watch(Event())

        async def child(last: bool) -> int:
            if last:
                meet.set()
            await meet.wait()
            return threading.get_ident()

        async with TaskGroup() as group:
            handles = [group.start_soon(child, n == 4) for n in range(5)]
        return {await handle for handle in handles} | {threading.get_ident()}

    assert len(run(body, backend="threads")) == 6


def test_a_coroutine_that_swallows_its_end_is_told(backend: str) -> None:
    """A body that catches the cancellation and goes on computing ends by itself, with its result."""

    async def body() -> str:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except get_cancelled_exc_class():
                pass
            result = "mine"
        assert not scope.cancelled_caught
        return result

    assert run(body, backend=backend) == "mine"


def test_the_same_program_on_each_backend(backend: str, census: Census) -> None:
    """A little of everything: children, a channel, a timeout, a race."""

    async def square(jobs: Channel[int], results: Channel[int]) -> None:
        async for n in jobs:
            await results.send(n * n)

    async def body() -> int:
        jobs, results = census.watch(Channel[int](2)), census.watch(Channel[int](0))
        total = 0
        async with TaskGroup() as group:
            for _ in range(3):
                group.start_soon(square, jobs, results)

            async def feed() -> None:
                async with jobs:
                    for n in range(30):
                        await jobs.send(n)

            group.start_soon(feed)
            with move_on_after(60) as scope:
                for _ in range(30):
                    total += await results.receive()
        assert not scope.cancelled_caught
        await race(functools.partial(sleep, 0), Event().wait)
        return total

    assert run(body, backend=backend) == sum(n * n for n in range(30))


# ------------------------------------------------------------------------------ what is imported
def test_trio_is_imported_only_when_it_is_asked_for() -> None:
    code = """
import sys
from chanlib import run, sleep, TaskGroup
async def body():
    async with TaskGroup() as group:
        group.start_soon(sleep, 0)
for backend in ("threads", "asyncio"):
    run(body, backend=backend)
    assert "trio" not in sys.modules, backend
    assert "uvloop" not in sys.modules, backend
run(body, backend="trio")
assert "trio" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["trio", "uvloop"])
def test_a_backend_that_is_not_installed_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'chanlib\[{name}\]'"):
        run(add, 1, 2, backend=name)  # type: ignore[arg-type]


def test_interrupting_a_run_from_the_keyboard(backend: str, census: Census) -> None:
    """Ctrl-C while everything waits: KeyboardInterrupt comes out, and nothing is left."""
    import os
    import signal

    event = census.watch(Event())
    log = []

    async def body() -> None:
        try:
            with CancelScope(), move_on_after(2):  # asyncio overlooks a signal that comes just before it sleeps
                await event.wait()
        finally:
            log.append("tidied")

    side = once_parked(event, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(body, backend=backend)
    side.join()
    assert log == ["tidied"]
    assert lanes.lane.token is None
