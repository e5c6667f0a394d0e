"""Timestamps as ints in a unit, from whatever a file has, by integer arithmetic.

What is finer than the unit is rounded down, so that a row stays in the window it belongs to. The
one exception is a float of a longer unit: it is first rounded to the nearest microsecond, for
1700000000.123 is really 1700000000.1229999; a float of this time has no more digits than that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._arrow_columns import decoded, is_text, plain_type, shown
from run_task.columnar._decimals import is_decimal, times_of
from run_task.columnar._time_format import TimeFormat, are_dates, extended, extended_date
from run_task.errors import ConfigError
from run_task.observe._format import quoted
from run_task.time._epoch import nanos_since_epoch
from run_task.time._interval import TimeUnit
from run_task.time._moment import in_utc
from run_task.time._wall_time import WallClock

Int64s = NDArray[np.int64]

_INT64: Final = np.iinfo(np.int64)
_MICRO_NS: Final = 1_000
_ARROW_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_FINER: Final = re.compile(r"[.,][0-9]{6}([0-9]+)", re.ASCII)
_MOST_DIGITS: Final = 100
"""How many digits of a timestamp are looked at: those of one that 64 bits hold are fewer, and some
zeros may stand before them."""

_INT: Final = "^[+-]?[0-9]+$"
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


TimeForm: TypeAlias = "TimeFormat | Literal['dates'] | None"
"""How texts tell a time: in a format, or as they usually do, where eight digits may be a date."""


class Times:
    """How timestamps are told.

    :param where: whose they are, for messages
    :param unit: the unit to give them in
    :param stored: the unit of those that are numbers; None: the same
    :param zone: what those mean that name no zone; None: they are in UTC
    :param fold: which of the two times it is that clocks of the zone show twice, 0 or 1
    :param format: the format of those that are texts; None: ISO 8601, or a number
    :raises ConfigError: if one of these cannot be
    """

    def __init__(
        self,
        where: str,
        unit: TimeUnit,
        stored: TimeUnit | None,
        zone: str | tzinfo | None,
        fold: int,
        format: str | None,  # noqa: A002 as readers call it
    ) -> None:
        if type(fold) is not int or fold not in (0, 1):
            raise ConfigError(
                f"{where}: fold={fold!r}: it is 0 for the first of two times that clocks show "
                f"alike, or 1 for the second"
            )
        if fold and zone is None:
            raise ConfigError(
                f"{where}: fold={fold}: it needs zone=, since no time comes twice in UTC"
            )
        self.stored_ns: int = (stored or unit).nanos
        self.unit_ns: int = unit.nanos
        self.clock: WallClock | None = None if zone is None else WallClock(zone, fold)
        self.form: TimeForm = None if format is None else TimeFormat(format, where)
        self._may_be_dates = stored is None and format is None

    def parse(self, value: object) -> int:
        """One timestamp.

        :raises ValueError: if it is none; the message says what stands there
        """
        return parse(value, self.stored_ns, self.unit_ns, self.clock, self.form)

    def of_column(self, column: Any) -> tuple[Int64s, dict[int, str]]:
        """A whole Arrow array of timestamps, and what is wrong with those that are none."""
        return from_arrow(column, self.stored_ns, self.unit_ns, self.clock, self.form)

    def is_settled(self, values: Sequence[object]) -> bool:
        """Whether some of the first tell enough for :meth:`look_at`, whatever comes after them:
        one that is no date of eight digits does."""
        some = any(
            value.strip() if isinstance(value, str | bytes) else value is not None
            for value in values
        )
        return not self._may_be_dates or (some and not are_dates(values))

    def look_at(self, texts: Iterable[object]) -> None:
        """Find out by some of the first whether eight digits are a date, as ``20240131``, or a
        count. With a format, or where the unit of counts was said, that is known."""
        if self._may_be_dates:
            self.form = "dates" if are_dates(texts) else None


def parse(
    value: object,
    stored_ns: int,
    unit_ns: int,
    clock: WallClock | None = None,
    form: TimeForm = None,
) -> int:
    """One timestamp: a number, a text that is a number, or ISO 8601.

    :param value: what stands there
    :param stored_ns: how many nanoseconds the unit of a number has
    :param unit_ns: how many nanoseconds the wanted unit has
    :param clock: what shows a time that names no zone; None: it is in UTC
    :param form: how a text tells it
    :raises ValueError: if it is none of these; the message says what stands there
    """
    number = value
    if isinstance(value, str):
        text = value.strip()
        if isinstance(form, TimeFormat):
            if not text:
                raise ValueError("there is no timestamp")
            return _checked(value, _nanos_of(form.parse(text), clock) // unit_ns)
        if form == "dates":
            text = extended_date(text)
        if _NUMBER.fullmatch(text):
            if not text.lstrip("+-").isdecimal():
                number = float(text)
            elif len(text) <= _MOST_DIGITS:
                number = int(text)
            else:  # Python would take long for these, and refuse more than 4300
                raise ValueError(_beyond(value))
        else:
            return _checked(value, _nanos_of_iso(text, clock) // unit_ns)
    if isinstance(number, float):
        if not math.isfinite(number):
            raise ValueError(f"{quoted(value)} is not a timestamp")
        whole = math.floor(number)
        per_unit = stored_ns // _MICRO_NS  # none of nanoseconds, whose fraction is left out
        nanos = whole * stored_ns + round((number - whole) * per_unit) * _MICRO_NS
        return _checked(value, nanos // unit_ns)
    if isinstance(number, int) and not isinstance(number, bool):
        return _checked(value, number * stored_ns // unit_ns)
    if isinstance(number, Decimal) and number.is_finite():
        return _checked(value, math.floor(Fraction(number) * stored_ns / unit_ns))
    if value is None:
        raise ValueError("there is no timestamp")
    raise ValueError(f"{quoted(value)} is not a timestamp")


def _nanos_of_iso(text: str, clock: WallClock | None) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if not text:
            raise ValueError("there is no timestamp") from None
        raise ValueError(
            f"{quoted(text)} is not a timestamp: write a number or ISO 8601, such as "
            f"'2026-01-31 12:00:00', or tell the source its format="
        ) from None
    finer = _FINER.search(text)  # what a datetime has no room for
    return _nanos_of(moment, clock, int(finer[1][:3].ljust(3, "0")) if finer else 0)


def _nanos_of(moment: datetime, clock: WallClock | None, finer: int = 0) -> int:
    naive = moment.tzinfo is None
    if naive:
        moment = moment.replace(tzinfo=UTC)
    nanos = nanos_since_epoch(moment) + finer
    return clock.when(nanos) if naive and clock is not None else nanos


def _checked(value: object, timestamp: int) -> int:
    if not _INT64.min <= timestamp <= _INT64.max:
        raise ValueError(_beyond(value))
    return timestamp


def _beyond(value: object) -> str:
    return f"{quoted(value)} is beyond what 64 bits hold"


def from_arrow(
    column: Any,
    stored_ns: int,
    unit_ns: int,
    clock: WallClock | None = None,
    form: TimeForm = None,
) -> tuple[Int64s, dict[int, str]]:
    """A whole Arrow array of timestamps, with the same outcome as :func:`parse` one by one.

    :param column: an Arrow array of timestamps, dates, numbers or texts
    :param stored_ns: how many nanoseconds the unit of a number has
    :param unit_ns: how many nanoseconds the wanted unit has
    :param clock: what shows times that name no zone; None: they are in UTC
    :param form: how texts tell them
    :return: the timestamps, and what is wrong with those that are none, by position
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    faults: dict[int, str] = {}
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    texts = decoded(column, faults)
    faults = shown(column, faults)
    column = texts
    if column.null_count:
        for position in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)):
            faults.setdefault(int(position), "there is no timestamp")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    elif is_text(column.type):
        column = _from_text(pa, pc, column, _finest(unit_ns), form)
        if column.null_count > texts.null_count:  # some have to be parsed one by one
            timestamps, found = _without_nulls(column, texts, stored_ns, unit_ns, clock, form)
            return timestamps, {**found, **faults}
    if pa.types.is_timestamp(column.type):
        stored_ns = _ARROW_NS[column.type.unit]
        naive = column.type.tz is None
        column = column.cast(pa.int64())
        if naive and clock is not None:
            return _shown_by(clock, column, stored_ns, unit_ns, faults)
    if pa.types.is_integer(column.type) and not _beyond_int64(pa, pc, column):
        whole = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        timestamps, good = rescale(whole, stored_ns, unit_ns)
    elif pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        timestamps, good = _from_floats(numbers, stored_ns, unit_ns)
    elif pa.types.is_decimal(column.type) and (
        (told := times_of(column, stored_ns, unit_ns)) is not None
    ):
        timestamps, good = told
    else:
        timestamps, found = _one_by_one(column, stored_ns, unit_ns, clock, form)
        return timestamps, {**found, **faults}
    for position in np.flatnonzero(~good):
        value = column[int(position)].as_py()
        try:
            timestamps[position] = parse(value, stored_ns, unit_ns)
        except ValueError as error:
            faults[int(position)] = str(error)
    return timestamps, faults


