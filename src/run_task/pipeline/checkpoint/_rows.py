"""Rows of a series as bytes: Arrow's IPC, as any reader of Arrow has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.data.series._column_types import Array
from run_task.data.series._texts import EncodedTexts
from run_task.data.series._view import TimeSeriesView
from run_task.errors import described
from run_task.pipeline.checkpoint._segments import RowSegment
from run_task.pipeline.checkpoint._values import OutdatedError

_TIME: Final = "time"
_ANY_TEXT: Final = np.dtype(str)
"""What a series says of a column of texts of any length."""


def rows_as_bytes(view: TimeSeriesView, first: int, stop: int) -> bytes:
    """Some rows of a view.

    :param first: the first of them
    :param stop: the one after the last
    """
    arrow = need("pyarrow", "arrow")
    arrays: list[Any] = [arrow.array(np.asarray(view.time[first:stop]))]
    names = [_TIME]
    for name, dtype in view.columns.items():
        names.append(name)
        if dtype == _ANY_TEXT:
            texts = view.encoded(name)
            codes, known = EncodedTexts(texts.codes[first:stop], texts.texts).compact()
            arrays.append(
                arrow.DictionaryArray.from_arrays(arrow.array(codes), _binary(arrow, known))
            )
            continue
        array = view[name][first:stop]
        if dtype.kind == "U":
            arrays.append(_binary(arrow, array))
        elif dtype.kind == "S":
            arrays.append(arrow.array(array.tolist(), arrow.binary()))
        else:
            arrays.append(arrow.array(array.view(np.int64) if dtype.kind in "mM" else array))
    batch = arrow.record_batch(arrays, names)
    out = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = out.getvalue().to_pybytes()
    return data


def _binary(arrow: Any, texts: Any) -> Any:
    # Not Arrow's strings: these end at a zero, and take no half of a pair of surrogates.
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts.tolist()]
    return arrow.array(encoded, arrow.binary())


def rows_of(
    segments: Sequence[RowSegment], parts: Mapping[str, bytes], dtypes: Sequence[np.dtype[Any]]
) -> tuple[NDArray[np.int64], Sequence[Array]]:
    """The timestamps and the columns of all rows of a series.

    :param segments: which of which parts they are
    :param parts: the parts, by name
    :param dtypes: of each column, as a series tells it
    :raises OutdatedError: if the parts do not hold them
    """
    times: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    columns: list[list[Array]] = [[] for _ in dtypes]
    try:
        for part, at, start, stop in segments:
            more, arrays = rows_from_bytes(parts[part], dtypes, start - at, stop - at)
            times.append(more)
            for column, array in zip(columns, arrays, strict=True):
                column.append(array)
    except Exception as error:  # of Arrow, or of what somebody else has written
        raise OutdatedError(described(error)) from error
    if not segments:
        return times[0], [np.empty(0, dtype) for dtype in dtypes]
    return np.concatenate(times), [np.concatenate(column) for column in columns]


def rows_from_bytes(
    data: bytes, dtypes: Sequence[np.dtype[Any]], first: int, stop: int
) -> tuple[NDArray[np.int64], Sequence[Array]]:
    """The timestamps and the columns of some of the rows that bytes hold.

    :param dtypes: of each column, as a series tells it
    :raises Exception: if these are no such rows
    """
    arrow = need("pyarrow", "arrow")
    with arrow.ipc.open_stream(arrow.BufferReader(data)) as reader:
        table = reader.read_all()
    table = table.slice(first, stop - first)
    if table.num_rows != stop - first or table.num_columns != 1 + len(dtypes):
        raise ValueError(f"{table.num_rows} rows of {table.num_columns} columns")
    times: NDArray[np.int64] = _numbers(table.column(0).combine_chunks(), np.dtype(np.int64))
    columns = [_column(table.column(i + 1), dtype) for i, dtype in enumerate(dtypes)]
    return times, columns


def _column(column: Any, dtype: np.dtype[Any]) -> Array:
    combined = column.combine_chunks()
    if dtype == _ANY_TEXT:
        known = _texts(combined.dictionary)
        codes = combined.indices.to_numpy(zero_copy_only=False)
        texts: Array = known[codes]
        return texts
    if dtype.kind == "U":
        fixed: Array = _texts(combined).astype(dtype)
        return fixed
    if dtype.kind == "S":
        return np.array(combined.to_pylist(), dtype)
    numbers: Array = _numbers(combined, dtype)
    return numbers


def _texts(column: Any) -> Any:
    texts = np.empty(len(column), object)
    texts[:] = [data.decode("utf-8", "surrogatepass") for data in column.to_pylist()]
    return texts


def _numbers(column: Any, dtype: np.dtype[Any]) -> Any:
    array = np.asarray(column.to_numpy(zero_copy_only=False))
    return array.view(dtype) if dtype.kind in "mM" else array.astype(dtype, copy=False)
