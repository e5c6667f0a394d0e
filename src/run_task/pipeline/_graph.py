"""How stages hang together: who is fed by whom, and in which order they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._stage import Stage
from run_task.runner._config import RunnerConfig
from run_task.time._interval import TimeUnit

AnyStage: TypeAlias = Stage[Any, Any]


def upstreams(stages: Sequence[AnyStage]) -> Mapping[AnyStage, Sequence[AnyStage]]:
    """Each stage, and those whose results enter its data. Those that are fed come after.

    :param stages: the stages
    :raises ConfigError: if a stage is fed by its own results, by whatever way round
    """
    fed_by = {
        stage: [
            other for other in stages if any(route.leads_to(stage.data) for route in other.routes)
        ]
        for stage in stages
    }
    try:
        order = tuple(TopologicalSorter(fed_by).static_order())
    except CycleError as error:
        drawn = " -> ".join(repr(stage.name) for stage in error.args[1])
        raise ConfigError(
            f"these stages would wait for each other for ever: {drawn}: let one of them write to "
            f"other data"
        ) from None
    return {stage: fed_by[stage] for stage in order}


def configs(fed_by: Mapping[AnyStage, Sequence[AnyStage]]) -> Mapping[AnyStage, RunnerConfig]:
    """How each stage's runner behaves. Its grace is no shorter than that of who feeds it, whose
    results are not there before."""
    found: dict[AnyStage, RunnerConfig] = {}
    for stage, feeding in fed_by.items():
        graces = [found[other].grace for other in feeding]
        grace = max((g for g in (*graces, stage.config.grace) if g is not None), default=None)
        found[stage] = replace(stage.config, name=stage.name, grace=grace)
    return found


def unit_of(
    source: object, into: object, given: TimeUnit | None, readers: Sequence[AnyStage]
) -> TimeUnit | None:
    """The unit of a source's timestamps: what it says, what its data says, or who reads that; None
    if nobody says.

    :raises ConfigError: if they differ
    """
    said = {
        "unit=": given,
        "the source": getattr(source, "unit", None),
        "the data": getattr(into, "unit", None),
    }
    units = {who: unit for who, unit in said.items() if isinstance(unit, TimeUnit)}
    cure = "make them the same"
    if not units:
        units = {f"stage {stage.name!r}": stage.interval.unit for stage in readers}
        cure = "say by unit= what they are in"
    if len(set(units.values())) > 1:
        told = ", ".join(f"{who} is in {unit.name.lower()}" for who, unit in units.items())
        raise ConfigError(
            f"source {brief(source)} into {brief(into)}: timestamps have one unit, but {told}: "
            f"{cure}"
        )
    return next(iter(units.values()), None)
