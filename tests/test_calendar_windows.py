"""Windows of the calendar: replayed, resumed, live, missed, sliding and sampled."""

from __future__ import annotations

import importlib
import itertools
import pickle
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.threads import PATIENCE

from run_task import (
    Align,
    CalendarInterval,
    Closed,
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    MissedTick,
    Pipeline,
    Receiver,
    Runner,
    RunnerConfig,
    RwLock,
    Sender,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    Window,
    channel,
    task,
)
from run_task.sinks import CallbackSink, JsonLinesSink
from run_task.sources import Batch, paced
from run_task.testing import run_windows

pd: Any = importlib.import_module("pandas")  # Any, since it comes without types

BERLIN = "Europe/Berlin"
HOUR = 3600
DAY = CalendarInterval.days(1, zone=BERLIN)
THREE_DAYS = CalendarInterval.days(3, zone=BERLIN)
WEEK = CalendarInterval.weeks(1, zone=BERLIN)
SEVEN_DAYS = CalendarInterval.days(7, zone=BERLIN)
MONTH = CalendarInterval.months(1, zone=BERLIN)
SIX_HOURS = TaskInterval.seconds(6 * HOUR)
TRADING_DAY = CalendarInterval.days(1, zone="America/New_York", offset="17h")


def seconds(text: str, zone: str = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def shown(window: Sequence[int], zone: str = BERLIN) -> tuple[str, ...]:
    return tuple(f"{datetime.fromtimestamp(time, ZoneInfo(zone)):%m-%d %H:%M}" for time in window)


@task
def rows(data: TimeSeriesView, start: int, end: int) -> int:
    return len(data.in_window)


@task
def length(data: Any, start: int, end: int) -> int:
    return end - start


class Columns:
    """Rows as a source of columns."""

    def __init__(self, given: Sequence[tuple[int, dict[str, float]]]) -> None:
        self._given = given

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        return iter(self._given)

    def batches(self) -> Iterator[Batch]:
        times = np.array([at for at, _ in self._given], np.int64)
        yield Batch(times, {"value": np.ones(len(times))})


def hourly(since: str, until: str, zone: str = BERLIN) -> list[tuple[int, dict[str, float]]]:
    return [(at, {"value": 1.0}) for at in range(seconds(since, zone), seconds(until, zone), HOUR)]


def pipeline_of(
    given: Any,
    interval: Any,
    *,
    window: Any = None,
    closed: Closed = Closed.LEFT,
    unit: TimeUnit = TimeUnit.SECONDS,
    sink: Any = None,
    **config: Any,
) -> Pipeline:
    series = TimeSeries({"value": float}, unit, closed=closed)
    pipeline = Pipeline("calendar")
    pipeline.source(given, into=series)
    settings = RunnerConfig(window=window, executor="inline", **config)
    stage = pipeline.stage("days", [rows], series, interval, settings)
    if sink is not None:
        stage.sink(sink)
    return pipeline


def counted(dataset: DataSet[Any]) -> tuple[int, int, int]:
    return dataset.window.start, dataset.window.end, dataset[rows]


def replayed(pipeline: Pipeline) -> list[tuple[int, int, int]]:
    return [counted(dataset) for _, dataset in pipeline.replay()]


@pytest.mark.parametrize(
    ("since", "until", "counts"),
    [
        ("2024-03-30", "2024-04-02", [24, 23, 24]),
        ("2024-10-26", "2024-10-29", [24, 25, 24]),
    ],
)
def test_a_replay_has_days_of_23_and_of_25_hours(since: str, until: str, counts: list[int]) -> None:
    found = replayed(pipeline_of(hourly(since, until), DAY))
    assert [count for _, _, count in found] == counts
    assert [(end - start) // HOUR for start, end, _ in found] == counts
    assert found[0][0] == seconds(since)
    assert found[-1][1] == seconds(until)
    assert [end for _, end, _ in found[:-1]] == [start for start, _, _ in found[1:]]


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_a_replay_of_trading_days_holds_what_polars_holds(closed: Closed, zone: str) -> None:
    given = hourly("2024-01-01", "2025-01-01", zone)
    frame = pl.DataFrame({"time": [at for at, _ in given]}).with_columns(
        pl.from_epoch("time").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    )
    held = frame.group_by_dynamic(
        "time",
        every="1d",
        offset="17h",
        closed="left" if closed is Closed.LEFT else "right",
    ).agg(pl.len())
    interval = CalendarInterval.days(1, zone=zone, offset="17h")
    found = replayed(pipeline_of(given, interval, closed=closed))
    assert [start for start, _, _ in found] == held["time"].dt.epoch("s").to_list()
    assert [count for _, _, count in found] == held["len"].to_list()


@given(
    make=st.sampled_from([CalendarInterval.days, CalendarInterval.weeks, CalendarInterval.months]),
    zone=st.sampled_from([BERLIN, "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca"]),
    count=st.integers(1, 3),
    stamps=st.lists(st.integers(1_300_000_000, 1_340_000_000), min_size=1, max_size=20),
    right=st.booleans(),
)
@settings(max_examples=examples(60), deadline=None)
def test_windows_of_a_replay_tile_time_and_hold_each_row_once(
    make: Callable[..., CalendarInterval],
    zone: str,
    count: int,
    stamps: list[int],
    right: bool,
) -> None:
    interval = make(count, zone=zone)
    closed = Closed.RIGHT if right else Closed.LEFT
    stamps = sorted(stamps)
    given = [(stamp, {"value": 0.0}) for stamp in stamps]
    found = replayed(pipeline_of(given, interval, closed=closed))
    grid = interval.grid()
    assert found[0][0] == grid.floor(stamps[0] - right)
    assert found[-1][1] == grid.after(stamps[-1] - right)
    for (_, end, _), (start, _, _) in itertools.pairwise(found):
        assert end == start
    assert sum(held for _, _, held in found) == len(stamps)
    edges = grid.edges(found[0][0], found[-1][1]).tolist()
    assert [start for start, _, _ in found] == edges[:-1]


@pytest.mark.parametrize("beyond", [1_700_000_000_000, -62_135_596_801])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_row_that_no_calendar_can_tell_the_time_of_costs_itself(
    beyond: int, by_columns: bool
) -> None:
    first = seconds("2024-03-01")
    given = [(beyond, {"value": 1.0}), (first, {"value": 1.0}), (first + 1, {"value": 1.0})]
    data = TimeSeries({"value": float}, TimeUnit.SECONDS)
    refused: list[str] = []

    def take(row: object, reason: str, detail: str) -> None:
        refused.append(detail)

    source = Columns(given) if by_columns else given
    pipeline = Pipeline("p").source(source, data, dead_letters=take)
    pipeline.stage("days", [rows], data, DAY)
    replay = pipeline.replay()
    assert [dataset["rows"] for _, dataset in replay] == [2]
    counts = replay.summary.sources["source-1"]
    assert (counts.received, counts.malformed, counts.stored) == (3, 1, 2)
    pipeline.run_sync()  # live, this is so, too
    assert pipeline.stats.sources["source-1"].malformed == 1
    detail, again = refused
    assert again == detail
    assert f"the timestamp {beyond} lies beyond the years" in detail
    assert ("TimeUnit.MILLIS" in detail) is (beyond > 0)


def test_windows_are_in_the_unit_of_the_data() -> None:
    pipeline = pipeline_of(
        [(at * 1000, row) for at, row in hourly("2024-03-30", "2024-04-01")],
        DAY,
        unit=TimeUnit.MILLIS,
    )
    found = replayed(pipeline)
    assert [count for _, _, count in found] == [24, 23]
    assert found[0][0] == seconds("2024-03-30") * 1000
    context, _, _ = ContextBuilder(RwLock(0)).with_task(length).with_interval(DAY).build()
    assert context.interval.unit is TimeUnit.SECONDS


def test_a_stage_may_be_fed_by_one_of_fixed_windows_and_feed_one_of_months() -> None:
    def built(source: Any, found: list[tuple[str, tuple[str, ...], Any]]) -> Pipeline:
        series = TimeSeries({"value": float}, TimeUnit.SECONDS)
        pipeline = Pipeline("levels")
        pipeline.source(source, into=series)
        hours = pipeline.stage("hours", [rows], series, "1h")
        days = pipeline.stage("days", [total], hours.series(), DAY)
        months = pipeline.stage(
            "months", [sums], days.series(), CalendarInterval.months(1, zone=BERLIN)
        )
        for stage in (days, months):
            stage.sink(
                CallbackSink(
                    lambda name, dataset: found.append(
                        (name, shown(dataset.window), next(iter(dataset.values())))
                    )
                )
            )
        return pipeline

    @task
    def total(data: TimeSeriesView, start: int, end: int) -> int:
        return int(data.in_window["rows"].sum())

    @task
    def sums(data: TimeSeriesView, start: int, end: int) -> int:
        return int(data.in_window["total"].sum())

    given = hourly("2024-02-27", "2024-04-03")
    expected: list[Any] = []
    pipeline = built(given, expected)
    for _ in pipeline.replay():
        pass
    assert ("days", ("03-31 00:00", "04-01 00:00"), 23) in expected
    assert ("months", ("03-01 00:00", "04-01 00:00"), 31 * 24 - 1) in expected
    found: list[Any] = []
    built(paced(given, 1e7, unit=TimeUnit.SECONDS), found).run_sync()
    assert sorted(found) == sorted(expected)


def test_a_replay_is_resumed_where_the_calendar_goes_on(tmp_path: Path) -> None:
    given = hourly("2024-03-01", "2024-04-10")
    whole = replayed(pipeline_of(given, DAY))
    sink = JsonLinesSink(tmp_path / "days.jsonl")
    written: list[tuple[int, int, int]] = []
    for until in (seconds("2024-03-15T12:00"), seconds("2024-03-31T12:00"), given[-1][0] + 1):
        pipeline = pipeline_of([row for row in given if row[0] < until], DAY, sink=sink)
        written += [counted(dataset) for _, dataset in pipeline.resume(sink)]
    sink.close()
    last = {end: (start, end) for start, end, _ in written}
    assert [*last.values()] == [(start, end) for start, end, _ in whole]


def test_a_grid_that_began_with_the_rows_is_gone_on_with(tmp_path: Path) -> None:
    days = ["01-31", *(f"{month:02}-{day}" for month in range(2, 7) for day in ("01", "15"))]
    given = [(seconds(f"2024-{day}T08:00"), {"value": 0.0}) for day in days]
    whole = replayed(pipeline_of(given, MONTH, align=Align.START))
    ends = [shown(window)[1] for *window, _ in whole]
    assert ends == [f"{day} 08:00" for day in ("02-29", "03-31", "04-30", "05-31", "06-30")]
    sink = JsonLinesSink(tmp_path / "months.jsonl")
    written: list[tuple[int, ...]] = []
    for n in (4, 8, len(given)):
        pipeline = pipeline_of(given[:n], MONTH, align=Align.START, sink=sink)
        written += [tuple(dataset.window) for _, dataset in pipeline.resume(sink)]
    sink.close()
    assert sorted(set(written)) == [(start, end) for start, end, _ in whole]


def test_a_runner_ticks_when_the_day_of_its_zone_ends() -> None:
    data = RwLock([1])
    context, receiver, _ = ContextBuilder(data).with_task(length).with_interval(DAY).build()
    clock = VirtualClock(seconds("2024-10-26T15:00") * 10**9)
    with Runner(context, clock=clock):
        for day, hours in ((27, 24), (28, 25), (29, 24)):
            end = seconds(f"2024-10-{day}")
            clock.advance_to(end * 10**9 - 1)
            assert receiver.try_recv() is None
            clock.advance_to(end * 10**9)
            dataset = receiver.recv(PATIENCE)
            assert dataset.window == Window(end - hours * HOUR, end)
            assert dataset[length] == hours * HOUR


_DUE = {
    MissedTick.BURST: {"2024-10-29T15:00": 2, "2024-10-30T00:00": 1, "2024-10-31T15:00": 1},
    # A day of 25 hours after the last one, and then a day after that.
    MissedTick.DELAY: {"2024-10-30T15:59": 0, "2024-10-30T16:00": 1, "2024-10-31T16:00": 1},
    MissedTick.SKIP: {"2024-10-29T23:59": 0, "2024-10-30T00:00": 1, "2024-10-31T15:00": 1},
    MissedTick.COALESCE: {"2024-10-29T23:59": 0, "2024-10-30T00:00": 1, "2024-10-31T15:00": 1},
}
"""How many windows are given at which time, after the first one at 15:00."""


def windows_given(missed: MissedTick) -> tuple[list[tuple[str, ...]], int]:
    """Days, of which several were due at once."""
    context, receiver, _ = (
        ContextBuilder(RwLock([1]))
        .with_task(length)
        .with_interval(DAY)
        .with_config(RunnerConfig(missed_tick=missed))
        .build()
    )
    clock = VirtualClock(seconds("2024-10-26T15:00") * 10**9)
    found: list[tuple[str, ...]] = []
    with Runner(context, clock=clock) as runner:
        clock.advance_to(seconds("2024-10-29T15:00") * 10**9)
        found.append(shown(receiver.recv(PATIENCE).window))
        for time, due in _DUE[missed].items():
            clock.advance_to(seconds(time) * 10**9)
            found += [shown(receiver.recv(PATIENCE).window) for _ in range(due)]
            assert receiver.try_recv() is None
    return found, runner.stats.missed


@pytest.mark.parametrize(
    ("missed", "ends", "skipped"),
    [
        (MissedTick.BURST, ["27", "28", "29", "30", "31"], 0),
        (MissedTick.DELAY, ["27", "28", "29"], 0),
        (MissedTick.SKIP, ["27", "30", "31"], 2),
        (MissedTick.COALESCE, ["29", "30", "31"], 0),
    ],
)
def test_days_that_were_missed(missed: MissedTick, ends: list[str], skipped: int) -> None:
    found, missing = windows_given(missed)
    assert [end for _, end in found] == [f"10-{day} 00:00" for day in ends]
    assert missing == skipped
    first = found[0][0]
    assert first == "10-26 00:00"


@pytest.mark.parametrize(
    ("interval", "window", "align", "start", "told"),
    [
        (
            DAY,
            None,
            Align.START,
            "2024-10-26T15:30",
            "10-26 15:30 / 10-27 15:30 / 10-27 15:30 / 10-28 15:30",
        ),
        (
            MONTH,
            None,
            Align.START,
            "2024-01-31T08:00",
            "01-31 08:00 / 02-29 08:00 / 02-29 08:00 / 03-31 08:00",
        ),
        (
            DAY,
            "6h",
            Align.EPOCH,
            "2024-10-26T15:30",
            "10-26 18:00 / 10-27 00:00 / 10-27 18:00 / 10-28 00:00",
        ),
        (
            DAY,
            "6h",
            Align.START,
            "2024-10-26T15:30",
            "10-26 15:30 / 10-26 21:30 / 10-27 15:30 / 10-27 21:30",
        ),
        (
            DAY,
            SEVEN_DAYS,
            Align.EPOCH,
            "2024-10-26T15:30",
            "10-20 00:00 / 10-27 00:00 / 10-21 00:00 / 10-28 00:00",
        ),
        (
            DAY,
            MONTH,
            Align.EPOCH,
            "2024-03-30T15:30",
            "02-29 00:00 / 03-31 00:00 / 03-01 00:00 / 04-01 00:00",
        ),
        (
            SIX_HOURS,
            DAY,
            Align.EPOCH,
            "2024-10-27T00:30",
            "10-26 02:00 / 10-27 02:00 / 10-26 07:00 / 10-27 07:00",
        ),
        (
            WEEK,
            DAY,
            Align.EPOCH,
            "2024-10-26T15:30",
            "10-27 00:00 / 10-28 00:00 / 11-03 00:00 / 11-04 00:00",
        ),
        (
            WEEK,
            DAY,
            Align.START,
            "2024-10-26T15:30",
            "10-26 15:30 / 10-27 15:30 / 11-02 15:30 / 11-03 15:30",
        ),
    ],
)
def test_windows_lie_where_the_calendar_says(
    interval: Any, window: Any, align: Align, start: str, told: str
) -> None:
    first, second, third, fourth = told.split(" / ")
    expected = [(first, second), (third, fourth)]
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(1)
    context: Context[Any, Any] = Context(
        tasks=[length],
        data=RwLock([1]),
        interval=interval,
        sender=ends[0],
        config=RunnerConfig(window=window, align=align),
    )
    seen: list[Window] = []
    found = run_windows(context, 2, start=seconds(start), before=seen.append)
    assert [shown(dataset.window) for dataset in found] == expected
    assert [dataset.window for dataset in found] == seen
    # A replay has the same windows, from that time on.
    stamps = [seconds(start), found[1].window.end - 1]
    pipeline = pipeline_of(
        [(at, {"value": 0.0}) for at in stamps], interval, window=window, align=align
    )
    assert [shown(bounds[:2]) for bounds in replayed(pipeline)[:2]] == expected


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize(
    ("interval", "window"),
    [
        (DAY, None),
        (TRADING_DAY, None),
        (DAY, "36h"),
        (DAY, "5h"),
        (DAY, THREE_DAYS),
        (DAY, WEEK),
        (WEEK, CalendarInterval.days(2, zone=BERLIN)),
        (MONTH, None),
        ("12h", DAY),
    ],
)
@pytest.mark.parametrize("align", Align)
def test_a_live_run_has_the_windows_of_its_replay(
    interval: Any, window: Any, closed: Closed, align: Align
) -> None:
    if interval is TRADING_DAY and align is Align.START:
        with pytest.raises(ConfigError, match="leave one of them out"):
            pipeline_of([], interval, align=align)
        return
    given = hourly("2024-03-20", "2024-04-05")
    expected = replayed(pipeline_of(given, interval, window=window, closed=closed, align=align))
    found: list[tuple[int, int, int]] = []
    live = pipeline_of(
        paced(given, 1e7, unit=TimeUnit.SECONDS),
        interval,
        window=window,
        closed=closed,
        align=align,
        sink=CallbackSink(lambda _, dataset: found.append(counted(dataset))),
    )
    live.run_sync()
    assert found == expected
    assert found


def test_times_are_told_in_the_zone_of_the_interval() -> None:
    pipeline = pipeline_of(hourly("2024-03-31", "2024-04-01"), DAY)
    ((_, dataset),) = pipeline.replay()
    assert dataset.start_time.isoformat() == "2024-03-31T00:00:00+01:00"
    assert dataset.end_time.isoformat() == "2024-04-01T00:00:00+02:00"
    assert dataset.end_time.tzinfo == ZoneInfo(BERLIN)
    assert pickle.loads(pickle.dumps(dataset)).end_time == dataset.end_time
    # Those of fixed lengths have none of their own.
    pipeline = pipeline_of(hourly("2024-03-31", "2024-04-01"), "24h", window=DAY)
    assert all(d.end_time.utcoffset() == timedelta(0) for _, d in pipeline.replay())


@given(
    zone=st.sampled_from(
        [BERLIN, "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Beirut"]
    ),
    make=st.sampled_from([CalendarInterval.days, CalendarInterval.weeks, CalendarInterval.months]),
    count=st.integers(1, 2),
    window=st.none()
    | st.sampled_from(["6h", "30h"])
    | st.builds(CalendarInterval.days, st.integers(1, 7), zone=st.sampled_from([BERLIN, "UTC"])),
    closed=st.sampled_from(Closed),
    align=st.sampled_from(Align),
    grace=st.sampled_from([None, "2h"]),
    since=st.sampled_from(["2011-12-20", "2024-03-20", "2024-10-20"]),
    rows_after=st.lists(st.integers(0, 40 * 24 * HOUR), min_size=1, max_size=40),
)
@settings(max_examples=examples(30), deadline=None)
def test_a_live_run_has_the_windows_of_its_replay_in_any_zone(
    zone: str,
    make: Callable[..., CalendarInterval],
    count: int,
    window: Any,
    closed: Closed,
    align: Align,
    grace: str | None,
    since: str,
    rows_after: list[int],
) -> None:
    stamps = sorted(seconds(since) + after for after in rows_after)
    given = [(stamp, {"value": 1.0}) for stamp in stamps]
    interval = make(count, zone=zone)

    def built(source: Any, sink: Any = None) -> Pipeline:
        return pipeline_of(
            source, interval, window=window, closed=closed, align=align, grace=grace, sink=sink
        )

    expected = replayed(built(given))
    for start, end, held in expected:
        right = closed is Closed.RIGHT
        assert held == sum(start + right <= stamp < end + right for stamp in stamps)
    found: list[tuple[int, int, int]] = []
    sink = CallbackSink(lambda _, dataset: found.append(counted(dataset)))
    built(paced(given, 1e8, unit=TimeUnit.SECONDS), sink).run_sync()
    assert found == expected


@task
def apart(data: TimeSeriesView, start: int, end: int) -> tuple[int, int]:
    return start, end


def test_worker_processes_take_windows_of_the_calendar() -> None:
    given = hourly("2024-03-30", "2024-04-02")
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("processes")
    pipeline.source(given, into=series)
    pipeline.stage("days", [apart], series, DAY, RunnerConfig(executor="processes", workers=1))
    datasets = [dataset for _, dataset in pipeline.replay()]
    assert [f"{dataset.end_time:%d %H:%M}" for dataset in datasets] == [
        "31 00:00",
        "01 00:00",
        "02 00:00",
    ]
    found = [dataset[apart] for dataset in datasets]
    assert [(end - start) // HOUR for start, end in found] == [24, 23, 24]


def test_a_config_with_a_window_of_the_calendar_is_equal_and_can_be_pickled() -> None:
    config = RunnerConfig(window=CalendarInterval.days(7, zone=BERLIN))
    assert pickle.loads(pickle.dumps(config)) == config
    assert "CalendarInterval.days(7, zone='Europe/Berlin')" in repr(config)
    with pytest.raises(ConfigError, match=r"RunnerConfig\(window=.*say by the interval"):
        RunnerConfig(window=TRADING_DAY)
    grace: Any = DAY
    with pytest.raises(ConfigError, match=r"RunnerConfig\(grace="):
        RunnerConfig(grace=grace)


def test_a_retention_that_is_too_short_for_a_long_day_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS, retention="24h")
    Pipeline("p").stage("days", [rows], series, DAY)
    assert "1 day (Europe/Berlin)" in caplog.text
    caplog.clear()
    series = TimeSeries({"value": float}, TimeUnit.SECONDS, retention="25h")
    Pipeline("p").stage("days", [rows], series, DAY)
    assert not caplog.text


def test_a_stage_says_how_often_it_runs() -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    stage = Pipeline("p").stage("days", [rows], series, TRADING_DAY)
    assert repr(stage) == ("<Stage 'days': 1 tasks every 1 day (America/New_York, offset 17h)>")
    assert stage.interval == TRADING_DAY
