"""What children do in tests of groups, how they fail, and how their errors are looked at."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from chanlib import get_cancelled_exc_class, never


class Boom(Exception):
    pass


class Grave(BaseException):
    """No `Exception`, as KeyboardInterrupt is none."""


async def fail(error: BaseException) -> None:
    raise error


async def give(value: Any) -> Any:
    return value


async def cut(log: list[Any], word: object = "cut") -> None:
    """Wait for the cancellation, and note that it came."""
    try:
        await never()
    except get_cancelled_exc_class():
        log.append(word)
        raise


def raises_group() -> Any:
    return pytest.raises(ExceptionGroup)


def raises_base_group() -> Any:
    return pytest.raises(BaseExceptionGroup)


def same(group: BaseExceptionGroup[Any], *errors: BaseException) -> bool:
    """Are these very objects in it, in whatever order, and nothing else?"""
    return sorted(map(id, group.exceptions)) == sorted(map(id, errors))


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
