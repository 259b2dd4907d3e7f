"""What a send does that finds no room: it waits, raises, or something is dropped; and `force_send`.

Suites followed: Kotlin's BufferedChannel, ConflatedChannel and ChannelUndeliveredElement tests (overflow, what is told
of undelivered elements), async-channel's `force_send`.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import ALL, ChildCancelled, Pair, World, run_together, settle, spawn, waiting

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelFull,
    Event,
    HandleClosed,
    WouldBlock,
    open_channel,
    select,
)

Order = Literal["fifo", "lifo", "priority"]
Overflow = Literal["wait", "raise", "drop_oldest", "drop_newest"]
ORDERS: list[Order] = ["fifo", "lifo", "priority"]
POLICIES: list[Overflow] = ["wait", "raise", "drop_oldest", "drop_newest"]
DROPS: list[Overflow] = ["drop_oldest", "drop_newest"]

orders = pytest.mark.parametrize("order", ORDERS)
policies = pytest.mark.parametrize("overflow", POLICIES)
drops = pytest.mark.parametrize("overflow", DROPS)


def counts(ch: Channel[Any]) -> tuple[int, int, int, int]:
    """How many were sent, received, dropped, and are inside."""
    found = ch.statistics()
    return found.sent, found.received, found.dropped, found.buffered


def full(
    capacity: int,
    overflow: Overflow = "wait",
    order: Order = "fifo",
    on_undelivered: Callable[[int], object] | None = None,
) -> Channel[int]:
    """With 0, 1, 2, ... inside, which came in this order."""
    ch = Channel[int](capacity, overflow=overflow, order=order, name="jobs", on_undelivered=on_undelivered)
    for n in range(capacity):
        ch.send_nowait(n)
    return ch


async def send(ch: Channel[int], value: int) -> object:
    return await ch.send(value)


async def send_nowait(ch: Channel[int], value: int) -> object:
    return ch.send_nowait(value)  # type: ignore[func-returns-value]


async def send_polled(ch: Channel[int], value: int) -> object:
    return ch.send(value).poll()


async def send_some(ch: Channel[int], value: int) -> object:
    assert await ch.send_some([value]) == 1
    return None


async def send_all(ch: Channel[int], value: int) -> object:
    return await ch.send_all([value])


async def send_all_of_an_iterator(ch: Channel[int], value: int) -> object:
    return await ch.send_all(iter([value]))


async def send_selected(ch: Channel[int], value: int) -> object:
    arm, got = await select(Event(), ch.send(value))
    assert arm == 1
    return got


async def send_within(ch: Channel[int], value: int) -> object:
    return await ch.send(value).within(60)


async def send_by_view(ch: Channel[int], value: int) -> object:
    return await ch.sender().send(value)


Put = Callable[[Channel[int], int], Awaitable[object]]
PUTS: list[Put] = [
    send,
    send_nowait,
    send_polled,
    send_some,
    send_all,
    send_all_of_an_iterator,
    send_selected,
    send_within,
    send_by_view,
]
puts = pytest.mark.parametrize("put", PUTS)


# ----------------------------------------------------------------- raise
@puts
def test_raise_refuses_what_there_is_no_room_for(world: World, put: Put) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = full(2, "raise", on_undelivered=gone.append)
        with pytest.raises(ChannelFull, match="'jobs'"):
            await put(ch, 9)
        assert waiting(ch) == (0, 0)
        assert counts(ch) == (2, 0, 0, 2)
        assert ch.drain() == [0, 1]
        assert gone == []  # it is the caller's

    world.run(body)


def test_raise_stops_send_all_and_keeps_what_went_in(world: World) -> None:
    async def body() -> None:
        for values in ([1, 2, 3, 4], iter([1, 2, 3, 4])):
            ch = Channel[int](3, overflow="raise")
            with pytest.raises(ChannelFull):
                await ch.send_all(values)
            assert ch.drain() == [1, 2, 3]

    world.run(body)


def test_a_poll_that_was_refused_may_be_performed_later(world: World) -> None:
    """`ChannelFull` is a `WouldBlock`, and after that an operation is as it was."""

    async def body() -> None:
        for make in (lambda ch: ch.send(9), lambda ch: ch.send_some([9]), lambda ch: select(ch.send(9))):
            ch = full(1, "raise")
            op: Any = make(ch)
            with pytest.raises(WouldBlock):
                op.poll()
            assert ch.receive_nowait() == 0
            op.poll()
            assert ch.drain() == [9]

    world.run(body)


# ----------------------------------------------------------------- drop_oldest, drop_newest
@puts
@drops
def test_dropping_makes_every_send_succeed_at_once(world: World, overflow: Overflow, put: Put) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = full(3, overflow, on_undelivered=gone.append)
        assert await put(ch, 9) is None
        assert waiting(ch) == (0, 0)
        assert counts(ch) == (4, 0, 1, 3)
        assert gone == ([0] if overflow == "drop_oldest" else [9])
        assert ch.drain() == ([1, 2, 9] if overflow == "drop_oldest" else [0, 1, 2])
        assert counts(ch) == (4, 3, 1, 0)
        assert ch.statistics().peak == 3

    world.run(body)


@orders
def test_drop_oldest_drops_what_has_been_inside_for_longest_whatever_comes_out_next(world: World, order: Order) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](3, overflow="drop_oldest", order=order, on_undelivered=gone.append)
        await ch.send_all([2, 1, 3, 0, 4])
        assert gone == [2, 1]
        assert await ch.receive() == {"fifo": 3, "lifo": 4, "priority": 0}[order]
        await ch.send_all([5, 6])
        assert gone == [2, 1, {"fifo": 0, "lifo": 3, "priority": 3}[order]]
        assert ch.drain() == {"fifo": [4, 5, 6], "lifo": [6, 5, 0], "priority": [4, 5, 6]}[order]

    world.run(body)


@orders
def test_drop_newest_drops_what_is_sent_whatever_comes_out_next(world: World, order: Order) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](3, overflow="drop_newest", order=order, on_undelivered=gone.append)
        await ch.send_all([2, 1, 3, 0, 4])
        assert gone == [0, 4]
        assert ch.drain() == {"fifo": [2, 1, 3], "lifo": [3, 1, 2], "priority": [1, 2, 3]}[order]

    world.run(body)


@orders
def test_raise_in_every_order(world: World, order: Order) -> None:
    async def body() -> None:
        ch = Channel[int](2, overflow="raise", order=order)
        await ch.send_all([2, 1])
        with pytest.raises(ChannelFull):
            await ch.send(0)
        assert ch.drain() == {"fifo": [2, 1], "lifo": [1, 2], "priority": [1, 2]}[order]

    world.run(body)


def test_the_latest_value_only(world: World) -> None:
    """Kotlin's conflated channel: one place, and a receiver sees the newest."""

    async def body() -> None:
        ch = Channel[int](1, overflow="drop_oldest")
        for n in range(5):
            await ch.send(n)
        assert await ch.receive() == 4
        receiving = spawn(ch.receive)
        await settle(lambda: waiting(ch) == (0, 1))
        await ch.send(5)
        await ch.send(6)
        assert await receiving.wait() == 5  # it was given before 6 came
        assert await ch.receive() == 6
        ch.send_nowait(7)
        ch.close()
        assert [n async for n in ch] == [7]

    world.run(body)


