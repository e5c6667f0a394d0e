"""What a sink cannot store of one key costs that key's results, and no other's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_recompute import KINDS, Store, all_of, store

from run_task import Pipeline, Retry, SinkError, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sinks import Result
from run_task.sources import paced


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def odd(view: TimeSeriesView, start: int, end: int) -> Any:
    if view["v"][0] == 13.0:
        return object()
    if view["v"][0] == 7.0:
        raise ValueError("unlucky")
    return 1


class Picky(Store):
    """Refuses windows that have certain keys, and is away at every third write."""

    def __init__(self, bad: set[str]) -> None:
        super().__init__()
        self.bad = bad
        self.calls = 0

    def write(self, result: Result, /) -> None:
        self.calls += 1
        if self.calls % 3 == 0 and self.calls < 200:
            raise ConnectionError("gone")
        dataset: Any = result.dataset
        if bad := self.bad.intersection(dataset.keys_of_rows):
            raise SinkError(f"cannot hold {min(bad)!r}")
        super().write(result)


def of_keys(keys: list[str], sink: Any, **options: Any) -> Pipeline:
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
    rows = [(second, {"k": key, "v": 1.0}) for second in (5, 15) for key in keys]
    made = Pipeline("p").source(rows, series)
    made.stage("s", [count], series, "10s", by="k").sink(sink, **options)
    return made


@given(st.sets(st.integers(0, 60), min_size=1), st.data())
@settings(max_examples=60, deadline=None)
def test_other_keys_are_written_whatever_the_sink_refuses(
    numbers: set[int], data: st.DataObject
) -> None:
    keys = sorted(f"k{number:02}" for number in numbers)
    bad = set(data.draw(st.lists(st.sampled_from(keys), max_size=24, unique=True)))
    sink, letters = Picky(bad), list[tuple[int, list[str]]]()

    def keep(result: Result, reason: str, detail: str) -> None:
        dataset: Any = result.dataset
        assert reason == "refused"
        letters.append((result.window.end, list(dataset.keys_of_rows)))

    made = of_keys(keys, sink, retry=Retry(wait="1us", longest="1us"), dead_letters=keep)
    list(made.replay())
    good = [key for key in keys if key not in bad]
    if len(bad) > 16 or not good:
        assert not sink.held
        assert letters == ([(end, keys) for end in (10, 20)] if bad else [])
        return
    wanted = [(key, "count", 1) for key in good]
    assert sink.held == {(0, 10): wanted, (10, 20): wanted}
    assert sorted(letters) == [(end, [key]) for end in (10, 20) for key in sorted(bad)]
    assert made.stats.refused == 2 * len(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_or_a_result_that_no_store_holds_costs_itself(kind: str, tmp_path: Path) -> None:
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
    values = {"": 1.0, "a": 1.0, "b": 13.0, "c": 7.0, "d\0": 1.0, "e": 1.0}
    made = Pipeline("p").source([(1, {"k": k, "v": v}) for k, v in values.items()], series)
    with closing(store(kind, tmp_path)) as sink:
        made.stage("s", [count, odd], series, "10s", by="k").sink(sink)
        list(made.replay())
        assert made.stats.refused == 3
        found = {(key, name): value for _, _, key, name, value in all_of(sink)}
        wanted = {(key, name): 1 for key in "ae" for name in ("count", "odd")}
        assert found == wanted | {("c", "count"): 1, ("c", "odd"): None}


def test_live_counts_add_up() -> None:
    sink = Picky({"b"})
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
    rows = [(second, {"k": key, "v": 1.0}) for second in (5, 15) for key in "abc"]
    made = Pipeline("p").source(paced(rows, 1000.0, unit=TimeUnit.SECONDS), series)
    stage = made.stage("s", [count], series, "10s", by="k")
    stage.sink(sink, retry=Retry(wait="1ms", longest="1ms"))
    made.run_sync()
    wanted = [("a", "count", 1), ("c", "count", 1)]
    assert sink.held == {(0, 10): wanted, (10, 20): wanted}
    (of,) = made.stats.sinks.values()
    assert (of.results, of.written, of.refused) == (2, 2, 0)
    assert made.stats.refused == 2
