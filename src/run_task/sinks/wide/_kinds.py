"""What a column of a wide table holds, and which values fit into it.

One rule, as in the columns of a time series: a value is taken if nothing of it is lost. So an int
goes into a column of floats and ``3.0`` into one of ints, but ``3.5`` does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final

import numpy as np

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.sinks._record import is_storable
from run_task.sinks.encoding._json import Encoder, value_of
from run_task.sinks.encoding._numpy import plain_scalar
from run_task.sinks.encoding._tag import Types, UndecodableError, UnencodableError


class WideKind(Enum):
    """What a column holds. Each holds None, too, as NULL."""

    FLOAT = "float"
    INT = "int"
    """Of 64 bits, with a sign."""
    BOOL = "bool"
    TEXT = "text"
    TIMESTAMP = "timestamp"
    """A time with a zone, in UTC, to the microsecond."""
    LOCAL = "local"
    """A time without a zone, to the microsecond."""
    DATE = "date"
    DECIMAL = "decimal"
    """Its digits, as a text: databases round decimals each in a way of its own."""
    JSON = "json"
    """Anything else, as a text of JSON that tells its type."""


class UnfitError(Exception):
    """A column cannot hold a value.

    :ivar row: its position among several; None: it is not about one of them
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.row = row


_EXACT: Final[Mapping[WideKind, type]] = {
    WideKind.FLOAT: float,
    WideKind.INT: int,
    WideKind.BOOL: bool,
    WideKind.TEXT: str,
}
"""Values of exactly this type are stored as they are, if they are neither too large, nor texts that
no file has."""

_KINDS: Final[Mapping[type, WideKind]] = {
    **{kind: of for of, kind in _EXACT.items()},
    date: WideKind.DATE,
    Decimal: WideKind.DECIMAL,
}

NOUNS: Final[Mapping[WideKind, str]] = {
    WideKind.FLOAT: "floats",
    WideKind.INT: "ints of 64 bits",
    WideKind.BOOL: "bools",
    WideKind.TEXT: "texts",
    WideKind.TIMESTAMP: "times with a zone",
    WideKind.LOCAL: "times without a zone",
    WideKind.DATE: "dates",
    WideKind.DECIMAL: "decimals",
    WideKind.JSON: "values as JSON",
}
"""What a column holds, for messages."""

_BASES: Final[Mapping[type, Callable[[Any], Any]]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    Decimal: Decimal,
}
_SCALARS: Final = {*_KINDS, NoneType, datetime}


def plain(value: Any) -> Any:
    """A value as one of Python's own types; None for those of NumPy and pandas that stand for a
    missing one.

    :raises UnfitError: if Python's type does not tell it
    """
    kind: Any = value.__class__
    if kind in _SCALARS:
        return value
    if isinstance(value, np.generic):
        return _of_numpy(value)
    if kind.__module__.partition(".")[0] == "pandas":
        return _of_pandas(value)
    for base, as_base in _BASES.items():
        if isinstance(value, base):  # as a member of an IntEnum or a StrEnum
            return as_base(value)
    return value


def _of_numpy(value: Any) -> Any:
    if value.dtype.kind == "M":
        if np.isnat(value):
            return None
        micros = value.astype("M8[us]")
        if micros.astype(value.dtype) != value or not isinstance(micros.item(), datetime):
            raise UnfitError(f"{value} is no time to the microsecond, of the years from 1 to 9999")
        return micros.item()
    if value.dtype.kind == "m":
        return None if np.isnat(value) else value
    try:
        return plain_scalar(value)
    except UnencodableError as error:
        raise UnfitError(str(error)) from None


def _of_pandas(value: Any) -> Any:
    name = type(value).__name__
    if name in ("NaTType", "NAType"):
        return None
    if name != "Timestamp":
        return value
    if value.nanosecond:
        raise UnfitError(f"{value} is finer than a microsecond")
    return value.to_pydatetime()


def kind_of(values: Sequence[Any]) -> WideKind | None:
    """The kind of column that holds values; None: all of them are None.

    :param values: plain ones
    :raises UnfitError: if there is none
    """
    kinds: dict[WideKind, int] = {}
    for row, value in enumerate(values):
        if value is not None:
            kinds.setdefault(_kind(value), row)
    if len(kinds) < 2:
        return next(iter(kinds), None)
    if kinds.keys() == {WideKind.INT, WideKind.FLOAT}:
        return WideKind.FLOAT
    if WideKind.JSON in kinds:
        return WideKind.JSON
    (one, _), (other, row) = list(kinds.items())[:2]
    raise UnfitError(f"there are {NOUNS[one]} and {NOUNS[other]} in one column", row)


