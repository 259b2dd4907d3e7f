"""Starting a process by `multiprocessing`, with nothing left behind if that fails."""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any

from .descriptors import close_all

__all__ = ["check_passed", "make_sure_of_room", "start_process"]

ROOM = 12  # descriptors that must be free to start a process
PASSED = 248  # descriptors that a fork server passes besides our line: of the 253 in a message it needs four itself


def check_passed(fds: int, name: str, method: str) -> None:
    """More of them `multiprocessing` refuses in words that say nothing; or the kernel does, and the server dies."""
    if method == "forkserver" and fds > PASSED:
        raise ValueError(
            f"the arguments of {name} hold {fds} descriptors, and a fork server passes at most {PASSED}: use another "
            "start_method, or send the rest through a channel"
        )


def make_sure_of_room(line: socket.socket) -> None:
    """OSError if there are too few descriptors: halfway `multiprocessing` would leave some open."""
    spare: list[int] = []
    try:
        while len(spare) < ROOM:
            spare.append(os.dup(line.fileno()))
    finally:
        close_all(spare)


def _forget_lost_server() -> None:
    """A process that was forked knows the fork server of its parent, and takes its not being a child for an error."""
    from multiprocessing import forkserver

    server: Any = getattr(forkserver, "_forkserver", None)
    try:
        with server._lock:
            if server._forkserver_pid is None:
                return
            try:
                serves = not os.waitpid(server._forkserver_pid, os.WNOHANG)[0]
            except ChildProcessError:
                serves = False
            if not serves:
                server._forkserver_pid = None  # so the next one that is asked for is ours
                alive, server._forkserver_alive_fd = server._forkserver_alive_fd, None
                os.close(alive)
    except AttributeError:  # another version of it, which may know better
        pass


def start_process(process: Any, method: str) -> None:
    """`process.start()`, with nothing left behind if it fails."""
    try:
        if method == "forkserver":
            _forget_lost_server()
        if method == "forkserver" or not hasattr(signal, "pthread_sigmask"):
            process.start()
        else:
            _start_undisturbed(process, method)
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None:  # CPython leaves its pipes open if `os.fork` fails
            if method == "fork" and trace.tb_frame.f_code.co_name == "_launch" and process.pid is None:
                for name in ("parent_r", "child_w", "child_r", "parent_w"):
                    fd = trace.tb_frame.f_locals.get(name)
                    if isinstance(fd, int):
                        os.close(fd)
            trace = trace.tb_next
        error.__traceback__ = None  # what has been opened dies with the frames
        if isinstance(error, EOFError):
            raise OSError(errno.EAGAIN, "the fork server could not fork") from None
        raise


def _start_undisturbed(process: Any, method: str) -> None:
    """Ctrl-C on the terminal is not to hit the process before it has seen to that itself.

    It has our signal mask. (One of a fork server has that of its server.)
    """
    if method == "spawn":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # it would be started with our mask, and unblock what we block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
