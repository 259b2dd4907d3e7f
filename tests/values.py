"""Values that tell when they die."""

from __future__ import annotations

from collections.abc import Callable


class Thing:
    """It can be watched dying, by a weak reference."""


class Last:
    """It makes a call when it dies."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()
