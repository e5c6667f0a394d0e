from __future__ import annotations

import datetime as datetime_module
import importlib
import pickle
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.proof import examples

from run_task import ConfigError, TaskInterval, TimeUnit
from run_task.time._calendar import CalendarInterval
from run_task.time._epoch import nanos_since_epoch
from run_task.time._grid import FixedGrid, Grid
from run_task.time._shown import time_shown

pd: Any = importlib.import_module("pandas")  # Any, since it comes without types

NO_ZONE: Any = 3
NO_OFFSET: Any = 17

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Casablanca",  # none in Ramadan
    "Pacific/Apia",  # had no 30th of December in 2011
    "America/Sao_Paulo",  # put forward at midnight
    "America/St_Johns",  # put back at 00:01
    "Asia/Beirut",
    "Africa/Cairo",
    "Asia/Tehran",
)

PANDAS: dict[str, Callable[..., CalendarInterval]] = {
    "D": CalendarInterval.days,
    "W-MON": CalendarInterval.weeks,
    "MS": CalendarInterval.months,
    "QS": CalendarInterval.quarters,
    "YS": CalendarInterval.years,
}

POLARS: dict[str, Callable[..., CalendarInterval]] = {
    "d": CalendarInterval.days,
    "w": CalendarInterval.weeks,
    "mo": CalendarInterval.months,
    "q": CalendarInterval.quarters,
    "y": CalendarInterval.years,
}


def seconds(text: str, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp())


def shown(edges: Sequence[int], zone: str) -> list[str]:
    return [f"{datetime.fromtimestamp(edge, ZoneInfo(zone)):%Y-%m-%d %H:%M}" for edge in edges]


def edges_after(interval: CalendarInterval, text: str, n: int, zone: str) -> list[str]:
    found = [seconds(text, zone)]
    for _ in range(n):
        found.append(interval.grid().after(found[-1]))
    return shown(found[1:], zone)


CLOSED: tuple[Literal["left", "right"], ...] = ("left", "right")

DATES = (datetime.fromisoformat("1890-01-01"), datetime.fromisoformat("2090-01-01"))

HALF_HOURS = np.arange(seconds("2005-01-01"), seconds("2025-01-01"), 1800)


