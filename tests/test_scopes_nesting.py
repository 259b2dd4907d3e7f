"""Scopes of chanlib inside and around those of anyio, trio and asyncio, and native cancels among them.

The cases follow anyio's `tests/test_taskgroups.py` (class TestUncancel above all), written afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from census import Census
from elsewhere import Elsewhere, once_parked
from until import parked, passed, settle

from chanlib import (
    CancelScope,
    Channel,
    Event,
    TaskGroup,
    checkpoint,
    current_effective_deadline,
    current_time,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
    run,
    sleep,
)

pytestmark = pytest.mark.usefixtures("census")

KINDS: dict[str, Callable[..., Any]] = {"chanlib": CancelScope, "anyio": anyio.CancelScope, "trio": trio.CancelScope}
WAITS: dict[str, Callable[[], Any]] = {
    "chanlib": lambda: Event().wait(),
    "chanlib, ready": lambda: checkpoint(),
    "anyio": lambda: anyio.sleep_forever(),
    "native": lambda: trio.sleep_forever() if trio.lowlevel.in_trio_task() else asyncio.Event().wait(),
}


def cancels(match: str | None = None) -> Any:
    """What stands inside is cancelled, and goes on after it."""
    return pytest.raises(get_cancelled_exc_class(), match=match)


def raises(error: type[BaseException], match: str | None = None) -> Any:
    """pytest's, for a block of several statements: it matters from where in it the error comes."""
    return pytest.raises(error, match=match)


def orders() -> list[Any]:
    """Three scopes deep, in each order, with ours at least once; trio's own only in trio."""
    found = []
    for kinds in itertools.product(KINDS, repeat=3):
        if "chanlib" not in kinds or len(set(kinds)) == 1:
            continue
        for name in ["trio"] if "trio" in kinds else ["asyncio", "uvloop", "trio"]:
            found.append(pytest.param(name, kinds, id=f"{name}-{'-'.join(kinds)}"))
    return found


three_deep = pytest.mark.parametrize(("name", "kinds"), orders())


@pytest.fixture(autouse=True)
def _needs_uvloop(request: pytest.FixtureRequest) -> None:
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("name") == "uvloop":
        pytest.importorskip("uvloop")


# ------------------------------------------------------------------------------ three deep
@three_deep
def test_each_level_catches_its_own_cancellation(name: str, kinds: tuple[str, ...]) -> None:
    async def body() -> None:
        for cancelled, wait, moment in itertools.product(range(3), WAITS, ("before", "inside")):
            scopes = [KINDS[kind]() for kind in kinds]
            with contextlib.ExitStack() as stack:
                for level, scope in enumerate(scopes):
                    stack.enter_context(scope)
                    if moment == "before" and level == cancelled:
                        scope.cancel()
                if moment == "inside":
                    scopes[cancelled].cancel()
                with cancels():
                    await WAITS[wait]()
                await WAITS[wait]()
                pytest.fail("it was cancelled")
            await checkpoint()
            assert [scope.cancelled_caught for scope in scopes] == [n == cancelled for n in range(3)]
            assert current_effective_deadline() == math.inf
        if name != "trio":
            assert native_task().cancelling() == 0

    run(body, backend=name)


@three_deep
def test_of_two_levels_that_are_cancelled_the_outer_catches(name: str, kinds: tuple[str, ...]) -> None:
    async def body() -> None:
        for first, second in itertools.permutations(range(3), 2):
            scopes = [KINDS[kind]() for kind in kinds]
            with contextlib.ExitStack() as stack:
                for scope in scopes:
                    stack.enter_context(scope)
                scopes[first].cancel()
                scopes[second].cancel()
                await Event().wait()
            await checkpoint()
            assert [scope.cancelled_caught for scope in scopes] == [n == min(first, second) for n in range(3)]
        if name != "trio":
            assert native_task().cancelling() == 0

    run(body, backend=name)


@three_deep
def test_a_shield_at_each_level_keeps_out_what_is_around_it(name: str, kinds: tuple[str, ...]) -> None:
    async def body() -> None:
        ch = Channel[int](10)
        for shielded in range(1, 3):
            scopes = [KINDS[kind](shield=n == shielded) for n, kind in enumerate(kinds)]
            with scopes[0]:
                scopes[0].cancel()
                with scopes[1]:
                    with scopes[2]:
                        await ch.send(1)
                        await anyio.lowlevel.checkpoint()
                        await ch.receive()
                    if shielded == 1:
                        await ch.send(1)
                        await ch.receive()
                with cancels():
                    await Event().wait()  # a foreign scope is felt at the next turn of the loop
                await Event().wait()
            assert [scope.cancelled_caught for scope in scopes] == [True, False, False]
            assert len(ch) == 0

    run(body, backend=name)


