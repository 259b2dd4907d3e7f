"""Broadcast: every subscriber gets every value from its subscription on.

Behaviour follows tokio's `broadcast` tests (lag, close, subscribing late) and Kotlin's `SharedFlow` tests (waiting
for the slowest, replay); the docstring of a test names which, where it follows one.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import weakref
from collections import Counter
from typing import Any

import pytest
from values import Last, Thing
from worlds import (
    ALL,
    REARMS,
    ChildCancelled,
    Pair,
    World,
    collect,
    fail_in,
    parked,
    run_together,
    settle,
    settle_here,
    spawn,
    waiting,
)

from chanlib import (
    Broadcast,
    BrokenChannel,
    Channel,
    ChannelEmpty,
    ChannelError,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    Lagged,
    ReceiveSide,
    Subscription,
    WouldBlock,
    never,
    select,
)
from chanlib.sides import SendSide

CAPACITIES = pytest.mark.parametrize("capacity", [1, 2, 3, 16])


def taken(subscription: Subscription[Any]) -> list[Any]:
    """All that can be received now, errors in words, up to where it would have to wait or is over."""
    found: list[Any] = []
    while True:
        try:
            found.append(subscription.receive_nowait())
        except Lagged as error:
            found.append(f"missed {error.missed}")
        except ChannelEmpty:
            return found
        except EndOfChannel:
            return [*found, "end"]
        except BrokenChannel:
            return [*found, "broken"]
        except HandleClosed:
            return [*found, "closed"]


def full(capacity: int, **options: Any) -> tuple[Broadcast[Any], Subscription[Any]]:
    """A broadcast whose senders have to wait, and the subscriber that they wait for."""
    broadcast = Broadcast[Any](capacity, overflow="wait", **options)
    slow = broadcast.subscribe()
    for n in range(capacity):
        broadcast.send_nowait(n)
    return broadcast, slow


# ----------------------------------------------------------------- everything to everybody
def test_every_subscriber_gets_everything_from_its_subscription_on(world: World) -> None:
    """tokio: broadcast, `send_two_recv`."""

    async def body() -> None:
        broadcast = Broadcast[int](8)
        first = broadcast.subscribe()
        await broadcast.send(1)
        second = broadcast.subscribe()
        await broadcast.send(2)
        third = broadcast.subscribe()
        await broadcast.send(3)
        assert [await first.receive() for _ in range(3)] == [1, 2, 3]
        assert [await second.receive() for _ in range(2)] == [2, 3]
        assert await third.receive() == 3
        assert [taken(each) for each in (first, second, third)] == [[], [], []]

    world.run(body)


def test_one_send_wakes_a_receiver_of_every_subscription(world: World) -> None:
    """tokio: broadcast, `send_two_recv`, where both wait."""

    async def body() -> None:
        broadcast = Broadcast[str](1)
        subscriptions = [broadcast.subscribe() for _ in range(4)]
        receiving = [spawn(each.receive) for each in subscriptions]
        await parked(broadcast, receivers=4)
        await broadcast.send("a")
        assert [await each.wait() for each in receiving] == ["a"] * 4
        assert waiting(broadcast) == (0, 0)

    world.run(body)


def test_subscribers_in_another_world_get_everything_in_order(pair: Pair) -> None:
    broadcast = Broadcast[int](3, overflow="wait")
    subscriptions = [broadcast.subscribe() for _ in range(3)]

    async def produce() -> None:
        for n in range(100):
            await broadcast.send(n)
        broadcast.close()

    async def collect(subscription: Subscription[int]) -> list[int]:
        return [n async for n in subscription]

    async def consume() -> list[list[int]]:
        children = [spawn(collect, each) for each in subscriptions]
        return [await child.wait() for child in children]

    assert pair.run(produce, consume) == (None, [list(range(100))] * 3)
    assert waiting(broadcast) == (0, 0)


def test_subscribers_of_all_worlds_see_one_order_of_several_senders() -> None:
    broadcast = Broadcast[tuple[int, int]](4, overflow="wait")
    subscriptions = [broadcast.subscribe() for _ in range(3)]

    async def collect(subscription: Subscription[Any]) -> list[Any]:
        return [item async for item in subscription]

    async def produce() -> None:
        async def send(sender: int) -> None:
            for n in range(40):
                await broadcast.send((sender, n))

        for child in [spawn(send, sender) for sender in range(4)]:
            await child.wait()
        broadcast.close()

    names = ("asyncio", "trio", "threads")
    consumers = [(ALL[name], collect, each) for name, each in zip(names, subscriptions, strict=True)]
    *orders, _ = run_together(*consumers, (ALL["threads"], produce))
    assert orders[0] == orders[1] == orders[2]
    for sender in range(4):
        assert [n for who, n in orders[0] if who == sender] == list(range(40))


def test_sending_to_nobody_succeeds_and_nobody_sees_it_later(world: World) -> None:
    """Kotlin: SharedFlowTest, emit without subscribers. Unlike tokio, where it is an error."""

    async def body() -> None:
        for overflow in ("lag", "wait"):
            broadcast = Broadcast[int](1, overflow=overflow)
            for n in range(5):
                await broadcast.send(n)
                broadcast.send_nowait(n)
            assert broadcast.statistics().sent == 10
            assert broadcast.statistics().buffered == 0
            assert taken(broadcast.subscribe()) == []

    world.run(body)


def test_any_value_may_be_sent() -> None:
    broadcast = Broadcast[Any](8)
    mine = broadcast.subscribe()
    values = [None, False, 0, (), ChannelEmpty, ValueError("not raised")]
    for value in values:
        broadcast.send_nowait(value)
    assert taken(mine) == values


def test_sides_fit_the_protocols_and_are_always_true() -> None:
    broadcast = Broadcast[int](1)
    mine = broadcast.subscribe()
    assert isinstance(broadcast, SendSide)
    assert isinstance(mine, ReceiveSide)
    assert mine
    assert len(mine) == 0
    broadcast.send_nowait(1)
    assert len(mine) == 1


def test_for_in_a_plain_thread() -> None:
    broadcast = Broadcast[int](4)
    mine = broadcast.subscribe()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(mine))
    thread.start()
    settle_here(lambda: waiting(broadcast) == (0, 1))
    for n in range(3):
        broadcast.send(n).sync()
    broadcast.close()
    thread.join()
    assert got == [0, 1, 2]


def test_for_in_the_thread_of_a_loop_is_refused_and_takes_nothing(loop_world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        mine = broadcast.subscribe()
        broadcast.send_nowait(1)
        with pytest.raises(RuntimeError, match=r"subscription.*async for"):
            for _ in mine:
                pass
        assert taken(mine) == [1]

    loop_world.run(body)


# ----------------------------------------------------------------- lag
@CAPACITIES
def test_who_is_no_more_than_the_capacity_behind_misses_nothing(capacity: int) -> None:
    """tokio: broadcast, `lagging_rx`, where the capacity is rounded up; here it is exact."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    for start in range(0, 5 * capacity, capacity):
        for n in range(start, start + capacity):
            broadcast.send_nowait(n)
        assert taken(mine) == list(range(start, start + capacity))


