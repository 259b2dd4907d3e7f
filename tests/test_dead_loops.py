"""Loops that end, or are forgotten, while some of their tasks are parked: whoever is left goes on.

A dead waiter takes nothing with it. What it had been given goes to the next waiter or back into the channel; a value
of a dead sender that was taken stays taken.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trio
import trio.testing
import uvloop
from elsewhere import Elsewhere
from worlds import settle_here

from chanlib import Channel, ChannelEmpty, Event, Future, open_future, select

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Iterator[NewLoop]:
    made: list[asyncio.AbstractEventLoop] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
        # "Task was destroyed but it is pending": just what these tests are about
        loop.set_exception_handler(lambda *_: None)
        made.append(loop)
        return loop

    yield new_loop
    for loop in made:
        if not loop.is_closed():
            loop.close()
    made.clear()
    gc.collect()


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def _park(loop: asyncio.AbstractEventLoop, *coroutines: Coroutine[Any, Any, object]) -> list[asyncio.Task[Any]]:
    tasks = []
    for coroutine in coroutines:  # one by one: one whose turn is over would come after the next
        tasks.append(loop.create_task(coroutine))
        loop.run_until_complete(_turns())
    assert not any(task.done() for task in tasks)
    return tasks


# ----------------------------------------------------------------- closed before anybody woke them
def test_a_value_sent_to_a_task_of_a_closed_loop_stays_in_the_channel(new_loop: NewLoop) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(2)
    tasks = _park(loop, channel.receive(), channel.receive())
    loop.close()
    channel.send_nowait(1)
    channel.send_nowait(2)
    assert channel.drain() == [1, 2]
    assert channel.statistics().waiting_receivers == 0
    assert channel.statistics().received == channel.statistics().sent == 2
    del tasks


def test_a_value_passes_the_tasks_of_a_closed_loop_to_the_next_who_waits(new_loop: NewLoop) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(0)
    quiet: Channel[int] = Channel(0)
    tasks = _park(loop, channel.receive(), select(quiet.receive(), channel.receive()))
    survivor = Elsewhere(lambda: channel.receive().sync(timeout=20))
    settle_here(lambda: channel.statistics().waiting_receivers == 3)
    loop.close()
    channel.send_nowait(1)
    assert survivor.join() == 1
    assert channel.statistics()[1:4] == (0, 0, 0)
    assert quiet.statistics().waiting_receivers == 0
    del tasks


def test_a_rendezvous_send_is_not_taken_by_a_task_of_a_closed_loop(new_loop: NewLoop) -> None:
    """What the dead one had been given is not lost: it is there for the next receive."""
    loop = new_loop()
    channel: Channel[int] = Channel(0)
    tasks = _park(loop, channel.receive())
    loop.close()
    channel.send_nowait(1)
    assert channel.receive_nowait() == 1
    with pytest.raises(ChannelEmpty):
        channel.receive_nowait()
    del tasks


def test_the_values_of_dead_senders_are_still_delivered_once_taken(new_loop: NewLoop) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(1)
    quiet: Channel[int] = Channel(0)
    channel.send_nowait(1)
    tasks = _park(loop, channel.send(2), select(quiet.receive(), channel.send(3)))
    survivor = Elsewhere(lambda: channel.send(4).sync(timeout=20))
    settle_here(lambda: channel.statistics().waiting_senders == 3)
    loop.close()
    assert [channel.receive_nowait() for _ in range(4)] == [1, 2, 3, 4]
    assert survivor.join() is None
    assert channel.statistics()[1:4] == (0, 0, 0)
    assert quiet.statistics().waiting_receivers == 0
    del tasks


def test_setting_an_event_or_a_future_passes_over_the_tasks_of_a_closed_loop(
    new_loop: NewLoop,
) -> None:
    loop = new_loop()
    event = Event()
    future: Future[int] = Future()
    promise, promised = open_future()
    tasks = _park(loop, event.wait(), future.wait(), select(event, future), promised.wait())
    survivors = [
        Elsewhere(lambda: event.wait().sync(timeout=20)),
        Elsewhere(lambda: future.result(timeout=20)),
    ]
    settle_here(lambda: event.statistics().waiting == 3 and future.statistics().waiting == 3)
    loop.close()
    event.set()
    future.set_result(5)
    promise.set_result(6)
    assert [survivor.join() for survivor in survivors] == [None, 5]
    assert event.statistics().waiting == future.statistics().waiting == 0
    assert promised.result(timeout=0) == 6
    del tasks


def test_closing_a_channel_passes_over_the_tasks_of_a_closed_loop(new_loop: NewLoop) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(0)
    tasks = _park(loop, channel.receive(), channel.wait_closed(), channel.receive_some(3))
    survivor = Elsewhere(lambda: channel.wait_closed().sync(timeout=20))
    loop.close()
    assert channel.close()
    assert survivor.join() is None
    assert channel.statistics().waiting_receivers == 0
    del tasks


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.stress)])
def test_a_great_many_tasks_of_a_closed_loop_are_passed_over_at_once(new_loop: NewLoop, count: int) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(1)
    tasks = _park(loop, *(channel.receive() for _ in range(count)))
    assert channel.statistics().waiting_receivers == count
    loop.close()
    channel.send_nowait(1)
    assert channel.statistics().waiting_receivers == 0
    assert channel.drain() == [1]
    del tasks


# ----------------------------------------------------------------- closed after a wake was posted
def test_values_on_their_way_into_a_loop_that_closes_come_back_in_their_order(
    new_loop: NewLoop,
) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(1)
    quiet: Channel[int] = Channel(0)
    tasks = _park(
        loop,
        channel.receive(),
        select(quiet.receive(), channel.receive()),
        channel.receive_some(5),
        channel.receive().map(str),
    )
    for value in (1, 2, 3, 4, 5):
        channel.send_nowait(value)
    assert channel.statistics().buffered == 1
    loop.close()
    gc.collect()
    assert channel.drain() == [1, 2, 3, 4, 5]
    assert channel.statistics().received == channel.statistics().sent == 5
    assert quiet.statistics().waiting_receivers == 0
    del tasks


def test_a_value_on_its_way_into_a_loop_that_closes_goes_to_the_next_who_waits(
    new_loop: NewLoop,
) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(0)
    tasks = _park(loop, channel.receive())
    channel.send_nowait(1)
    survivor = Elsewhere(lambda: channel.receive().sync(timeout=20))
    settle_here(lambda: channel.statistics().waiting_receivers == 1)
    loop.close()
    gc.collect()
    assert survivor.join() == 1
    del tasks


def test_a_value_that_a_closing_loop_gives_back_may_pass_through_another_dead_loop(
    new_loop: NewLoop,
) -> None:
    first, second = new_loop(), new_loop()
    channel: Channel[int] = Channel(0)
    tasks = _park(first, channel.receive()) + _park(second, channel.receive())
    channel.send_nowait(1)
    channel.send_nowait(2)
    second.close()
    first.close()
    gc.collect()
    assert channel.drain() == [1, 2]
    del tasks


def test_a_send_taken_from_a_loop_that_closes_stays_taken(new_loop: NewLoop) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(0)
    tasks = _park(loop, channel.send(1), channel.send(2))
    assert channel.receive_nowait() == 1
    loop.close()
    gc.collect()
    assert channel.drain() == [2]
    assert channel.statistics()[1:4] == (0, 0, 0)
    assert channel.statistics().received == 2
    del tasks


def test_a_wake_made_on_the_loop_itself_just_before_it_stops_for_good_is_undone(
    new_loop: NewLoop,
) -> None:
    loop = new_loop()
    channel: Channel[int] = Channel(1)
    tasks = _park(loop, channel.receive())

    async def stop_at_once() -> None:
        channel.send_nowait(1)
        loop.stop()

    stopping = loop.create_task(stop_at_once())
    loop.run_forever()
    assert stopping.done()
    if tasks[0].done():  # uvloop runs what is ready before it stops: then it has the value
        assert tasks[0].result() == 1
        loop.close()
        return
    loop.close()
    tasks.clear()
    gc.collect()
    assert channel.drain() == [1]


def test_a_mailbox_of_a_closed_loop_does_not_serve_the_next_loop_of_the_thread(
    new_loop: NewLoop,
) -> None:
    channel: Channel[int] = Channel(1)
    dead = new_loop()
    tasks = _park(dead, channel.receive())
    dead.close()
    alive = new_loop()
    waiting = alive.create_task(channel.receive())
    alive.run_until_complete(_turns())
    channel.send_nowait(1)
    assert alive.run_until_complete(asyncio.wait_for(waiting, 20)) == 1
    alive.close()
    del tasks


# ----------------------------------------------------------------- forgotten
@pytest.mark.parametrize("where", ["in a thread that ended", "in this thread"])
def test_a_value_on_its_way_into_a_loop_that_is_forgotten_and_collected_comes_back(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the collector may close the loop's sockets before the loop closes itself, which then says so
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    channel: Channel[int] = Channel(1)
    loops: list[Any] = []

    def forget() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        _park(loop, channel.receive())
        loops.append(weakref.ref(loop))

    if where == "in this thread":
        forget()
    else:
        thread = threading.Thread(target=forget)
        thread.start()
        thread.join()
    assert channel.statistics().waiting_receivers == 1
    channel.send_nowait(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the loop and its sockets are not closed
        for _ in range(3):
            gc.collect()
    kept = loops[0]()
    if kept is not None:
        kept.close()
    assert kept is None, "somebody keeps the loop"
    assert channel.drain() == [1]
    assert channel.statistics()[1:4] == (0, 0, 0)


def test_a_forgotten_channel_is_collected_with_the_tasks_parked_on_it() -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    channel: Channel[int] = Channel(1)
    _park(loop, channel.receive(), select(channel.receive(), Event()))
    gone = weakref.ref(channel)
    del channel
    loop.close()
    for _ in range(3):
        gc.collect()
    assert gone() is None


# ----------------------------------------------------------------- trio
def test_nobody_is_parked_once_a_trio_run_has_ended() -> None:
    channel: Channel[int] = Channel(2)
    event = Event()

    async def daemon() -> None:
        await select(channel.receive(), event)

    async def main() -> None:
        trio.lowlevel.spawn_system_task(channel.receive)
        trio.lowlevel.spawn_system_task(daemon)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.statistics().waiting_receivers == 2

    trio.run(main)
    assert channel.statistics().waiting_receivers == 0
    assert event.statistics().waiting == 0
    channel.send_nowait(1)
    event.set()
    assert channel.drain() == [1]


def test_a_thread_that_sends_at_any_step_of_the_end_of_a_trio_run_loses_nothing() -> None:
    """The run stands still at its first, its second, ... step after its main task while the thread sends."""

    class AtStep(trio.abc.Instrument):
        def __init__(self, number: int, act: Callable[[], object]) -> None:
            self.left, self.act, self.ending = number, act, False

        def step(self, *_: object) -> None:
            if self.ending:
                self.left -= 1
                if self.left == -1:
                    thread = threading.Thread(target=self.act)
                    thread.start()
                    thread.join()

        before_task_step = after_task_step = task_scheduled = task_exited = step
        before_io_wait = after_io_wait = after_run = step

    outcomes = set()
    for number in itertools.count():
        channel: Channel[int] = Channel(1)
        received: list[int] = []

        async def daemon(channel: Channel[int] = channel, received: list[int] = received) -> None:
            while True:
                received.append(await channel.receive())

        instrument = AtStep(number, functools.partial(channel.send_nowait, 1))

        async def main(
            daemon: Callable[[], Coroutine[Any, Any, None]] = daemon, instrument: AtStep = instrument
        ) -> None:
            trio.lowlevel.spawn_system_task(daemon)
            await trio.testing.wait_all_tasks_blocked()
            instrument.ending = True

        trio.run(main, instruments=[instrument])
        if instrument.left >= 0:
            break
        outcomes.add(len(received))
        assert received + channel.drain() == [1]
        assert channel.statistics()[1:4] == (0, 0, 0)
    assert outcomes == {0, 1}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rounds", [60, pytest.param(5_000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])])
def test_a_thread_that_sends_while_a_trio_run_ends_loses_nothing(rounds: int) -> None:
    """What it sends is received in the run, or is on its way into it and comes back, or nobody waits any more."""
    for number in range(rounds):
        channel: Channel[int] = Channel(1)
        received: list[int] = []
        parked = threading.Event()

        async def daemon(channel: Channel[int] = channel, received: list[int] = received) -> None:
            while True:
                received.append(await channel.receive())

        async def main(
            turns: int = number % 6,
            channel: Channel[int] = channel,
            parked: threading.Event = parked,
            daemon: Callable[[], Coroutine[Any, Any, None]] = daemon,
        ) -> None:
            trio.lowlevel.spawn_system_task(daemon)
            await trio.testing.wait_all_tasks_blocked()
            assert channel.statistics().waiting_receivers == 1
            parked.set()
            for _ in range(turns):  # the end comes sooner or later
                await trio.lowlevel.checkpoint()

        def send(channel: Channel[int] = channel, parked: threading.Event = parked) -> None:
            assert parked.wait(20)
            channel.send_nowait(1)

        thread = threading.Thread(target=send)
        thread.start()
        trio.run(main)
        thread.join()
        assert received + channel.drain() == [1]
        assert channel.statistics()[1:4] == (0, 0, 0)
        assert channel.statistics().sent == channel.statistics().received == 1


def test_a_trio_run_that_crashed_takes_no_value_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # what trio's nurseries and sockets say about the crash when they are collected
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    channel: Channel[int] = Channel(2)

    class Clock(trio.abc.Clock):
        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            return 0.0

        def deadline_to_sleep_time(self, deadline: float) -> float:
            raise ZeroDivisionError

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1)

    kept: list[BaseException] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trio.run(main, clock=Clock())
        except trio.TrioInternalError as error:
            kept.append(error)
        assert kept
        channel.send_nowait(1)
        kept.clear()
        for _ in range(3):
            gc.collect()
    assert channel.drain() == [1]
    assert channel.statistics()[1:4] == (0, 0, 0)
