"""A shard that is stopped, or hangs, is taken for dead; one that is at work is waited for."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import signal
import time
from typing import Any

import pytest
from tests.support.crews import alive
from tests.support.shards import LocalTransport, local_shards
from tests.support.threads import eventually
from tests.test_arrived import LiveFeed
from tests.test_cluster import orders, some_orders
from tests.test_cluster_partitions import patiently, running

from run_task import Pipeline, RunnerConfig, TimeSeriesView, TimeUnit, task
from run_task.aggregates import count
from run_task.cluster import _member, _processes
from run_task.cluster._cluster import Cluster
from run_task.cluster._link import MissedSigns
from run_task.pipeline._sharding import over_shards
from run_task.pipeline._stage import AnyStage
from run_task.runner._stats import ShardStats
from run_task.sources import paced

BOUND = 3.0
PATIENT = RunnerConfig(upstream_timeout=60)  # a busy machine takes its time to start a process


@pytest.fixture(autouse=True)
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, "MOST_SILENT", BOUND)
    monkeypatch.setattr(_member, "_SILENT", 2.0)


def over(*tasks: Any, rows: int = 30) -> Pipeline:
    made, series = Pipeline("p"), orders()
    made.source(some_orders(rows), series)
    made.stage("s", tasks, series, "10s", PATIENT, by="key")
    return made


@pytest.mark.parametrize("many", [0, 60_000])  # more than fits into a socket that nobody reads
def test_a_shard_that_is_stopped_is_killed_and_comes_back(
    many: int, caplog: pytest.LogCaptureFixture
) -> None:
    made, series = Pipeline("p"), orders()
    rows = some_orders(20)
    rows += [
        (1020 + n * 10 // max(many, 1), {"key": f"key-{n % 11}", "size": n}) for n in range(many)
    ]
    made.source([*rows, *some_orders(60)[30:]], series)
    made.stage("s", [count()], series, "10s", PATIENT, by="key")
    expected = [dataset for _, dataset in made.replay()]
    replay = made.replay_sharded(2)
    found = [next(replay)[1]]
    shard = made.stats.shards["shard 1 of 2"].process
    os.kill(shard, signal.SIGSTOP)
    found += [dataset for _, dataset in replay]
    assert found == expected
    assert [one.restarts for one in made.stats.shards.values()] == [0, 1]
    assert f"its process {shard} has given no sign of life for 3 s, and was killed" in caplog.text
    told = re.findall(r"shard 1 of 2 on \S+ has given no sign of life .*", caplog.text)
    assert len(told) == 1
    assert re.search(
        rf"for 2 s, since \d\d:\d\d:\d\d UTC: its process {shard} was stopped or hangs, or a task "
        rf"holds Python's lock; it is killed after 3 s without, unless its process works",
        told[0],
    )
    eventually(lambda: not alive(shard))


def test_what_a_pipeline_tells_of_a_shard_says_that_it_gives_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_processes, "MOST_SILENT", 600.0)
    made, series, feed = Pipeline("p"), orders(), LiveFeed()
    made.source(feed, series)
    made.stage("s", [count()], series, "1h", PATIENT, by="key")

    def told() -> ShardStats:
        return made.stats.shards["shard 1 of 2"]

    with running(made):
        patiently(lambda: made.is_running and told().is_running)
        assert told().reason == ""
        os.kill(told().process, signal.SIGSTOP)
        patiently(lambda: told().reason)
        stopped = f"its process {told().process} was stopped"
        assert re.match(rf"on \S+: no sign of life for \d+ s, since .*: {stopped}", told().reason)
        assert told().is_running
        os.kill(told().process, signal.SIGCONT)
        patiently(lambda: not told().reason)
        feed.put(None)


def test_a_shard_that_dies_while_no_window_asks_for_it_is_started_again_at_once() -> None:
    made, series = Pipeline("p"), orders()
    feed = LiveFeed()
    made.source(feed, series)
    made.stage("s", [count()], series, "1h", PATIENT, by="key")
    shard = "shard 1 of 2"
    with running(made):
        patiently(lambda: made.is_running)
        before = made.stats.shards[shard].process
        os.kill(before, signal.SIGKILL)
        patiently(lambda: made.stats.shards[shard].restarts == 1)
        assert made.stats.shards[shard].process not in (before, 0)
        feed.put(None)


def test_who_is_fed_by_a_stage_over_shards_waits_for_these_and_for_its_own_time() -> None:
    made, series = Pipeline("p"), orders()
    by_key = made.stage("s", [count()], series, "10s", RunnerConfig(upstream_timeout=3), by="key")
    all_ = made.stage("all", [newest], by_key.series(), "10s", RunnerConfig(upstream_timeout=5))
    last = made.stage("last", [newest], all_.series(), "10s", RunnerConfig(upstream_timeout=7))
    beside = made.stage("beside", [newest], series, "10s", RunnerConfig(upstream_timeout=9))
    stages: list[AnyStage] = [by_key, all_, last, beside]
    cluster = Cluster("p", LocalTransport(), 2)
    waits = over_shards(cluster, {stage: stage.config for stage in stages}, has_all)
    assert [waits[stage].upstream_timeout for stage in stages] == [3, 8, 10, 9]


@task
def newest(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


def has_all(*_: Any) -> bool:
    return True


def test_a_shard_that_gives_no_signs_is_told_once_and_when_it_gives_them_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = LocalTransport()
    made, series = Pipeline("p"), orders()
    made.source(paced(some_orders(2000), 20, unit=TimeUnit.SECONDS), series)
    made.stage("s", [count()], series, "10s", PATIENT, by="key")

    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "run_task.cluster"]

    with local_shards(transport), running(made) as run:
        eventually(lambda: len(transport.links) == 2)
        transport.links[1].missed_signs = MissedSigns(2.0, "killed after 30 s without")
        eventually(told)
        transport.links[1].missed_signs = MissedSigns(4.0, "killed after 30 s without")
        time.sleep(1)  # a look comes every 0.2 s
        transport.links[1].missed_signs = MissedSigns(0.0, "")
        eventually(lambda: len(told()) == 2)
        made.shutdown()
        run.result(60)
    silent, again = told()
    assert silent.startswith("pipeline 'p': shard 1 of 2 on node-1 has given no sign of life for 2")
    assert silent.endswith("it is killed after 30 s without")
    assert re.fullmatch(
        r"pipeline 'p': shard 1 of 2 gives signs of life again, after [24] s without", again
    )


def hold(seconds: float) -> None:
    """Work without letting go of Python's lock, but for a moment if it is done too early."""
    until = time.perf_counter() + seconds
    count = 10**6
    while (begun := time.perf_counter()) < until:
        sum(itertools.repeat(1, count))
        now = time.perf_counter()
        count = max(10**6, int(count * (until - now) / (now - begun)))


