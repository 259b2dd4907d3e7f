"""The order in which a channel gives out what is inside: last in first out, and by priority.

A value that does not compare is refused, and a comparison that fails takes nothing with it: whatever goes wrong,
each value is either still the caller's, or inside, or received.
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import total_ordering
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import Handle, Pair, World, settle, settle_here, spawn, waiting

from chanlib import (
    Channel,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    Event,
    Op,
    after,
    select,
)

Order = Literal["fifo", "lifo", "priority"]
ORDERS: list[Order] = ["fifo", "lifo", "priority"]


async def parked_senders(ch: Channel[Any], *values: Any) -> list[Handle]:
    """One child for each value, waiting in this order."""
    children = []
    for value in values:
        children.append(spawn(ch.send, value))
        await settle(lambda: waiting(ch)[0] == len(children))
    return children


class Failed(Exception):
    """A comparison that was told to fail."""


class Touchy:
    """Compares by `rank`, with nothing but `<`; once it is spoilt its comparisons fail."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, rank: int, error: Exception | None = None) -> None:
        self.rank = rank
        self.error = error

    def __lt__(self, other: Touchy) -> bool:
        for each in (self, other):
            if each.error is not None:
                raise each.error
        return self.rank < other.rank

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a channel asks only for <")

    def __repr__(self) -> str:
        return f"Touchy({self.rank})"


def ranks(values: list[Touchy]) -> list[int]:
    return [value.rank for value in values]


# every way to take what is inside, until there is nothing left
async def by_receive(ch: Channel[Any]) -> list[Any]:
    return [await ch.receive() for _ in range(len(ch))]


async def by_receive_nowait(ch: Channel[Any]) -> list[Any]:
    return [ch.receive_nowait() for _ in range(len(ch))]


async def by_poll(ch: Channel[Any]) -> list[Any]:
    return [ch.receive().poll() for _ in range(len(ch))]


async def by_receive_some(ch: Channel[Any]) -> list[Any]:
    return await ch.receive_some(2) + await ch.receive_some()


async def by_drain(ch: Channel[Any]) -> list[Any]:
    return ch.drain()


async def by_select(ch: Channel[Any]) -> list[Any]:
    return [(await select(Event(), ch))[1] for _ in range(len(ch))]


async def by_async_for(ch: Channel[Any]) -> list[Any]:
    ch.close()
    return [value async for value in ch]


Take = Callable[[Channel[Any]], Awaitable[list[Any]]]
TAKES: list[Take] = [by_receive, by_receive_nowait, by_poll, by_receive_some, by_drain, by_select, by_async_for]
takes = pytest.mark.parametrize("take", TAKES)


# ----------------------------------------------------------------- last in, first out
@takes
def test_lifo_gives_what_came_last(world: World, take: Take) -> None:
    async def body() -> None:
        ch = Channel[int](5, order="lifo")
        for n in range(5):
            await ch.send(n)
        assert await take(ch) == [4, 3, 2, 1, 0]
        assert ch.statistics().received == 5

    world.run(body)


def test_lifo_of_what_comes_in_between(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](math.inf, order="lifo")
        await ch.send_all("ab")
        assert await ch.receive() == "b"
        assert await ch.send_some("cd") == 2
        assert await ch.receive() == "d"
        ch.send_nowait("e")
        assert await ch.receive_some() == ["e", "c", "a"]

    world.run(body)


def test_lifo_gives_to_a_waiting_receiver_at_once(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5, order="lifo")
        receivers = []
        for n in range(2):
            receivers.append(spawn(ch.receive))
            await settle(lambda n=n: waiting(ch) == (0, n + 1))
        assert await ch.send_some([1, 2, 3, 4]) == 4
        assert [await receiver.wait() for receiver in receivers] == [1, 2]
        assert ch.drain() == [4, 3]

    world.run(body)


