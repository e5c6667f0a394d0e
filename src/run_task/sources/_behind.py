"""Rows behind the first ones, of what cannot begin there by itself."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

from run_task.sources._batch import Batch

T = TypeVar("T")


def rows_behind(rows: Iterator[T], count: int) -> Iterator[T]:
    """Rows, without the first of them.

    :param rows: the rows
    :param count: how many are left out
    """
    if not isinstance(rows, Generator):
        return itertools.islice(rows, count, None)
    given: Generator[Any, Any, Any] = rows  # pyright: ignore[reportUnknownVariableType]  of what, is all the same
    return _left(given, count)


def _left(rows: Generator[T, Any, Any], count: int) -> Generator[T]:
    with closing(rows):  # by the thread that reads it
        yield from itertools.islice(rows, count, None)


def batches_behind(batches: Iterator[Batch], count: int) -> Generator[Batch]:
    """Rows by column, without the first of them.

    :param batches: the rows
    :param count: how many are left out
    """
    try:
        for batch in batches:
            if count >= len(batch):
                count -= len(batch)
                continue
            yield batch[count:] if count else batch
            count = 0
    finally:
        if isinstance(batches, Generator):
            batches.close()
