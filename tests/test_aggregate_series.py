"""Results of aggregates as rows of a series, which other stages read."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task import aggregates as agg

ROWS: Any = [
    (second, {"k": "xy"[second % 2], "p": second / 4, "n": second, "up": second % 3 == 0})
    for second in range(40)
]
COLUMNS: Any = {"k": str, "p": float, "n": int, "up": bool}


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@pytest.mark.parametrize("by", [None, "k"])
def test_each_has_the_type_that_its_column_gives_it(by: str | None) -> None:
    series = TimeSeries(COLUMNS, TimeUnit.SECONDS, key="k")
    pipeline = Pipeline("types")
    pipeline.source(ROWS, into=series)
    tasks = [
        agg.mean("p"),
        agg.sum("n"),
        agg.last("up"),
        agg.count(),
        agg.n_unique("k"),
        agg.max("n"),
        agg.first("k"),
        rows,
    ]
    stage: Any = pipeline.stage
    keys: Any = {} if by is None else {"by": by}
    results = stage("results", tasks, series, "10s", **keys).series()
    kinds = {name: dtype.kind for name, dtype in results.columns.items()}
    # Of ints, of which a window without rows has none, it is one of floats.
    own = {"p_mean": "f", "n_sum": "f", "up_last": "b", "count": "i", "k_n_unique": "i"}
    own |= {"n_max": "f", "k_first": "U", "rows": "i"}
    assert kinds == (own if by is None else {"k": "U", **own})
    total = stage("total", [agg.sum("n_sum").named("total"), agg.sum("p_mean")], results, "40s")
    (dataset,) = list(pipeline.replay().of(total))
    assert dataset["total"] == 39 * 40 / 2
    means = [[p / 4 for p in range(n, n + 10)] for n in range(0, 40, 10)]
    if by is None:
        assert dataset["p_mean_sum"] == pytest.approx(math.fsum(map(statistics.fmean, means)))


def test_fields_are_columns_and_an_int_that_is_missing_costs_no_row() -> None:
    series = TimeSeries(COLUMNS, TimeUnit.SECONDS, key="k")
    pipeline = Pipeline("types")
    rows_with_a_gap = [row for row in ROWS if not 10 <= row[0] < 20]
    pipeline.source(rows_with_a_gap, into=series)
    tasks = [agg.ohlc("p").named("bar"), agg.sum("n"), agg.argmin("p"), agg.count()]
    results = pipeline.stage("bars", tasks, series, "10s").series()
    assert {name: dtype.kind for name, dtype in results.columns.items()} == {
        **dict.fromkeys(["bar_open", "bar_high", "bar_low", "bar_close"], "f"),
        "n_sum": "f",
        "p_argmin": "f",
        "count": "i",
    }
    seen: list[Any] = []

    @task
    def look(view: TimeSeriesView, start: int, end: int) -> int:
        rows = view.in_window
        seen.extend(map(list, zip(*(rows[name].astype(float).tolist() for name in rows.columns))))
        return 0

    pipeline.stage("look", [look], results, "40s")
    for _ in pipeline.replay():
        pass
    nan = math.nan
    assert repr(seen) == repr(
        [
            [0.0, 2.25, 0.0, 2.25, 45.0, 0.0, 10.0],
            [nan, nan, nan, nan, nan, nan, 0.0],
            [5.0, 7.25, 5.0, 7.25, 245.0, 20.0, 10.0],
            [7.5, 9.75, 7.5, 9.75, 345.0, 30.0, 10.0],
        ]
    )


def test_an_int_that_no_float_tells_is_refused_where_it_may_be_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    series = TimeSeries({"n": int}, TimeUnit.SECONDS)
    pipeline = Pipeline("types").source([(1, {"n": 2**53 + 1}), (11, {"n": 1})], into=series)
    results = pipeline.stage("sums", [agg.sum("n")], series, "10s").series()
    after = pipeline.stage("after", [agg.count(), agg.sum("n_sum")], results, "20s")
    (dataset,) = list(pipeline.replay().of(after))
    assert (dataset["count"], dataset["n_sum_sum"]) == (1, 1.0)
    assert "does not get what stage 'sums' gave for [0, 10), which cannot enter" in caplog.text
