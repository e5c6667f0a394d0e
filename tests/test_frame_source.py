"""Tables of other libraries as sources: their rows, and what becomes of each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.frames import (
    CHANGES,
    FRAME,
    NOON_MS,
    Change,
    check,
    in_arrow,
    in_pandas,
    series,
)

from run_task import (
    ConfigError,
    Pipeline,
    RwLock,
    SourceError,
    SourceStats,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import mean
from run_task.sources import FrameSource, OnFault, PacedBatches, about, paced

pa: Any = importlib.import_module("pyarrow")  # it comes without types


@task
def nothing(data: Any, start: int, end: int) -> None:
    """Windows are not what is looked at here."""


def declared(source: Any, into: Any, **more: Any) -> Pipeline:
    pipeline = Pipeline("frames").source(source, into=into, **more)
    pipeline.stage("stage", [nothing], into, "1d")
    return pipeline


def entered(source: Any, into: Any, **more: Any) -> Pipeline:
    """A pipeline that has run live, to the end of its source."""
    pipeline = declared(source, into, **more)
    pipeline.run_sync()
    return pipeline


def fates(pipeline: Pipeline) -> tuple[int, int, int]:
    counts = pipeline.stats.sources["source-1"]
    return counts.received, counts.stored, counts.malformed


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_table_is_a_source(change: Change) -> None:
    made = series()
    assert fates(entered(change(FRAME), made)) == (3, 3, 0)
    check(made)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_batch_has_no_more_rows_than_it_is_to_have(change: Change) -> None:
    source = FrameSource(change(FRAME), unit=TimeUnit.MILLIS, batch_rows=2).fitting(series())
    batches = list(source.batches())
    assert sum(map(len, batches)) == 3
    assert max(map(len, batches)) <= 2
    assert [time for batch in batches for time in batch.timestamps.tolist()] == [
        NOON_MS,
        NOON_MS + 1000,
        NOON_MS + 2000,
    ]


def test_a_query_is_not_run_before_it_is_read_and_then_a_batch_at_a_time() -> None:
    runs: list[int] = []

    def noted(frame: pl.DataFrame) -> pl.DataFrame:
        runs.append(len(frame))
        return frame

    rows = pl.DataFrame({"time": range(100_000), "x": np.zeros(100_000)})
    query = rows.lazy().map_batches(noted, streamable=True)
    source = FrameSource(query, unit=TimeUnit.MILLIS, batch_rows=1000)
    runs.clear()
    batches = source.batches()
    assert not runs
    assert len(next(batches)) <= 1000
    assert sum(map(len, batches)) == 100_000 - 1000
    assert sum(map(len, source.batches())) == 100_000, "it can be read again"


def test_rows_that_are_none_are_malformed_and_the_others_are_stored() -> None:
    frame = pl.concat([FRAME, FRAME]).with_columns(
        size=pl.Series([1, None, 3, 4, 5, 6]),
        symbol=pl.Series(["a", "b", None, "a", "b", "a"]),
        time=pl.Series([*FRAME["time"][:2], None, *FRAME["time"]]),
    )
    letters: list[tuple[Any, ...]] = []
    made = series()

    def keep(*letter: Any) -> None:
        letters.append(letter)

    pipeline = entered(frame, made, dead_letters=keep)
    assert fates(pipeline) == (6, 4, 2)
    assert made.view()["size"].tolist() == [1, 4, 5, 6]
    details = [str(letter[2]) for letter in letters]
    assert "line 2, column 'size': there is a null" in details[0]
    assert "line 3, column 'time': there is no timestamp" in details[1]


def test_a_row_that_is_none_may_be_fatal() -> None:
    frame = FRAME.with_columns(size=pl.Series([1, None, 3]))
    made = series()
    with pytest.raises(ExceptionGroup) as failed:
        entered(FrameSource(frame, on_malformed=OnFault.RAISE), made)
    assert failed.group_contains(SourceError, match="column 'size': there is a null")
    assert made.view()["size"].tolist() == [1]


def test_what_is_malformed_for_the_most_part_is_refused() -> None:
    frame = pl.DataFrame({"time": range(200), "x": pl.Series([None] * 150 + [1] * 50)})
    source = FrameSource(frame, unit=TimeUnit.MILLIS).fitting(TimeSeries({"x": int}))
    with pytest.raises(SourceError, match="150 of 200 rows read here are malformed"):
        list(source)
    assert source.malformed == 150


def test_a_value_that_the_series_has_no_room_for_costs_its_row() -> None:
    frame = pl.DataFrame({"time": [1, 2, 3], "x": [1, 300, 3], "s": ["a", "b", "long"]})
    made = TimeSeries({"x": "i1", "s": "U2"})
    assert fates(entered(frame, made)) == (3, 1, 2)


@pytest.mark.parametrize("count", [3, 300])
def test_times_as_values_are_the_same_however_many_rows_enter_at_once(count: int) -> None:
    moment = datetime(2024, 7, 1, microsecond=1, tzinfo=UTC)
    frame = pl.DataFrame(
        {"time": range(count), "at": [moment, None, None] * (count // 3)},
        {"time": pl.Int64, "at": pl.Datetime("us", "UTC")},
    )
    for unit in ("us", "ns"):
        made = TimeSeries({"at": f"M8[{unit}]"})
        assert fates(entered(frame, made)) == (count, count, 0)
        found = made.view()["at"]
        assert found[0] == np.datetime64("2024-07-01T00:00:00.000001")
        assert np.isnat(found[1])
    coarse = TimeSeries({"at": "M8[ms]"})
    assert fates(entered(frame, coarse)) == (count, count // 3 * 2, count // 3)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop("price"), "column 'price' is missing"),
        (FRAME.with_columns(x=1), "the series has no column 'x'"),
        (FRAME.with_columns(size=pl.lit("1")), "column 'size' is string.* the series holds int64"),
        (FRAME.drop("time"), "no column holds times"),
        (FRAME.with_columns(pl.col("time").dt.replace_time_zone(None)), "names no time zone"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_declared(frame: Any, message: str) -> None:
    pipeline = Pipeline("frames")
    with pytest.raises(ConfigError, match=message):
        pipeline.source(frame, into=series())
    with pytest.raises(ConfigError, match=message):
        pipeline.source(frame, into=(series(), series()))
    assert not pipeline.sources


def test_a_zone_is_said_by_the_source_or_the_series() -> None:
    naive = FRAME.with_columns(
        pl.col("time").dt.convert_time_zone("Europe/Berlin").dt.replace_time_zone(None)
    )
    by_source, by_series = series(), series(zone="Europe/Berlin")
    entered(naive, by_source, zone="Europe/Berlin")
    entered(naive, by_series)
    for made in (by_source, by_series):
        check(made)


def test_columns_may_be_left_out_which_no_series_could_have() -> None:
    in_polars = FRAME.with_columns(junk=pl.Series([object()] * 3, dtype=pl.Object))
    of_pandas = in_pandas(FRAME).assign(junk=[1, "a", b"b"])
    in_lists = in_arrow(FRAME.with_columns(junk=pl.Series([[1], [2], [3]])))
    names = ["price", "size", "symbol", "good"]
    for frame in (in_polars, of_pandas, in_lists):
        made = series()
        entered(FrameSource(frame, columns=names), made)
        check(made)
        with pytest.raises(ConfigError, match="junk"):
            FrameSource(frame)
    with pytest.raises(ConfigError, match="there is no column 'other'; there are 'time', 'price'"):
        FrameSource(FRAME, columns=["other"])
    with pytest.raises(ConfigError, match=r"column 'symbol' is string.*, and is declared float64"):
        FrameSource(FRAME, columns={"symbol": float})


def test_without_a_series_its_columns_are_of_their_own_types() -> None:
    kept = RwLock[list[Any]]([])
    frame = FRAME[:1].with_columns(day=pl.lit("2024-07-01").str.to_date(), raw=pl.lit(b"\xff"))

    def keep(rows: list[Any], row: Any) -> None:
        rows.append(row)

    entered(frame, kept, ingest=keep, unit=TimeUnit.MILLIS)
    with kept.read() as rows:
        (row,) = rows
    assert row == {
        "price": 1.5,
        "size": 2**53 + 1,
        "symbol": "a",
        "good": True,
        "day": "2024-07-01",
        "raw": b"\xff",
    }


def test_it_tells_its_unit_and_its_last_row_and_whether_it_can_be_read_again() -> None:
    source = FrameSource(FRAME)
    assert about(source).unit is None
    assert about(source).last is None
    with pytest.raises(ConfigError, match="say by unit= in which unit"):
        list(source)
    source.count_in(TimeUnit.SECONDS)
    assert about(source).unit is TimeUnit.SECONDS
    assert about(source).last == NOON_MS // 1000 + 2
    with pytest.raises(ConfigError, match="in seconds, and not in millis"):
        source.count_in(TimeUnit.MILLIS)
    assert [time for time, _ in source] == [NOON_MS // 1000 + i for i in range(3)]
    assert not about(FrameSource(FRAME.lazy())).once
    assert about(FrameSource(in_arrow(FRAME).to_reader())).once
    reader = in_arrow(FRAME).to_reader()
    pipeline = declared(reader, series())
    list(pipeline.replay())
    with pytest.raises(ConfigError, match="once"):
        list(pipeline.replay())


def test_what_cannot_be_read_on_is_told_after_the_rows_before_it() -> None:
    schema = pa.schema([("time", pa.int64()), ("x", pa.int64())])

    def batches() -> Iterator[Any]:
        yield pa.record_batch({"time": [1, 2], "x": [1, 2]}, schema=schema)
        raise OSError("the line is gone")

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    made = TimeSeries({"x": int})
    with pytest.raises(ExceptionGroup) as failed:
        entered(reader, made)
    assert failed.group_contains(SourceError, match="cannot be read on: the line is gone")
    assert made.view()["x"].tolist() == [1, 2]


def test_a_frame_can_be_played() -> None:
    played = paced(FRAME, speed=1e6, unit=TimeUnit.MILLIS)
    assert isinstance(played, PacedBatches)
    made = series()
    entered(played, made)
    check(made)


def test_what_is_no_frame_is_refused() -> None:
    things: list[Any] = [[], FRAME["price"], object()]
    for thing in things:
        with pytest.raises(ConfigError, match="it is no table of polars"):
            FrameSource(thing)
    several: Any = ({"batch_rows": 0}, {"max_malformed": 2}, {"unit": "ms"}, {"zone": "nowhere"})
    for wrong in several:
        with pytest.raises(ConfigError):
            FrameSource(FRAME, **wrong)


@pytest.mark.parametrize("at_once", [False, True])
def test_rows_that_enter_ahead_of_their_time_count_by_the_windows_given(at_once: bool) -> None:
    """A frame in order enters its series at once, which the counts do not show."""

    @task
    def own(rows: TimeSeriesView, start: int, end: int) -> int:
        return len(rows.in_window)

    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    frame = pl.DataFrame({"time": range(500), "x": np.arange(500.0)})
    pipeline = Pipeline("p").source(frame, series)
    stage = pipeline.stage("s", [mean("x")] if at_once else [own], series, "10s")
    counts: SourceStats | None = None
    with pipeline.replay() as replay:
        for number, _ in enumerate(replay.of(stage), 1):
            counts = replay.summary.sources["source-1"]
            assert counts.received == 500 == counts.stored + counts.waiting
            # Declared ones are run many at a time, of which each counts once all have been run.
            assert counts.stored >= 10 * number if at_once else counts.stored == 10 * number
            if number == 30:
                break
        counts = replay.summary.sources["source-1"]
    assert pipeline.stats.sources["source-1"] == counts
    assert len(list(pipeline.replay())) == 50
    assert pipeline.stats.sources["source-1"].stored == 500
