"""Tables of series and of results: times with a zone, and round trips that give what went in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.frames import in_arrow
from tests.support.proof import examples

from run_task import (
    CalendarInterval,
    Closed,
    ConfigError,
    DataSet,
    DataSets,
    KeyedDataSet,
    KeyedDataSets,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
)

pd: Any = importlib.import_module("pandas")  # it comes without types

KINDS: Mapping[str, Any] = {
    "number": float,
    "short": "f4",
    "whole": int,
    "large": "u8",
    "text": str,
    "fixed": "U3",
    "raw": "S3",
    "flag": bool,
    "moment": "M8[us]",
    "day": "M8[D]",
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
moments = st.none() | st.integers(-(2**55), 2**55)

rows = st.fixed_dictionaries(
    {
        "number": st.floats(),
        "short": st.floats(width=32),
        "whole": st.integers(-(2**63), 2**63 - 1),
        "large": st.integers(0, 2**64 - 1),
        "text": texts,
        "fixed": texts.map(lambda text: text[:3].rstrip("\0")),
        "raw": st.binary(max_size=3).map(lambda raw: raw.rstrip(b"\0")),
        "flag": st.booleans(),
        "moment": moments.map(lambda n: np.datetime64("NaT" if n is None else n, "us")),
        "day": st.integers(-(2**16), 2**16).map(lambda n: np.datetime64(n, "D")),
    }
)
zones = st.sampled_from([None, "UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia"])
closings = st.sampled_from(Closed)


@st.composite
def filled(draw: st.DrawFn) -> TimeSeries:
    """A series of every kind of column, with rows that any table can hold."""
    unit = draw(st.sampled_from(TimeUnit))
    made = TimeSeries(KINDS, unit, closed=draw(closings), zone=draw(zones))
    longest = 2**62 // max(1, unit.nanos // 10**6)  # of milliseconds, which polars makes of seconds
    times = st.integers(-longest, longest)
    for time, row in draw(st.lists(st.tuples(times, rows), max_size=5)):
        made.append(time, **row)
    return made


def twin_of(series: TimeSeries, frame: Any) -> TimeSeries:
    """A series like another one, of the rows of a table."""
    columns = {
        name: str if kind == np.dtype(str) else kind for name, kind in series.columns.items()
    }
    made = TimeSeries(columns, series.unit, closed=series.closed, zone=series.zone)
    made.extend(frame)
    return made


def check_same(one: TimeSeriesView, other: TimeSeriesView) -> None:
    assert one.time.tolist() == other.time.tolist()
    for name in one.columns:  # NaN is equal to no NaN, and -0.0 to 0.0
        assert list(map(repr, one[name])) == list(map(repr, other[name])), name


def out(view: TimeSeriesView) -> Mapping[str, Any]:
    return {"arrow": view.to_arrow(), "polars": view.to_polars(), "pandas": view.to_pandas()}


def check_same_table(one: Any, other: Any) -> None:
    """Texts may stand in another order in the dictionary of a column."""
    if isinstance(one, pl.DataFrame):
        assert one.schema == other.schema
    elif hasattr(one, "schema"):
        assert one.schema.equals(other.schema)
    else:
        assert [str(kind) for kind in one.dtypes] == [str(kind) for kind in other.dtypes]
    assert plain(one).equals(plain(other))


def plain(table: Any) -> pl.DataFrame:
    with_codes: Any = table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)
    made: pl.DataFrame = with_codes.with_columns(pl.col("text").cast(pl.String))
    return made


@given(filled())
@settings(max_examples=examples(50))  # each makes tables of three libraries, and series of these
def test_a_series_is_the_same_after_it_was_a_table_and_so_is_the_table(series: TimeSeries) -> None:
    view = series.view()
    for frame in out(view).values():
        twin = twin_of(series, frame)
        check_same(twin.view(), view)
        check_same_table(out(twin.view())[_kind(frame)], frame)
    check_same(twin_of(series, view.to_polars().lazy()).view(), view)
    check_same(twin_of(series, view.to_pandas().set_index("time")).view(), view)


def _kind(frame: Any) -> str:
    library: str = type(frame).__module__.partition(".")[0]
    return library.removeprefix("py")


def test_bytes_with_a_zero_in_them_are_whole() -> None:
    series = TimeSeries({"raw": "S3"})
    series.append(1, raw=b"\0\1")
    for frame in out(series.view()).values():
        assert twin_of(series, frame).view()["raw"].tolist() == [b"\0\1"]


@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)),  # noqa: DTZ001 as hypothesis takes them
            st.none() | st.floats(allow_nan=False),
            st.integers(-(2**63), 2**63 - 1),
            texts,
        ),
        max_size=5,
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]),
    st.sampled_from(["us", "ns"]),
)
def test_a_table_is_the_same_after_it_was_a_series(
    found: list[tuple[Any, ...]], zone: str, unit: Any
) -> None:
    schema: Any = {
        "time": pl.Datetime("us", "UTC"),
        "price": pl.Float64,
        "size": pl.Int64,
        "symbol": pl.String,
    }
    frame = pl.DataFrame(
        [(time.replace(tzinfo=UTC), *others) for time, *others in found], schema, orient="row"
    )
    frame = frame.with_columns(
        pl.col("time").dt.convert_time_zone(zone).dt.cast_time_unit(unit),
        pl.col("price").fill_null(float("nan")),
    ).sort("time", maintain_order=True)
    series = TimeSeries(
        {"price": float, "size": int, "symbol": str},
        TimeUnit.MICROS if unit == "us" else TimeUnit.NANOS,
        zone=zone,
    )
    series.extend(frame)
    back = series.view().to_polars().with_columns(pl.col("symbol").cast(pl.String))
    assert back.equals(frame)
    assert back.schema == frame.schema
    in_pandas: Any = frame.to_pandas()
    assert series.view().to_pandas()["time"].tolist() == in_pandas["time"].tolist()
    assert series.view().to_arrow()["time"].to_pylist() == in_arrow(frame)["time"].to_pylist()


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (None, "UTC"),
        ("Europe/Berlin", "Europe/Berlin"),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (timezone(timedelta(hours=2)), "UTC"),  # which polars has no name for
    ],
)
def test_times_are_shown_in_the_zone_of_the_series(zone: Any, name: str) -> None:
    series = TimeSeries({"x": int}, TimeUnit.MINUTES, zone=zone)
    summer, winter = datetime(2024, 7, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC)
    series.extend([summer, winter], x=[1, 2])
    tables = out(series.view())
    assert str(tables["arrow"].schema.field("time").type) == f"timestamp[s, tz={name}]"
    assert tables["polars"].schema["time"] == pl.Datetime("ms", name)
    assert str(tables["pandas"].dtypes["time"]) == f"datetime64[s, {name}]"
    for table in (tables["arrow"]["time"].to_pylist(), tables["polars"]["time"].to_list()):
        assert table == [summer, winter]
        assert table[0].utcoffset() == summer.astimezone(ZoneInfo(name)).utcoffset()
    assert tables["pandas"]["time"].tolist() == [summer, winter]


def results(interval: Any, count: int = 3) -> DataSets[Any]:
    ends = range(10, 10 * (count + 1), 10)
    return DataSets(
        DataSet(
            Window(end - 10, end),
            {"mean": end / 4, "n": end, "side": "ab"[end % 20 // 10]},
            interval=interval,
        )
        for end in ends
    )


@pytest.mark.parametrize(
    ("interval", "arrow", "name"),
    [
        (TaskInterval.nanos(10), "ns", "UTC"),
        (TaskInterval.micros(10), "us", "UTC"),
        (TaskInterval.millis(10), "ms", "UTC"),
        (TaskInterval.seconds(10), "s", "UTC"),
        (TaskInterval.minutes(10), "s", "UTC"),
        (CalendarInterval.days(1, zone="Europe/Berlin"), "s", "Europe/Berlin"),
    ],
)
def test_the_table_of_results_tells_the_ends_of_windows_as_the_results_do(
    interval: Any, arrow: str, name: str
) -> None:
    datasets = results(interval)
    ends = [dataset.end_time for dataset in datasets] if arrow != "ns" else None
    of_arrow, of_polars, of_pandas = (
        datasets.to_arrow(),
        datasets.to_polars(),
        datasets.to_pandas(),
    )
    polars_unit: Any = "ms" if arrow == "s" else arrow
    assert str(of_arrow.schema.field("timestamp").type) == f"timestamp[{arrow}, tz={name}]"
    assert of_polars.schema["timestamp"] == pl.Datetime(polars_unit, name)
    assert str(of_pandas.dtypes["timestamp"]) == f"datetime64[{arrow}, {name}]"
    if ends is not None:
        assert of_arrow["timestamp"].to_pylist() == of_polars["timestamp"].to_list() == ends
        assert of_pandas["timestamp"].tolist() == ends
    assert datasets.columns()["timestamp"] == [10, 20, 30], "they are as the results have them"


def test_ends_that_nobody_can_tell_stay_numbers() -> None:
    mixed = DataSets([*results(TaskInterval.seconds(1), 1), *results(TaskInterval.millis(1), 1)])
    for datasets in (results(None), mixed, DataSets[Any]()):
        assert datasets.to_polars().schema["timestamp"] == pl.Int64
        assert str(datasets.to_arrow().schema.field("timestamp").type) == "int64"
        assert str(datasets.to_pandas().dtypes["timestamp"]) == "int64"


def test_an_end_that_no_column_holds_is_refused() -> None:
    far = DataSets([DataSet(Window(0, 2**62), {"x": 1}, interval=TaskInterval.minutes(1))])
    for convert in (far.to_arrow, far.to_polars, far.to_pandas):
        with pytest.raises(ConfigError, match=r"'timestamp'.* do not hold"):
            convert()


def conversions(table: Any) -> list[Callable[[], Any]]:
    return [table.to_arrow, table.to_polars, table.to_pandas]


@pytest.mark.parametrize("interval", [TaskInterval.nanos(10), TaskInterval.minutes(10)])
def test_results_are_the_same_after_they_were_a_series(interval: TaskInterval) -> None:
    datasets = results(interval)
    for convert in conversions(datasets):
        series = TimeSeries(
            {"mean": float, "n": int, "side": str}, interval.unit, closed=Closed.RIGHT
        )
        series.extend(convert())
        view = series.view()
        columns = datasets.columns()
        assert view.time.tolist() == columns.pop("timestamp")
        assert {name: view[name].tolist() for name in columns} == columns
        again = view.to_polars().rename({"time": "timestamp"})
        assert again.with_columns(pl.col("side").cast(pl.String)).equals(datasets.to_polars())


def test_results_by_key_are_the_same_after_they_were_a_series() -> None:
    second = TaskInterval.seconds(10)
    datasets = KeyedDataSets(
        KeyedDataSet(
            Window(end - 10, end), "symbol", {"mean": {"A": end / 4, "B": 1.5}}, interval=second
        )
        for end in (10, 20)
    )
    for convert in conversions(datasets):
        series = TimeSeries(
            {"symbol": str, "mean": float}, TimeUnit.SECONDS, closed=Closed.RIGHT, key="symbol"
        )
        series.extend(convert())
        view = series.view()
        assert view.time.tolist() == [10, 10, 20, 20]
        assert view["symbol"].tolist() == ["A", "B", "A", "B"]
        assert view["mean"].tolist() == [2.5, 1.5, 5.0, 1.5]
        assert datasets.to_polars()["timestamp"].to_list()[0] == datasets[0].end_time


def test_a_result_that_failed_is_nan_in_a_series() -> None:
    ends = [DataSet(Window(0, 1), {"x": 1.5}), DataSet(Window(1, 2), {"x": None})]
    for convert in conversions(DataSets(ends)):
        series = TimeSeries({"x": float}, closed=Closed.RIGHT)
        series.extend(convert())
        assert np.array_equal(series.view()["x"], [1.5, np.nan], equal_nan=True)
