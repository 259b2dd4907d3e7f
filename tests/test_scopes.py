"""Cancel scopes: what is inside ends when they are cancelled. One body for all four backends.

The cases follow the suites of anyio (`tests/test_taskgroups.py`: its scopes) and of trio (`test_run.py`: cancel scopes,
`test_cancelled.py`, `test_timeouts.py`), written afresh; each says whose it is. Deadlines, errors, scopes of others
around ours, cancellations from elsewhere and `run` have files of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from census import Census
from elsewhere import Elsewhere, once_parked
from until import parked, settle

from chanlib import (
    Cancelled,
    CancelScope,
    Channel,
    Event,
    Future,
    Lock,
    Semaphore,
    TaskGroup,
    checkpoint,
    current_effective_deadline,
    current_time,
    get_cancelled_exc_class,
    move_on_after,
    run,
    select,
    sleep,
)
from chanlib._core.lane import lanes

pytestmark = pytest.mark.usefixtures("census")


def cancels(match: str | None = None) -> Any:
    """What stands inside is cancelled, and goes on after it."""
    return pytest.raises(get_cancelled_exc_class(), match=match)


# ------------------------------------------------------------------------------ cancelling
def test_a_scope_that_nobody_cancels_changes_nothing(backend: str) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            assert not scope.cancel_called
            await checkpoint()
        assert not scope.cancel_called
        assert not scope.cancelled_caught
        assert scope.deadline == math.inf
        assert scope.shield is False

    run(body, backend=backend)


def test_cancelled_before_it_is_entered(backend: str) -> None:
    """As anyio: test_cancel_before_entering_scope; trio: test_cancel_unbound."""

    async def body() -> None:
        scope = CancelScope()
        scope.cancel("too early")
        assert scope.cancel_called
        with scope:
            with cancels("too early"):
                await checkpoint()
            await Event().wait()
            pytest.fail("it was cancelled")
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_cancelled_in_the_middle_of_a_wait(backend: str, census: Census) -> None:
    """As anyio: test_cancel_scope_in_another_task."""

    async def body() -> list[str]:
        log = []
        event = census.watch(Event())
        scope = CancelScope()

        async def waits() -> None:
            with scope:
                await event.wait()
                log.append("not cancelled")
            log.append("after")

        async with TaskGroup() as group:
            group.start_soon(waits)
            await parked(event)
            scope.cancel()
        assert scope.cancelled_caught
        return log

    assert run(body, backend=backend) == ["after"]


def test_each_operation_raises_until_the_scope_is_left(backend: str) -> None:
    """As trio: test_cancel_edge_cases; anyio: test_level_cancellation."""

    async def body() -> None:
        event = Event()
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                with cancels():
                    await event.wait()
                with cancels():
                    await checkpoint()
        await checkpoint()
        assert not scope.cancelled_caught  # what it had raised was caught inside

    run(body, backend=backend)


def test_the_first_call_counts(backend: str) -> None:
    """As trio: test_cancel_reason_not_overwritten."""

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel("one")
            scope.cancel("two")
            with cancels("one"):
                await checkpoint()
            scope.deadline = -math.inf
            with cancels("one"):
                await checkpoint()

    run(body, backend=backend)


def test_a_scope_that_is_left_without_an_operation_has_caught_nothing(backend: str) -> None:
    """As anyio: test_cancelled_not_caught; trio: test_cancel_scope_nesting, its last part."""

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
        assert scope.cancel_called
        assert not scope.cancelled_caught
        await checkpoint()

    run(body, backend=backend)


def test_nothing_is_left_of_a_cancellation_behind_its_scope(backend: str) -> None:
    """As anyio: test_cancel_scope_cleared, test_cancel_twice."""

    async def body() -> int:
        ch = Channel[int](1)
        caught = 0
        for n in range(50):
            with CancelScope() as scope:
                scope.cancel()
                await checkpoint()
            caught += scope.cancelled_caught
            await ch.send(n)
            assert await ch.receive() == n
        return caught

    assert run(body, backend=backend) == 50


def test_cancelling_a_scope_that_was_left_does_nothing(backend: str) -> None:
    """As trio: test_cancel_unbound."""

    async def body() -> None:
        with CancelScope() as scope:
            await checkpoint()
        scope.cancel()
        scope.deadline = -math.inf
        scope.shield = True
        await checkpoint()
        assert scope.cancel_called
        assert not scope.cancelled_caught

    run(body, backend=backend)


class Stock:
    """Things with which any operation could happen at once."""

    def __init__(self) -> None:
        self.ch = Channel[int](5000)
        self.ch.send_some(range(2500)).poll()
        self.event = Event()
        self.event.set()
        self.semaphore = Semaphore(2000)
        self.lock = Lock()
        self.future = Future[int]()
        self.future.set_result(1)

    def state(self) -> object:
        stats = self.ch.statistics()
        return len(self.ch), stats.sent, stats.received, self.semaphore.statistics(), self.lock.locked()


READY: dict[str, Callable[[Stock], Any]] = {
    "send": lambda stock: stock.ch.send(1),
    "receive": lambda stock: stock.ch.receive(),
    "send_some": lambda stock: stock.ch.send_some([1, 2]),
    "receive_some": lambda stock: stock.ch.receive_some(2),
    "reserve": lambda stock: stock.ch.reserve(),
    "event": lambda stock: stock.event.wait(),
    "future": lambda stock: stock.future.wait(),
    "semaphore": lambda stock: stock.semaphore.acquire(),
    "lock": lambda stock: stock.lock.acquire(),
    "select": lambda stock: select(stock.ch.receive(), stock.ch.send(1), stock.event),
    "map": lambda stock: stock.ch.receive().map(str),
    "within": lambda stock: stock.ch.receive().within(10),
    "sleep": lambda stock: sleep(0),
    "checkpoint": lambda stock: checkpoint(),
}

ready = pytest.mark.parametrize("make", list(READY.values()), ids=list(READY))


@ready
def test_of_1000_operations_in_a_cancelled_scope_none_happens(backend: str, make: Callable[[Stock], Any]) -> None:
    """As trio: test_cancel_points; anyio: test_cancel_shielded_scope."""

    async def body() -> None:
        stock = Stock()
        before = stock.state()
        error = get_cancelled_exc_class()
        raised = 0
        with CancelScope() as scope:
            for _ in range(300):
                await checkpoint()  # somewhere in the middle of its turn
            for _ in range(77):
                await stock.event.wait()
            scope.cancel()
            for _ in range(1000):
                try:
                    await make(stock)
                except error:
                    raised += 1
        assert raised == 1000
        assert stock.state() == before

    run(body, backend=backend)


@ready
def test_none_happens_by_sync_either(make: Callable[[Stock], Any]) -> None:
    stock = Stock()
    before = stock.state()
    with CancelScope() as scope:
        scope.cancel()
        for _ in range(100):
            with pytest.raises(Cancelled):
                make(stock).sync()
    assert stock.state() == before


@ready
@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_under_a_foreign_scope_at_most_a_budget_of_them_happens(name: str, make: Callable[[Stock], Any]) -> None:
    """In trio none; on asyncio anyio's scope is felt at the next turn of the loop."""
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def body() -> int:
        stock = Stock()
        error = get_cancelled_exc_class()
        happened = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            with contextlib.suppress(error):
                while True:
                    result = await make(stock)
                    happened += 1
                    if make is READY["lock"]:
                        stock.lock.release()
                    elif make is READY["reserve"]:
                        result.release()
                    assert happened <= 128
            before = stock.state()
            with pytest.raises(error):  # the scope is felt again, at a turn that is given on purpose
                await anyio.sleep(0)
            assert stock.state() == before
        return happened

    assert run(body, backend=name) <= (0 if name == "trio" else 128)


