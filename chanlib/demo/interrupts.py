"""Ctrl-C as a chanlib `Event`, which a signal handler may set and a `select` can wait for.

The first signal asks the run to end. A second one gives it a moment more, for one press may arrive
twice (GNU `timeout` signals a process and then its group), and then ends the process; a third ends
it at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from .. import Event

__all__ = ["Interrupts"]

MOMENT = 1.0  # seconds


class Interrupts:
    """Signals that end the run, while its `with` block is open. For the main thread."""

    def __init__(self) -> None:
        self.arrived = Event(name="interrupt")
        self.signum = 0  # of the first
        self._signals = 0
        self._before: dict[int, Any] = {}
        self._alarm_before: Any = None
        self._on_abandon: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        # SIGINT and SIGTERM also where the shell that started us in the background had them
        # ignored: one that arrives all the same was meant for us. Whoever ignores SIGHUP (nohup)
        # wants to go on.
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signum = getattr(signal, name, None)
            if signum is not None and (name != "SIGHUP" or signal.getsignal(signum) != signal.SIG_IGN):
                self._before[signum] = signal.signal(signum, self._on_signal)
        if hasattr(signal, "setitimer"):
            self._alarm_before = signal.signal(signal.SIGALRM, self._abandon)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if hasattr(signal, "setitimer"):  # last: nothing can set it off any more
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm_before)

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"

    @property
    def exit_code(self) -> int:
        return 128 + self.signum

    def on_abandon(self, tidy: Callable[[], object]) -> None:
        """Call `tidy()` before the process is ended without waiting. It must not block."""
        self._on_abandon.append(tidy)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            self.signum = signum
            self.arrived.set()
        elif self._signals == 2 and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, MOMENT)
        else:
            self._abandon(signum, frame)

    def _abandon(self, signum: int, frame: FrameType | None) -> None:
        try:
            for tidy in self._on_abandon:
                tidy()
        finally:
            os._exit(128 + (self.signum or signum))
