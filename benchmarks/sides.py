"""Who runs where: the sides of a channel, and how their loops are started, waited for and timed.

A side has a left (whoever sends first) and a right. Both live in one loop, or a thread and a loop share the work, or
two loops in two threads, or threads alone. `run` builds a plan there, in the loop if there is one, and gives the
seconds from the start of the first job to the end of the last. A job that fails ends the run with its error: what
still waits elsewhere is left behind in threads that no exit waits for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple

Job = Callable[[], Any]  # returns a coroutine where it is for a loop


class Side(NamedTuple):
    name: str
    left: str
    right: str
    together: bool  # in one loop
    text: str

    @property
    def loops(self) -> int:
        return 1 if self.together else (self.left, self.right).count("asyncio")

    @property
    def missing(self) -> str | None:
        """Why nothing runs there, or None."""
        library = {"uvloop": "uvloop", "trio": "trio"}.get(self.left, "asyncio")
        return None if find_spec(library) is not None else f"{library} is not installed"


SIDES = [
    Side("asyncio", "asyncio", "asyncio", True, "tasks of one asyncio loop"),
    Side("uvloop", "uvloop", "uvloop", True, "tasks of one uvloop loop"),
    Side("trio", "trio", "trio", True, "tasks of one trio run"),
    Side("thread-thread", "threads", "threads", False, "threads"),
    Side("thread-to-asyncio", "threads", "asyncio", False, "from threads to tasks of an asyncio loop"),
    Side("asyncio-to-thread", "asyncio", "threads", False, "from tasks of an asyncio loop to threads"),
    Side("loop-to-loop", "asyncio", "asyncio", False, "from one asyncio loop to another, in two threads"),
]


class Plan(NamedTuple):
    """What is to be done on the left and on the right."""

    left: list[Job]
    right: list[Job]


def run(side: Side, build: Callable[[], Plan]) -> float:
    """The seconds that the jobs of a plan took there."""
    if side.left == "trio":
        return _trio(build)
    if side.together or side.loops:
        with asyncio.Runner(loop_factory=_loop_factory(side)) as runner:
            return runner.run(_on_loop(side, build))
    plan = build()
    start = perf_counter()
    threads = [in_thread(job) for job in plan.right + plan.left]
    for done in wait(threads, return_when=FIRST_EXCEPTION).done:
        done.result()
    return perf_counter() - start


def run_main(side: Side, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What the coroutine returns, run in the loop of that side."""
    if side.left == "trio":
        return import_module("trio").run(main)
    with asyncio.Runner(loop_factory=_loop_factory(side)) as runner:
        return runner.run(main())


def _loop_factory(side: Side) -> Callable[[], asyncio.AbstractEventLoop] | None:
    return import_module("uvloop").new_event_loop if side.left == "uvloop" else None


async def _on_loop(side: Side, build: Callable[[], Plan]) -> float:
    plan = build()
    if side.together:
        here, elsewhere = plan.left + plan.right, []
    elif side.left == "threads":
        here, elsewhere = plan.right, plan.left
    elif side.right == "threads":
        here, elsewhere = plan.left, plan.right
    else:
        here, elsewhere = plan.right, [lambda: asyncio.run(_all(plan.left))]
    start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for job in elsewhere:
            group.create_task(_awaited(in_thread(job)))
        for job in here:
            group.create_task(job())
    return perf_counter() - start


async def _all(jobs: list[Job]) -> None:
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job())


async def _awaited(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)


def _trio(build: Callable[[], Plan]) -> float:
    import trio

    async def main() -> float:
        plan = build()
        start = perf_counter()
        async with trio.open_nursery() as nursery:
            for job in plan.left + plan.right:
                nursery.start_soon(job)
        return perf_counter() - start

    return trio.run(main)


def in_thread(job: Job) -> Future[Any]:
    """Its result. The thread is one that no exit waits for: a job whose peer failed may never end."""
    future: Future[Any] = Future()

    def body() -> None:
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    return future
