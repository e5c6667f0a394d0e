"""Results in an SQL database."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from run_task._window import Window
from run_task.errors import ConfigError, SinkError
from run_task.sinks._base import Durable, ResultForm
from run_task.sinks._database import Database, keep_a_write_ahead_log
from run_task.sinks._layout import Layout, check_layout
from run_task.sinks._protocol import Row, StageOutput
from run_task.sinks._sql_limits import limits_of
from run_task.sinks._sql_long import LongSql
from run_task.sinks._sql_place import SqlPlace
from run_task.sinks._sql_versions import VersionsTable
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_ATTEMPTS: Final = 6
"""How often a transaction is tried that another one was in the way of."""

_FIRST_WAIT_S: Final = 0.01
"""How many seconds to wait before the third attempt; twice as many before each further one."""

_IN_SHARDS: Final = ("begin", "declare", "write", "flush")
"""What a shard calls."""


class SqlForm(ResultForm, Protocol):
    """What stands in a table of a database, in one of the layouts."""

    def prepare(self) -> None:
        """See to it that there is a table for what was recorded."""
        ...

    def fix_columns(self, reason: str, /) -> None:
        """Take no further column from now on.

        :param reason: why there can be none, for messages
        """
        ...

    def not_in_parts(self, output: StageOutput, /) -> str | None:
        """Why several cannot write each a part of a window; None: they can."""
        ...

    def keep(self, windows: Any, connection: Connection, /) -> None:
        """Put windows into the place of those that are there."""
        ...

    def last(self, pipeline: str, stage: str, /) -> int | None:
        """The end of the last window there is."""
        ...

    def unit(self, pipeline: str, stage: str, /) -> TimeUnit | None:
        """The unit of the last window there is."""
        ...

    def rows(self, pipeline: str, stage: str | None, /) -> Iterator[Row]:
        """The rows there are, of all stages or of one."""
        ...

    def windows(
        self, pipeline: str, stage: str, after: int | None, before: int | None, /
    ) -> Iterator[Window]:
        """The windows there are of a stage that end after a time and begin before another."""
        ...


class SqlSink(Durable):
    """Writes to a table of an SQL database: SQLite, PostgreSQL, MariaDB, MySQL, DuckDB, or another
    one that SQLAlchemy knows.

    ::

        sink = SqlSink("results.db")
        sink = SqlSink("postgresql+psycopg://user@host/database")
        sink = SqlSink("mysql+pymysql://user@host/database")

    The table's columns are ``format`` (2), ``pipeline``, ``stage``, ``key``, ``bucket``,
    ``window_start``, ``window_end``, ``unit``, ``revision``, ``task``, ``position`` (the task's, in
    its window), ``value``, ``json`` and ``error``. The times are whole numbers of ``unit`` (``ns``,
    ``us``, ``ms``, ``s`` or ``m``) since the Unix epoch. A number stands in ``value``, a double, to
    the last bit. What a double cannot hold stands in ``json``: texts, lists, an int's being one;
    also NaN, and, where a database has no such double, infinity: ``value`` is then NULL.

    **What survives.** A flush is one transaction, in which a window that is there already is
    deleted before it is written again. What was flushed survives a kill -9 and, as SQLite is set
    here (a write-ahead log, and ``synchronous=FULL``), a loss of power. What was not is lost.
    Several programs may write to one table, and open it at the same time.

    :param database: a path, for SQLite, or a URL of SQLAlchemy's. No message shows what it has
        before the host and after the database's name
    :param table: the table's name; it is made if it is not there
    :param layout: how results are laid out. With ``Layout.WIDE``, the columns are ``window_start``
        and ``window_end`` (timestamps with a zone, in UTC), the key's if there is one, ``row`` if a
        task returns tables, a typed one a task or field, and ``error``; there is an index by
        window, and one by key and ``window_end``. What each such table is of stands in another one,
        ``run_task_tables``. A column that comes later is added
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if there is no such database, or it cannot be written, or the table has
        other columns, or SQLAlchemy or the database's driver is not installed
    """

    _form: SqlForm

    def __init__(
        self,
        database: str | os.PathLike[str],
        *,
        table: str = "results",
        layout: Layout = Layout.LONG,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        self._database = Database(database, "SqlSink", table)
        self._given = {"table": table, "layout": layout, "encode": encode, "types": types}
        wide = check_layout(layout, self._database.where) is Layout.WIDE
        self._engine: Engine = self._database.engine()
        try:
            with self._database.talking(ConfigError, "cannot be opened"):
                self._check_name(table)
                with self._engine.connect() as connection:
                    limits = limits_of(connection, self._database.where)
                place = SqlPlace(self._database, self._engine, limits, table)
                form: SqlForm
                if wide:
                    # It cannot be imported without SQLAlchemy, of which the engine has told.
                    from run_task.sinks._sql_wide import WideSql

                    form = WideSql(place, encode)
                else:
                    form = LongSql(place, encode)
                versions = VersionsTable(*place)
                # Last, since a file of something else is to stay as it is.
                if self._database.is_sqlite:
                    keep_a_write_ahead_log(self._engine)
            super().__init__(self._database.where, form, versions, types)
        finally:
            self._engine.dispose()  # a sink that is only declared holds no connection

    def for_shards(self, output: StageOutput, /, *, other_machines: bool) -> Callable[[], SqlSink]:
        """What opens this table in the process of a shard.

        :param output: what the stage gives
        :param other_machines: whether shards may be on other machines
        :raises ConfigError: if shards cannot write to it, each a part of a window; also if it is of
            a class that writes in its own way, and has no ``for_shards`` of its own
        """
        where, database = self._database.where, self._database
        if (own := type(self)).for_shards is SqlSink.for_shards:
            for name in _IN_SHARDS:
                if getattr(own, name) is not getattr(SqlSink, name) or name in vars(self):
                    raise ConfigError(
                        f"{where}: {own.__name__} has a {name}() of its own, which nobody would "
                        f"call in a shard, where a plain SqlSink is opened: give it a for_shards() "
                        f"that opens one like it there, or leave sharded=True out"
                    )
        if problem := self._form.not_in_parts(output):
            raise ConfigError(f"{where}: {problem}")
        url = database.url.render_as_string(hide_password=False)
        if not database.is_file:
            return partial(SqlSink._in_shard, url, self._given)
        if not database.is_sqlite:
            raise ConfigError(
                f"{where}: one process at a time can write to such a file: take another database"
            )
        if other_machines:
            raise ConfigError(
                f"{where}: this is a file of this machine, and shards may be on others: take a "
                f"database that all of them reach, such as PostgreSQL"
            )
        if not database.url.query:
            url = os.path.abspath(database.url.database or "")  # a shard may be in another folder
        return partial(SqlSink._in_shard, url, self._given)

    @classmethod
    def _in_shard(cls, database: str, given: dict[str, Any]) -> SqlSink:
        """It in a shard, which adds no columns, since each shard has other values."""
        sink = cls(database, **given)
        sink._form.fix_columns("a shard adds none")
        return sink

    def _check_name(self, name: Any) -> None:
        """Refuse what is no name of a table.

        :raises ConfigError: if it is none
        """
        where = self._database.where
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ConfigError(f"{where}: the name of a table is a text that can be printed")
        longest = self._engine.dialect.max_identifier_length
        if len(name.encode()) > longest:  # PostgreSQL would cut it off there
            raise ConfigError(f"{where}: the name of its table is longer than {longest} bytes")

    def _prepare(self) -> None:
        try:
            with self._database.talking(ConfigError, "cannot be written"):
                self._attempted(self._form.prepare)
        except SinkError as error:
            raise ConfigError(str(error)) from None

    def _keep(self, windows: list[Any]) -> None:
        if not windows:
            return

        def keep() -> None:
            self._form.prepare()
            with self._engine.begin() as connection:
                self._form.keep(windows, connection)

        with self._database.talking(SinkError, "cannot be written"):
            self._attempted(keep)

    def _attempted(self, change: Callable[[], None]) -> None:
        """Change the database, again if another transaction is in the way."""
        from sqlalchemy.exc import DBAPIError

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                change()
                return
            except DBAPIError as error:  # as a deadlock, of which one must give way
                if error.connection_invalidated or attempt == _ATTEMPTS:
                    raise
                if attempt > 1:
                    time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 2))

    def _last(self, pipeline: str, stage: str) -> int | None:
        return self._form.last(pipeline, stage)

    def _unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        return self._form.unit(pipeline, stage)

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        return self._form.rows(pipeline, stage)

    def _windows(
        self, pipeline: str, stage: str, after: int | None, before: int | None
    ) -> Iterator[Window]:
        return self._form.windows(pipeline, stage, after, before)

    def _release(self) -> None:
        self._engine.dispose()


def has_table(database: str, table: str) -> bool:
    """Whether there is such a table.

    :raises ConfigError: if the database cannot be read
    """
    from sqlalchemy import inspect

    found = Database(database, "SqlSink", table)
    if found.is_sqlite and not os.path.exists(found.url.database or ""):
        return False
    engine = found.engine()
    try:
        return bool(inspect(engine).has_table(table))
    except Exception as error:
        problem = found.reason(error)
    finally:
        engine.dispose()
    raise ConfigError(f"{found.where}: cannot be opened: {problem}")
