"""Full traffic between processes, and some of them are killed or stopped in the middle of it.

What has arrived is written down by those who received it, in memory that outlives them: no value is torn, doubled or
out of its producer's order; with each process that is killed at most the one value it was busy with is lost.

Cases 1, 2, 4, 13, 14 and 15 of the notes on processes.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from process_jobs_faults import Child, Tell, forked, until

from chanlib import ChannelClosed
from chanlib.processes import open_process_channel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

RING = 1024  # bytes: the longest record; what is longer has memory of its own
PEERS = 3
KINDS = {"small": (0, 0), "mixed": (0, 300), "wrapping": (600, 900), "spilled": (0, 5000)}
SOON = 20.0
STOP, PAUSE = 0, 4  # words of the record: is it over? are the producers to stand still?


class Record:
    """What each process has done, in memory that they share and that outlives them.

    Of each producer how many values it has sent; of each consumer how many it has received, and which."""

    def __init__(self, most: int = 40_000) -> None:
        self.most = most
        self.words: Any = memoryview(mmap.mmap(-1, 8 * (16 + PEERS * most))).cast("Q")

    def log(self, consumer: int) -> list[tuple[int, int]]:
        """Which values it has received: producer and number."""
        at = 16 + consumer * self.most
        return [divmod(word, 1 << 32) for word in self.words[at : at + self.received(consumer)].tolist()]

    def sent(self, producer: int) -> int:
        return int(self.words[1 + producer])

    def received(self, consumer: int) -> int:
        return int(self.words[9 + consumer])

    def stop(self) -> None:
        self.words[STOP] = 1

    # ------------------------------------------------------------- in the processes
    def produce(self, tx: Any, producer: int, kind: str, most: int = 1 << 31, batches: bool = False) -> None:
        words, rng, number = self.words, random.Random(), 0
        while number < most and not words[STOP]:
            if words[PAUSE]:
                words[5 + producer] = 1  # it does
                while words[PAUSE]:
                    time.sleep(0.0005)
                words[5 + producer] = 0
            if batches and not rng.randrange(4):
                values = [value(producer, number + i, kind) for i in range(min(rng.randrange(8), most - number))]
                number += tx.send_some(values).sync(timeout=SOON) if values else 0
            else:
                tx.send(value(producer, number, kind)).sync(timeout=SOON)
                number += 1
            words[1 + producer] = number

    def consume(self, rx: Any, consumer: int, kind: str, batches: bool = False) -> type[BaseException]:
        words, rng, start = self.words, random.Random(), 16 + consumer * self.most
        while True:
            try:
                if batches and not rng.randrange(4):
                    got = rx.receive_some(rng.randrange(1, 8)).sync(timeout=SOON)
                else:
                    got = [rx.receive().sync(timeout=SOON)]
            except ChannelClosed as error:
                return type(error)
            for one in got:
                producer, number = whose(one, kind)
                count = words[9 + consumer]
                words[start + count] = (producer << 32) | number
                words[9 + consumer] = count + 1


def size(producer: int, number: int, kind: str) -> int:
    low, high = KINDS[kind]
    return low + (number * 2654435761 + producer * 40503) % (high - low + 1)


def value(producer: int, number: int, kind: str) -> Any:
    """It says whose it is, and all of it can be checked."""
    if kind == "small":
        return (producer << 32) | number
    mark = producer.to_bytes(1, "little") + number.to_bytes(4, "little")
    return mark + mark[1:3] * (size(producer, number, kind) // 2)


def whose(one: Any, kind: str) -> tuple[int, int]:
    producer, number = divmod(one, 1 << 32) if kind == "small" else (one[0], int.from_bytes(one[1:5], "little"))
    assert one == value(producer, number, kind), f"a torn value: {one!r}"
    return producer, number


def asleep(pid: int) -> bool:
    """Does the process wait for something? One that is dead does not do anything else."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "SZ"
    except OSError:
        return True


def check(record: Record, kills: int, batches: bool = False) -> None:
    """Once each, in their order, and nothing is missing but what those who were killed were busy with."""
    seen: set[tuple[int, int]] = set()
    for consumer in range(PEERS):
        log = record.log(consumer)
        assert not seen.intersection(log), "doubled"
        assert len(set(log)) == len(log), "doubled"
        seen.update(log)
        for producer in range(PEERS):
            numbers = [number for whose, number in log if whose == producer]
            assert numbers == sorted(numbers), "out of order"
    missing = {(producer, n) for producer in range(PEERS) for n in range(record.sent(producer))} - seen
    assert len(missing) <= kills * (8 if batches else 1), f"lost: {missing}"
    more = [(producer, n) for producer, n in seen if n >= record.sent(producer)]
    assert len(more) <= kills, f"of those who were killed before they could say so: {more}"


