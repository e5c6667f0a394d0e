"""Parquet files, by pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.columnar._arrow_columns import SOME_TEXTS, texts_repeat
from run_task.sources.files._columnar import ColumnarFile
from run_task.sources.files._place import check_uncut

_READ_BYTES: Final = 1 << 16
_SMALL: Final = 1 << 26
"""Up to how many bytes the columns of a file may be in memory as they stand there."""


class ParquetFile(ColumnarFile):
    """The rows of a Parquet file.

    ::

        source = ParquetFile("ticks.parquet", timestamp="time", columns=["price"])
        for batch in source.batches():
            print(len(batch), batch.columns["price"].mean())

    A row is malformed if its timestamp is none or null, or if a value is not of its column's type
    or, in an int or bool column, null. A null is NaN in a float column and ``""`` in a str
    column. Decimals are the nearest floats, or declared ``int`` or ``str`` what they are. Bytes are
    refused, unless they are declared ``str``. In place of a line, messages name the row, counted
    from 1.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.parquet"``, or a list;
        each also by a URL, such as ``"s3://bucket/data/*.parquet"``
    :param timestamp: the column of the timestamps: Arrow timestamps or dates, numbers, decimals,
        or texts in ISO 8601; those without a zone are in UTC
    :param unit: the unit of the timestamps to give; what is finer is rounded down
    :param stored: the unit of timestamps that stand there as numbers; None: ``unit``
    :param columns: which columns to read: a mapping to ``float``, ``int``, ``bool`` or ``str``,
        a sequence of names, or None for all but the timestamp, which as an ``int`` is what the row
        is stamped with, in ``unit``
    :param on_malformed: what to do with a malformed row, if ``on_bad_row`` of the pipeline does not
        end the source
    :param batch_rows: how many rows a batch has at most
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC
    :param order: in which order several files are read
    :param sort: whether to sort the rows by their time, in memory, before the first is given; of
        several files all together
    :param sort_rows: how many rows are sorted at most; more are refused
    :param max_malformed: which share of ``batch_rows`` rows may be malformed at most, from 0 to 1.
        If more are, :meth:`batches` raises, since then the declaration is likely wrong; where fewer
        than 100 rows are read at once, it does not
    :param format: the format of timestamps that are texts, as
        :meth:`datetime.datetime.strptime` has it; None: numbers, or ISO 8601
    :param fold: which of the two times it is that clocks of ``zone`` show twice, when they are put
        back: 0 for the first, 1 for the second
    :param storage_options: what the file system of a URL takes, as fsspec has it, such as
        ``{"anon": True}``; messages show nothing of it
    :raises ConfigError: if there is no such file or column, or two of a name, a column's type is
        none of these, or pyarrow is not installed
    """

    _format = "Parquet"
    _latest: int | None = None

    @contextlib.contextmanager
    def _opened(self, texts: Sequence[str] = ()) -> Generator[tuple[Any, Any]]:
        """A file of Arrow's, and what reads it.

        :param texts: the columns to read as dictionaries where their texts repeat
        """
        parquet = need("pyarrow.parquet", "arrow")
        with self._place.open_for_arrow() as raw:
            # So a row group of a large file is read bit by bit, and need not fit in memory. In a
            # small one a page that claims to be of gigabytes cannot make Arrow take them.
            buffer = _READ_BYTES if raw.size() > _SMALL else 0
            little = {"pre_buffer": False, "buffer_size": buffer}
            file = parquet.ParquetFile(raw, **little)
            if repeating := _repeating(file, texts):
                file = parquet.ParquetFile(
                    raw, metadata=file.metadata, read_dictionary=repeating, **little
                )
            yield raw, file

    def _schema(self) -> Any:
        with self._opened() as (_, file):
            return file.schema_arrow

    def _last(self) -> int | None:
        if self._latest is not None:  # a watcher asks time and again
            return self._latest
        # The latest of the last rows. Not by statistics: where those are broken, Arrow ends the
        # process.
        latest: list[int] = []
        with self._opened() as (_, file):
            groups = [file.num_row_groups - 1]
            for batch in file.iter_batches(
                row_groups=groups, columns=[self._timestamp], use_threads=False
            ):
                found, faults = self._times.of_column(batch.column(0))
                good = np.delete(found, list(faults))
                latest += [int(good.max())] if len(good) else []
        self._latest = max(latest, default=None)
        return self._latest

    def _record_batches(self, names: Sequence[str]) -> Generator[Any]:
        # Of a dictionary, each text is made an object once, and not time and again.
        texts = [name for name, kind in self._kinds.items() if kind is str]
        rows = 0
        with self._opened(texts) as (raw, file):
            # With threads it would take no less time where others compute, too, and each of them
            # would keep memory.
            for batch in file.iter_batches(self._batch_rows, columns=names, use_threads=False):
                check_uncut(raw)
                rows += batch.num_rows
                yield batch
            check_uncut(raw)
            if rows != file.metadata.num_rows:
                raise OSError(
                    f"it has {rows:,} rows, and says that they are {file.metadata.num_rows:,}"
                )


def _repeating(file: Any, names: Sequence[str]) -> list[str]:
    """The columns whose first texts repeat.

    What a file says of how its columns are stored is not asked: where that is broken, Arrow ends
    the process.

    :param file: what reads it
    """
    if not names or not file.num_row_groups:
        return []
    try:
        some = file.iter_batches(SOME_TEXTS, row_groups=[0], columns=list(names), use_threads=False)
        first = next(some, None)
    except Exception:  # it is told when it is read
        first = None
    return [name for name in names if first is not None and texts_repeat(first.column(name))]
