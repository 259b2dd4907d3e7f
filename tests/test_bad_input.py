"""Input that makes no sense: refused with an error that names the argument and what is allowed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from worlds import ALL, World

from chanlib import (
    Channel,
    Event,
    Future,
    Op,
    after,
    every,
    never,
    open_future,
    select,
    sleep,
)
from chanlib._core.running import run_here

NAN = math.nan


def close(*ops: Op[Any]) -> None:
    """Ops that were refused together with what they were given to: no warning about them."""
    for op in ops:
        op.close()


# ----------------------------------------------------------------- channels
@pytest.mark.parametrize("capacity", [-1, -1.0, 0.5, 2.5, -math.inf, NAN])
def test_a_capacity_below_zero_fractional_or_nan_is_a_value_error(capacity: float) -> None:
    with pytest.raises(ValueError, match=r"capacity .*integer of at least 0.*math\.inf.*not "):
        Channel[int](capacity)


@pytest.mark.parametrize("capacity", [None, "3", True, False, [], Decimal(2), Fraction(1, 2), 2j])
def test_a_capacity_that_is_no_number_is_a_type_error(capacity: Any) -> None:
    with pytest.raises(TypeError, match=r"capacity .*integer of at least 0"):
        Channel[int](capacity)


def test_a_capacity_has_to_be_given() -> None:
    with pytest.raises(TypeError, match="capacity"):
        Channel[int]()  # type: ignore[call-arg]


def test_options_of_a_channel_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Channel[int](1, "jobs")  # type: ignore[misc]


def test_on_undelivered_has_to_be_a_function() -> None:
    with pytest.raises(TypeError, match="on_undelivered"):
        Channel[int](1, on_undelivered=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [-1, 1.5, NAN, "3", None, True, -math.inf])
def test_receive_some_wants_a_count(most: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"max .*integer of at least 0"):
        Channel[int](1).receive_some(most)
    with pytest.raises((ValueError, TypeError), match=r"max "):
        Channel[int](1).receiver().receive_some(most)


@pytest.mark.parametrize("cause", ["broken", 3, OSError])
def test_the_cause_of_an_end_is_an_exception_and_nothing_else_ends_anything(cause: Any) -> None:
    ch = Channel[int](1)
    for end in (ch.close, ch.cancel, ch.sender().close, ch.receiver().cancel):
        with pytest.raises(TypeError, match="cause"):
            end(cause)
    assert not ch.is_closed


@pytest.mark.parametrize("values", [3, None])
def test_send_some_and_send_all_want_values(values: Any) -> None:
    ch = Channel[int](1)
    with pytest.raises(TypeError):
        ch.send_some(values)
    with pytest.raises(TypeError):
        ch.send_all(values)


def test_an_iterable_that_fails_fails_send_all_after_what_it_gave(world: World) -> None:
    def values() -> Any:
        yield 1
        yield 2
        raise OSError("disk")

    async def body() -> None:
        ch = Channel[int](5)
        with pytest.raises(OSError, match="disk"):
            await ch.send_all(values())
        assert ch.drain() in ([], [1, 2])
        assert ch.statistics().waiting_senders == 0

    world.run(body)


# ----------------------------------------------------------------- durations
TIMED: dict[str, Callable[[Any], Any]] = {
    "sleep": lambda seconds: sleep(seconds),
    "after": lambda seconds: after(seconds),
    "every": lambda seconds: every(seconds),
    "within": lambda seconds: never().within(seconds),
    "sync": lambda seconds: never().sync(seconds),
    "result": lambda seconds: Future[int]().result(seconds),
}
DURATION = pytest.mark.parametrize("timed", TIMED.values(), ids=TIMED.keys())


@DURATION
@pytest.mark.parametrize("value", [NAN, Decimal("nan")])
def test_a_duration_of_nan_is_a_value_error(timed: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(ValueError, match="NaN"):
        timed(value)


@DURATION
@pytest.mark.parametrize("value", ["soon", [], 2j, object()])
def test_a_duration_that_is_no_number_is_a_type_error(timed: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(TypeError, match="number of seconds"):
        timed(value)


@pytest.mark.parametrize("period", [0, -1, math.inf, -math.inf])
def test_a_period_is_positive_and_finite(period: float) -> None:
    with pytest.raises(ValueError, match=r"period .*positive"):
        every(period)
    ticker = every(1)
    with pytest.raises(ValueError, match=r"period .*positive"):
        ticker.reset(period)


@pytest.mark.parametrize("missed", ["sometimes", None, 3])
def test_missed_is_one_of_three_words(missed: Any) -> None:
    with pytest.raises(ValueError, match=r"missed .*'skip'.*'delay'.*'burst'"):
        every(1, missed=missed)


def test_fractions_and_decimals_are_durations() -> None:
    assert sleep(Fraction(0)).poll() is None  # type: ignore[arg-type]
    assert sleep(Decimal("-1.5")).poll() is None  # type: ignore[arg-type]


# ----------------------------------------------------------------- select
def test_a_select_without_an_enabled_arm_is_a_value_error() -> None:
    for arms in ((), (None,), (None, None), (never(),), (never(), None)):
        with pytest.raises(ValueError, match="at least one arm"):
            select(*arms)
        for arm in arms:
            if arm is not None:
                arm.close()


@pytest.mark.parametrize("arm", [3, "x", [], Event, print, asyncio.sleep, Channel[int](1).send_all([])])
def test_an_arm_that_is_no_operation_is_a_type_error_that_names_its_place(arm: Any) -> None:
    first = Event().wait()
    with pytest.raises(TypeError, match="arm 1 "):
        select(first, arm)
    close(first)


def test_a_coroutine_is_no_operation() -> None:
    async def foreign() -> None: ...

    coroutine = foreign()
    with pytest.raises(TypeError, match="arm 0 "):
        select(coroutine)  # type: ignore[call-overload]
    coroutine.close()


def test_an_object_whose_op_is_no_operation_is_a_type_error() -> None:
    class Odd:
        def __op__(self) -> int:
            return 3

    with pytest.raises(TypeError, match="arm 0 "):
        select(Odd())  # type: ignore[arg-type]


def test_the_same_operation_twice_in_a_select_is_a_runtime_error() -> None:
    ch = Channel[int](1)
    op = ch.receive()
    with pytest.raises(RuntimeError, match="performed"):
        select(op, op)
    assert ch.statistics().waiting_receivers == 0


def test_map_wants_a_function() -> None:
    op = Event().wait()
    with pytest.raises(TypeError, match="map"):
        op.map(3)  # type: ignore[arg-type]
    close(op)


# ----------------------------------------------------------------- futures
@pytest.mark.parametrize("error", ["broken", 3, None, int])
def test_set_exception_wants_an_exception(error: Any) -> None:
    future = Future[int]()
    with pytest.raises(TypeError, match="set_exception"):
        future.set_exception(error)
    promise, promised = open_future()
    with pytest.raises(TypeError, match="set_exception"):
        promise.set_exception(error)
    assert not future.done()
    assert not promised.done()


def test_add_done_callback_wants_a_function() -> None:
    with pytest.raises(TypeError, match="add_done_callback"):
        Future[int]().add_done_callback(3)  # type: ignore[arg-type]


def test_to_asyncio_outside_a_loop_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="loop"):
        Future[int]().to_asyncio()


# ----------------------------------------------------------------- the wrong world
def test_an_operation_that_would_wait_in_a_callback_of_a_loop_is_a_runtime_error() -> None:
    ch = Channel[int](0)

    def callback() -> None:
        with pytest.raises(RuntimeError, match=r"callback .*poll"):
            ch.receive().send(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_soon(callback)
        loop.call_soon(done.set_result, None)
        loop.set_exception_handler(lambda _, context: done.set_exception(context["exception"]))
        await done

    asyncio.run(main())
    assert ch.statistics().waiting_receivers == 0


def test_a_coroutine_stepped_by_hand_in_a_plain_thread_cannot_wait() -> None:
    ch = Channel[int](0)

    async def main() -> None:
        await ch.receive()

    coroutine = main()
    with pytest.raises(RuntimeError, match="sync"):
        coroutine.send(None)
    assert ch.statistics().waiting_receivers == 0


def test_a_foreign_awaitable_on_the_threads_world_is_a_runtime_error_that_says_so() -> None:
    async def foreign() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="cannot be awaited in a coroutine that is driven by its thread"):
        ALL["threads"].run(foreign)


def test_a_loop_thread_cannot_drive_a_coroutine(loop_world: World) -> None:
    async def inner() -> None:
        raise AssertionError("never begun")

    async def body() -> None:
        with pytest.raises(RuntimeError, match="await"):
            run_here(inner())

    loop_world.run(body)
