"""Semaphore, lock, condition and barrier: random programs in every world, and semaphores against a sequential model.

Units are conserved, there are never more inside than units, who waits first is served first, nobody waits for what is
there, and a barrier lets its parties go in groups.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from programs import Gauge, Parked, Stepped, explore, explore_machine, mixed, play, sizes, turns
from worlds import World, settle, spawn

from chanlib import Barrier, Condition, Event, Lock, Op, Semaphore, WouldBlock, select

patience = st.sampled_from([None, None, None, 0.0, 3e-4])
at = st.integers(0, 25)
cancels = st.lists(st.tuples(at, st.integers(0, 7)), max_size=6)


@dataclass(frozen=True)
class Step:
    kind: str
    many: int
    patience: float | None
    hold: int  # for so many turns

    def limited(self, op: Op[Any]) -> Op[Any]:
        return op if self.patience is None else op.within(self.patience)


@dataclass(frozen=True)
class Program:
    units: int
    actors: list[list[Step]]
    cuts: list[tuple[int, Any]]


def programs_of(*roles: Sequence[str]) -> st.SearchStrategy[Program]:
    """Each actor keeps to the kinds of steps of one role."""
    steps = [
        st.lists(
            st.builds(
                Step,
                kind=st.sampled_from(kinds),
                many=st.integers(1, 3),
                patience=patience,
                hold=st.sampled_from([0, 1, 3, 6]),
            ),
            min_size=1,
            max_size=8,
        )
        for kinds in roles
    ]
    return st.builds(
        Program, units=st.integers(1, 3), actors=st.lists(st.one_of(steps), min_size=2, max_size=7), cuts=cancels
    )


def actors_of(story: Any) -> list[Any]:
    return [partial(story.act, n) for n in range(len(story.program.actors))]


# ===================================================================== semaphores
class SemaphoreMachine(Stepped):
    """One semaphore; its waiters in one queue, of which the first is served as soon as there is enough for it."""

    @initialize(units=st.integers(0, 4), bounded=st.booleans())
    def begin(self, units: int, bounded: bool) -> None:
        self.most = units + 1 if bounded else None
        self.real = Semaphore(units, max_value=self.most)
        self.free = units
        self.taken = 0
        self.queue: list[Parked] = []
        self.bell = Event()

    def serve(self) -> None:
        while self.queue and self.queue[0].units <= self.free:
            first = self.queue.pop(0)
            first.served = True
            self.free -= first.units

    @rule(units=st.integers(1, 4), form=st.sampled_from(["op", "op", "within", "select"]))
    def acquire(self, units: int, form: str) -> None:
        if self.most is not None:
            units = min(units, self.most)
        op: Op[Any] = self.real.acquire(units)
        if form == "within":
            op = op.within(3600)
        elif form == "select":
            op = select(op, self.bell, biased=True).map(lambda pair: self.bell if pair[0] else None)
        can = not self.queue and units <= self.free
        party = self.perform(op, units=units, form=form)
        if can:
            assert party in self.ran, "it waits, though there is enough and nobody before it"
            self.ran.remove(party)
            self.free -= units
            self.taken += units
        else:
            assert party not in self.ran, "it passed somebody, or there was not enough"
            self.queue.append(party)
            self.parked.append(party)

    scripts = st.lists(
        st.tuples(st.sampled_from(["release", "release", "poll", "cancel", "cancel", "cancel_two"]), st.integers(1, 5)),
        min_size=1,
        max_size=5,
    )

    @rule(script=scripts)
    def act(self, script: list[tuple[str, int]]) -> None:
        """All at a stroke."""
        for name, argument in script:
            getattr(self, f"do_{name}")(argument)
        self.settle()

    def do_release(self, units: int) -> None:
        if self.most is not None and self.free + units > self.most:
            with pytest.raises(ValueError, match="max_value"):
                self.real.release(units)
            return
        self.real.release(units)
        self.free += units
        self.taken -= units
        self.serve()

    def do_poll(self, units: int) -> None:
        units = units if self.most is None else min(units, self.most)
        try:
            self.real.acquire_nowait(units)
        except WouldBlock:
            assert self.queue or units > self.free
        else:
            assert not self.queue, "it passed somebody"
            self.free -= units
            self.taken += units
            assert self.free >= 0

    def do_cancel(self, place: int) -> None:
        self.cancel_some([place - 1])

    def do_cancel_two(self, place: int) -> None:
        self.cancel_some([place - 1, place])

    @precondition(lambda self: any(party.form == "select" for party in self.parked))
    @rule()
    def ring(self) -> None:
        """All selects take their other arm: those behind them may fit now."""
        self.bell.set()
        for party in [party for party in self.queue if party.form == "select"]:
            self.queue.remove(party)
            party.about["rung"] = True
        self.serve()
        self.settle()
        self.bell.clear()

    def settle(self) -> None:
        while True:
            self.step()
            ran, self.ran = self.ran, []
            if not ran:
                break
            for party in ran:
                self.parked.remove(party)
                self.follow(party)
        assert not [party for party in self.parked if party.served or party.cancelled], "one of them sleeps"

    def follow(self, party: Parked) -> None:
        if party.about.get("rung"):
            assert party.result is self.bell
        elif not party.cancelled:
            assert party.served
            assert party.error is None
            self.taken += party.units
        else:
            assert type(party.error) is asyncio.CancelledError
            if party.served:
                self.free += party.units
            else:
                self.queue.remove(party)
            self.serve()

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if hasattr(self, "real"):
            now = self.real.statistics()
            assert (now.value, now.waiting) == (self.free, len(self.queue))
            assert self.real.value == self.free


@sizes(60, 300)
def test_a_semaphore_behaves_as_its_sequential_model(examples: int) -> None:
    explore_machine(SemaphoreMachine, examples)


class Permits:
    """Two semaphores and those who use them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.sems = [Semaphore(program.units, max_value=program.units) for _ in range(2)]
        self.inside = [Gauge(program.units) for _ in range(2)]

    async def act(self, me: int) -> None:
        for step in self.program.actors[me]:
            units = min(step.many, self.program.units)
            place = (me + step.many) % 2
            try:
                if step.kind == "nowait":
                    self.sems[place].acquire_nowait(units)
                elif step.kind == "select":
                    arms = [sem.acquire(units) for sem in self.sems]
                    place, _ = await step.limited(select(*arms))
                elif step.kind == "lost":
                    await step.limited(select(self.sems[place].acquire(units), Event()))
                else:
                    await step.limited(self.sems[place].acquire(units))
            except (TimeoutError, WouldBlock):
                continue
            self.inside[place].add(units)
            try:
                await turns(step.hold)
            finally:
                self.inside[place].add(-units)
                self.sems[place].release(units)

    def calm(self) -> bool:
        return all(sem.value == self.program.units and not sem.statistics().waiting for sem in self.sems)


