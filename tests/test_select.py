"""select: exactly one of several operations."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable

import pytest
from worlds import ALL, Pair, World, run_together, settle, spawn

from chanlib import (
    BrokenChannel,
    Channel,
    EndOfChannel,
    Event,
    Future,
    HandleClosed,
    Op,
    WouldBlock,
    after,
    every,
    never,
    select,
    sleep,
)

ROUNDS = 10_000
FEWER = 2000


def holding(*values: int) -> Channel[int]:
    ch = Channel[int](math.inf)
    for value in values:
        ch.send_nowait(value)
    return ch


def assert_uniform(drawn: Counter[int], arms: int) -> None:
    """Each arm within 10 sigma of its share: fails by chance about once in 10^22 runs."""
    total = drawn.total()
    p = 1 / arms
    sigma = math.sqrt(total * p * (1 - p))
    assert set(drawn) == set(range(arms))
    for arm, count in drawn.items():
        assert abs(count - total * p) < 10 * sigma, (arm, count, total)


# ----------------------------------------------------------------- one effect only
def test_one_of_several_ready_arms_happens_and_the_others_do_not(world: World) -> None:
    async def body() -> None:
        for biased in (False, True):
            a, b, c = holding(1), holding(2), Channel[int](1)
            match await select(a, b.receive(), c.send(3), biased=biased):
                case 0, value:
                    assert (value, len(a), len(b), len(c)) == (1, 0, 1, 0)
                case 1, value:
                    assert (value, len(a), len(b), len(c)) == (2, 1, 0, 0)
                case 2, value:
                    assert (value, len(a), len(b), len(c)) == (None, 1, 1, 1)

    world.run(body)


def test_a_waiting_select_takes_one_item_and_leaves_every_queue(world: World) -> None:
    async def body() -> None:
        a, b, c = Channel[int](1), Channel[int](1), Channel[int](0)
        waiting = spawn(select, a, b, c.send(9), a)
        await settle(lambda: c.statistics().waiting_senders)
        assert a.statistics().waiting_receivers == 2
        b.send_nowait(2)
        a.send_nowait(1)
        assert await waiting.wait() == (1, 2)
        assert (len(a), len(b)) == (1, 0)
        assert a.statistics().waiting_receivers == b.statistics().waiting_receivers == 0
        assert c.statistics().waiting_senders == 0
        with pytest.raises(WouldBlock):
            c.receive_nowait()

    world.run(body)


def test_peers_that_race_for_a_waiting_select_win_once(pair: Pair) -> None:
    rounds = 60
    chans = [Channel[int](0) for _ in range(4)]
    stop = Channel[int](0)

    async def offer(ch: Channel[int]) -> int:
        """How many of its values were taken."""
        taken = 0
        while True:
            index, _ = await select(ch.send(taken), stop)
            if index == 1:
                return taken
            taken += 1

    async def produce() -> int:
        offers = [spawn(offer, ch) for ch in chans]
        return sum([await each.wait() for each in offers])

    async def consume() -> Counter[int]:
        counts = Counter[int]()
        for _ in range(rounds):
            index, value = await select(*chans)
            assert value == counts[index]
            counts[index] += 1
        for _ in chans:
            await stop.send(0)
        return counts

    taken, counts = pair.run(produce, consume)
    assert taken == counts.total() == rounds
    for ch in chans:
        assert ch.statistics()[2:4] == (0, 0)


def test_a_select_that_times_out_had_no_effect(world: World) -> None:
    async def body() -> None:
        a, b = Channel[int](1), Channel[int](0)
        with pytest.raises(TimeoutError):
            await select(a, b.send(1)).within(0.002)
        assert await select(a, b.send(1), sleep(0.002)) == (2, None)
        assert a.statistics().waiting_receivers == b.statistics().waiting_senders == 0
        with pytest.raises(WouldBlock):
            b.receive_nowait()

    world.run(body)


def test_a_select_in_a_plain_thread_times_out_without_effect() -> None:
    a, b = Channel[int](1), Channel[int](0)
    with pytest.raises(TimeoutError):
        select(a, b.send(1)).sync(0.002)
    with pytest.raises(TimeoutError):
        select(a, b.send(1)).sync(0)
    assert a.statistics().waiting_receivers == b.statistics().waiting_senders == 0
    a.send_nowait(5)
    assert select(a, b.send(1)).sync(0) == (0, 5)


def test_a_quiet_channel_keeps_neither_waiters_nor_values_of_lost_arms(world: World) -> None:
    class Value:
        pass

    async def body() -> None:
        busy, quiet, full = Channel[int](1), Channel[object](0), Channel[object](0)
        gone = []
        for n in range(100):
            value = Value()
            gone.append(weakref.ref(value))
            waiting = spawn(select, busy, quiet, full.send(value))
            del value
            await settle(lambda: full.statistics().waiting_senders)
            if n % 2:
                full.receive_nowait()
            else:
                await busy.send(n)
            assert await waiting.wait() == ((2, None) if n % 2 else (0, n))
            waiting.args = ()
        del waiting
        assert quiet.statistics().waiting_receivers == 0
        assert full.statistics().waiting_senders == 0
        await spawn(sleep, 0).wait()
        gc.collect()
        assert not [ref for ref in gone if ref() is not None]

    world.run(body)


@pytest.mark.parametrize(
    "rounds",
    [
        1000,
        pytest.param(100_000, marks=[pytest.mark.stress, pytest.mark.timeout(300)]),
    ],
)
def test_rounds_over_a_busy_and_a_quiet_channel_leave_no_waiters(world: World, rounds: int) -> None:
    busy, quiet = Channel[int](0), Channel[int](0)

    async def produce() -> None:
        for n in range(rounds):
            await busy.send(n)

    async def body() -> None:
        producing = spawn(produce)
        for n in range(rounds):
            assert await select(quiet, busy) == (1, n)
            assert quiet.statistics().waiting_receivers == 0
        await producing.wait()
        gc.collect()
        assert sum(1 for thing in gc.get_objects() if type(thing).__name__ == "Arm") < 1000

    world.run(body)


# ----------------------------------------------------------------- who may meet whom
def test_a_select_never_pairs_with_itself(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](0)
        with pytest.raises(WouldBlock):
            select(ch.send(1), ch.receive()).poll()
        waiting = spawn(select, ch.send(1), ch.receive())
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        assert ch.statistics().waiting_senders == 1
        assert not waiting.done
        assert ch.receive_nowait() == 1
        assert await waiting.wait() == (0, None)
        waiting = spawn(select, ch.send(1), ch.receive())
        await settle(lambda: ch.statistics().waiting_receivers == 1)
        ch.send_nowait(2)
        assert await waiting.wait() == (1, 2)
        assert ch.statistics()[2:4] == (0, 0)

    world.run(body)


def test_two_selects_pair_with_each_other(pair: Pair) -> None:
    ch = Channel[str](0)
    rounds = 100

    def party(name: str) -> Callable[[], object]:
        async def body() -> list[tuple[int, object]]:
            return [await select(ch.send(name), ch.receive()) for _ in range(rounds)]

        return body

    ours, theirs = pair.run(party("ours"), party("theirs"))
    for mine, other in zip(ours, theirs, strict=True):
        assert {mine[0], other[0]} == {0, 1}
        assert (mine, other) in [((0, None), (1, "ours")), ((1, "theirs"), (0, None))]
    assert ch.statistics().received == rounds


def test_selects_that_lock_the_same_channels_in_all_orders_do_not_block_each_other() -> None:
    chans = [Channel[int](1) for _ in range(4)]
    rounds = 150

    async def shuffle(first: int) -> None:
        order = chans[first:] + chans[:first]
        for n in range(rounds):
            sends = [ch.send(n) for ch in order]
            index, _ = await select(*sends, *order)
            if index < 4:
                await select(*order)
            else:
                await select(*[ch.send(n) for ch in order])

    names = ("asyncio", "trio", "threads", "threads")
    for ch in chans[:2]:
        ch.send_nowait(-1)
    run_together(*[(ALL[name], shuffle, n) for n, name in enumerate(names)])
    assert sum(len(ch) for ch in chans) == 2


def test_the_same_channel_may_stand_in_a_select_twice(world: World) -> None:
    async def body() -> None:
        ch = holding(1, 2)
        index, value = await select(ch, ch)
        assert index in (0, 1)
        assert value == 1
        assert len(ch) == 1
        both = Channel[str](2)
        index, _ = await select(both.send("a"), both.send("b"))
        assert both.drain() == [["a"], ["b"]][index]
        waiting = spawn(select, both, both)
        await settle(lambda: both.statistics().waiting_receivers == 2)
        both.send_nowait("c")
        assert (await waiting.wait())[1] == "c"
        assert both.statistics().waiting_receivers == 0

    world.run(body)


# ----------------------------------------------------------------- the draw
@pytest.mark.parametrize("arms", [2, 4, 7])
def test_the_draw_among_ready_arms_is_uniform(arms: int) -> None:
    chans = [holding(*range(ROUNDS)) for _ in range(arms)]
    assert_uniform(Counter(select(*chans).poll()[0] for _ in range(ROUNDS)), arms)


def test_the_draw_is_uniform_in_every_world(world: World) -> None:
    async def body() -> None:
        a, b, c = (holding(*range(FEWER)) for _ in range(3))
        full = Channel[int](0)
        drawn = Counter([(await select(a, full, b, c))[0] for _ in range(FEWER)])
        assert drawn.pop(1, None) is None
        assert_uniform(Counter({(0, 1, 1, 2)[arm]: n for arm, n in drawn.items()}), 3)

    world.run(body)


def test_due_timers_and_set_events_take_part_in_the_draw(world: World) -> None:
    async def body() -> None:
        event, future, timer, ch = Event(), Future[int](), after(0), holding(*range(FEWER))
        event.set()
        future.set_result(1)
        drawn = Counter([(await select(timer, ch, event, future))[0] for _ in range(FEWER)])
        assert_uniform(drawn, 4)
        drawn = Counter([select(event, timer, future).poll()[0] for _ in range(FEWER)])
        assert_uniform(drawn, 3)

    world.run(body)


def test_the_leaves_of_nested_selects_take_part_in_one_draw() -> None:
    a, b, c = (holding(*range(FEWER)) for _ in range(3))
    drawn = Counter[int]()
    for _ in range(FEWER):
        outer, (inner, _) = select(select(a, b), select(c)).poll()
        drawn[outer * 2 + inner] += 1
    assert_uniform(drawn, 3)


def test_the_arms_of_a_select_that_waits_are_served_without_preference(world: World) -> None:
    async def body() -> None:
        chans = [Channel[int](0) for _ in range(3)]
        drawn = Counter[int]()
        for _ in range(50):
            waiting = spawn(select, *chans)
            await settle(lambda: all(ch.statistics().waiting_receivers for ch in chans))
            chans[1].send_nowait(0)
            drawn[(await waiting.wait())[0]] += 1
        assert drawn == {1: 50}

    world.run(body)


def test_biased_takes_the_first_arm_that_can_happen(world: World) -> None:
    async def body() -> None:
        a, b, c = Channel[int](1), holding(*range(100)), holding(*range(100))
        for n in range(100):
            assert await select(a, b, c, after(0), biased=True) == (1, n)
        assert await select(a, b, c, biased=True) == (2, 0)
        a.send_nowait(7)
        assert select(a, b, c, biased=True).poll() == (0, 7)
        assert await select(c.receive().map(str), never(), biased=True).within(60) == (0, "1")

    world.run(body)


def test_biased_or_not_a_nested_select_is_drawn_as_the_outer_one_says() -> None:
    for _ in range(50):
        assert select(select(holding(1), holding(2)), holding(3), biased=True).poll() == (0, (0, 1))


# ----------------------------------------------------------------- disabled arms
def test_none_and_never_disable_their_position(world: World) -> None:
    async def body() -> None:
        for n in range(20):
            assert await select(None, holding(n), never(), None) == (1, n)
            assert await select(never(), never(), holding(n)) == (2, n)

    world.run(body)


def test_a_merge_loop_disables_the_arms_that_have_ended(world: World) -> None:
    async def body() -> None:
        chans: list[Channel[int] | None] = [holding(1, 2), holding(3), holding()]
        for ch in chans:
            assert ch is not None
            ch.close()
        got = []
        while any(ch is not None for ch in chans):
            try:
                got.append((await select(*chans))[1])
            except EndOfChannel as end:
                chans[end.arm or 0] = None
        assert sorted(got) == [1, 2, 3]

    world.run(body)


# ----------------------------------------------------------------- ended arms
def test_an_ended_arm_is_ready_with_its_error_that_names_arm_and_channel(world: World) -> None:
    async def body() -> None:
        ended, broken, open_ = Channel[int](1), Channel[int](1), Channel[int](0)
        cause = OSError("disk")
        ended.close()
        broken.close(cause)
        with pytest.raises(EndOfChannel) as end:
            await select(open_, None, ended)
        assert (end.value.arm, end.value.channel) == (2, ended)
        with pytest.raises(BrokenChannel) as breach:
            await select(open_.send(1), broken)
        assert (breach.value.arm, breach.value.channel, breach.value.cause) == (1, broken, cause)
        with pytest.raises(HandleClosed) as closed:
            await select(ended.send(1), open_)
        assert (closed.value.arm, closed.value.channel) == (0, ended)
        with pytest.raises(EndOfChannel) as polled:
            select(open_, ended).poll()
        assert polled.value.arm == 1
        assert open_.statistics()[2:4] == (0, 0)

    world.run(body)


def test_an_arm_that_ends_while_the_select_waits_names_itself(pair: Pair) -> None:
    ending, other = [Channel[int](0) for _ in range(3)], Channel[int](0)
    ways = [
        (lambda ch: select(ch, other, None, other), 0, EndOfChannel),
        (lambda ch: select(other, None, select(other, ch).map(str)), 2, EndOfChannel),
        (lambda ch: select(other, ch.send(1), other.send(1)).within(60), 1, HandleClosed),
    ]

    async def end() -> None:
        for ch in ending:
            await settle(lambda ch=ch: sum(ch.statistics()[2:4]))
            ch.close()

    async def wait() -> None:
        for ch, (way, arm, kind) in zip(ending, ways, strict=True):
            with pytest.raises(kind) as caught:
                await way(ch)
            assert (caught.value.arm, caught.value.channel) == (arm, ch)
        assert other.statistics()[2:4] == (0, 0)

    pair.run(end, wait)


def test_an_error_outside_a_select_names_no_arm(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        ch.close()
        with pytest.raises(EndOfChannel) as caught:
            await ch.receive()
        assert caught.value.arm is None

    world.run(body)


def test_a_ready_arm_and_an_ended_arm_are_drawn_alike() -> None:
    drawn = Counter[int]()
    ended = Channel[int](0)
    ended.close()
    for _ in range(1000):
        try:
            select(holding(1), ended).poll()
            drawn[0] += 1
        except EndOfChannel:
            drawn[1] += 1
    assert_uniform(drawn, 2)


# ----------------------------------------------------------------- poll is one atomic look
@pytest.mark.parametrize(
    "rounds",
    [1000, pytest.param(100_000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])],
)
def test_poll_never_misses_what_is_always_there_in_one_place_or_the_other(rounds: int, hasty: None) -> None:
    """As Go's TestNonblockSelectRace: an item arrives in `b` before the one in `a` is taken."""
    handed = Channel[tuple[Channel[int], Channel[int]]](0)
    missed = []

    def look() -> None:
        for a, b in handed:
            try:
                select(a, b).poll()
            except WouldBlock:
                missed.append((a, b))

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(rounds):
        a, b = Channel[int](1), Channel[int](1)
        a.send_nowait(1)
        handed.send((a, b)).sync()
        b.send_nowait(2)
        try:
            a.receive_nowait()
        except WouldBlock:
            pass
    handed.close()
    looker.join()
    assert not missed


