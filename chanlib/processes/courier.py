"""Descriptors that travel with a message.

While a message is pickled, handles inside it leave their descriptors for its courier; so does the memory of a message
that is too long. They go through a socket of the channel, numbered as the record is: the kernel keeps them on the way,
also if the sender dies, and closes them if nobody ever takes them.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import starmap
from typing import TYPE_CHECKING, Any, Protocol

from .descriptors import close_all
from .layout import PAIR

if TYPE_CHECKING:
    from .memory import Memory

__all__ = ["Courier", "Flight", "board", "carried", "fetch", "here"]

MOST = 250  # descriptors in one message; the kernel's limit is 253
_SPACE = socket.CMSG_LEN(MOST * array.array("i").itemsize)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Flight(Protocol):
    """An end on its way to another process."""

    fds: Sequence[int]

    def arrived(self) -> None:
        """Its descriptors are on the way by themselves: ours can go."""

    def turned_back(self) -> None:
        """It does not go."""


class Courier:
    __slots__ = ("count", "departed", "flights", "memory", "pid")

    def __init__(self, flights: list[Flight]) -> None:
        self.count = _count(flights)
        self.departed = False
        self.pid = os.getpid()
        self.memory: Memory | None = None
        self.flights = flights

    def take_aboard(self, memory: Memory) -> None:
        self.memory = memory
        self.count += 1

    def depart(self, number: int, through: socket.socket) -> bool:
        """Send all of them under `number`. False: there are too many on the way already."""
        fds = [fd for flight in self.flights for fd in flight.fds]
        if self.memory is not None:
            fds.append(self.memory.fd)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            through.sendmsg([PAIR.pack(number, len(fds))], rights)
        except BlockingIOError:
            return False
        self.departed = True
        return True

    def arrived(self) -> None:
        for flight in self.flights:
            flight.arrived()
        self._done()

    def turn_back(self) -> None:
        for flight in self.flights:
            flight.turned_back()
        self._done()

    def _done(self) -> None:
        self.flights = []
        if self.memory is not None:
            self.memory.close()

    def __del__(self) -> None:
        """A message that was never sent; or whose sender was cut off right after it; or that a fork has copied."""
        if getattr(self, "flights", None) or getattr(self, "memory", None) is not None:
            if self.departed or self.pid != os.getpid():
                self.arrived()
            else:
                self.turn_back()


class Carrier(Protocol):
    """What descriptors have come with."""

    number: int  # under which they were sent
    fds: list[int] | None


def fetch(record: Carrier, through: socket.socket) -> None:
    """Give `record` its descriptors, or none if they cannot be had. What was sent before and never announced is closed.

    An interrupt leaves none open that nobody has: what is received gets into `got` without a step of Python between.
    """
    while True:
        got: list[Any] = []
        try:
            got.extend(starmap(through.recvmsg, ((PAIR.size, _SPACE, _CLOEXEC),)))
            data, ancillary, *_ = got[0]
            number, count = PAIR.unpack(data) if data else (record.number, 1)
            if number == record.number:
                fds = _descriptors(ancillary)
                if len(fds) < count:  # no descriptor was free for the rest
                    break
                for fd in fds:
                    os.set_inheritable(fd, False)
                record.fds = fds
                got.clear()
                return
        except BlockingIOError:
            break
        finally:
            for _, ancillary, *_ in got:
                close_all(_descriptors(ancillary))
    record.fds = []


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def board(flights: list[Flight], flight: Flight) -> int:
    """One more that is to go with a message; the number of its first descriptor."""
    first = _count(flights)
    if first + len(flight.fds) >= MOST:
        raise ValueError(f"one message can carry {MOST} descriptors, and this has more")
    flights.append(flight)
    return first


def _count(flights: list[Flight]) -> int:
    return sum(len(flight.fds) for flight in flights)


class _Here(threading.local):
    flights: list[Flight] | None = None  # of the message that this thread pickles
    fds: list[int] | None = None  # that came with the one it unpickles


here = _Here()


@contextmanager
def carried(fds: list[int] | None) -> Generator[None]:
    """What is unpickled in here has come with these. Those that nobody takes (sets to -1) are closed."""
    before, here.fds = here.fds, fds
    try:
        yield
    finally:
        here.fds = before
        if fds:
            close_all(fd for fd in fds if fd >= 0)
            fds.clear()
