"""Ports: the two sources of a conduit. Senders of this process wait in `Outbound`, receivers in `Inbound`.

Both are readiness sources: nobody hands anything over in here, whoever waits looks again when the bell rings.

Invariants:
- the mutex of a port is taken by who has the port's lock, and given back before that is; in between nothing is done but
  copying. `held` is set before it is tried for and cleared after it is given back, so that `_mend` can do that if an
  interrupt comes.
- who sleeps has silenced the bell and said so (ARMED) with the mutex, having found nothing, and has looked once more
  after giving it back. Who has put something in looks whether somebody sleeps after giving the mutex back. So one of
  the two sees the other, unless a process dies right between its store and the bell: therefore who sleeps looks again
  after HEARTBEAT seconds.
"""

from __future__ import annotations

import os
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .._core.engine import PENDING, Queued
from .courier import fetch
from .layout import ENDED, HEAD, LEASE, PARCELS, RECEIVERS_ARMED, SENDERS_ARMED, TAIL
from .messages import Message, Record, decode, encode
from .mutexes import Mutex, PthreadMutex, patiently, settled
from .ring import EMPTY, Ring

if TYPE_CHECKING:
    from .bells import Bell
    from .slots import Slots

__all__ = ["CANCELLED", "CLOSED", "DESERTED", "HEARTBEAT", "Hold", "Inbound", "Outbound", "Port"]

OPEN, CLOSED, CANCELLED, DESERTED = range(4)
"""How it has ended: not yet; it may be drained; nobody gets what was in it; the last receiver has gone."""

SPINS = 50 if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_yield") else 0
"""How often a thread lets others run before it goes to sleep: to be woken takes several times as long."""
HEARTBEAT = 0.2  # seconds
GLANCE = 0.02  # seconds after which a sender looks whether there is a receiver
_NAP, _LONGEST_NAP = 0.001, 0.05  # seconds after which who has found the mutex taken again and again looks again
_LEASED = 0.005  # seconds after which who has found another one's lease looks again


class Keeper(Protocol):
    def mend(self) -> None: ...


class Port(Queued):
    count: int
    __slots__ = ("bell", "count", "held", "keeper", "look_at", "mutex", "nap", "quick", "ring", "words")

    encode = staticmethod(encode)
    decode = staticmethod(decode)
    spins: ClassVar[bool] = SPINS > 0  # is it worth while to look again at once?

    _armed: int  # the word in which those who sleep here say so
    _their_armed: int

    def __init__(self, ring: Ring, mutex: Mutex) -> None:
        super().__init__()
        self.ring = ring
        self.words = ring.words
        self.mutex = mutex
        self.quick = mutex.attempt if isinstance(mutex, PthreadMutex) else None  # it tells threads apart
        self.bell: Bell | None = None
        self.held = 0  # the thread that has the mutex, or tries for it; 0: none
        self.keeper: weakref.ref[Keeper] | None = None  # to be told if something has been cut in here
        self.look_at = 0.0  # when to look whether there is anybody on the other side
        self.nap = _NAP
        self.count: int = 0  # what this process has put in, or taken out

    @property
    def ended(self) -> int:
        return self.words[ENDED]  # type: ignore[no-any-return]

    def take(self) -> bool:
        """Under the lock: take the mutex."""
        self.held = get_ident()
        mutex = self.mutex
        result = mutex.attempt()
        if not result or settled(mutex, result) or patiently(mutex):
            return True
        self.held = 0
        return False

    def release(self) -> None:
        self.mutex.release()
        self.held = 0

    def _mend(self) -> None:
        if self.held:
            self.release()
        keeper = None if self.keeper is None else self.keeper()
        if keeper is not None:
            keeper.mend()

    def ring_others(self) -> None:
        """Wake those who sleep on the other side, in whatever process."""
        self.words[self._their_armed] = 0
        if self.bell is not None:
            self.bell.ring()

    def rouse(self) -> None:
        """Let all who wait here look again."""
        self._locked(self._wake_all)

    def _forget_waiters(self) -> None:
        super()._forget_waiters()
        self.held = 0

    def sleep(self) -> float:
        """Under the lock: leave word that somebody sleeps. After how many seconds he is to look at the latest.

        HEARTBEAT: the bell will ring. Less: it could not be left, since somebody else is in there.
        """
        if self.bell is None:
            return 0.0
        if not self.take():
            self.nap = min(self.nap * 2, _LONGEST_NAP)
            return self.nap
        try:
            self.nap = _NAP
            self.bell.silence()
            self.words[self._armed] = 1
        finally:
            self.release()
        return HEARTBEAT

    def rest(self, waiter: Any, ready: Callable[[Any], bool]) -> Bell | None:
        """Under the lock: `waiter`, who stands here, is about to sleep: see to his being woken. What he needs for that.

        `ready(port)` says, roughly, whether he would have anything to do.
        """
        bell = self.bell
        if bell is None:
            waiter.wake_in(0.0)
            return None
        pause = self.sleep()
        waiter.wake_in(pause)
        if pause == HEARTBEAT:
            waiter.wake_readable(bell.fd)
            if ready(self):
                waiter.wake_in(0.0)
        return bell

    def nobody(self, slots: Slots, sending: bool) -> bool | None:
        """Has the other side gone? None: it has died. Looked at now and then, and when the kernel says so."""
        hung_up = self.bell is not None and self.bell.hung_up()
        if not hung_up:
            if monotonic() < self.look_at:
                return False
            if slots.alive(not sending):
                self.look_at = monotonic() + (GLANCE if sending else HEARTBEAT)
                return False
        if not slots.total(False)[sending]:  # counted after that: whoever closes an end has counted before
            return True
        return False if not hung_up and slots.alive(not sending) else None  # one that was moving may have been missed


