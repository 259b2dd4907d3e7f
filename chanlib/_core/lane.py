"""What one thread knows about itself: in which world it runs, and how much of its turn is left.

Worlds are asked for in this order: a task of asyncio, a task of trio, a coroutine that this thread drives
(the threads backend), a callback on the thread of an event loop, a plain thread.

The budget is tokio's "coop": at most `BUDGET` awaited operations of one thread complete without giving its loop a
turn, over however many channels. A turn means that control goes back to the loop, which then steps what else is
ready. It is given *before* an operation, so that a cancellation which arrives there means "not done". Inside trio
every operation looks for a cancelled scope first, as trio's rules ask for. On asyncio the scopes of anyio are felt at
the next turn; a scope of our own that is cancelled tells the lane (`warn`), and until it has been left every operation
looks. A thread inside scopes (`Lane.token`) looks at every operation, too.

trio is never imported from here. It is bound once the program has imported it, and each thread is told the
next time it performs an operation.

Invariants:
- a `Lane` belongs to one thread; only that thread touches it.
- an operation that is not to look has `left` > 0; whoever must look each time keeps `left` at 0 and counts the turn
  in `rest`.
- `lane.trio` is trio's own per-thread dictionary: it holds "runner" while a run is active on this thread and
  "task" while one of its tasks is executing. It is empty where there is no trio.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
import math
import os
import sys
import threading
import weakref
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Generator
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque

    from .mailbox import Letter, Mailbox
    from .park_asyncio import LoopBox
    from .park_threads import ThreadWaiter
    from .tokens import Token

__all__ = [
    "BUDGET",
    "Lane",
    "World",
    "current_task",
    "gate",
    "in_cancelled_scope",
    "lanes",
    "refuse_loop",
    "running_loop",
    "scoped",
    "set_strict_checkpoints",
    "trio_module",
    "turn",
    "world",
]

BUDGET = 128
modules = sys.modules

if sys.version_info >= (3, 12):
    from asyncio import current_task
else:  # written in Python up to 3.11: five times the price of the dictionary behind it
    current_task: Callable[[Any], asyncio.Task[Any] | None] = vars(asyncio.tasks)["_current_tasks"].get


class World(enum.Enum):
    """Where a piece of code runs, as far as waiting is concerned."""

    ASYNCIO = "an asyncio task"
    TRIO = "a trio task"
    DRIVEN = "a coroutine driven by its thread"
    CALLBACK = "a callback on the thread of an event loop"
    PLAIN = "a plain thread"

    __hash__ = object.__hash__  # Enum's own is written in Python


class Lane:
    """One thread, as this library sees it."""

    __slots__ = (
        "alarms",
        "bound",
        "dead",
        "driving",
        "guard",
        "left",
        "loop_box",
        "parked",
        "rest",
        "run_box",
        "token",
        "trio",
        "turned",
    )

    def __init__(self) -> None:
        self.left = BUDGET
        self.trio: dict[str, Any] = {}
        self.bound = False  # is `trio` trio's own dictionary?
        self.turned = False  # has a task given the loop a turn since this was cleared?
        self.driving = False  # does this thread drive a coroutine, or wait in `sync()`?
        # held weakly: the last box of a thread must not keep its loop alive; whoever is parked holds it
        self.loop_box: weakref.ref[LoopBox] | None = None
        self.run_box: weakref.ref[Mailbox] | None = None
        self.dead: deque[Letter] | None = None  # letters being buried by this thread
        # cancellation
        self.rest = BUDGET  # what is left of the turn while every operation has to look
        self.alarms = 0  # cancelled scopes of our own in which tasks of this thread's loop still are
        self.token: Token | None = None  # the innermost scope this thread is in, while it runs no loop
        self.guard = threading.RLock()  # of `parked`, so that a canceller either finds it or is seen by it
        self.parked: ThreadWaiter | None = None  # who is to look when a scope of this thread changes

    def refill(self, spent: int = 0) -> None:
        """A new turn has begun, `spent` operations of it are used up."""
        self.rest = BUDGET - spent if not _strict else 0
        self.left = 0 if self.alarms or self.token is not None else self.rest

    def warn(self, change: int) -> None:
        """One more scope of this thread's loop, or one less (-1), is cancelled and not left yet."""
        if self.left:
            self.rest = self.left
        self.alarms += change
        self.left = 0 if self.alarms else self.rest

    def enter(self, token: Token) -> None:
        """`token` is now the innermost scope that this thread is in. An interrupt comes before that or after."""
        scoped.add(self)
        self.token = token
        self.left = 0

    def leave(self, token: Token | None) -> None:
        """Back to `token`."""
        self.token = token
        if token is None:
            scoped.discard(self)
            self.refill()


scoped: set[Lane] = set()
"""The threads that are in a scope: empty is quickly seen."""


class _Lanes(threading.local):
    def __init__(self) -> None:
        self.lane = Lane()


lanes = _Lanes()
_trio: ModuleType | None = None
_context: threading.local | None = None
_strict = False


