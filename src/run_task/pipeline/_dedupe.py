"""Rows that came before: told by values that each row has of its own, for some time."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief, seconds
from run_task.observe._log import Log
from run_task.sources._batch import Batch
from run_task.time._interval import TaskInterval
from run_task.time._length import IntervalLike, in_short, plain_length

_log = Log(__name__)

RowId: TypeAlias = tuple[Any, ...]
"""The values that tell a row from all others."""

DEDUPE_FOR: Final = "10m"
"""For how long a row is remembered where nobody says so."""

_MOST: Final = 1_000_000
"""How many rows are remembered at most, of one source on its way into one target."""

_MANY: Final = 1_000
"""How many are forgotten before the memory that they take is freed, at least."""

_INT_BITS: Final = 2_048
"""How long an int may be as digits: Python reads 640 of them, however it is set up."""


@dataclass(frozen=True, slots=True)
class Dedupe:
    """By which values rows are told apart, and for how long.

    :param names: the names of the values in a row
    :param kept: for how long one is remembered, in the time of rows
    """

    names: Sequence[str]
    kept: TaskInterval

    @classmethod
    def checked(
        cls, where: str, names: object, kept: IntervalLike, series: Iterable[TimeSeries]
    ) -> Dedupe | None:
        """What a user gave, if rows can be told apart by it.

        :param where: the source, for messages
        :param names: a name, a tuple of several, or None
        :param kept: for how long
        :param series: those that rows enter as they are
        :raises ConfigError: if they cannot
        """
        if names is None:
            if kept != DEDUPE_FOR:
                raise ConfigError(
                    f"{where}: dedupe_for={kept!r}: say by dedupe= which values tell rows apart"
                )
            return None
        several = (names,) if isinstance(names, str) else names
        given = cast("tuple[str, ...]", several if isinstance(several, tuple) else ())
        if not given or not all(type(name) is str and name for name in given):
            raise ConfigError(
                f"{where}: dedupe={brief(names)}: it is the name of a value in a row, or a tuple "
                f"of such names"
            )
        for one in series:
            for name in given:
                if name not in one.columns:
                    known = ", ".join(map(repr, one.columns))
                    raise ConfigError(
                        f"{where}: dedupe={brief(names)}: {brief(one)} has no column {name!r}, but "
                        f"{known}: rows that enter it have no other values"
                    )
        return cls(given, plain_length(kept, f"{where}: dedupe_for={{}}"))


class SegmentsPlace:
    """Where a checkpoint has rows that are remembered: that is for who writes it to know."""

    __slots__ = ("where",)

    def __init__(self, where: Sequence[Any] = ()) -> None:
        self.where = where


class RememberedRows(NamedTuple):
    """The rows that are remembered at a moment. They have numbers, each one more than the one
    before: what comes later changes nothing of them."""

    names: Sequence[str]
    """By which values they are told apart."""
    latest_ns: int | None
    """The latest time of a row that had entered; None: none had."""
    first: int
    """The number of the first."""
    stop: int
    """The number of the one after the last."""
    rows: tuple[Sequence[RowId], Sequence[int]]
    """What tells them, and with which time each is remembered, in nanoseconds."""
    number: int
    """The number of the first of :attr:`rows`, of which there may be more."""
    kept: SegmentsPlace

    def since(self, first: int, stop: int) -> tuple[Sequence[RowId], Sequence[int]]:
        """Some of the rows, by number."""
        ids, times = self.rows
        which = slice(first - self.number, stop - self.number)
        return ids[which], times[which]


class SeenRows:
    """The rows that have entered some data, for as long as they are remembered. While its lock is
    held, where several threads let rows enter.

    A row is remembered with the latest time of those that had entered by then. So what is
    forgotten depends on rows and their order alone, live and in a replay.

    :param dedupe: by which values, and for how long
    :param where: the source, for messages
    """

    def __init__(self, dedupe: Dedupe, where: str) -> None:
        self.lock: threading.Lock = threading.Lock()
        """Held from looking whether a row has entered until it has."""
        self._dedupe = dedupe
        self._where = where
        self._known: set[RowId] = set()
        # All in the order in which they came, with those times, in nanoseconds, which ascend.
        # These lists grow, and are never changed: whoever has them may go on reading.
        self._ids: list[RowId] = []
        self._times: list[int] = []
        self._number = 0  # of the first in the lists
        self._at = 0  # where the first is that is remembered
        self._latest_ns: int | None = None
        self._is_told = False
        self._kept = SegmentsPlace()

    def __len__(self) -> int:
        """How many rows are remembered."""
        return len(self._known)

    def id_of(self, row: Any) -> RowId | None:
        """What tells a row from others; None: it lacks one of the values, and is always new.

        :raises ConfigError: if it cannot be told by these values
        """
        if not isinstance(row, Mapping):
            names = ", ".join(map(repr, self._dedupe.names))
            raise ConfigError(f"it is no mapping, which has {names} for dedupe=")
        values = cast("Mapping[str, object]", row)
        found = tuple(_plain(values.get(name)) for name in self._dedupe.names)
        return None if None in found else found

    def ids_of_new(self, batch: Batch) -> Sequence[RowId] | None:
        """What tells the rows of a batch, if all are new and told by values that are known to be
        what :meth:`id_of` has of them; None: they are to be looked at one by one."""
        columns: list[list[Any]] = []
        for name in self._dedupe.names:
            column = batch.columns.get(name)
            if column is None or not _is_plain(column):
                return None
            columns.append(column.tolist())
        ids: list[RowId] = [*zip(*columns)]
        different = set(ids)
        return ids if len(different) == len(ids) and different.isdisjoint(self._known) else None

    def has(self, identity: RowId, time_ns: int) -> bool:
        """Whether a row has entered that is told by the same values, and is remembered.

        :param time_ns: the time of the row that comes, in nanoseconds since the Unix epoch
        """
        self._forget(time_ns)
        return identity in self._known

    def told(self, identity: RowId) -> str:
        """What a row is left out for."""
        values = zip(self._dedupe.names, identity, strict=True)
        told = ", ".join(f"{name}={brief(value)}" for name, value in values)
        return f"{told} came before, and is remembered for {in_short(self._dedupe.kept)}"

    def note(self, identity: RowId, time_ns: int) -> None:
        """A row has entered."""
        latest = time_ns if self._latest_ns is None else max(self._latest_ns, time_ns)
        self._latest_ns = latest
        self._known.add(identity)
        self._ids.append(identity)
        self._times.append(latest)
        if len(self._known) > _MOST:
            self._bound()

    def note_all(self, ids: Sequence[RowId], times: NDArray[np.int64], unit_ns: int) -> None:
        """Rows have entered that :meth:`ids_of_new` has told of.

        :param times: their timestamps
        :param unit_ns: how many nanoseconds the unit of these has
        """
        latest: list[int] = [one * unit_ns for one in np.maximum.accumulate(times).tolist()]
        if (before := self._latest_ns) is not None and latest[0] < before:
            latest = [max(before, one) for one in latest]
        self._latest_ns = latest[-1]
        self._known.update(ids)
        self._ids += ids
        self._times += latest
        self._forget(int(times[-1]) * unit_ns)
        if len(self._known) > _MOST:
            self._bound()

    def _bound(self) -> None:
        """Forget those that are more than there is memory for."""
        until = len(self._ids) - _MOST
        since_ns = self._times[until - 1]
        self._forget_until(until)
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "%s: dedupe_for=%s is more than memory is for: %s rows are remembered, which "
                "are those of the last %s",
                *(self._where, in_short(self._dedupe.kept), f"{_MOST:,}"),
                seconds((self._times[-1] - since_ns) / 1e9),
            )

    def _forget(self, time_ns: int) -> None:
        latest = time_ns if self._latest_ns is None else max(self._latest_ns, time_ns)
        limit, times, at = latest - self._dedupe.kept.nanos, self._times, self._at
        if at < len(times) and times[at] <= limit:
            self._forget_until(bisect_right(times, limit, at))

    def _forget_until(self, until: int) -> None:
        self._known.difference_update(self._ids[self._at : until])
        self._at = until
        if until > _MANY and 2 * until > len(self._ids):
            self._ids, self._times = self._ids[until:], self._times[until:]
            self._number += until
            self._at = 0

    def remembered(self) -> RememberedRows:
        """What is remembered now, for a checkpoint."""
        first, stop = self._number + self._at, self._number + len(self._ids)
        rows = self._ids, self._times
        names = self._dedupe.names
        return RememberedRows(names, self._latest_ns, first, stop, rows, self._number, self._kept)

    def restore(self, before: RememberedRows) -> None:
        """Go on with what an earlier run remembered; not, if rows are told by other values now.

        :param before: that
        """
        if [*before.names] != [*self._dedupe.names]:
            _log.warning(
                "%s: rows are told apart by %s now, and were by %s: none of those is remembered",
                *(self._where, list(self._dedupe.names), list(before.names)),
            )
            return
        ids, times = before.since(before.first, before.stop)
        self._ids, self._times = [*ids], [*times]
        self._known = set(ids)
        self._number, self._at = before.first, 0
        self._latest_ns, self._kept = before.latest_ns, before.kept


def _is_plain(column: NDArray[Any]) -> bool:
    """Whether all values of a column are such as can be told from others, and as JSON has them."""
    kind = column.dtype.kind
    if kind == "f":
        return not np.isnan(column).any()
    return kind in "iuU" or (kind == "O" and all(type(value) is str for value in column))


def _plain(value: object) -> str | int | float | tuple[str, str] | None:
    """A value that can be told from others, and that JSON has; None: it is none."""
    if isinstance(value, np.generic):
        return _plain(value.item())  # pyright: ignore[reportUnknownArgumentType]  of any kind
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, int) and value.bit_length() > _INT_BITS:
        return value.__class__.__name__, hex(value)
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return value.__class__.__name__, str(value)
