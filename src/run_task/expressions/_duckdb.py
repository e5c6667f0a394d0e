"""DuckDB at work: one database in memory for the process, and queries that are ready to run in it.

A query cannot reach anything but the tables that it is given: neither files, nor the network, nor
extensions, nor variables of the program. It is run by the thread that asks for it, so that results
do not depend on how the rows are shared between threads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from run_task._extras import need
from run_task.sync._fork import forget_after_fork

if TYPE_CHECKING:
    import polars as pl

_SETTINGS: Final[Mapping[str, Any]] = {
    "threads": 1,
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # variables of the program are no tables
    "temp_directory": "",
}

_WORN: Final = 20_000
"""After so many runs, a query goes on with a new database: DuckDB 2.0 keeps some 260 bytes of each
GROUP BY for as long as a database is open. To open one takes some 50 ms."""

_SETTINGS_BEHIND: Final[Sequence[str]] = (
    "SET GLOBAL TimeZone = 'UTC'",  # and not the machine's
    "SET lock_configuration = true",
)


class _QueryDatabase:
    """The database of this process, which holds nothing: each connection has tables of its own."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._root: Any = None
        self._left: list[Any] = []
        forget_after_fork(self)

    def connect(self, worn: Any = None) -> tuple[Any, Any]:
        """A connection of its own, for one thread at a time, and the database that it is to.

        :param worn: a database that is not to be used again
        """
        with self._mutex:
            if self._root is worn:
                self._root = None  # it is closed with its last connection
            if self._root is None:
                duckdb = need("duckdb", "duckdb")
                root = duckdb.connect(":memory:", config=dict(_SETTINGS))
                for setting in _SETTINGS_BEHIND:
                    root.execute(setting)
                self._root = root
            return self._root.cursor(), self._root

    def after_fork(self) -> None:
        """Begin anew, in the child: the parent's is neither used nor closed."""
        self._mutex = threading.Lock()
        self._left.append(self._root)
        self._root = None


database: Final = _QueryDatabase()


class _Table:
    """A table whose rows are those that are there when it is read, by Arrow's PyCapsule interface.

    :param make: gives them; what was made stays until :meth:`give` is called again
    """

    def __init__(self, make: Callable[[], pl.DataFrame]) -> None:
        self.give(make)

    def give(self, make: Callable[[], pl.DataFrame] | None) -> None:
        """Have other rows; None: let go of those that there are."""
        self._make = make
        self._rows: pl.DataFrame | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        if self._rows is None:
            assert self._make is not None, "it is read while its query runs"
            self._rows = self._make()
        return self._rows.__arrow_c_stream__(requested_schema)


class PreparedQuery:
    """A query over tables that have other rows each time, for one thread at a time.

    :param text: the query
    :param tables: the tables that it reads, with the rows with which it is prepared
    :raises duckdb.Error: if it cannot be run over these tables
    """

    def __init__(self, text: str, tables: Mapping[str, Callable[[], pl.DataFrame]]) -> None:
        self._text = text
        self._runs = 0
        self._begin(tables)

    def _begin(self, tables: Mapping[str, Callable[[], pl.DataFrame]], worn: Any = None) -> None:
        self._connection, self._database = database.connect(worn)
        self._tables = {name: _Table(make) for name, make in tables.items()}
        for name, table in self._tables.items():
            self._connection.register(name, table)
        self._relation: Any = self._connection.sql(self._text)
        self.names: Sequence[str] = tuple(self._relation.columns)
        """What the columns of its result are called."""
        self.types: Sequence[str] = tuple(map(str, self._relation.types))
        """The types that DuckDB has of them."""

    def scanned(self) -> frozenset[str]:
        """The columns that are read, of whatever table."""
        found = self._connection.execute(f"EXPLAIN (FORMAT json) {self._text}").fetchall()
        names: set[str] = set()
        operators: list[Any] = json.loads(found[0][1])
        while operators:
            operator = operators.pop()
            projected = operator.get("extra_info", {}).get("Projections", ())
            names.update((projected,) if isinstance(projected, str) else projected)
            operators += operator.get("children", ())
        return frozenset(names)

    def run(self, tables: Mapping[str, Callable[[], pl.DataFrame]] | None = None) -> pl.DataFrame:
        """Its result.

        :param tables: gives the rows of each table; None: those that it was prepared with
        """
        polars = need("polars", "polars")
        self._runs += 1
        if tables is not None and self._runs % _WORN == 0:
            self._begin(tables, self._database)
        try:
            if tables is not None:
                for name, table in self._tables.items():
                    table.give(tables[name])
            found: pl.DataFrame = polars.DataFrame(self._relation)
            return found
        finally:
            for table in self._tables.values():
                table.give(None)
