"""Cancelling from elsewhere, other threads, loops, callbacks, signal handlers; and waiting there for a cancellation.

One body for all four backends. What anyio and trio forbid (their scopes belong to one thread) is promised here.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

import pytest
import trio
from census import Census
from elsewhere import Elsewhere, once_parked
from until import parked, passed, settle
from worlds import NET

from chanlib import (
    CancelScope,
    Channel,
    Event,
    TaskGroup,
    WouldBlock,
    checkpoint,
    current_time,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
    move_on_at,
    run,
    select,
    sleep,
)
from chanlib._core.lane import lanes

pytestmark = pytest.mark.usefixtures("census")

LONG = 2.0  # seconds: the timeout of a wait that ought to end by something else


def cancels(match: str | None = None) -> Any:
    """What stands inside is cancelled, and goes on after it."""
    return pytest.raises(get_cancelled_exc_class(), match=match)


# ------------------------------------------------------------------------------ cancelling
def test_cancelled_by_another_thread_with_a_reason(backend: str, census: Census) -> None:
    """As anyio: test_cancel_reason; trio: test_cancel_reason."""

    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            side = once_parked(event, lambda: scope.cancel("the disk is full"))
            with cancels("the disk is full"):
                await event.wait()
            with cancels("the disk is full"):
                await checkpoint()
            await event.wait()
        assert scope.cancelled_caught
        side.join()

    run(body, backend=backend)


def test_a_reason_reaches_the_children(backend: str, census: Census) -> None:
    """As anyio: test_cancel_with_reason."""

    async def body() -> list[str]:
        event = census.watch(Event())
        seen = []

        async def child() -> None:
            try:
                await event.wait()
            except get_cancelled_exc_class() as error:
                seen.append("because" in str(error))
                raise

        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child)
                group.start_soon(child)
                side = once_parked(event, lambda: scope.cancel("because"), 2)
                await settle(lambda: seen)
        side.join()
        return seen

    assert run(body, backend=backend) == [True, True]


@pytest.mark.parametrize("other", ["asyncio", "trio", "threads"])
def test_cancelled_by_another_world(backend: str, census: Census, other: str) -> None:
    async def body() -> None:
        event = census.watch(Event())
        scope = CancelScope()

        async def canceller() -> None:
            await parked(event)
            scope.cancel(f"from {other}")
            await checkpoint()

        side = Elsewhere(lambda: run(canceller, backend=other))
        with scope:
            with cancels(f"from {other}"):
                await event.wait()
            await event.wait()
        assert scope.cancelled_caught
        side.join()

    run(body, backend=backend)


def test_cancelled_by_another_thread_before_it_is_entered(backend: str) -> None:
    async def body() -> None:
        scope = CancelScope()
        Elsewhere(scope.cancel, "early").join()
        with scope, cancels("early"):
            await Event().wait()

    run(body, backend=backend)


def test_another_thread_that_cancels_at_any_moment_is_felt(backend: str) -> None:
    """Before, while and after the scope is entered, while it is being left."""

    async def body() -> None:
        never = Event()
        for n in range(60):
            scope = CancelScope()
            go = threading.Event()

            def act(scope: CancelScope = scope, go: threading.Event = go, n: int = n) -> None:
                go.wait()
                time.sleep(n % 10 * 2e-5)
                scope.cancel()

            side = Elsewhere(act)
            with scope:
                go.set()
                await never.wait()
            assert scope.cancelled_caught
            side.join()
            scope, go = CancelScope(), threading.Event()
            side = Elsewhere(act, scope, go)
            go.set()
            with scope:
                await checkpoint()
            side.join()
            await checkpoint()
        assert lanes.lane.alarms == 0

    run(body, backend=backend)


def test_of_many_threads_that_cancel_one_gives_the_reason(backend: str, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            go = threading.Event()
            sides = [Elsewhere(lambda n=n: (go.wait(), scope.cancel(f"reason {n}!"))) for n in range(8)]
            sides.append(once_parked(event, go.set))
            try:
                await event.wait()
            except get_cancelled_exc_class() as error:
                found = [n for n in range(8) if f"reason {n}!" in str(error)]
                assert len(found) == 1
                with cancels(f"reason {found[0]}!"):
                    await checkpoint()
                raise
        assert scope.cancelled_caught
        for side in sides:
            side.join()

    run(body, backend=backend)


@pytest.mark.usefixtures("hasty")
def test_a_busy_task_feels_a_cancellation_from_another_thread(backend: str) -> None:
    """Operations that need not wait give their loop a turn now and then: there it arrives.

    A loop that often looks for events lets go of the GIL for a moment too short for another thread to get it, and each
    time CPython begins anew to count the 5 ms after which it would insist: hence the haste.
    """

    async def body() -> None:
        ch = Channel[int](1)
        scope = CancelScope()
        side = Elsewhere(lambda: (time.sleep(0.005), scope.cancel("stop")))
        end = time.monotonic() + NET
        with scope:
            while time.monotonic() < end:
                await ch.send(1)
                await ch.receive()
        assert scope.cancelled_caught
        side.join()

    run(body, backend=backend)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_cancelled_by_a_callback_of_the_loop(name: str, census: Census) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            if name == "trio":
                trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel, "called back")
            else:
                asyncio.get_running_loop().call_soon(scope.cancel, "called back")
            with cancels("called back"):
                await event.wait()
            await event.wait()
        assert scope.cancelled_caught

    run(body, backend=name)


def test_cancelled_by_a_child(backend: str, census: Census) -> None:
    """As anyio: test_nested_fail_after, its killer."""

    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            async with TaskGroup() as group:

                async def killer() -> None:
                    await parked(event)
                    scope.cancel("killed")

                group.start_soon(killer)
                with cancels("killed"):
                    await event.wait()
        assert scope.cancel_called

    run(body, backend=backend)


def test_a_group_that_a_scope_around_has_cancelled_was_not_cancelled_itself(backend: str) -> None:

    async def body() -> None:
        event = Event()
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(event.wait)
                await parked(event)
                scope.cancel()
        assert scope.cancelled_caught
        assert not group.cancel_scope.cancel_called

    run(body, backend=backend)


def test_cancelled_by_a_thread_child(backend: str, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            async with TaskGroup() as group:

                def killer() -> None:
                    while not event.statistics().waiting:
                        sleep(0.001).sync()
                    scope.cancel("killed")

                group.start_thread(killer)
                with cancels("killed"):
                    await event.wait()

    run(body, backend=backend)


def test_cancelled_by_a_finalizer(backend: str, census: Census) -> None:
    class Guard:
        def __init__(self, scope: CancelScope) -> None:
            self.scope = scope
            self.me = self  # a cycle: the collector finds it, wherever it runs

        def __del__(self) -> None:
            self.scope.cancel("collected")

    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            Guard(scope)
            side = once_parked(event, gc.collect)
            with cancels("collected"):
                await event.wait()
        side.join()

    run(body, backend=backend)


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """What SIGUSR1 does for the time of the test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda act: (signal.signal(signal.SIGUSR1, lambda *_: act()), None)[1]
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
def test_cancelled_by_a_signal_handler(backend: str, census: Census, on_signal: Any) -> None:

    async def body() -> None:
        event = census.watch(Event())
        with move_on_after(3) as net, CancelScope() as scope:
            on_signal(lambda: scope.cancel("interrupted"))
            side = once_parked(event, lambda: (time.sleep(0.05), os.kill(os.getpid(), signal.SIGUSR1)))
            with cancels("interrupted"):
                await event.wait()
            assert not net.cancel_called
            await event.wait()
        assert scope.cancelled_caught
        assert not net.cancel_called
        side.join()

    run(body, backend=backend)


