"""Tasks in worker processes: what comes of them, and of those that do their worst."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.crews import WorkersBench, alive, children, crew_of, descriptors, pids_of
from tests.support.deeds import DeadlyToLoad, Doer, Holder, Odd
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ConfigError,
    ContextBuilder,
    Runner,
    RunnerConfig,
    RwLock,
    ShutdownTimeout,
    Task,
    TaskInterval,
    TaskLost,
    TaskTimeout,
    task,
)
from run_task.executors.processes import ProcessesExecutor

NAMES = ["a", "b", "c", "d"]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Every test ends with as many processes as it began with."""
    before = len(children())
    yield
    eventually(lambda: len(children()) == before)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def crew(request: pytest.FixtureRequest) -> Iterator[WorkersBench]:
    """A runner of four tasks that do what they are told."""
    bench = WorkersBench(map(Doer, NAMES), workers=request.param)
    with bench.runner:
        bench.next()
        yield bench


@pytest.fixture(scope="module")
def timed() -> Iterator[WorkersBench]:
    """A runner whose tasks time out."""
    bench = WorkersBench(map(Doer, NAMES), task_timeout=0.3)
    with bench.runner:
        bench.next()
        yield bench


def goes_on(bench: WorkersBench) -> None:
    """All is well with a runner, and its processes are all there."""
    dataset = bench.next()
    assert not dataset.errors
    assert dataset.to_dict() == dict.fromkeys(NAMES, dataset.timestamp)


# Processes that die


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        ("exit", "its worker process ended with exit code 3"),
        ("kill", "its worker process was killed by signal 9 (Killed)"),
        ("segfault", "its worker process was killed by signal 11 (Segmentation fault)"),
        ("abort", "its worker process was killed by signal 6 (Aborted)"),
        ("forks and dies", "its worker process ended with exit code 7"),
        ("closes everything", "its worker process"),
    ],
)
def test_a_task_that_ends_its_process_loses_its_own_result(
    crew: WorkersBench, deed: str, how: str
) -> None:
    dataset = crew.next(b=deed)
    assert dataset.to_dict() == dict.fromkeys("acd", dataset.timestamp)
    (error,) = dataset.errors.values()
    assert type(error) is TaskLost
    assert (error.task, error.window) == ("b", dataset.window)
    assert how in str(error)
    goes_on(crew)


def test_two_tasks_that_die_in_one_tick_are_both_lost_and_no_other(crew: WorkersBench) -> None:
    dataset = crew.next(a="exit", d="kill")
    assert dataset.to_dict() == dict.fromkeys("bc", dataset.timestamp)
    assert "exit code 3" in str(dataset.errors["a"])
    assert "signal 9" in str(dataset.errors["d"])
    goes_on(crew)


def test_all_tasks_may_die_in_one_tick(crew: WorkersBench) -> None:
    dataset = crew.next(a="exit", b="kill", c="segfault", d="exit")
    assert {type(error) for error in dataset.errors.values()} == {TaskLost}
    assert list(dataset.errors) == NAMES
    goes_on(crew)


def test_a_task_may_die_in_every_tick(crew: WorkersBench) -> None:
    begun = time.monotonic()
    for _ in range(4):
        dataset = crew.next(c="exit")
        assert dataset.to_dict() == dict.fromkeys("abd", dataset.timestamp)
        assert type(dataset.errors["c"]) is TaskLost
    assert time.monotonic() - begun < PATIENCE
    goes_on(crew)


def test_a_worker_that_is_killed_between_ticks_costs_nothing(crew: WorkersBench) -> None:
    for _ in range(2):
        pids = set(crew.next(**dict.fromkeys("abcd", "pid")).values())
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        goes_on(crew)
        assert not pids & set(crew.next(**dict.fromkeys("abcd", "pid")).values())


