"""Columns as the table of another library.

Arrow and pandas come without types that a checker could read, so their tables are Any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from run_task._extras import need
from run_task.data.series._column_types import Array
from run_task.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl


def _unit(array: Array) -> str:
    return np.datetime_data(array.dtype)[0] if array.dtype.kind == "M" else ""


def _in_unit(name: str, array: Array, unit: str) -> Array:
    """Times in a shorter unit, which hold all of them.

    :raises ConfigError: if 64 bits do not hold one
    """
    times: Array = array
    try:
        times = array.astype(f"M8[{unit}]")
        exact = bool(((times.astype(array.dtype) == array) | np.isnat(array)).all())
    except OverflowError:  # of NumPy 2.5 and later; before, it wraps around
        exact = False
    if not exact:
        raise ConfigError(
            f"column {name!r}: this library has no {array.dtype}, and 64 bits of {unit} do not "
            f"hold all of its times: take those of between() that they do"
        )
    return times


def to_arrow(columns: Mapping[str, Array]) -> Any:
    """A table of Arrow; numbers are not copied."""
    arrow = need("pyarrow", "arrow")
    return arrow.table(
        {
            name: arrow.array(_in_unit(name, array, "s") if _unit(array) in ("h", "m") else array)
            for name, array in columns.items()
        }
    )


def to_polars(columns: Mapping[str, Array]) -> pl.DataFrame:
    """A DataFrame of polars."""
    polars = need("polars", "polars")

    def series(name: str, array: Array) -> pl.Series:
        if _unit(array) in ("h", "m", "s"):
            array = _in_unit(name, array, "ms")
        dtype = polars.Binary if array.dtype.kind == "S" else None
        made: pl.Series = polars.Series(name, array if dtype is None else array.tolist(), dtype)
        return made

    frame: pl.DataFrame = polars.DataFrame([series(name, array) for name, array in columns.items()])
    return frame


def to_pandas(columns: Mapping[str, Array]) -> Any:
    """A DataFrame of pandas, which has copies."""
    pandas = need("pandas", "pandas")
    return pandas.DataFrame(
        {
            name: (_in_unit(name, array, "s") if _unit(array) in ("D", "h", "m") else array.copy())
            for name, array in columns.items()
        }
    )