class Interrupted:
    """While it is entered, `act()` is called once, between two bytecodes of `function`, at the `place`-th of them."""

    def __init__(self, function: Any, place: int, act: Callable[[], object]) -> None:
        self.code = function.__code__
        self.left = place
        self.act = act
        self.called = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.called:
            self.left -= 1
            if self.left < 0:
                self.called = True
                self.act()
        return self

    def __enter__(self) -> Self:
        self.before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


def at_any_bytecode(function: Any, attempt: Callable[[Interrupted], None], act: Callable[[], object]) -> int:
    """`attempt(interrupted)` for each bytecode of `function` in turn, while there is a further one."""
    attempt(Interrupted(function, 0, act))  # CPython 3.12 begins to trace bytecodes with the second one
    for place in range(500):
        interrupted = Interrupted(function, place, act)
        attempt(interrupted)
        if not interrupted.called:
            return place
    raise AssertionError("no end")


def in_time(fn: Callable[[], Any]) -> None:
    """`fn()` in a thread, which may hang: then the test fails, and the thread is left."""
    side = Elsewhere(fn)
    side.thread.join(10)
    assert not side.thread.is_alive(), "it hangs"
    side.join()


PLAIN_LOCK = type(threading.Lock())


class Watched:
    """A lock that does not let its owner hang, but notes that it would have."""

    def __init__(self, hung: list[str]) -> None:
        self.lock = threading.Lock()
        self.hung = hung

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.hung.append("taken already")
            raise RuntimeError("would hang")

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("name", ["cancel", "deadline", "shield", "wait_cancelled", "__enter__"])
def test_an_interrupt_that_cancels_the_scope_in_the_middle_of_its_own_work(name: str) -> None:
    """A signal handler, or a finalizer, that comes in the middle, on the same thread. Here: a trace function.

    A plain lock is replaced by one that notes who would have hung.
    """
    hung: list[str] = []

    def attempt(interrupted: Interrupted) -> None:
        scope = scopes[0] = CancelScope()
        if isinstance(getattr(scope, "_lock", None), PLAIN_LOCK):
            scope._lock = Watched(hung)  # type: ignore[assignment]
        use: dict[str, Callable[[], Any]] = {
            "cancel": lambda: scope.cancel("mine"),
            "deadline": lambda: setattr(scope, "deadline", 1e9),
            "shield": lambda: setattr(scope, "shield", True),
            "wait_cancelled": lambda: scope.wait_cancelled().poll(),
            "__enter__": scope.__enter__,
        }
        with interrupted:
            try:
                use[name]()
            except WouldBlock:
                pass
        if name == "__enter__":
            scope.__exit__(None, None, None)

    scopes = [CancelScope()]
    function: Any = {"deadline": CancelScope._change, "shield": CancelScope._change}.get(name)

    def live() -> None:
        def act() -> None:
            try:
                scopes[0].cancel("interrupted")
            except RuntimeError:
                pass

        assert at_any_bytecode(function or getattr(CancelScope, name), attempt, act) > 3

    in_time(live)
    assert not hung