class Outbound(Port):
    __slots__ = ()
    _armed, _their_armed = SENDERS_ARMED, RECEIVERS_ARMED

    def put_one(self, message: Any) -> bool:
        """Without the lock, where the mutex is as good: put a message without descriptors in, if that is easy."""
        words, quick = self.words, self.quick
        if quick is None or monotonic() >= self.look_at:
            return False
        mine = True
        try:
            result = quick()
            if result and not settled(self.mutex, result):
                mine = False
                return False
            if words[ENDED] or not self.ring.put(message):
                return False
        finally:
            if mine:
                self.mutex.release()
        if words[RECEIVERS_ARMED]:
            self.ring_others()
        self.count += 1
        return True

    def put(self, messages: Any) -> int:
        """Under the lock: put in as many as there is room for, from the first on."""
        if not self.take():
            return 0
        words, ring, done = self.words, self.ring, 0
        try:
            if words[ENDED]:
                return 0
            for message in messages:
                number = 0
                if type(message) is Message and message.courier is not None:
                    number = self._send_off(message)
                    if not number:
                        break
                if not ring.put(message, number):
                    break
                done += 1
        finally:
            self.release()
        if done and words[RECEIVERS_ARMED]:
            self.ring_others()
        self.count += done
        return done

    def _send_off(self, message: Message) -> int:
        """Let the descriptors go ahead. 0: the message cannot go now."""
        bell, courier = self.bell, message.courier
        if bell is None or courier is None or not self.ring.has_room(message):
            return 0
        number = self.words[PARCELS] = self.words[PARCELS] + 1
        if not courier.depart(number, bell.parcels):
            return 0
        self._defer(courier.arrived)
        return number  # type: ignore[no-any-return]


class Hold:
    """The right to look at the first record where it lies."""

    __slots__ = ("head", "slot")

    def __init__(self) -> None:
        self.slot = 0  # of whom
        self.head = 0  # the word, at that time


