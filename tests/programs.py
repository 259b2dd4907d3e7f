"""Random programs: what the `test_properties_*` files have in common.

A program is plain data that hypothesis draws: what each of a few actors does, and what cuts in from outside, and when.
`play` runs it in one world or in several at once; the invariants are checked on what was recorded. Nothing is drawn
while it runs, so that threads do not disturb hypothesis.

`Stepped` is for state machines: operations parked in tasks of a loop that goes on only when it is told to.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import backends
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from worlds import ALL, World, run_together, settle, spawn

from chanlib import Op

Actor = Callable[[], Awaitable[None]]
Cut = tuple[int, Any]  # after how many turns; the number of the actor to cancel, or something to call


# ===================================================================== how much, and where
def sizes(few: int, many: int) -> pytest.MarkDecorator:
    """So many examples by default, and so many under `stress`."""
    stress = [pytest.mark.stress, pytest.mark.timeout(600)]  # a failure takes time to be made small
    slow = pytest.mark.timeout(300)
    return pytest.mark.parametrize(
        "examples", [pytest.param(few, id="few", marks=slow), pytest.param(many, id="stress", marks=stress)]
    )


def _together(*names: str, marks: Sequence[pytest.MarkDecorator] = ()) -> Any:
    return pytest.param([ALL[name] for name in names], id="+".join(names), marks=[*backends.marks(*names), *marks])


mixed = pytest.mark.parametrize(
    "places",
    [
        _together("asyncio", "trio", "threads"),
        _together("asyncio", "asyncio"),
        _together("trio", "trio", marks=[pytest.mark.stress]),
        _together("uvloop", "threads", marks=[pytest.mark.stress]),
    ],
)


def chosen(examples: int, *, shrink: bool = True) -> settings:
    """By default the same examples each time; many of them are drawn anew."""
    random = examples > 150
    return settings(
        max_examples=examples,
        stateful_step_count=50 if random else 30,
        deadline=None,
        database=None,
        derandomize=not random,
        print_blob=random,
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
    )


def explore(
    places: Sequence[World],
    holds: Callable[[Sequence[World], Any], None],
    programs: st.SearchStrategy[Any],
    examples: int,
) -> None:
    """`holds(places, program)` for so many programs.

    Where threads take part a failure is not made small: it takes long to see that one hangs, and it may not come again.
    """

    @chosen(examples, shrink=alone(places))
    @given(programs)
    def check(program: Any) -> None:
        holds(places, program)

    check()


def explore_machine(machine: type[RuleBasedStateMachine], examples: int) -> None:
    run_state_machine_as_test(machine, settings=chosen(examples))


# ===================================================================== running a program
def alone(places: Sequence[World]) -> bool:
    """Is it one loop, so that nothing happens but in its turns?"""
    return len(places) == 1 and places[0].can_cancel


async def turns(number: int) -> None:
    """Let the others have so many turns."""
    left = iter(range(number))
    await settle(lambda: next(left, None) is None)


def play(
    places: Sequence[World],
    actors: Sequence[Actor],
    cuts: Iterable[Cut],
    *,
    calm: Callable[[], object] = lambda: True,
    finish: Callable[[], object] = lambda: None,
) -> None:
    """Run all `actors`, dealt out over `places`, to their end.

    A cut cancels an actor, where its world can, or calls a function. Once all cuts have been made `calm()` has to come
    true without any help, and then `finish()` is called; after it every actor has to come to its end.
    """
    cuts = sorted(cuts, key=lambda cut: cut[0])
    left = itertools.count(len(places) - 1, -1)

    async def part(place: int) -> None:
        world = places[place]
        mine = {n: spawn(actor) for n, actor in enumerate(actors) if n % len(places) == place}
        now = 0
        for turn, action in cuts:
            await turns(turn - now)
            now = turn
            if callable(action):
                if place == 0:
                    action()
            elif world.can_cancel and (child := mine.get(action % len(actors))) is not None:
                child.cancel()
        await turns(3)
        if not next(left):
            await come(calm, "somebody waits for what is there")
            finish()
        await come(lambda: all(child.done for child in mine.values()), "somebody sleeps past the end")

    async def come(state: Callable[[], object], otherwise: str) -> None:
        """Wait for it. One loop comes to rest within its turns; else there is only time."""
        if alone(places):
            turn = iter(range(1000))
            await settle(lambda: state() or next(turn, None) is None)
            assert state(), otherwise
        else:
            await settle(state)  # which may be false again by now

    hasty = None if alone(places) else 1e-5
    before = sys.getswitchinterval()
    if hasty is not None:
        sys.setswitchinterval(hasty)
    try:
        if len(places) == 1:
            places[0].run(part, 0)
        else:
            run_together(*[(world, part, place) for place, world in enumerate(places)])
    finally:
        sys.setswitchinterval(before)


class Gauge:
    """A number that several threads change; it may not leave its bounds."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.now = 0
        self.lock = threading.Lock()

    def add(self, change: int) -> int:
        with self.lock:
            self.now += change
            assert 0 <= self.now <= self.most, f"{self.now} at once, of {self.most}"
            return self.now


# ===================================================================== what is seen of a cancellation
def delivered(error: BaseException) -> bool:
    """Does this cancellation say that the value was delivered all the same?"""
    return any("value was delivered" in note for note in getattr(error, "__notes__", ()))


def out_of_order(numbers: Sequence[Any]) -> int:
    """How many of them must be left out for the rest to be in ascending order."""
    best: list[Any] = []
    for number in numbers:
        place = bisect_left(best, number)
        best[place : place + 1] = [number]
    return len(numbers) - len(best)


# ===================================================================== a loop that is stepped
class Parked:
    """An operation in a task of its own."""

    def __init__(self, op: Op[Any], **about: Any) -> None:
        self.op = op
        self.task: Any = None
        self.cancelled = False  # its task was asked to
        self.result: Any = None
        self.error: BaseException | None = None
        self.served = False  # what the model says
        self.about = about

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["about"][name]
        except KeyError:
            raise AttributeError(name) from None


class Stepped(RuleBasedStateMachine):
    """A machine with operations parked on an asyncio loop: no task sees the middle of what it does at a stroke."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.parked: list[Parked] = []
        self.ran: list[Parked] = []
        self.fresh = itertools.count(1)

    def step(self) -> None:
        async def go() -> None:
            for _ in range(6):
                await asyncio.sleep(0)

        self.loop.run_until_complete(go())

    def perform(self, op: Op[Any], **about: Any) -> Parked:
        """Start it and let it come to its end or park; `done` says which."""
        party = Parked(op, **about)
        party.task = self.loop.create_task(self.live(party))
        self.step()
        if party in self.ran:
            assert self.ran[0] is party, "others went on before it"
        return party

    async def live(self, party: Parked) -> None:
        try:
            party.result = await party.op
        except BaseException as error:
            party.error = error.with_traceback(None)  # it would keep alive what is dropped
        finally:
            del party.op
            self.ran.append(party)

    def cancel_some(self, places: Iterable[int]) -> None:
        for place in places:
            if self.parked:
                party = self.parked[place % len(self.parked)]
                if not party.cancelled:
                    party.cancelled = True
                    party.task.cancel()

    def teardown(self) -> None:
        for party in self.parked:
            party.task.cancel()
        self.step()
        self.loop.close()
