"""The budget: operations that need not wait still give their loop a turn, and feel its cancellations.

Everything here is counted in operations, never in time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator
from typing import Any

import anyio
import pytest
import trio
import worlds
from trio.lowlevel import in_trio_task
from worlds import World, run_together, settle, spawn

from chanlib import Channel, EndOfChannel, Event, Future, Op, select, sleep

BUDGET = 128
CHANNELS = 1000


async def breathe() -> None:
    """Let everybody else have a turn."""
    await (trio.lowlevel.checkpoint() if in_trio_task() else asyncio.sleep(0))


class Passes(trio.abc.Instrument):
    """Notes at each pass of trio's scheduler how many operations were done since the last."""

    def __init__(self, done: Callable[[], int]) -> None:
        self.done = done
        self.seen = 0
        self.gaps: list[int] = []

    def before_io_wait(self, timeout: float) -> None:
        self.gaps.append(self.done() - self.seen)
        self.seen = self.done()


class Stock:
    """Many channels with items ready, and things that are ready for ever."""

    def __init__(self, items: int = 2, channels: int = CHANNELS) -> None:
        self.channels = [Channel[int](math.inf) for _ in range(channels)]
        for ch in self.channels:
            for n in range(items):
                ch.send_nowait(n)
        self.turn = itertools.cycle(self.channels)
        self.event = Event()
        self.event.set()
        self.future = Future[str]()
        self.future.set_result("done")
        self.mixture = itertools.cycle(make for name, make in KINDS.items() if name != "mixed")

    def next(self) -> Channel[int]:
        return next(self.turn)

    def contents(self) -> list[int]:
        return [len(ch) for ch in self.channels]


KINDS: dict[str, Callable[[Stock], Any]] = {
    "receive": lambda stock: stock.next().receive(),
    "receive_some": lambda stock: stock.next().receive_some(1),
    "send": lambda stock: stock.next().send(1),
    "send_some": lambda stock: stock.next().send_some([1, 2]),
    "send_all": lambda stock: stock.next().send_all([1, 2]),
    "async for": lambda stock: aiter(stock.next()).__anext__(),
    "map": lambda stock: stock.next().receive().map(str),
    "within": lambda stock: stock.next().receive().within(10),
    "select": lambda stock: select(stock.next().receive(), stock.next().send(1)),
    "biased select": lambda stock: select(stock.next(), Event(), biased=True),
    "event": lambda stock: stock.event.wait(),
    "future": lambda stock: stock.future.wait(),
    "awaited event": lambda stock: stock.event,
    "sleep": lambda _: sleep(0),
    "mixed": lambda stock: next(stock.mixture)(stock),
}

kinds = pytest.mark.parametrize("make", list(KINDS.values()), ids=list(KINDS))
# what of these is one operation, to be performed in a cancelled scope: it changes nothing
PLAIN = {name: make for name, make in KINDS.items() if name not in ("async for", "send_all", "mixed")}
plain_kinds = pytest.mark.parametrize("make", list(PLAIN.values()), ids=list(PLAIN))


class Neighbour:
    """A task that notes at each of its turns how many operations were done since the last."""

    def __init__(self) -> None:
        self.done = 0
        self.seen = 0
        self.gaps: list[int] = []
        self.over = False

    async def live(self) -> None:
        while not self.over:
            self.gaps.append(self.done - self.seen)
            self.seen = self.done
            await breathe()


async def beside_a_neighbour(perform: Callable[[], Any], rounds: int) -> tuple[Neighbour, Passes]:
    """Await `perform()` so many times beside a neighbour; what it saw, and what trio's scheduler saw."""
    neighbour = Neighbour()
    passes = Passes(lambda: neighbour.done)
    spawn(neighbour.live)
    await settle(lambda: neighbour.gaps)
    if in_trio_task():
        trio.lowlevel.add_instrument(passes)
    for _ in range(rounds):
        await perform()
        neighbour.done += 1
    if in_trio_task():
        trio.lowlevel.remove_instrument(passes)
    neighbour.over = True
    return neighbour, passes


def check_gaps(neighbour: Neighbour, passes: Passes, limit: int) -> None:
    if passes.gaps:
        # trio turns the order within a pass around at random: two stints may come between two of the neighbour's
        # turns. Its scheduler has its turn in time, and the neighbour one in every pass.
        assert max(passes.gaps) <= limit
        assert max(neighbour.gaps) <= 2 * limit
    else:
        assert max(neighbour.gaps) <= limit
    assert (len(neighbour.gaps) + 2) * limit >= neighbour.done


def check_a_neighbour(world: World, make: Callable[[Stock], Any], rounds: int, limit: int) -> None:
    async def main() -> None:
        check_gaps(*await beside_a_neighbour(lambda: make(stock), rounds), limit)

    stock = Stock()
    world.run(main)