def test_a_worker_that_is_killed_in_mid_task_loses_that_task() -> None:
    bench = WorkersBench(map(Doer, NAMES))
    with bench.runner:
        bench.next()
        with bench.data.write() as told:
            told.update(b="sleep")
        bench.tick()
        eventually(lambda: crew_of(bench).running() == ["b"])
        (victim,) = [w for w in crew_of(bench)._workers if w.progress.in_hand() is not None]
        os.kill(victim.process.pid, signal.SIGKILL)
        dataset = bench.receiver.recv(PATIENCE)
        assert dataset.to_dict() == dict.fromkeys("acd", dataset.timestamp)
        assert "was killed by signal 9" in str(dataset.errors["b"])
        goes_on(bench)


def test_many_workers_killed_at_once_are_replaced_and_nothing_is_lost() -> None:
    bench = WorkersBench([Doer(str(i)) for i in range(6)], workers=6)
    with bench.runner:
        for _ in range(2):
            bench.tick()
            # Six interpreters start at once, and each imports NumPy.
            assert not bench.receiver.recv(6 * PATIENCE).errors
            # Those that load a task when they die have died of it, as far as anybody knows.
            for worker in crew_of(bench)._workers:
                assert worker.ready or select.select([worker.connection], [], [], PATIENCE)[0]
            for pid in pids_of(bench):
                os.kill(pid, signal.SIGKILL)


def test_workers_killed_before_they_begin_are_replaced_and_the_blame_is_not_the_tasks() -> None:
    bench = WorkersBench([Doer(name) for name in "abc"], workers=3)
    with bench.runner:
        bench.next()
        pids = pids_of(bench)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        bench.tick()  # it is handed out, and nobody begins
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        dataset = bench.receiver.recv(PATIENCE)
        assert dataset.to_dict() == {"a": 2, "b": 2, "c": 2}


def test_a_worker_that_is_found_dead_twice_is_taken_care_of_once() -> None:
    # As when two are dead: the share of the one is offered to the other before its end is read.
    bench = WorkersBench([Doer("a"), Doer("b")])
    with bench.runner:
        bench.next()
        crew = crew_of(bench)
        worker_died = crew._worker_died

        def twice(worker: Any, state: Any) -> None:
            worker_died(worker, state)
            worker_died(worker, state)

        crew._worker_died = twice
        dataset = bench.next(a="exit")
        assert list(dataset.errors) == ["a"]
        assert bench.next().to_dict() == {"a": 3, "b": 3}


# Tasks that hang


@pytest.mark.parametrize("deed", ["sleep", "busy", "holds the GIL"])
def test_a_task_that_hangs_is_ended_with_its_process(timed: WorkersBench, deed: str) -> None:
    timed.next()
    pids = pids_of(timed)
    dataset = timed.next(c=deed)
    assert dataset.to_dict() == dict.fromkeys("abd", dataset.timestamp)
    error = dataset.errors["c"]
    assert type(error) is TaskTimeout
    assert "did not return within task_timeout=0.3 s, and was ended with" in str(error)
    goes_on(timed)
    (killed,) = [pid for pid in pids if not alive(pid)]
    assert killed not in pids_of(timed)


def test_all_tasks_may_hang(timed: WorkersBench) -> None:
    dataset = timed.next(**dict.fromkeys("abcd", "sleep"))
    assert [type(error) for error in dataset.errors.values()] == [TaskTimeout] * 4
    goes_on(timed)


def test_a_task_that_dies_is_no_task_that_hangs(timed: WorkersBench) -> None:
    # A child of its process keeps the socket open, so nothing but the process tells.
    dataset = timed.next(a="forks and dies", b="exit")
    assert "exit code 7" in str(dataset.errors["a"])
    assert type(dataset.errors["a"]) is type(dataset.errors["b"]) is TaskLost
    goes_on(timed)


