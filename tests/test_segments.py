"""The rows that declared tasks are computed over."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from run_task import Closed, TimeSeries, TimeUnit
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._pane_counts import PaneCounts
from run_task.data.series._sliding_keys import SlidingKeys
from run_task.runner._segments import segments_by_key, segments_of_windows

PANE = 10


@given(
    st.lists(
        st.lists(st.integers(-60, 12), max_size=12),  # how far rows lie from the newest window
        min_size=1,
        max_size=25,
    ),
    st.one_of(st.none(), st.integers(1, 20)),
    st.integers(1, 4),
    st.sampled_from(Closed),
)
def test_a_pane_that_is_not_fresh_has_the_rows_that_it_had(
    steps: list[list[int]], retention: int | None, length: int, closed: Closed
) -> None:
    series = TimeSeries({"a": int}, TimeUnit.SECONDS, retention=retention, closed=closed)
    seen, number, before = PaneCounts(), 0, dict[int, list[int]]()
    for step, offsets in enumerate(steps):
        end = PANE * (length + step)
        for offset in offsets:
            number += 1
            series.append(end + offset, a=number)  # no two rows are alike
        starts, ends = np.array([end - PANE * length]), np.array([end])
        view = series.view().for_window(int(starts[0]), end)
        segments = segments_of_windows(view, starts, ends, PANE, seen)
        panes = segments.panes
        assert panes is not None
        assert panes.fresh is not None
        rows = segments.column("a")
        found = {
            int(pane): rows[first:last].tolist()
            for pane, first, last in zip(panes.numbers, panes.starts, panes.ends)
        }
        for pane, fresh in zip(panes.numbers.tolist(), panes.fresh.tolist()):
            assert fresh or before[pane] == found[pane]
            first, last = pane * PANE, (pane + 1) * PANE
            assert found[pane] == view.between(first, last)["a"].tolist()
        assert rows[segments.starts[0] : segments.ends[0]].tolist() == view.in_window["a"].tolist()
        before = found


def test_late_rows_make_their_own_pane_fresh_and_no_other() -> None:
    series = TimeSeries({"a": int}, TimeUnit.SECONDS)
    series.extend(np.arange(100), a=np.arange(100))
    seen = PaneCounts()

    def fresh(end: int) -> list[int]:
        view = series.view().for_window(end - 50, end)
        starts, ends = np.array([end - 50]), np.array([end])
        panes = segments_of_windows(view, starts, ends, PANE, seen).panes
        assert panes is not None
        assert panes.fresh is not None
        numbers: list[int] = panes.numbers[panes.fresh].tolist()
        return numbers

    assert fresh(80) == [3, 4, 5, 6, 7]
    assert fresh(90) == [8]
    series.append(65, a=1)
    assert fresh(100) == [6, 9]
    assert fresh(100) == []


@given(
    st.lists(st.tuples(st.integers(0, 59), st.sampled_from("abc")), max_size=40),
    st.sampled_from(Closed),
)
def test_the_panes_of_a_key_hold_its_rows(rows: list[tuple[int, str]], closed: Closed) -> None:
    series = TimeSeries({"k": str, "a": int}, TimeUnit.SECONDS, key="k", closed=closed)
    for number, (time, key) in enumerate(rows):
        series.append(time, k=key, a=number)
    keyed = KeyedView(series.view().for_window(10, 60), "k", sliding=SlidingKeys("k", PANE))
    keyed.include(["b"])
    segments = segments_by_key(keyed, keyed.known)
    panes = segments.by_key
    assert panes is not None
    assert panes.rows.window_starts.tolist() == [1, 2, 3, 4, 5]
    values = segments.column("a")
    for place, (key, view) in enumerate(zip(keyed.keys, keyed.views())):
        start, end = segments.starts[place], segments.ends[place]
        assert values[start:end].tolist() == view.in_window["a"].tolist()
        of_panes = panes.rows.column("a")
        slot = panes.places[place]
        assert (slot < 0) == (not len(view.in_window)), key
        edges = panes.rows.starts.tolist(), panes.rows.ends.tolist()
        for pane, first, last in zip(range(1, 6), *edges):
            its = of_panes[first:last][panes.slots(first, last) == slot].tolist()
            assert its == view.between(pane * PANE, (pane + 1) * PANE)["a"].tolist()
