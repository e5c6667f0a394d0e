"""Shards on a cluster of Ray that die, or that nobody wants any more, while they are started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.support.ray_nodes import add_node, nodes
from tests.support.threads import PATIENCE, beside, eventually
from tests.test_cluster import declared, orders
from tests.test_cluster_ray import pipeline
from tests.test_cluster_signs import sleeps

from run_task import ConfigError
from run_task.cluster._link import ShardPlace
from run_task.cluster._ray import ShardActor
from run_task.runner._stats import ShardState

ray: Any = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    with nodes(0, 1, 1) as made:
        yield made


@contextmanager
def done_by_each(deed: Callable[[int], object], folder: Path) -> Generator[Callable[[], int]]:
    """A block in which the actor of each shard does something as it begins. Gives how many have."""

    class Doing(ShardActor):
        def __init__(self, path: list[str]) -> None:
            import tempfile

            tempfile.mkdtemp(dir=folder)
            deed(len(list(folder.iterdir())))
            super().__init__(path)

    with mock.patch("run_task.cluster._ray.ShardActor", Doing):
        yield lambda: len(list(folder.iterdir()))


def test_a_shard_whose_node_dies_while_it_starts_is_started_on_another(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def with_its_node(number: int) -> None:
        if number == 1:
            import os
            import signal

            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

    expected = [dataset for _, dataset in declared(orders()).replay()]
    add_node(cluster)
    with done_by_each(with_its_node, tmp_path) as begun:
        found = declared(orders()).replay_sharded(2, address=cluster.address)
        assert [dataset for _, dataset in found] == expected
    assert begun() == 3
    (told,) = [r.message for r in caplog.records if "lost while it was started" in r.message]
    assert len(told) < 250


def test_one_that_cannot_be_made_is_told_at_once_with_its_cause(
    cluster: Any, tmp_path: Path
) -> None:
    def fail(number: int) -> None:
        raise ValueError("there is no such module")

    told = "cannot be made there: ValueError: there is no such module: install on each node"
    with done_by_each(fail, tmp_path) as begun, pytest.raises(ConfigError, match=told):
        declared(orders()).run_sharded(1, cluster.address)
    assert begun() == 1
    assert not ray.is_initialized()


def test_a_node_with_other_versions_is_refused_by_name(cluster: Any) -> None:
    class Other(ShardActor):
        def place(self) -> ShardPlace:
            node, process, versions = super().place()
            return ShardPlace(node, process, {**versions, "NumPy": "1.2.3"})

    told = r"shard 0 on \S+ has NumPy 1\.2\.3, and this process has .*: install the same on each"
    with (
        mock.patch("run_task.cluster._ray.ShardActor", Other),
        pytest.raises(ConfigError, match=told),
    ):
        declared(orders()).run_sharded(1, cluster.address)
    assert not ray.is_initialized()


def test_a_cluster_of_another_ray_is_refused_with_both_versions() -> None:
    said = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.12.1\nThis"
    )
    told = r"Version mismatch: .* Ray: 2\.9\.0 Python: 3\.12\.1 This: install the same on each node"
    with (
        mock.patch("ray.init", side_effect=RuntimeError(said)),
        pytest.raises(ConfigError, match=told),
    ):
        declared(orders()).run_sharded(1, "auto")


def test_a_shutdown_while_shards_wait_for_room_ends_them_at_once(
    cluster: Any, tmp_path: Path
) -> None:
    made = declared(orders())
    with done_by_each(lambda number: None, tmp_path) as begun:

        def shutdown() -> float:
            eventually(begun)
            made.shutdown()
            return time.monotonic()

        with beside(shutdown) as at:
            made.run_sharded(64, cluster.address)
            assert time.monotonic() - at.result() < PATIENCE
    assert {one.state for one in made.stats.shards.values()} == {ShardState.ENDED}
    assert not ray.is_initialized()


def test_an_actor_that_is_stopped_is_killed_and_comes_back(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    add_node(cluster)  # an actor that is stopped may keep its core for a while
    made = pipeline()
    expected = list(pipeline().replay())
    with mock.patch("run_task.cluster._ray.MOST_SILENT", 2.0):
        replay = made.replay_sharded(2, address=cluster.address)
        found = [next(replay)]
        shard = made.stats.shards["shard 1 of 2"].process
        os.kill(shard, signal.SIGSTOP)
        found += replay
    assert found == expected
    assert [one.restarts for one in made.stats.shards.values()] == [0, 1]
    assert f"its process {shard} on" in caplog.text
    assert "has given no sign of life for 2 s" in caplog.text


def test_an_actor_whose_task_takes_its_time_is_waited_for(cluster: Any) -> None:
    with (
        mock.patch("run_task.cluster._ray.MOST_SILENT", 2.0),
        mock.patch("run_task.cluster._ray._ASKED_AFTER", 1.0),
    ):
        made = declared(orders(), sleeps)
        datasets = [dataset for _, dataset in made.replay_sharded(1, address=cluster.address)]
    assert not any(dataset.errors for dataset in datasets)
    assert [one.restarts for one in made.stats.shards.values()] == [0]


def test_ctrl_c_while_ray_connects_leaves_nothing() -> None:
    connects = threading.Event()
    init = ray.init

    def noting(**options: Any) -> Any:
        connects.set()
        return init(**options)

    def interrupt() -> float:
        connects.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        return time.monotonic()

    before = signal.getsignal(signal.SIGTERM)
    with mock.patch("ray.init", noting), beside(interrupt) as at:
        with pytest.raises(KeyboardInterrupt):
            declared(orders()).run_sharded(1, "local")
        assert time.monotonic() - at.result() < 2
    assert signal.getsignal(signal.SIGTERM) == before
    until = time.monotonic() + 6 * PATIENCE  # which Ray may take to start a cluster
    while "run-task Ray" in {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not ray.is_initialized()


def test_more_shards_than_the_cores_of_a_cluster_of_the_run_are_refused_at_once() -> None:
    told = "shards at most, or run them in processes"
    patient = mock.patch("run_task.cluster._ray._HELLO", 1e9)
    with patient, pytest.raises(ConfigError, match=told):
        declared(orders()).run_sharded(500, "local")
    assert not ray.is_initialized()
