"""Who uses a channel: one slot in its memory for each process, with the number of its open ends.

When nobody is left to send, this tells whether the stream is complete: whoever closes an end takes it out of the slot
of his process, who dies does not. So counts that are left over say that somebody has died.

Words of a slot:

    PID, STARTED    the process, and when it was started (pids are used again); 0: the slot is free
    UNTIL           of a process that is about to be forked, whose PID is COMING: until when that is believed
    OPEN            ends it has opened, also those that are on their way to another process; senders below, receivers
                    in the upper half. Written by that process only
    CLAIMED         those of them that have arrived, and are counted there
    INHERITED       ends that a fork has left in it, and that it has not used yet. They keep the stream open while the
                    process lives, but nothing is missing if it ends without having touched them

Invariants:
- an end on its way counts where it comes from until it counts where it has come to. So the sum is zero only when there
  is none.
- slots are taken, given back and claimed from by who has the senders' mutex.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .layout import CAUSE, SLOTS, SLOTS_USED, WORDS_END, fence
from .memory import Memory

__all__ = ["Slots", "started"]

PID, STARTED, OPEN, CLAIMED, INHERITED = range(5)
UNTIL = 7
_WORDS = 8
MOST = (CAUSE - SLOTS) // (8 * _WORDS)
_HALF = 32
_LOW = (1 << _HALF) - 1
COMING = 1 << 63
_BELIEVED = 10 * 10**9  # nanoseconds


def started(pid: int) -> int:
    """When the process was started, in ticks of the system, or 0: it is over. 1 where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in b"ZX" else int(fields[19])
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return 0
    except (OSError, IndexError, ValueError):  # it ends right now
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    return 1


class Slots:
    __slots__ = ("_table", "_words")

    def __init__(self, memory: Memory) -> None:
        self._table: Any = memory.view[SLOTS:CAUSE].cast("Q")
        self._words: Any = memory.view[:WORDS_END].cast("Q")

    def _used(self) -> range:
        return range(0, self._words[SLOTS_USED] * _WORDS, _WORDS)

    # ------------------------------------------------------------- by who has the senders' mutex
    def take(self) -> int:
        """A slot for this process."""
        at = self._free()
        self.stamp(at)
        return at

    def expect(self, senders: int, receivers: int) -> int:
        """A slot for a process that is about to be forked, with what it will inherit."""
        at = self._free()
        table = self._table
        table[at + UNTIL] = time.monotonic_ns() + _BELIEVED
        table[at + INHERITED] = senders + (receivers << _HALF)
        table[at + PID] = COMING
        return at

    def stamp(self, at: int) -> None:
        """The slot is that of this process."""
        self._table[at + STARTED] = started(os.getpid())
        self._table[at + PID] = os.getpid()

    def give_back(self, at: int, alone: bool = True) -> None:
        """This process has no end any more, and none on its way. `alone`: with the mutex; else it would not wait."""
        self._table[at + PID] = 0

    def claim(self, at: int, senders: int, receivers: int) -> None:
        """So many ends that came from there have arrived, and are counted here."""
        self._table[at + CLAIMED] += senders + (receivers << _HALF)

    def _free(self) -> int:
        table, words = self._table, self._words
        at = next((at for at in self._used() if not table[at + PID]), len(self._used()) * _WORDS)
        if at == MOST * _WORDS:
            at = self._bury()
        for word in (OPEN, CLAIMED, INHERITED):
            table[at + word] = 0
        words[SLOTS_USED] = max(words[SLOTS_USED], at // _WORDS + 1)
        return at

    def _bury(self) -> int:
        """All slots are taken: what a dead process has left over is added to that of another."""
        dead = [at for at in self._used() if not self.lives(at)]
        if len(dead) < 2:
            raise OSError(f"a process channel can be used by {MOST} processes at a time, and is")
        first, *others = dead
        table = self._table
        for at in others:
            senders, receivers = self.of(at)
            table[first + OPEN] += senders + (receivers << _HALF)
            table[at + PID] = 0
        return others[0]

    # ------------------------------------------------------------- by the process whose slot it is
    def write(self, at: int, senders: int, receivers: int, heirs: tuple[int, int]) -> None:
        """What counts here, and what a fork has left and nobody has used. Can be repeated."""
        self._table[at + OPEN] = senders + (receivers << _HALF)
        self._table[at + INHERITED] = heirs[0] + (heirs[1] << _HALF)  # last: what is used now has been counted before
        fence()

    # ------------------------------------------------------------- by anybody
    def of(self, at: int) -> tuple[int, int]:
        """Senders and receivers that count there."""
        opened, claimed = self._table[at + OPEN], self._table[at + CLAIMED]
        return max((opened & _LOW) - (claimed & _LOW), 0), max((opened >> _HALF) - (claimed >> _HALF), 0)

    def inherited(self, at: int) -> tuple[int, int]:
        """Senders and receivers that a fork has left there."""
        left = self._table[at + INHERITED]
        return left & _LOW, left >> _HALF

    def total(self, inherited: bool = True) -> tuple[int, int]:
        """Senders and receivers that count anywhere, those of the dead included; what the living have inherited too.

        An end that moves counts in its new slot first, then no more in the old one. Who passes the new one too early
        and the old one too late would see neither, so those are looked at in one order and in the other.
        """
        slots = self._used()
        there, back = self._sum(slots, inherited), self._sum(slots[::-1], inherited)
        return max(there[0], back[0]), max(there[1], back[1])

    def _sum(self, slots: range, inherited: bool) -> tuple[int, int]:
        senders = receivers = 0
        for at in slots:
            if self._table[at + PID]:
                left = self.inherited(at) if inherited else (0, 0)  # first: see `write`
                more, others = self.of(at)
                if any(left) and self.lives(at):
                    more += left[0]
                    others += left[1]
                senders += more
                receivers += others
        return senders, receivers

    def alive(self, sending: bool) -> bool:
        """Has any process that lives an end of this kind?"""
        for at in self._used():
            here = self.inherited(at)[not sending] + self.of(at)[not sending] if self._table[at + PID] else 0
            if here and self.lives(at):
                return True
        return False

    def lives(self, at: int) -> bool:
        """Is the process whose slot it is there?"""
        pid: int = self._table[at + PID]
        since: int = self._table[at + STARTED]
        if pid == COMING:
            return bool(time.monotonic_ns() < self._table[at + UNTIL])
        return pid == os.getpid() or started(pid) == since
