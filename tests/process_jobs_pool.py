"""What the workers of `test_processes_pool` run: it is imported there by name, so it stands in a module."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NoReturn

from chanlib import Cancelled, CancelScope, Op, sleep
from chanlib.processes import ProcessChannel, ProcessEvent, WorkerPool
from chanlib.processes.features import SHARED

HOUR = 3600.0
made: list[Any] = []  # by the initializer


class _Gate:
    """What there is of an event where processes share no memory."""

    def __init__(self) -> None:
        self._channel = ProcessChannel[None](1)

    def wait(self) -> Op[None]:
        return self._channel.wait_closed()

    def set(self) -> None:
        self._channel.close()

    def close(self) -> None:
        self._channel.__del__()  # pytest keeps it past the test


def gate() -> Any:
    """It is closed until it is `set`, in whatever process."""
    return ProcessEvent() if SHARED else _Gate()


def square(number: int) -> int:
    return number * number


def named(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def pid(*_: Any) -> int:
    return os.getpid()


def fail(word: str) -> NoReturn:
    raise KeyError(word)


def fail_at(number: int, bad: int) -> int:
    if number == bad:
        raise ValueError(number)
    return number


def stop(error: type[Exception]) -> NoReturn:
    raise error


def hold(post: ProcessChannel[int], gate: ProcessEvent) -> int:
    """Parked in an operation until the gate is open."""
    post.send(os.getpid()).sync()
    gate.wait().sync()
    return os.getpid()


def wait_for(gate: ProcessEvent) -> int:
    gate.wait().sync()
    return os.getpid()


def release(gate: ProcessEvent) -> int:
    gate.set()
    return os.getpid()


def release_when(begun: ProcessEvent, gate: ProcessEvent) -> int:
    begun.wait().sync()
    gate.set()
    return os.getpid()


def release_and_hold(gate: ProcessEvent, other: ProcessEvent) -> int:
    gate.set()
    other.wait().sync()
    return os.getpid()


def sleep_in_c(post: ProcessChannel[int]) -> None:
    post.send(os.getpid()).sync()
    time.sleep(HOUR)


def compute(post: ProcessChannel[int]) -> None:
    post.send(os.getpid()).sync()
    while True:
        pass


def ignore_all(post: ProcessChannel[int]) -> None:
    post.send(os.getpid()).sync()
    while True:
        try:
            while True:
                time.sleep(0.05)
        except BaseException:
            pass


def finish_anyway(post: ProcessChannel[int]) -> int:
    """Its result counts, although it was cancelled."""
    post.send(os.getpid()).sync()
    try:
        sleep(HOUR).sync()
    except Cancelled:
        pass
    return os.getpid()


def cancel_itself() -> None:
    raise Cancelled("nobody has asked for that")


def with_a_scope() -> str:
    with CancelScope() as scope:
        scope.cancel()
        sleep(HOUR).sync()
    return "went on"


async def coroutine() -> int:
    return 1


def die(code: int) -> None:
    os._exit(code)


def quit_here(code: int) -> None:
    raise SystemExit(code)


def die_unless(marker: str) -> int:
    """Die the first time."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    os._exit(7)


def give_a_function() -> Any:
    return lambda: None


class Odd(Exception):
    """It does not survive pickling."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail_oddly() -> NoReturn:
    raise Odd(1, 2)


def _refuse(word: str) -> NoReturn:
    raise LookupError(word)


class RefusesToArrive:
    """It pickles, and does not unpickle."""

    def __reduce__(self) -> Any:
        return _refuse, ("not here",)


def give_what_refuses() -> RefusesToArrive:
    return RefusesToArrive()


# ----------------------------------------------------------------- hooks
def begin(*args: Any) -> None:
    made.append(args)


def begun(*_: Any) -> list[Any]:
    return made


def begin_with(post: ProcessChannel[Any]) -> None:
    made.append(post)
    post.send(("began", os.getpid())).sync()


def end() -> None:
    made[0].send(("ended", os.getpid())).sync()


def refuse(word: str) -> NoReturn:
    raise RuntimeError(word)


def begin_once(marker: str, gate: ProcessEvent) -> None:
    """The first may, no other."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        raise RuntimeError("only one") from None


def double_array(array: Any) -> Any:
    array *= 2  # writable
    return array


def tell(post: ProcessChannel[Any], what: Any) -> None:
    post.send(what).sync()


def leave_a_pool(post: ProcessChannel[Any], keep: bool) -> None:
    """Its calls are still to be made."""
    pool = WorkerPool(1, start_method="fork")
    for number in range(3):
        pool.submit(tell, post, number)
    if keep:
        made.append(pool)
