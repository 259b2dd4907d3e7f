"""TaskGroup and the handles of its children: one body each, on every backend of `run`.

Each case was written anew; where its idea comes from a test of another project, that is named: anyio's
`tests/test_taskgroups.py`, trio's `_core/_tests/test_run.py`, CPython's `test_asyncio/test_taskgroups.py` ("CPython"
below), Go's `errgroup_test.go`.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import trio
from backends import loops, on_asyncio
from children import Boom, Grave, cut, fail, frames, give, raises_base_group, raises_group, same
from until import until
from values import Thing

from chanlib import (
    CancelScope,
    Channel,
    Event,
    TaskCancelled,
    TaskGroup,
    TaskHandle,
    checkpoint,
    get_cancelled_exc_class,
    move_on_after,
    never,
    run,
    select,
)
from chanlib._core.lane import lanes
from chanlib._core.threads import idle_threads
from chanlib.groups import entered

pytestmark = pytest.mark.usefixtures("census")

policies = pytest.mark.parametrize("on_error", ["cancel", "supervise", "collect"])


NO_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()


def gone(watched: list[weakref.ref[Any]], backend: str) -> bool:
    """Are all of them gone? Without a GIL, what a thread has made and another drops goes when the former next runs."""
    if backend == "threads" and NO_GIL:
        gc.collect()
    return all(reference() is None for reference in watched)


@pytest.fixture
def no_gc() -> Iterator[None]:
    """What is freed in here is freed by counting references."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# ===================================================================== start, and wait for all
def test_the_block_ends_when_all_children_have(backend: str) -> None:
    """CPython: test_taskgroup_01; anyio: test_success."""

    async def body() -> None:
        log: list[int] = []

        async def child(number: int) -> None:
            for _ in range(number):
                await checkpoint()
            log.append(number)

        async with TaskGroup() as group:
            for number in range(5):
                group.start_soon(child, number)
        assert sorted(log) == [0, 1, 2, 3, 4]

    run(body, backend=backend)


def test_handles_have_the_results(backend: str) -> None:
    """CPython: test_taskgroup_01; anyio: TestCreateTask.test_return_value."""

    async def body() -> None:
        async with TaskGroup() as group:
            one, two = group.start_soon(give, 1), group.start_soon(give, "two")
        assert (await one, await two) == (1, "two")
        assert await one == 1  # as often as one likes

    run(body, backend=backend)


def test_an_empty_group_ends_at_once(backend: str) -> None:
    """errgroup: TestZeroGroup."""

    async def body() -> str:
        async with TaskGroup() as group:
            assert len(group) == 0
        return "over"

    assert run(body, backend=backend) == "over"


def test_children_can_be_started_while_others_run(backend: str) -> None:
    """CPython: test_taskgroup_02; anyio: test_start_soon_while_running."""

    async def body() -> None:
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "first"

        async with TaskGroup() as group:
            first = group.start_soon(child)
            await until(lambda: gate.statistics().waiting == 1)
            assert await group.start_soon(give, "second") == "second"
            assert not first.done
            gate.set()
        assert await first == "first"

    run(body, backend=backend)


def test_a_child_can_start_siblings_while_the_block_waits(backend: str) -> None:
    """trio: test_nursery_start_keeps_nursery_open; anyio: test_cancel_propagation_with_inner_spawn."""

    async def body() -> None:
        log: list[int] = []

        async def child(group: TaskGroup, left: int) -> None:
            log.append(left)
            await checkpoint()
            if left:
                group.start_soon(child, group, left - 1)

        async with TaskGroup() as group:
            group.start_soon(child, group, 10)
        assert log == list(range(10, -1, -1))

    run(body, backend=backend)


def test_a_group_counts_its_children(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> None:
            await gate.wait()

        async with TaskGroup(limit=2) as group:
            assert (len(group), bool(group)) == (0, True)
            for _ in range(3):
                group.start_soon(child)
            assert len(group) == 3  # one of them is queued
            gate.set()
            await group.wait_empty()
            assert len(group) == 0
        assert len(group) == 0

    run(body, backend=backend)


def test_wait_empty_can_be_repeated_and_does_not_close(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            await group.wait_empty()  # there was none
            for value in range(3):
                handle = group.start_soon(give, value)
                await group.wait_empty()
                assert handle.done

    run(body, backend=backend)


def test_wait_empty_may_stand_in_a_select(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> None:
            await gate.wait()

        async with TaskGroup() as group:
            group.start_soon(child)
            word = Channel[str](1)
            word.send_nowait("first")
            assert await select(group.wait_empty(), word.receive()) == (1, "first")
            gate.set()
            assert await select(group.wait_empty(), word.receive()) == (0, None)

    run(body, backend=backend)


def test_two_thousand_children(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup(limit=None if backend != "threads" else 100) as group:
            handles = [group.start_soon(give, number) for number in range(2000)]
        assert [await handle for handle in handles] == list(range(2000))

    run(body, backend=backend)


def test_groups_nested_a_hundred_deep(backend: str) -> None:
    """trio: test_very_deep_cancel_scope_nesting."""

    async def body() -> None:
        async def down(left: int) -> int:
            if not left:
                return 0
            async with TaskGroup() as group:
                handle = group.start_soon(down, left - 1)
            return await handle + 1

        assert await down(100) == 100

    run(body, backend=backend)


def test_a_cancellation_reaches_a_hundred_groups_down(backend: str) -> None:
    async def body() -> None:
        gate = Event()
        log: list[str] = []

        async def down(left: int) -> None:
            if not left:
                try:
                    await gate.wait()
                finally:
                    log.append("cut")
            async with TaskGroup() as group:
                group.start_soon(down, left - 1)

        async with TaskGroup() as group:
            group.start_soon(down, 100)
            await until(lambda: gate.statistics().waiting == 1)
            group.cancel()
        assert log == ["cut"]

    run(body, backend=backend)


# ===================================================================== errors
def test_an_error_of_a_child_comes_out_in_a_group(backend: str) -> None:
    """trio: test_child_crash_basic; anyio: test_exception_group_children."""

    async def body() -> None:
        error = Boom("child")
        with raises_group() as caught:
            async with TaskGroup() as group:
                handle = group.start_soon(fail, error)
        assert same(caught.value, error)
        assert handle.exception is error

    run(body, backend=backend)


def test_an_error_of_a_child_cancels_siblings_and_block(backend: str) -> None:
    """CPython: test_cancel_children_on_child_error; anyio: test_failing_child_task_cancels_host."""

    async def body() -> None:
        log: list[str] = []
        go = Event()
        error = Boom()

        async def bad() -> None:
            await go.wait()
            raise error

        with raises_group() as caught:
            async with TaskGroup() as group:
                handles = [group.start_soon(cut, log, "sibling") for _ in range(2)]
                group.start_soon(bad)
                await until(lambda: go.statistics().waiting == 1)
                go.set()
                await cut(log, "block")
                log.append("never")
        assert same(caught.value, error)
        assert sorted(log) == ["block", "sibling", "sibling"]
        assert all(handle.cancelled for handle in handles)

    run(body, backend=backend)


def test_all_errors_come_out_in_one_group(backend: str) -> None:
    """trio: test_two_child_crashes; anyio: test_exception_group_children."""

    async def body() -> None:
        errors = [Boom(number) for number in range(5)]
        ready = Event()

        async def bad(error: Exception) -> None:
            try:
                await ready.wait()
            finally:  # cancelled or not
                raise error

        with raises_group() as caught:
            async with TaskGroup() as group:
                for error in errors:
                    group.start_soon(bad, error)
                await until(lambda: ready.statistics().waiting == 5)
                ready.set()
        assert same(caught.value, *errors)

    run(body, backend=backend)


def test_an_error_keeps_the_frames_of_its_child(backend: str) -> None:
    """trio: test_traceback_frame_removal, for what must stay."""

    async def body() -> None:
        async def deep_inside() -> None:
            raise Boom

        async def child() -> None:
            await deep_inside()

        with raises_group() as caught:
            async with TaskGroup() as group:
                group.start_soon(child)
        assert frames(caught.value.exceptions[0])[-2:] == ["child", "deep_inside"]

    run(body, backend=backend)


def test_awaiting_a_failed_child_again_and_again_keeps_its_traceback_as_it_was(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            handle = group.start_soon(fail, Boom())
        lengths = []
        for _ in range(3):
            with pytest.raises(Boom) as caught:
                await handle
            assert frames(caught.value)[-1] == "fail"
            lengths.append(len(frames(caught.value)))
        assert len(set(lengths)) == 1  # a traceback that each waiter made longer would grow without end

    run(body, backend=backend)


def test_a_child_awaited_in_the_block_raises_the_same_object_and_it_comes_out_once(backend: str) -> None:
    """No exception twice: the block and the child both raise it."""

    async def body() -> None:
        error = Boom()
        with raises_group() as caught:
            async with TaskGroup(on_error="supervise") as group:
                handle = group.start_soon(fail, error)
                await handle
        assert same(caught.value, error)

    run(body, backend=backend)


def test_an_error_that_several_children_pass_on_comes_out_once(backend: str) -> None:
    async def body() -> None:
        error = Boom()

        async def passes_on(handle: TaskHandle[Any]) -> None:
            await handle

        with raises_group() as caught:
            async with TaskGroup(on_error="supervise") as group:
                first = group.start_soon(fail, error)
                for _ in range(3):
                    group.start_soon(passes_on, first)
        assert same(caught.value, error)

    run(body, backend=backend)


@policies
def test_an_error_of_the_block_cancels_the_children_and_comes_out_in_a_group(backend: str, on_error: Any) -> None:
    """anyio: test_failing_host_task_cancels_children, test_exception_group_host; CPython: test_taskgroup_09."""

    async def body() -> None:
        log: list[str] = []
        started = Event()
        error = Boom("block")

        async def child() -> None:
            started.set()
            await cut(log)

        with raises_group() as caught:
            async with TaskGroup(on_error=on_error) as group:
                handle = group.start_soon(child)
                await started.wait()
                raise error
        assert same(caught.value, error)
        assert log == ["cut"]
        assert handle.cancelled

    run(body, backend=backend)


def test_errors_of_block_and_children_come_out_together(backend: str) -> None:
    """trio: test_main_and_task_both_crash; CPython: test_taskgroup_16."""

    async def body() -> None:
        ours, theirs = Boom("block"), Boom("child")
        waiting = Event()

        async def child() -> None:
            try:
                await waiting.wait()
            finally:
                raise theirs

        with raises_group() as caught:
            async with TaskGroup() as group:
                group.start_soon(child)
                await until(lambda: waiting.statistics().waiting == 1)
                raise ours
        assert same(caught.value, ours, theirs)
        assert caught.value.exceptions[0] is ours

    run(body, backend=backend)


def test_an_error_raised_by_a_child_that_is_being_cancelled_comes_out(backend: str) -> None:
    """CPython: test_taskgroup_08; anyio: test_exception_cancels_siblings."""

    async def body() -> None:
        error = Boom("at the clean-up")
        waiting = Event()

        async def child() -> None:
            try:
                await waiting.wait()
            except get_cancelled_exc_class():
                raise error from None

        with raises_group() as caught:
            async with TaskGroup() as group:
                handle = group.start_soon(child)
                await until(lambda: waiting.statistics().waiting == 1)
                group.cancel()
        assert same(caught.value, error)
        assert handle.exception is error
        assert not handle.cancelled

    run(body, backend=backend)


def test_an_error_and_a_cancellation_from_outside_at_once(backend: str) -> None:
    """The error goes on; the scope outside has nothing to catch. CPython: test_taskgroup_11, test_taskgroup_12."""

    async def body() -> None:
        error = Boom()
        waiting = Event()

        async def child() -> None:
            try:
                await waiting.wait()
            finally:
                raise error

        with raises_group() as caught, CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child)
                await until(lambda: waiting.statistics().waiting == 1)
                scope.cancel()
                await checkpoint()
        assert same(caught.value, error)
        await checkpoint()  # nothing lingers

    run(body, backend=backend)


@policies
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Grave])
def test_what_is_no_exception_cancels_and_is_raised_under_every_policy(backend: str, on_error: Any, kind: Any) -> None:
    """CPython: test_taskgroup_20a, test_taskgroup_21a, for children."""

    async def body() -> None:
        log: list[str] = []
        started = Event()
        error = kind("grave")

        async def sibling() -> None:
            started.set()
            await cut(log)

        with raises_base_group() as caught:
            async with TaskGroup(on_error=on_error) as group:
                group.start_soon(sibling)
                await started.wait()
                handle = group.start_soon(fail, error)
        assert same(caught.value, error)
        assert not isinstance(caught.value, Exception)
        assert handle.exception is error
        assert log == ["cut"]

    run(body, backend=backend)


@policies
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Grave])
def test_what_is_no_exception_raised_in_the_block(backend: str, on_error: Any, kind: Any) -> None:
    """CPython: test_taskgroup_20, test_taskgroup_22, for the block."""

    async def body() -> None:
        log: list[str] = []
        started = Event()
        error = kind("grave")

        async def sibling() -> None:
            started.set()
            await cut(log)

        with raises_base_group() as caught:
            async with TaskGroup(on_error=on_error) as group:
                group.start_soon(sibling)
                await started.wait()
                raise error
        assert same(caught.value, error)
        assert log == ["cut"]

    run(body, backend=backend)


