"""A source without end, in partitions and in memory, for shards of the test's own process."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from run_task import SourceError, TimeUnit
from run_task.sources import Batch, SourceInfo
from run_task.sources._faults import Faults, OnFault

Row = tuple[int, Mapping[str, Any]] | None
"""None: one that is malformed."""

_LOGS: Final[dict[str, list[list[Row]]]] = {}


class Topic:
    """Rows in partitions, which a test appends to.

    :param name: its name
    :param count: how many partitions there are
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.reads = 0
        self.position: Any = None
        _LOGS[name] = [[] for _ in range(count)]

    def put(self, partition: int, *rows: Row) -> None:
        """Append rows."""
        _LOGS[self.name][partition] += rows

    def about(self) -> SourceInfo:
        return SourceInfo(unit=TimeUnit.MILLIS, endless=True)

    def partitions(self) -> Mapping[str, TopicPart]:
        return {f"part-{number}": TopicPart(self.name, number) for number in range(self.count)}

    @property
    def count(self) -> int:
        """How many partitions there are."""
        return len(_LOGS[self.name])

    @property
    def rows(self) -> int:
        """How many rows they have."""
        return sum(map(len, _LOGS[self.name]))

    def batches(self) -> Iterator[Batch]:
        raise AssertionError("it is read by its partitions")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it is read by its partitions")

    def seek(self, position: Any, /) -> None:
        raise AssertionError("it is read by its partitions")

    def commit(self, position: Any, /) -> None:
        raise AssertionError("it is read by its partitions")

    lag: int | None = None

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


AWAY: Final[set[str]] = set()
"""The names of topics whose broker is away."""

COMMITTED: Final[dict[tuple[str, int], int]] = {}
"""Up to where rows are kept, by the name of the topic and the partition."""


class TopicPart:
    """One of its partitions: rows come in pieces that are others each time."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number
        self._at = 0
        self._done = 0
        self._closed = threading.Event()

    def __reduce__(self) -> Any:
        return TopicPart, (self._name, self._number)

    def about(self) -> SourceInfo:
        return SourceInfo(unit=TimeUnit.MILLIS, endless=True)

    @property
    def position(self) -> int:
        return self._at

    def seek(self, position: int, /) -> None:
        self._at = self._done = position

    def commit(self, position: int, /) -> None:
        COMMITTED[self._name, self._number] = position

    @property
    def lag(self) -> int | None:
        if self._name in AWAY:
            return None
        return len(_LOGS[self._name][self._number]) - self._done

    def close(self) -> None:
        self._closed.set()

    def batches(self) -> Iterator[Batch]:
        log = _LOGS[self._name][self._number]
        chance, faults = random.Random(), Faults(OnFault.SKIP)
        while not self._closed.is_set():
            some = log[self._at : self._at + chance.randrange(1, 30)]
            if not some or self._name in AWAY:
                self._closed.wait(0.002)
                continue
            end = self._at + len(some)
            for at, one in enumerate(some, self._at):
                if one is None:
                    faults.note(SourceError(repr(self), at, None, "it is malformed"))
            rows = [one for one in some if one is not None]
            self._at = end
            if rows:
                yield _batch(rows)
            self._done = end

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self.batches() for row in batch.rows())

    def __repr__(self) -> str:
        return f"part {self._number} of {self._name!r}"


def _batch(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Batch:
    columns: dict[str, Any] = {}
    for name in rows[0][1]:
        column = np.empty(len(rows), object)
        column[:] = [row[name] for _, row in rows]
        columns[name] = column
    return Batch(np.array([time for time, _ in rows], np.int64), columns)
