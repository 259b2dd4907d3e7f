"""Random programs on counted ends: the stream ends exactly when it should, and with the right error.

Every actor has ends of one kind, clones them, closes them in all the ways there are, or has them closed while it waits.
What was counted before each close says when nobody may be left, so an end that comes too early shows; one that comes
too late keeps somebody asleep for ever.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from programs import delivered, explore, mixed, out_of_order, play, sizes, turns
from worlds import World

from chanlib import BrokenChannel, ChannelError, EndOfChannel, HandleClosed, Op, Receiver, Sender, open_channel

Item = tuple[int, int]  # actor, number

# a dropped end warns, from a finalizer: that is its job
pytestmark = pytest.mark.filterwarnings("ignore:.*was dropped without close:ResourceWarning")

SENDS = ("send", "send", "send", "send_some", "send_nowait", "reserve", "reserve_and_close", "pause", "pause")
RECEIVES = ("receive", "receive", "receive", "receive_some", "receive_nowait", "iterate", "pause")
ENDINGS = ("clone", "clone", "close", "fail", "leave", "leave_by_error", "drop")


@dataclass(frozen=True)
class Step:
    kind: str
    many: int
    patience: float | None


@dataclass(frozen=True)
class Program:
    capacity: float
    senders: list[list[Step]]
    receivers: list[list[Step]]
    cuts: list[tuple[int, Any]]  # after so many turns: an actor to cancel, or one whose end is closed from outside


def steps(kinds: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        Step,
        kind=st.sampled_from([*kinds, *kinds, *ENDINGS]),
        many=st.integers(1, 3),
        patience=st.sampled_from([None, None, None, 0.0, 3e-4]),
    )
    return st.lists(step, min_size=2, max_size=10)


at = st.integers(1, 12)
programs = st.builds(
    Program,
    capacity=st.sampled_from([0, 1, 2, math.inf]),
    senders=st.lists(steps(SENDS), min_size=1, max_size=4),
    receivers=st.lists(
        st.one_of(st.just([Step("iterate", 1, None)]), steps(RECEIVES), steps(RECEIVES)), min_size=1, max_size=3
    ),
    cuts=st.lists(
        st.one_of(st.tuples(at, st.integers(0, 6)), *[st.tuples(at, st.tuples(st.integers(0, 6)))] * 2), max_size=6
    ),
)


class Boom(Exception):
    """What a stream is closed with."""


class Stream:
    """What a program did, as its actors saw it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.told: list[Item] = []
        self.tx, self.rx = open_channel[Item](program.capacity, on_undelivered=self.told.append)
        self.first: list[Any] = [self.tx.clone() for _ in program.senders]
        self.first += [self.rx.clone() for _ in program.receivers]
        self.tx.close()
        self.rx.close()
        self.held: list[list[Any]] = [[] for _ in self.first]  # the ends that each actor has
        self.lock = threading.Lock()
        self.open = {True: len(program.senders), False: len(program.receivers)}  # ends whose close has not begun
        self.cloning = {True: 0, False: 0}  # of those: not sure whether they will be
        self.closing: dict[int, Any] = {}  # by identity; kept alive for that
        self.evicted: dict[int, Any] = {}  # closed from outside in the middle of the stream
        self.started = [False for _ in self.first]
        self.via: list[Any] = [None for _ in self.first]  # the end through which each of them waits
        self.promised = 0  # permits that are not yet used
        self.causes: list[str] = []
        self.accepted: list[Item] = []
        self.got: list[list[Item]] = [[] for _ in self.first]
        self.given_back = 0
        self.errors: list[ChannelError] = []  # with which the stream ended for receivers

    def run(self, places: Sequence[World]) -> None:
        actors = [partial(self.act, n) for n in range(len(self.first))]
        cuts = [
            (turn, partial(self.shut_from_outside, *what) if isinstance(what, tuple) else what)
            for turn, what in self.program.cuts
        ]
        play(places, actors, cuts, calm=self.calm, finish=self.finish)
        self.check()

    def finish(self) -> None:
        """The ends of those who were cancelled before they began."""
        for end, started in zip(self.first, self.started, strict=True):
            if not started:
                self.shut(end, "close")

    # ------------------------------------------------------------- closing
    def begin(self, end: Any, cause: str | None = None) -> None:
        """It is about to be closed. To be told before, so that whoever sees the effect sees this."""
        with self.lock:
            if id(end) not in self.closing:
                self.closing[id(end)] = end
                self.discount(isinstance(end, Sender), cause)

    def discount(self, sends: bool, cause: str | None) -> None:
        self.open[sends] -= 1
        if sends and cause is not None:
            self.causes.append(cause)

    def shut(self, end: Any, how: str) -> None:
        cause = f"{how} {id(end)}" if how in ("fail", "leave_by_error") else None
        self.begin(end, cause)
        if how == "leave":
            with end:
                pass
        elif how == "leave_by_error":
            with pytest.raises(Boom), end:
                raise Boom(cause)
        else:
            end.close(Boom(cause) if cause is not None else None)
        assert end.is_closed
        assert end.close() is False  # the second time

    def shut_from_outside(self, n: int) -> None:
        """An end through which somebody waits, if there is one."""
        ends = [end for end in self.via if end is not None] or [held[-1] for held in self.held if held]
        if ends:
            end = ends[n % len(ends)]
            self.begin(end)
            end.close()
            if self.some_are_open(True) and self.some_are_open(False):  # so it was not the end of the stream
                self.evicted[id(end)] = end

    # ------------------------------------------------------------- one actor
    async def act(self, me: int) -> None:
        self.started[me] = True
        held = self.held[me]
        program = [*self.program.senders, *self.program.receivers][me]
        held.append(self.first[me])
        numbers = iter(range(10_000))
        try:
            for step in program:
                if not held:
                    return
                await self.do(step, me, held, lambda: (me, next(numbers)))
        finally:
            while held:
                self.shut(held[-1], "close")
                held.pop()

    async def do(self, step: Step, me: int, held: list[Any], new: Any) -> None:
        end = held[-1]
        if step.kind == "clone":
            if (twin := self.clone(end)) is not None:
                held.append(twin)
        elif step.kind == "pause":
            await turns(4 * step.many)
        elif step.kind == "drop":
            del end
            self.drop(held)
        elif step.kind in ENDINGS:
            self.shut(end, step.kind)
            held.pop()
        else:
            try:
                self.via[me] = end
                if isinstance(end, Sender):
                    await self.send(step, me, end, new)
                else:
                    await self.receive(step, me, end)
            finally:
                self.via[me] = None

    def clone(self, end: Any) -> Any:
        sends = isinstance(end, Sender)
        with self.lock:  # before, so that it is never too few
            self.open[sends] += 1
            self.cloning[sends] += 1
        twin = None
        try:
            twin = end.clone()
        except HandleClosed:
            assert id(end) in self.closing
        with self.lock:
            self.open[sends] -= twin is None
            self.cloning[sends] -= 1
        return twin

    def drop(self, held: list[Any]) -> None:
        """A new end that only we have had, dropped without close."""
        end = self.clone(held[-1])
        if end is not None:
            with self.lock:
                self.discount(isinstance(end, Sender), "dropped")

    def some_are_open(self, sends: bool) -> bool:
        with self.lock:
            return self.open[sends] > self.cloning[sends]

    async def send(self, step: Step, me: int, end: Sender[Item], new: Any) -> None:
        items = [new() for _ in range(step.many)]
        try:
            if step.kind == "send":
                for item in items:
                    await self.sending([item], end.send(item), step)
            elif step.kind == "send_some":
                await self.sending(items, end.send_some(items), step)
            elif step.kind == "send_nowait":
                end.send_nowait(items[0])
                self.accepted.append(items[0])
            elif self.program.capacity:
                await self.reserve(step, end, items)
        except (HandleClosed, BrokenChannel) as error:
            self.check_sender(end, error)
        except (TimeoutError, ChannelError):
            pass

    async def reserve(self, step: Step, end: Sender[Item], items: list[Item]) -> None:
        """A permit outlives the end that it came through."""
        count = int(min(step.many, self.program.capacity))
        with self.lock:
            self.promised += 1
        try:
            op = end.reserve(count)
            with await (op if step.patience is None else op.within(step.patience)) as permit:
                if step.kind == "reserve_and_close":
                    self.shut(end, "close")
                    await turns(2)
                else:
                    await turns(1)
                with self.lock:
                    self.promised -= 1
                try:
                    for item in items[: count - (step.many > 2)]:
                        permit.send(item)
                        self.accepted.append(item)
                except BrokenChannel:
                    assert not self.some_are_open(False)
                finally:
                    with self.lock:
                        self.promised += 1
        finally:
            with self.lock:
                self.promised -= 1

    async def sending(self, items: list[Item], op: Op[Any], step: Step) -> None:
        try:
            count = await (op if step.patience is None else op.within(step.patience))
        except BaseException as error:
            if delivered(error):
                self.accepted.append(items[0])
            raise
        self.accepted.extend(items[: 1 if count is None else count])

    async def receive(self, step: Step, me: int, end: Receiver[Item]) -> None:
        got = self.got[me]
        try:
            if step.kind == "receive":
                for _ in range(step.many):
                    got.append(await self.receiving(end.receive(), step))
            elif step.kind == "receive_some":
                got.extend(await self.receiving(end.receive_some(step.many), step))
            elif step.kind == "receive_nowait":
                got.append(end.receive_nowait())
            else:
                while True:
                    got.append(await self.receiving(end.receive(), Step("receive", 1, None)))
        except (EndOfChannel, BrokenChannel, HandleClosed) as error:
            self.check_receiver(end, error)
        except (TimeoutError, ChannelError):
            pass

    async def receiving(self, op: Op[Any], step: Step) -> Any:
        try:
            return await (op if step.patience is None else op.within(step.patience))
        except asyncio.CancelledError:
            self.given_back += 1
            raise

    # ------------------------------------------------------------- what must hold
    def calm(self) -> bool:
        """Nobody waits through an end that is closed."""
        return not any(id(end) in self.closing for end in self.via if end is not None)

    def check_sender(self, end: Sender[Item], error: ChannelError) -> None:
        if isinstance(error, HandleClosed):
            assert id(end) in self.closing or not self.some_are_open(False), "an open end was called closed"
        else:
            assert id(end) not in self.evicted, "it waited on through an end that was closed"
            assert not self.some_are_open(False), "it broke while somebody could receive"

    def check_receiver(self, end: Receiver[Item], error: ChannelError) -> None:
        if isinstance(error, HandleClosed):
            assert id(end) in self.closing
        else:
            assert id(end) not in self.evicted, "it waited on through an end that was closed"
            assert not self.some_are_open(True), "the stream ended while somebody could send"
            self.errors.append(error)

    def check(self) -> None:
        now = self.tx.statistics()
        assert self.open == {True: 0, False: 0}
        assert (now.senders, now.receivers) == (0, 0)
        assert (now.waiting_senders, now.waiting_receivers, now.buffered) == (0, 0, 0)
        got = [item for items in self.got for item in items]
        assert sorted(got + self.told) == sorted(self.accepted)
        assert (now.received, now.dropped) == (len(got), len(self.told))
        wrong = sum(
            out_of_order([n for producer, n in items if producer == actor])
            for items in self.got
            for actor in range(len(self.program.senders))
        )
        assert wrong <= self.given_back
        causes = {str(error.cause) for error in self.errors if isinstance(error, BrokenChannel)}
        clean = [error for error in self.errors if isinstance(error, EndOfChannel)]
        if self.causes:
            assert not clean, "a stream that was broken looked complete"
        assert len(causes) <= 1, "one stream ended with different causes"
        for cause in causes:
            assert cause in self.causes or ("dropped" in self.causes and "was dropped without close" in cause)


def stream_holds(places: Sequence[World], program: Program) -> None:
    Stream(program).run(places)


@sizes(120, 450)
def test_a_stream_ends_when_its_last_end_is_closed(world: World, examples: int) -> None:
    explore([world], stream_holds, programs, examples)


@mixed
@sizes(60, 250)
def test_a_stream_between_worlds_ends_when_its_last_end_is_closed(places: list[World], examples: int) -> None:
    explore(places, stream_holds, programs, examples)
