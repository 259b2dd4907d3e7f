"""How a channel ends: close, cancel, what becomes of those who wait and of what is inside."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
from worlds import ALL, Handle, Pair, World, run_together, settle, settle_here, spawn

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelClosed,
    EndOfChannel,
    HandleClosed,
    after,
    select,
)


def full(capacity: int, *, name: str | None = None) -> Channel[str]:
    ch = Channel[str](capacity, name=name)
    for n in range(capacity):
        ch.send_nowait(f"buffered {n}")
    return ch


SENDERS: dict[str, Callable[[Channel[str]], object]] = {
    "send": lambda ch: ch.send("x"),
    "send_some": lambda ch: ch.send_some(["x", "y"]),
    "send_all": lambda ch: ch.send_all(["x", "y"]),
    "select": lambda ch: select(after(60), ch.send("x")),
    "within": lambda ch: ch.send("x").within(60),
    "map": lambda ch: ch.send("x").map(str),
}

RECEIVERS: dict[str, Callable[[Channel[str]], object]] = {
    "receive": lambda ch: ch.receive(),
    "receive_some": lambda ch: ch.receive_some(),
    "select": lambda ch: select(after(60), ch),
    "within": lambda ch: ch.receive().within(60),
    "map": lambda ch: ch.receive().map(str),
}


async def all_waiting(ch: Channel[str], kinds: dict[str, Callable[[Channel[str]], object]]) -> list[Handle]:
    """One child for each of `kinds`, all of them parked."""
    children = []
    for make in kinds.values():
        children.append(spawn(make, ch))
        await settle(lambda: ch.statistics().waiting_senders + ch.statistics().waiting_receivers == len(children))
    return children


# ----------------------------------------------------------------- close
@pytest.mark.parametrize("capacity", [0, 2])
def test_close_fails_blocked_senders_of_every_kind_undelivered(world: World, capacity: int) -> None:
    async def body() -> None:
        ch = full(capacity, name="jobs")
        senders = await all_waiting(ch, SENDERS)
        assert ch.close() is True
        for sender in senders:
            with pytest.raises(HandleClosed, match="'jobs'") as caught:
                await sender.wait()
            assert caught.value.channel is ch
            assert caught.value.cause is None
        assert ch.drain() == [f"buffered {n}" for n in range(capacity)]
        assert ch.statistics().sent == ch.statistics().received == capacity

    world.run(body)


def test_close_ends_blocked_receivers_of_every_kind(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](1, name="jobs")
        receivers = await all_waiting(ch, RECEIVERS)
        ch.close()
        for receiver in receivers:
            with pytest.raises(EndOfChannel, match="'jobs'") as caught:
                await receiver.wait()
            assert caught.value.channel is ch

    world.run(body)


def test_receivers_drain_a_closed_channel_and_then_see_its_end(world: World) -> None:
    async def body() -> None:
        ch = full(4)
        ch.close()
        assert await ch.receive() == "buffered 0"
        assert ch.receive_nowait() == "buffered 1"
        assert await ch.receive_some(1) == ["buffered 2"]
        assert await select(ch) == (0, "buffered 3")
        for make in RECEIVERS.values():
            with pytest.raises(EndOfChannel):
                await make(ch)  # type: ignore[misc]
        with pytest.raises(EndOfChannel):
            ch.receive_nowait()
        assert await ch.receive_some(0) == []
        assert ch.drain() == []

    world.run(body)


def test_sending_on_a_closed_channel_is_refused(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](5)
        ch.close()
        for make in SENDERS.values():
            with pytest.raises(HandleClosed):
                await make(ch)  # type: ignore[misc]
        with pytest.raises(HandleClosed):
            ch.send_nowait("x")
        with pytest.raises(HandleClosed):
            ch.send("x").poll()
        assert ch.drain() == []

    world.run(body)


def test_with_a_cause_receivers_drain_and_then_get_broken_channel(world: World) -> None:
    async def body() -> None:
        ch = full(1)
        cause = OSError("disk")
        ch.close(cause)
        assert await ch.receive() == "buffered 0"
        for make in RECEIVERS.values():
            with pytest.raises(BrokenChannel) as caught:
                await make(ch)  # type: ignore[misc]
            assert caught.value.cause is caught.value.__cause__ is cause
        with pytest.raises(HandleClosed) as refused:
            ch.send_nowait("x")
        assert refused.value.cause is cause

    world.run(body)


def test_each_waiter_gets_an_error_of_its_own_from_the_cause(world: World) -> None:
    async def body() -> None:
        for kinds, kind in ((SENDERS, HandleClosed), (RECEIVERS, BrokenChannel)):
            ch = Channel[str](0)
            cause = OSError("disk")
            waiters = await all_waiting(ch, kinds)
            ch.close(cause)
            errors = []
            for waiter in waiters:
                with pytest.raises(kind) as caught:
                    await waiter.wait()
                errors.append(caught.value)
            assert len({id(error) for error in errors}) == len(kinds)
            assert all(error.__cause__ is cause for error in errors)

    world.run(body)


def test_close_is_idempotent_and_the_first_cause_stands(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        cause = OSError("first")
        assert not ch.is_closed
        assert ch.close(cause) is True
        assert ch.is_closed
        assert ch.close() is False
        assert ch.close(OSError("second")) is False
        with pytest.raises(BrokenChannel) as caught:
            await ch.receive()
        assert caught.value.cause is cause

    world.run(body)


def test_of_many_who_close_at_once_exactly_one_is_the_first() -> None:
    for _ in range(50):
        ch = Channel[int](1)
        barrier = threading.Barrier(4)

        async def close(ch: Channel[int] = ch, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return ch.close()

        assert sorted(run_together(*[(ALL["threads"], close)] * 4)) == [False, False, False, True]


def test_close_reaches_those_who_wait_in_another_world(pair: Pair) -> None:
    ch, busy = Channel[str](0), full(1)

    async def end() -> None:
        await settle(lambda: ch.statistics().waiting_receivers == len(RECEIVERS))
        await settle(lambda: busy.statistics().waiting_senders == len(SENDERS))
        ch.close()
        busy.close()

    async def wait() -> None:
        receivers = [spawn(make, ch) for make in RECEIVERS.values()]
        senders = [spawn(make, busy) for make in SENDERS.values()]
        for receiver in receivers:
            with pytest.raises(EndOfChannel):
                await receiver.wait()
        for sender in senders:
            with pytest.raises(HandleClosed):
                await sender.wait()

    pair.run(end, wait)
    assert busy.drain() == ["buffered 0"]


def test_waiters_in_all_worlds_at_once_fail_with_errors_of_their_own() -> None:
    ch = Channel[int](0)
    cause = OSError("disk")

    async def receive() -> BaseException:
        with pytest.raises(BrokenChannel) as caught:
            await ch.receive()
        return caught.value

    async def close() -> None:
        await settle(lambda: ch.statistics().waiting_receivers == 4)
        ch.close(cause)

    loops = [ALL[name] for name in ("asyncio", "asyncio-debug", "trio", "threads")]
    *errors, _ = run_together(*[(world, receive) for world in loops], (ALL["threads"], close))
    assert len({id(error) for error in errors}) == 4
    assert all(error.__cause__ is cause for error in errors)


# ----------------------------------------------------------------- cancel, and what is undelivered
def test_cancel_discards_what_is_inside_and_refuses_everything(world: World) -> None:
    async def body() -> None:
        ch = full(2)
        senders = await all_waiting(ch, SENDERS)
        assert ch.cancel() is True
        assert ch.is_closed
        for sender in senders:
            with pytest.raises(HandleClosed):
                await sender.wait()
        for make in (*SENDERS.values(), *RECEIVERS.values()):
            with pytest.raises(HandleClosed, match="cancelled"):
                await make(ch)  # type: ignore[misc]
        assert len(ch) == 0
        assert ch.statistics().dropped == 2
        assert ch.cancel() is False
        assert ch.close() is False

    world.run(body)


def test_cancel_with_a_cause_tells_every_receiver(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](0)
        receivers = await all_waiting(ch, RECEIVERS)
        cause = OSError("disk")
        ch.cancel(cause)
        for receiver in receivers:
            with pytest.raises(HandleClosed) as caught:
                await receiver.wait()
            assert caught.value.cause is cause

    world.run(body)


def test_cancel_after_close_discards_the_rest(world: World) -> None:
    async def body() -> None:
        gone: list[int] = []
        ch = Channel[int](5, on_undelivered=gone.append)
        await ch.send_all(range(3))
        ch.close()
        assert await ch.receive() == 0
        assert ch.cancel() is True
        assert gone == [1, 2]
        with pytest.raises(HandleClosed):
            await ch.receive()

    world.run(body)


def test_on_undelivered_gets_exactly_what_the_channel_had_taken(world: World) -> None:
    async def body() -> None:
        gone: list[str] = []
        ch = Channel[str](3, on_undelivered=gone.append)
        await ch.send_all(["received", "a", "b"])
        assert await ch.receive() == "received"
        await ch.send("c")
        waiting = spawn(ch.send, "the caller's")
        await settle(lambda: ch.statistics().waiting_senders == 1)
        ch.cancel()
        with pytest.raises(HandleClosed):
            await waiting.wait()
        with pytest.raises(HandleClosed):
            await ch.send("the caller's too")
        assert gone == ["a", "b", "c"]

    world.run(body)


def test_close_leaves_nothing_undelivered(world: World) -> None:
    async def body() -> None:
        gone: list[str] = []
        ch = Channel[str](1, on_undelivered=gone.append)
        await ch.send("a")
        waiting = spawn(ch.send, "b")
        await settle(lambda: ch.statistics().waiting_senders == 1)
        ch.close()
        with pytest.raises(HandleClosed):
            await waiting.wait()
        assert await ch.receive() == "a"
        assert gone == []

    world.run(body)


def test_on_undelivered_may_use_the_channel_itself() -> None:
    seen: list[object] = []

    def tell(value: int) -> None:
        seen.append((value, len(ch), ch.close()))
        with pytest.raises(HandleClosed):
            ch.send_nowait(value)

    ch = Channel[int](2, on_undelivered=tell)
    ch.send_all([1, 2]).sync()
    ch.cancel()
    assert seen == [(1, 0, False), (2, 0, False)]


def test_errors_of_on_undelivered_are_collected_and_raised_by_the_call_that_caused_them() -> None:
    seen: list[int] = []

    def tell(value: int) -> None:
        seen.append(value)
        raise KeyError(value)

    ch = Channel[int](3, name="jobs", on_undelivered=tell)
    ch.send_all([1, 2, 3]).sync()
    with pytest.raises(ExceptionGroup, match="jobs") as caught:
        ch.cancel()
    assert [error.args for error in caught.value.exceptions] == [(1,), (2,), (3,)]
    assert seen == [1, 2, 3]
    with pytest.raises(HandleClosed):
        ch.receive_nowait()


# ----------------------------------------------------------------- wait_closed
def test_wait_closed_is_ready_at_the_close_not_at_the_drain(world: World) -> None:
    async def body() -> None:
        ch = full(2)
        waiters = [spawn(ch.wait_closed), spawn(select, after(60), ch.wait_closed())]
        await settle(lambda: not any(waiter.done for waiter in waiters))
        with pytest.raises(TimeoutError):
            await ch.wait_closed().within(0.001)
        ch.close()
        assert await waiters[0].wait() is None
        assert await waiters[1].wait() == (1, None)
        assert len(ch) == 2
        await ch.wait_closed()
        assert ch.wait_closed().poll() is None

    world.run(body)


def test_wait_closed_is_ready_after_cancel_too(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        waiter = spawn(ch.wait_closed)
        ch.cancel()
        await waiter.wait()
        await ch.wait_closed()

    world.run(body)


# ----------------------------------------------------------------- with, for
def test_leaving_async_with_closes(world: World) -> None:
    async def body() -> None:
        async with Channel[int](1) as ch:
            assert not ch.is_closed
        with pytest.raises(EndOfChannel):
            await ch.receive()

    world.run(body)


def test_leaving_async_with_by_an_error_closes_with_it_as_the_cause(world: World) -> None:
    async def body() -> None:
        error = OSError("disk")
        ch = Channel[int](1)
        with pytest.raises(OSError, match="disk"):
            async with ch:
                raise error
        with pytest.raises(BrokenChannel) as caught:
            await ch.receive()
        assert caught.value.cause is error

    world.run(body)


def test_leaving_with_closes_and_keeps_the_cause() -> None:
    with Channel[int](1) as ch:
        ch.send_nowait(1)
    assert list(ch) == [1]
    error = OSError("disk")
    broken = Channel[int](1)
    broken.send_nowait(1)
    with pytest.raises(OSError, match="disk"), broken:
        raise error
    got: list[int] = []
    with pytest.raises(BrokenChannel) as caught:
        got.extend(broken)
    assert got == [1]
    assert caught.value.cause is error


def test_async_for_ends_with_the_channel(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](math.inf)
        await ch.send_all(range(10))
        ch.close()
        assert [n async for n in ch] == list(range(10))
        assert [n async for n in ch] == []

    world.run(body)


def test_async_for_raises_broken_channel_after_the_items(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        await ch.send_all(range(2))
        cause = OSError("disk")
        ch.close(cause)
        got = []

        async def loop() -> None:
            async for n in ch:
                got.append(n)

        with pytest.raises(BrokenChannel) as caught:
            await loop()
        assert got == [0, 1]
        assert caught.value.cause is cause

    world.run(body)


def test_async_for_raises_handle_closed_when_the_channel_is_cancelled(world: World) -> None:
    async def body() -> None:
        ch = full(2)

        async def loop() -> None:
            async for _ in ch:
                ch.cancel()

        with pytest.raises(HandleClosed):
            await loop()

    world.run(body)


def test_async_for_that_waits_ends_when_the_channel_is_closed(pair: Pair) -> None:
    ch = Channel[int](0)

    async def close() -> None:
        await ch.send(1)
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        ch.close()

    async def loop() -> list[int]:
        return [n async for n in ch]

    assert pair.run(close, loop)[1] == [1]


def test_for_in_a_plain_thread_ends_with_the_channel() -> None:
    ch = Channel[int](0)
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(ch))
    thread.start()
    for n in range(100):
        ch.send(n).sync()
    settle_here(lambda: ch.statistics().waiting_receivers == 1)
    ch.close()
    thread.join()
    assert got == list(range(100))


def test_every_way_to_end_is_a_channel_closed_and_the_ways_are_siblings() -> None:
    ways = (HandleClosed, EndOfChannel, BrokenChannel)
    for way in ways:
        assert issubclass(way, ChannelClosed)
        assert not any(issubclass(way, other) for other in ways if other is not way)
