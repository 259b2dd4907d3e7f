"""Groups and scopes where somebody else comes in between: a signal handler, a sibling that closes its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from chanlib import CancelScope, Event, TaskGroup, TaskHandle, checkpoint, children, open_channel, run, scopes, sleep
from chanlib._core import backend_threads


@pytest.fixture
def handled() -> Iterator[signal.Signals]:
    """A signal whose handler may be changed."""
    before = signal.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.kill")
@pytest.mark.parametrize("backend", ["asyncio", "trio", "threads"])
def test_a_signal_handler_may_cancel_a_group_whose_loop_sleeps(backend: str, handled: signal.Signals) -> None:
    helped = Event()

    def interrupt() -> None:
        while not helped.statistics().waiting:
            time.sleep(0.001)
        time.sleep(0.1)  # it is parked; the loop has yet to fall asleep, which nobody can see
        os.kill(os.getpid(), handled)
        if not over.wait(1):
            helped.set()

    async def main() -> None:
        async with TaskGroup() as group:
            signal.signal(handled, lambda *_: group.cancel("a signal"))
            await helped.wait()

    over = threading.Event()
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        run(main, backend=backend)  # type: ignore[arg-type]
    finally:
        over.set()
        helper.join()
    assert not helped.is_set()


def test_a_scope_that_is_cancelled_from_within_wait_cancelled_does_not_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scope = CancelScope()

    class Interrupted(scopes._Over):
        """Stands for a signal handler, or a finalizer, that runs while it is made."""

        def __init__(self, of: CancelScope) -> None:
            of.cancel()
            super().__init__(of)

    monkeypatch.setattr(scopes, "_Over", Interrupted)
    asking = threading.Thread(target=lambda: scope.wait_cancelled().poll(), daemon=True)
    asking.start()
    asking.join(1)
    assert not asking.is_alive()


@pytest.mark.parametrize("backend", ["asyncio", "trio", "threads"])
def test_a_group_that_is_only_cancelled_ends_without_an_error_whatever_its_children_close(backend: str) -> None:
    async def once() -> None:
        tx, rx = open_channel[int](0)

        async def produce() -> None:
            with tx:
                await Event().wait()

        async def consume() -> None:
            with rx:
                async for _ in rx:
                    pass

        async with TaskGroup() as group:
            group.start_soon(produce)
            group.start_soon(consume)
            while not rx.statistics().waiting_receivers:
                await sleep(0.001)
            group.cancel()

    for _ in range(100):
        run(once, backend=backend)  # type: ignore[arg-type]


def test_an_idle_thread_does_not_bear_the_name_of_a_child_that_has_ended() -> None:
    with TaskGroup() as group:
        group.start_thread(lambda: None, name="a child")
    end = time.monotonic() + 1
    while any(thread.name == "a child" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_a_place_that_spawn_gives_back_goes_to_who_is_queued(backend: Any, how: str) -> None:
    async def main() -> str:
        gate = Event()

        async def first() -> None:
            await gate.wait()

        async def spawner() -> None:
            wrong: Any = len
            with pytest.raises(TypeError) if how == "refused" else nullcontext():
                await (group.spawn(wrong, "") if how == "refused" else group.spawn(sleep, 0))

        async def ender() -> None:
            await gate.wait()
            queued.append(group.start_soon(give))  # the spawner has just got the place, or is about to
            if how == "cancelled":
                spawning.cancel()

        async def give() -> str:
            return "ran"

        queued: list[TaskHandle[str]] = []
        async with TaskGroup(limit=1) as group, TaskGroup() as others:
            group.start_soon(first)
            spawning = others.start_soon(spawner)
            while not group._waiting():
                await checkpoint()
            others.start_soon(ender)
            gate.set()
        return await queued[0]

    assert run(main, backend=backend) == "ran"


def test_a_long_queue_is_cancelled_without_a_deep_stack(backend: Any) -> None:
    async def main() -> None:
        ran: list[int] = []

        async def work() -> None:
            ran.append(1)

        async with TaskGroup(limit=1) as group:
            group.start_soon(Event().wait)
            handles = [group.start_soon(work) for _ in range(3 * sys.getrecursionlimit())]
            await sleep(0)
            group.cancel()
        assert all(handle.cancelled for handle in handles)
        assert not ran

    run(main, backend=backend)


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Sealed(ExceptionGroup[Exception]):
    def split(self, *_: Any) -> Any:
        raise RuntimeError("not to be split")


@pytest.mark.parametrize("error", [Falsy(), Sealed("sealed", [ValueError()])], ids=["falsy", "sealed"])
def test_errors_with_a_mind_of_their_own(backend: Any, error: Exception) -> None:
    async def bad() -> None:
        raise error

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(bad)

    with pytest.raises(ExceptionGroup) as caught:
        run(main, backend=backend)
    (one,) = caught.value.exceptions
    assert one is error or (
        isinstance(one, ExceptionGroup) and one.exceptions == error.exceptions
    )  # trio's scopes copy


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_that_cuts_the_start_of_a_thread(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """The child either runs, and is cancelled and waited for, or never runs."""
    original = backend_threads.start_thread
    ran: list[str] = []

    def cut(job: Any, name: str) -> None:
        if begun:
            original(job, name)
            while not ran:
                time.sleep(0.001)
        monkeypatch.undo()
        raise KeyboardInterrupt

    def child() -> None:
        ran.append("begun")
        try:
            Event().wait().sync()
        finally:
            ran.append("ended")

    monkeypatch.setattr(backend_threads, "start_thread", cut)
    with pytest.raises(BaseExceptionGroup) as caught, TaskGroup() as group:
        group.start_thread(child)
    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt]
    assert ran == (["begun", "ended"] if begun else [])
    assert len(group) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_leave_a_group_whose_threads_live_in_the_parent() -> None:
    stop = Event()
    with TaskGroup() as group:
        group.start_thread(stop.wait().sync)
        child = os.fork()
        if child == 0:
            try:
                run_to_the_end = len(group) == 0
            finally:
                os._exit(0 if run_to_the_end else 1)
        assert os.waitpid(child, 0)[1] == 0
        stop.set()


def test_a_task_that_attends_a_thread_can_be_closed() -> None:
    """As when its loop is closed under it: it does not wait then, and the thread is cancelled."""
    event = Event()

    async def main() -> None:
        attending = children.attend(children.Job(event.wait().sync, ()), "a child", CancelScope(), False)
        attending.send(None)
        while not event.statistics().waiting:
            await checkpoint()
        attending.close()

    run(main, backend="asyncio")
    end = time.monotonic() + 20
    while event.statistics().waiting:
        assert time.monotonic() < end
        time.sleep(0.001)
