"""Whole programs with worker processes: what stands in their main module, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.support.crews import alive
from tests.support.threads import PATIENCE, eventually

MAIN = """
import sys
from dataclasses import dataclass
from run_task import ContextBuilder, Runner, RunnerConfig, RwLock, Task, TaskInterval, task

@dataclass
class Quote:
    bid: float
    ask: float

class Halt(Exception):
    pass

FEE = 0.25

def net(price):
    return price - FEE

@task
def mid(quote, start, end):
    return net((quote.bid + quote.ask) / 2)

def spread(quote, start, end):
    return Quote(quote.bid - 1, quote.ask + 1)

class Halting:
    name = "halting"
    def run(self, quote, start, end):
        assert isinstance(quote, Quote)
        raise Halt("trading halted")

context, receiver, data = (
    ContextBuilder(lambda: Quote(1.0, 2.0))
    .with_tasks([mid, Task(spread, "spread"), Halting()])
    .with_interval(TaskInterval.millis(50))
    .with_config(RunnerConfig(executor="processes", workers=2))
    .build()
)
with Runner(context):
    for _ in range(3):
        dataset = receiver.recv(10)
        assert dataset["mid"] == 1.25
        assert type(dataset["spread"]) is Quote, type(dataset["spread"])
        assert dataset["spread"] == Quote(0.0, 3.0)
        assert type(dataset.errors["halting"].__cause__) is Halt
        assert "Halt: trading halted" in str(dataset.errors["halting"])
print("done")
"""


def python(*arguments: str, program: str = "") -> str:
    """Run a program to its end. Returns what it said."""
    told = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        input=program,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    return told.stdout.strip()


def test_all_may_stand_in_the_main_program_which_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(MAIN)
    assert python(str(script)) == "done"


def test_a_program_may_come_from_standard_input() -> None:
    assert python("-", program=MAIN) == "done"


def test_a_module_beside_the_program_is_found(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(
        "from run_task import task\n@task\ndef told(data, start, end):\n    return __name__\n"
    )
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from beside import told\n"
        "from run_task import ContextBuilder, Runner, RunnerConfig, TaskInterval\n"
        "context, receiver, _ = ContextBuilder(list).with_task(told).with_interval(\n"
        "    TaskInterval.millis(20)\n"
        ").with_config(RunnerConfig(executor='processes')).build()\n"
        "with Runner(context):\n"
        "    print(receiver.recv(10)[told], sys.modules.get('cloudpickle'))\n"
    )
    assert python(str(tmp_path / "program.py")) == "beside None"


def test_workers_take_asserts_and_warnings_as_the_program_does() -> None:
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.support.crews import WorkersBench
from tests.support.deeds import Doer
bench = WorkersBench([Doer("a")])
with bench.runner:
    print(bench.next(a="optimize")["a"])
"""
    assert python("-O", "-", program=program) == "(1, ['error'])"


HANGS = f"""
import os, sys; sys.path.insert(0, {str(ROOT)!r})
from tests.support.crews import WorkersBench, pids_of
from tests.support.deeds import Doer
bench = WorkersBench([Doer("a"), Doer("b")], shutdown_timeout=1.0)
with bench.runner:
    bench.next()
    with bench.data.write() as told:
        told["a"] = sys.argv[1]
    bench.tick()
    print(*pids_of(bench), flush=True)
    for dataset in bench.receiver:
        print(dataset.to_dict(), list(dataset.errors), flush=True)
"""


@contextmanager
def program(text: str, *arguments: str) -> Generator[tuple[subprocess.Popen[str], list[int]]]:
    """Run a program in a process group of its own, until it says which its workers are."""
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.mark.parametrize("deed", ["sleep", "busy", "holds the GIL"])
def test_no_worker_survives_a_program_that_is_killed(deed: str) -> None:
    before = os.listdir("/dev/shm")
    with program(HANGS, deed) as (process, pids):
        assert len(pids) == 2
        assert all(map(alive, pids))
        time.sleep(0.1)  # it is in mid-task
        process.kill()
        eventually(lambda: not any(map(alive, pids)))
    assert os.listdir("/dev/shm") == before


INTERRUPTED = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from run_task import ContextBuilder, Runner, RunnerConfig, TaskInterval, task
from tests.support.crews import children

@task
def slow(data, start, end):
    import time
    time.sleep(0.2)
    return end

context, receiver, _ = (
    ContextBuilder(list)
    .with_task(slow)
    .with_interval(TaskInterval.millis(250))
    .with_config(RunnerConfig(executor="processes", workers=2))
    .build()
)
runner = Runner(context)
try:
    with runner:
        receiver.recv(10)
        print(*children(), flush=True)
        for dataset in receiver:
            assert not dataset.errors, dataset
except KeyboardInterrupt:
    left = list(receiver)
    assert not any(dataset.errors for dataset in left), left
    print("interrupted", flush=True)
"""


def to_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does


def to_it(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(("end", "said"), [(to_group, "interrupted"), (to_it, "")])
def test_ctrl_c_and_sigterm_end_a_program_with_its_window_in_hand_delivered(
    end: Callable[[subprocess.Popen[str]], None], said: str
) -> None:
    before = os.listdir("/dev/shm")
    with program(INTERRUPTED) as (process, pids):
        assert pids
        end(process)
        out, err = process.communicate(timeout=PATIENCE)
        assert (out.strip(), err) == (said, "")
        assert process.returncode == 0
        assert not any(map(alive, pids))
    assert os.listdir("/dev/shm") == before
