"""A source in partitions: each has all rows of its keys, and can be read by itself.

Rows of all partitions are brought together in one order: that in which they arrive, where a row
arrives at its own time, or, if it is out of order, right after the row before it in its partition.
At one time, partitions come in their own order. So the order is the same wherever and however fast
each of them is read, if it has an end. One that has none, and has given all that it has, is not
waited for: what it gives later comes behind what others were given by then.

A row is in the partition of its key. So one without a key, which is an empty text, is malformed,
and a key that comes in two partitions ends the reading, in one process as in shards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.data.series._schema import Schema
from run_task.errors import ConfigError, SourceError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sources._batch import Batch, Batched
from run_task.sources._faults import Faults, OnFault
from run_task.sources._fitted_rows import rows_that_fit
from run_task.sources._paced import Paced
from run_task.sources._positioned import Position, positioned
from run_task.sources._protocol import SourceInfo, about

_log = Log(__name__)


@runtime_checkable
class Partitioned(Protocol):
    """A source that consists of partitions: whoever has made it has put all rows of a key into one
    of them."""

    def partitions(self) -> Mapping[str, Any]:
        """The partitions by name, in an order that stays the same: each a source that gives
        batches, and can be read by itself, also in another process.

        Where they have no end, each is :class:`Positioned`, and knows before it is read where it
        begins. They are asked for when shards have been started, and may be looked up by then.
        """
        ...


@runtime_checkable
class ChecksPartitions(Protocol):
    """A source that knows before it is read whether its partitions can be."""

    def check_partitions(self) -> None:
        """See whether shards can read its partitions by themselves.

        :raises ConfigError: if they cannot; the message names the cure
        """
        ...


NOTHING_YET: Final = Batch(np.empty(0, np.int64), {})
"""What a partition gives in the place of rows that it is not to be waited for any longer: rows of
the others come before them then, and its own out of order."""

COMING: Final = Batch(np.empty(0, np.int64), {})
"""What a partition gives in the place of rows that it is behind with: those of others that may come
after them wait."""

_PAUSE: Final = 0.05
"""After how many seconds partitions are asked again of which none has anything."""

_IDLE_TIMEOUT: Final = 10.0
"""How many seconds a partition that is behind is waited for, unless somebody has said another
number."""

_BEFORE_ALL: Final = -(1 << 63)


def with_key(where: str, key: str, batches: Iterator[Batch], faults: Faults) -> Generator[Batch]:
    """The rows of a partition without those that have no key: which partition is theirs, nobody can
    say. An empty text is what files and brokers give where there is none.

    :param where: the partition, for messages
    :param key: the column of the key
    :param faults: takes note of each such row
    :raises SourceError: at the first of them, if that is fatal; the rows before it have been given
    """
    try:
        for batch in batches:
            column = batch.columns.get(key)
            if column is None or column.dtype.kind not in "OU":
                yield batch
                continue
            empty = _empty_texts(column)
            if not empty.any():
                yield batch
                continue
            if faults.are_fatal:
                yield batch[: int(empty.argmax())]
            for timestamp in batch.timestamps[empty].tolist():
                faults.note(
                    SourceError(
                        *(where, None, key),
                        f"the row of timestamp {timestamp} has no key: with partitioned=True, a "
                        f"row is in the partition of its key: give it one, or leave "
                        f"partitioned=True out",
                    )
                )
            yield batch.where(~empty)
    finally:
        close: object = getattr(batches, "close", None)
        if callable(close):
            close()


def _empty_texts(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of many values are empty texts."""
    try:
        empty: NDArray[np.bool_] = column == ""
    except ValueError:  # there is an array among them, of which nobody can say whether it is equal
        listed: list[Any] = column.tolist()
        found = (isinstance(one, str) and not one for one in listed)
        return np.fromiter(found, np.bool_, len(listed))
    return empty


