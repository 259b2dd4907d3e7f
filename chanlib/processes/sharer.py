"""Descriptors on offer where there are no abstract sockets: `multiprocessing.resource_sharer` does the work.

Its listener has a name in a private folder and asks for `authkey`. Less is certain than with a broker of ours: an
offer does not expire; a claim that fails half-way loses it; one that comes too late is also told of on stderr by the
process that offered; for a moment what is claimed is not close-on-exec; and a child of a bare `os.fork` (not of
multiprocessing) cannot offer if its parent has.

All who want to have an offer begin with its first descriptor, which the sharer gives away once: that decides.
"""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Sequence
from multiprocessing import AuthenticationError, reduction
from typing import TYPE_CHECKING, Any, NoReturn

from .._core.threads import start
from .descriptors import close_all, duplicate
from .offers import HandoverError, Offer, alive, gone, over, refused, silent

if TYPE_CHECKING:
    from multiprocessing.resource_sharer import DupFd

__all__ = ["PICKLE", "detach", "share", "unshare"]

PICKLE = b"\x80"  # how `Offer.address` begins: the pickled `DupFd`s


def share(fds: Sequence[int], number: int) -> Offer:
    try:
        from multiprocessing import resource_sharer
    except ImportError as error:
        raise HandoverError("a handle can be pickled here only as an argument of a process that is started") from error
    mine = duplicate(fds)  # all, or none: what has been given to the sharer is hard to get back
    shared = [_shared(resource_sharer, fd) for fd in mine]
    return Offer(pickle.dumps(shared), number, b"", os.getpid())


def _shared(sharer: Any, fd: int) -> DupFd:
    """As the sharer's `DupFd(fd)`, of a descriptor that is ours to give; it is closed with care for locks."""

    def send(connection: Any, pid: int) -> None:
        pass_on: Any = reduction.send_handle
        pass_on(connection, fd, pid)

    shared: Any = object.__new__(sharer.DupFd)
    shared._id = sharer._resource_sharer.register(send, lambda: close_all([fd]))
    return shared  # type: ignore[no-any-return]


def unshare(offer: Offer, patience: float) -> bool:
    if offer.pid != os.getpid():
        return False
    try:
        close_all(detach(offer, patience))
    except HandoverError:
        return False
    return True


def detach(offer: Offer, patience: float) -> list[int]:
    """In a thread: what the sharer's client does cannot be bounded in time."""
    return _Detaching(offer).result(patience)


class _Detaching:
    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.shared: list[DupFd] = pickle.loads(offer.address)
        self.fds: list[int] = []
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.abandoned = False

    def result(self, patience: float) -> list[int]:
        close_all(_room(len(self.shared) + 2))
        start(self.detach, "chanlib claim")
        try:
            self.over.wait(patience)
        finally:
            with self.lock:
                self.abandoned = True
                fds, self.fds = self.fds, []
        error, self.error = self.error, None  # whose traceback leads to `self`, and to a connection to be closed
        try:
            if error is not None:
                self.fail(error)
        finally:
            del error
        if not fds:
            raise silent(self.offer, patience)
        return fds

    def detach(self) -> None:
        fds: list[int] = []
        try:
            for shared in self.shared:
                fds.append(shared.detach())
                os.set_inheritable(fds[-1], False)  # the sharer's client does not see to it
        except BaseException as error:
            with self.lock:
                if not self.abandoned:
                    self.error = error
        else:
            with self.lock:
                if not self.abandoned:
                    self.fds, fds = fds, []
        close_all(fds)
        self.over.set()

    def fail(self, error: BaseException) -> NoReturn:
        try:
            if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                raise gone(self.offer) from error
            if isinstance(error, (EOFError, ConnectionResetError, BrokenPipeError)):
                raise (over(self.offer) if alive(self.offer.pid) else gone(self.offer)) from error
            if isinstance(error, AuthenticationError):
                raise refused(self.offer) from error
            if isinstance(error, RuntimeError):  # the sharer's word for descriptors that did not all arrive
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: {error}") from error
            raise error
        finally:
            del error


def _room(count: int) -> list[int]:
    """So many descriptors, or `OSError`: the sharer's client would lose what it has no room for."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(os.open(os.devnull, os.O_RDONLY))
    except BaseException:
        close_all(fds)
        raise
    return fds
