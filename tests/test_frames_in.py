"""Tables of other libraries as rows of a series: whatever table, and never by halves."""

from __future__ import annotations

import importlib
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.frames import (
    CHANGES,
    FRAME,
    LARGE,
    TIMES,
    Change,
    cast,
    check,
    in_arrow,
    in_pandas,
    series,
)

from run_task import ConfigError, TimeSeries, TimeUnit

pa: Any = importlib.import_module("pyarrow")  # it comes without types


def filled(frame: Any, **more: Any) -> TimeSeries:
    made = series()
    made.extend(frame, **more)
    return made


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_table_is_added(change: Change) -> None:
    check(filled(change(FRAME)))


def test_the_column_of_times_may_be_told() -> None:
    twice = FRAME.rename({"time": "at"}).with_columns(pl.lit("x").alias("time"))
    with pytest.raises(ConfigError, match="no column 'time', but 'price', 'size'"):
        filled(twice, timestamp="at")
    check(filled(twice.drop("time"), timestamp="at"))


def test_times_that_name_no_zone_are_those_of_a_zone_that_somebody_has_said() -> None:
    there = FRAME.with_columns(
        pl.col("time").dt.convert_time_zone("Europe/Berlin").dt.replace_time_zone(None)
    )
    with pytest.raises(ConfigError, match=r"column 'time' is .* names no time zone: say by zone="):
        filled(there)
    check(filled(there, zone="Europe/Berlin"))
    local = series(zone="Europe/Berlin")
    local.extend(there)
    check(local)
    days = pl.DataFrame({"time": [date(2024, 7, 1)], "x": [1.0]})
    daily = TimeSeries({"x": float}, TimeUnit.SECONDS, zone="Europe/Berlin")
    daily.extend(days)
    assert daily.view().time.tolist() == [1_719_784_800]


