"""Where an error goes that nobody is there to catch: as for one in a finalizer, to `sys.unraisablehook`."""

from __future__ import annotations

import sys
import types
from typing import Any, cast

__all__ = ["report"]


def report(error: BaseException, message: str, culprit: object) -> None:
    """Tell of `error`, raised by `culprit` where no caller waits for it."""
    sys.unraisablehook(
        cast(
            Any,
            types.SimpleNamespace(
                exc_type=type(error),
                exc_value=error,
                exc_traceback=error.__traceback__,
                err_msg=message,
                object=culprit,
            ),
        )
    )
