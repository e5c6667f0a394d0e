"""Runners with worker processes, for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.bench import SECOND, RunnerBench
from tests.support.threads import PATIENCE

from run_task import (
    DataSet,
    Shared,
)
from run_task.data import RwLock


class WorkersBench(RunnerBench):
    """A runner with worker processes, whose tasks can be told what to do.

    :param tasks: its tasks
    :param data: what they read; by default a dict that tells them what to do
    :param settings: of its RunnerConfig
    """

    patience = 3 * PATIENCE  # processes are started, and import what they need

    def __init__(
        self, tasks: Iterable[Any], data: Shared[Any] | None = None, **settings: Any
    ) -> None:
        self._tells = data is None
        settings.setdefault("executor", "processes")
        settings.setdefault("workers", 2)
        super().__init__(tasks, RwLock[dict[str, str]]({}) if data is None else data, **settings)

    def tick(self) -> None:
        self.clock.advance(SECOND)

    def next(self, **deeds: str) -> DataSet[Any]:
        """The next DataSet.

        :param deeds: what tasks are to do in it, by name
        """
        if self._tells:
            with self.data.write() as told:
                told.clear()
                told.update(deeds)
        return super().next()


def children() -> set[int]:
    """The processes that this one has started and that are not over."""
    pids: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            pids.update(map(int, (thread / "children").read_text().split()))
    return pids


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def crew_of(bench: WorkersBench) -> Any:
    """The executor at work: there is no other way to its processes, and to what they are at."""
    return bench.runner._engine._crew  # pyright: ignore[reportPrivateUsage]


def pids_of(bench: WorkersBench) -> list[int]:
    """The worker processes of a runner."""
    return [worker.process.pid for worker in crew_of(bench)._workers]
