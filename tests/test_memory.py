"""Nothing piles up: waiters that gave up leave no trace, whoever they were and however often they came.

Memory is counted in allocated blocks, before and after many rounds. One block kept per round would be seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import trio
import worlds
from trio.lowlevel import in_trio_task
from worlds import World, settle, spawn

from chanlib import Channel, Event, Future, Op, WouldBlock, after, select

LONG = 3600.0
CROWD = 100

stress = [pytest.mark.stress, pytest.mark.timeout(300)]
many_rounds = pytest.mark.parametrize("rounds", [2_000, pytest.param(100_000, id="stress", marks=stress)])
few_rounds = pytest.mark.parametrize("rounds", [1_000, pytest.param(20_000, id="stress", marks=stress)])


# asyncio's debug mode records a stack at every step: it says nothing about memory, and takes long.
LOOPS = ["asyncio", "uvloop", "trio"]


@pytest.fixture(params=[*LOOPS, "threads"])
def world(request: pytest.FixtureRequest) -> World:
    """Each world but asyncio's debug mode."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return worlds.ALL[request.param]


@pytest.fixture(params=LOOPS)
def loop_world(request: pytest.FixtureRequest) -> World:
    """Each of these that can cancel."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return worlds.ALL[request.param]


@pytest.fixture(scope="module", autouse=True)
def set_aside_what_is_there() -> Iterator[None]:
    """Collections need not go through what pytest and the libraries hold: that takes most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def assert_flat(once: Callable[[int], Awaitable[object]], rounds: int, *, timers: bool = False) -> None:
    """`once(n)` does `n` rounds: after a few to warm up, many keep no more than those did."""
    # trio keeps up to a thousand deadlines that are off before it tidies up
    slack = 3000 if timers and in_trio_task() else 500
    await once(rounds // 5)
    before = blocks()
    await once(rounds)
    assert blocks() - before < slack + rounds // 20


def idle(*things: Any) -> bool:
    """Nobody waits there."""
    return all(
        number == 0
        for thing in things
        for name, number in thing.statistics()._asdict().items()
        if name.startswith("waiting")
    )


class Quiet:
    """Things where nothing ever happens."""

    def __init__(self) -> None:
        self.empty = Channel[int](1)
        self.full = Channel[int](1)
        self.full.send_nowait(0)
        self.event = Event()
        self.future = Future[int]()

    def idle(self) -> bool:
        return idle(self.empty, self.full, self.event, self.future)

    def arms(self) -> list[Any]:
        """An arm for each of them, a timer, and a select with a timer inside."""
        nested = select(self.empty.receive_some(), self.event).within(LONG)
        return [
            self.empty,
            self.full.send(1),
            self.full.send_some([1]),
            self.event,
            self.future,
            after(LONG),
            nested,
        ]


# --------------------------------------------------------------------- selects over busy and quiet


async def select_beside(busy: Channel[int], arms: Callable[[], list[Any]], rounds: int) -> None:
    """Each round parks on one side or the other: the busy channel is a rendezvous."""

    async def feed() -> None:
        for n in range(rounds):
            await busy.send(n)

    feeding = spawn(feed)
    for n in range(rounds):
        assert await select(busy.receive(), *arms()) == (0, n)
    await feeding.wait()


@many_rounds
def test_selects_over_a_busy_and_a_quiet_channel_leave_nothing_on_the_quiet_one(world: World, rounds: int) -> None:
    async def main() -> None:
        busy, quiet = Channel[int](0), Channel[int](0)
        await assert_flat(lambda n: select_beside(busy, lambda: [quiet], n), rounds)
        assert idle(busy, quiet)

    world.run(main)


@few_rounds
def test_selects_over_a_busy_channel_and_all_kinds_of_arms_leave_nothing_there(world: World, rounds: int) -> None:
    async def main() -> None:
        busy, quiet = Channel[int](0), Quiet()
        await assert_flat(lambda n: select_beside(busy, quiet.arms, n), rounds, timers=True)
        assert idle(busy)
        assert quiet.idle()

    world.run(main)


@few_rounds
def test_selects_leave_nothing_behind_one_who_waits_on_the_quiet_channel(world: World, rounds: int) -> None:
    """Those who gave up stand behind one who has not: they are taken out all the same."""

    async def main() -> None:
        quiet, busy = Channel[int](0), Channel[int](0)
        patient = spawn(quiet.receive)
        await settle(lambda: quiet.statistics().waiting_receivers == 1)

        async def feed(rounds: int) -> None:
            for n in range(rounds):
                await busy.send(n)

        async def take(rounds: int) -> None:
            feeding = spawn(feed, rounds)
            for n in range(rounds):
                assert await select(quiet.receive(), busy.receive()) == (1, n)
            await feeding.wait()

        await assert_flat(take, rounds)
        assert quiet.statistics().waiting_receivers == 1
        await quiet.send(7)
        assert await patient.wait() == 7

    world.run(main)


# --------------------------------------------------------------------- cancelled, timed out, in vain


async def cancelled_crowd(make: Callable[[], Op[Any]], there: Callable[[], object]) -> None:
    """Park `CROWD` tasks, each on what `make()` gives, and cancel them once they are `there`."""
    if in_trio_task():
        async with trio.open_nursery() as nursery:
            for _ in range(CROWD):
                nursery.start_soon(perform, make())
            await settle(there)
            nursery.cancel_scope.cancel()
    else:
        tasks = [asyncio.create_task(perform(make())) for _ in range(CROWD)]
        await settle(there)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)


