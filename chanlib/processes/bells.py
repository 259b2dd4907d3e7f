"""Bells: how a process that has put something in wakes those that sleep, and how the kernel counts ends.

A bell is a pair of connected sockets. All senders hold one of them, all receivers the other. A byte from the senders
says that there is something, one from the receivers that there is room; it is only sent if somebody has said that he
sleeps. When the last process that holds one of the two is gone, in whatever way, those with the other one see a
hang-up. A second pair carries descriptors, if there are any to be carried.

A socket is closed when nobody in this process uses it any more: a thread may still sleep on it.
"""

from __future__ import annotations

import select
import socket

__all__ = ["Bell", "pair"]


class _Line(socket.socket):
    """A socket that is closed without a word when nobody has it any more."""

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


class Bell:
    """One of the two. Where nothing is carried `parcels` is `socket`."""

    __slots__ = ("fd", "parcels", "socket")

    def __init__(self, bell: socket.socket, parcels: socket.socket) -> None:
        self.socket = bell
        self.parcels = parcels
        self.fd = bell.fileno()
        bell.setblocking(False)
        parcels.setblocking(False)

    @classmethod
    def of(cls, fds: list[int]) -> Bell:
        sockets = [_Line(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd) for fd in fds]
        return cls(sockets[0], sockets[-1])

    def fds(self) -> list[int]:
        return [self.fd] if self.parcels is self.socket else [self.fd, self.parcels.fileno()]

    def ring(self) -> None:
        """Wake those who sleep on the other side."""
        try:
            self.socket.send(b"!", socket.MSG_NOSIGNAL if hasattr(socket, "MSG_NOSIGNAL") else 0)
        except OSError:  # rung often enough; nobody is there
            pass

    def silence(self) -> None:
        """It has been heard."""
        try:
            self.socket.recv(4096)
        except OSError:
            pass

    def hung_up(self) -> bool:
        """Is nobody on the other side any more?"""
        poll = select.poll()  # one of its own: a process that is forked meanwhile could not use one that is in use
        poll.register(self.fd, 0)
        return bool(poll.poll(0))


def pair(sockets: int = 2) -> tuple[Bell, Bell]:
    """That of the senders and that of the receivers, each of so many sockets.

    Raises OSError if there are no descriptors to be had.
    """
    made: list[socket.socket] = []
    for _ in range(sockets):
        for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM):
            made.append(_Line(one.family, one.type, 0, one.detach()))
    return Bell(made[0], made[-2]), Bell(made[1], made[-1])
