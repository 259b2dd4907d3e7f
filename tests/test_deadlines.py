"""Deadlines of cancel scopes, `move_on_after/at` and `fail_after/at`. One body for all four backends.

The cases follow trio's `test_timeouts.py` and `test_run.py` and anyio's `tests/test_taskgroups.py`, written afresh.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from census import Census
from elsewhere import once_parked
from until import passed, settle

from chanlib import (
    CancelScope,
    Channel,
    Event,
    TaskGroup,
    checkpoint,
    current_effective_deadline,
    current_time,
    fail_after,
    fail_at,
    get_cancelled_exc_class,
    move_on_after,
    move_on_at,
    run,
    sleep,
)

pytestmark = pytest.mark.usefixtures("census")


def raises(error: type[BaseException], match: str | None = None) -> Any:
    """pytest's, for a block of several statements: it matters from where in it the error comes."""
    return pytest.raises(error, match=match)


def cancels(match: str | None = None) -> Any:
    """What stands inside is cancelled, and goes on after it."""
    return pytest.raises(get_cancelled_exc_class(), match=match)


# ------------------------------------------------------------------------------ deadlines
@pytest.mark.parametrize("deadline", [-math.inf, 0.0, -5, "now", "just past"])
def test_a_deadline_in_the_past_cancels_at_the_first_operation(backend: str, deadline: Any) -> None:
    """As anyio: test_deadline_reached_on_start; trio: test_timekeeping."""

    async def body() -> list[str]:
        log = []
        at = {"now": current_time(), "just past": current_time() - 1e-9}.get(deadline, deadline)
        with CancelScope(deadline=min(at, current_time())) as scope:
            log.append("in")
            assert scope.cancel_called
            await Event().wait()
            log.append("not cancelled")
        assert scope.cancelled_caught
        return log

    assert run(body, backend=backend) == ["in"]


def test_a_deadline_that_passes_during_computation_is_felt_at_the_next_operation(backend: str) -> None:
    async def body() -> None:
        with move_on_after(0.002) as scope:
            await passed(scope.deadline)
            await Event().wait()
        assert scope.cancelled_caught
        with move_on_after(0.002) as scope:
            await passed(scope.deadline)
        assert not scope.cancelled_caught

    run(body, backend=backend)


def test_a_scope_whose_deadline_has_passed_says_that_it_is_cancelled(backend: str) -> None:

    async def body() -> None:
        with move_on_after(0.05) as scope:
            await passed(scope.deadline)
            assert scope.cancel_called

    run(body, backend=backend)


def test_a_scope_left_in_time_is_not_cancelled_when_its_deadline_passes(backend: str) -> None:
    """As in trio: a scope that was left has had its say."""

    async def body() -> None:
        for _ in range(5):
            with move_on_after(0.1) as moving, fail_after(0.1) as failing:
                pass
            if current_time() < moving.deadline:  # else this thread had to wait too long
                break
        assert not moving.cancel_called
        assert not failing.cancel_called
        await passed(max(moving.deadline, failing.deadline))
        assert not moving.cancel_called
        assert not failing.cancel_called
        assert not moving.cancelled_caught
        assert not failing.cancelled_caught

    run(body, backend=backend)


def test_infinity_is_no_deadline(backend: str) -> None:
    """As anyio: test_move_on_after_no_timeout, test_fail_after_no_timeout, ..._at_no_timeout."""

    async def body() -> None:
        for scope in (
            CancelScope(deadline=math.inf),
            move_on_after(math.inf),
            move_on_at(math.inf),
            fail_after(math.inf),
            fail_at(math.inf),
        ):
            with scope:
                assert scope.deadline == math.inf
                assert current_effective_deadline() == math.inf
                await checkpoint()
            assert not scope.cancel_called

    run(body, backend=backend)


def test_a_wait_ends_at_its_deadline_not_before(backend: str, census: Census) -> None:
    """As trio: test_timekeeping, test_move_on_after."""

    async def body() -> None:
        event = census.watch(Event())
        start = current_time()
        with move_on_after(0.03) as scope:
            await event.wait()
        assert scope.cancelled_caught
        assert scope.cancel_called
        assert current_time() >= start + 0.03
        with move_on_at(current_time() + 0.01) as scope:
            await event.wait()
        assert scope.cancelled_caught
        assert current_time() >= scope.deadline

    run(body, backend=backend)


def test_a_deadline_moved_later_counts_from_then_on(backend: str) -> None:
    """As anyio: test_deadline_moved."""

    async def body() -> None:
        with fail_after(0.1) as scope:
            first = scope.deadline
            scope.deadline += 30
            assert scope.deadline == first + 30
            assert current_effective_deadline() == first + 30
            await sleep(0.11)
        assert not scope.cancel_called

    run(body, backend=backend)


