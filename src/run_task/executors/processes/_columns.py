"""The results of one task for many keys on their way: what is plain goes together."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias, cast

import numpy as np

from run_task.executors.processes._pickling import PROTOCOL
from run_task.executors.processes._wire import loads

ResultColumns: TypeAlias = "list[list[Any] | None]"
"""The results of each task, one for each key; None: it was not run. Where a result is not plain,
there is None in its place."""

_SCALARS: Final[frozenset[type[Any]]] = frozenset[type[Any]](
    [np.float64, np.float32, np.int64, np.int32, np.uint64, np.uint32, np.bool_]
)
PLAIN: Final[frozenset[type[Any]]] = _SCALARS.union(
    [float, int, bool, type(None), str, bytes, complex]
)
"""The types of results that are plain in any case."""


def is_plain(value: object) -> bool:
    """Whether a result can be pickled whatever it is, loaded anywhere, and runs no code of anybody
    for it: numbers, texts, and tuples of these. A result of another kind goes on its own, so that
    it is known whose fault it is if it cannot be sent or loaded."""
    if type(value) is tuple:
        items = cast("tuple[object, ...]", value)
        return all(type(item) in PLAIN for item in items)
    return type(value) in PLAIN


def packed_columns(columns: ResultColumns) -> list[memoryview]:
    """The pieces of columns."""
    buffers: list[pickle.PickleBuffer] = []
    packed = [None if column is None else as_column(column) for column in columns]
    data = pickle.dumps(packed, PROTOCOL, buffer_callback=buffers.append)
    return [memoryview(data), *(buffer.raw() for buffer in buffers)]


def as_column(column: Sequence[Any], kinds: Collection[type[Any]] | None = None) -> Any:
    """What is sent of results: NumPy's scalars as an array, which take ten times as long one by
    one.

    :param column: the results
    :param kinds: their types, each once; None: nobody has looked yet
    """
    if kinds is None:
        kinds = set(map(type, column))
    if len(kinds) == 1 and (kind := next(iter(kinds))) in _SCALARS:
        dtype: np.dtype[Any] = np.dtype(kind)
        return np.array(column, dtype)
    return column


def unpacked_columns(pieces: Sequence[memoryview]) -> ResultColumns:
    """The columns of which these are the pieces."""
    packed = loads(pieces)
    return [None if column is None else list(column) for column in packed]
