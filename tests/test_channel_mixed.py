"""Many producers and consumers of every kind, in all worlds at once, on one channel."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Awaitable, Callable

import pytest
from worlds import ALL, Pair, World, run_together, settle, spawn

from chanlib import Channel, EndOfChannel, HandleClosed, never, select

Item = tuple[int, int]  # producer, number
Source = Channel[Item]


# ------------------------------------------------------------ four ways to send, four to receive
async def send_each(ch: Source, items: list[Item]) -> None:
    for item in items:
        await ch.send(item)


async def send_some(ch: Source, items: list[Item]) -> None:
    while items:
        del items[: await ch.send_some(items[:5])]


async def send_all(ch: Source, items: list[Item]) -> None:
    await ch.send_all(iter(items))


async def send_by_select(ch: Source, items: list[Item]) -> None:
    other = Channel[Item](0)  # nobody ever receives from it
    for item in items:
        assert await select(other.send(item), ch.send(item)) == (1, None)
    assert other.statistics().waiting_senders == 0


async def iterate(ch: Source) -> list[Item]:
    return [item async for item in ch]


async def receive_some(ch: Source) -> list[Item]:
    got: list[Item] = []
    try:
        while True:
            got += await ch.receive_some(3)
    except EndOfChannel:
        return got


async def receive_by_select(ch: Source) -> list[Item]:
    got: list[Item] = []
    quiet = Channel[Item](1)
    try:
        while True:
            index, item = await select(quiet, never(), ch)
            assert index == 2
            got.append(item)
    except EndOfChannel:
        return got


async def receive_within(ch: Source) -> list[Item]:
    got: list[Item] = []
    try:
        while True:
            got += await ch.receive().within(300).map(lambda item: [item])
    except EndOfChannel:
        return got


SENDERS = (send_each, send_some, send_all, send_by_select)
RECEIVERS = (iterate, receive_some, receive_by_select, receive_within)
FOUR = [ALL["asyncio"], ALL["asyncio-debug"], ALL["trio"], ALL["threads"]]


def exchange(
    ch: Source,
    producing: list[tuple[World, Callable[[Source, list[Item]], Awaitable[None]]]],
    consuming: list[tuple[World, Callable[[Source], Awaitable[list[Item]]]]],
    each: int,
) -> None:
    """`each` items from every producer, all sides at once; none lost, doubled or overtaken."""
    lock = threading.Lock()
    left = len(producing)

    async def produce(number: int, way: Callable[[Source, list[Item]], Awaitable[None]]) -> None:
        nonlocal left
        await way(ch, [(number, n) for n in range(each)])
        with lock:
            left -= 1
            last = not left
        if last:
            ch.close()

    results = run_together(
        *[(world, produce, number, way) for number, (world, way) in enumerate(producing)],
        *[(world, way, ch) for world, way in consuming],
    )[len(producing) :]
    for got in results:
        for number in range(len(producing)):
            mine = [n for producer, n in got if producer == number]
            assert mine == sorted(mine), "a producer's items overtook each other"
    everything = sorted(itertools.chain.from_iterable(results))
    assert everything == [(p, n) for p in range(len(producing)) for n in range(each)]
    found = ch.statistics()
    assert found.sent == found.received == each * len(producing)
    assert (found.waiting_senders, found.waiting_receivers, found.buffered) == (0, 0, 0)


@pytest.mark.parametrize("capacity", [0, 1, 7, math.inf])
def test_four_by_four_in_mixed_worlds_lose_double_and_reorder_nothing(capacity: float) -> None:
    for turn in range(4):
        exchange(
            Channel[Item](capacity),
            [(FOUR[n], SENDERS[(n + turn) % 4]) for n in range(4)],
            [(FOUR[n], RECEIVERS[(n + turn) % 4]) for n in range(4)],
            each=60,
        )


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("capacity", [0, 1, 7, math.inf])
def test_four_by_four_in_mixed_worlds_over_a_long_time(capacity: float) -> None:
    for turn in range(4):
        exchange(
            Channel[Item](capacity),
            [(FOUR[n], SENDERS[(n + turn) % 4]) for n in range(4)],
            [(FOUR[n], RECEIVERS[(n + turn) % 4]) for n in range(4)],
            each=6250,
        )


@pytest.mark.parametrize("capacity", [0, 1, 7, math.inf])
def test_four_by_four_children_of_two_runs(pair: Pair, capacity: float) -> None:
    ch = Channel[Item](capacity)

    async def produce() -> None:
        ways = [spawn(way, ch, [(p, n) for n in range(25)]) for p, way in enumerate(SENDERS)]
        for way in ways:
            await way.wait()
        ch.close()

    async def consume() -> list[list[Item]]:
        ways = [spawn(way, ch) for way in RECEIVERS]
        return [await way.wait() for way in ways]

    results = pair.run(produce, consume)[1]
    for got in results:
        for p in range(4):
            assert (mine := [n for producer, n in got if producer == p]) == sorted(mine)
    assert sorted(itertools.chain(*results)) == [(p, n) for p in range(4) for n in range(25)]


def test_a_close_amid_the_traffic_loses_nothing_that_was_sent(pair: Pair) -> None:
    for capacity in (0, 3):
        ch = Channel[Item](capacity)
        sent: list[Item] = []

        async def one(producer: int, ch: Channel[Item] = ch, sent: list[Item] = sent) -> None:
            for n in itertools.count():
                try:
                    await ch.send((producer, n))
                except HandleClosed:
                    return
                sent.append((producer, n))

        async def produce() -> None:
            for child in [spawn(one, p) for p in range(4)]:
                await child.wait()

        async def consume(ch: Channel[Item] = ch) -> list[Item]:
            got = [await ch.receive() for _ in range(50)]
            ch.close()
            return got + [item async for item in ch]

        got = pair.run(produce, consume)[1]
        assert sorted(got) == sorted(sent)


def test_a_ring_of_all_worlds_passes_a_token_round() -> None:
    worlds = [*FOUR, *FOUR]
    ring = [Channel[int](n % 2) for n in range(len(worlds))]
    rounds = 50

    async def station(place: int) -> None:
        mine, following = ring[place], ring[(place + 1) % len(ring)]
        async for token in mine:
            if place == 0 and token >= rounds * len(ring):
                for ch in ring:
                    ch.close()
                return
            await following.send(token + 1)

    async def begin() -> None:
        await settle(lambda: all(ch.statistics().waiting_receivers for ch in ring))
        await ring[0].send(0)

    run_together(*[(world, station, n) for n, world in enumerate(worlds)], (ALL["threads"], begin))
    assert [ch.statistics().received for ch in ring] == [rounds + 1] + [rounds] * (len(ring) - 1)
