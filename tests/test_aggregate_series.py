"""Results of aggregates as rows of a series, which other stages read."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from run_task import ConfigError, Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
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
    own = {"p_mean": "f", "n_sum": "i", "up_last": "b", "count": "i", "k_n_unique": "i"}
    own |= {"n_max": "i", "k_first": "U", "rows": "i"}
    assert kinds == (own if by is None else {"k": "U", **own})
    total = stage("total", [agg.sum("n_sum").named("total"), agg.sum("p_mean")], results, "40s")
    (dataset,) = list(pipeline.replay().of(total))
    assert dataset["total"] == 39 * 40 / 2
    means = [[p / 4 for p in range(n, n + 10)] for n in range(0, 40, 10)]
    if by is None:
        assert dataset["p_mean_sum"] == pytest.approx(math.fsum(map(statistics.fmean, means)))


def test_those_that_make_no_column_are_refused_by_name() -> None:
    series = TimeSeries(COLUMNS, TimeUnit.SECONDS, key="k")
    pipeline = Pipeline("types")
    bars = pipeline.stage("bars", [agg.ohlc("p")], series, "10s")
    with pytest.raises(ConfigError, match=r"'p_ohlc' returns .*Ohlc.*makes no column"):
        bars.series()
    lowest = pipeline.stage("lowest", [agg.argmin("p")], series, "10s")
    with pytest.raises(ConfigError, match=r"'p_argmin' returns int \| None, which makes no column"):
        lowest.series()
