"""The line between a process of a group and its parent: a pair of sockets, and frames on it.

A frame is a kind, a length and that many bytes. Downwards go the call and what is done to end it, upwards log records
and one last word: a result, an error, or that it was cancelled. The end of the line, seen from below, means that the
parent has died, or that it does not want the work any more; seen from above it means nothing, since somebody else may
hold the other end, or the process may have closed it: that a process is over says only its exit (`exits`).

The parent sends from a thread and never blocks its loop. It reads what is there (`Inbox`), in whatever world.

Invariant: an end that belongs to the parent is in `_ours` until it is closed, and every process that is forked closes
those first: else one worker would keep the line of another open, and neither would notice that the parent has died.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections import deque
from multiprocessing import util
from typing import Any

from .._core.engine import PENDING, Leaf, Op, Source

__all__ = [
    "CALL",
    "CANCEL",
    "CANCELLED",
    "ERROR",
    "LOG",
    "RESULT",
    "TERMINATE",
    "Inbox",
    "Outbox",
    "ending",
    "frame",
    "pair",
    "receive",
    "release",
]

CALL, CANCEL, TERMINATE, LOG, RESULT, ERROR, CANCELLED = range(7)

Frame = tuple[int, bytearray]

_HEAD = struct.Struct("=BQ")
_MOST = 1 << 22  # bytes that are read before others have their turn

_ours: set[socket.socket] = set()
_guard = threading.RLock()  # nobody forks between the making of a pair and its being known
_hangs_up: int | None = None  # the process that will do so when it ends
ending: list[int] = []
"""The process, once it is about to end."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end and the other."""
    global _hangs_up
    with _guard:
        if _hangs_up != os.getpid():
            util.Finalize(None, _hang_up, exitpriority=100)
            _hangs_up = os.getpid()
        ours, theirs = socket.socketpair()
        _ours.add(ours)
    return ours, theirs


def _hang_up() -> None:
    """This process is about to end, and `multiprocessing` to wait for all others: they are to end, too."""
    ending.append(os.getpid())
    for ours in tuple(_ours):
        try:
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def release(ours: socket.socket) -> None:
    """Close the parent's end. Whoever is sending there gives up."""
    try:
        ours.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other end is closed already
        pass
    with _guard:
        _ours.discard(ours)
        ours.close()


def frame(kind: int, size: int) -> bytes:
    """What stands before `size` bytes."""
    return _HEAD.pack(kind, size)


def receive(line: socket.socket) -> Frame | None:
    """The next frame, waited for; None at the end of the line. For the process: it has no loop to think of here."""
    head = bytearray(_HEAD.size)
    if not _fill(line, head):
        return None
    kind, size = _HEAD.unpack(head)
    body = bytearray(size)
    return (kind, body) if _fill(line, body) else None


def _fill(line: socket.socket, into: bytearray) -> bool:
    view = memoryview(into)
    while view:
        got = line.recv_into(view)
        if not got:
            return False
        view = view[got:]
    return True


class Outbox:
    """Where a process puts its frames, from any of its threads; each goes out whole.

    What a signal handler puts in while this very thread is sending goes out after that.
    """

    __slots__ = ("busy", "line", "lock", "pending")

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.lock = threading.RLock()
        self.pending: deque[tuple[int, bytes]] = deque()
        self.busy = False

    def send(self, kind: int, body: bytes) -> None:
        with self.lock:
            self.pending.append((kind, body))
            if self.busy:
                return
            self.busy = True
            try:
                while self.pending:
                    kind, body = self.pending.popleft()
                    self.line.sendall(frame(kind, len(body)))
                    self.line.sendall(body)
            except OSError:  # nobody is there to read it
                pass
            finally:
                self.busy = False


class Inbox(Source):
    """What has come from a process, as far as it is there. For one reader at a time."""

    __slots__ = ("_body", "_got", "_head", "_kind", "_line", "_poll", "ended")

    def __init__(self, line: socket.socket) -> None:
        super().__init__()
        self._line = line
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._head = True  # is it the head that is being read, or the body?
        self._kind = 0
        self._body = bytearray(_HEAD.size)
        self._got = 0
        self.ended = False  # nothing more will come

    def take(self) -> tuple[list[Frame], bool]:
        """The frames that are complete by now, and whether there may be more at once."""
        frames: list[Frame] = []
        most = _MOST
        while most > 0 and not self.ended:
            if self._got == len(self._body):
                self._complete(frames)
                continue
            try:
                got = self._line.recv_into(memoryview(self._body)[self._got :], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return frames, False
            except OSError:  # it was cut off in the middle of something
                got = 0
            self.ended = not got
            self._got += got
            most -= got
        return frames, not self.ended

    def _complete(self, frames: list[Frame]) -> None:
        size = _HEAD.size
        if self._head:
            self._kind, size = _HEAD.unpack(self._body)
        else:
            frames.append((self._kind, self._body))
        self._head = not self._head
        self._body = bytearray(size)
        self._got = 0

    def stirred(self) -> Op[None]:
        """Wait until `take` has something to do. Not after the end."""
        return _Stirred(self)

    def __repr__(self) -> str:
        return f"the line {self._line.fileno()} from a process"


class _Stirred(Leaf[None]):
    """A readiness operation: it takes nothing."""

    __slots__ = ()

    def __init__(self, inbox: Inbox) -> None:
        self._src = inbox

    def _attempt(self, inbox: Inbox) -> Any:
        return None if inbox._poll.poll(0) else PENDING

    def _enqueue(self, inbox: Inbox, waiter: Any) -> None:
        waiter.wake_readable(inbox._line.fileno())

    def _describe(self, inbox: Inbox) -> str:
        return f"hearing from {inbox!r}"


def _after_fork_in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for line in tuple(_ours):
        line.close()
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _guard.acquire(),
        after_in_parent=lambda: _guard.release(),
        after_in_child=_after_fork_in_child,
    )
