"""A sink in the process of a shard, which writes what the shard has of each window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from run_task.errors import SinkError
from run_task.sinks._protocol import DurableSink, Result, StageOutput, TypedSink
from run_task.tasks._keyed import KeyedDataSet


@dataclass(frozen=True)
class PartWriterOpener:
    """Opens a sink in a shard. It can be pickled.

    :param open_sink: opens it
    :param output: what the stage gives
    """

    open_sink: Callable[[], DurableSink]
    output: StageOutput

    def __call__(self) -> PartWriter:
        """The sink, opened.

        :raises Exception: if it cannot be
        """
        return PartWriter(self.open_sink(), self.output)


class PartWriter:
    """Writes what a shard has of windows.

    :param sink: where to
    :param output: what the stage gives
    :raises Exception: if the sink holds no such results
    """

    def __init__(self, sink: DurableSink, output: StageOutput) -> None:
        self._sink: Any = sink
        self._of = output.pipeline, output.stage
        try:
            sink.begin(output.pipeline)
            if isinstance(sink, TypedSink):
                sink.declare(output)
        except BaseException:
            self._sink.close()
            raise

    def write(self, dataset: KeyedDataSet[Any, Any]) -> str | None:
        """Make the results of some keys last. Why they cannot be stored; None: they last.

        :raises Exception: if it is not known whether they do
        """
        try:
            self._sink.write(Result.of(*self._of, dataset)._replace(elsewhere=None))
        except SinkError as error:
            return str(error)
        self._sink.flush()
        return None

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
