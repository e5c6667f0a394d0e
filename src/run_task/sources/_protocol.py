"""What a source is: rows with the time of each, and what is known of them beforehand."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from run_task.data import TimeSeries
from run_task.sources._arrived import Arrived, Stamped
from run_task.time._clock import Clock
from run_task.time._interval import TimeUnit

R = TypeVar("R")

Rows: TypeAlias = Iterable[Stamped[R]] | AsyncIterable[Stamped[R]]
"""Anything that gives ``(timestamp, row)``, for ``for`` or for ``async for``: that is all that a
source has to be. In its place it may give :class:`Arrived`, which says when the row came, too.

The timestamp is an int since the Unix epoch, in a unit that the source and its reader agree on, an
aware datetime, or a ``numpy.datetime64``.
The row is anything; the ready-made sources give a mapping of column to value.

A source gives what there is, as it comes:

- **A gap** is just that: no rows. None are invented. A window in it sees no new rows.
- **A duplicate timestamp** is a second row. Both are given, in the order in which they stand.
- **A row out of order** is given where it stands, with its own timestamp. It is neither dropped
  nor moved: a ``TimeSeries`` puts it in its place, and a window that was computed before does not
  see it, unless its ``grace`` waited for it.
- **A malformed row** is not a row. The ready-made sources count it, and log it with its file and
  line; then they leave it out or raise a ``SourceError``, as they were told by :class:`OnFault`.

Besides, it may say more of itself by ``about()``, which makes it a :class:`Source`; offer
``batches()``, which makes it :class:`Batched`; and have a ``close()``, which is called from any
thread, and after which it gives no more rows.
"""


class Playback(Protocol):
    """A recording that is played at a pace, in a time of its own, as :func:`paced` plays it."""

    @property
    def speed(self) -> float:
        """How many seconds of the recording pass in a second."""
        ...

    @property
    def first_ns(self) -> int | None:
        """The time of its first row, in nanoseconds since the Unix epoch; None: it has none."""
        ...

    @property
    def next_ns(self) -> float:
        """When the next row comes, in nanoseconds since the Unix epoch: all rows before have been
        given, and the next was asked for. Infinity: there are no more."""
        ...

    def start(self, clock: Clock | None = None) -> Clock | None:
        """Let the time of the recording begin now.

        :param clock: that of another recording, played along with it; None: one of its own
        :return: the time of the recording; None if there is no row in it
        """
        ...

    def observe(self, next_row: Callable[[float], object], /) -> None:
        """Have a function called with the time of each next row.

        :param next_row: called by the thread that iterates, before it waits for a row, with the
            row's time in nanoseconds since the Unix epoch, as :attr:`next_ns` has it
        """
        ...


@runtime_checkable
class TellsRowTimes(Protocol):
    """A playback whose rows need not come at their own times."""

    @property
    def next_row_ns(self) -> float:
        """The time of the row that comes at :attr:`Playback.next_ns`: it may be another one."""
        ...


@runtime_checkable
class Arriving(Protocol):
    """A live source that says when its rows came, so that windows can wait for those before them:
    all that it gives are :class:`Arrived`, but for what is no row."""

    def begin(self, now: Callable[[], int], tell: Callable[[float], object], /) -> None:
        """Say by which clock rows come. Called once, before it is iterated over.

        :param now: the time, in nanoseconds since the Unix epoch, which does not go back
        :param tell: called with a time before which no further row comes, in nanoseconds since the
            Unix epoch: all that came before have been given, and the next was asked for
        :raises ConfigError: if it cannot be read
        """
        ...

    def settle(self, until_ns: int, /) -> None:
        """Have the rows given at once that have come by now; those that come from now on come at a
        time at the earliest, which is told when these have been given. From any thread.

        :param until_ns: the time, in nanoseconds since the Unix epoch, which has come
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a source says of itself.

    :param unit: the unit of its timestamps; None: it does not say
    :param endless: whether it has no end, and so no history that could be replayed
    :param once: whether it can be read only once, as an iterator
    :param last: the timestamp of its last row, where that is known without reading them all, so
        that a replay can show how far it is
    :param malformed: how many malformed rows there were so far; 0 also where it does not count
    :param recording: what it plays, which a replay reads in its place, all at once; None: it plays
        nothing
    :param playback: how the recording is played; None: nothing is
    :param dropped: how many rows it could not keep so far, as one that is full, and will not give
    :param restarts: how many times it was started again so far, after a failure
    """

    unit: TimeUnit | None = None
    endless: bool = False
    once: bool = False
    last: int | None = None
    malformed: int = 0
    recording: Iterable[Stamped[Any]] | None = None
    playback: Playback | None = None
    dropped: int = 0
    restarts: int = 0


@runtime_checkable
class Source(Protocol):
    """Rows that say what they are. Anything else that is :data:`Rows` will do, too."""

    def about(self) -> SourceInfo:
        """What is known of it now. Called from any thread, any number of times; it is to be quick,
        and to change nothing."""
        ...


@runtime_checkable
class AnyUnit(Protocol):
    """A source that can give its timestamps in any unit, and so in that of its rows' data."""

    def count_in(self, unit: TimeUnit, /) -> None:
        """Give them in this unit.

        :param unit: the unit
        :raises ConfigError: if it cannot
        """
        ...


