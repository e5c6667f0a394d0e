"""Series whose rows lie elsewhere: of each, there is its time, its key and its place.

Whoever keeps them so has the order of all rows, and what depends on it: which of them are late,
which have passed out, and which keys there are. The values of the other columns are where the rows
were read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._schema import Schema

PLACE: Final = "place of a row"
"""What the column of places is called, beside that of the key."""

_ROW_BITS: Final = 40

MOST_ROWS: Final = 1 << _ROW_BITS
"""How many rows a partition may have."""


def places_of(partition: int, first: int, count: int) -> NDArray[np.int64]:
    """The places of rows that follow each other in a partition.

    :param partition: its number
    :param first: the number of the first of them
    :param count: how many they are
    """
    begin = (partition << _ROW_BITS) + first
    return np.arange(begin, begin + count, dtype=np.int64)


def partitions_of(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The partition of each place."""
    return places >> _ROW_BITS


def rows_of(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number that the row of each place has in its partition."""
    return places & (MOST_ROWS - 1)


def schema_of_places(schema: Schema) -> Schema:
    """What a series has whose rows lie elsewhere.

    :param schema: what these rows have
    """
    key = schema.key
    assert key is not None  # it was checked
    # The place first: whether a row has a value is then known without a look at its key.
    kinds: dict[str, Any] = {PLACE: np.int64, key: schema.columns[schema.positions[key]].dtype}
    return Schema(kinds, schema.unit, schema.closed, schema.zone, key)
