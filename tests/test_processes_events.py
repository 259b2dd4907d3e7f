"""ProcessEvent: a flag that anybody in any world, in any process, can wait for."""

from __future__ import annotations

import gc
import os
import pickle
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import process_primitives as jobs
import pytest
from process_primitives import FELT, SOON, at_each_line, descriptors, ended, may_fork, methods, start, workers
from worlds import ChildCancelled, Pair, World, settle, settle_here, spawn

from chanlib import Event, HandleClosed, WouldBlock, after, never, select
from chanlib.processes import ProcessEvent, ProcessSemaphore, open_process_channel

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"), may_fork]

HERE = Path(__file__).parent


def test_waiting_for_an_event_that_is_set_is_done_at_once(world: World) -> None:
    async def body() -> None:
        event = ProcessEvent()
        assert event.is_set() is False
        event.set()
        assert event.is_set() is True
        for _ in range(3):
            assert await event.wait() is None
            assert await event is None
            assert event.wait().poll() is None

    world.run(body)


def test_set_wakes_everybody_who_waits(world: World) -> None:
    async def body() -> None:
        event = ProcessEvent()
        waiters = [spawn(event.wait) for _ in range(4)]
        waiters += [spawn(select, never(), event), spawn(lambda: event.wait().within(60))]
        await settle(lambda: event.statistics().waiting == 6)
        assert not any(waiter.done for waiter in waiters)
        event.set()
        assert [await w.wait() for w in waiters] == [None, None, None, None, (1, None), None]
        assert event.statistics().waiting == 0

    world.run(body)


def test_clear_makes_later_waiters_wait_and_holds_up_none_of_the_earlier(world: World) -> None:
    async def body() -> None:
        event = ProcessEvent()
        early = [spawn(event.wait) for _ in range(3)]
        await settle(lambda: event.statistics().waiting == 3)
        event.set()
        event.clear()
        for waiter in early:
            await waiter.wait()
        assert not event.is_set()
        with pytest.raises(WouldBlock):
            event.wait().poll()
        late = spawn(event.wait)
        await settle(lambda: event.statistics().waiting == 1)
        assert not late.done
        event.set()
        await late.wait()

    world.run(body)


def test_setting_and_clearing_twice_changes_nothing() -> None:
    event = ProcessEvent(name="go")
    event.clear()
    event.set()
    event.set()
    assert event.is_set()
    assert repr(event) == "<ProcessEvent 'go' set>"
    event.clear()
    event.clear()
    assert not event.is_set()
    assert repr(event) == "<ProcessEvent 'go'>"


def test_a_poll_that_found_it_unset_has_not_begun_to_wait() -> None:
    event = ProcessEvent()
    op = event.wait()
    with pytest.raises(WouldBlock):
        op.poll()
    event.set()
    event.clear()
    with pytest.raises(WouldBlock):
        op.poll()
    event.set()
    op.poll()


def test_it_is_an_arm_beside_any_other(world: World) -> None:
    async def body() -> None:
        event, other, inside = ProcessEvent(), ProcessEvent(), Event()
        assert (await select(event, other, after(0.01)))[0] == 2
        waiting = spawn(select, event, inside, other.wait().map(lambda _: "other"))
        await settle(lambda: other.statistics().waiting == 1)
        other.set()
        assert await waiting.wait() == (2, "other")
        assert (event.statistics().waiting, inside.statistics().waiting) == (0, 0)

    world.run(body)


def test_a_wait_that_is_cancelled_leaves_nothing(loop_world: World) -> None:
    async def body() -> None:
        event = ProcessEvent()
        waiter = spawn(event.wait)
        await settle(lambda: event.statistics().waiting == 1)
        waiter.cancel()
        with pytest.raises(ChildCancelled):
            await waiter.wait()
        assert event.statistics().waiting == 0
        with pytest.raises(TimeoutError):
            await event.wait().within(0.01)
        event.set()
        await event

    loop_world.run(body)


