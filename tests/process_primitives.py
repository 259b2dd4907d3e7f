"""What the tests of events, semaphores and futures between processes share: processes, and how they are killed.

What a process runs is imported there by name, so it stands in here.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from chanlib.processes import ProcessEvent, ProcessFuture, ProcessPromise, ProcessReceiver, ProcessSemaphore

methods = pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.stress)])
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SOON = 5.0  # seconds: a safety net
FELT = 0.7  # seconds within which what another process has done, or died of, is felt: some heartbeats


def start(method: str, fn: Callable[..., Any], *args: Any) -> Any:
    process = multiprocessing.get_context(method).Process(target=fn, args=args, daemon=True)
    process.start()
    return process


def ended(process: Any) -> None:
    """It ends by itself, and well."""
    process.join(SOON)
    assert process.exitcode == 0, process
    process.close()


def killed(process: Any) -> None:
    process.kill()
    process.join(SOON)
    process.close()


@contextmanager
def workers(fn: Callable[..., Any], count: int, *args: Any) -> Iterator[list[Any]]:
    """So many forked processes that run `fn(*args)`; killed in the end."""
    found = [start("fork", fn, *args) for _ in range(count)]
    try:
        yield found
    finally:
        for process in found:
            killed(process)


# ----------------------------------------------------------------- killed at each line
def at_each_line(step: Callable[[], object], every: int = 1) -> Iterator[int]:
    """Fork a process for each line of `chanlib.processes` that `step()` comes by, in which it is killed there.

    Or for `every` so many lines.

    Yields after each death; last of all 0, after one that came to its end.
    """
    line = 1
    while _forked(step, line) == -signal.SIGKILL:
        yield line
        line += every
    assert line > 10, line  # else it traces nothing
    yield 0


def _forked(step: Callable[[], object], line: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            _trace_until(line)
            step()
            sys.settrace(None)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"in a forked process: {error!r}\n".encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code


def _trace_until(line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if "chanlib/processes" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def at_random(process: Any, longest: float, pick: Callable[[float, float], float]) -> None:
    """Kill it at some moment."""
    time.sleep(pick(0.0, longest))
    killed(process)


# ----------------------------------------------------------------- what processes run
def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def answer(go: ProcessEvent, back: ProcessEvent) -> None:
    """Wait for the one, then set the other."""
    go.wait().sync(SOON)
    back.set()


def answer_on_a_loop(go: ProcessEvent, back: ProcessEvent) -> None:
    async def main() -> None:
        await go
        back.set()

    asyncio.run(main())


def fetch_and_set(channel: ProcessReceiver[Any]) -> None:
    """The event has come through a channel."""
    with channel:
        channel.receive().sync(SOON).set()


def rounds(gos: list[ProcessEvent], acks: ProcessSemaphore, count: int) -> None:
    for number in range(count):
        gos[number % 2].wait().sync(SOON)
        acks.release()


def feel_pulses(
    event: ProcessEvent, begin: ProcessSemaphore, ready: ProcessSemaphore, felt: ProcessSemaphore, count: int
) -> None:
    async def main() -> None:
        for _ in range(count):
            await begin.acquire()
            task = asyncio.create_task(event.wait())
            while not event.statistics().waiting:
                await asyncio.sleep(0)
            ready.release()
            await task
            felt.release()

    asyncio.run(main())


def flip(event: ProcessEvent) -> None:
    while True:
        event.set()
        event.clear()


def take_turns(semaphore: ProcessSemaphore, units: int) -> None:
    while True:
        semaphore.acquire(units).sync()
        semaphore.release(units)


def hold(semaphore: ProcessSemaphore, units: int, held: ProcessEvent) -> None:
    """Until killed."""
    semaphore.acquire(units).sync(SOON)
    held.set()
    time.sleep(600)


def hold_and_end(semaphore: ProcessSemaphore, units: int) -> None:
    semaphore.acquire(units).sync(SOON)


def count_up(semaphore: ProcessSemaphore, path: str, times: int) -> None:
    """Add to the number in a file, so many times; without turns some would be lost."""
    for _ in range(times):
        with semaphore, open(path, "r+") as file:
            number = int(file.read())
            file.seek(0)
            file.write(str(number + 1))


def signal_twice(semaphore: ProcessSemaphore) -> None:
    semaphore.release()
    semaphore.release()


def double(question: ProcessFuture[Any], answer: ProcessPromise[Any]) -> None:
    answer.set_result(question.result(SOON) * 2)


def raise_into(promise: ProcessPromise[Any]) -> None:
    try:
        raise LookupError("not here")
    except LookupError as error:
        promise.set_exception(error)


def sit_on(promise: Any, ready: ProcessEvent) -> None:
    ready.set()
    time.sleep(600)


def drop(promise: ProcessPromise[Any], go: ProcessEvent) -> None:
    go.wait().sync(SOON)
    promise.close()


def race_to_set(future: ProcessFuture[Any], go: ProcessEvent, wins: ProcessSemaphore, value: int) -> None:
    from chanlib import InvalidStateError

    go.wait().sync(SOON)
    try:
        future.set_result(value)
    except InvalidStateError:
        return
    wins.release()


def report_result(future: ProcessFuture[Any], right: ProcessSemaphore, expected: Any) -> None:
    if future.result(SOON) == expected:
        right.release()


def settle_for_good(future: ProcessFuture[Any]) -> bool:
    future.set_result("by an executor")
    return True


def set_event(event: ProcessEvent) -> bool:
    event.set()
    return True


def take_one(semaphore: ProcessSemaphore) -> int:
    with semaphore:
        return semaphore.value
