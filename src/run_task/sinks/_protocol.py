"""What a sink is: where the results of stages go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from run_task._window import Window
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._calendar import Interval
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
    the same, but for what is of keys in :attr:`elsewhere`.
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
    elsewhere: Collection[Any] | None = ()
    """Keys whose results others write to the same sink, so that what it holds of them stays; None:
    all keys that the DataSet does not have. Only a :class:`ShardedSink` is given such results, of a
    stage that was told ``sharded=True``; else there are none."""

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


@dataclass(frozen=True)
class ResultBatch:
    """What a stage without keys computed for many windows at once, by column. To iterate over it
    gives the same as a :class:`Result` for each window."""

    pipeline: str
    """The pipeline's name."""
    stage: str
    """The stage's name."""
    interval: Interval
    """The interval of the stage, in whose unit the times are."""
    starts: Sequence[int]
    """Where each window starts, in ascending order."""
    ends: Sequence[int]
    """Where each ends, in ascending order."""
    results: Mapping[str, Sequence[Any]]
    """By task, its result for each window. None has failed."""

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Result]:
        names = list(self.results)
        for start, end, values in zip(self.starts, self.ends, zip(*self.results.values())):
            dataset = DataSet(Window(start, end), dict(zip(names, values)), interval=self.interval)
            yield Result.of(self.pipeline, self.stage, dataset)


class StageOutput(NamedTuple):
    """What a stage gives, as its declaration says: what a sink is told before the first result."""

    pipeline: str
    """The pipeline's name."""
    stage: str
    """The stage's name."""
    unit: TimeUnit
    """The unit of the times of its windows."""
    by: str | None
    """The column of the key; None: there are no keys."""
    key: type | None
    """What a key is, ``str`` or ``int``; None: there are no keys."""
    tasks: Mapping[str, Any]
    """By task, what it returns, as an annotation says it: ``float | None``. A text is one that has
    no meaning where it stands, and ``inspect.Signature.empty`` says that there is none."""


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
            (:attr:`~run_task.PipelineStats.refused`) and logged, and the run goes on; a
            :class:`DurableSink` is given the window once more then, with nothing in it
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
class DirectSink(Sink, Protocol):
    """A sink whose ``write`` has done all there is to do once it returns, such as one that sends a
    message: ``flush`` adds nothing to that. So a result that was written is not written again if a
    later one fails.
    """

    @property
    def takes_at_once(self) -> bool:
        """Whether that is so; a sink that only sometimes does says so here."""
        ...


@runtime_checkable
class DurableSink(Sink, Protocol):
    """A sink whose rows are there after the program has ended, so that a pipeline can resume.

    A window that is written again replaces the one that is there, whole: rows of tasks that it
    no longer has are gone. One whose DataSet has no results and no errors takes it out, as where
    windows are computed again that there are no more.
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
        """The rows of this pipeline, each key once. For reading results: of a pipeline, only
        :meth:`~run_task.Pipeline.recompute` calls it.

        A stage's windows come in the order in which they were written, and those that were
        written again, in any.

        :param stage: of which stage; None: of all
        """
        ...


@runtime_checkable
class ShardedSink(DurableSink, Protocol):
    """A durable sink that several processes may write to at a time, each the results of some keys
    of a window, as ``stage.sink(sink, sharded=True)`` asks for in a run over shards.

    It follows :attr:`Result.elsewhere`: of a window that is written again, what it holds of the
    keys there stays.
    """

    def for_shards(self, output: StageOutput, /, *, other_machines: bool) -> Callable[[], Any]:
        """What opens another such sink of the same place, in the process of a shard. It is pickled.

        Called when a stage is told ``sharded=True``, and again before shards are started. In a
        shard, the sink that it gives is told :meth:`~DurableSink.begin` and, if it is a
        :class:`TypedSink`, what the stage gives; and each result that it is given to write is
        flushed at once, and is of all keys that the shard has of a window.

        :param output: what the stage gives
        :param other_machines: whether shards may be on other machines
        :raises ConfigError: if the results cannot be written so; the message names the cure
        """
        ...


@runtime_checkable
class TypedSink(Sink, Protocol):
    """A sink whose columns have types, and that is therefore told what stages give before the first
    of their results."""

    @property
    def is_of_one_stage(self) -> bool:
        """Whether it takes the results of one stage alone: a pipeline then gives it no other's."""
        ...

    def declare(self, output: StageOutput, /) -> None:
        """Say what a stage gives whose results come now.

        Called at the beginning of each run and replay, for each stage that writes to the sink,
        before its first result and, of a :class:`DurableSink`, after :meth:`~DurableSink.begin`;
        and again when a task is added while a pipeline runs, which may be between two writes of
        another thread.

        :param output: what it gives
        :raises ConfigError: if the sink holds no such results; then nothing is run, or added
        """
        ...


@runtime_checkable
class BulkSink(Sink, Protocol):
    """A sink that takes many results at once, by column, where a replay has them so."""

    def write_many(self, batch: ResultBatch, /) -> None:
        """Take what a stage computed for many windows.

        As :meth:`~Sink.write` for each of them, one after another: it is called once the caller of
        the replay has been given them, and before the next flush.

        :param batch: the results; what it holds is not to be changed
        :raises SinkError: if not all of them can be stored, or not by column. Nothing may have been
            kept then, and each is given to :meth:`~Sink.write`
        :raises Exception: as of :meth:`~Sink.write`
        """
        ...
