"""What OpenTelemetry is told of the rows of sources, in a program that has set it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from run_task.observe._log import Log
from run_task.pipeline._fates import Fates
from run_task.runner._stats import SourceStats
from run_task.runner._telemetry import meter_if_set_up

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_log = Log(__name__)


class RowTelemetry:
    """Tells how many rows each source has given, and what has become of them, since it was last
    told.

    :param pipeline: the pipeline's name
    :param fates: counts what becomes of the rows of each source
    :param meter: who takes counts
    :param live: whether it is a live run, and no replay
    """

    def __init__(self, pipeline: str, fates: Sequence[Fates], meter: Meter, *, live: bool) -> None:
        self._pipeline = pipeline
        self._fates = fates
        self._live = live
        self._told = [SourceStats() for _ in fates]
        self._counters = {
            field.name: meter.create_counter(
                f"run_task.rows.{field.name}", "{row}", f"Rows of a source that are {field.name}"
            )
            for field in fields(SourceStats)
            if field.name != "waiting"  # which is no count of what has been
        }
        self._broken = False

    @classmethod
    def if_set_up(cls, pipeline: str, fates: Sequence[Fates], *, live: bool) -> RowTelemetry | None:
        """None where the program has no OpenTelemetry, or has not set it up."""
        meter = meter_if_set_up()
        return None if meter is None else cls(pipeline, fates, meter, live=live)

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
                if not self._live:
                    about["run_task.replay"] = True
                for name, counter in self._counters.items():
                    if more := getattr(now, name) - getattr(before, name):
                        counter.add(more, about)
        except Exception as error:  # of the metrics library
            self._broken = True
            _log.error("%s: OpenTelemetry gets nothing more of rows: %r", self._pipeline, error)
