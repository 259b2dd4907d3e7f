"""Where channels, groups and children were made: recorded in debug mode only.

Debug mode is `python -X dev` or `CHANLIB_DEBUG=1`, looked at once, when this module is imported. Without it `recorded`
gives back what it was given, so nothing is recorded and nothing costs: the slot `_made_at` stays empty.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, cast

__all__ = ["DEBUG", "caller", "origin", "recorded"]

F = TypeVar("F", bound=Callable[..., None])

DEBUG = sys.flags.dev_mode or os.environ.get("CHANLIB_DEBUG") == "1"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_DEMO = os.path.join(_PACKAGE, "demo", "")
_LOOPS = ("asyncio", "trio", "anyio", "threading")


def recorded(init: F) -> F:
    """For an `__init__`: in debug mode it leaves in `_made_at` from where it was called."""
    if not DEBUG:
        return init

    @functools.wraps(init)
    def live(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        self._made_at = caller()

    return cast(F, live)


def caller() -> str | None:
    """The file and line of the nearest frame that is not this library's; None if a loop called us."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) or file.startswith(_DEMO):
            if frame.f_globals.get("__name__", "").partition(".")[0] in _LOOPS:
                return None
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def origin(thing: object) -> str | None:
    """Where `thing` was made, as far as that was recorded."""
    return getattr(thing, "_made_at", None)