@pytest.mark.parametrize("take", [by_receive, by_receive_some, by_drain])
def test_lifo_lets_waiting_senders_in_by_their_arrival(world: World, take: Take) -> None:
    async def body() -> None:
        ch = Channel[str](2, order="lifo")
        await ch.send_all("ab")
        senders = await parked_senders(ch, "c", "d")
        # b goes, c comes in and is the last; it goes, and d is
        assert await take(ch) + ch.drain() == ["b", "c", "d", "a"]
        for sender in senders:
            await sender.wait()

    world.run(body)


# ----------------------------------------------------------------- by priority
@takes
def test_priority_gives_the_smallest(world: World, take: Take) -> None:
    async def body() -> None:
        ch = Channel[int](5, order="priority")
        for n in (3, 1, 4, 0, 2):
            await ch.send(n)
        assert await take(ch) == [0, 1, 2, 3, 4]
        assert ch.statistics().received == 5

    world.run(body)


def test_priority_of_what_comes_in_between(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](math.inf, order="priority")
        await ch.send_all([5, 3, 9])
        assert await ch.receive() == 3
        await ch.send_all([4, 7])
        assert await ch.receive_some(2) == [4, 5]
        ch.send_nowait(1)
        assert ch.drain() == [1, 7, 9]

    world.run(body)


def test_of_equal_priority_the_first_in_is_the_first_out(world: World) -> None:
    """Only `<` is asked for, so what is neither less nor greater is equal."""

    async def body() -> None:
        ch = Channel[Touchy](math.inf, order="priority")
        values = [Touchy(n % 3) for n in range(30)]
        await ch.send_all(values)
        got = [await ch.receive() for _ in range(30)]
        assert [id(value) for value in got] == [id(value) for rank in range(3) for value in values[rank::3]]

    world.run(body)


def test_equal_ones_stay_in_order_while_others_come_and_go(world: World) -> None:
    async def body() -> None:
        ch = Channel[tuple[int, str]](math.inf, order="priority")
        values = [Touchy(1) for _ in range(6)]
        touchy = Channel[Touchy](math.inf, order="priority")
        for value in values:
            await touchy.send(value)
            await touchy.send(Touchy(0))
            assert (await touchy.receive()).rank == 0
        assert [id(value) for value in touchy.drain()] == [id(value) for value in values]
        await ch.send_all([(1, "b"), (0, "z"), (1, "a")])
        assert ch.drain() == [(0, "z"), (1, "a"), (1, "b")]

    world.run(body)


def test_values_that_compare_as_they_like_are_none_of_them_lost() -> None:
    """NaN is neither less than anything nor greater: some order comes out, with everything in it."""
    ch = Channel[float](math.inf, order="priority")
    values = [3.0, math.nan, 1.0, math.nan, 2.0, -math.inf, math.nan]
    for value in values:
        ch.send_nowait(value)
    assert sorted(map(repr, ch.drain())) == sorted(map(repr, values))


def test_waiting_senders_come_in_by_their_arrival_and_then_by_priority(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2, order="priority")
        await ch.send_all([5, 7])
        senders = await parked_senders(ch, 1, 9, 3)
        got = [await ch.receive() for _ in range(5)]
        assert got == [5, 1, 7, 3, 9]
        for sender in senders:
            await sender.wait()

    world.run(body)


def test_with_one_place_priority_is_the_order_of_arrival(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1, order="priority")
        await ch.send(5)
        senders = await parked_senders(ch, 1, 9, 3)
        assert await ch.receive_some() == [5, 1, 9, 3]
        for sender in senders:
            await sender.wait()

    world.run(body)


@pytest.mark.parametrize("order", ORDERS)
def test_on_a_rendezvous_every_order_is_that_of_arrival(world: World, order: Order) -> None:
    """There is no buffer to be ordered, so nothing is compared either."""

    async def body() -> None:
        ch = Channel[object](0, order=order)
        senders = await parked_senders(ch, 2, "one", None)
        assert [await ch.receive() for _ in range(3)] == [2, "one", None]
        for sender in senders:
            await sender.wait()

    world.run(body)


