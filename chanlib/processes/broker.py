"""How the descriptors of a handle that was pickled reach the process that unpickles it.

A handle may be pickled at any time: as an argument of an executor's `submit`, as an item of a queue. Nobody knows then
who will unpickle it, nor whether anybody will. So its descriptors are put on offer: the broker of the process keeps
copies of them, an `Offer` of plain values travels in the pickle, and whoever unpickles it claims them with that.

The broker is one listening socket and one thread per process, there while something is on offer. The name of the
socket is abstract and of the kernel's choosing: nothing stands in a file system, nothing is left after a `kill -9`.

Invariants.
- An offer ends in exactly one way: claimed, withdrawn, or expired (`expired()` is called in that case only). Or the
  process that offered has ended.
- An entry stands in `offers`, or is `held` by the one client it was sent to. It is that client's once the client says
  so; if it goes away before, the entry goes back. A client that is too slow is shut out first: what it said before
  that counts, what it says after it fails on its side. So both sides agree in every case.
- Whatever a broker has open is in its tables, and is opened and closed under `_lock`, which a fork takes too: the
  child can close its copies of all that, and of nothing else. Under `_lock` nothing waits, and no code of others runs
  but finalizers of the garbage collector (hence it is re-entrant).

Where there are no abstract sockets (macOS), or if CHANLIB_PROCESSES=posix, `sharer` does the work. What is said between
the two processes stands in `offers`, what the other side does in `claimer`.
"""

from __future__ import annotations

import array
import atexit
import functools
import hmac
import itertools
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Container, Sequence
from multiprocessing import util
from typing import Any

from .._core.threads import start
from .._core.unraisable import report
from .claimer import ask
from .descriptors import close_all, duplicate
from .offers import (
    FAILED,
    HERE,
    MAGIC,
    MOST,
    NONCE,
    OVER,
    REFUSED,
    REPLY,
    REQUEST,
    TAKEN,
    HandoverError,
    Offer,
    over,
    refused,
    uid,
)
from .sharer import PICKLE, detach, share, unshare

__all__ = ["LIFETIME", "HandoverError", "Offer", "claim", "offer", "withdraw"]

LIFETIME = 600.0  # seconds until an offer that nobody claims is dropped
LINGER = 10.0  # seconds for which a broker with nothing on offer stays
PATIENCE = 10.0  # seconds for which either side waits for the other

_GRAIN = 0.05  # seconds by which an offer may outlive its time: so that many are looked through seldom
_PAUSE = 0.05  # seconds without accepting, when there is no descriptor left to accept with
_BACKLOG = 1024  # the system may know a lower limit
_CLIENTS = 128  # at once; one more pushes out the one that has been silent for longest


def offer(fds: Sequence[int], expired: Callable[[], object]) -> Offer:
    """Put copies of these descriptors on offer, to be claimed once, by any process of this user, or this one.

    After `LIFETIME` seconds without a claim the copies are closed and `expired()` is called, in another thread, with
    no lock held (not where `multiprocessing.resource_sharer` is used: there they stay until the process ends).
    `ValueError` for none, or more than 16; `OSError` if there is no descriptor left, and then nothing has happened.
    Never waits.
    """
    if not 0 < len(fds) <= MOST:
        raise ValueError(f"an offer is of 1 to {MOST} descriptors, not {len(fds)}")
    if not _abstract_sockets():
        return share(fds, next(_numbers))
    nonce = os.urandom(NONCE)
    with _lock:
        broker = _running()
        entry = _Entry(next(_numbers), nonce, duplicate(fds), expired)
        broker.add(entry)
        return Offer(broker.address, entry.number, nonce, os.getpid())


def claim(offer: Offer) -> list[int]:
    """Take what is on offer: new descriptors, close-on-exec, in the order in which they were offered.

    Waits for the process that offered, at most `PATIENCE` seconds and uninterrupted by cancellation; not at all if
    that is this one. `HandoverError` if it has gone or does not answer, if the offer was claimed already or has
    expired, or if it is refused. `OSError` if there is no descriptor left here: the offer stands, to be claimed again.
    """
    if offer.address.startswith(PICKLE):
        return detach(offer, PATIENCE)
    try:
        request = REQUEST.pack(MAGIC, offer.number, offer.nonce)
    except struct.error as error:
        raise refused(offer) from error
    if len(offer.nonce) != NONCE or not offer.address.startswith(b"\0"):
        raise refused(offer)
    with _lock:
        ours = _broker is not None and _broker.address == offer.address
        entry = _take(offer)
    if entry is not None:
        return entry.fds
    if ours:
        raise over(offer)
    return ask(offer, request, PATIENCE)


