"""The pump: channels between processes that share no memory. One of them is the hub, the others are connected to it.

A `Pumped` is to handles what a `Conduit` is where memory is shared, and answers the same calls. The process that makes
a channel has a `Hub` for its port, every other one a `Remote`. If the process of the hub dies the channel is broken;
it stays, without a handle, as long as others have one.

Invariants:
- an end is counted with the hub before it can be used. One on its way is counted there under a number, until it
  arrives, the process that it was for has died, or it has been on its way for too long.
- a process that is about to be forked gets a connection of its own before that, on which what it will inherit is
  counted; all others are closed in it. So the end of each process is seen by the hub, and the hub's by each of them.
"""

from __future__ import annotations

import importlib
import math
import os
import secrets
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from .._core.engine import Reentered
from .._core.threads import start
from ..channels import ChannelStatistics
from . import broker, links
from .asked import PumpPort
from .causes import cause_of, forms_of
from .courier import board, here
from .hub import Guest, Hub
from .links import Link, connect, exchange
from .offers import HandoverError
from .remote import Remote
from .ring import Ring
from .tickets import Ticket, known

if TYPE_CHECKING:
    from typing import Self

    from .handles import SharedHandle

__all__ = ["Pumped", "inherit_pumped"]

_context: Any = importlib.import_module("multiprocessing.context")
_attaching = threading.RLock()


class Pumped:
    slot = 0

    def __init__(self, key: bytes, port: PumpPort, most: int, units: int) -> None:
        self.key = key
        self.port = port
        self._size = most, units
        self.senders = self.receivers = 0  # handles of this process, changed under `_attaching`
        self.pid = os.getpid()
        self.early: list[SharedHandle[Any]] = []  # closed in a forked process before it was told what it has
        self.expected = 0  # handles that have come, and do not count yet
        self._launched: list[tuple[weakref.ref[Any], dict[str, Any], int]] = []

    @property
    def outbound(self) -> PumpPort:
        return self.port

    inbound = ring = outbound

    @property
    def slots(self) -> None:
        """What has been counted is in the hub."""
        self._look_after()

    # ------------------------------------------------------------- making and finding
    @classmethod
    def create(cls, most: int, bytes_: int) -> Self:
        units = Ring.size(bytes_)
        key = secrets.token_bytes(16)
        hub = Hub(key, most, units)
        pumped = cls(key, hub, most, units)
        hub.keeper = pumped
        known[pumped.key] = pumped
        return pumped

    @classmethod
    def arrive(cls, token: tuple[Any, ...]) -> tuple[Pumped, int]:
        """What a handle leads to that has come here, and the number under which it is waited for.

        OSError or HandoverError if it cannot be had.
        """
        key, flight, _, _, address, secret, most, units = token
        pumped = cls._expecting(key)
        if pumped is None:
            link: Link | None = Link(_connection(address, secret))
            with _attaching:
                pumped = cls._expecting(key)
                if pumped is None:
                    pumped = known[key] = cls(key, Remote(most, units, link), most, units)
                    pumped.expected = 1
                    link = None
            if link is not None:  # somebody was faster
                link.end()
        return pumped, flight

    @classmethod
    def _expecting(cls, key: bytes) -> Pumped | None:
        """It is here, and will not leave before one more has come."""
        with _attaching:
            pumped: Pumped | None = known.get(key)
            if pumped is None or (isinstance(pumped.port, Remote) and pumped.port.lost):
                return None
            pumped.expected += 1
            return pumped

    def depart(self, sends: bool, receives: bool) -> tuple[Any, ...]:
        """One more of each of these is on its way: what it is pickled to."""
        popen: Any = _context.get_spawning_popen()
        aboard = here.flights if popen is None else None
        address, secret = self._address()
        seconds = math.inf if aboard is not None else broker.LIFETIME
        flight: int | None = self.port.tell("fly", int(sends), int(receives), seconds)
        if flight is None:
            raise OSError("the process in which this channel is does not answer")
        if popen is not None:
            self._launched.append((weakref.ref(popen), popen.__dict__, flight))
            weakref.finalize(popen, _look_after, weakref.ref(self)).atexit = False
        elif aboard is not None:
            board(aboard, _Aboard(self, (self.key, flight, address, secret)))
        return (self.key, flight, sends, receives, address, secret, *self._size)

    def _address(self) -> tuple[Any, bytes]:
        port = self.port
        if isinstance(port, Hub):
            reception = port.receive()
            return reception.address, reception.key
        found = port.tell("meet")
        if found is None:
            raise OSError("the process in which this channel is does not answer")
        if isinstance(found, OSError):
            raise found
        return found  # type: ignore[no-any-return]

    def _look_after(self) -> None:
        """Have processes ended before they have taken what was on its way to them?"""
        for entry in tuple(self._launched):
            popen, fields, flight = entry
            process = popen()
            lost = False
            if process is not None:
                if not fields.get("pid") or process.poll() is None:
                    continue
                lost = True
            elif fields.get("pid"):
                lost = True  # nobody knows
            try:
                self._launched.remove(entry)
            except ValueError:
                continue
            self.port.tell("land", flight, lost)

    # ------------------------------------------------------------- counting ends
    def _count(self, senders: int, receivers: int) -> None:
        with _attaching:
            self.senders += senders
            self.receivers += receivers

    def open(self, handles: Sequence[SharedHandle[Any]], claimed_from: int | None = None) -> None:
        """These count, and are open; they have been waited for under that number, if one is given."""
        senders, receivers = sum(one._sends for one in handles), sum(one._receives for one in handles)
        self._count(senders, receivers)
        arrived = opened = False
        try:
            arrived = self.port.tell("open", senders, receivers, claimed_from)
            if claimed_from is None or arrived:
                for one in handles:
                    one._open = True
                opened = True
        finally:
            with _attaching:
                self.expected -= claimed_from is not None
            if not opened:
                self._count(-senders, -receivers)
                self._leave()
        if not opened:
            raise HandoverError(
                "the process in which the channel of this handle is does not answer"
                if arrived is None
                else "this handle was claimed already, or has expired: a pickled handle stands for one clone, to be "
                "unpickled once and soon; pickle it once for each process"
            )

    def close(self, handle: SharedHandle[Any], cause: BaseException | None) -> bool:
        """This one is closed. False: it was."""
        forms = [] if cause is None or not handle._sends or handle._inherited else list(forms_of(cause))
        with _attaching:
            if not handle._open:
                return False
            handle._open = False
        self.port.tell("close", int(handle._sends), int(handle._receives), handle._inherited, forms)
        self._count(-handle._sends, -handle._receives)
        self._leave()
        return True

    def _leave(self) -> None:
        with _attaching:
            if self.senders or self.receivers or self.expected or not isinstance(self.port, Remote):
                return
            if known.get(self.key) is self:
                del known[self.key]
        self.port.leave()

    def own(self, handle: SharedHandle[Any], wanted: bool) -> None:
        """A handle that was inherited is used from now on; or is not what this process is for."""
        if wanted:
            with _attaching:
                if not handle._inherited or not handle._open:
                    return
                handle._inherited = False
        self.port.tell("use", int(handle._sends), int(handle._receives), wanted)

    # ------------------------------------------------------------- the end
    def end(self, how: int, cause: BaseException | None = None) -> bool:
        """It ends for all. False if it had ended already, in this way or a stronger one."""
        before = self.port.known().ended
        first: bool | None = self.port.tell("end", how, [] if cause is None else list(forms_of(cause)))
        return before < how if first is None else first

    def ended(self) -> int:
        return self.port.ended

    def cause(self) -> BaseException | None:
        data = self.port.known().cause
        return None if data is None else cause_of(data)

    def statistics(self) -> ChannelStatistics:
        port = self.port
        state = port.state()
        return ChannelStatistics(
            capacity=port.capacity,
            buffered=state.values,
            waiting_senders=port.waiting(True),
            waiting_receivers=port.waiting(False),
            senders=state.senders,
            receivers=state.receivers,
            sent=port.sent,
            received=port.received,
            dropped=0,
            peak=state.values,
        )

    # ------------------------------------------------------------- forks
    def expect(self) -> _Expected | None:
        """A process is about to be forked."""
        ends = self.senders, self.receivers
        try:
            if isinstance(self.port, Hub):
                ours, theirs = Pipe()
                guest = Guest(Link(ours), ends)
                self.port.enter(guest)
                return _Expected(self, Link(theirs), partial(start, partial(self.port.serve, guest), "chanlib pump"))
            theirs = connect(*self._address())
            exchange(theirs, "expect", *ends)
            return _Expected(self, Link(theirs), None)
        except (OSError, Reentered):  # by a finalizer, in the middle of an operation: it is not waited for
            return None

    def inherit(self, link: Link | None) -> None:
        """This is the process that was forked."""
        self._launched.clear()
        self.expected = 0
        if isinstance(self.port, Hub):
            self.port.keeper = None
        self.port = Remote(*self._size, link)
        self.pid = os.getpid()
        early, self.early = self.early, []
        for handle in early:
            handle._inherited = True
            self.close(handle, None)


