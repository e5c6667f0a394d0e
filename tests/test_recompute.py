"""Windows that are computed again take the place of those that sinks hold."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.forking import Forking
from tests.support.proof import examples
from tests.support.recomputed import WHOLE, table
from tests.support.recomputed import pipeline as killed_pipeline
from tests.support.threads import eventually
from tests.support.writer import opened as opened_in
from tests.test_arrived import LiveFeed

from run_task import (
    Align,
    Atom,
    ConfigError,
    Empty,
    OnError,
    Pipeline,
    Retry,
    RunnerConfig,
    RunTaskError,
    RwLock,
    Task,
    TaskError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    aggregates,
    task,
)
from run_task.sinks import (
    CsvSink,
    DurableSink,
    JsonLinesSink,
    Layout,
    ParquetSink,
    Result,
    Row,
    SqlSink,
)
from run_task.sources import CsvFile, Inbox, paced

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("sqlalchemy")

Rows = list[tuple[int, dict[str, Any]]]
Held = dict[tuple[int, int], list[tuple[str, str, Any]]]

EVERY = 10


@task(state=float)
def total(view: TimeSeriesView, start: int, end: int, sum_: float) -> tuple[float, float]:
    sum_ = sum_ * 0.9 + float(view.in_window["v"].sum())
    return sum_, sum_


@task
def kept(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["v"].sum()) + len(view)


@task
def latest(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["total"][-1]) if len(view) else -1.0


class Store:
    """A durable sink in memory, which holds of each window what was written last."""

    def __init__(self) -> None:
        self.held: Held = {}
        self.written = 0

    def begin(self, pipeline: str, /) -> None:
        pass

    def last(self, stage: str, /) -> int | None:
        return max((end for _, end in self.held), default=None)

    def rows(self, stage: str | None = None, /) -> Iterator[Row]:
        for (start, end), rows in self.held.items():
            for key, name, value in rows:
                yield Row("p", stage or "", start, end, name, value, None, None, key)

    def write(self, result: Result, /) -> None:
        self.written += 1
        dataset: Any = result.dataset
        rows = [("", name, value) for name, value in dataset.items()]
        if hasattr(dataset, "rows"):
            rows = [(k, name, v) for k, row in dataset.rows() for name, v in row.items()]
        self.held.pop((result.window[0], result.window[1]), None)
        if rows:
            self.held[result.window[0], result.window[1]] = rows

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def of_values(values: Sequence[int]) -> Rows:
    """A row a step: of a key by its value, late by it, or none."""
    found: Rows = [(0, {"k": "a", "v": 1.0})]
    for number, value in enumerate(values):
        if value % 5:
            stamp = 7 * number - (20 if value % 7 == 0 else 0)
            found.append((stamp, {"k": "abc"[value % 3], "v": value / 3}))
    return [*found, (7 * len(values), {"k": "a", "v": 2.0})]


def market(rows: Any, sink: Any, shape: str, of: str = "s") -> Pipeline:
    """Two stages, the second fed by the first; the sink is of one of them."""
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, "40s", key="k")
    made = Pipeline("p").source(rows, series)
    config = RunnerConfig(
        window="25s" if "sliding" in shape else None,
        grace="15s" if "grace" in shape else None,
        empty=Empty.RUN if "run" in shape else None,
        align=Align.START if "start" in shape else Align.EPOCH,
        executor="inline",
    )
    tasks = [total, kept, aggregates.mean("v")]
    stage: Any
    if "by key" in shape:
        stage = made.stage("s", tasks, series, f"{EVERY}s", config, by="k", key_idle="30s")
    elif "declared" in shape:
        stage = made.stage("s", tasks[2:], series, f"{EVERY}s", config)
        if of == "s":
            stage.sink(sink)
        return made
    else:
        stage = made.stage("s", tasks, series, f"{EVERY}s", config)
    if "fed" in shape:
        other = made.stage("t", [latest], stage.series("60s"), "20s", RunnerConfig(window="30s"))
        (other if of == "t" else stage).sink(sink)
    else:
        stage.sink(sink)
    return made


def in_range(window: tuple[int, int], start: int | None, end: int | None) -> bool:
    after = window[1] > (start if start is not None else -(10**9))
    return after and (end is None or max(window[0], window[1] - EVERY) < end)


SHAPES = [
    "plain",
    "declared",
    "declared sliding",
    "by key",
    "sliding",
    "by key sliding grace",
    "by key run",
    "grace start",
]


@given(
    st.sampled_from(SHAPES),
    st.lists(st.integers(0, 20), min_size=12, max_size=30),
    st.data(),
)
@settings(max_examples=examples(40), deadline=None)
def test_what_is_in_the_range_is_as_in_a_whole_replay_and_all_else_stays(
    shape: str, values: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.none() | st.integers(-5, 7 * len(values) - 10))
    end = data.draw(st.none() | st.integers((start or 0) + 1, 7 * len(values) + 50))
    before, whole = Store(), Store()
    list(market(of_values(values), before, shape).replay())
    places = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=4))
    changed = [(v + 1) % 21 if i in places else v for i, v in enumerate(values)]
    corrected = of_values(changed)
    list(market(corrected, whole, shape).replay())
    wanted = {w: rows for w, rows in before.held.items() if not in_range(w, start, end)}
    wanted |= {w: rows for w, rows in whole.held.items() if in_range(w, start, end)}
    try:
        summary = market(corrected, before, shape).recompute("s", start, end)
    except ConfigError:  # where the range holds no window
        assert not any(in_range(w, start, end) for w in whole.held)
        return
    assert before.held == wanted
    assert summary.windows == sum(in_range(w, start, end) for w in whole.held) or "run" in shape
    assert summary.untouched == summary.refused == 0


def test_a_stage_that_is_fed_has_what_feeds_it_run_as_far_as_it_needs_it() -> None:
    rows, corrected = of_values(range(1, 60)), of_values([v % 9 for v in range(1, 60)])
    before, whole, upstream = Store(), Store(), Store()
    list(market(rows, before, "fed", of="t").replay())
    list(market(corrected, whole, "fed", of="t").replay())
    made = market(corrected, before, "fed", of="t")
    made.stages[0].sink(upstream)
    summary = made.recompute(made.stages[1], 130, 215)
    wanted = before.held | {w: r for w, r in whole.held.items() if w[1] > 130 and w[1] <= 220}
    assert before.held == wanted
    assert summary.windows == 5
    assert not upstream.written


# Stores

KINDS = [
    *("jsonl", "csv", "wide-csv", "parquet", "wide-parquet"),
    *("sqlite", "wide-sqlite", "wide-duckdb", "duckdb"),
]


def store(kind: str, where: Path) -> Any:
    layout = Layout.WIDE if kind.startswith("wide-") else Layout.LONG
    match kind.removeprefix("wide-"):
        case "jsonl":
            return JsonLinesSink(where / "file.jsonl")
        case "csv":
            return CsvSink(where / "file.csv", layout=layout)
        case "parquet":
            return ParquetSink(where / "folder", layout=layout)
        case "duckdb":
            pytest.importorskip("duckdb_engine")
            return SqlSink(f"duckdb:///{where / 'file'}", layout=layout)
        case _:
            return SqlSink(where / "file", layout=layout)


def all_of(sink: DurableSink) -> list[tuple[Any, ...]]:
    return sorted((r.start, r.end, r.key, r.task, r.value) for r in sink.rows("s"))


def raw_of(kind: str, where: Path) -> Any:
    """What somebody reads who knows nothing of this library."""
    if kind.endswith("csv") or kind == "jsonl":
        return sorted((where / f"file.{kind.removeprefix('wide-')}").read_text().splitlines())
    if kind == "wide-parquet":
        parquet: Any = pytest.importorskip("pyarrow.parquet")
        rows: Any = parquet.read_table(where / "folder").to_pylist()
        return sorted(map(repr, rows))
    return None


def gaps(*, corrected: bool) -> Rows:
    """With other values, and without some keys and windows, where they are corrected."""
    found: Rows = []
    for second in range(120):
        key = "AB"[second % 2]
        if corrected and (40 <= second < 50 or (60 <= second < 70 and key == "B")):
            continue
        found.append((second, {"k": key, "v": second * (2.0 if corrected else 1.0)}))
    return found


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_there_is_no_more_is_taken_out_of_each_store(
    kind: str, keyed: bool, tmp_path: Path
) -> None:
    def made(sink: Any, *, corrected: bool) -> Pipeline:
        series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
        pipeline = Pipeline("p").source(gaps(corrected=corrected), series)
        config = RunnerConfig(empty=Empty.SKIP)
        if keyed:
            pipeline.stage("s", [total, kept], series, "10s", config, by="k").sink(sink)
        else:
            pipeline.stage("s", [total, kept], series, "10s", config).sink(sink)
        return pipeline

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = tmp_path / "one", tmp_path / "other"
    with closing(store(kind, one)) as sink:
        list(made(sink, corrected=False).replay())
    with closing(store(kind, other)) as sink:
        list(made(sink, corrected=True).replay())
        wanted = all_of(sink)
    with closing(store(kind, one)) as sink:
        before = made(sink, corrected=True).recompute("s", 30, 80)
        assert (before.windows, before.removed) == (4, 1)
        assert list(before.replaced.values()) == [20 if keyed else 10]
        rows = [row for row in all_of(sink) if row[1] > 30 and row[0] < 80]
        assert rows == [row for row in wanted if row[1] > 30 and row[0] < 80]
        assert {row[0] for row in rows} == {30, 50, 60, 70}
        after = made(sink, corrected=True).recompute("s")
        assert (after.windows, after.removed) == (11, 0)
        assert all_of(sink) == wanted
    with closing(store(kind, one)) as sink:
        sink.begin("p")
        assert all_of(sink) == wanted
    assert raw_of(kind, one) == raw_of(kind, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sink_tells_its_windows_in_a_range_whatever_their_values_are(
    kind: str, tmp_path: Path
) -> None:
    with closing(store(kind, tmp_path)) as sink:
        list(market(gaps(corrected=False), sink, "by key sliding").replay())
        all_there = [(row.start, row.end) for row in sink.rows("s")]
        assert len(all_there) > 60
        for after in (None, -(10**30), 20, 35, 10**30):
            for before in (None, -(10**30), 55, 60, 10**30):
                wanted = [
                    window
                    for window in all_there
                    if (after is None or window[1] > after)
                    and (before is None or window[0] < before)
                ]
                assert sorted(sink.windows("s", after, before)) == sorted(wanted)
        assert not list(sink.windows("other", None, None))


def test_results_whose_type_has_changed_are_replaced(tmp_path: Path) -> None:
    def pair(*fields: str) -> Any:
        return dataclasses.make_dataclass("Pair", [(name, float) for name in fields])

    def made(sink: Any, kind: Any, *values: float) -> Pipeline:
        series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS)
        pipeline = Pipeline("p").source(gaps(corrected=False), series)
        pipeline.stage("s", [Task(lambda v, s, e: kind(*values), "t")], series, "10s").sink(sink)
        return pipeline

    before, now = pair("x"), pair("x", "y")
    with closing(SqlSink(tmp_path / "file", types=[before])) as sink:
        list(made(sink, before, 1.0).replay())
    with closing(SqlSink(tmp_path / "file", types=[now])) as sink:
        assert made(sink, now, 1.0, 2.0).recompute("s").windows == 12
        assert {repr(row.value) for row in sink.rows("s")} == {"Pair(x=1.0, y=2.0)"}


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "plain"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "wide-csv", "wide-parquet", "sqlite"])
def test_of_a_window_whose_result_is_refused_no_older_one_stays(
    kind: str, keyed: bool, tmp_path: Path
) -> None:
    def made(sink: Any, odd: int | None) -> Pipeline:
        @task(name="t")
        def of(view: TimeSeriesView, start: int, end: int) -> Any:
            return object() if start == odd else len(view.in_window)

        series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
        pipeline = Pipeline("p").source(gaps(corrected=False), series)
        if keyed:
            pipeline.stage("s", [of], series, "10s", by="k").sink(sink)
        else:
            pipeline.stage("s", [of], series, "10s").sink(sink)
        return pipeline

    with closing(store(kind, tmp_path)) as sink:
        list(made(sink, None).replay())
        whole = all_of(sink)
        summary = made(sink, 40).recompute("s", 30, 60)
        assert (summary.windows, summary.refused) == (3, 1)
        assert all_of(sink) == [row for row in whole if row[0] != 40]
        summary = made(sink, 50).recompute("s", 30, 60)
        assert all_of(sink) == [row for row in whole if row[0] != 50]
        again = made(sink, 110)
        assert len(list(again.resume(sink))) == 1
        assert again.stats.refused == 1
        assert all_of(sink) == [row for row in whole if row[0] not in (50, 110)]


# Versions


def versioned(version: int | None, sink: Any, rows: Rows, fails_at: int = -1) -> Pipeline:
    @task(name="a", version=version)
    def a(view: TimeSeriesView, start: int, end: int) -> float:
        if start == fails_at:
            raise ValueError("no")
        return float(view.in_window["v"].sum()) * (version or 0)

    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS)
    made = Pipeline("p").source(rows, series)
    made.stage("s", [a], series, "10s", RunnerConfig(on_error=OnError.RAISE)).sink(sink)
    return made


@pytest.mark.parametrize("kind", ["jsonl", "wide-csv", "wide-parquet", "sqlite", "wide-sqlite"])
def test_a_task_of_another_version_takes_over_what_it_computes_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = gaps(corrected=False)
    with closing(store(kind, tmp_path)) as sink:
        list(versioned(1, sink, rows).replay())
        with pytest.raises(ConfigError, match=r"or have its windows .* by recompute\('s'\)"):
            versioned(2, sink, rows).replay()
        with caplog.at_level(logging.WARNING, "run_task"):
            versioned(2, sink, rows).recompute("s", 30, 60)
        assert "is of version 2 now: what was not computed again stays that of version 1" in (
            caplog.text
        )
        sums = [sum(range(at, at + 10)) for at in range(0, 120, 10)]
        factors = [1, 1, 1, 2, 2, 2, *([1] * 6)]
        assert [row[-1] for row in all_of(sink)] == [
            a * b for a, b in zip(sums, factors, strict=True)
        ]
        list(versioned(2, sink, rows).replay(start=110))
        with pytest.raises(ConfigError, match="has results of it of version 2"):
            versioned(1, sink, rows).replay()


def test_results_of_two_versions_are_not_gone_on_with_before_it_was_done(tmp_path: Path) -> None:
    rows = gaps(corrected=False)
    with closing(store("sqlite", tmp_path)) as sink:
        list(versioned(1, sink, rows).replay())
        with pytest.raises(TaskError):
            versioned(2, sink, rows, fails_at=60).recompute("s", 30, 90)
        for version in (1, 2, None):
            with pytest.raises(ConfigError, match=r"several versions, since recompute\('s'\) was"):
                versioned(version, sink, rows).replay()
        versioned(2, sink, rows).recompute("s", 30, 90)
        assert len(list(versioned(2, sink, rows).resume(sink))) == 1


@pytest.mark.parametrize("kind", ["sqlite", "wide-csv", "wide-parquet"])
def test_a_kill_at_any_step_is_mended_by_calling_it_again(kind: str, tmp_path: Path) -> None:
    ended = False
    with Forking("recomputed", kind, str(tmp_path)) as program:
        for number in range(40):
            program.start()
            said = program.reap()
            assert "failed\n" not in said
            where = str(tmp_path / str(number))
            with closing(opened_in(kind, where)) as sink:
                killed_pipeline(sink, corrected=True).recompute("s", 20, 70)
                assert table(sink) == WHOLE, number
            if ended := "ended\n" in said:
                break
        program.finish()
    assert ended


# Where there are no sources that could be read again


def test_rows_that_a_series_has_are_as_good(tmp_path: Path) -> None:
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS)
    for second, row in gaps(corrected=False):
        series.append(second, **row)
    made, sink = Pipeline("p"), Store()
    stage = made.stage("s", [kept, total], series, "10s").sink(sink)
    list(made.replay())
    whole = dict(sink.held)
    sink.held[30, 40] = [("", "kept", 0.0)]
    series.append(55, k="A", v=1000.0)
    summary = made.recompute(stage, 30, 60)
    assert summary.windows == 3
    assert sink.held[30, 40] == whole[30, 40]
    assert sink.held[50, 60][0][2] == whole[50, 60][0][2] + 1001
    assert sink.held[60, 70] == whole[60, 70]


def refused(made: Pipeline, sink: Store, message: str, *times: Any, stage: Any = "s") -> None:
    before, written = dict(sink.held), sink.written
    with pytest.raises(ConfigError, match=message):
        made.recompute(stage, *times)
    assert (sink.held, sink.written) == (before, written)


def test_what_cannot_be_computed_again_is_refused_before_anything_is_written() -> None:
    rows, sink = gaps(corrected=False), Store()
    made = market(rows, sink, "plain")
    list(made.replay())
    refused(made, sink, r"recompute\('other'\): there is no such stage, but 's'", stage="other")
    other = market(rows, sink, "plain")
    refused(made, sink, "there is no such stage, but 's'", stage=other.stages[0])
    refused(made, sink, "start=50 is after end=40", 50, 40)
    refused(made, sink, "has no time zone", datetime.fromisoformat("2026-01-01"))
    refused(made, sink, r"no window that can be computed .* first begins at 1970-01-01", 500)
    refused(made, sink, "no window that can be computed lies in this range", -500, -400)
    refused(market([], sink, "plain"), sink, "there is no row that its windows could be comput")
    gone = market(rows[35:], sink, "plain")
    message = r"hold windows of it from \[1970-01-01T00:00:00Z, .* give start=30, or bring back"
    refused(gone, sink, message)
    assert gone.recompute("s", 30, 60).windows == 3
    sink.held[3, 7] = [("", "kept", 0.0)]
    refused(market(rows, sink, "start"), sink, "none of its windows: with Align.START")
    sink.held = {(25, 35): [("", "kept", 0.0)]}  # which lies in the range in part
    refused(market(rows, sink, "start"), sink, "none of its windows: with Align.START", 30, 60)


def test_a_stage_without_a_sink_that_could_replace_is_refused_and_others_are_told_nothing() -> None:
    rows, told, sink = gaps(corrected=False), RecordingSink(), Store()
    made = market(rows, told, "plain")
    with pytest.raises(ConfigError, match=r"has no sink that holds results .*RecordingSink"):
        made.recompute("s")
    made.stages[0].sink(sink)
    assert made.recompute("s", 30, 40).windows == 1
    assert list(sink.held) == [(30, 40)]
    assert not told.results


def test_a_source_that_cannot_be_read_again_is_named() -> None:
    rows, sink = gaps(corrected=False), Store()
    made = market(iter(rows), sink, "plain")
    refused(made, sink, r"source .*iterator.* cannot be read again: give it a journal=; .* no rows")
    inbox: Inbox[dict[str, Any]] = Inbox(unit=TimeUnit.SECONDS)
    refused(market(inbox, sink, "plain"), sink, "Inbox.* cannot be read again")
    assert len(list(made.replay())) == 12  # it has not been begun


def test_windows_behind_the_last_row_stay_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rows, sink = gaps(corrected=False), Store()
    list(market(rows, sink, "plain").replay())
    before = dict(sink.held)
    with caplog.at_level(logging.WARNING, "run_task"):
        summary = market(rows[:75], sink, "plain").recompute("s", 60)
    assert (summary.windows, summary.untouched) == (2, 4)
    assert "sinks hold 4 windows of it behind the last row" in caplog.text
    assert {w: r for w, r in sink.held.items() if w[0] >= 80} == {
        w: r for w, r in before.items() if w[0] >= 80
    }


@pytest.mark.parametrize("shape", ["plain", "sliding", "by key", "by key run", "fed"])
def test_with_an_end_windows_behind_the_last_row_are_computed_without_rows(shape: str) -> None:
    rows, before, whole = gaps(corrected=False), Store(), Store()
    of = "t" if shape == "fed" else "s"
    list(market(rows, before, shape, of).replay())
    held = dict(before.held)
    longer = market(rows[:75], whole, shape, of)
    last = max(end for _, end in held) - 1
    longer.source([(last, 1)], at := Atom(0), lambda _data, _row: None, unit=TimeUnit.SECONDS)
    longer.stage("other", [Task(nothing, "n")], at, f"{EVERY}s")
    list(longer.replay())
    summary = market(rows[:75], before, shape, of).recompute(of, 30, 140)
    assert before.held == {w: r for w, r in held.items() if w[1] <= 30} | {
        w: r for w, r in whole.held.items() if 30 < w[1] <= last + 1
    }
    assert summary.untouched == 0
    assert bool(summary.removed) == (shape == "by key")


def nothing(_view: Any, _start: int, _end: int) -> int:
    return 0


# While it runs


def numbered(start: int, stop: int) -> Rows:
    return [(second, {"k": "AB"[second % 2], "v": float(second)}) for second in range(start, stop)]


def test_while_it_runs_a_journal_is_read_and_live_windows_go_on(tmp_path: Path) -> None:
    clock, feed = VirtualClock(), LiveFeed()
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, "20s", key="k")
    made = Pipeline("p", clock=clock).source(feed, series, journal=tmp_path / "raw")
    stage = made.stage("s", [total, kept], series, "10s", by="k")
    sink = SqlSink(tmp_path / "file.db")
    stage.sink(sink)

    def has_stored(second: int) -> bool:
        return made.stats.sources["source-1"].stored > second

    def pass_time(start: int, stop: int) -> None:
        for second, row in numbered(start, stop):
            clock.advance_to(second * 10**9)
            feed.put((second, row))
            eventually(partial(has_stored, second))
        clock.advance_to(stop * 10**9)
        eventually(lambda: made.stats.sinks[repr(sink)].results >= stop // 10)

    with made:
        pass_time(0, 60)
        with pytest.raises(ConfigError, match="no window that can be computed"):
            made.recompute("s", 60)
        before = made.recompute("s", 20, 40)  # of which the series has no rows any more
        whole = all_of(sink)
        assert (before.windows, len(whole)) == (2, 24)
        # Something else has spoilt them.
        with closing(SqlSink(tmp_path / "file.db")) as spoiling:
            spoiling.begin("p")
            for row_start in (20, 30):
                spoiling.write(spoilt("p", row_start))
            spoiling.flush()
        assert all_of(sink) != whole
        summary = made.recompute(stage, 20)
        assert summary.windows == 4
        assert all_of(sink) == whole
        pass_time(60, 80)
        feed.put(None)
    again = SqlSink(tmp_path / "other.db")
    twin = series.emptied()
    other = Pipeline("p").source(numbered(0, 80), twin)
    other.stage("s", [total, kept], twin, "10s", by="k").sink(again)
    list(other.replay())
    with closing(again), closing(SqlSink(tmp_path / "file.db")) as held:
        held.begin("p")
        assert all_of(held) == all_of(again)
    with pytest.raises(RunTaskError, match="has run and closed its sinks: make a new one"):
        made.recompute("s")


def spoilt(pipeline: str, start: int) -> Result:
    from run_task import KeyedDataSet, TaskInterval, Window

    values = {"total": {"A": -1.0, "C": -1.0}}
    dataset: Any = KeyedDataSet(
        Window(start, start + 10), "k", values, interval=TaskInterval.seconds(10)
    )
    return Result.of(pipeline, "s", dataset)


def test_while_it_runs_windows_go_on_behind_the_last_row() -> None:
    clock, sink, factor = VirtualClock(), Store(), [1.0]

    @task(name="total", state=float)
    def decaying(view: TimeSeriesView, start: int, end: int, sum_: float) -> tuple[float, float]:
        sum_ = sum_ / 2 + float(view.in_window["v"].sum()) * factor[0]
        return sum_, sum_

    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    made = Pipeline("p", clock=clock)
    stage = made.stage("s", [decaying], series, "10s").sink(sink)
    with made:
        series.append(3, v=8.0)
        clock.advance("51s")
        eventually(lambda: (40, 50) in sink.held)
        held = {w: r[0][2] for w, r in sink.held.items()}
        assert list(held.values()) == [8.0, 4.0, 2.0, 1.0, 0.5]
        factor[0] = 2.0
        assert made.recompute(stage).windows == 5
        assert {w: r[0][2] for w, r in sink.held.items()} == {w: 2 * v for w, v in held.items()}


def test_while_it_runs_a_spool_is_emptied_before_windows_are_looked_for(tmp_path: Path) -> None:
    class Away(Store):
        away = False

        def flush(self) -> None:
            if self.away:
                raise OSError("away")

        def rows(self, stage: str | None = None, /) -> Iterator[Row]:
            assert not self.away
            return super().rows(stage)

        def write(self, result: Result, /) -> None:
            if self.away:
                raise OSError("away")
            super().write(result)

    clock, sink = VirtualClock(), Away()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    made = Pipeline("p", clock=clock)
    stage = made.stage("s", [kept], series, "10s")
    stage.sink(sink, spool=tmp_path / "spool", retry=Retry(10**6, "10ms", "10ms"))
    with made:
        series.append(3, v=8.0)
        clock.advance("11s")
        eventually(lambda: (0, 10) in sink.held)
        sink.away = True
        clock.advance("20s")
        eventually(lambda: any(one.spooled for one in made.stats.sinks.values()))
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(made.recompute, stage)
            sink.away = False
            assert done.result(20).windows >= 2
        assert (10, 20) in sink.held


def test_while_it_runs_rows_of_a_series_are_taken_as_long_as_it_has_them() -> None:
    clock, sink = VirtualClock(), Store()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, "30s")
    made = Pipeline("p", clock=clock)
    made.stage("s", [kept], series, "10s").sink(sink)
    upstream = made.stage("u", [aggregates.mean("v")], series, "10s").sink(Store())
    sums: Any = upstream.series()
    means = Store()

    @task(name="total", state=float)
    def of_means(view: TimeSeriesView, start: int, end: int, sum_: float) -> tuple[float, float]:
        sum_ += float(np.nansum(view.in_window["v_mean"]))
        return sum_, sum_

    made.stage("m", [of_means], sums, "20s").sink(means)
    stateful = Store()
    made.stage("t", [of_v], series, "10s").sink(stateful)

    def has_given(end: int) -> bool:
        return (end - 20, end) in means.held and all(
            (end - 10, end) in one.held for one in (sink, stateful)
        )

    with made:
        for second in range(100):
            series.append(second, v=float(second))
            clock.advance("1s")
            if second % 20 == 19:
                eventually(partial(has_given, second + 1))
        lost = r"rows before 1970-01-01T00:01:09Z are gone"
        refused(made, sink, rf"{lost}: give start=70, or a later one")
        refused(made, stateful, rf"{lost}, and each of its windows depends on", 80, stage="t")
        whole = dict(means.held)
        means.held.clear()
        made.recompute("m")  # of whose series no row has passed out
        assert means.held == whole
        series.append(85, v=0.5)  # late
        assert made.recompute("s", 80, 90).windows == 1
        assert sink.held[80, 90][0][2] == sum(range(69, 90)) + 21 + 1.5  # what it still has


@task(name="of_v", state=float)
def of_v(view: TimeSeriesView, start: int, end: int, sum_: float) -> tuple[float, float]:
    return sum_, sum_ + len(view)


def test_while_it_runs_what_rows_have_entered_is_not_begun_with_again(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("timestamp,v\n" + "".join(f"{s},{s}\n" for s in range(50)))
    clock, sink = VirtualClock(), Store()
    recording = paced(CsvFile(tmp_path / "rows.csv", unit=TimeUnit.SECONDS), speed=1000)
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, "5s")
    lock = RwLock[list[float]]([])
    made = Pipeline("p").source(recording, (series, lock), (None, add))
    made.stage("s", [kept], series, "10s").sink(sink)
    other = Store()
    made.stage("l", [summed], lock, "10s").sink(other)
    held = LiveFeed()
    made.source(held, lock, add, unit=TimeUnit.SECONDS)
    with made:
        eventually(lambda: (30, 40) in sink.held and (30, 40) in other.held)
        whole = dict(sink.held)
        assert made.recompute("s", 0, 40).windows == 4
        assert {w: r for w, r in sink.held.items() if w[1] <= 40} == {
            w: r for w, r in whole.items() if w[1] <= 40
        }
        refused(made, other, "LiveFeed.* cannot be read again: .* keeps no rows", stage="l")
        sums = {w: r for w, r in other.held.items() if w[1] <= 40}
        made.remove("source-2")  # before it ends, and the pipeline with it
        held.put(None)
        assert made.recompute("l", 0, 40).windows == 4  # a lock that was empty begins so, too
        assert {w: r for w, r in other.held.items() if w[1] <= 40} == sums
    assert clock.time_ns() == 0


def add(values: list[float], row: Any) -> None:
    values.append(float(row["v"]))


@task
def summed(values: list[float], start: int, end: int) -> float:
    return sum(values)


def test_times_are_given_as_for_a_replay() -> None:
    sink = Store()
    made = market(gaps(corrected=False), sink, "plain")
    given: list[Callable[[int], Any]] = [
        lambda second: second,
        lambda second: datetime.fromtimestamp(second, UTC),
        lambda second: np.datetime64(second, "s"),
    ]
    for at in given:
        sink.held.clear()
        made.recompute("s", at(30), at(50))
        assert list(sink.held) == [(30, 40), (40, 50)]


# Resuming


def test_a_resume_knows_the_keys_that_had_rows_before() -> None:
    rows: Rows = [(1, {"k": "a", "v": 1.0}), *((s, {"k": "b", "v": 1.0}) for s in range(2, 60))]
    one, other = Store(), Store()

    def made(rows: Rows, sink: Store) -> Pipeline:
        series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
        config = RunnerConfig(empty=Empty.RUN)
        pipeline = Pipeline("p").source(rows, series)
        pipeline.stage("s", [kept], series, "10s", config, by="k", key_idle="1h").sink(sink)
        return pipeline

    list(made(rows, other).replay())
    list(made(rows[:30], one).replay())
    list(made(rows, one).resume(one))
    assert one.held == other.held
    assert [key for key, *_ in one.held[50, 60]] == ["a", "b"]
