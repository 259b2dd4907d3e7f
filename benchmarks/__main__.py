"""The command line: `python -m benchmarks [SCENARIO...] [--summary] [--json FILE]`.

Names may be cut at a word: `select` stands for all selects, `--side thread` for all sides that begin in a thread.
Without a scenario all are run; with `--summary`, what the targets need. A missed target is no failure: the exit code
says only whether the measuring worked.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1:2] == ["--worker"]:  # which imports no more than it needs
    from benchmarks import worker

    worker.main(sys.argv[2])
    sys.exit()

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter

from .peers import PEERS, Peer
from .report import Paper, document, headline, load, show_cell, show_summary
from .runner import Cell, Entry, Options, run_cell
from .scenarios import SCENARIOS
from .sides import SIDES
from .targets import ROWS, Row, Verdict, judge
from .worker import Job, profile

CAPACITIES = (0, 1, 100, math.inf)
STARTING = 0.5  # seconds that a process takes besides, for the forecast


def matching(argument: str, wanted: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """The known names that are wanted, or begin with the words that are."""
    if wanted is None:
        return list(known)
    chosen: set[str] = set()
    for word in wanted:
        found = {word} if word in known else {name for name in known if name.startswith(tuple(word + c for c in "_-."))}
        if not found or not word:
            raise ValueError(f"argument {argument}: there is no {word!r}; allowed are {', '.join(known)}")
        chosen |= found
    return [name for name in known if name in chosen]


def capacities(wanted: Iterable[str] | None) -> list[float]:
    if wanted is None:
        return list(CAPACITIES)
    chosen: list[float] = []
    for word in wanted:
        if word != "unbounded" and not word.isdecimal():
            raise ValueError(f"argument --capacity: {word!r} is neither a number from 0 on nor 'unbounded'")
        chosen.append(math.inf if word == "unbounded" else int(word))
    return chosen


class Choice:
    """What was asked for, and what of it exists. `left_out` says what does not, and why."""

    def __init__(self, args: argparse.Namespace) -> None:
        peers = [peer.name for peer in PEERS]
        self.args = args
        self.scenarios = matching("SCENARIO", args.scenarios or None, [scenario.name for scenario in SCENARIOS])
        self.sides = matching("--side", args.side, [side.name for side in SIDES])
        self.peers = matching("--peer", args.peer, peers)
        self.capacities = capacities(args.capacity)
        self.named = set(self.peers)
        if "chanlib" not in self.peers:
            self.peers.insert(0, "chanlib")  # whom the others are compared with
        self.left_out: dict[str, None] = {}  # in order, each once

    def rows(self) -> list[Row]:
        """The targets that this is about."""
        return [
            row
            for row in ROWS
            if row.scenario in self.scenarios
            and row.side in self.sides
            and (row.against in self.peers or row.limit is not None)
            and (row.capacity is None or row.capacity in self.capacities)
        ]

    def cells(self) -> Iterator[tuple[Cell, list[Peer]]]:
        """What is to be run, and who: with `--summary`, only what the targets need."""
        rows = self.rows()
        asked = bool(self.args.scenarios and (self.args.side or self.args.capacity))
        for scenario in SCENARIOS:
            for side in SIDES:
                for capacity in scenario.capacities(self.capacities):
                    cell = Cell(scenario, side, capacity)
                    names = set(self.peers)
                    if self.args.summary:
                        here = [row for row in rows if _place(row) == _place(cell)]
                        names = {"chanlib", *(row.against for row in here)} if here else set()
                    if (
                        names
                        and scenario.name in self.scenarios
                        and side.name in self.sides
                        and self._there(scenario.name, scenario.missing, always=True)
                        and self._there(side.name, side.missing, always=True)
                        and self._there("", scenario.lacks(side, capacity), always=asked)
                        and (peers := self._peers(cell, names))
                    ):
                        yield cell, peers

    def _peers(self, cell: Cell, names: set[str]) -> list[Peer]:
        """Those of `names` who have a place there; nobody, if none of those who were named has."""
        found = []
        for peer in PEERS:
            if peer.name not in names:
                continue
            reason = peer.lacks(cell.scenario.name, cell.scenario.needs, cell.side, cell.capacity)
            exists = self._there(f"{peer.name} in {cell.scenario.name}, {cell.side.name}", reason, bool(self.args.peer))
            if exists and self._there(peer.name, peer.missing, always=True):
                found.append(peer)
        return found if any(peer.name in self.named for peer in found) else []

    def _there(self, what: str, reason: str | None, always: bool) -> bool:
        if reason is not None and always:
            self.left_out[f"left out: {what}: {reason}" if what else f"left out: {reason}"] = None
        return reason is None


def _place(thing: Cell | Row) -> tuple[str, str, float | None]:
    if isinstance(thing, Row):
        return thing.scenario, thing.side, thing.capacity
    return thing.scenario.name, thing.side.name, thing.capacity


def overview(paper: Paper) -> None:
    """The table of what exists."""
    paper.table("Scenarios", ("name", "what", "the figure is for"), [(s.name, s.text, s.item) for s in SCENARIOS])
    paper.table("Sides", ("name", "what", ""), [(s.name, s.text, s.missing or "") for s in SIDES])
    rows = []
    for peer in PEERS:
        sides = [side.name for side in SIDES if peer.lacks_side(side) is None]
        kinds = ", ".join(sorted(peer.capacities))
        rows.append((peer.name, kinds, ", ".join(sides), ", ".join(peer.only) or "all", peer.missing or ""))
    paper.table("Peers", ("name", "capacities", "sides", "scenarios", ""), rows)


def parser() -> argparse.ArgumentParser:
    def words(text: str) -> list[str]:
        return [word.strip() for word in text.split(",")]

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
        return int(text)

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
        return value

    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="chanlib beside its peers. A ratio above 1 means that chanlib is better.",
        epilog="Lists are separated by commas. A name may be cut at a word: `select`, `--side thread`.",
    )
    add = made.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help="all, unless some are named; --list says which there are")
    add("--summary", action="store_true", help="run what the targets need, and judge each")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--rounds", type=count, help="processes for each peer (5)")
    add("--seconds", type=seconds, help="that the timed run of a process takes (0.3)")
    add("--items", type=count, help="in the timed run, instead of --seconds")
    add("--quick", action="store_true", help="2 rounds of 0.05 s: whether it works, not how fast it is")
    add("--side", type=words, metavar="SIDES")
    add("--peer", type=words, metavar="PEERS", help="beside chanlib")
    add("--capacity", type=words, metavar="CAPACITIES", help="0,1,100,unbounded, unless some are named")
    add("--timeout", type=seconds, default=60.0, help="seconds after which a process is hung (60)")
    add("--with", dest="modules", type=words, default=[], metavar="MODULES", help="imported first; they may add peers")
    add("--profile", action="store_true", help="cProfile of one run of chanlib, or of --peer, on a side with a loop")
    add("--list", action="store_true", help="the scenarios, sides and peers there are")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; the exit code."""
    commands = parser()
    args = commands.parse_args(arguments)
    paper = Paper()
    for module in args.modules:
        try:
            import_module(module)
        except ImportError as error:
            commands.error(f"argument --with: {error}")
    if args.list:
        overview(paper)
        return 0
    options = Options(
        args.rounds or (2 if args.quick else 5),
        args.seconds or (0.05 if args.quick else 0.3),
        args.items,
        args.timeout,
        tuple(args.modules),
    )
    try:
        choice = Choice(args)
    except ValueError as error:
        commands.error(str(error))
    if args.summary and not choice.rows():
        commands.error("there is nothing to run: no target is about that")
    cells = list(choice.cells())
    if not cells:
        commands.error("\n  ".join(["there is nothing to run", *choice.left_out]))
    if args.json is not None and not args.json.resolve().parent.is_dir():
        commands.error(f"argument --json: there is no directory {args.json.parent}")
    if args.profile:
        cell, peers = cells[0]
        chosen = peers[-1] if args.peer else peers[0]
        capacity = None if cell.capacity in (None, math.inf) else int(cell.capacity)
        profile(Job(cell.scenario.name, chosen.name, cell.side.name, capacity, options.seconds, options.items))
        return 0
    return _run(paper, args, options, choice, cells)


