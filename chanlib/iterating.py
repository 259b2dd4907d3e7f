"""Iterating over whatever is received from, until `EndOfChannel`: with `async for`, or `for` in a plain thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from ._core.engine import Op
from ._core.lane import lanes, refuse_loop
from .errors import EndOfChannel

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Received"]

T_co = TypeVar("T_co", covariant=True)


class Received(Generic[T_co]):
    """Mixed into what has a `receive`, or another `__op__`."""

    __slots__ = ()

    def __op__(self) -> Op[T_co]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[T_co]:
        refuse_loop(lanes.lane, f"iterating over a {type(self).__name__.lower()} with `for`")
        return _Items(self.__op__)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return _AsyncItems(self.__op__)

    def __contains__(self, value: object) -> NoReturn:
        raise TypeError(f"`in` is not defined for a {type(self).__name__.lower()}: looking would mean receiving")


class _Items(Iterator[T_co]):
    """Only `EndOfChannel` ends it: after another error, such as `Lagged`, it can go on."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Op[T_co]]) -> None:
        self._receive = receive

    def __next__(self) -> T_co:
        try:
            return self._receive().sync()
        except EndOfChannel:
            raise StopIteration from None


class _AsyncItems(AsyncIterator[T_co]):
    """As `_Items`, for `async for`."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Op[T_co]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        try:
            return await self._receive()
        except EndOfChannel:
            raise StopAsyncIteration from None
