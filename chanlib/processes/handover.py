"""How a handle gets to another process: what it is pickled to, and how it comes to life there.

Three ways, by what is going on: a process is being started with the handle among its arguments (`multiprocessing`
passes descriptors on); the handle is part of a message of a process channel, which carries them (`courier`); or it is
pickled for something else, an executor or a queue, and the receiving process comes for them (`broker`).
A forked process needs none of them.

Whichever way, pickling makes a clone, which counts here until it counts there.
"""

from __future__ import annotations

import os
import weakref
from functools import partial
from multiprocessing import context, reduction
from typing import Any

from .bells import close_all
from .broker import Offer, claim, offer
from .conduit import Conduit
from .courier import here

__all__ = ["Token", "arrive", "depart"]

Token = tuple[Any, ...]
"""What stands for a handle in a pickle: the channel, the slot it comes from, its directions, and the way it goes."""

_spawning: Any = context


class _Aboard:
    """Its descriptors travel with a message."""

    def __init__(self, conduit: Conduit, sends: bool, receives: bool) -> None:
        self.fds = conduit.duplicates(sends, receives)
        self._land = partial(conduit.land, sends, receives)

    def arrived(self) -> None:
        self._over(True)

    def turned_back(self) -> None:
        self._over(False)

    def _over(self, arrived: bool) -> None:
        close_all(self.fds)
        self._land(arrived)


def depart(conduit: Conduit, sends: bool, receives: bool) -> Token:
    slot = conduit.fly(sends, receives)
    try:
        way = _way(conduit, sends, receives)
    except BaseException:
        conduit.land(sends, receives, False)
        raise
    return (conduit.key, slot, sends, receives, *way)


def _way(conduit: Conduit, sends: bool, receives: bool) -> tuple[str, Any]:
    popen = _spawning.get_spawning_popen()
    if popen is not None:
        dup: Any = reduction.DupFd
        passed = [dup(fd) for fd in conduit.fds(sends, receives)]
        weakref.finalize(popen, _spawned, vars(popen), conduit, sends, receives)
        return "passed", passed
    if here.courier is not None:
        return "aboard", here.courier.board(_Aboard(conduit, sends, receives))
    fds = conduit.duplicates(sends, receives)
    try:
        made = offer(fds, partial(conduit.land, sends, receives, False))
    finally:
        close_all(fds)
    return "offered", made


def _spawned(popen: dict[str, Any], conduit: Conduit, sends: bool, receives: bool) -> None:
    """The object of a process that was to be started is gone. Has that process ever been there?"""
    conduit.land(sends, receives, bool(popen.get("pid")))


def arrive(token: Token) -> Conduit:
    """The conduit of a handle that has come here. Raises if it cannot be had: OSError, HandoverError."""
    key, slot, sends, receives, way, where = token
    count = 1 + 2 * sends + 2 * receives
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
    conduit = Conduit.arrive(key, fds, sends, receives)
    conduit.open(sends, receives, slot)
    return conduit
