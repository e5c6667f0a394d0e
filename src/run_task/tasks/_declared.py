"""Tasks that say what they compute, so that all of them are computed together: for any number of
windows and keys in one pass, as the engine has their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from run_task.tasks._task import I_contra, O_co, Runnable
from run_task.time._interval import TimeUnit

ColumnTypes: TypeAlias = Mapping[str, np.dtype[Any]]
"""What each column holds, as ``TimeSeriesView.columns`` has it: texts of any length are
``numpy.dtype(str)``."""


class Panes:
    """The disjoint pieces of which sliding windows are made: the rows between one place where some
    window begins or ends and the next.

    The partial results of a pane serve all windows that it is part of. After J. Li et al., "No
    pane, no gain: efficient evaluation of sliding-window aggregates over data streams", SIGMOD
    Record 34(1), 2005.

    :param numbers: the number of each pane on the grid of all windows there may be, whenever a run
        began; it ascends by 1
    :param starts: where its rows begin in ``Segments.time``
    :param ends: and where they end; a pane may have none
    :param first: for each segment, the position in ``numbers`` of its first pane
    :param last: and of the one after its last; equal: it has none
    :param fresh: which panes may have other rows than when the same plan computed last; None: all
    """

    __slots__ = ("ends", "first", "fresh", "last", "numbers", "starts")

    def __init__(
        self,
        *,
        numbers: NDArray[np.int64],
        starts: NDArray[np.intp],
        ends: NDArray[np.intp],
        first: NDArray[np.intp],
        last: NDArray[np.intp],
        fresh: NDArray[np.bool_] | None = None,
    ) -> None:
        self.numbers: Final = numbers
        self.starts: Final = starts
        self.ends: Final = ends
        self.first: Final = first
        self.last: Final = last
        self.fresh: Final = fresh


class Renumbered(NamedTuple):
    """How the numbers of keys were given out anew last."""

    times: int
    """How often they were."""

    slots: NDArray[np.intp]
    """The new number of each by the one before; -1: that key was gone. The order is the same."""


class KeyedPanes:
    """The panes of a window that slides, of all keys together, for a plan that keeps what it knows
    of them.

    Each key has a *slot*, a number from 0 on that stays the key's, so that what is known of many
    keys stands in arrays.

    :param rows: the rows of the window in the order of time, whatever their keys: a segment is a
        pane, and ``window_starts`` are the numbers of panes on the grid, which ascend by 1
    :param looks: who looks at the rows and gives out slots: what is known by another means nothing
    :param look: the number of this look; it ascends
    :param changed: for each pane, at which look its rows were last others than before
    :param slots: gives the slots of some of the rows, by the first and the one after the last
    :param slot_count: slots are less than this
    :param renumbered: how slots were given out anew
    :param places: the slot of the key of each segment; -1: it has no rows
    """

    __slots__ = (
        "changed",
        "look",
        "looks",
        "places",
        "renumbered",
        "rows",
        "slot_count",
        "slots",
    )

    def __init__(
        self,
        *,
        rows: Segments,
        looks: object,
        look: int,
        changed: NDArray[np.int64],
        slots: Callable[[int, int], NDArray[np.intp]],
        slot_count: int,
        renumbered: Renumbered,
        places: NDArray[np.intp],
    ) -> None:
        self.rows: Final = rows
        self.looks: Final = looks
        self.look: Final = look
        self.changed: Final = changed
        self.slots: Final = slots
        self.slot_count: Final = slot_count
        self.renumbered: Final = renumbered
        self.places: Final = places


class Segments:
    """The rows of any number of windows and keys, by column.

    Segment ``i``, which is one window or one key of a window, has the rows from ``starts[i]`` to
    before ``ends[i]``. It may have none; segments overlap where windows slide.

    :param times: gives the timestamps, ascending within a segment
    :param column: gives a column, one value for each timestamp; of texts of any length, their codes
    :param texts: gives what the codes of such a column stand for
    :param spans: gives where each segment begins, and where it ends
    :param window_starts: the start of the window of each, in ``unit``
    :param window_ends: its end, in ``unit``
    :param unit: the unit of timestamps
    :param panes: of what windows without keys are made that slide over a grid; None: they do not
    :param by_key: of what a window is made that slides over a grid, where each segment is a key;
        None: it is none. What goes by it needs no rows of segments, which are brought together once
        they are asked for
    """

    __slots__ = (
        "_column",
        "_columns",
        "_found_spans",
        "_spans",
        "_texts",
        "_time",
        "_times",
        "by_key",
        "panes",
        "unit",
        "window_ends",
        "window_starts",
    )

    def __init__(
        self,
        *,
        times: Callable[[], NDArray[np.int64]],
        column: Callable[[str], NDArray[Any]],
        texts: Callable[[str], Sequence[str]],
        spans: Callable[[], tuple[NDArray[np.intp], NDArray[np.intp]]],
        window_starts: NDArray[np.int64],
        window_ends: NDArray[np.int64],
        unit: TimeUnit,
        panes: Panes | None = None,
        by_key: KeyedPanes | None = None,
    ) -> None:
        self.window_starts: Final = window_starts
        self.window_ends: Final = window_ends
        self.unit: Final = unit
        self.panes: Final = panes
        self.by_key: Final = by_key
        self._spans = spans
        self._found_spans: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None
        self._times = times
        self._time: NDArray[np.int64] | None = None
        self._column = column
        self._texts = texts
        self._columns: dict[str, NDArray[Any]] = {}

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where each segment begins in :attr:`time`."""
        return (self._found_spans or self._find_spans())[0]

    @property
    def ends(self) -> NDArray[np.intp]:
        """Where each ends."""
        return (self._found_spans or self._find_spans())[1]

    def _find_spans(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        self._found_spans = found = self._spans()
        return found

    @property
    def time(self) -> NDArray[np.int64]:
        """The timestamps, ascending within a segment, in :attr:`unit`. They are asked for once."""
        found = self._time
        if found is None:
            found = self._time = self._times()
        return found

    def column(self, name: str) -> NDArray[Any]:
        """The values of a column in the order of ``time``; of texts of any length, their codes.

        It is asked for once, however many tasks read it.

        :param name: the column's name
        """
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = self._column(name)
        return found

    def texts(self, name: str) -> Sequence[str]:
        """What the codes of a column of texts stand for: the text of code ``i`` stands at ``i``.

        :param name: the column's name
        """
        return self._texts(name)

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self.window_starts)


