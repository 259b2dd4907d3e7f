"""fork: the child can use what it inherited at once, whoever waited stays with the parent.

The child of a fork has one thread. Locks that other threads held at that moment would stay held for ever there, and
the waiters of those threads and loops can never be woken: the child gets fresh locks and forgets the waiters. The
parent notices nothing.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import select as polling
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from elsewhere import Elsewhere
from worlds import settle_here

import chanlib
from chanlib import Channel, ChannelEmpty, Event, Future, WouldBlock, select

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PACKAGE = os.path.dirname(os.path.abspath(chanlib.__file__)) + os.sep


@contextmanager
def forking() -> Iterator[None]:
    """From 3.12 on CPython warns when a process with several threads forks. That is what these tests are about."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r".*use of fork\(\) may lead to deadlocks", category=DeprecationWarning
        )
        yield


def in_child(body: Callable[[], Any]) -> Any:
    """What `body()` returns in a forked child, by way of JSON. A child that hangs is killed."""
    reading, writing = os.pipe()
    with forking():
        pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            try:
                answer = {"result": body()}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        parts = []
        while True:
            ready, _, _ = polling.select([reading], [], [], 40)
            assert ready, "the child hangs"
            part = os.read(reading, 65536)
            if not part:
                break
            parts.append(part)
    finally:
        os.close(reading)
        _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child was killed: it hung, or crashed (status {status})"
    answer = json.loads(b"".join(parts))
    assert "error" not in answer, answer["error"]
    return answer["result"]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def use(channel: Channel[int], event: Event, future: Future[int]) -> list[Any]:
    """What a child does with what it inherited: everything must work at once, from all worlds."""
    seen: list[Any] = []
    seen.append(channel.statistics()[2:4])
    seen.append(event.statistics().waiting)
    seen.append(future.statistics().waiting)
    channel.send_nowait(101)
    channel.send_nowait(102)
    seen.append(channel.statistics().buffered)
    seen.append(channel.receive().sync(timeout=20))
    seen.append(asyncio.run(_receive(channel)))
    parked = Elsewhere(lambda: channel.receive().sync(timeout=20))
    settle_here(lambda: channel.statistics().waiting_receivers == 1)
    channel.send(103).sync(timeout=20)
    seen.append(parked.join())
    waiting = Elsewhere(lambda: (event.wait().sync(timeout=20), future.result(timeout=20)))
    settle_here(lambda: event.statistics().waiting == 1)
    event.set()
    future.set_result(104)
    seen.append(waiting.join())
    seen.append(channel.close())
    return seen


async def _receive(channel: Channel[int]) -> int:
    return (await select(channel.receive(), Event()))[1]  # type: ignore[return-value]


USED = [[0, 0], 0, 0, 2, 101, 102, 103, [None, 104], True]


def test_a_child_uses_what_it_inherited_and_wakes_nobody_of_the_parent(
    loop: asyncio.AbstractEventLoop,
) -> None:
    channel: Channel[int] = Channel(2)
    event = Event()
    future: Future[int] = Future()

    async def choose() -> Any:
        return await select(channel.receive(), event)

    async def receive() -> int:
        return await channel.receive()

    threads = [
        Elsewhere(lambda: channel.receive().sync(timeout=40)),
        Elsewhere(lambda: event.wait().sync(timeout=40)),
        Elsewhere(lambda: future.result(timeout=40)),
    ]
    settle_here(lambda: channel.statistics().waiting_receivers == 1)
    first = asyncio.run_coroutine_threadsafe(receive(), loop)
    settle_here(lambda: channel.statistics().waiting_receivers == 2)
    second = asyncio.run_coroutine_threadsafe(choose(), loop)
    settle_here(lambda: channel.statistics().waiting_receivers == 3)
    settle_here(lambda: event.statistics().waiting == 2 and future.statistics().waiting == 1)

    assert in_child(lambda: use(channel, event, future)) == USED

    # the parent goes on as if nothing had been
    assert channel.statistics()[1:4] == (0, 0, 3)
    assert (event.statistics().waiting, future.statistics().waiting) == (2, 1)
    for value in (1, 2, 3):
        channel.send_nowait(value)
    assert threads[0].join() == 1
    assert first.result(20) == 2
    assert second.result(20) == (0, 3)
    event.set()
    future.set_result(4)
    assert threads[1].join() is None
    assert threads[2].join() == 4
    assert channel.statistics()[1:4] == (0, 0, 0)


def test_a_child_inherits_what_is_buffered_but_not_the_values_of_parked_senders() -> None:
    channel: Channel[int] = Channel(2)
    channel.send_nowait(1)
    channel.send_nowait(2)
    parked = Elsewhere(lambda: channel.send(3).sync(timeout=40))
    settle_here(lambda: channel.statistics().waiting_senders == 1)

    def body() -> Any:
        waiting = channel.statistics().waiting_senders
        return waiting, channel.drain(), channel.statistics().buffered

    assert in_child(body) == [0, [1, 2], 0]
    assert channel.statistics().waiting_senders == 1
    assert [channel.receive_nowait() for _ in range(3)] == [1, 2, 3]
    assert parked.join() is None


