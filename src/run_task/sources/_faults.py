"""Malformed rows and failed polls: counted, logged, and left out or fatal."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Final

from run_task.errors import SourceError
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


_listener: ContextVar[Callable[[SourceError], object] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def faults_told_to(listener: Callable[[SourceError], object]) -> Generator[None]:
    """A block in which sources tell of each fault to who reads them, and do not log it.

    :param listener: called in the thread that reads
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Faults:
    """Counts faults, logs them or tells of them, and raises them if they are fatal.

    :param on_fault: what to do with one
    :param most: which share of the rows of a batch may be malformed, at most
    """

    __slots__ = ("_most", "count", "on_fault")

    def __init__(self, on_fault: OnFault, most: float = 1.0) -> None:
        self.on_fault: OnFault = on_fault
        self.count: int = 0
        self._most = most

    def note(self, error: SourceError) -> None:
        """Take note of one fault.

        :raises SourceError: the same, if faults are fatal
        """
        self.count += 1
        self._tell(error)
        if self.on_fault is OnFault.RAISE:
            raise error

    def judge(self, rows: int, malformed: Sequence[SourceError]) -> None:
        """Refuse a batch of which too much is malformed, before anything of it is given.

        :param rows: how many rows it has, those that are malformed included
        :param malformed: what is wrong with them, in their order
        :raises SourceError: if it is refused; all that is malformed is counted and told to who
            listens, and the first is logged
        """
        bad = len(malformed)
        if rows < TELLING_ROWS or bad <= self._most * rows or self.on_fault is OnFault.RAISE:
            return
        self.count += bad
        first = malformed[0]
        for error in malformed if _listener.get() is not None else (first,):
            self._tell(error)
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

    def _tell(self, error: SourceError) -> None:
        listener = _listener.get()
        if listener is None:
            _log.warning("%s", error)
        else:
            listener(error)