@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
def test_waiting_receivers_come_before_any_policy(world: World, overflow: Overflow) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](1, overflow=overflow, on_undelivered=gone.append)
        receivers = []
        for n in range(2):
            receivers.append(spawn(ch.receive))
            await settle(lambda n=n: waiting(ch) == (0, n + 1))
        await ch.send(0)
        await ch.send_some([1])
        await ch.send(2)
        assert [await receiver.wait() for receiver in receivers] == [0, 1]
        assert gone == []
        assert ch.drain() == [2]

    world.run(body)


@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
def test_no_policy_is_asked_while_there_is_room(world: World, overflow: Overflow) -> None:
    async def body() -> None:
        ch = Channel[int](2, overflow=overflow)
        for n in range(20):
            await ch.send(n)
            await ch.send(-n)
            assert [await ch.receive(), await ch.receive()] == [n, -n]
        assert counts(ch) == (40, 40, 0, 0)

    world.run(body)


@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
def test_without_bound_no_policy_is_ever_asked(overflow: Overflow) -> None:
    ch = Channel[int](math.inf, overflow=overflow)
    for n in range(1000):
        ch.send_nowait(n)
    assert ch.drain() == list(range(1000))
    assert ch.statistics().dropped == 0


@policies
def test_send_some_under_each_policy(world: World, overflow: Overflow) -> None:
    """Into two free places of three, six values: what does not fit waits, is refused, or is dropped or drops."""

    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](3, overflow=overflow, on_undelivered=gone.append)
        await ch.send(0)
        sent = await ch.send_some([1, 2, 3, 4, 5])
        assert (sent, gone) == {
            "wait": (2, []),
            "raise": (2, []),
            "drop_oldest": (5, [0, 1, 2]),
            "drop_newest": (5, [3, 4, 5]),
        }[overflow]
        assert counts(ch) == (1 + sent, 0, len(gone), 3)
        assert ch.drain() == ([3, 4, 5] if overflow == "drop_oldest" else [0, 1, 2])

    world.run(body)


