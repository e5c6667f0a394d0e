"""A pipeline that is killed and resumed; started by test_pipeline_resume.

It is started once, and forks a run for each line that it reads, so that a kill costs no new
interpreter. Each run resumes from what its sink holds, slowly enough to be killed in the middle.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.preload import preload
from tests.support.writer import opened, say

from run_task import Pipeline, RwLock, TaskInterval, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sinks import DurableSink

ROWS = 1200


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    rows = view.between(start, end)["v"]
    return float(rows.mean()) if len(rows) else 0.0


@task
def far(view: TimeSeriesView, start: int, end: int) -> dict[str, float]:
    return {"all": float(view["v"].sum())}


@task
def drift(values: list[float], start: int, end: int) -> float:
    return values[-1] - values[0]


@task
def broken(values: list[float], start: int, end: int) -> float:
    return 1 / (end % 30)


def rows() -> list[tuple[int, dict[str, float]]]:
    """Rows with gaps, duplicates, and some out of order."""
    return [(i + i // 100 * 7 - 4 * (i % 17 == 0), {"v": i * 0.37 % 11}) for i in range(ROWS)]


class Slow(list[tuple[int, Any]]):
    """Rows that take a while, at times."""

    def __iter__(self) -> Any:
        for i, row in enumerate(super().__iter__()):
            if i % 40 == 0:
                time.sleep(0.001)
            yield row


def pipeline(sink: DurableSink, *, rows: Any, kind: str = "") -> Pipeline:
    series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    means = RwLock[list[float]]([])
    made = Pipeline("p").source(rows, into=series)
    made.stage("means", [mean, far], series, TaskInterval.seconds(5)).into(
        means, lambda values, dataset: values.append(dataset[mean])
    ).sink(sink)
    drifts = made.stage("drift", [drift, broken], means, TaskInterval.seconds(15))
    if not kind.startswith("wide"):  # whose table is of one stage
        drifts.sink(sink)
    return made


def run(kind: str, where: str) -> None:
    sink = opened(kind, where)
    for i, (stage, dataset) in enumerate(pipeline(sink, rows=Slow(rows()), kind=kind).resume(sink)):
        if i % 5 == 0:
            sink.flush()
            say(f"at {stage} {dataset.timestamp}")
        time.sleep(0.0002)
    sink.close()
    say("ended")


def main() -> None:
    preload(sys.argv[1])
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                run(sys.argv[1], str(Path(sys.argv[2])))
            finally:
                os._exit(0)
        say(f"started {pid}")
        sys.stdin.readline()  # not reaped before it is killed: its id could be another's by then
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main()
