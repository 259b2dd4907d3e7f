"""KeyboardInterrupt in the middle of what a lock, a semaphore, a watch, a barrier, a condition and a broadcast do.

As `test_interrupts`, whose way of striking at every place in turn it uses: an operation that was cut may have happened
or not, as a whole. Nobody else may lose a value, a turn or a wake by it.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from elsewhere import Elsewhere
from test_interrupts import Outcome, interrupted
from worlds import settle_here

from chanlib import (
    Barrier,
    Broadcast,
    ChannelEmpty,
    Condition,
    HandleClosed,
    Lagged,
    Lock,
    Semaphore,
    Subscription,
    Watch,
)


@pytest.fixture(autouse=True)
def sigint() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def everywhere(once: Callable[[int], Outcome]) -> None:
    """`once(at)` for each place in turn, until the operation is over before it is reached."""
    at = 0
    while once(at).reached:
        at += 1
    assert at > 20


def taken(subscription: Subscription[Any]) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            found.append(subscription.receive_nowait())
        except Lagged as error:
            found.append(f"missed {error.missed}")
        except (ChannelEmpty, HandleClosed):
            return found


def test_a_semaphore_gives_its_units_to_all_or_none_and_loses_none() -> None:
    def once(at: int) -> Outcome:
        sem = Semaphore(0)
        waiting = [Elsewhere(lambda: sem.acquire().sync()) for _ in range(2)]
        settle_here(lambda: sem.statistics().waiting == 2)
        outcome = interrupted(at, lambda: sem.release(3))
        if sem.statistics() == (0, 2):  # it has not happened
            sem.release(3)
        assert all(each.ends() for each in waiting), outcome
        assert sem.statistics() == (1, 0), outcome
        return outcome

    everywhere(once)


def test_a_lock_that_is_being_released_is_either_held_still_or_handed_over() -> None:
    def once(at: int) -> Outcome:
        lock = Lock()

        def hold() -> None:
            with lock:
                pass

        lock.acquire_nowait()
        waiting = Elsewhere(hold)
        settle_here(lambda: lock.statistics().waiting == 1)
        outcome = interrupted(at, lock.release)
        if outcome.cut and lock.statistics().owner is True and lock.statistics().waiting:
            lock.release()  # it has not happened: it is ours still
        assert waiting.ends(), outcome
        assert lock.statistics() == (False, None, 0), outcome
        return outcome

    everywhere(once)


def test_a_notification_that_is_cut_can_be_made_again() -> None:
    def once(at: int) -> Outcome:
        cond = Condition()

        def wait() -> None:
            with cond:
                cond.wait().sync()

        waiting = [Elsewhere(wait) for _ in range(2)]
        settle_here(lambda: cond.statistics() == (False, 2))
        cond.acquire_nowait()
        outcome = interrupted(at, cond.notify_all)
        # one who was claimed, but not served, comes again; one who was served wants the lock
        settle_here(lambda: cond.statistics().waiting + cond.lock.statistics().waiting == 2)
        cond.notify_all()
        cond.release()
        assert all(each.ends() for each in waiting), outcome
        assert cond.statistics() == (False, 0), outcome
        return outcome

    everywhere(once)


def test_a_watch_that_was_set_wakes_who_waits() -> None:
    def once(at: int) -> Outcome:
        watch = Watch(0)
        waiting = Elsewhere(watch.observe().wait_for(bool).sync)
        settle_here(lambda: watch.statistics().waiting == 1)
        outcome = interrupted(at, lambda: watch.set(1))
        if not watch.value:
            watch.set(1)
        assert waiting.ends(), outcome
        assert waiting.join() == 1
        return outcome

    everywhere(once)


def test_at_a_barrier_all_go_on_or_none() -> None:
    def once(at: int) -> Outcome:
        barrier = Barrier(3)
        waiting = [Elsewhere(barrier.wait().sync) for _ in range(2)]
        settle_here(lambda: barrier.statistics().waiting == 2)
        outcome = interrupted(at, lambda: barrier.wait().poll())
        # one who was claimed, but not served, comes again
        settle_here(lambda: barrier.statistics().waiting == 2 or all(each.ended for each in waiting))
        if barrier.statistics().waiting:  # not `poll`: one who comes again may be away for a moment
            assert barrier.wait().sync(20) in range(3), outcome
        assert all(each.ends() for each in waiting), outcome
        return outcome

    everywhere(once)


def test_a_receive_does_not_lose_what_a_waiting_sender_was_told_is_sent() -> None:
    """A value that the cut receive was taking may be lost, nothing else may."""

    def once(at: int) -> Outcome:
        broadcast = Broadcast[str](1, overflow="wait")
        mine = broadcast.subscribe()
        broadcast.send_nowait("first")
        waiting = Elsewhere(broadcast.send("second").sync)
        settle_here(lambda: broadcast.statistics().waiting_senders == 1)
        outcome = interrupted(at, mine.receive_nowait)
        got = taken(mine)
        assert waiting.ends(), outcome
        assert (got + taken(mine))[-1:] == ["second"], outcome
        return outcome

    everywhere(once)


def test_a_send_that_overwrites_is_counted_as_missed_or_has_not_happened() -> None:
    def once(at: int) -> Outcome:
        broadcast = Broadcast[int](2)
        mine = broadcast.subscribe()
        broadcast.send_nowait(0)
        broadcast.send_nowait(1)
        outcome = interrupted(at, lambda: broadcast.send_nowait(2))
        broadcast.send_nowait(3)
        got = taken(mine)
        # it happened; it did not; or what was to be overwritten is gone, and is told
        assert got in (["missed 2", 2, 3], ["missed 1", 1, 3]), (got, outcome)
        broadcast.send_nowait(4)
        assert taken(mine) == [4], outcome
        return outcome

    everywhere(once)


def test_nobody_waits_for_a_subscriber_that_nobody_has() -> None:
    def once(at: int) -> Outcome:
        broadcast = Broadcast[int](2, overflow="wait", replay=2)
        broadcast.send_nowait(0)
        broadcast.send_nowait(1)
        outcome = interrupted(at, lambda: broadcast.subscribe().close())
        if broadcast.statistics().subscribers:  # the error may be in a cycle that leads to it
            gc.collect()
        assert broadcast.statistics().subscribers == 0, outcome
        for n in range(4):
            broadcast.send_nowait(n)
        assert broadcast.statistics().buffered == 2, outcome
        return outcome

    everywhere(once)


def test_nobody_waits_for_a_subscriber_that_has_left() -> None:
    def once(at: int) -> Outcome:
        broadcast = Broadcast[int](2, overflow="wait")
        mine = broadcast.subscribe()
        broadcast.send_nowait(0)
        broadcast.send_nowait(1)
        waiting = Elsewhere(broadcast.send(2).sync)
        settle_here(lambda: broadcast.statistics().waiting_senders == 1)
        outcome = interrupted(at, mine.close)
        mine.close()
        assert broadcast.statistics().subscribers == 0, outcome
        assert waiting.ends(), outcome
        assert broadcast.statistics().buffered == 0, outcome
        return outcome

    everywhere(once)
