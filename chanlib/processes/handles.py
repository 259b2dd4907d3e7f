"""Handles: what users hold of something that several processes share, be it an end of a channel, an event or the like.

A handle is a value that can be given to other processes. There it is another handle, as if cloned: pickling counts one
more, which counts here until it counts there (`handover`). A fork leaves all handles of the parent in the child; which
of them are its own `inheritance` tells, or their first use.
"""

from __future__ import annotations

import os
import weakref
from multiprocessing import util
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from .._core.reentry import now_or_after
from ..errors import HandleClosed
from .handover import Token, arrive, depart
from .inheritance import wanted
from .pump import inherit_pumped
from .shared import Shared, inherit_all

if TYPE_CHECKING:
    from typing import Self

__all__ = ["SharedHandle"]

S = TypeVar("S", bound=Shared)


class SharedHandle(Generic[S]):
    """What all kinds of handle have in common."""

    __slots__ = ("__weakref__", "_channel", "_inherited", "_name", "_open", "_sent")

    _kind: ClassVar[type[Shared]]
    _sends: bool  # which of the two kinds of end it counts as; maybe both
    _receives: bool
    _channel: S
    _name: str | None
    _open: bool
    _inherited: bool  # a fork has left it here, and nobody has used it
    _sent: bool  # a clone of it has gone to another process: to drop it then is what one does

    @classmethod
    def _made(cls, conduit: S, options: tuple[Any, ...], claimed_from: int | None = None) -> Self:
        self = cls._shut_one(conduit, options)
        try:
            conduit.open([self], claimed_from)
        except BaseException:  # an interrupt, perhaps right behind it
            self._let_go()
            raise
        return self

    @classmethod
    def _shut_one(cls, conduit: S, options: tuple[Any, ...]) -> Self:
        """One that does not count, and is not open, before `Shared.open` has made it so."""
        self = object.__new__(cls)
        self._open = False
        self._inherited = self._sent = False
        self._configure(*options)
        self._channel = conduit
        _handles.add(self)
        return self

    def _configure(self, *options: Any) -> None:
        (self._name,) = options

    def _options(self) -> tuple[Any, ...]:
        """What `_configure` takes; it is pickled."""
        return (self._name,)

    def _is_inherited(self) -> bool:
        return self._inherited or self._channel.pid != os.getpid()

    # ------------------------------------------------------------- for the operations
    def _used(self) -> S:
        """Of one that is open, and counts."""
        if not self._open:
            raise self._shut()
        if self._inherited:
            self._own(True)
        return self._channel

    def _own(self, wanted: bool) -> None:
        """A fork has left it here: it is used; or it is not what this process is for, but may still be used."""
        self._channel.own(self, wanted)

    def _shut(self) -> HandleClosed:
        return HandleClosed(f"{self!r} is closed", channel=self)

    def _let_go(self, cause: BaseException | None = None) -> bool:
        """Close it; True the first time."""
        conduit = self._channel
        if conduit.pid != os.getpid():  # a collector runs in a forked process that has not been told yet what it has
            conduit.early.append(self)
            return self._open
        if not conduit.close(self, cause):
            return False
        for port in (conduit.outbound,) * self._sends + (conduit.inbound,) * self._receives:
            now_or_after(port.rouse, None)
        return True

    # ------------------------------------------------------------- as a value
    def __reduce__(self) -> Any:
        token = depart(self._used(), self._sends, self._receives)
        self._sent = True
        return _arrived, (type(self), token, self._options())

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied")

    def __repr__(self) -> str:
        label = "" if self._name is None else f" {self._name!r}"
        return f"<{type(self).__name__}{label}{self._state()}{'' if self._open else ' (closed)'}>"

    def _state(self) -> str:
        """For the repr."""
        return ""


def _arrived(kind: type[SharedHandle[Any]], token: Token, options: tuple[Any, ...]) -> SharedHandle[Any]:
    conduit, slot = arrive(token, kind._kind)
    return kind._made(conduit, options, slot)


_handles: weakref.WeakSet[SharedHandle[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        if handle._open:
            handle._inherited = True
    inherit_all()
    inherit_pumped()


def _started_by_multiprocessing(_: object) -> None:
    """In a process that `multiprocessing` has started: if by a fork, it says by its arguments what it wants."""
    inherited = [handle for handle in list(_handles) if handle._inherited]
    if inherited:
        known = wanted(SharedHandle)
        for handle in inherited:
            handle._own(known is None or handle in known)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
    util.register_after_fork(_handles, _started_by_multiprocessing)
