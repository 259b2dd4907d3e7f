"""The fixtures that put one body on every world, and on every pair of worlds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share `worlds`; there is no package of tests

import unmeasured  # its hook comes before all others

# isort: split
import backends
import worlds
from census import Census
from elsewhere import Stranger

from chanlib import lowlevel
from chanlib.processes import ProcessChannel, ProcessReceiver, ProcessSender, open_process_channel


def pytest_configure(config: pytest.Config) -> None:
    unmeasured.coverage_runs = bool(config.getoption("cov_source", default=None))


# Wall time is no measure: neither of an example (200 ms by default) nor of the drawing of it.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_MIXED = [("asyncio", "threads"), ("threads", "asyncio"), ("trio", "asyncio"), ("threads", "trio")]


def _pairs() -> list[Any]:
    """Every world with itself and four mixed pairs; the rest of the 25 under `stress`."""
    found = []
    for producer in worlds.ALL:
        for consumer in worlds.ALL:
            marks = backends.marks(producer, consumer)
            if producer != consumer and (producer, consumer) not in _MIXED:
                marks.append(pytest.mark.stress)
            found.append(pytest.param((producer, consumer), id=f"{producer}->{consumer}", marks=marks))
    return found


@pytest.fixture(params=backends.each(worlds.ALL))
def world(request: pytest.FixtureRequest) -> worlds.World:
    """Each world in turn."""
    return worlds.ALL[request.param]


@pytest.fixture(params=backends.each(name for name, world in worlds.ALL.items() if world.can_cancel))
def loop_world(request: pytest.FixtureRequest) -> worlds.World:
    """Each world that has an event loop, and can cancel."""
    return worlds.ALL[request.param]


@pytest.fixture(params=backends.each(["asyncio", "asyncio-debug", "uvloop"]))
def aio(request: pytest.FixtureRequest) -> worlds.World:
    """Each loop of asyncio's kind: there a task can be cancelled natively."""
    return worlds.ALL[request.param]


@pytest.fixture(params=backends.each(backends.ALL))
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend of `chanlib.run` in turn."""
    return str(request.param)


@pytest.fixture
def known_bug(request: pytest.FixtureRequest, backend: str) -> Callable[..., None]:
    """`known_bug(reason, *backends)`: on these backends the test is to fail, until somebody mends it."""

    def mark(reason: str, *backends: str) -> None:
        if backend in backends:
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason))

    return mark


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


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_others() -> None:
    """What is there before a module of tests begins, such as what pytest keeps of all tests before, is no garbage.

    Many tests collect, in processes that they fork too, and need not look at it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def whole_budget() -> None:
    """No test depends on how many operations were performed before it: when the loop is given a turn is its own."""
    lowlevel.set_strict_checkpoints(False)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads are switched as often as the interpreter can (without a GIL they run at once anyway)."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Another thread."""
    stranger = Stranger()
    yield stranger
    stranger.dismiss()


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[ProcessSender, ProcessReceiver]]]:
    """`open_process_channel`, whose ends are closed after the test."""
    made: list[Any] = []

    def make(capacity: float, **options: Any) -> tuple[ProcessSender, ProcessReceiver]:
        ends = open_process_channel(capacity, **options)
        made.extend(ends)
        return ends

    yield make
    for end in made:
        end.close()
    made.clear()


@pytest.fixture(params=["ends", "both"])
def either(request: pytest.FixtureRequest, opened: Any) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """A sender and a receiver of a channel between processes: counted ends, or one handle twice."""
    if request.param == "ends":
        yield opened
        return
    made: list[ProcessChannel] = []

    def make(capacity: float, **options: Any) -> tuple[Any, Any]:
        both = ProcessChannel(capacity, **options)
        made.append(both)
        return both, both

    yield make
    for both in made:
        both.__del__()  # a frame that an error holds may keep it past the test
    made.clear()


_OWN_TRACE_FUNCTION = {
    "test_attacks.py",
    "test_attacks_primitives.py",
    "test_fork.py",
    "test_interrupts.py",
    "test_interrupts_primitives.py",
    "test_processes_faults.py",
    "test_processes_faults_changes.py",
    "test_processes_faults_ends.py",
    "test_processes_faults_interrupts.py",
    "test_processes_faults_stopped.py",
    "test_processes_views.py",
    "test_reentrancy.py",
    "test_scopes_elsewhere.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that set a trace function of their own run last: a run that measures coverage does not recover from it."""
    items.sort(key=lambda item: item.path.name in _OWN_TRACE_FUNCTION)
