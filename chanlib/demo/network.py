"""The network: its channels, and the stages between them. `chanlib.demo` has a picture of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import trio

from .. import Channel, ChannelStatistics, Event
from .collect import collect
from .hashing import Tally, hash_files
from .lines import line
from .output import Output
from .skipped import Findings, Skipped
from .stage import Stage
from .walk import Listing, list_folders, walk

__all__ = ["Network", "Snapshot", "StageCount"]

HASHERS = max(2, min(8, os.cpu_count() or 1))


class StageCount(NamedTuple):
    """One stage at one moment: what it has done, and the channels that lead out of it."""

    name: str
    world: str
    done: str
    gives: list[tuple[str, ChannelStatistics]]


class Snapshot(NamedTuple):
    files: int
    bytes: int  # read so far
    stages: list[StageCount]


class Network:
    """Hashes the files below `root`, or `root` itself, to `output`.

    The `write` stage waits for `may_write`: lines and live counts must not meet on one terminal.
    """

    def __init__(self, root: bytes, is_folder: bool, output: Output, check: Callable[[], None]) -> None:
        self.folders = folders = Channel[bytes](1, name="folders")
        self.listings = listings = Channel[Listing](8, name="listings")
        self.paths = paths = Channel[bytes](256, name="paths")
        self.hashed = hashed = Channel[bytes](256, name="hashed")
        self.skipped = skipped = Channel[Skipped](256, name="skipped")
        self.lines = lines = Channel[bytes](256, name="lines")
        self.findings = findings = Findings()
        self.may_write = Event(name="may write")
        self.written = 0
        self._output = output
        self._check = check
        self._tallies = [Tally() for _ in range(HASHERS)]
        self.finished = finished = Channel[Stage](5, name="finished")

        async def walking() -> None:
            await walk(root, is_folder, folders, listings, paths.sender(), skipped.sender())

        self.list = Stage(
            "list",
            "thread",
            [partial(list_folders, folders, listings)],
            takes=[folders],
            gives=[listings],
            finished=finished,
        )
        self.walk = Stage(
            "walk",
            "asyncio",
            [lambda: asyncio.run(walking())],
            takes=[listings],
            gives=[folders, paths],
            finished=finished,
        )
        self.hash = Stage(
            "hash",
            f"{HASHERS} threads",
            [partial(hash_files, paths, hashed, skipped, output.identities, t) for t in self._tallies],
            takes=[paths],
            gives=[hashed, skipped],
            finished=finished,
        )
        self.collect = Stage(
            "collect",
            "trio",
            [lambda: trio.run(collect, hashed, skipped, lines.sender(), findings)],
            takes=[hashed, skipped],
            gives=[lines],
            finished=finished,
        )
        self.write = Stage(
            "write",
            "thread",
            [self._write_lines],
            takes=[lines],
            gives=[],
            finished=finished,
        )
        self.stages = [self.walk, self.list, self.hash, self.collect, self.write]

    @property
    def channels(self) -> list[Channel[Any]]:
        return [self.folders, self.listings, self.paths, self.hashed, self.skipped, self.lines]

    def start(self) -> None:
        for stage in self.stages:
            stage.start()

    def interrupt(self, cause: BaseException) -> None:
        """End all stages. What is already hashed and skipped still arrives, and is counted."""
        for unread in (self.folders, self.listings, self.paths):
            unread.cancel(cause)
        for done in (self.hashed, self.skipped):
            done.close(cause)

    def _write_lines(self) -> None:
        """The last stage. A run that broke raises in the first line: nothing is written."""
        records = list(self.lines)
        records.sort()
        self.may_write.wait().sync()
        self._output.write(map(line, records), self._check)
        self.written = len(records)

    def snapshot(self) -> Snapshot:
        """How far everybody is. Never blocks: each number is right, not all of the same instant."""
        files = sum(tally.files for tally in self._tallies)
        read = sum(tally.bytes for tally in self._tallies)
        done = {
            self.walk: f"{self.paths.statistics().sent:,} found",
            self.list: f"{self.folders.statistics().received:,} folders",
            self.hash: f"{files:,} files, {read / 1e6:,.1f} MB",
            self.collect: f"{self.hashed.statistics().received:,} digests",
            self.write: f"{self.lines.statistics().received:,} lines",
        }
        return Snapshot(
            files,
            read,
            [
                StageCount(
                    stage.name,
                    stage.world,
                    done[stage],
                    [(str(channel.name), channel.statistics()) for channel in stage.gives],
                )
                for stage in self.stages
            ],
        )

    def busiest(self) -> str:
        """The channel with the most sent; of several, the one that was fuller at its peak."""
        statistics = [(channel.name, channel.statistics()) for channel in self.channels]
        name, most = max(statistics, key=lambda item: (item[1].sent, item[1].peak / item[1].capacity))
        return f"{name}: {most.sent:,} sent, peak {most.peak} of {most.capacity}"