@three_deep
def test_the_deadline_of_each_level_is_felt_by_a_chanlib_wait(name: str, kinds: tuple[str, ...]) -> None:
    async def body() -> None:
        for early in range(3):
            now = current_time()
            scopes = [KINDS[kind](deadline=now + (0.002 if n == early else 100)) for n, kind in enumerate(kinds)]
            with contextlib.ExitStack() as stack:
                for scope in scopes:
                    stack.enter_context(scope)
                assert current_effective_deadline() in (now + 0.002, -math.inf)
                await Event().wait()
            assert [scope.cancelled_caught for scope in scopes] == [n == early for n in range(3)]

    run(body, backend=name)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("ours_outside", [True, False])
def test_ours_and_a_foreign_group_in_each_other(name: str, ours_outside: bool, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        error = get_cancelled_exc_class()
        ended = []

        async def child() -> None:
            try:
                await event.wait()
            except error:
                ended.append(1)
                raise

        if ours_outside:
            with CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(child)
                    async with TaskGroup() as inner:
                        inner.start_soon(child)
                        await settle(lambda: event.statistics().waiting == 2)
                        scope.cancel()
        else:
            async with anyio.create_task_group() as group, TaskGroup() as inner:
                with CancelScope():
                    inner.start_soon(child)
                    group.start_soon(child)
                    await settle(lambda: event.statistics().waiting == 2)
                    group.cancel_scope.cancel()
        assert ended == [1, 1]

    run(body, backend=name)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_fail_after_of_ours_and_of_anyio_in_each_other(name: str) -> None:
    """As anyio: test_nested_fail_after."""

    async def body() -> None:
        for outer, inner in ((fail_after, anyio.fail_after), (anyio.fail_after, fail_after)):
            with raises(TimeoutError), outer(0.005) as around:
                with inner(30) as inside:
                    await Event().wait()
                pytest.fail("the outer one")
            assert (around.cancelled_caught, inside.cancelled_caught) == (True, False)
            with outer(30) as around:
                with pytest.raises(TimeoutError), inner(0.005) as inside:
                    await Event().wait()
                await checkpoint()
            assert (around.cancelled_caught, inside.cancelled_caught) == (False, True)

    run(body, backend=name)


# ------------------------------------------------------------------------------ native cancels
on_asyncio = pytest.mark.parametrize("name", ["asyncio", "uvloop"])


def native_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def waits_native(task: asyncio.Task[Any]) -> None:
    asyncio.get_running_loop().call_soon(task.cancel)


@on_asyncio
@pytest.mark.parametrize("wait", list(WAITS))
def test_a_native_cancel_is_not_caught(name: str, wait: str) -> None:
    """As anyio: test_uncancel_after_native_cancel."""

    async def body() -> None:
        task = native_task()
        with raises(asyncio.CancelledError), CancelScope() as scope:
            task.cancel()
            await WAITS[wait]()
        assert not scope.cancelled_caught
        assert task.cancelling() == 1
        task.uncancel()
        with raises(asyncio.CancelledError), move_on_after(30) as scope:
            waits_native(task)
            while True:
                await WAITS[wait]()
        assert not scope.cancelled_caught
        assert task.cancelling() == 1
        task.uncancel()
        await checkpoint()

    run(body, backend=name)


@on_asyncio
@pytest.mark.parametrize("wait", list(WAITS))
def test_the_task_is_not_cancelling_after_a_cancelled_scope(name: str, wait: str) -> None:
    """As anyio: test_uncancel_after_scope_cancel."""

    async def body() -> None:
        task = native_task()
        for _ in range(3):
            with CancelScope() as scope:
                scope.cancel()
                await WAITS[wait]()
            assert scope.cancelled_caught
            assert task.cancelling() == 0
            with move_on_after(0.001) as scope:
                while True:
                    await WAITS[wait]()
            assert task.cancelling() == 0
            with CancelScope() as scope:
                scope.cancel()
                for _ in range(5):
                    with pytest.raises(asyncio.CancelledError):
                        await WAITS[wait]()
            assert task.cancelling() == 0

    run(body, backend=name)


@on_asyncio
@pytest.mark.parametrize("scope_first", [True, False])
def test_a_native_cancel_and_one_of_the_scope_at_once(name: str, scope_first: bool) -> None:
    """As anyio: test_uncancel_after_scope_and_native_cancel (anyio issue #1214)."""

    async def body() -> None:
        task = native_task()
        with raises(asyncio.CancelledError), CancelScope() as scope:
            for cancel in (scope.cancel, task.cancel) if scope_first else (task.cancel, scope.cancel):
                cancel()
            await Event().wait()
        assert task.cancelling() == 1
        task.uncancel()
        await checkpoint()

    run(body, backend=name)


@on_asyncio
def test_a_native_cancel_from_elsewhere_during_a_cancelled_scope(name: str, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        outcome = []

        async def victim() -> None:
            with CancelScope() as scope:
                scope.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await checkpoint()
                with CancelScope(shield=True):
                    await event.wait()
                outcome.append("not cancelled")
            outcome.append("swallowed")

        task = asyncio.create_task(victim())
        await parked(event)
        task.cancel("native")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not outcome
        assert task.cancelled()

    run(body, backend=name)


@on_asyncio
def test_a_cancellation_of_ours_made_anew_from_a_native_one(name: str) -> None:
    """As anyio: test_cancel_message_replaced."""

    async def body() -> str:
        task = native_task()
        try:
            task.cancel()
            await checkpoint()
        except asyncio.CancelledError:
            with CancelScope() as scope:
                scope.cancel()
                try:
                    await checkpoint()
                except asyncio.CancelledError as error:
                    raise asyncio.CancelledError(*error.args) from error
            assert scope.cancelled_caught
        assert task.cancelling() == 1
        task.uncancel()
        return "caught"

    assert run(body, backend=name) == "caught"


@on_asyncio
def test_nested_scopes_count_together(name: str) -> None:
    """As anyio: test_cancel_counter_nested_scopes, test_uncancel_cancelled_scope_based_checkpoint."""

    async def body() -> None:
        task = native_task()
        with CancelScope() as outer, CancelScope(), CancelScope():
            outer.cancel()
            await Event().wait()
        assert task.cancelling() == 0
        with CancelScope() as outer:
            outer.cancel()
            try:
                with CancelScope() as inner:
                    inner.cancel()
                    await Event().wait()
            finally:
                assert task.cancelling()
        assert task.cancelling() == 0

    run(body, backend=name)


@on_asyncio
def test_after_a_group_the_task_is_not_cancelling(name: str) -> None:
    """As anyio: test_uncancel_after_child_task_failed."""

    async def body() -> None:
        async def fails() -> None:
            raise ValueError("mine")

        with pytest.RaisesGroup(ValueError):
            async with TaskGroup() as group:
                group.start_soon(fails)
                await Event().wait()
        assert native_task().cancelling() == 0
        async with TaskGroup() as group:
            group.start_soon(Event().wait)
            await checkpoint()
            group.cancel()
        assert native_task().cancelling() == 0

    run(body, backend=name)


@on_asyncio
def test_a_native_cancel_of_a_host_that_is_leaving_its_group(name: str, census: Census) -> None:
    """As anyio: test_uncancel_after_taskgroup_cancelled, test_uncancel_after_group_aexit_native_cancel (issue #695)."""

    async def body() -> None:
        done, waiting = census.watch(Event()), census.watch(Event())

        async def shielded() -> None:
            with CancelScope(shield=True):
                await done.wait()

        async def host() -> None:
            async with TaskGroup() as group:
                group.start_soon(shielded)
                group.start_soon(waiting.wait)

        task = asyncio.create_task(host())
        await parked(done, waiting)
        task.cancel("native 1")
        await settle(lambda: waiting.statistics().waiting == 0)
        assert not task.done()
        task.cancel("native 2")
        for _ in range(5):
            await checkpoint()
        assert not task.done()
        done.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 2

    run(body, backend=name)


@on_asyncio
def test_asyncio_timeout_around_and_inside(name: str) -> None:
    async def body() -> None:
        task = native_task()
        with CancelScope() as scope:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await Event().wait()
            await checkpoint()
        assert not scope.cancelled_caught
        with raises(TimeoutError):
            async with asyncio.timeout(0.002):
                with CancelScope() as scope:
                    await Event().wait()
        assert not scope.cancelled_caught
        async with asyncio.timeout(30):
            with move_on_after(0.002) as scope:
                await Event().wait()
            await checkpoint()
        assert scope.cancelled_caught
        with CancelScope() as scope:
            async with asyncio.timeout(30) as timeout:
                scope.cancel()
                await Event().wait()
        assert scope.cancelled_caught
        assert not timeout.expired()
        assert task.cancelling() == 0
        await checkpoint()

    run(body, backend=name)


@on_asyncio
def test_an_asyncio_timeout_and_a_scope_at_once(name: str) -> None:
    """Both are over at the same turn: nothing is lost, and nothing is left behind."""

    async def body() -> None:
        task = native_task()
        with CancelScope() as scope:
            with raises((TimeoutError, asyncio.CancelledError)):  # type: ignore[arg-type]
                async with asyncio.timeout(0):
                    scope.cancel()
                    await Event().wait()
            with cancels():
                await checkpoint()
        assert task.cancelling() == 0
        try:
            async with asyncio.timeout(0) as timeout:
                with CancelScope() as scope:
                    scope.cancel()
                    await Event().wait()
                await Event().wait()
        except TimeoutError:
            pass
        assert timeout.expired()
        assert task.cancelling() == 0
        await checkpoint()

    run(body, backend=name)


@on_asyncio
def test_asyncio_task_group_inside_and_around(name: str, census: Census) -> None:
    async def body() -> None:
        event = census.watch(Event())
        task = native_task()
        with CancelScope() as scope:
            async with asyncio.TaskGroup() as group:
                child = group.create_task(event.wait())
                await parked(event)
                scope.cancel()
                await Event().wait()
        assert scope.cancelled_caught
        assert child.cancelled()
        assert task.cancelling() == 0

        async def fails() -> None:
            await checkpoint()
            raise ValueError("mine")

        with pytest.RaisesGroup(ValueError):
            async with asyncio.TaskGroup() as group:
                with CancelScope() as scope:
                    group.create_task(fails())
                    await event.wait()
        assert not scope.cancelled_caught
        assert task.cancelling() == 0
        async with asyncio.TaskGroup() as group:
            with move_on_after(0.002) as scope:
                await event.wait()
            group.create_task(checkpoint())  # type: ignore[arg-type]
        assert scope.cancelled_caught

    run(body, backend=name)


@on_asyncio
def test_asyncio_wait_for_inside(name: str) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        with move_on_after(30) as scope:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ch.receive(), 0.002)
            await checkpoint()
        assert not scope.cancelled_caught
        with move_on_after(0.002) as scope:
            await asyncio.wait_for(ch.receive(), 30)
        assert scope.cancelled_caught
        assert ch.statistics().waiting_receivers == 0
        assert native_task().cancelling() == 0

    run(body, backend=name)


@on_asyncio
def test_a_scope_of_one_task_is_none_of_a_native_task_started_in_it(name: str) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            task = asyncio.create_task(sleep(0.001))  # type: ignore[arg-type]
            scope.cancel()
            with cancels():
                await checkpoint()
        await task

    run(body, backend=name)


@on_asyncio
def test_a_native_cancel_before_the_first_step_inside_a_scope(name: str) -> None:
    async def body() -> None:
        steps = []

        async def child() -> None:
            with CancelScope():
                steps.append("in")
                await checkpoint()
                steps.append("not cancelled")

        task = asyncio.create_task(child())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == []

    run(body, backend=name)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="from 3.12 on")
