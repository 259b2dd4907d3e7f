"""What may be asked for in the middle of an operation of the same thread, by a finalizer or a signal handler.

The lock of a source is not waited for there (`Reentered`): the thread that has it stands below. What was to be done is
done when that operation lets go of its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .engine import Reentered

__all__ = ["now_or_after"]

T = TypeVar("T")


def now_or_after(step: Callable[[], T], otherwise: T) -> T:
    """`step()`, or `otherwise` if that has to come later."""
    try:
        return step()
    except Reentered as inside:
        inside.source._defer(lambda: now_or_after(step, otherwise))
        return otherwise
