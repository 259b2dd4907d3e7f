"""What is measured: each scenario lays out loops on the left and on the right of a bench, and says what it counts.

A scenario is written once for all peers and sides: it opens channels and starts loops. The time from the first start
to the last end, divided by the number of items, is the figure; or something of the stretches that a loop has timed
itself. Those whose names begin with `group_` are about tasks, scopes and threads, not about channels; those with
`process_` are about what passes between processes, and `between` lays them out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

from . import between, loops, memory, processes, structured
from .bench import Bench
from .loops import speak
from .sides import SIDES, Plan, Side, run

T = TypeVar("T")

WAYS = 4  # channels of a select, tasks of a crowd, subscribers
CROWD = 64  # receivers whose waits are cancelled together
TASKS = 10_000  # of a group
THREADS = 100  # of a group


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


# ------------- tasks, scopes, threads
def group_spawn(bench: Bench, items: int) -> None:
    _one(bench, bench.peer.structured.spawn, bench.body(structured.nothing), TASKS, items)


def group_cancel(bench: Bench, items: int) -> None:
    trio = bench.left.world == "trio"
    body = bench.body(structured.park_trio if trio else structured.park_asyncio)
    settle = structured.settle_trio if trio else structured.settle_asyncio
    _one(bench, bench.peer.structured.cancel, body, settle, bench.stretches, TASKS, items)


def group_scopes(bench: Bench, items: int) -> None:
    assert bench.peer.structured.scopes is not None
    bench.left.jobs.append(partial(bench.body(bench.peer.structured.scopes), items))


def group_thread(bench: Bench, items: int) -> None:
    _one(bench, bench.peer.structured.threads, bench.body(structured.nothing_plain), 1, items)


def group_threads(bench: Bench, items: int) -> None:
    _one(bench, bench.peer.structured.threads, bench.body(structured.nothing_plain), THREADS, items)


def group_pair(bench: Bench, items: int) -> None:
    _one(bench, bench.peer.structured.pair, bench.body(structured.burn), items)


def group_stop(bench: Bench, items: int) -> None:
    from chanlib import Channel, TaskGroup, sleep

    children, go = Channel[Any](0), Channel[None](0)
    child = bench.body(partial(speak(loops.consume, loops.Words(wait="sync")), items=1))
    bench.right.start(structured.hold, TaskGroup, Channel, child, children, go, items)
    bench.left.start(structured.strike, sleep, children, go, bench.stretches, items)


def _one(bench: Bench, loop: loops.Loop | None, *args: Any) -> None:
    assert loop is not None
    bench.left.jobs.append(partial(loop, *args))


def _mean(stretches: list[float], items: int) -> float:
    return sum(stretches) / items


def _median(stretches: list[float], items: int) -> float:
    return median(stretches)


def _since_first(stretches: list[float], items: int) -> float:
    return (max(stretches) - min(stretches)) / max(1, items - 1)


def _since(stretches: list[float], items: int) -> float:
    return (stretches[1] - stretches[0]) / items


def _p99(stretches: list[float], items: int) -> float:
    return quantiles(stretches, n=100, method="inclusive")[-1] if len(stretches) > 1 else stretches[0]


# ------------- the table
_TOGETHER = tuple(side.name for side in SIDES if side.together)
_ASYNCIO = ("asyncio", "uvloop")
_PROCESS = tuple(side.name for side in SIDES if side.left == "process")
_ALL = tuple(side.name for side in SIDES if side.name not in _PROCESS)
_THREADS = ("thread-thread",)
_ONE_WORLD = (*_TOGETHER, *_THREADS)


class Run(NamedTuple):
    """How long a run took, and what of that is the figure for an item: both in seconds."""

    whole: float
    each: float


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    `needs` names the field of a peer's `Select` without which it has no place there; of its `Structured`, if the
    scenario is not about channels; of its `Processes`, if that is another process's.
    """

    name: str
    text: str
    item: str  # what the figure is for
    build: Callable[[Bench, int], None] | None
    sides: tuple[str, ...] = _ALL
    needs: str = ""
    rendezvous: bool = True
    weigh: Callable[[Bench], float] | None = None  # instead of `build`: bytes
    channels: bool = True  # is it about channels whose capacity is chosen?
    figure: Callable[[list[float], int], float] | None = None  # of the stretches that a loop has timed, and the items
    first: int = 200  # items of the first run, from which the next grow
    package: str = ""  # without which it does not exist
    counted: bool = False  # a run is as long as what `figure` counts of it: to start processes takes long

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured at all, or None if it can."""
        return f"{self.package} is not installed" if self.package and find_spec(self.package) is None else None

    @property
    def unit(self) -> str:
        return "bytes" if self.weigh is not None else "ns"

    def lacks(self, side: Side, capacity: float | None) -> str | None:
        """Why it does not exist there, or None if it does."""
        if side.name not in self.sides:
            return f"{self.name} does not exist on {side.name}"
        if capacity == 0 and not self.rendezvous:
            return f"{self.name} does not exist at capacity 0"
        return None

    def capacities(self, wanted: Iterable[T]) -> list[T | None]:
        """Where it is measured: at those that are wanted, or without any."""
        return list(wanted) if self.channels else [None]

    def rounded(self, items: int, capacity: float | None) -> int:
        """As many items as come out even, no fewer."""
        multiple = 1
        if self.build is cancel_storm:
            multiple = CROWD
        elif self.build in (group_spawn, group_cancel):
            multiple = TASKS
        elif self.build is group_threads:
            multiple = THREADS
        elif self.build is seq and capacity is not None and capacity < math.inf:
            multiple = max(1, int(capacity))
        return -(-items // multiple) * multiple

    def run(self, bench_of: Callable[[], Bench], items: int, side: Side) -> Run:
        """How long `items` take."""
        benches: list[Bench] = []

        def plan() -> Plan:
            benches.append(bench_of())
            assert self.build is not None
            self.build(benches[0], items)
            return benches[0].plan()

        whole = run(side, plan)
        benches[0].close()
        each = whole / items if self.figure is None else self.figure(benches[0].stretches, items)
        return Run(each * items if self.counted else whole, each)


def _structured(name: str, text: str, item: str, build: Callable[[Bench, int], None], **more: Any) -> Scenario:
    return Scenario(name, text, item, build, channels=False, **more)


def _between(name: str, text: str, build: Callable[[Bench, int], None], **more: Any) -> Scenario:
    usual = {"item": "a value", "sides": _PROCESS[:1], "needs": "stream", "figure": _since_first, "counted": True}
    return Scenario(f"process_{name}", text, build=build, channels=False, **{**usual, **more})


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
    _structured(
        "group_spawn",
        f"{TASKS} tasks that do nothing, started and waited for",
        "a task",
        group_spawn,
        sides=_TOGETHER,
        needs="spawn",
    ),
    _structured(
        "group_cancel",
        f"{TASKS} tasks that wait, from their cancellation to the end of all",
        "a task",
        group_cancel,
        sides=_TOGETHER,
        needs="cancel",
        figure=_mean,
    ),
    _structured(
        "group_scopes",
        "three nested cancel scopes, one with a deadline, entered and left",
        "all three",
        group_scopes,
        sides=_TOGETHER,
        needs="scopes",
    ),
    _structured(
        "group_thread",
        "a thread that does nothing, started and waited for, then the next",
        "a thread",
        group_thread,
        sides=_THREADS,
        needs="threads",
    ),
    _structured(
        "group_threads",
        f"{THREADS} threads that do nothing, started and waited for",
        "a thread",
        group_threads,
        sides=_THREADS,
        needs="threads",
    ),
    _structured(
        "group_pair",
        "two threads that compute beside each other",
        "1000 additions of each",
        group_pair,
        sides=_THREADS,
        needs="pair",
    ),
    _structured(
        "group_stop",
        "a waiting child in a thread, from its cancellation by the left to its end: the median",
        "a child",
        group_stop,
        needs="stop",
        figure=_median,
    ),
    _structured(
        "group_stop_p99",
        "the same, but of 100 children 99 are faster",
        "a child",
        group_stop,
        needs="stop",
        figure=_p99,
    ),
    _between("ints", "numbers from one process to another", between.ints),
    _between("asyncio", "numbers from a process to a task of an asyncio loop", between.ints, sides=_PROCESS[1:2]),
    _between("trio", "numbers from a process to a task of a trio run", between.ints, sides=_PROCESS[2:]),
    _between(
        "arrays",
        "arrays of 1 MB from one process to another",
        partial(between.payloads, processes.arrays, 1_000_000),
        first=20,
        package="numpy",
    ),
    *(
        _between(
            f"bytes_{label}",
            f"{size} bytes from one process to another",
            partial(between.payloads, processes.strings, size),
            first=20 if size > 100_000 else 200,
        )
        for label, size in between.SIZES.items()
    ),
    _between("pairs", "two processes send, two receive", between.pairs, needs="shared"),
    _between(
        "round_trip",
        "a request to another process and its answer, over two channels: the median",
        between.round_trip,
        item="a round trip",
        figure=_median,
    ),
    _between(
        "pool",
        f"a pool of {processes.WORKERS} processes: calls submitted, then their results awaited",
        partial(between.pool, processes.pool_many),
        item="a call",
        needs="pool",
        figure=_since,
    ),
    _between(
        "pool_one",
        "one call to a pool of processes, then the next: the median",
        partial(between.pool, processes.pool_one),
        item="a call",
        needs="pool",
        figure=_median,
    ),
    _between(
        "broken",
        "from the death of the last sender until the receiver who waits hears of it: the median",
        between.broken,
        item="a death",
        needs="broken",
        sides=_PROCESS,
        figure=_median,
        first=4,
        counted=False,
    ),
]
