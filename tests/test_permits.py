"""Reserving places in a channel: who gets them, what may be done with them, and how they come back.

Suites followed: tokio's `mpsc` (reserve, reserve_many, `recv_close_gets_none_reserved`) and its semaphore (a big
request holds back smaller ones). What is different here: a permit is no owner of a sender, and the end of a
channel waits for permits also when the last counted sender has gone.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from elsewhere import elsewhere, here
from hypothesis import given
from hypothesis import strategies as st
from worlds import ALL, ChildCancelled, Handle, Pair, World, run_together, settle, spawn, waiting

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    Event,
    HandleClosed,
    Permit,
    WouldBlock,
    after,
    open_channel,
    select,
    sleep,
)


async def parked(ch: Any, *ops: Callable[[], Any]) -> list[Handle]:
    """One child for each of `ops`, waiting on the sending side in this order."""
    children = []
    before = waiting(ch)[0]
    for op in ops:
        children.append(spawn(op))
        await settle(lambda: waiting(ch)[0] == before + len(children) or children[-1].done)
        assert not children[-1].done
    return children


async def parked_receivers(ch: Any, *ops: Callable[[], Any]) -> list[Handle]:
    children = []
    for op in ops:
        children.append(spawn(op))
        await settle(lambda: waiting(ch)[1] == len(children) or children[-1].done)
        assert not children[-1].done
    return children


def free(ch: Channel[Any]) -> int:
    """How many places are neither used nor promised, where nobody waits for one."""
    assert waiting(ch) == (0, 0)
    permits: list[Permit[Any]] = []
    try:
        while True:
            permits.append(ch.reserve().poll())
    except WouldBlock:
        with pytest.raises(ChannelFull):
            ch.send_nowait("one more")
    for permit in permits:
        permit.release()
    return len(permits)


def resource_warnings(caught: pytest.WarningsRecorder) -> list[str]:
    return [str(found.message) for found in caught if found.category is ResourceWarning]


# ----------------------------------------------------------------- reserving and using
def test_a_permit_sends_what_it_is_given(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        permit = await ch.reserve()
        assert isinstance(permit, Permit)
        assert permit.left == 1
        permit.send(1)
        assert permit.left == 0
        assert await ch.receive() == 1

    world.run(body)


def test_several_places_are_filled_one_by_one(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        permit = await ch.reserve(3)
        for n in range(3):
            assert permit.left == 3 - n
            permit.send(n)
        assert permit.left == 0
        assert ch.drain() == [0, 1, 2]

    world.run(body)


def test_a_reserved_place_is_taken_though_nothing_is_in_it(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        with await ch.reserve(2):
            assert len(ch) == 0
            assert ch.statistics().buffered == ch.statistics().peak == ch.statistics().sent == 0
            ch.send_nowait(0)
            with pytest.raises(ChannelFull):
                ch.send_nowait(1)
            assert await ch.send_some([]) == 0
            with pytest.raises(WouldBlock):
                ch.send_some([1, 2]).poll()
            with pytest.raises(WouldBlock):
                ch.reserve().poll()
        assert ch.drain() == [0]
        assert free(ch) == 3

    world.run(body)


def test_send_some_takes_what_is_not_reserved(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        with await ch.reserve(2) as permit:
            assert await ch.send_some(range(9)) == 3
            permit.send(9)
            assert ch.drain() == [0, 1, 2, 9]

    world.run(body)


def test_all_places_may_be_reserved_at_once(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](4)
        with await ch.reserve(4) as permit:
            assert free(ch) == 0
            for n in range(4):
                permit.send(n)
            with pytest.raises(ChannelFull):
                ch.send_nowait(4)
        assert ch.drain() == [0, 1, 2, 3]

    world.run(body)


def test_without_bound_any_number_may_be_reserved(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](math.inf)
        with await ch.reserve(10**9) as permit:
            ch.send_nowait(0)
            permit.send(1)
            assert ch.drain() == [0, 1]
            with await ch.reserve(10**9):
                pass

    world.run(body)


def test_a_reservation_waits_until_all_its_places_are_free(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        await ch.send_all([0, 1, 2])
        (reserving,) = await parked(ch, lambda: ch.reserve(2))
        assert await ch.receive() == 0
        assert not reserving.done
        assert waiting(ch) == (1, 0)
        assert await ch.receive() == 1
        permit = await reserving.wait()
        assert permit.left == 2
        assert free(ch) == 0
        permit.send(3)
        permit.send(4)
        assert ch.drain() == [2, 3, 4]

    world.run(body)


def test_what_a_permit_sends_goes_to_a_waiting_receiver(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        permit = await ch.reserve(2)
        receivers = await parked_receivers(ch, ch.receive, ch.receive_some)
        permit.send(1)
        permit.send(2)
        assert [await receiver.wait() for receiver in receivers] == [1, [2]]
        assert ch.statistics().received == 2
        assert free(ch) == 2

    world.run(body)


def test_a_permit_may_be_used_after_later_sends(world: World) -> None:
    """Its place is its place in the count, not in the order: values come in the order in which they are sent."""

    async def body() -> None:
        ch = Channel[str](3)
        with await ch.reserve() as permit:
            await ch.send("later reserved, sooner sent")
            permit.send("last")
        assert ch.drain() == ["later reserved, sooner sent", "last"]

    world.run(body)


@pytest.mark.parametrize("order", ["lifo", "priority"])
def test_what_a_permit_sends_takes_part_in_the_order(world: World, order: Any) -> None:
    async def body() -> None:
        ch = Channel[int](3, order=order)
        with await ch.reserve(2) as permit:
            await ch.send(2)
            permit.send(3)
            permit.send(1)
        assert ch.drain() == {"lifo": [1, 3, 2], "priority": [1, 2, 3]}[order]

    world.run(body)


def test_reserve_composes_like_any_operation(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        ch.reserve().poll().send(1)
        (await ch.reserve().within(60)).send(2)
        ch.drain()
        assert await ch.reserve(2).map(lambda permit: (permit.left, permit.release())) == (2, None)
        with await ch.sender().reserve() as permit:
            permit.send(3)
        assert ch.drain() == [3]

    world.run(body)


def test_reserve_in_a_plain_thread() -> None:
    ch = Channel[int](1)
    with ch.reserve().sync() as permit:
        with pytest.raises(TimeoutError):
            ch.reserve().sync(0)
        with pytest.raises(TimeoutError):
            ch.reserve().sync(0.001)
        permit.send(1)
    assert ch.drain() == [1]
    assert waiting(ch) == (0, 0)


# ----------------------------------------------------------------- first in, first out
def test_reservations_and_senders_are_served_in_the_order_of_their_arrival(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        await ch.send("a")
        first, second, third, fourth = await parked(
            ch, lambda: ch.send("b"), ch.reserve, lambda: ch.send("d"), lambda: select(Event(), ch.reserve())
        )
        assert await ch.receive() == "a"
        await first.wait()
        assert waiting(ch) == (3, 0)
        assert await ch.receive() == "b"
        (await second.wait()).send("c")
        assert waiting(ch) == (2, 0)
        assert await ch.receive() == "c"
        await third.wait()
        assert waiting(ch) == (1, 0)
        assert await ch.receive() == "d"
        _, permit = await fourth.wait()
        permit.send("e")
        assert ch.drain() == ["e"]

    world.run(body)


@pytest.mark.parametrize("behind", ["send", "send_some", "reserve", "select"])
def test_a_big_reservation_holds_back_who_comes_later(world: World, behind: str) -> None:
    async def body() -> None:
        ch = Channel[Any](3)
        await ch.send_all(["a", "b"])
        ops: dict[str, Callable[[], Any]] = {
            "send": lambda: ch.send("late"),
            "send_some": lambda: ch.send_some(["late"]),
            "reserve": ch.reserve,
            "select": lambda: select(Event(), ch.send("late")),
        }
        big, small = await parked(ch, lambda: ch.reserve(2), ops[behind])
        with pytest.raises(ChannelFull):
            ch.send_nowait("now")
        for op in (ch.send("now"), ch.send_some(["now"]), ch.reserve(), select(ch.send("now"))):
            with pytest.raises(WouldBlock):
                op.poll()
            op.close()
        assert await ch.receive() == "a"  # now there is room for the big one, and for no more
        permit = await big.wait()
        assert not small.done
        assert waiting(ch) == (1, 0)
        assert await ch.receive() == "b"
        got = await small.wait()
        permit.send("big")
        permit.send("big too")
        if behind == "reserve":
            got.send("late")
        assert sorted(ch.drain()) == ["big", "big too", "late"]

    world.run(body)


def test_a_reservation_does_not_pass_a_waiting_sender(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        await ch.send(0)
        (sending,) = await parked(ch, lambda: ch.send(1))
        with pytest.raises(WouldBlock):
            ch.reserve().poll()
        (reserving,) = await parked(ch, ch.reserve)
        assert await ch.receive() == 0
        await sending.wait()
        assert not reserving.done
        assert await ch.receive() == 1
        (await reserving.wait()).release()

    world.run(body)


def test_the_receivers_of_a_channel_without_room_take_from_waiting_senders(world: World) -> None:
    """All places are promised, so values go from sender to receiver as on a rendezvous."""

    async def body() -> None:
        ch = Channel[str](2)
        with await ch.reserve(2):
            (sending,) = await parked(ch, lambda: ch.send("a"))
            assert await ch.receive() == "a"
            await sending.wait()
            (receiving,) = await parked_receivers(ch, ch.receive)
            await ch.send("b")
            assert await receiving.wait() == "b"
            senders = await parked(ch, lambda: ch.send("c"), lambda: ch.send("d"))
            assert ch.drain() == ["c", "d"]
            for sender in senders:
                await sender.wait()
        assert free(ch) == 2

    world.run(body)


def test_receivers_do_not_take_past_a_waiting_reservation(world: World) -> None:
    """The sender behind it would pass it."""

    async def body() -> None:
        ch = Channel[str](1)
        permit = await ch.reserve()
        reserving, sending = await parked(ch, ch.reserve, lambda: ch.send("late"))
        with pytest.raises(ChannelEmpty):
            ch.receive_nowait()
        assert ch.drain() == []
        permit.send("a")
        assert await ch.receive() == "a"
        second = await reserving.wait()
        second.send("b")
        assert await ch.receive() == "b"
        assert await ch.receive() == "late"
        await sending.wait()

    world.run(body)


@pytest.mark.parametrize("how", ["send", "release", "with"])
def test_a_sender_that_comes_to_the_front_meets_the_receivers_that_wait(world: World, how: str) -> None:
    """Two receivers wait; behind a reservation a sender does. Once that is granted nobody stands between them."""

    async def body() -> None:
        ch = Channel[str](1)
        permit = await ch.reserve()
        receivers = await parked_receivers(ch, ch.receive, ch.receive)
        reserving, sending = await parked(ch, ch.reserve, lambda: ch.send("late"))
        if how == "send":
            permit.send("first")
        elif how == "release":
            permit.release()
        else:
            with permit:
                pass
        second = await reserving.wait()
        await settle(lambda: sending.done)
        await sending.wait()
        if how != "send":
            second.send("first")
        else:
            second.release()
        assert sorted([await receiver.wait() for receiver in receivers]) == ["first", "late"]
        assert waiting(ch) == (0, 0)

    world.run(body)


def test_a_reservation_in_front_that_gives_up_lets_a_sender_meet_a_waiting_receiver(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        permit = await ch.reserve()
        (receiving,) = await parked_receivers(ch, ch.receive)
        gave_up = Event()
        reserving, sending = await parked(ch, lambda: select(gave_up, ch.reserve()), lambda: ch.send("late"))
        gave_up.set()
        assert await reserving.wait() == (0, None)
        await settle(lambda: sending.done)
        await sending.wait()
        assert await receiving.wait() == "late"
        permit.release()

    world.run(body)


# ----------------------------------------------------------------- giving up while waiting
async def by_limit(ch: Channel[Any], places: int, give_up: Event) -> None:
    """It is over by itself."""
    op = ch.reserve(places).within(0.05)
    with pytest.raises(TimeoutError, match="did not happen within"):
        await op


async def by_select(ch: Channel[Any], places: int, give_up: Event) -> None:
    assert await select(give_up, ch.reserve(places)) == (0, None)


async def by_nested_select(ch: Channel[Any], places: int, give_up: Event) -> None:
    assert await select(select(ch.reserve(places), give_up).map(str), sleep(60)) == (0, "(1, None)")


Leave = Callable[[Channel[Any], int, Event], Awaitable[None]]
leaves = pytest.mark.parametrize("leave", [by_limit, by_select, by_nested_select])


@leaves
@pytest.mark.parametrize("behind", ["send", "send_some", "reserve", "select", "two sends"])
def test_a_big_reservation_that_gives_up_lets_those_behind_it_in(world: World, leave: Leave, behind: str) -> None:
    async def body() -> None:
        ch = Channel[Any](4)
        await ch.send_all(["a", "b"])
        gave_up = Event()
        leaving = spawn(leave, ch, 3, gave_up)
        await settle(lambda: waiting(ch) == (1, 0) or leaving.done)
        ops: dict[str, list[Callable[[], Any]]] = {
            "send": [lambda: ch.send("late")],
            "send_some": [lambda: ch.send_some(["late"])],
            "reserve": [ch.reserve],
            "select": [lambda: select(Event(), ch.send("late"))],
            "two sends": [lambda: ch.send("late"), lambda: ch.send("later")],
        }
        children = [spawn(op) for op in ops[behind]]
        if leave is not by_limit:
            assert not leaving.done
            await settle(lambda: waiting(ch) == (1 + len(children), 0))
        gave_up.set()
        await leaving.wait()
        await settle(lambda: all(child.done for child in children))
        got = [await child.wait() for child in children]
        if behind == "reserve":
            got[0].send("late")
        assert waiting(ch) == (0, 0)
        assert sorted(ch.drain()) == ["a", "b", "late", "later"][: 2 + len(children)]
        assert free(ch) == 4

    world.run(body)


@leaves
def test_a_reservation_that_gave_up_has_taken_nothing(world: World, leave: Leave) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        await ch.send(0)
        gave_up = Event()
        leaving = spawn(leave, ch, 2, gave_up)
        await settle(lambda: waiting(ch) == (1, 0) or leaving.done)
        gave_up.set()
        await leaving.wait()
        assert waiting(ch) == (0, 0)
        await ch.send(1)
        assert ch.drain() == [0, 1]
        assert free(ch) == 2

    world.run(body)


def test_a_cancelled_reservation_lets_those_behind_it_in(loop_world: World) -> None:
    async def body() -> None:
        ch = Channel[str](2)
        await ch.send("a")
        big, small = await parked(ch, lambda: ch.reserve(2), lambda: ch.send("b"))
        big.cancel()
        with pytest.raises(ChildCancelled):
            await big.wait()
        await settle(lambda: small.done)
        await small.wait()
        assert ch.drain() == ["a", "b"]
        assert free(ch) == 2

    loop_world.run(body)


def test_a_cancelled_reservation_in_the_middle_leaves_the_order_as_it_was(loop_world: World) -> None:
    async def body() -> None:
        ch = Channel[str](2)
        await ch.send_all("ab")
        first, second, third = await parked(ch, lambda: ch.send("c"), lambda: ch.reserve(2), lambda: ch.send("d"))
        second.cancel()
        with pytest.raises(ChildCancelled):
            await second.wait()
        assert waiting(ch) == (2, 0)
        assert await ch.receive_some() == ["a", "b", "c", "d"]
        await first.wait()
        await third.wait()
        assert free(ch) == 2

    loop_world.run(body)


@pytest.mark.parametrize("grant", [here, elsewhere])
@pytest.mark.parametrize("shape", ["reserve", "map", "within", "select"])
def test_a_reservation_cancelled_after_it_was_granted_loses_no_place(
    loop_world: World, grant: Callable[[Callable[[], object]], None], shape: str
) -> None:
    """The table's row of permits: on asyncio they go to the next waiter; in trio the operation completes."""

    async def body() -> None:
        ch = Channel[str](2)
        await ch.send_all("ab")
        ops: dict[str, Callable[[], Any]] = {
            "reserve": lambda: ch.reserve(2),
            "map": lambda: ch.reserve(2).map(lambda permit: permit),
            "within": lambda: ch.reserve(2).within(60),
            "select": lambda: select(Event(), ch.reserve(2)).map(lambda got: got[1]),
        }
        first, second = await parked(ch, ops[shape], lambda: ch.reserve(2))
        grant(ch.drain)  # the first has its places, but has not run since
        first.cancel()
        try:
            (await first.wait()).release()
        except ChildCancelled:
            pass
        permit = await second.wait()
        assert permit.left == 2
        permit.release()
        assert free(ch) == 2
        assert waiting(ch) == (0, 0)

    loop_world.run(body)


