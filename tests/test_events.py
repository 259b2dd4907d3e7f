"""Event: a flag that anybody in any world can wait for."""

from __future__ import annotations

import threading

import pytest
from worlds import ALL, Pair, World, run_together, settle, settle_here, spawn

from chanlib import Event, WouldBlock, after, never, select


def test_waiting_for_an_event_that_is_set_is_done_at_once(world: World) -> None:
    async def body() -> None:
        event = Event()
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
        event = Event()
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
        event = Event()
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
    event = Event()
    event.clear()
    event.set()
    event.set()
    assert event.is_set()
    event.clear()
    event.clear()
    assert not event.is_set()


def test_an_event_wakes_those_in_another_world(pair: Pair) -> None:
    go, back = Event(), Event()

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


def test_one_set_wakes_waiters_of_all_worlds_at_once() -> None:
    event = Event()

    async def wait() -> bool:
        children = [spawn(event.wait) for _ in range(5)]
        for child in children:
            await child.wait()
        return event.is_set()

    async def fire() -> None:
        await settle(lambda: event.statistics().waiting == 20)
        event.set()

    worlds = [ALL[name] for name in ("asyncio", "asyncio-debug", "trio", "threads")]
    found = run_together(*[(w, wait) for w in worlds], (ALL["threads"], fire))
    assert found == [True] * 4 + [None]
    assert event.statistics().waiting == 0


def test_a_wait_that_times_out_leaves_the_event_alone(world: World) -> None:
    async def body() -> None:
        event = Event(name="stop")
        with pytest.raises(TimeoutError, match="'stop'"):
            await event.wait().within(0.001)
        assert event.statistics().waiting == 0
        assert not event.is_set()

    world.run(body)


def test_a_wait_that_is_cancelled_leaves_the_event_alone(loop_world: World) -> None:
    async def body() -> None:
        event = Event()
        one, other = spawn(event.wait), spawn(event.wait)
        await settle(lambda: event.statistics().waiting == 2)
        one.cancel()
        await one.join()
        assert one.cancelled
        assert event.statistics().waiting == 1
        event.set()
        await other.wait()

    loop_world.run(body)


def test_many_waits_that_end_leave_nothing_behind(world: World) -> None:
    async def body() -> None:
        event = Event()
        for _ in range(300):
            assert await select(event, after(0)) == (1, pytest.approx(0, abs=1e12))
            with pytest.raises(TimeoutError):
                await event.wait().within(0)
        assert event.statistics().waiting == 0

    world.run(body)


def test_in_plain_threads() -> None:
    event = Event()
    threads = [threading.Thread(target=lambda: event.wait().sync()) for _ in range(3)]
    for thread in threads:
        thread.start()
    settle_here(lambda: event.statistics().waiting == 3)
    event.set()
    for thread in threads:
        thread.join()
    event.clear()
    with pytest.raises(TimeoutError):
        event.wait().sync(0.001)


def test_repr_tells_name_and_state() -> None:
    event = Event(name="stop")
    assert repr(event) == "<Event 'stop'>"
    event.set()
    assert repr(event) == "<Event 'stop' set>"
    assert repr(Event()) != repr(Event())
