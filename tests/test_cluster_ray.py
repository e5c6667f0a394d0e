"""Shards on a cluster of Ray of several nodes, all on this machine."""

from __future__ import annotations

import importlib
import os
import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from tests.support.stateful import ema, seen
from tests.support.threads import eventually

from run_task import ConfigError, Pipeline, RunnerConfig, TimeSeries, TimeUnit
from run_task.aggregates import count, mean
from run_task.cluster._ray import own_sigterm

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def nodes(*cores: int) -> Generator[Any]:
    """A cluster of nodes, each with so many cores."""
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    make: Any = importlib.import_module("ray.cluster_utils").Cluster  # of no types
    head = {"num_cpus": cores[0], "include_dashboard": False, "object_store_memory": 80_000_000}
    with warnings.catch_warnings(), own_sigterm():
        warnings.simplefilter("ignore")
        cluster = make(initialize_head=True, head_node_args=head)
        try:
            for count_of_cores in cores[1:]:
                cluster.add_node(num_cpus=count_of_cores, object_store_memory=80_000_000)
            yield cluster
        finally:
            cluster.shutdown()


def pipeline() -> Pipeline:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, "60s", key="symbol")
    rows = [
        (1000 + i // 4 - 9 * (i % 13 == 0), {"symbol": f"s{i * i % 23}", "price": i / 7})
        for i in range(600)
    ]
    made = Pipeline("p").source(rows, series)
    config = RunnerConfig(grace="5s", upstream_timeout=60)
    made.stage("s", [ema, seen, mean("price"), count()], series, "10s", config, by="symbol")
    return made


def test_nodes_that_are_taken_away_and_added_change_no_result() -> None:
    expected = list(pipeline().replay())
    with nodes(0, 1, 1) as cluster:
        made = pipeline()
        replay = made.replay_sharded(2, address=cluster.address)
        before = signal.getsignal(signal.SIGTERM)
        found = [next(replay) for _ in range(4)]
        assert signal.getsignal(signal.SIGTERM) == before  # which Ray sets as it connects
        first = made.stats.shards
        assert len({one.process for one in first.values()}) == 2
        assert os.getpid() not in {one.process for one in first.values()}
        taken = next(iter(cluster.worker_nodes))
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        cluster.remove_node(taken)
        found += [next(replay) for _ in range(4)]
        os.kill(made.stats.shards["shard 0 of 2"].process, 9)
        found += replay
        assert found == expected
        assert not any(dataset.behind for _, dataset in found)
        assert sum(one.restarts for one in made.stats.shards.values()) == 2
        for process in [one.process for one in first.values()]:
            eventually(partial(_is_gone, process))


def _is_gone(process: int) -> bool:
    return not os.path.exists(f"/proc/{process}")


def test_an_address_without_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"address='auto': there is no cluster of Ray .*start"):
        pipeline().run_sharded(2, "auto")
    wrong: Any
    for wrong in ("", 3):
        with pytest.raises(ConfigError, match="it is that of a cluster of Ray"):
            pipeline().run_sharded(2, wrong)
