"""A task that is a query in SQL."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from run_task._extras import need
from run_task.data import TimeSeries
from run_task.data.series._schema import TIME
from run_task.data.series._view import TimeSeriesView
from run_task.errors import ConfigError, RunTaskError
from run_task.expressions._columns import frame_of
from run_task.expressions._duckdb import PreparedQuery
from run_task.expressions._faults import in_short, polars_faults
from run_task.expressions._plan import plain
from run_task.expressions._query_text import one_select
from run_task.observe._format import brief
from run_task.tasks._column_kinds import holds, unknown
from run_task.tasks._task import Runnable

if TYPE_CHECKING:
    import polars as pl

I_contra = TypeVar("I_contra", contravariant=True)

_WINDOW: Final = "window"
_DATA: Final = "data"
_OF_WINDOW: Final = "_window"

_UNKNOWN_COLUMN: Final = re.compile(
    r'column "([^"]+)" not found|does not have a column named "(.+)"'
)
_UNKNOWN_TABLE: Final = re.compile(r"Table with name (\S+) does not exist")

_NOT_OF_POLARS: Final = re.compile(r"\b(INTERVAL|UNION\(|BIT\b|BIGNUM|VARIANT|TIME WITH TIME ZONE)")
"""Types of DuckDB that polars has not, or takes for others."""

_WIDE_INTS: Final = ("HUGEINT", "UHUGEINT")
"""What the sum of a column of ints is."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A query that is ready to run over inputs of one kind."""

    inputs: object
    """What tells the kind."""

    query: PreparedQuery
    wide: Sequence[str]
    """Its columns of ints of 128 bits."""

    columns: Container[str]
    """The columns that it reads, of whatever table."""

    is_one_row: bool
    """Whether it gives one row also where there are none, as an aggregate of all rows does."""

    def run(self, tables: Mapping[str, Callable[[], pl.DataFrame]]) -> Any:
        polars = need("polars", "polars")
        found = self.query.run(tables)
        if self.wide:
            found = found.with_columns(polars.col(*self.wide).cast(polars.Int64))
        if not self.is_one_row:
            return found
        if len(found) != 1:
            raise RunTaskError(
                f"it gives {len(found)} rows, and one where its tables are empty: let it give one "
                f"row always, or none where there are none"
            )
        values = {column.name: plain(column)[0] for column in found.get_columns()}
        return values if len(values) > 1 else next(iter(values.values()))


