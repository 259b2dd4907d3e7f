"""What can go wrong, as types.

    ChannelError
        ChannelClosed            .cause  .channel  .arm
            HandleClosed         an operation on something that we, or someone on our side, closed
            EndOfChannel         drained and cleanly closed: there will be no further item
            BrokenChannel        the other side is gone, or ended with an error
        WouldBlock               `poll()` and the `_nowait` forms: it cannot happen now
            ChannelFull  ChannelEmpty
        Lagged                   a subscriber was too slow; `.missed` items are gone
        InvalidStateError        a future that is already done was set again
        BrokenFuture             a promise was dropped without being kept
        MessageTooLarge          a value that can never go through this process channel
    RemoteError                  an error of another process that cannot be had itself
    WorkerDied                   a process has ended without saying how its work went

Only the leaves derive from the errors of anyio, `queue`, asyncio and `concurrent.futures`, so that an
`except` clause written against those keeps its meaning: what are siblings there are siblings here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from signal import Signals
from typing import Any

import anyio

__all__ = [
    "BrokenChannel",
    "BrokenFuture",
    "Cancelled",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "EndOfChannel",
    "HandleClosed",
    "InvalidStateError",
    "Lagged",
    "MessageTooLarge",
    "RemoteError",
    "TaskCancelled",
    "WorkerDied",
    "WouldBlock",
]


class ChannelError(Exception):
    """Base of every error that chanlib raises about a channel, an event or a future."""


class ChannelClosed(ChannelError):
    """Base of the three ways in which a channel can be over.

    `channel` is the channel it is about, `cause` the exception given to `close()` or `cancel()` (None after a
    clean end), and `arm` the position of the operation in the `select` that raised it, or None.
    """

    channel: Any = None
    arm: int | None = None

    def __init__(self, message: str = "", *, channel: Any = None, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.channel = channel
        if cause is not None:
            self.__cause__ = cause

    def __reduce__(self) -> Any:
        """Pickled, as to come back from another process, it leaves the channel behind."""
        return type(self), self.args, {"arm": self.arm}

    @property
    def cause(self) -> BaseException | None:
        """The exception with which the channel was closed, or None."""
        return self.__cause__


class HandleClosed(ChannelClosed, anyio.ClosedResourceError):
    """The channel, or the end that was used, is closed: nothing was sent."""


class EndOfChannel(ChannelClosed, anyio.EndOfStream):
    """Everything sent has been received and no more will come."""


class BrokenChannel(ChannelClosed, anyio.BrokenResourceError):
    """The other side is gone or closed with an error, which is the `cause`."""


class WouldBlock(ChannelError, anyio.WouldBlock):
    """The operation cannot happen now. It was not performed and may be tried again."""


class ChannelFull(WouldBlock, queue.Full, asyncio.QueueFull):
    """No room and nobody waiting to receive."""


class ChannelEmpty(WouldBlock, queue.Empty, asyncio.QueueEmpty):
    """Nothing to receive and nobody waiting to send."""


class Lagged(ChannelError):
    """A subscriber was overtaken: exactly `missed` items were dropped for it."""

    def __init__(self, missed: int) -> None:
        super().__init__(missed)
        self.missed = missed

    def __str__(self) -> str:
        return f"{self.missed} item(s) missed"


class InvalidStateError(ChannelError, asyncio.InvalidStateError, concurrent.futures.InvalidStateError):
    """A future was set although it is already done."""


class BrokenFuture(ChannelError):
    """The promise that belongs to this future was dropped without a result."""


class MessageTooLarge(ChannelError, ValueError):
    """A value that can never go through this process channel, however empty it is. Nothing was sent."""


class RemoteError(Exception):
    """An error of another process that cannot be had itself, since it does not survive pickling.

    `kind` is the name of its class, `text` its message, `traceback` how it came about there.
    """

    def __init__(self, kind: str, text: str, traceback: str = "") -> None:
        super().__init__(kind, text, traceback)
        self.kind = kind
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


class WorkerDied(Exception):
    """A process has ended without saying how its work went.

    `exitcode` is that of the process, None if it is not known; `signal` the signal that has killed it, or None.
    """

    def __init__(self, name: str, exitcode: int | None) -> None:
        super().__init__(name, exitcode)
        self.name = name
        self.exitcode = exitcode

    @property
    def signal(self) -> Signals | int | None:
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return Signals(-self.exitcode)
        except ValueError:  # a real-time signal without a name
            return -self.exitcode

    def __str__(self) -> str:
        if self.signal is not None:
            return f"{self.name} was killed by {getattr(self.signal, 'name', self.signal)}"
        return f"{self.name} ended with exit code {self.exitcode} and without a result"


class TaskCancelled(Exception):
    """The task that was waited for has been cancelled. An ordinary Exception: whoever waits is not cancelled by it."""


class Cancelled(BaseException):
    """This thread is to end what it does: a scope that it is in was cancelled.

    What `asyncio.CancelledError` is to a task of asyncio, and `trio.Cancelled` to one of trio. Let it pass; the scope
    catches it.
    """

    def __str__(self) -> str:
        reason = super().__str__()
        return f"cancelled: {reason}" if reason else "cancelled"
