"""Re-entrancy: code that runs in the middle of an operation and uses the very same channel.

A finalizer run by the garbage collector, a weakref callback and a signal handler may all run while this very thread
is inside the locked section of a channel. The tests below do not wait for that to happen: a trace function that sees
each bytecode executed inside the package makes the call at the first, the second, ... of them in turn, until the
operation is over before it is reached. A finalizer may really run at (almost) any of them, since it runs wherever
a reference is dropped; a signal handler runs only where the interpreter looks for signals, which is why the signal is
made pending at each bytecode and the handler left to the interpreter.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import trio
import trio.testing
from elsewhere import Stranger

import chanlib
from chanlib import (
    Channel,
    ChannelClosed,
    ChannelFull,
    Event,
    Future,
    HandleClosed,
    InvalidStateError,
    WouldBlock,
    select,
)

PACKAGE = os.path.dirname(os.path.abspath(chanlib.__file__)) + os.sep
LATE = 50  # the value sent by the call in the middle; it may come before or after any other


class Steps:
    """Calls `act` before the bytecode number `at` that this thread executes inside the package."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.left = at
        self.act: Callable[[], object] | None = act

    @property
    def reached(self) -> bool:
        return self.act is None

    def __enter__(self) -> Self:
        self.before = sys.gettrace()
        # Some versions look whether anybody wants opcodes when the trace function is set
        frame = sys._getframe()
        frame.f_trace = _no_trace
        frame.f_trace_opcodes = True
        self.keep = self.enter, self.step  # the interpreter only borrows them while it calls them
        sys.settrace(self.keep[0])
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def enter(self, frame: Any, event: str, arg: object) -> Any:
        if self.act is None or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        step = self.keep[1]
        frame.f_trace = step
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return step(frame, event, arg)

    def step(self, frame: Any, event: str, arg: object) -> Any:
        act = self.act
        if act is not None and (event == "opcode" or event == "call"):
            if not self.left:
                self.act = None
                sys.settrace(None)  # else a pending signal would be found in the next call of this very function
                act()
            self.left -= 1
        return self.keep[1]


def _no_trace(*_: object) -> None:
    return None


def steps(stride: int, offset: int = 0) -> Iterator[int]:
    return itertools.count(offset % stride, stride)


class Fuse(weakref.ref):  # type: ignore[type-arg]
    """Makes SIGUSR1 pending when its referent dies, without executing a bytecode: the handler runs wherever the
    interpreter next looks for signals, which is not in the trace function."""

    __index__ = ((0,) * signal.SIGUSR1).__len__


class Referent:
    pass


def pending_signal() -> None:
    referent = Referent()
    fuses.append(Fuse(referent, _thread.interrupt_main))


fuses: list[Fuse] = []