def test_a_granted_reservation_cancelled_by_a_task_goes_to_the_next(aio: World) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        await ch.send("a")
        first, sending = await parked(ch, ch.reserve, lambda: ch.send("b"))
        assert ch.receive_nowait() == "a"
        first.cancel()
        with pytest.raises(ChildCancelled):
            await first.wait()
        await sending.wait()
        assert ch.drain() == ["b"]
        assert free(ch) == 1

    aio.run(body)


def test_a_reservation_whose_loop_is_over_gives_its_places_back() -> None:
    """Granted to a task that will never run again."""
    ch = Channel[str](1)
    ch.send_nowait("a")
    loop = asyncio.new_event_loop()
    task = loop.create_task(ch.reserve())
    while waiting(ch) != (1, 0):  # it may give the loop a turn first
        loop.call_soon(loop.stop)
        loop.run_forever()
    elsewhere(ch.drain)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task
    gc.collect()
    assert free(ch) == 1


def test_a_reservation_that_is_never_performed_takes_nothing() -> None:
    ch = Channel[int](1)
    with pytest.warns(RuntimeWarning, match="reserve 1 of <Channel") as caught:
        ch.reserve()
    assert resource_warnings(caught) == []
    assert free(ch) == 1


@given(
    capacity=st.integers(1, 4),
    script=st.lists(
        st.tuples(st.sampled_from(["reserve", "send", "take", "use", "release", "leave"]), st.integers(0, 4))
    ),
)
def test_any_sequence_of_reservations_is_first_in_first_out(capacity: int, script: list[tuple[str, int]]) -> None:
    """Against a model: a line of who waits, of whom the first comes in as soon as there is room for it."""

    async def body() -> None:
        ch = Channel[int](capacity)
        inside: list[int] = []
        held = 0
        line: list[tuple[int, int, asyncio.Task[Any]]] = []  # (places or 0, value, task)
        permits: list[Permit[int]] = []
        granted: list[tuple[int, asyncio.Task[Any]]] = []

        async def progress() -> None:
            nonlocal held
            while line and len(inside) + held + (line[0][0] or 1) <= capacity:
                places, value, task = line.pop(0)
                if places:
                    held += places
                    granted.append((places, task))
                else:
                    inside.append(value)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not any(task.done() for _, _, task in line)
            for places, task in granted:
                permit = await asyncio.wait_for(task, 20)
                assert permit.left == places
                permits.append(permit)
            granted.clear()
            assert len(ch) == len(inside)
            assert waiting(ch) == (len(line), 0)

        async def perform(op: Any) -> Any:
            return await op

        for number, (kind, n) in enumerate(script):
            if kind == "reserve":
                places = n % capacity + 1
                line.append((places, 0, asyncio.create_task(perform(ch.reserve(places)))))
            elif kind == "send":
                line.append((0, number, asyncio.create_task(perform(ch.send(number)))))
            elif kind == "take" and inside:
                assert ch.receive_nowait() == inside.pop(0)
            elif kind == "use" and permits:
                permit = permits[n % len(permits)]
                if permit.left:
                    permit.send(number)
                    inside.append(number)
                    held -= 1
            elif kind == "release" and permits:
                permit = permits.pop(n % len(permits))
                held -= permit.left
                permit.release()
            elif kind == "leave" and line:
                _, _, task = line.pop(n % len(line))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0)
            await progress()
        for permit in permits:
            permit.release()
        ch.cancel()
        for *_, task in line:
            await asyncio.wait([task])
            if task.exception() is None:  # it had room at last
                result = task.result()
                if result is not None:
                    result.release()

    ALL["asyncio"].run(body)


