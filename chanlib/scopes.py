"""Cancel scopes: what is inside ends when they are cancelled, and nothing else does.

One `with` statement in every world. On asyncio and in trio a scope is one of anyio's and trio's, so that code written
for either nests inside and outside; in a thread it is a token of our own. All of them are level-triggered: once a
scope is cancelled, every operation in it raises, until it is left.

Invariants:
- `_native` exists from entering on, and `_backend` once that is written.
- `_calls` has the reasons of those who have cancelled the scope; the first counts, and there are more than one only if
  several threads did so at the same time. It stands for a lock, which would cost more than all else here: appending to
  a list and copying it exclude each other, with and without a GIL (docs.python.org, "Thread Safety Guarantees"). Who
  cancels appends, and looks for `_backend` and `_over` then; who enters writes `_backend` first, who waits `_over`, and
  copies then. Whoever comes second sees the other.
"""

from __future__ import annotations

import math
from _thread import RLock
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core.backends import Backend, backend_here
from ._core.engine import PENDING, Op, Queued, QueuedLeaf, Reentered, clock_here, seconds
from ._core.lane import World, gate, lanes, turn, world

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "CancelScope",
    "checkpoint",
    "current_effective_deadline",
    "current_time",
    "fail_after",
    "fail_at",
    "get_cancelled_exc_class",
    "move_on_after",
    "move_on_at",
]


_making = RLock()  # of `_over`; a signal handler or finalizer may come in the middle


class CancelScope:
    """A part of a program that can be cancelled as a whole: what runs inside `with CancelScope() as scope:`.

    `deadline` is on the clock of the world it is entered in (`current_time()`); a scope whose deadline has passed is
    cancelled. `shield` keeps cancellations of the scopes around it out. A scope is entered once. Leaving it catches the
    cancellation that it has caused, no other.

    `cancel`, `deadline` and `shield` may be used from any thread, before it is entered too.
    Source of the semantics: trio's and anyio's scopes.
    """

    __slots__ = (
        "__weakref__",
        "_backend",
        "_calls",
        "_deadline",
        "_expired",
        "_gone",
        "_limit",
        "_native",
        "_over",
        "_shield",
    )

    def __init__(self, *, deadline: float = math.inf, shield: bool = False) -> None:
        self._deadline = deadline if deadline is math.inf else _instant(deadline)
        self._limit: float | None = None  # seconds from entering
        self._shield = shield if shield is False else _flag(shield)
        self._calls: list[str] = []  # "" if no reason was given
        self._native: Any = None
        self._backend: Backend | None = None
        self._over: _Over | None = None  # made when somebody waits for the cancellation
        self._expired = False  # is it known to be cancelled, perhaps by its deadline?
        self._gone = False  # has it been left?

    def __enter__(self) -> Self:
        if self._native is not None:
            raise RuntimeError("a cancel scope can be entered only once; make a new one for each `with`")
        backend = backend_here("a cancel scope")
        if self._limit is not None:
            self._deadline = backend.now() + self._limit
        deadline, shield = self._deadline, self._shield
        native = backend.scope(deadline, shield)
        self._native = native
        self._backend = backend
        calls = self._calls.copy()
        native.__enter__()
        if calls:
            native.cancel(calls[0] or None)
        if self._deadline is not deadline:  # moved by another thread, which has found no backend
            native.deadline = self._deadline
        if self._shield is not shield:
            native.shield = self._shield
        if self._over is not None:
            self._over.look()  # there is a deadline now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        native, backend = self._native, self._backend
        if backend is None:
            raise RuntimeError("a cancel scope is left that was never entered")
        before = self._expired
        self._gone = True
        try:
            if native.cancel_called or (self._deadline < math.inf and backend.now() >= self._deadline):
                self._expired = True
            return bool(native.__exit__(kind, error, traceback))
        except RuntimeError:  # not here, or not yet: it is entered still
            self._gone, self._expired = False, before
            raise

    def cancel(self, reason: str | None = None) -> None:
        """Cancel what is inside. `reason` is for those who read the error. Only the first call counts.

        Never blocks; may be called from any thread or loop. From elsewhere it is felt as soon as the loop it was
        entered in comes to it.
        """
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"reason must be a string or None, not {reason!r}")
        if self.cancel_called:
            return
        self._calls.append(reason or "")
        backend = self._backend
        if backend is not None:
            backend.call(lambda: self._gone or self._native.cancel(self._calls[0] or None))
        if self._over is not None:
            self._over.look()

    @property
    def _called(self) -> str | None:
        """The reason, "" if none was given; None until it is cancelled by a call."""
        return self._calls[0] if self._calls else None

    @property
    def cancel_called(self) -> bool:
        """Whether it was cancelled, by a call or by its deadline."""
        if self._calls or self._expired:
            return True
        backend = self._backend
        if backend is None or self._gone:
            return False
        if backend.now() >= self._deadline:
            backend.call(lambda: self._gone or self._native.cancel("deadline"))
            self._expired = True
        elif backend.here():
            self._expired = bool(self._native.cancel_called)
        return self._expired

    @property
    def cancelled_caught(self) -> bool:
        """Whether it was left by a cancellation that it caught."""
        native = self._native
        return native is not None and bool(native.cancelled_caught)

    @property
    def deadline(self) -> float:
        """When it is cancelled, on the clock of its world: `math.inf` for never. Can be moved."""
        return self._deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._deadline = _instant(value)
        self._limit = None
        self._change("deadline", self._deadline)
        if self._over is not None:
            self._over.look()

    @property
    def shield(self) -> bool:
        """Whether cancellations of the scopes around it are kept out. Can be switched."""
        return self._shield

    @shield.setter
    def shield(self, value: bool) -> None:
        self._shield = _flag(value)
        self._change("shield", self._shield)

    def _change(self, name: str, value: Any) -> None:
        backend = self._backend
        if backend is not None:
            backend.call(lambda: setattr(self._native, name, value))

    def wait_cancelled(self) -> Op[None]:
        """Wait until it is cancelled, by a call or by its deadline. An arm of `select` as well."""
        if self._over is None:
            over = _Over(self)
            with _making:
                if self._over is None:
                    self._over = over
            self._calls.copy()  # see the top
        return _Cancelling(self._over)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancel_called else "new" if self._native is None else "entered"
        until = "" if self._deadline == math.inf else f", deadline {self._deadline:.3f}"
        return f"<CancelScope {state}{until}{', shielded' if self._shield else ''}>"


