"""The one place where the engine is chosen.

Two engines, one behaviour: `pure` is the reference, written for reading. A native twin will stand beside it and be
taken unless `CHANLIB_PURE=1` is set. Whatever is imported from here exists in both, with the same meaning:

    Source, Ring, Latch         what is waited on (a counter, for semaphores, joins them)
    Op, Leaf, Choice            operations; Select, Mapped, Within, Never: the kinds of choice
    Send, Receive, ...          the leaves of a ring; Passed, the leaf of a latch
    Instant, Sleep              the timer leaf
    Waiter, WaitQueue           who is parked, and where
    transact                    several sources under their locks

and what the engine calls on its side: `lane` (world and budget), `parking` (which waiter parks in a world), and the
hooks `Ring._over(kind)` that make a channel's errors. Everything else is Python above the boundary.
"""

from __future__ import annotations

from .pure.latch import Latch, Passed
from .pure.leaf import Leaf
from .pure.ops import PENDING, Op, seconds
from .pure.ring import Drain, Receive, ReceiveSome, Ring, Send, SendSome
from .pure.select import Choice, Mapped, Never, Select, Within
from .pure.source import Reentered, Source, transact
from .pure.timer import Instant, Sleep, clock_here
from .pure.waiters import ENDED, SERVED, Waiter, WaitQueue

__all__ = [
    "ENDED",
    "NAME",
    "PENDING",
    "SERVED",
    "Choice",
    "Drain",
    "Instant",
    "Latch",
    "Leaf",
    "Mapped",
    "Never",
    "Op",
    "Passed",
    "Receive",
    "ReceiveSome",
    "Reentered",
    "Ring",
    "Select",
    "Send",
    "SendSome",
    "Sleep",
    "Source",
    "WaitQueue",
    "Waiter",
    "Within",
    "clock_here",
    "seconds",
    "transact",
]

NAME = "pure"
