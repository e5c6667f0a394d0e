"""Late rows: how they are moved to their place while others read.

The rows after that place have to move up. A writer may do that in place only if no reader looks
at them, and readers take no lock and never wait. So a writer that wants to move rows says so first,
by publishing a :class:`Shift`, and looks for leases after; a reader takes its lease first, and
looks for what is published after. One of the two sees the other:

- the writer sees a lease over rows that would move: it leaves them alone, and makes a copy;
- the reader sees the Shift. If nothing has been decided, it decides that the rows stay, and has
  them. If it was decided that they move, it writes them to their new places itself, just as the
  writer does. Both write the same, so it does not matter who is first, or whether both do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.data.series._store import Store

Snapshot: TypeAlias = "tuple[Store, int, int, object, Shift | None]"
"""What a series publishes: its store, the first row and the one after the last, the era, which
changes when rows move, and the Shift that is under way, if one is."""

_STAY: Final = "stay"
_MOVE: Final = "move"


class Shift:
    """Rows of a store that are about to move up, to make place for late ones.

    :param start: the first row that changes
    :param arrays: the timestamps and columns of all rows from there on, as they will be
    :param after: the snapshot that will be published when it is done
    """

    __slots__ = ("_decision", "after", "arrays", "start")

    def __init__(self, start: int, arrays: Sequence[Array], after: Snapshot) -> None:
        self.start: int = start
        self.arrays: Sequence[Array] = arrays
        self.after: Snapshot = after
        self._decision: dict[str, Any] = {}

    def may_move(self) -> bool:
        """The writer asks: can the rows move? The first to ask decides."""
        store = self.after[0]
        decision = _STAY if store.covered() > self.start else _MOVE
        return self._decision.setdefault("", decision) is _MOVE

    def moves(self) -> bool:
        """A reader asks: do they move? If that is open, they stay."""
        return self._decision.setdefault("", _STAY) is _MOVE

    def move(self) -> None:
        """Write the rows to where they will be."""
        self.after[0].write(self.start, self.arrays)


def merge(rows: Sequence[Array], batch: Sequence[Array]) -> tuple[list[Array], NDArray[np.intp]]:
    """Put the rows of a sorted batch among others, each after those of its own timestamp.

    :param rows: the timestamps and columns of rows in the order of time
    :param batch: the same of those that come in between
    :return: the timestamps and columns of all, and which of them are the batch's
    """
    count = len(batch[0])
    positions = np.searchsorted(rows[0], batch[0], side="right") + np.arange(count)
    others = np.ones(len(rows[0]) + count, np.bool_)
    others[positions] = False
    whole: list[Array] = []
    for old, new in zip(rows, batch):
        array = np.empty(len(others), old.dtype)
        array[positions] = new
        array[others] = old
        whole.append(array)
    return whole, positions