def test_a_waiting_receiver_gets_a_value_that_is_compared_with_nothing(world: World) -> None:
    async def body() -> None:
        ch = Channel[object](3, order="priority")
        receivers = [spawn(ch.receive), spawn(ch.receive)]
        await settle(lambda: waiting(ch) == (0, 2))
        ch.send_nowait(None)
        await ch.send(1j)
        assert {await receiver.wait() for receiver in receivers} == {None, 1j}

    world.run(body)


def test_an_empty_channel_takes_any_value_and_once_empty_any_other(world: World) -> None:
    async def body() -> None:
        ch = Channel[object](3, order="priority")
        for value in (None, 3, "three", 1j):
            await ch.send(value)
            assert await ch.receive() == value

    world.run(body)


def test_two_worlds_meet_on_a_channel_by_priority(pair: Pair) -> None:
    """As many at a time as fit: each chunk that is taken at once is sorted, and everything arrives."""
    ch = Channel[int](8, order="priority")

    async def produce() -> None:
        for n in range(300):
            await ch.send(n * 7919 % 301)
        ch.close()

    async def consume() -> list[int]:
        return [value async for value in ch]

    _, got = pair.run(produce, consume)
    assert sorted(got) == sorted(n * 7919 % 301 for n in range(300))
    assert waiting(ch) == (0, 0)


# ----------------------------------------------------------------- values that do not compare
async def send(ch: Channel[Any], value: Any) -> None:
    await ch.send(value)


async def send_nowait(ch: Channel[Any], value: Any) -> None:
    ch.send_nowait(value)


async def send_polled(ch: Channel[Any], value: Any) -> None:
    ch.send(value).poll()


async def send_some(ch: Channel[Any], value: Any) -> None:
    await ch.send_some([value, 0])


async def send_all(ch: Channel[Any], value: Any) -> None:
    await ch.send_all([value, 0])


async def send_selected(ch: Channel[Any], value: Any) -> None:
    await select(Event(), ch.send(value))


async def send_within(ch: Channel[Any], value: Any) -> None:
    await ch.send(value).within(60)


async def send_forced(ch: Channel[Any], value: Any) -> None:
    ch.force_send(value)


async def send_by_permit(ch: Channel[Any], value: Any) -> None:
    with await ch.reserve() as permit:
        try:
            permit.send(value)
        finally:
            assert permit.left == 1


Put = Callable[[Channel[Any], Any], Awaitable[None]]
WAITING_PUTS: list[Put] = [send, send_some, send_all, send_selected, send_within]
PUTS: list[Put] = [*WAITING_PUTS, send_nowait, send_polled, send_forced, send_by_permit]


@pytest.mark.parametrize("put", PUTS)
def test_a_value_that_does_not_compare_is_refused_and_nothing_is_lost(world: World, put: Put) -> None:
    async def body() -> None:
        ch = Channel[Any](5, order="priority")
        await ch.send_all([2, 1])
        with pytest.raises(TypeError, match=r"order='priority'.*compare.*'<' not supported"):
            await put(ch, "three")
        found = ch.statistics()
        assert (found.sent, found.buffered, found.dropped, found.waiting_senders) == (2, 2, 0, 0)
        await ch.send_all([0, 3, 4])  # all five places are there
        assert ch.drain() == [0, 1, 2, 3, 4]

    world.run(body)


@pytest.mark.parametrize("put", WAITING_PUTS)
def test_a_value_that_does_not_compare_is_refused_before_it_would_wait(world: World, put: Put) -> None:
    async def body() -> None:
        ch = Channel[Any](2, order="priority")
        await ch.send_all([2, 1])
        with pytest.raises(TypeError, match="order='priority'"):
            await put(ch, "three")
        assert waiting(ch) == (0, 0)
        assert ch.drain() == [1, 2]

    world.run(body)


def test_send_some_sends_what_comes_before_a_value_that_does_not_compare(world: World) -> None:
    async def body() -> None:
        ch = Channel[Any](5, order="priority")
        values = [3, 1, "two", 0]
        assert await ch.send_some(values) == 2
        with pytest.raises(TypeError, match="order='priority'"):
            await ch.send_some(values[2:])
        assert ch.drain() == [1, 3]

    world.run(body)


