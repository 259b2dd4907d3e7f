"""Reading and hashing: plain threads, or processes. `hashlib` releases the GIL.

Both do the same, by the same function: a process gives into one channel what a thread gives into three places.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Container
from typing import TYPE_CHECKING

from .. import ReceiveSide, SendSide, checkpoint
from .lines import record
from .skipped import Kind, Skipped

if TYPE_CHECKING:
    from ..processes import ProcessSender

__all__ = ["Found", "Identity", "Tally", "hash_files", "hash_in_process"]

Identity = tuple[int, int]  # device and inode: the same whatever the path
Found = bytes | Skipped | int  # what a process says: a record, a file left out, how many bytes it has read

CHUNK = 1 << 18
TELL = 1 << 20  # bytes that a process reads before it says so

# Not to wait, nor to be given a terminal, if a FIFO or a device has taken a file's place meanwhile.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


class Tally:
    """What one thread has done. Only that thread writes it, so it needs no lock."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0

    def read(self, count: int) -> None:
        self.bytes += count


class _Told(Tally):
    """What one process has done, and has not told yet."""

    def __init__(self, found: SendSide[Found]) -> None:
        super().__init__()
        self._found = found

    def read(self, count: int) -> None:
        super().read(count)
        if self.bytes >= TELL:
            self.tell()

    def tell(self) -> None:
        self._found.send(self.bytes).sync()
        self.bytes = 0


class _LeftOut(Exception):
    def __init__(self, kind: Kind, reason: str = "") -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


def hash_files(
    paths: ReceiveSide[bytes],
    hashed: SendSide[bytes],
    skipped: SendSide[Skipped],
    outputs: Container[Identity],
    tally: Tally,
) -> None:
    """The thread: hash each of `paths` but the files in `outputs`, those that the lines go to."""
    buffer = bytearray(CHUNK)
    for path in paths:
        try:
            digest = _digest(path, outputs, buffer, tally)
        except _LeftOut as left_out:
            skipped.send(Skipped(left_out.kind, path, left_out.reason)).sync()
        except (FileNotFoundError, NotADirectoryError) as error:
            skipped.send(Skipped(Kind.VANISHED, path, error.strerror or "")).sync()
        except OSError as error:
            skipped.send(Skipped(Kind.UNREADABLE_FILE, path, error.strerror or "")).sync()
        else:
            hashed.send(record(path, digest)).sync()
            tally.files += 1


def hash_in_process(paths: ReceiveSide[bytes], found: ProcessSender[Found], outputs: Container[Identity]) -> None:
    """The main function of a process. When the last one has closed its `found`, there is no more to come."""
    with found:
        tally = _Told(found)
        hash_files(paths, found, found, outputs, tally)
        tally.tell()


def _digest(path: bytes, outputs: Container[Identity], buffer: bytearray, tally: Tally) -> bytes:
    fd = os.open(path, _FLAGS)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise _LeftOut(Kind.VANISHED, "no longer a regular file")
        if (before.st_dev, before.st_ino) in outputs:
            raise _LeftOut(Kind.OUTPUT)
        file = io.FileIO(fd, closefd=False)
        hasher = hashlib.sha256()
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            checkpoint().sync()  # a file may be large
            hasher.update(view[:count])
            tally.read(count)
        if count is None:
            raise _LeftOut(Kind.UNREADABLE_FILE, "has nothing to read now, and would block")
        if os.fstat(fd).st_size < before.st_size:
            raise _LeftOut(Kind.SHRANK)
        return hasher.digest()
    finally:
        os.close(fd)
