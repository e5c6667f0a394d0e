"""The command line, as a program of its own; and pipelines to try it on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from tests.support.threads import PATIENCE
from typer.testing import CliRunner, Result

from run_task.cli._app import app

IGNORING_CTRL_C = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Runs the command that follows it as a shell runs the background jobs of a script."""

RUN_TASK = (sys.executable, str(Path(sys.executable).with_name("run-task")))

LIVE = """
import random
from run_task import *
from run_task.sources import polling

readings = TimeSeries({"value": float}, unit=TimeUnit.MILLIS)
means = TimeSeries({"mean": float}, unit=TimeUnit.MILLIS, closed=Closed.RIGHT)


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    values = view.between(start, end)["value"]
    return float(values.mean()) if len(values) else 0.0  # of a busy machine, a window may be empty


@task
def broken(view: TimeSeriesView, start: int, end: int) -> float:
    return 1 / 0


@task
def newest(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["mean"][-1])


def read() -> dict[str, float]:
    print("what user code prints")
    return {"value": random.random()}


pipeline = Pipeline("live")
pipeline.source(polling(read, TaskInterval.millis(20)), into=readings)
first = pipeline.stage("first", [mean, broken], readings, TaskInterval.millis(100))
first.into(means, lambda data, ds: data.append(ds.timestamp, mean=ds[mean]))
second = pipeline.stage("second", [newest], means, TaskInterval.millis(100))
"""
"""Runs until it is told to end. A task of it fails, each time."""

HISTORY = """
from run_task import *

values = TimeSeries({"value": float}, unit=TimeUnit.SECONDS)


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.between(start, end)["value"].sum())


@task
def inverse(view: TimeSeriesView, start: int, end: int) -> float:
    return 1.0 / int(start > 0)


pipeline = Pipeline("history")
pipeline.source([(t, {"value": float(t)}) for t in range(100)], into=values)
stage = pipeline.stage("tens", [total, inverse], values, TaskInterval.seconds(10))
"""
"""A hundred rows, ten windows; a task of it fails in the first."""


def run_here(*arguments: str | Path, cwd: Path) -> Result:
    """Run the command in this process, which is faster, and leave no module of it behind."""
    modules, path = set(sys.modules), list(sys.path)
    with chdir(cwd):
        try:
            return CliRunner().invoke(app, [*map(str, arguments)])
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", None)).startswith(str(cwd)):
                    del sys.modules[name]


def run_task(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*RUN_TASK, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
        cwd=cwd,
        input=stdin,
        env={**os.environ, **env},
    )


def start(*arguments: str | Path, cwd: Path, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the command, and let it run.

    :param wrapper: a command that the command is given to
    """
    return subprocess.Popen(
        [*wrapper, *RUN_TASK, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
