"""Who is compared: for each library, how its channel is made and in which words it is talked to.

A peer has up to two forms, one for tasks and one for threads. A form names its words (`loops.Words`), the ends of a
channel for somebody who uses that form, and the loop that receives with a time limit. `lacks` says why a peer has no
place in a cell of the table. Libraries are imported when a channel is made: a worker loads only what it measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from . import loops, processes, structured
from .loops import Ends, Loop, Words
from .processes import Processes
from .sides import Side

LOOPS = frozenset({"asyncio", "uvloop", "trio"})
ASYNCIO = frozenset({"asyncio", "uvloop"})
PLAIN = frozenset({"threads", "process"})  # a process has no loop of its own here
EVERY = frozenset({"rendezvous", "bounded", "unbounded"})
BUFFERED = frozenset({"bounded", "unbounded"})


def capacity_label(capacity: float) -> str:
    return "unbounded" if capacity == math.inf else f"{capacity:.0f}"


def both_ends(channel: Any) -> Ends:
    """One object is both."""
    return channel, channel


def pair_of_ends(channel: Ends) -> Ends:
    """The library gives a pair."""
    return channel


@dataclass(frozen=True)
class Form:
    """How tasks, or threads, talk to a channel of a peer."""

    words: Words
    ends: Callable[[Any], Ends] = both_ends
    worlds: frozenset[str] = LOOPS | PLAIN
    timed: Callable[[], tuple[Any, ...]] | None = None  # the loop, and what it needs; None: the world's own way
    closes: bool = False  # its users close each end, or are warned


@dataclass(frozen=True)
class Select:
    """The loops that wait on four channels, each with what it is called with before the number of items."""

    take: Callable[[list[Any]], tuple[Any, ...]] | None = None
    give: Callable[[list[Any]], tuple[Any, ...]] | None = None
    take_turns: Callable[[Any, list[Any]], tuple[Any, ...]] | None = None
    own_channels: bool = False  # it looks at the type of what it is given


@dataclass(frozen=True)
class Structured:
    """The loops over tasks, scopes and threads, as its users write them. `structured` says what each is called with."""

    spawn: Loop | None = None
    cancel: Loop | None = None
    scopes: Loop | None = None
    threads: Loop | None = None
    pair: Loop | None = None
    stop: bool = False  # can a thread that waits be cancelled?


@dataclass(frozen=True)
class Peer:
    """A library, or one of its queues."""

    name: str
    package: str  # as it is imported; the standard library's are always there
    opener: Callable[[float], Callable[[], Any]]  # of the capacity: what makes a channel
    tasks: Form | None = None
    threads: Form | None = None
    capacities: frozenset[str] = BUFFERED
    # who may share one channel: the tasks of one loop; threads and one loop; threads and any number of loops
    reach: Literal["one loop", "a loop and threads", "anything"] = "one loop"
    select: Select = field(default_factory=Select)
    subscribe: Callable[[float, int], tuple[Any, list[Any]]] | None = None  # a broadcast of its own
    structured: Structured = field(default_factory=Structured)
    processes: Processes = field(default_factory=Processes)
    only: tuple[str, ...] = ()  # the scenarios it is there for; none: all

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured at all, or None if it can."""
        if find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.subscribe is not None and not _has_broadcast():
            return "this chanlib has no Broadcast"
        return None

    def form(self, world: str) -> Form:
        form = self._form(world)
        assert form is not None, (self.name, world)
        return form

    def _form(self, world: str) -> Form | None:
        return self.threads if world in PLAIN else self.tasks

    def lacks(self, scenario: str, needs: str, side: Side, capacity: float | None) -> str | None:
        """Why this peer has no place there, or None if it has.

        `needs` names a field of `Select`, or is empty. Where there is no capacity, it names one of `Structured`, or
        of `Processes`.
        """
        if self.only and not any(scenario.startswith(prefix) for prefix in self.only):
            return f"it is only for {' and '.join(self.only)}"
        if capacity is None:
            part = self.processes if side.left == "process" else self.structured
            return self.lacks_side(side) if getattr(part, needs, None) else f"it has nothing for {scenario}"
        if needs and getattr(self.select, needs) is None:
            return "it has no select" if self.select == Select() else f"its select is not for {scenario}"
        if (reason := self.lacks_side(side)) is not None:
            return reason
        kind = "rendezvous" if capacity == 0 else "unbounded" if capacity == math.inf else "bounded"
        return None if kind in self.capacities else f"it has no capacity {capacity_label(capacity)}"

    def lacks_side(self, side: Side) -> str | None:
        """Why this peer has no place on that side, or None if it has."""
        if side.left == "process" and self.processes == Processes():
            return "it has nothing between processes"
        if side.left != "process" and self.only and all(name.startswith("process_") for name in self.only):
            return "it is only for what is between processes"
        for world in (side.left, side.right):
            if self._form(world) is None:
                return f"it has no form for {'threads' if world in PLAIN else 'tasks'}"
            if world not in self.form(world).worlds:
                return f"it does not run on {world}"
        if not side.together and self.reach == "one loop":
            return "it is not thread-safe"
        if side.loops > 1 and self.reach != "anything":
            return "it belongs to one loop"
        return None


