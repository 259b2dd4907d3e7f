"""Reading and hashing: plain threads. `hashlib` releases the GIL."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Container

from .. import ReceiveSide, SendSide, checkpoint
from .lines import record
from .skipped import Kind, Skipped

__all__ = ["Identity", "Tally", "hash_files"]

Identity = tuple[int, int]  # device and inode: the same whatever the path

CHUNK = 1 << 18

# Not to wait, nor to be given a terminal, if a FIFO or a device has taken a file's place meanwhile.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


class Tally:
    """What one thread has done. Only that thread writes it, so it needs no lock."""

    def __init__(self) -> None:
        self.files = 0
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
            tally.bytes += count
        if count is None:
            raise _LeftOut(Kind.UNREADABLE_FILE, "has nothing to read now, and would block")
        if os.fstat(fd).st_size < before.st_size:
            raise _LeftOut(Kind.SHRANK)
        return hasher.digest()
    finally:
        os.close(fd)
