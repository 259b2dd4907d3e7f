"""Where things stand in the memory of a channel, and how a record begins.

Words that change stand a cache line apart. Then come the mutexes, the slots (`slots`), the cause of the end, and from
`DATA` on the records. A record is contiguous and a multiple of `UNIT` bytes:

    u32 units | u8 kind | u8 flags | u16 buffers | u64 length, or a small integer itself     16 bytes
    u64 number and count of its descriptors                                     16, if PARCEL is among the flags
    u64 length of each buffer                                                   filled up to UNIT
    payload                                                                     filled up to UNIT
    each buffer                                                                 filled up to UNIT

What does not fit between the tail and the end of the memory starts over at its beginning; a record of kind SKIP fills
the rest.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable
from operator import call
from struct import Struct
from threading import Lock

UNIT = 16
PAGE = 4096

# words, by number
MAGIC, SIZE, CAPACITY, MUTEXES = 0, 1, 2, 3
HEAD, TAIL, ENDED, RECEIVERS_ARMED, SENDERS_ARMED, PARCELS, SLOTS_USED, LEASE = range(8, 72, 8)
WORDS_END = 72 * 8  # bytes
MUTEX_AT = (2048, 2048 + 128)  # bytes: the senders', the receivers'
SLOTS = PAGE
CAUSE = 5 * PAGE
DATA = 6 * PAGE

# kinds
INT, PICKLE, BYTES, BYTEARRAY, STR, VIEW, CUSTOM, SKIP = 1, 2, 3, 4, 5, 6, 7, 255

# flags
PARCEL, SPILLED = 1, 2

HEADER = Struct("<IBBHQ")
SMALL = Struct("<IBBHq")
PAIR = Struct("<QQ")

WEAK = platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686")
"""May this processor reorder stores?"""


def fence() -> None:
    """What was stored before is seen by others before what is stored, or read, after this."""
    # Without a step of Python between the two, where an interrupt would leave the lock taken.
    deque(map(call, _taken_and_given_back), 0)


def _renew() -> None:
    """Where a process is forked another thread may have the lock."""
    global _taken_and_given_back
    order = Lock()
    _taken_and_given_back = (order.acquire, order.release)


_taken_and_given_back: tuple[Callable[[], object], ...]
_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def units_of(length: int) -> int:
    return (length + UNIT - 1) // UNIT
