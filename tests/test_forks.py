"""Forked children of a program in which runners are at work: they have nothing of their parent's.

Each in a program of its own, since a fork copies one thread only.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.support.threads import PATIENCE

BEGINNING = """
import multiprocessing, os, sys, warnings
import numpy as np
from run_task import (
    ContextBuilder, Pipeline, Runner, RunnerConfig, TaskInterval, TimeSeries, TimeUnit,
    VirtualClock, task,
)
warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: a fork beside threads
executor = sys.argv[1]
config = RunnerConfig(executor=executor, workers=1, task_timeout=10.0, shutdown_timeout=0.2)

@task
def process(view, start, end):
    return os.getpid()

@task
def last(view, start, end):
    return float(view["v"][-1])

def series():
    made = TimeSeries({"v": float}, TimeUnit.SECONDS)
    made.append(0, v=1.0)
    return made
"""

WITHIN_A_BLOCK = """
clock = VirtualClock()
data = series()
context, receiver, _ = (
    ContextBuilder(TimeSeries).with_data(data).with_tasks([process, last])
    .with_interval(TaskInterval.seconds(1)).with_config(config).build()
)
def next_one():
    clock.advance(TaskInterval.seconds(1))
    return receiver.recv(10)

def leave():
    data.append(5, v=7.0)  # a copy of its own
    sys.exit(3)

parent = os.getpid()
try:
    with Runner(context, clock=clock):
        before = {next_one()["process"] for _ in range(5)}
        how = sys.argv[2]
        if how == "fork":
            child = os.fork()
            if child == 0:
                leave()
            os.waitpid(child, 0)
        else:
            child = multiprocessing.get_context("fork").Process(target=leave)
            child.start()
            child.join()
            assert child.exitcode == 3
        after = [next_one() for _ in range(10)]
        assert not any(dataset.errors for dataset in after), after[0].errors
        assert {dataset["last"] for dataset in after} == {1.0}
        assert {dataset["process"] for dataset in after} <= before
except BaseException:
    if os.getpid() != parent:
        os._exit(0)
    raise
print("done")
"""

GOES_ON = """
data = series()
pipeline = Pipeline("p").source([(i, {"v": float(i)}) for i in range(1, 40)], into=data)
pipeline.stage("a", [process, last], data, TaskInterval.seconds(1), config)
replay = pipeline.replay()
mine = {next(replay)[1]["process"] for _ in range(5)}
child = os.fork()
rest = [dataset for _, dataset in replay]
assert len(rest) == 34, len(rest)
assert not any(dataset.errors for dataset in rest), rest[0].errors
theirs = {dataset["process"] for dataset in rest}
if executor == "processes":
    assert (mine == theirs) is bool(child)
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
print("done")
"""


def run(program: str, *arguments: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", BEGINNING + program, *arguments],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == "done\n", told.stderr


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_child_that_ends_within_the_block_costs_its_parent_nothing(
    executor: str, how: str
) -> None:
    run(WITHIN_A_BLOCK, executor, how)


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_replay_goes_on_in_the_parent_and_in_the_child(executor: str) -> None:
    run(GOES_ON, executor)


CHILDREN = """
import signal, time
patient = RunnerConfig(shutdown_timeout=1000.0)
context, receiver, _ = (
    ContextBuilder(TimeSeries).with_data(series()).with_tasks([process])
    .with_interval(TaskInterval.seconds(1)).with_config(patient).build()
)
pipeline = Pipeline("p", clock=VirtualClock())
pipeline.stage("a", [process], series(), TaskInterval.seconds(1), patient)
try:
    with (Runner(context, clock=VirtualClock()) if sys.argv[2] == "runner" else pipeline):
        # CPython drops what comes before the child has begun: it is lost to any program.
        forking = multiprocessing.get_context("fork")
        begun = forking.Event()
        child = forking.Process(target=lambda: begun.set() or time.sleep(1000))
        child.start()
        assert begun.wait(10)
        child.terminate()
        child.join(10)
        assert child.exitcode == -signal.SIGTERM, child.exitcode
        child = os.fork()
        if child == 0:
            sys.exit(3)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 3
except SystemExit as left:
    os._exit(left.code)
print("done")
"""


@pytest.mark.parametrize("kind", ["runner", "pipeline"])
def test_a_child_is_ended_by_sigterm_and_leaves_the_block_at_once(kind: str) -> None:
    run(CHILDREN, "threads", kind)