def withdraw(offer: Offer) -> bool:
    """Take an offer of this process back if nobody has claimed it; `expired` is not called. Says whether it was there.

    False also while somebody is claiming it; should that fail, the offer will expire.
    """
    if offer.address.startswith(PICKLE):
        return unshare(offer, PATIENCE)
    with _lock:
        try:
            entry = _take(offer)
        except HandoverError:  # a wrong nonce
            return False
        if entry is not None:
            close_all(entry.fds)
    return entry is not None


# ===================================================================== in the process that offers
_lock = threading.RLock()
_numbers = itertools.count(1)
_broker: _Broker | None = None


class _Entry:
    """What is on offer under one number."""

    __slots__ = ("deadline", "expired", "fds", "nonce", "number")

    def __init__(self, number: int, nonce: bytes, fds: list[int], expired: Callable[[], object]) -> None:
        self.number = number
        self.nonce = nonce
        self.fds = fds
        self.expired = expired
        self.deadline = time.monotonic() + LIFETIME

    def tell(self) -> None:
        """Its time is over."""
        try:
            self.expired()
        except BaseException as error:
            report(error, "Error when an offer had expired", self.expired)


class _Client:
    """Who has connected; `held` is what it was sent and has not acknowledged."""

    __slots__ = ("deadline", "held", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held: _Entry | None = None
        self.deadline = time.monotonic() + PATIENCE


class _Broker:
    """The socket that listens, and all that is on offer. To be made, and used, under `_lock`."""

    __slots__ = (
        "__weakref__",
        "address",
        "bell",
        "clients",
        "closed",
        "due",
        "finalizer",
        "listener",
        "offers",
        "paused",
        "settled",
        "since",
    )

    def __init__(self) -> None:
        self.offers: dict[int, _Entry] = {}
        self.clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self.settled: list[_Entry] = []  # taken; dropped once no lock is held, since that may run code of others
        self.due = math.inf  # when to look for offers that have expired
        self.since: float | None = None  # nothing has been on offer
        self.paused = 0.0  # until then, nobody is accepted
        self.closed = False
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.listener.setblocking(False)
            self.listener.bind(b"")
            self.listener.listen(_BACKLOG)
            self.address: bytes = self.listener.getsockname()
            self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            self.listener.close()
            raise
        # At exit multiprocessing first joins its children, which may still claim, and then flushes its queues, which
        # may still offer; both before what has so low a priority.
        self.finalizer = util.Finalize(None, self.close, exitpriority=-100)
        if util.is_exiting():  # it may be past that
            atexit.register(self.close)

    def add(self, entry: _Entry) -> None:
        self.offers[entry.number] = entry
        self.since = None
        if entry.deadline < self.due:
            self.due = entry.deadline
            os.eventfd_write(self.bell, 1)

    def close(self) -> None:
        """Close everything; the thread ends by itself."""
        global _broker
        with _lock:
            if self.closed:
                return
            self.closed = True
            if _broker is self:
                _broker = None
            entries = [*self.offers.values(), *(client.held for client in self.clients.values() if client.held)]
            self.offers.clear()
            for client in self.clients.values():
                client.sock.close()
            self.clients.clear()
            self.listener.close()
            for entry in entries:
                close_all(entry.fds)
            os.eventfd_write(self.bell, 1)  # in a child this wakes the thread of the parent, which will not mind
            os.close(self.bell)
            self.finalizer.cancel()

    def serve(self) -> None:
        """The thread."""
        ready: list[tuple[int, int]] = []
        try:
            while True:
                with _lock:
                    if self.closed:
                        return
                    self.attend({fd for fd, _ in ready})
                    late = self.sweep()
                    settled, self.settled = self.settled, []
                    wait = self.rest()
                    poll = self.poll()
                    if wait is None:
                        self.close()
                settled.clear()
                hurry = bool(late)
                while late:
                    late.pop().tell()
                if wait is None:
                    return
                ready = poll.poll(0 if hurry else math.ceil(wait * 1000))
        finally:
            self.close()

    def attend(self, ready: Container[int]) -> None:
        """Do what can be done at once for those who have said something, and for those who took too long."""
        now = time.monotonic()
        if self.bell in ready:
            os.eventfd_read(self.bell)
        for fd, client in list(self.clients.items()):
            if fd in ready or client.deadline <= now:
                self.turn_to(fd, client, late=fd not in ready)
        if self.listener.fileno() in ready:
            self.accept()

    def accept(self) -> None:
        for _ in range(_CLIENTS):
            try:
                sock, _address = self.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor, or no memory, left: whoever waits to be accepted goes on waiting
                self.paused = time.monotonic() + _PAUSE
                return
            sock.setblocking(False)
            if uid(sock) != os.geteuid():
                sock.close()
                continue
            if len(self.clients) >= _CLIENTS:
                silent = ((fd, client) for fd, client in self.clients.items() if client.held is None)
                if (oldest := next(silent, None)) is not None:
                    self.turn_to(*oldest, late=False)  # it may have spoken by now
            self.clients[sock.fileno()] = _Client(sock)

    def turn_to(self, fd: int, client: _Client, *, late: bool) -> None:
        try:
            if self.hear(client, late=late):
                return
        except OSError:  # it has gone, or has nothing to say
            pass
        self.dismiss(fd, client)

    def hear(self, client: _Client, *, late: bool) -> bool:
        """What a client has said. Whether it may stay."""
        if late:
            client.sock.shutdown(socket.SHUT_RDWR)  # from here on it cannot say that it has taken what it was sent
        # What does not fit in is dropped by the kernel, and so are descriptors that somebody may send here.
        message = client.sock.recv(REQUEST.size + 1)
        if client.held is not None:
            if message == TAKEN:
                close_all(client.held.fds)
                self.settled.append(client.held)
                client.held = None
            return False
        if late or len(message) != REQUEST.size:
            return False
        magic, number, nonce = REQUEST.unpack(message)
        if magic != MAGIC:
            return False
        return self.answer(client, number, nonce)

    def answer(self, client: _Client, number: int, nonce: bytes) -> bool:
        entry = self.offers.get(number)
        if entry is None:
            client.sock.send(REPLY.pack(OVER, 0, 0))
            return False
        if not hmac.compare_digest(entry.nonce, nonce):
            client.sock.send(REPLY.pack(REFUSED, 0, 0))
            return False
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", entry.fds))
        client.held = self.offers.pop(number)
        client.deadline = time.monotonic() + PATIENCE
        try:
            client.sock.sendmsg([REPLY.pack(HERE, len(entry.fds), 0)], [rights])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as error:  # ETOOMANYREFS, say: too many are under way for this user
            client.sock.send(REPLY.pack(FAILED, 0, error.errno or 0))
            return False
        return True

    def dismiss(self, fd: int, client: _Client) -> None:
        """What it did not take is on offer again."""
        del self.clients[fd]
        client.sock.close()
        if client.held is not None:
            self.offers[client.held.number] = client.held
            self.due = min(self.due, client.held.deadline)

    def sweep(self) -> list[_Entry]:
        """Drop what has expired."""
        now = time.monotonic()
        if now < self.due:
            return []
        late = [entry for entry in self.offers.values() if entry.deadline <= now]
        for entry in late:
            del self.offers[entry.number]
            close_all(entry.fds)
        first = min((entry.deadline for entry in self.offers.values()), default=math.inf)
        self.due = max(first, now + _GRAIN)
        return late

    def rest(self) -> float | None:
        """How long there is nothing to do unless somebody comes; None if it is time to end."""
        now = time.monotonic()
        if self.offers or self.clients:
            self.since = None
            times = [self.due, *(client.deadline for client in self.clients.values())]
        else:
            self.due = math.inf  # nobody waits for what it was: the next offer is to ring the bell
            self.since = now if self.since is None else self.since
            times = [self.since + LINGER]
            if times[0] <= now:
                return None
        if self.paused > now:
            times.append(self.paused)
        return max(0.0, min(times) - now)

    def poll(self) -> select.poll:
        poll = select.poll()
        poll.register(self.bell, select.POLLIN)
        if self.paused <= time.monotonic():
            poll.register(self.listener, select.POLLIN)
        for client in self.clients.values():
            poll.register(client.sock, select.POLLIN)
        return poll


def _running() -> _Broker:
    """The broker of this process; under `_lock`."""
    global _broker
    if _broker is None:
        broker = _Broker()
        try:
            start(broker.serve, "chanlib broker")
        except BaseException:
            broker.close()
            raise
        _broker = broker
    return _broker


def _take(offer: Offer) -> _Entry | None:
    """Take it out if it is on offer here; under `_lock`."""
    if _broker is None or _broker.address != offer.address:
        return None
    entry = _broker.offers.get(offer.number)
    if entry is None:
        return None
    if not hmac.compare_digest(entry.nonce, offer.nonce):
        raise refused(offer)
    return _broker.offers.pop(offer.number)


def _after_fork_in_child() -> None:
    global _lock
    held, _lock = _lock, threading.RLock()  # others may be in line for it, and those threads are not here
    if _broker is not None:
        _broker.close()
    held.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_after_fork_in_child,
    )


# ===================================================================== whether there are abstract sockets
def _abstract_sockets() -> bool:
    return os.environ.get("CHANLIB_PROCESSES") != "posix" and _has_abstract_sockets()


@functools.cache
def _has_abstract_sockets() -> bool:
    needed = ((socket, "AF_UNIX"), (socket, "SO_PEERCRED"), (socket, "MSG_CMSG_CLOEXEC"), (os, "eventfd"))
    if not all(hasattr(module, name) for module, name in needed):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:  # no descriptor left is no answer, and not kept
        try:
            sock.bind(b"")
            name: Any = sock.getsockname()
        except OSError:
            return False
    return isinstance(name, bytes) and name.startswith(b"\0")