def test_send_all_stops_at_a_value_that_does_not_compare(world: World) -> None:
    async def body() -> None:
        for values in ([3, 1, "two", 0], iter([3, 1, "two", 0])):
            ch = Channel[Any](5, order="priority")
            with pytest.raises(TypeError, match="order='priority'"):
                await ch.send_all(values)
            assert ch.drain() == [1, 3]

    world.run(body)


def test_an_error_of_a_comparison_other_than_type_error_is_raised_as_it_is(world: World) -> None:
    async def body() -> None:
        ch = Channel[Touchy](5, order="priority")
        await ch.send(Touchy(1))
        failed = Failed("no")
        with pytest.raises(Failed) as caught:
            await ch.send(Touchy(2, failed))
        assert caught.value is failed
        assert ranks(ch.drain()) == [1]

    world.run(body)


def test_a_comparison_without_a_truth_value_refuses_the_value() -> None:
    """As arrays have it."""

    class Unclear:
        def __bool__(self) -> bool:
            raise ValueError("the truth value is ambiguous")

    class Array:
        def __lt__(self, other: object) -> Any:
            return Unclear()

    ch = Channel[Array](5, order="priority")
    first = Array()
    ch.send_nowait(first)
    with pytest.raises(ValueError, match="ambiguous"):
        ch.send_nowait(Array())
    assert ch.drain() == [first]


# ----------------------------------------------------------------- values that do not compare any more
@takes
def test_a_comparison_that_fails_in_a_receive_takes_nothing(world: World, take: Take) -> None:
    async def body() -> None:
        ch = Channel[Touchy](5, order="priority")
        values = [Touchy(rank) for rank in (1, 2, 3, 4)]
        await ch.send_all(values)
        for value in values[1:]:
            value.error = Failed("spoilt")
        with pytest.raises(Failed):
            await take(ch)
        found = ch.statistics()
        assert (found.sent, found.received, found.buffered) == (4, 0, 4)
        for value in values:
            value.error = None
        assert ranks(ch.drain()) == [1, 2, 3, 4]

    world.run(body)


@pytest.mark.parametrize("take", ["receive_some", "receive_some(3)", "drain", "poll", "select"])
def test_a_comparison_that_fails_half_way_through_many_takes_nothing_that_is_not_given(world: World, take: str) -> None:
    """What had been taken before the failure is in the result, or else still inside: never in neither."""

    async def attempt(ch: Channel[Touchy]) -> list[Touchy]:
        match take:
            case "receive_some":
                return await ch.receive_some()
            case "receive_some(3)":
                return await ch.receive_some(3)
            case "drain":
                return ch.drain()
            case "poll":
                return ch.receive_some().poll()
            case _:
                return (await select(Event(), ch.receive_some()))[1]

    async def body() -> None:
        ch = Channel[Touchy](7, order="priority")
        values = [Touchy(rank) for rank in (1, 2, 3, 4, 5, 6, 7)]
        await ch.send_all(values)
        values[5].error = Failed("spoilt")  # it is not compared as the first goes, but as the second does
        got: list[Touchy] = []

        async def take_all() -> None:
            while more := await attempt(ch):
                got.extend(more)

        with pytest.raises(Failed):
            await take_all()
        values[5].error = None
        got += ch.drain()
        assert sorted(ranks(got)) == [1, 2, 3, 4, 5, 6, 7]
        assert ch.statistics().received == 7

    world.run(body)


