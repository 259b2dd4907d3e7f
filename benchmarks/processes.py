"""What runs between processes: the loops, the children, and how the channels and pools of each peer are made.

A child is started by a fork server where there is one, else afresh: neither inherits what the worker holds. It runs a
loop in the words of the peer, as a thread would, and reports how that ended. What it takes to start does not count: a
loop notes in `stretches` when it had received its first value and when it had received its last.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import cycle, islice
from threading import Thread
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from . import loops
from .loops import Loop, Words, speak

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CAPACITY = 1000  # values, where a peer can be told
BATCH = 100  # values that go and come at once, where a peer is made for that
WORKERS = 2  # of a pool
PAYLOADS = 4  # different ones, sent in turn
GRACE = 0.005  # seconds until a receiver surely waits

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    CONTEXT.set_forkserver_preload([__name__])

Payloads = Callable[[int], list[Any]]  # of their size in bytes


# ------------- what is sent
def arrays(size: int) -> list[Any]:
    import numpy

    return [numpy.full(size, number, numpy.uint8) for number in range(PAYLOADS)]


def strings(size: int) -> list[bytes]:
    return [bytes([first]) * size for first in range(PAYLOADS)]


def in_turn(values: list[Any], items: int) -> Iterable[Any]:
    return islice(cycle(values), items)


def by_value(thing: Any) -> Any:
    """What must be the same of a thing that has come from another process.

    Of a large one it is short. The run that checks is not to leave the allocator in another state than the timed ones
    would: once something larger has been freed, glibc gives less back, and who makes several copies of a value is twice
    as fast as in a process that does nothing else.
    """
    if hasattr(thing, "dtype"):
        return thing.dtype.str, thing.shape, sha256(thing).digest()
    return sha256(thing).digest() if isinstance(thing, bytes) else thing


# ------------- who sends
async def give_payloads(tx: Any, payloads: Payloads, size: int, items: int) -> None:
    for payload in in_turn(payloads(size), items):
        await tx.send(payload)


async def give_some(tx: Any, items: int) -> None:
    for first in range(0, items, BATCH):
        batch = list(range(first, min(first + BATCH, items)))
        while batch:
            del batch[: await tx.send_some(batch)]


# ------------- who receives
async def take(rx: Any, stretches: list[float], items: int) -> None:
    await rx.receive()
    stretches.append(perf_counter())
    for _ in range(items - 1):
        await rx.receive()
    stretches.append(perf_counter())


async def take_each(rx: Any, stretches: list[float], items: int) -> None:
    await rx.receive()
    stretches.append(perf_counter())
    async for _ in rx:  # to the end of the channel
        pass
    stretches.append(perf_counter())


async def take_some(rx: Any, stretches: list[float], items: int) -> None:
    left = items - len(await rx.receive_some(1))
    stretches.append(perf_counter())
    while left:
        left -= len(await rx.receive_some(BATCH))
    stretches.append(perf_counter())


async def take_in_executor(rx: Any, stretches: list[float], items: int) -> None:  # no thread
    """As users of a queue do who have a loop: each value is waited for in a thread."""
    from asyncio import get_running_loop

    wait_in = get_running_loop().run_in_executor
    await wait_in(None, rx.receive)
    stretches.append(perf_counter())
    for _ in range(items - 1):
        await wait_in(None, rx.receive)
    stretches.append(perf_counter())


async def take_in_trio_thread(rx: Any, stretches: list[float], items: int) -> None:  # no thread
    from trio import to_thread

    wait_in = to_thread.run_sync
    await wait_in(rx.receive)
    stretches.append(perf_counter())
    for _ in range(items - 1):
        await wait_in(rx.receive)
    stretches.append(perf_counter())


async def ask(tx: Any, rx: Any, stretches: list[float], items: int) -> None:
    """Each round trip is a stretch; the first waits for the process to start, and is no median."""
    for i in range(items):
        start = perf_counter()
        await tx.send(i)
        await rx.receive()
        stretches.append(perf_counter() - start)


# ------------- who dies
HERE = "here"


def stay(tx: Any) -> None:
    """Say that it is there, and hold the channel open."""
    tx.send(HERE).sync()
    while True:
        sleep(3600)


def _kill(pid: int, killed: list[float]) -> None:
    sleep(GRACE)
    killed.append(perf_counter())
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


async def outlive(open: Callable[[], loops.Ends], stretches: list[float], items: int) -> None:
    """Each stretch is from the death of the only sender until the receiver, who waits, hears of it."""
    from chanlib import BrokenChannel

    for _ in range(items):
        tx, rx = open()
        child = CONTEXT.Process(target=stay, args=(tx,), daemon=True)
        child.start()
        tx.close()
        killed: list[float] = []
        await rx.receive()
        Thread(target=_kill, args=(child.pid, killed)).start()
        try:
            await rx.receive()
        except BrokenChannel:
            stretches.append(perf_counter() - killed[0])
        child.join()
        child.close()
        rx.close()
    if len(stretches) != items:
        raise RuntimeError("a receiver was not told that the last sender had been killed")


# ------------- pools
Results = Callable[[Iterable[Any]], object]  # what hears of them


def double(number: int) -> int:
    return 2 * number


def pool_many(
    open: Callable[[], AbstractContextManager[Executor]], heard: Results, stretches: list[float], items: int
) -> None:
    with open() as pool:
        _warm(pool)
        stretches.append(perf_counter())
        futures = [pool.submit(double, i) for i in range(items)]
        results = [future.result() for future in futures]
        stretches.append(perf_counter())
    heard(results)


def pool_one(
    open: Callable[[], AbstractContextManager[Executor]], heard: Results, stretches: list[float], items: int
) -> None:
    results = []
    with open() as pool:
        _warm(pool)
        for i in range(items):
            start = perf_counter()
            results.append(pool.submit(double, i).result())
            stretches.append(perf_counter() - start)
    heard(results)


def _warm(pool: Executor) -> None:
    """Its workers are there, and have worked."""
    for future in [pool.submit(sleep, 0.02) for _ in range(4 * WORKERS)]:
        future.result()


# ------------- how a peer's are made; of channels, the end that sends is first
def open_chanlib(room: int) -> loops.Ends:
    from chanlib.processes import open_process_channel

    return open_process_channel(CAPACITY, buffer_bytes=room)


def open_queue(room: int) -> loops.Ends:
    queue = CONTEXT.Queue(CAPACITY)
    return queue, queue


def open_simple_queue(room: int) -> loops.Ends:
    queue = CONTEXT.SimpleQueue()
    return queue, queue


def open_pipe(room: int) -> loops.Ends:
    rx, tx = CONTEXT.Pipe(duplex=False)
    return tx, rx


def open_faster_fifo(room: int) -> loops.Ends:
    from faster_fifo import Queue

    queue = Queue(room, CAPACITY)
    return queue, queue


def pool_chanlib() -> AbstractContextManager[Executor]:
    from chanlib.processes import WorkerPool

    return WorkerPool(kind="process", workers=WORKERS)


def pool_stdlib() -> AbstractContextManager[Executor]:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(WORKERS, CONTEXT)


def pool_loky() -> AbstractContextManager[Executor]:
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(WORKERS)


@dataclass(frozen=True)
class Processes:
    """How a peer moves values, or work, between processes."""

    stream: Callable[[int], loops.Ends] | None = None  # a channel, with room for so many bytes where it can be told
    shared: bool = False  # may several processes send, and several receive?
    broken: bool = False  # is a receiver told that the last sender has died?
    pool: Callable[[], AbstractContextManager[Executor]] | None = None
    give: Loop = loops.produce  # numbers
    take: Loop = take
    take_in: Mapping[str, Loop] = field(default_factory=dict)  # where that is another one: the world
    closes: bool = False  # each process closes the ends it has, or the other side does not hear of the end


# ------------- children
class Away(NamedTuple):
    """A job for another process, and who hears here what it returned."""

    job: Callable[[], Any]
    heard: Callable[[Any], object] = bool


def run_away(loop: Loop, words: Words, closes: bool, *args: Any) -> Any:
    """A loop there."""
    try:
        return speak(loop, words)(*args)
    finally:
        for end in args if closes else ():
            if hasattr(end, "close"):
                end.close()


class Child:
    """A process with a job. It is started at once, and begins when it is told to: so several begin together."""

    def __init__(self, away: Away) -> None:
        self._away = away
        self._here, there = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_obey, args=(away.job, there), daemon=True)
        self._process.start()
        there.close()

    def ready(self) -> None:
        """Wait until it could begin."""
        self._hear()

    def begin(self) -> None:
        self._here.send(None)

    def wait(self) -> None:
        """Until the job is done. Raises if something went wrong there."""
        self._away.heard(self._hear())
        self._here.close()
        self._process.join()
        self._process.close()

    def _hear(self) -> Any:
        try:
            result, error = self._here.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            result, error = None, f"it ended with exit code {self._process.exitcode}"
        if error is not None:
            raise RuntimeError(f"in another process: {error}")
        return result


def start_together(jobs: list[Away]) -> list[Child]:
    """Start a process for each, and let them begin once all are there."""
    children = [Child(away) for away in jobs]
    for child in children:
        child.ready()
    for child in children:
        child.begin()
    return children


def _obey(job: Callable[[], Any], there: Connection) -> None:
    there.send((None, None))
    there.recv()
    try:
        answer = job(), None
    except BaseException as error:
        answer = None, f"{type(error).__name__}: {error}"
    there.send(answer)
    there.close()
