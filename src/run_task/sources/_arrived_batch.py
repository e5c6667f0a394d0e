"""Rows by column that say when they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run_task.sources._arrived import Arrived
from run_task.sources._batch import Batch
from run_task.sources._positioned import Position


@dataclass(frozen=True, slots=True, eq=False)
class ArrivedBatch(Batch):
    """A batch whose rows have the times at which they came, as :class:`Arrived` has one.

    :param arrivals: these times, in nanoseconds since the Unix epoch, int64, in ascending order
    :param behind: the position of its source behind so many of its rows
    """

    arrivals: NDArray[np.int64]
    behind: Callable[[int], Position]

    def arrived(self) -> Iterator[Arrived[dict[str, Any]]]:
        """The same, row by row."""
        times = self.arrivals.astype("M8[ns]")
        return (Arrived(at, row, time) for (at, row), time in zip(self.rows(), times))
