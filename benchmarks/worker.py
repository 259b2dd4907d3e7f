"""One process, one figure: what the runner starts for each peer in each round.

A run that checks comes first (every value sent comes out, every task started ends), then runs of growing size until
one takes about as long as it should: the smaller ones warm up the interpreter. The garbage collector stays on, as users
have it. Only what this peer needs is imported. The result is one line of JSON on stdout.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from .bench import Bench, Tally
from .peers import PEERS, Peer
from .rows import Run, Scenario
from .scenarios import SCENARIOS
from .sides import SIDES, Side

CHECKED = 256  # items of the run that checks, at most
MOST = 500_000  # items: an unbounded channel may hold them all


@dataclass(frozen=True)
class Job:
    """What one worker measures. Without `items`, as many as take `seconds`.

    A capacity of None is unbounded, or there is none, if the scenario is not about channels.
    """

    scenario: str
    peer: str
    side: str
    capacity: int | None
    seconds: float = 0.3
    items: int | None = None
    modules: tuple[str, ...] = ()  # imported first: they add peers

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Job:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "modules": tuple(fields["modules"])})


@dataclass(frozen=True)
class Figure:
    """Nanoseconds for an item, or bytes for an object; and over how many items it was taken."""

    value: float
    items: int
    engine: str | None  # which of chanlib's engines ran


def find(job: Job) -> tuple[Scenario, Peer, Side, float | None]:
    for module in job.modules:
        import_module(module)
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == job.scenario)
    return (
        scenario,
        next(peer for peer in PEERS if peer.name == job.peer),
        next(side for side in SIDES if side.name == job.side),
        math.inf if job.capacity is None and scenario.channels else job.capacity,
    )


def check(job: Job) -> int:
    """Run it once, with everything that passes noted; the number of values that came out."""
    scenario, peer, side, capacity = find(job)
    tally = Tally()
    # a select of the peer's own may refuse channels that are not its own
    noted = None if scenario.channels and scenario.needs and peer.select.own_channels else tally
    items = scenario.rounded(min(CHECKED, scenario.first, job.items or CHECKED), capacity)
    scenario.run(lambda: Bench(peer, side, capacity, noted), items, side)
    if noted is not None:
        tally.check()
    return len(tally.received)


def measure(job: Job) -> Figure:
    """The figure of this job."""
    scenario, peer, side, capacity = find(job)
    if scenario.weigh is not None:
        return Figure(scenario.weigh(Bench(peer, side, capacity)), 1, _engine())

    def run(items: int) -> Run:
        return scenario.run(lambda: Bench(peer, side, capacity), items, side)

    check(job)
    if job.items is not None:
        items = scenario.rounded(job.items, capacity)
        run(scenario.rounded(min(items, 1000), capacity))
        taken = run(items)
    else:
        items = scenario.rounded(scenario.first, capacity)
        while (taken := run(items)).whole < 0.6 * job.seconds and items < MOST:
            more = min(10.0, max(1.5, job.seconds / taken.whole))
            items = scenario.rounded(min(MOST, int(items * more)), capacity)
    return Figure(taken.each * 1e9, items, _engine())


def _engine() -> str | None:
    engine = sys.modules.get("chanlib._core.engine")
    return getattr(engine, "NAME", None)


def profile(job: Job) -> None:
    """Print where the time of one run goes, in this very process. The threads of a side are not looked into."""
    import cProfile
    import pstats

    figure = measure(job)  # warm, and how many items it takes
    scenario, peer, side, capacity = find(job)
    profiler = cProfile.Profile()
    with profiler:
        scenario.run(lambda: Bench(peer, side, capacity), figure.items, side)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def main(text: str) -> None:
    """Print the figure, or why there is none."""
    try:
        answer: dict[str, Any] = asdict(measure(Job.load(text)))
    except BaseException as error:
        answer = {"failed": _reason(error)}
    print(json.dumps(answer), flush=True)


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text.removesuffix(f" ({error.path})") if isinstance(error, ImportError) else text  # no word of where it is
