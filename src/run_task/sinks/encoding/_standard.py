"""The types of Python's standard library, as JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from run_task.sinks.encoding._tag import Form, Inward, Tree, Types

_DURATION: Final = re.compile(r"(-?)P(\d+)DT(\d+)(?:\.(\d{6}))?S")


def base64_text(data: bytes) -> str:
    """Bytes as a text of base64."""
    return base64.b64encode(data).decode()


def base64_bytes(text: str) -> bytes:
    """The bytes that a text of base64 is.

    :raises ValueError: if it is none
    """
    return base64.b64decode(text, validate=True)


def _zone(name: str) -> tzinfo:
    """The zone of that name in the IANA database."""
    from zoneinfo import ZoneInfo  # which most programs do without

    return ZoneInfo(name)


def zone_name(zone: tzinfo | None) -> str | None:
    """What a time zone is called in the IANA database; None if it is not of there."""
    for attribute in ("key", "zone"):  # that of zoneinfo, and that of pytz
        name: object = getattr(zone, attribute, None)
        if isinstance(name, str):
            try:
                _zone(name)
            except (ValueError, OSError, KeyError):
                return None
            return name
    return None


# Times: ISO 8601, with the zone's name in brackets behind it, as RFC 9557 has it. Which of two
# equal local times it is (the fold) is told by no such text: the second has a 1 beside it.


def _folded(text: str, fold: int) -> Tree:
    return [text, fold] if fold else text


def _unfolded(stored: Tree) -> tuple[str, int]:
    if isinstance(stored, str):
        return stored, 0
    text, fold = stored
    return text, fold


def _datetime(value: datetime, _: Inward) -> Tree:
    text = datetime.isoformat(value)
    name = zone_name(value.tzinfo)
    if name is not None:
        same = value.replace(tzinfo=_zone(name)).utcoffset() == value.utcoffset()
        text += f"[{name}]" if same else ""
    return _folded(text, value.fold)


def _to_datetime(stored: Tree, _: Inward, __: Types) -> datetime:
    text, fold = _unfolded(stored)
    iso, _bracket, name = text.partition("[")
    found = datetime.fromisoformat(iso).replace(fold=fold)
    if not name:
        return found
    zone = _zone(name.removesuffix("]"))
    local = found.replace(tzinfo=zone)
    # The zone's rules may have changed since it was stored: then the instant counts.
    return local if local.utcoffset() == found.utcoffset() else found.astimezone(zone)


def _time(value: time, _: Inward) -> Tree:
    name = zone_name(value.tzinfo)
    return _folded(time.isoformat(value) + (f"[{name}]" if name else ""), value.fold)


def _to_time(stored: Tree, _: Inward, __: Types) -> time:
    text, fold = _unfolded(stored)
    iso, _bracket, name = text.partition("[")
    found = time.fromisoformat(iso).replace(fold=fold)
    return found.replace(tzinfo=_zone(name.removesuffix("]"))) if name else found


def _timedelta(value: timedelta, _: Inward) -> Tree:
    length = abs(value)
    rest = f".{length.microseconds:06}" if length.microseconds else ""
    return f"{'-' if value < timedelta() else ''}P{length.days}DT{length.seconds}{rest}S"


def _to_timedelta(stored: Tree, _: Inward, __: Types) -> timedelta:
    found = _DURATION.fullmatch(stored)
    if found is None:
        raise ValueError(stored)
    sign, days, seconds, micros = found.groups()
    length = timedelta(int(days), int(seconds), int(micros or 0))
    return -length if sign else length


# Collections


def _in_order(value: Iterable[Any], inward: Inward) -> Tree:
    """The items of a set, in an order that is the same each time."""
    return sorted(map(inward, value), key=json.dumps)


def _pairs(value: Mapping[Any, Any], inward: Inward) -> Tree:
    return [[inward(key), inward(item)] for key, item in value.items()]


def _to_dict(stored: Tree, inward: Inward, _: Types) -> dict[Any, Any]:
    return {inward(key): inward(item) for key, item in stored}


def _complex(stored: Tree, _: Inward, __: Types) -> complex:
    real, imaginary = stored
    return complex(real, imaginary)


def _fraction(stored: Tree, inward: Inward, _: Types) -> Fraction:
    numerator, denominator = map(inward, stored)
    return Fraction(numerator, denominator)


TEXT: Final = Form(
    "$str",
    lambda value, _: base64_text(value.encode("utf-8", "surrogatepass")),
    lambda stored, _, __: base64_bytes(stored).decode("utf-8", "surrogatepass"),
)
"""A text with halves of pairs, of which JSON would make whole ones."""

INT: Final = Form("$int", lambda value, _: hex(value), lambda stored, _, __: int(stored, 16))
"""An int of more digits than Python may read."""

DICT: Final = Form("$dict", _pairs, _to_dict)
"""A dict of which not all keys are texts, or that looks like one of these forms."""

STANDARD: Final[Mapping[type, Form]] = {
    tuple: Form(
        "$tuple",
        lambda value, inward: list(map(inward, value)),
        lambda stored, inward, _: tuple(map(inward, stored)),
    ),
    set: Form("$set", _in_order, lambda stored, inward, _: set(map(inward, stored))),
    frozenset: Form(
        "$frozenset", _in_order, lambda stored, inward, _: frozenset(map(inward, stored))
    ),
    bytes: Form(
        "$bytes",
        lambda value, _: base64_text(value),
        lambda stored, _, __: base64_bytes(stored),
    ),
    bytearray: Form(
        "$bytearray",
        lambda value, _: base64_text(value),
        lambda stored, _, __: bytearray(base64_bytes(stored)),
    ),
    complex: Form("$complex", lambda value, _: [value.real, value.imag], _complex),
    datetime: Form("$datetime", _datetime, _to_datetime),
    date: Form(
        "$date",
        lambda value, _: date.isoformat(value),
        lambda stored, _, __: date.fromisoformat(stored),
    ),
    time: Form("$time", _time, _to_time),
    timedelta: Form("$timedelta", _timedelta, _to_timedelta),
    Decimal: Form(
        "$decimal", lambda value, _: Decimal.__str__(value), lambda stored, _, __: Decimal(stored)
    ),
    Fraction: Form(
        "$fraction",
        lambda value, inward: [inward(value.numerator), inward(value.denominator)],
        _fraction,
    ),
    UUID: Form("$uuid", lambda value, _: UUID.__str__(value), lambda stored, _, __: UUID(stored)),
}
