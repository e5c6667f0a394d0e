"""Results in a table of a database, a row a window and key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from run_task._window import Window
from run_task.errors import ConfigError, SinkError
from run_task.sinks._database import columns_of
from run_task.sinks._protocol import Row
from run_task.sinks._record import FORMAT
from run_task.sinks._results_table import LENGTHS
from run_task.sinks._sql_parts import divided, make_way
from run_task.sinks._sql_place import SqlPlace
from run_task.sinks._wide_table import (
    REGISTRY,
    AddColumn,
    crowded,
    folded,
    registry_table,
    wide_table,
)
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.wide._errors import with_numbers
from run_task.sinks.wide._form import WideForm
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._record import WideRecord
from run_task.sinks.wide._schema import END, ROW, START, NameRules, WideSchema
from run_task.sinks.wide._stored import StoredRow, results
from run_task.time._epoch import EPOCH, nanos_since_epoch
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Index, Table

_FINEST_NS: Final = 1_000
_MYSQL: Final = ("mysql", "mariadb")
_LONGEST_NAMES: Final = {"mysql": 64, "mariadb": 64}
"""How long names of columns are where SQLAlchemy has the length of others."""

_LOCKING: Final = ("postgresql", *_MYSQL, "oracle")
"""Databases with locks of rows; the others let one write at a time, or tell that two did."""

_WITHOUT_NAN: Final = ("sqlite",)
_WITHOUT_NONFINITE: Final = (*_MYSQL, "mssql")


class WideSql(WideForm):
    """A row a window and key.

    What the table is of, and what its columns hold, stands in another table, ``run_task_tables``,
    in a row for each: so a table of somebody else is known by being none of those.

    :param place: where the table is
    :param encode: makes of a value that has no form in JSON another that has one
    :raises ConfigError: if the table is one of something else, or of another layout
    """

    def __init__(self, place: SqlPlace, encode: Fallback | None) -> None:
        self._place = place
        database, self._engine, self._limits, self._name = place
        dialect = self._engine.dialect
        self._where = database.where
        self._dialect = dialect.name
        self._longest_name = _LONGEST_NAMES.get(self._dialect, dialect.max_identifier_length)
        self._registry = registry_table(self._limits)
        self._fitted: WideSchema | None = None
        """What the table in the database is like; None: it is not known to be there."""
        schema, taken = self._found()
        rules = NameRules(
            folded=self._folded,
            problem=self._name_problem,
            crowded=self._crowded,
            taken=taken,
            text=self._text_problem,
            key=self._key_problem,
        )
        super().__init__(self._where, encode, rules, _FINEST_NS)
        self._table.schema = schema
        self._open_registry()

    def _found(self) -> tuple[WideSchema | None, frozenset[str]]:
        """What is known of the table, and which columns somebody has added to it.

        :raises ConfigError: if it is one of something else
        """
        from sqlalchemy import inspect

        if self._name == REGISTRY:
            raise ConfigError(f"{self._where}: this tells of other tables: give another table=")
        is_there = inspect(self._engine).has_table(self._name)
        with self._engine.connect() as connection:
            has_registry = inspect(self._engine).has_table(REGISTRY)
            if has_registry and not {"table_name", "description"}.issubset(
                columns_of(connection, self._registry)
            ):
                raise ConfigError(
                    f"{self._where}: table {REGISTRY!r}, which tells of tables like this, is one "
                    f"of something else: rename that, or take another database"
                )
            schema = self._registered(connection) if has_registry else None
            if not is_there:
                return None, frozenset()  # also if it was, and was dropped
            columns = columns_of(connection, self._bare())
            if schema is None or not {START, END}.issubset(columns):
                also = (
                    "of layout LONG"
                    if {"format", "json"}.issubset(columns)
                    else "of something else"
                )
                raise ConfigError(f"{self._where}: this table is one {also}: give another table=")
        self._fitted = schema if set(schema.names).issubset(columns) else None
        return schema, frozenset(columns) - set(schema.names)

    def _bare(self) -> Table:
        from sqlalchemy import MetaData, Table
        from sqlalchemy.sql.elements import quoted_name

        return Table(quoted_name(self._name, quote=self._dialect != "oracle"), MetaData())

    def _registered(self, connection: Connection) -> WideSchema | None:
        """What the registry tells of the table; None: nothing.

        :raises ConfigError: if it was written by another version
        """
        from sqlalchemy import select

        of = self._registry.c
        query = select(of.description).where(of.table_name == self._name)
        told: str | None = connection.execute(query).scalar()
        if told is None:
            return None
        try:
            return WideSchema.of_json(json.loads(told))
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{self._where}: what {REGISTRY!r} tells of it is of another version of run-task "
                f"than this, which knows format {FORMAT}: {error}"
            ) from None

    def _open_registry(self) -> None:
        from sqlalchemy import delete, false, inspect
        from sqlalchemy.exc import DBAPIError

        if not inspect(self._engine).has_table(REGISTRY):
            try:
                self._registry.create(self._engine, checkfirst=False)
            except DBAPIError:  # another program has made it meanwhile, or it cannot be made
                if not inspect(self._engine).has_table(REGISTRY):
                    raise
        with self._engine.begin() as connection:
            # Shows now whether one may write.
            connection.execute(delete(self._registry).where(false()))

    def _folded(self, name: str) -> str:
        return folded(name, self._dialect)

    def _crowded(self, kinds: Sequence[WideKind]) -> str | None:
        return crowded(kinds, self._dialect)

    def _name_problem(self, name: str) -> str | None:
        length = len(name) if self._dialect in _MYSQL else len(name.encode())
        if length > self._longest_name:
            return f"is longer than the {self._longest_name} that this database takes: rename it"
        if not self._limits.holds(name) or (self._dialect in _MYSQL and max(name) > "\uffff"):
            return "has no form in this database's encoding: rename it"
        if self._dialect == "oracle" and '"' in name:
            return "has quotation marks, which Oracle does not take: rename it"
        return None

    def _text_problem(self, text: str) -> str | None:
        if len(text) <= self._limits.longest and self._limits.holds(text):
            return None
        return f"a text of {len(text)} characters is one that this database cannot hold"

    def _key_problem(self, key: str) -> str | None:
        if len(key) > LENGTHS["key"]:
            return f"has {len(key)} characters, and a table holds {LENGTHS['key']}"
        return self._text_problem(key)

    def prepare(self) -> None:
        """See to it that the table is there, with all of its columns.

        :raises SinkError: if another program has made other columns meanwhile, or something else
            has the name of one of its indexes
        """
        from sqlalchemy.exc import DBAPIError

        schema, fitted = self._table.schema, self._fitted
        if schema is None or schema is fitted:
            return
        if fitted is not None and schema == fitted and schema.names == fitted.names:
            self._fitted = schema
            return
        with self._engine.begin() as connection:
            schema = self._with_others(connection, schema)
        # What is made is told first, so that what a crash leaves of it is known for the sink's own.
        try:
            with self._engine.begin() as connection:
                self._make(connection, schema)
        except DBAPIError:
            if owner := self._owner_of(index.name for index in self._table_of(schema).indexes):
                raise SinkError(f"{self._where}: {owner}") from None
            raise
        self._table.schema = self._fitted = schema

    def _owner_of(self, names: Iterable[Any]) -> str | None:
        """Who else has the name of an index that the table is to have; None: nobody is known."""
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        if self._dialect == "duckdb":
            return None  # its driver tells of no indexes
        wanted = set(map(str, names))
        cure = f"rename that, or give another table= than {self._name!r}"
        inspector = inspect(self._engine)
        with suppress(DBAPIError, NotImplementedError):  # where a database does not tell it
            others = [name for name in inspector.get_table_names() if name != self._name]
            for name in others:
                found = {str(index["name"]) for index in inspector.get_indexes(name)} & wanted
                if found:
                    return (
                        f"its index {found.pop()!r} has the name of one of table {name!r}: {cure}"
                    )
            if found := wanted.intersection([*others, *inspector.get_view_names()]):
                return f"its index {found.pop()!r} has the name of a table: {cure}"
        return None

    def _with_others(self, connection: Connection, schema: WideSchema) -> WideSchema:
        """Tell the registry of the table, with what other programs have told of it."""
        from sqlalchemy import delete, insert, inspect

        try:
            there = self._registered(connection)
        except ConfigError as error:
            raise SinkError(str(error)) from None
        if there is not None and inspect(connection).has_table(self._name):
            if problem := self._table.misfit(there.pipeline, there.stage, there.unit, there.by):
                raise SinkError(f"{self._where}: another sink has made it: {problem}")
            for name, column in there.columns.items():
                if schema.columns.get(name, column) != column:
                    raise SinkError(
                        f"{self._where}: another program has made column {name!r}, which holds "
                        f"{column.kind.value}, and here it is {schema.columns[name].kind.value}"
                    )
            if schema.key_kind not in (None, there.key_kind):
                raise SinkError(f"{self._where}: another program has made it with other keys")
            schema = there.with_(schema.shapes, schema.columns.values())
        told = json.dumps(schema.to_json())
        of = self._registry.c
        connection.execute(delete(self._registry).where(of.table_name == self._name))
        connection.execute(insert(self._registry).values(table_name=self._name, description=told))
        return schema

    def _make(self, connection: Connection, schema: WideSchema) -> None:
        from sqlalchemy import inspect

        table = self._table_of(schema)
        if not inspect(connection).has_table(self._name):
            table.create(connection, checkfirst=False)
            return
        there = set(columns_of(connection, self._bare()))
        if not {START, END}.issubset(there):
            raise SinkError(f"{self._where}: another program has made a table of that name")
        missing = [column for name, column in zip(schema.names, table.columns) if name not in there]
        renewed = [index for index in table.indexes if index.unique] if ROW not in there else []
        if schema.table_task is None:
            renewed = []
        for index in renewed:
            index.drop(connection, checkfirst=False)
        for column in missing:
            connection.execute(AddColumn(column))
        made = set(renewed) if self._dialect == "duckdb" else self._missing(connection, table)
        for index in made:
            index.create(connection, checkfirst=False)

    def _missing(self, connection: Connection, table: Table) -> set[Index]:
        """The indexes that are not there: where a table and its indexes are not made as one, a
        crash leaves a table without."""
        from sqlalchemy import inspect

        there = {index["name"] for index in inspect(connection).get_indexes(self._name)}
        return {index for index in table.indexes if str(index.name) not in there}

    def _table_of(self, schema: WideSchema) -> Table:
        return wide_table(self._name, schema, self._limits, self._dialect, self._longest_name)

    def keep(self, windows: Sequence[WideRecord], connection: Connection) -> None:
        """Put windows into the place of those that are there."""
        from sqlalchemy import and_, bindparam, delete, insert

        schema = self._fitted
        assert schema is not None
        whole, parts = divided(windows)
        self._lock(connection, shared=not whole)
        table = self._table_of(schema)
        unit = schema.unit
        place = {name: f"c{number}" for number, name in enumerate(schema.names)}
        times = [_moments(window, unit) for window in windows]
        replaced = delete(table).where(
            table.c[place[END]] == bindparam("to"), table.c[place[START]] == bindparam("from")
        )
        if whole:
            of_whole = [_moments(window, unit) for window in whole]
            connection.execute(replaced, [{"from": start, "to": end} for start, end in of_whole])
        for window in parts:
            start, end = _moments(window, unit)
            of_window = and_(table.c[place[END]] == end, table.c[place[START]] == start)
            assert schema.by is not None  # of a stage by key alone there are parts
            key = table.c[place[schema.by]]
            make_way(connection, table, of_window, key, window.keys or (), window.elsewhere)
        rows: list[dict[str, Any]] = []
        for window, (start, end) in zip(windows, times):
            rows += self._rows_of(schema, window, start, end)
        if rows:
            names = place.values()
            connection.execute(insert(table), [dict(zip(names, row)) for row in rows])

    def _lock(self, connection: Connection, *, shared: bool) -> None:
        """Let others wait who write to the table: two that put a window into its place at one time
        would both find none there.

        :param shared: whether others are let by that are of other keys, as those who write parts
        """
        from sqlalchemy import select

        if self._dialect in _LOCKING:
            of = self._registry.c
            query = select(of.table_name).where(of.table_name == self._name)
            connection.execute(query.with_for_update(read=shared))

    def _rows_of(
        self, schema: WideSchema, window: WideRecord, start: datetime, end: datetime
    ) -> Iterator[Any]:
        height = window.height
        empty = [None] * height
        errors = window.errors or empty
        columns: list[Sequence[Any]] = [[start] * height, [end] * height]
        if schema.by is not None:
            columns.append(window.keys or empty)
        if schema.table_task is not None:
            columns.append(window.numbers or empty)
        told: dict[int, list[tuple[str, float]]] = {}
        for name, column in schema.columns.items():
            values: Sequence[Any] = window.columns.get(name, empty)
            if column.kind is WideKind.FLOAT and not all(map(self._is_number, values)):
                for place, value in enumerate(values):
                    if not self._is_number(value):
                        told.setdefault(place, []).append((name, value))
                values = [value if self._is_number(value) else None for value in values]
            columns.append(values)
        if told:
            errors = [
                with_numbers(cell, told[place]) if place in told else cell
                for place, cell in enumerate(errors)
            ]
        columns.append(list(map(self._limits.fitting, errors)))
        return zip(*columns)

    def _is_number(self, value: float | None) -> bool:
        """Whether the database has a number, or it is none."""
        if value is None:
            return True
        if self._dialect in _WITHOUT_NAN:
            return value == value
        return self._dialect not in _WITHOUT_NONFINITE or math.isfinite(value)

    def last(self, pipeline: str, stage: str) -> int | None:
        """The end of the last window there is."""
        from sqlalchemy import func, select

        schema = self._fitted
        if schema is None or (pipeline, stage) != (schema.pipeline, schema.stage):
            return None
        table = self._table_of(schema)
        query = select(func.max(table.c[f"c{schema.names.index(END)}"]))
        with self._place.reading() as connection:
            end: datetime | None = connection.execute(query).scalar()
        return None if end is None else nanos_since_epoch(end) // schema.unit.nanos

    def unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        """The unit of the windows; None: there are none."""
        schema = self._fitted
        if schema is None or self.last(pipeline, stage) is None:
            return None
        return schema.unit

    def rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        """The rows there are."""
        schema = self._fitted
        if schema is not None and pipeline == schema.pipeline and stage in (None, schema.stage):
            yield from results(schema, self._stored(schema, None, None))

    def windows(
        self, pipeline: str, stage: str, after: int | None, before: int | None
    ) -> Iterator[Window]:
        """The windows there are that end after a time and begin before another."""
        schema = self._fitted
        if schema is not None and (pipeline, stage) == (schema.pipeline, schema.stage):
            for row in results(schema, self._stored(schema, after, before)):
                yield Window(row.start, row.end)

    def _stored(
        self, schema: WideSchema, after: int | None, before: int | None
    ) -> Iterator[StoredRow]:
        """
        :param after: only of windows that end after this; None: of all
        :param before: only of windows that begin before this
        """
        from sqlalchemy import select

        table = self._table_of(schema)
        place = {name: f"c{number}" for number, name in enumerate(schema.names)}
        order = [END, START]
        order += [name for name in (schema.by, ROW) if name is not None and name in place]
        query = select(table).order_by(*(table.c[place[name]] for name in order))
        if after is not None:
            query = query.where(table.c[place[END]] > _bound(after, schema.unit))
        if before is not None:
            query = query.where(table.c[place[START]] < _bound(before, schema.unit))
        nanos = schema.unit.nanos
        first = 2 + (schema.by is not None) + (schema.table_task is not None)
        with (
            self._place.reading() as connection,
            connection.execution_options(yield_per=1_024).execute(query) as found,
        ):
            for row in found:
                cells: Sequence[Any] = row
                start, end = (nanos_since_epoch(cell) // nanos for cell in cells[:2])
                key = None if schema.by is None else cells[2]
                number = None if schema.table_task is None else cells[first - 1]
                yield StoredRow(start, end, key, number, cells[first:-1], cells[-1])


def _bound(time: int, unit: TimeUnit) -> datetime:
    """A time; beyond what a calendar has, the last or the first of that."""
    try:
        return _moment(time, unit)
    except OverflowError:
        last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
        return last if time > 0 else first


def _moments(window: WideRecord, unit: TimeUnit) -> tuple[datetime, datetime]:
    """Where a window starts and ends."""
    return _moment(window.key.start, unit), _moment(window.key.end, unit)


def _moment(time: int, unit: TimeUnit) -> datetime:
    return EPOCH + timedelta(microseconds=time * unit.nanos // 1_000)
