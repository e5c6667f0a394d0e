"""How a sink lays results out in rows and columns."""

from __future__ import annotations

from enum import Enum

from run_task.errors import ConfigError


class Layout(Enum):
    """How a sink lays results out in rows and columns.

    ``SqlSink(url, table="bars", layout=Layout.WIDE)`` makes a table that a person can query.
    """

    LONG = "long"
    """A row a task, window and key, with the value as a number and as JSON: any value, of any
    stages, in one place."""
    WIDE = "wide"
    """A row a window and key, with a typed column for each task, or for each field of what it
    returns: the results of one stage."""


def check_layout(given: object, where: str) -> Layout:
    """What a sink was given as its layout.

    :param where: the sink, for messages
    :raises ConfigError: if it is none
    """
    if isinstance(given, Layout):
        return given
    raise ConfigError(f"{where}: layout={given!r}: it is Layout.LONG or Layout.WIDE")
