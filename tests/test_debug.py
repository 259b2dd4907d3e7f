"""`chanlib.debug.tree()`: what runs and what each waits on; and debug mode, which says where things were made."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from backends import loops
from worlds import NET

from chanlib import CancelScope, Channel, Event, Lock, TaskGroup, run, select, sleep
from chanlib.debug import Node, Tree, Wait, print_tree, tree

FREE = not getattr(sys, "_is_gil_enabled", lambda: True)()
WITH_GIL = pytest.mark.skipif(FREE, reason="stacks of other threads cannot be read on a free-threaded interpreter")


def find(name: str, seen: Tree | None = None) -> Node | None:
    return next((node for node in (seen or tree()).walk() if node.name == name), None)


def is_waiting(name: str) -> bool:
    node = find(name)
    return node is not None and node.wait is not None and bool(node.wait.on)


async def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + NET
    while not holds():
        assert time.monotonic() < end, f"not settled within {NET} s:\n{tree()}"
        await sleep(0.001)


def until_here(holds: Callable[[], object]) -> None:
    end = time.monotonic() + NET
    while not holds():
        assert time.monotonic() < end, f"not settled within {NET} s:\n{tree()}"
        time.sleep(0.001)


@contextlib.contextmanager
def foreign(fn: Callable[[], object], name: str) -> Iterator[threading.Thread]:
    """A thread that no group has started."""
    thread = threading.Thread(target=fn, name=name)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(NET)
        assert not thread.is_alive()


async def group_with(
    check: Callable[[TaskGroup], Awaitable[object]], *children: Callable[[], Awaitable[Any]], **options: Any
) -> None:
    """A group 'g' with `children`, looked at by `check`, then cancelled."""
    async with TaskGroup(name="g", **options) as group:
        for child in children:
            group.start_soon(child, name=child.__name__)  # type: ignore[arg-type]
        await check(group)
        group.cancel()


# ------------------------------------------------------------- children of groups
def test_a_child_shows_the_operation_it_waits_in_and_for_how_long(backend: str) -> None:
    ch: Channel[int] = Channel(16, name="jobs")

    async def worker() -> None:
        await ch.receive()

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("worker"))
        await sleep(0.02)
        node = find("worker")
        assert node is not None
        assert node.wait is not None
        assert (node.state, node.wait.what) == ("running", "receive on Channel 'jobs' (0/16)")
        assert node.kind == ("thread" if backend == "threads" else "task")
        assert node.wait.on == (ch,)
        assert node.wait.seconds is not None
        assert 0.02 <= node.wait.seconds < NET
        assert str(node) == f"{node.kind} 'worker' running: receive on Channel 'jobs' (0/16), {node.wait.seconds:.1f} s"

    run(group_with, check, worker, backend=backend)


def test_a_child_that_sends_shows_what_is_full(backend: str) -> None:
    ch: Channel[int] = Channel(1, name="lines")
    ch.send_nowait(1)

    async def sender() -> None:
        await ch.send(2)

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("sender"))
        node = find("sender")
        assert node is not None
        assert node.wait is not None
        assert node.wait.what == "send to Channel 'lines' (1/1)"

    run(group_with, check, sender, backend=backend)


def test_a_select_shows_all_its_arms(backend: str) -> None:
    ch: Channel[int] = Channel(0, name="c")
    event = Event(name="e")

    async def chooser() -> None:
        await select(ch.receive(), event.wait(), ch.send(1).map(str), sleep(3).within(5))

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("chooser"))
        node = find("chooser")
        assert node is not None
        assert node.wait is not None
        assert node.wait.what == (
            "select of receive on Channel 'c' (0/0), wait for Event 'e', send to Channel 'c' (0/0), sleep of 3.0 s"
        )
        assert ch in node.wait.on
        assert event in node.wait.on

    run(group_with, check, chooser, backend=backend)


def test_a_queued_child_is_shown_as_queued(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    async def first() -> None:
        await ch.receive()

    async def second() -> None:
        pass

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("first"))
        node = find("second")
        assert node is not None
        assert (node.state, node.wait) == ("queued", None)
        assert str(node).endswith("'second' queued")

    async def main() -> None:
        await group_with(check, first, second, limit=1)

    run(main, backend=backend)


def test_a_child_that_was_started_by_start_is_shown_once(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    async def server(*, task_status: Any) -> None:
        task_status.started()
        await ch.receive()

    async def check(group: TaskGroup) -> None:
        await group.start(server, name="server")
        await until(lambda: is_waiting("server"))
        assert [node.name for node in tree().walk() if node.wait and ch in node.wait.on] == ["server"]

    run(group_with, check, backend=backend)


def test_a_thread_of_a_group_shows_the_operation_it_waits_in(backend: str) -> None:
    ch: Channel[int] = Channel(0, name="c")

    async def check(group: TaskGroup) -> None:
        group.start_thread(lambda: ch.receive().sync(), name="hash")
        await until(lambda: is_waiting("hash"))
        node = find("hash")
        assert node is not None
        assert node.wait is not None
        assert (node.kind, node.state, node.wait.what) == ("thread", "running", "receive on Channel 'c' (0/0)")
        assert [node.name for node in tree().walk() if node.wait and ch in node.wait.on] == ["hash"]

    run(group_with, check, backend=backend)


@WITH_GIL
def test_a_thread_that_computes_shows_where_it_is(backend: str) -> None:
    going, enough = threading.Event(), threading.Event()

    def compute() -> None:
        going.set()
        while not enough.is_set():
            pass

    async def check(group: TaskGroup) -> None:
        group.start_thread(compute, name="compute")
        try:
            await until(going.is_set)
            node = find("compute")
            assert node is not None
            assert node.wait is not None
            assert node.wait.what.startswith("in ")
            assert "compute (" in node.wait.what
            assert __file__ in node.wait.what
        finally:
            enough.set()

    run(group_with, check, backend=backend)


def test_the_child_that_asks_shows_its_own_place(backend: str) -> None:
    seen: list[Tree] = []

    async def asker() -> None:
        seen.append(tree())

    async def check(group: TaskGroup) -> None:
        await until(lambda: seen)

    run(group_with, check, asker, backend=backend)
    node = find("asker", seen[0])
    assert node is not None
    assert node.wait is not None
    assert "asker (" in node.wait.what
    assert node.wait.on == ()


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_child_that_waits_for_something_foreign_shows_the_function_and_the_line(name: str) -> None:
    async def sleeper() -> None:
        await (trio.sleep(100) if name == "trio" else asyncio.sleep(100))

    async def check(group: TaskGroup) -> None:
        await sleep(0.01)
        node = find("sleeper")
        assert node is not None
        assert node.wait is not None
        assert node.wait.what.startswith("sleep")
        assert "sleeper (" in (node.wait.where or "")
        assert f"{__file__}:" in (node.wait.where or "")
        assert node.wait.on == ()
        assert str(node) == f"task 'sleeper' running: {node.wait.what}, in {node.wait.where}"

    run(group_with, check, sleeper, backend=name)


def test_an_operation_is_found_through_generators_and_wrappers(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    class Wrapped:
        def __init__(self, op: Any) -> None:
            self.op = op

        def __await__(self) -> Any:
            return self.inner().__await__()

        async def inner(self) -> Any:
            return await self.op

    async def values() -> AsyncIterator[int]:
        try:
            yield await Wrapped(ch.receive())
        finally:
            pass

    async def deep() -> None:
        source = values()
        try:
            async for _ in source:
                pass
        finally:
            await source.aclose()  # type: ignore[attr-defined]

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("deep"))
        node = find("deep")
        assert node is not None
        assert node.wait is not None
        assert node.wait.on == (ch,)

    run(group_with, check, deep, backend=backend)


# ------------------------------------------------------------- groups
def test_groups_nest_below_the_child_they_were_entered_in(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    async def innermost() -> None:
        await ch.receive()

    async def outer() -> None:
        async with TaskGroup(name="inner") as group:
            group.start_soon(innermost, name="innermost")

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("innermost"))
        node = find("outer")
        assert node is not None
        (inner,) = node.children
        assert (inner.kind, inner.name, inner.state) == ("group", "inner", "open")
        assert [child.name for child in inner.children] == ["innermost"]

    run(group_with, check, outer, backend=backend)


def test_a_child_that_leaves_a_group_says_so(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    async def innermost() -> None:
        await ch.receive()

    async def outer() -> None:
        async with TaskGroup(name="inner") as group:
            group.start_soon(innermost)

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("outer"))
        node = find("outer")
        assert node is not None
        assert node.wait is not None
        assert "TaskGroup 'inner' (open, 1 child" in node.wait.what
        assert node.wait.what.endswith("to end")

    run(group_with, check, outer, backend=backend)


def test_groups_nest_across_worlds(backend: str) -> None:
    ch: Channel[int] = Channel(0)

    async def innermost() -> None:
        await ch.receive()

    async def live() -> None:
        async with TaskGroup(name="inner") as group:
            group.start_soon(innermost, name="innermost")

    def plain() -> None:
        with TaskGroup(name="plain") as group:
            group.start_async(live, backend="trio", name="loop")

    async def check(group: TaskGroup) -> None:
        group.start_thread(plain, name="thread")
        await until(lambda: is_waiting("innermost"))
        seen = tree()
        node = find("thread", seen)
        assert node is not None
        text = "\n".join(line.strip().partition(":")[0] for line in str(node).splitlines())
        assert "thread 'loop' running\nTaskGroup 'inner' open on trio, 1 child" in text.replace(
            "trio loop in loop\n", ""
        )
        where = "" if backend == "threads" else " on threads"
        assert f"TaskGroup 'plain' open{where}, 1 child" in text
        assert [node.name for node in seen.walk() if node.name in ("inner", "innermost")] == ["inner", "innermost"]

    run(group_with, check, backend=backend)


def test_a_group_that_was_cancelled_says_so(backend: str) -> None:
    async def main() -> None:
        async with TaskGroup(name="g") as group:
            group.cancel()
            node = find("g")
            assert node is not None
            assert "open" in node.state
            assert node.state.endswith(", cancelled")

    run(main, backend=backend)


def test_a_group_without_a_name_shows_its_number(backend: str) -> None:
    async def main() -> None:
        async with TaskGroup() as group:
            node = find(f"#{group._number}")
            assert node is not None
            assert str(node).startswith(f"TaskGroup #{group._number} open")
            assert str(node).endswith("0 children")

    run(main, backend=backend)


def test_what_has_ended_is_not_shown(backend: str) -> None:
    async def child() -> None:
        pass

    async def check(group: TaskGroup) -> None:
        await group.start_soon(child, name="short")
        assert find("short") is None

    run(group_with, check, backend=backend)
    assert find("g") is None


@loops
def test_a_loop_says_which_it_is_and_in_which_thread(backend: Any) -> None:
    async def check(group: TaskGroup) -> None:
        loop = next(node for node in tree().nodes if find("g", Tree((node,))))
        assert (loop.kind, loop.name, loop.state) == ("loop", backend, "in MainThread")

    run(group_with, check, backend=backend)


# ------------------------------------------------------------- outside of groups
def test_a_task_of_asyncio_outside_any_group_is_shown_if_it_waits_in_an_operation() -> None:
    async def main() -> None:
        ch: Channel[int] = Channel(0, name="c")
        waiting = asyncio.create_task(ch.receive(), name="waiting")  # type: ignore[arg-type]
        sleeping = asyncio.create_task(asyncio.sleep(100), name="sleeping")
        await asyncio.sleep(0.01)
        node = find("waiting")
        assert node is not None
        assert node.wait is not None
        assert str(node).startswith("task 'waiting' (no group): receive on Channel 'c' (0/0), ")
        assert find("sleeping") is None
        sleeping.cancel()
        ch.close()
        await asyncio.wait([waiting, sleeping])
        waiting.exception()

    asyncio.run(main())


def test_a_task_of_trio_outside_any_group_is_shown_if_it_waits_in_an_operation() -> None:
    async def main() -> None:
        ch: Channel[int] = Channel(0, name="c")

        async def waiting() -> None:
            await ch.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting, name="waiting")
            nursery.start_soon(trio.sleep, 100, name="sleeping")
            await trio.testing.wait_all_tasks_blocked()
            node = find("waiting")
            assert node is not None
            assert str(node).startswith("task 'waiting' (no group): receive on Channel 'c' (0/0), ")
            assert find("sleeping") is None
            nursery.cancel_scope.cancel()

    trio.run(main)


@WITH_GIL
def test_a_thread_that_no_group_has_started_is_shown_while_it_waits() -> None:
    ch: Channel[int] = Channel(16, name="jobs")
    with foreign(lambda: ch.receive().sync(), "Thread-X"):
        until_here(lambda: is_waiting("Thread-X"))
        node = find("Thread-X")
        assert node is not None
        assert node.wait is not None
        assert str(node).startswith("thread 'Thread-X' (not ours): receive on Channel 'jobs' (0/16), ")
        assert (node.wait.where or "").startswith("test_a_thread_that_no_group_has_started")
        ch.send_nowait(1)
    assert find("Thread-X") is None


@WITH_GIL
def test_loops_of_other_threads_are_shown_with_their_tasks(backend: str) -> None:
    if backend == "threads":
        pytest.skip("no loop")
    ch: Channel[int] = Channel(0, name="c")

    async def main() -> None:
        await ch.receive()

    with foreign(lambda: run(main, backend=backend), "looping"):  # type: ignore[arg-type]
        until_here(lambda: any(node.wait and ch in node.wait.on for node in tree().walk()))
        (loop,) = (one for one in tree().nodes if any(node.wait and ch in node.wait.on for node in one.walk()))
        assert str(loop).startswith(f"{backend} loop in looping\n  task ")
        ch.send_nowait(1)


def test_a_group_of_another_thread_is_shown(backend: str) -> None:
    ch: Channel[int] = Channel(0, name="c")

    async def worker() -> None:
        await ch.receive()

    async def main() -> None:
        async with TaskGroup(name="elsewhere") as group:
            group.start_soon(worker, name="worker")

    with foreign(lambda: run(main, backend=backend), "looping"):  # type: ignore[arg-type]
        until_here(lambda: is_waiting("worker"))
        node = find("elsewhere")
        assert node is not None
        assert node.children[0].wait is not None
        assert node.children[0].wait.what == "receive on Channel 'c' (0/0)"
        ch.send_nowait(1)


def test_a_thread_that_its_group_has_given_up_is_shown_while_it_waits() -> None:
    enough: Channel[int] = Channel(0, name="enough")

    def stubborn() -> None:
        with CancelScope(shield=True):
            enough.receive().sync()

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_thread(stubborn, name="stubborn", abandon=True)
            await until(lambda: is_waiting("stubborn"))
            group.cancel()
        if not FREE:
            assert str(find("stubborn")).startswith("thread 'stubborn' (given up): receive on Channel 'enough'")
        await enough.send(1)

    run(main)


# ------------------------------------------------------------- as data and as text
def test_nothing_to_show_is_said_in_words() -> None:
    assert str(Tree(())) == "nothing runs, nobody waits"


def test_a_tree_is_frozen_and_walked_from_above() -> None:
    leaf = Node("task", "leaf", "running", Wait("send to Channel 'c' (1/1)", 0.12))
    seen = Tree((Node("loop", "asyncio", "in MainThread", children=(Node("group", "g", "open", children=(leaf,)),)),))
    assert [node.name for node in seen.walk()] == ["asyncio", "g", "leaf"]
    with pytest.raises(AttributeError):
        leaf.name = "other"  # type: ignore[misc]
    assert str(seen) == (
        "asyncio loop in MainThread\n"
        "  TaskGroup 'g' open, 1 child\n"
        "    task 'leaf' running: send to Channel 'c' (1/1), 0.1 s"
    )


def test_print_tree_prints_to_a_file_or_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    print_tree(out)
    print_tree()
    assert out.getvalue() == f"{tree()}\n" == capsys.readouterr().err


def test_a_description_that_fails_does_not_matter(backend: str) -> None:
    from chanlib.lowlevel import PENDING, Leaf, Source

    class Odd(Leaf[None]):
        def __init__(self) -> None:
            self._src = Source()

        def _attempt(self, src: Any) -> Any:
            return PENDING

        def _enqueue(self, src: Any, waiter: Any) -> None:
            pass

        def _describe(self, src: Any) -> str:
            raise ZeroDivisionError

    async def odd() -> None:
        await Odd()

    async def check(group: TaskGroup) -> None:
        await until(lambda: is_waiting("odd"))
        node = find("odd")
        assert node is not None
        assert node.wait is not None
        assert node.wait.what == "Odd on Source"

    run(group_with, check, odd, backend=backend)


def test_trio_is_not_imported_by_looking() -> None:
    program = (
        "import sys, chanlib, chanlib.debug\n"
        "async def main():\n"
        "    async with chanlib.TaskGroup(): return str(chanlib.debug.tree())\n"
        "print(chanlib.run(main).count('TaskGroup'), 'trio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("1 False", "", 0)


def test_nothing_imports_debug() -> None:
    program = "import sys, chanlib, chanlib.lowlevel; print('chanlib.debug' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------- anywhere, at any moment
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_it_can_be_called_by_a_signal_handler_in_the_middle_of_operations(backend: str) -> None:
    seen: list[str] = []
    errors: list[BaseException] = []

    def handler(signum: int, frame: Any) -> None:
        try:
            seen.append(str(tree()))
        except BaseException as error:
            errors.append(error)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)  # not an interval: a slow look would be interrupted by the next

    async def main() -> None:
        ch: Channel[int] = Channel(1, name="c")
        lock = Lock()

        async def producer() -> None:
            while True:
                async with lock:
                    await ch.send(1)

        async def check(group: TaskGroup) -> None:
            end = time.monotonic() + NET
            while len(seen) < 100 and time.monotonic() < end:
                await select(ch.receive(), sleep(1))

        await group_with(check, producer)

    before = signal.signal(signal.SIGVTALRM, handler)  # not SIGALRM: that is the alarm for tests that hang
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
    try:
        run(main, backend=backend)
    finally:
        signal.signal(signal.SIGVTALRM, signal.SIG_IGN)  # first: the handler would set the timer anew
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert errors == []
    assert len(seen) >= 100
    assert any("TaskGroup 'g' open" in text and "'producer' running" in text for text in seen)
    assert not any("could not be seen" in text for text in seen)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here")
def test_a_handler_that_interrupts_a_blocked_thread_sees_what_that_waits_on() -> None:
    program = """
