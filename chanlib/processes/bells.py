"""Bells: how a process that has put something in wakes those that sleep, and how the kernel counts ends.

A bell is a pair of connected sockets. All senders hold one of them, all receivers the other. A byte from the senders
says that there is something, one from the receivers that there is room; it is only sent if somebody has said that he
sleeps. When the last process that holds one of the two is gone, in whatever way, those with the other one see a
hang-up. A second pair carries descriptors.

A socket is closed when nobody in this process uses it any more: a thread may still sleep on it.
"""

from __future__ import annotations

import os
import select
import socket

__all__ = ["Bell", "pair"]


class Bell:
    """One of the two."""

    __slots__ = ("_hung_up", "fd", "parcels", "socket")

    def __init__(self, bell: socket.socket, parcels: socket.socket) -> None:
        self.socket = bell
        self.parcels = parcels
        self.fd = bell.fileno()
        bell.setblocking(False)
        parcels.setblocking(False)
        self._hung_up = select.poll()
        self._hung_up.register(self.fd, 0)

    @classmethod
    def of(cls, fds: list[int]) -> Bell:
        bell, parcels = fds
        return cls(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, bell),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, parcels),
        )

    def fds(self) -> list[int]:
        return [self.fd, self.parcels.fileno()]

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
        return bool(self._hung_up.poll(0))

    def close(self) -> None:
        self.socket.close()
        self.parcels.close()

    __del__ = close


def pair() -> tuple[Bell, Bell]:
    """That of the senders and that of the receivers. Raises OSError if there are no descriptors to be had."""
    made: list[socket.socket] = []
    try:
        made += socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        made += socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Bell(made[0], made[2]), Bell(made[1], made[3])
    except BaseException:
        for one in made:
            one.close()
        raise


def duplicate(fds: list[int]) -> list[int]:
    """Descriptors of our own for the same things: all of them, or OSError."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    return made


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()
