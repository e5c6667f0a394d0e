"""Windows of real series, against those that polars makes of the same file, to the last bit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from run_task import TimeSeries, TimeUnit

SERIES = ("nyc_taxi", "machine_temperature_system_failure", "ec2_request_latency_system_failure")

MEAN_AND_SPREAD = (pl.col("value").mean().alias("mean"), pl.col("value").std().alias("std"))


def read(nab: Path, name: str) -> pl.DataFrame:
    """The file as it is: one is not in the order of time, two have timestamps twice."""
    return pl.read_csv(nab / f"{name}.csv", try_parse_dates=True).select(
        pl.col("timestamp").cast(pl.Datetime("ms")).alias("time"), pl.col("value").cast(float)
    )


def extended(frame: pl.DataFrame) -> TimeSeries:
    series = TimeSeries({"value": float}, TimeUnit.MILLIS)
    for batch in frame.iter_slices(997):
        series.extend(batch["time"].cast(pl.Int64), value=batch["value"])
    return series


def appended(frame: pl.DataFrame) -> TimeSeries:
    series = TimeSeries({"value": float}, TimeUnit.MILLIS)
    for time, value in zip(frame["time"].cast(pl.Int64), frame["value"]):
        series.append(time, value=value)
    return series


@pytest.mark.parametrize("name", SERIES)
# Windows that overlap are those that do not, at several offsets. (polars carries a sum along from
# one that overlaps to the next, which rounds otherwise than a sum of the window.)
@pytest.mark.parametrize(
    ("period", "offset"), [("3h", "0h"), ("1d", "0h"), ("1d", "6h"), ("1d", "12h"), ("1d", "18h")]
)
def test_windows_are_those_of_polars(nab: Path, name: str, period: str, offset: str) -> None:
    frame = read(nab, name)
    groups = (
        # Rows of one timestamp stay in the order of the file.
        frame.sort("time", maintain_order=True)
        .group_by_dynamic("time", every=period, offset=offset, closed="left")
        .agg(
            "value",
            *MEAN_AND_SPREAD,
            pl.col("value").min().alias("min"),
            pl.col("value").max().alias("max"),
            pl.len().alias("count"),
        )
        .with_columns(pl.col("time").cast(pl.Int64))
    )
    length = int(period[:-1]) * {"h": 3_600_000, "d": 86_400_000}[period[-1]]
    for series in (extended(frame), appended(frame)):
        with series.read() as view:
            assert groups["count"].sum() == len(view) == len(frame)
            for group in groups.iter_rows(named=True):
                window = view.between(group["time"], group["time"] + length)
                values = window["value"]
                assert values.tolist() == group["value"]
                assert (values.min(), values.max()) == (group["min"], group["max"])
                assert len(window) == group["count"]
                # How a sum is rounded depends on who sums up, so polars does so for both.
                mean, std = window.to_polars().select(*MEAN_AND_SPREAD).row(0)
                assert (mean, std) == (group["mean"], group["std"])
