"""Malformed rows and failed polls: counted, logged, and left out or fatal."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple

from run_task.errors import SourceError
from run_task.observe._format import seconds
from run_task.observe._log import Log

_log = Log(__name__)

MOST_MALFORMED: Final = 0.5
"""Which share of the rows of a batch may be malformed, unless somebody has said another."""

JUDGED_ROWS: Final = 1_000
"""How many rows of a stream are judged together."""

TELLING_ROWS: Final = 100
"""Of fewer rows, no share tells that something else is wrong than they."""


class OnFault(enum.Enum):
    """What a source does with a row that is malformed, or a poll that fails."""

    SKIP = "skip"
    """Count it, log it, leave it out, and go on."""

    RAISE = "raise"
    """Count it, log it, and raise a ``SourceError``, after all the rows before it."""


def told_ahead(ahead_ns: float, allowed_ns: float) -> str:
    """Why a row is not taken that is stamped too long after the present.

    :param ahead_ns: how long after, in nanoseconds
    :param allowed_ns: how long it may be
    """
    return (
        f"it is stamped {seconds(ahead_ns / 1e9)} after the present, and "
        f"max_ahead={seconds(allowed_ns / 1e9)}"
    )


class _Listener(NamedTuple):
    tell: Callable[[SourceError], object]
    on_bad_row: OnFault


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def faults_told_to(
    listener: Callable[[SourceError], object], on_bad_row: OnFault = OnFault.SKIP
) -> Generator[None]:
    """A block in which sources tell of each fault to who reads them, and do not log it.

    :param listener: called in the thread that reads
    :param on_bad_row: what who reads wants done with a row that is malformed: if it is fatal to
        them or to the source, it is
    """
    token = _listener.set(_Listener(listener, on_bad_row))
    try:
        yield
    finally:
        _listener.reset(token)


def tell_fault(error: SourceError) -> None:
    """Tell of a fault that was found elsewhere, to who reads, or else log it."""
    listener = _listener.get()
    if listener is None:
        _log.warning("%s", error)
    else:
        listener.tell(error)


class StampedAhead(SourceError):
    """A row is stamped too long after the present for its source to give it."""


class Faults:
    """Counts faults, logs them or tells of them, and raises them if they are fatal.

    :param on_fault: what to do with one
    :param most: which share of the rows of a batch may be malformed, at most
    """

    __slots__ = ("_most", "_on_fault", "count")

    def __init__(self, on_fault: OnFault, most: float = 1.0) -> None:
        self._on_fault: OnFault = on_fault
        self.count: int = 0
        self._most = most

    @property
    def are_fatal(self) -> bool:
        """Whether a row that is malformed ends the reading: to the source, or to who reads it."""
        listener = _listener.get()
        wanted = self._on_fault if listener is None else listener.on_bad_row
        return OnFault.RAISE in (self._on_fault, wanted)

    def note(self, error: SourceError) -> None:
        """Take note of a row that is malformed.

        :raises SourceError: the same, if that is fatal
        """
        self.count += 1
        tell_fault(error)
        if self.are_fatal:
            raise error

    def note_ahead(self, error: StampedAhead) -> None:
        """Take note of a row that is stamped too long after the present, which is no fault of its
        source."""
        tell_fault(error)

    def note_failure(self, error: SourceError) -> None:
        """Take note of a failure to get a row, of which only the source can say what it means.

        :raises SourceError: the same, if that is fatal to the source
        """
        self.count += 1
        tell_fault(error)
        if self._on_fault is OnFault.RAISE:
            raise error

    def judge(self, rows: int, malformed: Sequence[SourceError]) -> None:
        """Refuse a batch of which too much is malformed, before anything of it is given.

        :param rows: how many rows it has, those that are malformed included
        :param malformed: what is wrong with them, in their order
        :raises SourceError: if it is refused; all that is malformed is counted and told to who
            listens, and the first is logged
        """
        bad = len(malformed)
        if rows < TELLING_ROWS or bad <= self._most * rows or self.are_fatal:
            return
        self.count += bad
        first = malformed[0]
        for error in malformed if _listener.get() is not None else (first,):
            tell_fault(error)
        raise SourceError(
            first.source,
            first.line,
            first.column,
            f"{bad:,} of {rows:,} rows read here are malformed, more than "
            f"max_malformed={self._most:g} allows: is what was declared of the columns right? The "
            f"first: {first.reason}",
        )

    def judge_run(self, malformed: int, last: SourceError) -> None:
        """Refuse to read on in a stream of which too much is malformed.

        :param malformed: how many rows are malformed among those that are judged together
        :param last: what is wrong with the last of them
        :raises SourceError: if it is refused
        """
        if malformed > self._most * JUDGED_ROWS:
            raise SourceError(
                last.source,
                last.line,
                last.column,
                f"{malformed:,} of the last {JUDGED_ROWS:,} rows are malformed, more than "
                f"max_malformed={self._most:g} allows: is what was declared of the columns right? "
                f"The last: {last.reason}",
            )
