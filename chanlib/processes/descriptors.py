"""Several descriptors at once, and files that must not be closed at any time.

A process that closes any descriptor of a file lets go of all locks that it has on it (`fcntl`). So whoever locks memory
in that way (`FileMutex`) guards it: its descriptors are closed while this process has none of its locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial

__all__ = ["close_all", "duplicate", "guard", "unguard"]

Guard = Callable[[Callable[[], object]], object]
"""Makes a call while this process has no lock on the file, now or soon."""

_guards: dict[tuple[int, int], Guard] = {}


def guard(fd: int, by: Guard) -> None:
    """From now on."""
    _guards[_file(fd)] = by


def unguard(fd: int) -> None:
    """It is about to be closed for the last time."""
    if _guards:
        _guards.pop(_file(fd), None)


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
        by = _guards.get(_file(fd)) if _guards else None
        if by is None:
            _close(fd)
        else:
            by(partial(_close, fd))


def _file(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # it is closed all the same
        pass
