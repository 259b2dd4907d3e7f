"""ProcessSemaphore and ProcessLock: taking turns between processes."""

from __future__ import annotations

import gc
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import process_primitives as jobs
import pytest
from process_primitives import FELT, SOON, at_each_line, descriptors, ended, may_fork, methods, start, workers
from worlds import ChildCancelled, Pair, World, settle, settle_here, spawn

from chanlib import HandleClosed, WouldBlock, after, select
from chanlib.processes import ProcessEvent, ProcessLock, ProcessSemaphore

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"), may_fork]


def hurry(semaphore: ProcessSemaphore) -> None:
    """The next who finds too little looks for the dead at once."""
    semaphore._channel.outbound.look_at = 0.0


def test_units_are_taken_and_given_back(world: World) -> None:
    async def body() -> None:
        semaphore = ProcessSemaphore(3)
        await semaphore.acquire()
        await semaphore.acquire(2)
        assert semaphore.value == 0
        with pytest.raises(WouldBlock):
            semaphore.acquire_nowait()
        semaphore.release(3)
        assert semaphore.value == 3
        async with semaphore:
            assert semaphore.value == 2
        assert semaphore.statistics() == (3, 0, 0)

    world.run(body)


def test_whoever_waits_goes_on_once_there_is_enough(world: World) -> None:
    async def body() -> None:
        semaphore = ProcessSemaphore(0)
        one, two = spawn(semaphore.acquire), spawn(semaphore.acquire, 2)
        await settle(lambda: semaphore.statistics().waiting == 2)
        semaphore.release()
        await one.wait()
        assert not two.done
        semaphore.release(2)
        await two.wait()
        assert semaphore.value == 0

    world.run(body)


def test_it_is_an_arm_beside_any_other(world: World) -> None:
    async def body() -> None:
        full, empty = ProcessSemaphore(1), ProcessSemaphore(0)
        assert await select(empty, full) == (1, None)
        assert (await select(empty, full, after(0.01)))[0] == 2
        waiting = spawn(select, empty, full.acquire(2))
        await settle(lambda: full.statistics().waiting == 1)
        full.release(2)
        assert await waiting.wait() == (1, None)
        assert (full.statistics(), empty.statistics()) == ((0, 0, 0), (0, 0, 0))

    world.run(body)


def test_an_acquire_that_is_cancelled_takes_nothing(loop_world: World) -> None:
    async def body() -> None:
        semaphore = ProcessSemaphore(0)
        waiter = spawn(semaphore.acquire)
        await settle(lambda: semaphore.statistics().waiting == 1)
        waiter.cancel()
        with pytest.raises(ChildCancelled):
            await waiter.wait()
        with pytest.raises(TimeoutError):
            await semaphore.acquire().within(0.01)
        semaphore.release()
        assert semaphore.value == 1

    loop_world.run(body)


def test_on_a_loop_it_is_held_by_async_with_only(loop_world: World) -> None:
    async def body() -> None:
        semaphore = ProcessSemaphore(1)
        with pytest.raises(RuntimeError, match="with"), semaphore:
            pass
        assert semaphore.value == 1

    loop_world.run(body)


def test_two_worlds_exclude_each_other(pair: Pair) -> None:
    lock = ProcessLock()
    inside = 0

    async def work() -> None:
        nonlocal inside
        for _ in range(30):
            async with lock:
                inside += 1
                assert inside == 1
                inside -= 1

    pair.run(work, work)


def test_there_is_never_more_than_max_value() -> None:
    semaphore = ProcessSemaphore(1, max_value=2, name="seats")
    assert semaphore.max_value == 2
    assert repr(semaphore) == "<ProcessSemaphore 'seats' 1/2>"
    semaphore.release()
    with pytest.raises(ValueError, match="max_value of 2"):
        semaphore.release()
    assert semaphore.value == 2
    with pytest.raises(ValueError, match="at most max_value"):
        semaphore.acquire(3)


