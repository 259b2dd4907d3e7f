"""One mailbox per loop: wakes from other threads, however many, cost one `call_soon_threadsafe`.

A mailbox is posted as an object whose finalizer notices what a closed loop never delivered. Such letters are
not lost: each waiter is told that it is dead, its commit is undone, and the next waiter is served.

Invariants:
- `posted` is cleared before the letters are read; it is set before the mailbox is posted. So a letter is
  either seen by a delivery that is under way or posts a new one; at worst a delivery finds nothing.
- `deliver` runs on the loop's own thread and never raises, except for an interrupt, after which it posts
  the rest again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .lane import lanes
from .unraisable import report

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Letter", "Mailbox", "Watch"]


class Letter(Protocol):
    """What can be put into a mailbox: a waiter that a peer has claimed, or that should look again."""

    def resume(self) -> None: ...
    def lost(self) -> None: ...


class Mailbox:
    """The way into one loop from other threads. `post(callback)` raises RuntimeError once the loop is over."""

    __slots__ = ("__weakref__", "home", "letters", "post", "posted", "watches")

    def __init__(self, home: Any, post: Callable[[Callable[[], object]], object]) -> None:
        self.home = home
        self.post = post
        self.letters: deque[Letter] = deque()
        self.posted = False
        self.watches: dict[tuple[int, bool], Watch] = {}

    def put(self, letter: Letter) -> None:
        self.letters.append(letter)
        if not self.posted:
            self.send()

    def send(self, last: bool = False) -> None:
        """Post the mailbox. An interrupt leaves it unposted; whoever was waking does so again."""
        delivery = None
        try:
            self.posted = True
            delivery = _Delivery(self, last)
            self.post(delivery)
        except (RuntimeError, OSError):  # "Event loop is closed"; RunFinishedError; a crashed run's socket
            if delivery is not None:
                delivery.mailbox = None
            self.bury()
        except BaseException:
            if delivery is not None:
                delivery.mailbox = None
            self.posted = False
            raise

    def deliver(self) -> None:
        self.posted = False
        try:
            self._hand_out()
        except BaseException:  # the letter under way goes out once more, which does no harm
            self.send()
            raise

    def _hand_out(self) -> None:
        letters = self.letters
        while letters:
            letters[0].resume()
            letters.popleft()

    def bury(self) -> None:
        """The loop is over. Whoever waited there is dead.

        Undoing the commit of one may wake the next, of the same or another dead loop: those are queued, not nested.
        """
        self.posted = False
        lane = lanes.lane
        dead = lane.dead
        outermost = dead is None
        if dead is None:
            dead = lane.dead = deque()
        while True:
            try:
                dead.append(self.letters.popleft())
            except IndexError:
                break
        if outermost:
            try:
                _bury_all(dead)
            finally:
                lane.dead = None


def _bury_all(dead: deque[Letter]) -> None:
    while dead:
        try:
            dead[0].lost()
        except Exception as error:  # of `on_undelivered`; there are others to see to
            report(error, "Error while an operation of a dead loop was undone", dead[0])
        dead.popleft()


class Watch:
    """All waiters of one loop for one direction of one descriptor: a loop takes one watcher for it.

    Used on the loop's own thread only. `open` and `close` tell the loop.
    """

    __slots__ = ("fd", "home", "waiters", "writing")

    def __init__(self, home: Mailbox, fd: int, writing: bool) -> None:
        self.home = home
        self.fd = fd
        self.writing = writing
        self.waiters: list[Letter] = []

    @classmethod
    def join(cls, home: Mailbox, fd: int, writing: bool, waiter: Letter) -> Self:
        watch: Any = home.watches.get((fd, writing))
        if watch is None:
            watch = cls(home, fd, writing)
            watch.open()
            home.watches[fd, writing] = watch
        watch.waiters.append(waiter)
        return watch  # type: ignore[no-any-return]

    def ready(self) -> None:
        """The descriptor may be used: everybody looks."""
        for waiter in tuple(self.waiters):
            waiter.resume()

    def leave(self, waiter: Letter) -> None:
        self.waiters.remove(waiter)
        if not self.waiters:
            self.close()

    def forget(self) -> None:
        """The loop watches no longer."""
        del self.home.watches[self.fd, self.writing]

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Delivery:
    """The callback given to the loop.

    Dropped without having run, it posts the mailbox once more, which a closed loop refuses: then it is buried.
    """

    __slots__ = ("last", "mailbox")

    def __init__(self, mailbox: Mailbox, last: bool) -> None:
        self.mailbox: Mailbox | None = mailbox
        self.last = last

    def __call__(self) -> None:
        mailbox = self.mailbox
        if mailbox is not None:
            mailbox.deliver()
            self.mailbox = None  # only now: an interrupt before this posts it again

    def __del__(self) -> None:
        mailbox = getattr(self, "mailbox", None)  # an interrupt may have come while it was made
        if mailbox is not None:
            if self.last:  # the loop took it twice and is garbage
                mailbox.bury()
            else:
                mailbox.send(last=True)