def likely_type(texts: Any, of: Times) -> Any:
    """The Arrow type that texts as these can be read as at once, with the same outcome.

    :param texts: an Arrow array of binary
    """
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    if of.form is None and len(texts):
        try:
            found = _from_text(pa, pc, texts.cast(pa.string()), _finest(of.unit_ns), None).type
        except pa.ArrowInvalid:
            return pa.binary()
        if pa.types.is_int64(found) or pa.types.is_timestamp(found):
            return found
    return pa.binary()


def _finest(unit_ns: int) -> str:
    return "ns" if unit_ns < _MICRO_NS else "us"


def is_readable(arrow_type: Any) -> bool:
    """Whether :func:`from_arrow` takes arrays of a type."""
    types = need("pyarrow", "arrow").types
    arrow_type = plain_type(arrow_type)
    return any(
        is_of(arrow_type)
        for is_of in (
            types.is_timestamp,
            types.is_date,
            types.is_integer,
            types.is_floating,
            is_decimal,
            is_text,
        )
    )


def _beyond_int64(pa: Any, pc: Any, column: Any) -> bool:
    if not pa.types.is_uint64(column.type):
        return False
    largest = pc.max(column).as_py()
    return largest is not None and largest > _INT64.max


def _without_nulls(
    column: Any, texts: Any, stored_ns: int, unit_ns: int, clock: WallClock | None, form: TimeForm
) -> tuple[Int64s, dict[int, str]]:
    """From an Arrow array of timestamps in which some are null that have to be parsed from their
    texts."""
    timestamps, faults = from_arrow(column, stored_ns, unit_ns, clock)
    timestamps = timestamps.copy()  # what is Arrow's is not to be written to
    for position in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        text = texts[position].as_py()
        if text is not None:
            faults.pop(position, None)
            try:
                timestamps[position] = parse(text, stored_ns, unit_ns, clock, form)
            except ValueError as error:
                faults[position] = str(error)
    return timestamps, faults


