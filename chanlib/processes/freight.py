"""Freight: a call, pickled for a process that is yet to be started, with the descriptors that belong to it.

`multiprocessing` pickles while it starts a process. Here a call is pickled when the child is asked for, so that it is
as it was then, however long the child is queued, and its sender may close its own ends. What may only travel with a
process (locks, connections, ends of channels) asks which one is being started: the freight stands for it, keeps copies
of the descriptors, and hands them to `multiprocessing` when it comes to that.

Invariant: the copies are open until the process has them, or there will be none.
"""

from __future__ import annotations

import io
import os
import pickle
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

__all__ = ["Freight", "unload"]


class Freight:
    """`parcel` is the call as bytes. Raises what pickling raises."""

    parcel: bytes
    pid: int | None = None  # of the process, once there is one: those whose descriptors these are want to know

    def __init__(self, call: Any) -> None:
        self.fds: list[int] = []
        before = get_spawning_popen()
        as_if: Any = self
        set_spawning_popen(as_if)
        try:
            pickled = io.BytesIO()
            ForkingPickler(pickled, 5).dump(call)
            self.parcel = pickled.getvalue()
        except BaseException:
            self.close()
            raise
        finally:
            set_spawning_popen(before)

    # what `multiprocessing.reduction`, and an end that is pumped, ask of the object of a process that is being started
    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(os.dup(fd))
        return len(self.fds) - 1

    @staticmethod
    def DupFd(index: int) -> _Carried:
        return _Carried(index)

    @staticmethod
    def poll() -> None:
        """What its process has ended with: nothing yet, since nobody keeps the freight of one that has been reaped."""

    def manifest(self) -> list[Any]:
        """What is to be pickled while the process is started in fact."""
        return [DupFd(fd) for fd in self.fds]

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    __del__ = close


class _Carried:
    """A descriptor, in the parcel: its place in the manifest."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        return int(_manifest[self.index].detach())


_manifest: list[Any] = []


def unload(parcel: bytes | bytearray, manifest: list[Any]) -> Any:
    """The call, in the process."""
    global _manifest
    _manifest = manifest
    return pickle.loads(parcel)