def _kind(value: Any) -> WideKind:
    if isinstance(value, datetime):
        return WideKind.LOCAL if value.tzinfo is None else WideKind.TIMESTAMP
    return _KINDS.get(value.__class__, WideKind.JSON)


def stored(kind: WideKind, values: Sequence[Any], encoder: Encoder) -> Sequence[Any]:
    """What a column has of values: of FLOAT, INT, BOOL, TEXT and DATE those of Python's types, of
    TIMESTAMP datetimes in UTC, of LOCAL naive ones, of DECIMAL and JSON texts; None for None.

    :raises UnfitError: if it cannot hold one of them, which it names
    """
    exact = _EXACT.get(kind)
    # What is long is mostly of one type: then it is not looked at item by item.
    if (
        exact is not None
        and set(map(type, values)) <= {exact, NoneType}
        and (exact is float or exact is bool or _is_whole(exact, values))
    ):
        return values
    found: list[Any] = []
    for row, value in enumerate(values):
        try:
            one = plain(value)
            found.append(None if one is None else _fit(kind, one, encoder))
        except UnfitError as error:
            raise UnfitError(str(error), row) from error.__cause__
    return found


def _is_whole(exact: type, values: Sequence[Any]) -> bool:
    """Whether ints, or texts, are such that a column holds each."""
    there = [value for value in values if value is not None]
    if exact is int:
        return not there or (min(there) >= -(2**63) and max(there) < 2**63)
    return is_storable("".join(there))


_FLOATS_LATER: Final = ": let the task say that it returns floats, -> float, and take another table"


def _fit(kind: WideKind, value: Any, encoder: Encoder) -> Any:
    found = _FITS[kind](value) if kind in _FITS else _as_json(value, encoder)
    if found is None:
        what = (
            "a "
            if kind is not WideKind.INT or type(value) is not int
            else "an int of over 64 bits, "
        )
        what += type(value).__qualname__ if what == "a " else ""
        raise UnfitError(
            f"{brief(value, width=60)}, {what.removesuffix(', ')}, is none that a column of "
            f"{NOUNS[kind]} holds"
            + (_FLOATS_LATER if kind is WideKind.INT and type(value) is float else "")
        )
    return found


def _as_float(value: Any) -> float | None:
    if type(value) is float:
        return value
    if type(value) is not int:
        return None
    try:
        made = float(value)
    except OverflowError:
        return None
    return made if made == value else None


def _as_int(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _as_text(value: Any) -> str | None:
    if type(value) is not str:
        return None
    if not is_storable(value):
        raise UnfitError(
            f"{brief(value, width=60)} is a text that no database holds: it has a zero "
            f"character, or half of a pair of surrogates"
        )
    return value


def _as_timestamp(value: Any) -> datetime | None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise UnfitError(f"{value} is not of the years from 1 to 9999 in UTC") from None


def _as_local(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo is None else None


def _as_date(value: Any) -> date | None:
    return value if type(value) is date else None


def _as_bool(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _as_decimal(value: Any) -> str | None:
    return str(value) if type(value) is Decimal else None


_FITS: Final[Mapping[WideKind, Callable[[Any], Any]]] = {
    WideKind.FLOAT: _as_float,
    WideKind.INT: _as_int,
    WideKind.BOOL: _as_bool,
    WideKind.TEXT: _as_text,
    WideKind.TIMESTAMP: _as_timestamp,
    WideKind.LOCAL: _as_local,
    WideKind.DATE: _as_date,
    WideKind.DECIMAL: _as_decimal,
}


def _as_json(value: Any, encoder: Encoder) -> str:
    try:
        return encoder.text(value)
    except UnencodableError as error:
        raise UnfitError(f"a {type(value).__qualname__}: {error}") from error.__cause__


def restored(kind: WideKind, value: Any, types: Types) -> Any:
    """The value of which a column has this.

    :param types: of the reader's, by the names under which they are stored
    :raises UndecodableError: if it is none of this kind
    """
    if value is None:
        return None
    if kind is WideKind.DECIMAL:
        return Decimal(value)
    if kind is WideKind.TIMESTAMP:
        return value.astimezone(UTC)
    if kind is not WideKind.JSON:
        return value
    try:
        return value_of(json.loads(value), types)
    except (UndecodableError, ConfigError):
        raise
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"{brief(value)} is no value as JSON: {error}") from None
