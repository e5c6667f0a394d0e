"""Windows wait for a source with positions that is behind, and not for one that has caught up."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bench import PipelineBench
from tests.support.positioned import Kept, KeptBatches
from tests.support.threads import PATIENCE, eventually
from tests.test_stage_changes import bench_at, seconds_of_floats

from run_task import ConfigError, Pipeline, TimeSeriesView, VirtualClock, task
from run_task.pipeline._ingest import BatchCursor
from run_task.sources._batch import Batch

SOON = 0.1
"""For how many seconds a test sees that nothing happens."""


def rows(*stamps: int) -> list[tuple[int, dict[str, float]]]:
    return [(stamp, {"v": float(stamp)}) for stamp in stamps]


def as_batch(*stamps: int) -> Batch:
    return Batch(np.array(stamps, np.int64), {"v": np.array(stamps, float)})


def stored(bench: PipelineBench, name: str, count: int) -> None:
    eventually(lambda: bench.pipeline.stats.sources[name].stored == count)


@pytest.fixture(params=[None, "raw"], ids=["alone", "with a journal"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """The folder of a journal, or none."""
    return None if request.param is None else tmp_path / str(request.param)


def test_an_outage_that_is_shorter_than_idle_changes_nothing(kept_in: Path | None) -> None:
    bench, source, series = bench_at(100), Kept(), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed", journal=kept_in)
    bench.stage("a", series, 10)
    with bench.pipeline:
        source.put(*rows(100))
        stored(bench, "feed", 1)
        source.connect(False)
        source.put(*rows(105, 109, 111))
        bench.advance(15)
        time.sleep(SOON)
        assert not bench.sink.of("a")
        source.connect(True)
        assert bench.sink.wait_for("a", 110)["held"] == [100, 105, 109]
        bench.advance(5)
        assert bench.sink.wait_for("a", 120)["held"] == [111]
    if kept_in is not None:
        again, history = bench_at(100), seconds_of_floats()
        again.pipeline.source(source, history, name="feed", journal=kept_in)
        again.stage("a", history, 10)
        replayed = [dataset["held"] for _, dataset in again.pipeline.replay()]
        assert replayed == [[100, 105, 109], [111]]


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def either(views: tuple[TimeSeriesView, TimeSeriesView], start: int, end: int) -> int:
    return int(views[0].in_window["counted"].sum())


@task
def counted(view: TimeSeriesView, start: int, end: int) -> int:
    return int(view.in_window["count"].sum())


def test_stages_downstream_wait_as_long_as_those_that_feed_them() -> None:
    bench, source, series = bench_at(100), Kept(), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed")
    upstream = bench.stage("a", series, 10, [count])
    between = bench.stage("b", upstream.series(), 10, [counted], upstream_timeout=SOON / 2)
    last = between.series()
    bench.stage("c", (last, upstream.series()), 10, [either], upstream_timeout=SOON / 2)
    with bench.pipeline:
        source.put(*rows(100))
        stored(bench, "feed", 1)
        source.connect(False)
        source.put(*rows(105, 109, 111))
        bench.advance(15)
        time.sleep(2 * SOON)
        assert not bench.sink.results
        source.connect(True)
        for name, value in (("a", "count"), ("b", "counted"), ("c", "either")):
            dataset = bench.sink.wait_for(name, 110)
            assert dataset[value] == 3
            assert dataset.behind == ()


def test_a_window_waits_until_what_it_is_behind_with_has_come_or_a_row_as_late_as_its_end() -> None:
    bench, source, series = bench_at(100), Kept(), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed")
    bench.stage("a", series, 10)
    source.hidden = 3  # there are always some more
    with bench.pipeline:
        source.put(*rows(100))
        stored(bench, "feed", 1)
        bench.advance(10)
        time.sleep(SOON)
        assert not bench.sink.of("a")
        source.put(*rows(109))
        stored(bench, "feed", 2)
        time.sleep(SOON)
        assert not bench.sink.of("a")
        source.put(*rows(110))
        assert bench.sink.wait_for("a", 110)["held"] == [100, 109]


@pytest.mark.parametrize("late", [False, True])
def test_a_window_waits_until_the_rows_of_a_batch_have_entered(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where some are late, as of two partitions, those are that are in order."""
    bench, source, series = bench_at(100), KeptBatches(), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed")
    bench.stage("a", series, 10)
    source.hidden = 3  # there are always some more
    ingest = BatchCursor.ingest_before

    def ingest_slowly(cursor: BatchCursor, limit_ns: float) -> int:
        time.sleep(SOON)
        return ingest(cursor, limit_ns)

    monkeypatch.setattr(BatchCursor, "ingest_before", ingest_slowly)
    with bench.pipeline:
        source.put(as_batch(100))
        stored(bench, "feed", 1)
        bench.advance(10)
        stamps = [101, 105, 110] + [102, 106] * late
        source.put(as_batch(*stamps))
        assert bench.sink.wait_for("a", 110)["held"] == [100, 101, 105]
        stored(bench, "feed", 1 + len(stamps))
        assert bench.pipeline.stats.sources["feed"].late == 2 * late


def test_a_source_has_not_caught_up_while_rows_that_it_has_given_enter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, source, series = bench_at(110), KeptBatches(), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed")
    bench.stage("a", series, 10)
    ingest, entering = BatchCursor.ingest_before, threading.Event()

    def ingest_slowly(cursor: BatchCursor, limit_ns: float) -> int:
        entering.set()
        time.sleep(SOON)
        return ingest(cursor, limit_ns)

    monkeypatch.setattr(BatchCursor, "ingest_before", ingest_slowly)
    with bench.pipeline:
        bench.advance(5)
        source.put(as_batch(111, 115))
        assert entering.wait(PATIENCE)
        bench.advance(5)
        assert bench.sink.wait_for("a", 120)["held"] == [111, 115]


