"""Where windows end and start, by interval, window and alignment; live and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.threads import PATIENCE

from run_task import (
    Align,
    ConfigError,
    Context,
    DataSet,
    MissedTick,
    Pipeline,
    Receiver,
    Runner,
    RunnerConfig,
    Schedule,
    Sender,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    channel,
    task,
)
from run_task.runner._window_grid import WindowGrid, windows_of
from run_task.testing import run_windows
from run_task.time._grid import FixedGrid
from run_task.time._schedule import GridSchedule

SECOND_NS = 10**9


@task
def rows(data: TimeSeriesView, start: int, end: int) -> list[int]:
    found: list[int] = data.in_window.time.tolist()
    return found


def bounds(windows: WindowGrid, n: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    end = windows.first_end
    for _ in range(n):
        found.append((windows.start(end), end))
        end = windows.after(end)
    return found


@pytest.mark.parametrize(
    ("interval", "window", "align", "since", "expected"),
    [
        ("60s", None, Align.EPOCH, 130, [(120, 180), (180, 240)]),
        ("60s+15s", None, Align.EPOCH, 130, [(75, 135), (135, 195)]),
        ("60s+15s", None, Align.EPOCH, 135, [(135, 195), (195, 255)]),
        ("60s", "90s", Align.EPOCH, 130, [(90, 180), (150, 240)]),
        ("60s+30s", "90s", Align.EPOCH, 130, [(60, 150), (120, 210)]),
        ("60s", "10s", Align.EPOCH, 130, [(170, 180), (230, 240)]),
        ("60s+10s", "10s", Align.EPOCH, 130, [(180, 190), (240, 250)]),
        ("60s", None, Align.START, 130, [(130, 190), (190, 250)]),
        ("60s", "90s", Align.START, 130, [(100, 190), (160, 250)]),
        ("60s", "10s", Align.START, 130, [(130, 140), (190, 200)]),
    ],
)
def test_windows_lie_where_interval_window_and_alignment_say(
    interval: str, window: str | None, align: Align, since: int, expected: Sequence[tuple[int, int]]
) -> None:
    length, _, offset = interval.partition("+")
    every = TaskInterval(TaskInterval.parse(length).count, TimeUnit.SECONDS, offset or None)
    long = None if window is None else TaskInterval.parse(window)
    fixed = windows_of(every, long, align, since * SECOND_NS)
    for windows in (fixed, WindowGrid(every, long, align, since * SECOND_NS)):
        assert bounds(windows, 2) == expected
        first, second = expected
        assert windows.fresh(second[1]) == max(second[0], first[1])
        assert windows.first_end_ns == first[1] * SECOND_NS
        assert windows.after_ns(first[1] * SECOND_NS) == second[1] * SECOND_NS
        assert windows.fresh_ns(second[1] * SECOND_NS) == windows.fresh(second[1]) * SECOND_NS
        assert windows.floor_ns(second[1] * SECOND_NS + 5) == second[1] * SECOND_NS
        fresh_ns = windows.fresh_ns(second[1] * SECOND_NS)
        assert windows.last_fresh_at_ns(fresh_ns) == second[1] * SECOND_NS
        assert windows.last_fresh_at_ns(fresh_ns - 1) == first[1] * SECOND_NS
        starts_ns = second[0] * SECOND_NS
        assert windows.last_holding_ns(starts_ns) == max(
            second[1] * SECOND_NS, windows.floor_ns(starts_ns)
        )
        assert windows.last_holding_ns(starts_ns - 1) == first[1] * SECOND_NS


@given(
    missed=st.sampled_from(MissedTick),
    period=st.integers(1, 50),
    start=st.integers(-100, 100),
    length=st.integers(1, 120),
    passed=st.lists(st.integers(0, 200), max_size=30),
)
def test_a_schedule_of_a_grid_hands_out_what_one_of_a_period_does(
    missed: MissedTick, period: int, start: int, length: int, passed: list[int]
) -> None:
    fixed = Schedule(period, start, missed)
    grid = FixedGrid(period, start)
    of_grid = GridSchedule(grid.after, lambda end: end - length, start, missed)
    now = start - 20
    for more in passed:
        now += more
        assert fixed.deadline == of_grid.deadline
        assert fixed.end == of_grid.end
        late = now - fixed.deadline
        if late >= 0:
            begin, end = fixed.take(late)
            assert of_grid.take(late) == (begin + period - length, end)
        assert fixed.skipped == of_grid.skipped


@given(
    period=st.integers(1, 50),
    offset=st.integers(0, 100),
    window=st.none() | st.integers(1, 120),
    align=st.sampled_from(Align),
    since=st.integers(-500, 500),
    stamps=st.lists(st.integers(0, 400), min_size=1, max_size=30),
)
def test_windows_of_a_replay_are_those_of_its_grid(
    period: int,
    offset: int,
    window: int | None,
    align: Align,
    since: int,
    stamps: list[int],
) -> None:
    stamps = sorted(stamps)
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    interval = TaskInterval.seconds(period, offset=timedelta(seconds=offset))
    if align is Align.START:
        interval = TaskInterval.seconds(period)
    length = period if window is None else window
    config = RunnerConfig(
        window=None if window is None else TaskInterval.seconds(window),
        align=align,
        executor="inline",
    )
    pipeline = Pipeline("grid")
    pipeline.source([(stamp, {"value": 1.0}) for stamp in stamps], into=series)
    pipeline.stage("stage", [rows], series, interval, config)
    found = [dataset for _, dataset in pipeline.replay(end=stamps[-1] + 1)]
    first = stamps[0]
    if align is Align.EPOCH:
        end = (first - offset) // period * period + period + offset
    else:
        end = first + min(period, length)
    expected: list[tuple[int, int, list[int]]] = []
    while end - min(period, length) <= stamps[-1]:
        held = [stamp for stamp in stamps if end - length <= stamp < end]
        expected.append((end - length, end, held))
        end += period
    assert [(*d.window, d[rows]) for d in found] == expected


def live(
    context_of: Callable[[Sender[DataSet[Any]]], Context[Any, Any]],
    clock: VirtualClock,
    due: Sequence[int],
) -> list[DataSet[Any]]:
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(100)
    sender, receiver = ends
    found: list[DataSet[Any]] = []
    with Runner(context_of(sender), clock=clock):
        for end in due:
            clock.advance_to(end * SECOND_NS)
            found.append(receiver.recv(PATIENCE))
    return found


@pytest.mark.parametrize(("window", "expected"), [(None, 60), (10, 10), (90, 90)])
def test_a_runner_ticks_at_the_offset(window: int | None, expected: int) -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    config = RunnerConfig(window=None if window is None else TaskInterval.seconds(window))
    interval = TaskInterval.seconds(60, offset="15s")
    found = live(
        lambda sender: Context(
            tasks=[rows], data=series, interval=interval, sender=sender, config=config
        ),
        VirtualClock(130 * SECOND_NS),
        [135, 195, 255],
    )
    assert [tuple(d.window) for d in found] == [(end - expected, end) for end in (135, 195, 255)]


def test_missed_windows_of_a_sample() -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(1)
    context: Context[Any, Any] = Context(
        tasks=[rows],
        data=series,
        interval=TaskInterval.seconds(60, offset="10s"),
        sender=ends[0],
        config=RunnerConfig(window=TaskInterval.seconds(10)),
    )
    assert [tuple(d.window) for d in run_windows(context, 2, start=65)] == [(60, 70), (120, 130)]


def test_rows_between_samples_are_in_no_window() -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("sample")
    pipeline.source([(stamp, {"value": 0.0}) for stamp in range(0, 130, 7)], into=series)
    pipeline.stage(
        "sample",
        [rows],
        series,
        TaskInterval.seconds(60),
        RunnerConfig(window=TaskInterval.seconds(20)),
    )
    found = [(tuple(d.window), d[rows]) for _, d in pipeline.replay()]
    assert found == [((40, 60), [42, 49, 56]), ((100, 120), [105, 112, 119])]


def test_intervals_that_are_offset_say_so() -> None:
    interval = TaskInterval.hours(8, offset="17h")
    assert interval.offset == 60
    assert interval == TaskInterval.hours(8, offset=timedelta(hours=1))
    assert interval != TaskInterval.hours(8)
    assert hash(interval) == hash(TaskInterval.minutes(480, offset="60m"))
    assert repr(interval) == "TaskInterval.minutes(480, offset='1h')"
    before = TaskInterval.hours(24, offset="-8h")
    assert before == TaskInterval.hours(24, offset="16h")
    assert before == TaskInterval.hours(24, offset=timedelta(hours=-32))
    assert eval(repr(before)) == before
    assert TaskInterval.seconds(60, offset="0s") == TaskInterval.seconds(60)
    assert sorted([interval, TaskInterval.hours(8)]) == [TaskInterval.hours(8), interval]
    with pytest.raises(ConfigError, match="offset='30s' is no whole number of minutes"):
        TaskInterval.hours(1, offset="30s")
    with pytest.raises(ConfigError, match="offset='soon'"):
        TaskInterval.seconds(1, offset="soon")
    as_seconds = interval.with_unit(TimeUnit.SECONDS)
    assert as_seconds == TaskInterval.seconds(8 * 3600, offset="1h")
    with pytest.raises(ConfigError, match="no whole number of minutes"):
        TaskInterval.seconds(60, offset="15s").with_unit(TimeUnit.MINUTES)


def test_a_grid_that_begins_with_the_runner_has_no_offset() -> None:
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(1)
    with pytest.raises(ConfigError, match="leave one of them out"):
        Context(
            tasks=[rows],
            data=TimeSeries({"value": float}, TimeUnit.SECONDS),
            interval=TaskInterval.seconds(60, offset="15s"),
            sender=ends[0],
            config=RunnerConfig(align=Align.START),
        )


@pytest.mark.parametrize("setting", ["window", "grace"])
def test_lengths_have_no_offset(setting: str) -> None:
    settings: dict[str, Any] = {setting: TaskInterval.seconds(60, offset="15s")}
    with pytest.raises(ConfigError, match="say by the interval where windows end"):
        RunnerConfig(**settings)
