"""Tables of other libraries as sources."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from run_task._extras import is_of_library
from run_task.columnar import _columns as cols
from run_task.columnar import _frame_columns as of_frame
from run_task.columnar._any_frame import AnyFrame, is_frame
from run_task.columnar._arrow_columns import is_bytes, kind_of_type, plain_type
from run_task.columnar._frame import Frame
from run_task.data import TimeSeries
from run_task.errors import ConfigError, SourceError
from run_task.sources._arguments import check, check_share
from run_task.sources._batch import Batch
from run_task.sources._chunk import Chunk, without_faults
from run_task.sources._faults import MOST_MALFORMED, Faults, OnFault
from run_task.sources._protocol import SourceInfo
from run_task.time._interval import TimeUnit
from run_task.time._wall_time import WallClock


class FrameSource:
    """The rows of a table of another library.

    ::

        frame = polars.scan_parquet("ticks/*.parquet").filter(polars.col("price") > 0)
        pipeline.source(FrameSource(frame, timestamp="traded_at"), into=trades)

    A pipeline makes one of any table that it is given as a source; by hand it is made to say more
    than that. Rows are read in batches: those of a LazyFrame, a reader or a dataset as they come,
    so that not all of them have to fit in memory. The table is read anew each time, unless it is a
    reader. What it holds is not sorted: ``frame.sort()`` it, if it is to be.

    Its values are of the types that the series has, whose columns these have to be; else they are
    those of its own types, as they are of files. A row is malformed if its time or one of its
    values is none: a null is NaN among floats, and else malformed. In place of a line, messages
    name the row, counted from 1.

    :param frame: a DataFrame or LazyFrame of polars, a DataFrame of pandas, a Table, RecordBatch,
        RecordBatchReader, Dataset or Scanner of pyarrow, a relation of DuckDB, or anything else
        with columns that has ``__arrow_c_stream__``
    :param timestamp: the column of the times: timestamps, dates, or ints in the unit; it may be an
        index of pandas. None: its index of times, a column called ``time`` or ``timestamp``, or
        the only one that holds times
    :param unit: the unit of the timestamps to give, of which what is finer is rounded down; None:
        that of the data which the rows enter
    :param columns: which columns to read: a mapping to ``float``, ``int``, ``bool`` or ``str``, a
        sequence of names, or None for all but that of the times
    :param zone: what times mean that name no time zone, such as ``"Europe/Berlin"``; None: such
        are refused
    :param on_malformed: what to do with a malformed row, if ``on_bad_row`` of the pipeline does not
        end the source
    :param batch_rows: how many rows a batch has at most
    :param max_malformed: which share of ``batch_rows`` rows may be malformed at most, from 0 to 1.
        If more are, :meth:`batches` raises; where fewer than 100 are read at once, it does not
    :raises ConfigError: if it is no table, there is no such column, or two of a name, a column
        holds something else, or pyarrow is not installed
    """

    def __init__(
        self,
        frame: AnyFrame,
        *,
        timestamp: str | None = None,
        unit: TimeUnit | None = None,
        columns: cols.ColumnChoice = None,
        zone: str | tzinfo | None = None,
        on_malformed: OnFault = OnFault.SKIP,
        batch_rows: int = 65_536,
        max_malformed: float = MOST_MALFORMED,
    ) -> None:
        where = f"FrameSource({_called(frame)})"
        if not is_frame(frame):
            raise ConfigError(
                f"{where}: it is no table of polars, pandas, pyarrow or DuckDB, nor has it columns "
                f"and __arrow_c_stream__"
            )
        check(where, unit or TimeUnit.MILLIS, None, on_malformed)
        if type(batch_rows) is not int or batch_rows < 1:
            raise ConfigError(f"{where}: batch_rows={batch_rows!r}: it is a positive int")
        declared = cols.declared(columns, where)
        wanted = {*declared, timestamp or ""} if declared else None
        self._where = where
        self._unit = unit
        self._clock = None if zone is None else WallClock(zone)
        self._batch_rows = batch_rows
        self._on_malformed = on_malformed
        self._most_malformed = check_share(where, max_malformed)
        self._faults = Faults(on_malformed, self._most_malformed)
        self._frame = Frame.of(frame, where, wanted)
        self._time = self._frame.time_column(timestamp, declared)
        self._frame.check_time(self._time, zone_told=zone is not None)
        self._chosen = bool(declared)
        self._columns = self._types(declared)

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of the timestamps given; None: nobody has said it yet."""
        return self._unit

    @property
    def columns(self) -> Mapping[str, np.dtype[Any]]:
        """The columns of each row, with their types; ``numpy.dtype(str)`` for texts."""
        return self._columns

    @property
    def malformed(self) -> int:
        """How many malformed rows there were so far, in the reading that began last."""
        return self._faults.count

    def about(self) -> SourceInfo:
        """Its unit, whether it is a reader, which can be read once, and the timestamp of its last
        row, where that lies in memory."""
        return SourceInfo(
            unit=self._unit, once=self._frame.once, last=self._last(), malformed=self.malformed
        )

    def count_in(self, unit: TimeUnit) -> None:
        """Give timestamps in the unit of the data that rows enter, if nobody has said another.

        :param unit: the unit
        :raises ConfigError: if another one has been said
        """
        if self._unit is not None and self._unit is not unit:
            raise ConfigError(
                f"{self._where}: its timestamps are in {self._unit.name.lower()}, and not in "
                f"{unit.name.lower()}"
            )
        self._unit = unit

    def fitting(self, series: TimeSeries) -> Self:
        """The same source, whose rows are of the types that a series has.

        :param series: the series
        :raises ConfigError: if it has other columns, or of other types
        """
        names = list(self._columns)
        if not self._chosen:
            names = self._frame.value_columns(self._time, series.columns)
        self._frame.check_fit(names, series.columns)
        made = copy.copy(self)
        made._columns = dict(series.columns)
        return made

    def batches(self) -> Iterator[Batch]:
        """The rows in batches of at most ``batch_rows``.

        :raises SourceError: at a malformed row, if such are fatal, after all rows before it; before
            rows of which more are malformed than ``max_malformed`` allows; and where the table
            cannot be read on
        :raises ConfigError: if nobody has said the unit
        """
        unit = self._unit
        if unit is None:
            raise ConfigError(f"{self._where}: say by unit= in which unit to give its times")
        faults = self._faults = Faults(self._on_malformed, self._most_malformed)
        return (batch for chunk in self._chunks(unit) for batch in without_faults(chunk, faults))

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows one by one: timestamp, and value by column."""
        for batch in self.batches():
            yield from batch.rows()

    def __repr__(self) -> str:
        return self._where

    def _types(self, declared: Mapping[str, cols.Kind | None]) -> dict[str, np.dtype[Any]]:
        """What its columns are read as, unless a series tells.

        :raises ConfigError: if one cannot be read
        """
        frame = self._frame
        found: dict[str, np.dtype[Any]] = {}
        for name in declared or frame.value_columns(self._time):
            there = frame.types[frame.check_there(name)]
            kind = declared.get(name)
            if kind is not None:
                found[name] = np.dtype(kind)
                frame.check_type(name, found[name], "is declared")
                continue
            kind = kind_of_type(there)
            if kind is None and not is_bytes(plain_type(there)):
                raise ConfigError(
                    f"{self._where}: column {name!r} is {there}, which is neither a number nor a "
                    f"text: leave it out by columns= of FrameSource"
                )
            found[name] = np.dtype(bytes if kind is None else kind)
        return found

    def _last(self) -> int | None:
        """The timestamp of the last row, where it can be told."""
        rows, unit = self._frame.rows, self._unit
        if rows is None or unit is None or not rows.num_rows:
            return None
        found, faults = of_frame.times(rows[self._time].slice(len(rows) - 1), unit, self._clock)
        return None if faults else int(found[0])

    def _chunks(self, unit: TimeUnit) -> Iterator[Chunk]:
        """Its rows, good and bad."""
        row = 1
        batches = self._frame.batches([self._time, *self._columns], self._batch_rows)
        with contextlib.closing(batches):
            while True:
                try:
                    batch = next(batches, None)
                    chunk = None if batch is None else self._chunk(batch, row, unit)
                except BaseException as error:  # of whatever library
                    if not is_of_library(error):
                        raise
                    raise self._error(row, None, f"cannot be read on: {error}") from error
                if chunk is None:
                    return
                yield chunk
                row += len(chunk.batch)

    def _chunk(self, batch: Any, first: int, unit: TimeUnit) -> Chunk:
        """The rows of a record batch.

        :param first: the number of its first row
        """
        faults: dict[int, SourceError] = {}

        def good(name: str, found: tuple[NDArray[Any], Mapping[int, str]]) -> NDArray[Any]:
            for position, reason in found[1].items():
                faults.setdefault(first + position, self._error(first + position, name, reason))
            return found[0]

        times = good(self._time, of_frame.times(batch[self._time], unit, self._clock))
        columns = {
            name: good(name, of_frame.values(batch[name], dtype))
            for name, dtype in self._columns.items()
        }
        rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
        return Chunk(Batch(times, columns), rows, faults)

    def _error(self, row: int, column: str | None, reason: str) -> SourceError:
        return SourceError(self._where, row, column, reason)


def _called(frame: Any) -> str:
    """What it is, without its rows."""
    kind = frame.__class__
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