# ----------------------------------------------------------------- giving back
def test_release_gives_back_what_is_left(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        permit = await ch.reserve(3)
        permit.send(0)
        permit.release()
        assert permit.left == 0
        assert free(ch) == 2
        permit.release()
        assert free(ch) == 2
        assert ch.drain() == [0]

    world.run(body)


def test_leaving_with_gives_back_what_is_left(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](3)
        with await ch.reserve(3) as permit:
            permit.send(0)
        assert permit.left == 0
        assert free(ch) == 2
        permit = await ch.reserve(2)
        with pytest.raises(OSError, match="disk"), permit:
            raise OSError("disk")
        assert free(ch) == 2
        assert not ch.is_closed
        ch.drain()

    world.run(body)


@pytest.mark.parametrize("how", ["used", "released", "left", "used in part"])
def test_a_permit_without_places_sends_nothing(world: World, how: str) -> None:
    async def body() -> None:
        ch = Channel[int](5)
        permit = await ch.reserve(2 if how == "used in part" else 1)
        match how:
            case "used":
                permit.send(0)
            case "released":
                permit.release()
            case "left":
                with permit:
                    pass
            case _:
                permit.send(0)
                permit.release()
        before = ch.statistics()
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"Permit.*no place left"):
                permit.send(9)
        assert ch.statistics() == before
        assert free(ch) == 5 - len(ch)

    world.run(body)


