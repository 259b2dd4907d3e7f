"""Hearing a worker in two steps: what it has said is taken out first, and unpickled then.

So what goes wrong while one waits is never taken for an answer, and what goes wrong with an answer always is one.
"""

from __future__ import annotations

from typing import Any

from ..processes.ends import ProcessReceiver
from ..processes.operations import Receive

__all__ = ["Taken", "unpickled"]


class Taken(Receive[Any]):
    """The next record, as it was sent."""

    __slots__ = ()

    def __init__(self, receiver: ProcessReceiver[Any]) -> None:
        self._via = receiver
        self._src = receiver._channel.inbound

    def _now(self, port: Any, /) -> Any:
        return self._snapshot(port)

    def _finish(self, got: Any) -> Any:
        return got


def unpickled(receiver: ProcessReceiver[Any], record: Any) -> Any:
    """What was sent. Raises whatever its unpickling raises."""
    return receiver._channel.inbound.decode(record, receiver._serializer)
