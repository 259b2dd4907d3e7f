"""Children in processes: `start_process`, from every backend of `run`, and plain groups.

Mostly forked, which is quick; where the way a process is started matters, it is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import math
import multiprocessing
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import process_jobs as jobs
import pytest
from backends import ALL, each, on
from children import raises_base_group, raises_group
from until import settle, until
from worlds import settle_here

from chanlib import (
    RemoteError,
    TaskCancelled,
    TaskGroup,
    TaskHandle,
    WorkerDied,
    after,
    fail_after,
    move_on_after,
    never,
    run,
    select,
    sleep,
)
from chanlib.processes import ProcessFuture, children, exits, starts
from chanlib.processes.reports import RemoteTraceback

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.usefixtures("census", "no_process_left"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

every_method = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
SPAWN = pytest.param("spawn", marks=pytest.mark.stress)  # it takes long, and is much like that of a fork server
methods = pytest.mark.parametrize("method", ["fork", "forkserver", SPAWN])
inner_backends = pytest.mark.parametrize("inner", ["asyncio", "trio", "threads"])

GRACE = 0.15
HERE = str(Path(__file__).parent)


@pytest.fixture(params=each(ALL, stress=["uvloop"]))
def backend(request: pytest.FixtureRequest) -> str:
    """Around a process: uvloop, which takes as long as the others, is much like asyncio there."""
    return str(request.param)


# ===================================================================== what is there, and what is left
def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(*parents: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.rpartition(")")[2].split()[1]) in parents:
            found.add(int(pid))
    return found


def count() -> tuple[set[int], set[str]]:
    server = forkserver._forkserver._forkserver_pid
    assert server is not None
    return children_of(os.getpid(), server), set(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module", autouse=True)
def servers() -> None:
    """They stay until this process ends, and so do the pipes of libuv: they are not to be taken for a leak."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    with contextlib.suppress(ImportError):
        run(sleep, 0, backend="uvloop")


@pytest.fixture
def no_process_left(servers: None) -> Iterator[None]:
    gc.collect()
    processes, fds = count()
    yield

    def left() -> tuple[set[int], set[str]]:
        now_processes, now_fds = count()
        return now_processes - processes, now_fds - fds if len(now_fds) > len(fds) else set()

    end = time.monotonic() + 5
    while any(left()) and time.monotonic() < end:
        time.sleep(0.005)
        gc.collect()
    assert left() == (set(), set())
    assert not multiprocessing.active_children()


class Post:
    """What a process says, and what is said to it."""

    def __init__(self) -> None:
        self.inbox, self.say = multiprocessing.Pipe(duplex=False)
        self.hear, self.outbox = multiprocessing.Pipe(duplex=False)

    async def next(self) -> Any:
        await until(lambda: self.inbox.poll(0))
        return self.inbox.recv()

    def next_here(self) -> Any:
        assert self.inbox.poll(20)
        return self.inbox.recv()

    def rest(self) -> list[Any]:
        """All that was said until now. The processes are over."""
        found = []
        while self.inbox.poll(0):
            found.append(self.inbox.recv())
        return found


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    yield post
    for end in (post.inbox, post.say, post.hear, post.outbox):
        end.close()


def start(group: TaskGroup, fn: Callable[..., Any], *args: Any, **options: Any) -> TaskHandle[Any]:
    options.setdefault("start_method", "fork")
    return group.start_process(fn, *args, **options)


