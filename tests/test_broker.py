"""How descriptors of a pickled handle reach the process that unpickles it: once, to the same user, and never by a hang.

Each test runs with a broker of its own, and counts descriptors and threads before and after.
"""

from __future__ import annotations

import errno
import hmac
import itertools
import json
import multiprocessing
import os
import pickle
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from census import Census
from worlds import settle_here as until_here

from chanlib.processes import broker, offers
from chanlib.processes.broker import HandoverError, Offer, claim, offer, withdraw

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc"),
    # Fork beside threads is what several of these are about.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

METHODS = ["spawn", "forkserver", "fork"]


def never() -> None:
    raise AssertionError("an offer that was taken cannot expire")


def descriptors(pid: int | str = "self") -> set[str]:
    """What a process has open: the inodes, since the numbers are used again."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/{pid}/fd/{name}')}")
        except FileNotFoundError:  # that of the listing itself
            pass
    return {name for name in found if not name.endswith(f"/proc/{os.getpid()}/fd")}


def brokers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "chanlib broker"]


def end_broker() -> None:
    """And the sharer, if it was used."""
    if broker._broker is not None:
        broker._broker.close()
    until_here(lambda: not brokers())
    if "multiprocessing.resource_sharer" in sys.modules:
        stop_sharer()


@pytest.fixture(autouse=True)
def nothing_left(census: Census, workers: dict[str, Child]) -> Iterator[None]:
    """Nothing stays open, here or in the workers, and no thread runs but those that the cache keeps idle."""
    pids = [os.getpid(), *(worker.process.pid for worker in workers.values())]
    before = [descriptors(pid) for pid in pids]
    yield
    end_broker()
    end = time.monotonic() + 5
    while left := [now - then for then, now in zip(before, map(descriptors, pids), strict=True) if now - then]:
        assert time.monotonic() < end, f"left open: {left}"
        time.sleep(0.001)


class Pipe:
    """A pipe whose ends are on offer; who holds its write end shows by the end of file at the other."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def offer(self, expired: Callable[[], object] = never) -> Offer:
        return offer([self.writing], expired)

    def let_go(self) -> None:
        """Once: the number may be somebody else's after that."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def ended(self) -> bool:
        """Nobody holds the write end."""
        poll = select.poll()
        poll.register(self.reading, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def text(self) -> bytes:
        found: list[bytes] = []

        def read() -> bool:
            try:
                found.append(os.read(self.reading, 1000))
            except BlockingIOError:
                return False
            return True

        until_here(read)
        return found[0]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reading)
    pipe.let_go()


def say(offered: Offer, text: bytes) -> None:
    """Claim, and write to it."""
    for fd in claim(offered):
        os.write(fd, text)
        os.close(fd)


def outcome(action: Callable[[], object]) -> str:
    try:
        return f"{action()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def in_fork(action: Callable[[], object]) -> str:
    """What `action()` gives in a child of a bare fork; that child ends without a word."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, outcome(action).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        assert select.select([reading], [], [], 20)[0], "the child hangs"
        text = answer.read().decode()
    os.waitpid(pid, 0)
    return text


def memory(number: int) -> int:
    """A file of no name with a number in it."""
    fd = os.memfd_create("test")
    os.write(fd, b"%d" % number)
    return fd


def close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def numbers(offered: Offer) -> list[int]:
    """Claim, and read what stands in the files."""
    fds = claim(offered)
    found = [int(os.pread(fd, 10, 0)) for fd in fds]
    close(fds)
    return found


def claim_and_close(offered: Offer) -> None:
    close(claim(offered))


def inheritable(offered: Offer) -> list[bool]:
    fds = claim(offered)
    found = [os.get_inheritable(fd) for fd in fds]
    close(fds)
    return found


def grab(offers: list[Offer]) -> list[int]:
    found = []
    for offered in offers:
        try:
            found += numbers(offered)
        except HandoverError as error:
            if "claimed already" not in str(error):
                raise
    return found


def offer_memory(number: int, way: str) -> Offer:
    os.environ["CHANLIB_PROCESSES"] = way
    file = memory(number)
    try:
        return offer([file], never)
    finally:
        os.close(file)


def offer_copies(count: int, way: str = "") -> Offer:
    os.environ["CHANLIB_PROCESSES"] = way
    return offer([0] * count, never)


def stop_sharer() -> None:
    from multiprocessing import resource_sharer

    resource_sharer.stop()


def temporary_folder() -> str:
    from multiprocessing import util

    return str(util.get_temp_dir())


_filling: list[int] = []
_limits: list[tuple[int, int]] = []