@policies
def test_send_some_of_nothing_is_0_under_each_policy_also_if_it_is_full(world: World, overflow: Overflow) -> None:
    async def body() -> None:
        ch = full(1, overflow)
        assert await ch.send_some([]) == 0
        assert ch.drain() == [0]

    world.run(body)


@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("end", ["close", "close with a cause", "cancel"])
def test_what_is_over_refuses_under_every_policy_and_nothing_is_dropped(
    world: World, overflow: Overflow, end: str
) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = full(1, overflow, on_undelivered=gone.append)
        if end == "cancel":
            ch.cancel()
            gone.clear()
        else:
            ch.close(OSError("disk") if "cause" in end else None)
        for put in PUTS:
            with pytest.raises(HandleClosed):
                await put(ch, 9)
        with pytest.raises(HandleClosed):
            ch.force_send(9)
        assert gone == []
        assert ch.drain() == ([] if end == "cancel" else [0])

    world.run(body)


def test_a_value_given_back_is_the_oldest(aio: World) -> None:
    """It was taken by a receive that was cancelled: it has been inside for longest, so it is dropped first."""

    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](2, overflow="drop_oldest", on_undelivered=gone.append)
        task = asyncio.ensure_future(ch.receive())
        await settle(lambda: waiting(ch) == (0, 1))
        ch.send_nowait(0)  # not awaited: the receiver must not run before it is cancelled
        ch.send_nowait(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ch) == 2
        await ch.send(2)
        assert gone == [0]
        assert ch.drain() == [1, 2]
        assert counts(ch) == (3, 2, 1, 0)

    aio.run(body)


def test_with_priority_an_incomparable_value_is_refused_and_drops_nothing(world: World) -> None:
    async def body() -> None:
        gone: list[Any] = []
        ch = Channel[Any](2, order="priority", overflow="drop_oldest", on_undelivered=gone.append)
        await ch.send_all([2, 1])
        with pytest.raises(TypeError, match="order='priority'"):
            await ch.send("three")
        with pytest.raises(TypeError, match="order='priority'"):
            ch.force_send("three")
        assert gone == []
        assert counts(ch) == (2, 0, 0, 2)
        assert ch.drain() == [1, 2]

    world.run(body)


@pytest.mark.parametrize("forced", [False, True])
def test_if_the_oldest_cannot_be_taken_out_the_new_one_is_not_put_in(world: World, forced: bool) -> None:
    """A send that raises has had no effect, also if it is the dropping that fails."""

    async def body() -> None:
        gone: list[list[Any]] = []
        ch = Channel[list[Any]](
            3, order="priority", overflow="wait" if forced else "drop_oldest", on_undelivered=gone.append
        )
        first, second, third = [1], [3], [5]
        await ch.send_all([first, second, third])
        third[0] = "five"  # compared only as the first is taken out
        with pytest.raises(TypeError, match="order='priority'"):
            ch.force_send([4]) if forced else await ch.send([4])
        third[0] = 5
        assert gone == []
        assert counts(ch) == (3, 0, 0, 3)
        assert ch.drain() == [[1], [3], [5]]

    world.run(body)


