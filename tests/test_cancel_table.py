"""Cancel against commit: each cell of the design's table, first by hand, then at random moments.

A cell is made by hand like this: an operation is parked, a peer commits it (in a task of the same loop, so that the
wake is already set; or in another thread, so that the wake still lies in the mailbox), and the cancellation comes
before the parked task has run again.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import anyio
import pytest
import trio
import worlds
from elsewhere import elsewhere, here
from worlds import REARMS, World, parked, run_together, settle, spawn, waiting

from chanlib import (
    Channel,
    EndOfChannel,
    Event,
    Future,
    FutureCancelled,
    HandleClosed,
    Op,
    select,
)

NOTE = "value was delivered"
LONG = 3600.0  # seconds: a limit that is not to be reached


Commit = Callable[[Callable[[], object]], None]
committed = pytest.mark.parametrize("commit", [here, elsewhere])
orders = pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)

Receive = Callable[[Channel[Any]], Op[Any]]
Send = Callable[[Channel[Any], Any], Op[Any]]

RECEIVES: dict[str, tuple[Receive, Callable[[Any], Any]]] = {
    "receive": (lambda ch: ch.receive(), lambda v: v),
    "receive_some": (lambda ch: ch.receive_some(5), lambda v: [v]),
    "map": (lambda ch: ch.receive().map(repr), repr),
    "within": (lambda ch: ch.receive().within(LONG), lambda v: v),
    "select": (lambda ch: select(Channel[int](0).receive(), ch.receive()), lambda v: (1, v)),
    "select with a send": (lambda ch: select(ch, Channel[int](0).send(1)), lambda v: (0, v)),
    "nested select": (lambda ch: select(select(Event(), ch), Event()), lambda v: (0, (1, v))),
}

SENDS: dict[str, tuple[Send, Any]] = {
    "send": (lambda ch, v: ch.send(v), None),
    "send_some": (lambda ch, v: ch.send_some([v, "more"]), 1),
    "map": (lambda ch, v: ch.send(v).map(lambda _: "sent"), "sent"),
    "within": (lambda ch, v: ch.send(v).within(LONG), None),
    "select": (lambda ch, v: select(Channel[int](0).receive(), ch.send(v)), (1, None)),
    "select of sends": (lambda ch, v: select(ch.send(v), Channel[int](0).send(1)), (0, None)),
}

receives = pytest.mark.parametrize(("receive", "shape"), list(RECEIVES.values()), ids=list(RECEIVES))
sends = pytest.mark.parametrize(("send", "result"), list(SENDS.values()), ids=list(SENDS))


def nobody_waits(*channels: Channel[Any]) -> bool:
    return all(waiting(ch) == (0, 0) for ch in channels)


def full(capacity: int) -> Channel[Any]:
    """A channel without room."""
    ch = Channel[Any](capacity)
    for n in range(capacity):
        ch.send_nowait(f"before {n}")
    return ch


def notes(error: BaseException | None) -> list[str]:
    """The notes of `error` and of what it came from."""
    found: list[str] = []
    while error is not None:
        found += getattr(error, "__notes__", [])
        error = error.__cause__ or error.__context__
    return found


def told_delivered(error: BaseException | None) -> bool:
    return any(NOTE in note for note in notes(error))


async def cancelled(task: asyncio.Task[Any]) -> asyncio.CancelledError:
    """Wait for `task`, which is to end as cancelled; the error."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert task.cancelled()
    return caught.value


# ===================================================================== asyncio, Task.cancel(), receive


@receives
def test_a_receive_cancelled_before_any_commit_has_no_effect(aio: World, receive: Receive, shape: Any) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        task = asyncio.create_task(receive_one(receive(ch), []))
        await parked(ch, receivers=1)
        task.cancel("why")
        error = await cancelled(task)
        assert error.args == ("why",)
        assert not told_delivered(error)
        assert nobody_waits(ch)
        ch.send_nowait("a")
        assert ch.drain() == ["a"]

    aio.run(main)


async def receive_one(op: Op[Any], got: list[Any]) -> None:
    got.append(await op)


@committed
@receives
def test_an_item_that_met_a_native_cancel_is_back_at_the_head(
    aio: World, commit: Commit, receive: Receive, shape: Any
) -> None:
    async def main() -> None:
        ch = Channel[str](3)
        got: list[Any] = []
        task = asyncio.create_task(receive_one(receive(ch), got))
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        ch.send_nowait("b")
        assert ch.statistics().received == 1
        task.cancel("why")
        error = await cancelled(task)
        assert error.args == ("why",)
        assert task.cancelling() == 1
        assert not told_delivered(error)
        assert got == []
        assert ch.statistics().received == 0
        assert ch.statistics().sent == 2
        assert nobody_waits(ch)
        assert ch.drain() == ["a", "b"]

    aio.run(main)


