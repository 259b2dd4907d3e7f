"""ProcessFuture: a value that will be there once, for waiters in any process."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import process_primitives as jobs
import pytest
from process_jobs import Frozen
from process_primitives import FELT, SOON, at_each_line, descriptors, ended, may_fork, methods, start
from worlds import ChildCancelled, Pair, World, settle, settle_here, spawn

from chanlib import (
    BrokenFuture,
    FutureCancelled,
    HandleClosed,
    InvalidStateError,
    RemoteError,
    WouldBlock,
    after,
    select,
)
from chanlib.processes import (
    ProcessEvent,
    ProcessFuture,
    ProcessPromise,
    ProcessSemaphore,
    open_process_channel,
    open_process_future,
)

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"), may_fork]

VALUES: list[Any] = [
    0,
    -(2**70),
    None,
    "word",
    "\ud800",
    b"bytes",
    bytearray(b"array"),
    [1, {"two": (3.0, None)}],
    b"x" * 4080,
    b"x" * 4081,
    b"y" * 100_000,
    ["z" * 50_000, bytearray(5000)],
]
sizes = pytest.mark.parametrize("size", [10, 3_000_000], ids=["inside", "apart"])


class Odd(Exception):
    """It does not survive pickling."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


# ===================================================================== in one process
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{len(str(value))}")
def test_everybody_gets_a_copy_of_the_value(value: Any) -> None:
    future = ProcessFuture[Any]()
    future.set_result(value)
    first, second = future.result(), future.result()
    assert first == second == value
    assert type(first) is type(value)
    if isinstance(value, (list, bytearray)):
        assert first is not second
        assert first is not value


def test_waiters_get_the_result(world: World) -> None:
    async def body() -> None:
        future = ProcessFuture[str]()
        assert not future.done()
        waiters = [spawn(future.wait) for _ in range(3)]
        waiters.append(spawn(lambda: future.wait().map(str.upper)))
        waiters.append(spawn(select, ProcessEvent(), future))
        await settle(lambda: future.statistics().waiting == 5)
        future.set_result("here")
        assert [await waiter.wait() for waiter in waiters] == ["here"] * 3 + ["HERE", (1, "here")]
        assert await future == "here"
        assert await future.wait() == "here"
        assert await select(ProcessEvent(), future) == (1, "here")
        assert future.result() == "here"
        assert future.exception() is None
        assert future.statistics() == (0, True)

    world.run(body)


def test_waiters_get_the_exception(world: World) -> None:
    async def body() -> None:
        future = ProcessFuture[str]()
        waiters = [spawn(future.wait), spawn(select, future, after(60))]
        await settle(lambda: future.statistics().waiting == 2)
        future.set_exception(KeyError("missing"))
        for waiter in waiters:
            with pytest.raises(KeyError, match="missing"):
                await waiter.wait()
        with pytest.raises(KeyError):
            future.result()
        assert repr(future.exception()) == "KeyError('missing')"
        assert future.exception() is not future.exception()

    world.run(body)


def test_an_exception_that_does_not_survive_pickling_comes_as_a_remote_error() -> None:
    future = ProcessFuture[None]()
    future.set_exception(Odd(1, 2))
    with pytest.raises(RemoteError, match="Odd: 1 and 2"):
        future.result()


def test_an_exception_that_nothing_can_be_set_on_comes_as_itself() -> None:
    future = ProcessFuture[None]()
    future.set_exception(Frozen(7))
    error = future.exception()
    assert repr(error) == "Frozen(7)"
    assert isinstance(error, Frozen)
    assert "Frozen: 7" in str(error.__cause__)


@pytest.mark.parametrize("wrong", [3, None, StopIteration(), StopIteration, int])
def test_what_is_no_exception_is_refused(wrong: Any) -> None:
    future = ProcessFuture[None]()
    with pytest.raises(TypeError, match="set_exception"):
        future.set_exception(wrong)
    assert not future.done()


def test_a_class_of_exceptions_will_do() -> None:
    future = ProcessFuture[None]()
    future.set_exception(LookupError)  # type: ignore[arg-type]
    assert isinstance(future.exception(), LookupError)


def test_a_value_that_does_not_pickle_raises_where_it_is_set() -> None:
    future = ProcessFuture[Any]()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        future.set_result(lambda: None)
    assert not future.done()
    future.set_result(1)
    assert future.result() == 1


