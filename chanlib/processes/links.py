"""Links: a connection between a hub and another process, and how both find each other.

What is to be sent stands in a queue, and a thread writes it: so nobody who sends is held up by a process that is
stopped, nor can an interrupt, or a finalizer that sends in the midst of a send, tear a frame. Another thread reads.
The writing thread ends last, and closes the connection: nobody uses a descriptor that is somebody else's by then.

A reception is where others come to. Whoever comes must know its key, which travels with each pickled handle; so must
the reception, since what it sends will be unpickled. It has no name in any folder.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener, answer_challenge, deliver_challenge
from queue import SimpleQueue
from typing import Any

from .._core.threads import start

__all__ = ["Link", "Reception", "connect", "exchange"]

_WINDOWS: bool = sys.platform.startswith("win")
_FAMILY = "AF_PIPE" if _WINDOWS else "AF_INET"
_ADDRESS: Any = None if _WINDOWS else ("127.0.0.1", 0)  # one that is free
_PAUSE = 0.1  # seconds, when there is no descriptor left to accept with
_open: set[Any] = set()  # what a forked process must close
_shutting = threading.RLock()  # held over a fork: else that process might close what is something else by then


class Link:
    __slots__ = ("_connection", "_frames", "_writes")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()
        self._writes = False
        _open.add(self)

    def start(self) -> None:
        self._writes = True
        start(self._write, "chanlib pump")

    def send(self, *frame: Any) -> None:
        self._frames.put(pickle.dumps(frame, 5))

    def receive(self) -> Any:
        """By the thread that reads. EOFError or OSError: there is nobody any more."""
        return pickle.loads(self._connection.recv_bytes())

    def more(self) -> bool:
        return bool(self._connection.poll(0))

    def end(self) -> None:
        """By the thread that reads, when it does not any more."""
        self._frames.put(None)
        if not self._writes:
            self.shut()

    def shut(self) -> None:
        """Nobody uses it."""
        with _shutting:
            self._connection.close()
            _open.discard(self)

    def _write(self) -> None:
        gone = False
        while (frame := self._frames.get()) is not None:
            if not gone:
                try:
                    self._connection.send_bytes(frame)
                except OSError:
                    gone = True
        self.shut()


class Reception:
    """Where others come to: `welcome` is called with the connection of each who knows the key, in a thread of its own.

    OSError if there is no socket to be had.
    """

    __slots__ = ("_closed", "_listener", "_welcome", "address", "key")

    def __init__(self, welcome: Callable[[Any], object]) -> None:
        self._welcome = welcome
        self._closed = False
        self._listener = Listener(_ADDRESS, _FAMILY, 64)
        self.address: Any = self._listener.address
        self.key = os.urandom(32)
        _open.add(self)
        start(self._serve, "chanlib pump")

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._closed:
                    break
                time.sleep(_PAUSE)
                continue
            if self._closed:
                connection.close()
                break
            start(partial(self._meet, connection), "chanlib pump")
        self.shut()

    def _meet(self, connection: Any) -> None:
        try:
            _prompt(connection)
            deliver_challenge(connection, self.key)
            answer_challenge(connection, self.key)
        except (AuthenticationError, EOFError, OSError):
            connection.close()
            return
        self._welcome(connection)

    def close(self) -> None:
        """Nobody is expected any more. Nothing else would wake the thread, on every system."""
        self._closed = True
        try:
            Client(self.address).close()
        except OSError:
            pass

    def shut(self) -> None:
        with _shutting:
            self._listener.close()
            _open.discard(self)


def connect(address: Any, key: bytes) -> Any:
    """A connection to where such a reception is. OSError if it has gone."""
    try:
        connection: Any = Client(address, authkey=key)
    except (AuthenticationError, EOFError) as error:
        raise ConnectionRefusedError("what this handle leads to has gone") from error
    _prompt(connection)
    return connection


def exchange(connection: Any, name: str, *args: Any) -> Any:
    """Have something done over a connection that is not used yet. OSError if it cannot be."""
    try:
        connection.send_bytes(pickle.dumps((1, name, args), 5))
        return pickle.loads(connection.recv_bytes())[1]
    except EOFError as error:
        raise ConnectionResetError("what this handle leads to has gone") from error


def _prompt(connection: Any) -> None:
    """Short frames go at once."""
    if not _WINDOWS:
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            if line.family == socket.AF_INET:
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def before_fork() -> None:
    _shutting.acquire()


def after_fork_in_parent() -> None:
    _shutting.release()


def after_fork_in_child(kept: set[Link]) -> None:
    """All other connections are those of the parent."""
    global _shutting
    _shutting = threading.RLock()
    for one in list(_open):
        if one not in kept:
            try:
                one.shut()
            except OSError:  # it was being made
                _open.discard(one)