def test_a_deadline_moved_earlier_counts_from_then_on(backend: str) -> None:
    async def body() -> None:
        with move_on_after(30) as scope:
            scope.deadline = current_time() + 0.002
            await Event().wait()
        assert scope.cancelled_caught
        with move_on_after(30) as scope:
            scope.deadline = current_time() - 1
            await Event().wait()
        assert scope.cancelled_caught

    run(body, backend=backend)


@pytest.mark.parametrize("change", [-math.inf, 0.002])
def test_a_deadline_moved_earlier_by_another_thread_cuts_a_wait(backend: str, census: Census, change: float) -> None:
    async def body() -> None:
        event = census.watch(Event())
        with CancelScope() as scope:
            deadline = current_time() + change
            side = once_parked(event, lambda: setattr(scope, "deadline", deadline))
            await event.wait()
        assert scope.cancelled_caught
        side.join()

    run(body, backend=backend)


@pytest.mark.parametrize("change", [math.inf, 30.0])
def test_a_deadline_moved_later_by_another_thread_spares_a_wait(backend: str, census: Census, change: float) -> None:
    async def body() -> None:
        event, moved = census.watch(Event()), census.watch(Event())

        def act(first: float, start: float) -> bool:
            scope.deadline = first + change
            moved.set()
            return time.monotonic() < start + 0.25

        start = time.monotonic()
        with move_on_after(0.3) as scope:
            first = scope.deadline
            side = once_parked(event, lambda: act(first, start))
            async with TaskGroup() as group:
                group.start_soon(event.wait)
                await moved.wait()
                await sleep(max(first - current_time(), 0) + 0.01)
                event.set()
        if side.join():  # it was in time
            assert not scope.cancel_called
            assert not scope.cancelled_caught

    run(body, backend=backend)


def test_who_waits_keeps_the_place_in_the_queue_when_a_deadline_is_moved(backend: str, census: Census) -> None:

    async def body() -> list[str]:
        ch = census.watch(Channel[int](0))
        scope = CancelScope(deadline=current_time() + 100)
        log = []

        async def receives(name: str, scope: CancelScope) -> None:
            with scope:
                await ch.receive()
                log.append(name)

        async with TaskGroup() as group:
            group.start_soon(receives, "first", scope)
            await settle(lambda: ch.statistics().waiting_receivers == 1)
            group.start_soon(receives, "second", CancelScope())
            await settle(lambda: ch.statistics().waiting_receivers == 2)
            for _ in range(50):
                scope.deadline += 100
                await checkpoint()
                time.sleep(0.004)
            await settle(lambda: ch.statistics().waiting_receivers == 2)
            await ch.send(1)
            await settle(lambda: log)
            await ch.send(2)
        return log

    assert run(body, backend=backend) == ["first", "second"]


def test_a_deadline_may_be_moved_any_number_of_times(backend: str) -> None:
    """As trio: test_cancel_scope_deadline_duplicates."""

    async def body() -> None:
        now = current_time()
        with CancelScope() as scope:
            for _ in range(1500):
                scope.deadline = now + 9998
                scope.deadline = now + 9999
            await sleep(0.001)
        assert not scope.cancel_called

    run(body, backend=backend)


def test_a_deadline_moved_later_does_not_take_a_cancellation_back(backend: str) -> None:
    """As trio: test_cancel_unbound, its last part."""

    async def body() -> None:
        with move_on_after(0) as scope:
            with cancels():
                await checkpoint()
            scope.deadline = current_time() + 1000
            assert scope.cancel_called
            await checkpoint()
            pytest.fail("still cancelled")
        assert scope.cancelled_caught

    run(body, backend=backend)


@pytest.mark.parametrize("make", [move_on_after, move_on_at, fail_after, fail_at, lambda x: CancelScope(deadline=x)])
def test_wrong_times_are_refused(make: Callable[[Any], CancelScope]) -> None:
    """As trio: test_timeouts_raise_value_error, test_cancel_scope_validation."""
    with pytest.raises(ValueError, match="NaN"):
        make(math.nan)
    for wrong in ("1", b"1", None, [], 1j, "soon"):
        with pytest.raises(TypeError, match=r"(deadline|delay) must be"):
            make(wrong)


@pytest.mark.parametrize(
    "make",
    [
        move_on_after,
        fail_after,
        move_on_at,
        fail_at,
        lambda at: CancelScope(deadline=at),
    ],
)
def test_an_integer_beyond_all_floats_is_infinity(backend: str, make: Callable[[float], CancelScope]) -> None:
    """As for durations: `within` and `sleep` take it, too."""

    async def body() -> None:
        with make(10**400) as scope:
            await sleep(0.001)
        assert not scope.cancel_called

    run(body, backend=backend)