def _connection(address: Any, secret: bytes) -> Any:
    try:
        return connect(address, secret)
    except ConnectionError as error:
        raise HandoverError("the process in which the channel of this handle is has gone") from error


def _look_after(pumped: weakref.ref[Pumped]) -> None:
    found = pumped()
    if found is not None:
        found._look_after()


class _Aboard:
    """An end that travels with a message; without descriptors."""

    def __init__(self, pumped: Pumped, ticket: Ticket) -> None:
        self._pumped = pumped
        self.ticket = ticket
        self.fds: Sequence[int] = ()

    def arrived(self) -> None:
        pass

    def turned_back(self) -> None:
        self._pumped.port.tell("land", self.ticket[1], False)


class _Expected:
    """The connection of a process that is being forked."""

    def __init__(self, pumped: Pumped, link: Link, serve: Callable[[], object] | None) -> None:
        self.pumped = pumped
        self.link = link
        self.serve = serve


_forking: dict[int, list[_Expected]] = {}  # by the thread that does


def _before_fork() -> None:
    _forking[get_ident()] = [
        expected
        for pumped in list(known.values())
        if (pumped.senders or pumped.receivers) and (expected := pumped.expect())
    ]
    links.before_fork()


def _after_fork_in_parent() -> None:
    links.after_fork_in_parent()
    for expected in _forking.pop(get_ident(), ()):
        expected.link.shut()
        if expected.serve is not None:
            expected.serve()


def inherit_pumped() -> None:
    """In a process that has been forked, once its handles know."""
    global _attaching
    _attaching = threading.RLock()
    mine = {expected.pumped: expected.link for expected in _forking.get(get_ident(), ())}
    _forking.clear()
    links.after_fork_in_child(set(mine.values()))
    for pumped in list(known.values()):
        pumped.inherit(mine.get(pumped))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
