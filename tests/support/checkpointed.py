"""A pipeline with checkpoints that is killed again and again; started by test_checkpoint_kills.

It is started once, and forks a run for each line that it reads, so that a kill costs no new
interpreter. Each run goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.preload import preload
from tests.support.proof import in_proof
from tests.support.published import sink_said_in
from tests.support.writer import say

from run_task import (
    FolderStore,
    Pipeline,
    RunnerConfig,
    RwLock,
    SqlStore,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import Row, SqlSink
from run_task.sources import Arrived, CsvFile, paced

ROWS = in_proof(4800, short=1200)
KILLS = in_proof(20, short=5)
"""How many runs are killed, which are slow; the one after these goes on to the end."""
BEGUN = 1_700_000_000_000
COLUMNS = {"k": str, "v": float}


class Latest(dict[str, float]):
    """The latest value of each key."""

    def to_bytes(self) -> bytes:
        return json.dumps(self).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Latest:
        return cls(json.loads(data))


class Decayed(NamedTuple):
    value: float = 0.0
    rows: int = 0


@task(state=Decayed)
def decayed(view: TimeSeriesView, start: int, end: int, state: Decayed) -> tuple[float, Decayed]:
    value = state.value
    for one in view.in_window["v"].tolist():
        value = value * 0.9 + one * 0.1
    return value, Decayed(value, state.rows + len(view.in_window))


@task
def kept(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["v"].sum()) + len(view)


@task(state=int, version=2)
def windows(view: TimeSeriesView, start: int, end: int, count: int) -> tuple[float, int]:
    return count + float(view.in_window["decayed"].sum()), count + 1


@task
def latest(data: Latest, start: int, end: int) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(data.items()))


def keep(data: Latest, row: Any) -> None:
    data[row["k"]] = row["v"]


def rows() -> list[tuple[int, dict[str, Any]]]:
    """Rows with gaps, duplicates, and some out of order."""
    return [
        (
            BEGUN + i * 10 + i // 200 * 700 - 45 * (i % 17 == 0),
            {"k": f"k{i * i % 7}", "v": i * 0.37 % 11},
        )
        for i in range(ROWS)
    ]


def arrived() -> list[Arrived[dict[str, Any]]]:
    """The same, of which some came before their time."""
    return [
        Arrived(stamp, row, BEGUN + i * 10 + i // 200 * 700 - 35 * (i % 13 == 0))
        for i, (stamp, row) in enumerate(rows())
    ]


class Rows(list[Arrived[dict[str, Any]]]):
    """Rows that may have no end: on a busy machine the kill comes late, and not when all is over.

    :param end: whether they come to an end
    """

    def __init__(self, *, end: bool) -> None:
        super().__init__(arrived())
        self._end = end

    def __iter__(self) -> Iterator[Arrived[dict[str, Any]]]:
        yield from super().__iter__()
        if not self._end:
            threading.Event().wait()


STEPS = (
    "before sinks flush",
    "before parts are written",
    "before the text is written",
    "before what is old is removed",
    "before sources are told",
)
"""Between which two steps of a checkpoint a run kills itself."""

AT = 3
"""In which checkpoint of a run."""


class Dying(FolderStore):
    """A store whose process is killed between two steps.

    :param folder: the folder
    :param step: before which step
    """

    def __init__(self, folder: Path, step: str) -> None:
        super().__init__(folder)
        self.step = step
        self.saved = 0

    def pass_by(self, step: str) -> None:
        if step == self.step and self.saved >= AT - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(self, number: int, text: bytes, parts: Mapping[str, bytes], /) -> None:
        self.pass_by("before parts are written")
        if self.step == "before the text is written" and self.saved >= AT - 1:
            for name, data in parts.items():
                self._put(self._part(name), data)
            self.pass_by(self.step)
        super().save(number, text, parts)
        self.pass_by("before what is old is removed")

    def keep(self, numbers: Collection[int], parts: Collection[str], /) -> None:
        super().keep(numbers, parts)
        self.pass_by("before sources are told")
        self.saved += 1


class DyingSink(SqlSink):
    """A sink whose process is killed when it is to flush for a checkpoint."""

    store: Dying | None = None

    def flush(self) -> None:
        if self.store is not None:
            self.store.pass_by("before sinks flush")
        super().flush()


def pipeline(
    kind: str,
    where: Path,
    *,
    speed: float = 10.0,
    checkpoint: bool = True,
    dies: str | None = None,
) -> Pipeline:
    store: FolderStore | SqlStore | None = None
    if checkpoint and (where / "store").exists():
        store = SqlStore((where / "store").read_text())
    elif checkpoint:
        store = FolderStore(where / "state")
    if dies is not None:
        store = Dying(where / "state", dies)
    made = Pipeline("p", checkpoint=store, checkpoint_every="25ms")
    series = TimeSeries(COLUMNS, unit=TimeUnit.MILLIS, key="k", retention="2s")
    lock = RwLock(Latest())
    if kind == "csv":
        source: Any = CsvFile(where / "rows.csv", unit=TimeUnit.MILLIS, columns=COLUMNS)
        made.source(paced(source, speed=speed), series, name="rows")
    else:
        ends = speed > 1.0 or not checkpoint
        source = paced(Rows(end=ends), speed=speed, unit=TimeUnit.MILLIS)
        made.source(source, into=(series, lock), ingest=(None, keep), name="rows")
    published = sink_said_in(where)
    # A broker that drops what comes again keeps what came first: so no row may come late.
    grace = RunnerConfig(grace=TaskInterval.millis(30 if published is None else 1_000))
    by_key = made.stage("by key", [decayed, kept], series, "100ms", grace, by="k")
    every = made.stage("every", [windows], by_key.series("5s"), "500ms", grace)
    sink = SqlSink(database(where))
    if isinstance(store, Dying):
        sink = DyingSink(database(where))
        sink.store = store
    by_key.sink(sink, sharded=(where / "sharded").exists())
    every.sink(sink)
    if published is not None:
        by_key.sink(published)
        every.sink(published)
    if kind != "csv":
        made.stage("latest", [latest], lock, "200ms").sink(sink)
    return made


def tell(made: Pipeline) -> None:
    """Say so when there is a first checkpoint."""
    while (kept := made.stats.checkpoints) is None or not kept.written:
        time.sleep(0.002)
    say("runs")


def write_csv(where: Path) -> None:
    with (where / "rows.csv").open("w") as file:
        file.write("timestamp,k,v\n")
        for stamp, row in rows():
            file.write(f"{stamp},{row['k']},{row['v']!r}\n")


def database(where: Path) -> str | Path:
    """Where the results are: a database that a file names, or a file of SQLite."""
    named = where / "database"
    return named.read_text() if named.exists() else where / "results.db"


def results(where: Path) -> list[Row]:
    sink = SqlSink(database(where))
    sink.begin("p")
    found = sorted(sink.rows(), key=lambda row: (row.stage, row.end, row.key, row.task))
    sink.close()
    return found


def main() -> None:
    preload("arrow", "sqlite")
    sink_said_in(Path(sys.argv[2]))  # which imports what it is made of
    for started, _ in enumerate(sys.stdin):
        pid = os.fork()
        if pid == 0:
            try:
                steps = sys.argv[3:]
                dies = steps[started] if started < len(steps) else None
                slow = started < (len(steps) or KILLS)
                made = pipeline(
                    sys.argv[1], Path(sys.argv[2]), speed=1.0 if slow else 20.0, dies=dies
                )
                threading.Thread(target=tell, args=[made], daemon=True).start()
                made.run_sync()
                say("ended")
            except BaseException:
                traceback.print_exc()
                say("failed")
            finally:
                os._exit(0)
        say(f"started {pid}")
        sys.stdin.readline()  # not reaped before it is killed: its id could be another's by then
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main()
