"""Broadcast: against a sequential model, and random programs in every world.

In the model every value has a number, and a subscription is the number of the value that it gets next. That is enough
to say what is kept, who lags by how much, and who may send.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from programs import Parked, Stepped, delivered, explore, explore_machine, mixed, play, sizes
from worlds import REARMS, World, settle

from chanlib import (
    Broadcast,
    BrokenChannel,
    ChannelEmpty,
    ChannelError,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    Lagged,
    Op,
    Subscription,
    WouldBlock,
    select,
)

# ===================================================================== the model


@dataclass(eq=False)
class Reader:
    """A subscription: the real one, and the number of the value that it gets next."""

    real: Subscription[int] | None
    at: int
    open: bool = True
    timed: bool = False  # has it been received from within a time limit?


several = st.integers(1, 3)


class BroadcastMachine(Stepped):
    @initialize(
        capacity=st.sampled_from([1, 2, 2, 3, math.inf]),
        overflow=st.sampled_from(["lag", "wait"]),
        replay=st.integers(0, 3),
    )
    def begin(self, capacity: float, overflow: Any, replay: int) -> None:
        self.capacity, self.lags, self.replay = capacity, overflow == "lag", int(min(replay, capacity))
        self.real = Broadcast[int](capacity, overflow=overflow, replay=self.replay)
        self.values: list[int] = []  # all that were sent: the place is the number
        self.readers: list[Reader] = []
        self.senders: list[Parked] = []
        self.closed = False
        self.cause: BaseException | None = None
        self.bell = Event()

    # ------------------------------------------------------------- the model
    def oldest(self, reader: Reader) -> int:
        """The number of the first value that is still there for it."""
        return int(max(reader.at, len(self.values) - self.capacity)) if self.lags else reader.at

    def full(self) -> bool:
        slowest = min((reader.at for reader in self.readers), default=len(self.values))
        return not self.lags and len(self.values) - slowest >= self.capacity

    def kept(self) -> int:
        wanted = [max(len(self.values) - self.replay, 0), *[self.oldest(reader) for reader in self.readers]]
        return len(self.values) - min(wanted)

    def serve(self) -> None:
        while self.senders and not self.full():
            first = self.senders.pop(0)
            first.served = True
            self.values.append(first.value)

    def expect(self, reader: Reader) -> Any:
        """What the next receive of this reader gives: a value, an error, or None."""
        if not reader.open:
            return HandleClosed
        missed = self.oldest(reader) - reader.at
        if missed:
            reader.at += missed
            return Lagged(missed)
        if reader.at < len(self.values):
            reader.at += 1
            value = self.values[reader.at - 1]
            self.serve()
            return value
        if self.closed:
            return EndOfChannel if self.cause is None else BrokenChannel
        return None

    def compare(self, expected: Any, result: Any, error: BaseException | None) -> None:
        if isinstance(expected, Lagged):
            assert type(error) is Lagged
            assert error.missed == expected.missed
        elif isinstance(expected, type):
            assert type(error) is expected
            assert error.channel is self.real
            if expected is not HandleClosed:
                assert error.cause is self.cause
        else:
            assert error is None
            assert result == expected

    def expect_some(self, reader: Reader, most: int) -> Any:
        values: list[int] = []
        while len(values) < most:
            if values and not (reader.open and self.oldest(reader) == reader.at < len(self.values)):
                break
            got = self.expect(reader)
            if not isinstance(got, int):
                return got
            values.append(got)
        return values

    # ------------------------------------------------------------- rules
    @rule(form=st.sampled_from(["op", "within", "select"]))
    def send(self, form: str) -> None:
        value = next(self.fresh)
        waits = self.full() and not self.closed
        party = self.perform(self.shape(self.real.send(value), form), kind="send", form=form, value=value, ended=False)
        if waits:
            assert party not in self.ran, "it did not wait for the slowest"
            self.parked.append(party)
            self.senders.append(party)
        else:
            self.ran.remove(party)
            if self.closed:
                assert type(party.error) is HandleClosed
                assert party.error.cause is self.cause
            else:
                assert party.error is None
                self.values.append(value)
            self.settle()

    @precondition(lambda self: getattr(self, "readers", None))
    @rule(place=st.integers(0, 5), many=st.integers(0, 3), form=st.sampled_from(["op", "within", "select"]))
    def receive(self, place: int, many: int, form: str) -> None:
        """Of `many` at a time, or by the form for one."""
        reader = self.readers[place % len(self.readers)]
        assert reader.real is not None
        op: Op[Any] = reader.real.receive_some(many) if many else reader.real.receive()
        reader.timed = reader.timed or form == "within"
        party = self.perform(self.shape(op, form), kind="receive", form=form, reader=reader, many=many)
        if party in self.ran:
            self.ran.remove(party)
            self.follow_receive(party)
            self.settle()
        else:
            self.parked.append(party)
            assert self.expect(reader) is None, "it waits for what is there"

    def shape(self, op: Op[Any], form: str) -> Op[Any]:
        if form == "within":
            return op.within(3600)
        if form == "select":
            return select(op, self.bell, biased=True).map(lambda pair: pair[1] if pair[0] == 0 else self.bell)
        return op

    @precondition(lambda self: getattr(self, "readers", None) is not None and len(self.readers) < 5)
    @rule()
    def subscribe(self) -> None:
        self.readers.append(Reader(self.real.subscribe(), max(len(self.values) - self.replay, 0)))

    @precondition(lambda self: any(party.form == "select" for party in self.parked))
    @rule()
    def ring(self) -> None:
        self.bell.set()
        self.step()
        for party in list(self.ran):
            assert party.result is self.bell
            self.ran.remove(party)
            self.parked.remove(party)
            if party.kind == "send":
                self.senders.remove(party)
        self.bell.clear()
        self.settle()

    scripts = st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "send", "receive", "receive", "receive_some", "leave", "drop", "cancel"]),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=6,
    )

    @rule(script=scripts)
    def act(self, script: list[tuple[str, int]]) -> None:
        """All at a stroke."""
        for name, argument in script:
            getattr(self, f"do_{name}")(argument)
        self.settle()

    @rule(chance=st.integers(0, 5), fails=st.booleans(), script=scripts)
    def close(self, chance: int, fails: bool, script: list[tuple[str, int]]) -> None:
        if chance == 0:
            cause = ValueError("why") if fails else None
            assert self.real.close(cause) is (not self.closed)
            if not self.closed:
                self.closed, self.cause = True, cause
                for party in self.senders:
                    party.ended = True
                self.senders.clear()
        self.act(script)

    def do_send(self, _: int) -> None:
        value = next(self.fresh)
        try:
            self.real.send_nowait(value)
        except ChannelFull:
            assert self.full()
            assert not self.closed
        except HandleClosed:
            assert self.closed
        else:
            assert not self.closed
            assert not self.full()
            self.values.append(value)

    def do_receive(self, place: int) -> None:
        self.poll(place, 0)

    def do_receive_some(self, place: int) -> None:
        self.poll(place, 2)

    def poll(self, place: int, many: int) -> None:
        if not self.readers:
            return
        reader = self.readers[place % len(self.readers)]
        assert reader.real is not None
        result = error = None
        try:
            result = reader.real.receive_some(many).poll() if many else reader.real.receive_nowait()
        except ChannelEmpty:
            assert self.expect(reader) is None
            return
        except ChannelError as failure:
            error = failure.with_traceback(None)
        self.compare(self.expect_some(reader, many) if many else self.expect(reader), result, error)

    def do_leave(self, place: int) -> None:
        self.leave(place, True)

    def do_drop(self, place: int) -> None:
        reader = self.readers[place % len(self.readers)] if self.readers else None
        if reader is not None and not any(party.kind == "receive" and party.reader is reader for party in self.parked):
            self.leave(place, False)  # else they keep it alive
            if reader.timed:
                gc.collect()  # an operation with a time limit is a cycle, in which the subscription hangs

    def leave(self, place: int, closing: bool) -> None:
        if self.readers:
            reader = self.readers.pop(place % len(self.readers))
            if closing:
                assert reader.real is not None
                assert reader.real.close() is True
                assert reader.real.close() is False
            reader.real = None
            reader.open = False
            self.serve()

    def do_cancel(self, place: int) -> None:
        self.cancel_some([place])

    # ------------------------------------------------------------- what became of the parked
    def settle(self) -> None:
        while True:
            self.step()
            ran, self.ran = self.ran, []
            if not ran:
                break
            for party in ran:
                self.parked.remove(party)
                if party.kind == "send":
                    self.follow_send(party)
                else:
                    self.follow_receive(party)
        for party in self.parked:
            assert not party.cancelled
            if party.kind == "send":
                assert not party.served, "it was sent, and its sender sleeps"
                assert not party.ended, "its sender sleeps past the end"
            else:
                reader = party.reader
                assert reader.open, "one sleeps at a subscription that is closed"
                assert reader.at == len(self.values) == self.oldest(reader), "one sleeps beside what is there"
                assert not self.closed

    def follow_send(self, party: Parked) -> None:
        if party in self.senders:
            assert party.cancelled, "it went on, though nobody served it"
            self.senders.remove(party)
        if party.cancelled and not (party.served and REARMS):
            assert type(party.error) is asyncio.CancelledError
            assert delivered(party.error) == party.served
        elif party.ended:
            assert type(party.error) is HandleClosed
        else:
            assert party.served
            assert party.error is None

    def follow_receive(self, party: Parked) -> None:
        if party.cancelled:
            assert type(party.error) is asyncio.CancelledError  # and it took nothing
        elif party.many:
            self.compare(self.expect_some(party.reader, party.many), party.result, party.error)
        else:
            self.compare(self.expect(party.reader), party.result, party.error)

    # ------------------------------------------------------------- always
    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "real"):
            return
        now = self.real.statistics()
        assert now.sent == len(self.values)
        assert now.buffered == self.kept()
        assert now.buffered <= self.capacity
        assert now.subscribers == len(self.readers)
        assert now.waiting_senders == len(self.senders)
        assert now.waiting_receivers == sum(party.kind == "receive" for party in self.parked)
        for reader in self.readers:
            assert reader.real is not None
            seen = reader.real.statistics()
            assert seen.missed == self.oldest(reader) - reader.at
            assert seen.pending == len(reader.real) == len(self.values) - self.oldest(reader)


@sizes(60, 500)
def test_a_broadcast_behaves_as_its_sequential_model(examples: int) -> None:
    explore_machine(BroadcastMachine, examples)


# ===================================================================== programs


@dataclass(frozen=True)
class Listener:
    """One who subscribes, gets so many values by these forms, and leaves; or stays to the end."""

    after: int  # values that were sent
    many: int
    forms: list[str]
    stays: bool
    shares: bool  # the subscription of all who share


@dataclass(frozen=True)
class Program:
    capacity: float
    overflow: Any
    replay: int
    senders: list[list[tuple[str, float | None]]]
    listeners: list[Listener]
    cuts: list[tuple[int, Any]]


patience = st.sampled_from([None, None, 0.0, 3e-4])
programs = st.builds(
    Program,
    capacity=st.sampled_from([1, 2, 3, math.inf]),
    overflow=st.sampled_from(["lag", "wait"]),
    replay=st.integers(0, 3),
    senders=st.lists(
        st.lists(st.tuples(st.sampled_from(["send", "send", "nowait", "select"]), patience), min_size=3, max_size=10),
        min_size=1,
        max_size=3,
    ),
    listeners=st.lists(
        st.builds(
            Listener,
            after=st.integers(0, 4),
            many=st.integers(1, 12),
            forms=st.lists(
                st.sampled_from(["receive", "receive", "some", "nowait", "within", "select"]), min_size=1, max_size=4
            ),
            stays=st.booleans(),
            shares=st.sampled_from([False, False, True]),
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.tuples(st.integers(0, 20), st.one_of(st.integers(0, 7), st.just("close"))), max_size=3),
)


class Story:
    """What a program did. All values in the order in which they were sent are what a listener of our own has got."""

    def __init__(self, program: Program) -> None:
        self.program = program
        replay = int(min(program.replay, program.capacity))
        self.news = Broadcast[tuple[int, int]](program.capacity, overflow=program.overflow, replay=replay)
        self.accepted: list[tuple[int, int]] = []
        self.heard: list[list[Any]] = [[] for _ in program.listeners]  # values, and numbers that were missed
        self.late: dict[int, int] = {}  # how many had been sent when it began to subscribe
        self.early: dict[int, int] = {}  # and when it had
        self.closes = False
        self.shared = self.news.subscribe()
        self.everything = self.news.subscribe()
        self.order: list[Any] = []
        self.left = len(program.senders)
        self.lock = threading.Lock()

    def run(self, places: Sequence[World]) -> None:
        senders = [partial(self.send, n) for n in range(len(self.program.senders))]
        listeners = [partial(self.listen, n) for n in range(len(self.program.listeners))]
        cuts = [(turn, self.news.close if what == "close" else what) for turn, what in self.program.cuts]
        if not any(listener.shares for listener in self.program.listeners):
            self.shared.close()  # or senders would wait for it
        # our own is last, and no cut means it
        count = len(senders) + len(listeners)
        cuts = [(turn, what if callable(what) else what % count) for turn, what in cuts]
        play(places, [*senders, *listeners, self.listen_to_everything], cuts, calm=self.calm, finish=self.finish)
        self.check()

    async def listen_to_everything(self) -> None:
        await self.hear(self.everything, self.order, ["receive"], math.inf)

    async def send(self, me: int) -> None:
        try:
            for number, (kind, limit) in enumerate(self.program.senders[me]):
                item = (me, number)
                try:
                    if kind == "nowait":
                        self.news.send_nowait(item)
                    else:
                        op: Op[Any] = self.news.send(item)
                        if kind == "select":
                            op = select(op, Event())
                        await (op if limit is None else op.within(limit))
                except (TimeoutError, ChannelError):
                    continue
                except BaseException as error:
                    if delivered(error):
                        self.accepted.append(item)
                    raise
                self.accepted.append(item)
        finally:
            with self.lock:
                self.left -= 1

    async def listen(self, me: int) -> None:
        listener = self.program.listeners[me]
        heard = self.heard[me]
        await settle(lambda: len(self.accepted) >= listener.after or not self.left or self.news.is_closed)
        most = math.inf if listener.stays else listener.many
        if listener.shares:
            await self.hear(self.shared, heard, listener.forms, most)
            return
        self.late[me] = self.news.statistics().sent
        with self.news.subscribe() as mine:
            self.early[me] = self.news.statistics().sent
            await self.hear(mine, heard, listener.forms, most)

    async def hear(self, mine: Subscription[Any], heard: list[Any], forms: list[str], most: float) -> None:
        waits = False
        for form in itertools.cycle(forms):
            if len(heard) >= most:
                return
            if waits:
                form, waits = "receive", False
            try:
                if form == "some":
                    heard.extend(await mine.receive_some(2))
                elif form == "nowait":
                    heard.append(mine.receive_nowait())
                elif form == "within":
                    heard.append(await mine.receive().within(1e-5))
                elif form == "select":
                    heard.append((await select(Event(), mine))[1])
                else:
                    heard.append(await mine.receive())
            except Lagged as lagged:
                assert self.program.overflow == "lag"
                heard.append(lagged.missed)
            except (ChannelEmpty, TimeoutError):
                waits = True  # the next time, instead of asking for ever
            except (EndOfChannel, HandleClosed):
                return

    # ------------------------------------------------------------- what must hold
    def calm(self) -> bool:
        """Nobody waits to receive but those who have got everything."""
        return not self.everything.statistics().pending

    def finish(self) -> None:
        self.shared.close()
        self.news.close()

    def check(self) -> None:
        total = self.news.statistics().sent
        assert total == len(self.accepted) == len(set(self.accepted))
        assert self.news.statistics().waiting_senders == self.news.statistics().waiting_receivers == 0
        order = self.numbered(self.order, 0)
        assert total == sum(item if isinstance(item, int) else 1 for item in self.order)
        assert set(order.values()) <= set(self.accepted)
        for me, heard in enumerate(self.heard):
            if me not in self.late or not heard:
                continue
            self.check_listener(me, heard, order, total)
        shared = [item for me, heard in enumerate(self.heard) if me not in self.late for item in heard]
        values = [item for item in shared if not isinstance(item, int)]
        assert len(set(values)) == len(values), "two who share a subscription got the same value"
        assert len(values) + sum(item for item in shared if isinstance(item, int)) <= total
        for n in range(len(self.program.senders)):
            mine = [number for _, (producer, number) in sorted(order.items()) if producer == n]
            assert mine == sorted(mine)

    def numbered(self, heard: list[Any], at: int) -> dict[int, Any]:
        """The values by their numbers, if the first one that it got or missed was number `at`."""
        found: dict[int, Any] = {}
        for item in heard:
            if isinstance(item, int):
                at += item
            else:
                found[at] = item
                at += 1
        return found

    def check_listener(self, me: int, heard: list[Any], order: dict[int, Any], total: int) -> None:
        replay = int(min(self.program.replay, self.program.capacity))
        starts = range(max(self.late[me] - replay, 0), max(self.early[me] - replay, 0) + 1)
        fitting = [
            start
            for start in starts
            if all(order.get(number, item) == item for number, item in self.numbered(heard, start).items())
        ]
        assert fitting, f"{heard} is no contiguous part of {order} from one of {starts} on"


def story_holds(places: Sequence[World], program: Program) -> None:
    Story(program).run(places)


@sizes(60, 300)
def test_each_subscriber_gets_a_contiguous_part_of_what_is_sent(world: World, examples: int) -> None:
    explore([world], story_holds, programs, examples)


@mixed
@sizes(40, 200)
def test_each_subscriber_in_another_world_gets_a_contiguous_part(places: list[World], examples: int) -> None:
    explore(places, story_holds, programs, examples)


# ===================================================================== what the machine has found


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="elsewhere only a collector tells that it was dropped")
def test_a_subscription_that_was_used_within_a_time_limit_is_left_as_soon_as_it_is_dropped() -> None:
    """As without a limit: its broadcast must not wait for a collector."""
    news = Broadcast[int](1, overflow="wait")
    mine = news.subscribe()
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(WouldBlock):
            mine.receive().within(0.001).poll()
        assert news.statistics().subscribers == 1
        del mine
        assert news.statistics().subscribers == 0
    finally:
        gc.enable()
