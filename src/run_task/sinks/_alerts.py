"""Which alerts a window has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from run_task.sinks._protocol import Result
from run_task.tasks._alert import Alert
from run_task.tasks._keyed import KeyedDataSet


class AlertChange(NamedTuple):
    """An alert that a window has switched on or off."""

    task: str
    """The name of the alert."""
    key: Any
    """Of which key of the data it is; None: of a stage without keys."""
    on: bool
    """Whether it is on now."""
    since: int
    """The end of that window, in the unit of the stage's interval since the Unix epoch."""


def alert_changes(result: Result, /) -> list[AlertChange] | None:
    """The alerts that a window has switched: what a sink tells people of, so that each change is
    told once. ``WebhookSink(url, body=alert_changes)`` sends these, and nothing where there are
    none.

    :param result: what a sink is given
    :return: the alerts, in the order of keys and tasks; None: there are none
    """
    dataset, end = result.dataset, result.window.end
    rows: list[tuple[Any, Mapping[str, Any]]]
    rows = list(dataset.rows()) if isinstance(dataset, KeyedDataSet) else [(None, dataset)]
    found = [
        AlertChange(task, key, value.on, end)
        for key, values in rows
        for task, value in values.items()
        if isinstance(value, Alert) and value.since == end
    ]
    return found or None