def test_nobody_waits_for_a_source_that_has_caught_up() -> None:
    bench, source, series = bench_at(100), Kept(rows(100)), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed")
    bench.stage("a", series, 10)
    with bench.pipeline:
        stored(bench, "feed", 1)
        bench.advance(10)
        assert bench.sink.wait_for("a", 110)["held"] == [100]


def test_after_idle_windows_go_on_and_say_so_once(
    kept_in: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    bench, source, series = bench_at(100), Kept(rows(100)), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed", idle="25s", journal=kept_in)
    bench.stage("a", series, 10)
    with bench.pipeline:
        stored(bench, "feed", 1)
        source.connect(False)
        bench.advance(10)
        time.sleep(SOON)
        bench.advance(20)
        time.sleep(SOON)
        assert not bench.sink.of("a")
        bench.advance(10)
        bench.sink.wait_for("a", 140)
        assert [dataset["held"] for dataset in bench.sink.of("a")] == [[100], [], [], []]
    assert caplog.text.count("windows go on without") == 1
    assert "disconnected" in caplog.text


def test_rows_of_others_wait_too_where_they_make_earlier_ones_pass_out() -> None:
    bench, source, other = bench_at(100), Kept(), Kept()
    series = seconds_of_floats(retention="12s")
    bench.pipeline.source(source, series, name="feed").source(other, series, name="other")
    bench.stage("a", series, 10)
    with bench.pipeline:
        source.connect(False)
        source.put(*rows(101, 112))
        bench.advance(14)
        other.put(*rows(114))
        eventually(lambda: other.given)
        time.sleep(SOON)
        assert len(series.view()) == 0
        source.connect(True)
        assert bench.sink.wait_for("a", 110)["held"] == [101]
        eventually(lambda: series.view().time.tolist() == [112, 114])


def test_a_shutdown_waits_for_nobody() -> None:
    bench, source, series = bench_at(100), Kept(rows(100)), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed", idle="1h")
    bench.stage("a", series, 10)
    begun = time.monotonic()
    with bench.pipeline:
        stored(bench, "feed", 1)
        source.connect(False)
        bench.advance(10)
        time.sleep(SOON)
    assert time.monotonic() - begun < 4
    assert [dataset["held"] for dataset in bench.sink.of("a")] == [[100]]


def run_with_checkpoints(where: Path, source: Any) -> PipelineBench:
    """A stage, and one that reads its results, which go on from checkpoints."""
    bench = PipelineBench()
    bench.clock = VirtualClock(100 * 10**9)
    bench.pipeline = Pipeline("bench", clock=bench.clock, checkpoint=where)
    series = seconds_of_floats()
    bench.pipeline.source(source, series, name="feed", idle="1h")
    first = bench.stage("a", series, 10, [count])
    bench.stage("b", first.series("1m"), 10, [counted])
    return bench


def test_what_a_stopped_run_lacks_is_for_the_next_one_where_there_is_a_checkpoint(
    tmp_path: Path,
) -> None:
    source = Kept(rows(100))
    bench = run_with_checkpoints(tmp_path, source)
    with bench.pipeline:
        stored(bench, "feed", 1)
        source.connect(False)
        bench.advance(10)
        time.sleep(SOON)
    assert not bench.sink.results
    source = Kept(rows(100, 105, 112))
    bench = run_with_checkpoints(tmp_path, source)
    with bench.pipeline:
        bench.advance(10)
        assert bench.sink.wait_for("a", 110)["count"] == 2
        assert bench.sink.wait_for("b", 110)["counted"] == 2


class Breaking(Kept):
    """One that breaks once it is told to."""

    def take(self) -> Any:
        row = super().take()
        if row == "broken":
            raise OSError("it is broken")
        return row


def test_what_a_source_that_fails_lacks_is_for_the_next_run_where_there_is_a_checkpoint(
    tmp_path: Path,
) -> None:
    source = Breaking(rows(100))
    bench = run_with_checkpoints(tmp_path, source)
    with pytest.raises(ExceptionGroup) as raised, bench.pipeline:
        stored(bench, "feed", 1)
        source.hidden = 1
        bench.advance(10)
        time.sleep(SOON)
        source.put("broken")
        eventually(lambda: not bench.pipeline.is_running)
    assert [str(error) for error in raised.value.exceptions] == ["it is broken"]
    assert not bench.sink.results
    bench = run_with_checkpoints(tmp_path, Kept(rows(100, 105, 112)))
    with bench.pipeline:
        bench.advance(10)
        assert bench.sink.wait_for("a", 110)["count"] == 2
        assert bench.sink.wait_for("b", 110)["counted"] == 2


def test_a_source_that_fails_to_tell_its_lag_counts_as_disconnected() -> None:
    class Odd(Kept):
        @property
        def lag(self) -> Any:
            raise ConnectionError("gone")

    bench, source, series = bench_at(100), Odd(rows(100)), seconds_of_floats()
    bench.pipeline.source(source, series, name="feed", idle="5s")
    bench.stage("a", series, 10)
    with bench.pipeline:
        stored(bench, "feed", 1)
        bench.advance(10)
        time.sleep(SOON)
        assert not bench.sink.of("a")
        bench.advance(6)
        bench.sink.wait_for("a", 110)


def test_what_is_no_length_of_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="idle="):
        Pipeline("p").source(Kept(), seconds_of_floats(), idle="soon")
