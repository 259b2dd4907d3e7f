"""What can be sent between processes: each value comes out as an equal one of the same type, sharing nothing.

What cannot be pickled fails in the sender, what cannot be unpickled in the receiver that takes it; the channel goes on.
"""

from __future__ import annotations

import gc
import json
import marshal
import math
import multiprocessing
import os
import pickle
import socket
import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from elsewhere import once_parked
from process_jobs_faults import forked
from until import settle
from worlds import World

from chanlib import (
    BrokenChannel,
    ChannelEmpty,
    ChannelFull,
    EndOfChannel,
    HandleClosed,
    MessageTooLarge,
    TaskGroup,
    after,
    select,
)
from chanlib.processes import ProcessChannel, ProcessReceiver, ProcessSender, open_process_channel

Open = Callable[..., tuple[ProcessSender, ProcessReceiver]]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert len(descriptors()) <= len(before)


def through(ends: tuple[Any, Any], value: Any) -> Any:
    tx, rx = ends
    tx.send_nowait(value)
    return rx.receive_nowait()


class Colour(Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()


class Bytes(bytes):
    pass


class Int(int):
    pass


VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "Ellipsis": ...,
    "zero": 0,
    "the smallest of 64 bits": -(2**63),
    "the largest of 64 bits": 2**63 - 1,
    "one more than 64 bits": 2**63,
    "one less than 64 bits": -(2**63) - 1,
    "a big int": 3**5000,
    "a float": 1.5,
    "minus zero": -0.0,
    "infinity": math.inf,
    "a complex": 1 + 2j,
    "no bytes": b"",
    "bytes": bytes(range(256)),
    "a pickle": pickle.dumps([1]),
    "no text": "",
    "text": "grüße \U0001f600 \0 end",
    "surrogates": "a\ud800b\udfff",
    "an empty bytearray": bytearray(),
    "a bytearray": bytearray(b"abc"),
    "nested": {"a": [1, (2, {3}), {"b": frozenset([b"c"])}], 4: deque([OrderedDict(x=1)])},
    "deep": (deep := [], [deep := [deep] for _ in range(50)])[1][-1],  # type: ignore[has-type]
    "a named tuple": Point(1, 2),
    "an enum": Colour.RED,
    "a type": Point,
    "a function": os.path.join,
    "a range": range(3, 9, 2),
    "a slice": slice(1, None, 2),
    "a date": datetime(2024, 2, 29, 1, 2, 3),
    "a decimal": Decimal("1.10"),
    "a fraction": Fraction(2, 3),
    "a namespace": SimpleNamespace(a=1),
    "a str subclass": Text("x"),
    "a bytes subclass": Bytes(b"x"),
    "an int subclass": Int(5),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_out_equal_and_of_the_same_type(opened: Open, value: Any) -> None:
    ends = opened(3)
    for sent in (value, [value], (value, value)):
        got = through(ends, sent)
        assert got == sent
        assert type(got) is type(sent)
        assert repr(got) == repr(sent)


def test_not_a_number(opened: Open) -> None:
    assert math.isnan(through(opened(1), math.nan))


def test_all_values_in_one_go(opened: Open) -> None:
    """Records of all kinds beside each other; more than once around the ring."""
    tx, rx = opened(math.inf, buffer_bytes=20_000)
    values = list(VALUES.values())
    for _ in range(5):
        assert tx.send_some(values).poll() == len(values)
        got = rx.receive_some().poll()
        assert [repr(value) for value in got] == [repr(value) for value in values]


def test_a_cycle_and_what_is_there_twice(opened: Open) -> None:
    cycle: list[Any] = [1]
    cycle += [cycle, cycle[:1]]
    got = through(opened(1), cycle)
    assert got[1] is got
    assert got[0] == 1


def test_an_error_is_a_value_like_any_other(opened: Open) -> None:
    error = ValueError("a", 1)
    got = through(opened(1), error)
    assert repr(got) == repr(error)
    assert got is not error


def test_a_copy_is_made_when_the_send_is_performed(opened: Open) -> None:
    tx, rx = opened(2)
    value = [1]
    op = tx.send(value)
    value.append(2)
    op.poll()
    value.append(3)
    assert rx.receive_nowait() == [1, 2]
    data = bytearray(b"abc")
    tx.send_nowait(data)
    data[:] = b"xyz"
    assert rx.receive_nowait() == b"abc"


@pytest.mark.parametrize("length", [0, 1, 100, 5000], ids=str)
def test_a_memoryview_comes_out_as_bytes_of_its_own(opened: Open, length: int) -> None:
    source = bytearray(os.urandom(length))
    for view in (
        memoryview(source),
        memoryview(bytes(source)),
        memoryview(source)[::2],
        memoryview(source)[::-1],
    ):
        got = through(opened(1, buffer_bytes=2048), view)
        assert bytes(got) == bytes(view)
        assert isinstance(got, memoryview)
        source[:] = bytes(length)
        del view
    got = through(opened(1), memoryview(bytearray(b"abc")))
    got[0] = 0x7A
    assert bytes(got) == b"zbc"


def test_a_memoryview_of_larger_elements(opened: Open) -> None:
    view = memoryview(bytes(range(16))).cast("I")
    assert bytes(through(opened(1), view)) == bytes(range(16))


def test_bytes_in_pickle_buffers(opened: Open) -> None:
    """Out of band: the buffer beside the pickle."""
    data = bytearray(os.urandom(3000))
    for length in (2000, 100_000):
        got = through(opened(1, buffer_bytes=length), {"a": pickle.PickleBuffer(data), "b": pickle.PickleBuffer(data)})
        assert bytes(got["a"]) == bytes(got["b"]) == data


# ----------------------------------------------------------------- NumPy
ARRAYS: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: np.arange(1000.0),
    "two dimensions": lambda: np.arange(600).reshape(20, 30),
    "Fortran order": lambda: np.asfortranarray(np.arange(600).reshape(20, 30)),
    "every second": lambda: np.arange(1000)[::2],
    "backwards": lambda: np.arange(1000)[::-1],
    "transposed part": lambda: np.arange(600).reshape(20, 30)[2:9, ::3].T,
    "no dimension": lambda: np.array(3.5),
    "empty": lambda: np.empty((0, 5)),
    "objects": lambda: np.array([1, "a", None, [2]], dtype=object),
    "strings": lambda: np.array(["a", "bcd"]),
    "bools": lambda: np.array([True, False]),
    "records": lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "big endian": lambda: np.arange(10, dtype=">i8"),
    "dates": lambda: np.array(["2024-01-01"], dtype="datetime64[D]"),
    "a scalar": lambda: np.float64(2.5),
    "read only": lambda: np.frombuffer(bytes(1000), dtype=np.uint8),
    "broadcast": lambda: np.broadcast_to(np.arange(3), (4, 3)),
}


