"""kill -9 at random moments, and resuming: the sink ends up equal to an undisturbed run."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import resumer
from tests.support.forking import Forking
from tests.support.proof import in_proof
from tests.support.threads import eventually
from tests.support.writer import opened

from run_task import (
    ConfigError,
    DataSet,
    Pipeline,
    RwLock,
    TaskInterval,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.sinks import CallbackSink, DurableSink, JsonLinesSink, Result, SqlSink
from run_task.sources import paced, polling

SECOND = TaskInterval.seconds(1)


def held(sink: DurableSink) -> list[Any]:
    sink.begin("p")
    rows = sorted(sink.rows(), key=lambda row: (row.stage, row.end, row.task))
    sink.close()
    return [(*row[:5], repr(row.value), row.error) for row in rows]


STAGES = ((5, "means"), (20, "drift"))
"""For how long rows matter to each stage of the resumer: its windows, and those of who feeds it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = str(tmp_path_factory.mktemp("undisturbed"))
    sink = opened("sqlite", folder)
    results = list(resumer.pipeline(sink, rows=resumer.rows()).replay())
    sink.close()
    rows = held(opened("sqlite", folder))
    assert len(rows) == sum(len(dataset) + len(dataset.errors) for _, dataset in results)
    assert len(rows) > 600
    return rows


@pytest.mark.parametrize(
    ("kind", "kills"), [("sqlite", in_proof(20, short=5)), ("jsonl", 4), ("csv", 4), ("parquet", 4)]
)
def test_a_run_that_is_killed_and_resumed_ends_up_as_an_undisturbed_one(
    kind: str, kills: int, tmp_path: Path, undisturbed: list[Any]
) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    killed_in_the_middle = 0
    with Forking("resumer", kind, str(tmp_path)) as program:
        ended = False
        for run in range(kills + 1):
            program.start()
            if run < kills:
                # A few windows on, so that all kills lie in the run; the moment is a random one.
                for _ in range(chance.randrange(4)):
                    if program.line() == "ended\n":
                        ended = True
                        break
                time.sleep(chance.random() * 0.004)
                program.kill()
            ended = "ended\n" in program.reap() or ended
            killed_in_the_middle += not ended
        program.finish()
    assert ended
    assert killed_in_the_middle >= kills // 2, f"seed {seed}"
    assert held(opened(kind, str(tmp_path))) == undisturbed, f"seed {seed}"
    # All there is to know is there: resuming gives the last windows once more, and changes nothing.
    sink = opened(kind, str(tmp_path))
    again = [
        (stage, dataset.timestamp)
        for stage, dataset in resumer.pipeline(sink, rows=resumer.rows()).resume(sink)
    ]
    lasts = {stage: max(row[3] for row in undisturbed if row[1] == stage) for _, stage in STAGES}
    assert sorted(again) == sorted(
        (stage, end)
        for length, stage in STAGES
        for end in range(lasts[stage] - length + 5, lasts[stage] + 1, 5)
        if stage == "means" or end % 15 == 0
    )
    sink.close()
    assert held(opened(kind, str(tmp_path))) == undisturbed


@task
def seen(values: list[int], start: int, end: int) -> list[int]:
    return list(values)


def add(values: list[int], value: int) -> None:
    values.append(value)


def test_each_stage_goes_on_from_its_own_last_window(tmp_path: Path) -> None:
    def make(sink: DurableSink) -> Pipeline:
        data, later = RwLock[list[int]]([]), RwLock[list[int]]([])
        rows = [(i, i) for i in range(10)]
        pipeline = Pipeline("p").source(rows, data, add)
        pipeline.stage("up", [seen], data, SECOND).into(
            later, lambda values, dataset: values.append(dataset.timestamp)
        ).sink(sink)
        pipeline.stage("down", [seen], later, TaskInterval.seconds(2)).sink(sink)
        return pipeline

    with_all, with_some = (SqlSink(tmp_path / name) for name in ("all.db", "some.db"))
    everything = list(make(with_all).replay())
    with_some.begin("p")
    for stage, dataset in everything:
        if dataset.timestamp <= (6 if stage == "up" else 2):
            with_some.write(Result.of("p", stage, dataset))
    with_some.flush()
    assert list(make(with_some).resume(with_some)) == [
        (stage, dataset)
        for stage, dataset in everything
        # And the last one that it holds, which rows may lack that came after.
        if dataset.timestamp >= (6 if stage == "up" else 2)
    ]
    assert held(with_some) == held(with_all)