@CAPACITIES
@pytest.mark.parametrize("over", [1, 2, 5, 40])
def test_what_was_missed_is_told_once_and_the_oldest_that_is_left_comes_next(capacity: int, over: int) -> None:
    """tokio: broadcast, `lagging_rx`."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    for n in range(capacity + over):
        broadcast.send_nowait(n)
    assert taken(mine) == [f"missed {over}", *range(over, over + capacity)]


@CAPACITIES
def test_lagging_starts_at_what_had_been_received(capacity: int) -> None:
    """tokio: broadcast, `single_capacity_recvs` and `lagging_rx`."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    broadcast.send_nowait(0)
    assert mine.receive_nowait() == 0
    for n in range(1, capacity + 4):
        broadcast.send_nowait(n)
    assert taken(mine) == ["missed 3", *range(4, capacity + 4)]


@CAPACITIES
def test_who_lags_twice_is_told_twice(capacity: int) -> None:
    """tokio: broadcast, `lagging_receiver_recovers_after_wrap_open`."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    for n in range(capacity + 2):
        broadcast.send_nowait(n)
    with pytest.raises(Lagged) as lagged:
        mine.receive_nowait()
    assert lagged.value.missed == 2
    for n in range(capacity + 2, capacity + 5):  # misses more before it took anything
        broadcast.send_nowait(n)
    assert taken(mine) == ["missed 3", *range(5, capacity + 5)]


@CAPACITIES
def test_lag_goes_on_counting_until_it_is_told(capacity: int) -> None:
    """tokio: broadcast, `receiver_len_with_lagged`."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    for n in range(3 * capacity):
        broadcast.send_nowait(n)
        assert mine.statistics().missed == max(n + 1 - capacity, 0)
        assert mine.statistics().pending == len(mine) == min(n + 1, capacity)
    assert taken(mine) == [f"missed {2 * capacity}", *range(2 * capacity, 3 * capacity)]


@CAPACITIES
@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_lag_then_close_tells_the_lag_then_the_rest_then_the_end(capacity: int, cause: Any) -> None:
    """tokio: broadcast, `lagging_receiver_recovers_after_wrap_closed`."""
    broadcast = Broadcast[int](capacity)
    mine = broadcast.subscribe()
    for n in range(capacity + 1):
        broadcast.send_nowait(n)
    broadcast.close(cause)
    assert taken(mine) == ["missed 1", *range(1, capacity + 1), "end" if cause is None else "broken"]
    assert taken(mine) == ["end" if cause is None else "broken"]


def test_each_subscriber_has_a_lag_of_its_own(world: World) -> None:
    """tokio: broadcast, `lagging_rx`: the other receiver has it all."""

    async def body() -> None:
        broadcast = Broadcast[int](2)
        quick, slow = broadcast.subscribe(), broadcast.subscribe()
        for n in range(6):
            await broadcast.send(n)
            assert await quick.receive() == n
            if n == 2:
                late = broadcast.subscribe()
        assert taken(slow) == ["missed 4", 4, 5]
        assert taken(late) == ["missed 1", 4, 5]  # what came before it was never its own to miss
        assert taken(quick) == []

    world.run(body)


def test_lagged_is_raised_by_await_and_by_async_for_which_may_be_started_again(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](2)
        mine = broadcast.subscribe()
        for n in range(5):
            broadcast.send_nowait(n)
        broadcast.close()
        got: list[int] = []
        with pytest.raises(Lagged, match="3") as lagged:
            await collect(mine, got)
        assert lagged.value.missed == 3
        assert isinstance(lagged.value, ChannelError)
        await collect(mine, got)
        assert got == [3, 4]

    world.run(body)


def test_a_waiting_receiver_that_is_overtaken_before_it_runs_is_told_so(aio: World) -> None:
    """tokio: broadcast, `lagging_rx`: overwritten before the woken task runs."""

    async def body() -> None:
        broadcast = Broadcast[int](2)
        mine = broadcast.subscribe()
        receiving = spawn(mine.receive)
        await parked(broadcast, receivers=1)
        for n in range(5):  # without a turn of the loop
            broadcast.send_nowait(n)
        with pytest.raises(Lagged) as lagged:
            await receiving.wait()
        assert lagged.value.missed == 3
        assert taken(mine) == [3, 4]

    aio.run(body)


def test_receive_some_tells_the_lag_first_and_alone(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](3)
        mine = broadcast.subscribe()
        for n in range(7):
            broadcast.send_nowait(n)
        with pytest.raises(Lagged) as lagged:
            await mine.receive_some()
        assert lagged.value.missed == 4
        assert await mine.receive_some(2) == [4, 5]
        assert await mine.receive_some(2) == [6]
        assert await mine.receive_some(0) == []
        receiving = spawn(mine.receive_some)
        await parked(broadcast, receivers=1)
        await broadcast.send(7)
        assert await receiving.wait() == [7]
        broadcast.send_nowait(8)
        broadcast.close()
        assert await mine.receive_some() == [8]
        with pytest.raises(EndOfChannel):
            await mine.receive_some()

    world.run(body)


