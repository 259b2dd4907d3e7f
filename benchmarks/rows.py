"""A row of the table: what a scenario is, and the figures that are made of what its loops have timed themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

from .bench import Bench
from .sides import SIDES, Plan, Side, run

T = TypeVar("T")

BETWEEN = tuple(side.name for side in SIDES if side.left == "process")
WITHIN = tuple(side.name for side in SIDES if side.left != "process")  # one process


# ------------- figures: of the stretches that a loop has timed, and the number of items
def mean(stretches: list[float], items: int) -> float:
    return sum(stretches) / items


def middle(stretches: list[float], items: int) -> float:
    return median(stretches)


def since_first(stretches: list[float], items: int) -> float:
    return (max(stretches) - min(stretches)) / max(1, items - 1)


def since(stretches: list[float], items: int) -> float:
    return (stretches[1] - stretches[0]) / items


def p99(stretches: list[float], items: int) -> float:
    return quantiles(stretches, n=100, method="inclusive")[-1] if len(stretches) > 1 else stretches[0]


# ------------- scenarios
class Run(NamedTuple):
    """How long a run took, and what of that is the figure for an item: both in seconds."""

    whole: float
    each: float


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    `needs` names the field of a peer's `Select` without which it has no place there; of its `Structured`, if the
    scenario is not about channels; of its `Processes`, if that is another process's.
    """

    name: str
    text: str
    item: str  # what the figure is for
    build: Callable[[Bench, int], None] | None
    sides: tuple[str, ...] = WITHIN
    needs: str = ""
    rendezvous: bool = True
    weigh: Callable[[Bench], float] | None = None  # instead of `build`: bytes
    channels: bool = True  # is it about channels whose capacity is chosen?
    figure: Callable[[list[float], int], float] | None = None  # of the stretches that a loop has timed, and the items
    multiple: Callable[[float | None], int] = lambda _: 1  # of the capacity: how many items come out even
    first: int = 200  # items of the first run, from which the next grow
    package: str = ""  # without which it does not exist
    counted: bool = False  # a run is as long as what `figure` counts of it: to start processes takes long

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured at all, or None if it can."""
        return f"{self.package} is not installed" if self.package and find_spec(self.package) is None else None

    @property
    def unit(self) -> str:
        return "bytes" if self.weigh is not None else "ns"

    def lacks(self, side: Side, capacity: float | None) -> str | None:
        """Why it does not exist there, or None if it does."""
        if side.name not in self.sides:
            return f"{self.name} does not exist on {side.name}"
        if capacity == 0 and not self.rendezvous:
            return f"{self.name} does not exist at capacity 0"
        return None

    def capacities(self, wanted: Iterable[T]) -> list[T | None]:
        """Where it is measured: at those that are wanted, or without any."""
        return list(wanted) if self.channels else [None]

    def rounded(self, items: int, capacity: float | None) -> int:
        """As many items as come out even, no fewer."""
        multiple = self.multiple(capacity)
        return -(-items // multiple) * multiple

    def run(self, bench_of: Callable[[], Bench], items: int, side: Side) -> Run:
        """How long `items` take."""
        benches: list[Bench] = []

        def plan() -> Plan:
            benches.append(bench_of())
            assert self.build is not None
            self.build(benches[0], items)
            return benches[0].plan()

        whole = run(side, plan)
        benches[0].close()
        each = whole / items if self.figure is None else self.figure(benches[0].stretches, items)
        return Run(each * items if self.counted else whole, each)
