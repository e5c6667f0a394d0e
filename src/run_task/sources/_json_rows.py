"""One line of JSON Lines as a row, and what is wrong with it if it is none."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any, Final, cast

from run_task.columnar._arrow_columns import NOT_UTF8
from run_task.columnar._columns import MISSING, ROUNDED, Kind
from run_task.columnar._timestamps import Times
from run_task.observe._format import SURROGATE

_INT64_END: Final = 1 << 63


class MalformedRow(Exception):
    """Why a line is no row.

    :param column: the column to blame; None: the line as a whole
    :param reason: what stands there, and what is wrong with it
    """

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(column, reason)
        self.column = column
        self.reason = reason


def read_object(line: str | bytes) -> dict[str, Any]:
    """The JSON object that a line is.

    :raises MalformedRow: if it is none
    """
    found = read_json(line)
    if not isinstance(found, dict):
        raise MalformedRow(None, f"{shortened(line)} is not a JSON object")
    return cast("dict[str, Any]", found)


def read_json(line: str | bytes) -> Any:
    """The JSON that a line is.

    :raises MalformedRow: if it is none
    """
    try:
        # Of bytes, Python would guess the encoding.
        return json.loads(line.decode() if isinstance(line, bytes) else line)
    except UnicodeDecodeError:
        raise MalformedRow(None, f"{shortened(line)} {NOT_UTF8}") from None
    except json.JSONDecodeError as error:  # whose text would name another line, its own first one
        raise MalformedRow(
            None, f"{shortened(line)} is not JSON: {error.msg} at its character {error.pos + 1}"
        ) from None
    except ValueError:  # of an int, of which Python reads up to 4300 digits
        raise MalformedRow(None, f"{shortened(line)} has a number of too many digits") from None
    except RecursionError:
        raise MalformedRow(None, f"{shortened(line)} is nested too deep to be read") from None


def read_row(
    line: str | bytes,
    timestamp: str,
    times: Times,
    kinds: Mapping[str, Kind | None] | None,
    exactly: Container[str] = (),
) -> tuple[int, dict[str, Any]]:
    """The timestamp and the row of a line.

    :param line: the line
    :param timestamp: the key of the timestamp
    :param times: how timestamps are told
    :param kinds: the keys wanted, with their types or None for what stands there; None: all keys
        but the timestamp's, as they stand there. The timestamp's as an int is the timestamp
    :param exactly: the keys of floats that may not round an int
    :raises MalformedRow: if it is no row
    """
    found = read_object(line)
    try:
        when = times.parse(found.get(timestamp))
    except ValueError as error:
        raise MalformedRow(timestamp, str(error)) from None
    if kinds is None:
        found.pop(timestamp, None)
        return when, found
    return when, typed_row(found, when, timestamp, kinds, exactly)


def typed_row(
    found: Mapping[str, Any],
    when: int,
    timestamp: str | None,
    kinds: Mapping[str, Kind | None],
    exactly: Container[str] = (),
) -> dict[str, Any]:
    """The columns of a row, of the types that they are to have.

    :param found: what stands there
    :param when: the row's timestamp
    :param timestamp: its key; None: it is no key's
    :param kinds: the keys wanted, as in :func:`read_row`
    :param exactly: the keys of floats that may not round an int
    :raises MalformedRow: if a value is not of its type
    """
    row = {
        name: found.get(name) if kind is None else _typed(name, found.get(name), kind)
        for name, kind in kinds.items()
        if name != timestamp or kind is not int
    }
    for name, number in row.items():
        value = found.get(name)
        if type(value) is int and name in exactly and value != number:
            raise MalformedRow(name, ROUNDED.format(shortened(str(value))))
    if len(row) < len(kinds):
        row = {name: row.get(name, when) for name in kinds}
    return row


def _typed(name: str, value: Any, kind: Kind) -> Any:
    """A JSON value as a value of a column; no text is read as a number, and no number as a text."""
    if value is None:
        if kind is float:
            return float("nan")
        if kind is str:
            return ""
        raise MalformedRow(name, MISSING)
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")  # as for 1e400
    valid = type(value) is kind
    if isinstance(value, str):
        valid = valid and not SURROGATE.search(value)
    elif type(value) is int:
        valid = valid and -_INT64_END <= value < _INT64_END
    if not valid:
        raise MalformedRow(name, f"{shortened(repr(value))} is not a valid {kind.__name__}")
    return value


def shortened(line: str | bytes) -> str:
    """A line, or the beginning of a long one, for messages."""
    text = line.decode(errors="backslashreplace") if isinstance(line, bytes) else line
    text = text.strip()
    return text if len(text) <= 120 else f"{text[:117]}..."
