"""select: perform exactly one of several operations.

Source of the algorithm: Go's `runtime/select.go`. Look at the arms; if none can happen, lock all sources in
creation order, look again in uniformly random order, and leave one `Arm` with each; park; the first peer to claim
the shared cell wins; withdraw the losers.

Before locking all, arms that look ready without any lock are tried one at a time: a busy select costs one lock,
not n. `biased` selects and `poll()` go straight to the atomic look.

`op.map(f)` and `op.within(s)` are selects too, of one arm and of two: everything that consists of several leaves is
a `Choice`, a flat list of branches, each a leaf and the functions that its result goes through. Nested selects
are flattened, so all their leaves take part in one draw.

Invariants:
- the arms of one select never pair with each other: it looks before it leaves them.
- a branch without a lock of its own (a timer) is looked at like any other, and enqueued by telling the ticket when
  to look again.
- a losing arm drops its user's value and every reference at once; its tombstone may stay in a short queue.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...errors import ChannelClosed, WouldBlock
from .leaf import Branch, Leaf
from .ops import PENDING, Op, Path, twice
from .source import Reentered, Source, transact
from .waiters import TAKEN, Arm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .waiters import Waiter

__all__ = ["TIME", "Branch", "Choice", "Mapped", "Never", "Select", "Within"]

T_co = TypeVar("T_co", covariant=True)

_draw = random.random
_orders = [list(permutations(range(n))) for n in range(6)]


def shuffled(items: list[Any]) -> list[Any]:
    """A copy in uniformly random order."""
    n = len(items)
    if n < 2:
        return items
    if n < 6:
        orders = _orders[n]
        return [items[i] for i in orders[int(_draw() * len(orders))]]
    return random.sample(items, n)


class _Time:
    """Where timers stand: a source without lock or waiters."""

    __slots__ = ()
    _lock = None

    def __repr__(self) -> str:
        return "time"


TIME: Any = _Time()
_NONE: list[Branch] = []
_COMPOUND: Any = object()  # the `_src` of a Choice that has not been performed


class Choice(Op[T_co]):
    """Exactly one of several branches."""

    __slots__ = ("_biased", "_limits", "_list")

    _list: list[Branch]
    _limits: list[Branch]  # those to be looked at last; mostly none
    _biased: bool

    def __init__(self, branches: list[Branch], biased: bool) -> None:
        self._list = branches
        self._limits = _NONE
        for branch in branches:
            if branch.last:
                self._list = [b for b in branches if not b.last]
                self._limits = [b for b in branches if b.last]
                break
        self._biased = biased
        self._src = _COMPOUND

    def _sources(self) -> list[Any]:
        """What is to be locked: in creation order, each once."""
        sources = {b.src._number: b.src for b in self._list if b.src._lock is not None}
        return [sources[number] for number in sorted(sources)]

    # ------------------------------------------------------------- what the kinds of choice differ in
    def _path(self, branch: Branch) -> Path:
        """What the result of `branch` goes through when this choice is itself an arm."""
        return branch.path

    def _result(self, branch: Branch, value: Any) -> Any:
        for function in branch.path:
            value = function(value)
        return value

    def _failed(self, branch: Branch, error: Exception) -> None:
        """`error` is about to be raised for `branch`: say of which arm."""
        about = (branch.src, getattr(branch.leaf, "_via", branch.src))
        if branch.arm is not None and isinstance(error, ChannelClosed) and any(error.channel is one for one in about):
            error.arm = branch.arm

    # ------------------------------------------------------------- performing
    def _now(self, src: Any) -> Any:
        if self._biased:
            return self._decide()
        # Only for yes: no, or that the time is over, is decided on one look at all (`_enroll`)
        for branch in shuffled([b for b in self._list if b.leaf._hint(b.src)]):
            leaf, source = branch.leaf, branch.src
            try:
                if source._lock is None:
                    got = leaf._attempt(source)
                else:
                    got = source._locked(leaf._attempt, source)
            except Exception as error:
                self._failed(branch, error)
                raise
            if got is not PENDING:
                return self._result(branch, got)
        return PENDING

    def _snapshot(self, src: Any) -> Any:
        try:
            hit = self._look_at_once()
        except WouldBlock:  # a full channel whose senders do not wait; for `poll` that is a no
            return PENDING
        return PENDING if hit is PENDING else self._result(*hit)

    def _decide(self) -> Any:
        hit = self._look_at_once()
        return PENDING if hit is PENDING else self._result(*hit)

    def _look_at_once(self) -> Any:
        for branch in self._list:
            branch.leaf._hint(branch.src)  # what it has to do without the lock, it does now
        return transact(self._sources(), self._look)

    def _enroll(self, src: Any, waiter: Waiter) -> Any:
        waiter.cell = []
        hit = transact(self._sources(), lambda: self._look_or_leave(waiter))
        return PENDING if hit is PENDING else self._result(*hit)

    def _look(self) -> Any:
        """Under all locks: the first branch, in the order of the draw, that can happen, and its value."""
        order = self._list if self._biased else shuffled(self._list)
        for branch in order + self._limits:
            try:
                got = branch.leaf._attempt(branch.src)
            except Exception as error:
                self._failed(branch, error)
                raise
            if got is not PENDING:
                return branch, got
        return PENDING

    def _look_or_leave(self, ticket: Waiter) -> Any:
        hit = self._look()
        if hit is PENDING:
            cell = ticket.cell
            assert cell is not None
            arms: list[Arm] = []
            ticket.value = arms
            for branches in (self._list if self._biased else shuffled(self._list), self._limits):
                for branch in branches:
                    arm = Arm(ticket, cell, branch)
                    arms.append(arm)
                    branch.leaf._enqueue(branch.src, arm)
        return hit

    def _retract(self, waiter: Waiter) -> bool:
        cell = waiter.cell
        if cell is None or cell is TAKEN:  # never left anywhere; withdrawn already
            return True
        cell.append(waiter)
        winner = cell[0]
        if winner is not waiter and (winner.op is None or winner.op._retract(winner)):
            winner = waiter  # its peer was interrupted: nothing happened
        arms = waiter.value
        if arms is not None:
            waiter.value = None
            for arm in arms:
                if arm is not winner:
                    leaf, source = arm.op, arm.src
                    arm.cell = TAKEN  # the real one leads to the winner and its task
                    arm.value = arm.op = arm.branch = arm.ticket = None
                    if leaf is not None and source._lock is not None:
                        _leave(leaf, source, arm)
        if winner is not waiter:
            return False
        waiter.op = None
        waiter.cell = TAKEN  # the real one is a cycle
        return True

    def _take_back(self, waiter: Waiter) -> bool:
        winner: Any = cast(Any, waiter.cell)[0]
        if not winner.op._take_back(winner):
            return False
        winner.branch = winner.ticket = waiter.op = None
        waiter.cell = TAKEN
        return True

    def _collect(self, waiter: Waiter) -> Any:
        winner: Any = cast(Any, waiter.cell)[0]
        branch, leaf = winner.branch, winner.op
        winner.branch = winner.ticket = waiter.op = None
        waiter.cell = TAKEN  # the real one is a cycle
        try:
            value = leaf._collect(winner)
        except Exception as error:
            self._failed(branch, error)
            raise
        return self._result(branch, value)

    def _describe(self, src: Any) -> str:
        return _described(self._list)

    def _restart(self) -> None:
        for branch in self._list + self._limits:
            branch.leaf._restart()

    def _branches(self) -> list[Branch]:
        if self._src is None:
            raise twice(self)
        self._src = None
        return [Branch(b.leaf, b.src, self._path(b), b.last, b.arm) for b in self._list + self._limits]


def _leave(leaf: Leaf[Any], source: Source, arm: Arm) -> None:
    try:
        leaf._forget(source, arm)
    except Reentered as inside:
        inside.source._defer(lambda: leaf._forget(source, arm))


class Never(Choice[Any]):
    """No branch at all: never happens."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([], False)

    def _describe(self, src: Any) -> str:
        return "never"


