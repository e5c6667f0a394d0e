"""Times in JSON, which has no infinity."""

from __future__ import annotations

import math


def finite(value: float) -> float | None:
    """A time; None: it is before or after all."""
    return value if math.isfinite(value) else None


def or_before_all(value: float | None) -> float:
    """The same, where None is before all."""
    return -math.inf if value is None else value
