"""A call that a pool is to make, and its result: `WorkerFuture`.

A call is taken by one driver; it may be handed back if it has not begun, and be taken by another one. While it is in
the queue for a second time its future is marked as running already, so it cannot be cancelled as one that is pending.
Who ends it then decides `_claims`: it has an element while the call is in there, and whoever pops that, a driver or
`cancel`, owns the call (`list.pop` is atomic).

Invariants:
- who cancels a call that is with a driver writes `_unwanted` first, and rings then; a driver that has taken one writes
  `_attention` first, and looks at `_unwanted` then. Whoever comes second sees the other.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from .._core.engine import Op
from ..events import Event
from ..futures import Future

__all__ = ["Call", "WorkerFuture", "ended"]

T = TypeVar("T")


class WorkerFuture(concurrent.futures.Future[T], Generic[T]):
    """The result of a call that a pool makes: a `concurrent.futures.Future` that can be awaited, in any world.

    It is an arm of `select` as well. Cancelling who waits for it does not cancel the call; `cancel()` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._attention: Event | None = None  # of the driver that has the call
        self._claims: list[bool] = []
        self._unwanted = False
        self._stopped = False
        self._waited: Future[T] | None = None

    def cancel(self) -> bool:
        """Cancel the call. One that runs is stopped, if need be with its process. False if it has ended otherwise.

        Never blocks. A call that is under way ends as cancelled a moment later, or with its result if it is faster.
        """
        if super().cancel():
            return True
        if self.done():
            return self.cancelled()
        self._unwanted = True
        if self._claim():
            self._end_cancelled()
        elif self._attention is not None:
            self._attention.set()
        return True

    def cancelled(self) -> bool:
        """Whether it has ended as cancelled."""
        return self._stopped or super().cancelled()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception it ended with, or None. Raises `CancelledError` if it was cancelled, `TimeoutError`."""
        error = super().exception(timeout)
        if self._stopped:
            assert error is not None
            raise error
        return error

    def wait(self) -> Op[T]:
        """Wait for the result: its value, or its exception, raised."""
        if self._waited is None:
            self._waited = Future[T].from_concurrent(self)
        return self._waited.wait()

    __op__ = wait

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait().__await__()

    # ------------------------------------------------------------- for the pool
    def _claim(self) -> bool:
        try:
            return self._claims.pop()
        except IndexError:
            return False

    def _end_cancelled(self) -> None:
        self._stopped = True
        self._end(None, concurrent.futures.CancelledError())

    def _end(self, value: Any, error: BaseException | None = None) -> None:
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:  # its user has done so
            pass


class Call:
    """A call that is to be made: what goes to a worker, and what its driver must know."""

    __slots__ = ("future", "limit", "returned", "starts", "what")

    def __init__(self, what: tuple[Any, ...], future: WorkerFuture[Any], limit: float | None) -> None:
        self.what = what  # kept until it is answered: it may have to be given to another worker
        self.future = future
        self.limit = limit
        self.returned = False  # is it in the queue for a second time?
        self.starts = 0  # workers that have died when they had it, and had not begun it

    def take(self, attention: Event | None) -> bool:
        """It is out of the queue; its driver hears by `attention` that it is cancelled. False: it was before."""
        future = self.future
        future._attention = attention
        if not self.returned:
            return future.set_running_or_notify_cancel()
        self.returned = False
        return future._claim()

    def hand_back(self) -> bool:
        """It goes back to the queue. False: it was cancelled."""
        future = self.future
        self.returned = True
        future._claims.append(True)
        if future._unwanted and future._claim():
            future._end_cancelled()
        return not future.done()


async def ended(future: WorkerFuture[Any]) -> None:
    """Wait for the end, whatever it is."""
    try:
        await future
    except BaseException as error:
        if not future.done():
            raise
        del error
