"""Fixtures for pytest, which finds them by this package's entry point."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from run_task.executors.processes._process import worker_processes
from run_task.runner._scheduler import scheduled
from run_task.time._clock import VirtualClock

_END_GRACE: Final = 1.0
"""How many seconds what is ending may take to end."""


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands at the Unix epoch until it is moved."""
    return VirtualClock()


@pytest.fixture
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves a runner, a thread or a worker process of run-task behind.

    For a whole module: ``pytestmark = pytest.mark.usefixtures("nothing_left_running")``.
    """
    before = _running()
    yield
    deadline = time.monotonic() + _END_GRACE
    while (left := _running() - before) and time.monotonic() < deadline:
        time.sleep(0.001)
    if left:
        named = ", ".join(sorted(f"{kind} {name!r}" for kind, name, _ in left))
        pytest.fail(
            f"still running after the test: {named}: run runners and pipelines in a with block, "
            f"or shut them down and join them",
            pytrace=False,
        )


def _running() -> set[tuple[str, str, int]]:
    """Runners, threads and worker processes of this library: what they are, their name, their
    number."""
    runners = {("runner", activity.name, id(activity)) for activity in scheduled()}
    threads = {
        ("thread", thread.name, thread.ident or 0)
        for thread in threading.enumerate()
        if thread.name.startswith("run-task ")
    }
    processes = {
        ("process", f"worker {process.pid}", process.pid)
        for process in worker_processes()
        if process.poll() is None
    }
    return runners | threads | processes
