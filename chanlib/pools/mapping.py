"""What `WorkerPool.map` gives: an iterator over results, with a window of calls under way.

Invariants:
- `waiting` has the calls that were submitted and whose results were not taken, oldest first: never more than `window`.
- after an error, or `close`, nothing is under way, and the iterator has ended.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .._core.engine import Op
from ..channels import Channel
from ..selecting import select
from ..timers import Timer
from .calls import WorkerFuture

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Results"]

T = TypeVar("T")


def _each(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    try:
        return [fn(*item) for item in chunk]
    except (StopIteration, StopAsyncIteration) as error:  # it would pass for the end of the results
        raise RuntimeError(f"a call of map() raised {type(error).__name__}") from error


class Results(Iterator[T], Generic[T]):
    """The results of `WorkerPool.map`, for a thread that may block; `async for` takes them without blocking.

    `close()`, an error, and dropping it, cancel what is under way.
    """

    def __init__(
        self,
        submit: Callable[..., WorkerFuture[list[T]]],
        fn: Callable[..., T],
        items: Iterator[tuple[Any, ...]],
        chunksize: int,
        window: int,
        ordered: bool,
        end: Timer | None,
    ) -> None:
        self._submit = submit
        self._fn = fn
        self._items = items
        self._chunksize = chunksize
        self._window = window
        self._end = end
        self._failed: Exception | None = None  # of the iterable, or the pool: raised behind the results before it
        self._ready: deque[T] = deque()
        self._waiting: deque[WorkerFuture[list[T]]] = deque()
        self._done: Channel[WorkerFuture[list[T]]] | None = None if ordered else Channel(math.inf)
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        while len(self._waiting) < self._window and self._failed is None:
            try:
                chunk = list(islice(self._items, self._chunksize))
            except Exception as error:
                self._failed = error
                return
            if not chunk:
                return
            try:
                future = self._submit(_each, (self._fn, chunk))
            except Exception as error:
                if not self._waiting and not self._ready:  # whoever begins is to know it at once
                    raise
                self._failed = error
                return
            self._waiting.append(future)
            if self._done is not None:
                future.add_done_callback(cast(Any, self._done.send_nowait))

    # ------------------------------------------------------------- taking results
    def __next__(self) -> T:
        try:
            while not self._ready and self._waiting:
                self._take(*self._next().sync())
            return self._first()
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            while not self._ready and self._waiting:
                self._take(*await self._next())
            return self._first()
        except StopIteration:
            raise StopAsyncIteration from None
        except BaseException:
            self.close()
            raise

    def _next(self) -> Op[Any]:
        return select(self._waiting[0] if self._done is None else self._done.receive(), self._end)

    def _take(self, which: int, found: Any) -> None:
        if which:
            raise TimeoutError("map() has had its time")
        if self._done is None:
            _ = self._waiting.popleft()
            self._ready.extend(found)
        else:
            self._waiting.remove(found)
            self._ready.extend(found.result())
        self._fill()

    def _first(self) -> T:
        if self._ready:
            return self._ready.popleft()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        raise StopIteration

    # ------------------------------------------------------------- the end
    def close(self) -> None:
        """Cancel what is under way, and end."""
        self._items = iter(())
        self._failed = None
        self._ready.clear()
        while self._waiting:
            self._waiting.popleft().cancel()

    def __del__(self) -> None:
        if getattr(self, "_waiting", None):
            self.close()
