"""Op: an operation as a value, and the one body of logic that performs it in every world.

Source of the idea: Concurrent ML (Reppy 1991) and Guile Fibers' `operation`: try, else enqueue and park; whoever
completes it does so on both sides, so the woken side never retries.

A leaf operation says five things about itself, all under the lock of its source and without calling foreign code:

    _attempt(src)            do it now: the result, or PENDING, or raise its error
    _enqueue(src, waiter)    leave `waiter` where peers look (or tell it when to look again)
    _withdraw(src, waiter)   the waiter has given up: tidy the queue
    _undo(src, waiter)       a peer has served the waiter, but it was cancelled or is dead: give back what it
                             got and serve the next. False: cannot be undone
    _ended(src, waiter)      the error of a waiter under which the source was closed (outside the lock)

and one as a hint, without the lock: `_hint(src)`, False if `_attempt` would surely say PENDING.

A *committing* operation is completed by its peer (WaitQueue.claim, then `value` and SERVED). A *readiness*
operation asks its waiter to be woken (`wake_in`, `wake_readable`, `wake_writable`, or a peer's `wake()` without
a claim) and is attempted again.

Performing is `_wait`, a generator that parks through its waiter. Only the waiter knows the world: on a loop
`park` yields to it, on a thread it blocks inside and yields nothing. So `sync()` is the same generator, driven by
this thread, which then ends at its first step.

What becomes of an operation when a cancellation meets a commit (`_wait`, `_take_back`, `Waiter.keep`):

                        nobody had committed     a peer had committed
    trio                no effect, raises        completes; felt at the next operation (`abort` lost its claim)
    thread, timeout     no effect, raises        completes
    asyncio, receive    no effect, raises        undone: next receiver or head of the buffer; raises
    asyncio, send       no effect, raises        in a cancelled scope: returns. Native `Task.cancel()`: returns and
                                                 re-arms the cancel (3.13+), else raises with a note
    event, future       no effect, raises        nothing was taken; raises
    select              no effect, raises        the row of the arm that won
    interrupt           no effect, raises        as asyncio, but a send raises with a note
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ...errors import WouldBlock
from ..lane import World, current_task, gate, lanes, modules, refuse_loop, running_loop, scoped, turn, world
from ..parking import waiter_here
from ..unraisable import report
from .source import Reentered

if TYPE_CHECKING:
    from .leaf import Branch
    from .waiters import Waiter

__all__ = ["DONE", "PENDING", "Op", "Path", "seconds", "twice", "who_performs"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

if TYPE_CHECKING:

    class _Performable(Coroutine[Any, Any, T_co]):
        __slots__ = ()

else:
    # A coroutine by registration: a real subclass has a metaclass that makes `isinstance(x, Op)` slow.
    class _Performable(Generic[T_co]):
        __slots__ = ()


Path = tuple[Callable[[Any], Any], ...]
"""The functions that a result goes through, in order."""


class _Pending:
    __slots__ = ()

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Any = _Pending()
"""What an attempt returns that would have to wait. Never a user's value."""

DONE: Any = iter(())
"""Awaiting it gives None at once."""
next(DONE, None)


def seconds(value: float, argument: str) -> float:
    """A duration given by the user: any real number, negative counts as 0, NaN is refused."""
    if type(value) is float and value >= 0.0:  # so it is no NaN
        return value
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf if value > 0 else 0.0
    except (TypeError, ValueError):
        raise TypeError(f"{argument} must be a number of seconds (math.inf is allowed), not {value!r}") from None
    if math.isnan(number):
        raise ValueError(f"{argument} must be a number of seconds (math.inf is allowed), not NaN")
    return number if number > 0.0 else 0.0


