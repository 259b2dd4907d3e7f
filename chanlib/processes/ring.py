"""The ring: records of any length in shared memory, first in, first out. `layout` says what a record looks like.

Invariants:
- HEAD and TAIL are one word each: the position in units below, the number of records above (both wrap). TAIL is stored
  by who has the senders' mutex, HEAD by who has the receivers'. A record is there from the one store of TAIL on, and
  gone from the one store of HEAD on. So whoever dies, or is interrupted, between any two instructions leaves the old
  state or the new one, and the number of records is always exact.
- what is between HEAD and TAIL is written by nobody, what is not is read by nobody.
- no record is longer than half of the ring, so an empty ring takes any.

Positions begin a little before they wrap, so that each test comes by there (an idea of Linux's clock).
"""

from __future__ import annotations

import math
from typing import Any

from .layout import (
    CAPACITY,
    DATA,
    HEAD,
    HEADER,
    INT,
    MAGIC,
    MUTEXES,
    SIZE,
    SKIP,
    TAIL,
    UNIT,
    WEAK,
    WORDS_END,
    fence,
)
from .memory import Memory
from .messages import Message, Record, read, write

__all__ = ["EMPTY", "MOST", "Ring"]

_BITS = 36
_POSITION = (1 << _BITS) - 1
_ONE = 1 << _BITS
_NUMBER = ((1 << 64) - 1) ^ _POSITION
_NUMBERS = _NUMBER >> _BITS
_LEAST = 64  # units of the smallest ring
_FIRST = ((_NUMBERS - 9) << _BITS) | (_POSITION + 1 - _LEAST)

_INTEGER = int.from_bytes(HEADER.pack(1, INT, 0, 0, 0)[:8], "little")  # the first word of an integer's record

MOST = _NUMBERS >> 1
"""The largest capacity that can be counted."""

EMPTY: Any = object()


class Ring:
    __slots__ = ("_heads", "_integers", "_mask", "_most", "_units", "capacity", "data", "words")

    def __init__(self, memory: Memory) -> None:
        self.words: Any = memory.view[:WORDS_END].cast("Q")
        self.data = memory.view[DATA:]
        self._heads: Any = self.data.cast("Q")  # the same, as words: two for a unit
        self._integers: Any = self.data.cast("q")
        self._units = units = self.words[SIZE]
        self._mask = units - 1
        self._most = self.words[CAPACITY]
        self.capacity = self._most or math.inf

    @staticmethod
    def size(bytes_: int) -> int:
        """Units of a ring that takes a record of so many bytes: a power of two."""
        units = _LEAST
        while units * UNIT < 2 * bytes_:
            units *= 2
        return units

    @staticmethod
    def lay_out(memory: Memory, units: int, most: int, mutexes: int, magic: int) -> None:
        """By the creator. `most` 0 is no bound."""
        words: Any = memory.view[:WORDS_END].cast("Q")
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
        return ((words[TAIL] >> _BITS) - (words[HEAD] >> _BITS)) & _NUMBERS  # type: ignore[no-any-return]

    def has_room(self, message: Any) -> bool:
        """Is there room for it? By who has the senders' mutex; to others it is a hint."""
        return self._moves(message, self.words[TAIL], self.words[HEAD]) > 0

    def _moves(self, message: Any, tail: int, head: int) -> int:
        """By how many units it moves the tail when it is put in: 0 if there is no room for it."""
        if self._most and ((tail >> _BITS) - (head >> _BITS)) & _NUMBERS >= self._most:
            return 0
        moved: int = message.units if type(message) is Message else 1
        rest = self._units - (tail & self._mask)
        if moved > rest:
            moved += rest
        return moved if ((tail - head) & _POSITION) + moved <= self._units else 0

    def put(self, message: Any, number: int = 0) -> bool:
        """By who has the senders' mutex: put it in, if there is room. Its descriptors travel under `number`."""
        words = self.words
        tail, head = words[TAIL], words[HEAD]
        at = tail & self._mask
        if type(message) is int:  # `_moves` in short: there is always room for one unit before the end
            if self._most and ((tail >> _BITS) - (head >> _BITS)) & _NUMBERS >= self._most:
                return False
            if ((tail - head) & _POSITION) >= self._units:
                return False
            moved = 1
            at *= 2
            self._heads[at] = _INTEGER
            self._integers[at + 1] = message
        else:
            moved = self._moves(message, tail, head)
            if not moved:
                return False
            data = self.data
            if moved == message.units:
                write(data, at * UNIT, message, number)
            else:
                HEADER.pack_into(data, at * UNIT, self._units - at, SKIP, 0, 0, 0)
                write(data, 0, message, number)
        if WEAK:
            fence()
        words[TAIL] = ((tail + _ONE) & _NUMBER) | ((tail + moved) & _POSITION)
        return True

    def get(self) -> Any:
        """By who has the receivers' mutex: take the first record out, or the integer itself; EMPTY if there is none."""
        words = self.words
        head = words[HEAD]
        if head == words[TAIL]:
            return EMPTY
        if WEAK:
            fence()
        at = head & self._mask
        if self._heads[2 * at] == _INTEGER:
            value = self._integers[2 * at + 1]
            if WEAK:
                fence()
            words[HEAD] = ((head + _ONE) & _NUMBER) | ((head + 1) & _POSITION)
            return value
        at, skipped = self._first(at)
        record, units = read(self.data, at)
        if WEAK:
            fence()
        words[HEAD] = ((head + _ONE) & _NUMBER) | ((head + skipped + units) & _POSITION)
        return record

    def _first(self, at: int) -> tuple[int, int]:
        """Where the record that is reached at this unit lies, in bytes, and how many units are skipped before it."""
        units, kind, _, _, _ = HEADER.unpack_from(self.data, at * UNIT)
        return (0, units) if kind == SKIP else (at * UNIT, 0)

    def look(self) -> Any:
        """By who has the receivers' mutex: the first record where it lies, the integer itself, or EMPTY."""
        words = self.words
        head = words[HEAD]
        if head == words[TAIL]:
            return EMPTY
        if WEAK:
            fence()
        at = head & self._mask
        if self._heads[2 * at] == _INTEGER:
            return self._integers[2 * at + 1]
        return Record(self.data, self._first(at)[0], False)

    def skip(self) -> None:
        """By who has the receivers' mutex: the first record has been seen."""
        words = self.words
        head = words[HEAD]
        at, skipped = self._first(head & self._mask)
        units = HEADER.unpack_from(self.data, at)[0]
        if WEAK:
            fence()
        words[HEAD] = ((head + _ONE) & _NUMBER) | ((head + skipped + units) & _POSITION)
