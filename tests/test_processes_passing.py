"""How ends get to other processes, by whatever way there is, and what happens to the stream then.

What each process runs stands in `process_jobs_channel`. Followed: what multiprocessing, `concurrent.futures` and loky
can carry.
"""

from __future__ import annotations

import gc
import marshal
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import loky
import process_jobs_channel as jobs
import pytest
from worlds import ALL, World, parked, settle_here, spawn

from chanlib import BrokenChannel, EndOfChannel, HandleClosed
from chanlib.processes import ProcessChannel, ProcessReceiver, ProcessSender, broker, open_process_channel
from chanlib.processes.features import WANTED

Open = Callable[..., tuple[ProcessSender, ProcessReceiver]]
METHODS = ["fork", "forkserver", "spawn"]
SPAWN = pytest.param("spawn", marks=pytest.mark.stress)  # it takes long, and is much like that of a fork server
methods = pytest.mark.parametrize("method", ["fork", "forkserver", SPAWN])

# Since 3.12 a fork warns if there are threads, such as those of executors.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def servers() -> None:
    """What multiprocessing starts once, and keeps."""
    multiprocessing.set_forkserver_preload(["process_jobs_channel"])
    resource_tracker.ensure_running()
    forkserver.ensure_running()


@contextmanager
def started(method: str, target: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """A process that has to end well."""
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    try:
        yield process
        process.join(jobs.PATIENCE)
        assert process.exitcode == 0, f"exit code {process.exitcode}"
    finally:
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()


def rest(rx: ProcessReceiver) -> list[Any]:
    """All that comes, to its clean end; with a limit on each."""
    found = []
    while True:
        try:
            found.append(jobs.take(rx))
        except EndOfChannel:
            return found


def descriptors_and_threads() -> tuple[int, int]:
    return jobs.descriptors(), threading.active_count()


# ----------------------------------------------------------------- arguments of a process
@pytest.mark.parametrize("method", METHODS)
def test_a_sender_as_an_argument(opened: Open, method: str) -> None:
    """The last sender's close ends the stream, in whatever process."""
    tx, rx = opened(2)
    with started(method, jobs.produce, tx, [1, "a", None, [2]]):
        tx.close()
        assert rest(rx) == [1, "a", None, [2]]


@methods
def test_ends_by_name_as_arguments(opened: Open, method: str) -> None:
    tx, rx = opened(2)
    with started(method, jobs.produce, values=[1, 2], tx=tx, cause=KeyError("of a child")):
        tx.close()
        assert [jobs.take(rx), jobs.take(rx)] == [1, 2]
        with pytest.raises(BrokenChannel) as info:
            jobs.take(rx)
        assert repr(info.value.cause) == "KeyError('of a child')"


@methods
def test_a_receiver_as_an_argument_and_the_way_back(opened: Open, method: str) -> None:
    tx, rx = opened(3)
    back, result = opened(1)
    with started(method, jobs.consume, rx, back):
        rx.close()
        back.close()
        tx.send_all(range(100)).sync()
        tx.close()
        assert rest(result) == [list(range(100))]


@methods
def test_a_channel_with_both_directions_as_an_argument(method: str) -> None:
    both = ProcessChannel(1)
    context: Any = multiprocessing.get_context(method)
    ready = context.Event()
    with started(method, jobs.exchange, both, ready):
        jobs.put(both, 1)
        assert ready.wait(jobs.PATIENCE)
        assert jobs.take(both) == 2


@methods
def test_an_end_inside_an_argument(opened: Open, method: str) -> None:
    tx, rx = opened(2)
    with started(method, jobs.found_in_a_container, {"ends": [tx]}):
        tx.close()
        assert rest(rx) == [1, 2]


@methods
def test_an_end_inside_the_function(opened: Open, method: str) -> None:
    tx, rx = opened(2)
    with started(method, partial(jobs.produce, tx, [1, 2])):
        tx.close()
        assert rest(rx) == [1, 2]


def test_an_end_in_the_closure_of_a_forked_function(opened: Open) -> None:
    tx, rx = opened(2)

    def work() -> None:
        jobs.produce(tx, [1, 2])

    with started("fork", work):
        tx.close()
        assert rest(rx) == [1, 2]


def test_an_end_among_the_globals_of_a_forked_function(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tx, rx = opened(2)
    monkeypatch.setitem(jobs.shared, "tx", tx)
    with started("fork", jobs.found_among_globals):
        tx.close()
        assert rest(rx) == [1, 2]


@pytest.mark.parametrize(
    "kind",
    [jobs.Worker, jobs.SpawnedWorker],
)
def test_an_end_as_an_attribute_of_a_process(opened: Open, kind: Any) -> None:
    tx, rx = opened(2)
    worker = kind(tx)
    worker.start()
    tx.close()
    del worker.tx
    assert rest(rx) == [1, 2]
    worker.join(jobs.PATIENCE)
    assert worker.exitcode == 0
    worker.close()


def test_an_end_in_a_bare_fork(opened: Open) -> None:
    tx, rx = opened(2)
    pid = os.fork()
    if not pid:
        try:
            jobs.produce(tx, [1, 2])
        finally:
            os._exit(0)
    tx.close()
    assert rest(rx) == [1, 2]
    assert os.waitpid(pid, 0)[1] == 0


@methods
def test_how_an_end_is_goes_along(opened: Open, method: str) -> None:
    tx, rx = opened(math.inf, buffer_bytes=4096, spill=False, serializer=marshal, name="jobs")
    with started(method, jobs.look, tx):
        tx.close()
        assert rest(rx) == [[["<ProcessSender", "'jobs'"], math.inf], "MessageTooLarge"]


@methods
def test_several_producers_and_consumers(opened: Open, method: str) -> None:
    """Each value once; those of one producer that one consumer gets in order. The capacity holds across processes."""
    tx, rx = opened(3)
    back, results = opened(2)
    count = 100
    with (
        started(method, jobs.consume, rx, back),
        started(method, jobs.consume, rx, back),
        started(method, jobs.number, tx, 0, count),
        started(method, jobs.number, tx, 1, count),
    ):
        for end in (tx, rx, back):
            end.close()
        found = rest(results)
    assert sorted(value for part in found for value in part) == [(who, n) for who in range(2) for n in range(count)]
    for part in found:
        for who in range(2):
            mine = [n for p, n in part if p == who]
            assert mine == sorted(mine)


@pytest.mark.parametrize("capacity", [1, 4])
def test_exactly_the_capacity_fits_whoever_sends(opened: Open, capacity: int) -> None:
    tx, rx = opened(capacity)
    with started("fork", jobs.number, tx, 0, 20):
        tx.close()
        for n in range(20):
            settle_here(lambda n=n: len(rx) == min(capacity, 20 - n))
            assert jobs.take(rx) == (0, n)
        assert rest(rx) == []


def test_the_end_is_felt_by_who_waits_for_it(opened: Open, world: World) -> None:
    tx, rx = opened(1)

    async def body() -> None:
        waiting = spawn(rx.wait_closed)
        with started("fork", jobs.do_nothing, tx):
            tx.close()
        rx.close()
        await waiting.wait()

    world.run(body)


# ----------------------------------------------------------------- loops on both sides
@pytest.mark.parametrize(("here", "there"), [("asyncio", "trio"), ("trio", "asyncio"), ("threads", "asyncio")])
def test_different_worlds_on_the_two_sides(opened: Open, here: str, there: str) -> None:
    tx, rx = opened(2)
    back, results = opened(2)
    with started("forkserver", jobs.in_world, there, rx, back):
        rx.close()
        back.close()

        async def body() -> list[int]:
            async def produce() -> None:
                with tx:
                    for n in range(200):
                        await tx.send(n)

            sending = spawn(produce)
            found = [n async for n in results]
            await sending.wait()
            return found

        assert ALL[here].run(body) == [2 * n for n in range(200)]


@pytest.mark.parametrize("name", ["asyncio", "trio", "threads"])
def test_a_select_in_another_process(opened: Open, name: str) -> None:
    (a, first), (b, second), (back, results) = opened(2), opened(2), opened(2)
    with started("forkserver", jobs.choose, name, first, second, back):
        for end in (first, second, back):
            end.close()
        jobs.put(a, "a")
        assert jobs.take(results) == (0, "a")
        jobs.put(b, "b")
        assert jobs.take(results) == (1, "b")
        for end in (a, b):
            jobs.put(end, None)
            end.close()
        assert rest(results) == []


# ----------------------------------------------------------------- executors, queues, channels
def test_ends_as_arguments_of_an_executor(opened: Open) -> None:
    tx, rx = opened(2)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        producing = executor.submit(jobs.produce_and_count, tx, 50)
        adding = executor.submit(jobs.total, rx)
        assert producing.result(jobs.PATIENCE) != os.getpid()
        tx.close()  # not before: arguments are pickled some time after `submit`
        assert adding.result(jobs.PATIENCE) == sum(range(50))
        with executor.submit(jobs.make, 5).result(jobs.PATIENCE) as made:
            assert rest(made) == [0, 1, 2, 3, 4]


def test_ends_as_arguments_of_loky(opened: Open) -> None:
    tx, rx = opened(2)
    executor = loky.ProcessPoolExecutor(1, context=loky.backend.get_context("loky"))
    try:
        producing = executor.submit(jobs.produce_and_count, tx, 50)
        assert jobs.take(rx) == 0
        tx.close()
        assert rest(rx) == list(range(1, 50))
        assert producing.result(jobs.PATIENCE) != os.getpid()
    finally:
        executor.shutdown(wait=True)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_through_a_queue(opened: Open, method: str) -> None:
    tx, rx = opened(2)
    queue: Any = multiprocessing.get_context(method).Queue()
    with started(method, jobs.from_queue, queue):
        queue.put(tx)
        assert rx.receive().sync(jobs.PATIENCE) == 1
        tx.close()
        assert rest(rx) == [2]
    queue.close()
    queue.join_thread()


def test_through_a_pipe(opened: Open) -> None:
    tx, rx = opened(2)
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(tx)
        with there.recv() as twin:
            tx.close()
            twin.send_nowait(1)
    assert rest(rx) == [1]


@methods
def test_through_another_channel_and_back(opened: Open, method: str) -> None:
    (tx, rx), (back, results) = opened(2), opened(2)
    with started(method, jobs.echo_ends, rx, back):
        rx.close()
        back.close()
        a, b = opened(3)
        jobs.put(tx, [a, "text"])
        a.close()
        jobs.put(tx, {"b": b})
        b.close()
        a2, text = jobs.take(results)
        b2 = jobs.take(results)["b"]
        with a2:
            a2.send_nowait(text)
        with b2:
            assert rest(b2) == ["text"]
        tx.close()
        assert rest(results) == []


# ----------------------------------------------------------------- pickles that are not, or badly, used
@pytest.mark.skipif(WANTED == "posix", reason="there an offer does not expire")
def test_a_pickle_that_nobody_unpickles_keeps_the_stream_open_for_a_while(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LIFETIME", 0.2)
    tx, rx = opened(2)
    pickle.dumps(tx)
    assert rx.statistics().senders == 2
    tx.close()
    with pytest.raises(EndOfChannel):
        jobs.take(rx)


def test_a_pickle_is_unpickled_once(opened: Open) -> None:
    tx, rx = opened(2)
    data = pickle.dumps(tx)
    tx.close()
    with pickle.loads(data) as twin:
        assert rx.statistics().senders == 1
        with pytest.raises(RuntimeError, match="claimed already"):
            pickle.loads(data)
        assert rx.statistics().senders == 1
        twin.send_nowait(1)
    assert rest(rx) == [1]


def test_each_pickle_is_an_end(opened: Open) -> None:
    tx, rx = opened(5)
    ends = [pickle.loads(pickle.dumps(tx)) for _ in range(3)]
    assert rx.statistics().senders == 4
    tx.close()
    for number, end in enumerate(ends):
        with end:
            end.send_nowait(number)
    assert rest(rx) == [0, 1, 2]


def test_a_closed_end_is_not_pickled(opened: Open) -> None:
    tx, rx = opened(2)
    for end in (tx, rx):
        end.close()
        with pytest.raises(HandleClosed):
            pickle.dumps(end)


def test_a_pickle_whose_process_has_exited() -> None:
    here, there = multiprocessing.Pipe()
    with here, there:
        with started("fork", jobs.send_pickled, there):
            data = here.recv_bytes()
        with pytest.raises(RuntimeError, match="has gone"):
            pickle.loads(data)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise LookupError("does not pickle")


@pytest.mark.parametrize("method", ["forkserver", SPAWN])
@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_process_that_cannot_be_started_gets_no_end(opened: Open, method: str, side: str) -> None:
    """Another argument fails to pickle, after the end was pickled: the end does not count any more."""
    tx, rx = opened(2)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=jobs.do_nothing, args=((tx, rx)[side == "receiver"], Unpicklable()))
    with pytest.raises(LookupError):
        process.start()
    del process
    gc.collect()
    if side == "sender":
        jobs.put(tx, 1)
        tx.close()
        assert rest(rx) == [1]
    else:
        rx.close()
        with pytest.raises(BrokenChannel):
            jobs.put(tx, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_does_nothing_with_its_end(opened: Open, method: str) -> None:
    """It exits well: whether the stream is complete then it has not said, but the stream is over."""
    tx, rx = opened(2)
    with started(method, jobs.do_nothing, tx):
        pass
    jobs.put(tx, 1)
    tx.close()
    assert jobs.take(rx) == 1
    with pytest.raises((EndOfChannel, BrokenChannel)):
        jobs.take(rx)


# ----------------------------------------------------------------- forks
def test_a_child_that_inherits_ends_it_has_no_use_for_does_not_keep_the_stream_open(opened: Open) -> None:
    """It outlives the close of its parent's."""
    tx, rx = opened(2)
    here, there = multiprocessing.Pipe()
    with here, there, started("fork", jobs.outlive, there):
        jobs.put(tx, 1)
        tx.close()
        assert rest(rx) == [1]
        tx2, rx2 = opened(1)
        rx2.close()
        with pytest.raises(BrokenChannel):
            jobs.put(tx2, 1)
        here.send("go")


def test_a_receiver_that_a_child_has_no_use_for_lets_senders_know(opened: Open) -> None:
    tx, rx = opened(1)
    here, there = multiprocessing.Pipe()
    with here, there, started("fork", jobs.outlive, there):
        jobs.put(tx, 1)
        rx.close()
        with pytest.raises(BrokenChannel):
            jobs.put(tx, 2)
        here.send("go")


@pytest.mark.parametrize("method", METHODS)
def test_an_end_that_a_child_has_keeps_the_stream_open(opened: Open, method: str) -> None:
    tx, rx = opened(2)
    here, there = multiprocessing.Pipe()
    with here, there, started(method, jobs.outlive, there, tx):
        tx.close()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                rx.receive().sync(0.15)  # past the heartbeat
        here.send("go")


def test_forks_while_another_thread_is_inside_a_send(opened: Open) -> None:
    """The lock that the thread may hold is nobody's in the child; nothing is lost, doubled or out of order."""
    tx, rx = opened(64)
    stop = threading.Event()
    sent = 0

    def work() -> None:
        nonlocal sent
        while not stop.is_set():
            jobs.put(tx, (-1, sent))
            sent += 1

    got: list[Any] = []

    def consume() -> None:
        got.extend(rx)

    threads = [threading.Thread(target=work), threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    for who in range(20):
        with started("fork", jobs.number, tx, who, 10):
            pass
    stop.set()
    threads[0].join()
    tx.close()
    threads[1].join()
    for who in range(-1, 20):
        assert [n for p, n in got if p == who] == list(range(sent if who < 0 else 10))


def test_a_fork_while_a_loop_waits(opened: Open) -> None:
    """The child's end is its own: the parent's wait goes on."""
    tx, rx = opened(1)

    async def body() -> None:
        waiting = spawn(rx.receive)
        await parked(rx, receivers=1)
        with started("fork", jobs.produce, tx, [1]):
            pass
        assert await waiting.wait() == 1

    ALL["asyncio"].run(body)


# ----------------------------------------------------------------- nothing is left
def test_two_hundred_channels_leave_nothing_behind(opened: Open) -> None:
    """Neither here nor in the process to which an end of each has gone."""
    (control, theirs), (back, result) = opened(4), opened(1)
    with started("forkserver", jobs.receive_ends, theirs, back) as process:
        theirs.close()
        back.close()
        before = None
        for _ in range(200):
            tx, rx = open_process_channel(1)
            jobs.put(control, tx)
            tx.close()
            with rx:
                assert rest(rx) == [process.pid]
            del tx, rx
            before = before or descriptors_and_threads()
        assert descriptors_and_threads() <= before  # type: ignore[operator]
        control.close()
        first, last = jobs.take(result)
        assert last <= tuple(first)


def test_two_hundred_pickles_leave_nothing_behind(opened: Open) -> None:
    tx, rx = opened(1)
    before = None
    for _ in range(200):
        pickle.loads(pickle.dumps(tx)).close()
        before = before or descriptors_and_threads()
    settle_here(lambda: descriptors_and_threads() <= before)
    assert rx.statistics().senders == 1


def test_processes_leave_nothing_behind(opened: Open) -> None:
    before = None
    for _ in range(5):
        for method in ("fork", "forkserver"):
            tx, rx = open_process_channel(2)
            with started(method, jobs.produce, tx, [1]):
                tx.close()
                assert rest(rx) == [1]
            rx.close()
            del tx, rx
        gc.collect()
        before = before or descriptors_and_threads()
    assert descriptors_and_threads() <= before  # type: ignore[operator]


# ----------------------------------------------------------------- what other systems use
SELECTION = (
    "test_exactly_the_capacity or (keep_in_step and both-1) or both_bounds or never_comes or oracle "
    "or comes_out or own_and or inside_a_value or of_the_channel_itself or unpickled_once or through_another "
    "or inherits_ends or inside_a_send or of_an_executor or two_hundred or (as_an_argument and not spawn)"
)


@pytest.mark.skipif(WANTED != "", reason="this is such a run")
@pytest.mark.stress
@pytest.mark.timeout(180)
def test_without_what_only_linux_has() -> None:
    """A selection of these files again, with `CHANLIB_PROCESSES=posix`."""
    here = Path(__file__).parent
    files = [str(here / f"test_processes_{name}.py") for name in ("channel", "values", "passing")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", SELECTION, *files],
        env={**os.environ, "CHANLIB_PROCESSES": "posix"},
        cwd=here.parent,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_an_end_that_was_pickled_may_be_dropped() -> None:
    """It was for another process: nothing is missing here."""
    tx, rx = open_process_channel[int](2)
    with rx:
        there = pickle.loads(pickle.dumps(tx))
        del tx
        gc.collect()
        there.send_nowait(1)
        there.close()
        assert list(rx) == [1]
