"""How a pipeline is declared, and what is refused."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from run_task import (
    Atom,
    ConfigError,
    DataSet,
    Overflow,
    Pipeline,
    RunnerConfig,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink
from run_task.sources import CsvFile, OnFault, polling

SECOND = TaskInterval.seconds(1)
MINUTE = TaskInterval.seconds(60)
ROWS = [(0, 1.0), (1, 2.0)]


@task
def total(values: list[float], start: int, end: int) -> float:
    return sum(values)


@task
def length(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


def add(values: list[float], value: float) -> None:
    values.append(value)


def take(values: list[float], dataset: DataSet[float]) -> None:
    values.extend(dataset.values())


def test_a_stage_and_a_pipeline_tell_what_they_are() -> None:
    pipeline = Pipeline("plant")
    data = RwLock([0.0])
    same = pipeline.source(ROWS, into=data, ingest=add)
    stage = pipeline.stage("sums", tasks=[total], data=data, interval=SECOND)
    assert same is pipeline
    assert stage.into(RwLock([0.0]), take) is stage
    assert stage.sink(CallbackSink(lambda stage, dataset: None)) is stage
    assert (stage.name, stage.data, stage.interval, list(stage.tasks)) == (
        "sums",
        data,
        SECOND,
        [total],
    )
    assert repr(stage) == "<Stage 'sums': 1 tasks every 1s>"
    assert repr(pipeline) == "<Pipeline 'plant' of 1 sources and stages: sums>"
    assert pipeline.name == "plant"


def test_stages_stand_in_the_order_in_which_they_are_fed() -> None:
    pipeline = Pipeline()
    first, second, third = (RwLock([0.0]) for _ in range(3))
    c = pipeline.stage("c", [total], third, SECOND)
    b = pipeline.stage("b", [total], second, SECOND)
    a = pipeline.stage("a", [total], first, SECOND)
    a.into(second, take).into(third, take)
    b.into(third, take)
    assert list(pipeline.stages) == [a, b, c]


class TestCycles:
    def test_one_of_two_stages(self) -> None:
        pipeline = Pipeline()
        left, right = RwLock([0.0]), RwLock([0.0])
        a = pipeline.stage("a", [total], left, SECOND)
        b = pipeline.stage("b", [total], right, SECOND)
        a.into(right, take)
        with pytest.raises(ConfigError, match=r"'a' -> 'b' -> 'a'|'b' -> 'a' -> 'b'"):
            b.into(left, take)
        # Nothing of it has stayed.
        assert list(pipeline.stages) == [a, b]
        assert not b.routes

    def test_a_stage_that_feeds_itself_is_none(self) -> None:
        pipeline = Pipeline()
        data, other = RwLock([0.0]), RwLock([0.0])
        a = pipeline.stage("a", [total], data, SECOND).into(data, take).into(other, take)
        b = pipeline.stage("b", [total], other, SECOND)
        with pytest.raises(ConfigError, match=r"'a' -> 'b' -> 'a'|'b' -> 'a' -> 'b'"):
            b.into(data, take)
        assert list(pipeline.stages) == [a, b]

    def test_one_that_a_new_stage_closes(self) -> None:
        pipeline = Pipeline()
        first, second = RwLock([0.0]), RwLock([0.0])
        pipeline.stage("a", [total], first, SECOND).into(second, take)
        b = pipeline.stage("b", [total], second, SECOND).into(third := RwLock([0.0]), take)
        b.into(fourth := RwLock([0.0]), take)
        pipeline.stage("c", [total], third, SECOND).into(fourth, take)
        with pytest.raises(ConfigError, match="'d'") as caught:
            pipeline.stage("d", [total], fourth, SECOND).into(first, take)
        drawn = str(caught.value).split(": ")[1].split(" -> ")
        assert drawn[0] == drawn[-1]
        assert {"'a'", "'b'", "'d'"} <= set(drawn)

    def test_one_through_many_stages_is_drawn_whole(self) -> None:
        pipeline = Pipeline()
        data = [RwLock([0.0]) for _ in range(4)]
        stages = [pipeline.stage(name, [total], data[at], SECOND) for at, name in enumerate("abcd")]
        for stage, target in ((2, 3), (0, 1), (1, 2)):
            stages[stage].into(data[target], take)
        with pytest.raises(ConfigError, match="'d' -> 'a' -> 'b' -> 'c' -> 'd'"):
            stages[3].into(data[0], take)
        with pytest.raises(ConfigError, match="'c' -> 'b' -> 'c'"):
            stages[2].into(data[1], take)

    def test_a_new_stage_over_data_that_closes_one_is_not_kept(self) -> None:
        pipeline = Pipeline()
        data = RwLock([0.0])
        stage = pipeline.stage("a", [total], RwLock([0.0]), SECOND).into(data, take)
        pipeline.stage("b", [total], data, SECOND)
        with pytest.raises(ConfigError, match="'b'"):
            pipeline.stage("b", [total], data, SECOND)
        assert [s.name for s in pipeline.stages] == ["a", "b"]
        assert stage in pipeline.stages


def unconnected(pipeline: Pipeline, count: int) -> None:
    for number in range(count):
        pipeline.stage(str(number), [total], RwLock([0.0]), SECOND)


def chain(pipeline: Pipeline, order: Sequence[int]) -> None:
    data = [RwLock([0.0]) for _ in range(len(order) + 1)]
    for number in order:
        stage = pipeline.stage(str(number), [total], data[number], SECOND)
        stage.into(data[number + 1], take)


def chain_from_its_beginning(pipeline: Pipeline, count: int) -> None:
    chain(pipeline, range(count))


def chain_from_its_end(pipeline: Pipeline, count: int) -> None:
    chain(pipeline, range(count - 1, -1, -1))


def star(pipeline: Pipeline, count: int) -> None:
    centre = RwLock([0.0])
    for number in range(count):
        pipeline.stage(str(number), [total], RwLock([0.0]), SECOND).into(centre, take)
    pipeline.stage("centre", [total], centre, SECOND).into(RwLock([0.0]), take)


@pytest.mark.parametrize(
    "declare", [unconnected, chain_from_its_beginning, chain_from_its_end, star]
)
def test_declaring_stages_is_linear(declare: Callable[[Pipeline, int], None]) -> None:
    def calls(count: int) -> int:
        """How many calls of functions, and resumptions of generators, so many stages take."""
        pipeline = Pipeline()
        before = sys.getprofile()
        entered = itertools.count()
        sys.setprofile(lambda frame, event, arg: next(entered) if event == "call" else None)
        try:
            declare(pipeline, count)
            assert len(pipeline.stages) >= count
        finally:
            sys.setprofile(before)
        return next(entered)

    assert calls(400) < 5 * calls(100)
    began = time.perf_counter()
    calls(1000)
    assert time.perf_counter() - began < 10.0  # it takes less than a tenth of a second


@pytest.mark.parametrize("name", ["", None, 3])
def test_names_are_texts(name: Any) -> None:
    with pytest.raises(ConfigError, match="name is a text"):
        Pipeline(name)
    with pytest.raises(ConfigError, match="name is a text"):
        Pipeline().stage(name, [total], RwLock([0.0]))


class TestRefusedStages:
    def test_what_a_context_would_refuse(self) -> None:
        with pytest.raises(ConfigError, match="stage 'a': there are no tasks"):
            Pipeline().stage("a", [], RwLock([0.0]))
        with pytest.raises(ConfigError, match=r"stage 'a': data=\[0.0\] has no read"):
            Pipeline().stage("a", [total], [0.0])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

    def test_a_task_that_cannot_be_called_as_a_runner_calls_it(self) -> None:
        class TwoParameters:
            name = "two"

            def run(self, data: list[float], start: int) -> float:
                return 0.0

        tasks: Any = [TwoParameters()]
        with pytest.raises(
            ConfigError, match=r"stage 'a': task 'two' cannot be called with .data, start, end."
        ):
            Pipeline().stage("a", tasks, RwLock([0.0]))

    def test_an_overflow_that_loses_results(self) -> None:
        with pytest.warns(DeprecationWarning, match="with_channel"):
            config = RunnerConfig(overflow=Overflow.DROP_OLDEST)
        with pytest.raises(ConfigError, match=r"stage 'a': overflow=.*drops nothing"):
            Pipeline().stage("a", [total], RwLock([0.0]), config=config)

    def test_an_interval_in_another_unit_than_the_data(self) -> None:
        series = TimeSeries({"v": float}, unit=TimeUnit.MILLIS)
        with pytest.raises(ConfigError, match=r"'a': .*in seconds, and the data in millis.*'1s'"):
            Pipeline().stage("a", [length], series, SECOND)

    def test_data_that_keeps_less_than_a_window_is_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS, retention=TaskInterval.minutes(1))
        pipeline = Pipeline()
        pipeline.stage("fits", [length], series, SECOND, RunnerConfig(window=MINUTE))
        counted = TimeSeries({"v": float}, TimeUnit.SECONDS, retention=10)
        pipeline.stage("counted", [length], counted, SECOND, RunnerConfig(window=MINUTE))
        assert not caplog.records
        pipeline.stage("a", [length], series, SECOND, RunnerConfig(window=MINUTE, grace=SECOND))
        assert "'a': its windows reach back 1m, and wait for 1s, its data keeps" in caplog.text
        assert "give the data a longer retention=" in caplog.text

    def test_targets_that_cannot_be_written(self) -> None:
        stage: Any = Pipeline().stage("a", [total], RwLock([0.0]))
        with pytest.raises(ConfigError, match=r"stage 'a': into=\[\] has no write"):
            stage.into([], take)
        with pytest.raises(ConfigError, match="stage 'a': ingest='take' is no function"):
            stage.into(RwLock([0.0]), "take")
        with pytest.raises(
            ConfigError, match="stage 'a': say by ingest= how a DataSet enters <RwL"
        ):
            stage.into(RwLock([0.0]))
        with pytest.raises(ConfigError, match="no task is called like the column 'mean', but 'to"):
            stage.into(TimeSeries({"total": float, "mean": float}))
        assert not stage.routes

    def test_sinks_that_are_none(self) -> None:
        stage: Any = Pipeline().stage("a", [total], RwLock([0.0]))
        with pytest.raises(ConfigError, match=r"stage 'a': sink=\[\] has no write"):
            stage.sink([])
        with pytest.raises(ConfigError, match=r"no write\(\): CallbackSink makes a sink of a func"):
            stage.sink(print)
        with pytest.raises(ConfigError, match=r"class: make a sink of it, CallbackSink\(\.\.\.\)"):
            stage.sink(CallbackSink)
        assert not stage.sinks

    def test_a_callback_of_other_parameters(self) -> None:
        def one(dataset: DataSet[Any]) -> None: ...

        callback: Any = one
        with pytest.raises(
            ConfigError, match=r"cannot be called with \(stage, dataset\): too many"
        ):
            CallbackSink(callback)
        CallbackSink(print)

    def test_a_sink_whose_write_does_not_take_a_result(self) -> None:
        class Old:
            def write(self, stage: str, dataset: DataSet[Any]) -> None: ...
            def flush(self) -> None: ...
            def close(self) -> None: ...

        stage: Any = Pipeline().stage("a", [total], RwLock([0.0]))
        with pytest.raises(ConfigError, match=r"called with one Result: make it write.self, resul"):
            stage.sink(Old())
        assert not stage.sinks


class TestRefusedSources:
    def test_what_is_no_iterable(self) -> None:
        source: Any = lambda: 1.0  # noqa: E731
        with pytest.raises(ConfigError, match=r"no iterable.*polling"):
            Pipeline().source(source, into=RwLock([0.0]), ingest=add)

    @pytest.mark.parametrize("path", ["prices.csv", Path("prices.csv")])
    def test_a_path(self, path: Any) -> None:
        with pytest.raises(ConfigError, match=r"prices.csv.*a path is no source.*by CsvFile"):
            Pipeline().source(path, into=RwLock([0.0]), ingest=add)

    def test_a_replay_of_none(self) -> None:
        pipeline = Pipeline("prices")
        pipeline.stage("a", [total], RwLock([0.0]))
        with pytest.raises(ConfigError, match="'prices' has no sources, and a replay goes through"):
            pipeline.replay()

    def test_data_that_cannot_be_written(self) -> None:
        into: Any = [0.0]
        with pytest.raises(ConfigError, match=r"into=\[0.0\] has no write"):
            Pipeline().source(ROWS, into=into, ingest=add)

    def test_a_lock_without_a_way_to_enter_it(self) -> None:
        pipeline: Any = Pipeline()
        with pytest.raises(ConfigError, match="say by ingest= how a row enters <RwLock"):
            pipeline.source(ROWS, into=RwLock([0.0]))
        with pytest.raises(ConfigError, match="say by ingest="):
            pipeline.source(ROWS, into=Atom(0.0))

    def test_long_rows_are_not_spelled_out(self) -> None:
        class Rows(list[tuple[int, float]]):
            def __repr__(self) -> str:
                raise AssertionError("this takes a while")

        rows = Rows((i, 0.0) for i in range(100_000))
        into = RwLock([0.0] * 10_000)
        pipeline: Any = Pipeline()
        with pytest.raises(ConfigError) as caught:
            pipeline.source(rows, into=into)
        assert len(str(caught.value)) < 500
        with pytest.raises(ConfigError) as caught:
            pipeline.source([(i, 0.0) for i in range(100_000)], into=into)
        assert len(str(caught.value)) < 500

    def test_one_that_nobody_reads(self) -> None:
        pipeline = Pipeline().source(ROWS, into=RwLock([0.0]), ingest=add)
        pipeline.stage("a", [total], RwLock([0.0]), SECOND)
        with pytest.raises(ConfigError, match=r"no stage reads <RwLock of .0.0.* give it to one"):
            pipeline.replay()
        with pytest.raises(ConfigError, match="no stage reads"):
            pipeline.run_sync()

    def test_units_that_differ(self, tmp_path: Path) -> None:
        series = TimeSeries({"v": float}, unit=TimeUnit.MILLIS)
        (tmp_path / "x.csv").write_text("timestamp,v\n")
        file = CsvFile(tmp_path / "x.csv", unit=TimeUnit.SECONDS)
        with pytest.raises(
            ConfigError,
            match="the source is in seconds, the data is in millis: make them the same, "
            r"such as by unit=TimeUnit.MILLIS of the source",
        ):
            Pipeline().source(file, into=series)
        with pytest.raises(ConfigError, match="unit= is in micros, the data is in millis"):
            Pipeline().source([(0, {"v": 1.0})], into=series, unit=TimeUnit.MICROS)

    def test_units_that_only_the_stages_could_tell_and_do_not(self) -> None:
        pipeline = Pipeline()
        data = RwLock([0.0])
        pipeline.source(ROWS, into=data, ingest=add)
        pipeline.stage("a", [total], data, TaskInterval.seconds(1))
        pipeline.stage("b", [total], data, TaskInterval.millis(1))
        with pytest.raises(
            ConfigError, match="stage 'a' is in seconds, stage 'b' is in millis: say by unit="
        ):
            pipeline.replay()

    def test_rows_that_are_none(self) -> None:
        rows: Any
        for rows in ([5], [("x", 1)], [(1.5, 1)], [(True, 1)], [(1, 2, 3)]):
            pipeline = Pipeline()
            data = RwLock([0.0])
            pipeline.source(rows, into=data, ingest=add, on_bad_row=OnFault.RAISE)
            pipeline.stage("a", [total], data, SECOND)
            with pytest.raises(ConfigError, match=r"tuples of .timestamp, row.") as caught:
                list(pipeline.replay())
            assert "in the source" in caught.value.__notes__[0]


class TestHistory:
    """What can be replayed."""

    def test_a_pipeline_without_stages_cannot(self) -> None:
        with pytest.raises(ConfigError, match="'p' has no stages: add one"):
            Pipeline("p").replay()
        with pytest.raises(ConfigError, match="'p' has no stages: add one"):
            Pipeline("p").run_sync()

    def test_sources_that_have_none_cannot(self) -> None:
        async def rows() -> AsyncIterator[tuple[int, float]]:
            yield 0, 1.0

        data = RwLock([0.0])
        for source in (rows(), polling(lambda: 1.0, every=SECOND)):
            pipeline = Pipeline().source(source, into=data, ingest=add)
            pipeline.stage("a", [total], data, SECOND)
            with pytest.raises(ConfigError, match="it has no history"):
                pipeline.replay()

    def test_an_iterator_can_once(self) -> None:
        def rows() -> Iterator[tuple[int, float]]:
            yield from ROWS

        data = RwLock([0.0])
        pipeline = Pipeline().source(rows(), into=data, ingest=add)
        pipeline.stage("a", [total], data, SECOND)
        assert [dataset[total] for _, dataset in pipeline.replay()] == [1.0, 3.0]
        with pytest.raises(ConfigError, match="an iterator gives its rows once"):
            pipeline.replay()
        with pytest.raises(ConfigError, match="an iterator gives its rows once"):
            pipeline.run_sync()

    def test_data_that_cannot_be_copied_cannot(self) -> None:
        data = RwLock({"lock": threading.Lock()})
        pipeline = Pipeline()

        @task
        def count(data: dict[str, Any], start: int, end: int) -> int:
            return len(data)

        pipeline.stage("a", [count], data, SECOND)
        with pytest.raises(ConfigError, match=r"cannot be copied .*give it a __deepcopy__"):
            pipeline.replay()
        other = Pipeline()
        stage = other.stage("a", [total], RwLock([0.0]), SECOND)
        stage.into(data, lambda data, dataset: None)  # which no stage reads
        with pytest.raises(ConfigError, match=r"cannot be copied .*give it a __deepcopy__"):
            other.replay()

    def test_data_whose_copying_raises_what_cannot_be_told_cannot(self) -> None:
        class Untold(Exception):
            def __str__(self) -> str:
                raise LookupError

            __repr__ = __str__

        class Data(RwLock[list[float]]):
            def __init__(self, error: BaseException) -> None:
                super().__init__([0.0])
                self._error = error

            def __deepcopy__(self, memo: object) -> Any:
                raise self._error

        for error in (Untold(), SystemExit(1)):
            pipeline = Pipeline()
            pipeline.stage("a", [total], Data(error), SECOND)
            with pytest.raises(ConfigError, match="cannot be copied") as caught:
                pipeline.replay()
            assert caught.value.__cause__ is error

    def test_times_that_are_not_clear_cannot(self) -> None:
        from datetime import datetime

        pipeline = Pipeline()
        pipeline.stage("a", [total], RwLock([0.0]), SECOND)
        with pytest.raises(ConfigError, match="has no time zone"):
            pipeline.replay(start=datetime(2020, 1, 1))  # noqa: DTZ001
        start: Any = 1.5
        with pytest.raises(ConfigError, match="a time is a datetime, or an int"):
            pipeline.replay(start=start)
        pandas: Any = pytest.importorskip("pandas")
        with pytest.raises(ConfigError, match="NaT is no time"):
            pipeline.replay(start=pandas.NaT)
        pipeline.stage("b", [total], RwLock([0.0]), TaskInterval.millis(1))
        with pytest.raises(ConfigError, match="here they are in millis, seconds"):
            pipeline.replay(end=5)

    def test_a_sink_that_tells_nothing_cannot_be_resumed_from(self) -> None:
        sink: Any = CallbackSink(lambda stage, dataset: None)
        pipeline = Pipeline()
        pipeline.stage("a", [total], RwLock([0.0]), SECOND).sink(sink)
        with pytest.raises(ConfigError, match="does not tell what it holds"):
            pipeline.resume(sink)
