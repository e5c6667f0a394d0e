"""Results that are asked for: numbers over time, the newest window of all keys, and pages of it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.pipeline._archive import NumbersByWindow, end_ms
from run_task.pipeline._numbers import as_number
from run_task.serve._guard import RefusedRequest
from run_task.serve._hub import plain
from run_task.serve._shapes import FatesTold, KeyedNumbers, KeyPage, KeyRow, NumbersTold
from run_task.serve._told import finites, key_given, key_told, scalar, scalars, why
from run_task.serve._watched import WatchedPipeline
from run_task.serve._where import places_where
from run_task.tasks._keyed import KeyedDataSet

_MOST_ROWS: Final = 1000
"""How many keys a page has at most."""


def numbers(
    watched: WatchedPipeline, stage: str, key: str | None, since_ms: float
) -> tuple[Any, NumbersByWindow]:
    """Numbers of a stage over time, or of a key of it, which is watched from now on.

    :param key: the key, as a text; None: of a stage without keys
    :return: the key, and its numbers
    """
    if key is None:
        return None, watched.archive.read(stage, None, since_ms)
    newest = watched.newest(stage)
    keys: Sequence[Any] = newest.keys_of_rows if isinstance(newest, KeyedDataSet) else ()
    given = key_given(key, keys)
    watched.archive.watch(stage, given, time.monotonic())
    return given, watched.archive.read(stage, given, since_ms)


def numbers_told(stage: str, key: Any, found: NumbersByWindow) -> NumbersTold:
    """Numbers over time as JSON has them."""
    ends_ms = list(found.ends_ms)
    return NumbersTold(
        stage=stage,
        key=key_told(key),
        ends_ms=ends_ms,
        columns={name: finites(column) for name, column in found.columns.items()},
        next=ends_ms[-1] if ends_ms else None,
    )


def keyed_numbers(stage: str, by: str, newest: KeyedDataSet[Any, Any] | None) -> KeyedNumbers:
    """The newest window of all keys, by column."""
    if newest is None:
        return KeyedNumbers(stage=stage, by=by, end_ms=None, keys=[], columns={})
    return KeyedNumbers(
        stage=stage,
        by=by,
        end_ms=end_ms(newest),
        keys=[key_told(key) or "" for key in newest.keys_of_rows],
        columns={name: [plain(value) for value in column] for name, column in newest.by_task()},
    )


def as_arrow(told: NumbersTold | KeyedNumbers) -> bytes:
    """The same as a stream of Arrow: one batch.

    :raises RefusedRequest: if pyarrow is not installed
    """
    try:
        pyarrow = need("pyarrow", "arrow")
        ipc = need("pyarrow.ipc", "arrow")
    except Exception as error:
        raise RefusedRequest(HTTPStatus.NOT_ACCEPTABLE, str(error)) from None
    arrays: dict[str, Any] = {}
    if isinstance(told, NumbersTold):
        ends = pyarrow.array(np.array(told.ends_ms, np.float64).round().astype(np.int64))
        arrays["end"] = ends.cast(pyarrow.timestamp("ms", tz="UTC"))
        for name, column in told.columns.items():
            arrays[_free(name, arrays)] = pyarrow.array(column, pyarrow.float64())
    else:
        arrays[told.by] = pyarrow.array(told.keys)
        for name, column in told.columns.items():
            arrays[_free(name, arrays)] = _array(pyarrow, column)
    table = pyarrow.table(list(arrays.values()), names=list(arrays))
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += "_"
    return name


def _array(pyarrow: Any, column: Sequence[Any]) -> Any:
    try:
        return pyarrow.array(column)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):  # of several types
        return pyarrow.array([None if value is None else str(value) for value in column])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChoice:
    """Which keys of a window are asked for.

    :param search: what the keys have in them, in capitals or not
    :param where: what is to hold of the results; see :mod:`run_task.serve._where`
    :param sort: by which task; None: by key
    :param descending: whether the last comes first; keys without a number come last in any case
    :param offset: how many to leave out
    :param limit: how many there are at most
    """

    search: str
    where: str | None
    sort: str | None
    descending: bool
    offset: int
    limit: int


def key_page(
    stage: str,
    by: str,
    newest: KeyedDataSet[Any, Any] | None,
    choice: KeyChoice,
    tasks: Collection[str],
) -> KeyPage:
    """Some keys of the newest window.

    :param tasks: the names of all tasks
    :raises RefusedRequest: if there is no such task, or the condition cannot be read
    """
    offset = choice.offset
    if newest is None:
        none: list[KeyRow] = []
        return KeyPage(
            stage=stage, by=by, end_ms=None, count=0, matching=0, offset=offset, rows=none
        )
    keys = newest.keys_of_rows
    order: Sequence[int]
    if choice.search:
        wanted = choice.search.casefold()
        order = [place for place, key in enumerate(keys) if wanted in str(key).casefold()]
    else:
        order = range(len(keys))
    if choice.where is not None:
        order = places_where(choice.where, dict(newest.by_task()), tasks, order)
    if choice.sort is not None:
        order = _sorted(newest, order, choice.sort, choice.descending)
    elif choice.descending:
        order = order[::-1]
    chosen = order[offset : offset + min(choice.limit, _MOST_ROWS)]
    rows: list[KeyRow] = []
    errors = newest.errors
    for place in chosen:
        key = keys[place]
        failed = {error.task: why(error) for error in _of_key(errors, key, newest)}
        results = scalars(newest.of_key(key))
        rows.append(KeyRow(key=key_told(key) or "", results=results, errors=failed))
    return KeyPage(
        stage=stage,
        by=by,
        end_ms=end_ms(newest),
        count=len(keys),
        matching=len(order),
        offset=offset,
        rows=rows,
    )


def _of_key(errors: Mapping[Any, Any], key: Any, newest: KeyedDataSet[Any, Any]) -> Sequence[Any]:
    if not errors:
        return ()
    names = {name if isinstance(name, str) else name[0] for name in errors}
    found = (errors.get((name, key), errors.get(name)) for name in names)
    return [error for error in found if error is not None]


def _sorted(
    newest: KeyedDataSet[Any, Any], order: Sequence[int], task: str, descending: bool
) -> Sequence[int]:
    columns = dict(newest.by_task())
    if task not in columns:
        if task in newest.errors:  # it failed for all keys
            return order
        reason = f"sort={task!r:.80}: there is no such task"
        raise RefusedRequest(HTTPStatus.NOT_FOUND, reason)
    column = columns[task]
    values = [column[place] for place in order]
    numbers = np.fromiter(map(as_number, values), np.float64, len(values))
    if not np.isnan(numbers).all():
        ranked: Sequence[int] = np.argsort(
            -numbers if descending else numbers, kind="stable"
        ).tolist()
        return [order[rank] for rank in ranked]  # NaN comes last
    texts = [None if value is None else str(scalar(value)) for value in values]
    there = [rank for rank, text in enumerate(texts) if text is not None]
    there.sort(key=lambda rank: texts[rank] or "", reverse=descending)
    missing = [rank for rank, text in enumerate(texts) if text is None]
    return [order[rank] for rank in (*there, *missing)]


def fates(watched: WatchedPipeline, source: str, since_ms: float) -> FatesTold:
    """Counts of the rows of a source over the last hour."""
    found = watched.counts.read(source, None, since_ms)
    times = list(found.ends_ms)
    return FatesTold(
        source=source,
        times_ms=times,
        columns={
            name: [0 if math.isnan(count) else int(count) for count in column]
            for name, column in found.columns.items()
        },
        next=times[-1] if times else None,
    )