def key_in_two(origin: str, key: object, first: str, second: str) -> SourceError:
    """What is raised where a key comes in two partitions.

    :param origin: the source, as messages call it
    :param first: one of the partitions
    :param second: the other one
    """
    return SourceError(
        *(origin, None, None),
        f"key {brief(key)} has rows in {first!r} and in {second!r}: with partitioned=True, a key "
        f"is in one partition: divide the rows by key, or leave partitioned=True out",
    )


class _SeenKeys:
    """Sees that each key is in one partition.

    :param origin: the source, as messages call it
    :param series: what the rows enter
    """

    def __init__(self, origin: str, series: TimeSeries) -> None:
        self._origin = origin
        self._schema: Schema = series.pattern.schema()
        assert series.key is not None  # it was checked
        self.key: Final[str] = series.key
        """The column of the key."""
        self._partition_of: dict[Any, str] = {}

    def seen(self, name: str, batches: Iterator[Batch]) -> Generator[Batch]:
        """The rows of a partition.

        :param name: the partition
        :raises SourceError: if a key comes that another one has, too
        """
        known: set[Any] = set()
        position = self._schema.positions[self.key]
        for batch in batches:
            if not self._are_in(known, batch):
                # A row that is not going to be stored is in no partition.
                keys = set(rows_that_fit(self._schema, batch).columns[position].tolist())
                for key in keys - known:
                    if (other := self._partition_of.setdefault(key, name)) != name:
                        raise key_in_two(self._origin, key, other, name)
                known |= keys
            yield batch

    def _are_in(self, known: set[Any], batch: Batch) -> bool:
        """Whether all keys of a batch are known."""
        column = batch.columns.get(self.key)
        try:
            return column is not None and known.issuperset(column.tolist())
        except TypeError:  # one has no hash
            return False


class Partitions:
    """The rows of all partitions, in one order.

    :param origin: the source, as messages call it
    :param parts: the partitions, by name
    :param into: the series that the rows enter, whose keys are looked at; None: that was done where
        they were read
    """

    def __init__(
        self, origin: str, parts: Mapping[str, Any], into: TimeSeries | None = None
    ) -> None:
        self.origin: Final = origin
        """The source, as messages call it."""
        self.parts: Final = parts
        """The partitions, by name."""
        self._into = into
        self._faults = Faults(OnFault.SKIP)
        self._closed = threading.Event()
        self._open: Sequence[_OpenPart] = ()
        self._idle_timeout = _IDLE_TIMEOUT

    def about(self) -> SourceInfo:
        """What its partitions say of themselves, together."""
        known = [about(part) for part in self.parts.values()]
        lasts = [one.last for one in known]
        return SourceInfo(
            unit=known[0].unit,
            endless=any(one.endless for one in known),
            once=any(one.once for one in known),
            last=max((last for last in lasts if last is not None), default=None),
            malformed=sum(one.malformed for one in known) + self._faults.count,
        )

    def close(self) -> None:
        """Give no more rows. From any thread."""
        self._closed.set()
        for part in self.parts.values():
            close: object = getattr(part, "close", None)
            if callable(close):
                close()

    def batches(self) -> Generator[Batch]:
        """The rows of all partitions.

        :raises SourceError: where a partition raises it, or gives times that are no ints, and where
            a key comes in two of them
        """
        return self._merged()

    def one_by_one(self) -> Generator[Batch]:
        """The same, a row each: so it is known of each row where its partition stands."""
        return self._merged(most=1)

    def _merged(self, most: int | None = None) -> Generator[Batch]:
        keys = None if self._into is None else _SeenKeys(self.origin, self._into)
        with ExitStack() as opened:
            open_parts: list[_OpenPart] = []
            for number, (name, part) in enumerate(self.parts.items()):
                batches: Iterator[Batch] = part.batches()
                where = f"{self.origin}: {name}"
                if keys is not None:
                    batches = keys.seen(name, with_key(where, keys.key, batches, self._faults))
                close: object = getattr(batches, "close", None)
                if callable(close):
                    opened.callback(close)
                open_parts.append(_OpenPart(number, where, batches))
            self._open = tuple(open_parts)
            while True:
                open_parts = [one for one in open_parts if one.fill()]
                if not open_parts:
                    return
                here = [one for one in open_parts if one.has_rows]
                coming = [one for one in open_parts if one.is_coming]
                if here:
                    # All rows that a partition is still to give come after its last one.
                    until = min((one.last, one.number) for one in (*here, *coming))
                    if most is not None:
                        here = [min(here, key=lambda one: (one.first, one.number))]
                    if some := [part for one in here if len((part := one.take(until, most)).batch)]:
                        yield _in_order(some)
                        continue
                    for one in coming:
                        one.wait(self._idle_timeout)
                self._pause()

    def _pause(self) -> None:
        """Wait before partitions are asked again."""
        self._closed.wait(_PAUSE)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for batch in self.batches():
            yield from batch.rows()

    def __repr__(self) -> str:
        return self.origin