def test_an_interrupt_that_cancels_while_a_thread_goes_to_sleep() -> None:
    """As above, in `ThreadWaiter.park`."""
    from chanlib._core.park_threads import ThreadWaiter

    hung: list[str] = []

    def live() -> None:
        lane = lanes.lane
        if isinstance(getattr(lane, "guard", None), PLAIN_LOCK):
            lane.guard = Watched(hung)  # type: ignore[assignment]
        scopes = []

        def act() -> None:
            try:
                scopes[-1].cancel("interrupted")
            except RuntimeError:
                pass  # it is noted; the wait ends by its own timeout

        def attempt(interrupted: Interrupted) -> None:
            with CancelScope() as scope:
                scopes.append(scope)
                with interrupted:
                    Event().wait().within(0.05).sync()
            if not interrupted.called:
                raise TimeoutError

        try:
            at_any_bytecode(ThreadWaiter.park, attempt, act)
        except TimeoutError:
            pass

    in_time(live)
    assert not hung


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_an_interrupt_that_cancels_while_its_thread_asks_for_the_cancellation(how: str) -> None:
    from chanlib._core.pure.source import Source

    refused = []
    scopes = []

    def act() -> None:
        try:
            if how == "cancel":
                scopes[-1].cancel("interrupted")
            else:
                scopes[-1].deadline = -math.inf
        except RuntimeError as error:
            refused.append(error)

    def attempt(interrupted: Interrupted) -> None:
        scope = CancelScope()
        waiting = scope.wait_cancelled()
        scopes.append(scope)
        assert scope._over is not None
        with interrupted:
            scope._over.look()
        with scope:
            waiting.poll() if interrupted.called else scope.cancel()
        waiting.close()

    in_time(lambda: at_any_bytecode(Source._locked, attempt, act))
    assert not refused


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_scope_whose_loop_is_over_can_be_cancelled_still(name: str) -> None:
    """Nothing happens then; nothing is raised either."""
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def body() -> CancelScope:
        with CancelScope() as scope:
            await checkpoint()
        return scope

    for act in (
        lambda scope: scope.cancel("late"),
        lambda scope: setattr(scope, "deadline", -math.inf),
        lambda scope: setattr(scope, "shield", True),
    ):
        act(run(body, backend=name))
        Elsewhere(act, run(body, backend=name)).join()
    scope = run(body, backend=name)
    scope.cancel("late")
    assert scope.cancel_called
    scope.wait_cancelled().sync(0)