def test_exception_groups_nest_as_the_groups_do(backend: str) -> None:
    """CPython: test_taskgroup_14; anyio: test_nested_task_group_filtering."""

    async def body() -> None:
        error = Boom("inner")
        theirs = ExceptionGroup("of the child's own", [Boom(1), Boom(2)])

        async def inner() -> None:
            async with TaskGroup() as group:
                group.start_soon(fail, error)

        with raises_group() as caught:
            async with TaskGroup(on_error="supervise") as group:
                handle = group.start_soon(inner)
                group.start_soon(fail, theirs)
        assert len(caught.value.exceptions) == 2
        assert any(one is theirs for one in caught.value.exceptions)
        assert isinstance(handle.exception, ExceptionGroup)
        assert same(handle.exception, error)
        leaves, rest = caught.value.split(Boom)
        assert leaves is not None
        assert rest is None

    run(body, backend=backend)


def test_an_error_of_an_outer_child_cancels_the_inner_group(backend: str) -> None:
    """CPython: test_taskgroup_13: only the one error comes out, and not nested."""

    async def body() -> None:
        log: list[str] = []
        go = Event()
        error = Boom()

        async def bad() -> None:
            await go.wait()
            raise error

        with raises_group() as caught:
            async with TaskGroup() as outer:
                outer.start_soon(bad)
                async with TaskGroup() as inner:
                    inner.start_soon(cut, log, "inner child")
                    await until(lambda: go.statistics().waiting == 1)
                    go.set()
                log.append("never")
        assert same(caught.value, error)
        assert log == ["inner child"]

    run(body, backend=backend)


def test_a_group_of_errors_has_no_context_of_its_own(backend: str) -> None:
    """anyio: test_exception_groups_suppresses_exc_context."""

    async def body() -> None:
        with raises_group() as caught:
            async with TaskGroup():
                raise Boom
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    run(body, backend=backend)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_stop_iteration_of_the_block_is_an_error_like_any_other(backend: str, kind: Any) -> None:
    """trio: test_nursery_stop_iteration, test_nursery_stop_async_iteration."""

    async def body() -> None:
        error = kind("from the block")
        with raises_group() as caught:
            async with TaskGroup():
                raise error
        assert same(caught.value, error)

    run(body, backend=backend)


def test_children_can_be_started_after_an_error_and_are_cancelled_at_once(backend: str) -> None:
    """anyio: test_start_soon_after_error; CPython: test_taskgroup_no_create_task_after_failure, which refuses."""

    async def body() -> None:
        log: list[str] = []
        with raises_group():
            async with TaskGroup() as group:
                group.start_soon(fail, Boom())
                await until(lambda: len(group) == 0)
                handle = group.start_soon(cut, log)
        assert handle.cancelled
        assert log == ["cut"]

    run(body, backend=backend)


# ===================================================================== on_error
def test_supervised_siblings_go_on_and_errors_come_out_in_the_end(backend: str) -> None:
    async def body() -> None:
        one, two = Boom(1), Boom(2)
        with raises_group() as caught:
            async with TaskGroup(on_error="supervise") as group:
                bad = group.start_soon(fail, one)
                await until(lambda: bad.done)
                await checkpoint()  # the block is not cancelled
                good = group.start_soon(give, "fine")
                group.start_soon(fail, two)
                assert await good == "fine"
        assert same(caught.value, one, two)

    run(body, backend=backend)


def test_collected_errors_stay_in_the_handles(backend: str) -> None:
    async def body() -> None:
        error = Boom()
        async with TaskGroup(on_error="collect") as group:
            bad, good = group.start_soon(fail, error), group.start_soon(give, "fine")
        assert bad.exception is error
        assert good.exception is None
        assert await good == "fine"
        with pytest.raises(Boom) as caught:
            await bad
        assert caught.value is error

    run(body, backend=backend)


def test_a_collecting_group_raises_what_the_block_lets_through(backend: str) -> None:
    async def body() -> None:
        error = Boom()
        with raises_group() as caught:
            async with TaskGroup(on_error="collect") as group:
                await group.start_soon(fail, error)
        assert same(caught.value, error)

    run(body, backend=backend)


@policies
def test_a_cancelled_child_is_no_error(backend: str, on_error: Any) -> None:
    """CPython: test_taskgroup_03."""

    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "fine"

        async with TaskGroup(on_error=on_error) as group:
            other, gone = group.start_soon(child), group.start_soon(cut, log)
            await checkpoint()
            gone.cancel()
            await until(lambda: gone.done)
            gate.set()
        assert log == ["cut"]
        assert gone.cancelled
        assert gone.exception is None
        assert await other == "fine"

    run(body, backend=backend)


# ===================================================================== cancelling the group
def test_cancelled_from_the_block(backend: str) -> None:
    """anyio: test_cancel."""

    async def body() -> None:
        log: list[str] = []
        started = Event()

        async def child() -> None:
            started.set()
            await cut(log)

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            await started.wait()
            group.cancel("enough")
            log.append("goes on to the next operation")
            await checkpoint()
            log.append("never")
        assert log[0] == "goes on to the next operation"
        assert sorted(log) == ["cut", "goes on to the next operation"]
        assert handle.cancelled
        assert group.cancel_scope.cancel_called
        assert group.cancel_scope.cancelled_caught

    run(body, backend=backend)


