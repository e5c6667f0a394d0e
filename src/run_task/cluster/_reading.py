"""A partition of a source as a shard reads it.

The driver asks for its rows, and is told of each the time, the key and whether it fits: so it lets
them enter in the order of the whole cluster, and tells the shard which have. The shard gives the
same rows wherever it is, from whatever row it begins with. A partition that has an end is read in
the thread that serves the shard; one that has none, by a thread of its own, and what is there is
told.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.cluster._bytes import joined, of_bytes
from run_task.cluster._live_reading import LiveReading
from run_task.cluster._messages import PartitionSetup, ReadRows, RowsRead
from run_task.data.series._column_types import Array
from run_task.data.series._places import partitions_of, rows_of
from run_task.data.series._schema import NewRows
from run_task.data.series._tap import SeriesPattern
from run_task.data.series._texts import CODES, Texts
from run_task.errors import RunTaskError, SourceError
from run_task.executors.processes._exceptions import portable
from run_task.sources._batch import Batch
from run_task.sources._faults import Faults, OnFault, faults_told_to
from run_task.sources._fitted_rows import rows_that_fit
from run_task.sources._partitioned import with_key
from run_task.sources._positioned import Position


class _ReadChunk(NamedTuple):
    """Rows that were read together."""

    first: int
    """The number of the first."""

    begins_at: Position | None
    """Where the source stood before; None: it has no positions."""

    times: NDArray[np.int64]
    fitted: Sequence[Array]
    """The values of those that fit, by column."""

    position: NDArray[np.intp] | None
    """Where each row stands among these; None: all fit."""

    told: RowsRead

    @property
    def stop(self) -> int:
        """The number of the row after the last one."""
        return self.first + len(self.times)

    def before(self, row: int) -> _ReadChunk:
        """Those of them that come before a row."""
        return self._replace(times=self.times[: row - self.first])


class PartitionReader:
    """Reads a partition, and keeps its rows as long as the driver may name them.

    :param setup: what it is
    """

    def __init__(self, setup: PartitionSetup) -> None:
        self._setup = setup
        self._source: Any = of_bytes(setup.source)
        self._on_bad_row: Any = of_bytes(setup.on_bad_row)
        pattern: SeriesPattern = setup.pattern
        self._schema = pattern.schema()
        self._where = setup.name
        assert pattern.key is not None  # it was checked
        self._key_name: str = pattern.key
        self._key = self._schema.positions[pattern.key]
        self._texts: Texts | None = Texts() if self._schema.columns[self._key].encoded else None
        self._next = setup.row
        self._position = setup.position
        self._chunks: list[_ReadChunk] = []
        self._batches: Generator[Batch] | None = None
        self._live: LiveReading | None = None  # of one without end
        self._end: RowsRead | None = None
        self._faults: list[bytes] = []

    def read(self, asked: ReadRows) -> RowsRead:
        """The rows from a number on: as many as the source gives together; none, if it has no end,
        and none are there."""
        self._chunks = [chunk for chunk in self._chunks if chunk.stop > asked.keep_from]
        if asked.commit is not None and self._live is not None:
            self._live.commit(asked.commit)
        while True:
            for chunk in self._chunks:
                if chunk.first == asked.start and chunk.begins_at == asked.position:
                    return chunk.told
            if asked.position is not None and self._is_elsewhere(asked):
                self._go_back(asked)
            read = self._read_on(wait=False)
            if read.start == asked.start or read.ended:
                return read
            if not len(read.times):  # it is not there yet
                if read.position is not None and asked.position is not None:
                    self._check_passed(asked.start, asked.position)
                return read._replace(lag=None, position=None, faults=())

    def rows(self, numbers: NDArray[np.int64]) -> NewRows:
        """Rows that it has been told to name, in this order.

        :param numbers: their numbers
        """
        if not len(numbers):
            return NewRows(numbers, [np.empty(0, d) for d in self._schema.stored[1:]], 0)
        last = int(numbers.max())
        while self._next <= last:
            read = self._read_on(wait=True)
            if read.ended:
                raise self._fewer(read)
        chunks: Sequence[_ReadChunk] = self._chunks
        firsts = np.array([chunk.first for chunk in chunks], np.int64)
        of_chunk = firsts.searchsorted(numbers, "right") - 1
        if of_chunk.min() < 0:
            raise RunTaskError(
                f"{self._where}: row {int(numbers.min()):,} is named, and was let go"
            )
        times: NDArray[np.int64] = np.empty(len(numbers), np.int64)
        columns: list[Array] | None = None
        there: list[int] = np.unique(of_chunk).tolist()
        for at in there:
            chunk = chunks[at]
            which = np.flatnonzero(of_chunk == at)
            places = numbers[which] - chunk.first
            times[which] = chunk.times[places]
            if chunk.position is not None:
                places = chunk.position[places]
            if columns is None:
                columns = [np.empty(len(numbers), column.dtype) for column in chunk.fitted]
            for column, values in zip(columns, chunk.fitted):
                column[which] = values[places]
        assert columns is not None
        return NewRows(times, columns, 0)

    @property
    def kept(self) -> int:
        """How many rows it keeps."""
        return sum(len(chunk.times) for chunk in self._chunks)

    def close(self) -> None:
        """Read no more."""
        live, self._live = self._live, None
        if live is not None:
            live.close()
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()
        close: object = getattr(self._source, "close", None)
        if callable(close):
            close()

    def _fewer(self, read: RowsRead) -> RunTaskError:
        if read.error is not None:
            cause, note = of_bytes(read.error)
            cause.add_note(note)
            raise cause
        return RunTaskError(
            f"{self._where}: it has {self._next:,} rows now, and had more when it was read before: "
            f"a source that is read by partition gives the same rows each time"
        )

    def _read_on(self, *, wait: bool) -> RowsRead:
        """What comes next; nothing, if it has no end, is not to be waited for, and is not there."""
        if self._end is not None:
            return self._end
        if self._setup.position is not None:
            return self._read_live(wait)
        try:
            with faults_told_to(self._note, self._on_bad_row):
                if self._batches is None:
                    self._batches = self._behind(self._next)
                batch = next(self._batches, None)
        except Exception as error:
            return self._ended(joined(portable(error)))
        return self._ended(None) if batch is None else self._kept(self._chunk(batch))

    def _read_live(self, wait: bool) -> RowsRead:
        live = self._live
        if live is None:
            source = of_bytes(self._setup.source)
            name, key = self._where, self._key_name
            live = LiveReading(source, self._position, self._on_bad_row, name, key)
            self._live = live
        lag = live.lag
        taken = live.take(wait=wait)  # after that: where it had no more, all it had is here
        if taken is None:
            position = None
            if (passed := live.passed()) is not None:
                position, self._faults = passed
                self._position = position
            return self._none()._replace(lag=lag, position=position)
        self._faults = taken.faults
        if taken.batch is None:
            return self._ended(taken.error)
        chunk = self._chunk(taken.batch)
        self._position = taken.position
        told = chunk.told._replace(position=taken.position, begun=taken.begun, lag=lag)
        return self._kept(chunk._replace(told=told))

    def _is_elsewhere(self, asked: ReadRows) -> bool:
        """Whether it stands behind the row that is asked for, or not where the driver knows that to
        be: what is malformed in between has been told, or is still to be."""
        at_row = self._next == asked.start
        return self._next > asked.start or (at_row and self._position != asked.position)

    def _go_back(self, asked: ReadRows) -> None:
        """Read on from a row that came among others: before, it was the first of some, by which the
        driver knows what comes."""
        self._check_passed(asked.start, asked.position)
        live, self._live = self._live, None
        if live is not None:
            live.close()
        before = [chunk for chunk in self._chunks if chunk.first < asked.start]
        self._chunks = [chunk.before(asked.start) for chunk in before]
        self._next, self._position = asked.start, asked.position
        self._faults, self._end = [], None

    def _check_passed(self, row: int, position: Position) -> None:
        """See whether it comes by the same rows as an earlier reader.

        :param row: a row
        :param position: where an earlier reader was at that
        :raises SourceError: if not
        """
        if self._live is not None:
            passed = [(chunk.first, chunk.begins_at) for chunk in self._chunks]
            passed.append((self._next, self._position))
            self._live.check_passed(
                [there for first, there in passed if first <= row],
                position,
                [there for first, there in passed if first > row],
            )

    def _kept(self, chunk: _ReadChunk) -> RowsRead:
        self._chunks.append(chunk)
        self._next = chunk.stop
        return chunk.told

    def _behind(self, count: int) -> Generator[Batch]:
        """Its rows without the first, of which all has been told."""
        read: Iterator[Batch] = iter(self._source.batches())
        with closing(with_key(self._where, self._key_name, read, Faults(OnFault.SKIP))) as batches:
            for batch in batches:
                if not len(batch):  # of which nothing is told: what was malformed comes with others
                    continue
                if count >= len(batch):
                    count -= len(batch)
                    self._faults.clear()
                    continue
                yield batch[count:] if count else batch
                count = 0

    def _note(self, error: SourceError) -> None:
        self._faults.append(joined(portable(error)))

    def _ended(self, error: bytes | None) -> RowsRead:
        self._end = self._none()._replace(ended=True, error=error)
        return self._end

    def _none(self) -> RowsRead:
        faults, self._faults = self._faults, []
        none: NDArray[np.int64] = np.empty(0, np.int64)
        return RowsRead(self._next, none, none, (), {}, faults)

    def _chunk(self, batch: Batch) -> _ReadChunk:
        times: Any = batch.timestamps
        faults, self._faults = self._faults, []
        if times.dtype != np.int64:
            raise SourceError(self._where, None, None, "its timestamps are no ints")
        fitted, position, unfit = rows_that_fit(self._schema, batch)
        keys = fitted[self._key]
        texts: Sequence[str] = ()
        if self._texts is not None:
            codes = self._texts.encode(keys)
            there = np.zeros(len(self._texts), np.bool_)
            there[codes] = True
            texts = self._texts.decode(np.flatnonzero(there).astype(CODES)).tolist()
            keys = (np.cumsum(there, dtype=CODES) - CODES.type(1))[codes]
        told = RowsRead(self._next, times, keys, texts, unfit, faults)
        return _ReadChunk(self._next, self._position, times, fitted, position, told)


def rows_at(readers: Mapping[int, PartitionReader], places: NDArray[np.int64]) -> NewRows:
    """The rows of some places, in this order.

    :param readers: what reads each partition, by its number
    :param places: the places
    """
    partitions, numbers = partitions_of(places), rows_of(places)
    there = np.unique(partitions).tolist()
    if len(there) == 1:
        return readers[there[0]].rows(numbers)
    times: NDArray[np.int64] = np.empty(len(places), np.int64)
    columns: list[Array] = []
    for partition in there:
        which = np.flatnonzero(partitions == partition)
        found = readers[partition].rows(numbers[which])
        if not columns:
            columns = [np.empty(len(places), column.dtype) for column in found.columns]
        times[which] = found.times
        for column, values in zip(columns, found.columns):
            column[which] = values
    return NewRows(times, columns, 0)