async def perform(op: Op[Any]) -> None:
    await op


@few_rounds
def test_cancelled_selects_leave_nothing(loop_world: World, rounds: int) -> None:
    async def main() -> None:
        quiet, last = Quiet(), Channel[int](0)

        async def cancel_many(rounds: int) -> None:
            for _ in range(rounds // CROWD):
                await cancelled_crowd(
                    lambda: select(*quiet.arms(), last),
                    lambda: last.statistics().waiting_receivers == CROWD,
                )
            assert idle(last)
            assert quiet.idle()

        await assert_flat(cancel_many, rounds, timers=True)

    loop_world.run(main)


@many_rounds
@pytest.mark.parametrize("patient", [0, 1])
def test_cancelled_receives_leave_nothing(loop_world: World, rounds: int, patient: int) -> None:
    """With and without a patient one who stands before them all."""

    async def main() -> None:
        ch = Channel[int](1)

        async def cancel_many(rounds: int) -> None:
            for _ in range(rounds // CROWD):
                await cancelled_crowd(ch.receive, lambda: ch.statistics().waiting_receivers == CROWD + patient)
                assert ch.statistics().waiting_receivers == patient

        children = [spawn(ch.receive) for _ in range(patient)]
        await settle(lambda: ch.statistics().waiting_receivers == patient)
        await assert_flat(cancel_many, rounds)
        for child in children:
            await ch.send(7)
            assert await child.wait() == 7

    loop_world.run(main)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@many_rounds
def test_receives_cancelled_natively_leave_nothing(name: str, rounds: int) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def main() -> None:
        ch = Channel[int](1)

        async def cancel_many(rounds: int) -> None:
            for n in range(rounds):
                task = asyncio.create_task(ch.receive())
                await asyncio.sleep(0)
                if n % 2:  # given an item, which it gives back
                    ch.send_nowait(n)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert ch.drain() == ([n] if n % 2 else [])
            assert idle(ch)

        await assert_flat(cancel_many, rounds)

    worlds.ALL[name].run(main)


@few_rounds
def test_selects_whose_time_is_over_leave_nothing(world: World, rounds: int) -> None:
    async def main() -> None:
        quiet = Quiet()

        async def time_out(rounds: int) -> None:
            for _ in range(rounds):
                try:
                    await select(*quiet.arms()).within(1e-6)
                except TimeoutError:
                    continue
                raise AssertionError("it happened")
            assert quiet.idle()

        await assert_flat(time_out, rounds, timers=True)

    world.run(main)


@many_rounds
@pytest.mark.parametrize("side", ["send", "receive", "select"])
def test_syncs_whose_time_is_over_leave_nothing(side: str, rounds: int) -> None:
    async def main() -> None:
        quiet = Quiet()

        async def time_out(rounds: int) -> None:
            for _ in range(rounds):
                if side == "send":
                    op: Op[Any] = quiet.full.send(1)
                elif side == "receive":
                    op = quiet.empty.receive()
                else:
                    op = select(quiet.empty, quiet.full.send(1), quiet.event, quiet.future)
                try:
                    op.sync(0)
                except TimeoutError:
                    continue
                raise AssertionError("it happened")
            assert quiet.idle()

        await assert_flat(time_out, rounds)

    worlds.ALL["threads"].run(main)


@many_rounds
def test_polls_in_vain_leave_nothing(rounds: int) -> None:
    async def main() -> None:
        quiet = Quiet()
        makers: list[Callable[[], Op[Any]]] = [
            quiet.empty.receive,
            lambda: quiet.full.send(1),
            quiet.event.wait,
            lambda: select(quiet.full.send(1), quiet.empty),
            lambda: kept,
        ]
        kept = select(quiet.full.send(1), quiet.empty)

        async def poll(rounds: int) -> None:
            for n in range(rounds):
                op = makers[n % len(makers)]()
                try:
                    op.poll()
                except WouldBlock:
                    continue
                raise AssertionError("it happened")
            assert quiet.idle()

        await assert_flat(poll, rounds)

    worlds.ALL["threads"].run(main)


@few_rounds
def test_traffic_leaves_nothing(world: World, rounds: int) -> None:
    async def main() -> None:
        ch = Channel[int](3)

        async def feed(rounds: int) -> None:
            for n in range(rounds):
                await ch.send(n)

        async def pass_through(rounds: int) -> None:
            feeding = spawn(feed, rounds)
            for n in range(rounds):
                assert await ch.receive() == n
            await feeding.wait()

        await assert_flat(pass_through, rounds)

    world.run(main)


# --------------------------------------------------------------------- values and owners


class Value:
    """Something that can be seen to die."""


def test_a_losing_send_arm_lets_go_of_its_value_at_once(world: World) -> None:
    async def main() -> None:
        full, other = Channel[Any](1), Channel[int](0)
        full.send_nowait(None)

        async def choose() -> None:
            values = [Value()]  # made here: without a GIL a thread frees at once only what it made
            ref = weakref.ref(values[0])
            result = await select(full.send(values.pop()), other.receive())
            assert result == (1, 5)
            assert ref() is None

        child = spawn(choose)
        await settle(lambda: other.statistics().waiting_receivers == 1)
        await other.send(5)
        await child.wait()
        assert full.drain() == [None]

    world.run(main)


def test_the_quiet_arm_of_a_select_does_not_keep_what_another_arm_received(world: World) -> None:
    async def main() -> None:
        quiet, busy = Channel[Any](0), Channel[Any](0)
        looked, refs = Event(), list[Any]()

        async def choose() -> None:
            result = await select(quiet.receive(), busy.receive())
            refs.append(weakref.ref(result[1]))
            del result
            await looked.wait()

        child = spawn(choose)
        await settle(lambda: busy.statistics().waiting_receivers == 1)
        await busy.send(Value())
        await settle(lambda: refs and refs[0]() is None)
        looked.set()
        await child.wait()
        assert idle(quiet, busy)

    world.run(main)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_quiet_arm_of_a_select_keeps_neither_the_task_nor_its_context(name: str) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")
    quiet, busy = Channel[Any](0), Channel[Any](0)
    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")

    async def main() -> tuple[Any, Any]:
        async def choose() -> None:
            value = Value()
            refs.append(weakref.ref(value))
            variable.set(value)
            await select(quiet.receive(), busy.receive())

        refs: list[Any] = []
        task = asyncio.create_task(choose())
        refs.append(weakref.ref(task))
        await settle(lambda: busy.statistics().waiting_receivers == 1)
        await busy.send(1)
        await task
        return refs[0], refs[1]

    refs = worlds.ALL[name].run(main)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert idle(quiet, busy)


def test_a_cancelled_send_lets_go_of_its_value(loop_world: World) -> None:
    async def main() -> None:
        full = Channel[Any](1)
        full.send_nowait(None)
        value = Value()
        ref = weakref.ref(value)

        async def put(box: list[Value]) -> None:
            await full.send(box.pop())

        async with anyio.create_task_group() as group:
            group.start_soon(put, [value])
            await settle(lambda: full.statistics().waiting_senders == 1)
            del value
            assert ref() is not None
            group.cancel_scope.cancel()
        del group
        gc.collect()  # the error of the cancellation refers to itself
        assert ref() is None
        assert full.drain() == [None]

    loop_world.run(main)


def test_a_send_whose_time_is_over_lets_go_of_its_value(world: World) -> None:
    async def main() -> None:
        full = Channel[Any](1)
        full.send_nowait(None)
        value = Value()
        ref = weakref.ref(value)
        try:  # not pytest.raises: what that keeps of the error is not the question here
            await full.send(value).within(1e-6)
        except TimeoutError:
            late = True
        del value
        gc.collect()
        assert late
        assert ref() is None

    world.run(main)


def test_a_send_that_was_polled_in_vain_lets_go_of_its_value() -> None:
    full = Channel[Any](1)
    full.send_nowait(None)
    value = Value()
    ref = weakref.ref(value)
    op = full.send(value)
    with pytest.raises(WouldBlock):
        op.poll()
    del value
    assert ref() is not None
    del op
    gc.collect()
    assert ref() is None


def test_a_received_value_is_not_kept(world: World) -> None:
    async def main() -> None:
        ch, looked, refs = Channel[Any](0), Event(), list[Any]()

        async def take() -> None:
            value = await ch.receive()
            refs.append(weakref.ref(value))
            del value
            await looked.wait()

        child = spawn(take)
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        await ch.send(Value())
        await settle(lambda: refs and refs[0]() is None)
        looked.set()
        await child.wait()

    world.run(main)


def test_a_dropped_channel_dies_at_once_with_what_is_in_it() -> None:
    ch = Channel[Any](2)
    value = Value()
    inside = weakref.ref(value)
    around = weakref.ref(ch)
    ch.send_nowait(value)
    ch.send(1).sync()
    del value
    assert inside() is not None
    del ch
    assert around() is None
    assert inside() is None


def test_a_dropped_channel_that_somebody_had_waited_on_is_collected() -> None:
    ch = Channel[Any](1)
    value = Value()
    inside = weakref.ref(value)
    around = weakref.ref(ch)
    ch.send_nowait(value)
    with pytest.raises(TimeoutError):
        ch.send(2).sync(0)
    del value, ch
    gc.collect()
    assert around() is None
    assert inside() is None


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["receive", "select", "send", "event"])
def test_a_task_parked_on_what_nobody_can_reach_is_collected(name: str, kind: str) -> None:
    """Nothing global holds those who wait: a task that can never be woken is garbage."""
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def main() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

        def forget_one() -> tuple[Any, Any]:
            ch, event = Channel[int](0), Event()
            ops: dict[str, Op[Any]] = {
                "receive": ch.receive(),
                "send": ch.send(1),
                "event": event.wait(),
                "select": select(Channel[int](0).receive(), event),
            }
            for other, op in ops.items():
                if other != kind:
                    op.close()

            async def park() -> None:
                await ops[kind]

            return weakref.ref(asyncio.create_task(park())), weakref.ref(ch)

        task, ch = forget_one()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        assert task() is None
        assert ch() is None
        assert told == ["Task was destroyed but it is pending!"]

    worlds.ALL[name].run(main)


def test_channels_without_bound_allocate_nothing_ahead() -> None:
    before = blocks()
    channels = [Channel[int](capacity) for capacity in (math.inf, 10**12) for _ in range(100)]
    assert blocks() - before < 40 * len(channels)
