"""The results of many windows without keys that were computed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from run_task.tasks._dataset import DataSet


class WindowColumns(NamedTuple):
    """Results by column: of each window, all tasks have one.

    :param starts: where each window starts
    :param ends: where each ends
    :param results: by task, one for each window
    """

    starts: Sequence[int]
    ends: Sequence[int]
    results: Mapping[str, Sequence[Any]]

    def some(self, begin: int, end: int) -> WindowColumns:
        """The windows of some positions."""
        if begin == 0 and end == len(self.ends):
            return self
        return WindowColumns(
            self.starts[begin:end],
            self.ends[begin:end],
            {task: results[begin:end] for task, results in self.results.items()},
        )


class WindowResults(NamedTuple):
    """What was computed of some windows.

    :param datasets: their DataSets, each made when it is asked for, so that few lie in memory
    :param columns: the same by column; None: some have failed
    """

    datasets: Iterator[DataSet[Any]]
    columns: WindowColumns | None
