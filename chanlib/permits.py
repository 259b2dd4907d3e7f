"""Permit: places of a channel that are ours to fill, without waiting, whenever we like."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._core.engine import CANCELLED, Places, Reentered
from .errors import ChannelClosed

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Permit"]

T_contra = TypeVar("T_contra", contravariant=True)


class Permit(Places, Generic[T_contra]):
    """Places in a channel, granted by `reserve(n)`: `send` fills one, `release` or leaving `with` gives back the rest.

    A permit that was granted before the channel was closed is honoured after it. One that is dropped with places
    left gives them back and warns (`ResourceWarning`). It may be handed to another task or thread.
    Source of the semantics: tokio's `mpsc::Permit`.
    """

    __slots__ = ()

    def send(self, value: T_contra, /) -> None:
        """Put `value` into one of the places. Never blocks.

        Raises `RuntimeError` if no place is left, and `HandleClosed` if the channel was cancelled; the value is not
        sent then.
        """
        try:
            sent = self._ring._locked(self._use, value)
        except Reentered as inside:
            inside.source._defer(lambda: self._send_late(value))
            return
        if not sent:
            raise RuntimeError(f"{self!r} has no place left: each can be used or given back once")

    def _send_late(self, value: T_contra) -> None:
        try:
            self.send(value)
        except ChannelClosed:
            self._ring._locked(self._ring._discard, [value])

    def release(self) -> None:
        """Give back the places that are left. Never blocks; once more has no effect."""
        try:
            self._ring._locked(self._give_up)
        except Reentered as inside:
            inside.source._defer(self.release)

    @property
    def left(self) -> int:
        """How many places are left."""
        return self._left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: its places can be used once")

    def __repr__(self) -> str:
        return f"<Permit for {self._left} of {self._count} place(s) of {self._ring!r}>"

    def __del__(self) -> None:
        if getattr(self, "_left", 0) and self._ring._end < CANCELLED:  # nobody misses places in what was cancelled
            try:
                warnings.warn(
                    f"{self!r} was dropped: send with it, release() it, or use `with`",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
            finally:  # the warning may be an error
                self.release()