def test_a_task_on_the_brink_of_its_timeout_is_in_time_or_late_and_never_both() -> None:
    timeout = 0.02

    def brink(data: object, start: int, end: int) -> int:
        until = time.perf_counter() + timeout * (0.9 + 0.04 * (end % 6))
        while time.perf_counter() < until:
            pass
        return end

    quick = Task[object, int](lambda data, start, end: end, "quick")
    bench = WorkersBench([quick, Task(brink, "brink")], task_timeout=timeout)
    with bench.runner:
        for _ in range(8):
            dataset = bench.next()
            assert dataset.keys() | dataset.errors.keys() == {"quick", "brink"}
            assert not dataset.keys() & dataset.errors.keys()
            # On a busy machine any task may be put aside for as long as the timeout.
            assert set(dataset.values()) <= {dataset.timestamp}
            assert {type(error) for error in dataset.errors.values()} <= {TaskTimeout}


def test_a_worker_may_take_longer_to_start_than_a_task_may_take_to_run() -> None:
    bench = WorkersBench([Doer("a")], task_timeout=0.05, workers=1)
    with bench.runner:
        assert bench.next().to_dict() == {"a": 1}


# Tasks that raise, and what cannot be sent


def test_what_tasks_raise_is_what_they_raised_with_its_traceback_in_a_note(
    crew: WorkersBench,
) -> None:
    dataset = crew.next(a="value error", b="system exit", c="interrupt")
    causes = {name: error.__cause__ for name, error in dataset.errors.items()}
    assert {name: type(cause) for name, cause in causes.items()} == {
        "a": ValueError,
        "b": SystemExit,
        "c": KeyboardInterrupt,
    }
    assert "ValueError: bad luck" in str(dataset.errors["a"])
    cause = causes["a"]
    assert cause is not None
    (note,) = cause.__notes__
    assert note.startswith("in the worker process:\nTraceback")
    assert "deeds.py" in note
    assert dataset.to_dict() == {"d": dataset.timestamp}


def test_an_exception_that_cannot_be_sent_is_told_all_the_same(crew: WorkersBench) -> None:
    dataset = crew.next(a="odd", b="locked", c="mute")
    assert "RuntimeError: tests.support.deeds.Odd: this and that" in str(dataset.errors["a"])
    assert "RuntimeError: tests.support.deeds.Locked: in chains" in str(dataset.errors["b"])
    assert "Mute" in str(dataset.errors["c"])
    for error in dataset.errors.values():
        assert error.__cause__ is not None
        assert "deeds.py" in error.__cause__.__notes__[0]
    assert not isinstance(dataset.errors["a"].__cause__, Odd)


def test_an_exception_that_is_raised_again_and_again_does_not_grow(crew: WorkersBench) -> None:
    causes = [crew.next(b="same").errors["b"].__cause__ for _ in range(4)]
    notes = [cause.__notes__ for cause in causes if cause is not None]
    assert len(notes) == 4
    assert {len(note) for note in notes} == {1}
    assert notes[-1][0].count("ValueError: the same one every time") == 1


def test_memory_that_cannot_be_had_is_an_error_like_any_other(crew: WorkersBench) -> None:
    dataset = crew.next(d="memory error")
    assert isinstance(dataset.errors["d"].__cause__, MemoryError)
    goes_on(crew)


def test_a_result_that_cannot_be_sent_is_named_in_the_errors_of_its_window(
    crew: WorkersBench,
) -> None:
    dataset = crew.next(a="lock")
    assert "task 'a' gave no result" in str(dataset.errors["a"])
    assert "its result, a lock, cannot be sent back (TypeError: cannot pickle" in str(
        dataset.errors["a"]
    )
    assert dataset.to_dict() == dict.fromkeys("bcd", dataset.timestamp)


def test_a_result_that_cannot_be_loaded_is_named_in_the_errors_of_its_window(
    crew: WorkersBench,
) -> None:
    dataset = crew.next(a="only there", b="exits elsewhere")
    assert "its result cannot be loaded (RuntimeError: it belongs to" in str(dataset.errors["a"])
    assert "its result cannot be loaded (SystemExit: it wants to" in str(dataset.errors["b"])
    assert isinstance(dataset.errors["a"].__cause__, RuntimeError)
    assert dataset.to_dict() == dict.fromkeys("cd", dataset.timestamp)