REFUSED: list[tuple[Change, str]] = [
    (lambda frame: frame.drop("price"), "column 'price' is missing, which the series has"),
    (lambda frame: frame.with_columns(x=1), "the series has no column 'x', but 'price'"),
    (cast("price", pl.String), "column 'price' is string.*, and the series holds float64"),
    (
        lambda frame: frame.with_columns(symbol=pl.lit(1)),
        "column 'symbol' is int32, and the series holds str",
    ),
    (
        lambda frame: frame.with_columns(size=pl.Series([1.0, 2.5, 3.0])),
        r"column 'size', row 1, .*2\.5.* has a fraction",
    ),
    (
        lambda frame: frame.with_columns(size=pl.Series([1, None, 3])),
        "column 'size', row 1: there is a null",
    ),
    (
        lambda frame: frame.with_columns(good=pl.Series([True, True, None])),
        "column 'good', row 2: there is a null",
    ),
    (
        lambda frame: frame.with_columns(symbol=pl.Series(["a", None, "b"])),
        "column 'symbol', row 1: there is a null",
    ),
    (
        lambda frame: frame.with_columns(symbol=pl.Series(["a", None, "b"], dtype=pl.Categorical)),
        "column 'symbol', row 1: there is a null",
    ),
    (
        lambda frame: frame.with_columns(symbol=pl.lit(None)),
        "column 'symbol', row 0: there is a null",
    ),
    (
        lambda frame: frame.with_columns(time=pl.Series([TIMES[0], None, TIMES[1]])),
        "column 'time', row 1: there is no timestamp",
    ),
    (lambda frame: frame.drop("time"), "no column holds times, .* say which it is by timest"),
    (
        lambda frame: frame.rename({"time": "a"}).with_columns(b=pl.col("a")),
        "several columns hold times, .* say which it is by timestamp=; there are 'a', 'b'",
    ),
    (
        lambda frame: frame.with_columns(pl.col("time").dt.to_string("iso")),
        "column 'time' is string.*, and times are timestamps, dates, or ints",
    ),
    (
        lambda frame: frame.with_columns(
            symbol=pl.Series([object(), object(), object()], dtype=pl.Object)
        ),
        "column 'symbol' is Object, which Arrow has not",
    ),
    (cast("size", pl.Int128), "column 'size' is Int128, which Arrow has not"),
    (
        lambda frame: in_pandas(frame).assign(symbol=["a", 1, b"b"]),
        "Arrow cannot read it: .*symbol",
    ),
    (
        lambda frame: in_pandas(frame).rename(columns={"good": "size"}),
        "there are 2 columns 'size'",
    ),
    (
        lambda frame: pa.Table.from_arrays([pa.array([1])] * 2, names=["size", "size"]),
        "there are 2 columns 'size'",
    ),
    (
        lambda frame: frame.lazy().with_columns(pl.col("nothing")),
        "Arrow cannot read it: .*nothing",
    ),
    (
        lambda frame: frame.lazy().with_columns(pl.col("symbol").cast(pl.Int64)),
        "column 'symbol' is int64",
    ),
    (
        lambda frame: frame.lazy().with_columns(pl.col("symbol").cast(int).cast(str)),
        "Arrow cannot read it: .*conversion",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_stored(
    change: Change, message: str
) -> None:
    made = series()
    with pytest.raises(ConfigError, match=message):
        made.extend(change(FRAME))
    assert not len(made.view())


def test_a_frame_has_all_its_columns_itself() -> None:
    with pytest.raises(ConfigError, match=r"price= is given beside a frame, .* put it into the"):
        series().extend(FRAME, price=[1.0])
    with pytest.raises(ConfigError, match="there is no column 'when'; there are 'time'"):
        series().extend(FRAME, timestamp="when")


def test_columns_of_tables_are_still_columns() -> None:
    made = TimeSeries({"size": int})
    frames: list[Any] = [FRAME, in_arrow(FRAME), in_pandas(FRAME)]
    for frame in frames:
        made.extend(frame["time"], size=frame["size"])
    assert made.view()["size"].tolist() == [LARGE] * 3 + [2] * 3 + [3] * 3


def test_columns_of_every_kind() -> None:
    kinds = {
        "f": "f4",
        "i": "i2",
        "u": "u8",
        "fixed": "U3",
        "raw": "S2",
        "day": "M8[D]",
        "us": "M8[us]",
        "count": "M8[s]",
    }
    frame = pl.DataFrame(
        {
            "time": [1, 2],
            "f": [0.5, None],
            "i": pl.Series([-1, 2], dtype=pl.Int8),
            "u": pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
            "fixed": ["abc", ""],
            "raw": [b"\xff", b"ok"],
            "day": [date(2024, 1, 1), None],
            "us": [datetime(2024, 1, 1, tzinfo=UTC), None],
            "count": [5, 6],
        }
    )
    made = TimeSeries(kinds, TimeUnit.SECONDS)
    made.extend(frame)
    made.extend(in_arrow(frame))
    view = made.view()
    assert view["u"].tolist() == [2**64 - 1] * 2 + [0] * 2
    assert view["fixed"].tolist() == ["abc", "abc", "", ""]
    assert view["raw"].tolist() == [b"\xff"] * 2 + [b"ok"] * 2
    assert view["day"].tolist() == [date(2024, 1, 1)] * 2 + [None] * 2
    assert view["us"][0] == np.datetime64("2024-01-01")
    assert view["count"].astype("i8").tolist() == [5, 5, 6, 6]
    for change, message in (
        (pl.col("i") + 2**15, "column 'i', row 1, .* beyond int16"),
        (pl.col("fixed") + "def", "column 'fixed', row 0, .* is longer than the 3"),
        (pl.lit("a\0").alias("fixed"), "column 'fixed', row 0, .* ends in a NUL"),
        (pl.lit(datetime(2024, 1, 1, 12)).alias("day"), "column 'day', row 0: .* cannot be told"),  # noqa: DTZ001 as columns of NumPy's times are
        (pl.lit(None, pl.Int64).alias("u"), "column 'u', row 0: there is a null"),
        (pl.lit(b"abc").alias("raw"), "column 'raw', row 0, .* is longer than the 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            made.extend(frame.with_columns(change))


def test_an_int_beside_nulls_stays_exact_among_ints_and_is_the_nearest_float_among_floats() -> None:
    ints = pa.table({"time": [1, 2], "x": pa.array([LARGE, None])})
    floats = TimeSeries({"x": float})
    floats.extend(ints)
    assert floats.view()["x"][0] == float(LARGE)
    whole = TimeSeries({"x": int})
    whole.extend(ints.slice(0, 1))
    assert whole.view()["x"].tolist() == [LARGE]


@pytest.mark.parametrize(
    "empty",
    [FRAME[:0], FRAME[:0].lazy(), in_arrow(FRAME[:0]), in_arrow(FRAME[:0]).to_reader()],
    ids=["polars", "a query", "a table", "a reader"],
)
def test_no_rows_add_none(empty: Any) -> None:
    assert not len(filled(empty).view())


def test_rows_that_are_not_in_order_go_to_their_place() -> None:
    check(filled(FRAME[::-1]))


def test_what_looks_like_no_table_is_none() -> None:
    for thing in (3, "text", object(), pa.scalar(1)):
        with pytest.raises(ConfigError, match="one value"):
            series().extend(thing, price=[1.0], size=[1], symbol=["a"], good=[True])


def test_without_pyarrow_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow, .*pip install .*\[arrow\]"):
        series().extend(FRAME)
