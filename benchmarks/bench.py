"""A bench: one peer at one capacity, with a party on the left and one on the right of its channels.

The capacity is None where no channel is measured, or one between processes. A party starts loops, each put into the
words of the peer's form there, and hands out the ends of channels. It adds nothing to what is timed: a loop gets the
library's own objects. Only the run that checks, before any that is timed, has a `Tally` between: it notes what goes in
and what comes out, and both must be the same objects; between processes, the same values in the same order. Where no
values pass, it notes the tasks and threads that begin and end.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from . import loops
from .loops import Ends, Loop, Words, speak
from .peers import Form, Peer, both_ends, pair_of_ends
from .processes import Away, by_value, run_away
from .sides import Plan, Side


class Tally:
    """What went into the channels, and what came out."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.received: list[Any] = []
        self.copies = 1  # how often each value comes out
        self.mark: Callable[[Any], Any] = _itself  # what is kept of a value
        self.key: Callable[[Any], Any] = id  # what of that must be the same
        self.in_order = False

    def note(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """A body like this one, of a task or of a thread: it goes in when it begins, and comes out at its end."""

        @contextmanager
        def noted() -> Iterator[None]:
            mark = object()
            self.sent.append(mark)
            try:
                yield
            finally:
                self.received.append(mark)

        async def in_task(*args: Any) -> Any:
            with noted():
                return await body(*args)

        def in_thread(*args: Any) -> Any:
            with noted():
                return body(*args)

        return in_task if inspect.iscoroutinefunction(body) else in_thread

    def wrap(self, end: Any, words: Words) -> Any:
        """An end like this one, all traffic noted."""
        found = {}
        for word, kept in ((words.send, self.sent), (words.receive, self.received), ("receive_some", self.received)):
            if (inner := getattr(end, word, None)) is not None:
                found[word] = partial(self._noted, inner, word, kept)
        return _Noted(end, self, close=getattr(end, "close", None), **found)

    def _noted(self, inner: Callable[..., Any], word: str, kept: list[Any], *args: Any, **options: Any) -> Any:
        def note(result: Any) -> Any:
            if word == "receive_some":
                kept.extend(map(self.mark, result))
            else:
                kept.append(self.mark(args[0] if kept is self.sent else result))
            return result

        async def noted() -> Any:
            return note(await inner(*args, **options))

        async def awaited() -> Any:
            return note(await made)

        if inspect.iscoroutinefunction(inner):
            return noted()  # nothing is called yet: a task that is cancelled may never start
        made = inner(*args, **options)
        if hasattr(made, "within"):  # an operation of chanlib's
            return made.map(note)
        return awaited() if inspect.isawaitable(made) else note(made)

    def check(self) -> None:
        """That all came out; by identity, since the lists keep the values alive, unless `key` says otherwise."""
        if not self.received:
            raise AssertionError("nothing came out")
        into, out = [self.key(value) for value in self.sent], [self.key(value) for value in self.received]
        sent, received = Counter(into * self.copies), Counter(out)
        if sent != received:
            lost, strange = (sent - received).total(), (received - sent).total()
            raise AssertionError(f"of {sent.total()} values {lost} were lost, and {strange} came out that should not")
        if self.in_order and into != out:
            raise AssertionError("the values came out in another order")


class _Noted(SimpleNamespace):
    """An end whose words are replaced; what is iterated over is noted too."""

    def __init__(self, end: Any, tally: Tally, **words: Any) -> None:
        super().__init__(**words)
        self._end = end
        self._tally = tally

    def __iter__(self) -> Iterator[Any]:
        for value in self._end:
            self._tally.received.append(self._tally.mark(value))
            yield value

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for value in self._end:
            self._tally.received.append(self._tally.mark(value))
            yield value


def _itself(value: Any) -> Any:
    return value


class Party:
    """One side of a bench: whoever is started there uses one form of the peer."""

    def __init__(self, world: str, form: Form, tally: Tally | None, closes: bool = False) -> None:
        self.world = world
        self.form = form
        self.tally = tally
        self.closes = closes  # must its ends be closed?
        self.held: list[Any] = []  # those
        self.jobs: list[Any] = []

    def start(self, loop: Loop, *args: Any) -> None:
        if self.world == "process":
            self.jobs.append(Away(partial(run_away, loop, self.form.words, self.closes, *args)))
        else:
            self.jobs.append(partial(speak(loop, self.form.words), *args))

    def tx(self, channel: Any) -> Any:
        return self.end(self.form.ends(channel)[0])

    def rx(self, channel: Any) -> Any:
        return self.end(self.form.ends(channel)[1])

    def end(self, end: Any) -> Any:
        """One that this party uses."""
        if self.closes:
            self.held.append(end)
        # another process gets the end itself
        return end if self.tally is None or self.world == "process" else self.tally.wrap(end, self.form.words)

    def timed(self) -> tuple[Any, ...]:
        """The loop that receives under a time limit, and what it needs besides."""
        if self.form.timed is not None:
            return self.form.timed()
        if self.world == "trio":
            import trio

            return loops.consume_in_scope, trio.fail_after
        return (loops.consume_in_asyncio_timeout,)


class Bench:
    """A peer at one capacity, with a left and a right party."""

    def __init__(self, peer: Peer, side: Side, capacity: float | None, tally: Tally | None = None) -> None:
        self.peer = peer
        self.side = side
        self.capacity = capacity
        self.stretches: list[float] = []  # seconds, of a loop that times itself
        self.tally = tally
        closes = side.left == "process" and peer.processes.closes
        self.left = Party(side.left, peer.form(side.left), tally, closes)
        self.right = Party(side.right, peer.form(side.right), tally, closes)
        if capacity is not None:
            self.open = peer.opener(capacity)
        if tally is not None and side.left == "process":
            tally.mark, tally.key, tally.in_order = by_value, _itself, True

    def stream(self, room: int) -> Ends:
        """A channel between processes."""
        assert self.peer.processes.stream is not None
        return self.peer.processes.stream(room)

    def body(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What a task or thread of this bench runs."""
        return function if self.tally is None else self.tally.note(function)

    def expect(self, values: Iterable[Any]) -> None:
        """What comes from another process, where nobody notes what goes in."""
        if self.tally is not None:
            self.tally.sent.extend(map(self.tally.mark, values))

    def heard(self, values: Iterable[Any]) -> None:
        """What came out without passing an end."""
        if self.tally is not None:
            self.tally.received.extend(map(self.tally.mark, values))

    def plan(self) -> Plan:
        return Plan(self.left.jobs, self.right.jobs, self.left.held)

    def close(self) -> None:
        """The ends that must be closed."""
        for end in self.left.held + self.right.held:
            end.close()

    def open_reply(self) -> Callable[[], Ends]:
        """What makes a channel for one answer: its end for the right to send with, and that of the left to receive.

        This one is called in a measured loop, so it does no more than it must.
        """
        make, left, right = self.peer.opener(1), self.left, self.right
        there, here = right.form.ends, left.form.ends

        def same() -> Ends:
            channel = make()
            return channel, channel

        def different() -> Ends:
            channel = make()
            return there(channel)[0], here(channel)[1]

        def noted() -> Ends:
            channel = make()
            return right.tx(channel), left.rx(channel)

        if self.tally is not None:
            return noted
        if there is here is both_ends:
            return same
        return make if there is here is pair_of_ends else different
