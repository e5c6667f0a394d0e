"""Figures: medians of repeats, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """The median of repeats, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:,.2f} ({self.low:,.2f} to {self.high:,.2f})"


def side_by_side(
    measured: dict[str, Callable[[], float]], repeats: int
) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Measure everything in turn, again and again, so that a noisy moment hits all alike.

    :param measured: what to call; the first is the floor
    :return: the figures, and their ratios to the floor of the same round
    """
    rounds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, measure in measured.items():
            rounds[name].append(measure())
    floor = next(iter(rounds.values()))
    ratios = {
        name: Figure.of([value / base for value, base in zip(values, floor)])
        for name, values in rounds.items()
    }
    return {name: Figure.of(values) for name, values in rounds.items()}, ratios
