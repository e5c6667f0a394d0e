"""What becomes of the rows of a source: each is stored, or counted under the reason why not."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

from run_task.errors import ConfigError, SourceError, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.pipeline._dead_letters import DeadLetter, DeadLetters
from run_task.pipeline._dedupe import Dedupe
from run_task.pipeline._likely_cause import (
    MALFORMED,
    UNSEEN,
    of_order,
    of_parts,
    of_times,
)
from run_task.runner._stats import SourceStats
from run_task.sources._faults import OnFault, StampedAhead, faults_told_to, told_ahead
from run_task.sources._protocol import Source, about
from run_task.time._interval import TaskInterval, unit_of_nanos
from run_task.time._length import length, plain_length
from run_task.time._shown import time_shown

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
    """It had entered before, as ``dedupe=`` tells rows apart."""

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
    :param dead_letters: where rows go that are not stored
    :param idle_ns: for how long windows wait for it while it is behind and does not change
    :param dedupe: by which values rows are told apart; None: two that are alike are two
    """

    name: str
    on_bad_row: OnFault = OnFault.SKIP
    max_ahead_ns: float = _ALWAYS
    dead_letters: DeadLetters | None = None
    idle_ns: int = 0
    dedupe: Dedupe | None = None

    @classmethod
    def checked(
        cls,
        where: str,
        name: object,
        taken: Collection[str],
        on_bad_row: object,
        max_ahead: object,
        dead_letters: object,
        pipeline: str,
        idle: object = "10s",
        dedupe: Dedupe | None = None,
    ) -> SourcePolicy:
        """A policy, if it can be one.

        :param where: the source, for messages
        :param taken: the names of other sources
        :param pipeline: the name of the pipeline
        :param dedupe: by which values rows are told apart
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
        letters = DeadLetters.checked(where, pipeline, name, dead_letters)
        idle_ns = plain_length(idle, f"{where}: idle={{}}").nanos
        return cls(name, on_bad_row, ahead_ns, letters, idle_ns, dedupe)

    def named(self, where: str, name: str, taken: Collection[str]) -> SourcePolicy:
        """The same for one of several targets, under a name of its own.

        :raises ConfigError: if the name is taken
        """
        if name in taken:
            raise ConfigError(
                f"{where}: another source is called {name!r}: give one of them another name=, "
                f"since what becomes of their rows is counted by name"
            )
        return replace(self, name=name)


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
    :param unit_ns: how many nanoseconds the unit of its timestamps has
    :param live: whether its rows come as they are made, and not from the past
    """

    def __init__(self, policy: SourcePolicy, source: object, unit_ns: int, *, live: bool) -> None:
        self.policy: Final = policy
        self._letters = policy.dead_letters
        self._source = source
        self._unit_ns = unit_ns
        self._live = live
        self.time_ns: Callable[[], int] = time.time_ns
        """The present, in nanoseconds since the Unix epoch."""
        self._unread = 0  # rows that the source itself found malformed
        self._late = Recurrence()
        self._last_late: int | None = None  # its timestamp
        self._backward = 0  # how many late rows were older than the late one before
        self._cause: dict[str, str | None] = {}  # the likely one, by what became of rows
        self._tallies: list[Tally] = []
        self.beside: Sequence[Fates] = ()
        """Those of the same source on its way into other data."""
        self._unseen: list[Callable[[], int]] = []
        self._uncounted: list[Callable[[], int]] = []
        self._refused = {fate: Recurrence() for fate in Fate}
        self._untold: dict[Fate, tuple[object, str]] = {}  # the last row that was not logged

    def count_stored(self, uncounted: Callable[[], int]) -> None:
        """Count rows as stored that no tally has yet.

        :param uncounted: how many these are by now
        """
        self._uncounted.append(uncounted)

    def count_unseen(self, counted: Callable[[], int]) -> None:
        """Have a function say how many rows have passed out before any window saw them."""
        self._unseen.append(counted)

    @property
    def wants_rows(self) -> bool:
        """Whether each row that is not stored is wanted by itself."""
        return self._letters is not None

    def begin(self) -> None:
        """The run begins."""
        if self._letters is not None:
            self._letters.begin()

    def close(self) -> None:
        """The run has ended, and nothing more comes."""
        if self._letters is not None:
            self._letters.close()

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

    def reading(self) -> AbstractContextManager[None]:
        """A block in which the source is read: what it finds malformed is counted, and fatal if it
        is to the source or was declared so."""
        return faults_told_to(self._leave_out, self.policy.on_bad_row)

    def _leave_out(self, error: SourceError) -> None:
        for fates in (self, *self.beside):
            fates._unread += 1
            fate = Fate.AHEAD if isinstance(error, StampedAhead) else Fate.MALFORMED
            fates.count(fate, None, str(error), given=error.given)

    def note_late(self, first: int, last: int, times: int = 1, backward: int = 0) -> None:
        """A row has come after a window was given that would have held it, or several have.

        :param first: its timestamp; of several, that of the first
        :param last: the same of the last
        :param times: how many rows
        :param backward: how many of several are older than the one before
        """
        self._backward += backward + (self._last_late is not None and first < self._last_late)
        self._last_late = last
        if since := self._late.happen(times):
            self._tell_late(since)

    def count(
        self, fate: Fate, row: object, detail: str, times: int = 1, *, given: object = None
    ) -> None:
        """A row is not stored, or several are not.

        :param fate: why
        :param row: the row; of several, the last
        :param detail: more about the reason
        :param times: how many rows
        :param given: what a source was given that could make no row of it, for dead letters alone
        """
        if self._letters is not None:
            self._letters.take(DeadLetter(given if row is None else row, fate.value, detail))
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
        self.count(Fate.AHEAD, row, told_ahead(ahead_ns, self.policy.max_ahead_ns), times)
        if Fate.AHEAD.value not in self._cause:
            stamp_ns = row[0] * self._unit_ns
            self._cause[Fate.AHEAD.value] = of_times(
                stamp_ns, stamp_ns - int(ahead_ns), self._unit_ns
            )

    def log_rest(self) -> None:
        """Log what is in no record yet. At the end of a run."""
        for fate, refused in self._refused.items():
            last = self._untold.pop(fate, None)
            if last is not None and (since := refused.rest()):
                self._tell(fate, since, *last)
        if since := self._late.rest():
            self._tell_late(since)
        for warning in self.warnings():
            _log.warning("%s", warning)
        if self._letters is not None:
            self._letters.flush()

    def warnings(self) -> Sequence[str]:
        """What most rows were that they should not be, and the likely cause."""
        found: list[str] = []
        counts = self.stats()
        for what in ("late", "unseen", *(fate.value for fate in Fate)):
            count = getattr(counts, what)
            if count * 2 <= counts.received:
                continue
            cause = self._likely_cause(what)
            told = "" if cause is None else f": the likely cause is {cause}"
            were = "was" if count == 1 else "were"
            rows = f"{count:,} of {counts.received:,} rows {were} {what}"
            found.append(f"{self._where()}: {rows}{told}")
        return found

    def _likely_cause(self, what: str) -> str | None:
        if what == "unseen":
            return UNSEEN
        if what == Fate.MALFORMED.value:
            return MALFORMED
        if what != "late" or self._last_late is None:
            return self._cause.get(what)
        if (parts := self._of_parts()) is not None:
            return parts
        if self._live:
            return of_times(self._last_late * self._unit_ns, self.time_ns(), self._unit_ns)
        return of_order(self._backward, self._late.count)

    def _of_parts(self) -> str | None:
        """What explains late rows of parts that are read one after another; live, only of what is
        played: or else all of a recording is late."""
        if self._live and about(self._source).playback is None:
            return None
        return of_parts(self._source, self._backward)

    def _tell_late(self, since: int) -> None:
        rows = "a row has" if since == 1 else f"{since:,} rows have"
        cause = self._of_parts()
        _log.warning(
            "%s: %s come late, %s by now, the last stamped %s: windows that would have held them "
            "were given before%s",
            *(self._where(), rows, f"{self._late.count:,}", self._shown_late()),
            "" if cause is None else f"; the likely cause is {cause}",
        )

    def _shown_late(self) -> str:
        unit = TaskInterval(1, unit_of_nanos(self._unit_ns))
        return "" if self._last_late is None else time_shown(self._last_late, unit)

    def _where(self) -> str:
        return f"source {self.policy.name!r}, {brief(self._source)}"

    def _tell(self, fate: Fate, since: int, row: object, detail: str) -> None:
        total = self._refused[fate].count
        if total == since == 1:
            told = f"a row is {fate.value}"
        else:
            more = "1 more row is" if since == 1 else f"{since:,} more rows are"
            told = f"{more} {fate.value}, {total:,} by now; the last"
            if total == since:
                told = f"{since:,} rows are {fate.value}; the last"
        shown = "" if row is None else f"{brief(row)}: "
        _log.warning("%s: %s: %s%s", *(self._where(), told, shown, detail))

    def stats(self) -> SourceStats:
        """The counts up to now, which add up. At any time, from any thread."""
        # What is counted last is read first: so none is more than those before it.
        late = sum(tally.late for tally in self._tallies)
        unseen = sum(counted() for counted in self._unseen)
        counts = {fate.value: refused.count for fate, refused in self._refused.items()}
        stored = sum(tally.stored for tally in self._tallies)
        stored += sum(uncounted() for uncounted in self._uncounted)
        received = sum(tally.received for tally in self._tallies) + self._unread
        waiting = received - stored - sum(counts.values())
        source = self._source
        return SourceStats(
            received=received,
            stored=stored,
            waiting=waiting,
            late=late,
            unseen=unseen,
            dropped=source.about().dropped if isinstance(source, Source) else 0,
            restarts=source.about().restarts if isinstance(source, Source) else 0,
            **counts,
        )