@pytest.mark.parametrize("put", WAITING_PUTS)
def test_a_waiting_sender_whose_value_no_longer_compares_gets_the_error(world: World, put: Put) -> None:
    """The receiver that makes room for it is not disturbed, and the next in line comes in."""

    async def body() -> None:
        ch = Channel[Any](2, order="priority")
        await ch.send_all([Touchy(1), Touchy(3)])
        spoilt = Touchy(0)
        sender = spawn(put, ch, spoilt)
        await settle(lambda: waiting(ch) == (1, 0))
        (behind,) = await parked_senders_behind(ch, 1, Touchy(2))
        spoilt.error = Failed("spoilt")
        assert (await ch.receive()).rank == 1
        with pytest.raises(Failed):
            await sender.wait()
        await behind.wait()
        assert waiting(ch) == (0, 0)
        assert ranks(ch.drain()) == [2, 3]
        found = ch.statistics()
        assert (found.sent, found.received, found.dropped) == (3, 3, 0)

    world.run(body)


async def parked_senders_behind(ch: Channel[Any], others: int, *values: Any) -> list[Handle]:
    children: list[Handle] = []
    for value in values:
        children.append(spawn(ch.send, value))
        await settle(lambda: waiting(ch)[0] == others + len(children))
    return children


def test_a_waiting_senders_value_of_another_type_by_now_is_refused_like_any_other(world: World) -> None:
    async def body() -> None:
        ch = Channel[list[Any]](2, order="priority")
        await ch.send_all([[1], [3]])
        value: list[Any] = [2]
        sender = spawn(ch.send, value)
        await settle(lambda: waiting(ch) == (1, 0))
        value[0] = "two"
        assert await ch.receive() == [1]
        with pytest.raises(TypeError, match="order='priority'"):
            await sender.wait()
        assert ch.drain() == [[3]]

    world.run(body)


def test_a_spoilt_value_is_received_once_it_need_not_be_compared(world: World) -> None:
    async def body() -> None:
        ch = Channel[Touchy](5, order="priority")
        good, bad = Touchy(1), Touchy(2)
        await ch.send_all([good, bad])
        bad.error = Failed("spoilt")
        assert await ch.receive() is good  # of two nothing is left to compare
        with pytest.raises(Failed):
            await ch.send(Touchy(0))
        assert await ch.receive() is bad
        await ch.send(Touchy(0))
        assert ranks(ch.drain()) == [0]

    world.run(body)


def test_a_channel_with_a_spoilt_value_can_be_closed_and_cancelled(world: World) -> None:
    async def body() -> None:
        gone: list[Touchy] = []
        ch = Channel[Touchy](5, order="priority", on_undelivered=gone.append)
        values = [Touchy(3), Touchy(1), Touchy(2)]
        await ch.send_all(values)
        values[0].error = Failed("spoilt")
        ch.close()
        assert len(ch) == 3
        ch.cancel()
        assert ranks(gone) == [3, 1, 2]

    world.run(body)


def test_a_send_that_times_out_while_its_value_is_compared_tells_the_truth() -> None:
    """A thread whose time is over while the channel compares its value: sent means that it is inside.

    The comparison stands still until the sender has gone, or for a second, should the sender wait for it.
    """
    for limit in (0.2, 1.0, 5.0):  # it should still be waiting when it is found there, also on a busy machine
        if told_and_inside(limit):
            break
    else:
        pytest.fail("the comparison never met a waiting sender")


def told_and_inside(limit: float) -> bool:
    """One attempt: False if the sender was gone before its value was compared."""
    sender_over, comparing = threading.Event(), threading.Event()
    held_up = False

    class Slow(Touchy):
        def __lt__(self, other: Touchy) -> bool:
            if held_up and threading.current_thread() is receiver:
                comparing.set()
                sender_over.wait(1.0)
                raise Failed("the comparison")
            return super().__lt__(other)

    ch = Channel[Touchy](2, order="priority")
    first, second, third = Slow(1), Slow(2), Slow(3)
    ch.send_all([first, second]).sync()
    outcome: list[object] = []
    got: list[object] = []

    def send() -> None:
        try:
            outcome.append(ch.send(third).sync(limit))
        except (Failed, TimeoutError) as error:
            outcome.append(error)
        finally:
            sender_over.set()

    sender = threading.Thread(target=send, daemon=True)
    receiver = threading.Thread(target=lambda: got.append(ch.receive_nowait()), daemon=True)
    sender.start()
    settle_here(lambda: waiting(ch) == (1, 0) or sender_over.is_set())
    held_up = True
    receiver.start()
    for thread in (sender, receiver):
        thread.join(20)
        assert not thread.is_alive()
    held_up = False
    assert got[0] is first
    inside = ranks(ch.drain())
    if outcome == [None]:
        assert inside == [2, 3]
    else:
        assert isinstance(outcome[0], (Failed, TimeoutError))
        assert inside == [2]
    return comparing.is_set()


