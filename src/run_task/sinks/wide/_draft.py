"""What a window, or what a stage says, adds to a schema, for as long as it may be refused."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from run_task.sinks.wide._kinds import NOUNS as KINDS
from run_task.sinks.wide._kinds import UnfitError, WideKind, kind_of, plain
from run_task.sinks.wide._said import NOTHING_SAID, Said
from run_task.sinks.wide._schema import WideColumn, WideSchema, column_name
from run_task.sinks.wide._shapes import NOUNS, Shape, shape_of

_HELD: Final[Mapping[WideKind, frozenset[WideKind]]] = {
    WideKind.FLOAT: frozenset({WideKind.INT}),
    WideKind.JSON: frozenset(WideKind),
}
"""What else a column of some kind holds than that kind: all of it, or as much as nothing of it is
lost."""


class SchemaDraft:
    """A schema, and what comes to it.

    :param schema: what is known
    :param said: what tasks say of their results
    """

    def __init__(self, schema: WideSchema, said: Mapping[str, Said]) -> None:
        self.schema = schema
        self.shapes: dict[str, Shape] = {}
        self.columns: dict[str, WideColumn] = {}
        self.unknown: dict[tuple[str, str | None], None] = {}
        """Tasks and fields that have nothing but None, so that nobody knows what they hold."""
        self._said = said

    @property
    def made(self) -> WideSchema:
        """The schema with what comes to it."""
        return self.schema.with_(self.shapes, self.columns.values())

    def say(self, task: str, said: Said) -> None:
        """Add the columns that a task says it has.

        :raises UnfitError: if those that are there are others
        """
        if said.shape is None:
            return
        if said.kinds or said.shape is Shape.TABLE:
            self._take_shape(task, said.shape, f"it says that it returns {NOUNS[said.shape]}")
        for field, kind in said.kinds.items():
            with told_of(field):
                self._say_column(task, field, kind)

    def _say_column(self, task: str, field: str | None, kind: WideKind) -> None:
        column = self._column(task, field)
        if column is None:
            self._add(task, field, kind)
        elif column.kind is not kind and kind not in _HELD.get(column.kind, ()):
            raise UnfitError(
                f"it says that it returns {KINDS[kind]}, and its column {column.name!r} holds "
                f"{KINDS[column.kind]}: rename the task, or take another table"
            )

    def shape(self, task: str, values: Sequence[Any]) -> Shape | None:
        """The shape of the results of a task; None: all of them are None.

        :raises UnfitError: if it is another than it was
        """
        found = shape_of(values)
        if found is None:
            if task not in self.schema.shapes:
                self.unknown[task, None] = None
            return None
        self._take_shape(task, found, f"it is {NOUNS[found]}")
        return found

    def column(
        self, task: str, field: str | None, values: Sequence[Any]
    ) -> tuple[WideColumn | None, Sequence[Any]]:
        """The column of a field, and its values; None: there is none yet, and all are None.

        :raises UnfitError: if there is none that holds them
        """
        column = self._column(task, field)
        if column is not None:
            return column, values
        values = list(map(plain, values))
        kind = self._said.get(task, NOTHING_SAID).others or kind_of(values)
        if kind is None:
            self.unknown[task, field] = None
            return None, values
        return self._add(task, field, kind), values

    def _take_shape(self, task: str, shape: Shape, what: str) -> None:
        known = self.schema.shapes.get(task)
        if known is None:
            tables = {**self.schema.shapes, **self.shapes}
            other = next((t for t, of in tables.items() if of is Shape.TABLE and t != task), None)
            if shape is Shape.TABLE and other is not None:
                raise UnfitError(
                    f"it is a table, and task {other!r} of this stage gives one, too, with rows "
                    f"of its own: put one of them into a stage of its own"
                )
            self.shapes[task] = shape
        elif known is not shape:
            raise UnfitError(f"{what}, and was {NOUNS[known]} before")

    def _column(self, task: str, field: str | None) -> WideColumn | None:
        name = column_name(task, field)
        column = self.schema.columns.get(name) or self.columns.get(name)
        if column is not None and (column.task, column.field) != (task, field):
            theirs = "" if column.field is None else f", field {column.field!r}"
            raise UnfitError(
                f"its column {name!r} is that of task {column.task!r}{theirs}, too: rename one of "
                f"them"
            )
        return column

    def _add(self, task: str, field: str | None, kind: WideKind) -> WideColumn:
        name = column_name(task, field)
        column = self.columns[name] = WideColumn(name, task, field, kind)
        return column


@contextmanager
def told_of(field: str | None) -> Generator[None]:
    """Let a refusal name the field that is at fault."""
    try:
        yield
    except UnfitError as error:
        if field is None:
            raise
        raise UnfitError(f"field {field!r}: {error}", error.row) from error.__cause__
