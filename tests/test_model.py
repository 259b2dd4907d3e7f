"""`Channel` and `select` against a sequential model, by hypothesis.

Two channels and any number of operations parked on them, in tasks of one asyncio loop that the machine steps itself.
A script of actions is done at a stroke, inside a task or outside of the loop, so that commits, cancellations and
ends meet before any parked task has run again; then the loop is stepped until nothing moves. Which of several
parked tasks ran first is taken from what happened, as is the draw of an unbiased select; all else is the model's.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from worlds import REARMS

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    HandleClosed,
    Op,
    WouldBlock,
    select,
)

# ===================================================================== the model

OPEN, CLOSED, CANCELLED = range(3)


@dataclass(eq=False)
class Party:
    """A parked operation: its arms, and what has become of it."""

    arms: list[Arm]
    task: Any = None
    cancelled: bool = False  # its task was asked to
    served: Arm | None = None  # by a peer, through this arm
    value: Any = None  # what that peer gave
    order: int = 0  # of that commit
    ended: Arm | None = None  # its channel ended
    happened: list[Any] = field(default_factory=list)  # in truth: ("result", x) or ("error", e)


@dataclass(eq=False)
class Arm:
    """One leaf: a send of `values[0]`, a receive of one, or their `_some` forms."""

    channel: Model
    kind: str
    values: list[int] = field(default_factory=list)
    most: float = 1

    @property
    def sends(self) -> bool:
        return self.kind.startswith("send")

    def op(self) -> Op[Any]:
        real = self.channel.real
        if self.kind == "send":
            return real.send(self.values[0])
        if self.kind == "send_some":
            return real.send_some(self.values)
        if self.kind == "receive":
            return real.receive()
        return real.receive_some(self.most)

    def result(self, taken: list[int]) -> Any:
        """What the operation gives when it received `taken`, or sent so many."""
        return {
            "send": None,
            "send_some": len(taken),
            "receive": taken[0] if taken else None,
            "receive_some": taken,
        }[self.kind]


class Model:
    """What a channel is, in sequence."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.buffer: list[int] = []
        self.returned: list[tuple[int, int]] = []
        self.senders: list[tuple[Party, Arm]] = []
        self.receivers: list[tuple[Party, Arm]] = []
        self.end = OPEN
        self.cause: BaseException | None = None
        self.commits = 0
        self.received = 0
        self.sent = 0
        self.undelivered: list[int] = []
        self.told: list[int] = []  # by the real one
        self.real: Channel[int] = Channel(capacity, on_undelivered=self.told.append)

    def size(self) -> int:
        return len(self.buffer) + len(self.returned)

    # ------------------------------------------------------------- committing
    def hand_over(self, value: int, order: int = 0) -> bool:
        if not self.receivers:
            return False
        party, arm = self.receivers[0]
        if not order:
            order = self.commits = self.commits + 1
        serve(party, arm, value, order)
        self.received += 1
        return True

    def put(self, value: int) -> bool:
        if not self.hand_over(value):
            if self.size() >= self.capacity:
                return False
            self.buffer.append(value)
        self.sent += 1
        return True

    def take(self) -> list[int]:
        """The next value, or none."""
        if self.returned:
            value = self.returned.pop(0)[1]
        elif self.buffer:
            value = self.buffer.pop(0)
        elif self.senders:
            value = self.take_from_sender()
        else:
            return []
        self.received += 1
        while self.size() < self.capacity and self.senders:
            self.buffer.append(self.take_from_sender())
        return [value]

    def take_from_sender(self) -> int:
        party, arm = self.senders[0]
        serve(party, arm)
        self.sent += 1
        return arm.values[0]

    def give_back(self, value: int, order: int) -> None:
        self.received -= 1
        if self.end == CANCELLED:
            self.undelivered.append(value)
        elif not self.hand_over(value, order):
            self.returned.append((order, value))
            self.returned.sort()

    def finish(self, end: int, cause: BaseException | None) -> bool:
        if self.end >= end:
            return False
        if cause is not None or not self.end:
            self.cause = cause
        self.end = end
        for party, arm in [*self.senders, *self.receivers]:
            if party.ended is None:
                leave(party)
                party.ended = arm
        if end == CANCELLED:
            self.undelivered += [value for _, value in self.returned] + self.buffer
            self.returned.clear()
            self.buffer.clear()
        return True

    # ------------------------------------------------------------- one leaf
    def can(self, arm: Arm) -> bool:
        """Can it happen now, or fail now?"""
        if arm.sends:
            return bool(self.end or self.receivers or self.size() < self.capacity)
        return bool(self.end or self.size() or self.senders)

    def fails(self, arm: Arm) -> bool:
        return bool(self.end and (arm.sends or not self.size()))

    def do(self, arm: Arm) -> Any:
        taken: list[int] = []
        if arm.sends:
            for value in arm.values:
                if not self.put(value):
                    break
                taken.append(value)
        else:
            while len(taken) < arm.most and (got := self.take()):
                taken += got
        return arm.result(taken)

    def check_error(self, arm: Arm, error: BaseException) -> None:
        """Is it what an operation on a channel that is over raises?"""
        if arm.sends or self.end == CANCELLED:
            assert type(error) is HandleClosed
            assert error.cause is self.cause
        elif self.cause is None:
            assert type(error) is EndOfChannel
        else:
            assert type(error) is BrokenChannel
            assert error.cause is self.cause
        assert error.channel is self.real


