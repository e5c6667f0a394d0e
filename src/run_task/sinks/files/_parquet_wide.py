"""Results as Parquet, a row a window and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError
from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowKey
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.wide._errors import GONE
from run_task.sinks.wide._form import WideForm
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._record import WideBatch, WideRecord
from run_task.sinks.wide._schema import END, ERROR, LAYOUT, ROW, START, NameRules, WideSchema
from run_task.sinks.wide._stored import StoredRow, results
from run_task.time._interval import TimeUnit

_MICRO: Final = TimeUnit.MICROS.nanos


class WideParquet(WideForm):
    """A row a window and key.

    :param where: the sink, for messages
    :param pa: pyarrow
    :param encode: makes of a value that has no form in JSON another that has one
    """

    is_for_others = True
    """Whether people read the files, and are to find each window once."""

    key_columns: Sequence[str] = (START, END)
    """Those that tell which window a row is of."""

    def __init__(self, where: str, pa: Any, encode: Fallback | None) -> None:
        super().__init__(where, encode, NameRules())
        self._pa = pa
        self._types = {
            WideKind.FLOAT: pa.float64(),
            WideKind.INT: pa.int64(),
            WideKind.BOOL: pa.bool_(),
            WideKind.TEXT: pa.string(),
            WideKind.TIMESTAMP: pa.timestamp("us", "UTC"),
            WideKind.LOCAL: pa.timestamp("us"),
            WideKind.DATE: pa.date32(),
            WideKind.DECIMAL: pa.string(),
            WideKind.JSON: pa.string(),
        }

    def learn(self, _metadata: Mapping[bytes, bytes] | None, told: Any) -> None:
        """Learn what a file holds. Of several, each has the columns of those before it.

        :param told: what this library has written there
        :raises ConfigError: if it is of another layout
        :raises ValueError: if it is of another format
        """
        if told.get("layout") != LAYOUT:
            raise ConfigError(
                f"{self._where}: this folder holds results in another layout: give "
                f"layout=Layout.LONG, or another folder"
            )
        schema, known = WideSchema.of_json(told), self._table.schema
        if known is not None and (schema.pipeline, schema.stage) != (known.pipeline, known.stage):
            raise ConfigError(
                f"{self._where}: this folder holds files of stage {schema.stage!r} and of stage "
                f"{known.stage!r}: take another folder"
            )
        self._table.schema = schema

    def told(self) -> dict[str, Any]:
        """What stands in the metadata of a file, besides which windows it has."""
        return self._schema.to_json()

    def table(self, windows: Sequence[WideRecord | WideBatch]) -> Any:
        """Windows as a table of Arrow."""
        pa, schema = self._pa, self._schema
        # Of a window without rows, one tells that.
        counts = [max(1, window.height) for window in windows]

        def column(kind: WideKind, of: Iterable[Sequence[Any] | None]) -> Any:
            values = chain.from_iterable(held or (None,) * count for held, count in zip(of, counts))
            return pa.array(list(values), self._types[kind])

        found = {
            START: self._times([window.starts for window in windows], counts),
            END: self._times([window.ends for window in windows], counts),
        }
        if schema.by is not None:
            found[schema.by] = column(schema.key_kind or WideKind.TEXT, [w.keys for w in windows])
        if schema.table_task is not None:
            found[ROW] = column(WideKind.INT, [window.numbers for window in windows])
        for name, of in schema.columns.items():
            found[name] = column(of.kind, [window.columns.get(name) for window in windows])
        errors = [window.errors if window.height else [GONE] for window in windows]
        found[ERROR] = column(WideKind.TEXT, errors)
        return pa.table(found)

    def _times(self, times: list[Sequence[int]], counts: list[int]) -> Any:
        """Times of windows, one for each row.

        :param times: of a record that of its window, of a batch those of its windows
        :param counts: how many rows there are of each
        """
        unit = self._schema.unit
        of_rows = chain.from_iterable(
            of if len(of) == count else (*of,) * count for of, count in zip(times, counts)
        )
        counted: NDArray[Any] = np.fromiter(of_rows, np.int64, sum(counts))
        fine = "ns" if unit is TimeUnit.NANOS else "us"
        if unit is not TimeUnit.NANOS:
            counted *= unit.nanos // _MICRO
        return self._pa.array(counted).cast(self._pa.timestamp(fine, "UTC"))

    def in_order(self, table: Any) -> Any:
        """A table that was made of several, with its columns in order."""
        return table.select([name for name in self._schema.names if name in table.column_names])

    def keys(self, table: Any) -> Iterator[WindowKey]:
        """Of which window each row is."""
        schema = self._schema
        for start, end in zip(*(self._ints(table.column(name)) for name in (START, END))):
            yield WindowKey(schema.pipeline, schema.stage, start, end, 0)

    def without_gone(self, table: Any) -> Any:
        """A table without what tells of windows that are there no more."""
        kept = [cell != GONE for cell in table.column(ERROR).to_pylist()]
        return table.filter(self._pa.array(kept, self._pa.bool_()))  # there may be no row

    def _ints(self, column: Any) -> list[int]:
        """Times of windows in their unit."""
        unit = self._schema.unit
        found: NDArray[Any] = column.cast(self._pa.int64()).to_numpy()
        if unit is not TimeUnit.NANOS:
            found = found // (unit.nanos // _MICRO)
        counts: list[int] = found.tolist()
        return counts

    def unit(self, _table: Any, _pipeline: str, _stage: str) -> TimeUnit | None:
        """The unit of the windows."""
        return self._schema.unit

    def rows(
        self,
        batches: Iterable[Any],
        newer: set[WindowKey],
        pipeline: str,
        stage: str | None,
        _path: str,
    ) -> Iterator[Row]:
        """The rows of a file.

        :param newer: windows that are in newer files
        """
        schema = self._schema
        if pipeline == schema.pipeline and stage in (None, schema.stage):
            yield from results(schema, self._stored(batches, newer))

    def _stored(self, batches: Iterable[Any], newer: set[WindowKey]) -> Iterator[StoredRow]:
        schema = self._schema
        of_stage = schema.pipeline, schema.stage
        for batch in batches:
            table = self._pa.Table.from_batches([batch])
            count = len(table)
            there = set(table.column_names)

            def column(name: str | None) -> list[Any]:
                if name is None or name not in there:  # noqa: B023 it is called at once
                    return [None] * count  # noqa: B023
                values: list[Any] = table.column(name).to_pylist()  # noqa: B023
                return values

            starts, ends = (self._ints(table.column(name)) for name in (START, END))
            keys = column(schema.by)
            numbers = column(ROW if schema.table_task is not None else None)
            values = [column(name) for name in schema.columns]
            errors = column(ERROR)
            for place, (start, end) in enumerate(zip(starts, ends)):
                if WindowKey(*of_stage, start, end, 0) not in newer:
                    yield StoredRow(
                        start,
                        end,
                        keys[place],
                        numbers[place],
                        [of[place] for of in values],
                        errors[place],
                    )