def permits_hold(places: Sequence[World], program: Program) -> None:
    story = Permits(program)
    play(places, actors_of(story), program.cuts, calm=story.calm)
    assert story.calm()
    assert [gauge.now for gauge in story.inside] == [0, 0]


semaphore_programs = programs_of(["acquire", "acquire", "select", "lost", "nowait"])


@sizes(50, 250)
def test_units_are_conserved(world: World, examples: int) -> None:
    explore([world], permits_hold, semaphore_programs, examples)


@mixed
@sizes(40, 200)
def test_units_are_conserved_between_worlds(places: list[World], examples: int) -> None:
    explore(places, permits_hold, semaphore_programs, examples)


# ===================================================================== locks and conditions
class Shop:
    """A store behind a condition: producers put things in and notify one, consumers wait for one and take it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lock = Lock()
        self.filled = Condition(self.lock)
        self.inside = Gauge(1)
        self.store: deque[int] = deque()
        self.put: list[int] = []
        self.taken: list[int] = []
        self.closed = False

    async def act(self, me: int) -> None:
        number = 100 * me
        for step in self.program.actors[me]:
            for _ in range(step.many):
                number += 1
                if step.kind == "put":
                    await self.put_one(number, step)
                elif step.kind == "take":
                    await self.take_one(step)
                else:
                    await self.enter(step)

    async def enter(self, step: Step) -> None:
        try:
            await step.limited(self.lock.acquire())
        except TimeoutError:
            return
        self.inside.add(1)
        try:
            with pytest.raises(RuntimeError):
                await self.lock.acquire()  # not re-entrant
            await turns(step.hold)
        finally:
            self.inside.add(-1)
            self.lock.release()

    async def put_one(self, number: int, step: Step) -> None:
        async with self.filled:
            self.inside.add(1)
            try:
                if step.patience is not None:
                    await turns(step.hold)  # cancelled here it puts nothing
                self.store.append(number)
                self.put.append(number)
                self.filled.notify()
                if step.patience is None:
                    await turns(step.hold)  # who was told waits for the lock, and may be cancelled there
            finally:
                self.inside.add(-1)

    async def take_one(self, step: Step) -> None:
        async with self.filled:
            self.inside.add(1)
            try:
                while not self.store and not self.closed:
                    self.inside.add(-1)
                    try:
                        await self.filled.wait()
                    finally:
                        self.inside.add(1)  # the lock is held again, however it ended
                if self.store:
                    self.taken.append(self.store.popleft())
            finally:
                self.inside.add(-1)

    def calm(self) -> bool:
        """Nobody waits beside something that he was to be told of, and nobody waits for a lock that is free."""
        waiting = self.filled.statistics().waiting
        return not self.lock.locked() and not self.lock.statistics().waiting and not (waiting and self.store)

    async def close(self) -> None:
        async with self.filled:
            self.closed = True
            self.filled.notify_all()


def shop_holds(places: Sequence[World], program: Program) -> None:
    story = Shop(program)
    closing = Event()

    async def close() -> None:
        await closing.wait()
        await story.close()

    count = len(program.actors)
    cuts = [(turn, who % count) for turn, who in program.cuts]
    play(places, [*actors_of(story), close], cuts, calm=story.calm, finish=closing.set)
    assert story.calm()
    assert sorted([*story.taken, *story.store]) == sorted(story.put)
    assert story.filled.statistics().waiting == 0


shop_programs = programs_of(["put"], ["take"], ["take"], ["put", "take", "enter"])


@sizes(60, 300)
def test_a_condition_loses_no_notification(world: World, examples: int) -> None:
    explore([world], shop_holds, shop_programs, examples)


@mixed
@sizes(40, 200)
def test_a_condition_between_worlds_loses_no_notification(places: list[World], examples: int) -> None:
    explore(places, shop_holds, shop_programs, examples)


def test_a_notification_is_not_lost_with_one_who_is_cancelled_as_he_waits_for_the_lock(loop_world: World) -> None:
    """Found by the property above: he takes it or it is passed on, but it does not go with him."""
    filled = Condition()
    store: list[int] = []
    taken: list[int] = []

    async def take() -> None:
        async with filled:
            await filled.wait_for(lambda: store)
            taken.append(store.pop())

    async def body() -> None:
        first = spawn(take)
        await settle(lambda: filled.statistics().waiting == 1)
        second = spawn(take)
        await settle(lambda: filled.statistics().waiting == 2)
        async with filled:
            store.append(1)
            filled.notify()
            await settle(lambda: filled.lock.statistics().waiting == 1)  # the first was told
            first.cancel()
            await turns(3)
        await settle(lambda: first.done)
        await turns(10)
        lost = not taken
        second.cancel()
        assert not lost, "the second sleeps beside what is there"

    loop_world.run(body)


# ===================================================================== barriers
class Meetings:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.barrier = Barrier(program.units)
        self.over = Event()
        self.places: list[list[int]] = [[] for _ in range(program.units)]  # who came out as which
        self.arrivals = Gauge(10_000)
        self.cancelled = 0

    async def act(self, me: int) -> None:
        for step in self.program.actors[me]:
            self.arrivals.add(1)
            op: Op[Any] = select(self.barrier, self.over)
            try:
                index, place = await step.limited(op)
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if index == 1:
                return
            self.places[place].append(me)
            assert len(self.places[place]) * self.program.units <= self.arrivals.now, "some went on before all had come"
            await turns(step.hold)

    def calm(self) -> bool:
        return self.barrier.statistics().waiting < self.program.units


def meetings_hold(places: Sequence[World], program: Program) -> None:
    story = Meetings(program)
    play(places, actors_of(story), program.cuts, calm=story.calm, finish=story.over.set)
    assert story.barrier.statistics().waiting == 0
    groups = max(len(who) for who in story.places)
    lacking = sum(groups - len(who) for who in story.places)
    assert lacking <= story.cancelled, "a group was not complete, and no cancelled task explains it"


barrier_programs = programs_of(["wait"])


@sizes(50, 250)
def test_a_barrier_lets_its_parties_go_in_groups(world: World, examples: int) -> None:
    explore([world], meetings_hold, barrier_programs, examples)


@mixed
@sizes(40, 200)
def test_a_barrier_between_worlds_lets_its_parties_go_in_groups(places: list[World], examples: int) -> None:
    explore(places, meetings_hold, barrier_programs, examples)
