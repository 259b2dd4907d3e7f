"""Waiting, in tests of groups, for something that others do: one form for every backend, and for plain threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from chanlib import CancelScope, checkpoint
from chanlib._core.lane import running_loop

NET = 20.0  # seconds: a safety net


async def until(predicate: Callable[[], object], within: float = NET) -> None:
    """Wait until `predicate()` holds, letting tasks and threads go on; no cancellation of a scope cuts it."""
    end = time.monotonic() + within
    turns = 0
    with CancelScope(shield=True):
        while not predicate():
            await checkpoint()
            turns += 1
            if turns > 50:
                time.sleep(0.0005)  # it is for another thread to do: let it
            assert time.monotonic() < end, f"not within {within} s: {predicate}"


def until_here(predicate: Callable[[], object]) -> None:
    """`until` for plain code in a thread."""
    assert running_loop() is None
    end = time.monotonic() + NET
    while not predicate():
        time.sleep(0.0005)
        assert time.monotonic() < end, f"not within {NET} s: {predicate}"
