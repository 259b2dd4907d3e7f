"""What the processes of `test_processes_passing` run: they are imported by name, so they stand in a module."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from worlds import ALL

from chanlib import select
from chanlib.processes import ProcessChannel, ProcessReceiver, ProcessSender, open_process_channel

PATIENCE = 20.0  # seconds after which what should happen is given up: a safety net

shared: dict[str, Any] = {}  # what a forked process finds among its globals


def put(tx: Any, value: Any) -> None:
    tx.send(value).sync(PATIENCE)


def take(rx: Any) -> Any:
    return rx.receive().sync(PATIENCE)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


# ----------------------------------------------------------------- one end
def produce(tx: ProcessSender, values: Any, *, cause: BaseException | None = None) -> None:
    for value in values:
        put(tx, value)
    tx.close(cause)


def consume(rx: ProcessReceiver, back: ProcessSender) -> None:
    with rx, back:
        put(back, list(rx))


def echo_ends(rx: ProcessReceiver, tx: ProcessSender) -> None:
    """Send back what comes, with the ends that are inside."""
    with rx, tx:
        for value in rx:
            put(tx, value)
            for one in value if isinstance(value, list) else value.values():
                if hasattr(one, "close"):
                    one.close()


def number(tx: ProcessSender, who: int, count: int) -> None:
    with tx:
        for n in range(count):
            put(tx, (who, n))


def found_in_a_container(found: dict[str, list[Any]]) -> None:
    produce(found["ends"][0], [1, 2])


def found_among_globals() -> None:
    produce(shared["tx"], [1, 2])


def exchange(both: ProcessChannel, ready: Any) -> None:
    """Answer once."""
    put(both, take(both) + 1)
    ready.set()


def look(tx: ProcessSender) -> None:
    """How the end has come: its name, its serializer, whether it spills."""
    put(tx, [repr(tx).split()[:2], tx.capacity])
    try:
        put(tx, "x" * 100_000)
    except ValueError as error:
        put(tx, type(error).__name__)
    tx.close()


def do_nothing(*_: Any, **__: Any) -> None:
    pass


def outlive(line: Any, *ends: Any) -> None:
    """Have them, and nothing else, until the line is closed or says something."""
    line.recv()


# ----------------------------------------------------------------- executors and queues
def produce_and_count(tx: ProcessSender, count: int) -> int:
    with tx:
        for n in range(count):
            put(tx, n)
    return os.getpid()


def total(rx: ProcessReceiver) -> int:
    with rx:
        return sum(rx)


def make(count: int) -> ProcessReceiver:
    """A channel that is made here, and goes to whoever asked."""
    tx, rx = open_process_channel(count)
    with tx:
        for n in range(count):
            put(tx, n)
    return rx


def from_queue(queue: Any) -> None:
    produce(queue.get(timeout=PATIENCE), [1, 2])


def send_pickled(line: Any) -> None:
    """Pickle an end, hand over the pickle, and end without having waited for anybody."""
    tx, rx = open_process_channel(1)
    line.send_bytes(pickle.dumps(rx))
    tx.close()
    rx.close()
    line.close()


def receive_ends(control: ProcessReceiver, back: ProcessSender) -> None:
    """Use each end that comes, and let go of it; say how many descriptors and threads there were before and after."""
    with control, back:
        before = None
        for tx in control:
            with tx:
                put(tx, os.getpid())
            before = before or (descriptors(), threading.active_count())
            del tx
        put(back, (before, (descriptors(), threading.active_count())))


# ----------------------------------------------------------------- loops
def in_world(name: str, rx: ProcessReceiver, tx: ProcessSender) -> None:
    """Double what comes, in that world."""

    async def body() -> None:
        with rx, tx:
            async for value in rx:
                await tx.send(2 * value)

    ALL[name].run(body)


def choose(name: str, first: ProcessReceiver, second: ProcessReceiver, tx: ProcessSender) -> None:
    """Say from which of both a value came, until each has sent None."""

    async def body() -> None:
        arms: list[Any] = [first, second]
        with first, second, tx:
            while any(arms):
                arm, value = await select(*arms)
                if value is None:
                    arms[arm] = None
                else:
                    await tx.send((arm, value))

    ALL[name].run(body)


class Worker(multiprocessing.get_context("fork").Process):  # type: ignore[misc,name-defined]
    """A process by a subclass, with an end among its attributes."""

    def __init__(self, tx: ProcessSender) -> None:
        super().__init__()
        self.tx = tx

    def run(self) -> None:
        produce(self.tx, [1, 2])


class SpawnedWorker(multiprocessing.get_context("forkserver").Process):  # type: ignore[misc,name-defined]
    def __init__(self, tx: ProcessSender) -> None:
        super().__init__()
        self.tx = tx

    def run(self) -> None:
        produce(self.tx, [1, 2])
