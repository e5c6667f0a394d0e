"""What a source gives behind its first rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from run_task.sources._batch import Batch, Batched
from run_task.sources._behind import batches_behind, rows_behind
from run_task.sources._protocol import SourceInfo, about


class Behind:
    """A source that can be read again, from behind its first rows on.

    :param source: the source
    :param rows: how many rows are left out
    """

    def __init__(self, source: Any, rows: int) -> None:
        self._source = source
        self._rows = rows

    def about(self) -> SourceInfo:
        """What the source says of itself."""
        return about(self._source)

    def __iter__(self) -> Iterator[Any]:
        return rows_behind(iter(self._source), self._rows)

    def close(self) -> None:
        """Close the source, if it can be closed."""
        close: object = getattr(self._source, "close", None)
        if callable(close):
            close()

    def __repr__(self) -> str:
        return repr(self._source)


class BatchesBehind(Behind):
    """The same of one that is ``Batched``, and is so, too."""

    def batches(self) -> Iterator[Batch]:
        """The rows, by column."""
        return batches_behind(self._source.batches(), self._rows)

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(batch.rows() for batch in self.batches())


def behind(source: Any, rows: int) -> Behind:
    """A source that can be read again, from behind its first rows on."""
    made = BatchesBehind if isinstance(source, Batched) else Behind
    return made(source, rows)
