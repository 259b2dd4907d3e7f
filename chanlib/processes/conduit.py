"""Conduit: what a process has of a channel between processes. There is one for each channel that it has an end of.

It maps the memory, holds the bells, has the slot in which its ends are counted, and two sources for those of its tasks
and threads that wait: `outbound` for senders, `inbound` for receivers. What of this is no matter of the ring is
`Shared`: events, semaphores and futures between processes have it too. Their "senders" and "receivers" are what each of
them says.

Invariants:
- what is counted here (`senders`, `receivers`, `slot`) changes under the lock of `outbound`.
- ENDED is set by who has the senders' mutex, and only to what is stronger. So whoever has put something in has done so
  before; who finds the ring empty after having seen ENDED has seen all.
- an end is counted in the slot (`Slots`) before it can be used, and not any more once it is closed. Without an end of a
  direction its bell is let go of: the others see that by the kernel.
- a forked child has the ends of its parent. They keep the stream open from before the fork on, but count only when they
  are used there (`own`).
"""

from __future__ import annotations

import os
import pickle
import secrets
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from .._core.engine import Reentered
from ..channels import ChannelStatistics
from ..errors import RemoteError
from .bells import Bell, duplicate, pair
from .features import ROBUST
from .layout import CAUSE, DATA, ENDED, MAGIC, MUTEX_AT, MUTEXES, PAGE, SIZE, UNIT, WORDS_END, fence
from .memory import Memory
from .mutexes import FILE, PTHREAD, FileMutex, PthreadMutex, patiently
from .ports import CLOSED, DESERTED, Inbound, Outbound, Port
from .ring import Ring
from .slots import Slots

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Conduit", "Shared", "cause_of", "forms_of"]

_MAGIC = int.from_bytes(b"chanlib\x01", "big")
_CLOSING = 0.2  # seconds that a close waits for a mutex whose owner is stopped
_ATTACHING = 5.0  # seconds that a handle which arrives does

