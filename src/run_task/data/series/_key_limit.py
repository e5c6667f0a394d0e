"""How many keys the rows of a series may have.

An append must cost no more for it. A text that is new has to be given a code anyway, and that is
refused beyond a limit, so that the row goes the slow way, where its key is looked at. Ints have no
codes: as long as a store has room for no more rows than there may be keys, there is nothing to look
at, and beyond that each int is looked up, as a text is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from run_task.data.series._column_types import Array, InvalidValue
from run_task.data.series._grouped import from_zero
from run_task.data.series._texts import Texts
from run_task.errors import ConfigError
from run_task.observe._format import brief

_WORTH: Final = 8
"""Keys are looked through anew once one in so many rows has passed out."""


_SPARSE: Final = 8
"""How many ints there may be in the range of some, for each of these, for a table of all to pay."""


class KeyLimitReached(ConfigError):
    """A row has a key that is one more than there may be."""


class KnownInts(dict[int, int]):
    """The ints that a key column has, up to a limit; a new one is noted when it is looked up.

    :param keys: those to begin with
    :param most: how many there may be
    :param convert: makes an int of another value, or raises InvalidValue
    """

    __slots__ = ("_convert", "_most")

    def __init__(self, keys: Iterable[int], most: int, convert: Callable[[Any], Any]) -> None:
        super().__init__((key, key) for key in keys)
        self._most = most
        self._convert = convert

    def __missing__(self, value: object) -> int:
        key: int = self._convert(value)
        if key not in self:
            if len(self) >= self._most:
                raise InvalidValue("there is no room for another key")
            self[key] = key
        return key


class KeyLimit:
    """The limit of a series, and what is known of its keys.

    :param name: the column of the key
    :param place: its place among the columns
    :param most: how many keys there may be
    """

    __slots__ = ("_looked_at", "_name", "ints", "most", "place")

    def __init__(self, name: str, place: int, most: int) -> None:
        self._name = name
        self.place: int = place
        self.most: int = most
        self.ints: KnownInts | None = None
        """The ints that there are, if they have to be known."""
        self._looked_at: tuple[object, int] | None = None

    def new(self, known: Texts | KnownInts, values: Array) -> list[Any]:
        """The keys of rows that nobody knows yet, each once, in order of the rows."""
        return [key for key in _distinct(values) if key not in known]

    def pays_to_look(self, era: object, first: int, length: int) -> bool:
        """Whether enough rows have passed out since keys were looked through for some to be free.
        Else each row that is refused would cost as much as all rows that there are.

        :param era: another object once rows have moved
        :param first: the first row, by its place
        :param length: the row after the last
        """
        looked_at = self._looked_at
        if looked_at is not None and looked_at[0] is era:
            passed = first - looked_at[1]
            if not passed or passed <= (length - first) // _WORTH:
                return False
        return True

    def looked(self, era: object, first: int) -> None:
        """Note that keys were looked through.

        :param era: another object once rows have moved
        :param first: the first row, by its place
        """
        self._looked_at = era, first

    def reached(self, times: Array, values: Array, key: object) -> KeyLimitReached:
        """What is said of a key that is one too many.

        :param times: the timestamps of the rows that were to be stored
        :param values: their keys
        :param key: the first for which there is no room
        """
        row = int(np.flatnonzero(values == key)[0])
        return KeyLimitReached(
            f"column {self._name!r}, row of timestamp {times[row]}: {brief(key)} is a new key, and "
            f"there are {self.most:,} already, which is max_keys of a stage or runner by "
            f"{self._name!r}: raise max_keys=, or take a column of which values come again; "
            f"nothing was stored"
        )


def _distinct(values: Array) -> Iterable[Any]:
    """Values, each once, in the order in which they come first."""
    if values.dtype.kind in "iu" and len(values):
        least = int(values.min())
        span = int(values.max()) - least + 1
        if span <= _SPARSE * len(values):
            # Backward, so that of those that go to one place the first stays there. A tenth of the
            # time that a dict takes.
            firsts = np.full(span, -1, np.intp)
            firsts[from_zero(values)[::-1].astype(np.intp)] = np.arange(len(values) - 1, -1, -1)
            firsts = firsts[firsts >= 0]
            firsts.sort()
            distinct: list[int] = values[firsts].tolist()
            return distinct
    return dict.fromkeys(values.tolist())
