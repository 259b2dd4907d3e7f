"""Memory that several processes share, and that nobody else can name.

On Linux an anonymous file (`memfd_create`), sealed so that no process can shrink it under the others, which would kill
them at their next look. Elsewhere a temporary file: one that never has a name, where the file system can do that, else
one that is unlinked before anything is in it. Either way the kernel frees it with its last descriptor and mapping,
however its users end.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import tempfile

from .features import ANONYMOUS, fcntl, libc

__all__ = ["Memory", "look"]

_MUCH = 1 << 26  # bytes; whether there are so many is not asked


class Memory:
    """`size` bytes that whoever has `fd` can map. The creator gets them zeroed, and all of them are there: no process
    can run out of memory by writing to them later."""

    __slots__ = ("fd", "size", "view")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.view = memoryview(_mapped(fd, size))

    @classmethod
    def create(cls, size: int, grows: bool = False) -> Memory:
        """If it `grows`, its file may get longer than what is mapped.

        Raises OSError if there is no memory, or no descriptor, to be had.
        """
        if ANONYMOUS and size > _MUCH:
            _check_available(size)
        fd = _open(size)
        try:
            os.set_inheritable(fd, False)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:
                os.ftruncate(fd, size)
            if ANONYMOUS:
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL | (0 if grows else fcntl.F_SEAL_GROW)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd, size)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Memory:
        """Map what another process has created. The descriptor is ours from now on, also if this raises."""
        try:
            return cls(fd, _sealed(fd))
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Give up the descriptor. What is mapped stays until nobody looks at it any more."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def look(fd: int) -> memoryview:
    """What another process has created, mapped. The descriptor is closed, also if this raises."""
    try:
        return memoryview(_mapped(fd, _sealed(fd)))
    finally:
        os.close(fd)


def _sealed(fd: int) -> int:
    """How long it is, if nobody can shrink it."""
    if ANONYMOUS and not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise ValueError("this memory is not sealed: another process could shrink it")
    return os.fstat(fd).st_size


def _mapped(fd: int, size: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, trackfd=False)
    if libc is None:
        return mmap.mmap(fd, size)
    # It would keep a descriptor of its own. So the file is put in the place of memory that has none.
    mapped = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    if _map(address, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _FIXED, fd, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return mapped


if sys.version_info < (3, 13) and libc is not None:
    _FIXED = 0x10
    _map = ctypes.CDLL(None, use_errno=True).mmap
    _map.restype = ctypes.c_size_t
    _map.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]


def _check_available(size: int) -> None:
    """The kernel promises what it does not have, and kills processes when that is used: it is asked before."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        there = sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    except (OSError, KeyError, ValueError):  # it cannot be told
        return
    if size > there:
        raise OSError(errno.ENOMEM, f"{size} bytes of memory cannot be had: {there} are available")


def _open(size: int) -> int:
    if ANONYMOUS:
        return os.memfd_create("chanlib", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    folder, flags = tempfile.gettempdir(), os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, flags | os.O_TMPFILE, 0o600)
        except OSError:  # not every file system has files without a name
            pass
    path = os.path.join(folder, f"chanlib-{os.urandom(16).hex()}")  # known before there is one: none can stay behind
    try:
        return os.open(path, flags | os.O_CREAT, 0o600)
    finally:  # at once, also if it is an interrupt that comes right behind it
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
