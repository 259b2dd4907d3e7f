"""Where an error goes that nobody is there to catch: to `sys.unraisablehook`, as one raised by a finalizer."""

from __future__ import annotations

__all__ = ["note", "report"]


def note(error: BaseException, text: str) -> None:
    """Add it to what is shown of the error, unless that refuses attributes."""
    try:
        error.add_note(text)
    except Exception:
        pass


def report(error: BaseException, message: str, culprit: object) -> None:
    """Tell of `error`, raised by `culprit` where no caller waits for it."""
    note(error, f"{message}: {culprit!r}")
    _Unheard(error)  # the hook takes only what the interpreter itself makes of an error in a `__del__`


class _Unheard:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error