import os, signal, threading, time
from chanlib import Channel
from chanlib.debug import print_tree
jobs = Channel(3, name="jobs")
def handler(signum, frame):
    print_tree()
    jobs.send_nowait(1)
signal.signal(signal.SIGUSR1, handler)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
print(jobs.receive().sync(20))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout == "1\n"
    assert done.stderr.startswith("thread 'MainThread' (not ours): receive on Channel 'jobs' (0/3), 0.")


def test_looking_in_a_loop_neither_raises_nor_disturbs_those_who_run(backend: str) -> None:
    seconds = 1.0
    errors: list[BaseException] = []
    stop = threading.Event()
    looks = [0]

    def look() -> None:
        try:
            while not stop.is_set():
                text = str(tree())
                looks[0] += 1
                assert "could not be seen" not in text, text
        except BaseException as error:
            errors.append(error)

    async def main() -> None:
        ch: Channel[int] = Channel(2, name="c")
        end = time.monotonic() + seconds

        async def producer() -> int:
            count = 0
            while time.monotonic() < end:
                await ch.send(count)
                count += 1
            return count

        async def consumer() -> int:
            count = 0
            async for _ in ch:
                count += 1
            return count

        async def short() -> None:
            async with TaskGroup(limit=2) as group:
                for _ in range(5):
                    group.start_soon(sleep, 0.0)  # type: ignore[arg-type]
                group.start_thread(lambda: sleep(0.0001).sync())

        async def churn() -> None:
            while time.monotonic() < end:
                await short()

        async with TaskGroup(name="g") as group:
            consumers = [group.start_soon(consumer) for _ in range(2)]
            churning = [group.start_soon(churn) for _ in range(2)]
            producers = [group.start_soon(producer) for _ in range(2)]
            sent = 0
            for handle in producers:
                sent += await handle
            ch.close()
            assert sum([await handle for handle in consumers]) == sent
            for churner in churning:
                await churner

    with foreign(look, "looking"):
        try:
            run(main, backend=backend)
        finally:
            stop.set()
    assert errors == []
    assert looks[0] > 3


