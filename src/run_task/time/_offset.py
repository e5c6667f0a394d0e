"""How far edges are moved: an interval's ``offset=``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final, TypeAlias

from run_task.errors import ConfigError
from run_task.time._interval import TaskInterval

Offset: TypeAlias = "str | timedelta | TaskInterval | None"

_NOTHING: Final = re.compile(r"\s*0+(?:\.0+)?\s*[a-z]+\s*", re.ASCII)

_TOLD: Final = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}


def offset_nanos(offset: Offset) -> int:
    """An offset, in nanoseconds.

    :param offset: as a text such as ``"17h"``, a timedelta that is not negative, or a length; None:
        none
    :raises ConfigError: if it is anything else
    """
    given: Any = offset
    if given is None:
        return 0
    if isinstance(given, timedelta) and given >= timedelta(0):
        return given // timedelta(microseconds=1) * 1000
    if isinstance(given, str):
        if _NOTHING.fullmatch(given):
            return 0
        try:
            return TaskInterval.parse(given).nanos
        except ConfigError as error:
            raise ConfigError(f"offset={given!r}: {error}") from None
    if isinstance(given, TaskInterval):
        return given.nanos
    raise ConfigError(
        f"offset={given!r}: it is a text such as '17h', or a timedelta that is not negative"
    )


def told(nanos: int) -> str:
    """A length as a text, from which it can be read again."""
    suffix, unit = next((s, unit) for s, unit in _TOLD.items() if nanos % unit == 0)
    return f"{nanos // unit}{suffix}"
