"""Random programs on two channels: no value is lost, doubled or overtaken, whatever is cancelled, timed out or closed.

The invariants are those that the design names; see `Traffic.check`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st
from programs import delivered, explore, mixed, out_of_order, play, sizes, turns
from worlds import World

from chanlib import Channel, ChannelError, Op, Permit, select

Item = tuple[int, int]  # actor, number

SENDS = (
    "send",
    "send",
    "send_some",
    "send_nowait",
    "force_send",
    "reserve",
    "fill",
    "release",
    "select_send",
    "select_both",
)
RECEIVES = ("receive", "receive", "receive_nowait", "receive_some", "drain", "select_receive", "select_both")


@dataclass(frozen=True)
class Shape:
    """What a channel is made of."""

    capacity: float
    order: Any
    overflow: Any


@dataclass(frozen=True)
class Step:
    kind: str
    first: int  # which channel
    many: int
    patience: float | None
    biased: bool


@dataclass(frozen=True)
class Program:
    shapes: list[Shape]
    actors: list[list[Step]]
    cuts: list[tuple[int, Any]]  # after so many turns: an actor to cancel, or (a channel, how to end it)


shapes = st.builds(
    Shape,
    capacity=st.sampled_from([0, 1, 2, math.inf]),
    order=st.sampled_from(["fifo", "fifo", "fifo", "lifo", "priority"]),
    overflow=st.sampled_from(["wait", "wait", "wait", "raise", "drop_oldest", "drop_newest"]),
).map(lambda shape: shape if shape.capacity else Shape(0, shape.order, "wait"))


def steps(kinds: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        Step,
        kind=st.sampled_from(kinds),
        first=st.sampled_from([0, 0, 1]),
        many=st.integers(1, 3),
        patience=st.sampled_from([None, None, None, 0.0, 1e-5, 3e-4]),
        biased=st.booleans(),
    )
    return st.lists(step, min_size=2, max_size=12)


at = st.integers(0, 20)
programs = st.builds(
    Program,
    shapes=st.lists(shapes, min_size=2, max_size=2),
    actors=st.lists(
        st.one_of(steps(SENDS), steps(RECEIVES), steps(RECEIVES), steps(SENDS + RECEIVES)), min_size=3, max_size=7
    ),
    cuts=st.lists(
        st.one_of(
            *[st.tuples(at, st.integers(0, 6))] * 4,
            st.tuples(at, st.tuples(st.integers(0, 1), st.sampled_from(["close", "fail", "cancel"]))),
        ),
        max_size=6,
    ),
)


class Traffic:
    """What a program did, as its actors saw it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.told: tuple[list[Item], list[Item]] = ([], [])
        self.channels = [
            Channel[Item](shape.capacity, order=shape.order, overflow=shape.overflow, on_undelivered=told.append)
            for shape, told in zip(program.shapes, self.told, strict=True)
        ]
        self.accepted: tuple[list[Item], list[Item]] = ([], [])
        self.displaced: tuple[list[Item], list[Item]] = ([], [])
        self.got: dict[tuple[int, int], list[Item]] = {}  # by channel and actor
        self.permits: list[Permit[Item]] = []
        self.unsure: list[Item] = []  # delivered by one of two channels, the cancellation does not say which
        self.finished = False
        self.given_back = 0  # by cancelled receives, at most

    def run(self, places: Sequence[World]) -> None:
        play(
            places,
            [partial(self.act, n) for n in range(len(self.program.actors))],
            [(turn, partial(self.end, *what) if isinstance(what, tuple) else what) for turn, what in self.program.cuts],
            calm=self.calm,
            finish=self.finish,
        )
        self.check()

    def finish(self) -> None:
        """All comes to an end; also for one who receives while he holds a permit, which delays it."""
        for ch in self.channels:
            ch.close()
        self.finished = True
        for permit in self.permits:
            permit.release()

    def end(self, place: int, how: str) -> None:
        ch = self.channels[place]
        if how == "cancel":
            ch.cancel()
        else:
            ch.close(ValueError("why") if how == "fail" else None)

    # ------------------------------------------------------------- one actor
    async def act(self, me: int) -> None:
        fresh = iter(range(10_000))
        mine: list[tuple[int, Permit[Item]]] = []
        try:
            for step in self.program.actors[me]:
                try:
                    await self.do(step, me, lambda: (me, next(fresh)), mine)
                except (TimeoutError, ChannelError):
                    pass  # provably without effect: `check` would see it
        finally:
            for _, permit in mine:
                permit.release()

    async def do(self, step: Step, me: int, new: Any, mine: list[tuple[int, Permit[Item]]]) -> None:
        a, b = step.first, 1 - step.first
        one, other = self.channels[a], self.channels[b]
        if step.kind == "send":
            for _ in range(step.many):
                await self.sending(a, [item := new()], one.send(item), step)
        elif step.kind == "send_some":
            items = [new() for _ in range(step.many)]
            await self.sending(a, items, one.send_some(items), step)
        elif step.kind == "send_nowait":
            one.send_nowait(item := new())
            self.accepted[a].append(item)
        elif step.kind == "force_send":
            displaced = one.force_send(item := new())
            self.accepted[a].append(item)
            self.displaced[a].extend(displaced)
        elif step.kind == "select_send":
            item = new()
            ops = [other.send(item), one.send(item)]
            await self.selecting([b, a], ["send", "send"], item, ops, step, me)
        elif step.kind == "select_both":
            item = new()
            await self.selecting([a, b], ["send", "receive"], item, [one.send(item), other.receive()], step, me)
        elif step.kind == "select_receive":
            await self.selecting([a, b], ["receive", "receive"], None, [one.receive(), other.receive()], step, me)
        elif step.kind == "reserve":
            shape = self.program.shapes[a]
            if shape.capacity and shape.overflow == "wait":
                permit = await self.patient(one.reserve(int(min(step.many, shape.capacity))), step)
                mine.append((a, permit))
                self.permits.append(permit)
                if self.finished:  # it was granted before, but nobody has seen it yet
                    permit.release()
                await turns(step.many)
        elif step.kind == "fill" and mine:
            place, permit = mine[-1]
            try:
                permit.send(item := new())
            except RuntimeError:
                assert self.finished
                return
            self.accepted[place].append(item)
            if not permit.left:
                mine.pop()
        elif step.kind == "release" and mine:
            mine.pop()[1].release()
        elif step.kind == "receive":
            for _ in range(step.many):
                self.take(a, me, [await self.receiving(one.receive(), step)])
        elif step.kind == "receive_some":
            self.take(a, me, await self.receiving(one.receive_some(step.many), step))
        elif step.kind == "receive_nowait":
            self.take(a, me, [one.receive_nowait()])
        elif step.kind == "drain":
            self.take(a, me, one.drain())

    def take(self, place: int, me: int, items: list[Item]) -> None:
        self.got.setdefault((place, me), []).extend(items)

    def patient(self, op: Op[Any], step: Step) -> Op[Any]:
        return op if step.patience is None else op.within(step.patience)

    async def sending(self, place: int, items: list[Item], op: Op[Any], step: Step) -> None:
        try:
            count = await self.patient(op, step)
        except BaseException as error:
            if delivered(error):
                self.accepted[place].append(items[0])
            raise
        assert count is None or 1 <= count <= len(items)
        self.accepted[place].extend(items[: 1 if count is None else count])

    async def receiving(self, op: Op[Any], step: Step) -> Any:
        try:
            return await self.patient(op, step)
        except asyncio.CancelledError:
            self.given_back += 1
            raise

    async def selecting(
        self, places: list[int], kinds: list[str], item: Item | None, ops: list[Op[Any]], step: Step, me: int
    ) -> None:
        try:
            index, value = await self.patient(select(*ops, biased=step.biased), step)
        except BaseException as error:
            if delivered(error):
                assert item is not None
                (self.unsure if kinds == ["send", "send"] else self.accepted[places[0]]).append(item)
            elif isinstance(error, asyncio.CancelledError) and "receive" in kinds:
                self.given_back += 1
            raise
        if kinds[index] == "send":
            assert value is None
            assert item is not None
            self.accepted[places[index]].append(item)
        else:
            self.take(places[index], me, [value])

    # ------------------------------------------------------------- what must hold
    def uses(self, kind: str, many: int = 1) -> bool:
        return any(step.kind == kind and step.many >= many for actor in self.program.actors for step in actor)

    def calm(self) -> bool:
        """Nobody waits for what is there."""
        held = sum(permit.left for permit in self.permits)
        for ch in self.channels:
            now = ch.statistics()
            if now.waiting_receivers and now.buffered:
                return False
            both = self.uses("select_both") or self.uses("reserve")  # they may wait beside receivers
            if now.waiting_receivers and now.waiting_senders and not both:
                return False
            if now.waiting_senders and now.buffered + held < now.capacity and not self.uses("reserve", 2):
                return False
            if ch.is_closed and (now.waiting_senders or now.waiting_receivers) and not held:
                return False
        return True

    def check(self) -> None:
        for place, (shape, ch) in enumerate(zip(self.program.shapes, self.channels, strict=True)):
            rest = ch.drain()
            now = ch.statistics()
            got = [item for (where, _), items in self.got.items() if where == place for item in items] + rest
            gone = self.told[place] + self.displaced[place]
            accepted = self.accepted[place]
            assert len(set(got + gone)) == len(got + gone), "a value was doubled"
            stray = sorted(set(got + gone) - set(accepted))
            assert set(stray) <= set(self.unsure), "an operation that raised had an effect"
            for item in stray:
                self.unsure.remove(item)  # it is in one channel only
            assert set(accepted) <= set(got + gone), "a value was lost"
            assert (now.waiting_senders, now.waiting_receivers, now.buffered) == (0, 0, 0)
            assert (now.sent, now.received, now.dropped) == (len(accepted) + len(stray), len(got), len(gone))
            kept = shape.capacity + self.given_back  # which may exceed the capacity for a moment
            assert now.peak <= kept, "a rendezvous was kept in a buffer, or a buffer exceeded"
            if shape.order == "fifo":
                runs = [items for (where, _), items in self.got.items() if where == place] + [rest]
                wrong = sum(
                    out_of_order([n for producer, n in run if producer == actor])
                    for run in runs
                    for actor in range(len(self.program.actors))
                )
                assert wrong <= self.given_back, "values overtook each other, and no cancelled receive explains it"
            elif not self.given_back and shape.order == "priority":
                assert rest == sorted(rest)
            elif not self.given_back:
                for actor in range(len(self.program.actors)):
                    kept = [n for producer, n in rest if producer == actor]
                    assert kept == sorted(kept, reverse=True)
            if shape.overflow == "wait" and not ch.is_closed:
                assert not self.told[place]
        assert not self.unsure, "a value was said to be delivered, and was not"


def traffic_holds(places: Sequence[World], program: Program) -> None:
    Traffic(program).run(places)


@sizes(80, 450)
def test_channels_lose_double_and_reorder_nothing(world: World, examples: int) -> None:
    explore([world], traffic_holds, programs, examples)


@mixed
@sizes(40, 250)
def test_channels_between_worlds_lose_double_and_reorder_nothing(places: list[World], examples: int) -> None:
    explore(places, traffic_holds, programs, examples)
