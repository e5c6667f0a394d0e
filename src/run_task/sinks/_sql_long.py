"""Results in a table of a database, a row a task, window and key."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from run_task._window import Window
from run_task.errors import ConfigError, RunTaskError, SinkError
from run_task.sinks._database import Database, columns_of
from run_task.sinks._older import OlderWindow, older, table_windows
from run_task.sinks._protocol import Row, StageOutput
from run_task.sinks._record import FORMAT, LongForm, WindowRecord, restored, unit_of
from run_task.sinks._sql_parts import divided, make_way
from run_task.sinks._sql_place import SqlPlace
from run_task.sinks.encoding._json import Fallback
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_OLDER_COLUMNS: Final = (
    *("pipeline", "stage", "window_start", "window_end", "task", "error", "value", "json"),
)
"""Those that a table of format 1 has, too."""

_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1
"""What a column of times holds."""

_READ: Final = (
    *("pipeline", "stage", "window_start", "window_end", "task", "value", "json"),
    *("error", "unit", "key", "revision", "bucket"),
)


class LongSql(LongForm):
    """A row a task, window and key.

    :param place: where the table is
    :param encode: makes of a value that has no form in JSON another that has one
    :raises ConfigError: if the table is one of something else, or of an older format
    """

    def __init__(self, place: SqlPlace, encode: Fallback | None) -> None:
        super().__init__(encode, self._check_window)
        self._place = place
        self._database, self._engine, self._limits, name = place
        self._where = place.database.where
        self._table = self._opened(name)

    def begin(self, pipeline: str) -> str | None:
        """Why a pipeline's name cannot be stored; None: it can."""
        return self._unfit("pipeline", pipeline)

    def _opened(self, name: str) -> Table:
        """The table, which is made if it is not there."""
        from sqlalchemy import delete, false, inspect, select
        from sqlalchemy.exc import DBAPIError

        from run_task.sinks._results_table import results_table

        table = results_table(name, self._limits.collation)
        if not inspect(self._engine).has_table(name):
            try:
                table.create(self._engine, checkfirst=False)
            except DBAPIError:  # another program has made it meanwhile, or it cannot be made
                if not inspect(self._engine).has_table(name):
                    raise
        with self._engine.connect() as connection:
            there = set(columns_of(connection, table))
        missing = {column.name for column in table.columns} - there
        if missing and there.issuperset(_OLDER_COLUMNS):
            raise older(self._where)
        if missing:
            raise ConfigError(
                f"{self._where}: this table is one of something else, it has no "
                f"column {', '.join(map(repr, sorted(missing)))}: give another table="
            )
        with self._engine.begin() as connection:
            form = connection.execute(select(table.c.format).limit(1)).scalar()
            if form not in (None, FORMAT):
                raise ConfigError(
                    f"{self._where}: this table was written in format {form!r}, and this "
                    f"version of run-task knows {FORMAT}: give another table="
                )
            connection.execute(delete(table).where(false()))  # shows now whether one may write
        return table

    def _check_window(self, window: WindowRecord) -> None:
        stage = window.key.stage
        problem = self._unfit("stage", stage)
        for task in window.tasks:
            problem = problem or self._unfit("task", task.task) or self._unfit("key", task.key)
            if task.text is not None and (
                len(task.text) > self._limits.longest or not self._limits.holds(task.text)
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
        if not self._limits.holds(name):
            return f"{column} {name!r} has no form in this database's encoding: rename it"
        return None

    def prepare(self) -> None:
        """The table is there since it was opened."""

    def fix_columns(self, _reason: str) -> None:
        """Its columns are always the same."""

    def not_in_parts(self, _output: StageOutput) -> str | None:
        """Why several cannot write each a part of a window: they can."""
        return None

    def keep(self, windows: list[WindowRecord], connection: Connection) -> None:
        """Put windows into the place of those that are there."""
        from sqlalchemy import and_, bindparam, delete, insert

        rows = [dict(row) for window in windows for row in window.rows()]
        for row in rows:
            row["error"] = self._limits.fitting(row["error"])
            if self._database.is_mysql and row["value"] is not None:
                row["value"] = row["value"] if math.isfinite(row["value"]) else None
        table = self._table
        replaced = delete(table).where(
            table.c.pipeline == bindparam("of_pipeline"),
            table.c.stage == bindparam("of_stage"),
            table.c.window_end == bindparam("to"),
            table.c.window_start == bindparam("from"),
            table.c.bucket == bindparam("of_bucket"),
        )
        names = "of_pipeline", "of_stage", "from", "to", "of_bucket"
        whole, parts = divided(windows)
        if whole:
            connection.execute(replaced, [dict(zip(names, window.key)) for window in whole])
        for window in parts:
            *_, start, end, bucket = window.key
            of_window = and_(
                table.c.pipeline == window.key.pipeline,
                table.c.stage == window.key.stage,
                table.c.window_end == end,
                table.c.window_start == start,
                table.c.bucket == bucket,
            )
            own = (task.key for task in window.tasks)
            make_way(connection, table, of_window, table.c.key, own, window.elsewhere)
        if rows:
            connection.execute(insert(table), rows)

    def last(self, pipeline: str, stage: str) -> int | None:
        """The end of the last window there is."""
        from sqlalchemy import func, select

        table = self._table
        query = select(func.max(table.c.window_end)).where(
            table.c.pipeline == pipeline, table.c.stage == stage
        )
        with self._place.reading() as connection:
            end: int | None = connection.execute(query).scalar()
        return end

    def unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        """The unit of the last window there is."""
        from sqlalchemy import select

        table = self._table
        query = (
            select(table.c.unit)
            .where(table.c.pipeline == pipeline, table.c.stage == stage)
            .order_by(table.c.window_end.desc())
            .limit(1)
        )
        with self._place.reading() as connection:
            unit: str | None = connection.execute(query).scalar()
        return unit_of(unit)

    def rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        """The rows there are, of all stages or of one."""
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
        with (
            self._place.reading() as connection,
            connection.execution_options(yield_per=1_024).execute(query) as found,
        ):
            for row in cast("Iterable[tuple[Any, ...]]", found):
                of, its_stage, start, end, task, number, beyond, error, unit = row[:9]
                value = restored(number, beyond, self._where)
                yield Row(of, its_stage, start, end, task, value, error, unit_of(unit), *row[9:])

    def windows(
        self, pipeline: str, stage: str, after: int | None, before: int | None
    ) -> Iterator[Window]:
        """The windows there are of a stage that end after a time and begin before another."""
        from sqlalchemy import select

        table = self._table.c
        query = select(table.window_start, table.window_end)
        query = query.where(table.pipeline == pipeline, table.stage == stage)
        if after is not None:
            query = query.where(table.window_end > max(_FIRST, min(after, _LAST)))
        if before is not None:
            query = query.where(table.window_start < max(_FIRST, min(before, _LAST)))
        with (
            self._place.reading() as connection,
            connection.execution_options(yield_per=1_024).execute(query) as found,
        ):
            for start, end in cast("Iterable[tuple[int, int]]", found):
                yield Window(start, end)


@contextmanager
def older_table(database: str, table: str) -> Generator[Iterator[OlderWindow] | None]:
    """The windows in a table of format 1; None if it is no such table.

    :raises ConfigError: if the database cannot be read
    """
    from sqlalchemy import MetaData, Table, inspect, select

    found = Database(database, "convert", table)
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
        raise ConfigError(f"{found.where}: cannot be read: {problem}")
