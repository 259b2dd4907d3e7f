"""Source: what waiters queue on. A lock, a creation number, and what is to be done once the lock is free.

Who may do what, and when:

1.  The state of a source, of its queues and of every waiter standing in them changes only under `_lock`, by
    the thread that has set `_busy`. The section is a few bytecodes: it neither parks, nor
    wakes, nor calls back, nor lets a user's object die (`_drop`): its destructor may wait for another thread
    that needs this very lock.
2.  The lock is re-entrant, because a finalizer run by the garbage collector, a weakref callback or a signal
    handler may use the source while this very thread is inside. `_busy` tells: whoever finds it set has
    re-entered, changes nothing, and leaves a `Deferred` in `_after`. (Comparing an owner's identity has a
    window between taking the lock and writing the name; re-entry before `_busy` is set is harmless, since
    nothing has been read yet.)
    Such a call may also be about another source, whose lock somebody else has. It must not wait for that
    (`_contended`): it is deferred to the end of the section that this thread is in the middle of.
3.  Wakes, deferred calls and what is let go of collect in `_after` and are issued after unlocking. `_busy` is
    cleared before `_after` is read, so nothing that was left there is overlooked.
4.  An interrupt (KeyboardInterrupt) may come at any bytecode. The lock is then released and what is in
    `_after` is issued: waking is idempotent. Two rules keep a claimed peer from sleeping for ever:
    it is put into `_after` before it is claimed, and a commit is a single store, so that a woken waiter that
    finds itself claimed but not served knows that nothing happened and starts again. CPython raises
    interrupts only at calls and backward jumps; a commit therefore makes its stores first and its one call
    last. What else a cut step may leave half done, `_mend` completes before the lock is released. All of this may
    be cut by a second interrupt, and is then gone through again. (A third that strikes at the first instruction
    of that is beyond this.)
5.  Several sources are locked in creation order only (`transact`).
6.  After a fork the child has one thread. Every source gets a fresh lock and forgets its waiters, which live
    in the parent.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any, Protocol

from ..unraisable import report

__all__ = ["SECTIONS", "Deferred", "Reentered", "Source", "transact"]

_numbers = itertools.count()


class _Entry(weakref.ref["Source"]):
    """A source in the list of those that a fork must look after: told apart by identity, whatever its class defines."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_sources: set[_Entry] = set()

PATIENCE = 0.001  # seconds for a lock to become free before it is asked what this thread is in the middle of
SECTIONS: dict[CodeType, str] = {}
"""The functions that hold a lock, and the variable that leads to the source."""


class Reentered(RuntimeError):
    """This thread is in the middle of an operation on the very same object."""

    def __init__(self, source: Source) -> None:
        super().__init__(
            f"{source!r} is in use by this very thread further up the stack: a finalizer or signal handler may "
            "use send_nowait, close, set and cancel on it, but not wait"
        )
        self.source = source


class Wakeable(Protocol):
    def wake(self) -> None: ...


class Source:
    """Base of everything that can be waited for under a lock of its own."""

    __slots__ = ("__weakref__", "_after", "_busy", "_lock", "_number")

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        self._busy = False
        self._after: list[Wakeable] = []
        self._number = next(_numbers)
        _sources.add(_Entry(self, _sources.discard))

    def _locked(self, step: Callable[..., Any], *args: Any) -> Any:
        """`step(*args)` under the lock, then the wakes that it collected.

        An error of `step` leaves by the normal way. Only interrupts take the `except` clause, and they may come
        right behind `acquire`, so that is inside the `try` too.
        """
        entered = released = False
        todo: list[Wakeable] | None = None
        failure: Exception | None = None
        result = None
        try:
            if not self._lock.acquire(False):
                self._contended()
            if not self._busy:
                entered = True
                self._busy = True
                try:
                    result = step(*args)
                except Exception as error:
                    failure = error
                self._busy = False
                if self._after:
                    todo, self._after = self._after, []
            released = True
            self._lock.release()
            if todo is not None:
                for item in todo:
                    item.wake()
        except BaseException:
            cut = [released, entered, todo]
            try:
                self._recover(cut)
            except BaseException:
                self._recover(cut)
                raise
            raise
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it holds this frame
        if not entered:
            raise Reentered(self)
        return result

    def _contended(self, depth: int = 0) -> None:
        """Wait for the lock, which somebody else has; but not if this thread has another one.

        It has if a finalizer or signal handler runs in the middle of a section. Two threads that waited so could
        wait for each other. The stack is searched for such a section, since keeping account of them would cost
        every operation; `depth` frames belong to the section that asks.
        """
        while not self._lock.acquire(True, PATIENCE):
            above = _section_above(sys._getframe(1 + depth))
            if above is not None:
                raise Reentered(above)

    def _recover(self, cut: list[Any]) -> None:
        """An interrupt has cut a locked section: leave it in order.

        `cut` is [was the lock released?, was it entered?, the wakes being issued or None]. It is called from an
        `except` clause, and once more if a further interrupt strikes before it can see to that itself.
        """
        if len(cut) < 4:
            cut.append(_Locks((self,), not cut[0], cut[1], cut[2] or []))
        cut[3].cut()

    def _mend(self) -> None:
        """Under the lock: an interrupt has cut a step. Complete what must not stay half done."""

    def _label(self, name: str | None) -> str:
        """How it is called in a `repr`."""
        return repr(name) if name is not None else f"#{self._number}"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: it is one object for all who wait on it")

    def _settle(self) -> None:
        """Issue what a section that takes the short way out has found in `_after`."""
        self._locked(_nothing)

    def _defer(self, call: Callable[[], object]) -> None:
        """This thread is inside: `call` is made as soon as it has left."""
        self._after.append(Deferred(call))

    def _drop(self, thing: object) -> None:
        """Under the lock: `thing` is let go of. If nobody else has it, it dies once the lock is free."""
        self._after.append(_Dropped((thing,)))

    def _forget_waiters(self) -> None:
        """After a fork, in the child: whoever waited lives in the parent."""


