"""Arrow arrays, whatever their type, as NumPy arrays of the four types that a row's values have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._columns import (
    MISSING,
    ROUNDED,
    SPELLING,
    Kind,
    Spelling,
    array_of,
)
from run_task.columnar._decimals import floats_of, is_decimal
from run_task.observe._format import quoted

_ARROW: Final = {float: "float64", int: "int64", bool: "bool_", str: "string"}
_NOTHING: Final[dict[Kind, Any]] = {float: float("nan"), int: 0, bool: False, str: ""}
_EXACT: Final = 2.0**53
"""Up to it a float holds every int."""

SOME_TEXTS: Final = 1 << 10
"""How many of the first texts of an array tell whether they repeat."""

_IN_UTF8: Final = "text in UTF-8"

NOT_UTF8: Final = f"is not {_IN_UTF8}"
"""What is wrong with bytes of which no text can be made, after what they are."""

_BEYOND: Final = "<value out of range"
"""What Arrow writes for a time that no calendar has."""


def plain_type(arrow_type: Any) -> Any:
    """The type of the values of a column, where it says of each only which of some it is."""
    types = need("pyarrow", "arrow").types
    while types.is_dictionary(arrow_type) or types.is_run_end_encoded(arrow_type):
        arrow_type = arrow_type.value_type
    return arrow_type


def is_text(arrow_type: Any) -> bool:
    """Whether it is a type of texts."""
    types = need("pyarrow", "arrow").types
    return any(
        is_of(arrow_type)
        for is_of in (types.is_string, types.is_large_string, types.is_string_view)
    )


def is_bytes(arrow_type: Any) -> bool:
    """Whether it is a type of bytes that need not be a text."""
    types = need("pyarrow", "arrow").types
    return any(
        is_of(arrow_type)
        for is_of in (
            types.is_binary,
            types.is_large_binary,
            types.is_fixed_size_binary,
            types.is_binary_view,
        )
    )


def kind_of_type(arrow_type: Any) -> Kind | None:
    """The type that a column of an Arrow type is read as; None if there is none."""
    types = need("pyarrow", "arrow").types
    arrow_type = plain_type(arrow_type)
    if types.is_boolean(arrow_type):
        return bool
    if types.is_integer(arrow_type):
        return int
    if types.is_floating(arrow_type) or is_decimal(arrow_type) or types.is_null(arrow_type):
        return float
    if is_text(arrow_type):
        return str
    no_text = types.is_duration(arrow_type) or types.is_interval(arrow_type)
    return str if types.is_temporal(arrow_type) and not no_text else None


def arrow_type(kind: Kind) -> Any:
    """The Arrow type of the values of a column."""
    return getattr(need("pyarrow", "arrow"), _ARROW[kind])()


def one_array(column: Any) -> Any:
    """A column of an Arrow table as one array."""
    pa = need("pyarrow", "arrow")
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def can_be(found: Any, kind: Kind) -> bool:
    """Whether :func:`from_arrow` can make arrays of an Arrow type into ones of a type."""
    pa = need("pyarrow", "arrow")
    found = plain_type(found)
    if is_bytes(found):
        return kind is str
    if pa.types.is_decimal(found):
        return kind is not bool
    if pa.types.is_float16(found):  # it is read as a longer one first
        found = pa.float64()
    # An array of none does not show whether its time zone is one.
    some = pa.array([0] if pa.types.is_timestamp(found) else [], found)
    try:
        some.cast(arrow_type(kind))
    except pa.ArrowException:
        return False
    return True


def from_arrow(
    column: Any,
    kind: Kind,
    spelling: Spelling | None = SPELLING,
    *,
    exactly: bool = False,
    needed: Collection[Kind] = (int, bool),
) -> tuple[NDArray[Any], dict[int, str]]:
    """An Arrow array as a NumPy array of a type.

    A value that is missing is NaN in a float column and ``""`` in a str column; an int and a bool
    column have nothing for it, so there it is a fault.

    :param column: an Arrow array
    :param kind: the type wanted
    :param spelling: how texts spell it that stand in a CSV, which an array of binary holds; None:
        it is none, and an array of binary holds texts that may be none in UTF-8
    :param exactly: whether an int is a fault that no float tells; else the nearest will do
    :param needed: of which types a value that is missing is a fault
    :return: the array, and what is wrong with the values that are not of the type, by position
    """
    if kind is not str and not column.null_count and column.type == arrow_type(kind):
        return column.to_numpy(zero_copy_only=False), {}
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    if kind is str and texts_repeat(column):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        return _of_dictionary(column, kind, spelling, exactly=exactly, needed=needed)
    faults: dict[int, str] = {}
    whole = column
    spelled = spelling if spelling and pa.types.is_binary(column.type) and kind is not str else None
    if spelled is not None:
        column = pc.if_else(
            pc.is_in(column, spelled.null_texts), pa.scalar(None, pa.binary()), column
        )
    missing = column.is_null() if column.null_count else None
    texts = column = decoded(column, faults)
    if is_text(column.type):
        column = _trimmed(pc, column, kind, spelled)
    column = _cast(pa, column, kind, faults)
    if exactly and kind is float:
        found = column.to_numpy(zero_copy_only=False)
        for at in _rounded(texts, found, spelled):
            faults.setdefault(at, ROUNDED)
    if missing is not None and kind in needed:
        for position in np.flatnonzero(missing.to_numpy(zero_copy_only=False)):
            faults.setdefault(int(position), MISSING)
    faults = shown(whole, faults)
    if column.null_count:
        column = column.fill_null(_NOTHING[kind])
    return column.to_numpy(zero_copy_only=False), faults


def checked(array: Any) -> Any:
    """An array as it is to be read on: without what it is wrapped in, and with texts as bytes,
    since Arrow does not look whether they are any.

    :raises pyarrow.ArrowInvalid: if it points to what is not there, as in a file that is broken
    """
    pa = need("pyarrow", "arrow")
    if pa.types.is_run_end_encoded(array.type):
        array.validate(full=True)
        array = need("pyarrow.compute", "arrow").run_end_decode(array)
    if pa.types.is_dictionary(array.type):
        array.indices.validate(full=True)
        found = checked(array.dictionary)
        # It is looked whether the indices are within it.
        return pa.DictionaryArray.from_arrays(array.indices, found)
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    elif pa.types.is_large_string(array.type):
        array = array.view(pa.large_binary())
    elif pa.types.is_string_view(array.type):
        array = array.view(pa.binary_view())
    array.validate(full=True)
    return array.cast(pa.binary()) if pa.types.is_binary_view(array.type) else array


def may_be_rounded(column: Any) -> bool:
    """Whether one of some floats is so large that it may have been another int.

    :param column: an Arrow array of float64
    """
    return bool((np.abs(column.to_numpy(zero_copy_only=False)) >= _EXACT).any())


def decoded(column: Any, faults: dict[int, str]) -> Any:
    """An Arrow array of bytes as one of texts, other arrays as they are.

    What is not UTF-8 becomes null and a fault.
    """
    pa = need("pyarrow", "arrow")
    if not is_bytes(column.type):
        return column
    return _halved(column, lambda part: part.cast(pa.string()), faults, _IN_UTF8)


def shown(column: Any, faults: dict[int, str]) -> dict[int, str]:
    """The faults with what stands there filled in."""
    return {at: reason.format(_shown(column[at])) for at, reason in faults.items()}


def _shown(scalar: Any) -> str:
    try:
        value = scalar.as_py()
    except Exception:  # Python's types have no room for all times
        return f"{scalar.type} of {getattr(scalar, 'value', '?')}"
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):  # then the bytes show what is wrong
            value = value.decode()
    return quoted(value)


def texts_repeat(column: Any) -> bool:
    """Whether an array holds few texts many times, as names of what is measured are: then each is
    made an object once, and not time and again. Its first :data:`SOME_TEXTS` tell."""
    if len(column) < SOME_TEXTS or not (is_text(column.type) or is_bytes(column.type)):
        return False
    pc = need("pyarrow.compute", "arrow")
    return bool(pc.count_distinct(column[:SOME_TEXTS]).as_py() <= SOME_TEXTS // 4)


def _of_dictionary(
    column: Any,
    kind: Kind,
    spelling: Spelling | None,
    *,
    exactly: bool,
    needed: Collection[Kind],
) -> tuple[NDArray[Any], dict[int, str]]:
    """The same, of an array that holds each value once, and which of them stands where."""
    values, wrong = from_arrow(column.dictionary, kind, spelling, exactly=exactly, needed=needed)
    if not len(values):
        values = array_of([_NOTHING[kind]], kind)
    faults: dict[int, str] = {}
    indices, missing = column.indices, np.zeros(len(column), np.bool_)
    if indices.null_count:
        missing = indices.is_null().to_numpy(zero_copy_only=False)
        indices = indices.fill_null(0)
    at = indices.to_numpy(zero_copy_only=False)
    found = values.take(at)
    if missing.any():
        found[missing] = _NOTHING[kind]
        if kind in needed:
            faults = dict.fromkeys(np.flatnonzero(missing).tolist(), MISSING)
    if wrong:
        for position in np.flatnonzero(np.isin(at, list(wrong)) & ~missing).tolist():
            faults[position] = wrong[int(at[position])]
    return found, faults


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


def _cast(pa: Any, column: Any, kind: Kind, faults: dict[int, str]) -> Any:
    """Cast an array; what cannot be becomes null and a fault."""
    pc = need("pyarrow.compute", "arrow")
    wanted, what = arrow_type(kind), f"a valid {kind.__name__}"
    types = pa.types
    if kind is float and types.is_decimal(column.type):
        return floats_of(column)
    if types.is_decimal32(column.type) or types.is_decimal64(column.type):
        # Arrow casts these to ints only where they have no decimals at all.
        column = column.cast(pa.decimal128(38, column.type.scale))
    if types.is_float16(column.type) or (kind is bool and types.is_floating(column.type)):
        column = column.cast(pa.float64())
    if kind is bool and types.is_primitive(column.type) and not types.is_boolean(column.type):
        # Arrow takes all but 0 for true.
        zero, one = pa.scalar(0, column.type), pa.scalar(1, column.type)
        column = _without(
            column, pc.or_(pc.equal(column, zero), pc.equal(column, one)), faults, what
        )
    exact = not (kind is float and types.is_integer(column.type))  # the nearest float will do
    found = _halved(column, lambda part: part.cast(wanted, safe=exact), faults, what)
    if kind is str and types.is_temporal(column.type):
        return _without(found, pc.invert(pc.starts_with(found, _BEYOND)), faults, "a date or time")
    return found


def _without(column: Any, good: Any, faults: dict[int, str], what: str) -> Any:
    """An array with nulls, and a fault, for values that are not good."""
    pa = need("pyarrow", "arrow")
    pc = need("pyarrow.compute", "arrow")
    good = pc.or_(good.fill_null(True), column.is_null())
    for at in np.flatnonzero(~good.to_numpy(zero_copy_only=False)).tolist():
        faults.setdefault(at, f"{{}} is not {what}")
    return pc.if_else(good, column, pa.scalar(None, column.type))


def _rounded(column: Any, floats: NDArray[np.float64], spelling: Spelling | None) -> Iterator[int]:
    """Where an int has become another one, since a float has no room for all of its digits.

    :param column: what has become the floats
    """
    pa = need("pyarrow", "arrow")
    told = spelling or SPELLING
    text = is_text(column.type)
    whole = pa.types.is_integer(column.type)
    if pa.types.is_decimal(column.type):
        whole = column.type.scale <= 0
    if not (text or whole):
        return
    for at in np.flatnonzero(np.abs(floats) >= _EXACT).tolist():
        value = column[at].as_py()
        exact = told.whole_number(value) if text else value
        if exact is not None and exact != float(floats[at]):
            yield at


def _halved(column: Any, cast: Callable[[Any], Any], faults: dict[int, str], what: str) -> Any:
    """Cast an array; what cannot be becomes null and a fault.

    Arrow says only that some value is wrong, and not which: halves tell.
    """
    pa = need("pyarrow", "arrow")
    done: list[Any] = []
    wanted = cast(column[:0]).type
    todo = [(0, len(column))]
    while todo:
        start, end = todo.pop()
        try:
            done.append(cast(column[start:end]))
        except pa.ArrowInvalid:
            if end - start == 1:
                faults[start] = f"{{}} is not {what}"
                done.append(pa.nulls(1, wanted))
            else:
                middle = (start + end) // 2
                todo += [(middle, end), (start, middle)]
    return done[0] if len(done) == 1 else pa.concat_arrays(done)
