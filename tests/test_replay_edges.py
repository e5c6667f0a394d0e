"""Which windows a replay gives, and which rows each holds, beside a plain model of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples

from run_task import (
    Align,
    Closed,
    ConfigError,
    Pipeline,
    RunnerConfig,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import JsonLinesSink
from run_task.sources import Batch, paced

Entered = tuple[int, int]
"""A row: its timestamp, and when it arrives."""

Given = dict[tuple[int, ...], list[int]]
"""The timestamps that each window holds."""


def seconds(count: int | None) -> TaskInterval | None:
    return TaskInterval.seconds(count) if count else None


def arrivals(times: Iterable[int]) -> list[Entered]:
    """A row arrives at its own time, or with the one before it."""
    found: list[Entered] = []
    for time in times:
        found.append((time, max([time, *(arrival for _, arrival in found[-1:])])))
    return found


@dataclass(frozen=True)
class Windows:
    """The windows of a stage, in seconds, and what they hold: slowly, and as one reads it."""

    interval: int
    window: int | None = None
    grace: int | None = None
    closed: Closed = Closed.LEFT
    phase: int = 0

    @property
    def length(self) -> int:
        return self.window or self.interval

    def holds(self, end: int, time: int) -> bool:
        start = end - self.length
        return start <= time < end if self.closed is Closed.LEFT else start < time <= end

    def in_time(self, end: int, arrival: int) -> bool:
        due = end + (self.grace or 0)
        return arrival < due if self.closed is Closed.LEFT else arrival <= due

    def held(self, end: int, rows: Iterable[Entered]) -> list[int]:
        return sorted(t for t, arrival in rows if self.holds(end, t) and self.in_time(end, arrival))

    def own_end(self, time: int) -> int:
        """The end of the first window that holds a time."""
        return self.first_end_after(time if self.closed is Closed.LEFT else time - 1)

    def first_end_after(self, time: int) -> int:
        return (time - self.phase) // self.interval * self.interval + self.interval + self.phase

    def given(self, rows: Sequence[Entered], ends: Iterable[int] = ()) -> Given:
        """From the first window that holds a row to the last one.

        :param ends: windows that are given in any case
        """
        times = [time for row in rows for time in row] + [*ends]
        if not times:
            return {}
        first = self.own_end(min(times)) - 2 * self.interval
        around = range(first, max(times) + self.length + 2 * self.interval, self.interval)
        there = [end for end in around if self.held(end, rows)] + [*ends]
        return {
            (end - self.length, end): self.held(end, rows)
            for end in range(min(there), max(there) + 1, self.interval)
        }

    def config(self, **settings: Any) -> RunnerConfig:
        return RunnerConfig(window=seconds(self.window), grace=seconds(self.grace), **settings)


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


@task
def n(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def given_by(results: Iterable[tuple[str, Any]], stage: str = "a") -> Given:
    return {tuple(d.window): d["held"] for name, d in results if name == stage}


def of(times: Iterable[int], windows: Windows, **settings: Any) -> Pipeline:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, closed=windows.closed)
    pipeline = Pipeline("p").source([(time, {"v": 1.0}) for time in times], series)
    interval = TaskInterval.seconds(windows.interval)
    pipeline.stage("a", [held], series, interval, windows.config(**settings))
    return pipeline


TIMES = st.lists(
    st.integers(0, 60) | st.sampled_from([0, 10, 20, 30, 200]), min_size=1, max_size=12
)
STAGES = st.builds(
    Windows,
    st.sampled_from([3, 5, 10]),
    st.sampled_from([None, 10, 20, 31]),
    st.sampled_from([None, 1, 7, 15, 40]),
    st.sampled_from(Closed),
)


@given(TIMES, STAGES)
@example([23, 18, 40], Windows(10, grace=15))
@example([1, 8, 16], Windows(5, 10))
@example([23, -40, 3], Windows(10, grace=15))  # the very late row is in no window
@settings(max_examples=examples(300), deadline=None)
def test_windows_from_the_first_that_holds_a_row_to_the_last(
    times: list[int], windows: Windows
) -> None:
    pipeline = of(times, windows)
    assert given_by(pipeline.replay()) == windows.given(arrivals(times))


@given(TIMES, STAGES, st.none() | st.integers(-20, 90), st.none() | st.integers(-20, 90))
@example([6, 0], Windows(3, grace=7), 3, None)  # the window between has no row before it
@settings(max_examples=examples(200), deadline=None)
def test_a_start_and_an_end_leave_windows_out_and_change_none(
    times: list[int], windows: Windows, start: int | None, end: int | None
) -> None:
    if start is not None and end is not None and start > end:
        start, end = end, start
    whole = windows.given(arrivals(times))
    part = {
        window: rows
        for window, rows in whole.items()
        if (start is None or window[1] > start)
        and (end is None or window[1] < end + windows.interval)
    }
    if start is not None and times:
        # It begins with the first window from the start on, or from the first row on if that is
        # later, or with an earlier one that holds a row.
        begins = max(windows.own_end(times[0]), windows.first_end_after(start))
        first = min([begins, *(end for (_, end), rows in part.items() if rows)])
        part = {window: rows for window, rows in part.items() if window[1] >= first}
    assert given_by(of(times, windows).replay(start, end)) == part


@given(
    TIMES,
    st.sampled_from([None, 10, 31]),
    st.sampled_from([None, 7, 40]),
    st.none() | st.integers(-20, 90),
)
@settings(max_examples=examples(100), deadline=None)
def test_a_grid_that_begins_with_the_first_row_has_no_window_before(
    times: list[int], window: int | None, grace: int | None, start: int | None
) -> None:
    begins = times[0] if start is None else max(times[0], start)
    windows = Windows(10, window, grace, phase=begins)
    found = windows.given(arrivals(times), ends=[begins + 10])
    if start is not None and start > max(times):
        last = max(times) + windows.length
        found = {w: rows for w, rows in found.items() if w[1] <= last}
    expected = {w: rows for w, rows in found.items() if w[1] > begins}
    pipeline = of(times, windows, align=Align.START)
    assert given_by(pipeline.replay(start)) == expected


@given(
    TIMES,
    TIMES,
    st.builds(
        Windows, st.sampled_from([3, 10]), st.sampled_from([None, 20]), st.sampled_from([None, 15])
    ),
    st.builds(
        Windows,
        st.sampled_from([5, 10, 14]),
        st.sampled_from([None, 20, 31]),
        st.sampled_from([None, 4, 15]),
        st.just(Closed.RIGHT),
    ),
)
@settings(max_examples=examples(200), deadline=None)
def test_to_a_stage_that_is_fed_the_results_of_the_other_are_rows(
    times: list[int], others: list[int], up: Windows, down: Windows
) -> None:
    series, beside = (TimeSeries({"v": float}, TimeUnit.SECONDS) for _ in range(2))

    def pipeline(*, live: bool) -> tuple[Pipeline, RecordingSink]:
        made, sink = Pipeline("p"), RecordingSink()
        for rows, into in ((times, series), (others, beside)):
            source = [(time, {"v": 1.0}) for time in rows]
            made.source(paced(source, 1e9, unit=TimeUnit.SECONDS) if live else source, into)
        first = made.stage("up", [held, n], series, TaskInterval.seconds(up.interval), up.config())
        results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        first.into(results).sink(sink)
        made.stage("beside", [held], beside, TaskInterval.seconds(7)).sink(sink)
        interval = TaskInterval.seconds(down.interval)
        made.stage("down", [held], results, interval, down.config()).sink(sink)
        return made, sink

    firsts = [min(times[0], others[0])]
    last = max(*times, *others)
    plain = Windows(7)
    patient = Windows(down.interval, down.window, max(up.grace or 0, down.grace or 0), Closed.RIGHT)

    def own(windows: Windows) -> list[int]:
        """The windows that hold the first row and the last one of all."""
        of_rows = Windows(windows.interval)
        return [of_rows.own_end(firsts[0]), of_rows.own_end(last)]

    of_up = up.given(arrivals(times), own(up))
    # The results of a window enter when it is due, before a window of the other that is due then.
    results = [(end, end + (up.grace or 0)) for _, end in of_up]
    expected = {
        "up": of_up,
        "beside": plain.given(arrivals(others), own(plain)),
        "down": patient.given(results, own(patient)),
    }
    replayed = list(pipeline(live=False)[0].replay())
    for stage, windows in expected.items():
        assert given_by(replayed, stage) == windows, stage


@given(
    TIMES,
    st.builds(
        Windows, st.sampled_from([5, 10]), st.sampled_from([None, 20]), st.sampled_from([None, 15])
    ),
)
@settings(max_examples=examples(100), deadline=None)
def test_data_without_a_past_has_the_same_windows(times: list[int], windows: Windows) -> None:
    @task
    def entered(values: list[int], start: int, end: int) -> list[int]:
        return list(values)

    data = RwLock[list[int]]([])
    pipeline = Pipeline("p").source(
        [(t, t) for t in times], data, lambda values, t: values.append(t)
    )
    pipeline.stage("a", [entered], data, TaskInterval.seconds(windows.interval), windows.config())
    rows = arrivals(times)
    assert {tuple(d.window): d["entered"] for _, d in pipeline.replay()} == {
        window: [time for time, arrival in rows if windows.in_time(window[1], arrival)]
        for window in windows.given(rows)
    }


@given(TIMES, STAGES, STAGES, st.sampled_from([None, None, 1, 3, "1s", "8s"]))
@example([8, 3], Windows(5, grace=5), Windows(5), "1s")
@settings(max_examples=examples(60), deadline=None)
def test_live_gives_the_same_windows(
    times: list[int], windows: Windows, other: Windows, retention: int | str | None
) -> None:
    def make(source: Callable[[Any], Any]) -> tuple[Pipeline, RecordingSink]:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS, retention, windows.closed)
        pipeline, sink = Pipeline("p"), RecordingSink()
        pipeline.source(source([(time, {"v": 1.0}) for time in times]), series)
        interval = TaskInterval.seconds(windows.interval)
        first = pipeline.stage("a", [held, n], series, interval, windows.config()).sink(sink)
        results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        first.into(results)
        lock = RwLock[list[int]]([])
        first.into(lock, lambda values, dataset: values.append(dataset.timestamp))
        interval = TaskInterval.seconds(other.interval)
        pipeline.stage("b", [held], results, interval, other.config()).sink(sink)
        pipeline.stage("c", [entered], lock, interval, other.config()).sink(sink)
        return pipeline, sink

    @task
    def entered(values: list[int], start: int, end: int) -> list[int]:
        return list(values)

    replayed = list(make(list)[0].replay())
    pipeline, sink = make(lambda rows: paced(rows, 1e9, unit=TimeUnit.SECONDS))
    pipeline.run_sync()
    for stage in "abc":
        found = [(tuple(d.window), d.to_dict()) for d in sink.of(stage)]
        assert found == [(tuple(d.window), d.to_dict()) for name, d in replayed if name == stage]


@given(TIMES, STAGES)
@settings(max_examples=examples(60), deadline=None)
def test_a_series_that_has_been_filled_needs_no_source(times: list[int], windows: Windows) -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, closed=windows.closed)
    series.extend(times, v=[1.0] * len(times))
    results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    pipeline = Pipeline("p")
    interval = TaskInterval.seconds(windows.interval)
    pipeline.stage("a", [held, n], series, interval, windows.config()).into(results)
    pipeline.stage("b", [held], results, interval, RunnerConfig())
    expected = windows.given(arrivals(sorted(times)))
    replayed = list(pipeline.replay())
    assert given_by(replayed) == expected
    assert list(given_by(replayed, "b")) == [(e - windows.interval, e) for _, e in expected]
    assert len(results.view()) == 0  # a replay has copies


def test_a_window_before_the_first_row_is_given_only_if_it_holds_a_row() -> None:
    assert given_by(of([23, 24], Windows(10, grace=15)).replay()) == {(20, 30): [23, 24]}
    assert given_by(of([23, 12, 40], Windows(5, grace=30)).replay()) == {
        (10, 15): [12],
        (15, 20): [],  # a gap
        (20, 25): [23],
        (25, 30): [],
        (30, 35): [],
        (35, 40): [],
        (40, 45): [40],
    }


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("size", [1, 2, 20])
def test_a_row_that_is_not_kept_leads_to_no_window(size: int, live: bool) -> None:
    class Rows:
        def batches(self) -> Any:
            times = np.array([8, 3, *([8] * 20)])
            for start in range(0, len(times), size):
                part = times[start : start + size]
                yield Batch(part, {"v": np.ones(len(part))})

        def __iter__(self) -> Any:
            return (row for batch in self.batches() for row in batch.rows())

    series, sink = TimeSeries({"v": float}, TimeUnit.SECONDS, retention="1s"), RecordingSink()
    rows: Any = paced(Rows(), 1e9, unit=TimeUnit.SECONDS) if live else Rows()
    pipeline = Pipeline("p").source(rows, series)
    config = RunnerConfig(grace=TaskInterval.seconds(5))
    pipeline.stage("a", [held], series, TaskInterval.seconds(5), config).sink(sink)
    if live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    assert given_by(sink.results) == {(5, 10): [8] * 21}
    assert pipeline.stats.sources["source-1"].expired == 1


@pytest.mark.parametrize("batched", [False, True])
def test_rows_in_batches_lead_as_rows_do(batched: bool) -> None:
    class Rows:
        def __iter__(self) -> Any:
            return iter([(23, {"v": 1.0}), (18, {"v": 2.0}), (40, {"v": 3.0})])

    class Batches(Rows):
        def batches(self) -> Any:
            yield Batch(np.array([23]), {"v": np.array([1.0])})
            yield Batch(np.array([18, 40]), {"v": np.array([2.0, 3.0])})

    for live in (False, True):
        series, sink = TimeSeries({"v": float}, TimeUnit.SECONDS), RecordingSink()
        rows: Any = Batches() if batched else Rows()
        pipeline = Pipeline("p")
        pipeline.source(paced(rows, 1e9, unit=TimeUnit.SECONDS) if live else rows, series)
        config = RunnerConfig(grace=TaskInterval.seconds(15))
        pipeline.stage("a", [held], series, TaskInterval.seconds(10), config).sink(sink)
        if live:
            pipeline.run_sync()
        else:
            for _ in pipeline.replay():
                pass
        assert given_by(sink.results) == {
            (10, 20): [18],
            (20, 30): [23],
            (30, 40): [],
            (40, 50): [40],
        }


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (24, 23, "start=24 is after end=23"),
        (
            datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
            np.datetime64(30, "s"),
            "start=1970-01-01 00:01:00+00:00 is after end=1970-01-01T00:00:30",
        ),
        pytest.param(10**5000, None, "does not fit in 64 bits of seconds", id="huge"),
        pytest.param(None, -(10**5000), "does not fit in 64 bits of seconds", id="hugely negative"),
    ],
)
def test_an_end_before_the_start_is_refused(
    start: Any, end: Any, told: str, tmp_path: Path
) -> None:
    pipeline = of([23], Windows(10))
    with pytest.raises(ConfigError, match=re.escape(told)):
        pipeline.replay(start, end)
    pipeline.stages[0].sink(sink := JsonLinesSink(tmp_path / "results.jsonl"))
    with pytest.raises(ConfigError, match=re.escape(told)):
        pipeline.resume(sink, start, end)
    sink.close()


def test_the_start_may_be_the_end() -> None:
    pipeline = of([23, 25, 36], Windows(10))
    assert given_by(pipeline.replay(24, 24)) == {(20, 30): [23, 25]}
    assert given_by(pipeline.replay(30, 30)) == {}
