"""What this system has for processes to meet by. Found out once, by looking for it.

`CHANLIB_PROCESSES` in the environment asks for less, so that what other systems use can be tested on this one:
"posix" leaves out what only Linux has, "pump" all of shared memory.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import socket
from typing import Any

__all__ = ["ABSTRACT", "ANONYMOUS", "ROBUST", "SHARED", "WANTED", "fcntl", "libc"]

WANTED = os.environ.get("CHANLIB_PROCESSES", "")
if WANTED not in ("", "posix", "pump"):
    raise RuntimeError(f"CHANLIB_PROCESSES must be 'posix', 'pump' or not set, not {WANTED!r}")


def _robust() -> Any:
    """The C library, if it has locks that outlive their owner."""
    try:
        library = ctypes.PyDLL(None)  # its functions are called with the GIL held: they return at once
        for name in ("pthread_mutexattr_setrobust", "pthread_mutexattr_setpshared", "pthread_mutex_consistent"):
            getattr(library, name)
    except (OSError, AttributeError, TypeError):
        return None
    return library


def _locks_of_files() -> Any:
    """The module of that name, where there is one."""
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None


fcntl = _locks_of_files()
libc: Any = _robust() if WANTED == "" else None

ANONYMOUS = WANTED == "" and hasattr(os, "memfd_create")
"""Files that never had a name."""
ROBUST = libc is not None
"""Locks in shared memory whose next owner learns that the last one died."""
ABSTRACT = WANTED == "" and os.path.exists("/proc/self/fd") and hasattr(socket, "SO_PEERCRED")
"""Sockets whose name is in no folder, and that tell who is at the other end."""
SHARED = WANTED != "pump" and fcntl is not None and hasattr(os, "fork") and hasattr(socket, "send_fds")
"""Memory, descriptors and locks that processes can share at all."""
