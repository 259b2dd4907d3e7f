"""Conduit: what a process has of a channel between processes.

Invariant: ENDED is set by who has the senders' mutex, and only to what is stronger. So whoever has put something in has
done so before; who finds the ring empty after having seen ENDED has seen all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.reentry import now_or_after
from ..channels import ChannelStatistics
from .causes import cause_of, forms_of
from .layout import CAUSE, DATA, ENDED, PAGE, SIZE, UNIT, fence
from .memory import Memory
from .ports import CLOSED, DESERTED, Inbound, Outbound
from .ring import Ring
from .shared import Shared

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Conduit"]

_MAGIC = int.from_bytes(b"chanlib\x01", "big")


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

    def inherit(self) -> None:
        """What was taken out, or is looked at, is the parent's."""
        self.inbound.hold = None
        self.inbound.forget()
        self.inbound.count = self.outbound.count = 0
        super().inherit()

    def _hang_up(self) -> None:
        super()._hang_up()
        if not self.receivers + self.heirs[1]:
            self.outbound._defer(lambda: self.inbound._locked(self.inbound.forget))

    def _leave(self) -> None:
        """Who still looks at a value in the memory comes by here afterwards."""
        if self.inbound.hold is None:
            super()._leave()

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
        would_be_first: bool = self.words[ENDED] < how
        return now_or_after(lambda: self.outbound._locked(self._end, how, forms), would_be_first)

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
