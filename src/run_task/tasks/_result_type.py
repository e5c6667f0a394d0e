"""What tasks say that they return: the type, and of a record the types of its fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from run_task.tasks._declared import ColumnTypes, Returning
from run_task.tasks._stateful import with_state
from run_task.tasks._task import Runnable

_UNTOLD: Final = "?"

UNSAID: Final[Any] = inspect.Signature.empty
"""In the place of a type: nothing is said."""


def returned_by(task: Runnable[Any, Any], columns: ColumnTypes | None) -> Any:
    """What a task returns, as an annotation says it, or as its data decides.

    :param columns: what each column of the series holds that it reads; None: it reads no series
    :return: a type, the text of one that has no meaning where it stands, or :data:`UNSAID`
    """
    if (stateful := with_state(task)) is not None:
        returned = _returned(stateful.step)
        parts = typing.get_args(returned)
        of_both = typing.get_origin(returned) is tuple and len(parts) == 2
        return parts[0] if of_both else returned  # the other is its state
    if isinstance(task, Returning) and columns is not None:
        return task.result_type(columns)
    return _returned(task.run)


def alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation leaves open, ``NoneType`` being one of them."""
    if annotation is None:
        return [types.NoneType]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in alternatives(part)]
    if origin is typing.Annotated:
        return alternatives(annotation.__origin__)
    if origin in (typing.Required, typing.NotRequired):  # of a TypedDict
        return alternatives(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return list(dict.fromkeys(map(type, typing.get_args(annotation))))
    if isinstance(annotation, typing.NewType):
        return alternatives(annotation.__supertype__)
    return [annotation]


def fields_said(kind: Any) -> Mapping[str, Any] | None:
    """The fields of a NamedTuple, a dataclass or a TypedDict, and what each says that it holds.

    :param kind: an annotation
    :return: the fields; None: it is the type of no such record
    """
    record: Any = typing.get_origin(kind) or kind
    named: Any = getattr(record, "_fields", None)
    if not inspect.isclass(record):
        return None
    if tuple in record.__mro__ and named is not None:
        names = list(map(str, named))
    elif dataclasses.is_dataclass(record):
        names = [field.name for field in dataclasses.fields(record)]
    elif typing.is_typeddict(record):
        names = list(inspect.get_annotations(record))
    else:
        return None
    said = _annotations(record)
    parameters: tuple[Any, ...] = getattr(record, "__parameters__", ())
    given: dict[Any, Any] = dict(zip(parameters, typing.get_args(kind)))
    found = {name: said.get(name, UNSAID) for name in names}
    return {
        name: given.get(of, UNSAID) if isinstance(of, TypeVar) else of for name, of in found.items()
    }


def _annotations(record: type) -> dict[str, Any]:
    """What a class says of its attributes, with that which it inherits."""
    found: dict[str, Any] = {}
    for base in reversed(record.__mro__):
        names = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            meant = _resolved(annotation, names)
            found[name] = UNSAID if isinstance(meant, str) else meant
    return found


def _returned(run: Any) -> Any:
    """What a function says that it returns: a type, the text of one that has no meaning where it
    stands, or that it says nothing."""
    function: Any = run
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    function = getattr(function, "__func__", function)  # of a method
    annotation: Any = getattr(function, "__annotations__", {}).get("return", UNSAID)
    return _resolved(annotation, getattr(inspect.unwrap(function), "__globals__", {}))


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """What an annotation that is a text means; itself if it means nothing there."""
    text: Any = (
        annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
    )
    if not isinstance(text, str):
        return annotation
    # Of the whole signature, what stands there for type checkers only could not be resolved.
    holder = type("Returned", (), {"__annotations__": {"result": text}})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["result"]
    except (NameError, AttributeError, SyntaxError, TypeError):
        return text


def annotation_shown(annotation: Any) -> str:
    """An annotation as people read it: without the modules where its types stand.

    :param annotation: None: nothing is said
    """
    if annotation is None:
        return _UNTOLD
    if annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+", "", str(annotation))
