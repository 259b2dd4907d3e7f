"""ProcessFuture: a value that will be there once, for any number of waiters in any number of processes.

The value is pickled once, by whoever sets it, and stands in the memory of the future for as long as anybody has that: a
short one behind its words, a long one in a part by which the memory gets longer then. Each waiter unpickles a copy.

Invariants:
- STATE is stored once, last of all, by who has the first mutex. What it speaks of is complete by then. Whoever dies
  before has done nothing.
- whoever has set it shuts the sockets down. So all who sleep, or will, find theirs readable for ever; those who find it
  late, since he has died before he could, look again after HEARTBEAT seconds.
- promises hold one of the two sockets and nothing else does, so the kernel tells the others when the last is gone; the
  counts in the slots tell the same of one that is closed. A future without a promise counts as one itself.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Generator
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .._core.engine import PENDING, Op
from .._core.reentry import now_or_after
from ..checks import check_name
from ..errors import BrokenFuture, InvalidStateError
from ..futures import FutureCancelled, FutureStatistics
from .gates import BODY, BODY_BYTES, Gated, GatedHandle, GateLeaf
from .layout import PAGE, PICKLE, UNIT, fence
from .messages import Message, Record, decode, encode, write
from .ports import HEARTBEAT, Port
from .reports import pack_error, unpack_error

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ProcessFuture", "ProcessPromise", "open_process_future"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

STATE, AT, LENGTH, PROMISED = 8, 9, 10, 11  # words
WAITING, DONE, FAILED, CANCELLED, BROKEN = range(5)
_NAMES = ("pending", "done", "failed", "cancelled", "broken")


class _Box(Gated):
    magic = int.from_bytes(b"chanlib\x04", "big")
    grows = True

    @property
    def state(self) -> int:
        return self.words[STATE]  # type: ignore[no-any-return]

    def settle(self, state: int, data: bytes | bytearray = b"") -> bool:
        """False, and nothing has happened: it is settled already."""
        first: bool = self.outbound._locked(self._settle, state, data)
        return first

    def _settle(self, state: int, data: bytes | bytearray) -> bool:
        words = self.words
        if words[STATE]:
            return False
        at = BODY if len(data) <= BODY_BYTES else self._write_apart(data)
        with self._mutually(inf):
            if words[STATE]:
                return False
            if at == BODY:
                self.memory.view[BODY : BODY + len(data)] = data
            words[AT] = at
            words[LENGTH] = len(data)
            fence()
            words[STATE] = state
        for port in (self.outbound, self.inbound):
            if port.bell is not None:
                try:
                    port.bell.socket.shutdown(socket.SHUT_RDWR)
                except OSError:  # nobody is on the other side
                    pass
        self.outbound._defer(self.inbound.rouse)
        return True

    def _write_apart(self, data: bytes | bytearray) -> int:
        """Where it stands now. OSError if there is no memory for it."""
        fd = self.memory.fd
        with self._mutually(inf):
            at = -(-os.fstat(fd).st_size // PAGE) * PAGE
            os.ftruncate(fd, at + len(data))  # ours from now on
        view, done = memoryview(data), 0
        while done < len(data):
            done += os.pwrite(fd, view[done:], at + done)
        return at

    def body(self) -> Any:
        """The bytes of what it was settled with, to be decoded."""
        return self.outbound._locked(self._body)

    def _body(self) -> Any:
        at, length = self.words[AT], self.words[LENGTH]
        if at == BODY:
            return memoryview(bytearray(self.memory.view[BODY : BODY + length]))
        found = bytearray(length)
        view, done = memoryview(found), 0
        while done < length:
            more = os.preadv(self.memory.fd, [view[done:]], at + done)
            if not more:
                raise OSError("the memory of a future is shorter than it should be")
            done += more
        return view

    def _conclude(self) -> None:
        if self.words[PROMISED] and not self.words[STATE] and not self.slots.total()[0]:
            self._settle(BROKEN, b"")

    def broken(self) -> bool:
        """Is it promised by nobody any more? Looked at now and then, and when the kernel says so."""
        return bool(self.words[PROMISED]) and self.inbound.nobody(self.slots, False) is not False


class ProcessFuture(GatedHandle[_Box], Generic[T]):
    """A result that is set once, in any process, and then given to everybody who waits or asks: `Future` between
    processes.

    It is a value that can be given to other processes, as the ends of a process channel are; there it is another handle
    of the same future. Waiting is an operation: `await future`, `future.result(timeout)` in a thread, an arm of
    `select`. Cancelling a wait does not cancel the future.

    The value is pickled once, when it is set, and everybody gets a copy of his own. So it is with an exception; one
    that does not survive pickling comes as `RemoteError`. What can be had only once, such as the end of a channel
    inside the value, is had by who comes first, and only while the process lives that has set it (else `RuntimeError`).

    Raises `OSError` if memory or descriptors cannot be had, `NotImplementedError` where processes share no memory.
    """

    __slots__ = ("_sends",)
    _kind = _Box

    __hash__ = object.__hash__

    def __new__(cls, *, name: str | None = None) -> Self:
        check_name(name)
        box = _Box.create()
        return cls._made(box, (name, True))

    def _configure(self, *options: Any) -> None:
        self._name, self._sends = options

    def _options(self) -> tuple[Any, ...]:
        return self._name, self._sends

    # ------------------------------------------------------------- setting
    def set_result(self, value: T, /) -> None:
        """Give it its value. Raises `InvalidStateError` if it is done, what its pickling raises if that fails.

        May be called anywhere. Does not wait for anybody; but should another process be stopped (SIGSTOP) right in the
        middle of setting it, for that. `OSError` if there is no memory for a long value: nothing has happened then.
        """
        _set_result(self._used(), self, value)

    def set_exception(self, error: BaseException, /) -> None:
        """End it with `error`, of which every waiter raises a copy. Raises `InvalidStateError` if it is done."""
        _set_exception(self._used(), self, error)

    def cancel(self) -> bool:
        """End it with `FutureCancelled`. Returns False, and does nothing, if it is done."""
        box = self._used()
        return bool(now_or_after(lambda: box.settle(CANCELLED), not box.state))

    # ------------------------------------------------------------- waiting and asking
    def wait(self) -> Op[T]:
        """Wait for the result: its value, or its exception, raised.

        Raises `BrokenFuture` if it was promised (`open_process_future`) and the last promise is dropped, or died with
        its process.
        """
        return _Settled(self, self._channel)

    def __op__(self) -> Op[T]:
        return self.wait()

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait().__await__()

    def result(self, timeout: float | None = None) -> T:
        """The result, for a thread that may block: up to `timeout` seconds, None without limit.

        Raises the future's exception, or `TimeoutError` if it is not done in time. On the thread of an event loop
        it gives the result of a future that is done, and raises `RuntimeError` otherwise.
        """
        if self.done():
            return self._outcome(self._used())  # type: ignore[no-any-return]
        return self.wait().sync(timeout)

    def exception(self) -> BaseException | None:
        """A copy of the exception it ended with, or None; raises `InvalidStateError` if it is not done."""
        if not self.done():
            raise InvalidStateError(f"{self!r} is not done yet")
        return self._error(self._used())

    def _outcome(self, box: _Box) -> Any:
        error = self._error(box)
        if error is None:
            return decode(Record(box.body(), 0, False), None)
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _error(self, box: _Box) -> BaseException | None:
        state = box.state
        if state == CANCELLED:
            return FutureCancelled(f"{self!r} was cancelled")
        if state == BROKEN:
            return BrokenFuture(f"the promise of {self!r} was dropped unset, or its process has died")
        return unpack_error(box.body()) if state == FAILED else None

    def done(self) -> bool:
        """Whether it has a result, an exception, was cancelled, or is broken."""
        box = self._channel
        if not box.state and self._open and box.broken():
            now_or_after(lambda: box.settle(BROKEN), False)
        return bool(box.state)

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._channel.state == CANCELLED

    def statistics(self) -> FutureStatistics:
        """A snapshot; never blocks. Who waits is of this process."""
        return FutureStatistics(waiting=self._channel.inbound._waiting(), done=bool(self._channel.state))

    def _state(self) -> str:
        return f" {_NAMES[self._channel.state]}"


class ProcessPromise(GatedHandle[_Box], Generic[T]):
    """The side of a future that sets it. When the last one is dropped, or dies, without a result, waiters get
    `BrokenFuture`.

    It can be given to other processes; there it is one more, and this one should be dropped or closed.
    """

    __slots__ = ()
    _kind = _Box
    _receives = False

    def set_result(self, value: T, /) -> None:
        """As `ProcessFuture.set_result`."""
        _set_result(self._used(), self, value)

    def set_exception(self, error: BaseException, /) -> None:
        """As `ProcessFuture.set_exception`."""
        _set_exception(self._used(), self, error)

    def _state(self) -> str:
        return f" {_NAMES[self._channel.state]}"


def open_process_future(*, name: str | None = None) -> tuple[ProcessPromise[Any], ProcessFuture[Any]]:
    """A promise and its future: the form in which it is noticed that nobody will ever set it."""
    check_name(name)
    box = _Box.create({PROMISED: 1})
    ends = ProcessPromise[Any]._shut_one(box, (name,)), ProcessFuture[Any]._shut_one(box, (name, False))
    box.open(ends)
    return ends


class _Settled(GateLeaf[T_co]):
    __slots__ = ("_box",)

    def __init__(self, via: ProcessFuture[Any], box: _Box) -> None:
        super().__init__(via, box.inbound)
        self._box = box

    def _seems_ready(self, port: Port) -> bool:
        return bool(self._box.state)

    def _try(self, port: Port) -> Any:
        box = self._box
        return True if box.state or box.broken() else PENDING

    def _finish(self, got: Any) -> Any:
        box, via = self._box, cast("Any", self._via)
        if not box.state:
            box.settle(BROKEN)  # unless somebody has set it in the last moment
        return via._outcome(box)

    def _enqueue(self, port: Port, waiter: Any, /) -> None:
        port._stand(waiter)
        bell = port.bell
        if bell is None or self._box.state:
            waiter.wake_in(0.0)
            return
        self._bell = bell
        waiter.wake_in(HEARTBEAT)
        waiter.wake_readable(bell.fd)

    def _describe(self, port: Port) -> str:
        return f"wait for {self._via!r}"


# ----------------------------------------------------------------- as bytes
def _set_result(box: _Box, via: object, value: Any) -> None:
    data = b"" if box.state else _encoded(value)
    if not now_or_after(lambda: box.settle(DONE, data), True):
        raise InvalidStateError(f"{via!r} is done already")


def _set_exception(box: _Box, via: object, error: Any) -> None:
    given: Any = error
    if isinstance(given, type) and issubclass(given, BaseException):
        given = given()
    if not isinstance(given, BaseException) or isinstance(given, StopIteration):
        raise TypeError(f"set_exception() takes an exception that is no StopIteration, not {error!r}")
    packed = pack_error(given, __name__)
    if not now_or_after(lambda: box.settle(FAILED, packed), True):
        raise InvalidStateError(f"{via!r} is done already")


def _encoded(value: Any) -> bytearray:
    message = encode(value, None)
    if type(message) is not Message or message.courier is not None:
        # What a message carries goes to one receiver. Here the broker keeps it until somebody comes for it.
        if type(message) is Message:
            message.abandon()
        message = Message(PICKLE, pickle.dumps(value, 5), [], None)
    data = bytearray(UNIT * message.units)
    write(memoryview(data), 0, message, 0)
    return data
