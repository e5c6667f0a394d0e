"""All expressions of a stage, computed together over the rows of any number of windows and keys.

What they are to promise is that a window has the same bits whatever other windows there are. polars
adds in another order in ``select`` than in ``group_by``, and there in another one where groups are
scattered than where each is a stretch of rows. So all of it is done by ``group_by`` with stretches:
by the number of each row's segment, which is known to be sorted, for one segment as for thousands,
by the engine in memory whatever engine the program prefers. Segments that overlap have their rows
copied, one segment behind the other. What may differ even so is computed for one segment at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.data.series._frames import polars_series
from run_task.data.series._schema import TIME
from run_task.errors import ConfigError, RunTaskError
from run_task.expressions._columns import sample, texts_of, times
from run_task.expressions._faults import in_short, polars_faults
from run_task.expressions._together import is_same_among_others
from run_task.tasks._column_kinds import holds, is_encoded, unknown
from run_task.tasks._declared import ColumnTypes, Declared, Failed, Segments

if TYPE_CHECKING:
    import polars as pl

_CHUNK: Final = 1 << 18
"""So many rows are computed at once, unless one segment has more. Results do not depend on it."""

_SAMPLE: Final = (20, 1, 30)
"""How many rows the segments have over which a new expression is tried: so many that one row of
each that is drawn by chance is not likely to be the same one again."""


class ExpressionPlan:
    """Expressions that are computed together.

    :param names: the names of the tasks
    :param expressions: what each computes
    :param columns: the columns that each reads
    :param has_codes: which columns hold texts of any length
    """

    def __init__(
        self,
        names: Sequence[str],
        expressions: Sequence[pl.Expr],
        columns: Sequence[Sequence[str]],
        has_codes: Container[str],
    ) -> None:
        self._names = names
        self._expressions = [
            expression.alias(str(place)) for place, expression in enumerate(expressions)
        ]
        self._together: list[int] = []
        self._apart: list[int] = []
        for place, expression in enumerate(expressions):
            known = is_same_among_others(expression)
            (self._together if known else self._apart).append(place)
        self._columns = columns
        self._has_codes = has_codes
        self._faults = polars_faults()

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        """The results of each task: a plain Python value for each segment, None for one without
        rows, or a :class:`Failed`."""
        results: list[list[Any]] = [[None] * len(segments) for _ in self._names]
        for some in _chunks(segments):
            if self._together:
                self._put(results, segments, some, self._together)
            if self._apart:
                for one in np.split(some, len(some)):
                    self._put(results, segments, one, self._apart)
        return results

    def _put(
        self,
        results: list[list[Any]],
        segments: Segments,
        some: NDArray[np.intp],
        places: Sequence[int],
    ) -> None:
        """Put results in their places: if not all can be computed, all that can.

        :param some: the numbers of segments, none of which is empty
        :param places: which of the expressions
        """
        try:
            columns = self._results(segments, some, places)
        except self._faults as error:
            if len(places) > 1:
                for place in places:
                    self._put(results, segments, some, [place])
            elif len(some) > 1:
                half = len(some) // 2
                self._put(results, segments, some[:half], places)
                self._put(results, segments, some[half:], places)
            else:
                (place,) = places
                told = f"expression {self._names[place]!r}: {in_short(error)}"
                results[place][some[0]] = Failed(RunTaskError(told))
            return
        for place, column in zip(places, columns):
            if len(some) == len(segments):
                results[place] = column
            else:
                for number, value in zip(some.tolist(), column):
                    results[place][number] = value

    def _results(
        self, segments: Segments, some: NDArray[np.intp], places: Sequence[int]
    ) -> list[list[Any]]:
        starts = segments.starts[some]
        counts = segments.ends[some] - starts
        take = _rows(starts, counts)
        # Of those columns only: one that cannot be read costs the expressions that read it.
        frame = self._frame(segments, take, [self._columns[place] for place in places])
        found = grouped(frame, counts, [self._expressions[place] for place in places])
        return [plain(column) for column in found]

    def _frame(
        self,
        segments: Segments,
        take: slice | NDArray[np.intp],
        columns: Iterable[Sequence[str]],
    ) -> pl.DataFrame:
        polars = need("polars", "polars")
        made: list[pl.Series] = []
        # There are rows also where no expression reads a column.
        for name in dict.fromkeys(chain(*columns)) or (TIME,):
            if name == TIME:
                made.append(times(segments.time[take], segments.unit))
            elif name in self._has_codes:
                made.append(texts_of(name, segments.column(name)[take], segments.texts(name)))
            else:
                made.append(polars_series(name, segments.column(name)[take]))
        frame: pl.DataFrame = polars.DataFrame(made)
        return frame


def grouped(
    frame: pl.DataFrame, counts: NDArray[np.intp], expressions: Sequence[pl.Expr]
) -> list[pl.Series]:
    """Expressions over segments of rows, one segment behind the other.

    :param counts: how many rows each segment has, at least 1
    :return: the results of each expression, one for each segment
    """
    polars = need("polars", "polars")
    numbers = polars.Series("", np.repeat(np.arange(len(counts), dtype=np.uint32), counts))
    # The key is no column of the frame, where expressions would find it.
    key = polars.lit(numbers.set_sorted())
    groups = frame.lazy().group_by(key, maintain_order=True)
    found = groups.agg(expressions).collect(engine="in-memory", optimizations=_optimizations())
    return found.get_columns()[1:]


@functools.cache
def _optimizations() -> pl.QueryOptFlags:
    """What pays here: the others have polars look for half of the time of a small window."""
    polars = need("polars", "polars")
    flags: pl.QueryOptFlags = polars.QueryOptFlags.none(
        comm_subexpr_elim=True, simplify_expression=True
    )
    return flags


def plain(column: pl.Series) -> list[Any]:
    """Values as Python's own. Times in nanoseconds, which Python has not, are NumPy's.

    :raises RunTaskError: if such a time is within a list or a struct
    """
    polars = need("polars", "polars")
    dtype = column.dtype
    if getattr(dtype, "time_unit", None) == "ns":
        values: list[Any] = list(column.to_numpy())
        missing = np.flatnonzero(column.is_null().to_numpy())
        for at in missing.tolist():
            values[at] = None
        return values
    if isinstance(dtype, polars.List | polars.Array | polars.Struct) and "'ns'" in repr(dtype):
        raise RunTaskError(
            f"its result, a {dtype}, has times in nanoseconds, which Python has not: cast them, "
            f"such as by .dt.cast_time_unit('us')"
        )
    listed: list[Any] = column.to_list()
    return listed


def _chunks(segments: Segments) -> Iterator[NDArray[np.intp]]:
    """The numbers of segments that have rows, so many at a time as are computed at once."""
    filled = np.flatnonzero(segments.ends > segments.starts)
    if not len(filled):
        return
    after = np.cumsum(segments.ends[filled] - segments.starts[filled])
    first = done = 0
    while first < len(filled):
        stop = max(int(after.searchsorted(done + _CHUNK, "right")), first + 1)
        yield filled[first:stop]
        first, done = stop, int(after[stop - 1])


def _rows(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Which rows segments have, one segment behind the other."""
    ends = starts + counts
    if (starts[1:] == ends[:-1]).all():
        return slice(int(starts[0]), int(ends[-1]))
    rows = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    rows += np.arange(len(rows))
    return rows


