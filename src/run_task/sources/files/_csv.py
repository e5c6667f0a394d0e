"""CSV files, by pyarrow, and record by record where that refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import tzinfo
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar import _columns as cols
from run_task.columnar._arrow_columns import NOT_UTF8, arrow_type, may_be_rounded, one_array
from run_task.columnar._timestamps import likely_type
from run_task.errors import ConfigError, SourceError
from run_task.observe._format import quoted
from run_task.sources._chunk import Chunk
from run_task.sources._faults import MOST_MALFORMED, OnFault
from run_task.sources._parts import part_bytes
from run_task.sources._text_blocks import (
    LONGEST_LINE,
    BadLine,
    Int64s,
    Quoting,
    RecordBlock,
    check_longest,
    is_utf8,
)
from run_task.sources.files._encoding import InUtf8, check_encoding, check_line_feed
from run_task.sources.files._file import RecordedFile, first_of
from run_task.sources.files._listing import FileOrder, Paths
from run_task.sources.files._live import POLL, Followed, following
from run_task.sources.files._sorting import SORT_ROWS
from run_task.time._clock import Clock
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike


class CsvFile(RecordedFile):
    r"""The rows of a CSV file.

    ::

        columns = {"price": float, "size": int}
        source = CsvFile("prices.csv", timestamp="time", columns=columns)
        for timestamp, row in source:
            print(timestamp, row["price"])

    A row is malformed if it has more or fewer values than the file has columns, if its timestamp
    is none, or if a value is not of its column's type or not text in its encoding. It costs itself
    and no more. A line that is empty, or has nothing but delimiters, is no row, and not malformed
    either. A missing value (nothing, ``NA``, ``null``, ``NaN`` and the like) is NaN in a float
    column; in an int and in a bool column it is malformed; in a str column, what stands there is
    the text.

    Where no type is given, a column is of the type that most values have in the first 8 MiB: float
    for numbers, since decimals and missing values may come later, bool or str. To have ints,
    declare them. A column without a name, as the one after a delimiter at the end of each line, is
    left out; two of the same name are refused.

    A line ends with a line feed, also after a carriage return. Values in quotes may hold line
    breaks, and lines are counted right. A quote that is never closed swallows what follows, up to
    the next one, as in any reader of CSV; where none comes within ``longest_line``, its line is
    malformed, and what follows is read on. ``quote=None`` reads files whose quotes mean nothing;
    there no value spans lines.

    Where a text of eight digits may be a date, as ``20240131``, or a count, those of the first
    8 MiB tell: if all are dates of the years 1900 to 2099, they are dates. With ``stored=`` they
    are counts.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.csv"``, or a list;
        each also by a URL, such as ``"s3://bucket/data/*.csv"``;
        what gzip, bz2, xz, zstd or lz4 made is decompressed, whatever its name
    :param timestamp: the column of the timestamps: numbers, or texts in ISO 8601, which are in
        UTC where they name no zone
    :param unit: the unit of the timestamps to give; what is finer is rounded down
    :param stored: the unit of timestamps that stand there as numbers; None: ``unit``
    :param columns: which columns to read: a mapping to ``float``, ``int``, ``bool`` or ``str``,
        a sequence of names, or None for all but the timestamp, which as an ``int`` is what the row
        is stamped with, in ``unit``
    :param on_malformed: what to do with a malformed row, if ``on_bad_row`` of the pipeline does not
        end the source
    :param batch_rows: how many rows a batch has at most
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC. A time that clocks there jump over is when they jump
    :param order: in which order several files are read
    :param sort: whether to sort the rows by their time, in memory, before the first is given; of
        several files all together
    :param sort_rows: how many rows are sorted at most; more are refused
    :param names: the names of the columns, for a file that does not begin with them
    :param delimiter: what stands between two values
    :param quote: what stands around a value that holds the delimiter or a line break; None:
        nothing does
    :param max_malformed: which share of the rows that are read at once, some 1 MiB of the file, may
        be malformed at most, from 0 to 1. If more are, :meth:`batches` raises, since then the
        declaration is likely wrong; where fewer than 100 rows are read at once, it does not
    :param longest_line: how many bytes a row has at most, its line breaks included; one that is
        longer is malformed
    :param encoding: the encoding of the file, such as ``"cp1252"`` or ``"utf-16"``
    :param decimal: what stands before the decimals of a number
    :param thousands: what may stand before each three digits of a number, such as ``"."``; None:
        nothing does. Numbers that have it elsewhere are malformed
    :param null_values: how a missing value is written, besides nothing at all; None: as listed
        above
    :param true_values: how a bool is written that is true, in small letters or capitals
    :param false_values: how one is written that is false
    :param comment: what a line begins with that is a comment; None: there are none
    :param skip_rows: how many lines to leave out at the beginning
    :param format: the format of timestamps, as :meth:`datetime.datetime.strptime` has it; None:
        numbers, or ISO 8601
    :param fold: which of the two times it is that clocks of ``zone`` show twice, when they are put
        back: 0 for the first, 1 for the second
    :param storage_options: what the file system of a URL takes, as fsspec has it, such as
        ``{"anon": True}``; messages show nothing of it
    :param follow: whether to go on with what is appended, as ``tail -F`` does, also when the file
        is renamed and made anew, or emptied; it need not be there yet. So are all files of a list
    :param poll: how long to wait before a file that is followed is looked at again: a TaskInterval,
        a timedelta, or a text such as ``"250ms"``
    :param clock: where to wait for it; None: the machine's
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
        max_malformed: float = MOST_MALFORMED,
        longest_line: int = LONGEST_LINE,
        encoding: str = "utf-8",
        decimal: str = ".",
        thousands: str | None = None,
        null_values: Sequence[str] | None = None,
        true_values: Sequence[str] = ("true", "1"),
        false_values: Sequence[str] = ("false", "0"),
        comment: str | None = None,
        skip_rows: int = 0,
        format: str | None = None,  # noqa: A002 as readers call it
        fold: int = 0,
        storage_options: Mapping[str, Any] | None = None,
        follow: bool = False,
        poll: IntervalLike = POLL,
        clock: Clock | None = None,
    ) -> None:
        _check_marks(delimiter, quote, decimal, thousands, comment)
        for parameter, words in (
            ("null_values", null_values),
            ("true_values", true_values),
            ("false_values", false_values),
        ):
            _check_words(parameter, words)
        both = {word.strip().lower() for word in true_values} & {
            word.strip().lower() for word in false_values
        }
        if both:
            raise ConfigError(f"CsvFile: {min(both)!r} is among true_values and false_values")
        if type(skip_rows) is not int or skip_rows < 0:
            raise ConfigError(f"CsvFile(skip_rows={skip_rows!r}): it is a number of lines")
        _check_words("names", names)
        self._names = names
        self._delimiter = delimiter
        self._quote = quote
        self._comment = comment
        self._quoting = Quoting(delimiter, quote, comment)
        self._skip = skip_rows
        self._words = cols.Spelling(null_values, true_values, false_values, decimal, thousands)
        self._spelling = self._words
        self._encoding = check_encoding(encoding, "CsvFile")
        self._following = following(follow, poll, clock, "CsvFile")
        if follow:
            check_line_feed(self._encoding, "CsvFile")
        self._longest = check_longest("CsvFile", longest_line)
        self._all: list[str] = [] if names is None else list(names)
        self._timestamp_type: Any = None
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
            max_malformed=max_malformed,
            fold=fold,
            storage_options=storage_options,
            format=format,
        )

    def _look(self) -> dict[str, cols.Kind]:
        try:
            self._all = self._header() if self._names is None else list(self._names)
        except SourceError as error:
            line = "" if error.line is None else f"line {error.line}: "
            raise ConfigError(f"{self._where}: cannot be read: {line}{error.reason}") from error
        if not self._all:
            self._untold = "cannot be read: Empty CSV file: it has no names of columns"
            return {}
        chosen = self._named()
        kinds = {name: self._wanted.get(name) for name in chosen}
        types_too = None in kinds.values()
        names = list({self._timestamp: None, **kinds}) if types_too else [self._timestamp]
        sample = self._sample(names, types_too=types_too)
        texts = sample[self._timestamp]
        self._times.look_at(texts.to_pylist())
        self._timestamp_type = likely_type(texts, self._times)
        unknown = {name: sample[name] for name, kind in kinds.items() if kind is None}
        found = cols.kinds_of_texts(unknown, self._words)
        return {name: kind or found[name] for name, kind in kinds.items()}

    def _named(self) -> dict[str, Any]:
        """Of the columns that have names, those that were asked for.

        :raises ConfigError: if one is missing, or there are two of one name
        """
        twice = {name for name, count in Counter(self._all).items() if name and count > 1}
        if twice:
            raise ConfigError(
                f"{self._where}: there are two columns {quoted(min(twice))}: give all of them "
                f"names=, and leave out the line with those that it has by "
                f"skip_rows={self._skip + 1}"
            )
        return self._choose(dict.fromkeys(filter(None, self._all)))

    def _header(self) -> list[str]:
        """The names of the columns; none, if the file is empty.

        :raises SourceError: if they cannot be read
        """
        for block in self._records():
            if isinstance(block, BadLine):
                raise self._error(block.line, None, block.reason)
            return self._names_in(block)
        return []

    def _names_in(self, block: RecordBlock) -> list[str]:
        """What a block begins with, as the names of the columns.

        :raises SourceError: if they cannot be read
        """
        line = int(block.lines[0])
        try:
            return [name.decode() for name in self._quoting.values(block.first())]
        except UnicodeDecodeError:
            reason = f"the names of the columns: {quoted(block.first())} {NOT_UTF8}"
            raise self._error(line, None, reason) from None
        except ValueError as error:
            raise self._error(line, None, f"the names of the columns: {error}") from error

    def _cure(self, name: str, there: Sequence[str]) -> str:
        first = there[0] if there else ""
        if self._comment is None and first.startswith(("#", "%")):
            return f": where a line that begins so is none, say comment={first[0]!r}"
        if first.startswith("sep="):
            return f": say skip_rows=1, delimiter={first[4:5]!r}"
        marks = [mark for mark in ";\t|," if mark in first]
        if len(there) == 1 and marks:
            return f": is it delimiter={marks[0]!r}?"
        return super()._cure(name, there)

    def _error(self, line: int | None, column: str | None, reason: str) -> SourceError:
        if reason.endswith(NOT_UTF8):
            encoding = self._encoding.upper()
            reason = f"{reason.removesuffix(NOT_UTF8)}is not text in {encoding}: say its encoding="
        return super()._error(line, column, reason)

    def _sample(self, names: list[str], *, types_too: bool) -> dict[str, Any]:
        """Columns of the first rows, as they stand there.

        :param types_too: whether they are to tell types, too, and not only timestamps
        """
        pa = need("pyarrow", "arrow")
        found: dict[str, list[Any]] = {name: [pa.array([], pa.binary())] for name in names}
        for block in first_of(self._rows()):
            arrays, _, _ = self._arrays(block, dict.fromkeys(names, pa.binary()))
            for name, array in arrays.items():
                found[name].append(array)
            times = found[self._timestamp][-1].to_pylist()
            if not types_too and self._times.is_settled(times):
                break
        return {name: pa.concat_arrays(arrays) for name, arrays in found.items()}

    def _arrow_types(self) -> dict[str, Any]:
        """Arrow types that the columns can be read as at once, where all is well."""
        pa = need("pyarrow", "arrow")
        types: dict[str, Any] = {self._timestamp: self._timestamp_type or pa.binary()}
        for name, kind in self._kinds.items():
            if name == self._timestamp:
                if kind is not int:  # it is also wanted as it stands there
                    types[name] = pa.binary()
            elif kind in (int, float) and self._words.thousands is not None:
                types[name] = pa.binary()
            else:
                types[name] = arrow_type(kind)
        return types

    def _last(self) -> int | None:
        line = self._last_line()
        if self._encoding != "utf-8" or (self._comment and line.startswith(self._comment.encode())):
            return None
        row = self._quoting.values(line)
        if len(row) != len(self._all):
            return None  # the end of a text of several lines
        return self._times.parse(row[self._all.index(self._timestamp)].decode())

    def _records(self) -> Iterator[RecordBlock | BadLine]:
        """The records of the file, those of names and those that are blank included."""
        named = self._begins_with_rows
        line = 1
        with closing(self._place.open()) as stream:
            text = stream if self._encoding == "utf-8" else InUtf8(stream, self._encoding)
            for one in self._records_in(text, self._quoting, self._skip):
                block = one
                line = block.next_line
                if not named and isinstance(block, RecordBlock):  # what is blank before the names
                    while len(block.lines) and self._quoting.is_blank(block.first()):
                        block = block.without_first()
                    if not len(block.lines):
                        continue
                    named = True
                if named:
                    yield from self._in_hand(block)
                else:
                    yield block
            self._check(stream, line)

    @property
    def _begins_with_rows(self) -> bool:
        """Whether what is read now does not begin with the names of the columns."""
        place = self._place
        return self._names is not None or (isinstance(place, Followed) and place.mark.line > 1)

    def _rows(self) -> Generator[RecordBlock | BadLine]:
        """The records of rows."""
        named = self._begins_with_rows
        if named and not self._all:
            place = self._place
            assert isinstance(place, Followed)
            with place.from_its_start():
                self._all = self._header()
        for block in self._records():
            if named:
                yield block
            elif isinstance(block, RecordBlock):
                named = True
                if self._place.live:  # so that nobody has looked at them before
                    self._all = self._names_in(block)
                    try:
                        self._named()
                    except ConfigError as error:
                        raise self._error(int(block.lines[0]), None, str(error)) from error
                if len(block.lines) > 1:
                    yield block.without_first()

    def _chunks(self) -> Iterator[Chunk]:
        types = self._arrow_types()
        with closing(self._ahead(self._rows())) as found:
            for block in found:
                if isinstance(block, BadLine):
                    yield self._bad_line(block)
                    continue
                arrays, lines, faults = self._arrays(block, types)
                chunk = self._chunk(arrays, lines)
                chunk.faults.update(faults)
                yield chunk

    def _arrays(
        self, block: RecordBlock, types: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Int64s, dict[int, SourceError]]:
        """Columns of the rows of a block, as some types if all of their values are of these, and
        else as they stand there; the lines of the rows; and what is wrong with those left out."""
        pa = need("pyarrow", "arrow")
        binary = dict.fromkeys(types, pa.binary())
        found = None
        if types != binary and not _has_hexadecimal(block.data):  # no ints to us
            found = self._by_arrow(block, types)
            if found is not None and self._needs_texts(found[0]):
                found = None
        found = found or self._by_arrow(block, binary)
        arrays, there, faults = found or self._one_by_one(block, binary)
        timestamps = arrays[self._timestamp]
        if pa.types.is_binary(timestamps.type):
            blank = self._blank(block, there, timestamps)
            if blank is not None:
                arrays = {name: array.filter(pa.array(~blank)) for name, array in arrays.items()}
                there = there[~blank]
        whole = len(there) == len(block.lines)
        return arrays, block.lines if whole else block.lines[there], faults

    def _needs_texts(self, arrays: Mapping[str, Any]) -> bool:
        """Whether what stands in the file is to be looked at: a timestamp that is none, to be told,
        or what may be an int that a float rounds."""
        return arrays[self._timestamp].null_count > 0 or any(
            may_be_rounded(arrays[name])
            for name in self._inferred & arrays.keys()
            if arrays[name].type == arrow_type(float)
        )

    def _by_arrow(
        self, block: RecordBlock, types: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Int64s, dict[int, SourceError]] | None:
        """The columns of a block, the positions of their rows, and what is wrong with others; None
        if Arrow cannot read it."""
        count = len(block.lines)
        there = np.arange(count)
        part = part_bytes(len(block.data)) if block.has_a_record_a_line else None
        if part is not None:
            # With threads, Arrow does not know the numbers of rows, nor takes a record that is
            # longer than a part: what is not all right is read again by one.
            table = self._table(block.data, types, part)
            if table is not None and table.num_rows == count:
                return {name: one_array(table.column(name)) for name in types}, there, {}
        skipped: list[int] = []

        def skip(row: Any) -> str:
            skipped.append(row.number - 1)
            return "skip"

        # What it skips, Arrow shows as a text.
        table = self._table(block.data, types, None, skip if is_utf8(block.data) else None)
        if table is None or table.num_rows + len(skipped) != count:
            return None  # a carriage return has ended a row
        arrays = {name: one_array(table.column(name)) for name in types}
        if not skipped:
            return arrays, there, {}
        records = block.records()
        ragged = (at for at in skipped if not self._quoting.is_blank(records[at]))
        faults = dict(self._ragged(block, at, records[at]) for at in ragged)
        return arrays, np.delete(there, skipped), faults

    def _table(
        self,
        data: bytes,
        types: Mapping[str, Any],
        part: int | None,
        on_ragged: Callable[[Any], str] | None = None,
    ) -> Any:
        """What Arrow reads of records; None if it cannot.

        :param types: the columns wanted, with their types
        :param part: how many bytes each of several threads reads at a time; None: one reads all
        :param on_ragged: what a row is given to that is too short or too long; None: it is refused
        """
        pa = need("pyarrow", "arrow")
        csv = need("pyarrow.csv", "arrow")
        spelling = self._words
        try:
            return csv.read_csv(
                pa.BufferReader(data),
                csv.ReadOptions(
                    use_threads=part is not None,
                    block_size=part or len(data) + 1,
                    column_names=[name or f"\0{at}" for at, name in enumerate(self._all)],
                ),
                csv.ParseOptions(
                    delimiter=self._delimiter,
                    quote_char=self._quote if self._quote is not None else False,
                    # An empty line is a row to Arrow, so that it counts.
                    ignore_empty_lines=False,
                    invalid_row_handler=on_ragged,
                ),
                csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=list(spelling.nulls),
                    true_values=_as_written(spelling.true),
                    false_values=_as_written(spelling.false),
                    decimal_point=spelling.decimal,
                ),
            )
        except (pa.ArrowException, UnicodeDecodeError):
            return None

    def _one_by_one(
        self, block: RecordBlock, types: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Int64s, dict[int, SourceError]]:
        """The same, of any block."""
        pa = need("pyarrow", "arrow")
        rows: list[list[bytes]] = []
        there: list[int] = []
        faults: dict[int, SourceError] = {}
        for at, record in enumerate(block.records()):
            try:
                values = self._quoting.values(record)
            except ValueError as error:
                line = int(block.lines[at])
                faults[line] = self._error(line, None, f"{error}: {_head(record)}")
                continue
            if len(values) == len(self._all):
                rows.append(values)
                there.append(at)
            elif not self._quoting.is_blank(record):
                line, fault = self._ragged(block, at, record)
                faults[line] = fault
        place_of = {name: place for place, name in enumerate(self._all)}
        places = [place_of[name] for name in types]
        arrays = {
            name: pa.array([row[place] for row in rows], pa.binary())
            for name, place in zip(types, places)
        }
        return arrays, np.array(there, np.int64), faults

    def _ragged(self, block: RecordBlock, at: int, record: bytes) -> tuple[int, SourceError]:
        """What is wrong with a record that is too short or too long, and its line."""
        line = int(block.lines[at])
        count = len(self._quoting.values(record))
        reason = f"{count} values for {len(self._all)} columns: {_head(record)}"
        return line, self._error(line, None, reason)

    def _blank(
        self, block: RecordBlock, there: Int64s, timestamps: Any
    ) -> NDArray[np.bool_] | None:
        """Which rows have nothing in any column; None if there is none."""
        pc = need("pyarrow.compute", "arrow")
        lengths = pc.binary_length(timestamps)
        blank: NDArray[np.bool_] = pc.equal(lengths, 0).to_numpy(zero_copy_only=False)
        if not blank.any():
            return None
        records = block.records()
        empty: list[int] = np.flatnonzero(blank).tolist()
        for at in empty:
            blank[at] = self._quoting.is_blank(records[int(there[at])])
        return blank


