"""A pipeline over shards: what cannot be, and how long its shards live."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

from run_task.cluster._bytes import Packing
from run_task.cluster._cluster import Cluster
from run_task.cluster._crew import check_task, value_as_bytes
from run_task.cluster._executor import ShardsExecutor
from run_task.cluster._transports import transport_for
from run_task.data import TimeSeries
from run_task.data._buckets import BUCKETS
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._stage import AnyStage
from run_task.runner._config import RunnerConfig

T = TypeVar("T")


def cluster_for(
    name: str, stages: Collection[AnyStage], shards: Any, address: str | None, kind: type[Any]
) -> Cluster:
    """The shards of a run, which are not started yet.

    :param name: the pipeline's name
    :param stages: its stages
    :param shards: how many
    :param address: where: of which cluster of Ray; None: in processes of this machine
    :param kind: what a pipeline is
    :raises ConfigError: if the stages cannot be run so; the message names the culprit and the cure
    """
    if type(shards) is not int or shards < 1:
        raise ConfigError(f"shards={shards!r}: it is a positive int, how many there are")
    if shards > BUCKETS:
        raise ConfigError(
            f"shards={shards}: keys belong to one of {BUCKETS:,} buckets, and a shard has one at "
            f"least: give {BUCKETS:,} at most"
        )
    keyed = [stage for stage in stages if stage.keys is not None]
    if not keyed:
        raise ConfigError(
            f"pipeline {name!r} has no stage by key, and the keys are what shards share: give a "
            f"stage by=, or run it by run()"
        )
    packing = Packing(_that_make(kind))
    for stage in keyed:
        _check(stage, shards, packing)
    return Cluster(name, transport_for(address), shards, packing)


def _that_make(kind: type[Any]) -> Sequence[ModuleType]:
    """The modules that make a pipeline when they are imported, with its sinks and all that it has:
    in a shard, a second one would be in the way of the first."""
    return [
        module
        for name, module in tuple(sys.modules.items())
        if isinstance(module, ModuleType)  # pyright: ignore[reportUnnecessaryIsInstance] some put others there
        and name not in ("__main__", "__mp_main__")
        and any(isinstance(value, kind) for value in tuple(vars(module).values()))
    ]


def _check(stage: AnyStage, shards: int, packing: Packing) -> None:
    keys = stage.keys
    assert keys is not None
    if keys.most < shards:
        raise ConfigError(
            f"stage {stage.name!r}: max_keys={keys.most} are fewer keys than {shards} shards: give "
            f"{keys.most} shards at most"
        )
    for series in keys.keyed(stage.data):
        if isinstance(series.retention, int):
            raise ConfigError(
                f"stage {stage.name!r}: {brief(series)} keeps the last {series.retention:,} rows "
                f"of all keys together, so that what a task sees of its key depends on those of "
                f"all others, and a shard has only its own: say for how long rows stay, such as "
                f"retention='1h', or run it by run()"
            )
    for task in stage.tasks:
        check_task(packing, stage.name, task)
    for data in stage.inputs:
        if not isinstance(data, TimeSeries):
            with data.read(stage.config.data_timeout) as value:
                value_as_bytes(packing, stage.name, data, value)


def over_shards(
    cluster: Cluster, configs: Mapping[AnyStage, RunnerConfig]
) -> Mapping[AnyStage, RunnerConfig]:
    """How stages behave whose tasks are run by key in shards."""
    return {
        stage: config
        if stage.keys is None
        else replace(config, executor=ShardsExecutor(cluster, config))
        for stage, config in configs.items()
    }


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
    with started(cluster, is_replay=True):
        yield from results
