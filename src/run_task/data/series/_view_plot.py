"""What is drawn of a view."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._gathered import NO_TIME
from run_task.data.series._schema import Schema
from run_task.data.series._texts import EncodedTexts
from run_task.observe._plot import Numbers, Plot, TimeAxis
from run_task.time._shown import stamp_shown


class DrawnView(Protocol):
    """A view, as far as it is looked at here."""

    @property
    def time(self) -> NDArray[np.int64]:
        """The timestamps, in ascending order."""
        ...

    def __getitem__(self, column: str) -> NDArray[Any]:
        """The values of a column."""
        ...

    def encoded(self, column: str) -> EncodedTexts:
        """A column of texts as codes and what they stand for."""
        ...


def plot_of(view: DrawnView, schema: Schema) -> Plot:
    """A plot of its columns, by key if it has one.

    :param schema: the columns
    """
    there = slice(int(np.count_nonzero(view.time == NO_TIME)), None)  # asof() puts them first
    stamps = view.time[there]
    keys = _keys(view, schema, there)
    columns: dict[str, Numbers | str] = {}
    for column in schema.columns:
        kind = column.dtype.kind
        if column.name == schema.key:  # it tells the lines apart
            continue
        if kind in "biuf":
            columns[column.name] = Numbers(view[column.name][there], stepped=kind == "b")
        else:
            columns[column.name] = {"U": "texts", "S": "bytes"}.get(kind, "times")
    unit, zone = schema.unit, schema.zone or UTC
    first = stamp_shown(int(stamps[0]), unit, zone) if len(stamps) else ""
    return Plot(
        "plot()", TimeAxis(stamps, unit.nanos, zone, f"{unit.value} after {first}"), columns, keys
    )


def _keys(
    view: DrawnView, schema: Schema, there: slice
) -> tuple[NDArray[np.integer[Any]], Sequence[Any]] | None:
    """For each row the place of its key, and the keys; None: there are none, or no two."""
    name = schema.key
    if name is None or not len(view.time):
        return None
    if schema.columns[schema.positions[name]].encoded:
        places, texts = view.encoded(name).compact()
        keys: Sequence[Any] = texts.tolist()
        return (places[there], keys) if len(keys) > 1 else None
    values, inverse = np.unique(view[name][there], return_inverse=True)
    return (inverse, values.tolist()) if len(values) > 1 else None
