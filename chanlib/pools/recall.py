"""Taking back what was sent and nobody has received: it is certain then that nobody will."""

from __future__ import annotations

import math
import os
from typing import Any

from .._core.engine import PENDING
from ..processes.ends import ProcessSender
from ..processes.ring import EMPTY

__all__ = ["recall"]


def recall(sender: ProcessSender[Any]) -> int:
    """Take out all that is in the channel, without unpickling it; how many that were.

    It works as well when the receivers of other processes are dead. One must be open here: descriptors come through it,
    and are closed with what they belong to.
    """
    port = sender._channel.inbound
    number = 0
    while (found := port._locked(port.get, math.inf)) is not EMPTY:
        if found is PENDING:  # somebody is in there, for a moment
            os.sched_yield() if hasattr(os, "sched_yield") else None
            continue
        port.refuse(found)
        number += len(found)
    return number
