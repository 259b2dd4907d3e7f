"""How a handle gets to another process: what it is pickled to, and how it comes to life there.

Three ways, by what is going on: a process is being started with the handle among its arguments (`multiprocessing`
passes descriptors on); the handle is part of a message of a process channel, which carries them (`courier`); or it is
pickled for something else, an executor or a queue, and the receiving process comes for them (`broker`).
A forked process needs none of them.

Whichever way, pickling makes a clone, which counts here until it counts there.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from functools import partial
from multiprocessing import reduction
from typing import Any, TypeVar, cast

from .broker import Offer, claim, offer
from .courier import board, here
from .descriptors import close_all
from .pump import Pumped
from .shared import Passage, Shared

__all__ = ["Token", "arrive", "depart"]

S = TypeVar("S", bound=Shared)
Token = tuple[Any, ...]
"""What stands for a handle in a pickle: the channel, the slot it comes from, its directions, and the way it goes."""

_multiprocessing: Any = importlib.import_module("multiprocessing.context")


class _Aboard:
    """Its descriptors travel with a message."""

    def __init__(self, conduit: Shared, sends: bool, receives: bool) -> None:
        self.fds: Sequence[int] = conduit.duplicates(sends, receives)
        self._turn_back = partial(conduit.turn_back, sends, receives)

    def arrived(self) -> None:
        close_all(self.fds)
        self.fds = ()

    def turned_back(self) -> None:
        self.arrived()
        self._turn_back()


def depart(conduit: Shared | Pumped, sends: bool, receives: bool) -> Token:
    if isinstance(conduit, Pumped):
        return conduit.depart(sends, receives)
    passage = Passage(sends, receives)
    try:
        slot = conduit.fly(passage)
        way = _way(conduit, sends, receives)
    except BaseException:
        if passage.counted:
            conduit.turn_back(sends, receives)
        raise
    return (conduit.key, slot, sends, receives, *way)


def _way(conduit: Shared, sends: bool, receives: bool) -> tuple[str, Any]:
    popen: Any = _multiprocessing.get_spawning_popen()
    if popen is not None:
        passed = [_passed(popen, fd) for fd in conduit.fds(sends, receives)]
        weakref.finalize(popen, _spawned, popen.__dict__, conduit, sends, receives)
        return "passed", passed
    if here.flights is not None:
        flight = _Aboard(conduit, sends, receives)
        try:
            return "aboard", board(here.flights, flight)
        except BaseException:
            flight.arrived()
            raise
    fds = conduit.duplicates(sends, receives)
    try:
        made = offer(fds, partial(conduit.turn_back, sends, receives))
    finally:
        close_all(fds)
    return "offered", made


def _passed(popen: Any, fd: int) -> Any:
    """`fd`, for the process that is being started. One that is spawned is not to be passed the same one twice."""
    if getattr(popen, "method", None) == "spawn" and fd in getattr(popen, "_fds", ()):
        return popen.DupFd(fd)
    dup: Any = reduction.DupFd
    return dup(fd)


def _spawned(popen: dict[str, Any], conduit: Shared, sends: bool, receives: bool) -> None:
    """The object of a process that was to be started is gone. Has that process ever been there?"""
    if not popen.get("pid"):
        conduit.turn_back(sends, receives)


def arrive(token: Token, kind: type[S]) -> tuple[S, int]:
    """What a handle of this kind leads to that has come here, and the slot where it still counts.

    Raises if it cannot be had: OSError, HandoverError.
    """
    if issubclass(kind, Pumped):
        return cast("tuple[S, int]", Pumped.arrive(token))
    key, slot, sends, receives, way, where = token
    count = 1 + kind.sockets * (sends + receives)
    if way == "passed":
        fds = [one.detach() for one in where]
    elif way == "aboard":
        aboard = here.fds
        if aboard is None or len(aboard) < where + count:
            raise OSError("the descriptors of this handle have not come along")
        fds = aboard[where : where + count]
        aboard[where : where + count] = [-1] * count
    else:
        fds = claim(Offer(*where))
    return kind.arrive(key, fds, sends, receives), slot
