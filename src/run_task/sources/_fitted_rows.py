"""Which rows of a batch a series can store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.data.series._schema import NewRows, Schema
from run_task.errors import ConfigError
from run_task.sources._batch import Batch


class FittedRows(NamedTuple):
    """Rows of a batch, as a series stores them."""

    columns: Sequence[Array]
    """The values of those that fit, by column."""

    position: NDArray[np.intp] | None
    """Where each row of the batch stands among these; None: all fit."""

    unfit: dict[int, str | None]
    """Which do not, and why; None: they have no value."""


def rows_that_fit(schema: Schema, batch: Batch) -> FittedRows:
    """The rows of a batch that can be stored.

    :param schema: what they are to fit
    """
    try:
        _, fitted, omitted = schema.rows(batch.timestamps, batch.columns)
    except ConfigError:
        return _one_by_one(schema, batch)
    return _one_by_one(schema, batch) if omitted else FittedRows(fitted, None, {})


def _one_by_one(schema: Schema, batch: Batch) -> FittedRows:
    unfit: dict[int, str | None] = {}
    good: list[NewRows] = []
    position: NDArray[np.intp] = np.zeros(len(batch), np.intp)
    for at, (time, row) in enumerate(batch.rows()):
        try:
            made = schema.row(time, row)
        except ConfigError as error:
            unfit[at] = str(error)
            continue
        if made.omitted:
            unfit[at] = None
            continue
        position[at] = len(good)
        good.append(made)
    fitted = [
        np.concatenate([one.columns[i] for one in good])
        if good
        else np.empty(0, object if column.encoded else column.dtype)
        for i, column in enumerate(schema.columns)
    ]
    return FittedRows(fitted, position, unfit)
