"""Results in an SQL database."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from run_task.errors import ConfigError, RunTaskError, SinkError
from run_task.sinks._base import Durable
from run_task.sinks._database import Database, keep_a_write_ahead_log
from run_task.sinks._older import OlderWindow, older, table_windows
from run_task.sinks._protocol import Row
from run_task.sinks._record import FORMAT, WindowRecord, restored, unit_of
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_ATTEMPTS: Final = 3
"""How often a transaction is tried that another one was in the way of."""

_OLDER_COLUMNS: Final = (
    *("pipeline", "stage", "window_start", "window_end", "task", "error", "value", "json"),
)
"""Those that a table of format 1 has, too."""


_READ: Final = (
    *("pipeline", "stage", "window_start", "window_end", "task", "value", "json"),
    *("error", "unit", "key", "revision", "bucket"),
)


class SqlSink(Durable):
    """Writes to a table of an SQL database: SQLite, PostgreSQL, MariaDB, MySQL, or another one that
    SQLAlchemy knows.

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
        self._database = Database(database, "SqlSink")
        super().__init__(self._database.where, encode, types)
        self._codec = "utf-8"
        self._longest = math.inf
        self._engine: Engine = self._database.engine()
        try:
            with self._talking(ConfigError, "cannot be opened"):
                self._table = self._opened(table)
        except BaseException:
            self._engine.dispose()
            raise

    def begin(self, pipeline: str) -> None:
        """Say whose results come now. Before the first write.

        :param pipeline: the pipeline's name, a part of each key
        :raises ConfigError: if it is not a text that the database can hold, or another pipeline
            writes to this sink
        """
        super().begin(pipeline)
        if problem := self._unfit("pipeline", pipeline):
            raise ConfigError(f"{self._where}: {problem}")

    def _opened(self, name: str) -> Table:
        """The table, which is made if it is not there."""
        from sqlalchemy import delete, false, inspect, select
        from sqlalchemy.exc import DBAPIError

        from run_task.sinks._results_table import results_table

        self._check_name(name)
        with self._engine.connect() as connection:
            table = results_table(name, self._prepared(connection))
        if not inspect(self._engine).has_table(name):
            try:
                table.create(self._engine, checkfirst=False)
            except DBAPIError:  # another program has made it meanwhile, or it cannot be made
                if not inspect(self._engine).has_table(name):
                    raise
        there = {column["name"] for column in inspect(self._engine).get_columns(name)}
        missing = {column.name for column in table.columns} - there
        if missing and there.issuperset(_OLDER_COLUMNS):
            raise older(f"{self._where}, table {name!r}")
        if missing:
            raise ConfigError(
                f"{self._where}: table {name!r} is one of something else, it has no "
                f"column {', '.join(map(repr, sorted(missing)))}: give another table="
            )
        with self._engine.begin() as connection:
            form = connection.execute(select(table.c.format).limit(1)).scalar()
            if form not in (None, FORMAT):
                raise ConfigError(
                    f"{self._where}: table {name!r} was written in format {form!r}, and this "
                    f"version of run-task knows {FORMAT}: give another table="
                )
            connection.execute(delete(table).where(false()))  # shows now whether one may write
        if self._database.is_sqlite:  # last, since a file of something else is to stay as it is
            keep_a_write_ahead_log(self._engine)
        return table

    def _check_name(self, name: Any) -> None:
        """Refuse what is no name of a table.

        :raises ConfigError: if it is none
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ConfigError(f"{self._where}: table={name!r}: it is a name that can be printed")
        longest = self._engine.dialect.max_identifier_length
        if len(name.encode()) > longest:  # PostgreSQL would cut it off there
            raise ConfigError(f"{self._where}: table={name!r}: it is longer than {longest} bytes")

    def _prepared(self, connection: Connection) -> str | None:
        """Learn what the database can hold; return how names are to be compared."""
        from sqlalchemy import text

        dialect: Any = connection.dialect
        if dialect.name == "postgresql":
            self._codec = _codec(str(connection.execute(text("SHOW server_encoding")).scalar()))
        elif dialect.name == "mssql":
            return "Latin1_General_100_BIN2"
        elif self._database.is_mysql:
            settings = "SELECT @@character_set_connection, @@max_allowed_packet"
            charset, longest = connection.execute(text(settings)).one()
            if charset != "utf8mb4":
                raise ConfigError(
                    f"{self._where}: a connection in {charset} cannot hold every text: write "
                    f"charset=utf8mb4 in the URL, or leave it out"
                )
            self._longest = int(longest) // 3  # in a statement, characters are escaped
            # By default, names are the same that differ in case, or by blanks at their ends.
            if dialect.is_mariadb:
                return "utf8mb4_nopad_bin"
            version = dialect.server_version_info
            return "utf8mb4_0900_bin" if version >= (8, 0, 17) else "utf8mb4_bin"
        return None

    def _check(self, window: WindowRecord) -> None:
        stage = window.key.stage
        problem = self._unfit("stage", stage)
        for task in window.tasks:
            problem = problem or self._unfit("task", task.task) or self._unfit("key", task.key)
            if task.text is not None and (
                len(task.text) > self._longest or not self._holds(task.text)
            ):
                problem = problem or (
                    f"task {task.task!r}: its result, of {len(task.text)} characters, is one that "
                    f"this database cannot hold"
                )
        if problem:
            raise SinkError(f"{self._where}: stage {stage!r}: {problem}")

    def _unfit(self, column: str, name: str) -> str | None:
        """Why a name cannot be stored; None if it can."""
        from run_task.sinks._results_table import LENGTHS

        if len(name) > LENGTHS[column]:
            return (
                f"{column} {name[:20]!r}... has {len(name)} characters, and a table holds "
                f"{LENGTHS[column]}: rename it"
            )
        if not self._holds(name):
            return f"{column} {name!r} has no form in this database's encoding: rename it"
        return None

    def _holds(self, text: str) -> bool:
        try:
            text.encode(self._codec)
        except UnicodeError:
            # In UTF-8, what is none is no name to begin with, and told as such.
            return self._codec == "utf-8"
        return True

    def _keep(self, windows: list[WindowRecord]) -> None:
        from sqlalchemy.exc import OperationalError

        rows = [dict(row) for window in windows for row in window.rows()]
        for row in rows:
            if row["error"] is not None:
                row["error"] = (
                    row["error"].encode(self._codec, "backslashreplace").decode(self._codec)
                )
            if self._database.is_mysql and row["value"] is not None:
                row["value"] = row["value"] if math.isfinite(row["value"]) else None
        with self._talking(SinkError, "cannot be written"):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._replace(windows, rows)
                    break
                except OperationalError as error:  # as a deadlock, of which one must give way
                    if error.connection_invalidated or attempt == _ATTEMPTS:
                        raise

    def _replace(self, windows: list[WindowRecord], rows: list[dict[str, Any]]) -> None:
        from sqlalchemy import bindparam, delete, insert

        table = self._table
        replaced = delete(table).where(
            table.c.pipeline == bindparam("of_pipeline"),
            table.c.stage == bindparam("of_stage"),
            table.c.window_end == bindparam("to"),
            table.c.window_start == bindparam("from"),
            table.c.bucket == bindparam("of_bucket"),
        )
        names = "of_pipeline", "of_stage", "from", "to", "of_bucket"
        with self._engine.begin() as connection:
            connection.execute(replaced, [dict(zip(names, window.key)) for window in windows])
            if rows:
                connection.execute(insert(table), rows)

    def _last(self, pipeline: str, stage: str) -> int | None:
        from sqlalchemy import func, select

        table = self._table
        query = select(func.max(table.c.window_end)).where(
            table.c.pipeline == pipeline, table.c.stage == stage
        )
        with self._talking(SinkError, "cannot be read"), self._engine.connect() as connection:
            end: int | None = connection.execute(query).scalar()
        return end

    def _unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        from sqlalchemy import select

        table = self._table
        query = (
            select(table.c.unit)
            .where(table.c.pipeline == pipeline, table.c.stage == stage)
            .order_by(table.c.window_end.desc())
            .limit(1)
        )
        with self._talking(SinkError, "cannot be read"), self._engine.connect() as connection:
            unit: str | None = connection.execute(query).scalar()
        return unit_of(unit)

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        from sqlalchemy import select

        columns = self._table.c
        query = (
            select(*(columns[name] for name in _READ))
            .where(columns.pipeline == pipeline)
            .order_by(
                *(columns[name] for name in ("stage", "window_end", "window_start", "bucket")),
                columns.position,
            )
        )
        if stage is not None:
            query = query.where(columns.stage == stage)
        with self._talking(SinkError, "cannot be read"), self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1_024).execute(query)
            for row in cast("Iterable[tuple[Any, ...]]", found):
                of, its_stage, start, end, task, number, beyond, error, unit = row[:9]
                value = restored(number, beyond, self._where)
                yield Row(of, its_stage, start, end, task, value, error, unit_of(unit), *row[9:])

    @contextmanager
    def _talking(self, kind: type[RunTaskError], what: str) -> Generator[None]:
        """Whatever a driver raises is told in the library's terms, and without secrets."""
        try:
            yield
            return
        except RunTaskError:
            raise
        except Exception as error:
            told = kind(f"{self._where}: {what}: {self._database.reason(error)}")
        raise told from None  # whatever the cause is, it could show the URL

    def _release(self) -> None:
        self._engine.dispose()


