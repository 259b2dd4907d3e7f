"""Token: the cancel scope of a thread. What anyio's scopes are on asyncio and trio's in trio, this is where there is
no loop: level-triggered, with a deadline and a shield.

The tokens of a program form a tree. A thread is in one of them, its innermost (`Lane.token`); the way from there to
the root, as far as the first shield, is what may cancel it. The parent of a child's first token belongs to another
thread, so a tree spans threads. Nothing is pushed to those below: whoever performs an operation walks up (`check`).
A canceller only sets its flag, and then wakes those who sleep below it.

Source of the semantics: trio's `CancelScope`.

Invariants:
- only the thread that entered a token, and leaves it, moves `Lane.token`, in strict nesting.
- `called` goes from None to a reason, once. It is written before the sleepers are looked for; a thread says where
  it sleeps (under `Lane.guard`) before it looks at the flags. So of the two at least one sees the other.
- a token is in `below` of its parent from before it can be slept in until it is left.
- deadlines are on `time.monotonic`. Nobody guards them but those who sleep or come by.
"""

from __future__ import annotations

import math
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import Cancelled
from .lane import Lane, lanes

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Below", "Token"]


class Below(Protocol):
    """What may hang below a token: another, or the scope of a loop that runs in a thread of ours."""

    def poke(self) -> None:
        """A scope above was cancelled, or its deadline or shield has changed: see what follows."""


class Token:
    """One scope of a thread."""

    __slots__ = ("_claim", "_deadline", "_lane", "_shield", "below", "called", "cancelled_caught", "parent")

    def __init__(self, deadline: float = math.inf, shield: bool = False, parent: Token | None = None) -> None:
        self._claim = [True]
        self._deadline = deadline
        self._shield = shield
        self._lane: Lane | None = None
        self.parent = parent
        self.below: set[Below] = set()
        self.called: str | None = None  # the reason, "" if none was given
        self.cancelled_caught = False

    def __enter__(self) -> Self:
        lane = lanes.lane
        if lane.token is not None:
            self.parent = lane.token
        self._lane = lane
        if self.parent is not None:
            self.parent.below.add(self)
        lane.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        lane, self._lane = self._lane, None
        parent = self.parent
        if lane is None or lane is not lanes.lane or not self._is_innermost(lane, error):
            self._lane = lane
            raise RuntimeError(
                "a cancel scope must be left where it was entered, in the same thread, the innermost first"
            )
        lane.leave(None if parent is None or parent._lane is not lane else parent)
        if parent is not None:
            parent.below.discard(self)
        if error is None or self.called is None or (parent is not None and not self._shield and parent.is_called()):
            return False
        if isinstance(error, Cancelled):
            self.cancelled_caught = True
            return True
        if isinstance(error, BaseExceptionGroup):
            cancelled, rest = cast("BaseExceptionGroup[BaseException]", error).split(Cancelled)
            if cancelled is not None:
                self.cancelled_caught = True
                if rest is None:
                    return True
                context = rest.__context__
                try:
                    raise rest
                finally:
                    rest.__context__ = context
        return False

    def _is_innermost(self, lane: Lane, error: BaseException | None) -> bool:
        """An interrupt may have kept one inside from being left; then that is left now."""
        token = lane.token
        if isinstance(error, KeyboardInterrupt):
            while token is not None and token is not self:
                token = token.parent
        return token is self

    def claim(self) -> bool:
        """May the caller have it? The first may: the thread that was to run in it, or who takes that back."""
        try:
            return self._claim.pop()
        except IndexError:
            return False

    # ------------------------------------------------------------- cancelling
    def cancel(self, reason: str | None = None) -> None:
        """From any thread. Only the first call counts."""
        if self.called is None:
            self.called = reason or ""
            self.poke()

    def poke(self) -> None:
        """Wake all who sleep in this token, and tell those below, unless they are shielded."""
        todo: list[Below] = [self]
        while todo:
            one = todo.pop()
            if not isinstance(one, Token):
                one.poke()
                continue
            lane = one._lane
            if lane is not None:
                with lane.guard:
                    sleeper = lane.parked
                if sleeper is not None:
                    sleeper.nudge()
            todo += [other for other in one.below.copy() if not (isinstance(other, Token) and other._shield)]

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._deadline = value
        self.poke()  # those asleep reckon anew

    @property
    def shield(self) -> bool:
        return self._shield

    @shield.setter
    def shield(self, value: bool) -> None:
        self._shield = value
        self.poke()

    # ------------------------------------------------------------- asking
    def is_called(self) -> bool:
        """Whether it, or one above that is visible through the shields, was cancelled."""
        token: Token | None = self
        while token is not None:
            if token.called is not None:
                return True
            token = None if token._shield else token.parent
        return False

    @property
    def cancel_called(self) -> bool:
        return self.called is not None

    def until(self) -> float:
        """The earliest deadline that applies; -inf if cancelled."""
        earliest = math.inf
        token: Token | None = self
        while token is not None:
            if token.called is not None:
                return -math.inf
            if token._deadline < earliest:
                earliest = token._deadline
            token = None if token._shield else token.parent
        return earliest

    def expire(self, deadline: float) -> None:
        """A loop below has been cut at `deadline`: cancel those whose deadline that was, though it may have moved."""
        token: Token | None = self
        while token is not None:
            if token._deadline <= deadline:
                token.cancel("deadline")
                return
            token = None if token._shield else token.parent
        self.cancel("deadline")

    def why(self) -> str | None:
        """The reason of the outermost scope that is cancelled."""
        reason = None
        token: Token | None = self
        while token is not None:
            if token.called is not None:
                reason = token.called
            token = None if token._shield else token.parent
        return reason or None

    def left(self) -> float:
        """How many seconds it may be slept here."""
        until = self.until()
        return until if math.isinf(until) else until - monotonic()

    def check(self) -> None:
        """Raise `Cancelled` if this thread is to be cancelled here."""
        if self.left() > 0:
            return
        now = monotonic()
        token: Token | None = self
        while token is not None:
            if token.called is None and token._deadline <= now:
                token.cancel("deadline")
            token = None if token._shield else token.parent
        raise Cancelled(self.why() or "")

    def __repr__(self) -> str:
        state = "left" if self._lane is None else "entered" if self.called is None else f"cancelled ({self.called})"
        return f"<scope of a thread, {state}>"
