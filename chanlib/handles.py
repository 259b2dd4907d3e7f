"""TaskHandle: a child of a group, as others see it: to wait for, to cancel, to ask."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar

from ._core.engine import Op, Passed
from ._core.origins import recorded
from .endings import Told
from .errors import TaskCancelled

__all__ = ["TaskHandle"]

T_co = TypeVar("T_co", covariant=True)

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Owner(Protocol):
    """The group of a child."""

    def _locked(self, step: Callable[..., Any], *args: Any) -> Any: ...

    def _stop(self, child: TaskHandle[Any], reason: str) -> bool: ...


class TaskHandle(Generic[T_co]):
    """A child of a task group: a task, or a thread.

    Waiting for it is an operation: `await handle`, `handle.sync(timeout)` in a thread, an arm of `select`. It gives
    the child's result, or raises the child's own exception, or `TaskCancelled`, an ordinary exception. Cancelling
    the wait does not cancel the child. Any thread may use a handle.
    """

    # Until it is done `_coroutine` is what it runs, and `_native` stands for it in its nursery, or is the context it is
    # to be started in. Those change, as the state and the outcome do, by the group only.
    _left: Any  # once it is done: its value, or its error
    _traceback: TracebackType | None  # of the error
    _made_at: str | None  # set in debug mode only
    __slots__ = (
        "__weakref__",
        "_coroutine",
        "_ended",
        "_left",
        "_made_at",
        "_name",
        "_native",
        "_owner",
        "_reason",
        "_state",
        "_stopping",
        "_traceback",
    )

    @recorded
    def __init__(self, owner: Owner, coroutine: Coroutine[Any, Any, T_co], name: object) -> None:
        self._owner = owner
        self._coroutine: Coroutine[Any, Any, T_co] | None = coroutine
        self._name = name  # a string, or what to take it from
        self._state: State = "queued"
        self._native: Any = None
        self._reason: str | None = None  # of its cancellation, once asked for; "" if none was given
        self._stopping = False  # has its nursery been told?
        self._ended: _Ended | None = None  # made when somebody waits

    # ------------------------------------------------------------- waiting
    def wait(self) -> Op[T_co]:
        """Wait until the child has ended: its result, or its exception, or `TaskCancelled`, raised."""
        ended = self._ended
        if ended is None:
            ended = self._owner._locked(self._watch)
        return Passed(ended)

    __op__ = wait

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self.wait().__await__()

    def sync(self, timeout: float | None = None) -> T_co:
        """As `wait().sync(timeout)`: for a thread that may block."""
        return self.wait().sync(timeout)

    def _watch(self) -> _Ended:
        if self._ended is not None:
            return self._ended
        ended = _Ended(self)
        if self.done:
            ended._set = True
        else:
            self._ended = ended  # a cycle, until it is done
        return ended

    def _outcome(self) -> T_co:
        if self._state == "cancelled":
            because = f": {self._reason}" if self._reason else ""
            raise TaskCancelled(f"{self!r} was cancelled{because}")
        if self._state == "failed":
            raise self._left.with_traceback(self._traceback)
        return self._left  # type: ignore[no-any-return]

    # ------------------------------------------------------------- cancelling and asking
    def cancel(self, reason: str | None = None) -> bool:
        """Cancel this child, not its siblings. Returns False, and does nothing, if it has ended.

        Never blocks; may be called from any thread. A child that still waits for its place ends at once.
        """
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"reason must be a string or None, not {reason!r}")
        return self._owner._stop(self, reason or "")

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._state not in ("queued", "running")

    @property
    def cancelled(self) -> bool:
        """Whether it has ended as cancelled."""
        return self._state == "cancelled"

    @property
    def exception(self) -> BaseException | None:
        """The exception it has ended with, or None: also while it runs, and when it was cancelled."""
        return self._left if self._state == "failed" else None

    @property
    def name(self) -> str:
        """What it is called: as given when it was started, or its function's name."""
        name = self._name
        if type(name) is str:
            return name
        called_so = self._name = str(getattr(name, "__qualname__", None) or name)
        return called_so

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: it stands for one child of one group")

    def __repr__(self) -> str:
        return f"<task {self.name!r} {self._state}>"


def called(fn: object, name: str | None) -> str:
    """What a child is called: `name`, if one was given."""
    return str(getattr(fn, "__qualname__", None) or repr(fn)) if name is None else name


class _Ended(Told):
    """Open once the child has ended."""

    __slots__ = ("handle",)

    def __init__(self, handle: TaskHandle[Any]) -> None:
        super().__init__()
        self.handle = handle

    def _outcome(self) -> Any:
        return self.handle._outcome()

    def _outcome_inside(self) -> Any:
        error = self.handle.exception
        if error is not None:
            self._drop(error.__traceback__)  # it is replaced, and leads to the frames of an earlier waiter
        return self._outcome()

    def wake(self) -> None:
        super().wake()
        self.handle._ended = None

    def __repr__(self) -> str:
        return f"the end of {self.handle!r}"
