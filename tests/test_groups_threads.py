"""Children in threads: `start_thread` and `start_async`, from every backend of `run`, and plain groups.

Each case was written anew; where its idea comes from a test of another project, that is named: anyio's
`tests/test_to_thread.py`, trio's `_tests/test_threads.py` and `_core/_tests/test_thread_cache.py`.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from backends import loops, on
from census import Census
from children import Boom, frames, raises_base_group, raises_group, same
from elsewhere import Elsewhere
from until import until, waiting
from worlds import settle_here

import chanlib.children
from chanlib import (
    Barrier,
    Broadcast,
    Cancelled,
    CancelScope,
    Channel,
    ChannelEmpty,
    Condition,
    Event,
    Future,
    Lock,
    Receiver,
    Semaphore,
    Sender,
    TaskCancelled,
    TaskGroup,
    TaskHandle,
    Watch,
    after,
    checkpoint,
    current_effective_deadline,
    every,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
    never,
    open_channel,
    run,
    select,
    sleep,
)
from chanlib._core import threads
from chanlib._core.lane import Lane, lanes
from chanlib._core.tokens import Token

pytestmark = pytest.mark.usefixtures("census")

on_threads = on("threads")
policies = pytest.mark.parametrize("on_error", ["cancel", "supervise", "collect"])
inner_backends = pytest.mark.parametrize("inner", ["asyncio", "uvloop", "trio", "threads"])

HOUR = 3600.0


class Diver:
    """What a thread child runs: `dive()`; from outside one sees whether it sleeps, and how it ended."""

    def __init__(self, dive: Callable[[], Any]) -> None:
        self.dive = dive
        self.lane: Lane | None = None
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.over = False

    def __call__(self) -> Any:
        self.thread = threading.current_thread()
        self.lane = lanes.lane
        try:
            return self.dive()
        except BaseException as error:
            self.error = error.with_traceback(None)
            raise
        finally:
            self.over = True

    def asleep(self) -> bool:
        """Does it wait in an operation?"""
        return self.lane is not None and self.lane.parked is not None


def wait_for_ever() -> None:
    never().sync()


# ===================================================================== results and errors
def test_a_thread_child_gives_its_result(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_thread(divmod, 7, 2)
            assert await handle == (3, 1)
        assert handle.done
        assert not handle.cancelled
        assert await handle == (3, 1)

    run(body, backend=backend)


def test_it_runs_in_another_thread(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_thread(threading.get_ident)
        assert await handle != threading.get_ident()

    run(body, backend=backend)


def test_many_run_side_by_side(backend: Any) -> None:
    """None of them goes on before all are there."""

    async def body() -> None:
        meeting = Barrier(20)
        async with TaskGroup() as group:
            handles = [group.start_thread(meeting.wait().sync) for _ in range(20)]
        assert sorted([await handle for handle in handles]) == list(range(20))

    run(body, backend=backend)


def test_a_thread_child_talks_to_a_coroutine_child_by_channels(backend: Any) -> None:
    async def body() -> None:
        ask, reply = Channel[int](0), Channel[int](0)

        def square() -> None:
            for number in ask:
                reply.send(number * number).sync()

        async with TaskGroup() as group:
            group.start_thread(square)
            for number in range(20):
                await ask.send(number)
                assert await reply.receive() == number * number
            ask.close()

    run(body, backend=backend)


def test_an_error_comes_out_in_a_group_with_its_frames(backend: Any) -> None:
    """trio: test_run_in_worker_thread, for the error."""

    async def body() -> None:
        error = Boom("in a thread")

        def deep_inside() -> None:
            raise error

        def child() -> None:
            deep_inside()

        with raises_group() as caught:
            async with TaskGroup() as group:
                handle = group.start_thread(child)
        assert same(caught.value, error)
        assert handle.exception is error
        assert frames(error)[-2:] == ["child", "deep_inside"]

    run(body, backend=backend)


def test_an_error_awaited_again_and_again_keeps_its_traceback(backend: Any) -> None:
    async def body() -> None:
        def child() -> None:
            raise Boom

        async with TaskGroup(on_error="collect") as group:
            handle = group.start_thread(child)
        lengths = set()
        for _ in range(3):
            with pytest.raises(Boom) as caught:
                await handle
            assert frames(caught.value)[-1] == "child"
            lengths.add(len(frames(caught.value)))
        assert len(lengths) == 1

    run(body, backend=backend)


def test_a_thread_awaits_the_handle_of_another(backend: Any) -> None:
    async def body() -> None:
        gate = Event()

        def first() -> str:
            gate.wait().sync()
            return "first"

        def fail() -> None:
            gate.wait().sync()
            raise Boom

        async with TaskGroup(on_error="collect") as group:
            one, two = group.start_thread(first), group.start_thread(fail)
            waits = [group.start_thread(one.sync), group.start_thread(two.sync)]
            await until(lambda: one._ended is not None and one._ended._waiting() == 1)
            await until(lambda: two._ended is not None and two._ended._waiting() == 1)
            gate.set()
        assert await waits[0] == "first"
        assert waits[1].exception is two.exception
        assert isinstance(two.exception, Boom)

    run(body, backend=backend)


@policies
def test_what_an_error_in_a_thread_does_to_siblings(backend: Any, on_error: Any) -> None:
    async def body() -> None:
        gate, error = Event(), Boom()

        def fail() -> None:
            gate.wait().sync()
            raise error

        def sibling() -> str:
            done.wait().sync()
            return "went on"

        done = Event()
        caught: list[BaseException] = []
        try:
            async with TaskGroup(on_error=on_error) as group:
                other = group.start_thread(sibling)
                failing = group.start_thread(fail)
                await until(lambda: waiting(done) == waiting(gate) == 1)
                gate.set()
                await until(lambda: failing.done)
                if on_error != "cancel":
                    done.set()
        except ExceptionGroup as errors:
            caught += errors.exceptions
        assert caught == ([] if on_error == "collect" else [error])
        assert failing.exception is error
        if on_error == "cancel":
            assert other.cancelled
        else:
            assert await other == "went on"

    run(body, backend=backend)


@policies
def test_a_keyboard_interrupt_raised_in_a_thread_child_always_comes_out(backend: Any, on_error: Any) -> None:
    async def body() -> None:
        error = KeyboardInterrupt("as if")

        def child() -> None:
            raise error

        with raises_base_group() as caught:
            async with TaskGroup(on_error=on_error) as group:
                sibling = group.start_thread(wait_for_ever)
                group.start_thread(child)
        assert same(caught.value, error)
        assert sibling.cancelled

    run(body, backend=backend)


def test_an_error_of_the_block_cancels_thread_children(backend: Any) -> None:
    async def body() -> None:
        error = Boom()
        diver = Diver(wait_for_ever)
        with raises_group() as caught:
            async with TaskGroup() as group:
                handle = group.start_thread(diver)
                await until(diver.asleep)
                raise error
        assert same(caught.value, error)
        assert handle.cancelled
        assert isinstance(diver.error, Cancelled)

    run(body, backend=backend)


# ===================================================================== cancelled while parked
class Wait(NamedTuple):
    """An operation to be parked in, on what it leaves a waiter, and whether that still works afterwards."""

    wait: Callable[[], Any]
    things: tuple[Any, ...] = ()
    works: Callable[[], Awaitable[None]] | None = None


def sending(_: TaskGroup) -> Wait:
    ch = Channel[int](1)
    ch.send_nowait(0)

    async def works() -> None:
        assert ch.receive_nowait() == 0
        with pytest.raises(ChannelEmpty):
            ch.receive_nowait()
        await ch.send(2)
        assert await ch.receive() == 2

    return Wait(ch.send(1).sync, (ch,), works)


async def meet(ch: Channel[int]) -> None:
    """One value from a task to another."""

    async def send() -> None:
        await ch.send(2)

    async with TaskGroup() as group:
        group.start_soon(send)
        assert await ch.receive() == 2


def sending_rendezvous(_: TaskGroup) -> Wait:
    ch = Channel[int](0)

    async def works() -> None:
        with pytest.raises(ChannelEmpty):
            ch.receive_nowait()
        await meet(ch)

    return Wait(ch.send(1).sync, (ch,), works)


def receiving(_: TaskGroup) -> Wait:
    ch = Channel[int](1)
    return Wait(ch.receive().sync, (ch,), lambda: meet(ch))


def receiving_rendezvous(_: TaskGroup) -> Wait:
    ch = Channel[int](0)
    return Wait(ch.receive().sync, (ch,), lambda: meet(ch))


def iterating(_: TaskGroup) -> Wait:
    ch = Channel[int](1)
    return Wait(lambda: list(ch), (ch,), lambda: meet(ch))


def receiving_at_an_end(_: TaskGroup) -> Wait:
    ends: tuple[Sender[int], Receiver[int]] = open_channel(1)
    tx, rx = ends

    async def works() -> None:
        async with tx, rx:
            await tx.send(1)
            assert await rx.receive() == 1

    return Wait(rx.receive().sync, (), works)


def event(_: TaskGroup) -> Wait:
    it = Event()

    async def works() -> None:
        it.set()
        await it.wait()

    return Wait(it.wait().sync, (it,), works)


def future(_: TaskGroup) -> Wait:
    it = Future[int]()

    async def works() -> None:
        it.set_result(3)
        assert await it == 3

    return Wait(it.wait().sync, (it,), works)


def semaphore(_: TaskGroup) -> Wait:
    it = Semaphore(1)
    it.acquire_nowait()

    async def works() -> None:
        it.release()
        assert it.value == 1
        async with it:
            assert it.value == 0

    return Wait(it.acquire().sync, (it,), works)


def lock(_: TaskGroup) -> Wait:
    it = Lock()
    it.acquire_nowait()

    async def works() -> None:
        it.release()
        async with it:
            assert it.locked()
        assert not it.locked()

    return Wait(it.acquire().sync, (it,), works)


def condition(_: TaskGroup) -> Wait:
    it = Condition()

    def wait() -> None:
        with it:
            it.wait().sync()

    async def works() -> None:
        assert not it.locked()
        async with it:
            it.notify_all()

    return Wait(wait, (it,), works)


def condition_with_predicate(_: TaskGroup) -> Wait:
    it = Condition()

    def wait() -> None:
        with it:
            it.wait_for(lambda: False).sync()

    async def works() -> None:
        assert not it.locked()
        async with it:
            await it.wait_for(lambda: True)

    return Wait(wait, (it,), works)


def barrier(_: TaskGroup) -> Wait:
    it = Barrier(2)

    async def other() -> int:
        return await it.wait()

    async def works() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(other)
            mine = await it.wait()
        assert sorted([mine, await handle]) == [0, 1]

    return Wait(it.wait().sync, (it,), works)


def asleep_for_long(_: TaskGroup) -> Wait:
    return Wait(sleep(HOUR).sync)


def timer(_: TaskGroup) -> Wait:
    return Wait(after(HOUR).wait().sync)


def with_timeout(_: TaskGroup) -> Wait:
    ch = Channel[int](0)
    return Wait(lambda: ch.receive().sync(timeout=HOUR), (ch,), lambda: meet(ch))


def selecting(_: TaskGroup) -> Wait:
    first, second, third = Channel[int](0), Channel[int](0), Event()

    async def works() -> None:
        await meet(first)
        await meet(second)
        third.set()

    return Wait(select(first.receive(), second.send(1), third.wait(), sleep(HOUR)).sync, (first, second, third), works)


def handle_of_a_child(group: TaskGroup) -> Wait:
    gate = Event()

    async def other() -> int:
        await gate.wait()
        return 5

    handle = group.start_soon(other)

    async def works() -> None:
        assert handle._ended is not None
        assert handle._ended._waiting() == 0
        gate.set()
        assert await handle == 5

    return Wait(handle.sync, (), works)


def broadcast_receiving(_: TaskGroup) -> Wait:
    it = Broadcast[int](2)
    one = it.subscribe()

    async def works() -> None:
        await it.send(1)
        assert await one.receive() == 1

    return Wait(one.receive().sync, (it,), works)


def broadcast_sending(_: TaskGroup) -> Wait:
    it = Broadcast[int](1, overflow="wait")
    one = it.subscribe()
    it.send_nowait(0)

    async def works() -> None:
        assert await one.receive() == 0
        await it.send(2)
        assert await one.receive() == 2

    return Wait(it.send(1).sync, (it,), works)


def watching(_: TaskGroup) -> Wait:
    it = Watch(0)
    one = it.observe()

    async def works() -> None:
        it.set(1)
        assert await one.changed() == 1

    return Wait(one.changed().sync, (it,), works)


def watching_for(_: TaskGroup) -> Wait:
    it = Watch(0)
    one = it.observe()

    async def works() -> None:
        it.set(2)
        assert await one.wait_for(lambda value: value > 1) == 2

    return Wait(one.wait_for(lambda value: value > 1).sync, (it,), works)


def ticker(_: TaskGroup) -> Wait:
    it = every(HOUR)

    async def works() -> None:
        it.reset(0.0001)
        await it.receive()
        it.stop()

    return Wait(it.receive().sync, (), works)


def for_ever(_: TaskGroup) -> Wait:
    return Wait(wait_for_ever)


def cancellation_of_a_scope(_: TaskGroup) -> Wait:
    scope = CancelScope()

    async def works() -> None:
        scope.cancel()
        await scope.wait_cancelled()

    return Wait(scope.wait_cancelled().sync, (), works)


def end_of_all_children(group: TaskGroup) -> Wait:
    async def works() -> None:
        await group.wait_empty()

    return Wait(group.wait_empty().sync, (), works)


def next_child_to_end(group: TaskGroup) -> Wait:
    stream = group.as_completed()

    async def works() -> None:
        assert (await stream.receive()).cancelled

    return Wait(stream.receive().sync, (), works)


WAITS: list[Any] = [
    sending,
    sending_rendezvous,
    receiving,
    receiving_rendezvous,
    iterating,
    receiving_at_an_end,
    event,
    future,
    semaphore,
    lock,
    condition,
    condition_with_predicate,
    barrier,
    asleep_for_long,
    timer,
    with_timeout,
    selecting,
    handle_of_a_child,
    broadcast_receiving,
    broadcast_sending,
    watching,
    watching_for,
    ticker,
    for_ever,
    cancellation_of_a_scope,
    end_of_all_children,
    next_child_to_end,
]
parked_in = pytest.mark.parametrize("kind", WAITS, ids=lambda kind: kind.__name__)
parked_in_what_outlives_the_group = pytest.mark.parametrize(
    "kind",
    [kind for kind in WAITS if kind not in (handle_of_a_child, end_of_all_children, next_child_to_end)],
    ids=lambda kind: kind.__name__,
)


@parked_in
def test_cancelled_while_parked(backend: Any, kind: Callable[[TaskGroup], Wait], census: Census) -> None:
    """It ends by that alone, leaves no waiter, and what it waited on works as before."""

    async def body() -> None:
        async with TaskGroup() as group:
            case = kind(group)
            for thing in case.things:
                census.watch(thing)
            diver = Diver(case.wait)
            handle = group.start_thread(diver, name="parked")
            await until(diver.asleep)
            assert all(waiting(thing) == 1 for thing in case.things)
            assert handle.cancel()
            with pytest.raises(TaskCancelled, match="'parked'"):
                await handle
            assert isinstance(diver.error, Cancelled)
            assert all(waiting(thing) == 0 for thing in case.things)
            if case.works is not None:
                await case.works()
        assert not handle.cancel()

    run(body, backend=backend)


@parked_in_what_outlives_the_group
def test_cancelled_with_its_group_while_parked(backend: Any, kind: Callable[[TaskGroup], Wait], census: Census) -> None:
    async def body() -> None:
        async with TaskGroup() as outer, TaskGroup() as group:
            case = kind(outer)
            for thing in case.things:
                census.watch(thing)
            diver = Diver(case.wait)
            handle = group.start_thread(diver)
            await until(diver.asleep)
            outer.cancel("enough")
        assert handle.cancelled
        assert isinstance(diver.error, Cancelled)
        if case.works is not None:
            await case.works()

    run(body, backend=backend)


SPINNING = """
import os, threading
from chanlib import Condition, TaskGroup, checkpoint, run
from chanlib._core.lane import lanes