def test_without_a_bound_nobody_lags_and_nobody_waits() -> None:
    for overflow in ("lag", "wait"):
        broadcast = Broadcast[int](math.inf, overflow=overflow, replay=2)
        mine = broadcast.subscribe()
        for n in range(1000):
            broadcast.send_nowait(n)
        assert taken(broadcast.subscribe()) == [998, 999]
        assert taken(mine) == list(range(1000))
        assert broadcast.statistics().buffered == 2


@pytest.mark.parametrize("overflow", ["lag", "wait"])
@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_calls_does_what_a_list_of_all_values_says(overflow: Any, seed: int) -> None:
    """A model: all values ever sent in one list, and a position in it for each subscriber."""
    rng = random.Random(seed)
    for _ in range(40):
        capacity = rng.choice([1, 2, 3, 16])
        replay = rng.randint(0, capacity)
        broadcast = Broadcast[int](capacity, overflow=overflow, replay=replay)
        sent: list[int] = []
        subscribers: list[tuple[Subscription[int], list[int]]] = []  # with its position
        for _ in range(80):
            behind = max((len(sent) - at[0] for _, at in subscribers), default=0)
            what = rng.random()
            if what < 0.5:
                if overflow == "wait" and behind >= capacity:
                    with pytest.raises(ChannelFull):
                        broadcast.send_nowait(-1)
                else:
                    broadcast.send_nowait(len(sent))
                    sent.append(len(sent))
            elif what < 0.6:
                subscribers.append((broadcast.subscribe(), [max(len(sent) - replay, 0)]))
            elif what < 0.65 and subscribers:
                subscribers.pop(rng.randrange(len(subscribers)))[0].close()
            elif subscribers:
                subscription, at = rng.choice(subscribers)
                missed = max(len(sent) - capacity - at[0], 0)
                assert subscription.statistics()[:2] == (len(sent) - at[0] - missed, missed)
                if missed:
                    with pytest.raises(Lagged) as lagged:
                        subscription.receive_nowait()
                    assert lagged.value.missed == missed
                    at[0] += missed
                elif at[0] == len(sent):
                    with pytest.raises(ChannelEmpty):
                        subscription.receive_nowait()
                else:
                    assert subscription.receive_nowait() == sent[at[0]]
                    at[0] += 1
            behind = max((min(len(sent) - at[0], capacity) for _, at in subscribers), default=0)
            assert broadcast.statistics().buffered == min(len(sent), max(behind, replay))


# ----------------------------------------------------------------- waiting for the slowest
def test_senders_wait_for_the_slowest_and_go_on_in_their_order_as_it_receives(world: World) -> None:
    """Kotlin: SharedFlowTest, emitters suspended by the slowest subscriber resume in order."""

    async def body() -> None:
        broadcast, slow = full(2)
        quick = broadcast.subscribe()
        sending = []
        for n in range(2, 5):
            sending.append(spawn(broadcast.send, n))
            await parked(broadcast, senders=len(sending))
        for n in range(3):
            assert slow.receive_nowait() == n
            await sending[n].wait()
            assert waiting(broadcast) == (2 - n, 0)
            assert quick.receive_nowait() == n + 2  # there as soon as there was room
        assert taken(slow) == [3, 4]

    world.run(body)


def test_the_quick_do_not_let_senders_go_on(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](1, overflow="wait")
        quick, slow = broadcast.subscribe(), broadcast.subscribe()
        await broadcast.send(0)
        assert await quick.receive() == 0
        sending = spawn(broadcast.send, 1)
        await parked(broadcast, senders=1)
        receiving = spawn(quick.receive)
        await parked(broadcast, senders=1, receivers=1)
        assert await slow.receive() == 0
        await sending.wait()
        assert await receiving.wait() == 1

    world.run(body)


def test_senders_go_on_in_their_order_when_the_slowest_closes(world: World) -> None:
    """Kotlin: SharedFlowTest, a slow subscriber that is cancelled lets emitters go on."""

    async def body() -> None:
        broadcast, slow = full(2)
        other = broadcast.subscribe()
        sending = []
        for n in range(2, 5):
            sending.append(spawn(broadcast.send, n))
            await parked(broadcast, senders=len(sending))
        assert slow.close() is True
        for child in sending[:2]:
            await child.wait()
        assert waiting(broadcast) == (1, 0)  # the other one holds up the third
        assert taken(other) == [2, 3, 4]
        await sending[2].wait()

    world.run(body)


def test_senders_go_on_when_the_slowest_is_dropped(world: World) -> None:
    """tokio: broadcast, `drop_rx_while_values_remain`: a dropped receiver holds up nobody."""

    async def body() -> None:
        broadcast, slow = full(1)
        other = broadcast.subscribe()
        sending = spawn(broadcast.send, 1)
        await parked(broadcast, senders=1)
        del slow
        gc.collect()
        await sending.wait()
        assert taken(other) == [1]
        assert broadcast.statistics().subscribers == 1

    world.run(body)


def test_all_waiting_senders_go_on_when_the_last_subscriber_leaves(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1)
        sending = [spawn(broadcast.send, n) for n in range(5)]
        await parked(broadcast, senders=5)
        slow.close()
        for child in sending:
            await child.wait()
        assert broadcast.statistics().buffered == 0
        assert broadcast.statistics().sent == 6

    world.run(body)


def test_send_nowait_that_would_have_to_wait_is_refused_and_sends_nothing() -> None:
    broadcast, slow = full(2, name="news")
    with pytest.raises(ChannelFull, match=r"'news'.*full.*2"):
        broadcast.send_nowait("refused")
    with pytest.raises(ChannelFull):
        broadcast.send("refused").poll()
    assert broadcast.statistics().sent == 2
    assert taken(slow) == [0, 1]
    broadcast.send_nowait(2)
    assert taken(slow) == [2]


