"""Future: a value that will be there once, for everybody; to and from other people's futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
from typing import Any

import pytest
from worlds import ALL, Pair, World, run_together, settle, settle_here, spawn

from chanlib import (
    BrokenFuture,
    ChannelError,
    Future,
    FutureCancelled,
    InvalidStateError,
    WouldBlock,
    never,
    open_future,
    select,
)


# ----------------------------------------------------------------- results and errors
def test_a_result_is_given_to_everybody_who_waits_or_comes_later(world: World) -> None:
    async def body() -> None:
        future = Future[str]()
        waiters = [
            spawn(future.wait),
            spawn(lambda: future.wait().map(str.upper)),
            spawn(select, never(), future),
        ]
        await settle(lambda: future.statistics().waiting == 3)
        assert not future.done()
        future.set_result("done")
        assert [await w.wait() for w in waiters] == ["done", "DONE", (1, "done")]
        assert future.done()
        assert not future.cancelled()
        assert await future == await future.wait() == future.result() == "done"
        assert future.wait().poll() == "done"
        assert future.exception() is None
        assert future.statistics() == (0, True)

    world.run(body)


def test_an_exception_is_raised_by_everybody_who_waits_or_comes_later(world: World) -> None:
    async def body() -> None:
        future = Future[str]()
        error = OSError("disk")
        waiters = [spawn(future.wait), spawn(select, never(), future)]
        await settle(lambda: future.statistics().waiting == 2)
        future.set_exception(error)
        for waiter in waiters:
            with pytest.raises(OSError, match="disk") as caught:
                await waiter.wait()
            assert caught.value is error
        for ask in (future.result, future.wait().poll):
            with pytest.raises(OSError, match="disk"):
                ask()
        with pytest.raises(OSError, match="disk"):
            await future
        assert future.exception() is error
        assert future.done()

    world.run(body)


def test_an_exception_raised_many_times_does_not_gather_traceback() -> None:
    future = Future[int]()
    future.set_exception(OSError("disk"))
    lengths = set()
    for _ in range(20):
        with pytest.raises(OSError, match="disk") as caught:
            future.result()
        lengths.add(len(caught.traceback))
    assert len(lengths) == 1


def test_set_exception_takes_a_class_too() -> None:
    future = Future[int]()
    future.set_exception(KeyError)  # type: ignore[arg-type]
    assert isinstance(future.exception(), KeyError)


def test_a_future_is_set_once() -> None:
    for end in (
        lambda f: f.set_result(1),
        lambda f: f.set_exception(OSError()),
        lambda f: f.cancel(),
    ):
        future = Future[int](name="answer")
        end(future)
        for again in (
            lambda f=future: f.set_result(2),
            lambda f=future: f.set_exception(KeyError()),
        ):
            with pytest.raises(InvalidStateError, match="'answer'") as caught:
                again()
            assert isinstance(caught.value, asyncio.InvalidStateError)
            assert isinstance(caught.value, concurrent.futures.InvalidStateError)
        assert future.cancel() is False


def test_of_many_who_set_it_at_once_exactly_one_succeeds() -> None:
    for _ in range(30):
        future = Future[int]()
        barrier = threading.Barrier(4)

        async def put(n: int, future: Future[int] = future, barrier: Any = barrier) -> int | None:
            barrier.wait()
            try:
                future.set_result(n)
            except InvalidStateError:
                return None
            return n

        won = [n for n in run_together(*[(ALL["threads"], put, n) for n in range(4)]) if n is not None]
        assert won == [future.result()]


def test_a_future_reaches_those_who_wait_in_another_world(pair: Pair) -> None:
    future = Future[int]()

    async def produce() -> None:
        await settle(lambda: future.statistics().waiting == 3)
        future.set_result(1)

    async def consume() -> list[int]:
        return [await w.wait() for w in [spawn(future.wait) for _ in range(3)]]

    assert pair.run(produce, consume)[1] == [1, 1, 1]


# ----------------------------------------------------------------- asking
def test_exception_of_one_that_is_not_done_is_an_invalid_state() -> None:
    with pytest.raises(InvalidStateError):
        Future[int]().exception()


def test_result_waits_in_a_thread_up_to_its_timeout() -> None:
    future = Future[int](name="answer")
    for timeout in (0, -1, 0.001):
        with pytest.raises(TimeoutError, match="'answer'"):
            future.result(timeout)
    assert future.statistics().waiting == 0
    got: list[int] = []
    threads = [threading.Thread(target=lambda t=t: got.append(future.result(t))) for t in (None, 60)]
    for thread in threads:
        thread.start()
    settle_here(lambda: future.statistics().waiting == 2)
    future.set_result(5)
    for thread in threads:
        thread.join()
    assert got == [5, 5]
    assert future.result(0) == 5


def test_result_on_a_loop_thread_is_given_if_it_is_there_and_never_waited_for(
    loop_world: World,
) -> None:
    async def body() -> None:
        future = Future[int]()
        with pytest.raises(RuntimeError, match="await"):
            future.result()
        future.set_result(1)
        assert future.result() == 1
        assert future.result(0) == 1

    loop_world.run(body)


def test_a_wait_that_ends_early_leaves_the_future_alone(world: World) -> None:
    async def body() -> None:
        future = Future[int]()
        with pytest.raises(TimeoutError):
            await future.wait().within(0.001)
        with pytest.raises(WouldBlock):
            future.wait().poll()
        if world.can_cancel:
            waiting = spawn(future.wait)
            await settle(lambda: future.statistics().waiting == 1)
            waiting.cancel()
            await waiting.join()
            assert waiting.cancelled
        assert not future.done()
        assert future.statistics().waiting == 0
        future.set_result(1)
        assert await future == 1

    world.run(body)


# ----------------------------------------------------------------- cancel
def test_cancel_ends_it_with_an_ordinary_exception(world: World) -> None:
    async def body() -> None:
        future = Future[int](name="answer")
        waiting = spawn(future.wait)
        await settle(lambda: future.statistics().waiting == 1)
        assert future.cancel() is True
        with pytest.raises(FutureCancelled, match="'answer'"):
            await waiting.wait()
        assert future.cancelled()
        assert future.done()
        assert future.cancel() is False
        with pytest.raises(concurrent.futures.CancelledError):
            await future
        assert isinstance(future.exception(), Exception)

    world.run(body)


# ----------------------------------------------------------------- callbacks
def test_done_callbacks_are_called_once_in_order_by_whoever_sets_it() -> None:
    for end in ("set_result", "set_exception", "cancel"):
        future = Future[int]()
        calls: list[object] = []
        future.add_done_callback(lambda f, calls=calls: calls.append((1, f)))
        future.add_done_callback(lambda f, calls=calls: calls.append((2, threading.get_ident())))
        thread = threading.Thread(
            target=lambda future=future, end=end: getattr(future, end)(
                *{"set_result": (1,), "set_exception": (OSError(),), "cancel": ()}[end]
            )
        )
        thread.start()
        ident = thread.ident
        thread.join()
        assert calls == [(1, future), (2, ident)]


def test_a_done_callback_added_late_is_called_at_once() -> None:
    future = Future[int]()
    future.set_result(1)
    calls: list[Future[int]] = []
    future.add_done_callback(calls.append)
    assert calls == [future]


def test_a_done_callback_may_use_the_future_itself() -> None:
    future = Future[int]()
    seen: list[object] = []

    def callback(f: Future[int]) -> None:
        seen.append((f.result(), f.cancel(), f.done()))
        f.add_done_callback(lambda g: seen.append(g is f))

    future.add_done_callback(callback)
    future.set_result(3)
    assert seen == [(3, False, True), True]


def test_an_error_in_a_done_callback_goes_to_the_unraisable_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(args.exc_value))
    future = Future[int]()
    calls: list[Future[int]] = []
    future.add_done_callback(lambda f: 1 // 0)
    future.add_done_callback(calls.append)
    future.set_result(1)
    assert calls == [future]
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_an_error_that_refuses_attributes_goes_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Immutable(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError("immutable")

    def fail(_: object) -> None:
        raise Immutable

    errors: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(args.exc_value))
    future = Future[int]()
    future.add_done_callback(fail)
    future.set_result(1)
    assert [type(error) for error in errors] == [Immutable]


def test_callbacks_added_while_it_is_being_set_are_called_once_each() -> None:
    for _ in range(50):
        future = Future[int]()
        calls: list[int] = []
        barrier = threading.Barrier(3)

        async def add(first: int, future: Any = future, calls: Any = calls, b: Any = barrier) -> None:
            b.wait()
            for n in range(first, first + 20):
                future.add_done_callback(lambda _, n=n: calls.append(n))

        async def put(future: Any = future, b: Any = barrier) -> None:
            b.wait()
            future.set_result(1)

        run_together(*[(ALL["threads"], *part) for part in ((add, 0), (add, 20), (put,))])
        assert sorted(calls) == list(range(40))


# ----------------------------------------------------------------- concurrent.futures
def test_to_concurrent_ends_as_the_future_does() -> None:
    future = Future[int]()
    other = future.to_concurrent()
    assert not other.done()
    future.set_result(1)
    assert other.result(0) == 1
    assert future.to_concurrent().result(0) == 1
    failed = Future[int]()
    other = failed.to_concurrent()
    failed.set_exception(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        other.result(0)


def test_to_concurrent_of_a_cancelled_future_is_cancelled() -> None:
    future = Future[int]()
    early = future.to_concurrent()
    future.cancel()
    for other in (early, future.to_concurrent()):
        assert other.done()
        assert other.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            other.result(0)
        done, _ = concurrent.futures.wait([other], timeout=20)
        assert done == {other}


def test_cancelling_what_to_concurrent_gave_cancels_the_future() -> None:
    future = Future[int]()
    other = future.to_concurrent()
    assert other.cancel() is True
    assert future.cancelled()
    done, _ = concurrent.futures.wait([other], timeout=20)
    assert done == {other}


def test_to_concurrent_serves_wait_and_as_completed() -> None:
    futures = [Future[int]() for _ in range(3)]
    others = [future.to_concurrent() for future in futures]
    futures[1].set_result(1)
    done, pending = concurrent.futures.wait(others, 20, concurrent.futures.FIRST_COMPLETED)
    assert (done, len(pending)) == ({others[1]}, 2)
    for n in (0, 2):
        futures[n].set_result(n)
    assert sorted(f.result() for f in concurrent.futures.as_completed(others, 20)) == [0, 1, 2]


def test_from_concurrent_ends_as_the_other_does(world: World) -> None:
    async def body() -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await Future[int].from_concurrent(pool.submit(lambda: 6 * 7)) == 42
            with pytest.raises(ZeroDivisionError):
                await Future[int].from_concurrent(pool.submit(lambda: 1 // 0))
            done = pool.submit(int)
            done.result()
            assert await Future[int].from_concurrent(done) == 0

    world.run(body)


def test_cancellation_passes_both_ways_between_a_future_and_the_one_it_follows() -> None:
    other: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = Future[int].from_concurrent(other)
    other.cancel()
    assert future.cancelled()
    other = concurrent.futures.Future()
    future = Future[int].from_concurrent(other)
    assert future.cancel() is True
    assert other.cancelled()
    other = concurrent.futures.Future()
    other.set_running_or_notify_cancel()  # it can no longer be cancelled
    future = Future[int].from_concurrent(other)
    future.cancel()
    other.set_result(1)
    assert future.cancelled()


# ----------------------------------------------------------------- asyncio
def test_to_asyncio_is_a_future_of_the_running_loop() -> None:
    async def main() -> None:
        future, failing, cancelled = Future[int](), Future[int](), Future[int]()
        other = future.to_asyncio()
        assert asyncio.isfuture(other)
        threading.Thread(target=future.set_result, args=(1,)).start()
        assert await asyncio.wait_for(other, 20) == 1
        assert await future.to_asyncio() == 1
        broken = failing.to_asyncio()
        failing.set_exception(OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            await broken
        lost = cancelled.to_asyncio()
        cancelled.cancel()
        await asyncio.wait([lost])
        assert lost.cancelled()

    asyncio.run(main(), debug=True)


def test_cancelling_what_to_asyncio_gave_cancels_the_future() -> None:
    async def main() -> None:
        future = Future[int]()
        other = future.to_asyncio()
        other.cancel()
        with pytest.raises(FutureCancelled):
            await future.wait().within(20)

    asyncio.run(main(), debug=True)


def test_from_asyncio_is_waited_for_in_other_worlds(world: World) -> None:
    given: list[Future[int]] = []

    async def loop() -> None:
        mine = asyncio.get_running_loop().create_future()
        given.append(Future[int].from_asyncio(mine))
        await settle(lambda: given[0].statistics().waiting == 1)
        mine.set_result(7)

    async def wait() -> int:
        await settle(lambda: given)
        return await given[0]

    assert run_together((ALL["asyncio-debug"], loop), (world, wait))[1] == 7


def test_from_asyncio_passes_errors_and_cancellation() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        failing = loop.create_future()
        future = Future[int].from_asyncio(failing)
        failing.set_exception(OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            await future
        task = asyncio.create_task(asyncio.sleep(3600))
        following = Future[None].from_asyncio(task)
        task.cancel()
        with pytest.raises(FutureCancelled):
            await following
        task = asyncio.create_task(asyncio.sleep(3600))
        following = Future[None].from_asyncio(task)
        thread = threading.Thread(target=following.cancel)
        thread.start()
        with pytest.raises(asyncio.CancelledError):
            await task
        thread.join()

    asyncio.run(main(), debug=True)


# ----------------------------------------------------------------- promises
def test_a_promise_kept_is_a_result_or_an_error(world: World) -> None:
    async def body() -> None:
        promise, future = open_future(name="answer")
        waiting = spawn(future.wait)
        promise.set_result(1)
        assert await waiting.wait() == 1
        with pytest.raises(InvalidStateError):
            promise.set_result(2)
        promise, future = open_future()
        promise.set_exception(OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            await future

    world.run(body)


def test_a_promise_dropped_unset_breaks_the_future_for_those_who_wait(world: World) -> None:
    async def body() -> None:
        promise, future = open_future(name="answer")
        assert "answer" in repr(promise)
        waiters = [spawn(future.wait), spawn(select, never(), future)]
        await settle(lambda: future.statistics().waiting == 2)
        del promise
        gc.collect()
        for waiter in waiters:
            with pytest.raises(BrokenFuture, match="'answer'") as caught:
                await waiter.wait()
            assert isinstance(caught.value, ChannelError)
        with pytest.raises(BrokenFuture):
            future.result()

    world.run(body)


def test_a_promise_dropped_after_its_future_was_cancelled_says_nothing() -> None:
    promise, future = open_future()
    future.cancel()
    del promise
    gc.collect()
    assert future.cancelled()


def test_repr_tells_name_and_state() -> None:
    future = Future[int](name="answer")
    assert repr(future) == "<Future 'answer' pending>"
    future.set_result(1)
    assert repr(future) == "<Future 'answer' done>"
    cancelled = Future[int]()
    cancelled.cancel()
    assert "cancelled" in repr(cancelled)
