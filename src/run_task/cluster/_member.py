"""A shard of a run as its driver has it: its process, what it was told, and what it has done."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from run_task.cluster._feed import rows_in
from run_task.cluster._link import Link, ShardLost
from run_task.cluster._messages import SeriesChange, ShardReply, ShardResults
from run_task.cluster._windows import StageOnShards
from run_task.observe._log import Log
from run_task.runner._stats import ShardState, ShardStats

_log = Log(__name__)

_SLOW: Final = 5.0
"""After how many seconds it is told that a window takes long in which a shard writes to a sink."""

_SILENT: Final = 5.0
"""After how many seconds without a sign of life a shard is told of: they come every second."""


class AskedWindow(NamedTuple):
    """A window that a shard was asked for."""

    at: float
    """When, by the monotonic clock."""

    writes: str
    """What it writes by itself, for messages; empty: nothing."""


class ShardMember:
    """One of the shards of a run. It is changed under the lock of its cluster, but for its counts,
    which stages that run in threads of their own add to, and is looked at from any thread.

    :param pipeline: the pipeline's name
    :param number: which shard
    :param count: how many there are
    """

    def __init__(self, pipeline: str, number: int, count: int) -> None:
        self.number: Final = number
        self.called: Final = f"shard {number} of {count}"
        """What it is called where people read it, and in ``behind``."""
        self.link: Link | None = None
        """Its process; None: it is gone, or not started yet."""
        self.life = 0
        """How often it has been started."""
        self.gone_since = 0.0
        """In seconds of the monotonic clock, while there is no link."""
        self.failed_starts = 0
        """How often it could not be started again, since it went."""
        self.is_missed = False
        """Whether windows went without it, since it went."""
        self.why_away = ""
        """Why it is not back yet."""
        self.feeds: set[int] = set()
        """The feeds that it was told of."""
        self.dropped: list[int] = []
        """Those that it is to forget."""
        self.gone: list[int] = []
        """The stages that it is to forget."""
        self.reads: set[int] = set()
        """The partitions that it was told of."""
        self.asked: dict[int, AskedWindow] = {}
        """The windows that it was asked for and has not answered, by the number of the call."""
        self.seconds = 0.0
        """How long the last window took, there and back."""
        self._pipeline = pipeline
        self._why = ""  # it is gone
        self._silent = 0.0  # for how long it gave no sign of life, once that was told
        self._silence = ""  # the same in words, with what becomes of it
        self._slow: int | None = None  # the call of which was told that it takes long
        self._mutex = threading.Lock()  # of what is counted
        self._windows = self._rows = self._results = 0
        self._keys: dict[int, int] = {}  # of the last window, by stage
        self._known_keys: dict[int, int] = {}  # that replies refer to

    @property
    def why_gone(self) -> str:
        """Why it is gone, and why it is not back yet."""
        return self._why + self.why_away

    def lose(self, why: ShardLost) -> Link:
        """It is gone, and what it was told with it. Returns what its process was."""
        link = self.link
        assert link is not None
        self.link = None
        self.gone_since = time.monotonic()
        self._why, self.why_away = f"on {link.place.node}: {why}", ""
        self.failed_starts = 0
        self.is_missed = False
        self.asked.clear()
        self._forget()
        return link

    def begin_life(self) -> None:
        """There is another process, which was told nothing yet."""
        self.life += 1
        self._forget()

    def _forget(self) -> None:
        self.feeds, self.gone, self.dropped = set(), [], []
        self.reads = set()

    # What is counted

    def note_sent(self, changes: Collection[tuple[int, Sequence[SeriesChange]]]) -> None:
        """Count the rows among what it is told of feeds."""
        with self._mutex:
            self._rows += sum(rows_in(told) for _, told in changes)

    def note_given(self, stage: StageOnShards, replies: Sequence[ShardReply]) -> None:
        """Count what it has given for windows."""
        with self._mutex:
            for reply in replies:
                self._windows += 1
                keys = 0
                if isinstance(reply, ShardResults):
                    if reply.keys is not None:
                        self._known_keys[stage.number] = len(reply.keys)
                    keys = self._known_keys.get(stage.number, 0)
                    missing = sum(keys if place is None else 1 for _, place, _ in reply.faults)
                    self._results += keys * len(reply.columns) - missing
                self._keys[stage.number] = keys

    def forget(self, stage: StageOnShards) -> None:
        """A stage is not run any more."""
        with self._mutex:
            self._keys.pop(stage.number, None)
            self._known_keys.pop(stage.number, None)

    def stats(self, stages: Collection[StageOnShards], *, is_closed: bool) -> ShardStats:
        """How it has been doing. At any time, from any thread.

        :param stages: those that it runs
        :param is_closed: whether the cluster is closed
        """
        link, life, now = self.link, self.life, time.monotonic()
        waits = 0.0
        if is_closed:
            state = ShardState.ENDED
        elif link is not None:
            state = ShardState.RUNNING
            waits = now - min((one.at for one in list(self.asked.values())), default=now)
        elif not life:
            state = ShardState.STARTING
        else:
            state = ShardState.LOST if self.is_missed else ShardState.COMING_BACK
            waits = now - self.gone_since
        node, process = ("", 0) if link is None else link.place[:2]
        behind = sum(len(stage.missed(self.number)) for stage in stages)
        with self._mutex:
            return ShardStats(
                state=state,
                node=node,
                process=process,
                keys=max(self._keys.values(), default=0),
                rows=self._rows,
                windows=self._windows,
                results=self._results,
                restarts=max(0, life - 1),
                seconds=self.seconds,
                windows_behind=behind,
                seconds_behind=max(0.0, waits),
                reason=self.why_gone if link is None else self._silence,
            )

    # What is told of it

    def tell(self, text: str, *args: object, node: str = "") -> None:
        """Log what becomes of it; the first of what is filled in is what it is called."""
        link = self.link
        _log.warning(
            f"pipeline %r: {text}",
            *(self._pipeline, self.called, *args),
            extra={"shard": self.number, "node": node or (link and link.place.node) or None},
        )

    def look_at_writing(self) -> None:
        """Tell if a window in which it writes to a sink takes long, as where a table is locked: no
        window after it begins before."""
        asked = dict(self.asked)
        if self._slow is not None and self._slow not in asked:
            self._slow = None
            if self.link is not None:
                self.tell("%s is done with the window that took it long")
        if self._slow is not None or not asked:
            return
        number, first = min(asked.items(), key=lambda one: one[1].at)
        seconds = time.monotonic() - first.at
        if first.writes and seconds >= _SLOW:
            self._slow = number
            self.tell(
                "%s has been at a window for %.0f s, by its tasks or while it writes %s, and the "
                "stage waits for it: is it locked there?",
                *(seconds, first.writes),
            )

    def look_at_signs(self) -> None:
        """Tell if it gives no signs of life any more, long before it is taken for dead, and when it
        gives them again."""
        link = self.link
        if link is None:  # that is told where it goes
            self._silent, self._silence = 0.0, ""
            return
        seconds, then = link.missed_signs
        if seconds < _SILENT:
            before, self._silent, self._silence = self._silent, 0.0, ""
            if before:
                self.tell("%s gives signs of life again, after %.0f s without", before)
            return
        node, process = link.place[:2]
        since = datetime.fromtimestamp(time.time() - seconds, UTC)
        told = (
            f"no sign of life for {seconds:.0f} s, since {since:%H:%M:%S} UTC: its process "
            f"{process} was stopped or hangs, or a task holds Python's lock; it is {then}"
        )
        if not self._silent:
            self.tell("%s on %s has given %s", node, told)
        self._silent, self._silence = seconds, f"on {node}: {told}"