def test_polling_does_not_look(backend: str) -> None:
    """`poll` may be called anywhere and is no checkpoint."""

    async def body() -> None:
        ch = Channel[int](1)
        with CancelScope() as scope:
            scope.cancel()
            ch.send(1).poll()
            ch.receive().poll()
            with cancels():
                await ch.send(1)

    run(body, backend=backend)


def test_a_budget_of_operations_does_not_hide_a_cancellation_of_a_neighbour(backend: str, census: Census) -> None:
    """As trio: test_yield_briefly_checks_for_timeout."""

    async def body() -> None:
        ch = census.watch(Channel[int](1))
        scope = CancelScope()
        rounds = 0

        async def busy() -> None:
            nonlocal rounds
            with scope:
                while True:
                    await ch.send(rounds)
                    rounds = await ch.receive() + 1

        async with TaskGroup() as group:
            group.start_soon(busy)
            await settle(lambda: rounds > 300)
            scope.cancel()
        assert scope.cancelled_caught

    run(body, backend=backend)


# ------------------------------------------------------------------------------ who catches
@pytest.mark.parametrize("outer_first", [True, False])
def test_of_two_cancelled_scopes_the_outer_catches(backend: str, outer_first: bool) -> None:
    """As trio: test_cancel_scope_nesting."""

    async def body() -> None:
        with CancelScope() as outermost, CancelScope() as outer:
            with CancelScope() as inner:
                for scope in (outer, inner) if outer_first else (inner, outer):
                    scope.cancel()
                await Event().wait()
            pytest.fail("the cancellation of the outer scope goes on")
        assert (inner.cancel_called, inner.cancelled_caught) == (True, False)
        assert (outer.cancel_called, outer.cancelled_caught) == (True, True)
        assert (outermost.cancel_called, outermost.cancelled_caught) == (False, False)

    run(body, backend=backend)