def test_cancelled_from_a_child(backend: str) -> None:
    """anyio: test_cancel_scope_in_another_task, test_cancel_propagation."""

    async def body() -> None:
        log: list[str] = []

        async def child(group: TaskGroup) -> None:
            group.cancel()
            await cut(log, "child")

        async with TaskGroup() as group:
            group.start_soon(child, group)
            await cut(log, "block")
        assert sorted(log) == ["block", "child"]

    run(body, backend=backend)


def test_cancelled_from_another_thread(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        async with TaskGroup() as group:
            group.start_soon(cut, log, "child")
            thread = threading.Thread(target=group.cancel, args=("from afar",))
            thread.start()
            await cut(log, "block")
        thread.join()
        assert sorted(log) == ["block", "child"]

    run(body, backend=backend)


@loops
def test_cancelled_from_a_callback_of_the_loop(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        async with TaskGroup() as group:
            group.start_soon(cut, log, "child")
            if backend == "trio":
                trio.lowlevel.current_trio_token().run_sync_soon(group.cancel)
            else:
                asyncio.get_running_loop().call_soon(group.cancel)
            await cut(log, "block")
        assert sorted(log) == ["block", "child"]

    run(body, backend=backend)


def test_cancelled_before_it_is_entered(backend: str) -> None:
    """anyio: test_cancel_before_entering_task_group."""

    async def body() -> None:
        group = TaskGroup()
        group.cancel("too late")
        log: list[str] = []
        async with group:
            handle = group.start_soon(cut, log, "child")
            await cut(log, "block")
        assert sorted(log) == ["block", "child"]
        assert handle.cancelled

    run(body, backend=backend)


def test_cancelling_twice_and_after_the_end_changes_nothing(backend: str) -> None:
    """anyio: test_cancel_twice."""

    async def body() -> None:
        log: list[str] = []
        async with TaskGroup() as group:
            handle = group.start_soon(cut, log)
            group.cancel("first")
            group.cancel("second")
        group.cancel("third")
        assert log == ["cut"]
        assert handle.cancelled
        await checkpoint()

    run(body, backend=backend)


def test_children_of_a_cancelled_group_begin_and_end_at_their_first_operation(backend: str) -> None:
    """trio: test_precancelled_task; anyio: test_shielding_immediate_scope_cancelled."""

    async def body() -> None:
        log: list[str] = []

        async def child() -> None:
            log.append("begins")
            await checkpoint()
            log.append("never")

        async with TaskGroup() as group:
            group.cancel()
            handle = group.start_soon(child)
        assert handle.cancelled
        assert log == ["begins"]

    run(body, backend=backend)


def test_the_cancellation_comes_again_at_every_operation(backend: str) -> None:
    """anyio: test_level_cancellation."""

    async def body() -> None:
        log: list[int] = []

        async def stubborn() -> None:
            for number in range(3):
                try:
                    await never()
                except get_cancelled_exc_class():
                    log.append(number)
            await checkpoint()
            log.append(-1)

        async with TaskGroup() as group:
            handle = group.start_soon(stubborn)
            group.cancel()
        assert log == [0, 1, 2]
        assert handle.cancelled

    run(body, backend=backend)


def test_the_cancellation_of_one_child_comes_again_at_every_operation(backend: str) -> None:
    async def body() -> None:
        log: list[int] = []

        async def stubborn() -> None:
            for number in range(3):
                try:
                    await never()
                except get_cancelled_exc_class():
                    log.append(number)
            await checkpoint()
            log.append(-1)

        async with TaskGroup() as group:
            handle = group.start_soon(stubborn)
            await checkpoint()
            handle.cancel()
            await until(lambda: handle.done)
            await checkpoint()  # nobody else is cancelled
        assert log == [0, 1, 2]
        assert handle.cancelled

    run(body, backend=backend)


def test_a_child_that_swallows_its_cancellation_and_returns_is_done(backend: str) -> None:
    """anyio: TestCreateTask.test_cancel, for one that returns."""

    async def body() -> None:
        async def child() -> str:
            try:
                await never()
            except get_cancelled_exc_class():
                pass
            return "in spite of it"

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            await checkpoint()
            handle.cancel()
        assert not handle.cancelled
        assert await handle == "in spite of it"

    run(body, backend=backend)


def test_a_shield_in_a_child_keeps_the_cancellation_out(backend: str) -> None:
    """anyio: test_shielded_cleanup_after_cancel, test_shielding."""

    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def child() -> None:
            try:
                await never()
            finally:
                with CancelScope(shield=True):
                    await gate.wait()
                    log.append("cleaned up")

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            group.cancel()
            await until(lambda: gate.statistics().waiting == 1)
            assert not handle.done
            gate.set()
        assert log == ["cleaned up"]
        assert handle.cancelled

    run(body, backend=backend)


def test_a_shielded_child_can_be_cancelled_by_its_own_scope(backend: str) -> None:
    """anyio: test_cancel_shielded_scope."""

    async def body() -> None:
        async def child() -> str:
            with CancelScope(shield=True) as scope:
                scope.cancel()
                await never()
            return "after the shield"

        async with TaskGroup() as group:
            handle = group.start_soon(child)
        assert await handle == "after the shield"

    run(body, backend=backend)


def test_a_shielded_block_ends_with_its_group(backend: str) -> None:
    """anyio: test_cancel_child_task_when_host_is_shielded."""

    async def body() -> None:
        log: list[str] = []
        async with TaskGroup() as group:
            with CancelScope(shield=True):
                handle = group.start_soon(cut, log)
                group.cancel()
                await until(lambda: handle.done)
        assert log == ["cut"]

    run(body, backend=backend)


def test_a_scope_outside_is_cancelled_while_the_block_runs(backend: str) -> None:
    """anyio: test_cancel_cascade; CPython: test_taskgroup_07."""

    async def body() -> None:
        log: list[str] = []
        started = Event()

        async def child() -> None:
            started.set()
            await cut(log, "child")

        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child)
                await started.wait()
                scope.cancel()
                await cut(log, "block")
            log.append("never")
        assert sorted(log) == ["block", "child"]
        assert scope.cancelled_caught
        assert not group.cancel_scope.cancelled_caught

    run(body, backend=backend)


def test_a_scope_outside_is_cancelled_while_the_block_waits_for_its_children(backend: str) -> None:
    """anyio: test_cancel_exiting_task_group; CPython: test_cancellation."""

    async def body() -> None:
        log: list[str] = []

        async def child(scope: CancelScope) -> None:
            await until(lambda: group in leaving)
            scope.cancel()
            await cut(log, "child")

        leaving: list[TaskGroup] = []
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child, scope)
                group.start_soon(cut, log, "sibling")
                leaving.append(group)
            log.append("never")
        assert sorted(log) == ["child", "sibling"]
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_a_scope_outside_is_cancelled_when_no_child_is_left(backend: str) -> None:
    """Leaving a block of a cancelled scope raises at the next operation at the latest, on every backend."""

    async def body() -> None:
        log: list[str] = []
        with CancelScope() as scope:
            async with TaskGroup() as group:
                await group.start_soon(give, 1)
                scope.cancel()
            await checkpoint()
            log.append("never")
        assert log == []
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_a_group_inside_a_cancelled_scope(backend: str) -> None:
    """anyio: test_cancelled_parent."""

    async def body() -> None:
        log: list[str] = []
        with CancelScope() as scope:
            scope.cancel()
            async with TaskGroup() as group:
                group.start_soon(cut, log)
                await never()
        assert log in ([], ["cut"])  # entering may already be the operation that raises
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_an_operation_parked_in_the_block_has_no_effect_when_the_group_is_cancelled(backend: str) -> None:
    async def body() -> None:
        ch = Channel[str](0)

        async def stop(group: TaskGroup) -> None:
            await until(lambda: ch.statistics().waiting_receivers == 1)
            group.cancel()

        async with TaskGroup() as group:
            group.start_soon(stop, group)
            await ch.receive()
        assert ch.statistics().waiting_receivers == 0
        assert ch.statistics().received == 0

    run(body, backend=backend)


def test_a_reason_is_told_to_those_who_wait_for_the_child(backend: str) -> None:
    """anyio: test_cancel_reason."""

    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(cut, [])
            await checkpoint()
            assert handle.cancel("out of date") is True
            with pytest.raises(TaskCancelled, match="out of date"):
                await handle

    run(body, backend=backend)


# ===================================================================== handles
def test_waiting_for_a_child_raises_its_own_error(backend: str) -> None:
    """anyio: TestCreateTask.test_exception, where it is wrapped."""

    async def body() -> None:
        error = Boom()
        async with TaskGroup(on_error="collect") as group:
            handle = group.start_soon(fail, error)
            with pytest.raises(Boom) as caught:
                await handle
            assert caught.value is error

    run(body, backend=backend)


def test_waiting_for_a_cancelled_child_does_not_cancel_who_waits(backend: str) -> None:
    """anyio: TestCreateTask.test_cancel."""

    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(cut, [])
            await checkpoint()
            handle.cancel()
            for _ in range(2):
                with pytest.raises(TaskCancelled) as caught:
                    await handle
                assert isinstance(caught.value, Exception)
                assert "cut" in str(caught.value)
            await checkpoint()
        assert not group.cancel_scope.cancel_called

    run(body, backend=backend)