# ------------------------------------------------------------------------------ wait_cancelled
def test_waiting_for_the_cancellation_outside_the_scope(backend: str, census: Census) -> None:
    async def body() -> list[str]:
        event = census.watch(Event())
        scope = CancelScope()
        log = []

        async def watcher() -> None:
            await scope.wait_cancelled()
            log.append("noticed")

        async def child() -> None:
            with scope:
                await event.wait()

        async with TaskGroup() as group:
            for _ in range(3):
                group.start_soon(watcher)
            group.start_soon(child)
            await parked(event)
            for _ in range(5):
                await checkpoint()
            assert not log
            scope.cancel()
        return log

    assert run(body, backend=backend) == ["noticed"] * 3


def test_waiting_for_the_cancellation_in_a_select(backend: str, census: Census) -> None:
    async def body() -> None:
        ch = census.watch(Channel[int](1))
        with CancelScope() as scope:
            stop = CancelScope()
            await ch.send(1)
            assert await select(ch.receive(), stop.wait_cancelled()) == (0, 1)
            side = once_parked(ch, lambda: stop.cancel("stop"))
            assert await select(ch.receive(), stop.wait_cancelled()) == (1, None)
            side.join()
            assert await select(stop.wait_cancelled(), ch.receive()) == (0, None)
        assert not scope.cancel_called
        assert len(ch) == 0

    run(body, backend=backend)


@pytest.mark.parametrize("other", ["plain", "asyncio", "trio", "threads"])
def test_waiting_for_the_cancellation_in_another_world(backend: str, other: str) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            begun = threading.Event()

            async def watcher() -> str:
                begun.set()
                await scope.wait_cancelled()
                return "noticed"

            def plain() -> str:
                begun.set()
                scope.wait_cancelled().sync()
                return "noticed"

            side = Elsewhere(plain if other == "plain" else lambda: run(watcher, backend=other))
            await settle(begun.is_set)
            await settle(lambda: scope._over is not None and scope._over._waiting())
            scope.cancel()
            assert side.join() == "noticed"

    run(body, backend=backend)


@pytest.mark.parametrize("other", ["plain", "asyncio", "trio", "threads"])
def test_waiting_elsewhere_for_a_deadline(backend: str, other: str) -> None:

    async def body() -> None:
        begun = threading.Event()

        async def watcher() -> float:
            begun.set()
            await scope.wait_cancelled().within(LONG)
            return time.monotonic()

        def plain() -> float:
            begun.set()
            scope.wait_cancelled().sync(LONG)
            return time.monotonic()

        start = time.monotonic()
        with move_on_after(0.1) as scope:
            side = Elsewhere(plain if other == "plain" else lambda: run(watcher, backend=other))
            await Event().wait()
        assert 0.09 < await side.over() - start < LONG  # at the deadline, not by its own timeout

    run(body, backend=backend)


def test_who_waits_before_the_scope_is_entered_sees_its_deadline(backend: str) -> None:

    async def body() -> None:
        scope = move_on_after(0.1)

        def plain() -> float:
            scope.wait_cancelled().sync(LONG)
            return time.monotonic()

        side = Elsewhere(plain)
        await settle(lambda: scope._over is not None and scope._over._waiting())
        start = time.monotonic()
        with scope:
            await Event().wait()
        assert 0.09 < await side.over() - start < LONG / 2

    run(body, backend=backend)


def test_waiting_for_a_deadline_inside_the_world(backend: str, census: Census) -> None:
    async def body() -> list[float]:
        event = census.watch(Event())
        times = []

        async def watcher(scope: CancelScope) -> None:
            await scope.wait_cancelled()
            times.append(current_time() - scope.deadline)

        async with TaskGroup() as group:
            with move_on_after(0.02) as scope:
                group.start_soon(watcher, scope)
                await event.wait()
            assert scope.cancelled_caught
        return times

    (late,) = run(body, backend=backend)
    assert late >= 0


def test_a_deadline_moved_reaches_who_waits_for_it(backend: str) -> None:
    async def body() -> list[str]:
        log = []
        scope = CancelScope(deadline=current_time() + 1000)

        async def watcher() -> None:
            await scope.wait_cancelled()
            log.append("noticed")

        async with TaskGroup() as group:
            with scope:
                group.start_soon(watcher)
                await settle(lambda: scope._over is not None and scope._over._waiting())
                scope.deadline = current_time() + 0.005
                with pytest.raises(get_cancelled_exc_class()):
                    await Event().wait()
        return log

    assert run(body, backend=backend) == ["noticed"]