@committed
def test_an_item_given_back_goes_to_the_receiver_that_waits(aio: World, commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        got: list[str] = []
        first = asyncio.create_task(receive_one(ch.receive(), []))
        await parked(ch, receivers=1)
        second = asyncio.create_task(receive_one(ch.receive(), got))
        await parked(ch, receivers=2)
        commit(lambda: ch.send_nowait("a"))
        first.cancel()
        await cancelled(first)
        await second
        assert got == ["a"]
        assert ch.statistics().received == ch.statistics().sent == 1
        assert len(ch) == 0

    aio.run(main)


@pytest.mark.parametrize("other", ["threads", "trio"])
def test_an_item_given_back_goes_to_a_receiver_of_another_world(aio: World, other: str) -> None:
    ch = Channel[str](0)

    async def give_back() -> None:
        task = asyncio.create_task(receive_one(ch.receive(), []))
        await parked(ch, receivers=1)
        first_in_line.set()
        await parked(ch, receivers=2)
        ch.send_nowait("a")
        task.cancel()
        await cancelled(task)

    async def take() -> str:
        await settle(first_in_line.is_set)
        return await ch.receive()

    first_in_line = threading.Event()
    _, got = run_together((aio, give_back), (worlds.ALL[other], take))
    assert got == "a"


@committed
def test_a_receive_that_is_its_own_task_never_consumes_when_cancelled(aio: World, commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        task = asyncio.create_task(ch.receive())
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        task.cancel()
        await cancelled(task)
        assert ch.drain() == ["a"]

    aio.run(main)


def test_a_receive_whose_task_is_cancelled_before_it_starts_never_consumes(aio: World) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        ch.send_nowait("a")
        task = asyncio.create_task(ch.receive())
        task.cancel()
        await cancelled(task)
        assert ch.drain() == ["a"]

    aio.run(main)


@committed
def test_the_very_same_cancelled_error_is_raised_again(aio: World, commit: Commit) -> None:
    class Seen:
        """Awaits an operation and notes what is thrown into it and what comes out."""

        def __init__(self, op: Op[Any]) -> None:
            self.op = op

        def __await__(self) -> Generator[Any, Any, Any]:
            steps = self.op.__await__()
            try:
                waiting = next(steps)
                while True:
                    try:
                        sent = yield waiting
                    except BaseException as error:
                        self.thrown = error
                        waiting = steps.throw(error)
                    else:
                        waiting = steps.send(sent)
            except StopIteration as stop:
                return stop.value
            except BaseException as error:
                self.raised = error
                raise

    async def main() -> None:
        ch = Channel[str](1)
        for serve in (True, False):
            seen = Seen(ch.receive())

            async def body(seen: Seen = seen) -> None:
                await seen

            task = asyncio.create_task(body())
            await parked(ch, receivers=1)
            if serve:
                commit(lambda: ch.send_nowait("a"))
            task.cancel()
            await cancelled(task)
            assert seen.raised is seen.thrown
            ch.drain()

    aio.run(main)


# --------------------------------------------------------------------- the order of what is given back


@committed
@orders
@pytest.mark.parametrize("capacity", [0, 4])
def test_items_given_back_by_several_receivers_come_out_in_their_order(
    aio: World, commit: Commit, order: tuple[int, ...], capacity: int
) -> None:
    """Not [2, 1, 0], as it would be if each put its item before what is there."""

    async def main() -> None:
        ch = Channel[int](capacity)
        tasks = []
        for n in range(3):
            tasks.append(asyncio.create_task(receive_one(ch.receive(), [])))
            await parked(ch, receivers=n + 1)
        for n in range(3):
            commit(partial(ch.send_nowait, n))
        later = [3, 4] if capacity else []
        for n in later:
            ch.send_nowait(n)
        for n in order:
            tasks[n].cancel()
        await asyncio.wait(tasks)
        assert ch.statistics().buffered == 3 + len(later)
        assert [ch.receive_nowait() for _ in range(3 + len(later))] == [0, 1, 2, *later]

    aio.run(main)


@committed
@orders
def test_items_given_back_by_receives_and_selects_come_out_in_their_order(
    aio: World, commit: Commit, order: tuple[int, ...]
) -> None:

    async def main() -> None:
        ch = Channel[int](0)
        tasks = []
        for n in range(3):
            op = ch.receive() if n % 2 else select(ch.receive(), Event())
            tasks.append(asyncio.create_task(receive_one(op, [])))
            await parked(ch, receivers=n + 1)
        for n in range(3):
            commit(partial(ch.send_nowait, n))
        for n in order:
            tasks[n].cancel()
        await asyncio.wait(tasks)
        assert ch.drain() == [0, 1, 2]

    aio.run(main)


@committed
@orders
def test_a_further_receiver_gets_one_given_back_item_and_the_rest_stay_in_order(
    aio: World, commit: Commit, order: tuple[int, ...]
) -> None:
    async def main() -> None:
        ch = Channel[int](0)
        got: list[int] = []
        tasks = []
        for n in range(4):
            tasks.append(asyncio.create_task(receive_one(ch.receive(), got)))
            await parked(ch, receivers=n + 1)
        for n in range(3):
            commit(partial(ch.send_nowait, n))
        for n in order:
            tasks[n].cancel()
        await asyncio.wait(tasks)
        assert len(got) == 1
        assert ch.drain() == [n for n in range(3) if n != got[0]]

    aio.run(main)


@committed
def test_an_item_given_back_twice_keeps_its_place(aio: World, commit: Commit) -> None:
    """The second receiver has it from the first, and is cancelled as well: it is still older than the next."""

    async def main() -> None:
        ch = Channel[int](0)
        tasks = []
        for n in range(3):
            tasks.append(asyncio.create_task(receive_one(ch.receive(), [])))
            await parked(ch, receivers=n + 1)
        commit(lambda: ch.send_nowait(0))
        commit(lambda: ch.send_nowait(1))
        tasks[0].cancel()  # gives 0 to the third
        tasks[2].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True] * 3
        assert ch.drain() == [0, 1]

    aio.run(main)


def test_the_peak_counts_what_follows_an_item_given_back(aio: World) -> None:
    """The buffer is used for the first time when the item given back makes way for a waiting sender's."""

    async def main() -> None:
        ch = Channel[int](1)
        task = asyncio.create_task(receive_one(ch.receive(), []))
        await parked(ch, receivers=1)
        ch.send_nowait(1)
        task.cancel()
        await cancelled(task)
        sending = asyncio.create_task(ch.send(2))
        await parked(ch, senders=1)
        assert await ch.receive() == 1
        await sending
        statistics = ch.statistics()
        assert (statistics.buffered, statistics.peak) == (1, 1)

    aio.run(main)


# --------------------------------------------------------------------- given back when it is all over


@committed
def test_an_item_given_back_after_close_is_received_before_the_end(aio: World, commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        task = asyncio.create_task(receive_one(ch.receive(), []))
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        ch.close()
        with pytest.raises(EndOfChannel):
            ch.receive_nowait()  # documented: the item may appear after others saw the end
        task.cancel()
        await cancelled(task)
        assert await ch.receive() == "a"
        with pytest.raises(EndOfChannel):
            await ch.receive()

    aio.run(main)


@committed
def test_an_item_given_back_after_cancel_goes_to_on_undelivered(aio: World, commit: Commit) -> None:
    async def main() -> None:
        lost: list[str] = []
        ch = Channel[str](2, on_undelivered=lost.append)
        task = asyncio.create_task(receive_one(ch.receive(), []))
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        ch.send_nowait("b")
        ch.cancel()
        assert lost == ["b"]
        task.cancel()
        await cancelled(task)
        assert lost == ["b", "a"]
        statistics = ch.statistics()
        assert (statistics.sent, statistics.received, statistics.dropped) == (2, 0, 2)
        with pytest.raises(HandleClosed):
            await ch.receive()

    aio.run(main)


@committed
@pytest.mark.parametrize("side", ["send", "receive"])
def test_a_cancel_that_meets_a_close_raises_the_cancel_and_nothing_was_sent(
    aio: World, commit: Commit, side: str
) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        op = ch.send("a") if side == "send" else ch.receive()
        task = asyncio.create_task(receive_one(op, []))
        await parked(ch, **{side + "ers" if side == "send" else "receivers": 1})
        commit(ch.close)
        task.cancel()
        assert not told_delivered(await cancelled(task))
        assert ch.statistics().sent == 0
        assert nobody_waits(ch)

    aio.run(main)


# ===================================================================== asyncio, Task.cancel(), send


@sends
@pytest.mark.parametrize("capacity", [0, 1])
def test_a_send_cancelled_before_any_commit_has_no_effect(aio: World, send: Send, result: Any, capacity: int) -> None:
    async def main() -> None:
        ch = full(capacity)
        task = asyncio.create_task(receive_one(send(ch, "a"), []))
        await parked(ch, senders=1)
        task.cancel("why")
        error = await cancelled(task)
        assert error.args == ("why",)
        assert not told_delivered(error)
        assert nobody_waits(ch)
        assert "a" not in ch.drain()

    aio.run(main)


@committed
@sends
@pytest.mark.parametrize("capacity", [0, 1])
def test_a_delivered_send_that_meets_a_native_cancel_says_so(
    aio: World, commit: Commit, send: Send, result: Any, capacity: int
) -> None:
    """3.13 and later: it returns and the cancellation comes at the next await. Before: it raises, with a note."""

    async def main() -> None:
        ch = full(capacity)
        got: list[Any] = []

        async def body() -> None:
            got.append(await send(ch, "a"))
            await asyncio.sleep(0)
            got.append("went on")

        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        taken: list[Any] = []
        commit(lambda: taken.append(ch.receive_nowait()))
        task.cancel("why")
        error = await cancelled(task)
        assert error.args == ("why",)
        assert task.cancelling() == 1
        assert (taken + ch.drain())[-1] == "a"
        assert ch.statistics().sent == capacity + 1
        assert nobody_waits(ch)
        if REARMS:
            assert got == [result]
            assert not told_delivered(error)
        else:
            assert got == []
            assert told_delivered(error)

    aio.run(main)


@committed
def test_a_delivered_send_keeps_the_count_of_several_native_cancels(aio: World, commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        counts: list[int] = []

        async def body() -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                await ch.send("a")
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                counts.append(task.cancelling())
                task.uncancel()
                task.uncancel()
            await asyncio.sleep(0)  # nothing is left over
            counts.append(task.cancelling())

        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        commit(ch.receive_nowait)
        task.cancel()
        task.cancel()
        await task
        assert counts == [2, 0]

    aio.run(main)


@committed
def test_a_send_that_is_its_own_task_reports_cancelled_though_delivered(aio: World, commit: Commit) -> None:
    """The one case that asyncio gives no way round; the design says so."""

    async def main() -> None:
        ch = Channel[str](0)
        task = asyncio.create_task(ch.send("a"))
        await parked(ch, senders=1)
        taken: list[str] = []
        commit(lambda: taken.append(ch.receive_nowait()))
        task.cancel()
        await cancelled(task)
        assert taken == ["a"]

    aio.run(main)


# ===================================================================== asyncio.timeout, asyncio.wait_for

# `reschedule` to the past makes the timeout go off at the loop's next turn. Called before the commit, its callback
# comes before the parked task runs again: the cancellation finds the commit.


@committed
@receives
def test_an_expired_asyncio_timeout_never_consumes(aio: World, commit: Commit, receive: Receive, shape: Any) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        got: list[Any] = []
        timeout = asyncio.timeout(None)

        async def body() -> None:
            with pytest.raises(TimeoutError):
                async with timeout:
                    got.append(await receive(ch))
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # no stray cancellation

        task = asyncio.create_task(body())
        await parked(ch, receivers=1)
        timeout.reschedule(0)
        commit(lambda: ch.send_nowait("a"))
        await task
        assert got == []
        assert ch.drain() == ["a"]

    aio.run(main)


@committed
@sends
def test_a_delivered_send_under_an_expired_asyncio_timeout(aio: World, commit: Commit, send: Send, result: Any) -> None:
    """As for `Task.cancel()`, which `asyncio.timeout` uses; no cancellation is left over behind the block."""

    async def main() -> None:
        ch = Channel[str](0)
        got: list[Any] = []
        timeout = asyncio.timeout(None)

        async def body() -> None:
            try:
                async with timeout:
                    got.append(await send(ch, "a"))
            except TimeoutError as error:
                got.append(error)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # no stray cancellation

        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        timeout.reschedule(0)
        commit(lambda: got.append(ch.receive_nowait()))
        await task
        assert timeout.expired()
        assert got[0] == "a"
        if REARMS:
            assert got[1:] == [result]
        else:
            assert isinstance(got[1], TimeoutError)
            assert told_delivered(got[1])

    aio.run(main)


def test_a_send_under_an_expired_asyncio_timeout_feels_it_at_the_next_await(aio: World) -> None:
    async def main() -> None:
        ch, other = Channel[str](0), Channel[str](0)
        timeout = asyncio.timeout(None)

        async def within_timeout() -> None:
            async with timeout:
                await ch.send("a")
                await other.receive()

        async def body() -> None:
            with pytest.raises(TimeoutError):
                await within_timeout()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        timeout.reschedule(0)
        assert ch.receive_nowait() == "a"
        await task
        assert nobody_waits(ch, other)

    aio.run(main)


@committed
def test_a_receive_in_wait_for_never_consumes_when_its_caller_is_cancelled(aio: World, commit: Commit) -> None:
    """Before 3.12 `wait_for` has a task of its own, and returns if that could end before the cancellation."""

    async def main() -> None:
        ch = Channel[str](1)
        task = asyncio.create_task(asyncio.wait_for(ch.receive(), LONG))
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        task.cancel()
        if commit is here and sys.version_info < (3, 12):
            assert await task == "a"
        else:
            await cancelled(task)
            assert ch.drain() == ["a"]

    aio.run(main)


def test_wait_for_with_no_time_never_consumes(aio: World) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        ch.send_nowait("a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.receive(), 0)
        assert ch.drain() == ["a"]

    aio.run(main)


def test_a_wait_for_that_times_out_has_no_effect(aio: World) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.receive(), 0.001)
        assert nobody_waits(ch)
        ch.send_nowait("a")
        assert ch.drain() == ["a"]

    aio.run(main)


# ===================================================================== asyncio, the scopes of anyio


def by_cancel(scope: anyio.CancelScope) -> None:
    scope.cancel()


def by_deadline(scope: anyio.CancelScope) -> None:
    scope.deadline = -math.inf


scopes_end = pytest.mark.parametrize("end", [by_cancel, by_deadline])


@scopes_end
@receives
def test_a_receive_in_a_cancelled_scope_never_consumes(aio: World, end: Any, receive: Receive, shape: Any) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        got: list[Any] = []

        async def body() -> None:
            with scope:
                got.append(await receive(ch))
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # no stray cancellation

        scope = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, receivers=1)
        elsewhere(lambda: ch.send_nowait("a"))
        end(scope)
        await task
        assert scope.cancelled_caught
        assert got == []
        assert ch.drain() == ["a"]

    aio.run(main)


@scopes_end
@receives
def test_an_item_that_a_scope_finds_received_is_in_one_place(
    aio: World, end: Any, receive: Receive, shape: Any
) -> None:
    """Whether the scope gets hold of the task before it runs again is anyio's business."""

    async def main() -> None:
        ch = Channel[str](1)
        got: list[Any] = []

        async def body() -> None:
            with scope:
                got.append(await receive(ch))
                await anyio.sleep(LONG)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

        scope = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, receivers=1)
        ch.send_nowait("a")
        end(scope)
        await task
        assert scope.cancelled_caught
        assert got + [shape(v) for v in ch.drain()] == [shape("a")]

    aio.run(main)


@committed
@scopes_end
@sends
def test_a_delivered_send_in_a_cancelled_scope_returns(
    aio: World, commit: Commit, end: Any, send: Send, result: Any
) -> None:
    """The scope cancels again at the next operation, and nothing of it is left behind the scope."""

    async def main() -> None:
        ch, other = Channel[str](0), Channel[str](0)
        got: list[Any] = []

        async def body() -> None:
            with scope:
                got.append(await send(ch, "a"))
                await other.receive()
                got.append("went on")
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # no stray cancellation

        scope = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        commit(lambda: got.append(ch.receive_nowait()))
        end(scope)
        await task
        assert scope.cancelled_caught
        assert got == ["a", result]
        assert nobody_waits(ch, other)

    aio.run(main)


@committed
def test_a_delivered_send_as_the_last_of_a_cancelled_scope_leaves_nothing_behind(aio: World, commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](0)

        async def body() -> int:
            with scope:
                await ch.send("a")
            await asyncio.sleep(0)  # no stray cancellation
            await anyio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        scope = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        commit(ch.receive_nowait)
        scope.cancel()
        assert await task == 0

    aio.run(main)


def test_a_delivered_send_of_a_child_in_a_cancelled_anyio_task_group_returns(aio: World) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        got: list[Any] = []

        async def child() -> None:
            got.append(await ch.send("a"))
            await anyio.sleep(LONG)

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await parked(ch, senders=1)
            elsewhere(lambda: got.append(ch.receive_nowait()))
            group.cancel_scope.cancel()
        assert got == ["a", None]

    aio.run(main)


@pytest.mark.parametrize("native_first", [True, False])
def test_a_native_cancel_that_meets_a_cancelled_scope_is_not_lost(aio: World, native_first: bool) -> None:
    """The send may return or raise; the task must not go on for ever behind the scope."""

    async def main() -> None:
        ch = Channel[str](0)

        async def body() -> None:
            with scope:
                await ch.send("a")
            await asyncio.sleep(LONG)

        scope = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, senders=1)
        elsewhere(ch.receive_nowait)
        if native_first:
            task.cancel()
            scope.cancel()
        else:
            scope.cancel()
            task.cancel()
        try:
            await asyncio.wait([task], timeout=20)  # a safety net
            assert task.cancelled()
        finally:
            task.cancel()

    aio.run(main)


