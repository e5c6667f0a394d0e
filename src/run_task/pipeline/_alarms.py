"""Which alerts are on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from run_task.tasks._alert import Alert
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

_MOST: Final = 1000
"""Of how many it tells at most of a stage."""


class AlarmOn(NamedTuple):
    """An alert that is on."""

    task: str
    """The name of the alert."""
    key: Any
    """Of which key of the data it is; None: of a stage without keys."""
    since: int | None
    """The end of the window with which it went on, in the unit of the stage's interval."""


def alarms_on(dataset: AnyDataSet) -> Sequence[AlarmOn]:
    """The alerts that are on, of a thousand keys at most.

    :param dataset: what a window gave
    """
    if not isinstance(dataset, KeyedDataSet):
        return [
            AlarmOn(name, None, value.since)
            for name, value in dataset.items()
            if isinstance(value, Alert) and value.on
        ]
    found: list[AlarmOn] = []
    for name, values in dataset.by_task():
        first = next((value for value in values if value is not None), None)
        if isinstance(first, Alert):
            on = (
                AlarmOn(name, key, value.since)
                for key, value in zip(dataset.keys_of_rows, values)
                if isinstance(value, Alert) and value.on
            )
            found += islice(on, _MOST - len(found))
    return found
