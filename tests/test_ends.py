"""Counted ends: who is counted, how the two sides end each other, and what anyio's streams can do with them.

Suites followed: trio's and anyio's memory channels (clones, close while others wait, statistics, the warning of an end
that was not closed), crossbeam-channel and async-channel (the last sender, the last receiver), tokio's `mpsc` (a sender
that is told that nobody receives any more).
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledObjectStream
from anyio.streams.text import TextReceiveStream, TextSendStream
from worlds import ALL, ChildCancelled, Handle, Pair, World, run_together, settle, spawn, waiting

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    Op,
    Receiver,
    ReceiveSide,
    Sender,
    SendSide,
    after,
    open_channel,
    select,
)


def ends(end: Any) -> tuple[int, int]:
    """How many senders and receivers are open."""
    found = end.statistics()
    return found.senders, found.receivers


async def all_parked(end: Any, *ops: Callable[[], Any]) -> list[Handle]:
    """One child for each of `ops`, waiting in this order."""
    children = []
    before = sum(waiting(end))
    for op in ops:
        children.append(spawn(op))
        await settle(lambda: sum(waiting(end)) == before + len(children) or children[-1].done)
        assert not children[-1].done
    return children


SENDS: dict[str, Callable[[Sender[int]], Any]] = {
    "send": lambda tx: tx.send(1),
    "send_some": lambda tx: tx.send_some([1, 2]),
    "send_all": lambda tx: tx.send_all([1, 2]),
    "send_all of an iterator": lambda tx: tx.send_all(iter([1, 2])),
    "select": lambda tx: select(after(60), tx.send(1)),
    "within": lambda tx: tx.send(1).within(60),
    "map": lambda tx: tx.send(1).map(str),
}
RESERVES: dict[str, Callable[[Sender[int]], Any]] = {
    "reserve": lambda tx: tx.reserve(),
    "select of reserve": lambda tx: select(Event(), tx.reserve()),
}
RECEIVES: dict[str, Callable[[Receiver[int]], Any]] = {
    "receive": lambda rx: rx.receive(),
    "receive_some": lambda rx: rx.receive_some(),
    "select": lambda rx: select(after(60), rx),
    "select of itself twice": lambda rx: select(rx, after(60), rx.receive_some()),
    "within": lambda rx: rx.receive().within(60),
    "map": lambda rx: rx.receive().map(str),
    "async for": lambda rx: anext(aiter(rx)),
    "__anext__": lambda rx: rx.__anext__(),
}
NOW_SENDS: dict[str, Callable[[Sender[int]], Any]] = {
    "send_nowait": lambda tx: tx.send_nowait(1),
    "force_send": lambda tx: tx.force_send(1),
    "poll": lambda tx: tx.send(1).poll(),
}
NOW_RECEIVES: dict[str, Callable[[Receiver[int]], Any]] = {
    "receive_nowait": lambda rx: rx.receive_nowait(),
    "drain": lambda rx: rx.drain(),
    "poll": lambda rx: rx.receive().poll(),
}

sends = pytest.mark.parametrize("send", [*SENDS.values(), *RESERVES.values()], ids=[*SENDS, *RESERVES])
receives = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


def full(capacity: int, *, on_undelivered: Callable[[int], object] | None = None) -> tuple[Sender[int], Receiver[int]]:
    """With 100, 101, ... inside."""
    tx, rx = open_channel[int](capacity, name="jobs", on_undelivered=on_undelivered)
    for n in range(capacity):
        tx.send_nowait(100 + n)
    return tx, rx


# ----------------------------------------------------------------- the ends and their number
def test_what_goes_in_at_one_end_comes_out_at_the_other(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](10)
        with tx, rx:
            await tx.send(0)
            tx.send_nowait(1)
            assert await tx.send_some([2, 3]) == 2
            await tx.send_all([4, 5])
            assert tx.force_send(6) == []
            (await tx.reserve()).send(7)
            assert len(tx) == len(rx) == 8
            assert await rx.receive() == 0
            assert rx.receive_nowait() == 1
            assert await rx.receive_some(2) == [2, 3]
            assert await select(Event(), rx) == (1, 4)
            assert await anext(rx) == 5
            assert rx.drain() == [6, 7]
            assert tx.capacity == rx.capacity == 10
            assert tx.statistics() == rx.statistics() == (10, 0, 0, 0, 1, 1, 8, 8, 0, 8)

    world.run(body)


def test_a_rendezvous_between_ends(pair: Pair) -> None:
    tx, rx = open_channel[int](0)

    async def produce() -> None:
        async with tx:
            for n in range(50):
                await tx.send(n)

    async def consume() -> list[int]:
        async with rx:
            return [n async for n in rx]

    assert pair.run(produce, consume)[1] == list(range(50))
    assert ends(tx) == (0, 0)


def test_statistics_count_the_open_ends(world: World) -> None:
    """trio: test_statistics; anyio: the same."""

    async def body() -> None:
        tx, rx = open_channel[int](math.inf)
        assert ends(tx) == ends(rx) == (1, 1)
        with tx.clone() as tx2:
            assert ends(tx) == (2, 1)
            with tx2.clone(), rx.clone(), rx.clone():
                assert ends(tx) == (3, 3)
            assert ends(tx) == (2, 1)
        assert ends(tx) == (1, 1)
        tx.close()
        tx.close()
        assert ends(tx) == (0, 1)
        rx.close()
        assert ends(rx) == (0, 0)

    world.run(body)


def test_an_end_is_closed_once(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        twin = tx.clone()
        assert tx.close() is True
        assert tx.close() is False
        assert tx.close(OSError("late")) is False
        await tx.aclose()
        assert ends(rx) == (1, 1)
        assert twin.close() is True
        assert rx.close() is True
        assert rx.close() is False
        assert ends(rx) == (0, 0)

    world.run(body)


def test_is_closed_of_an_end_and_of_the_whole(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        twin = tx.clone()
        assert (tx.is_closed, twin.is_closed, rx.is_closed) == (False, False, False)
        tx.close()
        assert (tx.is_closed, twin.is_closed, rx.is_closed) == (True, False, False)
        twin.close()
        assert (tx.is_closed, twin.is_closed, rx.is_closed) == (True, True, True)
        rx.close()

    world.run(body)


def test_a_clone_is_an_end_like_any_other(world: World) -> None:
    """trio: test_channel_multiple_producers, and consumers."""

    async def body() -> None:
        tx, rx = open_channel[int](0)

        async def produce(tx: Sender[int], first: int) -> None:
            async with tx:
                for n in range(first, first + 20):
                    await tx.send(n)

        async def consume(rx: Receiver[int]) -> list[int]:
            async with rx:
                return [n async for n in rx]

        producers = [spawn(produce, tx.clone(), 20 * n) for n in range(5)]
        consumers = [spawn(consume, rx.clone()) for _ in range(3)]
        tx.close()
        rx.close()
        for producer in producers:
            await producer.wait()
        got = [n for consumer in consumers for n in await consumer.wait()]
        assert sorted(got) == list(range(100))
        assert ends(tx) == (0, 0)

    world.run(body)


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_cloning_a_closed_end_raises(world: World, side: str) -> None:
    """anyio: test_clone_closed."""

    async def body() -> None:
        tx, rx = open_channel[int](1)
        end: Any = tx if side == "sender" else rx
        twin = end.clone()
        end.close()
        before = ends(tx)
        with pytest.raises(HandleClosed):
            end.clone()
        assert ends(tx) == before
        with twin.clone() as another:
            assert not another.is_closed
        for each in (twin, tx, rx):
            each.close()
        with pytest.raises(anyio.ClosedResourceError):
            twin.clone()

    world.run(body)


def test_open_channel_takes_the_options_of_a_channel(world: World) -> None:
    async def body() -> None:
        gone: list[int] = []
        tx, rx = open_channel[int](2, order="priority", overflow="drop_oldest", name="jobs", on_undelivered=gone.append)
        with tx, rx:
            await tx.send_all([3, 2, 1])
            assert gone == [3]
            assert rx.drain() == [1, 2]
            assert "'jobs'" in repr(tx)
            assert "'jobs'" in repr(rx)
            assert "closed" not in repr(tx)
            tx.close()
            assert "closed" in repr(tx)

    world.run(body)


@pytest.mark.parametrize("bad", [{"order": "best"}, {"overflow": "burst"}, {"on_undelivered": 3}, {"limit": 3}])
def test_bad_options_make_no_ends(bad: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
            open_channel(1, **bad)
        for capacity in (-1, 0.5, None, True):
            with pytest.raises((ValueError, TypeError), match="capacity"):
                open_channel(capacity)  # type: ignore[arg-type]
        gc.collect()


def test_an_end_is_true_hashable_and_only_itself() -> None:
    tx, rx = open_channel[int](1)
    with tx, rx, tx.clone() as twin:
        assert tx
        assert rx
        assert len(tx) == 0
        assert tx != twin
        assert len({tx, twin, rx}) == 3


@pytest.mark.parametrize("inside", ["the value", "another"])
def test_in_is_a_type_error_since_looking_would_be_receiving(inside: str) -> None:
    """As of a channel; on either kind of end, and on a view. (The value would be gone.)"""
    tx, rx = open_channel[str](2)
    tx.send_nowait(inside)
    tx.close()
    with rx:
        for end in (tx, rx):
            with pytest.raises(TypeError):
                "the value" in end  # type: ignore[operator]  # noqa: B015
        assert len(rx) == 1
        assert list(rx) == [inside]
    ch = Channel[str](1)
    ch.send_nowait(inside)
    ch.close()
    for view in (ch.sender(), ch.receiver()):
        with pytest.raises(TypeError):
            "the value" in view  # type: ignore[operator]  # noqa: B015
    assert ch.drain() == [inside]


def test_an_end_is_neither_copied_nor_pickled() -> None:
    tx, rx = open_channel[int](1)
    with tx, rx:
        for end in (tx, rx):
            for twice in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=r"clone\(\)"):
                    twice(end)
        assert ends(tx) == (1, 1)


@pytest.mark.parametrize("cause", ["broken", 3, OSError])
def test_a_cause_that_is_no_exception_closes_nothing(cause: Any) -> None:
    tx, rx = open_channel[int](1)
    with tx, rx:
        for end in (tx, rx):
            with pytest.raises(TypeError, match="cause must be an exception or None"):
                end.close(cause)
        assert ends(tx) == (1, 1)


def test_ends_satisfy_the_protocols_of_their_sides() -> None:
    tx, rx = open_channel[int](1)
    with tx, rx:
        assert isinstance(tx, SendSide)
        assert not isinstance(tx, ReceiveSide)
        assert isinstance(rx, ReceiveSide)
        assert not isinstance(rx, SendSide)
        op = rx.__op__()
        assert isinstance(op, Op)
        op.close()
        with pytest.raises(TypeError):
            select(tx)  # type: ignore[call-overload]
        select(rx).close()


# ----------------------------------------------------------------- the last sender
def test_the_last_senders_close_ends_the_stream(world: World) -> None:
    """trio: test_close_multiple_send_handles; crossbeam: recv after the senders are dropped."""

    async def body() -> None:
        tx, rx = open_channel[int](5)
        with rx:
            twin = tx.clone()
            await tx.send(0)
            tx.close()
            assert await rx.receive() == 0
            with pytest.raises(ChannelEmpty):
                rx.receive_nowait()
            (receiving,) = await all_parked(rx, rx.receive)
            await twin.send(1)
            assert await receiving.wait() == 1
            await twin.send(2)
            twin.close()
            assert await rx.receive() == 2
            for receive in RECEIVES.values():
                if receive in (RECEIVES["async for"], RECEIVES["__anext__"]):
                    with pytest.raises(StopAsyncIteration):
                        await receive(rx)
                else:
                    with pytest.raises(EndOfChannel):
                        await receive(rx)
            with pytest.raises(EndOfChannel):
                rx.receive_nowait()
            assert rx.drain() == []

    world.run(body)


@receives
def test_a_waiting_receiver_is_told_by_the_last_sender(world: World, receive: Callable[[Receiver[int]], Any]) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](5)
        with rx:
            twin = tx.clone()
            waits = 3 if receive is RECEIVES["select of itself twice"] else 1
            child = spawn(receive, rx)
            await settle(lambda: waiting(rx)[1] in (waits, waits - 1) and waiting(rx)[1])
            tx.close()
            await settle(lambda: True)
            assert not child.done
            twin.close()
            with pytest.raises((EndOfChannel, StopAsyncIteration)):
                await child.wait()
            assert waiting(rx) == (0, 0)

    world.run(body)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_leaving_with_closes_the_end(world: World, asynchronous: bool) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](5)
        if asynchronous:
            async with tx as same:
                assert same is tx
                await tx.send(1)
            async with rx as other:
                assert [n async for n in other] == [1]
        else:
            with tx as same:
                assert same is tx
                await tx.send(1)
            with rx as other:
                assert [n async for n in other] == [1]
        assert ends(tx) == (0, 0)
        with pytest.raises(HandleClosed):
            await rx.receive()

    world.run(body)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_leaving_with_by_an_exception_breaks_the_stream_with_it(world: World, asynchronous: bool) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](5)
        error = OSError("disk")

        async def produce() -> None:
            if asynchronous:
                async with tx:
                    await tx.send(1)
                    raise error
            with tx:
                await tx.send(1)
                raise error

        got: list[int] = []

        async def consume() -> None:
            async for n in rx:
                got.append(n)

        with rx:
            with pytest.raises(OSError, match="disk"):
                await produce()
            with pytest.raises(BrokenChannel) as caught:
                await consume()
            assert got == [1]
            assert caught.value.cause is error
            for receive in RECEIVES.values():
                with pytest.raises(BrokenChannel) as caught:
                    await receive(rx)
                assert caught.value.cause is error

    world.run(body)


@pytest.mark.parametrize(
    ("causes", "seen"), [("a-", "a"), ("-a", "a"), ("ab", "a"), ("ba", "b"), ("--", "-"), ("-a-b", "a")]
)
def test_the_first_cause_of_any_sender_is_what_receivers_get(world: World, causes: str, seen: str) -> None:
    """Also if senders after it ended well: the stream is not complete."""

    async def body() -> None:
        tx, rx = open_channel[int](5)
        senders = [tx, *[tx.clone() for _ in causes[1:]]]
        errors = {name: OSError(name) for name in "ab"}
        with rx:
            await tx.send(0)
            for sender, name in zip(senders, causes, strict=True):
                sender.close(errors.get(name))
            assert await rx.receive() == 0
            with pytest.raises(BrokenChannel if seen != "-" else EndOfChannel) as caught:
                await rx.receive()
            assert caught.value.cause is errors.get(seen)

    world.run(body)


def test_a_cause_waits_for_the_last_sender(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](5)
        with rx, tx.clone() as twin:
            tx.close(OSError("disk"))
            await twin.send(1)
            assert await rx.receive() == 1
            with pytest.raises(ChannelEmpty):
                rx.receive_nowait()
            assert not rx.is_closed

    world.run(body)


@pytest.mark.parametrize("when", ["waiting", "afterwards"])
def test_senders_get_handle_closed_from_the_cause(world: World, when: str) -> None:
    """The design: closing with a cause gives senders `HandleClosed` from it."""

    async def body() -> None:
        tx, rx = full(1)
        cause = OSError("disk")
        with rx:
            if when == "waiting":
                (sending,) = await all_parked(tx, lambda: tx.send(1))
                tx.close(cause)
                with pytest.raises(HandleClosed) as caught:
                    await sending.wait()
            else:
                tx.close(cause)
                with pytest.raises(HandleClosed) as caught:
                    await tx.send(1)
            assert caught.value.cause is cause

    world.run(body)


def test_wait_closed_of_either_end_is_ready_at_the_last_senders_close(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        with rx, tx.clone() as twin:
            children = [spawn(tx.wait_closed), spawn(rx.wait_closed), spawn(select, Event(), tx.wait_closed())]
            tx.close()
            for _ in range(5):
                await settle(lambda: True)
            assert not any(child.done for child in children)
            twin.close()
            for child in children:
                await child.wait()
            assert rx.drain() == [100]

    world.run(body)


# ----------------------------------------------------------------- the last receiver
def test_the_last_receivers_close_breaks_it_for_senders(world: World) -> None:
    """trio: test_close_basics; tokio: send after the receiver was dropped."""

    async def body() -> None:
        gone: list[int] = []
        tx, rx = full(3, on_undelivered=gone.append)
        with tx:
            twin = rx.clone()
            rx.close()
            assert gone == []
            assert await twin.receive() == 100
            await tx.send(103)
            twin.close()
            assert gone == [101, 102, 103]
            for send in (*SENDS.values(), *RESERVES.values()):
                with pytest.raises(BrokenChannel, match="no receiver"):
                    await send(tx)
            for now in NOW_SENDS.values():
                with pytest.raises(BrokenChannel, match="'jobs'"):
                    now(tx)
            assert tx.is_closed
            found = tx.statistics()
            assert (found.sent, found.received, found.dropped, found.buffered) == (4, 1, 3, 0)
        assert gone == [101, 102, 103]

    world.run(body)


@sends
def test_a_waiting_sender_is_told_by_the_last_receiver(world: World, send: Callable[[Sender[int]], Any]) -> None:
    """What it has not sent is its own, and is not told as undelivered."""

    async def body() -> None:
        gone: list[int] = []
        tx, rx = full(2, on_undelivered=gone.append)
        with tx:
            twin = rx.clone()
            (sending,) = await all_parked(tx, lambda: send(tx))
            rx.close()
            await settle(lambda: True)
            assert not sending.done
            twin.close()
            with pytest.raises(BrokenChannel) as caught:
                await sending.wait()
            assert caught.value.cause is None
            assert gone == [100, 101]
            assert waiting(tx) == (0, 0)

    world.run(body)


def test_the_cause_of_the_last_receiver_reaches_senders(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        cause = OSError("disk")
        with tx:
            (sending,) = await all_parked(tx, lambda: tx.send(1))
            with pytest.raises(OSError, match="disk"), rx:
                raise cause
            with pytest.raises(BrokenChannel) as caught:
                await sending.wait()
            assert caught.value.cause is cause
            with pytest.raises(BrokenChannel) as again:
                await tx.send(1)
            assert again.value.cause is cause
            assert again.value is not caught.value

    world.run(body)


def test_a_producer_stops_when_nobody_listens(pair: Pair) -> None:
    """tokio: Sender::closed."""
    tx, rx = open_channel[int](0)

    async def produce() -> int:
        sent = 0
        with tx:
            while True:
                arm, _ = await select(tx.send(sent), tx.wait_closed(), biased=True).map(lambda got: got)
                if arm == 1:
                    return sent
                sent += 1

    async def watched() -> int:
        try:
            return await produce()
        except BrokenChannel:
            return -1

    async def consume() -> list[int]:
        with rx:
            return [await rx.receive() for _ in range(10)]

    sent, got = pair.run(watched, consume)
    assert got == list(range(10))
    assert sent in (-1, 10)


def test_of_the_last_receiver_and_the_last_sender_the_order_does_not_matter(world: World) -> None:
    async def body() -> None:
        for first in ("tx", "rx"):
            gone: list[int] = []
            tx, rx = full(2, on_undelivered=gone.append)
            for end in (tx, rx) if first == "tx" else (rx, tx):
                assert end.close() is True
            assert gone == [100, 101]
            assert ends(tx) == (0, 0)
            with pytest.raises(HandleClosed):
                tx.send_nowait(1)
            with pytest.raises(HandleClosed):
                rx.receive_nowait()

    world.run(body)


@pytest.mark.parametrize("by", ["close", "aclose", "with", "async with"])
def test_errors_of_on_undelivered_come_out_of_the_last_receivers_close(world: World, by: str) -> None:
    async def body() -> None:
        def tell(value: int) -> None:
            raise KeyError(value)

        tx, rx = full(2, on_undelivered=tell)

        async def close() -> None:
            match by:
                case "close":
                    rx.close()
                case "aclose":
                    await rx.aclose()
                case "with":
                    with rx:
                        pass
                case _:
                    async with rx:
                        pass

        with tx:
            (sending,) = await all_parked(tx, lambda: tx.send(1))
            with pytest.raises(ExceptionGroup, match="on_undelivered") as caught:
                await close()
            assert [error.args for error in caught.value.exceptions] == [(100,), (101,)]
            with pytest.raises(BrokenChannel):
                await sending.wait()
        assert ends(rx) == (0, 0)

    world.run(body)


# ----------------------------------------------------------------- closing one end of several
@sends
def test_closing_a_sender_fails_what_waits_through_it_and_nothing_else(
    world: World, send: Callable[[Sender[int]], Any]
) -> None:
    async def body() -> None:
        tx, rx = full(2)
        with rx, tx.clone() as other:
            mine, theirs = await all_parked(tx, lambda: send(tx), lambda: other.send(102))
            assert tx.close() is True
            with pytest.raises(HandleClosed) as caught:
                await mine.wait()
            assert caught.value.cause is None
            assert not theirs.done
            assert waiting(rx) == (1, 0)
            assert rx.drain() == [100, 101, 102]
            await theirs.wait()
            found = rx.statistics()
            assert (found.sent, found.received) == (3, 3)

    world.run(body)


@receives
def test_closing_a_receiver_fails_what_waits_through_it_and_nothing_else(
    world: World, receive: Callable[[Receiver[int]], Any]
) -> None:
    """trio: test_receive_channel_clone_and_close."""

    async def body() -> None:
        tx, rx = open_channel[int](2)
        with tx, rx.clone() as other:
            mine = spawn(receive, rx)
            await settle(lambda: waiting(rx)[1] > 0)
            await settle(lambda: True)
            (theirs,) = await all_parked(rx, other.receive)
            assert rx.close() is True
            with pytest.raises(HandleClosed):
                await mine.wait()
            assert not theirs.done
            assert waiting(tx) == (0, 1)
            await tx.send(1)
            assert await theirs.wait() == 1
            await tx.send(2)
            assert await other.receive() == 2

    world.run(body)


def test_of_a_select_the_arm_whose_end_is_closed_is_named(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        tx2, rx2 = open_channel[int](1)
        with tx, rx, tx2, rx2:
            mine, mine2 = tx.clone(), rx2.clone()
            (first,) = await all_parked(tx, lambda: select(Event(), mine.send(1), rx2))
            mine.close()
            with pytest.raises(HandleClosed) as caught:
                await first.wait()
            assert caught.value.arm == 1
            assert waiting(rx2) == (0, 0)
            (second,) = await all_parked(tx, lambda: select(Event(), tx.send(1), mine2))
            mine2.close()
            with pytest.raises(HandleClosed) as caught:
                await second.wait()
            assert caught.value.arm == 2
            assert waiting(tx) == (0, 0)
            assert rx.drain() == [100]

    world.run(body)


def test_a_select_over_two_ends_of_one_channel(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        with tx, rx:
            twin = rx.clone()
            child = spawn(lambda: select(twin, rx))
            await settle(lambda: waiting(rx)[1] > 0)
            await settle(lambda: True)
            twin.close()
            with pytest.raises(HandleClosed) as caught:
                await child.wait()
            assert caught.value.arm == 0
            await tx.send(1)
            assert rx.receive_nowait() == 1

    world.run(body)


def test_closing_an_end_lets_in_who_stood_behind_its_reservation(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](3)
        with rx, tx.clone() as other:
            await tx.send_all([1, 2])
            mine, theirs = await all_parked(tx, lambda: tx.reserve(2), lambda: other.send(3))
            tx.close()
            with pytest.raises(HandleClosed):
                await mine.wait()
            await theirs.wait()
            assert rx.drain() == [1, 2, 3]

    world.run(body)


def test_closing_many_of_many_leaves_the_rest_in_order(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        with rx, tx:
            clones = [tx.clone() for _ in range(12)]
            children = await all_parked(tx, *[lambda n=n: clones[n].send(n) for n in range(12)])
            for n in range(0, 12, 2):
                clones[n].close()
            for n in range(0, 12, 2):
                with pytest.raises(HandleClosed):
                    await children[n].wait()
            assert waiting(tx) == (6, 0)
            assert await rx.receive_some() == [100, 1, 3, 5, 7, 9, 11]
            for n in range(1, 12, 2):
                await children[n].wait()
                clones[n].close()

    world.run(body)


def perform(op: Any, how: str) -> Any:
    match how:
        case "await":
            return op
        case "select":
            return select(Event(), op)
        case "within":
            return op.within(60)
        case _:
            return at_once(op)


async def at_once(op: Op[Any]) -> Any:
    return op.poll()


NO_OPERATION = {"send_all", "send_all of an iterator", "async for", "__anext__"}  # only a coroutine
WAYS = [
    (kind, how)
    for kind in (*SENDS, *RESERVES, *RECEIVES)
    for how in ("await", "poll", "select", "within")
    if how == "await" or kind not in NO_OPERATION
]


@pytest.mark.parametrize("others_open", [False, True])
@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_an_operation_made_before_the_close_fails_after_it(
    world: World, kind: str, how: str, others_open: bool
) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](2)
        with contextlib.ExitStack() as others, tx, rx:
            if others_open:
                others.enter_context(tx.clone())
                others.enter_context(rx.clone())
            await tx.send(5)
            if kind in RECEIVES:
                op = RECEIVES[kind](rx)
                rx.close()
            else:
                op = {**SENDS, **RESERVES}[kind](tx)
                tx.close()
            with pytest.raises(HandleClosed):
                await perform(op, how)
            assert waiting(tx) == (0, 0)
            if others_open:
                assert len(tx) == 1

    world.run(body)


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_every_use_of_a_closed_end_is_refused_though_others_are_open(world: World, side: str) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](3)
        with tx.clone() as tx2, rx.clone() as rx2, tx, rx:
            await tx.send(7)
            if side == "sender":
                tx.close()
                for send in (*SENDS.values(), *RESERVES.values()):
                    with pytest.raises(HandleClosed):
                        await send(tx)
                for now in NOW_SENDS.values():
                    with pytest.raises(HandleClosed):
                        now(tx)
                await tx2.send(8)
                assert rx2.drain() == [7, 8]
            else:
                rx.close()
                for receive in RECEIVES.values():
                    with pytest.raises(HandleClosed):
                        await receive(rx)
                for take in NOW_RECEIVES.values():
                    with pytest.raises(HandleClosed):
                        take(rx)
                assert await rx2.receive() == 7

    world.run(body)


def test_a_value_that_was_given_before_its_end_was_closed_is_received(world: World) -> None:
    """The peer had committed: closing the end takes nothing back."""

    async def body() -> None:
        tx, rx = open_channel[int](1)
        with tx, rx.clone():
            (receiving,) = await all_parked(rx, rx.receive)
            tx.send_nowait(1)
            rx.close()
            assert await receiving.wait() == 1

    world.run(body)


def test_a_cancelled_task_leaves_its_end_usable(loop_world: World) -> None:
    """anyio: test_receive_when_cancelled, test_cancel_receive."""

    async def body() -> None:
        tx, rx = open_channel[int](0)
        with tx, rx:
            (receiving,) = await all_parked(rx, rx.receive)
            receiving.cancel()
            with pytest.raises(ChildCancelled):
                await receiving.wait()
            assert waiting(rx) == (0, 0)
            with pytest.raises(ChannelFull):
                tx.send_nowait(1)
            (sending,) = await all_parked(tx, lambda: tx.send(2))
            sending.cancel()
            with pytest.raises(ChildCancelled):
                await sending.wait()
            with pytest.raises(ChannelEmpty):
                rx.receive_nowait()
            assert ends(tx) == (1, 1)

    loop_world.run(body)


def test_the_errors_of_ends_name_their_channel_and_its_object(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        with rx:
            tx.close()
            with pytest.raises(HandleClosed, match="'jobs'") as refused:
                await tx.send(1)
            assert await rx.receive() == 100
            with pytest.raises(EndOfChannel, match="'jobs'") as ended:
                await rx.receive()
            assert refused.value.channel is ended.value.channel is not None

    world.run(body)


# ----------------------------------------------------------------- ends that are dropped
def drop_sender(tx: list[Sender[int]]) -> None:
    with pytest.warns(ResourceWarning, match=r"Sender.*'jobs'.*dropped without close\(\)"):
        tx.clear()


def test_a_dropped_sender_warns_and_breaks_the_stream_after_the_drain(world: World) -> None:
    """anyio: test_not_closed_warning. Nobody is to take the stream for complete."""

    async def body() -> None:
        tx, rx = full(2)
        box = [tx]
        del tx
        with rx:
            drop_sender(box)
            assert rx.is_closed
            assert await rx.receive() == 100
            assert rx.receive_nowait() == 101
            with pytest.raises(BrokenChannel) as caught:
                await rx.receive()
            assert "dropped" in str(caught.value.cause)
            assert ends(rx) == (0, 1)

    world.run(body)


def test_a_dropped_sender_breaks_the_stream_also_if_others_end_well(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](2, name="jobs")
        box = [tx.clone()]
        with rx:
            (receiving,) = await all_parked(rx, rx.receive)
            drop_sender(box)
            assert not receiving.done
            await tx.send(1)
            assert await receiving.wait() == 1
            tx.close()
            with pytest.raises(BrokenChannel):
                await rx.receive()

    world.run(body)


def test_a_dropped_sender_wakes_receivers_that_wait(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](2, name="jobs")
        box = [tx]
        del tx
        with rx:
            (receiving,) = await all_parked(rx, rx.receive)
            drop_sender(box)
            with pytest.raises(BrokenChannel):
                await receiving.wait()

    world.run(body)


def test_a_dropped_receiver_warns_and_breaks_it_for_senders(world: World) -> None:
    async def body() -> None:
        gone: list[int] = []
        tx, rx = full(1, on_undelivered=gone.append)
        box = [rx]
        del rx
        with tx:
            (sending,) = await all_parked(tx, lambda: tx.send(1))
            with pytest.warns(ResourceWarning, match=r"Receiver.*'jobs'.*dropped without close\(\)"):
                box.clear()
            with pytest.raises(BrokenChannel) as caught:
                await sending.wait()
            assert "dropped" in str(caught.value.cause)
            assert gone == [100]

    world.run(body)


def test_a_dropped_receiver_of_several_only_warns(world: World) -> None:
    async def body() -> None:
        tx, rx = full(1)
        box = [rx.clone()]
        with tx, rx:
            with pytest.warns(ResourceWarning, match="Receiver"):
                box.clear()
            assert ends(tx) == (1, 1)
            assert await rx.receive() == 100
            tx.close()
            with pytest.raises(EndOfChannel):
                await rx.receive()

    world.run(body)


def test_ends_that_were_never_used_warn_each() -> None:
    with pytest.warns(ResourceWarning) as caught:
        open_channel(1)
    assert sorted(str(found.message).split()[0] for found in caught) == ["<Receiver", "<Sender"]


def test_a_closed_end_is_dropped_in_silence(world: World) -> None:
    async def body() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tx, rx = open_channel[int](1)
            with tx, rx, tx.clone(), rx.clone():
                pass
            del tx, rx

    world.run(body)


def test_an_end_in_a_cycle_is_closed_by_the_collector() -> None:
    tx, rx = full(1)
    with rx:
        tx.me = tx  # type: ignore[attr-defined]
        del tx
        with pytest.warns(ResourceWarning, match="Sender"):
            gc.collect()
        assert rx.drain() == [100]
        with pytest.raises(BrokenChannel):
            rx.receive_nowait()


def test_an_operation_that_waits_keeps_its_end(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](0, name="jobs")
        with tx:
            op = rx.receive()
            (receiving,) = await all_parked(tx, lambda op=op: op)
            del rx, op
            gc.collect()
            await tx.send(1)
            assert await receiving.wait() == 1
            with pytest.warns(ResourceWarning, match="Receiver"):
                await forget(receiving)

    async def forget(child: Handle) -> None:
        child.fn = forget
        await settle(lambda: gc.collect() >= 0)

    world.run(body)


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_dropped_end_counts_also_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    """As in a run of tests with `-W error`: whoever waits for the other side must not wait for ever."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    tx, rx = full(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if side == "sender":
            del tx
        else:
            del rx
        gc.collect()
    if side == "sender":
        with rx:
            assert rx.receive_nowait() == 100
            with pytest.raises(BrokenChannel):
                rx.receive_nowait()
    else:
        with tx, pytest.raises(BrokenChannel):
            tx.force_send(1)


