"""Values of every kind that is stored, and when two of them are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Band(NamedTuple):
    low: Any
    high: Any


class Color(Enum):
    RED = 1
    GREEN = "g", 2


class Level(IntEnum):
    LOW = 1


class Rights(Flag):
    READ = 1
    WRITE = 2


TYPES = (Point, Band, Color, Level, Rights)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, with all that is within them: in type, in the sign of zero, in
    the zone of a time; one NaN is as another."""
    kind: Any = a.__class__
    if kind is not b.__class__:
        return False
    if issubclass(kind, float | complex | Decimal | datetime | time):
        return repr(a) == repr(b)
    if issubclass(kind, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.kind in "mM":
            return bool((a.view("i8") == b.view("i8")).all())
        return same(a.ravel().tolist(), b.ravel().tolist())
    if issubclass(kind, np.datetime64 | np.timedelta64):
        return bool(a.dtype == b.dtype and a.view("i8") == b.view("i8"))
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return all(same(getattr(a, name), getattr(b, name)) for name in names)
    if issubclass(kind, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if issubclass(kind, Mapping):
        return len(a) == len(b) and all(map(same, a.items(), b.items()))
    if issubclass(kind, set | frozenset):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    return bool(a == b)


zones = st.sampled_from(
    [
        None,
        timezone.utc,  # noqa: UP017 datetime.UTC is the same
        timezone(timedelta(hours=-3, seconds=7)),
        ZoneInfo("Europe/Berlin"),
        ZoneInfo("UTC"),
        ZoneInfo("America/New_York"),
    ]
)

dtypes = st.one_of(
    numpy_st.boolean_dtypes(),
    numpy_st.integer_dtypes(endianness="?"),
    numpy_st.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    numpy_st.complex_number_dtypes(sizes=(64, 128)),
    numpy_st.datetime64_dtypes(endianness="?"),
    numpy_st.timedelta64_dtypes(endianness="?"),
    numpy_st.byte_string_dtypes(max_len=4),
    numpy_st.unicode_string_dtypes(max_len=4),
)

moments = st.one_of(numpy_st.datetime64_dtypes(), numpy_st.timedelta64_dtypes()).flatmap(
    numpy_st.from_dtype
)

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["\0", "\ud83d\ude00", "$date", "NaN", ""]),
)


def _is_itself(value: Any) -> bool:
    """Whether it can be in a set and found again."""
    try:
        return bool(hash(value) == hash(value) and value == value)
    except (ArithmeticError, TypeError, ValueError):  # as a signaling NaN, or a generic timedelta64
        return False


scalars = st.one_of(
    plain,
    st.binary(max_size=5),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.dates(),
    st.times(timezones=zones),
    st.datetimes(timezones=zones),
    st.timedeltas(),
    st.uuids(),
    moments,
    st.sampled_from([Color.RED, Color.GREEN, Level.LOW, Rights.READ, Rights(3), Rights(0)]),
)

hashable = scalars.filter(_is_itself)

values = st.recursive(
    st.one_of(scalars, numpy_st.arrays(dtypes, numpy_st.array_shapes(min_dims=0, min_side=0))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(st.text(max_size=3) | st.just("$set"), inner, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Band, inner, inner),
    ),
    max_leaves=8,
)

SAMPLES: tuple[Any, ...] = (
    10**5_000,
    -(10**700),
    {1: "a", "1": "b"},
    {"$date": "no form"},
    {"$x": {"$y": 1}},
    {"$a": 1, "b": 2},
    {None: 1, True: 2},
    bytearray(b"x"),
    Fraction(10**3_000, 7),
    UUID(int=5),
    Decimal("1.50"),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(1, 1, 1, fold=1),  # noqa: DTZ001 a naive one
    date(1, 1, 1),
    timedelta.min,
    timedelta.max,
    # Without a unit. NumPy warns of one that is made so.
    np.array(-(2**63)).view("M8")[()],
    np.datetime64(2**62, "W"),
    np.array(5, "M8[25s]")[()],
    np.array(5).view("m8")[()],
    np.array(5.5),
    np.zeros((0, 3)),
    np.array([[1], None, "a"], dtype=object),
    {Point(1, (2,)), Color.GREEN},
    {Color.RED: Point([1], Band(1, 2.0))},
)