def test_only_the_scope_that_was_cancelled_catches(backend: str) -> None:
    """As anyio: test_cancel_counter_nested_scopes."""

    async def body() -> list[int]:
        caught = []
        for cancelled in range(4):
            scopes = [CancelScope() for _ in range(4)]
            with contextlib.ExitStack() as stack:
                for scope in scopes:
                    stack.enter_context(scope)
                scopes[cancelled].cancel()
                await checkpoint()
            assert [scope.cancelled_caught for scope in scopes] == [n == cancelled for n in range(4)]
            caught.append(cancelled)
        return caught

    assert run(body, backend=backend) == [0, 1, 2, 3]


def test_after_the_inner_scope_the_outer_one_goes_on(backend: str) -> None:
    """As anyio: test_escaping_cancelled_error_from_cancelled_task."""

    async def body() -> str:
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                await checkpoint()
            assert inner.cancelled_caught
            await checkpoint()
            outer.cancel()
            with cancels():
                await checkpoint()
            return "here"

    assert run(body, backend=backend) == "here"


def test_an_outer_scope_cancelled_on_the_way_out_takes_over(backend: str) -> None:
    """As anyio: test_cancelled_raises_beyond_origin_unshielded."""

    async def body() -> None:
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                try:
                    await checkpoint()
                finally:
                    outer.cancel()
            pytest.fail("the outer scope was cancelled")
        assert not inner.cancelled_caught
        assert outer.cancelled_caught

    run(body, backend=backend)


def test_an_outer_scope_cancelled_on_the_way_out_does_not_get_through_a_shield(backend: str) -> None:
    """As anyio: test_cancelled_raises_beyond_origin_shielded."""

    async def body() -> str:
        with CancelScope() as outer:
            with CancelScope(shield=True) as inner:
                inner.cancel()
                try:
                    await checkpoint()
                finally:
                    outer.cancel()
            between = "between"
        assert inner.cancelled_caught
        assert not outer.cancelled_caught
        return between

    assert run(body, backend=backend) == "between"


def test_a_checkpoint_can_be_made_of_a_scope(backend: str) -> None:
    """As anyio: test_cancelled_scope_based_checkpoint (trio issue #860)."""

    async def body() -> None:
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope() as inner:
                inner.cancel()
                await Event().wait()
            pytest.fail("the outer scope is cancelled")
        assert not inner.cancelled_caught
        assert outer.cancelled_caught

    run(body, backend=backend)


