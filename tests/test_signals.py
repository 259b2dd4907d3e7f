"""signals: signals of the operating system, received like values. All of it in the main thread, on its own process.

Behaviour follows Go's `signal.Notify` tests and trio's `open_signal_receiver` tests; the docstring of a test names
which, where it follows one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from elsewhere import asleep
from worlds import ChildCancelled, World, settle, settle_here, spawn

from chanlib import ChannelEmpty, EndOfChannel, Event, ReceiveSide, Signals, WouldBlock, never, select, signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals on this system")

ONE, TWO = getattr(signal, "SIGUSR1", signal.SIGINT), getattr(signal, "SIGUSR2", signal.SIGINT)


@pytest.fixture(autouse=True)
def before() -> Iterator[list[int]]:
    """Handlers that note what reaches them while no `signals()` is there; afterwards it must be theirs again."""
    reached: list[int] = []

    def note(signum: int, _frame: Any) -> None:
        reached.append(signum)

    old = {signum: signal.signal(signum, note) for signum in (ONE, TWO)}
    yield reached
    left = {signum: signal.signal(signum, handler) for signum, handler in old.items()}
    assert set(left.values()) == {note}


def kill(*signums: int) -> None:
    """Send them to ourselves; in the main thread the handlers have run when this returns."""
    for signum in signums:
        os.kill(os.getpid(), signum)


def taken(received: Signals) -> list[signal.Signals]:
    found: list[signal.Signals] = []
    try:
        while True:
            found.append(received.receive_nowait())
    except (ChannelEmpty, EndOfChannel):
        return found


def started(step: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=step)
    thread.start()
    return thread


# ----------------------------------------------------------------- receiving
def test_a_signal_that_has_come_is_received(world: World) -> None:
    """Go: os/signal, `TestSignal`."""

    async def body() -> None:
        with signals(ONE, TWO) as received:
            with pytest.raises(ChannelEmpty):
                received.receive_nowait()
            kill(ONE)
            got = await received.receive()
            assert got is signal.Signals(ONE)
            kill(TWO, ONE)
            assert [await received.receive() for _ in range(2)] == [TWO, ONE]  # in the order of their coming
            kill(TWO)
            assert received.receive_nowait() == TWO
            assert taken(received) == []

    world.run(body)


def test_a_signal_wakes_who_waits(world: World) -> None:
    """trio: test_signals, `test_open_signal_receiver`."""

    async def body() -> None:
        with signals(ONE) as received:
            for _ in range(5):
                receiving = spawn(received.receive)
                await settle(lambda: received.statistics().waiting_receivers == 1)
                kill(ONE)
                assert await receiving.wait() == ONE

    world.run(body)


def test_a_signal_wakes_a_program_that_sleeps(world: World) -> None:
    """The main thread has nothing else to do: a loop sleeps in its selector, a thread on a lock."""
    main = threading.get_native_id()
    rounds = 15

    def strike(received: Signals) -> None:
        for _ in range(rounds):
            settle_here(lambda: received.statistics().waiting_receivers == 1 and asleep(main))
            before = received.statistics().received
            os.kill(os.getpid(), ONE)
            settle_here(lambda before=before: received.statistics().received > before)

    async def body() -> None:
        with signals(ONE) as received:
            thread = started(lambda: strike(received))
            for _ in range(rounds):
                assert await received.receive() == ONE
            thread.join()

    world.run(body)


def test_a_signal_wakes_a_plain_main_thread() -> None:
    main = threading.get_native_id()
    with signals(ONE, TWO) as received:

        def strike() -> None:
            for n, signum in enumerate((ONE, TWO)):
                settle_here(lambda n=n: (now := received.statistics()).waiting_receivers == 1 and now.received == n)
                settle_here(lambda: asleep(main))
                os.kill(os.getpid(), signum)

        thread = started(strike)
        assert received.receive().sync() == ONE
        assert select(never(), received).sync(60) == (1, TWO)
        thread.join()


def test_another_thread_may_receive() -> None:
    with signals(ONE) as received:
        got: list[signal.Signals] = []
        thread = started(lambda: got.append(received.receive().sync()))
        settle_here(lambda: received.statistics().waiting_receivers == 1)
        kill(ONE)
        settle_here(lambda: got)
        thread.join()
        assert got == [ONE]


def test_each_signal_goes_to_one_receiver(world: World) -> None:
    async def body() -> None:
        with signals(ONE, TWO) as received:
            receiving = [spawn(received.receive) for _ in range(2)]
            await settle(lambda: received.statistics().waiting_receivers == 2)
            kill(ONE, TWO)
            assert {await child.wait() for child in receiving} == {ONE, TWO}

    world.run(body)


def test_only_the_signals_asked_for_are_received(before: list[int]) -> None:
    """Go: os/signal, `TestSignal`: a channel gets what it was registered for."""
    with signals(ONE) as received:
        kill(TWO)
        assert taken(received) == []
        assert before == [TWO]


# ----------------------------------------------------------------- coalescing
def test_deliveries_of_one_signal_that_was_not_received_yet_are_one(world: World) -> None:
    """trio: test_signals, `test_open_signal_receiver`: delivery is level-triggered."""

    async def body() -> None:
        with signals(ONE, TWO) as received:
            kill(ONE, ONE, TWO, ONE, TWO)
            assert taken(received) == [ONE, TWO]
            kill(ONE, ONE)
            assert await received.receive_some() == [ONE]
            kill(TWO, ONE, TWO)
            assert await received.receive_some(1) == [TWO]
            kill(TWO)
            assert await received.receive_some() == [ONE, TWO]
            assert taken(received) == []

    world.run(body)


def test_a_signal_that_comes_after_the_last_was_received_is_another_one(world: World) -> None:
    async def body() -> None:
        with signals(ONE) as received:
            for _ in range(50):
                kill(ONE)
                assert (await select(never(), received))[1] == ONE
            assert received.statistics().sent == 50
            assert taken(received) == []

    world.run(body)


def test_a_number_that_is_given_twice_counts_once() -> None:
    with signals(ONE, ONE) as received:
        kill(ONE)
        kill(ONE)
        assert taken(received) == [ONE]


def test_a_receive_that_gives_up_takes_no_signal(loop_world: World) -> None:
    async def body() -> None:
        with signals(ONE) as received:
            with pytest.raises(TimeoutError):
                await received.receive().within(0.001)
            receiving = spawn(received.receive)
            await settle(lambda: received.statistics().waiting_receivers == 1)
            receiving.cancel()
            with pytest.raises(ChildCancelled):
                await receiving.wait()
            kill(ONE, ONE)
            assert taken(received) == [ONE]
            kill(ONE)
            assert taken(received) == [ONE]  # nothing is pending for ever

    loop_world.run(body)


# ----------------------------------------------------------------- handlers
def test_the_handlers_of_before_are_back_after_with(before: list[int]) -> None:
    """trio: test_signals, `test_open_signal_receiver`."""
    handlers = [signal.getsignal(ONE), signal.getsignal(TWO)]
    with signals(ONE, TWO):
        kill(ONE, TWO)
        assert before == []
    assert [signal.getsignal(ONE), signal.getsignal(TWO)] == handlers
    kill(ONE)
    assert before == [ONE]


def test_the_handlers_of_before_are_back_after_an_error(world: World, before: list[int]) -> None:
    async def body() -> None:
        with pytest.raises(OSError, match="disk"), signals(ONE):
            raise OSError("disk")

    world.run(body)
    kill(ONE)
    assert before == [ONE]


@pytest.mark.parametrize("kind", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_was_ignored_or_left_to_the_system_is_so_again(kind: Any) -> None:
    old = signal.signal(ONE, kind)
    try:
        with signals(ONE) as received:
            kill(ONE)
            assert taken(received) == [ONE]
        assert signal.getsignal(ONE) == kind
    finally:
        signal.signal(ONE, old)


def test_of_nested_ones_the_inner_receives_and_then_the_outer_again(before: list[int]) -> None:
    with signals(ONE, TWO) as outer:
        with signals(ONE) as inner:
            kill(ONE, TWO)
            assert taken(inner) == [ONE]
            assert taken(outer) == [TWO]
        kill(ONE)
        assert taken(outer) == [ONE]
    kill(ONE)
    assert before == [ONE]


def test_closed_in_the_other_order_they_leave_the_handler_of_before(before: list[int]) -> None:
    """Else a handler of something closed would swallow SIGTERM for the rest of the program."""
    outer = signals(ONE)
    inner = signals(ONE)
    mine = signal.getsignal(ONE)
    outer.close()
    kill(ONE)
    assert taken(inner) == [ONE]
    assert signal.getsignal(ONE) == mine
    inner.close()
    kill(ONE)
    signal.signal(ONE, signal.getsignal(TWO))  # so that a failure spoils no other test
    assert before == [ONE]


def test_a_handler_that_somebody_put_in_our_place_stays(before: list[int]) -> None:
    later: list[int] = []
    theirs = signal.getsignal(ONE)
    with signals(ONE):
        signal.signal(ONE, lambda signum, frame: later.append(signum))
    kill(ONE)
    assert later == [ONE]
    assert before == []
    signal.signal(ONE, theirs)


def test_the_same_signals_can_be_had_again_and_again(before: list[int]) -> None:
    """Go: os/signal, `TestReset`, `TestStop`."""
    for _ in range(100):
        with signals(ONE) as received:
            kill(ONE)
            assert taken(received) == [ONE]
        kill(ONE)
    assert before == [ONE] * 100


# ----------------------------------------------------------------- the end
def test_close_gives_the_rest_and_then_the_end(world: World) -> None:
    """Go: os/signal, `TestStop`; `signal.Stop` leaves what is in the channel."""

    async def body() -> None:
        received = signals(ONE, TWO)
        kill(ONE, TWO)
        assert received.close() is True
        assert received.close() is False
        assert received.is_closed
        assert [signum async for signum in received] == [ONE, TWO]
        with pytest.raises(EndOfChannel):
            await received.receive()

    world.run(body)


def test_close_ends_all_who_wait(world: World) -> None:
    async def body() -> None:
        received = signals(ONE)

        async def collect() -> list[signal.Signals]:
            return [signum async for signum in received]

        waiting = [spawn(received.receive), spawn(lambda: select(received, Event()))]
        looping = spawn(collect)
        await settle(lambda: received.statistics().waiting_receivers == 3)
        received.close()
        errors = []
        for child in waiting:
            with pytest.raises(EndOfChannel) as ended:
                await child.wait()
            errors.append(ended.value)
        assert errors[0] is not errors[1]
        assert errors[1].arm == 0
        assert await looping.wait() == []

    world.run(body)


def test_for_in_a_plain_thread() -> None:
    received = signals(ONE)
    got: list[signal.Signals] = []
    thread = started(lambda: got.extend(received))
    for n in range(1, 4):
        settle_here(lambda: received.statistics().waiting_receivers == 1)
        kill(ONE)
        settle_here(lambda n=n: len(got) == n)
    settle_here(lambda: received.statistics().waiting_receivers == 1)
    received.close()
    thread.join()
    assert got == [ONE] * 3


def test_for_in_the_thread_of_a_loop_is_refused(loop_world: World) -> None:
    async def body() -> None:
        with signals(ONE) as received:
            kill(ONE)
            with pytest.raises(RuntimeError, match=r"signals.*async for"):
                list(received)
            assert taken(received) == [ONE]

    loop_world.run(body)


# ----------------------------------------------------------------- select
def test_it_is_an_arm_that_wins_and_one_that_loses(world: World) -> None:
    async def body() -> None:
        with signals(ONE) as received:
            stop = Event()
            selecting = spawn(select, stop, received)
            await settle(lambda: received.statistics().waiting_receivers == 1)
            kill(ONE)
            assert await selecting.wait() == (1, ONE)
            selecting = spawn(select, stop, received.receive())
            await settle(lambda: received.statistics().waiting_receivers == 1)
            stop.set()
            assert await selecting.wait() == (0, None)
            assert received.statistics().waiting_receivers == 0
            kill(ONE)
            assert await select(stop, received, biased=True) == (0, None)
            assert taken(received) == [ONE]
            with pytest.raises(WouldBlock):
                select(never(), received).poll()

    world.run(body)


def test_a_signal_that_comes_in_the_middle_of_a_receive_is_not_lost() -> None:
    """A thread sends one after another, while the main thread is busy receiving."""
    with signals(ONE, TWO) as received:
        rounds = 200
        seen: list[int] = []

        def strike() -> None:
            for n in range(rounds):
                os.kill(os.getpid(), (ONE, TWO)[n % 2])
                settle_here(lambda n=n: len(seen) > n)

        thread = started(strike)
        while len(seen) < rounds:
            try:
                seen.append(received.receive_nowait())
            except ChannelEmpty:
                time.sleep(0)
        thread.join()
        assert seen == [ONE, TWO] * (rounds // 2)


# ----------------------------------------------------------------- looking, and bad input
def test_it_fits_the_protocol_of_a_receiving_side_and_tells_what_it_is() -> None:
    with signals(ONE, TWO) as received:
        assert isinstance(received, ReceiveSide)
        assert repr(received) == "<signals SIGUSR1, SIGUSR2>"
        kill(ONE)
        assert received.statistics().buffered == 1
    assert "closed" in repr(received)


def test_off_the_main_thread_they_are_neither_made_nor_closed(before: list[int]) -> None:
    """Python handles signals in the main thread only."""
    errors: list[BaseException] = []

    def attempt(call: Callable[[], object]) -> None:
        def run() -> None:
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

        started(run).join()

    attempt(lambda: signals(ONE))
    with signals(ONE) as received:
        attempt(received.close)
        assert not received.is_closed
        kill(ONE)
        assert taken(received) == [ONE]
    assert len(errors) == 2
    for error in errors:
        assert "main thread" in str(error)
    kill(ONE)
    assert before == [ONE]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_cannot_be_caught_is_refused_and_the_others_are_let_go(signum: int, before: list[int]) -> None:
    """trio: test_signals, `test_open_signal_receiver_restore_handler_after_one_bad_signal`."""
    with pytest.raises(ValueError, match=rf"caught.*{signal.Signals(signum).name}"):
        signals(ONE, signum, TWO)
    kill(ONE, TWO)
    assert before == [ONE, TWO]


@pytest.mark.parametrize("signum", [0, -1, 1000, 2**70])
def test_a_number_that_is_no_signal_is_a_value_error(signum: int, before: list[int]) -> None:
    with pytest.raises(ValueError, match=r"signum must be a signal of this system, not "):
        signals(ONE, signum)
    kill(ONE)
    assert before == [ONE]


@pytest.mark.parametrize("signum", [None, "SIGUSR1", 10.0, True, [10]])
def test_what_is_no_number_is_a_type_error(signum: Any, before: list[int]) -> None:
    with pytest.raises(TypeError, match=r"signum must be a signal number, not "):
        signals(ONE, signum)
    kill(ONE)
    assert before == [ONE]


def test_no_signal_at_all_is_a_value_error() -> None:
    """trio: test_signals, `test_open_signal_receiver_empty_fail`."""
    with pytest.raises(ValueError, match="at least one signal"):
        signals()


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals on this system")
def test_a_signal_that_has_no_name_is_received_like_any_other() -> None:
    """Go: os/signal takes any number; `signal.valid_signals()` has real-time signals without a name of their own."""
    nameless = getattr(signal, "SIGRTMIN", 0) + 1
    assert nameless in signal.valid_signals()
    with signals(nameless) as received:
        kill(nameless)
        assert [int(signum) for signum in taken(received)] == [nameless]
        assert repr(received)