def trio_module() -> ModuleType | None:
    """trio, if the program has imported it."""
    global _trio, _context
    if _trio is None:
        trio = modules.get("trio")
        if trio is None or not hasattr(trio, "lowlevel"):  # absent, or half imported
            return None
        try:
            _context = importlib.import_module("trio._core._run").GLOBAL_RUN_CONTEXT
        except (ImportError, AttributeError):
            _context = None  # the public functions serve as well, more slowly
        _trio = trio
    return _trio


class _PublicContext(dict[str, Any]):
    """Stands in for trio's per-thread dictionary where that cannot be had: asks trio each time."""

    def __bool__(self) -> bool:
        return bool(_trio is not None and _trio.lowlevel.in_trio_run())

    def get(self, key: str, default: Any = None) -> Any:
        assert _trio is not None
        if key == "task" and _trio.lowlevel.in_trio_task():
            return _trio.lowlevel.current_task()
        if key == "runner" and _trio.lowlevel.in_trio_run():
            return _trio.lowlevel.current_trio_token()
        return default


def _trio_cancelled(task: Any) -> bool:
    """Is this trio task, which is executing, in a cancelled scope?"""
    try:
        return bool(task._cancel_status.effectively_cancelled)
    except AttributeError:  # trio's own; the public way walks all scopes
        assert _trio is not None
        return bool(_trio.current_effective_deadline() == -float("inf"))


def _bind(lane: Lane) -> None:
    if trio_module() is not None:
        lane.trio = vars(_context) if _context is not None else _PublicContext()
        lane.bound = True


def world(lane: Lane) -> World:
    """Where the calling code runs."""
    loop = running_loop()
    if loop is not None and current_task(loop) is not None:
        if lane.trio and lane.trio.get("task") is not None:
            return _inner()
        return World.ASYNCIO
    if not lane.bound:
        _bind(lane)
    if lane.trio.get("task") is not None:
        return World.TRIO
    if lane.driving:
        return World.DRIVEN
    if loop is not None or lane.trio.get("runner") is not None:
        return World.CALLBACK
    return World.PLAIN


def _inner() -> World:
    """A task of asyncio and one of trio are both executing, one inside `run` of the other: whose frame is nearer?"""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "trio._core._run":
            return World.TRIO
        if module.startswith(("asyncio.", "uvloop")):
            return World.ASYNCIO
        frame = frame.f_back
    return World.ASYNCIO


def refuse_loop(lane: Lane, what: str) -> None:
    """Blocking here would stop an event loop: say so, whether or not the operation would have to wait."""
    if running_loop() is None:
        if not lane.bound:
            _bind(lane)
        if lane.trio.get("runner") is None:
            return
        kind = "trio"
    else:
        kind = "asyncio"
    raise RuntimeError(
        f"{what} would block the thread of a running {kind} loop; "
        "write `await op` in a task (`async for` in place of `for`), or `op.poll()` in a callback"
    )


def set_strict_checkpoints(on: bool) -> bool:
    """Make every awaited operation a checkpoint of its loop (trio's own rule); returns what held before.

    Off, the default, an operation that need not wait gives the loop a turn once in `BUDGET`. Holds for the
    whole process: at once for the calling thread, for others within `BUDGET` operations.
    """
    global _strict
    before, _strict = _strict, bool(on)
    lanes.lane.refill()
    return before


def gate(lane: Lane) -> bool:
    """The slow half of the budget: must the loop be given a turn (or a cancellation be felt) first?

    On a thread that is in a cancelled scope it raises `Cancelled`.
    """
    if not lane.bound:
        _bind(lane)
    elif lane.left and not lane.trio:  # trio is loaded, but not at work on this thread
        lane.left -= 1
        return False
    task = lane.trio.get("task")
    if (task is not None and running_loop() is None) or (here := world(lane)) is World.TRIO:
        if _trio_cancelled(task):
            return True
    elif here is not World.ASYNCIO:
        # the operating system preempts threads; a callback cannot wait at all
        lane.refill()
        if lane.token is not None and here is not World.CALLBACK:
            lane.token.check()
        return False
    elif lane.alarms and in_cancelled_scope():
        return True
    if _strict:
        return True
    if lane.alarms:
        lane.rest -= 1
        return lane.rest < 0
    if not lane.left:
        return True
    lane.left -= 1
    return False


def in_cancelled_scope() -> bool:
    """Is the asyncio task that is executing in a cancelled scope of anyio's, which ours are too?"""
    import anyio

    return anyio.current_effective_deadline() == -math.inf


def turn(lane: Lane) -> Generator[Any, Any, None]:
    """Give the loop of this task one turn."""
    lane.turned = True
    lane.refill(spent=1)  # the operation that follows is the first of the new turn
    if world(lane) is World.ASYNCIO:
        yield
    else:
        assert _trio is not None
        yield from _trio.lowlevel.checkpoint().__await__()


def _after_fork_in_child() -> None:
    lane = lanes.lane
    scoped.intersection_update({lane})  # the other threads live in the parent
    lane.guard = threading.RLock()  # one of them may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