# ------------- how channels are made
def _made_by(module: str, name: str, unbounded: object) -> Callable[[float], Callable[[], Any]]:
    def opener(capacity: float) -> Callable[[], Any]:
        return partial(getattr(import_module(module), name), unbounded if capacity == math.inf else capacity)

    return opener


def _simple(module: str) -> Callable[[float], Callable[[], Any]]:
    return lambda _: import_module(module).SimpleQueue


def _aiochan(capacity: float) -> Callable[[], Any]:
    return partial(import_module("aiochan").Chan, 2**60 if capacity == math.inf else capacity or None)


def _broadcast(capacity: float, subscribers: int) -> tuple[Any, list[Any]]:
    sender = import_module("chanlib").Broadcast(capacity, overflow="wait")
    return sender, [sender.subscribe() for _ in range(subscribers)]


def _has_broadcast() -> bool:
    return hasattr(import_module("chanlib"), "Broadcast")


# ------------- their selects
def _select(module: str, loop: Loop) -> Callable[[list[Any]], tuple[Any, ...]]:
    return lambda ends: (loop, import_module(module).select, *ends)


def _select_turns(module: str, loop: Loop) -> Callable[[Any, list[Any]], tuple[Any, ...]]:
    return lambda turn, ends: (loop, import_module(module).select, turn, *ends)


def _wait(loop: Loop) -> Select:
    return Select(lambda ends: (loop, None, ends), None, lambda turn, ends: (loop, turn, ends))


# ------------- the forms
_OPS = Words()
_PUT = Words("put", "get")
_PUT_SYNC = Words("put", "get", "call")


_CHANLIB = Processes(processes.open_chanlib, shared=True, broken=True, pool=processes.pool_chanlib, closes=True)


def _argument() -> tuple[Any, ...]:
    return (loops.consume_timeout_argument,)


def _mixed(attribute: str) -> Callable[[Any], Ends]:
    def ends(channel: Any) -> Ends:
        end = getattr(channel, attribute)
        return end, end

    return ends


def _without_channels(name: str, loops: Structured, worlds: frozenset[str] = frozenset()) -> Peer:
    """Something of the standard library, for tasks if `worlds` says of which loops, else for threads."""
    common: dict[str, Any] = {"capacities": frozenset(), "structured": loops, "only": ("group_",)}
    if worlds:
        return Peer(name, "asyncio", lambda _: object, Form(_OPS, worlds=worlds), **common)
    return Peer(name, "threading", lambda _: object, threads=Form(_OPS), reach="anything", **common)


def _between_processes(name: str, package: str, how: Processes, words: Words, tasks: bool = False) -> Peer:
    """What its users have between processes; if `tasks`, also in a loop, which waits in another thread."""
    form = Form(words._replace(wait="await"), worlds=frozenset({"asyncio", "trio"})) if tasks else None
    common: dict[str, Any] = {"capacities": frozenset(), "reach": "anything", "only": ("process_",)}
    return Peer(name, package, lambda _: object, form, Form(words), processes=how, **common)


def _chanlib_between_processes(name: str, how: Processes) -> Peer:
    peer = _between_processes(name, "chanlib", how, Words(wait="sync"), True)
    return replace(peer, only=("process_ints", "process_asyncio", "process_trio"))


