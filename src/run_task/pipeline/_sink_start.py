"""What a sink is told before the first result, and whether it goes on from what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from run_task.data import TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._stage import AnyStage
from run_task.sinks._protocol import DurableSink, StageOutput, TypedSink
from run_task.tasks._result_type import returned_by
from run_task.tasks._task import Runnable, TaskVersion, version_of
from run_task.time._interval import TimeUnit

_log = Log(__name__)

_MIXED: Final = "recomputed in part: "
"""How the version begins of results of which some are of one version, and some of another."""


def begin(sinks: Iterable[Any], pipeline: str, stages: Sequence[AnyStage]) -> None:
    """Tell sinks whose results come now, and what those stages say that write to them.

    :param sinks: the sinks; one that has a method ``unit(stage)`` tells in which unit it holds a
        stage's windows, and ``other_versions(stage, versions)`` and ``keep_versions(stage,
        versions)`` are of one that knows of which versions of tasks its results are
    :param stages: those of the pipeline
    :raises ConfigError: if one holds no results of such a pipeline or such a stage, or a stage's
        windows in another unit, since the numbers would be taken for times that they are not, or
        results of another version of a task
    """
    begun = list(sinks)
    for sink in begun:
        if isinstance(sink, DurableSink):
            sink.begin(pipeline)
            _check_units(sink, stages)
    _declare(pipeline, [(sink, s, s.tasks) for sink in begun for s in stages if sink in s.sinks])


def declare(pipeline: str, stage: AnyStage, tasks: Sequence[Runnable[Any, Any]]) -> None:
    """Tell the sinks of a stage which tasks it has from now on.

    :raises ConfigError: if a sink holds no such results, or those of another version of a task
    """
    _declare(pipeline, [(sink, stage, tasks) for sink in stage.sinks])


def _declare(
    pipeline: str, outputs: Sequence[tuple[Any, AnyStage, Sequence[Runnable[Any, Any]]]]
) -> None:
    """Tell sinks what stages give, once all of them have agreed to the versions of the tasks."""
    versioned: list[tuple[Callable[..., object], str, Mapping[str, TaskVersion | None]]] = []
    for sink, stage, tasks in outputs:
        others: Any = getattr(sink, "other_versions", None)
        keep: Any = getattr(sink, "keep_versions", None)
        if callable(others) and callable(keep):
            versions = {task.name: version_of(task) for task in tasks}
            found: Any = others(stage.name, versions)
            _check_versions(sink, stage.name, versions, found)
            versioned.append((keep, stage.name, versions))
    for sink, stage, tasks in outputs:
        if isinstance(sink, TypedSink):
            sink.declare(output_of(pipeline, stage, tasks))
    for keep_versions, name, of_tasks in versioned:
        keep_versions(name, of_tasks)


class Renewal:
    """Of which versions the tasks of a stage are whose results a sink holds, while some of these
    are computed again, perhaps by tasks of other versions.

    Until that is done, there are results of both, which a run does not go on from.

    :param stage: the name of the stage
    :param versions: those of the tasks now
    :param held: those of the results that are there, where they are others
    :param keep: has the sink tell other versions from now on
    """

    def __init__(
        self,
        stage: str,
        versions: Mapping[str, TaskVersion | None],
        held: Mapping[str, TaskVersion | None],
        keep: Callable[[str, Mapping[str, TaskVersion | None]], object],
    ) -> None:
        self._stage = stage
        self._versions = versions
        self._held = held
        self._keep = keep

    def begin(self) -> None:
        """Before the first result."""
        mixed = {
            task: before if _is_mixed(before) else f"{_MIXED}{before!r}, {self._versions[task]!r}"
            for task, before in self._held.items()
        }
        self._keep(self._stage, {**self._versions, **mixed})

    def end(self) -> None:
        """All results are there."""
        self._keep(self._stage, self._versions)
        for task, before in self._held.items():
            of = "of several versions" if _is_mixed(before) else f"that of version {before!r}"
            _log.warning(
                "stage %r: task %r is of version %r now: what was not computed again stays "
                "%s, and counts as its own",
                *(self._stage, task, self._versions[task], of),
            )


def begin_again(sinks: Sequence[Any], pipeline: str, stage: AnyStage) -> Sequence[Renewal]:
    """Tell sinks that windows are going to be written again of a stage, also by tasks of other
    versions.

    :raises ConfigError: as :func:`begin`, but for versions
    """
    renewals: list[Renewal] = []
    versions = {task.name: version_of(task) for task in stage.tasks}
    for sink in sinks:
        sink.begin(pipeline)
        _check_units(sink, [stage])
        others: Any = getattr(sink, "other_versions", None)
        keep: Any = getattr(sink, "keep_versions", None)
        if callable(others) and callable(keep):
            found: Any = others(stage.name, versions)
            renewals.append(Renewal(stage.name, versions, found, keep))
    for sink in sinks:
        if isinstance(sink, TypedSink):
            sink.declare(output_of(pipeline, stage, stage.tasks))
    return renewals


def _is_mixed(version: TaskVersion | None) -> bool:
    return isinstance(version, str) and version.startswith(_MIXED)


def output_of(pipeline: str, stage: AnyStage, tasks: Sequence[Runnable[Any, Any]]) -> StageOutput:
    """What a stage gives, as its tasks say."""
    data: Any = stage.data
    columns = data.columns if isinstance(data, TimeSeries) else None
    by, key = None, None
    if stage.keys is not None:
        by = stage.keys.by
        key = int if stage.keys.keyed(data)[0].columns[by].kind in "iu" else str
    said = {task.name: returned_by(task, columns) for task in tasks}
    return StageOutput(pipeline, stage.name, stage.interval.unit, by, key, said)


def _check_units(sink: Any, stages: Iterable[AnyStage]) -> None:
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


def _check_versions(
    sink: Any,
    stage: str,
    versions: Mapping[str, TaskVersion | None],
    others: Mapping[str, TaskVersion | None],
) -> None:
    """Refuse tasks of which a sink holds results of other versions."""
    for task, held in others.items():
        if _is_mixed(held):
            raise ConfigError(
                f"stage {stage!r}: task {task!r}: {brief(sink)} has results of it of several "
                f"versions, since recompute({stage!r}) was broken off: call it again"
            )
        now = versions[task]
        told = "has no version" if now is None else f"is of version {now!r}"
        of = "without a version" if held is None else f"of version {held!r}"
        back = "take version= out again" if held is None else f"put version={held!r} back"
        raise ConfigError(
            f"stage {stage!r}: task {task!r} {told}, and {brief(sink)} has results of it {of}, "
            f"beside which its own would stand: take another table, file or folder, or replay into "
            f"an empty one, or {back}, or have its windows computed again by recompute({stage!r})"
        )