def test_places_given_back_go_to_who_waits(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](3)
        permit = await ch.reserve(3)
        one, two, three = await parked(ch, lambda: ch.send("a"), ch.reserve, lambda: ch.send("c"))
        permit.release()
        await one.wait()
        (await two.wait()).send("b")
        await three.wait()
        assert sorted(ch.drain()) == ["a", "b", "c"]

    world.run(body)


@pytest.mark.parametrize("left", [1, 2])
def test_a_dropped_permit_warns_and_gives_its_places_back(world: World, left: int) -> None:
    async def body() -> None:
        ch = Channel[str](2, name="jobs")
        permit = await ch.reserve(2)
        if left == 1:
            permit.send("a")
        sending = spawn(ch.send, "b")
        if left == 1:
            await settle(lambda: waiting(ch) == (1, 0) or sending.done)
        else:
            await settle(lambda: waiting(ch) == (1, 0))
        with pytest.warns(ResourceWarning, match=rf"Permit for {left} of 2 .*'jobs'.*dropped.*release"):
            del permit
        await sending.wait()
        assert ch.drain()[-1] == "b"
        assert free(ch) == 2

    world.run(body)


@pytest.mark.parametrize("how", ["used", "released"])
def test_a_permit_that_is_done_with_is_dropped_in_silence(how: str) -> None:
    ch = Channel[int](1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        permit = ch.reserve().poll()
        permit.send(1) if how == "used" else permit.release()
        del permit
    assert caught == []


def test_a_dropped_permit_gives_back_also_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run of tests with `-W error`: the warning is printed, and what it warns of is done all the same."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    ch = Channel[int](1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        permit = ch.reserve().poll()
        del permit
        gc.collect()
    assert free(ch) == 1


def test_a_dropped_permit_of_a_closed_channel_lets_it_end(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        permit = await ch.reserve()
        (receiving,) = await parked_receivers(ch, ch.receive)
        ch.close()
        assert not receiving.done
        with pytest.warns(ResourceWarning, match="dropped"):
            del permit
        with pytest.raises(EndOfChannel):
            await receiving.wait()

    world.run(body)


def test_a_permit_is_neither_copied_nor_pickled(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        with await ch.reserve() as permit:
            for twice in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="Permit"):
                    twice(permit)
            assert "1 of 1" in repr(permit)
        assert free(ch) == 1

    world.run(body)


# ----------------------------------------------------------------- permits and the end
def test_a_permit_granted_before_the_close_is_honoured_and_delays_the_end(world: World) -> None:
    """tokio: recv_close_gets_none_reserved."""

    async def body() -> None:
        ch = Channel[str](3)
        permit = await ch.reserve()
        await ch.send("a")
        ch.close()
        assert ch.is_closed
        await ch.wait_closed()
        assert ch.receive_nowait() == "a"
        for _ in range(2):
            with pytest.raises(ChannelEmpty):
                ch.receive_nowait()
            with pytest.raises(WouldBlock):
                ch.receive_some().poll()
        assert ch.drain() == []
        (receiving,) = await parked_receivers(ch, ch.receive)
        permit.send("b")
        assert await receiving.wait() == "b"
        with pytest.raises(EndOfChannel):
            await ch.receive()

    world.run(body)


RECEIVERS: dict[str, Callable[[Channel[str]], Any]] = {
    "receive": lambda ch: ch.receive(),
    "receive_some": lambda ch: ch.receive_some(),
    "select": lambda ch: select(after(60), ch),
    "within": lambda ch: ch.receive().within(60),
    "async for": lambda ch: anext(aiter(ch)),
}


@pytest.mark.parametrize("kind", RECEIVERS)
@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_a_permit_released_after_the_close_ends_it_for_those_who_wait(
    world: World, kind: str, cause: Exception | None
) -> None:
    async def body() -> None:
        ch = Channel[str](3)
        permit = await ch.reserve(2)
        (receiving,) = await parked_receivers(ch, lambda: RECEIVERS[kind](ch))
        ch.close(cause)
        for _ in range(10):
            await settle(lambda: True)
        assert waiting(ch) == (0, 1)
        permit.release()
        if kind == "async for" and cause is None:
            with pytest.raises(StopAsyncIteration):
                await receiving.wait()
        else:
            with pytest.raises(BrokenChannel if cause else EndOfChannel) as caught:
                await receiving.wait()
            assert caught.value.cause is cause
        with pytest.raises(BrokenChannel if cause else EndOfChannel):
            ch.receive_nowait()

    world.run(body)


def test_the_end_comes_with_the_last_of_several_permits(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](5)
        one, two = await ch.reserve(2), await ch.reserve()
        ch.close()
        one.send("a")
        one.send("b")
        assert await ch.receive_some() == ["a", "b"]
        with pytest.raises(ChannelEmpty):
            ch.receive_nowait()
        two.release()
        with pytest.raises(EndOfChannel):
            ch.receive_nowait()

    world.run(body)


def test_the_loops_of_receivers_wait_for_permits(pair: Pair) -> None:
    ch = Channel[int](3)

    async def produce() -> None:
        permit = await ch.reserve(3)
        ch.close()
        await settle(lambda: waiting(ch) == (0, 1))
        for n in range(3):
            permit.send(n)

    async def consume() -> list[int]:
        return [n async for n in ch]

    assert pair.run(produce, consume)[1] == [0, 1, 2]


@pytest.mark.parametrize("end", ["close", "cancel"])
@pytest.mark.parametrize("shape", ["reserve", "select", "within"])
def test_a_reservation_that_waits_fails_at_the_end(world: World, end: str, shape: str) -> None:
    async def body() -> None:
        ch = Channel[str](1)
        await ch.send("a")
        ops: dict[str, Callable[[], Any]] = {
            "reserve": ch.reserve,
            "select": lambda: select(Event(), ch.reserve()),
            "within": lambda: ch.reserve().within(60),
        }
        (reserving,) = await parked(ch, ops[shape])
        cause = OSError("disk")
        getattr(ch, end)(cause)
        with pytest.raises(HandleClosed) as caught:
            await reserving.wait()
        assert caught.value.cause is cause
        with pytest.raises(HandleClosed):
            await ch.reserve()
        with pytest.raises(HandleClosed):
            ch.reserve().poll()
        if end == "close":
            assert ch.drain() == ["a"]
        with pytest.raises(ChannelClosed):
            ch.receive_nowait()

    world.run(body)


def test_a_permit_of_a_cancelled_channel_refuses_and_keeps_nothing(world: World) -> None:
    async def body() -> None:
        gone: list[str] = []
        ch = Channel[str](3, on_undelivered=gone.append)
        permit = await ch.reserve(2)
        permit.send("a")
        ch.cancel()
        assert gone == ["a"]
        with pytest.raises(HandleClosed, match="cancelled"):
            permit.send("b")
        permit.release()
        permit.release()
        assert gone == ["a"]
        assert ch.statistics().dropped == 1
        with pytest.raises(HandleClosed):
            await ch.receive()

    world.run(body)


def test_a_cancel_after_the_close_does_not_wait_for_permits(world: World) -> None:
    async def body() -> None:
        ch = Channel[str](3)
        with await ch.reserve():
            ch.close()
            (receiving,) = await parked_receivers(ch, ch.receive)
            ch.cancel()
            with pytest.raises(HandleClosed):
                await receiving.wait()

    world.run(body)


def test_a_permit_is_honoured_past_the_last_sender(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[str](3)
        with rx:
            with tx:
                permit = await tx.reserve(2)
                await tx.send("a")
            assert await rx.receive() == "a"
            with pytest.raises(ChannelEmpty):
                rx.receive_nowait()
            (receiving,) = await parked_receivers(rx, rx.receive)
            permit.send("b")
            assert await receiving.wait() == "b"
            permit.send("c")
            assert [value async for value in rx] == ["c"]

    world.run(body)


def test_a_permit_past_the_last_sender_delays_the_cause_too(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[str](3)
        with rx:
            cause = OSError("disk")
            permit = await tx.reserve()
            tx.close(cause)
            permit.send("a")
            assert await rx.receive() == "a"
            with pytest.raises(BrokenChannel) as caught:
                await rx.receive()
            assert caught.value.cause is cause

    world.run(body)


@pytest.mark.parametrize("sender", ["open", "closed"])
def test_a_permit_without_any_receiver_left_refuses(world: World, sender: str) -> None:
    async def body() -> None:
        gone: list[str] = []
        tx, rx = open_channel[str](3, on_undelivered=gone.append)
        permit = await tx.reserve()
        if sender == "closed":
            tx.close()
        rx.close()
        with pytest.raises(BrokenChannel if sender == "open" else ChannelClosed):
            permit.send("a")
        permit.release()
        tx.close()
        assert gone == []

    world.run(body)


def test_a_reservation_that_waits_fails_with_the_last_receiver(world: World) -> None:
    async def body() -> None:
        tx, rx = open_channel[str](1)
        with tx:
            await tx.send("a")
            (reserving,) = await parked(tx, tx.reserve)
            rx.close()
            with pytest.raises(BrokenChannel):
                await reserving.wait()
            with pytest.raises(BrokenChannel):
                await tx.reserve()

    world.run(body)


# ----------------------------------------------------------------- in select
def test_a_reservation_that_wins_a_select_gives_its_permit(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        arm, permit = await select(Event(), ch.reserve(2))
        assert arm == 1
        permit.send(1)
        permit.send(2)
        assert ch.drain() == [1, 2]

    world.run(body)


def test_a_reservation_wins_a_select_while_it_waits(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        other = Channel[int](0)
        await ch.send(0)
        (selecting,) = await parked(ch, lambda: select(other, ch.reserve()))
        assert await ch.receive() == 0
        arm, permit = await selecting.wait()
        assert arm == 1
        permit.send(1)
        assert waiting(other) == (0, 0)
        assert ch.drain() == [1]

    world.run(body)


def test_a_reservation_that_loses_a_select_takes_nothing(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        for _ in range(50):
            done = Event()
            done.set()
            arm, _ = await select(done, ch.reserve(2), biased=True)
            assert arm == 0
            assert free(ch) == 2
        full = Channel[int](2)
        await full.send_all([1, 2])
        for _ in range(50):
            other = Channel[int](0)
            (selecting,) = await parked(full, lambda other=other: select(full.reserve(2), other))
            await other.send(5)
            assert await selecting.wait() == (1, 5)
        assert full.drain() == [1, 2]
        assert free(full) == 2

    world.run(body)


def test_of_several_reservations_in_a_select_one_is_granted(world: World) -> None:
    async def body() -> None:
        channels = [Channel[int](1) for _ in range(3)]
        for _ in range(30):
            arm, permit = await select(*[ch.reserve() for ch in channels])
            assert [free(ch) for ch in channels] == [int(n != arm) for n in range(3)]
            permit.release()

    world.run(body)


def test_reserve_on_two_channels_in_one_select_while_both_are_freed(world: World) -> None:
    async def body() -> None:
        one, two = Channel[int](1), Channel[int](1)
        for _ in range(20):
            one.send_nowait(1)
            two.send_nowait(1)
            (selecting,) = await parked(one, lambda: select(one.reserve(), two.reserve()))
            one.drain()
            two.drain()
            _, permit = await selecting.wait()
            assert free(one) + free(two) == 1
            permit.release()
            assert free(one) + free(two) == 2

    world.run(body)


# ----------------------------------------------------------------- across worlds
def test_a_permit_may_be_used_in_another_world(pair: Pair) -> None:
    ch = Channel[int](2)
    hand_over = Channel[Permit[int]](0)

    async def produce() -> None:
        permit = await ch.reserve(2)
        await hand_over.send(permit)
        assert await ch.receive() == 1
        await settle(lambda: not permit.left)
        assert free(ch) == 2

    async def consume() -> None:
        permit = await hand_over.receive()
        permit.send(1)
        permit.release()

    pair.run(produce, consume)


def test_a_reservation_in_one_world_is_granted_by_another(pair: Pair) -> None:
    ch = Channel[int](3)

    async def produce() -> None:
        for n in range(40):
            with await ch.reserve(1 + n % 3) as permit:
                permit.send(n)
        ch.close()

    async def consume() -> list[int]:
        return [n async for n in ch]

    assert pair.run(produce, consume)[1] == list(range(40))
    assert waiting(ch) == (0, 0)


def test_many_who_reserve_and_send_in_every_world_lose_nothing() -> None:
    ch = Channel[int](4)
    ended = threading.Barrier(4, action=ch.close)

    async def produce(first: int) -> None:
        for n in range(first, first + 120, 3):
            with await ch.reserve(1 + n % 4) as permit:
                permit.send(n)
            await ch.send(n + 1)
            try:
                (await ch.reserve(3).within(0.0005 * (n % 3))).release()
            except TimeoutError:
                pass
            await ch.send(n + 2)
        ended.wait(20)

    async def consume() -> list[int]:
        return [n async for n in ch]

    names = ("asyncio", "trio", "threads", "threads")
    *_, got, more = run_together(
        *[(ALL[name], produce, 1000 * n) for n, name in enumerate(names)],
        (ALL["threads"], consume),
        (ALL["asyncio"], consume),
    )
    assert sorted(got + more) == [1000 * place + n for place in range(4) for n in range(120)]
    assert waiting(ch) == (0, 0)


def test_a_permit_used_by_two_threads_at_once_is_used_once_per_place() -> None:
    for _ in range(30):
        ch = Channel[int](3)
        permit = ch.reserve(3).poll()
        start = threading.Barrier(4)
        refused: list[int] = []

        def use(
            n: int,
            start: threading.Barrier = start,
            permit: Permit[int] = permit,
            refused: list[int] = refused,
        ) -> None:
            start.wait()
            try:
                permit.send(n)
            except RuntimeError:
                refused.append(n)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ch.drain() + refused) == [0, 1, 2, 3]
        assert len(refused) == 1


# ----------------------------------------------------------------- what cannot be reserved
@pytest.mark.parametrize("places", [0, -1, 4, 10**30])
def test_fewer_than_one_place_or_more_than_the_capacity_is_a_value_error(places: int) -> None:
    ch = Channel[int](3, name="jobs")
    tx, rx = open_channel[int](3, name="jobs")
    with tx, rx:
        for side in (ch, ch.sender(), tx):
            with pytest.raises(ValueError, match=r"places .*from 1 to the capacity .*'jobs' 0/3.*not " + str(places)):
                side.reserve(places)
    assert free(ch) == 3


@pytest.mark.parametrize("places", [1.0, 1.5, math.inf, math.nan, True, False, None, "1", [1]])
def test_places_that_are_no_integer_are_a_type_error(places: Any) -> None:
    ch = Channel[int](3)
    with pytest.raises(TypeError, match=r"places must be an integer, not "):
        ch.reserve(places)
    assert free(ch) == 3


def test_a_rendezvous_has_no_places_to_reserve() -> None:
    ch = Channel[int](0, name="jobs")
    for places in (1, 0):
        with pytest.raises(ValueError, match=r"places .*capacity .*'jobs'"):
            ch.reserve(places)


@pytest.mark.parametrize("overflow", ["raise", "drop_oldest", "drop_newest"])
def test_where_senders_never_wait_there_is_nothing_to_reserve(overflow: Any) -> None:
    ch = Channel[int](2, overflow=overflow, name="jobs")
    with pytest.raises(ValueError, match=r"'jobs'.*overflow='wait'"):
        ch.reserve()


def test_with_priority_a_permit_keeps_its_place_for_a_value_that_compares(world: World) -> None:
    async def body() -> None:
        ch = Channel[Any](2, order="priority")
        await ch.send(1)
        with await ch.reserve() as permit:
            with pytest.raises(TypeError, match="order='priority'"):
                permit.send("two")
            assert permit.left == 1
            with pytest.raises(ChannelFull):
                ch.send_nowait(3)
            permit.send(0)
        assert ch.drain() == [0, 1]

    world.run(body)


# ----------------------------------------------------------------- permits and force_send
def test_force_send_does_not_take_promised_places(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        with await ch.reserve() as permit:
            assert ch.force_send(0) == []
            assert ch.force_send(1) == [0]
            permit.send(2)
        assert ch.drain() == [1, 2]
        with await ch.reserve(2):
            with pytest.raises(ChannelFull):
                ch.force_send(3)
            (receiving,) = await parked_receivers(ch, ch.receive)
            assert ch.force_send(4) == []
            assert await receiving.wait() == 4
        assert free(ch) == 2

    world.run(body)


def test_force_send_passes_a_reservation_that_waits(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](2)
        await ch.send(0)
        (reserving,) = await parked(ch, lambda: ch.reserve(2))
        assert ch.force_send(1) == []
        assert ch.force_send(2) == [0]
        assert ch.drain() == [1, 2]
        (await reserving.wait()).release()

    world.run(body)


def test_statistics_count_what_waits_to_reserve_as_a_sender(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        permit = await ch.reserve()
        assert ch.statistics() == (1, 0, 0, 0, None, None, 0, 0, 0, 0)
        (reserving,) = await parked(ch, ch.reserve)
        assert ch.statistics() == (1, 0, 1, 0, None, None, 0, 0, 0, 0)
        permit.send(1)
        assert ch.statistics() == (1, 1, 1, 0, None, None, 1, 0, 0, 1)
        ch.drain()
        (await reserving.wait()).release()
        assert ch.statistics() == (1, 0, 0, 0, None, None, 1, 1, 0, 1)

    world.run(body)