_conduits: weakref.WeakValueDictionary[bytes, Shared] = weakref.WeakValueDictionary()
_attaching = threading.RLock()


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
        self.senders = self.receivers = 0
        self.coming: int | None = None  # the slot of a process that is being forked
        self.pid = os.getpid()  # the process that `slot` is of
        self.early: list[tuple[int, int]] = []  # ends closed in a forked process before it was told what it has

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
        _conduits[shared.key] = shared
        return shared

    @classmethod
    def arrive(cls, key: bytes, fds: list[int], sends: bool, receives: bool) -> Self:
        """That to which these descriptors lead, which are ours from now on."""
        with _attaching:
            conduit = _conduits.get(key)
            try:
                if conduit is None:
                    conduit = _conduits[key] = cls(cls._checked(fds.pop(0)), key)
                elif not isinstance(conduit, cls):
                    raise ValueError(f"this is no {cls.__name__}")
                else:
                    conduit._close_spare(fds.pop(0))
                for port in (conduit.outbound,) * sends + (conduit.inbound,) * receives:
                    bell = Bell.of([fds.pop(0) for _ in range(cls.sockets)])
                    if port.bell is None:
                        port.bell = bell
            finally:
                for fd in fds:
                    os.close(fd)
            return conduit

    def _close_spare(self, fd: int) -> None:
        """One more descriptor of the memory. To close it lets go of all file locks that this process has on it."""
        if fd != self.memory.fd:
            with self.outbound._lock, self.inbound._lock:  # then it has none
                if self.memory.fd < 0:  # the last handle here has just been closed
                    self.memory.fd = fd
                else:
                    os.close(fd)

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
    def open(self, senders: int, receivers: int, claimed_from: int | None = None) -> None:
        """So many more ends in this process; they have come from the slot of another one, if that is given.

        OSError, if a process that has the mutex is stopped for long.
        """
        if self.slot is None or claimed_from is not None:
            end = time.monotonic() + _ATTACHING
            while not self.outbound._locked(self._attach, senders, receivers, claimed_from):
                if time.monotonic() >= end:
                    raise OSError("a process is stopped in the midst of using this: it cannot be joined meanwhile")
                time.sleep(0.01)
        else:
            self.outbound._locked(self._count, senders, receivers)

    def _attach(self, senders: int, receivers: int, claimed_from: int | None) -> bool:
        """Under the lock. False: somebody else has the mutex."""
        with self._alone() as alone:
            if alone:
                if self.slot is None:
                    self.slot = self.slots.take()
                self._count(senders, receivers)
                if claimed_from is not None:
                    self.slots.claim(claimed_from, senders, receivers)
        return alone

    def _count(self, senders: int, receivers: int) -> None:
        assert self.slot is not None
        self.slots.count(self.slot, senders, receivers)
        self.senders += senders
        self.receivers += receivers

    def close(self, senders: int, receivers: int, inherited: bool, cause: BaseException | None) -> None:
        """So many ends of this process are closed."""
        forms = [] if cause is None or not senders or inherited else list(forms_of(cause))
        try:
            self.outbound._locked(self._close, senders, receivers, inherited, forms)
        except Reentered as inside:
            inside.source._defer(lambda: self.outbound._locked(self._close, senders, receivers, inherited, forms))

    def _close(self, senders: int, receivers: int, inherited: bool, forms: list[bytes]) -> None:
        self.senders -= senders
        self.receivers -= receivers
        if inherited:
            self._disown(senders, receivers)
        else:
            assert self.slot is not None
            self._because(forms)
            self.slots.count(self.slot, -senders, -receivers)
        self._conclude()
        for port, left in ((self.outbound, self.senders), (self.inbound, self.receivers)):
            if not left:
                self.outbound._drop(port.bell)
                port.bell = None
        self._leave()

    def fly(self, senders: int, receivers: int) -> int:
        """An end of each of these is on its way to another process, and counted here meanwhile. Our slot."""
        return self.outbound._locked(self._fly, senders, receivers)  # type: ignore[no-any-return]

    def _fly(self, senders: int, receivers: int) -> int:
        assert self.slot is not None
        self.slots.count(self.slot, senders, receivers)
        return self.slot

    def turn_back(self, senders: int, receivers: int) -> None:
        """Those were on their way, and will not arrive."""
        try:
            self.outbound._locked(self._turn_back, senders, receivers)
        except Reentered as inside:
            inside.source._defer(lambda: self.outbound._locked(self._turn_back, senders, receivers))

    def _turn_back(self, senders: int, receivers: int) -> None:
        if self.slot is not None:
            self.slots.count(self.slot, -senders, -receivers)
            self._conclude()
        self._leave()

    # ------------------------------------------------------------- what a fork leaves
    def expect(self) -> None:
        """A process is about to be forked."""
        self.coming = None
        if self.senders or self.receivers:
            try:
                self.coming = self.outbound._locked(self._expect)
            except Reentered:  # by a finalizer, in the middle of an operation: it is not waited for
                pass

    def _expect(self) -> int | None:
        with self._alone() as alone:
            return self.slots.expect(self.senders, self.receivers) if alone else None

    def inherit(self) -> None:
        """This is the process that was forked."""
        self.slot, self.coming = self.coming, None
        if self.slot is not None:
            self.slots.stamp(self.slot)
        self.pid = os.getpid()
        early, self.early = self.early, []
        for senders, receivers in early:
            self.close(senders, receivers, True, None)

    def own(self, senders: int, receivers: int, wanted: bool) -> None:
        """So many of the ends that were inherited are used from now on; or are not what this process is for."""
        if wanted:
            self.open(senders, receivers)
        self.outbound._locked(self._own, senders, receivers, wanted)

    def _own(self, senders: int, receivers: int, wanted: bool) -> None:
        if wanted:  # they were counted as handles of this process before
            self.senders -= senders
            self.receivers -= receivers
        self._disown(senders, receivers)
        if not wanted:
            self._conclude()

    def _disown(self, senders: int, receivers: int) -> None:
        if self.slot is not None:
            left = self.slots.inherited(self.slot)
            self.slots.disown(self.slot, min(senders, left[0]), min(receivers, left[1]))

    def _leave(self) -> None:
        """Under the lock. If nothing is left here, give back what there is."""
        if self.senders or self.receivers:
            return
        if self.slot is not None and self.slots.of(self.slot) == (0, 0):  # else something of ours is on its way
            with self._alone() as alone:
                self.slots.give_back(self.slot, alone)
            self.slot = None
        if self.memory.fd >= 0:
            if _conduits.get(self.key) is self:
                del _conduits[self.key]
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
        end = time.monotonic() + _CLOSING
        port.held = get_ident()
        try:
            while not (got := patiently(port.mutex)) and time.monotonic() < end:
                pass
            yield got
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


