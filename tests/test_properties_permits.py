"""Permits against a sequential model, by hypothesis: places that are reserved, used, given back and waited for.

One channel, and any number of operations parked on it in a loop that is stepped. The rules that the model goes by:
first in, first out on the sending side, a reservation gets all of its places or none, nobody passes one that waits;
what is held counts as taken and delays the end for receivers; and nobody waits for what is there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from programs import Parked, Stepped, delivered, explore_machine, sizes
from worlds import REARMS, World, settle, spawn

from chanlib import (
    Channel,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    Op,
    Permit,
    select,
)

OPEN, CLOSED, CANCELLED = range(3)

several = st.integers(1, 3)


class PermitMachine(Stepped):
    @initialize(capacity=st.sampled_from([1, 2, 2, 3, 3, math.inf]))
    def begin(self, capacity: float) -> None:
        self.capacity = capacity
        self.told: list[int] = []
        self.channel: Channel[int] = Channel(capacity, on_undelivered=self.told.append)
        self.end = OPEN
        self.buffer: list[int] = []
        self.returned: list[tuple[int, int]] = []  # the order of its commit, the value
        self.senders: list[Parked] = []  # and reservations
        self.receivers: list[Parked] = []
        self.permits: list[tuple[Permit[int], int]] = []  # with how many places left
        self.undelivered: list[int] = []
        self.commits = self.received = self.gave_back = self.forced_out = 0

    # ------------------------------------------------------------- the model
    def held(self) -> int:
        """What is promised: to permits that somebody has, and to those whose task has not run yet."""
        waiting = sum(party.places for party in self.parked if party.served and party.kind == "reserve")
        return sum(left for _, left in self.permits) + waiting

    def size(self) -> int:
        return len(self.buffer) + len(self.returned)

    def room(self) -> float:
        return self.capacity - self.size() - self.held()

    def serve_receiver(self, value: int, order: int = 0) -> bool:
        if not self.receivers:
            return False
        party = self.receivers.pop(0)
        if not order:
            order = self.commits = self.commits + 1
        party.served, party.value, party.order = True, value, order
        self.received += 1
        return True

    def put(self, value: int) -> bool:
        if self.senders:
            return False
        if not self.serve_receiver(value):
            if self.room() < 1:
                return False
            self.buffer.append(value)
        return True

    def serve(self) -> None:
        """Let those go on who wait to send, as far as the first of them can."""
        while self.senders:
            first = self.senders[0]
            if first.kind == "reserve":
                if self.room() < first.places:
                    return
                self.senders.pop(0).served = True
            elif self.serve_receiver(first.value):
                self.senders.pop(0).served = True
            elif self.room() >= 1:
                self.senders.pop(0).served = True
                self.buffer.append(first.value)
            else:
                return

    def take(self) -> list[int]:
        if self.returned:
            value = self.returned.pop(0)[1]
        elif self.buffer:
            value = self.buffer.pop(0)
        elif self.senders and self.senders[0].kind == "send":
            first = self.senders.pop(0)
            first.served = True
            value = first.value
        else:
            return []
        self.received += 1
        self.serve()
        return [value]

    def give_back(self, value: int, order: int) -> None:
        self.received -= 1
        self.gave_back += 1
        if self.end == CANCELLED:
            self.undelivered.append(value)
        elif not self.serve_receiver(value, order):
            self.returned.append((order, value))
            self.returned.sort()

    def over(self) -> bool:
        """For receivers that find nothing."""
        return self.end == CANCELLED or (self.end == CLOSED and not self.held())

    def conclude(self) -> None:
        if self.end:
            for party in self.senders:
                party.ended = True
            self.senders.clear()
        if self.over():
            for party in self.receivers:
                party.ended = True
            self.receivers.clear()
        if self.end == CANCELLED:
            self.undelivered += [value for _, value in self.returned] + self.buffer
            self.returned.clear()
            self.buffer.clear()

    def freed(self) -> None:
        """Places may have become free."""
        self.serve()
        self.conclude()

    # ------------------------------------------------------------- parking
    def park(self, kind: str, op: Op[Any], form: str, **about: Any) -> None:
        if form == "within":
            op = op.within(3600)
        elif form == "select":
            op = select(op, self.bell.wait(), biased=True).map(lambda pair: pair[1] if pair[0] == 0 else self.bell)
        party = self.perform(op, kind=kind, form=form, ended=False, order=0, **about)
        queue = self.receivers if kind == "receive" else self.senders
        can = self.can(kind, about.get("places", 0))
        if party in self.ran:
            self.ran.remove(party)
            assert can, f"{kind} happened, though it had to wait"
            self.check_at_once(party)
            self.settle()
        else:
            assert not can, f"{kind} waits, though it can happen"
            queue.append(party)
            self.parked.append(party)

    @property
    def bell(self) -> Event:
        """What the other arm of a select waits for."""
        return self._bell

    def can(self, kind: str, places: int) -> bool:
        if kind == "receive":
            return bool(self.size() or (self.senders and self.senders[0].kind == "send") or self.over())
        if self.end:
            return True
        if self.senders:
            return False
        if kind == "reserve":
            return self.room() >= places
        return bool(self.receivers) or self.room() >= 1

    def check_at_once(self, party: Parked) -> None:
        if party.error is not None:
            self.check_error(party)
        elif party.kind == "receive":
            assert self.take() == [party.result]
        elif party.kind == "send":
            assert self.put(party.value)
        else:
            self.grant(party)

    def check_error(self, party: Parked) -> None:
        error = party.error
        if party.kind == "receive" and self.end == CLOSED:
            assert type(error) is EndOfChannel
            assert party.ended or not self.size()  # what is given back may come after others saw the end
        else:
            assert type(error) is HandleClosed
            assert self.end
        assert error.channel is self.channel

    def grant(self, party: Parked) -> None:
        permit = party.result
        assert isinstance(permit, Permit)
        assert permit.left == party.places
        self.permits.append((permit, party.places))

    # ------------------------------------------------------------- rules
    def __init__(self) -> None:
        super().__init__()
        self._bell = Event()

    forms = st.sampled_from(["op", "op", "within", "select"])

    @rule(places=several, form=forms)
    def reserve(self, places: int, form: str) -> None:
        places = int(min(places, self.capacity))
        self.park("reserve", self.channel.reserve(places), form, places=places)

    @rule(form=forms)
    def send(self, form: str) -> None:
        value = next(self.fresh)
        self.park("send", self.channel.send(value), form, value=value)

    @rule(form=forms)
    def receive(self, form: str) -> None:
        self.park("receive", self.channel.receive(), form, value=None)

    @precondition(lambda self: any(party.form == "select" for party in self.parked))
    @rule()
    def ring(self) -> None:
        """All selects end by their other arm, and leave their places in the queues."""
        self._bell.set()
        for party in [*self.senders, *self.receivers]:
            if party.form == "select":
                (self.receivers if party.kind == "receive" else self.senders).remove(party)
                party.rung = True
        self.settle_after_leaving()
        self._bell.clear()

    actions = st.lists(
        st.one_of(
            st.tuples(st.just("send_nowait"), several),
            st.tuples(st.just("receive_nowait"), several),
            st.tuples(st.just("fill"), several),
            st.tuples(st.just("fill"), several),
            st.tuples(st.just("release"), several),
            st.tuples(st.just("force"), several),
            st.tuples(st.just("drain"), several),
            st.tuples(st.just("poll_reserve"), several),
            st.tuples(st.just("cancel_tasks"), several),
            st.tuples(st.just("cancel_tasks"), several),
        ),
        min_size=1,
        max_size=4,
    )

    @rule(script=actions)
    def act(self, script: list[tuple[str, int]]) -> None:
        """All at a stroke."""
        for name, many in script:
            getattr(self, f"do_{name}")(many)
        self.settle()

    @rule(how=st.sampled_from(["close", "close", "cancel"]), script=actions, chance=st.integers(0, 3))
    def finish(self, how: str, script: list[tuple[str, int]], chance: int) -> None:
        if chance == 0:
            end = CANCELLED if how == "cancel" else CLOSED
            assert getattr(self.channel, how)() is (self.end < end)
            self.end = max(self.end, end)
            self.conclude()
        self.act(script)

    def do_send_nowait(self, many: int) -> None:
        for _ in range(many):
            value = next(self.fresh)
            try:
                self.channel.send_nowait(value)
            except ChannelFull:
                assert not self.end
                assert not self.put(value), "there was room"
            except HandleClosed:
                assert self.end
            else:
                assert not self.end
                assert self.put(value), "it passed somebody, or went into a place that was promised"

    def do_receive_nowait(self, many: int) -> None:
        for _ in range(many):
            try:
                value = self.channel.receive_nowait()
            except ChannelEmpty:
                assert not self.can("receive", 0)
            except (EndOfChannel, HandleClosed) as error:
                over = HandleClosed if self.end == CANCELLED else EndOfChannel
                assert type(error) is over  # noqa: PT017
                assert self.over()
                assert not self.size()
            else:
                assert self.take() == [value]

    def do_fill(self, many: int) -> None:
        if not self.permits:
            return
        place = many % len(self.permits)
        permit, left = self.permits[place]
        for _ in range(many):
            value = next(self.fresh)
            try:
                permit.send(value)
            except HandleClosed:
                assert self.end == CANCELLED
                assert left
            except RuntimeError:
                assert not left
            else:
                assert left, "it sent without a place"
                left -= 1
                self.permits[place] = (permit, left)
                if not self.serve_receiver(value):
                    self.buffer.append(value)
                self.freed()

    def do_release(self, many: int) -> None:
        if self.permits:
            permit, _ = self.permits.pop(many % len(self.permits))
            permit.release()
            permit.release()  # once more: no effect
            with pytest.raises(RuntimeError):
                permit.send(0)
            self.freed()

    def do_force(self, many: int) -> None:
        value = next(self.fresh)
        try:
            displaced = self.channel.force_send(value)
        except HandleClosed:
            assert self.end
            return
        except ChannelFull:
            assert not self.end
            assert not self.receivers
            assert self.room() < 1
            assert not self.size()
            return
        assert not self.end
        expected: list[int] = []
        if not self.serve_receiver(value):
            if self.room() < 1:
                expected = [self.returned.pop(0)[1] if self.returned else self.buffer.pop(0)]
                self.forced_out += 1
            self.buffer.append(value)
        assert displaced == expected

    def do_drain(self, many: int) -> None:
        taken: list[int] = []
        while got := self.take():
            taken += got
        assert self.channel.drain() == taken

    def do_poll_reserve(self, many: int) -> None:
        places = int(min(many, self.capacity))
        can = self.can("reserve", places)
        try:
            permit = self.channel.reserve(places).poll()
        except ChannelFull:
            assert not can
        except HandleClosed:
            assert self.end
        else:
            assert can
            assert not self.end
            self.permits.append((permit, places))

    def do_cancel_tasks(self, many: int) -> None:
        self.cancel_some(range(many - 1, many + 1))

    # ------------------------------------------------------------- what became of the parked
    def settle_after_leaving(self) -> None:
        self.freed()  # others may fit now that they have gone
        self.settle()

    def settle(self) -> None:
        while True:
            self.step()
            ran, self.ran = self.ran, []
            if not ran:
                break
            for party in ran:
                self.parked.remove(party)
                self.follow(party)
                self.freed()
        for party in self.parked:
            assert not party.served, f"a {party.kind} was served, and sleeps"
            assert not party.ended, f"a {party.kind} sleeps past the end"
            assert not party.cancelled, f"a {party.kind} was cancelled, and sleeps"

    def follow(self, party: Parked) -> None:
        if getattr(party, "rung", False):
            assert party.result is self._bell or type(party.error) is asyncio.CancelledError
        elif not party.cancelled:
            if party.ended:
                assert party.error is not None
                self.check_error(party)
                return
            assert party.served, f"a {party.kind} went on, though nobody served it: {party.error or party.result!r}"
            assert party.error is None
            if party.kind == "reserve":
                self.grant(party)
            else:
                assert party.result == (party.value if party.kind == "receive" else None)
        elif party.served and party.kind == "send" and REARMS:
            assert party.error is None
        else:
            assert type(party.error) is asyncio.CancelledError
            assert delivered(party.error) == (party.served and party.kind == "send")
            if party.served and party.kind == "receive":
                self.give_back(party.value, party.order)
            for queue in (self.senders, self.receivers):
                if party in queue:
                    queue.remove(party)

    # ------------------------------------------------------------- always
    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "channel"):
            return
        now = self.channel.statistics()
        assert now.buffered == self.size()
        assert now.waiting_senders == len(self.senders)
        assert now.waiting_receivers == len(self.receivers)
        assert now.received == self.received
        assert now.dropped == len(self.undelivered) + self.forced_out
        assert self.told == self.undelivered
        assert self.channel.is_closed == bool(self.end)
        assert [permit.left for permit, _ in self.permits] == [left for _, left in self.permits]
        # what cancelled receivers gave back may exceed the capacity for a moment
        assert self.held() + self.size() <= self.capacity + self.gave_back

    def teardown(self) -> None:
        for permit, _ in getattr(self, "permits", []):
            permit.release()
        super().teardown()
        for party in self.parked:
            if isinstance(party.result, Permit):
                party.result.release()


@sizes(60, 700)
def test_permits_behave_as_their_sequential_model(examples: int) -> None:
    explore_machine(PermitMachine, examples)


# ===================================================================== what the machine has found, in every world
async def parked_sender(ch: Channel[int], op: Op[Any]) -> Any:
    """Perform it in a child, and see it wait."""
    before = ch.statistics().waiting_senders
    child = spawn(perform, op)
    await settle(lambda: child.done or ch.statistics().waiting_senders == before + 1)
    return child


async def perform(op: Op[Any]) -> Any:
    return await op


def test_a_reservation_waits_for_room(world: World) -> None:
    ch = Channel[int](1)
    ch.send_nowait(1)

    async def body() -> None:
        reserving = await parked_sender(ch, ch.reserve())
        assert not reserving.done
        assert ch.receive_nowait() == 1
        with await reserving.wait() as permit:
            permit.send(2)
        assert ch.drain() == [2]

    world.run(body)


def test_nobody_passes_a_reservation_that_waits_for_more_than_there_is(world: World) -> None:
    ch = Channel[int](2)
    ch.send_nowait(1)

    async def body() -> None:
        reserving = await parked_sender(ch, ch.reserve(2))
        with pytest.raises(ChannelFull):
            ch.send_nowait(2)
        with pytest.raises(ChannelFull):
            ch.send(3).poll()
        with pytest.raises(ChannelFull):
            ch.reserve(1).poll()
        assert ch.receive_nowait() == 1
        (await reserving.wait()).release()

    world.run(body)


def gives_up(ch: Channel[int], op: Op[Any]) -> tuple[Op[Any], Callable[[], object]]:
    """It, and what makes it stop waiting by itself."""
    other = Event()
    return select(op, other), other.set


def test_senders_behind_a_reservation_that_lost_its_select_go_on(world: World) -> None:
    ch = Channel[int](2)
    ch.send_nowait(1)

    async def body() -> None:
        op, stop = gives_up(ch, ch.reserve(2))
        reserving = await parked_sender(ch, op)
        sending = await parked_sender(ch, ch.send(2))
        stop()
        assert await reserving.wait() == (1, None)
        await settle(lambda: sending.done)
        assert ch.drain() == [1, 2]

    world.run(body)


def test_senders_behind_a_reservation_that_is_cancelled_go_on(loop_world: World) -> None:
    ch = Channel[int](2)
    ch.send_nowait(1)

    async def body() -> None:
        reserving = await parked_sender(ch, ch.reserve(2))
        sending = await parked_sender(ch, ch.send(2))
        reserving.cancel()
        await settle(lambda: sending.done)
        assert ch.drain() == [1, 2]

    loop_world.run(body)


def test_senders_behind_a_reservation_whose_time_is_over_go_on(world: World) -> None:
    ch = Channel[int](2)
    ch.send_nowait(1)

    async def body() -> None:
        reserving = await parked_sender(ch, ch.reserve(2).within(0.3))
        sending = await parked_sender(ch, ch.send(2))
        with pytest.raises(TimeoutError):
            await reserving.wait()
        await settle(lambda: sending.done)
        assert ch.drain() == [1, 2]

    world.run(body)


async def sender_behind_a_granted_reservation(ch: Channel[int]) -> tuple[Any, Any, Permit[int]]:
    """A channel of one place, which is promised; one who waits to receive and one who waits to send."""
    held = ch.reserve().poll()
    receiving = spawn(perform, ch.receive())
    await settle(lambda: ch.statistics().waiting_receivers == 1)
    reserving = await parked_sender(ch, ch.reserve())
    sending = await parked_sender(ch, ch.send(7))
    held.release()
    return receiving, sending, await reserving.wait()


def test_a_sender_and_a_receiver_meet_although_all_places_are_promised(world: World) -> None:
    """As they do if no reservation has stood before the sender."""
    ch = Channel[int](1)

    async def body() -> None:
        receiving, sending, permit = await sender_behind_a_granted_reservation(ch)
        with permit:
            await settle(lambda: receiving.done and sending.done)
            assert await receiving.wait() == 7

    world.run(body)


def test_who_comes_later_does_not_receive_before_one_who_waits(world: World) -> None:
    ch = Channel[int](1)

    async def body() -> None:
        receiving, _, permit = await sender_behind_a_granted_reservation(ch)
        with permit:
            with pytest.raises(ChannelEmpty):
                ch.receive_nowait()
            permit.send(8)
        await receiving.wait()
        ch.cancel()

    world.run(body)
