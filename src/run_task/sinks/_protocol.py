"""What a sink is: where the results of stages go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from run_task._window import Window
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._interval import TimeUnit


class Row(NamedTuple):
    """One task's result for one window, as a durable sink holds it.

    ``(pipeline, stage, start, end, bucket, key, task)`` tells it from all others.
    """

    pipeline: str
    """The pipeline's name."""
    stage: str
    """The stage's name."""
    start: int
    """The window's start, in the unit of the stage's interval since the Unix epoch."""
    end: int
    """The window's end, in the same unit."""
    task: str
    """The task's name."""
    value: Any
    """What the task returned, in value and type; NumPy's numbers and texts come back as Python's,
    floats to the last bit, and dataclasses, NamedTuples and Enums as a :class:`Record` and an
    :class:`EnumMember`, unless the sink was given their types. None if the task failed."""
    error: str | None
    """Why the task failed; None if it did not."""
    unit: TimeUnit | None = None
    """The unit of ``start`` and ``end``; None: nobody told the sink."""
    key: str = ""
    """Of which key of the data it is, as text; empty: of a stage without keys, or of all keys."""
    revision: int = 0
    """How many times the window had been computed before: 0, as yet always."""
    bucket: int = 0
    """By which part of the keys it was computed: 0, as yet always."""


class Result(NamedTuple):
    """What a stage computed for one window: what a sink is given.

    All that a sink holds of ``(pipeline, stage, window, bucket)`` is replaced by a later result of
    the same.
    """

    pipeline: str
    """The pipeline's name."""
    stage: str
    """The stage's name."""
    window: Window
    """The window: start and end, in the unit of the stage's interval since the Unix epoch."""
    revision: int
    """How many times the window was computed before in this run: 0, as yet always."""
    dataset: DataSet[Any] | KeyedDataSet[Any, Any]
    """What the tasks gave; of a stage by key a :class:`~run_task.KeyedDataSet`. It is shared with
    other sinks and stages."""
    bucket: int = 0
    """Which part of the keys it is of: 0, as yet always."""

    @classmethod
    def of(
        cls, pipeline: str, stage: str, dataset: AnyDataSet, revision: int = 0, bucket: int = 0
    ) -> Result:
        """The result that a DataSet is, with its window."""
        return cls(pipeline, stage, dataset.window, revision, dataset, bucket)

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of the window's times; None: the DataSet does not know its interval."""
        interval = self.dataset.interval
        return None if interval is None else interval.unit


class Sink(Protocol):
    """Where the results of stages go.

    A live run calls its methods in one thread of the sink's own, and a replay in the thread that
    iterates over it. Where several replays, or a replay and a live run, have one sink, they may
    call it at the same time.
    """

    def write(self, result: Result, /) -> None:
        """Take what a stage computed for a window. It need not last before :meth:`flush`.

        Called once for each window, as soon as it is computed, and for each stage in the order of
        its windows; never after :meth:`close`. A window that was written before, by an earlier run
        or replay, is to be replaced, whole. The run waits for this method, live at the latest when
        1024 results wait.

        :param result: the result; what it holds is not to be changed, since others have it, too
        :raises SinkError: if this result cannot be stored, as one that the sink's format cannot
            hold. Nothing of the window may have been kept. It is counted
            (:attr:`~run_task.PipelineStats.refused`) and logged, and the run goes on
        :raises Exception: anything else says that the sink is of no more use: a live run ends, and
            raises it; a replay raises it
        """
        ...

    def flush(self) -> None:
        """Make all that was written last.

        Called a second after a write at the latest, at the end of a replay, also one that is left
        or fails, and before a live run closes the sink. It may be called with nothing written.

        :raises Exception: if that cannot be done, which ends the run: a live one calls
            :meth:`close` next, a replay nothing more
        """
        ...

    def close(self) -> None:
        """Flush, and let go of what is open.

        Called once by a live run, when all results are written, or the sink has raised; by a
        replay never, so that what it wrote can be read. It may be called again, and then does
        nothing.

        :raises Exception: if what was written cannot be made to last; the call that runs the
            pipeline raises it
        """
        ...


@runtime_checkable
class DurableSink(Sink, Protocol):
    """A sink whose rows are there after the program has ended, so that a pipeline can resume.

    A window that is written again replaces the one that is there, whole: rows of tasks that it
    no longer has are gone.
    """

    def begin(self, pipeline: str, /) -> None:
        """Say whose results come now.

        Called at the beginning of each run and replay, before the first write.

        :param pipeline: the pipeline's name, a part of each key
        :raises ConfigError: if the sink holds no results of such a pipeline; then nothing is run
        """
        ...

    def last(self, stage: str, /) -> int | None:
        """The end of the last window that the sink holds of a stage of this pipeline.

        Called after :meth:`begin`, when a pipeline resumes. What was written counts, flushed or
        not.

        :param stage: the name of the stage
        :return: the end, in the unit of the stage's interval; None: it holds none
        """
        ...

    def rows(self, stage: str | None = None, /) -> Iterator[Row]:
        """The rows of this pipeline, each key once. For reading results: no run calls it.

        A stage's windows come in the order in which they were written, and those that were
        written again, in any.

        :param stage: of which stage; None: of all
        """
        ...
