"""Ctrl-C and SIGTERM, sent for real to a process that runs a runner."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence

import pytest
from tests.support.commands import IGNORING_CTRL_C
from tests.support.threads import PATIENCE

from run_task.runner._signals import shut_down_on_sigterm

PROGRAM = """
import asyncio, sys, threading
from run_task import ContextBuilder, Runner, TaskInterval, task

def say(*words):  # print() may write a line in two parts, and another thread's in between
    sys.stdout.write(" ".join(map(str, words)) + chr(10))
    sys.stdout.flush()

@task
def number(data, start, end):
    return end

context, receiver, data = (
    ContextBuilder(list).with_task(number).with_interval(TaskInterval.millis(5))
    .with_channel(2).build()
)
runner = Runner(context)

def consume():
    ends = []
    for dataset in receiver:
        ends.append(dataset.timestamp)
        if len(ends) == 3:
            say("ready")
    assert ends == list(range(ends[0], ends[-1] + 5, 5)), ends
    say("received all")
    received.set()

received = threading.Event()  # a join() that Ctrl-C interrupts takes the thread for ended
consumer = threading.Thread(target=consume)
consumer.start()
try:
    {run}
    say("ended")
except KeyboardInterrupt:
    say("interrupted")
consumer.join()
say(runner.stats.missed, "missed", threading.active_count(), "threads")
"""

RUNS = {
    "run_sync": "runner.run_sync()",
    "asyncio": "asyncio.run(runner.run())",
    "with": "with runner: received.wait()",
}


def start(run: str, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
    program = textwrap.dedent(PROGRAM).format(run=run)
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("run", ["run_sync", "asyncio", "with"])
@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended")]
)
def test_ends_gracefully(run: str, number: signal.Signals, word: str) -> None:
    with start(RUNS[run]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    assert sorted(out.splitlines()) == sorted(["received all", word, "0 missed 1 threads"])
    assert process.returncode == 0


@pytest.mark.parametrize("run", ["run_sync", "asyncio", "with"])
def test_a_ctrl_c_that_is_ignored_stays_ignored(run: str) -> None:
    with start(RUNS[run], IGNORING_CTRL_C) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    assert sorted(out.splitlines()) == sorted(["received all", "ended", "0 missed 1 threads"])


def test_sigterm_shuts_down_every_runner_and_leaves_no_handler() -> None:
    called: list[str] = []
    shutdowns: list[Callable[[], None]] = [lambda: called.append("a"), lambda: called.append("b")]
    with shut_down_on_sigterm(shutdowns[0]):
        with shut_down_on_sigterm(shutdowns[1]):
            signal.raise_signal(signal.SIGTERM)
            assert called == ["a", "b"]
        signal.raise_signal(signal.SIGTERM)
        assert called == ["a", "b", "a"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_programs_own_stays() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        with shut_down_on_sigterm(lambda: called.append(0)):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == [signal.SIGTERM]


def test_shutdown_in_a_signal_handler_is_safe_wherever_it_interrupts() -> None:
    """A consumer in the main thread is interrupted in the middle of receiving, again and again."""
    program = textwrap.dedent(
        """
        import signal
        from run_task import ContextBuilder, Runner, TaskInterval, task

        @task
        def number(data, start, end):
            return end

        for attempt in range(60):
            context, receiver, data = (
                ContextBuilder(list).with_task(number).with_interval(TaskInterval.micros(1))
                .with_channel(1).build()
            )
            runner = Runner(context)
            signal.signal(signal.SIGALRM, lambda number, frame: runner.shutdown())
            with runner:
                signal.setitimer(signal.ITIMER_REAL, 0.001 + attempt * 1e-5)
                ends = [dataset.timestamp for dataset in receiver]
            assert ends == list(range(ends[0], ends[0] + len(ends))) if ends else True
        print("done")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_sigterm_ends_a_program_whose_last_block_was_left_in_another_thread() -> None:
    program = textwrap.dedent(
        """
        import os, signal, threading, time
        from run_task.runner._signals import shut_down_on_sigterm

        block = shut_down_on_sigterm(lambda: None)
        block.__enter__()
        leaving = threading.Thread(target=lambda: block.__exit__(None, None, None))
        leaving.start()
        leaving.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        print("it goes on")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
