"""What a source is: rows with the time of each."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError

R = TypeVar("R")

Source: TypeAlias = Iterable[tuple[int, R]] | AsyncIterable[tuple[int, R]]
"""Anything that gives ``(timestamp, row)``, for ``for`` or for ``async for``.

The timestamp is an int since the Unix epoch, in a unit that the source and who reads it agree on;
the ready-made sources say theirs as ``unit``. The row is anything; the ready-made sources give a
mapping of column to value.

A source gives what there is, as it comes:

- **A gap** is just that: no rows. None are invented. A window in it sees no new rows.
- **A duplicate timestamp** is a second row. Both are given, in the order in which they stand.
- **A row out of order** is given where it stands, with its own timestamp. It is neither dropped
  nor moved: a ``TimeSeries`` puts it in its place, and a window that was computed before does not
  see it, unless its ``grace`` waited for it.
- **A malformed row** is not a row. The ready-made sources count it, and log it with its file and
  line; then they leave it out or raise a ``SourceError``, as they were told by :class:`OnFault`.

Besides, a source may offer ``batches()``, which makes it :class:`Batched`; ``unit``, a
``TimeUnit``; ``malformed``, how many malformed rows there were; ``close()``, callable from any
thread, after which it gives no more rows; ``last_timestamp``, that of its last row, so that a
replay can tell how far it is; and ``endless``, true for one that has no history.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows by column, as they are read from a file.

    :param timestamps: the time of each row, int64, in the source's unit since the Unix epoch
    :param columns: an array of the same length for each column: float64, int64, bool, or
        objects that are ``str``
    :raises ConfigError: if a column has another length than the timestamps
    """

    timestamps: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.timestamps):
                raise ConfigError(
                    f"a batch's columns have one value for each timestamp: column {name!r} has "
                    f"{len(column)} for {len(self.timestamps)} timestamps"
                )

    def __len__(self) -> int:
        return len(self.timestamps)

    def __getitem__(self, rows: slice) -> Batch:
        """Some of the rows, without a copy."""
        return Batch(
            self.timestamps[rows], {name: column[rows] for name, column in self.columns.items()}
        )

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same, row by row, as plain Python values."""
        timestamps = self.timestamps.tolist()
        if not self.columns:
            return ((timestamp, {}) for timestamp in timestamps)
        names = tuple(self.columns)
        values = zip(*(column.tolist() for column in self.columns.values()))
        return zip(timestamps, (dict(zip(names, row)) for row in values))


@runtime_checkable
class Batched(Protocol):
    """A source that can also give its rows in batches, which is how bulk data is fast."""

    def batches(self) -> Iterator[Batch]:
        """The rows, in the same order and the same number as row by row."""
        ...
