"""A process that dies, or is stopped, between any two instructions of `chanlib.processes`.

A forked child kills itself just before the n-th line of the package that it executes (by default of an even choice of
them, under `stress` of all, and of all bytecodes) in the middle of each operation. Afterwards the others go on: what it
was sending is there once or not at all, what it was receiving is lost at most, the capacity is exact, and those on the
other side are told if it was the last on its own.

Cases 3 to 7, 13, 15 and 25 of the notes on processes.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from process_jobs_faults import Child, Tell, forked, places, struck, thinned

from chanlib import ChannelFull
from chanlib.processes import open_process_channel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CAPACITY = 5
RING = 512  # bytes: what is longer goes through memory of its own
HERE = Path(__file__).parent
SOON = 5.0  # seconds: a safety net
SPACE = {"int": 7, "bytes": b"b" * 100, "wraps": b"w" * 300, "pickled": ["p" * 40, 1.5], "spilled": b"s" * 5000}


class Partner:
    """Another process that sends and receives on request."""

    def __init__(self, child: Child, requests: int) -> None:
        self.child = child
        self.requests = requests

    def ask(self, *request: Any) -> Any:
        os.write(self.requests, pickle.dumps(request).ljust(512, b"."))
        return self.child.says()


@contextmanager
def partner(tx: Any, rx: Any) -> Generator[Partner]:
    asked, requests = os.pipe()

    def body(tell: Tell) -> None:
        os.close(requests)
        while request := os.read(asked, 512):
            what, values = pickle.loads(request)
            if what == "send":
                for value in values:
                    tx.send(value).sync(timeout=SOON)
                tell(None)
            else:
                tell([rx.receive().sync(timeout=SOON) for _ in range(values)])

    with forked(body) as child:
        os.close(asked)
        try:
            yield Partner(child, requests)
        finally:
            os.close(requests)


class Yard:
    """A channel, and who goes on using it."""

    def __init__(self, tx: Any, rx: Any, partner: Partner) -> None:
        self.tx = tx
        self.rx = rx
        self.partner = partner

    def audit(self) -> list[Any]:
        """What was in it. Everybody can send and receive, and it holds exactly as many as it should."""
        inside = self.rx.drain()
        for value in range(CAPACITY):
            self.tx.send(value).sync(timeout=SOON)
        with pytest.raises(ChannelFull):
            self.tx.send_nowait(None)
        assert self.partner.ask("receive", CAPACITY) == list(range(CAPACITY))
        self.partner.ask("send", list(range(CAPACITY)))
        with pytest.raises(ChannelFull):
            self.tx.send_nowait(None)
        assert [self.rx.receive().sync(timeout=SOON) for _ in range(CAPACITY)] == list(range(CAPACITY))
        assert len(self.rx) == 0
        return inside


@pytest.fixture
def yard() -> Iterator[Yard]:
    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=RING)
    with tx, rx, partner(tx, rx) as other:
        found = Yard(tx, rx, other)
        found.audit()
        yield found


# ===================================================================== what is cut
class Victim(NamedTuple):
    operate: Callable[[Any, Any], object]  # with a sender and a receiver, in the child
    right: Callable[[list[Any]], bool]  # may this be inside afterwards?
    inside: Any = ()  # what is inside before
    own: bool = True  # clones of the child's own; or what the fork has left there


def _send(value: Any) -> Victim:
    return Victim(lambda tx, rx: tx.send(value).sync(timeout=SOON), lambda inside: inside in ([], [value]))


def _receive(value: Any) -> Victim:
    values = [value, "next"]
    return Victim(lambda tx, rx: rx.receive().sync(timeout=SOON), lambda inside: inside in (values, ["next"]), values)


def _timed_out(op: Any) -> None:
    with suppress(TimeoutError):
        op.sync(timeout=0.01)


def _aboard(tx: Any, rx: Any) -> None:
    """Ends go through the channel itself, and come to life at its other side."""
    tx.send([tx, rx]).sync(timeout=SOON)
    for one in rx.receive().sync(timeout=SOON):
        one.close()


def _landed(inside: list[Any]) -> bool:
    for one in [one for pair in inside for one in pair]:
        one.close()
    return len(inside) <= 1


SOME = [1, b"2" * 40, "3"]
NUMBERS = list(range(CAPACITY))
VICTIMS = {
    **{f"send {name}": _send(payload) for name, payload in SPACE.items()},
    "send_some": Victim(lambda tx, rx: tx.send_some(SOME).sync(timeout=SOON), lambda got: got == SOME[: len(got)]),
    "wait for room": Victim(lambda tx, rx: _timed_out(tx.send(9)), lambda got: got == NUMBERS, NUMBERS),
    "use what a fork has left": Victim(
        lambda tx, rx: tx.send(1).sync(timeout=SOON), lambda got: got in ([], [1]), own=False
    ),
    **{f"receive {name}": _receive(payload) for name, payload in SPACE.items()},
    "receive_some": Victim(
        lambda tx, rx: rx.receive_some().sync(timeout=SOON), lambda got: got == SOME[len(SOME) - len(got) :], SOME
    ),
    "wait for a value": Victim(lambda tx, rx: _timed_out(rx.receive()), lambda got: not got),
    "close": Victim(lambda tx, rx: (tx.close(ValueError("why")), rx.close()), lambda got: not got),
    "clone": Victim(lambda tx, rx: (tx.clone(), rx.clone()), lambda got: not got),
    "pickle": Victim(lambda tx, rx: pickle.dumps((tx, rx)), lambda got: not got),
    "unpickle": Victim(lambda tx, rx: pickle.loads(pickle.dumps((tx, rx))), lambda got: not got),
    "send and receive ends": Victim(_aboard, _landed),
}


def ends(victim: Victim, tx: Any, rx: Any) -> tuple[Any, Any]:
    return (tx.clone(), rx.clone()) if victim.own else (tx, rx)


def places_of(yard: Yard, victim: Victim, opcodes: bool) -> int:
    """How many places the operation has."""
    yard.tx.send_some(victim.inside).poll()
    with forked(lambda tell: tell(places(victim.operate, *ends(victim, yard.tx, yard.rx), opcodes=opcodes))) as child:
        count = child.says()
    yard.audit()
    return int(count)


def attack(yard: Yard, victim: Victim, at: int, opcodes: bool) -> None:
    yard.tx.send_some(victim.inside).poll()
    with forked(lambda tell: struck(at, victim.operate, *ends(victim, yard.tx, yard.rx), opcodes=opcodes)) as child:
        status = child.wait()
    assert status in (0, -signal.SIGKILL), status
    inside = yard.audit()
    assert victim.right(inside), inside


@pytest.mark.parametrize("name", VICTIMS)
def test_whoever_is_killed_anywhere_in_an_operation_the_others_go_on(yard: Yard, name: str) -> None:
    _sweep(yard, VICTIMS[name], 12, opcodes=False)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "bytecodes"])
@pytest.mark.parametrize("name", VICTIMS)
def test_whoever_is_killed_at_any_place_at_all_the_others_go_on(yard: Yard, name: str, opcodes: bool) -> None:
    _sweep(yard, VICTIMS[name], 1000, opcodes)


def _sweep(yard: Yard, victim: Victim, most: int, opcodes: bool) -> None:
    count = places_of(yard, victim, opcodes)
    assert count > 10
    for at in thinned(count, most):
        try:
            attack(yard, victim, at, opcodes)
        except BaseException as error:
            error.add_note(f"killed at place {at} of {count}")
            raise


SELECTION = (
    "anywhere_in or (felt_by and spilled) or (full_traffic and all_die) or (freezes and threads and receive) or bursts"
)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.environ.get("CHANLIB_PROCESSES") == "posix", reason="this is it")
def test_the_same_without_what_only_linux_has() -> None:
    """Locks on the bytes of a file, memory that had a name, descriptors by way of `multiprocessing`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *map(str, sorted(HERE.glob("test_processes_faults*.py"))),
            "-k",
            SELECTION,
        ],
        env={**os.environ, "CHANLIB_PROCESSES": "posix"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
