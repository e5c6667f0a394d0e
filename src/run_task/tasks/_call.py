"""Whether a function can be called as it is going to be."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def misfit(function: Callable[..., object], *arguments: object) -> str | None:
    """Why a function cannot be called with some arguments; None: it can, or nothing is known of
    its parameters, as of those of some functions of C."""
    try:
        # A wrapper is called with its own parameters, not with those of what it wraps.
        called = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    try:
        called.bind(*arguments)
    except TypeError as error:
        return str(error)
    return None
