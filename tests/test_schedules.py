"""Unusual schedules: threads that are switched at every opportunity, and trio's randomised scheduler.

Whatever the order of events: no item is lost or doubled, nobody is left asleep, and nobody is left in a queue.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import worlds
from worlds import run_together, settle, spawn

from chanlib import Channel, EndOfChannel, Event, Future, HandleClosed, Op, select

THREE = [worlds.ALL["asyncio"], worlds.ALL["trio"], worlds.ALL["threads"]]
TINY = (0.0, 1e-5, 3e-4)

stress = [pytest.mark.stress, pytest.mark.timeout(300)]


@pytest.fixture
def seeded(seed: int) -> Iterator[random.Random]:
    """One order of events per seed.

    trio turns the order of the tasks of a pass around by a generator of its own, which nothing public seeds:
    without this a schedule that fails could not be run again. The draws of `select` come from the global one.
    """
    from trio._core._run import _r as of_trio

    states = of_trio.getstate(), random.getstate()
    of_trio.seed(seed)
    random.seed(seed)
    try:
        yield random.Random(seed)
    finally:
        of_trio.setstate(states[0])
        random.setstate(states[1])


def idle(*channels: Channel[Any]) -> bool:
    return all(ch.statistics().waiting_senders == ch.statistics().waiting_receivers == 0 for ch in channels)


class Traffic:
    """Producers and consumers of all worlds on two channels, by every kind of operation."""

    def __init__(self, items: int, producers: int, rng: random.Random) -> None:
        self.undelivered: list[int] = []
        tell = self.undelivered.append
        self.channels = (
            Channel[int](0, on_undelivered=tell),
            Channel[int](rng.choice((1, 3)), on_undelivered=tell),
        )
        self.items = items
        self.fresh = itertools.count()
        self.delivered: list[int] = []
        self.received: list[int] = []
        self.left = producers
        self.lock = threading.Lock()

    def done(self) -> None:
        """The last producer ends the stream."""
        with self.lock:
            self.left -= 1
            last = self.left == 0
        if last:
            self.close()

    def close(self) -> None:
        for ch in self.channels:
            ch.close()

    def cancel(self) -> None:
        for ch in self.channels:
            ch.cancel()

    async def produce(self, seed: int) -> None:
        rng = random.Random(seed)
        a, b = self.channels
        try:
            for value in range(seed * self.items, (seed + 1) * self.items):
                sent = False
                while not sent:
                    sent = await self.try_to_send(rng, value, a, b)
                self.delivered.append(value)
        except HandleClosed:
            pass
        finally:
            self.done()

    async def try_to_send(self, rng: random.Random, value: int, a: Channel[int], b: Channel[int]) -> bool:
        kind = rng.randrange(5)
        try:
            if kind == 0:
                await rng.choice((a, b)).send(value)
            elif kind == 1:
                await select(a.send(value), b.send(value))
            elif kind == 2:
                await select(b.send(value), Event(), a.send(value)).within(rng.choice(TINY))
            elif kind == 3:
                await rng.choice((a, b)).send(value).within(rng.choice(TINY))
            else:
                return await rng.choice((a, b)).send_some([value]) == 1
        except TimeoutError:
            return False
        return True

    async def consume(self, seed: int) -> None:
        rng = random.Random(-1 - seed)
        going = list(self.channels)
        while going:
            try:
                self.received += await self.receive(rng, going)
            except TimeoutError:
                pass
            except EndOfChannel as end:
                going.remove(end.channel)
            except HandleClosed:
                return

    def receive(self, rng: random.Random, going: list[Channel[int]]) -> Op[list[int]]:
        """An operation that gives a list of values: never one that would pass over a channel for good."""
        kind = rng.randrange(3)
        if kind == 0:
            return rng.choice(going).receive_some(2).within(rng.choice(TINY))
        arms = [ch.receive() for ch in going]
        rng.shuffle(arms)
        op = select(*arms, biased=rng.random() < 0.3).map(lambda pair: [pair[1]])
        return op.within(rng.choice(TINY)) if kind == 1 else op

    async def of_one_world(self, place: int, each: int) -> None:
        for n in range(each):
            spawn(self.produce, place * each + n)
            spawn(self.consume, place * each + n)

    def check(self) -> None:
        assert idle(*self.channels)
        assert sorted(self.received + self.undelivered) == sorted(self.delivered)
        for ch in self.channels:
            now = ch.statistics()
            assert now.buffered == 0
            assert now.sent == now.received + now.dropped


EACH = 2  # producers and consumers per world


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("items", [40, pytest.param(3_000, id="stress", marks=stress)])
@pytest.mark.parametrize("seed", range(3))
def test_mixed_traffic_loses_and_doubles_nothing(seed: int, items: int) -> None:
    traffic = Traffic(items, EACH * len(THREE), random.Random(seed))
    run_together(*[(world, traffic.of_one_world, n, EACH) for n, world in enumerate(THREE)])
    traffic.check()
    assert len(traffic.received) == items * EACH * len(THREE)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["close", "cancel"])
@pytest.mark.parametrize(("seeds", "items"), [(4, 60), pytest.param(200, 300, id="stress", marks=stress)])
def test_an_end_in_the_middle_of_the_traffic_loses_and_doubles_nothing(how: str, seeds: int, items: int) -> None:
    """What a sender was told is sent has been received, or was handed to `on_undelivered`."""

    async def end(traffic: Traffic, after: int) -> None:
        await settle(lambda: len(traffic.received) >= after or not traffic.left)
        getattr(traffic, how)()

    for seed in range(seeds):
        rng = random.Random(seed)
        traffic = Traffic(items, EACH * len(THREE), rng)
        run_together(
            *[(world, traffic.of_one_world, n, EACH) for n, world in enumerate(THREE)],
            (worlds.ALL["threads"], end, traffic, rng.randrange(items * EACH * 2)),
        )
        traffic.check()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rounds", [60, pytest.param(5_000, id="stress", marks=stress)])
def test_selects_that_only_meet_selects_pair_exactly_once(rounds: int) -> None:
    """A ring of parties, each ready to send to the next or to receive from the one before."""
    parties = 6
    ring = [Channel[int](0) for _ in range(parties)]
    sent: list[int] = []
    received: list[int] = []
    fresh = itertools.count()
    present: list[int] = []

    async def live(place: int) -> None:
        rng = random.Random(place)
        present.append(place)
        await settle(lambda: len(present) == parties)
        for _ in range(rounds):
            value = next(fresh)
            arms: list[Op[Any]] = [ring[place].send(value), ring[place - 1].receive()]
            op = select(*arms, biased=rng.random() < 0.5)
            try:
                index, got = await op.within(rng.choice((0.0, 1e-3, 3e-3)))
            except TimeoutError:
                continue
            if index == 0:
                sent.append(value)
            else:
                received.append(got)

    async def of_one_world(place: int) -> None:
        spawn(live, place)
        spawn(live, place + len(THREE))

    run_together(*[(world, of_one_world, n) for n, world in enumerate(THREE)])
    assert idle(*ring)
    assert sorted(received) == sorted(sent)
    assert sent


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rounds", [100, pytest.param(10_000, id="stress", marks=stress)])
def test_nobody_sleeps_through_an_event_or_a_future(rounds: int) -> None:
    """A barrier made of them: each round needs everybody, so one who is left asleep stops them all."""
    parties = 2 * len(THREE)
    events = [Event() for _ in range(rounds)]
    futures = [Future[int]() for _ in range(rounds)]
    arrived = [itertools.count(1) for _ in range(rounds)]

    async def live(place: int) -> None:
        rng = random.Random(place)
        for n in range(rounds):
            if next(arrived[n]) == parties:
                if n % 2:
                    futures[n].set_result(n)
                else:
                    events[n].set()
            op: Op[Any] = futures[n].wait() if n % 2 else events[n].wait()
            kind = rng.randrange(3)
            if kind == 0:
                await op
            elif kind == 1:
                await select(Event(), op, futures[n], events[n])
            else:
                while True:
                    try:
                        await op.within(rng.choice(TINY))
                    except TimeoutError:
                        op = select(futures[n], events[n])
                    else:
                        break

    async def of_one_world(place: int) -> None:
        spawn(live, place)
        spawn(live, place + len(THREE))

    run_together(*[(world, of_one_world, n) for n, world in enumerate(THREE)])
    assert all(event.statistics().waiting == 0 for event in events)
    assert all(future.statistics().waiting == 0 for future in futures)


# ===================================================================== trio's randomised scheduler

seeds = pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(n, marks=pytest.mark.stress) for n in range(8, 300))]
)


@seeds
def test_trio_traffic_in_random_orders(seeded: random.Random) -> None:
    traffic = Traffic(15, 10, seeded)
    worlds.ALL["trio"].run(traffic.of_one_world, 0, 10)
    traffic.check()


@seeds
def test_trio_cancellations_in_random_orders(seeded: random.Random) -> None:
    """Receivers, senders and selects, each cancelled after some turns: what completed has happened, else not."""
    a, b = Channel[int](0), Channel[int](seeded.choice((0, 2)))
    fresh = itertools.count()
    sent: list[int] = []
    received: list[int] = []

    async def attempt(nursery: trio.Nursery, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rng.randrange(6)):
            await trio.lowlevel.checkpoint()
        value = next(fresh)
        kind = rng.randrange(5)
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel, scope, rng.randrange(8))
            if kind == 0:
                received.append(await rng.choice((a, b)).receive())
            elif kind == 1:
                await rng.choice((a, b)).send(value)
                sent.append(value)
            elif kind == 2:
                received.extend(await a.receive_some(3))
            else:
                first, second = (a, b) if kind == 3 else (b, a)
                arms: list[Op[Any]] = [first.receive(), second.send(value)]
                index, got = await select(*arms)
                if index == 0:
                    received.append(got)
                else:
                    sent.append(value)

    async def cancel(scope: trio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(120):
                nursery.start_soon(attempt, nursery, seeded.getrandbits(32))

    trio.run(main)
    assert idle(a, b)
    assert sorted(received + a.drain() + b.drain()) == sorted(sent)


@seeds
def test_trio_many_tasks_in_fifo_order_whatever_the_schedule(seeded: random.Random) -> None:
    """Per producer the order is kept, with any number of tasks and any order of their turns."""
    ch = Channel[tuple[int, int]](seeded.choice((0, 1, 5)))
    producers, items = 8, 15
    got: list[tuple[int, int]] = []

    async def produce(place: int) -> None:
        for n in range(items):
            if seeded.random() < 0.3:
                await trio.lowlevel.checkpoint()
            await ch.send((place, n))

    async def consume() -> None:
        async for item in ch:
            got.append(item)

    async def main() -> None:
        async with trio.open_nursery() as consumers:
            consumers.start_soon(consume)
            async with trio.open_nursery() as nursery:
                for place in range(producers):
                    nursery.start_soon(produce, place)
            ch.close()

    trio.run(main)
    for place in range(producers):
        assert [n for p, n in got if p == place] == list(range(items))
    assert idle(ch)
