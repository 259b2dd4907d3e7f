"""What a channel does while it is open. Its end: `test_close`. Crowds: `test_channel_mixed`."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import overload

import pytest
from worlds import ALL, Handle, Pair, World, settle, spawn, waiting

from chanlib import (
    Channel,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    ReceiveSide,
    SendSide,
    after,
    select,
)


# ----------------------------------------------------------------- sending and receiving
@pytest.mark.parametrize("value", [None, False, (), Ellipsis, StopIteration(3), ValueError])
def test_any_value_may_be_sent(world: World, value: object) -> None:
    async def body() -> None:
        for capacity in (0, 1):
            ch = Channel[object](capacity)
            sending = spawn(ch.send, value)
            assert await ch.receive() is value
            assert await sending.wait() is None

    world.run(body)


def test_values_are_received_in_the_order_in_which_they_were_sent(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        for n in range(5):
            await ch.send(n)
        assert [await ch.receive() for _ in range(5)] == [0, 1, 2, 3, 4]

    world.run(body)


def test_a_send_waits_once_the_capacity_is_used_up(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        await ch.send(0)
        await ch.send(1)
        third = spawn(ch.send, 2)
        await settle(lambda: waiting(ch) == (1, 0))
        assert not third.done
        assert await ch.receive() == 0
        await third.wait()
        assert len(ch) == 2
        assert ch.drain() == [1, 2]

    world.run(body)


def test_an_unbounded_channel_never_makes_a_sender_wait(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](math.inf)
        for n in range(1000):
            await ch.send(n)
        assert len(ch) == 1000
        assert ch.drain() == list(range(1000))

    world.run(body)


@pytest.mark.parametrize("capacity", [math.inf, 10**18, 3.0])
def test_a_huge_capacity_allocates_nothing_ahead(capacity: float) -> None:
    ch = Channel[int](capacity)
    ch.send_nowait(1)
    assert ch.receive_nowait() == 1
    assert ch.capacity == capacity


def test_a_rendezvous_send_returns_only_after_a_receiver_took_the_value(pair: Pair) -> None:
    ch = Channel[int](0)
    log: list[str] = []

    async def produce() -> None:
        for n in range(50):
            await settle(lambda n=n: log.count("asked") == n)
            sending = spawn(ch.send, n)
            await settle(lambda: waiting(ch) == (1, 0))
            assert not sending.done
            log.append("offered")
            await sending.wait()
            assert log.count("asked") == n + 1
            assert len(ch) == 0

    async def consume() -> None:
        for n in range(50):
            await settle(lambda n=n: log.count("offered") == n + 1)
            log.append("asked")
            assert await ch.receive() == n

    pair.run(produce, consume)
    assert ch.statistics().peak == 0
    assert ch.statistics().received == 50


def test_a_rendezvous_holds_nothing_and_meets_whoever_comes_first(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](0)
        with pytest.raises(ChannelFull):
            ch.send_nowait("x")
        receiving = spawn(ch.receive)
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        ch.send_nowait("first")
        assert await receiving.wait() == "first"
        sending = spawn(ch.send, "second")
        await settle(lambda: ch.statistics().waiting_senders == 1)
        assert ch.receive_nowait() == "second"
        await sending.wait()

    world.run(body)


@pytest.mark.parametrize("capacity", [0, 2])
def test_waiting_senders_are_served_in_the_order_of_their_arrival(world: World, capacity: int) -> None:
    async def body() -> None:
        ch = Channel[int](capacity)
        for n in range(capacity):
            await ch.send(n)
        senders: list[Handle] = []
        for n in range(capacity, capacity + 4):
            way = select(ch.send(n), after(60)) if n % 2 else ch.send(n)
            senders.append(spawn(lambda way=way: way))
            await settle(lambda: ch.statistics().waiting_senders == len(senders))
        assert [await ch.receive() for _ in range(capacity + 4)] == [*range(capacity + 4)]
        for sender in senders:
            await sender.wait()

    world.run(body)


def test_waiting_receivers_of_every_kind_are_served_in_the_order_of_their_arrival(
    world: World,
) -> None:
    async def body() -> None:
        ch = Channel[int](4)
        got: dict[str, object] = {}

        async def keep(name: str, op: object) -> None:
            got[name] = await op  # type: ignore[misc]

        kinds = {
            "receive": ch.receive(),
            "some": ch.receive_some(),
            "select": select(after(60), ch),
            "within": ch.receive().within(60),
            "map": ch.receive().map(lambda n: -n),
        }
        children = []
        for name, op in kinds.items():
            children.append(spawn(keep, name, op))
            await settle(lambda: waiting(ch) == (0, len(children)))
        for n in range(1, 6):
            await ch.send(n)
        for child in children:
            await child.wait()
        assert got == {"receive": 1, "some": [2], "select": (1, 3), "within": 4, "map": -5}
        assert waiting(ch) == (0, 0)

    world.run(body)


def test_two_sides_in_any_two_worlds_pass_a_thousand_values(pair: Pair) -> None:
    for capacity in (0, 1, 7, math.inf):
        ch = Channel[int](capacity)

        async def produce(ch: Channel[int] = ch) -> None:
            for n in range(250):
                await ch.send(n)
            ch.close()

        async def consume(ch: Channel[int] = ch) -> list[int]:
            return [value async for value in ch]

        assert pair.run(produce, consume)[1] == list(range(250))
        assert waiting(ch) == (0, 0)


def test_a_channel_outlives_the_loop_it_was_used_in() -> None:
    ch = Channel[int](1)  # made before any loop
    ch.send_nowait(0)
    for n, world in enumerate(ALL.values()):

        async def body(n: int = n) -> None:
            assert await ch.receive() == n
            await ch.send(n + 1)

        if world.name != "uvloop":
            world.run(body)
        else:
            assert ch.receive_nowait() == n
            ch.send_nowait(n + 1)
    assert ch.receive_nowait() == len(ALL)


# ----------------------------------------------------------------- without waiting
def test_send_nowait_is_refused_when_full_and_changes_nothing(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1, name="jobs")
        ch.send_nowait(1)
        with pytest.raises(ChannelFull, match="'jobs'"):
            ch.send_nowait(2)
        assert ch.drain() == [1]

    world.run(body)


def test_send_nowait_does_not_pass_senders_that_wait(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.send_nowait(1)
        sending = spawn(ch.send, 2)
        await settle(lambda: waiting(ch) == (1, 0))
        assert ch.receive_nowait() == 1
        with pytest.raises(ChannelFull):
            ch.send_nowait(3)
        assert ch.drain() == [2]
        await sending.wait()

    world.run(body)


def test_receive_nowait_is_refused_when_empty(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1, name="jobs")
        with pytest.raises(ChannelEmpty, match="'jobs'"):
            ch.receive_nowait()
        ch.send_nowait(1)
        assert ch.receive_nowait() == 1

    world.run(body)


# ----------------------------------------------------------------- many at a time
def test_send_some_sends_the_prefix_there_is_room_for(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        assert await ch.send_some([0, 1]) == 2
        assert await ch.send_some((2, 3, 4)) == 1
        assert ch.drain() == [0, 1, 2]

    world.run(body)


def test_send_some_waits_until_there_is_room_for_one(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        assert await ch.send_some(range(2)) == 2
        some = spawn(ch.send_some, [2, 3])
        await settle(lambda: waiting(ch) == (1, 0))
        assert await ch.receive() == 0
        assert await some.wait() == 1
        assert ch.drain() == [1, 2]

    world.run(body)


def test_send_some_serves_waiting_receivers_first(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        receivers = []
        for n in range(2):
            receivers.append(spawn(ch.receive))
            await settle(lambda n=n: waiting(ch) == (0, n + 1))
        assert await ch.send_some([10, 11, 12]) == 2
        assert [await r.wait() for r in receivers] == [10, 11]

    world.run(body)


class Countdown(Sequence[int]):
    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return (3, 2, 1)[index]

    def __len__(self) -> int:
        return 3


def test_send_some_takes_any_sequence_and_sees_what_it_was_when_it_was_made() -> None:
    ch = Channel[int](math.inf)
    assert ch.send_some(Countdown()).poll() == 3
    assert ch.send_some(range(0)).poll() == 0
    assert Channel[str](2).send_some("abc").poll() == 2
    assert ch.drain() == [3, 2, 1]


def test_nothing_to_do_is_done_at_once_even_where_it_would_wait(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        assert await ch.send_some([]) == 0
        assert await ch.receive_some(0) == []
        assert ch.drain() == []
        await ch.send_all([])

    world.run(body)


def test_receive_some_takes_what_is_there_up_to_max(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](10)
        await ch.send_all(range(7))
        assert await ch.receive_some(3) == [0, 1, 2]
        assert await ch.receive_some() == [3, 4, 5, 6]

    world.run(body)


def test_receive_some_takes_from_waiting_senders_too(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.send_nowait(0)
        senders = []
        for n in (1, 2):
            senders.append(spawn(ch.send, n))
            await settle(lambda n=n: waiting(ch) == (n, 0))
        assert await ch.receive_some() == [0, 1, 2]
        for sender in senders:
            await sender.wait()

    world.run(body)


def test_receive_some_waits_for_the_first(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        some = spawn(ch.receive_some)
        await settle(lambda: waiting(ch) == (0, 1))
        assert await ch.send_some([1, 2]) == 2
        assert await some.wait() == [1]
        assert ch.drain() == [2]

    world.run(body)


@pytest.mark.parametrize("capacity", [0, 1, 7, 1000])
def test_send_all_sends_all_of_any_iterable(pair: Pair, capacity: int) -> None:
    ch = Channel[int](capacity)

    async def produce() -> None:
        await ch.send_all(n for n in range(200))
        ch.close()

    async def consume() -> list[int]:
        got: list[int] = []
        try:
            while True:
                got += await ch.receive_some()
        except EndOfChannel:
            return got

    assert pair.run(produce, consume)[1] == list(range(200))


def test_send_all_in_a_plain_thread_is_sync() -> None:
    ch = Channel[int](200)
    ch.send_all(range(200)).sync()
    assert ch.drain() == list(range(200))


def test_send_all_asks_its_iterable_for_little_more_than_there_is_room_for(world: World) -> None:
    asked: list[int] = []

    def values() -> object:
        for n in range(1000):
            asked.append(n)
            yield n

    async def body() -> None:
        ch = Channel[int](1)
        sending = spawn(ch.send_all, values())
        await settle(lambda: waiting(ch) == (1, 0))
        assert len(asked) < 100
        got = [await ch.receive() for _ in range(1000)]
        await sending.wait()
        assert got == asked == list(range(1000))

    world.run(body)


def test_drain_takes_the_buffer_and_what_waiting_senders_offer(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        assert ch.drain() == []
        await ch.send(0)
        senders = []
        for n in (1, 2, 3):
            senders.append(spawn(ch.send, n))
            await settle(lambda n=n: waiting(ch) == (n, 0))
        assert ch.drain() == [0, 1, 2, 3]
        for sender in senders:
            await sender.wait()
        assert ch.drain() == []

    world.run(body)


# ----------------------------------------------------------------- looking
def test_len_is_what_is_buffered_and_a_channel_is_always_true() -> None:
    ch = Channel[int](3)
    assert len(ch) == 0
    assert ch
    ch.send_nowait(1)
    assert len(ch) == 1
    ch.cancel()
    assert ch


def test_in_is_a_type_error_since_looking_would_be_receiving() -> None:
    ch = Channel[int](1)
    ch.send_nowait(1)
    with pytest.raises(TypeError, match="channel"):
        1 in ch  # noqa: B015
    assert len(ch) == 1


def test_statistics_of_a_channel(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        assert ch.statistics() == (3, 0, 0, 0, None, None, 0, 0, 0, 0)
        await ch.send_all(range(3))
        sending = spawn(ch.send, 3)
        await settle(lambda: ch.statistics().waiting_senders == 1)
        found = ch.statistics()
        assert (found.capacity, found.buffered, found.peak) == (3, 3, 3)
        assert (found.sent, found.received, found.dropped) == (3, 0, 0)
        ch.drain()
        await sending.wait()
        receiving = spawn(ch.receive)
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        found = ch.statistics()
        assert (found.sent, found.received, found.buffered, found.peak) == (4, 4, 0, 3)
        await ch.send(4)
        await receiving.wait()
        await ch.send(5)
        ch.cancel()
        found = ch.statistics()
        assert (found.sent, found.received, found.dropped) == (6, 5, 1)
        assert (found.waiting_senders, found.waiting_receivers) == (0, 0)

    world.run(body)


def test_repr_tells_name_fill_and_end() -> None:
    ch = Channel[int](2, name="jobs")
    assert ch.name == "jobs"
    assert repr(ch) == "<Channel 'jobs' 0/2>"
    ch.send_nowait(1)
    assert repr(ch) == "<Channel 'jobs' 1/2>"
    ch.close()
    assert "closed" in repr(ch)
    ch.cancel()
    assert "cancelled" in repr(ch)
    nameless, other = Channel[int](math.inf), Channel[int](math.inf)
    assert nameless.name is None
    assert repr(nameless) != repr(other)
    assert "inf" in repr(nameless)


def test_a_channel_is_itself_and_may_be_hashed_and_weakly_referenced() -> None:
    one, other = Channel[int](1), Channel[int](1)
    assert one != other
    assert len({one, other}) == 2
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_a_channel_keeps_no_value_that_has_been_received(world: World) -> None:
    class Value:
        pass

    async def body() -> None:
        ch = Channel[Value](1)
        value = Value()
        gone = weakref.ref(value)
        sending = spawn(ch.send, value)
        del value
        await sending.wait()
        sending.args = ()
        del sending
        assert isinstance(await ch.receive(), Value)
        await settle(lambda: gc.collect() >= 0 and gone() is None)

    world.run(body)


# ----------------------------------------------------------------- views
def test_the_views_have_one_direction_each(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5, name="jobs")
        tx, rx = ch.sender(), ch.receiver()
        for method in ("receive", "receive_nowait", "receive_some", "drain", "__iter__", "__op__"):
            assert not hasattr(tx, method)
        for method in ("send", "send_nowait", "send_some", "send_all"):
            assert not hasattr(rx, method)
        await tx.send(0)
        tx.send_nowait(1)
        assert await tx.send_some([2]) == 1
        await tx.send_all([3, 4])
        assert tx.statistics() == rx.statistics() == ch.statistics()
        assert await rx.receive() == 0
        assert rx.receive_nowait() == 1
        assert await rx.receive_some(2) == [2, 3]
        assert await select(None, rx) == (1, 4)
        assert rx.drain() == []
        assert "jobs" in repr(tx)
        assert "jobs" in repr(rx)
        closing = spawn(rx.wait_closed)
        await tx.send(5)
        assert tx.close() is True
        assert tx.is_closed
        assert rx.is_closed
        await closing.wait()
        await tx.wait_closed()
        assert [n async for n in rx] == [5]
        assert rx.cancel() is True

    world.run(body)


def test_a_receive_view_iterates_in_a_plain_thread() -> None:
    ch = Channel[int](3)
    ch.sender().send_all(range(3)).sync()
    ch.sender().close()
    assert list(ch.receiver()) == [0, 1, 2]


def test_a_channel_and_its_views_satisfy_the_protocols_of_their_sides() -> None:
    ch = Channel[int](1)
    assert isinstance(ch, SendSide)
    assert isinstance(ch, ReceiveSide)
    assert isinstance(ch.sender(), SendSide)
    assert not isinstance(ch.sender(), ReceiveSide)
    assert isinstance(ch.receiver(), ReceiveSide)
    assert not isinstance(ch.receiver(), SendSide)
