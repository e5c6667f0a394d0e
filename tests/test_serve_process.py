"""``run-task serve`` as a process: who has started it is told, and ends it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.commands import LIVE, RUN_TASK, run_here
from tests.support.served import serving
from tests.support.threads import PATIENCE, eventually

from run_task import RwLock, task
from run_task.serve._supervisor import Supervisor


class Notified:
    """A socket that takes what a service tells, as systemd's does."""

    def __init__(self, made: socket.socket, address: str) -> None:
        self._socket = made
        self.address = address

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def until(self, state: str) -> list[str]:
        found: list[str] = []
        while not found or state not in found[-1]:
            found.append(self.next())
        return found

    def nothing_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False


@pytest.fixture(params=["file", "abstract"])
def notified(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Notified]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(PATIENCE)
        shown = str(tmp_path / "notify") if request.param == "file" else f"@run-task-{os.getpid()}"
        made.bind(f"\0{shown[1:]}" if shown.startswith("@") else shown)
        yield Notified(made, shown)


@contextmanager
def program(folder: Path, *options: str, **environment: str) -> Generator[subprocess.Popen[str]]:
    """``run-task serve app.py``."""
    started = subprocess.Popen(
        [*RUN_TASK, "serve", "app.py", "--port", "0", *options],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def port_of(started: subprocess.Popen[str]) -> int:
    """The port, as it tells it."""
    assert started.stderr is not None
    for line in started.stderr:
        if found := re.match(r"serving at http://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise AssertionError("it has ended")


def asked(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_systemd_is_told_that_it_is_ready_alive_and_about_to_end(
    notified: Notified, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(LIVE)
    with program(
        tmp_path, NOTIFY_SOCKET=notified.address, WATCHDOG_USEC="1000000", WATCHDOG_PID=""
    ) as started:
        port = port_of(started)
        (ready,) = [state for state in notified.until("READY=1") if state != "WATCHDOG=1"]
        assert ready == f"READY=1\nSTATUS=serving at http://127.0.0.1:{port}/"
        eventually(lambda: asked(port, "/ready") == 200)  # on a busy machine windows may be late
        begun = time.monotonic()
        for _ in range(3):
            assert notified.next() == "WATCHDOG=1"
        assert time.monotonic() - begun < 3  # in the time of which none may be missing
        started.send_signal(signal.SIGTERM)
        assert notified.until("STOPPING=1")[-1].startswith("STOPPING=1\n")
        assert started.wait(PATIENCE) == 0


def test_a_service_whose_event_loop_hangs_gives_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(PATIENCE)
        made.bind(str(tmp_path / "notify"))
        notified = Notified(made, str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", notified.address)
        monkeypatch.setenv("WATCHDOG_USEC", "90000")
        bench = PipelineBench([end_of])
        bench.stage("a", RwLock[object](object()))
        with serving(bench.pipeline) as served:
            assert "NOTIFY_SOCKET" not in os.environ  # programs that it starts are not to use it
            notified.until("WATCHDOG=1")
            hung = bench.pipeline.stats
            let_go: list[bool] = []

            def hangs() -> object:
                while not let_go:
                    time.sleep(0.005)
                return hung

            monkeypatch.setattr(type(bench.pipeline), "stats", property(lambda _: hangs()))
            eventually(lambda: notified.nothing_for(0.3))
            let_go.append(True)
            notified.until("WATCHDOG=1")
            assert served.ask("/health").status == 200


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


def test_nobody_is_told_who_has_not_asked() -> None:
    environment = {"WATCHDOG_USEC": "1000000"}
    assert Supervisor.of(environment).watchdog is None
    assert environment == {}
    other = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    supervisor = Supervisor.of(other)
    assert supervisor.watchdog is None
    supervisor.ready("it goes on if nobody takes it")


def test_a_service_that_is_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(COUNTED)
    ends: list[int] = []
    for times in (1, 2):
        with program(tmp_path, "--log-level", "error") as started:
            assert asked(port_of(started), "/health") == 200
            until_there_are(5 * times, tmp_path)
            started.send_signal(signal.SIGKILL)
            started.wait(PATIENCE)
    found = rows(tmp_path)
    assert [row["values"]["windows"] for row in found] == list(range(1, len(found) + 1))
    ends = [row["window_end"] for row in found]
    assert [end - ends[0] for end in ends] == [100 * number for number in range(len(found))]


def rows(folder: Path) -> list[Any]:
    """The last lines of each window, as whoever reads the file takes them."""
    path = folder / "out.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    told = [json.loads(line) for line in lines]
    return list({row["window_end"]: row for row in told}.values())


def until_there_are(count: int, folder: Path) -> None:
    eventually(lambda: len(rows(folder)) > count)


COUNTED = """
from run_task import *
from run_task.sinks import JsonLinesSink

numbers = TimeSeries({"value": float}, unit=TimeUnit.MILLIS)


@task(state=int)
def windows(view: TimeSeriesView, start: int, end: int, state: int) -> tuple[int, int]:
    return state + 1, state + 1


pipeline = Pipeline("counted", checkpoint="state", checkpoint_every="50ms")
stage = pipeline.stage("a", [windows], numbers, TaskInterval.millis(100))
stage.sink(JsonLinesSink("out.jsonl"))
"""


def test_a_pipeline_that_fails_ends_the_service_and_the_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FAILING)
    with program(tmp_path, "--log-level", "error") as started:
        _, error = started.communicate(timeout=PATIENCE)
    assert started.returncode == 1
    assert "the feed is gone" in error


FAILING = """
from run_task import *


def rows():
    yield from ()
    raise OSError("the feed is gone")


@task
def end_of(view: TimeSeriesView, start: int, end: int) -> int:
    return end


numbers = TimeSeries({"value": float}, unit=TimeUnit.MILLIS)
pipeline = Pipeline("failing")
pipeline.source(rows(), into=numbers)
pipeline.stage("a", [end_of], numbers, "100ms")
"""


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(LIVE)
    for options, told in (
        (["--host", "0.0.0.0"], "give a token"),
        (["--token-file", "no"], "cannot be read"),
        (["--max-lateness", "soon"], "max_lateness"),
    ):
        done = run_here("serve", "app.py", *options, cwd=tmp_path)
        assert done.exit_code == 3
        assert told in done.output
