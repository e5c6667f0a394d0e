"""Columns of a file as NumPy arrays of the four types that a row's values have."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.errors import ConfigError

Kind: TypeAlias = type[float] | type[int] | type[bool] | type[str]

KINDS: Final[tuple[Kind, ...]] = (float, int, bool, str)

ColumnChoice: TypeAlias = Mapping[str, Kind] | Sequence[str] | None
"""Which columns to read: by name with their types, by name, or None for all of them."""

MISSING: Final = (
    "there is no value, and only a float column can say so (NaN), or a str column (''): "
    "declare it float"
)

_ARROW: Final = {float: "float64", int: "int64", bool: "bool_", str: "string"}
_NUMPY: Final[dict[Kind, Any]] = {float: np.float64, int: np.int64, bool: np.bool_, str: object}
_NOTHING: Final[dict[Kind, Any]] = {float: float("nan"), int: 0, bool: False, str: ""}
_INT: Final = r"^\s*[+-]?[0-9]+\s*$"
_NUMBER: Final = r"(?i)^\s*[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)\s*$"
_NO_NUMBER: Final = "?"  # what Arrow takes for nothing at all
_BOOL: Final = r"(?i)^\s*(true|false)\s*$"


def declared(columns: ColumnChoice, where: str) -> dict[str, Kind | None]:
    """The columns that were asked for, each with its type, or None if that is to be inferred.

    :raises ConfigError: if a type is none of the four, or a name is none
    """
    if columns is None:
        return {}
    if isinstance(columns, str):
        raise ConfigError(f"{where}: columns={columns!r} is one text: write [{columns!r}]")
    kinds: dict[str, Kind | None] = {}
    for name in columns:
        kind = columns[name] if isinstance(columns, Mapping) else None
        if kind is not None and kind not in KINDS:
            raise ConfigError(
                f"{where}: column {name!r} is to be {kind!r}; it can be float, int, bool, str"
            )
        kinds[name] = kind
    if not kinds:
        raise ConfigError(f"{where}: columns={columns!r} names none; None stands for all of them")
    return kinds


def array_of(values: Sequence[Any], kind: Kind) -> NDArray[Any]:
    """Python values as an array like those that :func:`from_arrow` gives."""
    return np.array(values, dtype=_NUMPY[kind])


def kind_of_type(arrow_type: Any) -> Kind | None:
    """The type that a column of an Arrow type is read as; None if there is none."""
    types = need("pyarrow", "arrow").types
    if types.is_dictionary(arrow_type):
        return kind_of_type(arrow_type.value_type)
    if types.is_boolean(arrow_type):
        return bool
    if types.is_integer(arrow_type):
        return int
    if types.is_floating(arrow_type) or types.is_decimal(arrow_type) or types.is_null(arrow_type):
        return float
    if types.is_string(arrow_type) or types.is_large_string(arrow_type):
        return str
    return str if types.is_temporal(arrow_type) and not types.is_duration(arrow_type) else None


def kind_of_texts(texts: Any) -> Kind:
    """The type that most of a column's texts are of: the others are malformed.

    One bad value at the head of a file must not make a text of a number. A column is int if all
    of its numbers are and none is missing, and float if there is nothing to go by.

    :param texts: an Arrow array of binary
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    missing = _nulls(pa, pc, texts)
    there = len(texts) - missing
    numbers = _matches(pc, texts, _NUMBER)
    if 2 * numbers >= there:
        return int if there and not missing and numbers == _matches(pc, texts, _INT) else float
    return bool if 2 * _matches(pc, texts, _BOOL) >= there else str


def _matches(pc: Any, texts: Any, pattern: str) -> int:
    return pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0


def _spelled_null(pa: Any) -> Any:
    """How a value that is missing is written in a CSV, as pyarrow has it."""
    spellings = need("pyarrow.csv", "arrow").ConvertOptions().null_values
    return pa.array([text.encode() for text in spellings], pa.binary())