# ------------------------------------------------------------- debug mode
PROGRAM = """
from chanlib import Channel, TaskGroup, run, sleep
from chanlib.debug import tree

async def worker(ch):
    await ch.receive()

async def server(ch, *, task_status):
    task_status.started()
    await ch.receive()

async def main():
    ch = Channel(1, name="c")                            # line 13
    async with TaskGroup(name="g") as group:             # line 14
        group.start_soon(worker, ch)                     # line 15
        group.start_thread(lambda: ch.receive().sync())  # line 16
        await group.start(server, ch)                    # line 17
        await sleep(0.2)
        print(tree())
        group.cancel()

run(main, backend=BACKEND)
"""


def debugged(backend: str, tmp_path: Path, *flags: str, **variables: str) -> list[str]:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.replace("BACKEND", repr(backend)), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key not in ("CHANLIB_DEBUG", "PYTHONDEVMODE")}
    environment |= variables
    done = subprocess.run(
        [sys.executable, *flags, str(file)], capture_output=True, text=True, timeout=50, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.replace(str(file), "FILE").splitlines()]


@pytest.mark.parametrize("way", ["-X dev", "CHANLIB_DEBUG=1"])
def test_debug_mode_shows_where_things_were_made(way: str, backend: str, tmp_path: Path) -> None:
    lines = (
        debugged(backend, tmp_path, "-X", "dev") if way == "-X dev" else debugged(backend, tmp_path, CHANLIB_DEBUG="1")
    )
    (group,) = (line for line in lines if line.startswith("TaskGroup 'g'"))
    children = [line for line in lines if line.startswith(("task", "thread")) and "running" in line]
    assert group.endswith("[made at FILE:14]")
    assert [line.rpartition(" [")[2] for line in children] == [f"made at FILE:{n}]" for n in (15, 16, 17)]
    assert all("receive on Channel 'c' (0/1) made at FILE:13, 0." in line for line in children)


def test_outside_of_debug_mode_nothing_is_recorded(tmp_path: Path) -> None:
    assert "made at" not in "\n".join(debugged("asyncio", tmp_path))
    assert "made at" not in "\n".join(debugged("asyncio", tmp_path, CHANLIB_DEBUG="0"))
