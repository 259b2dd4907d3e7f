"""WorkerPool: processes that make calls. As an executor, cancelled, killed, with a time limit, initialized, ended.

Mostly forked, which is quick; where the way a worker is started matters, it is named. `map` has a file of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import process_jobs_pool as jobs
import pytest
from test_processes_children import HERE, alive, children_of, no_process_left, servers
from worlds import NET, World, settle_here, spawn

from chanlib import CancelScope, RemoteError, TaskGroup, WorkerDied, after, move_on_after, run, select
from chanlib._core import backend_threads, park_threads
from chanlib.pools import crew
from chanlib.processes import BrokenPool, ProcessChannel, ProcessEvent, WorkerPool, children, open_process_channel
from chanlib.processes.reports import RemoteTraceback

__all__ = ["no_process_left", "servers"]  # fixtures

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.usefixtures("census", "no_process_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

GRACE = 0.1
Make = Callable[..., WorkerPool]


@pytest.fixture
def make() -> Iterator[Make]:
    """A pool, which is shut down after the test, whatever it still does."""
    made: list[Any] = []

    def make(workers: int | None = 2, **options: Any) -> WorkerPool:
        options.setdefault("start_method", "fork")
        options.setdefault("grace", GRACE)
        pool = WorkerPool(workers, **options)
        made.append(pool._works)
        return pool

    yield make
    for works in made:
        works.close()
        works.halt()
        works.cancel_queue()
        works.join()


@pytest.fixture
def post() -> Iterator[ProcessChannel[Any]]:
    """What a call says."""
    channel = ProcessChannel[Any](100)
    yield channel
    channel.__del__()  # pytest keeps it past the test


@pytest.fixture
def gate() -> Iterator[ProcessEvent]:
    event = jobs.gate()
    yield event
    event.set()
    event.close()


def result(future: concurrent.futures.Future[Any]) -> Any:
    return future.result(NET)


def error_of(future: concurrent.futures.Future[Any]) -> BaseException:
    error = future.exception(NET)
    assert error is not None
    return error


def said(post: ProcessChannel[Any]) -> Any:
    return post.receive().sync(NET)


def is_cancelled(future: concurrent.futures.Future[Any]) -> bool:
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(NET)
    return future.cancelled() and future.done() and not future.running()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


# ===================================================================== as an executor
def test_a_call_is_made_in_another_process(make: Make) -> None:
    pool = make()
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(jobs.pid)
    assert isinstance(future, concurrent.futures.Future)
    assert result(future) != os.getpid()
    assert result(pool.submit(jobs.named, 1, fn=2, self=3, timeout=4)) == ((1,), {"fn": 2, "self": 3, "timeout": 4})


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn", None])
def test_a_worker_is_started_in_any_way(make: Make, method: Any) -> None:
    pool = make(1, start_method=method, initializer=jobs.begin, initargs=(1, 2))
    assert result(pool.submit(jobs.begun)) == [(1, 2)]


def test_workers_are_started_when_there_are_calls_and_none_is_free(
    make: Make, post: ProcessChannel[int], gate: ProcessEvent
) -> None:
    pool = make(3)
    assert not pool._works.crew
    assert result(pool.submit(jobs.square, 3)) == 9
    settle_here(lambda: pool._works.idle == 1)
    assert result(pool.submit(jobs.square, 4)) == 16
    assert len(pool._works.crew) == 1
    calls = [pool.submit(jobs.hold, post, gate) for _ in range(5)]
    pids = {said(post) for _ in range(3)}
    assert len(pids) == 3
    gate.set()
    assert {result(call) for call in calls} == pids


def test_there_are_as_many_workers_as_processors_unless_one_says(make: Make) -> None:
    assert make(None)._works.size == os.cpu_count()


def test_futures_end_in_wait_and_as_completed(make: Make, gate: ProcessEvent) -> None:
    pool = make()
    futures = [pool.submit(jobs.square, n) for n in range(6)]
    done = {future.result() for future in concurrent.futures.as_completed(futures, NET)}
    assert done == {n * n for n in range(6)}
    held, failing = pool.submit(jobs.wait_for, gate), pool.submit(jobs.fail, "x")
    done, waiting = concurrent.futures.wait([held, failing], NET, concurrent.futures.FIRST_EXCEPTION)
    assert (done, waiting) == ({failing}, {held})
    held.cancel()
    assert concurrent.futures.wait([held], NET).done == {held}
    assert next(concurrent.futures.as_completed([held], NET)) is held


def test_a_call_that_is_given_to_a_worker_is_running(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1)
    first = pool.submit(jobs.hold, post, gate)
    said(post)
    assert first.running()
    assert not first.done()
    gate.set()
    result(first)
    assert not first.running()
    assert first.done()
    assert not first.cancelled()


def test_callbacks_are_called(make: Make) -> None:
    heard: list[Any] = []
    future = make().submit(jobs.square, 5)
    future.add_done_callback(heard.append)
    result(future)
    settle_here(lambda: heard == [future])


def test_after_shutdown_calls_are_refused(make: Make) -> None:
    pool = make()
    with pool:
        future = pool.submit(jobs.square, 2)
    assert future.done()
    assert "shut down" in repr(pool)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(jobs.square, 1)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.map(jobs.square, [1])
    with pytest.raises(RuntimeError, match="shut down"):
        run(pool.run, jobs.square, 1)
    pool.shutdown()


def test_shutdown_waits_for_the_calls_that_were_submitted(make: Make) -> None:
    pool = make(1)
    futures = [pool.submit(jobs.square, n) for n in range(10)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [n * n for n in range(10)]
    assert not pool._works.crew


def test_shutdown_need_not_wait(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1)
    held, pending = pool.submit(jobs.hold, post, gate), pool.submit(jobs.square, 3)
    said(post)
    pool.shutdown(wait=False)
    assert not held.done()
    gate.set()
    assert result(pending) == 9
    assert result(held) > 0


def test_shutdown_can_cancel_what_has_not_begun(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1)
    held = pool.submit(jobs.hold, post, gate)
    said(post)
    pending = [pool.submit(jobs.square, n) for n in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(is_cancelled(future) for future in pending)
    assert concurrent.futures.wait(pending, NET).not_done == set()
    gate.set()
    assert result(held) > 0


def test_a_callback_cannot_wait_for_the_end_of_its_own_thread(make: Make, gate: ProcessEvent) -> None:
    pool = make(1)
    refused: list[Any] = []

    def shut(_: Any) -> None:
        with pytest.raises(RuntimeError, match="wait=False"):
            pool.shutdown()
        refused.append(True)

    pool.submit(jobs.wait_for, gate).add_done_callback(shut)
    gate.set()
    pool._works.join()
    assert refused


def test_a_pool_that_was_never_used_ends_at_once(make: Make) -> None:
    make().shutdown()
    with make():
        pass


def test_run_in_executor_and_wrap_future(make: Make, post: Any) -> None:
    pool = make()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, jobs.square, 4) == 16
        assert await asyncio.wrap_future(pool.submit(jobs.square, 5)) == 25
        with pytest.raises(KeyError):
            await loop.run_in_executor(pool, jobs.fail, "x")
        call = pool.submit(jobs.sleep_in_c, post)
        wrapped = asyncio.wrap_future(call)
        await post.receive()
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert await asyncio.to_thread(is_cancelled, call)

    asyncio.run(main())


def test_arguments_of_the_pool_are_checked() -> None:
    for wrong in [{"workers": 0}, {"max_tasks": 0}, {"kind": "thread"}, {"call_timeout": "x"}, {"grace": float("nan")}]:
        with pytest.raises((ValueError, TypeError)):
            WorkerPool(**wrong)  # type: ignore[arg-type]
    for wrong in [{"workers": 1.5}, {"max_tasks": "1"}, {"name": 1}, {"initializer": 1}, {"finalizer": "x"}]:
        with pytest.raises(TypeError):
            WorkerPool(**wrong)  # type: ignore[arg-type]


def test_the_start_method_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match=r"start_method must be one of 'fork', 'forkserver', .* not 'no'"):
        WorkerPool(1, start_method="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_arguments_of_a_call_are_checked(make: Make) -> None:
    pool = make()
    with pytest.raises(TypeError, match="fn must be a function"):
        pool.submit(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not the coroutine"):
        pool.submit(jobs.coroutine())  # type: ignore[arg-type]


# ===================================================================== waiting
def test_a_future_is_awaited_in_any_world(make: Make, world: World) -> None:
    pool = make()

    async def body() -> None:
        future = pool.submit(jobs.square, 6)
        assert [await spawn(future.wait).wait(), await future, await future.wait()] == [36, 36, 36]
        with pytest.raises(KeyError):
            await pool.submit(jobs.fail, "x")

    world.run(body)


def test_a_future_is_an_arm_of_select(make: Make, world: World, post: Any, gate: ProcessEvent) -> None:
    pool = make()

    async def body() -> None:
        held = pool.submit(jobs.hold, post, gate)
        await post.receive()
        assert (await select(held, after(0)))[0] == 1
        assert await select(held, pool.submit(jobs.square, 7)) == (1, 49)
        assert not held.done()
        gate.set()
        assert (await select(held, None))[0] == 0

    world.run(body)


def test_cancelling_who_waits_does_not_cancel_the_call(
    make: Make, loop_world: World, post: Any, gate: ProcessEvent
) -> None:
    pool = make()

    async def body() -> None:
        held = pool.submit(jobs.hold, post, gate)
        await post.receive()
        with move_on_after(0.01) as scope:
            await held
        assert scope.cancelled_caught
        assert held.running()
        gate.set()
        assert await held > 0

    loop_world.run(body)


def test_run_gives_the_result_or_raises_the_error(make: Make, backend: str) -> None:
    pool = make()

    async def main() -> None:
        assert await pool.run(jobs.square, 8) == 64
        with pytest.raises(KeyError):
            await pool.run(jobs.fail, "x")

    run(main, backend=backend)


def test_run_that_is_cancelled_stops_the_call_and_waits_for_that(make: Make, backend: str, post: Any) -> None:
    pool = make()

    async def main() -> int:
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(pool.run, jobs.sleep_in_c, post)
                pid = await post.receive()
                assert alive(pid)
                scope.cancel()
        assert scope.cancelled_caught
        assert not alive(pid)
        return int(pid)

    pid = run(main, backend=backend)
    assert result(pool.submit(jobs.pid)) != pid


def test_run_has_a_timeout_of_its_own(make: Make, post: Any) -> None:
    pool = make(call_timeout=1000)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s"):
        run(lambda: pool.run(jobs.sleep_in_c, post, timeout=0.05))


def test_async_with_waits_without_blocking(backend: str) -> None:
    async def main() -> None:
        async with WorkerPool(1, start_method="fork") as pool:
            future = pool.submit(jobs.square, 9)
        assert future.result(0) == 81

    run(main, backend=backend)


def test_async_with_that_fails_stops_its_calls(backend: str, post: Any, gate: ProcessEvent) -> None:
    async def fail_inside(pool: WorkerPool, futures: list[Any]) -> None:
        async with pool:
            futures += [pool.submit(jobs.hold, post, gate) for _ in range(6)]
            await post.receive()
            raise KeyError

    async def main() -> None:
        futures: list[Any] = []
        with pytest.raises(KeyError):
            await fail_inside(WorkerPool(2, start_method="fork", grace=GRACE), futures)
        assert [future for future in futures if not future.cancelled()] == []

    run(main, backend=backend)


def test_async_with_that_is_cancelled_while_its_exit_waits_stops_its_calls(
    backend: str, post: Any, gate: ProcessEvent
) -> None:
    async def main() -> None:
        with CancelScope() as scope:

            async def cancel() -> None:
                await post.receive()
                scope.cancel()

            async with TaskGroup() as group:
                group.start_soon(cancel)
                async with WorkerPool(1, start_method="fork", grace=GRACE) as pool:
                    held, pending = pool.submit(jobs.hold, post, gate), pool.submit(jobs.pid)
        assert held.cancelled()
        assert pending.cancelled()

    run(main, backend=backend)


# ===================================================================== what goes wrong in a call
def test_an_error_has_the_remote_traceback_as_its_cause(make: Make) -> None:
    error = error_of(make().submit(jobs.fail, "word"))
    assert isinstance(error, KeyError)
    assert error.args == ("word",)
    cause = error.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "in fail" in str(cause)
    assert "serving.py" not in str(cause)


def test_an_error_that_does_not_survive_pickling_is_told(make: Make) -> None:
    pool = make(1)
    worker = result(pool.submit(jobs.pid))
    error = error_of(pool.submit(jobs.fail_oddly))
    assert isinstance(error, RemoteError)
    assert "1 and 2" in str(error)
    assert result(pool.submit(jobs.pid)) == worker


@pytest.mark.parametrize(
    ("fn", "args", "kind", "match"),
    [
        (lambda: 1, (), Exception, "lambda|local object"),
        (jobs.square, (lambda: 1,), Exception, "lambda|local object"),
        (jobs.square, (jobs.RefusesToArrive(),), LookupError, "not here"),
        (jobs.give_a_function, (), Exception, "lambda|local object"),
        (jobs.give_what_refuses, (), LookupError, "not here"),
        (jobs.coroutine, (), TypeError, "async"),
        (jobs.square, (), TypeError, "argument"),
    ],
    ids=["function", "argument", "arriving-argument", "result", "arriving-result", "async", "signature"],
)
def test_what_cannot_be_sent_is_an_error_of_the_call_and_the_worker_goes_on(
    make: Make, fn: Any, args: Any, kind: Any, match: str
) -> None:
    pool = make(1)
    worker = result(pool.submit(jobs.pid))
    before, bad, behind = pool.submit(jobs.pid), pool.submit(fn, *args), pool.submit(jobs.pid)
    with pytest.raises(kind, match=match):
        result(bad)
    assert result(before) == result(behind) == worker


def test_a_call_may_cancel_scopes_of_its_own(make: Make) -> None:
    assert result(make().submit(jobs.with_a_scope)) == "went on"


@pytest.mark.parametrize("depth", [1, 5])
def test_a_worker_that_dies_costs_one_call(make: Make, post: Any, gate: ProcessEvent, depth: int) -> None:
    pool = make(2)
    other = pool.submit(jobs.hold, post, gate)
    pid = said(post)
    futures = [pool.submit(jobs.die, 3), *(pool.submit(jobs.pid) for _ in range(depth))]
    error = error_of(futures[0])
    assert isinstance(error, WorkerDied)
    assert error.exitcode == 3
    assert all(result(future) != pid for future in futures[1:])
    gate.set()
    assert result(other) == pid


def test_a_call_that_exits_is_a_worker_that_has_died(make: Make) -> None:
    pool = make(1)
    futures = [pool.submit(jobs.quit_here, 4), pool.submit(jobs.square, 2)]
    assert isinstance(error_of(futures[0]), WorkerDied)
    assert result(futures[1]) == 4


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_costs_no_call(make: Make) -> None:
    pool = make(1)
    for _ in range(5):
        pid = result(pool.submit(jobs.pid))
        kill(pid)
        assert result(pool.submit(jobs.pid)) != pid


def test_calls_are_made_once_each_however_many_workers_are_killed(make: Make, post: Any) -> None:
    pool = make(2)
    others = children_of(os.getpid())  # servers of multiprocessing
    futures = [pool.submit(jobs.named, n) for n in range(300)]
    killed = 0
    while not all(future.done() for future in futures):
        for pid in children_of(os.getpid()) - others if killed < 10 else ():
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                kill(pid)
            killed += 1
        time.sleep(0.002)
    good = [n for n, future in enumerate(futures) if future.exception() is None]
    assert all(futures[n].result() == ((n,), {}) for n in good)
    assert len(futures) - len(good) <= killed
    assert all(isinstance(future.exception(), (WorkerDied, type(None))) for future in futures)


def test_a_driver_that_has_no_descriptor_to_wait_by_looks_now_and_then(
    make: Make, gate: ProcessEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(1)
    pid = result(pool.submit(jobs.pid))
    starved, alarm = threading.Event(), park_threads._Alarm

    def scarce() -> Any:
        if not threading.current_thread().name.startswith("driver"):
            return alarm()
        starved.set()
        raise OSError(errno.EMFILE, "none is left")

    monkeypatch.setattr(park_threads, "_Alarm", scarce)
    held = pool.submit(jobs.wait_for, gate)
    assert starved.wait(NET)
    monkeypatch.undo()
    gate.set()
    assert result(held) == pid
    assert [result(pool.submit(jobs.square, n)) for n in range(3)] == [0, 1, 4]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_if_no_process_can_be_started_that_is_an_error_of_the_call_and_the_next_one_is_tried(
    make: Make, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, "none is left")

    pool = make(1, start_method=method)
    monkeypatch.setattr(children, "pair", refuse)
    error = error_of(pool.submit(jobs.pid))
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    monkeypatch.undo()
    assert result(pool.submit(jobs.square, 3)) == 9


@pytest.mark.parametrize("which", [0, 1, 2])
def test_if_a_channel_of_a_worker_cannot_be_made_those_before_it_are_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    ends: list[Any] = []

    def scarce(*args: Any, **options: Any) -> Any:
        if len(ends) == 2 * which:
            raise OSError(errno.EMFILE, "none is left")
        made: Any = open_process_channel(*args, **options)
        ends.extend(made)
        return made

    pool = make(1)
    with monkeypatch.context() as patch:
        patch.setattr(crew, "open_process_channel", scarce)
        assert isinstance(error_of(pool.submit(jobs.pid)), OSError)
    assert [end for end in ends if not end.is_closed] == []
    assert result(pool.submit(jobs.square, 3)) == 9


@pytest.mark.parametrize(
    ("where", "name"), [(threading.Thread, "start"), (backend_threads, "start_thread")], ids=["home", "driver"]
)
def test_a_call_for_which_no_thread_can_be_had_is_refused_and_leaves_nothing(
    make: Make, where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    pool, other = make(1), make(1)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, refuse)
        for one in (pool, pool, other):
            with pytest.raises(RuntimeError, match="new thread"):
                one.submit(jobs.square, 2)
    assert result(pool.submit(jobs.square, 3)) == 9
    other.shutdown()


# ===================================================================== cancelling
def test_a_call_that_is_pending_is_cancelled_at_once(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1)
    held = pool.submit(jobs.hold, post, gate)
    pid = said(post)
    pending = pool.submit(jobs.die, 1)
    assert pending.cancel()
    assert is_cancelled(pending)
    assert pending.cancel()
    gate.set()
    assert result(held) == result(pool.submit(jobs.pid)) == pid
    assert not held.cancel()


def test_a_call_that_was_given_ahead_is_cancelled_at_once_and_not_made(
    make: Make, post: Any, gate: ProcessEvent
) -> None:
    pool = make(1, grace=NET)
    held, ahead, behind = pool.submit(jobs.hold, post, gate), pool.submit(jobs.die, 1), pool.submit(jobs.pid)
    pid = said(post)
    settle_here(ahead.running)
    assert ahead.cancel()
    assert is_cancelled(ahead)
    assert not held.done()
    gate.set()
    assert result(held) == result(behind) == pid


def test_a_call_that_waits_in_an_operation_ends_there_and_its_worker_goes_on(
    make: Make, post: Any, gate: ProcessEvent
) -> None:
    pool = make(1, grace=NET)
    held, behind = pool.submit(jobs.hold, post, gate), pool.submit(jobs.pid)
    pid = said(post)
    assert held.cancel()
    assert is_cancelled(held)
    with pytest.raises(concurrent.futures.CancelledError):
        held.exception()
    assert result(behind) == pid


@pytest.mark.parametrize("job", [jobs.sleep_in_c, jobs.compute, jobs.ignore_all])
def test_a_call_that_does_not_end_is_killed_with_its_worker_and_nobody_else(
    make: Make, post: Any, gate: ProcessEvent, job: Any
) -> None:
    pool = make(2)
    other = pool.submit(jobs.hold, post, gate)
    others = said(post)
    bad = pool.submit(job, post)
    mine = said(post)
    behind = [pool.submit(jobs.pid) for _ in range(3)]
    assert bad.cancel()
    assert is_cancelled(bad)
    assert not alive(mine)
    assert all(result(future) not in (mine, others) for future in behind)
    assert other.running()
    gate.set()
    assert result(other) == others


def test_with_no_grace_a_call_is_killed_at_once(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1, grace=0)
    held = pool.submit(jobs.hold, post, gate)
    pid = said(post)
    held.cancel()
    assert is_cancelled(held)
    assert not alive(pid)
    assert result(pool.submit(jobs.pid)) != pid


def test_a_function_of_c_is_interrupted(make: Make) -> None:
    pool = make(1)
    call = pool.submit(time.sleep, jobs.HOUR)
    settle_here(call.running)
    call.cancel()
    assert is_cancelled(call)


def test_a_call_that_ends_by_itself_has_its_result_though_it_was_cancelled(make: Make, post: Any) -> None:
    pool = make(1, grace=NET)
    call = pool.submit(jobs.finish_anyway, post)
    pid = said(post)
    call.cancel()
    assert result(call) == pid == result(pool.submit(jobs.pid))
    assert not call.cancelled()
    assert not call.cancel()


def test_cancelling_from_any_number_of_threads_ends_each_call_once(make: Make) -> None:
    pool = make(2, grace=NET)
    heard: list[Any] = []
    futures = [pool.submit(jobs.square, n) for n in range(200)]
    for future in futures:
        future.add_done_callback(heard.append)
    threads = [threading.Thread(target=lambda: [future.cancel() for future in futures[::-1]]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.shutdown()
    assert all(future.cancelled() or future.result(0) == n * n for n, future in enumerate(futures))
    assert len(heard) == len(futures) == len(set(heard))


# ===================================================================== time limits
def test_a_call_that_takes_too_long_is_stopped_where_it_waits(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(1, call_timeout=0.05, grace=NET)
    held, behind = pool.submit(jobs.hold, post, gate), pool.submit(jobs.pid)
    pid = said(post)
    with pytest.raises(TimeoutError, match=r"the call has taken more than 0\.05 s"):
        result(held)
    assert not held.cancelled()
    assert result(behind) == pid


def test_a_call_that_takes_too_long_and_does_not_end_is_killed(make: Make, post: Any) -> None:
    pool = make(1, call_timeout=0.05)
    held, behind = pool.submit(jobs.compute, post), pool.submit(jobs.pid)
    pid = said(post)
    assert isinstance(error_of(held), TimeoutError)
    assert not alive(pid)
    assert result(behind) != pid


def test_the_time_of_a_call_does_not_count_its_waiting_for_others(make: Make) -> None:
    pool = make(1, call_timeout=0.4, initializer=time.sleep, initargs=(0.5,))
    futures = [pool.submit(time.sleep, 0.15) for _ in range(5)]
    assert [result(future) for future in futures] == [None] * 5


# ===================================================================== calls given ahead
def test_a_call_does_not_wait_behind_another_one_while_a_worker_has_nothing_to_do(make: Make) -> None:
    pool = make(2)
    with closing(jobs.gate()) as one, closing(jobs.gate()) as two:
        first = pool.submit(jobs.release_and_hold, one, two)
        others = [pool.submit(jobs.pid) for _ in range(20)]
        last = pool.submit(jobs.release, two)  # the first waits for it
        assert result(last) != result(first)
        assert len({result(other) for other in others} | {result(first)}) == 2


@pytest.mark.parametrize("shut", [False, True])
def test_what_was_given_ahead_goes_to_who_has_nothing_to_do(make: Make, shut: bool) -> None:
    for _ in range(5):
        pool = make(2)
        with closing(jobs.gate()) as begun, closing(jobs.gate()) as gate:  # the last two need each other
            pool.submit(jobs.square, 1)
            calls = [pool.submit(jobs.release_and_hold, begun, gate), pool.submit(jobs.release_when, begun, gate)]
            if shut:
                pool.shutdown()
            assert result(calls[0]) != result(calls[1])


# ===================================================================== hooks
def test_initializer_and_finalizer_run_in_each_worker(make: Make, post: Any, gate: ProcessEvent) -> None:
    pool = make(2, initializer=jobs.begin_with, initargs=(post,), finalizer=jobs.end)
    futures = [pool.submit(jobs.wait_for, gate) for _ in range(2)]
    began = {said(post), said(post)}
    gate.set()
    pids = {result(future) for future in futures}
    assert began == {("began", pid) for pid in pids}
    pool.shutdown()
    assert {said(post), said(post)} == {("ended", pid) for pid in pids}


def test_a_worker_that_is_replaced_finalizes(make: Make, post: Any) -> None:
    pool = make(1, initializer=jobs.begin_with, initargs=(post,), finalizer=jobs.end, max_tasks=2)
    pids = [result(future) for future in [pool.submit(jobs.pid) for _ in range(5)]]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    pool.shutdown()
    assert sorted(post.drain()) == sorted((what, pid) for pid in set(pids) for what in ("began", "ended"))


def test_if_the_initializer_fails_the_pool_is_broken(make: Make) -> None:
    pool = make(2, initializer=jobs.refuse, initargs=("never",))
    futures = [pool.submit(jobs.square, n) for n in range(10)]
    for future in futures:
        error = error_of(future)
        assert isinstance(error, BrokenPool)
        assert isinstance(error, concurrent.futures.BrokenExecutor)
        cause = error.__cause__
        assert isinstance(cause, RuntimeError)
        assert cause.args == ("never",)
    with pytest.raises(BrokenPool, match="initializer"):
        pool.submit(jobs.square, 1)
    with pytest.raises(BrokenPool):
        pool.map(jobs.square, [1])


def test_an_initializer_that_fails_by_the_system_is_not_taken_for_a_worker_that_cannot_be_started(make: Make) -> None:
    pool = make(1, initializer=open, initargs=("/nowhere",))
    error = error_of(pool.submit(jobs.pid))
    assert isinstance(error, BrokenPool)
    assert isinstance(error.__cause__, FileNotFoundError)
    with pytest.raises(BrokenPool):
        pool.submit(jobs.pid)


def test_if_the_initializer_fails_later_the_call_that_runs_goes_on(
    make: Make, post: Any, gate: ProcessEvent, tmp_path: Path
) -> None:
    pool = make(2, initializer=jobs.begin_once, initargs=(str(tmp_path / "one"), gate))
    held = pool.submit(jobs.hold, post, gate)
    pid = said(post)
    assert isinstance(error_of(pool.submit(jobs.pid)), BrokenPool)
    gate.set()
    assert result(held) == pid


def test_a_worker_that_dies_before_it_is_ready_is_tried_again_a_few_times(make: Make, tmp_path: Path) -> None:
    pool = make(1, initializer=jobs.die_unless, initargs=(str(tmp_path / "one"),))
    assert result(pool.submit(jobs.square, 3)) == 9
    hopeless = make(1, initializer=jobs.die, initargs=(9,))
    error = error_of(hopeless.submit(jobs.square, 3))
    assert isinstance(error, WorkerDied)
    assert error.exitcode == 9


# ===================================================================== what is passed
def test_arrays_go_and_come_writable(make: Make) -> None:
    numpy = pytest.importorskip("numpy")
    pool = make(2)
    for length in (10, 100_000, 1_000_000):
        array = numpy.arange(length)
        doubled = result(pool.submit(jobs.double_array, array))
        assert (doubled == 2 * numpy.arange(length)).all()
        assert doubled.flags.writeable
        assert array[-1] == length - 1


def test_large_arguments_and_results(make: Make) -> None:
    pool = make(1)
    futures = [pool.submit(jobs.named, bytes([n]) * 900_000) for n in range(10)]
    assert [result(future) for future in futures] == [((bytes([n]) * 900_000,), {}) for n in range(10)]


def test_a_pool_and_a_future_stay_where_they_are(make: Make) -> None:
    pool = make(1)
    for thing in (pool, pool.submit(jobs.square, 1)):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


# ===================================================================== the end
def test_a_pool_that_is_dropped_makes_its_calls_and_ends(make: Make) -> None:
    pool = make(2)
    futures = [pool.submit(jobs.square, n) for n in range(20)]
    works, gone = pool._works, weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert [result(future) for future in futures] == [n * n for n in range(20)]
    works.join()


def test_a_fork_of_this_process_has_no_pool(make: Make) -> None:
    pool = make(1)
    future = pool.submit(jobs.square, 3)
    result(future)
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.raises(RuntimeError, match="make one in this process"):
                pool.submit(jobs.square, 1)
            pool.shutdown()
            assert future.result(0) == 9
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert result(pool.submit(jobs.square, 4)) == 16


def script(text: str, **options: Any) -> Any:
    env = {**os.environ, "PYTHONPATH": HERE}
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", text]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


EXIT = """
import process_jobs_pool as jobs
from chanlib.processes import WorkerPool
pool = WorkerPool(1, start_method={method!r}, max_tasks=2)
for n in range(5):
    future = pool.submit(jobs.square, n)
    future.add_done_callback(lambda future: print(future.exception() or future.result(), flush=True))
{more}
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("more", ["", "del pool", "1 / 0"])
def test_at_the_end_of_the_interpreter_the_calls_are_made(method: str, more: str) -> None:
    with script(EXIT.format(method=method, more=more)) as process:
        out, err = process.communicate(timeout=NET)
    if sys.version_info[:2] == (3, 12):  # which starts no thread any more by then: those calls are told so
        refused = b"can't create new thread at interpreter shutdown"
        results = [number for number in out.splitlines() if number != refused]
        assert results == b"0 1 4 9 16".split()[: len(results)]
        assert len(out.splitlines()) == 5
    else:
        assert out.split() == b"0 1 4 9 16".split()
    if more == "1 / 0":
        assert err.count(b"Traceback") == 1
    else:
        assert (err, process.returncode) == (b"", 0)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("keep", [False, True])
def test_at_the_end_of_a_child_the_calls_of_its_pools_are_made(method: Any, keep: bool, post: Any) -> None:
    with TaskGroup() as group:
        group.start_process(jobs.leave_a_pool, post, keep, start_method=method)
    assert post.drain() == [0, 1, 2]


KILLED = """
import os, sys, time
import process_jobs_pool as jobs
from chanlib.processes import ProcessChannel, WorkerPool
post = ProcessChannel(10)
pool = WorkerPool(2, start_method={method!r}, grace=0.1)
futures = [pool.submit(job, post) for job in (jobs.sleep_in_c, jobs.compute)]
print(post.receive().sync(), post.receive().sync(), flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_do_not_outlive_a_parent_that_is_killed(method: str) -> None:
    with script(KILLED.format(method=method)) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2, process.communicate()
        process.kill()
        settle_here(lambda: not any(alive(pid) for pid in pids))
