"""Rows by column, which is how bulk data is read and entered fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows by column, as they are read from a file or a frame.

    :param timestamps: the time of each row, int64, in the source's unit since the Unix epoch
    :param columns: an array of the same length for each column: of a file float64, int64, bool, or
        objects that are ``str``; of a frame also of what else a series may hold. These arrays, and
        the timestamps, may be read-only
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

    def where(self, which: NDArray[np.bool_]) -> Batch:
        """Some of the rows, in the same order.

        :param which: for each row, whether it is among them
        """
        columns = {name: column[which] for name, column in self.columns.items()}
        return Batch(self.timestamps[which], columns)

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same, row by row, as plain Python values; times are NumPy's, which know NaT and
        nanoseconds."""
        timestamps = self.timestamps.tolist()
        if not self.columns:
            return ((timestamp, {}) for timestamp in timestamps)
        names = tuple(self.columns)
        values = zip(
            *(each if each.dtype.kind == "M" else each.tolist() for each in self.columns.values())
        )
        return zip(timestamps, (dict(zip(names, row)) for row in values))


@runtime_checkable
class Batched(Protocol):
    """A source that can also give its rows in batches, which is how bulk data is fast."""

    def batches(self) -> Iterator[Batch]:
        """The rows, in the same order and the same number as row by row."""
        ...