async def outcome(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of a process, or its error as it is in the handle."""
    async with TaskGroup(on_error="collect") as group:
        handle = start(group, fn, *args, **options)
    return await handle


async def error_of(fn: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
    async with TaskGroup(on_error="collect") as group:
        handle = start(group, fn, *args, **options)
    assert handle.exception is not None
    return handle.exception


# ===================================================================== results
def test_a_process_gives_its_result(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.add, 1, 2)
            assert await handle == 3
        assert handle.done
        assert handle.name == "add"

    run(body, backend=backend)


@every_method
def test_any_start_method_will_do(method: Any) -> None:
    async def body() -> None:
        assert await outcome(jobs.add, 1, 2, start_method=method) == 3
        assert await outcome(jobs.add_async, 1, 2, start_method=method) == 3

    run(body)


def test_the_default_is_a_fork_server() -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            found = await group.start_process(jobs.where)
        assert found["pid"] != os.getpid()

    run(body)


@methods
def test_it_runs_in_the_main_thread_of_a_process_with_a_session_of_its_own(method: Any) -> None:
    async def body() -> None:
        found = await outcome(jobs.where, start_method=method)
        assert found["pid"] != os.getpid()
        assert found["session"] == found["pid"]
        assert found["main"]
        assert found["interrupts"] is signal.SIG_IGN

    run(body)


@inner_backends
def test_an_async_function_runs_on_the_backend_that_is_asked_for(backend: Any, inner: Any) -> None:
    async def body() -> None:
        pid, main, library = await outcome(jobs.where_async, backend=inner)
        assert pid != os.getpid()
        assert main
        assert library == inner

    run(body, backend=backend)


def test_a_function_that_gives_a_coroutine_is_async_too() -> None:
    async def body() -> None:
        assert await outcome(jobs.add_later, 1, 2) == 3
        assert await outcome(functools.partial(jobs.add_async, 1), 2, backend="trio") == 3

    run(body)


def test_a_forked_process_may_run_what_cannot_be_pickled() -> None:
    async def body() -> None:
        lock = threading.Lock()
        assert await outcome(lambda: lock.locked()) is False

    run(body)


@methods
def test_calls_and_results_of_any_size_go_through(method: Any) -> None:
    async def body() -> None:
        assert await outcome(jobs.size, b"x" * 20_000_000, start_method=method) == 20_000_000
        assert len(await outcome(jobs.much, 20_000_000, start_method=method)) == 20_000_000

    run(body)


def test_plain_groups_have_process_children(post: Post) -> None:
    with TaskGroup() as group:
        handle = start(group, jobs.add, 1, 2)
        assert handle.sync() == 3
        parked = start(group, jobs.parked, post.say)
        post.next_here()
        parked.cancel("enough")
    assert parked.cancelled
    assert post.rest() == [("Cancelled", "cancelled: enough"), "finally"]


def test_a_process_child_stands_in_select(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            slow, quick = start(group, jobs.never_sync), start(group, jobs.add, 1, 2)
            assert await select(slow, quick, after(20)) == (1, 3)
            group.cancel()

    run(body, backend=backend)


def test_a_limit_holds_for_processes_too(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup(limit=1) as group:
            first = start(group, jobs.deaf, post.say, post.hear)
            await post.next()
            second = start(group, jobs.add, 1, 2)
            assert repr(second) == "<task 'add' queued>"
            post.outbox.send("end")
            assert await second == 3
            assert first.done

    run(body, backend=backend)


def test_a_call_is_pickled_when_it_is_asked_for() -> None:
    async def body() -> None:
        async with TaskGroup(limit=1) as group:
            group.start_soon(sleep, 0)
            values = [1]
            handle = start(group, len, values, start_method="forkserver")
            values.clear()
            assert await handle == 1

    run(body)


# ===================================================================== errors
def test_an_error_comes_with_its_remote_traceback(backend: Any) -> None:
    async def body() -> None:
        with raises_group() as caught:
            async with TaskGroup() as group:
                start(group, jobs.raises, "odd")
        error = caught.value.exceptions[0]
        assert isinstance(error, jobs.Odd)
        assert error.number == 8
        assert error.__notes__ == ["a note"]
        assert isinstance(error.__cause__, RemoteTraceback)
        text = str(error.__cause__)
        assert "in raises" in text
        assert "worker.py" not in text
        assert "in raises" in "".join(traceback.format_exception(error))

    run(body, backend=backend)


@pytest.mark.parametrize("what", ["no pickle", "no unpickle", "leaves"])
def test_an_error_that_does_not_survive_the_way_is_a_remote_error(what: str) -> None:
    async def body() -> None:
        error = await error_of(jobs.raises, what)
        assert isinstance(error, RemoteError)
        assert (error.kind, error.text) == {
            "no pickle": ("process_jobs.NoPickle", "kept back"),
            "no unpickle": ("process_jobs.NoUnpickle", "1 and 2"),
            "leaves": ("process_jobs.Leaves", "at once"),
        }[what]
        assert "in raises" in error.traceback
        assert isinstance(error.__cause__, RemoteTraceback)

    run(body)


@pytest.mark.parametrize(("what", "kind"), [("frozen", jobs.Frozen), ("mute", jobs.Mute)])
def test_an_error_that_nothing_can_be_set_on_or_said_of_comes_as_itself(what: str, kind: type[Exception]) -> None:
    async def body() -> None:
        error = await error_of(jobs.raises, what)
        assert type(error) is kind
        assert error.args == ((7,) if what == "frozen" else ())
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in raises" in str(error.__cause__)

    run(body)


def test_of_a_group_of_errors_only_those_are_replaced_that_cannot_be_had() -> None:
    async def body() -> None:
        error = await error_of(jobs.raises, "group")
        assert isinstance(error, ExceptionGroup)
        assert error.message == "several"
        one, two, inner = error.exceptions
        assert isinstance(one, ValueError)
        assert isinstance(two, RemoteError)
        assert two.kind == "process_jobs.NoUnpickle"
        assert isinstance(inner, ExceptionGroup)
        assert isinstance(inner.exceptions[0], RemoteError)

    run(body)


def test_an_interrupt_of_its_own_comes_over_as_one(backend: Any) -> None:
    async def body() -> None:
        with raises_base_group() as caught:
            async with TaskGroup(on_error="collect") as group:
                start(group, jobs.raises, "interrupt")
        assert isinstance(caught.value.exceptions[0], KeyboardInterrupt)

    run(body, backend=backend)


def test_what_would_mean_something_else_here_is_a_remote_error() -> None:
    async def body() -> None:
        error = await error_of(jobs.raises, "generator exit")
        assert isinstance(error, RemoteError)
        assert error.kind == "GeneratorExit"

    run(body)


def test_a_result_that_cannot_be_sent_is_an_error_that_names_it() -> None:
    async def body() -> None:
        error = await error_of(jobs.returns, "lambda", name="job")
        assert isinstance(error, pickle.PicklingError)
        assert str(error).startswith("the result of job, of type function, cannot be sent to its parent: ")
        error = await error_of(jobs.returns, "wrecked", name="job")
        assert isinstance(error, pickle.UnpicklingError)
        assert str(error) == "the result of job cannot be unpickled here: far from home"
        assert isinstance(error.__cause__, LookupError)

    run(body)


def test_a_handle_of_a_process_that_has_gone_is_an_error_that_says_what_to_do() -> None:
    words = "has gone: .* let a process that lives longer make the handle, or send it through a channel and wait until"

    async def body() -> None:
        error = await error_of(jobs.gives_a_handle)
        assert isinstance(error, pickle.UnpicklingError)
        assert re.search(words, str(error))
        future = ProcessFuture[Any]()
        await outcome(jobs.sets_a_handle, future)
        with pytest.raises(RuntimeError, match=words):
            await future

    run(body)


@pytest.mark.parametrize("method", ["forkserver", SPAWN])
def test_what_cannot_be_pickled_is_an_error_of_the_child(method: Any) -> None:
    async def body() -> None:
        before = count()
        error = await error_of(lambda: 0, start_method=method)
        assert isinstance(error, AttributeError | pickle.PicklingError)
        error = await error_of(jobs.take, threading.Lock(), start_method=method)
        assert isinstance(error, TypeError)
        assert count()[0] == before[0]

    run(body)


@pytest.mark.parametrize("method", ["forkserver", SPAWN])
def test_what_cannot_be_unpickled_there_is_an_error_of_the_child(method: Any) -> None:
    async def body() -> None:
        error = await error_of(jobs.take, jobs.Wrecked(), start_method=method)
        assert isinstance(error, LookupError)
        assert "__setstate__" in str(error.__cause__)

    run(body)


@pytest.mark.parametrize(
    ("how", "code", "signum"),
    [
        ("_exit0", 0, None),
        ("_exit3", 3, None),
        ("exit", 0, None),
        ("exit0", 0, None),
        ("exit5", 5, None),
        ("SIGKILL", -9, signal.SIGKILL),
        ("SIGSEGV", -11, signal.SIGSEGV),
        ("SIGRTMIN", -signal.SIGRTMIN, signal.SIGRTMIN),
    ],
)
def test_a_process_that_ends_without_a_word_has_died(how: str, code: int, signum: Any) -> None:
    async def body() -> None:
        for method in ("fork", "forkserver") if how in ("_exit3", "SIGKILL") else ("fork",):
            error = await error_of(jobs.dies, how, name="job", start_method=method)
            assert isinstance(error, WorkerDied)
            assert (error.name, error.exitcode, error.signal) == ("job", code, signum)

    run(body)


def test_a_process_that_dies_cancels_its_siblings(backend: Any, post: Post) -> None:
    async def body() -> None:
        with raises_group() as caught:
            async with TaskGroup() as group:
                start(group, jobs.parked, post.say)
                await post.next()
                start(group, jobs.dies, "SIGKILL")
        assert [type(error) for error in caught.value.exceptions] == [WorkerDied]
        assert post.rest() == [("Cancelled", "cancelled: 'dies' has failed"), "finally"]

    run(body, backend=backend)


def test_a_call_that_forks_and_comes_back_twice_is_heard_once() -> None:
    async def body() -> None:
        assert await outcome(jobs.comes_back_twice) == 1

    run(body)


# ===================================================================== what can go wrong at the start
@methods
def test_too_few_descriptors_are_an_error_of_the_child(method: Any) -> None:
    async def body() -> None:
        assert await outcome(jobs.add, 1, 2, start_method=method) == 3  # whatever has to be imported has been
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for free in (0, 1, 4, 8, 11):
            spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]  # so there is no gap below the last
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare[-1] + 1, limits[1]))
            for _ in range(free):
                os.close(spare.pop())
            before = len(spare)
            try:
                error = await error_of(jobs.add, 1, 2, start_method=method)
                while len(spare) < before + free:
                    spare.append(os.dup(0))  # they are all there again
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                for fd in spare:
                    os.close(fd)
            assert isinstance(error, OSError), error
            assert error.errno == errno.EMFILE

    run(body)


def test_more_descriptors_than_a_fork_server_passes_are_an_error_of_the_child() -> None:
    values = [Connection(os.dup(0)) for _ in range(starts.PASSED + 1)]

    async def body() -> None:
        assert await outcome(jobs.take, *values[1:], start_method="forkserver") == starts.PASSED
        server = forkserver._forkserver._forkserver_pid
        error = await error_of(jobs.take, *values, start_method="forkserver")
        assert type(error) is ValueError
        assert "the arguments of take hold 249 descriptors, and a fork server passes at most 248:" in str(error)
        forkserver.ensure_running()
        assert forkserver._forkserver._forkserver_pid == server

    run(body)
    for value in values:
        value.close()


@methods
def test_too_many_processes_are_an_error_of_the_child(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise BlockingIOError(errno.EAGAIN, "too many processes")

    def end(*args: Any) -> int:
        raise EOFError

    async def body() -> None:
        assert await outcome(jobs.add, 1, 2, start_method=method) == 3
        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr("_posixsubprocess.fork_exec", refuse)
        monkeypatch.setattr("os.fork", refuse)
        monkeypatch.setattr("multiprocessing.forkserver.read_signed", end)  # the server has failed to fork, and died
        error = await error_of(jobs.add, 1, 2, start_method=method)
        monkeypatch.undo()
        assert isinstance(error, BlockingIOError)
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    run(body)


def test_bad_input_is_refused_at_once() -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            anything: Any = group
            for bad, kind, words in [
                (lambda: anything.start_process(5), TypeError, "fn must be a function, not 5"),
                (lambda: anything.start_process(jobs.add_async(1, 2)), TypeError, r"start_process\(fn, \*args\), not"),
                (lambda: anything.start_process(jobs.add, backend="trio"), ValueError, "is for async functions"),
                (lambda: anything.start_process(jobs.add_async, backend="curio"), ValueError, "backend must be one of"),
                (
                    lambda: anything.start_process(jobs.add, start_method="thread"),
                    ValueError,
                    "'fork', 'forkserver', 'spawn', or None, not 'thread'",
                ),
                (lambda: anything.start_process(jobs.add, grace=math.nan), ValueError, "grace must be"),
                (lambda: anything.start_process(jobs.add, grace="1"), TypeError, "grace must be"),
                (lambda: anything.start_process(jobs.add, name=5), TypeError, "name must be a string or None, not 5"),
                (lambda: anything.start_process(jobs.add, logging=1), TypeError, "logging must be True or False"),
            ]:
                with pytest.raises(kind, match=words):
                    bad()
            assert not len(group)

    run(body)
    with pytest.raises(RuntimeError, match="is not entered"):
        TaskGroup().start_process(jobs.add, 1, 2)


# ===================================================================== cancelling
def test_a_message_reaches_the_operation_that_it_waits_in(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked, post.say, grace=math.inf)
            pid = await post.next()
            assert handle.cancel("enough")
            with pytest.raises(TaskCancelled, match="enough"):
                await handle
            assert not alive(pid)
        assert post.rest() == [("Cancelled", "cancelled: enough"), "finally"]

    run(body, backend=backend)


@pytest.mark.parametrize("inner", ["asyncio", "uvloop", "trio", "threads"])
def test_a_message_cancels_the_loop_that_it_runs(backend: Any, inner: Any, post: Post) -> None:
    if inner == "uvloop":
        pytest.importorskip("uvloop")

    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked_async, post.say, backend=inner, grace=math.inf)
            await post.next()
            handle.cancel()
        assert handle.cancelled
        assert post.rest() == ["CancelledError" if inner in ("asyncio", "uvloop") else "Cancelled", "finally"]

    run(body, backend=backend)


@pytest.mark.parametrize("method", ["forkserver", SPAWN])
def test_it_can_be_cancelled_however_it_was_started(method: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            start(group, jobs.parked, post.say, grace=math.inf, start_method=method)
            start(group, jobs.parked_async, post.say, grace=math.inf, start_method=method)
            await post.next()
            await post.next()
            group.cancel()

    run(body)


def test_a_loop_that_computes_is_cancelled_at_its_next_checkpoint(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            start(group, jobs.computes, post.say, grace=math.inf)
            await post.next()
            group.cancel()

    run(body)


@pytest.mark.parametrize("form", ["sleep", "lock"])
def test_after_a_grace_sigterm_cuts_what_knows_nothing_of_operations(backend: Any, post: Post, form: str) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked, post.say, form, grace=GRACE)
            await post.next()
            began = time.monotonic()
            handle.cancel("why not")
        took = time.monotonic() - began
        assert handle.cancelled
        assert GRACE <= took < 2 * GRACE
        assert post.rest() == [("Cancelled", "cancelled: why not"), "finally"]

    run(body, backend=backend)


def test_sigterm_ends_a_loop_that_is_not_ours(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked, post.say, "asyncio", grace=GRACE)
            await post.next()
            handle.cancel()
        assert handle.cancelled
        assert post.rest() == ["task", ("Cancelled", "cancelled"), "finally"]

    run(body)


@pytest.mark.parametrize("inner", ["asyncio", "trio", "threads"])
def test_sigterm_cuts_what_blocks_a_loop(inner: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked_async, post.say, "sleep", backend=inner, grace=GRACE)
            await post.next()
            handle.cancel()
        assert handle.cancelled
        assert post.rest() == ["Cancelled", "finally"]

    run(body)


def test_sigterm_cancels_the_main_task_natively_which_no_shield_keeps_out(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked_async, post.say, "shield", grace=GRACE)
            await post.next()
            handle.cancel()
        assert handle.cancelled
        assert post.rest() == ["CancelledError", "finally"]

    run(body)


def test_sigterm_does_not_cut_an_operation_in_a_shield(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.shielded, post.say, post.hear, grace=GRACE * 10)
            await post.next()
            handle.cancel()
            await sleep(GRACE * 11)
            assert not handle.done
            post.outbox.send("end")
            assert await handle == "unhurt"

    run(body)


@pytest.mark.parametrize(
    ("job", "backend"),
    [(jobs.stubborn, "asyncio"), (jobs.stubborn, "trio"), (jobs.native, "threads"), (jobs.stopped, "asyncio")],
)
def test_after_two_graces_it_is_killed(job: Any, backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, job, post.say, grace=GRACE)
            pid = await post.next()
            if job is jobs.stopped:
                await until(lambda: "(stopped)" in Path(f"/proc/{pid}/status").read_text())
            began = time.monotonic()
            handle.cancel()
        took = time.monotonic() - began
        assert handle.cancelled
        assert not alive(pid)
        assert 2 * GRACE <= took < 2 * GRACE + 1

    run(body, backend=backend)


def test_one_that_not_even_sigkill_can_end_is_given_up(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LAST", 0.1)
    monkeypatch.setattr(children, "kill_group", lambda leader: None)
    monkeypatch.setattr(exits.Exit, "signal", lambda self, signum: None)

    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.stubborn, post.say, grace=GRACE)
            pid = await post.next()
            handle.cancel()
        assert handle.cancelled
        assert alive(pid)

    run(body)
    settle_here(lambda: not multiprocessing.active_children())  # it sees that its line is closed


def test_without_a_grace_it_is_killed_at_once(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.parked, post.say, grace=0)
            await post.next()
            handle.cancel()
        assert handle.cancelled
        assert post.rest() == []

    run(body, backend=backend)


def test_with_an_infinite_grace_it_is_waited_for(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.deaf, post.say, post.hear, grace=math.inf)
            await post.next()
            handle.cancel()
            await sleep(0.1)
            assert not handle.done
            post.outbox.send("end")
        assert await handle == "in its own time"

    run(body, backend=backend)


def test_what_it_says_in_time_counts(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            well = start(group, jobs.ends_well, post.say)
            badly = start(group, jobs.ends_badly, post.say)
            died = start(group, jobs.gives_up, post.say)
            for _ in range(3):
                await post.next()
            group.cancel()
        assert await well == "all the same"
        assert isinstance(badly.exception, jobs.Odd)
        assert isinstance(died.exception, WorkerDied)
        assert died.exception.exitcode == 9

    run(body, backend=backend)


def test_one_that_has_said_its_word_and_lingers_is_ended_all_the_same(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            handle = start(group, jobs.keeps_running, post.say, grace=GRACE)
            await post.next()
            await sleep(0.05)
            assert not handle.done
            handle.cancel()
        assert await handle == "done"

    run(body)


@methods
def test_one_that_is_cancelled_before_it_is_there_does_not_begin(method: Any, post: Post) -> None:
    async def body() -> None:
        for delay in (0.0, 0.01, 0.03):
            async with TaskGroup() as group:
                handle = start(group, jobs.parked, post.say, start_method=method, grace=10)
                await sleep(delay)
                began = time.monotonic()
                handle.cancel()
            assert handle.cancelled
            assert time.monotonic() - began < 5
            said = post.rest()
            assert not said or said[-1] == "finally"

    run(body)


def test_one_that_is_queued_is_never_started(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup(limit=1) as group:
            start(group, jobs.never_sync)
            second = start(group, jobs.parked, post.say, start_method="forkserver")
            second.cancel()
            assert second.done
            group.cancel()
        assert post.rest() == []

    run(body)


def test_a_deadline_a_block_and_a_sibling_cancel_it(backend: Any, post: Post) -> None:
    async def body() -> None:
        with move_on_after(0.2) as scope:
            async with TaskGroup() as group:
                start(group, jobs.parked, post.say)
                await never()
        assert scope.cancelled_caught
        with raises_group():
            async with TaskGroup() as group:
                start(group, jobs.parked, post.say)
                raise ValueError

        async def fails() -> None:
            raise ValueError

        with raises_group():
            async with TaskGroup() as group:
                start(group, jobs.parked, post.say)
                group.start_soon(fails)

    run(body, backend=backend)


def test_the_reason_of_a_scope_around_reaches_it(backend: Any, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            start(group, jobs.parked, post.say)
            await post.next()
            group.cancel("home time")
        assert post.rest() == [("Cancelled", "cancelled: home time"), "finally"]

    run(body, backend=backend)


@on("asyncio", "uvloop")
def test_a_native_cancel_ends_it_and_a_second_one_does_not_leave_it_behind(backend: Any, post: Post) -> None:
    async def attending() -> None:
        async with TaskGroup() as group:
            start(group, jobs.stubborn, post.say, grace=GRACE)
            await never()

    async def body() -> None:
        task = asyncio.ensure_future(attending())
        pid = await post.next()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        began = time.monotonic()
        for _ in range(3):
            for other in others:
                other.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)
        assert time.monotonic() - began < 2 * GRACE + 1

    run(body, backend=backend)


def test_a_loop_that_is_closed_under_it_ends_it(post: Post) -> None:
    async def attending() -> None:
        async with TaskGroup() as group:
            start(group, jobs.parked, post.say)
            await never()

    loop = asyncio.new_event_loop()
    task = loop.create_task(attending())
    loop.run_until_complete(asyncio.wait_for(asyncio.ensure_future(post.next(), loop=loop), 20))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()  # type: ignore[union-attr]
    del task, loop
    gc.collect()
    settle_here(lambda: not multiprocessing.active_children())
    assert post.rest()[-1] == "finally"


def test_sigterm_from_elsewhere_ends_it_as_cancelled(post: Post) -> None:
    # what a thread has forked does not always notice a signal from 3.13 on
    start = functools.partial(TaskGroup.start_process, start_method="forkserver")

    async def body() -> None:
        async with TaskGroup() as group:
            for form in ("sleep", "chanlib"):
                handle = start(group, jobs.parked, post.say, form)
                os.kill(await post.next(), signal.SIGTERM)
                with pytest.raises(TaskCancelled):
                    await handle
                assert post.rest() == [("Cancelled", "cancelled: SIGTERM"), "finally"]
            for inner in ("asyncio", "trio", "threads"):
                handle = start(group, jobs.parked_async, post.say, backend=inner)
                os.kill(await post.next(), signal.SIGTERM)
                with pytest.raises(TaskCancelled):
                    await handle
                assert post.rest()[-1] == "finally"

    run(body)


@pytest.mark.parametrize(
    "method",
    ["fork", pytest.param("forkserver", marks=pytest.mark.stress), SPAWN],
)
def test_it_can_be_cancelled_at_any_time(method: Any, backend: Any) -> None:
    if method == "fork" and not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("without a GIL os.fork itself may hang in the child, if other threads are busy (3.14.7)")

    async def body() -> None:
        async with TaskGroup() as group:
            handles = []
            for n in range(8 if method == "fork" else 3):
                handles.append(start(group, jobs.never_sync if n % 2 else jobs.add_twice, start_method=method, grace=5))
                await sleep(0.004 * n)
                handles[n // 2].cancel()
            for handle in handles:
                handle.cancel()
        assert all(handle.done for handle in handles)

    run(body, backend=backend)


# ===================================================================== families
@pytest.mark.parametrize("then", ["dies", "parks"])
def test_what_it_has_started_does_not_outlive_it(then: str, post: Post) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            start(group, jobs.with_grandchild, post.say, then)
            await post.next()
            pid = await post.next()
            group.cancel()
        await settle(lambda: not alive(pid))

    run(body)


def test_what_it_leaves_behind_when_it_returns_is_its_own_affair(post: Post) -> None:
    async def body() -> None:
        assert await outcome(jobs.with_grandchild, post.say, "returns") == "returns"
        await post.next()
        pid = await post.next()
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)

    run(body)


@pytest.mark.parametrize("pidfd", [True, False])
@methods
def test_a_grandchild_that_holds_all_descriptors_does_not_hide_its_end(
    method: Any, pidfd: bool, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")

    async def body() -> None:
        with fail_after(10):
            error = await error_of(jobs.with_fork, post.say, start_method=method)
        assert isinstance(error, WorkerDied)
        assert error.exitcode == 5
        await post.next()
        os.kill(await post.next(), signal.SIGKILL)

    run(body)


def test_without_pidfds_all_goes_on(backend: Any, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")

    async def body() -> None:
        assert await outcome(jobs.add, 1, 2) == 3
        async with TaskGroup() as group:
            for job in (jobs.parked, jobs.stubborn):
                start(group, job, post.say, grace=GRACE)
                await post.next()
            group.cancel()

    run(body, backend=backend)


def test_the_exit_of_a_process_that_somebody_else_has_waited_for_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "STRAY", 0.05)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=os._exit, args=(3,))
    process.start()
    end = exits.Exit(process)
    os.waitpid(end.pid, 0)
    end.wait().sync(5)
    assert end.over
    assert end.exitcode is None
    end.close()
    process._popen.returncode = 0
    process.join()
    process.close()


def test_groups_nest(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            start(group, jobs.nested, post.say)
            pids = [await post.next() for _ in range(3)]
            group.cancel()
        assert not any(map(alive, pids))

    run(body)


def test_a_group_in_a_process_that_was_forked_has_a_fork_server_of_its_own() -> None:
    async def body() -> None:
        assert await outcome(jobs.nested_default) == 3

    run(body)


def test_a_group_in_a_process_can_be_cancelled_there() -> None:
    async def body() -> None:
        assert await outcome(jobs.nested_cancel) == [True, 3]

    run(body)


def test_those_of_a_worker_that_is_killed_end_too(post: Post) -> None:
    async def body() -> None:
        async with TaskGroup(on_error="collect") as group:
            handle = start(group, jobs.nested, post.say)
            pids = [await post.next() for _ in range(3)]
            os.kill(pids[0], signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await handle
            await settle(lambda: not any(map(alive, pids)))

    run(body)


def test_nothing_is_left_of_many(backend: Any) -> None:
    async def body() -> None:
        async with TaskGroup(limit=4) as group:
            handles = [start(group, jobs.add, n, n) for n in range(12)]
        assert [await handle for handle in handles] == [2 * n for n in range(12)]

    run(body, backend=backend)


# ===================================================================== log records
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_log_records_are_handled_in_the_parent(method: Any, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    async def body() -> None:
        with caplog.at_level(logging.INFO):
            await outcome(jobs.logs, logging=True, start_method=method)

    run(body)
    records = [record for record in caplog.records if record.name == "jobs.one"]
    assert [record.levelname for record in records] == ["INFO", "WARNING", "ERROR"]
    assert records[0].getMessage().startswith("number 3 of <process_jobs.Wrecked object")
    assert records[1].getMessage() == "with extra"
    assert "lock" in records[1].odd  # type: ignore[attr-defined]
    assert "Odd: logged" in records[2].getMessage()
    assert all(record.process != os.getpid() for record in records)
    assert capfd.readouterr().err == ""


def test_the_levels_of_the_parent_hold() -> None:
    class Kept(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.records: list[Any] = []

        def emit(self, record: Any) -> None:
            self.records.append(record)

    logger, kept = logging.getLogger("jobs.one"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.ERROR)
    try:

        async def body() -> None:
            await outcome(jobs.logs, logging=True)

        run(body)
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(kept)
    assert [record.levelname for record in kept.records] == ["ERROR"]


# ===================================================================== whole programs
class Program:
    """A program of its own, in a process group of its own."""

    def __init__(self, folder: Path, text: str, *options: str) -> None:
        self.path = folder / "program.py"
        self.path.write_text(f"import sys; sys.path.insert(0, {HERE!r})\n{text}")
        self.process = subprocess.Popen(
            [sys.executable, *options, str(self.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().strip() for _ in range(count)]

    def end(self) -> tuple[str, str]:
        out, err = self.process.communicate(timeout=20)
        return out, err


CROWD = """
import multiprocessing, os, threading
import process_jobs as jobs

if __name__ == "__main__":
    inbox, say = multiprocessing.Pipe(duplex=False)

    def tell():
        while True:
            said = inbox.recv()
            if isinstance(said, int):
                print(said, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    jobs.run_crowd(say, 4, {method!r}, {backend!r})
"""


@pytest.mark.parametrize(("backend", "method"), [("asyncio", "forkserver"), ("trio", "fork"), ("threads", "fork")])
def test_when_the_parent_is_killed_nobody_is_left(backend: str, method: str, tmp_path: Path) -> None:
    program = Program(tmp_path, CROWD.format(backend=backend, method=method))
    pids = [int(line) for line in program.lines(6)]
    assert all(map(alive, pids))
    program.process.kill()
    program.process.wait()
    settle_here(lambda: not any(map(alive, pids)))
    assert program.end()[1] == ""


@pytest.mark.parametrize(
    ("backend", "method"), [("asyncio", "fork"), ("asyncio", "forkserver"), ("trio", "fork"), ("threads", "fork")]
)
def test_an_interrupt_from_the_terminal_is_the_parents_affair(backend: str, method: str, tmp_path: Path) -> None:
    program = Program(tmp_path, CROWD.format(backend=backend, method=method))
    pids = [int(line) for line in program.lines(6)]
    os.killpg(program.process.pid, signal.SIGINT)
    _, err = program.end()
    settle_here(lambda: not any(map(alive, pids)))
    assert program.process.returncode in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in err
    for job in ("in parked", "in stubborn", "in nested", "Process "):
        assert job not in err


EARLY = """
import signal, time
from chanlib import TaskGroup

if __name__ != "__main__":  # in the process, before anything of ours has run there
    print("early", flush=True)
    time.sleep(0.5)
else:
    signal.signal(signal.SIGINT, lambda *_: None)  # a program that has Ctrl-C for itself
    with TaskGroup() as group:
        group.start_process(time.sleep, 0, start_method={method!r})
    print("ended", flush=True)
"""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            "forkserver",
            marks=pytest.mark.xfail(
                strict=True, reason="a process of a fork server feels Ctrl-C until it has settled, as does the server"
            ),
        ),
        "spawn",
    ],
)
def test_an_interrupt_from_the_terminal_does_not_hit_a_process_that_is_about_to_begin(
    method: str, tmp_path: Path
) -> None:
    program = Program(tmp_path, EARLY.format(method=method), "-W", "error")
    assert program.lines(1) == ["early"]
    os.killpg(program.process.pid, signal.SIGINT)
    out, err = program.end()
    assert (program.process.returncode, out, err) == (0, "ended\n", "")


UNUSED = """
import os, time
from chanlib import TaskGroup
from chanlib.processes import open_process_channel

class Slow:
    def __reduce__(self):
        return arrive, ()

def arrive():
    open(__file__ + ".arriving", "x").close()
    time.sleep(0.5)

def child(tx, slow):
    with tx:
        pass

if __name__ == "__main__":
    tx, rx = open_process_channel(1)
    with rx, TaskGroup() as group:
        group.start_process(child, tx, Slow(), start_method="spawn")
        tx.close()
        while not os.path.exists(__file__ + ".arriving"):
            time.sleep(0.01)
        group.cancel()
"""


def test_one_that_is_cancelled_before_it_begins_drops_no_argument(tmp_path: Path) -> None:
    assert Program(tmp_path, UNUSED, "-W", "error").end() == ("", "")


def test_a_parent_that_is_terminated_takes_its_processes_along(tmp_path: Path) -> None:
    program = Program(tmp_path, CROWD.format(backend="asyncio", method="fork"))
    pids = [int(line) for line in program.lines(6)]
    os.killpg(program.process.pid, signal.SIGTERM)
    assert program.end()[1] == ""
    assert program.process.returncode == -signal.SIGTERM
    settle_here(lambda: not any(map(alive, pids)))


def test_a_program_that_ends_in_the_midst_does_not_wait_for_its_processes(tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        """
import multiprocessing, threading
import chanlib, process_jobs as jobs

def live(say):
    with chanlib.TaskGroup(on_error="collect") as group:
        group.start_process(jobs.parked, say, start_method="fork")
        group.start_process(jobs.stubborn, say, start_method="fork", grace=0.2)

if __name__ == "__main__":
    inbox, say = multiprocessing.Pipe(duplex=False)
    threading.Thread(target=live, args=(say,), daemon=True).start()
    print(inbox.recv(), inbox.recv(), flush=True)
""",
    )
    pids = [int(pid) for pid in program.lines(1)[0].split()]
    assert program.end() == ("", "")
    assert program.process.returncode == 0
    settle_here(lambda: not any(map(alive, pids)))


def test_an_end_is_an_argument_where_processes_share_no_memory(tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        """
import os
os.environ["CHANLIB_PROCESSES"] = "pump"
import chanlib, chanlib.processes, process_jobs as jobs

if __name__ == "__main__":
    tx, rx = chanlib.processes.open_process_channel(1)
    with rx, chanlib.TaskGroup() as group:
        with tx:
            group.start_process(jobs.sends, tx, 7)
        print(list(rx))
""",
    )
    assert program.end() == ("[7]\n", "")


def test_a_main_module_that_cannot_be_imported_there_is_a_death(tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        """
import chanlib, process_jobs as jobs
if __name__ == "__mp_main__":
    raise SystemExit(7)

async def main():
    async with chanlib.TaskGroup(on_error="collect") as group:
        handle = group.start_process(jobs.size, b"x" * 10_000_000, start_method="spawn")
    print(repr(handle.exception))

if __name__ == "__main__":
    chanlib.run(main)
""",
    )
    assert program.end() == ("WorkerDied('size', 7)\n", "")


@methods
def test_it_is_silent_in_development_mode(method: str, tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        f"""
import chanlib, chanlib.processes.children, process_jobs as jobs

async def main():
    async with chanlib.TaskGroup() as group:
        group.start_process(jobs.add, 1, 2, start_method={method!r})
        handle = group.start_process(jobs.never_sync, start_method={method!r})
        await chanlib.sleep(0.5)
        handle.cancel()
    print("done")

if __name__ == "__main__":
    chanlib.run(main, backend="threads")  # asyncio, in its debug mode, tells of whatever takes a while
""",
        "-X",
        "dev",
        "-W",
        "error",
        "-W",
        "ignore:This process:DeprecationWarning",
    )
    assert program.end() == ("done\n", "")


def test_importing_chanlib_does_not_import_processes() -> None:
    code = "import sys, chanlib; print([name for name in sys.modules if 'processes' in name or 'multiproc' in name])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
