"""gather, race, first_success, as_completed, map_concurrent: one body each, on every backend of `run`.

Each case was written anew; where its idea comes from a test of another project, that is named: CPython's
`test_asyncio/test_tasks.py` ("CPython" below), Go's `errgroup_test.go`, JavaScript's `Promise.any`.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from backends import loops, on, on_asyncio
from census import Census
from children import Boom, Grave, cut, fail, give, same
from until import until

from chanlib import (
    CancelScope,
    Channel,
    Event,
    Raced,
    TaskCancelled,
    TaskGroup,
    as_completed,
    checkpoint,
    first_success,
    gather,
    get_cancelled_exc_class,
    map_concurrent,
    move_on_after,
    never,
    race,
    run,
    select,
)

pytestmark = pytest.mark.usefixtures("census")
unawaited = pytest.mark.usefixtures("collected")


TIMEOUT = 0.02  # seconds: a deadline that is to pass

MAKERS: dict[str, Callable[..., Any]] = {"gather": gather, "race": race, "first_success": first_success}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def one(watched: Event, count: int = 1) -> Callable[[], bool]:
    return lambda: watched.statistics().waiting == count


@pytest.fixture
def collected() -> Iterator[None]:
    """A coroutine that nobody has awaited says so within the test that has made it."""
    yield
    gc.collect()


# ===================================================================== gather
def test_gather_gives_the_results_in_the_order_of_its_arguments(backend: str) -> None:
    """CPython: GatherTestsBase._check_success."""

    async def body() -> None:
        gates = [Event() for _ in range(4)]
        ended: list[int] = []

        async def child(number: int) -> int:
            await gates[number].wait()
            ended.append(number)
            if number:
                gates[number - 1].set()
            return number * 10

        gates[3].set()
        assert await gather(*[partial(child, number) for number in range(4)]) == (0, 10, 20, 30)
        assert ended == [3, 2, 1, 0]

    run(body, backend=backend)


def test_whatever_can_be_done_is_taken_in_one_call(backend: str) -> None:
    async def body() -> None:
        ch = Channel[str](2)
        ch.send_nowait("received")

        async def function() -> str:
            return "function"

        results = await gather(
            function,
            partial(give, "partial"),
            lambda: give("lambda"),
            give("coroutine"),
            ch.receive(),
            ch.send("sent").map(lambda _: "sent"),
            lambda: ch.receive().within(5),
        )
        assert results[:4] == ("function", "partial", "lambda", "coroutine")
        assert {results[4], results[6]} == {"received", "sent"}
        assert results[5] == "sent"

    run(body, backend=backend)


def test_a_function_may_give_any_awaitable(backend: str) -> None:
    """As its type says: a handle, or what takes several steps itself."""

    async def body() -> None:
        async with TaskGroup() as group:
            handle = group.start_soon(give, "child")
            results: Any = await gather(lambda: handle, lambda: gather(give(1), give(2)), lambda: handle.wait())
        assert results == ("child", (1, 2), "child")

    run(body, backend=backend)


def test_gather_of_nothing_gives_nothing(backend: str) -> None:
    """CPython: GatherTestsBase.test_empty."""

    async def body() -> Any:
        return await gather()

    assert run(body, backend=backend) == ()
    assert gather().sync() == ()


@unawaited
def test_one_error_in_gather_cancels_the_others_and_comes_out_in_a_group(backend: str) -> None:
    """CPython: test_one_exception, but that siblings go on there."""

    async def body() -> None:
        log: list[str] = []
        go = Event()
        error = Boom()

        async def bad() -> None:
            await go.wait()
            raise error

        async def starter() -> None:
            await until(one(go))
            go.set()

        with pytest.raises(ExceptionGroup) as caught:
            await gather(partial(cut, log), cut(log), bad, starter())
        assert same(caught.value, error)
        assert log == ["cut", "cut"]

    run(body, backend=backend)


def test_all_errors_in_gather_come_out_in_one_group(backend: str) -> None:
    async def body() -> None:
        errors = [Boom(number) for number in range(4)]
        go = Event()

        async def bad(error: Boom) -> None:
            try:
                await go.wait()
            finally:  # cancelled or not
                raise error

        async def starter() -> None:
            await until(one(go, 4))
            go.set()

        with pytest.raises(ExceptionGroup) as caught:
            await gather(starter(), *[partial(bad, error) for error in errors])
        assert same(caught.value, *errors)

    run(body, backend=backend)


@unawaited
def test_what_cannot_be_started_leaves_no_coroutine_unawaited(backend: str) -> None:
    """What follows it is closed; it is no async function, which only shows when it is called."""

    async def body() -> None:
        ch = Channel[int](0)
        wrong: Any = lambda: 3  # noqa: E731
        for make in MAKERS.values():
            rest = give(2)
            with pytest.raises(ExceptionGroup) as caught:
                await make(give(1), wrong, rest, ch.receive())
            assert isinstance(caught.value.exceptions[0], TypeError)
            assert "<lambda>() is not async" in str(caught.value.exceptions[0])
            assert rest.cr_frame is None  # closed
        assert ch.statistics().waiting_receivers == 0

    run(body, backend=backend)


@makers
def test_cancelled_by_a_scope_around_it_all_have_ended_when_it_has(backend: str, make: Any) -> None:
    """CPython: test_cancel_gather_1."""

    async def body() -> None:
        log: list[Any] = []
        ready = Event()

        async def child() -> None:
            try:
                await ready.wait()
            finally:
                with CancelScope(shield=True):
                    for _ in range(5):
                        await checkpoint()
                log.append("ended")

        async def watcher(scope: CancelScope) -> None:
            await until(one(ready, 3))
            scope.cancel()

        async with TaskGroup() as group:
            with CancelScope() as scope:
                group.start_soon(watcher, scope)
                await make(child, child(), child)
                log.append("never")
            assert scope.cancelled_caught
            assert log == ["ended"] * 3

    run(body, backend=backend)


@makers
def test_a_deadline_cuts_it(backend: str, make: Any) -> None:
    async def body() -> None:
        log: list[Any] = []
        with move_on_after(TIMEOUT) as scope:
            await make(cut(log), partial(cut, log), never())
        assert scope.cancelled_caught
        assert log == ["cut", "cut"]

    run(body, backend=backend)


@makers
@on_asyncio
def test_a_native_cancel_reaches_all_and_comes_out_as_such(backend: str, make: Any) -> None:
    """CPython: test_cancel_gather_1, test_cancel_gather_2."""

    async def body() -> None:
        log: list[Any] = []
        ready = Event()

        async def child() -> None:
            try:
                await ready.wait()
            finally:
                log.append("cut")

        async def whole() -> Any:
            return await make(child, child())

        task = asyncio.ensure_future(whole())
        await until(one(ready, 2))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert log == ["cut", "cut"]

    run(body, backend=backend)


@makers
def test_begun_in_a_scope_that_is_cancelled_already(backend: str, make: Any) -> None:
    async def body() -> None:
        log: list[Any] = []
        with CancelScope() as scope:
            scope.cancel()
            await make(cut(log), partial(cut, log), never())
            log.append("never")
        assert "never" not in log

    run(body, backend=backend)


@makers
def test_what_is_no_exception_comes_out_of_each(backend: str, make: Any) -> None:
    """CPython: GatherTestsBase.test_one_exception, for BaseException."""

    async def body() -> None:
        log: list[Any] = []
        go = Event()
        error = Grave()

        async def bad() -> None:
            await go.wait()
            raise error

        async def starter() -> None:
            await until(one(go))
            go.set()
            await cut(log)

        with pytest.raises(BaseExceptionGroup) as caught:
            await make(bad, starter, partial(cut, log))
        assert same(caught.value, error)
        assert log == ["cut", "cut"]

    run(body, backend=backend)


def test_gathers_nest(backend: str) -> None:
    async def body() -> None:
        async def tree(depth: int) -> int:
            if not depth:
                return 1
            return sum(await gather(partial(tree, depth - 1), tree(depth - 1)))

        assert await tree(4) == 16

        log: list[Any] = []
        error = Boom()

        async def bad() -> None:
            await gather(partial(cut, log), lambda: fail(error))

        with pytest.raises(ExceptionGroup) as caught:
            await gather(partial(cut, log), lambda: gather(cut(log), give(1)), bad)
        inner = caught.value.exceptions[0]
        assert isinstance(inner, ExceptionGroup)
        assert same(inner, error)

    run(body, backend=backend)


@on("asyncio", "uvloop", "threads")  # on trio a Cancelled that no scope expects is an error of the program
def test_a_child_that_ends_as_cancelled_by_itself_makes_gather_raise_task_cancelled(backend: str) -> None:
    """CPython: test_one_cancellation."""

    async def body() -> None:
        async def quits() -> None:
            with CancelScope() as scope:
                scope.cancel()
                try:
                    await never()
                except get_cancelled_exc_class() as error:
                    found.append(error)
                    raise
            raise found[0]

        found: list[BaseException] = []
        with pytest.raises(TaskCancelled, match="quits"):
            await gather(give(1), quits)

    run(body, backend=backend)


@makers
@unawaited
def test_where_no_group_can_be_entered_coroutines_are_closed(make: Any) -> None:
    async def body() -> None:
        coroutine = give(1)
        found: list[BaseException] = []
        over = Event()

        def callback() -> None:
            procedure = make(coroutine)
            try:
                procedure.__await__().send(None)
            except RuntimeError as error:
                found.append(error)
            over.set()

        asyncio.get_running_loop().call_soon(callback)
        await over.wait()
        assert "task group" in str(found[0])
        assert coroutine.cr_frame is None

    run(body)


def test_one_may_be_given_to_another(backend: str) -> None:
    """CPython: gather takes the future of a gather."""

    async def body() -> None:
        results: Any = await gather(gather(give(1), give(2)), race(gather(give(3))), gather())
        assert results == ((1, 2), (0, (3,), []), ())
        wrong: Any = 3
        with pytest.raises(TypeError, match="argument 1"):
            gather(gather(give(1)), wrong)  # and no warning on top

    run(body, backend=backend)


# ===================================================================== race
def test_the_first_result_wins_and_the_others_are_cancelled(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        go = Event()

        async def first() -> str:
            await go.wait()
            return "first"

        async def starter() -> None:
            await until(one(go))
            go.set()
            await cut(log, "starter")

        raced: Any = await race(partial(cut, log), starter, first, cut(log))
        assert raced == Raced(2, "first", [])
        assert (raced.winner, raced.value, raced.late) == (2, "first", [])
        assert sorted(log) == ["cut", "cut", "starter"]

    run(body, backend=backend)


def test_the_first_error_decides_a_race_and_is_raised_as_it_is(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        go = Event()
        error = Boom()

        async def bad() -> None:
            await go.wait()
            raise error

        async def starter() -> None:
            await until(one(go))
            go.set()
            await cut(log)

        with pytest.raises(Boom) as caught:
            await race(partial(cut, log), starter, bad)
        assert caught.value is error
        assert log == ["cut", "cut"]

    run(body, backend=backend)


@pytest.mark.parametrize("make", [race, first_success])
def test_a_loser_that_comes_to_its_result_all_the_same_is_late(backend: str, make: Any) -> None:
    async def body() -> None:
        waiting = Event()

        async def loser(value: int) -> int:
            try:
                await waiting.wait()
            except get_cancelled_exc_class():
                return value
            raise AssertionError

        async def first() -> str:
            await until(one(waiting, 2))
            return "first"

        raced = await make(partial(loser, 1), first, cut([]), loser(2))
        assert raced == (1, "first", [(0, 1), (3, 2)])

    run(body, backend=backend)


def test_errors_of_losers_are_raised_in_a_group(backend: str) -> None:
    async def body() -> None:
        errors = [Boom("one"), Boom("two")]
        waiting = Event()

        async def loser(error: Boom) -> None:
            try:
                await waiting.wait()
            finally:
                raise error

        async def first() -> str:
            await until(one(waiting, 2))
            return "first"

        with pytest.raises(ExceptionGroup) as caught:
            await race(loser(errors[0]), first, partial(loser, errors[1]))
        assert same(caught.value, *errors)

        error = Boom("first")

        async def bad() -> None:
            await until(one(waiting, 1))
            raise error

        with pytest.raises(ExceptionGroup) as caught:
            await race(bad, loser(errors[0]))
        assert same(caught.value, error, errors[0])

        async def alone() -> str:
            await until(one(waiting))
            return "first"

        assert await first_success(loser(errors[0]), alone) == (1, "first", [])  # there errors are passed over

    run(body, backend=backend)


def test_no_result_of_a_tie_is_lost(backend: str) -> None:
    async def body() -> None:
        go = Event()

        async def runner(number: int) -> int:
            await go.wait()
            with CancelScope(shield=True):
                await checkpoint()
            return number

        async def starter() -> None:
            await until(one(go, 5))
            go.set()
            await never()

        raced: Any = await race(*[partial(runner, number) for number in range(5)], starter)
        found = [(raced.winner, raced.value), *raced.late]
        assert all(place == value for place, value in found)
        places = [place for place, _ in found]
        assert len(set(places)) == len(places)
        assert places[1:] == sorted(places[1:])
        assert 5 not in places

    run(body, backend=backend)


def test_one_alone_wins_its_race_or_loses_it(backend: str) -> None:
    async def body() -> None:
        error = Boom()
        assert await race(give(1)) == (0, 1, [])
        assert await first_success(lambda: give(1)) == (0, 1, [])
        with pytest.raises(Boom) as caught:
            await race(fail(error))
        assert caught.value is error
        with pytest.raises(ExceptionGroup) as group:
            await first_success(fail(error))
        assert same(group.value, error)

    run(body, backend=backend)


@pytest.mark.parametrize("capacity", [0, 3])
def test_operations_of_one_channel_lose_no_value_in_a_race(backend: str, census: Census, capacity: int) -> None:
    async def body() -> None:
        ch = census.watch(Channel[int](capacity))
        sent = 30
        found: list[int] = []

        async def sender() -> None:
            for number in range(sent):
                await ch.send(number)
            ch.close()

        async with TaskGroup() as group:
            group.start_soon(sender)
            while len(found) < sent:
                left = sent - len(found)
                raced = await race(*[ch.receive() for _ in range(min(3, left))])
                found += [raced.value, *[value for _, value in raced.late]]
        assert sorted(found) == list(range(sent))

    run(body, backend=backend)


def test_operations_of_several_channels_race(backend: str, census: Census) -> None:
    async def body() -> None:
        quiet, loud = census.watch(Channel[str](0)), census.watch(Channel[str](1))
        loud.send_nowait("word")
        raced: Any = await race(quiet.receive(), loud.receive(), quiet.send("said"))
        kept = dict([(raced.winner, raced.value), *raced.late])
        assert (1 in kept) == (len(loud) == 0)
        assert kept.get(1, "word") == "word"
        if 2 in kept:  # the two on one channel met before they were cancelled; who received may have undone it
            assert kept.get(0) == "said" or quiet.receive_nowait() == "said"
        else:
            assert 0 not in kept

    run(body, backend=backend)


def test_all_cancelled_by_others_is_an_error_of_the_race() -> None:
    """Natively: there is no winner then."""

    async def body(make: Any) -> None:
        ready = Event()
        tasks: list[Any] = []

        async def child() -> None:
            tasks.append(asyncio.current_task())
            await ready.wait()

        async def whole() -> Any:
            return await make(child, child)

        racing = asyncio.ensure_future(whole())
        await until(one(ready, 2))
        for task in tasks:
            task.cancel()
        with pytest.raises(RuntimeError, match="were cancelled"):
            await racing

    run(body, race)
    run(body, first_success)


def test_the_error_of_a_race_is_freed_without_the_collector(backend: str) -> None:
    """No cycle of the error, its traceback and the frame of the race."""
    if backend == "threads" and not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("without a GIL what another thread has made goes when that next runs")

    async def body() -> list[weakref.ref[Any]]:
        class Watched(Exception):
            pass

        async def bad() -> None:
            raise Watched

        try:
            await race(bad)
        except Watched as error:
            return [weakref.ref(error)]
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        (reference,) = run(body, backend=backend)
        assert reference() is None
    finally:
        gc.enable()


# ===================================================================== first_success
def test_first_success_passes_over_errors(backend: str) -> None:
    """Promise.any."""

    async def body() -> None:
        log: list[Any] = []
        failed: list[Any] = []

        async def bad(number: int) -> None:
            failed.append(number)
            raise Boom(number)

        async def good() -> str:
            await until(lambda: len(failed) == 2)
            for _ in range(20):
                await checkpoint()
            return "good"

        raced: Any = await first_success(partial(bad, 0), cut(log), good, bad(3))
        assert raced == (2, "good", [])
        assert log == ["cut"]

    run(body, backend=backend)


def test_when_all_fail_first_success_raises_all_errors(backend: str) -> None:
    """Promise.any: AggregateError."""

    async def body() -> None:
        errors = [Boom(number) for number in range(4)]
        with pytest.raises(ExceptionGroup, match="all have failed") as caught:
            await first_success(*[partial(fail, error) for error in errors])
        assert same(caught.value, *errors)
        assert list(caught.value.exceptions) == errors  # in the order of the arguments

    run(body, backend=backend)


@on_asyncio
def test_who_is_cancelled_neither_wins_nor_fails(backend: str) -> None:
    async def body() -> None:
        async def cancelled() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await never()

        error = Boom()
        assert await first_success(cancelled, give(1)) == (1, 1, [])
        assert await race(cancelled, until_then_give) == (1, "then", [])
        with pytest.raises(ExceptionGroup) as caught:
            await first_success(cancelled, partial(fail, error))
        assert same(caught.value, error)

    async def until_then_give() -> str:
        for _ in range(10):
            await checkpoint()
        return "then"

    run(body, backend=backend)


# ===================================================================== as_completed
def test_as_completed_gives_the_handles_in_the_order_of_their_ends(backend: str) -> None:
    """CPython: test_as_completed."""

    async def body() -> None:
        gates = [Event() for _ in range(4)]

        async def child(number: int) -> int:
            await gates[number].wait()
            return number

        found: list[int] = []
        async with as_completed(*[partial(child, number) for number in range(4)]) as done:
            gates[2].set()
            async for handle in done:
                assert handle.done
                found.append(await handle)
                if len(found) < 4:
                    gates[{2: 0, 0: 3, 3: 1}[found[-1]]].set()
        assert found == [2, 0, 3, 1]

    run(body, backend=backend)


def test_errors_stay_in_the_handles(backend: str) -> None:
    async def body() -> None:
        error = Boom()
        outcomes: list[Any] = []
        async with as_completed(give(1), partial(fail, error), lambda: give(2)) as done:
            async for handle in done:
                try:
                    outcomes.append(await handle)
                except Boom as found:
                    outcomes.append(found)
        assert len(outcomes) == 3
        assert {1, 2, error} == set(outcomes)

    run(body, backend=backend)


def test_leaving_as_completed_early_cancels_the_rest(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        ready = Event()

        async def child() -> None:
            try:
                await ready.wait()
            finally:
                log.append("cut")

        async def first() -> int:
            await until(one(ready, 3))
            return 1

        async with as_completed(child, child(), first, child) as done:
            async for handle in done:
                assert await handle == 1
                break
        assert log == ["cut"] * 3
        async for handle in done:  # the others have ended, too
            assert handle.cancelled

    run(body, backend=backend)


@unawaited
def test_an_error_of_the_block_of_as_completed_cancels_the_rest(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        error = Boom()
        go = Event()

        async def child() -> None:
            go.set()
            await cut(log)

        async def block() -> None:
            async with as_completed(child):
                await go.wait()
                raise error

        with pytest.raises(ExceptionGroup) as caught:
            await block()
        assert same(caught.value, error)
        assert log == ["cut"]

    run(body, backend=backend)


@pytest.mark.parametrize("limit", [1, 3])
def test_as_completed_runs_no_more_than_limit_at_a_time(backend: str, limit: int) -> None:
    async def body() -> None:
        counted = Counted()
        found = []
        async with as_completed(*[partial(counted.child, number) for number in range(12)], limit=limit) as done:
            async for handle in done:
                found.append(await handle)
        assert sorted(found) == list(range(12))
        assert counted.most <= limit
        if limit == 1:
            assert found == list(range(12))

    run(body, backend=backend)


@unawaited
def test_leaving_early_over_the_limit_leaves_no_coroutine_unawaited(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        queued = [cut(log) for _ in range(5)]
        things: list[Any] = [*queued, never(), gather(give(2)), lambda: race(give(3))]
        async with as_completed(give(1), *things, limit=1) as done:
            async for handle in done:
                assert await handle == 1
                break
        del queued, things

    run(body, backend=backend)


class Counted:
    """Counts who runs at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = 0
        self.most = 0

    async def child(self, number: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        for _ in range(5):
            await checkpoint()
        with self.lock:
            self.now -= 1
        return number


def test_as_completed_in_a_plain_thread() -> None:
    log: list[Any] = []
    with as_completed(give(1), partial(give, 2), partial(fail, Boom()), partial(cut, log)) as done:
        found = []
        for handle in done:
            try:
                found.append(handle.sync())
            except Boom:
                found.append(3)
            if len(found) == 3:
                break
    assert sorted(found) == [1, 2, 3]
    assert log == ["cut"]
    with as_completed() as done:
        assert list(done) == []


def test_as_completed_is_used_once(backend: str) -> None:
    async def body() -> None:
        both = as_completed(give(1))
        async with both as done:
            assert [await handle async for handle in done] == [1]
        with pytest.raises(RuntimeError, match="once"):
            async with both:
                pass

    run(body, backend=backend)


def test_as_completed_twice_over_goes_on_where_it_was(backend: str) -> None:
    async def body() -> None:
        found = []
        async with as_completed(give(1), give(2), give(3), limit=1) as done:
            async for handle in done:
                found.append(await handle)
                break
            async for handle in done:
                found.append(await handle)
        assert found == [1, 2, 3]

    run(body, backend=backend)


def test_its_handles_may_stand_in_a_select(backend: str) -> None:
    async def body() -> None:
        word = Channel[str](1)
        async with as_completed(give(1), never()) as done:
            async for handle in done:
                assert await select(word.receive(), handle) == (1, 1)
                assert await select(handle.wait().map(str), word.receive()) == (0, "1")
                break

    run(body, backend=backend)


@unawaited
@loops
def test_plain_with_over_as_completed_is_refused_in_a_task(backend: str) -> None:
    """The error says what to write; then no warning on top, and it can still be used."""

    async def body() -> None:
        later = as_completed(give(1))
        for each in (later, as_completed(give(2), never())):
            with pytest.raises(RuntimeError, match="async with"), each:
                pass
        async with later as done:
            with pytest.raises(RuntimeError, match="async for"):
                iter(done)
            assert [await handle async for handle in done] == [1]

    run(body, backend=backend)


# ===================================================================== map_concurrent
def test_map_concurrent_gives_the_results_in_the_order_of_the_items(backend: str) -> None:
    async def body() -> None:
        gates = [Event() for _ in range(4)]

        async def child(number: int) -> int:
            await gates[number].wait()
            if number:
                gates[number - 1].set()
            return number * 10

        gates[3].set()
        assert await map_concurrent(child, range(4)) == [0, 10, 20, 30]

    run(body, backend=backend)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_map_concurrent_runs_no_more_than_limit_at_a_time(backend: str, limit: int) -> None:
    """errgroup: TestGroupLimit."""

    async def body() -> None:
        counted = Counted()
        assert await map_concurrent(counted.child, range(20), limit=limit) == list(range(20))
        assert counted.most <= limit

    run(body, backend=backend)


def test_the_next_item_is_not_taken_before_there_is_a_place(backend: str) -> None:
    async def body() -> None:
        taken: list[int] = []
        begun = Channel[int](10)
        gate = Channel[None](0)

        def items() -> Iterator[int]:
            for number in range(6):
                taken.append(number)
                yield number

        async def child(number: int) -> int:
            await begun.send(number)
            await gate.receive()
            return number

        async def driver() -> None:
            for step in range(6):
                await until(lambda step=step: len(taken) == min(6, step + 2))  # type: ignore[misc]
                for _ in range(20):
                    await checkpoint()
                assert len(taken) == min(6, step + 2)
                await gate.send(None)

        results: Any = await gather(driver, lambda: map_concurrent(child, items(), limit=2))
        assert results[1] == list(range(6))

    run(body, backend=backend)


@unawaited
@pytest.mark.parametrize("limit", [None, 2])
def test_items_that_raise_half_way_cancel_what_runs(backend: str, limit: int | None) -> None:
    async def body() -> None:
        log: list[Any] = []
        error = Boom()
        ready = Event()

        async def child(number: int) -> None:
            if number == 0:
                if limit is not None:  # there is to be a place for the next
                    await until(one(ready))
                return
            try:
                await ready.wait()
            finally:
                log.append(number)

        def items() -> Iterator[int]:
            yield 0
            yield 1
            raise error

        with pytest.raises(ExceptionGroup) as caught:
            await map_concurrent(child, items(), limit=limit)
        assert same(caught.value, error)
        assert log == [1] or (limit is None and log == [])  # perhaps it had not begun

    run(body, backend=backend)


@unawaited
@pytest.mark.parametrize("limit", [None, 3])
def test_an_error_cuts_an_infinite_iterable(backend: str, limit: int | None) -> None:
    async def body() -> None:
        error = Boom()

        async def child(number: int) -> None:
            if number == 20:
                raise error
            await checkpoint()

        with pytest.raises(ExceptionGroup) as caught:
            await map_concurrent(child, itertools.count(), limit=limit if backend != "threads" else 3)
        assert same(caught.value, error)

    run(body, backend=backend)


def test_map_concurrent_is_cancelled_from_outside(backend: str) -> None:
    async def body() -> None:
        log: list[Any] = []
        with move_on_after(TIMEOUT) as scope:
            await map_concurrent(partial(cut, log), itertools.count(), limit=3)
        assert scope.cancelled_caught
        # a place that was left by one who was cut may go to another before the host has noticed: cut as well
        assert sorted(log) == list(range(max(3, len(log))))

    run(body, backend=backend)


def test_map_concurrent_of_no_items_and_of_unhashable_ones(backend: str) -> None:
    async def body() -> None:
        assert await map_concurrent(give, []) == []
        assert await map_concurrent(give, iter(()), limit=1) == []
        items: list[Any] = [[1], {2: 3}, {4}]
        assert await map_concurrent(give, items, limit=1) == items

    run(body, backend=backend)


def test_an_error_of_making_a_coroutine_comes_out_too(backend: str) -> None:
    async def body() -> None:
        def bad(number: int) -> Any:
            if number == 1:
                raise LookupError(number)
            return give(number)

        with pytest.raises(ExceptionGroup) as caught:
            await map_concurrent(bad, range(3), limit=1)
        assert isinstance(caught.value.exceptions[0], LookupError)

        plain: Any = str
        with pytest.raises(ExceptionGroup) as caught:
            await map_concurrent(plain, range(3))
        assert "not async" in str(caught.value.exceptions[0])

    run(body, backend=backend)


# ===================================================================== sync, and how often
def test_sync_of_each_in_a_plain_thread() -> None:
    log: list[Any] = []
    error = Boom()
    threads: set[Any] = set()

    async def who() -> int:
        threads.add(threading.get_ident())
        return 1

    assert gather(who, who(), partial(give, 3)).sync() == (1, 1, 3)
    assert threading.get_ident() not in threads
    assert race(give(1), partial(cut, log)).sync() == (0, 1, [])
    assert first_success(fail(error), give(1)).sync()[:2] == (1, 1)
    assert map_concurrent(give, "abc", limit=2).sync() == ["a", "b", "c"]
    with pytest.raises(Boom):
        race(fail(error)).sync()
    with pytest.raises(ExceptionGroup):
        gather(partial(fail, error), partial(cut, log)).sync()
    with move_on_after(TIMEOUT) as scope:
        gather(never(), partial(cut, log)).sync()
    assert scope.cancelled_caught
    assert set(log) == {"cut"}


def each(value: int = 1) -> list[Any]:
    return [gather(give(value)), race(give(value)), first_success(give(value)), map_concurrent(give, [value])]


@unawaited
@loops
def test_sync_is_refused_on_the_thread_of_a_loop_and_nothing_is_lost(backend: str) -> None:
    """The caller knows by the error: no warning on top. It can be awaited later."""

    async def body() -> None:
        for procedure in each():
            with pytest.raises(RuntimeError, match="would block the thread of a running"):
                procedure.sync()
            assert await procedure in ((1,), (0, 1, []), [1])
        for procedure in each():
            with pytest.raises(RuntimeError):
                procedure.sync()
        del procedure

    run(body, backend=backend)


def test_each_is_performed_once(backend: str) -> None:
    async def body() -> None:
        for procedure in each():
            await procedure
            with pytest.raises(RuntimeError, match="performed already"):
                await procedure
            if backend == "threads":
                with pytest.raises(RuntimeError, match="performed already"):
                    procedure.sync()

    run(body, backend=backend)


@pytest.mark.parametrize("make", [*MAKERS.values(), as_completed])
def test_what_is_never_performed_warns_and_closes_what_it_was_given(make: Any) -> None:
    coroutine = give(1)
    with pytest.warns(RuntimeWarning, match=r"<\w+> was never (performed|entered)") as caught:
        dropped(make, coroutine, never(), partial(give, 2))
    assert len(caught) == 1
    assert coroutine.cr_frame is None  # closed


def test_what_has_nothing_to_do_warns_too_if_it_is_never_performed() -> None:
    """It is a mistake of the caller, however many things there happened to be."""
    with pytest.warns(RuntimeWarning, match="<gather> was never performed"):
        dropped(gather)
    with pytest.warns(RuntimeWarning, match="<map_concurrent> was never performed"):
        dropped(map_concurrent, give, [])


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_to_ask_for_its_awaiting_is_not_to_perform_it(make: Any) -> None:
    with pytest.warns(RuntimeWarning, match=r"<\w+> was never performed"):
        dropped(lambda: make(give(1)).__await__())


def dropped(make: Any, *args: Any) -> None:
    make(*args)
    gc.collect()


# ===================================================================== bad arguments
@pytest.mark.parametrize("make", [*MAKERS.values(), as_completed])
@pytest.mark.parametrize("wrong", [3, None, "text", [1], Event()], ids=repr)
def test_what_cannot_be_done_is_refused_with_its_position(make: Any, wrong: Any) -> None:
    """And what could be done is closed: no warning that it never was."""
    coroutine = give(1)
    with pytest.raises(TypeError, match=rf"{make.__name__}\(\) takes .*; argument 2 is") as caught:
        make(coroutine, never(), wrong, partial(give, 2))
    assert repr(wrong) in str(caught.value)
    assert coroutine.cr_frame is None


def test_a_race_of_nobody_is_refused() -> None:
    for make in (race, first_success):
        with pytest.raises(ValueError, match=f"{make.__name__}.. needs something to do"):
            make()


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_a_wrong_limit(limit: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="limit"):
        map_concurrent(give, [], limit=limit)
    with pytest.raises((TypeError, ValueError), match="limit"):
        as_completed(never, limit=limit)


def test_wrong_arguments_of_map_concurrent() -> None:
    fn: Any = 3
    items: Any = 3
    with pytest.raises(TypeError, match="fn must be an async function of one argument, not 3"):
        map_concurrent(fn, [1])
    with pytest.raises(TypeError, match="items must be an iterable, not 3"):
        map_concurrent(give, items)


def test_an_operation_that_was_performed_already_is_an_error(backend: str) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        op = ch.send(1)
        await op
        with pytest.raises(ExceptionGroup) as caught:
            await gather(op)
        assert isinstance(caught.value.exceptions[0], RuntimeError)

    run(body, backend=backend)


def test_their_reprs_say_what_they_are() -> None:
    made = each()
    assert [repr(procedure) for procedure in made] == ["<gather>", "<race>", "<first_success>", "<map_concurrent>"]
    for procedure in made:
        procedure.sync()
