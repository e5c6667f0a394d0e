"""Parquet files, by pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.sources import _columns as cols
from run_task.sources._timestamps import is_readable
from run_task.sources.files._file import Chunk, RecordedFile


class ParquetFile(RecordedFile):
    """The rows of a Parquet file.

    ::

        source = ParquetFile("ticks.parquet", timestamp="time", columns=["price"])
        for batch in source.batches():
            print(len(batch), batch.columns["price"].mean())

    A row is malformed if its timestamp is none or null, or if a value is not of its column's type
    or, in an int or bool column, null. A null is NaN in a float column and ``""`` in a str
    column. In place of a line, messages name the row, counted from 1.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.parquet"``, or a list
    :param timestamp: the column of the timestamps: Arrow timestamps or dates, numbers, or texts
        in ISO 8601; those without a zone are in UTC
    :param unit: the unit of the timestamps to give; what is finer is rounded down
    :param stored: the unit of timestamps that stand there as numbers; None: ``unit``
    :param columns: which columns to read: a mapping to ``float``, ``int``, ``bool`` or ``str``,
        a sequence of names, or None for all but the timestamp, which as an ``int`` is what the row
        is stamped with, in ``unit``
    :param on_malformed: what to do with a malformed row
    :param batch_rows: how many rows a batch has at most
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC
    :param order: in which order several files are read
    :param sort: whether to sort the rows by their time, in memory, before the first is given; of
        several files all together
    :param sort_rows: how many rows are sorted at most; more are refused
    :raises ConfigError: if there is no such file or column, a column's type is none of these, or
        pyarrow is not installed
    """

    _can_be_live = False

    @contextlib.contextmanager
    def _opened(self) -> Generator[Any]:
        # Without pre_buffer a row group is read bit by bit, and need not fit in memory.
        with (
            self._place.open_for_arrow() as raw,
            need("pyarrow.parquet", "arrow").ParquetFile(raw, pre_buffer=False) as file,
        ):
            yield file

    def _look(self) -> dict[str, cols.Kind]:
        pa = need("pyarrow", "arrow")
        try:
            with self._opened() as file:
                schema = file.schema_arrow
        except pa.ArrowInvalid as error:
            reason = str(error)
            if (codec := self._place.compression()) is not None:
                reason = f"it is a {codec} archive: unpack it; what is in it is compressed itself"
            raise ConfigError(f"{self._where}: cannot be read: {reason}") from error
        there = dict(zip(schema.names, schema.types))
        chosen = self._choose(there)
        if not is_readable(there[self._timestamp]):
            raise ConfigError(
                f"{self._where}: column {self._timestamp!r} is {there[self._timestamp]}, which is "
                f"no timestamp"
            )
        found: dict[str, cols.Kind] = {}
        for name, arrow_type in chosen.items():
            kind = cols.kind_of_type(arrow_type)
            if kind is None:
                raise ConfigError(
                    f"{self._where}: column {name!r} is {arrow_type}, which is neither a number "
                    f"nor a text: leave it out by columns="
                )
            found[name] = self._wanted.get(name) or kind
            if name == self._timestamp and found[name] is int:
                continue  # it is the timestamp
            if not cols.can_be(arrow_type, found[name]):
                raise ConfigError(
                    f"{self._where}: column {name!r} is {arrow_type}, which cannot be read as "
                    f"{found[name].__name__}"
                )
        return found

    def _last(self) -> int | None:
        pa = need("pyarrow", "arrow")
        with self._opened() as file:
            meta, kind = file.metadata, file.schema_arrow.field(self._timestamp).type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return None  # the greatest text need not be the latest
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        columns = [g.column(at) for g in groups for at in range(g.num_columns)]
        there = [c for c in columns if c.path_in_schema == self._timestamp]
        greatest = pa.array([max(c.statistics.max for c in there)], kind)
        found, faults = self._times.of_column(greatest)
        return None if faults else int(found[0])

    def _chunks(self) -> Iterator[Chunk]:
        pa = need("pyarrow", "arrow")
        row = 1
        names = list(dict.fromkeys((self._timestamp, *self._kinds)))
        try:
            with self._opened() as file:
                for batch in file.iter_batches(self._batch_rows, columns=names):
                    lines = np.arange(row, row + int(batch.num_rows), dtype=np.int64)
                    row += len(lines)
                    yield self._chunk(dict(zip(batch.schema.names, batch.columns)), lines)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._error(row, None, f"cannot be read on: {error}") from error