# ----------------------------------------------------------------- what is the same in every order
@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_what_is_discarded_is_told_in_the_order_of_arrival(world: World, order: Order) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](5, order=order, on_undelivered=gone.append)
        await ch.send_all([3, 1, 5, 2])
        ch.cancel()
        assert gone == [3, 1, 5, 2]
        assert ch.statistics().dropped == 4

    world.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_a_closed_channel_is_drained_in_its_order(world: World, order: Order) -> None:
    async def body() -> None:
        ch = Channel[int](5, order=order)
        await ch.send_all([2, 3, 1])
        ch.close()
        assert [n async for n in ch] == {"lifo": [1, 3, 2], "priority": [1, 2, 3]}[order]
        with pytest.raises(EndOfChannel):
            await ch.receive()

    world.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_capacity_length_and_statistics_in_every_order(world: World, order: Order) -> None:
    async def body() -> None:
        ch = Channel[int](3, order=order)
        await ch.send_all([1, 2, 3])
        with pytest.raises(ChannelFull):
            ch.send_nowait(0)
        assert len(ch) == 3
        assert ch.statistics() == (3, 3, 0, 0, None, None, 3, 0, 0, 3)
        await ch.receive()
        assert len(ch) == 2
        assert ch.statistics() == (3, 2, 0, 0, None, None, 3, 1, 0, 3)
        ch.drain()
        with pytest.raises(ChannelEmpty):
            ch.receive_nowait()

    world.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_a_value_that_a_cancelled_receive_gives_back_is_the_next(aio: World, order: Order) -> None:
    """Whatever the order: it had left the channel already, so it comes before what is in it."""

    async def body() -> None:
        ch = Channel[int](5, order=order)
        task = asyncio.ensure_future(ch.receive())
        await settle(lambda: waiting(ch) == (0, 1))
        ch.send_nowait(5)  # the task has it, and must not run before it is cancelled: nothing is awaited
        ch.send_nowait(7)
        ch.send_nowait(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ch.drain() == [5, *{"lifo": [1, 7], "priority": [1, 7]}[order]]

    aio.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_a_timed_out_sender_leaves_nothing(world: World, order: Order) -> None:
    async def body() -> None:
        ch = Channel[int](1, order=order)
        await ch.send(2)
        with pytest.raises(TimeoutError):
            await ch.send(1).within(0.001)
        assert waiting(ch) == (0, 0)
        assert await ch.receive_some() == [2]

    world.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_no_value_is_kept_that_has_been_received(order: Order) -> None:
    @total_ordering
    class Value:
        def __lt__(self, other: object) -> bool:
            return id(self) < id(other)

    ch = Channel[Value](5, order=order)
    values = [Value() for _ in range(5)]
    gone = [weakref.ref(value) for value in values]
    for value in values:
        ch.send_nowait(value)
    values.clear()
    del value
    ch.drain()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 5


@pytest.mark.parametrize("order", ["LIFO", "", None, 3, []])
def test_an_unknown_order_is_refused_by_name(order: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"order must be one of 'fifo', 'lifo', 'priority', not "):
        Channel[int](1, order=order)


# ----------------------------------------------------------------- against a model
Step = tuple[str, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5)),
        st.tuples(st.just("some"), st.integers(0, 5)),
        st.tuples(st.just("receive"), st.just(0)),
        st.tuples(st.just("receive_some"), st.integers(0, 4)),
    ),
    max_size=60,
)


