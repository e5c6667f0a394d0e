"""How many keys the rows of a series may have.

An append must cost no more for it. A text that is new has to be given a code anyway, and an int is
looked up as a text is, once a store has room for more rows than there may be keys. What is looked
up are the keys that are *admitted*: all that rows have, and some that rows had, never more than
there may be. So what is there needs no other look. Only a key that is not admitted, when there is
no room for it, goes the slow way: it is found out which of the admitted have no row any more.
Texts that are not admitted stand in a dictionary apart from the others, so that there is none but
that of the texts, which a row is looked up in anyway.

That is exact, whatever has become of the memory that rows lie in: a replay refuses the rows that
the live run refused. Of each key the position of its last row is known, counted from the first row
that there ever was, in order of these positions. So it costs as much as rows have come since it was
asked last, and as there are keys that have gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array, Column, InvalidValue
from run_task.data.series._grouped import above_zero
from run_task.data.series._texts import Texts
from run_task.errors import ConfigError
from run_task.observe._format import brief

_FEW: Final = 8
"""So many rows are looked at one by one."""

_SPARSE: Final = 8
"""How many ints there may be in the range of some, for each of these, for a table of all to pay."""


class KeyLimitReached(ConfigError):
    """A row has a key that is one more than there may be."""


class AdmittedKeys(Protocol):
    """Keys that rows may have without another look, each with what is stored of it: an int itself,
    or the code of a text. To look up another admits it, while there is room."""

    @property
    def look(self) -> Callable[[Any], int]:
        """What is stored of a value.

        :raises InvalidValue: if it is no key, or there is no room for it
        """
        ...

    @property
    def texts(self) -> Texts | None:
        """What codes stand for; None: the keys are ints."""
        ...

    def __contains__(self, key: object, /) -> bool: ...

    def __len__(self) -> int: ...

    def revoke(self, stored: int, /) -> None:
        """Let the key of what is stored be admitted no longer."""
        ...

    def admit_only(self, stored: Sequence[int], /) -> None:
        """Let the keys of what is stored be admitted, and no others."""
        ...


class _AdmittedInts(dict[Any, int]):
    """Ints that are admitted.

    :param most: how many there may be
    :param column: makes an int of another value, or raises InvalidValue
    :param stored: those that are admitted
    """

    __slots__ = ("_column", "_most", "texts")

    def __init__(self, most: int, column: Column, stored: Sequence[int]) -> None:
        super().__init__(zip(stored, stored))
        self.texts: Final[Texts | None] = None
        self._most = most
        self._column = column

    @property
    def look(self) -> Callable[[Any], int]:
        """What is stored of a value."""
        return self.__getitem__

    def __missing__(self, value: Any) -> int:
        key: int = self._column.convert(value)
        if key not in self:
            if len(self) >= self._most:
                raise InvalidValue("there is no room for another key")
            self[key] = key
        return key

    def revoke(self, stored: int) -> None:
        self.pop(stored, None)

    def admit_only(self, stored: Sequence[int]) -> None:
        self.clear()
        self.update(zip(stored, stored))


class _AdmittedTexts:
    """Texts that are admitted: those that their own dictionary has.

    :param most: how many there may be
    :param texts: all there are
    :param stored: the codes of those that are admitted
    """

    __slots__ = ("_codes", "admit_only", "revoke", "texts")

    def __init__(self, most: int, texts: Texts, stored: Sequence[int]) -> None:
        self.texts: Final[Texts | None] = texts
        self._codes = texts.limit(most, stored)
        self.revoke: Final = texts.revoke
        self.admit_only: Final = texts.admit_only

    @property
    def look(self) -> Callable[[Any], int]:
        """The code of a text."""
        return self._codes.__getitem__

    def __contains__(self, key: object) -> bool:
        return key in self._codes

    def __len__(self) -> int:
        return len(self._codes)


class KeyLimit:
    """The limit of a series, and what is known of its keys.

    :param name: the column of the key
    :param place: its place among the columns
    :param most: how many keys there may be
    """

    __slots__ = ("_begin", "_lasts", "_name", "_seen", "admitted", "most", "place")

    def __init__(self, name: str, place: int, most: int) -> None:
        self._name = name
        self.place: int = place
        self.most: int = most
        self.admitted: AdmittedKeys | None = None
        """The keys that are admitted, if they have to be known."""
        self._begin = 0  # the position of the first row of the store
        self._seen = 0  # up to which position rows have been looked at
        self._lasts: dict[int, int] = {}  # of what is stored of a key, its last row; in their order

    def watch(self, column: Column, texts: Texts | None, stored: Array) -> AdmittedKeys:
        """Know which keys there are, from now on.

        :param texts: what codes stand for
        :param stored: what is stored of the keys of all rows
        """
        admitted = self.admitted
        if admitted is None or admitted.texts is not texts:
            # Codes have been given out anew, and mean something else.
            self._lasts, self._seen = {}, 0
            kept: list[int] = np.unique(stored).tolist()
            if texts is None:
                admitted = _AdmittedInts(self.most, column, kept)
            else:
                admitted = _AdmittedTexts(self.most, texts, kept)
            self.admitted = admitted
        return admitted

    def moved(self, rows: int) -> None:
        """The rows of the store begin so many later."""
        self._begin += rows

    def changed(self, row: int) -> None:
        """The rows of the store have changed from this one on."""
        self._seen = min(self._seen, self._begin + row)

    def new(self, values: Array) -> list[Any]:
        """The keys of rows that are not admitted, each once, in order of the rows."""
        admitted = self.admitted
        assert admitted is not None
        if (near := _near(values)) is not None:
            # Most rows have none, and to find in which order keys come takes most of the time.
            less, numbers, largest = near
            present = np.zeros(largest + 1, np.bool_)
            present[numbers] = True
            if all(less + at in admitted for at in np.flatnonzero(present).tolist()):
                return []
        return [key for key in _distinct(values) if key not in admitted]

    def admit(self, values: Array, new: Sequence[Any], stored: Array, staying: int) -> int:
        """Admit the keys of new rows, if there is room for all of them.

        :param values: the keys of the new rows
        :param new: those that are not admitted
        :param stored: what is stored of the keys of all rows of the store, from its first on
        :param staying: from which of these rows on they stay once the new ones are there
        :return: for how many of the new keys there is no room; then nothing has changed
        """
        admitted = self.admitted
        assert admitted is not None
        if len(admitted) + len(new) > self.most:
            self._look(stored)
            lasts, stays = self._lasts, self._begin + staying
            gone: set[int] = set()
            for one, last in lasts.items():
                if last >= stays:
                    break
                gone.add(one)
            known = (admitted.look(key) for key in _distinct(values) if key in admitted)
            again = {one for one in known if one not in lasts or one in gone}
            count = len(lasts) - len(gone) + len(again)
            if (excess := count + len(new) - self.most) > 0:
                return excess
            for one in gone:
                del lasts[one]
                if one not in again:
                    admitted.revoke(one)
            if len(admitted) > count:  # keys of rows that were refused for something else
                admitted.admit_only((*lasts, *again))
        for key in new:
            admitted.look(key)
        return 0

    def _look(self, stored: Array) -> None:
        """Find the last row of each key."""
        lasts, begin = self._lasts, self._begin
        seen = max(self._seen, begin)
        while lasts and next(reversed(lasts.values())) >= seen:
            lasts.popitem()
        values = stored[seen - begin :]
        if len(values) <= _FEW:
            found = list(zip(values.tolist(), range(seen, seen + len(values))))
        else:
            each, from_end = np.unique(values[::-1], return_index=True)
            rows = seen + len(values) - 1 - from_end
            order = np.argsort(rows)
            found = list(zip(each[order].tolist(), rows[order].tolist()))
        for one, row in found:
            lasts.pop(one, None)
            lasts[one] = row
        self._seen = seen + len(values)

    def reached(self, times: Array, values: Array, key: object) -> KeyLimitReached:
        """What is said of a key that is one too many.

        :param times: the timestamps of the rows that were to be stored
        :param values: their keys
        :param key: the first for which there is no room
        """
        row = values.tolist().index(key)  # NumPy takes texts for like that end in a NUL
        return KeyLimitReached(
            f"column {self._name!r}, row of timestamp {times[row]}: {brief(key)} is a new key, and "
            f"there are {self.most:,} already, which is max_keys of a stage or runner by "
            f"{self._name!r}: raise max_keys=, or take a column of which values come again; "
            f"nothing was stored"
        )


def _near(values: Array) -> tuple[int, NDArray[Any], int] | None:
    """What to take from some ints, which they are then, and the greatest of these, for a table of
    all up to that one; None: they are none or no ints, or too far from each other for it to pay."""
    if values.dtype.kind not in "iu" or not len(values):
        return None
    less, numbers = above_zero(values)
    largest = int(numbers.max())
    if largest >= _SPARSE * len(values):
        return None
    return less, numbers.astype(np.intp, copy=False), largest


def _distinct(values: Array) -> Iterable[Any]:
    """Values, each once, in the order in which they come first."""
    if (near := _near(values)) is not None:
        # Backward, so that of those that go to one place the first stays there. A tenth of the
        # time that a dict takes.
        _, numbers, largest = near
        firsts = np.full(largest + 1, -1, np.intp)
        firsts[numbers[::-1]] = np.arange(len(values) - 1, -1, -1)
        firsts = firsts[firsts >= 0]
        firsts.sort()
        distinct: list[int] = values[firsts].tolist()
        return distinct
    return dict.fromkeys(values.tolist())