class LivePartitions(Partitions):
    """Partitions without end, which are read elsewhere: each says by ``lag`` how far it is behind,
    and by ``position`` where to go on, as :class:`Positioned` does.

    :param origin: the source, as messages call it
    :param parts: the partitions, by name
    """

    @property
    def position(self) -> Position:
        """As of :class:`Positioned`: of each partition where it goes on."""
        left = {one.number: one.left for one in self._open}
        return {
            name: part.position_before(left.get(number, 0))
            for number, (name, part) in enumerate(self.parts.items())
        }

    def seek(self, position: Position, /) -> None:
        """As of :class:`Positioned`.

        :raises SourceError: if these are other partitions than those of before
        """
        before: Mapping[str, Any] = position
        if [*before] != [*self.parts]:
            raise SourceError(
                *(self.origin, None, None),
                f"its partitions are {', '.join(self.parts)}, and were {', '.join(before)} when "
                f"the checkpoint was made: rows of a key may be in another one now: begin with "
                f"another checkpoint=",
            )
        for name, part in self.parts.items():
            part.seek(before[name])

    def commit(self, position: Position, /) -> None:
        """As of :class:`Positioned`."""
        for name, part in self.parts.items():
            part.commit(position[name])

    @property
    def lag(self) -> int | None:
        """As of :class:`Positioned`."""
        lags: list[int | None] = [part.lag for part in self.parts.values()]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if len(known) == len(lags) else None

    def wait_for_streams(self, seconds: float, /) -> None:
        """As of :class:`Merging`."""
        self._idle_timeout = seconds


class Undivided:
    """A source without end whose partitions shards may read: one process reads all of it, as it
    reads any. Of which partition a row is, it does not see then.

    :param source: the source
    :param key: the column of the key
    """

    def __init__(self, source: Any, key: str) -> None:
        self._key = key
        self._faults = Faults(OnFault.SKIP)
        self.inner: Final = source
        """The source."""
        self.positioned: Final = positioned(source)
        """What has its positions."""
        self.origin: Final = repr(source)
        """The source, as messages call it."""
        self.parts: Final[Mapping[str, Any]] = {"all": source}
        """What can be known of its partitions before they are looked up."""

    def about(self) -> SourceInfo:
        """What the source says of itself."""
        known = about(self.inner)
        return replace(known, malformed=known.malformed + self._faults.count)

    def batches(self) -> Iterator[Batch]:
        """The rows of the source."""
        return with_key(self.origin, self._key, self.inner.batches(), self._faults)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for batch in self.batches():
            yield from batch.rows()

    def close(self) -> None:
        """Give no more rows. From any thread."""
        close: object = getattr(self.inner, "close", None)
        if callable(close):
            close()

    def divided(self) -> Mapping[str, Any]:
        """Its partitions, as they are now.

        :raises Exception: whatever the source raises where it cannot tell them
        """
        parts = _checked(self.origin, self.inner)
        for name, part in parts.items():
            if positioned(part) is None:
                raise ConfigError(
                    f"{self.origin}: partitioned=True: its partition {name!r} has neither an end "
                    f"nor positions, so that no shard could read on behind another one: give it "
                    f"position, seek() and commit(), or leave partitioned=True out"
                )
        return parts

    def __repr__(self) -> str:
        return self.origin


