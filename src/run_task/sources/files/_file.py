"""What the file sources have in common: batches out of chunks, without what is malformed."""

from __future__ import annotations

import contextlib
import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import tzinfo
from itertools import islice
from typing import Any, ClassVar, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar import _columns as cols
from run_task.columnar._arrow_columns import from_arrow
from run_task.columnar._timestamps import Times
from run_task.errors import ConfigError, SourceError
from run_task.observe._format import brief, quoted
from run_task.observe._url import url_shown
from run_task.sources._arguments import check, check_flag, check_share
from run_task.sources._batch import Batch
from run_task.sources._chunk import Chunk, without_faults
from run_task.sources._faults import MOST_MALFORMED, Faults, OnFault, faults_told_to
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo
from run_task.sources._text_blocks import (
    LONGEST_LINE,
    BadLine,
    Quoting,
    RecordBlock,
    Stream,
    blocks,
)
from run_task.sources.files._ahead import ahead
from run_task.sources.files._compression import other_format
from run_task.sources.files._followed import FollowedFiles, FollowedRows
from run_task.sources.files._lines import WholeLines
from run_task.sources.files._listing import FileOrder, Paths, check_order, listed
from run_task.sources.files._live import Followed, Following
from run_task.sources.files._place import FilePlace
from run_task.sources.files._remote import check_options
from run_task.sources.files._sorting import SORT_ROWS, in_order
from run_task.time._interval import TimeUnit

T = TypeVar("T")

_TAIL_BYTES: Final = 1 << 16
_SAMPLE_BLOCKS: Final = 8
_NAMED: Final = 30
"""How many columns a message names."""