def test_waiting_for_a_cancellation_that_has_come(backend: str) -> None:
    async def body() -> None:
        scope = CancelScope()
        with pytest.raises(WouldBlock):
            scope.wait_cancelled().poll()
        scope.cancel()
        await scope.wait_cancelled()
        scope.wait_cancelled().poll()
        with scope:
            with cancels():
                await scope.wait_cancelled()  # the caller is in it
            scope.wait_cancelled().poll()
        await scope.wait_cancelled()
        past = move_on_at(current_time() - 1)
        with past:
            assert past.cancel_called
        await past.wait_cancelled()

    run(body, backend=backend)


def test_waiting_for_the_cancellation_of_the_scope_one_is_in(backend: str) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            side = Elsewhere(lambda: (time.sleep(0.01), scope.cancel("because")))
            await scope.wait_cancelled()
            await checkpoint()
            pytest.fail("it was cancelled")
        assert scope.cancelled_caught
        side.join()

    run(body, backend=backend)


def test_a_scope_left_in_time_does_not_wake_who_waits_for_its_cancellation(backend: str) -> None:
    async def body() -> None:
        with move_on_after(0.2) as scope:
            pass
        assert not scope.cancel_called
        await passed(scope.deadline)
        with pytest.raises(WouldBlock):
            scope.wait_cancelled().poll()

    run(body, backend=backend)


def test_who_gives_up_waiting_for_a_cancellation_leaves_nothing(backend: str) -> None:
    async def body() -> None:
        scope = CancelScope()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await scope.wait_cancelled().within(0.001)
            with move_on_after(0.001):
                await scope.wait_cancelled()
        assert scope._over is not None
        assert scope._over._waiting() == 0
        with fail_after(NET):
            scope.cancel()
            await scope.wait_cancelled()

    run(body, backend=backend)


# ------------------------------------------------------------------------------ plain threads
def test_scopes_of_a_plain_thread(census: Census) -> None:
    """The same `with` statement around `sync()`."""
    event = census.watch(Event())

    def live() -> list[str]:
        log = []
        with move_on_after(0.005) as scope:
            event.wait().sync()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError, match="not done within"), fail_after(0.005):
            event.wait().sync()
        with CancelScope() as scope:
            side = once_parked(event, lambda: scope.cancel("why"))
            try:
                event.wait().sync()
            finally:
                with CancelScope(shield=True):
                    sleep(0.001).sync()
                    log.append("shielded")
                with pytest.raises(get_cancelled_exc_class(), match="why"):
                    checkpoint().sync()
                with pytest.raises(get_cancelled_exc_class(), match="why"):
                    select(event, Channel[int](0).receive()).sync()
                with pytest.raises(get_cancelled_exc_class(), match="why"):
                    next(iter(Channel[int](0)))
        side.join()
        return log

    assert live() == ["shielded"]
    assert Elsewhere(live).join() == ["shielded"]


def test_a_timeout_of_sync_is_not_the_deadline_of_the_scope() -> None:
    with fail_after(30) as scope, pytest.raises(TimeoutError, match="did not happen within"):
        Event().wait().sync(timeout=0.005)
    assert not scope.cancel_called
    with move_on_after(0.005) as scope:
        Event().wait().sync(timeout=30)
    assert scope.cancelled_caught


def test_scopes_of_one_thread_are_none_of_another() -> None:
    with CancelScope() as scope:
        scope.cancel()
        assert Elsewhere(lambda: sleep(0).sync()).join() is None
        assert Elsewhere(lambda: run(checkpoint)).join() is None


BEHIND_A_BUDGET = """
import sys
from chanlib import *

async def use(event, times):
    for _ in range(times):
        await event.wait()

event = Event()
event.set()
missed = []
for times in range(120, 136):
    run(use, event, times, backend="threads")
    with CancelScope() as scope:
        scope.cancel()
        event.wait().sync()
    if not scope.cancelled_caught:
        missed.append(times)
assert "trio" not in sys.modules
assert not missed, missed
"""


def test_a_scope_entered_when_the_budget_is_just_used_up() -> None:
    """Where trio is not loaded, the quick way of `sync()` asks only whether any thread is in a scope."""
    import subprocess

    done = subprocess.run([sys.executable, "-c", BEHIND_A_BUDGET], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
