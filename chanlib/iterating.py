"""Iterating over whatever is received from, until `EndOfChannel`: with `async for`, or `for` in a plain thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ._core.engine import Op
from ._core.lane import lanes, refuse_loop
from .errors import EndOfChannel

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Items", "items"]

T = TypeVar("T")


class Items(AsyncIterator[T]):
    """`async for` over what `receive()` gives."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Op[T]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive()
        except EndOfChannel:
            raise StopAsyncIteration from None


class _SyncItems(Iterator[T]):
    """`for` over what `receive()` gives. An error does not end it, only `EndOfChannel` does."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Op[T]]) -> None:
        self._receive = receive

    def __next__(self) -> T:
        try:
            return self._receive().sync()
        except EndOfChannel:
            raise StopIteration from None


def items(receive: Callable[[], Op[T]], what: str) -> Iterator[T]:
    """`for` over what `receive()` gives; `what` is named if this is the thread of a running loop."""
    refuse_loop(lanes.lane, f"iterating over {what} with `for`")
    return _SyncItems(receive)
