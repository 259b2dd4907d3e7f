"""A channel between processes, used in one: what it has in common with `Channel` and `open_channel`.

`either` gives a sender and a receiver: counted ends, or one `ProcessChannel` twice. Suites followed: those of
`open_channel` here (test_channel, test_ends, test_close, test_select), and so trio's and anyio's of memory channels.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import chosen, sizes
from worlds import ALL, ChildCancelled, Pair, World, collect, fail_in, parked, run_together, settle, spawn

from chanlib import (
    BrokenChannel,
    Cancelled,
    CancelScope,
    Channel,
    ChannelClosed,
    ChannelEmpty,
    ChannelError,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    MessageTooLarge,
    ReceiveSide,
    RemoteError,
    SendSide,
    after,
    open_channel,
    select,
)
from chanlib.processes import ProcessChannel, ProcessReceiver, ProcessSender, open_process_channel

Open = Callable[..., tuple[ProcessSender, ProcessReceiver]]
Either = Callable[..., tuple[Any, Any]]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


@pytest.fixture(autouse=True, scope="module")
def calm() -> Iterator[None]:
    """uvloop keeps descriptors from its first run on. The collector need not look at what is there already."""

    async def body() -> None:
        pass

    for world in ALL.values():
        if world.name != "uvloop" or find_spec("uvloop") is not None:
            world.run(body)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """As many descriptors and threads after each test as before it."""
    before = len(descriptors()), threading.active_count()
    yield
    end = 0.0
    while (left := (len(descriptors()), threading.active_count())) > before:
        gc.collect()  # takes long itself where there is much of it
        end = end or time.monotonic() + 5
        assert time.monotonic() < end, f"descriptors and threads before {before}, after {left}"


SENDS: dict[str, Callable[[Any], Any]] = {
    "send": lambda tx: tx.send(1),
    "send_some": lambda tx: tx.send_some([1, 2]),
    "send_all": lambda tx: tx.send_all([1, 2]),
    "send_all of an iterator": lambda tx: tx.send_all(iter([1, 2])),
    "select": lambda tx: select(after(60), tx.send(1)),
    "within": lambda tx: tx.send(1).within(60),
    "map": lambda tx: tx.send(1).map(str),
}
RECEIVES: dict[str, Callable[[Any], Any]] = {
    "receive": lambda rx: rx.receive(),
    "receive_some": lambda rx: rx.receive_some(),
    "select": lambda rx: select(after(60), rx),
    "select of itself twice": lambda rx: select(rx, after(60), rx.receive_some()),
    "within": lambda rx: rx.receive().within(60),
    "map": lambda rx: rx.receive().map(str),
    "async for": lambda rx: anext(aiter(rx)),
    "__anext__": lambda rx: rx.__anext__(),
}
NOW_SENDS: dict[str, Callable[[Any], Any]] = {
    "send_nowait": lambda tx: tx.send_nowait(1),
    "poll": lambda tx: tx.send(1).poll(),
    "poll of send_some": lambda tx: tx.send_some([1]).poll(),
}
NOW_RECEIVES: dict[str, Callable[[Any], Any]] = {
    "receive_nowait": lambda rx: rx.receive_nowait(),
    "poll": lambda rx: rx.receive().poll(),
    "poll of receive_some": lambda rx: rx.receive_some().poll(),
}
sends = pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
receives = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


async def perform(make: Callable[[Any], Any], end: Any) -> Any:
    return await make(end)


def counts(end: Any) -> tuple[int, int]:
    """How many senders and receivers are open."""
    found = end.statistics()
    return found.senders, found.receivers


# ----------------------------------------------------------------- making one
@pytest.mark.parametrize("make", [open_process_channel, ProcessChannel])
@pytest.mark.parametrize(
    ("capacity", "options", "kind", "says"),
    [
        (0, {}, ValueError, "at least 1"),
        (-1, {}, ValueError, "capacity"),
        (1 << 40, {}, ValueError, "capacity"),
        (True, {}, TypeError, "capacity"),
        (1.5, {}, TypeError, "capacity"),
        (math.nan, {}, TypeError, "capacity"),
        ("1", {}, TypeError, "capacity"),
        (None, {}, TypeError, "capacity"),
        (1, {"buffer_bytes": 0}, ValueError, "buffer_bytes"),
        (1, {"buffer_bytes": -1}, ValueError, "buffer_bytes"),
        (1, {"buffer_bytes": 1 << 60}, ValueError, "buffer_bytes"),
        (1, {"buffer_bytes": 1e6}, TypeError, "buffer_bytes"),
        (1, {"buffer_bytes": True}, TypeError, "buffer_bytes"),
        (1, {"serializer": object()}, TypeError, "serializer"),
        (1, {"serializer": "json"}, TypeError, "serializer"),
        (1, {"name": b"jobs"}, TypeError, "name"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(
    make: Any, capacity: Any, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        make(capacity, **options)


def test_what_a_process_channel_cannot_do_says_what_to_use_instead(opened: Open) -> None:
    tx, rx = opened(1)
    with pytest.raises(NotImplementedError, match=r"send\(\)"):
        tx.reserve()
    with pytest.raises(NotImplementedError, match="receive_nowait"):
        tx.force_send(1)
    for end in (tx, rx):
        for copied in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="clone"):
                copied(end)
    with pytest.raises(TypeError, match="receiving"):
        1 in rx  # noqa: B015


def test_the_sides_are_those_of_any_channel(opened: Open) -> None:
    tx, rx = opened(1)
    both = ProcessChannel(1)
    assert isinstance(tx, SendSide)
    assert isinstance(both, SendSide)
    assert isinstance(rx, ReceiveSide)
    assert isinstance(both, ReceiveSide)
    assert not isinstance(tx, ReceiveSide)
    assert not isinstance(rx, SendSide)


def test_a_handle_is_true_also_when_nothing_is_inside(either: Either) -> None:
    tx, rx = either(1)
    assert tx
    assert rx
    assert len(tx) == len(rx) == 0


def test_repr_tells_kind_name_and_what_is_inside(opened: Open) -> None:
    tx, rx = opened(3, name="jobs")
    tx.send_nowait(1)
    assert repr(tx) == "<ProcessSender 'jobs' 1/3>"
    assert repr(rx) == "<ProcessReceiver 'jobs' 1/3>"
    assert repr(ProcessChannel(math.inf)) == "<ProcessChannel 0/inf>"
    tx.close()
    assert "'jobs'" in repr(tx)
    assert "closed" in repr(tx)


def test_operations_tell_what_they_are(opened: Open) -> None:
    tx, rx = opened(3, name="jobs")
    ops = {
        "send to": tx.send(1),
        "send_some to": tx.send_some([1]),
        "receive from": rx.receive(),
        "receive_some from": rx.receive_some(),
        "wait for the end of": rx.wait_closed(),
    }
    for says, op in ops.items():
        assert says in repr(op)
        assert "'jobs'" in repr(op)
        with suppress(ChannelError, asyncio.QueueEmpty):
            op.poll()


def test_the_package_is_imported_only_when_it_is_used() -> None:
    program = (
        "import chanlib, sys; assert 'chanlib.processes' not in sys.modules and 'multiprocessing' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ----------------------------------------------------------------- values, order, room
def test_values_are_received_in_the_order_in_which_they_were_sent(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(5)
        for n in range(5):
            await tx.send(n)
        assert [await rx.receive() for _ in range(5)] == [0, 1, 2, 3, 4]

    world.run(body)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 64])
def test_exactly_the_capacity_fits(either: Either, capacity: int) -> None:
    """Over several fillings, so that the positions of the ring wrap, and from each fill level."""
    tx, rx = either(capacity)
    for taken in (*range(1, capacity + 1), 0):
        for n in range(capacity - len(tx)):
            tx.send_nowait(n)
        with pytest.raises(ChannelFull):
            tx.send_nowait(-1)
        assert len(tx) == len(rx) == capacity == tx.statistics().buffered
        for _ in range(taken):
            rx.receive_nowait()
    assert rx.drain() == list(range(capacity))[-capacity:]


def test_a_send_waits_once_the_capacity_is_used_up(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(2)
        await tx.send(0)
        await tx.send(1)
        third = spawn(tx.send, 2)
        await parked(tx, senders=1)
        assert not third.done
        assert await rx.receive() == 0
        await third.wait()
        assert len(rx) == 2
        assert rx.drain() == [1, 2]

    world.run(body)


@pytest.mark.parametrize("capacity", [1, 2])
def test_a_sender_and_a_receiver_keep_in_step(pair: Pair, either: Either, capacity: int) -> None:
    tx, rx = either(capacity)

    async def produce() -> None:
        for n in range(200):
            await tx.send(n)
        tx.close()

    async def consume() -> list[int]:
        return [n async for n in rx]

    assert pair.run(produce, consume)[1] == list(range(200))


def test_without_a_number_the_bytes_are_the_bound(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(math.inf, buffer_bytes=4096)
        assert tx.capacity == math.inf
        sent = 0
        with suppress(ChannelFull):
            while True:
                tx.send_nowait(bytes(100))
                sent += 1
        assert 4096 <= 100 * sent <= 2 * 8192
        waiting = spawn(tx.send, b"last")
        await parked(tx, senders=1)
        assert await rx.receive_some(1) == [bytes(100)]
        await waiting.wait()
        assert rx.drain() == [bytes(100)] * (sent - 1) + [b"last"]

    world.run(body)


def test_both_bounds_bind(either: Either) -> None:
    """So many values, and so many bytes: what is used up first makes senders wait."""
    tx, rx = either(3, buffer_bytes=1024)
    for _ in range(3):
        tx.send_nowait(1)
    with pytest.raises(ChannelFull):
        tx.send_nowait(1)
    assert rx.drain() == [1, 1, 1]
    tx.send_nowait(bytes(800))
    tx.send_nowait(bytes(800))
    assert len(tx) == 2
    with pytest.raises(ChannelFull):
        tx.send_nowait(bytes(800))
    tx.send_nowait(1)  # there is room for a short one
    with pytest.raises(ChannelFull):
        tx.send_nowait(1)
    assert rx.drain() == [bytes(800), bytes(800), 1]


def test_an_iterator_of_senders_goes_on_as_there_is_room(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(2)
        for values in ([1, 2, 3, 4, 5], (1, 2, 3, 4, 5), iter([1, 2, 3, 4, 5]), range(1, 6)):
            sending = spawn(tx.send_all, values)
            assert [await rx.receive() for _ in range(5)] == [1, 2, 3, 4, 5]
            await sending.wait()
        await tx.send_all([])

    world.run(body)


def test_many_at_a_time(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(3)
        assert await tx.send_some([]) == 0
        assert await tx.send_some([1, 2]) == 2
        assert await tx.send_some((3, 4, 5)) == 1
        with pytest.raises(ChannelFull):
            tx.send_some([6]).poll()
        assert await rx.receive_some(2) == [1, 2]
        assert await rx.receive_some() == [3]
        assert rx.drain() == []
        with pytest.raises(ChannelEmpty):
            rx.receive_some().poll()
        assert await tx.send_some(n for n in range(9)) == 3
        assert await rx.receive_some(math.inf) == [0, 1, 2]
        sending = spawn(lambda: tx.send_some([*range(20)]))
        assert await sending.wait() == 3
        assert rx.drain() == [0, 1, 2]

    world.run(body)


@pytest.mark.parametrize("max", [-1, 1.5, "1", None, math.nan])
def test_a_most_that_makes_no_sense(opened: Open, max: Any) -> None:
    _, rx = opened(1)
    with pytest.raises((TypeError, ValueError)):
        rx.receive_some(max)


def test_none_at_most_is_none(opened: Open) -> None:
    """As of `Channel`."""
    tx, rx = opened(1)
    tx.send_nowait(1)
    expected = Channel[int](1)
    expected.send_nowait(1)
    assert rx.receive_some(0).poll() == expected.receive_some(0).poll()
    assert len(rx) == len(expected)


@sends
def test_every_way_to_send_waits_for_room(world: World, either: Either, send: Callable[[Any], Any]) -> None:
    async def body() -> None:
        tx, rx = either(1)
        tx.send_nowait(0)
        waiting = spawn(perform, send, tx)
        await parked(tx, senders=1)
        got = [await rx.receive(), await rx.receive()]
        assert got == [0, 1]
        await waiting.wait()

    world.run(body)


@receives
def test_every_way_to_receive_waits_for_a_value(world: World, either: Either, receive: Callable[[Any], Any]) -> None:
    async def body() -> None:
        tx, rx = either(1)
        waiting = spawn(perform, receive, rx)
        await settle(lambda: rx.statistics().waiting_receivers > 0)
        tx.send_nowait(7)
        got = await waiting.wait()
        while isinstance(got, (list, tuple)):
            got = got[-1]
        assert int(got) == 7
        assert len(rx) == 0

    world.run(body)


@pytest.mark.parametrize("count", [2, 10])
def test_all_who_wait_are_served(world: World, either: Either, count: int) -> None:
    async def body() -> None:
        tx, rx = either(1)
        receiving = [spawn(rx.receive) for _ in range(count)]
        await parked(rx, receivers=count)
        sending = [spawn(tx.send, n) for n in range(count)]
        assert sorted([await child.wait() for child in receiving]) == list(range(count))
        for child in sending:
            await child.wait()
        assert len(rx) == 0

    world.run(body)


def test_one_send_of_several_values_wakes_several_receivers(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(3)
        receiving = [spawn(rx.receive) for _ in range(3)]
        await parked(rx, receivers=3)
        assert await tx.send_some([1, 2, 3]) == 3
        assert sorted([await child.wait() for child in receiving]) == [1, 2, 3]

    world.run(body)


def test_a_drain_wakes_all_senders_that_fit(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(3)
        await tx.send_all([0, 0, 0])
        sending = [spawn(tx.send, 1) for _ in range(3)]
        await parked(tx, senders=3)
        assert rx.drain() == [0, 0, 0]
        for child in sending:
            await child.wait()
        assert rx.drain() == [1, 1, 1]

    world.run(body)


def test_statistics_of_this_process(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(2)
        await tx.send_all([1, 2])
        found = tx.statistics()
        assert (found.capacity, found.buffered, found.sent, found.received, found.dropped) == (2, 2, 2, 0, 0)
        assert (found.senders, found.receivers) == (1, 1)
        waiting = spawn(tx.send, 3)
        await parked(tx, senders=1)
        assert rx.drain()[:2] == [1, 2]
        await waiting.wait()
        rx.drain()
        assert tx.statistics().sent == rx.statistics().received == 3
        receiving = [spawn(rx.receive) for _ in range(2)]
        await parked(rx, receivers=2)
        await tx.send_all([1, 2])
        for child in receiving:
            await child.wait()
        assert tx.statistics().buffered == 0

    world.run(body)


def test_a_thread_that_runs_a_loop_is_not_blocked(loop_world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(1)
        for act in (
            lambda: tx.send(1).sync(),
            lambda: rx.receive().sync(),
            lambda: rx.receive_some().sync(1),
            lambda: tx.send_all([1]).sync(),
            lambda: tx.wait_closed().sync(),
            lambda: select(rx, after(1)).sync(),
            lambda: iter(rx),
        ):
            with pytest.raises(RuntimeError, match=r"await|async for"):
                act()
        tx.send_nowait(1)
        assert rx.receive_nowait() == 1

    loop_world.run(body)


def test_a_plain_thread_iterates_and_blocks(either: Either) -> None:
    tx, rx = either(2)

    def produce() -> None:
        for n in range(50):
            tx.send(n).sync()
        tx.send_all(range(50, 60)).sync()
        tx.close()

    thread = threading.Thread(target=produce)
    thread.start()
    assert list(rx) == list(range(60))
    thread.join()
    with pytest.raises(EndOfChannel):
        rx.receive().sync()


# ----------------------------------------------------------------- the end
def test_what_is_inside_is_received_before_the_end(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(3)
        await tx.send_all([1, 2, 3])
        assert tx.close() is True
        assert rx.is_closed
        assert [n async for n in rx] == [1, 2, 3]
        for _ in range(2):
            for receive in (rx.receive, rx.receive_some):
                with pytest.raises(EndOfChannel) as info:
                    await receive()
                assert info.value.cause is None
                assert info.value.channel is rx
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()
        assert rx.drain() == []

    world.run(body)


@sends
def test_nothing_is_sent_through_a_closed_end(world: World, either: Either, send: Callable[[Any], Any]) -> None:
    async def body() -> None:
        tx, rx = either(3)
        tx.close()
        with pytest.raises(HandleClosed):
            await perform(send, tx)
        assert rx.drain() == []

    world.run(body)


@pytest.mark.parametrize("send", NOW_SENDS.values(), ids=NOW_SENDS)
def test_nothing_is_sent_at_once_through_a_closed_end(either: Either, send: Callable[[Any], Any]) -> None:
    tx, _ = either(3)
    tx.close()
    with pytest.raises(HandleClosed):
        send(tx)


@receives
def test_nothing_is_received_through_a_closed_receiver(
    world: World, opened: Open, receive: Callable[[Any], Any]
) -> None:
    async def body() -> None:
        tx, rx = opened(3)
        twin = rx.clone()
        tx.send_nowait(1)
        rx.close()
        with pytest.raises(HandleClosed):
            await perform(receive, rx)
        assert twin.drain() == [1]
        twin.close()

    world.run(body)


@pytest.mark.parametrize("receive", NOW_RECEIVES.values(), ids=NOW_RECEIVES)
def test_nothing_is_received_at_once_through_a_closed_receiver(opened: Open, receive: Callable[[Any], Any]) -> None:
    _, rx = opened(3)
    rx.close()
    with pytest.raises(HandleClosed):
        receive(rx)


@pytest.mark.parametrize(
    "act",
    [
        lambda tx, rx: rx.drain(),
        lambda tx, rx: tx.send_some([]).poll(),
        lambda tx, rx: rx.receive_some(0).poll(),
    ],
)
def test_also_what_needs_nothing_is_refused_by_a_closed_end(opened: Open, act: Callable[..., Any]) -> None:
    """As by one of `open_channel`."""
    for make in (open_channel, opened):
        for end in (made := make(1)):
            end.close()
        with pytest.raises(HandleClosed):
            act(*made)


@receives
def test_the_last_senders_close_ends_those_who_wait_to_receive(
    world: World, either: Either, receive: Callable[[Any], Any]
) -> None:
    async def body() -> None:
        tx, rx = either(1)
        waiting = spawn(perform, receive, rx)
        await settle(lambda: rx.statistics().waiting_receivers > 0)
        tx.close()
        with pytest.raises((EndOfChannel, StopAsyncIteration)):
            await waiting.wait()

    world.run(body)


@sends
def test_the_last_receivers_close_breaks_those_who_wait_to_send(
    world: World, opened: Open, send: Callable[[Any], Any]
) -> None:
    async def body() -> None:
        tx, rx = opened(1)
        tx.send_nowait(0)
        waiting = spawn(perform, send, tx)
        await parked(tx, senders=1)
        rx.close()
        with pytest.raises(BrokenChannel, match="no receiver"):
            await waiting.wait()
        with pytest.raises(BrokenChannel, match="no receiver"):
            await perform(send, tx)

    world.run(body)


@sends
def test_closing_an_end_ends_those_who_wait_to_send_through_it(
    world: World, opened: Open, send: Callable[[Any], Any]
) -> None:
    async def body() -> None:
        tx, rx = opened(1)
        twin = tx.clone()
        tx.send_nowait(0)
        waiting = spawn(perform, send, tx)
        other = spawn(twin.send, 5)
        await parked(tx, senders=2)
        tx.close()
        with pytest.raises(HandleClosed):
            await waiting.wait()
        assert await rx.receive() == 0
        await other.wait()
        assert rx.drain() == [5]
        twin.close()

    world.run(body)


@receives
def test_closing_an_end_ends_those_who_wait_to_receive_through_it(
    world: World, opened: Open, receive: Callable[[Any], Any]
) -> None:
    async def body() -> None:
        tx, rx = opened(1)
        twin = rx.clone()
        waiting = spawn(perform, receive, rx)
        other = spawn(twin.receive)
        await settle(lambda: tx.statistics().waiting_receivers >= 2)
        rx.close()
        with pytest.raises(HandleClosed):
            await waiting.wait()
        tx.send_nowait(3)
        assert await other.wait() == 3
        twin.close()

    world.run(body)


def test_an_end_is_closed_once(world: World, opened: Open) -> None:
    async def body() -> None:
        tx, rx = opened(1)
        twin = tx.clone()
        assert tx.close() is True
        assert tx.close() is False
        assert tx.close(OSError("late")) is False
        await tx.aclose()
        assert counts(rx) == (1, 1)
        assert twin.close() is True
        assert rx.close() is True
        assert rx.close() is False

    world.run(body)


def test_is_closed_of_an_end_and_of_the_whole(opened: Open) -> None:
    tx, rx = opened(1)
    twin = tx.clone()
    assert (tx.is_closed, twin.is_closed, rx.is_closed) == (False, False, False)
    tx.close()
    assert (tx.is_closed, twin.is_closed, rx.is_closed) == (True, False, False)
    twin.close()
    assert (tx.is_closed, twin.is_closed, rx.is_closed) == (True, True, True)


def test_statistics_count_the_open_ends(opened: Open) -> None:
    tx, rx = opened(math.inf)
    assert counts(tx) == counts(rx) == (1, 1)
    with tx.clone() as tx2:
        assert counts(tx) == (2, 1)
        with tx2.clone(), rx.clone(), rx.clone():
            assert counts(tx) == (3, 3)
        assert counts(tx) == (2, 1)
    assert counts(tx) == (1, 1)
    tx.close()
    assert counts(rx) == (0, 1)


def test_a_closed_end_cannot_be_cloned(opened: Open) -> None:
    tx, rx = opened(1)
    for end in (tx, rx):
        end.close()
        with pytest.raises(HandleClosed):
            end.clone()


def test_a_clone_is_an_end_like_any_other(world: World, opened: Open) -> None:
    """trio: test_channel_multiple_producers, and consumers."""

    async def body() -> None:
        tx, rx = opened(1)

        async def produce(tx: ProcessSender, first: int) -> None:
            async with tx:
                for n in range(first, first + 20):
                    await tx.send(n)

        async def consume(rx: ProcessReceiver) -> list[int]:
            async with rx:
                return [n async for n in rx]

        producers = [spawn(produce, tx.clone(), 20 * n) for n in range(5)]
        consumers = [spawn(consume, rx.clone()) for _ in range(3)]
        tx.close()
        rx.close()
        got = [await child.wait() for child in consumers]
        for child in producers:
            await child.wait()
        assert sorted(n for part in got for n in part) == list(range(100))
        for part in got:
            for first in range(0, 100, 20):
                mine = [n for n in part if first <= n < first + 20]
                assert mine == sorted(mine)

    world.run(body)


def test_the_cause_of_the_end_comes_after_what_is_inside(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(2)
        tx.send_nowait(1)
        tx.close(OSError(5, "disk"))
        assert await rx.receive() == 1
        for receive in (rx.receive, rx.receive_some, lambda: anext(aiter(rx))):
            with pytest.raises(BrokenChannel) as info:
                await receive()
            assert isinstance(info.value.cause, OSError)
            assert info.value.cause.args == (5, "disk")
            assert info.value.cause is info.value.__cause__

    world.run(body)


def test_the_cause_is_a_copy_for_each(either: Either) -> None:
    tx, rx = either(1)
    cause = ValueError([1])
    tx.close(cause)
    seen = []
    for _ in range(2):
        with pytest.raises(BrokenChannel) as info:
            rx.receive_nowait()
        seen.append(info.value.cause)
    assert seen[0] is not cause
    assert seen[0] is not seen[1]
    assert [error.args for error in seen] == [([1],), ([1],)]  # type: ignore[union-attr]


def test_the_first_cause_is_kept(opened: Open) -> None:
    tx, rx = opened(1)
    ends = [tx.clone() for _ in range(3)]
    tx.close()
    ends[0].close(KeyError("first"))
    ends[1].close(ValueError("second"))
    with pytest.raises(ChannelEmpty):
        rx.receive_nowait()
    ends[2].close()
    with pytest.raises(BrokenChannel) as info:
        rx.receive_nowait()
    assert repr(info.value.cause) == "KeyError('first')"


class Local(Exception):
    """An error that does not pickle."""

    def __reduce__(self) -> Any:
        raise TypeError("stays here")


class Picky(Exception):
    """An error that pickles, and does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("picky")


