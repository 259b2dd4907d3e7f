"""What runs in a worker of a pool: one call after the other, each inside a scope that the pool can cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

from .._core.unraisable import note
from ..errors import Cancelled, ChannelClosed
from ..processes.ends import ProcessReceiver, ProcessSender
from ..processes.reports import pack_error
from ..processes.worker import outside
from ..scopes import CancelScope

__all__ = ["DONE", "FAILED", "STOPPED", "serve"]

DONE, FAILED, STOPPED = range(3)
"""How a call has ended. A worker says of each its number, this, and the result; first of all why it cannot begin."""


def serve(
    calls: ProcessReceiver[Any],
    results: ProcessSender[Any],
    stops: ProcessReceiver[int],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    finalizer: Callable[[], object] | None,
) -> None:
    """Make the calls that come, until no more do. `stops` has the numbers of those that are to be cancelled."""
    with calls, results, stops:
        _Worker(calls, results, stops).live(initializer, initargs, finalizer)


class _Worker:
    def __init__(self, calls: ProcessReceiver[Any], results: ProcessSender[Any], stops: ProcessReceiver[int]) -> None:
        self.calls = calls
        self.results = results
        self.stops = stops
        self.guard = threading.Lock()
        self.number = 0  # of the call under way; they are counted on both sides
        self.scope = CancelScope()
        self.stopped = 0  # the last that is to be cancelled

    def live(
        self,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        finalizer: Callable[[], object] | None,
    ) -> None:
        threading.Thread(target=self.listen, name="chanlib pool", daemon=True).start()
        if initializer is not None:
            try:
                initializer(*initargs)
            except Exception as error:
                self.results.send(pack_error(error, __name__)).sync()
                return
        self.results.send(b"").sync()
        try:
            while True:
                with self.guard:
                    self.number += 1
                    self.scope = CancelScope()
                try:
                    call = self.calls.receive().sync()
                except ChannelClosed:
                    return
                except Exception as error:  # it does not unpickle here
                    self.say(FAILED, pack_error(error, __name__))
                else:
                    self.perform(*call)
                    del call
        finally:
            if finalizer is not None:
                finalizer()

    def listen(self) -> None:
        try:
            for number in self.stops:
                with self.guard:
                    self.stopped = number
                    if number == self.number:
                        self.scope.cancel("the call was cancelled")
        except ChannelClosed:  # this process is about to end, or its parent has
            pass

    def perform(self, fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> None:
        outcome: Any = None
        how = STOPPED
        try:
            with self.scope:
                if self.stopped == self.number:
                    raise Cancelled("before it began")
                outcome = _make(fn, args, named)
                how = DONE
                if isinstance(outcome, Coroutine):
                    outcome.close()
                    raise TypeError(f"{fn!r} is async: a pool calls plain functions; run() makes one of it")
        except SystemExit:
            raise
        except BaseException as error:
            if not isinstance(error, Cancelled):
                how, outcome = FAILED, pack_error(error, __name__)
            elif not self.scope.cancel_called:  # the process is to end
                raise
        self.say(how, outcome)

    def say(self, how: int, outcome: Any) -> None:
        try:
            self.results.send((self.number, how, outcome)).sync()
        except ChannelClosed:  # nobody wants to know
            raise
        except Exception as error:
            note(error, "the result of a call could not be pickled")
            self.results.send((self.number, FAILED, pack_error(error, __name__))).sync()


def _make(fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Signals may raise in here, as if in `fn`: it may be a C function, which has no frame of its own."""
    return fn(*args, **named)


outside.add(_make.__code__)
