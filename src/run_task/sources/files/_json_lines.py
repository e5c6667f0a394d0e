"""JSON Lines files, by pyarrow where it can."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import tzinfo
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.columnar import _columns as cols
from run_task.columnar._arrow_columns import arrow_type, may_be_rounded, one_array
from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.sources._batch import Batch
from run_task.sources._chunk import Chunk
from run_task.sources._faults import MOST_MALFORMED, OnFault
from run_task.sources._json_rows import MalformedRow, read_object, read_row
from run_task.sources._parts import part_bytes
from run_task.sources._text_blocks import (
    LONGEST_LINE,
    BadLine,
    RecordBlock,
    check_longest,
    is_utf8,
)
from run_task.sources.files._file import RecordedFile, first_of
from run_task.sources.files._listing import FileOrder, Paths
from run_task.sources.files._live import POLL, following
from run_task.sources.files._sorting import SORT_ROWS
from run_task.time._clock import Clock
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike

_log = Log(__name__)

_SAMPLE_LINES: Final = 1_000


class JsonLinesFile(RecordedFile):
    """The rows of a JSON Lines file: an object a line.

    ::

        source = JsonLinesFile("events.jsonl", timestamp="at", unit=TimeUnit.SECONDS)
        for timestamp, row in source:
            print(timestamp, row)

    A row is malformed if its line is not a JSON object in UTF-8, if its timestamp is none, or if a
    value is not of its column's type: no text is read as a number, and no number as a text. It
    costs itself and no more. A value
    that is null or missing is NaN in a float column and ``""`` in a str column; in an int and in
    a bool column it is malformed. An empty line is no row, and not malformed either.

    Where no type is given, the columns are those of the first rows, up to 1,000 of each of the
    first 8 MiB, and a column is of the type that most of its values there have: float for numbers,
    since decimals and missing values may come later, bool or str. To have ints, declare them.

    Where a text of eight digits may be a date, as ``20240131``, or a count, those rows tell: if all
    timestamps there are dates of the years 1900 to 2099, they are dates. With ``stored=`` they are
    counts; numbers always are.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.jsonl"``, or a list;
        each also by a URL, such as ``"s3://bucket/data/*.jsonl"``;
        what gzip, bz2, xz, zstd or lz4 made is decompressed, whatever its name
    :param timestamp: the key of the timestamp: a number, or a text in ISO 8601, which is in UTC
        where it names no zone
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
    :param max_malformed: which share of the rows that are read at once, some 1 MiB of the file, may
        be malformed at most, from 0 to 1. If more are, :meth:`batches` raises, since then the
        declaration is likely wrong; where fewer than 100 rows are read at once, it does not
    :param longest_line: how many bytes a line has at most; one that is longer is malformed
    :param format: the format of timestamps that are texts, as
        :meth:`datetime.datetime.strptime` has it; None: numbers, or ISO 8601
    :param fold: which of the two times it is that clocks of ``zone`` show twice, when they are put
        back: 0 for the first, 1 for the second
    :param storage_options: what the file system of a URL takes, as fsspec has it, such as
        ``{"anon": True}``; messages show nothing of it
    :param follow: whether to go on with what is appended, as ``tail -F`` does, also when the file
        is renamed and made anew, or emptied; it need not be there yet. So are all files of a list
    :param poll: how long to wait before a file that is followed is looked at again: a TaskInterval,
        a timedelta, or a text such as ``"250ms"``
    :param clock: where to wait for it; None: the machine's
    :raises ConfigError: if there is no such file or column, a column holds neither numbers nor
        texts, or pyarrow is not installed
    """

    _columns_are_fixed = False
    _timestamp_kind: cols.Kind = int

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
        max_malformed: float = MOST_MALFORMED,
        longest_line: int = LONGEST_LINE,
        format: str | None = None,  # noqa: A002 as readers call it
        fold: int = 0,
        storage_options: Mapping[str, Any] | None = None,
        follow: bool = False,
        poll: IntervalLike = POLL,
        clock: Clock | None = None,
    ) -> None:
        self._following = following(follow, poll, clock, "JsonLinesFile")
        self._longest = check_longest("JsonLinesFile", longest_line)
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
            format=format,
            fold=fold,
            storage_options=storage_options,
        )

    def _look(self) -> dict[str, cols.Kind]:
        values: dict[str, list[Any]] = {}
        bad: str | None = None
        for block in first_of(self._blocks()):
            for line in block.records(_SAMPLE_LINES):
                try:
                    found = read_object(line) if line.strip() else {}
                except MalformedRow as error:
                    bad = bad or error.reason
                    continue
                for name, value in found.items():
                    values.setdefault(name, []).append(value)
            if self._are_enough(values):
                break
        if not values:
            if bad is not None and (not self._wanted or None in self._wanted.values()):
                self._untold = f"no line that is a JSON object tells its columns: {bad}"
            return {name: kind or float for name, kind in self._wanted.items()}
        # A column that is declared may come later in the file.
        declared: dict[str, list[Any]] = {
            name: [] for name, kind in self._wanted.items() if kind is not None
        }
        chosen = self._choose({**declared, **values})
        for name in declared:
            if name not in values:
                _log.warning("%s: no row among the first has a column %r", self._where, name)
        self._times.look_at(values[self._timestamp])
        self._timestamp_kind = _kind_of_times(values[self._timestamp])
        kinds: dict[str, cols.Kind] = {}
        for name, found in chosen.items():
            kind = self._wanted.get(name) or _kind_of(found)
            if kind is None:
                raise ConfigError(
                    f"{self._where}: column {name!r} holds neither numbers nor texts: leave it "
                    f"out by columns="
                )
            kinds[name] = kind
        return kinds

    def _are_enough(self, values: Mapping[str, Sequence[Any]]) -> bool:
        """Whether some of the first rows tell all that is to be found out of them: the types of
        columns are declared, each of them is there, and how timestamps are written is plain."""
        return (
            self._timestamp in values
            and bool(self._wanted)
            and all(name in values and kind is not None for name, kind in self._wanted.items())
            and self._times.is_settled(values[self._timestamp])
        )

    def _last(self) -> int | None:
        return read_row(self._last_line(), self._timestamp, self._times, {})[0]

    def _blocks(self) -> Generator[RecordBlock | BadLine]:
        line = 1
        with closing(self._place.open()) as stream:
            for block in self._records_in(stream):
                line = block.next_line
                yield from self._in_hand(block)
            self._check(stream, line)

    def _chunks(self) -> Iterator[Chunk]:
        pa = need("pyarrow", "arrow")
        kinds = {**self._kinds, self._timestamp: self._timestamp_kind}
        schema = pa.schema({name: arrow_type(kind) for name, kind in kinds.items()})
        with closing(self._ahead(self._blocks())) as found:
            for block in found:
                if isinstance(block, BadLine):
                    yield self._bad_line(block)
                elif (arrays := self._by_arrow(block.data, len(block.lines), schema)) is not None:
                    yield self._chunk(arrays, block.lines)
                else:
                    stripped = [record.strip() for record in block.records()]
                    there = [at for at, text in enumerate(stripped) if text]
                    lines, rows = block.lines[there], [stripped[at] for at in there]
                    data = b"".join(row + b"\n" for row in rows)
                    if len(there) < len(stripped) and (
                        (arrays := self._by_arrow(data, len(rows), schema)) is not None
                    ):
                        yield self._chunk(arrays, lines)
                    elif there:
                        yield self._line_by_line(rows, lines.tolist())

    def _by_arrow(self, data: bytes, rows: int, schema: Any) -> dict[str, Any] | None:
        """Columns of lines that are an object each; None if they are to be read one by one: some
        are none, or have what may be an int that a float rounds."""
        arrays = _columns_of(data, rows, schema)
        rounded = arrays is not None and any(
            may_be_rounded(arrays[name]) for name in self._inferred & arrays.keys()
        )
        return None if rounded else arrays

    def _line_by_line(self, rows: list[bytes], lines: list[int]) -> Chunk:
        timestamps: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in self._kinds}
        good: list[int] = []
        faults: dict[int, Any] = {}
        for line, text in zip(lines, rows):
            try:
                when, row = read_row(
                    text, self._timestamp, self._times, self._kinds, self._inferred
                )
            except MalformedRow as bad:
                faults[line] = self._error(line, bad.column, bad.reason)
                continue
            good.append(line)
            timestamps.append(when)
            for name, value in row.items():
                values[name].append(value)
        arrays = {name: cols.array_of(values[name], kind) for name, kind in self._kinds.items()}
        batch = Batch(np.array(timestamps, np.int64), arrays)
        return Chunk(batch, np.array(good, np.int64), faults)


def _columns_of(data: bytes, rows: int, schema: Any) -> dict[str, Any] | None:
    """Columns of lines that are an object each; None if some are not, or Arrow cannot read them:
    which line it was, it does not say.

    :param data: the lines, with a line feed after each
    :param rows: how many they are
    """
    pa = need("pyarrow", "arrow")
    json = need("pyarrow.json", "arrow")
    if not rows:
        return None
    if b"\r" in data:  # many times as fast as to look for both
        data = data.replace(b"\r\n", b"\n")
    # Arrow also takes two objects on a line, and one on two. If each line begins and ends as an
    # object does, and there are as many objects as lines, it is one a line. Nor does it see whether
    # a text is UTF-8.
    text = np.frombuffer(data, np.uint8)
    feeds = np.flatnonzero(text == ord("\n"))
    begins = np.append(0, feeds[:-1] + 1)
    if not ((text[begins] == ord("{")).all() and (text[feeds - 1] == ord("}")).all()):
        return None
    if not is_utf8(data):
        return None
    parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    # With threads, Arrow takes no line that is longer than a part.
    for part in dict.fromkeys((part_bytes(len(data)), None)):
        read = json.ReadOptions(use_threads=part is not None, block_size=part or len(data) + 1)
        try:
            table = json.read_json(pa.BufferReader(data), read, parse)
        except (pa.ArrowException, UnicodeDecodeError):
            continue
        if table.num_rows == rows:
            return {name: one_array(table.column(name)) for name in schema.names}
    return None


def _kind_of_times(values: list[Any]) -> cols.Kind:
    """The type that timestamps can be read as at once, if all are as these."""
    types: set[type] = {type(value) for value in values if value is not None}
    return str if types == {str} else float if float in types else int


def _kind_of(values: list[Any]) -> cols.Kind | None:
    """The type that most values are of: float for numbers, since there may be decimals or nothing
    at all further on.

    :param values: those there are
    :return: the type; None if none of the values is of any
    """
    types: list[type] = [type(value) for value in values if value is not None]
    if not types:
        return float
    counts: dict[cols.Kind, int] = {
        float: types.count(int) + types.count(float),
        bool: types.count(bool),
        str: types.count(str),
    }
    kind = max(counts, key=lambda kind: counts[kind])
    return kind if counts[kind] else None
