"""A declared task as a program may write one, apart from those of the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from run_task import ConfigError, TimeSeriesView
from run_task.tasks._declared import ColumnTypes, Failed, Plan, Segments

BATCHES: list[int] = []
"""How many segments each plan was asked for at once."""


@dataclass(frozen=True)
class Total:
    """The sum of a column over the rows of a window; refused where it is above a limit.

    :param column: the column
    :param limit: the limit
    """

    column: str
    limit: float = np.inf

    @property
    def name(self) -> str:
        return f"{self.column}_total"

    def run(self, data: TimeSeriesView, start: int, end: int) -> float | None:
        raise AssertionError("it is computed together with others")

    @property
    def planner(self) -> Any:
        return plan_totals


def plan_totals(tasks: Sequence[Any], columns: ColumnTypes) -> Plan:
    for task in tasks:
        if task.column not in columns:
            raise ConfigError(f"task {task.name!r}: there is no column {task.column!r}")
    return Totals(tasks)


class Totals:
    def __init__(self, tasks: Sequence[Total]) -> None:
        self._tasks = tasks

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        BATCHES.append(len(segments))
        return [[*self._totals(segments, task)] for task in self._tasks]

    def _totals(self, segments: Segments, task: Total) -> Any:
        values = segments.column(task.column)
        for start, end in zip(segments.starts.tolist(), segments.ends.tolist()):
            total = float(values[start:end].sum()) if end > start else None
            if total is not None and total > task.limit:
                yield Failed(OverflowError(f"{total} is above {task.limit}"))
            else:
                yield total


class Broken:
    """A declared task whose plan raises when it is computed.

    :param error: what it raises
    """

    name = "broken"

    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        self._error = error

    def run(self, data: TimeSeriesView, start: int, end: int) -> float:
        raise AssertionError("it is computed together with others")

    @property
    def planner(self) -> Any:
        return self._planned

    def _planned(self, tasks: Sequence[Any], columns: ColumnTypes) -> Plan:
        return self

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        raise self._error("of its own")
