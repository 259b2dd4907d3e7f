"""What checkers know of groups, handles and what is waited for together."""

from __future__ import annotations

from typing import Literal, assert_type

from chanlib import (
    CancelScope,
    Channel,
    Raced,
    TaskGroup,
    TaskHandle,
    first_success,
    gather,
    map_concurrent,
    move_on_after,
    race,
    run,
    select,
)


async def length(text: str, times: int) -> int:
    return len(text) * times


async def nothing() -> None: ...


def size(text: str) -> float:
    return len(text)


async def children(channel: Channel[bytes]) -> None:
    async with TaskGroup(limit=3, on_error="collect") as group:
        one = group.start_soon(length, "a", 2)
        handle: TaskHandle[int] = one
        handle.cancel()
        assert_type(await one, int)
        assert_type(one.sync(), int)
        sending = group.start_soon(channel.send, b"x")
        assert_type(await sending, None)
        receiving = group.start_soon(channel.receive, name="r")
        assert_type(await receiving, bytes)
        place = group.spawn(length, "a", 2)
        assert_type(await (await place), int)
        assert_type((await group.spawn(length, "a", 2)).sync(), int)
        thread = group.start_thread(size, "a")
        assert_type(await thread, float)
        process = group.start_process(size, "a", grace=2, start_method="spawn", logging=True)
        assert_type(await process, float)
        looped = group.start_process(length, "a", 2, backend="trio")
        assert_type(await looped, int)
        group.start_process(size, 1)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
        group.start_process(size, "a", backend="trio")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        loop = group.start_async(length, "a", 2, backend="trio")
        assert_type(await loop, int)
        bad_one = group.start_soon(length, "a", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        bad_one.cancel()
        bad_two = group.start_soon(length, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        bad_two.cancel()
        group.start_soon(size, "a").cancel()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        match await select(one, group.cancel_scope.wait_cancelled()):
            case 0, number:
                assert_type(number, int)
            case 1, over:
                assert_type(over, None)
        async for child in group.as_completed():
            child.cancel("enough")


async def together() -> None:
    assert_type(await gather(lambda: length("a", 1), nothing()), tuple[int, None])
    assert_type(gather(nothing(), length("a", 1)).sync(), tuple[None, int])
    assert_type(await gather(gather(nothing()), nothing()), tuple[tuple[None], None])
    raced = await race(length("a", 1), length("b", 1))
    assert_type(raced, Raced[int])
    assert_type(raced.value, int)
    assert_type((await first_success(length("a", 1))).late, list[tuple[int, int]])
    assert_type(await map_concurrent(nothing_of, [1, 2], limit=1), list[str])


async def nothing_of(number: int) -> str:
    return str(number)


def scopes() -> None:
    with move_on_after(1) as scope:
        assert_type(scope, CancelScope)
    assert_type(run(length, "a", 1, backend="threads"), int)
    run(length, "a", 1, backend="curio")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kind: Literal["trio"] = "trio"
    run(nothing, backend=kind)
