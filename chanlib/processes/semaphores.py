"""ProcessSemaphore and ProcessLock: taking turns between processes.

The slot of each process says how many units it holds (HELD), so what a dead process held is known, and comes back.
`Holdings` is the account:

    FREE      units that are free
    HELD      of each slot: units that its process has taken and not given back
    OWED      units that were given back by processes that did not hold them

A semaphore may serve for signals: some processes only release, others only acquire. What a dead process held is
therefore weighed up against OWED first. Where who takes also gives back OWED is 0, and all of it comes back.

Invariants:
- the account changes by who has the first mutex, in one step: the new numbers are written beside the old ones, one
  store (ENTRY) makes them valid, and then they are copied. Who finds an ENTRY when he takes the mutex copies them
  (again): whoever wrote them has died, or was interrupted. Source of the idea: the redo log of databases.
- FREE and all HELD are together what there was at first, which is at most MOST, and OWED, which is so too: each fits
  in a word.
- who sleeps has found too little with the mutex, and has said so then (ARMED).
"""

from __future__ import annotations

import threading
import time
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.engine import PENDING, Op
from .._core.reentry import now_or_after
from ..blocks import HeldInside
from ..checks import check_count, check_name
from .gates import Gated, GatedHandle, GateLeaf
from .layout import CAPACITY, RECEIVERS_ARMED
from .ports import HEARTBEAT, Port
from .slots import INHERITED, PID, STARTED, Slots

if TYPE_CHECKING:
    from typing import Self


__all__ = ["ProcessLock", "ProcessSemaphore", "ProcessSemaphoreStatistics"]

FREE, OWED, RECLAIMED = 8, 9, 10  # words
ENTRY, NEW_HELD, NEW_FREE, NEW_OWED = 16, 17, 18, 19
HELD = INHERITED + 1  # a word of each slot

MOST = (1 << 62) - 1
_PATIENCE = 0.2  # seconds for a mutex whose owner is stopped


class Holdings(Slots):
    """Who uses a semaphore, and what each holds. Everything here is for who has the first mutex."""

    __slots__ = ()

    def _enter(self, at: int, held: int, free: int, owed: int) -> None:
        words = self._words
        words[NEW_HELD] = held
        words[NEW_FREE] = free
        words[NEW_OWED] = owed
        words[ENTRY] = at + 1
        self.settle()

    def settle(self) -> None:
        """Complete what has been entered."""
        words = self._words
        entry = words[ENTRY]
        if entry:
            self._table[entry - 1 + HELD] = words[NEW_HELD]
            words[FREE] = words[NEW_FREE]
            words[OWED] = words[NEW_OWED]
            words[ENTRY] = 0

    def acquire(self, at: int, units: int) -> bool:
        words = self._words
        free = words[FREE]
        if units > free:
            return False
        self._enter(at, self._table[at + HELD] + units, free - units, words[OWED])
        return True

    def release(self, at: int, units: int) -> None:
        words = self._words
        held = self._table[at + HELD]
        own = min(held, units)
        owed = words[OWED] + units - own
        if owed > MOST:
            raise ValueError(f"more units than {MOST} would have been given back by processes that did not hold them")
        self._enter(at, held - own, words[FREE] + units, owed)

    def reclaim(self) -> bool:
        """Take back what dead processes hold. Is anything free now that was not?"""
        found = False
        for at in self._used():
            if self._table[at + PID] and not self.lives(at):
                found |= self._take_back(at)
                self._table[at + PID] = 0
        return found

    def _take_back(self, at: int) -> bool:
        words, held = self._words, self._table[at + HELD]
        if not held:
            return False
        signals = min(held, words[OWED])
        self._enter(at, 0, words[FREE] + held - signals, words[OWED] - signals)
        words[RECLAIMED] = min(words[RECLAIMED] + held - signals, MOST)
        return bool(held > signals)

    def held(self, at: int) -> int:
        return self._table[at + HELD]  # type: ignore[no-any-return]

    # ------------------------------------------------------------- as slots
    def give_back(self, at: int, alone: bool = True) -> None:
        if not alone:  # as if it had died: others take it back
            self._table[at + STARTED] = 0
            return
        self.settle()
        self._take_back(at)
        super().give_back(at)

    def _free(self) -> int:
        self.settle()
        at = super()._free()
        self._table[at + HELD] = 0
        return at

    def _bury(self) -> int:
        self.reclaim()
        for at in self._used():
            if not self._table[at + PID]:
                return at
        raise OSError(f"a process semaphore can be used by {len(self._used())} processes at a time, and is")


