"""Values, times and errors as a person reads them: short, and on one line."""

from __future__ import annotations

import functools
import re
import reprlib
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, cast

import numpy as np

from run_task.errors import TaskError

_COLLECTIONS: Final[tuple[type, ...]] = (list, tuple, dict, set, frozenset)
_MOST_CHARACTERS: Final = 1000
_MOST_ITEMS: Final = 20
_MOST_QUOTED: Final = 120

SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of a pair, which no text in UTF-8 can hold."""


def brief(thing: Any, *, items: int = 2, width: int = 200) -> str:
    """Its repr on one line, with the middle left out if it is long.

    :param items: how many items of a collection are in it
    :param width: how many characters of an item, and of all, are in it
    """
    text = " ".join(_repr(items, width).repr(thing).split())
    if len(text) <= width:
        return text
    return f"{text[: width // 2]}...{text[-(width // 2) :]}"


def quoted(value: object) -> str:
    """The repr of a value that stands in a file, or of the beginning of a long text."""
    if isinstance(value, str | bytes) and len(value) > _MOST_QUOTED:
        return f"{value[:_MOST_QUOTED]!r}..."
    return repr(value)


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python tells no int of more than 4300 digits
            return f"<int of {x.bit_length():,} bits>"


@functools.cache
def _repr(items: int, width: int) -> reprlib.Repr:
    made = _Repr()
    made.maxlist = made.maxtuple = made.maxset = made.maxfrozenset = made.maxdict = items
    made.maxstring = made.maxother = made.maxlong = width
    return made


def shown(value: object) -> str:
    """A value on one line, whatever it is."""
    plain: object = cast("Any", value).item() if isinstance(value, np.generic) else value
    if plain is None:
        return "-"
    if isinstance(plain, float):
        return f"{plain:,.6g}"
    if isinstance(plain, int) and not isinstance(plain, bool):
        return f"{plain:,}" if abs(plain) < 10**15 else f"about 2^{plain.bit_length() - 1}"
    if (size := _size(plain)) > _MOST_ITEMS:
        return f"{type(plain).__name__} of {size:,}"
    text = _text(plain)[:_MOST_CHARACTERS]
    return "".join(c if c.isprintable() else " " for c in text).strip()


def named(thing: object) -> str:
    """What a source, a sink or shared data is, in a few words."""
    kind = type(thing)
    if kind in (GeneratorType, AsyncGeneratorType):
        return f"{cast('Any', thing).__name__}()"
    if kind.__repr__ is object.__repr__:
        return kind.__name__
    if kind in _COLLECTIONS:
        return f"{kind.__name__} of {_size(thing):,}"
    return shown(repr(thing))


def _text(thing: object) -> str:
    """Its text, or what is wrong with that: it may be of a class of the user's."""
    try:
        return str(thing)
    except Exception as error:
        return f"<{type(thing).__name__} whose str() raises {type(error).__name__}>"


def _size(thing: Any) -> int:
    """How many items it has, if it is a collection of Python's own."""
    return len(thing) if type(thing) in _COLLECTIONS else 0


def error_shown(error: TaskError) -> str:
    """Why a task gave no result."""
    cause = error.__cause__
    if cause is None:
        return shown(error.reason or error)
    kind, text = type(cause).__name__, _text(cause)
    return shown(f"{kind}: {text}" if text else kind)


def seconds(value: float, digits: int = 2) -> str:
    """A length of time, with the unit that suits it.

    :param value: in seconds
    :param digits: how many digits tell a value below 100 of the unit
    """
    if value == 0:
        return "0 s"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (100.0, 1.0, "s")):
        if value < limit:
            scaled = value * factor
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.{digits}g} {unit}"
    return f"{value:,.0f} s"


def elapsed(value: float) -> str:
    """How long something has been going on."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def compact(count: int) -> str:
    """A number in at most six characters, up to a thousand billions."""
    if count < 10**5:
        return f"{count:,}"
    if count < 10**6:
        return f"{count / 1e3:.0f}k"
    return f"{count / 1e6:.1f}M" if count < 10**9 else f"{count / 1e9:.1f}G"