def test_resumed_and_then_live(tmp_path: Path) -> None:
    clock = VirtualClock()
    polled = iter([100, 101, 102])
    lock = threading.Lock()

    def poll() -> int | None:
        with lock:
            return next(polled, None)

    def make(sink: DurableSink, data: RwLock[list[int]]) -> Pipeline:
        pipeline = Pipeline("p", clock=clock)
        pipeline.source([(i, i) for i in range(5)], data, add)
        pipeline.source(polling(poll, every=SECOND, clock=clock), data, add)
        pipeline.stage("a", [seen], data, SECOND).sink(sink)
        return pipeline

    sink = JsonLinesSink(tmp_path / "x.jsonl")
    data = RwLock[list[int]]([])
    pipeline = make(sink, data)
    with pytest.raises(ConfigError, match="it has no history"):
        pipeline.replay()
    assert [dataset["seen"] for _, dataset in pipeline.resume(sink)][-1] == [0, 1, 2, 3, 4]
    clock.advance(TaskInterval.seconds(5))
    live: list[DataSet[Any]] = []
    pipeline.stages[0].sink(CallbackSink(lambda stage, dataset: live.append(dataset)))
    with pipeline:
        for _ in range(3):
            eventually(lambda: read(data)[-1] == 100 + len(live))
            clock.advance(SECOND)
            eventually(lambda: live and live[-1].timestamp == clock.time_ns() // 10**9)
    # What was replayed is there once, and windows go on where they had come to.
    assert live[-1]["seen"][:6] == [0, 1, 2, 3, 4, 100]
    sink = JsonLinesSink(tmp_path / "x.jsonl")
    sink.begin("p")
    assert sorted({row.end for row in sink.rows()}) == list(range(1, 9))
    sink.close()


def read(data: RwLock[list[int]]) -> list[int]:
    with data.read() as values:
        return list(values)


def test_a_live_run_that_was_cut_off_is_resumed(tmp_path: Path) -> None:
    rows = [(i // 3, i) for i in range(900)]

    def make(sink: DurableSink, source: Any) -> Pipeline:
        data = RwLock[list[int]]([])
        pipeline = Pipeline("p").source(source, data, add)
        pipeline.stage("a", [seen], data, TaskInterval.seconds(10)).sink(sink)
        return pipeline

    expected = SqlSink(tmp_path / "expected.db")
    list(make(expected, rows).replay())
    with SqlSinkAt(tmp_path / "live.db") as sink:
        pipeline = make(sink, paced(rows, 1000, unit=TimeUnit.SECONDS))
        with pipeline:
            time.sleep(0.1)
    with SqlSinkAt(tmp_path / "live.db") as sink:
        sink.begin("p")
        last = sink.last("a")
        assert last is not None
        assert last < 300
        # The same pipeline, with what is played: a replay does not wait for it.
        pipeline = make(sink, paced(rows, 1, unit=TimeUnit.SECONDS))
        ends = [dataset.timestamp for _, dataset in pipeline.resume(sink)]
        assert ends == list(range(last, 301, 10))
        pipeline.run_sync()  # all its sources have been read: it ends at once
    assert held(SqlSink(tmp_path / "live.db")) == held(expected)


class SqlSinkAt(SqlSink):
    """A sink that is closed at the end of a block."""

    def __enter__(self) -> SqlSinkAt:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "csv", "parquet"])
def test_a_stage_whose_unit_is_another_than_the_sink_holds_is_refused(
    kind: str, tmp_path: Path
) -> None:
    rows = [(second, 1) for second in range(20)]

    def pipeline(sink: DurableSink, interval: TaskInterval) -> Pipeline:
        data = RwLock[list[int]]([])
        made = Pipeline("p").source(rows, data, add, unit=TimeUnit.SECONDS)
        made.stage("a", [seen], data, interval).sink(sink)
        return made

    sink = opened(kind, str(tmp_path))
    list(pipeline(sink, SECOND).replay())
    before = list(sink.rows())
    other = pipeline(sink, TaskInterval.millis(1000))
    refused = r"stage 'a': its windows are in millis, and .* an earlier run in seconds: take the un"
    with pytest.raises(ConfigError, match=refused):
        other.resume(sink)
    with pytest.raises(ConfigError, match=refused):
        other.replay()
    with pytest.raises(ConfigError, match=refused):
        other.run_sync()
    assert list(sink.rows()) == before
    assert list(pipeline(sink, SECOND).resume(sink))
    sink.close()


def test_sources_that_all_have_no_history_are_refused(tmp_path: Path) -> None:
    with SqlSinkAt(tmp_path / "x.db") as sink:
        data = RwLock[list[int]]([])
        pipeline = Pipeline("p").source(polling(lambda: 1, every=SECOND), data, add)
        pipeline.stage("a", [seen], data, SECOND).sink(sink)
        with pytest.raises(ConfigError, match=r"none has a history.*declare what was recorded"):
            pipeline.resume(sink)


def test_a_sink_of_no_stage_cannot_be_resumed_from(tmp_path: Path) -> None:
    with SqlSinkAt(tmp_path / "x.db") as sink:
        pipeline = Pipeline("p")
        pipeline.stage("a", [seen], RwLock[list[int]]([]), SECOND)
        with pytest.raises(ConfigError, match="no stage writes to this sink: add it by sink"):
            pipeline.resume(sink)


def test_rows_that_an_iterator_gave_are_gone(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[int, int]]:
        yield 0, 1

    with SqlSinkAt(tmp_path / "x.db") as sink:
        pipeline = Pipeline("p").source(rows(), data := RwLock[list[int]]([]), add)
        pipeline.stage("a", [seen], data, SECOND).sink(sink)
        assert len(list(pipeline.resume(sink))) == 1
        with pytest.raises(ConfigError, match="an iterator gives its rows once"):
            pipeline.replay()


def test_rows_that_are_in_the_data_do_not_enter_it_again(tmp_path: Path) -> None:
    with SqlSinkAt(tmp_path / "x.db") as sink:
        pipeline = Pipeline("p").source([(0, 1)], data := RwLock[list[int]]([]), add)
        pipeline.stage("a", [seen], data, SECOND).sink(sink)
        assert len(list(pipeline.resume(sink))) == 1
        with pytest.raises(ConfigError, match=r"was run or resumed before.* make a new one"):
            pipeline.resume(sink)
        assert len(list(pipeline.replay())) == 1