def fill() -> None:
    """Open files until there is no descriptor left."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    _limits.append(before)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 30, before[1]))
    while True:
        try:
            _filling.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return


def empty() -> None:
    close(_filling)
    _filling.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, _limits.pop())


def with_room(room: int, function: Callable[..., object], *args: object) -> object:
    """Call it with room for so many descriptors; none may stay open."""
    broker._has_abstract_sockets()
    before = descriptors()
    fill()
    close(_filling[:room])
    del _filling[:room]
    try:
        return function(*args)
    except OSError as error:
        return f"OSError {error.errno}"
    finally:
        empty()
        end_broker()
        assert descriptors() == before


def in_time(function: Callable[..., Any], *args: Any) -> Any:
    """What it gives once it is possible: the broker may not have seen yet that a client has gone."""
    found: list[Any] = []

    def attempt() -> bool:
        try:
            found.append(function(*args))
        except HandoverError as error:
            if "claimed already" not in str(error):
                raise
            return False
        return True

    until_here(attempt)
    return found[0]


retry = in_time


def lock_is_free() -> bool:
    """No thread holds the lock of the broker."""

    def attempt() -> bool:
        if free := broker._lock.acquire(timeout=5):
            broker._lock.release()
        return free

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(attempt).result()


def listens(address: bytes) -> bool:
    name = "@" + address[1:].decode()
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(" " + name) and line.split()[3] == "00010000" for line in lines)


def waits_to_be_accepted(address: bytes) -> bool:
    """Somebody has connected, and the process has not accepted it: what it would be has no inode yet."""
    name = "@" + address[1:].decode()
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(" " + name) and line.split()[6] == "0" for line in lines) or any(
        line.split()[5] == "02" for line in lines[1:]
    )


def received(sock: socket.socket) -> list[int] | None:
    _, fds, _, _ = socket.recv_fds(sock, offers.REPLY.size, offers.MOST)
    return fds


def hung_up_at_once(offered: Offer) -> bool:
    with knock(offered) as sock:
        return hung_up(sock)


@contextmanager
def listening() -> Iterator[tuple[socket.socket, Offer]]:
    """A listener that is no broker, and an offer that leads to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(b"")
        listener.listen(2)
        listener.settimeout(20)
        yield listener, Offer(listener.getsockname(), 1, bytes(32), os.getpid())


