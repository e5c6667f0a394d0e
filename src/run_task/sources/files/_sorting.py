"""Rows in the order of their time, of files in which they are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from run_task.errors import SourceError
from run_task.sources._batch import Batch

SORT_ROWS: Final = 10_000_000
"""How many rows are sorted in memory at most, unless somebody has said another number."""


def in_order(batches: Iterable[Batch], most: int, batch_rows: int, where: str) -> Iterator[Batch]:
    """The rows in the order of their time; of one time, in the order in which they stand.

    :param batches: the rows
    :param most: how many there may be
    :param batch_rows: how many rows a batch has at most
    :param where: the source, for messages
    :raises SourceError: if there are more
    """
    read: list[Batch] = []
    count = 0
    for batch in batches:
        count += len(batch)
        if count > most:
            raise SourceError(
                where,
                None,
                None,
                f"it has more than {most:,} rows, too many to sort in memory: raise sort_rows=, "
                f"or sort the file first, as by `sort` or a database; where rows are late only by "
                f"so much, leave out sort= and let windows wait for them by grace=",
            )
        read.append(batch)
    if not read:
        return
    times = np.concatenate([batch.timestamps for batch in read])
    columns = {
        name: np.concatenate([batch.columns[name] for batch in read]) for name in read[0].columns
    }
    read.clear()
    order = np.argsort(times, kind="stable")
    for start in range(0, count, batch_rows):
        rows = order[start : start + batch_rows]
        yield Batch(times[rows], {name: column[rows] for name, column in columns.items()})
