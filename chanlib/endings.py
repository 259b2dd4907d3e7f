"""What ends by `close(cause)`, and waiting for that."""

from __future__ import annotations

from ._core.engine import Latch, Op, Passed, Queued, Reentered, Source
from .blocks import ClosedAtEnd
from .checks import check_cause
from .errors import BrokenChannel, ChannelClosed, EndOfChannel, HandleClosed

__all__ = ["Closes", "Ending", "Told"]


class Closes(Source):
    """Mixed into a source whose end can be waited for."""

    __slots__ = ()

    _closing: _Closing | None  # made when somebody waits

    @property
    def is_closed(self) -> bool:
        raise NotImplementedError

    def wait_closed(self) -> Op[None]:
        """Wait until it is closed (not until what is in it has been received)."""
        if self._closing is None:
            self._locked(self._watch_closing)
        assert self._closing is not None
        return Passed(self._closing)

    def _watch_closing(self) -> None:
        if self._closing is None:
            closing = _Closing(self)
            closing._set = self.is_closed
            self._closing = closing  # type: ignore[misc]  # a slot of the class that this is mixed into

    def _tell_closing(self) -> None:
        """Under the lock: it is closed. Can be repeated."""
        if self._closing is not None and not self._closing._set:
            self._after.append(self._closing)


class Told(Latch):
    """A latch that opens once the lock of another source is free: it is put among what that wakes (`_after`)."""

    __slots__ = ()

    def wake(self) -> None:
        try:
            self._locked(self._open)
        except Reentered as inside:
            inside.source._defer(self.wake)


class _Closing(Told):
    """What `wait_closed` waits for."""

    __slots__ = ("_source",)

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __repr__(self) -> str:
        return f"the end of {self._source!r}"


class Ending(Queued, ClosedAtEnd):
    """A source that is closed once, with a cause or without."""

    __slots__ = ("_cause", "_closed")

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._cause: BaseException | None = None

    def close(self, cause: BaseException | None = None) -> bool:
        check_cause(cause)
        try:
            first: bool = self._locked(self._close_locked, cause)
        except Reentered as inside:
            inside.source._defer(lambda: self.close(cause))
            return not self._closed
        return first

    def _close_locked(self, cause: BaseException | None) -> bool:
        if self._closed:
            return False
        self._cause = cause
        self._closed = True
        self._conclude()
        return True

    def _conclude(self) -> None:
        """Under the lock: it is closed, tell everybody. Can be repeated."""
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def _shut(self) -> HandleClosed:
        """The error of those who would put something in."""
        return HandleClosed(f"{self!r} is closed", channel=self, cause=self._cause)

    def _over(self) -> ChannelClosed:
        """The error of those who have got all there was."""
        if self._cause is not None:
            return BrokenChannel(f"{self!r} ended with an error", channel=self, cause=self._cause)
        return EndOfChannel(f"{self!r} has ended", channel=self)