def test_cancelling_one_child_leaves_the_others_alone(backend: str, census: Census) -> None:
    """As anyio: test_cancel_scope_in_child_task."""

    async def body() -> list[str]:
        event = census.watch(Event())
        scopes = {name: CancelScope() for name in "abc"}
        log = []

        async def child(name: str) -> None:
            with scopes[name]:
                await event.wait()
                log.append(name)

        async with TaskGroup() as group:
            for name in scopes:
                group.start_soon(child, name)
            await settle(lambda: event.statistics().waiting == 3)
            scopes["b"].cancel()
            await settle(lambda: event.statistics().waiting == 2)
            event.set()
        assert [name for name, scope in scopes.items() if scope.cancelled_caught] == ["b"]
        assert not group.cancel_scope.cancel_called
        return sorted(log)

    assert run(body, backend=backend) == ["a", "c"]


def test_a_cancellation_reaches_all_who_were_started_inside(backend: str, census: Census) -> None:
    """As trio: test_cancel_inheritance; anyio: test_cancel_cascade."""

    async def body() -> set[str]:
        event = census.watch(Event())
        record = set()

        async def leaf(name: str) -> None:
            try:
                await event.wait()
            except get_cancelled_exc_class():
                record.add(name)
                raise

        async def worker(name: str) -> None:
            async with TaskGroup() as group:
                group.start_soon(leaf, name + "1")
                with CancelScope():
                    group.start_soon(leaf, name + "2")
                    await leaf(name + "3")

        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(worker, "a")
                group.start_soon(worker, "b")
                await settle(lambda: event.statistics().waiting == 6)
                scope.cancel()
        assert scope.cancelled_caught
        return record

    assert run(body, backend=backend) == {"a1", "a2", "a3", "b1", "b2", "b3"}


def test_a_child_of_a_cancelled_scope_starts_and_is_cancelled_at_its_first_operation(backend: str) -> None:
    """As trio: test_precancelled_task; anyio: test_level_cancellation."""

    async def body() -> list[str]:
        record = []

        async def child() -> None:
            record.append("started")
            await checkpoint()
            record.append("not cancelled")

        with CancelScope() as scope:
            async with TaskGroup() as group:
                scope.cancel()
                group.start_soon(child)
        return record

    assert run(body, backend=backend) == ["started"]


def test_scopes_may_be_deep(backend: str) -> None:
    """As trio: test_very_deep_cancel_scope_nesting."""

    async def body() -> int:
        scopes = [CancelScope() for _ in range(300)]
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            scopes[0].cancel()
            await checkpoint()
        assert scopes[0].cancelled_caught
        return sum(scope.cancelled_caught for scope in scopes)

    assert run(body, backend=backend) == 1


# ------------------------------------------------------------------------------ shields
def test_a_shield_keeps_cancellations_out(backend: str) -> None:
    """As anyio: test_shielding, test_cancel_from_shielded_scope."""

    async def body() -> None:
        ch = Channel[int](1)
        with CancelScope() as outer:
            with CancelScope(shield=True) as inner:
                outer.cancel()
                for n in range(200):
                    await ch.send(n)
                    assert await ch.receive() == n
                    await checkpoint()
            for _ in range(2):
                with cancels():
                    await ch.send(1)
        assert not inner.cancel_called
        assert not inner.cancelled_caught
        assert len(ch) == 0

    run(body, backend=backend)


def test_a_shield_can_be_switched(backend: str) -> None:
    """As trio: test_cancel_shielding."""

    async def body() -> None:
        with CancelScope() as outer, CancelScope() as inner:
            await checkpoint()
            outer.cancel()
            with cancels():
                await checkpoint()
            inner.shield = True
            assert inner.shield is True
            await checkpoint()
            with CancelScope() as innermost:
                innermost.cancel()
                with cancels():
                    await checkpoint()
            await checkpoint()
            inner.shield = False
            with cancels():
                await checkpoint()
            inner.shield = True
            await checkpoint()

    run(body, backend=backend)


