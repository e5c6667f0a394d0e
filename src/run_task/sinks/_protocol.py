"""What a sink is: where the results of stages go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from run_task.tasks._dataset import DataSet


class Row(NamedTuple):
    """One task's result for one window, as a durable sink holds it.

    ``(pipeline, stage, end, task)`` is its key.
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
    """What the task returned, as far as JSON can tell: tuples and arrays come back as lists, keys
    as texts, and NumPy scalars as Python's. Floats come back to the last bit, also NaN and
    infinity. None if the task failed."""
    error: str | None
    """Why the task failed; None if it did not."""


class Sink(Protocol):
    """Where DataSets go.

    Its methods may be called from any thread, one at a time or several at once.
    """

    def write(self, stage: str, dataset: DataSet[Any], /) -> None:
        """Take the results of a window. It need not last before :meth:`flush`.

        :param stage: the name of the stage that they are of
        :param dataset: the results
        :raises SinkError: if a result cannot be stored; then nothing of the window is
        """
        ...

    def flush(self) -> None:
        """Make all that was written last."""
        ...

    def close(self) -> None:
        """Flush, and let go of what is open. Any number of times."""
        ...


@runtime_checkable
class DurableSink(Sink, Protocol):
    """A sink whose rows are there after the program has ended, so that a pipeline can resume.

    A window that is written again replaces the one that is there, whole: rows of tasks that it
    no longer has are gone.
    """

    def begin(self, pipeline: str, /) -> None:
        """Say whose results come now. Before the first write.

        :param pipeline: the pipeline's name, a part of each key
        """
        ...

    def last(self, stage: str, /) -> int | None:
        """The end of the last window that the sink holds of a stage of this pipeline.

        :param stage: the name of the stage
        :return: the end, in the unit of the stage's interval; None: it holds none
        """
        ...

    def rows(self, stage: str | None = None, /) -> Iterator[Row]:
        """The rows of this pipeline, each key once.

        A stage's windows come in the order in which they were written, and those that were
        written again, in any.

        :param stage: of which stage; None: of all
        """
        ...
