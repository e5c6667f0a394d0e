"""Rows of made-up series, as declared tasks get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run_task import TimeUnit
from run_task.aggregates import Aggregate
from run_task.tasks._declared import Panes, Plan, Segments

TEXTS = ("A", "B", "C")

COLUMNS: Mapping[str, np.dtype[Any]] = {
    "a": np.dtype(float),
    "b": np.dtype(float),
    "n": np.dtype(int),
    "flag": np.dtype(bool),
    "s": np.dtype(str),
    "fixed": np.dtype("U2"),
}


class Rows:
    """Rows of one series, in memory of their own.

    :param time: the timestamps
    :param columns: the values of each column of :data:`COLUMNS`; of ``s``, codes of :data:`TEXTS`
    """

    def __init__(self, time: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> None:
        self.time = time
        self.columns = columns

    def __len__(self) -> int:
        return len(self.time)

    def part(self, start: int, end: int, offset: int = 0) -> Rows:
        """Some rows, copied to memory that begins elsewhere.

        :param offset: by how many values it is moved
        """

        def copied(values: NDArray[Any]) -> NDArray[Any]:
            memory = np.empty(offset + end - start, values.dtype)
            memory[offset:] = values[start:end]
            return memory[offset:]

        return Rows(copied(self.time), {k: copied(v) for k, v in self.columns.items()})

    def segments(
        self,
        starts: Sequence[int],
        ends: Sequence[int],
        windows: Sequence[tuple[int, int]],
        panes: Panes | None = None,
    ) -> Segments:
        """Some of the rows as segments."""
        return Segments(
            times=lambda: self.time,
            column=self.columns.__getitem__,
            texts=lambda name: TEXTS,
            spans=lambda: (np.array(starts, np.intp), np.array(ends, np.intp)),
            window_starts=np.array([start for start, _ in windows], np.int64),
            window_ends=np.array([end for _, end in windows], np.int64),
            unit=TimeUnit.MILLIS,
            panes=panes,
        )


def made(time: NDArray[np.int64], seed: int, style: str) -> Rows:
    """Rows with these timestamps.

    :param seed: of what is drawn
    :param style: what the floats are like
    """
    rng = np.random.default_rng(seed)
    count = len(time)

    def floats() -> NDArray[np.float64]:
        if style == "plain":
            return rng.normal(100, 5, count)
        if style == "large":  # means that one float cannot tell from each other
            return 1e9 + rng.normal(0, 1e-3, count)
        if style == "wild":
            return rng.normal(0, 1, count) * 10.0 ** rng.integers(-12, 12, count)
        if style == "few":  # zeros of either sign, and many that are equal
            return rng.choice([0.0, -0.0, 1.0, 1.0, -2.5], count)
        assert style == "odd"
        values = rng.normal(0, 1, count)
        values[rng.random(count) < 0.1] = np.nan
        values[rng.random(count) < 0.02] = np.inf
        return values

    return Rows(
        time,
        {
            "a": floats(),
            "b": floats(),
            "n": rng.integers(-5, 50, count),
            "flag": rng.random(count) < 0.5,
            "s": rng.integers(0, len(TEXTS), count).astype(np.int32),
            "fixed": rng.choice(np.array(["x", "yy"], "U2"), count),
        },
    )


STYLES = ("plain", "large", "wild", "few", "odd")


def plan_of(aggregates: Sequence[Aggregate[Any]]) -> Plan:
    """The plan of some aggregates of :data:`COLUMNS`."""
    return aggregates[0].planner(aggregates, COLUMNS)


def bits(results: Sequence[Any]) -> list[str]:
    """Results such that those are equal that are the same to the last bit; any NaN is like another.

    :param results: plain Python values
    """
    for result in results:
        flat: Any = result
        if not isinstance(result, tuple):
            flat = (result,)
        assert {type(value) for value in flat} <= {float, int, bool, str, type(None)}, result
    return [repr(result) for result in results]
