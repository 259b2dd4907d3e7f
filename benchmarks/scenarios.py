"""What is measured: each scenario lays out loops on the left and on the right of a bench, and says what it counts.

A scenario is written once for all peers and sides: it opens channels and starts loops. The time from the first start
to the last end, divided by the number of items, is the figure; or something of the stretches that a loop has timed
itself. Those whose names begin with `group_` are about tasks, scopes and threads, not about channels; those with
`process_` are about what passes between processes, and `between` lays them out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from . import between, loops, memory, structured
from .bench import Bench
from .loops import speak
from .rows import Scenario, mean, middle, p99
from .sides import SIDES

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


# ------------- the table
_TOGETHER = tuple(side.name for side in SIDES if side.together)
_ASYNCIO = ("asyncio", "uvloop")
_THREADS = ("thread-thread",)
_ONE_WORLD = (*_TOGETHER, *_THREADS)


def _buffer(capacity: float | None) -> int:
    return max(1, int(capacity)) if capacity is not None and capacity < math.inf else 1


def _structured(name: str, text: str, item: str, build: Callable[[Bench, int], None], **more: Any) -> Scenario:
    return Scenario(name, text, item, build, channels=False, **more)


SCENARIOS = [
    Scenario(
        "seq",
        "one task or thread: the buffer filled, then drained",
        "a value",
        seq,
        _ONE_WORLD,
        "",
        False,
        multiple=_buffer,
    ),
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
        "cancel_storm",
        f"{CROWD} waiting receivers cancelled, again and again",
        "a receiver",
        cancel_storm,
        _TOGETHER,
        multiple=lambda _: CROWD,
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
        multiple=lambda _: TASKS,
        sides=_TOGETHER,
        needs="spawn",
    ),
    _structured(
        "group_cancel",
        f"{TASKS} tasks that wait, from their cancellation to the end of all",
        "a task",
        group_cancel,
        multiple=lambda _: TASKS,
        sides=_TOGETHER,
        needs="cancel",
        figure=mean,
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
        multiple=lambda _: THREADS,
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
        figure=middle,
    ),
    _structured(
        "group_stop_p99",
        "the same, but of 100 children 99 are faster",
        "a child",
        group_stop,
        needs="stop",
        figure=p99,
    ),
    *between.SCENARIOS,
]
