"""A runner, and a pipeline, under a clock that moves when a test says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.threads import PATIENCE, eventually

from run_task import (
    ContextBuilder,
    DataSet,
    Overflow,
    Pipeline,
    Receiver,
    Runnable,
    Runner,
    RunnerConfig,
    Stage,
    SystemClock,
    TaskInterval,
    VirtualClock,
)
from run_task.data import RwLock
from run_task.sinks import Result
from run_task.sync._alarm import Alarm

SECOND = TaskInterval.seconds(1)


class RunnerBench:
    """A runner under a virtual clock.

    :param tasks: its tasks
    :param data: what they read; by default an object of which they need nothing
    :param capacity: how many DataSets may wait to be received
    :param overflow: what happens when more do
    :param settings: of its RunnerConfig
    """

    patience = PATIENCE
    """How many seconds the next DataSet is waited for."""

    def __init__(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        data: Any = None,
        *,
        interval: TaskInterval = SECOND,
        clock: VirtualClock | None = None,
        capacity: int = 1024,
        overflow: Overflow = Overflow.BLOCK,
        **settings: Any,
    ) -> None:
        self.data: Any = data if data is not None else RwLock[object](object())
        context, receiver, _ = (
            ContextBuilder(self.data)
            .with_tasks(tasks)
            .with_interval(interval)
            .with_config(RunnerConfig(**settings))
            .with_channel(capacity, overflow)
            .build()
        )
        self.receiver: Receiver[DataSet[Any]] = receiver
        self.clock = clock or VirtualClock()
        self.runner = Runner(context, clock=self.clock)

    def next(self) -> DataSet[Any]:
        """The next DataSet, a second later."""
        self.clock.advance(SECOND)
        return self.receiver.recv(self.patience)


class FailingClock:
    """This machine's clock, which cannot be read from some time on.

    :param method: which of its methods fails
    """

    def __init__(self, method: str = "monotonic_ns") -> None:
        self.fails = False
        self._method = method
        self._clock = SystemClock()

    def _try(self, method: str) -> None:
        if self.fails and method == self._method:
            raise OSError("the clock is gone")

    def time_ns(self) -> int:
        self._try("time_ns")
        return self._clock.time_ns()

    def monotonic_ns(self) -> int:
        self._try("monotonic_ns")
        return self._clock.monotonic_ns()

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        self._try("wait")
        self._clock.wait(alarm, until_ns)


class RecordingSink:
    """A sink that keeps what it is given, and can be waited for."""

    def __init__(self) -> None:
        self.results: list[tuple[str, Any]] = []
        self.flushed = 0
        self.closed = 0

    def write(self, result: Result, /) -> None:
        self.results.append((result.stage, result.dataset))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1

    def of(self, stage: str) -> list[DataSet[Any]]:
        return [dataset for name, dataset in list(self.results) if name == stage]

    def wait_for(self, stage: str, end: int) -> DataSet[Any]:
        def found() -> list[DataSet[Any]]:
            return [dataset for dataset in self.of(stage) if dataset.timestamp == end]

        eventually(found)
        return found()[0]


class PipelineBench:
    """A pipeline under a virtual clock, whose stages write to one sink.

    :param tasks: of stages that are given none
    """

    def __init__(self, tasks: Iterable[Any] = ()) -> None:
        self.tasks = tuple(tasks)
        self.clock = VirtualClock()
        self.pipeline = Pipeline("bench", clock=self.clock)
        self.sink = RecordingSink()

    def stage(
        self, name: str, data: Any, seconds: int = 1, tasks: Any = None, **config: Any
    ) -> Stage[Any, Any]:
        """Declare a stage whose results go to the sink.

        :param config: fields of its RunnerConfig
        """
        stage = self.pipeline.stage(
            name, tasks or self.tasks, data, TaskInterval.seconds(seconds), RunnerConfig(**config)
        )
        return stage.sink(self.sink)

    def advance(self, seconds: int = 1) -> None:
        self.clock.advance(TaskInterval.seconds(seconds))