@pytest.mark.parametrize(
    "rounds",
    [1000, pytest.param(50_000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])],
)
def test_poll_over_two_events_of_which_one_is_always_set_never_would_block(rounds: int, hasty: None) -> None:
    one, other, over = Event(), Event(), threading.Event()
    one.set()

    def swap() -> None:
        while not over.is_set():
            other.set()
            one.clear()
            one.set()
            other.clear()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for n in range(rounds):
            select(other, one, biased=bool(n % 2)).poll()
    finally:
        over.set()
        swapper.join()


def test_a_send_arm_is_part_of_the_atomic_look(hasty: None) -> None:
    room, over = [Channel[int](1), Channel[int](1)], threading.Event()
    room[0].send_nowait(0)
    misses = []

    def poll() -> None:
        for _ in range(1000):
            try:
                index, _ = select(room[0].send(1), room[1].send(1)).poll()
                room[index].receive().sync()
            except WouldBlock:
                misses.append(1)
        over.set()

    poller = threading.Thread(target=poll)
    poller.start()
    full = 0
    while not over.is_set():  # one of the two has room at each moment, whoever is looking
        room[full].receive().poll()
        full = 1 - full
        while not over.is_set():
            try:
                room[full].send_nowait(0)
                break
            except WouldBlock:
                pass
    poller.join()
    assert not misses