def test_scopes_in_tasks_that_start_eagerly() -> None:
    """As anyio: test_eager_task_factory."""

    async def body() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        event = Event()
        log = []

        async def child(scope: CancelScope) -> None:
            with scope:
                log.append("in")
                await event.wait()
                log.append("not cancelled")

        with CancelScope() as outer:
            scopes = [CancelScope() for _ in range(3)]
            native = asyncio.create_task(child(scopes[0]))
            assert log == ["in"]
            async with TaskGroup() as group:
                group.start_soon(child, scopes[1])
                group.start_soon(child, scopes[2])
                await settle(lambda: event.statistics().waiting == 3)
                scopes[0].cancel()
                scopes[1].cancel()
                await native
                await settle(lambda: event.statistics().waiting == 1)
                outer.cancel()
        assert [scope.cancelled_caught for scope in scopes] == [True, True, False]
        assert outer.cancelled_caught
        assert log == ["in"] * 3

    run(body)


@on_asyncio
def test_a_lone_task_of_the_loop_is_not_slowed_by_a_scope_that_was_cancelled(name: str) -> None:
    """While a cancelled scope has not been left every operation looks; afterwards none does."""
    from chanlib._core.lane import lanes

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
            assert lanes.lane.alarms == 1
            with cancels():
                await checkpoint()
        assert lanes.lane.alarms == 0
        await checkpoint()
        assert lanes.lane.left > 0
        with move_on_after(0.001):
            await Event().wait()
        scope = CancelScope()
        with scope:
            pass
        scope.cancel()
        assert lanes.lane.alarms == 0

    run(body, backend=name)


