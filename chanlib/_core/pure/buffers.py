"""Buffers of a ring, by the order in which values come out.

First in, first out is a plain deque. The others have its surface as far as a ring uses it: `append` puts a value in,
`popleft` takes the next one out, `len`, and iteration in the order of arrival. `displace` puts one in and takes out the
one that has been inside for longest. If any of them raises, the buffer is as it was before.

A comparison of priorities runs user code under the lock of the channel: it must not use that channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, TypeVar

__all__ = ["Heap", "Order", "consume", "displace", "empty", "prepared"]

T = TypeVar("T")


Order = Literal["fifo", "lifo", "priority"]


def empty(order: Order) -> Any:
    """A buffer with nothing inside."""
    kinds: dict[str, Callable[[], Any]] = {"fifo": deque, "lifo": Stack, "priority": Heap}
    return kinds[order]()


def prepared(values: Any, value: Any) -> Iterator[object]:
    """What puts `value` in once it is run through, by `consume`: one call of C."""
    special: Callable[[Any], Iterator[object]] | None = getattr(values, "prepared", None)
    return map(values.append, (value,)) if special is None else special(value)


def displace(values: Any, value: Any, into: Any) -> None:
    """Put `value` in, and move what has been inside for longest to `into`. An interrupt loses neither."""
    special: Callable[[Any], Any] | None = getattr(values, "displace", None)
    if special is None:
        into.extend(map(deque[Any].popleft, (values,)))
        values.append(value)
    else:
        old = special(value)
        into += (old,)


class Stack(deque[T]):
    """Last in, first out."""

    __slots__ = ()

    def popleft(self) -> T:
        return self.pop()


consume = deque[Any](maxlen=0).extend


class Heap(Generic[T]):
    """The smallest first; of those that are equal, the one that was put in first.

    Entries are (value, number). All comparisons come first and give a list of stores, which are then made in one
    call of C: neither a comparison that raises nor an interrupt leaves it half changed, as it does the heap of the
    standard library.
    """

    __slots__ = ("_entries", "_number")

    def __init__(self) -> None:
        self._entries: list[tuple[Any, int]] = []
        self._number = 0

    def append(self, value: T) -> None:
        consume(self.prepared(value))

    def prepared(self, value: T) -> Iterator[object]:
        """What puts `value` in once it is run through. Not to be kept: it holds for the heap as it is now."""
        entries = self._entries
        entry = (value, self._number)
        self._number += 1
        places: list[Any] = [slice(len(entries), None)]
        moved: list[Any] = []
        hole = len(entries)
        while hole and _before(entry, entries[(hole - 1) >> 1]):
            hole = (hole - 1) >> 1
            moved.append(entries[hole])
            places.append(hole)
        moved.append(entry)
        moved[0] = [moved[0]]  # the first store makes the list longer
        return map(entries.__setitem__, places, moved)

    def popleft(self) -> T:
        return self._remove(0)

    def displace(self, value: T) -> T:
        twin = Heap[T]()
        twin._entries, twin._number = list(self._entries), self._number
        twin.append(value)
        entries = twin._entries
        old = twin._remove(min(range(len(entries)), key=lambda place: entries[place][1]))
        self._number = twin._number
        self._entries = twin._entries
        return old

    def _remove(self, place: int) -> T:
        """Take out the entry at `place`; the last one fills its place and goes where it belongs."""
        entries = self._entries
        value: T = entries[place][0]
        last = entries[-1]
        count = len(entries) - 1
        places: list[Any] = []
        moved: list[Any] = []
        hole = place
        while place < count and hole and _before(last, entries[(hole - 1) >> 1]):
            places.append(hole)
            hole = (hole - 1) >> 1
            moved.append(entries[hole])
        if hole == place:  # not upwards
            while (child := 2 * hole + 1) < count:
                if child + 1 < count and _before(entries[child + 1], entries[child]):
                    child += 1
                if not _before(entries[child], last):
                    break
                places.append(hole)
                moved.append(entries[child])
                hole = child
        if place < count:
            places.append(hole)
            moved.append(last)
        places.append(slice(count, None))
        moved.append([])
        consume(map(entries.__setitem__, places, moved))
        return value

    def probe(self, value: T) -> None:
        """Raise now what comparing `value` with the others would raise later."""
        if self._entries:
            _before((value, self._number), self._entries[0])

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        return (value for value, _ in sorted(self._entries, key=lambda entry: entry[1]))


def _before(a: tuple[Any, int], b: tuple[Any, int]) -> bool:
    try:
        if a[0] < b[0]:
            return True
        return a[1] < b[1] and not b[0] < a[0]
    except TypeError as error:
        raise TypeError(
            f"a value of a channel with order='priority' must compare by `<` with those inside: {error}"
        ) from error
