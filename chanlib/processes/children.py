"""Children in processes: what a group runs for each of them, a coroutine that attends the process.

It starts the process, in a thread, hears what it says, and waits for its exit. When it is cancelled the process is put
down, in steps: a message cancels its scope; after `grace` seconds SIGTERM; after as many again SIGKILL, to all that it
has started. The coroutine waits for that, shielded, and ends only when the process has been reaped. What it says last
counts then, as with any child.

Source of the steps: what every init system does; the message before them is ours.

Invariants:
- a process that was started is reaped here, whoever goes, except one that not even SIGKILL can end.
- `gone` is written last, when its process is reaped, or could not be started.
- the steps are counted from the first cancellation, however often it comes.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from inspect import iscoroutinefunction
from time import monotonic
from typing import Any, Literal, get_args

from .._core.engine import Latch, Passed, seconds
from .._core.running import run_here
from .._core.threads import start as start_thread
from ..checks import check_function, check_name
from ..children import current_child, reason_of
from ..errors import Cancelled, WorkerDied
from ..run import check_backend
from ..scopes import CancelScope, checkpoint, move_on_after
from ..selecting import select
from ..timers import sleep
from .exits import Exit, kill_group
from .freight import Freight
from .lines import CALL, CANCEL, CANCELLED, ERROR, LOG, RESULT, TERMINATE, Inbox, frame, pair, release
from .reports import unpack_error, unpack_result
from .starts import check_passed, make_sure_of_room, start_process
from .worker import Errand, work

__all__ = ["StartMethod", "process_child"]

StartMethod = Literal["fork", "forkserver", "spawn"]

LAST = 5.0  # seconds after SIGKILL: what has not ended by then is stuck in the system
LOOK = 0.02  # seconds between two looks, where there is no descriptor left to wait by
LONGEST = 1000  # characters of a reason


def process_child(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    name: str,
    scope: CancelScope,
    grace: float,
    start_method: StartMethod | None,
    backend: Any,
    logging: bool,
) -> Coroutine[Any, Any, Any]:
    """What a child runs that is a process. Arguments are checked at once, nothing is started."""
    check_function(fn, "fn", "start_process", "a function")
    check_name(name)
    if os.name != "posix":
        raise NotImplementedError("start_process() needs a POSIX system: sockets that processes share, and signals")
    is_async = iscoroutinefunction(fn) or iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    if backend is not None:
        check_backend(backend)
        if not is_async:
            raise ValueError(f"backend={backend!r} is for async functions, and {name}() is none")
    elif is_async:
        backend = "asyncio"
    if not isinstance(logging, bool):
        raise TypeError(f"logging must be True or False, not {logging!r}")
    return attend(_Process(fn, args, name, seconds(grace, "grace"), _method(start_method), backend, logging), scope)


def _method(start_method: StartMethod | None) -> str:
    here = multiprocessing.get_all_start_methods()
    if start_method is None:
        return "forkserver" if sys.platform == "linux" and "forkserver" in here else "spawn"
    if start_method not in get_args(StartMethod) or start_method not in here:
        choices = ", ".join(repr(method) for method in get_args(StartMethod) if method in here)
        raise ValueError(f"start_method must be one of {choices}, or None, not {start_method!r}")
    return start_method


async def attend(process: _Process, scope: CancelScope) -> Any:
    """Run the process, and hand a cancellation on to it."""
    process.launch()
    try:
        await Passed(process.started)
        await process.heard()
    except BaseException as cut:
        if os.getpid() != process.parent:  # closed in a fork: it is not ours
            raise
        child = current_child.get()
        process.reason = (child and child._reason) or scope._called or reason_of(cut) or ""
        if isinstance(cut, GeneratorExit):  # its loop is over: nobody can wait here
            process.put_down_elsewhere()
            raise
        while not process.gone:
            try:
                with CancelScope(shield=True):
                    await process.put_down()
            except asyncio.CancelledError:  # natively once more: the process is waited for all the same
                pass
        if isinstance(cut, Exception | KeyboardInterrupt | SystemExit) or process.was_cancelled():
            raise
    return process.outcome()


class _Process:
    """One process, as its parent sees it."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        name: str,
        grace: float,
        method: str,
        backend: Any,
        logging: bool,
    ) -> None:
        self.call: Any = (fn, args)  # until it is under way; to be had by a process that is forked
        self.freight: Freight | None = None  # for any other
        self.name = name
        self.grace = grace
        self.method = method
        self.backend = backend
        self.logging = logging
        self.parent = os.getpid()
        self.started = _Started(name)
        self.error: BaseException | None = None  # why it could not be started
        self.called = False  # has it got its call?
        self.reason = ""
        self.steps: deque[tuple[float, Callable[[], None]]] | None = None  # how it is put down: when, and what is next
        self.unwanted = False
        self.signalled = False
        self.last_word: tuple[int, bytearray] | None = None
        self.gone = False
        self.line: socket.socket
        self.inbox: Inbox
        self.exit: Exit
        if method != "fork":
            try:
                self.freight = Freight(self.call)
                check_passed(len(self.freight.fds), name, method)
            except Exception as error:  # an error of the child, as any other of its
                self.freight = None
                self.error = error

    # ------------------------------------------------------------- starting
    def launch(self) -> None:
        """In a thread: starting a process blocks.

        The main thread of a fork is the one that has forked, and threads are daemons if the one that starts them is.
        """
        name = f"start of {self.name}"
        if self.method == "fork":
            Context().run(threading.Thread(target=self._launch, name=name, daemon=False).start)
        else:
            start_thread(self._launch, name)

    def _launch(self) -> None:
        try:
            if self.error is not None:
                raise self.error
            self._start()
        except BaseException as error:
            self.error = error
            self.gone = True
        finally:
            self.started.set()
        if self.freight is not None and not self.gone:
            self._send(self.freight)
        self.call = None

    def _start(self) -> None:
        level = None
        if self.logging:
            import logging

            level = logging.getLogger().getEffectiveLevel()
        context: Any = multiprocessing.get_context(self.method)
        try:
            line, theirs = pair()
            try:
                make_sure_of_room(theirs)
                errand = Errand(theirs, self.name, self.backend, self.grace, level)
                if self.freight is None:
                    errand.call = self.call
                else:
                    errand.freight = self.freight
                process = context.Process(target=work, args=(errand,), name=self.name)
                start_process(process, self.method)
            except BaseException:
                release(line)
                raise
            finally:
                theirs.close()
        finally:
            if self.freight is not None:
                self.freight.close()
        self.line = line
        self.inbox = Inbox(line)
        self.exit = Exit(process)
        if self.freight is None:
            self.called = True
        else:
            self.freight.pid = process.pid

    def _send(self, freight: Freight) -> None:
        """The call, of any size: it may have to wait until the process has come to read it."""
        parcel, freight.parcel = freight.parcel, b""
        try:
            self.line.sendall(frame(CALL, len(parcel)))
            self.line.sendall(parcel)
            self.called = True
        except OSError:  # it has ended, or is not to begin
            pass

    # ------------------------------------------------------------- hearing from it
    async def heard(self) -> None:
        """Take what it says until it has ended, and bury it. Can be cut at any point, and called again."""
        while not self.gone:
            over = self.exit.look()  # first: then all it has said is there
            reports, more = self.inbox.take()
            for kind, body in reports:
                if kind == LOG:
                    from .logs import handle

                    handle(body)
                else:
                    self.last_word = kind, body
            if more:
                await checkpoint()
            elif over:
                self._bury()
            else:
                try:
                    await select(None if self.inbox.ended else self.inbox.stirred(), self.exit.wait())
                except OSError:  # no descriptor is left for that
                    await sleep(LOOK)

    def _bury(self) -> None:
        if self.unwanted or self.last_word is None:
            kill_group(self.exit.pid)  # what it has started does not outlive it
        release(self.line)
        self.exit.close()
        self.freight = None
        self.gone = True

    # ------------------------------------------------------------- ending it
    async def put_down(self) -> None:
        """Step by step, until it has ended. Can be cut at any point, and called again."""
        await Passed(self.started)
        if self.gone:
            return
        if self.steps is None:
            self.unwanted = True
            now = monotonic()
            steps = [(now, self._ask), (now + self.grace, self._terminate), (now + 2 * self.grace, self._kill)]
            self.steps = deque(steps if self.grace else [(now, self._kill)])
        while True:
            while self.steps and self.steps[0][0] <= monotonic():
                self.steps.popleft()[1]()
            until = self.steps[0][0] if self.steps else self.given_up
            with move_on_after(until - monotonic()):
                await self.heard()
                return
            if monotonic() >= self.given_up:
                self._bury()
                return

    def put_down_elsewhere(self) -> None:
        """In a thread, which nobody waits for."""
        try:
            start_thread(partial(_drive, self.put_down), f"end of {self.name}")
        except RuntimeError:  # the interpreter is about to end
            if self.started.is_set() and not self.gone:
                self._kill()

    def _ask(self) -> None:
        message = self.reason[:LONGEST].encode(errors="replace")
        self._say(frame(CANCEL, len(message)) + message)

    def _say(self, message: bytes) -> None:
        """Without blocking. One that has not got its call yet, or does not read, comes to the end of the line."""
        try:
            try:
                if self.called and self.line.send(message, socket.MSG_DONTWAIT) == len(message):
                    return
            except BlockingIOError:
                pass
            self.line.shutdown(socket.SHUT_WR)
        except OSError:  # it is ending
            pass

    def _terminate(self) -> None:
        self.signalled = True
        self.exit.signal(signal.SIGTERM)
        self._say(frame(TERMINATE, 0))  # it may not notice: see `worker`

    def _kill(self) -> None:
        self.signalled = True
        self.given_up = monotonic() + LAST
        kill_group(self.exit.pid)
        self.exit.signal(signal.SIGKILL)

    given_up = math.inf

    # ------------------------------------------------------------- how it has ended
    def was_cancelled(self) -> bool:
        """It was to end, and has done so without a word of its own."""
        if self.error is not None:
            return False
        if self.last_word is None:
            return self.signalled or not self.called
        return self.last_word[0] == CANCELLED

    def outcome(self) -> Any:
        error, self.error = self.error, None  # its traceback leads to this frame, and so to itself
        try:
            if error is not None:
                raise error
        finally:
            del error
        if self.last_word is None:
            raise WorkerDied(self.name, self.exit.exitcode)
        kind, body = self.last_word
        if kind == RESULT:
            return unpack_result(body, self.name)
        if kind == ERROR:
            raise unpack_error(body)
        raise Cancelled(body.decode())

    def __repr__(self) -> str:
        return f"<process of {self.name}>"


class _Started(Latch):
    """Open once a process is there, or could not be started."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def set(self) -> None:
        self._locked(self._open)

    def is_set(self) -> bool:
        return self._set

    def __repr__(self) -> str:
        return f"the start of a process for {self.name}"


def _drive(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_here(function())
