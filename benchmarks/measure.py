"""Figures: medians of repeats, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Rounds = dict[str, list[float]]
"""What each system took, round by round."""


@dataclass(frozen=True)
class Figure:
    """The median of repeats, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], bases: Sequence[float]) -> Figure:
        """Each value over what was measured in the same round."""
        return cls.of([value / base for value, base in zip(values, bases)])

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """Three digits, and no fewer than there are before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def side_by_side(measured: Mapping[str, Callable[[], float]], repeats: int) -> Rounds:
    """Measure everything in turn, again and again, so that a noisy moment hits all alike."""
    rounds: Rounds = {name: [] for name in measured}
    for _ in range(repeats):
        for name, measure in measured.items():
            rounds[name].append(measure())
    return rounds
