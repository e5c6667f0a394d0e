"""A source in partitions: each has all rows of its keys, and can be read by itself.

Rows of all partitions are brought together in one order: that in which they arrive, where a row
arrives at its own time, or, if it is out of order, right after the row before it in its partition.
At one time, partitions come in their own order. So the order is the same wherever and however fast
each of them is read.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError, SourceError
from run_task.observe._format import brief
from run_task.sources._batch import Batch, Batched
from run_task.sources._paced import Paced
from run_task.sources._protocol import SourceInfo, about


@runtime_checkable
class Partitioned(Protocol):
    """A source that consists of partitions: whoever has made it has put all rows of a key into one
    of them."""

    def partitions(self) -> Mapping[str, Any]:
        """The partitions by name, in an order that stays the same: each a source that gives
        batches, and can be read by itself, also in another process."""
        ...


NOTHING_YET: Final = Batch(np.empty(0, np.int64), {})
"""What a partition gives in the place of rows that it is not to be waited for any longer: rows of
the others come before them then, and its own out of order."""

_PAUSE: Final = 0.05
"""After how many seconds partitions are asked again of which none has anything."""


class Partitions:
    """The rows of all partitions, in one order.

    :param origin: the source, as messages call it
    :param parts: the partitions, by name
    """

    def __init__(self, origin: str, parts: Mapping[str, Any]) -> None:
        self.origin: Final = origin
        """The source, as messages call it."""
        self.parts: Final = parts
        """The partitions, by name."""
        self._closed = threading.Event()

    def about(self) -> SourceInfo:
        """What its partitions say of themselves, together."""
        known = [about(part) for part in self.parts.values()]
        lasts = [one.last for one in known]
        return SourceInfo(
            unit=known[0].unit,
            once=any(one.once for one in known),
            last=max((last for last in lasts if last is not None), default=None),
            malformed=sum(one.malformed for one in known),
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

        :raises SourceError: where a partition raises it, or gives times that are no ints
        """
        with ExitStack() as opened:
            open_parts: list[_OpenPart] = []
            for number, (name, part) in enumerate(self.parts.items()):
                batches: Iterator[Batch] = part.batches()
                close: object = getattr(batches, "close", None)
                if callable(close):
                    opened.callback(close)
                open_parts.append(_OpenPart(number, f"{self.origin}: {name}", batches))
            while True:
                open_parts = [one for one in open_parts if one.fill()]
                if not open_parts:
                    return
                if not (here := [one for one in open_parts if one.has_rows]):
                    self._closed.wait(_PAUSE)
                    continue
                # All rows that a partition is still to give come after its last one here.
                until = min((one.last, one.number) for one in here)
                yield _in_order([one.take(until) for one in here])

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for batch in self.batches():
            yield from batch.rows()

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

    @property
    def has_rows(self) -> bool:
        """Whether there is a row here."""
        return self._here is not None

    def fill(self) -> bool:
        """Have a row here, unless it has none to be waited for. Returns whether one may come."""
        while self._here is None:
            batch = next(self._batches, None)
            if batch is None:
                return False
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
        """When the last row here arrives."""
        assert self._latest is not None
        return self._latest

    def take(self, until: tuple[int, int]) -> _ArrivedRows:
        """The rows that come before all that are still to come.

        :param until: when the last of these arrives, and in which partition
        """
        here = self._here
        assert here is not None
        time, number = until
        side: Any = "right" if self.number <= number else "left"
        begun, end = self._at, int(here.arrivals.searchsorted(time, side))
        self._at = end
        if end == len(here.arrivals):
            self._here = None
        return _ArrivedRows(here.batch[begun:end], here.arrivals[begun:end])


def _in_order(parts: Sequence[_ArrivedRows]) -> Batch:
    """Rows of several partitions, by when they arrive; at one time in the order of these."""
    some = [part for part in parts if len(part.batch)]
    if len(some) == 1:
        return some[0].batch
    order = np.concatenate([part.arrivals for part in some]).argsort(kind="stable")
    names = list(dict.fromkeys(name for part in some for name in part.batch.columns))
    times = np.concatenate([part.batch.timestamps for part in some])[order]
    columns = {
        name: np.concatenate([part.batch.columns[name] for part in some])[order] for name in names
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


def by_partition(where: str, source: Any) -> Any:
    """A source, read by partition: also one that is played.

    :param where: the source, for messages
    :raises ConfigError: if it cannot be; the message names the cure
    """
    played: Any = source
    if isinstance(source, Paced):
        return played.playing(_partitions(where, played.about().recording))
    return _partitions(where, source)


def _partitions(where: str, source: Any) -> Partitions:
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
        if about(part).endless:
            raise ConfigError(
                f"{where}: partitioned=True: partition {name!r} of {brief(source)} has no end, and "
                f"partitions are brought together by time, each up to its end: leave "
                f"partitioned=True out"
            )
    return Partitions(repr(source), parts)


def partitions_in(source: Any) -> Partitions | None:
    """The partitions that a source brings together, or plays; None: it has none."""
    found = source.about().recording if isinstance(source, Paced) else source
    return found if isinstance(found, Partitions) else None


def with_partitions(source: Any, parts: Mapping[str, Any]) -> Any:
    """The same source, with other partitions in the place of its own.

    :param source: one of :func:`by_partition`
    :param parts: the partitions, by the same names
    """
    found = partitions_in(source)
    assert found is not None
    made = Partitions(found.origin, parts)
    return source.playing(made) if isinstance(source, Paced) else made