# ----------------------------------------------------------------- on_undelivered
def dropping(way: str, tell: Callable[[int], object]) -> tuple[Callable[[], object], Callable[[], object], list[int]]:
    """How a value is given up: what does it, another use of the same channel, and what should be told."""
    if way == "last receiver":
        tx, rx = open_channel[int](3, on_undelivered=tell)
        tx.send_some([0, 1]).poll()
        return rx.close, lambda: (tx.statistics(), tx.close()), [0, 1]
    overflow: Overflow = "drop_oldest" if "oldest" in way else "drop_newest" if "newest" in way else "wait"
    ch = full(2, overflow, on_undelivered=tell)
    use = lambda: (ch.receiver().receive_some(0).poll(), ch.close())  # noqa: E731
    if way == "cancel":
        return ch.cancel, use, [0, 1]
    return (lambda: ch.send(9).poll()), use, [9] if overflow == "drop_newest" else [0]


@pytest.mark.parametrize("way", ["drop_oldest", "drop_newest", "cancel", "last receiver"])
def test_on_undelivered_is_called_outside_of_every_lock(way: str) -> None:
    """So another thread may use the channel meanwhile, and be waited for."""
    told: list[int] = []
    stuck: list[bool] = []

    def tell(value: int) -> None:
        told.append(value)
        other = threading.Thread(target=use, daemon=True)
        other.start()
        other.join(20)
        stuck.append(other.is_alive())

    drop, use, expected = dropping(way, tell)
    drop()
    assert told == expected
    assert not any(stuck)


@pytest.mark.parametrize("way", ["drop_oldest", "drop_newest", "cancel", "last receiver"])
def test_errors_of_on_undelivered_come_out_of_the_call_that_dropped(way: str) -> None:
    told: list[int] = []

    def tell(value: int) -> None:
        told.append(value)
        raise KeyError(value)

    drop, use, expected = dropping(way, tell)
    with pytest.raises(ExceptionGroup, match="on_undelivered") as caught:
        drop()
    assert [error.args[0] for error in caught.value.exceptions] == told == expected
    use()


@drops
def test_after_errors_of_on_undelivered_the_channel_goes_on(world: World, overflow: Overflow) -> None:
    async def body() -> None:
        def tell(value: int) -> None:
            raise KeyError(value)

        ch = full(2, overflow, on_undelivered=tell)
        with pytest.raises(ExceptionGroup) as caught:
            await ch.send_some([7, 8])
        lost = [error.args[0] for error in caught.value.exceptions]
        assert lost == ([0, 1] if overflow == "drop_oldest" else [7, 8])
        with pytest.raises(ExceptionGroup):
            ch.send_nowait(9)
        assert counts(ch) == (5, 0, 3, 2)
        assert await ch.receive_some() == ([8, 9] if overflow == "drop_oldest" else [0, 1])
        receiving = spawn(ch.receive)
        await settle(lambda: waiting(ch) == (0, 1))
        await ch.send(10)
        assert await receiving.wait() == 10

    world.run(body)


def test_on_undelivered_may_send_the_dropped_elsewhere(world: World) -> None:
    async def body() -> None:
        dead_letters = Channel[int](math.inf)
        ch = Channel[int](2, overflow="drop_oldest", on_undelivered=dead_letters.send_nowait)
        await ch.send_all(range(10))
        assert dead_letters.drain() == list(range(8))
        assert ch.drain() == [8, 9]

    world.run(body)