class _Turnstile(Gated):
    magic = int.from_bytes(b"chanlib\x03", "big")
    slots_kind = Holdings
    slots: Holdings

    def acquire(self, port: Port, units: int) -> bool:
        """Under the lock: take so many if they are there; what the dead have left is looked for now and then."""
        if not port.take():
            return False
        try:
            slots = self.slots
            slots.settle()
            assert self.slot is not None
            if slots.acquire(self.slot, units):
                return True
            if monotonic() < port.look_at:
                return False
            port.look_at = monotonic() + HEARTBEAT
            return slots.reclaim() and slots.acquire(self.slot, units)
        finally:
            port.release()

    def release(self, units: int, owned: str = "") -> None:
        """`owned`: what must not be released unless this process holds it."""
        if not self.outbound._locked(self._release, units, _PATIENCE, owned):
            threading.Thread(target=self._release_late, args=(units,), name="chanlib release", daemon=True).start()

    def _release_late(self, units: int) -> None:
        """Rather late than never, and rather here than to hold up a loop."""
        while not self.outbound._locked(self._release, units, 0.0, ""):
            time.sleep(HEARTBEAT)

    def _release(self, units: int, patience: float, owned: str) -> bool:
        words, slots, most = self.words, self.slots, self.words[CAPACITY]
        with self._mutually(patience) as taken:
            if taken and self.slot is not None:  # else we have left, and given back all that way
                slots.settle()
                if owned and not slots.held(self.slot):
                    raise RuntimeError(f"{owned} cannot be released here: it is not held by this process")
                if words[FREE] + units > (most or MOST):
                    bound = f"its max_value of {most}" if most else f"the most there can be, {MOST}"
                    raise ValueError(f"release of {units} would raise a semaphore above {bound}")
                slots.release(self.slot, units)
        if taken:
            self.tell()
        return taken

    def tell(self) -> None:
        """Under the lock: units have become free."""
        bell = self.inbound.bell
        if self.words[RECEIVERS_ARMED] and bell is not None:
            self.words[RECEIVERS_ARMED] = 0
            bell.ring()
        self.outbound._wake_all()


class ProcessSemaphoreStatistics(NamedTuple):
    """A snapshot of a semaphore between processes. `waiting` is of this process.

    `reclaimed` is how many units have come back from processes that ended without a release, in all.
    """

    value: int
    waiting: int
    reclaimed: int


