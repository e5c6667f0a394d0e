"""From what the windows of a stage can be computed again: sources that can be read once more, and
series that have kept what others gave."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from run_task.data import Atom, Closed, TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._graph import feeds_itself
from run_task.pipeline._order import NEVER
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._known_data import kept_from_ns
from run_task.pipeline.replay._before import Before
from run_task.pipeline.replay._copies import Copies
from run_task.pipeline.replay._history import WantedWindows
from run_task.runner._config import Align, Empty, RunnerConfig
from run_task.runner._window_grid import windows_of
from run_task.sources._backfill import Backfill
from run_task.sources._partitioned import partitions_in
from run_task.sources._positioned import positioned
from run_task.sources._protocol import Source, about
from run_task.sources._restarted import RestartedSource
from run_task.tasks._stateful import with_state
from run_task.time._shown import time_shown


@dataclass(frozen=True)
class Origins:
    """What is run and read to compute windows of a stage again.

    :param stage: a copy of the stage
    :param stages: it and those that feed it, with how they behave
    :param sources: what is read, each way
    :param declared: the same ways, as they were declared
    :param begun: data that is to begin as it was before rows entered it, by the id of that
    :param filled: the ids of data of which the rows are taken that it has
    :param whole_from_ns: from when on these have all rows, in nanoseconds since the Unix epoch;
        infinitely long ago: they have lost none
    """

    stage: AnyStage
    stages: Mapping[AnyStage, RunnerConfig]
    sources: Sequence[RoutedSource]
    declared: Sequence[Route]
    begun: Mapping[int, Any]
    filled: Collection[int]
    whole_from_ns: float

    def check(self, part: WantedWindows) -> None:
        """See whether windows can be computed from rows that were kept.

        :raises ConfigError: if rows are gone that they depend on
        """
        if self.whole_from_ns == -NEVER:
            return
        stage, config = self.stage, self.stages[self.stage]
        remembers = stage.keys is not None and config.empty is Empty.RUN
        where, unit_ns = f"recompute({stage.name!r})", stage.interval.unit.nanos
        lost = (
            f"{where}: of what it reads, rows before "
            f"{time_shown(int(self.whole_from_ns) // unit_ns, stage.interval)} are gone"
        )
        cure = "give its source a journal=, or its series a longer retention="
        if any(with_state(task) is not None for task in stage.tasks) or stage.routes or remembers:
            raise ConfigError(f"{lost}, and each of its windows depends on those before: {cure}")
        if config.align is Align.START:
            raise ConfigError(f"{lost}, from the first of which its windows are counted: {cure}")
        windows = windows_of(stage.interval, config.window, config.align, 0)
        end_ns = windows.after_ns(self.whole_from_ns)
        while windows.start_ns(end_ns) < self.whole_from_ns:
            end_ns = windows.after_ns(end_ns)
        if part.start_ns < (since_ns := windows.floor_ns(end_ns - 1)):
            raise ConfigError(
                f"{lost}: give start={since_ns // unit_ns}, or a later one, or the next time {cure}"
            )

    def copies(self) -> Copies:
        """The data of its own."""
        data = [read for stage in self.stages for read in stage.inputs]
        data += [route.into for stage in self.stages for route in stage.routes]
        data += [route.into for _, _, route in self.sources if not isinstance(route.into, _Nowhere)]
        return Copies(data, self.begun)


def origins_of(
    stage: AnyStage,
    stages: Mapping[AnyStage, RunnerConfig],
    sources: Sequence[RoutedSource],
    before: Before | None,
    *,
    is_running: bool,
) -> Origins:
    """What is run and read to compute windows of a stage again.

    :param stage: the stage
    :param stages: all stages, those that are fed after those that feed them, and how they behave
    :param sources: all sources, each way
    :param before: what data was like before it was entered; None: it has not been entered yet
    :param is_running: whether sources are being read
    :raises ConfigError: if there is no such thing
    """
    search = _Search(stage.name, stages, sources, before, is_running=is_running)
    whole_from_ns = max(search.whole_from_ns(data, stage) for data in stage.inputs)
    needed = {*search.stages, stage}
    fresh = search.fresh
    copied: dict[AnyStage, RunnerConfig] = {}
    for one, config in stages.items():
        if one in needed:
            own = copy.copy(one)
            own.routes = tuple(route for route in one.routes if id(route.into) in fresh)
            copied[own] = config
    read: list[RoutedSource] = []
    declared: list[Route] = []
    for _, unit_ns, route in sources:
        if (rows := search.histories[route.number]) is not None:
            way = route if id(route.into) in fresh else _into_nothing(route)
            read.append((rows, unit_ns, way))
            declared.append(route)
    filled = search.filled
    if not (read or filled):  # rows that series have are all there is
        filled = {id(data) for one in needed for data in one.inputs}
    return Origins(
        next(own for own in copied if own.name == stage.name),
        copied,
        read,
        declared,
        {} if before is None else before.begun(fresh.values()),
        filled,
        whole_from_ns,
    )


class _Search:
    """Looks for what the windows of a stage depend on.

    :param name: the stage, for messages
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[RoutedSource],
        before: Before | None,
        *,
        is_running: bool,
    ) -> None:
        self._where = f"recompute({name!r})"
        self._all = stages
        self._sources = sources
        self._before = before
        self.histories: dict[int, Any] = {
            route.number: _history_of(source, is_running=is_running) for source, _, route in sources
        }
        self.stages: set[AnyStage] = set()
        """Those that are to be run."""
        self.fresh: dict[int, Any] = {}
        """The data that sources and stages enter, by its id."""
        self.filled: set[int] = set()
        """The ids of the data of which the rows are taken that it has."""

    def whole_from_ns(self, data: Any, reader: AnyStage) -> float:
        """From when on there are all rows of some data.

        :raises ConfigError: if it can neither be made again nor has any
        """
        if id(data) in self.fresh:
            return -NEVER
        if id(data) in self.filled:
            return _kept_from_ns(data)
        ways = [(source, route) for source, _, route in self._sources if route.leads_to(data)]
        feeding = [s for s in self._all if any(route.leads_to(data) for route in s.routes)]
        if not (ways or feeding):
            return _kept_from_ns(data)  # nobody changes it but the program itself
        for source, route in ways:
            if self.histories[route.number] is None:
                cure = "give it a journal="
                if partitions_in(source) is not None:  # which cannot have one
                    cure = "compute these windows of a copy of its rows, such as files"
                return self._held(
                    data, f"{route.origin}, {brief(source)}, cannot be read again: {cure}"
                )
        problem = self._changed(data)
        whole_ns = -NEVER
        if problem is None:
            found, filled = set(self.stages), set(self.filled)
            self.fresh[id(data)] = data
            try:
                for stage in feeding:
                    for one in stage.inputs:
                        if not (stage is reader and feeds_itself(stage, one)):
                            whole_ns = max(whole_ns, self.whole_from_ns(one, stage))
                    self.stages.add(stage)
            except ConfigError as error:
                problem = str(error).removeprefix(f"{self._where}: ")
            else:
                if whole_ns == -NEVER:
                    return whole_ns
                names = ", ".join(repr(stage.name) for stage in feeding)
                problem = f"what {names} reads has lost rows: let it keep them, by retention="
            del self.fresh[id(data)]
            self.stages, self.filled = found, filled
        return self._held(data, problem)

    def _changed(self, data: Any) -> str | None:
        """Why some data cannot be begun with as it was; None: it can."""
        if self._before is None or self._before.knows(data):
            return None
        return (
            f"{brief(data)} is not known any more as it was before rows entered it: recompute by a "
            f"pipeline that has not been run, or have a TimeSeries in its place"
        )

    def _held(self, data: Any, problem: str) -> float:
        """Take the rows that some data has.

        :raises ConfigError: if it has none
        """
        if not isinstance(data, TimeSeries) or not data.view():
            has = "keeps no rows" if not isinstance(data, TimeSeries) else "has no rows"
            cure = "" if problem.startswith(brief(data)) else f"; {brief(data)} {has}"
            raise ConfigError(f"{self._where}: {problem}{cure}")
        self.filled.add(id(data))
        return _kept_from_ns(data)


