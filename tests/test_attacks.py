"""Programs that once broke the library, each by a different door, as tests."""

from __future__ import annotations

import asyncio
import collections
import copy
import gc
import os
import pickle
import socket
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from worlds import ALL, World, parked, settle, spawn

from chanlib import (
    Channel,
    EndOfChannel,
    Event,
    Future,
    Lagged,
    WouldBlock,
    lowlevel,
    never,
    open_future,
    select,
)


class Descriptor(lowlevel.Source):
    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd


class Readable(lowlevel.Leaf[None]):
    """Never ready: waits for the descriptor for ever."""

    def __init__(self, fd: int) -> None:
        self._src = Descriptor(fd)

    def _attempt(self, source: Descriptor, /) -> Any:
        return lowlevel.PENDING

    def _enqueue(self, source: Descriptor, waiter: Any, /) -> None:
        waiter.wake_readable(source.fd)

    def _describe(self, source: Descriptor, /) -> str:
        return f"descriptor {source.fd}"


@pytest.fixture
def unwatchable() -> Iterator[int]:
    """A regular file: epoll refuses it."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


# ----------------------------------------------------------------- one operation, one performer
def test_an_operation_given_to_two_tasks_is_refused_to_the_second() -> None:
    async def main(ready: bool) -> list[Any]:
        channel = Channel[str](5)
        if ready:
            channel.send_nowait("item")
        op = channel.receive()
        tasks = [asyncio.create_task(op), asyncio.create_task(op)]
        await asyncio.sleep(0)
        if not ready:
            channel.send_nowait("item")
        return await asyncio.gather(*tasks, return_exceptions=True)

    for ready in (True, False):
        first, second = asyncio.run(main(ready))
        assert first == "item"
        assert isinstance(second, RuntimeError)


@pytest.mark.usefixtures("hasty")
def test_an_operation_performed_by_two_threads_happens_once() -> None:
    for number in range(200):
        channel = Channel[int](10)
        op, barrier, refused = channel.send(number), threading.Barrier(2), []

        def perform(op: Any = op, barrier: Any = barrier, refused: list[Any] = refused) -> None:
            barrier.wait()
            try:
                op.sync()
            except RuntimeError as error:
                refused.append(error)

        threads = [threading.Thread(target=perform) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if lowlevel_gil():  # without a GIL the taking of an operation is not atomic
            assert len(channel) == len(refused) == 1


def lowlevel_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def test_what_stands_for_one_thing_cannot_be_copied_or_pickled() -> None:
    channel = Channel[int](2)
    op = channel.send(1)
    promise, future = open_future()
    for thing in (channel, op, promise, future, Event()):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copy.copy(thing)
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            pickle.dumps(thing)
    op.poll()
    assert not future.done()


def test_errors_can_be_copied_and_pickled() -> None:
    assert copy.copy(Lagged(3)).missed == 3
    channel = Channel[int](1)
    channel.close()
    with pytest.raises(EndOfChannel) as caught:
        select(never(), channel).poll()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.arm, again.channel) == (str(caught.value), 1, None)


# ----------------------------------------------------------------- every no is decided on one look
@pytest.mark.usefixtures("hasty")
def test_a_time_limit_of_0_on_a_select_of_which_one_arm_is_always_ready_never_passes() -> None:
    first, second, stop = Event(), Event(), threading.Event()
    first.set()

    def move() -> None:
        while not stop.is_set():
            second.set()
            first.clear()
            first.set()
            second.clear()

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(3000):
            select(first.wait(), second.wait()).within(0).sync()
            select(first.wait(), second.wait()).sync(0)
            select(first.wait(), second.wait()).poll()
    finally:
        stop.set()
        thread.join()


def test_a_parked_select_on_one_channel_twice_is_served_at_either_arm(world: World) -> None:
    async def main() -> None:
        channel = Channel[int](0)
        wins: collections.Counter[int] = collections.Counter()
        for number in range(200):
            child = spawn(select, channel.receive(), channel.receive())
            await settle(lambda: channel.statistics().waiting_receivers)
            channel.send_nowait(number)
            wins[(await child.wait())[0]] += 1
        assert abs(wins[0] - 100) < 71  # 10 sigma

    world.run(main)


def test_polling_in_vain_does_not_start_the_time_of_a_limit(world: World) -> None:
    async def main() -> None:
        channel = Channel[int](1)
        op, made = channel.receive().within(0.05), time.monotonic()
        with pytest.raises(WouldBlock):
            op.poll()
        while time.monotonic() - made < 0.05:
            pass
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await op
        assert time.monotonic() - started >= 0.04  # else the time had run since the poll

    world.run(main)


# ----------------------------------------------------------------- descriptors that cannot be watched
def test_a_descriptor_that_cannot_be_watched_raises_and_harms_nobody_else(loop_world: World, unwatchable: int) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        try:
            with pytest.raises(OSError, match="not permitted"):
                await select(Readable(reading), Readable(unwatchable))
            loop = None if loop_world.name == "trio" else asyncio.get_running_loop()
            assert loop is None or not loop.remove_reader(reading)
        finally:
            os.close(reading)
            os.close(writing)

    loop_world.run(main)


def test_a_descriptor_that_trio_code_waits_for_already_is_refused_and_the_run_goes_on() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, left)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await Readable(left.fileno())
                nursery.cancel_scope.cancel()

    trio.run(main)


# ----------------------------------------------------------------- send_all
def test_what_an_iterator_gives_is_sent_before_it_is_asked_for_more(world: World) -> None:
    async def main() -> None:
        channel = Channel[int](100)
        buffered: list[int] = []

        def live() -> Iterator[int]:
            for number in range(3):
                buffered.append(len(channel))
                yield number

        await channel.send_all(live())
        assert buffered == [0, 1, 2]

    world.run(main)


def test_send_all_cut_short_has_taken_one_value_more_than_it_sent_at_most(loop_world: World) -> None:
    async def main() -> None:
        channel, values = Channel[int](5), iter(range(100))

        async def send() -> None:
            await channel.send_all(values)

        child = spawn(send)
        await settle(lambda: channel.statistics().waiting_senders)
        child.cancel()
        await settle(lambda: not channel.statistics().waiting_senders)
        assert channel.drain() == [0, 1, 2, 3, 4]
        assert next(values) == 6

    loop_world.run(main)


def test_send_all_is_performed_once_and_missed_if_it_is_not() -> None:
    channel = Channel[int](5)
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        channel.send_all([1])
        gc.collect()
    assert [warning.category for warning in log] == [RuntimeWarning]
    sending = channel.send_all([1, 2])
    sending.sync()
    with pytest.raises(RuntimeError, match="performed already"):
        sending.sync()
    assert channel.drain() == [1, 2]


# ----------------------------------------------------------------- others
def test_a_close_in_the_middle_of_wait_closed_is_felt_by_all_who_wait_for_it() -> None:
    channel = Channel[int](1)
    first: list[bool] = []

    def strike(frame: Any, event: str, _: object) -> None:  # stands for a signal handler inside the step
        if event == "call" and frame.f_code.co_name == "_enqueue" and not first:
            sys.settrace(None)
            first.append(channel.close())

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        channel.wait_closed().sync(timeout=20)
    finally:
        sys.settrace(before)
    assert first == [True]
    channel.wait_closed().poll()


def test_trio_inside_an_asyncio_task_is_trio() -> None:
    async def inner() -> int:
        channel = Channel[int](1)
        got: list[int] = []

        async def receive() -> None:
            got.append(await channel.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await channel.send(5)
        return got[0]

    async def cell() -> int:
        return trio.run(inner)

    assert asyncio.run(cell()) == 5


def test_an_error_of_on_undelivered_does_not_replace_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise ValueError("nobody wanted it")

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))

    async def main() -> None:
        channel = Channel[int](1, on_undelivered=refuse)
        task = asyncio.create_task(channel.receive())
        await parked(channel, receivers=1)
        channel.send_nowait(1)
        channel.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    ALL["asyncio"].run(main)
    assert [type(error) for error in told] == [ExceptionGroup]


def test_select_leaves_the_error_of_a_future_as_it_is() -> None:
    channel, future = Channel[int](0), Future[int]()
    channel.close()
    with pytest.raises(EndOfChannel) as caught:
        select(never(), channel).poll()
    future.set_exception(caught.value)
    with pytest.raises(EndOfChannel):
        select(future, never()).poll()
    assert caught.value.arm == 1


def test_a_subclass_may_have_a_hash_of_its_own() -> None:
    class Keyed(Channel[int]):
        def __init__(self, key: str) -> None:
            super().__init__(1)
            self.key = key

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Keyed) and other.key == self.key

        def __hash__(self) -> int:
            return hash(self.key)

    assert Keyed("a") == Keyed("a")
    gone = weakref.ref(Keyed("b"))
    assert gone() is None


def test_the_trampoline_steps_one_budget_at_a_time_however_many_tasks_are_ready() -> None:
    """Those who have used up the budget wait for their own turn; the others are stepped in the loop's next one."""
    done: list[int] = []

    async def main() -> None:
        go, loop, seen = Event(), asyncio.get_running_loop(), []

        async def work() -> None:
            channel = Channel[int](500)
            for number in range(500):
                channel.send_nowait(number)
            await go.wait()
            for _ in range(500):
                done.append(await channel.receive())

        tasks = [asyncio.create_task(work()) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go.set()
        loop.call_soon(lambda: seen.append(len(done)))
        loop.call_soon(lambda: loop.call_soon(lambda: seen.append(len(done))))
        await asyncio.gather(*tasks)
        assert seen[1] - seen[0] <= 2 * lowlevel.BUDGET

    asyncio.run(main())


def test_a_value_moved_into_the_buffer_from_a_waiting_sender_counts_for_the_peak() -> None:
    async def main() -> None:
        channel = Channel[int](1)
        receiving = asyncio.create_task(channel.receive())
        await parked(channel, receivers=1)
        channel.send_nowait(1)  # handed over: the buffer was never used
        receiving.cancel()
        await asyncio.wait([receiving])  # given back
        sending = asyncio.create_task(channel.send(2))
        await parked(channel, senders=1)
        assert await channel.receive() == 1
        assert channel.statistics()[1] == channel.statistics().peak == 1
        await sending

    ALL["asyncio"].run(main)
