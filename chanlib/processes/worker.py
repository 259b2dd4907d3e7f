"""What runs in the process of a child: the call, inside a scope that the parent can cancel.

The main thread makes the call. Another one listens to the parent: a cancellation cancels the scope, which whatever
operation the call waits in feels, or the loop that it runs. The end of the line means that the parent is dead; nobody
is there to see to the rest then, so this process does to itself what the parent would have done.

SIGTERM cancels the scope, too, and raises `Cancelled` in the main thread, out of a `sleep` or a `recv` that knows
nothing of scopes. But not inside chanlib: there the scope does it, and a lock may be held. Nor inside a loop of
`chanlib.run` that has nothing to do: there its main task is cancelled, natively, which no shield keeps out.

In a process that was forked by a thread, as it is here, CPython 3.13 and later run a handler only when a system call is
interrupted. So one that is to be terminated is also told so, and interrupts itself until the handler has run. (One that
never makes a system call does not end by it, then, but is killed.)

The process leads a session of its own, so that what it starts can be killed with it, and Ctrl-C on the terminal, which
is the parent's affair, does not reach it.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, cast

from .._core import park_threads as park_threads  # now: a thread that imports it while another one forks is stuck there
from .._core.lane import Lane, current_task, lanes, running_loop
from .._core.tokens import Token
from ..errors import Cancelled
from ..run import run
from .exits import kill_group
from .freight import Freight, unload
from .lines import CALL, CANCEL, CANCELLED, ERROR, RESULT, TERMINATE, Outbox, receive
from .reports import pack_error, pack_result

__all__ = ["Errand", "outside", "work"]

INSIST = 0.02  # seconds between two tries to be noticed
ORPHAN = 10.0  # seconds: the longest grace where the parent is dead

_NEUTRAL = {*sys.stdlib_module_names, "anyio", "outcome", "sniffio", "trio", "uvloop"} - {"__main__"}


class Errand:
    """What a process is told to do.

    The call does not travel with it, but after it, on our own line: so what goes wrong when it is unpickled happens
    here, and can be told; and one of any size does not block on a process that has died.
    """

    __slots__ = ("backend", "call", "freight", "grace", "level", "line", "manifest", "name")

    def __init__(
        self,
        line: socket.socket,
        name: str,
        backend: Any,
        grace: float,
        level: int | None,
        manifest: Any = (),
        call: Any = None,
        freight: Freight | None = None,
    ) -> None:
        self.line = line
        self.name = name
        self.backend = backend
        self.grace = grace
        self.level = level  # of the root logger; None: its records stay here
        self.manifest = manifest
        self.call = call  # function and arguments, in a process that is forked
        self.freight = freight  # in the parent, otherwise

    def __reduce__(self) -> Any:
        manifest = [] if self.freight is None else self.freight.manifest()
        return Errand, (self.line, self.name, self.backend, self.grace, self.level, manifest)


def work(errand: Errand) -> None:
    """The main function of a process."""
    _Worker(errand).live()


class _Worker:
    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.outbox = Outbox(errand.line)
        self.root = Token()
        self.over = threading.Event()  # the call is over, and its last word said
        self.orphaned = False
        self.terminations = 0  # times that the handler has run
        self.raised = False
        self.main: tuple[Any, Any] | None = None  # the loop of the call, and its main task, on asyncio
        self.pid = os.getpid()

    def live(self) -> None:
        _settle()
        lanes.lane = Lane()  # where it was forked, this was a thread among others
        threading.current_thread().name = "MainThread"
        signal.signal(signal.SIGTERM, self.terminated)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        errand = self.errand
        call, errand.call = errand.call, None
        parcel: Any = None
        if call is None:
            frame = receive(errand.line)
            if frame is None:
                return  # nobody wants it any more
            assert frame[0] == CALL
            parcel = frame[1]
            del frame
        try:
            report = self.report(call, parcel)
            if os.getpid() != self.pid:  # the call has forked, and come back twice
                return
            self.outbox.send(*report)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.over.set()
        if self.orphaned:
            sys.stdout.flush()
            sys.stderr.flush()
            self.kill_all()

    def report(self, call: Any, parcel: Any) -> tuple[int, bytes]:
        """Make the call; what is to be said of it."""
        errand = self.errand
        try:
            if errand.level is not None:
                from .logs import send_all

                send_all(self.outbox, errand.level)
            threading.Thread(target=self.listen, name="chanlib parent", daemon=True).start()
            with self.root:
                return RESULT, pack_result(_call(self, call, parcel), errand.name)
        except SystemExit:
            raise
        except (Cancelled, asyncio.CancelledError):  # natively, or by a signal that has just come
            pass
        except BaseException as error:
            return ERROR, pack_error(error, __name__)
        return CANCELLED, (self.root.why() or "").encode()

    # ------------------------------------------------------------- what comes from outside
    def listen(self) -> None:
        try:
            while (frame := receive(self.errand.line)) is not None:
                kind, body = frame
                if kind == CANCEL:
                    self.root.cancel(body.decode())
                elif kind == TERMINATE:
                    threading.Thread(target=self.insist, daemon=True).start()
        except OSError:  # closed by the call: it knows what it does
            return
        self.orphaned = True
        grace = min(self.errand.grace, ORPHAN)
        self.root.cancel("the parent process has ended")
        if not self.over.wait(grace):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Thread(target=self.insist, daemon=True).start()
        self.over.wait(grace)
        if self.over.is_set():  # it is on its way out, or held by threads of its own
            threading.Event().wait(grace)
        self.kill_all()

    def insist(self) -> None:
        """SIGTERM has been sent. See to it that its handler is run."""
        main = threading.main_thread().ident
        assert main is not None
        while not self.over.wait(INSIST) and not self.terminations:
            signal.pthread_kill(main, signal.SIGTERM)

    def kill_all(self) -> None:
        if os.getpgrp() == self.pid:
            kill_group(self.pid)
        os.kill(self.pid, signal.SIGKILL)

    def terminated(self, signum: int, frame: FrameType | None) -> None:
        """A handler: it may come in the middle of anything."""
        if os.getpid() != self.pid:  # a fork of this process, which has inherited it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self.terminations += 1
        root = self.root
        if root.called is None:
            root.called = signal.Signals(signum).name
        try:
            _thread.start_new_thread(root.poke, ())  # it takes locks, which this thread may hold
        except RuntimeError:
            root.poke()
        loop: Any = running_loop()
        if self.main is not None and loop is self.main[0] and current_task(loop) is None:
            loop.call_soon_threadsafe(self.main[1].cancel)
        elif not self.raised and _is_outside(frame):
            self.raised = True
            raise Cancelled(root.why() or "")


def _settle() -> None:
    """Be a process of one's own."""
    try:
        os.setsid()
    except (AttributeError, OSError):
        pass
    signal.set_wakeup_fd(-1)  # it may be the parent's loop that would be told of our signals
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(worker: _Worker, call: Any, parcel: Any) -> Any:
    """Signals may raise from here on: this function belongs to what it calls."""
    worker.root.check()  # first: what is not unpickled need not be closed
    fn, args = unload(parcel, worker.errand.manifest) if call is None else call
    del call, parcel
    backend = worker.errand.backend
    if backend is None:
        made: Any = fn(*args)
        return run(_await, worker, cast(Any, made), backend="asyncio") if isinstance(made, Coroutine) else made
    return run(_make, worker, fn, args, backend=backend)


async def _make(worker: _Worker, fn: Any, args: tuple[Any, ...]) -> Any:
    return await _await(worker, fn(*args))


async def _await(worker: _Worker, made: Any) -> Any:
    loop = running_loop()
    if loop is not None:
        worker.main = loop, current_task(loop)
    return await made


outside = {_call.__code__}
"""Of functions that belong to what they call, although they are chanlib's."""


def _is_outside(frame: FrameType | None) -> bool:
    """Is what runs there neither chanlib's nor done on behalf of it?"""
    while frame is not None:
        if frame.f_code in outside:
            return True
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == "chanlib":
            return False
        if package not in _NEUTRAL:
            return True
        frame = frame.f_back
    return False
