"""Barrier: so many parties meet before any of them goes on.

Behaviour follows tokio's `barrier` tests (nothing ever breaks it) and CPython's `BarrierTests` (the result); the
docstring of a test names which, where it follows one.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from worlds import ALL, ChildCancelled, Pair, World, run_together, settle, settle_here, spawn

from chanlib import Barrier, Event, WouldBlock, never, select


async def parked(barrier: Barrier, number: int) -> None:
    await settle(lambda: barrier.statistics().waiting == number)


def test_one_party_never_waits(world: World) -> None:
    """tokio: barrier, `single`; CPython: BarrierTests, `test_single_thread`."""

    async def body() -> None:
        barrier = Barrier(1)
        for _ in range(3):
            assert await barrier.wait() == 0
            assert await barrier == 0
            assert barrier.wait().poll() == 0
        assert barrier.statistics() == (1, 0)

    world.run(body)


def test_the_first_of_two_waits_for_the_second(world: World) -> None:
    """tokio: barrier, `tango`."""

    async def body() -> None:
        barrier = Barrier(2)
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        assert not first.done
        assert await barrier.wait() == 1
        assert await first.wait() == 0
        assert barrier.statistics() == (2, 0)

    world.run(body)


def test_nobody_goes_on_before_all_have_come_and_the_result_is_the_order_of_arrival(world: World) -> None:
    """tokio: barrier, `lots`; CPython: BarrierTests, `test_wait_return`."""

    async def body() -> None:
        barrier = Barrier(10)
        children = []
        for n in range(9):
            children.append(spawn(barrier.wait))
            await parked(barrier, n + 1)
        assert not any(child.done for child in children)
        with pytest.raises(WouldBlock):
            Barrier(2).wait().poll()
        assert await barrier.wait() == 9
        assert [await child.wait() for child in children] == list(range(9))

    world.run(body)


def test_it_starts_afresh_each_time(world: World) -> None:
    """CPython: BarrierTests, `test_barrier_10`; one who comes early for the next round is not let through with this."""

    async def body() -> None:
        barrier = Barrier(3)
        rounds = 20
        passed = [0, 0, 0]

        async def party(me: int) -> list[int]:
            places = []
            for n in range(rounds):
                places.append(await barrier.wait())
                passed[me] += 1
                assert min(passed) >= n  # nobody is a whole round behind
                assert max(passed) <= n + 2
            return places

        children = [spawn(party, me) for me in range(3)]
        places = [await child.wait() for child in children]
        assert [sorted(each) for each in zip(*places, strict=True)] == [[0, 1, 2]] * rounds
        assert barrier.statistics() == (3, 0)

    world.run(body)


def test_a_new_round_does_not_wait_for_the_last_one_to_have_left(world: World) -> None:
    """Those of the first round are served, but need not have run, when the second begins."""

    async def body() -> None:
        barrier = Barrier(2)
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        assert barrier.wait().poll() == 1
        with pytest.raises(WouldBlock):
            barrier.wait().poll()
        second = spawn(barrier.wait)
        await parked(barrier, 1)
        assert barrier.wait().poll() == 1
        assert [await first.wait(), await second.wait()] == [0, 0]

    world.run(body)


def test_a_poll_that_would_have_to_wait_has_not_come(world: World) -> None:
    async def body() -> None:
        barrier = Barrier(2, name="start")
        op = barrier.wait()
        for _ in range(5):
            with pytest.raises(WouldBlock, match="'start'"):
                op.poll()
        assert barrier.statistics().waiting == 0
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        assert op.poll() == 1  # the same operation
        assert await first.wait() == 0

    world.run(body)


def test_one_who_gives_up_has_not_come(world: World) -> None:
    """Unlike CPython's, which is broken for all (BarrierTests, `test_wait_timeout`)."""

    async def body() -> None:
        barrier = Barrier(3, name="start")
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        for _ in range(5):
            with pytest.raises(TimeoutError, match="'start'"):
                await barrier.wait().within(0.001)
        assert barrier.statistics().waiting == 1
        second = spawn(barrier.wait)
        await parked(barrier, 2)
        assert not first.done
        assert await barrier.wait() == 2
        assert [await first.wait(), await second.wait()] == [0, 1]

    world.run(body)


