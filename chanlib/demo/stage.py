"""A stage of the network: some threads between channels, and how its end reaches its neighbours.

1.  A stage ends when what it receives from ends. It then closes what it sends to.
2.  One that fails closes what it sends to with its error as the cause, and cancels what it receives
    from: those after it get what was done before and then the error; those before it stop.
3.  A stage that finds a neighbour ended by an error passes that very error on.
4.  Of several threads the last one to end closes, since the others still send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from .. import Channel, ChannelClosed, ChannelEmpty, SendSide

__all__ = ["Stage"]


class Stage:
    """`works`: what its threads do, one each. `finished` is sent the stage when all have ended."""

    def __init__(
        self,
        name: str,
        world: str,
        works: Sequence[Callable[[], object]],
        *,
        takes: Sequence[Channel[Any]],
        gives: Sequence[Channel[Any]],
        finished: SendSide[Stage],
    ) -> None:
        self.name = name
        self.world = world
        self.error: BaseException | None = None  # what it ended with; to be read when it has finished
        self._takes = takes
        self.gives = gives
        self._finished = finished
        # One token less than threads: who finds none is the last.
        self._others = Channel[None](len(works), name=f"{name} others")
        for _ in works[1:]:
            self._others.send_nowait(None)
        # Daemons, so that a read that hangs cannot keep the process from ending.
        self._threads = [
            threading.Thread(target=self._perform, args=(work,), name=f"{name}-{n}", daemon=True)
            for n, work in enumerate(works)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _perform(self, work: Callable[[], object]) -> None:
        error: BaseException | None = None
        try:
            work()
        except ChannelClosed as closed:
            error = closed.cause or closed
        except BaseException as failure:
            error = failure
        if error is not None:
            for channel in self._takes:
                channel.cancel(error)
        try:
            self._others.receive_nowait()
        except ChannelEmpty:
            self.error = error
            for channel in self.gives:
                channel.close(error)
            self._finished.send_nowait(self)

    def join(self) -> None:
        """Wait for the last instructions of threads that have told their end."""
        for thread in self._threads:
            thread.join()
