"""Remote: the port of a process whose channel is in another one, the hub.

Every step is asked for and answered: a send has happened when the hub says so, a value is received when the hub has
heard that it has come. Who waits does so here; the hub says when there is something new, and he asks again. So a
cancelled operation has nothing on its way, and takes nothing along.

Answers come within microseconds, unless the hub is stopped or the machine is. After `PATIENCE` seconds whoever asks
goes on without one: what he has asked for is taken back, and until the hub has said what has become of it (`doubts`)
nothing else is asked for. A value that comes all the same goes back; a send that has happened all the same is known to
its operation if that still waits. Only if that was cancelled in the very moment in which the hub woke up, it has had an
effect.

Nobody can answer a finalizer that runs in the thread that reads: what it asks for is done, without an answer.
"""

from __future__ import annotations

import itertools
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Sequence
from typing import Any

from .._core.engine import PENDING
from .._core.threads import start
from .asked import PumpPort, State
from .links import Link
from .parcels import Parcel, unwire, wire
from .ports import CANCELLED, CLOSED, HEARTBEAT
from .ring import EMPTY

__all__ = ["PATIENCE", "Remote"]

PATIENCE = 1.0  # seconds
_RATE = 10_000_000  # bytes per second, for which there is more patience


class _Call:
    """Something that was asked for."""

    __slots__ = ("answered", "lock", "name", "number", "result")

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.lock = allocate_lock()
        self.lock.acquire()
        self.answered = False
        self.result: Any = None

    def answer(self, result: Any) -> None:
        self.result = result
        self.answered = True
        self.lock.release()


class Remote(PumpPort):
    __slots__ = ("_calls", "_doubts", "_idle", "_known", "_link", "_numbers", "_reader", "lost")

    def __init__(self, most: int, units: int, link: Link | None) -> None:
        super().__init__(most, units)
        self._link = link
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}  # whoever takes one out decides about it
        self._doubts: dict[int, _Call] = {}
        self._known = State()
        self._reader = 0
        self._idle = [True]  # emptied by who lets the reading begin
        self.lost = link is None
        """The hub has died, or never was."""

    # ------------------------------------------------------------- asking
    def state(self) -> State:
        if not self._doubts:
            self._ask("look", False)
        return self.known()

    def known(self) -> State:
        state = self._known
        if self.lost and state.ended < CANCELLED and not (state.ended == CLOSED and not state.values):
            return State(lost=True, senders=0, receivers=0)  # what it had is gone
        return state

    def tell(self, name: str, *args: Any) -> Any:
        return self._ask(name, *args).result

    def _ask(self, name: str, *args: Any, size: int = 0) -> _Call:
        """Ask for that, and wait for the answer for a while."""
        call = _Call(next(self._numbers), name)
        if self.lost:
            return call
        assert self._link is not None
        try:
            self._calls[call.number] = call
            if self._idle:
                self._begin()
            self._link.send(call.number, name, args)
            if get_ident() == self._reader:
                self._calls.pop(call.number, None)
                return call
            if self.lost:  # it may have been so before it could see this call
                self._give_up()
            if not call.lock.acquire(True, PATIENCE + size / _RATE):
                self._doubt(call)
        except BaseException:
            self._doubt(call)
            if call.name == "get" and call.answered:
                self._link.send(0, "back", (call.number,))
            raise
        return call

    def _doubt(self, call: _Call) -> None:
        """It is not waited for any longer."""
        if call.name in ("put", "get"):
            self._doubts[call.number] = call
        if self._calls.pop(call.number, None) is None:  # the answer is here
            while not call.answered:
                call.lock.acquire(True, 0.001)
            self._doubts.pop(call.number, None)
        elif call.number in self._doubts:
            assert self._link is not None
            self._link.send(0, "forget", (call.number,))

    # ------------------------------------------------------------- being answered
    def _begin(self) -> None:
        try:
            self._idle.pop()
        except IndexError:
            return
        assert self._link is not None
        self._link.start()
        start(self._read, "chanlib pump")

    def _read(self) -> None:
        self._reader = get_ident()
        link = self._link
        assert link is not None
        try:
            while True:
                number, result, state = link.receive()
                if state is not None:
                    self._known = state
                call = self._calls.pop(number, None)
                if call is not None:
                    call.answer(result)
                elif number:
                    self._late(number, result)
                else:
                    self._wake_here()
        except (EOFError, OSError):
            pass
        finally:
            self.lost = True
            self._reader = 0
            link.end()
            self._give_up()

    def _late(self, number: int, result: Any) -> None:
        call = self._doubts.pop(number, None)
        if call is not None:
            if call.name == "get" and result:
                assert self._link is not None
                self._link.send(0, "back", (number,))
            call.result = result
            call.answered = True
            self._wake_here()

    def _give_up(self) -> None:
        """There will be no answers any more."""
        self._doubts.clear()
        while self._calls:
            try:
                _, call = self._calls.popitem()
            except KeyError:
                break
            call.answer(None)
        self._wake_here()

    def _wake_here(self) -> None:
        """Wake all who wait, without the lock: whoever has it may be the one who waits for the next answer.

        Nobody is missed: who waits stands in the queue before he asks whether there is something.
        """
        while True:
            try:
                waiters = tuple(self._queue)
                break
            except RuntimeError:  # it has changed meanwhile
                continue
        for waiter in waiters:
            if waiter.waiting():
                waiter.wake()

    # ------------------------------------------------------------- for the operations
    def put(self, parcels: Sequence[Parcel]) -> int:
        """Under the lock: put in as many as there is room for, from the first on."""
        first = parcels[0]
        call, first.doubt = first.doubt, None
        if call is None:
            if self._doubts:
                return 0
            call = self._ask("put", wire(parcels), size=sum(parcel.size() for parcel in parcels))
        if not call.answered:
            first.doubt = None if self.lost else call
            return 0
        done: int = call.result or 0
        self._have_gone(parcels[:done])
        return done

    def get(self, most: float) -> Any:
        """Under the lock: what is there, at most so many; EMPTY; PENDING: that cannot be said."""
        self._tell()
        if self._doubts:
            return PENDING
        call = self._ask("get", most)
        if not call.answered:
            return EMPTY if self.lost else PENDING
        if not call.result:
            return EMPTY
        self._ask("took", call.number)
        found = unwire(call.result)
        self.received += len(found)
        return found

    def rest(self, waiter: Any, ready: Callable[[Any], bool]) -> None:
        """Under the lock; the waiter stands in the queue."""
        waiter.wake_in(HEARTBEAT)
        if not self._doubts:
            self._ask("look", True)
            if ready(self):
                waiter.wake_in(0.0)

    def leave(self) -> None:
        """Nothing is left here."""
        link, self.lost = self._link, True
        if link is None:
            return
        try:
            self._idle.pop()
        except IndexError:
            link.send(0, "bye", ())
        else:
            link.end()
