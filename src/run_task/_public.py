"""What a package exports: under which name it shows, and what is imported once it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import FunctionType
from typing import Any, Final

_ROOT: Final = "run_task"

_at_root: set[str] = set()
"""What the root exports on demand: its packages are initialized after it."""


def present(namespace: dict[str, Any], on_demand: Mapping[str, str] | None = None) -> None:
    """Give what a package exports the package's name, for reprs, tracebacks and pickles.

    The modules in which it is written are private, and may change. What the root exports is the
    root's; all else is the first package's.

    :param namespace: the package's ``globals()``, with ``__all__``
    :param on_demand: exports that are imported when they are asked for, since most programs do
        without them: the name of each, and the module that has it, relative to the package. Type
        checkers are told of them by imports under ``TYPE_CHECKING``
    """
    package = namespace["__name__"]
    later: Mapping[str, str] = on_demand or {}
    if package == _ROOT:
        _at_root.update(later)
    for name in namespace["__all__"]:
        if name not in later:
            _rename(namespace[name], package)
    if not later:
        return

    def of_package(name: str) -> Any:
        if name not in later:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        thing = getattr(import_module(f"{package}.{later[name]}"), name)
        _rename(thing, package)
        namespace[name] = thing
        return thing

    def names() -> Sequence[str]:
        return sorted({*namespace, *later})

    namespace["__getattr__"], namespace["__dir__"] = of_package, names


def _rename(thing: Any, package: str) -> None:
    if not isinstance(thing, type | FunctionType):
        return
    if thing.__name__ in _at_root:
        package = _ROOT
    if package == _ROOT or "._" in thing.__module__:
        thing.__module__ = package
