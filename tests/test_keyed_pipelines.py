"""Pipelines by key with state are as a plain loop over dicts: with rows that are late, pass out of
retention or fail, and keys that come and go."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples
from tests.support.stateful import Ema, ema, seen

from run_task import KeyedDataSet, Pipeline, RunnerConfig, TimeSeries, TimeUnit
from run_task.runner._config import ExecutorName
from run_task.sources import paced

EVERY, GRACE, IDLE = 10, 5, 25

Row = tuple[int, str, float]
"""A timestamp, a key and a price."""

Results = tuple[dict[str, float], dict[str, list[float]], set[Any]]
"""By key, what each task gives; and the keys for which both fail."""

arriving = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 4, 5, 12]),  # how long after the row before in order
        st.sampled_from([0, 0, 0, 2, 6, 14, 45]),  # how late it is
        st.sampled_from("ABC"),
        st.integers(-1, 9),
    ),
    min_size=1,
    max_size=25,
).map(
    lambda rows: [
        (1000 + present - late, key, float(price))
        for present, (_, late, key, price) in zip(
            itertools.accumulate(row[0] for row in rows), rows, strict=True
        )
    ]
)


def by_hand(
    rows: list[Row],
) -> dict[int, Results]:
    """What each window gives, by its end: of each task by key, and which keys fail."""
    windows: dict[int, list[Row]] = defaultdict(list)
    present = 0
    for row in rows:
        present = max(present, row[0])
        end = row[0] // EVERY * EVERY + EVERY
        if present < end + GRACE:  # or else it has been computed
            windows[end].append(row)
    emas: dict[str, Ema] = {}
    prices: dict[str, list[float]] = {}
    last: dict[str, int] = {}
    found: dict[int, Results] = {}
    for end, own in sorted(windows.items()):
        results: Results = {}, {}, set()
        for key in sorted({key for _, key, _ in own}):
            of_key = sorted((row for row in own if row[1] == key), key=lambda row: row[0])
            if key in last and last[key] < of_key[0][0] - IDLE:
                emas.pop(key, None)
                prices.pop(key, None)
            last[key] = max(of_key[-1][0], last.get(key, 0))
            latest = [price for _, _, price in of_key]
            if min(latest) < 0:
                results[2].add(key)
                continue
            before = emas.get(key, Ema())
            value = sum(latest) if before.windows == 0 else (before.value + sum(latest)) / 2
            emas[key] = Ema(value, before.windows + 1)
            prices[key] = [*prices.get(key, []), *latest]
            results[0][key], results[1][key] = value, list(prices[key])
        found[end] = results
    return found


def computed(rows: list[Row], executor: ExecutorName, *, live: bool = False) -> dict[int, Results]:
    columns = {"symbol": str, "price": float}
    trades = TimeSeries(columns, TimeUnit.SECONDS, retention="30s", key="symbol")
    feed = [(time, {"symbol": key, "price": price}) for time, key, price in rows]
    source: Any = paced(feed, 1e9, unit=TimeUnit.SECONDS) if live else feed
    sink = RecordingSink()
    pipeline = Pipeline("p").source(source, trades, max_ahead=None).sink(sink)
    config = RunnerConfig(grace="5s", executor=executor, workers=2, upstream_timeout=60)
    pipeline.stage("s", [ema, seen], trades, "10s", config, by="symbol", key_idle="25s")
    if live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    found: list[KeyedDataSet[str, Any]] = [dataset for _, dataset in sink.results]
    return {
        dataset.timestamp: (
            dict(dataset[ema]),
            dict(dataset[seen]),
            {error.key for error in dataset.errors.values()},
        )
        for dataset in found
        if dataset.keys_of_rows
    }


@pytest.mark.parametrize("executor", ["inline", "threads"])
@settings(max_examples=examples(60), deadline=None)
@given(rows=arriving)
def test_a_replay_is_as_a_loop_over_dicts(executor: ExecutorName, rows: list[Row]) -> None:
    assert computed(rows, executor) == by_hand(rows)


@settings(max_examples=10, deadline=None)
@given(rows=arriving)
def test_by_processes_it_is_as_a_loop_over_dicts(rows: list[Row]) -> None:
    assert computed(rows, "processes") == by_hand(rows)


@settings(max_examples=examples(15), deadline=None)
@given(rows=arriving)
def test_a_recording_that_is_played_live_is_as_a_loop_over_dicts(rows: list[Row]) -> None:
    assert computed(rows, "threads", live=True) == by_hand(rows)