def test_there_is_never_more_than_can_be_counted() -> None:
    most = (1 << 62) - 1
    semaphore = ProcessSemaphore(1)
    with pytest.raises(ValueError, match=f"release of {most} would raise a semaphore above the most there can be"):
        semaphore.release(most)
    assert semaphore.value == 1
    semaphore.release(most - 1)
    with pytest.raises(ValueError, match="release of 1 would"):
        semaphore.release()
    assert semaphore.value == most
    process = start("fork", jobs.hold, semaphore, most, held := ProcessEvent())
    held.wait().sync(SOON)
    semaphore.release()
    with pytest.raises(ValueError, match=f"more units than {most} would have been given back"):
        semaphore.release()
    assert semaphore.value == 1
    jobs.killed(process)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"value": -1}, ValueError),
        ({"value": 1.0}, TypeError),
        ({"value": True}, TypeError),
        ({"value": 1, "max_value": 0}, ValueError),
        ({"value": 3, "max_value": 2}, ValueError),
        ({"value": 1 << 63}, ValueError),
        ({"value": 1, "name": b"x"}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    value = arguments.pop("value")
    with pytest.raises(error):
        ProcessSemaphore(value, **arguments)  # type: ignore[arg-type]


def test_wrong_numbers_of_units_are_refused() -> None:
    semaphore = ProcessSemaphore(1)
    for units, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (1 << 62, ValueError)):
        with pytest.raises(error):
            semaphore.acquire(units)  # type: ignore[arg-type]
        with pytest.raises(error):
            semaphore.release(units)  # type: ignore[arg-type]
    assert semaphore.value == 1


def test_a_closed_handle_says_so() -> None:
    semaphore = ProcessSemaphore(1)
    other = semaphore.clone()
    semaphore.close()
    with pytest.raises(HandleClosed):
        semaphore.acquire_nowait()
    with pytest.raises(HandleClosed):
        semaphore.release()
    with other:
        pass


# ===================================================================== a lock
def test_a_lock_is_released_by_the_process_that_holds_it() -> None:
    lock = ProcessLock(name="door")
    with pytest.raises(RuntimeError, match=r"'door'.* not held"):
        lock.release()
    with lock:
        assert lock.locked()
        pid = jobs.os.fork()
        if not pid:
            try:
                lock.release()
            except RuntimeError:
                jobs.os._exit(0)
            jobs.os._exit(1)
        assert jobs.os.waitpid(pid, 0)[1] == 0
        assert lock.locked()
    assert not lock.locked()


@methods
def test_a_lock_excludes_processes(method: str, tmp_path: Path) -> None:
    lock, path = ProcessLock(), tmp_path / "number"
    path.write_text("0")
    processes = [start(method, jobs.count_up, lock, str(path), 200) for _ in range(2)]
    for process in processes:
        process.join(30)
        ended(process)
    assert path.read_text() == "400"
    assert lock.statistics() == (1, 0, 0)


# ===================================================================== in several processes
@methods
def test_a_unit_that_another_process_gives_wakes_us(method: str) -> None:
    semaphore = ProcessSemaphore(0)
    process = start(method, jobs.signal_twice, semaphore)
    semaphore.acquire(2).sync(2 * SOON)
    ended(process)
    assert semaphore.value == 0


def test_it_is_an_argument_of_an_executor() -> None:
    semaphore = ProcessSemaphore(2)
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        found = [pool.submit(jobs.take_one, semaphore).result(2 * SOON) for _ in range(4)]
    assert found == [1] * 4


def test_what_a_process_holds_when_it_ends_comes_back() -> None:
    semaphore = ProcessSemaphore(2)
    process = start("fork", jobs.hold_and_end, semaphore, 2)
    ended(process)
    semaphore.acquire(2).sync(SOON)
    assert semaphore.statistics() == (0, 0, 2)


def test_what_a_process_holds_when_it_closes_its_last_handle_comes_back() -> None:
    semaphore = ProcessSemaphore(2)
    process = start("spawn", jobs.hold, semaphore, 0 + 1, held := ProcessEvent())
    held.wait().sync(2 * SOON)
    other = semaphore.clone()
    semaphore.acquire_nowait()
    semaphore.close()
    assert other.value == 0
    other.release()
    assert other.value == 1
    jobs.killed(process)
    other.acquire(2).sync(SOON)


