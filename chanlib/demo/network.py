"""The network: its channels, and the stages between them. `chanlib.demo` has a picture of it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import trio as trio  # `collect` needs it: not to fail half way

from .. import Channel, ChannelStatistics, Event, TaskGroup, TaskHandle
from .collect import collect
from .hashing import Tally, hash_files
from .lines import line
from .output import Output
from .skipped import Findings, Skipped
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

    collect: TaskHandle[None]
    write: TaskHandle[int]
    """How many lines were written."""

    def __init__(self, root: bytes, is_folder: bool, output: Output) -> None:
        self.folders = Channel[bytes](1, name="folders")
        self.listings = Channel[Listing](8, name="listings")
        self.paths = Channel[bytes](256, name="paths")
        self.hashed = Channel[bytes](256, name="hashed")
        self.skipped = Channel[Skipped](256, name="skipped")
        self.lines = Channel[bytes](256, name="lines")
        self.may_write = Event(name="may write")
        self._root = root
        self._is_folder = is_folder
        self._output = output
        self._findings = Findings()
        self._tallies = [Tally() for _ in range(HASHERS)]

    def start(self, group: TaskGroup) -> None:
        """Start the stages, in `group`."""
        paths, skipped, lines = self.paths.sender(), self.skipped.sender(), self.lines.sender()
        group.start_thread(list_folders, self.folders, self.listings, name="list")
        group.start_async(walk, self._root, self._is_folder, self.folders, self.listings, paths, skipped, name="walk")
        group.start_thread(self._hash, name="hash")
        self.collect = group.start_async(
            collect, self.hashed, self.skipped, lines, self._findings, backend="trio", name="collect"
        )
        self.write = group.start_thread(self._write, name="write")

    def _hash(self) -> None:
        """The last of several threads to end closes: a group of their own tells when that is."""
        with TaskGroup(name="hash") as group:
            for n, tally in enumerate(self._tallies):
                group.start_thread(
                    hash_files,
                    *(self.paths, self.hashed, self.skipped, self._output.identities, tally),
                    name=f"hash-{n}",
                )
        self.hashed.close()
        self.skipped.close()

    def _write(self) -> int:
        records = list(self.lines)
        records.sort()
        self.may_write.wait().sync()
        self._output.write(map(line, records))
        return len(records)

    def findings(self) -> Findings:
        """Once all has ended: what was left out. After an interrupt nobody has collected the last of it."""
        self._findings.add(self.skipped.drain())
        return self._findings

    def snapshot(self) -> Snapshot:
        """How far everybody is. Never blocks: each number is right, not all of the same instant."""
        files = sum(tally.files for tally in self._tallies)
        read = sum(tally.bytes for tally in self._tallies)

        def stage(name: str, world: str, done: str, *gives: Channel[Any]) -> StageCount:
            return StageCount(name, world, done, [(str(channel.name), channel.statistics()) for channel in gives])

        return Snapshot(
            files,
            read,
            [
                stage("walk", "asyncio", f"{self.paths.statistics().sent:,} found", self.folders, self.paths),
                stage("list", "thread", f"{self.folders.statistics().received:,} folders", self.listings),
                stage(
                    *("hash", f"{HASHERS} threads", f"{files:,} files, {read / 1e6:,.1f} MB"),
                    *(self.hashed, self.skipped),
                ),
                stage("collect", "trio", f"{self.hashed.statistics().received:,} digests", self.lines),
                stage("write", "thread", f"{self.lines.statistics().received:,} lines"),
            ],
        )

    def busiest(self) -> str:
        """The channel with the most sent; of several, the one that was fuller at its peak."""
        channels = (self.folders, self.listings, self.paths, self.hashed, self.skipped, self.lines)
        statistics = [(channel.name, channel.statistics()) for channel in channels]
        name, most = max(statistics, key=lambda item: (item[1].sent, item[1].peak / item[1].capacity))
        return f"{name}: {most.sent:,} sent, peak {most.peak} of {most.capacity}"