def test_one_who_is_cancelled_has_not_come(loop_world: World) -> None:
    async def body() -> None:
        barrier = Barrier(3)
        children = []
        for n in range(2):
            children.append(spawn(barrier.wait))
            await parked(barrier, n + 1)
        children[0].cancel()
        with pytest.raises(ChildCancelled):
            await children[0].wait()
        assert barrier.statistics().waiting == 1
        children.append(spawn(barrier.wait))
        await parked(barrier, 2)
        assert await barrier.wait() == 2
        assert [await child.wait() for child in children[1:]] == [0, 1]  # the places of those who have come

    loop_world.run(body)


def test_one_in_a_cancelled_scope_has_not_come(loop_world: World) -> None:
    async def body() -> None:
        barrier = Barrier(2)
        for _ in range(3):
            with anyio.move_on_after(-1) as scope:
                await barrier.wait()
            assert scope.cancelled_caught
        assert barrier.statistics().waiting == 0
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        assert await barrier.wait() == 1
        await first.wait()

    loop_world.run(body)


def test_a_native_cancel_after_all_have_come_holds_up_none_of_the_others(aio: World) -> None:
    async def body() -> None:
        barrier = Barrier(3)
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        second = spawn(barrier.wait)
        await parked(barrier, 2)
        assert barrier.wait().poll() == 2
        first.cancel()
        with pytest.raises(ChildCancelled):
            await first.wait()
        assert await second.wait() == 1
        assert barrier.statistics().waiting == 0  # the round is over: nothing of it is left for the next

    aio.run(body)


@pytest.mark.parametrize("moment", range(4))
def test_native_cancels_leave_the_count_of_the_next_round_right(aio: World, moment: int) -> None:
    async def body() -> None:
        barrier = Barrier(3)
        tasks = [asyncio.create_task(_wait(barrier)) for _ in range(3)]
        for _ in range(moment):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        for _ in range(5):
            await asyncio.sleep(0)
        missing = 3 - barrier.statistics().waiting if not tasks[1].done() else 0
        tasks += [asyncio.create_task(_wait(barrier)) for _ in range(missing)]
        places = await asyncio.gather(*tasks[1:])
        if missing:
            assert sorted(places) == [0, 1, 2]
        assert barrier.statistics().waiting == 0

    async def _wait(barrier: Barrier) -> int:
        return await barrier.wait()

    aio.run(body)


def test_it_is_an_arm_that_wins_as_the_first_and_as_the_last(world: World) -> None:
    async def body() -> None:
        barrier = Barrier(2)
        selecting = spawn(select, Event(), barrier)
        await parked(barrier, 1)
        assert await select(barrier.wait().map(str), never()) == (0, "1")
        assert await selecting.wait() == (1, 0)

    world.run(body)


def test_an_arm_that_loses_has_not_come(world: World) -> None:
    async def body() -> None:
        barrier, stop = Barrier(2), Event()
        selecting = spawn(select, barrier, stop)
        await parked(barrier, 1)
        stop.set()
        assert await selecting.wait() == (1, None)
        assert barrier.statistics().waiting == 0
        assert await select(stop, barrier, biased=True) == (0, None)
        with pytest.raises(WouldBlock):
            barrier.wait().poll()
        first = spawn(barrier.wait)
        await parked(barrier, 1)
        assert await select(stop, barrier, biased=True) == (0, None)  # the last one, had it not lost
        assert barrier.statistics().waiting == 1
        assert await barrier.wait() == 1
        await first.wait()

    world.run(body)


