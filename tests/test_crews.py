"""What every executor's crew holds to: a tick in, its DataSet out, from whichever thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    Atom,
    ConfigError,
    ContextBuilder,
    DataSet,
    Executor,
    InlineExecutor,
    Pipeline,
    ProcessesExecutor,
    Runner,
    RunnerConfig,
    Task,
    TaskError,
    TaskTimeout,
    ThreadsExecutor,
    Window,
)
from run_task.executors import Crew, LeadingCrew, Tick, Ticks, drive, driver, failed
from run_task.executors.threads import _crew
from run_task.sync._watch import watch

EXECUTORS: list[Executor] = [InlineExecutor(), ThreadsExecutor(), ProcessesExecutor()]
by_name = pytest.mark.parametrize("executor", EXECUTORS, ids=["inline", "threads", "processes"])


def length(data: str, start: int, end: int) -> int:
    return len(data) + end


def fail(data: str, start: int, end: int) -> int:
    raise LookupError(data)


def thread(data: object, start: int, end: int) -> int:
    return threading.get_ident()


@contextmanager
def started(
    executor: Executor,
    *tasks: Callable[[Any, int, int], Any],
    task_timeout: float | None = None,
    workers: int = 2,
) -> Generator[Crew]:
    crew = executor.start(
        [Task(task) for task in tasks],
        data=Atom("some data"),
        name="crew",
        task_timeout=task_timeout,
        workers=workers,
    )
    crew.open()
    try:
        yield crew
    finally:
        crew.close(PATIENCE)


@by_name
@pytest.mark.parametrize("task_timeout", [None, PATIENCE])
def test_a_crew_runs_a_tick(executor: Executor, task_timeout: float | None) -> None:
    tick = Tick("some data", 10, 20, 1_500_000, ("up",))
    with started(executor, length, fail, task_timeout=task_timeout) as crew:
        dataset = crew.run(tick)
        assert isinstance(dataset, DataSet)
        assert dataset == DataSet(
            Window(10, 20), {"length": 29}, {"fail": TaskError("fail", tick.window)}
        )
        assert str(dataset.errors["fail"].__cause__) == "some data"
        assert (dataset.lateness, dataset.behind) == (0.0015, ("up",))
        assert dataset.durations.keys() == dataset.starts.keys() == {"length", "fail"}
        assert all(0 <= start <= dataset.took for start in dataset.starts.values())
        eventually(lambda: not crew.running())  # a worker may still load its tasks


@by_name
def test_ticks_may_come_from_one_thread_after_the_other(executor: Executor) -> None:
    with started(executor, length, task_timeout=PATIENCE) as crew:
        for end in range(1, 6):
            with beside(lambda: crew.run(Tick("", end - 1, end))) as ran:  # noqa: B023
                pass
            assert ran.result()["length"] == end


@by_name
def test_the_loop_is_driven_by_the_crew_or_by_drive(executor: Executor) -> None:
    datasets: list[Any] = []

    def loop(first: int) -> Ticks:
        for start in range(first, first + 3):
            dataset = yield Tick("", start, start + 1)
            datasets.append(dataset)

    with started(executor, length) as crew:
        driven = driver(crew)
        for first in (0, 3, 6):
            driven(loop(first))
        drive(loop(9), crew.run)
    assert [dataset["length"] for dataset in datasets] == list(range(1, 13))


def test_a_tick_tells_its_window() -> None:
    tick = Tick(None, 10, 20, 5)
    assert (tick.start, tick.end, tick.late_ns, tick.window) == (10, 20, 5, Window(10, 20))
    assert tick.behind == ()
    assert repr(tick) == "<Tick [10, 20), 5e-09 s late>"


@by_name
def test_an_async_task_is_refused_by_who_cannot_run_it(executor: Executor) -> None:
    async def waits(data: object, start: int, end: int) -> int:
        return end

    with pytest.raises(ConfigError, match="'waits' is async, which this executor cannot run"):
        executor.check([Task(waits)])


# The threads executor


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_with_a_timeout_ticks_run_in_one_thread_beside_the_caller() -> None:
    with started(ThreadsExecutor(), thread, task_timeout=PATIENCE, workers=1) as crew:
        datasets: list[Any] = [crew.run(Tick(None, end - 1, end)) for end in range(1, 50)]
    threads = {dataset["thread"] for dataset in datasets}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_without_a_timeout_ticks_run_in_the_callers_thread() -> None:
    with started(ThreadsExecutor(), thread, workers=1) as crew:
        assert crew.run(Tick(None, 0, 1))["thread"] == threading.get_ident()


def test_run_comes_back_when_a_task_hangs_and_goes_on_with_the_next_tick(
    gate: threading.Event,
) -> None:
    def hang(data: object, start: int, end: int) -> int:
        if end == 2:
            assert gate.wait(PATIENCE)
        return end

    with started(ThreadsExecutor(), hang, thread, task_timeout=0.02) as crew:
        first, second, third = (crew.run(Tick(None, end - 1, end)) for end in (1, 2, 3))
        assert first["hang"] == 1
        assert type(second.errors["hang"]) is TaskTimeout
        assert type(third.errors["hang"]) is TaskTimeout
        assert second.keys() == third.keys() == {"thread"}
        assert list(crew.running()) == ["hang"]
        gate.set()
        eventually(lambda: not crew.running())
        fourth, fifth = (crew.run(Tick(None, end - 1, end)) for end in (4, 5))
        assert (fourth["hang"], fifth["hang"]) == (4, 5)
        assert fourth["thread"] == fifth["thread"], "there is one thread for them again"


def test_run_comes_back_when_it_is_abandoned(gate: threading.Event) -> None:
    entered = threading.Event()

    def hang(data: object, start: int, end: int) -> int:
        entered.set()
        assert gate.wait(PATIENCE)
        return end

    with started(ThreadsExecutor(), hang, task_timeout=PATIENCE) as crew:
        with beside(lambda: crew.run(Tick(None, 0, 1))) as ran:
            assert entered.wait(PATIENCE)
            crew.abandon()
        assert "when the runner was shut down" in str(ran.result().errors["hang"])
        gate.set()


@pytest.mark.parametrize("task_timeout", [None, PATIENCE])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_crew_that_is_given_up_after_its_end_is_looked_after_no_more(
    workers: int, task_timeout: float | None
) -> None:
    # A shutdown may find that it took too long in the moment in which the crew is closed.
    before = watch().watched
    with started(
        ThreadsExecutor(), thread, length, workers=workers, task_timeout=task_timeout
    ) as crew:
        pass
    crew.abandon()
    assert set(watch().watched) <= set(before)


@pytest.mark.parametrize("task_timeout", [None, PATIENCE])
def test_run_raises_what_is_no_tasks_fault(
    monkeypatch: pytest.MonkeyPatch, task_timeout: float | None
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("a bug")

    with started(ThreadsExecutor(), thread, task_timeout=task_timeout, workers=1) as crew:
        with monkeypatch.context() as patch:
            patch.setattr("run_task.executors.threads._crew._dataset_of", fault)
            with pytest.raises(RuntimeError, match="a bug"):
                crew.run(Tick(None, 0, 1))
        assert crew.run(Tick(None, 0, 1))["thread"]


class NoThreads:
    """For a while the system has no thread to give."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusing = True
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if self.refusing and thread.name.startswith("run-task crew"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


def test_without_a_thread_to_be_had_ticks_run_in_the_callers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    system = NoThreads(monkeypatch)
    with started(ThreadsExecutor(), thread, task_timeout=PATIENCE) as crew:
        for end in (1, 2, 3):
            assert crew.run(Tick(None, end - 1, end))["thread"] == threading.get_ident()
        assert caplog.text.count("no thread could be started") == 1
        system.refusing = False
        assert crew.run(Tick(None, 3, 4))["thread"] != threading.get_ident()


def test_without_helpers_to_be_had_the_leader_does_it_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    NoThreads(monkeypatch)

    def slow(data: object, start: int, end: int) -> int:
        time.sleep(0.002)
        return threading.get_ident()

    tasks = [Task(slow, f"slow {i}") for i in range(6)]
    settings: dict[str, Any] = {"data": Atom(0), "name": "crew", "task_timeout": None, "workers": 3}
    crew = ThreadsExecutor().start(tasks, **settings)
    for end in range(1, 5):
        dataset = crew.run(Tick(None, end - 1, end))
        assert set(dataset.values()) == {threading.get_ident()}
    assert caplog.text.count("no thread could be started") == 1
    crew.close(PATIENCE)


def test_who_cannot_be_replaced_keeps_the_lead_and_is_replaced_once_there_is_a_thread(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    system = NoThreads(monkeypatch)

    def hang(data: object, start: int, end: int) -> int:
        if end == 1:
            eventually(lambda: "no thread could be started" in caplog.text)
            system.refusing = False
        assert gate.wait(PATIENCE)
        return end

    datasets: list[Any] = []
    over = threading.Event()

    def loop() -> Ticks:
        datasets.append((yield Tick(None, 0, 1)))
        datasets.append((yield Tick(None, 1, 2)))
        over.set()

    with started(ThreadsExecutor(), hang, length, task_timeout=0.02) as crew:
        assert isinstance(crew, LeadingCrew)
        with beside(lambda: crew.drive(loop())):
            assert over.wait(PATIENCE)
            gate.set()
    for dataset in datasets:
        assert type(dataset.errors["hang"]) is TaskTimeout


def test_failed_keeps_the_task_s_own_part_of_the_traceback() -> None:
    with pytest.raises(LookupError) as caught:
        fail("it", 0, 1)
    error = failed("fail", Window(0, 1), caught.value)
    assert error.__cause__ is caught.value
    assert caught.value.__traceback__ is not None
    assert caught.value.__traceback__.tb_frame.f_code.co_name == "fail"


def test_a_crew_that_lacks_a_method_is_refused_when_its_runner_is_made() -> None:
    class Old:
        def drive(self, ticks: Any) -> None: ...
        def open(self) -> None: ...

    class OldExecutor:
        def check(self, tasks: object) -> None: ...
        def start(self, tasks: object, **_: object) -> Any:
            return Old()

    config = RunnerConfig(executor=OldExecutor())
    context, _, data = ContextBuilder(list[int]).with_task(Task(thread)).with_config(config).build()
    with pytest.raises(ConfigError, match=r"Old, which the executor has started, has no run\(\)"):
        Runner(context)
    pipeline = Pipeline()
    pipeline.source([(0, 1)], data, lambda values, value: values.append(value))
    pipeline.stage("a", [Task(thread)], data, config=config)
    with pytest.raises(ConfigError, match=r"has no run\(\): a crew has open\(\), run\(tick\), "):
        list(pipeline.replay())


@pytest.mark.parametrize("task_timeout", [None, 0.05])
def test_a_leader_of_brief_ticks_is_looked_at_less_and_less_often_and_in_time(
    monkeypatch: pytest.MonkeyPatch, task_timeout: float | None
) -> None:
    now = 0.0
    unwatched = Mock(asleep=False)  # the process's own watch would look in between
    monkeypatch.setattr(_crew, "watch", lambda: unwatched)
    monkeypatch.setattr(_crew, "clock", lambda: now)
    pauses: list[float | None] = []

    def glance(data: object, start: int, end: int) -> None:
        pauses.append(crew.look())

    tasks: list[Task[Any, Any]] = [Task(glance), Task(length)]
    crew = _crew.ThreadsCrew(tasks, "runner", task_timeout, 2)
    try:
        for end in range(1, 7):
            crew.run(Tick("data", end - 1, end))
            now += 0.001
        longest = 0.08 if task_timeout is None else task_timeout
        assert pauses == [min(longest, 0.01 * 2**tick) for tick in range(4)] + [longest] * 2

        assert crew.look() is None, "nothing is in hand"
        crew.run(Tick("data", 6, 7))
        assert pauses[-1] == 0.01, "and it begins anew"
    finally:
        crew.close(5.0)
