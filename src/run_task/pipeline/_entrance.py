"""How the rows of a source enter its data, each to its fate: a row that cannot costs itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.data.series._ahead import AheadRows
from run_task.data.series._key_limit import KeyLimitReached
from run_task.errors import ConfigError, add_note
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._dedupe import SeenRows
from run_task.pipeline._fates import Fate, Fates, Tally
from run_task.pipeline._given import GivenWindows
from run_task.pipeline._route import Route
from run_task.pipeline._stamps import Stamps
from run_task.pipeline._unseen import UnseenRows
from run_task.sources._batch import Batch
from run_task.sources._faults import OnFault
from run_task.time._interval import unit_of_nanos
from run_task.time._unit_check import UnitCheck

_log = Log(__name__)

EnterRow: TypeAlias = Callable[[int, Any], None]

_NO_VALUE = "it has no value: None in every column"


class Entrance:
    """The way of rows of one source into its data, for one thread.

    :param route: where they go
    :param unit_ns: how many nanoseconds the unit of their timestamps has
    :param fates: counts what becomes of them
    :param given: the windows that have been given to those who read the data
    :param years: whether a calendar is to tell their times
    :param seen: the rows that have entered by another thread of the same source and route; None:
        there is none
    """

    def __init__(
        self,
        route: Route,
        unit_ns: int,
        fates: Fates,
        given: GivenWindows,
        *,
        years: bool = False,
        seen: SeenRows | None = None,
    ) -> None:
        self.route: Route = route
        self.unit_ns: int = unit_ns
        self.fates: Fates = fates
        self.tally: Tally = fates.tally()
        self._unseen: UnseenRows | None = None
        self.given: GivenWindows = given
        unit = unit_of_nanos(unit_ns)
        self.stamps: Stamps = Stamps(unit, route.clock, fates, self.tally, years=years)
        """Gives them timestamps that are ints."""
        into: Any = route.into
        series = into if isinstance(into, TimeSeries) and route.ingest is None else None
        self._series: TimeSeries | None = series
        if series is not None and (unseen := given.unseen(unit_ns)) is not None:
            self._unseen = unseen
            fates.count_unseen(lambda: unseen.count)
        self._unit_check = UnitCheck(unit, _log)  # a series has its own
        dedupe = fates.policy.dedupe
        if seen is None and dedupe is not None:
            seen = SeenRows(dedupe, route.origin)
        self.seen: SeenRows | None = seen
        """The rows that have entered, where those that come again are left out; None: all enter."""
        enter = self._any_row if series is None else self._series_row(series)
        self.enter_row: EnterRow = enter if self.seen is None else self._once(enter, self.seen)
        """Lets one row enter: called with its timestamp and the row."""

    def enter_rows(self, rows: Iterable[tuple[int, Any]]) -> None:
        """Let rows enter, one by one.

        :param rows: the rows
        :raises Exception: what a row that is bad is refused by, if the source was declared so
        """
        if self._series is not None or self.seen is not None:
            enter = self.enter_row
            for timestamp, row in rows:
                enter(timestamp, row)
            return
        refused: list[tuple[int, Any, BaseException]] = []
        fatal = self.fates.policy.on_bad_row is OnFault.RAISE
        with self.route.into.write() as data:
            for timestamp, row in rows:
                error = self._enter_open(data, timestamp, row)
                if error is not None:
                    refused.append((timestamp, row, error))
                    if fatal:
                        break
        # Whoever is told may want the data.
        for timestamp, row, error in refused:
            self._refuse(Fate.REJECTED, timestamp, row, error)

    def settle(self) -> None:
        """Count what has passed out unseen. When no more comes."""
        if self._unseen is not None:
            with self.given.lock:
                self.given.settle()

    def come(self, ahead: AheadRows, times: NDArray[np.int64]) -> None:
        """Let rows be there to be seen that a series has in its memory already.

        :param ahead: all that are yet to come
        :param times: the timestamps of those that come now, which are the first of them
        """
        with self.given.lock:
            ahead.come(len(times))
            if self._unseen is not None:
                self._unseen.extend(times, in_order=True)
        self.tally.stored += len(times)

    def enter_batch(self, batch: Batch, *, in_order: bool) -> None:
        """Let rows enter a series many at a time; one by one, if one of them cannot be stored.

        :param batch: the rows
        :param in_order: whether they are known to be in the order of time
        :raises Exception: what a row that is bad is refused by, if the source was declared so
        """
        series, times = self._series, batch.timestamps
        each = series is None or _may_expire(series, times, in_order)
        if self.fates.wants_rows:
            each = each or any(column.dtype == object for column in batch.columns.values())
        if each or not self._enter_columns(batch, in_order):
            self.enter_rows(batch.rows())

    def _enter_columns(self, batch: Batch, in_order: bool) -> bool:
        """Let all rows of a batch enter a series, unless some came before, or one cannot be
        stored. Returns whether they have."""
        if (seen := self.seen) is None:
            return self._extend(batch, in_order)
        with seen.lock:
            ids = seen.ids_of_new(batch)
            if ids is None or not self._extend(batch, in_order):
                return False
            seen.note_all(ids, batch.timestamps, self.unit_ns)
        return True

    def _extend(self, batch: Batch, in_order: bool) -> bool:
        series, given, times = self._series, self.given, batch.timestamps
        assert series is not None
        with given.lock:
            before = _unstored(series)
            try:
                series.extend(times, **batch.columns)
            except Exception:
                return False
            after = _unstored(series)
            expired, empty = after[0] - before[0], after[1] - before[1]
            valued = _with_a_value(batch) if empty else times
            stored = _stored(valued, expired)
            late = None
            if not in_order or int(times[0]) * self.unit_ns < given.look_ns:
                late = given.late(valued, self.unit_ns)
                given.enter_all(stored, self.unit_ns)
            if self._unseen is not None:
                self._unseen.extend(stored, in_order=in_order)
        tally = self.tally
        if after is before:
            tally.stored += len(times)
        else:
            tally.stored += len(times) - expired - empty
            last: tuple[int, Any] = (int(times.min()), {})
            if expired:
                self.fates.count(Fate.EXPIRED, last, self._retained(series), expired)
            if empty:
                self.fates.count(Fate.REJECTED, last, _NO_VALUE, empty)
        if late is not None:
            tally.late += int(np.count_nonzero(late))
            stamps = valued[late]
            backward = int(np.count_nonzero(stamps[1:] < stamps[:-1]))
            self.fates.note_late(int(stamps[0]), int(stamps[-1]), len(stamps), backward)
        return True

    def _series_row(self, series: TimeSeries) -> EnterRow:
        append, tally, given, unit_ns = series.append, self.tally, self.given, self.unit_ns
        lock, unseen = given.lock, self._unseen

        def enter(timestamp: int, row: Any) -> None:
            try:
                with lock:
                    before = _unstored(series)
                    if type(row) is dict:
                        append(timestamp, **row)
                    else:
                        append(timestamp, **as_mapping(row))
                    after = _unstored(series)
                    if unseen is not None and after is before:
                        unseen.add(timestamp)
                    late = timestamp * unit_ns < given.look_ns and given.enter(
                        timestamp * unit_ns, stored=after is before
                    )
            except Exception as error:
                fate = Fate.REJECTED if isinstance(error, KeyLimitReached) else Fate.MALFORMED
                self._refuse(fate, timestamp, row, error)
                return
            if after is before:
                tally.stored += 1
            elif not self._not_stored(series, timestamp, row, expired=after[0] > before[0]):
                return
            if late:
                tally.late += 1
                self.fates.note_late(timestamp, timestamp)

        return enter

    def _once(self, enter: EnterRow, seen: SeenRows) -> EnterRow:
        """Lets rows enter that have not entered yet."""
        tally, unit_ns, fates = self.tally, self.unit_ns, self.fates

        def once(timestamp: int, row: Any) -> None:
            time_ns = timestamp * unit_ns
            try:
                identity = seen.id_of(row)
            except ConfigError as error:
                fates.refuse(Fate.MALFORMED, (timestamp, row), error)
                return
            if identity is None:
                enter(timestamp, row)
                return
            with seen.lock:
                came_before = seen.has(identity, time_ns)
                if not came_before:
                    stored = tally.stored
                    enter(timestamp, row)
                    if tally.stored > stored:
                        seen.note(identity, time_ns)
            if came_before:
                fates.count(Fate.DUPLICATE, (timestamp, row), seen.told(identity))

        return once

    def _any_row(self, timestamp: int, row: Any) -> None:
        with self.route.into.write() as data:
            error = self._enter_open(data, timestamp, row)
        if error is not None:
            self._refuse(Fate.REJECTED, timestamp, row, error)

    def _enter_open(self, data: Any, timestamp: int, row: Any) -> BaseException | None:
        """Let a row enter what may be changed of the data. Returns what it is refused by."""
        ingest, given = self.route.ingest, self.given
        try:
            if ingest is None:
                data.append(timestamp, **as_mapping(row))
            else:
                ingest(data, row)
        except (Exception, SystemExit) as error:
            return error
        self.tally.stored += 1
        self._unit_check.look(timestamp, self.route.origin)
        time_ns = timestamp * self.unit_ns
        late = False
        if time_ns < given.look_ns:
            with given.lock:
                late = given.enter(time_ns, stored=True)
        if late:
            self.tally.late += 1
            self.fates.note_late(timestamp, timestamp)
        return None

    def _refuse(self, fate: Fate, timestamp: int, row: Any, error: BaseException) -> None:
        if self.route.ingest is not None:
            add_note(error, f"in the ingest of {self.route.origin}")
        self.fates.refuse(fate, (timestamp, row), error)

    def _not_stored(self, series: TimeSeries, timestamp: int, row: Any, *, expired: bool) -> bool:
        """A series has taken a row, and not kept it. Returns whether it can be late."""
        if expired:
            self.fates.count(Fate.EXPIRED, (timestamp, row), self._retained(series))
        else:
            self.fates.count(Fate.REJECTED, (timestamp, row), _NO_VALUE)
        return expired

    def _retained(self, series: TimeSeries) -> str:
        return f"it came too late to be kept, with retention={series.retention}"


def _unstored(series: TimeSeries) -> tuple[int, int]:
    # Past the properties, since a live row is to cost little.
    return series._unstored  # pyright: ignore[reportPrivateUsage]  as just said


def _newest(series: TimeSeries) -> int:
    # As above: a batch may be of few rows.
    return series._newest  # pyright: ignore[reportPrivateUsage]


def _may_expire(series: TimeSeries, times: NDArray[np.int64], in_order: bool) -> bool:
    """Whether some of many rows may be too old for a series: each is by those that came before it,
    and a series that is given all at once cannot tell these from those after it."""
    kept = series.retention
    if kept is None:
        return False
    if in_order and times[0] >= _newest(series):
        return False
    there = series.view().time
    if (times[1:] >= times[:-1]).all() and (not len(there) or times[0] >= there[-1]):
        return False
    oldest, more = int(times.min()), len(times)
    if isinstance(kept, int):
        if len(there) + more <= kept:
            return False
        return more > len(there) or oldest <= int(there[more - 1])  # else others pass out for them
    newest = max([int(times.max()), *there[-1:].tolist()])
    return bool(oldest < newest - kept.nanos // series.unit.nanos)


def _with_a_value(batch: Batch) -> NDArray[np.int64]:
    """The timestamps of those rows of a batch that have a value in some column."""
    return batch.timestamps[[any(v is not None for v in row.values()) for _, row in batch.rows()]]


def _stored(times: NDArray[np.int64], expired: int) -> NDArray[np.int64]:
    """The timestamps of those rows that a series has stored.

    :param times: those of all that have a value
    :param expired: how many of them came too late to be kept
    """
    # None that is kept is older: which of the others these are makes no difference to a count.
    return np.sort(times)[expired:] if expired else times


def as_mapping(row: object) -> Mapping[str, Any]:
    """A row of a source, as columns for a ``TimeSeries``.

    :raises ConfigError: if it is no mapping
    """
    if not isinstance(row, Mapping):
        raise ConfigError(
            f"a row for a TimeSeries is a mapping of column to value, such as {{'price': 1.0}}, "
            f"and not {brief(row)}"
        )
    return cast("Mapping[str, Any]", row)
