"""A first look at speed: the asyncio, trio and thread scenarios of chanlib beside their peers.

    python -m benchmarks.quick [ROW...] [--rounds 5] [--scale 1.0]

- Every figure comes from a process of its own, which imports only what its side needs. The sides of
  a scenario alternate, in turned order every other round.
- The consumer times the steady part: `WARM` items go by, then as many as take about `ROUND` s.
- Shown are medians, in ns for one item or bytes for one object, and half their spread; the ratio
  of the medians, peer / chanlib, so more is better for chanlib; the lowest and highest ratio of a
  single round. A verdict with "?" is one on which the rounds disagree.
- A side that takes longer than `PATIENCE` is shown as hung, one that fails with its error.

`SIDES` says what is compared: functions of the number of items that return seconds, or bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import platform
import statistics
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

WARM = 300  # items that go by before the clock starts: more than any capacity here
ROUND = 0.3  # seconds
PATIENCE = 30.0  # seconds
WAYS = 4  # channels of a select
IDLE = 1000  # idle objects that are weighed together

TakeAll = Callable[[asyncio.Event | None], Coroutine[Any, Any, float]]
Send = Callable[[int], Any]
Receive = Callable[[], Any]
Ends = Callable[[int], tuple[Send, Receive]]  # of the capacity
Bridge = tuple[Callable[[int], None], Callable[[int], float], Send, Receive]


# ------------- what an async user sends with and receives with
def channel(capacity: int) -> Any:
    return import_module("chanlib").Channel(capacity)


def chanlib_ends(capacity: int) -> tuple[Send, Receive]:
    ch = channel(capacity)
    return ch.send, ch.receive


def asyncio_ends(capacity: int) -> tuple[Send, Receive]:
    queue: asyncio.Queue[int] = asyncio.Queue(capacity)
    return queue.put, queue.get


def anyio_ends(capacity: int) -> tuple[Send, Receive]:
    tx, rx = import_module("anyio").create_memory_object_stream(capacity)
    return tx.send, rx.receive


def trio_ends(capacity: int) -> tuple[Send, Receive]:
    tx, rx = import_module("trio").open_memory_channel(capacity)
    return tx.send, rx.receive


# ------------- one producer and one consumer in one loop
async def produce(send: Send, items: int) -> None:
    for i in range(WARM + items):
        await send(i)


async def consume(receive: Receive, items: int) -> float:
    for _ in range(WARM):
        await receive()
    start = perf_counter()
    for _ in range(items):
        await receive()
    return perf_counter() - start


async def beside(first: Coroutine[Any, Any, float], *others: Coroutine[Any, Any, None]) -> float:
    """The result of `first`; the others run beside it, and `asyncio.run` cancels what is left."""
    _kept = [asyncio.create_task(other) for other in others]  # a loop holds its tasks weakly
    return await first


def aio_pair(ends: Ends, capacity: int, items: int) -> float:
    send, receive = ends(capacity)
    return asyncio.run(beside(consume(receive, items), produce(send, items)))


def trio_pair(ends: Ends, capacity: int, items: int) -> float:
    import trio

    async def main() -> float:
        send, receive = ends(capacity)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, send, items)
            return await consume(receive, items)

    return trio.run(main)


# ------------- with a thread at one end or at both
def put_all(put: Send, items: int) -> None:
    for i in range(WARM + items):
        put(i)


def get_all(get: Receive, items: int) -> float:
    for _ in range(WARM):
        get()
    start = perf_counter()
    for _ in range(items):
        get()
    return perf_counter() - start


def send_all(ch: Any, items: int) -> None:
    for i in range(WARM + items):
        ch.send(i).sync()


def receive_all(ch: Any, items: int) -> float:
    for _ in range(WARM):
        ch.receive().sync()
    start = perf_counter()
    for _ in range(items):
        ch.receive().sync()
    return perf_counter() - start


def chanlib_bridge(capacity: int) -> Bridge:
    ch = channel(capacity)
    return partial(send_all, ch), partial(receive_all, ch), ch.send, ch.receive


def peer_bridge(library: str, capacity: int) -> Bridge:
    queue = import_module(library).Queue(capacity)
    sync, aio = queue.sync_q, queue.async_q
    return partial(put_all, sync.put), partial(get_all, sync.get), aio.put, aio.get


def queue_bridge(capacity: int) -> Bridge:
    queue = import_module("queue").Queue(capacity)
    return partial(put_all, queue.put), partial(get_all, queue.get), queue.put, queue.get


def thread_to_aio(bridge: Callable[[int], Bridge], capacity: int, items: int) -> float:
    async def main() -> float:
        feed, _, _, receive = bridge(capacity)  # janus wants to be made inside the loop
        threading.Thread(target=feed, args=(items,), daemon=True).start()
        return await consume(receive, items)

    return asyncio.run(main())


def aio_to_thread(bridge: Callable[[int], Bridge], capacity: int, items: int) -> float:
    async def main() -> float:
        _, drain, send, _ = bridge(capacity)
        taken = asyncio.get_running_loop().run_in_executor(None, drain, items)
        await produce(send, items)
        return await taken

    return asyncio.run(main())


def threads(bridge: Callable[[int], Bridge], capacity: int, items: int) -> float:
    feed, drain, _, _ = bridge(capacity)
    threading.Thread(target=feed, args=(items,), daemon=True).start()
    return drain(items)


# ------------- select: fed from all sides, or (`single`) with one item at a time
async def feed_select(sends: list[Send], turn: asyncio.Event | None) -> None:
    """Send without end, on each channel in turn; with `turn`, whenever it is set."""
    for i, send in enumerate(itertools.cycle(sends)):
        await send(i)
        if turn is not None:
            await turn.wait()
            turn.clear()


async def beside_feeds(take_all: TakeAll, sends: list[Send], single: bool) -> float:
    turn = asyncio.Event() if single else None
    groups = [sends] if single else [[send] for send in sends]
    return await beside(take_all(turn), *(feed_select(group, turn) for group in groups))


def select_chanlib(capacity: int, single: bool, items: int) -> float:
    from chanlib import select

    a, b, c, d = channels = [channel(capacity) for _ in range(WAYS)]

    async def take_all(turn: asyncio.Event | None) -> float:
        for left in range(WARM + items, 0, -1):
            if left == items:
                start = perf_counter()
            await select(a.receive(), b.receive(), c.receive(), d.receive())
            if turn is not None:
                turn.set()
        return perf_counter() - start

    return asyncio.run(beside_feeds(take_all, [ch.send for ch in channels], single))


def select_wait(capacity: int, single: bool, most: int, items: int) -> float:
    """`most`: of those that are done at once, how many are taken; select takes one."""
    queues = [asyncio.Queue[int](capacity) for _ in range(WAYS)]

    async def take_all(turn: asyncio.Event | None) -> float:
        gets = {asyncio.create_task(queue.get()): queue for queue in queues}
        taken, start = 0, 0.0
        while taken < WARM + items:
            if not start and taken >= WARM:
                start, before = perf_counter(), taken
            done, _ = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
            for task in itertools.islice(done, most):
                queue = gets.pop(task)
                task.result()
                gets[asyncio.create_task(queue.get())] = queue
            taken += min(len(done), most)
            if turn is not None:
                turn.set()
        return (perf_counter() - start) * items / (taken - before)

    return asyncio.run(beside_feeds(take_all, [queue.put for queue in queues], single))


# ------------- memory: bytes, not seconds
def weigh(make: Callable[[int], object], _: int) -> float:
    """The bytes of one idle object, all that is allocated in making it counted."""
    kept: list[object] = [make(100)] * IDLE  # the first one may cost more
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(1, IDLE):
        kept[i] = make(100)
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / (IDLE - 1)


def weigh_janus(items: int) -> float:
    async def main() -> float:
        return weigh(import_module("janus").Queue, items)

    return asyncio.run(main())


# ------------- what is compared with what
class Side(NamedTuple):
    row: str
    what: str
    target: float  # chanlib against it, DESIGN §9, column "pure"
    run: Callable[[int], float]


GIL = bool(getattr(sys, "_is_gil_enabled", lambda: True)())
janus, culsans = partial(peer_bridge, "janus"), partial(peer_bridge, "culsans")

SIDES = [  # the first of each row is ours
    Side("asyncio-100", "chanlib", 1, partial(aio_pair, chanlib_ends, 100)),
    Side("asyncio-100", "asyncio.Queue", 0.7, partial(aio_pair, asyncio_ends, 100)),
    Side("asyncio-100", "anyio", 5, partial(aio_pair, anyio_ends, 100)),
    Side("asyncio-1", "chanlib", 1, partial(aio_pair, chanlib_ends, 1)),
    Side("asyncio-1", "asyncio.Queue", 2, partial(aio_pair, asyncio_ends, 1)),
    Side("asyncio-0", "chanlib", 1, partial(aio_pair, chanlib_ends, 0)),
    Side("asyncio-0", "anyio", 2.5, partial(aio_pair, anyio_ends, 0)),
    Side("trio-100", "chanlib", 1, partial(trio_pair, chanlib_ends, 100)),
    Side("trio-100", "trio", 4, partial(trio_pair, trio_ends, 100)),
    Side("trio-0", "chanlib", 1, partial(trio_pair, chanlib_ends, 0)),
    Side("trio-0", "trio", 1.1, partial(trio_pair, trio_ends, 0)),
    Side("thread-to-asyncio-100", "chanlib", 1, partial(thread_to_aio, chanlib_bridge, 100)),
    Side("thread-to-asyncio-100", "janus", 6, partial(thread_to_aio, janus, 100)),
    Side("thread-to-asyncio-100", "culsans", 2, partial(thread_to_aio, culsans, 100)),
    Side("asyncio-to-thread-100", "chanlib", 1, partial(aio_to_thread, chanlib_bridge, 100)),
    Side("asyncio-to-thread-100", "janus", 6, partial(aio_to_thread, janus, 100)),
    Side("asyncio-to-thread-100", "culsans", 2, partial(aio_to_thread, culsans, 100)),
    Side("threads-100", "chanlib", 1, partial(threads, chanlib_bridge, 100)),
    Side("threads-100", "queue.Queue", 1.3 if GIL else 1, partial(threads, queue_bridge, 100)),
    Side("select-busy-4x100", "chanlib", 1, partial(select_chanlib, 100, False)),
    Side("select-busy-4x100", "wait, take all", 6, partial(select_wait, 100, False, WAYS)),
    Side("select-busy-4x100", "wait, take one", 6, partial(select_wait, 100, False, 1)),
    Side("select-single-4x1", "chanlib", 1, partial(select_chanlib, 1, True)),
    Side("select-single-4x1", "asyncio.wait", 2, partial(select_wait, 1, True, WAYS)),
    Side("memory-idle", "chanlib", 1, partial(weigh, channel)),
    Side("memory-idle", "janus", 4, weigh_janus),
]


# ------------- one process: one side, once
def measure(side: Side, seconds: float) -> float:
    items = 200
    while True:
        taken = side.run(items)
        if side.row.startswith("memory"):
            return taken
        if taken >= 0.6 * seconds:
            return taken / items * 1e9
        items = int(items * min(10.0, max(1.5, seconds / taken)))


class Figures:
    """What the rounds of one side gave, up to the first that went wrong."""

    def __init__(self, side: Side, seconds: float) -> None:
        self.side = side
        self.command = [sys.executable, "-m", "benchmarks.quick", "--child"]
        self.command += [str(SIDES.index(side)), str(seconds)]
        self.values: list[float] = []
        self.trouble = ""

    def add_round(self) -> None:
        if self.trouble:
            return
        try:
            done = subprocess.run(self.command, timeout=PATIENCE, capture_output=True, text=True)
            self.values.append(float(done.stdout))
        except subprocess.TimeoutExpired:
            self.trouble = "hung "
        except ValueError:  # no figure
            self.trouble = (done.stderr.strip() or "no output").splitlines()[-1][:60] + " "

    def __str__(self) -> str:
        if not self.values:
            return self.trouble
        middle, spread = statistics.median(self.values), max(self.values) - min(self.values)
        return f"{self.trouble}{middle:.0f} ±{spread / middle / 2:.0%}"


# ------------- the table
load = getattr(os, "getloadavg", lambda: (-1.0,))
COLUMNS = "{:<21} {:>11}   {:<14} {:>11} {:>7}  {:<11} {:>6}  {}"


def line(ours: Figures, peer: Figures) -> str:
    row, what, target, _ = peer.side
    cells = (row, str(ours), what, str(peer))
    if not ours.values or not peer.values:
        return COLUMNS.format(*cells, "", "", f"{target:g}x", "no peer" if ours.values else "MISS")
    ratio = statistics.median(peer.values) / statistics.median(ours.values)
    rounds = [theirs / our for our, theirs in zip(ours.values, peer.values, strict=False)]
    verdict = "ok" if ratio >= target else "MISS"
    if min(rounds) < target <= max(rounds):
        verdict += "?"
    spread = f"{min(rounds):.2f}-{max(rounds):.2f}"
    return COLUMNS.format(*cells, f"{ratio:.2f}x", spread, f"{target:g}x", verdict)


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    python = f"CPython {platform.python_version()}{'' if GIL else ' free-threaded'}"
    return f"{python}, {os.cpu_count()} x {(models or [platform.machine()])[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick")
    names = list(dict.fromkeys(side.row for side in SIDES))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"or their first words: {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help=f"of {ROUND} s for a round")
    args = parser.parse_args()
    if args.rounds < 1 or args.scale <= 0:
        parser.error("--rounds and --scale must be positive")
    chosen: set[str] = set()
    for row in args.rows or names:
        if not (found := {name for name in names if f"{name}-".startswith(f"{row}-")}):
            parser.error(f"no row begins with {row!r}; there are {names}")
        chosen |= found

    began = perf_counter()
    print(f"{machine()}; {args.rounds} rounds; load {load()[0]:.1f}")
    print(COLUMNS.format("row", "chanlib", "peer", "", "ratio", "rounds", "target", "verdict"))
    for row, sides in itertools.groupby(SIDES, lambda side: side.row):
        if row not in chosen:
            continue
        figures = [Figures(side, ROUND * args.scale) for side in sides]
        for number in range(args.rounds):
            for figure in figures[:: -1 if number % 2 else 1]:
                figure.add_round()
        for peer in figures[1:]:
            print(line(figures[0], peer), flush=True)
    print(f"{perf_counter() - began:.0f} s; load {load()[0]:.1f} in the end")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(measure(SIDES[int(sys.argv[2])], float(sys.argv[3])))
    else:
        main()
