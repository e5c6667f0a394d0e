"""Messages as bytes, and what is large beside these.

What is sent for a window is taken apart into plain values, and put together again where it arrives.
To pickle an object of a class, the class is looked up by its name, and once more to load it: of a
message of a few thousand bytes that took most of the time. What is sent rarely is pickled as it is.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np

from run_task.cluster._messages import (
    DropViews,
    KeepView,
    MoreRows,
    RunWindow,
    SentRows,
    SeriesChange,
    ShardRequest,
    ShardResults,
    WholeSeries,
)
from run_task.data.series._column_types import Array
from run_task.executors.processes._pickling import PROTOCOL

_WHOLE_MESSAGE: Final = 0
_REQUEST: Final = 1
_RESULTS: Final = 2

_WHOLE: Final = 0
_MORE: Final = 1
_KEEP: Final = 2
_DROP: Final = 3

_LARGE: Final = 1 << 16
"""From how many bytes on an array goes beside a message: one more piece takes more time than to
copy what is less."""

_PlainParts: TypeAlias = tuple[Any, ...]
_ArrayParts: TypeAlias = tuple[str, Any]
"""The dtype of an array, and its bytes."""


def encoded(message: Any) -> tuple[bytes, Sequence[pickle.PickleBuffer]]:
    """A message as bytes, and the arrays beside it: those that are large, which are not copied.

    :raises Exception: whatever pickling raises
    """
    match message:
        case ShardRequest():
            parts = _REQUEST, *_request_apart(message)
        case ShardResults():
            parts = _RESULTS, *_results_apart(message)
        case _:
            parts = _WHOLE_MESSAGE, message
    beside: list[pickle.PickleBuffer] = []

    def goes_along(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < _LARGE:
            return True
        beside.append(buffer)
        return False

    return pickle.dumps(parts, PROTOCOL, buffer_callback=goes_along), beside


def decoded(data: Any, beside: Iterable[Any]) -> Any:
    """The message, whose arrays are not copied.

    :param data: its bytes, in anything that is a buffer
    :param beside: the arrays beside it, in anything that are buffers
    :raises Exception: whatever loading raises
    """
    kind, *parts = pickle.loads(data, buffers=beside)
    if kind == _REQUEST:
        return _request_of(parts)
    if kind == _RESULTS:
        return _results_of(parts)
    (message,) = parts
    return message


def _request_apart(request: ShardRequest) -> _PlainParts:
    series, changes, gone, dropped, setup, window, *rest = request
    apart = [(feed, [_change_apart(one) for one in told]) for feed, told in changes]
    flat = None if window is None else tuple(window)
    return series, apart, gone, dropped, setup, flat, *rest


def _request_of(parts: Sequence[Any]) -> ShardRequest:
    series, apart, gone, dropped, setup, flat, *rest = parts
    changes = [(feed, [_change_of(one) for one in told]) for feed, told in apart]
    window = None if flat is None else RunWindow(*flat)
    return ShardRequest(series, changes, gone, dropped, setup, window, *rest)


def _change_apart(change: SeriesChange) -> _PlainParts:
    match change:
        case MoreRows(rows):
            return _MORE, *_rows_apart(rows)
        case WholeSeries(rows):
            return _WHOLE, *_rows_apart(rows)
        case KeepView():
            return _KEEP, *change
        case DropViews():
            return _DROP, *change


def _change_of(parts: _PlainParts) -> SeriesChange:
    kind, *rest = parts
    if kind == _MORE:
        return MoreRows(_rows_of(*rest))
    if kind == _KEEP:
        return KeepView(*rest)
    if kind == _DROP:
        return DropViews(*rest)
    return WholeSeries(_rows_of(*rest))


def _rows_apart(rows: SentRows) -> _PlainParts:
    return _array_apart(rows.times), [_array_apart(column) for column in rows.columns], rows.texts


def _rows_of(times: _ArrayParts, columns: Sequence[_ArrayParts], texts: Any) -> SentRows:
    return SentRows(_array_of(times), [_array_of(column) for column in columns], texts)


def _results_apart(results: ShardResults) -> _PlainParts:
    keys, columns, *rest = results
    apart = [
        _array_apart(column) if type(column) is np.ndarray else (None, column) for column in columns
    ]
    return keys, apart, *rest


def _results_of(parts: Sequence[Any]) -> ShardResults:
    keys, apart, *rest = parts
    columns = [data if kind is None else _array_of((kind, data)) for kind, data in apart]
    return ShardResults(keys, columns, *rest)


def _array_apart(array: Array) -> _ArrayParts:
    if not array.flags.c_contiguous:
        array = array.copy()
    # Not all kinds are buffers: times are none.
    return _code(array.dtype), pickle.PickleBuffer(array.view(np.uint8).data)


def _array_of(parts: _ArrayParts) -> Array:
    kind, data = parts
    return np.frombuffer(data, _dtype(kind))


@cache
def _code(dtype: np.dtype[Any]) -> str:
    return dtype.str


@cache
def _dtype(code: str) -> np.dtype[Any]:
    return np.dtype(code)