@pytest.mark.parametrize("buffer_bytes", [512, 1 << 16])
@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_arrays_come_out_equal(opened: Open, make: Callable[[], Any], buffer_bytes: int) -> None:
    """Through the ring, or through memory of their own."""
    array = make()
    ends = opened(2, buffer_bytes=buffer_bytes)
    got = through(ends, array)
    assert type(got) is type(array)
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert (got == array).all()


@pytest.mark.parametrize("buffer_bytes", [512, 1 << 16], ids=["spilled", "in the ring"])
def test_an_array_can_be_written_to_and_shares_nothing_with_the_ring(opened: Open, buffer_bytes: int) -> None:
    tx, rx = opened(math.inf, buffer_bytes=buffer_bytes)
    source = np.arange(2000)
    got = []
    for n in range(100):
        source[0] = n
        tx.send_nowait(source)
        got.append(rx.receive_nowait())
        source[1] = -1
    for n, array in enumerate(got):
        assert array.flags.writeable
        assert array[0] == n
        array[:] = -5
    tx.send_nowait("still whole")
    tx.close()
    assert list(rx) == ["still whole"]
    rx.close()
    assert all((array == -5).all() for array in got)  # also when the channel has gone


def test_many_buffers_in_one_message(opened: Open) -> None:
    arrays = [np.full(n, n) for n in range(300)]
    for got in (through(opened(1), arrays), through(opened(1, buffer_bytes=512), arrays)):
        assert all((a == b).all() for a, b in zip(got, arrays, strict=True))


