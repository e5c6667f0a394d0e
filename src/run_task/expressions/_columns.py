"""Columns of a series as those of polars, and what messages say of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._aware_times import of_polars
from run_task.data.series._frames import polars_series
from run_task.data.series._schema import TIME
from run_task.data.series._view import TimeSeriesView
from run_task.tasks._declared import ColumnTypes
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    import polars as pl

ANY_TEXT: Final = np.dtype(str)
"""The dtype of a column of texts of any length, of which a row has a code."""

_KINDS: Final[Mapping[str, str]] = {"U": "texts", "S": "bytes", "b": "bools", "M": "times"}


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


def frame_of(view: TimeSeriesView) -> pl.DataFrame:
    """All columns of a view; numbers are not copied.

    :raises ConfigError: if polars cannot hold a time or text of it
    """
    polars = need("polars", "polars")
    columns = [times(view.time, view.unit)]
    for name, dtype in view.columns.items():
        if dtype == ANY_TEXT:
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
    :param rows: how many rows; up to 9
    """
    polars = need("polars", "polars")
    digits = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5][:rows])
    made: list[pl.Series] = []
    for name in names:
        if name == TIME:
            made.append(times(np.arange(rows, dtype=np.int64) * 1_000_000, TimeUnit.MICROS))
        elif columns[name] == ANY_TEXT:
            letters = [chr(ord("a") + digit) for digit in digits.tolist()]
            made.append(polars.Series(name, letters, dtype=polars.String))
        else:
            made.append(polars_series(name, digits.astype(columns[name])))
    frame: pl.DataFrame = polars.DataFrame(made)
    return frame


def holds(dtype: np.dtype[Any]) -> str:
    """What a column holds, for messages."""
    return _KINDS.get(dtype.kind, f"{dtype.name}s")


def meant(name: str, known: Sequence[str]) -> str:
    """Which of the columns that there are is probably meant, and all of them, for messages.

    :param name: one that there is not
    :param known: those that there are
    """
    in_small_letters = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), in_small_letters, 1)
    told = f"did you mean {in_small_letters[near[0]]!r}? " if near else ""
    return f"{told}The columns are {', '.join(map(repr, known))}"
