"""Sending many values: an operation on its own for each chunk, so no arm of a select."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

from ._core.lane import lanes, refuse_loop
from ._core.running import run_here
from .sides import BatchSide

__all__ = ["SendAll"]

T_contra = TypeVar("T_contra", contravariant=True)

_CHUNK = 32  # values that are offered at a time: one operation of the budget


class SendAll(Generic[T_contra]):
    """The sending of many values, not yet begun: `await` it in a task, or `sync()` in a thread, once."""

    __slots__ = ("_channel", "_told", "_values")

    def __init__(self, channel: BatchSide[T_contra], values: Iterable[T_contra]) -> None:
        self._told = False  # somebody knows by an error that it did not happen
        self._values: Iterable[T_contra] | None = None
        if not isinstance(values, Iterable):
            raise TypeError(f"send_all() takes an iterable of values, not {values!r}")
        self._channel = channel
        self._values = values

    async def _run(self) -> None:
        values, self._values = self._values, None
        if values is None:
            raise RuntimeError(f"{self!r} has been performed already; make a new one for each time")
        if isinstance(values, (list, tuple)):  # all there: as many at a time as there is room for
            rest: Sequence[T_contra] = values
            while rest:
                chunk = list(rest[:_CHUNK])
                rest = rest[_CHUNK:]
                while chunk:
                    del chunk[: await self._channel.send_some(chunk)]
        else:  # one at a time: nothing is taken from an iterator that is not sent
            for value in values:
                await self._channel.send(value)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._run().__await__()

    def sync(self) -> None:
        """Send all of them from this thread, blocking it as often as the channel is full."""
        try:
            refuse_loop(lanes.lane, "sync()")
        except RuntimeError:
            self._told = True
            raise
        run_here(self._run())

    def __repr__(self) -> str:
        return f"<send_all to {self._channel!r}>"

    def __del__(self) -> None:
        if self._values is not None and not self._told:
            warnings.warn(f"{self!r} was never performed: await it, or call its sync()", RuntimeWarning, stacklevel=2)
