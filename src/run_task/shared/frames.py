"""The rows of a view as the table of another library.

Arrow and pandas come without types that a checker could read, so their tables are Any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from run_task.extras import need
from run_task.shared.columns import Array
from run_task.shared.schema import TIME

if TYPE_CHECKING:
    import polars as pl

    from run_task.shared.view import TimeSeriesView


def _unit(array: Array) -> str:
    return np.datetime_data(array.dtype)[0] if array.dtype.kind == "M" else ""


def _columns(view: TimeSeriesView) -> dict[str, Array]:
    """The timestamps as NumPy's, and each column."""
    moments: Array = view.time.view(f"M8[{view.unit.value}]")
    return {TIME: moments, **{name: view[name] for name in view.columns}}


def to_arrow(view: TimeSeriesView) -> Any:
    """A table of Arrow; numbers are not copied."""
    arrow = need("pyarrow", "arrow")
    return arrow.table(
        {
            name: arrow.array(array.astype("M8[s]") if _unit(array) in ("h", "m") else array)
            for name, array in _columns(view).items()
        }
    )


def to_polars(view: TimeSeriesView) -> pl.DataFrame:
    """A DataFrame of polars."""
    polars = need("polars", "polars")

    def series(name: str, array: Array) -> pl.Series:
        if _unit(array) in ("h", "m", "s"):
            array = array.astype("M8[ms]")
        dtype = polars.Binary if array.dtype.kind == "S" else None
        made: pl.Series = polars.Series(name, array if dtype is None else array.tolist(), dtype)
        return made

    frame: pl.DataFrame = polars.DataFrame(
        [series(name, array) for name, array in _columns(view).items()]
    )
    return frame


def to_pandas(view: TimeSeriesView) -> Any:
    """A DataFrame of pandas, which has copies."""
    pandas = need("pandas", "pandas")
    return pandas.DataFrame(
        {
            name: array.astype("M8[s]") if _unit(array) in ("D", "h", "m") else array.copy()
            for name, array in _columns(view).items()
        }
    )
