"""The targets of speed, as data: what chanlib must reach beside whom, in pure Python and with the native engine.

A target is a ratio, the peer's figure divided by chanlib's, each a median of the same run. Where a figure itself is
not to be more than so much, that stands in place of the peer's. The native engine has targets of its own for CPython
3.11, for later versions and for free-threaded builds; the pure one, for builds with and without the GIL. Between
processes the engine has no part, and one target is for both.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from .runner import Entry
from .worker import Figure


class Goal(NamedTuple):
    """A ratio, for each kind of interpreter. None: it is shown, and not judged."""

    on_311: float | None
    later: float | None
    free_threaded: float | None

    def here(self) -> float | None:
        if is_free_threaded():
            return self.free_threaded
        return self.on_311 if sys.version_info < (3, 12) else self.later


def goal(ratio: float, later: float | None = None, free_threaded: float | None = None) -> Goal:
    later = ratio if later is None else later
    return Goal(ratio, later, later if free_threaded is None else free_threaded)


class Row(NamedTuple):
    text: str
    scenario: str
    side: str
    capacity: float | None
    against: str
    pure: Goal
    native: Goal
    limit: float | None = None  # what the figure may be at most: it stands for the peer's

    def target(self, engine: str) -> float | None:
        return (self.pure if engine == "pure" else self.native).here()


_ONE, _TRIO, _SELECT = "one producer, one consumer, asyncio", "the same in trio", "select over 4 channels"
_INTO, _OUT = "thread to asyncio", "asyncio to thread"
_FROM, _QUEUE = "from a process", "multiprocessing.Queue"
_STOP, _FT = "cancelling a child in a thread", Goal(None, None, 1 / 0.6)

ROWS = [
    Row(_ONE, "spsc", "asyncio", 100, "asyncio.Queue", goal(0.7), goal(4, 3, 2)),
    Row(_ONE, "spsc", "asyncio", 100, "anyio", goal(5), goal(25, free_threaded=15)),
    Row(_TRIO, "spsc", "trio", 100, "trio", goal(4), goal(20)),
    Row("capacity 1, asyncio", "spsc", "asyncio", 1, "asyncio.Queue", goal(2), goal(8)),
    Row("rendezvous, asyncio", "spsc", "asyncio", 0, "anyio", goal(2.5), goal(12)),
    Row("rendezvous, trio", "spsc", "trio", 0, "trio", goal(1.1), goal(2.3)),
    Row(_INTO, "spsc", "thread-to-asyncio", 100, "janus", goal(6), goal(10, free_threaded=4)),
    Row(_INTO, "spsc", "thread-to-asyncio", 100, "culsans", goal(2), goal(4)),
    Row(_OUT, "spsc", "asyncio-to-thread", 100, "janus", goal(6), goal(10, free_threaded=4)),
    Row(_OUT, "spsc", "asyncio-to-thread", 100, "culsans", goal(2), goal(4)),
    Row("thread to thread", "spsc", "thread-thread", 100, "queue.Queue", goal(1.3, free_threaded=1), goal(6)),
    Row(f"{_SELECT}, all busy", "select_rx", "asyncio", 100, "asyncio.wait-one", goal(6), goal(15)),
    Row(f"{_SELECT}, all busy", "select_rx", "asyncio", 100, "asyncio.wait-all", goal(6), goal(15)),
    Row(f"{_SELECT}, one item at a time", "select_single", "asyncio", 1, "asyncio.wait-all", goal(2), goal(7)),
    Row("memory of an idle channel", "memory_idle", "asyncio", 100, "janus", goal(4), goal(40)),
    Row("10 000 tasks started and ended", "group_spawn", "asyncio", None, "anyio", goal(0.9), goal(0.9)),
    Row("three nested scopes", "group_scopes", "asyncio", None, "anyio", goal(0.9), goal(0.9)),
    Row("a thread started and ended", "group_thread", "thread-thread", None, "threading.Thread", goal(3), goal(3)),
    Row("100 threads at a time", "group_threads", "thread-thread", None, "threading.Thread", goal(3), goal(3)),
    Row(f"{_STOP}, by a task", "group_stop", "asyncio", None, "5 ms", goal(1), goal(1), 5e6),
    Row(f"{_STOP}, in trio", "group_stop", "trio", None, "5 ms", goal(1), goal(1), 5e6),
    Row(f"{_STOP}, by a thread", "group_stop", "thread-thread", None, "5 ms", goal(1), goal(1), 5e6),
    Row("two threads that compute", "group_pair", "thread-thread", None, "sequence", _FT, _FT),
    Row(f"numbers {_FROM}", "process_ints", "process-thread", None, _QUEUE, goal(3), goal(3)),
    Row(f"numbers {_FROM}", "process_ints", "process-thread", None, "faster_fifo", goal(2), goal(2)),
    Row(f"arrays of 1 MB {_FROM}", "process_arrays", "process-thread", None, _QUEUE, goal(8), goal(8)),
    Row(f"numbers {_FROM}, asyncio", "process_asyncio", "process-asyncio", None, _QUEUE, goal(20), goal(20)),
    Row(f"numbers {_FROM}, trio", "process_trio", "process-trio", None, _QUEUE, goal(20), goal(20)),
    Row("the last sender killed", "process_broken", "process-thread", None, "20 ms", goal(1), goal(1), 20e6),
    Row("the same, asyncio", "process_broken", "process-asyncio", None, "20 ms", goal(1), goal(1), 20e6),
    Row("the same, trio", "process_broken", "process-trio", None, "20 ms", goal(1), goal(1), 20e6),
]


class Verdict(NamedTuple):
    """How a row came out. `verdict` is met or missed, or why neither can be said."""

    row: Row
    engine: str
    target: float | None
    ratio: float | None
    ratio_range: tuple[float, float] | None
    verdict: str
    sure: bool  # all rounds agree


def judge(row: Row, entries: list[Entry]) -> Verdict:
    """Compare what was measured with the target."""
    by_name = {entry.peer: entry for entry in entries}
    if row.limit is not None and "chanlib" in by_name:
        by_name[row.against] = Entry(row.against, [Figure(row.limit, 1, None)] * len(by_name["chanlib"].figures))
    ours, theirs = by_name.get("chanlib"), by_name.get(row.against)
    engine = next((figure.engine for figure in ours.figures if figure.engine), "pure") if ours else "pure"
    target = row.target(engine)
    ratio = theirs.ratio(ours) if ours and theirs else None
    if ours is None or theirs is None or ratio is None:
        reasons = [
            f"{name} {entry.trouble or 'has no figure' if entry else 'was not measured'}"
            for name, entry in (("chanlib", ours), (row.against, theirs))
            if entry is None or not entry.values
        ]
        return Verdict(row, engine, target, None, None, "; ".join(reasons), True)
    low, high = theirs.ratio_range(ours) or (math.nan, math.nan)
    if target is None:
        return Verdict(row, engine, None, ratio, (low, high), "no target here", True)
    return Verdict(
        row, engine, target, ratio, (low, high), "met" if ratio >= target else "missed", not low < target <= high
    )


def is_free_threaded() -> bool:
    return not getattr(sys, "_is_gil_enabled", lambda: True)()