def test_it_is_set_once() -> None:
    future = ProcessFuture[int](name="answer")
    assert repr(future) == "<ProcessFuture 'answer' pending>"
    with pytest.raises(InvalidStateError, match="not done"):
        future.exception()
    future.set_result(1)
    for again in (lambda: future.set_result(2), lambda: future.set_exception(KeyError())):
        with pytest.raises(InvalidStateError, match="'answer' done> is done already"):
            again()
    assert future.cancel() is False
    assert future.result() == 1


def test_a_cancelled_future_says_so(world: World) -> None:
    async def body() -> None:
        future = ProcessFuture[None]()
        waiter = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        assert future.cancel() is True
        assert future.cancel() is False
        assert future.cancelled()
        with pytest.raises(FutureCancelled):
            await waiter.wait()
        with pytest.raises(InvalidStateError):
            future.set_result(None)

    world.run(body)


def test_to_cancel_a_wait_is_not_to_cancel_the_future(loop_world: World) -> None:
    async def body() -> None:
        future = ProcessFuture[int]()
        waiter = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        waiter.cancel()
        with pytest.raises(ChildCancelled):
            await waiter.wait()
        with pytest.raises(TimeoutError):
            await future.wait().within(0.01)
        with pytest.raises(WouldBlock):
            future.wait().poll()
        future.set_result(3)
        assert await future == 3

    loop_world.run(body)


def test_result_has_a_time_limit() -> None:
    future = ProcessFuture[None]()
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.result(0)


def test_two_worlds_exchange_values(pair: Pair) -> None:
    futures = [(ProcessFuture[int](), ProcessFuture[int]()) for _ in range(10)]

    async def ask() -> None:
        for number, (question, answer) in enumerate(futures):
            question.set_result(number)
            assert await answer == number + 1

    async def reply() -> None:
        for question, answer in futures:
            answer.set_result(await question + 1)

    pair.run(ask, reply)


# ===================================================================== promises
def test_a_promise_that_is_dropped_breaks_its_future(world: World) -> None:
    async def body() -> None:
        promise, future = open_process_future()
        waiter = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        began = time.monotonic()
        del promise
        gc.collect()
        with pytest.raises(BrokenFuture):
            await waiter.wait()
        assert time.monotonic() - began < FELT
        assert future.done()
        assert isinstance(future.exception(), BrokenFuture)

    world.run(body)


def test_a_promise_that_was_kept_may_go() -> None:
    promise, future = open_process_future(name="word")
    promise.set_result(1)
    with pytest.raises(InvalidStateError, match="ProcessPromise 'word'"):
        promise.set_result(2)
    promise.close()
    assert future.result() == 1
    with pytest.raises(HandleClosed):
        promise.set_result(3)


def test_the_last_of_several_promises_counts() -> None:
    promise, future = open_process_future()
    other = promise.clone()
    promise.close()
    assert not future.done()
    other.close()
    assert future.done()
    with pytest.raises(BrokenFuture):
        future.result()


def test_a_future_without_promise_is_not_broken() -> None:
    future = ProcessFuture[None]()
    other = future.clone()
    future.close()
    assert not other.done()
    other.set_result(None)


def test_a_promise_given_away_keeps_its_future_until_it_arrives() -> None:
    promise, future = open_process_future()
    data = pickle.dumps(promise)
    promise.close()
    with pytest.raises(TimeoutError):
        future.result(FELT)
    arrived: ProcessPromise[Any] = pickle.loads(data)
    arrived.set_result("there")
    assert future.result() == "there"


# ===================================================================== in several processes
@methods
@sizes
def test_processes_set_and_wait(method: str, size: int) -> None:
    question = ProcessFuture[bytes]()
    promise, answer = open_process_future()
    process = start(method, jobs.double, question, promise)
    promise.close()
    question.set_result(b"x" * size)
    assert answer.result(2 * SOON) == b"x" * size * 2
    ended(process)


def test_several_waiters_in_several_processes_each_get_it() -> None:
    future, right = ProcessFuture[Any](), ProcessSemaphore(0)
    value = {"rows": bytearray(200_000), "n": 3}
    processes = [start("fork", jobs.report_result, future, right, value) for _ in range(3)]
    time.sleep(0.05)  # some wait already, in most cases
    future.set_result(value)
    right.acquire(3).sync(SOON)
    for process in processes:
        ended(process)


