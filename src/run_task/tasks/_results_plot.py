"""What is drawn of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from decimal import Decimal
from numbers import Real
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.observe._plot import Numbers, Plot, TimeAxis
from run_task.tasks._result_fields import fields_of
from run_task.tasks._table import TIMESTAMP
from run_task.time._calendar import Interval
from run_task.time._shown import time_shown, zone_of

_NUMBERS: Final[Any] = (Real, Decimal, np.bool_)


def plot_of(
    what: str,
    columns: Mapping[str, Sequence[Any]],
    interval: Interval | None,
    errors: Callable[[str], int],
    by: str | None = None,
) -> Plot:
    """A plot of results, of each key if they have any.

    :param what: what they are, for messages
    :param columns: the columns of their table
    :param interval: what tells what their times mean; None: nobody knows
    :param errors: how often a task failed
    :param by: the column of the keys
    """
    stamps: NDArray[np.int64] = np.array(columns[TIMESTAMP], np.int64)
    origin, zone = TIMESTAMP, UTC if interval is None else zone_of(interval)
    if interval is not None and len(stamps):
        origin = f"{interval.unit.value} after {time_shown(int(stamps[0]), interval)}"
    drawn: dict[str, Numbers | str] = {}
    for name, values in columns.items():
        if name not in (TIMESTAMP, by):
            failed = errors(name)
            told = f", {failed:,} error{'s' if failed > 1 else ''}" if failed else ""
            for part, found in _parts(name, values).items():
                drawn[part] = _numbers(found, told)
    keys = None if by is None else _places(columns[by])
    unit_ns = None if interval is None else interval.unit.nanos
    return Plot(what, TimeAxis(stamps, unit_ns, zone, origin), drawn, keys)


def _numbers(values: Sequence[Any], told: str) -> Numbers | str:
    """Values as numbers, or what they are."""
    kinds: set[Any] = {value.__class__ for value in values if value is not None}
    if not kinds:
        return "no results"
    if all(issubclass(kind, _NUMBERS) for kind in kinds):
        try:
            found = [float("nan") if value is None else float(value) for value in values]
        except OverflowError:
            return "ints beyond floats"
        return Numbers(np.array(found), stepped=kinds <= {bool, np.bool_}, told=told)
    return " and ".join(sorted(kind.__qualname__ for kind in kinds))


def _parts(name: str, values: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Results that have fields, such as open and close, as a column of each field."""
    found = [None if value is None else fields_of(value) for value in values]
    if any(value is not None and fields is None for value, fields in zip(values, found)):
        return {name: values}
    names = list(dict.fromkeys(field for fields in found for field in fields or ()))
    if not names:
        return {name: values}
    return {
        f"{name}_{field}": [None if fields is None else fields.get(field) for fields in found]
        for field in names
    }


def _places(keys: Sequence[Any]) -> tuple[NDArray[np.intp], Sequence[Any]]:
    """For each row the place of its key, and the keys."""
    place: dict[Any, int] = {}
    places = [place.setdefault(key, len(place)) for key in keys]
    return np.array(places, np.intp), list(place)