class Tagged:
    """A rank to compare by, and a number to be told apart by."""

    def __init__(self, rank: int, number: int) -> None:
        self.rank, self.number = rank, number

    def __lt__(self, other: Tagged) -> bool:
        return self.rank < other.rank


def next_of(order: Order, inside: list[Tagged]) -> Tagged:
    place = {"fifo": 0, "lifo": -1}.get(order)
    if place is None:
        place = min(range(len(inside)), key=lambda n: (inside[n].rank, inside[n].number))
    return inside.pop(place)


@pytest.mark.parametrize("order", ORDERS)
@given(capacity=st.sampled_from([1, 2, 5, 20, math.inf]), script=steps)
def test_any_sequence_of_operations_gives_what_a_list_gives(order: Order, capacity: float, script: list[Step]) -> None:
    ch = Channel[Tagged](capacity, order=order)
    inside: list[Tagged] = []
    number = 0
    for kind, n in script:
        if kind in ("send", "some"):
            values = [Tagged(n + k, number + k) for k in range(1 if kind == "send" else n)]
            number += len(values)
            fits = values[: int(min(capacity - len(inside), len(values)))]
            if kind == "some":
                if fits or not values:
                    assert ch.send_some(values).poll() == len(fits)
            elif fits:
                ch.send_nowait(values[0])
            else:
                with pytest.raises(ChannelFull):
                    ch.send_nowait(values[0])
            inside += fits
        elif inside and kind == "receive":
            assert ch.receive_nowait() is next_of(order, inside)
        elif inside:
            expected = [next_of(order, inside) for _ in range(min(n, len(inside)))]
            assert [id(v) for v in ch.receive_some(n).poll()] == [id(v) for v in expected]
        assert len(ch) == len(inside)
    expected = [next_of(order, inside) for _ in range(len(inside))]
    assert [id(v) for v in ch.drain()] == [id(v) for v in expected]


@given(st.lists(st.tuples(st.integers(0, 4), st.text(max_size=2))))
def test_priority_is_a_stable_sort(values: list[tuple[int, str]]) -> None:
    ch = Channel[Tagged](math.inf, order="priority")
    tagged = [Tagged(rank, number) for number, (rank, _) in enumerate(values)]
    for value in tagged:
        ch.send_nowait(value)
    assert [v.number for v in ch.drain()] == [v.number for v in sorted(tagged, key=lambda v: v.rank)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.data())
def test_whichever_comparison_fails_nothing_is_lost(values: list[int], data: st.DataObject) -> None:
    """One comparison of all that a run makes fails: of a send, its value is refused; of a receive, nothing happens."""
    left = data.draw(st.integers(0, 60))

    class Fickle(Tagged):
        def __lt__(self, other: Tagged) -> bool:
            nonlocal left
            left -= 1
            if left == -1:
                raise Failed
            return super().__lt__(other)

    ch = Channel[Fickle](math.inf, order="priority")
    taken: list[Fickle] = []
    for number, rank in enumerate(values):
        value = Fickle(rank, number)
        try:
            ch.send_nowait(value)
        except Failed:
            ch.send_nowait(value)
        if data.draw(st.booleans()):
            try:
                taken.append(ch.receive_nowait())
            except Failed:
                taken.append(ch.receive_nowait())
    rest: list[Fickle] = []
    while len(ch):
        try:
            rest.append(ch.receive_nowait())
        except Failed:
            continue
    assert [(v.rank, v.number) for v in rest] == sorted((v.rank, v.number) for v in rest)
    assert sorted(v.number for v in taken + rest) == list(range(len(values)))


def test_a_select_takes_in_the_order_of_its_channel(world: World) -> None:
    async def body() -> None:
        quiet = Channel[int](0)
        by_rank = Channel[int](3, order="priority")
        await by_rank.send_all([3, 1, 2])
        op: Op[tuple[int, int]] = select(quiet, by_rank, after(60))  # type: ignore[assignment]
        assert await op == (1, 1)
        assert by_rank.drain() == [2, 3]

    world.run(body)