@contextmanager
def older_table(database: str, table: str) -> Generator[Iterator[OlderWindow] | None]:
    """The windows in a table of format 1; None if it is no such table.

    :raises ConfigError: if the database cannot be read
    """
    from sqlalchemy import MetaData, Table, inspect, select

    found = Database(database, "convert")
    engine = found.engine()
    problem = ""
    try:
        columns = [column["name"] for column in inspect(engine).get_columns(table)]
        if "format" in columns or not set(columns).issuperset(_OLDER_COLUMNS):
            yield None
            return
        stored = Table(table, MetaData(), autoload_with=engine).c
        order = ("pipeline", "stage", "window_end", "position")
        query = select(*(stored[name] for name in _OLDER_COLUMNS))
        query = query.order_by(*(stored[name] for name in order))
        with engine.connect() as connection:
            rows = connection.execution_options(yield_per=1_024).execute(query)
            yield table_windows(tuple(row) for row in rows)
    except RunTaskError:
        raise
    except Exception as error:
        problem = found.reason(error)
    finally:
        engine.dispose()
    if problem:
        raise ConfigError(f"{found.where}, table {table!r}: cannot be read: {problem}")


def has_table(database: str, table: str) -> bool:
    """Whether there is such a table.

    :raises ConfigError: if the database cannot be read
    """
    from sqlalchemy import inspect

    found = Database(database, "SqlSink")
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


def _codec(encoding: str) -> str:
    """Python's codec for an encoding of PostgreSQL's; that of ASCII if there is none."""
    names: Mapping[str, str] = {"SQL_ASCII": "utf-8", "UTF8": "utf-8"}
    name = names.get(encoding, encoding.replace("WIN", "cp") if "WIN" in encoding else encoding)
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"
