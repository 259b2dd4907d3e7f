"""The one place where the engine is chosen.

Two engines, one behaviour: `pure` is the reference, written for reading. A native twin will stand beside it and be
taken unless `CHANLIB_PURE=1` is set. Whatever is imported from here exists in both, with the same meaning:

    Source, Queued              what is waited on; Ring, Latch, Counter: the kinds of it
    Op, Leaf, Choice            operations; Select, Mapped, Within, Never: the kinds of choice
    QueuedLeaf, Send, Reserve   and others: the leaves of a queue and a ring; Passed, that of a latch; Acquire
    Instant, Sleep              the timer leaf
    Waiter, WaitQueue           who is parked, and where
    transact                    several sources under their locks

and what the engine calls on its side: `lane` (world and budget), `parking` (which waiter parks in a world), and the
hooks `Ring._over(kind)` that make a channel's errors, `Ring._bin()` and `Ring._tell()` that take what nobody will get.
Everything else is Python above the boundary.
"""

from __future__ import annotations

from .pure.buffers import Order, consume
from .pure.counter import Acquire, Counter
from .pure.latch import Latch, Passed
from .pure.leaf import Leaf
from .pure.ops import PENDING, Op, seconds, who_performs
from .pure.queued import Queued, QueuedLeaf
from .pure.reserving import Places, Reserve
from .pure.ring import CANCELLED, CLOSED, DROP_NEWEST, DROP_OLDEST, RAISE, WAIT, Ring
from .pure.select import Choice, Mapped, Never, Select, Within
from .pure.source import Reentered, Source, transact
from .pure.timer import Instant, Sleep, clock_here
from .pure.transfer import Drain, Receive, ReceiveSome, RingLeaf, Send, SendSome
from .pure.waiters import CLAIMED, ENDED, SERVED, WAITING, WITHDRAWN, Waiter, WaitQueue

__all__ = [
    "CANCELLED",
    "CLAIMED",
    "CLOSED",
    "DROP_NEWEST",
    "DROP_OLDEST",
    "ENDED",
    "NAME",
    "PENDING",
    "RAISE",
    "SERVED",
    "WAIT",
    "WAITING",
    "WITHDRAWN",
    "Acquire",
    "Choice",
    "Counter",
    "Drain",
    "Instant",
    "Latch",
    "Leaf",
    "Mapped",
    "Never",
    "Op",
    "Order",
    "Passed",
    "Places",
    "Queued",
    "QueuedLeaf",
    "Receive",
    "ReceiveSome",
    "Reentered",
    "Reserve",
    "Ring",
    "RingLeaf",
    "Select",
    "Send",
    "SendSome",
    "Sleep",
    "Source",
    "WaitQueue",
    "Waiter",
    "Within",
    "clock_here",
    "consume",
    "seconds",
    "transact",
    "who_performs",
]

NAME = "pure"