class Inbound(Port):
    __slots__ = ("_returned", "_slots", "hold")
    _armed, _their_armed = RECEIVERS_ARMED, SENDERS_ARMED

    def __init__(self, ring: Ring, mutex: Mutex, slots: Slots) -> None:
        super().__init__(ring, mutex)
        self._slots = slots
        self._returned: deque[Any] = deque()  # records that were taken out, and not wanted then; errors to be told
        self.hold: Hold | None = None  # of this process

    def get_one(self) -> Any:
        """Without the lock, where the mutex is as good: a record, if that is easy."""
        words, quick = self.words, self.quick
        if quick is None or self._returned or words[LEASE] or words[ENDED] > CLOSED:
            return PENDING
        mine = True
        try:
            result = quick()
            if result and not settled(self.mutex, result):
                mine = False
                return PENDING
            record = self.ring.get()
            if record is EMPTY:
                return PENDING
            if type(record) is Record:
                self._whole(record)
        finally:
            if mine:
                self.mutex.release()
        if words[SENDERS_ARMED]:
            self.ring_others()
        self.count += 1
        return record

    def get(self, most: float) -> Any:
        """Under the lock: what is there, at most so many, as a list of records; EMPTY; PENDING: that cannot be said."""
        words, ring = self.words, self.ring
        found: list[Any] = []
        while self._returned and len(found) < most and not (found and isinstance(self._returned[0], Exception)):
            found.append(self._next_returned())
        if not self.take():
            return found or PENDING
        try:
            if words[LEASE] and self._is_leased():
                return found or PENDING
            while len(found) < most:
                record = ring.get()
                if record is EMPTY:
                    break
                found.append(self._whole(record))
        finally:
            self.release()
        if found and words[SENDERS_ARMED]:
            self.ring_others()
        self.count += len(found)
        return found or EMPTY

    def _whole(self, record: Any) -> Any:
        """With the descriptors that belong to it."""
        if type(record) is Record and record.number:
            assert self.bell is not None
            fetch(record, self.bell.parcels)
        return record

    def _next_returned(self) -> Any:
        first = self._returned.popleft()
        if isinstance(first, Exception):
            raise first
        return first

    def refuse(self, records: list[Any]) -> None:
        """They were taken out, and nobody will get them: their descriptors are closed when they are dropped."""

    # ------------------------------------------------------------- looking at the first record where it lies
    def lease(self, hold: Hold) -> Any:
        """Under the lock: the first record, which stays where it is until `end_lease`; PENDING, or EMPTY.

        One that does not lie in the memory, or has descriptors, is taken out.
        """
        words, ring = self.words, self.ring
        if self._returned:
            return self._next_returned()
        if not self.take():
            return PENDING
        try:
            if words[LEASE] and self._is_leased():
                return PENDING
            found = ring.look()
            if type(found) is Record and not found.number:
                hold.head = words[HEAD]
                self.hold = hold
                words[LEASE] = hold.slot + 1
                return found
            found = self._whole(ring.get())
        finally:
            self.release()
        if found is not EMPTY:
            self.count += 1
            if words[SENDERS_ARMED]:
                self.ring_others()
        return found

    def end_lease(self, hold: Hold) -> bool:
        """Under the lock: it is over, the record is gone. False: somebody else has the mutex. Can be repeated."""
        if self.hold is not hold:  # it is over; or it is that of the process which this one was forked from
            return True
        if not self.take():
            return False
        words = self.words
        try:
            if words[LEASE] == hold.slot + 1:
                if words[HEAD] == hold.head:
                    self.ring.skip()
                    self.count += 1
                words[LEASE] = 0
            self.hold = None
        finally:
            self.release()
        if words[SENDERS_ARMED]:
            self.ring_others()
        self._wake_all()
        return True

    def _is_leased(self) -> bool:
        """With the mutex: does whoever has it live?"""
        if self._slots.lives(self.words[LEASE] - 1):
            return True
        self.words[LEASE] = 0
        return False

    def sleep(self) -> float:
        return _LEASED if self.words[LEASE] else super().sleep()

    @property
    def leased(self) -> bool:
        return bool(self.words[LEASE])

    def put_back(self, records: list[Any]) -> None:
        """They are received again, from this process only."""
        if records:
            self._locked(self._put_back, records)

    def _put_back(self, records: list[Any]) -> None:
        self._returned.extendleft(reversed(records))
        self._wake_all()

    def discard(self) -> None:
        """Under the lock, after the end: nobody is to get what is there. Who looks at the first may go on."""
        self.forget()
        if self.take():
            try:
                while (record := self.ring.get()) is not EMPTY:
                    self._drop(self._whole(record))
            finally:
                self.release()

    def forget(self) -> None:
        """Under the lock: nobody of this process is to get what it has taken out."""
        self._drop(self._returned)
        self._returned = deque()

    def empty(self) -> bool:
        return not self._returned and bool(self.words[HEAD] == self.words[TAIL])
