"""What columns hold, and which of them is meant, for tasks that say which they read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

_ANY_TEXT: Final = np.dtype(str)

_KINDS: Final[Mapping[str, str]] = {"U": "texts", "S": "bytes", "b": "bools", "M": "times"}


def is_encoded(dtype: np.dtype[Any]) -> bool:
    """Whether a column holds texts of any length, of which a row has a code."""
    return dtype == _ANY_TEXT


def holds(dtype: np.dtype[Any]) -> str:
    """What a column holds, for messages."""
    return _KINDS.get(dtype.kind, f"{dtype.name}s")


def unknown(name: str, columns: Iterable[str]) -> str:
    """That there is no such column, which is probably meant, and which there are, for messages.

    :param name: the column that is asked for
    :param columns: those that there are
    """
    in_small_letters = {each.lower(): each for each in columns}
    near = difflib.get_close_matches(name.lower(), in_small_letters, 1)
    meant = f"did you mean {in_small_letters[near[0]]!r}? " if near else ""
    return f"there is no column {name!r}: {meant}The columns are {', '.join(map(repr, columns))}"
