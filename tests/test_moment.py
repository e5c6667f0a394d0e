"""Times as users give them: as ints in a unit, and exactly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import Closed, ConfigError, TimeSeries, TimeUnit, VirtualClock
from run_task.time._moment import InvalidTime, first_from, nanos, timestamp, timestamps
from run_task.time._wall_time import WallClock

pa: Any = pytest.importorskip("pyarrow")
pd: Any = pytest.importorskip("pandas")
pl: Any = pytest.importorskip("polars")
ma: Any = np.ma

NOON = datetime(2024, 7, 1, 12, 0, 0, 250_000, UTC)
NOON_NS = 1_719_835_200_250_000_000
BERLIN = ZoneInfo("Europe/Berlin")
FIRST, LAST = (datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None) for year in (1990, 2035))
CLOCK = WallClock("Europe/Berlin")
NAIVE = NOON.astimezone(BERLIN).replace(tzinfo=None)  # what the clocks show

AWARE: dict[str, Any] = {
    "UTC": NOON,
    "another zone": NOON.astimezone(BERLIN),
    "an offset": NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30))),
    "datetime64": np.datetime64(NOON_NS, "ns"),
    "datetime64 of ms": np.datetime64(NOON_NS // 10**6, "ms"),
    "pandas": pd.Timestamp(NOON),
    "pandas in a zone": pd.Timestamp(NOON).tz_convert("Asia/Tokyo"),
    "Arrow": pa.scalar(NOON, pa.timestamp("ns", "Europe/Berlin")),
}

COLUMNS: dict[str, Callable[[], Any]] = {
    "list": lambda: [NOON, NOON.astimezone(BERLIN)],
    "tuple": lambda: (NOON, NOON),
    "generator": lambda: (moment for moment in (NOON, NOON)),
    "list of datetime64": lambda: [np.datetime64(NOON_NS, "ns"), np.datetime64(NOON_NS, "ns")],
    "datetime64[us]": lambda: np.array([NOON_NS // 10**3] * 2, "M8[us]"),
    "datetime64[25us]": lambda: np.array([NOON_NS // 25_000] * 2, "M8[25us]"),
    "objects": lambda: np.array([NOON, NOON], object),
    "Series": lambda: pd.Series([NOON, NOON]),
    "Series of ms": lambda: pd.Series([NOON, NOON]).dt.as_unit("ms"),
    "DatetimeIndex": lambda: pd.DatetimeIndex([NOON, NOON]).tz_convert("Europe/Berlin"),
    "Series of Arrow": lambda: pd.Series(
        [NOON] * 2, dtype=pd.ArrowDtype(pa.timestamp("ns", "UTC"))
    ),
    "polars": lambda: pl.Series([NOON, NOON], dtype=pl.Datetime("ns", "Europe/Berlin")),
    "Arrow": lambda: pa.array([NOON, NOON], pa.timestamp("us", "Asia/Tokyo")),
    "Arrow in chunks": lambda: pa.chunked_array([[NOON], [NOON]], pa.timestamp("us", "UTC")),
}

NAIVE_COLUMNS: dict[str, Callable[[], Any]] = {
    "list": lambda: [NAIVE, NAIVE],
    "Series": lambda: pd.Series([NAIVE, NAIVE]),
    "DatetimeIndex": lambda: pd.DatetimeIndex([NAIVE, NAIVE]),
    "polars": lambda: pl.Series([NAIVE, NAIVE]),
    "Arrow": lambda: pa.array([NAIVE, NAIVE], pa.timestamp("us")),
}


@pytest.mark.parametrize("unit", TimeUnit)
@pytest.mark.parametrize("kind", AWARE)
def test_a_time_that_names_its_zone_is_taken_and_rounded_down(kind: str, unit: TimeUnit) -> None:
    assert timestamp(AWARE[kind], unit) == NOON_NS // unit.nanos
    assert nanos(AWARE[kind], unit) == NOON_NS
    assert first_from(AWARE[kind], unit) == -(-NOON_NS // unit.nanos)


@pytest.mark.parametrize("unit", TimeUnit)
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_times(kind: str, unit: TimeUnit) -> None:
    found = timestamps(COLUMNS[kind](), unit)
    assert found.dtype == np.int64
    assert found.tolist() == [NOON_NS // unit.nanos] * 2
    if "datetime64" not in kind:  # those of NumPy name none, and so are what clocks show
        found = timestamps(COLUMNS[kind](), unit, CLOCK)
        assert found.tolist() == [NOON_NS // unit.nanos] * 2


@pytest.mark.parametrize("kind", NAIVE_COLUMNS)
def test_times_without_a_zone_are_refused_or_in_the_zone_that_is_said(kind: str) -> None:
    for unit in TimeUnit:
        found = timestamps(NAIVE_COLUMNS[kind](), unit, CLOCK)
        assert found.tolist() == [NOON_NS // unit.nanos] * 2
    with pytest.raises(InvalidTime, match=r"no time zone.*tzinfo=UTC.*zone="):
        timestamps(NAIVE_COLUMNS[kind](), TimeUnit.MILLIS)


def test_one_time_without_a_zone() -> None:
    for naive in (NAIVE, pd.Timestamp(NAIVE), pa.scalar(NAIVE, pa.timestamp("us"))):
        assert timestamp(naive, TimeUnit.NANOS, CLOCK) == NOON_NS
        with pytest.raises(InvalidTime, match="no time zone"):
            timestamp(naive, TimeUnit.NANOS)
    of_numpy = np.datetime64(NAIVE)
    assert timestamp(of_numpy, TimeUnit.NANOS, CLOCK) == NOON_NS
    assert timestamp(of_numpy, TimeUnit.SECONDS) == NOON_NS // 10**9 + 7200
    midnight = int(datetime(2024, 7, 1, tzinfo=BERLIN).timestamp())
    for day in (date(2024, 7, 1), pa.scalar(date(2024, 7, 1))):
        assert timestamp(day, TimeUnit.SECONDS, CLOCK) == midnight
        with pytest.raises(InvalidTime, match="no time zone"):
            timestamp(day, TimeUnit.SECONDS)
    days = pl.Series([date(2024, 7, 1)])
    assert timestamps(days, TimeUnit.SECONDS, CLOCK).tolist() == [midnight]


@given(
    st.lists(st.datetimes(FIRST, LAST), min_size=1, max_size=5),
    st.sampled_from(["D", "h", "m", "s", "ms", "us"]),
    st.sampled_from(TimeUnit),
)
def test_a_column_of_what_clocks_show_is_converted_as_its_values_are(
    shown: list[datetime], resolution: str, unit: TimeUnit
) -> None:
    walls = np.array(shown, f"M8[{resolution}]")
    expected = [timestamp(wall, unit, CLOCK) for wall in walls]
    assert timestamps(walls, unit, CLOCK).tolist() == expected


@pytest.mark.parametrize(
    ("shown", "utc"),
    [
        ("2024-03-31T02:30", "2024-03-31T01:00"),  # they jump from 2:00 to 3:00
        ("2024-10-27T02:30", "2024-10-27T00:30"),  # they show it twice
    ],
)
def test_clocks_that_change(shown: str, utc: str) -> None:
    wall, expected = np.datetime64(shown), int(np.datetime64(utc, "m").astype(int))
    assert timestamp(wall, TimeUnit.MINUTES, CLOCK) == expected
    assert timestamp(wall.item(), TimeUnit.MINUTES, CLOCK) == expected
    assert timestamps(np.array([wall]), TimeUnit.MINUTES, CLOCK).tolist() == [expected]


@pytest.mark.parametrize(
    "bad",
    [
        1.0, True, np.True_, "2024-01-01", b"x", None, np.datetime64("NaT", "s"), np.float64(1),
        pd.NaT, pd.NA, np.timedelta64(1, "s"), dt.timedelta(1), dt.time(1), 2**63, -(2**63) - 1,
        np.uint64(2**63), pa.scalar(None, pa.timestamp("us", "UTC")), [1], object(),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidTime):
        timestamp(bad, TimeUnit.MILLIS)
    with pytest.raises(InvalidTime) as caught:
        timestamps([0, bad], TimeUnit.MILLIS)
    assert caught.value.row == 1
    series = TimeSeries({"v": float})
    with pytest.raises(ConfigError):
        series.append(bad, v=1.0)
    with pytest.raises(ConfigError, match=r"^row 1: "):
        series.extend([0, bad], v=[1.0, 2.0])
    assert len(series.view()) == 0


@pytest.mark.parametrize(
    ("bad", "row"),
    [
        (ma.array([1, 2, 3], mask=[0, 1, 0]), 1),
        (ma.array(np.array([1, 2], "M8[s]"), mask=[0, 1]), 1),
        (np.array(["2024-01-01", "NaT"], "M8[s]"), 1),
        (pd.Series([NOON, None]), 1),
        (pd.DatetimeIndex([NOON, pd.NaT]), 1),
        (pd.array([1, None], "Int64"), 1),
        (pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC")), 1),
        (pl.Series([1, None]), 1),
        (pa.array([NOON, None], pa.timestamp("us", "UTC")), 1),
        (pa.array([1, None]), 1),
        (np.array([1, 2**63], np.uint64), 1),
        (np.array([1.0, 2.0]), 0),
        (np.array([True, False]), 0),
        (np.array(["a"]), 0),
        ([1.0, 2.0], 0),
        ([True], 0),
        (5, None),
        ("ab", None),
        (np.array([[1]]), None),
        (np.array(5), None),
    ],
)
def test_columns_with_what_is_no_time_are_refused(bad: Any, row: int | None) -> None:
    with pytest.raises(InvalidTime) as caught:
        timestamps(bad, TimeUnit.MILLIS)
    assert caught.value.row == row
    series = TimeSeries({"v": float})
    with pytest.raises(ConfigError):
        series.extend(bad, v=[1.0, 2.0])
    assert len(series.view()) == 0


def test_a_mask_that_hides_nothing_does_no_harm() -> None:
    assert timestamps(ma.array([1, 2]), TimeUnit.MILLIS).tolist() == [1, 2]


def test_what_64_bits_do_not_hold_is_refused_and_not_wrapped_around() -> None:
    far = np.array(["2024-01-01", "9999-01-01"], "M8[s]")
    assert timestamps(far, TimeUnit.MICROS)[1] == 253_370_764_800_000_000
    with pytest.raises(InvalidTime, match="64 bits") as caught:
        timestamps(far, TimeUnit.NANOS)
    assert caught.value.row == 1
    with pytest.raises(InvalidTime, match="64 bits"):
        timestamp(datetime(9999, 1, 1, tzinfo=UTC), TimeUnit.NANOS)
    assert timestamps(np.array([2**62], "M8[ns]"), TimeUnit.NANOS).tolist() == [2**62]
    years = np.array([2024, 55_840], "M8[Y]") - np.datetime64(1970, "Y").astype(int)
    assert timestamps(years, TimeUnit.SECONDS).dtype == np.int64
    assert timestamp(np.datetime64(5, "ps"), TimeUnit.NANOS) == 0
    assert timestamps(np.array([7_999], "M8[ps]"), TimeUnit.NANOS).tolist() == [7]


def test_a_series_takes_and_is_asked_for_times() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, zone="Europe/Berlin")
    series.append(NOON, v=1.0)
    series.append(NAIVE + timedelta(seconds=1), v=2.0)
    series.extend([NOON + timedelta(seconds=2)], v=[3.0])
    view = series.view()
    assert str(series.zone) == "Europe/Berlin"
    assert view.time.tolist() == [NOON_NS // 10**9 + second for second in range(3)]
    # What is stored is 12:00:00, 12:00:01 and 12:00:02.
    assert view.between(NOON, NOON + timedelta(seconds=2))["v"].tolist() == [2.0, 3.0]
    whole = NOON.replace(microsecond=0)
    assert view.between(whole, whole + timedelta(seconds=2))["v"].tolist() == [1.0, 2.0]
    assert view.between(NAIVE, np.datetime64("2100"))["v"].tolist() == [2.0, 3.0]
    with pytest.raises(ConfigError, match="no int, and no time"):
        view.between("now", "then")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] what is refused


def test_bounds_of_a_view_that_is_closed_on_the_right() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    whole = NOON.replace(microsecond=0)
    series.extend([whole, whole + timedelta(seconds=1)], v=[1.0, 2.0])
    view = series.view()
    assert view.between(whole, whole + timedelta(seconds=1))["v"].tolist() == [2.0]
    early = whole - timedelta(microseconds=1)
    assert view.between(early, whole)["v"].tolist() == [1.0]
    assert view.between(early, NOON)["v"].tolist() == [1.0]


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_of_thousands_of_digits_are_refused_in_a_few_words(sign: int) -> None:
    huge = sign * 10**5000
    series = TimeSeries({"v": float, "n": int}, TimeUnit.SECONDS)
    told = "<int of 16,610 bits> does not fit in 64 bits of seconds"
    with pytest.raises(ConfigError, match=told):
        series.append(huge, v=1.0, n=1)
    with pytest.raises(ConfigError, match=f"row 1: the timestamp {told}"):
        series.extend([1, huge], v=[1.0, 1.0], n=[1, 1])
    with pytest.raises(ConfigError, match="<int of 16,610 bits> does not fit in 64 bits of nanos"):
        VirtualClock(huge)
    with pytest.raises(ConfigError, match="<int of 16,610 bits> is too large for float64"):
        series.append(1, v=huge, n=1)
    with pytest.raises(ConfigError, match="<int of 16,610 bits> is beyond int64"):
        series.append(1, v=1.0, n=huge)
    assert len(series.view().between(-(10**5000), 10**5000)) == 0


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="zone='Mars/Olympus'"):
        TimeSeries({"v": float}, zone="Mars/Olympus")


@pytest.mark.parametrize("far", [2**62, -(2**62), 10**7])
@pytest.mark.parametrize("resolution", ["D", "h", "s"])
def test_times_beyond_a_calendar_are_refused_in_a_zone(far: int, resolution: str) -> None:
    if resolution != "D" and far == 10**7:
        far = 10**15
    times = np.array([0, far], f"M8[{resolution}]")
    with pytest.raises(InvalidTime, match="calendar") as caught:
        timestamps(times, TimeUnit.SECONDS, CLOCK)
    assert caught.value.row == 1


def test_several_of_a_unit_in_a_zone() -> None:
    times = np.array([1_146_556_800, 1_146_556_801], "M8[1500ms]")
    expected = [timestamp(time, TimeUnit.MILLIS, CLOCK) for time in times]
    assert timestamps(times, TimeUnit.MILLIS, CLOCK).tolist() == expected
    assert expected[1] - expected[0] == 1500


@pytest.mark.parametrize("clock", [None, CLOCK])
def test_an_array_in_the_byte_order_of_another_machine_has_the_same_times(
    clock: WallClock | None,
) -> None:
    own = np.array([NOON_NS, -1, 2**63 - 1], "M8[ns]")
    swapped = own.astype(own.dtype.newbyteorder("S"))

    for unit in TimeUnit:
        found = timestamps(swapped, unit, clock)
        assert found.tolist() == timestamps(own, unit, clock).tolist()
        assert found.dtype == np.int64
