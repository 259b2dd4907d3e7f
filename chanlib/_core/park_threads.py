"""Parking a thread: a fresh raw lock per wait, or a poll of descriptors and a pipe.

A lock that is used once cannot receive the stale release of an earlier wait. A thread that also waits for
descriptors sleeps in `select.poll` and is woken through a pipe (an eventfd where there is one).

A thread inside scopes says so before it goes to sleep (`Lane.parked`), sleeps no longer than their deadlines allow, and
is woken when one of them is cancelled: it then claims its own waiter, as after any wake without a commit.

CPython notices a signal that came just before the main thread went to sleep only when that wakes. So the main thread
looks up now and then.
"""

from __future__ import annotations

import math
import os
import select
import threading
from _thread import TIMEOUT_MAX, allocate_lock, get_ident
from collections.abc import Iterable
from time import monotonic
from typing import Any

from .engine import Op, Waiter
from .lane import lanes

__all__ = ["ThreadWaiter"]

GLANCE = 0.5  # seconds


class ThreadWaiter(Waiter):
    __slots__ = ("alarm", "lock", "woken")

    def __init__(self, op: Op[Any]) -> None:
        Waiter.__init__(self, op)
        self.lock = allocate_lock()
        self.lock.acquire()
        self.woken = False
        self.alarm: _Alarm | None = None

    def park(self) -> Iterable[Any]:
        lane = lanes.lane
        until = math.inf if self.until is None else self.until
        if lane.token is None:
            self._sleep(until)
            return ()
        end = monotonic() + until
        before = lane.parked  # a signal handler may wait in the middle of a wait
        try:
            with lane.guard:
                lane.parked = self
            while (left := lane.token.left()) > 0:  # asked for after the canceller can find us
                until = end - monotonic()
                self._sleep(min(left, until))
                if self.woken or self.fds or until <= left:
                    break
        finally:
            lane.parked = before
        return ()

    def check(self) -> None:
        token = lanes.lane.token
        if token is not None:
            token.check()

    def _sleep(self, until: float) -> None:
        if self.fds:
            self._poll(self.fds, until)
            return
        glance = GLANCE if get_ident() == threading.main_thread().ident else TIMEOUT_MAX
        if until == math.inf:
            while not self.lock.acquire(True, glance):
                pass
        else:
            end = monotonic() + until
            while (left := end - monotonic()) > 0 and not self.lock.acquire(True, min(left, glance)):
                pass

    def wake(self) -> None:
        self.woken = True
        self.nudge()

    def nudge(self) -> None:
        """A scope of this thread has changed: it may have to go, or else sleep on where it stands in its queue."""
        try:
            self.lock.release()
        except RuntimeError:
            pass  # woken already
        alarm = self.alarm
        if alarm is not None:
            alarm.ring()

    def _poll(self, fds: list[tuple[int, bool]], until: float) -> None:
        alarm = self.alarm = _Alarm()
        try:
            poll = select.poll()
            poll.register(alarm.fd, select.POLLIN)
            for fd, mask in _masks(fds).items():
                poll.register(fd, mask)
            if self.lock.acquire(False):  # woken before there was an alarm to ring
                return
            poll.poll(None if until == math.inf else max(0, min(until * 1000, 2**31 - 1)))  # below 0 is for ever
        finally:
            self.alarm = None
            alarm.close()


def _masks(fds: list[tuple[int, bool]]) -> dict[int, int]:
    masks: dict[int, int] = {}
    for fd, writing in fds:
        masks[fd] = masks.get(fd, 0) | (select.POLLOUT if writing else select.POLLIN)
    return masks


class _Alarm:
    """A descriptor that becomes readable when rung, from any thread, also while it is being closed."""

    __slots__ = ("_guard", "_write", "fd")

    def __init__(self) -> None:
        self._guard = allocate_lock()
        if hasattr(os, "eventfd"):
            self.fd = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._write = os.pipe()
            os.set_blocking(self._write, False)

    def ring(self) -> None:
        with self._guard:
            if self._write >= 0:
                try:
                    os.write(self._write, b"\1\0\0\0\0\0\0\0")
                except BlockingIOError:
                    pass  # rung often enough

    def close(self) -> None:
        with self._guard:
            write, self._write = self._write, -1
            os.close(write)
            if write != self.fd:
                os.close(self.fd)
