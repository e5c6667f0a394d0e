"""Values, times and errors as a person reads them, on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from run_task.errors import TaskError


def shown(value: object) -> str:
    """A value on one line, whatever it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.6e}"
    try:
        text = str(value)
    except Exception as error:  # of a class of the user's
        text = f"<{type(value).__name__} whose str() raises {type(error).__name__}>"
    return "".join(c if c.isprintable() else " " for c in text[:1000]).strip()


def named(thing: object) -> str:
    """What a source, a sink or shared data is, in a few words."""
    kind = type(thing)
    if kind.__repr__ is object.__repr__:
        return kind.__name__
    if isinstance(thing, list | tuple | dict | set):
        return f"{kind.__name__} of {len(thing):,}"  # pyright: ignore[reportUnknownArgumentType] of anything
    return shown(repr(thing))


def error_shown(error: TaskError) -> str:
    """Why a task gave no result."""
    cause = error.__cause__
    if cause is None:
        return shown(error.reason or error)
    return shown(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)


def seconds(value: float) -> str:
    """A short time."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (100.0, 1.0, "s")):
        if value < limit:
            scaled = value * factor
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.2g} {unit}"
    return f"{value:,.0f} s"


def elapsed(value: float) -> str:
    """How long something has been going on."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