def serve(party: Party, arm: Arm, value: int | None = None, order: int = 0) -> None:
    leave(party)
    party.served, party.value, party.order = arm, value, order


def leave(party: Party) -> None:
    for arm in party.arms:
        for queue in (arm.channel.senders, arm.channel.receivers):
            queue[:] = [entry for entry in queue if entry[0] is not party]


# ===================================================================== the machine

channels = st.integers(0, 1)
capacities = st.sampled_from([0, 0, 1, 1, 2, 3, math.inf])
arm_shapes = st.tuples(
    channels,
    st.sampled_from(["send", "receive", "send", "receive", "send_some", "receive_some"]),
    st.sampled_from([1, 2, 3]),
)
operations = st.tuples(
    st.one_of(st.lists(arm_shapes, min_size=1, max_size=1), st.lists(arm_shapes, min_size=2, max_size=3)),
    st.booleans(),
    st.sampled_from(["op", "within"]),
)
several = st.integers(1, 3)
stops = st.tuples(st.just("stop"), st.lists(st.integers(0, 5), min_size=1, max_size=4))
actions = st.one_of(
    st.tuples(st.just("send"), st.tuples(channels, several)),
    st.tuples(st.just("receive"), st.tuples(channels, several)),
    st.tuples(st.just("drain"), channels),
    st.tuples(st.just("poll"), operations),
    stops,
    stops,
    st.tuples(st.just("end"), st.tuples(channels, st.sampled_from(["close", "cancel", "fail"]))),
)


class ChannelMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.fresh = 0
        self.parked: list[Party] = []
        self.ran: list[Party] = []

    @initialize(first=capacities, second=capacities)
    def begin(self, first: float, second: float) -> None:
        self.models = [Model(first), Model(second)]

    # ------------------------------------------------------------- making
    def new(self) -> int:
        self.fresh += 1
        return self.fresh

    def make_arms(self, shapes: list[tuple[int, str, int]]) -> list[Arm]:
        arms: list[Arm] = []
        for channel, kind, many in shapes:
            arm = Arm(self.models[channel], kind)
            if arm.sends and any(other.sends and other.channel is arm.channel for other in arms):
                continue  # they would wait in random order, and which one is the first would be seen too late
            if kind == "send":
                arm.values = [self.new()]
            elif kind == "send_some":
                arm.values = [self.new() for _ in range(many)]
            elif kind == "receive_some":
                arm.most = many
            arms.append(arm)
        return arms

    def make_op(self, arms: list[Arm], biased: bool, form: str) -> Op[Any]:
        """An operation whose result is `(position of the arm, its result)`."""
        if len(arms) == 1 and not biased:
            op: Op[Any] = arms[0].op().map(lambda result: (0, result))
        else:
            op = select(*[arm.op() for arm in arms], biased=biased)
        return op.within(3600) if form == "within" else op

    def check_at_once(self, arms: list[Arm], biased: bool, outcome: tuple[str, Any]) -> None:
        """It happened, or failed, without waiting: it could, and the model follows."""
        ready = [arm for arm in arms if arm.channel.can(arm)]
        kind, what = outcome
        if kind == "error":
            assert isinstance(what, ChannelClosed)
            index = 0 if what.arm is None else what.arm
            arm = arms[index]
            assert arm.channel.fails(arm)
            arm.channel.check_error(arm, what)
            assert (what.arm is None) == (len(arms) == 1 and not biased)
        else:
            index, result = what
            arm = arms[index]
            assert arm in ready
            assert not arm.channel.fails(arm)
            assert arm.channel.do(arm) == result
        if biased:
            assert arm is ready[0]

    # ------------------------------------------------------------- rules
    @rule(operation=operations)
    def park(self, operation: Any) -> None:
        """Perform an operation in a task of its own."""
        shapes, biased, form = operation
        queues = [(channel, kind.startswith("send")) for channel, kind, *_ in shapes]
        if len(set(queues)) < len(queues):
            biased = True  # twice in one queue an unbiased select parks in an order that is drawn
        party = Party(self.make_arms(shapes))
        op = self.make_op(party.arms, biased, form)
        can = any(arm.channel.can(arm) for arm in party.arms)
        party.task = self.loop.create_task(self.perform(party, op))
        self.step()
        if can:
            assert self.ran.pop(0) is party
            self.check_at_once(party.arms, biased, party.happened[0])
            self.settle()
        else:
            assert self.ran == []
            for arm in party.arms:
                queue = arm.channel.senders if arm.sends else arm.channel.receivers
                queue.append((party, arm))
            self.parked.append(party)

    @rule(channel=channels, kind=st.sampled_from(["receive", "receive", "send"]), many=several)
    def park_several(self, channel: int, kind: str, many: int) -> None:
        for _ in range(many):
            self.park(([(channel, kind, 1)], False, "op"))

    async def perform(self, party: Party, op: Op[Any]) -> None:
        try:
            result = await op
        except BaseException as error:
            party.happened.append(("error", error))
        else:
            party.happened.append(("result", result))
        self.ran.append(party)

    @rule(channel=channels, items=several, stop=stops, inside=st.booleans())
    def commit_and_stop(self, channel: int, items: int, stop: Any, inside: bool) -> None:
        """What `act` comes to less often: receivers are served, and cancelled before they have run."""
        self.act([("send", (channel, items)), stop], inside)

    @rule(script=st.lists(actions, min_size=1, max_size=6), inside=st.booleans())
    def act(self, script: list[Any], inside: bool) -> None:
        if inside:
            self.loop.run_until_complete(self.act_inside(script))
        else:
            self.follow(script)
        self.settle()

    async def act_inside(self, script: list[Any]) -> None:
        self.follow(script)

    def follow(self, script: list[Any]) -> None:
        for name, argument in script:
            getattr(self, f"do_{name}")(argument)

    @precondition(lambda self: any(self.is_over(model) for model in self.models))
    @rule(capacity=capacities)
    def renew(self, capacity: float) -> None:
        """A new channel in place of one that is over and empty."""
        for place, model in enumerate(self.models):
            if self.is_over(model):
                self.models[place] = Model(capacity)
                return

    @staticmethod
    def is_over(model: Model) -> bool:
        return bool(model.end and not model.size())

    # ------------------------------------------------------------- actions of a script
    def do_send(self, argument: tuple[int, int]) -> None:
        channel, times = argument
        for _ in range(times):
            self.send_one(self.models[channel], self.new())

    def send_one(self, model: Model, value: int) -> None:
        try:
            model.real.send_nowait(value)
        except ChannelFull:
            assert not model.end
            assert not model.put(value)
        except ChannelClosed as error:
            assert model.end
            model.check_error(Arm(model, "send"), error)
        else:
            assert not model.end
            assert model.put(value)

    def do_receive(self, argument: tuple[int, int]) -> None:
        channel, times = argument
        for _ in range(times):
            self.receive_one(self.models[channel])

    def receive_one(self, model: Model) -> None:
        arm = Arm(model, "receive")
        try:
            value = model.real.receive_nowait()
        except ChannelEmpty:
            assert not model.can(arm)
        except ChannelClosed as error:
            assert model.fails(arm)
            model.check_error(arm, error)
        else:
            assert model.take() == [value]

    def do_drain(self, channel: int) -> None:
        model = self.models[channel]
        taken: list[int] = []
        while got := model.take():
            taken += got
        assert model.real.drain() == taken

    def do_poll(self, operation: Any) -> None:
        shapes, biased, form = operation
        arms = self.make_arms(shapes)
        op = self.make_op(arms, biased, form)
        try:
            outcome: tuple[str, Any] = ("result", op.poll())
        except WouldBlock:
            assert not any(arm.channel.can(arm) for arm in arms)
            return
        except ChannelClosed as error:
            outcome = ("error", error)
        self.check_at_once(arms, biased, outcome)

    def do_stop(self, places: list[int]) -> None:
        """Cancel the tasks of parked operations, which may have been served meanwhile."""
        for place in places:
            if self.parked:
                party = self.parked[place % len(self.parked)]
                if not party.cancelled:
                    party.cancelled = True
                    party.task.cancel()

    def do_end(self, argument: tuple[int, str]) -> None:
        channel, how = argument
        model = self.models[channel]
        cause = ValueError("why") if how == "fail" else None
        end = CANCELLED if how == "cancel" else CLOSED
        first = model.finish(end, cause)
        real = model.real
        assert (real.cancel() if how == "cancel" else real.close(cause)) is first

    # ------------------------------------------------------------- what becomes of the parked
    def step(self) -> None:
        self.loop.run_until_complete(self.turns())

    async def turns(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    def settle(self) -> None:
        """Let the tasks run that can, and have the model follow in the same order."""
        self.step()
        for party in self.ran:
            self.parked.remove(party)
            leave(party)
            kind, what = party.happened[0]
            arm = party.served or party.ended
            if not party.cancelled:
                assert arm is not None, "it went on, though nobody served it"
                if party.ended is not None:
                    assert kind == "error"
                    arm = party.arms[what.arm or 0]
                    assert arm.channel is party.ended.channel
                    arm.channel.check_error(arm, what)
                else:
                    assert kind == "result"
                    self.check_result(party, what)
            elif party.served is not None and party.served.sends and REARMS:
                assert kind == "result"
                self.check_result(party, what)
            else:
                assert kind == "error"
                assert type(what) is asyncio.CancelledError
                noted = any("value was delivered" in note for note in getattr(what, "__notes__", []))
                assert noted == (party.served is not None and party.served.sends)
                if party.served is not None and not party.served.sends:
                    party.served.channel.give_back(party.value, party.order)
        self.ran.clear()
        for party in self.parked:
            assert party.served is party.ended is None, "it was served, and sleeps"
            assert not party.cancelled

    @staticmethod
    def check_result(party: Party, result: tuple[int, Any]) -> None:
        """Two arms that receive from one channel are as good as each other; they stand there in random order."""
        index, got = result
        arm, served = party.arms[index], party.served
        assert served is not None
        assert (arm.channel, arm.sends) == (served.channel, served.sends)
        assert got == arm.result(arm.values[:1] if arm.sends else [party.value])

    def teardown(self) -> None:
        for party in self.parked:
            party.cancelled = True
            party.task.cancel()
        self.step()
        try:
            for model in getattr(self, "models", []):
                statistics = model.real.statistics()
                assert statistics.waiting_senders == statistics.waiting_receivers == 0
        finally:
            self.loop.close()

    # ------------------------------------------------------------- always
    @invariant()
    def the_channels_are_as_the_model_says(self) -> None:
        for model in getattr(self, "models", []):
            now = model.real.statistics()
            assert now.capacity == model.capacity
            assert now.buffered == len(model.real) == model.size()
            assert now.waiting_senders == len(model.senders)
            assert now.waiting_receivers == len(model.receivers)
            assert now.received == model.received
            assert now.dropped == len(model.undelivered)
            assert now.sent == model.sent
            assert now.sent == now.received + now.dropped + now.buffered
            assert model.told == model.undelivered
            assert model.real.is_closed == (model.end != OPEN)

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        """Receivers wait while there is nothing to receive, senders while there is no room, and nobody at the end.

        The arms of one select do not pair with each other, so a select may wait on both sides.
        """
        for model in getattr(self, "models", []):
            now = model.real.statistics()
            if model.receivers:
                assert now.buffered == 0
                assert {id(p) for p, _ in model.senders} <= {id(p) for p, _ in model.receivers}
            if model.senders:
                assert now.buffered >= model.capacity
            if model.end:
                assert now.waiting_senders == now.waiting_receivers == 0
            assert now.peak <= model.capacity
            assert now.peak >= len(model.buffer)


def explore(examples: int, steps: int, *, random: bool) -> None:
    run_state_machine_as_test(
        ChannelMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=not random,
            print_blob=random,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)  # a failure takes time to be made small
def test_a_channel_behaves_as_its_sequential_model() -> None:
    explore(40, 30, random=False)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_a_channel_behaves_as_its_sequential_model_at_length() -> None:
    explore(500, 60, random=True)
