"""Shared: what a process has of something that several processes share. There is one for each thing it has a handle of.

It maps the memory, holds the bells, has the slot in which its handles are counted, and two sources for those of its
tasks and threads that wait, `outbound` and `inbound`. A channel's is its `Conduit`; events, semaphores and futures
between processes have theirs (`gates`). Each says what its two kinds of end, "senders" and "receivers", are.

Invariants:
- what is counted here changes under the lock of `outbound`, and is then written to the slot as a whole (`_write`),
  which is done once more after an interrupt.
- a handle is open from the step on in which it is counted, until the one in which it is not any more. Without an end of
  a direction its bell is let go of: the others see that by the kernel.
- a forked child has the handles of its parent. They keep it open from before the fork on, but count only when they are
  used there (`own`).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from .._core.engine import Reentered
from .._core.reentry import now_or_after
from .._core.threads import start as start_thread
from .bells import Bell, pair
from .causes import forms_of
from .descriptors import close_all, duplicate, guard, unguard
from .features import ROBUST
from .layout import MAGIC, MUTEX_AT, MUTEXES, WORDS_END
from .memory import Memory
from .mutexes import FILE, PTHREAD, FileMutex, PthreadMutex, patiently
from .ports import Port
from .slots import Slots

if TYPE_CHECKING:
    from typing import Self

    from .handles import SharedHandle

__all__ = ["Passage", "Shared", "inherit_all"]

_CLOSING = 0.2  # seconds that a close waits for a mutex whose owner is stopped
_ATTACHING = 5.0  # seconds that a handle which arrives does
_INSISTING = 600  # times, a tenth of a second apart, that one which could not be had is told of where it came from

_STOPPED = "a process is stopped in the midst of using this: it cannot be joined meanwhile"

_known: weakref.WeakValueDictionary[bytes, Shared] = weakref.WeakValueDictionary()
_attaching = threading.RLock()


class Passage:
    """An end that is about to be on its way to another process."""

    __slots__ = ("counted", "receives", "sends")

    def __init__(self, sends: bool, receives: bool) -> None:
        self.sends = sends
        self.receives = receives
        self.counted = False


class Shared:
    """What a process has of something that several processes share. A subclass makes the two ports."""

    magic: ClassVar[int]  # what stands at the beginning of its memory
    sockets: ClassVar[int] = 1  # of each bell
    grows: ClassVar[bool] = False  # may its memory get longer?
    slots_kind: ClassVar[type[Slots]] = Slots

    outbound: Port
    inbound: Port

    def __init__(self, memory: Memory, key: bytes) -> None:
        self.memory = memory
        self.key = key
        self.words: Any = memory.view[:WORDS_END].cast("Q")
        self.slots = self.slots_kind(memory)
        self.slot: int | None = None
        self.senders = self.receivers = 0  # open handles that count here, of one direction and of the other
        self.heirs = [0, 0]  # open handles that a fork has left here, and nobody has used
        self.kept = (0, 0)  # those of them that keep it open
        self.away = [0, 0]  # ends that have gone to other processes, in all
        self.debts: list[tuple[int, int, int]] = []  # ends that have arrived and still count where they came from
        self.coming: int | None = None  # the slot of a process that is being forked
        self.pid = os.getpid()  # the process that `slot` is of
        self.early: list[SharedHandle[Any]] = []  # closed in a forked process before it was told what it has

    def _mutex(self, number: int) -> Any:
        if self.words[MUTEXES] == PTHREAD:
            at = MUTEX_AT[number]
            return PthreadMutex(self.memory.view[at : at + 64])
        return FileMutex(self.memory, number)

    # ------------------------------------------------------------- making and finding
    @classmethod
    def _create(cls, size: int, lay_out: Callable[[Memory, int], object]) -> Self:
        """`lay_out(memory, mutexes)` writes what stands in it from the first. OSError if something cannot be had."""
        memory = Memory.create(size, cls.grows)
        try:
            sending, receiving = pair(cls.sockets)
            kind = PTHREAD if ROBUST else FILE
            if kind == PTHREAD:
                for at in MUTEX_AT:
                    PthreadMutex(memory.view[at : at + 64]).initialise()
            lay_out(memory, kind)
            shared = cls(memory, secrets.token_bytes(16))
        except BaseException:
            memory.close()
            raise
        shared.outbound.bell, shared.inbound.bell = sending, receiving
        shared.outbound.keeper = weakref.ref(shared)
        _known[shared.key] = shared
        shared._guard()
        return shared

    def _guard(self) -> None:
        if self.words[MUTEXES] == FILE:
            me = weakref.ref(self)

            def by(step: Callable[[], object]) -> None:
                shared = me()
                if shared is None:
                    step()
                else:
                    shared._without_locks(step)

            guard(self.memory.fd, by)

    def _without_locks(self, step: Callable[[], object]) -> None:
        """`step()` while no thread of this process has one of the mutexes: those are taken under these two locks."""
        now_or_after(lambda: self.outbound._locked(self.inbound._locked, step), None)

    @classmethod
    def arrive(cls, key: bytes, fds: list[int], sends: bool, receives: bool) -> Self:
        """That to which these descriptors lead, which are ours from now on."""
        with _attaching:
            shared = _known.get(key)
            try:
                if shared is None:
                    shared = _known[key] = cls(cls._checked(fds.pop(0)), key)
                    shared.outbound.keeper = weakref.ref(shared)
                    shared._guard()
                elif not isinstance(shared, cls):
                    raise ValueError(f"this is no {cls.__name__}")
                else:
                    shared._close_spare(fds.pop(0))
                for port in (shared.outbound,) * sends + (shared.inbound,) * receives:
                    mine, fds[: cls.sockets] = fds[: cls.sockets], []
                    if port.bell is None:
                        port.bell = Bell.of(mine)
                    elif mine != port.bell.fds():  # the same twice, for two handles of one process that was spawned
                        close_all(mine)
            finally:
                close_all(fds)
            return shared

    def _close_spare(self, fd: int) -> None:
        """One more descriptor of the memory. To close it lets go of all file locks that this process has on it."""
        if fd != self.memory.fd:
            with self.outbound._lock:
                gone = self.memory.fd < 0  # the last handle here has just been closed
                if gone:
                    self.memory.fd = fd
            if gone:
                self._guard()
            else:
                close_all([fd])

    @classmethod
    def _checked(cls, fd: int) -> Memory:
        memory = Memory.attach(fd)
        words: Any = memory.view[:64].cast("Q")
        if words[MAGIC] != cls.magic or not cls._fits(words, memory.size):
            memory.close()
            raise ValueError(f"this is no {cls.__name__} of this version of chanlib")
        return memory

    @classmethod
    def _fits(cls, words: Any, size: int) -> bool:
        """Can memory with these words have this size?"""
        raise NotImplementedError

    # ------------------------------------------------------------- counting ends
    def open(self, handles: Sequence[SharedHandle[Any]], claimed_from: int | None = None) -> None:
        """These count, and are open; they have come from the slot of another process, if that is given.

        OSError, if a process that has the mutex is stopped for long.
        """
        if self.slot is not None and claimed_from is None:
            self.outbound._locked(self._open, handles)
            return
        if not self._persist(self._attach, handles, claimed_from):
            if claimed_from is not None:
                self._give_up(handles, claimed_from)
            raise OSError(_STOPPED)

    def _persist(self, step: Callable[..., bool], *args: Any) -> bool:
        """Take this step under the lock; if somebody else has the mutex, again and again for a while. Was it taken?"""
        end = time.monotonic() + _ATTACHING
        while not self.outbound._locked(step, *args):
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        return True

    def _attach(self, handles: Sequence[SharedHandle[Any]], claimed_from: int | None) -> bool:
        """Under the lock. False: somebody else has the mutex."""
        with self._alone() as alone:
            if alone:
                if self.slot is None:
                    self.slot = self.slots.take()
                self._open(handles)
                if claimed_from is not None:
                    self.debts += [(claimed_from, handle._sends, handle._receives) for handle in handles]
                self._pay()
        return alone

    def _open(self, handles: Sequence[SharedHandle[Any]]) -> None:
        for handle in handles:
            self.senders += handle._sends
            self.receivers += handle._receives
            handle._open = True
        self._write()

    def _write(self) -> None:
        """What counts here. Can be repeated."""
        if self.slot is not None:
            senders, receivers = self.senders + self.away[0], self.receivers + self.away[1]
            self.slots.write(self.slot, senders, receivers, self.kept)

    def _pay(self) -> None:
        """With the mutex: what has arrived does not count where it came from."""
        while self.debts:
            self.slots.claim(*self.debts.pop())

    def _give_up(self, handles: Sequence[SharedHandle[Any]], claimed_from: int) -> None:
        """They have come here, but cannot be had. They are not to count for ever where they came from."""
        self.debts += [(claimed_from, handle._sends, handle._receives) for handle in handles]
        start_thread(self._settle_debts, "chanlib debts")

    def _settle_debts(self) -> None:
        for _ in range(_INSISTING):
            if self.outbound._locked(self._pay_off):
                return
            time.sleep(0.1)

    def _pay_off(self) -> bool:
        with self._alone() as alone:
            if alone:
                self._pay()
        if alone:
            self._conclude()
            self._leave()
        return alone

    def close(self, handle: SharedHandle[Any], cause: BaseException | None) -> bool:
        """This one is closed. False: it was."""
        forms = [] if cause is None or not handle._sends or handle._inherited else list(forms_of(cause))
        return now_or_after(lambda: self.outbound._locked(self._close, handle, forms), handle._open)

    def _close(self, handle: SharedHandle[Any], forms: list[bytes]) -> bool:
        if not handle._open:
            return False
        if handle._inherited:
            handle._open = False
            self._take_from_heirs(handle)
        else:
            self._because(forms)
            handle._open = False
            self.senders -= handle._sends
            self.receivers -= handle._receives
        self._write()
        self._conclude()
        self._hang_up()
        self._leave()
        return True

    def _hang_up(self) -> None:
        """Bells that nobody in this process uses any more are let go of."""
        for port, left in (
            (self.outbound, self.senders + self.heirs[0]),
            (self.inbound, self.receivers + self.heirs[1]),
        ):
            if not left and port.bell is not None:
                self.outbound._drop(port.bell)
                port.bell = None

    def fly(self, passage: Passage) -> int:
        """An end is on its way to another process, and counted here meanwhile. Our slot."""
        return self.outbound._locked(self._fly, passage)  # type: ignore[no-any-return]

    def _fly(self, passage: Passage) -> int:
        assert self.slot is not None
        self.away = [self.away[0] + passage.sends, self.away[1] + passage.receives]
        passage.counted = True
        self._write()
        return self.slot

    def turn_back(self, senders: int, receivers: int) -> None:
        """Those were on their way, and will not arrive."""
        now_or_after(lambda: self.outbound._locked(self._turn_back, senders, receivers), None)

    def _turn_back(self, senders: int, receivers: int) -> None:
        self.away = [self.away[0] - senders, self.away[1] - receivers]
        self._write()
        self._conclude()
        self._leave()

    def mend(self) -> None:
        """Under the lock of `outbound`: something in here has been cut by an interrupt."""
        self._write()

    # ------------------------------------------------------------- what a fork leaves
    def expect(self) -> None:
        """A process is about to be forked."""
        self.coming = None
        if self.senders or self.receivers or any(self.heirs):
            try:
                self.coming = self.outbound._locked(self._expect)
            except Reentered:  # by a finalizer, in the middle of an operation: it is not waited for
                pass

    def _expect(self) -> int | None:
        with self._alone() as alone:
            return self.slots.expect(self.senders + self.heirs[0], self.receivers + self.heirs[1]) if alone else None

    def inherit(self) -> None:
        """This is the process that was forked."""
        self.slot, self.coming = self.coming, None
        self.heirs = [self.senders + self.heirs[0], self.receivers + self.heirs[1]]
        self.senders = self.receivers = 0
        self.away = [0, 0]
        self.debts = []
        self.kept = (0, 0) if self.slot is None else (self.heirs[0], self.heirs[1])
        if self.slot is not None:
            self.slots.stamp(self.slot)
        self.pid = os.getpid()
        early, self.early = self.early, []
        for handle in early:
            handle._inherited = True
            self.close(handle, None)

    def own(self, handle: SharedHandle[Any], wanted: bool) -> None:
        """A handle that was inherited is used from now on; or is not what this process is for."""
        if not wanted:
            self.outbound._locked(self._disown, handle)
        elif not self._persist(self._own, handle):
            raise OSError(_STOPPED)

    def _own(self, handle: SharedHandle[Any]) -> bool:
        if not handle._inherited or not handle._open:
            return True
        if self.slot is None:
            with self._alone() as alone:
                if not alone:
                    return False
                self.slot = self.slots.take()
        self.senders += handle._sends
        self.receivers += handle._receives
        handle._inherited = False
        self._take_from_heirs(handle)
        self._write()
        return True

    def _disown(self, handle: SharedHandle[Any]) -> None:
        self.kept = (max(self.kept[0] - handle._sends, 0), max(self.kept[1] - handle._receives, 0))
        self._write()
        self._conclude()

    def _take_from_heirs(self, handle: SharedHandle[Any]) -> None:
        self.heirs = [self.heirs[0] - handle._sends, self.heirs[1] - handle._receives]
        self.kept = (min(self.kept[0], self.heirs[0]), min(self.kept[1], self.heirs[1]))

    def _leave(self) -> None:
        """Under the lock. If nothing is left here, give back what there is."""
        if self.senders or self.receivers or any(self.heirs):
            return
        if self.slot is not None and self.slots.of(self.slot) == (0, 0):  # else something of ours is on its way
            with self._alone() as alone:
                self.slots.give_back(self.slot, alone)
            self.slot = None
        if self.memory.fd >= 0:
            if _known.get(self.key) is self:
                del _known[self.key]
            unguard(self.memory.fd)
            self.memory.close()

    @contextmanager
    def _alone(self) -> Generator[bool]:
        """Under the lock: with the senders' mutex, or after a while without it (False), if its owner is stopped."""
        port = self.outbound
        if port.held == get_ident():  # in the middle of it; or of a send, by a finalizer
            yield True
            return
        if self.memory.fd < 0 and self.words[MUTEXES] == FILE:  # we have left, there is nothing to lock any more
            yield False
            return
        with self._mutually(_CLOSING) as taken:
            yield taken

    @contextmanager
    def _mutually(self, patience: float) -> Generator[bool]:
        """Under the lock: with the senders' mutex, or with False if its owner is stopped for longer than `patience`."""
        port = self.outbound
        end = time.monotonic() + patience
        port.held = get_ident()
        try:
            while not (taken := patiently(port.mutex)) and time.monotonic() < end:
                pass
            yield taken
        finally:
            port.release()

    # ------------------------------------------------------------- what follows from the ends that are closed
    def _conclude(self) -> None:
        """Under the lock, after ends have been closed. Can be repeated."""

    def _because(self, forms: list[bytes]) -> None:
        """A sender is closed with this cause."""

    # ------------------------------------------------------------- what a handle takes along
    def duplicates(self, sends: bool, receives: bool) -> list[int]:
        return duplicate(self.fds(sends, receives))

    def fds(self, sends: bool, receives: bool) -> list[int]:
        found = [self.memory.fd]
        for port in (self.outbound,) * sends + (self.inbound,) * receives:
            assert port.bell is not None
            found += port.bell.fds()
        return found


def _before_fork() -> None:
    for shared in list(_known.values()):
        shared.expect()


def inherit_all() -> None:
    """In a process that has been forked, once its handles know."""
    global _attaching
    _attaching = threading.RLock()
    for shared in list(_known.values()):
        shared.inherit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