threading.Timer(4, os._exit, [7]).start()
condition = Condition()
at = []

def child():
    at.append(lanes.lane)
    with condition:
        condition.wait{form}.sync()

async def main():
    async with TaskGroup() as group:
        group.start_thread(child)
        while not at or at[0].parked is None:
            await checkpoint()
        group.cancel()
    assert not condition.locked()

run(main, backend={backend!r})
os._exit(0)
"""


@pytest.mark.parametrize("form", ["()", "_for(lambda: False)"], ids=["wait", "wait_for"])
def test_a_thread_cancelled_in_a_condition_ends(form: str) -> None:
    for backend in ("asyncio", "threads"):
        code = SPINNING.format(form=form, backend=backend)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_cancelled_before_it_has_begun(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handles = [group.start_thread(wait_for_ever) for _ in range(20)]
            for handle in handles:
                handle.cancel()
        assert all(handle.cancelled for handle in handles)

    run(body, backend=backend)


def test_cancelled_while_it_computes_with_checkpoints(backend: Any) -> None:
    async def body() -> None:
        begun = threading.Event()

        def compute() -> None:
            while True:
                checkpoint().sync()
                begun.set()

        async with TaskGroup() as group:
            handle = group.start_thread(compute)
            await until(begun.is_set)
            handle.cancel()
        assert handle.cancelled

    run(body, backend=backend)


def test_one_cancelled_its_sibling_goes_on(backend: Any) -> None:
    async def body() -> None:
        gate = Event()
        diver = Diver(wait_for_ever)

        def sibling() -> str:
            gate.wait().sync()
            return "went on"

        async with TaskGroup() as group:
            one, two = group.start_thread(diver), group.start_thread(sibling)
            await until(diver.asleep)
            one.cancel()
            await until(lambda: one.done)
            assert not two.done
            gate.set()
        assert one.cancelled
        assert await two == "went on"
        assert not group.cancel_scope.cancel_called

    run(body, backend=backend)


def test_the_thread_sees_why_its_group_was_cancelled(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(wait_for_ever)
        async with TaskGroup() as group:
            group.start_thread(diver)
            await until(diver.asleep)
            group.cancel("the shop closes")
        assert "the shop closes" in str(diver.error)

    run(body, backend=backend)


def test_the_thread_sees_why_it_was_cancelled(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(wait_for_ever)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(diver.asleep)
            handle.cancel("not needed")
        with pytest.raises(TaskCancelled, match="not needed"):
            await handle
        assert "not needed" in str(diver.error)

    run(body, backend=backend)


def test_the_thread_sees_why_a_scope_around_was_cancelled(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(wait_for_ever)
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_thread(diver)
                await until(diver.asleep)
                scope.cancel("the town closes")
        assert "the town closes" in str(diver.error)

    run(body, backend=backend)


def test_a_thread_child_of_a_thread_knows_the_deadline_around_its_group() -> None:
    """One that a task of a loop attends learns of the cancellation alone."""

    async def body() -> None:
        with fail_after(HOUR):
            async with TaskGroup() as group:
                handle = group.start_thread(current_effective_deadline)
        assert await handle < float("inf")

    run(body, backend="threads")


def test_a_thread_cancels_its_own_group(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(wait_for_ever)
        async with TaskGroup() as group:

            def child() -> None:
                settle_here(diver.asleep)
                group.cancel()

            group.start_thread(diver)
            group.start_thread(child)
            await never()
        assert isinstance(diver.error, Cancelled)

    run(body, backend=backend)


def test_a_thread_cancels_itself(backend: Any) -> None:
    async def body() -> None:
        box = Channel[TaskHandle[None]](1)

        def child() -> None:
            handle = box.receive().sync()
            handle.cancel("by myself")
            never().sync()

        async with TaskGroup() as group:
            handle = group.start_thread(child)
            box.send_nowait(handle)
        assert handle.cancelled

    run(body, backend=backend)


def test_a_deadline_around_the_group_cancels_its_threads(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(wait_for_ever)
        with move_on_after(0.01) as scope:
            async with TaskGroup() as group:
                handle = group.start_thread(diver)
        assert scope.cancelled_caught
        assert handle.cancelled
        assert not group.cancel_scope.cancel_called

    run(body, backend=backend)


def test_who_waits_for_a_thread_is_cancelled_alone(backend: Any) -> None:
    """trio: test_run_in_worker_thread_cancellation, the other way round."""

    async def body() -> None:
        gate = Event()
        async with TaskGroup() as group:
            handle = group.start_thread(gate.wait().sync)
            with move_on_after(0.01) as scope:
                await handle
            assert scope.cancelled_caught
            assert not handle.done
            gate.set()
        assert not handle.cancelled

    run(body, backend=backend)


# ===================================================================== what a cancelled thread may still do
def test_every_further_operation_raises_to_the_end(backend: Any) -> None:
    async def body() -> None:
        room, full = Channel[int](5), Channel[int](5)
        full.send_nowait(1)
        is_set = Event()
        is_set.set()
        log: list[str] = []

        def child() -> None:
            try:
                never().sync()
            except Cancelled:
                for op in (checkpoint, never, lambda: room.send(1), full.receive, is_set.wait, lambda: sleep(0)):
                    try:
                        op().sync()  # type: ignore[operator, no-untyped-call, unused-ignore]
                    except Cancelled:
                        log.append("cut")
                raise

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(diver.asleep)
            handle.cancel()
        assert handle.cancelled
        assert log == ["cut"] * 6
        assert (room.statistics().buffered, full.statistics().buffered) == (0, 1)

    run(body, backend=backend)


def test_under_a_shield_a_cancelled_thread_may_wait(backend: Any) -> None:
    async def body() -> None:
        words = Channel[str](0)
        log: list[str] = []

        def child() -> None:
            try:
                never().sync()
            finally:
                with CancelScope(shield=True):
                    words.send("cleaning").sync()
                    log.append(words.receive().sync())
                with pytest.raises(Cancelled):
                    checkpoint().sync()

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(diver.asleep)
            handle.cancel()
            assert await words.receive() == "cleaning"
            assert not handle.done
            await words.send("go")
        assert handle.cancelled
        assert log == ["go"]

    run(body, backend=backend)


def test_one_that_swallows_its_cancellation_and_returns_counts_as_done(backend: Any) -> None:
    async def body() -> None:
        def child() -> str:
            try:
                never().sync()
            except Cancelled:
                pass
            return "all the same"

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(diver.asleep)
            assert handle.cancel()
        assert not handle.cancelled
        assert await handle == "all the same"

    run(body, backend=backend)


def test_an_error_raised_while_it_is_cancelled_comes_out(backend: Any) -> None:
    async def body() -> None:
        error = Boom()

        def child() -> None:
            try:
                never().sync()
            finally:
                raise error

        diver = Diver(child)
        with raises_group() as caught:
            async with TaskGroup() as group:
                handle = group.start_thread(diver)
                await until(diver.asleep)
                group.cancel()
        assert same(caught.value, error)
        assert handle.exception is error

    run(body, backend=backend)


def test_a_scope_inside_a_thread_is_cancelled_from_outside(backend: Any) -> None:
    async def body() -> None:
        inside = Channel[CancelScope](1)

        def child() -> str:
            with CancelScope() as scope:
                inside.send_nowait(scope)
                never().sync()
            assert scope.cancelled_caught
            checkpoint().sync()
            return "went on"

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            scope = await inside.receive()
            await until(diver.asleep)
            scope.cancel()
        assert await handle == "went on"

    run(body, backend=backend)


def test_move_on_after_inside_a_thread(backend: Any) -> None:
    async def body() -> None:
        def child() -> bool:
            with move_on_after(0.01) as scope:
                never().sync()
            checkpoint().sync()
            return scope.cancelled_caught

        async with TaskGroup() as group:
            handle = group.start_thread(child)
        assert await handle is True

    run(body, backend=backend)


def test_fail_after_inside_a_thread(backend: Any) -> None:
    async def body() -> None:
        def child() -> None:
            with fail_after(0.01):
                never().sync()

        async with TaskGroup(on_error="collect") as group:
            handle = group.start_thread(child)
        assert isinstance(handle.exception, TimeoutError)

    run(body, backend=backend)


def test_a_scope_inside_lets_the_cancellation_of_its_thread_pass(backend: Any) -> None:
    async def body() -> None:
        scopes: list[CancelScope] = []

        def child() -> None:
            with move_on_after(HOUR) as outer, CancelScope() as inner:
                scopes.extend([outer, inner])
                never().sync()
            raise AssertionError("it went on")

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(diver.asleep)
            handle.cancel()
        assert handle.cancelled
        assert [scope.cancelled_caught for scope in scopes] == [False, False]

    run(body, backend=backend)


def test_what_cancels_a_thread_child_is_named_by_get_cancelled_exc_class(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_thread(get_cancelled_exc_class)
        assert await handle is Cancelled

    run(body, backend=backend)


# ===================================================================== foreign code
def test_one_stuck_in_foreign_code_holds_its_group(backend: Any) -> None:
    """trio: test_run_in_worker_thread_cancellation, without abandoning."""

    async def body() -> None:
        foreign = threading.Event()
        diver = Diver(foreign.wait)
        async with TaskGroup() as group:
            handle = group.start_thread(diver)
            await until(lambda: diver.thread)

            def release() -> None:
                settle_here(lambda: group.cancel_scope.cancel_called)
                assert not diver.over
                foreign.set()

            side = Elsewhere(release)
            group.cancel()
        assert diver.over
        assert await handle is True  # it knows nothing of its cancellation
        side.join()

    run(body, backend=backend)


def test_one_that_may_be_abandoned_does_not(backend: Any) -> None:
    """trio: test_run_in_worker_thread_abandoned_cancellation; anyio: test_cancel_worker_thread."""

    async def body() -> None:
        foreign = threading.Event()
        diver = Diver(foreign.wait)
        async with TaskGroup() as group:
            handle = group.start_thread(diver, abandon=True)
            await until(lambda: diver.thread)
            group.cancel()
        assert handle.cancelled
        assert not diver.over
        foreign.set()
        await until(lambda: diver.over)
        with pytest.raises(TaskCancelled):  # what its thread returned was dropped
            await handle

    run(body, backend=backend)


def test_cancelled_by_its_handle_it_is_abandoned_alone(backend: Any) -> None:
    async def body() -> None:
        foreign, gate = threading.Event(), Event()
        diver = Diver(foreign.wait)
        async with TaskGroup() as group:
            handle = group.start_thread(diver, abandon=True)
            sibling = group.start_thread(gate.wait().sync)
            await until(lambda: diver.thread)
            handle.cancel()
            with pytest.raises(TaskCancelled):
                await handle
            assert len(group) == 1
            gate.set()
        assert not sibling.cancelled
        foreign.set()
        await until(lambda: diver.over)

    run(body, backend=backend)


def test_abandon_makes_no_difference_to_one_that_is_not_cancelled(backend: Any) -> None:
    async def body() -> None:
        error = Boom()

        def fail() -> None:
            raise error

        async with TaskGroup(on_error="collect") as group:
            one = group.start_thread(divmod, 7, 2, abandon=True)
            two = group.start_thread(fail, abandon=True)
        assert await one == (3, 1)
        assert two.exception is error

    run(body, backend=backend)


def test_an_abandoned_thread_that_parks_later_is_cut(backend: Any) -> None:
    async def body() -> None:
        foreign = threading.Event()

        def child() -> None:
            foreign.wait()
            never().sync()

        diver = Diver(child)
        async with TaskGroup() as group:
            group.start_thread(diver, abandon=True)
            await until(lambda: diver.thread)
            group.cancel()
        foreign.set()
        await until(lambda: diver.over)
        assert isinstance(diver.error, Cancelled)

    run(body, backend=backend)


def test_the_late_error_of_an_abandoned_thread_is_told(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))

    async def body() -> None:
        foreign, error = threading.Event(), Boom("late")

        def child() -> None:
            foreign.wait()
            raise error

        diver = Diver(child)
        async with TaskGroup() as group:
            handle = group.start_thread(diver, abandon=True)
            await until(lambda: diver.thread)
            group.cancel()
        assert handle.cancelled
        assert told == []
        foreign.set()
        await until(lambda: told)
        assert told == [error]
        assert any("abandoned" in note for note in error.__notes__)
        assert handle.exception is None

    run(body, backend=backend)


def test_the_error_with_which_an_abandoned_thread_answers_its_cancellation_is_told(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be quicker than the task that attends it: here it always is."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    over = threading.Event()

    class Slow(Token):
        __slots__ = ()

        def cancel(self, reason: str | None = None) -> None:
            super().cancel(reason)
            assert over.wait(20)

    monkeypatch.setattr(chanlib.children, "Token", Slow)
    opened = chanlib.children.Job._open

    def and_tell(job: Any) -> None:
        opened(job)
        over.set()

    monkeypatch.setattr(chanlib.children.Job, "_open", and_tell)
    error = Boom("in answer")

    async def body() -> None:
        def child() -> None:
            try:
                never().sync()
            finally:
                raise error

        diver = Diver(child)
        with CancelScope():
            async with TaskGroup(on_error="collect") as group:
                handle = group.start_thread(diver, abandon=True)
                await until(diver.asleep)
                handle.cancel()
        assert diver.over
        assert told == [error] or handle.exception is error, "nobody has heard of it"

    run(body, backend=backend)


# ===================================================================== what cannot be started
def test_an_async_function_is_refused_and_told_what_to_write(backend: Any) -> None:
    async def body() -> None:
        async def child() -> None:
            pass

        async with TaskGroup() as group:
            attempt: Any = group.start_thread
            with pytest.raises(TypeError, match=r"child\(\) is async.*start_soon.*start_async"):
                attempt(child)
            assert len(group) == 0

    run(body, backend=backend)


class Service:
    async def serve(self) -> None:
        pass

    async def __call__(self) -> None:
        pass


def test_an_async_method_is_refused_as_well(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            attempt: Any = group.start_thread
            with pytest.raises(TypeError, match=r"serve\(\) is async.*start_soon"):
                attempt(Service().serve)

    run(body, backend=backend)


def test_a_partial_of_an_async_function_is_refused_as_well(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            attempt: Any = group.start_thread
            with pytest.raises(TypeError, match=r"is async.*start_soon"):
                attempt(functools.partial(Service().serve))

    run(body, backend=backend)


@pytest.mark.parametrize("how", ["start_thread", "start_async"])
def test_a_coroutine_in_place_of_a_function_is_closed_and_told_what_to_write(backend: Any, how: str) -> None:
    async def body() -> None:
        coroutine = Service().serve()
        async with TaskGroup() as group:
            try:
                with pytest.raises(TypeError, match="arguments"):
                    getattr(group, how)(coroutine)
                assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
            finally:
                coroutine.close()

    run(body, backend=backend)


@pytest.mark.parametrize("thing", [5, None, "function"])
def test_what_cannot_be_called_is_refused(backend: Any, thing: object) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            for attempt in (group.start_thread, group.start_async):
                given: Any = attempt
                with pytest.raises(TypeError, match=f"must be an? .*function, not {thing!r}"):
                    given(thing)
            assert len(group) == 0

    run(body, backend=backend)


def test_a_function_that_returns_a_coroutine_fails_and_says_what_to_write(backend: Any) -> None:
    async def body() -> None:
        async def other() -> None:
            pass

        def child() -> Any:
            return other()

        async with TaskGroup(on_error="collect") as group:
            handles = [group.start_thread(child), group.start_thread(Service())]
        for handle in handles:
            assert isinstance(handle.exception, TypeError)
            assert "start_soon" in str(handle.exception)

    run(body, backend=backend)


def test_start_async_refuses_an_unknown_backend_and_tells_of_a_plain_function(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            attempt: Any = group.start_async
            with pytest.raises(ValueError, match="'asyncio', 'uvloop', 'trio', 'threads', not 'curio'"):
                attempt(Service().serve, backend="curio")
            handle = attempt(threading.get_ident)
        assert isinstance(handle.exception, TypeError)
        assert "async function" in str(handle.exception)

    run(body, backend=backend)


def test_no_thread_can_be_started_once_the_group_has_ended(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            pass
        with pytest.raises(RuntimeError, match="has ended"):
            group.start_thread(wait_for_ever)
        with pytest.raises(RuntimeError, match="not entered"):
            TaskGroup().start_thread(wait_for_ever)

    run(body, backend=backend)


# ===================================================================== context, names, limit
var = contextvars.ContextVar("var", default="unset")


@pytest.mark.parametrize("abandon", [False, True])
def test_context_variables_go_in_and_do_not_come_out(backend: Any, abandon: bool) -> None:
    """anyio: test_contextvar_propagation; trio: test_trio_to_thread_run_sync_contextvars."""

    async def body() -> None:
        def child() -> str:
            seen = var.get()
            var.set("inside")
            return seen

        var.set("outside")
        async with TaskGroup() as group:
            handle = group.start_thread(child, abandon=abandon)
            var.set("later")
            assert await handle == "outside"
        assert var.get() == "later"

    run(body, backend=backend)


@inner_backends
def test_context_variables_go_into_a_loop_of_a_child(backend: Any, inner: Any) -> None:
    async def body() -> None:
        async def child() -> str:
            seen = var.get()
            var.set("inside")
            return seen

        var.set("outside")
        async with TaskGroup() as group:
            handle = group.start_async(child, backend=inner)
        assert await handle == "outside"
        assert var.get() == "outside"

    if inner == "uvloop":
        pytest.importorskip("uvloop")
    run(body, backend=backend)


def test_a_queued_child_has_the_context_of_who_started_it(backend: Any) -> None:
    async def body() -> None:
        def child() -> str:
            gate.wait().sync()
            return var.get()

        gate = Event()
        async with TaskGroup(limit=1) as group:
            var.set("first")
            one = group.start_thread(child)
            var.set("second")
            two = group.start_thread(child)
            var.set("third")
            gate.set()
        assert (await one, await two) == ("first", "second")

    run(body, backend=backend)


def name_of_this_thread() -> str:
    return threading.current_thread().name


@pytest.mark.parametrize("abandon", [False, True])
def test_a_thread_is_called_as_its_child(backend: Any, abandon: bool) -> None:
    """trio: test_named_thread."""

    async def body() -> None:
        async with TaskGroup() as group:
            one = group.start_thread(name_of_this_thread, abandon=abandon)
            two = group.start_thread(name_of_this_thread, name="two", abandon=abandon)
        assert (one.name, two.name) == ("name_of_this_thread", "two")
        assert (await one, await two) == ("name_of_this_thread", "two")

    run(body, backend=backend)


def test_the_thread_of_a_loop_is_called_as_its_child(backend: Any) -> None:
    async def body() -> None:
        async def child() -> str:
            return name_of_this_thread()

        async with TaskGroup() as group:
            handle = group.start_async(child, name="a loop")
            other = group.start_async(child)
        assert handle.name == await handle == "a loop"
        assert other.name == await other == child.__qualname__

    run(body, backend=backend)


def test_thread_children_count_for_the_limit(backend: Any) -> None:
    """trio: test_run_in_worker_thread_limiter."""

    async def body() -> None:
        guard = threading.Lock()
        running = most = 0
        gate = Event()

        def child() -> None:
            nonlocal running, most
            with guard:
                running += 1
                most = max(most, running)
            gate.wait().sync()
            with guard:
                running -= 1

        async with TaskGroup(limit=3) as group:
            handles = [group.start_thread(child) for _ in range(10)]
            assert len(group) == 10
            await until(lambda: waiting(gate) == 3)
            assert not handles[3].done
            gate.set()
        assert most == 3

    run(body, backend=backend)


def test_threads_loops_and_coroutines_share_the_places(backend: Any) -> None:
    async def body() -> None:
        gate = Event()
        log: list[str] = []

        async def coroutine() -> None:
            await gate.wait()
            log.append("over")

        async with TaskGroup(limit=1) as group:
            group.start_thread(gate.wait().sync)
            group.start_async(coroutine)
            group.start_soon(coroutine)
            await until(lambda: waiting(gate) == 1)
            assert len(group) == 3
            gate.set()
        assert log == ["over"] * 2

    run(body, backend=backend)


def test_a_queued_thread_that_is_cancelled_never_runs(backend: Any) -> None:
    async def body() -> None:
        gate = Event()
        diver = Diver(lambda: None)
        async with TaskGroup(limit=1) as group:
            group.start_thread(gate.wait().sync)
            handle = group.start_thread(diver)
            handle.cancel()
            assert handle.cancelled
            gate.set()
        assert diver.thread is None

    run(body, backend=backend)


def test_an_abandoned_thread_gives_its_place_free(backend: Any) -> None:
    async def body() -> None:
        foreign = threading.Event()
        diver = Diver(foreign.wait)
        async with TaskGroup(limit=1) as group:
            handle = group.start_thread(diver, abandon=True)
            await until(lambda: diver.thread)
            following = group.start_thread(name_of_this_thread)
            handle.cancel()
            assert await following == "name_of_this_thread"
            assert not diver.over
        foreign.set()
        await until(lambda: diver.over)

    run(body, backend=backend)


# ===================================================================== loops as children
def needs(inner: str) -> None:
    if inner == "uvloop":
        pytest.importorskip("uvloop")


@inner_backends
def test_a_loop_gives_its_result_and_its_error(backend: Any, inner: Any) -> None:
    needs(inner)

    async def body() -> None:
        error = Boom()

        async def give(value: int) -> tuple[int, int]:
            await checkpoint()
            return value, threading.get_ident()

        async def deep_inside() -> None:
            await checkpoint()
            raise error

        async with TaskGroup(on_error="collect") as group:
            one = group.start_async(give, 5, backend=inner)
            two = group.start_async(deep_inside, backend=inner)
        value, ident = await one
        assert value == 5
        assert ident != threading.get_ident()
        assert two.exception is error
        assert frames(error)[-1] == "deep_inside"

    run(body, backend=backend)


@inner_backends
def test_a_loop_is_cancelled_while_all_in_it_is_parked(backend: Any, inner: Any, census: Census) -> None:
    needs(inner)

    async def body() -> None:
        ch, gate = census.watch(Channel[int](0)), census.watch(Event())
        log: list[str] = []

        async def inside() -> None:
            async with TaskGroup() as group:
                group.start_thread(ch.receive().sync)
                try:
                    await gate.wait()
                except get_cancelled_exc_class():
                    log.append("cut")
                    raise

        async with TaskGroup() as group:
            handle = group.start_async(inside, backend=inner)
            await until(lambda: waiting(ch) == waiting(gate) == 1)
            handle.cancel()
            with pytest.raises(TaskCancelled):
                await handle
        assert log == ["cut"]

    run(body, backend=backend)


@inner_backends
def test_a_deadline_around_a_loop(backend: Any, inner: Any) -> None:
    needs(inner)

    async def body() -> None:
        async def inside() -> None:
            await never()

        with move_on_after(0.01) as scope:
            async with TaskGroup() as group:
                handle = group.start_async(inside, backend=inner)
        assert scope.cancelled_caught
        assert handle.cancelled

    run(body, backend=backend)


@inner_backends
def test_a_loop_that_fails_cancels_its_siblings(backend: Any, inner: Any) -> None:
    needs(inner)

    async def body() -> None:
        error, gate = Boom(), Event()

        async def fails() -> None:
            await gate.wait()
            raise error

        with raises_group() as caught:
            async with TaskGroup() as group:
                group.start_async(fails, backend=inner)
                sibling = group.start_thread(wait_for_ever)
                await until(lambda: waiting(gate) == 1)
                gate.set()
        assert same(caught.value, error)
        assert sibling.cancelled

    run(body, backend=backend)


# ===================================================================== plain groups
def test_a_plain_group_has_children_of_all_kinds_at_once(backend: Any) -> None:
    meeting = Barrier(4)

    async def coroutine() -> str:
        await meeting.wait()
        return "coroutine"

    def plain() -> str:
        meeting.wait().sync()
        return "thread"

    with TaskGroup() as group:
        handles = [
            group.start_soon(coroutine),
            group.start_thread(plain),
            group.start_async(coroutine, backend=backend),
        ]
        meeting.wait().sync()
    assert [handle.sync() for handle in handles] == ["coroutine", "thread", "coroutine"]


def test_a_plain_group_cancels_children_of_all_kinds(backend: Any, census: Census) -> None:
    gate = census.watch(Event())

    async def coroutine() -> None:
        await gate.wait()

    with TaskGroup() as group:
        handles: list[TaskHandle[Any]] = [
            group.start_soon(coroutine),
            group.start_thread(gate.wait().sync),
            group.start_async(coroutine, backend=backend),
        ]
        settle_here(lambda: waiting(gate) == 3)
        group.cancel()
    assert all(handle.cancelled for handle in handles)


def test_an_error_in_a_plain_group_comes_out_in_a_group() -> None:
    error = Boom()

    def fail() -> None:
        raise error

    with raises_group() as caught, TaskGroup() as group:
        group.start_thread(fail)
        sibling = group.start_thread(wait_for_ever)
        with pytest.raises(Cancelled):
            never().sync()
    assert same(caught.value, error)
    assert sibling.cancelled


def test_a_plain_group_ends_by_a_deadline_around_it() -> None:
    with move_on_after(0.01) as scope, TaskGroup() as group:
        handle = group.start_thread(wait_for_ever)
    assert scope.cancelled_caught
    assert handle.cancelled


def test_groups_nested_in_a_thread_child(backend: Any) -> None:
    async def body() -> None:
        def down(left: int) -> int:
            if not left:
                return 0
            with TaskGroup() as group:
                handle = group.start_thread(down, left - 1)
            return handle.sync() + 1

        async with TaskGroup() as group:
            handle = group.start_thread(down, 10)
        assert await handle == 10

    run(body, backend=backend)


def test_a_cancellation_goes_down_through_groups_nested_in_a_thread_child(backend: Any) -> None:
    async def body() -> None:
        deepest = Diver(wait_for_ever)

        def down(left: int) -> None:
            with TaskGroup() as group:
                if left:
                    group.start_thread(down, left - 1)
                else:
                    group.start_thread(deepest)

        async with TaskGroup() as group:
            handle = group.start_thread(down, 5)
            await until(deepest.asleep)
            handle.cancel("all of it")
        assert handle.cancelled
        assert isinstance(deepest.error, Cancelled)

    run(body, backend=backend)


def test_an_error_comes_up_through_groups_nested_in_a_thread_child(backend: Any) -> None:
    async def body() -> None:
        error = Boom()

        def fail() -> None:
            raise error

        def middle() -> None:
            with TaskGroup() as group:
                group.start_thread(fail)

        with raises_group() as caught:
            async with TaskGroup() as group:
                group.start_thread(middle)
        (inner,) = caught.value.exceptions
        assert same(inner, error)

    run(body, backend=backend)


@on_threads
def test_thread_children_start_siblings(backend: Any) -> None:
    async def body() -> None:
        log: list[int] = []

        async with TaskGroup() as group:

            def child(left: int) -> None:
                log.append(left)
                if left:
                    group.start_thread(child, left - 1)

            group.start_thread(child, 10)
        assert log == list(range(10, -1, -1))

    run(body, backend=backend)


@loops
def test_thread_children_cannot_start_siblings_on_a_loop_and_are_told_what_to_do(backend: Any) -> None:
    async def body() -> None:
        async def coroutine() -> None:
            pass

        async with TaskGroup() as group:

            def child() -> None:
                kind = "trio" if backend == "trio" else "asyncio"
                attempts: list[Callable[[], object]] = [
                    lambda: group.start_thread(wait_for_ever),
                    lambda: group.start_soon(coroutine),
                    lambda: group.start_async(coroutine),
                    lambda: group.spawn(coroutine).sync(),
                ]
                for attempt in attempts:
                    with pytest.raises(RuntimeError, match=f"belongs to the {kind} loop of another thread.*channel"):
                        attempt()

            group.start_thread(child)
        assert len(group) == 0

    run(body, backend=backend)


# ===================================================================== Ctrl-C
HEAD = """
import signal, sys, threading, time
sys.path.insert(0, {tests!r})
from worlds import settle_here
from chanlib import Cancelled, TaskGroup, never
from chanlib._core.lane import lanes

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this may have it ignored
seen = [lanes.lane]