class RecordedFile(ABC):
    """A file of timestamped rows, or several, one after the other.

    They are read in batches and in constant memory, however large they are, and from the start each
    time they are iterated.
    """

    _columns_are_fixed: ClassVar[bool] = True
    """Whether all rows of a file have the same columns."""

    _spelling: cols.Spelling | None = cols.SPELLING
    """How values are spelled in it, where it is a file of texts."""

    _can_be_live: ClassVar[bool] = True
    """Whether a file can be read while it is being written."""

    _following: Following | None = None
    """How it is followed; None: it is not."""

    _followed: FollowedFiles | None = None
    """What reads files that are followed, once it was asked for."""

    _is_one_of_shards: bool = False
    """Whether it is followed by a shard, which may have to read rows again."""

    _longest: int = LONGEST_LINE
    """How many bytes a line has at most, of a file of lines."""

    _inferred: frozenset[str] = frozenset()
    """The float columns of which nobody has said that they are: no int is rounded there."""

    _told_last: tuple[int | None] | None = None
    """The timestamp of the last row of a remote file, as it was told last."""

    _untold: str | None = None
    """Why nothing in one of the files tells its columns, as where it is empty; None: it does."""

    _place: FilePlace
    """Where it lies, of a source that is one of the files of another one."""

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
        format: str | None = None,  # noqa: A002 as readers call it
        fold: int = 0,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        need("pyarrow", "arrow")  # every file is read by it, if not at once
        self._where = self._called(path)
        check(self._where, unit, stored, on_malformed)
        for name, count in (("batch_rows", batch_rows), ("sort_rows", sort_rows)):
            if type(count) is not int or count < 1:
                raise ConfigError(f"{self._where}: {name}={count!r}: it is a positive int")
        check_order(self._where, order)
        check_flag(self._where, "sort", sort)
        self._timestamp = timestamp
        self._unit = unit
        self._times = Times(self._where, unit, stored, zone, fold, format)
        self._wanted = cols.declared(columns, self._where)
        self._batch_rows = batch_rows
        self._on_malformed = on_malformed
        self._most_malformed = check_share(self._where, max_malformed)
        self._faults = Faults(on_malformed, self._most_malformed)
        self._sort_rows = sort_rows if sort else None
        options = check_options(storage_options, self._where)
        places = listed(path, self._where, self._following, options)
        if sort and any(place.endless for place in places):
            raise ConfigError(f"{self._where}: with follow= it has no end, and cannot be sorted")
        parts = [self._part(place) for place in places]
        self._kinds: Mapping[str, cols.Kind] = self._common(parts)
        self._inferred = frozenset(
            name
            for name, kind in self._kinds.items()
            if kind is float and self._wanted.get(name) is None
        )
        for part in parts:
            part._kinds = self._kinds
            part._inferred = self._inferred
        if order is FileOrder.FIRST_TIME and len(parts) > 1:
            for part in parts:
                if part._place.live:
                    raise ConfigError(f"{part._where}: its first row is not known beforehand")
            parts.sort(key=lambda part: part._first_time())
        self._parts = parts

    @property
    def unit(self) -> TimeUnit:
        """The unit of the timestamps given."""
        return self._unit

    @property
    def columns(self) -> Mapping[str, cols.Kind]:
        """The columns of each row, with their types."""
        return self._kinds

    @property
    def malformed(self) -> int:
        """How many malformed rows there were so far, in the reading that began last."""
        return self._faults.count

    def about(self) -> SourceInfo:
        """Its unit, the timestamp of its last row, where that stands at the end, whether it is
        followed and so has no end, and whether it is a pipe, which can be read once."""
        last = None
        if self._sort_rows is None:
            # Whatever is wrong with it is told when it is read.
            with contextlib.suppress(Exception):
                last = self._last_time()
        return SourceInfo(
            unit=self._unit,
            endless=any(part._place.endless for part in self._parts),
            once=any(part._place.once for part in self._parts),
            last=last,
            malformed=self.malformed,
        )

    def _last_time(self) -> int | None:
        """The timestamp of the last row, which of a remote file is found once for each reading.

        :raises Exception: if it cannot be told
        """
        part = self._parts[-1]
        if not part._place.far:
            return part._last()
        if self._told_last is None:
            self._told_last = (part._last(),)
        return self._told_last[0]

    def close(self) -> None:
        """Stop waiting for what is still to be written. From any thread; a file that is followed,
        or a pipe, gives no more rows; others are read on."""
        if (followed := self.positioned) is not None:
            followed.close()
        for part in self._parts:
            part._place.stop()

    @property
    def positioned(self) -> FollowedFiles | None:
        """What has its positions, where it is followed; None: it is not, and is read from its start
        each time."""
        if self._following is not None and self._followed is None:
            self._followed = self._follow()
        return self._followed

    @property
    def position(self) -> Position:
        """Behind what was given last of what is followed, as of :class:`Positioned`."""
        if (followed := self.positioned) is None:
            raise AttributeError("only what is followed has a position")
        return followed.position

    def partitions(self) -> Mapping[str, RecordedFile]:
        """Its files by name, each as a source of its own; of those that are followed, each begins
        with the start of the file that is there now."""
        return {part._place.name: self._alone(part) for part in self._parts}

    def _alone(self, part: RecordedFile) -> RecordedFile:
        alone, one = copy.copy(part), copy.copy(part)
        alone._faults = Faults(self._on_malformed, self._most_malformed)
        alone._parts = [one]
        alone._followed, alone._is_one_of_shards = None, True
        if isinstance(part._place, Followed):
            alone._place = one._place = place = part._place.anew()
            place.mark = place.begins()
        return alone

    def _follow(self) -> FollowedFiles:
        rows: dict[str, FollowedRows] = {}
        for part in self._parts:
            place = part._place
            assert isinstance(place, Followed)
            rows[place.name] = FollowedRows(
                *(place, part._chunks, self._batch_rows, self.about),
                needs_all=self._is_one_of_shards,
            )
        return FollowedFiles(self._where, rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_followed"}

    def batches(self) -> Iterator[Batch]:
        """The rows in batches of at most ``batch_rows``.

        :raises SourceError: at a malformed row, if such are fatal, after all rows before it; before
            rows of which more are malformed than ``max_malformed`` allows; where a file as a whole
            cannot be read on; and where there are more rows than are sorted
        """
        self._faults = faults = Faults(self._on_malformed, self._most_malformed)
        if (followed := self.positioned) is not None:
            return followed.reading(faults).batches()
        self._told_last = None
        read = (batch for part in self._parts for batch in part._read(faults))
        if self._sort_rows is not None:
            return in_order(read, self._sort_rows, self._batch_rows, self._where)
        return (
            batch[start : start + self._batch_rows]
            for batch in read
            for start in range(0, len(batch), self._batch_rows)
        )

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of the file one by one: timestamp, and value by column."""
        if (followed := self.positioned) is None:
            for batch in self.batches():
                yield from batch.rows()
            return
        self._faults = Faults(self._on_malformed, self._most_malformed)
        yield from followed.reading(self._faults)

    def __repr__(self) -> str:
        return self._where

    @classmethod
    def _called(cls, path: Paths) -> str:
        if isinstance(path, str | os.PathLike):
            return f"{cls.__name__}({_without_secrets(path)!r})"
        given: Any = path
        if type(given) in (list, tuple):
            given = [_without_secrets(one) for one in given]
        return f"{cls.__name__}({brief(given)})"

    def _part(self, place: FilePlace) -> Self:
        """A source of one of the files, which has been looked at.

        :raises ConfigError: if it cannot be read
        """
        part = copy.copy(self)
        part._place = place
        part._times = copy.copy(self._times)  # what it finds out of times is that file's
        part._where = self._called(place.name)
        try:
            part._kinds = part._declared() if place.live else part._look()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{part._where}: cannot be read: {error}") from error
        except ConfigError as error:
            other = other_format(place.head())
            if other is None or type(self).__name__ in other:
                raise
            raise ConfigError(f"{part._where}: {other}") from error
        return part

    def _declared(self) -> dict[str, cols.Kind]:
        """The columns of a file that cannot be looked into before it is read.

        :raises ConfigError: if they were not declared
        """
        if not self._can_be_live:
            raise ConfigError(f"{self._where}: it is read from its end, and so not from a pipe")
        kinds = {name: kind for name, kind in self._wanted.items() if kind is not None}
        if not kinds or len(kinds) < len(self._wanted):
            raise ConfigError(
                f"{self._where}: it is still being written, and not looked into beforehand: "
                f"declare its columns with their types, as by columns={{'price': float}}"
            )
        return kinds

    def _common(self, parts: Sequence[Self]) -> dict[str, cols.Kind]:
        """The columns of all of the files.

        :raises ConfigError: if a file lacks one of them, or they differ in the type of one, or
            nothing in any file tells them
        """
        kinds: dict[str, cols.Kind] = {}
        first: dict[str, Self] = {}
        if all(part._untold is not None for part in parts):
            why = other_format(parts[0]._place.head()) or parts[0]._untold
            raise ConfigError(f"{parts[0]._where}: {why}")
        for part in parts:
            for name, kind in part._kinds.items():
                before = kinds.setdefault(name, kind)
                first.setdefault(name, part)
                if {before, kind} == {int, float}:
                    kinds[name] = float
                elif before is not kind:
                    raise ConfigError(
                        f"{self._where}: column {name!r} is {before.__name__} in "
                        f"{first[name]._place.name!r} and {kind.__name__} in {part._place.name!r}: "
                        f"say by columns= what it is, or leave it out"
                    )
        for part in parts if self._columns_are_fixed else ():
            if part._untold is not None:
                continue
            for name in kinds.keys() - part._kinds.keys():
                raise ConfigError(
                    f"{self._where}: {part._place.name!r} has no column {name!r}, which "
                    f"{first[name]._place.name!r} has: name by columns= those that all of them have"
                )
        return kinds

    def _first_time(self) -> float:
        """The time of the first row of one of the files; of one that has none, infinity.

        :raises ConfigError: if it cannot be read
        """
        try:
            with faults_told_to(lambda _: None):
                for batch in self._read(Faults(OnFault.SKIP)):
                    if len(batch):
                        return int(batch.timestamps[0])
        except SourceError as error:
            raise ConfigError(f"{self._where}: {error}") from error
        return math.inf

    def _read(self, faults: Faults) -> Iterator[Batch]:
        """The good rows of one of the files."""
        try:
            for chunk in self._chunks():
                yield from without_faults(chunk, faults)
        except FileNotFoundError:
            raise self._error(
                None, None, "it was there when the source was made, and is gone"
            ) from None
        except OSError as error:
            raise self._error(None, None, f"cannot be read on: {error}") from error

    @abstractmethod
    def _look(self) -> dict[str, cols.Kind]:
        """Open the file, and find the columns to read."""

    @abstractmethod
    def _chunks(self) -> Iterator[Chunk]:
        """Read the file from its start, in the order of its lines."""

    @abstractmethod
    def _last(self) -> int | None:
        """The timestamp of the last row.

        :raises Exception: if it cannot be told
        """

    def _records_in(
        self, stream: Stream, quoting: Quoting | None = None, skip: int = 0
    ) -> Iterator[RecordBlock | BadLine]:
        """The records of a file of lines, from where a reading begins."""
        place = self._place
        if not isinstance(place, Followed):
            return blocks(stream, self._longest, quoting, skip)
        line = place.mark.line
        skip = skip if line == 1 else 0
        return blocks(stream, self._longest, quoting, skip, line=line, goes_on=not place.is_over)

    def _in_hand(self, block: RecordBlock | BadLine) -> Generator[RecordBlock | BadLine]:
        """Records, which are let go when more are asked for: then all is given that is in them."""
        place = self._place
        if isinstance(place, Followed):
            place.hold(block.next_line)
        yield block
        if isinstance(place, Followed):
            place.let_go()

    def _last_line(self) -> bytes:
        """The last line that is not blank, or, if it is very long, what ends it."""
        return self._place.tail(_TAIL_BYTES).rstrip().rpartition(b"\n")[2]

    def _check(self, stream: WholeLines, line: int) -> None:
        """See whether all of a file has been read.

        :param line: the one that comes next
        :raises SourceError: if not; all rows before have been given
        """
        if stream.failure is not None:
            raise self._error(line, None, f"cannot be read on: {stream.failure}")

    def _choose(self, there: Mapping[str, Any]) -> dict[str, Any]:
        """Of the columns that are there, those that were asked for.

        :raises ConfigError: if one is missing
        """
        for name in (self._timestamp, *self._wanted):
            if name not in there:
                names = [quoted(found) for found in islice(there, _NAMED)]
                more = f" and {len(there) - _NAMED:,} more" if len(there) > _NAMED else ""
                raise ConfigError(
                    f"{self._where}: there is no column {name!r}; there are "
                    f"{', '.join(names) or 'none'}{more}{self._cure(name, list(there))}"
                )
        wanted = self._wanted or [name for name in there if name != self._timestamp]
        return {name: there[name] for name in wanted}

    def _cure(self, name: str, there: Sequence[str]) -> str:
        """What to do where a column is missing, for messages; nothing, if nobody knows.

        :param there: those that are there
        """
        return ": say by timestamp= which has the timestamps" if name == self._timestamp else ""

    def _chunk(self, arrays: Mapping[str, Any], lines: NDArray[np.int64] | range) -> Chunk:
        """A chunk of Arrow arrays."""
        faults: dict[int, SourceError] = {}

        def blame(column: str, found: Mapping[int, str]) -> None:
            for position, reason in found.items():
                line = int(lines[position])
                faults.setdefault(line, self._error(line, column, reason))

        timestamps, found = self._times.of_column(arrays[self._timestamp])
        blame(self._timestamp, found)
        values: dict[str, NDArray[Any]] = {}
        for name, kind in self._kinds.items():
            if name == self._timestamp and kind is int:
                values[name] = timestamps
                continue
            values[name], found = from_arrow(
                arrays[name], kind, self._spelling, exactly=name in self._inferred
            )
            blame(name, found)
        return Chunk(Batch(timestamps, values), lines, faults)

    def _ahead(self, items: Generator[T]) -> Generator[T]:
        """What is read of the file, ahead of who uses it where that gains time: on several cores,
        and not of what is still being written or comes from another machine, since to wait for
        that may take long."""
        alone = need("pyarrow", "arrow").cpu_count() == 1
        return items if alone or self._place.live or self._place.far else ahead(items)

    def _bad_line(self, bad: BadLine) -> Chunk:
        """A chunk of no rows, but one that is malformed."""
        none = np.empty(0, np.int64)
        values = {name: cols.array_of([], kind) for name, kind in self._kinds.items()}
        fault = self._error(bad.line, None, bad.reason)
        return Chunk(Batch(none, values), none, {bad.line: fault})

    def _error(self, line: int | None, column: str | None, reason: str) -> SourceError:
        return SourceError(self._place.name, line, column, reason)


def _without_secrets(path: Any) -> Any:
    return url_shown(os.fspath(path)) if isinstance(path, str | os.PathLike) else path


def first_of(found: Iterator[RecordBlock | BadLine]) -> Iterator[RecordBlock]:
    """Some of the first blocks, to look at: as many as can be read, but one at least.

    :raises OSError: if not even one can be
    :raises SourceError: likewise
    """
    some = False
    try:
        for block in islice(found, _SAMPLE_BLOCKS):
            if isinstance(block, RecordBlock):
                some = True
                yield block
    except (OSError, SourceError):  # it is told when the file is read
        if not some:
            raise
