"""Checkpoints: what is kept, what a run goes on with, and what cannot be part of them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpointed import Latest
from tests.support.positioned import Kept
from tests.support.stores import KINDS, Place, place_of
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ConfigError,
    FolderStore,
    Pipeline,
    RunnerConfig,
    RunTaskError,
    RwLock,
    SourceStats,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink, SqlSink
from run_task.sources import Arrived, Batch, paced, polling

pytest.importorskip("pyarrow")

BEGUN = 1_700_000_000


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place_of(request.param, tmp_path) as found:
        yield found


@task(state=int)
def counted(view: TimeSeriesView, start: int, end: int, count: int) -> tuple[int, int]:
    return count + len(view.in_window), count + len(view.in_window)


@task
def held(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


def rows(first: int, stop: int) -> list[tuple[int, dict[str, float]]]:
    return [(BEGUN + i, {"v": float(i)}) for i in range(first, stop)]


class Run:
    """One run of a pipeline over a recording, at once, and what it gave.

    :param where: where its checkpoints are
    :param given: its rows
    """

    def __init__(
        self,
        where: Path | Place,
        given: list[tuple[int, Any]],
        *,
        tasks: Any = (counted, held),
        columns: Any = None,
        stage: str = "s",
        source: str = "rows",
    ) -> None:
        self.results: list[tuple[int, dict[str, Any]]] = []
        store = where if isinstance(where, Path) else where.store()
        self.pipeline = Pipeline("p", checkpoint=store)
        self.series = TimeSeries(columns or {"v": float}, unit=TimeUnit.SECONDS)
        recording = paced(given, speed=1e6, unit=TimeUnit.SECONDS)
        self.pipeline.source(recording, self.series, name=source)
        made = self.pipeline.stage(stage, tasks, self.series, "10s")
        made.sink(CallbackSink(self.take))

    def take(self, stage: str, dataset: Any) -> None:
        self.results.append((dataset.timestamp - BEGUN, dataset.to_dict()))

    def run(self) -> Run:
        self.pipeline.run_sync()
        return self

    @property
    def unfit(self) -> tuple[str, ...]:
        stats = self.pipeline.stats.checkpoints
        assert stats is not None
        return tuple(stats.unfit)


def test_a_run_goes_on_with_rows_states_and_windows_of_the_one_before(place: Place) -> None:
    first = Run(place, rows(0, 25)).run()
    assert [end for end, _ in first.results] == [10, 20, 30]
    second = Run(place, rows(0, 60)).run()
    assert [end for end, _ in second.results] == [40, 50, 60]
    # Rows 25 to 29 come after their window was given, as the recording had ended by then.
    assert [values["counted"] for _, values in second.results] == [35, 45, 55]
    assert second.results[-1][1]["held"] == 60
    assert second.unfit == ()


def test_a_run_of_what_has_ended_gives_nothing_again(place: Place) -> None:
    Run(place, rows(0, 25)).run()
    assert Run(place, rows(0, 25)).run().results == []


def test_a_replay_leaves_checkpoints_alone_and_resume_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    made = Run(folder, rows(0, 25))
    assert len(list(made.pipeline.replay())) == 3
    assert not folder.exists()
    sink = SqlSink(tmp_path / "results.db")
    with pytest.raises(ConfigError, match="has checkpoints, and goes on from the last one"):
        made.pipeline.resume(sink)
    sink.close()


def test_a_position_is_sought_and_what_a_checkpoint_holds_is_committed(place: Place) -> None:
    def made(source: Kept) -> tuple[Pipeline, TimeSeries]:
        pipeline = Pipeline("p", checkpoint=place.store(), checkpoint_every="20ms")
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        pipeline.source(source, series)
        pipeline.stage("s", [held], series, "1h")
        return pipeline, series

    source = Kept(rows(0, 3))
    pipeline, series = made(source)
    with pipeline:
        eventually(lambda: source.commits and source.commits[-1] == 3)
    again = Kept(rows(0, 5))
    pipeline, series = made(again)
    with pipeline:
        eventually(lambda: len(series.view()) == 5)
    assert again.sought == [{"given": 3}]
    # Nothing was given meanwhile: the position of before is kept.
    third = Kept(rows(0, 5))
    pipeline, series = made(third)
    with pipeline:
        assert len(series.view()) == 5
    assert third.sought == [{"given": 5}]


def test_rows_that_are_ahead_of_their_time_wait_in_the_next_run_too(tmp_path: Path) -> None:
    import time

    def made(source: Kept) -> tuple[Pipeline, TimeSeries]:
        pipeline = Pipeline("p", checkpoint=tmp_path)
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        pipeline.source(source, series, max_ahead="1d", name="rows")
        pipeline.stage("s", [held], series, "1h")
        return pipeline, series

    now = int(time.time())
    source = Kept([(now - 1, {"v": 1.0}), (now + 3600, {"v": 2.0})])
    pipeline, series = made(source)
    with pipeline:
        eventually(lambda: source.given == 2 and len(series.view()) == 1)
        eventually(lambda: pipeline.stats.sources["rows"].waiting == 1)
    again = Kept(source.rows)
    pipeline, series = made(again)
    with pipeline:
        eventually(lambda: pipeline.stats.sources["rows"].waiting == 1)
        assert len(series.view()) == 1
    assert again.sought == [{"given": 2}]


def test_a_row_of_a_recording_that_came_before_its_time_waits_in_the_next_run_too(
    tmp_path: Path,
) -> None:
    given: list[Any] = [
        (BEGUN, {"v": 0.0}),
        Arrived(BEGUN + 1000, {"v": 1.0}, BEGUN),
        (BEGUN + 2000, {"v": 2.0}),
    ]

    def made(speed: float) -> tuple[Pipeline, TimeSeries, RwLock[Latest]]:
        pipeline = Pipeline("p", checkpoint=tmp_path)
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        lock = RwLock(Latest())
        recording = paced(given, speed=speed, unit=TimeUnit.SECONDS)
        into = (series, lock)
        pipeline.source(recording, into, ingest=(None, _add), max_ahead="1h", name="rows")
        pipeline.stage("s", [held], series, "1h")
        pipeline.stage("l", [task(_count)], lock, "1h")
        return pipeline, series, lock

    pipeline, series, lock = made(1.0)
    with pipeline:
        eventually(lambda: all(one.waiting == 1 for one in pipeline.stats.sources.values()))
        eventually(lambda: len(series.view()) == 1 and len(value_of(lock)) == 1)
    pipeline, series, lock = made(1e6)
    pipeline.run_sync()
    assert [*series.view().time] == [BEGUN, BEGUN + 1000, BEGUN + 2000]
    assert value_of(lock) == {"0.0": 1.0, "1.0": 1.0, "2.0": 1.0}
    assert all(one.waiting == 0 for one in pipeline.stats.sources.values())


def _add(data: Latest, row: Any) -> None:
    data[str(row["v"])] = data.get(str(row["v"]), 0.0) + 1.0


def test_a_stage_that_is_paused_is_so_in_the_next_run_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made(*, paused: bool) -> tuple[Run, Any]:
        run = Run(tmp_path, rows(0, 25))
        (stage,) = run.pipeline.stages
        if paused:
            stage.pause()
        return run, stage

    assert made(paused=True)[0].run().results == []
    run, stage = made(paused=False)
    run.run()
    assert stage.is_paused
    assert "stage 's' is paused, as it was before: resume() runs it again" in caplog.text


class Again(Kept):
    """A source that begins five rows before the position that it is told."""

    def seek(self, position: Any, /) -> None:
        super().seek({"given": max(position["given"] - 5, 0)})


def test_rows_that_an_earlier_run_has_seen_are_left_out_when_they_come_again(
    tmp_path: Path,
) -> None:
    def ran(source: Kept) -> tuple[list[float], SourceStats]:
        pipeline = Pipeline("p", checkpoint=tmp_path)
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS, retention=3)
        pipeline.source(source, series, dedupe="v", name="rows")
        pipeline.stage("s", [held], series, "1h")
        with pipeline:
            eventually(lambda: pipeline.stats.sources["rows"].received == due)
        return series.view()["v"].tolist(), pipeline.stats.sources["rows"]

    due = 20
    assert ran(Again(rows(0, 20)))[0] == [17.0, 18.0, 19.0]
    due = 10  # five of which came before
    kept, counts = ran(Again(rows(0, 25)))
    assert kept == [22.0, 23.0, 24.0]
    assert (counts.stored, counts.duplicate) == (5, 5)
    due = 5
    kept, counts = ran(Again(rows(0, 25)))
    assert kept == [22.0, 23.0, 24.0]
    assert (counts.stored, counts.duplicate) == (0, 5)


def test_what_is_in_a_lock_is_kept_if_it_makes_bytes_of_itself(tmp_path: Path) -> None:
    def made(source: Kept) -> tuple[Pipeline, RwLock[Latest]]:
        pipeline = Pipeline("p", checkpoint=tmp_path)
        lock = RwLock(Latest())
        pipeline.source(source, lock, lambda data, row: data.update(row), unit=TimeUnit.SECONDS)
        pipeline.stage("s", [task(_count)], lock, "1h")
        return pipeline, lock

    pipeline, lock = made(Kept(rows(0, 1)))
    with pipeline:
        eventually(lambda: value_of(lock) == {"v": 0.0})
    pipeline, lock = made(Kept(rows(0, 1)))
    with pipeline:
        assert value_of(lock) == {"v": 0.0}


class Columns(Kept):
    """The same, which can also give its rows by column: then it stands behind all of them."""

    def batches(self) -> Iterator[Batch]:
        given, self.given = self.rows[self.given :], len(self.rows)
        if given:
            times = np.array([time for time, _ in given], np.int64)
            yield Batch(times, {"v": np.array([row["v"] for _, row in given])})
        self.closed.wait()


@pytest.mark.parametrize("ways", [1, 2])
def test_rows_of_columns_that_enter_one_by_one_are_kept_up_to_any_of_them(
    ways: int, tmp_path: Path
) -> None:
    entered: list[float] = []

    def enter(data: Latest, row: Any) -> None:
        entered.append(row["v"])
        data.update(row)
        if row["v"] == 2.0:
            pipeline.shutdown()  # with others of its columns still to come
            assert source.closed.wait(PATIENCE)

    for _ in range(2):
        pipeline = Pipeline("p", checkpoint=tmp_path)
        lock, series = RwLock(Latest()), TimeSeries({"v": float}, TimeUnit.SECONDS)
        source = Columns(rows(0, 6))
        if ways == 1:
            pipeline.source(source, lock, enter, unit=TimeUnit.SECONDS)
        else:
            pipeline.source(source, (lock, series), (enter, None), unit=TimeUnit.SECONDS)
            pipeline.stage("t", [held], series, "1h")
        pipeline.stage("s", [task(_count)], lock, "1h")
        with pipeline:
            eventually(lambda: len(entered) in (3, 6))
    assert entered == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_rows_that_still_enter_at_the_end_come_again_in_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entering, go_on = threading.Event(), threading.Event()
    entered: list[float] = []

    def enter(data: Latest, row: Any) -> None:
        if row["v"] == 3.0 and not go_on.is_set():
            entering.set()
            assert go_on.wait(PATIENCE)
            return  # too late
        entered.append(row["v"])
        data.update(row)

    def made(source: Kept) -> Pipeline:
        pipeline = Pipeline("p", checkpoint=tmp_path, checkpoint_every="1h")
        lock = RwLock(Latest())
        pipeline.source(source, lock, enter, unit=TimeUnit.SECONDS)
        pipeline.stage("s", [task(_count)], lock, "1h", RunnerConfig(shutdown_timeout=0.2))
        return pipeline

    source = Kept(rows(0, 3))
    with made(source) as pipeline:
        eventually(lambda: (kept := pipeline.stats.checkpoints) and kept.written)
        source.put(*rows(3, 5))
        assert entering.wait(PATIENCE)
    assert "p: there is no last checkpoint, since rows still enter" in caplog.text
    assert "still lets rows enter, and is left" in caplog.text
    go_on.set()
    with made(Kept(rows(0, 5))):
        eventually(lambda: entered[-1] == 4.0)
    assert entered[-2:] == [3.0, 4.0]


def test_a_last_checkpoint_that_fails_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(taker: Any) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr("run_task.pipeline.live._cut_taker.CutTaker.look", breaks)
        with Run(tmp_path, rows(0, 5)).pipeline:
            pass
    assert Run(tmp_path, rows(0, 25)).run().results


def value_of(lock: RwLock[Latest]) -> Latest:
    with lock.read() as value:
        return Latest(value)


def _count(data: Latest, start: int, end: int) -> int:
    return len(data)


# Refusals


def test_a_source_that_cannot_give_its_rows_again_is_refused(tmp_path: Path) -> None:
    async def coming() -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield 1, {"v": 1.0}

    class Coming:
        def __aiter__(self) -> AsyncIterator[Any]:
            return coming()

    for source in (iter(rows(0, 3)), Coming(), polling(lambda: {"v": 1.0}, "1s")):
        pipeline = Pipeline("p", checkpoint=tmp_path)
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        pipeline.source(source, series, name="feed")
        pipeline.stage("s", [held], series, "10s")
        with pytest.raises(ConfigError, match=r"source 'feed'.*Positioned, or journal="):
            pipeline.run_sync()
    assert not any(tmp_path.iterdir())


def test_data_that_makes_no_bytes_of_itself_is_refused(tmp_path: Path) -> None:
    pipeline = Pipeline("p", checkpoint=tmp_path)
    lock = RwLock[list[Any]]([])
    pipeline.source(rows(0, 3), lock, keep_row, unit=TimeUnit.SECONDS, name="feed")
    pipeline.stage("s", [task(_length)], lock, "10s")
    with pytest.raises(ConfigError, match=r"source 'feed': it feeds a RwLock of a list.*to_bytes"):
        pipeline.run_sync()


def keep_row(data: list[Any], row: Any) -> None:
    data.append(row)


def _length(data: list[Any], start: int, end: int) -> int:
    return len(data)


def test_a_state_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Odd)

    @task(state=Odd)
    def odd(view: TimeSeriesView, start: int, end: int, state: Odd) -> tuple[int, Odd]:
        return 1, state

    with pytest.raises(ConfigError, match=r"stage 's': the state of task 'odd'.*to_bytes"):
        Run(tmp_path, rows(0, 3), tasks=[odd]).run()


def test_what_cannot_be_kept_is_refused_while_it_runs_too(tmp_path: Path) -> None:
    pipeline = Pipeline("p", checkpoint=tmp_path)
    series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    pipeline.source(Kept(), series)
    pipeline.stage("s", [held], series, "1h")

    @task(state=lambda: object, name="odd")
    def odd(view: TimeSeriesView, start: int, end: int, state: Any) -> tuple[int, Any]:
        return 1, state

    with pipeline:
        with pytest.raises(ConfigError, match="Positioned, or journal="):
            pipeline.source(iter(rows(0, 3)), series)
        with pytest.raises(ConfigError, match="the state of task 'odd'"):
            pipeline.stage("t", [odd], series, "1h")
        assert [stage.name for stage in pipeline.stages] == ["s"]


def test_what_is_no_place_for_checkpoints_is_refused() -> None:
    wrong: list[Any] = [3, FolderStore, object()]
    for given in wrong:
        with pytest.raises(ConfigError, match="CheckpointStore"):
            Pipeline("p", checkpoint=given)
    with pytest.raises(ConfigError, match="checkpoint_every"):
        Pipeline("p", checkpoint="x", checkpoint_every="soon")


# Where they are kept


def test_a_store_is_one_pipelines_at_a_time(place: Place) -> None:
    store = place.store()
    store.begin("p")
    try:
        with pytest.raises(ConfigError, match=r"that runs has (these|the) checkpoints"):
            Run(place, rows(0, 3)).run()
    finally:
        store.close()
    Run(place, rows(0, 3)).run()
    store.begin("p")  # which may begin again
    store.close()
    store.close()


def test_a_folder_is_one_pipelines(tmp_path: Path) -> None:
    Run(tmp_path, rows(0, 3)).run()
    with pytest.raises(ConfigError, match="it has the checkpoints of pipeline 'p'"):
        FolderStore(tmp_path).begin("q")


def test_what_others_have_in_the_folder_stays(tmp_path: Path) -> None:
    names = ["notes.txt", "checkpoint-x-000000000001.json", "part-x-rows-1-0.bin", "part.bin"]
    for name in names:
        (tmp_path / name).write_text("theirs")
    for stop in (25, 45, 65):
        Run(tmp_path, rows(0, stop)).run()
    assert [(tmp_path / name).read_text() for name in names] == ["theirs"] * len(names)


def texts(place: Place) -> dict[str, str]:
    """The checkpoints, oldest first."""
    found = sorted(place.contents().items())
    return {name: text.decode() for name, text in found if name.startswith("checkpoint-")}


def parts(place: Place) -> dict[str, bytes]:
    return {name: data for name, data in place.contents().items() if name.startswith("part-")}


def test_two_checkpoints_are_kept_and_all_parts_are_those_of_one(place: Place) -> None:
    for stop in (25, 45, 65, 85):
        Run(place, rows(0, stop)).run()
    kept = texts(place).values()
    assert len(kept) == 2
    found = parts(place)
    assert found
    for name in found:
        assert any(name.removeprefix("part-") in text for text in kept)


@pytest.mark.parametrize("damage", ["text", "part", "gone"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    damage: str, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    Run(place, rows(0, 25)).run()
    before = place.contents()
    Run(place, rows(0, 45)).run()
    *earlier, last = texts(place)
    text = texts(place)[last]
    new = [
        name for name in parts(place) if name not in before and name.removeprefix("part-") in text
    ]
    name = last if damage == "text" else new[0]
    damaged = bytearray(place.contents()[name])
    damaged[len(damaged) // 2] ^= 1
    place.put(name, None if damage == "gone" else bytes(damaged))
    for other in earlier:  # it may be of a moment at which all had come
        place.put(other, None)
    place.restore(before, but=name)
    again = Run(place, rows(0, 45)).run()
    assert "is damaged, and the one before is taken" in caplog.text
    assert [end for end, _ in again.results][-2:] == [40, 50]
    assert again.results[-1][1] == {"counted": 40, "held": 45}


def test_a_run_does_not_begin_anew_if_all_its_checkpoints_are_damaged(place: Place) -> None:
    for stop in (25, 45):
        Run(place, rows(0, stop)).run()
    for name in texts(place):
        place.put(name, b"{}")
    with pytest.raises(RunTaskError, match="none of its checkpoints is whole"):
        Run(place, rows(0, 45)).run()
    for name in place.contents():
        place.put(name, None)
    assert len(Run(place, rows(0, 45)).run().results) == 5


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(FolderStore):
        def save(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    made = Run(tmp_path, rows(0, 25))
    made.pipeline = Pipeline("p", checkpoint=Full(tmp_path))
    series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    made.pipeline.source(paced(rows(0, 25), speed=1e6, unit=TimeUnit.SECONDS), series)
    made.pipeline.stage("s", [held], series, "10s").sink(CallbackSink(made.take))
    made.run()
    assert len(made.results) == 3
    assert "No space left on device" in caplog.text
    stats = made.pipeline.stats.checkpoints
    assert stats is not None
    assert stats.failed
    assert not stats.written


# What has changed


@task(name="counted", state=int, version=2)
def recounted(view: TimeSeriesView, start: int, end: int, count: int) -> tuple[int, int]:
    return count + 1, count + 1


def test_what_does_not_fit_any_more_is_told_in_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path, rows(0, 25)).run()
    caplog.clear()
    second = Run(tmp_path, rows(0, 45), tasks=[recounted], source="other").run()
    told = [record for record in caplog.records if "not all fits" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING
    for what in (
        "source 'other' is new",
        "source 'rows' is gone",
        "states of task 'counted' of stage 's': they are of version None, and it is of 2",
    ):
        assert what in told[0].getMessage()
        assert any(what in line for line in second.unfit)
    assert second.results[0][1] == {"counted": 1}


def test_a_stage_that_is_new_or_gone_or_has_other_windows_is_told(tmp_path: Path) -> None:
    Run(tmp_path, rows(0, 25)).run()
    second = Run(tmp_path, rows(0, 45), stage="t")
    second.run()
    assert "stage 't' is new" in second.unfit
    assert "stage 's' is gone" in second.unfit
    third = Run(tmp_path, rows(0, 65), stage="t")
    third.pipeline = Pipeline("p", checkpoint=tmp_path)
    third.pipeline.source(
        paced(rows(0, 65), speed=1e6, unit=TimeUnit.SECONDS), third.series, name="rows"
    )
    third.pipeline.stage("t", [held], third.series, "20s").sink(CallbackSink(third.take))
    third.run()
    assert any("it begins anew" in line for line in third.unfit)


def test_a_column_of_another_type_costs_the_rows_of_its_series(tmp_path: Path) -> None:
    Run(tmp_path, rows(0, 25)).run()
    second = Run(tmp_path, rows(0, 45), columns={"v": "float32"}).run()
    assert any("column 'v' was <f8, and is <f4" in line for line in second.unfit)
    assert [values["held"] for _, values in second.results] == [15, 20]
    assert [values["counted"] for _, values in second.results] == [35, 40]