@pytest.mark.parametrize("at", [1e12, 1e18, 1e300])
def test_a_deadline_may_be_far_away(backend: str, census: Census, at: float) -> None:
    async def body() -> None:
        event = census.watch(Event())
        for scope in (move_on_after(at), move_on_at(at)):
            with scope:
                side = once_parked(event, event.set)
                await event.wait()
            assert not scope.cancel_called
            side.join()
            event.clear()

    run(body, backend=backend)


def test_wrong_attributes_are_refused(backend: str) -> None:
    """As trio: test_cancel_scope_validation, test_cancel_shielding."""

    async def body() -> None:
        for scope in (CancelScope(), CancelScope()):
            with pytest.raises(ValueError, match="NaN"):
                scope.deadline = math.nan
            with pytest.raises(TypeError, match="deadline must be"):
                scope.deadline = "now"  # type: ignore[assignment]
            with pytest.raises(TypeError, match="shield must be True or False"):
                scope.shield = "yes"  # type: ignore[assignment]
            with pytest.raises(TypeError, match="reason must be a string"):
                scope.cancel(5)  # type: ignore[arg-type]
            assert (scope.deadline, scope.shield, scope.cancel_called) == (math.inf, False, False)
            with scope:
                await checkpoint()
        with pytest.raises(TypeError, match="shield must be"):
            CancelScope(shield=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="shield must be"):
            move_on_after(1, shield=None)  # type: ignore[arg-type]

    run(body, backend=backend)


@pytest.mark.parametrize("delay", [0, -1, -math.inf, 0.0])
def test_a_delay_that_is_over_cancels_at_the_first_operation(backend: str, delay: float) -> None:
    """As anyio: test_move_on_after[instant], test_fail_after[instant]. Negative counts as 0 here; trio refuses it."""

    async def body() -> None:
        with move_on_after(delay) as scope:
            await Event().wait()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), fail_after(delay) as scope:
            await Event().wait()
        assert scope.cancelled_caught

    run(body, backend=backend)


@pytest.mark.parametrize("make", [move_on_after, fail_after])
def test_the_clock_starts_on_entering(backend: str, make: Callable[[float], CancelScope]) -> None:
    """As trio: test_timeout_deadline_on_entry."""

    async def body() -> None:
        scope = make(50)
        made = current_time()
        await passed(made + 0.003)
        entered = current_time()
        with scope:
            assert entered + 50 <= scope.deadline <= current_time() + 50

    run(body, backend=backend)


def test_the_earlier_of_two_deadlines_cancels(backend: str) -> None:
    """As anyio: test_nested_move_on_after."""

    async def body() -> None:
        with move_on_after(0.005) as outer:
            with move_on_after(30) as inner:
                assert current_effective_deadline() in (outer.deadline, -math.inf)
                await Event().wait()
            pytest.fail("it was the outer one")
        assert outer.cancelled_caught
        assert not inner.cancel_called
        with move_on_after(30) as outer, move_on_after(0.005) as inner:
            await Event().wait()
        assert inner.cancelled_caught
        assert not outer.cancel_called

    run(body, backend=backend)


@pytest.mark.parametrize("make", [move_on_after, fail_after])
def test_a_shielded_deadline_counts_in_a_cancelled_scope(backend: str, make: Any) -> None:
    """As trio: test_context_shields_from_outer, test_move_on_after_moves_on_even_if_shielded, test_fail_after_..."""

    async def body() -> None:
        expected = pytest.raises(TimeoutError) if make is fail_after else contextlib.nullcontext()
        with CancelScope() as outer:
            outer.cancel()
            with expected, make(0.005, shield=True) as inner:
                await checkpoint()
                await Event().wait()
            assert inner.cancelled_caught
            with make(30, shield=True) as inner:
                await checkpoint()
                inner.shield = False
                with cancels():
                    await checkpoint()

    run(body, backend=backend)


def test_the_effective_deadline_is_the_earliest_as_far_as_the_first_shield(backend: str) -> None:
    """As trio: test_current_effective_deadline; anyio: test_shielded_deadline."""

    async def body() -> None:
        now = current_time() + 1000
        assert current_effective_deadline() == math.inf
        with CancelScope(deadline=now + 5) as outer:
            with CancelScope(deadline=now + 10) as inner:
                assert current_effective_deadline() == now + 5
                inner.deadline = now + 3
                assert current_effective_deadline() == now + 3
                inner.deadline = now + 10
                assert current_effective_deadline() == now + 5
                inner.shield = True
                assert current_effective_deadline() == now + 10
                inner.shield = False
                assert current_effective_deadline() == now + 5
                outer.cancel()
                assert current_effective_deadline() == -math.inf
                inner.shield = True
                assert current_effective_deadline() == now + 10
                inner.cancel()
                assert current_effective_deadline() == -math.inf
            assert current_effective_deadline() == -math.inf
        assert current_effective_deadline() == math.inf

    run(body, backend=backend)


