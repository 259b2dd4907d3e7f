"""Other threads than the one that is tested: one that makes a call, one that does as it is told."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from until import settle, waiting
from worlds import NET, settle_here


class Elsewhere:
    """`fn(*args)` in a thread of its own: `join()` gives its result, or raises its error."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._live, args=(fn, args), daemon=True)
        self.thread.start()

    def _live(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.result = fn(*args)
        except BaseException as error:
            self.error = error

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def ends(self) -> bool:
        """Whether it comes to its end, whatever that is."""
        self.thread.join(NET)
        return self.ended

    def join(self) -> Any:
        assert self.ends(), f"not over within {NET} s"
        if self.error is not None:
            raise self.error
        return self.result

    async def over(self) -> Any:
        """As `join`, without blocking a loop."""
        await settle(lambda: self.ended)
        return self.join()


def here(step: Callable[[], object]) -> None:
    step()


def elsewhere(step: Callable[[], object]) -> None:
    """In another thread, while this one stands still: what wakes a task of its loop stays in the mailbox."""
    Elsewhere(step).join()


def once_parked(thing: Any, act: Callable[[], Any], count: int = 1) -> Elsewhere:
    """Call `act()` in another thread as soon as `count` wait on `thing`."""

    def live() -> Any:
        settle_here(lambda: waiting(thing) >= count)
        return act()

    return Elsewhere(live)


def asleep(thread: int) -> bool:
    """Whether that thread of this process sleeps in the kernel, and not just until it gets the GIL.

    CPython finds a signal that strikes between a thread's last look and its sleep on a lock only at the next waking.
    Where it cannot be told (no /proc): yes.
    """
    for _ in range(20):
        try:
            with open(f"/proc/self/task/{thread}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] != "S":
                    return False
        except OSError:
            return True
        time.sleep(0.0001)  # lets go of the GIL
    return True


class Stranger:
    """Does as it is told; one that hangs, because a lock is held for ever, is left behind."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while (order := self.orders.get()) is not None:
            function, args, answer = order
            try:
                answer.put((True, function(*args)))
            except BaseException as error:
                answer.put((False, error))
            del order, function, args, answer

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        answer = self.order(function, *args)
        try:
            good, result = answer.get(timeout=NET)
        except queue.Empty:
            raise AssertionError("another thread waits for ever: a lock was not let go") from None
        if not good:
            raise result
        return result

    def order(self, function: Callable[..., object], *args: Any) -> queue.SimpleQueue[Any]:
        """Without waiting for the answer."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.orders.put((function, args, answer))
        return answer

    def dismiss(self) -> None:
        self.orders.put(None)
