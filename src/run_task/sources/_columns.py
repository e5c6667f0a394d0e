"""Columns of a file as NumPy arrays of the four types that a row's values have."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

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
_NO_VALUE: Final = "?"  # what Arrow takes for nothing at all


class Spelling:
    """How a file of texts spells what is no text.

    :param nulls: how a value is spelled that is missing, besides nothing at all; None: as pyarrow
        has it
    :param true: how a bool is spelled that is true, in small letters or capitals
    :param false: how one is that is false
    :param decimal: what stands before the decimals of a number
    :param thousands: what may stand before each three digits of a number; None: nothing does
    """

    def __init__(
        self,
        nulls: Sequence[str] | None = None,
        true: Sequence[str] = ("true", "1"),
        false: Sequence[str] = ("false", "0"),
        decimal: str = ".",
        thousands: str | None = None,
    ) -> None:
        self._nulls = nulls
        self._bools: dict[str, str] = dict.fromkeys((word.strip().lower() for word in true), "true")
        self._bools |= dict.fromkeys((word.strip().lower() for word in false), "false")
        self.true: Sequence[str] = true
        self.false: Sequence[str] = false
        self.decimal: str = decimal
        self.thousands: str | None = thousands
        d = re.escape(decimal)
        whole = "[0-9]+"
        if thousands is not None:
            whole = f"([0-9]+|[0-9]{{1,3}}({re.escape(thousands)}[0-9]{{3}})+)"
        number = f"({whole}({d}[0-9]*)?|{d}[0-9]+)(e[+-]?[0-9]+)?"
        self.int_pattern: str = rf"^\s*[+-]?{whole}\s*$"
        self.number_pattern: str = rf"(?i)^\s*[+-]?({number}|inf|infinity)\s*$"
        words = "|".join(re.escape(word) for word in self._bools if not word.isdecimal())
        self.bool_pattern: str = rf"(?i)^\s*({words})\s*$"

    @property
    def nulls(self) -> Sequence[str]:
        """How a value is spelled that is missing."""
        if self._nulls is not None:
            return ("", *self._nulls)
        return cast("list[str]", need("pyarrow.csv", "arrow").ConvertOptions().null_values)

    def plain_numbers(self, texts: Any, kind: Kind) -> Any:
        """Texts without spaces around them as Arrow reads numbers, where they are some."""
        pc = need("pyarrow.compute", "arrow")
        pattern = self.int_pattern if kind is int else self.number_pattern
        right = pc.match_substring_regex(texts, pattern)
        if self.thousands is not None:
            texts = pc.replace_substring(texts, self.thousands, "")
        if self.decimal != ".":
            texts = pc.replace_substring(texts, self.decimal, ".")
        return pc.if_else(right, pc.utf8_ltrim(texts, "+"), _NO_VALUE)

    def plain_bools(self, texts: Any) -> Any:
        """Texts without spaces around them as Arrow reads bools, where they are some."""
        pa = need("pyarrow", "arrow")
        pc = need("pyarrow.compute", "arrow")
        words = pa.array([*self._bools, _NO_VALUE])
        at = pc.index_in(pc.utf8_lower(texts), words).fill_null(len(self._bools))
        found = pa.array([*self._bools.values(), _NO_VALUE]).take(at)
        return pc.if_else(texts.is_null(), pa.scalar(None, pa.string()), found)


SPELLING: Final = Spelling()
"""How values are spelled, unless somebody has said otherwise."""


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


def kind_of_texts(texts: Any, spelling: Spelling = SPELLING) -> Kind:
    """The type that most of a column's texts are of: the others are malformed.

    One bad value at the head of a file must not make a text of a number. A column of numbers is
    float, since there may be decimals or nothing at all further on, and so is one that has nothing
    to go by.

    :param texts: an Arrow array of binary
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    missing = pc.sum(pc.is_in(texts, _spelled_null(pa, spelling))).as_py() or 0
    there = len(texts) - missing
    if 2 * _matches(pc, texts, spelling.number_pattern) >= there:
        return float
    return bool if 2 * _matches(pc, texts, spelling.bool_pattern) >= there else str


def _matches(pc: Any, texts: Any, pattern: str) -> int:
    return pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0


def _spelled_null(pa: Any, spelling: Spelling) -> Any:
    return pa.array([text.encode() for text in spelling.nulls], pa.binary())


def from_arrow(
    column: Any, kind: Kind, spelling: Spelling = SPELLING
) -> tuple[NDArray[Any], dict[int, str]]:
    """An Arrow array as a NumPy array of a type.

    A value that is missing is NaN in a float column and ``""`` in a str column; an int and a bool
    column have nothing for it, so there it is a fault.

    :param column: an Arrow array; one of binary holds texts as they stand in a CSV
    :param kind: the type wanted
    :param spelling: how texts spell it that stand in a CSV
    :return: the array, and what is wrong with the values that are not of the type, by position
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    faults: dict[int, str] = {}
    wanted = arrow_type(kind)
    whole = column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    spelled = pa.types.is_binary(column.type) and kind is not str
    if spelled:
        column = pc.if_else(
            pc.is_in(column, _spelled_null(pa, spelling)), pa.scalar(None, pa.binary()), column
        )
    missing = column.is_null() if column.null_count else None
    column = decoded(column, faults)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _trimmed(pc, column, kind, spelling if spelled else None)
    exact = not (kind is float and pa.types.is_integer(column.type))  # the nearest float will do
    column = _cast(pa, column, wanted, faults, f"a valid {kind.__name__}", exact=exact)
    if missing is not None and kind in (int, bool):
        for position in np.flatnonzero(missing.to_numpy(zero_copy_only=False)):
            faults.setdefault(int(position), MISSING)
    faults = shown(whole, faults)
    column = column.fill_null(_NOTHING[kind])
    return column.to_numpy(zero_copy_only=False), faults


def arrow_type(kind: Kind) -> Any:
    """The Arrow type of the values of a column."""
    return getattr(need("pyarrow", "arrow"), _ARROW[kind])()


def one_array(column: Any) -> Any:
    """A column of an Arrow table as one array."""
    pa = need("pyarrow", "arrow")
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def can_be(arrow_type: Any, kind: Kind) -> bool:
    """Whether :func:`from_arrow` can make arrays of an Arrow type into ones of a type."""
    pa = need("pyarrow", "arrow")
    try:
        from_arrow(pa.array([], arrow_type), kind)
    except pa.ArrowNotImplementedError:
        return False
    return True


def _trimmed(pc: Any, texts: Any, kind: Kind, spelling: Spelling | None) -> Any:
    """Texts as Arrow can cast them to a type, where they are of it."""
    if kind is str:
        return texts
    texts = pc.utf8_trim_whitespace(texts)
    if spelling is not None and kind is bool:
        return spelling.plain_bools(texts)
    if (
        spelling is not None
        and kind is float
        and (spelling.decimal, spelling.thousands) != (".", None)
    ):
        return spelling.plain_numbers(texts, kind)
    if kind is int:  # Arrow would take 0x1F for one, but not +1
        return (spelling or SPELLING).plain_numbers(texts, kind)
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
