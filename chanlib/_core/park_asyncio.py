"""Parking an asyncio task: one future of its loop per wait, created before the waiter is published.

On the loop's own thread, inside a task step, a wake sets the future at once. From anywhere else, a callback or a
signal handler on that thread included, it goes through the loop's mailbox.

The error that the task was cancelled with is raised again as the very same object: anyio tells its own
cancellations by it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from typing import Any

from .engine import Op, Waiter
from .lane import current_task, lanes, running_loop
from .mailbox import Mailbox, Watch

__all__ = ["AsyncioWaiter"]

_CAN_REARM = sys.version_info >= (3, 13)  # before, `uncancel` leaves a stray cancellation behind


class AsyncioWaiter(Waiter):
    __slots__ = ("future", "loop", "mailbox")

    def __init__(self, op: Op[Any]) -> None:
        Waiter.__init__(self, op)
        loop = running_loop()
        assert loop is not None
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        lane = lanes.lane
        mailbox = lane.loop_box
        if mailbox is None or mailbox.home is not loop:
            mailbox = lane.loop_box = Mailbox(loop, loop.call_soon_threadsafe)
        self.mailbox = mailbox

    def park(self) -> Generator[Any, Any, None]:
        if self.until is None and self.fds is None:
            return self.future.__await__()
        return self._park_watching()

    def _park_watching(self) -> Generator[Any, Any, None]:
        loop, until = self.loop, self.until
        handle = loop.call_later(until, self.resume) if until is not None and until < 1e9 else None
        watches = [LoopWatch.join(self.mailbox, fd, writing, self) for fd, writing in self.fds or ()]
        try:
            yield from self.future.__await__()
        finally:
            if handle is not None:
                handle.cancel()
            for watch in watches:
                watch.leave(self)

    def wake(self) -> None:
        loop = self.loop
        if running_loop() is loop and current_task(loop) is not None:
            if not self.future.done():
                self.future.set_result(None)
        else:
            self.mailbox.put(self)

    def resume(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def keep(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            if _in_cancelled_scope():
                return True  # the scope cancels again at the next operation
            task = current_task(self.loop)
            if _CAN_REARM and task is not None and task.cancelling():
                task.uncancel()
                task.cancel(*error.args)
                return True
        return super().keep(error)


def _in_cancelled_scope() -> bool:
    if "anyio._backends._asyncio" not in sys.modules:
        return False  # then no scope can exist
    import anyio

    return anyio.current_effective_deadline() == -float("inf")


class LoopWatch(Watch):
    """A descriptor watched by an asyncio loop, level-triggered."""

    __slots__ = ()

    def open(self) -> None:
        loop = self.home.home
        (loop.add_writer if self.writing else loop.add_reader)(self.fd, self.ready)

    def close(self) -> None:
        loop = self.home.home
        (loop.remove_writer if self.writing else loop.remove_reader)(self.fd)
        self.forget()
