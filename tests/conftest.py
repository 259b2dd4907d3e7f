"""The fixtures that put one body on every world, and on every pair of worlds."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests share `worlds`; there is no package of tests

import worlds
from census import Census

_MIXED = [("asyncio", "threads"), ("threads", "asyncio"), ("trio", "asyncio"), ("threads", "trio")]
_NO_UVLOOP = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="no uvloop for this interpreter")


def _marks(*names: str) -> list[pytest.MarkDecorator]:
    return [_NO_UVLOOP] if "uvloop" in names else []


def _pairs() -> list[Any]:
    """Every world with itself and four mixed pairs; the rest of the 25 under `stress`."""
    found = []
    for producer in worlds.ALL:
        for consumer in worlds.ALL:
            marks = _marks(producer, consumer)
            if producer != consumer and (producer, consumer) not in _MIXED:
                marks.append(pytest.mark.stress)
            found.append(pytest.param((producer, consumer), id=f"{producer}->{consumer}", marks=marks))
    return found


@pytest.fixture(params=[pytest.param(name, marks=_marks(name)) for name in worlds.ALL])
def world(request: pytest.FixtureRequest) -> worlds.World:
    """Each world in turn."""
    return worlds.ALL[request.param]


@pytest.fixture(
    params=[pytest.param(name, marks=_marks(name)) for name, world in worlds.ALL.items() if world.can_cancel]
)
def loop_world(request: pytest.FixtureRequest) -> worlds.World:
    """Each world that has an event loop, and can cancel."""
    return worlds.ALL[request.param]


@pytest.fixture(params=[pytest.param(name, marks=_marks(name)) for name in ("asyncio", "uvloop", "trio", "threads")])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend of `chanlib.run` in turn."""
    return str(request.param)


@pytest.fixture
def census() -> Iterator[Census]:
    """After the test nothing may be left that was not there before it."""
    census = Census()
    yield census
    census.check()


@pytest.fixture(params=_pairs())
def pair(request: pytest.FixtureRequest) -> worlds.Pair:
    """Two worlds that meet on one channel."""
    producer, consumer = request.param
    return worlds.Pair(worlds.ALL[producer], worlds.ALL[consumer])


_OWN_TRACE_FUNCTION = {
    "test_attacks.py",
    "test_attacks_primitives.py",
    "test_fork.py",
    "test_interrupts.py",
    "test_interrupts_primitives.py",
    "test_reentrancy.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that set a trace function of their own run last: a run that measures coverage does not recover from it."""
    items.sort(key=lambda item: item.path.name in _OWN_TRACE_FUNCTION)
