"""The versions of tasks, in a table of the database that has their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from run_task.errors import ConfigError
from run_task.sinks._database import Database, columns_of
from run_task.sinks._sql_limits import SqlLimits
from run_task.sinks._versions import Versions, changed, text_of, versions_in
from run_task.tasks._task import TaskVersion

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_NAME: Final = "run_task_versions"
_COLUMNS: Final = {"table_name", "versions"}
_ATTEMPTS: Final = 6
"""How often it is tried again, where another program is at it, too."""


class VersionsTable:
    """A row for each table of results, with the versions of the tasks that these are of.

    The table is made when a task first has a version.

    :param database: the database
    :param engine: its connections
    :param limits: what it can hold
    :param name: the name of the table that has the results
    """

    def __init__(self, database: Database, engine: Engine, limits: SqlLimits, name: str) -> None:
        self._where = database.where
        self._database = database
        self._engine = engine
        self._limits = limits
        self._name = name

    def held(self) -> Versions:
        """What is there: nothing, where the table is one of somebody else.

        :raises ConfigError: if it cannot be read
        """
        with self._database.talking(ConfigError, "its versions of tasks cannot be read"):
            if not self._is_there():
                return {}
            with self._engine.connect() as connection:
                return self._read(connection, self._table()) or {}

    def keep(self, pipeline: str, stage: str, versions: Mapping[str, TaskVersion | None]) -> None:
        """Make the versions of tasks of a stage last; those of others stay as they are.

        :raises ConfigError: if that cannot be done, or a table of somebody else is in its place
        """
        from sqlalchemy.exc import DBAPIError

        with self._database.talking(ConfigError, "versions of tasks cannot be written"):
            table = self._made()
            for attempt in range(_ATTEMPTS):
                try:
                    with self._engine.begin() as connection:
                        there = self._read(connection, table)
                        after = changed(there or {}, pipeline, stage, versions)
                        self._write(connection, table, after, is_there=there is not None)
                    return
                except DBAPIError:  # another program writes to the row, or has just made it
                    if attempt == _ATTEMPTS - 1:
                        raise

    def _table(self) -> Table:
        from run_task.sinks._results_table import versions_table

        return versions_table(_NAME, self._limits.collation)

    def _is_there(self) -> bool:
        """Whether there is a table of that name, and it is a sink's."""
        from sqlalchemy import inspect

        if not inspect(self._engine).has_table(_NAME):
            return False
        with self._engine.connect() as connection:
            return set(columns_of(connection, self._table())) == _COLUMNS

    def _made(self) -> Table:
        """The table, which is made if it is not there.

        :raises ConfigError: if one of somebody else is in its place
        """
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        table = self._table()
        if not inspect(self._engine).has_table(_NAME):
            try:
                table.create(self._engine, checkfirst=False)
            except DBAPIError:  # another program has made it meanwhile, or it cannot be made
                if not inspect(self._engine).has_table(_NAME):
                    raise
        if not self._is_there():
            raise ConfigError(
                f"{self._where}: table {_NAME!r} is to tell the versions of its tasks, and is one "
                f"of something else: rename that, or take another database"
            )
        return table

    def _read(self, connection: Connection, table: Table) -> Versions | None:
        """The versions that the row tells; None: there is no row.

        :raises ConfigError: if it tells none
        """
        from sqlalchemy import select

        query = select(table.c.versions).where(table.c.table_name == self._name)
        told: Any = connection.execute(query).scalar()
        if told is None:
            return None
        try:
            return versions_in(str(told))
        except ValueError as error:
            raise ConfigError(
                f"{self._where}: what table {_NAME!r} tells of it cannot be read: {error}"
            ) from None

    def _write(
        self, connection: Connection, table: Table, versions: Versions, *, is_there: bool
    ) -> None:
        from sqlalchemy import insert, update

        text = text_of(versions)
        if is_there:
            row = update(table).where(table.c.table_name == self._name)
            connection.execute(row.values(versions=text))
        else:
            connection.execute(insert(table).values(table_name=self._name, versions=text))
