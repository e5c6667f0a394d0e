"""Where a table is: in which database, what that can hold, and what it is called there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from run_task.errors import SinkError
from run_task.sinks._database import Database
from run_task.sinks._sql_limits import SqlLimits

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class SqlPlace(NamedTuple):
    """A table of a database, which need not be there yet.

    :param database: the database
    :param engine: its connections
    :param limits: what it can hold
    :param name: the table's name
    """

    database: Database
    engine: Engine
    limits: SqlLimits
    name: str

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A block that reads from it.

        :raises SinkError: what the database says, if it cannot be read
        """
        with (
            self.database.talking(SinkError, "cannot be read"),
            self.engine.connect() as connection,
        ):
            yield connection