def test_a_shielded_scope_does_not_feel_what_is_cancelled_around_it(aio: World) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        got: list[Any] = []

        async def body() -> None:
            with outer:
                with anyio.CancelScope(shield=True):
                    got.append(await ch.receive())
                await anyio.sleep(LONG)

        outer = anyio.CancelScope()
        task = asyncio.create_task(body())
        await parked(ch, receivers=1)
        elsewhere(lambda: ch.send_nowait("a"))
        outer.cancel()
        await task
        assert got == ["a"]
        assert outer.cancelled_caught

    aio.run(main)


# ===================================================================== trio


def trio_by_cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


def trio_by_deadline(scope: trio.CancelScope) -> None:
    scope.deadline = trio.current_time()


trio_ends = pytest.mark.parametrize("end", [trio_by_cancel, trio_by_deadline])
TRIO = worlds.ALL["trio"]


@trio_ends
@receives
def test_trio_a_receive_cancelled_before_any_commit_has_no_effect(end: Any, receive: Receive, shape: Any) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        scope = trio.CancelScope()
        child = spawn(in_trio_scope, scope, receive(ch), [])
        await parked(ch, receivers=1)
        end(scope)
        await child.wait()
        assert scope.cancelled_caught
        assert nobody_waits(ch)
        ch.send_nowait("a")
        assert ch.drain() == ["a"]

    TRIO.run(main)


