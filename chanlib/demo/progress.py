"""How far the run is, live on stderr: a table that rich redraws, or else plain lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .network import Snapshot

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LiveTable", "PlainLines", "Progress", "choose_progress", "in_bytes", "say"]

Rows = Sequence[tuple[str, str]]


def say(text: str) -> None:
    """Write a line to stderr. Nobody listening there is no reason to stop."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


class Progress(Protocol):
    """`period`: seconds between two `show`. `end` shows the last state and is called once."""

    period: float

    def show(self, snapshot: Snapshot) -> None: ...
    def end(self, snapshot: Snapshot) -> None: ...
    def summary(self, rows: Rows) -> None: ...

    def abandon(self) -> None:
        """Leave the terminal usable, without waiting."""


class PlainLines:
    """At most one line per second, and one at the end."""

    period = 1.0

    def show(self, snapshot: Snapshot) -> None:
        stages = ", ".join(f"{stage.name} {stage.done}" for stage in snapshot.stages)
        queues = ", ".join(
            f"{name} {now.buffered}/{now.capacity}" for stage in snapshot.stages for name, now in stage.gives
        )
        say(f"{stages} | queued: {queues}")

    end = show

    def summary(self, rows: Rows) -> None:
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            say(f"{label:<{width}}  {value}")

    def abandon(self) -> None:
        pass


class LiveTable:
    """A table redrawn in place, by the calling thread only. Needs rich."""

    period = 0.1

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        try:
            self._live.update(_table(snapshot), refresh=True)
        except OSError:
            pass  # the terminal is gone

    def end(self, snapshot: Snapshot) -> None:
        self.show(snapshot)
        try:
            self._live.stop()
        except OSError:
            pass

    def summary(self, rows: Rows) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        for label, value in rows:
            table.add_row(label, Text(value))
        try:
            self._console.print(table)
        except OSError:
            pass

    def abandon(self) -> None:
        fd = sys.stderr.fileno()
        os.set_blocking(fd, False)
        try:
            os.write(fd, b"\x1b[?25h\n")  # show the cursor
        except OSError:
            pass
        finally:
            os.set_blocking(fd, True)


def _table(snapshot: Snapshot) -> Table:
    from rich.table import Table

    table = Table("stage", "lives in", "done", "sends to", "queued", "", "most")
    for stage in snapshot.stages:
        first = (stage.name, stage.world, stage.done)
        for channel, now in stage.gives:
            bar = "#" * round(10 * now.buffered / now.capacity)
            depth = f"{now.buffered}/{now.capacity}"
            table.add_row(*first, channel, depth, f"{bar:<10}", str(now.peak))
            first = ("", "", "")
        if not stage.gives:
            table.add_row(*first)
    return table


def choose_progress() -> Progress:
    """Rich on a terminal that can move its cursor, if rich is installed; else plain lines."""
    if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        try:
            return LiveTable()
        except ImportError:
            pass
    return PlainLines()


def in_bytes(count: int) -> str:
    """For people: 1.5 GB."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        size /= 1000
        if size < 999.95 or unit == "PB":
            return f"{size:.1f} {unit}"
    raise AssertionError
