"""A cache of threads: a thread that has done its job waits a while for another one.

Starting a thread costs several times what waking one does. An idle thread sleeps on a lock of its own and ends after
`IDLE` seconds; it is a daemon, since whoever started its job waits for the job, not for the thread.
Source of the idea: trio's thread cache.

Invariant: a thread is in `_idle` only while it has no job. Whoever takes it out, itself when its time is over or a
`start` with a job, owns it: `list.pop` and `dict.pop` decide.
"""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock
from collections.abc import Callable
from contextvars import Context

from .unraisable import report

__all__ = ["IDLE", "idle_threads", "start"]

IDLE = 10.0  # seconds

_idle: dict[_Worker, None] = {}  # the youngest last


class _Worker:
    __slots__ = ("job", "lock", "thread")

    def __init__(self, job: Callable[[], object], name: str) -> None:
        self.job: Callable[[], object] | None = job
        self.lock = allocate_lock()
        self.lock.acquire()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        Context().run(self.thread.start)  # it may inherit a context, and is not to keep that of its first job

    def _work(self) -> None:
        while True:
            job, self.job = self.job, None
            assert job is not None
            try:
                job()
            except BaseException as error:  # a job is to see to its own errors
                report(error, "Error in a thread", job)
            del job
            self.thread.name = "chanlib idle"
            _idle[self] = None
            if not self.lock.acquire(True, IDLE):
                try:
                    del _idle[self]
                except KeyError:  # somebody has just taken us
                    self.lock.acquire()
                else:
                    return


def start(job: Callable[[], object], name: str) -> None:
    """Run `job()` in a thread called `name`."""
    try:
        worker, _ = _idle.popitem()
    except KeyError:
        _Worker(job, name)
        return
    worker.job = job
    worker.thread.name = name
    worker.lock.release()


def idle_threads() -> int:
    """How many threads wait for a job."""
    return len(_idle)


def _after_fork_in_child() -> None:
    _idle.clear()  # they live in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