async def in_trio_scope(scope: trio.CancelScope, op: Op[Any], got: list[Any]) -> None:
    """Perform `op` in `scope`, and then another one that could happen at once."""
    ready = Channel[str](1)
    ready.send_nowait("ready")
    with scope:
        got.append(await op)
        got.append(await ready.receive())
    assert len(ready) == 1 or not scope.cancel_called


@trio_ends
@sends
@pytest.mark.parametrize("capacity", [0, 1])
def test_trio_a_send_cancelled_before_any_commit_has_no_effect(
    end: Any, send: Send, result: Any, capacity: int
) -> None:
    async def main() -> None:
        ch = full(capacity)
        scope = trio.CancelScope()
        child = spawn(in_trio_scope, scope, send(ch, "a"), [])
        await parked(ch, senders=1)
        end(scope)
        await child.wait()
        assert scope.cancelled_caught
        assert nobody_waits(ch)
        assert "a" not in ch.drain()

    TRIO.run(main)


@committed
@trio_ends
@receives
def test_trio_a_committed_receive_completes_and_the_next_operation_is_cancelled(
    commit: Commit, end: Any, receive: Receive, shape: Any
) -> None:
    async def main() -> None:
        ch = Channel[str](1)
        scope = trio.CancelScope()
        got: list[Any] = []
        child = spawn(in_trio_scope, scope, receive(ch), got)
        await parked(ch, receivers=1)
        commit(lambda: ch.send_nowait("a"))
        end(scope)
        await child.wait()
        assert got == [shape("a")]
        assert scope.cancelled_caught
        assert ch.statistics().received == 1
        assert nobody_waits(ch)

    TRIO.run(main)


