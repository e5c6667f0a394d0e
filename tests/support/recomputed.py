"""A pipeline some windows of which are computed again, and that is killed meanwhile; started by
test_recompute.

For each line that it reads, it forks a run over a store of its own. Each is killed some steps later
than the one before: a step is a call to the system, or a statement of a database.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from tests.support.killed import Steps
from tests.support.writer import opened, say

from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sinks import DurableSink

STRIDES = {"sqlite": 8, "wide-csv": 10, "wide-parquet": 14}
"""How many steps later: so that some six runs are killed."""


def pipeline(sink: DurableSink, *, corrected: bool) -> Pipeline:
    """Ten windows of one task, by key, whose version is another one once it is corrected. There is
    one window less then, and one key."""

    @task(name="a", version=2 if corrected else 1)
    def a(view: TimeSeriesView, start: int, end: int) -> float:
        return float(view.in_window["v"].sum())

    rows = [
        (second, {"k": "AB"[second % 2], "v": float(second * (1 + corrected))})
        for second in range(100)
        if not (corrected and (40 <= second < 50 or (50 <= second < 60 and second % 2)))
    ]
    series = TimeSeries({"k": str, "v": float}, TimeUnit.SECONDS, key="k")
    made = Pipeline("p").source(rows, series)
    made.stage("s", [a], series, "10s", by="k").sink(sink)
    return made


def table(sink: DurableSink) -> list[tuple[int, str, float]]:
    """What it holds."""
    return sorted((row.start, row.key, row.value) for row in sink.rows("s"))


def _whole() -> list[tuple[int, str, float]]:
    found: list[tuple[int, str, float]] = []
    for start in range(0, 100, 10):
        again = 20 <= start < 70
        for first, key in ((0, "A"), (1, "B")):
            if not (again and (start == 40 or (start == 50 and key == "B"))):
                of_key = sum(range(start + first, start + 10, 2))
                found.append((start, key, float(of_key * (2 if again else 1))))
    return found


WHOLE = _whole()
"""What it holds once the windows from 20 to 70 were computed again."""


def run(kind: str, where: str, number: int) -> None:
    sink = opened(kind, where)
    list(pipeline(sink, corrected=False).replay())
    Steps(number * STRIDES[kind]).count()
    pipeline(sink, corrected=True).recompute("s", 20, 70)
    sink.close()
    say("ended")


def main() -> None:
    kind, where = sys.argv[1:]
    module = {"parquet": "pyarrow.parquet", "csv": "csv"}.get(kind.rpartition("-")[2], "sqlalchemy")
    importlib.import_module(module)  # once, and not in each run
    for number, _ in enumerate(sys.stdin):
        folder = Path(where, str(number))
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            try:
                run(kind, str(folder), number)
            except BaseException:
                traceback.print_exc()
                say("failed")
            finally:
                os._exit(0)
        say(f"started {pid}")
        sys.stdin.readline()
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main()
