"""What a pipeline takes over from its last checkpoint; what does not fit of it is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from run_task.data import Atom, RwLock, TimeSeries
from run_task.data.series._places import PLACE
from run_task.errors import ConfigError, described
from run_task.observe._log import Log
from run_task.pipeline.checkpoint._behind import behind
from run_task.pipeline.checkpoint._cut import SourceCut, StageCut
from run_task.pipeline.checkpoint._keeper import Keeper
from run_task.pipeline.checkpoint._rows import rows_of
from run_task.pipeline.checkpoint._saved import SavedCheckpoint, SavedData, SavedSeries
from run_task.pipeline.checkpoint._states_form import states_of
from run_task.pipeline.checkpoint._values import OutdatedError, kind_of
from run_task.sources._paced import Paced
from run_task.sources._positioned import positioned
from run_task.tasks._stateful import StatefulTask, with_state

_log = Log(__name__)


class Restorer:
    """Takes a checkpoint over into a pipeline that has not begun to run.

    :param saved: the checkpoint; None: there is none
    :param keeper: what read it
    """

    def __init__(self, saved: SavedCheckpoint | None, keeper: Keeper) -> None:
        self._saved = saved
        self._keeper = keeper
        self._sources: dict[str, SourceCut] = {} if saved is None else dict(saved.sources)
        self._found_sources: dict[str, SourceCut] = {}
        self._stages = {} if saved is None else dict(saved.stages)
        self._unfit: list[str] = []

    @property
    def is_new(self) -> bool:
        """Whether there is no checkpoint."""
        return self._saved is None

    # Data

    def data(self, known: Sequence[tuple[Any, Sequence[str]]]) -> None:
        """Put what the checkpoint has into shared data.

        :param known: the shared data of the pipeline, each with what it is to it
        """
        if self._saved is None:
            return
        left = list(self._saved.data)
        for data, roles in known:
            fitting = max(left, key=lambda one: len({*one.roles} & {*roles}), default=None)
            if fitting is None or not {*fitting.roles} & {*roles}:
                continue
            left.remove(fitting)
            self._fill(data, roles, fitting)
        self._unfit += (f"data of {one.roles[0]}, which is gone" for one in left)

    def _fill(self, data: Any, roles: Sequence[str], saved: SavedData) -> None:
        what = roles[0]
        if isinstance(data, TimeSeries):
            if saved.series is None:
                self._unfit.append(f"data of {what}, which was no TimeSeries")
            elif (PLACE in saved.series.columns) is not data.has_places:
                raise ConfigError(_other_place(what, data))
            elif told := _differences(data, saved.series):
                self._unfit.append(f"rows of {what}: {told}")
            else:
                self._fill_series(data, roles, saved.series)
        elif saved.value is None:
            if saved.series is not None:
                self._unfit.append(f"data of {what}, which was a TimeSeries")
        elif isinstance(data, RwLock | Atom):
            shared: Any = data  # pyright: ignore[reportUnknownVariableType]  of whatever value
            self._fill_value(shared, what, saved.value)

    def _fill_series(self, data: TimeSeries, roles: Sequence[str], saved: SavedSeries) -> None:
        assert self._saved is not None
        try:
            kinds = [*data.stored_columns.values()]
            times, columns = rows_of(saved.segments, self._saved.parts, kinds)
            data.restore(times, columns, saved.first)
        except (OutdatedError, ConfigError) as error:
            self._unfit.append(f"rows of {roles[0]}: {described(error)}")
        else:
            self._keeper.took(roles, saved)

    def _fill_value(self, data: RwLock[Any] | Atom[Any], what: str, stored: bytes) -> None:
        with data.read() as now:
            kind = kind_of(now)
        try:
            made: object = kind.from_bytes(stored)
        except Exception as error:  # of a type of the user's
            self._unfit.append(f"data of {what}: from_bytes(): {described(error)}")
            return
        if not isinstance(made, kind):
            self._unfit.append(f"data of {what}: from_bytes() returned a {type(made).__qualname__}")
        elif isinstance(data, RwLock):
            data.replace(made)
        else:
            data.reset(made)

    # Sources

    def source(self, name: str, source: Any, ways: int) -> Any:
        """Have a source go on from where it was.

        :param name: what it is called
        :param source: the source
        :param ways: how many data its rows enter
        :return: what is to be read
        :raises Exception: whatever the source raises that cannot go on from there
        """
        cut = self._sources.pop(name, None)
        if cut is None:
            if self._saved is not None:
                self._unfit.append(f"source {name!r} is new: it is read from its beginning")
            return source
        if len(cut.ways) != ways:
            self._unfit.append(
                f"source {name!r} entered {len(cut.ways)} data, and now {ways}: it is read from "
                f"its beginning"
            )
            return source
        tracked = positioned(source)
        if cut.counted is not (tracked is None):
            self._unfit.append(f"source {name!r} is of another kind: it is read from its beginning")
            return source
        self._found_sources[name] = cut
        if not cut.begun:
            return source
        if tracked is not None:
            tracked.seek(cut.position)
            return source
        if isinstance(source, Paced):
            arrived_ns = max(way.arrived_ns for way in cut.ways)
            waiting = [stamp * source.unit.nanos for way in cut.ways for stamp, _ in way.early]
            source.begin_behind(cut.position, arrived_ns, min(waiting, default=math.inf))
            return source  # pyright: ignore[reportUnknownVariableType]  of whatever rows
        return behind(source, cut.position)

    def cut_of(self, name: str) -> SourceCut | None:
        """How far a source had come that goes on; None: it begins."""
        return self._found_sources.get(name)

    # Stages

    def stage(self, stage: Any, grid: str, inputs: int) -> StageCut | None:
        """How far a stage had come, whose tasks are given their states; None: it begins.

        :param stage: the stage
        :param grid: which windows it has
        :param inputs: how many data it reads
        """
        saved = self._stages.pop(stage.name, None)
        if saved is None:
            if self._saved is not None:
                self._unfit.append(f"stage {stage.name!r} is new")
            return None
        cut = saved.cut
        if cut.grid != grid:
            self._unfit.append(
                f"stage {stage.name!r} had the windows {cut.grid}, and has {grid}: it begins anew"
            )
            return None
        if cut.paused and not stage.is_paused:
            stage.is_paused = True
            _log.warning("stage %r is paused, as it was before: resume() runs it again", stage.name)
        self._pause_tasks(stage, cut.paused_tasks)
        by = None if stage.keys is None else stage.keys.by
        states: dict[str, Mapping[Any, Any]] = {}
        tasks = {task.name: own for task in stage.tasks if (own := with_state(task)) is not None}
        for name, tree in saved.states.items():
            task = tasks.get(name)
            if (told := self._unfit_states(tree, task, cut.by, by)) is not None:
                self._unfit.append(f"states of task {name!r} of stage {stage.name!r}: {told}")
                continue
            assert task is not None
            try:
                states[name] = states_of(tree, task)
            except OutdatedError as error:
                self._unfit.append(f"states of task {name!r} of stage {stage.name!r}: {error}")
        new = [name for name in tasks if name not in saved.states]
        self._unfit += (f"task {name!r} of stage {stage.name!r} is new" for name in new)
        stage.states.begin(states, cut.known if cut.by == by else {})
        if len(cut.readers) != inputs:
            self._unfit.append(
                f"stage {stage.name!r} read {len(cut.readers)} data, and now {inputs}"
            )
        return cut

    def _pause_tasks(self, stage: Any, names: Iterable[str]) -> None:
        for name in names:
            if name in stage.paused_tasks:
                continue
            told = f"task {name!r} of stage {stage.name!r}"
            if (why := stage.cannot_pause(name)) is not None:
                self._unfit.append(f"{told} was paused, and is not: {why}")
                continue
            stage.paused_tasks |= {name}
            _log.warning("%s is paused, as it was before: resume(task=...) runs it again", told)

    def _unfit_states(
        self,
        tree: Any,
        task: StatefulTask[Any, Any, Any] | None,
        before: str | None,
        by: str | None,
    ) -> str | None:
        if task is None:
            return "it is gone, or has none any more"
        if tree["version"] != task.version:
            return f"they are of version {tree['version']!r}, and it is of {task.version!r}"
        if before != by:
            return f"they were kept by {before!r}, and it is run by {by!r}"
        return None

    def settle(self, pipeline: str) -> Sequence[str]:
        """Say what did not fit, in one log record. When all has been taken over."""
        if self._saved is None:
            return ()
        self._unfit += (f"source {name!r} is gone" for name in self._sources)
        self._unfit += (f"stage {name!r} is gone" for name in self._stages)
        number = self._saved.number
        if self._unfit:
            _log.warning(
                "%s goes on from checkpoint %d, of which not all fits: %s",
                *(pipeline, number, "; ".join(self._unfit)),
            )
        else:
            _log.info("%s goes on from checkpoint %d", pipeline, number)
        return tuple(self._unfit)


def _other_place(what: str, data: TimeSeries) -> str:
    if data.has_places:
        return (
            f"rows of {what}: the checkpoint has them, and now they are to stay in the shards that "
            f"read them: run it by run(), as before, or begin with another checkpoint="
        )
    return (
        f"rows of {what} were in the shards that read them, and the checkpoint has only their "
        f"places: run it by run_sharded(), as before, or begin with another checkpoint="
    )


def _differences(data: TimeSeries, saved: SavedSeries) -> str:
    """What differs of a series; empty: nothing."""
    now = kinds_of(data)
    told = [
        f"column {name!r} was {kind}, and is {now.get(name, 'gone')}"
        for name, kind in saved.columns.items()
        if now.get(name) != kind
    ]
    told += (f"column {name!r} is new" for name in now if name not in saved.columns)
    if data.unit.name != saved.unit:
        told.append(f"its unit was {saved.unit}, and is {data.unit.name}")
    if data.closed.name != saved.closed:
        told.append(f"it was closed {saved.closed}, and is {data.closed.name}")
    if not told and [*now] != [*saved.columns]:
        told.append("its columns are in another order")
    return ", ".join(told)


def kinds_of(data: TimeSeries) -> Mapping[str, str]:
    """What each column of a series holds."""
    return {name: dtype.str for name, dtype in data.stored_columns.items()}


def roles_of(
    sources: Iterable[tuple[str, int, Any]], stages: Iterable[Any]
) -> Sequence[tuple[Any, Sequence[str]]]:
    """The shared data of a pipeline, each with what it is to it: it has no name of its own.

    :param sources: of each way of a source the source's name, which way it is, and the data
    :param stages: the stages
    """
    found: dict[int, tuple[Any, list[str]]] = {}

    def note(data: Any, role: str) -> None:
        found.setdefault(id(data), (data, []))[1].append(role)

    for name, way, data in sources:
        note(data, f"source {name!r} [{way}]")
    for stage in stages:
        for number, route in enumerate(stage.routes):
            note(route.into, f"results of stage {stage.name!r} [{number}]")
        for number, data in enumerate(stage.inputs):
            note(data, f"input of stage {stage.name!r} [{number}]")
    return list(found.values())
