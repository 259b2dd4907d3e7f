"""Where an error goes that nobody is there to catch: to `sys.unraisablehook`, as one raised by a finalizer."""

from __future__ import annotations

__all__ = ["report"]


def report(error: BaseException, message: str, culprit: object) -> None:
    """Tell of `error`, raised by `culprit` where no caller waits for it."""
    error.add_note(f"{message}: {culprit!r}")
    _Unheard(error)  # the hook takes only what the interpreter itself makes of an error in a `__del__`


class _Unheard:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error