def test_a_scope_that_was_shielded_later_catches_its_own_cancellation(backend: str, known_bug: Any) -> None:
    """As trio: test_cancel_shielding, its end."""
    known_bug("anyio 4.16 takes what the outer scope had raised before for a native cancel", "asyncio", "uvloop")

    async def body() -> None:
        with CancelScope() as outer:
            with CancelScope() as inner:
                outer.cancel()
                with cancels():
                    await checkpoint()
                inner.shield = True
                inner.cancel()
                await checkpoint()
                pytest.fail("a shield does not protect from its own scope")
            assert inner.cancelled_caught
        assert not outer.cancelled_caught

    run(body, backend=backend)


def test_taking_a_shield_away_cuts_a_wait(backend: str, census: Census) -> None:
    """As trio: test_cancel_shield_abort; anyio: test_shielding_mutate."""

    async def body() -> list[str]:
        event = census.watch(Event())
        record = []
        shielded = CancelScope(shield=True)

        async def child() -> None:
            with CancelScope() as outer:
                outer.cancel()
                with shielded:
                    record.append("sleeping")
                    try:
                        await event.wait()
                    except get_cancelled_exc_class():
                        record.append("cancelled")
                        raise
            assert outer.cancelled_caught

        async with TaskGroup() as group:
            group.start_soon(child)
            await parked(event)
            assert record == ["sleeping"]
            shielded.shield = False
        return record

    assert run(body, backend=backend) == ["sleeping", "cancelled"]


def test_taking_a_shield_away_from_another_thread_cuts_a_wait(backend: str, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope(shield=True) as inner:
                side = once_parked(event, lambda: setattr(inner, "shield", False))
                await event.wait()
        assert outer.cancelled_caught
        side.join()

    run(body, backend=backend)


def test_a_shield_put_up_on_the_way_out_changes_nothing(backend: str) -> None:
    """As trio: test_unshield_while_cancel_propagating (trio issue #1175)."""

    async def body() -> None:
        with CancelScope() as outer, CancelScope() as inner:
            outer.cancel()
            try:
                await checkpoint()
            finally:
                inner.shield = True
        assert outer.cancelled_caught
        assert not inner.cancelled_caught

    run(body, backend=backend)


def test_a_shield_set_before_entering_counts(backend: str) -> None:
    """As trio: test_cancel_unbound, its shield."""

    async def body() -> None:
        scope = CancelScope()
        scope.shield = True
        with CancelScope() as outer, scope:
            outer.cancel()
            await checkpoint()
            scope.shield = False
            with cancels():
                await checkpoint()

    run(body, backend=backend)


@pytest.mark.parametrize("middle_too", [True, False])
def test_behind_a_shield_the_scopes_around_it_are_felt(backend: str, middle_too: bool) -> None:
    """As anyio: test_triple_nested_shield_checkpoint_in_outer and ..._in_middle."""

    async def body() -> None:
        with CancelScope() as outer:
            with CancelScope() as middle:
                with CancelScope(shield=True):
                    outer.cancel()
                    if middle_too:
                        middle.cancel()
                    await checkpoint()
                if not middle_too:
                    await checkpoint()
                    pytest.fail("outer was cancelled")
            await checkpoint()
            pytest.fail("outer was cancelled")
        assert outer.cancelled_caught
        assert not middle.cancelled_caught

    run(body, backend=backend)


def test_a_shield_inside_a_shield(backend: str) -> None:
    """As anyio: test_nested_shield."""

    async def body() -> str:
        with CancelScope() as outer:
            with CancelScope(shield=True) as shielded:
                with CancelScope(shield=True):
                    outer.cancel()
                    shielded.cancel()
                    await checkpoint()
                with cancels():
                    await checkpoint()
            assert not shielded.cancelled_caught
            return "left the shields"

    assert run(body, backend=backend) == "left the shields"


def test_a_shielded_scope_is_cancelled_itself(backend: str) -> None:
    """As anyio: test_cancel_shielded_scope, test_shielding_immediate_scope_cancelled."""

    async def body() -> None:
        with CancelScope(shield=True) as scope:
            scope.cancel()
            assert current_effective_deadline() == -math.inf
            await checkpoint()
            pytest.fail("it was cancelled")
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_tidying_up_under_a_shield_after_a_cancellation(backend: str, census: Census) -> None:
    """As anyio: test_shielded_cleanup_after_cancel."""

    async def body() -> list[object]:
        ch = census.watch(Channel[str](0))
        log: list[object] = []

        async def peer() -> None:
            with CancelScope(shield=True):
                log.append(await ch.receive())

        async with TaskGroup() as group:
            with CancelScope() as scope:
                scope.cancel()
                try:
                    await checkpoint()
                except get_cancelled_exc_class():
                    with CancelScope(shield=True):
                        assert current_effective_deadline() == math.inf
                        group.start_soon(peer)
                        await ch.send("from except")
                    raise
                finally:
                    assert current_effective_deadline() == -math.inf
                    with move_on_after(30, shield=True):
                        await sleep(0.001)
                        log.append("from finally")
                    with cancels():
                        await ch.send("not shielded any more")
        assert scope.cancelled_caught
        return log

    assert run(body, backend=backend) == ["from except", "from finally"]


def test_a_child_is_cancelled_though_its_host_is_shielded(backend: str, census: Census) -> None:
    """As anyio: test_cancel_child_task_when_host_is_shielded (anyio issue #642)."""

    async def body() -> None:
        never, cancelled = census.watch(Event()), census.watch(Event())

        async def child() -> None:
            try:
                await never.wait()
            finally:
                cancelled.set()

        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child)
                await parked(never)
                with CancelScope(shield=True):
                    scope.cancel()
                    await cancelled.wait()

    run(body, backend=backend)


