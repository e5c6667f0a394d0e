"""Columns of a series as those of polars."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._aware_times import of_polars
from run_task.data.series._frames import polars_series
from run_task.data.series._schema import TIME
from run_task.data.series._view import TimeSeriesView
from run_task.tasks._column_kinds import is_encoded
from run_task.tasks._declared import ColumnTypes
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    import polars as pl


def times(stamps: NDArray[np.int64], unit: TimeUnit) -> pl.Series:
    """Timestamps as polars has times, in UTC.

    :param stamps: in ``unit`` since the Unix epoch
    :raises ConfigError: if polars cannot hold one
    """
    return of_polars(TIME, stamps.view(f"M8[{unit.value}]"), "UTC")


def texts_of(
    name: str, codes: NDArray[np.int32], texts: Sequence[str] | NDArray[np.object_]
) -> pl.Series:
    """Texts as polars has them: no categories, of which polars keeps for good what it has seen.

    :param codes: for each row, the position of its text
    :param texts: the texts, each once; there may be many more than there are rows
    :raises UnicodeEncodeError: if one that a row has is no text in UTF-8
    """
    polars = need("polars", "polars")
    known: NDArray[np.object_] = np.asarray(texts, np.object_)
    made: pl.Series
    if len(known) <= len(codes):
        try:
            of_texts = polars.Series(known.tolist(), dtype=polars.String)
        except UnicodeEncodeError:
            pass  # it may be one that none of these rows has
        else:
            made = of_texts.gather(polars.Series(codes)).alias(name)
            return made
    made = polars.Series(name, known[codes].tolist(), dtype=polars.String)
    return made


def frame_of(view: TimeSeriesView, names: Container[str] | None = None) -> pl.DataFrame:
    """Columns of a view; numbers are not copied.

    :param names: which columns, of which it need not have any; None: all
    :raises ConfigError: if polars cannot hold a time or text of it
    """
    polars = need("polars", "polars")
    held = {name: dtype for name, dtype in view.columns.items() if names is None or name in names}
    columns: list[pl.Series] = []
    if names is None or TIME in names or not held:  # there are rows also without a column
        columns.append(times(view.time, view.unit))
    for name, dtype in held.items():
        if is_encoded(dtype):
            codes, texts = view.encoded(name)
            columns.append(texts_of(name, codes, texts))
        else:
            columns.append(polars_series(name, view[name]))
    frame: pl.DataFrame = polars.DataFrame(columns)
    return frame


def sample(columns: ColumnTypes, names: Iterable[str], rows: int) -> pl.DataFrame:
    """Some rows of columns, of no meaning.

    :param columns: what each column holds
    :param names: those that are wanted, with :data:`TIME` for the timestamps
    :param rows: how many rows; up to 101, so that no number comes twice
    """
    polars = need("polars", "polars")
    numbers = np.arange(rows) * 37 % 101  # in no order, and held by a column of any kind
    made: list[pl.Series] = []
    for name in names:
        if name == TIME:
            made.append(times(np.arange(rows, dtype=np.int64) * 1_000_000, TimeUnit.MICROS))
        elif is_encoded(columns[name]):
            texts = [f"text {number}" for number in numbers.tolist()]
            made.append(polars.Series(name, texts, dtype=polars.String))
        else:
            made.append(polars_series(name, numbers.astype(columns[name])))
    frame: pl.DataFrame = polars.DataFrame(made)
    return frame