def _history_of(source: Any, *, is_running: bool) -> Any:
    """What can be read again, and gives the same rows; None: there is nothing."""
    info = about(source)
    if isinstance(source, Backfill) or info.endless:
        return None
    rows = source if info.recording is None else info.recording
    if info.once or about(rows).once:
        return None
    if is_running and info.recording is None and not _can_be_read_twice(source):
        return None
    return rows


def _can_be_read_twice(source: Any) -> bool:
    """Whether it can be read while it is being read: not what is at one place at a time, nor an
    object of which that is not known, which may be a queue."""
    if isinstance(source, list | tuple):
        return True
    return isinstance(source, Source) and not (
        isinstance(source, RestartedSource) or positioned(source) is not None
    )


def _kept_from_ns(data: object) -> float:
    return kept_from_ns(data) if isinstance(data, TimeSeries) else -NEVER


class _Nowhere(Atom[None]):
    """In the place of data that nobody looks at: the first row and the last of a source tell where
    windows begin and end.

    :param closed: which end of a window holds the rows of the data
    """

    def __init__(self, closed: Closed | None) -> None:
        super().__init__(None)
        self.closed = closed

    def __deepcopy__(self, memo: object) -> _Nowhere:
        return self


def _into_nothing(route: Route) -> Route:
    return replace(route, into=_Nowhere(getattr(route.into, "closed", None)), ingest=_ignored)


def _ignored(_data: object, _row: object) -> None:
    """Nobody looks at it."""
