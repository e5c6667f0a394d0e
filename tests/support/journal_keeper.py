"""A live pipeline with a journal and checkpoints that is killed again and again; started by
test_journal_kills, which forks a run for each line that it writes."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.checkpointed import decayed, kept, tell
from tests.support.preload import preload
from tests.support.proof import in_proof
from tests.support.writer import say

from run_task import Pipeline, TimeSeries, TimeUnit
from run_task.sinks import SqlSink

KILLS = in_proof(20, short=3)
"""How many runs are killed; the one after these ends by itself."""


def feed(seconds: float) -> Iterator[Any]:
    """Rows as they come: some late, some ahead of their time."""
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < seconds:
        time.sleep(0.002)
        number += 1
        off = -40 if number % 7 == 0 else 30 if number % 11 == 0 else 0
        yield time.time_ns() // 10**6 + off, {"k": f"k{number % 3}", "v": number * 0.37 % 11}


def pipeline(where: Path, seconds: float, sink: Any, *, checkpoint: bool) -> Pipeline:
    made = Pipeline(
        "p", checkpoint=where / "state" if checkpoint else None, checkpoint_every="25ms"
    )
    series = TimeSeries({"k": str, "v": float}, TimeUnit.MILLIS, key="k")
    made.source(feed(seconds), series, name="feed", journal=where / "raw")
    made.stage("a", [decayed, kept], series, "50ms").sink(sink)
    return made


def main() -> None:
    preload("arrow", "sqlite")
    where = Path(sys.argv[1])
    for started, _ in enumerate(sys.stdin):
        pid = os.fork()
        if pid == 0:
            try:
                sink = SqlSink(where / "results.db")
                seconds = 60.0 if started < KILLS else 0.3
                made = pipeline(where, seconds, sink, checkpoint=True)
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