class _ArrivedRows:
    """Rows of one partition, in order, with when they arrive."""

    def __init__(self, batch: Batch, arrivals: NDArray[np.int64]) -> None:
        self.batch = batch
        self.arrivals = arrivals


class _OpenPart:
    """A partition that is read, and what was read of it.

    :param number: which it is
    :param where: what it is called in messages
    :param batches: its rows
    """

    def __init__(self, number: int, where: str, batches: Iterator[Batch]) -> None:
        self.number = number
        self._where = where
        self._batches = batches
        self._latest: int | None = None  # when the last row arrived
        self._here: _ArrivedRows | None = None
        self._at = 0
        self._waits = False  # it is behind, and has nothing here
        self._waited_since: float | None = None  # by the monotonic clock, while others wait for it
        self._is_given_up = False

    @property
    def has_rows(self) -> bool:
        """Whether there is a row here."""
        return self._here is not None

    @property
    def left(self) -> int:
        """How many rows there are here."""
        return 0 if self._here is None else len(self._here.arrivals) - self._at

    @property
    def is_coming(self) -> bool:
        """Whether rows of it are waited for."""
        return self._waits and not self._is_given_up

    def wait(self, timeout: float) -> None:
        """Rows of others wait for those of this one.

        :param timeout: for how many seconds they do
        """
        now = time.monotonic()
        if self._waited_since is None:
            self._waited_since = now
        elif now - self._waited_since > timeout:
            self._is_given_up = True
            _log.warning(
                "%s is behind, and has given nothing for %g s: the others go on without it",
                *(self._where, timeout),
            )

    def fill(self) -> bool:
        """Have a row here, unless it has none to be waited for. Returns whether one may come."""
        while self._here is None:
            batch = next(self._batches, None)
            if batch is None:
                return False
            if batch is COMING:
                self._waits = True
                return True
            self._waits, self._is_given_up, self._waited_since = False, False, None
            if batch is NOTHING_YET:
                return True
            if not len(batch):
                continue
            times: Any = batch.timestamps
            if times.dtype != np.int64:
                raise SourceError(
                    *(self._where, None, None),
                    "its timestamps are no ints: a source that is read by partition gives them as "
                    "ints in its unit",
                )
            arrivals: NDArray[np.int64] = np.maximum.accumulate(times)
            if self._latest is not None:
                arrivals = np.maximum(arrivals, self._latest)
            self._latest = int(arrivals[-1])
            self._here, self._at = _ArrivedRows(batch, arrivals), 0
        return True

    @property
    def last(self) -> int:
        """When the last row arrived that has come here."""
        return _BEFORE_ALL if self._latest is None else self._latest

    @property
    def first(self) -> int:
        """When the first row arrived that is here."""
        return _BEFORE_ALL if self._here is None else int(self._here.arrivals[self._at])

    def take(self, until: tuple[int, int], most: int | None) -> _ArrivedRows:
        """The rows that come before all that are still to come.

        :param until: when the last of these arrives, and in which partition
        :param most: how many at most
        """
        here = self._here
        assert here is not None
        time, number = until
        side: Any = "right" if self.number <= number else "left"
        # One that has given nothing for a while, and was not waited for, may be far behind.
        begun = self._at
        end = max(begun, int(here.arrivals.searchsorted(time, side)))
        if most is not None:
            end = min(end, begun + most)
        self._at = end
        if end == len(here.arrivals):
            self._here = None
        return _ArrivedRows(here.batch[begun:end], here.arrivals[begun:end])


