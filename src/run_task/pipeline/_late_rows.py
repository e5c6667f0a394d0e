"""Rows that would come too late for the window that they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._stage import AnyStage
from run_task.runner._config import RunnerConfig
from run_task.sources._protocol import about

_log = Log(__name__)


def warn_of_late_rows(
    stages: Mapping[AnyStage, RunnerConfig], sources: Sequence[RoutedSource]
) -> None:
    """Warn of rows that come too late for the window that they end, as all do that are stamped with
    the time at which they come."""
    for source, _, route in sources:
        if not route.holds_end or about(source).playback is not None:
            continue
        for stage, config in stages.items():
            if any(map(route.leads_to, stage.inputs)) and not config.grace_ns:
                _log.warning(
                    "stage %r has no grace, and reads %s, which is closed on the right: a row of "
                    "%s that is stamped with the end of a window has to be there by then to be in "
                    "it; give RunnerConfig(grace=...), for how long to wait for it",
                    *(stage.name, brief(route.into), brief(source)),
                )
