"""Iterating over whatever is received from, until `EndOfChannel`: with `async for`, or `for` in a plain thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
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


def items(receive: Callable[[], Op[T]], what: str) -> Generator[T, None, None]:
    """`for` over what `receive()` gives; `what` is named if this is the thread of a running loop."""
    refuse_loop(lanes.lane, f"iterating over {what} with `for`")
    return _items(receive)


def _items(receive: Callable[[], Op[T]]) -> Generator[T, None, None]:
    while True:
        try:
            value = receive().sync()
        except EndOfChannel:
            return
        yield value
