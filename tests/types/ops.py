"""What checkers must know about one operation. Read by mypy and pyright, never run."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, assert_type

from chanlib import Channel, Event, Future, Op, after, every, never, select, sleep


async def an_op_gives_its_value_in_every_form(ch: Channel[int]) -> None:
    assert_type(await assert_type(ch.receive(), Op[int]), int)
    assert_type(ch.receive().sync(), int)
    assert_type(ch.receive().sync(timeout=1.5), int)
    assert_type(ch.receive().poll(), int)
    assert_type(await ch.send(1), None)


async def map_and_within_keep_track_of_the_type(ch: Channel[int]) -> None:
    await assert_type(ch.receive().map(str), Op[str])
    assert_type(await ch.receive().within(2), int)
    assert_type(await ch.receive().map(str).within(0.5), str)


async def the_batch_forms(ch: Channel[int]) -> None:
    assert_type(await ch.send_some([1, 2]), int)
    assert_type(await ch.receive_some(10), list[int])
    assert_type(ch.receive_nowait(), int)
    assert_type(ch.drain(), list[int])
    assert_type(ch.close(), bool)


async def loops_give_items(ch: Channel[int]) -> None:
    async for item in ch:
        assert_type(item, int)


def loops_in_threads_give_items(ch: Channel[int]) -> None:
    for item in ch:
        assert_type(item, int)


async def an_op_is_a_coroutine(ch: Channel[int]) -> None:
    coroutine: Coroutine[Any, Any, int] = ch.receive()
    assert_type(await coroutine, int)
    assert_type(await asyncio.create_task(ch.receive()), int)
    assert_type(await partial(ch.receive)(), int)


def an_op_is_covariant(narrow: Op[bool], wide: Op[object]) -> None:
    fits: Op[int] = narrow
    fits = wide  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del fits


async def the_other_primitives(event: Event, future: Future[bytes]) -> None:
    assert_type(await event.wait(), None)
    assert_type(event.is_set(), bool)
    assert_type(await future, bytes)
    assert_type(await future.wait(), bytes)
    assert_type(future.result(1.0), bytes)


async def timers_are_ops_or_arms() -> None:
    assert_type(await sleep(1), None)
    assert_type(await every(1.0).receive(), float)
    match await select(after(1), never()):
        case 0, _:
            pass
        case 1, _:
            pass


async def wrong_uses(ch: Channel[int], event: Event, future: Future[bytes]) -> None:
    await ch.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ch.send_nowait(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ch.receive().sync("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ch.receive().map(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    future.set_result("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await event.wait(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Channel()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ch.send(1)  # type: ignore[unused-awaitable]
