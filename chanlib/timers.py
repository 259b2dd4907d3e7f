"""Timers: `sleep`, `after`, `every`, `never`.

A timer is a readiness source: nobody sets it, whoever waits looks at the clock. No task or thread stands behind it
and no loop timer is armed while nobody waits. A `Ticker` has a lock of its own, since each tick goes to one
receiver only; its waiters are woken to look again when it is stopped or reset.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

from ._core.engine import (
    PENDING,
    Instant,
    Never,
    Op,
    Queued,
    QueuedLeaf,
    Reentered,
    Sleep,
    clock_here,
    seconds,
)
from .errors import ChannelEmpty, EndOfChannel, WouldBlock
from .iterating import Received

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Ticker", "Timer", "after", "every", "never", "sleep"]

Missed = Literal["skip", "delay", "burst"]


def sleep(delay: float, /) -> Op[None]:
    """Wait for `delay` seconds, counted from performing it.

    Negative counts as 0, `math.inf` waits for ever, NaN is a `ValueError`. Give it to `sync()`, `await` it, or let it
    stand in a select.
    """
    return Sleep(seconds(delay, "delay"))


def never() -> Op[Any]:
    """An operation that never happens. In a `select` it disables its position, as None does."""
    return Never()


def after(delay: float, /) -> Timer:
    """A timer that goes off once, `delay` seconds from now."""
    return Timer(delay)


class Timer:
    """A point in time to wait for: `after(seconds)` makes one.

    It starts when it is made, on the clock of the world it is made in (the loop's, trio's, `time.monotonic` in a
    thread), and may be waited for any number of times, in many selects. Its value is the instant on that clock.
    """

    __slots__ = ("_clock", "_due")

    def __init__(self, delay: float, /) -> None:
        limit = seconds(delay, "delay")
        self._clock = clock_here()
        self._due = self._clock() + limit

    @property
    def due(self) -> float:
        """When it goes off, on the clock it was made by."""
        return self._due

    def wait(self) -> Op[float]:
        """Wait until it goes off; the result is `due`. At once if it has gone off already."""
        return Instant(self._due, self._clock)

    __op__ = wait

    def __await__(self) -> Generator[Any, Any, float]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        left = self._due - self._clock()
        return f"<Timer {'gone off' if left <= 0 else f'in {left:.3f} s'}>"


def every(period: float, /, *, missed: Missed = "skip") -> Ticker:
    """A ticker: one tick each `period` seconds, received from it like from a channel."""
    return Ticker(period, missed=missed)


class Ticker(Queued, Received[float]):
    """Ticks at a fixed period: `every(period)` makes one.

    The first tick comes one period after it is made. A tick's value is the instant for which it was scheduled, on
    the clock of the world the ticker was made in. Each tick goes to one receiver. At most one is pending; what
    becomes of further ones that nobody came for is `missed`:

    - "skip": they are left out; the phase is kept.
    - "delay": the next one comes a period after the late one was received.
    - "burst": they are made up for, one after the other.

    `stop()` ends the stream for its receivers; `reset()` starts it afresh.
    Source of the semantics: Go's `time.Ticker` (skip), tokio's `MissedTickBehavior`.
    """

    __slots__ = ("_clock", "_due", "_missed", "_period", "_stopped")

    def __init__(self, period: float, /, *, missed: Missed = "skip") -> None:
        self._period = _period(period)
        if missed not in ("skip", "delay", "burst"):
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        super().__init__()
        self._missed = missed
        self._clock = clock_here()
        self._due = self._clock() + self._period
        self._stopped = False

    def receive(self) -> Op[float]:
        """Wait for the next tick. Raises `EndOfChannel` once the ticker is stopped."""
        return _Tick(self)

    __op__ = receive

    def receive_nowait(self) -> float:
        """The pending tick, or `ChannelEmpty`."""
        return self.receive().poll()

    def stop(self) -> None:
        """No more ticks: whoever waits, or comes later, gets `EndOfChannel`."""
        self._change(math.inf, True)

    def reset(self, period: float | None = None) -> None:
        """Start afresh, with another `period` if one is given: a pending tick is dropped."""
        if period is not None:
            self._period = _period(period)
        self._change(self._clock() + self._period, False)

    def _change(self, due: float, stopped: bool) -> None:
        try:
            self._locked(self._change_locked, due, stopped)
        except Reentered as inside:
            inside.source._defer(lambda: self._change(due, stopped))

    def _change_locked(self, due: float, stopped: bool) -> None:
        self._due = due
        self._stopped = stopped
        self._wake_all()

    def _next(self, now: float) -> float:
        """Take the tick that is due."""
        due, period = self._due, self._period
        if self._missed == "burst":
            self._due = due + period
        elif self._missed == "delay":
            self._due = now + period
        else:
            self._due = due + period * (1 + (now - due) // period)
        return due

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Ticker of {self._period} s{', stopped' if self._stopped else ''}>"


class _Tick(QueuedLeaf[float]):
    """Receiving a tick: a readiness operation, attempted again when the clock says so."""

    __slots__ = ()

    def __init__(self, ticker: Ticker) -> None:
        self._src = ticker

    def _hint(self, ticker: Ticker) -> bool:
        return ticker._stopped or ticker._clock() >= ticker._due

    def _attempt(self, ticker: Ticker) -> Any:
        if ticker._stopped:
            raise EndOfChannel(f"{ticker!r} has ended", channel=ticker)
        now = ticker._clock()
        return ticker._next(now) if now >= ticker._due else PENDING

    def _enqueue(self, ticker: Ticker, waiter: Any) -> None:
        waiter.wake_in(ticker._due - ticker._clock())
        ticker._stand(waiter)

    def _would_block(self, ticker: Ticker) -> WouldBlock:
        return ChannelEmpty(f"no tick of {ticker!r} is pending")

    def _describe(self, ticker: Ticker) -> str:
        return f"tick of {ticker!r}"


def _period(value: float) -> float:
    period = seconds(value, "period")
    if not 0 < period < math.inf:
        raise ValueError(f"period must be a positive, finite number of seconds, not {value!r}")
    return period
