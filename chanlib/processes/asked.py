"""What operations ask where processes share no memory: a port that stands for both directions, and for the ring.

In the process of the hub it is the hub itself (`hub`), elsewhere what asks there (`remote`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from .._core.engine import PENDING, Queued
from .parcels import Parcel, pack, unpack, wire
from .ring import EMPTY
from .tickets import give_up

__all__ = ["PumpPort", "State"]


class State(NamedTuple):
    """What a hub says of itself with every answer."""

    ended: int = 0
    lost: bool = False  # has somebody died who could send?
    senders: int = 1
    receivers: int = 1
    values: int = 0  # how many, and their units
    used: int = 0
    cause: bytes | None = None


class PumpPort(Queued):
    """What operations ask, in the hub as elsewhere. It stands for both directions, and for the ring."""

    __slots__ = ("_errors", "_units", "capacity", "look_at", "received", "sent")

    encode = staticmethod(pack)
    decode = staticmethod(unpack)
    spins: ClassVar[bool] = False
    leased: ClassVar[bool] = False
    hold: ClassVar[None] = None  # nothing lies anywhere to be looked at

    def __init__(self, most: int, units: int) -> None:
        super().__init__()
        self.capacity = most or math.inf
        self._units = units
        self._errors: deque[Exception] = deque()  # to be told to who receives next, here
        self.look_at = 0.0  # nobody has to look: the state says it
        self.sent = self.received = 0  # by this process

    def state(self) -> State:
        """As it is now."""
        raise NotImplementedError

    def known(self) -> State:
        """As it was when it was last asked for."""
        raise NotImplementedError

    def tell(self, name: str, *args: Any) -> Any:
        """Have that done in the hub."""
        raise NotImplementedError

    # ------------------------------------------------------------- what the operations ask
    @property
    def ended(self) -> int:
        return self.state().ended

    def nobody(self, slots: object, sending: bool) -> bool | None:
        """Has the other side gone? None: it has died."""
        state = self.known()
        if state.receivers if sending else state.senders:
            return False
        return None if state.lost and not sending else True

    def empty(self) -> bool:
        return not self._errors and not self.known().values

    def put_one(self, message: Any) -> bool:
        return False

    def get_one(self) -> Any:
        return PENDING

    def _have_gone(self, parcels: Sequence[Parcel]) -> None:
        """Under the lock: they are in the hub."""
        for parcel in parcels:
            if parcel.courier is not None:
                self._defer(parcel.courier.arrived)
                parcel.courier = None
        self.sent += len(parcels)

    def put_back(self, parcels: Sequence[Any]) -> None:
        """They are received again, by whoever comes first; errors among them by who receives next in this process."""
        errors = [one for one in parcels if isinstance(one, Exception)]
        parcels = parcels[len(errors) :]
        if errors:
            self._locked(self._keep, errors)
        if parcels:
            self.tell("return", wire(parcels))

    def refuse(self, parcels: Sequence[Parcel]) -> None:
        """They were taken out, and nobody will get them."""
        for parcel in parcels:
            give_up(parcel.tickets)

    def _keep(self, errors: Sequence[Exception]) -> None:
        self._errors.extend(errors)
        self._wake_all()

    def _tell(self) -> None:
        """Under the lock, before anything is received."""
        if self._errors:
            raise self._errors.popleft()

    def lease(self, hold: object) -> Any:
        """It is taken."""
        got = self.get(1)
        return got if got is EMPTY or got is PENDING else got[0]

    def get(self, most: float) -> Any:
        raise NotImplementedError

    def rest(self, waiter: Any, ready: Callable[[Any], bool]) -> Any:
        raise NotImplementedError

    def rouse(self) -> None:
        """Let all who wait here look again."""
        self._locked(self._wake_all)

    def discard(self) -> None:
        """The hub has done it."""

    # ------------------------------------------------------------- as a ring
    @property
    def ring(self) -> PumpPort:
        return self

    @property
    def longest(self) -> int:
        return self._units >> 1

    def __len__(self) -> int:
        return self.state().values

    def __bool__(self) -> bool:
        return True

    def has_room(self, parcel: Parcel) -> bool:
        state = self.state()
        return self._fits(parcel, state.values, state.used)

    def _fits(self, parcel: Parcel, count: int, used: int) -> bool:
        return count < self.capacity and used + parcel.units <= self._units

    def waiting(self, sends: bool) -> int:
        """How many wait in this process."""
        while True:
            try:
                ops = [waiter.op for waiter in tuple(self._queue) if waiter.waiting()]
            except RuntimeError:  # without a GIL it may change while it is copied
                continue
            return sum(1 for op in ops if op is not None and op._outbound == sends)
