"""Exported classes and functions get the name of their public package as ``__module__``."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Final

_ROOT: Final = "run_task"


def present(namespace: dict[str, Any]) -> None:
    """Give what a package exports the package's name, for reprs, tracebacks and pickles.

    The modules in which it is written are private, and may change. What the root exports is the
    root's, which is initialized after those packages; all else is the first package's.

    :param namespace: the package's ``globals()``, with ``__all__``
    """
    package = namespace["__name__"]
    for name in namespace["__all__"]:
        thing = namespace[name]
        if not isinstance(thing, type | FunctionType):
            continue
        if package == _ROOT or "._" in thing.__module__:
            thing.__module__ = package
