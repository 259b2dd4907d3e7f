"""Watch: a value of which only the latest counts, and observers who each know which change they have seen.

Behaviour follows tokio's `watch` tests (seen versions, close) and Kotlin's `StateFlow` tests (skipping, atomic
update); the docstring of a test names which, where it follows one.
"""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Any

import pytest
from values import Last, Thing
from worlds import ALL, ChildCancelled, Pair, World, collect, fail_in, run_together, settle, settle_here, spawn

from chanlib import (
    BrokenChannel,
    Channel,
    ChannelEmpty,
    EndOfChannel,
    Event,
    HandleClosed,
    Observer,
    Watch,
    WouldBlock,
    never,
    select,
)


async def parked(watch: Watch[Any], number: int = 1) -> None:
    await settle(lambda: watch.statistics().waiting == number)


def quiet(observer: Observer[Any]) -> bool:
    """Whether there is no change that it has not seen."""
    try:
        observer.changed().poll()
    except ChannelEmpty:
        return True
    return False


# ----------------------------------------------------------------- what an observer has seen
def test_the_first_value_counts_as_seen(world: World) -> None:
    """tokio: watch, `single_rx_recv`."""

    async def body() -> None:
        watch = Watch("one")
        mine = watch.observe()
        assert mine.value == watch.value == "one"
        assert quiet(mine)
        observing = spawn(mine.changed)
        await parked(watch)
        watch.set("two")
        assert await observing.wait() == "two"
        assert mine.value == watch.value == "two"
        assert quiet(mine)

    world.run(body)


def test_the_value_at_the_time_of_observing_counts_as_seen() -> None:
    """tokio: watch, `Sender::subscribe`: a late one has seen the present."""
    watch = Watch(0)
    early = watch.observe()
    watch.set(1)
    late = watch.observe()
    assert quiet(late)
    assert early.changed().poll() == 1
    watch.set(2)
    assert late.changed().poll() == 2


def test_each_observer_has_seen_what_it_has_seen(world: World) -> None:
    """tokio: watch, `multi_rx`."""

    async def body() -> None:
        watch = Watch(0)
        one, other = watch.observe(), watch.observe()
        watch.set(1)
        assert await one.changed() == 1
        assert quiet(one)
        watch.set(2)
        assert await other.changed() == 2
        assert quiet(other)
        assert await one.changed() == 2

    world.run(body)


def test_one_change_wakes_every_observer(world: World) -> None:
    """tokio: watch, `multi_rx`."""

    async def body() -> None:
        watch = Watch(0)
        observing = [spawn(watch.observe().changed) for _ in range(5)]
        await parked(watch, 5)
        watch.set(1)
        assert [await child.wait() for child in observing] == [1] * 5
        assert watch.statistics() == (1, 0)

    world.run(body)


def test_changes_that_nobody_came_for_are_skipped(world: World) -> None:
    """Kotlin: StateFlow conflates; tokio: watch, `rx_observes_final_value`."""

    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        for n in range(1, 6):
            watch.set(n)
        assert await mine.changed() == 5
        assert quiet(mine)
        assert watch.statistics().version == 5

    world.run(body)


def test_setting_an_equal_or_the_same_value_is_a_change(world: World) -> None:
    """tokio's `send`, unlike Kotlin's StateFlow."""

    async def body() -> None:
        value = [1]
        watch = Watch(value)
        mine = watch.observe()
        watch.set([1])
        assert await mine.changed() == [1]
        observing = spawn(mine.changed)
        await parked(watch)
        watch.set(value)
        assert await observing.wait() is value
        watch.update(lambda same: same)
        assert not quiet(mine)

    world.run(body)


def test_looking_at_the_value_is_not_seeing_the_change() -> None:
    """tokio: watch, `borrow_and_update` against `borrow`."""
    watch = Watch(0)
    mine = watch.observe()
    watch.set(1)
    assert mine.value == 1
    assert mine.value == 1
    assert mine.changed().poll() == 1
    assert quiet(mine)


def test_any_value_may_be_watched() -> None:
    watch = Watch[Any](None)
    mine = watch.observe()
    for value in (None, False, (), EndOfChannel, ValueError("not raised")):
        watch.set(value)
        assert mine.changed().poll() is value


