"""What happens beside the body of a test: in another thread, or while others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from chanlib import checkpoint, current_time
from chanlib._core.lane import World, lanes, world

NET = 20.0  # seconds after which something that should settle is given up: a safety net


async def settle(predicate: Callable[[], object]) -> None:
    """Wait until `predicate()` holds, while the others go on. A cancellation is felt here."""
    end = time.monotonic() + NET
    turns = 0
    while not predicate():
        await checkpoint()
        turns += 1
        if turns > 50 or world(lanes.lane) is World.DRIVEN:
            time.sleep(0.0002)  # it is for another thread to do: let it
        assert time.monotonic() < end, f"not settled within {NET} s"


async def parked(*things: Any) -> None:
    """Wait until somebody waits on each of these."""
    await settle(lambda: all(waiting(thing) for thing in things))


def waiting(thing: Any) -> int:
    """How many wait on it, whatever kind of primitive it is."""
    statistics = thing.statistics()
    return sum(getattr(statistics, name) for name in statistics._fields if name.startswith("waiting"))


async def passed(instant: float) -> None:
    """Wait until the clock of this world is past `instant`, whoever is cancelled meanwhile. Blocks its loop."""
    while current_time() < instant:
        time.sleep(0.001)


class Elsewhere:
    """`fn(*args)` in a thread of its own: `join()` gives its result, or raises its error."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._live, args=(fn, args), daemon=True)
        self.thread.start()

    def _live(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.result = fn(*args)
        except BaseException as error:
            self.error = error

    def join(self) -> Any:
        self.thread.join(NET)
        assert not self.thread.is_alive(), f"not over within {NET} s"
        if self.error is not None:
            raise self.error
        return self.result

    async def over(self) -> Any:
        """As `join`, without blocking a loop."""
        await settle(lambda: not self.thread.is_alive())
        return self.join()


def once_parked(thing: Any, act: Callable[[], Any], count: int = 1) -> Elsewhere:
    """Call `act()` in another thread as soon as `count` wait on `thing`."""

    def live() -> Any:
        end = time.monotonic() + NET
        while waiting(thing) < count:
            time.sleep(0.0005)
            assert time.monotonic() < end, f"nobody waits on {thing!r}"
        return act()

    return Elsewhere(live)
