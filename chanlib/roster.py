"""Roster: the children of a group: who they are, which places they have, how each ends, who is told.

Tasks and threads are the same to it. The block around them, how a child is made, and what its error means is the
business of the group that stands on it.

`limit`, and waiting in `spawn` for a place, are errgroup's `SetLimit` and `Go`.

Invariants, under the lock:
- units of the counter are places; a child that has been started has one, and passes it on at its end: to the first
  that is queued, else to the first who waits in `spawn`.
- `_children` has all who have been accepted and have not ended. A child ends once, in `_end`.
- once the state is "ended" no child is started.
- what a child leaves behind is written before its state, and its state before those are woken
  who wait for it.
"""

from __future__ import annotations

import contextvars
import math
import weakref
from collections import deque
from collections.abc import Coroutine
from typing import Any

from ._core.backends import Backend, Nursery
from ._core.engine import PENDING, Acquire, Counter, Leaf, Op, Reentered, WaitQueue
from ._core.reentry import now_or_after
from .children import current_child
from .completions import Completions
from .handles import TaskHandle
from .scopes import CancelScope

__all__ = ["Place", "Roster"]


class Roster(Counter):
    """Children that run or are queued. A group on top of it opens the nursery, and says what an error means."""

    __slots__ = (
        "_backend",
        "_children",
        "_ending",
        "_idlers",
        "_limit",
        "_nursery",
        "_queued",
        "_scope",
        "_state",
        "_streams",
    )

    def __init__(self, limit: int | None) -> None:
        super().__init__(math.inf if limit is None else limit)
        self._limit = limit
        self._state = "new"
        self._scope = CancelScope()
        self._backend: Backend | None = None
        self._nursery: Nursery
        self._children: dict[TaskHandle[Any], None] = {}
        self._queued: deque[TaskHandle[Any]] = deque()
        self._ending: TaskHandle[Any] | None = None  # whose place is being passed on
        self._streams: list[weakref.ref[Completions]] = []
        self._idlers = WaitQueue()  # who wait for there to be no child

    # ------------------------------------------------------------- who is a child
    def _admit(self, child: TaskHandle[Any]) -> bool:
        """Under the lock: take a place for `child`, or queue it."""
        self._children[child] = None
        if self._free >= 1 and not self._queued and (not self._queue or self._queue.first() is None):
            self._free -= 1
            child._state = "running"
            return True
        child._native = contextvars.copy_context()  # of who has started it, not of the one whose place it will take
        self._queued.append(child)
        return False

    def _take_place(self, child: TaskHandle[Any]) -> None:
        self._accept(child)
        self._free -= 1

    def _accept(self, child: TaskHandle[Any]) -> None:
        if self._state == "ended":
            raise self._over()
        self._children[child] = None
        child._state = "running"

    def _over(self) -> RuntimeError:
        return RuntimeError(f"{self!r} has ended: children can be started until its block has been left")

    def _is_over(self) -> bool:
        """Under the lock: nobody is started from now on, unless somebody has just been, by another thread."""
        if not (self._nursery.anywhere and self._children):
            self._state = "ended"
        return self._state == "ended"

    # ------------------------------------------------------------- the life of a child
    def _start(self, child: TaskHandle[Any]) -> None:
        life, coroutine = self._live(child), child._coroutine
        try:
            if self._nursery.anywhere:
                self._locked(self._accept, child)
            else:
                self._accept(child)
            self._nursery.start(life, child)
        except BaseException:  # no thread can be had; the loop is closed; an interrupt
            if self._nursery.revoke(child):
                self._end(child, "cancelled")
                life.close()
                if coroutine is not None:
                    coroutine.close()
            raise

    async def _live(self, child: TaskHandle[Any]) -> None:
        current_child.set(child)
        if child._reason is not None:  # asked to stop before its thread was there to be told
            self._stop_here(child)
        try:
            assert child._coroutine is not None
            value = await child._coroutine
        except BaseException as error:
            passed_on = self._failed(child, error)
            del child  # the traceback of the error leads to this frame
            if passed_on:
                raise
        else:
            child._left = value
            self._end(child, "done")

    def _failed(self, child: TaskHandle[Any], error: BaseException) -> bool:
        """A child has raised: say what that means, and `_end` it. Is the error to go on to the nursery?"""
        raise NotImplementedError

    # ------------------------------------------------------------- its end, and who gets its place
    def _end(self, child: TaskHandle[Any], state: str) -> None:
        now_or_after(lambda: self._locked(self._end_locked, child, state), None)

    def _end_locked(self, child: TaskHandle[Any], state: Any) -> None:
        if child.done:  # an interrupt has come in between
            return
        queued = child._state == "queued"
        if queued:
            self._drop(child._native)  # the context it was to be started in
        child._state = state
        child._coroutine = None
        self._children.pop(child, None)
        if child._ended is not None:
            self._after.append(child._ended)
        if child._stopping:
            child._stopping = False
            self._nursery.stopped(child)
        child._native = None
        if self._streams:
            self._streams = [stream for stream in self._streams if stream() is not None]
            for reference in self._streams:
                stream = reference()
                if stream is not None:
                    stream._put(child)
                    self._drop(stream)  # by now we may be the last to have it
        if not self._children:
            self._after += [waiter for waiter in self._idlers if waiter.waiting()]
        if queued:
            self._queued.remove(child)  # mostly the first
        elif self._limit is not None:
            self._free += 1  # may be below zero before that: `start` takes a place that is not there
            self._ending = child
            self._serve()
            self._ending = None

    def _serve(self) -> None:
        """Under the lock: places are free. Those who are queued come first."""
        while self._queued and self._free >= 1:
            self._free -= 1
            child = self._queued.popleft()
            child._state = "running"
            self._after.append(_Turn(self, child, self._ending))
        super()._serve()

    def _take_turn(self, child: TaskHandle[Any], ended: TaskHandle[Any] | None) -> None:
        """A queued child has a place: that of `ended`, or one that was given back."""
        if self._is_cancelled(ended):
            for coroutine in self._locked(self._drop_queued, child):
                coroutine.close()
        else:
            context, child._native = child._native, None
            assert self._backend is not None
            self._backend.call(lambda: self._start_now(context, child))

    def _drop_queued(self, first: TaskHandle[Any]) -> list[Coroutine[Any, Any, Any]]:
        """Under the lock: none of those who are queued is to run, nor `first`, who has got a place."""
        children = [*self._queued, first]
        coroutines = [child._coroutine for child in children if child._coroutine is not None]
        for child in children:
            self._end_locked(child, "cancelled")
        return coroutines

    def _start_now(self, context: contextvars.Context, child: TaskHandle[Any]) -> None:
        try:
            context.run(self._start, child)
        except Exception as error:
            self._failed(child, error)

    def _is_cancelled(self, ended: TaskHandle[Any] | None) -> bool:
        """Asked by `ended` at its end: has the group been cancelled, by its own scope or one around it?"""
        assert self._backend is not None
        if self._scope.cancel_called:
            return True
        return ended is not None and ended._reason is None and self._backend.until() == -math.inf

    def _sweep(self) -> None:
        """Children that were cancelled natively before they had begun: nobody has told us."""
        self._scope.cancel()
        for child in list(self._children):
            coroutine = child._coroutine
            if child._state == "running":
                self._nursery.discard(child)
            self._end(child, "cancelled")
            if coroutine is not None:
                coroutine.close()

    # ------------------------------------------------------------- cancelling
    def _stop(self, child: TaskHandle[Any], reason: str) -> bool:
        try:
            running, coroutine = self._locked(self._stop_locked, child, reason)
        except Reentered as inside:
            inside.source._defer(lambda: self._stop(child, reason))
            return not child.done
        if coroutine is not None:
            coroutine.close()
        elif running:
            assert self._backend is not None
            self._backend.call(lambda: self._stop_here(child))
        return running or coroutine is not None

    def _stop_locked(self, child: TaskHandle[Any], reason: str) -> tuple[bool, Coroutine[Any, Any, Any] | None]:
        """Under the lock: does it run? If it is queued it ends now; its coroutine."""
        if child.done:
            return False, None
        if child._reason is None:
            child._reason = reason
        if child._state == "running":
            return True, None
        coroutine = child._coroutine
        self._end_locked(child, "cancelled")
        return False, coroutine

    def _stop_here(self, child: TaskHandle[Any]) -> None:
        """On the thread of the backend: tell its nursery, once."""
        if not child.done and not child._stopping and not isinstance(child._native, contextvars.Context | None):
            child._stopping = True
            self._nursery.stop(child)

    # ------------------------------------------------------------- asking
    def as_completed(self) -> Completions:
        """The children in the order in which they end, to iterate over: those that run or are queued now, and later
        ones.

        It ends when no child is left. Make it before those children are started that it is not to miss.
        """
        stream = Completions(self)
        self._locked(self._streams.append, weakref.ref(stream))
        return stream

    def wait_empty(self) -> Op[None]:
        """Wait until no child runs or is queued. In the block, or from elsewhere; it does not close the group."""
        return _Empty(self)

    def __len__(self) -> int:
        """How many children run or are queued."""
        return len(self._children)

    def __bool__(self) -> bool:
        return True


class _Turn:
    """A queued child that has got a place: to be started once the lock is free."""

    __slots__ = ("child", "ended", "group")

    def __init__(self, group: Roster, child: TaskHandle[Any], ended: TaskHandle[Any] | None) -> None:
        self.group = group
        self.child: TaskHandle[Any] | None = child
        self.ended = ended

    def wake(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            self.group._take_turn(child, self.ended)


class Place(Acquire):
    """Waiting for a place in a group."""

    __slots__ = ()

    def _describe(self, counter: Any) -> str:
        return f"spawn in {counter!r}"

    def _ended(self, counter: Any, waiter: Any) -> BaseException:
        return RuntimeError(f"the loop of who waited for a place in {counter!r} is closed")


class _Empty(Leaf[None]):
    __slots__ = ()

    def __init__(self, group: Roster) -> None:
        self._src = group

    def _attempt(self, group: Roster) -> Any:
        return PENDING if group._children else None

    def _enqueue(self, group: Roster, waiter: Any) -> None:
        group._idlers.append(waiter)

    def _withdraw(self, group: Roster, waiter: Any) -> None:
        group._idlers.withdrawn()

    def _describe(self, group: Roster) -> str:
        return f"the last child of {group!r} to end"
