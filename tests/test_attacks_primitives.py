"""What people who tried to break the later primitives found: one test for each."""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
import threading
from typing import Any

import pytest
import trio
from worlds import World, settle, spawn

from chanlib import (
    Barrier,
    Broadcast,
    BrokenChannel,
    Channel,
    Condition,
    HandleClosed,
    Lagged,
    Lock,
    Permit,
    Semaphore,
    every,
    open_channel,
    select,
)


def parked_in_a_closed_loop(wait: Any) -> asyncio.Task[Any]:
    """A task that waits and will never run again."""

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(begin())
    finally:
        loop.close()


@pytest.fixture(autouse=True)
def no_word_about_lost_tasks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="asyncio")  # "Task was destroyed but it is pending", on purpose


class Told:
    """A value that does something when it is compared, which happens while its channel is locked."""

    def __init__(self, do: Any) -> None:
        self.do = do

    def __lt__(self, other: Any) -> bool:
        do, self.do = self.do, lambda: None
        do()
        return False


def test_a_call_in_the_middle_of_an_operation_does_not_wait_for_the_lock_of_another_channel() -> None:
    """As a finalizer or signal handler makes one. Two threads waited for each other."""
    mine, other = Channel[Any](3, order="priority"), Channel[Any](3, order="priority")
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go_on.wait(20)

    def use_the_other() -> None:
        other.send_nowait(Told(lambda: None))  # put off until this thread has left its own channel
        go_on.set()

    mine.send_nowait(Told(lambda: None))
    other.send_nowait(Told(lambda: None))
    thread = threading.Thread(target=other.send_nowait, args=(Told(hold),))
    thread.start()
    assert inside.wait(20)
    mine.send_nowait(Told(use_the_other))
    assert go_on.is_set()
    thread.join(20)
    assert len(mine) == 2
    assert len(other) == 3


def test_a_lock_taken_first_of_all_in_a_trio_task_belongs_to_the_task() -> None:
    async def main() -> None:
        lock = Lock()
        lock.acquire_nowait()
        assert lock.statistics().owner is trio.lowlevel.current_task()
        lock.release()

    thread = threading.Thread(target=trio.run, args=(main,))  # a thread that knows nothing of trio yet
    thread.start()
    thread.join(20)
    trio.run(main)


def test_a_ticker_that_is_late_is_received_in_a_thread() -> None:
    ticker = every(1e-5)
    ticks = [ticker.receive().sync() for _ in range(2000)]
    assert ticks == sorted(ticks)


def test_the_party_of_a_closed_loop_does_not_count_at_a_barrier() -> None:
    barrier = Barrier(2)
    task = parked_in_a_closed_loop(barrier.wait)
    assert barrier.statistics().waiting == 1
    with pytest.raises(TimeoutError):
        barrier.wait().sync(0.01)
    del task


def test_the_big_request_of_a_closed_loop_does_not_hold_back_smaller_ones() -> None:
    units = Semaphore(2)
    task = parked_in_a_closed_loop(lambda: units.acquire(5))
    thread = threading.Thread(target=units.acquire(1).sync, args=(20,))
    thread.start()
    units.release()
    thread.join(20)
    assert units.value == 2
    del task


def test_an_error_of_on_undelivered_keeps_no_other_channel_of_a_dead_loop_from_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: errors.append(unraisable.exc_value))

    def refuse(value: Any) -> None:
        raise ValueError(value)

    first, second = Channel[int](0, on_undelivered=refuse), Channel[int](5)
    loop = asyncio.new_event_loop()

    async def park() -> list[asyncio.Task[int]]:
        tasks = [asyncio.ensure_future(channel.receive()) for channel in (first, second)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(park())

    def give() -> None:
        first.send_nowait(1)
        first.cancel()
        second.send_nowait(2)

    thread = threading.Thread(target=give)
    thread.start()
    thread.join(20)
    loop.close()
    del loop
    gc.collect()
    assert second.receive_nowait() == 2
    assert len(tasks) == 2


def test_a_loop_over_a_subscription_can_go_on_after_it_lagged() -> None:
    news = Broadcast[int](2)
    mine = news.subscribe()
    for n in range(4):
        news.send_nowait(n)
    news.close()
    reading = iter(mine)
    with pytest.raises(Lagged):
        next(reading)
    assert list(reading) == [2, 3]


def test_values_given_back_count_for_the_peak(loop_world: World) -> None:
    async def body() -> None:
        channel = Channel[int](5)
        scopes = [spawn(channel.receive) for _ in range(3)]
        await settle(lambda: channel.statistics().waiting_receivers == 3)
        for n in range(3):
            channel.send_nowait(n)
        for scope in scopes:
            scope.cancel()
        for scope in scopes:
            await scope.join()
        found = channel.statistics()
        assert found.peak >= found.buffered

    loop_world.run(body)


def test_a_select_with_two_arms_at_a_barrier_is_one_party(world: World) -> None:
    async def body() -> None:
        barrier = Barrier(3)

        async def two_arms() -> int:
            return (await select(barrier.wait(), barrier.wait()))[1]

        places = [spawn(two_arms) for _ in range(2)]
        await settle(lambda: barrier.statistics().waiting == 4)
        assert await barrier.wait() == 2
        assert sorted([await place.wait() for place in places]) == [0, 1]

    world.run(body)


@pytest.mark.parametrize(
    "make", [lambda: Broadcast[int](4).subscribe(), Condition, lambda: Channel[int](1).reserve().sync()]
)
def test_what_is_one_for_all_cannot_be_copied(make: Any) -> None:
    thing = make()
    with pytest.raises(TypeError, match="copied"):
        copy.copy(thing)
    if isinstance(thing, Permit):
        thing.release()


def test_a_permit_that_is_used_in_the_middle_of_a_cancel_tells_of_its_value() -> None:
    told: list[Any] = []
    channel = Channel[Any](3, order="priority", on_undelivered=told.append)
    permit = channel.reserve().sync()

    def use() -> None:
        channel.cancel()
        permit.send("late")  # both are put off until the send below is over

    channel.send_nowait(Told(lambda: None))
    channel.send_nowait(Told(use))
    assert told[-1] == "late"
    assert len(told) == 3


def test_the_close_of_the_last_receiver_that_an_interrupt_cuts_is_completed() -> None:
    tx, rx = open_channel[int](1)
    tx.send_nowait(0)

    def cut(frame: Any, event: str, arg: Any) -> None:
        if frame.f_code.co_name == "_end_locked":
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(cut)
    try:
        with pytest.raises(KeyboardInterrupt):
            rx.close()
    finally:
        sys.settrace(before)
    with pytest.raises(BrokenChannel):
        tx.send(1).sync(20)
    with pytest.raises(HandleClosed):
        rx.receive_nowait()
    tx.close()
