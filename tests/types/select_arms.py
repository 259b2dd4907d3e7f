"""select narrows by its index, from one arm to eight. Read by mypy and pyright, never run."""

from typing import assert_never, assert_type

from chanlib import Channel, Event, Future, Op, after, never, select


async def one_arm(
    a: Op[int],
) -> None:
    done = await select(a)
    match done:
        case 0, value:
            assert_type(value, int)
        case _:
            assert_never(done)


async def two_arms(
    a: Op[int],
    b: Op[str],
) -> None:
    done = await select(a, b)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case _:
            assert_never(done)


async def three_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
) -> None:
    done = await select(a, b, c)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case _:
            assert_never(done)


async def four_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
    d: Op[float],
) -> None:
    done = await select(a, b, c, d)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case 3, value:
            assert_type(value, float)
        case _:
            assert_never(done)


async def five_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
    d: Op[float],
    e: Op[bool],
) -> None:
    done = await select(a, b, c, d, e)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case 3, value:
            assert_type(value, float)
        case 4, value:
            assert_type(value, bool)
        case _:
            assert_never(done)


async def six_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
    d: Op[float],
    e: Op[bool],
    f: Op[complex],
) -> None:
    done = await select(a, b, c, d, e, f)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case 3, value:
            assert_type(value, float)
        case 4, value:
            assert_type(value, bool)
        case 5, value:
            assert_type(value, complex)
        case _:
            assert_never(done)


async def seven_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
    d: Op[float],
    e: Op[bool],
    f: Op[complex],
    g: Op[list[int]],
) -> None:
    done = await select(a, b, c, d, e, f, g)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case 3, value:
            assert_type(value, float)
        case 4, value:
            assert_type(value, bool)
        case 5, value:
            assert_type(value, complex)
        case 6, value:
            assert_type(value, list[int])
        case _:
            assert_never(done)


async def eight_arms(
    a: Op[int],
    b: Op[str],
    c: Op[bytes],
    d: Op[float],
    e: Op[bool],
    f: Op[complex],
    g: Op[list[int]],
    h: Op[dict[str, int]],
) -> None:
    done = await select(a, b, c, d, e, f, g, h)
    match done:
        case 0, value:
            assert_type(value, int)
        case 1, value:
            assert_type(value, str)
        case 2, value:
            assert_type(value, bytes)
        case 3, value:
            assert_type(value, float)
        case 4, value:
            assert_type(value, bool)
        case 5, value:
            assert_type(value, complex)
        case 6, value:
            assert_type(value, list[int])
        case 7, value:
            assert_type(value, dict[str, int])
        case _:
            assert_never(done)


async def objects_with_an_obvious_op_stand_as_arms(jobs: Channel[int], stop: Event, answer: Future[bytes]) -> None:
    done = await select(jobs.receive(), stop, answer, after(5))
    match done:
        case 0, job:
            assert_type(job, int)
        case 1, nothing:
            assert_type(nothing, None)
        case 2, data:
            assert_type(data, bytes)
        case 3, _:
            pass
        case _:
            assert_never(done)


async def a_conditional_arm_may_be_none(jobs: Channel[int], out: Channel[str], full: bool) -> None:
    match await select(None if full else jobs.receive(), out.send("x"), never()):
        case 0, job:
            assert_type(job, int)
        case 1, nothing:
            assert_type(nothing, None)
        case 2, _:
            pass


def select_is_an_op(jobs: Channel[int], stop: Event) -> None:
    done = select(jobs.receive(), stop.wait(), biased=True).sync(timeout=1)
    match done:
        case 0, job:
            assert_type(job, int)
        case 1, nothing:
            assert_type(nothing, None)
        case _:
            assert_never(done)


async def a_mapped_arm_narrows_to_the_mapped_type(jobs: Channel[int], stop: Event) -> None:
    done = await select(jobs.receive().map(str), stop.wait()).within(3)
    match done:
        case 0, text:
            assert_type(text, str)
        case 1, nothing:
            assert_type(nothing, None)
        case _:
            assert_never(done)


async def any_number_of_arms_of_one_type(channels: list[Channel[int]]) -> None:
    index, value = await select(*[ch.receive() for ch in channels])
    assert_type(index, int)
    assert_type(value, int)


async def wrong_uses(jobs: Channel[int], stop: Event) -> None:
    await select(jobs.receive(), 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await select(jobs.receive(), "x", stop)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    match await select(jobs.receive(), stop.wait()):
        case 0, job:
            job.upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        case rest:
            assert_never(rest)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
