"""What becomes of the rows of a source: each is stored, or counted under the reason why not."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from run_task.errors import ConfigError, described
from run_task.observe._format import brief, seconds
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.runner._stats import SourceStats
from run_task.sources._faults import OnFault
from run_task.time._length import length

_log = Log(__name__)


class Fate(enum.Enum):
    """Why a row is not stored."""

    MALFORMED = "malformed"
    """No row could be made of what the source gave."""

    REJECTED = "rejected"
    """An ``ingest`` raised, or the data refused it."""

    AHEAD = "ahead"
    """It is stamped too long after the present."""

    DUPLICATE = "duplicate"
    """It had come before."""

    EXPIRED = "expired"
    """It was older than what is retained when it came."""


_ALWAYS: Final = float("inf")

_BAD: Final = (Fate.MALFORMED, Fate.REJECTED)


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """What was said of a source when it was declared.

    :param name: what it is called
    :param on_bad_row: what to do with a row that is malformed or rejected
    :param max_ahead_ns: how long after the present a row may be stamped, in nanoseconds
    """

    name: str
    on_bad_row: OnFault = OnFault.SKIP
    max_ahead_ns: float = _ALWAYS

    @classmethod
    def checked(
        cls,
        where: str,
        name: object,
        taken: Collection[str],
        on_bad_row: object,
        max_ahead: object,
    ) -> SourcePolicy:
        """A policy, if it can be one.

        :param where: the source, for messages
        :param taken: the names of other sources
        :raises ConfigError: if something about it cannot work
        """
        if type(name) is not str or not name:
            raise ConfigError(
                f"{where}: name={name!r}: a source's name is a text that is not empty"
            )
        if name in taken:
            raise ConfigError(
                f"{where}: two sources are called {name!r}: give one of them another name=, since "
                f"what becomes of their rows is counted by name"
            )
        if not isinstance(on_bad_row, OnFault):
            raise ConfigError(
                f"{where}: on_bad_row={on_bad_row!r}: it is OnFault.SKIP or OnFault.RAISE, of "
                f"run_task.sources"
            )
        ahead_ns = _ALWAYS
        if max_ahead is not None:
            ahead_ns = length(max_ahead, f"{where}: max_ahead={{}}").nanos
        return cls(name, on_bad_row, ahead_ns)


class Tally:
    """What one thread counts of the rows of a source. No other thread writes to it, so it needs no
    lock: rows are counted as received before they are stored."""

    __slots__ = ("late", "received", "stored")

    def __init__(self) -> None:
        self.received: int = 0
        self.stored: int = 0
        self.late: int = 0


class Fates:
    """Counts what becomes of the rows of a source, on their way into one target, in one run.

    :param policy: what was said of the source
    :param source: the source, for messages
    """

    def __init__(self, policy: SourcePolicy, source: object) -> None:
        self.policy: Final = policy
        self._source = source
        self._tallies: list[Tally] = []
        self._refused = {fate: Recurrence() for fate in Fate}
        self._untold: dict[Fate, tuple[object, str]] = {}  # the last row that was not logged

    def tally(self) -> Tally:
        """One more thread that counts."""
        tally = Tally()
        self._tallies.append(tally)
        return tally

    def refuse(self, fate: Fate, row: object, error: BaseException) -> None:
        """A row is not stored, for what was raised.

        :param fate: why
        :param row: the row, as the source gave it
        :param error: what was raised
        :raises Exception: the same, if the source was declared so
        """
        self.count(fate, row, described(error))
        if fate in _BAD and self.policy.on_bad_row is OnFault.RAISE:
            raise error

    def count(self, fate: Fate, row: object, detail: str, times: int = 1) -> None:
        """A row is not stored, or several are not.

        :param fate: why
        :param row: the row; of several, the last
        :param detail: more about the reason
        :param times: how many rows
        """
        since = self._refused[fate].happen(times)
        if since:
            self._tell(fate, since, row, detail)
        else:
            self._untold[fate] = row, detail

    def refuse_ahead(self, row: tuple[int, Any], ahead_ns: float, times: int = 1) -> None:
        """A row is stamped too long after the present, or several are.

        :param row: the row; of several, the last
        :param ahead_ns: by how much it is ahead
        :param times: how many rows
        """
        allowed = seconds(self.policy.max_ahead_ns / 1e9)
        detail = (
            f"it is stamped {seconds(ahead_ns / 1e9)} after the present, and max_ahead={allowed}"
        )
        self.count(Fate.AHEAD, row, detail, times)

    def log_rest(self) -> None:
        """Log what is in no record yet. At the end of a run."""
        for fate, refused in self._refused.items():
            last = self._untold.pop(fate, None)
            if last is not None and (since := refused.rest()):
                self._tell(fate, since, *last)

    def _tell(self, fate: Fate, since: int, row: object, detail: str) -> None:
        total = self._refused[fate].count
        if total == since == 1:
            told = f"a row is {fate.value}"
        else:
            told = f"{since:,} more rows are {fate.value}, {total:,} by now; the last"
            if total == since:
                told = f"{since:,} rows are {fate.value}; the last"
        where = f"source {self.policy.name!r}, {brief(self._source)}"
        _log.warning("%s: %s: %s: %s", *(where, told, brief(row), detail))

    def stats(self) -> SourceStats:
        """The counts up to now, which add up. At any time, from any thread."""
        # What is counted last is read first: so none is more than those before it.
        late = sum(tally.late for tally in self._tallies)
        counts = {fate.value: refused.count for fate, refused in self._refused.items()}
        stored = sum(tally.stored for tally in self._tallies)
        received = sum(tally.received for tally in self._tallies)
        waiting = received - stored - sum(counts.values())
        return SourceStats(received=received, stored=stored, waiting=waiting, late=late, **counts)
