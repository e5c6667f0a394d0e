"""Results as a folder of Parquet files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakSet

from run_task._extras import need
from run_task.errors import ConfigError, SinkError
from run_task.observe._log import Log
from run_task.sinks._base import Durable, Recorded, ResultForm
from run_task.sinks._layout import Layout, check_layout
from run_task.sinks._older import PARQUET_METADATA
from run_task.sinks._protocol import ResultBatch, Row
from run_task.sinks._record import WindowKey
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._disk import (
    NO_LINK,
    Draft,
    Identity,
    Reader,
    identity_of,
    is_at,
    local_path,
    lock,
    sync_folder,
)
from run_task.sinks.files._parquet_long import LongParquet, ParquetStage
from run_task.sinks.files._parquet_wide import WideParquet
from run_task.sinks.files._versions_file import VersionsFile
from run_task.sinks.wide._record import WideBatch
from run_task.time._interval import TimeUnit

_log = Log(__name__)

_NAME: Final = re.compile(r"([0-9]{10})-([0-9]{10})\.parquet")
_MOST_IN_BATCHES: Final = 2**16
"""How many windows wait for a flush at most that came many at once."""

_MERGED: Final = 8
"""How many files of a size become one."""


class ParquetForm(ResultForm, Protocol):
    """What stands in Parquet files, in one of the layouts."""

    @property
    def is_for_others(self) -> bool:
        """Whether people read the files, and are to find each window once."""
        ...

    @property
    def key_columns(self) -> Sequence[str]:
        """Those that tell which window a row is of."""
        ...

    def learn(self, metadata: Mapping[bytes, bytes] | None, told: Any, /) -> None:
        """Learn what a file holds.

        :raises ConfigError: if it is of another layout, or an older format
        :raises ValueError: if it is of another format
        """
        ...

    def told(self) -> dict[str, Any]:
        """What stands in the metadata of a file, besides which windows it has."""
        ...

    def without_gone(self, table: Any, /) -> Any:
        """A table without what tells of windows that are there no more."""
        ...

    def table(self, windows: Any, /) -> Any:
        """Windows as a table of Arrow."""
        ...

    def in_order(self, table: Any, /) -> Any:
        """A table that was made of several, with its columns in order."""
        ...

    def keys(self, table: Any, /) -> Iterator[WindowKey]:
        """Of which window each row is."""
        ...

    def unit(self, table: Any, pipeline: str, stage: str, /) -> TimeUnit | None:
        """The unit of the last window of a stage in a table."""
        ...

    def rows(
        self,
        batches: Iterable[Any],
        newer: set[WindowKey],
        pipeline: str,
        stage: str | None,
        path: str,
        /,
    ) -> Iterator[Row]:
        """The rows of a file, without those of windows that are in newer ones."""
        ...


class Part(NamedTuple):
    """A file, which holds what was flushed from the ``first`` time to the ``last``."""

    first: int
    last: int
    path: Path
    row_count: int
    ends: dict[ParquetStage, tuple[int, int]]
    """The first and the last end of a window, by stage."""
    identity: Identity

    @property
    def is_there(self) -> bool:
        """Whether it is still at its path, and the same.

        :raises OSError: if that cannot be known
        """
        try:
            return identity_of(os.stat(self.path, follow_symlinks=False)) == self.identity
        except FileNotFoundError:
            return False

    def may_supersede(self, other: Part) -> bool:
        """Whether this file, which is newer, can have windows of the other."""
        return any(
            stage in other.ends and start <= other.ends[stage][1]
            for stage, (start, _) in self.ends.items()
        )


class ParquetSink(Durable):
    """Writes a folder of Parquet files, one a flush, and merges small ones.

    The columns are ``pipeline``, ``stage``, ``key``, ``bucket``, ``window_start``, ``window_end``,
    ``unit``, ``revision``, ``task``, ``value`` (a double), ``json`` (whatever a double cannot hold:
    ints, texts, lists) and ``error``; the times are whole numbers of ``unit`` (``ns``, ``us``,
    ``ms``, ``s`` or ``m``) since the Unix epoch. The metadata of each file have the version of the
    format, 2, under ``run_task``. A file is called after the flushes that it holds,
    ``0000000001-0000000008.parquet``, so that names sort by time. When eight in a row are of a
    size, they become one, unless it had more than ``rows_per_file`` rows; so the files are few, and
    each row is rewritten a few times.

    **What survives.** A flush writes a file, syncs it, and only then gives it its name:
    what was flushed survives a kill -9 and a loss of power, and at any moment each ``.parquet``
    file in the folder is complete. What was not flushed is lost. A window that is written again
    supersedes the older one: ``rows()`` leaves that out, and merging removes it; who reads the
    files himself takes the newest, or has them in ``Layout.WIDE``, in which it is taken out of the
    older file at once. Only one sink at a time can have the folder.

    :param folder: where the files are; it is made if it is not there, in a folder that is
    :param layout: how results are laid out. With ``Layout.WIDE``, the columns are ``window_start``
        and ``window_end`` (timestamps in UTC), the key's if there is one, ``row`` if a task returns
        tables, a typed one a task or field, and ``error``. A column that comes later stands in
        files from then on
    :param rows_per_file: how many rows a merged file has at most; so many must fit in memory
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if the folder cannot be used, or pyarrow is not installed
    """

    _form: ParquetForm

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        layout: Layout = Layout.LONG,
        rows_per_file: int = 1_000_000,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        self._folder = local_path(folder, "ParquetSink")
        where = f"ParquetSink({os.fspath(folder)!r})"
        self._pa = need("pyarrow", "arrow")
        self._pq = need("pyarrow.parquet", "arrow")
        form: ParquetForm
        if check_layout(layout, where) is Layout.WIDE:
            form = WideParquet(where, self._pa, encode)
        else:
            form = LongParquet(where, self._pa, encode)
        versions = VersionsFile(self._folder / ".versions", self._folder / ".lock", where)
        super().__init__(where, form, versions, types)
        if type(rows_per_file) is not int or rows_per_file < 1:
            raise ConfigError(
                f"{self._where}: rows_per_file={rows_per_file!r}: it is a positive int"
            )
        self._rows_per_file = rows_per_file
        self._readers: WeakSet[Reader] = WeakSet()
        self._stale: list[Part] = []
        self._in_batches = 0
        """How many windows wait at most that came many at once."""
        self._tells_of_gone = False
        """Whether a file tells of a window that is there no more, as far as is known."""
        self._parts: list[Part] = []
        self._lock = self._open()

    def _open(self) -> int:
        """Take the folder, and find what is there; return what keeps others away."""
        try:
            self._folder.mkdir(exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise OSError("one may not write to this folder")
            self._names()  # before anything of this sink is there
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        except FileExistsError as error:
            raise ConfigError(f"{self._where}: this is a file, and it takes a folder") from error
        except OSError as error:
            raise ConfigError(f"{self._where}: cannot be opened: {error}") from error
        try:
            lock(descriptor, self._where)
            self._recover()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _names(self) -> list[tuple[int, int, Path]]:
        """The files of this sink, by their names, in order.

        :raises ConfigError: if the name of another Parquet file is none of this sink's
        """
        found: list[tuple[int, int, Path]] = []
        for path in sorted(self._folder.glob("*.parquet")):
            name = _NAME.fullmatch(path.name)
            if name is None:
                raise ConfigError(
                    f"{self._where}: {path.name} is not of this sink: take a folder of its own"
                )
            found.append((int(name[1]), int(name[2]), path))
        return found

    def _recover(self) -> None:
        """Find the files there are, and remove those of this sink that a crash has left."""
        parts = [self._part(*one) for one in self._names()]
        # Files that were merged, but not yet removed.
        self._parts = [
            part
            for part in parts
            if not any(
                other is not part and other.first <= part.first and part.last <= other.last
                for other in parts
            )
        ]
        self._stale = [part for part in parts if part not in self._parts]
        self._sweep()
        self._take_out()

    def _attend(self) -> None:
        before = self._parts, self._stale
        try:
            if not is_at(self._lock, self._folder / ".lock"):
                descriptor = self._open()
                os.close(self._lock)
                self._lock = descriptor
            elif not all(part.is_there for part in self._parts):
                self._recover()
            else:
                return
        except (OSError, ConfigError, SinkError) as error:
            self._parts, self._stale = before
            raise SinkError(f"{error} (it was changed while {self._where} had it)") from error
        _log.warning(
            "%s was changed by something else: it goes on with the files that are there now",
            self._where,
        )

    def _part(self, first: int, last: int, path: Path) -> Part:
        try:
            identity = identity_of(os.stat(path, follow_symlinks=False))
            with self._file(path) as file:
                metadata = file.schema_arrow.metadata
                found = json.loads(metadata[PARQUET_METADATA])
                self._form.learn(metadata, found)
                count: int = file.metadata.num_rows
        except ConfigError:
            raise
        except (SinkError, OSError, ValueError, TypeError, KeyError) as error:
            raise SinkError(f"{path} is not a file of this sink, or broken: {error}") from error
        ends = {
            (pipeline, stage, bucket): (start, end)
            for pipeline, stage, bucket, start, end in found["windows"]
        }
        return Part(first, last, path, count, ends, identity)

    def write_many(self, batch: ResultBatch) -> None:
        """Take the results of many windows, as a replay has them: with ``Layout.WIDE``, by column.

        :param batch: the results
        :raises SinkError: if not all of them can be stored, or not by column: :meth:`write` takes
            each of them, or refuses it
        """
        with self._mutex:
            pipeline = self._name()
            if batch.pipeline != pipeline or not isinstance(self._form, WideParquet):
                raise SinkError(f"{self._where}: it takes these one by one")
            self._put_waiting(self._form.batch(batch))
            self._in_batches += len(batch)
            if self._in_batches > _MOST_IN_BATCHES:
                with suppress(SinkError):  # a raise would say that it is this batch
                    self._store()

    def _put_waiting(self, window: Recorded) -> None:
        first = _first_end(window)
        one_by_one = not self._in_batches and not isinstance(window, WideBatch)
        if one_by_one or all(other.key.end < first for other in self._waiting.values()):
            super()._put_waiting(window)
            return
        waiting, self._waiting, self._in_batches = [*self._waiting.values(), window], {}, 0
        for held in waiting:  # of which a window may be there twice
            for record in held.records() if isinstance(held, WideBatch) else (held,):
                super()._put_waiting(record)

    def _store(self) -> None:
        super()._store()
        self._in_batches = 0

    def _keep(self, windows: list[Any]) -> None:
        if not windows:
            return
        ends = _merged((w.key.stage_key, (_first_end(w), w.key.end)) for w in windows)
        number = self._parts[-1].last + 1 if self._parts else 1
        table = self._form.table(windows)
        self._tells_of_gone = self._tells_of_gone or any(w.is_empty for w in windows)
        self._parts.append(self._write(number, number, table, ends))
        self._take_out()
        self._merge()

    def _write(
        self, first: int, last: int, table: Any, ends: dict[ParquetStage, tuple[int, int]]
    ) -> Part:
        path = self._folder / f"{first:010d}-{last:010d}.parquet"
        try:
            draft = Draft(self._folder)
            try:
                self._fill(draft, table, ends)
                draft.put(path)
                identity = identity_of(os.fstat(draft.descriptor))
            finally:
                draft.discard()
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be written: {error}") from error
        return Part(first, last, path, table.num_rows, ends, identity)

    def _fill(self, draft: Draft, table: Any, ends: dict[ParquetStage, tuple[int, int]]) -> None:
        """Write a whole file."""
        windows = [[*stage, *range_] for stage, range_ in ends.items()]
        told = json.dumps({**self._form.told(), "windows": windows})
        table = table.replace_schema_metadata({PARQUET_METADATA: told})
        with os.fdopen(draft.descriptor, "ab", closefd=False) as file:
            self._pq.write_table(table, file, use_dictionary=self._texts(table))
            file.flush()
            os.fsync(draft.descriptor)

    def _take_out(self) -> None:
        """Rewrite files without windows that are in newer ones, for those who read the files
        themselves; unless somebody reads by this sink, or it cannot be done: the newest counts."""
        if not self._form.is_for_others or self._readers:
            return
        with suppress(OSError, SinkError):
            for position, part in enumerate(list(self._parts)):
                newer = self._superseding(part, self._parts[position + 1 :])
                if (newer or self._tells_of_gone) and part.is_there:
                    with self._file(part.path) as file:
                        table = file.read()
                    # No file before has these windows now.
                    kept = self._form.without_gone(table) if self._tells_of_gone else table
                    if newer or len(kept) < len(table):
                        self._parts[position] = self._rewritten(part, kept, newer)
            self._tells_of_gone = False
            gone = [part for part in self._parts if not part.row_count]
            self._parts = [part for part in self._parts if part.row_count]
            self._stale += gone
            self._sweep()

    def _rewritten(self, part: Part, table: Any, newer: set[WindowKey]) -> Part:
        """A file without windows that are in newer ones."""
        keys = list(self._form.keys(table))
        is_kept = [key not in newer for key in keys]
        kept = table.filter(self._pa.array(is_kept, self._pa.bool_()))  # there may be no row
        ends = _merged((key.stage_key, (key.end, key.end)) for key in keys if key not in newer)
        if not len(kept):
            return part._replace(row_count=0, ends=ends)
        draft = Draft(self._folder, os.stat(part.path, follow_symlinks=False))
        try:
            self._fill(draft, kept, ends)
            draft.replace(part.path)
            identity = identity_of(os.fstat(draft.descriptor))
        finally:
            draft.discard()
        return part._replace(row_count=len(kept), ends=ends, identity=identity)

    def _texts(self, table: Any) -> list[str]:
        """The columns of a table in which values come again, as of numbers they rarely do."""
        is_text = self._pa.types.is_string
        return [field.name for field in table.schema if is_text(field.type)]

    def _merge(self) -> None:
        """Make one file of eight that hold equally many flushes, as often as there are eight."""
        while len(self._parts) >= _MERGED:
            parts = self._parts[-_MERGED:]
            flushes = {part.last - part.first for part in parts}
            if len(flushes) > 1 or sum(part.row_count for part in parts) > self._rows_per_file:
                return
            tables: list[Any] = []
            for position, part in enumerate(parts):
                with self._file(part.path) as file:
                    table = file.read()
                newer = self._superseding(part, parts[position + 1 :])
                if newer:
                    table = table.filter([key not in newer for key in self._form.keys(table)])
                tables.append(table)
            ends = _merged(item for part in parts for item in part.ends.items())
            merged = self._form.in_order(self._pa.concat_tables(tables, promote_options="default"))
            self._parts[-_MERGED:] = [self._write(parts[0].first, parts[-1].last, merged, ends)]
            self._stale += parts
            self._sweep()

    def _sweep(self) -> None:
        """Remove merged files, unless somebody still reads."""
        if self._stale and not self._readers:
            with suppress(OSError):  # then opening the folder again does it
                for part in self._stale:
                    if part.is_there:  # and not something else by its name
                        part.path.unlink()
            self._stale.clear()
            sync_folder(self._folder)

    def _superseding(self, part: Part, newer: list[Part]) -> set[WindowKey]:
        """The windows in newer files that may be in this one, too."""
        keys: set[WindowKey] = set()
        for other in newer:
            if other.may_supersede(part):
                with self._file(other.path) as file:
                    keys.update(self._form.keys(file.read(columns=list(self._form.key_columns))))
        return keys

    def _last(self, pipeline: str, stage: str) -> int | None:
        ends = [
            end
            for part in self._parts
            for of, (_, end) in part.ends.items()
            if of[:2] == (pipeline, stage)
        ]
        return max(ends, default=None)

    def _unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        for part in reversed(self._parts):
            if any(of[:2] == (pipeline, stage) for of in part.ends):
                with self._file(part.path) as file:
                    return self._form.unit(file.read(), pipeline, stage)
        return None

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        reader = Reader()
        self._readers.add(reader)  # until it is gone with the generator
        return self._select(list(self._parts), pipeline, stage, reader)

    def _select(
        self, parts: list[Part], pipeline: str, stage: str | None, _reader: Reader
    ) -> Iterator[Row]:
        for position, part in enumerate(parts):
            newer = self._superseding(part, parts[position + 1 :])
            with self._file(part.path) as file:
                batches = file.iter_batches(8_192)
                yield from self._form.rows(batches, newer, pipeline, stage, str(part.path))

    @contextmanager
    def _file(self, path: Path) -> Generator[Any]:
        """A file of this sink, open for reading.

        :raises SinkError: if it cannot be read
        """
        try:
            with self._pq.ParquetFile(path) as file:
                yield file
        except (self._pa.ArrowException, OSError) as error:
            raise SinkError(f"{path} cannot be read: {error}") from error

    def _release(self) -> None:
        self._sweep()
        self._take_out()
        os.close(self._lock)


def _first_end(window: Any) -> int:
    """The end of the first window that a record, or a batch, is of."""
    end: int = window.ends[0] if isinstance(window, WideBatch) else window.key.end
    return end


def _merged(
    ranges: Iterable[tuple[ParquetStage, tuple[int, int]]],
) -> dict[ParquetStage, tuple[int, int]]:
    """The first and the last end of a window, by stage, of several such ranges."""
    merged: dict[ParquetStage, tuple[int, int]] = {}
    for stage, (first, last) in ranges:
        start, end = merged.get(stage, (first, last))
        merged[stage] = min(start, first), max(end, last)
    return merged