def test_a_result_that_there_is_no_room_to_send_is_named(crew: WorkersBench) -> None:
    dataset = crew.next(c="too large")
    assert "its result, of 67,10" in str(dataset.errors["c"])
    assert "cannot be sent back (OSError" in str(dataset.errors["c"])
    assert dataset.to_dict() == dict.fromkeys("abd", dataset.timestamp)
    for pid in pids_of(crew):  # it has no limits but the one that it set itself
        os.kill(pid, signal.SIGKILL)
    goes_on(crew)


def test_results_of_any_size_arrive_and_belong_to_who_receives_them(crew: WorkersBench) -> None:
    dataset = crew.next(a="array", b="small array", c="bytes", d="none")
    assert not dataset.errors
    assert np.array_equal(dataset["a"], np.arange(100_000))
    assert np.array_equal(dataset["b"], np.arange(10))
    assert dataset["c"] == bytes(1_000_000)
    assert dataset["d"] is None
    dataset["a"][:] = 1
    dataset["b"][:] = 1
    assert list(dataset) == NAMES
    assert set(dataset.durations) == set(NAMES)


def test_what_a_task_starts_does_not_keep_its_workers_end_from_being_seen(
    crew: WorkersBench,
) -> None:
    child = crew.next(a="child")["a"]
    try:
        begun = time.monotonic()
        dataset = crew.next(**dict.fromkeys("abcd", "exit"))
        assert len(dataset.errors) == 4
        assert time.monotonic() - begun < PATIENCE / 2
        goes_on(crew)
    finally:
        os.kill(child, signal.SIGKILL)


# Tasks that cannot be sent, or not be loaded


class Locks:
    name = "locks"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def run(self, data: object, start: int, end: int) -> int:
        return end


def test_a_task_that_cannot_be_sent_is_refused_when_the_context_is_built() -> None:
    with pytest.raises(ConfigError, match=r"task 'locks' cannot be sent.*lock.*threads'"):
        WorkersBench([Doer("a"), Locks()])


def test_without_cloudpickle_the_refusal_names_the_task_and_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    closure = Task[object, int](lambda data, start, end: end, "closure")
    with pytest.raises(
        ConfigError, match=r"task 'closure'.*pip install .*\[processes\]'?, or take exec"
    ) as caught:
        WorkersBench([closure])
    assert "lock" not in str(caught.value)  # that is for tasks that hold one, as this one does:

    with pytest.raises(ConfigError, match=r"task 'locks' cannot.*hold nothing.*a lock") as caught:
        WorkersBench([Locks()])
    assert "pip" not in str(caught.value)
    bench = WorkersBench([Doer("a")])  # this one needs none
    with bench.runner:
        assert bench.next().to_dict() == {"a": 1}


@task
def at_module_level(data: object, start: int, end: int) -> int:
    return end


