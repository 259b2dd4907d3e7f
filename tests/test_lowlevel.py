"""The hook for primitives of one's own: the two examples in the docstring of `chanlib.lowlevel`, run as they stand."""

from __future__ import annotations

import os
import re
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from worlds import World, settle, settle_here, spawn

from chanlib import CancelScope, Channel, Event, WouldBlock, lowlevel, select


def _examples() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"(?:^    .*\n|^\n)+", lowlevel.__doc__ or "", re.M):
        exec(textwrap.dedent(block), names)
    return names


EXAMPLES = _examples()
Turnstile: Any = EXAMPLES["Turnstile"]
PipeReader: Any = EXAMPLES["PipeReader"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


# ----------------------------------------------------------------- a committing primitive
def test_a_waiter_passes_when_the_turnstile_is_opened(world: World) -> None:
    async def main() -> None:
        turnstile = Turnstile()
        passed: list[int] = []

        async def passes(number: int) -> None:
            await turnstile.passing()
            passed.append(number)

        children = []
        for number in range(3):
            children.append(spawn(passes, number))
            await settle(lambda number=number: turnstile.queue.live() == number + 1)
        for number in range(3):
            turnstile.open()
            await children[number].wait()
        assert passed == [0, 1, 2]

    world.run(main)


def test_a_place_left_open_is_taken_at_once_and_polling_sees_the_rest(world: World) -> None:
    async def main() -> None:
        turnstile = Turnstile()
        with pytest.raises(WouldBlock, match="passing a turnstile cannot happen now"):
            turnstile.passing().poll()
        turnstile.open()
        await turnstile.passing()
        with pytest.raises(TimeoutError, match="passing a turnstile"):
            await turnstile.passing().within(0)
        assert turnstile.free == 0

    world.run(main)


def test_it_stands_in_a_select_beside_a_channel_and_takes_part_only_if_it_wins(world: World) -> None:
    async def main() -> None:
        turnstile, channel = Turnstile(), Channel[str](0)
        child = spawn(select, turnstile.passing(), channel)
        await settle(lambda: channel.statistics().waiting_receivers == 1)
        await channel.send("item")
        assert await child.wait() == (1, "item")
        turnstile.open()
        assert turnstile.free == 1
        assert (await select(turnstile.passing(), channel))[0] == 0

    world.run(main)


def test_a_cancelled_waiter_passes_its_place_on(loop_world: World) -> None:
    async def main() -> None:
        turnstile = Turnstile()
        child = spawn(turnstile.passing)
        await settle(lambda: turnstile.queue.live() == 1)
        child.cancel()
        await settle(lambda: turnstile.queue.live() == 0)
        turnstile.open()
        assert turnstile.free == 1

    loop_world.run(main)


# ----------------------------------------------------------------- a readiness primitive
def test_a_pipe_is_read_when_something_is_written(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reader = PipeReader(pipe[0])
        child = spawn(reader.read, 100)
        thread = threading.Thread(target=os.write, args=(pipe[1], b"news"))
        thread.start()
        assert await child.wait() == b"news"
        thread.join()

    world.run(main)


def test_two_readers_of_one_pipe_get_something_each(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reader = PipeReader(pipe[0])
        children = [spawn(reader.read, 1) for _ in range(2)]
        os.write(pipe[1], b"ab")
        got = [await child.wait() for child in children]
        assert sorted(got) == [b"a", b"b"]
        os.write(pipe[1], b"c")
        assert await reader.read(1) == b"c"

    world.run(main)


def test_a_parked_thread_waits_for_a_pipe_and_a_channel_at_once(pipe: tuple[int, int]) -> None:
    reader, channel = PipeReader(pipe[0]), Channel[str](0)
    got: list[Any] = []

    def wait() -> None:
        for _ in range(4):
            got.append(select(reader.read(10), channel).sync(timeout=20))

    thread = threading.Thread(target=wait)
    thread.start()
    for number in range(2):
        channel.send(f"item {number}").sync(timeout=20)
        os.write(pipe[1], b"bytes")
        settle_here(lambda number=number: len(got) == 2 * number + 2)
    thread.join()
    assert got == [(1, "item 0"), (0, b"bytes"), (1, "item 1"), (0, b"bytes")]
    assert channel.statistics().waiting_receivers == 0


def test_a_select_of_a_pipe_and_a_channel_takes_what_comes(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reader, channel = PipeReader(pipe[0]), Channel[str](0)
        for _ in range(3):
            child = spawn(select, reader.read(10), channel)
            await settle(lambda: channel.statistics().waiting_receivers == 1)
            os.write(pipe[1], b"bytes")
            assert await child.wait() == (0, b"bytes")
            child = spawn(select, reader.read(10), channel)
            await settle(lambda: channel.statistics().waiting_receivers == 1)
            await channel.send("item")
            assert await child.wait() == (1, "item")
        assert channel.statistics().waiting_receivers == 0

    world.run(main)


def test_a_time_limit_on_a_pipe_leaves_what_comes_later(world: World, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        reader = PipeReader(pipe[0])
        with pytest.raises(TimeoutError):
            await reader.read(10).within(0.01)
        os.write(pipe[1], b"late")
        assert reader.read(10).poll() == b"late"

    world.run(main)


def test_a_poke_without_a_claim_makes_a_waiter_look_again(world: World) -> None:
    """A peer may put a waiter into `_after` without claiming it: how a condition says "try again"."""

    class Threshold(lowlevel.Source):
        def __init__(self) -> None:
            super().__init__()
            self.level = 0
            self.queue = lowlevel.WaitQueue()

        def rise(self) -> None:
            self._locked(self._rise)

        def _rise(self) -> None:
            self.level += 1
            self._after += [waiter for waiter in self.queue if waiter.waiting()]

    class Reached(lowlevel.Leaf[int]):
        def __init__(self, source: Threshold, level: int) -> None:
            self.level = level
            self._src = source

        def _attempt(self, source: Threshold, /) -> Any:
            return source.level if source.level >= self.level else lowlevel.PENDING

        def _enqueue(self, source: Threshold, waiter: Any, /) -> None:
            source.queue.append(waiter)

        def _withdraw(self, source: Threshold, waiter: Any, /) -> None:
            source.queue.withdrawn()

        def _describe(self, source: Threshold, /) -> str:
            return f"level {self.level}"

    async def main() -> None:
        threshold, stop = Threshold(), Event()
        child = spawn(select, Reached(threshold, 3), stop)
        for _ in range(3):
            await settle(lambda: threshold.queue.live() == 1)
            threshold.rise()
        assert await child.wait() == (0, 3)
        assert stop.statistics().waiting == 0

    world.run(main)


def test_a_thread_in_a_scope_looks_again_at_once_if_it_is_asked_to() -> None:
    """Also if it waits for a descriptor: a time that has passed is no time without end."""

    class Third(lowlevel.Leaf[int]):
        def __init__(self, source: lowlevel.Source, fd: int) -> None:
            self.fd = fd
            self.looks = 0
            self._src = source

        def _attempt(self, source: lowlevel.Source, /) -> Any:
            self.looks += 1
            return self.looks if self.looks >= 3 else lowlevel.PENDING

        def _enqueue(self, source: lowlevel.Source, waiter: Any, /) -> None:
            waiter.wake_in(0.0)
            waiter.wake_readable(self.fd)

        def _describe(self, source: lowlevel.Source, /) -> str:
            return "the third look"

    quiet, silent = os.pipe()
    try:
        with CancelScope():
            assert Third(lowlevel.Source(), quiet).sync() == 3
    finally:
        os.close(quiet)
        os.close(silent)


# ----------------------------------------------------------------- switches
def test_without_the_trampoline_tasks_go_on_all_the_same(loop_world: World) -> None:
    async def main() -> None:
        channel = Channel[int](0)

        async def produce() -> None:
            for number in range(100):
                await channel.send(number)
            channel.close()

        child = spawn(produce)
        assert [number async for number in channel] == list(range(100))
        await child.wait()

    before = lowlevel.set_trampoline(False)
    try:
        loop_world.run(main)
    finally:
        lowlevel.set_trampoline(before)


def test_the_world_can_be_asked_for(world: World) -> None:
    async def main() -> lowlevel.World:
        return lowlevel.current_world()

    expected = {"trio": lowlevel.World.TRIO, "threads": lowlevel.World.DRIVEN}
    assert world.run(main) is expected.get(world.name, lowlevel.World.ASYNCIO)
    assert lowlevel.current_world() is lowlevel.World.PLAIN
