"""Several things at once, waited for together: `gather`, `race`, `first_success`, `as_completed`, `map_concurrent`.

Each is a group for its own duration: when it returns or raises, everything that it started has ended. What to do is
given as async functions without arguments (`functools.partial`, `lambda`), coroutines, operations, or one of these
again. All are begun by `await` in a task, or by `sync()` in a plain thread, where each runs in a thread.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, overload

from ._core.engine import Op
from ._core.lane import lanes, refuse_loop
from ._core.running import run_here
from .checks import check_count
from .children import check_coroutine
from .completions import Completions
from .groups import TaskGroup
from .handles import TaskHandle, called

__all__ = ["Procedure", "Raced", "as_completed", "first_success", "gather", "map_concurrent", "race"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")


class Raced(NamedTuple, Generic[T]):
    """How a race has ended: who was first, what it gave, and what others gave that could not be stopped in time.

    `winner` is its position among the arguments; `late` has a pair (position, result) for each of the others that came
    to a result, so that none is lost.
    """

    winner: int
    value: T
    late: list[tuple[int, T]]


class Procedure(Generic[T]):
    """Something that takes several steps, not begun yet: `await` it in a task, or `sync()` in a thread, once."""

    __slots__ = ("_begin", "_things", "_told", "_what")

    def __init__(self, what: str, things: list[Any], begin: Callable[[list[Any]], Coroutine[Any, Any, T]]) -> None:
        self._what = what
        self._things: list[Any] | None = things
        self._begin = begin
        self._told = False  # has somebody been told that it was not performed? Then no warning when it is dropped

    async def _perform(self) -> T:
        things, self._things = self._things, None
        if things is None:
            raise RuntimeError(f"{self!r} has been performed already; make a new one for each time")
        try:
            return await self._begin(things)
        finally:
            _discard(things)  # those that were not begun

    def __await__(self) -> Generator[Any, Any, T]:
        return (yield from self._perform().__await__())

    def sync(self) -> T:
        """Do it, blocking this thread; what runs side by side runs in threads."""
        try:
            refuse_loop(lanes.lane, "sync()")
        except RuntimeError:
            self._told = True
            raise
        return run_here(self._perform())

    def __repr__(self) -> str:
        return f"<{self._what}>"

    def __del__(self) -> None:
        things = getattr(self, "_things", None)
        if things is None:
            return
        _discard(things)
        if not self._told:
            warnings.warn(f"{self!r} was never performed: await it, or call its sync()", RuntimeWarning, stacklevel=2)


Doable = Callable[[], Awaitable[T]] | Coroutine[Any, Any, T] | Op[T] | Procedure[T]
"""What can be done side by side."""


def _discard(things: Iterable[Any]) -> None:
    for thing in things:
        if isinstance(thing, Coroutine):
            thing.close()
        elif isinstance(thing, Procedure):
            thing._told = True


def _functions(things: tuple[Any, ...], what: str) -> list[Any]:
    for position, thing in enumerate(things):
        if not (isinstance(thing, Coroutine | Procedure) or callable(thing)):
            _discard(things)
            raise TypeError(
                f"{what}() takes async functions without arguments, coroutines and operations; "
                f"argument {position} is {thing!r}"
            )
    return list(things)


def _start_all(group: TaskGroup, things: list[Any], handles: list[TaskHandle[Any]]) -> None:
    """Start each of `things`, which goes over into `handles`."""
    things.reverse()
    while things:
        thing: Any = things.pop()
        handles.append(group.start_soon(_coroutine_of, thing, name=called(thing, None)))


def _coroutine_of(thing: Any) -> Any:
    made = _made(thing)
    kind = made.__class__
    if issubclass(kind, Procedure):
        made._told = True  # its performer may be cancelled before it begins
    if issubclass(kind, Awaitable) and not issubclass(kind, Coroutine):
        return _awaited(made)
    check_coroutine(thing, made)
    return made


def _made(thing: Any) -> Any:
    return thing if isinstance(thing, Coroutine | Procedure) else thing()  # pyright: ignore[reportUnknownVariableType]


async def _awaited(thing: Any) -> Any:
    return await thing


# ----------------------------------------------------------------- all
@overload
def gather(a: Doable[A], /) -> Procedure[tuple[A]]: ...
@overload
def gather(a: Doable[A], b: Doable[B], /) -> Procedure[tuple[A, B]]: ...
@overload
def gather(a: Doable[A], b: Doable[B], c: Doable[C], /) -> Procedure[tuple[A, B, C]]: ...
@overload
def gather(a: Doable[A], b: Doable[B], c: Doable[C], d: Doable[D], /) -> Procedure[tuple[A, B, C, D]]: ...
@overload
def gather(*things: Doable[T]) -> Procedure[tuple[T, ...]]: ...
def gather(*things: Any) -> Procedure[Any]:
    """Do all of them side by side; the results, in the order of the arguments.

    If one fails the others are cancelled, and an `ExceptionGroup` of all errors is raised.
    """

    async def perform(things: list[Any]) -> tuple[Any, ...]:
        handles: list[TaskHandle[Any]] = []
        async with TaskGroup(name="gather") as group:
            _start_all(group, things, handles)
        return tuple([handle.wait().poll() for handle in handles])

    return Procedure("gather", _functions(things, "gather"), perform)


def map_concurrent(
    fn: Callable[[A], Coroutine[Any, Any, R]], items: Iterable[A], /, *, limit: int | None = None
) -> Procedure[list[R]]:
    """`await fn(item)` for each of `items`, at most `limit` at a time; the results, in the order of the items.

    The next item is taken from `items` when there is a place for it. If one fails the others are cancelled, and an
    `ExceptionGroup` of all errors is raised.
    """
    if limit is not None:
        check_count(limit, "limit", 1)
    if not callable(fn):
        raise TypeError(f"fn must be an async function of one argument, not {fn!r}")
    if not isinstance(items, Iterable):
        raise TypeError(f"items must be an iterable, not {items!r}")

    async def perform(things: list[Any]) -> list[R]:
        handles: list[TaskHandle[R]] = []
        name = called(fn, None)
        async with TaskGroup(limit=limit, name="map_concurrent") as group:
            items = iter(things[0])

            def following() -> Coroutine[Any, Any, R]:
                try:
                    item = next(items)
                except StopIteration:
                    raise _NoMore from None
                return fn(item)

            try:
                while True:  # `following` is called once there is a place
                    handles.append(await group.spawn(following, name=name))
            except _NoMore:
                pass
        return [handle.wait().poll() for handle in handles]

    return Procedure("map_concurrent", [items], perform)


class _NoMore(Exception):
    """There is no further item."""


# ----------------------------------------------------------------- one
def race(*things: Doable[T]) -> Procedure[Raced[T]]:
    """Do all of them side by side until the first has ended, by a result or an error; the others are cancelled.

    The result tells who was first; the first error is raised as it is. Another that comes to its own result in spite
    of the cancellation is listed in `late`; errors of those that were cancelled go with the error of the first, or
    are raised as an `ExceptionGroup`.
    """
    return Procedure("race", _entrants(things, "race"), lambda things: _race(things, False))


def first_success(*things: Doable[T]) -> Procedure[Raced[T]]:
    """Do all of them side by side until the first has come to a result; the others are cancelled.

    Errors are passed over, unless all fail: then an `ExceptionGroup` of all of them is raised.
    """
    return Procedure("first_success", _entrants(things, "first_success"), lambda things: _race(things, True))


def _entrants(things: tuple[Any, ...], what: str) -> list[Any]:
    if not things:
        raise ValueError(f"{what}() needs something to do")
    return _functions(things, what)


async def _race(things: list[Any], forgiving: bool) -> Raced[Any]:
    winner: TaskHandle[Any] | None = None
    handles: list[TaskHandle[Any]] = []
    async with TaskGroup(on_error="collect", name="race") as group:
        ended = group.as_completed()
        _start_all(group, things, handles)
        winner = await _first(ended, forgiving)
        group.cancel("the race is decided")
    errors = [handle.exception for handle in handles if handle.exception is not None]
    if winner is not None and winner.exception is None and (forgiving or not errors):
        results = [(index, handle.wait().poll()) for index, handle in enumerate(handles) if _has_result(handle)]
        index = handles.index(winner)
        return Raced(index, winner.wait().poll(), [pair for pair in results if pair[0] != index])
    if winner is not None and winner.exception is not None and len(errors) == 1:
        try:
            raise errors[0]
        finally:
            del errors, handles, winner  # they lead to the error, and it to this frame
    if not errors:
        raise RuntimeError("all that took part in the race were cancelled, by others")
    raise BaseExceptionGroup("all have failed" if forgiving else "errors in a race", errors)


async def _first(ended: Completions, forgiving: bool) -> TaskHandle[Any] | None:
    async for handle in ended:
        if not handle.cancelled and not (forgiving and handle.exception is not None):
            return handle
    return None


def _has_result(handle: TaskHandle[Any]) -> bool:
    return handle.done and not handle.cancelled and handle.exception is None


# ----------------------------------------------------------------- one after the other
def as_completed(*things: Doable[T], limit: int | None = None) -> _AsCompleted[T]:
    """Do all of them side by side and iterate over their handles in the order in which they end.

        async with as_completed(one, two) as done:
            async for handle in done:
                print(await handle)

    or `with` and `for`, and `handle.sync()`, in a plain thread. Errors stay in the handles. Whatever still runs when
    the block is left is cancelled.
    """
    if limit is not None:
        check_count(limit, "limit", 1)
    return _AsCompleted(_functions(things, "as_completed"), limit)


class _AsCompleted(Generic[T]):
    __slots__ = ("_group", "_things", "_told")

    def __init__(self, things: list[Any], limit: int | None) -> None:
        self._things: list[Any] | None = things
        self._told = False
        self._group = TaskGroup(on_error="collect", limit=limit, name="as_completed")

    async def __aenter__(self) -> _Done[T]:
        await self._group.__aenter__()
        things, self._things = self._things, None
        assert things is not None
        done = _Done[T](self._group)
        try:
            _start_all(self._group, things, [])
        except BaseException as error:
            _discard(things)
            await self._group.__aexit__(type(error), error, error.__traceback__)
            raise
        return done

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._group.cancel("nobody waits for the others any more")
        return await self._group.__aexit__(kind, error, traceback)

    def __enter__(self) -> _Done[T]:
        try:
            refuse_loop(lanes.lane, "`with as_completed()` (`async with` is the form for tasks)")
        except RuntimeError:
            self._told = True
            raise
        return run_here(self.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return run_here(self.__aexit__(kind, error, traceback))

    def __del__(self) -> None:
        things = getattr(self, "_things", None)
        if things is None:
            return
        _discard(things)
        if not self._told:
            warnings.warn(
                "<as_completed> was never entered: write `async with as_completed(...)`, or `with` in a thread",
                RuntimeWarning,
                stacklevel=2,
            )


class _Done(Generic[T]):
    """Handles in the order of their end."""

    __slots__ = ("_completions",)

    def __init__(self, group: TaskGroup) -> None:
        self._completions = group.as_completed()

    def __aiter__(self) -> AsyncIterator[TaskHandle[T]]:
        return self._completions.__aiter__()

    def __iter__(self) -> Iterator[TaskHandle[T]]:
        return self._completions.__iter__()