@kinds
@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_neighbour_gets_its_turn_once_per_128_operations(name: str, make: Callable[[Stock], Any]) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")
    check_a_neighbour(worlds.ALL[name], make, CHANNELS, BUDGET)


def test_a_neighbour_gets_its_turn_once_per_128_operations_of_a_mixture(loop_world: World) -> None:
    check_a_neighbour(loop_world, KINDS["mixed"], 2 * CHANNELS, BUDGET)


def test_the_budget_is_used_up_by_operations_that_raise_too(loop_world: World) -> None:
    async def main() -> None:
        ended = Channel[int](0)
        ended.close()

        async def perform() -> None:
            with pytest.raises(EndOfChannel):
                await ended.receive()

        check_gaps(*await beside_a_neighbour(perform, CHANNELS), BUDGET)

    loop_world.run(main)


@pytest.mark.parametrize("kind", ["receive", "select", "within"])
def test_the_turn_comes_before_the_operation(loop_world: World, kind: str) -> None:
    """Cancelled at that turn, an operation has not happened, and its item is where it was."""
    items = 5 * BUDGET

    async def main() -> None:
        ch = Channel[int](math.inf)
        for n in range(items):
            ch.send_nowait(n)
        got: list[int] = []

        def op() -> Op[Any]:
            if kind == "receive":
                return ch.receive()
            if kind == "within":
                return ch.receive().within(10)
            return select(Event(), ch).map(lambda pair: pair[1])

        async def take() -> None:
            while len(got) < items:
                got.append(await op())

        child = spawn(take)
        await settle(lambda: got)
        child.cancel()
        await child.join()
        assert child.cancelled
        assert 0 < len(got) <= 3 * BUDGET
        assert got == list(range(len(got)))
        assert ch.statistics().received == len(got)
        assert ch.drain() == list(range(len(got), items))

    loop_world.run(main)


def test_a_send_cancelled_at_its_turn_was_not_sent(loop_world: World) -> None:
    async def main() -> None:
        ch = Channel[int](math.inf)
        sent: list[int] = []

        async def put() -> None:
            for n in range(10 * BUDGET):
                await ch.send(n)
                sent.append(n)

        child = spawn(put)
        await settle(lambda: sent)
        child.cancel()
        await child.join()
        assert child.cancelled
        assert ch.drain() == sent

    loop_world.run(main)


def test_a_thread_has_no_budget() -> None:
    """Nobody is there to be given a turn: driven by hand, no operation ever yields."""
    ch = Channel[int](math.inf)
    for n in range(10 * BUDGET):
        with pytest.raises(StopIteration):
            ch.send(n).send(None)
    for n in range(10 * BUDGET):
        assert ch.receive().sync() == n


def test_sync_in_a_thread_does_not_use_up_the_budget_of_a_loop(loop_world: World) -> None:
    ch = Channel[int](math.inf)
    stock = Stock()

    async def main() -> None:
        neighbour, passes = await beside_a_neighbour(lambda: stock.next().receive(), CHANNELS)
        check_gaps(neighbour, passes, BUDGET)
        assert len(neighbour.gaps) <= 2 + neighbour.done / BUDGET  # nor does it get one more often

    async def thread() -> None:
        for n in range(2 * CHANNELS):
            await ch.send(n)

    run_together((loop_world, main), (worlds.ALL["threads"], thread))


# --------------------------------------------------------------------- cancelled scopes


@plain_kinds
def test_trio_every_operation_in_a_cancelled_scope_raises_and_changes_nothing(
    make: Callable[[Stock], Op[Any]],
) -> None:
    async def main() -> None:
        stock = Stock(1, channels=10)
        before = stock.contents()
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(2 * BUDGET):
                with pytest.raises(trio.Cancelled):
                    await make(stock)
        assert stock.contents() == before

    worlds.ALL["trio"].run(main)


@plain_kinds
@pytest.mark.parametrize("cancelled_by", ["cancel", "deadline", "anyio", "around"])
def test_trio_the_first_operation_in_a_cancelled_scope_raises(
    make: Callable[[Stock], Op[Any]], cancelled_by: str
) -> None:
    async def main() -> None:
        stock = Stock(1, channels=10)
        before = stock.contents()
        with trio.CancelScope() as outer:
            inner: Any = anyio.CancelScope() if cancelled_by == "anyio" else trio.CancelScope()
            with inner:
                if cancelled_by == "deadline":
                    inner.deadline = trio.current_time()
                    await trio.lowlevel.cancel_shielded_checkpoint()  # lets trio notice
                else:
                    (outer if cancelled_by == "around" else inner).cancel()
                await make(stock)
                raise AssertionError("it was not cancelled")
        assert inner.cancelled_caught or outer.cancelled_caught
        assert stock.contents() == before
        assert all(ch.statistics().waiting_receivers == 0 for ch in stock.channels)

    worlds.ALL["trio"].run(main)