def test_send_nowait_does_not_pass_senders_that_wait(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1)
        sending = [spawn(broadcast.send, "first")]
        await parked(broadcast, senders=1)
        assert slow.receive_nowait() == 0  # the room is given to the one who waits, in this very step
        with pytest.raises(ChannelFull):
            broadcast.send_nowait("second")
        await sending[0].wait()
        assert taken(slow) == ["first"]

    world.run(body)


def test_receive_some_lets_waiting_senders_go_on(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(3)
        sending = []
        for n in range(3, 6):
            sending.append(spawn(broadcast.send, n))
            await parked(broadcast, senders=len(sending))
        got = await slow.receive_some(2)
        assert got == [0, 1]
        for child in sending[:2]:
            await child.wait()
        assert waiting(broadcast) == (1, 0)
        got += await slow.receive_some()
        await sending[2].wait()
        assert got + taken(slow) == list(range(6))

    world.run(body)


def test_a_late_subscriber_is_not_waited_for_on_account_of_old_values(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(2)
        late = broadcast.subscribe()
        assert taken(slow) == [0, 1]
        await broadcast.send(2)
        await broadcast.send(3)
        sending = spawn(broadcast.send, 4)
        await parked(broadcast, senders=1)
        assert taken(late) == [2, 3]
        assert waiting(broadcast) == (1, 0)
        assert taken(slow) == [2, 3, 4]
        await sending.wait()
        assert taken(late) == [4]

    world.run(body)


# ----------------------------------------------------------------- replay
@pytest.mark.parametrize("overflow", ["lag", "wait"])
@pytest.mark.parametrize("replay", range(5))
def test_a_new_subscriber_first_gets_the_last_values(overflow: Any, replay: int) -> None:
    """Kotlin: SharedFlowTest, the replay cache."""
    broadcast = Broadcast[int](4, overflow=overflow, replay=replay)
    assert taken(broadcast.subscribe()) == []
    for n in range(10):
        broadcast.send_nowait(n)
        last = list(range(max(n + 1 - replay, 0), n + 1))
        mine, other = broadcast.subscribe(), broadcast.subscribe()
        assert taken(mine) == taken(other) == last  # one does not take it from the other
        assert broadcast.statistics().buffered == len(last)
        mine.close()
        other.close()


def test_replay_then_what_is_sent_from_now_on(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4, replay=2)
        for n in range(5):
            await broadcast.send(n)
        mine = broadcast.subscribe()
        await broadcast.send(5)
        assert [await mine.receive() for _ in range(3)] == [3, 4, 5]
        receiving = spawn(mine.receive)
        await parked(broadcast, receivers=1)
        await broadcast.send(6)
        assert await receiving.wait() == 6

    world.run(body)


def test_replay_and_lag_count_each_value_once() -> None:
    broadcast = Broadcast[int](4, replay=2)
    old = broadcast.subscribe()
    for n in range(6):
        broadcast.send_nowait(n)
    new = broadcast.subscribe()
    assert new.statistics().pending == 2
    broadcast.send_nowait(6)
    broadcast.send_nowait(7)
    broadcast.send_nowait(8)  # the first of the replay is overwritten for the new one too
    assert taken(new) == ["missed 1", 5, 6, 7, 8]
    assert taken(old) == ["missed 5", 5, 6, 7, 8]


def test_senders_wait_for_a_subscriber_that_has_yet_to_get_its_replay(world: World) -> None:
    """Kotlin: SharedFlowTest, replay with a slow subscriber."""

    async def body() -> None:
        broadcast = Broadcast[int](2, overflow="wait", replay=2)
        for n in range(4):
            await broadcast.send(n)
        mine = broadcast.subscribe()
        sending = spawn(broadcast.send, 4)
        await parked(broadcast, senders=1)
        assert await mine.receive() == 2
        await sending.wait()
        assert taken(mine) == [3, 4]
        assert taken(broadcast.subscribe()) == [3, 4]

    world.run(body)


def test_the_replay_of_a_full_buffer_is_its_end_not_its_beginning() -> None:
    broadcast, slow = full(4, replay=2)
    mine = broadcast.subscribe()
    assert taken(mine) == [2, 3]
    assert taken(slow) == [0, 1, 2, 3]


@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_subscribing_after_the_close_gives_the_replay_and_then_the_end(world: World, cause: Any) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](3, replay=2)
        for n in range(3):
            broadcast.send_nowait(n)
        broadcast.close(cause)
        end = "end" if cause is None else "broken"
        for _ in range(2):
            late = broadcast.subscribe()
            assert late.is_closed
            assert [await late.receive(), await late.receive()] == [1, 2]
            with pytest.raises(EndOfChannel if cause is None else BrokenChannel):
                await late.receive()
            assert taken(late) == [end]

    world.run(body)


# ----------------------------------------------------------------- the end
def test_after_the_close_everybody_gets_the_rest_and_then_the_end(world: World) -> None:
    """tokio: broadcast, `dropping_sender_does_not_overwrite`."""

    async def body() -> None:
        broadcast = Broadcast[int](4)
        one, other = broadcast.subscribe(), broadcast.subscribe()
        for n in range(3):
            await broadcast.send(n)
        assert await one.receive() == 0
        assert broadcast.close() is True
        assert broadcast.close() is False
        assert broadcast.is_closed
        assert [n async for n in one] == [1, 2]
        assert [n async for n in other] == [0, 1, 2]
        for each in (one, other):
            with pytest.raises(EndOfChannel) as ended:
                await each.receive()
            assert ended.value.channel is broadcast
            assert ended.value.cause is None

    world.run(body)


@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_the_close_wakes_all_who_wait_each_with_an_error_of_its_own(world: World, cause: Any) -> None:
    """tokio: broadcast, `dropping_tx_notifies_rx`."""
    wanted: type[BaseException] = EndOfChannel if cause is None else BrokenChannel

    async def body() -> None:
        broadcast = Broadcast[int](4)
        shared, own = broadcast.subscribe(), broadcast.subscribe()
        receiving = [spawn(each.receive) for each in (shared, shared, own)]
        await parked(broadcast, receivers=3)
        broadcast.close(cause)
        errors = []
        for child in receiving:
            with pytest.raises(wanted) as ended:
                await child.wait()
            errors.append(ended.value)
        assert len(set(map(id, errors))) == 3
        assert [error.__cause__ for error in errors] == [cause] * 3

    world.run(body)


def test_a_cause_ends_loops_with_an_error_after_the_rest(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        mine = broadcast.subscribe()
        broadcast.send_nowait(1)
        broadcast.close(OSError("disk"))
        got: list[int] = []
        with pytest.raises(BrokenChannel) as broken:
            await collect(mine, got)
        assert got == [1]
        assert isinstance(broken.value.cause, OSError)
        with pytest.raises(HandleClosed) as closed:
            await broadcast.send(2)
        assert isinstance(closed.value.cause, OSError)

    world.run(body)


@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_the_close_fails_waiting_senders_and_what_they_had_is_not_delivered(world: World, cause: Any) -> None:
    async def body() -> None:
        broadcast, slow = full(2)
        sending = [spawn(broadcast.send, "never") for _ in range(3)]
        await parked(broadcast, senders=3)
        broadcast.close(cause)
        errors = []
        for child in sending:
            with pytest.raises(HandleClosed) as closed:
                await child.wait()
            errors.append(closed.value)
        assert len(set(map(id, errors))) == 3
        assert {error.__cause__ for error in errors} == {cause}
        assert taken(slow) == [0, 1, "end" if cause is None else "broken"]
        assert broadcast.statistics().sent == 2
        assert waiting(broadcast) == (0, 0)

    world.run(body)


def test_sending_after_the_close_is_an_error_and_sends_nothing(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4, name="news", replay=4)
        mine = broadcast.subscribe()
        broadcast.close()
        with pytest.raises(HandleClosed, match=r"'news'.*closed"):
            await broadcast.send(1)
        with pytest.raises(HandleClosed):
            broadcast.send_nowait(2)
        assert taken(mine) == taken(broadcast.subscribe()) == ["end"]

    world.run(body)


def test_wait_closed_is_ready_at_the_close_not_at_the_drain(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        mine = broadcast.subscribe()
        broadcast.send_nowait(1)
        waiters = [spawn(broadcast.wait_closed), spawn(select, never(), broadcast.wait_closed())]
        with pytest.raises(WouldBlock):
            broadcast.wait_closed().poll()
        assert not any(waiter.done for waiter in waiters)
        broadcast.close()
        assert [await waiter.wait() for waiter in waiters] == [None, (1, None)]
        await broadcast.wait_closed()
        assert taken(mine) == [1, "end"]

    world.run(body)


def test_leaving_with_closes_and_an_error_is_the_cause(world: World) -> None:
    async def body() -> None:
        with Broadcast[int](1) as broadcast:
            mine = broadcast.subscribe()
        assert taken(mine) == ["end"]
        async with Broadcast[int](1) as broadcast:
            mine = broadcast.subscribe()
        assert taken(mine) == ["end"]
        error, broadcast = OSError("disk"), Broadcast[int](1)
        mine = broadcast.subscribe()
        with pytest.raises(OSError, match="disk"):
            await fail_in(broadcast, error)
        with pytest.raises(BrokenChannel) as broken:
            await mine.receive()
        assert broken.value.cause is error

    world.run(body)


# ----------------------------------------------------------------- leaving
def test_closing_a_subscription_fails_those_who_wait_there_and_nobody_else(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        mine, other = broadcast.subscribe(), broadcast.subscribe()
        receiving = [spawn(mine.receive), spawn(mine.receive)]
        going_on = spawn(other.receive)
        await parked(broadcast, receivers=3)
        assert mine.close() is True
        assert mine.close() is False
        assert mine.is_closed
        assert not other.is_closed
        errors = []
        for child in receiving:
            with pytest.raises(HandleClosed) as closed:
                await child.wait()
            errors.append(closed.value)
        assert errors[0] is not errors[1]
        with pytest.raises(HandleClosed):
            await mine.receive()
        await broadcast.send(1)
        assert await going_on.wait() == 1
        assert taken(mine) == ["closed"]

    world.run(body)


def test_what_a_closed_subscription_had_not_received_is_gone(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        async with broadcast.subscribe() as mine:
            broadcast.send_nowait(1)
            assert broadcast.statistics().buffered == 1
        assert taken(mine) == ["closed"]
        assert len(mine) == 0
        with broadcast.subscribe() as mine:
            broadcast.send_nowait(2)
        assert broadcast.statistics().subscribers == 0
        assert broadcast.statistics().buffered == 0
        assert mine.statistics() == (0, 0, 0)

    world.run(body)


def test_a_subscription_that_is_dropped_has_left_and_does_not_warn() -> None:
    """tokio: broadcast, `drop_rx_while_values_remain`: dropping is the way to leave."""
    broadcast = Broadcast[int](4)
    mine, other = broadcast.subscribe(), broadcast.subscribe()
    broadcast.send_nowait(1)
    assert taken(mine) == [1]
    del other
    gc.collect()
    assert broadcast.statistics() == (4, 0, 1, 0, 0, 1)


def test_a_subscription_lives_as_long_as_somebody_waits_there(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)

        async def receive() -> int:
            return await broadcast.subscribe().receive()

        receiving = spawn(receive)
        await parked(broadcast, receivers=1)
        gc.collect()
        assert broadcast.statistics().subscribers == 1
        await broadcast.send(1)
        assert await receiving.wait() == 1
        gc.collect()
        assert broadcast.statistics().subscribers == 0

    world.run(body)


# ----------------------------------------------------------------- several receivers on one subscription
def test_several_receivers_of_one_subscription_share_its_values(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](8)
        shared, other = broadcast.subscribe(), broadcast.subscribe()
        receiving = [spawn(shared.receive) for _ in range(4)]
        await parked(broadcast, receivers=4)
        await broadcast.send(0)
        await settle(lambda: waiting(broadcast) == (0, 3) and sum(child.done for child in receiving) == 1)
        for n in range(1, 4):
            broadcast.send_nowait(n)
        assert sorted([await child.wait() for child in receiving]) == [0, 1, 2, 3]
        assert taken(other) == [0, 1, 2, 3]

    world.run(body)


def test_receivers_in_two_worlds_share_one_subscription(pair: Pair) -> None:
    broadcast = Broadcast[int](2, overflow="wait")
    shared = broadcast.subscribe()

    async def take() -> list[int]:
        return [n async for n in shared]

    async def produce() -> list[int]:
        taking = spawn(take)
        for n in range(60):
            await broadcast.send(n)
        broadcast.close()
        return await taking.wait()  # type: ignore[no-any-return]

    one, other = pair.run(produce, take)
    assert one == sorted(one)
    assert other == sorted(other)
    assert sorted(one + other) == list(range(60))


def test_a_receiver_that_gives_up_once_it_is_woken_leaves_the_value_to_the_other(loop_world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](8)
        shared = broadcast.subscribe()
        first = spawn(shared.receive)
        await parked(broadcast, receivers=1)
        second = spawn(shared.receive)
        await parked(broadcast, receivers=2)
        broadcast.send_nowait(1)
        first.cancel()
        await first.join()
        if first.cancelled:
            assert await second.wait() == 1
        else:  # in trio one who is woken is not cancelled any more
            assert await first.wait() == 1
            second.cancel()
            await second.join()
        assert taken(shared) == []
        assert waiting(broadcast) == (0, 0)

    loop_world.run(body)


# ----------------------------------------------------------------- cancelling
def test_a_cancelled_receive_takes_nothing(loop_world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](8)
        mine = broadcast.subscribe()
        for op in (mine.receive, mine.receive_some, lambda: select(mine, never())):
            receiving = spawn(op)
            await parked(broadcast, receivers=1)
            receiving.cancel()
            with pytest.raises(ChildCancelled):
                await receiving.wait()
            assert waiting(broadcast) == (0, 0)
        broadcast.send_nowait(1)
        assert taken(mine) == [1]

    loop_world.run(body)


@pytest.mark.parametrize("some", [False, True])
def test_a_receive_that_a_native_cancel_meets_on_its_way_takes_nothing(aio: World, some: bool) -> None:
    """The value is there and the task is woken, but has not run yet."""

    async def body() -> None:
        broadcast = Broadcast[int](8)
        mine = broadcast.subscribe()
        receiving = spawn(mine.receive_some if some else mine.receive)
        await parked(broadcast, receivers=1)
        broadcast.send_nowait(1)
        receiving.cancel()
        with pytest.raises(ChildCancelled):
            await receiving.wait()
        assert taken(mine) == [1]

    aio.run(body)


def test_a_cancelled_waiting_send_has_no_effect(loop_world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1)
        sending = []
        for n in range(3):
            sending.append(spawn(broadcast.send, f"send {n}"))
            await parked(broadcast, senders=n + 1)
        sending[1].cancel()
        with pytest.raises(ChildCancelled):
            await sending[1].wait()
        assert waiting(broadcast) == (2, 0)
        assert taken(slow) == [0, "send 0", "send 2"]
        assert broadcast.statistics().sent == 3

    loop_world.run(body)


def test_a_send_that_was_served_before_a_native_cancel_is_delivered_once_and_says_so(aio: World) -> None:
    """The row "asyncio, send" of the design's table."""

    async def body() -> None:
        broadcast, slow = full(1)
        notes: list[str] = []
        returned: list[bool] = []

        async def send() -> None:
            try:
                await broadcast.send("a")
            except asyncio.CancelledError as error:
                notes.extend(getattr(error, "__notes__", []))
                raise
            returned.append(True)
            await asyncio.sleep(0)

        sending = spawn(send)
        await parked(broadcast, senders=1)
        assert slow.receive_nowait() == 0
        sending.cancel()
        with pytest.raises(ChildCancelled):
            await sending.wait()
        assert taken(slow) == ["a"]
        assert broadcast.statistics().sent == 2
        if REARMS:
            assert returned == [True]
        else:
            assert "delivered" in notes[0]

    aio.run(body)


def test_a_receive_and_a_send_that_time_out_have_no_effect(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1, name="news")
        with pytest.raises(TimeoutError, match="'news'"):
            await broadcast.send("never").within(0.001)
        assert taken(slow) == [0]
        with pytest.raises(TimeoutError, match="'news'"):
            await slow.receive().within(0.001)
        assert waiting(broadcast) == (0, 0)
        broadcast.send_nowait(1)
        assert taken(slow) == [1]

    world.run(body)


# ----------------------------------------------------------------- select
def test_a_receive_is_an_arm_that_wins_when_a_value_comes(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[str](4)
        mine, other = broadcast.subscribe(), broadcast.subscribe()
        selecting = spawn(select, never(), mine, Event())
        await parked(broadcast, receivers=1)
        await broadcast.send("a")
        assert await selecting.wait() == (1, "a")
        await broadcast.send("b")
        assert await select(mine.receive().map(str.upper), Event()) == (0, "B")
        assert taken(mine) == []
        assert taken(other) == ["a", "b"]

    world.run(body)


def test_a_receive_that_loses_takes_nothing(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[str](4)
        mine, stop = broadcast.subscribe(), Event()
        selecting = spawn(select, mine, stop)
        await parked(broadcast, receivers=1)
        stop.set()
        assert await selecting.wait() == (1, None)
        assert waiting(broadcast) == (0, 0)
        broadcast.send_nowait("a")
        assert await select(stop, mine, biased=True) == (0, None)
        assert select(stop, mine, biased=True).poll() == (0, None)
        assert taken(mine) == ["a"]

    world.run(body)


def test_of_two_subscriptions_in_one_select_exactly_one_gives_its_value(world: World) -> None:
    async def body() -> None:
        broadcast = Broadcast[int](4)
        arms = [broadcast.subscribe(), broadcast.subscribe()]
        for n in range(30):
            selecting = spawn(select, arms[0], arms[1])
            await parked(broadcast, receivers=2)
            broadcast.send_nowait(n)
            index, value = await selecting.wait()
            assert value == n
            assert taken(arms[index]) == []
            assert taken(arms[1 - index]) == [n]

    world.run(body)


def test_a_send_is_an_arm_that_wins_when_there_is_room(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1)
        selecting = spawn(select, Event(), broadcast.send(1))
        await parked(broadcast, senders=1)
        assert await slow.receive() == 0
        assert await selecting.wait() == (1, None)
        assert taken(slow) == [1]
        assert select(never(), broadcast.send(2)).poll() == (1, None)
        assert taken(slow) == [2]

    world.run(body)


def test_a_send_that_loses_has_no_effect_and_leaves_the_others_their_turn(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(1)
        stop = Event()
        selecting = spawn(select, stop, broadcast.send("loses"))
        await parked(broadcast, senders=1)
        sending = spawn(broadcast.send, 1)
        await parked(broadcast, senders=2)
        stop.set()
        assert await selecting.wait() == (0, None)
        assert waiting(broadcast) == (1, 0)
        assert await slow.receive() == 0
        await sending.wait()
        assert taken(slow) == [1]

    world.run(body)


def test_a_select_sends_to_one_or_receives_from_another_never_both(pair: Pair) -> None:
    out, back = Broadcast[int](1, overflow="wait"), Broadcast[int](1, overflow="wait")
    takes, gives = out.subscribe(), back.subscribe()

    async def first() -> Counter[str]:
        done: Counter[str] = Counter()
        while done.total() < 80:
            index, _ = await select(out.send(1), gives)
            done["received" if index else "sent"] += 1
        out.close()
        return done

    async def second() -> Counter[str]:
        done: Counter[str] = Counter()
        try:
            while True:
                index, _ = await select(back.send(1), takes)
                done["received" if index else "sent"] += 1
        except EndOfChannel:
            return done

    one, other = pair.run(first, second)
    assert one["sent"] == other["received"]
    assert other["sent"] == one["received"] + len(taken(gives))


def test_an_arm_that_is_over_or_lagged_raises_its_error_with_its_position() -> None:
    broadcast, other = Broadcast[int](1), Broadcast[int](1)
    mine = broadcast.subscribe()
    broadcast.send_nowait(1)
    broadcast.send_nowait(2)
    with pytest.raises(Lagged) as lagged:
        select(other.subscribe(), mine).poll()
    assert lagged.value.missed == 1
    assert taken(mine) == [2]
    broadcast.close()
    with pytest.raises(EndOfChannel) as ended:
        select(other.subscribe(), mine).poll()
    assert ended.value.arm == 1
    assert ended.value.channel is broadcast


def test_an_arm_that_ends_while_the_select_waits_raises_its_error_with_its_position(world: World) -> None:
    async def body() -> None:
        broadcast, stop = Broadcast[int](1), Event()
        selecting = spawn(select, stop, broadcast.subscribe())
        await parked(broadcast, receivers=1)
        broadcast.close()
        with pytest.raises(EndOfChannel) as ended:
            await selecting.wait()
        assert ended.value.arm == 1
        assert stop.statistics().waiting == 0

    world.run(body)


# ----------------------------------------------------------------- finalizers
def test_a_finalizer_that_runs_in_the_middle_of_a_send_may_send(world: World) -> None:
    """The value that falls out of the buffer dies under the lock of the broadcast."""

    async def body() -> None:
        broadcast = Broadcast[Any](1)
        mine = broadcast.subscribe()
        returned: list[Any] = []
        send_nowait: Any = broadcast.send_nowait
        broadcast.send_nowait(Last(lambda: returned.append(send_nowait("from the finalizer"))))
        await broadcast.send("a")
        assert returned == [None]
        assert taken(mine) == ["missed 2", "from the finalizer"]
        assert broadcast.statistics().sent == 3

    world.run(body)


def test_a_finalizer_that_runs_in_the_middle_of_a_send_may_close() -> None:
    broadcast = Broadcast[Any](1)
    mine = broadcast.subscribe()
    broadcast.send_nowait(Last(broadcast.close))
    broadcast.send_nowait("a")
    assert broadcast.is_closed
    assert taken(mine) == ["missed 1", "a", "end"]


def test_a_subscription_may_be_dropped_in_the_middle_of_a_send() -> None:
    broadcast = Broadcast[Any](1)
    mine = broadcast.subscribe()
    broadcast.send_nowait([broadcast.subscribe(), broadcast.subscribe()])  # dies when it falls out of the buffer
    assert broadcast.statistics().subscribers == 3
    broadcast.send_nowait("a")
    gc.collect()
    assert broadcast.statistics().subscribers == 1
    assert taken(mine) == ["missed 1", "a"]


def test_a_finalizer_wakes_a_receiver_of_any_world(pair: Pair) -> None:
    broadcast = Broadcast[Any](4)
    mine = broadcast.subscribe()

    async def produce() -> None:
        await parked(broadcast, receivers=1)
        Last(lambda: broadcast.send_nowait("a"))

    async def consume() -> Any:
        return await mine.receive()

    assert pair.run(produce, consume) == (None, "a")


# ----------------------------------------------------------------- memory
def test_a_value_that_all_have_got_is_not_kept() -> None:
    """tokio: broadcast, `unconsumed_messages_are_dropped`: the last reader frees a slot."""
    for overflow in ("lag", "wait"):
        broadcast = Broadcast[Thing](4, overflow=overflow)
        one, other = broadcast.subscribe(), broadcast.subscribe()
        thing = Thing()
        alive = weakref.ref(thing)
        broadcast.send_nowait(thing)
        del thing
        one.receive_nowait()
        gc.collect()
        assert alive() is not None
        other.receive_nowait()
        gc.collect()
        assert alive() is None


def test_a_value_goes_with_the_last_subscriber_who_had_yet_to_get_it() -> None:
    broadcast = Broadcast[Thing](4)
    quick, slow, gone = broadcast.subscribe(), broadcast.subscribe(), broadcast.subscribe()
    thing = Thing()
    alive = weakref.ref(thing)
    broadcast.send_nowait(thing)
    del thing
    quick.receive_nowait()
    slow.close()
    gc.collect()
    assert alive() is not None
    del gone
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("replay", [0, 1, 3])
def test_no_more_than_the_replay_is_kept_for_nobody(replay: int) -> None:
    broadcast = Broadcast[Thing](4, replay=replay)
    mine = broadcast.subscribe()
    alive = []
    for _ in range(6):
        thing = Thing()
        alive.append(weakref.ref(thing))
        broadcast.send_nowait(thing)
        del thing
        mine.receive_nowait()
    mine.close()
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * (6 - replay) + [True] * replay


def test_the_value_of_a_send_that_did_not_happen_is_not_kept(world: World) -> None:
    async def body() -> None:
        broadcast, _slow = full(1)
        alive = []

        async def attempt() -> None:
            thing = Thing()
            alive.append(weakref.ref(thing))
            with pytest.raises(TimeoutError):
                await broadcast.send(thing).within(0)
            thing = Thing()
            alive.append(weakref.ref(thing))
            assert (await select(broadcast.send(thing), never().within(0).map(id), _over()))[0] == 2

        await attempt()
        gc.collect()
        assert [ref() for ref in alive] == [None, None]

    def _over() -> Any:
        event = Event()
        event.set()
        return event.wait()

    world.run(body)


def test_a_dropped_broadcast_takes_its_values_with_it() -> None:
    broadcast = Broadcast[Thing](4, replay=4)
    mine = broadcast.subscribe()
    thing = Thing()
    alive = weakref.ref(thing)
    broadcast.send_nowait(thing)
    del thing, broadcast, mine
    gc.collect()
    assert alive() is None


# ----------------------------------------------------------------- looking, and bad input
def test_statistics_count_what_is_there(world: World) -> None:
    async def body() -> None:
        broadcast, slow = full(2, replay=1)
        quick = broadcast.subscribe()
        assert quick.receive_nowait() == 1
        children = [spawn(broadcast.send, 2), spawn(quick.receive)]
        await parked(broadcast, senders=1, receivers=1)
        now = broadcast.statistics()
        assert (now.capacity, now.buffered, now.subscribers, now.sent) == (2, 2, 2, 2)
        assert (slow.statistics().pending, slow.statistics().missed) == (2, 0)
        assert quick.statistics() == (0, 0, 1)
        assert taken(slow) == [0, 1, 2]
        for child in children:
            await child.wait()
        now = broadcast.statistics()
        assert (now.buffered, now.waiting_senders, now.waiting_receivers, now.sent) == (1, 0, 0, 3)

    world.run(body)


def test_repr_tells_name_and_state() -> None:
    broadcast = Broadcast[int](1, name="news")
    mine = broadcast.subscribe()
    assert repr(broadcast) == "<Broadcast 'news' to 1>"
    assert repr(mine) == "<Subscription to <Broadcast 'news' to 1>>"
    mine.close()
    broadcast.close()
    assert repr(broadcast) == "<Broadcast 'news' to 0 closed>"
    assert "closed" in repr(mine)
    assert repr(Broadcast[int](1)) != repr(Broadcast[int](1))


@pytest.mark.parametrize("capacity", [0, -1, 1.5, -math.inf, math.nan, None, "3", True, []])
def test_a_capacity_below_one_or_none_at_all_is_refused(capacity: Any) -> None:
    """tokio: broadcast, `zero_capacity`."""
    with pytest.raises((ValueError, TypeError), match=r"capacity .*integer of at least 1.*math\.inf.*not "):
        Broadcast[int](capacity)


@pytest.mark.parametrize("replay", [-1, 4, 10, 1.0, None, True, "1", math.inf])
def test_a_replay_beyond_the_capacity_or_none_at_all_is_refused(replay: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"replay .*from 0 to the capacity.*not "):
        Broadcast[int](3, replay=replay)


@pytest.mark.parametrize("overflow", ["drop_oldest", None, "", 1, []])
def test_an_overflow_policy_that_does_not_exist_is_refused(overflow: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"overflow .*'lag' or 'wait'"):
        Broadcast[int](3, overflow=overflow)


@pytest.mark.parametrize("most", [-1, 1.5, math.nan, "3", None, True, -math.inf])
def test_receive_some_wants_a_count_and_takes_nothing_else(most: Any) -> None:
    broadcast = Broadcast[int](3)
    mine = broadcast.subscribe()
    broadcast.send_nowait(1)
    with pytest.raises((ValueError, TypeError), match=r"max .*integer of at least 0"):
        mine.receive_some(most)
    assert taken(mine) == [1]


@pytest.mark.parametrize("cause", ["broken", 3, OSError])
def test_a_cause_that_is_no_exception_closes_nothing(cause: Any) -> None:
    broadcast = Broadcast[int](3)
    with pytest.raises(TypeError, match=r"cause .*exception"):
        broadcast.close(cause)
    assert not broadcast.is_closed


def test_a_channel_fed_from_a_subscription_ends_with_it(pair: Pair) -> None:
    """A broadcast passed on by a task of one world to a channel that another reads."""
    broadcast, onward = Broadcast[int](2, overflow="wait"), Channel[int](1)
    mine = broadcast.subscribe()

    async def produce() -> None:
        async def relay() -> None:
            async for n in mine:
                await onward.send(n)
            onward.close()

        relaying = spawn(relay)
        for n in range(30):
            await broadcast.send(n)
        broadcast.close()
        await relaying.wait()

    async def consume() -> list[int]:
        return [n async for n in onward]

    assert pair.run(produce, consume) == (None, list(range(30)))
