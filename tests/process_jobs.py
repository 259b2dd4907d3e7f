"""What the processes of `test_processes_children` run: they are imported by name, so they stand in a module."""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from chanlib import (
    Cancelled,
    CancelScope,
    Event,
    TaskGroup,
    checkpoint,
    get_cancelled_exc_class,
    never,
    run,
    sleep,
)

HOUR = 3600.0


# ----------------------------------------------------------------- ends of its own
def add(a: int, b: int) -> int:
    return a + b


async def add_async(a: int, b: int) -> int:
    await sleep(0)
    return a + b


async def add_twice() -> int:
    return await add_async(1, 2) + await add_async(3, 4)


def add_later(a: int, b: int) -> Any:
    """Not async by its looks."""
    return add_async(a, b)


def size(data: bytes) -> int:
    return len(data)


def much(count: int) -> bytes:
    return b"x" * count


def where() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "main": threading.current_thread() is threading.main_thread(),
        "interrupts": signal.getsignal(signal.SIGINT),
    }


async def where_async() -> tuple[int, bool, str]:
    import sniffio

    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "threads"
    return os.getpid(), threading.current_thread() is threading.main_thread(), library


class Odd(Exception):
    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


class NoPickle(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class NoUnpickle(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Leaves(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class Frozen(Exception):
    """As a frozen dataclass would be: nothing can be set."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class Mute(Exception):
    def __str__(self) -> str:
        class Word(str):
            """Cannot be pickled."""

            __slots__ = ()

        return Word("hard to say")


class Wrecked:
    """Pickles, but cannot be had elsewhere than where it was made."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __getstate__(self) -> Any:
        return {"home": self.home}

    def __setstate__(self, state: Any) -> None:
        if state["home"] != os.getpid():
            raise LookupError("far from home")
        self.home = state["home"]


def gives_a_handle() -> Any:
    from chanlib.processes import ProcessEvent

    return ProcessEvent()


def sets_a_handle(future: Any) -> None:
    future.set_result(gives_a_handle())


def sends(end: Any, value: Any) -> None:
    with end:
        end.send(value).sync()


def take(*values: Any) -> int:
    return len(values)


def raises(what: str) -> None:
    error: BaseException
    if what == "odd":
        error = Odd("so", 7)
        error.number = 8
        error.add_note("a note")
    elif what == "no pickle":
        error = NoPickle("kept back")
    elif what == "no unpickle":
        error = NoUnpickle(1, 2)
    elif what == "leaves":
        error = Leaves("at once")
    elif what == "frozen":
        error = Frozen(7)
    elif what == "mute":
        error = Mute()
    elif what == "group":
        error = ExceptionGroup("several", [ValueError(1), NoUnpickle(1, 2), ExceptionGroup("inner", [NoPickle("x")])])
    elif what == "interrupt":
        error = KeyboardInterrupt("of its own")
    else:
        error = GeneratorExit()
    raise error


def returns(what: str) -> Any:
    return (lambda: None) if what == "lambda" else Wrecked()


def dies(how: str) -> None:
    if how.startswith("_exit"):
        os._exit(int(how[5:]))
    if how.startswith("exit"):
        sys.exit(int(how[4:]) if how[4:] else None)
    faulthandler.disable()  # pytest's, which a fork inherits
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(HOUR)


# ----------------------------------------------------------------- until they are told to
def parked(say: Connection, form: str = "chanlib") -> None:
    """Wait for ever, in one way or another; tell of the end."""
    say.send(os.getpid())
    try:
        if form == "chanlib":
            never().sync()
        elif form == "sleep":
            time.sleep(HOUR)
        elif form == "lock":
            threading.Lock().acquire() and threading.Event().wait()
        else:
            asyncio.run(_parked_natively(say))
    except BaseException as error:
        say.send((type(error).__name__, str(error)))
        raise
    finally:
        say.send("finally")


async def _parked_natively(say: Connection) -> None:
    try:
        await asyncio.sleep(HOUR)
    finally:
        say.send("task")


async def parked_async(say: Connection, form: str = "chanlib") -> None:
    say.send(os.getpid())
    try:
        if form == "chanlib":
            await never()
        elif form == "sleep":
            time.sleep(HOUR)  # blocks the loop
        else:
            with CancelScope(shield=True):
                await never()
    except get_cancelled_exc_class() as error:
        say.send(type(error).__name__)
        raise
    except Cancelled:
        say.send("Cancelled")
        raise
    finally:
        say.send("finally")


def stubborn(say: Connection) -> None:
    say.send(os.getpid())
    while True:
        try:
            time.sleep(HOUR)
        except BaseException:
            say.send("no")


def native(say: Connection) -> None:
    """In C, where no signal handler is run."""
    say.send(os.getpid())
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2_000_000_000)


def stopped(say: Connection) -> None:
    say.send(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def ends_well(say: Connection) -> str:
    say.send(os.getpid())
    try:
        never().sync()
    except Cancelled:
        pass
    return "all the same"


def ends_badly(say: Connection) -> None:
    say.send(os.getpid())
    try:
        never().sync()
    finally:
        raise Odd("while it was cancelled")


def gives_up(say: Connection) -> None:
    say.send(os.getpid())
    try:
        never().sync()
    except Cancelled:
        os._exit(9)


def shielded(say: Connection, hear: Connection) -> str:
    say.send(os.getpid())
    with CancelScope(shield=True):
        while not hear.poll(0):
            sleep(0.005).sync()
    return "unhurt"


def deaf(say: Connection, hear: Connection) -> str:
    """Takes no notice of anything until it is told by another way."""
    say.send(os.getpid())
    while not hear.poll(0):
        sum(range(1000))
    return "in its own time"


def computes(say: Connection) -> None:
    say.send(os.getpid())
    while True:
        checkpoint().sync()


def keeps_running(say: Connection) -> str:
    """Has said how it went, but does not end."""
    threading.Thread(target=time.sleep, args=(HOUR,)).start()
    say.send(os.getpid())
    return "done"


# ----------------------------------------------------------------- families
_SLEEP = [sys.executable, "-c", f"import time; time.sleep({HOUR})"]


def with_grandchild(say: Connection, then: str) -> str:
    say.send(os.getpid())
    say.send(subprocess.Popen(_SLEEP, close_fds=False).pid)
    if then == "dies":
        os._exit(1)
    if then == "parks":
        never().sync()
    return then


def with_fork(say: Connection) -> None:
    """The fork has all its descriptors."""
    say.send(os.getpid())
    pid = os.fork()
    if not pid:
        os.setsid()
        time.sleep(HOUR)
    say.send(pid)
    os._exit(5)


def comes_back_twice() -> int:
    return os.fork() and 1


async def nested(say: Connection) -> None:
    say.send(os.getpid())
    async with TaskGroup() as group:
        group.start_process(parked, say, start_method="fork")
        group.start_process(parked_async, say, start_method="fork")
        await never()


async def nested_cancel() -> list[Any]:
    async with TaskGroup() as group:
        one = group.start_process(never_sync, start_method="fork")
        two = group.start_process(add, 1, 2, start_method="fork")
        result = await two
        group.cancel()
    return [one.cancelled, result]


async def nested_default() -> int:
    async with TaskGroup() as group:
        return await group.start_process(add, 1, 2)


def never_sync() -> None:
    never().sync()


# ----------------------------------------------------------------- words
def logs() -> None:
    logger = logging.getLogger("jobs.one")
    logger.info("number %d of %s", 3, Wrecked())
    logger.warning("with %s", "extra", extra={"odd": threading.Lock(), "plain": 5})
    try:
        raise Odd("logged")
    except Odd:
        logger.exception("failed")
    logger.debug("not this one")


# ----------------------------------------------------------------- programs
async def crowd(say: Any, count: int, method: Any) -> None:
    async with TaskGroup() as group:
        for n in range(count):
            job = (parked, parked_async, stubborn, nested)[n % 4]
            group.start_process(job, say, grace=0.3, name=f"job {n}", start_method=method)
        await never()


def event_set() -> None:
    Event().set()


def run_crowd(say: Any, count: int, method: Any, backend: Any) -> None:
    run(crowd, say, count, method, backend=backend)
