"""How far a source has been read, and how much of that has entered its data."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from run_task.pipeline._branches import Way
from run_task.pipeline._fates import Tally
from run_task.pipeline._ingest import ArrivedCursor, BatchCursor
from run_task.sources._arrived import Stamped
from run_task.sources._batch import Batch
from run_task.sources._positioned import UNKNOWN, Position, positioned


class RowInHand(NamedTuple):
    """A row that has not entered yet."""

    timestamp: int
    row: Any


class ReadProgress:
    """How far one thread has read a source, or one way of it.

    :param source: the source, as the thread has it
    :param tally: counts the rows that it is given

    :ivar hand: held by the thread while it has rows of the source in its hand, but neither while
        it asks for more nor while these wait for their turn. Who holds it finds each row that was
        given either in the data, or refused, or in :attr:`rest`
    """

    __slots__ = (
        "_before",
        "_behind",
        "_source",
        "_tally",
        "_tracked",
        "begun_at",
        "fed",
        "feeds",
        "hand",
        "rest",
        "tracks",
        "waiting",
    )

    def __init__(self, source: Any, tally: Tally) -> None:
        self.hand = threading.Lock()
        self.rest: RowInHand | Batch | BatchCursor | None = None
        """What waits for its turn of that which was given last."""
        self._source = source
        self._tracked: Any = source if isinstance(source, Way) else positioned(source)
        self.tracks: bool = self._tracked is not None
        """Whether the source is to be asked for its position, by :meth:`note`, after each item."""
        self.begun_at: int = 0
        """How many rows it had given when it began to be read, where it has no positions."""
        self.waiting: Sequence[Stamped[Any] | Batch] = ()
        """What had been given to an earlier run, and had not entered: it comes first."""
        self.fed: int = 0
        """How many of these have been taken in hand."""
        self.feeds: bool = False
        """Whether what is in hand had been given to an earlier run."""
        self._tally = tally
        self._before = self._behind = UNKNOWN

    def begin_at(self, position: Position, waiting: Sequence[Stamped[Any] | Batch]) -> None:
        """It goes on from a position of an earlier run.

        :param position: the position, or how many rows had been given
        :param waiting: what had been given, and had not entered
        """
        self.waiting = waiting
        self.feeds = bool(waiting)
        if isinstance(self._source, Way):
            if self._source.positioned is None:
                self.begun_at = position
            else:
                self._source.split.begin_at(position)
        elif self.tracks:
            self._before = self._behind = position
        else:
            self.begun_at = position

    def note_fed(self) -> None:
        """One of :attr:`waiting` is in hand."""
        item = self.waiting[self.fed]
        self.fed += 1
        self.note_again(len(item) if isinstance(item, Batch) else 1)

    def note_again(self, rows: int) -> None:
        """Rows are counted as received that an earlier run was given."""
        if not self.tracks:
            self.begun_at -= rows

    def note(self) -> None:
        """An item has been given. By the thread that has it in hand, where :attr:`tracks`."""
        self._before, self._behind = self._behind, self._tracked.position

    @property
    def given(self) -> Position:
        """Behind all that was given: of a source without positions, how many rows these were."""
        return self._behind if self.tracks else self.begun_at + self._tally.received

    @property
    def entered(self) -> Position:
        """Behind the last item that has entered whole, or the last row of several that say where
        each stands; ``UNKNOWN``: there is none."""
        if isinstance(self.rest, ArrivedCursor):
            return self.rest.position
        if self.tracks:
            return self._behind if self.rest is None else self._before
        return (
            self.begun_at
            + self._tally.received
            - sum(len(item) if isinstance(item, Batch) else 1 for item in self.rest_given)
        )

    @property
    def comes_again(self) -> bool:
        """Whether :attr:`rest` is what the source gives again behind :attr:`entered`."""
        return isinstance(self.rest, RowInHand | ArrivedCursor)

    @property
    def rest_given(self) -> Sequence[Stamped[Any] | Batch]:
        """What is in :attr:`rest`, as it was given."""
        rest = self.rest
        if rest is None:
            return ()
        if isinstance(rest, RowInHand):
            return [(rest.timestamp, rest.row)]
        return [rest.rest() if isinstance(rest, BatchCursor) else rest]