def windows_with_rows(
    interval: CalendarInterval, times: NDArray[np.int64], *, right: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The starts of all windows that hold a time, and how many they hold."""
    grid = interval.grid()
    edges = grid.edges(grid.before(int(times[0])), grid.after(int(times[-1])))
    at = np.searchsorted(edges, times, side="left" if right else "right") - 1
    held = np.bincount(at, minlength=len(edges))
    return edges[held > 0], held[held > 0]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("rule", PANDAS)
def test_windows_hold_what_those_of_pandas_hold(zone: str, rule: str) -> None:
    index = pd.to_datetime(HALF_HOURS, unit="s", utc=True).tz_convert(zone)
    rows = pd.Series(HALF_HOURS, index=index)
    held = rows.resample(rule, closed="left", label="left").agg(["first", "size"])
    if (zone, rule) == (
        "Pacific/Apia",
        "D",
    ):  # resample() looks an hour too late for lost midnights
        held = rows.groupby(index.tz_localize(None).floor("D")).agg(["first", "size"])
    held = held[held["size"] > 0]
    starts, counts = windows_with_rows(PANDAS[rule](1, zone=zone), HALF_HOURS)
    np.testing.assert_array_equal(
        starts[1:], held["first"].to_numpy()[1:]
    )  # at the first half hour
    np.testing.assert_array_equal(counts, held["size"].to_numpy())


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", ["1d", "3d", "1w", "2w", "1mo", "5mo", "1q", "2q", "1y", "3y"])
def test_windows_hold_what_those_of_polars_hold(zone: str, every: str) -> None:
    times = HALF_HOURS
    if zone == "Pacific/Apia" and every in ("1d", "3d"):  # polars panics at the day that it lacked
        times = times[times < seconds("2011-12-25", zone)]
    frame = pl.DataFrame({"time": times}).with_columns(
        pl.from_epoch("time").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    )
    count, step = int(every[0]), every[1:]
    for offset in ("7h", "17h"):  # polars loses rows where clocks jump over an edge
        interval = POLARS[step](count, zone=zone, offset=offset)
        for closed in CLOSED:
            held = frame.group_by_dynamic(
                "time",
                every=every,
                offset=offset,
                closed=closed,
            ).agg(pl.len())
            starts, counts = windows_with_rows(interval, times, right=closed == "right")
            np.testing.assert_array_equal(starts, held["time"].dt.epoch("s").to_numpy())
            np.testing.assert_array_equal(counts, held["len"].to_numpy())


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2024-03-31", 23),
        ("Europe/Berlin", "2024-10-27", 25),
        ("America/New_York", "2024-03-10", 23),
        ("Australia/Lord_Howe", "2024-10-06", 23.5),
        ("Australia/Lord_Howe", "2024-04-07", 24.5),
        ("Africa/Casablanca", "2024-03-10", 25),
        ("Africa/Casablanca", "2024-04-14", 23),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("Asia/Tokyo", "2024-03-31", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone: str, day: str, hours: float) -> None:
    grid = CalendarInterval.days(1, zone=zone).grid()
    start = grid.floor(seconds(f"{day}T12:00", zone))
    assert grid.after(start) - start == hours * 3600


def test_a_day_that_is_not_there_is_no_window() -> None:
    found = edges_after(
        CalendarInterval.days(1, zone="Pacific/Apia"), "2011-12-28", 3, "Pacific/Apia"
    )
    assert found == ["2011-12-29 00:00", "2011-12-31 00:00", "2012-01-01 00:00"]


def test_a_time_that_clocks_jump_over_is_when_they_jump() -> None:
    interval = CalendarInterval.days(1, zone="Europe/Berlin", offset="150m")
    assert edges_after(interval, "2024-03-29T12:00", 3, "Europe/Berlin") == [
        "2024-03-30 02:30",
        "2024-03-31 03:00",
        "2024-04-01 02:30",
    ]


def test_of_a_time_that_clocks_show_twice_the_first_counts() -> None:
    grid = CalendarInterval.days(1, zone="Europe/Berlin", offset="150m").grid()
    edge = grid.after(seconds("2024-10-27T00:00", "Europe/Berlin"))
    assert edge == seconds("2024-10-27T02:30", "Europe/Berlin", fold=0)
    assert grid.after(edge) == seconds("2024-10-28T02:30", "Europe/Berlin")


@pytest.mark.parametrize(
    ("interval", "first"),
    [
        (CalendarInterval.days(2), "1970-01-01"),
        (CalendarInterval.days(3, offset="17h"), "1970-01-01T17:00"),
        (CalendarInterval.weeks(2), "1970-01-05"),
        (CalendarInterval.weeks(2, start="thursday"), "1970-01-01"),
        (CalendarInterval.weeks(3, start="sunday", offset="90m"), "1970-01-04T01:30"),
        (CalendarInterval.months(5), "1970-01-01"),
        (CalendarInterval.quarters(3), "1970-01-01"),
        (CalendarInterval.years(2, offset="90d"), "1970-04-01"),
    ],
)
def test_several_are_counted_from_1970(interval: CalendarInterval, first: str) -> None:
    grid = interval.grid()
    start = seconds(first)
    assert grid.floor(start) == start
    assert grid.before(start) < seconds("1970-01-01")
    assert start < grid.after(seconds("1970-01-06")) or interval.count > 1


def test_months_end_on_the_last_day_where_they_have_no_such_day() -> None:
    interval = CalendarInterval.months(1, offset="30d")
    assert edges_after(interval, "2023-12-31T12:00", 4, "UTC") == [
        "2024-01-31 00:00",
        "2024-02-29 00:00",
        "2024-03-31 00:00",
        "2024-04-30 00:00",
    ]


def test_a_grid_may_begin_at_any_time() -> None:
    zone = "Europe/Berlin"
    start = seconds("2024-01-31T10:15", zone)
    grid = CalendarInterval.months(1, zone=zone).grid_from(start)
    found = [start, grid.after(start)]
    found += [grid.after(found[-1])]
    assert shown(found, zone) == ["2024-01-31 10:15", "2024-02-29 10:15", "2024-03-31 10:15"]


def test_a_grid_may_begin_in_the_hour_that_comes_again() -> None:
    zone = "Europe/Berlin"
    start = seconds("2024-10-27T02:30", zone, fold=1)
    grid = CalendarInterval.days(1, zone=zone).grid_from(start)
    assert grid.floor(start) == start
    assert shown([grid.after(start)], zone) == ["2024-10-28 02:30"]


@pytest.mark.parametrize(
    ("window", "n", "interval", "end", "start"),
    [
        ("days", 1, "days", "2024-03-31T03:00", "2024-03-30T02:30"),
        ("days", 7, "days", "2024-03-31T03:00", "2024-03-24T02:30"),
        ("months", 1, "days", "2024-03-31T03:00", "2024-02-29T02:30"),
        ("days", 7, "months", "2024-04-01T02:30", "2024-03-25T02:30"),
        ("months", 3, "months", "2024-04-01T02:30", "2024-01-01T02:30"),
    ],
)
def test_a_window_of_the_calendar_starts_by_the_clocks(
    window: str, n: int, interval: str, end: str, start: str
) -> None:
    zone = "Europe/Berlin"
    make: dict[str, Callable[..., CalendarInterval]]
    make = {"days": CalendarInterval.days, "months": CalendarInterval.months}
    grid = make[interval](1, zone=zone, offset="150m").grid()
    at = seconds(end, zone)
    assert grid.floor(at) == at
    assert make[window](n, zone=zone).start_before(at, grid) == seconds(start, zone)


def test_a_window_of_the_calendar_over_a_fixed_interval() -> None:
    zone = "Europe/Berlin"
    window = CalendarInterval.days(1, zone=zone)
    end = seconds("2024-03-31T12:00", zone)
    assert window.start_before(end, FixedGrid(3600)) == end - 23 * 3600


def test_a_window_is_never_empty() -> None:
    window = CalendarInterval.days(1, zone="Pacific/Apia")
    grid = window.grid()
    end = seconds("2011-12-31", "Pacific/Apia")
    assert window.start_before(end, grid) == grid.before(end)


@given(
    make=st.sampled_from([*PANDAS.values()]),
    zone=st.sampled_from([*ZONES, "UTC"]),
    count=st.integers(1, 5),
    offset=st.integers(0, 40 * 24 * 60),
    unit=st.sampled_from(TimeUnit),
    time=st.datetimes(*DATES, timezones=st.just(UTC)),
    anchored=st.booleans(),
)
@settings(max_examples=examples(300), deadline=None)
def test_edges_tile_time(
    make: Callable[..., CalendarInterval],
    zone: str,
    count: int,
    offset: int,
    unit: TimeUnit,
    time: datetime,
    anchored: bool,
) -> None:
    interval = make(count, zone=zone, offset=timedelta(minutes=offset)).with_unit(unit)
    at = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000 // unit.nanos
    grid: Grid = interval.grid_from(at) if anchored else interval.grid()
    start = grid.floor(at)
    end = grid.after(at)
    assert start <= at < end
    assert not anchored or start == at
    # The same answers, asked from elsewhere, of a grid that has not answered before.
    again: Grid = interval.grid_from(at) if anchored else interval.grid()
    assert again.before(end) == start == again.floor(end - 1)
    assert grid.floor(end) == end
    assert again.edges(start, end).tolist() == [start, end]
    assert interval.start_before(end, grid) == start
    assert (end - start) * unit.nanos <= interval.longest_ns + 2 * 86_400 * 10**9


@given(
    period=st.integers(1, 1000),
    offset=st.integers(-2000, 2000),
    time=st.integers(-(10**19), 10**19),
)
def test_edges_of_a_fixed_grid_are_equally_far_apart(period: int, offset: int, time: int) -> None:
    grid = FixedGrid(period, offset)
    start = grid.floor(time)
    assert start <= time < grid.after(time) == start + period
    assert grid.before(grid.after(time)) == start
    assert (start - offset) % period == 0


def test_edges_of_a_fixed_grid() -> None:
    assert FixedGrid(10, 3).edges(3, 24).tolist() == [3, 13, 23]
    assert FixedGrid(10, 3).edges(4, 12).tolist() == []


def test_edges_of_whole_minutes_hold_what_the_clocks_say() -> None:
    # The clocks of Casablanca were 30 minutes and 20 seconds behind.
    interval = CalendarInterval.days(1, zone="Africa/Casablanca").with_unit(TimeUnit.MINUTES)
    edge = interval.grid().floor(-40_000_000)
    whole = CalendarInterval.days(1, zone="Africa/Casablanca").grid().floor(-40_000_000 * 60)
    assert edge == -(-whole // 60) != whole / 60


def test_intervals_are_equal_if_they_are_counted_the_same() -> None:
    one = CalendarInterval.days(1, zone="Europe/Berlin", offset="17h")
    other = CalendarInterval.days(1, zone=ZoneInfo("Europe/Berlin"), offset=timedelta(hours=17))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one == CalendarInterval.days(1, zone="Europe/Berlin", offset=TaskInterval.hours(17))
    assert one != CalendarInterval.days(1, zone="Europe/Berlin")
    assert one != CalendarInterval.days(1, zone="Europe/Paris", offset="17h")
    assert one != one.with_unit(TimeUnit.MILLIS)
    assert one != "1d"
    assert CalendarInterval.weeks(1) != CalendarInterval.weeks(1, start="sunday")
    assert CalendarInterval.days(1, zone="UTC") == CalendarInterval.days(1, zone=UTC)
    assert CalendarInterval.days(1, offset="0h") == CalendarInterval.days(1)
    assert CalendarInterval.days(1, offset="-8h") == CalendarInterval.days(1, offset="16h")
    assert CalendarInterval.days(2, offset=timedelta(hours=-8)).grid().after(0) == 40 * 3600
    assert CalendarInterval.weeks(1, offset="-1d").grid().after(0) == 3 * 86_400  # a Sunday


def test_intervals_say_what_they_are() -> None:
    day = CalendarInterval.days(1, zone="Europe/Berlin", offset="17h")
    assert repr(day) == "CalendarInterval.days(1, zone='Europe/Berlin', offset='17h')"
    assert str(day) == "1 day (Europe/Berlin, offset 17h)"
    week = CalendarInterval.weeks(2, start="sunday", zone="Asia/Tokyo")
    assert repr(week) == "CalendarInterval.weeks(2, start='sunday', zone='Asia/Tokyo')"
    assert str(week) == "2 weeks (Asia/Tokyo, from sunday)"
    for interval in (day, week, CalendarInterval.years(1, offset="1.5s")):
        assert eval(repr(interval), {"CalendarInterval": CalendarInterval}) == interval


def test_a_zone_may_be_fixed() -> None:
    grid = CalendarInterval.days(1, zone=timezone(timedelta(hours=2))).grid()
    assert grid.floor(0) == -2 * 3600
    interval = CalendarInterval.days(1, zone=timezone(timedelta(hours=2)))
    names = {"CalendarInterval": CalendarInterval, "datetime": datetime_module}
    assert eval(repr(interval), names) == interval
    assert str(interval) == "1 day (UTC+02:00)"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (CalendarInterval, "made by days, weeks"),
        (lambda: CalendarInterval.days(0), r"days\(0\): it is a positive int"),
        (lambda: CalendarInterval.months(True), r"months\(True\)"),
        (lambda: CalendarInterval.days(1, zone="Mars/Olympus"), "'Mars/Olympus'.*tzdata"),
        (lambda: CalendarInterval.days(1, zone="../etc/passwd"), "no time zone of this name"),
        (lambda: CalendarInterval.days(1, zone=NO_ZONE), "zone=3: it is the name"),
        (lambda: CalendarInterval.weeks(1, start="someday"), "start='someday'"),
        (lambda: CalendarInterval.days(1, offset="17"), "offset='17'"),
        (lambda: CalendarInterval.days(1, offset=NO_OFFSET), "offset=17"),
        (lambda: CalendarInterval.months(1, offset=timedelta(hours=-7)), "months differ in length"),
        (lambda: CalendarInterval.quarters(1, offset="-1d"), "offset='-1d': quarters differ"),
        (lambda: CalendarInterval.days(1, offset="--8h"), "offset='--8h'"),
        (lambda: CalendarInterval.days(1, offset="-"), "offset='-'"),
    ],
)
def test_what_is_no_interval_of_a_calendar_is_refused(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("make", [*PANDAS.values()])
@pytest.mark.parametrize("time", [10**12, -(10**12), 10**30])
def test_a_time_that_no_calendar_has_is_refused(
    make: Callable[..., CalendarInterval], time: int
) -> None:
    with pytest.raises(ConfigError, match="years from 1 to 9999"):
        make(1, zone="Europe/Berlin").grid().after(time)


@pytest.mark.parametrize("zone", ["UTC", *ZONES])
@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)))  # noqa: DTZ001 in UTC, as said below
def test_a_time_is_shown_so_that_it_can_be_read_again(zone: str, moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    interval = CalendarInterval.days(1, zone=zone).with_unit(TimeUnit.MICROS)

    text = time_shown(nanos_since_epoch(moment) // 1000, interval)

    assert datetime.fromisoformat(text) == moment


def test_the_time_of_a_zone_that_was_none_of_whole_minutes_is_shown_with_its_seconds() -> None:
    interval = CalendarInterval.days(1, zone="Europe/Berlin")

    assert time_shown(-3_000_000_000, interval) == "1874-12-07T19:33:28+00:53:28"
    assert time_shown(-62_000_000_000, interval) == "0005-04-19T10:40:08+00:53:28"
