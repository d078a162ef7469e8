"""How fast Jobsite is, as ratios to its peers measured side by side in one run. `make bench` prints them; no test
asserts them."""

from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True)
class Options:
    """What the command line asks for. `quick` is for trying the benches themselves: its figures mean little."""

    quick: bool = False
    rounds: int = 5  # of each side; they take turns, and the median counts
    rows: int = 1_000_000  # of the cleanup's table


@dataclass(frozen=True)
class Row:
    """One line of the table. `target` says what the ratio (or ours, where there is no reference) is to be."""

    name: str
    ours: float
    reference: float | None
    target: str
    unit: str = ""

    def cells(self) -> list[str]:
        ratio = "" if self.reference is None else f"{self.ours / self.reference:.2f}"
        reference = "" if self.reference is None else f"{_short(self.reference)} {self.unit}".strip()
        return [self.name, f"{_short(self.ours)} {self.unit}".strip(), reference, ratio, self.target]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def turns(rounds: int, *sides):
    """Each side's results over `rounds`, called in turns, every second round in the opposite order."""
    results: dict = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            results[side].append(side())
    return [results[side] for side in sides]


__all__ = ["Options", "Row", "median", "percentile", "turns"]
