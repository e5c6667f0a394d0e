"""Windows that slide are computed of panes: the same bits wherever a run began, however many
windows there are, and whatever is known of panes; and as exactly as of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.proof import examples
from tests.support.segments import STYLES, Rows, bits, made, plan_of
from tests.test_aggregate_bits import ALL

from run_task import aggregates as agg
from run_task.aggregates import Aggregate
from run_task.aggregates._kernel import MergedKernel
from run_task.tasks._declared import Panes, Segments

PANE = 1000

TASKS = [
    *ALL,
    *(
        Aggregate(each.kernel, where=where, name=f"{each.name} {where}")
        for i, where in enumerate(["n > 10", "n > 1000"])
        for each in ALL[i::2]
    ),
]

EXACT = [each for each in ALL if not isinstance(each.kernel, MergedKernel)]


def grid(
    rows: Rows,
    pane_lengths: Sequence[int],
    number: int,
    windows: Sequence[tuple[int, int]],
    fresh: NDArray[np.bool_] | None = None,
) -> Segments:
    """Rows as segments and panes.

    :param pane_lengths: how many rows each pane has
    :param number: the number of the first pane
    :param windows: the first pane of each window and the one after its last, counted from 0
    :param fresh: which panes are other than before; None: all
    """
    edges = np.cumsum([0, *pane_lengths])
    first, last = ([window[i] for window in windows] for i in (0, 1))
    panes = Panes(
        numbers=(number + np.arange(len(pane_lengths))).astype(np.int64),
        starts=edges[:-1],
        ends=edges[1:],
        first=np.array(first, np.intp),
        last=np.array(last, np.intp),
        fresh=fresh,
    )
    begin, stop = [int(edges[a]) for a in first], [int(edges[b]) for b in last]
    spans = [((number + a) * PANE, (number + b) * PANE) for a, b in windows]
    return rows.segments(begin, stop, spans, panes)


def rows_of(pane_lengths: Sequence[int], number: int, seed: int, style: str) -> Rows:
    """Rows of one key, in panes of so many each."""
    rng = np.random.default_rng(seed)
    time = [
        np.sort(rng.integers(pane * PANE, (pane + 1) * PANE, length))
        for pane, length in enumerate(pane_lengths, number)
    ]
    return made(np.concatenate([np.empty(0, np.int64), *time]), seed, style)


def single(
    tasks: Sequence[Aggregate[Any]],
    rows: Rows,
    pane_lengths: Sequence[int],
    number: int,
    window: tuple[int, int],
) -> list[str]:
    """The results of one window, by a plan that sees its panes only."""
    a, b = window
    cut = np.cumsum([0, *pane_lengths])
    part = rows.part(int(cut[a]), int(cut[b]), 3)
    of = grid(part, pane_lengths[a:b], number + a, [(0, b - a)])
    return bits([each for (each,) in plan_of(tasks).compute(of)])


LENGTHS = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=40)


@st.composite
def sliding(draw: st.DrawFn) -> tuple[list[int], int, list[tuple[int, int]]]:
    """How many rows panes have, the number of the first, and windows of some of them."""
    lengths = draw(LENGTHS)
    number = draw(st.integers(-40, 40))
    edges = st.integers(0, len(lengths))
    pairs = draw(st.lists(st.tuples(edges, edges), min_size=1, max_size=20))
    return lengths, number, [(min(pair), max(pair)) for pair in pairs]


@settings(max_examples=examples(40))
@given(sliding(), st.integers(0, 2**32), st.sampled_from(STYLES))
def test_a_window_alone_and_among_others(
    drawn: tuple[list[int], int, list[tuple[int, int]]], seed: int, style: str
) -> None:
    lengths, number, windows = drawn
    rows = rows_of(lengths, number, seed, style)
    found = plan_of(TASKS).compute(grid(rows, lengths, number, windows))
    for i, window in enumerate(windows):
        assert bits([each[i] for each in found]) == single(TASKS, rows, lengths, number, window)


@settings(max_examples=examples(15))
@given(st.integers(0, 2**32), st.sampled_from(STYLES), st.integers(1, 12))
def test_panes_that_are_known_from_before(seed: int, style: str, width: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = TASKS[seed % 3 :: 3]
    plan = plan_of(tasks)
    lengths = rng.integers(0, 9, 40).tolist()
    rows = rows_of(lengths, 0, seed, style)
    known: set[int] = set()
    begin = 0
    while begin + width < 40:
        stop = min(begin + width + int(rng.integers(0, 4)), 40)
        if rng.random() < 0.3:  # a late row: its pane is another one
            lengths[int(rng.integers(begin, stop))] += 1
            rows = rows_of(lengths, 0, seed, style)
            known.clear()  # all values are drawn anew
        windows = [(a, a + width) for a in range(stop - begin - width + 1)]
        cut = np.cumsum([0, *lengths])
        part, piece = rows.part(int(cut[begin]), int(cut[stop])), lengths[begin:stop]
        fresh = np.array([pane not in known for pane in range(begin, stop)])
        segments = grid(part, piece, begin, windows, fresh)
        anew = grid(part, piece, begin, windows)
        for found, wanted in zip(plan.compute(segments), plan_of(tasks).compute(anew)):
            assert bits(found) == bits(wanted)
        known |= set(range(begin, stop))
        begin += int(rng.integers(1, 6))


def test_panes_that_are_not_fresh_are_not_computed_anew() -> None:
    lengths = [5] * 8
    rows = rows_of(lengths, 0, 1, "plain")
    plan = plan_of([agg.mean("a"), agg.std("a")])
    plan.compute(grid(rows, lengths, 0, [(0, 8)]))
    spoilt = Rows(rows.time, {**rows.columns, "a": rows.columns["a"].copy()})
    spoilt.columns["a"][:35] = math.nan
    fresh = np.arange(8) == 7
    ((mean,), (std,)) = plan.compute(grid(spoilt, lengths, 0, [(0, 8)], fresh))
    assert mean == pytest.approx(rows.columns["a"].mean())
    assert std == pytest.approx(rows.columns["a"].std(ddof=1))


@settings(max_examples=examples(40))
@given(sliding(), st.integers(0, 2**32), st.sampled_from(["plain", "large", "few", "wild"]))
def test_as_good_as_of_the_rows(
    drawn: tuple[list[int], int, list[tuple[int, int]]], seed: int, style: str
) -> None:
    lengths, number, windows = drawn
    rows = rows_of(lengths, number, seed, style)
    found = plan_of(ALL).compute(grid(rows, lengths, number, windows))
    cut = np.cumsum([0, *lengths])
    begin, stop = [int(cut[a]) for a, _ in windows], [int(cut[b]) for _, b in windows]
    spans = [((number + a) * PANE, (number + b) * PANE) for a, b in windows]
    wanted = plan_of(ALL).compute(rows.segments(begin, stop, spans))
    for task, ones, others in zip(ALL, found, wanted):
        if task in EXACT:
            assert bits(ones) == bits(others), task
            continue
        for one, other, a, b in zip(ones, others, begin, stop):
            if not isinstance(one, float) or math.isnan(one):
                assert repr(one) == repr(other), task
                continue
            size = float(np.abs(rows.columns["a"][a:b]).sum())
            if "var" in task.name or "std" in task.name:
                # Though means are near 1e9, and differ by 1e-4 from pane to pane.
                assert one == pytest.approx(other, rel=1e-11, abs=1e-300)
            elif "corr" in task.name:
                assert one == pytest.approx(other, abs=1e-11)
            else:
                assert one == pytest.approx(other, rel=1e-12, abs=1e-14 * size)


def test_moments_of_many_panes_are_as_good_as_exact_ones() -> None:
    lengths = np.random.default_rng(3).integers(0, 60, 60).tolist()
    rows = rows_of(lengths, 7, 3, "large")
    tasks = [agg.var("a", ddof=0), agg.corr("a", "b")]
    ((var,), (corr,)) = plan_of(tasks).compute(grid(rows, lengths, 7, [(0, 60)]))
    a, b = ([Fraction(value) for value in rows.columns[name].tolist()] for name in "ab")
    mean_a, mean_b = sum(a, Fraction()) / len(a), sum(b, Fraction()) / len(b)
    squares_a = sum(((x - mean_a) ** 2 for x in a), Fraction())
    squares_b = sum(((x - mean_b) ** 2 for x in b), Fraction())
    products = sum(((x - mean_a) * (y - mean_b) for x, y in zip(a, b)), Fraction())
    # Their means are near 1e9 and differ by 1e-4: one float each would leave four digits.
    assert var == pytest.approx(float(squares_a / len(a)), rel=1e-14)
    exact = float(products) / math.sqrt(float(squares_a)) / math.sqrt(float(squares_b))
    assert corr == pytest.approx(exact, rel=1e-12)


@settings(max_examples=examples(20))
@given(st.integers(60, 400), st.integers(9, 40), st.integers(0, 2**32), st.sampled_from(STYLES))
def test_ranks_of_windows_that_overlap_much(count: int, width: int, seed: int, style: str) -> None:
    tasks = [
        agg.median("a"), agg.median("n"), agg.median("flag"), agg.quantile("a", 0.9),
        agg.quantile("b", 0.3, interpolation="nearest"), agg.quantile("a", 1.0),
        agg.median("a", where="n > 10"),
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, count // 4).tolist()
    rows = rows_of(lengths, 5, seed, style)
    windows = [(max(end - width, 0), end) for end in range(1, len(lengths) + 1)]
    found = plan_of(tasks).compute(grid(rows, lengths, 5, windows))
    cut = np.cumsum([0, *lengths])
    for i, (a, b) in enumerate(windows):
        part = rows.part(int(cut[a]), int(cut[b]))
        alone = plan_of(tasks).compute(part.segments([0], [len(part)], [(0, 1)]))
        assert bits([each[i] for each in found]) == bits([each for (each,) in alone])


def test_ranks_in_chunks_of_rows() -> None:
    lengths = [700] * 500
    rows = rows_of(lengths, 0, 1, "few")
    windows = [(max(end - 30, 0), end) for end in range(1, 501)]
    (found,) = plan_of([agg.quantile("b", 0.31)]).compute(grid(rows, lengths, 0, windows))
    for i in (0, 40, 170, 260, 499):
        a, b = windows[i]
        values = np.sort(rows.columns["b"][a * 700 : b * 700])
        assert found[i] == np.quantile(values, 0.31) + 0.0