def test_functions_of_modules_closures_and_lambdas_are_sent() -> None:
    offset = 10

    @task
    def closure(data: object, start: int, end: int) -> int:
        return end + offset

    anonymous = Task[object, int](lambda data, start, end: -end, "anonymous")
    bench = WorkersBench([at_module_level, closure, anonymous])
    with bench.runner:
        assert bench.next().to_dict() == {"at_module_level": 1, "closure": 11, "anonymous": -1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_kills_whoever_loads_it_is_loaded_no_more(workers: int) -> None:
    bench = WorkersBench([Doer("a"), DeadlyToLoad("deadly", "exit"), Doer("b")], workers=workers)
    pids: list[int] = []
    with bench.runner:
        for _ in range(3):
            dataset = bench.next()
            assert dataset.to_dict() == dict.fromkeys("ab", dataset.timestamp)
            error = dataset.errors["deadly"]
            assert type(error) is TaskLost
            assert "3 worker processes died of loading it, the last ended with exit code 3" in str(
                error
            )
            pids = pids_of(bench)
        assert pids
        assert pids == pids_of(bench), "nothing is started again and again"


def test_a_task_that_cannot_be_loaded_has_an_error_in_every_window() -> None:
    tasks = [
        Doer("a"),
        DeadlyToLoad("raises", "value error"),
        DeadlyToLoad("exits", "exit politely"),
    ]
    bench = WorkersBench(tasks)
    with bench.runner:
        for _ in range(3):
            dataset = bench.next()
            assert dataset.to_dict() == {"a": dataset.timestamp}
            told = str(dataset.errors["raises"])
            assert "the task cannot be loaded in a worker process (ValueError: bad luck)" in told
            assert "(SystemExit: no)" in str(dataset.errors["exits"])
            cause = dataset.errors["raises"].__cause__
            assert cause is not None
            assert len(cause.__notes__) == 1


def test_each_worker_has_what_a_task_holds_for_itself() -> None:
    bench = WorkersBench([Holder("small", 10), Holder("large", 100_000)], workers=1)
    with bench.runner:
        assert bench.next().to_dict() == {"small": 1.0, "large": 1.0}
        assert bench.next().to_dict() == {"small": 2.0, "large": 2.0}
        os.kill(pids_of(bench)[0], signal.SIGKILL)
        # What it noted there is gone with it: a task keeps no state between windows.
        assert bench.next().to_dict() == {"small": 1.0, "large": 1.0}


def test_workers_that_cannot_be_started_cost_their_ticks_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = WorkersBench(map(Doer, NAMES))
    with bench.runner:
        bench.next()
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", _no_more_processes)
            # One is left to do it all ...
            dataset = bench.next(a="exit")
            assert dataset.to_dict() == dict.fromkeys("bcd", dataset.timestamp)
            # ... until it dies, too.
            dataset = bench.next(b="exit")
            assert set(dataset.errors) >= {"b"}
            dataset = bench.next()
            assert set(dataset.errors) == set(NAMES)
            told = str(dataset.errors["a"])
            assert "no worker process could be started (BlockingIOError" in told
        goes_on(bench)


def _no_more_processes(*_: object, **__: object) -> None:
    raise BlockingIOError("no more processes")


def test_a_worker_that_cannot_be_greeted_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from run_task.executors.processes._wire import Connection

    def unable(self: Connection, message: object, descriptors: object = ()) -> None:
        raise OSError("the line is dead")

    gc.collect()  # what earlier tests have left is not to go meanwhile
    before = descriptors()
    bench = WorkersBench([Doer("a")])
    monkeypatch.setattr(Connection, "send", unable)
    with bench.runner:
        bench.next()
        error = bench.next().errors["a"]
        assert type(error) is TaskLost
        assert "the line is dead" in str(error)
        assert not pids_of(bench)
    del bench
    gc.collect()
    assert descriptors() == before


# A bug in an executor


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_bug_in_an_executor_ends_its_runner_and_does_not_hang_it(
    executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = WorkersBench([Doer("a")], executor=executor)
    crew: Any = crew_of(bench)

    class Bug:
        def __call__(self, *_: object) -> None:
            raise ZeroDivisionError("a bug")

        __iter__ = __call__

    # What a tick begins with: its tasks, or a method.
    monkeypatch.setattr(crew, "_runs" if executor == "threads" else "run", Bug())
    with pytest.raises(ZeroDivisionError, match="a bug"), bench.runner:
        bench.tick()
        assert list(bench.receiver) == []
    with bench.data.write(timeout=PATIENCE):
        pass  # it keeps no lock


# The end


def test_processes_start_with_the_runner_and_end_with_it() -> None:
    before = children()
    bench = WorkersBench(map(Doer, NAMES))
    assert children() == before
    with bench.runner:
        eventually(lambda: len(children() - before) == 2)
        bench.next()
    assert children() == before


def test_a_shutdown_finishes_the_window_in_hand() -> None:
    def slow(data: object, start: int, end: int) -> int:
        time.sleep(0.2)
        return end

    bench = WorkersBench([Task(slow, "slow"), Doer("a")])
    with bench.runner:
        bench.tick()
        eventually(lambda: "slow" in crew_of(bench).running())
    assert [dataset.to_dict() for dataset in bench.receiver] == [{"slow": 1, "a": 1}]


@pytest.mark.parametrize("deed", ["sleep", "holds the GIL"])
def test_a_shutdown_gives_up_on_a_task_that_hangs_and_names_it(deed: str) -> None:
    bench = WorkersBench([Doer("a"), Doer("c")], shutdown_timeout=0.3)
    pids: list[int] = []
    begun = 0.0
    with pytest.raises(ShutdownTimeout, match="still running: 'c'") as caught, bench.runner:
        # In the first tick, when nobody knows that they are cheap, each is a share of its own.
        with bench.data.write() as told:
            told.update(c=deed)
        bench.tick()
        eventually(lambda: list(crew_of(bench).running()) == ["c"])
        pids = pids_of(bench)
        begun = time.monotonic()
    assert time.monotonic() - begun < PATIENCE / 2
    assert pids
    assert caught.value.tasks == ("c",)
    assert not any(map(alive, pids))
    (dataset,) = bench.receiver
    assert dataset.to_dict() == {"a": 1}
    assert type(dataset.errors["c"]) is TaskTimeout


def test_a_shutdown_gives_up_on_a_task_that_is_not_even_loaded() -> None:
    bench = WorkersBench([Doer("a"), DeadlyToLoad("hangs", "sleep")], shutdown_timeout=0.3)
    with pytest.raises(ShutdownTimeout) as caught, bench.runner:
        bench.tick()
        # Both workers load every task, one after the other.
        eventually(lambda: list(crew_of(bench).running()) == ["hangs", "hangs"])
    assert set(caught.value.tasks) == {"hangs"}


def test_an_exception_in_the_block_ends_the_processes() -> None:
    before = children()
    bench = WorkersBench(map(Doer, NAMES))
    with pytest.raises(LookupError, match="mine"), bench.runner:
        bench.next()
        raise LookupError("mine")
    assert children() == before


def test_a_runner_that_is_shut_down_as_it_starts_leaves_no_process() -> None:
    before = children()
    with WorkersBench(map(Doer, NAMES)).runner:
        pass
    assert children() == before


# Alike on every executor


@task
def total(data: list[float], start: int, end: int) -> float:
    result = 0.0
    for value in data:
        result += value / (end + 1)
    return result


@task
def spread(data: list[float], start: int, end: int) -> tuple[float, float]:
    return min(data), max(data)


@task
def failing(data: list[float], start: int, end: int) -> float:
    raise ValueError(f"not {end}")


def test_results_are_those_of_the_other_executors() -> None:
    outcomes: list[list[Any]] = []
    for executor in ("inline", "threads", "processes"):
        context, receiver, data = (
            ContextBuilder(lambda: [0.1 * i for i in range(100)])
            .with_tasks([total, failing])
            .with_task(spread)
            .with_interval(TaskInterval.seconds(1))
            .with_config(RunnerConfig(executor=executor, workers=2))
            .build()
        )
        from run_task import VirtualClock

        clock = VirtualClock()
        with Runner(context, clock=clock):
            got: list[Any] = []
            for step in range(20):
                clock.advance(TaskInterval.seconds(1))
                dataset = receiver.recv(PATIENCE)
                got.append((dataset, [str(error) for error in dataset.errors.values()]))
                with data.write() as values:
                    values.append(step / 7)
        outcomes.append(got)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_an_interrupt_while_processes_start_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    crew: Any = ProcessesExecutor().start(
        [Doer("a")], data=RwLock[Any](None), name="r", task_timeout=None, workers=1
    )

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(crew._selector, "register", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crew.open()
    assert len(crew._workers) == 1
    crew.close(PATIENCE)