class Mute(Exception):
    """An error that says nothing, not even by its text."""

    def __reduce__(self) -> Any:
        raise TypeError("stays here")

    def __str__(self) -> str:
        raise RuntimeError("no text")


def made_here() -> Exception:
    class Inner(Exception):
        pass

    return Inner("of a function")


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (Local("text"), "text"),
        (Picky(1, 2), "picky"),
        (Mute(), ""),
        (made_here(), "of a function"),
        (ValueError(lambda: 1), "lambda"),
        (ValueError("x" * 100_000), "xxx"),
        (ExceptionGroup("several", [ValueError(threading.Lock())]), "several"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_cause_that_does_not_survive_pickling_is_a_remote_error(either: Either, cause: Exception, says: str) -> None:
    tx, rx = either(1)
    tx.close(cause)
    with pytest.raises(BrokenChannel) as info:
        rx.receive_nowait()
    assert isinstance(info.value.cause, RemoteError)
    assert type(cause).__name__ in str(info.value.cause)
    assert says in str(info.value.cause)


@pytest.mark.parametrize("cause", ["text", 1, ValueError], ids=repr)
def test_a_cause_is_an_exception(either: Either, cause: Any) -> None:
    tx, _ = either(1)
    with pytest.raises(TypeError):
        tx.close(cause)
    assert not tx.is_closed


async def fail_inside(end: Any, error: Exception) -> None:
    with end:
        raise error


def test_leaving_a_block_by_an_error_is_the_cause(world: World, opened: Open) -> None:
    async def body() -> None:
        for leave in (fail_inside, fail_in):
            tx, rx = opened(1)
            with pytest.raises(LookupError):
                await leave(tx, LookupError("why"))
            with pytest.raises(BrokenChannel) as info:
                await rx.receive()
            assert repr(info.value.cause) == "LookupError('why')"

    world.run(body)


def test_waiting_for_the_end(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(1)
        waiting = [spawn(end.wait_closed) for end in (tx, rx)]
        await settle(lambda: sum(rx.statistics()[2:4]) == 2)
        assert not any(child.done for child in waiting)
        tx.close()
        for child in waiting:
            await child.wait()
        await rx.wait_closed()
        assert rx.wait_closed().poll() is None

    world.run(body)


@pytest.mark.parametrize(
    "ask", [lambda tx: tx.wait_closed().poll(), lambda tx: tx.statistics().senders, lambda tx: tx.capacity]
)
def test_a_closed_end_still_tells(ask: Callable[[Any], Any], opened: Open) -> None:
    """As one of `open_channel`."""
    results = []
    for make in (open_channel, opened):
        tx, rx = make(2)
        tx.close()
        results.append(ask(tx))
        rx.close()
    assert results[0] == results[1]


def test_an_arm_through_a_closed_end_says_which_it_was(opened: Open) -> None:
    tx, _ = opened(2)
    tx.close()
    with pytest.raises(HandleClosed) as info:
        select(Event(), tx.send(1)).sync(1)
    assert info.value.arm == 1


def test_closing_from_another_thread_meets_sends_and_receives(opened: Open) -> None:
    """Every value that a send says to have sent is received, and no other."""
    for round in range(30):
        tx, rx = opened(2)
        sent: list[int] = []
        started = threading.Event()

        def produce(tx: Any = tx, sent: list[int] = sent, started: threading.Event = started) -> None:
            with suppress(HandleClosed):
                for n in range(10**6):
                    tx.send(n).sync()
                    sent.append(n)
                    if n == 3:
                        started.set()

        thread = threading.Thread(target=produce)
        thread.start()
        got = [rx.receive().sync(5) for _ in range(5 + round)]
        started.wait(5)
        tx.close()
        thread.join()
        got += list(rx)
        assert got == list(range(len(got)))
        assert len(got) - len(sent) in (0, 1)  # one whose send was undone by the close may not be there
        assert got == sent


# ----------------------------------------------------------------- one handle for both directions
def test_close_of_a_process_channel_ends_it_for_all_of_its_ends(world: World) -> None:
    async def body() -> None:
        both = ProcessChannel(3, name="jobs")
        with both.sender() as tx, both.receiver() as rx:
            assert counts(both) == (2, 2)
            await both.send(1)
            await tx.send(2)
            receiving = spawn(collect, rx, got := [])
            assert both.close() is True
            assert both.close() is False
            await receiving.wait()
            assert got == [1, 2]
            for end in (both, tx):
                with pytest.raises(HandleClosed):
                    await end.send(3)
            for end in (both, rx):
                with pytest.raises(EndOfChannel):
                    await end.receive()
            assert tx.is_closed
            assert rx.is_closed

    world.run(body)


def test_a_process_channel_is_not_ended_by_its_ends(world: World) -> None:
    async def body() -> None:
        both = ProcessChannel(3)
        with both.sender(), both.receiver():
            pass
        assert not both.is_closed
        await both.send(1)
        assert await both.receive() == 1
        twin = both.clone()
        await twin.send(2)
        del twin
        gc.collect()
        assert await both.receive() == 2
        assert not both.is_closed
        assert counts(both) == (1, 1)

    world.run(body)


@pytest.mark.parametrize("waits", [*RECEIVES.values(), None], ids=[*RECEIVES, "nobody"])
def test_cancel_discards_what_is_inside_and_ends_all(world: World, waits: Callable[[Any], Any] | None) -> None:
    async def body() -> None:
        both = ProcessChannel(3)
        tx, rx = both.sender(), both.receiver()
        waiting = None if waits is None else spawn(perform, waits, rx)
        if waiting:
            await settle(lambda: rx.statistics().waiting_receivers > 0)
        else:
            await tx.send_all([1, 2])
        assert both.cancel(OSError("why")) is True
        assert both.cancel() is False
        if waiting:
            with pytest.raises(HandleClosed) as info:
                await waiting.wait()
            assert repr(info.value.cause) == "OSError('why')"
        assert len(both) == len(rx) == 0
        for act in (both.receive, rx.receive, rx.receive_some, lambda: both.send(1), lambda: tx.send(1)):
            with pytest.raises(HandleClosed) as info:
                await act()
            assert repr(info.value.cause) == "OSError('why')"
        tx.close()
        rx.close()

    world.run(body)


@sends
def test_cancel_ends_those_who_wait_to_send(world: World, send: Callable[[Any], Any]) -> None:
    async def body() -> None:
        both = ProcessChannel(1)
        both.send_nowait(0)
        waiting = spawn(perform, send, both)
        await parked(both, senders=1)
        both.cancel()
        with pytest.raises(HandleClosed):
            await waiting.wait()
        assert len(both) == 0

    world.run(body)


def test_cancel_is_stronger_than_close() -> None:
    """As of `Channel`."""
    for make in (Channel, ProcessChannel):
        both: Any = make(2)
        both.send_nowait(1)
        results = [both.close(), both.cancel(), both.close(), both.cancel()]
        assert results == [True, True, False, False], make
        with pytest.raises(HandleClosed):
            both.receive_nowait()


def test_the_last_handle_of_a_process_channel_goes_without_a_word() -> None:
    both = ProcessChannel(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del both
        gc.collect()


@pytest.mark.parametrize("of", [ProcessChannel, open_process_channel])
def test_a_handle_that_the_collector_drops_warns_of_no_socket(of: Any) -> None:
    made = [of(2)]
    made.append(made)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del made
        gc.collect()
    assert [one for one in seen if "without close" not in str(one.message)] == []


def test_a_receiver_outlives_the_process_channel_it_is_of(opened: Open) -> None:
    """Once the handle has gone nobody is left to send: the stream ends."""
    both = ProcessChannel(2)
    rx = both.receiver()
    both.send_nowait(1)
    del both
    gc.collect()
    assert list(rx) == [1]
    rx.close()


# ----------------------------------------------------------------- ends that are dropped
def test_a_sender_that_is_dropped_warns_and_breaks_the_stream(opened: Open) -> None:
    tx, rx = open_process_channel(2, name="jobs")
    tx.send_nowait(1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del tx
        gc.collect()
    assert [str(one.message) for one in seen] == ["<ProcessSender 'jobs' 1/2> was dropped without close()"]
    assert rx.receive_nowait() == 1
    with pytest.raises(BrokenChannel) as info:
        rx.receive_nowait()
    assert "dropped" in str(info.value.cause)
    rx.close()


def test_a_receiver_that_is_dropped_warns_and_is_closed() -> None:
    tx, rx = open_process_channel(2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del rx
        gc.collect()
    assert [str(one.message) for one in seen] == ["<ProcessReceiver 0/2> was dropped without close()"]
    with pytest.raises(BrokenChannel):
        tx.send_nowait(1)
    tx.close()


def test_an_end_that_is_dropped_while_somebody_waits_for_the_other(world: World) -> None:
    async def body() -> None:
        tx, rx = open_process_channel(2)
        waiting = spawn(rx.receive)
        await parked(rx, receivers=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del tx
            gc.collect()
        with pytest.raises(BrokenChannel):
            await waiting.wait()
        rx.close()

    world.run(body)


PROGRAM = """
import asyncio, gc, threading
from chanlib import EndOfChannel, select, after
from chanlib.processes import ProcessChannel, open_process_channel

def use():
    tx, rx = open_process_channel(3)
    both = ProcessChannel(3)
    with tx, rx:
        tx.send({1: "a"}).sync()
        assert rx.receive().sync() == {1: "a"}
        threading.Thread(target=lambda: tx.send_all(range(100)).sync()).start()
        assert [rx.receive().sync() for _ in range(100)] == list(range(100))
        async def main():
            sending = asyncio.create_task(tx.send_all(range(100))._run())
            assert [(await select(both, rx))[1] for _ in range(100)] == list(range(100))
            await sending
            await select(both, after(0))
        asyncio.run(main())
        tx.send(b"x" * 10_000_000).sync()
        assert len(rx.receive().sync()) == 10_000_000
    both.close()

use()
gc.collect()
print("done")
"""


@pytest.mark.parametrize("flags", [["-X", "dev", "-W", "error"], ["-W", "error", "-X", "faulthandler"]])
def test_nothing_is_to_be_warned_of(flags: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, *flags, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# ----------------------------------------------------------------- select and time
def test_beside_any_other_arm_in_a_select(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(3)
        tx2, rx2 = either(3)
        ch, event = Channel[str](1), Event()

        def choice() -> Any:
            return select(rx, ch, event, rx2.receive_some(), after(60))

        for act, expected in (
            (lambda: tx.send_nowait("a"), (0, "a")),
            (lambda: ch.send_nowait("b"), (1, "b")),
            (lambda: tx2.send_nowait("c"), (3, ["c"])),
            (event.set, (2, None)),
        ):
            waiting = spawn(choice)
            await settle(lambda: rx.statistics().waiting_receivers == rx2.statistics().waiting_receivers == 1)
            act()
            assert await waiting.wait() == expected
            await parked(rx)
            await parked(rx2)
        event.clear()
        assert (await select(rx, ch, rx2, after(0.001)))[0] == 3
        for end in (tx, tx2):
            end.send_nowait("later")
        assert [rx.receive_nowait(), rx2.receive_nowait()] == ["later", "later"]

    world.run(body)


def test_exactly_one_of_two_sends_happens(world: World, either: Either) -> None:
    async def body() -> None:
        first, second = either(1), either(1)
        for _ in range(20):
            arm, _ = await select(first[0].send("a"), second[0].send("b"))
            assert len(first[1]) + len(second[1]) == 1
            assert (first, second)[arm][1].receive_nowait() == "ab"[arm]
        for tx, _ in (first, second):
            tx.send_nowait("full")
        waiting = spawn(lambda: select(first[0].send("a"), select(second[0].send("b"), after(60))))
        await parked(first[0], senders=1)
        assert second[1].receive_nowait() == "full"
        assert await waiting.wait() == (1, (0, None))
        assert first[1].drain() == ["full"]
        assert second[1].drain() == ["b"]

    world.run(body)


def test_a_send_and_a_receive_of_one_channel_in_a_select(world: World) -> None:
    async def body() -> None:
        both = ProcessChannel(1)
        assert await select(both.send(1), both.receive()) == (0, None)
        assert await select(both.send(2), both.receive()) == (1, 1)
        assert len(both) == 0

    world.run(body)


def test_an_arm_that_has_ended_raises_and_says_which_it_was(world: World, either: Either) -> None:
    async def body() -> None:
        tx, rx = either(1)
        waiting = spawn(lambda: select(Event(), after(60), rx))
        await parked(rx, receivers=1)
        tx.close(OSError("why"))
        with pytest.raises(BrokenChannel) as info:
            await waiting.wait()
        assert info.value.arm == 2
        assert info.value.channel is rx
        with pytest.raises(BrokenChannel) as info:
            await select(Event(), rx)
        assert info.value.arm == 1

    world.run(body)


@pytest.mark.parametrize("arms", [2, 4])
def test_ready_arms_are_drawn_evenly(either: Either, arms: int) -> None:
    """Over 10 000 rounds, each 5 standard deviations at most from its share."""
    made = [either(2) for _ in range(arms)]
    for tx, _ in made:
        tx.send_nowait(0)
    ch = Channel[int](1)
    ch.send_nowait(0)
    taken = [0] * (arms + 1)
    for _ in range(10_000):
        arm, _ = select(*[rx for _, rx in made], ch).poll()
        taken[arm] += 1
        (ch if arm == arms else made[arm][0]).send_nowait(0)
    share = 1 / (arms + 1)
    for count in taken:
        assert abs(count - 10_000 * share) < 5 * math.sqrt(10_000 * share * (1 - share)), taken


def test_the_first_ready_arm_of_a_biased_select(either: Either) -> None:
    (tx, rx), (tx2, rx2) = either(1), either(1)
    for _ in range(50):
        tx.send_nowait(1)
        tx2.send_nowait(2)
        assert select(rx, rx2, biased=True).poll() == (0, 1)
        assert select(rx, rx2, biased=True).poll() == (1, 2)


def test_nobody_starves_beside_a_busy_channel(loop_world: World, either: Either) -> None:
    """One task that never waits for its channel does not keep another from its own."""

    async def body() -> None:
        (tx, rx), (tx2, rx2) = either(8), either(1)
        stop = False

        async def busy() -> int:
            rounds = 0
            while not stop:
                await tx.send(rounds)
                assert await rx.receive() == rounds
                rounds += 1
            return rounds

        child = spawn(busy)
        for n in range(50):
            await tx2.send(n)
            assert await rx2.receive() == n
        waiting = spawn(rx2.receive)
        await parked(rx2, receivers=1)
        await tx2.send("x")
        assert await waiting.wait() == "x"
        stop = True
        assert await child.wait() > 0

    loop_world.run(body)


@pytest.mark.parametrize("seconds", [0, -1, 0.0, -math.inf, 0.002])
def test_a_time_limit_that_is_over(world: World, either: Either, seconds: float) -> None:
    async def body() -> None:
        tx, rx = either(1)
        with pytest.raises(TimeoutError):
            await rx.receive().within(seconds)
        await tx.send(1).within(seconds)
        with pytest.raises(TimeoutError):
            await tx.send(2).within(seconds)
        with pytest.raises(TimeoutError):
            await rx.wait_closed().within(seconds)
        assert await rx.receive().within(seconds) == 1
        await parked(tx)
        assert len(rx) == 0

    world.run(body)


@pytest.mark.parametrize("seconds", [0, -1, 0.002])
def test_a_time_limit_that_is_over_in_a_thread(either: Either, seconds: float) -> None:
    tx, rx = either(1)
    with pytest.raises(TimeoutError):
        rx.receive().sync(seconds)
    tx.send(1).sync(seconds)
    with pytest.raises(TimeoutError):
        tx.send(2).sync(seconds)
    with pytest.raises(TimeoutError):
        tx.send_some([2]).sync(seconds)
    assert rx.receive().sync(seconds) == 1
    assert len(rx) == 0


@pytest.mark.parametrize("seconds", [math.inf, 1e9])
def test_a_time_limit_that_never_comes(world: World, either: Either, seconds: float) -> None:
    async def body() -> None:
        tx, rx = either(1)
        receiving = spawn(lambda: rx.receive().within(seconds))
        await parked(rx, receivers=1)
        tx.send_nowait(1)
        assert await receiving.wait() == 1

    world.run(body)


def test_who_waits_is_woken_at_once_and_not_by_looking_now_and_then(world: World, either: Either) -> None:
    """The heartbeat is a safety net: a hundred turns take less than ten of them would."""

    async def body() -> None:
        there, back = either(1), either(1)

        async def echo() -> None:
            for _ in range(100):
                await back[0].send(await there[1].receive())

        child = spawn(echo)
        began = time.monotonic()
        for n in range(100):
            await there[0].send(n)
            assert await back[1].receive() == n
        assert time.monotonic() - began < 2.0
        await child.wait()

    world.run(body)


# ----------------------------------------------------------------- cancellation
@pytest.mark.parametrize("way", ["native", "scope"])
@pytest.mark.parametrize("make", RECEIVES.values(), ids=RECEIVES)
def test_a_cancelled_receive_has_taken_nothing(
    loop_world: World, either: Either, make: Callable[[Any], Any], way: str
) -> None:
    async def body() -> None:
        tx, rx = either(1)
        scope = CancelScope()

        async def scoped() -> None:
            with scope:
                await make(rx)

        child = spawn(perform, make, rx) if way == "native" else spawn(scoped)
        await settle(lambda: rx.statistics().waiting_receivers > 0)
        child.cancel() if way == "native" else scope.cancel()
        await settle(lambda: child.done)
        await parked(rx)
        tx.send_nowait(1)
        assert rx.receive_nowait() == 1

    loop_world.run(body)


@pytest.mark.parametrize("make", SENDS.values(), ids=SENDS)
def test_a_cancelled_send_has_sent_nothing(loop_world: World, either: Either, make: Callable[[Any], Any]) -> None:
    async def body() -> None:
        tx, rx = either(1)
        tx.send_nowait(0)
        child = spawn(perform, make, tx)
        await parked(tx, senders=1)
        child.cancel()
        with pytest.raises(ChildCancelled):
            await child.wait()
        await parked(tx)
        assert rx.drain() == [0]
        await tx.send(5)
        assert rx.drain() == [5]

    loop_world.run(body)


def test_a_scope_that_is_cancelled_in_a_thread(either: Either) -> None:
    """What a thread waits in is cut short by the scope around it."""
    tx, rx = either(1)
    scope = CancelScope()
    ended = []

    def live() -> None:
        with scope:
            try:
                rx.receive().sync()
            except Cancelled:
                ended.append("cancelled")
                raise

    thread = threading.Thread(target=live)
    thread.start()
    while rx.statistics().waiting_receivers != 1:
        time.sleep(0.0005)
    scope.cancel()
    thread.join(10)
    assert ended == ["cancelled"]
    tx.send_nowait(1)
    assert rx.receive_nowait() == 1


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(300, marks=pytest.mark.timeout(60)),
        pytest.param(1000, marks=[pytest.mark.stress, pytest.mark.timeout(60)]),
        pytest.param(10**5, marks=[pytest.mark.stress, pytest.mark.timeout(900)]),
    ],
)
def test_cancelled_at_any_moment_nothing_is_lost_or_doubled(loop_world: World, opened: Open, rounds: int) -> None:
    """A receiver and a sender are cancelled after some turns of the loop each, and come again."""
    chance = random.Random(20)

    async def body() -> None:
        tx, rx = opened(2)
        got: list[int] = []
        sent = 0

        async def receive() -> None:
            for _ in range(3):
                way = chance.randrange(3)
                if way == 0:
                    got.append(await rx.receive())
                elif way == 1:
                    got.extend(await rx.receive_some(2))
                else:
                    arm, value = await select(rx, after(60))
                    assert arm == 0
                    got.append(value)

        async def send() -> None:
            nonlocal sent
            for _ in range(3):
                if chance.randrange(2):
                    await tx.send(sent)
                    sent += 1
                else:
                    sent += await tx.send_some([sent, sent + 1])

        for _ in range(rounds):
            children = [spawn(receive), spawn(send)]
            left = iter(range(chance.randrange(8)))
            await settle(
                lambda left=left, children=children: (  # type: ignore[misc]
                    next(left, None) is None or all(child.done for child in children)
                )
            )
            for child in children:
                child.cancel()
            await settle(lambda children=children: all(child.done for child in children))  # type: ignore[misc]
            for child in children:
                with suppress(ChildCancelled):
                    await child.wait()
        await parked(tx)
        got.extend(rx.drain())
        assert got == list(range(sent))

    loop_world.run(body)


@pytest.mark.parametrize(
    "rounds", [pytest.param(300), pytest.param(3000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])]
)
def test_limits_that_run_out_at_any_moment_lose_and_double_nothing(opened: Open, rounds: int) -> None:
    """Threads on both sides, whose patience ends about when the value comes."""
    tx, rx = opened(1)
    sent: list[int] = []
    got: list[int] = []

    def produce() -> None:
        chance = random.Random(1)
        for n in range(rounds):
            while True:
                try:
                    tx.send(n).sync(chance.random() * 0.001)
                except TimeoutError:
                    continue
                sent.append(n)
                break
        tx.close()

    def consume() -> None:
        chance = random.Random(2)
        while True:
            try:
                got.append(rx.receive().sync(chance.random() * 0.001))
            except TimeoutError:
                continue
            except EndOfChannel:
                return

    threads = [threading.Thread(target=produce), threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == sent == list(range(rounds))


# ----------------------------------------------------------------- several loops and threads
@pytest.mark.parametrize("capacity", [1, 16])
def test_several_loops_and_threads_on_one_handle(either: Either, capacity: int) -> None:
    """Every value is received once; those of one sender that one receiver gets are in order."""
    tx, rx = either(capacity)
    each, names = 300, ["asyncio", "trio", "threads", "asyncio"]

    async def produce(number: int) -> None:
        for n in range(each):
            await tx.send((number, n))

    async def consume() -> list[tuple[int, int]]:
        found = []
        while (value := await rx.receive()) is not None:
            found.append(value)
        return found

    parts = [(ALL[name], consume) for name in names]

    async def all_producers() -> None:
        run_together(*[(ALL[name], produce, number) for number, name in enumerate(names)])
        for _ in names:
            tx.send(None).sync()

    *found, _ = run_together(*parts, (ALL["threads"], all_producers))
    assert sorted(value for part in found for value in part) == [(p, n) for p in range(len(names)) for n in range(each)]
    for part in found:
        for number in range(len(names)):
            mine = [n for p, n in part if p == number]
            assert mine == sorted(mine)


@pytest.mark.parametrize("names", [("asyncio", "asyncio"), ("trio", "trio"), ("asyncio", "trio")], ids="+".join)
def test_two_loops_wait_for_the_same_channel(either: Either, names: tuple[str, str]) -> None:
    """Each value wakes one of them in the end, whichever loop saw the bell first."""
    tx, rx = either(1)

    async def consume() -> int:
        count = 0
        while await rx.receive():
            count += 1
        return count

    async def produce() -> None:
        for n in range(1, 101):
            tx.send(n).sync()
        for _ in names:
            tx.send(0).sync()

    found = run_together(*[(ALL[name], consume) for name in names], (ALL["threads"], produce))
    assert sum(found[:2]) == 100


def test_a_handle_goes_from_one_run_to_the_next(either: Either) -> None:
    """It belongs to no loop, and remembers none that is closed."""
    tx, rx = either(1)
    for _ in range(2):
        for world in ALL.values():
            if world.name == "uvloop":
                pytest.importorskip("uvloop")

            async def body() -> None:
                receiving = spawn(rx.receive)
                await parked(rx, receivers=1)
                await tx.send(1)
                assert await receiving.wait() == 1

            world.run(body)


def test_a_loop_that_is_closed_while_somebody_waits_is_forgotten(either: Either) -> None:
    tx, rx = either(1)
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        await rx.receive()

    task = loop.create_task(wait())
    while rx.statistics().waiting_receivers != 1:
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    tx.send_nowait(1)
    assert rx.receive().sync(5) == 1
    tx.send_nowait(2)
    assert rx.receive_nowait() == 2
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()


# ----------------------------------------------------------------- records in the ring
def longest(make: Open | Any, buffer_bytes: int) -> int:
    """How many bytes the longest value has that goes through the ring."""
    tx, rx = make(math.inf, buffer_bytes=buffer_bytes, spill=False)
    low, high = 0, 4 * buffer_bytes
    while low < high:
        middle = (low + high + 1) // 2
        try:
            tx.send_nowait(bytes(middle))
        except MessageTooLarge:
            high = middle - 1
        else:
            low = middle
            rx.receive_nowait()
    return low


@pytest.mark.parametrize("buffer_bytes", [512, 513, 1000, 4096])
def test_a_value_exactly_as_long_as_the_ring_takes(opened: Open, buffer_bytes: int) -> None:
    most = longest(opened, buffer_bytes)
    assert buffer_bytes - 16 <= most <= 2 * buffer_bytes
    tx, rx = opened(math.inf, buffer_bytes=buffer_bytes, spill=False)
    data = os.urandom(most)
    for _ in range(10):
        tx.send_nowait(data)
        assert rx.receive_nowait() == data
    with pytest.raises(MessageTooLarge, match=r"\d+ bytes"):
        tx.send_nowait(data + b"!")
    assert len(tx) == 0
    with pytest.raises(MessageTooLarge):
        tx.send(data + b"!").sync(0)
    with pytest.raises(MessageTooLarge):
        tx.send_some([b"a", data + b"!"]).poll()
    assert rx.drain() == []
    assert tx.statistics().sent == 10


def test_one_byte_more_goes_through_memory_of_its_own(world: World, either: Either) -> None:
    async def body() -> None:
        most = longest(either, 512)
        tx, rx = either(10, buffer_bytes=512)
        for kind in (bytes, bytearray, lambda data: data.decode("latin-1"), lambda data: [data]):
            for extra in (1, 15, 16, 17, 5000):
                value = kind(bytes(range(256)) * (most // 256) + bytes(most % 256 + extra))
                await tx.send(value)
                assert await rx.receive() == value
        values = [n if n % 2 else bytes([n]) * 3000 for n in range(10)]
        await tx.send_all(values)
        with pytest.raises(ChannelFull):
            tx.send_nowait(0)
        assert rx.drain() == values

    world.run(body)


def test_a_value_that_waits_for_room_in_bytes(world: World, either: Either) -> None:
    """It fits only once others are out: also when it has to start over at the beginning of the ring."""

    async def body() -> None:
        most = longest(either, 512)
        for first in range(0, most, 48):
            tx, rx = either(math.inf, buffer_bytes=512, spill=False)
            tx.send_nowait(bytes(first))
            rx.receive_nowait()
            tx.send_nowait(b"a" * (most - 16))
            with suppress(ChannelFull):
                tx.send_nowait(b"b" * (most // 2))
            inside = len(rx)
            sending = spawn(tx.send, b"c" * most)
            await settle(lambda tx=tx, sending=sending: sending.done or tx.statistics().waiting_senders)  # type: ignore[misc]
            got = [await rx.receive() for _ in range(inside + 1)]
            await sending.wait()
            assert got[0] == b"a" * (most - 16)
            assert got[-1] == b"c" * most
            tx.close()

    world.run(body)


def operations() -> st.SearchStrategy[list[tuple[str, Any]]]:
    size = st.one_of(st.integers(0, 80), st.integers(0, 1100))
    value = st.one_of(st.integers(-(2**65), 2**65), size.map(lambda n: b"x" * n), size.map(lambda n: ["y" * n]))
    return st.lists(
        st.one_of(
            st.tuples(st.just("send"), value),
            st.tuples(st.just("send_some"), st.lists(value, max_size=6)),
            st.tuples(st.just("receive"), st.just(1)),
            st.tuples(st.just("receive_some"), st.integers(0, 5)),
            st.tuples(st.just("drain"), st.just(0)),
        ),
        max_size=60,
    )


@sizes(100, 3000)
@pytest.mark.parametrize("capacity", [1, 3, math.inf])
def test_values_of_any_length_against_an_oracle(examples: int, capacity: float, opened: Open) -> None:
    """What is received is what a deque would give; full only if the number or the bytes say so."""

    @chosen(examples)
    @given(operations())
    def check(program: list[tuple[str, Any]]) -> None:
        tx, rx = open_process_channel(capacity, buffer_bytes=512)
        oracle: deque[Any] = deque()
        with tx, rx:
            for name, argument in program:
                if name in ("send", "send_some"):
                    values = [argument] if name == "send" else argument
                    try:
                        done = tx.send_some(values).poll() if name == "send_some" else tx.send_nowait(argument) or 1
                    except ChannelFull:
                        assert oracle
                        done = 0
                    assert len(oracle) + done <= capacity
                    oracle.extend(values[:done])
                elif name == "receive":
                    if oracle:
                        assert rx.receive_nowait() == oracle.popleft()
                    else:
                        with pytest.raises(ChannelEmpty):
                            rx.receive_nowait()
                else:
                    most = len(oracle) if name == "drain" else min(argument, len(oracle))
                    if name == "receive_some" and argument and not oracle:
                        continue
                    got = rx.drain() if name == "drain" else rx.receive_some(argument).poll()
                    assert got == [oracle.popleft() for _ in range(most)]
                assert len(tx) == len(oracle)
            tx.close()
            assert list(rx) == list(oracle)

    check()


@pytest.mark.parametrize("capacity", [1, 5, math.inf])
def test_positions_wrap_and_nobody_notices(opened: Open, capacity: float) -> None:
    """They begin a little before they do: both the position and the number of records go over it in here."""
    tx, rx = opened(capacity, buffer_bytes=512)
    chance = random.Random(3)
    oracle: deque[int] = deque()
    for n in range(3000):
        if chance.randrange(2):
            try:
                tx.send_nowait(n)
                oracle.append(n)
            except ChannelFull:
                assert len(oracle) == (capacity if capacity < math.inf else 64)
        elif oracle:
            assert rx.receive_nowait() == oracle.popleft()
        assert len(rx) == len(oracle) == rx.statistics().buffered


# ----------------------------------------------------------------- the same program on both kinds of channel
STEPS: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "send": lambda ends, n: ends["tx"][n % len(ends["tx"])].send(n).poll(),
    "send_nowait": lambda ends, n: ends["tx"][n % len(ends["tx"])].send_nowait(n),
    "send_some": lambda ends, n: ends["tx"][n % len(ends["tx"])].send_some([n] * (1 + n % 4)).poll(),
    "receive": lambda ends, n: ends["rx"][n % len(ends["rx"])].receive().poll(),
    "receive_nowait": lambda ends, n: ends["rx"][n % len(ends["rx"])].receive_nowait(),
    "receive_some": lambda ends, n: ends["rx"][n % len(ends["rx"])].receive_some(1 + n % 4).poll(),
    "drain": lambda ends, n: [end.drain() for end in ends["rx"] if not end.is_closed],
    "clone tx": lambda ends, n: ends["tx"].append(ends["tx"][n % len(ends["tx"])].clone()),
    "clone rx": lambda ends, n: ends["rx"].append(ends["rx"][n % len(ends["rx"])].clone()),
    "close tx": lambda ends, n: ends["tx"][n % len(ends["tx"])].close(KeyError(n) if n % 3 == 0 else None),
    "close rx": lambda ends, n: ends["rx"][n % len(ends["rx"])].close(),
    "closed": lambda ends, n: [end.is_closed for end in ends["tx"] + ends["rx"]],
}


def outcome(act: Callable[..., Any], *args: Any) -> Any:
    try:
        return act(*args)
    except ChannelClosed as error:
        return type(error), repr(error.cause)
    except ChannelError as error:
        return type(error)


@sizes(150, 5000)
def test_a_program_goes_as_on_an_open_channel(examples: int) -> None:
    """Nobody waits in it: what each step returns or raises is the same."""

    @chosen(examples)
    @given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from([*STEPS]), st.integers(0, 60)), max_size=40))
    def check(capacity: int, program: list[tuple[str, int]]) -> None:
        ends = []
        for make in (open_channel, open_process_channel):
            tx, rx = make(capacity)  # type: ignore[operator]
            ends.append({"tx": [tx], "rx": [rx]})
        try:
            for number, (name, n) in enumerate(program):
                expected, found = (outcome(STEPS[name], both, n) for both in ends)
                assert found == expected, (number, name, n)
        finally:
            for both in ends:
                for end in both["tx"] + both["rx"]:
                    end.close()

    check()


# ----------------------------------------------------------------- own serializers, briefly
def test_a_module_stands_in_for_pickle(opened: Open) -> None:
    class Json:
        dumps = staticmethod(lambda value: json.dumps(value).encode())
        loads = staticmethod(json.loads)

    tx, rx = opened(2, serializer=Json())
    tx.send_nowait({"a": [1, 2]})
    assert rx.receive_nowait() == {"a": [1, 2]}
