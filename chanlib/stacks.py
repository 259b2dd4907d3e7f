"""The stacks of all threads, seen from outside while the threads run on.

With a GIL a frame of another thread can be read at any moment; what is read is true for some moment. On a free-threaded
interpreter to read the locals of a frame that another thread executes may crash (Python's own documentation of free
threading says so), so there only the stack of the calling thread is looked at.

Nothing here waits, and no lock is taken that somebody may hold: the names of threads are read past the lock of
`threading`, which a signal handler may find taken.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from _thread import get_ident
from types import CodeType, FrameType
from typing import Any, cast

from ._core.backend_threads import in_thread
from ._core.engine import Op, Waiter
from ._core.lane import modules
from .children import Job

__all__ = ["PARKING", "Stacks", "gil", "inner_code", "of_a_library", "parked_in", "place", "thread_name"]

PARKING: CodeType = cast(Any, Op)._wait.__code__
"""Whoever waits in an operation has a frame of this code."""


def gil() -> bool:
    """May frames and coroutines that another thread executes be read?"""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())


def inner_code(outer: CodeType, name: str) -> CodeType:
    """The code of the function `name` that is defined in another."""
    return next(code for code in outer.co_consts if isinstance(code, CodeType) and code.co_name == name)


_CHILD = inner_code(in_thread.__code__, "live")
_JOB: CodeType = Job.run.__code__


class Stacks:
    """The stacks at the moment when it is made, each from its innermost frame on."""

    def __init__(self) -> None:
        frames: dict[int, FrameType] = sys._current_frames() if gil() else {}
        frames[get_ident()] = sys._getframe(1)
        self.stacks: dict[int, list[FrameType]] = {}
        self._where: dict[int, tuple[int, int]] = {}  # a frame's id: its thread, and its place in the stack
        for thread, innermost in frames.items():
            stack = self.stacks[thread] = _up(innermost)
            for depth, frame in enumerate(stack):
                self._where[id(frame)] = (thread, depth)

    def inside(self, frame: FrameType | None) -> list[FrameType]:
        """What this frame has called, and itself, the innermost first; nothing if no thread executes it."""
        thread, depth = self._where.get(id(frame), (0, -1))
        return self.stacks[thread][: depth + 1] if depth >= 0 else []

    def inside_job(self, job: Job) -> list[FrameType]:
        """As `inside`, for a thread that is attended by a task."""
        for stack in self.stacks.values():
            for frame in stack:
                if frame.f_code is _JOB and frame.f_locals.get("self") is job:
                    return self.inside(frame)[:-1]
        return []

    def thread_of(self, inside: list[FrameType]) -> int | None:
        """Which thread executes these frames."""
        return self._where.get(id(inside[0]), (None, 0))[0] if inside else None

    def foreign(self) -> list[tuple[str, list[FrameType], bool]]:
        """Threads that no running child owns: name, stack, and whether it is one that its group has given up."""
        found: list[tuple[str, list[FrameType], bool]] = []
        for thread, stack in self.stacks.items():
            job = next((f.f_locals.get("self") for f in stack if f.f_code is _JOB), None)
            given_up = isinstance(job, Job) and job.abandoned
            if given_up or not any(frame.f_code is _CHILD for frame in stack):
                found.append((thread_name(thread), stack, given_up))
        return sorted(found, key=lambda one: one[0])

    def loops(self) -> dict[Any, int]:
        """The loops of asyncio that run now, and trio's runners, each with its thread."""
        found: dict[Any, int] = {}
        trio: Any = modules.get("trio")
        run = getattr(getattr(trio, "run", None), "__code__", None)
        for thread, stack in self.stacks.items():
            for frame in stack:
                home: Any = None
                if frame.f_code is _RUN_FOREVER:
                    home = frame.f_locals.get("self")
                elif frame.f_code is _RUNNER:  # of a loop that is not written in Python
                    home = getattr(frame.f_locals.get("self"), "_loop", None)
                elif run is not None and frame.f_code is run:
                    home = frame.f_locals.get("runner")
                if home is not None:
                    found.setdefault(home, thread)
        return found


_RUN_FOREVER: CodeType = asyncio.BaseEventLoop.run_forever.__code__
_RUNNER: CodeType = asyncio.Runner.run.__code__


def parked_in(stack: list[FrameType]) -> Waiter | None:
    """The operation that the thread of this stack waits in."""
    for frame in stack:
        if frame.f_code is PARKING:
            waiter = frame.f_locals.get("waiter")
            return waiter if isinstance(waiter, Waiter) and hasattr(waiter, "since") else None
    return None


def thread_name(thread: int) -> str:
    found: Any = vars(threading).get("_active", {}).get(thread)
    return str(found.name) if found is not None else f"thread {thread}"


def _up(frame: FrameType | None) -> list[FrameType]:
    found: list[FrameType] = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


# ------------------------------------------------------------- naming a place in a program
_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_DEMO = os.path.join(_OWN, "demo", "")
_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep


def of_a_library(file: str, own: bool = False) -> bool:
    """Is this file part of what makes programs wait, and not of a program? With `own`: of this library?"""
    if file.startswith(_OWN):
        return not file.startswith(_DEMO)
    if own:
        return False
    if file.startswith((_ASYNCIO, "<frozen")) or file == threading.__file__:
        return True
    for name in ("trio", "anyio", "outcome"):
        path = getattr(modules.get(name), "__file__", None)
        if path is not None and file.startswith(os.path.dirname(path) + os.sep):
            return True
    return False


def place(code: CodeType, line: int | None) -> str:
    """A place for people to read, and for terminals to open."""
    return f"{code.co_qualname} ({code.co_filename}:{line if line is not None else code.co_firstlineno})"