def test_of_several_processes_that_set_it_one_wins() -> None:
    for number in range(10):
        future, go, wins = ProcessFuture[int](), ProcessEvent(), ProcessSemaphore(0)
        processes = [start("fork", jobs.race_to_set, future, go, wins, number + i) for i in range(3)]
        go.set()
        assert future.result(SOON) in range(number, number + 3)
        for process in processes:
            ended(process)
        assert wins.value == 1


def test_an_exception_comes_with_its_remote_traceback() -> None:
    promise, future = open_process_future()
    process = start("fork", jobs.raise_into, promise)
    promise.close()
    with pytest.raises(LookupError, match="not here") as found:
        future.result(SOON)
    assert "raise_into" in str(found.value.__cause__)
    ended(process)


def test_it_goes_through_a_channel_and_as_an_argument_of_an_executor() -> None:
    future = ProcessFuture[str]()
    sender, receiver = open_process_channel(1)
    with sender, receiver:
        sender.send(future).sync(SOON)
        other = receiver.receive().sync(SOON)
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        assert pool.submit(jobs.settle_for_good, future).result(2 * SOON)
    assert other.result(SOON) == "by an executor"


def test_an_end_of_a_channel_inside_the_value_is_had_by_who_comes_first() -> None:
    sender, receiver = open_process_channel(1)
    future = ProcessFuture[Any]()
    future.set_result(sender)
    sender.close()
    with future.result() as arrived:
        arrived.send("through it").sync(SOON)
    assert list(receiver) == ["through it"]
    receiver.close()
    with pytest.raises(RuntimeError):
        future.result()


# ===================================================================== processes that are killed
def test_a_promise_that_died_with_its_process_breaks_its_future(world: World) -> None:
    promise, future = open_process_future()
    process = start("fork", jobs.sit_on, promise, ready := ProcessEvent())
    promise.close()
    ready.wait().sync(SOON)

    async def body() -> None:
        waiter = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        began = time.monotonic()
        process.kill()
        with pytest.raises(BrokenFuture):
            await waiter.wait()
        assert time.monotonic() - began < FELT

    world.run(body)
    jobs.killed(process)


@methods
def test_a_promise_that_another_process_drops_or_dies_with(method: str) -> None:
    promise, future = open_process_future()
    process = start(method, jobs.drop, promise, go := ProcessEvent())
    promise.close()
    go.set()
    with pytest.raises(BrokenFuture):
        future.result(2 * SOON)
    ended(process)
    promise, future = open_process_future()
    process = start(method, jobs.sit_on, promise, ready := ProcessEvent())
    promise.close()
    ready.wait().sync(2 * SOON)
    process.kill()
    with pytest.raises(BrokenFuture):
        future.result(FELT)
    jobs.killed(process)


@sizes
def test_killed_at_any_line_of_set_result(size: int) -> None:
    made: list[Any] = []
    value = b"x" * min(size, 20_000)

    def step() -> None:
        made[-1][0].set_result(value)

    made.append(open_process_future())
    for line in at_each_line(step):
        promise, future = made.pop()
        promise.close()
        began = time.monotonic()
        try:
            assert future.result(SOON) == value
        except BrokenFuture:
            assert line
        assert time.monotonic() - began < FELT
        future.close()
        made.append(open_process_future())
    for handle in made.pop():
        handle.close()


def test_killed_at_any_line_of_set_result_others_can_set_it() -> None:
    made: list[ProcessFuture[Any]] = [ProcessFuture()]
    for _ in at_each_line(lambda: made[-1].set_result("theirs" * 1000)):
        future = made.pop()
        try:
            future.set_result("ours")
        except InvalidStateError:
            assert future.result(SOON) == "theirs" * 1000
        else:
            assert future.result(SOON) == "ours"
        made.append(ProcessFuture())


# ===================================================================== what is left behind
def test_no_descriptor_is_left() -> None:
    def use() -> None:
        for _ in range(20):
            question = ProcessFuture[bytes]()
            promise, answer = open_process_future()
            process = start("fork", jobs.double, question, promise)
            promise.close()
            question.set_result(b"x" * 10_000)
            assert len(answer.result(SOON)) == 20_000
            ended(process)

    use()
    gc.collect()
    before = descriptors()
    use()
    gc.collect()
    settle_here(lambda: descriptors() <= before)


def test_processes_that_wait_need_no_memory_of_their_own_for_a_long_value() -> None:
    future = ProcessFuture[bytes]()
    future.set_result(b"x" * 5_000_000)
    assert os.fstat(future._channel.memory.fd).st_size < 5_100_000
    assert len(future.result()) == 5_000_000
