"""Runners with worker processes, for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.threads import PATIENCE

from run_task import (
    ContextBuilder,
    DataSet,
    Receiver,
    Runner,
    RunnerConfig,
    Shared,
    TaskInterval,
    VirtualClock,
)
from run_task.data import RwLock

SECOND = TaskInterval.seconds(1)


class Bench:
    """A runner whose clock moves when it is told to.

    :param tasks: its tasks
    :param data: what they read; by default a dict that tells them what to do
    :param settings: of its RunnerConfig
    """

    def __init__(
        self, tasks: Iterable[Any], data: Shared[Any] | None = None, **settings: Any
    ) -> None:
        settings.setdefault("executor", "processes")
        settings.setdefault("workers", 2)
        self.data: Any = data if data is not None else RwLock[dict[str, str]]({})
        builder: Any = ContextBuilder(object)
        context, receiver, _ = (
            builder.with_data(self.data)
            .with_tasks(tasks)
            .with_interval(SECOND)
            .with_config(RunnerConfig(**settings))
            .build()
        )
        self._tells = data is None
        self.receiver: Receiver[DataSet[Any]] = receiver
        self.clock = VirtualClock()
        self.runner = Runner(context, clock=self.clock)

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
        self.tick()
        return self.receiver.recv(PATIENCE)


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


def crew_of(bench: Bench) -> Any:
    """The executor at work: there is no other way to its processes, and to what they are at."""
    return bench.runner._crew  # pyright: ignore[reportPrivateUsage]


def pids_of(bench: Bench) -> list[int]:
    """The worker processes of a runner."""
    return [worker.process.pid for worker in crew_of(bench)._workers]
