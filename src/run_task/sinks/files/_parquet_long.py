"""Results as Parquet, a row a task, window and key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from run_task.errors import ConfigError
from run_task.sinks._older import PARQUET_METADATA, is_older_parquet, older
from run_task.sinks._protocol import Row
from run_task.sinks._record import (
    FORMAT,
    GONE,
    LongForm,
    WindowKey,
    WindowRecord,
    is_gone,
    restored,
    unit_of,
)
from run_task.sinks.encoding._json import Fallback
from run_task.time._interval import TimeUnit

_KEY: Final = "pipeline", "stage", "window_start", "window_end", "bucket"

ParquetStage: TypeAlias = tuple[str, str, int]
"""A pipeline, a stage, and a bucket."""


class LongParquet(LongForm):
    """A row a task, window and key.

    :param where: the sink, for messages
    :param pa: pyarrow
    :param encode: makes of a value that has no form in JSON another that has one
    """

    is_for_others = False
    """Whether people read the files, and are to find each window once."""

    key_columns: Sequence[str] = _KEY
    """Those that tell which window a row is of."""

    def __init__(self, where: str, pa: Any, encode: Fallback | None) -> None:
        super().__init__(encode)
        self._where = where
        self._pa = pa
        self._schema = schema(pa)

    def learn(self, metadata: Mapping[bytes, bytes] | None, told: Any) -> None:
        """Learn what a file holds.

        :param metadata: the file's
        :param told: what this library has written there
        :raises ConfigError: if it is of an older format, or another layout
        :raises ValueError: if it is of another format
        """
        if is_older_parquet(metadata):
            raise older(self._where)
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}")
        if "layout" in told:
            raise ConfigError(
                f"{self._where}: this folder holds results in another layout: give "
                f"layout=Layout.{str(told['layout']).upper()}, or another folder"
            )

    def told(self) -> dict[str, Any]:
        """What stands in the metadata of a file, besides which windows it has."""
        return {"format": FORMAT}

    def table(self, windows: Sequence[WindowRecord]) -> Any:
        """Windows as a table of Arrow."""
        told = (window._replace(tasks=window.tasks or (GONE,)) for window in windows)
        rows = [row for window in told for row in window.rows()]
        arrays = [
            self._pa.array([row[field.name] for row in rows], field.type) for field in self._schema
        ]
        return self._pa.Table.from_arrays(arrays, schema=self._schema)

    def in_order(self, table: Any) -> Any:
        """A table that was made of several, with its columns in order."""
        return table

    def without_gone(self, table: Any) -> Any:
        """The same: people do not read these files themselves."""
        return table

    def keys(self, table: Any) -> Iterator[WindowKey]:
        """Of which window each row is."""
        return map(WindowKey, *(table.column(name).to_pylist() for name in _KEY))

    def unit(self, table: Any, pipeline: str, stage: str) -> TimeUnit | None:
        """The unit of the last window of a stage in a table."""
        names = ("pipeline", "stage", "unit")
        of, its_stage, units = (table.column(name).to_pylist() for name in names)
        wanted = pipeline, stage
        found = [unit for *one, unit in zip(of, its_stage, units) if (*one,) == wanted]
        return unit_of(found[-1]) if found else None

    def rows(
        self,
        batches: Iterable[Any],
        newer: set[WindowKey],
        pipeline: str,
        stage: str | None,
        path: str,
    ) -> Iterator[Row]:
        """The rows of a file.

        :param newer: windows that are in newer files
        :param path: the file, for messages
        """
        for batch in batches:
            for values in zip(*(column.to_pylist() for column in batch.columns)):
                of, its_stage, key, bucket, start, end, unit, revision = values[:8]
                if of != pipeline or stage not in (None, its_stage):
                    continue
                task, number, beyond, error = values[8:]
                window = WindowKey(of, its_stage, start, end, bucket)
                if window not in newer:
                    value = restored(number, beyond, path)
                    more = unit_of(unit), key, revision, bucket
                    row = Row(*window[:4], task, value, error, *more)
                    if not is_gone(row):
                        yield row


def schema(pa: Any) -> Any:
    """The columns of such a file, and what says that it is one.

    :param pa: pyarrow
    """
    text, count, small = pa.string(), pa.int64(), pa.int32()
    columns = {
        "pipeline": text,
        "stage": text,
        "key": text,
        "bucket": small,
        "window_start": count,
        "window_end": count,
        "unit": text,
        "revision": small,
        "task": text,
        "value": pa.float64(),
        "json": text,
        "error": text,
    }
    told = json.dumps({"format": FORMAT, "windows": []})
    return pa.schema(columns, metadata={PARQUET_METADATA: told})