@contextmanager
def handler(act: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: act())
    fuses.clear()
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Yard:
    """A channel and tasks parked on it, on a loop that stands still while the main thread operates."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stranger: Stranger, capacity: int):
        self.loop = loop
        self.stranger = stranger
        self.undelivered: list[int] = []
        self.channel: Channel[int] = Channel(capacity, on_undelivered=self.undelivered.append)
        self.quiet: Channel[int] = Channel(1)
        self.sent: list[int] = []  # taken by the channel, as far as the sender knows
        self.received: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def fill(self, *values: int) -> None:
        for value in values:
            self.channel.send_nowait(value)
            self.sent.append(value)

    def senders(self, *values: int) -> None:
        async def send(value: int) -> None:
            try:
                await self.channel.send(value)
            except (HandleClosed, asyncio.CancelledError):
                return
            self.sent.append(value)

        self._park(send(value) for value in values)

    def receivers(self, count: int) -> None:
        async def receive() -> None:
            try:
                self.received.append(await self.channel.receive())
            except (ChannelClosed, asyncio.CancelledError):
                pass

        self._park(receive() for _ in range(count))

    def selects(self, count: int) -> None:
        async def choose() -> None:
            try:
                arm, value = await select(self.channel.receive(), self.quiet.receive())
            except (ChannelClosed, asyncio.CancelledError):
                return
            assert arm == 0
            self.received.append(value)

        self._park(choose() for _ in range(count))

    def _park(self, coroutines: Any) -> None:
        for coroutine in coroutines:  # one by one: one whose turn is over would come after the next
            self.tasks.append(self.loop.create_task(coroutine))
            self.settle()

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        if not self.tasks:
            return

        self.loop.run_until_complete(turns())

    # ------------------------------------------------------- the operations under test, and those in the middle
    def send(self, value: int) -> None:
        try:
            self.channel.send_nowait(value)
        except (ChannelFull, HandleClosed):
            return
        self.sent.append(value)

    def poll_send(self, value: int) -> None:
        try:
            self.channel.send(value).poll()
        except (ChannelFull, HandleClosed):
            return
        self.sent.append(value)

    def receive(self) -> None:
        try:
            self.received.append(self.channel.receive_nowait())
        except (WouldBlock, ChannelClosed):
            pass

    def receive_some(self) -> None:
        try:
            self.received += self.channel.receive_some(2).poll()
        except (WouldBlock, ChannelClosed):
            pass

    def sync_send(self, value: int) -> None:
        try:
            self.channel.send(value).sync(timeout=0)
        except (TimeoutError, HandleClosed):
            return
        self.sent.append(value)

    def sync_receive(self) -> None:
        try:
            self.received.append(self.channel.receive().sync(timeout=0))
        except (TimeoutError, ChannelClosed):
            pass

    def sync_select(self) -> None:
        try:
            self.received.append(select(self.channel.receive(), self.quiet.receive()).sync(timeout=0)[1])
        except (TimeoutError, ChannelClosed):
            pass

    def poll_select(self) -> None:
        try:
            arm, value = select(self.quiet.receive(), self.channel.receive()).poll()
        except (WouldBlock, ChannelClosed):
            return
        assert arm == 1
        self.received.append(value)

    def look(self) -> None:
        self.channel.statistics()
        repr(self.channel)
        len(self.channel)

    # ------------------------------------------------------- what must hold in the end
    def audit(self) -> None:
        """Whatever the channel took is in exactly one place, in order, and nobody waits for what is there."""
        channel = self.channel
        self.settle()
        found = channel.statistics()
        assert not (found.waiting_receivers and (found.buffered or found.waiting_senders)), found
        assert not (found.waiting_senders and found.buffered < found.capacity), found
        assert found.buffered <= found.capacity, found
        if channel.is_closed:
            assert found.waiting_senders == found.waiting_receivers == 0, found
        taken_before = list(self.received)
        # By another thread: it would wait for ever for a lock that was not let go
        rest = self.stranger.ask(channel.drain)
        self.settle()
        for task in self.tasks:
            task.cancel()
        self.settle()
        for task in self.tasks:
            assert task.done()
            assert task.cancelled() or task.exception() is None
        places = sorted([*self.received, *rest, *self.undelivered])
        assert places == sorted(self.sent), (self.received, rest, self.undelivered, self.sent)
        in_turn = [value for value in rest if value != LATE]
        assert in_turn == sorted(in_turn)
        if in_turn:
            assert all(value < in_turn[0] for value in taken_before if value != LATE)
        assert channel.statistics()[2:4] == (0, 0)
        assert self.quiet.statistics()[2:4] == (0, 0)


def _empty(yard: Yard) -> None:
    pass


def _some(yard: Yard) -> None:
    yard.fill(1)


def _full(yard: Yard) -> None:
    yard.fill(1, 2)


def _senders(yard: Yard) -> None:
    yard.fill(*range(1, yard.channel.capacity + 1))  # type: ignore[arg-type]
    yard.senders(10, 11)


def _receivers(yard: Yard) -> None:
    yard.receivers(2)


def _selects(yard: Yard) -> None:
    yard.selects(2)


SETUPS = {
    "empty": (2, _empty),
    "some": (2, _some),
    "full": (2, _full),
    "senders": (2, _senders),
    "rendezvous senders": (0, _senders),
    "receivers": (2, _receivers),
    "rendezvous receivers": (0, _receivers),
    "selects": (1, _selects),
}
OPERATIONS: dict[str, Callable[[Yard], object]] = {
    "send_nowait": lambda yard: yard.send(100),
    "send poll": lambda yard: yard.poll_send(100),
    "send sync": lambda yard: yard.sync_send(100),
    "receive": Yard.receive,
    "receive_some": Yard.receive_some,
    "receive sync": Yard.sync_receive,
    "select sync": Yard.sync_select,
    "select poll": Yard.poll_select,
    "close": lambda yard: yard.channel.close(),
    "cancel": lambda yard: yard.channel.cancel(),
}
INTRUSIONS: dict[str, Callable[[Yard], object]] = {
    "send_nowait": lambda yard: yard.send(LATE),
    "send poll": lambda yard: yard.poll_send(LATE),
    "receive": Yard.receive,
    "select poll": Yard.poll_select,
    "close": lambda yard: yard.channel.close(),
    "cancel": lambda yard: yard.channel.cancel(),
    "look": Yard.look,
}


def intrude_everywhere(
    make: Callable[[], Yard],
    operation: Callable[[Yard], object],
    intrusion: Callable[[Yard], object],
    by_signal: bool,
    at: Iterator[int],
) -> None:
    """`operation` on a fresh yard, again and again, with `intrusion` one place later each time."""
    for step in at:
        yard = make()
        calls = []

        def act(yard: Yard = yard, calls: list[int] = calls) -> None:
            calls.append(1)
            intrusion(yard)

        with handler(act), Steps(step, pending_signal if by_signal else act) as traced:
            operation(yard)
        yard.audit()
        if not traced.reached:
            assert not calls
            return
        assert calls == [1]
        if intrusion in (INTRUSIONS["close"], INTRUSIONS["cancel"]):
            assert yard.channel.is_closed


MEETINGS = [  # where the operation meets something
    ("send_nowait", "empty"),
    ("send_nowait", "receivers"),
    ("send_nowait", "selects"),
    ("send poll", "rendezvous receivers"),
    ("send sync", "some"),
    ("send sync", "full"),
    ("receive", "some"),
    ("receive", "senders"),
    ("receive", "rendezvous senders"),
    ("receive_some", "senders"),
    ("receive sync", "full"),
    ("receive sync", "empty"),
    ("select sync", "empty"),
    ("select sync", "senders"),
    ("select poll", "rendezvous senders"),
    ("close", "senders"),
    ("close", "receivers"),
    ("close", "selects"),
    ("cancel", "senders"),
]


@pytest.mark.parametrize(("operation", "setup"), MEETINGS)
def test_a_call_in_the_middle_of_an_operation_neither_blocks_nor_loses_nor_doubles_a_value(
    operation: str, setup: str, loop: asyncio.AbstractEventLoop, stranger: Stranger
) -> None:
    _intrude(setup, operation, 67, loop, stranger)


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_call_at_any_bytecode_of_an_operation_does_no_harm(
    operation: str, loop: asyncio.AbstractEventLoop, stranger: Stranger
) -> None:
    stride = 7 if "select" in operation else 3  # of the fourteen runs each begins somewhere else
    for setup in SETUPS:
        _intrude(setup, operation, stride, loop, stranger)


def _intrude(
    setup: str,
    operation: str,
    stride: int,
    loop: asyncio.AbstractEventLoop,
    stranger: Stranger,
) -> None:
    capacity, prepare = SETUPS[setup]

    def make() -> Yard:
        yard = Yard(loop, stranger, capacity)
        prepare(yard)
        return yard

    offset = 0
    for intrusion in INTRUSIONS.values():
        for by_signal in (False, True):
            # another offset for each, so that a stride leaves out no bytecode for all of them
            offset += 11
            intrude_everywhere(make, OPERATIONS[operation], intrusion, by_signal, steps(stride, offset))


# ----------------------------------------------------------------- events and futures
def _until_waiting(loop: asyncio.AbstractEventLoop, what: Any, count: int) -> None:
    for _ in range(5):
        if what.statistics().waiting < count:
            loop.run_until_complete(asyncio.sleep(0))
    assert what.statistics().waiting == count


@pytest.mark.parametrize("by_signal", [False, True])
@pytest.mark.parametrize("operation", ["wait", "set", "clear"])
def test_an_event_set_in_the_middle_of_its_own_operations_wakes_everybody(
    operation: str, by_signal: bool, loop: asyncio.AbstractEventLoop, stranger: Stranger
) -> None:
    def operate(event: Event) -> None:
        if operation == "wait":
            try:
                event.wait().sync(timeout=0)
            except TimeoutError:
                pass
        else:
            getattr(event, operation)()

    for step in steps(3):
        event = Event()
        woken: list[int] = []

        async def wait(number: int, event: Event = event, woken: list[int] = woken) -> None:
            await event.wait()
            woken.append(number)

        tasks = []
        for number in range(3):
            tasks.append(loop.create_task(wait(number)))
            _until_waiting(loop, event, number + 1)
        assert event.statistics().waiting == 3
        with handler(event.set), Steps(step, pending_signal if by_signal else event.set) as traced:
            operate(event)
        stranger.ask(event.wait().poll if event.is_set() else event.set)
        if traced.reached or operation == "set":
            loop.run_until_complete(asyncio.wait(tasks, timeout=20))
            assert woken == [0, 1, 2]
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        assert event.statistics().waiting == 0
        if not traced.reached:
            return


@pytest.mark.parametrize("by_signal", [False, True])
@pytest.mark.parametrize("operation", ["wait", "set_result", "cancel", "add_done_callback"])
def test_a_future_set_in_the_middle_of_its_own_operations_has_one_outcome_for_everybody(
    operation: str, by_signal: bool, loop: asyncio.AbstractEventLoop, stranger: Stranger
) -> None:
    def operate(future: Future[int], told: list[object]) -> None:
        if operation == "wait":
            try:
                future.wait().sync(timeout=0)
            except TimeoutError:
                pass
        elif operation == "set_result":
            try:
                future.set_result(1)
            except InvalidStateError:
                pass
        elif operation == "cancel":
            future.cancel()
        else:
            future.add_done_callback(told.append)

    def intrude(future: Future[int]) -> None:
        try:
            future.set_result(2)
        except InvalidStateError:
            pass

    for step in steps(3):
        future: Future[int] = Future()
        told: list[object] = []
        future.add_done_callback(told.append)

        async def wait(future: Future[int] = future) -> object:
            return await future

        tasks = [loop.create_task(wait()) for _ in range(3)]
        _until_waiting(loop, future, 3)

        def act(future: Future[int] = future) -> None:
            intrude(future)

        with handler(act), Steps(step, pending_signal if by_signal else act) as traced:
            operate(future, told)
        if not future.done():
            assert not traced.reached
            stranger.ask(future.set_result, 3)
        assert told == [future] * (2 if operation == "add_done_callback" else 1)
        results = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20))
        if future.cancelled():
            assert operation == "cancel"
            assert all(isinstance(result, chanlib.FutureCancelled) for result in results)
        else:
            assert results == [stranger.ask(future.result, 0)] * 3
        if not traced.reached:
            return


# ----------------------------------------------------------------- the garbage collector
class Sends:
    """In a cycle, so that only the collector finds it; it sends when it goes."""

    def __init__(self, send: Callable[[], object]) -> None:
        self.me = self
        self.send = send

    def __del__(self) -> None:
        self.send()


@contextmanager
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what was there before need not be looked at each time
    gc.set_threshold(1, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _finalizers_send(rounds: int) -> None:
    channel: Channel[int] = Channel(8, on_undelivered=lambda value: undelivered.append(value))
    undelivered: list[int] = []
    numbers = itertools.count()
    sent: list[int] = []

    def send() -> None:
        value = next(numbers)
        try:
            channel.send_nowait(value)
        except ChannelFull:
            return
        sent.append(value)

    received: list[int] = []
    with eager_collector():
        for _ in range(rounds):
            Sends(send)
            try:
                received.append(channel.receive_nowait())
            except WouldBlock:
                pass
            Sends(send)
            try:
                received += channel.receive_some(2).sync(timeout=0)
            except TimeoutError:
                pass
            send()
    gc.collect()
    received += channel.drain()
    assert len(received) + len(undelivered) == len(sent) >= rounds
    assert sorted(received + undelivered) == sorted(sent)


def test_finalizers_run_by_an_eager_collector_send_on_the_channel_in_use() -> None:
    _finalizers_send(1_000)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_finalizers_run_by_an_eager_collector_send_on_the_channel_in_use_for_long() -> None:
    _finalizers_send(20_000)


def test_a_finalizer_that_the_collector_runs_at_any_bytecode_of_a_receive_is_served() -> None:
    with eager_collector():
        for step in steps(2):
            channel: Channel[str] = Channel(2)
            channel.send_nowait("first")
            garbage = [Sends(lambda channel=channel: channel.send_nowait("from a finalizer"))]

            def collect(garbage: list[Sends] = garbage) -> None:
                garbage.clear()
                gc.collect()

            with Steps(step, collect) as traced:
                assert channel.receive().poll() == "first"
            assert channel.drain() == ["from a finalizer"] * traced.reached
            if not traced.reached:
                return
            del garbage, collect


def test_a_parked_task_that_the_collector_finds_in_the_middle_of_an_operation_leaves_the_queue(
    stranger: Stranger,
) -> None:
    """Its coroutine is closed there and then, while the lock of the channel it waits on is held."""
    for step in steps(5):
        channel: Channel[str] = Channel(2)
        doomed = channel.receive().__await__()

        async def park(doomed: Any = doomed) -> None:
            # driven by hand: nobody but `holder` keeps it alive
            while next(doomed) is None:  # it gives the loop a turn first
                pass

        asyncio.run(park())
        assert channel.statistics().waiting_receivers == 1
        holder = [doomed]
        del doomed, park

        with Steps(step, holder.clear) as traced:
            channel.send_nowait("news")
        traced_through = traced.reached
        holder.clear()
        assert channel.statistics().waiting_receivers == 0
        assert stranger.ask(channel.drain) == ["news"]
        if not traced_through:
            return


# ----------------------------------------------------------------- values that use the channel when they die
class Value:
    def __init__(self, last: Callable[[], object]) -> None:
        self.last = last

    def __del__(self) -> None:
        self.last()


@pytest.mark.parametrize("end", ["cancel", "drain", "receive"])
def test_a_value_may_use_its_channel_in_its_destructor(end: str) -> None:
    channel: Channel[Any] = Channel(3)
    seen: list[object] = []

    def last() -> None:
        seen.append(channel.statistics().capacity)
        try:
            channel.send_nowait("last words")
        except HandleClosed:
            seen.append("closed")

    channel.send_nowait(Value(last))
    channel.send_nowait(Value(last))
    if end == "cancel":
        assert channel.cancel()
        assert seen.count(3) == 2
        return
    if end == "drain":
        del channel.drain()[:]
    else:
        channel.receive_nowait()
        channel.receive_nowait()
    assert channel.drain() == ["last words", "last words"]


def test_a_value_withdrawn_by_a_timeout_may_use_its_channel_in_its_destructor() -> None:
    channel: Channel[Any] = Channel(0)
    seen: list[object] = []

    def last() -> None:
        with pytest.raises(ChannelFull):
            channel.send_nowait("nobody waits")
        channel.close()
        seen.append(channel.statistics().waiting_senders)

    try:
        channel.send(Value(last)).sync(timeout=0)
    except TimeoutError:
        pass
    gc.collect()
    assert seen == [0]
    assert channel.is_closed


def test_a_weakref_callback_may_use_the_channel_that_lets_go_of_its_value() -> None:
    class Thing:
        pass

    for end in ("cancel", "receive", "drain"):
        channel: Channel[Any] = Channel(2)
        gone: list[object] = []

        def callback(_: object, channel: Channel[Any] = channel, gone: list[object] = gone) -> None:
            gone.append(repr(channel))
            try:
                channel.send_nowait("gone")
            except HandleClosed:
                pass

        thing = Thing()
        watch = weakref.ref(thing, callback)
        channel.send_nowait(thing)
        del thing
        if end == "cancel":
            channel.cancel()
        elif end == "receive":
            channel.receive_nowait()
        else:
            channel.drain()
        assert len(gone) == 1
        assert watch() is None
        if end != "cancel":
            assert channel.drain() == ["gone"]


# ----------------------------------------------------------------- calls that are put off
def test_a_send_put_off_and_then_refused_goes_to_on_undelivered() -> None:
    """Two senders, one place: the one in the middle of the other comes before, or is put off and refused, or after."""
    outcomes = set()
    for step in steps(1):
        undelivered: list[str] = []
        channel: Channel[str] = Channel(1, on_undelivered=undelivered.append)
        refused: list[str] = []

        def send(value: str, channel: Channel[str] = channel, refused: list[str] = refused) -> None:
            try:
                channel.send_nowait(value)
            except ChannelFull:
                refused.append(value)

        with Steps(step, lambda send=send: send("inner")) as traced:
            send("outer")
        if not traced.reached:
            break
        outcome = (channel.drain(), refused, undelivered)
        assert outcome in (
            (["inner"], ["outer"], []),
            (["outer"], [], ["inner"]),
            (["outer"], ["inner"], []),
        )
        outcomes.add(len(undelivered))
    assert outcomes == {0, 1}


def test_calls_put_off_are_made_in_their_order() -> None:
    for step in steps(1):
        channel: Channel[int] = Channel(5)

        def act(channel: Channel[int] = channel) -> None:
            for value in (1, 2, 3):
                channel.send_nowait(value)

        with Steps(step, act) as traced:
            channel.send_nowait(0)
        if not traced.reached:
            return
        assert channel.drain() in ([0, 1, 2, 3], [1, 2, 3, 0])


def test_an_error_in_a_call_put_off_goes_to_the_unraisable_hook_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def fail(value: str) -> None:
        raise ZeroDivisionError(value)

    for step in steps(1):
        channel: Channel[str] = Channel(1, on_undelivered=fail)

        def send(value: str, channel: Channel[str] = channel) -> None:
            try:
                channel.send_nowait(value)
            except ChannelFull:
                pass

        with Steps(step, lambda send=send: send("inner")) as traced:
            send("outer")
        assert len(channel.drain()) == 1
        if not traced.reached:
            break
    assert unraisable
    assert all(found.exc_type is ZeroDivisionError for found in unraisable)


# ----------------------------------------------------------------- looking, while somebody else is inside
def test_looking_at_a_channel_never_waits_for_the_thread_that_is_inside() -> None:
    """Another thread stands still at each bytecode of a send in turn."""
    for step in steps(7):
        channel: Channel[int] = Channel(2, name="jobs")
        event = Event()
        inside, go_on = threading.Event(), threading.Event()

        def stand(inside: threading.Event = inside, go_on: threading.Event = go_on) -> None:
            inside.set()
            go_on.wait(20)

        traces: list[Steps] = []

        def operate(
            channel: Channel[int] = channel,
            event: Event = event,
            traces: list[Steps] = traces,
            step: int = step,
            stand: Callable[[], None] = stand,
            inside: threading.Event = inside,
        ) -> None:
            with Steps(step, stand) as traced:
                traces.append(traced)
                channel.send_nowait(1)
                event.set()
            inside.set()

        thread = threading.Thread(target=operate, daemon=True)
        thread.start()
        assert inside.wait(20)
        looks = Stranger()
        try:
            for look in (
                channel.statistics,
                channel.__repr__,
                channel.__len__,
                lambda channel=channel: channel.is_closed,
                event.statistics,
                event.__repr__,
                event.is_set,
            ):
                looks.ask(look)
        finally:
            go_on.set()
            thread.join(20)
            looks.dismiss()
        assert channel.drain() == [1]
        if not traces[0].reached:
            return


# ----------------------------------------------------------------- trio
def test_a_trio_scope_cancelled_in_the_middle_of_an_operation_ends_the_wait_of_its_task() -> None:
    """trio asks the parked operation to abort there and then, while the lock of its channel is held."""

    async def once(step: int) -> bool:
        channel: Channel[int] = Channel(2)
        outcome: list[str] = []
        errors: list[Exception] = []
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                try:
                    await channel.receive()
                except ChannelClosed:
                    outcome.append("closed")
            if scope.cancelled_caught:
                outcome.append("cancelled")

        def cancel() -> None:
            try:
                scope.cancel()
            except Exception as error:
                errors.append(error)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                with Steps(step, cancel) as traced:
                    channel.close()
        assert not errors
        assert outcome in (["closed"], ["cancelled"])
        assert channel.statistics().waiting_receivers == 0
        return traced.reached

    async def main() -> None:
        for step in steps(3):
            if not await once(step):
                return

    trio.run(main)
