"""Results in an SQL database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SinkError
from run_task.sinks._base import Durable
from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowRecord, restored
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

_LOCK_TIMEOUT_S: Final = 30
"""How many seconds SQLite waits for another program's transaction."""


class SqlSink(Durable):
    """Writes to a table of an SQL database: SQLite, or any other that SQLAlchemy knows.

    ::

        sink = SqlSink("results.db")
        sink = SqlSink("postgresql+psycopg://user@host/database")

    The table's columns are ``pipeline``, ``stage``, ``window_start``, ``window_end``, ``task``,
    ``position`` (the task's, in its window), ``value``, ``json`` and ``error``; the primary key
    is ``(pipeline, stage, window_end, task)``. A number stands in ``value``, a double, to the
    last bit. What a double cannot hold stands in ``json``: texts, lists, an int's being one;
    also NaN, since in SQLite ``value`` is then NULL.

    **What survives.** A flush is one transaction, in which a window that is there already is
    deleted before it is written again. What was flushed survives a kill -9 and, as SQLite is set
    here (a write-ahead log, and ``synchronous=FULL``), a loss of power. What was not is lost.

    :param database: a path, for SQLite, or a URL of SQLAlchemy's
    :param table: the table's name; it is made if it is not there
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if there is no such database, or it cannot be written, or the table has
        other columns, or SQLAlchemy or the database's driver is not installed
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        *,
        table: str = "results",
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        need("sqlalchemy", "sql")
        from sqlalchemy import URL, create_engine, event, make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

        text = os.fspath(database)
        try:
            url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
        except (ArgumentError, ValueError) as error:
            raise ConfigError(f"SqlSink({_without_password(text)!r}): {error}") from None
        where = f"SqlSink({url.render_as_string()!r})"  # which hides the password
        super().__init__(where, encode, types)
        is_sqlite = url.get_backend_name() == "sqlite"
        if is_sqlite and url.database in (None, "", ":memory:"):
            raise ConfigError(f"{self._where}: a database in memory does not last: give a path")
        if is_sqlite and Path(url.database or "").is_dir():
            raise ConfigError(f"{self._where}: this is a folder: give the path of a file")
        try:
            connect_args = {"timeout": _LOCK_TIMEOUT_S} if is_sqlite else {}
            self._engine: Engine = create_engine(url, connect_args=connect_args, pool_pre_ping=True)
        except (ImportError, NoSuchModuleError) as error:
            raise ConfigError(
                f"{self._where}: the driver of this database is not installed: {error}"
            ) from error
        if is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
        self._table = _table(table)
        try:
            self._make_table()
        except (SQLAlchemyError, UnicodeError) as error:
            self._engine.dispose()
            raise ConfigError(f"{self._where}: cannot be opened: {_reason(error)}") from error
        except ConfigError:
            self._engine.dispose()
            raise

    def _make_table(self) -> None:
        from sqlalchemy import delete, false, inspect

        self._table.metadata.create_all(self._engine)
        there = {column["name"] for column in inspect(self._engine).get_columns(self._table.name)}
        wanted = {column.name for column in self._table.columns}
        if not wanted <= there:
            raise ConfigError(
                f"{self._where}: table {self._table.name!r} is one of something else, it has no "
                f"column {', '.join(map(repr, sorted(wanted - there)))}: give another table="
            )
        with self._engine.begin() as connection:  # so that it shows now whether one may write
            connection.execute(delete(self._table).where(false()))

    def _keep(self, windows: list[WindowRecord]) -> None:
        from sqlalchemy import bindparam, delete, insert
        from sqlalchemy.exc import SQLAlchemyError

        table = self._table
        replaced = delete(table).where(
            table.c.pipeline == bindparam("of_pipeline"),
            table.c.stage == bindparam("of_stage"),
            table.c.window_end == bindparam("at"),
        )
        keys = [
            {"of_pipeline": window.pipeline, "of_stage": window.stage, "at": window.end}
            for window in windows
        ]
        rows = [row for window in windows for row in window.rows()]
        try:
            with self._engine.begin() as connection:
                connection.execute(replaced, keys)
                if rows:
                    connection.execute(insert(table), rows)
        except SQLAlchemyError as error:
            raise SinkError(f"{self._where}: cannot be written: {_reason(error)}") from error

    def _last(self, pipeline: str, stage: str) -> int | None:
        from sqlalchemy import func, select

        table = self._table
        query = select(func.max(table.c.window_end)).where(
            table.c.pipeline == pipeline, table.c.stage == stage
        )
        with self._engine.connect() as connection:
            end: int | None = connection.execute(query).scalar()
        return end

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        from sqlalchemy import select

        columns = self._table.c
        query = (
            select(
                columns.pipeline,
                columns.stage,
                columns.window_start,
                columns.window_end,
                columns.task,
                columns.value,
                columns.json,
                columns.error,
            )
            .where(columns.pipeline == pipeline)
            .order_by(columns.stage, columns.window_end, columns.position)
        )
        if stage is not None:
            query = query.where(columns.stage == stage)
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1_024).execute(query):
                of, its_stage, start, end, task, number, beyond, error = row
                yield Row(of, its_stage, start, end, task, restored(number, beyond), error)

    def _release(self) -> None:
        self._engine.dispose()


def _table(name: str) -> Table:
    from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

    return Table(
        name,
        MetaData(),
        Column("pipeline", Text, primary_key=True),
        Column("stage", Text, primary_key=True),
        Column("window_end", BigInteger, primary_key=True),
        Column("task", Text, primary_key=True),
        Column("window_start", BigInteger, nullable=False),
        Column("position", Integer, nullable=False),
        Column("value", Double),
        Column("json", Text),
        Column("error", Text),
    )


def _set_up_sqlite(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _reason(error: Exception) -> str:
    """What the database said, without SQLAlchemy's wrapping."""
    return str(getattr(error, "orig", None) or error)


def _without_password(url: str) -> str:
    """A URL that SQLAlchemy cannot read, fit for a message."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}...{rest[rest.rindex('@') :]}" if "@" in rest else url