class Select(Choice[Any]):
    """`select(...)`: the result is `(index, value)`."""

    __slots__ = ()

    def __init__(self, ops: Sequence[Op[Any] | None], biased: bool) -> None:
        self._src = None  # until it is whole: an error below must not look like a forgotten select
        branches: list[Branch] = []
        try:
            for index, op in enumerate(ops):
                if isinstance(op, Leaf):
                    if op._src is None:
                        raise twice(op)
                    path = () if op._finish is None else (op._finish,)
                    branches.append(Branch(op, op._src, path, False, index))
                    op._src = None
                elif op is not None:
                    for branch in op._branches():
                        branch.arm = index
                        branches.append(branch)
        except RuntimeError:
            for op in ops:
                if op is not None:
                    op._polled = True  # the caller knows by this error: no warning on top
            raise
        if not branches:
            raise ValueError(
                "select() needs at least one arm that is not disabled (None and never() are); "
                "await never() to wait for ever"
            )
        super().__init__(branches, biased)

    def _path(self, branch: Branch) -> Path:
        index = branch.arm
        return (*branch.path, lambda value: (index, value))

    def _result(self, branch: Branch, value: Any) -> Any:
        for function in branch.path:
            value = function(value)
        return branch.arm, value

    def _describe(self, src: Any) -> str:
        return f"select of {super()._describe(src)}"


class Mapped(Choice[T_co]):
    """`op.map(function)`."""

    __slots__ = ()

    def __init__(self, op: Op[Any], function: Callable[[Any], T_co]) -> None:
        self._src = None
        if not callable(function):
            raise TypeError(f"map() takes a function of one argument, not {function!r}")
        branches = op._branches()
        for branch in branches:
            branch.path = (*branch.path, function)
        super().__init__(branches, getattr(op, "_biased", False))


class Within(Choice[T_co]):
    """`op.within(seconds)`."""

    __slots__ = ("_limit",)

    _limit: float

    def __init__(self, op: Op[T_co], limit: float) -> None:
        from .timer import Sleep

        self._src = None
        branches = op._branches()
        timer = Sleep(limit)
        timer._src = None
        over = Branch(timer, TIME, (_Expired(branches, limit),), last=True)
        self._limit = limit
        super().__init__([*branches, over], getattr(op, "_biased", False))

    def _describe(self, src: Any) -> str:
        return f"{super()._describe(src)} within {self._limit} s"


class _Expired:
    """What becomes of an operation whose time is over. It does not lead back to that: a cycle would keep it."""

    __slots__ = ("branches", "limit")

    def __init__(self, branches: list[Branch], limit: float) -> None:
        self.branches = branches
        self.limit = limit

    def __call__(self, _: Any) -> Any:
        raise TimeoutError(f"{_described(self.branches)} did not happen within {self.limit} s")


def _described(branches: list[Branch]) -> str:
    return ", ".join(b.leaf._describe(b.src) for b in branches)