@committed
@trio_ends
@sends
@pytest.mark.parametrize("capacity", [0, 1])
def test_trio_a_committed_send_completes_and_the_next_operation_is_cancelled(
    commit: Commit, end: Any, send: Send, result: Any, capacity: int
) -> None:
    async def main() -> None:
        ch = full(capacity)
        scope = trio.CancelScope()
        got: list[Any] = []
        taken: list[Any] = []
        child = spawn(in_trio_scope, scope, send(ch, "a"), got)
        await parked(ch, senders=1)
        commit(lambda: taken.append(ch.receive_nowait()))
        end(scope)
        await child.wait()
        assert got == [result]
        assert scope.cancelled_caught
        assert (taken + ch.drain())[-1] == "a"
        assert nobody_waits(ch)

    TRIO.run(main)


@committed
def test_trio_a_committed_close_is_felt_rather_than_the_cancellation(commit: Commit) -> None:
    async def main() -> None:
        ch = Channel[str](0)
        scope = trio.CancelScope()
        child = spawn(in_trio_scope, scope, ch.receive(), [])
        await parked(ch, receivers=1)
        commit(ch.close)
        scope.cancel()
        with pytest.raises(EndOfChannel):
            await child.wait()

    TRIO.run(main)


# ===================================================================== threads, and timeouts anywhere


