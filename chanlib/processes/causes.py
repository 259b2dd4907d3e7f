"""Causes: why something has ended, as bytes that another process can read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from ..errors import RemoteError

__all__ = ["cause_of", "forms_of"]


def cause_of(data: Any) -> BaseException:
    """What `forms_of` has made of it."""
    try:
        found = pickle.loads(data)
    except Exception as error:
        return RemoteError(type(error).__name__, f"the cause does not unpickle here: {error}")
    return found if isinstance(found, BaseException) else RemoteError("Exception", "an unknown cause")


def forms_of(cause: BaseException) -> Iterator[bytes]:
    """The cause as bytes, from the truest on."""
    try:
        data = pickle.dumps(cause)
        pickle.loads(data)
        yield data
    except Exception:
        pass
    kind = type(cause).__qualname__
    try:
        text = str(cause)
    except Exception:
        text = "(its message cannot be had)"
    try:
        yield pickle.dumps(RemoteError(kind, text[:800]))
    except Exception:  # the interpreter is being taken down
        yield b"N."  # a cause, but not which: None
