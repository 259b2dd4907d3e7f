"""Nothing is left behind, whatever happens: descriptors, processes, threads, files; and what runs out is an OSError.

Also what pickled handles that are foreign, old or torn come to.

Cases 25, 29, 30 and 31 of the notes on processes.
"""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from process_jobs_faults import Tell, forked, until

from chanlib import BrokenChannel, EndOfChannel
from chanlib.processes import ProcessChannel, memory, open_process_channel
from chanlib.processes.conduit import Conduit

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="this system does not say what is open")

SOON = 5.0
CAPACITY = 5
POSIX = os.environ.get("CHANLIB_PROCESSES") == "posix"


@pytest.fixture(autouse=True, scope="module")
def broker() -> Iterator[None]:
    """As long as something is on offer the broker is there, with its descriptors: it does not come and go."""
    tx, rx = open_process_channel[Any](1)
    with tx, rx:
        data = pickle.dumps(tx)
        yield
        pickle.loads(data).close()


def census() -> dict[str, Any]:
    """What there is of what is not to be left."""
    gc.collect()
    return {
        "descriptors": sorted(filter(None, (where(fd) for fd in os.listdir("/proc/self/fd")))),
        "threads": {thread.name for thread in threading.enumerate() if "chanlib" not in thread.name},
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "files": [name for folder in ("/dev/shm", tempfile.gettempdir()) for name in named(folder)],
    }


