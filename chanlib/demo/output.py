"""Where the lines go: a stream, or a file that is replaced in one step."""

from __future__ import annotations

import os
import secrets
import select
import stat
from collections.abc import Iterable, Iterator
from typing import Protocol

from .. import checkpoint
from .hashing import Identity

__all__ = ["NotWritten", "Output", "Replacement", "Stream", "open_output"]

CHUNK = 1 << 16
PIPE_CHUNK = getattr(select, "PIPE_BUF", 512)  # what a pipe that `poll` calls writable takes at once
PATIENCE = 100  # milliseconds between two looks for an interrupt while a reader does not read


class NotWritten(Exception):
    """The lines, or the last of them, could not be written."""

    def __init__(self, name: str, error: OSError) -> None:
        self.broken = isinstance(error, BrokenPipeError)
        what = "was closed by its reader" if self.broken else f"could not be written: {error.strerror}"
        super().__init__(f"{name} {what}")

    @property
    def exit_code(self) -> int:
        return 128 + 13 if self.broken else 1  # 13: as a process that SIGPIPE ended


class Output(Protocol):
    """`name` is for people; `identities` are those of the files that the lines go to."""

    name: str
    identities: set[Identity]

    def write(self, lines: Iterable[bytes]) -> None:
        """Write all of `lines`. It can be cancelled in the middle. Raises `NotWritten`."""

    def kept(self) -> str:
        """What became of it when the run was cut short, for people."""
        ...

    def discard(self) -> None:
        """Drop what is not finished. May be called at any time, any number of times."""


class Stream:
    """A descriptor that is written to as it is: stdout, or a device."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name
        status = os.fstat(fd)
        regular = stat.S_ISREG(status.st_mode)
        self.identities = {(status.st_dev, status.st_ino)} if regular else set[Identity]()
        self._step = CHUNK if regular else PIPE_CHUNK
        self._written = 0

    def write(self, lines: Iterable[bytes]) -> None:
        checkpoint().sync()
        try:
            for chunk in _chunks(lines):
                rest = memoryview(chunk)
                while rest:
                    if _writable(self._fd):
                        count = os.write(self._fd, rest[: self._step])
                        self._written += count
                        rest = rest[count:]
                    checkpoint().sync()
        except OSError as error:
            raise NotWritten(self.name, error) from error

    def kept(self) -> str:
        return f"{self._written:,} bytes of lines were written" if self._written else "no lines were written"

    def discard(self) -> None:
        pass


class Replacement:
    """A new file beside `path`, of the same mode, that takes its place once complete."""

    def __init__(self, path: bytes, old: os.stat_result | None, name: str) -> None:
        self.name = name
        self._path = os.path.realpath(path)  # a link stays and its target is replaced
        folder = os.path.dirname(self._path)
        self._temporary = os.path.join(folder, b".chanlib-demo-" + secrets.token_hex(8).encode())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(self._temporary, flags, 0o666)
        try:
            new = os.fstat(self._fd)
            self.identities = {(new.st_dev, new.st_ino)}
            if old is not None:
                self.identities.add((old.st_dev, old.st_ino))
                self._keep_owner_and_mode(old)
        except BaseException:
            self.discard()
            raise

    def _keep_owner_and_mode(self, old: os.stat_result) -> None:
        if hasattr(os, "fchown"):
            try:
                os.fchown(self._fd, old.st_uid, old.st_gid)
            except PermissionError:
                pass  # somebody else's file, in a folder that we may write to
        os.chmod(self._temporary, stat.S_IMODE(old.st_mode))

    def write(self, lines: Iterable[bytes]) -> None:
        try:
            for chunk in _chunks(lines):
                rest = memoryview(chunk)
                while rest:
                    checkpoint().sync()
                    rest = rest[os.write(self._fd, rest) :]
            checkpoint().sync()
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise NotWritten(self.name, error) from error
        finally:
            self.discard()

    def kept(self) -> str:
        return f"{self.name} is as it was before"

    def discard(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            try:
                os.unlink(self._temporary)
            except FileNotFoundError:
                pass  # it has taken its place


def open_output(path: bytes | None, stdout: int, name: str) -> Output:
    """Stdout, or `path`. Raises OSError if it cannot be written to."""
    if path is None:
        return Stream(stdout, name)
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return Replacement(path, None, name)
    if stat.S_ISREG(old.st_mode):
        os.close(os.open(path, os.O_WRONLY))  # raises if it is not for us to write
        return Replacement(path, old, name)
    # A device or a FIFO must not be replaced. One that nobody reads fails here instead of hanging.
    fd = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    os.set_blocking(fd, True)
    return Stream(fd, name)


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for line in lines:
        buffer += line
        if len(buffer) >= CHUNK:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _writable(fd: int) -> bool:
    """Whether a little can be written to `fd` without blocking for long; waits a little for it."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(PATIENCE))
