"""Parking a trio task: `wait_task_rescheduled`, with an abort that has to win the claim.

trio reschedules a task exactly once. `parked` is the licence to do so: it is set on trio's thread just before
the task traps, and taken away, also there, by whoever reschedules or aborts. A wake from another thread, or one
on trio's thread that is not inside a task step of another task, goes through the mailbox of the run.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Generator
from typing import Any

import outcome
import trio

from .engine import Op, Reentered, Waiter
from .lane import lanes
from .mailbox import Mailbox, Watch

__all__ = ["TrioWaiter"]


class TrioWaiter(Waiter):
    __slots__ = ("mailbox", "parked", "task")

    task: Any  # None once it goes on: a tombstone must not keep its context alive

    def __init__(self, op: Op[Any]) -> None:
        Waiter.__init__(self, op)
        lane = lanes.lane
        self.task = trio.lowlevel.current_task()
        self.parked = False
        runner = lane.trio.get("runner")
        mailbox = None if lane.run_box is None else lane.run_box()
        if mailbox is None or mailbox.home is not runner:
            mailbox = Mailbox(runner, trio.lowlevel.current_trio_token().run_sync_soon)
            lane.run_box = weakref.ref(mailbox)
        self.mailbox = mailbox

    def park(self) -> Generator[Any, Any, None]:
        if self.until is None and self.fds is None:
            self.parked = True
            return trio.lowlevel.wait_task_rescheduled(self.abort).__await__()
        return self._park_watching()

    def _park_watching(self) -> Generator[Any, Any, None]:
        until = math.inf if self.until is None else self.until
        watches: list[RunWatch] = []
        try:
            for fd, writing in self.fds or ():
                watches.append(RunWatch.join(self.mailbox, fd, writing, self))
            with trio.CancelScope(deadline=trio.current_time() + until) as scope:

                def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
                    if not scope.cancel_called:
                        return self.abort(raise_cancel)
                    self.resume()  # by its own time limit: no error, whose traceback trio would keep for a while
                    return trio.lowlevel.Abort.FAILED

                self.parked = True
                yield from trio.lowlevel.wait_task_rescheduled(abort).__await__()
            for watch in watches:
                if watch.error is not None:
                    raise watch.error
        finally:
            for watch in watches:
                watch.leave(self)

    def abort(self, raise_cancel: Any) -> trio.lowlevel.Abort:
        try:
            if self._retracted():
                self.parked = False
                self.task = None
                return trio.lowlevel.Abort.SUCCEEDED
        except Reentered as error:  # cancelled by a finalizer in the middle of an operation on this source
            error.source._defer(lambda: self._abort_late(raise_cancel))
        return trio.lowlevel.Abort.FAILED  # a peer has committed: its wake is on the way

    def _retracted(self) -> bool:
        op = self.op
        return op is None or bool(op._retract(self))

    def _abort_late(self, raise_cancel: Any) -> None:
        if self._retracted() and self.parked:
            self.parked = False
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task, outcome.capture(raise_cancel))

    def wake(self) -> None:
        context = lanes.lane.trio
        task = context.get("task")
        if task is not None and task is not self.task and context.get("runner") is self.mailbox.home:
            self.resume()
        else:
            self.mailbox.put(self)

    def resume(self) -> None:
        if self.parked:
            self.parked = False
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)

    def lost(self) -> None:
        super().lost()
        self.task = None


class RunWatch(Watch):
    """A descriptor watched by a system task of the run, for as long as somebody waits for it.

    The task may be told to stop and find that somebody has joined before it could: then it goes on.
    """

    __slots__ = ("error", "scope")

    error: Exception | None
    scope: trio.CancelScope

    def open(self) -> None:
        self.error = None
        self.scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._run)

    def close(self) -> None:
        self.scope.cancel()

    async def _run(self) -> None:
        wait = trio.lowlevel.wait_writable if self.writing else trio.lowlevel.wait_readable
        while self.waiters and self.error is None:
            with self.scope:
                while self.waiters:
                    try:
                        await wait(self.fd)
                    except Exception as error:  # not for trio to wait for, closed, or waited for by another
                        self.error = error
                        self.ready()  # each of them raises it
                        break
                    self.ready()
            self.scope = trio.CancelScope()
        self.forget()