@pytest.mark.stress
def test_more_buffers_than_a_record_can_name(opened: Open) -> None:
    arrays = [np.array([n]) for n in range(70_000)]
    got = through(opened(1), arrays)
    assert all(a == b for a, b in zip(got, arrays, strict=True))


# ----------------------------------------------------------------- long values
@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize(
    "megabytes", [pytest.param(64), pytest.param(1024, marks=[pytest.mark.stress, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize("kind", ["bytes", "array", "list of bytes"])
def test_a_long_value_goes_through_memory_of_its_own(kind: str, megabytes: int) -> None:
    size = megabytes << 20
    value: Any = bytes(size) if kind != "array" else np.zeros(size, np.uint8)
    if kind == "array":
        value[-1] = 7
    tx, rx = open_process_channel(2)
    with tx, rx:
        tx.send_nowait(value if kind != "list of bytes" else [value])
        tx.send_nowait("next")
        got = rx.receive_nowait()
        assert rx.receive_nowait() == "next"
    if kind == "list of bytes":
        got = got[0]
    assert len(got) == size
    if kind == "array":
        assert got[-1] == 7
        assert got.flags.writeable
        assert (got == value).all()
    else:
        assert got == value


@pytest.mark.usefixtures("no_descriptor_left")
def test_memory_of_values_that_are_not_received_is_given_back() -> None:
    for end in ("close", "cancel", "drop"):
        both = ProcessChannel(3, buffer_bytes=512)
        for _ in range(3):
            both.send_nowait(bytes(100_000))
        with pytest.raises(ChannelFull):
            both.send_nowait(bytes(100_000))
        if end == "cancel":
            both.cancel()
        elif end == "close":
            both.close()
            assert both.receive_nowait() == bytes(100_000)
        del both


# ----------------------------------------------------------------- what does not pickle
class Raises:
    """Its pickling fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


UNPICKLABLE: dict[str, tuple[Callable[[], Any], type[BaseException]]] = {
    "a lambda": (lambda: lambda: 1, Exception),
    "a lock": (threading.Lock, TypeError),
    "a generator": (lambda: (n for n in range(3)), TypeError),
    "a local class": (lambda: type("Local", (), {})(), Exception),
    "raises": (lambda: Raises(ZeroDivisionError("why")), ZeroDivisionError),
    "raises a TypeError": (lambda: Raises(TypeError("why")), TypeError),
    "raises what is no Exception": (lambda: Raises(KeyboardInterrupt("why")), KeyboardInterrupt),
    "inside": (lambda: {"a": [1, b"x" * 5000, threading.Lock()]}, TypeError),
}


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize(("make", "kind"), UNPICKLABLE.values(), ids=UNPICKLABLE)
def test_what_does_not_pickle_fails_in_the_sender_and_nothing_is_written(
    make: Callable[[], Any], kind: type[BaseException]
) -> None:
    tx, rx = open_process_channel(2)
    with tx, rx:
        for act in (
            lambda: tx.send_nowait(make()),
            lambda: tx.send(make()).sync(0),
            lambda: tx.send_some([make()]).poll(),
            lambda: tx.send_all([make()]).sync(),
            lambda: select(tx.send(make()), after(0)).sync(),
        ):
            with pytest.raises(kind):
                act()
            assert len(rx) == 0
        for n in range(2):
            tx.send_nowait(n)
        with pytest.raises(ChannelFull):
            tx.send_nowait(0)
        assert rx.drain() == [0, 1]
        assert tx.statistics().sent == 2


def test_the_error_says_it_in_the_users_words(opened: Open) -> None:
    tx, _ = opened(1)
    with pytest.raises(Exception, match="lambda"):
        tx.send_nowait(lambda: 1)
    with pytest.raises(TypeError, match="lock"):
        tx.send_nowait(threading.Lock())


def test_what_does_not_pickle_among_several(opened: Open) -> None:
    """All that go in do so in one step: none."""
    tx, rx = opened(5)
    with pytest.raises(TypeError):
        tx.send_some([1, 2, threading.Lock(), 4]).poll()
    assert rx.drain() == []
    with pytest.raises(TypeError):
        tx.send_all(iter([1, 2, threading.Lock(), 4])).sync()
    assert rx.drain() == [1, 2]


def test_what_does_not_pickle_fails_also_when_the_channel_is_full(world: World, opened: Open) -> None:
    async def body() -> None:
        tx, rx = opened(1)
        tx.send_nowait(0)
        with pytest.raises(TypeError):
            await tx.send(threading.Lock())
        assert rx.drain() == [0]
        await tx.send(1)
        assert rx.drain() == [1]

    world.run(body)


# ----------------------------------------------------------------- pickling that does things
ENDS: dict[str, Any] = {}


class Calls:
    """Its pickling makes a call."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        self.call()
        return str, ("called",)


def call_now(name: str) -> str:
    """What an item calls when it is unpickled."""
    return str(ENDS[name]())


class CallsThen:
    """Its unpickling makes a call."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return call_now, (self.name,)


def test_an_item_whose_pickling_sends_on_the_same_channel(opened: Open) -> None:
    tx, rx = opened(3)
    tx.send_nowait(Calls(lambda: tx.send_nowait("first")))
    assert rx.drain() == ["first", "called"]
    tx.send_some([1, Calls(lambda: tx.send_nowait("first"))]).poll()
    assert rx.drain() == ["first", 1, "called"]


def test_an_item_whose_pickling_uses_up_the_room(opened: Open) -> None:
    tx, rx = opened(1)
    with pytest.raises(ChannelFull):
        tx.send_nowait(Calls(lambda: tx.send_nowait("first")))
    assert rx.drain() == ["first"]


def test_an_item_whose_pickling_closes_the_channel(opened: Open) -> None:
    tx, rx = opened(1)
    with pytest.raises(HandleClosed):
        tx.send_nowait(Calls(tx.close))
    with pytest.raises(EndOfChannel):
        rx.receive_nowait()


def test_an_item_whose_pickling_closes_the_other_end(opened: Open) -> None:
    tx, rx = opened(1)
    with pytest.raises(BrokenChannel):
        tx.send_nowait(Calls(rx.close))


def test_an_item_whose_pickling_receives_and_forks(opened: Open) -> None:
    tx, rx = opened(2)
    tx.send_nowait(1)
    got = []

    def fork() -> None:
        got.append(rx.receive_nowait())
        pid = os.fork()
        if not pid:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    tx.send_nowait(Calls(fork))
    assert (got, rx.drain()) == ([1], ["called"])


def test_an_item_whose_unpickling_uses_the_same_channel(opened: Open) -> None:
    tx, rx = opened(3)
    ENDS["use"] = lambda: (rx.receive_nowait(), tx.send_nowait("new"), rx.statistics().buffered)
    tx.send_some([CallsThen("use"), "second"]).poll()
    assert rx.receive_nowait() == "('second', None, 1)"
    assert rx.drain() == ["new"]


# ----------------------------------------------------------------- what does not unpickle
def fail(text: str) -> Any:
    raise LookupError(text)


def interrupt() -> Any:
    raise KeyboardInterrupt("in unpickling")


class Bad:
    """It pickles, and does not unpickle."""

    def __reduce__(self) -> Any:
        return fail, ("bad",)


class Throws:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return throw, (self.error,)


def throw(error: type[Exception]) -> None:
    raise error("by what was unpickled")


class Interrupts:
    def __reduce__(self) -> Any:
        return interrupt, ()


def test_what_does_not_unpickle_fails_in_the_receiver_and_is_gone(world: World, opened: Open) -> None:
    async def body() -> None:
        tx, rx = opened(3)
        for receive in (rx.receive, lambda: select(rx, after(5)), lambda: rx.receive().within(5)):
            await tx.send_all([Bad(), "next"])
            with pytest.raises(LookupError, match="bad"):
                await receive()
            assert await rx.receive() == "next"
            assert len(rx) == 0
        await tx.send_all([Bad(), Bad()])
        tx.close()
        seen = []
        items = aiter(rx)
        while True:
            try:
                seen.append(await anext(items))
            except LookupError:
                seen.append("bad")
            except StopAsyncIteration:
                break
        assert seen == ["bad", "bad"]

    world.run(body)


def test_of_several_those_that_unpickle_come_and_the_others_are_told_of(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_some([1, 2, Bad(), 3, Bad()]).poll()
    assert rx.receive_some().poll() == [1, 2, 3]
    tx.send_nowait(4)
    for _ in range(2):
        with pytest.raises(LookupError):
            rx.receive_some().poll()
    assert rx.receive_some().poll() == [4]
    tx.send_some([Bad(), Bad(), Bad()]).poll()
    tx.close()
    for receive in (rx.receive_some, rx.receive, rx.receive_view):
        with pytest.raises(LookupError):
            receive().poll()
    with pytest.raises(EndOfChannel):
        rx.receive_some().poll()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_is_forked_is_not_told_of_what_its_parent_has_received(opened: Open) -> None:
    tx, rx = opened(10)
    tx.send_some([Bad(), 1]).poll()
    assert rx.receive_some().poll() == [1]
    with forked(lambda tell: tell(rx.drain())) as child:
        assert child.says() == []
        child.wait()
    with pytest.raises(LookupError):
        rx.receive_nowait()


@pytest.mark.parametrize("error", [EndOfChannel, StopIteration, StopAsyncIteration, ChannelEmpty])
def test_an_error_that_would_mean_something_to_the_receiver_is_a_runtime_error(
    opened: Open, error: type[Exception]
) -> None:
    tx, rx = opened(10)
    tx.send_some([1, Throws(error), 2]).poll()
    tx.close()
    seen: list[Any] = []
    items = iter(rx)
    while True:
        try:
            seen.append(next(items))
        except RuntimeError as found:
            seen.append(type(found.__cause__))
        except StopIteration:
            break
    assert seen == [1, error, 2]


def test_what_a_sender_does_while_he_waits_is_not_seen(loop_world: World, opened: Open) -> None:
    async def body() -> None:
        tx, rx = opened(1, buffer_bytes=4096)
        for value in (bytearray(b"11"), np.ones(2), np.ones(2000), memoryview(bytearray(b"11"))):
            for send in (tx.send, lambda value: tx.send_some([value])):
                before = bytes(value)
                tx.send_nowait(0)
                async with TaskGroup() as group:
                    group.start_soon(lambda op: op, send(value))
                    await settle(lambda: tx.statistics().waiting_senders == 1)
                    value[0] = 57
                    assert rx.receive_nowait() == 0
                    assert bytes(await rx.receive()) == before
                value[0] = np.frombuffer(before, value.dtype)[0] if isinstance(value, np.ndarray) else before[0]

    loop_world.run(body)


def test_an_interrupt_while_one_of_several_is_unpickled(opened: Open) -> None:
    tx, rx = opened(4)
    tx.send_some([1, Interrupts(), 3]).poll()
    with pytest.raises(KeyboardInterrupt):
        rx.receive_some().poll()
    assert rx.drain() in ([3], [1, 3])


class Last(bytearray):
    """Its finalizer needs the channel, in another thread."""

    def __del__(self) -> None:
        thread = threading.Thread(target=lambda: tx_of_last[0].clone().close(), daemon=True)
        thread.start()
        thread.join(1)
        heard.append(not thread.is_alive())


class Lends:
    def __init__(self) -> None:
        self.data = Last(b"12")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self.data),)


heard: list[bool] = []
tx_of_last: list[Any] = []


def test_the_buffers_of_a_send_that_waits_die_outside_of_the_lock(opened: Open) -> None:
    tx, rx = opened(1)
    tx.send_nowait(0)
    heard.clear()
    tx_of_last[:] = [tx]
    side = once_parked(tx, rx.receive_nowait)
    tx.send(Lends()).sync(5)
    tx_of_last.clear()
    side.join()
    assert heard == [True]
    assert rx.receive_nowait() == b"12"


# ----------------------------------------------------------------- other serializers
class Reverse:
    """A serializer of one's own, which can be pickled by reference to its class."""

    def dumps(self, value: Any) -> bytes:
        return repr(value)[::-1].encode()

    def loads(self, data: bytes) -> Any:
        assert type(data) is bytes
        return data.decode()[::-1]


class JsonBytes:
    @staticmethod
    def dumps(value: Any) -> bytearray:
        return bytearray(json.dumps(value).encode())

    @staticmethod
    def loads(data: bytes) -> Any:
        return json.loads(data)


@pytest.mark.parametrize(
    ("serializer", "value", "expected"),
    [
        (marshal, {"a": (1, b"x", "y", None)}, {"a": (1, b"x", "y", None)}),
        (pickle, Point(1, 2), Point(1, 2)),
        (JsonBytes, {"a": (1, 2)}, {"a": [1, 2]}),
        (Reverse(), 5, "5"),
        (Reverse(), b"ab", "b'ab'"),
        (Reverse(), "x" * 5000, repr("x" * 5000)),
    ],
    ids=["marshal", "pickle", "class", "int", "bytes", "long"],
)
def test_a_serializer_is_used_for_every_value(opened: Open, serializer: Any, value: Any, expected: Any) -> None:
    """Also for those that would go another way: integers, bytes, text."""
    tx, rx = opened(2, serializer=serializer, buffer_bytes=1024)
    tx.send_nowait(value)
    assert tx.send_some([value]).poll() == 1
    assert [rx.receive_nowait(), *rx.receive_some().poll()] == [expected, expected]


def test_json_itself_which_makes_text(opened: Open) -> None:
    tx, rx = opened(2, serializer=json)
    tx.send_nowait([1, "a"])
    assert rx.receive_nowait() == [1, "a"]


def test_errors_of_a_serializer(opened: Open) -> None:
    tx, rx = opened(2, serializer=JsonBytes)
    with pytest.raises(TypeError, match="JSON"):
        tx.send_nowait({1, 2})
    assert len(rx) == 0
    tx.send_nowait([1])

    class Broken:
        dumps = staticmethod(lambda value: b"x")
        loads = staticmethod(lambda data: fail("broken"))

    tx2, rx2 = opened(2, serializer=Broken())
    tx2.send_nowait(1)
    with pytest.raises(LookupError, match="broken"):
        rx2.receive_nowait()
    assert rx.receive_nowait() == [1]


# ----------------------------------------------------------------- handles of the system
@pytest.mark.usefixtures("no_descriptor_left")
def test_a_connection_and_a_socket_as_items() -> None:
    tx, rx = open_process_channel(2)
    here, there = multiprocessing.Pipe()
    left, right = socket.socketpair()
    with tx, rx, here, there, left, right:
        tx.send_nowait({"pipe": there, "socket": right})
        got = rx.receive_nowait()
        with got["pipe"] as pipe, got["socket"] as sock:
            here.send("hello")
            assert pipe.recv() == "hello"
            left.send(b"hello")
            assert sock.recv(10) == b"hello"
    from multiprocessing import resource_sharer

    resource_sharer.stop()  # a thread of the standard library, with a socket


# ----------------------------------------------------------------- channels inside channels
@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("long", [0, 5000], ids=["in the ring", "spilled"])
def test_ends_of_another_channel_inside_a_value(long: int) -> None:
    tx, rx = open_process_channel(2, buffer_bytes=1024)
    a, b = open_process_channel(3, name="inner")
    with tx, rx, b:
        with a:
            tx.send_nowait((a, bytes(long)))
        assert b.statistics().senders == 1
        got, filler = rx.receive_nowait()
        assert filler == bytes(long)
        assert type(got) is ProcessSender
        assert "'inner'" in repr(got)
        with got:
            assert b.statistics().senders == 1
            got.send_nowait("through")
        assert list(b) == ["through"]


@pytest.mark.usefixtures("no_descriptor_left")
def test_both_kinds_of_end_and_a_process_channel_inside_one_value() -> None:
    tx, rx = open_process_channel(2)
    a, b = open_process_channel(3)
    both = ProcessChannel(3)
    with tx, rx, a, b:
        tx.send_nowait([a, b, both, a])
        a2, b2, both2, a3 = rx.receive_nowait()
        assert a3 is a2  # what is in a value twice comes out twice
        assert (b.statistics().senders, b.statistics().receivers) == (2, 2)
        assert type(both2) is ProcessChannel
        for number, end in enumerate((a, a2, a3)):
            end.send_nowait(number)
        assert b2.drain() == [0, 1, 2]
        both.send_nowait(1)
        assert both2.receive_nowait() == 1
        for end in (a2, b2):
            end.close()
    both2.close()
    with pytest.raises(EndOfChannel):
        both.receive_nowait()
    del both, both2


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_handle_of_the_channel_itself() -> None:
    tx, rx = open_process_channel(3)
    with tx, rx:
        tx.send_nowait(tx)
        tx.send_nowait(rx)
        assert (rx.statistics().senders, rx.statistics().receivers) == (2, 2)
        tx2, rx2 = rx.drain()
        with tx2, rx2:
            tx2.send_nowait("round")
            assert rx2.receive_nowait() == "round"
        assert (rx.statistics().senders, rx.statistics().receivers) == (1, 1)


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_handle_of_the_channel_itself_that_nobody_receives() -> None:
    """A sender that waits inside its own stream keeps it open while somebody can still take it out."""
    tx, rx = open_process_channel(3)
    tx.send_nowait(tx)
    tx.close()
    with rx:
        assert not rx.is_closed
        rx.receive_nowait().close()
        with pytest.raises(EndOfChannel):
            rx.receive_nowait()
    tx, rx = open_process_channel(3)
    tx.send_nowait(tx)
    tx.close()
    rx.close()


@pytest.mark.parametrize("count", [300, 80])
def test_more_handles_in_one_message_than_it_can_carry(count: int) -> None:
    tx, rx = open_process_channel(2)
    a, b = open_process_channel(2)
    with tx, rx, a, b:
        if count == 300:
            before = len(descriptors())
            clones = [a.clone() for _ in range(300)]
            with pytest.raises((ValueError, MessageTooLarge), match="descriptors"):
                tx.send_nowait(clones)
            for clone in clones:
                clone.close()
            assert len(rx) == 0
            assert a.statistics().senders == 1
            gc.collect()
            assert len(descriptors()) == before
            tx.send_nowait("next")
            assert rx.receive_nowait() == "next"
        else:
            clones = [a.clone() for _ in range(count)]
            tx.send_nowait(clones)
            got = rx.receive_nowait()
            assert b.statistics().senders == 2 * count + 1
            got[-1].send_nowait("carried")
            assert b.receive_nowait() == "carried"
            for clone in clones + got:
                clone.close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_handles_in_values_that_do_not_pickle_or_are_never_sent_count_no_more() -> None:
    tx, rx = open_process_channel(1)
    a, b = open_process_channel(2)
    with tx, rx, b:
        with a:
            with pytest.raises(TypeError):
                tx.send_nowait([a, threading.Lock()])
            tx.send_nowait(0)
            for act in (
                lambda: tx.send_nowait(a),
                lambda: tx.send(a).sync(0.001),
                lambda: select(tx.send(a), after(0.001)).sync(),
                lambda: tx.send_some([a, a]).poll(),
            ):
                try:
                    act()
                except (ChannelFull, TimeoutError):
                    pass
                gc.collect()
                assert b.statistics().senders == 1
            rx.drain()
            assert tx.send_some([1, a, a]).poll() == 1
            gc.collect()
            assert b.statistics().senders == 1
        with pytest.raises(EndOfChannel):
            b.receive_nowait()


@pytest.mark.usefixtures("no_descriptor_left")
def test_handles_in_values_that_do_not_unpickle_count_no_more() -> None:
    tx, rx = open_process_channel(3)
    a, b = open_process_channel(2)
    with tx, rx, b:
        with a, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the first handle has come to life
            for value in ([a, Bad()], [Bad(), a]):
                tx.send_nowait(value)
                with pytest.raises(LookupError):
                    rx.receive_nowait()
                gc.collect()
        with pytest.raises((EndOfChannel, BrokenChannel)):
            b.receive().sync(2)


@pytest.mark.usefixtures("no_descriptor_left")
def test_handles_in_a_channel_that_is_given_up_count_no_more() -> None:
    a, b = open_process_channel(2)
    with b:
        for end in ("cancel", "close", "receiver"):
            tx, rx = open_process_channel(2)
            both = ProcessChannel(2)
            (both if end == "cancel" else tx).send_nowait(a)
            if end == "cancel":
                both.cancel()
            tx.close()
            rx.close()
            del both, tx, rx
            gc.collect()
        a.close()
        with pytest.raises((EndOfChannel, BrokenChannel)):
            b.receive().sync(2)
