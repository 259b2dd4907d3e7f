"""Semaphore, Lock, Condition: taking turns, between tasks and threads of any kind.

Behaviour follows tokio's, Go's and Kotlin's semaphores, trio's `Lock`, and the conditions of trio and of CPython's
`threading` and `asyncio`; the docstring of a test names which, where it follows one.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from elsewhere import elsewhere
from values import Last
from worlds import ALL, ChildCancelled, Pair, World, run_together, settle, settle_here, spawn

from chanlib import Condition, Event, Lock, Semaphore, WouldBlock, never, select, sleep

Limited = Semaphore | Lock


async def waiting(thing: Semaphore | Lock | Condition, number: int) -> None:
    await settle(lambda: thing.statistics().waiting == number)


# ===================================================================== Semaphore


def test_units_are_taken_and_given_back(world: World) -> None:
    """tokio: semaphore, `try_acquire`; Go: x/sync semaphore, `TestWeightedTryAcquire`."""

    async def body() -> None:
        sem = Semaphore(3)
        await sem.acquire()
        await sem.acquire(2)
        assert sem.value == 0
        with pytest.raises(WouldBlock):
            sem.acquire_nowait()
        sem.release(2)
        sem.acquire_nowait(2)
        sem.release()
        sem.release(2)
        assert sem.value == 3
        assert sem.statistics() == (3, 0)

    world.run(body)


def test_who_waits_is_served_in_the_order_of_arrival(world: World) -> None:
    """tokio: semaphore; Kotlin: SemaphoreTest, `fairnessTest`."""

    async def body() -> None:
        sem = Semaphore(0)
        order: list[int] = []
        children = []
        for n in range(5):

            async def take(n: int = n) -> None:
                await sem.acquire()
                order.append(n)
                sem.release()

            children.append(spawn(take))
            await waiting(sem, n + 1)
        sem.release()
        for child in children:
            await child.wait()
        assert order == list(range(5))
        assert sem.statistics() == (1, 0)

    world.run(body)


def test_a_big_request_holds_back_smaller_ones_behind_it(world: World) -> None:
    """Go: x/sync semaphore, `TestLargeAcquireDoesntStarve`; tokio: semaphore, `acquire_many`."""

    async def body() -> None:
        sem = Semaphore(2)
        big = spawn(sem.acquire, 3)
        await waiting(sem, 1)
        small = spawn(sem.acquire, 1)
        await waiting(sem, 2)
        assert sem.value == 2  # enough for the small one, but it is not its turn
        with pytest.raises(WouldBlock):
            sem.acquire_nowait()
        sem.release()
        await big.wait()
        assert sem.statistics() == (0, 1)
        sem.release()
        await small.wait()
        assert sem.statistics() == (0, 0)

    world.run(body)


def test_one_release_serves_all_for_whom_there_is_enough(world: World) -> None:
    """tokio: semaphore, `add_permits` wakes several."""

    async def body() -> None:
        sem = Semaphore(0)
        children = []
        for units in (1, 2, 3, 1):
            children.append(spawn(sem.acquire, units))
            await waiting(sem, len(children))
        sem.release(5)
        for child in children[:2]:
            await child.wait()
        assert sem.statistics() == (2, 2)  # the 3 wait, and the 1 behind them
        sem.release(1)
        await children[2].wait()
        assert sem.statistics() == (0, 1)
        sem.release(1)
        await children[3].wait()

    world.run(body)


def test_a_big_request_that_gives_up_lets_the_smaller_ones_go(world: World) -> None:
    """Go: x/sync semaphore, `TestAllocCancelDoesntStarve`."""

    async def body() -> None:
        sem = Semaphore(2)
        stop = Event()
        big = spawn(select, sem.acquire(3), stop)
        await waiting(sem, 1)
        small = [spawn(sem.acquire), spawn(sem.acquire)]
        await waiting(sem, 3)
        stop.set()
        assert await big.wait() == (1, None)
        for child in small:
            await child.wait()
        assert sem.statistics() == (0, 0)
        sem.release(2)
        with pytest.raises(TimeoutError):
            await sem.acquire(3).within(0.001)
        sem.acquire_nowait(2)

    world.run(body)


def test_a_big_request_that_is_cancelled_lets_the_smaller_ones_go(loop_world: World) -> None:
    """Go: x/sync semaphore, `TestAllocCancelDoesntStarve`."""

    async def body() -> None:
        sem = Semaphore(1)
        big = spawn(sem.acquire, 2)
        await waiting(sem, 1)
        small = spawn(sem.acquire)
        await waiting(sem, 2)
        big.cancel()
        with pytest.raises(ChildCancelled):
            await big.wait()
        await small.wait()
        assert sem.statistics() == (0, 0)

    loop_world.run(body)


def test_a_big_request_that_loses_its_select_lets_a_crowd_go(world: World) -> None:
    """Several selects give up at once: no matter which of their arms stand before whom."""

    async def body() -> None:
        sem, stop = Semaphore(1), Event()
        big = []
        small = []
        for n in range(12):
            big.append(spawn(select, stop, sem.acquire(2)))
            await waiting(sem, n * 2 + 1)
            small.append(spawn(sem.acquire))
            await waiting(sem, n * 2 + 2)
        stop.set()
        for child in big:
            assert await child.wait() == (0, None)
        for child in small:
            sem.release()
            await child.wait()
        assert sem.statistics() == (12 - 11, 0)

    world.run(body)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_acquire_cancelled_after_it_was_served_passes_its_units_on(aio: World, where: str) -> None:
    """tokio: semaphore, `stresstest` of dropped acquires; asyncio: gh-90155, a cancelled acquire loses the wake-up."""

    async def body() -> None:
        sem = Semaphore(0)
        first = spawn(sem.acquire, 2)
        await waiting(sem, 1)
        second, third = spawn(sem.acquire), spawn(lambda: select(Event(), sem.acquire()))
        await waiting(sem, 3)
        if where == "here":
            sem.release(2)
        else:
            elsewhere(lambda: sem.release(2))
        first.cancel()
        with pytest.raises(ChildCancelled):
            await first.wait()
        await second.wait()
        assert await third.wait() == (1, None)
        assert sem.statistics() == (0, 0)

    aio.run(body)


@pytest.mark.parametrize("seed", range(4))
def test_native_cancels_at_random_moments_neither_lose_nor_make_units(aio: World, seed: int) -> None:
    rng = random.Random(seed)

    async def body() -> None:
        sem = Semaphore(3)
        held = 0

        async def work() -> None:
            nonlocal held
            for _ in range(20):
                units = rng.randint(1, 3)
                if rng.random() < 0.3:
                    if (await select(sem.acquire(units), sleep(0)))[0] == 1:
                        continue
                else:
                    await sem.acquire(units)
                held += units
                assert held <= 3
                try:
                    await asyncio.sleep(0)
                finally:
                    held -= units
                    sem.release(units)

        tasks = [asyncio.create_task(work()) for _ in range(10)]
        for _ in range(60):
            await asyncio.sleep(0)
            rng.choice(tasks).cancel()
            tasks.append(asyncio.create_task(work()))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert held == 0
        assert sem.statistics() == (3, 0)
        sem.acquire_nowait(3)

    aio.run(body)


def test_in_a_cancelled_scope_nothing_is_taken(loop_world: World) -> None:
    async def body() -> None:
        sem, lock = Semaphore(1), Lock()
        for _ in range(3):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep(0)
            assert scope.cancelled_caught
            with anyio.move_on_after(-1):
                await sem.acquire(2)
            with anyio.move_on_after(-1):
                await sem.acquire(2).map(lambda _: None)
        assert sem.statistics() == (1, 0)
        assert lock.statistics() == (False, None, 0)

    loop_world.run(body)


def test_a_release_above_the_maximum_is_refused_and_changes_nothing(world: World) -> None:
    """Go: x/sync semaphore, `TestWeightedPanic`; Kotlin: SemaphoreTest, release beyond the permits."""

    async def body() -> None:
        sem = Semaphore(2, max_value=3, name="slots")
        with pytest.raises(ValueError, match=r"'slots'.*3"):
            sem.release(2)
        assert sem.value == 2
        sem.release()
        with pytest.raises(ValueError, match="'slots'"):
            sem.release()
        assert sem.value == sem.max_value == 3
        await sem.acquire(3)
        waiter = spawn(sem.acquire, 2)
        await waiting(sem, 1)
        with pytest.raises(ValueError, match="'slots'"):
            sem.release(4)
        assert sem.statistics() == (0, 1)
        sem.release(3)
        await waiter.wait()
        assert sem.value == 1

    world.run(body)


def test_without_a_maximum_release_adds() -> None:
    """tokio: semaphore, `add_permits`."""
    sem = Semaphore(0)
    assert sem.max_value is None
    sem.release(10)
    assert sem.value == 10


def test_async_with_takes_one_and_gives_it_back_also_after_an_error(world: World) -> None:
    async def body() -> None:
        sem = Semaphore(2)
        async with sem as entered:
            assert entered is sem
            assert sem.value == 1
            async with sem:
                assert sem.value == 0
        with pytest.raises(OSError, match="disk"):
            async with sem:
                raise OSError("disk")
        assert sem.value == 2

    world.run(body)


def test_with_in_plain_threads_limits_them() -> None:
    sem = Semaphore(2)
    inside = most = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with sem:
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 2
    assert sem.statistics() == (2, 0)


@pytest.mark.parametrize("make", [lambda: Semaphore(1), Lock, Condition])
def test_with_in_the_thread_of_a_loop_is_refused_and_takes_nothing(loop_world: World, make: Any) -> None:
    async def body() -> None:
        thing = make()
        with pytest.raises(RuntimeError, match="`with` over a"), thing:
            pass
        thing.acquire_nowait()
        thing.release()

    loop_world.run(body)


def test_one_who_comes_later_does_not_barge_in(world: World) -> None:
    """tokio: semaphore is fair; Kotlin: SemaphoreTest, `tryAcquire` fails while others wait."""

    async def body() -> None:
        sem, lock = Semaphore(0), Lock()
        await lock.acquire()
        first = [spawn(sem.acquire), spawn(lock.acquire)]
        await waiting(sem, 1)
        await waiting(lock, 1)
        sem.release()
        lock.release()  # handed over in this very step
        for thing in (sem, lock):
            with pytest.raises(WouldBlock):
                thing.acquire_nowait()
        for child in first:
            await child.wait()
        assert sem.value == 0
        assert lock.locked()

    world.run(body)


def test_an_acquire_is_an_arm_that_wins(world: World) -> None:
    async def body() -> None:
        sem = Semaphore(0)
        selecting = spawn(select, Event(), sem.acquire(2))
        await waiting(sem, 1)
        sem.release(2)
        assert await selecting.wait() == (1, None)
        assert sem.value == 0
        sem.release()
        assert await select(sem, Event()) == (0, None)
        assert sem.value == 0

    world.run(body)


def test_an_acquire_that_loses_takes_nothing(world: World) -> None:
    async def body() -> None:
        sem, stop = Semaphore(1), Event()
        stop.set()
        for _ in range(20):
            index, _none = await select(sem, stop)
            if index == 0:
                sem.release()
            assert sem.statistics() == (1, 0)
            assert await select(stop, sem, biased=True) == (0, None)
            assert sem.statistics() == (1, 0)
        stop.clear()
        sem.acquire_nowait()
        selecting = spawn(select, sem, stop)
        await waiting(sem, 1)
        stop.set()
        assert await selecting.wait() == (1, None)
        sem.release()
        assert sem.statistics() == (1, 0)

    world.run(body)


def test_selects_over_two_semaphores_conserve_units_whoever_wins(pair: Pair) -> None:
    left, right = Semaphore(1), Semaphore(1)

    async def work() -> int:
        async def once() -> int:
            won = 0
            for _ in range(40):
                index, _none = await select(left, right)
                (left, right)[index].release()
                won += 1
            return won

        children = [spawn(once) for _ in range(3)]
        return sum([await child.wait() for child in children])

    assert pair.run(work, work) == (120, 120)
    assert left.statistics() == right.statistics() == (1, 0)


def test_one_select_on_one_semaphore_twice_takes_it_once(world: World) -> None:
    async def body() -> None:
        sem = Semaphore(0)
        selecting = spawn(select, sem.acquire(), sem.acquire(2))
        await settle(lambda: sem.statistics().waiting)
        sem.release(5)
        index, _none = await selecting.wait()
        assert sem.statistics() == (5 - (1 + index), 0)

    world.run(body)


def test_a_semaphore_limits_workers_of_two_worlds(pair: Pair) -> None:
    sem = Semaphore(2)
    inside: list[int] = []

    async def work() -> None:
        async def once(n: int) -> None:
            for _ in range(15):
                async with sem:
                    inside.append(n)
                    assert len(inside) <= 2
                    inside.remove(n)

        for child in [spawn(once, id(work) + n) for n in range(3)]:
            await child.wait()

    pair.run(work, work)
    assert sem.statistics() == (2, 0)


def test_a_release_from_a_finalizer_or_a_callback_wakes_who_waits(world: World) -> None:
    async def body() -> None:
        sem = Semaphore(0)
        child = spawn(sem.acquire)
        await waiting(sem, 1)
        Last(sem.release)
        await child.wait()

    world.run(body)


# ===================================================================== Lock


def test_a_lock_belongs_to_who_acquired_it(world: World) -> None:
    """trio: test_sync, `test_Lock_and_StrictFIFOLock`."""

    async def body() -> None:
        lock = Lock()
        assert not lock.locked()
        await lock.acquire()
        assert lock.locked()
        owner = lock.statistics().owner
        if world.can_cancel:
            current = asyncio.current_task() if world.name != "trio" else trio.lowlevel.current_task()
            assert owner is current
        else:
            assert owner is True
        lock.release()
        assert lock.statistics() == (False, None, 0)

    world.run(body)


def test_releasing_what_another_holds_is_an_error_and_changes_nothing(world: World) -> None:
    """trio: test_sync, `test_Lock_and_StrictFIFOLock`."""

    async def body() -> None:
        lock = Lock(name="door")

        async def release() -> None:
            lock.release()

        await lock.acquire()
        with pytest.raises(RuntimeError, match=r"'door'.*held by"):
            await spawn(release).wait()
        with pytest.raises(RuntimeError, match=r"'door'.*held by"):
            await _in_a_thread(lock.release)
        assert lock.locked()
        lock.release()
        with pytest.raises(RuntimeError, match=r"'door'.*nobody holds it"):
            lock.release()
        lock.acquire_nowait()

    async def _in_a_thread(call: Callable[[], object]) -> None:
        errors: list[Exception] = []

        def run() -> None:
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

        elsewhere(run)
        raise errors[0]

    world.run(body)


def test_acquiring_what_one_holds_is_an_error_not_a_deadlock(world: World) -> None:
    """trio: test_sync, `test_Lock_and_StrictFIFOLock`."""

    async def body() -> None:
        lock = Lock(name="door")
        async with lock:
            for op in (lock.acquire(), lock.acquire().within(1), select(never(), lock)):
                with pytest.raises(RuntimeError, match=r"'door'.*already"):
                    await op
            with pytest.raises(RuntimeError, match=r"'door'.*already"):
                lock.acquire_nowait()
            assert lock.statistics().waiting == 0
        assert not lock.locked()

    world.run(body)


def test_a_lock_is_handed_over_in_the_order_of_arrival(world: World) -> None:
    """trio: test_sync, `test_generic_locks_fifo_fairness`, `test_generic_locks_acquire_nowait_blocks_acquire`."""

    async def body() -> None:
        lock = Lock()
        order: list[int] = []
        await lock.acquire()
        children = []
        for n in range(4):

            async def take(n: int = n) -> None:
                for _ in range(2):
                    async with lock:
                        order.append(n)

            children.append(spawn(take))
            await waiting(lock, n + 1)
        lock.release()
        for child in children:
            await child.wait()
        assert order[:4] == [0, 1, 2, 3]
        assert sorted(order) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert lock.statistics() == (False, None, 0)

    world.run(body)


def test_who_was_handed_the_lock_owns_it_before_he_runs(world: World) -> None:
    """trio: Lock hands over ownership in `release`."""

    async def body() -> None:
        lock = Lock()
        await lock.acquire()
        other = spawn(lock.acquire)
        await waiting(lock, 1)
        lock.release()
        assert lock.locked()
        with pytest.raises(RuntimeError, match="held by"):
            lock.release()
        await other.wait()

    world.run(body)


def test_mutual_exclusion_between_two_worlds(pair: Pair) -> None:
    lock = Lock()
    count = 0

    async def work() -> None:
        async def once() -> None:
            nonlocal count
            for _ in range(40):
                async with lock:
                    seen = count
                    if _ % 8 == 0:
                        await sleep(0)
                    count = seen + 1

        for child in [spawn(once) for _ in range(3)]:
            await child.wait()

    pair.run(work, work)
    assert count == 240
    assert lock.statistics() == (False, None, 0)


def test_with_in_plain_threads_excludes() -> None:
    """CPython: lock_tests."""
    lock = Lock()
    count = 0

    def work() -> None:
        nonlocal count
        for _ in range(200):
            with lock as entered:
                assert entered is lock
                seen = count
                count = seen + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 800
    with pytest.raises(RuntimeError, match="plain thread"), lock:
        elsewhere(lock.release)
    assert not lock.locked()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_lock_handed_to_one_who_is_cancelled_goes_to_the_next(aio: World, where: str) -> None:
    """asyncio: test_locks, `test_cancel_release_race`."""

    async def body() -> None:
        lock = Lock()
        locked, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                locked.set()
                done.wait()

        async def take() -> bool:
            async with lock:
                return lock.statistics().owner is asyncio.current_task()

        thread = threading.Thread(target=hold)
        if where == "here":
            lock.acquire_nowait()
        else:
            thread.start()
            locked.wait()
        first = spawn(take)
        await waiting(lock, 1)
        second = spawn(take)
        await waiting(lock, 2)
        if where == "here":
            lock.release()
        else:
            done.set()
            thread.join()
        assert lock.statistics().waiting == 1  # handed to the first, who has not run yet
        first.cancel()
        with pytest.raises(ChildCancelled):
            await first.wait()
        assert await second.wait() is True
        assert lock.statistics() == (False, None, 0)

    aio.run(body)


@pytest.mark.parametrize("seed", range(4))
def test_native_cancels_at_random_moments_leave_the_lock_free_and_whole(aio: World, seed: int) -> None:
    rng = random.Random(seed)

    async def body() -> None:
        lock = Lock()
        inside = 0

        async def work() -> None:
            nonlocal inside
            for _ in range(20):
                async with lock:
                    inside += 1
                    try:
                        assert inside == 1
                        assert lock.statistics().owner is asyncio.current_task()
                        await asyncio.sleep(0)
                    finally:
                        inside -= 1

        tasks = [asyncio.create_task(work()) for _ in range(8)]
        for _ in range(60):
            await asyncio.sleep(0)
            rng.choice(tasks).cancel()
            tasks.append(asyncio.create_task(work()))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert lock.statistics() == (False, None, 0)

    aio.run(body)


def test_a_cancelled_acquire_does_not_have_the_lock(loop_world: World) -> None:
    """trio: test_sync, `test_Lock...`: cancelled in the queue."""

    async def body() -> None:
        lock = Lock()
        await lock.acquire()
        first, second = spawn(lock.acquire), spawn(lock.acquire)
        await waiting(lock, 2)
        first.cancel()
        with pytest.raises(ChildCancelled):
            await first.wait()
        assert lock.statistics().waiting == 1
        lock.release()
        await second.wait()

    loop_world.run(body)


def test_a_lock_is_an_arm_that_wins_and_owns_or_loses_and_does_not(world: World) -> None:
    async def body() -> None:
        lock, stop = Lock(), Event()
        assert await select(stop, lock) == (1, None)
        lock.release()

        async def choose() -> int:
            index, _none = await select(lock, stop)
            if index == 0:
                lock.release()  # it is the owner
            return index

        await lock.acquire()
        choosing = spawn(choose)
        await waiting(lock, 1)
        lock.release()
        assert await choosing.wait() == 0
        await lock.acquire()
        choosing = spawn(choose)
        await waiting(lock, 1)
        stop.set()
        assert await choosing.wait() == 1
        lock.release()
        assert lock.statistics() == (False, None, 0)

    world.run(body)


def test_an_acquire_that_times_out_leaves_the_lock_alone(world: World) -> None:
    async def body() -> None:
        lock = Lock(name="door")

        async def attempt() -> None:
            with pytest.raises(TimeoutError, match="'door'"):
                await lock.acquire().within(0.001)

        async with lock:
            await spawn(attempt).wait()
            assert lock.statistics().waiting == 0
        assert not lock.locked()

    world.run(body)


# ===================================================================== Condition


def test_one_notification_lets_one_go_on_in_the_order_of_arrival(world: World) -> None:
    """trio: test_sync, `test_Condition`; CPython: lock_tests, `ConditionTests.test_notify`."""

    async def body() -> None:
        cond = Condition()
        order: list[int] = []
        children = []
        for n in range(4):

            async def wait(n: int = n) -> None:
                async with cond:
                    await cond.wait()
                    assert cond.locked()
                    order.append(n)

            children.append(spawn(wait))
            await waiting(cond, n + 1)
        assert not cond.locked()
        for n in range(2):
            async with cond:
                cond.notify()
            await children[n].wait()
            assert order == list(range(n + 1))
        async with cond:
            cond.notify(5)
            assert len(order) == 2  # they go on when the lock is free
        for child in children:
            await child.wait()
        assert sorted(order) == [0, 1, 2, 3]
        assert cond.statistics() == (False, 0)

    world.run(body)


def test_notify_all_lets_all_go_on_one_after_the_other(world: World) -> None:
    """trio: test_sync, `test_Condition`."""

    async def body() -> None:
        cond = Condition()
        inside = 0

        async def wait() -> None:
            nonlocal inside
            async with cond:
                await cond.wait()
                inside += 1
                assert inside == 1
                await sleep(0)
                inside -= 1

        children = [spawn(wait) for _ in range(5)]
        await waiting(cond, 5)
        async with cond:
            cond.notify_all()
            assert cond.statistics() == (True, 0)
        for child in children:
            await child.wait()

    world.run(body)


@pytest.mark.parametrize("n", [0, 2, 10])
def test_notify_lets_as_many_go_on_as_it_says_and_no_more(world: World, n: int) -> None:
    """CPython: lock_tests, `ConditionTests.test_notify`."""

    async def body() -> None:
        cond = Condition()

        async def wait() -> None:
            async with cond:
                await cond.wait()

        children = [spawn(wait) for _ in range(3)]
        await waiting(cond, 3)
        async with cond:
            cond.notify(n)
        assert cond.statistics().waiting == max(3 - n, 0)
        await settle(lambda: sum(child.done for child in children) == min(n, 3))
        async with cond:
            cond.notify_all()
        for child in children:
            await child.wait()

    world.run(body)


def test_a_notification_is_not_kept_for_those_who_come_later(world: World) -> None:
    """CPython: a condition has no memory, unlike an event."""

    async def body() -> None:
        cond = Condition()
        async with cond:
            cond.notify(3)
            cond.notify_all()

        async def wait() -> None:
            async with cond:
                await cond.wait()

        child = spawn(wait)
        await waiting(cond, 1)
        assert not child.done
        async with cond:
            cond.notify()
        await child.wait()

    world.run(body)


def test_wait_for_goes_on_when_the_predicate_is_true_and_gives_its_value(world: World) -> None:
    """CPython: lock_tests, `ConditionTests.test_waitfor`."""

    async def body() -> None:
        cond = Condition()
        state = 0

        async def wait() -> int:
            async with cond:
                return await cond.wait_for(lambda: cond.locked() and state // 3)

        child = spawn(wait)
        await waiting(cond, 1)
        for n in (1, 2):
            async with cond:
                state = n
                cond.notify_all()
            await waiting(cond, 1)
        async with cond:
            state = 6
            cond.notify()
        assert await child.wait() == 2
        async with cond:
            assert await cond.wait_for(lambda: "at once") == "at once"

    world.run(body)


def test_a_predicate_that_raises_leaves_the_lock_held(world: World) -> None:
    async def body() -> None:
        cond = Condition()
        state = 1

        async def wait() -> None:
            async with cond:
                with pytest.raises(ZeroDivisionError):
                    await cond.wait_for(lambda: 1 // state > 1)
                assert cond.locked()

        child = spawn(wait)
        await waiting(cond, 1)
        async with cond:
            state = 0
            cond.notify()
        await child.wait()
        assert cond.statistics() == (False, 0)

    world.run(body)


def test_without_the_lock_waiting_and_notifying_are_errors(world: World) -> None:
    """trio: test_sync, `test_Condition`; CPython: lock_tests, `test_unacquired_wait`, `test_unacquired_notify`."""

    async def body() -> None:
        cond = Condition(name="queue")

        async def hold(until: Event) -> None:
            async with cond:
                await until.wait()

        async def assert_refused() -> None:
            with pytest.raises(RuntimeError, match=r"wait\(\).*'queue'"):
                await cond.wait()
            with pytest.raises(RuntimeError, match=r"wait\(\).*'queue'"):
                await cond.wait_for(lambda: True)
            with pytest.raises(RuntimeError, match=r"notify\(\).*'queue'"):
                cond.notify()
            with pytest.raises(RuntimeError, match=r"notify_all\(\).*'queue'"):
                cond.notify_all()

        await assert_refused()
        until = Event()
        holding = spawn(hold, until)
        await settle(cond.locked)
        await assert_refused()  # somebody has it, but not we
        until.set()
        await holding.wait()
        assert cond.statistics() == (False, 0)

    world.run(body)


def test_a_cancelled_waiter_holds_the_lock_again_before_it_raises(loop_world: World) -> None:
    """trio: test_sync, `test_Condition` cancelled; asyncio: test_locks, `test_wait_cancel_contested`."""

    async def body() -> None:
        cond = Condition()
        steps: list[str] = []

        async def wait() -> None:
            async with cond:
                try:
                    await cond.wait()
                finally:
                    assert cond.locked()
                    steps.append("has it again")
                    cond.notify_all()  # allowed, so it is really ours

        child = spawn(wait)
        await waiting(cond, 1)
        await cond.acquire()
        child.cancel()
        await waiting(cond.lock, 1)
        assert cond.statistics().waiting == 0
        assert steps == []  # it waits for the lock, whatever the cancellation says
        cond.release()
        with pytest.raises(ChildCancelled):
            await child.wait()
        assert steps == ["has it again"]
        assert cond.statistics() == (False, 0)

    loop_world.run(body)


def test_one_who_is_cancelled_by_a_scope_holds_the_lock_again(loop_world: World) -> None:
    """anyio: test_synchronization, `Condition.test_wait_cancel`."""

    async def body() -> None:
        cond = Condition()
        scope = anyio.CancelScope()
        after: list[bool] = []

        async def wait() -> None:
            async with cond:
                with scope:
                    try:
                        await cond.wait()
                    finally:
                        after.append(cond.locked())
                        cond.notify()
                assert scope.cancelled_caught
                cond.notify()  # still ours behind the scope
            await sleep(0)  # nothing is left over

        child = spawn(wait)
        await waiting(cond, 1)
        await cond.acquire()
        scope.cancel()
        await waiting(cond.lock, 1)
        cond.release()
        await child.wait()
        assert after == [True]
        assert cond.statistics() == (False, 0)

    loop_world.run(body)


def test_several_native_cancels_while_the_lock_is_taken_again_raise_one_once_it_is_held(aio: World) -> None:
    """asyncio: test_locks, `test_wait_cancel_after_notify`, `test_wait_cancel_contested`."""

    async def body() -> None:
        cond = Condition()
        held: list[bool] = []

        async def wait() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with cond:
                try:
                    await cond.wait()
                except asyncio.CancelledError:
                    held.append(cond.lock.statistics().owner is task)
                    assert task.cancelling() == 3
                    raise

        child = spawn(wait)
        await waiting(cond, 1)
        await cond.acquire()
        for _ in range(3):
            child.cancel()
            await waiting(cond.lock, 1)
            await asyncio.sleep(0)
        assert held == []
        cond.release()
        with pytest.raises(ChildCancelled):
            await child.wait()
        assert held == [True]
        assert cond.statistics() == (False, 0)

    aio.run(body)


def test_a_wait_in_a_cancelled_scope_keeps_the_lock_all_along(loop_world: World) -> None:
    async def body() -> None:
        cond = Condition()
        async with cond:
            with anyio.move_on_after(-1) as scope:
                await cond.wait()
            assert scope.cancelled_caught
            cond.notify()
        assert cond.statistics() == (False, 0)

    loop_world.run(body)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_notification_that_meets_a_cancellation_is_passed_on(aio: World, where: str) -> None:
    """tokio: notify, `notify_in_drop_after_wake`; asyncio: test_locks, `test_wait_cancel_after_notify`."""

    async def body() -> None:
        cond = Condition()

        async def wait() -> None:
            async with cond:
                await cond.wait()

        first = spawn(wait)
        await waiting(cond, 1)
        second = spawn(wait)
        await waiting(cond, 2)
        if where == "here":
            cond.acquire_nowait()
            cond.notify()
            cond.release()
        else:
            elsewhere(lambda: _notify(cond))
        first.cancel()  # before it could run
        with pytest.raises(ChildCancelled):
            await first.wait()
        await second.wait()
        assert cond.statistics() == (False, 0)

    aio.run(body)


def _notify(cond: Condition) -> None:
    with cond:
        cond.notify()


def test_a_notification_is_passed_on_by_one_who_is_cancelled_while_he_takes_the_lock_again(aio: World) -> None:
    """asyncio: test_locks, `test_wait_cancel_after_notify` (gh-112202): he raises, so he will not act on it."""

    async def body() -> None:
        cond = Condition()

        async def wait() -> None:
            async with cond:
                await cond.wait()

        first = spawn(wait)
        await waiting(cond, 1)
        second = spawn(wait)
        await waiting(cond, 2)
        await cond.acquire()
        cond.notify()
        await waiting(cond.lock, 1)  # the first has been told and wants the lock
        first.cancel()
        await asyncio.sleep(0)
        await waiting(cond.lock, 1)
        cond.release()
        with pytest.raises(ChildCancelled):
            await first.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        lost = not second.done
        if lost:  # so that the run ends
            await cond.acquire()
            cond.notify_all()
            cond.release()
        await second.wait()
        assert not lost

    aio.run(body)


@pytest.mark.parametrize("seed", range(3))
def test_notifications_are_not_lost_under_native_cancels_at_random_moments(aio: World, seed: int) -> None:
    """As many tokens as notifications: each is taken by somebody who was not cancelled."""
    rng = random.Random(seed)

    async def body() -> None:
        cond = Condition()
        tokens = taken = 0

        async def take() -> None:
            nonlocal tokens, taken
            async with cond:
                await cond.wait_for(lambda: tokens)
                tokens -= 1
                taken += 1

        tasks: list[asyncio.Task[None]] = []
        for n in range(20):
            while cond.statistics().waiting < 5:
                tasks.append(asyncio.create_task(take()))
                await asyncio.sleep(0)
                await settle(lambda: cond.lock.statistics() == (False, None, 0))
            async with cond:
                tokens += 1
                cond.notify()
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                [task for task in tasks if not task.done()][rng.randrange(2)].cancel()
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            if (tokens, taken) != (0, n + 1):
                break
        left = (tokens, taken)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert left == (0, 20)
        assert cond.statistics() == (False, 0)

    aio.run(body)


def test_notified_is_an_arm_that_wins_and_one_that_loses(world: World) -> None:
    async def body() -> None:
        cond, stop = Condition(), Event()
        selecting = spawn(select, stop, cond.notified())
        await waiting(cond, 1)
        assert not cond.locked()
        async with cond:
            cond.notify()
        assert await selecting.wait() == (1, None)
        assert not cond.locked()
        selecting = spawn(select, stop, cond.notified())
        await waiting(cond, 1)
        stop.set()
        assert await selecting.wait() == (0, None)
        assert cond.statistics() == (False, 0)
        with pytest.raises(WouldBlock):
            cond.notified().poll()
        with pytest.raises(TimeoutError):
            await cond.notified().within(0.001)
        assert cond.statistics() == (False, 0)

    world.run(body)


def test_a_notification_skips_an_arm_that_has_lost(world: World) -> None:
    async def body() -> None:
        cond, stop = Condition(), Event()

        async def wait() -> None:
            async with cond:
                await cond.wait()

        selecting = spawn(select, stop, cond.notified())
        await waiting(cond, 1)
        child = spawn(wait)
        await waiting(cond, 2)
        async with cond:
            stop.set()  # decided, but it may not have run yet
            cond.notify()
        assert await selecting.wait() == (0, None)
        await child.wait()

    world.run(body)


def test_a_condition_between_two_worlds(pair: Pair) -> None:
    """CPython: a bounded buffer with two conditions on one lock."""
    lock = Lock()
    has_room, has_items = Condition(lock), Condition(lock)
    assert has_room.lock is has_items.lock is lock
    buffer: list[int] = []

    async def produce() -> None:
        for n in range(60):
            async with lock:
                await has_room.wait_for(lambda: len(buffer) < 2)
                buffer.append(n)
                has_items.notify()

    async def consume() -> list[int]:
        got = []
        for _ in range(60):
            async with has_items:
                await has_items.wait_for(lambda: buffer)
                got.append(buffer.pop(0))
                has_room.notify()
        return got

    assert pair.run(produce, consume) == (None, list(range(60)))
    assert has_room.statistics() == has_items.statistics() == (False, 0)


def test_notify_all_wakes_waiters_of_all_worlds() -> None:
    cond = Condition()
    ready = False

    async def wait() -> None:
        async def once() -> None:
            async with cond:
                await cond.wait_for(lambda: ready)

        for child in [spawn(once) for _ in range(3)]:
            await child.wait()

    async def tell() -> None:
        nonlocal ready
        await waiting(cond, 12)
        async with cond:
            ready = True
            cond.notify_all()

    names = ("asyncio", "asyncio-debug", "trio", "threads")
    run_together(*[(ALL[name], wait) for name in names], (ALL["threads"], tell))
    assert cond.statistics() == (False, 0)


def test_a_condition_in_plain_threads() -> None:
    """CPython: lock_tests, `ConditionTests`."""
    cond = Condition()
    items: list[int] = []
    got: list[int] = []

    def consume() -> None:
        with cond:
            cond.wait_for(lambda: items).sync()
            got.append(items.pop())
            cond.wait().sync()

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    settle_here(lambda: cond.statistics().waiting == 3)
    with cond:
        items += [1, 2, 3]
        cond.notify_all()
    settle_here(lambda: len(got) == 3 and cond.statistics() == (False, 3))
    with cond:
        cond.notify(3)
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 2, 3]


def test_a_wait_is_performed_once_and_one_that_is_forgotten_warns(world: World) -> None:
    async def body() -> None:
        cond = Condition(name="queue")
        async with cond:
            done = cond.wait_for(lambda: True)
            assert await done is True
            with pytest.raises(RuntimeError, match="performed already"):
                await done
            forgotten = [cond.wait()]
            with pytest.warns(RuntimeWarning, match=r"'queue'.*never performed"):
                forgotten.clear()

    world.run(body)


def test_sync_of_a_wait_in_the_thread_of_a_loop_is_refused(loop_world: World) -> None:
    async def body() -> None:
        cond = Condition()
        async with cond:
            with pytest.raises(RuntimeError, match=r"sync\(\)"):
                cond.wait().sync()
            cond.notify()  # still ours
        assert cond.statistics() == (False, 0)

    loop_world.run(body)


# ===================================================================== looking, and bad input


def test_statistics_and_repr_tell_name_and_state(world: World) -> None:
    async def body() -> None:
        sem, lock, cond = Semaphore(2, max_value=5, name="s"), Lock(name="l"), Condition(name="c")
        assert (repr(sem), repr(lock), repr(cond)) == ("<Semaphore 's' 2/5>", "<Lock 'l'>", "<Condition on <Lock 'c'>>")
        assert repr(Semaphore(1)) != repr(Semaphore(1))
        await lock.acquire()
        children = [spawn(sem.acquire, 3), spawn(lock.acquire)]
        await waiting(sem, 1)
        await waiting(lock, 1)
        assert (sem.statistics().value, sem.statistics().waiting) == (2, 1)
        assert (lock.statistics().locked, lock.statistics().waiting) == (True, 1)
        assert repr(lock) == "<Lock 'l' locked>"
        sem.release()
        lock.release()
        for child in children:
            await child.wait()

    world.run(body)


@pytest.mark.parametrize("value", [-1, 1.5, None, "3", True, []])
def test_a_semaphore_begins_with_a_count(value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"value must be an integer of at least 0, not "):
        Semaphore(value)


@pytest.mark.parametrize("most", [0, -1, 1.5, "3", True, 2])
def test_a_maximum_is_a_count_that_is_not_below_the_value(most: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="max_value"):
        Semaphore(3, max_value=most)


@pytest.mark.parametrize("units", [0, -1, 1.5, None, "3", True])
def test_units_are_a_count_of_at_least_one_and_nothing_else_is_taken(units: Any) -> None:
    """Go: x/sync semaphore would allow 0; tokio too: an acquire of nothing is a mistake here."""
    sem = Semaphore(3)
    for call in (sem.acquire, sem.acquire_nowait, sem.release):
        with pytest.raises((ValueError, TypeError), match=r"units must be an integer of at least 1, not "):
            call(units)
    assert sem.statistics() == (3, 0)


def test_a_request_that_can_never_be_met_is_refused_at_once() -> None:
    """Go: x/sync semaphore, `TestWeightedDoesntBlockIfTooBig`."""
    sem = Semaphore(1, max_value=3, name="slots")
    for call in (sem.acquire, sem.acquire_nowait):
        with pytest.raises(ValueError, match=r"units .*'slots'.*3, not 4"):
            call(4)
    assert sem.statistics() == (1, 0)


@pytest.mark.parametrize("lock", [threading.Lock(), 3, "lock", Semaphore(1)])
def test_a_condition_wants_a_lock_of_ours(lock: Any) -> None:
    with pytest.raises(TypeError, match=r"lock must be a chanlib\.Lock or None, not "):
        Condition(lock)


@pytest.mark.parametrize("n", [-1, 1.5, None, "3", True])
def test_notify_wants_a_count(world: World, n: Any) -> None:
    async def body() -> None:
        cond = Condition()
        async with cond:
            with pytest.raises((ValueError, TypeError), match=r"n must be an integer of at least 0, not "):
                cond.notify(n)
        assert not cond.locked()

    world.run(body)


@pytest.mark.parametrize("predicate", [3, True, "x", None])
def test_a_condition_waits_for_a_function(predicate: Any) -> None:
    with pytest.raises(TypeError, match=r"wait_for\(\) takes a function without arguments, not "):
        Condition().wait_for(predicate)


@pytest.mark.parametrize("predicate", [None, lambda: False], ids=["wait", "wait_for"])
def test_a_wait_with_a_limit_raises_and_holds_the_lock_again(world: World, predicate: Any) -> None:
    async def body() -> None:
        cond = Condition()
        async with cond:
            waiting_for = cond.wait() if predicate is None else cond.wait_for(predicate)
            with pytest.raises(TimeoutError):
                await waiting_for.within(0.01)
            assert cond.locked()
            cond.notify()  # which asks for the lock
        assert cond.statistics() == (False, 0)

    world.run(body)


def test_a_thread_waits_for_a_condition_for_so_long_and_no_longer() -> None:
    cond = Condition()
    with cond:
        with pytest.raises(TimeoutError):
            cond.wait().sync(0.01)
        with pytest.raises(ValueError, match="timeout"):
            cond.wait().sync(math.nan)
        assert cond.locked()
    assert cond.statistics() == (False, 0)