def test_two_worlds_take_turns_by_two_events(pair: Pair) -> None:
    go, back = ProcessEvent(), ProcessEvent()

    async def first() -> None:
        for _ in range(30):
            go.set()
            await back.wait()
            back.clear()

    async def second() -> None:
        for _ in range(30):
            await go.wait()
            go.clear()
            back.set()

    pair.run(first, second)


def test_a_closed_handle_says_so_and_others_go_on() -> None:
    event = ProcessEvent()
    other = event.clone()
    assert event.close() is True
    assert event.close() is False
    for step in (event.set, event.clear, event.clone, lambda: event.wait().poll(), lambda: pickle.dumps(event)):
        with pytest.raises(HandleClosed, match="ProcessEvent"):
            step()
    other.set()
    other.wait().poll()


def test_closing_a_handle_ends_the_waits_through_it(world: World) -> None:
    async def body() -> None:
        event = ProcessEvent()
        other = event.clone()
        waiters = [spawn(event.wait), spawn(other.wait)]
        await settle(lambda: event.statistics().waiting == 2)
        event.close()
        with pytest.raises(HandleClosed):
            await waiters[0].wait()
        other.set()
        await waiters[1].wait()

    world.run(body)


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match="name must be"):
        ProcessEvent(name=3)  # type: ignore[arg-type]


# ===================================================================== in several processes
@methods
@pytest.mark.parametrize("job", [jobs.answer, jobs.answer_on_a_loop], ids=["thread", "loop"])
def test_processes_wait_for_each_other(method: str, job: object) -> None:
    go, back = ProcessEvent(), ProcessEvent()
    process = start(method, job, go, back)  # type: ignore[arg-type]
    go.set()
    back.wait().sync(2 * SOON)
    ended(process)


def test_it_goes_through_a_channel_and_as_an_argument_of_an_executor() -> None:
    event = ProcessEvent()
    sender, receiver = open_process_channel(1)
    process = start("fork", jobs.fetch_and_set, receiver)
    receiver.close()
    with sender:
        sender.send(event).sync(SOON)
    event.wait().sync(SOON)
    ended(process)
    event.clear()
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        assert pool.submit(jobs.set_event, event).result(2 * SOON)
    assert event.is_set()


def test_ten_thousand_rounds_with_waiters_in_two_processes() -> None:
    count = 10_000
    gos, acks = [ProcessEvent(), ProcessEvent()], ProcessSemaphore(0)
    processes = [start("fork", jobs.rounds, gos, acks, count) for _ in range(2)]
    for number in range(count):
        gos[number % 2].set()
        acks.acquire(2).sync(SOON)
        gos[number % 2].clear()
    for process in processes:
        ended(process)


def test_a_pulse_is_missed_by_nobody_who_waits() -> None:
    count = 300
    event, begin, ready, felt = ProcessEvent(), ProcessSemaphore(0), ProcessSemaphore(0), ProcessSemaphore(0)
    processes = [start("fork", jobs.feel_pulses, event, begin, ready, felt, count) for _ in range(2)]
    for _ in range(count):
        begin.release(2)
        ready.acquire(2).sync(SOON)
        event.set()
        event.clear()
        felt.acquire(2).sync(SOON)
    for process in processes:
        ended(process)


# ===================================================================== processes that are killed
def _is_as_new(event: ProcessEvent) -> None:
    event.clear()
    with pytest.raises(WouldBlock):
        event.wait().poll()
    event.set()
    event.wait().sync(SOON)
    event.clear()


def test_killed_at_any_line_of_set() -> None:
    event = ProcessEvent()
    words = event._channel.words
    words[16] = words[17] = 1  # as if somebody slept
    for line in at_each_line(event.set):
        assert line or event.is_set()
        if event.is_set():
            event.wait().sync(SOON)
        _is_as_new(event)
        words[16] = words[17] = 1


def test_a_waiter_feels_a_set_that_was_cut_at_any_line(world: World) -> None:
    if world.name not in ("asyncio", "threads"):
        pytest.skip("two worlds are enough")
    event = ProcessEvent()

    async def body() -> None:
        for _ in at_each_line(event.set, every=7):
            waiter = spawn(event.wait)
            began = time.monotonic()
            if not event.is_set():
                await settle(lambda: event.statistics().waiting == 1)
                event.set()
            await waiter.wait()
            assert time.monotonic() - began < FELT
            event.clear()

    world.run(body)