@pytest.mark.parametrize("why", ["timed out", "closed", "cancelled", "not now", "refused", "no receiver"])
def test_a_value_whose_send_raised_is_the_callers_and_not_told(world: World, why: str) -> None:
    """Kotlin tells its `onUndeliveredElement` of these; here the caller knows by the error."""

    async def body() -> None:
        gone: list[int] = []
        if why == "no receiver":
            tx, rx = open_channel[int](1, on_undelivered=gone.append)
            with tx, rx:
                await tx.send(0)
                sending = spawn(tx.send, 9)
                await settle(lambda: tx.statistics().waiting_senders == 1)
                rx.close()
                with pytest.raises(BrokenChannel):
                    await sending.wait()
            assert gone == [0]
            return
        ch = full(1, "raise" if why == "refused" else "wait", on_undelivered=gone.append)
        match why:
            case "timed out":
                with pytest.raises(TimeoutError):
                    await ch.send(9).within(0.001)
            case "closed" | "cancelled":
                sending = spawn(ch.send, 9)
                await settle(lambda: waiting(ch) == (1, 0))
                ch.close() if why == "closed" else ch.cancel()
                with pytest.raises(HandleClosed):
                    await sending.wait()
            case "not now":
                with pytest.raises(WouldBlock):
                    ch.send_nowait(9)
            case _:
                with pytest.raises(ChannelFull):
                    await ch.send(9)
        assert gone == ([0] if why == "cancelled" else [])

    world.run(body)


def test_a_send_whose_task_is_cancelled_is_not_told(loop_world: World) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = full(1, on_undelivered=gone.append)
        sending = spawn(ch.send, 9)
        await settle(lambda: waiting(ch) == (1, 0))
        sending.cancel()
        with pytest.raises(ChildCancelled):
            await sending.wait()
        assert gone == []
        assert ch.drain() == [0]
        assert counts(ch) == (1, 1, 0, 0)

    loop_world.run(body)


def test_what_is_received_is_never_told(pair: Pair) -> None:
    gone: list[int] = []
    ch = Channel[int](3, on_undelivered=gone.append)

    async def produce() -> None:
        await ch.send_all(range(200))
        ch.close()

    async def consume() -> list[int]:
        return [n async for n in ch]

    assert pair.run(produce, consume)[1] == list(range(200))
    assert gone == []


@orders
@drops
def test_of_many_senders_every_value_is_received_or_dropped_once(overflow: Overflow, order: Order) -> None:
    """From all worlds at once (invariant 1: received exactly once, or told)."""
    gone: list[int] = []
    ch = Channel[int](4, overflow=overflow, order=order, on_undelivered=gone.append)
    ended = threading.Barrier(3, action=ch.close)

    async def produce(first: int) -> None:
        for n in range(first, first + 300):
            await ch.send(n)
        ended.wait(20)

    async def consume() -> list[int]:
        return [n async for n in ch]

    names = ("asyncio", "trio", "threads")
    *_, got, more = run_together(
        *[(ALL[name], produce, 1000 * n) for n, name in enumerate(names)],
        (ALL["threads"], consume),
        (ALL["asyncio"], consume),
    )
    assert sorted(got + more + gone) == [1000 * place + n for place in range(3) for n in range(300)]
    assert counts(ch) == (900, len(got + more), len(gone), 0)


# ----------------------------------------------------------------- force_send (async-channel)
@policies
def test_force_send_with_room_displaces_nothing(world: World, overflow: Overflow) -> None:
    async def body() -> None:
        ch = Channel[int](2, overflow=overflow)
        assert ch.force_send(0) == []
        assert ch.force_send(1) == []
        assert counts(ch) == (2, 0, 0, 2)
        assert ch.statistics().peak == 2
        assert ch.drain() == [0, 1]

    world.run(body)


@policies
def test_force_send_into_a_full_channel_displaces_one_under_every_policy(world: World, overflow: Overflow) -> None:
    """It is the caller who gets it, so it is not told."""

    async def body() -> None:
        gone: list[int] = []
        ch = full(2, overflow, on_undelivered=gone.append)
        assert ch.force_send(8) == [0]
        assert ch.force_send(9) == [1]
        assert gone == []
        assert counts(ch) == (4, 0, 2, 2)
        assert ch.statistics().peak == 2
        assert ch.drain() == [8, 9]

    world.run(body)


