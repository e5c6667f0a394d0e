"""A replay's aggregates go to a Parquet table by column, and stand there as if one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, Pipeline, Retry, TaskInterval, Then, TimeSeries, TimeUnit
from run_task.aggregates import (
    Aggregate,
    ColumnKernel,
    SegmentedRows,
    count,
    first,
    last,
    mean,
    ohlc,
    std,
)
from run_task.aggregates import max as most
from run_task.pipeline._delivery import Delivery
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.sinks import BulkSink, DurableSink, Layout, ParquetSink, Result, ResultBatch

pq: Any = pytest.importorskip("pyarrow.parquet")

AGGREGATES = [
    *(count(), mean("value"), std("value"), most("size"), last("up"), first("name")),
    ohlc("value"),
]


def pipeline_of(
    *sinks: Any, aggregates: Sequence[Any] = AGGREGATES, stage: str = "s", rows: int = 20_000
) -> Pipeline:
    """Windows of ten seconds, some of which have no rows."""
    chance = np.random.default_rng(1)
    times = np.flatnonzero(chance.random(rows) < 0.2)
    columns: Any = {"value": float, "size": int, "up": bool, "name": str}
    series = TimeSeries(columns, TimeUnit.SECONDS)
    series.extend(
        times,
        value=chance.normal(100, 5, len(times)),
        size=chance.integers(0, 9, len(times)),
        up=chance.random(len(times)) < 0.5,
        name=np.array(["a", "é", "b,c"])[chance.integers(0, 3, len(times))],
    )
    pipeline = Pipeline("p")
    made = pipeline.stage(stage, aggregates, series, "10s")
    for sink in sinks:
        made.sink(sink)
    return pipeline


class OneByOne:
    """A Parquet sink as a sink of before: nothing of it takes many results at once."""

    def __init__(self, sink: ParquetSink) -> None:
        # From Python 3.12 on, what is asked for by __getattr__ is no part of a protocol.
        for name in dir(sink):
            if not name.startswith("_") and name != "write_many":
                setattr(self, name, getattr(sink, name))


def wide(folder: Path) -> ParquetSink:
    return ParquetSink(folder, layout=Layout.WIDE)


def stored(folder: Path) -> Any:
    """All there is in the files, by window."""
    return pq.read_table(folder).sort_by("window_end").combine_chunks().replace_schema_metadata()


def rows_of(sink: DurableSink) -> list[str]:
    return list(map(repr, sink.rows()))


class Counting:
    """A sink that counts by which way results come to it."""

    def __init__(self) -> None:
        self.written: list[Result] = []
        self.batches: list[ResultBatch] = []
        self.flushed = 0

    def write(self, result: Result) -> None:
        self.written.append(result)

    def write_many(self, batch: ResultBatch) -> None:
        self.batches.append(batch)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        """There is nothing to close."""


def test_it_takes_part_and_the_table_is_that_of_one_by_one(tmp_path: Path) -> None:
    counting = Counting()
    assert isinstance(counting, BulkSink)
    with closing(wide(tmp_path / "many")) as many, closing(wide(tmp_path / "one")) as one:
        one_by_one = OneByOne(one)
        assert not isinstance(one_by_one, BulkSink)
        pipeline = pipeline_of(many, one_by_one, counting)
        given = [dataset for _, dataset in pipeline.replay()]
        assert sum(map(len, counting.batches)) > 0.9 * len(given)
        assert rows_of(many) == rows_of(one)
        assert pipeline.stats.refused == 0
    assert stored(tmp_path / "many").equals(stored(tmp_path / "one"))
    told = [result for batch in counting.batches for result in batch]
    assert [r.dataset for r in (*counting.written, *told)] == given
    assert {(r.pipeline, r.stage, r.unit) for r in told} == {("p", "s", TimeUnit.SECONDS)}


@pytest.mark.parametrize("left", [1, 2, 700, 1999])
def test_a_replay_that_is_left_has_written_what_it_gave(left: int, tmp_path: Path) -> None:
    with closing(wide(tmp_path)) as sink:
        replay = pipeline_of(sink).replay()
        given = [next(replay)[1].timestamp for _ in range(left)]
        replay.close()
        assert sorted({row.end for row in sink.rows()}) == given
        assert sink.last("s") == given[-1]


def test_a_flush_meanwhile_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(1)
    with closing(wide(tmp_path / "many")) as many, closing(wide(tmp_path / "one")) as one:
        for _ in pipeline_of(many, OneByOne(one)).replay():
            if chance.random() < 0.01:
                many.flush()
                one.flush()
        assert rows_of(many) == rows_of(one)
    assert stored(tmp_path / "many").equals(stored(tmp_path / "one"))


def test_windows_that_come_again_replace_those_there(tmp_path: Path) -> None:
    before = [mean("value").named("a"), count().named("b")]
    after = [most("value").named("a"), count(where="value > 100").named("b")]
    with closing(wide(tmp_path / "many")) as many, closing(wide(tmp_path / "one")) as one:
        for flush in (False, True):
            for tasks, span in ((before, (None, None)), (after, (5_000, 9_000))):
                pipeline = pipeline_of(many, OneByOne(one), aggregates=tasks)
                for _ in pipeline.replay(*span):
                    pass
            several = [pipeline_of(many, OneByOne(one)).replay() for _ in range(2)]
            for _ in zip(*several):  # two at one time
                pass
            for replay in several:
                replay.close()
            if flush:
                many.flush()
        assert sorted(rows_of(many)) == sorted(rows_of(one))
        ends = [row.end for row in many.rows() if row.task == "a"]
        assert sorted(ends) == sorted(set(ends))
    assert stored(tmp_path / "many").equals(stored(tmp_path / "one"))


def test_many_that_wait_for_one_flush_replace_each_other(tmp_path: Path) -> None:
    def batch(begin: int, end: int, value: float) -> ResultBatch:
        ends = list(range(begin, end))
        starts = [at - 1 for at in ends]
        interval = pipeline_of().stage("of", [count()], series, "1s").interval
        return ResultBatch("p", "s", interval, starts, ends, {"a": [value] * len(ends)})

    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    with closing(wide(tmp_path)) as sink:
        sink.begin("p")
        sink.write(next(iter(batch(1, 2, 0.0))))
        sink.write_many(batch(2, 10, 1.0))
        sink.write_many(batch(5, 8, 2.0))
        sink.write(next(iter(batch(6, 7, 3.0))))
        sink.write_many(batch(9, 12, 4.0))
        assert {row.end: row.value for row in sink.rows()} == {
            1: 0.0,
            2: 1.0,
            3: 1.0,
            4: 1.0,
            5: 2.0,
            6: 3.0,
            7: 2.0,
            8: 1.0,
            9: 4.0,
            10: 4.0,
            11: 4.0,
        }


@dataclass(frozen=True)
class Odd(ColumnKernel[float]):
    """The mean, and a text in its place where a window has many rows."""

    function = "odd"

    def results(self, rows: SegmentedRows) -> Sequence[float]:
        means = rows.sum(rows.values(self.column)) / rows.counts
        lies: Any = ["x" if n > 5 else m for n, m in zip(rows.counts.tolist(), means.tolist())]
        found: Sequence[float] = lies
        return found


def test_what_is_refused_is_each_window_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aggregates = [count(), Aggregate(Odd("value"), name="odd")]
    with closing(wide(tmp_path / "many")) as many, closing(wide(tmp_path / "one")) as one:
        pipeline = pipeline_of(many, OneByOne(one), aggregates=aggregates)
        given = [dataset for _, dataset in pipeline.replay()]
        refused = sum(dataset["odd"] == "x" for dataset in given)
        assert 0 < refused < len(given) / 2
        assert pipeline.stats.refused == 2 * refused
        assert rows_of(many) == rows_of(one)
        assert len({row.end for row in many.rows()}) == len(given) - refused
    assert "stage 's', task 'odd': its result cannot be stored: 'x', a str, is none" in caplog.text
    assert stored(tmp_path / "many").equals(stored(tmp_path / "one"))


@pytest.mark.parametrize("layout", [Layout.LONG, Layout.WIDE])
def test_what_a_sink_does_not_take_so_it_takes_one_by_one(layout: Layout, tmp_path: Path) -> None:
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    series.extend(range(100), value=[float(i) for i in range(100)])
    pipeline = Pipeline("p")

    @dataclass(frozen=True)
    class Untold(ColumnKernel[Any]):
        function = "untold"

        def results(self, rows: SegmentedRows) -> Sequence[Any]:
            counts: list[Any] = rows.counts.tolist()
            return counts

    stage = pipeline.stage("s", [Aggregate(Untold("value"), name="n")], series, "5s")
    with closing(ParquetSink(tmp_path, layout=layout)) as sink:
        stage.sink(sink)
        assert sum(1 for _ in pipeline.replay()) == 20
        assert [(row.end, row.value) for row in sink.rows()] == [
            (end, 5) for end in range(5, 101, 5)
        ]


class Away(Counting):
    """A sink that raises now and then, and has lost what it had not flushed then."""

    def __init__(self, times: set[int]) -> None:
        super().__init__()
        self._times = times
        self._calls = 0
        self.kept: list[Result] = []
        self._waiting: list[Result] = []

    def _call(self) -> None:
        self._calls += 1
        if self._calls in self._times:
            self._waiting.clear()
            raise OSError("away")

    def write(self, result: Result) -> None:
        self._call()
        self._waiting.append(result)

    def write_many(self, batch: ResultBatch) -> None:
        self._call()
        self._waiting += batch

    def flush(self) -> None:
        self._call()
        self.kept += self._waiting
        self._waiting.clear()


@pytest.mark.parametrize("times", [{1}, {2, 3}, {1, 2, 4, 5, 6}, set(range(1, 12, 2))])
def test_a_sink_that_is_away_has_all_of_it_in_the_end(times: set[int]) -> None:
    sink = Away(times)
    pipeline = pipeline_of()
    pipeline.stages[0].sink(sink, retry=Retry(wait="1ms", longest="2ms"))
    given = [dataset for _, dataset in pipeline.replay()]
    assert [result.dataset for result in sink.kept] == given
    assert pipeline.stats.refused == 0


def test_what_a_sink_drops_adds_up() -> None:
    letters: list[Result] = []

    def take(result: Result, reason: str, detail: str) -> None:
        assert reason == "dropped"
        letters.append(result)

    sink = Away({1, 2, 3})
    pipeline = pipeline_of()
    retry = Retry(2, wait="1ms", then=Then.DROP)
    pipeline.stages[0].sink(sink, retry=retry, dead_letters=take)
    given = [dataset for _, dataset in pipeline.replay()]
    assert 0 < len(letters) < len(given)
    assert [letter.dataset for letter in letters] == given[: len(letters)]
    assert [result.dataset for result in sink.kept] == given[len(letters) :]


def test_counts_are_of_results_and_not_of_batches() -> None:
    sink = Away({2})
    delivery = Delivery(sink, SinkPolicy(Retry(1, then=Then.DROP)), Refusals())
    ends = list(range(10, 60, 10))
    interval = TaskInterval.seconds(10)
    batch = ResultBatch("p", "s", interval, [e - 10 for e in ends], ends, {"a": [1.0] * 5})
    delivery.write_many(batch)
    assert (delivery.not_taken, delivery.written) == (0, 0)
    delivery.flush()  # which fails, and drops all that it may not have
    assert (delivery.dropped, delivery.written) == (5, 0)
    delivery.write_many(batch)
    delivery.write(next(iter(batch)))
    delivery.flush()
    assert (delivery.dropped, delivery.written) == (5, 6)
    delivery.write_many(batch)
    delivery.close()
    assert (delivery.written, delivery.rest()) == (11, [])


def test_resuming_goes_on_from_it(tmp_path: Path) -> None:
    def run(replay: Iterator[Any]) -> list[int]:
        return [dataset.timestamp for _, dataset in replay]

    with closing(wide(tmp_path)) as sink:
        pipeline = pipeline_of(sink)
        replay = pipeline.replay()
        for _ in range(1_234):
            next(replay)
        replay.close()
    with closing(wide(tmp_path)) as sink:
        whole = run(pipeline_of().replay())
        resumed = run(pipeline_of(sink).resume(sink))
        assert resumed == [end for end in whole if end >= whole[1_233]]
        assert [row.end for row in sink.rows() if row.task == "count"] == whole


def test_another_pipeline_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with closing(wide(tmp_path)) as sink:
        for _ in pipeline_of(sink).replay():
            pass
        with pytest.raises(ConfigError, match="holds no results of stage 'other' of 'p'"):
            pipeline_of(sink, stage="other").replay()
