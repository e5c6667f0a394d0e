"""What :mod:`run_task.data` was called before; each name is taken from there, with a warning."""

from __future__ import annotations

import warnings
from typing import Any

from run_task import data


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in data.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"run_task.shared is run_task.data now: write from run_task.data import {name}",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(data, name)