def test_a_rendezvous_in_a_child_does_not_meet_a_thread_of_the_parent() -> None:
    channel: Channel[int] = Channel(0)
    parked = Elsewhere(lambda: channel.receive().sync(timeout=40))
    settle_here(lambda: channel.statistics().waiting_receivers == 1)

    def body() -> str:
        try:
            channel.send(1).poll()
        except WouldBlock:
            return "nobody there"
        return "sent"

    assert in_child(body) == "nobody there"
    channel.send_nowait(2)
    assert parked.join() == 2


def test_the_end_of_a_channel_in_a_child_is_not_felt_by_the_parent() -> None:
    channel: Channel[int] = Channel(1)
    parked = [
        Elsewhere(lambda: channel.receive().sync(timeout=40)),
        Elsewhere(lambda: channel.wait_closed().sync(timeout=40)),
    ]
    settle_here(lambda: channel.statistics().waiting_receivers == 1)

    def body() -> Any:
        closed = channel.close()
        channel.wait_closed().sync(timeout=20)
        return closed, channel.is_closed, channel.statistics().waiting_receivers

    assert in_child(body) == [True, True, 0]
    assert not channel.is_closed
    channel.send_nowait(1)
    assert parked[0].join() == 1
    channel.close()
    assert parked[1].join() is None


# ----------------------------------------------------------------- a lock held at the moment of the fork
class Standing:
    """A thread that performs `operate` and stands still at its bytecode number `at` inside the package."""

    def __init__(self, at: int, operate: Callable[[], object]) -> None:
        self.left = at
        self.operate = operate
        self.stands = False
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.arrived.wait(20)

    def run(self) -> None:
        frame = sys._getframe()
        frame.f_trace = lambda *_: None
        frame.f_trace_opcodes = True  # some versions look for this when the trace function is set
        self.keep = self.enter, self.step
        sys.settrace(self.keep[0])
        try:
            self.operate()
        finally:
            sys.settrace(None)
            self.arrived.set()

    def enter(self, frame: Any, event: str, arg: object) -> Any:
        if self.left < 0 or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace = self.keep[1]
        frame.f_trace_opcodes = True
        return self.keep[1]

    def step(self, frame: Any, event: str, arg: object) -> Any:
        if event == "opcode":
            self.left -= 1
            if self.left == -1:
                self.stands = True
                self.arrived.set()
                self.go_on.wait(60)
        return self.keep[1]

    def finish(self) -> None:
        self.go_on.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def _fork_while_somebody_stands(operation: str, stride: int) -> None:
    at = 0
    while True:
        channel: Channel[int] = Channel(3)
        event = Event()
        future: Future[int] = Future()
        channel.send_nowait(1)
        parked = Elsewhere(lambda event=event: event.wait().sync(timeout=40))
        settle_here(lambda event=event: event.statistics().waiting == 1)
        operations: dict[str, Callable[[], object]] = {
            "send": lambda channel=channel: channel.send(2).sync(timeout=20),
            "receive": lambda channel=channel: channel.receive_nowait(),
            "select": lambda channel=channel, event=event: select(event, channel.receive()).sync(20),
            "event": event.set,
            "future": lambda future=future: future.set_result(5),
        }
        standing = Standing(at, operations[operation])

        def body(channel: Channel[int] = channel, event: Event = event, future: Future[int] = future) -> Any:
            found = channel.drain()
            waiting = channel.statistics()[2:4], event.statistics().waiting
            event.set()
            event.wait().sync(timeout=20)
            if not future.done():
                future.set_result(6)
            channel.send(7).sync(timeout=20)
            return found, waiting, select(channel.receive(), Event()).sync(timeout=20), future.result(0)

        try:
            found, waiting, chosen, result = in_child(body)
        finally:
            standing.finish()
        note = f"forked at step {at}"
        # in the child the operation has been done, or not, or it has taken its value with it
        assert found in ([1], [1, 2], []), note
        assert found != [] or operation in ("receive", "select"), note
        assert found != [1, 2] or operation == "send", note
        assert waiting == [[0, 0], 0], note
        assert chosen == [0, 7], note
        assert result in (5, 6), note
        # in the parent it has been done
        event.set()
        assert parked.join() is None
        expected = {"send": [1, 2], "receive": [], "select": []}.get(operation, [1])
        assert channel.drain() == expected, note
        if not standing.stands:
            return
        at += stride


