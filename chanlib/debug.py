"""What runs in this process, and what it waits on: `tree()`, for logs, signal handlers, debuggers and tests.

    print(tree())

    asyncio loop in MainThread
      TaskGroup 'fetch' open, 3 children
        task 'worker' running: receive on Channel 'jobs' (0/16), 3.2 s
        task 'writer' queued
        thread 'hash' running: send to Channel 'lines' (16/16), 0.1 s
          TaskGroup 'parts' open on threads, 1 child
            thread 'part' running: in part (/home/me/hash.py:12)
      task 'main' (no group): the last child of TaskGroup 'fetch' (open, 3 children) to end
    thread 'Thread-3' (not ours): receive on Channel 'jobs' (0/16), 12.0 s

In debug mode (`python -X dev`, or `CHANLIB_DEBUG=1` in the environment when chanlib is imported) channels, groups and
children also remember where they were made, and the tree shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import IO, Any, Literal

from ._core.engine import Waiter
from ._core.lane import Lane
from ._core.origins import origin
from ._core.park_threads import ThreadWaiter
from ._core.tokens import Token
from .children import Job, attend
from .groups import TaskGroup, entered
from .handles import TaskHandle
from .homes import Home, homes
from .stacks import Stacks, gil, inner_code, parked_in
from .waits import Chain, Wait, among, wait_of, where_in

__all__ = ["Node", "Tree", "Wait", "print_tree", "tree"]

_LIVES: set[CodeType] = {TaskGroup._live.__code__, inner_code(TaskGroup.start.__code__, "live")}
"""A task that runs one of these is a child of a group."""

_OUTSIDE = ("no group", "not ours", "given up")


@dataclass(frozen=True)
class Node:
    """A loop, a group, a task or a thread, and what is below it.

    `state` is, for a loop, the thread it runs in; for a group "open", with "cancelled" if it is; for a child that of
    its handle; "no group" for other tasks, "not ours" for other threads, and "given up" for one that was abandoned.
    `made_at` is known in debug mode only.
    """

    kind: Literal["loop", "group", "task", "thread"]
    name: str
    state: str
    wait: Wait | None = None
    made_at: str | None = None
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, from above."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> Iterator[str]:
        name = self.name if self.name.startswith("#") else repr(self.name)
        if self.kind == "loop":
            line = f"{self.name} loop {self.state}".rstrip()
        elif self.kind == "group":
            count = len(self.children)
            line = f"TaskGroup {name} {self.state}, {count} {'child' if count == 1 else 'children'}"
        elif self.state in _OUTSIDE:
            line = f"{self.kind} {name} ({self.state})"
        else:
            line = f"{self.kind} {name} {self.state}"
        if self.wait is not None:
            line += f": {self.wait}"
        if self.made_at is not None:
            line += f" [made at {self.made_at}]"
        yield indent + line
        for child in self.children:
            yield from child._lines(indent + "  ")


@dataclass(frozen=True)
class Tree:
    """What `tree()` has seen: plain data, which does not change any more. As text, one line per node."""

    nodes: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """All nodes, each before those below it."""
        for node in self.nodes:
            yield from node.walk()

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes)) or "nothing runs, nobody waits"


def tree() -> Tree:
    """Every group, task and thread of this process that is known, and what each waits on.

    It may be called from anywhere: tasks, threads, callbacks, signal handlers, debuggers. It never blocks, takes no
    lock that operations use, and does not stop the others: while they run on, what it shows of each was true at some
    moment, not all at the same one. It never raises because something changed meanwhile.

    Covered are all groups that are open, with their children in whatever world; tasks outside of groups that wait in an
    operation, or for a group to end, of each loop that runs, or that has a group; and threads that no group has
    started, if they wait in an operation. Of a child that waits for something foreign (a socket, `asyncio.sleep`) you
    see the function and the line.

    On a free-threaded interpreter the stacks and coroutines of other threads cannot be read safely while they run.
    There the tree lacks threads that are not ours, loops of other threads without a group, and line numbers (the first
    line of a function stands for all) in other threads.

    The tree holds on to what is waited for (`Wait.on`), not to tasks or values. Source of the idea: Go's goroutine
    dump.

        signal.signal(signal.SIGUSR1, lambda signum, frame: print_tree())  # then: kill -USR1 <pid>
    """
    return Tree(_Looked(Stacks()).nodes())


def print_tree(file: IO[str] | None = None) -> None:
    """Print `tree()` to `file`, by default to `sys.stderr`. Works in a signal handler that has interrupted a print."""
    out: IO[str] | None = sys.stderr if file is None else file
    if out is None:  # a program without a console
        return
    text = f"{tree()}\n"
    try:
        out.write(text)
        out.flush()
    except RuntimeError:  # reentrant call
        os.write(out.fileno(), text.encode(errors="replace"))


class _Looked:
    """One look at everything."""

    def __init__(self, stacks: Stacks) -> None:
        self.stacks = stacks
        self.gil = gil()
        self.groups = sorted(entered, key=lambda group: group._number)
        self.children: dict[int, list[TaskHandle[Any]]] = {id(group): list(group._children) for group in self.groups}
        shown = {id(child) for children in self.children.values() for child in children}
        self.below: dict[int, list[TaskGroup]] = {}  # by the child that a group was entered in
        self.top: list[TaskGroup] = []
        for group in self.groups:
            parent = group._parent
            if parent is not None and id(parent) in shown:
                self.below.setdefault(id(parent), []).append(group)
            else:
                self.top.append(group)

        self.homes = homes(self.groups, stacks)
        self.nested: set[Home] = set()  # loops that are shown below the child whose thread runs them

    def nodes(self) -> tuple[Node, ...]:
        found: list[Node] = [self.group(group, None) for group in self.top if Home.of(group) is None]
        loops = [(home, self.loop(home)) for home in self.homes]
        found = [node for home, nodes in loops if home not in self.nested for node in nodes] + found
        for name, stack, given_up in self.stacks.foreign():
            wait = _sleeping(stack)
            if wait is not None:
                found.append(Node("thread", name, "given up" if given_up else "not ours", wait))
        return tuple(found)

    def loop(self, home: Home) -> list[Node]:
        below = (*(self.group(group, home) for group in self.top if home.has(group)), *self.tasks(home))
        return [Node("loop", home.name, home.state, children=below)] if below else []

    # ------------------------------------------------------------- groups
    def group(self, group: TaskGroup, around: Home | None) -> Node:
        home = Home.of(group)
        state = group._state if group._state != "ended" else "ending"
        if home != around:
            state += f" on {'threads' if home is None else home.name}"
        if group._scope._called is not None:
            state += ", cancelled"
        exact = self.gil or (home is not None and home.own)
        children = tuple(self.child(child, home, exact) for child in self.children[id(group)])
        name = group._name if group._name is not None else f"#{group._number}"
        return Node("group", str(name), state, None, origin(group), children)

    def child(self, child: TaskHandle[Any], home: Home | None, exact: bool) -> Node:
        try:
            return self.child_as_it_is(child, home, exact)
        except Exception as error:
            return Node("task", child.name, child._state, _unseen(error), origin(child))

    def child_as_it_is(self, child: TaskHandle[Any], home: Home | None, exact: bool) -> Node:
        coroutine, state = child._coroutine, child._state
        attended = getattr(coroutine, "cr_code", None) is attend.__code__
        kind: Literal["thread", "task"] = "thread" if attended or home is None else "task"
        wait: Wait | None = None
        below = [self.group(group, home) for group in self.below.get(id(child), ())]
        if state == "running" and coroutine is not None:
            if attended:
                wait = self.attended(coroutine)
            else:
                wait = self.awaited(child, coroutine, exact)
            loop = self.loop_in(coroutine, attended) if kind == "thread" else None
            if loop is not None and loop not in self.nested:
                self.nested.add(loop)
                below += self.loop(loop)
                wait = None
        return Node(kind, child.name, state, wait, origin(child), tuple(below))

    def loop_in(self, coroutine: Any, attended: bool) -> Home | None:
        """The loop that the thread of a child runs."""
        thread = self.stacks.thread_of(self.inside(coroutine, attended))
        return None if thread is None else next((home for home in self.homes if home.thread == thread), None)

    def inside(self, coroutine: Any, attended: bool) -> list[FrameType]:
        """What the thread of a child executes for it."""
        if not attended:
            return self.stacks.inside(getattr(coroutine, "cr_frame", None)) if self.gil else []
        jobs = among(coroutine, Job)
        return self.stacks.inside_job(jobs[0]) if jobs else []

    def awaited(self, child: TaskHandle[Any], coroutine: Any, exact: bool) -> Wait | None:
        chain = Chain(coroutine, self.stacks, exact)
        native = child._native  # None from one moment to the next
        if isinstance(native, Token):
            chain.waiter = _sleeps(native) or chain.waiter
        return chain.wait()

    def attended(self, coroutine: Any) -> Wait | None:
        """What the thread waits on that this coroutine waits for."""
        tokens, stack = among(coroutine, Token), self.inside(coroutine, True)
        where = where_in(stack)
        waiter = (_sleeps(tokens[0]) if tokens else None) or parked_in(stack)
        if waiter is not None and (found := wait_of(waiter, where)) is not None:
            return found
        return None if where is None else Wait(f"in {where}", where=where)

    # ------------------------------------------------------------- outside of groups
    def tasks(self, home: Home) -> list[Node]:
        found: list[Node] = []
        for name, coroutine in home.tasks():
            chain: Chain | None = None
            try:
                chain = Chain(coroutine, self.stacks, self.gil or home.own)
                wait = None if chain.codes & _LIVES else chain.wait()
            except Exception as error:
                wait = _unseen(error)
            if wait is not None and (wait.on or chain is None):
                found.append(Node("task", name, "no group", wait))
        return sorted(found, key=lambda node: node.name)


def _sleeping(stack: list[FrameType]) -> Wait | None:
    """What a thread waits on in which no task of a loop runs."""
    try:
        waiter = parked_in(stack)
        return wait_of(waiter, where_in(stack)) if isinstance(waiter, ThreadWaiter) else None
    except Exception as error:
        return _unseen(error)


def _unseen(error: Exception) -> Wait:
    """For whatever changes while it is looked at in a way that nobody has thought of: the rest is worth seeing."""
    return Wait(f"could not be seen: {error!r}")


def _sleeps(token: Token) -> Waiter | None:
    """The operation in which the thread that has entered `token` sleeps."""
    lane: Lane | None = token._lane
    return None if lane is None else lane.parked