def _from_text(pa: Any, pc: Any, column: Any, finest: str, form: TimeForm) -> Any:
    """As the first type that all of the texts are; as they are, if there is none.

    :param finest: in which unit of Arrow's to read a time
    :param form: how they tell it; what is not of a format becomes null
    """
    trimmed = pc.utf8_trim_whitespace(column)
    times = [pa.timestamp(finest), pa.timestamp(finest, tz="UTC")]
    if isinstance(form, TimeFormat):
        found = _cast_first(pa, form.in_iso(trimmed), times)
        return column if found is None else found
    # Arrow would read 0x1F as an int, too.
    if form is None and pc.all(pc.match_substring_regex(trimmed, _INT)).as_py():
        found = _cast_first(pa, trimmed, [pa.int64()])
        return column if found is None else found
    found = None if form else _cast_first(pa, trimmed, [*times, pa.float64()])
    if found is None:
        found = _cast_first(pa, extended(trimmed, form is not None), times)
    return column if found is None else found


def _cast_first(pa: Any, texts: Any, candidates: list[Any]) -> Any:
    """Texts as the first type that all of them are; None if there is none."""
    for candidate in candidates:
        try:
            return texts.cast(candidate)
        except pa.ArrowInvalid:
            continue
    return None


def _shown_by(
    clock: WallClock, column: Any, stored_ns: int, unit_ns: int, faults: dict[int, str]
) -> tuple[Int64s, dict[int, str]]:
    """From what clocks show.

    :param column: an Arrow array of ints, so many units of ``stored_ns`` since 1970-01-01
    """
    walls = column.fill_null(0).to_numpy(zero_copy_only=False)
    try:
        whole, whole_ns = in_utc(walls, stored_ns, clock)
        timestamps, good = rescale(whole, whole_ns, unit_ns)
    except ConfigError:  # one of them is beyond the years of a calendar
        timestamps, good = np.zeros(len(walls), np.int64), np.zeros(len(walls), np.bool_)
    for position in np.flatnonzero(~good).tolist():
        wall = int(walls[position])
        try:
            timestamps[position] = _checked(wall, clock.when(wall * stored_ns) // unit_ns)
        except ValueError as error:
            faults.setdefault(position, str(error))
    return timestamps, faults


def _one_by_one(
    column: Any, stored_ns: int, unit_ns: int, clock: WallClock | None, form: TimeForm
) -> tuple[Int64s, dict[int, str]]:
    timestamps = np.zeros(len(column), np.int64)
    faults: dict[int, str] = {}
    for position, value in enumerate(column.to_pylist()):
        try:
            timestamps[position] = parse(value, stored_ns, unit_ns, clock, form)
        except ValueError as error:
            faults[position] = str(error)
    return timestamps, faults


def rescale(values: Int64s, stored_ns: int, unit_ns: int) -> tuple[Int64s, NDArray[np.bool_]]:
    """From one unit to another, and which of them fit in 64 bits."""
    if stored_ns == unit_ns:
        return values, np.ones(len(values), np.bool_)
    if stored_ns < unit_ns:
        return values // (unit_ns // stored_ns), np.ones(len(values), np.bool_)
    factor = stored_ns // unit_ns
    limit = _INT64.max // factor
    good = (values <= limit) & (values >= -limit)
    return np.where(good, values, 0) * factor, good


def _from_floats(
    values: NDArray[np.float64], stored_ns: int, unit_ns: int
) -> tuple[Int64s, NDArray[np.bool_]]:
    per_unit = stored_ns // _MICRO_NS
    good = np.abs(values) < _INT64.max // max(per_unit, 1) // 2  # not so for NaN
    values = np.where(good, values, 0.0)
    whole = np.floor(values)
    if not per_unit:
        return rescale(whole.astype(np.int64), stored_ns, unit_ns)[0], good
    micros = whole.astype(np.int64) * per_unit
    micros += np.rint((values - whole) * per_unit).astype(np.int64)
    timestamps, fit = rescale(micros, _MICRO_NS, unit_ns)
    return timestamps, good & fit
