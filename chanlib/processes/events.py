"""ProcessEvent: something that happens once, or until it is cleared, for the tasks and threads of several processes.

STATE counts: it is odd while the event is set. So whoever waits sees by another number that it has been set meanwhile,
even if it is clear again.

Those who wait sleep on one of the two sockets, by turns: on the first in every other period of not being set, on the
second in the others. A byte that says "set" can so stay where it is until the next period is over, and wakes everybody
who has slept in this one, in whatever process; nobody has to have heard it for it to be cleared.

Invariants:
- a socket on which somebody is about to sleep is empty, and its ARMED says so, both written with the mutex. Who sets
  sends a byte if that says that somebody may sleep.
- who dies between setting and sending leaves sleepers who look again after HEARTBEAT seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from .._core.engine import PENDING, Op
from .._core.reentry import now_or_after
from ..checks import check_name
from ..events import EventStatistics
from .gates import Gated, GatedHandle, GateLeaf
from .ports import HEARTBEAT, Port

if TYPE_CHECKING:
    from typing import Self

    from .bells import Bell

__all__ = ["ProcessEvent"]

STATE, ARMED = 8, 16  # words; the second is two, one for each socket
_NAP = 0.002  # seconds after which who has found the mutex taken again and again looks again


class _Flag(Gated):
    magic = int.from_bytes(b"chanlib\x02", "big")

    def bells(self, state: int) -> tuple[Bell | None, Bell | None]:
        """In the period `state`: where to sleep, and what to ring."""
        mine, other = self.outbound.bell, self.inbound.bell
        return (other, mine) if state >> 1 & 1 else (mine, other)

    def set(self) -> None:
        self.outbound._locked(self._set)

    def _set(self) -> None:
        words = self.words
        with self._alone():
            state = words[STATE]
            if not state & 1:
                words[STATE] = state + 1
            armed = ARMED + (state >> 1 & 1)
            if words[armed]:  # also if another has died before he could ring
                words[armed] = 0
                bell = self.bells(state)[1]
                if bell is not None:
                    bell.ring()
        self.outbound._wake_all()

    def clear(self) -> None:
        self.outbound._locked(self._clear)

    def _clear(self) -> None:
        words = self.words
        with self._alone():
            state = words[STATE]
            if state & 1:
                bell = self.bells(state + 1)[0]
                if bell is not None:
                    bell.silence()
                words[STATE] = state + 1

    def sleep(self, port: Port, state: int) -> tuple[float, Bell | None]:
        """Under the lock: after how many seconds to look again, and where to sleep meanwhile."""
        bell = self.bells(state)[0]
        if bell is None or not port.take():
            return _NAP, None
        try:
            if self.words[STATE] != state:
                return 0.0, None
            bell.silence()
            self.words[ARMED + (state >> 1 & 1)] = 1
        finally:
            port.release()
        return HEARTBEAT, bell


class ProcessEvent(GatedHandle[_Flag]):
    """A flag that tasks and threads of any kind can wait for, in any number of processes: `Event` between processes.

    It is a value that can be given to other processes, as the ends of a process channel are; there it is another handle
    of the same flag. Everybody who waits while it is set, or when it gets set, goes on, also if it is cleared at once;
    `clear` makes later waiters wait again. An event may stand in a `select` itself.

    Raises `OSError` if memory or descriptors cannot be had, `NotImplementedError` where processes share no memory.
    """

    __slots__ = ()
    _kind = _Flag

    def __new__(cls, *, name: str | None = None) -> Self:
        check_name(name)
        flag = _Flag.create()
        return cls._made(flag, (name,))

    def set(self) -> None:
        """Set the flag and wake everybody who waits.

        May be called from anywhere. Does not block, but for up to 0.2 s if another process was stopped (SIGSTOP) right
        in the middle of setting or clearing it. If the caller is killed half way, waiters feel it within 0.2 s.
        """
        now_or_after(self._used().set, None)

    def clear(self) -> None:
        """Reset the flag. Those who were woken by an earlier `set` are not held up. Blocks as `set` does."""
        now_or_after(self._used().clear, None)

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return bool(self._channel.words[STATE] & 1)

    def wait(self) -> Op[None]:
        """Wait until the flag is set. Cancelling it has no effect on the event."""
        return _Passed(self, self._channel)

    def __op__(self) -> Op[None]:
        return self.wait()

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()

    def statistics(self) -> EventStatistics:
        """A snapshot; never blocks. Who waits is of this process."""
        return EventStatistics(waiting=self._channel.outbound._waiting())

    def _state(self) -> str:
        return " set" if self.is_set() else ""


class _Passed(GateLeaf[None]):
    __slots__ = ("_flag", "_since")

    def __init__(self, via: ProcessEvent, flag: _Flag) -> None:
        super().__init__(via, flag.outbound)
        self._flag = flag
        self._since = -1  # the period in which the waiting has begun

    def _restart(self) -> None:
        self._since = -1

    def _seems_ready(self, port: Port) -> bool:
        return bool(port.words[STATE] != self._since)

    def _try(self, port: Port) -> Any:
        state = port.words[STATE]
        if state & 1:
            return None
        if self._since < 0:
            self._since = state
        return PENDING if state == self._since else None

    def _enqueue(self, port: Port, waiter: Any, /) -> None:
        port._stand(waiter)
        seconds, bell = self._flag.sleep(port, self._since)
        waiter.wake_in(seconds)
        if bell is not None:
            self._bell = bell
            waiter.wake_readable(bell.fd)

    def _describe(self, port: Port) -> str:
        return f"wait for {self._via!r}"
