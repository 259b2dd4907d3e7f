"""Rounds of processes: in each round every peer of a cell gets a fresh process, and every other round goes backwards.

So what slows the machine down for a while slows down all that are compared. A peer that takes longer than the
patience is hung, one that fails says why: either has no more rounds, and the others go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from .peers import Peer, capacity_label
from .rows import Scenario
from .sides import Side
from .worker import Figure, Job

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    rounds: int = 5
    seconds: float = 0.3  # that the timed run of a process takes, unless `items` says how long it is
    items: int | None = None
    patience: float = 60.0  # seconds for a process
    modules: tuple[str, ...] = ()


class Cell(NamedTuple):
    """What is compared at once: one scenario, on one side, at one capacity, or None if it is not about channels."""

    scenario: Scenario
    side: Side
    capacity: float | None

    def __str__(self) -> str:
        capacity = "" if self.capacity is None else f", capacity {capacity_label(self.capacity)}"
        return f"{self.scenario.name}, {self.side.name}{capacity}"


@dataclass
class Entry:
    """What the rounds of one peer gave, up to the first that went wrong."""

    peer: str
    figures: list[Figure] = field(default_factory=list)
    trouble: str | None = None

    @property
    def values(self) -> list[float]:
        return [figure.value for figure in self.figures]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = quantiles(self.values, n=4, method="inclusive")
        return low, high

    def ratio(self, base: Entry) -> float | None:
        """How many times the figure of `base` goes into this one: above 1, the base is better."""
        return self.median / base.median if self.values and base.values else None

    def ratio_range(self, base: Entry) -> tuple[float, float] | None:
        """The lowest and the highest ratio of a single round."""
        ratios = [theirs / ours for theirs, ours in zip(self.values, base.values, strict=False)]
        return (min(ratios), max(ratios)) if ratios else None


def base_of(entries: list[Entry]) -> Entry:
    """The one that the others are compared with: chanlib's own channel, or the first."""
    return next((entry for entry in entries if entry.peer == "chanlib"), entries[0])


def run_cell(
    cell: Cell, peers: list[Peer], options: Options, said: Callable[[str], None] = lambda _: None
) -> list[Entry]:
    """All rounds of a cell; `said` hears how far it is."""
    entries = [Entry(peer.name) for peer in peers]
    for number in range(options.rounds):
        for entry in entries[:: -1 if number % 2 else 1]:
            if entry.trouble is None:
                said(f"{cell}: round {number + 1} of {options.rounds}, {entry.peer}")
                add_round(entry, cell, options)
    return entries


def run_worker(command: list[str], patience: float) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, but what the process has started ends with it: one that hangs may have children."""
    pipe: Any = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    with process:
        try:
            out, err = process.communicate(timeout=patience)
        except BaseException:
            if hasattr(os, "killpg"):  # politely: who tidies up after `multiprocessing` ignores it, and then ends
                os.killpg(process.pid, signal.SIGTERM)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def add_round(entry: Entry, cell: Cell, options: Options) -> None:
    """One process more."""
    capacity = None if cell.capacity in (None, float("inf")) else int(cell.capacity)
    names = (cell.scenario.name, entry.peer, cell.side.name)
    job = Job(*names, capacity, options.seconds, options.items, options.modules)
    command = [sys.executable, "-m", "benchmarks", "--worker", job.dump()]
    try:
        done = run_worker(command, options.patience)
    except subprocess.TimeoutExpired:
        entry.trouble = "hung"
        return
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        if "failed" in answer:
            entry.trouble = f"failed: {answer['failed']}"
        else:
            entry.figures.append(Figure(**answer))
    except (IndexError, TypeError, ValueError):  # no answer at all
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        entry.trouble = f"failed: exit code {done.returncode}, {last}"