def _check_marks(
    delimiter: str, quote: str | None, decimal: str, thousands: str | None, comment: str | None
) -> None:
    """Refuse marks that cannot be, or that mean two things.

    :raises ConfigError: if there is one
    """
    marks = {
        "delimiter": delimiter,
        "quote": quote,
        "decimal": decimal,
        "thousands": thousands,
        "comment": comment,
    }
    seen: list[tuple[str, str]] = []
    for name, mark in marks.items():
        if mark is None and name not in ("delimiter", "decimal"):
            continue
        if not isinstance(mark, str) or len(mark) != 1:
            raise ConfigError(f"CsvFile({name}={mark!r}): it is one character")
        if mark in "\r\n" or (name != "thousands" and not mark.isascii()):
            raise ConfigError(
                f"CsvFile({name}={mark!r}): it is an ASCII character, and ends no line"
            )
        for other, before in seen:
            # Numbers in quotes may have the delimiter in them.
            number = other == "delimiter" and name in ("decimal", "thousands")
            if before == mark and not number:
                raise ConfigError(f"CsvFile: {mark!r} is both {other}= and {name}=")
        seen.append((name, mark))
        if name in ("decimal", "thousands") and (mark.isdigit() or mark in "+-eE"):
            raise ConfigError(f"CsvFile({name}={mark!r}): it is a part of numbers")


def _check_words(parameter: str, words: object) -> None:
    if words is None and parameter in ("null_values", "names"):
        return
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise ConfigError(f"CsvFile({parameter}={words!r}): it is a list of texts")
    for word in cast("Sequence[object]", words):
        if not isinstance(word, str):
            raise ConfigError(f"CsvFile({parameter}={words!r}): {word!r} is no text")


def _as_written(words: Sequence[str]) -> list[str]:
    """Words in small letters, in capitals and with one, which Arrow takes for others."""
    return list({form(word) for word in words for form in (str.lower, str.upper, str.title)})


def _has_hexadecimal(data: bytes) -> bool:
    """Whether 0x or 0X stands anywhere in some bytes."""
    if b"x" not in data and b"X" not in data:
        return False
    text = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(text | 0x20 == ord("x"))  # several times as fast as to look for two bytes
    return bool((text[at[at > 0] - 1] == ord("0")).any())


def _head(record: bytes) -> str:
    return repr(record.decode(errors="backslashreplace")[:120])
