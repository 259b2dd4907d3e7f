"""Parking an asyncio task, and running the woken ones from one callback of the loop.

A waiter speaks the protocol by which a task of asyncio waits for a future (`_asyncio_future_blocking`,
`add_done_callback`, `result`, `cancel`), which every loop understands, uvloop included. So it is ours to decide when
the task goes on: the tasks that have been woken, and those that they wake in turn, are stepped one after the other
from **one** `call_soon` (a trampoline), until the budget of the thread is spent. Then the loop has its turn.

On the loop's own thread, inside a task step, a wake makes the task ready at once. From anywhere else, a callback or
a signal handler on that thread included, it goes through the loop's mailbox.

`cancel` leaves the claim alone: the task is woken with the cancellation, and `Op._wait` finds out whether a peer had
committed. The error is raised again as the very same object: anyio tells its own cancellations by it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .engine import Op, Waiter
from .lane import current_task, in_cancelled_scope, lanes, running_loop
from .mailbox import Mailbox, Watch

__all__ = ["AsyncioWaiter", "set_trampoline"]

_CAN_REARM = sys.version_info >= (3, 13)  # before, `uncancel` leaves a stray cancellation behind
_trampoline = True


def set_trampoline(on: bool) -> bool:
    """Off, each woken task is a callback of its own, as with asyncio's futures; returns what held before."""
    global _trampoline
    before, _trampoline = _trampoline, bool(on)
    return before


class LoopBox(Mailbox):
    """The mailbox of one asyncio loop, and the tasks of that loop which are ready to go on."""

    __slots__ = ("posted_run", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, loop.call_soon_threadsafe)
        self.ready: deque[AsyncioWaiter] = deque()
        self.posted_run = False

    def step(self) -> None:
        """Step the tasks that are ready, and those they make ready, while the budget lasts."""
        try:
            self._step_all()
        finally:
            self.posted_run = False
            if self.ready:
                self.post_run()

    def _step_all(self) -> None:
        lane = lanes.lane
        ready = self.ready
        while ready:
            lane.turned = False
            ready[0].run()
            ready.popleft()
            if lane.turned:  # the task has used up the budget and waits for its own turn
                return
            if not lane.left:
                lane.refill()  # the loop gets a turn now
                return
            lane.left -= 1

    def post_run(self) -> None:
        try:
            self.posted_run = True
            self.home.call_soon(_Steps(self))
        except BaseException:
            self.posted_run = False
            raise

    def never_stepped(self) -> None:
        """The loop has dropped the callback: those who were ready go by mail, which a closed loop refuses."""
        self.posted_run = False
        while self.ready:
            waiter = self.ready.popleft()
            waiter.woken = False
            self.letters.append(waiter)
        if self.letters:
            self.send(last=True)


class _Steps:
    """The callback by which the loop steps the tasks that are ready; it notices when it is dropped instead."""

    __slots__ = ("box",)

    def __init__(self, box: LoopBox) -> None:
        self.box: LoopBox | None = box

    def __call__(self) -> None:
        box = self.box
        if box is not None:
            try:
                box.step()
            except BaseException:  # perhaps before `step` could see to it itself; posted twice does no harm
                self.box = None
                if box.ready:
                    box.post_run()
                raise
            self.box = None

    def __del__(self) -> None:
        box = getattr(self, "box", None)  # an interrupt may have come while it was made
        if box is not None:
            box.never_stepped()


class AsyncioWaiter(Waiter):
    __slots__ = (
        "_asyncio_future_blocking",
        "box",
        "callback",
        "context",
        "error",
        "loop",
        "native",
        "woken",
    )

    callback: Any  # what steps the task, once it waits, until it is stepped
    context: Any  # its contextvars.Context

    def __init__(self, op: Op[Any]) -> None:
        Waiter.__init__(self, op)
        loop = running_loop()
        assert loop is not None
        self.loop = loop
        lane = lanes.lane
        box = None if lane.loop_box is None else lane.loop_box()
        if box is None or box.home is not loop:
            box = LoopBox(loop)
            lane.loop_box = weakref.ref(box)
        self.box = box
        self._asyncio_future_blocking = True
        self.callback = self.context = None
        self.error: BaseException | None = None
        self.woken = False
        self.native = False  # has anybody but a scope of anyio cancelled the task?

    # ------------------------------------------------------------- waking
    def alive(self) -> bool:
        return not self.loop.is_closed()

    def park(self) -> Iterable[Any]:
        if self.until is None and self.fds is None:
            return (self,)
        return self._park_watching()

    def _park_watching(self) -> Iterator[Any]:
        loop, until = self.loop, self.until
        handle = None
        watches: list[LoopWatch] = []
        try:
            for fd, writing in self.fds or ():
                watches.append(LoopWatch.join(self.box, fd, writing, self))
            if until is not None and until < 1e9:
                handle = loop.call_later(until, self.resume)
            yield self
        finally:
            if handle is not None:
                handle.cancel()
            for watch in watches:
                watch.leave(self)

    def wake(self) -> None:
        loop = self.loop
        if running_loop() is loop and current_task(loop) is not None:
            self.resume()
        else:
            self.box.put(self)

    def resume(self) -> None:
        """On the loop's thread: make the task ready, once. Called again after an interrupt, it completes that."""
        if self.callback is None:  # not waiting yet, or stepped already
            self.woken = True
        elif _trampoline:
            box = self.box
            if not self.woken:
                box.ready.append(self)  # twice, should an interrupt come now, does no harm
                self.woken = True
            if not box.posted_run:
                box.post_run()
        elif not self.woken:
            self.loop.call_soon(self.run)
            self.woken = True

    def run(self) -> None:
        """Step the task."""
        callback, self.callback = self.callback, None  # a tombstone must not keep the task alive
        context, self.context = self.context, None
        if callback is not None:
            context.run(callback, self)

    def lost(self) -> None:
        super().lost()
        self.callback = self.context = None  # as in `run`

    # ------------------------------------------------------------- what a task wants of a future
    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self.callback = callback
        self.context = contextvars.copy_context() if context is None else context
        if self.woken:
            self.woken = False
            self.resume()

    def result(self) -> None:
        error, self.error = self.error, None  # its traceback leads to the frames of the task
        if error is not None:
            try:
                raise error
            finally:
                del error  # and to this one

    def done(self) -> bool:
        return self.woken

    def cancel(self, msg: Any = None) -> bool:
        if not _of_scope(msg):
            self.native = True
        if self.woken:
            return False
        self.error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.resume()
        return True

    # ------------------------------------------------------------- cancellation against commit
    def keep(self, error: BaseException) -> bool:
        """A send was delivered and then cancelled: return, if the cancellation can be felt at the next operation.

        From 3.13 on it is asked for again, which a scope or a timeout that ends meanwhile takes back. Before, that
        would leave a stray cancellation behind; there only that of a scope, which comes again by itself, is kept
        back.
        """
        task = current_task(self.loop)
        if isinstance(error, asyncio.CancelledError) and task is not None:
            if _CAN_REARM:
                if task.cancelling():
                    task.uncancel()
                    task.cancel(*error.args)
                    return True
            elif not self.native and in_cancelled_scope():
                return True
        return super().keep(error)


def _of_scope(message: Any) -> bool:
    """Is this the message with which a scope of anyio cancels? It tells its own cancellations by it."""
    return isinstance(message, str) and message.startswith(("Cancelled via cancel scope", "Cancelled by cancel scope"))


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
