"""Ports: the two sources of a conduit. Senders of this process wait in `Outbound`, receivers in `Inbound`.

Both are readiness sources: nobody hands anything over in here, whoever waits looks again when the bell rings.

Invariants:
- the mutex of a port is taken by who has the port's lock, and given back before that is; in between nothing is done but
  copying. `held` is set before it is tried for and cleared after it is given back, so that `_mend` can do that if an
  interrupt comes.
- who sleeps has silenced the bell and said so (ARMED) with the mutex, having found nothing, and has looked once more
  after giving it back. Who has put something in looks whether somebody sleeps after giving the mutex back. So one of the
  two sees the other, unless a process dies right between its store and the bell: therefore who sleeps looks again after
  HEARTBEAT seconds.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._core.engine import PENDING, Queued
from .courier import fetch
from .messages import Record, read, write
from .mutexes import Mutex, patiently
from .ring import ENDED, HEAD, PARCELS, RECEIVERS_ARMED, SENDERS_ARMED, TAIL, Ring

if TYPE_CHECKING:
    from .bells import Bell
    from .slots import Slots

__all__ = ["CANCELLED", "CLOSED", "DESERTED", "HEARTBEAT", "Inbound", "Outbound", "Port"]

OPEN, CLOSED, CANCELLED, DESERTED = range(4)
"""How it has ended: not yet; it may be drained; nobody gets what was in it; the last receiver has gone."""

HEARTBEAT = 0.2  # seconds
GLANCE = 0.02  # seconds after which a sender looks whether there is a receiver
CONTENDED = 0.001  # seconds after which who has found the mutex taken looks again


class Port(Queued):
    __slots__ = ("bell", "count", "held", "look_at", "mutex", "ring", "words")

    _armed: int  # the word in which those who sleep here say so
    _their_armed: int

    def __init__(self, ring: Ring, mutex: Mutex) -> None:
        super().__init__()
        self.ring = ring
        self.words = ring.words
        self.mutex = mutex
        self.bell: Bell | None = None
        self.held = False
        self.look_at = 0.0  # when to look whether there is anybody on the other side
        self.count = 0  # what this process has put in, or taken out

    def take(self) -> bool:
        """Under the lock: take the mutex."""
        self.held = True
        mutex = self.mutex
        if not mutex.attempt() or patiently(mutex):
            return True
        self.held = False
        return False

    def release(self) -> None:
        self.mutex.release()
        self.held = False

    def _mend(self) -> None:
        if self.held:
            self.release()

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
        self.held = False

    def sleep(self, waiter: Any) -> float:
        """Under the lock: leave word that somebody sleeps. After how many seconds he is to look at the latest."""
        if self.bell is None or not self.take():
            return CONTENDED
        try:
            self.bell.silence()
            self.words[self._armed] = 1
        finally:
            self.release()
        return HEARTBEAT

    def nobody(self, slots: Slots) -> bool | None:
        """Has the other side gone? None: it has died. Looked at in earnest now and then, and when the kernel says so."""
        sending = isinstance(self, Outbound)
        hung_up = self.bell is not None and self.bell.hung_up()
        if hung_up or monotonic() >= self.look_at:
            self.look_at = monotonic() + (GLANCE if sending else HEARTBEAT)
            if not slots.total(not hung_up)[sending]:
                return True
            if hung_up or not slots.alive(not sending):
                return None
        return False


class Outbound(Port):
    __slots__ = ()
    _armed, _their_armed = SENDERS_ARMED, RECEIVERS_ARMED

    def put(self, messages: Any) -> int:
        """Under the lock: put in as many as there is room for, from the first on."""
        if not self.take():
            return 0
        words, ring, done = self.words, self.ring, 0
        try:
            if words[ENDED]:
                return 0
            for message in messages:
                units = 1 if type(message) is int else message.units
                at = ring.room(units)
                if at < 0:
                    break
                number = 0
                if type(message) is not int and message.courier is not None:
                    number = words[PARCELS] = words[PARCELS] + 1
                    assert self.bell is not None
                    if not message.courier.depart(number, self.bell.parcels):
                        break
                    self._defer(message.courier.arrived)
                write(ring.data, at, message, number)
                ring.publish(units)
                done += 1
        finally:
            self.release()
        if done and words[RECEIVERS_ARMED]:
            self.ring_others()
        self.count += done
        return done


class Inbound(Port):
    __slots__ = ("_returned",)
    _armed, _their_armed = RECEIVERS_ARMED, SENDERS_ARMED

    def __init__(self, ring: Ring, mutex: Mutex) -> None:
        super().__init__(ring, mutex)
        self._returned: deque[Any] = deque()  # records that have been taken out, and were not wanted then

    def get(self, most: float) -> Any:
        """Under the lock: what is there, at most so many, as a list of records; PENDING, if the mutex is taken."""
        words, ring = self.words, self.ring
        found: list[Any] = []
        while self._returned and len(found) < most:
            found.append(self._returned.popleft())
        if not self.take():
            return found or PENDING
        try:
            while len(found) < most:
                at = ring.first()
                if at < 0:
                    break
                record, units = read(ring.data, at)
                ring.retire(units)
                if type(record) is Record and record.number:
                    assert self.bell is not None
                    record.fds = fetch(record.number, self.bell.parcels)
                found.append(record)
        finally:
            self.release()
        if found and words[SENDERS_ARMED]:
            self.ring_others()
        self.count += len(found)
        return found

    def put_back(self, records: list[Any]) -> None:
        """They are received again, from this process only."""
        if records:
            self._locked(self._put_back, records)

    def _put_back(self, records: list[Any]) -> None:
        self._returned.extendleft(reversed(records))
        self._wake_all()

    def discard(self) -> None:
        """Under the lock: nobody is to get what is there."""
        while (found := self.get(100)) and found is not PENDING:
            for record in found:
                if type(record) is Record:
                    record.drop()

    def empty(self) -> bool:
        return not self._returned and bool(self.words[HEAD] == self.words[TAIL])
