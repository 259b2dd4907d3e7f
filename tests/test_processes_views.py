"""`receive_view`: a value that is looked at where it lies, for as long as a block lasts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from process_jobs_faults import Tell, forked, places, struck, thinned
from until import settle
from worlds import World

from chanlib import ChannelEmpty, EndOfChannel, HandleClosed, TaskGroup, after, select
from chanlib.processes import ProcessChannel

Open = Callable[..., tuple[Any, Any]]
SOON = 5.0  # seconds: a safety net

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_it_is_read_only_and_ends_with_the_block(opened: Open) -> None:
    tx, rx = opened(10)
    for value in (b"bytes", bytearray(b"array"), memoryview(b"view")):
        tx.send_nowait(value)
        with rx.receive_view().sync() as view:
            assert isinstance(view, memoryview)
            assert view.readonly
            assert view == value
            assert len(rx) == 1
        assert len(rx) == 0
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_other_values_are_as_receive_gives_them(opened: Open) -> None:
    tx, rx = opened(10)
    for value in (1, "text", [1, 2], None, 2**70, {"key": b"x" * 100}):
        tx.send_nowait(value)
        with rx.receive_view().sync() as got:
            assert got == value
            assert len(rx) == 0


def test_it_can_be_looked_at_as_an_array(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_nowait(np.arange(1000).tobytes())
    with rx.receive_view().sync() as view:
        array = np.frombuffer(view, np.int64)
        assert array.sum() == 499_500
        del array


def test_who_keeps_something_that_looks_into_it_is_told(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_nowait(bytes(80))
    lease = rx.receive_view().sync()
    array = np.frombuffer(lease.value, np.int64)
    with pytest.raises(BufferError, match="still looks"):
        lease.release()
    assert array.size == 10
    assert len(rx) == 0


def test_others_wait_meanwhile(world: World, opened: Open) -> None:
    async def body() -> None:
        tx, rx = opened(10)
        tx.send_some([b"1", b"2"]).poll()
        with await rx.receive_view() as view:
            with pytest.raises(ChannelEmpty):
                rx.receive_nowait()
            with pytest.raises(ChannelEmpty):
                rx.receive_view().poll()
            assert view == b"1"
        assert await select(rx.receive_view(), after(SOON)) != (1, None)

    world.run(body)


@pytest.mark.parametrize("value", [1, "text", b"bytes", b"x" * 5000], ids=["int", "str", "bytes", "spilled"])
def test_it_makes_room_and_is_counted(loop_world: World, opened: Open, value: Any) -> None:
    async def body() -> None:
        tx, rx = opened(1, buffer_bytes=1024)
        tx.send_nowait(value)
        op = tx.send(value)
        async with TaskGroup() as group:
            handle = group.start_soon(lambda: op)
            await settle(lambda: tx.statistics().waiting_senders == 1)
            with await rx.receive_view() as got:
                assert got == value
            await handle
        assert rx.statistics().received == 1

    loop_world.run(body)


def test_the_end_is_as_that_of_receive(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_nowait(b"last")
    tx.close()
    with rx.receive_view().sync() as view:
        assert view == b"last"
    with pytest.raises(EndOfChannel):
        rx.receive_view().poll()


# ===================================================================== while somebody looks
def test_an_end_that_is_closed_inside_the_block_leaves_the_value_where_it_is(opened: Open) -> None:
    tx, rx = opened(10)
    other = rx.clone()
    tx.send_some([b"AAA", b"BBB"]).poll()
    lease = rx.receive_view().sync()
    rx.close()
    with pytest.raises(ChannelEmpty):
        other.receive_nowait()
    assert lease.value == b"AAA"
    lease.release()
    assert other.receive_nowait() == b"BBB"
    other.close()


@forks
def test_the_last_end_here_closed_inside_the_block_too(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_some([b"AAA", b"BBB"]).poll()

    def body(tell: Tell) -> None:
        with rx.clone():
            tell("ready")
            signal.pause()

    with forked(body) as child:
        child.says()
        lease = rx.receive_view().sync()
        rx.close()
        tx.send_nowait(b"CCC")
        assert lease.value == b"AAA"
        lease.release()
        child.kill()
    tx.close()


@forks
def test_a_fork_does_not_end_the_lease_of_its_parent(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_some([b"AAA", b"BBB"]).poll()

    def body(tell: Tell) -> None:
        lease.release()
        tell("released")

    with rx.receive_view().sync() as view:
        lease = None
        with forked(lambda tell: tell("ended")) as child:
            child.says()
            child.wait()
        with pytest.raises(ChannelEmpty):
            rx.receive_nowait()
        assert view == b"AAA"
    lease = rx.receive_view().sync()
    with forked(body) as child:
        child.says()
        child.wait()
    with pytest.raises(ChannelEmpty):
        rx.receive_nowait()
    assert lease.value == b"BBB"
    lease.release()
    assert len(rx) == 0


@forks
def test_if_who_looks_is_killed_the_value_is_there_for_the_next(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_some([b"AAA", b"BBB"]).poll()

    def body(tell: Tell) -> None:
        with rx.clone() as mine, mine.receive_view().sync():
            tell("looks")
            signal.pause()

    with forked(body) as child:
        child.says()
        with pytest.raises(ChannelEmpty):
            rx.receive_nowait()
        child.kill()
        assert [rx.receive().sync(SOON), rx.receive().sync(SOON)] == [b"AAA", b"BBB"]


def test_cancel_takes_everything_away_but_what_is_looked_at() -> None:
    ch = ProcessChannel[Any](10)
    ch.send_some([b"a", b"b", b"c"]).poll()
    with ch.receive_view().sync() as view:
        assert ch.cancel()
        for _ in range(2):
            with pytest.raises(HandleClosed):
                ch.receive_nowait()
        assert len(ch) == 0
        assert view == b"a"
    assert len(ch) == 0


# ===================================================================== an interrupt
class Interrupted(BaseException):
    pass


@forks
# It may come before the operation is performed; in a finalizer; and its traceback looks into the memory.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("most", [30, pytest.param(10_000, marks=pytest.mark.stress)])
def test_an_interrupt_anywhere_leaves_no_lease(opened: Open, most: int) -> None:
    def look(rx: Any) -> None:
        with rx.receive_view().sync() as view:
            assert view == b"AAA"

    tx, rx = opened(10)
    tx.send_nowait(b"AAA")
    count = places(look, rx)

    def interrupted(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        for at in thinned(count, most):
            tx.send_some([b"AAA", b"BBB"]).poll()
            try:
                struck(at, look, rx, number=signal.SIGUSR1)
            except Interrupted:
                pass
            tx.send_nowait(b"CCC")
            got = [bytes(rx.receive().sync(SOON)) for _ in range(len(rx))]
            assert got in ([b"AAA", b"BBB", b"CCC"], [b"BBB", b"CCC"]), f"place {at} of {count}"
    finally:
        signal.signal(signal.SIGUSR1, before)
