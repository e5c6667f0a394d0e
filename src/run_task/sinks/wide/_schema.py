"""The columns of a wide table: of which stage they are, what each holds, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from run_task.observe._format import shown
from run_task.sinks._record import FORMAT, is_storable
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._shapes import Shape
from run_task.time._interval import TimeUnit

START: Final = "window_start"
END: Final = "window_end"
ROW: Final = "row"
ERROR: Final = "error"
OWN: Final = (START, END, ROW, ERROR)
"""The columns that each such table has, or may have, besides those of keys and results."""

LAYOUT: Final = "wide"


class WideColumn(NamedTuple):
    """A column of results.

    :param name: what it is called
    :param task: of which task it is
    :param field: of which field of what that returns, or column of the table; None: of all of it
    :param kind: what it holds
    """

    name: str
    task: str
    field: str | None
    kind: WideKind


def column_name(task: str, of_field: str | None) -> str:
    """What a column is called."""
    return task if of_field is None else f"{task}_{of_field}"


@dataclass(frozen=True)
class WideSchema:
    """What is known of a table. It does not change: a column more is a schema of its own.

    :param pipeline: whose results it holds
    :param stage: of which stage
    :param unit: of the times of its windows
    :param by: the column of the key; None: there are no keys
    :param key_kind: what that holds; None: there are no keys
    :param shapes: how what tasks return becomes columns, by task
    :param columns: the columns of results, by name
    """

    pipeline: str
    stage: str
    unit: TimeUnit
    by: str | None = None
    key_kind: WideKind | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict[str, Shape])
    columns: Mapping[str, WideColumn] = field(default_factory=dict[str, WideColumn])

    @property
    def table_task(self) -> str | None:
        """The task that returns tables; None: there is none."""
        tables = [task for task, shape in self.shapes.items() if shape is Shape.TABLE]
        return tables[0] if tables else None

    @property
    def names(self) -> list[str]:
        """All columns, in order."""
        key = [] if self.by is None else [self.by]
        row = [] if self.table_task is None else [ROW]
        return [START, END, *key, *row, *self.columns, ERROR]

    def of_tasks(self) -> dict[str, list[WideColumn]]:
        """The columns by task, in order of the tasks."""
        found: dict[str, list[WideColumn]] = {task: [] for task in self.shapes}
        for column in self.columns.values():
            found[column.task].append(column)
        return found

    def with_(self, shapes: Mapping[str, Shape], columns: Iterable[WideColumn]) -> WideSchema:
        """One with further tasks and columns."""
        more = {column.name: column for column in columns}
        return replace(self, shapes={**self.shapes, **shapes}, columns={**self.columns, **more})

    def to_json(self) -> dict[str, Any]:
        """It as what JSON has."""
        return {
            "format": FORMAT,
            "layout": LAYOUT,
            "pipeline": self.pipeline,
            "stage": self.stage,
            "unit": self.unit.value,
            "key": None
            if self.by is None or self.key_kind is None
            else [self.by, self.key_kind.value],
            "tasks": {task: shape.value for task, shape in self.shapes.items()},
            "columns": [[c.name, c.task, c.field, c.kind.value] for c in self.columns.values()],
        }

    @classmethod
    def of_json(cls, told: Any) -> WideSchema:
        """The schema that was told.

        :raises ValueError: if it is none
        """
        try:
            if told["format"] != FORMAT or told["layout"] != LAYOUT:
                raise ValueError(f"format {told['format']!r}, layout {told['layout']!r}")
            by, key_kind = told["key"] or (None, None)
            columns = [
                WideColumn(n, task, of, WideKind(kind)) for n, task, of, kind in told["columns"]
            ]
            return cls(
                str(told["pipeline"]),
                str(told["stage"]),
                TimeUnit(told["unit"]),
                by,
                None if key_kind is None else WideKind(key_kind),
                {task: Shape(shape) for task, shape in told["tasks"].items()},
                {column.name: column for column in columns},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def _same(name: str) -> str:
    return name


def _no_problem(_: object) -> str | None:
    return None


class NameRules(NamedTuple):
    """What a store has to say of the names of columns, and of how many there are.

    :param folded: gives the same text for names that the store takes for one
    :param problem: why a name cannot be one of a column there; None: it can
    :param crowded: why the columns of such kinds are too many; None: they are not
    :param taken: columns that somebody else has added
    :param reserved: what else the store has a column for
    :param text: why a text cannot stand there; None: it can
    :param key: why a text cannot be a key there; None: it can
    """

    folded: Callable[[str], str] = _same
    problem: Callable[[str], str | None] = _no_problem
    crowded: Callable[[Sequence[WideKind]], str | None] = _no_problem
    taken: frozenset[str] = frozenset()
    reserved: tuple[str, ...] = ()
    text: Callable[[str], str | None] = _no_problem
    key: Callable[[str], str | None] = _no_problem

    def unfit(self, schema: WideSchema, columns: Sequence[WideColumn]) -> str | None:
        """Why columns cannot be added to those there are; None: they can."""
        owners: dict[str, str] = {self.folded(name): "is the table's own" for name in OWN}
        owners |= {self.folded(name): "is the table's own" for name in self.reserved}
        owners |= {self.folded(name): "is one that somebody has added" for name in self.taken}
        if schema.by is not None:
            if self.folded(schema.by) in owners:
                return f"the key's column {schema.by!r} {owners[self.folded(schema.by)]}: rename it"
            if problem := self._name_problem(schema.by):
                return f"the key's column {shown(schema.by)!r} {problem}"
            owners[self.folded(schema.by)] = "is that of the key"
        for column in (*schema.columns.values(), *columns):
            whose = f"task {column.task!r}"
            if column.field is not None:
                whose = f"{whose}, field {column.field!r}"
            owner = owners.get(self.folded(column.name))
            if owner is not None:
                return f"{whose}: its column {column.name!r} {owner}: rename the task"
            if problem := self._name_problem(column.name):
                return f"{whose}: its column {shown(column.name)!r} {problem}"
            owners[self.folded(column.name)] = f"is that of {whose}, too, in this store"
        return self.crowded([column.kind for column in (*schema.columns.values(), *columns)])

    def _name_problem(self, name: str) -> str | None:
        if not name or name != name.strip() or not is_storable(name):
            return (
                "is no name that can be stored, which is a text without a zero that neither begins "
                "nor ends with a blank: rename the task"
            )
        return self.problem(name)
