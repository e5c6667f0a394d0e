"""The results of a stage as rows of a series that other stages read."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NewType, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.threads import PATIENCE, together

from run_task import (
    Closed,
    ConfigError,
    DataSet,
    Pipeline,
    RunnerConfig,
    Stage,
    Task,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.sinks import CallbackSink
from run_task.sources import CsvFile, OnFault, paced

if TYPE_CHECKING:
    from decimal import Decimal

SECOND = TaskInterval.seconds(1)
TWO = TaskInterval.seconds(2)

Celsius = NewType("Celsius", float)


class Level(NamedTuple):
    low: float
    size: int


@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    is_up: bool


class Spread(NamedTuple):
    low: float
    extra: list[float]


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float | None:
    values = view.in_window["value"]
    return float(values.mean()) if len(values) else None


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def stamps(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.time))


def numbers(*values: tuple[int, float | None]) -> list[tuple[int, dict[str, float | None]]]:
    return [(time, {"value": value}) for time, value in values]


def first_stage(
    tasks: Sequence[Task[TimeSeriesView, Any]], recorded: Any, interval: TaskInterval = TWO
) -> tuple[Pipeline, Stage[TimeSeriesView, Any]]:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("p").source(recorded, into=series)
    return pipeline, pipeline.stage("first", tasks, series, interval)


def of(stage: str, pipeline: Pipeline) -> list[DataSet[Any]]:
    return [dataset for name, dataset in pipeline.replay() if name == stage]


# series()


def test_a_series_of_results_has_a_column_a_task_and_is_wired() -> None:
    pipeline, first = first_stage([mean, rows], numbers((0, 1.0), (1, 2.0), (4, 7.0)))
    results = first.series(retention=10)
    assert isinstance(results, TimeSeries)
    assert results.closed is Closed.RIGHT
    assert results.unit is TimeUnit.SECONDS
    assert results.retention == 10
    assert dict(results.columns) == {"mean": np.dtype(float), "rows": np.dtype(int)}

    @task
    def last(view: TimeSeriesView, start: int, end: int) -> tuple[int, float, int]:
        newest = view.in_window
        return int(newest.time[-1]), float(newest["mean"][-1]), int(newest["rows"][-1])

    pipeline.stage("second", [last], results, TWO)
    got = [dataset[last] for dataset in of("second", pipeline)]
    assert got[0] == (2, 1.5, 2)
    assert got[1][0] == 4
    assert np.isnan(got[1][1])  # there is no mean of no rows, but there is their number
    assert got[1][2] == 0
    assert got[2] == (6, 7.0, 1)


def test_a_series_of_results_is_the_same_when_asked_for_again() -> None:
    _, first = first_stage([rows], [])
    results = first.series(TaskInterval.minutes(1))
    assert first.series(TaskInterval.minutes(1)) is results
    assert len(first.routes) == 1
    with pytest.raises(ConfigError, match="ask for it with the same"):
        first.series()
    with pytest.raises(ConfigError, match="ask for it with the same"):
        first.series(5)


class Object:
    """A task that is an object."""

    name = "object"

    def run(self, view: TimeSeriesView, start: int, end: int) -> float:
        return 1.0


class Callable:
    def __call__(self, view: TimeSeriesView, start: int, end: int) -> bool:
        return True


def scaled(factor: float, view: Any, start: int, end: int) -> float:
    return factor


@task
def optional(view: Any, start: int, end: int) -> Optional[Celsius]:  # noqa: UP045  the old way to say it
    return None


@task
def only_for_checkers(view: Decimal, start: int, end: int) -> int:
    return 1


@functools.wraps(scaled)
def wrapper(*args: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("runnable", "kind"),
    [
        (mean, "f8"),
        (rows, "i8"),
        (Object(), "f8"),
        (Task(Callable(), "callable"), "b1"),
        (Task(functools.partial(scaled, 2.0), "partial"), "f8"),
        (Task(wrapper, "wrapper"), "f8"),
        (optional, "f8"),
        (only_for_checkers, "i8"),
    ],
)
def test_a_column_is_of_the_kind_that_a_task_says_it_returns(runnable: Any, kind: str) -> None:
    _, first = first_stage([runnable], [])
    assert dict(first.series().columns) == {runnable.name: np.dtype(kind)}


def test_results_that_are_texts_are_a_column_of_texts() -> None:
    @task
    def level(view: TimeSeriesView, start: int, end: int) -> str:
        return "high" if len(view.in_window) > 1 else "low"

    @task
    def levels(view: TimeSeriesView, start: int, end: int) -> list[str]:
        return list(view["level"])

    series = TimeSeries({"key": str}, TimeUnit.SECONDS, key="key")
    series.extend([1, 2, 3, 14], key=["a", "b", "b", "a"])
    pipeline = Pipeline("p")
    plain = pipeline.stage("plain", [level], series, "10s").series()
    keyed = pipeline.stage("keyed", [level], series, "10s", by="key").series()
    assert dict(plain.columns) == {"level": np.dtype(str)}
    of_plain = pipeline.stage("of plain", [levels], plain, "10s")
    of_keyed = pipeline.stage("of keyed", [levels], keyed, "10s")
    given = [dataset[levels] for dataset in pipeline.replay().of(of_plain)]
    assert given == [["high"], ["high", "low"]]
    given = [dataset[levels] for dataset in pipeline.replay().of(of_keyed)]
    assert given == [["low", "high"], ["low", "high", "low"]]


def returning(annotation: Any) -> Task[Any, Any]:
    def result(view: Any, start: int, end: int) -> Any:
        return None

    result.__annotations__["return"] = annotation
    return Task(result, "result")


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.bool_])
def test_kinds_of_numpy_are_columns_too(kind: Any) -> None:
    _, first = first_stage([returning(kind)], [])
    assert first.series().columns["result"] == np.dtype(kind)


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (str | None, r"returns str \| None, which makes no column"),
        (bool | None, r"returns bool \| None, which"),
        (Spread, r"in field 'extra' list\[float\], which makes no column"),
        (Named | None, r"in field 'name' str \| None, which makes no column"),
        (float | int, "which makes no column"),
        (list[float], r"returns list\[float\]"),
        (dict, "returns dict"),
        (None, "returns None"),
        (Any, "returns .*Any"),
        (object, "returns object"),
        (Fraction, "returns Fraction"),
        ("Missing", "'Missing', has no meaning where it stands"),
        ("float |", "has no meaning"),
    ],
)
def test_results_that_make_no_column_are_refused(annotation: Any, told: str) -> None:
    _, first = first_stage([rows, returning(annotation)], [])
    with pytest.raises(ConfigError, match=f"^stage 'first': .*task 'result' .*{told}"):
        first.series()
    assert first.routes == ()


@task
def level(view: TimeSeriesView, start: int, end: int) -> Level:
    return Level(end / 2, end)


@task
def at_times(view: TimeSeriesView, start: int, end: int) -> Level | None:
    return None if end == 4 else Level(end / 2, end)


@task
def named(view: TimeSeriesView, start: int, end: int) -> Named:
    return Named(f"to {end}", end > 2)


@pytest.mark.parametrize("by", [None, "key"])
def test_a_series_has_a_column_for_each_field(by: str | None) -> None:
    series = TimeSeries({"key": str, "value": float}, TimeUnit.SECONDS, key="key")
    pipeline = Pipeline("p")
    pipeline.source([(t, {"key": "a", "value": 0.0}) for t in range(6)], into=series)
    made: Any = pipeline.stage
    options: dict[str, Any] = {} if by is None else {"by": by}
    first = made("first", [level, at_times, named], series, TWO, **options)
    results = first.series()
    kinds = {name: dtype.kind for name, dtype in results.columns.items() if name != by}
    assert kinds == {
        "level_low": "f",
        "level_size": "i",
        "at_times_low": "f",
        "at_times_size": "f",
        "named_name": "U",
        "named_is_up": "b",
    }
    own = TimeSeries({"level_size": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    if by is None:
        first.into(own)
    rows: list[Any] = []

    @task
    def look(view: TimeSeriesView, start: int, end: int) -> int:
        rows.extend([view[name].tolist() for name in kinds])
        return 0

    made("second", [look], results, TaskInterval.seconds(6))
    if by is None:
        made("third", [look.__class__(lambda view, start, end: 0, "nothing")], own, TWO)
    for _ in pipeline.replay():
        pass
    assert repr(rows) == repr(
        [
            *([1.0, 2.0, 3.0], [2, 4, 6], [1.0, math.nan, 3.0], [2.0, math.nan, 6.0]),
            *(["to 2", "to 4", "to 6"], [False, True, True]),
        ]
    )


def test_a_task_whose_fields_a_series_has_stays() -> None:
    _, first = first_stage([level, rows], [])
    first.series()
    with pytest.raises(ConfigError, match=r"remove\('level'\): .* has a column of this task"):
        first.remove("level")


def test_columns_of_two_tasks_that_are_called_alike_are_refused() -> None:
    @task(name="level_low")
    def low(view: TimeSeriesView, start: int, end: int) -> float:
        return 0.0

    _, first = first_stage([level, low], [])
    with pytest.raises(ConfigError, match="'level_low': its column 'level_low' is called like tha"):
        first.series()


def test_a_task_that_does_not_say_what_it_returns_is_refused() -> None:
    unknown: Any = max  # which is of C, and has no annotations
    _, first = first_stage([Task(unknown, "unknown")], [])
    with pytest.raises(ConfigError, match=r"task 'unknown' does not say it: .*-> float"):
        first.series()


def test_a_task_whose_name_cannot_be_a_column_is_refused() -> None:
    _, first = first_stage([Task(rows.run, "time")], [])
    with pytest.raises(ConfigError, match=r"^stage 'first': column 'time': the name is"):
        first.series()


def test_a_series_that_was_refused_can_be_asked_for_again() -> None:
    pipeline, first = first_stage([rows], numbers((0, 1.0)))
    with pytest.raises(ConfigError, match="retention=0"):
        first.series(retention=0)
    pipeline.stage("second", [stamps], first.series(), TWO)
    assert of("second", pipeline)[-1]["stamps"] == [2]


# into(series)


def test_a_series_that_is_closed_on_the_left_takes_no_results_as_they_are() -> None:
    _, first = first_stage([mean], [])
    with pytest.raises(ConfigError, match=r"closed on the left.*closed=Closed\.RIGHT"):
        first.into(TimeSeries({"mean": float}, TimeUnit.SECONDS))
    assert first.routes == ()


def test_a_series_in_another_unit_takes_no_results_as_they_are() -> None:
    _, first = first_stage([mean], [])
    with pytest.raises(ConfigError, match=r"in seconds, .* in millis: give it unit="):
        first.into(TimeSeries({"mean": float}, TimeUnit.MILLIS, closed=Closed.RIGHT))


def test_a_result_of_none_costs_its_own_row() -> None:
    @task
    def value(view: TimeSeriesView, start: int, end: int) -> float | None:
        return None if start == 4 else float(start)

    pipeline, first = first_stage([value], numbers(*((i, 1.0) for i in range(20))))
    pipeline.stage("second", [stamps], first.series(), TWO)
    results = list(pipeline.replay())
    assert len([1 for name, _ in results if name == "first"]) == 10
    assert results[-1][1]["stamps"] == [2, 4, 8, 10, 12, 14, 16, 18, 20]


@pytest.mark.parametrize("bad", [None, "text", 0.5, 2**70])
def test_a_result_that_is_no_value_of_its_column_costs_its_own_row(
    bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def value(view: TimeSeriesView, start: int, end: int) -> Any:
        return bad if 4 <= start < 10 else start

    pipeline, first = first_stage([rows, value], numbers(*((i, 1.0) for i in range(20))))
    results = TimeSeries({"value": int, "rows": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    first.into(results)
    pipeline.stage("second", [stamps], results, TWO)
    assert of("second", pipeline)[-1]["stamps"] == [2, 4, 12, 14, 16, 18, 20]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2  # the first, and the rest together
    assert "does not get what stage 'first' gave for [4, 6), which cannot enter: " in told[0]
    assert "column 'value', row of timestamp 6: " in told[0]
    assert "2 more results rejected" in told[1]


def test_results_that_make_no_row_are_counted_and_go_to_dead_letters_or_end_the_run() -> None:
    @task
    def value(view: TimeSeriesView, start: int, end: int) -> Any:
        return "text" if view.in_window["k"][0] == "b" else 1.0

    def made(**options: Any) -> Pipeline:
        series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
        given = [(1, {"k": key, "v": 1.0}) for key in "abc"]
        pipeline = Pipeline("p").source(given, into=series)
        results = TimeSeries({"k": str, "value": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        pipeline.stage("s", [value], series, "2s", by="k").into(results, **options)
        pipeline.stage("after", [keys], results, "2s")
        return pipeline

    @task
    def keys(view: TimeSeriesView, start: int, end: int) -> list[str]:
        return [str(key) for key in view["k"]]

    letters: list[Any] = []

    def take(*letter: Any) -> None:
        letters.append(letter)

    pipeline = made(dead_letters=take)
    assert of("after", pipeline)[0]["keys"] == ["a", "c"]
    assert pipeline.stats.rejected == 1
    ((result, reason, detail),) = letters
    assert (result.stage, reason) == ("s", "rejected")
    assert "the results of 'b': column 'value'" in detail
    with pytest.raises(ConfigError, match="the results of 'b': column 'value'"):
        list(made(on_bad_result=OnFault.RAISE).replay())


def test_a_failed_task_costs_its_own_row() -> None:
    @task
    def value(view: TimeSeriesView, start: int, end: int) -> float:
        return 1 / (start - 2)

    pipeline, first = first_stage([value], numbers((0, 1.0), (5, 1.0)))
    pipeline.stage("second", [stamps], first.series(), TWO)
    assert of("second", pipeline)[-1]["stamps"] == [2, 6]


# An ingest into a series


@pytest.mark.parametrize("later", [0, 1])
def test_an_ingest_that_stamps_an_end_into_a_series_closed_on_the_left_raises(later: int) -> None:
    pipeline, first = first_stage([rows], numbers((0, 1.0)))
    left = TimeSeries({"rows": int}, TimeUnit.SECONDS)
    first.into(
        left,
        lambda series, ds: series.append(ds.timestamp + later, rows=ds["rows"]),
        on_bad_result=OnFault.RAISE,
    )
    pipeline.stage("second", [stamps], left, TWO)
    message = (
        rf"^row of timestamp {2 + later}: stage 'first': .* a window that ends at 1970-.*:02Z, .*"
        r"closed=Closed\.RIGHT"
    )
    with pytest.raises(ConfigError, match=message) as raised:
        list(pipeline.replay())
    assert raised.value.__notes__ == ["in the ingest of stage 'first'"]
    assert len(left.view()) == 0


def test_extending_is_checked_too_and_live_as_well() -> None:
    clock = VirtualClock()
    left = TimeSeries({"rows": int}, TimeUnit.SECONDS)
    pipeline = Pipeline("p", clock=clock)
    first = pipeline.stage("first", [rows], TimeSeries({"value": float}, TimeUnit.SECONDS), SECOND)
    first.into(
        left,
        lambda series, ds: series.extend([0, ds.timestamp], rows=[1, 2]),
        on_bad_result=OnFault.RAISE,
    )
    with pytest.raises(ExceptionGroup) as raised, pipeline:
        clock.advance(SECOND)
    assert raised.group_contains(ConfigError, match=r"^row of timestamp 1: .*closed=Closed\.RIGHT")
    assert len(left.view()) == 0


def test_an_ingest_may_stamp_within_its_window_or_into_a_series_closed_on_the_right() -> None:
    pipeline, first = first_stage([rows], numbers((0, 1.0), (3, 1.0)))
    left = TimeSeries({"rows": int}, TimeUnit.MILLIS)
    right = TimeSeries({"rows": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    first.into(left, lambda series, ds: series.append(ds.timestamp * 1000 - 1, rows=ds["rows"]))
    first.into(right, lambda series, ds: series.append(ds.timestamp, rows=ds["rows"]))
    pipeline.stage("left", [stamps], left, TaskInterval.millis(2000))
    pipeline.stage("right", [stamps], right, TWO)
    assert of("left", pipeline)[-1]["stamps"] == [1999, 3999]
    assert of("right", pipeline)[-1]["stamps"] == [2, 4]


def test_only_the_thread_of_the_ingest_is_checked() -> None:
    series = TimeSeries({"x": int})
    with series.refusing(5, "not now"):
        with pytest.raises(ConfigError, match=r"^row of timestamp 5: not now"):
            series.append(5, x=1)
        with pytest.raises(ConfigError, match=r"^row of timestamp 7: not now"):
            series.extend([1, 7, 6], x=[1, 1, 1])
        series.append(4, x=4)
        together(lambda: series.append(6, x=6))
        series.append(4, x=5)  # late, and in its place
        with series.refusing(3, "nor this"), pytest.raises(ConfigError, match="4: nor this"):
            series.append(4, x=1)
        series.append(4, x=6)
    series.append(5, x=5)
    series.append(9, x=9)
    assert series.view().time.tolist() == [4, 4, 4, 5, 6, 9]
    assert series.view()["x"].tolist() == [4, 5, 6, 5, 6, 9]


# Rows that precede the window which is due at their stamp


BARS = [(time, {"value": float(time)}) for time in range(1, 9)]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("grace", [None, SECOND])
def test_a_bar_is_in_the_window_that_it_ends(
    grace: TaskInterval | None, tmp_path: Path, *, batched: bool
) -> None:
    bars = TimeSeries({"value": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    recorded: Any = BARS
    if batched:
        file = tmp_path / "bars.csv"
        lines = ("timestamp,value", *(f"{time},{row['value']}" for time, row in BARS))
        file.write_text("\n".join(lines))
        recorded = CsvFile(file, unit=TimeUnit.SECONDS)
    pipeline = Pipeline("p").source(recorded, into=bars)
    pipeline.stage("s", [stamps, rows], bars, TWO, RunnerConfig(grace=grace))
    datasets = of("s", pipeline)
    # None before the first bar or after the last.
    assert [dataset.window for dataset in datasets] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [dataset["rows"] for dataset in datasets] == [2, 2, 2, 2]
    assert [dataset["stamps"][-1] for dataset in datasets] == [2, 4, 6, 8]


def test_a_recording_of_bars_that_is_played_gives_the_windows_of_its_replay() -> None:
    def build(source: Any) -> tuple[Pipeline, list[DataSet[Any]]]:
        bars = TimeSeries({"value": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        pipeline = Pipeline("p").source(source, into=bars, unit=TimeUnit.SECONDS)
        first = pipeline.stage("first", [rows], bars, TWO)
        found: list[DataSet[Any]] = []
        second = pipeline.stage("second", [stamps], first.series(), TWO)
        for stage in (first, second):
            stage.sink(CallbackSink(lambda name, dataset: found.append(dataset)))
        return pipeline, found

    replayed = list(build(BARS)[0].replay())
    pipeline, found = build(paced(BARS, speed=100.0, unit=TimeUnit.SECONDS))
    pipeline.run_sync()
    told = [(dataset.window, dataset.to_dict()) for _, dataset in replayed]
    assert sorted(map(repr, told)) == sorted(
        repr((dataset.window, dataset.to_dict())) for dataset in found
    )
    assert told[-1] == ((6, 8), {"stamps": [2, 4, 6, 8]})


@pytest.mark.parametrize(
    ("closed", "grace", "warned"),
    [(Closed.RIGHT, None, True), (Closed.RIGHT, SECOND, False), (Closed.LEFT, None, False)],
)
def test_live_rows_of_ends_without_a_grace_are_warned_of(
    closed: Closed, grace: TaskInterval | None, caplog: pytest.LogCaptureFixture, *, warned: bool
) -> None:
    caplog.set_level(logging.WARNING, "run_task")
    done = threading.Event()

    def live() -> Any:
        assert done.wait(PATIENCE)
        yield from ()

    bars = TimeSeries({"value": float}, TimeUnit.SECONDS, closed=closed)
    pipeline = Pipeline("p", clock=VirtualClock()).source(live(), into=bars)
    pipeline.stage("s", [rows], bars, TWO, RunnerConfig(grace=grace))
    with pipeline:
        done.set()
    told = [r.getMessage() for r in caplog.records if "closed on the right" in r.getMessage()]
    assert len(told) == warned
    if warned:
        assert told[0].startswith("stage 's' has no grace, and reads ")
        assert "RunnerConfig(grace=...)" in told[0]


ROWS = st.lists(st.tuples(st.integers(0, 24), st.floats(-100, 100)), min_size=1, max_size=30)


@given(
    ROWS,
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([None, SECOND, TaskInterval.seconds(3)]),
    st.sampled_from(Closed),
    st.sampled_from([None, 3, TaskInterval.seconds(5)]),
)
@settings(max_examples=examples(25), deadline=None)
def test_a_series_of_results_is_the_same_live_and_replayed(
    recorded: list[tuple[int, float]],
    every: int,
    later: int,
    grace: TaskInterval | None,
    closed: Closed,
    retention: int | TaskInterval | None,
) -> None:
    # The rows come in any order: some are late, and some too late for their window.
    given_rows = [(time, {"value": value}) for time, value in recorded]

    def build(source: Any) -> tuple[Pipeline, list[tuple[str, Any, Any]]]:
        values = TimeSeries({"value": float}, TimeUnit.SECONDS, closed=closed)
        pipeline = Pipeline("p").source(source, into=values, unit=TimeUnit.SECONDS)
        patient = RunnerConfig(
            executor="inline", upstream_timeout=6 * PATIENCE, data_timeout=6 * PATIENCE
        )
        interval = TaskInterval.seconds(every)
        first = pipeline.stage(
            "first", [mean, rows], values, interval, replace(patient, grace=grace)
        )
        wide = replace(patient, window=TaskInterval.seconds(every * later))
        results = first.series(retention)
        second = pipeline.stage("second", [everything], results, interval, wide)
        found: list[tuple[str, Any, Any]] = []
        sink = CallbackSink(lambda name, ds: found.append((name, ds.window, repr(ds.to_dict()))))
        first.sink(sink)
        second.sink(sink)
        return pipeline, found

    replayed, found_replayed = build(given_rows)
    for _ in replayed.replay():
        pass
    live, found_live = build(paced(given_rows, speed=1000.0, unit=TimeUnit.SECONDS))
    live.run_sync()
    for stage in ("first", "second"):
        assert [one for one in found_live if one[0] == stage] == [
            one for one in found_replayed if one[0] == stage
        ]


@task
def everything(view: TimeSeriesView, start: int, end: int) -> list[Any]:
    """All that is to be seen: of the window, and of before."""
    own = view.in_window
    assert not len(view) or view.time[-1] <= end
    assert not len(own) or own.time[0] > start
    whole = view.time.tolist(), view["mean"].tolist(), view["rows"].tolist()
    return [*whole, own.time.tolist(), own["rows"].tolist()]