# ----------------------------------------------------------------- wait_for
def test_wait_for_is_done_at_once_if_the_present_value_does(world: World) -> None:
    """tokio: watch, `Receiver::wait_for`: a value that has been seen is looked at as well."""

    async def body() -> None:
        watch = Watch(3)
        mine = watch.observe()
        assert await mine.wait_for(lambda n: n == 3) == 3
        assert mine.wait_for(lambda n: n > 2).poll() == 3
        assert await select(never(), mine.wait_for(lambda n: n > 2)) == (1, 3)
        assert await mine.wait_for(lambda n: n > 2).within(0) == 3

    world.run(body)


def test_wait_for_waits_for_a_value_that_does(world: World) -> None:
    """tokio: watch, `Receiver::wait_for`."""

    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        asked: list[int] = []

        def over_two(n: int) -> bool:
            asked.append(n)
            return n > 2

        observing = spawn(mine.wait_for, over_two)
        await parked(watch)
        for n in (1, 2):
            watch.set(n)
            await settle(lambda n=n: asked[-1] == n and watch.statistics().waiting == 1)
        watch.set(3)
        assert await observing.wait() == 3
        assert asked == [0, 1, 2, 3]  # once for each
        assert quiet(mine)
        assert watch.statistics().waiting == 0

    world.run(body)


def test_what_wait_for_gives_counts_as_seen_and_what_it_passed_by_does_not() -> None:
    watch = Watch(0)
    mine = watch.observe()
    watch.set(1)
    with pytest.raises(WouldBlock):
        mine.wait_for(lambda n: n > 1).poll()
    assert not quiet(mine)
    watch.set(1)
    assert mine.wait_for(lambda n: n == 1).poll() == 1
    assert quiet(mine)


def test_what_a_predicate_says_is_taken_for_true_or_false_and_the_value_is_given() -> None:
    watch = Watch("text")
    mine = watch.observe()
    assert mine.wait_for(len).poll() == "text"
    watch.set("")
    with pytest.raises(WouldBlock):
        mine.wait_for(len).poll()


def test_a_predicate_that_raises_changes_nothing(world: World) -> None:
    async def body() -> None:
        watch = Watch(1)
        mine = watch.observe()
        watch.set(0)
        with pytest.raises(ZeroDivisionError):
            await mine.wait_for(lambda n: 1 / n)
        with pytest.raises(ZeroDivisionError):
            mine.wait_for(lambda n: 1 / n).poll()
        assert watch.statistics() == (1, 0)
        assert await mine.changed() == 0  # still not seen

    world.run(body)


def test_a_predicate_that_raises_while_it_waits_ends_the_wait(world: World) -> None:
    async def body() -> None:
        watch = Watch(10)
        mine, other = watch.observe(), watch.observe()
        failing = spawn(mine.wait_for, lambda n: 1 / n > 1)
        going_on = spawn(other.wait_for, lambda n: n == 0)
        await parked(watch, 2)
        watch.set(0)
        with pytest.raises(ZeroDivisionError):
            await failing.wait()
        assert await going_on.wait() == 0
        assert watch.statistics().waiting == 0
        assert not quiet(mine)

    world.run(body)


def test_a_predicate_that_raises_in_a_select_performs_no_arm(world: World) -> None:
    async def body() -> None:
        watch, ch = Watch(0), Channel[int](1)
        mine = watch.observe()
        with pytest.raises(ZeroDivisionError):
            select(ch, mine.wait_for(lambda n: 1 / n), biased=True).poll()
        watch.set(1)
        assert await mine.changed() == 1
        selecting = spawn(select, ch, mine.wait_for(lambda n: n != 1 and 1 / n))
        await parked(watch)
        watch.set(0)
        with pytest.raises(ZeroDivisionError):
            await selecting.wait()
        assert watch.statistics().waiting == ch.statistics().waiting_receivers == 0
        ch.send_nowait(1)
        assert ch.drain() == [1]

    world.run(body)


def test_wait_for_is_an_arm_that_wins_and_one_that_loses(world: World) -> None:
    async def body() -> None:
        watch, stop = Watch(0), Event()
        mine = watch.observe()
        selecting = spawn(select, stop, mine.wait_for(lambda n: n > 1))
        await parked(watch)
        watch.set(2)
        assert await selecting.wait() == (1, 2)
        selecting = spawn(select, stop, mine.wait_for(lambda n: n > 2))
        await parked(watch)
        stop.set()
        assert await selecting.wait() == (0, None)
        assert watch.statistics().waiting == 0
        watch.set(3)
        assert not quiet(mine)

    world.run(body)


