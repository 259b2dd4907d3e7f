"""What those who are left are told when processes end: those on the other side of a channel, in every kind of loop.

The last sender that closes ends the stream; one that dies breaks it, after what it has sent. The last receiver that
goes, in whatever way, breaks it for senders. `close()` of the whole is felt by everybody in every process.

Cases 5 to 10, 13, 41 and 42 of the notes on processes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from process_jobs_faults import Tell, forked, places, struck, thinned, until

from chanlib import BrokenChannel, ChannelClosed, EndOfChannel, HandleClosed, run
from chanlib.processes import ProcessChannel, open_process_channel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CAPACITY = 3
SOON = 5.0  # seconds: a safety net
FELT = 1.0  # seconds within which others know that somebody has died
KINDS = ["threads", "asyncio", "trio"]


class Waiters:
    """Somebody in each kind of loop, each in a thread of this process, who performs the operation that `make` makes
    again and again until that raises."""

    def __init__(self, make: Callable[[], Any], kinds: list[str] = KINDS) -> None:
        self.got: list[Any] = []
        self.ended: dict[str, tuple[str, float]] = {}  # how, and when
        self.threads = [threading.Thread(target=self._live, args=(kind, make), daemon=True) for kind in kinds]
        for thread in self.threads:
            thread.start()

    def _live(self, kind: str, make: Callable[[], Any]) -> None:
        async def main() -> None:
            while True:
                self.got.append(await make())

        try:
            run(main, backend=kind)
        except ChannelClosed as error:
            self.ended[kind] = type(error).__name__, time.monotonic()
        except BaseException as error:
            self.ended[kind] = repr(error), time.monotonic()

    def over(self) -> set[str]:
        """In which ways it has ended for them."""
        for thread in self.threads:
            thread.join(SOON)
            assert not thread.is_alive(), f"{self.ended} only have been told"
        return {how for how, _ in self.ended.values()}

    def last(self) -> float:
        return max(when for _, when in self.ended.values())


def waiting(handle: Any) -> int:
    statistics = handle.statistics()
    return int(statistics.waiting_senders + statistics.waiting_receivers)


def all_wait(handle: Any, count: int = len(KINDS)) -> None:
    until(lambda: waiting(handle) == count, "not all of them wait")


@contextmanager
def channel(**options: Any) -> Generator[tuple[Any, Any]]:
    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512, **options)
    with tx, rx:
        yield tx, rx


def to_the_end(rx: Any) -> tuple[list[Any], type[BaseException]]:
    """What is there, and how it ends."""
    found: list[Any] = []
    try:
        while True:
            found.append(rx.receive().sync(timeout=SOON))
    except ChannelClosed as error:
        return found, type(error)


# ===================================================================== the last sender
def test_the_last_sender_is_killed_and_receivers_in_every_loop_are_told() -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            with tx.clone() as mine:
                mine.send_nowait(1)
                tell("ready")
                signal.pause()

        with forked(body) as child:
            child.says()
            tx.close()
            waiters = Waiters(rx.receive)
            until(lambda: waiters.got == [1], "the value has not come")
            all_wait(rx)
            child.kill()
            killed = time.monotonic()
            assert waiters.over() == {"BrokenChannel"}
            assert waiters.last() - killed < FELT
        for _ in range(2):  # later ones too
            with pytest.raises(BrokenChannel, match="died"):
                rx.receive_nowait()
        assert Waiters(rx.receive).over() == {"BrokenChannel"}


def test_what_a_killed_sender_has_sent_is_received_first() -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            mine = tx.clone()
            for value in [1, "2", b"3" * 5000]:
                mine.send_nowait(value)
            os.kill(os.getpid(), signal.SIGKILL)

        with forked(body) as child:
            tx.close()
            assert child.wait() == -signal.SIGKILL
            assert to_the_end(rx) == ([1, "2", b"3" * 5000], BrokenChannel)


@pytest.mark.parametrize("how", ["returns", "exits", "is killed before it has used it"])
def test_a_process_that_has_not_used_what_a_fork_has_left_breaks_nothing(how: str) -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            tell("ready")
            if how == "exits":
                os._exit(3)
            elif how != "returns":
                os.kill(os.getpid(), signal.SIGKILL)

        with forked(body) as child:
            child.says()
            tx.send_nowait(1)
            tx.close()
            child.wait()
            assert to_the_end(rx) == ([1], EndOfChannel)


def test_the_last_sender_closes_and_iteration_ends_in_every_loop() -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            mine = tx.clone()
            tx.close()
            for value in range(50):
                mine.send(value).sync(timeout=SOON)
            mine.close()

        with forked(body) as child:
            tx.close()
            waiters = Waiters(rx.receive)
            assert waiters.over() == {"EndOfChannel"}
            assert sorted(waiters.got) == list(range(50))
            assert child.wait() == 0


def test_a_sender_that_is_killed_beside_others_breaks_it_when_the_last_of_them_closes() -> None:
    """Nobody can say any more that the stream is complete."""
    with channel() as (tx, rx):
        with forked(lambda tell: (tx.clone().send_nowait(1), os.kill(os.getpid(), signal.SIGKILL))) as child:
            child.wait()
        tx.send_nowait(2)
        assert [rx.receive_nowait(), rx.receive_nowait()] == [1, 2]
        tx.close()
        assert to_the_end(rx) == ([], BrokenChannel)


# ===================================================================== the last receiver
def test_the_last_receiver_is_killed_and_senders_in_every_loop_are_told() -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            with rx.clone():
                rx.close()
                tell("ready")
                signal.pause()

        with forked(body) as child:
            child.says()
            rx.close()
            waiters = Waiters(lambda: tx.send(0))
            until(lambda: len(tx) == CAPACITY, "it is not full")
            all_wait(tx)
            child.kill()
            killed = time.monotonic()
            assert waiters.over() == {"BrokenChannel"}
            assert waiters.last() - killed < FELT
        for _ in range(2):
            with pytest.raises(BrokenChannel, match="no receiver"):
                tx.send_nowait(0)
        assert Waiters(lambda: tx.send(0)).over() == {"BrokenChannel"}


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "killed"])
def test_all_receivers_have_gone_before_the_send(closes: bool) -> None:
    with channel() as (tx, rx):

        def body(tell: Tell) -> None:
            mine = rx.clone()
            rx.close()
            if closes:
                mine.close()
            os.kill(os.getpid(), signal.SIGKILL)

        with forked(body) as child:
            rx.close()
            child.wait()
        for _ in range(3):
            with pytest.raises(BrokenChannel):
                tx.send_nowait(0)
        with pytest.raises(BrokenChannel):
            tx.send(0).sync(timeout=SOON)


# ===================================================================== killed anywhere
VALUES: dict[str, Any] = {"int": 7, "pickled": ["p" * 40, 1.5], "wraps": b"w" * 300, "spilled": b"s" * 5000}
SENDERS: dict[str, Callable[[Any], object]] = {
    **{f"send {name}": lambda tx, value=value: tx.send(value).sync(timeout=SOON) for name, value in VALUES.items()},
    "close": lambda tx: tx.close(),
    "close with a cause": lambda tx: tx.close(ValueError("why")),
    "clone": lambda tx: tx.clone(),
}


def _dies_sending(name: str, most: int) -> None:
    operate = SENDERS[name]
    with channel() as (tx, _), forked(lambda tell: tell(places(operate, tx.clone()))) as child:
        count = child.says()
    for at in thinned(count, most):
        with channel() as (tx, rx):

            def body(tell: Tell, tx: Any = tx, rx: Any = rx, at: int = at) -> None:
                mine = tx.clone()
                tx.close()
                rx.close()
                mine.send_nowait("hello")
                tell("ready")
                struck(at, operate, mine)
                os._exit(7)

            with forked(body) as child:
                tx.close()
                child.says()
                began = time.monotonic()
                got, how = to_the_end(rx)
                took = time.monotonic() - began
                status = child.wait()
            about = f"place {at} of {count}: {status}, {got}, {how}, {took:.2f} s"
            assert got == ["hello"] or (name.startswith("send") and got == ["hello", VALUES[name[5:]]]), about
            assert how is BrokenChannel or (name == "close" and how is EndOfChannel), about
            assert status in (7, -signal.SIGKILL), about
            assert took < FELT, about


@pytest.mark.parametrize("name", SENDERS)
def test_the_last_sender_killed_anywhere_is_felt_by_who_receives(name: str) -> None:
    _dies_sending(name, 8)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SENDERS)
def test_the_last_sender_killed_at_any_place_at_all_is_felt(name: str) -> None:
    _dies_sending(name, 1000)


RECEIVERS: dict[str, Callable[[Any], object]] = {
    "receive": lambda rx: rx.receive().sync(timeout=SOON),
    "receive_some": lambda rx: rx.receive_some().sync(timeout=SOON),
    "close": lambda rx: rx.close(),
    "clone": lambda rx: rx.clone(),
}


def _dies_receiving(name: str, most: int) -> None:
    operate = RECEIVERS[name]
    with channel() as (tx, rx):
        tx.send_nowait(0)
        with forked(lambda tell: tell(places(operate, rx.clone()))) as child:
            count = child.says()
    for at in thinned(count, most):
        with channel() as (tx, rx):
            tx.send_some(range(CAPACITY)).poll()

            def body(tell: Tell, tx: Any = tx, rx: Any = rx, at: int = at) -> None:
                mine = rx.clone()
                tx.close()
                rx.close()
                tell("ready")
                struck(at, operate, mine)
                os._exit(7)

            with forked(body) as child:
                rx.close()
                child.says()
                began = time.monotonic()
                with suppress(BrokenChannel):
                    while True:
                        tx.send(b"x" * 50).sync(timeout=SOON)
                took = time.monotonic() - began
                status = child.wait()
            about = f"place {at} of {count}: {status}, {took:.2f} s"
            assert status in (7, -signal.SIGKILL), about
            assert took < FELT, about


@pytest.mark.parametrize("name", RECEIVERS)
def test_the_last_receiver_killed_anywhere_is_felt_by_who_sends(name: str) -> None:
    _dies_receiving(name, 8)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECEIVERS)
def test_the_last_receiver_killed_at_any_place_at_all_is_felt(name: str) -> None:
    _dies_receiving(name, 1000)


# ===================================================================== close()
@pytest.mark.parametrize("full", [True, False], ids=["senders", "receivers"])
def test_close_is_felt_by_all_who_wait_in_three_processes_and_three_kinds_of_loop(full: bool) -> None:
    ch = ProcessChannel[Any](CAPACITY)
    if full:
        ch.send_some(range(CAPACITY)).poll()

    def body(tell: Tell) -> None:
        waiters = Waiters(lambda: ch.send(0) if full else ch.receive())
        all_wait(ch)
        tell("ready")
        tell(sorted(waiters.over()))

    with ExitStack() as stack:
        children = [stack.enter_context(forked(body)) for _ in range(3)]
        for child in children:
            child.says()
        waiters = Waiters(lambda: ch.send(0) if full else ch.receive())
        all_wait(ch)
        began = time.monotonic()
        assert ch.close()
        how = "HandleClosed" if full else "EndOfChannel"
        assert waiters.over() == {how}
        for child in children:
            assert child.says() == [how]
        assert time.monotonic() - began < FELT
        assert not ch.close()
        with pytest.raises(HandleClosed):
            ch.send_nowait(1)
        assert ch.drain() == list(range(CAPACITY)) * full
        with pytest.raises(EndOfChannel):
            ch.receive_nowait()
