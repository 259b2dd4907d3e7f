"""Groups and scopes where somebody else comes in between: a signal handler, a sibling that closes its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from chanlib import CancelScope, Event, TaskGroup, open_channel, run, scopes, sleep


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
