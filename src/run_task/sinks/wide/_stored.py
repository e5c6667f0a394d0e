"""Rows of a wide table as results again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from run_task.sinks._protocol import Row
from run_task.sinks.encoding._tag import Types
from run_task.sinks.wide._errors import GONE, read_error
from run_task.sinks.wide._kinds import restored
from run_task.sinks.wide._schema import WideColumn, WideSchema
from run_task.sinks.wide._shapes import Shape


class StoredRow(NamedTuple):
    """A row of a wide table.

    :param start: of its window, in the table's unit
    :param end: of its window
    :param key: the key; None: there is none
    :param number: which row of a table it is; None: of none
    :param values: of the columns of results, in the schema's order
    :param error: the cell of the column ``error``
    """

    start: int
    end: int
    key: Any
    number: int | None
    values: Sequence[Any]
    error: str | None


class Cells(NamedTuple):
    """What the columns of a task have of one result.

    :param shape: how it became columns
    :param columns: those of the task
    :param rows: what each has; several of a table
    """

    shape: Shape
    columns: Sequence[WideColumn]
    rows: Sequence[Sequence[Any]]

    @property
    def has_any(self) -> bool:
        """Whether there is anything in the columns."""
        return any(cell is not None for row in self.rows for cell in row)

    def value(self, types: Types) -> Any:
        """The result: of one with fields a dict of them, of a table a dict of lists.

        :param types: of the reader's, by the names under which they are stored
        :raises UndecodableError: if what is there is not of its column
        """
        rows = [
            [restored(column.kind, cell, types) for column, cell in zip(self.columns, row)]
            for row in self.rows
        ]
        names = [column.field for column in self.columns]
        if self.shape is Shape.TABLE:
            return dict(zip(names, map(list, zip(*rows)))) if rows else None
        if not rows or all(cell is None for cell in rows[0]):
            return None
        return rows[0][0] if self.shape is Shape.SCALAR else dict(zip(names, rows[0]))


def results(schema: WideSchema, rows: Iterable[StoredRow]) -> Iterator[Row]:
    """The results that rows hold; their values are :class:`Cells`.

    :param rows: those of one window one after another, and of it, those of one key
    """
    places = {name: place for place, name in enumerate(schema.columns)}
    of_tasks = schema.of_tasks()
    there = (row for row in rows if row.error != GONE)
    for (start, end), window in groupby(there, lambda row: row[:2]):
        where = schema.pipeline, schema.stage, start, end
        groups = [(key, list(group)) for key, group in groupby(window, lambda row: row.key)]
        of_all = {key: read_error(group[0].error) for key, group in groups if key is None}
        failed: Mapping[str, str] = {}
        if schema.by is not None and of_all:
            failed = of_all[None].tasks
        for key, group in groups:
            if key is None and schema.by is not None:
                continue
            cells_told = [read_error(row.error) for row in group]
            told = cells_told[0]
            more = schema.unit, "" if key is None else str(key)
            found = [(row.number, list(row.values)) for row in group]
            for (_, values), of_row in zip(found, cells_told):
                for name, number in of_row.numbers.items():
                    if name in places:
                        values[places[name]] = number
            for task, columns in of_tasks.items():
                if task in told.tasks or task in failed:
                    continue
                shape = schema.shapes[task]
                cells = [
                    [values[places[column.name]] for column in columns]
                    for number, values in found
                    if shape is not Shape.TABLE or number is not None
                ]
                yield Row(*where, task, Cells(shape, columns, cells), None, *more)
            for task, error in told.tasks.items():
                yield Row(*where, task, None, error, *more)
        for task, error in failed.items():
            yield Row(*where, task, None, error, schema.unit)