# ------------------------------------------------------- nesting, mapping, what may stand as an arm
def test_selects_nest(world: World) -> None:
    async def body() -> None:
        a, b, c = Channel[int](1), Channel[int](1), Channel[int](1)

        def nested() -> Op[object]:
            return select(select(a, select(b.receive().map(str), None)), c)

        b.send_nowait(1)
        assert await nested() == (0, (1, (0, "1")))
        c.send_nowait(2)
        assert nested().poll() == (1, 2)
        waiting = spawn(nested)
        await settle(lambda: c.statistics().waiting_receivers)
        a.send_nowait(3)
        assert await waiting.wait() == (0, (0, 3))
        assert b.statistics().waiting_receivers == c.statistics().waiting_receivers == 0

    world.run(body)


def test_an_arm_within_a_limit_of_its_own_times_out_alone(world: World) -> None:
    async def body() -> None:
        ch = Channel[int](1)
        with pytest.raises(TimeoutError):
            await select(never(), ch.receive().within(0.002), after(60))
        ch.send_nowait(1)
        assert await select(ch.receive().within(0), never()) == (0, 1)

    world.run(body)


def test_objects_with_an_obvious_operation_stand_as_arms_themselves(world: World) -> None:
    class Answer:
        def __op__(self) -> Op[int]:
            return holding(42).receive()

    async def body() -> None:
        event, future, ch = Event(), Future[str](), Channel[int](1)
        ticker = every(3600)
        arms = (event, future, ch, ch.receiver(), ticker, after(3600))
        with pytest.raises(WouldBlock):
            select(*arms).poll()
        waiting = spawn(select, *arms)
        await settle(lambda: ch.statistics().waiting_receivers == 2)
        future.set_result("done")
        assert await waiting.wait() == (1, "done")
        event.set()
        assert await select(None, event) == (1, None)
        ch.send_nowait(5)
        assert await select(never(), ch.receiver()) == (1, 5)
        assert (await select(after(0), ticker))[0] == 0
        ticker.stop()
        with pytest.raises(EndOfChannel) as end:
            await select(never(), ticker)
        assert (end.value.arm, end.value.channel) == (1, ticker)
        assert await select(Answer()) == (0, 42)

    world.run(body)


