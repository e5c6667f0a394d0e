"""What OpenTelemetry is told of the rows of sources and of the results for sinks, in a program that
has set it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Final, TypeAlias

from run_task.observe._log import Log
from run_task.pipeline._fates import Fates
from run_task.runner._stats import SinkStats, SourceStats
from run_task.runner._telemetry import meter_if_set_up

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter

_log = Log(__name__)

SinkCounts: TypeAlias = Callable[[], Mapping[str, SinkStats]]

_NOTHING: Final = SinkStats()


class RowTelemetry:
    """Tells how many rows each source has given, and what has become of them, and of the results
    for each sink, since it was last told.

    :param pipeline: the pipeline's name
    :param fates: counts what becomes of the rows of each source
    :param meter: who takes counts
    :param sinks: gives what has become of the results for each sink; None: it is a replay, which
        tells of rows alone
    """

    def __init__(
        self, pipeline: str, fates: Sequence[Fates], meter: Meter, sinks: SinkCounts | None
    ) -> None:
        self._pipeline = pipeline
        self._fates = fates
        self._sinks = sinks
        self._told_of_sinks: Mapping[str, SinkStats] = {}
        self._told = [SourceStats() for _ in fates]
        self._counters = {
            field.name: meter.create_counter(
                f"run_task.rows.{field.name}", "{row}", f"Rows of a source that are {field.name}"
            )
            for field in fields(SourceStats)
            if field.name != "waiting"  # which is no count of what has been
        }
        self._of_results = {
            field.name: meter.create_counter(
                f"run_task.sink.{field.name}", "{result}", f"Results for a sink: {field.name}"
            )
            for field in fields(SinkStats)
            if field.name not in ("waiting", "spooled")
        }
        self._broken = False

    @classmethod
    def if_set_up(
        cls, pipeline: str, fates: Sequence[Fates], sinks: SinkCounts | None = None
    ) -> RowTelemetry | None:
        """None where the program has no OpenTelemetry, or has not set it up."""
        meter = meter_if_set_up()
        return None if meter is None else cls(pipeline, fates, meter, sinks)

    def add(self, fates: Sequence[Fates]) -> None:
        """Tell of more sources."""
        self._told += [SourceStats() for _ in fates]
        self._fates = [*self._fates, *fates]

    def tell(self) -> None:
        """Tell of what has been since."""
        if self._broken:
            return
        try:
            for number, fates in enumerate(self._fates):
                before, now = self._told[number], fates.stats()
                self._told[number] = now
                about: dict[str, str | bool] = {
                    "run_task.pipeline": self._pipeline,
                    "run_task.source": fates.policy.name,
                }
                if self._sinks is None:
                    about["run_task.replay"] = True
                _add(self._counters, before, now, about)
            if self._sinks is not None:
                told, self._told_of_sinks = self._told_of_sinks, self._sinks()
                for name, of_sink in self._told_of_sinks.items():
                    about = {"run_task.pipeline": self._pipeline, "run_task.sink": name}
                    _add(self._of_results, told.get(name, _NOTHING), of_sink, about)
        except Exception as error:  # of the metrics library
            self._broken = True
            _log.error("%s: OpenTelemetry gets nothing more of rows: %r", self._pipeline, error)


def _add(
    counters: Mapping[str, Counter],
    before: object,
    now: object,
    about: Mapping[str, str | bool],
) -> None:
    for name, counter in counters.items():
        if (more := getattr(now, name) - getattr(before, name)) > 0:
            counter.add(more, about)
