"""Objects that use their channel, through another thread, when they die.

A destructor may wait for another thread that needs the very source which lets go of the object. So no object of a user
may die while a lock is held: by re-entrancy alone this thread would go on, the other one would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from chanlib import (
    Barrier,
    Broadcast,
    Channel,
    ChannelError,
    Future,
    HandleClosed,
    Lagged,
    Receiver,
    Sender,
    Watch,
    open_channel,
)

LONG = 5.0  # seconds for the other thread to get through: it needs none, unless the lock is held


@pytest.fixture
def heard() -> Iterator[list[bool]]:
    """Of each that died: did the other thread get through while it was dying?"""
    heard: list[bool] = []
    gc.collect()
    yield heard
    assert heard
    assert all(heard)


class Will:
    """What is done, by another thread, when the object dies."""

    def __init__(self, use: Callable[[], object], heard: list[bool]) -> None:
        self.use = use
        self.heard = heard

    def __del__(self) -> None:
        def act() -> None:
            try:
                self.use()
            except ChannelError:
                pass

        other = threading.Thread(target=act, daemon=True)
        other.start()
        other.join(LONG)
        self.heard.append(not other.is_alive())


class Ordered(Will):
    def __lt__(self, other: object) -> bool:
        return False


class Cause(Exception):
    def __init__(self, will: Will) -> None:
        self.will = will


def uses(channel: Channel[Any]) -> Callable[[], object]:
    """Takes the lock and changes nothing."""
    return lambda: channel.receive_some(0).poll()


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0)


# ----------------------------------------------------------------- channels
@pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
def test_a_value_dropped_by_an_overflow_dies_outside_the_lock(order: Any, heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(1, order=order, overflow="drop_oldest")
    channel.send_nowait(Ordered(uses(channel), heard))
    channel.send_nowait(Ordered(uses(channel), []))
    assert len(heard) == 1


def test_a_returned_value_dropped_by_an_overflow_dies_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(1, overflow="drop_oldest")

    async def main() -> None:
        receiving = asyncio.ensure_future(channel.receive())
        await until(lambda: channel.statistics().waiting_receivers)
        channel.send_nowait(Will(uses(channel), heard))
        receiving.cancel()
        await asyncio.wait([receiving])
        assert len(channel) == 1
        channel.send_nowait(None)

    asyncio.run(main())
    assert len(heard) == 1


def test_values_discarded_by_a_cancel_die_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(2)
    channel.send_nowait(Will(uses(channel), heard))
    channel.send_nowait(Will(uses(channel), heard))
    assert channel.cancel()
    assert len(heard) == 2


def test_values_for_which_nobody_is_left_die_outside_the_lock(heard: list[bool]) -> None:
    ends: tuple[Sender[Any], Receiver[Any]] = open_channel(2)
    tx, rx = ends
    tx.send_nowait(Will(lambda: tx.send_some([]).poll(), heard))
    rx.close()
    assert len(heard) == 1
    tx.close()


def test_a_value_given_back_to_what_was_cancelled_dies_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(1)

    async def main() -> None:
        receiving = asyncio.ensure_future(channel.receive())
        await until(lambda: channel.statistics().waiting_receivers)
        channel.send_nowait(Will(uses(channel), heard))
        receiving.cancel()
        channel.cancel()
        await asyncio.wait([receiving])

    asyncio.run(main())
    assert channel.statistics().dropped == len(heard) == 1


def test_a_value_that_the_sender_has_taken_out_of_its_list_dies_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(0)

    async def main() -> None:
        values: list[Any] = [Will(uses(channel), heard)]
        sending = asyncio.ensure_future(channel.send_some(values))
        await until(lambda: channel.statistics().waiting_senders)
        values[0] = None
        sending.cancel()
        await asyncio.wait([sending])

    asyncio.run(main())
    assert len(heard) == 1


def test_a_value_that_was_refused_because_its_end_was_closed_is_not_kept(heard: list[bool]) -> None:
    tx, rx = open_channel[Any](0)

    async def main() -> None:
        twin = tx.clone()
        first = asyncio.ensure_future(tx.send("first"))
        await until(lambda: tx.statistics().waiting_senders == 1)
        second = asyncio.ensure_future(twin.send(Will(lambda: rx.receive_some(0).poll(), heard)))
        await until(lambda: tx.statistics().waiting_senders == 2)
        twin.close()
        await asyncio.wait([second])
        assert type(second.exception()) is HandleClosed
        del second
        gc.collect()  # its error leads to it
        assert len(heard) == 1
        assert await rx.receive() == "first"
        await first

    with tx, rx:
        asyncio.run(main())


def test_a_cause_that_is_replaced_dies_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(1)
    channel.close(Cause(Will(uses(channel), heard)))
    channel.cancel(ValueError())
    assert len(heard) == 1


def test_the_error_of_a_comparison_that_ends_a_send_some_dies_outside_the_lock(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(3, order="priority")

    class Proud(int):
        def __lt__(self, other: object) -> bool:
            raise Cause(Will(uses(channel), heard))

    assert channel.send_some([1, Proud(2)]).poll() == 1
    gc.collect()
    assert len(heard) == 1


# ----------------------------------------------------------------- broadcasts and watches
def test_a_value_that_a_subscriber_has_missed_dies_outside_the_lock(heard: list[bool]) -> None:
    news: Broadcast[Any] = Broadcast(1)
    with news.subscribe() as late:
        news.send_nowait(Will(lambda: news.subscribe().close(), heard))
        news.send_nowait(None)
        assert len(heard) == 1
        with pytest.raises(Lagged):
            late.receive_nowait()


def test_a_value_that_nobody_is_subscribed_to_dies_outside_the_lock(heard: list[bool]) -> None:
    news: Broadcast[Any] = Broadcast(4, replay=1)
    news.send_nowait(Will(lambda: news.subscribe().close(), heard))
    news.send_nowait(None)
    assert len(heard) == 1


def test_values_of_a_subscriber_who_leaves_die_outside_the_lock(heard: list[bool]) -> None:
    news: Broadcast[Any] = Broadcast(4)
    mine = news.subscribe()
    news.send_nowait(Will(lambda: news.subscribe().close(), heard))
    mine.close()
    assert len(heard) == 1


def test_the_value_before_a_change_of_a_watch_dies_outside_the_lock(heard: list[bool]) -> None:
    watch: Watch[Any] = Watch(None)

    def use() -> None:
        watch.observe().changed().poll()

    watch.set(Will(use, heard))
    watch.set(Will(use, heard))
    assert len(heard) == 1
    watch.update(lambda before: None)
    assert len(heard) == 2


# ----------------------------------------------------------------- who has waited, and is gone
def test_what_the_error_of_a_future_keeps_alive_dies_outside_the_lock(heard: list[bool]) -> None:
    future: Future[None] = Future()
    future.set_exception(ZeroDivisionError())

    def ask(_: object = None) -> None:
        with pytest.raises(ZeroDivisionError):
            future.wait().sync()

    ask(Will(lambda: future.add_done_callback(lambda _: None), heard))  # until the error is raised again
    assert not heard
    ask()
    assert len(heard) == 1


def test_a_party_of_a_dead_loop_dies_outside_the_lock_of_the_barrier(heard: list[bool]) -> None:
    barrier = Barrier(3)

    async def party(_: object) -> None:
        await barrier.wait()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
    task = loop.create_task(party(Will(lambda: barrier.wait().poll(), heard)))
    while not barrier.statistics().waiting:
        loop.run_until_complete(asyncio.sleep(0))
    del task
    loop.close()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            barrier.wait().sync(timeout=0)
    del loop
    gc.collect()
    assert len(heard) == 1


def test_the_context_of_a_trio_task_that_gave_up_is_not_kept(heard: list[bool]) -> None:
    channel: Channel[Any] = Channel(0)
    mine: contextvars.ContextVar[Any] = contextvars.ContextVar("mine", default=None)

    async def give_up() -> None:
        mine.set(Will(uses(channel), heard))
        with trio.move_on_after(1):
            await channel.receive()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        gc.collect()
        assert len(heard) == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
