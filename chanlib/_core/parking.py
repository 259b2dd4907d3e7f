"""Which waiter parks where. One module per world; each is loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .lane import World, lanes, world

if TYPE_CHECKING:
    from .pure.ops import Op
    from .pure.waiters import Waiter

__all__ = ["waiter_here"]

_makers: dict[World, Callable[[Op[Any]], Waiter]] = {}


def waiter_here(op: Op[Any]) -> Waiter:
    """A waiter that parks the task, or the driven coroutine, that calls."""
    here = world(lanes.lane)
    make = _makers.get(here)
    return _maker(here)(op) if make is None else make(op)


def _maker(here: World) -> Callable[[Op[Any]], Waiter]:
    make: Callable[[Op[Any]], Waiter]
    if here in _makers:
        return _makers[here]
    if here is World.ASYNCIO:
        from .park_asyncio import AsyncioWaiter as make
    elif here is World.TRIO:
        from .park_trio import TrioWaiter as make
    elif here is World.DRIVEN:
        from .park_threads import ThreadWaiter as make
    else:
        raise RuntimeError(
            f"this operation would have to wait, and {here.value} cannot await it; "
            "use op.sync() in a plain thread, op.poll() in a callback"
        )
    _makers[here] = make
    return make
