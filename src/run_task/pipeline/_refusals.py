"""Results that a sink cannot store: each is counted and logged, and costs no more than itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from run_task.errors import SinkError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sinks._protocol import Result, Sink

_log = Log(__name__)


@dataclass
class _Count:
    """The results of a stage that a sink has refused.

    :param sink: the sink, kept so that its id stays its own
    """

    sink: Sink
    refused: Recurrence = field(default_factory=Recurrence)
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
            return sum(count.refused.count for count in self._counts.values())

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
            count.last, count.reason = result, str(error)
            since = count.refused.happen()
            record = self._record(count, since) if since else None
        if record is not None:
            _log.warning(*record)

    def log_rest(self) -> None:
        """Log the results that are in no record yet. At the end of a run."""
        with self._mutex:
            untold = [(count, count.refused.rest()) for count in self._counts.values()]
            records = [self._record(count, since) for count, since in untold if since]
        for record in records:
            _log.warning(*record)

    def _record(self, count: _Count, since: int) -> tuple[object, ...]:
        result = count.last
        assert result is not None
        where = (brief(count.sink), result.stage, *result.window, count.reason)
        if count.refused.count == 1:
            return (
                "%s cannot store what stage %r gave for [%d, %d), and leaves it out: %s",
                *where,
            )
        return (
            "%s left out %d more result%s, the last of stage %r for [%d, %d): %s",
            *(where[0], since, "" if since == 1 else "s", *where[1:]),
        )
