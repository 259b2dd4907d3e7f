"""The ring: records of any length in shared memory, first in, first out.

Layout: words that change stand a cache line apart, then the mutexes, the slots (`slots`), the cause of the end, and
from `DATA` on the records. A record is contiguous and a multiple of `UNIT` bytes:

    u32 units | u8 kind | u8 flags | u16 buffers | u64 length, or a small integer itself     16 bytes
    u64 number and count of its descriptors                                     16, if PARCEL is among the flags
    u64 length of each buffer                                                   filled up to UNIT
    payload                                                                     filled up to UNIT
    each buffer                                                                 filled up to UNIT

What does not fit between the tail and the end of the memory starts over at its beginning; a record of kind SKIP fills
the rest. No record is longer than half of the ring, so an empty ring takes any.

Invariants:
- HEAD and TAIL are one word each: the position in units below, the number of records above (both wrap). TAIL is stored
  by who has the senders' mutex, HEAD by who has the receivers'. A record is there from the one store of TAIL on, and
  gone from the one store of HEAD on. So whoever dies, or is interrupted, between any two instructions leaves the old
  state or the new one, and the number of records is always exact.
- what is between HEAD and TAIL is written by nobody, what is not is read by nobody.

Positions begin a little before they wrap, so that each test comes by there (an idea of Linux's clock).
"""

from __future__ import annotations

import platform
from struct import Struct
from threading import Lock
from typing import Any

from .memory import Memory


UNIT = 16
PAGE = 4096

# words, by number
MAGIC, SIZE, CAPACITY, MUTEXES = 0, 1, 2, 3
HEAD, TAIL, ENDED, RECEIVERS_ARMED, SENDERS_ARMED, PARCELS, SLOTS_USED, LEASE = range(8, 72, 8)
MUTEX_AT = (2048, 2048 + 128)  # bytes: the senders', the receivers'
SLOTS = PAGE
CAUSE = 5 * PAGE
DATA = 6 * PAGE

_POSITION_BITS = 36
_POSITION = (1 << _POSITION_BITS) - 1
_ONE = 1 << _POSITION_BITS
_NUMBER = ((1 << 64) - 1) ^ _POSITION
_NUMBERS = _NUMBER >> _POSITION_BITS
_FIRST = ((_NUMBERS - 9) << _POSITION_BITS) | (_POSITION + 1 - 64)  # 64 units before the end, and on a boundary

MOST = _NUMBERS >> 1
"""The largest capacity that can be counted."""

SKIP = 255
PARCEL, SPILLED = 1, 2

HEADER = Struct("<IBBHQ")
SMALL = Struct("<IBBHq")
PAIR = Struct("<QQ")

_WEAK = platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686")
_order = Lock()


def fence() -> None:
    """What was stored before is seen by others before what is stored, or read, after this."""
    with _order:
        pass


def units_of(length: int) -> int:
    return (length + UNIT - 1) // UNIT


class Ring:
    __slots__ = ("_mask", "_most", "_units", "capacity", "data", "words")

    def __init__(self, memory: Memory) -> None:
        self.words: Any = memory.view[: 72 * 8].cast("Q")
        self.data = memory.view[DATA:]
        self._units = units = self.words[SIZE]
        self._mask = units - 1
        self._most = self.words[CAPACITY]
        self.capacity = float("inf") if not self._most else self._most

    @staticmethod
    def lay_out(memory: Memory, units: int, most: int, mutexes: int, magic: int) -> None:
        """By the creator. `units` is a power of two; `most` 0 is no bound."""
        words: Any = memory.view[: 72 * 8].cast("Q")
        words[SIZE] = units
        words[CAPACITY] = most
        words[MUTEXES] = mutexes
        words[HEAD] = words[TAIL] = _FIRST
        words[MAGIC] = magic

    @property
    def longest(self) -> int:
        """Units of the longest record."""
        return self._units >> 1

    def __len__(self) -> int:
        words = self.words
        return ((words[TAIL] >> _POSITION_BITS) - (words[HEAD] >> _POSITION_BITS)) & _NUMBERS

    # ------------------------------------------------------------- by who has the senders' mutex
    def room(self, units: int) -> int:
        """Where in the data a record of so many units may be written, or -1: there is no room. A hint without mutex."""
        words = self.words
        tail, head = words[TAIL], words[HEAD]
        if self._most and ((tail >> _POSITION_BITS) - (head >> _POSITION_BITS)) & _NUMBERS >= self._most:
            return -1
        at = tail & self._mask
        used = (tail - head) & _POSITION
        rest = self._units - at
        if units > rest:
            return -1 if used + rest + units > self._units else 0
        return -1 if used + units > self._units else at * UNIT

    def publish(self, units: int) -> None:
        """The record of so many units is written, where there was room."""
        words = self.words
        tail = words[TAIL]
        rest = self._units - (tail & self._mask)
        moved = units
        if units > rest:
            HEADER.pack_into(self.data, (self._units - rest) * UNIT, rest, SKIP, 0, 0, 0)
            moved += rest
        if _WEAK:
            fence()
        words[TAIL] = ((tail + _ONE) & _NUMBER) | ((tail + moved) & _POSITION)

    # ------------------------------------------------------------- by who has the receivers' mutex
    def first(self) -> int:
        """Where in the data the first record is, or -1: there is none."""
        words = self.words
        head = words[HEAD]
        if head == words[TAIL]:
            return -1
        if _WEAK:
            fence()
        at = (head & self._mask) * UNIT
        return 0 if self.data[at + 4] == SKIP else at

    def retire(self, units: int) -> None:
        """The first record, of so many units, has been read."""
        words = self.words
        head = words[HEAD]
        at = head & self._mask
        if self.data[at * UNIT + 4] == SKIP:
            units += self._units - at
        if _WEAK:
            fence()
        words[HEAD] = ((head + _ONE) & _NUMBER) | ((head + units) & _POSITION)

    def discard(self) -> None:
        """Nothing that is there now is read by anybody."""
        self.words[HEAD] = self.words[TAIL]