def test_two_arms_on_one_watch_take_the_value_that_each_waits_for(world: World) -> None:
    async def body() -> None:
        watch = Watch(0)
        one, other = watch.observe(), watch.observe()
        for n in range(1, 21):
            arms = [one.wait_for(lambda v: v and v % 2), other.wait_for(lambda v: v and not v % 2)]
            watch.set(0)
            selecting = spawn(select, *arms)
            await parked(watch, 2)
            watch.set(n)
            assert await selecting.wait() == ((n + 1) % 2, n)

    world.run(body)


def test_wait_for_in_a_biased_select_and_in_poll_asks_the_predicate_of_what_is_there_now() -> None:
    watch, event = Watch(0), Event()
    mine = watch.observe()
    event.set()
    for n in range(10):
        watch.set(n)
        assert select(mine.wait_for(lambda v, n=n: v == n), event, biased=True).poll() == (0, n)
        assert select(mine.wait_for(lambda v: v < 0), event, biased=True).poll() == (1, None)
        assert select(event, mine.wait_for(lambda v: True), biased=True).poll() == (0, None)
    op = mine.wait_for(lambda v: v == 100)
    for n in (98, 99):
        watch.set(n)
        with pytest.raises(WouldBlock):
            op.poll()
    watch.set(100)
    assert op.poll() == 100  # the same operation: `WouldBlock` did not perform it


def test_a_predicate_runs_outside_all_locks_and_may_use_what_it_likes(world: World) -> None:
    async def body() -> None:
        watch, ch = Watch(0), Channel[int](16)
        mine = watch.observe()

        def busy(n: int) -> bool:
            ch.send_nowait(n)
            assert watch.value == watch.observe().value == n
            assert repr(watch)
            if n < 3:
                watch.set(n + 1)  # it goes on by itself
            return n == 3

        assert await mine.wait_for(busy) == 3
        assert ch.drain() == [0, 1, 2, 3]
        watch.set(0)
        assert await select(Event(), mine.wait_for(busy)) == (1, 3)
        watch.set(0)
        assert await select(mine.wait_for(busy), Event(), biased=True) == (0, 3)
        assert watch.statistics().waiting == 0

    world.run(body)


def test_a_predicate_may_wait_for_another_thread_that_uses_the_watch() -> None:
    """It would hang if the predicate ran under the lock of the watch, or of another arm."""
    watch, ch = Watch(0), Channel[int](1)
    mine = watch.observe()

    def ask_elsewhere(n: int) -> bool:
        def use() -> None:
            if n < 2:
                watch.set(n + 1)
            with pytest.raises(ChannelEmpty):
                ch.receive_nowait()

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        return n == 2

    assert select(ch, mine.wait_for(ask_elsewhere)).sync() == (1, 2)
    watch.set(0)
    assert mine.wait_for(ask_elsewhere).sync() == 2
    watch.set(2)
    assert select(ch, mine.wait_for(ask_elsewhere), biased=True).poll() == (1, 2)


# ----------------------------------------------------------------- update
def test_update_sets_what_the_function_makes_and_returns_it() -> None:
    """Kotlin: MutableStateFlow.updateAndGet; tokio: `send_modify`."""
    watch = Watch(1)
    mine = watch.observe()
    assert watch.update(lambda n: n + 1) == 2
    assert watch.value == mine.changed().poll() == 2


