"""What `with` and `async with` do: close at the end, or hold something inside."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ._core.engine import Op
from ._core.lane import lanes, refuse_loop

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ClosedAtEnd", "HeldInside"]


class ClosedAtEnd:
    """Mixed into what has a `close(cause)`: leaving the block closes it, with the error that leaves it as the cause."""

    __slots__ = ()

    def close(self, cause: BaseException | None = None) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(error)


class HeldInside:
    """Mixed into what has `acquire()` and `release()`: held inside the block."""

    __slots__ = ()

    def acquire(self) -> Op[None]:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __enter__(self) -> Self:
        refuse_loop(lanes.lane, f"`with` over a {type(self).__name__.lower()}")
        self.acquire().sync()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
