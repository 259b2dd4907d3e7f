"""Channels between processes that share no memory, as on Windows: one process is the hub, the others ask it.

What is the same in every transport is tested by the tests of process channels, a good part of which is run here once
more, in a process of their own with `CHANLIB_PROCESSES=pump`. So are the tests of this module, about what only a pump
has: a hub that dies or is stopped, connections, answers that come late.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from process_jobs_faults import Child, Tell, forked, until

from chanlib import BrokenChannel, ChannelClosed, ChannelFull, EndOfChannel, after, run, select
from chanlib._core import threads
from chanlib.processes import (
    ProcessChannel,
    ProcessEvent,
    ProcessFuture,
    ProcessLock,
    ProcessSemaphore,
    open_process_channel,
    open_process_future,
)
from chanlib.processes.features import WANTED
from chanlib.processes.offers import HandoverError

TESTS = Path(__file__).parent
PUMP = WANTED == "pump"
KINDS: list[Any] = ["threads", "asyncio", "trio"]
SOON = 10.0  # seconds: a safety net

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
only_here = pytest.mark.skipif(not PUMP, reason="run in a process of its own, where the pump is chosen")

# What concerns the ring, its memory and its locks, or halts the hub inside of its own; what counts threads that are
# idle, or descriptors without waiting for those of a connection to be closed; what expects a death to be felt at once.
NOT_HERE = [
    "memory",
    "no_descriptor_is_free",
    "no_descriptor_to_wait_by",
    "leave_nothing_behind",
    "nothing_left_behind",
    "count_no_more",
    "stopped_anywhere",
    "becomes_one",
    "have_gone_before",
    "beside_any_other_arm",  # known to fail in the ring
    "in_another_process",
    "does_not_unpickle_fails",
    "handle_of_a_process_that_has_gone",
]
SELECTIONS = {
    "of the pump": (["test_processes_pump.py"], "not selection"),
    "channel": (["test_processes_channel.py"], "ends and (trio or threads) or cancelled_at_any_moment"),
    "ends": (["test_processes_faults_ends.py"], ""),
    "passing": (["test_processes_passing.py"], "argument or executor or queue or channel"),
    "children": (["test_processes_children.py"], ""),
    "pools": (["test_processes_pool.py", "test_processes_pool_map.py"], ""),
}


@pytest.mark.skipif(PUMP, reason="this is the other process")
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name",
    ["of the pump", *(pytest.param(name, marks=pytest.mark.stress) for name in SELECTIONS if name != "of the pump")],
)
def test_a_selection_of_the_tests_passes_through_a_pump(name: str) -> None:
    files, wanted = SELECTIONS[name]
    chosen = " and ".join(f"not {word}" for word in NOT_HERE)
    if wanted:
        chosen = f"({wanted}) and {chosen}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-k", chosen]
    done = subprocess.run(
        # what is known to fail in the ring need not fail here
        [*command, "-o", "xfail_strict=false", *files],
        cwd=TESTS,
        env={**os.environ, "CHANLIB_PROCESSES": "pump"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


# ===================================================================== what only a pump has
@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Connections, and the threads that serve them, are gone a moment after the ends are closed."""

    def count() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count() - threads.idle_threads()

    if not os.path.isdir("/proc/self/fd"):
        yield
        return
    before = count()
    yield
    with suppress(AssertionError):
        until(lambda: count() <= before, "", SOON)
    assert count() <= before, [one.name for one in threading.enumerate()]


@contextmanager
def hub(capacity: float, body: Callable[[Any, Any], object] | None = None) -> Generator[tuple[Child, Any, Any]]:
    """A channel that another process has made: that process, which does this with it and then keeps no end of it open;
    and both ends, here."""

    def live(tell: Tell) -> None:
        tx, rx = open_process_channel[Any](capacity)
        tell(pickle.dumps((tx, rx)).hex())
        if body is not None:
            body(tx, rx)
        tx.close()
        rx.close()
        signal.pause()

    with forked(live) as child:
        tx, rx = pickle.loads(bytes.fromhex(child.says()))
        with tx, rx:
            yield child, tx, rx


@only_here
@forks
@pytest.mark.usefixtures("nothing_left")
def test_order_and_capacity_over_three_processes() -> None:
    """Two produce, this one is the hub and waits, another consumes: never more inside than the capacity."""
    tx, rx = open_process_channel[Any](3)
    back, results = open_process_channel[Any](1)
    with results:

        def produce(tell: Tell, who: int) -> None:
            with tx, tx.clone() as mine:
                for n in range(300):
                    mine.send((who, n, len(mine))).sync(SOON)

        def consume(tell: Tell) -> None:
            mine = rx.clone()
            for end in (tx, rx):
                end.close()
            found = list(mine)
            back.send(found).sync(SOON)

        with (
            forked(lambda tell: produce(tell, 0)) as first,
            forked(lambda tell: produce(tell, 1)) as second,
            forked(consume) as third,
        ):
            for end in (tx, rx, back):
                end.close()
            found = results.receive().sync(SOON)
            assert {child.wait() for child in (first, second, third)} == {0}
    assert len(found) == 600
    for who in (0, 1):
        assert [n for whose, n, _ in found if whose == who] == list(range(300))
    assert max(inside for _, _, inside in found) <= 3