def test_killed_at_any_line_of_clear() -> None:
    event = ProcessEvent()
    event.set()
    for line in at_each_line(event.clear):
        assert line or not event.is_set()
        _is_as_new(event)
        event.set()


def test_killed_at_any_line_of_wait() -> None:
    event = ProcessEvent()
    for _ in at_each_line(lambda: select(event, after(0.0)).sync()):
        _is_as_new(event)


def test_a_set_that_died_before_it_could_ring_is_felt() -> None:
    event = ProcessEvent()
    feeling = start("fork", jobs.answer, event, back := ProcessEvent())
    settle_here(lambda: event._channel.words[16])  # it says that it sleeps
    event._channel.words[8] += 1  # the store alone
    back.wait().sync(FELT)
    ended(feeling)


def test_processes_killed_while_they_set_and_clear_take_nobody_along() -> None:
    event = ProcessEvent()
    pick = random.Random(1).uniform
    with workers(jobs.flip, 1, event):
        for _ in range(15):
            jobs.at_random(start("fork", jobs.flip, event), 0.03, pick)
            for _ in range(3):
                event.wait().sync(SOON)
    _is_as_new(event)


def test_a_stopped_process_holds_nobody_up_for_long() -> None:
    event = ProcessEvent()
    with event._channel._mutually(0.0) as taken:
        assert taken
        process = start("fork", jobs.answer, ProcessEvent(), event)  # it waits for something else
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            event.set()
            os._exit(0)
        os.waitpid(pid, 0)
        assert event.is_set()
        assert time.monotonic() - began < SOON
    jobs.killed(process)


# ===================================================================== what is left behind
def test_no_descriptor_is_left() -> None:
    def use() -> None:
        for _ in range(20):
            event = ProcessEvent()
            process = start("fork", jobs.answer, event, back := ProcessEvent())
            event.clone().set()
            back.wait().sync(SOON)
            ended(process)

    use()
    gc.collect()
    before = descriptors()
    use()
    gc.collect()
    settle_here(lambda: descriptors() <= before)


@pytest.mark.stress
@pytest.mark.timeout(120)
def test_the_same_where_there_is_only_what_all_unixes_have() -> None:
    if os.environ.get("CHANLIB_PROCESSES"):
        pytest.skip("this is the one that it runs")
    files = [str(HERE / f"test_processes_{what}.py") for what in ("events", "semaphores", "futures")]
    wanted = "any_line_of_set or any_line_of_acquire or any_line_of_release or descriptor or fork"
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", wanted, *files],
        env={**os.environ, "CHANLIB_PROCESSES": "posix"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert found.returncode == 0, found.stdout[-3000:]


def test_what_a_forked_process_collects_at_once_counts_in_its_parent() -> None:
    program = """
import gc, os
gc.disable()
os.register_at_fork(after_in_child=gc.collect)  # before anything else is told of the fork
from chanlib.processes import ProcessEvent
event = ProcessEvent()
ring = [event.clone()]
ring.append(ring)
del ring
pid = os.fork()
if not pid:
    os._exit(0)
assert not os.waitpid(pid, 0)[1]
assert event._channel.slots.total() == (2, 2)
gc.collect()
assert event._channel.slots.total() == (1, 1)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


def test_handles_in_a_cycle_are_collected_with_their_memory() -> None:
    program = """
import gc
from chanlib.processes import ProcessEvent
def mapped():
    return open("/proc/self/maps").read().count("memfd:chanlib")
for _ in range(3):
    ring = [ProcessEvent(), ProcessEvent()]
    ring.append(ring)
    assert mapped() == 2
    del ring
    gc.collect()
    assert mapped() == 0
"""
    environment = {**os.environ, "CHANLIB_PROCESSES": ""}
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30, env=environment)
