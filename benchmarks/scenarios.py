"""What is measured: each scenario lays out loops on the left and on the right of a bench, and says what it counts.

A scenario is written once for all peers and sides: it opens channels and starts loops. The time from the first start
to the last end, divided by the number of items, is the figure.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import loops, memory
from .bench import Bench
from .loops import speak
from .sides import SIDES, Plan, Side, run

WAYS = 4  # channels of a select, tasks of a crowd, subscribers
CROWD = 64  # receivers whose waits are cancelled together


def shares(items: int, parts: int) -> list[int]:
    return [items // parts + (part < items % parts) for part in range(parts)]


# ------------- one channel
def seq(bench: Bench, items: int) -> None:
    channel = bench.open()
    burst = items if bench.capacity == math.inf else int(bench.capacity)
    bench.left.start(loops.fill_and_drain, bench.left.tx(channel), bench.left.rx(channel), burst, items)


def _crowd(senders: int, receivers: int, bench: Bench, items: int) -> None:
    channel = bench.open()
    for share in shares(items, senders):
        bench.left.start(loops.produce, bench.left.tx(channel), share)
    for share in shares(items, receivers):
        bench.right.start(loops.consume, bench.right.rx(channel), share)


def pingpong(bench: Bench, items: int) -> None:
    there, back = bench.open(), bench.open()
    bench.left.start(loops.ping, bench.left.tx(there), bench.left.rx(back), items)
    bench.right.start(loops.pong, bench.right.rx(there), bench.right.tx(back), items)


def request_reply(bench: Bench, items: int) -> None:
    channel = bench.open()
    ask = loops.ask_and_close if bench.left.form.closes else loops.ask
    for share in shares(items, WAYS):
        bench.left.start(ask, bench.left.tx(channel), bench.open_reply(), share)
    bench.right.start(loops.answer, bench.right.rx(channel), items)


def timeout_never_fires(bench: Bench, items: int) -> None:
    channel = bench.open()
    bench.left.start(loops.produce, bench.left.tx(channel), items)
    loop, *more = bench.right.timed()
    bench.right.start(loop, bench.right.rx(channel), *more, items)


# ------------- several channels
def broadcast(bench: Bench, items: int) -> None:
    if bench.peer.subscribe is not None:
        sender, receivers = bench.peer.subscribe(bench.capacity, WAYS)
        if bench.tally is not None:
            bench.tally.copies = WAYS
        bench.left.start(loops.produce, bench.left.tx(sender), items)
    else:
        receivers = [bench.open() for _ in range(WAYS)]
        bench.left.start(loops.fan_out, [bench.left.tx(channel) for channel in receivers], items)
    for channel in receivers:
        bench.right.start(loops.consume, bench.right.rx(channel), items)


def select_rx(bench: Bench, items: int) -> None:
    channels = [bench.open() for _ in range(WAYS)]
    for channel, share in zip(channels, shares(items, WAYS), strict=True):
        bench.left.start(loops.produce, bench.left.tx(channel), share)
    _take(bench, channels, items)


def select_both(bench: Bench, items: int) -> None:
    channels = [bench.open() for _ in range(WAYS)]
    assert bench.peer.select.give is not None
    for share in shares(items, WAYS):
        _take(bench, channels, share)
        loop, *more = bench.peer.select.give([bench.left.tx(channel) for channel in channels])
        bench.left.start(loop, *more, share)


def select_quiet(bench: Bench, items: int) -> None:
    channels = [bench.open() for _ in range(WAYS)]
    bench.left.start(loops.produce, bench.left.tx(channels[-1]), items)
    _take(bench, channels, items)


def select_single(bench: Bench, items: int) -> None:
    channels, turn = [bench.open() for _ in range(WAYS)], asyncio.Event()
    bench.left.start(loops.feed_turns, turn, [bench.left.tx(channel) for channel in channels], items)
    assert bench.peer.select.take_turns is not None
    loop, *more = bench.peer.select.take_turns(turn, [bench.right.rx(channel) for channel in channels])
    bench.right.start(loop, *more, items)


def _take(bench: Bench, channels: list[Any], items: int) -> None:
    assert bench.peer.select.take is not None
    loop, *more = bench.peer.select.take([bench.right.rx(channel) for channel in channels])
    bench.right.start(loop, *more, items)


# ------------- cancellation
def cancel_storm(bench: Bench, items: int) -> None:
    channel, party = bench.open(), bench.left
    take, give = speak(loops.consume, party.form.words), speak(loops.produce, party.form.words)
    storm = loops.storm_trio if party.world == "trio" else loops.storm_asyncio
    party.jobs.append(partial(storm, take, give, party.rx(channel), party.tx(channel), CROWD, items))


# ------------- the table
_TOGETHER = tuple(side.name for side in SIDES if side.together)
_ASYNCIO = ("asyncio", "uvloop")
_ALL = tuple(side.name for side in SIDES)
_ONE_WORLD = (*_TOGETHER, "thread-thread")


@dataclass(frozen=True)
class Scenario:
    """A row of the table. `needs` names the field of a peer's `Select` without which it has no place there."""

    name: str
    text: str
    item: str  # what the figure is for
    build: Callable[[Bench, int], None] | None
    sides: tuple[str, ...] = _ALL
    needs: str = ""
    rendezvous: bool = True
    weigh: Callable[[Bench], float] | None = None  # instead of `build`: bytes

    @property
    def unit(self) -> str:
        return "bytes" if self.weigh is not None else "ns"

    def lacks(self, side: Side, capacity: float) -> str | None:
        """Why it does not exist there, or None if it does."""
        if side.name not in self.sides:
            return f"{self.name} does not exist on {side.name}"
        if capacity == 0 and not self.rendezvous:
            return f"{self.name} does not exist at capacity 0"
        return None

    def rounded(self, items: int, capacity: float) -> int:
        """As many items as come out even, no fewer."""
        multiple = 1
        if self.build is cancel_storm:
            multiple = CROWD
        elif self.build is seq and capacity < math.inf:
            multiple = max(1, int(capacity))
        return -(-items // multiple) * multiple

    def seconds(self, bench_of: Callable[[], Bench], items: int, side: Side) -> float:
        """How long `items` take."""

        def plan() -> Plan:
            bench = bench_of()
            assert self.build is not None
            self.build(bench, items)
            return Plan(bench.left.jobs, bench.right.jobs)

        return run(side, plan)


SCENARIOS = [
    Scenario("seq", "one task or thread: the buffer filled, then drained", "a value", seq, _ONE_WORLD, "", False),
    Scenario("spsc", "one producer, one consumer", "a value", partial(_crowd, 1, 1)),
    Scenario("mpsc", "four producers, one consumer", "a value", partial(_crowd, WAYS, 1)),
    Scenario("mpmc", "four producers, four consumers", "a value", partial(_crowd, WAYS, WAYS)),
    Scenario("select_rx", "a select over four busy channels", "a value", select_rx, needs="take"),
    Scenario(
        "select_both", "four selects send, four receive, over four channels", "a value", select_both, needs="give"
    ),
    Scenario("select_quiet", "a select over one busy and three quiet channels", "a value", select_quiet, needs="take"),
    Scenario(
        "select_single",
        "a select over four channels, one value at a time",
        "a value",
        select_single,
        _ASYNCIO,
        "take_turns",
    ),
    Scenario("pingpong", "to and fro over two channels", "a round trip", pingpong),
    Scenario("request_reply", "four clients, one server, a channel for each answer", "a request", request_reply),
    Scenario("broadcast", "one producer, four consumers who each get all", "a value sent", broadcast),
    Scenario(
        "cancel_storm", f"{CROWD} waiting receivers cancelled, again and again", "a receiver", cancel_storm, _TOGETHER
    ),
    Scenario("timeout_never_fires", "spsc, each receive with a time limit", "a value", timeout_never_fires),
    Scenario("memory_idle", "a channel that nobody uses", "a channel", None, _ONE_WORLD, weigh=memory.idle),
    Scenario(
        "memory_parked",
        "a receiver that waits, its task or thread included",
        "a receiver",
        None,
        _ONE_WORLD,
        weigh=memory.parked,
    ),
]
