"""What a run leaves out: why, how many, and the first few of each kind by name."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Findings", "Kind", "Skipped", "printable"]

SHOWN = 5


class Kind(enum.Enum):
    """Why something was not hashed."""

    UNREADABLE_FOLDER = "folder that cannot be read"
    UNREADABLE_FILE = "file that cannot be read"
    VANISHED = "vanished meanwhile"
    SHRANK = "shrank while it was read"
    BROKEN_LINK = "broken link"
    FIFO = "FIFO"
    SOCKET = "socket"
    DEVICE = "device"
    OTHER = "neither file nor folder"
    LINK = "link, not followed"
    OUTPUT = "the output itself"

    @property
    def failed(self) -> bool:
        """Whether a regular file, or a folder that may hold some, is missing from the lines."""
        return self in _FAILED

    @property
    def listed(self) -> bool:
        """Whether one wants to know the names."""
        return self not in _EXPECTED


_FAILED = {Kind.UNREADABLE_FOLDER, Kind.UNREADABLE_FILE, Kind.VANISHED, Kind.SHRANK}
_EXPECTED = {Kind.LINK, Kind.OUTPUT}


class Skipped(NamedTuple):
    kind: Kind
    path: bytes
    reason: str = ""


class Findings:
    """Counts of what was skipped. Belongs to `collect`; others read it when that has ended."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._first: dict[Kind, list[Skipped]] = {}

    def add(self, items: Iterable[Skipped]) -> None:
        for item in items:
            self.counts[item.kind] += 1
            first = self._first.setdefault(item.kind, [])
            if len(first) < SHOWN:
                first.append(item)

    @property
    def failed(self) -> bool:
        return any(kind.failed for kind in self.counts)

    def report(self) -> Iterator[str]:
        """Lines for people: each kind with its count, and the first few of it."""
        for kind in Kind:
            count = self.counts[kind]
            if not count:
                continue
            yield f"  {count:>7,}  {kind.value}"
            first = self._first[kind] if kind.listed else []
            for item in first:
                reason = f": {item.reason}" if item.reason else ""
                yield f"             {printable(item.path)}{reason}"
            if first and count > len(first):
                yield f"             ... and {count - len(first):,} more"


def printable(path: bytes) -> str:
    """A path for people: what is not printable, terminal control codes above all, is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