@receives
def test_a_receive_that_timed_out_in_a_thread_has_no_effect(receive: Receive, shape: Any) -> None:
    ch = Channel[str](1)
    for limit in (0, 0.001):
        with pytest.raises(TimeoutError):
            receive(ch).sync(limit)
    assert nobody_waits(ch)
    ch.send_nowait("a")
    assert receive(ch).sync(0) == shape("a")


@sends
@pytest.mark.parametrize("capacity", [0, 1])
def test_a_send_that_timed_out_in_a_thread_has_no_effect(send: Send, result: Any, capacity: int) -> None:
    ch = full(capacity)
    for limit in (0, 0.001):
        with pytest.raises(TimeoutError):
            send(ch, "a").sync(limit)
    assert nobody_waits(ch)
    assert "a" not in ch.drain()


@pytest.mark.parametrize("limit", [0, 0.001])
def test_an_operation_whose_time_is_over_has_no_effect(world: World, limit: float) -> None:
    async def main() -> None:
        empty, busy = Channel[str](1), full(1)
        with pytest.raises(TimeoutError):
            await empty.receive().within(limit)
        with pytest.raises(TimeoutError):
            await busy.send("a").within(limit)
        with pytest.raises(TimeoutError):
            await select(empty.receive(), busy.send("a")).within(limit)
        assert nobody_waits(empty, busy)
        assert busy.drain() == ["before 0"]
        empty.send_nowait("b")
        assert empty.drain() == ["b"]

    world.run(main)


# ===================================================================== events and futures

Latched = tuple[Op[Any], Callable[[], object], Callable[[], int], Any]


def an_event() -> Latched:
    event = Event()
    return event.wait(), event.set, lambda: event.statistics().waiting, None


def a_future() -> Latched:
    future = Future[str]()
    waiting = lambda: future.statistics().waiting  # noqa: E731
    return future.wait(), lambda: future.set_result("done"), waiting, "done"


def a_select() -> Latched:
    event, future = Event(), Future[str]()
    waiting = lambda: future.statistics().waiting  # noqa: E731
    return select(event, future), lambda: future.set_result("done"), waiting, (1, "done")


latches = pytest.mark.parametrize("latch", [an_event, a_future, a_select])


@latches
@committed
def test_a_wait_that_met_a_native_cancel_raises_and_takes_nothing(
    aio: World, commit: Commit, latch: Callable[[], Latched]
) -> None:
    async def main() -> None:
        op, open_it, waiting, _ = latch()
        task = asyncio.create_task(receive_one(op, []))
        await settle(lambda: waiting() == 1)
        commit(open_it)
        task.cancel("why")
        error = await cancelled(task)
        assert error.args == ("why",)
        assert not told_delivered(error)
        assert task.cancelling() == 1
        assert waiting() == 0

    aio.run(main)


