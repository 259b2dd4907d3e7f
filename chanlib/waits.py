"""What a coroutine waits on, seen from outside: by walking from what it awaits to what that awaits, to the end.

A coroutine that is suspended says what it awaits (`cr_await` and the like). If it is executing, the stack of its thread
tells the rest. On a free-threaded interpreter neither may be read while another thread can go on with it: there
`gc.get_referents`, which stops all threads while it looks, gives what the coroutine holds, and what it awaits is among
that. (It also sees through the wrappers which do not say what they await, as in trio's `Task.iter_await_frames`.)

The operation is known by its `Waiter`, which the generator of `Op._wait` holds, and which notes when it was parked.
"""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass, field
from time import monotonic
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, TypeVar, cast

from ._core.engine import Choice, Op, Select, Waiter, Within
from ._core.lane import turn
from ._core.origins import origin
from .groups import TaskGroup
from .scopes import CancelScope
from .stacks import PARKING, Stacks, of_a_library, parked_in, place

__all__ = ["Chain", "Wait", "among", "wait_of", "where_in", "words"]

T = TypeVar("T")

_LEAVING: CodeType = TaskGroup.__aexit__.__code__


@dataclass(frozen=True)
class Wait:
    """What a task or thread waits on, or else where it is.

    `what` is for people: "receive on Channel 'jobs' (0/16)"; for something foreign the function that waits and its
    line. `seconds`: for how long, where that is known. `where`: the function and the line of the program that wait.
    `on`: the objects that the operation is about, those of all arms for a select; empty for anything foreign.
    """

    what: str
    seconds: float | None = None
    where: str | None = None
    on: tuple[object, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        inside = f", in {self.where}" if self.where is not None and not self.on and self.where not in self.what else ""
        return f"{self.what}{inside}" + ("" if self.seconds is None else f", {self.seconds:.1f} s")


# ------------------------------------------------------------- words
_LABEL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\#\d+)"""
_NAMED = re.compile(rf"<(\w+ {_LABEL})(?:,? ([^<>]*))?>")


def polished(text: str) -> str:
    """<Channel 'jobs' 0/16> as Channel 'jobs' (0/16)."""
    return _NAMED.sub(lambda match: f"{match[1]} ({match[2]})" if match[2] else match[1], text)


def words(op: Op[Any], src: Any) -> str:
    """What an operation does, as one says it: "receive on Channel 'jobs' (0/16)"."""
    if not isinstance(op, Choice):
        return _leaf(op, src)
    branches = op._list
    text = ", ".join(_leaf(branch.leaf, branch.src) for branch in branches) or "never"
    if isinstance(op, Select):
        return f"select of {text}"
    return f"{text} within {op._limit} s" if isinstance(op, Within) else text


def _leaf(op: Op[Any], src: Any) -> str:
    if isinstance(getattr(src, "scope", None), CancelScope):
        text = "cancellation of CancelScope"  # its repr may cancel it, and so take a lock
    else:
        try:
            text = op._describe(src)
        except Exception:  # changed meanwhile; or a primitive of somebody else's
            text = f"{type(op).__name__} on {type(src).__name__}"
    text = polished(text)
    if text.startswith("receive from "):
        text = "receive on " + text.removeprefix("receive from ")
    made_at = origin(src)
    return text if made_at is None else f"{text} made at {made_at}"


def _sources(op: Op[Any], src: Any) -> tuple[object, ...]:
    if not isinstance(op, Choice):
        return (src,)
    return tuple(branch.src for branch in op._list)


def wait_of(waiter: Waiter, where: str | None) -> Wait | None:
    """What `waiter` waits on; None if that is over."""
    op, src = waiter.op, waiter.src
    since: float | None = getattr(waiter, "since", None)
    if op is None:
        return None
    return Wait(words(op, src), None if since is None else max(monotonic() - since, 0.0), where, _sources(op, src))


# ------------------------------------------------------------- walking
_CLEAR: dict[Any, str] = {CoroutineType: "cr", GeneratorType: "gi", AsyncGeneratorType: "ag"}
_AWAITED = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}
_OPAQUE = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}
_DEEP = 10_000


