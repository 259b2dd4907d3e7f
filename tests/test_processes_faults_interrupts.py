"""KeyboardInterrupt in the middle of operations between processes: no mutex stays locked, the channel goes on, and only
the operation that was cut is in doubt. How the places are found stands in `test_interrupts`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from process_jobs_faults import Tell, forked, until
from test_interrupts import interrupted
from test_processes_faults import CAPACITY, RING, SOON, VICTIMS, Victim

from chanlib import BrokenChannel, ChannelClosed, ChannelFull, EndOfChannel
from chanlib.processes import open_process_channel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

USES = [name for name in VICTIMS if VICTIMS[name].own and name.startswith(("send", "receive", "wait"))]
USES.remove("send and receive ends")


@pytest.fixture(autouse=True)
def sigint() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():  # of what is cut before anybody has it
        warnings.filterwarnings("ignore", ".* was dropped without close", ResourceWarning)
        yield
    signal.signal(signal.SIGINT, before)


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """In another thread, which gets no lock that this one has kept."""
    result: list[Any] = []

    def live() -> None:
        try:
            result.append(fn(*args))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def audit(tx: Any, rx: Any) -> list[Any]:
    """What is inside; all goes on."""
    inside = rx.drain()
    for number in range(CAPACITY):
        tx.send(number).sync(timeout=SOON)
    with pytest.raises(ChannelFull):
        tx.send_nowait(0)
    assert [rx.receive().sync(timeout=SOON) for _ in range(CAPACITY)] == list(range(CAPACITY))
    return inside  # type: ignore[no-any-return]


def _interrupted_everywhere(victim: Victim, step: int) -> None:
    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=RING)
    with tx, rx:
        elsewhere(audit, tx, rx)
        reached = True
        at = random.randrange(step)
        while reached:
            tx.send_some(victim.inside).poll()
            outcome = interrupted(at, lambda: victim.operate(tx, rx))
            inside = elsewhere(audit, tx, rx)
            assert victim.right(inside), f"place {at}, {outcome.where}: {inside}"
            statistics = rx.statistics()
            assert (statistics.senders, statistics.receivers) == (1, 1), f"place {at}, {outcome.where}"
            reached = outcome.reached
            at += step
        tx.close()
        with pytest.raises(EndOfChannel):
            elsewhere(rx.receive_nowait)


@pytest.mark.parametrize("name", USES)
def test_an_interrupt_anywhere_leaves_the_channel_in_order(name: str) -> None:
    _interrupted_everywhere(VICTIMS[name], 71 if name.startswith("wait") else 11)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", USES)
def test_an_interrupt_at_any_place_at_all_leaves_the_channel_in_order(name: str) -> None:
    _interrupted_everywhere(VICTIMS[name], 1)


def test_an_end_that_was_being_made_when_the_interrupt_came_does_not_count() -> None:
    """If it was there already, and nobody has taken it, it was dropped without close(), which breaks the stream."""
    reached, at = True, random.randrange(7)
    while reached:
        tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=RING)
        with tx, rx, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            outcome = interrupted(at, lambda tx=tx: tx.clone().close())
            assert rx.statistics().senders == 1, f"place {at}, {outcome.where}"
            tx.close()
            with pytest.raises((EndOfChannel, BrokenChannel)):
                elsewhere(rx.receive_nowait)
        reached = outcome.reached
        at += 7


def _bursts(sends: bool, count: int) -> None:
    """A process is interrupted again and again; who is on the other side sees only what was in doubt to be missing."""
    tx, rx = open_process_channel[int](CAPACITY)

    def body(tell: Tell) -> None:
        cuts = 0

        armed = False

        def cut(*_: object) -> None:
            nonlocal cuts, armed
            if armed:  # there is somebody to catch it
                armed = False
                cuts += 1
                raise KeyboardInterrupt

        sys.unraisablehook = type  # says nothing of an interrupt in a finalizer
        mine = tx.clone() if sends else rx.clone()
        tx.close()
        rx.close()
        got: list[int] = []
        doubtful: list[int] = []
        number = done = -1
        over = False
        signal.signal(signal.SIGINT, cut)
        told = False
        while not over:
            try:
                armed = True
                if not told:
                    told = True
                    tell("ready")
                while True:
                    if sends:
                        if done != number:
                            doubtful.append(number)
                        done = number
                        number += 1
                        mine.send(number).sync()
                        done = number
                    else:
                        one = mine.receive().sync()
                        got.append(one)
                    armed = True
            except KeyboardInterrupt:
                pass
            except ChannelClosed:
                armed = False
                over = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tell({"got": got, "doubtful": doubtful, "cuts": cuts})

    with tx, rx, forked(body, 600) as child:
        assert child.says() == "ready"
        (rx if not sends else tx).close()
        received: list[int] = []
        sent = 0

        def go_on() -> None:
            nonlocal sent
            for _ in range(random.randrange(1, 10)):
                if sends:
                    received.append(rx.receive().sync(timeout=SOON))
                else:
                    tx.send(sent).sync(timeout=SOON)
                    sent += 1

        for _ in range(count):
            for _ in range(random.randrange(1, 4)):
                child.signal(signal.SIGINT)
            go_on()
            assert child.poll() is None, child.says()
        if sends:
            rx.close()
            said = child.says()
            assert received == sorted(set(received)), "doubled, or out of order"
            assert said["cuts"] > 10, "it was never cut"
            missing = set(range(received[-1])) - set(received)
            assert missing <= set(said["doubtful"]), missing
        else:
            until(lambda: not len(tx), "not all is received")
            tx.close()
            said = child.says()
            got = said["got"]
            assert got == sorted(set(got)), "doubled, or out of order"
            assert len(set(range(sent)) - set(got)) <= said["cuts"]


@pytest.mark.parametrize("sends", [True, False], ids=["sends", "receives"])
def test_a_process_that_gets_bursts_of_interrupts_loses_what_it_was_busy_with_at_most(sends: bool) -> None:
    _bursts(sends, 1000)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sends", [True, False], ids=["sends", "receives"])
def test_a_process_that_gets_thousands_of_interrupts(sends: bool) -> None:
    _bursts(sends, 30_000)
