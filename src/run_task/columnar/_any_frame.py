"""What is a table of another library, told without an import of any."""

from __future__ import annotations

import sys
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

_NO_FRAMES: Final[tuple[Any, ...]] = (np.ndarray, list, tuple, dict, str, bytes)


class StreamExportable(Protocol):
    """A table that can be had as a stream of Arrow's, by its PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class LazyTable(Protocol):
    """A query that gives a table once it is run, such as a LazyFrame of polars."""

    def collect_schema(self) -> Any: ...


AnyFrame: TypeAlias = StreamExportable | LazyTable
"""A table of another library: a DataFrame or LazyFrame of polars, a DataFrame of pandas, a Table,
RecordBatch, RecordBatchReader, Dataset or Scanner of pyarrow, a relation of DuckDB, or anything
else with columns that has ``__arrow_c_stream__``. What has no types, as those of pandas and
pyarrow, is Any."""


def is_frame(thing: Any) -> bool:
    """Whether something is such a table."""
    if isinstance(thing, _NO_FRAMES):
        return False
    if is_pandas(thing):
        return True
    kind: Any = thing.__class__
    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__"):
        # So have columns and arrays, which have no schema.
        return hasattr(thing, "schema") or hasattr(thing, "columns")
    return is_lazy(kind) or is_dataset(kind) or is_scanner(kind)


def is_pandas(thing: Any) -> bool:
    """Whether it is a DataFrame of pandas, without an import of it."""
    # While another thread imports it, the module is there, and nobody has a DataFrame yet.
    kind = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return kind is not None and isinstance(thing, kind)


def is_lazy(kind: Any) -> bool:
    """Whether things of a type are queries that are yet to be run."""
    return hasattr(kind, "collect_schema") and hasattr(kind, "collect")


def is_dataset(kind: Any) -> bool:
    """Whether they are datasets of pyarrow."""
    return hasattr(kind, "scanner") and hasattr(kind, "schema")


def is_scanner(kind: Any) -> bool:
    """Whether they are scanners of pyarrow."""
    return hasattr(kind, "to_reader") and hasattr(kind, "projected_schema")