def test_a_future_that_fails_fails_the_select(world: World) -> None:
    async def body() -> None:
        future = Future[int]()
        waiting = spawn(select, never(), future)
        await settle(lambda: future.statistics().waiting == 1)
        future.set_exception(OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            await waiting.wait()

    world.run(body)


def test_an_error_in_a_map_of_the_winning_arm_is_raised_after_it_has_happened(world: World) -> None:
    async def body() -> None:
        ch, other = holding(0), Channel[int](1)
        with pytest.raises(ZeroDivisionError):
            await select(ch.receive().map(lambda n: 1 // n), other)
        assert len(ch) == 0
        assert other.statistics().waiting_receivers == 0

    world.run(body)


def test_a_select_of_many_arms(world: World) -> None:
    async def body() -> None:
        chans = [Channel[int](1) for _ in range(300)]
        waiting = spawn(select, *chans)
        await settle(lambda: all(ch.statistics().waiting_receivers for ch in chans))
        chans[217].send_nowait(1)
        assert await waiting.wait() == (217, 1)
        assert not any(ch.statistics().waiting_receivers for ch in chans)

    world.run(body)


def test_arms_given_to_a_select_count_as_performed() -> None:
    ch = holding(1)
    op = ch.receive()
    select(op, never()).poll()
    with pytest.raises(RuntimeError, match="performed"):
        op.poll()


def test_a_dropped_select_warns_once_and_names_its_arms() -> None:
    a, b = Channel[int](1, name="a"), Channel[int](1, name="b")

    def drop() -> None:
        select(a, b.send(1))
        gc.collect()

    with pytest.warns(RuntimeWarning, match="'a'.*'b'") as caught:
        drop()
    assert len(caught) == 1
    assert len(b) == 0
