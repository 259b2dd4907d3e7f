"""The event loops of a process, as far as they can be known from outside, and their tasks.

A loop is known by a group that was entered in it, by the thread that asks, and by the stacks of other threads. trio is
looked at only if the program has imported it; from other threads through `Task` and `Nursery`, its public view.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from typing import Any

from ._core.lane import running_loop, trio_module
from .groups import TaskGroup
from .stacks import Stacks, thread_name

__all__ = ["Home", "homes"]


class Home:
    """One loop of asyncio, or one run of trio, which its root task stands for."""

    def __init__(self, loop: Any, name: str, thread: int | None = None) -> None:
        self.loop = loop
        self.name = name
        self.thread = thread

    @staticmethod
    def of(group: TaskGroup) -> Home | None:
        """Where a group was entered; None for a thread without a loop."""
        backend: Any = group._backend
        nursery: Any = group._nursery
        if backend.name == "asyncio":
            return _asyncio(backend.loop)
        if backend.name == "trio":
            return Home(_root(nursery.nursery.parent_task), "trio")
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Home) and self.loop is other.loop

    def __hash__(self) -> int:
        return id(self.loop)

    @property
    def own(self) -> bool:
        """Does it run in the thread that asks?"""
        return self.loop is running_loop() or (self.name == "trio" and self.loop is _own_run())

    @property
    def state(self) -> str:
        if self.name != "trio" and self.loop.is_closed():
            return "(closed)"
        return "" if self.thread is None else f"in {thread_name(self.thread)}"

    def has(self, group: TaskGroup) -> bool:
        return Home.of(group) == self

    def tasks(self) -> list[tuple[str, Any]]:
        """Its tasks: the name and the coroutine of each."""
        if self.name == "trio":
            return _tasks_below(self.loop)
        for _ in range(3):
            try:
                return [(task.get_name(), task.get_coro()) for task in asyncio.all_tasks(self.loop)]
            except RuntimeError:  # they changed while they were counted, in another thread
                pass
        return []


def homes(groups: list[TaskGroup], stacks: Stacks) -> list[Home]:
    """All loops that are known, each once; that of the calling thread first."""
    running = {_root_of(loop): thread for loop, thread in stacks.loops().items()}
    found: dict[Home, None] = {}
    for loop in (running_loop(), _own_run()):
        if loop is not None:
            running[loop] = get_ident()
            found[_home(loop)] = None
    for loop in running:
        if loop is not None:
            found[_home(loop)] = None
    for group in groups:
        home = Home.of(group)
        if home is not None:
            found[home] = None
    for home in found:
        home.thread = running.get(home.loop, getattr(home.loop, "_thread_id", None))
    return list(found)


def _home(loop: Any) -> Home:
    return _asyncio(loop) if isinstance(loop, asyncio.AbstractEventLoop) else Home(loop, "trio")


def _asyncio(loop: Any) -> Home:
    return Home(loop, "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio")


# ------------------------------------------------------------- trio
def _own_run() -> Any:
    """The root task of the run of trio in this thread."""
    trio = trio_module()
    if trio is None or not trio.lowlevel.in_trio_run():
        return None
    return trio.lowlevel.current_root_task()


def _root_of(loop: Any) -> Any:
    """What stands for a loop that `Stacks.loops` has found."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop
    task = getattr(loop, "main_task", None)
    return None if task is None else _root(task)


def _root(task: Any) -> Any:
    while (nursery := task.parent_nursery) is not None:
        task = nursery.parent_task
    return task


def _tasks_below(root: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    todo: list[Any] = [root]
    while todo:
        task = todo.pop()
        found.append((task.name, task.coro))
        for nursery in task.child_nurseries:
            try:
                todo += nursery.child_tasks
            except AttributeError:  # seen from another thread, half way made or half way closed
                pass
    return found
