"""Signals of the operating system, received like values.

The handler runs in the main thread, between two bytecodes of whatever it does, so also in the middle of an operation
on this very channel: `send_nowait` is made for that. Deliveries of one signal that has not been received yet are
one, as in the operating system.
"""

from __future__ import annotations

import math
import signal
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ._core.engine import Op
from .channels import Channel, ChannelStatistics
from .errors import ChannelClosed
from .iterating import Received

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Signals", "signals"]


def signals(*signums: int) -> Signals:
    """Receive these signals, from now on until `close()` or the end of `with`, in place of their handlers.

        with signals(signal.SIGTERM, signal.SIGHUP) as received:
            async for signum in received: ...

    To be called, and closed, in the main thread: Python allows no other (`RuntimeError`). `ValueError` for none, or
    one that cannot be caught. Source of the semantics: Go's `signal.Notify`, trio's `open_signal_receiver`.
    """
    return Signals(signums)


class Signals(Received[signal.Signals]):
    """A receiver of signals: `signals(...)` makes one. Tasks and threads of any kind may receive from it."""

    __slots__ = ("_before", "_channel", "_pending")

    def __init__(self, signums: tuple[int, ...]) -> None:
        self._before: dict[signal.Signals, Any] = {}
        wanted: list[signal.Signals] = []
        if not signums:
            raise ValueError("signals() needs at least one signal number")
        for signum in signums:
            if isinstance(signum, bool) or not isinstance(signum, int):
                raise TypeError(f"signum must be a signal number, not {signum!r}")
            if signum not in signal.valid_signals():
                raise ValueError(f"signum must be a signal of this system, not {signum!r}")
            wanted.append(_named(signum))
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals() must be called in the main thread: Python handles signals only there")
        self._pending: set[signal.Signals] = set()
        self._channel: Channel[signal.Signals] = Channel(len(set(wanted)), name="signals")
        try:
            for signum in wanted:
                if signum not in self._before:
                    self._before[signum] = signal.signal(signum, self._arrived)
        except OSError as error:
            self.close()
            raise ValueError(f"signum must be a signal that can be caught, not all of {wanted!r} can") from error
        except BaseException:
            self.close()
            raise

    def _arrived(self, signum: int, frame: Any) -> None:
        number = _named(signum)
        if number not in self._pending:
            self._pending.add(number)
            try:
                self._channel.send_nowait(number)
            except ChannelClosed:
                pass
            except BaseException:
                self._pending.discard(number)
                raise

    def _received(self, number: signal.Signals) -> signal.Signals:
        self._pending.discard(number)
        return number

    def _received_some(self, numbers: list[signal.Signals]) -> list[signal.Signals]:
        return [self._received(number) for number in numbers]

    def receive(self) -> Op[signal.Signals]:
        """Wait for the next signal. `EndOfChannel` once it is closed and drained."""
        return self._channel.receive().map(self._received)

    __op__ = receive

    def receive_nowait(self) -> signal.Signals:
        """A signal that has come, else `ChannelEmpty`."""
        return self._received(self._channel.receive_nowait())

    def receive_some(self, max: float = math.inf, /) -> Op[list[signal.Signals]]:
        """All that have come, at least one and at most `max`; waits for the first."""
        return self._channel.receive_some(max).map(self._received_some)

    def close(self) -> bool:
        """Give the signals back to the handlers that were there before. Returns True the first time.

        In the main thread only, else `RuntimeError`. A handler that somebody has put in our place stays.
        """
        if not self.is_closed and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals must be closed in the main thread: Python handles signals only there")
        first = self._channel.close()
        for signum, before in self._before.items():
            if signal.getsignal(signum) == self._arrived:
                while (owner := getattr(before, "__self__", None)) and isinstance(owner, Signals) and owner.is_closed:
                    before = owner._before[signum]  # closed before us, when our handler stood in its place
                signal.signal(signum, signal.SIG_DFL if before is None else before)
        return first

    @property
    def is_closed(self) -> bool:
        """Whether `close()` was called."""
        return self._channel.is_closed

    def statistics(self) -> ChannelStatistics:
        """As `Channel.statistics`."""
        return self._channel.statistics()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(getattr(signum, "name", str(signum)) for signum in self._before)
        return f"<signals {names}{', closed' if self.is_closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled")


def _named(signum: int) -> signal.Signals:
    """As a `Signals`; a real-time signal that has no name stays a number."""
    try:
        return signal.Signals(signum)
    except ValueError:
        return cast(signal.Signals, signum)