@latches
@committed
def test_trio_a_wait_that_was_served_completes(commit: Commit, latch: Callable[[], Latched]) -> None:
    async def main() -> None:
        op, open_it, waiting, result = latch()
        scope = trio.CancelScope()
        got: list[Any] = []
        child = spawn(in_trio_scope, scope, op, got)
        await settle(lambda: waiting() == 1)
        commit(open_it)
        scope.cancel()
        await child.wait()
        assert got == [result]
        assert scope.cancelled_caught
        assert waiting() == 0

    TRIO.run(main)


def test_a_cancelled_wait_has_no_effect_on_others(loop_world: World) -> None:
    async def main() -> None:
        event, future = Event(), Future[str]()
        children = [spawn(perform, thing) for thing in (event, event, future, future)]
        await settle(lambda: event.statistics().waiting == future.statistics().waiting == 2)
        children[0].cancel()
        children[2].cancel()
        await settle(lambda: event.statistics().waiting == future.statistics().waiting == 1)
        assert not event.is_set()
        assert not future.done()
        event.set()
        future.set_result("done")
        assert await children[1].wait() is None
        assert await children[3].wait() == "done"

    async def perform(thing: Any) -> Any:
        return await thing

    loop_world.run(main)


def test_a_cancelled_future_cancels_nobody(loop_world: World) -> None:
    async def main() -> None:
        future = Future[str]()
        child = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        assert future.cancel()
        with pytest.raises(FutureCancelled):
            await child.wait()
        assert not child.cancelled

    loop_world.run(main)


# ===================================================================== at random moments

# A cut performs `op`, tries to stop it after about `delay` seconds in the way of its world, and says whether it
# happened, and with what result (None where only the note on the error told that it had).
Cut = Callable[[Op[Any], float], Awaitable[tuple[bool, Any]]]


async def by_task_cancel(op: Op[Any], delay: float) -> tuple[bool, Any]:
    got: list[Any] = []
    task = asyncio.create_task(receive_one(op, got))
    if delay:
        timer = asyncio.get_running_loop().call_later(delay, task.cancel)
    else:  # before it can start, or just after it parked, or later
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        timer = None
        task.cancel()
    await asyncio.wait([task])
    op.close()  # it is not performed if the task never started
    if timer is not None:
        timer.cancel()
    if got:
        return True, got[0]
    try:
        task.result()
    except asyncio.CancelledError as error:
        return told_delivered(error), None
    raise AssertionError("it ended without a result")


async def by_asyncio_timeout(op: Op[Any], delay: float) -> tuple[bool, Any]:
    got: list[Any] = []
    try:
        async with asyncio.timeout(delay):
            got.append(await op)
    except TimeoutError as error:
        return (True, got[0]) if got else (told_delivered(error), None)
    finally:
        op.close()  # it is not performed where the time was over before
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    return True, got[0]


async def by_wait_for(op: Op[Any], delay: float) -> tuple[bool, Any]:
    try:
        return True, await asyncio.wait_for(op, delay)
    except TimeoutError as error:
        return told_delivered(error), None


async def by_anyio_scope(op: Op[Any], delay: float) -> tuple[bool, Any]:
    got: list[Any] = []
    try:
        with anyio.move_on_after(delay):
            got.append(await op)
    finally:
        op.close()
    return bool(got), got[0] if got else None


async def by_trio_cancel(op: Op[Any], delay: float) -> tuple[bool, Any]:
    got: list[Any] = []

    async def cancel() -> None:
        await trio.sleep(delay)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        nursery.start_soon(cancel)
        got.append(await op)
        scope.cancel()
    op.close()
    return bool(got), got[0] if got else None


async def by_within(op: Op[Any], delay: float) -> tuple[bool, Any]:
    try:
        return True, await op.within(delay)
    except TimeoutError as error:
        if told_delivered(error):
            raise AssertionError("whose time is over has had no effect") from error
        return False, None


async def by_sync_timeout(op: Op[Any], delay: float) -> tuple[bool, Any]:
    try:
        return True, op.sync(delay)
    except TimeoutError as error:
        if told_delivered(error):
            raise AssertionError("whose time is over has had no effect") from error
        return False, None


CUTS: list[tuple[str, Cut]] = [
    ("asyncio", by_task_cancel),
    ("asyncio", by_asyncio_timeout),
    ("asyncio", by_wait_for),
    ("asyncio", by_anyio_scope),
    ("asyncio", by_within),
    ("asyncio-debug", by_task_cancel),
    ("asyncio-debug", by_anyio_scope),
    ("uvloop", by_task_cancel),
    ("uvloop", by_asyncio_timeout),
    ("uvloop", by_wait_for),
    ("uvloop", by_anyio_scope),
    ("uvloop", by_within),
    ("trio", by_trio_cancel),
    ("trio", by_anyio_scope),
    ("trio", by_within),
    ("threads", by_sync_timeout),
    ("threads", by_within),
]

