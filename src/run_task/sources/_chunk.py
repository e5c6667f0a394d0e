"""Rows of bulk data as they stand there, good and bad, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from run_task.errors import SourceError
from run_task.sources._batch import Batch
from run_task.sources._faults import Faults


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as they stand in a file, good and bad.

    :param batch: the rows; where one is bad, anything may stand
    :param lines: the line of each
    :param faults: what is wrong, by line; also lines that gave no row at all
    """

    batch: Batch
    lines: NDArray[np.int64] | range
    faults: dict[int, SourceError] = field(default_factory=dict[int, SourceError])


def without_faults(chunk: Chunk, faults: Faults) -> Iterator[Batch]:
    """The good rows; the rows before a fault that is fatal come before it is raised."""
    if not chunk.faults:
        yield chunk.batch
        return
    lines = chunk.lines
    if isinstance(lines, range):
        lines = np.arange(lines.start, lines.stop)
    ordered = [chunk.faults[line] for line in sorted(chunk.faults)]
    faults.judge(len(np.union1d(lines, list(chunk.faults))), ordered)
    if faults.are_fatal:
        first = min(chunk.faults)
        yield chunk.batch[: int(np.searchsorted(lines, first))]
        faults.note(chunk.faults[first])
    for fault in ordered:
        faults.note(fault)
    yield chunk.batch.where(~np.isin(lines, list(chunk.faults)))