def test_cancelling_who_waits_does_not_cancel_the_child(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "untouched"

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            with move_on_after(0.001) as scope:
                await handle
            assert scope.cancelled_caught
            assert not handle.done
            gate.set()
            assert await handle == "untouched"

    run(body, backend=backend)


@policies
def test_several_children_wait_for_one(backend: str, on_error: Any) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "told to all"

        async def waits(handle: TaskHandle[str]) -> str:
            return await handle

        async with TaskGroup(on_error=on_error) as group:
            first = group.start_soon(child)
            others = [group.start_soon(waits, first) for _ in range(5)]
            await until(lambda: gate.statistics().waiting == 1)
            gate.set()
        assert [await other for other in others] == ["told to all"] * 5

    run(body, backend=backend)


@pytest.mark.parametrize("other", ["asyncio", "trio", "threads"])
def test_waiters_in_several_worlds_at_once(backend: str, other: Any) -> None:
    """A thread, a loop of another thread and a sibling wait for one child."""

    async def body() -> None:
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "told to all"

        async def waits(handle: TaskHandle[str]) -> str:
            return await handle

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            waiting = [
                group.start_soon(waits, handle),
                group.start_thread(handle.sync),
                group.start_async(waits, handle, backend=other),
            ]
            await until(lambda: handle._ended is not None and handle._ended._waiting() == 3)
            gate.set()
        assert [await one for one in waiting] == ["told to all"] * 3

    run(body, backend=backend)


def test_a_loop_waits_for_a_child_of_a_plain_group(backend: str) -> None:
    """The reverse: the group belongs to a thread."""
    gate = Event()

    async def child() -> str:
        await gate.wait()
        return "from a thread"

    async def waits(handle: TaskHandle[str]) -> str:
        return await handle

    with TaskGroup() as group:
        handle = group.start_soon(child)
        waiting = group.start_async(waits, handle, backend=backend)
        threading.Timer(0, gate.set).start()
    assert waiting.sync() == "from a thread"


def test_sync_gives_up_after_its_timeout(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> str:
            await gate.wait()
            return "late"

        def waits(handle: TaskHandle[str]) -> str:
            with pytest.raises(TimeoutError):
                handle.sync(0.001)
            gate.set()
            return handle.sync(timeout=20)

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            assert await group.start_thread(waits, handle) == "late"

    run(body, backend=backend)


@loops
def test_sync_is_refused_on_the_thread_of_a_loop(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(give, 1)
            with pytest.raises(RuntimeError, match="await"):
                handle.sync()
            await handle
            with pytest.raises(RuntimeError, match="await"):
                handle.sync()  # whether or not it would block

    run(body, backend=backend)


def test_a_handle_is_an_arm_of_select(backend: str) -> None:
    async def body() -> None:
        one, two = Event(), Event()

        async def child(gate: Event, word: str) -> str:
            await gate.wait()
            return word

        async with TaskGroup() as group:
            a, b = group.start_soon(child, one, "a"), group.start_soon(child, two, "b")
            two.set()
            assert await select(a, b) == (1, "b")
            one.set()
            assert await select(a, never()) == (0, "a")

    run(body, backend=backend)


def test_an_arm_of_a_failed_or_cancelled_child_raises(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            bad, gone = group.start_soon(fail, Boom("arm")), group.start_soon(cut, [])
            await checkpoint()
            gone.cancel()
            with pytest.raises(Boom, match="arm"):
                await select(bad, never())
            with pytest.raises(TaskCancelled):
                await select(never(), gone)

    run(body, backend=backend)


def test_poll_asks_without_waiting(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def child() -> int:
            await gate.wait()
            return 7

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            with pytest.raises(anyio.WouldBlock):
                handle.wait().poll()
            gate.set()
        assert handle.wait().poll() == 7

    run(body, backend=backend)


def test_cancelled_before_it_has_begun(backend: str) -> None:
    """anyio: TestCreateTask.test_cancel(wait_until_running=False)."""

    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(cut, [])
            assert handle.cancel() is True
            with pytest.raises(TaskCancelled):
                await handle
        assert handle.cancelled
        lane = lanes.lane
        alarms, lane.alarms = lane.alarms, 0
        lane.refill()
        assert alarms == 0

    run(body, backend=backend)


def test_cancelled_while_it_is_queued_it_never_runs(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def first() -> None:
            await gate.wait()

        async def child(word: str) -> None:
            log.append(word)

        async with TaskGroup(limit=1) as group:
            group.start_soon(first)
            queued, last = group.start_soon(child, "queued"), group.start_soon(child, "last")
            assert queued.cancel("not needed") is True
            assert queued.cancelled
            assert not last.done
            gate.set()
        assert log == ["last"]
        with pytest.raises(TaskCancelled, match="not needed"):
            await queued

    run(body, backend=backend)


def test_cancelled_after_its_end_nothing_happens(backend: str) -> None:
    """anyio: test_cancel_completed_task."""

    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(give, 3)
            await handle
            assert handle.cancel() is False
            await checkpoint()
        assert handle.cancel() is False
        assert await handle == 3

    run(body, backend=backend)


def test_cancelled_twice_the_first_reason_stays(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        async with TaskGroup() as group:
            handle = group.start_soon(cut, log)
            await checkpoint()
            assert handle.cancel("first") is True
            assert handle.cancel("second") is True
            await until(lambda: handle.done)
            assert handle.cancel("third") is False
            with pytest.raises(TaskCancelled, match="first"):
                await handle
        assert log == ["cut"]

    run(body, backend=backend)


def test_a_child_cancels_itself(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        handles = Channel[TaskHandle[None]](1)

        async def child() -> None:
            me = await handles.receive()
            assert me.cancel("of itself") is True
            log.append("until the next operation")
            await checkpoint()
            log.append("never")

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            await handles.send(handle)
            with pytest.raises(TaskCancelled, match="of itself"):
                await handle
        assert log == ["until the next operation"]

    run(body, backend=backend)


def test_a_child_is_cancelled_from_another_thread(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        parked = Event()

        async def child() -> None:
            try:
                await parked.wait()
            finally:
                log.append("cut")

        async with TaskGroup() as group:
            handle = group.start_soon(child)
            await until(lambda: parked.statistics().waiting == 1)
            thread = threading.Thread(target=handle.cancel)
            thread.start()
            with pytest.raises(TaskCancelled):
                await handle
        thread.join()
        assert log == ["cut"]
        assert parked.statistics().waiting == 0

    run(body, backend=backend)


def test_children_cancel_each_other(backend: str) -> None:
    """anyio: test_start_cancel_after_error, test_cancel_propagation, between siblings."""

    async def body() -> None:
        handles: list[TaskHandle[None]] = []
        gate = Event()

        async def child(other: int) -> None:
            try:
                await gate.wait()  # where the first cancels the second, woken already, it may be cut
            finally:
                handles[other].cancel()
            await never()

        async with TaskGroup() as group:
            handles += [group.start_soon(child, 1), group.start_soon(child, 0)]
            await until(lambda: gate.statistics().waiting == 2)
            gate.set()
        assert [handle.cancelled for handle in handles] == [True, True]

    run(body, backend=backend)


def test_cancelling_a_child_cancels_the_groups_inside_it(backend: str) -> None:
    """anyio: test_cancel_with_nested_task_groups."""

    async def body() -> None:
        log: list[str] = []
        ready = Event()

        async def grandchild() -> None:
            ready.set()
            await cut(log, "grandchild")

        async def child() -> None:
            async with TaskGroup() as group:
                group.start_soon(grandchild)

        async with TaskGroup() as group:
            handle, other = group.start_soon(child), group.start_soon(ready.wait)
            await ready.wait()
            handle.cancel()
        assert log == ["grandchild"]
        assert handle.cancelled
        assert not other.cancelled

    run(body, backend=backend)


def test_the_life_of_a_handle(backend: str) -> None:
    async def body() -> None:
        gate = Event()

        async def working() -> None:
            await gate.wait()

        async with TaskGroup(limit=1, on_error="collect") as group:
            first = group.start_soon(working, name="worker")
            queued = group.start_soon(fail, Boom(), name="bad")
            await until(lambda: gate.statistics().waiting == 1)
            assert (first.name, repr(first), first.done) == ("worker", "<task 'worker' running>", False)
            assert (repr(queued), queued.done, queued.exception) == ("<task 'bad' queued>", False, None)
            gate.set()
        assert (repr(first), first.done, first.cancelled) == ("<task 'worker' done>", True, False)
        assert (repr(queued), queued.done, queued.cancelled) == ("<task 'bad' failed>", True, False)

    run(body, backend=backend)


def test_a_child_is_called_after_its_function(backend: str) -> None:
    """trio: test_spawn_name; anyio: test_task_name_default, test_task_name_custom_name."""

    async def body() -> None:
        class Callable_:
            async def __call__(self) -> None:
                pass

            def __repr__(self) -> str:
                return "<an object>"

        async with TaskGroup() as group:
            assert group.start_soon(give, 1).name == "give"
            assert group.start_soon(give, 1, name="of my own").name == "of my own"
            assert group.start_soon(Callable_()).name == "<an object>"
            assert (await group.spawn(give, 1)).name == "give"
            assert (await group.spawn(give, 1, name="spawned")).name == "spawned"

    run(body, backend=backend)


@loops
def test_the_task_of_the_loop_has_the_name_too(backend: str) -> None:
    """CPython: test_taskgroup_task_name."""

    async def body() -> None:
        async def child() -> str:
            if backend == "trio":
                return trio.lowlevel.current_task().name
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        async with TaskGroup() as group:
            assert await group.start_soon(child, name="by this name") == "by this name"

    run(body, backend=backend)


def test_a_handle_serves_after_its_group_has_ended(backend: str) -> None:
    async def inside() -> tuple[TaskHandle[Any], ...]:
        async with TaskGroup(on_error="collect") as group:
            handles = group.start_soon(give, 1), group.start_soon(fail, Boom("kept")), group.start_soon(cut, [])
            await checkpoint()
            handles[2].cancel("kept too")
        return handles

    good, bad, gone = run(inside, backend=backend)  # and after its loop
    assert good.sync() == 1
    with pytest.raises(Boom, match="kept"):
        bad.sync()
    with pytest.raises(TaskCancelled, match="kept too"):
        gone.sync()
    assert good.cancel() is False


def test_a_handle_cannot_be_copied() -> None:
    import copy
    import pickle

    with TaskGroup() as group:
        handle = group.start_soon(give, 1)
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="give"):
                attempt(handle)


def test_a_reason_must_be_words(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(give, 1)
            wrong: Any = 42
            with pytest.raises(TypeError, match="reason"):
                handle.cancel(wrong)
            with pytest.raises(TypeError, match="reason"):
                group.cancel(wrong)
            await handle

    run(body, backend=backend)


# ===================================================================== native cancellation, on asyncio
def task_called(name: str) -> asyncio.Task[Any]:
    """The task of the child with this name."""
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == name]
    return task


@on_asyncio
@policies
def test_a_child_cancelled_natively_ends_as_cancelled_and_harms_nobody(backend: Any, on_error: Any) -> None:
    """CPython: test_taskgroup_03; anyio differs: there it cancels the group."""

    async def body() -> None:
        log: list[str] = []
        gate, parked = Event(), Event()

        async def good() -> str:
            await gate.wait()
            return "fine"

        async def child() -> None:
            try:
                await parked.wait()
            except asyncio.CancelledError:
                log.append("cut")
                raise

        async with TaskGroup(on_error=on_error) as group:
            other, gone = group.start_soon(good), group.start_soon(child, name="victim")
            await until(lambda: parked.statistics().waiting == 1)
            assert task_called("victim").cancel()
            with pytest.raises(TaskCancelled):
                await gone
            await checkpoint()
            assert not group.cancel_scope.cancel_called
            gate.set()
        assert gone.cancelled
        assert gone.exception is None
        assert await other == "fine"
        assert log == ["cut"]

    run(body, backend=backend)


@on_asyncio
def test_a_child_cancelled_natively_before_it_has_begun(backend: Any) -> None:
    """anyio: test_start_native_child_cancelled, for start_soon: its first step never runs."""

    async def body() -> None:
        log: list[str] = []

        async def child() -> None:
            log.append("never")

        async with TaskGroup() as group:
            handle = group.start_soon(child, name="victim")
            assert task_called("victim").cancel()
        assert handle.cancelled  # it is seen when the block ends, which anyio cancels
        with pytest.raises(TaskCancelled):
            await handle
        assert log == []
        assert len(group) == 0

    run(body, backend=backend)


@on_asyncio
@pytest.mark.parametrize("on_error", ["cancel", "collect"])
def test_a_natively_cancelled_child_may_raise_another_error(backend: Any, on_error: Any) -> None:
    async def body() -> None:
        error = Boom()
        parked = Event()

        async def child() -> None:
            try:
                await parked.wait()
            except asyncio.CancelledError:
                raise error from None

        async def block() -> TaskHandle[None]:
            async with TaskGroup(on_error=on_error) as group:
                handle = group.start_soon(child, name="victim")
                await until(lambda: parked.statistics().waiting == 1)
                task_called("victim").cancel()
            return handle

        if on_error == "collect":
            assert (await block()).exception is error
        else:
            with raises_group() as caught:
                await block()
            assert same(caught.value, error)

    run(body, backend=backend)


@on_asyncio
def test_the_host_is_cancelled_natively_in_the_block(backend: Any) -> None:
    """CPython: test_taskgroup_07; anyio: TestUncancel.test_uncancel_after_group_aexit_native_cancel."""

    async def body() -> None:
        log: list[str] = []
        parked = Event()

        async def child() -> None:
            parked.set()
            await cut(log, "child")

        async def host() -> None:
            try:
                async with TaskGroup() as group:
                    group.start_soon(child)
                    await cut(log, "block")
            finally:
                log.append("out")

        task = asyncio.create_task(host())
        await parked.wait()
        task.cancel("by hand")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert log == ["block", "child", "out"]

    run(body, backend=backend)


@on_asyncio
def test_the_host_is_cancelled_natively_while_it_waits(backend: Any) -> None:
    """CPython: test_cancellation; anyio: test_propagate_native_cancellation_from_taskgroup."""

    async def body() -> None:
        log: list[str] = []
        leaving = Event()

        async def host() -> None:
            try:
                async with TaskGroup() as group:
                    group.start_soon(cut, log, "child")
                    leaving.set()
            finally:
                log.append("out")

        task = asyncio.create_task(host())
        await leaving.wait()
        await checkpoint()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert log == ["child", "out"]

    run(body, backend=backend)


@on_asyncio
def test_the_host_is_cancelled_natively_and_a_child_fails_at_it(backend: Any) -> None:
    """CPython: test_taskgroup_08: the errors come out, and the request stays counted in `cancelling()`."""

    async def body() -> None:
        error = Boom()
        leaving = Event()

        async def child() -> None:
            try:
                await never()
            finally:
                raise error

        async def host() -> int:
            task = asyncio.current_task()
            assert task is not None
            with raises_group() as caught:
                async with TaskGroup() as group:
                    group.start_soon(child)
                    leaving.set()
            assert same(caught.value, error)
            return task.cancelling()

        task = asyncio.create_task(host())
        await leaving.wait()
        await checkpoint()
        task.cancel()
        assert await task == 1

    run(body, backend=backend)


@on_asyncio
def test_nothing_is_left_to_uncancel(backend: Any) -> None:
    """anyio: TestUncancel; CPython: test_taskgroup_17 and on."""

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with TaskGroup() as group:
            group.start_soon(cut, [])
            group.cancel()
            await never()
        assert task.cancelling() == 0
        with raises_group():
            async with TaskGroup() as group:
                group.start_soon(fail, Boom())
                await never()
        assert task.cancelling() == 0
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(cut, [])
                scope.cancel()
                await never()
        assert task.cancelling() == 0
        async with TaskGroup() as group:
            handle = group.start_soon(cut, [])
            await checkpoint()
            handle.cancel()
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(body, backend=backend)


@on_asyncio
def test_asyncio_timeouts_and_groups_cut_ours(backend: Any) -> None:
    """CPython: test_taskgroup_15, in both orders."""

    async def body() -> None:
        log: list[str] = []
        try:
            async with asyncio.timeout(0.001):
                async with TaskGroup() as group:
                    group.start_soon(cut, log, "timeout")
        except TimeoutError:
            log.append("out")
        with raises_group() as caught:
            async with asyncio.TaskGroup() as theirs, TaskGroup() as group:
                group.start_soon(cut, log, "group")
                await checkpoint()
                theirs.create_task(fail(Boom()))
        assert caught.group_contains(Boom, depth=1)
        assert log == ["timeout", "out", "group"]

    run(body, backend=backend)


# ===================================================================== nested with anyio's and trio's own
def nestings() -> list[Any]:
    found = []
    for backend in ("asyncio", "uvloop", "trio"):
        kinds = ("chanlib", "anyio", "trio") if backend == "trio" else ("chanlib", "anyio")
        for outer in kinds:
            for middle in kinds:
                if outer == middle:
                    continue
                for inner in kinds:
                    if inner != middle and "chanlib" in (outer, middle, inner):
                        found.append(
                            pytest.param(backend, (outer, middle, inner), id=f"{backend}-{outer}-{middle}-{inner}")
                        )
    return found


def group_of(kind: str) -> Any:
    if kind == "chanlib":
        return TaskGroup()
    return anyio.create_task_group() if kind == "anyio" else trio.open_nursery()


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("backend", "kinds"), nestings())
def test_three_groups_of_several_libraries_inside_each_other(backend: Any, kinds: tuple[str, ...], level: int) -> None:
    """Cancelling one level ends it and what is inside, not what is outside. anyio: test_cancel_with_nested_task_groups,
    test_nested_task_group_filtering.
    """

    async def body() -> None:
        ended: list[int] = []  # levels whose child was cancelled
        left: list[int] = []  # levels whose block was left normally
        gate = Event()
        groups: list[Any] = []

        async def child(at: int) -> None:
            try:
                await gate.wait()
            except get_cancelled_exc_class():
                ended.append(at)
                raise

        async def nest(at: int) -> None:
            async with group_of(kinds[at]) as group:
                groups.append(group)
                group.start_soon(child, at)
                if at < 2:
                    await nest(at + 1)
                    left.append(at + 1)
                    gate.set()
                else:
                    await until(lambda: gate.statistics().waiting == 3)
                    target = groups[level]
                    (target if isinstance(target, TaskGroup) else target.cancel_scope).cancel()
                    await checkpoint()

        await nest(0)
        assert sorted(ended) == list(range(level, 3))
        assert left == list(range(level, 0, -1))

    run(body, backend=backend)


@pytest.mark.parametrize(("backend", "kinds"), nestings())
def test_an_error_goes_up_through_groups_of_several_libraries(backend: Any, kinds: tuple[str, ...]) -> None:
    async def body() -> None:
        error = Boom()
        log: list[int] = []

        async def nest(at: int) -> None:
            async with group_of(kinds[at]) as group:
                group.start_soon(cut, log, at)
                if at < 2:
                    await nest(at + 1)
                else:
                    await checkpoint()
                    await anyio.sleep(0)
                    group.start_soon(fail, error)

        with raises_group() as caught:
            await nest(0)
        found: BaseException = caught.value
        depth = 0
        while isinstance(found, BaseExceptionGroup):
            (found,) = found.exceptions
            depth += 1
        assert found is error
        assert depth == 3
        assert sorted(log) == [0, 1, 2]

    run(body, backend=backend)


# ===================================================================== limit
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_never_more_than_limit_at_a_time(backend: str, limit: int) -> None:
    """errgroup: TestGoLimit."""

    async def body() -> None:
        running = 0
        peak = 0
        lock = threading.Lock()

        async def child() -> None:
            nonlocal running, peak
            with lock:
                running += 1
                peak = max(peak, running)
            for _ in range(3):
                await checkpoint()
            with lock:
                running -= 1

        async with TaskGroup(limit=limit) as group:
            for number in range(20):
                if number % 2:
                    group.start_soon(child)
                else:
                    await group.spawn(child)
        assert running == 0
        assert peak <= limit
        if backend != "threads":
            assert peak == limit

    run(body, backend=backend)


def test_queued_children_begin_in_the_order_in_which_they_came(backend: str) -> None:
    async def body() -> None:
        log: list[int] = []

        async def child(number: int) -> None:
            log.append(number)
            await checkpoint()

        async with TaskGroup(limit=1) as group:
            for number in range(20):
                group.start_soon(child, number)
        assert log == list(range(20))

    run(body, backend=backend)


def test_the_limit_is_kept_when_start_has_gone_beyond_it(backend: str) -> None:
    """`start` takes a place without waiting for one: nobody else begins before there are places again."""

    async def body() -> None:
        log: list[str] = []
        one, two = Event(), Event()
        where: list[Any] = []

        async def first() -> None:
            where.append(lanes.lane)
            await one.wait()

        async def service(*, task_status: Any) -> None:
            task_status.started()
            await two.wait()

        async def queued() -> None:
            log.append("begun")

        async with TaskGroup(limit=1) as group:
            handle = group.start_soon(first)
            await group.start(service)
            last = group.start_soon(queued)
            one.set()
            await handle
            await until(lambda: where[0].token is None)  # its thread, if it had one, has passed its place on
            assert repr(last).endswith("queued>")  # the service has the only place
            assert len(group) == 2
            two.set()
        assert log == ["begun"]

    run(body, backend=backend)


def test_spawn_waits_for_a_place(backend: str) -> None:
    """errgroup: TestGoLimit, for Go, which blocks."""

    async def body() -> None:
        gate = Event()
        spawned: list[TaskHandle[str]] = []

        async def child() -> None:
            await gate.wait()

        async def feeder(group: TaskGroup) -> None:
            spawned.append(await group.spawn(give, "spawned"))

        async with TaskGroup() as outer, TaskGroup(limit=1) as group:
            group.start_soon(child)
            outer.start_soon(feeder, group)
            await until(lambda: gate.statistics().waiting == 1 and group._waiting() == 1)
            assert spawned == []
            gate.set()
            await until(lambda: spawned)
            assert await spawned[0] == "spawned"

    run(body, backend=backend)


def test_spawn_and_start_soon_are_served_in_order(backend: str) -> None:
    """Queued children before those who wait in spawn."""

    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def first() -> None:
            await gate.wait()

        async def child(word: str) -> None:
            log.append(word)

        async def feeder(group: TaskGroup, word: str) -> None:
            await group.spawn(child, word)

        async with TaskGroup() as outer, TaskGroup(limit=1) as group:
            group.start_soon(first)
            outer.start_soon(feeder, group, "spawned")
            await until(lambda: group._waiting() == 1)
            group.start_soon(child, "queued")
            gate.set()
            await until(lambda: len(log) == 2)
        assert log == ["queued", "spawned"]

    run(body, backend=backend)


def test_spawn_has_a_place_at_once_where_there_is_no_limit(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.spawn(give, 5).poll()
            assert await handle == 5
        async with TaskGroup(limit=1) as group:
            group.start_soon(cut, [])
            with pytest.raises(anyio.WouldBlock):  # errgroup: TestTryGo
                group.spawn(give, 5).poll()
            group.cancel()

    run(body, backend=backend)


def test_a_spawn_that_is_cancelled_has_started_nothing(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def first() -> None:
            await gate.wait()

        async def child() -> None:
            log.append("never")

        async with TaskGroup(limit=1) as group:
            group.start_soon(first)
            await until(lambda: gate.statistics().waiting == 1)
            with move_on_after(0.001) as scope:
                await group.spawn(child)
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                await group.spawn(child).within(0)
            assert group._waiting() == 0
            assert len(group) == 1
            gate.set()
            await group.wait_empty()
            assert await (await group.spawn(give, "the place is free")) == "the place is free"
        assert log == []

    run(body, backend=backend)


def test_spawn_in_a_select(backend: str) -> None:
    async def body() -> None:
        log: list[str] = []
        gate, stop = Event(), Event()

        async def first() -> None:
            await gate.wait()

        async def child() -> str:
            log.append("ran")
            return "spawned"

        async with TaskGroup(limit=1) as group:
            group.start_soon(first)
            stop.set()
            assert await select(group.spawn(child), stop) == (1, None)
            gate.set()
            index, handle = await select(group.spawn(child), never())
            assert index == 0
            assert await handle == "spawned"
        assert log == ["ran"]

    run(body, backend=backend)


def test_queued_children_of_a_cancelled_group_never_run(backend: str) -> None:
    """And no coroutine is reported as never awaited: warnings are errors here."""

    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def first() -> None:
            await gate.wait()

        async def child() -> None:
            log.append("never")

        async with TaskGroup(limit=1) as group:
            group.start_soon(first)
            queued = [group.start_soon(child) for _ in range(3)]
            await until(lambda: gate.statistics().waiting == 1)
            group.cancel("no more")
        assert log == []
        assert all(handle.cancelled for handle in queued)
        gc.collect()

    run(body, backend=backend)


def test_a_failed_child_passes_its_place_on(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup(limit=1, on_error="collect") as group:
            bad, good = group.start_soon(fail, Boom()), group.start_soon(give, "next")
            gone = group.start_soon(cut, [])
            last = group.start_soon(give, "last")
            assert await good == "next"
            await until(lambda: repr(gone).endswith("running>"))
            await checkpoint()
            gone.cancel()
        assert bad.done
        assert await last == "last"

    run(body, backend=backend)


def test_a_child_is_cancelled_at_the_moment_when_it_gets_its_place(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread; here the moment is held by hand."""
    start = TaskGroup._start
    answers: list[Any] = []

    def in_between(group: TaskGroup, child: TaskHandle[Any]) -> None:
        if child.name == "victim":
            coroutine: Any = child._coroutine
            try:
                answers.append(child.cancel("just now"))
            except Exception as error:
                answers.append(error)
                coroutine.close()  # it is lost now, and would warn
        start(group, child)

    async def body() -> None:
        async with TaskGroup(limit=1) as group:
            group.start_soon(give, "first")
            victim = group.start_soon(cut, [], name="victim")
            last = group.start_soon(give, "last")
        assert answers == [True]
        assert victim.cancelled
        assert await last == "last"

    monkeypatch.setattr(TaskGroup, "_start", in_between)
    run(body, backend=backend)


def test_a_spawned_function_that_is_not_async_gives_its_place_back(backend: str) -> None:
    async def body() -> None:
        wrong: Any = len
        async with TaskGroup(limit=1) as group:
            with pytest.raises(TypeError, match="start_thread"):
                await group.spawn(wrong, [1])
            assert await (await group.spawn(give, 1)) == 1

    run(body, backend=backend)


# ===================================================================== start
def test_start_gives_the_value_and_the_child_goes_on(backend: str) -> None:
    """anyio: test_start_with_value; trio: test_nursery_start."""

    async def body() -> None:
        log: list[str] = []
        gate = Event()

        async def service(word: str, *, task_status: Any) -> None:
            task_status.started(word.upper())
            await gate.wait()
            log.append("ended")

        async with TaskGroup() as group:
            assert await group.start(service, "port") == "PORT"
            assert (log, len(group)) == ([], 1)
            gate.set()
        assert log == ["ended"]

    run(body, backend=backend)


def test_start_without_a_value(backend: str) -> None:
    """anyio: test_start_no_value."""

    async def body() -> None:
        async def service(*, task_status: Any) -> None:
            await checkpoint()
            task_status.started()

        async with TaskGroup() as group:
            assert await group.start(service) is None

    run(body, backend=backend)


def test_started_twice_is_an_error_of_the_child(backend: str) -> None:
    """anyio: test_start_called_twice; trio: test_nursery_start."""

    async def body() -> None:
        async def service(*, task_status: Any) -> None:
            task_status.started(1)
            await checkpoint()
            with pytest.raises(RuntimeError):
                task_status.started(2)

        async with TaskGroup() as group:
            assert await group.start(service) == 1

    run(body, backend=backend)


def test_a_child_that_never_says_started(backend: str) -> None:
    """anyio: test_start_no_started_call; trio: test_nursery_start."""

    async def body() -> None:
        async def service(*, task_status: Any) -> None:
            await checkpoint()

        async with TaskGroup() as group:
            with pytest.raises(RuntimeError):
                await group.start(service)
            await checkpoint()  # the group is as it was
            assert len(group) == 0

    run(body, backend=backend)


def test_an_error_before_started_is_the_callers(backend: str) -> None:
    """anyio: test_start_crash_before_started_call; trio: test_nursery_start."""

    async def body() -> None:
        error = Boom("before")

        async def service(*, task_status: Any) -> None:
            await checkpoint()
            raise error

        async with TaskGroup() as group:
            with pytest.raises(Boom) as caught:
                await group.start(service)
            assert caught.value is error
            assert frames(error)[-1] == "service"
            await checkpoint()
            assert len(group) == 0

    run(body, backend=backend)


def test_an_error_after_started_is_the_groups(backend: str) -> None:
    """anyio: test_start_crash_after_started_call; trio: test_nursery_start."""

    async def body() -> None:
        error = Boom("after")
        go = Event()

        async def service(*, task_status: Any) -> None:
            task_status.started(1)
            await go.wait()
            raise error

        with raises_group() as caught:
            async with TaskGroup() as group:
                assert await group.start(service) == 1
                go.set()
                await never()
        assert same(caught.value, error)

    run(body, backend=backend)


@policies
def test_an_error_right_after_started(backend: str, on_error: Any) -> None:
    """anyio: test_start_exception_delivery: no switch between the two; the value is the caller's."""

    async def body() -> None:
        error = Boom("at once")
        values: list[int] = []

        async def service(*, task_status: Any) -> None:
            task_status.started(1)
            raise error

        async def block() -> None:
            async with TaskGroup(on_error=on_error) as group:
                values.append(await group.start(service))

        if on_error == "collect":
            await block()
        else:
            with raises_group() as caught:
                await block()
            assert same(caught.value, error)
        if on_error != "cancel":
            assert values == [1]

    run(body, backend=backend)


def test_the_caller_of_start_is_cancelled_before_started(backend: str) -> None:
    """anyio: test_start_cancelled: the child is cancelled and waited for, the group goes on."""

    async def body() -> None:
        log: list[str] = []
        parked = Event()

        async def service(*, task_status: Any) -> None:
            try:
                await parked.wait()
            finally:
                with CancelScope(shield=True):
                    await checkpoint()
                log.append("child")

        async def stop(scope: CancelScope) -> None:
            await until(lambda: parked.statistics().waiting == 1)
            scope.cancel()

        async with TaskGroup() as group:
            with CancelScope() as scope:
                group.start_soon(stop, scope)
                await group.start(service)
                log.append("never")
            assert scope.cancelled_caught
            assert log == ["child"]
            await checkpoint()
            await group.wait_empty()

    run(body, backend=backend)


def test_start_in_a_cancelled_caller(backend: str) -> None:
    """trio: test_nursery_start_with_cancelled_nursery, for the caller; anyio: test_cancel_shielding_start."""

    async def body() -> None:
        log: list[str] = []

        async def service(*, task_status: Any) -> None:
            log.append("begins")
            task_status.started("never seen")
            await checkpoint()
            log.append("never")

        async with TaskGroup() as group:
            with CancelScope() as scope:
                scope.cancel()
                await group.start(service)
                await checkpoint()
            assert scope.cancelled_caught
            await group.wait_empty()
            await checkpoint()
        assert log in ([], ["begins"])

    run(body, backend=backend)


def test_a_group_is_cancelled_while_another_starts_a_child_in_it(backend: str) -> None:
    """anyio: test_start_cancels_parent_scope: until it is started the child belongs to the caller."""

    async def body() -> None:
        log: list[str] = []
        parked = Event()

        async def service(*, task_status: Any) -> None:
            await parked.wait()
            log.append("goes on until it belongs to the group")
            task_status.started("up")
            await cut(log)

        async def starter(group: TaskGroup) -> None:
            log.append(await group.start(service))

        async with TaskGroup() as outer:
            async with TaskGroup() as group:
                outer.start_soon(starter, group)
                await until(lambda: parked.statistics().waiting == 1)
                group.cancel()
                parked.set()
            await until(lambda: len(log) >= 3)
        assert sorted(log) == ["cut", "goes on until it belongs to the group", "up"]

    run(body, backend=backend)


def test_start_hands_the_name_on(backend: str) -> None:
    async def body() -> None:
        async def service(*, task_status: Any) -> None:
            task_status.started()

        async with TaskGroup() as group:
            ended = group.as_completed()
            await group.start(service)
            await group.start(service, name="by name")
            names = [handle.name async for handle in ended]
        assert [name.rpartition(".")[2] for name in names] == ["service", "by name"]

    run(body, backend=backend)


def test_start_of_what_is_not_async(backend: str) -> None:
    """anyio: test_start_sync_wrapper shows a plain function that gives a coroutine: that is fine."""

    async def body() -> None:
        def plain(*, task_status: Any) -> None:
            pass

        async def service(*, task_status: Any) -> None:
            task_status.started("wrapped")

        def wrapper(*, task_status: Any) -> Any:
            return service(task_status=task_status)

        wrong: Any = plain
        async with TaskGroup() as group:
            with pytest.raises(TypeError, match="not async"):
                await group.start(wrong)
            assert await group.start(wrapper) == "wrapped"

    run(body, backend=backend)


# ===================================================================== as_completed
def test_children_come_in_the_order_of_their_end(backend: str) -> None:
    async def body() -> None:
        gates = [Event() for _ in range(4)]
        order = [2, 0, 3, 1]

        async def child(number: int) -> int:
            await gates[number].wait()
            return number

        got: list[int] = []
        async with TaskGroup() as group:
            ended = group.as_completed()
            for number in range(4):
                group.start_soon(child, number)
            gates[order[0]].set()
            async for handle in ended:
                got.append(await handle)
                if len(got) < 4:
                    gates[order[len(got)]].set()
        assert got == order

    run(body, backend=backend)


def test_as_completed_sees_those_started_while_it_is_iterated_over(backend: str) -> None:
    async def body() -> None:
        got: list[int] = []
        async with TaskGroup() as group:
            ended = group.as_completed()
            group.start_soon(give, 3)
            async for handle in ended:
                value = await handle
                got.append(value)
                if value:
                    group.start_soon(give, value - 1)
        assert got == [3, 2, 1, 0]

    run(body, backend=backend)


def test_as_completed_ends_when_no_child_is_left(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            assert [handle async for handle in group.as_completed()] == []
            handle = group.start_soon(give, 1)
            await handle
            assert [one async for one in group.as_completed()] == []  # made too late for it

    run(body, backend=backend)


def test_as_completed_shows_failed_and_cancelled_ones(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect", limit=1) as group:
            ended = group.as_completed()
            bad = group.start_soon(fail, Boom())
            gone = group.start_soon(cut, [])
            queued = group.start_soon(give, 1)
            queued.cancel()
            gone.cancel()
            handles = [handle async for handle in ended]
        assert {id(handle) for handle in handles} == {id(bad), id(gone), id(queued)}

    run(body, backend=backend)


def test_two_iterations_see_all_children_each(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            one, two = group.as_completed(), group.as_completed()
            handles = [group.start_soon(give, number) for number in range(3)]
            assert {await h async for h in one} == {0, 1, 2}
            assert {await h async for h in two} == {0, 1, 2}
            assert len(handles) == 3

    run(body, backend=backend)


# ===================================================================== context variables
def test_context_variables_are_inherited_and_not_leaked_back(backend: str) -> None:
    """trio: test_contextvar_support, test_contextvar_multitask."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def body() -> None:
        var.set("block")

        async def child(word: str) -> str:
            before = var.get()
            var.set(word)
            await checkpoint()
            assert var.get() == word
            return before

        async with TaskGroup(limit=1) as group:
            one, two = group.start_soon(child, "one"), await group.spawn(child, "two")
        assert (await one, await two) == ("block", "block")
        assert var.get() == "block"

    run(body, backend=backend)
    assert var.get() == "unset"


def test_a_queued_child_has_the_context_of_who_started_it(backend: str) -> None:
    """Not of the sibling whose place it takes."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def body() -> None:
        gate = Event()

        async def first() -> None:
            var.set("of the sibling")
            await gate.wait()

        async def child() -> str:
            return var.get()

        async with TaskGroup(limit=1) as group:
            group.start_soon(first)
            var.set("of who started it")
            handle = group.start_soon(child)
            await until(lambda: gate.statistics().waiting == 1)
            gate.set()
        assert await handle == "of who started it"

    run(body, backend=backend)


# ===================================================================== what is left behind
def test_nothing_of_the_users_is_kept_after_a_group(backend: str, no_gc: None) -> None:
    """trio: test_locals_destroyed_promptly_on_cancel, test_nursery_cancel_doesnt_create_cyclic_garbage."""

    async def body() -> list[weakref.ref[Thing]]:
        watched: list[weakref.ref[Thing]] = []

        def thing() -> Thing:
            made = Thing()
            watched.append(weakref.ref(made))
            return made

        async def done(arg: Thing) -> Thing:
            return thing()

        async def cancelled(arg: Thing) -> None:
            local = thing()
            await never()
            del local

        async with TaskGroup() as group:
            group.start_soon(done, thing())
            group.start_soon(cancelled, thing())
            await group.spawn(done, thing())
            group.start_soon(cancelled, thing())
            for _ in range(5):
                await checkpoint()
            group.cancel()
        del group
        await checkpoint()
        await until(lambda: gone(watched, backend), within=3)
        return watched

    watched = run(body, backend=backend)
    assert len(watched) >= 5


@pytest.mark.parametrize("cause", ["block", "cancelled"])
def test_an_error_leads_to_no_reference_cycle(backend: str, cause: str, no_gc: None) -> None:
    no_cycle(backend, cause)


def test_an_error_of_a_child_leads_to_no_reference_cycle(backend: str, no_gc: None) -> None:
    no_cycle(backend, "child")


def no_cycle(backend: Any, cause: str) -> None:
    """anyio: TestRefcycles.test_exception_refcycles_direct, .._errors, .._propagate_cancellation_error."""

    async def body() -> None:
        watched: list[weakref.ref[Any]] = []

        async def bad() -> None:
            local = Thing()
            watched.append(weakref.ref(local))
            raise Boom

        async def scene() -> None:
            try:
                async with TaskGroup() as group:
                    handle = group.start_soon(bad) if cause == "child" else None
                    if cause == "block":
                        await bad()
                    if cause == "cancelled":
                        local = Thing()
                        watched.append(weakref.ref(local))
                        group.cancel()
                    await never()
            except ExceptionGroup as caught:
                watched.append(weakref.ref(caught.exceptions[0]))
                watched.append(weakref.ref(caught))
            watched.append(weakref.ref(group))
            del handle

        await scene()
        await checkpoint()
        await until(lambda: gone(watched, backend), within=3)

    run(body, backend=backend)


def test_a_child_is_not_kept_by_the_thread_of_one_that_it_has_started(no_gc: None) -> None:
    """From 3.14 on, free-threaded: a `threading.Thread` has a copy of the context of whoever starts it."""

    async def body() -> None:
        gate = Event()
        watched: list[weakref.ref[Thing]] = []

        async def second() -> None:
            await gate.wait()

        async def first(group: TaskGroup) -> Thing:
            group.start_soon(second)
            made = Thing()
            watched.append(weakref.ref(made))
            return made

        async with TaskGroup() as group:
            try:
                for _ in range(idle_threads() + 1):  # so that there is none to be used again
                    group.start_soon(second)
                group.start_soon(first, group)
                await until(lambda: watched and gone(watched, "threads"), within=3)
            finally:
                gate.set()

    run(body, backend="threads")


def test_groups_that_have_ended_are_forgotten(backend: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            assert group in entered
        assert group not in entered

    run(body, backend=backend)


# ===================================================================== wrong use
def test_a_plain_function_is_refused_with_the_form_to_use(backend: str) -> None:
    """trio: test_nice_error_on_bad_calls_to_run_or_spawn; anyio: TestCreateTask.test_non_coro."""

    async def body() -> None:
        def plain() -> int:
            return 1

        async with TaskGroup() as group:
            wrong: Any = plain
            with pytest.raises(TypeError, match=r"plain\(\) is not async.*start_thread"):
                group.start_soon(wrong)
            assert len(group) == 0

    run(body, backend=backend)


def test_a_coroutine_in_place_of_its_function_is_refused_and_closed(backend: str) -> None:
    """trio: test_nice_error_on_bad_calls_to_run_or_spawn."""

    async def body() -> None:
        async with TaskGroup() as group:
            for attempt in (group.start_soon, group.spawn):
                wrong: Any = give(1)
                with pytest.raises(TypeError, match="coroutine"):
                    attempt(wrong)
            gc.collect()

    run(body, backend=backend)


@pytest.mark.parametrize("wrong", [None, 1, "fn"])
def test_what_cannot_be_called_is_refused(backend: str, wrong: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            for attempt in (group.start_soon, group.spawn):
                with pytest.raises(TypeError, match="async function"):
                    attempt(wrong)
            with pytest.raises(TypeError, match="async function"):
                await group.start(wrong)

    run(body, backend=backend)


def test_an_operation_can_be_a_child(backend: str) -> None:
    """`start_soon(ch.send, x)`: an operation is a coroutine."""

    async def body() -> None:
        ch = Channel[int](0)
        async with TaskGroup() as group:
            sending = group.start_soon(ch.send, 5)
            receiving = await group.spawn(ch.receive)
        assert await receiving == 5
        assert await sending is None

    run(body, backend=backend)


def test_an_awaitable_that_is_no_coroutine_is_refused(backend: str) -> None:
    async def body() -> None:
        def gives() -> Any:
            return handle

        async with TaskGroup() as group:
            handle = group.start_soon(give, 1)
            wrong: Any = gives
            with pytest.raises(TypeError, match="async def"):
                group.start_soon(wrong)

    run(body, backend=backend)


def test_an_error_of_the_function_itself_is_the_callers(backend: str) -> None:
    """anyio: test_task_in_sync_spawn_callback; missing arguments are noticed where they are missing."""

    async def body() -> None:
        wrong: Any = give
        async with TaskGroup() as group:
            with pytest.raises(TypeError, match="argument"):
                group.start_soon(wrong)
            assert len(group) == 0

    run(body, backend=backend)


def test_a_group_that_is_not_entered_starts_nothing(backend: str) -> None:
    """CPython: test_taskgroup_not_entered."""

    async def body() -> None:
        group = TaskGroup(name="early")
        with pytest.raises(RuntimeError, match="async with TaskGroup"):
            group.start_soon(give, 1)
        with pytest.raises(RuntimeError, match="not entered"):
            group.start_thread(len, [])
        with pytest.raises(RuntimeError, match="not entered"):
            await group.start(give)
        with pytest.raises(RuntimeError, match="not entered"):
            await group.spawn(give, 1)

    run(body, backend=backend)


def test_a_group_is_entered_once(backend: str) -> None:
    """CPython: test_taskgroup_double_enter, test_taskgroup_already_entered; anyio: test_taskgroup_reentry."""

    async def body() -> None:
        async with TaskGroup() as group:
            with pytest.raises(RuntimeError, match="once"):
                await group.__aenter__()
        with pytest.raises(RuntimeError, match="once"):
            await group.__aenter__()

    run(body, backend=backend)


def test_a_group_that_has_ended_starts_nothing(backend: str) -> None:
    """CPython: test_taskgroup_finished; anyio: test_start_already_closed; trio: test_nursery_closure."""

    async def body() -> None:
        async with TaskGroup(limit=1, name="over") as group:
            pass
        for attempt in (group.start_soon, group.start_thread):
            with pytest.raises(RuntimeError, match="has ended"):
                attempt(give, 1)
        with pytest.raises(RuntimeError, match="has ended"):
            await group.start(give)
        for _ in range(2):  # it does not lose its place by it, either
            with pytest.raises(RuntimeError, match="has ended"):
                await group.spawn(give, 1)

    run(body, backend=backend)


def test_children_are_started_where_the_group_was_entered(backend: str) -> None:
    """On a loop from its own thread only; where there is none, from any."""

    async def body() -> None:
        outcome: list[Any] = []

        def from_afar(group: TaskGroup) -> None:
            try:
                outcome.append(group.start_soon(give, 1))
            except RuntimeError as error:
                outcome.append(error)

        async with TaskGroup() as group:
            thread = threading.Thread(target=from_afar, args=(group,))
            thread.start()
            thread.join()
            if backend == "threads":
                assert await outcome[0] == 1
            else:
                assert "channel" in str(outcome[0])
                assert isinstance(outcome[0], RuntimeError)
            assert await group.start_soon(give, 2) == 2

    run(body, backend=backend)


@loops
def test_a_plain_with_is_refused_in_a_task(backend: str) -> None:
    """trio: test_nursery_warn_use_async_with."""

    async def body() -> None:
        with pytest.raises(RuntimeError, match="async with"), TaskGroup():
            pass

    run(body, backend=backend)


def test_async_with_needs_a_task_or_a_driven_thread() -> None:
    """CPython: test_taskgroup_without_parent_task."""
    refused: list[BaseException] = []

    async def body() -> None:
        async def enter() -> None:
            await TaskGroup().__aenter__()

        def callback() -> None:
            try:
                enter().send(None)
            except BaseException as error:
                refused.append(error)
            over.set()

        over = asyncio.Event()
        asyncio.get_running_loop().call_soon(callback)
        await over.wait()

    run(body)
    assert isinstance(refused[0], RuntimeError)
    assert "task group" in str(refused[0])


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3", float("inf")])
def test_a_wrong_limit(limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="limit"):
        TaskGroup(limit=limit)


@pytest.mark.parametrize("on_error", ["abort", None, 1])
def test_a_wrong_on_error(on_error: Any) -> None:
    with pytest.raises(ValueError, match="'cancel', 'supervise' or 'collect'"):
        TaskGroup(on_error=on_error)


def test_a_groups_repr_says_what_it_is(backend: str) -> None:
    async def body() -> None:
        group = TaskGroup(name="fetchers")
        assert repr(group) == "<TaskGroup 'fetchers' new, 0 children>"
        async with group:
            group.start_soon(cut, [])
            assert repr(group) == "<TaskGroup 'fetchers' open, 1 children>"
            group.cancel()
        assert repr(group) == "<TaskGroup 'fetchers' ended, 0 children>"

    run(body, backend=backend)


def test_a_foreign_awaitable_is_an_error_of_the_child_that_awaits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread; the message says what to use."""
    unheard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)

    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            handle = group.start_soon(asyncio.sleep, 0)
        with pytest.raises(RuntimeError, match="only operations of chanlib"):
            await handle

    run(body, backend="threads")
    assert unheard == []
