"""Arrow's own files, by pyarrow: IPC files, which Feather V2 is, and streams."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, Final

from run_task._extras import need
from run_task.sources.files._columnar import ColumnarFile
from run_task.sources.files._place import check_uncut

_FILE: Final = b"ARROW1"
_OLD_FEATHER: Final = b"FEA1"


class ArrowFile(ColumnarFile):
    """The rows of an Arrow file: an IPC file, which Feather V2 is, or an IPC stream.

    ::

        source = ArrowFile("ticks.arrow", timestamp="time", columns=["price"])
        for batch in source.batches():
            print(len(batch), batch.columns["price"].mean())

    Which of them it is, is known by how it begins, and not by its name. Its buffers may be
    compressed by lz4 or zstd. It is read a record batch at a time, so one of those has to fit in
    memory.

    A row is malformed if its timestamp is none or null, or if a value is not of its column's type
    or, in an int or bool column, null. A null is NaN in a float column and ``""`` in a str
    column. Decimals are the nearest floats, or declared ``int`` or ``str`` what they are. Bytes are
    refused, unless they are declared ``str``. In place of a line, messages name the row, counted
    from 1.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.arrow"``, or a list;
        each also by a URL, such as ``"s3://bucket/data/*.arrow"``
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

    _format = "Arrow"

    @contextlib.contextmanager
    def _opened(self, names: Sequence[str] | None = None) -> Generator[tuple[Any, Any, bool]]:
        """A file of Arrow's, what reads it, and whether that can go to any batch.

        :param names: of which columns; None: of all
        """
        ipc = need("pyarrow.ipc", "arrow")
        with self._place.open_for_arrow() as raw:
            head = bytes(raw.read(len(_FILE)))
            raw.seek(0)
            if head.startswith(_OLD_FEATHER):
                raise OSError(
                    "it is Feather V1, which Arrow no longer writes: read it by an older pyarrow, "
                    "and write it again"
                )
            anywhere = head == _FILE
            opened = ipc.open_file if anywhere else ipc.open_stream
            options = ipc.IpcReadOptions()
            if names is not None:
                with opened(raw) as reader:
                    places = [reader.schema.names.index(name) for name in names]
                options = ipc.IpcReadOptions(included_fields=places)
                raw.seek(0)
            with opened(raw, options=options) as reader:
                yield raw, reader, anywhere

    def _schema(self) -> Any:
        with self._opened() as (_, reader, _):
            return reader.schema

    def _last(self) -> int | None:
        with self._opened([self._timestamp]) as (_, reader, anywhere):
            if not anywhere:
                return None  # it would have to be read to its end
            column = reader.get_batch(reader.num_record_batches - 1).column(0)
        found, faults = self._times.of_column(column[-1:])
        return None if faults else int(found[0])

    def _record_batches(self, names: Sequence[str]) -> Generator[Any]:
        return self._ahead(self._one_by_one(names))

    def _one_by_one(self, names: Sequence[str]) -> Generator[Any]:
        with self._opened(names) as (raw, reader, anywhere):
            if anywhere:
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = reader
            for batch in batches:
                check_uncut(raw)
                yield batch
            check_uncut(raw)
