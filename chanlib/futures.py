"""Future: a value that will be there once, for any number of waiters in any world."""

from __future__ import annotations

import asyncio
import concurrent.futures
import types
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from ._core.engine import Latch, Op, Passed, Reentered
from ._core.unraisable import report
from .errors import BrokenFuture, InvalidStateError

__all__ = ["Future", "FutureCancelled", "FutureStatistics", "Promise", "open_future"]

T = TypeVar("T")


_NONE: list[Any] = []  # never changed in place


class FutureCancelled(concurrent.futures.CancelledError):
    """The future was cancelled. An ordinary Exception: the task that awaits it is not cancelled by it."""


class FutureStatistics(NamedTuple):
    """A snapshot of a future."""

    waiting: int
    done: bool


class Future(Latch, Generic[T]):
    """A result that is set once, from anywhere, and then given to everybody who waits or asks.

    Waiting is an operation: `await future`, `future.result(timeout)` in a thread, an arm of `select`. Cancelling a
    wait does not cancel the future.
    """

    __slots__ = ("_callbacks", "_error", "_name", "_state", "_traceback", "_value")

    __hash__ = object.__hash__

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__()
        self._name = name
        self._value: T
        self._error: BaseException | None = None
        self._traceback: types.TracebackType | None = None
        self._callbacks: list[Callable[[Future[T]], object]] = _NONE
        self._state = "pending"

    # ------------------------------------------------------------- setting
    def set_result(self, value: T, /) -> None:
        """Give it its value. Raises `InvalidStateError` if it is done. Never blocks; may be called anywhere."""
        if not self._set_now("done", value, None):
            raise InvalidStateError(f"{self!r} is done already")

    def set_exception(self, error: BaseException, /) -> None:
        """End it with `error`, which every waiter then raises. Raises `InvalidStateError` if it is done."""
        given: Any = error
        if isinstance(given, type) and issubclass(given, BaseException):
            given = given()
        if not isinstance(given, BaseException) or isinstance(given, StopIteration):
            raise TypeError(f"set_exception() takes an exception that is no StopIteration, not {error!r}")
        if not self._set_now("failed", None, given):
            raise InvalidStateError(f"{self!r} is done already")

    def cancel(self) -> bool:
        """End it with `FutureCancelled`. Returns False, and does nothing, if it is done."""
        return self._set_now("cancelled", None, FutureCancelled(f"{self!r} was cancelled"))

    def _set_now(self, state: str, value: Any, error: BaseException | None) -> bool:
        try:
            first: bool = self._locked(self._settle_with, state, value, error)
        except Reentered as inside:
            inside.source._defer(lambda: self._set_now(state, value, error))
            return not self._set
        return first

    def _serve(self) -> None:
        super()._serve()
        calls = [_Callback(self, callback) for callback in self._callbacks]
        self._after += calls  # one store each, with no call between them: an interrupt sees both or neither
        self._callbacks = _NONE

    def _settle_with(self, state: str, value: Any, error: BaseException | None) -> bool:
        if self._set:
            return False
        self._value = value
        self._error = error
        self._traceback = None if error is None else error.__traceback__
        self._state = state
        return self._open()

    # ------------------------------------------------------------- waiting and asking
    def wait(self) -> Op[T]:
        """Wait for the result: its value, or its exception, raised."""
        return Passed(self)

    def __op__(self) -> Op[T]:
        return Passed(self)

    def __await__(self) -> Generator[Any, Any, T]:
        op: Passed[T] = Passed(self)
        return op.__await__()

    def result(self, timeout: float | None = None) -> T:
        """The result, for a thread that may block: up to `timeout` seconds, None without limit.

        Raises the future's exception, or `TimeoutError` if it is not done in time. On the thread of an event loop
        it gives the result of a future that is done, and raises `RuntimeError` otherwise.
        """
        if self._set:
            return self._outcome()
        return self.wait().sync(timeout)

    def exception(self) -> BaseException | None:
        """The exception it ended with, or None; raises `InvalidStateError` if it is not done."""
        if not self._set:
            raise InvalidStateError(f"{self!r} is not done yet")
        return self._error

    def _outcome(self) -> T:
        error = self._error
        if error is not None:
            raise error.with_traceback(self._traceback)
        return self._value

    def _outcome_inside(self) -> T:
        if self._error is not None:
            self._drop(self._error.__traceback__)  # it is replaced, and leads to the frames of an earlier waiter
        return self._outcome()

    def done(self) -> bool:
        """Whether it has a result, an exception, or was cancelled."""
        return self._set

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == "cancelled"

    def add_done_callback(self, callback: Callable[[Future[T]], object], /) -> None:
        """Call `callback(future)` when it is done, now if it is.

        It runs in whichever thread sets the future, outside every lock; an `Exception` that it raises goes to
        `sys.unraisablehook`.
        """
        if not callable(callback):
            raise TypeError(f"add_done_callback() takes a function of one argument, not {callback!r}")
        try:
            self._locked(self._add_callback, callback)
        except Reentered as inside:
            inside.source._defer(lambda: self.add_done_callback(callback))

    def _add_callback(self, callback: Callable[[Future[T]], object]) -> None:
        if self._set:
            self._after.append(_Callback(self, callback))
        elif self._callbacks is _NONE:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    # ------------------------------------------------------------- other people's futures
    def to_concurrent(self) -> concurrent.futures.Future[T]:
        """A `concurrent.futures.Future` that ends as this one does; cancelling it cancels this one."""
        other: concurrent.futures.Future[T] = concurrent.futures.Future()

        def copy(_: Future[T]) -> None:
            if self.cancelled():
                other.cancel()
            if not other.set_running_or_notify_cancel():  # cancelled: this tells `wait` and `as_completed`
                return
            if self._error is None:
                other.set_result(self._value)
            else:
                other.set_exception(self._error)

        other.add_done_callback(lambda done: self.cancel() if done.cancelled() else None)
        self.add_done_callback(copy)
        return other

    def to_asyncio(self) -> asyncio.Future[T]:
        """An `asyncio.Future` of the running loop that ends as this one does; cancelling it cancels this one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("to_asyncio() needs a running asyncio loop to bind the future to") from None
        return asyncio.wrap_future(self.to_concurrent(), loop=loop)

    @classmethod
    def from_concurrent(cls, other: concurrent.futures.Future[T], /) -> Future[T]:
        """A future that ends as `other` does; cancelling it asks `other` to cancel."""
        if not isinstance(other, concurrent.futures.Future):
            raise TypeError(f"from_concurrent() takes a concurrent.futures.Future, not {other!r}")
        return cls._follow(other)

    @classmethod
    def from_asyncio(cls, other: asyncio.Future[T], /) -> Future[T]:
        """A future that ends as `other` does. Call it on the thread of `other`'s loop."""
        if not asyncio.isfuture(other):
            raise TypeError(f"from_asyncio() takes an asyncio.Future, not {other!r}")
        return cls._follow(other)

    @classmethod
    def _follow(cls, other: Any) -> Future[T]:
        future = cls()

        def copy(done: Any) -> None:
            if done.cancelled():
                future.cancel()
            elif (error := done.exception()) is not None:
                future._set_now("failed", None, error)
            else:
                future._set_now("done", done.result(), None)

        def ask(mine: Future[T]) -> None:
            if mine.cancelled() and not other.done():
                loop = other.get_loop() if isinstance(other, asyncio.Future) else None
                if loop is None:
                    other.cancel()
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(other.cancel)

        other.add_done_callback(copy)
        future.add_done_callback(ask)
        return future

    def statistics(self) -> FutureStatistics:
        """A snapshot; never blocks."""
        return FutureStatistics(waiting=self._waiting(), done=self._set)

    def __repr__(self) -> str:
        return f"<Future {self._label(self._name)} {self._state}>"


