"""Who runs where: the sides of a channel, and how their loops are started, waited for and timed.

A side has a left (whoever sends first) and a right. Both live in one loop, or a thread and a loop share the work, or
two loops in two threads, or threads alone; or the left is another process. `run` builds a plan there, in the loop if
there is one, and gives the seconds from the start of the first job to the end of the last. A job that fails ends the
run with its error: what still waits elsewhere is left behind in threads that no exit waits for, and in processes that
every exit ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple

from .processes import start_together

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
        needed = {"uvloop", "trio"} & {self.left, self.right}
        return next((f"{library} is not installed" for library in needed if find_spec(library) is None), None)


SIDES = [
    Side("asyncio", "asyncio", "asyncio", True, "tasks of one asyncio loop"),
    Side("uvloop", "uvloop", "uvloop", True, "tasks of one uvloop loop"),
    Side("trio", "trio", "trio", True, "tasks of one trio run"),
    Side("thread-thread", "threads", "threads", False, "threads"),
    Side("thread-to-asyncio", "threads", "asyncio", False, "from threads to tasks of an asyncio loop"),
    Side("asyncio-to-thread", "asyncio", "threads", False, "from tasks of an asyncio loop to threads"),
    Side("loop-to-loop", "asyncio", "asyncio", False, "from one asyncio loop to another, in two threads"),
    Side("process-thread", "process", "threads", False, "between another process and a thread"),
    Side("process-asyncio", "process", "asyncio", False, "between another process and an asyncio loop"),
    Side("process-trio", "process", "trio", False, "between another process and a trio run"),
]


class Plan(NamedTuple):
    """What is to be done on the left and on the right."""

    left: list[Any]  # jobs, or what `start_together` takes, if the left is a process
    right: list[Job]
    handed: list[Any]  # ends that belong to other processes, once these have started


def run(side: Side, build: Callable[[], Plan]) -> float:
    """The seconds that the jobs of a plan took there."""
    if "trio" in (side.left, side.right):
        return _trio(side, build)
    if side.together or side.loops:
        with asyncio.Runner(loop_factory=_loop_factory(side)) as runner:
            return runner.run(_on_loop(side, build))
    plan = build()
    start = perf_counter()
    threads = [in_thread(job) for job in plan.right + _elsewhere(side, plan)]
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
    elif side.left in ("threads", "process"):
        here, elsewhere = plan.right, _elsewhere(side, plan)
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


def _trio(side: Side, build: Callable[[], Plan]) -> float:
    import trio

    async def main() -> float:
        plan = build()
        start = perf_counter()
        async with trio.open_nursery() as nursery:
            for job in plan.right if side.left == "process" else plan.left + plan.right:
                nursery.start_soon(job)
            for job in _elsewhere(side, plan) if side.left == "process" else ():
                nursery.start_soon(partial(trio.to_thread.run_sync, job, abandon_on_cancel=True))
        return perf_counter() - start

    return trio.run(main)


def _elsewhere(side: Side, plan: Plan) -> list[Job]:
    """What threads do for the left. Processes begin at once, and threads wait for their end."""
    if side.left != "process":
        return plan.left
    children = start_together(plan.left)
    for end in plan.handed:
        end.close()
    return [child.wait for child in children]


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
