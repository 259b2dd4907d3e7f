"""The network: its channels, and the stages between them. `chanlib.demo` has a picture of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import trio as trio  # `collect` needs it: not to fail half way

from .. import Channel, ChannelStatistics, Event, TaskGroup, TaskHandle
from .collect import collect
from .hashing import Found, Tally, hash_files, hash_in_process
from .lines import line
from .output import Output
from .skipped import Findings, Skipped
from .walk import Listing, list_folders, walk

if TYPE_CHECKING:
    from ..processes import ProcessChannel

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
    """Hashes the files below `root`, or `root` itself, to `output`, in so many `processes`; 0: in threads.

    The `write` stage waits for `may_write`: lines and live counts must not meet on one terminal.
    """

    collect: TaskHandle[None]
    write: TaskHandle[int]
    """How many lines were written."""

    def __init__(self, root: bytes, is_folder: bool, output: Output, processes: int = 0) -> None:
        self.folders = Channel[bytes](1, name="folders")
        self.listings = Channel[Listing](8, name="listings")
        self.paths: Channel[bytes] | ProcessChannel[bytes]
        if processes:
            from ..processes import ProcessChannel

            self.paths = ProcessChannel(256, name="paths")
        else:
            self.paths = Channel(256, name="paths")
        self.hashed = Channel[bytes](256, name="hashed")
        self.skipped = Channel[Skipped](256, name="skipped")
        self.lines = Channel[bytes](256, name="lines")
        self.may_write = Event(name="may write")
        self._root = root
        self._is_folder = is_folder
        self._output = output
        self._findings = Findings()
        self._processes = processes
        self._hashers = f"{processes} process{'es' * (processes > 1)}" if processes else f"{HASHERS} threads"
        self._tallies = [Tally() for _ in range(1 if processes else HASHERS)]

    def start(self, group: TaskGroup) -> None:
        """Start the stages, in `group`."""
        paths, skipped, lines = self.paths, self.skipped.sender(), self.lines.sender()
        group.start_thread(list_folders, self.folders, self.listings, name="list")
        group.start_async(walk, self._root, self._is_folder, self.folders, self.listings, paths, skipped, name="walk")
        group.start_thread(self._hash_in_processes if self._processes else self._hash, name="hash")
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

    def _hash_in_processes(self) -> None:
        """Start the processes, and pass on what they find. If one of them dies, their group fails.

        They are spawned: a fork server would feel a Ctrl-C that comes from the terminal while it starts.
        """
        from ..processes import open_process_channel

        (tally,) = self._tallies
        sender, found = open_process_channel[Found](256, name="found")
        with found, TaskGroup(name="hash") as group:
            with sender:  # each of them gets a sender of its own
                for n in range(self._processes):
                    group.start_process(
                        hash_in_process,
                        *(self.paths, sender, self._output.identities),
                        name=f"worker {n + 1}",
                        start_method="spawn",
                    )
            for item in found:
                match item:
                    case bytes():
                        self.hashed.send(item).sync()
                        tally.files += 1
                    case Skipped():
                        self.skipped.send(item).sync()
                    case _:
                        tally.read(item)
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

        def stage(name: str, world: str, done: str, *gives: str) -> StageCount:
            return StageCount(name, world, done, [(channel, getattr(self, channel).statistics()) for channel in gives])

        return Snapshot(
            files,
            read,
            [
                stage("walk", "asyncio", f"{self.paths.statistics().sent:,} found", "folders", "paths"),
                stage("list", "thread", f"{self.folders.statistics().received:,} folders", "listings"),
                stage(
                    *("hash", self._hashers, f"{files:,} files, {read / 1e6:,.1f} MB"),
                    *("hashed", "skipped"),
                ),
                stage("collect", "trio", f"{self.hashed.statistics().received:,} digests", "lines"),
                stage("write", "thread", f"{self.lines.statistics().received:,} lines"),
            ],
        )

    def busiest(self) -> str:
        """The channel with the most sent; of several, the one that was fuller at its peak.

        Of one between processes the peak is not known.
        """
        channels = (self.folders, self.listings, self.paths, self.hashed, self.skipped, self.lines)
        statistics = [(channel.name, channel.statistics()) for channel in channels if isinstance(channel, Channel)]
        name, most = max(statistics, key=lambda item: (item[1].sent, item[1].peak / item[1].capacity))
        return f"{name}: {most.sent:,} sent, peak {most.peak} of {most.capacity}"