# ------------------------------------------------------------------------------ generators
def test_closing_an_asynchronous_generator_leaves_its_scopes(backend: str) -> None:
    async def body() -> list[str]:
        log = []

        async def numbers() -> Any:
            with CancelScope() as scope:
                try:
                    yield 1
                    yield 2
                finally:
                    log.append("closed")
            assert not scope.cancelled_caught

        generator = numbers()
        assert await anext(generator) == 1
        await generator.aclose()
        assert current_effective_deadline() == math.inf
        await checkpoint()
        return log

    assert run(body, backend=backend) == ["closed"]


# ------------------------------------------------------------------------------ run inside scopes of a thread
@pytest.mark.parametrize("around", ["plain", "threads"])
def test_a_scope_of_a_thread_cancels_what_it_runs(backend: str, around: str, census: Census) -> None:
    event = census.watch(Event())
    log = []

    async def main() -> None:
        try:
            await event.wait()
        except get_cancelled_exc_class() as error:
            log.append("enough" in str(error))
            with pytest.raises(get_cancelled_exc_class()):
                await event.wait()
            raise
        log.append(None)

    def live() -> None:
        with CancelScope() as scope:
            side = once_parked(event, lambda: scope.cancel("enough"))
            run(main, backend=backend)
            log.append(None)
        assert scope.cancelled_caught
        side.join()
        run(sleep, 0.001, backend=backend)

    async def driven() -> None:
        live()

    if around == "plain":
        live()
    else:
        run(driven, backend="threads")
    assert log == [True]