@orders
def test_force_send_displaces_what_has_been_inside_for_longest(world: World, order: Order) -> None:
    async def body() -> None:
        ch = Channel[int](3, order=order)
        await ch.send_all([2, 1, 3])
        assert [ch.force_send(n) for n in (0, 4)] == [[2], [1]]
        assert ch.drain() == {"fifo": [3, 0, 4], "lifo": [4, 0, 3], "priority": [0, 3, 4]}[order]

    world.run(body)


def test_force_send_displaces_whatever_value_it_was(world: World) -> None:
    """A displaced None is not nothing."""

    async def body() -> None:
        ch = Channel[object](1)
        await ch.send(None)
        assert ch.force_send([]) == [None]
        assert ch.force_send(None) == [[]]

    world.run(body)


@pytest.mark.parametrize("capacity", [0, 1, math.inf])
@pytest.mark.parametrize("how", ["receive", "receive_some", "select", "within"])
def test_force_send_gives_to_a_waiting_receiver(world: World, capacity: float, how: str) -> None:
    async def body() -> None:
        ch = Channel[int](capacity)
        ops = {
            "receive": ch.receive,
            "receive_some": lambda: ch.receive_some().map(lambda got: got[0]),
            "select": lambda: select(Event(), ch).map(lambda got: got[1]),
            "within": lambda: ch.receive().within(60),
        }
        receiving = spawn(ops[how])
        await settle(lambda: waiting(ch) == (0, 1))
        assert ch.force_send(1) == []
        assert await receiving.wait() == 1
        assert counts(ch) == (1, 1, 0, 0)

    world.run(body)


def test_force_send_on_a_rendezvous_without_a_receiver_is_refused(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0, name="jobs")
        with pytest.raises(ChannelFull, match="'jobs'"):
            ch.force_send(1)
        sending = spawn(ch.send, 2)
        await settle(lambda: waiting(ch) == (1, 0))
        with pytest.raises(ChannelFull):  # a waiting sender is no receiver
            ch.force_send(1)
        assert ch.drain() == [2]
        await sending.wait()
        assert counts(ch) == (1, 1, 0, 0)

    world.run(body)


@pytest.mark.parametrize("cause", [None, OSError("disk")])
@pytest.mark.parametrize("end", ["close", "cancel"])
def test_force_send_on_what_is_over_is_refused_and_displaces_nothing(
    world: World, end: str, cause: Exception | None
) -> None:
    async def body() -> None:
        ch = full(1)
        getattr(ch, end)(cause)
        with pytest.raises(HandleClosed, match="'jobs'") as caught:
            ch.force_send(1)
        assert caught.value.cause is cause
        assert ch.drain() == ([0] if end == "close" else [])

    world.run(body)


def test_force_send_passes_senders_that_wait(world: World) -> None:
    async def body() -> None:
        ch = full(2)
        senders = []
        for n in (2, 3):
            senders.append(spawn(ch.send, n))
            await settle(lambda n=n: waiting(ch) == (n - 1, 0))
        assert ch.force_send(9) == [0]
        assert waiting(ch) == (2, 0)
        assert ch.drain() == [1, 9, 2, 3]
        for sender in senders:
            await sender.wait()
        assert counts(ch) == (5, 4, 1, 0)

    world.run(body)


@pytest.mark.parametrize("through", ["view", "end"])
def test_force_send_through_a_view_or_an_end(world: World, through: str) -> None:
    async def body() -> None:
        if through == "view":
            ch = Channel[int](1)
            assert [ch.sender().force_send(n) for n in range(3)] == [[], [0], [1]]
            return
        tx, rx = open_channel[int](1)
        with tx, rx:
            assert [tx.force_send(n) for n in range(3)] == [[], [0], [1]]
            other = tx.clone()
            other.close()
            with pytest.raises(HandleClosed):
                other.force_send(3)
            rx.close()
            with pytest.raises(BrokenChannel):
                tx.force_send(4)

    world.run(body)


def test_force_send_from_another_thread_wakes_a_receiver(pair: Pair) -> None:
    ch = Channel[int](1)

    async def produce() -> None:
        await settle(lambda: waiting(ch) == (0, 1))
        assert ch.force_send(1) == []

    async def consume() -> int:
        return await ch.receive()

    assert pair.run(produce, consume)[1] == 1


