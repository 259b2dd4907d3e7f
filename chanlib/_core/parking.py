"""Which waiter parks where. One module per world; each is loaded when first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lane import World

if TYPE_CHECKING:
    from .pure.waiters import Waiter

__all__ = ["waiter_class"]

_classes: dict[World | None, type[Waiter]] = {}


def waiter_class(world: World | None) -> type[Waiter]:
    """The waiter that parks in `world`; None means this very thread."""
    try:
        return _classes[world]
    except KeyError:
        return _load(world)


def _load(world: World | None) -> type[Waiter]:
    found: type[Waiter]
    if world is World.ASYNCIO:
        from .park_asyncio import AsyncioWaiter as found
    elif world is World.TRIO:
        from .park_trio import TrioWaiter as found
    elif world is World.DRIVEN or world is None:
        from .park_threads import ThreadWaiter as found
    else:
        raise RuntimeError(
            f"this operation would have to wait, and {world.value} cannot await it; "
            "use op.sync() in a plain thread, op.poll() in a callback"
        )
    _classes[world] = found
    return found