# ------------------------------------------------------------------------------ entering and leaving
def test_a_scope_is_entered_once(backend: str) -> None:
    """As trio: test_cancel_unbound."""

    async def body() -> None:
        with CancelScope() as scope:
            with pytest.raises(RuntimeError, match="only once"), scope:
                pytest.fail("entered again")
            await checkpoint()
        with pytest.raises(RuntimeError, match="only once"), scope:
            pytest.fail("entered again")

        async def enters() -> None:
            with scope:
                pytest.fail("entered again")

        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="only once")):
            async with TaskGroup() as group:
                group.start_soon(enters)

    run(body, backend=backend)


def test_leaving_a_scope_that_was_not_entered_says_so(backend: str) -> None:
    """As anyio: test_cancelscope_exit_before_enter."""

    async def body() -> None:
        with pytest.raises(RuntimeError):
            CancelScope().__exit__(None, None, None)

    run(body, backend=backend)


@pytest.mark.parametrize("cancelled", [False, True])
def test_left_in_the_wrong_order(backend: str, cancelled: bool) -> None:
    """As anyio: test_cancelscope_wrong_exit_order; trio: test_cancel_scope_misnesting_1."""

    async def body() -> None:
        outer, inner = CancelScope(), CancelScope()
        outer.__enter__()
        inner.__enter__()
        if cancelled:
            outer.cancel()
        with pytest.raises(RuntimeError, match="scope"):
            outer.__exit__(None, None, None)
        if backend == "trio":  # it gives up all below
            inner.__exit__(None, None, None)
            return
        if cancelled:
            with cancels():
                await checkpoint()
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)
        await checkpoint()

    lane = lanes.lane
    try:
        run(body, backend=backend)
        assert lane.alarms == 0
    finally:
        lane.alarms = 0


