"""An operation is a value: performed once, in any world, and a coroutine to whoever wants one."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine

import pytest
import trio
from worlds import ALL, World, run_together, settle, spawn

from chanlib import Channel, Event, Future, Op, WouldBlock, after, never, select, sleep

MAKERS: dict[str, Callable[[], Op[object]]] = {
    "send": lambda: Channel[int](1).send(1),
    "receive": lambda: Channel[int](1).receive(),
    "receive_some": lambda: Channel[int](1).receive_some(),
    "send_some": lambda: Channel[int](1).send_some([1]),
    "wait_closed": lambda: Channel[int](1).wait_closed(),
    "event": lambda: Event().wait(),
    "future": lambda: Future[int]().wait(),
    "sleep": lambda: sleep(1),
    "after": lambda: after(1).wait(),
    "never": lambda: never(),
    "select": lambda: select(Event(), Channel[int](0)),
    "map": lambda: Event().wait().map(str),
    "within": lambda: Event().wait().within(1),
}
KINDS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def drop(make: Callable[[], object]) -> None:
    make()
    gc.collect(0)


# ----------------------------------------------------------------- once
def test_an_operation_is_performed_once(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        op = ch.send(1)
        await op
        with pytest.raises(RuntimeError, match="performed already"):
            await op
        with pytest.raises(RuntimeError, match="performed already"):
            op.poll()
        assert ch.drain() == [1]

    world.run(body)


def test_in_a_plain_thread_too_an_operation_is_performed_once() -> None:
    ch = Channel[int](5)
    op = ch.send(1)
    op.sync()
    for again in (op.sync, op.poll, lambda: op.map(str), lambda: op.within(1), lambda: select(op)):
        with pytest.raises(RuntimeError, match="performed already"):
            again()
    assert ch.drain() == [1]


@KINDS
def test_an_operation_dropped_without_being_performed_warns(make: Callable[[], Op[object]]) -> None:
    with pytest.warns(RuntimeWarning, match="never performed") as caught:
        drop(make)
    assert len(caught) == 1


def test_the_warning_names_the_operation_and_the_channel() -> None:
    ch = Channel[int](1, name="jobs")
    with pytest.warns(RuntimeWarning, match="send to <Channel 'jobs'"):
        drop(lambda: ch.send(1))
    with pytest.warns(RuntimeWarning, match="receive from <Channel 'jobs'"):
        drop(lambda: ch.receive().map(str).within(3))
    with pytest.warns(RuntimeWarning, match="<Event 'stop'"):
        drop(lambda: Event(name="stop").wait())
    assert len(ch) == 0


def test_a_dropped_operation_takes_nothing_and_waits_nowhere() -> None:
    ch = Channel[int](1)
    ch.send_nowait(1)
    with pytest.warns(RuntimeWarning):
        drop(lambda: ch.receive())
    assert ch.statistics().waiting_receivers == 0
    assert len(ch) == 1


@KINDS
def test_after_would_block_an_operation_may_be_dropped_without_a_warning(
    make: Callable[[], Op[object]],
) -> None:
    op = make()
    try:
        op.poll()
    except WouldBlock:
        pass
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del op
        gc.collect(0)
    assert not caught


@KINDS
def test_an_operation_that_was_closed_or_composed_does_not_warn(
    make: Callable[[], Op[object]],
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make().close()
        select(make().map(str).within(0), Event()).close()
        gc.collect(0)
    assert not caught


def test_an_operation_that_was_refused_does_not_warn_as_well() -> None:
    refusals: list[Callable[[], object]] = [
        lambda: Event().wait().sync(math.nan),
        lambda: Event().wait().within(math.nan),
        lambda: Event().wait().map(3),  # type: ignore[arg-type]
        lambda: select(Event().wait(), 3),  # type: ignore[call-overload]
        lambda: asyncio.run(in_loop()),
    ]

    async def in_loop() -> None:
        Event().wait().sync()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for refuse in refusals:
            try:
                refuse()
            except (ValueError, TypeError, RuntimeError):
                pass
            else:
                pytest.fail("not refused")
            gc.collect(0)
    assert not [str(each.message) for each in caught]


# ----------------------------------------------------------------- poll
def test_poll_that_would_block_did_not_perform(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        op = ch.receive()
        for _ in range(3):
            with pytest.raises(WouldBlock):
                op.poll()
        assert ch.statistics().waiting_receivers == 0
        ch.send_nowait(1)
        assert await op == 1
        composed = select(ch.receive().map(str).within(60), never())
        with pytest.raises(WouldBlock):
            composed.poll()
        ch.send_nowait(2)
        assert await composed == (0, "2")

    world.run(body)


def test_poll_in_a_plain_thread_then_sync() -> None:
    ch = Channel[int](0)
    op = ch.send(1)
    with pytest.raises(WouldBlock):
        op.poll()
    receiver = threading.Thread(target=ch.receive().sync)
    receiver.start()
    op.sync()
    receiver.join()


def test_poll_works_in_a_callback_of_a_loop() -> None:
    ch = Channel[int](1)

    async def asyncio_main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def callback() -> None:
            ch.send(1).poll()
            with pytest.raises(WouldBlock):
                ch.send(2).poll()
            assert ch.receive_nowait() == 1
            ch.send_nowait(3)
            done.set()

        loop.call_soon(callback)
        await done.wait()
        assert await ch.receive() == 3

    async def trio_main() -> None:
        done = trio.Event()

        def callback() -> None:
            ch.send(1).poll()
            done.set()

        trio.lowlevel.current_trio_token().run_sync_soon(callback)
        await done.wait()
        assert await ch.receive() == 1

    asyncio.run(asyncio_main())
    trio.run(trio_main)


# ---------------------------------------------------------- sync and for, where they do not belong
@pytest.mark.parametrize("ready", [True, False])
def test_sync_on_a_loop_thread_raises_whether_or_not_it_is_ready(loop_world: World, ready: bool) -> None:
    async def body() -> None:
        ch, event = Channel[int](1), Event()
        if ready:
            ch.send_nowait(1)
            event.set()
        before = ch.statistics()
        ops = [ch.receive(), event.wait(), select(ch, event), ch.receive().within(0)]
        for op in ops:
            with pytest.raises(RuntimeError, match="await"):
                op.sync()
            with pytest.raises(RuntimeError, match="await"):
                op.sync(0)
            op.close()
        with pytest.raises(RuntimeError, match="await"):
            ch.send_all([1]).sync()
        assert ch.statistics() == before

    loop_world.run(body)


def test_sync_in_a_callback_of_a_loop_raises() -> None:
    ch = Channel[int](1)
    ch.send_nowait(1)
    found: list[str] = []

    def callback() -> None:
        op = ch.receive()
        with pytest.raises(RuntimeError) as caught:
            op.sync()
        op.close()
        found.append(str(caught.value))

    async def asyncio_main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await settle(lambda: len(found) == 1)

    async def trio_main() -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(callback)
        await settle(lambda: len(found) == 2)

    ALL["asyncio"].run(asyncio_main)
    ALL["trio"].run(trio_main)
    assert "asyncio" in found[0]
    assert "poll" in found[0]
    assert "trio" in found[1]
    assert len(ch) == 1


def test_for_on_a_loop_thread_raises(loop_world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.send_nowait(1)
        ch.close()
        for it in (ch, ch.receiver()):
            with pytest.raises(RuntimeError, match="async for"):
                for _ in it:
                    pass
        assert len(ch) == 1

    loop_world.run(body)


def test_an_iterator_made_in_a_plain_thread_raises_on_a_loop_thread(loop_world: World) -> None:
    ch = Channel[int](1)
    ch.send_nowait(1)
    items = iter(ch)

    async def body() -> None:
        with pytest.raises(RuntimeError, match="await"):
            next(items)

    loop_world.run(body)
    assert len(ch) == 1


def test_in_a_coroutine_driven_by_its_thread_sync_and_for_are_as_good_as_await() -> None:
    ch = Channel[int](3)

    async def body() -> None:
        ch.send(0).sync()
        await ch.send(1)
        ch.close()
        assert list(ch) == [0, 1]

    ALL["threads"].run(body)


def test_an_operation_made_in_one_world_is_performed_in_another(world: World) -> None:
    ch = Channel[int](1)
    made = [ch.send(1), ch.receive(), sleep(0), select(ch, after(60)), ch.send(2).within(60)]

    async def body() -> None:
        await made[0]
        assert await made[1] == 1
        await made[2]
        await made[4]
        assert await made[3] == (0, 2)

    world.run(body)


# ----------------------------------------------------------------- a coroutine
@KINDS
def test_an_operation_is_a_coroutine(make: Callable[[], Op[object]]) -> None:
    op = make()
    assert isinstance(op, Coroutine)
    assert isinstance(op, Awaitable)
    assert inspect.isawaitable(op)
    assert asyncio.iscoroutine(op)
    assert not inspect.iscoroutinefunction(Channel[int](1).send)
    op.close()


@pytest.mark.parametrize("debug", [False, True])
def test_create_task_takes_operations(debug: bool) -> None:
    async def main() -> None:
        ch = Channel[int](0, name="jobs")
        receiving = asyncio.create_task(ch.receive())
        assert "jobs" in repr(receiving)
        sending = asyncio.create_task(ch.send(5))
        assert await receiving == 5
        assert await sending is None
        assert await asyncio.create_task(select(ch, sleep(0))) == (1, None)
        assert await asyncio.create_task(functools.partial(sleep, 0)()) is None

    asyncio.run(main(), debug=debug)


def test_gather_wait_for_and_task_groups_take_operations() -> None:
    async def main() -> None:
        ch, event = Channel[int](0), Event()
        assert await asyncio.gather(ch.send(1), ch.receive(), sleep(0)) == [None, 1, None]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ch.receive(), 0.001)
        assert ch.statistics().waiting_receivers == 0
        async with asyncio.TaskGroup() as group:
            got = group.create_task(ch.receive())
            group.create_task(ch.send(2))
            group.create_task(event.wait())
            event.set()
        assert got.result() == 2

    asyncio.run(main())


def test_an_operation_can_be_sent_to_a_loop_from_another_thread() -> None:
    ch = Channel[int](1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        got = asyncio.run_coroutine_threadsafe(ch.receive(), loop)
        ch.send(3).sync()
        assert got.result(20) == 3
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_start_soon_takes_the_methods_that_make_operations() -> None:
    async def main() -> None:
        ch = Channel[int](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ch.send, 1)
            nursery.start_soon(functools.partial(ch.send, 2))
            nursery.start_soon(Channel[int](1).send, 3, name="named")
            assert sorted([await ch.receive(), await ch.receive()]) == [1, 2]

    trio.run(main)


def test_a_partial_of_a_method_is_a_function_that_makes_operations(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        send = functools.partial(ch.send, 7)
        await send()
        await spawn(send).wait()
        assert ch.drain() == [7, 7]

    world.run(body)


def test_an_operation_that_was_closed_or_thrown_into_is_over() -> None:
    ch = Channel[int](1)
    op = ch.send(1)
    op.close()
    op.close()
    with pytest.raises(RuntimeError, match="performed"):
        op.poll()
    op = ch.send(1)
    with pytest.raises(KeyError):
        op.throw(KeyError(1))
    with pytest.raises(RuntimeError, match="performed"):
        op.poll()
    assert len(ch) == 0


def test_repr_tells_what_an_operation_will_do() -> None:
    ch = Channel[int](1, name="jobs")
    ops = {
        ch.send(1): "<send to <Channel 'jobs' 0/1>>",
        ch.receive(): "<receive from <Channel 'jobs' 0/1>>",
        sleep(3): "sleep of 3",
        select(ch, Event(name="stop")): "select of receive from <Channel 'jobs' 0/1>, .*<Event 'stop'>",
        ch.receive().within(2): "receive from <Channel 'jobs' 0/1> within 2",
    }
    for op, expected in ops.items():
        assert expected.replace(".*", "") in repr(op).replace("wait for ", "") or expected in repr(op)
        op.close()
        assert "performed" in repr(op)


# ----------------------------------------------------------------- map
def test_map_passes_the_result_through_a_function(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        await ch.send_all([1, 2, 3])
        assert await ch.receive().map(str) == "1"
        assert await ch.receive().map(lambda n: n + 1).map(lambda n: [n]) == [3]
        assert ch.receive().map(str).poll() == "3"
        waiting = spawn(lambda: ch.receive().map(str))
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        ch.send_nowait(4)
        assert await waiting.wait() == "4"
        assert await ch.send(5).map(lambda _: "sent") == "sent"

    world.run(body)


def test_the_function_of_map_is_called_outside_the_lock(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.send_nowait(1)
        assert await ch.receive().map(lambda n: (ch.send_nowait(n + 1), ch.receive_nowait())) == (
            None,
            2,
        )
        waiting = spawn(lambda: ch.receive().map(lambda n: ch.send_nowait(n)))
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        ch.send_nowait(3)
        await waiting.wait()
        assert ch.drain() == [3]

    world.run(body)


def test_an_error_of_the_function_of_map_is_raised_and_the_operation_has_happened(
    world: World,
) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.send_nowait(0)
        with pytest.raises(ZeroDivisionError):
            await ch.receive().map(lambda n: 1 // n)
        assert len(ch) == 0

    world.run(body)


def test_the_function_of_map_is_not_called_where_nothing_happened(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        calls: list[object] = []
        with pytest.raises(WouldBlock):
            ch.receive().map(calls.append).poll()
        with pytest.raises(TimeoutError):
            await ch.receive().map(calls.append).within(0.001)
        assert not calls

    world.run(body)


# ----------------------------------------------------------------- within
@pytest.mark.parametrize("limit", [0, -1, -math.inf, 0.001])
def test_within_raises_timeout_error_and_nothing_has_happened(world: World, limit: float) -> None:
    async def body() -> None:
        ch = Channel[int](0, name="jobs")
        with pytest.raises(TimeoutError, match="'jobs'"):
            await ch.send(1).within(limit)
        with pytest.raises(TimeoutError):
            await ch.receive().map(str).within(limit)
        assert ch.statistics()[2:4] == (0, 0)
        assert ch.drain() == []

    world.run(body)


@pytest.mark.parametrize("limit", [0, -1, 60, math.inf])
def test_within_any_limit_what_can_happen_now_happens(world: World, limit: float) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        for n in range(20):
            await ch.send(n).within(limit)
            assert await ch.receive().within(limit) == n
            await ch.send(n).within(limit)
            assert (await select(ch.receive().within(limit), never()))[1] == n

    world.run(body)


def test_within_infinity_waits_for_as_long_as_it_takes(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        waiting = spawn(lambda: ch.receive().within(math.inf))
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        await ch.send(1)
        assert await waiting.wait() == 1

    world.run(body)


def test_the_shorter_of_two_limits_counts(world: World) -> None:
    async def body() -> None:
        for op in (never().within(60).within(0.001), Event().wait().within(0.001).within(60)):
            with pytest.raises(TimeoutError):
                await op

    world.run(body)


def test_within_poll_says_would_block_or_timeout_and_takes_nothing() -> None:
    ch = Channel[int](1)
    with pytest.raises(WouldBlock):
        ch.receive().within(60).poll()
    with pytest.raises((WouldBlock, TimeoutError)):
        ch.receive().within(0).poll()
    ch.send_nowait(1)
    assert ch.receive().within(0).poll() == 1


@pytest.mark.parametrize("limit", [0, -1, 0.001])
def test_sync_with_a_timeout_raises_timeout_error_and_nothing_has_happened(limit: float) -> None:
    ch = Channel[int](0, name="jobs")
    with pytest.raises(TimeoutError, match="'jobs'"):
        ch.send(1).sync(limit)
    with pytest.raises(TimeoutError):
        ch.receive().within(60).sync(limit)
    assert ch.statistics()[2:4] == (0, 0)


@pytest.mark.parametrize("limit", [None, 0, -1, 60, math.inf])
def test_sync_with_any_timeout_does_what_can_happen_now(limit: float | None) -> None:
    ch = Channel[int](1)
    ch.send(1).sync(limit)
    assert ch.receive().sync(limit) == 1
    assert select(ch.send(2), never()).sync(limit) == (0, None)


def test_sync_without_end_waits_for_as_long_as_it_takes() -> None:
    for limit in (None, math.inf):
        ch = Channel[int](0)

        async def receive(ch: Channel[int] = ch, limit: float | None = limit) -> int:
            return ch.receive().sync(limit)

        async def send(ch: Channel[int] = ch) -> None:
            await settle(lambda: ch.statistics().waiting_receivers == 1)
            ch.send_nowait(1)

        assert run_together((ALL["threads"], receive), (ALL["threads"], send))[0] == 1