@only_here
@forks
@pytest.mark.parametrize("sends", [True, False], ids=["senders", "receivers"])
@pytest.mark.usefixtures("nothing_left")
def test_a_hub_that_is_killed_breaks_the_channel_for_all(sends: bool) -> None:
    with hub(1) as (child, tx, rx):
        if sends:
            tx.send_nowait(0)
        ended: dict[str, tuple[str, float]] = {}

        def live(kind: Any) -> None:
            async def main() -> None:
                await (tx.send(1) if sends else rx.receive())

            try:
                run(main, backend=kind)
            except ChannelClosed as error:
                ended[kind] = type(error).__name__, time.monotonic()

        waiting = [threading.Thread(target=live, args=(kind,)) for kind in KINDS]
        for thread in waiting:
            thread.start()
        until(lambda: sum(tx.statistics()[2:4]) == 3, "not all of them wait")
        child.kill()
        killed = time.monotonic()
        for thread in waiting:
            thread.join(SOON)
        assert {kind: how for kind, (how, _) in ended.items()} == dict.fromkeys(KINDS, "BrokenChannel")
        assert max(when for _, when in ended.values()) - killed < 1.0
        for act in (lambda: tx.send_nowait(1), rx.receive_nowait, lambda: tx.send_some([1]).poll()):
            with pytest.raises(BrokenChannel):
                act()
        assert rx.drain() == []
        with pytest.raises((HandoverError, OSError)):
            pickle.dumps(tx)


@only_here
@forks
@pytest.mark.usefixtures("nothing_left")
def test_a_hub_without_an_end_of_its_own_serves_the_others() -> None:
    with hub(2) as (_, tx, rx):
        until(lambda: rx.statistics()[4:6] == (1, 1), "its own ends are closed")
        with pickle.loads(pickle.dumps(tx)) as twin:
            assert rx.statistics().senders == 2
            twin.send_nowait(1)
        tx.send_nowait([2])
        with pytest.raises(ChannelFull):
            tx.send_nowait(3)
        assert rx.drain() == [1, [2]]
        tx.close()
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()


@only_here
@forks
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("rounds", [1000])
def test_a_receive_that_is_cancelled_in_another_process_consumes_nothing(rounds: int) -> None:
    def send(tx: Any, rx: Any) -> None:
        for n in range(10**6):
            tx.send(n).sync(SOON)
            time.sleep(0.003)

    async def main() -> None:
        chance = random.Random(5)
        got: list[int] = []

        async def take() -> None:
            while True:
                if chance.randrange(2):
                    got.append(await rx.receive())
                else:
                    got.extend(await rx.receive_some(2))

        for _ in range(rounds):
            task = asyncio.create_task(take())
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        got.append(await rx.receive())
        assert got == list(range(len(got)))

    with hub(2, send) as (_, _tx, rx):
        asyncio.run(main())


@only_here
@forks
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_left")
def test_a_select_over_two_hubs_in_every_loop(kind: Any) -> None:
    async def main() -> None:
        assert (await select(rx, there, after(0.01)))[0] == 2
        tx.send_nowait("a")
        assert await select(rx, there, after(60)) == (0, "a")
        here.send_nowait(["b"])
        assert await select(rx, there, after(60)) == (1, ["b"])
        assert (await select(tx.send("c"), there, after(60)))[0] == 0
        later = threading.Timer(0.02, lambda: here.send_nowait("d"))
        later.start()
        rx.drain()
        assert await select(rx, there, after(60)) == (1, "d")
        later.join()

    here, there = open_process_channel[Any](3)
    with here, there, hub(3) as (_, tx, rx):
        run(main, backend=kind)


@only_here
@forks
@pytest.mark.usefixtures("nothing_left")
def test_large_values_and_such_that_do_not_pickle() -> None:
    with hub(3) as (_, tx, rx):
        data = os.urandom(5_000_000)
        tx.send(data).sync(SOON)
        tx.send([bytearray(data), data]).sync(SOON)
        assert rx.receive().sync(SOON) == data
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            tx.send_nowait(threading.Lock())
        assert rx.receive().sync(SOON) == [data, data]
        assert len(tx) == 0
        tx.send_nowait(b"seen")
        with rx.receive_view().sync(SOON) as view:
            assert isinstance(view, memoryview)
            assert view.readonly
            assert view == b"seen"


