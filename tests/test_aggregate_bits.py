"""The result of a window is the same to the last bit, whatever it is computed together with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.proof import examples
from tests.support.segments import STYLES, Rows, bits, made, plan_of

from run_task import aggregates as agg
from run_task.aggregates import Aggregate

ALL: list[Aggregate[Any]] = [
    agg.count(),
    agg.first("a"), agg.first("s"), agg.first("fixed"), agg.first("flag"),
    agg.last("a"), agg.last("s"), agg.last("n"),
    agg.min("a"), agg.min("n"), agg.min("flag"),
    agg.max("a"), agg.max("n"),
    agg.sum("a"), agg.sum("n"), agg.sum("flag"),
    agg.mean("a"), agg.mean("n"), agg.mean("flag"),
    agg.var("a"), agg.var("b", ddof=0), agg.var("n", ddof=3),
    agg.std("a"), agg.std("b", ddof=0),
    agg.median("a"), agg.median("n"), agg.median("flag"),
    agg.quantile("a", 0.9), agg.quantile("b", 0.25, interpolation="nearest"),
    agg.quantile("a", 0.3, interpolation="midpoint"),
    agg.ohlc("a"), agg.ohlc("n"),
    agg.vwap("a", "n"),
    agg.corr("a", "b"), agg.corr("a", "n"),
    agg.linear_trend("a"),
    agg.ewm("a", "5s"), agg.ewm("n", "1h"),
    agg.increase("a"), agg.increase("n"),
    agg.rate("a"), agg.rate("n"),
    agg.n_unique("a"), agg.n_unique("s"), agg.n_unique("fixed"), agg.n_unique("flag"),
    agg.argmin("a"), agg.argmax("n"),
    agg.time_weighted_mean("a"),
]  # fmt: skip

CONDITIONS = ("n > 10", "s == 'A' and not flag", "a is not None", "a < b")

CHOSEN = [
    *ALL,
    *(
        Aggregate(each.kernel, where=where, name=f"{each.name} {where}")
        for i, where in enumerate(CONDITIONS)
        for each in ALL[i::3]
    ),
]


def rows_and_windows(
    lengths: list[int], gap: int, seed: int, style: str
) -> tuple[Rows, list[int], list[int], list[tuple[int, int]]]:
    """Rows in windows with so many each, and with rows between two windows that are in none."""
    rng = np.random.default_rng(seed)
    starts: list[int] = []
    ends: list[int] = []
    windows: list[tuple[int, int]] = []
    times: list[NDArray[np.int64]] = []
    at, row = 0, 0
    for length in lengths:
        starts.append(row)
        ends.append(row + length)
        windows.append((at, at + 1000))
        times.append(np.sort(rng.integers(at, at + 1000, length)))
        times.append(np.full(gap, at + 1000))
        at += 1000
        row += length + gap
    return made(np.concatenate([np.empty(0, np.int64), *times]), seed, style), starts, ends, windows


def alone(
    tasks: list[Aggregate[Any]], rows: Rows, start: int, end: int, window: tuple[int, int], to: int
) -> list[str]:
    """The results of one window, whose rows lie somewhere else."""
    part = rows.part(start, end, to)
    results = plan_of(tasks).compute(part.segments([0], [end - start], [window]))
    return bits([each for (each,) in results])


@settings(max_examples=examples(30))
@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 300)), max_size=12),
    st.integers(0, 1),
    st.integers(0, 2**32),
    st.sampled_from(STYLES),
)
def test_a_window_alone_and_among_others(
    lengths: list[int], gap: int, seed: int, style: str
) -> None:
    rows, starts, ends, windows = rows_and_windows(lengths, gap, seed, style)
    found = plan_of(CHOSEN).compute(rows.segments(starts, ends, windows))
    assert [len(each) for each in found] == [len(lengths)] * len(CHOSEN)
    for i, window in enumerate(windows):
        by_itself = alone(CHOSEN, rows, starts[i], ends[i], window, seed % 9)
        assert bits([each[i] for each in found]) == by_itself


@settings(max_examples=examples(40))
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(0, 2**32),
    st.sampled_from(STYLES),
    st.data(),
)
def test_segments_in_any_order_and_overlapping(
    lengths: list[int], seed: int, style: str, data: st.DataObject
) -> None:
    rows, starts, ends, windows = rows_and_windows(lengths, 0, seed, style)
    spots = st.integers(0, len(lengths) - 1)
    several = data.draw(st.lists(st.tuples(spots, spots), min_size=1, max_size=30))
    chosen = [(min(pair), max(pair)) for pair in several]
    begin, stop = [starts[a] for a, _ in chosen], [ends[b] for _, b in chosen]
    spans = [(windows[a][0], windows[b][1]) for a, b in chosen]
    found = plan_of(ALL).compute(rows.segments(begin, stop, spans))
    for i in range(len(chosen)):
        by_itself = alone(ALL, rows, begin[i], stop[i], spans[i], seed % 9)
        assert bits([each[i] for each in found]) == by_itself


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.sampled_from(STYLES))
def test_an_aggregate_alone_and_among_others(seed: int, style: str) -> None:
    rows, starts, ends, windows = rows_and_windows([30, 0, 7], 1, seed, style)
    segments = rows.segments(starts, ends, windows)
    together = plan_of(CHOSEN).compute(segments)
    for task, found in zip(CHOSEN, together):
        (by_itself,) = plan_of([task]).compute(segments)
        assert bits(found) == bits(by_itself), task


def test_many_windows_in_chunks() -> None:
    rng = np.random.default_rng(5)
    lengths = [*rng.integers(0, 700, 400).tolist(), 200_000, *rng.integers(0, 5, 200).tolist()]
    rows, starts, ends, windows = rows_and_windows(lengths, 0, 5, "wild")
    found = plan_of(CHOSEN).compute(rows.segments(starts, ends, windows))
    for i in (0, 1, 57, 191, 399, 400, 401, 600):
        by_itself = alone(CHOSEN, rows, starts[i], ends[i], windows[i], i % 9)
        assert bits([each[i] for each in found]) == by_itself


@pytest.mark.parametrize("where", [None, "n > 1000"])
def test_windows_without_rows(where: str | None) -> None:
    tasks = [Aggregate(each.kernel, where=where) for each in ALL]
    rows, starts, ends, windows = rows_and_windows([0, 0] if where is None else [5, 3], 0, 1, "few")
    for segments in (
        rows.segments(starts, ends, windows),
        rows.segments(starts[:1], ends[:1], windows[:1]),
        rows.segments([], [], []),
    ):
        for task, results in zip(tasks, plan_of(tasks).compute(segments)):
            assert len(results) == len(segments)
            assert set(results) <= (
                {0} if task.name == "count" or "unique" in task.name else {None}
            )
