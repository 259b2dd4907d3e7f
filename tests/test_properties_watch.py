"""Random programs on a watch: observers see versions that only grow, and all of them see the last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from programs import explore, mixed, play, sizes
from worlds import World

from chanlib import BrokenChannel, ChannelEmpty, EndOfChannel, Event, HandleClosed, Op, Watch, select

State = tuple[int, int, int]  # how many updates there were, who made this value, the number that he gave it

patience = st.sampled_from([None, None, None, 0.0, 3e-4])


@dataclass(frozen=True)
class Program:
    updates_only: bool
    setters: list[list[str]]
    observers: list[list[tuple[str, float | None]]]
    cuts: list[tuple[int, Any]]


programs = st.builds(
    Program,
    updates_only=st.booleans(),
    setters=st.lists(
        st.lists(st.sampled_from(["set", "set", "update", "update", "fail", "pause"]), min_size=2, max_size=12),
        min_size=1,
        max_size=4,
    ),
    observers=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["changed", "changed", "wait_for", "select", "poll", "again"]), patience),
            max_size=8,
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(
        st.tuples(st.integers(0, 20), st.one_of(st.integers(0, 7), st.sampled_from(["close", "fail"]))), max_size=3
    ),
)


class Story:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.watch = Watch[State]((0, -1, -1))
        self.made: list[State] = []
        self.seen: list[list[State]] = [[] for _ in program.observers]
        self.waits = ["" for _ in program.observers]  # what for, while it does
        self.first: list[tuple[State, ...]] = [() for _ in program.observers]  # one of them was there when it came
        self.ended = ["" for _ in program.observers]  # where did it see the end?
        self.cause: BaseException | None = None

    def run(self, places: Sequence[World]) -> None:
        setters = [partial(self.change, n) for n in range(len(self.program.setters))]
        observers = [partial(self.observe, n) for n in range(len(self.program.observers))]
        cuts = [
            (turn, partial(self.close, what) if isinstance(what, str) else what) for turn, what in self.program.cuts
        ]
        play(places, [*setters, *observers], cuts, calm=self.calm, finish=self.watch.close)
        self.check()

    def close(self, how: str) -> None:
        cause = ValueError("why") if how == "fail" else None
        if self.watch.close(cause):
            self.cause = cause

    # ------------------------------------------------------------- actors
    async def change(self, me: int) -> None:
        quiet = Event()
        for number, kind in enumerate(self.program.setters[me]):
            try:
                if kind == "pause":
                    with pytest.raises(TimeoutError):
                        await quiet.wait().within(1e-5)
                elif kind == "fail":
                    with pytest.raises(ZeroDivisionError):
                        self.watch.update(lambda state: (1 // 0, *state[1:]))
                elif kind == "update" or self.program.updates_only:
                    self.made.append(self.watch.update(lambda state, n=number: self.following(state, me, n)))  # type: ignore[misc]
                else:
                    self.watch.set((0, me, number))
                    self.made.append((0, me, number))
            except HandleClosed:
                return

    def following(self, state: State, me: int, number: int) -> State:
        time.sleep(0)  # others come between
        return (state[0] + 1, me, number)

    async def observe(self, me: int) -> None:
        before = self.watch.value
        observer = self.watch.observe()
        self.first[me] = (before, observer.value)
        seen = self.seen[me]
        kind = ""
        try:
            for kind, limit in [*self.program.observers[me], *[("last", None)] * 200]:
                op: Op[State]
                if kind == "wait_for":
                    op = observer.wait_for(lambda state: state[2] % 3 == me % 3)
                elif kind == "again":  # the present one will do
                    op = observer.wait_for(lambda _: True)
                elif kind == "select":
                    op = select(Event(), observer).map(lambda pair: pair[1])
                else:
                    op = observer.changed()
                try:
                    if kind == "poll":
                        got = op.poll()
                    else:
                        self.waits[me] = kind
                        got = await (op if limit is None else op.within(limit))
                except (ChannelEmpty, TimeoutError):
                    continue
                finally:
                    self.waits[me] = ""
                if kind in ("wait_for", "again") and seen and seen[-1] == got:
                    continue  # as it was
                assert kind != "wait_for" or got[2] % 3 == me % 3
                seen.append(got)
        except EndOfChannel:
            assert self.cause is None
            self.ended[me] = kind
        except BrokenChannel as error:
            assert isinstance(error.cause, ValueError)  # noqa: PT017
            self.ended[me] = kind

    # ------------------------------------------------------------- what must hold
    def calm(self) -> bool:
        """Nobody waits for what is there."""
        now = self.watch.value
        return not any(
            now[2] % 3 == me % 3 if kind == "wait_for" else now not in (self.seen[me][-1:] or self.first[me])
            for me, kind in enumerate(self.waits)
            if kind
        )

    def check(self) -> None:
        now = self.watch.statistics()
        assert now.waiting == 0
        assert now.version == len(self.made), "what raised has changed something, or a change got lost"
        last = self.watch.value
        assert last in self.made or not self.made
        if self.program.updates_only:
            assert sorted(state[0] for state in self.made) == list(range(1, len(self.made) + 1)), "an update was lost"
            assert last[0] == len(self.made)
        for me, seen in enumerate(self.seen):
            assert set(seen) <= {*self.made, (0, -1, -1)}
            assert len(set(seen)) == len(seen), "a change was seen twice"
            if self.program.updates_only:
                assert seen == sorted(seen), "an older version was seen after a newer one"
            for setter in range(len(self.program.setters)):
                numbers = [number for _, who, number in seen if who == setter]
                assert numbers == sorted(numbers)
            if self.ended[me] and self.ended[me] != "wait_for":  # which may not want the last
                assert last in (seen[-1:] or self.first[me]), "the last value was not seen"


def story_holds(places: Sequence[World], program: Program) -> None:
    Story(program).run(places)


@sizes(80, 400)
def test_observers_see_growing_versions_and_the_last(world: World, examples: int) -> None:
    explore([world], story_holds, programs, examples)


@mixed
@sizes(60, 250)
def test_observers_in_another_world_see_growing_versions_and_the_last(places: list[World], examples: int) -> None:
    explore(places, story_holds, programs, examples)