def test_a_deadline_of_a_thread_cancels_what_it_runs(backend: str) -> None:
    async def forever() -> None:
        await Event().wait()

    with move_on_after(0.01) as scope:
        run(forever, backend=backend)
        pytest.fail("cancelled")
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError), fail_after(0.01):
        run(forever, backend=backend)
    with move_on_after(-1) as scope:
        run(forever, backend=backend)
        pytest.fail("cancelled")
    assert scope.cancelled_caught


def test_a_deadline_of_a_thread_that_is_moved_earlier_while_it_runs(backend: str, census: Census) -> None:
    event = census.watch(Event())

    async def a_while() -> str:
        with move_on_after(2):
            await event.wait()
        return "not cancelled"

    with CancelScope() as scope:
        side = once_parked(event, lambda: setattr(scope, "deadline", current_time() + 0.005))
        pytest.fail(run(a_while, backend=backend))
    assert scope.cancelled_caught
    side.join()


def test_a_deadline_of_a_thread_that_is_moved_away_while_it_runs(backend: str, census: Census) -> None:
    event = census.watch(Event())

    async def a_while() -> str:
        await event.wait()
        return "done"

    def act() -> bool:
        try:
            deadline = current_time() + 0.2
            scope.deadline = deadline
            scope.deadline = math.inf
            in_time = current_time() < deadline
            while current_time() < deadline + 0.01:
                sleep(0.001).sync()
        finally:
            event.set()
        return in_time

    result = None
    with move_on_after(100) as scope:
        side = once_parked(event, act)
        result = run(a_while, backend=backend)
    if side.join():
        assert result == "done"
        assert not scope.cancel_called


