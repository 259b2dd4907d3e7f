"""What a type checker says of events, semaphores and futures between processes."""

from __future__ import annotations

from typing import assert_type

from chanlib import Op, select
from chanlib.processes import (
    ProcessEvent,
    ProcessFuture,
    ProcessLock,
    ProcessSemaphore,
    ProcessSemaphoreStatistics,
    open_process_future,
)


async def events(event: ProcessEvent) -> None:
    await assert_type(event.wait(), Op[None])
    await event
    await select(event, event.wait())


async def semaphores(semaphore: ProcessSemaphore, lock: ProcessLock) -> None:
    await assert_type(semaphore.acquire(2), Op[None])
    async with semaphore, lock:
        assert_type(semaphore.statistics(), ProcessSemaphoreStatistics)
    assert_type(semaphore.max_value, int | None)


async def futures(future: ProcessFuture[int]) -> None:
    await assert_type(future.wait(), Op[int])
    assert_type(await future, int)
    assert_type(future.result(1.0), int)
    await assert_type(future.clone(), ProcessFuture[int])
    _, value = await select(future, ProcessEvent())
    assert_type(value, int | None)
    future.set_result("word")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    promise, _ = open_process_future()
    promise.set_result("anything")