def where(fd: str) -> str | None:
    """What is open there, roughly; None if it is not any more."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition("[")[0]
    except OSError:
        return None


def named(folder: str) -> list[str]:
    """Others use these folders too."""
    return sorted(name for name in os.listdir(folder) if "chanlib" in name) if os.path.isdir(folder) else []


def same(before: dict[str, Any]) -> None:
    """As before, perhaps after a moment."""
    with suppress(AssertionError):
        until(lambda: census() == before, "", timeout=SOON)
    now = census()
    for what, there in before.items():
        more, less = Counter(now[what]) - Counter(there), Counter(there) - Counter(now[what])
        assert not more + less, f"{what}: {dict(more)} more, {dict(less)} less"


def use(tx: Any, rx: Any) -> None:
    for value in [1, "2", b"3" * 3000, (tx, rx)]:
        tx.send(value).sync(timeout=SOON)
        got = rx.receive().sync(timeout=SOON)
        if isinstance(got, tuple):
            for one in got:
                one.close()


# ===================================================================== nothing is left
@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_for_memory_has_no_name_whenever_an_interrupt_comes(
    nameless: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ANONYMOUS", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    else:
        try:
            os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR))
        except (AttributeError, OSError):
            pytest.skip("a file has a name here")
    os.utime(tmp_path, (0, 0))
    memory.Memory.create(4096).close()
    assert (tmp_path.stat().st_mtime == 0) is nameless
    opened = os.open

    def interrupt(*args: Any, **options: Any) -> int:
        os.close(opened(*args, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", interrupt)
        with pytest.raises(KeyboardInterrupt):
            memory.Memory.create(4096)
    assert not os.listdir(tmp_path)


def _channels(count: int) -> None:
    for _ in range(count):
        tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
        with tx, rx:
            use(tx, rx)
            tx.send_some([1, b"2" * 3000, tx]).poll()  # nobody ever receives these


def test_channels_leave_nothing() -> None:
    _channels(1)
    before = census()
    _channels(100)
    same(before)


@pytest.mark.stress
def test_a_thousand_channels_leave_nothing() -> None:
    _channels(1)
    before = census()
    _channels(1000)
    same(before)


def test_channels_whose_ends_went_to_another_process_leave_nothing() -> None:
    def one() -> None:
        tx, rx = open_process_channel[Any](CAPACITY)
        with tx, rx:
            data = pickle.dumps((tx, rx))

            def body(tell: Tell) -> None:
                use(*pickle.loads(data))

            with forked(body) as child:
                assert child.wait() == 0, child.says()

    one()
    before = census()
    for _ in range(10):
        one()
    same(before)


def test_channels_that_are_dropped_in_a_cycle_leave_nothing() -> None:
    def body(tell: Tell) -> None:
        before = census()
        cycle: list[Any] = []
        for _ in range(20):
            cycle = [ProcessChannel[Any](CAPACITY)]
            cycle.append(cycle)
            cycle[0].send_some([b"x" * 5000, cycle[0]]).poll()
        del cycle
        same(before)

    with forked(body) as child:  # it would crash, if memory was unmapped too early
        assert child.wait() == 0


def test_a_whole_group_of_processes_is_killed_and_nothing_is_left() -> None:
    before = census()
    _a_group_is_killed()
    same(before)


def _a_group_is_killed() -> None:
    with ExitStack() as stack:
        tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
        stack.enter_context(tx)
        stack.enter_context(rx)

        def leader(tell: Tell) -> None:
            os.setsid()
            own_tx, own_rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
            for number in range(3):
                if not os.fork():
                    mine = tx.clone(), own_tx.clone(), own_rx.clone()
                    tell(number)
                    while True:
                        mine[0].send(b"x" * 2000).sync()
                        mine[1].send(b"x" * 2000).sync()
                        mine[2].receive().sync()
            signal.pause()

        with forked(leader) as child:
            assert {child.says() for _ in range(3)} == {0, 1, 2}
            tx.close()
            assert len(rx.receive().sync(timeout=SOON)) == 2000
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        with suppress(BrokenChannel):
            while True:
                rx.receive().sync(timeout=SOON)


# ===================================================================== what runs out
def _limited(tell: Tell) -> None:
    """No descriptor is free, then one, then two ..., until all has succeeded."""
    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
    use(tx, rx)
    data = [pickle.dumps(tx) for _ in range(40)]
    operations: dict[str, Callable[[], Any]] = {
        "create": lambda: [one.close() for one in open_process_channel[Any](CAPACITY)],
        "send": lambda: tx.send_nowait(b"s" * 5000),
        "send an end": lambda: tx.send_nowait(rx),
        "pickle": lambda: pickle.dumps(rx),
        "unpickle": lambda: pickle.loads(data.pop()).close(),
    }
    top = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    failed: dict[str, int] = {}
    for name, operation in operations.items():
        failed[name] = 0
        for free in range(30):
            gc.collect()
            opened = len(os.listdir("/proc/self/fd"))
            filler = [os.open(os.devnull, os.O_RDONLY) for _ in range(top + 40 - opened)]
            limit = max(filler)
            for fd in filler[len(filler) - free :]:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 1, 4096))
            try:
                operation()
            except OSError as error:
                assert error.errno == errno.EMFILE, (name, free, repr(error))  # noqa: PT017
                failed[name] += 1
                del error
                done = False
            else:
                done = True
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            for fd in filler[: len(filler) - free]:
                os.close(fd)
            gc.collect()
            if not done:
                now = len(os.listdir("/proc/self/fd"))
                assert now <= opened, f"{name} with {free} free: {now} descriptors are open, {opened} were"
            inside = rx.drain()
            assert len(inside) == (done and name.startswith("send")), (name, free, inside)
            if done and name == "send":
                assert inside == [b"s" * 5000]
            elif inside:
                inside[0].close()
            del inside
            use(tx, rx)
            statistics = rx.statistics()
            if done:
                break
            assert min(statistics.senders, statistics.receivers) >= 1, (name, free, statistics)
        assert done, f"{name} did not succeed with {free} descriptors either"
    tell(failed)


@pytest.mark.stress
def test_no_descriptor_is_free_and_nothing_is_lost() -> None:
    with forked(_limited) as child:
        failed = child.says()
        assert child.wait() == 0
    for name in ("create", "send", "send an end", "pickle"):
        assert failed[name] > 0, failed


def test_no_memory_can_be_had() -> None:
    def body(tell: Tell) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
        before = census()
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                open_process_channel[Any](CAPACITY)
            with pytest.raises(OSError, match="File too large"):
                tx.send_nowait(b"x" * 100_000)
        assert census() == before
        assert rx.drain() == []
        use(tx, rx)
        tell("done")

    with forked(body) as child:
        assert child.says() == "done"


def test_no_memory_can_be_had_at_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    tx, rx = open_process_channel[Any](CAPACITY, buffer_bytes=512)
    with tx, rx:
        before = census()
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            for _ in range(3):
                with pytest.raises(OSError, match="no space left"):
                    open_process_channel[Any](CAPACITY)
                with pytest.raises(OSError, match="no space left"):
                    tx.send_nowait(b"x" * 5000)
        same(before)
        assert len(rx) == 0
        use(tx, rx)


@pytest.mark.skipif(not hasattr(os, "memfd_create") or POSIX, reason="a file on a disk takes no memory")
def test_more_memory_than_there_is_is_refused_before_the_kernel_kills_somebody() -> None:
    there = {line.split()[0]: int(line.split()[1]) << 10 for line in Path("/proc/meminfo").read_text().splitlines()}
    most = 1 << 35  # twice what is asked for
    if there["MemAvailable:"] + there["SwapFree:"] > most:
        pytest.skip(f"this machine has more than {most} bytes")
    before = census()
    with pytest.raises(OSError, match="bytes of memory cannot be had"):
        open_process_channel[Any](1, buffer_bytes=1 << 34)
    same(before)


# ===================================================================== what is not ours
def test_memory_that_another_process_could_shrink_is_refused() -> None:
    if not hasattr(os, "memfd_create") or POSIX:
        pytest.skip("no sealed memory here")
    before = census()
    fd = os.memfd_create("stranger")
    os.ftruncate(fd, 1 << 16)
    rest = [os.dup(fd) for _ in range(4)]
    with pytest.raises(ValueError, match="not sealed"):
        Conduit.arrive(b"k" * 16, [fd, *rest], True, True)
    same(before)


def test_memory_that_is_no_channel_is_refused() -> None:
    before = census()
    made = memory.Memory.create(1 << 16)
    fds = [os.dup(made.fd) for _ in range(5)]
    made.close()
    del made  # and what is mapped
    with pytest.raises(ValueError, match="of this version of chanlib"):
        Conduit.arrive(b"k" * 16, fds, True, True)
    same(before)


def test_a_pickled_end_gives_one_clone() -> None:
    tx, rx = open_process_channel[Any](CAPACITY)
    with tx, rx:
        data = pickle.dumps(tx)
        pickle.loads(data).close()
        with pytest.raises((RuntimeError, OSError)):
            pickle.loads(data)
        with pytest.raises((RuntimeError, OSError, EOFError, pickle.UnpicklingError)):
            pickle.loads(data[: len(data) // 2])
        assert rx.statistics().senders == 1
        tx.close()
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()


def test_an_end_whose_process_has_gone_cannot_be_unpickled() -> None:
    reading, writing = os.pipe()

    def body(tell: Tell) -> None:
        tx, _rx = open_process_channel[Any](CAPACITY)
        os.write(writing, pickle.dumps(tx))
        os.kill(os.getpid(), signal.SIGKILL)

    with forked(body) as child:
        child.wait()
    data = os.read(reading, 1 << 16)
    os.close(reading)
    os.close(writing)
    before = census()
    with pytest.raises((RuntimeError, OSError), match=r"gone|refuse|No such"):
        pickle.loads(data)
    same(before)
