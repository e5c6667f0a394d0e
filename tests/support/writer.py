"""A program that writes windows to a sink until it is killed; started by test_sink_kills.

It is started once, and forks a writer for each line that it reads, so that a kill costs no new
interpreter. A writer goes on from the last window that its sink holds.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.preload import preload

from run_task import DataSet, TaskError, TaskInterval, Window
from run_task.sinks import (
    CsvSink,
    DurableSink,
    JsonLinesSink,
    Layout,
    ParquetSink,
    Result,
    Rotation,
    SqlSink,
)

WINDOWS = 250
FAILED = "-- failed --\n"  # stands behind each traceback
STAGE = "s"


def opened(kind: str, where: str) -> DurableSink:
    sink: DurableSink
    match kind:
        case "jsonl":
            sink = JsonLinesSink(Path(where, "file"))
        case "csv":
            sink = CsvSink(Path(where, "file"))
        case "rotated-jsonl":
            sink = JsonLinesSink(Path(where, "file"), rotation=Rotation(max_bytes=3_000))
        case "rotated-csv":
            sink = CsvSink(Path(where, "file"), rotation=Rotation(max_bytes=3_000))
        case "wide-csv":
            sink = CsvSink(Path(where, "file"), layout=Layout.WIDE)
        case "rotated-wide-csv":
            rotation = Rotation(max_bytes=3_000)
            sink = CsvSink(Path(where, "file"), rotation=rotation, layout=Layout.WIDE)
        case "parquet":
            sink = ParquetSink(Path(where, "folder"), rows_per_file=300)
        case "wide-parquet":
            sink = ParquetSink(Path(where, "folder"), rows_per_file=100, layout=Layout.WIDE)
        case "sqlite":
            sink = SqlSink(Path(where, "file"))
        case "wide-sqlite":
            sink = SqlSink(Path(where, "file"), layout=Layout.WIDE)
        case "wide-duckdb":
            sink = SqlSink(f"duckdb:///{Path(where, 'file')}", layout=Layout.WIDE)
        case "wide-postgres" | "wide-mariadb":
            sink = SqlSink(where, table="wide", layout=Layout.WIDE)
        case _:
            sink = SqlSink(where)
    sink.begin("p")
    return sink


def window(end: int) -> DataSet[Any]:
    error = TaskError("bad", Window(end - 1, end))
    error.__cause__ = ValueError('two\nlines, "quoted"')
    values = {"a": end / 7, "text": "é\n" * (end % 90)}
    interval = TaskInterval.seconds(1)
    return DataSet(Window(end - 1, end), values, {"bad": error}, interval=interval)


def write(kind: str, where: str) -> None:
    sink = opened(kind, where)
    last = sink.last(STAGE) or 0
    # Also windows that it holds already, as after a crash of the whole machine.
    for end in range(max(1, last - random.randrange(3)), WINDOWS + 1):
        sink.write(Result.of("p", STAGE, window(end)))
        if random.random() < 0.3:
            began = time.monotonic_ns()
            sink.flush()
            say(f"flushed {end} {began}")
    began = time.monotonic_ns()
    sink.close()
    say(f"flushed {WINDOWS} {began}")
    say("ended")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    preload(sys.argv[1])
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            random.seed()
            try:
                write(*sys.argv[1:])
            except BaseException:
                traceback.print_exc()
                os.write(2, FAILED.encode())
                say("failed")
            finally:
                os._exit(0)
        say(f"started {pid}")
        sys.stdin.readline()  # not reaped before it is killed: its id could be another's by then
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main()
