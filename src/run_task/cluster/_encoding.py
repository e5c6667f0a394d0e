"""Messages as bytes, and the arrays beside these.

What is sent for a window is taken apart into plain values, and put together again where it arrives.
To pickle an object of a class, the class is looked up by its name, and once more to load it: of a
message of a few thousand bytes that took most of the time. What is sent rarely is pickled as it is.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
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

_PlainParts: TypeAlias = tuple[Any, ...]


def encoded(message: Any) -> list[memoryview]:
    """The pieces of a message: first what is not an array.

    :raises Exception: whatever pickling raises
    """
    arrays: list[Array] = []
    match message:
        case ShardRequest():
            parts = _REQUEST, *_request_apart(message, arrays)
        case ShardResults():
            parts = _RESULTS, *_results_apart(message, arrays)
        case _:
            parts = _WHOLE_MESSAGE, message
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(parts, PROTOCOL, buffer_callback=buffers.append)
    raws = [np.ascontiguousarray(array).view(np.uint8).data for array in arrays]
    return [memoryview(data), *(buffer.raw() for buffer in buffers), *raws]


def decoded(pieces: Sequence[Any]) -> Any:
    """The message of these pieces, whose arrays are not copied.

    :param pieces: anything that is a buffer
    :raises Exception: whatever loading raises
    """
    beside = iter(pieces[1:])  # those that the pickle takes come first
    kind, *parts = pickle.loads(pieces[0], buffers=beside)
    if kind == _REQUEST:
        return _request_of(parts, beside)
    if kind == _RESULTS:
        return _results_of(parts, beside)
    (message,) = parts
    return message


def _request_apart(request: ShardRequest, arrays: list[Array]) -> _PlainParts:
    series, changes, gone, dropped, setup, window, *rest = request
    apart = [(feed, [_change_apart(one, arrays) for one in told]) for feed, told in changes]
    flat = None if window is None else tuple(window)
    return series, apart, gone, dropped, setup, flat, *rest


def _request_of(parts: Sequence[Any], arrays: Iterator[Any]) -> ShardRequest:
    series, apart, gone, dropped, setup, flat, *rest = parts
    changes = [(feed, [_change_of(one, arrays) for one in told]) for feed, told in apart]
    window = None if flat is None else RunWindow(*flat)
    return ShardRequest(series, changes, gone, dropped, setup, window, *rest)


def _change_apart(change: SeriesChange, arrays: list[Array]) -> _PlainParts:
    match change:
        case MoreRows(rows):
            return _MORE, *_rows_apart(rows, arrays)
        case WholeSeries(rows):
            return _WHOLE, *_rows_apart(rows, arrays)
        case KeepView():
            return _KEEP, *change
        case DropViews():
            return _DROP, *change


def _change_of(parts: _PlainParts, arrays: Iterator[Any]) -> SeriesChange:
    kind, *rest = parts
    if kind == _MORE:
        return MoreRows(_rows_of(rest, arrays))
    if kind == _KEEP:
        return KeepView(*rest)
    if kind == _DROP:
        return DropViews(*rest)
    return WholeSeries(_rows_of(rest, arrays))


def _rows_apart(rows: SentRows, arrays: list[Array]) -> _PlainParts:
    its = [rows.times, *rows.columns]
    arrays += its
    return [array.dtype.str for array in its], rows.texts


def _rows_of(parts: Sequence[Any], arrays: Iterator[Any]) -> SentRows:
    kinds, texts = parts
    times, *columns = [_array(kind, next(arrays)) for kind in kinds]
    return SentRows(times, columns, texts)


def _results_apart(results: ShardResults, arrays: list[Array]) -> _PlainParts:
    keys, columns, *rest = results
    kinds: list[str | None] = []
    plain: list[Any] = []
    for column in columns:
        if type(column) is np.ndarray:
            kinds.append(column.dtype.str)
            arrays.append(column)
        else:
            kinds.append(None)
            plain.append(column)
    return keys, plain, kinds, *rest


def _results_of(parts: Sequence[Any], arrays: Iterator[Any]) -> ShardResults:
    keys, plain, kinds, *rest = parts
    others = iter(plain)
    columns = [next(others) if kind is None else _array(kind, next(arrays)) for kind in kinds]
    return ShardResults(keys, columns, *rest)


def _array(kind: str, data: Any) -> Array:
    dtype = np.dtype(kind)
    data = memoryview(data)
    return np.ndarray((data.nbytes // dtype.itemsize,), dtype, data)
