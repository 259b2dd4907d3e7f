"""What is shown and written: a table for each cell and one of the targets, and all of it as JSON.

On a terminal the tables are rich's, where that is installed; elsewhere they are plain lines. A ratio is the peer's
figure divided by chanlib's: above 1, chanlib is better. The JSON names the interpreter, the packages and the kind of
machine, and nothing that tells which machine it was.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from .peers import PEERS, capacity_label
from .runner import Cell, Entry, Options, base_of
from .scenarios import SCENARIOS
from .targets import Verdict, is_free_threaded

SCHEMA = 1


# ------------- where it was
def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = (models or [platform.processor() or platform.machine()])[0]
    return {"cpu": cpu, "count": os.cpu_count(), "platform": platform.platform()}


def load() -> float | None:
    """How busy the machine is with this and all else, over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def python() -> dict[str, Any]:
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "free_threaded": is_free_threaded(),
    }


def packages() -> dict[str, str]:
    """The versions of all that can be compared here."""
    found = {}
    needed = {scenario.package for scenario in SCENARIOS if scenario.package}
    for name in sorted({peer.package for peer in PEERS} | needed | {"uvloop"}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the standard library's, or not installed
            continue
    return found


def headline(options: Options) -> str:
    build, where = python(), machine()
    threads = " free-threaded" if build["free_threaded"] else ""
    per = f"{options.items} items" if options.items else f"{options.seconds:g} s"
    versions = ", ".join(f"{name} {number}" for name, number in packages().items())
    return (
        f"{build['implementation']} {build['version']}{threads}, {where['count']} x {where['cpu']}, "
        f"{options.rounds} rounds of {per}\n{versions}\n"
        "beside chanlib: the peer's figure divided by chanlib's; above 1, chanlib is better"
    )


# ------------- as JSON
def cell_json(cell: Cell, entries: list[Entry]) -> dict[str, Any]:
    base = base_of(entries)
    return {
        "scenario": cell.scenario.name,
        "side": cell.side.name,
        "capacity": _capacity_json(cell.capacity),
        "text": cell.scenario.text,
        "item": cell.scenario.item,
        "unit": cell.scenario.unit,
        "base": base.peer,
        "peers": [_entry_json(entry, base) for entry in entries],
    }


def _entry_json(entry: Entry, base: Entry) -> dict[str, Any]:
    values = entry.values
    return {
        "peer": entry.peer,
        "trouble": entry.trouble,
        "figures": values,
        "items": [figure.items for figure in entry.figures],
        "engine": next((figure.engine for figure in entry.figures), None),
        "median": entry.median if values else None,
        "quartiles": entry.quartiles if values else None,
        "range": (min(values), max(values)) if values else None,
        "ratio": entry.ratio(base),
        "ratio_range": entry.ratio_range(base),
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    row = verdict.row
    return {
        "text": row.text,
        "scenario": row.scenario,
        "side": row.side,
        "capacity": _capacity_json(row.capacity),
        "against": row.against,
        "engine": verdict.engine,
        "target": verdict.target,
        "targets": {"pure": row.pure._asdict(), "native": row.native._asdict()},
        "ratio": verdict.ratio,
        "ratio_range": verdict.ratio_range,
        "verdict": verdict.verdict,
        "sure": verdict.sure,
    }


def _capacity_json(capacity: float | None) -> int | str | None:
    if capacity is None:
        return None
    return "unbounded" if capacity == float("inf") else int(capacity)


def document(
    options: Options,
    cells: list[tuple[Cell, list[Entry]]],
    verdicts: list[Verdict],
    left_out: Iterable[str],
    loads: Sequence[float | None],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "python": python(),
        "packages": packages(),
        "machine": machine(),
        "load": list(loads),  # before and after
        "options": {
            "rounds": options.rounds,
            "seconds": None if options.items else options.seconds,
            "items": options.items,
            "timeout": options.patience,
        },
        "left_out": list(left_out),
        "cells": [cell_json(cell, entries) for cell, entries in cells],
        "summary": [verdict_json(verdict) for verdict in verdicts],
    }


# ------------- for people
class Paper:
    """Where tables go: a terminal with rich, or plain lines."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.rich = self.out.isatty() and find_spec("rich") is not None

    def line(self, text: str = "") -> None:
        self.passing("")
        print(text, file=self.out, flush=True)

    def passing(self, text: str) -> None:
        """Where it is now: on a terminal only, and gone with the next line."""
        if self.out.isatty():
            print(f"\r\x1b[K{text}", end="\r", file=self.out, flush=True)

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns whose head begins with `>` are aligned to the right."""
        if self.rich:
            self.passing("")
            self._rich_table(title, heads, rows)
            return
        right = [head.startswith(">") for head in heads]
        cells = [[head.removeprefix(">") for head in heads], *rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
        self.line(title)
        for row in cells:
            texts = [
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(row, widths, right, strict=True)
            ]
            self.line("  " + "  ".join(texts).rstrip())
        self.line()

    def _rich_table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for head in heads:
            table.add_column(head.removeprefix(">"), justify="right" if head.startswith(">") else "left")
        for row in rows:
            table.add_row(*(Text(text, _STYLES.get(text.split("?")[0], "")) for text in row))
        Console(file=self.out).print(table)


_STYLES = {"met": "green", "missed": "red", "hung": "red", "chanlib": "bold"}


def show_cell(paper: Paper, cell: Cell, entries: list[Entry]) -> None:
    base = base_of(entries)
    unit = f"{cell.scenario.unit} for {cell.scenario.item}"
    rows = []
    for entry in entries:
        if not entry.values:
            rows.append((entry.peer, entry.trouble or "", "", "", ""))
            continue
        low, high = entry.quartiles
        ratio, spread = _ratio_texts(entry, base) if entry is not base else ("", "")
        median = f"{entry.median:,.0f}" + (f" ({entry.trouble})" if entry.trouble else "")
        rows.append((entry.peer, median, f"{low:,.0f} to {high:,.0f}", ratio, spread))
    heads = ("peer", ">" + unit, ">quartiles", f">beside {base.peer}", ">rounds")
    paper.table(f"{cell} ({cell.scenario.text})", heads, rows)


def _ratio_texts(entry: Entry, base: Entry) -> tuple[str, str]:
    ratio, spread = entry.ratio(base), entry.ratio_range(base)
    if ratio is None or spread is None:
        return "", ""
    return f"{ratio:.2f}x", f"{spread[0]:.2f} to {spread[1]:.2f}"


def show_summary(paper: Paper, verdicts: list[Verdict]) -> None:
    rows = []
    for verdict in verdicts:
        row = verdict.row
        figure = spread = ""
        if verdict.ratio is not None and verdict.ratio_range is not None:
            figure, spread = f"{verdict.ratio:.2f}x", f"{verdict.ratio_range[0]:.2f} to {verdict.ratio_range[1]:.2f}"
        where = row.side if row.capacity is None else f"{row.side}, {capacity_label(row.capacity)}"
        mark = "" if verdict.sure else "?"
        target = "" if verdict.target is None else f"{verdict.target:.3g}x"
        rows.append((row.text, where, row.against, target, figure, spread, verdict.verdict + mark))
    engine = verdicts[0].engine if verdicts else "pure"
    heads = ("scenario", "where", "against", f">target, {engine}", ">figure", ">rounds", "verdict")
    paper.table("Targets (a verdict with ? is one that the rounds do not agree on)", heads, rows)
    met = sum(verdict.verdict == "met" for verdict in verdicts)
    paper.line(f"{met} of {sum(verdict.target is not None for verdict in verdicts)} targets met")
