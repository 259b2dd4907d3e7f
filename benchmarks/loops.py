"""The loops that are measured, each written once, in chanlib's own words.

`speak` puts a loop into the words of a peer and of a world before it runs: in a thread over `queue.Queue`,
`await tx.send(i)` becomes `tx.put(i)`, over a chanlib channel `tx.send(i).sync()`. So what runs is what a user of
that library would have written, with no layer in between. A loop may await nothing but operations of the channels
it is given, unless it is marked as one that no thread runs: those await asyncio's or trio's own things too.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

Loop = Callable[..., Any]
Ends = tuple[Any, Any]  # of a channel: what one sends with, what one receives with

FAR = 3600  # seconds: a time limit that never passes


# ------------- in the words of a peer
class Words(NamedTuple):
    """How a library says `send` and `receive`, and how one waits for what they return."""

    send: str = "send"
    receive: str = "receive"
    wait: Literal["await", "call", "sync"] = "await"  # `await q.get()`, `q.get()`, `q.get().sync()`


class _Speaker(ast.NodeTransformer):
    def __init__(self, words: Words) -> None:
        self.words = words

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr in ("send", "receive"):
            node.attr = getattr(self.words, node.attr)
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        if self.words.wait == "await":
            return node
        if self.words.wait == "call":
            return node.value
        return ast.copy_location(ast.Call(ast.Attribute(node.value, "sync", ast.Load()), [], []), node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        if self.words.wait == "await":
            return node
        return ast.copy_location(ast.FunctionDef(**dict(ast.iter_fields(node))), node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        if self.words.wait == "await":
            return node
        return ast.copy_location(ast.With(**dict(ast.iter_fields(node))), node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        if self.words.wait == "await":
            return node
        return ast.copy_location(ast.For(**dict(ast.iter_fields(node))), node)


@cache
def speak(loop: Loop, words: Words) -> Loop:
    """`loop` as a user of these words would have written it."""
    lines, first = inspect.getsourcelines(loop)
    tree = _Speaker(words).visit(ast.parse(textwrap.dedent("".join(lines))))
    ast.increment_lineno(ast.fix_missing_locations(tree), first - 1)  # tracebacks and profiles point here
    # annotations stay unevaluated, as in this module
    code = compile(tree, inspect.getfile(loop), "exec", annotations.compiler_flag, dont_inherit=True)
    found: dict[str, Loop] = {}
    exec(code, loop.__globals__, found)
    return found[loop.__name__]


# ------------- one channel
async def produce(tx: Any, items: int) -> None:
    for i in range(items):
        await tx.send(i)


async def consume(rx: Any, items: int) -> None:
    for _ in range(items):
        await rx.receive()


async def fill_and_drain(tx: Any, rx: Any, burst: int, items: int) -> None:
    for _ in range(items // burst):
        for i in range(burst):
            await tx.send(i)
        for _ in range(burst):
            await rx.receive()


async def ping(tx: Any, rx: Any, items: int) -> None:
    for i in range(items):
        await tx.send(i)
        await rx.receive()


async def pong(rx: Any, tx: Any, items: int) -> None:
    for _ in range(items):
        await tx.send(await rx.receive())


async def ask(tx: Any, open_reply: Callable[[], tuple[Any, Any]], items: int) -> None:
    for i in range(items):
        reply, answer = open_reply()
        await tx.send((i, reply))
        await answer.receive()


async def ask_and_close(tx: Any, open_reply: Callable[[], tuple[Any, Any]], items: int) -> None:
    """For those who complain about an end that nobody closed."""
    for i in range(items):
        reply, answer = open_reply()
        await tx.send((i, reply))
        await answer.receive()
        reply.close()
        answer.close()


async def answer(rx: Any, items: int) -> None:
    for _ in range(items):
        i, reply = await rx.receive()
        await reply.send(i)


async def fan_out(txs: list[Any], items: int) -> None:
    for i in range(items):
        for tx in txs:
            await tx.send(i)


# ------------- with a time limit that never passes
async def consume_within(rx: Any, items: int) -> None:
    for _ in range(items):
        await rx.receive().within(FAR)


def consume_sync_timeout(rx: Any, items: int) -> None:
    for _ in range(items):
        rx.receive().sync(FAR)


async def consume_timeout_argument(rx: Any, items: int) -> None:
    for _ in range(items):
        await rx.receive(timeout=FAR)


async def consume_in_asyncio_timeout(rx: Any, items: int) -> None:  # no thread
    for _ in range(items):
        async with asyncio.timeout(FAR):
            await rx.receive()


async def consume_in_scope(rx: Any, fail_after: Callable[[float], Any], items: int) -> None:  # no thread
    for _ in range(items):
        with fail_after(FAR):
            await rx.receive()


# ------------- select over four channels: chanlib
async def take(select: Any, a: Any, b: Any, c: Any, d: Any, items: int) -> None:
    for _ in range(items):
        await select(a.receive(), b.receive(), c.receive(), d.receive())


async def give(select: Any, a: Any, b: Any, c: Any, d: Any, items: int) -> None:
    for i in range(items):
        await select(a.send(i), b.send(i), c.send(i), d.send(i))


async def take_turns(select: Any, turn: asyncio.Event, a: Any, b: Any, c: Any, d: Any, items: int) -> None:  # no thread
    for _ in range(items):
        await select(a.receive(), b.receive(), c.receive(), d.receive())
        turn.set()


async def feed_turns(turn: asyncio.Event, txs: list[Any], items: int) -> None:  # no thread
    """Each channel gets an item in turn, and the next only when it was taken."""
    for i in range(items):
        await txs[i % len(txs)].send(i)
        await turn.wait()
        turn.clear()


# ------------- select over four channels: aiochan
async def aiochan_take(select: Any, a: Any, b: Any, c: Any, d: Any, items: int) -> None:  # no thread
    for _ in range(items):
        await select(a, b, c, d)


async def aiochan_give(select: Any, a: Any, b: Any, c: Any, d: Any, items: int) -> None:  # no thread
    for i in range(items):
        await select((a, i), (b, i), (c, i), (d, i))


async def aiochan_take_turns(select: Any, turn: asyncio.Event, a: Any, b: Any, c: Any, d: Any, items: int) -> None:
    for _ in range(items):
        await select(a, b, c, d)
        turn.set()


# ------------- select over four queues: `asyncio.wait` over tasks that are kept between rounds
async def wait_take_one(turn: asyncio.Event | None, queues: list[Any], items: int) -> None:  # no thread
    """One result a call, as a select gives: what else is done stays for the next call."""
    gets = {asyncio.create_task(queue.get()): queue for queue in queues}
    for _ in range(items):
        done, _pending = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        queue = gets.pop(task)
        task.result()
        gets[asyncio.create_task(queue.get())] = queue
        if turn is not None:
            turn.set()
    for task in gets:
        task.cancel()


async def wait_take_all(turn: asyncio.Event | None, queues: list[Any], items: int) -> None:  # no thread
    """All results that a call finds."""
    gets = {asyncio.create_task(queue.get()): queue for queue in queues}
    taken = 0
    while taken < items:
        done, _pending = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            queue = gets.pop(task)
            task.result()
            gets[asyncio.create_task(queue.get())] = queue
        taken += len(done)
        if turn is not None:
            turn.set()
    for task in gets:
        task.cancel()


# ------------- a crowd whose wait is cancelled
async def storm_asyncio(take: Loop, give: Loop, rx: Any, tx: Any, crowd: int, items: int) -> None:  # no thread
    """`take(rx, 1)` is started `crowd` times, parks, is cancelled and waited for; in the end a value still passes."""
    for _ in range(items // crowd):
        tasks = [asyncio.create_task(take(rx, 1)) for _ in range(crowd)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not all(task.cancelled() for task in tasks):
        raise RuntimeError("a receive on an empty channel came through its cancellation")
    async with asyncio.TaskGroup() as group:
        group.create_task(take(rx, 1))
        group.create_task(give(tx, 1))


async def storm_trio(take: Loop, give: Loop, rx: Any, tx: Any, crowd: int, items: int) -> None:  # no thread
    import trio

    for _ in range(items // crowd):
        async with trio.open_nursery() as nursery:
            for _ in range(crowd):
                nursery.start_soon(take, rx, 1)
            for _ in range(2):  # trio runs a batch in any order: after two all have parked
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if not nursery.cancel_scope.cancelled_caught:
            raise RuntimeError("a receive on an empty channel came through its cancellation")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, rx, 1)
        nursery.start_soon(give, tx, 1)