class Traffic:
    """Three producers and three consumers, each a process."""

    def __init__(self, stack: ExitStack, kind: str, most: int = 1 << 31, batches: bool = False) -> None:
        self.record = record = Record(40_000 if most == 1 << 31 else PEERS * most)
        self.tx, self.rx = tx, rx = open_process_channel[Any](10, buffer_bytes=RING)
        stack.enter_context(tx)
        stack.enter_context(rx)

        def producer(number: int) -> Callable[[Tell], object]:
            def body(tell: Tell) -> None:
                with tx.clone() as mine:
                    rx.close()
                    tx.close()
                    tell("ready")
                    record.produce(mine, number, kind, most, batches)

            return body

        def consumer(number: int) -> Callable[[Tell], object]:
            def body(tell: Tell) -> None:
                with rx.clone() as mine:
                    rx.close()
                    tx.close()
                    tell("ready")
                    tell(record.consume(mine, number, kind, batches).__name__)

            return body

        self.producers = [stack.enter_context(forked(producer(number), 600)) for number in range(PEERS)]
        self.consumers = [stack.enter_context(forked(consumer(number), 600)) for number in range(PEERS)]
        for child in [*self.producers, *self.consumers]:
            assert child.says() == "ready"
        tx.close()
        rx.close()

    def counts(self, producers: list[int], consumers: list[int]) -> list[int]:
        return [self.record.sent(n) for n in producers] + [self.record.received(n) for n in consumers]

    def go_on(self, by: int, producers: list[int] | None = None, consumers: list[int] | None = None) -> None:
        """Each of these does so much more."""
        who = producers if producers is not None else list(range(PEERS)), consumers or []
        before = self.counts(*who)

        def more() -> bool:
            self.alive()
            return all(now >= then + by for now, then in zip(self.counts(*who), before, strict=True))

        until(more, f"they do not go on: {before}, {self.counts(*who)}")

    def rest(self) -> None:
        """Let the producers stand still until all consumers wait."""
        words = self.record.words
        words[PAUSE] = 1
        until(lambda: words[5:8].tolist() == [1, 1, 1], "the producers do not stand still")
        until(lambda: sum(self.counts([0, 1, 2], [])) == sum(self.counts([], [0, 1, 2])), "not all has been received")
        until(lambda: all(asleep(child.pid) for child in self.consumers), "they do not wait")

    def alive(self) -> None:
        for child in [*self.producers, *self.consumers]:
            assert child.poll() in (None, 0, -signal.SIGKILL), child.says()

    def over(self, dead: list[Child]) -> set[str]:
        """Let it come to its end: what the consumers that live have been told."""
        self.record.stop()
        for child in self.producers:
            assert child.wait() == (-signal.SIGKILL if child in dead else 0)
        return {child.says() for child in self.consumers if child not in dead}


def _rounds(count: int, one: Callable[[str], object]) -> None:
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        try:
            one(kind)
        except BaseException as error:
            error.add_note(f"round {number} of {count}: {kind}")
            raise


def _a_producer_dies(kind: str) -> None:
    with ExitStack() as stack:
        traffic = Traffic(stack, kind)
        traffic.go_on(random.randrange(1, 60))
        dead = traffic.producers[0]
        assert dead.kill() == -signal.SIGKILL
        traffic.go_on(50, [1, 2])
        assert traffic.over([dead]) == {"BrokenChannel"}
        check(traffic.record, 1)


def _a_consumer_dies(kind: str) -> None:
    with ExitStack() as stack:
        traffic = Traffic(stack, kind)
        traffic.go_on(random.randrange(1, 60))
        dead = traffic.consumers[0]
        assert dead.kill() == -signal.SIGKILL
        traffic.go_on(50, [0, 1, 2])
        assert traffic.over([dead]) == {"EndOfChannel"}
        check(traffic.record, 1)


def _consumers_that_wait_die(kind: str) -> None:
    """Nothing at all is lost with them."""
    with ExitStack() as stack:
        traffic = Traffic(stack, kind)
        for dead in traffic.consumers[:2]:
            traffic.rest()
            dead.kill()
            traffic.record.words[PAUSE] = 0
            traffic.go_on(30)
        assert traffic.over(traffic.consumers[:2]) == {"EndOfChannel"}
        check(traffic.record, 0)


def _all_die_but_one(kind: str) -> None:
    with ExitStack() as stack:
        traffic = Traffic(stack, kind)
        traffic.go_on(random.randrange(1, 40))
        dead = [*traffic.producers[:2], *traffic.consumers[:2]]
        for child in dead:
            child.signal(signal.SIGKILL)
        traffic.go_on(50, [2], [2])
        assert traffic.over(dead) == {"BrokenChannel"}
        check(traffic.record, 4)


DEATHS = [_a_producer_dies, _a_consumer_dies, _consumers_that_wait_die, _all_die_but_one]


@pytest.mark.parametrize("death", DEATHS)
def test_who_is_killed_in_full_traffic_takes_nobody_along(death: Callable[[str], object]) -> None:
    _rounds(10, death)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("death", DEATHS)
def test_hundreds_are_killed_in_full_traffic(death: Callable[[str], object]) -> None:
    _rounds(200, death)


def _oracle(most: int) -> None:
    with ExitStack() as stack:
        traffic = Traffic(stack, "spilled", most, batches=True)
        for child in traffic.producers:
            assert child.wait(500) == 0
        assert {child.says(SOON) for child in traffic.consumers} == {"EndOfChannel"}
        check(traffic.record, 0)
        assert [traffic.record.sent(n) for n in range(PEERS)] == [most] * PEERS
        assert sum(traffic.record.received(n) for n in range(PEERS)) == PEERS * most


def test_twenty_thousand_values_of_all_sizes_arrive_once_and_in_order() -> None:
    _oracle(20_000 // PEERS)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_a_million_values_of_all_sizes_arrive_once_and_in_order() -> None:
    _oracle(1_000_000 // PEERS)