cuts = pytest.mark.parametrize(("name", "cut"), [pytest.param(n, c, id=f"{n}-{c.__name__}") for n, c in CUTS])
amounts = pytest.mark.parametrize(
    "items",
    [
        120,
        pytest.param(20_000, id="stress", marks=[pytest.mark.stress, pytest.mark.timeout(300)]),
    ],
)
WORKERS = 6


def a_delay(rng: random.Random) -> float:
    return rng.choice((0.0, rng.random() * 0.0003, rng.random() * 0.002))


@cuts
@amounts
@pytest.mark.parametrize("capacity", [0, 2])
def test_receives_cut_at_random_moments_lose_and_double_nothing(name: str, cut: Cut, items: int, capacity: int) -> None:
    """One producer in the same world, one in a thread: commits with and without a mailbox."""
    if name == "uvloop":
        pytest.importorskip("uvloop")
    ch = Channel[int](capacity)
    got: list[int] = []

    async def work(seed: int) -> None:
        rng = random.Random(seed)
        while len(got) < items:
            kind = rng.randrange(4)
            if kind == 0:
                op: Op[Any] = ch.receive_some(3)
            elif kind == 1:
                op = select(ch.receive(), Event()).map(lambda pair: [pair[1]])
            else:
                op = ch.receive().map(lambda value: [value])
            happened, values = await cut(op, a_delay(rng))
            if happened:
                assert values is not None, "a receive never says that its value was delivered"
                got.extend(values)

    async def produce(values: range) -> None:
        for value in values:
            await ch.send(value)

    async def main() -> None:
        workers = [spawn(work, n) for n in range(WORKERS)]
        spawn(produce, range(0, items, 2))
        for worker in workers:
            await worker.wait()

    run_together((worlds.ALL[name], main), (worlds.ALL["threads"], produce, range(1, items, 2)))
    assert sorted(got + ch.drain()) == list(range(items))
    assert nobody_waits(ch)
    assert ch.statistics().sent == ch.statistics().received == items


@cuts
@amounts
@pytest.mark.parametrize("capacity", [0, 2])
def test_sends_cut_at_random_moments_are_delivered_exactly_if_they_say_so(
    name: str, cut: Cut, items: int, capacity: int
) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")
    ch = Channel[int](capacity)
    delivered: list[int] = []
    got: list[int] = []

    async def work(seed: int) -> None:
        rng = random.Random(seed)
        for value in range(seed, items, WORKERS):
            kind = rng.randrange(3)
            if kind == 0:
                op: Op[Any] = ch.send_some([value])
            elif kind == 1:
                op = select(Event(), ch.send(value))
            else:
                op = ch.send(value)
            happened, _ = await cut(op, a_delay(rng))
            if happened:
                delivered.append(value)

    async def consume() -> None:
        async for value in ch:
            got.append(value)

    async def main() -> None:
        workers = [spawn(work, n) for n in range(WORKERS)]
        spawn(consume)
        try:
            for worker in workers:
                await worker.wait()
        finally:
            ch.close()

    run_together((worlds.ALL[name], main), (worlds.ALL["threads"], consume))
    assert sorted(got) == sorted(delivered)
    assert nobody_waits(ch)


@cuts
@amounts
def test_selects_cut_at_random_moments_do_one_thing_or_none(name: str, cut: Cut, items: int) -> None:
    """Each select may receive from one channel or send to another; what it says is what happened."""
    if name == "uvloop":
        pytest.importorskip("uvloop")
    if name == "asyncio-debug":
        items //= 4  # a stack is recorded at every step
    source, sink = Channel[int](0), Channel[int](0)
    got: list[int] = []
    delivered: list[int] = []
    arrived: list[int] = []
    fresh = itertools.count()

    async def work(seed: int) -> None:
        rng = random.Random(seed)
        while len(got) < items:
            value = next(fresh)
            arms = [source.receive(), sink.send(value)]
            turned = rng.random() < 0.5
            if turned:
                arms.reverse()
            happened, result = await cut(select(*arms), a_delay(rng))
            if happened:
                if result is None or result[0] == (0 if turned else 1):
                    delivered.append(value)
                else:
                    got.append(result[1])

    async def produce(values: range) -> None:
        for value in values:
            await source.send(value)

    async def consume() -> None:
        async for value in sink:
            arrived.append(value)

    async def other() -> None:
        spawn(produce, range(1, items, 2))
        spawn(consume)

    async def main() -> None:
        workers = [spawn(work, n) for n in range(WORKERS)]
        spawn(produce, range(0, items, 2))
        try:
            for worker in workers:
                await worker.wait()
        finally:
            sink.close()

    run_together((worlds.ALL[name], main), (worlds.ALL["threads"], other))
    assert sorted(got + source.drain()) == list(range(items))
    assert sorted(arrived) == sorted(delivered)
    assert nobody_waits(source, sink)
