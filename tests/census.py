"""What a test may leave behind: nothing. The fixture `census` counts before each test and after it.

    pytestmark = pytest.mark.usefixtures("census")

    def test_x(backend: str, census: Census) -> None:
        ch = census.watch(Channel[int](0))  # nobody may wait on it in the end

Counted are threads (those which the cache keeps idle may stay), groups that were not left, threads that believe
themselves in a scope, what the lane of the thread of the tests keeps, and those who wait on what the test has
shown to `watch`. Threads may take a moment to end: the census looks again until they have, and gives up after a while.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Collection
from typing import Any, TypeVar

from until import waiting
from worlds import NET

from chanlib import groups
from chanlib._core import lane, threads

T = TypeVar("T")


class Census:
    """What was there before a test; `check` says what has come since."""

    def __init__(self) -> None:
        self.watched: list[Any] = []
        self.before = self.count()
        self.own = self.here()

    def watch(self, thing: T) -> T:
        """Nobody may wait on `thing` when the test is over."""
        self.watched.append(thing)
        return thing

    def count(self) -> dict[str, Collection[Any]]:
        idle = {worker.thread for worker in threads._idle.copy()}
        return {
            "threads that were not there before": set(threading.enumerate()) - idle,
            "groups that were not left": set(groups.entered),
            "threads inside a scope": set(lane.scoped),
        }

    def here(self) -> dict[str, Any]:
        return {name: getattr(lane.lanes.lane, name) for name in ("token", "parked", "alarms", "driving")}

    def left(self) -> list[str]:
        """What is there now and was not before, in words."""
        found = []
        for what, now in self.count().items():
            new = set(now) - set(self.before[what])
            if new:
                found.append(f"{what}: {new}")
        for thing in self.watched:
            count = waiting(thing)
            if count:
                found.append(f"{count} who wait on {thing!r}")
        here = self.here()
        if here != self.own:
            found.append(f"the lane of the thread of the tests is at {here}, not {self.own}")
        return found

    def check(self) -> None:
        end = time.monotonic() + NET
        while (found := self.left()) and time.monotonic() < end:
            time.sleep(0.001)
        if found:
            gc.collect()  # what a finalizer would still have done is not a leak, but worth a word
            after = "" if self.left() else " (gone after a garbage collection)"
            raise AssertionError("left behind: " + "; ".join(found) + after)
