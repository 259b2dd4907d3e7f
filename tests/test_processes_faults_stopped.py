"""A process is stopped (SIGSTOP) in the middle of an operation, perhaps with a lock: nobody else is frozen.

Others may have to wait for it, but their loops go on, their time limits hold, and once it goes on so do they. Ends can
be made and closed meanwhile.

Case 4 of the notes on processes.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from process_jobs_faults import Tell, forked, places, struck, until

from chanlib import ChannelFull, EndOfChannel, TaskGroup, run, sleep
from chanlib.processes import open_process_channel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SOON = 10.0
LIMIT = 0.1  # seconds: a time limit that must hold
CAPACITY = 5

OPERATIONS: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda tx, rx: tx.send(b"stopped").sync(timeout=SOON),
    "receive": lambda tx, rx: rx.receive().sync(timeout=SOON),
    "close": lambda tx, rx: (tx.close(), rx.close()),
    "clone": lambda tx, rx: tx.clone().close(),
}


def meanwhile(backend: str, tx: Any, rx: Any) -> int:
    """What others do while somebody is stopped: how many of their operations were in time."""
    done = ticks = 0

    async def operations() -> None:
        nonlocal done
        for op in [tx.send(b"a"), tx.send_some([b"b"]), rx.receive(), rx.receive_some(1)]:
            began = time.monotonic()
            try:
                await op.within(LIMIT)
                done += 1
            except TimeoutError:
                pass
            assert time.monotonic() - began < SOON, "a time limit did not hold"

    async def tick() -> None:
        nonlocal ticks
        while True:
            await sleep(0.002)
            ticks += 1

    async def main() -> None:
        async with TaskGroup() as group:
            ticker = group.start_soon(tick)
            await operations()
            before = ticks
            while ticks < before + 3:  # it is not frozen
                await sleep(0.001)
            ticker.cancel()

    run(main, backend=backend)  # type: ignore[arg-type]
    if done < 4:
        assert ticks > 5, "the loop was frozen"
    return done


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "asyncio") for name in OPERATIONS), ("send", "trio"), ("receive", "threads")]
)
def test_a_process_that_is_stopped_anywhere_freezes_nobody(name: str, backend: str) -> None:
    operate = OPERATIONS[name]
    waited = 0
    for most in (12, 35, 100):  # how many places there are with a lock depends on the interpreter
        waited = waited or _stopped(operate, backend, most)
        if name in ("clone", "close"):
            return
    assert waited, "it was never stopped while it had a lock"


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["asyncio", "trio", "threads"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_process_that_is_stopped_at_any_place_at_all_freezes_nobody(name: str, backend: str) -> None:
    _stopped(OPERATIONS[name], backend, 1000)


def _stopped(operate: Callable[[Any, Any], object], backend: str, most: int) -> int:
    """At about so many places; more if the other process comes by more of them than this one would."""
    waited = at = 0
    stopped = True
    with_value = [b"there"]
    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=1024)
    with tx, rx:
        tx.send_some(with_value).poll()
        with tx.clone() as its_tx, rx.clone() as its_rx:
            count = places(operate, its_tx, its_rx)
        rx.drain()
        while stopped:
            tx.send_some(with_value).poll()

            def body(tell: Tell, at: int = at) -> None:
                mine = tx.clone(), rx.clone()
                tx.close()
                rx.close()
                struck(at, operate, *mine, number=signal.SIGSTOP)
                for one in mine:
                    one.close()

            with forked(body) as child:
                until(lambda: child.stopped() or child.status is not None, "it does not stop")
                stopped = child.status is None
                assert child.status in (None, 0), child.says()
                waited += meanwhile(backend, tx, rx) < 4
                began = time.monotonic()
                tx.clone().close()
                rx.clone().close()
                assert time.monotonic() - began < 2.0, "close() has waited"
                if stopped:
                    child.signal(signal.SIGCONT)
                assert child.wait() == 0, child.says()
            at += max(count // most, 1)
            rx.drain()
            for number in range(CAPACITY):
                tx.send(number).sync(timeout=SOON)
            with pytest.raises(ChannelFull):
                tx.send_nowait(0)
            assert [rx.receive().sync(timeout=SOON) for _ in range(CAPACITY)] == list(range(CAPACITY))
            statistics = rx.statistics()
            assert (statistics.senders, statistics.receivers) == (1, 1)
        tx.close()
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()
    return waited


@pytest.mark.stress
def test_who_cannot_join_because_somebody_is_stopped_is_told_in_the_end() -> None:
    tx, rx = open_process_channel[Any](CAPACITY)
    with tx, rx:

        def see(tell: Tell) -> None:
            with tx.clone() as its_tx, rx.clone() as its_rx:
                tx.close()
                rx.close()
                tell(places(OPERATIONS["send"], its_tx, its_rx))

        with forked(see) as child:
            count = child.says()
            assert child.wait() == 0
        rx.drain()
        at, stopped, refused = 0, True, False
        while stopped and not refused:  # it waits for long: once is enough

            def body(tell: Tell, at: int = at) -> None:
                with tx.clone() as its_tx, rx.clone() as its_rx:
                    tx.close()
                    rx.close()
                    struck(at, OPERATIONS["send"], its_tx, its_rx, number=signal.SIGSTOP)

            with forked(body) as child:
                until(lambda: child.stopped() or child.status is not None, "it does not stop")
                stopped = child.status is None
                began = time.monotonic()
                data = pickle.dumps(tx)
                try:
                    pickle.loads(data).close()
                except OSError as error:
                    assert "stopped" in str(error)  # noqa: PT017
                    refused = True
                assert time.monotonic() - began < SOON
                if stopped:
                    child.signal(signal.SIGCONT)
                assert child.wait() == 0, child.says()
            at += max(count // 35, 1)
            rx.drain()
        assert refused
        # who was refused is counted until the other side, too, has given up handing over
        until(lambda: (rx.statistics().senders, rx.statistics().receivers) == (1, 1), "too many are counted", SOON)
        tx.close()
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()
