"""What most windows of a stage are like, which are then not looked at value by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from run_task.sinks._protocol import Result
from run_task.sinks._record import WindowKey
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._record import WideRecord
from run_task.sinks.wide._schema import WideSchema
from run_task.sinks.wide._times import FIRST_NS, LAST_NS
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet
from run_task.time._interval import TimeUnit

_USUAL: Final[Mapping[WideKind | None, type]] = {WideKind.FLOAT: float, WideKind.BOOL: bool}


class UsualWindow(NamedTuple):
    """What most windows of a stage without keys are like: tasks that all have a number or bool, and
    each the type of its column.

    :param of: the pipeline, the stage and the bucket
    :param unit: the unit of the windows
    :param first: the earliest time that a window may have
    :param last: the latest one
    :param tasks: the tasks, each called as its column
    :param types: of their results
    """

    of: tuple[str, str, int]
    unit: TimeUnit
    first: int
    last: int
    tasks: list[str]
    types: list[type]

    @classmethod
    def like(cls, schema: WideSchema, dataset: AnyDataSet, finest_ns: int) -> UsualWindow | None:
        """What windows like one are like; None: those are none that are usual."""
        if schema.by is not None or schema.table_task is not None or not dataset:
            return None
        tasks, columns = list(dataset), schema.columns
        kinds = [columns[task].kind if task in columns else None for task in tasks]
        if schema.unit.nanos % finest_ns or not all(kind in _USUAL for kind in kinds):
            return None
        nanos = schema.unit.nanos
        return cls(
            (schema.pipeline, schema.stage, 0),
            schema.unit,
            -(-FIRST_NS // nanos),
            LAST_NS // nanos,
            tasks,
            [_USUAL[kind] for kind in kinds if kind is not None],
        )

    def record(self, result: Result) -> WideRecord | None:
        """A result as a row; None: it is not as most are."""
        dataset: Any = result.dataset
        values: dict[str, Any] = dataset.to_dict() if dataset.__class__ is DataSet else {}
        start, end = result.window
        if (
            list(values) != self.tasks
            or list(map(type, values.values())) != self.types
            or (result.pipeline, result.stage, result.bucket) != self.of
            or result.unit is not self.unit
            or not (self.first <= start <= self.last and self.first <= end <= self.last)
            or dataset.errors
            or dataset.behind
        ):
            return None
        key = WindowKey(*self.of[:2], start, end, 0)
        return WideRecord(
            key, self.unit.value, 1, None, None, dict(zip(values, zip(values.values()))), None
        )
