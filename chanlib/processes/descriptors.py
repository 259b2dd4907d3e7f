"""Several descriptors at once."""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["close_all", "duplicate"]


def duplicate(fds: Iterable[int]) -> list[int]:
    """Descriptors of our own for the same things, which no child inherits: all of them, or OSError."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except BaseException:
        close_all(made)
        raise
    return made


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:  # it is closed all the same
            pass