class Query(Runnable[I_contra, Any]):
    """A task whose result is that of a query over the rows of its window: :func:`sql` makes one.

    :ivar text: the query
    :ivar inputs: the names of its inputs
    """

    def __init__(self, text: str, name: str, inputs: Sequence[str]) -> None:
        self._name: Final = name
        self.text: Final = text
        self.inputs: Final = tuple(inputs)
        self._told: Final = f"query {name!r}"
        self._select: Final = one_select(text, self._told)
        # Each is used by one thread at a time: as many as have run at once.
        self._idle: deque[_Ready] = deque()

    @property
    def name(self) -> str:
        return self._name

    def check_inputs(self, inputs: Sequence[object], by: str | None) -> None:
        """See whether it can be run over these inputs.

        :param inputs: the shared data
        :param by: by which key tasks are run; None: by none
        :raises ConfigError: if it cannot; the message names the column or table, and the cure
        """
        if by is not None:
            raise ConfigError(
                f"{self._told}: a query is not run by key, since it would take a millisecond for "
                f"each: give it a stage without by={by!r}, and GROUP BY {by} in its text"
            )
        views: list[TimeSeriesView] = []
        for one in inputs:
            if not isinstance(one, TimeSeries):
                raise ConfigError(
                    f"{self._told}: the tables of a query are TimeSeries, which {brief(one)} is not"
                )
            views.append(one.view())
        kind = self._kind(views)
        self._idle.append(self._taken(kind) or self._prepared(views, kind))

    def run(self, data: I_contra, start: int, end: int, /) -> Any:
        """The result of one window.

        :param data: what a task of the window is given
        :param start: the start of the window
        :param end: its end
        :return: a DataFrame of polars; of a query that always gives one row, a dict, and of one
            column a plain Python value
        :raises ConfigError: if it cannot be run over these columns
        :raises RunTaskError: if it cannot be computed of these rows
        """
        views = cast("Sequence[TimeSeriesView]", data if isinstance(data, tuple) else (data,))
        kind = self._kind(views)
        ready = self._taken(kind)
        if ready is None:
            ready = self._prepared(views, kind)
        try:
            result = ready.run(self._tables(views, ready.columns))
        except polars_faults() as error:
            raise RunTaskError(f"{self._told}: {in_short(error)}") from None
        self._idle.append(ready)
        return result

    def _taken(self, kind: object) -> _Ready | None:
        """One that is ready and idle."""
        while True:
            try:
                ready = self._idle.pop()
            except IndexError:
                return None
            if ready.inputs == kind:
                return ready

    @staticmethod
    def _kind(views: Sequence[TimeSeriesView]) -> object:
        return [(view.unit, list(view.columns.items())) for view in views]

    def _tables(
        self,
        views: Sequence[TimeSeriesView],
        columns: Container[str] | None = None,
        *,
        empty: bool = False,
    ) -> dict[str, Callable[[], pl.DataFrame]]:
        """What gives the rows of each table, with these columns; None: with all."""

        def whole(view: TimeSeriesView) -> Callable[[], pl.DataFrame]:
            return lambda: frame_of(view.between(0, 0) if empty else view, columns)

        def of_window(view: TimeSeriesView) -> Callable[[], pl.DataFrame]:
            return lambda: frame_of(view.between(0, 0) if empty else view.in_window, columns)

        tables = {_WINDOW: of_window(views[0]), _DATA: whole(views[0])}
        for name, view in zip(self.inputs, views):
            tables[name] = whole(view)
            tables[name + _OF_WINDOW] = of_window(view)
        return tables

    def _prepared(self, views: Sequence[TimeSeriesView], kind: object) -> _Ready:
        """It, ready to run over such inputs.

        :raises ConfigError: if it cannot be run over them
        """
        duckdb = need("duckdb", "duckdb")
        if len(views) != max(len(self.inputs), 1):
            raise ConfigError(
                f"{self._told}: it has {len(views)} inputs, and names for "
                f"{len(self.inputs) or 'none'} of them: name each, "
                f"sql(..., inputs=('trades', 'quotes'))"
            )
        tables = self._tables(views, empty=True)
        try:
            query = PreparedQuery(self._select, tables)
            repeated = {name for name in query.names if query.names.count(name) > 1}
            if repeated:
                raise ConfigError(
                    f"{self._told}: two columns of its result are called "
                    f"{', '.join(map(repr, sorted(repeated)))}: name them, ... AS name"
                )
            for name, told in zip(query.names, query.types):
                if _NOT_OF_POLARS.search(told):
                    raise ConfigError(
                        f"{self._told}: column {name!r} of its result is {told}, which polars has "
                        f"not: cast it, such as an INTERVAL by epoch()"
                    )
            wide = [name for name, told in zip(query.names, query.types) if told in _WIDE_INTS]
            # Any other column would be made anew for each window, though nobody reads it.
            columns = query.scanned()
            query = PreparedQuery(self._select, self._tables(views, columns, empty=True))
            return _Ready(kind, query, wide, columns, len(query.run()) == 1)
        except duckdb.Error as error:
            mistake = self._mistake(str(error), views, list(tables)) or in_short(error)
            raise ConfigError(f"{self._told}: {mistake}") from None
        except ConfigError:
            raise
        except polars_faults() as error:
            raise ConfigError(f"{self._told}: {in_short(error)}") from None

    def _mistake(
        self, error: str, views: Sequence[TimeSeriesView], tables: Sequence[str]
    ) -> str | None:
        """Which column or table is meant that there is not; None: the error is another one."""
        if found := _UNKNOWN_COLUMN.search(error):
            columns = list(
                dict.fromkeys([TIME, *(each for view in views for each in view.columns)])
            )
            return unknown(found[1] or found[2], columns)
        if found := _UNKNOWN_TABLE.search(error):
            return (
                f"there is no table {found[1]!r}: there are {', '.join(map(repr, tables))}; "
                f"further inputs are named by sql(..., inputs=)"
            )
        if "No function matches" in error or "Could not convert" in error:
            held = {name: holds(dtype) for view in views for name, dtype in view.columns.items()}
            told = ", ".join(f"{name!r} ({kind})" for name, kind in held.items())
            return f"{in_short(Exception(error))}; the columns are {TIME!r} (times), {told}"
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Query, (self.text, self.name, self.inputs)

    def __repr__(self) -> str:
        return f"<Query {self.name!r}: {self.text}>"


@overload
def sql(text: str, *, name: str = ...) -> Query[TimeSeriesView]: ...
@overload
def sql(text: str, *, name: str = ..., inputs: Sequence[str]) -> Query[Any]: ...
def sql(text: str, *, name: str = "sql", inputs: Sequence[str] = ()) -> Query[Any]:
    """Make a task of a query in SQL, which DuckDB runs.

    ::

        pipeline.stage(
            "averages",
            tasks=[sql("select symbol, avg(price) as mean from window group by symbol")],
            data=trades,
            interval="1m",
        )

    These are its tables, each with ``time`` in UTC beside the columns of the series:

    - ``window``: the rows of the window
    - ``data``: those that the series retains, up to the end of the window
    - of each of several inputs, by its name what it retains up to the end of the window, and its
      rows of the window with ``_window`` behind the name; ``window`` and ``data`` are of the first

    A query that gives one row also where its tables have none, as an aggregate without GROUP BY
    does, gives its value, or if it has several columns a dict of them. Any other gives a table: a
    :class:`polars.DataFrame`, whose rows are in no order unless the query says ORDER BY.

    It reaches neither files nor the network, extensions or variables of the program.

    :param text: one SELECT
    :param name: the task's name
    :param inputs: the names of several inputs, in the order of ``data=(trades, quotes)``
    :return: the task
    :raises ConfigError: if it is not one SELECT, or a name cannot be; that it cannot be run over
        the columns of a series is found when its stage is declared
    """
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(f"sql(name={name!r}): a name is a text that is not empty")
    if isinstance(inputs, str) or not all(
        isinstance(each, str) and each.isidentifier()  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        for each in inputs
    ):
        raise ConfigError(
            f"sql(inputs={inputs!r}): they are names without spaces or quotes, one for each input, "
            f"such as ('trades', 'quotes')"
        )
    tables = [_WINDOW, _DATA, *inputs, *(each + _OF_WINDOW for each in inputs)]
    if len({each.lower() for each in tables}) < len(tables):
        raise ConfigError(
            f"sql(inputs={inputs!r}): two tables would be called the same, for there are "
            f"{', '.join(map(repr, tables))}: rename an input"
        )
    return Query(text, name, inputs)