# What is found when a stage is declared


def plan(tasks: Sequence[Declared[Any, Any]], columns: ColumnTypes) -> ExpressionPlan:
    """Plan expressions over rows with these columns.

    :param tasks: each an ``Expression``
    :param columns: what each column holds
    :raises ConfigError: if one cannot be computed; the message names it, and the column
    """
    names = [task.name for task in tasks]
    expressions: list[pl.Expr] = [task.expression for task in tasks]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  those that have this planner
    used = [
        _checked(f"expression {name!r}", expression, columns)
        for name, expression in zip(names, expressions)
    ]
    has_codes = {name for name, dtype in columns.items() if is_encoded(dtype)}
    return ExpressionPlan(names, expressions, used, has_codes)


def _checked(told: str, expression: pl.Expr, columns: ColumnTypes) -> Sequence[str]:
    """See whether an expression can be computed.

    :param told: what it is called in messages
    :return: the columns that it reads
    :raises ConfigError: if it cannot; the message names the column and the cure
    """
    known = [TIME, *columns]
    names = known
    if not expression.meta.has_multiple_outputs():  # else they are chosen by a selector
        names = list(dict.fromkeys(expression.meta.root_names()))
        for name in names:
            if name not in known:
                raise ConfigError(f"{told}: {unknown(name, known)}")
    empty = sample(columns, names or [TIME], 0)
    faults = polars_faults()
    try:
        selected = empty.lazy().select(expression).collect_schema()
        if len(selected) != 1:
            given = ", ".join(map(repr, selected)) or "none"
            raise ConfigError(
                f"{told}: it gives {len(selected)} columns, {given}, and a task has one result: "
                f"declare an expression for each, or put them together by pl.struct(...)"
            )
        (dtype,) = selected.dtypes()
        (of_group,) = grouped(empty, np.zeros(0, np.intp), [expression.alias("0")])
    except ConfigError:
        raise
    except faults as error:
        reads = ", ".join(
            f"{name!r} ({'times' if name == TIME else holds(columns[name])})" for name in names
        )
        raise ConfigError(f"{told}: {in_short(error)}; it reads {reads or 'no column'}") from None
    if of_group.dtype != dtype:
        raise ConfigError(
            f"{told}: it gives many values for the rows of a window, and a task one result: "
            f"end it with what makes one of them, such as .mean(), .last() or .n_unique(), or with "
            f".implode() for a list of all"
        )
    if _depends_on_others(expression, sample(columns, names or [TIME], sum(_SAMPLE))):
        raise ConfigError(
            f"{told}: its result for a window is another one when other windows are computed with "
            f"it: it is left to chance, as by sample() without a seed; or it reads beyond its "
            f"rows, as a function that is given to map_batches() with is_elementwise=True, but "
            f"looks at several rows"
        )
    return names


def result_type(expression: pl.Expr, columns: ColumnTypes) -> Any:
    """The type of Python's that the results of an expression have.

    :param columns: what each column holds
    """
    every = sample(columns, [TIME, *columns], 0)
    (column,) = grouped(every, np.zeros(0, np.intp), [expression.alias("0")])
    return column.dtype.to_python()


def _depends_on_others(expression: pl.Expr, rows: pl.DataFrame) -> bool:
    """Whether the results for segments, computed together, are others than those for each alone."""
    expressions = [expression.alias("0")]
    counts = np.array(_SAMPLE, np.intp)
    try:
        together = [grouped(rows, counts, expressions)[0].to_list() for _ in range(2)]
        alone: list[Any] = []
        for start, count in zip(np.cumsum(counts) - counts, counts):
            of_segment = rows.slice(int(start), int(count))
            alone += grouped(of_segment, np.array([count]), expressions)[0].to_list()
    except polars_faults():
        return False  # these rows mean nothing to it
    return len({repr(results) for results in (*together, alone)}) > 1
