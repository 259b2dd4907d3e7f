"""For those who write a primitive of their own, and the switches of the core.

A primitive consists of a `Source`, which has the lock and the state, and one `Leaf` per operation, which says five
things about itself. All five run under the source's lock and must neither block nor call foreign code:

- `_attempt(src)`: do it now. Return the result, or `PENDING`, or raise the operation's error.
- `_enqueue(src, waiter)`: it would have to wait; leave `waiter` where a peer finds it, or tell it when to look again.
- `_withdraw(src, waiter)`: the waiter has given up; tidy the queue (`WaitQueue.withdrawn`). Nothing by default.
- `_undo(src, waiter)`: a peer had served the waiter, but its task was cancelled, or its loop is dead: give back what
  it got, to the next waiter if there is one. Return False if that cannot be done. True by default.
- `_ended(src, waiter)`: the error for a waiter whose state was set to `ENDED`. Called outside the lock.

plus `_describe(src)`, the words for its `repr` and errors, and optionally `_hint(src)`, a look without the lock: False
if `_attempt` would surely have to wait. An instance is made by setting `_src`, at best in `__init__`.

There are two kinds. A **committing** operation is completed by its peer. The peer, in a step of its own, takes the
first waiter with `queue.claim(src._after)` and serves it: first `waiter.value = result`, then `waiter.state = SERVED`.
A **readiness** operation is told to try again: by `waiter.wake_in(seconds)`, `waiter.wake_readable(fd)` or
`waiter.wake_writable(fd)`, called in `_enqueue`, or by a peer that puts the waiter into `src._after` unclaimed.

Steps are run by `src._locked(function, *args)`, which returns the function's result and then wakes whoever was put
into `src._after`. It raises `Reentered` if this very thread is in the middle of a step on the same source, as can
happen in a finalizer; a method that must work there catches it and calls `src._defer(function)`. A step that lets go
of a user's object tells so by `src._drop(thing)`, since a destructor may wait for another thread that needs the lock.

That is all: such an operation can be awaited under asyncio and trio, waited for by threads, polled, mapped, given a
time limit, and stands in `select` beside any other.

A committing primitive, a gate that lets one waiter through for each `open()`:

    from chanlib.lowlevel import PENDING, SERVED, Leaf, Source, WaitQueue

    class Turnstile(Source):
        def __init__(self):
            super().__init__()
            self.free = 0
            self.queue = WaitQueue()

        def open(self):
            self._locked(self._let_one_through)

        def _let_one_through(self):
            waiter = self.queue.claim(self._after)
            if waiter is None:
                self.free += 1
            else:
                waiter.state = SERVED

        def passing(self):
            return Passing(self)

    class Passing(Leaf):
        def __init__(self, turnstile):
            self._src = turnstile

        def _attempt(self, turnstile):
            if not turnstile.free:
                return PENDING
            turnstile.free -= 1
            return None

        def _enqueue(self, turnstile, waiter):
            turnstile.queue.append(waiter)

        def _withdraw(self, turnstile, waiter):
            turnstile.queue.withdrawn()

        def _undo(self, turnstile, waiter):  # the place it was given goes to the next
            turnstile._let_one_through()
            return True

        def _describe(self, turnstile):
            return "passing a turnstile"

A readiness primitive, the reading end of a pipe:

    import os
    from chanlib.lowlevel import PENDING, Leaf, Source

    class PipeReader(Source):
        def __init__(self, fd):
            super().__init__()
            os.set_blocking(fd, False)
            self.fd = fd

        def read(self, size):
            return Reading(self, size)

    class Reading(Leaf):
        def __init__(self, pipe, size):
            self.size = size
            self._src = pipe

        def _attempt(self, pipe):
            try:
                return os.read(pipe.fd, self.size)
            except BlockingIOError:
                return PENDING

        def _enqueue(self, pipe, waiter):
            waiter.wake_readable(pipe.fd)

        def _describe(self, pipe):
            return f"reading from descriptor {pipe.fd}"
"""

from __future__ import annotations

from ._core.engine import (
    ENDED,
    NAME,
    PENDING,
    SERVED,
    Leaf,
    Op,
    Reentered,
    Source,
    Waiter,
    WaitQueue,
)
from ._core.lane import BUDGET, World, lanes, set_strict_checkpoints, world
from ._core.park_asyncio import set_trampoline

__all__ = [
    "BUDGET",
    "ENDED",
    "PENDING",
    "SERVED",
    "Leaf",
    "Op",
    "Reentered",
    "Source",
    "WaitQueue",
    "Waiter",
    "World",
    "current_world",
    "engine",
    "set_strict_checkpoints",
    "set_trampoline",
]

engine: str = NAME
"""The engine that runs: "pure" for the reference engine."""


def current_world() -> World:
    """Where the calling code runs, as far as waiting is concerned."""
    return world(lanes.lane)