def test_children_see_the_deadline_of_the_scope_their_group_is_in(backend: str) -> None:
    async def body() -> None:
        async def child() -> float:
            return current_effective_deadline()

        with move_on_after(500) as scope:
            async with TaskGroup() as group:
                inside = group.start_soon(child)
                with move_on_after(50):
                    beside = group.start_soon(child)
            assert await inside == scope.deadline
            assert await beside == scope.deadline

    run(body, backend=backend)


# ------------------------------------------------------------------------------ fail_after, fail_at
@pytest.mark.parametrize("make", [fail_after, lambda delay: fail_at(current_time() + delay)], ids=["after", "at"])
def test_fail_raises_timeout_error_when_the_time_is_over(backend: str, census: Census, make: Any) -> None:
    """As anyio: test_fail_after, test_fail_at; trio: test_fail."""

    async def body() -> None:
        event = census.watch(Event())
        with raises(TimeoutError, match="not done within") as caught, make(0.005) as scope:
            with cancels("deadline"):
                await event.wait()
            await event.wait()
        assert scope.cancel_called
        assert scope.cancelled_caught
        assert isinstance(caught.value.__context__, get_cancelled_exc_class())
        with make(30):
            await checkpoint()
        with make(30) as scope:
            scope.cancel()
            await checkpoint()

    run(body, backend=backend)


def test_an_explicit_cancel_is_no_timeout(backend: str) -> None:
    """As anyio: test_fail_after_cancelled_before_deadline, test_fail_after_scope_cancelled_before_timeout."""

    async def body() -> None:
        with fail_after(0.1) as scope:
            scope.cancel()
            await passed(scope.deadline)
            await checkpoint()
            pytest.fail("cancelled")
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_a_cancel_after_the_deadline_leaves_it_a_timeout(backend: str) -> None:
    """Only the first cause counts (trio: test_cancel_reason_not_overwritten_2)."""

    async def body() -> None:
        with raises(TimeoutError), fail_after(0) as scope:
            try:
                await Event().wait()
            except get_cancelled_exc_class():
                scope.cancel()
                raise

    run(body, backend=backend)


def test_a_block_that_ends_by_itself_is_no_timeout_even_if_it_is_late(backend: str) -> None:
    async def body() -> str:
        with fail_after(0.001) as scope:
            await passed(scope.deadline)
        assert not scope.cancelled_caught
        with fail_after(0.001) as scope, pytest.raises(get_cancelled_exc_class()):
            await Event().wait()
        assert not scope.cancelled_caught
        return "no TimeoutError"

    assert run(body, backend=backend) == "no TimeoutError"


def test_a_timeout_error_of_the_block_is_not_that_of_the_scope(backend: str) -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError, match=r"receive.* did not happen within 0.001 s"), fail_after(30) as scope:
            await Channel[int](0).receive().within(0.001)
        assert not scope.cancel_called
        with pytest.raises(TimeoutError, match="mine"), fail_after(0) as scope:
            raise TimeoutError("mine")
        assert not scope.cancelled_caught

    run(body, backend=backend)


def test_of_two_that_fail_the_one_whose_deadline_it_was_raises(backend: str) -> None:
    """As anyio: test_nested_fail_after."""

    async def body() -> None:
        with raises(TimeoutError, match=r"0\.005 s"), fail_after(0.005) as outer:
            with fail_after(30) as inner:
                await Event().wait()
            pytest.fail("the outer one")
        assert (outer.cancelled_caught, inner.cancelled_caught) == (True, False)
        with fail_after(30) as outer:
            with pytest.raises(TimeoutError, match=r"0\.005 s"), fail_after(0.005) as inner:
                await Event().wait()
            await checkpoint()
        assert (outer.cancelled_caught, inner.cancelled_caught) == (False, True)

    run(body, backend=backend)


def test_a_scope_around_is_not_a_timeout_of_the_scope_inside(backend: str) -> None:
    """As anyio: test_nested_fail_after, test_fail_after_after_cancellation."""

    async def body() -> None:
        with CancelScope() as outer:
            with CancelScope(), fail_after(30):
                outer.cancel()
                await Event().wait()
            pytest.fail("outer was cancelled")
        assert outer.cancelled_caught
        with pytest.raises(TimeoutError), fail_after(0.002):
            await Event().wait()

    run(body, backend=backend)


def test_children_that_a_deadline_has_cut_make_one_timeout_error(backend: str, census: Census) -> None:
    """As anyio: test_timeout_error_with_multiple_cancellations."""

    async def body() -> None:
        event = census.watch(Event())
        with raises(TimeoutError), fail_after(0.02):
            async with TaskGroup() as group:
                for _ in range(3):
                    group.start_soon(event.wait)
                await event.wait()

    run(body, backend=backend)