# ----------------------------------------------------------------- across worlds
def test_each_sides_end_reaches_the_other_world(pair: Pair) -> None:
    tx, rx = open_channel[int](0)
    tx2, rx2 = full(1)

    async def end() -> None:
        await settle(lambda: waiting(rx) == (0, 1) and waiting(tx2) == (1, 0))
        tx.close()
        rx2.close()

    async def wait() -> None:
        with rx, tx2:
            receiving, sending = spawn(rx.receive), spawn(tx2.send, 1)
            with pytest.raises(EndOfChannel):
                await receiving.wait()
            with pytest.raises(BrokenChannel):
                await sending.wait()

    pair.run(end, wait)


def test_an_end_closed_in_one_world_fails_what_waits_through_it_in_another(pair: Pair) -> None:
    tx, rx = full(1)
    twin = tx.clone()

    async def close() -> None:
        await settle(lambda: waiting(tx) == (1, 0))
        twin.close()
        with tx:
            await tx.send(101)

    async def wait() -> list[int]:
        with rx:
            sending = spawn(twin.send, 1)
            with pytest.raises(HandleClosed):
                await sending.wait()
            return [n async for n in rx]

    assert pair.run(close, wait)[1] == [100, 101]


def test_clones_in_every_world_end_together() -> None:
    tx, rx = open_channel[int](3)

    async def produce(tx: Sender[int], first: int) -> None:
        async with tx:
            for n in range(first, first + 200):
                await tx.send(n)

    async def consume(rx: Receiver[int]) -> list[int]:
        async with rx:
            return [n async for n in rx]

    names = ("asyncio", "trio", "threads")
    producing = [(ALL[name], produce, tx.clone(), 1000 * n) for n, name in enumerate(names)]
    consuming = [(ALL[name], consume, rx.clone()) for name in names]
    tx.close()
    rx.close()
    *_, a, b, c = run_together(*producing, *consuming)
    assert sorted(a + b + c) == [1000 * place + n for place in range(3) for n in range(200)]
    assert ends(tx) == (0, 0)
    assert waiting(tx) == (0, 0)


