"""Leaf: an operation on one source, and what it says about itself. The top of `ops` tells what each part is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .ops import PENDING, Op, Path, twice
from .waiters import CLAIMED, ENDED, SERVED, WAITING, WITHDRAWN

if TYPE_CHECKING:
    from .source import Source
    from .waiters import Waiter

__all__ = ["Branch", "Leaf"]

T_co = TypeVar("T_co", covariant=True)

_FINAL = (SERVED, ENDED)


class Branch:
    """One leaf of a choice, its position, and the functions that its result goes through."""

    __slots__ = ("arm", "last", "leaf", "path", "src")

    def __init__(
        self,
        leaf: Leaf[Any],
        src: Any,
        path: Path = (),
        last: bool = False,
        arm: int | None = None,
    ) -> None:
        self.leaf = leaf
        self.src = src
        self.path = path
        self.last = last  # looked at after the others: the time limit of `within`
        self.arm = arm  # its position in the outermost select


class Leaf(Op[T_co]):
    """An operation on one source. See the top of the module for what a subclass defines."""

    __slots__ = ()

    _finish: Callable[[Any], Any] | None = None
    """What becomes of the result outside of the lock, where the leaf is an arm of a choice."""

    def _attempt(self, src: Any, /) -> Any:
        raise NotImplementedError

    def _hint(self, src: Any, /) -> bool:
        return True

    def _enqueue(self, src: Any, waiter: Any, /) -> None:
        raise NotImplementedError

    def _withdraw(self, src: Any, waiter: Any, /) -> None:
        pass

    def _undo(self, src: Any, waiter: Any, /) -> bool:
        return True

    def _ended(self, src: Any, waiter: Any, /) -> BaseException:
        raise NotImplementedError

    def _forget(self, src: Any, arm: Any, /) -> None:
        """An arm that lost its select: leave the queue, now or when it matters."""
        src._locked(self._withdraw, src, arm)

    # ------------------------------------------------------------- how one leaf is performed
    def _now(self, src: Any, /) -> Any:
        if not self._hint(src):
            return PENDING
        return src._locked(self._attempt, src)

    def _snapshot(self, src: Any, /) -> Any:
        return src._locked(self._attempt, src)  # a hint is not enough for a no

    def _enroll(self, src: Source, waiter: Waiter, /) -> Any:
        waiter.src = src
        return src._locked(self._attempt_or_enqueue, src, waiter)

    def _attempt_or_enqueue(self, src: Source, waiter: Waiter, /) -> Any:
        got = self._attempt(src)
        if got is PENDING:
            self._enqueue(src, waiter)
        return got

    def _retract(self, waiter: Waiter) -> bool:
        state = waiter.state
        if state in _FINAL:  # final; written before the wake
            return False
        if waiter.src is None:  # never left anywhere
            return True
        if not waiter.src._locked(self._retract_locked, waiter):
            return False
        _empty(waiter)
        return True

    def _retract_locked(self, waiter: Any) -> bool:
        if waiter.state == WAITING:
            waiter.state = WITHDRAWN
            self._withdraw(waiter.src, waiter)
        elif waiter.state == CLAIMED:
            waiter.state = WITHDRAWN
        return waiter.state == WITHDRAWN  # type: ignore[no-any-return]

    def _take_back(self, waiter: Waiter) -> bool:
        if not waiter.src._locked(self._take_back_locked, waiter):
            return False
        _empty(waiter)
        return True

    def _take_back_locked(self, waiter: Any) -> bool:
        if waiter.state == SERVED:
            if not self._undo(waiter.src, waiter):
                return False
            waiter.state = WITHDRAWN
        return True

    def _collect(self, waiter: Any) -> Any:
        if waiter.state == ENDED:
            try:
                raise self._ended(waiter.src, waiter)
            finally:
                _empty(waiter)  # it may have been evicted from the midst of a queue
        value, waiter.value = waiter.value, None
        return self._received(waiter.src, value)

    def _received(self, src: Any, value: Any, /) -> Any:
        """The result of a waiter that was served with `value`, outside the lock."""
        return value

    def _branches(self) -> list[Branch]:
        src = self._src
        if src is None:
            raise twice(self)
        self._src = None
        return [Branch(self, src, () if self._finish is None else (self._finish,))]


def _empty(waiter: Any) -> None:
    """It is over with `waiter`: a tombstone must not hold a user's object, which would die under the lock."""
    waiter.value = waiter.op = None