def _run(
    paper: Paper, args: argparse.Namespace, options: Options, choice: Choice, cells: list[tuple[Cell, list[Peer]]]
) -> int:
    loads = [load()]
    paper.line(headline(options))
    for line in choice.left_out:
        paper.line(line)
    processes = options.rounds * sum(len(peers) for _, peers in cells)
    forecast = "" if options.items else f", about {processes * (STARTING + 2 * options.seconds) / 60:.0f} minutes"
    paper.line(f"{processes} processes{forecast}\n")
    began, code = perf_counter(), 0
    done: list[tuple[Cell, list[Entry]]] = []
    try:
        for cell, peers in cells:
            done.append((cell, run_cell(cell, peers, options, paper.passing)))
            show_cell(paper, *done[-1])
    except KeyboardInterrupt:
        paper.line("interrupted: what follows is about what was measured")
        code = 130
    verdicts: list[Verdict] = []
    if args.summary:
        entries = {_place(cell): found for cell, found in done}
        verdicts = [judge(row, entries.get(_place(row), [])) for row in choice.rows()]
        show_summary(paper, verdicts)
    loads.append(load())
    paper.line(f"{perf_counter() - began:.0f} s" + _load_text(loads))
    if args.json is not None:
        text = json.dumps(document(options, done, verdicts, choice.left_out, loads), indent=1)
        args.json.write_text(text + "\n", encoding="utf-8")
    return code


def _load_text(loads: list[float | None]) -> str:
    first, last = loads
    return "" if first is None or last is None else f"; load {first:.1f} before, {last:.1f} after"


if __name__ == "__main__":
    sys.exit(main())
