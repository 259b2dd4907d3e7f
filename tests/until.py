"""Waiting, in a body that `chanlib.run` drives, for something that others do. (In plain code: `worlds.settle_here`.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from worlds import NET

from chanlib import CancelScope, checkpoint, current_time
from chanlib._core.lane import World, lanes, world


async def until(predicate: Callable[[], object], within: float = NET) -> None:
    """Wait until `predicate()` holds, letting tasks and threads go on; no cancellation of a scope cuts it."""
    with CancelScope(shield=True):
        await settle(predicate, within)


async def settle(predicate: Callable[[], object], within: float = NET) -> None:
    """As `until`, but a cancellation is felt here."""
    end = time.monotonic() + within
    turns = 0
    while not predicate():
        await checkpoint()
        turns += 1
        if turns > 50 or world(lanes.lane) is World.DRIVEN:
            time.sleep(0.0002)  # it is for another thread to do: let it
        assert time.monotonic() < end, f"not within {within} s: {predicate}"


async def parked(*things: Any) -> None:
    """`settle` until somebody waits on each of these."""
    await settle(lambda: all(waiting(thing) for thing in things))


def waiting(thing: Any) -> int:
    """How many wait on it, whatever kind of primitive it is."""
    statistics = thing.statistics()
    return sum(getattr(statistics, name) for name in statistics._fields if name.startswith("waiting"))


async def passed(instant: float) -> None:
    """Wait until the clock of this world is past `instant`, whoever is cancelled meanwhile. Blocks its loop."""
    while current_time() < instant:
        time.sleep(0.001)