def say(word):
    print(word, flush=True)

def asleep():
    return all(lane.parked is not None for lane in seen)

def child():
    seen.append(lanes.lane)
    never().sync()
"""

AT_THE_END = """
def tell():
    settle_here(lambda: len(seen) == 4 and asleep())
    say("parked")

threading.Thread(target=tell, daemon=True).start()
try:
    with TaskGroup() as group:
        handles = [group.start_thread(child) for _ in range(3)]
except BaseExceptionGroup as errors:
    say([type(error).__name__ for error in errors.exceptions])
say([handle.cancelled for handle in handles])
"""

IN_THE_BLOCK = AT_THE_END.replace("range(3)]", "range(3)]\n        never().sync()")

TWICE = """
def foreign():
    seen.append(lanes.lane)
    time.sleep(60)

def stopped():
    seen.append(lanes.lane)
    try:
        never().sync()
    finally:
        with_main = seen[0]
        settle_here(lambda: with_main.parked is not None)  # it waits for us again
        say("cut")

def tell():
    settle_here(lambda: len(seen) == 3 and seen[0].parked and any(lane.parked for lane in seen[1:]))
    say("parked")

threading.Thread(target=tell, daemon=True).start()
try:
    with TaskGroup(name="left") as group:
        group.start_thread(foreign, name="foreign")
        group.start_thread(stopped, name="stopped")
