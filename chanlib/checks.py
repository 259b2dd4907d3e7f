"""What several primitives ask of their arguments. Each error names the argument and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any

__all__ = ["check_cause", "check_count", "check_function", "check_max", "check_name"]


def check_cause(cause: Any) -> None:
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"cause must be an exception or None, not {cause!r}")


def check_count(value: Any, argument: str, least: int, most: float = math.inf, other: str = "") -> None:
    """`other` is what else would be allowed."""
    if type(value) is int and least <= value <= most:
        return
    span = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    what = f"{argument} must be an integer {span}{other and f', or {other}'}, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(what)
    if not least <= value <= most:
        raise ValueError(what)


def check_function(value: Any, argument: str, of: str, kind: str = "an async function") -> None:
    """What `of` is to call with the arguments that it is given. A coroutine in its place is closed."""
    if callable(value):
        return
    if isinstance(value, Coroutine):
        value.close()
        raise TypeError(f"give the function and its arguments, {of}({argument}, *args), not the coroutine {value!r}")
    raise TypeError(f"{argument} must be {kind}, not {value!r}")


def check_max(value: Any) -> float:
    """How many values to receive at most."""
    if isinstance(value, bool) or not (value == math.inf or isinstance(value, int)) or value < 0:
        raise ValueError(f"max must be an integer of at least 0, or math.inf, not {value!r}")
    return value  # type: ignore[no-any-return]


def check_name(value: Any) -> None:
    """The name of something that goes to other processes."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name must be a string or None, not {value!r}")
