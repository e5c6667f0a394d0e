"""Results that a sink cannot store: each is counted and logged, and costs no more than itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from run_task.errors import SinkError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sinks._protocol import Result, Sink

_log = Log(__name__)

_EVERY: Final = 60.0
"""How many seconds lie between two log records about the same sink and stage."""


@dataclass
class _Count:
    """How many results of a stage a sink has refused.

    :param sink: the sink, kept so that its id stays its own
    """

    sink: Sink
    refused: int = 0
    logged: int = 0
    """How many of them have been logged."""
    logged_at: float = 0.0
    """When the last of these was logged, by the monotonic clock."""
    last: Result | None = None
    reason: str = ""


class Refusals:
    """Writes results to sinks, and counts those that they refuse.

    The first that a sink refuses of a stage is logged at once, further ones once a minute, with
    their number. From any thread.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], _Count] = {}
        self._mutex = threading.Lock()

    @property
    def count(self) -> int:
        """How many results were refused, by all sinks together."""
        with self._mutex:
            return sum(count.refused for count in self._counts.values())

    def write(self, sink: Sink, result: Result) -> None:
        """Write a result to a sink, which may refuse it by a :class:`SinkError`.

        :raises Exception: whatever else the sink raises
        """
        try:
            sink.write(result)
        except SinkError as error:
            self._note(sink, result, error)

    def _note(self, sink: Sink, result: Result, error: SinkError) -> None:
        with self._mutex:
            count = self._counts.setdefault((id(sink), result.stage), _Count(sink))
            count.refused += 1
            count.last, count.reason = result, str(error)
            now = time.monotonic()
            due = count.logged == 0 or now - count.logged_at >= _EVERY
            record = self._record(count, now) if due else None
        if record is not None:
            _log.warning(*record)

    def log_rest(self) -> None:
        """Log the results that are in no record yet. At the end of a run."""
        now = time.monotonic()
        with self._mutex:
            untold = [count for count in self._counts.values() if count.logged < count.refused]
            records = [self._record(count, now) for count in untold]
        for record in records:
            _log.warning(*record)

    def _record(self, count: _Count, now: float) -> tuple[object, ...]:
        result = count.last
        assert result is not None
        since = count.refused - count.logged
        count.logged, count.logged_at = count.refused, now
        where = (brief(count.sink), result.stage, *result.window, count.reason)
        if count.refused == 1:
            return (
                "%s cannot store what stage %r gave for [%d, %d), and leaves it out: %s",
                *where,
            )
        return (
            "%s left out %d more result%s, the last of stage %r for [%d, %d): %s",
            *(where[0], since, "" if since == 1 else "s", *where[1:]),
        )
