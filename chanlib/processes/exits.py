"""The exit of a process, as an operation: it can be waited for in every world, and stand in `select`.

Where the system has pidfds the exit is seen by one of those. Else by the sentinel of `multiprocessing`, a pipe that
closes with the process; but a grandchild that has inherited it keeps it open, so the process is asked now and then.

Invariants:
- `over` is final. `exitcode` is written before it; it is None if somebody else has waited for the process.
- while the process is not over it is signalled through its pidfd: never another one that has got its number.
"""

from __future__ import annotations

import os
import select
import signal
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from .._core.engine import PENDING, Leaf, Op, Source
from .lines import ending

__all__ = ["Exit", "kill_group"]

GLANCE = 0.05  # seconds between two looks at a process that has no pidfd
STRAY = 1.0  # seconds after its end in which the exit code of a process is to be had
_SOON = 0.002


class Exit(Source):
    """The exit of `process`, which has been started."""

    __slots__ = ("_gone_since", "_name", "_pidfd", "_poll", "_process", "exitcode", "over", "pid")

    def __init__(self, process: BaseProcess) -> None:
        super().__init__()
        assert process.pid is not None
        self._process: Any = process  # until it is closed
        self._name = process.name
        self.pid = process.pid
        self._gone_since: float | None = None
        self.exitcode: int | None = None
        self.over = False
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # somebody has waited for it already
            self._gone_since = monotonic()
        except (AttributeError, OSError):  # not on this system, or no descriptor is left
            pass
        self._poll = select.poll()
        self._poll.register(self._pidfd if self._pidfd >= 0 else process.sentinel, select.POLLIN)

    def wait(self) -> Op[None]:
        """Wait until the process is over."""
        return _Over(self)

    def look(self) -> bool:
        """Is it over?"""
        return bool(self._locked(self._look))

    def _look(self) -> bool:
        if self.over:
            return True
        if self._gone_since is None:
            if self._pidfd >= 0 and not self._poll.poll(0):
                return False
            if (code := self._process.exitcode) is None:
                if self._pidfd >= 0:
                    self._gone_since = monotonic()
                return False
        elif (code := self._process.exitcode) is None and monotonic() - self._gone_since < STRAY:
            return False  # a fork server, or another thread that waits for all children, is about to tell
        self.exitcode = code
        self.over = True
        return True

    def _arm(self, waiter: Any) -> None:
        if self._gone_since is not None:
            waiter.wake_in(_SOON)
        elif self._pidfd >= 0:
            waiter.wake_readable(self._pidfd)
        elif self._poll.poll(0):  # closed by the process itself, perhaps before it ends
            waiter.wake_in(_SOON)
        else:
            waiter.wake_readable(self._process.sentinel)
            waiter.wake_in(GLANCE)

    def signal(self, signum: int) -> None:
        """Send it a signal, if it is not over."""
        if self.look():
            return
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signum)
            elif self._gone_since is None:
                os.kill(self.pid, signum)
        except OSError:  # it has just ended; or it is not ours any more, having changed its user
            pass

    def close(self) -> None:
        """Give the descriptors back; a process that is over is forgotten by `multiprocessing`, too."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._process.join(0)
        if not ending:  # else `multiprocessing` may be waiting for it
            try:
                self._process.close()
            except ValueError:  # as far as `multiprocessing` knows it still runs
                pass
        self._process = None

    def __repr__(self) -> str:
        return f"the exit of process {self.pid} ({self._name})"


class _Over(Leaf[None]):
    """A readiness operation: it takes nothing."""

    __slots__ = ()

    def __init__(self, end: Exit) -> None:
        self._src = end

    def _attempt(self, end: Exit) -> Any:
        return None if end._look() else PENDING

    def _enqueue(self, end: Exit, waiter: Any) -> None:
        end._arm(waiter)

    def _describe(self, end: Exit) -> str:
        return repr(end)


def kill_group(leader: int) -> None:
    """Kill what there is of the process group that `leader` has made, if it has."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # no groups here; none left; only zombies (macOS)
        pass