def _nothing() -> None:
    pass


def _section_above(frame: FrameType | None) -> Source | None:
    """A source whose lock this thread holds further up the stack."""
    while frame is not None:
        name = SECTIONS.get(frame.f_code)
        if name is not None:
            found = frame.f_locals.get(name)
            sources = found.sources if isinstance(found, _Locks) else (found,)
            for source in sources:
                if source is not None and source._lock._is_owned():
                    return source
        frame = frame.f_back
    return None


class Deferred:
    """A call that a finalizer or signal handler made on a source whose lock its own thread held."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def wake(self) -> None:
        call, self.call = self.call, None
        if call is None:
            return
        try:
            call()
        except Reentered as inside:  # the next section further up, then
            inside.source._defer(call)
        except Exception as error:  # whoever made the call has long gone on
            report(error, "Error in a call deferred until a lock was free", call)


class _Dropped(list[object]):
    """What is let go of once the lock is free."""

    __slots__ = ()
    wake = list[object].clear


def transact(sources: Sequence[Source], step: Callable[[], Any]) -> Any:
    """`step()` under the locks of all `sources`, which are in creation order and without repetition."""
    locks = _Locks(sources, 0, False, [])
    failure: Exception | None = None
    result = None
    try:
        locks.take()
        if locks.entered:
            try:
                result = step()
            except Exception as error:
                failure = error
        locks.release()
        for item in locks.todo:
            item.wake()
    except BaseException:
        try:
            locks.cut()
        except BaseException:
            locks.cut()
            raise
        raise
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
    if locks.reentered is not None:
        raise Reentered(locks.reentered)
    return result


class _Locks:
    """The locks of several sources, and how far taking and releasing them has come.

    The loops stand in methods of their own because CPython (seen on 3.13 and 3.14) leaves some backward jumps of
    a loop out of the `try` that it stands in; an interrupt there would pass the handler by.
    """

    __slots__ = ("entered", "held", "reentered", "sources", "todo", "tried")

    def __init__(self, sources: Sequence[Source], tried: int, entered: bool, todo: list[Wakeable]) -> None:
        self.sources = sources
        self.tried = tried
        self.held = 0
        self.entered = entered  # are all of them ours?
        self.reentered: Source | None = None
        self.todo = todo

    def take(self) -> None:
        for source in self.sources:
            self.tried += 1
            if not source._lock.acquire(False):
                source._contended(2)
            self.held += 1
            if source._busy:
                self.reentered = source
        if self.reentered is None:
            self.entered = True
            for source in self.sources:
                source._busy = True

    def release(self, mend: bool = False) -> None:
        while self.held:
            source = self.sources[self.held - 1]
            if self.entered:
                if mend:
                    source._mend()
                source._busy = False
                if source._after:
                    self.todo += source._after
                    source._after = []
            self.tried = self.held = self.held - 1
            source._lock.release()

    def cut(self) -> None:
        """An interrupt came: release what is held, and wake whom we have claimed.

        The lock that was being taken is ours if we own it, also if this section is nested in another: an owner
        never fails to acquire again. Should a further interrupt cut this too, it goes on where it was.
        """
        try:
            if self.tried > self.held:
                if self.sources[self.held]._lock._is_owned():
                    self.held = self.tried
                else:
                    self.tried = self.held
            self.release(mend=True)
            self.issue()
        except BaseException:
            self.cut()
            raise

    def issue(self) -> None:
        """Wake whoever is to be woken; an error of one of them must not keep the others asleep."""
        for item in self.todo:
            try:
                item.wake()
            except Exception as error:
                report(error, "Error while an operation was cut", item)
        for source in self.sources:
            if source._after and not source._busy:  # busy: left to whom it is busy with
                try:
                    source._settle()
                except Reentered:
                    pass


SECTIONS[Source._locked.__code__] = "self"
SECTIONS[transact.__code__] = "locks"


def _after_fork_in_child() -> None:
    for entry in list(_sources):
        source = entry()
        if source is None:
            continue
        source._lock = threading.RLock()
        source._busy = False
        source._after = []
        source._forget_waiters()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