PEERS = [
    Peer(
        "chanlib",
        "chanlib",
        _made_by("chanlib", "Channel", math.inf),
        Form(_OPS, timed=lambda: (loops.consume_within,)),
        Form(Words(wait="sync"), timed=lambda: (loops.consume_sync_timeout,)),
        EVERY,
        "anything",
        Select(
            _select("chanlib", loops.take), _select("chanlib", loops.give), _select_turns("chanlib", loops.take_turns)
        ),
        structured=Structured(
            structured.spawn_chanlib,
            structured.cancel_chanlib,
            structured.scopes_chanlib,
            structured.threads_chanlib,
            structured.pair_chanlib,
            stop=True,
        ),
        processes=_CHANLIB,
    ),
    Peer(
        "chanlib.Broadcast",
        "chanlib",
        _made_by("chanlib", "Channel", math.inf),
        Form(_OPS),
        Form(Words(wait="sync")),
        reach="anything",
        subscribe=_broadcast,
        only=("broadcast",),
    ),
    Peer("asyncio.Queue", "asyncio", _made_by("asyncio", "Queue", 0), Form(_PUT, worlds=ASYNCIO)),
    Peer(
        "queue.Queue", "queue", _made_by("queue", "Queue", 0), None, Form(_PUT_SYNC, timed=_argument), reach="anything"
    ),
    Peer(
        "queue.SimpleQueue",
        "queue",
        _simple("queue"),
        None,
        Form(_PUT_SYNC, timed=_argument),
        frozenset({"unbounded"}),
        "anything",
    ),
    Peer(
        "trio",
        "trio",
        _made_by("trio", "open_memory_channel", math.inf),
        Form(_OPS, pair_of_ends, frozenset({"trio"})),
        capacities=EVERY,
        structured=Structured(structured.spawn_trio, structured.cancel_trio, structured.scopes_trio),
    ),
    Peer(
        "anyio",
        "anyio",
        _made_by("anyio", "create_memory_object_stream", math.inf),
        Form(_OPS, pair_of_ends, LOOPS, lambda: (loops.consume_in_scope, import_module("anyio").fail_after), True),
        capacities=EVERY,
        structured=Structured(structured.spawn_anyio, structured.cancel_anyio, structured.scopes_anyio),
    ),
    Peer(
        "janus",
        "janus",
        _made_by("janus", "Queue", 0),
        Form(_PUT, _mixed("async_q"), ASYNCIO),
        Form(_PUT_SYNC, _mixed("sync_q"), timed=_argument),
        reach="a loop and threads",
    ),
    Peer(
        "culsans",
        "culsans",
        _made_by("culsans", "Queue", 0),
        Form(_PUT, _mixed("async_q")),
        Form(_PUT_SYNC, _mixed("sync_q"), timed=_argument),
        reach="anything",
    ),
    Peer(
        "aiologic.Queue",
        "aiologic",
        _made_by("aiologic", "Queue", None),
        Form(Words("async_put", "async_get"), timed=_argument),
        Form(Words("green_put", "green_get", "call"), timed=_argument),
        reach="anything",
    ),
    Peer(
        "aiologic.SimpleQueue",
        "aiologic",
        _simple("aiologic"),
        Form(Words("async_put", "async_get"), timed=_argument),
        Form(Words("green_put", "green_get", "call"), timed=_argument),
        frozenset({"unbounded"}),
        "anything",
    ),
    Peer(
        "aiochan",
        "aiochan",
        _aiochan,
        Form(_PUT, worlds=ASYNCIO),
        capacities=EVERY,
        select=Select(
            _select("aiochan", loops.aiochan_take),
            _select("aiochan", loops.aiochan_give),
            _select_turns("aiochan", loops.aiochan_take_turns),
            own_channels=True,
        ),
    ),
    Peer(
        "asyncio.wait-one",
        "asyncio",
        _made_by("asyncio", "Queue", 0),
        Form(_PUT, worlds=ASYNCIO),
        select=_wait(loops.wait_take_one),
        only=("select_",),
    ),
    Peer(
        "asyncio.wait-all",
        "asyncio",
        _made_by("asyncio", "Queue", 0),
        Form(_PUT, worlds=ASYNCIO),
        select=_wait(loops.wait_take_all),
        only=("select_",),
    ),
    _without_channels("asyncio.TaskGroup", Structured(structured.spawn_asyncio, structured.cancel_asyncio), ASYNCIO),
    _without_channels("asyncio.timeout", Structured(scopes=structured.scopes_asyncio), ASYNCIO),
    _without_channels(
        "threading.Thread", Structured(threads=structured.threads_threading, pair=structured.pair_threading)
    ),
    _without_channels(
        "ThreadPoolExecutor", Structured(threads=structured.threads_executor, pair=structured.pair_executor)
    ),
    _without_channels("sequence", Structured(pair=structured.pair_sequence)),  # one call after the other
    _chanlib_between_processes("chanlib.for", replace(_CHANLIB, take=processes.take_each)),
    _chanlib_between_processes("chanlib.some", replace(_CHANLIB, give=processes.give_some, take=processes.take_some)),
    _between_processes(
        "multiprocessing.Queue",
        "multiprocessing",
        Processes(
            processes.open_queue,
            shared=True,
            take_in={"asyncio": processes.take_in_executor, "trio": processes.take_in_trio_thread},
        ),
        _PUT_SYNC,
        True,
    ),
    _between_processes(
        "multiprocessing.SimpleQueue",
        "multiprocessing",
        Processes(processes.open_simple_queue, shared=True),
        _PUT_SYNC,
    ),
    _between_processes(
        "multiprocessing.Pipe",
        "multiprocessing",
        Processes(processes.open_pipe, closes=True),
        Words(receive="recv", wait="call"),
    ),
    _between_processes("faster_fifo", "faster_fifo", Processes(processes.open_faster_fifo, shared=True), _PUT_SYNC),
    _between_processes("ProcessPoolExecutor", "concurrent.futures", Processes(pool=processes.pool_stdlib), _PUT_SYNC),
    _between_processes("loky", "loky", Processes(pool=processes.pool_loky), _PUT_SYNC),
]


def add(peer: Peer) -> None:
    """Take one more into the comparison, for a module that is named by `--with`.

    add(Peer("mine", "my_package", lambda capacity: partial(my_package.Queue, capacity), Form(Words("put", "get"))))
    """
    if any(other.name == peer.name for other in PEERS):
        raise ValueError(f"there is a peer {peer.name!r} already")
    PEERS.append(peer)
