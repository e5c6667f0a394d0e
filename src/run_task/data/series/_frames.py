"""Columns as the table of another library.

Arrow and pandas come without types that a checker could read, so their tables are Any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from run_task._extras import need
from run_task.columnar._aware_times import in_unit, of_arrow, of_pandas, of_polars, unit_of
from run_task.data.series._column_types import Array
from run_task.data.series._schema import TIME
from run_task.data.series._texts import NO_CODE, EncodedTexts
from run_task.errors import ConfigError
from run_task.observe._format import SURROGATE, shown

if TYPE_CHECKING:
    import polars as pl


def _texts(name: str, array: Array) -> list[str]:
    """Texts as Python has them: Arrow would end those of NumPy at their first zero.

    :raises ConfigError: if one has half of a pair of surrogates, which is nothing in UTF-8
    """
    texts: list[str] = array.tolist()
    _check_unicode(name, texts)
    return texts


def _check_unicode(name: str, texts: list[str]) -> None:
    for text in texts:
        if SURROGATE.search(text) is not None:
            raise ConfigError(
                f"column {name!r}: {shown(ascii(text))} is no text in UTF-8, as this library has "
                f"them: read the column itself, view[{name!r}]"
            )


def _categories(name: str, column: EncodedTexts) -> EncodedTexts:
    """Codes and texts as these libraries are to have them: no more texts than there are rows.

    :raises ConfigError: if one has half of a pair of surrogates, which is nothing in UTF-8
    """
    if len(column.texts) > len(column.codes):
        column = column.compact()
    _check_unicode(name, column.texts.tolist())
    return column


def to_arrow(times: Array, zone: str, columns: Mapping[str, Array | EncodedTexts]) -> Any:
    """A table of Arrow; numbers are not copied.

    :param times: the times of its rows, in UTC
    :param zone: the zone in which they are shown
    :param columns: the other columns
    """
    arrow = need("pyarrow", "arrow")

    def column(name: str, array: Array | EncodedTexts) -> Any:
        if isinstance(array, EncodedTexts):
            codes, texts = _categories(name, array)
            texts_array = arrow.array(texts.tolist(), arrow.string())
            return arrow.DictionaryArray.from_arrays(
                arrow.array(codes, mask=codes == NO_CODE), texts_array
            )
        if array.dtype.kind == "U":
            return arrow.array(_texts(name, array), arrow.string())
        if array.dtype.kind == "S":  # as of texts, Arrow would take what is before the first zero
            return arrow.array(array.tolist(), arrow.binary())
        return arrow.array(in_unit(name, array, "s") if unit_of(array) in ("h", "m") else array)

    made = {TIME: of_arrow(TIME, times, zone)}
    return arrow.table(made | {name: column(name, array) for name, array in columns.items()})


def polars_series(name: str, array: Array) -> pl.Series:
    """A column of polars, of whatever but texts of any length; numbers are not copied."""
    polars = need("polars", "polars")
    if unit_of(array) in ("h", "m", "s"):
        array = in_unit(name, array, "ms")
    made: pl.Series
    if array.dtype.kind == "U":
        made = polars.Series(name, _texts(name, array), polars.String)
    elif array.dtype.kind == "S":
        made = polars.Series(name, array.tolist(), polars.Binary)
    else:
        made = polars.Series(name, array)
    return made


def to_polars(times: Array, zone: str, columns: Mapping[str, Array | EncodedTexts]) -> pl.DataFrame:
    """A DataFrame of polars: as :func:`to_arrow`."""
    polars = need("polars", "polars")

    def series(name: str, array: Array | EncodedTexts) -> pl.Series:
        if not isinstance(array, EncodedTexts):
            return polars_series(name, array)
        codes, texts = _categories(name, array)
        of_texts = polars.Series(texts.tolist(), dtype=polars.String)
        # Categories of all frames are the same to polars, so that these can be joined.
        places = polars.Series(codes).set(polars.Series(codes == NO_CODE), None)
        made: pl.Series = of_texts.cast(polars.Categorical).gather(places).alias(name)
        return made

    made = [of_polars(TIME, times, zone)]
    made += [series(name, array) for name, array in columns.items()]
    frame: pl.DataFrame = polars.DataFrame(made)
    return frame


def to_pandas(times: Array, zone: str, columns: Mapping[str, Array | EncodedTexts]) -> Any:
    """A DataFrame of pandas, which has copies: as :func:`to_arrow`."""
    pandas = need("pandas", "pandas")

    def column(name: str, array: Array | EncodedTexts) -> Any:
        if isinstance(array, EncodedTexts):
            codes, texts = _categories(name, array)
            return pandas.Categorical.from_codes(codes.copy(), texts.tolist())
        if array.dtype.kind == "U":
            _texts(name, array)  # pandas has them as Arrow has, if that is installed
        return in_unit(name, array, "s") if unit_of(array) in ("D", "h", "m") else array.copy()

    made = {TIME: of_pandas(TIME, times, zone)}
    return pandas.DataFrame(made | {name: column(name, array) for name, array in columns.items()})