class ProcessSemaphore(GatedHandle[_Turnstile], HeldInside):
    """So many units, taken by `acquire` and given back by `release`, in any process: `Semaphore` between processes.

    It is a value that can be given to other processes, as the ends of a process channel are; there it is another handle
    of the same units. `with` and `async with` take one unit. `max_value`, if given, is the most there can be: a release
    above it is a `ValueError` and changes nothing (without it, one above 2**62 - 1).

    Who gets free units is whoever looks first. There is no order between processes, nor in one of them, and a big
    request does not hold back smaller ones. What a process holds when it dies, ends, or closes its last handle comes
    back; those who wait find it within 0.2 s. Units that are given back by another process than the one that took them
    count as signals: as many as there were of those do not come back from the dead.

    Raises `OSError` if memory or descriptors cannot be had, `NotImplementedError` where processes share no memory.
    """

    __slots__ = ()
    _kind = _Turnstile

    def __new__(cls, value: int, /, *, max_value: int | None = None, name: str | None = None) -> Self:
        check_count(value, "value", 0)
        if max_value is not None:
            check_count(max_value, "max_value", 1)
            if value > max_value:
                raise ValueError(f"value must be at most max_value, {max_value}, not {value!r}")
        if max(value, max_value or 0) > MOST:
            raise ValueError(f"value and max_value must be at most {MOST}")
        check_name(name)
        return cls._new(value, max_value or 0, name)

    @classmethod
    def _new(cls, value: int, most: int, name: str | None) -> Self:
        turnstile = _Turnstile.create({FREE: value, CAPACITY: most})
        return cls._made(turnstile, (name,))

    def acquire(self, units: int = 1, /) -> Op[None]:
        """Take so many units, all at once, waiting until there are enough.

        A cancelled one takes nothing. Raises `ValueError` for less than one, or for more than `max_value`.
        """
        check_count(units, "units", 1)
        most = self.max_value
        if units > (most or MOST):
            raise ValueError(f"units must be at most max_value of {self!r}, {most or MOST}, not {units!r}")
        return _Acquire(self, self._channel, units)

    __op__ = acquire

    def acquire_nowait(self, units: int = 1, /) -> None:
        """Take so many units if there are enough, else raise `WouldBlock`."""
        self.acquire(units).poll()

    def release(self, units: int = 1, /) -> None:
        """Give back so many units and let those go on who wait for them. From anywhere.

        Does not block, but for up to 0.2 s if another process was stopped (SIGSTOP) right in the middle of a release or
        the like; a thread then does it as soon as it can be done.
        """
        check_count(units, "units", 1)
        if units > MOST:
            raise ValueError(f"units must be at most {MOST}, not {units!r}")
        turnstile = self._used()
        now_or_after(lambda: turnstile.release(units), None)

    @property
    def value(self) -> int:
        """How many units are free, as a snapshot."""
        return self._channel.words[FREE]  # type: ignore[no-any-return]

    @property
    def max_value(self) -> int | None:
        """The most there can be, or None."""
        return self._channel.words[CAPACITY] or None

    def statistics(self) -> ProcessSemaphoreStatistics:
        """A snapshot; never blocks."""
        words = self._channel.words
        return ProcessSemaphoreStatistics(words[FREE], self._channel.outbound._waiting(), words[RECLAIMED])

    def _state(self) -> str:
        most = self.max_value
        return f" {self.value}{'' if most is None else f'/{most}'}"


class ProcessLock(ProcessSemaphore):
    """Mutual exclusion between the tasks and threads of several processes: a semaphore of one unit.

    It belongs to the process that acquired it: a release by another is a `RuntimeError`. It is not re-entrant.
    """

    __slots__ = ()

    def __new__(cls, *, name: str | None = None) -> Self:
        check_name(name)
        return cls._new(1, 1, name)

    def release(self, units: int = 1, /) -> None:
        """Free it. Raises `RuntimeError` if this process does not hold it."""
        check_count(units, "units", 1)
        turnstile, words = self._used(), repr(self)
        now_or_after(lambda: turnstile.release(units, owned=words), None)

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return not self.value


class _Acquire(GateLeaf[None]):
    __slots__ = ("_turnstile", "_units")

    def __init__(self, via: ProcessSemaphore, turnstile: _Turnstile, units: int) -> None:
        super().__init__(via, turnstile.outbound)
        self._turnstile = turnstile
        self._units = units

    def _seems_ready(self, port: Port) -> bool:
        return bool(port.words[FREE] >= self._units)

    def _try(self, port: Port) -> Any:
        return None if self._turnstile.acquire(port, self._units) else PENDING

    def _describe(self, port: Port) -> str:
        return f"acquire {self._units} of {self._via!r}" if self._units != 1 else f"acquire {self._via!r}"