@runtime_checkable
class Fitting(Protocol):
    """A source whose rows can be those of any series that has its columns."""

    def fitting(self, series: TimeSeries, /) -> Iterable[Stamped[Any]]:
        """The same source, whose rows are of the types that a series has.

        :param series: the series
        :raises ConfigError: if they cannot be
        """
        ...


@runtime_checkable
class TellsSenders(Protocol):
    """A source that tells who sends a row whether it is taken."""

    def refuse_ahead(self, ahead_ns: float, /) -> None:
        """Refuse rows that are stamped too long after the present.

        :param ahead_ns: how long that is, in nanoseconds
        """
        ...


_REPLACED: Final = {"unit": "unit", "endless": "endless", "last_timestamp": "last"}
"""Attributes by which sources described themselves before there was ``about()``."""


def about(source: object) -> SourceInfo:
    """What is known of any source: what it says, or else what its type shows.

    :param source: an iterable or async iterable of ``(timestamp, row)``
    """
    if isinstance(source, Source):
        return source.about()
    told = {_REPLACED[name]: getattr(source, name) for name in _attributes(source)}
    told.setdefault("last", _last_of(source))
    if not hasattr(source, "__iter__"):  # it is async
        told["endless"] = True
    told["once"] = hasattr(source, "__next__") or hasattr(source, "__anext__")
    return SourceInfo(**told)


def _attributes(source: object) -> list[str]:
    return [name for name in _REPLACED if hasattr(source, name)]


def warn_of_attributes(source: object) -> None:
    """Warn whoever calls the function that this is called from, if a source tells of itself by
    attributes: once, where it is declared, since a warning that points into this library is shown
    to nobody."""
    if isinstance(source, Source) or not (names := _attributes(source)):
        return
    cure = ", ".join(f"{_REPLACED[name]}=..." for name in names)
    warnings.warn(
        f"{type(source).__name__} has {', '.join(names)}: a source tells of itself by about(): "
        f"write def about(self): return SourceInfo({cure}), of run_task.sources",
        DeprecationWarning,
        stacklevel=3,
    )


def _last_of(source: object) -> int | None:
    """The timestamp of the last row, if that can be looked at."""
    if not isinstance(source, list | tuple):
        return None
    match cast("Sequence[Any]", source)[-1:]:
        case [(int(timestamp), _)] if type(timestamp) is int:
            return timestamp
        case [Arrived(timestamp=int(timestamp), arrival=int(arrival))]:
            return max(timestamp, arrival)
        case _:
            return None
