"""How stages are connected: which feeds which, and in which order they run."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.runner._config import RunnerConfig
from run_task.sources._protocol import about
from run_task.time._calendar import CalendarInterval
from run_task.time._interval import TimeUnit


def feeds_itself(stage: AnyStage, data: object) -> bool:
    """Whether a stage's results enter some data that it reads."""
    return any(route.leads_to(data) for route in stage.routes)


class Graph:
    """Stages, and the data through which they feed each other.

    Which stages read some data, and which write to it, is kept by the data's identity. So it costs
    the same to declare a stage, however many there are.
    """

    def __init__(self) -> None:
        self._stages: dict[str, AnyStage] = {}  # by name, as they were declared
        self._readers: defaultdict[int, list[AnyStage]] = defaultdict(list)  # by the data's id
        self._writers: defaultdict[int, list[AnyStage]] = defaultdict(list)

    @property
    def stages(self) -> Collection[AnyStage]:
        """All stages, as they were declared."""
        return list(self._stages.values())  # which others may change meanwhile

    def find(self, name: str) -> AnyStage | None:
        """The stage of a name, if there is one."""
        return self._stages.get(name)

    def __contains__(self, name: str) -> bool:
        """Whether there is a stage of this name."""
        return name in self._stages

    def readers(self, data: object) -> Sequence[AnyStage]:
        """The stages that read some data."""
        return self._readers.get(id(data), ())

    def add(self, stage: AnyStage) -> None:
        """Add a stage that feeds no other yet, and so cannot be fed by its own results."""
        self._stages[stage.name] = stage
        for data in stage.inputs:
            self._readers[id(data)].append(stage)

    def connect(self, stage: AnyStage, route: Route) -> None:
        """Note that a stage's results take a route.

        :raises ConfigError: if they would come back to the stage; then nothing is noted
        """
        circle = self._circle(stage, route)
        if circle is not None:
            drawn = " -> ".join(repr(stage.name) for stage in circle)
            raise ConfigError(
                f"these stages would wait for each other forever: {drawn}: let one of them write "
                f"to other data"
            )
        self._writers[id(route.into)].append(stage)

    def disconnect(self, stage: AnyStage, route: Route) -> None:
        """Undo :meth:`connect`."""
        self._writers[id(route.into)].remove(stage)

    def remove(self, stage: AnyStage) -> None:
        """Remove a stage. What it fed, and what fed it, stays."""
        del self._stages[stage.name]
        for kept, data in (
            (self._readers, stage.inputs),
            (self._writers, [route.into for route in stage.routes]),
        ):
            for one in data:
                left = [other for other in kept[id(one)] if other is not stage]
                kept[id(one)] = left
                if not left:
                    del kept[id(one)]  # another object may come to be where this one was

    def upstreams(self) -> Mapping[AnyStage, Sequence[AnyStage]]:
        """Each stage, and the others whose results enter its data. It comes after those."""
        position = {stage: number for number, stage in enumerate(self.stages)}
        fed_by = {
            # Others may come to be there meanwhile.
            stage: sorted(position.keys() & {*self._feeding(stage)}, key=position.__getitem__)
            for stage in position
        }
        return {stage: fed_by[stage] for stage in TopologicalSorter(fed_by).static_order()}

    def _circle(self, stage: AnyStage, route: Route) -> Sequence[AnyStage] | None:
        """The way from a stage along a new route, through others, back to it; None if there is
        none. It may read itself what it feeds: it sees it as it was after its window before.

        It is looked for from both ends in turn, and there is none once one search has ended. So a
        long chain is declared as fast from its end as from its beginning.
        """
        begin = [reader for reader in self.readers(route.into) if reader is not stage]
        down = _paths(begin, self._fed_by)
        up = _paths([stage], self._feeding)
        for below, above in zip(down, up):
            if below.stage is stage:
                return [stage, *reversed([*below])]
            if above.stage is not stage and any(map(route.leads_to, above.stage.inputs)):
                return [stage, *above]
        return None

    def _fed_by(self, stage: AnyStage) -> Iterator[AnyStage]:
        for route in stage.routes:
            yield from (fed for fed in self.readers(route.into) if fed is not stage)

    def _feeding(self, stage: AnyStage) -> Iterator[AnyStage]:
        for data in stage.inputs:
            yield from (other for other in self._writers.get(id(data), ()) if other is not stage)


@dataclass(frozen=True, slots=True)
class _Path:
    """A stage that a search has come to, and the path to the one before it."""

    stage: AnyStage
    before: _Path | None

    def __iter__(self) -> Iterator[AnyStage]:
        path: _Path | None = self
        while path is not None:
            yield path.stage
            path = path.before


def _paths(
    begin: Iterable[AnyStage], following: Callable[[AnyStage], Iterator[AnyStage]]
) -> Iterator[_Path]:
    """The shortest path to each stage that can be come to, one after another."""
    todo = deque(_Path(stage, None) for stage in begin)
    known = {path.stage for path in todo}
    while todo:
        path = todo.popleft()
        yield path
        for stage in following(path.stage):
            if stage not in known:
                known.add(stage)
                todo.append(_Path(stage, path))


def have_calendar(stages: Mapping[AnyStage, RunnerConfig]) -> bool:
    """Whether some stage has windows that a calendar gives.

    :param stages: the stages, and how they behave
    """
    lengths = [(stage.interval, config.window) for stage, config in stages.items()]
    return any(isinstance(length, CalendarInterval) for both in lengths for length in both)


def configs(fed_by: Mapping[AnyStage, Sequence[AnyStage]]) -> Mapping[AnyStage, RunnerConfig]:
    """How each stage's runner behaves. Its grace is no shorter than that of who feeds it, whose
    results are not there before."""
    found: dict[AnyStage, RunnerConfig] = {}
    for stage, feeding in fed_by.items():
        graces = [found[other].grace for other in feeding]
        given = [g for g in (stage.config.grace, *graces) if g is not None]
        grace = max(given, key=lambda interval: interval.nanos, default=None)
        found[stage] = replace(stage.config, name=stage.name, grace=grace)
    return found


def group_unit_of(
    source: object, targets: Sequence[object], given: TimeUnit | None
) -> TimeUnit | None:
    """The unit of the timestamps of a source that goes into several data, if it or one of them
    says it.

    :raises ConfigError: if they differ
    """
    found = given
    for into in targets:
        found = unit_of(source, into, found, ())
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
        "the source": about(source).unit,
        "the data": getattr(into, "unit", None),
    }
    units = {who: unit for who, unit in said.items() if isinstance(unit, TimeUnit)}
    data = units.get("the data")
    cure = "make them the same"
    if data is not None:
        cure += f", such as by unit=TimeUnit.{data.name} of the source"
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
