"""Of a replay, the DataSets of one stage."""

from __future__ import annotations

import pytest
from tests.support.bench import RecordingSink

from run_task import ConfigError, KeyedDataSet, Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task

ROWS = [(second, {"symbol": "AB"[second % 2], "price": float(second)}) for second in range(20)]


@task
def highest(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["price"].max())


def market() -> Pipeline:
    trades = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    pipeline = Pipeline("market").source(ROWS, trades)
    pipeline.stage("tens", [highest], trades, "10s", by="symbol")
    pipeline.stage("fives", [highest], trades, "5s").sink(RecordingSink())
    return pipeline


def test_it_gives_those_of_the_stage_and_computes_all() -> None:
    pipeline = market()
    tens, fives = pipeline.stages
    replay = pipeline.replay()
    given = list(replay.of(tens))
    assert given == [dataset for name, dataset in pipeline.replay() if name == "tens"]
    assert all(isinstance(dataset, KeyedDataSet) for dataset in given)
    assert [dataset[highest] for dataset in given] == [{"A": 8, "B": 9}, {"A": 18, "B": 19}]
    assert replay.summary.stages == {"tens": 2, "fives": 4}
    (sink,) = fives.sinks
    assert isinstance(sink, RecordingSink)
    assert [dataset["highest"] for _, dataset in sink.results[:4]] == [4, 9, 14, 19]


def test_it_ends_where_its_replay_does() -> None:
    pipeline = market()
    with pipeline.replay() as replay:
        results = replay.of(pipeline.stages[0])
        next(results)
    assert list(results) == []


def test_a_stage_of_another_pipeline_is_refused() -> None:
    pipeline, other = market(), market()
    with pytest.raises(ConfigError, match="no stage of this replay, but 'tens', 'fives'"):
        pipeline.replay().of(other.stages[0])
    pipeline.remove("fives")
    with pytest.raises(ConfigError, match=r"no stage of this replay, but 'tens'$"):
        pipeline.replay().of(other.stages[1])
