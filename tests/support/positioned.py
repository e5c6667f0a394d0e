"""Sources with positions, whose rows a test puts in: as those of a broker that keeps them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from tests.support.threads import PATIENCE

from run_task.sources import Batch, SourceInfo


class Kept:
    """A source that gives rows which somebody keeps: its position is how many it has given.

    :param rows: those that are there from the beginning on
    :param connected: whether it gives them

    :ivar hidden: how many rows it says that there are besides
    """

    def __init__(self, rows: Sequence[Any] = (), *, connected: bool = True) -> None:
        self.rows: list[Any] = list(rows)
        self.commits: list[Any] = []
        self.sought: list[Any] = []
        self.connected = connected
        self.given = self.hidden = 0
        self.closed = threading.Event()
        self.changed = threading.Condition()
        self.ended = False

    def put(self, *rows: Any) -> None:
        with self.changed:
            self.rows += rows
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def connect(self, connected: bool) -> None:
        with self.changed:
            self.connected = connected
            self.changed.notify_all()

    def about(self) -> SourceInfo:
        return SourceInfo(endless=True)

    @property
    def position(self) -> Any:
        return {"given": self.given}

    def seek(self, position: Any, /) -> None:
        self.sought.append(position)
        self.given = position["given"]

    def commit(self, position: Any, /) -> None:
        assert not self.closed.is_set()
        self.commits.append(position["given"])

    @property
    def lag(self) -> int | None:
        return len(self.rows) - self.given + self.hidden if self.connected else None

    def close(self) -> None:
        self.closed.set()
        with self.changed:
            self.changed.notify_all()

    def take(self) -> Any:
        with self.changed:
            while True:
                if self.closed.is_set():
                    return None
                if self.connected and self.given < len(self.rows):
                    self.given += 1
                    return self.rows[self.given - 1]
                if self.ended:
                    return None
                self.changed.wait(PATIENCE)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.take()) is not None:
            yield row


class KeptBatches(Kept):
    """The same, whose rows are batches."""

    def batches(self) -> Iterator[Batch]:
        while (batch := self.take()) is not None:
            yield batch

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield from batch.rows()


class KeptAsync:
    """The same, read in an event loop."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def about(self) -> SourceInfo:
        return SourceInfo(endless=True)

    @property
    def position(self) -> Any:
        return self.kept.position

    def seek(self, position: Any, /) -> None:
        self.kept.seek(position)

    def commit(self, position: Any, /) -> None:
        self.kept.commit(position)

    @property
    def lag(self) -> int | None:
        return self.kept.lag

    async def __aiter__(self) -> AsyncIterator[Any]:
        kept = self.kept
        while True:
            with kept.changed:
                given = kept.given < len(kept.rows)
                kept.given += given
                row = kept.rows[kept.given - 1] if given else None
                ended = kept.ended
            if row is not None:
                yield row
            elif ended:
                return
            else:
                await asyncio.sleep(0.001)