class _Callback:
    """A call that is to be made, once, when the future's lock is free."""

    __slots__ = ("callback", "future")

    def __init__(self, future: Future[Any], callback: Callable[[Future[Any]], object]) -> None:
        self.future = future
        self.callback: Callable[[Future[Any]], object] | None = callback

    def wake(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            try:
                callback(self.future)
            except Exception as error:
                report(error, f"Error in a callback of {self.future!r}", callback)


class Promise(Generic[T]):
    """The side of a future that sets it. Dropped without being kept, its waiters get `BrokenFuture`."""

    __slots__ = ("__weakref__", "_future")

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def set_result(self, value: T, /) -> None:
        """As `Future.set_result`."""
        self._future.set_result(value)

    def set_exception(self, error: BaseException, /) -> None:
        """As `Future.set_exception`."""
        self._future.set_exception(error)

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: there is one promise for a future")

    def __del__(self) -> None:
        future = self._future
        if not future.done():
            future._set_now("failed", None, BrokenFuture(f"the promise of {future!r} was dropped unset"))

    def __repr__(self) -> str:
        return f"<Promise of {self._future!r}>"


def open_future(*, name: str | None = None) -> tuple[Promise[Any], Future[Any]]:
    """A promise and its future: the form in which a promise that is dropped unset is noticed."""
    future: Future[Any] = Future(name=name)
    return Promise(future), future