def test_force_send_with_priority_takes_part_in_the_order(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3, order="priority")
        await ch.send_all([5, 3])
        assert ch.force_send(4) == []
        assert ch.force_send(9) == [5]
        assert ch.drain() == [3, 4, 9]

    world.run(body)


# ----------------------------------------------------------------- making one
@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
def test_a_rendezvous_can_only_wait(overflow: Overflow) -> None:
    """Kotlin turns it into a buffer of one without a word."""
    for make in (Channel, open_channel):
        with pytest.raises(ValueError, match=r"overflow must be 'wait' if the capacity is 0, not '" + overflow):
            make(0, overflow=overflow)  # type: ignore[operator]


@pytest.mark.parametrize("overflow", ["drop", "WAIT", "", None, 0, True, []])
def test_an_unknown_policy_is_refused_by_name(overflow: Any) -> None:
    with pytest.raises(
        (ValueError, TypeError),
        match=r"overflow must be one of 'wait', 'raise', 'drop_oldest', 'drop_newest', not ",
    ):
        Channel[int](1, overflow=overflow)


# ----------------------------------------------------------------- against a model
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 9)),
        st.tuples(st.just("some"), st.integers(0, 6)),
        st.tuples(st.just("force"), st.integers(0, 9)),
        st.tuples(st.just("receive"), st.just(0)),
    ),
    max_size=50,
)


class Model:
    """A list of (rank, number) in the order of arrival, and what becomes of the rest."""

    def __init__(self, capacity: int, order: Order, overflow: Overflow) -> None:
        self.capacity, self.order, self.overflow = capacity, order, overflow
        self.inside: list[tuple[int, int]] = []
        self.told: list[tuple[int, int]] = []
        self.displaced = 0
        self.sent = 0

    def put(self, value: tuple[int, int]) -> bool:
        if len(self.inside) == self.capacity:
            if self.overflow == "drop_newest":
                self.sent += 1
                self.told.append(value)
                return True
            if self.overflow != "drop_oldest":
                return False
            self.told.append(self.inside.pop(0))
        self.sent += 1
        self.inside.append(value)
        return True

    def force(self, value: tuple[int, int]) -> list[tuple[int, int]]:
        out = [self.inside.pop(0)] if len(self.inside) == self.capacity else []
        self.displaced += len(out)
        self.sent += 1
        self.inside.append(value)
        return out

    def take(self) -> tuple[int, int]:
        place = {"fifo": 0, "lifo": -1}.get(self.order)
        return self.inside.pop(self.inside.index(min(self.inside)) if place is None else place)


@policies
@orders
@given(capacity=st.integers(1, 6), script=steps)
def test_any_sequence_of_operations_does_what_a_list_does(
    overflow: Overflow, order: Order, capacity: int, script: list[tuple[str, int]]
) -> None:
    told: list[tuple[int, int]] = []
    ch = Channel[tuple[int, int]](capacity, order=order, overflow=overflow, on_undelivered=told.append)
    model = Model(capacity, order, overflow)
    for number, (kind, n) in enumerate(script):
        value = (n, number)
        match kind:
            case "send":
                if model.put(value):
                    ch.send_nowait(value)
                else:
                    with pytest.raises(ChannelFull):
                        ch.send_nowait(value)
            case "some":
                values = [(n - k, 1000 * number + k) for k in range(n)]
                sent = 0
                while sent < n and model.put(values[sent]):
                    sent += 1
                if sent or not n:
                    assert ch.send_some(values).poll() == sent
            case "force":
                assert ch.force_send(value) == model.force(value)
            case _ if model.inside:
                assert ch.receive_nowait() == model.take()
            case _:
                pass
        assert told == model.told
        found = ch.statistics()
        assert (found.sent, found.buffered) == (model.sent, len(model.inside))
        assert found.dropped == len(model.told) + model.displaced
    assert ch.drain() == [model.take() for _ in range(len(model.inside))]