def _nulls(pa: Any, pc: Any, texts: Any) -> int:
    return pc.sum(pc.is_in(texts, _spelled_null(pa))).as_py() or 0


def from_arrow(column: Any, kind: Kind) -> tuple[NDArray[Any], dict[int, str]]:
    """An Arrow array as a NumPy array of a type.

    A value that is missing is NaN in a float column and ``""`` in a str column; an int and a bool
    column have nothing for it, so there it is a fault.

    :param column: an Arrow array; one of binary holds texts as they stand in a CSV
    :param kind: the type wanted
    :return: the array, and what is wrong with the values that are not of the type, by position
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    faults: dict[int, str] = {}
    wanted = getattr(pa, _ARROW[kind])()
    whole = column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_binary(column.type) and kind is not str:
        column = pc.if_else(
            pc.is_in(column, _spelled_null(pa)), pa.scalar(None, pa.binary()), column
        )
    column = decoded(column, faults)
    missing = column.is_null() if column.null_count else None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _trimmed(pa, pc, column, kind)
    exact = not (kind is float and pa.types.is_integer(column.type))  # the nearest float will do
    column = _cast(pa, column, wanted, faults, f"a valid {kind.__name__}", exact=exact)
    if missing is not None and kind in (int, bool):
        for position in np.flatnonzero(missing.to_numpy(zero_copy_only=False)):
            faults.setdefault(int(position), MISSING)
    faults = shown(whole, faults)
    column = column.fill_null(_NOTHING[kind])
    return column.to_numpy(zero_copy_only=False), faults


def can_be(arrow_type: Any, kind: Kind) -> bool:
    """Whether :func:`from_arrow` can make arrays of an Arrow type into ones of a type."""
    pa = need("pyarrow", "arrow")
    try:
        from_arrow(pa.array([], arrow_type), kind)
    except pa.ArrowNotImplementedError:
        return False
    return True


def _trimmed(pa: Any, pc: Any, texts: Any, kind: Kind) -> Any:
    """Texts as Arrow can cast them to numbers, where they are some."""
    if kind is str:
        return texts
    texts = pc.utf8_trim_whitespace(texts)
    if kind is int:  # Arrow would take 0x1F for one, but not +1
        texts = pc.if_else(
            pc.match_substring_regex(texts, _INT), pc.utf8_ltrim(texts, "+"), _NO_NUMBER
        )
    return texts


def decoded(column: Any, faults: dict[int, str]) -> Any:
    """An Arrow array of binary as one of texts, other arrays as they are.

    What is not UTF-8 becomes null and a fault.
    """
    pa = need("pyarrow", "arrow")
    if not pa.types.is_binary(column.type):
        return column
    return _cast(pa, column, pa.string(), faults, "text in UTF-8")


def shown(column: Any, faults: dict[int, str]) -> dict[int, str]:
    """The faults with what stands there filled in."""
    return {at: reason.format(_shown(column[at].as_py())) for at, reason in faults.items()}


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):  # then the bytes show what is wrong
            value = value.decode()
    return repr(value)


def _cast(
    pa: Any, column: Any, wanted: Any, faults: dict[int, str], what: str, *, exact: bool = True
) -> Any:
    """Cast an array; what cannot be becomes null and a fault.

    Arrow says only that some value is wrong, and not which: halves tell.
    """
    done: list[Any] = []
    todo = [(0, len(column))]
    while todo:
        start, end = todo.pop()
        try:
            done.append(column[start:end].cast(wanted, safe=exact))
        except pa.ArrowInvalid:
            if end - start == 1:
                faults[start] = f"{{}} is not {what}"
                done.append(pa.nulls(1, wanted))
            else:
                middle = (start + end) // 2
                todo += [(middle, end), (start, middle)]
    return done[0] if len(done) == 1 else pa.concat_arrays(done)
