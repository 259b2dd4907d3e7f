"""Which backends a test is for. The fixture `backend` gives it each in turn; a mark from here, some of them only."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
from typing import Any

import pytest

ALL = ("asyncio", "uvloop", "trio", "threads")

_NO_UVLOOP = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="no uvloop for this interpreter")


def marks(*names: str) -> list[pytest.MarkDecorator]:
    """What a case that needs all these is to be marked with."""
    return [_NO_UVLOOP] if "uvloop" in names else []


def each(names: Iterable[str], stress: Collection[str] = ()) -> list[Any]:
    """A case for each; for those in `stress` under that mark."""
    return [pytest.param(name, marks=marks(name) + [pytest.mark.stress] * (name in stress)) for name in names]


def on(*names: str) -> pytest.MarkDecorator:
    """A test for these backends only."""
    return pytest.mark.parametrize("backend", each(names))


loops = on("asyncio", "uvloop", "trio")
on_asyncio = on("asyncio", "uvloop")
