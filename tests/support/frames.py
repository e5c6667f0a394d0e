"""One table in the forms that libraries have for it, and the series that it becomes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from run_task import TimeSeries, TimeUnit

duckdb: Any = importlib.import_module("duckdb")
pa: Any = importlib.import_module("pyarrow")
pads: Any = importlib.import_module("pyarrow.dataset")
pd: Any = importlib.import_module("pandas")

NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
NOON_MS = 1_719_835_200_000
TIMES = [NOON, NOON + timedelta(seconds=1), NOON + timedelta(seconds=2)]
LARGE = 2**53 + 1
FRAME = pl.DataFrame(
    {
        "time": TIMES,
        "price": [1.5, None, 2.5],
        "size": [LARGE, 2, 3],
        "symbol": ["a", "b", "a"],
        "good": [True, False, True],
    }
)

Change = Callable[[pl.DataFrame], Any]


def series(**more: Any) -> TimeSeries:
    columns = {"price": float, "size": int, "symbol": str, "good": bool}
    return TimeSeries(columns, TimeUnit.MILLIS, **more)


def check(made: TimeSeries) -> None:
    view = made.view()
    assert view.time.tolist() == [NOON_MS, NOON_MS + 1000, NOON_MS + 2000]
    assert view["price"].tolist()[::2] == [1.5, 2.5]
    assert math.isnan(view["price"][1])
    assert view["size"].tolist() == [LARGE, 2, 3]
    assert view["symbol"].tolist() == ["a", "b", "a"]
    assert view["good"].tolist() == [True, False, True]


def cast(column: str, dtype: Any) -> Change:
    return lambda frame: frame.with_columns(pl.col(column).cast(dtype))


def in_arrow(frame: pl.DataFrame) -> Any:
    typed: Any = frame
    return typed.to_arrow()


def in_pandas(frame: pl.DataFrame) -> Any:
    return pd.DataFrame(
        {name: frame[name].to_list() for name in frame.columns} | {"size": frame["size"].to_list()}
    ).astype({"time": "datetime64[us, UTC]"})


CHANGES: dict[str, Change] = {
    "polars": lambda frame: frame,
    "a query": lambda frame: frame.lazy(),
    "a table": in_arrow,
    "several chunks": lambda frame: pa.concat_tables([in_arrow(frame[:1]), in_arrow(frame[1:])]),
    "a record batch": lambda frame: in_arrow(frame).to_batches()[0],
    "a reader": lambda frame: in_arrow(frame).to_reader(max_chunksize=1),
    "a dataset": lambda frame: pads.dataset(in_arrow(frame)),
    "a scanner": lambda frame: pads.dataset(in_arrow(frame)).scanner(),
    "a relation of DuckDB": lambda frame: duckdb.from_arrow(in_arrow(frame)),
    "pandas": in_pandas,
    "an index": lambda frame: in_pandas(frame).set_index("time"),
    "an index without a name": lambda frame: in_pandas(frame).set_index("time").rename_axis(None),
    "two indexes": lambda frame: in_pandas(frame).set_index(["symbol", "time"]),
    "an index that is no column": lambda frame: in_pandas(frame).rename_axis("number"),
    "pandas categories": lambda frame: in_pandas(frame).astype({"symbol": "category"}),
    "pandas over Arrow": lambda frame: in_pandas(frame).convert_dtypes(dtype_backend="pyarrow"),
    "pandas with nulls": lambda frame: in_pandas(frame).convert_dtypes(),
    "categories": cast("symbol", pl.Categorical),
    "an enum": cast("symbol", pl.Enum(["b", "a"])),
    "decimals": cast("price", pl.Decimal(12, 3)),
    "whole decimals": cast("size", pl.Decimal(20, 0)),
    "unsigned ints": cast("size", pl.UInt64),
    "other columns first": lambda frame: frame.select(reversed(frame.columns)),
    "another name": lambda frame: frame.rename({"time": "at"}),
    "ints for times": lambda frame: frame.with_columns(pl.col("time").dt.epoch("ms")),
    "another zone": lambda frame: frame.with_columns(
        pl.col("time").dt.convert_time_zone("Asia/Kathmandu")
    ),
    "nanoseconds": lambda frame: frame.with_columns(pl.col("time").dt.cast_time_unit("ns")),
}