@only_here
@forks
def test_a_value_that_a_killed_receiver_has_not_acknowledged_is_received_by_the_next() -> None:
    """In its old place. One that it has acknowledged is not."""
    from chanlib.processes.links import connect, exchange

    tx, rx = open_process_channel[Any](5)
    with tx, rx:
        for n in range(5):
            tx.send_nowait(n)
        port: Any = rx._channel.inbound
        reception = port.receive()
        for takes in (True, False, False):
            stranger = connect(reception.address, reception.key)
            assert exchange(stranger, "open", 0, 1, None)
            assert len(exchange(stranger, "get", 1)) == 1
            if takes:
                assert exchange(stranger, "took", 1)
            else:
                assert len(rx) == 3
            stranger.close()
            until(lambda: rx.statistics().receivers == 1, "the hub has not noticed")
        assert rx.drain() == [1, 2, 3, 4]


@only_here
def test_who_does_not_know_the_key_is_turned_away() -> None:
    from chanlib.processes.links import connect

    tx, rx = open_process_channel[Any](5)
    with tx, rx:
        port: Any = rx._channel.inbound
        address = port.receive().address
        for _ in range(3):
            with pytest.raises(ConnectionError):
                connect(address, b"?" * 32)
        assert rx.statistics()[4:6] == (1, 1)
        with pickle.loads(pickle.dumps(tx)) as twin:
            twin.send_nowait(1)
        assert rx.receive_nowait() == 1


@only_here
@forks
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("nothing_left")
def test_a_hub_that_is_stopped_stops_nobody_for_good(kind: Any) -> None:
    """Whoever asks it goes on without an answer after a while; what was asked for is then not done, or put back."""

    async def main() -> None:
        began = time.monotonic()
        for op in (tx.send(1), rx.receive(), tx.send_some([2]), rx.receive_some(), rx.receive()):
            with suppress(TimeoutError):
                await op.within(0.1)
                raise AssertionError("nobody can have answered")
        assert time.monotonic() - began < 4.0
        child.signal(signal.SIGCONT)
        assert await rx.receive().within(SOON) == "there"
        for n in range(3):
            await tx.send(n).within(SOON)
        assert rx.drain() == [0, 1, 2]

    with hub(3) as (child, tx, rx):
        tx.send_nowait("there")
        child.signal(signal.SIGSTOP)
        until(child.stopped, "it does not stop")
        run(main, backend=kind)


@only_here
@forks
@pytest.mark.usefixtures("nothing_left")
def test_a_send_that_waits_while_the_hub_is_stopped_happens_once() -> None:
    with hub(3) as (child, tx, rx):
        child.signal(signal.SIGSTOP)
        until(child.stopped, "it does not stop")
        senders = [threading.Thread(target=lambda n=n: tx.send(n).sync(SOON)) for n in range(3)]  # type: ignore[misc]
        for thread in senders:
            thread.start()
        time.sleep(1.3)  # longer than they wait for an answer
        child.signal(signal.SIGCONT)
        for thread in senders:
            thread.join(SOON)
        assert sorted(rx.drain()) == [0, 1, 2]


@only_here
@pytest.mark.usefixtures("nothing_left")
def test_channels_leave_no_thread_and_no_descriptor() -> None:
    for n in range(20):
        tx, rx = open_process_channel[Any](2)
        both = ProcessChannel[Any](2)
        with tx, rx:
            with pickle.loads(pickle.dumps(tx)) as twin:
                twin.send_nowait([both, n])
            got = rx.receive_nowait()
            got[0].send_nowait(n)
            assert both.receive_nowait() == n
            tx.send_nowait([rx, both])  # nobody receives these
            both.send_nowait(both)
        del got, both


@only_here
@pytest.mark.parametrize(
    "make",
    [ProcessEvent, lambda: ProcessSemaphore(1), ProcessLock, ProcessFuture, open_process_future],
    ids=["event", "semaphore", "lock", "future", "promise"],
)
def test_what_needs_shared_memory_says_so(make: Callable[[], object]) -> None:
    with pytest.raises(NotImplementedError, match="memory that processes share"):
        make()


@only_here
def test_it_needs_nothing_that_only_posix_has() -> None:
    """An imitation of what Windows lacks: the modules are imported and a channel is used without it."""
    program = """
import os, select, socket, sys
sys.modules["fcntl"] = None
for module, names in (
    (os, "fork register_at_fork posix_fallocate sched_yield memfd_create eventfd"),
    (select, "poll"),
    (socket, "AF_UNIX SO_PEERCRED send_fds recv_fds SCM_RIGHTS"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
from chanlib.processes import open_process_channel
import pickle
tx, rx = open_process_channel(3)
with tx, rx:
    with pickle.loads(pickle.dumps(tx)) as twin:
        twin.send([1, "a"]).sync(5)
    assert rx.receive().sync(5) == [1, "a"]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
