"""Arguments that several sources take."""

from __future__ import annotations

from run_task.errors import ConfigError
from run_task.sources._faults import OnFault
from run_task.time._interval import TimeUnit


def check(where: str, unit: object, stored: object, on_fault: object) -> None:
    """Refuse what a caller without a type checker may have got wrong.

    :raises ConfigError: if one of these is not what it has to be
    """
    if not isinstance(unit, TimeUnit):
        raise ConfigError(f"{where}: unit={unit!r}: it is a TimeUnit")
    if not isinstance(stored, TimeUnit | None):
        raise ConfigError(f"{where}: stored={stored!r}: it is a TimeUnit or None")
    if not isinstance(on_fault, OnFault):
        choices = ", ".join(map(str, OnFault))
        raise ConfigError(f"{where}: {on_fault!r} is not one of {choices}")


def check_flag(where: str, name: str, given: object) -> None:
    """Refuse what is taken for true and is not: a text, as of a file of settings.

    :raises ConfigError: if it is neither True nor False
    """
    if not isinstance(given, bool):
        raise ConfigError(f"{where}: {name}={given!r}: it is True or False")


def check_share(where: str, most: object) -> float:
    """The largest share of malformed rows, as it was given.

    :raises ConfigError: if it is none
    """
    if isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1:
        raise ConfigError(f"{where}: max_malformed={most!r}: it is a share, from 0 to 1")
    return float(most)
