"""JSON Lines files, by pyarrow where it can."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.sources import _columns as cols
from run_task.sources._batch import Batch
from run_task.sources._json_rows import MalformedRow, read_object, read_row
from run_task.sources.files._file import Chunk, RecordedFile

_log = Log(__name__)

_BLOCK_BYTES: Final = 1 << 20
_SAMPLE_LINES: Final = 1_000
_BOM: Final = b"\xef\xbb\xbf"


class JsonLinesFile(RecordedFile):
    """The rows of a JSON Lines file: an object a line.

    ::

        source = JsonLinesFile("events.jsonl", timestamp="at", unit=TimeUnit.SECONDS)
        for timestamp, row in source:
            print(timestamp, row)

    A row is malformed if its line is not a JSON object, if its timestamp is none, or if a value
    is not of its column's type: no text is read as a number, and no number as a text. A value
    that is null or missing is NaN in a float column and ``""`` in a str column; in an int and in
    a bool column it is malformed. An empty line is no row, and not malformed either.

    Where no type is given, the columns are those of the first rows, and a column is of the type
    that most of its values there have.

    :param path: the file, or several: a folder, a pattern such as ``"data/*.jsonl"``, or a list;
        what gzip, bz2, xz, zstd or lz4 made is decompressed, whatever its name
    :param timestamp: the key of the timestamp: a number, or a text in ISO 8601, which is in UTC
        where it names no zone
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
    :raises ConfigError: if there is no such file or column, a column holds neither numbers nor
        texts, or pyarrow is not installed
    """

    _columns_are_fixed = False
    _timestamp_kind: cols.Kind = int

    def _look(self) -> dict[str, cols.Kind]:
        values: dict[str, list[Any]] = {}
        count = 0
        for _, lines in self._blocks():
            for line in lines[:_SAMPLE_LINES]:
                try:
                    found = read_object(line) if line.strip() else {}
                except MalformedRow:
                    continue
                count += bool(found)
                for name, value in found.items():
                    values.setdefault(name, []).append(value)
            break
        if not values:
            return {name: kind or float for name, kind in self._wanted.items()}
        # A column that is declared may come later in the file.
        declared: dict[str, list[Any]] = {
            name: [] for name, kind in self._wanted.items() if kind is not None
        }
        chosen = self._choose({**declared, **values})
        for name in declared:
            if name not in values:
                _log.warning("%s: no row among the first has a column %r", self._where, name)
        self._timestamp_kind = _kind_of(values[self._timestamp], count) or int
        kinds: dict[str, cols.Kind] = {}
        for name, found in chosen.items():
            kind = self._wanted.get(name) or _kind_of(found, count)
            if kind is None:
                raise ConfigError(
                    f"{self._where}: column {name!r} holds neither numbers nor texts: leave it "
                    f"out by columns="
                )
            kinds[name] = kind
        return kinds

    def _last(self) -> int | None:
        stored_ns, unit_ns = self._stored.nanos, self._unit.nanos
        return read_row(self._last_line(), self._timestamp, stored_ns, unit_ns, {}, self._clock)[0]

    def _blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """The lines of the file, some at a time, and the number of the first of them."""
        number = 1
        rest = b""
        with self._place.open() as stream:
            while block := stream.read(_BLOCK_BYTES):
                head, line_break, tail = block.rpartition(b"\n")
                if not line_break:
                    rest += tail
                    continue
                lines = (rest + head).removeprefix(_BOM if number == 1 else b"").split(b"\n")
                yield number, lines
                number += len(lines)
                rest = tail
            self._check(stream, number)
        if number == 1:
            rest = rest.removeprefix(_BOM)
        if rest:
            yield number, [rest]

    def _chunks(self) -> Iterator[Chunk]:
        pa = need("pyarrow", "arrow")
        json = need("pyarrow.json", "arrow")
        schema = pa.schema(
            {
                name: {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}[
                    kind
                ]
                for name, kind in {**self._kinds, self._timestamp: self._timestamp_kind}.items()
            }
        )
        parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        for number, texts in self._blocks():
            stripped = [text.strip() for text in texts]
            there = [at for at, text in enumerate(stripped) if text]
            if not there:
                continue
            lines = np.array(there, np.int64) + number
            rows = [stripped[at] for at in there]
            # Arrow also takes two objects on a line, and one on two. If each line begins and ends
            # as an object does, and there are as many objects as lines, it is one a line.
            if all(row[:1] == b"{" and row[-1:] == b"}" for row in rows):
                block = b"\n".join(rows)
                read = json.ReadOptions(use_threads=False, block_size=len(block) + 1)
                try:
                    table = json.read_json(io.BytesIO(block), read, parse).combine_chunks()
                except (pa.ArrowException, UnicodeDecodeError):
                    pass  # which line it was, Arrow does not say
                else:
                    if table.num_rows == len(rows):
                        arrays = {name: _one(pa, table.column(name)) for name in table.schema.names}
                        yield self._chunk(arrays, lines)
                        continue
            yield self._line_by_line(rows, lines.tolist())

    def _line_by_line(self, rows: list[bytes], lines: list[int]) -> Chunk:
        timestamps: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in self._kinds}
        good: list[int] = []
        faults: dict[int, Any] = {}
        stored_ns, unit_ns = self._stored.nanos, self._unit.nanos
        for line, text in zip(lines, rows):
            try:
                when, row = read_row(
                    text, self._timestamp, stored_ns, unit_ns, self._kinds, self._clock
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


def _one(pa: Any, column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _kind_of(values: list[Any], count: int) -> cols.Kind | None:
    """The type that most values are of, int only if no number is a float and none is missing.

    :param values: those there are
    :param count: how many there would be if none was missing
    :return: the type; None if none of the values is of any
    """
    types: list[type] = [type(value) for value in values if value is not None]
    if not types:
        return float
    whole = types.count(int)
    numbers = whole + types.count(float)
    counts: dict[cols.Kind, int] = {
        int if whole == numbers and len(types) == count else float: numbers,
        bool: types.count(bool),
        str: types.count(str),
    }
    kind = max(counts, key=lambda kind: counts[kind])
    return kind if counts[kind] else None