def test_trio_operations_in_a_shield_do_not_feel_what_is_cancelled_around_it() -> None:
    async def main() -> None:
        stock = Stock()
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True):
                for _ in range(2 * BUDGET):
                    await stock.next().receive()
            await stock.next().receive()
        assert outer.cancelled_caught
        assert sum(stock.contents()) == 2 * CHANNELS - 2 * BUDGET

    worlds.ALL["trio"].run(main)


def test_trio_an_operation_given_up_in_a_cancelled_scope_counts_as_performed() -> None:
    async def main() -> None:
        ch = Channel[int](1)
        ch.send_nowait(1)
        op = ch.receive()
        with trio.CancelScope() as scope:
            scope.cancel()
            await op
        with pytest.raises(RuntimeError, match="performed already"):
            await op
        assert len(ch) == 1

    worlds.ALL["trio"].run(main)


@plain_kinds
@pytest.mark.parametrize("name", ["asyncio", "asyncio-debug", "uvloop"])
def test_asyncio_a_cancelled_anyio_scope_is_felt_within_the_budget(name: str, make: Callable[[Stock], Op[Any]]) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop")

    async def main() -> None:
        stock = Stock(200, channels=10)
        done = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            while done < 10 * BUDGET:
                before = stock.contents()
                await make(stock)
                done += 1
        assert scope.cancelled_caught
        assert done <= BUDGET
        assert stock.contents() == before
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    worlds.ALL[name].run(main)


@pytest.mark.parametrize("first", ["ch.receive()", "select(ch, Event())", "ch.send(1)"])
def test_trio_imported_late_is_noticed_by_the_very_first_operation(first: str) -> None:
    """The short way of an operation relies on there being no trio; a thread that has used it must not go on so."""
    program = f"""
        import asyncio, sys
        from chanlib import Channel, Event, select

        ch = Channel(1000)

        async def on_asyncio():
            for n in range(500):
                await ch.send(n)
            for n in range(200):
                await ch.receive()

        asyncio.run(on_asyncio())
        assert "trio" not in sys.modules
        import trio

        async def on_trio():
            with trio.CancelScope() as scope:
                scope.cancel()
                await {first}
                raise SystemExit("it was not cancelled")
            assert scope.cancelled_caught
            assert len(ch) == 300, len(ch)
            turns = 0

            async def neighbour():
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(neighbour)
                for n in range(256):
                    await ch.receive()
                nursery.cancel_scope.cancel()
            assert turns > 0

        trio.run(on_trio)
        asyncio.run(on_asyncio())
        print("fine")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "fine"), result.stderr


# --------------------------------------------------------------------- strict checkpoints


@pytest.fixture
def strict() -> Iterator[None]:
    """Every awaited operation is a checkpoint, as in trio."""
    from chanlib.lowlevel import set_strict_checkpoints

    before = set_strict_checkpoints(True)
    try:
        yield
    finally:
        assert set_strict_checkpoints(before) is True


@kinds
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_with_strict_checkpoints_a_neighbour_gets_its_turn_at_every_operation(
    name: str, make: Callable[[Stock], Any]
) -> None:
    check_a_neighbour(worlds.ALL[name], make, 50, 1)


@pytest.mark.usefixtures("strict")
def test_with_strict_checkpoints_an_anyio_scope_is_felt_at_once(loop_world: World) -> None:
    async def main() -> None:
        ch = Channel[int](1)
        ch.send_nowait(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(2):  # asyncio: the scope cancels when the loop has its turn
                await ch.receive()
                ch.send_nowait(1)
        assert scope.cancelled_caught
        assert len(ch) == 1

    loop_world.run(main)


def test_strict_checkpoints_are_off_by_default() -> None:
    from chanlib.lowlevel import set_strict_checkpoints

    assert set_strict_checkpoints(False) is False


# --------------------------------------------------------------------- as a coroutine


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_driven_as_a_coroutine_an_operation_yields_to_the_loop_once_in_128(name: str) -> None:
    """What a task sees of the turn: one bare yield, and the operation is not done yet."""
    if name == "uvloop":
        pytest.importorskip("uvloop")

    class Watched:
        def __init__(self, op: Op[Any]) -> None:
            self.op = op
            self.yields = 0

        def __await__(self) -> Generator[Any, Any, Any]:
            while True:
                try:
                    got = self.op.send(None)
                except StopIteration as stop:
                    return stop.value
                assert got is None
                self.yields += 1
                assert len(ch) == before
                yield

    ch = Channel[int](math.inf)
    before = 0

    async def main() -> None:
        nonlocal before
        for n in range(4 * BUDGET):
            ch.send_nowait(n)
        yields = []
        for n in range(4 * BUDGET):
            before = len(ch)
            watched = Watched(ch.receive())
            assert await watched == n
            yields.append(watched.yields)
        assert max(yields) == 1
        assert sum(yields) in (3, 4)  # whatever was left at the start

    worlds.ALL[name].run(main)