class Handle:
    """What is pickled as handles of the library are."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return Handle.claimed, (offer([self.fd], never),)

    @classmethod
    def claimed(cls, offered: Offer) -> Handle:
        (fd,) = claim(offered)
        return cls(fd)

    def number(self) -> int:
        return int(os.pread(self.fd, 10, 0))


def answer_number(items: Any, answers: Any) -> None:
    answers.put(items.get(timeout=20).number())


class Child:
    """A process by one of the start methods, which does what it is told: a function and its arguments."""

    def __init__(self, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=obey, args=(far,), daemon=True)
        self.process.start()
        far.close()

    def begin(self, function: Callable[..., object], *args: object) -> None:
        self.pipe.send((function, args))

    def answer(self) -> Any:
        assert self.pipe.poll(20), "the child hangs"
        return self.pipe.recv()

    def do(self, function: Callable[..., object], *args: object) -> Any:
        self.begin(function, *args)
        return self.answer()

    def kill(self) -> None:
        """Not reaped: a zombie has gone, too. The first of its threads may be one before the others have ended."""
        fd = os.pidfd_open(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)
        assert select.select([fd], [], [], 20)[0]
        os.close(fd)

    def end(self) -> None:
        try:
            self.pipe.send(None)
        except OSError:
            pass
        self.process.join(20)
        assert not self.process.is_alive(), "the child hangs"
        self.pipe.close()
        self.process.close()


def obey(pipe: Any) -> None:
    while order := pipe.recv():
        function, args = order
        try:
            pipe.send(function(*args))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Child]]:
    """A child by each of the start methods, for all tests that do not kill it."""
    workers = {method: Child(method) for method in METHODS}
    for worker in workers.values():
        worker.do(os.getpid)
    yield workers
    for worker in workers.values():
        worker.end()


@pytest.fixture(params=METHODS)
def worker(request: pytest.FixtureRequest, workers: dict[str, Child]) -> Child:
    return workers[request.param]


@pytest.fixture
def other(workers: dict[str, Child]) -> Child:
    """Another process; any."""
    return workers["spawn"]


@pytest.fixture(params=["abstract", "posix"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """For tests that hold by both ways."""
    monkeypatch.setenv("CHANLIB_PROCESSES", "posix" if request.param == "posix" else "")
    if request.param == "posix":  # the sharer tells of claims that come too late
        monkeypatch.setattr(sys, "excepthook", lambda *error: None)
    return str(request.param)


# ===================================================================== from one process to another
def test_another_process_claims_what_is_on_offer(both: str, worker: Child, pipe: Pipe) -> None:
    offered = pipe.offer()
    worker.do(say, offered, b"hello")
    assert pipe.text() == b"hello"
    pipe.let_go()
    until_here(pipe.ended)  # neither the broker nor the worker holds a copy


def test_a_child_of_a_bare_fork_claims_from_its_parent(both: str, pipe: Pipe) -> None:
    offered = pipe.offer()
    assert in_fork(lambda: say(offered, b"hello")) == "None"
    assert pipe.text() == b"hello"


def test_the_order_of_the_descriptors_stays(both: str, other: Child) -> None:
    files = [memory(number) for number in range(offers.MOST)]
    offered = offer(files, never)
    close(files)
    assert other.do(numbers, offered) == list(range(offers.MOST))


def test_what_is_claimed_is_closed_on_exec(both: str, other: Child, pipe: Pipe) -> None:
    assert other.do(inheritable, pipe.offer()) == [False]
    assert inheritable(pipe.offer()) == [False]


def test_a_child_that_is_a_parent_offers_too(both: str, worker: Child) -> None:
    offered = worker.do(offer_memory, 7, both)
    assert numbers(offered) == [7]
    if both == "posix":
        worker.do(stop_sharer)
    else:
        worker.do(end_broker)


def test_a_handle_is_an_argument_of_submit() -> None:
    file = memory(5)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(Handle.number, Handle(file)).result(20) == 5
    close([file])


def test_a_handle_is_an_item_of_a_queue() -> None:
    context = multiprocessing.get_context("fork")
    items: Any = context.Queue()
    answers: Any = context.SimpleQueue()
    process = context.Process(target=answer_number, args=(items, answers))
    process.start()
    file = memory(6)
    items.put(Handle(file))
    assert answers.get() == 6
    process.join(20)
    process.close()
    items.close()
    items.join_thread()
    answers.close()
    close([file])


def test_two_hundred_offers_and_four_processes_that_all_want_each(workers: dict[str, Child]) -> None:
    files = [memory(number) for number in range(200)]
    offers = [offer([file], never) for file in files]
    close(files)
    extra = Child("fork")
    everyone = [*workers.values(), extra]
    for place, child in enumerate(everyone):
        child.begin(grab, offers[50 * place :] + offers[: 50 * place])
    got = [child.answer() for child in everyone]
    extra.end()
    assert sorted(itertools.chain(*got)) == list(range(200)), got
    assert len(brokers()) == 1


def test_many_threads_start_one_broker(pipe: Pipe) -> None:
    with ThreadPoolExecutor(8) as pool:
        offers = list(pool.map(lambda _: pipe.offer(), range(80)))
        assert len(brokers()) == 1
        assert len({offered.address for offered in offers}) == 1
        assert len({offered.number for offered in offers}) == 80
        assert all(pool.map(withdraw, offers))


# ===================================================================== once
def test_the_first_claim_takes_it(both: str, other: Child, pipe: Pipe) -> None:
    offered = pipe.offer()
    other.do(say, offered, b"first")
    again = other.do(say, offered, b"second")
    assert again.startswith("HandoverError: ")
    assert "claimed already" in again
    assert "pickle it once for each process" in again
    with pytest.raises(HandoverError, match="claimed already"):
        claim(offered)
    assert pipe.text() == b"first"


def test_the_process_that_offers_claims_without_a_socket(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = pipe.offer()
    monkeypatch.setattr(socket, "socket", None)
    say(offered, b"myself")
    assert pipe.text() == b"myself"
    with pytest.raises(HandoverError, match="claimed already"):
        claim(offered)


def test_what_is_withdrawn_is_nobodys(both: str, other: Child, pipe: Pipe) -> None:
    offered = pipe.offer()
    assert withdraw(offered)
    assert not withdraw(offered)
    pipe.let_go()
    until_here(pipe.ended)
    assert "claimed already, or has expired" in other.do(say, offered, b"")


def test_what_was_claimed_is_not_withdrawn(both: str, other: Child, pipe: Pipe) -> None:
    offered = pipe.offer()
    other.do(say, offered, b"mine")
    assert not withdraw(offered)


def test_only_who_has_offered_withdraws(both: str, other: Child, pipe: Pipe) -> None:
    offered = pipe.offer()
    assert other.do(withdraw, offered) is False
    say(offered, b"still there")
    assert pipe.text() == b"still there"


def test_an_offer_is_small_and_plain_and_keeps_its_secret(pipe: Pipe) -> None:
    offered = pipe.offer()
    assert list(map(type, offered)) == [bytes, int, bytes, int]
    assert len(offered.nonce) == 32
    assert len(pickle.dumps(offered)) < 150
    assert pickle.loads(pickle.dumps(offered)) == offered
    assert repr(offered) == f"<offer {offered.number} of process {os.getpid()}>"
    assert withdraw(offered)


@pytest.mark.parametrize("count", [0, 17])
def test_an_offer_is_of_1_to_16_descriptors(both: str, count: int, pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="1 to 16"):
        offer([pipe.writing] * count, never)


def test_what_is_not_open_is_not_offered(both: str, pipe: Pipe) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        offer([pipe.writing, 10**6], never)
    pipe.let_go()
    assert pipe.ended()


# ===================================================================== not for ever
def test_an_offer_that_nobody_claims_expires(pipe: Pipe, other: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LIFETIME", 0.02)
    seen: list[Any] = []
    offered = pipe.offer(lambda: seen.append((pipe.ended(), threading.current_thread().name, lock_is_free())))
    pipe.let_go()
    monkeypatch.undo()
    until_here(lambda: seen)
    assert seen == [(True, "chanlib broker", True)]
    assert "has expired" in other.do(say, offered, b"")
    assert not withdraw(offered)
    assert len(seen) == 1


def test_what_has_time_left_does_not_expire_with_the_rest(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = pipe.offer()
    monkeypatch.setattr(broker, "LIFETIME", 0.02)  # the thread sleeps for longer already
    seen: list[int] = []
    for number in range(5):
        pipe.offer(lambda number=number: seen.append(number))  # type: ignore[misc]
    until_here(lambda: len(seen) == 5)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert withdraw(longer)


def test_what_was_taken_does_not_expire(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LIFETIME", 0.05)
    say(pipe.offer(), b"claimed")
    assert withdraw(pipe.offer())
    seen: list[int] = []
    pipe.offer(lambda: seen.append(1))  # due after them
    until_here(lambda: seen)


def test_an_offer_to_a_broker_at_rest_expires_in_time(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps until it may end, and what it remembered of offers before is of no use."""
    monkeypatch.setattr(broker, "LIFETIME", 0.02)
    for _ in range(3):
        assert withdraw(pipe.offer())
        until_here(lambda: broker._broker is not None and broker._broker.since is not None)
        before = time.monotonic()
        seen: list[float] = []
        pipe.offer(lambda seen=seen: seen.append(time.monotonic()))  # type: ignore[misc]
        until_here(lambda seen=seen: seen)  # type: ignore[misc]
        assert seen[0] - before < broker.LINGER / 2