def test_an_arm_that_has_lost_and_has_not_run_yet_is_not_counted(world: World) -> None:
    """It is decided when the event is set, though the select still stands in the queue."""

    async def body() -> None:
        barrier, stop = Barrier(3), Event()
        selecting = spawn(select, barrier, stop)
        await parked(barrier, 1)
        first = spawn(barrier.wait)
        await parked(barrier, 2)
        stop.set()
        with pytest.raises(WouldBlock):
            barrier.wait().poll()
        assert await selecting.wait() == (1, None)
        second = spawn(barrier.wait)
        await parked(barrier, 2)
        assert await barrier.wait() == 2
        assert [await first.wait(), await second.wait()] == [0, 1]

    world.run(body)


def test_one_select_at_two_barriers_comes_to_one_of_them() -> None:
    async def body() -> None:
        left, right = Barrier(2), Barrier(2)
        selecting = spawn(select, left, right)
        await parked(left, 1)
        await parked(right, 1)
        with pytest.raises(WouldBlock):
            select(Event(), Barrier(2)).poll()
        assert await right.wait() == 1
        assert await selecting.wait() == (1, 0)
        assert left.statistics().waiting == right.statistics().waiting == 0

    ALL["asyncio"].run(body)


def test_the_arms_of_one_select_do_not_meet_each_other(world: World) -> None:
    async def body() -> None:
        barrier, stop = Barrier(2), Event()
        with pytest.raises(WouldBlock):
            select(barrier, barrier).poll()
        selecting = spawn(select, barrier, barrier, stop)
        await settle(lambda: stop.statistics().waiting == 1)
        assert not selecting.done
        assert await barrier.wait() == 1
        index, place = await selecting.wait()
        assert index in (0, 1)
        assert place == 0
        assert barrier.statistics().waiting == 0

    world.run(body)


def test_two_arms_of_one_select_are_not_two_parties(world: World) -> None:
    async def body() -> None:
        barrier = Barrier(3)
        selecting = spawn(select, barrier, barrier)
        await settle(lambda: barrier.statistics().waiting)
        with pytest.raises(WouldBlock):  # two have come, not three
            barrier.wait().poll()
        first = spawn(barrier.wait)
        await settle(lambda: barrier.statistics().waiting >= 2)
        assert not selecting.done
        assert not first.done
        # whoever was woken in vain comes again: the third lets all go
        place = await barrier.wait().within(20)
        places = [place, await first.wait(), (await selecting.wait())[1]]
        assert sorted(places) == [0, 1, 2]

    world.run(body)


@pytest.mark.parametrize("one", ["threads", "asyncio", "trio"])
@pytest.mark.parametrize("other", ["threads", "asyncio"])
def test_an_arm_that_loses_at_the_moment_when_the_last_one_comes(one: str, other: str) -> None:
    """Either it has come, and all three go on, or it has lost, and the other two wait for another one."""
    rounds = 30
    barriers, stops = [Barrier(3) for _ in range(rounds)], [Event() for _ in range(rounds)]
    ready = [threading.Event() for _ in range(rounds)]
    chosen: list[int] = []

    async def choose() -> None:
        for barrier, stop in zip(barriers, stops, strict=True):
            chosen.append((await select(barrier, stop))[0])

    async def stop_it() -> None:
        for go, stop in zip(ready, stops, strict=True):
            go.wait()
            stop.set()

    async def party() -> list[int]:
        return [await barrier.wait() for barrier in barriers]

    async def last() -> None:
        for n, barrier in enumerate(barriers):
            await settle(lambda b=barrier: b.statistics().waiting == 2)
            ready[n].set()
            coming = spawn(barrier.wait)
            await settle(lambda n=n: len(chosen) > n)
            if chosen[n] == 1:
                assert not coming.done  # it has not come, so there are two
                places = [await barrier.wait(), await coming.wait()]
                assert 2 in places
            else:
                assert await coming.wait() == 2

    parts: list[Any] = [(ALL[one], choose), (ALL["threads"], stop_it), (ALL[other], party), (ALL["threads"], last)]
    run_together(*parts)
    assert len(chosen) == rounds
    assert all(barrier.statistics().waiting == 0 for barrier in barriers)


