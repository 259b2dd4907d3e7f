"""Other threads than the one that is tested: one that waits, one that does as it is told, and what they are asked."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from worlds import NET


def here(step: Callable[[], object]) -> None:
    step()


def elsewhere(step: Callable[[], object]) -> None:
    """In another thread, while this one stands still: what wakes a task of its loop stays in the mailbox."""
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()


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


class Parked:
    """A thread that performs something, which has to wait."""

    def __init__(self, perform: Callable[[], object]) -> None:
        self.got: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.perform = perform
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.got.put(self.perform())
        except Exception as error:
            self.got.put(error)

    @property
    def over(self) -> bool:
        return not self.thread.is_alive()

    def goes_on(self) -> bool:
        """Whether it comes to its end."""
        self.thread.join(NET)
        return self.over

    def result(self) -> object:
        """What it was given, or the error."""
        result = self.got.get(timeout=NET)
        self.thread.join(NET)
        return result


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