def test_a_broker_that_ends_tells_before_of_what_has_expired(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LIFETIME", 0.01)
    monkeypatch.setattr(broker, "LINGER", 0.0)
    seen: list[int] = []
    for number in range(20):
        withdraw(pipe.offer())
        pipe.offer(lambda number=number: seen.append(number))  # type: ignore[misc]
    until_here(lambda: len(seen) == 20)


def test_an_error_in_expired_is_reported_and_stops_nobody(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    seen: list[int] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(repr(args.exc_value)))
    monkeypatch.setattr(broker, "LIFETIME", 0.02)
    pipe.offer(lambda: 1 / 0)
    pipe.offer(lambda: seen.append(1))
    until_here(lambda: seen and reported)
    assert reported == ["ZeroDivisionError('division by zero')"]
    monkeypatch.undo()
    say(pipe.offer(), b"on")


def test_expired_may_offer_and_withdraw(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LIFETIME", 0.02)
    seen: list[bool] = []
    pipe.offer(lambda: seen.append(withdraw(pipe.offer())))
    until_here(lambda: seen)
    assert seen == [True]


def test_the_broker_ends_when_nothing_is_on_offer(pipe: Pipe, other: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LINGER", 0.02)
    before = descriptors()
    offered = pipe.offer()
    name = offered.address
    until_here(lambda: listens(name))
    other.do(say, offered, b"1")
    until_here(lambda: not brokers() and not listens(name))
    assert descriptors() == before
    assert "claimed already" in other.do(say, offered, b"")  # and not: the process has gone
    with pytest.raises(HandoverError, match="claimed already"):
        claim(offered)
    other.do(say, pipe.offer(), b"2")  # by another broker
    assert pipe.text() == b"12"


# ===================================================================== processes that end, or stop
@pytest.mark.parametrize("method", METHODS)
def test_who_was_killed_has_gone(both: str, method: str) -> None:
    child = Child(method)
    temporary = child.do(temporary_folder)
    before = sorted(os.listdir(temporary))
    offered = child.do(offer_memory, 1, both)
    if both == "abstract":
        assert sorted(os.listdir(temporary)) == before
        assert listens(offered.address)
    child.kill()
    with pytest.raises(HandoverError, match=f"process {offered.pid}, which pickled this handle, has gone"):
        claim(offered)
    if both == "abstract":
        assert not listens(offered.address)
    child.end()
    with pytest.raises(HandoverError, match="has gone"):
        claim(offered)


def test_who_has_ended_has_gone() -> None:
    child = Child("fork")
    offered = child.do(offer_memory, 1, "abstract")
    child.end()
    with pytest.raises(HandoverError, match="has gone"):
        claim(offered)


def test_a_stopped_process_is_an_error_and_no_hang(both: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("fork")
    offered = child.do(offer_memory, 4, both)
    os.kill(child.process.pid, signal.SIGSTOP)
    until_here(lambda: state(child.process.pid) == "T")
    monkeypatch.setattr(broker, "PATIENCE", 0.05)
    with pytest.raises(HandoverError, match="has not answered"):
        claim(offered)
    monkeypatch.undo()
    os.kill(child.process.pid, signal.SIGCONT)
    if both == "abstract":  # it finds that who has asked is gone, and offers it again
        assert in_time(numbers, offered) == [4]
    child.end()


# ===================================================================== descriptors run out
@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_who_has_no_room_loses_nothing(other: Child, room: int) -> None:
    """A socket and three descriptors need four; of those that did arrive none stays open."""
    files = [memory(number) for number in range(3)]
    offered = offer(files, never)
    close(files)
    assert other.do(with_room, room, claim, offered) == f"OSError {errno.EMFILE}"
    assert in_time(numbers, offered) == [0, 1, 2]


def test_who_has_just_room_has_them_all(other: Child) -> None:
    files = [memory(number) for number in range(3)]
    offered = offer(files, never)
    close(files)
    assert other.do(with_room, 4, numbers, offered) == [0, 1, 2]


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4])
def test_who_has_no_room_offers_nothing(both: str, other: Child, room: int) -> None:
    if both == "abstract":
        other.do(end_broker)
        assert other.do(with_room, room, offer_copies, 3) == f"OSError {errno.EMFILE}"
    elif room < 3:
        assert other.do(with_room, room, offer_copies, 3, "posix") == f"OSError {errno.EMFILE}"


def test_a_broker_without_room_accepts_later(other: Child) -> None:
    offered = other.do(offer_memory, 3, "abstract")
    other.do(fill)
    with ThreadPoolExecutor(1) as pool:
        claimed = pool.submit(numbers, offered)
        until_here(lambda: waits_to_be_accepted(offered.address))
        other.do(empty)
        assert claimed.result(20) == [3]
    other.do(end_broker)


# ===================================================================== strangers
def knock(offered: Offer) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(offered.address)  # with a time limit it would not wait at all for room in the queue
    sock.settimeout(20)
    return sock


def request(offered: Offer) -> bytes:
    return offers.REQUEST.pack(offers.MAGIC, offered.number, offered.nonce)


def hung_up(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_says_nothing_is_hung_up_on(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = pipe.offer()
    monkeypatch.setattr(broker, "PATIENCE", 0.02)
    with knock(offered) as sock:
        assert hung_up(sock)
    say(offered, b"on")


def test_clients_that_say_nothing_are_in_nobodys_way(pipe: Pipe, other: Child) -> None:
    offered = pipe.offer()
    silent = [knock(offered) for _ in range(broker._CLIENTS + 20)]
    other.do(say, offered, b"on")
    assert pipe.text() == b"on"
    for sock in silent:
        sock.close()


def test_a_client_that_has_spoken_is_not_pushed_out(pipe: Pipe) -> None:
    """By others who come while the broker is busy."""
    offered = pipe.offer()
    clients = [knock(offered) for _ in range(broker._CLIENTS)]
    until_here(lambda: len(broker._broker.clients) == broker._CLIENTS)  # type: ignore[union-attr]
    with broker._lock:
        clients += [knock(offered) for _ in range(20)]
        for sock in clients:
            sock.send(request(offered._replace(number=10**6)))
    for sock in clients:
        assert sock.recv(100) == offers.REPLY.pack(offers.OVER, 0, 0)
        sock.close()
    say(offered, b"on")


GARBAGE = {
    "nothing": b"",
    "short": b"x",
    "long": b"x" * 100_000,
    "as long": b"x" * offers.REQUEST.size,
    "shorter": b"x" * (offers.REQUEST.size - 1),
    "longer": b"x" * (offers.REQUEST.size + 1),
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_hung_up_on(text: bytes, pipe: Pipe, other: Child) -> None:
    offered = pipe.offer()
    with knock(offered) as sock:
        sock.send(text)
        assert hung_up(sock)
    other.do(say, offered, b"on")


def test_a_request_that_goes_on_is_hung_up_on(pipe: Pipe, other: Child) -> None:
    offered = pipe.offer()
    with knock(offered) as sock:
        sock.send(request(offered) + b"x")
        assert hung_up(sock)
    other.do(say, offered, b"on")


def test_descriptors_sent_to_the_broker_are_dropped(pipe: Pipe) -> None:
    offered = pipe.offer()
    file = memory(1)
    before = descriptors()
    with knock(offered) as sock:
        socket.send_fds(sock, [b"x"], [file])
        assert hung_up(sock)
    assert descriptors() == before
    close([file])
    say(offered, b"on")


def test_who_goes_away_in_the_middle_leaves_the_offer(pipe: Pipe, other: Child) -> None:
    offered = pipe.offer()
    knock(offered).close()
    with knock(offered) as sock:
        sock.send(request(offered))
    with knock(offered) as sock:
        in_time(sock.send, request(offered))
        close(received(sock) or [])
    assert in_time(lambda: other.do(retry, say, offered, b"on")) is None
    assert pipe.text() == b"on"


def test_who_is_too_slow_is_shut_out(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = pipe.offer()
    monkeypatch.setattr(broker, "PATIENCE", 0.02)
    with knock(offered) as sock:
        sock.send(request(offered))
        fds = received(sock)
        assert fds
        assert hung_up(sock)
        with pytest.raises(BrokenPipeError):
            sock.send(offers.TAKEN)
        close(fds)
    in_time(say, offered, b"on")


def test_what_was_acknowledged_in_time_counts(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the broker looks: it is kept from doing so until the time is over."""
    offered = pipe.offer()
    monkeypatch.setattr(broker, "PATIENCE", 0.05)
    with knock(offered) as sock:
        sock.send(request(offered))
        fds = received(sock)
        assert fds
        with broker._lock:
            sock.send(offers.TAKEN)
            end = time.monotonic() + 0.1
            until_here(lambda: time.monotonic() > end)
        assert hung_up(sock)
        close(fds)
    assert not withdraw(offered)
    pipe.let_go()
    assert pipe.ended()


def test_who_hears_the_answer_and_not_the_acknowledgement_of_another_gets_none(pipe: Pipe) -> None:
    """While it is on its way to one it is not there for others."""
    offered = pipe.offer()
    with knock(offered) as sock:
        sock.send(request(offered))
        fds = received(sock)
        assert fds
        with pytest.raises(HandoverError, match="claimed already"):
            claim(offered)
        assert not withdraw(offered)
        close(fds)
    assert in_time(claim_and_close, offered) is None


def test_a_wrong_nonce_is_refused_and_takes_nothing(pipe: Pipe, other: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(b)) or compare(a, b))
    offered = pipe.offer()
    wrong = [offered._replace(nonce=nonce) for nonce in (bytes(32), b"", offered.nonce[:31], offered.nonce + b"x")]
    for forged in wrong:
        assert "refuses" in other.do(say, forged, b"")
        assert "refuses" in outcome(lambda forged=forged: claim(forged))  # type: ignore[misc]
        assert not withdraw(forged)
    assert 32 in compared
    other.do(say, offered, b"on")


def test_an_address_in_a_file_system_is_refused(pipe: Pipe) -> None:
    offered = pipe.offer()
    for forged in (offered._replace(address=b"/nowhere"), offered._replace(number=-1), offered._replace(number=2**64)):
        with pytest.raises(HandoverError, match="refuses"):
            claim(forged)
    assert withdraw(offered)


def test_a_forged_pid_changes_nothing(pipe: Pipe, other: Child) -> None:
    """Who has the nonce has the offer; the pid is for messages only."""
    for pid in (other.do(os.getpid), 1, 0, -1, 2**40):
        other.do(say, pipe.offer()._replace(pid=pid), b"1")
        say(pipe.offer()._replace(pid=pid), b"2")
        assert pipe.text() == b"12"
        outcome(lambda pid=pid: claim(Offer(b"\0no-such", 1, bytes(32), pid)))  # type: ignore[misc]


def test_an_offer_of_another_number_is_not_had(pipe: Pipe, other: Child) -> None:
    first, second = pipe.offer(), pipe.offer()
    assert "refuses" in other.do(say, first._replace(number=second.number), b"")
    assert "claimed already" in other.do(say, first._replace(number=second.number + 1), b"")
    assert withdraw(first)
    assert withdraw(second)


def test_another_user_is_hung_up_on(pipe: Pipe, other: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = pipe.offer()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # for the broker: whoever comes is another user
    assert "hung up without a word" in other.do(say, offered, b"")
    with knock(offered) as sock:
        assert hung_up(sock)
    monkeypatch.undo()
    other.do(say, offered, b"on")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_real_other_user_is_hung_up_on(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = pipe.offer()

    def steal() -> object:
        os.setuid(65534)
        return outcome(lambda: claim(offered)) + outcome(lambda: hung_up_at_once(offered))

    told = in_fork(steal)
    assert "not ours" in told  # as seen from there
    assert told.endswith("True")  # and from here
    say(offered, b"on")


def test_nothing_is_said_to_a_listener_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (listener, offered):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(HandoverError, match="not ours"):
            claim(offered)
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100) == b""


# ===================================================================== a broker that misbehaves
ANSWERS: dict[str, tuple[bytes, int, str]] = {
    "hangs up": (b"", 0, "HandoverError: .* hung up without a word"),
    "is short": (b"xx", 3, "HandoverError: .* hung up without a word"),
    "is unknown": (offers.REPLY.pack(77, 0, 0), 3, "HandoverError: .* refuses"),
    "sends too few": (offers.REPLY.pack(0, 3, 0), 2, "OSError: .*2 of 3 descriptors arrived"),
    "sends too many": (offers.REPLY.pack(0, 1, 0), 2, "OSError: .*2 of 1 descriptors arrived"),
    "sends far too many": (offers.REPLY.pack(0, 16, 0), 17, "OSError: .*of 16 descriptors arrived"),
    "cannot": (offers.REPLY.pack(3, 0, errno.ETOOMANYREFS), 0, "OSError: .*could not hand over"),
}


@pytest.mark.parametrize("how", ANSWERS)
def test_a_broken_answer_is_an_error_and_leaves_nothing_open(how: str) -> None:
    text, count, expected = ANSWERS[how]
    files = [memory(0)] * count if count else []
    with listening() as (listener, offered), ThreadPoolExecutor(1) as pool:
        told = pool.submit(outcome, lambda: claim(offered))
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100) == request(offered)
            if text:
                socket.send_fds(sock, [text], files)
        assert re.match(expected, told.result(20)), told.result()
    close(set(files))


def test_a_listener_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PATIENCE", 0.05)
    with listening() as (_, offered), pytest.raises(HandoverError, match="has not answered"):
        claim(offered)


def test_a_queue_that_is_full_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PATIENCE", 0.05)
    with listening() as (_, offered):
        crowd: list[socket.socket] = []
        full = False
        while not full:
            crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            crowd[-1].setblocking(False)
            full = crowd[-1].connect_ex(offered.address) == errno.EAGAIN
        with pytest.raises(HandoverError, match="has not answered"):
            claim(offered)
        for sock in crowd:
            sock.close()


def test_what_the_kernel_will_not_pass_on_stays_on_offer(pipe: Pipe, other: Child) -> None:
    """As with ETOOMANYREFS, too many descriptors under way for one user."""
    offered = pipe.offer()

    class Full(socket.socket):
        def sendmsg(self, *args: Any) -> int:
            raise OSError(errno.ETOOMANYREFS, "full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Full)  # what `accept` makes
        told = in_fork(lambda: claim(offered))
    assert told.startswith("OSError"), told
    assert "could not hand over" in told
    in_time(say, offered, b"on")


# ===================================================================== fork
def test_a_child_of_a_fork_has_nothing_of_its_parents_offers(pipe: Pipe) -> None:
    before = descriptors()
    offered = pipe.offer()
    silent = knock(offered)
    until_here(lambda: broker._broker is not None and broker._broker.clients)
    with knock(offered) as sock:
        sock.send(request(offered))
        close(received(sock) or [])  # it is held now
        mine = {silent.fileno(), sock.fileno()}
        opened = {name for name in descriptors() - before if int(name.split()[0]) not in mine}
        assert opened

        def child() -> str:
            left = descriptors() & opened
            return json.dumps([sorted(left), broker._broker is None, withdraw(offered), len(brokers())])

        left, forgotten, withdrawn, _ = json.loads(in_fork(child))
    silent.close()
    assert left == []
    assert forgotten
    assert not withdrawn
    in_time(say, offered, b"on")
    assert pipe.text() == b"on"


def test_a_child_of_a_fork_does_not_keep_its_parents_offers_from_ending(pipe: Pipe) -> None:
    offered = pipe.offer()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(pipe.writing)
        os.close(writing)
        os.read(reading, 1)  # it lives for as long as we want
        os._exit(0)
    assert withdraw(offered)
    pipe.let_go()
    until_here(pipe.ended)
    name = offered.address
    end_broker()
    assert not listens(name)
    close([reading, writing])
    os.waitpid(pid, 0)


def test_a_child_of_a_fork_starts_a_broker_of_its_own(pipe: Pipe) -> None:
    offered = pipe.offer()

    def child() -> bool:
        inner = pipe.offer()
        told = in_fork(lambda: say(inner, b"grandchild"))
        return told == "None" and inner.address != offered.address and inner.pid == os.getpid()

    assert in_fork(child) == "True"
    assert pipe.text() == b"grandchild"
    say(offered, b"parent")
    assert pipe.text() == b"parent"


def test_forks_in_the_middle_of_everything(pipe: Pipe) -> None:
    """Whatever other threads are at, a child has of it no more than they have outside the broker, and is not stuck."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            offered = pipe.offer()
            with knock(offered) as sock:
                outcome(lambda sock=sock: sock.send(b"x"))  # type: ignore[misc]  # it may be pushed out
            assert withdraw(offered)

    def child() -> object:
        left = [name for name in descriptors() if "eventfd" in name]
        return [left, withdraw(pipe.offer())]

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        try:
            told = [in_fork(child) for _ in range(15)]
        finally:
            over.set()
        for worker in workers:
            worker.result(20)
    assert told == ["[[], True]"] * 15


# ===================================================================== exit
def run(program: str, **more: str) -> tuple[float, str]:
    """In a fresh interpreter, with all warnings as errors: seconds from its last line to its end, and what it said."""
    text = f"{program}\nimport sys, time\nprint(time.monotonic(), file=sys.stderr, flush=True)\n"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **more},
        check=False,
    )
    now = time.monotonic()
    assert done.returncode == 0, done.stderr
    last, *rest = done.stderr.splitlines()
    assert not rest, done.stderr
    return now - float(last), done.stdout


OFFERING = """
import os
from chanlib.processes import broker
kept = [broker.offer(os.pipe(), print) for _ in range(3)]
"""


@pytest.mark.parametrize("way", ["", "posix"])
def test_the_interpreter_exits_at_once_and_cleanly(way: str) -> None:
    seconds, said = run(OFFERING, CHANLIB_PROCESSES=way)
    assert said == ""
    assert seconds < 5  # generous: to wait for anything here would take longer


def test_it_exits_cleanly_in_the_middle_of_work() -> None:
    run(
        OFFERING
        + """
import threading
def work():
    while True:
        broker.withdraw(broker.offer([0], print))
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
"""
    )


def test_children_that_are_joined_at_exit_still_claim() -> None:
    _, said = run(
        OFFERING
        + """
import atexit, multiprocessing
def child(pipe):
    os.write(broker.claim(pipe.recv())[1], b"claimed")
context = multiprocessing.get_context("fork")
near, far = context.Pipe()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
process = context.Process(target=child, args=(far,))
process.start()
reading, writing = os.pipe()
os.set_blocking(reading, False)
def at_exit():
    near.send(broker.offer([reading, writing], print))
    near.close(), far.close()
atexit.register(at_exit)  # before multiprocessing joins
from multiprocessing import util
util.Finalize(None, lambda: print(os.read(reading, 10)), exitpriority=-1)  # after it has
"""
    )
    assert said == "b'claimed'\n"


# ===================================================================== where there are no abstract sockets
def test_without_abstract_sockets_the_sharer_is_used(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_has_abstract_sockets", lambda: False)
    offered = pipe.offer()
    assert not brokers()
    monkeypatch.undo()
    say(offered, b"claimed by its looks")
    assert pipe.text() == b"claimed by its looks"


def test_abstract_sockets_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broker._has_abstract_sockets()
    broker._has_abstract_sockets.cache_clear()
    monkeypatch.delattr(os, "eventfd")
    assert not broker._has_abstract_sockets()
    broker._has_abstract_sockets.cache_clear()


def test_the_sharer_refuses_who_has_no_key(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANLIB_PROCESSES", "posix")
    offered = pipe.offer()

    def stranger() -> object:
        multiprocessing.current_process().authkey = b"wrong"
        return claim(offered)

    assert "refuses" in in_fork(stranger)
    assert withdraw(offered)
