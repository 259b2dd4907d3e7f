"""What the tests of faults let other processes do, and how they have them killed at a chosen instruction.

A process is made here by a plain fork, which takes a few milliseconds: it has the handles of the test, and its body is
a closure. `forked` gives the test its end; whatever the test does, no process outlives the `with`.
"""

from __future__ import annotations

import json
import os
import resource
import select as polling
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

import chanlib.processes

NET = 20.0  # seconds after which something that should happen is given up: a safety net
PACKAGE = os.path.dirname(os.path.abspath(chanlib.processes.__file__)) + os.sep


# ===================================================================== processes
class Child:
    """A process that was forked, as its parent sees it."""

    def __init__(self, pid: int, reading: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self._reading = reading
        self._said = b""

    def says(self, timeout: float = NET) -> Any:
        """What it tells next. Fails if it ends without a word, or is silent for too long."""
        end = time.monotonic() + timeout
        while b"\n" not in self._said:
            ready = polling.select([self._reading], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, "the process is silent"
            part = os.read(self._reading, 1 << 16)
            assert part, f"the process has ended without a word: {self.wait()}"
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        said = json.loads(line)
        assert not (isinstance(said, dict) and "error" in said), said["error"]
        return said

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """How it has ended, as `Popen.returncode`; None: it has not."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, timeout: float = NET) -> int:
        """How it has ended."""
        return until(self.poll, "the process hangs", timeout)

    def stopped(self) -> bool:
        """Has it been stopped by a signal?"""
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            self.status = os.waitstatus_to_exitcode(status)
        return bool(pid) and os.WIFSTOPPED(status)

    def kill(self) -> int:
        """Kill it, if it is there yet, and reap it."""
        if self.poll() is None:
            self.signal(signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        self.kill()
        os.close(self._reading)


def until(predicate: Callable[[], Any], what: str, timeout: float = NET) -> Any:
    """What `predicate()` gives as soon as that is not None or False."""
    end = time.monotonic() + timeout
    while (found := predicate()) is None or found is False:
        assert time.monotonic() < end, what
        time.sleep(0.0005)
    return found


Tell = Callable[[Any], None]


@contextmanager
def forked(body: Callable[[Tell], object], limit: int = 60) -> Generator[Child]:
    """`body(tell)` in a process of its own; `tell(value)` says something to its parent, as JSON.

    After `limit` seconds it is ended: nobody is left behind, whatever happens to the test."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():  # from 3.12 on: that a process with several threads forks
        warnings.filterwarnings("ignore", message=r".*use of fork\(\)", category=DeprecationWarning)
        pid = os.fork()
    if not pid:
        _live(body, lambda value: _say(writing, value), limit)
    os.close(writing)
    child = Child(pid, reading)
    try:
        yield child
    finally:
        child.close()


def _say(fd: int, value: Any) -> None:
    os.write(fd, json.dumps(value).encode() + b"\n")


def _live(body: Callable[[Tell], object], tell: Tell, limit: int) -> None:
    code = 0
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        body(tell)
    except BaseException:
        code = 1
        tell({"error": traceback.format_exc()})
    finally:
        os._exit(code)


# ===================================================================== strikes
class Strike:
    """A signal to this very process just before the line number `at` that this thread executes in `chanlib.processes`.

    With `opcodes`, before the instruction number `at`; with `action`, that is called instead. `left` is negative once
    it has struck.
    """

    def __init__(
        self,
        at: int,
        number: int = signal.SIGKILL,
        opcodes: bool = False,
        action: Callable[[], object] | None = None,
    ) -> None:
        self.left = at
        self.opcodes = opcodes
        self.action = action or (lambda: os.kill(os.getpid(), number))

    def __enter__(self) -> Self:
        if self.opcodes:  # some versions look whether anybody wants them when the trace function is set
            frame = sys._getframe()
            frame.f_trace, frame.f_trace_opcodes = _no_trace, True
        self.before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def _enter(self, frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = self.opcodes
        return self._step

    def _step(self, frame: Any, event: str, arg: object) -> Any:
        if event == ("opcode" if self.opcodes else "line"):
            self.left -= 1
            if self.left == -1:
                self.action()
        return self._step


def _no_trace(*_: object) -> None:
    return None


def struck(at: int, operation: Callable[..., object], *args: Any, **options: Any) -> bool:
    """`operation(*args)`, with a strike at that place. Has it come by there?"""
    with Strike(at, **options) as strike:
        operation(*args)
    return strike.left < 0


def places(operation: Callable[..., object], *args: Any, opcodes: bool = False) -> int:
    """How many places there are in `operation(*args)`."""
    far = 1 << 40
    with Strike(far, opcodes=opcodes) as strike:
        operation(*args)
    return far - strike.left


def thinned(count: int, most: int) -> list[int]:
    """At most so many of `range(count)`, evenly."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
