"""Gates: where those wait who want no message, for an event, a place or a result between processes.

`Gated` is what a process has of such a thing: what it has of a channel, without the ring. A `Gate` is one of its ports.

    what            its words                       who waits, and on which socket       its two kinds of end
    --------------  ------------------------------  -----------------------------------  ---------------------------
    event           STATE, ARMED twice              at `outbound`, on one or the other   every handle is both
    semaphore       FREE, OWED, RECEIVERS_ARMED     at `outbound`, on that of `outbound` every handle is both
    future          STATE, AT, LENGTH               at `inbound`, on that of `inbound`   promises; futures

Invariant: what the words say changes by single stores of who has the first mutex, under the lock of `outbound`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .features import SHARED
from .handles import SharedHandle
from .layout import DATA, MAGIC, MUTEXES, PAGE, RECEIVERS_ARMED, WORDS_END
from .operations import PortLeaf
from .ports import Port
from .shared import Shared

if TYPE_CHECKING:
    from typing import Self

    from .memory import Memory
    from .mutexes import Mutex

__all__ = ["BODY", "BODY_BYTES", "Gate", "GateLeaf", "Gated", "GatedHandle"]

T_co = TypeVar("T_co", covariant=True)
G = TypeVar("G", bound="Gated")

BODY, BODY_BYTES = DATA, PAGE
"""What stands where a channel has its ring."""


class _NoRing:
    def __init__(self, words: Any) -> None:
        self.words = words


class Gate(Port):
    __slots__ = ()
    _armed = RECEIVERS_ARMED

    def __init__(self, words: Any, mutex: Mutex) -> None:
        super().__init__(cast("Any", _NoRing(words)), mutex)


class Gated(Shared):
    def __init__(self, memory: Memory, key: bytes) -> None:
        super().__init__(memory, key)
        self.outbound: Port = Gate(self.words, self._mutex(0))
        self.inbound: Port = Gate(self.words, self._mutex(1))

    @classmethod
    def create(cls, words: dict[int, int] | None = None) -> Self:
        """`words`: what those of its words that are not 0 are at first."""
        if not SHARED:
            raise NotImplementedError(
                "events, semaphores, locks and futures between processes need memory that processes share: there is "
                "none on this system, or with CHANLIB_PROCESSES=pump; process channels need none"
            )

        def lay_out(memory: Memory, mutexes: int) -> None:
            view: Any = memory.view[:WORDS_END].cast("Q")
            for word, value in (words or {}).items():
                view[word] = value
            view[MUTEXES] = mutexes
            view[MAGIC] = cls.magic

        return cls._create(BODY + BODY_BYTES, lay_out)

    @classmethod
    def _fits(cls, words: Any, size: int) -> bool:
        return size == BODY + BODY_BYTES or (cls.grows and size > BODY + BODY_BYTES)


class GateLeaf(PortLeaf[T_co]):
    """An operation on such a thing that came through a handle."""

    __slots__ = ()

    def __init__(self, via: GatedHandle[Any], port: Port) -> None:
        self._via = cast("Any", via)
        self._src = port

    def _attempt(self, port: Any) -> Any:
        if not self._via._open:
            raise self._via._shut()
        return self._try(port)

    def _try(self, port: Any) -> Any:
        """Under the lock of the port: do it now, or PENDING."""
        raise NotImplementedError


class GatedHandle(SharedHandle[G]):
    """What handles of these kinds have in common. One that is dropped is closed, and nobody minds."""

    __slots__ = ()
    _sends = True
    _receives = True

    def clone(self) -> Self:
        """Another handle of the same thing, to be closed by itself. Raises `HandleClosed` if this one is closed."""
        return self._made(self._used(), self._options())

    def close(self) -> bool:
        """Let go of it here; other handles are not touched. Those who wait through this one get `HandleClosed`.

        To drop the handle does the same. Returns True the first time. May be called from anywhere.
        """
        return self._let_go()

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not sys.is_finalizing():
            self._let_go()
