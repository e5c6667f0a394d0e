"""Timestamps as columns of tables: times that name their zone, in the nearest unit of those that a
library has."""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

_UTC: Final = "UTC"


def zone_name(zone: tzinfo | None) -> str:
    """The name of a zone as tables have it: UTC, if it has none or there is no zone."""
    return getattr(zone, "key", None) or _UTC


def in_unit(name: str, array: NDArray[Any], unit: str) -> NDArray[Any]:
    """Times in a shorter unit, which hold all of them.

    :param name: what the column is called, for messages
    :raises ConfigError: if 64 bits do not hold one
    """
    times: NDArray[Any] = array
    try:
        times = array.astype(f"M8[{unit}]")
        exact = bool(((times.astype(array.dtype) == array) | np.isnat(array)).all())
    except OverflowError:  # of NumPy 2.5 and later; before, it wraps around
        exact = False
    if not exact:
        raise ConfigError(
            f"column {name!r}: this library has no {array.dtype}, and 64 bits of {unit} do not "
            f"hold all of its times: take those of between() that they do"
        )
    return times


def unit_of(array: NDArray[Any]) -> str:
    """The unit of times, as NumPy calls it; of other values, an empty text."""
    return np.datetime_data(array.dtype)[0] if array.dtype.kind == "M" else ""


def of_arrow(name: str, times: NDArray[Any], zone: str) -> Any:
    """A column of Arrow, without a copy: in seconds where they are minutes.

    :param times: in UTC
    :raises ConfigError: if 64 bits do not hold one
    """
    pa = need("pyarrow", "arrow")
    found = in_unit(name, times, "s") if unit_of(times) == "m" else times
    return pa.array(found).view(pa.timestamp(unit_of(found), zone))


def of_polars(name: str, times: NDArray[Any], zone: str) -> pl.Series:
    """A column of polars: in milliseconds where they are seconds or minutes.

    :param times: in UTC
    :raises ConfigError: if 64 bits do not hold one
    """
    polars = need("polars", "polars")
    found = in_unit(name, times, "ms") if unit_of(times) in ("m", "s") else times
    made: pl.Series = polars.Series(name, found).cast(polars.Datetime(unit_of(found), zone))
    return made


def of_pandas(name: str, times: NDArray[Any], zone: str) -> Any:
    """A column of pandas: in seconds where they are minutes.

    :param times: in UTC
    :raises ConfigError: if 64 bits do not hold one
    """
    pandas = need("pandas", "pandas")
    found = in_unit(name, times, "s") if unit_of(times) == "m" else times.copy()
    made = pandas.DatetimeIndex(found).tz_localize(_UTC)
    return pandas.Series(made if zone == _UTC else made.tz_convert(zone), name=name)