def test_parties_of_two_worlds_meet(pair: Pair) -> None:
    barrier = Barrier(4)
    count = 0

    async def work() -> list[int]:
        async def party() -> list[int]:
            nonlocal count
            places = []
            for n in range(20):
                place = await barrier.wait()
                places.append(place)
                if place == 3:  # one of the four
                    assert count == n
                    count += 1
                await barrier.wait()
                assert count == n + 1
            return places

        children = [spawn(party) for _ in range(2)]
        return [place for child in children for place in await child.wait()]

    one, other = pair.run(work, work)
    assert sorted(one + other) == sorted(list(range(4)) * 20)
    assert barrier.statistics() == (4, 0)


def test_parties_of_all_worlds_meet() -> None:
    barrier = Barrier(9)

    async def work() -> list[int]:
        children = [spawn(barrier.wait) for _ in range(2)]
        return [await child.wait() for child in children]

    async def last() -> int:
        await parked(barrier, 8)
        return await barrier.wait()

    names = ("asyncio", "asyncio-debug", "trio", "threads")
    *places, end = run_together(*[(ALL[name], work) for name in names], (ALL["threads"], last))
    assert end == 8
    assert sorted(place for pair in places for place in pair) == list(range(8))


def test_in_plain_threads() -> None:
    """CPython: BarrierTests, `test_barrier`."""
    barrier = Barrier(4)
    places: list[int] = []

    def work() -> None:
        for _ in range(30):
            places.append(barrier.wait().sync())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == sorted(list(range(4)) * 30)
    with pytest.raises(TimeoutError):
        barrier.wait().sync(0.001)
    assert barrier.statistics() == (4, 0)


def test_a_waiter_that_times_out_as_the_others_come_is_either_with_them_or_not() -> None:
    """In threads: whoever times out has not come, so exactly as many more are needed."""

    def impatient(barrier: Barrier, found: list[Any]) -> None:
        try:
            found.append(barrier.wait().sync(0.0005))
        except TimeoutError:
            found.append("gave up")

    for _ in range(30):
        barrier, found = Barrier(2), list[Any]()
        thread = threading.Thread(target=impatient, args=(barrier, found))
        thread.start()
        settle_here(lambda b=barrier, f=found: f or b.statistics().waiting)
        try:
            met = barrier.wait().poll()
        except WouldBlock:
            met = None
        thread.join()
        assert (met, found) in ((1, [0]), (None, ["gave up"]))
        assert barrier.statistics().waiting == 0


def test_statistics_and_repr_tell_who_is_there(world: World) -> None:
    async def body() -> None:
        barrier = Barrier(3, name="start")
        assert barrier.parties == 3
        assert repr(barrier) == "<Barrier 'start' 0/3>"
        children = [spawn(barrier.wait), spawn(barrier.wait)]
        await parked(barrier, 2)
        assert (barrier.statistics().parties, barrier.statistics().waiting) == (3, 2)
        assert repr(barrier) == "<Barrier 'start' 2/3>"
        await barrier
        for child in children:
            await child.wait()
        assert repr(Barrier(1)) != repr(Barrier(1))

    world.run(body)


@pytest.mark.parametrize("parties", [0, -1, 1.5, 2.0, None, "3", True, []])
def test_parties_are_a_count_of_at_least_one(parties: Any) -> None:
    """tokio's `zero_does_not_block` is an error here; CPython: BarrierTests, `test_constructor`."""
    with pytest.raises((ValueError, TypeError), match=r"parties must be an integer of at least 1, not "):
        Barrier(parties)


def test_a_barrier_needs_to_know_its_parties_and_takes_its_name_by_name() -> None:
    with pytest.raises(TypeError, match="parties"):
        Barrier()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Barrier(2, "start")  # type: ignore[call-arg]