except BaseExceptionGroup as errors:
    for error in errors.exceptions:
        say(type(error).__name__)
        for note in error.__notes__:
            say(note)
"""


class Program:
    """A program in a process of its own, that is interrupted when it says a word."""

    def __init__(self, code: str) -> None:
        head = HEAD.format(tests=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", head + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def interrupt_at(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.strip() != word:
            self.process.kill()
            raise AssertionError(f"{line!r}: {self.process.communicate()}")
        self.process.send_signal(signal.SIGINT)

    def rest(self) -> str:
        try:
            out, err = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert (self.process.returncode, err) == (0, "")
        return out


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")


@needs_signals
@pytest.mark.parametrize("code", [AT_THE_END, IN_THE_BLOCK], ids=["at the end", "in the block"])
def test_an_interrupt_ends_a_plain_group_with_parked_threads(code: str) -> None:
    program = Program(code)
    program.interrupt_at("parked")
    assert program.rest().splitlines() == ["['KeyboardInterrupt']", "[True, True, True]"]


@needs_signals
def test_a_second_interrupt_leaves_behind_who_is_in_foreign_code() -> None:
    program = Program(TWICE)
    program.interrupt_at("parked")
    program.interrupt_at("cut")
    lines = program.rest().splitlines()
    assert lines[0] == "KeyboardInterrupt"
    assert "left running" in lines[1]
    assert "left" in lines[1].partition("running")[2]


# ===================================================================== the cache of threads
def idle() -> set[threading.Thread]:
    return {worker.thread for worker in tuple(threads._idle)}


def test_a_thread_is_used_again(backend: Any) -> None:
    """trio: test_thread_cache_basics."""

    async def body() -> None:
        first, second = Diver(lambda: None), Diver(lambda: None)
        async with TaskGroup() as group:
            group.start_thread(first)
        await until(lambda: first.thread in idle())
        before = idle()
        async with TaskGroup() as group:
            group.start_thread(second)
        assert second.thread in before

    run(body, backend=backend)


def test_an_idle_thread_ends_after_a_while(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """trio: test_idle_threads_exit."""
    monkeypatch.setattr(threads, "IDLE", 0.001)

    async def body() -> None:
        diver = Diver(lambda: None)
        async with TaskGroup() as group:
            group.start_thread(diver)
        await until(lambda: diver.thread is not None and not diver.thread.is_alive())
        assert diver.thread not in idle()

    run(body, backend=backend)


def test_threads_that_end_while_others_start_lose_no_job(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """trio: test_race_between_idle_exit_and_job_assignment."""
    monkeypatch.setattr(threads, "IDLE", 0.0)

    async def body() -> None:
        for number in range(50):
            async with TaskGroup() as group:
                handles = [group.start_thread(abs, -number) for _ in range(3)]
            assert [await handle for handle in handles] == [number] * 3

    run(body, backend=backend)


def test_an_idle_thread_is_a_daemon_and_called_so(backend: Any) -> None:
    async def body() -> None:
        diver = Diver(lambda: None)
        async with TaskGroup() as group:
            group.start_thread(diver, name="busy")
        await until(lambda: diver.thread in idle())
        assert diver.thread is not None
        assert (diver.thread.name, diver.thread.daemon) == ("chanlib idle", True)

    run(body, backend=backend)


def test_nothing_of_a_job_leaks_into_the_next(backend: Any) -> None:
    """Context, name and scopes: also after a job that was cancelled, or failed."""
    other = contextvars.ContextVar("other", default="unset")

    async def body() -> None:
        def first() -> None:
            other.set("by the first")
            with move_on_after(HOUR):
                never().sync()

        def second() -> tuple[str, str, float, object]:
            return other.get(), name_of_this_thread(), current_effective_deadline(), lanes.lane.parked

        diver, following = Diver(first), Diver(second)
        async with TaskGroup() as group:
            handle = group.start_thread(diver, name="first")
            await until(diver.asleep)
            handle.cancel()
        await until(lambda: diver.thread in idle())
        async with TaskGroup() as group:
            seen = group.start_thread(following)
            named = group.start_thread(second, name="named")
        assert (await seen)[0] == "unset"
        assert (await seen)[2:] == (float("inf"), None)
        assert (await named)[1] == "named"

    run(body, backend=backend)


def test_an_idle_thread_keeps_nothing_of_its_job(backend: Any) -> None:
    class Big:
        pass

    async def body() -> None:
        watched: list[weakref.ref[Any]] = []

        async def once() -> Diver:
            big = Big()
            watched.append(weakref.ref(big))
            diver = Diver(lambda: None)

            def child(given: Big) -> None:
                diver()

            async with TaskGroup() as group:
                group.start_thread(child, big)
            return diver

        diver = await once()
        await until(lambda: diver.thread in idle())

        def gone() -> bool:
            gc.collect()
            return watched[0]() is None

        await until(gone)

    run(body, backend=backend)