class _Over(Queued):
    """Those who wait for a scope to be cancelled."""

    __slots__ = ("scope",)

    def __init__(self, scope: CancelScope) -> None:
        super().__init__()
        self.scope = scope

    def look(self) -> None:
        try:
            self._locked(self._wake_all)
        except Reentered as inside:
            inside.source._defer(self.look)

    def __repr__(self) -> str:
        return repr(self.scope)


class _Cancelling(QueuedLeaf[None]):
    """A readiness operation: nobody says when a deadline has come."""

    __slots__ = ()

    def __init__(self, over: _Over) -> None:
        self._src = over

    def _left(self, over: _Over) -> float:
        scope, backend = over.scope, over.scope._backend
        if scope._calls or scope._expired:
            return 0.0
        if backend is None or scope._gone or scope._deadline == math.inf:
            return math.inf
        return scope._deadline - backend.now()

    def _attempt(self, over: _Over) -> Any:
        return None if self._left(over) <= 0 else PENDING

    def _enqueue(self, over: _Over, waiter: Any) -> None:
        left = self._left(over)
        if left < math.inf:
            waiter.wake_in(left)
        over._stand(waiter)

    def _describe(self, over: _Over) -> str:
        return f"cancellation of {over.scope!r}"


class _Failing(CancelScope):
    """A scope that raises `TimeoutError` when its time is over."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        caught = super().__exit__(kind, error, traceback)
        if self.cancelled_caught and not self._calls:
            assert self._backend is not None
            limit = "its deadline" if self._limit is None else f"{self._limit} s"
            raise TimeoutError(f"what is inside a cancel scope was not done within {limit}")
        return caught


def move_on_after(delay: float, /, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled `delay` seconds after it is entered; what follows the block goes on."""
    return _after(CancelScope(shield=shield), delay)


def move_on_at(deadline: float, /, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled at `deadline`, on the clock of the world it is entered in (`current_time()`)."""
    return CancelScope(deadline=deadline, shield=shield)


def fail_after(delay: float, /, *, shield: bool = False) -> CancelScope:
    """As `move_on_after`, but leaving the block raises `TimeoutError` if the time was over before it ended."""
    return _after(_Failing(shield=shield), delay)


def fail_at(deadline: float, /, *, shield: bool = False) -> CancelScope:
    """As `move_on_at`, but leaving the block raises `TimeoutError` if the deadline came before it ended."""
    return _Failing(deadline=deadline, shield=shield)


def _after(scope: CancelScope, delay: float) -> CancelScope:
    limit = seconds(delay, "delay")
    if limit < math.inf:
        scope._limit = limit
    return scope


def _instant(value: float) -> float:
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(
            f"deadline must be a point in time on the clock of current_time() (math.inf is allowed), not {value!r}"
        ) from None
    if math.isnan(number):
        raise ValueError("deadline must be a point in time (math.inf is allowed), not NaN")
    return number


def _flag(value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"shield must be True or False, not {value!r}")
    return value


# ----------------------------------------------------------------- where the caller is
def get_cancelled_exc_class() -> type[BaseException]:
    """What cancels the caller: `asyncio.CancelledError`, `trio.Cancelled`, or `Cancelled` in a thread."""
    return backend_here("get_cancelled_exc_class()").cancelled


def current_time() -> float:
    """The clock of the world that calls, in seconds: that of its deadlines."""
    return clock_here()()


def current_effective_deadline() -> float:
    """The earliest deadline of the scopes that the caller is in, as far as the first shield.

    `-math.inf` if one of them is cancelled, `math.inf` if there is none.
    """
    return backend_here("current_effective_deadline()").until()


class _Checkpoint(Op[None]):
    __slots__ = ()

    def __init__(self) -> None:
        self._src = self.__class__

    def __await__(self) -> Generator[Any, Any, None]:
        self._src = None
        lane = lanes.lane
        if world(lane) in (World.ASYNCIO, World.TRIO):
            yield from turn(lane)
        else:
            gate(lane)

    def _now(self, src: Any, /) -> Any:
        return None

    def _describe(self, src: Any, /) -> str:
        return "checkpoint"


def checkpoint() -> Op[None]:
    """Give others a turn, and raise if the caller is in a cancelled scope: for loops that only compute.

    `await checkpoint()` in a task, `checkpoint().sync()` in a thread, where it only looks for a cancellation.
    """
    return _Checkpoint()
