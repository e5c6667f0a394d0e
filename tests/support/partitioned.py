"""A pipeline with checkpoints whose shards read files by themselves, and whose driver is killed;
started by test_cluster_kills."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support import checkpointed
from tests.support.forking import fork_when_told
from tests.support.preload import preload

from run_task import FolderStore, Pipeline, RunnerConfig, TaskInterval, TimeSeries, TimeUnit
from run_task.sinks import SqlSink
from run_task.sources import CsvFile, paced

FILES = 3


def write_files(where: Path) -> None:
    """The rows, in files by key."""
    folder = where / "rows"
    folder.mkdir()
    for number in range(FILES):
        lines = ["timestamp,k,v"]
        for stamp, row in checkpointed.rows():
            if int(row["k"][1:]) % FILES == number:
                lines.append(f"{stamp},{row['k']},{row['v']!r}")
        (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")


def pipeline(where: Path, *, speed: float = 10.0, checkpoint: bool = True) -> Pipeline:
    store = FolderStore(where / "state") if checkpoint else None
    made = Pipeline("p", checkpoint=store, checkpoint_every="25ms")
    series = TimeSeries(checkpointed.COLUMNS, TimeUnit.MILLIS, "2s", key="k")
    columns = checkpointed.COLUMNS
    files = CsvFile(where / "rows", unit=TimeUnit.MILLIS, columns=columns, batch_rows=50)
    made.source(paced(files, speed), series, name="rows", partitioned=True)
    grace = RunnerConfig(grace=TaskInterval.millis(30), upstream_timeout=60)
    tasks = [checkpointed.decayed, checkpointed.kept]
    by_key = made.stage("by key", tasks, series, "100ms", grace, by="k")
    every = made.stage("every", [checkpointed.windows], by_key.series("5s"), "500ms", grace)
    sink = SqlSink(where / "results.db")
    by_key.sink(sink)
    every.sink(sink)
    return made


def run(where: str, shards: str, speed: str) -> None:
    """Go on from the last checkpoint, with so many shards."""
    made = pipeline(Path(where), speed=float(speed))
    threading.Thread(target=checkpointed.tell, args=[made], daemon=True).start()
    made.run_sharded(int(shards))


if __name__ == "__main__":
    preload("arrow", "sqlite")
    fork_when_told(run)
