"""sleep, after, every, never: on clocks that jump, so that no test waits for time to pass.

Trio brings such a clock. On asyncio `JumpingLoop` does the same: when it would sleep, its time
jumps instead. Plain threads have the machine's clock only; what is tested there needs milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio.testing
from worlds import ALL, AsyncioWorld, TrioWorld, World, run_together, settle, spawn

from chanlib import (
    Channel,
    ChannelEmpty,
    EndOfChannel,
    Event,
    Future,
    WouldBlock,
    after,
    every,
    never,
    select,
    sleep,
)


class JumpingSelector(selectors.DefaultSelector):
    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout else timeout)
        if timeout and not ready:
            self.loop.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still while it works, and jumps when it has nothing to do."""

    def __init__(self) -> None:
        selector = JumpingSelector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def _jumping_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


JUMPING = {
    "asyncio": AsyncioWorld("asyncio", loop_factory=JumpingLoop),
    "trio": TrioWorld("trio", clock=_jumping_clock),
}


@pytest.fixture(params=JUMPING)
def jumping(request: pytest.FixtureRequest) -> World:
    """Each world that has a clock of its own, with one that jumps."""
    return JUMPING[request.param]


def now() -> float:
    """The time of the run that this is called in."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return trio.current_time()


async def pause(seconds: float) -> None:
    """Sleep as the world itself does it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def armed() -> bool:
    """Whether the loop that runs this has a timer to wake up for."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf
    return any(not handle.cancelled() for handle in loop._scheduled)


# ----------------------------------------------------------------- sleep
def test_sleep_takes_as_long_as_it_says(jumping: World) -> None:
    async def body() -> None:
        start = now()
        for delay in (1, 0.5, 3600):
            assert await sleep(delay) is None
        assert now() - start == pytest.approx(3601.5)

    jumping.run(body)


@pytest.mark.parametrize("delay", [0, -1, -math.inf])
def test_sleep_of_nothing_or_less_is_over_at_once(world: World, delay: float) -> None:
    async def body() -> None:
        await sleep(delay)
        assert await select(never(), sleep(delay)) == (1, None)
        assert sleep(delay).poll() is None

    world.run(body)


def test_sleep_counts_from_performing(jumping: World) -> None:
    async def body() -> None:
        start = now()
        nap = sleep(10)
        await pause(5)
        await nap
        assert now() - start == pytest.approx(15)

    jumping.run(body)


def test_sleep_for_ever_is_given_up_like_any_other(jumping: World) -> None:
    async def body() -> None:
        start = now()
        with pytest.raises(TimeoutError):
            await sleep(math.inf).within(10)
        assert await select(sleep(math.inf), sleep(1e300), after(10)) == (
            2,
            pytest.approx(start + 20),
        )

    jumping.run(body)


def test_a_sleep_of_many_years_neither_overflows_nor_ends(world: World) -> None:
    async def body() -> None:
        for long in (1e9, 1e12, 1e300, math.inf):
            stop = Event()
            waiting = spawn(select, sleep(long), after(long), stop)
            await settle(lambda stop=stop: stop.statistics().waiting == 1)
            stop.set()
            assert await waiting.wait() == (2, None)

    world.run(body)


def test_sleeps_side_by_side_end_in_their_order(jumping: World) -> None:
    async def body() -> None:
        order: list[int] = []

        async def nap(delay: int) -> None:
            await sleep(delay)
            order.append(delay)

        naps = [spawn(nap, delay) for delay in (3, 1, 2)]
        for each in naps:
            await each.wait()
        assert order == [1, 2, 3]
        assert now() < 10

    jumping.run(body)


def test_in_a_thread_sleep_takes_at_least_as_long_as_it_says() -> None:
    start = time.monotonic()
    sleep(0.01).sync()
    assert select(never(), sleep(0.01)).sync() == (1, None)
    assert time.monotonic() - start >= 0.02
    with pytest.raises(TimeoutError):
        sleep(3600).sync(0.001)


# ----------------------------------------------------------------- after
def test_a_timer_starts_when_it_is_made_and_its_value_is_when_it_was_due(jumping: World) -> None:
    async def body() -> None:
        start = now()
        timer = after(10)
        assert timer.due == start + 10
        await pause(4)
        assert await timer == start + 10
        assert now() == pytest.approx(start + 10)
        await pause(5)
        assert await timer.wait() == start + 10
        assert timer.wait().poll() == start + 10
        assert now() == pytest.approx(start + 15)

    jumping.run(body)


def test_one_timer_stands_in_many_selects(jumping: World) -> None:
    async def body() -> None:
        deadline = after(10)
        ticks = 0
        while (await select(deadline, sleep(3), biased=True))[0] == 1:
            ticks += 1
        assert ticks == 3
        waiters = [spawn(lambda: select(never(), deadline)) for _ in range(3)]
        for waiter in waiters:
            assert await waiter.wait() == (1, deadline.due)

    jumping.run(body)


def test_a_timer_that_has_not_gone_off_would_block(world: World) -> None:
    async def body() -> None:
        timer = after(3600)
        with pytest.raises(WouldBlock):
            timer.wait().poll()
        with pytest.raises(TimeoutError):
            await timer.wait().within(0)
        assert "in 3" in repr(timer)
        assert repr(after(-1)) == "<Timer gone off>"
        await after(-5)
        with pytest.raises(WouldBlock):
            after(math.inf).wait().poll()

    world.run(body)


def test_a_timer_runs_on_the_clock_of_the_world_it_was_made_in_wherever_it_is_awaited() -> None:
    clock = trio.testing.MockClock()  # stands still until told
    timers: list[Any] = []
    parked = Event()

    async def owner() -> None:
        timers.append(after(50))
        await settle(lambda: parked.statistics().waiting == 1)
        clock.jump(49)
        with pytest.raises(WouldBlock):
            timers[0].wait().poll()
        clock.jump(2)

    async def other() -> None:
        await settle(lambda: timers)
        waiting = spawn(select, parked, timers[0])
        await settle(lambda: clock.current_time() >= 51)
        parked.set()
        await waiting.wait()
        assert await select(timers[0], parked, biased=True) == (0, timers[0].due)

    run_together((TrioWorld("trio", clock=lambda: clock), owner), (ALL["threads"], other))


def test_a_timer_made_outside_any_loop_is_waited_for_inside(world: World) -> None:
    timer = after(0.005)

    async def body() -> None:
        assert await select(never(), timer) == (1, timer.due)

    world.run(body)
    assert time.monotonic() >= timer.due


# ----------------------------------------------------------------- every
def test_the_first_tick_comes_after_one_period_and_its_value_is_when_it_was_due(
    jumping: World,
) -> None:
    async def body() -> None:
        start = now()
        ticker = every(10)
        with pytest.raises(ChannelEmpty):
            ticker.receive_nowait()
        for n in range(1, 6):
            assert await ticker.receive() == start + 10 * n
            assert now() == pytest.approx(start + 10 * n)

    jumping.run(body)


TAKEN = {  # what a ticker of period 10 gives to one who comes at 35, 36, 42 and then waits
    "skip": ([10, 40], [50, 60]),
    "delay": ([10], [45, 55]),
    "burst": ([10, 20, 30, 40], [50, 60]),
}


@pytest.mark.parametrize("missed", TAKEN)
def test_what_becomes_of_ticks_that_nobody_came_for(jumping: World, missed: Any) -> None:
    def pending() -> list[float]:
        ticks = []
        try:
            while True:
                ticks.append(ticker.receive_nowait() - start)
        except ChannelEmpty:
            return ticks

    async def body() -> None:
        nonlocal ticker, start
        start = now()
        ticker = every(10, missed=missed)
        came = []
        for pace in (35, 1, 6):
            await pause(pace)
            came += pending()
        assert came == TAKEN[missed][0]
        assert [await ticker.receive() - start for _ in range(2)] == TAKEN[missed][1]

    ticker: Any = None
    start = 0.0
    jumping.run(body)


def test_the_phase_is_kept_however_late_each_receiver_is(jumping: World) -> None:
    async def body() -> None:
        start, ticker = now(), every(10)
        due = []
        for late in (3, 7, 12, 25):
            due.append(await ticker.receive() - start)
            await pause(late)
        assert due == [10, 20, 30, 40]
        assert await ticker.receive() - start == 50  # the pending one
        assert await ticker.receive() - start == 70  # 60 was missed while it was pending

    jumping.run(body)


def test_each_tick_goes_to_one_receiver(jumping: World) -> None:
    async def body() -> None:
        ticker = every(1)
        children = [spawn(ticker.receive) for _ in range(10)]
        children += [spawn(select, never(), ticker) for _ in range(10)]
        got = []
        for child in children:
            found = await child.wait()
            got.append(found[1] if isinstance(found, tuple) else found)
        assert len(set(got)) == 20
        assert max(got) - min(got) == 19

    jumping.run(body)


def test_a_tick_that_lost_a_select_is_still_there(jumping: World) -> None:
    async def body() -> None:
        ticker, ch = every(10), Channel[int](1)
        ch.send_nowait(1)
        await pause(10)
        assert await select(ch, ticker, biased=True) == (0, 1)
        assert await select(ch, ticker) == (1, pytest.approx(now()))
        with pytest.raises(TimeoutError):
            await ticker.receive().within(5)
        assert await ticker.receive() == pytest.approx(now())

    jumping.run(body)


def test_a_ticker_is_iterated_and_ends_when_it_is_stopped(jumping: World) -> None:
    async def body() -> None:
        start, ticker = now(), every(2)
        ticks = []
        async for tick in ticker:
            ticks.append(tick - start)
            if len(ticks) == 3:
                ticker.stop()
        assert ticks == [2, 4, 6]
        with pytest.raises(EndOfChannel) as caught:
            await ticker.receive()
        assert caught.value.channel is ticker
        with pytest.raises(EndOfChannel):
            ticker.receive_nowait()

    jumping.run(body)


def test_stop_reaches_those_who_wait(world: World) -> None:
    async def body() -> None:
        ticker, watched = every(3600), Channel[int](1)
        waiters = [spawn(select, watched, ticker), spawn(select, ticker.receive(), watched)]
        await settle(lambda: watched.statistics().waiting_receivers == 2)
        ticker.stop()
        for waiter in waiters:
            with pytest.raises(EndOfChannel):
                await waiter.wait()
        assert watched.statistics().waiting_receivers == 0
        ticker.stop()
        assert "stopped" in repr(ticker)

    world.run(body)


def test_reset_starts_afresh_also_for_those_who_wait_and_after_stop(jumping: World) -> None:
    async def body() -> None:
        start, ticker = now(), every(100)
        watched = Channel[int](1)
        waiting = spawn(select, watched, ticker)
        await settle(lambda: watched.statistics().waiting_receivers == 1)
        ticker.reset(10)
        assert await waiting.wait() == (1, start + 10)
        await pause(15)  # a tick is pending: at 20
        ticker.reset()
        with pytest.raises(ChannelEmpty):
            ticker.receive_nowait()
        assert await ticker.receive() == start + 35
        ticker.stop()
        ticker.reset(1)
        assert await ticker.receive() == start + 36

    jumping.run(body)


def test_a_ticker_stops_when_its_with_block_is_left(jumping: World) -> None:
    async def body() -> None:
        with every(1) as ticker:
            await ticker.receive()
        with pytest.raises(EndOfChannel):
            await ticker.receive()

    jumping.run(body)


def test_a_ticker_in_plain_threads() -> None:
    ticker = every(0.002)
    got: list[float] = []
    threads = [threading.Thread(target=lambda: got.extend(ticker)) for _ in range(2)]
    for thread in threads:
        thread.start()
    own = [ticker.receive().sync() for _ in range(5)]
    ticker.stop()
    for thread in threads:
        thread.join()
    assert len({*own, *got}) == len(own) + len(got)
    assert own == sorted(own)


def test_for_over_a_ticker_on_a_loop_thread_raises(loop_world: World) -> None:
    async def body() -> None:
        with pytest.raises(RuntimeError, match="async for"):
            iter(every(1))

    loop_world.run(body)


def test_ticks_reach_receivers_in_any_world(world: World) -> None:
    ticker = every(0.002)

    async def receive() -> list[float]:
        return [await ticker.receive() for _ in range(5)]

    mine, theirs = run_together((world, receive), (ALL["threads"], receive))
    assert len({*mine, *theirs}) == 10


# ----------------------------------------------------------------- never, within, sync
def test_never_does_not_happen(world: World) -> None:
    async def body() -> None:
        with pytest.raises(WouldBlock):
            never().poll()
        with pytest.raises(TimeoutError):
            await never().within(0.001)
        assert await select(never(), sleep(0)) == (1, None)
        if world.can_cancel:
            waiting = spawn(never)
            await spawn(sleep, 0).wait()
            waiting.cancel()
            await waiting.join()
            assert waiting.cancelled

    world.run(body)


def test_never_in_a_plain_thread() -> None:
    with pytest.raises(TimeoutError):
        never().sync(0.001)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Channel[int](0).receive(),
        lambda: Channel[int](0).send(1),
        lambda: Event().wait(),
        lambda: Future[int]().wait(),
        lambda: sleep(3600),
        lambda: never(),
        lambda: select(Event(), Channel[int](0)),
    ],
)
def test_within_takes_as_long_as_it_says_counted_from_performing(jumping: World, make: Callable[[], Any]) -> None:
    async def body() -> None:
        start = now()
        op = make().within(10)
        await pause(5)
        with pytest.raises(TimeoutError, match="within 10"):
            await op
        assert now() - start == pytest.approx(15)

    jumping.run(body)


def test_what_happens_before_the_limit_leaves_no_timer_armed(jumping: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        for n in range(100):
            waiting = spawn(select, ch.receive().within(1000), sleep(900), after(800), every(700))
            await settle(lambda: ch.statistics().waiting_receivers == 1)
            assert armed()
            ch.send_nowait(n)
            assert await waiting.wait() == (0, n)
            assert not armed()

    jumping.run(body)


def test_timers_that_nobody_waits_for_arm_nothing() -> None:
    async def main() -> None:
        kept = [*(after(n) for n in range(1, 100)), *(every(n) for n in range(1, 100))]
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await select(never(), kept[50], kept[150]).within(0)
        gc.collect()
        assert not armed()

    asyncio.run(main())
