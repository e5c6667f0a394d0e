"""Results that a sink or data does not get: each is counted and logged, and costs no more than
itself."""

from __future__ import annotations

import enum
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from run_task.errors import described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.pipeline._dead_letters import DeadLetter, DeadLetters
from run_task.sinks._protocol import Result

_log = Log(__name__)


class Omission(enum.Enum):
    """Why a sink, or data, does not get a result."""

    REFUSED = "refused"
    """It cannot store it."""

    DROPPED = "dropped"
    """It was away for longer than anybody waits for it, or than there was room for."""

    LOST = "lost"
    """It failed, or the run ended, before it came to that."""

    REJECTED = "rejected"
    """The ``ingest`` raised by which it was to enter data, or these could not hold it."""


_FIRST: Final = {
    Omission.REFUSED: "%s cannot store what stage %r gave for [%d, %d), and leaves it out: %s",
    Omission.DROPPED: "%s does not get what stage %r gave for [%d, %d), which is dropped: %s",
    Omission.REJECTED: "%s does not get what stage %r gave for [%d, %d), which cannot enter: %s",
}

_MORE: Final = {
    Omission.REFUSED: "%s left out %d more result%s, the last of stage %r for [%d, %d): %s",
    Omission.DROPPED: (
        "%s: %d more result%s dropped, the last of what stage %r gave for [%d, %d): %s"
    ),
    Omission.REJECTED: (
        "%s: %d more result%s rejected, the last of what stage %r gave for [%d, %d): %s"
    ),
}


@dataclass
class _Count:
    """The results of a stage that a sink, or data, did not get for one reason.

    :param target: the sink or data, kept so that its id stays its own
    """

    target: Any
    why: Omission
    happened: Recurrence = field(default_factory=Recurrence)
    last: Result | None = None
    detail: str = ""


class Refusals:
    """Counts the results that sinks and data do not get.

    The first that one does not get of a stage is logged at once, further ones once a minute,
    with their number. From any thread.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str, Omission], _Count] = {}
        self._letters: dict[int, DeadLetters] = {}  # those that nobody else begins and ends
        self._mutex = threading.Lock()

    def count(self, why: Omission) -> int:
        """How many results were not got for a reason, all together."""
        with self._mutex:
            counts = [count for count in self._counts.values() if count.why is why]
            return sum(count.happened.count for count in counts)

    def note(
        self,
        why: Omission,
        target: Any,
        results: Sequence[Result],
        detail: str,
        letters: DeadLetters | None,
    ) -> None:
        """A sink, or data, does not get some results.

        :param why: the reason
        :param target: the sink or data
        :param detail: more about it, in words
        :param letters: where they go instead
        """
        if letters is not None and why is Omission.REJECTED:
            self._begin(letters)
        for result in results:
            if letters is not None:
                letters.take(DeadLetter(result, why.value, detail))
            if why is Omission.LOST:
                continue  # what failed is raised, and says how many
            with self._mutex:
                key = (id(target), result.stage, why)
                count = self._counts.setdefault(key, _Count(target, why))
                count.last, count.detail = result, detail
                since = count.happened.happen()
                record = self._record(count, since) if since else None
            if record is not None:
                _log.warning(*record)

    def _begin(self, letters: DeadLetters) -> None:
        """Have letters begin that are not a sink's, and end with the run."""
        with self._mutex:
            if id(letters) in self._letters:
                return
            self._letters[id(letters)] = letters
        try:
            letters.begin()
        except Exception as error:
            _log.warning("%r: dead letters cannot be delivered: %s", letters, described(error))

    def log_rest(self) -> None:
        """Log the results that are in no record yet. At the end of a run."""
        with self._mutex:
            letters, self._letters = self._letters, {}
        for one in letters.values():
            one.flush()
            one.close()
        with self._mutex:
            untold = [(count, count.happened.rest()) for count in self._counts.values()]
            records = [self._record(count, since) for count, since in untold if since]
        for record in records:
            _log.warning(*record)

    def _record(self, count: _Count, since: int) -> tuple[object, ...]:
        result = count.last
        assert result is not None
        where = (brief(count.target), result.stage, *result.window, count.detail)
        if count.happened.count == 1:
            return (_FIRST[count.why], *where)
        return (_MORE[count.why], where[0], since, "" if since == 1 else "s", *where[1:])