def test_ends_closed_by_many_threads_at_once_are_counted_right() -> None:
    for _ in range(30):
        tx, rx = open_channel[int](1)
        clones = [tx.clone() for _ in range(4)]
        start = threading.Barrier(8)
        first: list[bool] = []

        def close(end: Sender[int], start: threading.Barrier = start, first: list[bool] = first) -> None:
            start.wait()
            first.append(end.close())

        threads = [threading.Thread(target=close, args=(end,)) for end in clones * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(first) == [False] * 4 + [True] * 4
        assert ends(rx) == (1, 1)
        tx.close()
        rx.close()


def test_ends_in_plain_threads() -> None:
    tx, rx = open_channel[int](2)

    def produce() -> None:
        with tx:
            tx.send_all(range(50)).sync()
            for n in range(50, 100):
                tx.send(n).sync()

    thread = threading.Thread(target=produce)
    thread.start()
    with rx:
        assert list(rx) == list(range(100))
        with pytest.raises(EndOfChannel):
            rx.receive().sync()
    thread.join()


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_for_over_an_end_in_a_loop_is_refused_and_takes_nothing(name: str) -> None:
    async def body() -> None:
        tx, rx = full(1)
        with tx, rx:
            with pytest.raises(RuntimeError, match="for"):
                list(rx)
            assert await rx.receive() == 100

    ALL[name].run(body)


# ----------------------------------------------------------------- anyio's streams
@contextlib.contextmanager
def opened(capacity: float) -> Iterator[tuple[Sender[Any], Receiver[Any]]]:
    tx, rx = open_channel[Any](capacity)
    with tx, rx:
        yield tx, rx


def test_ends_are_instances_of_anyios_streams() -> None:
    with opened(1) as (tx, rx):
        for kind in (
            anyio.abc.ObjectSendStream,
            anyio.abc.UnreliableObjectSendStream,
            anyio.abc.AsyncResource,
            anyio.TypedAttributeProvider,
        ):
            assert isinstance(tx, kind)
        for kind in (
            anyio.abc.ObjectReceiveStream,
            anyio.abc.UnreliableObjectReceiveStream,
            anyio.abc.AsyncResource,
            anyio.TypedAttributeProvider,
        ):
            assert isinstance(rx, kind)
        assert not isinstance(tx, anyio.abc.ObjectReceiveStream)
        assert not isinstance(rx, anyio.abc.ObjectSendStream)
        assert issubclass(Sender, anyio.abc.ObjectSendStream)
        assert issubclass(Receiver, anyio.abc.ObjectReceiveStream)


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_ends_have_all_that_anyios_streams_have(side: str) -> None:
    abstract = anyio.abc.ObjectSendStream if side == "sender" else anyio.abc.ObjectReceiveStream
    with opened(1) as (tx, rx):
        end = tx if side == "sender" else rx
        wanted = {name for name in dir(abstract) if not name.startswith("_")}
        wanted |= {"__aenter__", "__aexit__"} | ({"__aiter__", "__anext__"} if side == "receiver" else set())
        assert [name for name in sorted(wanted) if not hasattr(end, name)] == []


def test_the_typed_attributes_of_an_end() -> None:
    class Attributes(anyio.TypedAttributeSet):
        peer: str = anyio.typed_attribute()

    with opened(1) as (tx, rx):
        for end in (tx, rx):
            assert dict(end.extra_attributes) == {}
            assert end.extra(Attributes.peer, "nobody") == "nobody"
            assert end.extra(Attributes.peer, None) is None
            with pytest.raises(anyio.TypedAttributeLookupError):
                end.extra(Attributes.peer)


def test_aclose_closes_an_end(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        await tx.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await tx.send(1)
        with pytest.raises(anyio.EndOfStream):
            await rx.receive()
        await rx.aclose()
        await rx.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await rx.receive()

    world.run(body)


def test_aclose_forcefully_closes_an_end(loop_world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        (receiving,) = await all_parked(rx, rx.receive)
        await anyio.aclose_forcefully(tx)
        with pytest.raises(EndOfChannel):
            await receiving.wait()
        await anyio.aclose_forcefully(rx)
        assert ends(tx) == (0, 0)

    loop_world.run(body)


def test_an_end_closes_though_its_task_is_cancelled(loop_world: World) -> None:
    """anyio: closing never waits, so a cancellation cannot get in between."""

    async def body() -> None:
        tx, rx = full(1)

        async def produce() -> None:
            async with tx:
                await tx.send(1)

        (producing,) = await all_parked(tx, produce)
        producing.cancel()
        with pytest.raises(ChildCancelled):
            await producing.wait()
        with rx:
            assert await rx.receive() == 100
            with pytest.raises(BrokenChannel):
                await rx.receive()

    loop_world.run(body)


def test_two_ends_stapled(world: World) -> None:
    async def body() -> None:
        tx, there = open_channel[str](1)
        back, rx = open_channel[str](1)
        near = StapledObjectStream(tx, rx)  # type: ignore[arg-type]
        far = StapledObjectStream(back, there)  # type: ignore[arg-type]
        await near.send("ping")
        assert await far.receive() == "ping"
        await far.send("pong")
        assert await near.receive() == "pong"
        assert dict(near.extra_attributes) == {}
        await near.send("last")
        await near.send_eof()
        assert [item async for item in far] == ["last"]
        with pytest.raises(anyio.ClosedResourceError):
            await near.send("too late")
        await far.send("answer")
        assert await near.receive() == "answer"
        await near.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            await far.send("nobody")
        await far.aclose()
        assert ends(tx) == ends(rx) == (0, 0)

    world.run(body)


def test_anyios_byte_streams_over_ends(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[bytes](10)
        async with BufferedByteReceiveStream(rx) as buffered:  # type: ignore[arg-type]
            async with tx:
                await tx.send_all([b"he", b"llo\nwor", b"ld"])
            assert await buffered.receive_until(b"\n", 100) == b"hello"
            assert await buffered.receive_exactly(3) == b"wor"
            assert await buffered.receive() == b"ld"
            with pytest.raises(anyio.EndOfStream):
                await buffered.receive()
        assert ends(rx) == (0, 0)

    world.run(body)


def test_anyios_text_streams_over_ends(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[bytes](10)
        async with TextSendStream(tx) as out, TextReceiveStream(rx) as text:  # type: ignore[arg-type]
            await out.send("grüße")
            await out.aclose()
            assert [part async for part in text] == ["grüße"]
        assert ends(rx) == (0, 0)

    world.run(body)


async def happen(what: str, tx: Sender[int], rx: Receiver[int]) -> None:
    match what:
        case "end":
            tx.close()
            await rx.receive()
        case "own end closed":
            rx.close()
            await rx.receive()
        case "own sender closed":
            tx.close()
            await tx.send(1)
        case "cause":
            tx.close(OSError("disk"))
            await rx.receive()
        case "no receiver":
            rx.close()
            await tx.send(1)
        case "empty":
            rx.receive_nowait()
        case _:
            tx.send_nowait(1)
            tx.send_nowait(2)


@pytest.mark.parametrize(
    ("happens", "raised"),
    [
        ("end", anyio.EndOfStream),
        ("own end closed", anyio.ClosedResourceError),
        ("own sender closed", anyio.ClosedResourceError),
        ("cause", anyio.BrokenResourceError),
        ("no receiver", anyio.BrokenResourceError),
        ("empty", anyio.WouldBlock),
        ("full", anyio.WouldBlock),
    ],
)
def test_what_happens_is_caught_by_anyios_names_and_by_no_other(
    world: World, happens: str, raised: type[Exception]
) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](1)
        with tx, rx:
            with pytest.raises(raised) as caught:
                await happen(happens, tx, rx)
            kinds = (
                anyio.EndOfStream,
                anyio.ClosedResourceError,
                anyio.BrokenResourceError,
                anyio.WouldBlock,
            )
            assert [kind for kind in kinds if isinstance(caught.value, kind)] == [raised]
            assert isinstance(caught.value, ChannelClosed) is (raised is not anyio.WouldBlock)

    world.run(body)


def test_async_for_and_anext_over_an_end(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[int](10)
        with rx:
            with tx:
                await tx.send_all(range(6))
            assert await rx.__anext__() == 0
            assert await anext(rx) == 1
            async for n in rx:
                assert n == 2
                break  # does not close it
            assert ends(rx) == (0, 1)
            assert await anext(aiter(rx)) == 3
            assert [n async for n in rx] == [4, 5]
            assert [n async for n in rx] == []
            with pytest.raises(StopAsyncIteration):
                await anext(rx)
            assert await anext(rx, "nothing") == "nothing"
        with pytest.raises(HandleClosed):
            await anext(rx)

    world.run(body)


def test_async_for_over_an_end_that_is_closed_meanwhile_raises(world: World) -> None:
    """trio: the loop is told that its own end is closed; it is no end of the stream."""

    async def body() -> None:
        tx, rx = full(3)
        got = []

        async def loop() -> None:
            async for n in rx:
                got.append(n)
                rx.close()

        with tx, pytest.raises(HandleClosed):
            await loop()
        assert got == [100]

    world.run(body)


def test_as_arguments_of_anyios_functions_operations_are_what_methods_of_streams_give(loop_world: World) -> None:
    """Code written for `ObjectSendStream` starts `stream.send` in a task group."""

    async def body() -> None:
        with opened(0) as (tx, rx):
            async with anyio.create_task_group() as group:
                group.start_soon(tx.send, 1)
                group.start_soon(tx.send, 2)
                assert {await rx.receive(), await rx.receive()} == {1, 2}
            with anyio.move_on_after(0.001) as scope:
                await rx.receive()
            assert scope.cancelled_caught
            assert waiting(rx) == (0, 0)

    loop_world.run(body)
