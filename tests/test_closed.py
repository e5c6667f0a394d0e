"""A task's view ends with its window, and a series says which end of a window belongs to it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.blocks import SharedBlock

import run_task
from run_task import (
    Closed,
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    Receiver,
    Runner,
    RunnerConfig,
    Sender,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    channel,
    task,
)
from run_task.data import Windowed
from run_task.testing import run_windows

SECONDS = TimeUnit.SECONDS


def counted(closed: Closed, stamps: Sequence[int] = range(10), **options: Any) -> TimeSeries:
    """A series whose rows hold their own timestamps."""
    series = TimeSeries({"at": int}, SECONDS, closed=closed, **options)
    series.extend(np.array(stamps, np.int64), at=np.array(stamps, np.int64))
    return series


def at(view: TimeSeriesView) -> list[int]:
    times = view.time.tolist()
    assert view["at"].tolist() == times
    return list(map(int, times))


@task
def seen(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return at(view)


@task
def within(view: TimeSeriesView, start: int, end: int) -> list[int]:
    window = view.in_window
    assert window is view.in_window
    assert window is view.between(start, end)
    return at(window)


@pytest.mark.parametrize(
    ("closed", "from_3_to_6", "until_6"),
    [
        (Closed.LEFT, [3, 4, 5], [0, 1, 2, 3, 4, 5]),
        (Closed.RIGHT, [4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_bounds_of_a_window(closed: Closed, from_3_to_6: list[int], until_6: list[int]) -> None:
    series = counted(closed)
    view = series.view()
    assert series.closed is view.closed is closed
    assert at(view.between(3, 6)) == from_3_to_6
    own = view.for_window(3, 6)
    assert at(own) == until_6
    assert at(own.in_window) == from_3_to_6
    assert own.in_window is own.in_window
    assert at(view) == list(range(10))  # it stays as it was


@pytest.mark.parametrize("closed", Closed)
def test_rows_of_one_timestamp_are_on_one_side_of_a_bound(closed: Closed) -> None:
    view = counted(closed, [3, 3, 6, 6, 6, 7]).view().for_window(3, 6)
    inside = [3, 3] if closed is Closed.LEFT else [6, 6, 6]
    assert at(view.in_window) == inside
    assert len(view) == (2 if closed is Closed.LEFT else 5)


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("stamps", [[], [-5], [100], [-5, 100]])
def test_windows_without_rows(closed: Closed, stamps: list[int]) -> None:
    view = counted(closed, stamps).view().for_window(3, 6)
    assert at(view.in_window) == []
    assert at(view) == [stamp for stamp in stamps if stamp < 0]


@pytest.mark.parametrize("closed", Closed)
def test_between_at_the_ends_of_64_bits(closed: Closed) -> None:
    low, high = -(2**63), 2**63 - 1
    view = counted(closed, [low, 0, high]).view()
    left = closed is Closed.LEFT
    assert at(view.between(low, high)) == ([low, 0] if left else [0, high])
    assert at(view.for_window(low, high)) == ([low, 0] if left else [low, 0, high])


def test_only_a_view_of_a_task_has_a_window() -> None:
    series = counted(Closed.LEFT)
    for view in (
        series.view(),
        series.view().between(1, 2),
        series.view().for_window(1, 2).between(1, 2),
    ):
        with pytest.raises(ConfigError, match=re.escape("take between(start, end)")):
            _ = view.in_window
    with series.read() as view, pytest.raises(ConfigError, match="has no window"):
        _ = view.in_window


@pytest.mark.parametrize("closed", ["right", True, None, "both"])
def test_closed_is_checked(closed: Any) -> None:
    with pytest.raises(ConfigError, match=r"Closed\.LEFT"):
        TimeSeries({"at": int}, closed=closed)


def test_left_is_the_default_and_right_is_told() -> None:
    assert TimeSeries({"at": int}).closed is Closed.LEFT
    assert "right" not in repr(TimeSeries({"at": int}))
    assert "closed on the right" in repr(counted(Closed.RIGHT))
    assert run_task.Closed is Closed


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("shared", [False, True])
def test_a_pickled_view_keeps_its_window(closed: Closed, *, shared: bool) -> None:
    series = counted(closed)
    if shared:
        series.relocate(SharedBlock)
    view = series.view().for_window(3, 6)
    copy = pickle.loads(pickle.dumps(view))
    assert copy.closed is closed
    assert at(copy) == at(view)
    assert at(copy.in_window) == at(view.in_window)
    plain = pickle.loads(pickle.dumps(series.view()))
    with pytest.raises(ConfigError, match="has no window"):
        _ = plain.in_window
    assert at(plain.between(3, 6)) == at(view.in_window)


@given(
    st.sampled_from(TimeUnit),
    st.sampled_from(TimeUnit),
    st.sampled_from(Closed),
    st.lists(st.integers(-5, 5), max_size=8),
    st.tuples(st.integers(-300, 300), st.integers(1, 300)),
)
def test_windows_in_another_unit_are_cut_to_the_nanosecond(
    own: TimeUnit, unit: TimeUnit, closed: Closed, stamps: list[int], window: tuple[int, int]
) -> None:
    # Stamps and bounds on the grid of the coarser unit, and just beside it.
    coarser = max(own.nanos, unit.nanos)
    stamps = sorted(s * (coarser // own.nanos) + beside for s in stamps for beside in (-1, 0, 1))
    start = window[0]
    if unit.nanos < coarser:
        start = start // 10 * (coarser // unit.nanos) + start % 3
    end = start + window[1]
    series = TimeSeries({"v": int}, own, closed=closed)
    series.extend(stamps, v=stamps)
    view = series.windowed(unit)(series.view(), start, end)
    left = closed is Closed.LEFT

    def until(stamp: int, bound: int) -> bool:
        at_ns, bound_ns = stamp * own.nanos, bound * unit.nanos
        return at_ns < bound_ns if left else at_ns <= bound_ns

    assert view["v"].tolist() == [s for s in stamps if until(s, end)]
    inside = [s for s in stamps if until(s, end) and not until(s, start)]
    assert view.in_window["v"].tolist() == inside


# What tasks see


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_task_sees_nothing_that_comes_after_its_window(closed: Closed, executor: Any) -> None:
    context, _, _ = (
        ContextBuilder(counted(closed))
        .with_tasks([seen, within])
        .with_interval(TaskInterval.seconds(3))
        .with_config(RunnerConfig(executor=executor, workers=2, window=TaskInterval.seconds(6)))
        .build()
    )
    left = closed is Closed.LEFT
    datasets = run_windows(context, 4, start=0)
    assert [dataset.window for dataset in datasets] == [(-3, 3), (0, 6), (3, 9), (6, 12)]
    got = [dataset["within"] for dataset in datasets]
    if left:
        assert got == [[0, 1, 2], [0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8], [6, 7, 8, 9]]
    else:
        assert got == [[0, 1, 2, 3], [1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9], [7, 8, 9]]
    for dataset in datasets:
        assert dataset["seen"] == list(range(min(10, dataset.timestamp + (not left))))


def test_a_window_that_is_computed_late_sees_no_more_than_one_in_time() -> None:
    # The clock jumps over three windows at once, whose rows are all there by then.
    series = TimeSeries({"at": int}, SECONDS)
    clock = VirtualClock(100 * SECONDS.nanos)
    context, receiver, _ = (
        ContextBuilder(series).with_task(seen).with_interval(TaskInterval.seconds(10)).build()
    )
    with Runner(context, clock=clock):
        for stamp in range(100, 140):
            series.append(stamp, at=stamp)
        clock.advance_to(135 * SECONDS.nanos)
        got = [receiver.recv(10.0)["seen"] for _ in range(3)]
    assert got == [list(range(100, end)) for end in (110, 120, 130)]


def test_a_view_taken_before_a_late_row_came_does_not_have_it() -> None:
    series = counted(Closed.LEFT)
    before = series.view().for_window(3, 6)
    series.append(4, at=4)
    assert at(before.in_window) == [3, 4, 5]
    assert at(series.view().for_window(3, 6).in_window) == [3, 4, 4, 5]


def test_data_of_ones_own_may_be_bounded_by_windows() -> None:
    class Log:
        """Lines with times, newest last, in milliseconds."""

        def __init__(self) -> None:
            self.lines = [(1_000, "a"), (2_500, "b"), (4_000, "c")]

        def read(self, timeout: float | None = None) -> Any:
            return run_task.Atom(self.lines).read()

        def windowed(self, unit: TimeUnit) -> Any:
            assert unit is SECONDS

            def bound(lines: list[tuple[int, str]], start: int, end: int) -> list[str]:
                return [text for at, text in lines if at < end * 1_000]

            return bound

    log = Log()
    assert isinstance(log, Windowed)

    @task
    def lines(texts: list[str], start: int, end: int) -> str:
        return "".join(texts)

    ends: tuple[Sender[DataSet[str]], Receiver[DataSet[str]]] = channel(1)
    context = Context(tasks=[lines], data=log, interval=TaskInterval.seconds(2), sender=ends[0])
    assert [dataset["lines"] for dataset in run_windows(context, 3)] == ["a", "ab", "abc"]