def test_a_deadline_of_a_thread_moved_away_after_it_has_cut_what_it_runs(backend: str) -> None:
    """As in one world: a deadline that is moved later does not take a cancellation back."""

    async def main() -> None:
        try:
            await Event().wait()
        finally:
            scope.deadline = math.inf

    with move_on_after(0.01) as scope:
        run(main, backend=backend)
        pytest.fail("cancelled")
    assert scope.cancelled_caught


def test_what_a_thread_runs_sees_its_deadline(backend: str) -> None:
    async def left() -> float:
        return current_effective_deadline() - current_time()

    with move_on_after(100):
        assert 50 < run(left, backend=backend) < 101
        with CancelScope(shield=True):
            assert run(left, backend=backend) == math.inf
        with move_on_after(10):
            assert 5 < run(left, backend=backend) < 11
        assert 50 < run(left, backend=backend) < 101
    assert run(left, backend=backend) == math.inf


def test_a_shield_of_a_thread_protects_what_it_runs(backend: str) -> None:
    async def main() -> str:
        await sleep(0.001)
        with CancelScope() as inner:
            inner.cancel()
            await checkpoint()
        assert inner.cancelled_caught
        return "done"

    with CancelScope() as outer:
        outer.cancel()
        with CancelScope(shield=True):
            assert run(main, backend=backend) == "done"
        with pytest.raises(get_cancelled_exc_class()):
            run(main, backend=backend)
        run(main, backend=backend)
        pytest.fail("cancelled")
    assert outer.cancelled_caught


def test_scopes_inside_what_a_thread_runs_catch_only_their_own(backend: str, census: Census) -> None:
    event = census.watch(Event())

    async def main() -> None:
        with CancelScope() as inner:
            await event.wait()
        pytest.fail(f"the scope of the thread was cancelled, not {inner!r}")

    with CancelScope() as scope:
        side = once_parked(event, scope.cancel)
        run(main, backend=backend)
    assert scope.cancelled_caught
    side.join()


def test_an_error_of_what_a_cancelled_thread_runs_wins(backend: str) -> None:
    async def main() -> None:
        try:
            await Event().wait()
        finally:
            raise ValueError("mine")

    with raises(ValueError, match="mine"), CancelScope() as scope:
        scope.cancel()
        run(main, backend=backend)
    assert not scope.cancelled_caught


def test_what_ends_in_time_gives_its_result_though_the_thread_is_cancelled(backend: str) -> None:
    async def main() -> str:
        return "done without an operation"

    with CancelScope() as scope:
        scope.cancel()
        assert run(main, backend=backend) == "done without an operation"
    assert not scope.cancelled_caught


@pytest.mark.parametrize("inner", ["asyncio", "trio", "threads"])
def test_a_thread_child_that_runs_a_loop_is_cancelled_with_its_group(backend: str, inner: str, census: Census) -> None:
    async def body() -> list[str]:
        event = census.watch(Event())
        log = []

        async def main() -> None:
            try:
                await event.wait()
            except get_cancelled_exc_class():
                log.append("cancelled")
                raise

        async with TaskGroup() as group:
            group.start_thread(lambda: run(main, backend=inner))
            group.start_async(main, backend=inner)
            await settle(lambda: event.statistics().waiting == 2)
            group.cancel("enough")
        return log

    assert run(body, backend=backend) == ["cancelled", "cancelled"]


def test_three_runs_deep(backend: str, census: Census) -> None:
    """A thread's scope, a loop in it, a thread of that, a loop in that."""
    event = census.watch(Event())

    async def innermost() -> None:
        await event.wait()

    async def middle() -> None:
        async with TaskGroup() as group:
            group.start_async(innermost, backend=backend)

    def live() -> None:
        with CancelScope() as scope:
            side = once_parked(event, scope.cancel)
            run(middle, backend=backend)
            pytest.fail("cancelled")
        assert scope.cancelled_caught
        side.join()

    Elsewhere(live).join()


def test_operations_of_the_loop_do_not_see_the_scopes_of_its_thread_twice(backend: str) -> None:
    """What runs in the loop is cancelled as a whole, by a scope around it: a shield inside it protects."""
    event = Event()

    async def main() -> str:
        with CancelScope(shield=True):
            scope.cancel()
            for _ in range(300):
                await checkpoint()
            await passed(current_time() + 0.001)
            await sleep(0.001)
        with cancels():
            await event.wait()
        return "done"

    with CancelScope() as scope:
        assert run(main, backend=backend) == "done"
