"""What a fork leaves behind: which of the ends that a forked process has inherited it is to have.

A fork copies all of its parent's ends, wanted or not. Until they are used there they are only kept open, as those of a
pipe would be. A process that `multiprocessing` has forked says what it wants: what its target can reach by its
arguments, or names among its globals, is its own from the start; what it cannot keeps no stream from ending.
"""

from __future__ import annotations

import gc
from multiprocessing import process
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["wanted"]

_MOST = 100_000  # objects looked at
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type, ModuleType, CodeType)


def wanted(kind: type) -> list[Any] | None:
    """The objects of this kind that the process which has just been started can reach; None: nobody knows."""
    current: Any = process.current_process()
    base: Any = process.BaseProcess
    todo: list[Any] = [getattr(current, name, None) for name in ("_target", "_args", "_kwargs")]
    if todo[0] is None and getattr(current.run, "__func__", None) is not base.run:
        todo.append({**current.__dict__})  # a subclass that works by itself
    found: list[Any] = []
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, _LEAVES):
            continue
        seen.add(id(one))
        if len(seen) > _MOST:
            return None
        if isinstance(one, kind):
            found.append(one)
        elif isinstance(one, FunctionType):
            todo += [one.__closure__, one.__defaults__, one.__kwdefaults__]
            todo += [one.__globals__[name] for name in one.__code__.co_names if name in one.__globals__]
        elif type(one) is dict:  # one that stands in its object does not tell the collector
            todo += [*one.keys(), *one.values()]
        else:
            todo += gc.get_referents(one)
    return found