def test_left_in_another_task(backend: str, census: Census) -> None:
    """As anyio: test_cancelscope_exit_in_wrong_task; trio: test_cancel_scope_misnesting_3."""

    async def body() -> None:
        event = census.watch(Event())
        scope = CancelScope()

        async def child() -> None:
            with scope:
                await event.wait()

        async with TaskGroup() as group:
            group.start_soon(child)
            await parked(event)
            with pytest.raises(RuntimeError):
                scope.__exit__(None, None, None)
            scope.cancel()
        assert scope.cancelled_caught

    lane = lanes.lane
    try:
        run(body, backend=backend)
        assert lane.alarms == 0
    finally:
        lane.alarms = 0


@pytest.mark.parametrize("cancelled", [False, True])
def test_left_in_another_thread(backend: str, cancelled: bool) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            if cancelled:
                scope.cancel()
            with pytest.raises(RuntimeError):
                Elsewhere(scope.__exit__, None, None, None).join()
            scope.cancel()
            await checkpoint()
            pytest.fail("it was cancelled, and is entered still")
        assert scope.cancelled_caught

    lane = lanes.lane
    try:
        run(body, backend=backend)
        assert lane.alarms == 0
    finally:
        lane.alarms = 0


def test_a_repr_says_how_it_stands(backend: str) -> None:
    """As trio: test_cancel_scope_repr."""

    async def body() -> None:
        scope = CancelScope(shield=True)
        assert "new" in repr(scope)
        assert "shielded" in repr(scope)
        with scope:
            assert "entered" in repr(scope)
            assert "deadline" not in repr(scope)
            scope.deadline = current_time() + 100
            assert f"{scope.deadline:.3f}" in repr(scope)
            scope.cancel()
            assert "cancelled" in repr(scope)

    run(body, backend=backend)


@pytest.mark.parametrize("ask", [repr, lambda scope: scope.cancel_called], ids=["repr", "cancel_called"])
def test_another_thread_may_ask_how_it_stands(backend: str, ask: Callable[[Any], Any]) -> None:

    async def body() -> None:
        with move_on_after(100) as scope:
            assert Elsewhere(ask, scope).join() == ask(scope)
            scope.cancel()
            assert Elsewhere(ask, scope).join() == ask(scope)

    run(body, backend=backend)


# ------------------------------------------------------------------------------ where the caller is
def test_the_cancelled_class_is_that_of_the_world(backend: str) -> None:
    async def body() -> type[BaseException]:
        return get_cancelled_exc_class()

    expected = {"trio": trio.Cancelled, "threads": Cancelled}.get(backend, asyncio.CancelledError)
    assert run(body, backend=backend) is expected
    assert get_cancelled_exc_class() is Cancelled  # a plain thread


def test_a_checkpoint_lets_others_go_on(backend: str) -> None:
    """As trio: test_basic_interleave."""

    async def body() -> None:
        turns = {"a": 0, "b": 0}

        async def child(me: str) -> None:
            while min(turns.values()) < 5:
                turns[me] += 1
                await checkpoint()

        async with TaskGroup() as group:
            group.start_soon(child, "a")
            group.start_soon(child, "b")

    run(body, backend=backend)


def test_the_clock_of_deadlines_goes_forward(backend: str) -> None:
    """As trio: test_current_time."""

    async def body() -> None:
        before = current_time()
        assert isinstance(before, float)
        await sleep(0.002)
        assert current_time() >= before + 0.002

    run(body, backend=backend)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_scopes_need_somebody_who_can_wait(name: str) -> None:
    """In a callback of a loop there is nobody to cancel: the error says so."""
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def body() -> None:
        seen: list[BaseException] = []
        done = Event()

        def callback() -> None:
            for use in (lambda: CancelScope().__enter__(), current_effective_deadline, get_cancelled_exc_class):
                try:
                    use()
                except BaseException as error:
                    seen.append(error)
            done.set()

        asyncio.get_running_loop().call_soon(callback)
        await done.wait()
        assert [type(error) for error in seen] == [RuntimeError] * 3
        assert all("needs a task or a thread" in str(error) for error in seen)

    run(body, backend=name)
