"""The scenarios between processes: who sends and receives what, laid out on a bench whose left is another process.

The right is the worker itself: it measures, so what a process takes to start is not in the figure. The first value that
is received is where the time begins, and it does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import loops, processes
from .bench import Bench, Tally
from .loops import Ends, Loop, Words, speak
from .processes import Away, Payloads, in_turn
from .rows import BETWEEN, Scenario, middle, since, since_first

ROOM = 2**20  # bytes of a channel
SIZES = {"16": 16, "1k": 1024, "16k": 2**14, "64k": 2**16, "256k": 2**18, "1m": 1_000_000}


def ints(bench: Bench, items: int) -> None:
    tx, rx = bench.stream(ROOM)
    bench.expect(range(items))
    bench.left.start(bench.peer.processes.give, bench.left.end(tx), items)
    _take(bench, rx, items)


def payloads(made: Payloads, size: int, bench: Bench, items: int) -> None:
    tx, rx = bench.stream(max(ROOM, 8 * size))
    bench.expect(in_turn(made(size), items) if bench.tally else ())
    bench.left.start(processes.give_payloads, bench.left.end(tx), made, size, items)
    _take(bench, rx, items)


def pairs(bench: Bench, items: int) -> None:
    """Two processes send; one receives, and so does the worker."""
    tx, rx = bench.stream(ROOM)
    shares = items // 2, items - items // 2
    for share in shares:
        bench.expect(range(share))
        bench.left.start(loops.produce, bench.left.end(tx), share)
    if bench.tally is not None:
        bench.tally.in_order = False

    def heard(there: tuple[list[float], list[Any]]) -> None:
        bench.stretches.extend(there[0])
        bench.heard(there[1])

    job = partial(_take_away, bench.left.form.words, bench.tally is not None, rx, shares[0])
    bench.left.jobs.append(Away(job, heard))
    _take(bench, rx, shares[1])


def round_trip(bench: Bench, items: int) -> None:
    there, back = bench.stream(ROOM), bench.stream(ROOM)
    bench.left.start(loops.pong, bench.left.end(there[1]), bench.left.end(back[0]), items)
    bench.right.start(processes.ask, bench.right.end(there[0]), bench.right.end(back[1]), bench.stretches, items)


def pool(loop: Loop, bench: Bench, items: int) -> None:
    bench.expect(processes.double(i) for i in range(items))
    bench.right.jobs.append(partial(loop, bench.peer.processes.pool, bench.heard, bench.stretches, items))


def broken(bench: Bench, items: int) -> None:
    def open_noted() -> Ends:
        tx, rx = bench.stream(ROOM)
        return tx, bench.right.end(rx)

    bench.expect([processes.HERE] * items)
    bench.right.start(processes.outlive, open_noted, bench.stretches, items)


def _take(bench: Bench, rx: Any, items: int) -> None:
    how = bench.peer.processes
    bench.right.start(how.take_in.get(bench.right.world, how.take), bench.right.end(rx), bench.stretches, items)


def _take_away(words: Words, noted: bool, rx: Any, items: int) -> tuple[list[float], list[Any]]:
    """In a process of its own: when it received its first and its last, and, in the run that checks, what."""
    tally, stretches = Tally(), list[float]()
    speak(processes.take, words)(tally.wrap(rx, words) if noted else rx, stretches, items)
    if hasattr(rx, "close"):
        rx.close()
    return stretches, tally.received


# ------------- the table
def _row(name: str, text: str, build: Callable[[Bench, int], None], **more: Any) -> Scenario:
    usual = {"item": "a value", "sides": BETWEEN[:1], "needs": "stream", "figure": since_first, "counted": True}
    return Scenario(f"process_{name}", text, build=build, channels=False, **{**usual, **more})


SCENARIOS = [
    _row("ints", "numbers from one process to another", ints),
    _row("asyncio", "numbers from a process to a task of an asyncio loop", ints, sides=BETWEEN[1:2]),
    _row("trio", "numbers from a process to a task of a trio run", ints, sides=BETWEEN[2:]),
    _row(
        "arrays",
        "arrays of 1 MB from one process to another",
        partial(payloads, processes.arrays, 1_000_000),
        first=20,
        package="numpy",
    ),
    *(
        _row(
            f"bytes_{label}",
            f"{size} bytes from one process to another",
            partial(payloads, processes.strings, size),
            first=20 if size > 100_000 else 200,
        )
        for label, size in SIZES.items()
    ),
    _row("pairs", "two processes send, two receive", pairs, needs="shared", multiple=lambda _: 2),
    _row(
        "round_trip",
        "a request to another process and its answer, over two channels: the median",
        round_trip,
        item="a round trip",
        figure=middle,
    ),
    _row(
        "pool",
        f"a pool of {processes.WORKERS} processes: calls submitted, then their results awaited",
        partial(pool, processes.pool_many),
        item="a call",
        needs="pool",
        figure=since,
    ),
    _row(
        "pool_one",
        "one call to a pool of processes, then the next: the median",
        partial(pool, processes.pool_one),
        item="a call",
        needs="pool",
        figure=middle,
    ),
    _row(
        "broken",
        "from the death of the last sender until the receiver who waits hears of it: the median",
        broken,
        item="a death",
        needs="broken",
        sides=BETWEEN,
        figure=middle,
        first=4,
        counted=False,
    ),
]