def test_signals_do_not_come_back_from_the_dead() -> None:
    semaphore = ProcessSemaphore(0)
    semaphore.release(3)
    process = start("fork", jobs.hold, semaphore, 2, held := ProcessEvent())
    held.wait().sync(SOON)
    jobs.killed(process)
    with pytest.raises(TimeoutError):
        semaphore.acquire(2).sync(FELT)
    assert semaphore.statistics() == (1, 0, 0)


# ===================================================================== processes that are killed
def test_a_waiter_gets_what_a_killed_process_held(world: World) -> None:
    semaphore = ProcessSemaphore(2)
    process = start("fork", jobs.hold, semaphore, 2, held := ProcessEvent())
    held.wait().sync(SOON)

    async def body() -> None:
        waiter = spawn(semaphore.acquire, 2)
        await settle(lambda: semaphore.statistics().waiting == 1)
        process.kill()
        began = time.monotonic()
        await waiter.wait()
        assert time.monotonic() - began < FELT

    world.run(body)
    jobs.killed(process)
    assert semaphore.statistics() == (0, 0, 2)


def test_killed_at_any_line_of_acquire() -> None:
    semaphore = ProcessSemaphore(3)
    for _ in at_each_line(lambda: semaphore.acquire(2).sync()):
        hurry(semaphore)
        semaphore.acquire(3).sync(SOON)
        semaphore.release(3)
        assert semaphore.value == 3


def test_killed_at_any_line_of_release() -> None:
    semaphore = ProcessSemaphore(3)

    def step() -> None:
        before = jobs.sys.gettrace()
        jobs.sys.settrace(None)
        semaphore.acquire(2).sync()
        jobs.sys.settrace(before)
        semaphore.release(2)

    for _ in at_each_line(step):
        hurry(semaphore)
        semaphore.acquire(3).sync(SOON)
        semaphore.release(3)
        assert semaphore.value == 3


def test_killed_at_any_line_of_taking_back_what_the_dead_held() -> None:
    semaphore = ProcessSemaphore(3)

    def step() -> None:
        hurry(semaphore)
        semaphore.acquire(2).sync()

    for line in at_each_line(step, every=2):
        hurry(semaphore)
        semaphore.acquire(3).sync(SOON)
        semaphore.release(3)
        assert semaphore.value == 3
        if line:
            pid = jobs.os.fork()
            if not pid:  # it dies with two of them, which the next takes back
                semaphore.acquire(2).sync()
                jobs.os._exit(0)
            jobs.os.waitpid(pid, 0)


def test_processes_killed_while_they_take_turns_take_no_unit_along() -> None:
    semaphore = ProcessSemaphore(3)
    pick = random.Random(2).uniform
    with workers(jobs.take_turns, 1, semaphore, 2):
        for _ in range(20):
            jobs.at_random(start("fork", jobs.take_turns, semaphore, 2), 0.03, pick)
    semaphore.acquire(3).sync(SOON)
    assert semaphore.value == 0
    semaphore.release(3)
    assert semaphore.value == 3


def test_a_release_that_finds_a_stopped_process_in_the_middle_is_done_later() -> None:
    semaphore = ProcessSemaphore(1)
    pid = jobs.os.fork()
    if not pid:
        with semaphore._channel._mutually(0.0):
            jobs.os.kill(jobs.os.getpid(), jobs.signal.SIGSTOP)
        jobs.os._exit(0)
    jobs.os.waitpid(pid, jobs.os.WUNTRACED)
    began = time.monotonic()
    semaphore.release()
    assert time.monotonic() - began < FELT
    assert semaphore.value == 1
    with pytest.raises(WouldBlock):
        semaphore.acquire_nowait()
    jobs.os.kill(pid, jobs.signal.SIGCONT)
    jobs.os.waitpid(pid, 0)
    semaphore.acquire(2).sync(SOON)


# ===================================================================== what is left behind
def test_no_descriptor_is_left() -> None:
    def use() -> None:
        for _ in range(20):
            semaphore = ProcessSemaphore(1)
            process = start("fork", jobs.signal_twice, semaphore)
            semaphore.clone().acquire(3).sync(SOON)
            ended(process)

    use()
    gc.collect()
    before = descriptors()
    use()
    gc.collect()
    settle_here(lambda: descriptors() <= before)
