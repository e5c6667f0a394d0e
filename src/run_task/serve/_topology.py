"""What a pipeline is made of, as the API tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from run_task._version import __version__
from run_task.data import TimeSeries
from run_task.observe._format import named, shown
from run_task.pipeline import Pipeline
from run_task.pipeline._monitor import WatcherSink
from run_task.pipeline._stage import AnyStage
from run_task.serve._shapes import (
    DataNode,
    ShardNow,
    SinkNode,
    SourceNode,
    StageNode,
    TaskNode,
    Topology,
)
from run_task.tasks._alert import AlertTask
from run_task.tasks._declared import ColumnTypes
from run_task.tasks._result_type import UNSAID, annotation_shown, returned_by
from run_task.tasks._task import Runnable
from run_task.time._length import in_short


class _Nodes:
    """Things with an id each, which they keep among each other.

    :param kind: what ids begin with
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.things: dict[int, Any] = {}
        self._ids: dict[int, str] = {}

    def id_of(self, thing: Any, name: str | None = None) -> str:
        """The id of a thing; it has one from now on."""
        if id(thing) not in self.things:
            self.things[id(thing)] = thing
            self._ids[id(thing)] = f"{self._kind}:{name or len(self.things)}"
        return self._ids[id(thing)]


def signature(pipeline: Pipeline) -> int:
    """Another number says that something was added, removed or paused."""
    stages = (
        (
            id(stage),
            stage.is_paused,
            stage.paused_tasks,
            *map(id, stage.tasks),
            *map(id, stage.sinks),
            len(stage.routes),
        )
        for stage in pipeline.stages
    )
    return hash((*stages, *(id(source) for source, _ in pipeline.sources)))


def topology(
    pipeline: Pipeline, state: str, began_ms: float, number: int, shards: Sequence[ShardNow]
) -> Topology:
    """What a pipeline is made of.

    :param pipeline: the pipeline
    :param state: how far it has come
    :param began_ms: when it began
    :param number: another one says that something has changed
    :param shards: how its shards do
    """
    data, sinks, sources = _Nodes("data"), _Nodes("sink"), _Nodes("source")
    edges: dict[tuple[str, str], None] = {}
    source_nodes: dict[str, SourceNode] = {}
    stage_nodes: list[StageNode] = []
    names = list(pipeline.stats.sources)
    for name, title, (source, into) in zip(names, pipeline.source_titles, pipeline.sources):
        place = sources.id_of(source, name)
        source_nodes.setdefault(
            place, SourceNode(id=place, name=name, title=shown(title), about=named(source))
        )
        edges[place, data.id_of(into)] = None
    for stage in pipeline.stages:
        place = f"stage:{stage.name}"
        stage_nodes.append(stage_node(stage))
        for read in stage.inputs:
            edges[data.id_of(read), place] = None
        for route in stage.routes:
            edges[place, data.id_of(route.into)] = None
        for sink in stage.sinks:
            if not isinstance(sink, WatcherSink):
                edges[place, sinks.id_of(sink)] = None
    return Topology(
        name=pipeline.name,
        state=state,
        began_ms=began_ms,
        topology=number,
        version=__version__,
        sources=list(source_nodes.values()),
        data=[_data_node(data.id_of(each), each) for each in _all(data)],
        stages=stage_nodes,
        sinks=[SinkNode(id=sinks.id_of(each), title=named(each)) for each in _all(sinks)],
        edges=list(edges),
        shards=list(shards),
    )


def _all(nodes: _Nodes) -> Iterable[Any]:
    return list(nodes.things.values())


def _data_node(place: str, data: Any) -> DataNode:
    if isinstance(data, TimeSeries):
        columns = list(data.columns)
        return DataNode(id=place, title="TimeSeries", columns=columns, key=data.key)
    return DataNode(id=place, title=type(data).__name__, columns=[], key=None)


def stage_node(stage: AnyStage) -> StageNode:
    """A stage, as it was declared."""
    config = stage.config
    executor = config.executor
    series = stage.data if isinstance(stage.data, TimeSeries) else None
    columns = None if series is None else series.columns
    return StageNode(
        id=f"stage:{stage.name}",
        name=stage.name,
        every=in_short(stage.interval),
        every_seconds=stage.interval.longest_ns / 1e9,
        window=None if config.window is None else in_short(config.window),
        grace=None if config.grace is None else in_short(config.grace),
        by=None if stage.keys is None else stage.keys.by,
        executor=executor if isinstance(executor, str) else named(executor),
        paused=stage.is_paused,
        tasks=[_task_node(stage, task, columns) for task in stage.tasks],
    )


def _task_node(stage: AnyStage, task: Runnable[Any, Any], columns: ColumnTypes | None) -> TaskNode:
    returned = returned_by(task, columns)
    told = annotation_shown(None if returned is UNSAID else returned)
    is_paused = task.name in stage.paused_tasks
    return TaskNode(
        name=task.name,
        returns=shown(told),
        alert=isinstance(task, AlertTask),
        paused=is_paused,
        needed=None if is_paused else stage.cannot_pause(task.name),
    )