class Failed:
    """In the place of the result of one segment: there is none, and why.

    :param error: what is the cause of the task's error for that window
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: Final = error

    def __repr__(self) -> str:
        return f"Failed({self.error!r})"


class Plan(Protocol):
    """How some declared tasks are computed together.

    It may keep the partial results of panes from one call to the next: it is one stage's, and is
    called by one thread at a time.
    """

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        """The results of each task, in the order in which tasks were planned: one for each segment.

        A result is a plain Python value, None for a segment without rows, or a :class:`Failed`. It
        is the same to the last bit whatever other segments and tasks are computed with it.

        :param segments: the rows
        """
        ...


@runtime_checkable
class Declared(Runnable[I_contra, O_co], Protocol[I_contra, O_co]):
    """A task that says what it computes, so that all such tasks of a stage are computed together
    where the stage runs, whatever its executor is."""

    @property
    def planner(self) -> Planner:
        """What makes a plan of it: tasks with an equal planner are planned together."""
        ...


@runtime_checkable
class Returning(Protocol):
    """A task whose results are of a type that its data decides, and no annotation can tell."""

    def result_type(self, columns: ColumnTypes, /) -> Any:
        """What it returns, as an annotation would say it, such as ``float | None``.

        :param columns: what each column of its series holds
        """
        ...


Planner: TypeAlias = Callable[[Sequence[Declared[Any, Any]], ColumnTypes], Plan]
"""Makes the plan of tasks over rows with these columns, when the stage is declared.

It raises ``ConfigError`` for a column that is not there or holds what the task cannot be computed
of."""