class Conduit(Shared):
    magic = _MAGIC
    sockets = 2

    outbound: Outbound
    inbound: Inbound

    def __init__(self, memory: Memory, key: bytes) -> None:
        super().__init__(memory, key)
        self.ring = ring = Ring(memory)
        self.outbound = Outbound(ring, self._mutex(0))  # pyright: ignore[reportIncompatibleVariableOverride]
        self.inbound = Inbound(ring, self._mutex(1), self.slots)  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def create(cls, most: int, bytes_: int) -> Self:
        units = Ring.size(bytes_)
        return cls._create(DATA + units * UNIT, lambda memory, kind: Ring.lay_out(memory, units, most, kind, _MAGIC))

    @classmethod
    def _fits(cls, words: Any, size: int) -> bool:
        return bool(size == DATA + words[SIZE] * UNIT)

    # ------------------------------------------------------------- the end
    def _conclude(self) -> None:
        """Under the lock: whatever follows from the ends that are closed. Can be repeated."""
        senders, receivers = self.slots.total()
        if not receivers:
            self._end(DESERTED, [])
        elif not senders:
            self._end(CLOSED, [])

    def end(self, how: int, cause: BaseException | None = None) -> bool:
        """It ends for all. False if it had ended already, in this way or a stronger one."""
        forms = [] if cause is None else list(forms_of(cause))
        try:
            first: bool = self.outbound._locked(self._end, how, forms)
        except Reentered as inside:
            inside.source._defer(lambda: self.outbound._locked(self._end, how, forms))
            return self.words[ENDED] < how  # type: ignore[no-any-return]
        return first

    def _end(self, how: int, forms: list[bytes]) -> bool:
        words = self.words
        if words[ENDED] >= how:
            return False
        with self._alone():
            if words[ENDED] >= how:
                return False
            self._because(forms)
            words[ENDED] = how
        for port in (self.outbound, self.inbound):
            port.ring_others()
        self.outbound._wake_all()
        self.outbound._defer(self.inbound.rouse)
        return True

    def _because(self, forms: list[bytes]) -> None:
        """The first cause is kept, in the truest form for which there is room."""
        view = self.memory.view
        length: Any = view[CAUSE : CAUSE + 8].cast("Q")
        for data in forms:
            if not length[0] and len(data) <= PAGE - 8:
                view[CAUSE + 8 : CAUSE + 8 + len(data)] = data
                fence()
                length[0] = len(data)

    def cause(self) -> BaseException | None:
        """Why it has ended, if somebody has said so. It is unpickled each time: an error of its own for everybody."""
        view = self.memory.view
        length = view[CAUSE : CAUSE + 8].cast("Q")[0]
        if not length:
            return None
        return cause_of(view[CAUSE + 8 : CAUSE + 8 + length])

    # ------------------------------------------------------------- for the handles
    def ended(self) -> int:
        return self.words[ENDED]  # type: ignore[no-any-return]

    def statistics(self) -> ChannelStatistics:
        senders, receivers = self.slots.total()
        inside = len(self.ring)
        return ChannelStatistics(
            capacity=self.ring.capacity,
            buffered=inside,
            waiting_senders=self.outbound._waiting(),
            waiting_receivers=self.inbound._waiting(),
            senders=senders,
            receivers=receivers,
            sent=self.outbound.count,
            received=self.inbound.count,
            dropped=0,
            peak=inside,
        )


def cause_of(data: Any) -> BaseException:
    """What `forms_of` has made of it."""
    try:
        found = pickle.loads(data)
    except Exception as error:
        return RemoteError(type(error).__name__, f"the cause does not unpickle here: {error}")
    return found if isinstance(found, BaseException) else RemoteError("Exception", "an unknown cause")


def forms_of(cause: BaseException) -> Iterator[bytes]:
    """The cause as bytes, from the truest on."""
    try:
        data = pickle.dumps(cause)
        pickle.loads(data)
        yield data
    except Exception:
        pass
    kind = type(cause).__qualname__
    try:
        text = str(cause)
    except Exception:
        text = "(its message cannot be had)"
    try:
        yield pickle.dumps(RemoteError(kind, text[:800]))
    except Exception:  # the interpreter is being taken down
        yield b"N."  # a cause, but not which: None


def _before_fork() -> None:
    for conduit in list(_conduits.values()):
        conduit.expect()


def _after_fork_in_child() -> None:
    global _attaching
    _attaching = threading.RLock()
    for conduit in list(_conduits.values()):
        conduit.inherit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