def _in_order(parts: Sequence[_ArrivedRows]) -> Batch:
    """Rows of several partitions, by when they arrive; at one time in the order of these."""
    if len(parts) == 1:
        return parts[0].batch
    order = np.concatenate([part.arrivals for part in parts]).argsort(kind="stable")
    names = list(dict.fromkeys(name for part in parts for name in part.batch.columns))
    times = np.concatenate([part.batch.timestamps for part in parts])[order]
    columns = {
        name: np.concatenate([part.batch.columns[name] for part in parts])[order] for name in names
    }
    return Batch(times, columns)


def check_options(
    where: str, targets: Sequence[tuple[Any, Any]], options: Mapping[str, Any]
) -> None:
    """See whether the rows of a source can stay where they are read.

    :param where: the source, for messages
    :param targets: what they enter, each with its ingest
    :param options: what else was said of the source, and would need the rows here
    :raises ConfigError: if they cannot
    """
    into, ingest = targets[0]
    if len(targets) > 1 or ingest is not None or getattr(into, "key", None) is None:
        raise ConfigError(
            f"{where}: partitioned=True: its rows enter one TimeSeries with key=, as they are: "
            f"make it with the key by which the partitions are divided, and leave ingest= out"
        )
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                f"{where}: partitioned=True, and {name}={value!r}, which needs whole rows where "
                f"they enter, and these stay where they are read: leave one of them out"
            )


def by_partition(where: str, source: Any, into: TimeSeries) -> Any:
    """A source, read by partition: also one that is played.

    :param where: the source, for messages
    :param into: the series that its rows enter
    :raises ConfigError: if it cannot be; the message names the cure
    """
    played: Any = source
    if isinstance(source, Paced):
        recording = played.about().recording
        return played.playing(Partitions(repr(recording), _ended(where, recording), into))
    if isinstance(source, ChecksPartitions):
        source.check_partitions()
    if isinstance(source, Partitioned) and about(source).endless:
        assert into.key is not None  # it was checked
        return Undivided(source, into.key)
    return Partitions(repr(source), _ended(where, source), into)


def _ended(where: str, source: Any) -> Mapping[str, Any]:
    """The partitions of a source, each of which has an end.

    :raises ConfigError: if one has none
    """
    parts = _checked(where, source)
    for name, part in parts.items():
        if about(part).endless:
            raise ConfigError(
                f"{where}: partitioned=True: partition {name!r} of {brief(source)} has no end, and "
                f"others have: leave partitioned=True out, or have the source say in its about() "
                f"that it is endless"
            )
    return parts


def _checked(where: str, source: Any) -> Mapping[str, Any]:
    """The partitions of a source.

    :raises ConfigError: if it has none, or they cannot be read by themselves
    """
    if not isinstance(source, Partitioned):
        raise ConfigError(
            f"{where}: partitioned=True: {brief(source)} has no partitions: give a source that "
            f"has, such as a folder of files, or one with partitions(), or leave partitioned=True "
            f"out"
        )
    parts = dict(source.partitions())
    if not parts:
        raise ConfigError(f"{where}: partitioned=True: {brief(source)} has no partition")
    for name, part in parts.items():
        if not isinstance(part, Batched):
            raise ConfigError(
                f"{where}: partitioned=True: partition {name!r} of {brief(source)} gives no "
                f"batches: give it a batches()"
            )
    return parts


def partitions_in(source: Any) -> Partitions | Undivided | None:
    """The partitions that a source brings together, or plays, or would have; None: it has none."""
    found = source.about().recording if isinstance(source, Paced) else source
    return found if isinstance(found, Partitions | Undivided) else None


def with_partitions(source: Any, parts: Mapping[str, Any]) -> Any:
    """The same source, with other partitions in the place of its own.

    :param source: one of :func:`by_partition`
    :param parts: the partitions, by the same names
    """
    found = partitions_in(source)
    assert found is not None
    if isinstance(found, Undivided):
        return LivePartitions(found.origin, parts)
    made = Partitions(found.origin, parts)
    return source.playing(made) if isinstance(source, Paced) else made
