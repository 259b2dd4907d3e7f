"""Tickets: handles on their way inside of a parcel, and what becomes of those that nobody gets.

A handle that is pickled is waited for by its hub, under a number. In a parcel it can wait for long; so it is not given
up after a while, but when the parcel is.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

from .._core.threads import start
from .links import connect, exchange

__all__ = ["Ticket", "give_up", "known"]

Ticket = tuple[bytes, int, Any, bytes]
"""The channel that a handle leads to, the number under which it is waited for, and where that is."""

known: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
"""What this process has of each channel, by its key."""


def give_up(tickets: Iterable[Ticket]) -> None:
    """They will not be used; or have been, then nothing happens."""
    for ticket in tickets:
        key, number, _, _ = ticket
        pumped = known.get(key)
        if pumped is not None:
            pumped.port.tell("land", number, False)
        else:
            start(partial(_give_up_elsewhere, ticket), "chanlib pump")


def _give_up_elsewhere(ticket: Ticket) -> None:
    _, number, address, secret = ticket
    try:
        connection = connect(address, secret)
        try:
            exchange(connection, "land", number, False)
        finally:
            connection.close()
    except OSError:  # that channel has gone
        pass
