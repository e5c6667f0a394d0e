"""CSV files, by pyarrow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from csv import QUOTE_MINIMAL, QUOTE_NONE
from csv import reader as lines_of
from datetime import tzinfo
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.sources import _columns as cols
from run_task.sources._faults import OnFault
from run_task.sources._timestamps import parse
from run_task.sources.files._file import Chunk, RecordedFile
from run_task.sources.files._lines import WholeLines
from run_task.sources.files._listing import FileOrder, Paths
from run_task.sources.files._sorting import SORT_ROWS
from run_task.time._interval import TimeUnit

_BLOCK_BYTES: Final = 1 << 20
_SAMPLE_ROWS: Final = 10_000


class CsvFile(RecordedFile):
    r"""The rows of a CSV file.

    ::

        columns = {"price": float, "size": int}
        source = CsvFile("prices.csv", timestamp="time", columns=columns)
        for timestamp, row in source:
            print(timestamp, row["price"])

    A row is malformed if it has more or fewer values than the file has columns, if its timestamp
    is none, or if a value is not of its column's type. A line that is empty, or has nothing but
    delimiters, is no row, and not malformed either. A missing value (nothing, ``NA``, ``null``,
    ``NaN`` and the like) is NaN in a float column; in an int and in a bool column it is
    malformed; in a str column, what stands there is the text.

    Where no type is given, a column is of the type that most values among the first rows have.

    Values in quotes may hold line breaks, and lines are counted right. A quote that is never
    closed swallows what follows, up to the next one, as in any reader of CSV: where it makes a
    value longer than 1 MiB, the file cannot be read on. ``quote=None`` reads files whose quotes
    mean nothing; there no value spans lines.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.csv"``, or a list; what
        gzip, bz2, xz, zstd or lz4 made is decompressed, whatever its name
    :param timestamp: the column of the timestamps: numbers, or texts in ISO 8601, which are in
        UTC where they name no zone
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
    :param names: the names of the columns, for a file that does not begin with them
    :param delimiter: what stands between two values
    :param quote: what stands around a value that holds the delimiter or a line break; None:
        nothing does
    :raises ConfigError: if there is no such file or column, or the file is empty, or pyarrow is
        not installed
    """

    def __init__(
        self,
        path: Paths,
        *,
        timestamp: str = "timestamp",
        unit: TimeUnit = TimeUnit.MILLIS,
        stored: TimeUnit | None = None,
        columns: cols.ColumnChoice = None,
        on_malformed: OnFault = OnFault.SKIP,
        batch_rows: int = 65_536,
        zone: str | tzinfo | None = None,
        order: FileOrder = FileOrder.LISTED,
        sort: bool = False,
        sort_rows: int = SORT_ROWS,
        names: Sequence[str] | None = None,
        delimiter: str = ",",
        quote: str | None = '"',
    ) -> None:
        for parameter, text in (("delimiter", delimiter), ("quote", quote)):
            if text is not None and len(text) != 1:
                raise ConfigError(f"CsvFile({parameter}={text!r}): it is one character")
        self._names = names
        self._delimiter = delimiter
        self._quote = quote
        self._all: list[str] = []
        super().__init__(
            path,
            timestamp=timestamp,
            unit=unit,
            stored=stored,
            columns=columns,
            on_malformed=on_malformed,
            batch_rows=batch_rows,
            zone=zone,
            order=order,
            sort=sort,
            sort_rows=sort_rows,
        )

    def _look(self) -> dict[str, cols.Kind]:
        pa = need("pyarrow", "arrow")
        with self._place.open() as stream:
            try:
                with self._open(stream, {}, deque()) as reader:
                    self._all = reader.schema.names
            except pa.ArrowInvalid as error:
                reason = stream.failure or error
                raise ConfigError(f"{self._where}: cannot be read: {reason}") from error
        twice = {name for name in self._all if self._all.count(name) > 1}
        if twice:
            raise ConfigError(
                f"{self._where}: there are two columns {twice.pop()!r}: give all of them names=, "
                f"and take the first line out"
            )
        chosen = self._choose(dict.fromkeys(self._all))
        kinds = {name: self._wanted.get(name) for name in chosen}
        if None not in kinds.values():
            return {name: kind for name, kind in kinds.items() if kind is not None}
        with (
            self._place.open() as stream,
            self._open(stream, self._as_they_stand(pa), deque()) as reader,
        ):
            sample = next(iter(reader), None)
        if sample is not None:
            pc = need("pyarrow.compute", "arrow")
            sample = sample.filter(_not_blank(pa, pc, sample))[:_SAMPLE_ROWS]
        return {
            name: kind or (float if sample is None else cols.kind_of_texts(sample.column(name)))
            for name, kind in kinds.items()
        }

    def _last(self) -> int | None:
        (row,) = lines_of(
            [self._last_line().decode()],
            delimiter=self._delimiter,
            quotechar=self._quote,
            quoting=QUOTE_NONE if self._quote is None else QUOTE_MINIMAL,
        )
        if len(row) != len(self._all):
            return None  # the end of a text of several lines
        text = row[self._all.index(self._timestamp)]
        return parse(text, self._stored.nanos, self._unit.nanos, self._clock)

    def _as_they_stand(self, pa: Any) -> dict[str, Any]:
        return dict.fromkeys(self._all, pa.binary())

    def _open(self, stream: WholeLines, types: Mapping[str, Any], skipped: deque[Any]) -> Any:
        csv = need("pyarrow.csv", "arrow")

        def skip(row: Any) -> str:
            skipped.append(row)
            return "skip"

        return csv.open_csv(
            stream,
            # With threads, Arrow does not know the numbers of rows.
            read_options=csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, column_names=self._names
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._quote if self._quote is not None else False,
                newlines_in_values=self._quote is not None,
                # An empty line is a row to Arrow, so that it counts.
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            convert_options=csv.ConvertOptions(column_types=types),
        )

    def _chunks(self) -> Iterator[Chunk]:
        pa = need("pyarrow", "arrow")
        skipped: deque[Any] = deque()  # Arrow reads ahead: some of these come later in the file
        counter = _LineCounter(self._names is None, self._all)
        try:
            with (
                self._place.open() as stream,
                self._open(stream, self._as_they_stand(pa), skipped) as reader,
            ):
                for batch in reader:
                    yield self._take(batch, counter, skipped)
                if skipped:  # after the last row that is good
                    yield self._take(_no_rows(pa, self._all), counter, skipped)
                self._check(stream, counter.line)
        except pa.ArrowInvalid as error:
            raise self._error(counter.line, None, f"cannot be read on: {error}") from error

    def _take(self, batch: Any, counter: _LineCounter, skipped: deque[Any]) -> Chunk:
        """A chunk of what Arrow read, and of what it skipped in between."""
        pa = need("pyarrow", "arrow")
        pc = need("pyarrow.compute", "arrow")
        breaks = _line_breaks(pc, batch) if self._quote is not None else None
        lines, found = counter.place(batch.num_rows, breaks, skipped)
        there = _not_blank(pa, pc, batch)
        filled = batch.filter(there)
        arrays = dict(zip(filled.schema.names, filled.columns))
        chunk = self._chunk(arrays, lines[there.to_numpy(zero_copy_only=False)])
        for line, row in found:
            reason = (
                f"{row.actual_columns} values for {row.expected_columns} columns: "
                f"{row.text[:120]!r}"
            )
            chunk.faults[line] = self._error(line, None, reason)
        return chunk


class _LineCounter:
    """Finds the line of each row that Arrow gives, and of each that it skipped.

    :param header: whether the first line holds the names of the columns
    :param names: these names
    """

    def __init__(self, header: bool, names: Sequence[str]) -> None:
        self.line: int = 1 + (1 + sum(name.count("\n") for name in names) if header else 0)
        self._number = 2 if header else 1  # of the next row, as Arrow numbers them

    def place(
        self, rows: int, breaks: NDArray[np.int64] | None, skipped: deque[Any]
    ) -> tuple[NDArray[np.int64], list[tuple[int, Any]]]:
        """The lines of the next rows, and what Arrow skipped among them, with its lines.

        :param rows: how many rows
        :param breaks: how many line breaks stand inside each; None: none at all
        :param skipped: what Arrow skipped so far; what lies among these rows is taken out
        """
        found: list[tuple[int, Any]] = []
        lines = np.empty(rows, np.int64)
        placed = 0
        while True:
            before = skipped[0].number - self._number if skipped else rows
            count = min(rows - placed, before)
            lines[placed : placed + count] = np.arange(self.line, self.line + count)
            self.line += count
            if breaks is not None:
                inside = np.cumsum(breaks[placed : placed + count])
                lines[placed + 1 : placed + count] += inside[:-1]
                self.line += int(inside[-1]) if count else 0
            placed += count
            self._number += count
            if not skipped or skipped[0].number != self._number:
                return lines, found
            row = skipped.popleft()
            found.append((self.line, row))
            self.line += 1 + row.text.count("\n")
            self._number += 1


def _no_rows(pa: Any, names: Sequence[str]) -> Any:
    return pa.RecordBatch.from_arrays([pa.array([], pa.binary())] * len(names), list(names))


def _line_breaks(pc: Any, batch: Any) -> NDArray[np.int64] | None:
    breaks = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        breaks += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
    return breaks if breaks.any() else None


def _not_blank(pa: Any, pc: Any, batch: Any) -> Any:
    """Which rows have something in some column."""
    there = None
    for column in batch.columns:
        filled = pc.greater(pc.binary_length(column), 0)
        there = filled if there is None else pc.or_(there, filled)
        if pc.all(there).as_py():
            break
    return there
