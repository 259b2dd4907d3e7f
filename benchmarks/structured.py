"""The loops over task groups, cancel scopes and threads: for each library what its user would have written.

Where tasks wait, they wait in the loop's own way in all libraries of that loop, so that the groups are what differs.
A loop that times itself, because what it does besides is not to count, notes each stretch in `stretches`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from threading import Thread
from time import perf_counter
from typing import Any

from .loops import FAR

Child = Callable[[], Any]
GLANCE = 0.0003  # seconds until it is looked again whether a thread has parked


# ------------- children
async def nothing() -> None:
    pass


def nothing_plain() -> None:
    pass


async def park_asyncio() -> None:
    await asyncio.get_running_loop().create_future()


async def park_trio() -> None:
    import trio

    await trio.sleep_forever()


async def settle_asyncio() -> None:
    """All that were started have parked."""
    await asyncio.sleep(0)


async def settle_trio() -> None:
    import trio

    for _ in range(2):  # trio runs a batch in any order: after two all have parked
        await trio.lowlevel.checkpoint()


def burn(steps: int) -> int:
    """`steps` thousands of additions: nothing that would let go of the GIL, or be shared."""
    total = 0
    for i in range(1000 * steps):
        total += i & 7
    return total


# ------------- tasks that do nothing: start `crowd` of them, and wait for all
async def spawn_chanlib(child: Child, crowd: int, items: int) -> None:
    from chanlib import TaskGroup

    for _ in range(items // crowd):
        async with TaskGroup() as group:
            for _ in range(crowd):
                group.start_soon(child)


async def spawn_asyncio(child: Child, crowd: int, items: int) -> None:
    for _ in range(items // crowd):
        async with asyncio.TaskGroup() as group:
            for _ in range(crowd):
                group.create_task(child())


async def spawn_anyio(child: Child, crowd: int, items: int) -> None:
    import anyio

    for _ in range(items // crowd):
        async with anyio.create_task_group() as group:
            for _ in range(crowd):
                group.start_soon(child)


async def spawn_trio(child: Child, crowd: int, items: int) -> None:
    import trio

    for _ in range(items // crowd):
        async with trio.open_nursery() as nursery:
            for _ in range(crowd):
                nursery.start_soon(child)


# ------------- tasks that wait: cancel `crowd` of them; only from the cancelling to the end of the group counts
Settle = Callable[[], Awaitable[None]]


async def cancel_chanlib(child: Child, settle: Settle, stretches: list[float], crowd: int, items: int) -> None:
    from chanlib import TaskGroup

    for _ in range(items // crowd):
        async with TaskGroup() as group:
            for _ in range(crowd):
                group.start_soon(child)
            await settle()
            start = perf_counter()
            group.cancel()
        stretches.append(perf_counter() - start)


async def cancel_asyncio(child: Child, settle: Settle, stretches: list[float], crowd: int, items: int) -> None:
    for _ in range(items // crowd):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child()) for _ in range(crowd)]
            await settle()
            start = perf_counter()
            for task in tasks:
                task.cancel()
        stretches.append(perf_counter() - start)


async def cancel_anyio(child: Child, settle: Settle, stretches: list[float], crowd: int, items: int) -> None:
    import anyio

    for _ in range(items // crowd):
        async with anyio.create_task_group() as group:
            for _ in range(crowd):
                group.start_soon(child)
            await settle()
            start = perf_counter()
            group.cancel_scope.cancel()
        stretches.append(perf_counter() - start)


async def cancel_trio(child: Child, settle: Settle, stretches: list[float], crowd: int, items: int) -> None:
    import trio

    for _ in range(items // crowd):
        async with trio.open_nursery() as nursery:
            for _ in range(crowd):
                nursery.start_soon(child)
            await settle()
            start = perf_counter()
            nursery.cancel_scope.cancel()
        stretches.append(perf_counter() - start)


# ------------- three scopes, entered and left
async def scopes_chanlib(items: int) -> None:
    from chanlib import CancelScope, move_on_after

    for _ in range(items):
        with CancelScope(), move_on_after(FAR), CancelScope():
            pass


async def scopes_anyio(items: int) -> None:
    from anyio import CancelScope, move_on_after

    for _ in range(items):
        with CancelScope(), move_on_after(FAR), CancelScope():
            pass


async def scopes_trio(items: int) -> None:
    from trio import CancelScope, move_on_after

    for _ in range(items):
        with CancelScope(), move_on_after(FAR), CancelScope():
            pass


async def scopes_asyncio(items: int) -> None:
    from asyncio import timeout

    for _ in range(items):
        async with timeout(None), timeout(FAR), timeout(None):
            pass


# ------------- threads that do nothing: start `crowd` of them, and wait for all
def threads_chanlib(child: Child, crowd: int, items: int) -> None:
    from chanlib import TaskGroup

    with TaskGroup() as group:  # one for all, as a pool
        for _ in range(items // crowd):
            for _ in range(crowd):
                group.start_thread(child)
            group.wait_empty().sync()


def threads_threading(child: Child, crowd: int, items: int) -> None:
    for _ in range(items // crowd):
        threads = [Thread(target=child) for _ in range(crowd)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def threads_executor(child: Child, crowd: int, items: int) -> None:
    """One pool for all, as its users have it."""
    with ThreadPoolExecutor(crowd) as pool:
        for _ in range(items // crowd):
            wait_for([pool.submit(child) for _ in range(crowd)])


# ------------- threads that compute: two beside each other
def pair_chanlib(child: Callable[[int], int], items: int) -> None:
    from chanlib import TaskGroup

    with TaskGroup() as group:
        for _ in range(2):
            group.start_thread(child, items)


def pair_threading(child: Callable[[int], int], items: int) -> None:
    threads = [Thread(target=child, args=(items,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pair_executor(child: Callable[[int], int], items: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        wait_for([pool.submit(child, items) for _ in range(2)])


def pair_sequence(child: Callable[[int], int], items: int) -> None:
    for _ in range(2):
        child(items)


# ------------- a thread that waits in an operation: cancel it; from `cancel()` to its end counts
# One side starts one thread after the other, each on a channel of its own, and the other side cancels each.
async def hold(TaskGroup: Any, Channel: Any, child: Callable[[Any], Any], tx: Any, go: Any, items: int) -> None:
    async with TaskGroup() as group:
        for _ in range(items):
            quiet = Channel(0)
            await tx.send((group.start_thread(child, quiet), quiet))
            await go.receive()


async def strike(sleep: Any, rx: Any, go: Any, stretches: list[float], items: int) -> None:
    from chanlib import TaskCancelled

    for _ in range(items):
        handle, quiet = await rx.receive()
        while not quiet.statistics().waiting_receivers:
            await sleep(GLANCE)
        await sleep(GLANCE)  # that it stands in the queue does not say that it sleeps
        start = perf_counter()
        handle.cancel()
        try:
            await handle.wait()
        except TaskCancelled:
            stretches.append(perf_counter() - start)
        await go.send(None)
    if len(stretches) != items:
        raise RuntimeError("a thread that waited on an empty channel came through its cancellation")
