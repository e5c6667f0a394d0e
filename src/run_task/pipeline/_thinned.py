"""Numbers over time, as many of them as a picture shows: of a long row, the least and the greatest
number of each part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

MOST_PARTS: Final = 4000
"""Up to how many windows each is kept as it is; beyond, there are half as many parts, or more."""


class ThinnedSeries:
    """Numbers by name, over times in ascending order.

    They lie in parts of one length, in windows, which doubles whenever there are too many.
    """

    def __init__(self) -> None:
        self._length = 1
        self._room = 0  # in the last part
        self._times: list[float] = []  # of the first window of each part
        self._low: dict[str, list[float]] = {}
        self._high: dict[str, list[float]] = {}

    def append(self, time: float, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a time.

        :param time: the time
        :param numbers: by name; NaN: there is none
        """
        if not self._room:
            self._begin(time)
        self._room -= 1
        for name, number in numbers.items():
            if name not in self._low:
                self._low[name] = [math.nan] * len(self._times)
                self._high[name] = [math.nan] * len(self._times)
            low, high = self._low[name], self._high[name]
            low[-1], high[-1] = _least(low[-1], number), _greatest(high[-1], number)

    @property
    def times(self) -> Sequence[float]:
        """The times; each twice where there are parts of several windows."""
        return self._times if self._length == 1 else [t for t in self._times for _ in range(2)]

    @property
    def columns(self) -> Mapping[str, Sequence[float]]:
        """By name, a number for each of :attr:`times`; NaN: there was none."""
        if self._length == 1:
            return self._low
        return {
            name: list(chain.from_iterable(zip(low, self._high[name])))
            for name, low in self._low.items()
        }

    def _begin(self, time: float) -> None:
        if len(self._times) == MOST_PARTS:
            self._length *= 2
            self._times = self._times[::2]
            self._low = {name: _pairs(column, _least) for name, column in self._low.items()}
            self._high = {name: _pairs(column, _greatest) for name, column in self._high.items()}
        self._room = self._length
        self._times.append(time)
        for column in chain(self._low.values(), self._high.values()):
            column.append(math.nan)


def _pairs(column: Sequence[float], of: Callable[[float, float], float]) -> list[float]:
    return [of(one, other) for one, other in zip(column[::2], column[1::2], strict=True)]


def _least(one: float, other: float) -> float:
    return one if one <= other or math.isnan(other) else other


def _greatest(one: float, other: float) -> float:
    return one if one >= other or math.isnan(other) else other
