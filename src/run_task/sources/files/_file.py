"""What the file sources have in common: batches out of chunks, without what is malformed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError, SourceError
from run_task.sources import _columns as cols
from run_task.sources import _timestamps as times
from run_task.sources._arguments import check
from run_task.sources._batch import Batch
from run_task.sources._faults import Faults, OnFault
from run_task.sources._protocol import SourceInfo
from run_task.sources.files._lines import WholeLines
from run_task.sources.files._place import LocalFile
from run_task.time._interval import TimeUnit
from run_task.time._wall_time import WallClock

_TAIL_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as they stand in a file, good and bad.

    :param batch: the rows; where one is bad, anything may stand
    :param lines: the line of each
    :param faults: what is wrong, by line; also lines that gave no row at all
    """

    batch: Batch
    lines: NDArray[np.int64]
    faults: dict[int, SourceError] = field(default_factory=dict[int, SourceError])


class RecordedFile(ABC):
    """A file of timestamped rows.

    It is read in batches and in constant memory, however large it is, and from the start each
    time it is iterated.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timestamp: str = "timestamp",
        unit: TimeUnit = TimeUnit.MILLIS,
        stored: TimeUnit | None = None,
        columns: cols.ColumnChoice = None,
        on_malformed: OnFault = OnFault.SKIP,
        batch_rows: int = 65_536,
        zone: str | tzinfo | None = None,
    ) -> None:
        self._where = f"{type(self).__name__}({os.fspath(path)!r})"
        check(self._where, unit, stored, on_malformed)
        if type(batch_rows) is not int or batch_rows < 1:
            raise ConfigError(f"{self._where}: batch_rows={batch_rows!r}: it is a positive int")
        self._timestamp = timestamp
        self._unit = unit
        self._clock = None if zone is None else WallClock(zone)
        self._stored = stored or unit
        self._wanted = cols.declared(columns, self._where)
        self._batch_rows = batch_rows
        self._on_malformed = on_malformed
        self._faults = Faults(on_malformed)
        self._place = LocalFile(Path(path), self._where)
        try:
            self._kinds: Mapping[str, cols.Kind] = self._look()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{self._where}: cannot be read: {error}") from error

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
        """Its unit, and the timestamp of its last row, where that stands at the end."""
        try:
            last = self._last()
        except Exception:  # whatever is wrong with it is told when it is read
            last = None
        return SourceInfo(unit=self._unit, last=last, malformed=self.malformed)

    def batches(self) -> Iterator[Batch]:
        """The rows of the file in batches of at most ``batch_rows``.

        :raises SourceError: at a malformed row, if such are fatal, after all rows before it; and
            where the file as a whole cannot be read on
        """
        self._faults = faults = Faults(self._on_malformed)
        try:
            for chunk in self._chunks():
                for batch in _without_faults(chunk, faults):
                    for start in range(0, len(batch), self._batch_rows):
                        yield batch[start : start + self._batch_rows]
        except OSError as error:
            raise self._error(None, None, f"cannot be read on: {error}") from error

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of the file one by one: timestamp, and value by column."""
        for batch in self.batches():
            yield from batch.rows()

    def __repr__(self) -> str:
        return self._where

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
                raise ConfigError(
                    f"{self._where}: there is no column {name!r}; there are "
                    f"{', '.join(map(repr, there)) or 'none'}"
                )
        wanted = self._wanted or [name for name in there if name != self._timestamp]
        return {name: there[name] for name in wanted}

    def _chunk(self, arrays: Mapping[str, Any], lines: NDArray[np.int64]) -> Chunk:
        """A chunk of Arrow arrays."""
        faults: dict[int, SourceError] = {}

        def blame(column: str, found: Mapping[int, str]) -> None:
            for position, reason in found.items():
                line = int(lines[position])
                faults.setdefault(line, self._error(line, column, reason))

        timestamps, found = times.from_arrow(
            arrays[self._timestamp], self._stored.nanos, self._unit.nanos, self._clock
        )
        blame(self._timestamp, found)
        values: dict[str, NDArray[Any]] = {}
        for name, kind in self._kinds.items():
            if name == self._timestamp and kind is int:
                values[name] = timestamps
                continue
            values[name], found = cols.from_arrow(arrays[name], kind)
            blame(name, found)
        return Chunk(Batch(timestamps, values), lines, faults)

    def _error(self, line: int | None, column: str | None, reason: str) -> SourceError:
        return SourceError(self._place.name, line, column, reason)


def _without_faults(chunk: Chunk, faults: Faults) -> Iterator[Batch]:
    """The good rows; the rows before a fault that is fatal come before it is raised."""
    if not chunk.faults:
        yield chunk.batch
        return
    if faults.on_fault is OnFault.RAISE:
        first = min(chunk.faults)
        yield chunk.batch[: int(np.searchsorted(chunk.lines, first))]
        faults.note(chunk.faults[first])
    for line in sorted(chunk.faults):
        faults.note(chunk.faults[line])
    yield chunk.batch.where(~np.isin(chunk.lines, list(chunk.faults)))