@task
def sleeps(view: TimeSeriesView, start: int, end: int) -> int:
    if view.key == "key-5" and start == 1000:
        time.sleep(2 * BOUND)
    return len(view.in_window)


@task
def works(view: TimeSeriesView, start: int, end: int) -> int:
    if view.key == "key-5" and start == 1000:
        hold(2 * BOUND)
    return len(view.in_window)


@task
def hangs(view: TimeSeriesView, start: int, end: int) -> int:
    """It waits without letting go of Python's lock."""
    if view.key == "key-5" and start == 1010:
        ctypes.PyDLL(None).sleep(1000)
    return len(view.in_window)


@pytest.mark.parametrize("slow", [sleeps, works])
def test_a_task_that_takes_its_time_is_waited_for(slow: Any) -> None:
    made = over(slow)
    begun = time.monotonic()
    datasets = [dataset for _, dataset in made.replay_sharded(1)]
    assert time.monotonic() - begun > 1.5 * BOUND
    assert len(datasets) == 3
    assert not any(dataset.errors for dataset in datasets)
    assert [one.restarts for one in made.stats.shards.values()] == [0]


def test_a_task_that_hangs_with_pythons_lock_costs_its_window() -> None:
    made = over(hangs)
    first, second, third = [dataset for _, dataset in made.replay_sharded(1)]
    assert not first.errors
    assert "no sign of life" in str(second.errors["hangs", "key-5"])
    assert not third.errors


@task
def never_ends(view: TimeSeriesView, start: int, end: int) -> int:
    if view.key == "key-5":
        time.sleep(1000)
    return len(view.in_window)


def test_a_shard_with_a_task_that_hangs_is_ended_at_a_shutdown_and_not_said_to_be_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, series = Pipeline("p"), orders()
    made.source(paced(some_orders(2000), 20, unit=TimeUnit.SECONDS), series)
    config = RunnerConfig(shutdown_timeout=0.5)
    made.stage("s", [never_ends], series, "10s", config, by="key")
    with running(made) as run:

        def one_hangs() -> bool:
            behind = sorted(one.seconds_behind for one in made.stats.shards.values())
            return len(behind) == 2 and behind[0] == 0 and behind[1] > 0.2

        patiently(one_hangs)
        shards = [one.process for one in made.stats.shards.values()]
        made.shutdown()
        run.result(60)
    assert not any(map(alive, shards))
    told = [r.getMessage() for r in caplog.records if r.name == "run_task.cluster"]
    told = [one for one in told if "loads the tasks" not in one]  # on a machine that is busy
    assert len(told) == 1
    assert "is ended, and is started again: a window that it runs is given up" in told[0]
