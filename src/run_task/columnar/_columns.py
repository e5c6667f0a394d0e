"""Columns of a file as NumPy arrays of the four types that a row's values have."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
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

ROUNDED: Final = (
    "{} would not stay what it is in a float column, and nobody has said that it is one: declare "
    "it int, str or, to have the nearest float, float"
)

_NUMPY: Final[dict[Kind, Any]] = {float: np.float64, int: np.int64, bool: np.bool_, str: object}
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

    @functools.cached_property
    def null_texts(self) -> Any:
        """The same, as an Arrow array of binary."""
        pa = need("pyarrow", "arrow")
        return pa.array([text.encode() for text in self.nulls], pa.binary())

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

    def whole_number(self, text: str) -> Decimal | None:
        """What a text tells that is an int; None if it is none."""
        if re.fullmatch(self.int_pattern, text, re.ASCII) is None:
            return None
        plain = text.strip()
        return Decimal(plain if self.thousands is None else plain.replace(self.thousands, ""))

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
                f"{where}: column {name!r} is to be {kind!r}: write one of the types float, int, "
                f"bool and str, without quotes"
            )
        kinds[name] = kind
    if not kinds:
        raise ConfigError(f"{where}: columns={columns!r} names none; None stands for all of them")
    return kinds


def array_of(values: Sequence[Any], kind: Kind) -> NDArray[Any]:
    """Python values as an array like those that :func:`from_arrow` gives."""
    return np.array(values, dtype=_NUMPY[kind])


def kinds_of_texts(columns: Mapping[str, Any], spelling: Spelling = SPELLING) -> dict[str, Kind]:
    """The types that most texts of columns are of: the others are malformed.

    One bad value at the head of a file must not make a text of a number. A column of numbers is
    float, since there may be decimals or nothing at all further on, and so is one that has nothing
    to go by.

    :param columns: Arrow arrays of binary, all of one length
    """
    if not columns:
        return {}
    pc = need("pyarrow.compute", "arrow")
    texts = _joined(columns)
    there = _count(~pc.is_in(texts, spelling.null_texts).to_numpy(zero_copy_only=False), columns)
    are_floats = 2 * _matches(texts, spelling.number_pattern, columns) >= there
    kinds: dict[str, Kind] = dict.fromkeys(columns, float)
    rest = {name: column for at, (name, column) in enumerate(columns.items()) if not are_floats[at]}
    if rest:
        are_bools = 2 * _matches(_joined(rest), spelling.bool_pattern, rest) >= there[~are_floats]
        kinds |= {name: bool if are_bools[at] else str for at, name in enumerate(rest)}
    return kinds


def _joined(columns: Mapping[str, Any]) -> Any:
    """Arrow arrays as one: with many columns, to ask of each takes longer than to look at it."""
    return need("pyarrow", "arrow").concat_arrays(list(columns.values()))


def _matches(texts: Any, pattern: str, columns: Mapping[str, Any]) -> NDArray[np.int64]:
    pc = need("pyarrow.compute", "arrow")
    found = pc.match_substring_regex(texts, pattern)
    return _count(found.to_numpy(zero_copy_only=False), columns)


def _count(which: NDArray[np.bool_], columns: Mapping[str, Any]) -> NDArray[np.int64]:
    """Of how many values of each column something is so."""
    counts: NDArray[np.int64] = np.count_nonzero(which.reshape(len(columns), -1), axis=1)
    return counts
