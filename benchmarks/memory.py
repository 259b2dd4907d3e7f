"""What an idle channel and a waiting receiver weigh: bytes that Python's allocator was asked for, by `tracemalloc`.

Everything allocated in making a channel counts, also what the library keeps elsewhere for it. A waiting receiver is
a task, or a thread, that has parked in a receive: its task, coroutine and thread objects are in the figure, a
thread's stack is not. Both are the means over a crowd.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from time import sleep
from typing import TYPE_CHECKING, Any

from . import loops
from .loops import speak
from .sides import in_thread, run_main

if TYPE_CHECKING:
    from .bench import Bench

CHANNELS = 1000
TASKS = 1000
THREADS = 50
SETTLE = 0.3  # seconds in which threads have surely parked


class _Scales:
    """What has been allocated since it was made."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.start()
        self.before = tracemalloc.get_traced_memory()[0]

    def read(self) -> int:
        """Once."""
        gc.collect()
        weight = tracemalloc.get_traced_memory()[0] - self.before
        tracemalloc.stop()
        return weight


def idle(bench: Bench) -> float:
    """The bytes of a channel that nobody uses."""

    def weigh() -> float:
        kept: list[Any] = [bench.open()] * (CHANNELS + 1)  # the first one may cost more
        scales = _Scales()
        for i in range(1, CHANNELS + 1):
            kept[i] = bench.open()
        return scales.read() / CHANNELS

    async def main() -> float:
        return weigh()

    return weigh() if bench.side.left == "threads" else float(run_main(bench.side, main))


def parked(bench: Bench) -> float:
    """The bytes of a receiver that waits on an empty channel, its task or thread included."""
    if bench.side.left == "threads":
        return _parked_threads(bench)
    return float(
        run_main(bench.side, lambda: _parked_trio(bench) if bench.side.left == "trio" else _parked_tasks(bench))
    )


async def _parked_tasks(bench: Bench) -> float:
    channel = bench.open()
    rx, take = bench.left.rx(channel), speak(loops.consume, bench.left.form.words)
    kept: list[Any] = [None] * (TASKS + 1)
    kept[0] = asyncio.create_task(take(rx, 1))
    await asyncio.sleep(0)
    scales = _Scales()
    for i in range(1, TASKS + 1):
        kept[i] = asyncio.create_task(take(rx, 1))
    await asyncio.sleep(0.01)
    weight = scales.read()
    for task in kept:
        task.cancel()
    await asyncio.wait(kept)
    return weight / TASKS


async def _parked_trio(bench: Bench) -> float:
    import trio

    channel = bench.open()
    rx, take = bench.left.rx(channel), speak(loops.consume, bench.left.form.words)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, rx, 1)
        await trio.sleep(0.01)
        scales = _Scales()
        for _ in range(TASKS):
            nursery.start_soon(take, rx, 1)
        await trio.sleep(0.01)
        weight = scales.read()
        nursery.cancel_scope.cancel()
    return weight / TASKS


def _parked_threads(bench: Bench) -> float:
    channel = bench.open()
    rx, take = bench.left.rx(channel), speak(loops.consume, bench.left.form.words)
    in_thread(lambda: take(rx, 1))
    sleep(SETTLE)
    scales = _Scales()
    kept = [in_thread(lambda: take(rx, 1)) for _ in range(THREADS)]
    sleep(SETTLE)
    weight = scales.read()
    if any(waiting.done() for waiting in kept):
        raise RuntimeError("a receive on an empty channel did not wait")
    return weight / THREADS
