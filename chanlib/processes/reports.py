"""How the work of a process went, as bytes: its result, or its error with the traceback.

Whatever a process says must arrive. An error that cannot be pickled, or not be unpickled in the parent, comes as a
`RemoteError` with its name and its words; in an exception group only those are replaced that cannot be had.
A result that cannot be pickled is an error.

Source of the idea that a remote traceback is the cause of the error: `concurrent.futures`.
"""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any, cast

from ..errors import RemoteError

__all__ = ["RemoteTraceback", "pack_error", "pack_result", "unpack_error", "unpack_result"]

_cause: Any = vars(BaseException)["__cause__"]  # a class may refuse to have attributes set; this it cannot refuse
_FAULTS = (Exception, SystemExit, GeneratorExit)  # of how an error is pickled; an interrupt is none


class RemoteTraceback(Exception):
    """The traceback of an error of another process, as text: the `__cause__` of the error here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"in another process\n\n{self.text}"


def pack_result(value: Any, name: str) -> bytes:
    """PicklingError if it cannot be."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise pickle.PicklingError(
            f"the result of {name}, of type {type(value).__qualname__}, cannot be sent to its parent: {_said(error)}"
        ) from error


def unpack_result(body: bytes | bytearray, name: str) -> Any:
    """UnpicklingError if it cannot be had here."""
    try:
        return pickle.loads(body)
    except Exception as error:
        raise pickle.UnpicklingError(f"the result of {name} cannot be unpickled here: {_said(error)}") from error


def pack_error(error: BaseException, since: str) -> bytes:
    """Never fails. `since`: the module whose own frames, the outermost, are no matter of the reader."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == since:
        trace = trace.tb_next
    text = _text(error, trace)
    kind, said = _kind(error), _said(error)
    try:
        body = pickle.dumps(_portable(error), 5)
    except _FAULTS:
        body = b""
    return pickle.dumps((kind, said, text, body), 5)


def unpack_error(body: bytes | bytearray) -> BaseException:
    """Never fails."""
    kind, said, text, pickled = pickle.loads(body)
    error: Any = None
    try:
        error = pickle.loads(pickled)
    except _FAULTS:
        pass
    if not issubclass(type(error), BaseException) or isinstance(error, GeneratorExit):  # which is no error here
        error = RemoteError(kind, said, text)
    found: BaseException = error
    _cause.__set__(found, RemoteTraceback(text))
    return found


def _portable(error: BaseException) -> BaseException:
    """The error itself if it survives the way, else what stands for it."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        parts = [_portable(one) for one in group.exceptions]
        if all(a is b for a, b in zip(parts, group.exceptions, strict=True)) and _survives(group):
            return group
        return BaseExceptionGroup(group.message, parts)
    return error if _survives(error) else RemoteError(_kind(error), _said(error), _text(error, error.__traceback__))


def _survives(error: BaseException) -> bool:
    try:
        return isinstance(pickle.loads(pickle.dumps(error, 5)), BaseException)
    except _FAULTS:
        return False


def _text(error: BaseException, trace: TracebackType | None) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # of a `__str__` or the like that is the user's
        return f"{_kind(error)}\n"


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _said(error: BaseException) -> str:
    try:
        return "".join([str(error)])  # a string of a class of the user's may not survive the way
    except Exception:
        return ""
