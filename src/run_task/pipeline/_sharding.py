"""A pipeline over shards: what cannot be, and how long its shards live."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, Final, TypeVar

from run_task.cluster._bytes import Packing
from run_task.cluster._cluster import Cluster
from run_task.cluster._crew import check_task, value_as_bytes
from run_task.cluster._executor import ShardsExecutor
from run_task.cluster._partitions import PartitionSource, WhenAway
from run_task.cluster._transports import on_other_machines, transport_for
from run_task.cluster._writing import StageSinks
from run_task.data import TimeSeries
from run_task.data._buckets import BUCKETS
from run_task.errors import ConfigError, described
from run_task.observe._format import brief
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._fates import SourcePolicy
from run_task.pipeline._route import Route
from run_task.pipeline._sharded_sinks import HasAll, StageSinkOnShards, at_once
from run_task.pipeline._stage import AnyStage
from run_task.runner._config import RunnerConfig
from run_task.sources._faults import OnFault
from run_task.sources._partitioned import Undivided, partitions_in, with_partitions
from run_task.sources._positioned import positioned
from run_task.sources._protocol import about

T = TypeVar("T")


def cluster_for(
    name: str,
    stages: Collection[AnyStage],
    sources: Sequence[tuple[Any, Route]],
    shards: Any,
    address: str | None,
    kind: type[Any],
) -> Cluster:
    """The shards of a run, which are not started yet.

    :param name: the pipeline's name
    :param stages: its stages
    :param sources: its sources, and where the rows of each go
    :param shards: how many
    :param address: where: of which cluster of Ray; None: in processes of this machine
    :param kind: what a pipeline is
    :raises ConfigError: if the stages cannot be run so; the message names the culprit and the cure
    """
    for refusal in refusals_of(name, stages, sources, shards, address, kind):
        raise refusal
    packing = Packing(that_make(kind))
    other = on_other_machines(address)
    return Cluster(name, transport_for(address), shards, packing, on_other_machines=other)


def refusals_of(
    name: str,
    stages: Collection[AnyStage],
    sources: Sequence[tuple[Any, Route]],
    shards: Any,
    address: str | None,
    kind: type[Any],
) -> Iterator[ConfigError]:
    """Why stages cannot be run over shards, as far as that is known before these are started.

    The parameters are those of :func:`cluster_for`.
    """
    keyed = [stage for stage in stages if stage.keys is not None]
    if type(shards) is not int or shards < 1:
        yield ConfigError(f"shards={shards!r}: it is a positive int, how many there are")
        return
    if shards > BUCKETS:
        yield ConfigError(
            f"shards={shards}: keys belong to one of {BUCKETS:,} buckets, and a shard has one at "
            f"least: give {BUCKETS:,} at most"
        )
    if not keyed:
        yield ConfigError(
            f"pipeline {name!r} has no stage by key, and the keys are what shards share: give a "
            f"stage by=, or run it by run()"
        )
    packing = Packing(that_make(kind))
    for stage in keyed:
        yield from _refusals(stage, shards, packing)
        yield from _sink_refusals(name, stage, packing, address)
    routes = [route for _, route in sources]
    for source, route in sources:
        if (partitions := partitions_in(source)) is not None:
            yield from _refusals_of_partitions(route, stages, routes)
            try:
                _sent(packing, partitions.origin, partitions.parts, OnFault.SKIP)
            except ConfigError as error:
                yield error
    try:
        transport_for(address)
    except ConfigError as error:
        yield error


def that_make(kind: type[Any]) -> Sequence[ModuleType]:
    """The modules that make a pipeline when they are imported, with its sinks and all that it has:
    in a shard, a second one would be in the way of the first."""
    return [
        module
        for name in list(sys.modules)  # to which other threads may add
        if isinstance(module := sys.modules.get(name), ModuleType)
        and name not in ("__main__", "__mp_main__")
        and any(isinstance(value, kind) for value in list(vars(module).values()))
    ]


def _refusals(stage: AnyStage, shards: int, packing: Packing) -> Iterator[ConfigError]:
    keys = stage.keys
    assert keys is not None
    if keys.most < shards:
        yield ConfigError(
            f"stage {stage.name!r}: max_keys={keys.most} are fewer keys than {shards} shards: give "
            f"{keys.most} shards at most"
        )
    for series in keys.keyed(stage.data):
        if isinstance(series.retention, int):
            yield ConfigError(
                f"stage {stage.name!r}: {brief(series)} keeps the last {series.retention:,} rows "
                f"of all keys together, so that what a task sees of its key depends on those of "
                f"all others, and a shard has only its own: say for how long rows stay, such as "
                f"retention='1h', or run it by run()"
            )
    for task in stage.tasks:
        try:
            check_task(packing, stage.name, task)
        except ConfigError as error:
            yield error
    for data in stage.inputs:
        if not isinstance(data, TimeSeries):
            with data.read(stage.config.data_timeout) as value:
                try:
                    value_as_bytes(packing, stage.name, data, value)
                except ConfigError as error:
                    yield error


def _sink_refusals(
    name: str, stage: AnyStage, packing: Packing, address: str | None
) -> Iterator[ConfigError]:
    other = on_other_machines(address)
    for sink in stage.sharded_sinks:
        one = StageSinkOnShards(name, stage, sink, at_once, other_machines=other)
        try:
            StageSinks(stage.name, packing, [one], stage.tasks)
        except ConfigError as error:
            yield error


def _refusals_of_partitions(
    route: Route, stages: Collection[AnyStage], routes: Collection[Route]
) -> Iterator[ConfigError]:
    """Why shards cannot read what enters a series by themselves.

    :param route: where the rows of the source go
    :param stages: all stages
    :param routes: the ways of all sources
    """
    series = route.into
    beside = [other for other in routes if other is not route]
    beside += [way for stage in stages for way in stage.routes]
    for other in beside:
        if other.leads_to(series):
            yield ConfigError(
                f"{route.origin}: partitioned=True, and {other.origin} enters {brief(series)}, "
                f"too: rows that shards read by themselves are alone in their series: give the "
                f"others another one"
            )
    for stage in stages:
        try:
            check_reader(stage, series)
        except ConfigError as error:
            yield error


def check_reader(stage: AnyStage, series: Any) -> None:
    """See whether a stage can read a series whose rows stay in the shards that read them.

    :raises ConfigError: if it reads it, and cannot
    """
    if not any(data is series for data in stage.inputs):
        return
    keys = stage.keys
    if keys is None or keys.by != series.key:
        raise ConfigError(
            f"stage {stage.name!r} reads {brief(series)}, whose source is partitioned=True: its "
            f"rows stay in the shards that read them, each with its keys: give the stage "
            f"by={series.key!r}, let it read the results of a stage by key, or leave "
            f"partitioned=True out"
        )
    for other in keys.keyed(stage.data):
        if other is not series:
            raise ConfigError(
                f"stage {stage.name!r} reads {brief(series)}, whose source is partitioned=True, "
                f"and {brief(other)} by the same key, whose rows would be in other shards: let one "
                f"stage read one of them, or leave partitioned=True out"
            )


def has_places(data: object) -> bool:
    """Whether it is a series whose rows stay in the shards that read them, in the run at hand."""
    return isinstance(data, TimeSeries) and data.has_places


def check_target(route: Route) -> None:
    """See whether something can be added that enters a series, while it runs.

    :raises ConfigError: if rows enter it that stay in shards
    """
    if has_places(route.into):
        raise ConfigError(
            f"{route.origin}: the rows of {brief(route.into)} stay in the shards that read them: "
            f"give it another series"
        )


def _sent(
    packing: Packing, origin: str, parts: Mapping[str, Any], on_bad_row: OnFault
) -> Sequence[PartitionSource]:
    """The partitions of a source as they are sent to shards.

    :raises ConfigError: if one cannot be sent
    """
    made: list[PartitionSource] = []
    fatal = packing.as_bytes(on_bad_row)
    for name, part in parts.items():
        try:
            source = packing.sent_whole(part)
        except Exception as error:
            raise ConfigError(
                f"{origin}: its partition {name!r} cannot be sent to a shard "
                f"({described(error)}): leave partitioned=True out, or give a source whose "
                f"partitions can be pickled"
            ) from error
        told, tracked = partial(about, part), positioned(part) if about(part).endless else None
        position = None if tracked is None else tracked.position
        made.append(PartitionSource(origin, name, told, source, fatal, position))
    return made


def read_by_shards(
    cluster: Cluster,
    source: Any,
    places: TimeSeries,
    on_bad_row: OnFault,
    readers: Collection[RunnerConfig],
    *,
    live: bool,
) -> Any:
    """A source whose partitions shards read, as it is read here.

    :param source: the source
    :param places: what has the places of its rows
    :param on_bad_row: what is done with a row that is malformed
    :param readers: how the stages behave whose windows wait for it
    :param live: whether rows come as time passes; if not, each is waited for: a replay that lacked
        some would be another one
    """
    partitions = partitions_in(source)
    assert partitions is not None
    parts = partitions.divided() if isinstance(partitions, Undivided) else partitions.parts
    sent = _sent(cluster.packing, partitions.origin, parts, on_bad_row)
    bound = min(config.upstream_timeout for config in readers)
    when_away = WhenAway.END
    if live:
        # Before windows go on without it, which would then lack the rows of all partitions.
        bound, when_away = bound * _SHARE, WhenAway.GO_ON
    return with_partitions(source, cluster.partitions(places, sent, bound, when_away))


def replayed_by_shards(
    cluster: Cluster,
    sources: Sequence[RoutedSource],
    begun: Mapping[int, Any],
    stages: Mapping[AnyStage, RunnerConfig],
    policy_of: Callable[[Route], SourcePolicy],
) -> tuple[Sequence[RoutedSource], Mapping[int, Any]]:
    """Have shards read what is partitioned. Returns the sources as they are read in a replay, and
    what data begins as.

    :param begun: what data begins as that is not copied, by the id of that
    :param stages: all stages, and how they behave
    :param policy_of: what was said of a source
    :raises ConfigError: if a series has rows already
    """
    begun, read = dict(begun), list[RoutedSource]()
    for declared, unit_ns, route in sources:
        source = declared
        if partitions_in(source) is not None:
            series = series_of(route)
            check_empty(route, begun.get(id(series), series))
            begun[id(series)] = places = series.of_places()
            on_bad_row = policy_of(route).on_bad_row
            readers = [
                config
                for stage, config in stages.items()
                if any(data is series for data in stage.inputs)
            ]
            source = read_by_shards(cluster, source, places, on_bad_row, readers, live=False)
        read.append((source, unit_ns, route))
    return read, begun


_SHARE: Final = 0.5
"""For which share of the time that windows wait for a shard its partitions are waited for."""


def series_of(route: Route) -> TimeSeries:
    """The series that the rows of a partitioned source enter."""
    assert isinstance(route.into, TimeSeries)  # it was checked
    return route.into


def check_empty(route: Route, begun: Any) -> None:
    """See whether a series has no rows yet.

    :raises ConfigError: if it has
    """
    if begun.view():
        raise ConfigError(
            f"{route.origin}: partitioned=True: {brief(begun)} has rows already, and those that "
            f"come stay in shards: let it begin empty, or leave partitioned=True out"
        )


def over_shards(
    cluster: Cluster,
    configs: Mapping[AnyStage, RunnerConfig],
    has_all: HasAll,
) -> Mapping[AnyStage, RunnerConfig]:
    """How stages behave where the tasks of those by key are run in shards.

    A window by key may wait for a shard for as long as its ``upstream_timeout``. So those that are
    fed by it wait as long in addition to their own: or else they would go on without it just then.

    :param cluster: the shards
    :param configs: how they are to behave otherwise, those that are fed after those that feed them
    :param has_all: waits until a sink has all of a stage
    """

    def sinks_of(stage: AnyStage) -> Sequence[StageSinkOnShards]:
        other = cluster.on_other_machines
        return [
            StageSinkOnShards(cluster.name, stage, sink, has_all, other_machines=other)
            for sink in stage.sharded_sinks
        ]

    late_s: dict[int, float] = {}  # by the data: how much later what enters it may come for them
    given: dict[AnyStage, RunnerConfig] = {}
    for stage, config in configs.items():
        before_s = max(late_s.get(id(data), 0.0) for data in stage.inputs)
        own_s = 0.0
        given[stage] = waits = replace(config, upstream_timeout=config.upstream_timeout + before_s)
        if stage.keys is not None:
            own_s = config.upstream_timeout
            executor = ShardsExecutor(cluster, config, sinks_of(stage))
            given[stage] = replace(waits, executor=executor)
        for route in stage.routes:
            late_s[id(route.into)] = max(late_s.get(id(route.into), 0.0), before_s + own_s)
    return given


@contextmanager
def places_alone(series: Collection[TimeSeries]) -> Generator[None]:
    """A block in which series have only the places of their rows, which stay in shards."""
    with ExitStack() as block:
        for one in series:
            block.enter_context(one.with_places())
        yield


@contextmanager
def started(
    cluster: Cluster, is_unwanted: Callable[[], bool] = lambda: False, *, is_replay: bool = False
) -> Generator[bool]:
    """A block in which the shards are there; or else nobody wants them any more, and it is given
    False.

    :param cluster: the shards
    :param is_unwanted: asked again and again while they are started
    :param is_replay: whether they go through a history
    :raises ConfigError: if they cannot be started
    """
    try:
        yield cluster.start(is_unwanted, is_replay=is_replay)
    finally:
        cluster.close()


def within(cluster: Cluster, results: Generator[T]) -> Generator[T]:
    """Results of a history, while the shards are there from the first that is asked for on."""
    cluster.start(is_replay=True)
    try:
        yield from results
    finally:
        cluster.close()
