"""Waiters: those who are parked, and the queues they stand in.

A `Waiter` is one blocked operation. An operation that waits for one thing is its own ticket: its `state`, under
the lock of its source, is the claim. A select has one ticket and an `Arm` in each queue; arms share the ticket's
`cell`, a list, and the first who appends himself owns it (`list.append` is atomic with and without a GIL).
A peer, a timeout, a cancellation and a close compete for that one claim; the winner decides.

    WAITING    stands in a queue, to be had
    CLAIMED    a peer has taken it and is about to serve it (found after waking: the peer was interrupted,
               nothing happened)
    SERVED     `value` is the outcome of the operation
    ENDED      the source was closed under it
    WITHDRAWN  gave up; what is left in the queue is a tombstone and holds no user's object

A duplicate in a queue does no harm, since only a WAITING one is ever taken. That is what makes compaction safe
against interrupts: it appends before it removes.

Which world a waiter parks in is the business of its subclasses (`park_asyncio`, `park_trio`, `park_threads`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..unraisable import note

if TYPE_CHECKING:
    from .ops import Op
    from .select import Branch
    from .source import Wakeable

__all__ = ["CLAIMED", "ENDED", "FEW", "NOBODY", "SERVED", "TAKEN", "WAITING", "WITHDRAWN", "Arm", "WaitQueue", "Waiter"]

WAITING, CLAIMED, SERVED, ENDED, WITHDRAWN = range(5)

FEW = 8  # tombstones that are not worth the lock


class _Taken:
    """The cell of an arm that has lost: taken, by nobody in particular."""

    __slots__ = ()

    def append(self, _: Any) -> None:
        pass

    def __getitem__(self, _: int) -> None:
        return None

    def __bool__(self) -> bool:
        return True


TAKEN: Any = _Taken()


class Claimable:
    """What stands in a queue: a waiter, or one arm of a select."""

    __slots__ = ("cell", "op", "order", "src", "state", "value")

    op: Any  # the operation that waits (for an arm, its leaf); None once withdrawn
    src: Any  # its source
    value: Any  # what it offers (a sender), later what it got
    cell: list[Any] | None  # the claim of a select, shared by its arms; None: `state` is the claim
    state: int
    order: int  # of the commit, so that items given back keep their order

    def wake(self) -> None:
        raise NotImplementedError

    def waiting(self) -> bool:
        return self.state == WAITING and not self.cell

    def alive(self) -> bool:
        """Could its world still run it?"""
        raise NotImplementedError


class Waiter(Claimable):
    """One blocked operation in some world: how it parks, how it is woken, what bounds its sleep."""

    __slots__ = ("fds", "since", "until")

    since: float  # on `monotonic`: when it was parked, for those who look from outside
    until: float | None  # seconds from parking after which to look again
    fds: list[tuple[int, bool]] | None  # descriptors to watch: (fd, for writing?)

    def __init__(self, op: Op[Any]) -> None:
        self.op = op
        self.src = None
        self.value = None
        self.cell = None
        self.state = WAITING
        self.order = 0
        self.until = None
        self.fds = None

    # --- asked for by readiness operations while they enqueue
    def wake_in(self, seconds: float) -> None:
        """Look again after so many seconds at the latest; after none, if that is past."""
        seconds = max(seconds, 0.0)
        if self.until is None or seconds < self.until:
            self.until = seconds

    def wake_readable(self, fd: int) -> None:
        """Look again once `fd` can be read without blocking."""
        self._watch(fd, False)

    def wake_writable(self, fd: int) -> None:
        """Look again once `fd` can be written without blocking."""
        self._watch(fd, True)

    def _watch(self, fd: int, writing: bool) -> None:
        if self.fds is None:
            self.fds = []
        self.fds.append((fd, writing))

    # --- the world's part
    def alive(self) -> bool:
        return True

    def park(self) -> Iterable[Any]:
        """Sleep until woken. Returns for whatever reason; raises only what the world throws in."""
        raise NotImplementedError

    def check(self) -> None:
        """Nothing has happened: raise, if that is so because whoever waited has been cancelled."""

    def keep(self, error: BaseException) -> bool:
        """`error` hit an operation that had happened and cannot be undone: return its result all the same?"""
        note(error, "the operation had happened: the value was delivered")
        return False

    def lost(self) -> None:
        """Nobody will ever run this waiter again: undo what it was given and serve the next."""
        op = self.op
        if op is not None:
            op._abandon(self)


class Arm(Claimable):
    """One registration of a select."""

    __slots__ = ("branch", "ticket")

    ticket: Waiter | None
    branch: Branch | None

    def __init__(self, ticket: Waiter, cell: list[Any], branch: Branch) -> None:
        self.ticket = ticket
        self.cell = cell
        self.branch = branch
        self.op = branch.leaf
        self.src = branch.src
        self.value = None
        self.state = WAITING
        self.order = 0

    def wake(self) -> None:
        ticket = self.ticket
        if ticket is not None:  # else it lost, and was only looked at
            ticket.wake()

    def alive(self) -> bool:
        ticket = self.ticket
        return ticket is not None and ticket.alive()

    # a readiness operation speaks to the ticket through its arm
    def wake_in(self, seconds: float) -> None:
        assert self.ticket is not None
        self.ticket.wake_in(seconds)

    def wake_readable(self, fd: int) -> None:
        assert self.ticket is not None
        self.ticket.wake_readable(fd)

    def wake_writable(self, fd: int) -> None:
        assert self.ticket is not None
        self.ticket.wake_writable(fd)


class WaitQueue(deque[Any]):
    """Waiters in the order of their arrival, with amortised O(1) withdrawal. Guarded by the source's lock."""

    __slots__ = ("dead",)

    def __init__(self) -> None:
        super().__init__()
        self.dead = 0  # tombstones known of: a hint for when to compact

    def claim(self, after: list[Wakeable], fits: Callable[[Any], bool] | None = None) -> Any:
        """Claim the first that is still to be had, or None. Its wake is put into `after` beforehand.

        If `fits` says no to it, nobody is claimed: those behind it do not pass.
        """
        while self:
            waiter = self[0]
            if waiter.state == WAITING:
                cell = waiter.cell
                if fits is not None and not cell and not fits(waiter):
                    return None
                after.append(waiter)
                if cell is None:
                    waiter.state = CLAIMED
                    self.popleft()
                    return waiter
                cell.append(waiter)
                if cell[0] is waiter:
                    waiter.state = CLAIMED
                    self.popleft()
                    return waiter
                after.pop()
            if self.dead:
                self.dead -= 1
            self.popleft()
        return None

    def evict(self, waiter: Any, after: list[Wakeable]) -> None:
        """Claim this very one, wherever it stands, if it is still to be had: ENDED."""
        if waiter.waiting():
            after.append(waiter)
            if waiter.cell is not None:
                waiter.cell.append(waiter)
                if waiter.cell[0] is not waiter:
                    after.pop()
                    return
            waiter.state = ENDED
            self.withdrawn()

    def first(self) -> Any:
        """The first that is still to be had, or None."""
        while self:
            waiter = self[0]
            if waiter.waiting():
                return waiter
            if self.dead:
                self.dead -= 1
            self.popleft()
        return None

    def withdrawn(self) -> None:
        """One more in here has become a tombstone: tidy up when they are the greater part."""
        self.dead += 1
        if self.dead > FEW and self.dead * 2 > len(self):
            self.dead = 0
            for _ in range(len(self)):
                waiter = self[0]
                if waiter.waiting():
                    self.append(waiter)
                self.popleft()

    def live(self) -> int:
        """How many wait here, as a snapshot taken without the lock."""
        while True:
            try:
                return sum(1 for waiter in tuple(self) if waiter.waiting())
            except RuntimeError:  # without a GIL it may change while it is copied
                continue


NOBODY: Any = ()
"""A queue in which nobody has ever waited: it costs nothing."""
