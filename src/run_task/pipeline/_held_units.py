"""Whether what a sink holds of stages is told in the units that these have now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._stage import AnyStage
from run_task.time._interval import TimeUnit


def begin(sink: Any, pipeline: str, stages: Iterable[AnyStage]) -> None:
    """Tell a durable sink whose results come now.

    :param sink: the sink; if it has a method ``unit(stage)``, it tells in which unit it holds a
        stage's windows
    :param stages: those of the pipeline
    :raises ConfigError: if the sink holds no results of such a pipeline, or a stage's windows in
        another unit: the numbers would be taken for times that they are not
    """
    sink.begin(pipeline)
    unit: Any = getattr(sink, "unit", None)
    if not callable(unit):
        return
    for stage in stages:
        if sink not in stage.sinks:
            continue
        held: Any = unit(stage.name)
        if isinstance(held, TimeUnit) and held is not stage.interval.unit:
            its, now = held.name.lower(), stage.interval.unit.name.lower()
            raise ConfigError(
                f"stage {stage.name!r}: its windows are in {now}, and {brief(sink)} holds those of "
                f"an earlier run in {its}: take the unit of then, give the stage another name, or "
                f"take another sink"
            )