@pytest.mark.parametrize("operation", ["send", "receive", "select", "event", "future"])
def test_a_fork_while_another_thread_is_in_the_middle_of_an_operation(operation: str) -> None:
    _fork_while_somebody_stands(operation, 37)


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("operation", ["send", "receive", "select", "event", "future"])
def test_a_fork_at_any_bytecode_of_an_operation_of_another_thread(operation: str) -> None:
    _fork_while_somebody_stands(operation, 2)


def _fork_in_a_storm(forks: int) -> None:
    channel: Channel[int] = Channel(4)
    event = Event()
    stop = threading.Event()
    received: list[list[int]] = [[], []]

    def produce() -> None:
        number = 0
        while not stop.is_set():
            channel.send(number).sync(timeout=40)
            number += 1
            event.set()
            event.clear()
        channel.close()

    def consume(mine: list[int]) -> None:
        mine.extend(channel)

    threads = [Elsewhere(produce), *(Elsewhere(lambda mine=mine: consume(mine)) for mine in received)]
    settle_here(lambda: all(received))

    def body() -> Any:
        channel.drain()
        waiting = channel.statistics()[2:4]
        for number in range(10):
            channel.send(number).sync(timeout=20)
            if channel.receive().sync(timeout=20) != number:
                return "wrong"
        event.set()
        event.wait().sync(timeout=20)
        return waiting

    try:
        for _ in range(forks):
            assert in_child(body) == [0, 0]
    finally:
        stop.set()
    for thread in threads:
        assert thread.join() is None
    numbers = sorted(received[0] + received[1])
    assert numbers == list(range(len(numbers)))


def test_forks_in_the_middle_of_busy_threads_give_children_that_work() -> None:
    _fork_in_a_storm(15)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_many_forks_in_the_middle_of_busy_threads_give_children_that_work() -> None:
    _fork_in_a_storm(500)


# ----------------------------------------------------------------- forked by loops
def test_a_task_of_asyncio_may_fork_and_the_child_may_run_a_loop_of_its_own() -> None:
    channel: Channel[int] = Channel(1)
    event = Event()
    future: Future[int] = Future()

    async def main() -> list[Any]:
        waiting = [asyncio.create_task(channel.receive()), asyncio.create_task(event.wait())]
        await asyncio.sleep(0)
        assert channel.statistics().waiting_receivers == 1

        def body() -> Any:
            answers: list[Any] = []
            # the thread that forked runs a loop; another one of the child does not
            parked = Elsewhere(lambda: _plain(channel, event))
            answers.append(parked.join())
            return answers

        child = in_child(body)
        channel.send_nowait(1)
        event.set()
        return [child, await asyncio.wait_for(asyncio.gather(*waiting), 20)]

    assert asyncio.run(main()) == [[[0, 0, 5, 6]], [1, None]]
    assert not future.done()


def _plain(channel: Channel[int], event: Event) -> list[Any]:
    seen: list[Any] = [channel.statistics().waiting_receivers, event.statistics().waiting]
    channel.send_nowait(5)
    seen.append(channel.receive().sync(timeout=20))
    channel.send_nowait(6)
    seen.append(asyncio.run(_receive(channel)))
    return seen


def test_a_task_of_trio_may_fork() -> None:
    channel: Channel[int] = Channel(1)
    event = Event()

    async def main() -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive)
            nursery.start_soon(event.wait)
            await trio.testing.wait_all_tasks_blocked()
            child = in_child(lambda: Elsewhere(lambda: _plain(channel, event)).join())
            channel.send_nowait(1)
            event.set()
        return child

    assert trio.run(main) == [0, 0, 5, 6]
    assert channel.statistics()[1:4] == (0, 0, 0)


# ----------------------------------------------------------------- multiprocessing
def _work(channel: Channel[int], event: Event, answers: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(30)
    waiting = (*channel.statistics()[2:4], event.statistics().waiting)
    channel.send_nowait(8)
    event.set()
    answers.send((waiting, channel.receive().sync(timeout=20), event.wait().poll()))
    answers.close()


def test_a_process_of_multiprocessing_may_use_what_it_inherited() -> None:
    context = multiprocessing.get_context("fork")
    channel: Channel[int] = Channel(1)
    event = Event()
    parked = [
        Elsewhere(lambda: channel.receive().sync(timeout=40)),
        Elsewhere(lambda: event.wait().sync(timeout=40)),
    ]
    settle_here(lambda: bool(channel.statistics().waiting_receivers and event.statistics().waiting))
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(channel, event, writing))
    with forking():
        process.start()
    writing.close()
    try:
        assert reading.poll(40), "the child hangs"
        assert reading.recv() == ((0, 0, 0), 8, None)
    finally:
        process.join(30)
        reading.close()
    assert process.exitcode == 0
    process.close()
    channel.send_nowait(1)
    event.set()
    assert [thread.join() for thread in parked] == [1, None]
    with pytest.raises(ChannelEmpty):
        channel.receive_nowait()