def test_updates_of_several_threads_are_all_counted() -> None:
    """Kotlin: StateFlow, `update` under stress."""
    watch = Watch(0)
    mine = watch.observe()
    start = threading.Barrier(5)

    def work() -> None:
        start.wait()
        for _ in range(1000):
            watch.update(lambda n: n + 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    assert mine.wait_for(lambda n: n == 4000).sync() == 4000
    for thread in threads:
        thread.join()
    assert watch.statistics() == (4000, 0)


def test_an_update_that_was_overtaken_is_made_again_of_the_newer_value() -> None:
    watch = Watch(0)
    seen: list[int] = []

    def overtaken(n: int) -> int:
        seen.append(n)
        if n == 0:
            watch.set(10)
        return n + 1

    assert watch.update(overtaken) == 11
    assert seen == [0, 10]
    assert watch.value == 11


def test_an_update_overtaken_by_an_equal_value_is_made_again_too() -> None:
    """A comparison of values instead of versions would lose the change in between."""
    watch = Watch(0)
    calls: list[int] = []

    def overtaken(n: int) -> int:
        calls.append(n)
        if len(calls) == 1:
            watch.set(0)
        return n + 1

    watch.update(overtaken)
    assert calls == [0, 0]
    assert watch.statistics().version == 2


def test_an_update_that_raises_changes_nothing(world: World) -> None:
    async def body() -> None:
        watch = Watch(1)
        mine = watch.observe()
        observing = spawn(mine.changed)
        await parked(watch)
        with pytest.raises(ZeroDivisionError):
            watch.update(lambda n: n // 0)
        assert watch.value == 1
        assert watch.statistics() == (0, 1)
        watch.update(lambda n: n + 1)
        assert await observing.wait() == 2

    world.run(body)


def test_an_update_of_what_is_closed_meanwhile_is_refused() -> None:
    watch = Watch(1)

    def closing(n: int) -> int:
        watch.close()
        return n + 1

    with pytest.raises(HandleClosed):
        watch.update(closing)
    assert watch.value == 1


# ----------------------------------------------------------------- the end
@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_the_last_value_is_observed_after_the_close_and_then_the_end(world: World, cause: Any) -> None:
    """tokio: watch, `rx_observes_final_value`."""
    wanted: type[BaseException] = EndOfChannel if cause is None else BrokenChannel

    async def body() -> None:
        watch = Watch(0, name="state")
        late, seen = watch.observe(), watch.observe()
        watch.set(1)
        assert await seen.changed() == 1
        assert watch.close(cause) is True
        assert watch.close() is False
        assert watch.is_closed
        assert await late.changed() == 1
        for mine in (late, seen, watch.observe()):
            with pytest.raises(wanted, match="'state'") as ended:
                await mine.changed()
            assert ended.value.__cause__ is cause
            assert getattr(ended.value, "channel", None) is watch
            assert mine.value == 1

    world.run(body)


@pytest.mark.parametrize("cause", [None, OSError("disk")])
def test_the_close_wakes_all_who_wait_each_with_an_error_of_its_own(world: World, cause: Any) -> None:
    """tokio: watch, `single_rx_recv`: it ends with the sender."""

    async def body() -> None:
        watch = Watch(0)
        mine, other = watch.observe(), watch.observe()
        observing = [spawn(mine.changed), spawn(other.wait_for, bool), spawn(watch.observe().changed)]
        await parked(watch, 3)
        watch.close(cause)
        errors = []
        for child in observing:
            with pytest.raises(EndOfChannel if cause is None else BrokenChannel) as ended:
                await child.wait()
            errors.append(ended.value)
        assert len(set(map(id, errors))) == 3
        assert {error.__cause__ for error in errors} == {cause}

    world.run(body)


def test_wait_for_a_value_that_the_last_one_is_not_ends_too(world: World) -> None:
    """tokio: watch, `Receiver::wait_for` after the sender is dropped."""

    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        watch.set(3)
        watch.close()
        assert await mine.wait_for(lambda n: n == 3) == 3
        assert await mine.wait_for(lambda n: n == 3) == 3  # it is still there
        with pytest.raises(EndOfChannel) as ended:
            await select(never(), mine.wait_for(lambda n: n == 4))
        assert ended.value.arm == 1

    world.run(body)


def test_setting_after_the_close_is_an_error_and_sets_nothing() -> None:
    watch = Watch(0, name="state")
    watch.close(OSError("disk"))
    for call in (lambda: watch.set(1), lambda: watch.update(lambda n: n + 1)):
        with pytest.raises(HandleClosed, match=r"'state'.*closed") as closed:
            call()
        assert isinstance(closed.value.cause, OSError)
    assert watch.value == 0


def test_loops_give_the_latest_value_after_each_change_until_the_end(world: World) -> None:
    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        got: list[int] = []

        collecting = spawn(collect, mine, got)
        await parked(watch)
        for n in (1, 2, 3):
            watch.set(n)
            await settle(lambda n=n: got[-1:] == [n] and watch.statistics().waiting == 1)
        watch.set(4)
        watch.set(5)
        watch.close()
        await collecting.wait()
        assert got in ([1, 2, 3, 5], [1, 2, 3, 4, 5])

    world.run(body)


def test_a_loop_over_what_ended_with_a_cause_raises(world: World) -> None:
    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        watch.set(1)
        watch.close(OSError("disk"))
        got: list[int] = []
        with pytest.raises(BrokenChannel):
            await collect(mine, got)
        assert got == [1]

    world.run(body)


def test_for_in_a_plain_thread() -> None:
    watch = Watch(0)
    mine = watch.observe()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(mine))
    thread.start()
    for n in (1, 2):
        settle_here(lambda: watch.statistics().waiting == 1)
        watch.set(n)
        settle_here(lambda n=n: got[-1:] == [n])
    watch.close()
    thread.join()
    assert got == [1, 2]


def test_for_in_the_thread_of_a_loop_is_refused_and_sees_nothing(loop_world: World) -> None:
    async def body() -> None:
        watch = Watch(0)
        mine = watch.observe()
        watch.set(1)
        with pytest.raises(RuntimeError, match=r"observer.*async for"):
            list(mine)
        assert not quiet(mine)

    loop_world.run(body)


def test_leaving_with_closes_and_an_error_is_the_cause(world: World) -> None:
    async def body() -> None:
        with Watch(0) as watch:
            pass
        assert watch.is_closed
        async with Watch(0) as watch:
            mine = watch.observe()
        with pytest.raises(EndOfChannel):
            await mine.changed()
        error, watch = OSError("disk"), Watch(0)
        mine = watch.observe()
        with pytest.raises(OSError, match="disk"):
            await fail_in(watch, error)
        with pytest.raises(BrokenChannel) as broken:
            await mine.changed()
        assert broken.value.cause is error

    world.run(body)


# ----------------------------------------------------------------- several worlds
def test_a_change_wakes_observers_of_another_world(pair: Pair) -> None:
    there, back = Watch(0), Watch(0)

    async def first() -> None:
        mine = back.observe()
        for n in range(1, 31):
            there.set(n)
            assert await mine.wait_for(lambda v, n=n: v == n) == n
        there.close()

    async def second() -> int:
        mine = there.observe()
        last = 0
        if mine.value == 1:  # set before we came
            back.set(1)
        async for n in mine:
            assert n >= last
            last = n
            back.set(n)
        return last

    assert pair.run(first, second) == (None, 30)


def test_observers_of_all_worlds_see_the_last_value_and_never_go_back() -> None:
    watch = Watch(0)
    observers = [watch.observe() for _ in range(4)]

    async def follow(mine: Observer[int]) -> list[int]:
        return [n async for n in mine]

    async def change() -> None:
        await parked(watch, 4)
        for n in range(1, 300):
            watch.set(n)
        watch.close()

    names = ("asyncio", "asyncio-debug", "trio", "threads")
    parts = [(ALL[name], follow, each) for name, each in zip(names, observers, strict=True)]
    *found, _ = run_together(*parts, (ALL["threads"], change))
    for seen in found:
        assert seen == sorted(set(seen))
        assert seen[-1] == 299


# ----------------------------------------------------------------- giving up
def test_an_observer_that_gives_up_has_seen_nothing(world: World) -> None:
    async def body() -> None:
        watch = Watch(0, name="state")
        mine = watch.observe()
        for op in (mine.changed(), mine.wait_for(bool), select(mine, never())):
            with pytest.raises(TimeoutError, match="'state'"):
                await op.within(0.001)
        assert watch.statistics().waiting == 0
        watch.set(1)
        assert await mine.changed() == 1

    world.run(body)


def test_a_cancelled_observer_has_seen_nothing_even_if_the_change_has_come(loop_world: World) -> None:
    async def body() -> None:
        watch = Watch(0)
        for n, come in enumerate((False, True), 1):
            for make in (lambda o: o.changed(), lambda o: o.wait_for(bool), lambda o: select(o, never())):
                mine = watch.observe()
                watch.set(0)
                await mine.changed()
                observing = spawn(make, mine)
                await parked(watch)
                if come:
                    watch.set(n)
                observing.cancel()
                await observing.join()
                if observing.cancelled:
                    with pytest.raises(ChildCancelled):
                        await observing.wait()
                    assert quiet(mine) is not come
                else:  # in trio one who is woken is not cancelled any more
                    assert come
                    await observing.wait()
                    assert quiet(mine)
                assert watch.statistics().waiting == 0

    loop_world.run(body)


# ----------------------------------------------------------------- finalizers and memory
def test_a_finalizer_that_runs_in_the_middle_of_a_set_may_set(world: World) -> None:
    """The old value dies under the lock of the watch."""

    async def body() -> None:
        watch = Watch[Any](0)
        mine = watch.observe()
        watch.set(Last(lambda: watch.set("from the finalizer")))
        await mine.changed()
        observing = spawn(mine.wait_for, lambda v: v == "from the finalizer")
        await parked(watch)
        watch.set("a")
        assert await observing.wait() == "from the finalizer"
        assert watch.statistics().version == 3

    world.run(body)


def test_a_finalizer_that_runs_in_the_middle_of_a_set_may_close() -> None:
    watch = Watch[Any](0)
    mine = watch.observe()
    watch.set(Last(watch.close))
    watch.set("a")
    assert watch.is_closed
    assert mine.changed().poll() == "a"


def test_a_finalizer_wakes_an_observer_of_any_world(pair: Pair) -> None:
    watch = Watch(0)
    mine = watch.observe()

    async def produce() -> None:
        await parked(watch)
        Last(lambda: watch.set(1))

    async def consume() -> int:
        return await mine.changed()

    assert pair.run(produce, consume) == (None, 1)


def test_a_value_that_is_not_the_latest_any_more_is_not_kept(world: World) -> None:
    async def body() -> None:
        thing = Thing()
        alive = weakref.ref(thing)
        watch = Watch[Any](thing)
        mine = watch.observe()
        del thing
        gc.collect()
        assert alive() is not None
        observing = spawn(mine.wait_for, lambda v: v == 2)
        await parked(watch)
        watch.set(1)
        gc.collect()
        assert alive() is None
        watch.set(2)
        await observing.wait()

    world.run(body)


def test_many_observers_that_come_and_go_leave_nothing_behind() -> None:
    watch = Watch(0)
    alive = [weakref.ref(watch)]
    for _ in range(300):
        mine = watch.observe()
        with pytest.raises(WouldBlock):
            mine.changed().poll()
        with pytest.raises(TimeoutError):
            mine.wait_for(bool).sync(0)
    assert watch.statistics() == (0, 0)
    del watch, mine
    gc.collect()
    assert alive[0]() is None


# ----------------------------------------------------------------- looking, and bad input
def test_repr_tells_name_version_and_state() -> None:
    watch = Watch(0, name="state")
    mine = watch.observe()
    watch.set(1)
    assert repr(watch) == "<Watch 'state' version 1>"
    assert repr(mine) == "<Observer of <Watch 'state' version 1>, has seen version 0>"
    watch.close()
    assert repr(watch) == "<Watch 'state' version 1 closed>"


@pytest.mark.parametrize("predicate", [None, 3, True, "n > 3", math.nan])
def test_wait_for_wants_a_function(predicate: Any) -> None:
    watch = Watch(0)
    with pytest.raises(TypeError, match=r"wait_for\(\) takes a function of the value, not "):
        watch.observe().wait_for(predicate)
    assert watch.statistics().waiting == 0


@pytest.mark.parametrize("function", [None, 3, "n + 1"])
def test_update_wants_a_function_and_changes_nothing_else(function: Any) -> None:
    watch = Watch(0)
    with pytest.raises(TypeError, match=r"update\(\) takes a function of the value, not "):
        watch.update(function)
    assert watch.statistics().version == 0


@pytest.mark.parametrize("cause", ["broken", 3, OSError])
def test_a_cause_that_is_no_exception_closes_nothing(cause: Any) -> None:
    watch = Watch(0)
    with pytest.raises(TypeError, match=r"cause .*exception"):
        watch.close(cause)
    assert not watch.is_closed


def test_a_watch_needs_a_value_to_begin_with() -> None:
    with pytest.raises(TypeError, match="initial"):
        Watch()  # type: ignore[call-arg]
