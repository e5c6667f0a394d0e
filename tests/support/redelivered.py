"""A pipeline whose source gives rows again after each start; started by test_dedupe_kills.

It is started once, and forks a run for each line that it reads.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.forking import fork_when_told
from tests.support.positioned import Kept
from tests.support.writer import say

from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task

ROWS = 400
AGAIN = 25
"""How many rows come again after a start."""


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


class Broker(Kept):
    """A source that begins some rows before what it is told, and needs time for each."""

    def seek(self, position: Any, /) -> None:
        super().seek({"given": max(position["given"] - AGAIN, 0)})

    def take(self) -> Any:
        time.sleep(0.0005)  # a kill is to come in between
        return super().take()


def tell(made: Pipeline) -> None:
    """Say so when a checkpoint holds more rows than came again."""
    while made.stats.sources["rows"].stored <= AGAIN:
        time.sleep(0.002)
    before = written(made)
    while written(made) < before + 2:
        time.sleep(0.002)
    say("runs")


def written(made: Pipeline) -> int:
    checkpoints = made.stats.checkpoints
    return 0 if checkpoints is None else checkpoints.written


def run(folder: Path) -> None:
    source = Broker([(1_700_000_000 + i, {"id": f"row {i}"}) for i in range(ROWS)])
    source.end()
    made = Pipeline("p", checkpoint=folder, checkpoint_every="10ms")
    series = TimeSeries({"id": str}, unit=TimeUnit.SECONDS)
    made.source(source, series, dedupe="id", name="rows")
    made.stage("s", [count], series, "1h")
    threading.Thread(target=tell, args=[made], daemon=True).start()
    made.run_sync()
    counts = made.stats.sources["rows"]
    say(json.dumps([series.view()["id"].tolist(), counts.stored, counts.duplicate]))


def main() -> None:
    importlib.import_module("pyarrow.ipc")  # once, and not in each run
    fork_when_told(lambda: run(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
