"""A pipeline of versioned tasks that is killed at each of its steps; started by test_versions.

For each line that it reads, it forks a run over a store of its own, the first of which is killed at
its first step, the second at its second, and so on: a step is a call to the system, or a statement
of a database.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.support.preload import preload
from tests.support.writer import opened, say

from run_task import Pipeline, RwLock, TimeUnit, task
from run_task.sinks import DurableSink

CALLS = ("open", "write", "fsync", "link", "unlink", "replace", "stat", "truncate")


def pipeline(sink: DurableSink, version: int | None) -> Pipeline:
    """Three windows of one task."""

    @task(version=version)
    def a(values: list[int], start: int, end: int) -> int:
        return sum(values)

    data = RwLock[list[int]]([])
    rows = [(second, second) for second in range(3)]
    made = Pipeline("p").source(rows, data, list[int].append, unit=TimeUnit.SECONDS)
    made.stage("s", [a], data, "1s").sink(sink)
    return made


class Steps:
    """Kills the process at a step.

    :param last: which one
    """

    def __init__(self, last: int) -> None:
        self._left = last

    def step(self, *_: Any) -> None:
        """One more."""
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def count(self) -> None:
        """Count all steps from now on."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))
        if "sqlalchemy" in sys.modules:
            from sqlalchemy import Engine, event

            for name in ("before_cursor_execute", "commit"):
                event.listen(Engine, name, self.step)

    def _counted(self, call: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            return call(*arguments, **named)

        return counted


def run(kind: str, where: str, told_before: str, number: int) -> None:
    sink = opened(kind, where)
    if told_before:  # of a run that has got no further
        keep: Any = sink
        keep.keep_versions("s", {"a": int(told_before)})
        sink.close()
        sink = opened(kind, where)
    Steps(number).count()
    for _, dataset in pipeline(sink, 1).replay():
        if dataset.timestamp == 2:
            sink.flush()
    sink.close()
    say("ended")


def main() -> None:
    kind, where, told_before = sys.argv[1:]
    preload(kind)
    for number, _ in enumerate(sys.stdin):
        folder = Path(where, str(number))
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            try:
                run(kind, str(folder), told_before, number)
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
