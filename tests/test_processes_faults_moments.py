"""What happens in the midst of an operation between processes: a close, a fork, the end of its loop, a death.

Cases 9, 23 and 42 of the notes on processes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from elsewhere import Elsewhere, once_parked
from process_jobs_faults import Tell, forked

from chanlib import HandleClosed

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SOON = 5.0  # seconds: a safety net
FORKS = 20
VALUES = 50  # that each process sends


# ===================================================================== a close
class Closing:
    """It closes an end while it is pickled."""

    def __init__(self, end: Any) -> None:
        self.end = end

    def __reduce__(self) -> Any:
        assert self.end.close()
        return int, ()


@pytest.mark.parametrize("some", [False, True], ids=["send", "send_some"])
def test_an_end_that_is_closed_while_its_value_is_pickled_sends_nothing(opened: Any, some: bool) -> None:
    tx, rx = opened(3)
    spare = tx.clone()
    with pytest.raises(HandleClosed):
        (tx.send_some([1, Closing(tx)]) if some else tx.send(Closing(tx))).sync(timeout=SOON)
    assert not tx.close()
    with pytest.raises(HandleClosed):
        tx.send_nowait(1)
    assert len(rx) == 0
    spare.send_nowait(2)
    assert rx.receive_nowait() == 2
    spare.close()


def test_an_end_that_is_closed_while_a_send_waits_sends_nothing(opened: Any) -> None:
    tx, rx = opened(1)
    spare = tx.clone()
    tx.send_nowait(1)
    side = once_parked(tx, tx.close)
    with pytest.raises(HandleClosed):
        tx.send(2).sync(timeout=SOON)
    assert side.join()
    assert not tx.close()
    assert rx.drain() == [1]
    spare.close()


def test_a_close_beside_sends_of_other_threads_leaves_a_beginning(opened: Any) -> None:
    """Each of them sends until it is told; what is received of each are its first values, and none twice."""
    tx, rx = opened(1000)
    sent = [0] * 3

    def send(who: int) -> None:
        try:
            while True:
                tx.send((who, sent[who])).sync(timeout=SOON)
                sent[who] += 1
        except HandleClosed:
            pass

    with rx:
        sides = [Elsewhere(send, who) for who in range(3)]
        got = [rx.receive().sync(timeout=SOON) for _ in range(500)]
        tx.close()
        got += rx
        for side in sides:
            side.join()
    for who in range(3):
        assert [number for other, number in got if other == who] == list(range(sent[who]))


# ===================================================================== a fork
@forks
@pytest.mark.parametrize("make", [int, lambda number: b"x" * (number % 7) * 100 or number], ids=["small", "wrapping"])
def test_a_process_that_is_forked_while_another_thread_sends_can_send_and_receive(
    opened: Any, make: Callable[[int], Any]
) -> None:
    """The locks that a fork finds taken are not taken in the child, and nothing of what is sent is lost or doubled."""
    tx, rx = opened(10, buffer_bytes=2000)
    back, answers = opened(10)
    enough = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not enough.is_set():
            tx.send((0, sent, make(sent))).sync(timeout=SOON)
            sent += 1
        tx.close()

    sends, receives = Elsewhere(send), Elsewhere(lambda: list(rx))
    got: list[Any] = []
    for who in range(1, FORKS + 1):

        def body(tell: Tell, who: int = who) -> None:
            with tx, rx, back:
                for number in range(VALUES):
                    tx.send((who, number, make(number))).sync(timeout=SOON)
                back.send([rx.receive().sync(timeout=SOON) for _ in range(5)]).sync(timeout=SOON)

        with forked(body) as child:
            got += answers.receive().sync(timeout=SOON)
            assert child.wait() == 0
    enough.set()
    sends.join()
    got += receives.join()
    for who in range(FORKS + 1):
        mine = sorted((number, value) for other, number, value in got if other == who)
        count = VALUES if who else sent
        assert [number for number, _ in mine] == list(range(count))
        assert [value for _, value in mine] == [make(number) for number in range(count)]


# ===================================================================== the end of a loop
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("full", [False, True], ids=["receive", "send"])
def test_a_loop_that_is_closed_while_a_task_waits_takes_nothing_along(opened: Any, kind: str, full: bool) -> None:
    tx, rx = opened(1)
    loop: Any = pytest.importorskip(kind).new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending", on purpose
    if full:
        tx.send_nowait(1)

    async def wait() -> None:
        await (tx.send(2) if full else rx.receive())

    task = loop.create_task(wait())
    statistics = tx.statistics if full else rx.statistics

    async def until_it_waits() -> None:
        while statistics().waiting_senders + statistics().waiting_receivers == 0:
            await asyncio.sleep(0)

    loop.run_until_complete(until_it_waits())
    loop.close()
    del task
    if full:
        assert rx.receive_nowait() == 1
    for value in range(10, 20):
        tx.send(value).sync(timeout=SOON)
        assert rx.receive().sync(timeout=SOON) == value
    assert len(rx) == 0


# ===================================================================== an end that goes
@forks
def test_an_end_can_be_pickled_while_others_send(opened: Any) -> None:
    """Where the locks are those of a file, a descriptor of it that is closed must not let go of them."""
    tx, rx = opened(1000)

    def body(tell: Tell, who: int) -> None:
        tell("ready")
        with tx, rx:
            enough = threading.Event()

            def pickle_them() -> None:
                while not enough.is_set():
                    pickle.loads(pickle.dumps(tx)).close()

            side = Elsewhere(pickle_them)
            for number in range(2000):
                tx.send((who, number, b"x" * (number % 300))).sync(timeout=SOON)
            enough.set()
            side.join()

    with forked(lambda tell: body(tell, 0)) as first, forked(lambda tell: body(tell, 1)) as second:
        first.says(), second.says()
        tx.close()
        got = list(rx)
        assert (first.wait(), second.wait()) == (0, 0)
    for who in range(2):
        assert [number for other, number, _ in got if other == who] == list(range(2000))
    assert all(len(value) == number % 300 for _, number, value in got)


@forks
def test_a_process_that_is_forked_may_drop_a_send_of_its_parent(opened: Any) -> None:
    """An end inside of it is still on its way, for the parent."""
    tx, rx = opened(1)
    inner, receives = opened(10)
    tx.send_nowait(0)
    op = tx.send(inner)
    with pytest.raises(TimeoutError):
        op.sync(timeout=0)
    senders = inner.statistics().senders

    def body(tell: Tell) -> None:
        nonlocal op
        del op
        gc.collect()
        inner.send(1).sync(timeout=SOON)
        inner.close()
        tell(inner.statistics().sent)

    with forked(body) as child:
        assert child.says() == 1
        child.wait()
    assert inner.statistics().senders == senders
    assert receives.receive_nowait() == 1
    del op
    gc.collect()
    assert inner.statistics().senders == 1
    assert rx.drain() == [0]


# ===================================================================== a death
@forks
@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_the_death_of_the_other_side_is_the_end_for_who_waits_for_that(opened: Any, side: int) -> None:
    ends = opened(10)
    other, mine = ends[side], ends[1 - side]

    def body(tell: Tell) -> None:
        with other.clone():
            tell("ready")
            signal.pause()

    with forked(body) as child:
        child.says()
        other.close()
        assert not mine.is_closed
        with pytest.raises(TimeoutError):
            mine.wait_closed().sync(timeout=0)
        child.kill()
        mine.wait_closed().sync(timeout=SOON)
        assert mine.is_closed
