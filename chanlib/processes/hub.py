"""Hub: where a channel is, if processes share no memory: in the process that has made it, which all others ask.

The hub is the port of that process, for both directions: its own senders and receivers wait in its queue, and its lock
guards all there is. Every other process is a `Guest`: a connection, and a thread here that performs what it asks for,
one step after the other. So there is nothing that two could do at once, and nobody can die in the midst of it.

Invariants, under the lock:
- `values` is in the order of sending; what is put back goes where it was.
- an end is counted in one place: with the party that has it, or among the `flights`, of those on their way.
- what a guest has asked for and not yet said to have taken is `away`: if he dies, or does not want it any more, it is
  put back.
- whoever has found nothing to do here is told of the next change: it wakes whoever waits in the queue, and is posted
  once to each guest that is `armed`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from .._core.reentry import now_or_after
from .asked import PumpPort, State
from .layout import PAGE
from .links import Link, Reception
from .parcels import Parcel, unwire, wire
from .ports import CANCELLED, CLOSED, DESERTED, HEARTBEAT
from .ring import EMPTY
from .tickets import give_up

__all__ = ["Guest", "Hub", "Party"]


class Party:
    """A process, with the number of its ends: senders, receivers."""

    __slots__ = ("armed", "away", "inherited", "own")

    def __init__(self, inherited: tuple[int, int] = (0, 0)) -> None:
        self.own = [0, 0]
        self.inherited = list(inherited)  # by a fork, and not used yet: nothing is missing if it ends without
        self.away: dict[int, list[Parcel]] = {}
        self.armed = False


class Guest(Party):
    """Another process."""

    __slots__ = ("link",)

    def __init__(self, link: Link, inherited: tuple[int, int] = (0, 0)) -> None:
        super().__init__(inherited)
        self.link = link

    def wake(self) -> None:
        """Tell it that something has changed."""
        self.link.send(0, None, None)


class Hub(PumpPort):
    __slots__ = (
        "_cause",
        "_flights",
        "_how",
        "_key",
        "_lost",
        "_number",
        "_used",
        "_values",
        "home",
        "keeper",
        "parties",
        "reception",
    )

    def __init__(self, key: bytes, most: int, units: int) -> None:
        super().__init__(most, units)
        self._key = key
        self._values: deque[Parcel] = deque()
        self._used = 0
        self._number = 0
        self._how = 0
        self._lost = False
        self._cause: bytes | None = None
        self._flights: dict[int, tuple[int, int, float]] = {}  # until when they are waited for
        self.home = Party()
        self.parties: list[Party] = [self.home]
        self.reception: Reception | None = None
        self.keeper: Any = None  # lives as long as this channel is used anywhere

    # ------------------------------------------------------------- for this process
    def state(self) -> State:
        senders, receivers = self._total()
        return State(self._how, self._lost, senders, receivers, len(self._values), self._used, self._cause)

    known = state

    def tell(self, name: str, *args: Any) -> Any:
        return now_or_after(lambda: self._locked(self._perform, self.home, 0, name, args), None)

    def nobody(self, slots: object, sending: bool) -> bool | None:
        self._expire()
        return super().nobody(slots, sending)

    def put(self, parcels: Sequence[Parcel]) -> int:
        """Under the lock: put in as many as there is room for, from the first on."""
        done = self._put(parcels)
        self._have_gone(parcels[:done])
        return done

    def get(self, most: float) -> Any:
        """Under the lock: what is there, at most so many; EMPTY."""
        self._tell()
        found = self._get(most)
        self.received += len(found)
        return found or EMPTY

    def rest(self, waiter: Any, ready: Callable[[Any], bool]) -> None:
        waiter.wake_in(HEARTBEAT)  # an end on its way may be given up

    # ------------------------------------------------------------- for a guest
    def answer(self, guest: Guest, number: int, name: str, args: Sequence[Any]) -> None:
        """In the thread of that guest. OSError if it has gone."""
        result = self._locked(self._perform, guest, number, name, args)
        guest.link.send(number, result, self.state())

    def enter(self, guest: Guest) -> None:
        self._locked(self.parties.append, guest)

    def leave(self, guest: Guest) -> None:
        """It has gone, in whatever way. What it had open, it has not closed."""
        self._locked(self._leave, guest)

    def _leave(self, guest: Guest) -> None:
        self.parties.remove(guest)
        for parcels in guest.away.values():
            self._restore(parcels)
        self._lost = self._lost or guest.own[0] > 0
        self._conclude()

    # ------------------------------------------------------------- what can be asked for, under the lock
    def _perform(self, party: Party, number: int, name: str, args: Sequence[Any]) -> Any:
        return getattr(self, f"_on_{name}")(party, number, *args)

    def _on_look(self, party: Party, number: int, arm: bool) -> None:
        self._expire()
        party.armed = party.armed or arm

    def _on_put(self, party: Party, number: int, wires: Any) -> int:
        return self._put(unwire(wires))

    def _on_get(self, party: Party, number: int, most: float) -> Any:
        found = self._get(most)
        if found:
            party.away[number] = found
        return wire(found)

    def _on_took(self, party: Party, number: int, earlier: int) -> bool:
        self._drop(party.away.pop(earlier, None))
        return True

    def _on_back(self, party: Party, number: int, earlier: int) -> None:
        self._restore(party.away.pop(earlier, ()))

    def _on_return(self, party: Party, number: int, wires: Any) -> None:
        self._restore(unwire(wires))

    def _on_expect(self, party: Party, number: int, senders: int, receivers: int) -> bool:
        """This connection is for a process that is about to be forked."""
        _less(party.inherited, -senders, -receivers)
        return True

    def _on_open(self, party: Party, number: int, senders: int, receivers: int, flight: int | None) -> bool:
        """False: it has come already, or is not waited for any more."""
        if flight is not None and flight not in self._flights:
            return False
        party.own[0] += senders
        party.own[1] += receivers
        if flight is not None:
            del self._flights[flight]
        return True

    def _on_close(
        self, party: Party, number: int, senders: int, receivers: int, inherited: bool, forms: Sequence[bytes]
    ) -> None:
        _less(party.inherited if inherited else party.own, senders, receivers)
        self._because(forms)
        self._conclude()

    def _on_use(self, party: Party, number: int, senders: int, receivers: int, wanted: bool) -> None:
        """Of what a fork has left: it is used; or it is not what that process is for."""
        _less(party.inherited, senders, receivers)
        if wanted:
            self._on_open(party, number, senders, receivers, None)
        else:
            self._conclude()

    def _on_fly(self, party: Party, number: int, senders: int, receivers: int, seconds: float) -> int:
        self._number += 1
        self._flights[self._number] = senders, receivers, time.monotonic() + seconds
        return self._number

    def _on_land(self, party: Party, number: int, flight: int, lost: bool) -> None:
        """An end that was on its way will not arrive; is something missing without it?"""
        ends = self._flights.pop(flight, None)
        if ends is not None:
            self._lost = self._lost or (lost and ends[0] > 0)
            self._conclude()

    def _on_end(self, party: Party, number: int, how: int, forms: Sequence[bytes]) -> bool:
        return self._end(how, forms)

    # ------------------------------------------------------------- values
    def _put(self, parcels: Sequence[Parcel]) -> int:
        done = 0
        if not self._how:
            for parcel in parcels:
                if not self._fits(parcel, len(self._values), self._used):
                    break
                self._number = parcel.number = self._number + 1
                self._used += parcel.units
                self._values.append(parcel)
                done += 1
        if done:
            self._changed()
        return done

    def _get(self, most: float) -> list[Parcel]:
        found: list[Parcel] = []
        while self._values and len(found) < most:
            parcel = self._values[0]
            found.append(parcel)
            self._used -= parcel.units
            self._values.popleft()
        if found:
            self._changed()
        return found

    def _restore(self, parcels: Iterable[Parcel]) -> None:
        """To where they were."""
        if self._how < CANCELLED:
            self._values = deque(sorted([*parcels, *self._values], key=_number))
            self._mend()
            self._changed()
        else:
            self._discard(parcels)

    def _discard(self, parcels: Iterable[Parcel]) -> None:
        """Nobody will get them."""
        tickets = [ticket for parcel in parcels for ticket in parcel.tickets]
        if tickets:
            self._defer(partial(give_up, tickets))

    def _mend(self) -> None:
        self._used = sum(parcel.units for parcel in self._values)

    def _changed(self) -> None:
        """Whoever waits, wherever that is, looks again."""
        self._wake_all()
        for party in self.parties:
            if party.armed and isinstance(party, Guest):
                party.armed = False
                self._after.append(party)

    # ------------------------------------------------------------- the end
    def _total(self) -> tuple[int, int]:
        senders = receivers = 0
        for party in tuple(self.parties):
            senders += party.own[0] + party.inherited[0]
            receivers += party.own[1] + party.inherited[1]
        for more, others, _ in tuple(self._flights.values()):
            senders += more
            receivers += others
        return senders, receivers

    def _expire(self) -> None:
        """Under the lock: forget those who have been on their way for too long."""
        if self._flights:
            now = time.monotonic()
            for flight in [flight for flight, (_, _, until) in self._flights.items() if until <= now]:
                self._on_land(self.home, 0, flight, False)

    def _conclude(self) -> None:
        """Whatever follows from the ends that are closed. Can be repeated."""
        senders, receivers = self._total()
        if receivers <= self._caught():
            self._end(DESERTED, ())
        elif not senders and not self._lost:
            self._end(CLOSED, ())
        self._changed()
        if not senders and not receivers and len(self.parties) == 1:
            if self.reception is not None:
                self._defer(self.reception.close)
                self.reception = None
            self._drop(self.keeper)
            self.keeper = None

    def _caught(self) -> int:
        """Receivers that are inside of this very channel: nobody else is left to get them out."""
        tickets = [ticket for parcel in self._values for ticket in parcel.tickets]
        return sum(self._flights.get(flight, (0, 0, 0))[1] for key, flight, _, _ in tickets if key == self._key)

    def _end(self, how: int, forms: Sequence[bytes]) -> bool:
        if self._how >= how:
            return False
        self._because(forms)
        self._how = how
        if how >= CANCELLED:
            self._discard(self._values)
            self._drop(self._values)
            self._values = deque()
            self._used = 0
        self._changed()
        return True

    def _because(self, forms: Sequence[bytes]) -> None:
        """The first cause is kept, in the truest form that is not too long."""
        if self._cause is None:
            self._cause = next((form for form in forms if len(form) <= PAGE - 8), None)

    # ------------------------------------------------------------- meeting others
    def receive(self) -> Reception:
        """Where other processes come to."""
        if self.reception is None:
            made = Reception(self._welcome)
            if not self._locked(self._settle_in, made):
                made.close()
        assert self.reception is not None
        return self.reception

    def _settle_in(self, made: Reception) -> bool:
        if self.reception is not None:
            return False
        self.reception = made
        return True

    def _welcome(self, connection: Any) -> None:
        guest = Guest(Link(connection))
        self.enter(guest)
        self.serve(guest)

    def serve(self, guest: Guest) -> None:
        """The thread of a guest, who has entered."""
        link = guest.link
        link.start()
        backlog: deque[tuple[int, str, Any]] = deque()
        over = False
        try:
            while True:
                try:
                    while not over and (not backlog or link.more()):
                        backlog.append(link.receive())
                except (EOFError, OSError):
                    over = True
                if not backlog:
                    return
                number, name, args = backlog.popleft()
                if name == "bye":
                    return
                if name == "forget":
                    continue
                if name == "meet":
                    self._meet(guest, number)
                elif any(later == "forget" and what == (number,) for _, later, what in backlog):
                    link.send(number, None, self.state())  # it was asked for, and is not wanted any more
                else:
                    self.answer(guest, number, name, args)
        finally:
            self.leave(guest)
            link.end()

    def _meet(self, guest: Guest, number: int) -> None:
        try:
            reception = self.receive()
        except OSError as error:
            guest.link.send(number, error, self.state())
        else:
            guest.link.send(number, (reception.address, reception.key), self.state())


def _less(ends: list[int], senders: int, receivers: int) -> None:
    ends[0] = max(ends[0] - senders, 0)
    ends[1] = max(ends[1] - receivers, 0)


def _number(parcel: Parcel) -> int:
    return parcel.number
