"""Aggregates of a user's own."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.segments import STYLES, bits, plan_of
from tests.test_aggregate_bits import alone, rows_and_windows

from run_task import ConfigError
from run_task import aggregates as agg
from run_task.aggregates import Aggregate, ColumnKernel, Kernel, SegmentedRows


@dataclass(frozen=True)
class Skew(ColumnKernel[float]):
    function = "skew"

    def results(self, rows: SegmentedRows) -> Any:
        off = rows.centred(self.column)
        squares = rows.sum(off * off) / rows.counts
        return rows.sum(off * off * off) / rows.counts / (squares * np.sqrt(squares))


@dataclass(frozen=True)
class Picky(Kernel[int]):
    """How many rows there are, of which it takes no more than some."""

    most: int

    @property
    def name(self) -> str:
        return "picky"

    @property
    def columns(self) -> Sequence[str]:
        return ()

    def results(self, rows: SegmentedRows) -> Sequence[int]:
        if rows.counts.max() > self.most:
            raise ValueError(f"more than {self.most}")
        found: list[int] = rows.counts.tolist()
        return found


@dataclass(frozen=True)
class TooFew(Picky):
    def results(self, rows: SegmentedRows) -> Sequence[int]:
        return [1] * (rows.count + 1)


def test_it_is_a_value_as_others_are() -> None:
    task = Aggregate(Skew("a"), where="n > 0")
    assert task.name == "a_skew"
    assert repr(task) == "skew('a', where='n > 0')"
    assert repr(task.named("x")) == "skew('a', where='n > 0').named('x')"
    assert pickle.loads(pickle.dumps(task)) == task
    assert task != Aggregate(Skew("b"), where="n > 0")


def test_its_columns_are_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"skew\('z'\): there is no column 'z'"):
        plan_of([Aggregate(Skew("z"))])
    with pytest.raises(ConfigError, match=r"skew\('s'\): column 's' holds texts"):
        plan_of([Aggregate(Skew("s"))])


@settings(max_examples=examples(40))
@given(st.lists(st.integers(0, 90), max_size=9), st.integers(0, 2**32), st.sampled_from(STYLES))
def test_the_same_bits_alone_and_among_others(lengths: list[int], seed: int, style: str) -> None:
    tasks = [Aggregate(Skew("a")), Aggregate(Skew("a"), where="n > 10").named("some")]
    rows, starts, ends, windows = rows_and_windows(lengths, 1, seed, style)
    found = plan_of(tasks).compute(rows.segments(starts, ends, windows))
    for i, window in enumerate(windows):
        by_itself = alone(tasks, rows, starts[i], ends[i], window, seed % 9)
        assert bits([each[i] for each in found]) == by_itself


def test_what_it_computes() -> None:
    rows, starts, ends, windows = rows_and_windows([50], 0, 1, "plain")
    ((found,),) = plan_of([Aggregate(Skew("a"))]).compute(rows.segments(starts, ends, windows))
    off = rows.columns["a"] - rows.columns["a"].mean()
    assert found == pytest.approx((off**3).mean() / (off**2).mean() ** 1.5)


def test_a_window_at_fault_fails_alone() -> None:
    rows, starts, ends, windows = rows_and_windows([3, 9, 0, 2, 8], 0, 1, "plain")
    tasks = [Aggregate(Picky(5)), agg.count()]
    picky, count = plan_of(tasks).compute(rows.segments(starts, ends, windows))
    assert [picky[i] for i in (0, 2, 3)] == [3, None, 2]
    for i in (1, 4):
        assert isinstance(picky[i].error, ValueError)
        assert str(picky[i].error) == "more than 5"
    assert count == [3, 9, 0, 2, 8]


@dataclass(frozen=True)
class Leaving(Picky):
    """Ends the program, as it would, where there are too many rows."""

    def results(self, rows: SegmentedRows) -> Sequence[int]:
        try:
            return super().results(rows)
        except ValueError:
            sys.exit(3)


def test_what_leaves_costs_its_own_window() -> None:
    rows, starts, ends, windows = rows_and_windows([3, 9, 2], 0, 1, "plain")
    tasks = [Aggregate(Leaving(5)), agg.count()]
    leaving, count = plan_of(tasks).compute(rows.segments(starts, ends, windows))
    assert leaving[::2] == [3, 2]
    assert isinstance(leaving[1].error, SystemExit)
    assert count == [3, 9, 2]


def test_as_many_results_as_segments_or_it_is_told() -> None:
    rows, starts, ends, windows = rows_and_windows([3, 9], 0, 1, "plain")
    (found,) = plan_of([Aggregate(TooFew(1))]).compute(rows.segments(starts, ends, windows))
    assert [str(each.error) for each in found] == [
        "TooFew(1) gave 2 results for 1 segments: results(rows) gives one for each"
    ] * 2
