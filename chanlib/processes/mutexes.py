"""A lock in shared memory that the death of its owner does not take along.

Two kinds: a robust mutex of the C library, and a lock on a byte of the file, which the kernel lets go of with the
process. Which one a piece of shared memory has its creator writes into it.

Either is only tried, never waited for inside the kernel: its sections are a few microseconds long, and who finds it
taken again and again (its owner is stopped, say) comes back later. So no loop is frozen by another process, and time
limits hold. Nothing has to be recovered when an owner has died: what it guards changes by single stores.

A thread that has it does not get it again. A file lock belongs to the process, not to the thread: threads of one
process exclude each other by another lock before they come here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from .features import fcntl, libc
from .memory import Memory

__all__ = ["FILE", "MUTEX_BYTES", "PTHREAD", "FileMutex", "Mutex", "PthreadMutex", "patiently", "settled"]

MUTEX_BYTES = 64
PTHREAD, FILE = 1, 2

_BUSY = errno.EBUSY
_DIED = errno.EOWNERDEAD if hasattr(errno, "EOWNERDEAD") else -1
_QUICK, _YIELDING, _SLEEPING = 20, 20, 10
_NAP = 0.0002  # seconds

if libc is not None:
    libc.pthread_mutex_unlock.restype = None  # a call with fewer conversions is a faster one


class Mutex(Protocol):
    @property
    def attempt(self) -> Callable[[], int]:
        """Take it if it is free: 0, else an error number."""
        ...

    @property
    def release(self) -> Callable[[], object]:
        """Let go of it. Nothing happens if this thread does not have it."""
        ...

    @property
    def died(self) -> Callable[[], object]:
        """`attempt` has taken it from an owner that is dead: make it usable again."""
        ...


def settled(mutex: Mutex, result: int) -> bool:
    """What `attempt` has said: is it ours?"""
    if result == 0:
        return True
    if result == _DIED:
        mutex.died()
        return True
    if result == _BUSY:
        return False
    raise OSError(result, os.strerror(result))


def patiently(mutex: Mutex) -> bool:
    """Take it, or find it taken for some milliseconds."""
    for _ in range(_QUICK):
        if settled(mutex, mutex.attempt()):
            return True
    for _ in range(_YIELDING):
        os.sched_yield()
        if settled(mutex, mutex.attempt()):
            return True
    for _ in range(_SLEEPING):
        time.sleep(_NAP)
        if settled(mutex, mutex.attempt()):
            return True
    return False


class PthreadMutex:
    __slots__ = ("_keep", "attempt", "died", "release")

    def __init__(self, view: memoryview) -> None:
        assert libc is not None
        self._keep = (ctypes.c_char * MUTEX_BYTES).from_buffer(view)
        address = ctypes.byref(self._keep)
        self.attempt: Callable[[], int] = partial(libc.pthread_mutex_trylock, address)
        self.release: Callable[[], object] = partial(libc.pthread_mutex_unlock, address)
        self.died: Callable[[], object] = partial(libc.pthread_mutex_consistent, address)

    def initialise(self) -> None:
        """By the creator, before anybody else can see it."""
        assert libc is not None
        attributes = (ctypes.c_char * MUTEX_BYTES)()
        for done in (
            libc.pthread_mutexattr_init(attributes),
            libc.pthread_mutexattr_setpshared(attributes, 1),
            libc.pthread_mutexattr_setrobust(attributes, 1),
            libc.pthread_mutex_init(self._keep, attributes),
        ):
            if done:
                raise OSError(done, os.strerror(done))


class FileMutex:
    __slots__ = ("_byte", "_memory")

    def __init__(self, memory: Memory, byte: int) -> None:
        self._memory = memory
        self._byte = byte

    def attempt(self) -> int:
        try:
            fcntl.lockf(self._memory.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._byte)
        except (BlockingIOError, PermissionError):
            return _BUSY
        return 0

    def release(self) -> None:
        fcntl.lockf(self._memory.fd, fcntl.LOCK_UN, 1, self._byte)

    def died(self) -> None:
        pass
