"""Tables of Arrow, polars and pandas as columns of Python's values, with nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.sinks.wide._kinds import UnfitError

_Columns = tuple[dict[str, list[Any]], int]
"""Columns by name, and how many rows there are."""


def is_table(value: Any) -> bool:
    """Whether it is a table of Arrow, polars or pandas."""
    return is_table_type(value.__class__)


def is_table_type(kind: Any) -> bool:
    """Whether values of a type are tables of Arrow, polars or pandas."""
    module, name = getattr(kind, "__module__", None), getattr(kind, "__name__", None)
    return isinstance(module, str) and (module.partition(".")[0], name) in _TABLES


def as_columns(value: Any) -> _Columns:
    """A table's columns, and how many rows they have. What is missing is None.

    :raises UnfitError: if Python's values do not tell a column
    """
    kind: Any = value.__class__
    return _TABLES[kind.__module__.partition(".")[0], kind.__name__](value)


def _named(name: Any) -> str:
    if not isinstance(name, str):
        raise UnfitError(f"a table whose column {name!r} has no text for a name: rename it")
    return name


def _of_arrow(value: Any) -> _Columns:
    pa = need("pyarrow", "arrow")
    names = list(map(_named, value.schema.names))
    if len(set(names)) < len(names):
        raise UnfitError("a table with two columns of one name: rename one")
    return {
        name: _arrow_values(pa, name, column) for name, column in zip(names, value.columns)
    }, value.num_rows


def _arrow_values(pa: Any, name: str, column: Any) -> list[Any]:
    types = pa.types
    coarse = None
    if types.is_timestamp(column.type) and column.type.unit == "ns":
        coarse = pa.timestamp("us", column.type.tz)
    elif types.is_duration(column.type) and column.type.unit == "ns":
        coarse = pa.duration("us")
    elif types.is_time64(column.type) and column.type.unit == "ns":
        coarse = pa.time64("us")
    elif types.is_nested(column.type) and "[ns" in str(column.type):
        raise UnfitError(f"a table whose column {name!r} has nanoseconds within its values")
    try:
        values: list[Any] = (column if coarse is None else column.cast(coarse)).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise UnfitError(f"a table whose column {name!r} cannot be told: {error}") from None
    return values


def _of_polars(value: Any) -> _Columns:
    pl = need("polars", "polars")
    found: dict[str, list[Any]] = {}
    for column in value.get_columns():
        if column.dtype in (pl.Datetime("ns"), pl.Duration("ns"), pl.Time) or (
            column.dtype == pl.Datetime and getattr(column.dtype, "time_unit", "") == "ns"
        ):
            # polars gives Python's values of these without their nanoseconds.
            counts = column.to_physical()
            if ((counts % 1_000) != 0).any():
                raise UnfitError(
                    f"a table whose column {column.name!r} is finer than a microsecond"
                )
        elif column.dtype.is_nested() and (
            "'ns'" in str(column.dtype) or "Time" in str(column.dtype)
        ):
            raise UnfitError(
                f"a table whose column {column.name!r} has nanoseconds within its values"
            )
        found[column.name] = column.to_list()
    return found, value.height


def _of_pandas(value: Any) -> _Columns:
    pd = need("pandas", "pandas")
    index = value.index
    default = isinstance(index, pd.RangeIndex) and index.name is None
    frame = value if default else _with_index(value)
    names = list(map(_named, frame.columns))
    if len(set(names)) < len(names):
        raise UnfitError("a table with two columns of one name: rename one")
    return {name: _pandas_values(frame.iloc[:, place]) for place, name in enumerate(names)}, len(
        frame
    )


def _with_index(frame: Any) -> Any:
    try:
        return frame.reset_index()
    except ValueError as error:  # a column is called as the index is
        raise UnfitError(f"a table whose index cannot be a column: {error}") from None


def _pandas_values(column: Any) -> list[Any]:
    values: list[Any] = column.tolist()
    dtype: Any = column.dtype
    of_numpy = dtype.kind if issubclass(dtype.__class__, np.dtype) else ""
    if of_numpy and of_numpy in "fcbiu":
        return values  # in which NaN is a number as others are
    missing = column.isna().tolist()
    if of_numpy == "O":
        return [
            None if gone and not isinstance(value, float) else value
            for gone, value in zip(missing, values)
        ]
    return [None if gone else value for gone, value in zip(missing, values)]


_TABLES: Final[Mapping[tuple[str, str], Callable[[Any], _Columns]]] = {
    ("pyarrow", "Table"): _of_arrow,
    ("pyarrow", "RecordBatch"): _of_arrow,
    ("polars", "DataFrame"): _of_polars,
    ("pandas", "DataFrame"): _of_pandas,
}
"""By library and type, how the columns are had."""