class Op(_Performable[T_co]):
    """An operation that has not happened yet.

    Perform it exactly once: `await op` in a task, `op.sync()` in a plain thread, `op.poll()` anywhere. Compose
    it first, if you like: `op.map(f)`, `op.within(seconds)`, `select(op, ...)`. It is a coroutine to the eyes of
    `asyncio.create_task` and `start_soon`.
    """

    __slots__ = ("_about", "_driver", "_polled", "_src", "_steps")

    _src: Any  # what it is about; None once it is performed
    _steps: Generator[Any, Any, T_co] | None  # while it is driven as a coroutine, by `_driver`; None after that
    _driver: object
    _polled: bool  # somebody has been told that it did not happen: no warning when it is dropped

    # ------------------------------------------------------------- what a kind of operation defines
    def _now(self, src: Any, /) -> Any:
        """Do it if it can happen now: the result or PENDING."""
        raise NotImplementedError

    def _snapshot(self, src: Any, /) -> Any:
        """As `_now`, decided on one atomic look at everything it is about."""
        return self._now(src)

    def _enroll(self, src: Any, waiter: Waiter, /) -> Any:
        """Do it now, or leave `waiter` with everybody who could complete it, in one atomic step."""
        raise NotImplementedError

    def _retract(self, waiter: Waiter) -> bool:
        """Claim `waiter` for ourselves. True: nothing has happened and nothing will. May be asked twice."""
        raise NotImplementedError

    def _take_back(self, waiter: Waiter) -> bool:
        """A peer has committed: undo it. False: it stands."""
        raise NotImplementedError

    def _collect(self, waiter: Waiter) -> Any:
        """The result that the peer has left."""
        raise NotImplementedError

    def _branches(self) -> list[Branch]:
        """The leaves of which exactly one is to happen. The operation itself counts as performed then."""
        raise NotImplementedError

    def _restart(self) -> None:
        """It was looked at, but not performed: time that counts from performing does not run yet."""

    def _describe(self, src: Any, /) -> str:
        """What it does, in words, also once it is performed."""
        raise NotImplementedError

    def _would_block(self, src: Any, /) -> WouldBlock:
        return WouldBlock(f"{self._describe(src)} cannot happen now")

    # ------------------------------------------------------------- performing
    def __await__(self) -> Generator[Any, Any, T_co]:
        src = self._src
        if src is None:
            raise twice(self)
        self._src = None
        lane = lanes.lane
        left = lane.left
        if left and "trio" not in modules:
            lane.left = left - 1
        elif gate(lane):
            yield from turn(lane)
        got = self._now(src)
        if got is PENDING:
            got = yield from self._wait(src, waiter_here)
        return got  # type: ignore[no-any-return]

    def sync(self, timeout: float | None = None) -> T_co:
        """Perform it, blocking this thread until it has happened.

        `timeout` is in seconds (None or `math.inf`: no limit, 0: only if it can happen now); when it has passed,
        `TimeoutError` is raised and the operation has provably had no effect. On a thread that runs an event loop
        it raises `RuntimeError` and nothing happens.
        """
        src = self._src
        if src is None:
            raise twice(self)
        self._src = None  # at once: of two threads one performs it
        limit = None
        if timeout is not None or running_loop() is not None or scoped or "trio" in modules:
            lane = lanes.lane
            try:
                refuse_loop(lane, "sync()")
                limit = None if timeout is None else seconds(timeout, "timeout")
            except Exception:
                self._polled = True  # the caller knows by this error: no warning on top
                self._src = src
                raise
            if lane.token is not None:
                lane.token.check()
        got = self._now(src)
        if got is PENDING:
            lane = lanes.lane
            before = lane.driving
            try:
                lane.driving = True
                next(self._wait(src, waiter_here, limit))
            except StopIteration as stop:
                got = stop.value
            finally:
                lane.driving = before
        return got  # type: ignore[no-any-return]

    def poll(self) -> T_co:
        """Perform it if it can happen now, else raise `WouldBlock`.

        Never waits, so it may be called anywhere: in callbacks of a loop, signal handlers, finalizers. After
        `WouldBlock` the operation is as it was and can be performed later.
        """
        src = self._src
        if src is None:
            raise twice(self)
        self._src = None
        try:
            got = self._snapshot(src)
        except Reentered:
            got = PENDING
        if got is PENDING:
            self._restart()
            self._src = src
            self._polled = True
            raise self._would_block(src)
        return got  # type: ignore[no-any-return]

    def _wait(
        self, src: Any, make: Callable[[Op[Any]], Waiter], limit: float | None = None
    ) -> Generator[Any, Any, T_co]:
        """Park until it has happened. `limit` in seconds: then TimeoutError, and nothing has happened."""
        end = None if limit is None else monotonic() + limit
        while True:
            waiter = make(self)
            if end is not None:
                waiter.wake_in(max(end - monotonic(), 0.0))
            try:
                got = self._enroll(src, waiter)
                if got is not PENDING:
                    return got  # type: ignore[no-any-return]
                waiter.since = monotonic()
                yield from waiter.park()
                committed = not self._retract(waiter)
            except GeneratorExit:  # perhaps run by the collector, in the middle of another operation
                self._abandon(waiter)
                raise
            except BaseException as error:
                try:
                    undone = self._undone(waiter)
                except Exception:
                    raise
                except BaseException:  # an interrupt on top
                    self._undone(waiter)
                    raise
                if undone or not waiter.keep(error):
                    raise
                committed = True
            if committed:
                return self._collect(waiter)  # type: ignore[no-any-return]
            waiter.check()
            # woken to look again: a timer, a descriptor, or a peer that was interrupted half way
            got = self._now(src)
            if got is not PENDING:
                return got  # type: ignore[no-any-return]
            if end is not None and monotonic() >= end:
                raise TimeoutError(f"{self._describe(src)} did not happen within {limit} s")

    def _undone(self, waiter: Waiter) -> bool:
        """Has nothing happened, or could it be undone? What `on_undelivered` raises must not replace the error."""
        try:
            return self._retract(waiter) or self._take_back(waiter)
        except ExceptionGroup as error:
            report(error, f"Error while {self!r} was undone", self)
            return True
        except Exception:
            raise
        except BaseException:  # an interrupt on top: what it has cut is gone through again
            self._undone(waiter)
            raise

    def _abandon(self, waiter: Waiter) -> None:
        """Nobody will run `waiter` again, its loop is over or its coroutine is closed: undo what it was given."""
        try:
            if not self._retract(waiter):
                self._take_back(waiter)
        except Reentered as error:
            error.source._defer(lambda: self._abandon(waiter))

    # ------------------------------------------------------------- composing
    def map(self, function: Callable[[T_co], R], /) -> Op[R]:
        """The same operation, its result passed through `function` (CML's `wrap`).

        `function` is called after the operation has happened, outside every lock.
        """
        from .select import Mapped  # a floor above: it is made of operations

        try:
            return Mapped(self, function)
        except Exception:
            self._polled = True
            raise

    def within(self, limit: float, /) -> Op[T_co]:
        """The same operation, or `TimeoutError` after `limit` seconds and provably no effect.

        The time counts from performing. 0: only if it can happen now.
        """
        from .select import Within

        try:
            return Within(self, seconds(limit, "within"))
        except Exception:
            self._polled = True
            raise

    def __op__(self) -> Op[T_co]:
        return self

    def __repr__(self) -> str:
        src = self._src
        if src is None:
            src = getattr(self, "_about", None)
            what = f"{type(self).__name__} operation" if src is None else self._describe(src)
            return f"<{what}, performed>"
        return f"<{self._describe(src)}>"

    # ------------------------------------------------------------- as a coroutine
    @property
    def __name__(self) -> str:  # what a Task's repr shows  # pyright: ignore[reportIncompatibleVariableOverride]
        return repr(self)

    def send(self, value: Any, /) -> Any:
        driver = who_performs()
        try:
            steps = self._steps
        except AttributeError:
            self._about = self._src  # for the repr of the task
            self._driver = driver
            steps = self._steps = self.__await__()
        if steps is None:
            raise twice(self)
        if self._driver is not driver:
            raise RuntimeError(f"{self!r} is being performed by another task")
        try:
            return next(steps) if value is None else steps.send(value)
        except BaseException:  # StopIteration above all
            self._steps = None
            raise

    def throw(self, *error: Any) -> Any:
        steps = getattr(self, "_steps", None)
        if steps is not None and hasattr(steps, "throw"):
            return steps.throw(*error)
        self._src = None
        kind: Any = error[0]
        if isinstance(kind, BaseException):
            raise kind
        raise error[1] if len(error) > 1 and error[1] is not None else kind()

    def close(self) -> None:
        self._src = None
        steps = getattr(self, "_steps", None)
        if steps is not None and hasattr(steps, "close"):
            steps.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: an operation is performed once, where it was made")

    def __del__(self) -> None:
        try:
            if self._src is not None:
                _never(self)
        except AttributeError:
            pass  # an interrupt came while it was being made


cast(Any, Coroutine).register(Op)


def who_performs() -> object:
    """Who performs an operation or drives a coroutine here: a task, or a thread (as its `Lane`)."""
    lane = lanes.lane
    here = world(lane)
    if here is World.ASYNCIO:
        return current_task(running_loop())
    if here is World.TRIO:
        return lane.trio.get("task")
    return lane


def twice(op: Op[Any]) -> RuntimeError:
    return RuntimeError(f"{op!r} has been performed already; make a new one for each time")


def _never(op: Op[Any]) -> None:
    if not getattr(op, "_polled", False):
        warnings.warn(
            f"{op!r} was never performed: await it, or call its sync() or poll()",
            RuntimeWarning,
            stacklevel=3,
        )