class Chain:
    """What a coroutine awaits, down to the end.

    `codes` are those of the functions on the way; `waiter` is that of the operation at the end, if it is one; `leaving`
    is the group whose children are waited for.
    `exact` says that no other thread can go on with it meanwhile, or that there is a GIL.
    """

    def __init__(self, coroutine: Any, stacks: Stacks, exact: bool) -> None:
        self._stacks = stacks
        self.codes: set[CodeType] = set()
        self.waiter: Waiter | None = None
        self.leaving: TaskGroup | None = None
        self.executing = False
        self._places: list[tuple[CodeType, int | None]] = []  # the outermost first
        self._started = True
        seen: dict[int, Any] = {}
        todo: list[Any] = [coroutine]
        look = self._exact if exact else self._guessed
        while todo and len(seen) < _DEEP and self.waiter is None:
            thing = todo.pop()
            if id(thing) not in seen:
                seen[id(thing)] = thing
                todo += look(thing)

    def _exact(self, thing: Any) -> list[Any]:
        kind = _kind(thing)
        if kind is None:
            return _behind(thing)
        frame: FrameType | None = getattr(thing, f"{kind}_frame")
        if frame is None:
            return []
        self.codes.add(frame.f_code)
        self._places.append((frame.f_code, frame.f_lineno))
        self._note(frame.f_code, thing)
        inner = self._stacks.inside(frame)
        if inner:
            self._on_stack(inner[:-1])
            return []
        awaited = getattr(thing, _AWAITED[kind])
        if awaited is None and kind == "cr" and frame.f_lasti < 0:
            self._started = False
        return [] if awaited is None else [awaited]

    def _note(self, code: CodeType, thing: Any) -> None:
        if code is PARKING:
            self.waiter = next((one for one in among(thing, Waiter) if hasattr(one, "since")), None)
        elif code is _LEAVING:
            self.leaving = next(iter(among(thing, TaskGroup)), None)

    def _on_stack(self, inner: list[FrameType]) -> None:
        self.executing = True
        self.codes.update(frame.f_code for frame in inner)
        self._places += [(frame.f_code, frame.f_lineno) for frame in reversed(inner)]
        self.waiter = parked_in(inner) or self.waiter

    def _guessed(self, thing: Any) -> list[Any]:
        kind = _kind(thing)
        if kind is None:
            return _behind(thing)
        code: CodeType = getattr(thing, f"{kind}_code")
        self.codes.add(code)
        self._places.append((code, None))
        self._note(code, thing)
        return [one for one in gc.get_referents(thing) if type(one) in _CLEAR or type(one).__name__ in _OPAQUE]

    def wait(self) -> Wait | None:
        """What it waits on, or where it is."""
        where = self._where()
        if self.waiter is not None and (found := wait_of(self.waiter, where)) is not None:
            return found
        if self.leaving is not None:
            return Wait(polished(f"the last child of {self.leaving!r} to end"), None, where, (self.leaving,))
        if not self._started:
            return Wait("about to start", where=where)
        places = [(code, line) for code, line in self._places if not of_a_library(code.co_filename, own=True)]
        if self.executing:
            return Wait(f"in {where}", where=where) if where is not None else None
        if self._places and self._places[-1][0] is turn.__code__:
            return Wait("its turn", where=where)
        while places and _of_trio_core(places[-1][0]):
            places.pop()
        return Wait(place(*places[-1]), where=where) if places else None

    def _where(self) -> str | None:
        for code, line in reversed(self._places):
            if not of_a_library(code.co_filename):
                return place(code, line)
        return None


def where_in(stack: list[FrameType]) -> str | None:
    """The innermost frame of the program."""
    for frame in stack:
        if not of_a_library(frame.f_code.co_filename):
            return place(frame.f_code, frame.f_lineno)
    return None


def _kind(thing: Any) -> str | None:
    return _CLEAR.get(type(thing))


def _behind(thing: Any) -> list[Any]:
    """What is awaited by way of something that is no coroutine."""
    if isinstance(thing, Op):
        op: Any = cast(Any, thing)
        steps = getattr(op, "_steps", None)  # performed as the coroutine of a task
        return [] if steps is None else [steps]
    if type(thing).__name__ in _OPAQUE:
        return [one for one in gc.get_referents(thing) if type(one) in _CLEAR]
    return []


def among(coroutine: Any, kind: type[T]) -> list[T]:
    """What of this kind a coroutine or generator holds."""
    return [one for one in gc.get_referents(coroutine) if isinstance(one, kind)]


def _of_trio_core(code: CodeType) -> bool:
    return "trio/_core" in code.co_filename.replace("\\", "/")
