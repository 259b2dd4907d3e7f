"""`WorkerPool.map`: in order or as results come, with a window of calls under way."""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import process_jobs_pool as jobs
import pytest
from test_processes_children import no_process_left, servers
from test_processes_pool import Make, gate, make, post, said
from worlds import NET, World

from chanlib.processes import ProcessEvent

__all__ = ["gate", "make", "no_process_left", "post", "servers"]  # fixtures

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.usefixtures("census", "no_process_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_results_come_in_order_or_as_they_come(make: Make, chunksize: int) -> None:
    pool = make()
    squares = [n * n for n in range(20)]
    assert list(pool.map(jobs.square, range(20), chunksize=chunksize)) == squares
    assert sorted(pool.map(jobs.square, range(20), chunksize=chunksize, ordered=False)) == squares
    assert list(pool.map(jobs.named, [1, 2], "abc")) == [((1, "a"), {}), ((2, "b"), {})]
    assert list(pool.map(jobs.square, [])) == []


def test_as_they_come_one_that_lasts_holds_nobody_up(make: Make, gate: ProcessEvent) -> None:
    calls = [(jobs.wait_for, gate), (jobs.release, gate)]
    results = make().map(_call, calls, ordered=False)
    assert len(list(results)) == 2


def _call(call: Any) -> Any:
    return call[0](*call[1:])


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_than_the_window_is_pulled_ahead(make: Make, ordered: bool) -> None:
    pulled = itertools.count()
    results = make(1).map(jobs.square, pulled, window=5, ordered=ordered)
    for taken in range(1, 20):
        next(results)
        assert next(pulled) == 5 + 2 * taken - 1  # what this looks at is pulled, too
    results.close()
    assert list(results) == []


def test_an_error_of_a_call_is_raised_in_its_place_and_ends_it(make: Make) -> None:
    results = make().map(jobs.fail_at, range(10), itertools.repeat(3))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("number", [2, 6])
def test_after_shutdown_what_was_submitted_ahead_is_given(make: Make, ordered: bool, number: int) -> None:
    with make(1) as pool:
        results = pool.map(jobs.square, range(number), ordered=ordered)
    assert [next(results), next(results)] == [0, 1]
    if number > 2:
        with pytest.raises(RuntimeError, match="shut down"):
            next(results)
    assert list(results) == []


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_a_call_cannot_end_the_iteration(make: Make, world: World, ordered: bool, kind: type[Exception]) -> None:
    pool = make(1)

    async def body() -> None:
        for blocking in (True, False):
            results = pool.map(jobs.stop, [kind], ordered=ordered)
            concurrent.futures.wait(results._waiting, NET)  # what is there already is taken another way
            with pytest.raises(RuntimeError, match=kind.__name__):
                next(results) if blocking and world.name == "threads" else await anext(results)

    world.run(body)


def test_an_error_of_the_iterable_is_raised_after_the_results_before_it(make: Make) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError

    results = make().map(jobs.square, items())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(KeyError):
        next(results)


@pytest.mark.parametrize("ordered", [True, False])
def test_time_is_limited_for_all_or_for_each(make: Make, post: Any, gate: ProcessEvent, ordered: bool) -> None:
    pool = make()
    with pytest.raises(TimeoutError, match="map"):
        next(pool.map(jobs.wait_for, [gate], timeout=0.05, ordered=ordered))
    with pytest.raises(TimeoutError, match="the call"):
        next(pool.map(jobs.wait_for, [gate], call_timeout=0.05, ordered=ordered))


def test_one_that_is_left_early_cancels_what_is_under_way(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1, grace=NET)
    results = pool.map(jobs.hold, itertools.repeat(post), itertools.repeat(gate))
    said(post)
    del results
    assert pool.submit(jobs.square, 3).result(NET) == 9


def test_it_is_iterated_in_any_world(make: Make, world: World) -> None:
    async def body() -> None:
        assert [n async for n in make().map(jobs.square, range(5))] == [0, 1, 4, 9, 16]

    world.run(body)
