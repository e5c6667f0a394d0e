"""Shards on a cluster of Ray of several nodes, all on this machine."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import socketserver
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import free_port
from tests.support.databases import postgres
from tests.support.part_sinks import HomeSink
from tests.support.ray_nodes import add_node, nodes
from tests.support.stateful import ema, seen
from tests.support.threads import PATIENCE, beside, eventually
from tests.test_cluster_partitions import folder, of_files

from run_task import ConfigError, Pipeline, RunnerConfig, TimeSeries, TimeUnit
from run_task.aggregates import count, mean
from run_task.sinks import Layout

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def pipeline(tasks: Any = None) -> Pipeline:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, "60s", key="symbol")
    rows = [
        (1000 + i // 4 - 9 * (i % 13 == 0), {"symbol": f"s{i * i % 23}", "price": i / 7})
        for i in range(600)
    ]
    made = Pipeline("p").source(rows, series)
    config = RunnerConfig(grace="5s", upstream_timeout=60)
    run = [ema, seen, mean("price"), count()] if tasks is None else tasks
    made.stage("s", run, series, "10s", config, by="symbol")
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
        add_node(cluster)
        cluster.remove_node(taken)
        found += [next(replay) for _ in range(4)]
        os.kill(made.stats.shards["shard 0 of 2"].process, 9)
        found += replay
        assert found == expected
        assert not any(dataset.behind for _, dataset in found)
        assert sum(one.restarts for one in made.stats.shards.values()) == 2
        for process in [one.process for one in first.values()]:
            eventually(partial(_is_gone, process))


def test_actors_that_read_files_by_themselves_read_them_again_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    where = folder(tmp_path / "rows")
    expected = list(of_files(where).replay())
    with nodes(0, 1, 1) as cluster:
        made = of_files(where)
        replay = made.replay_sharded(2, address=cluster.address)
        found = [next(replay) for _ in range(5)]
        os.kill(made.stats.shards["shard 1 of 2"].process, 9)
        found += [next(replay) for _ in range(5)]
        taken = next(iter(cluster.worker_nodes))
        add_node(cluster)
        cluster.remove_node(taken)
        found += replay
        assert found == expected
        assert sum(one.restarts for one in made.stats.shards.values()) == 2


def _is_gone(process: int) -> bool:
    return not os.path.exists(f"/proc/{process}")


def test_several_pipelines_of_a_program_share_a_cluster_until_the_last_has_ended() -> None:
    expected = list(pipeline().replay())
    with nodes(0, 1, 1) as cluster:

        def replayed(windows: int) -> list[Any]:
            with closing(pipeline().replay_sharded(1, address=cluster.address)) as replay:
                return list(itertools.islice(replay, windows))

        few, many = 1, len(expected)
        with beside(lambda: replayed(few)) as one, beside(lambda: replayed(many)) as other:
            assert one.result(PATIENCE * 6) == expected[:few]
            assert other.result(PATIENCE * 6) == expected
        assert not importlib.import_module("ray").is_initialized()
        with (
            closing(pipeline().replay_sharded(1, address=cluster.address)) as replay,
            pytest.raises(ConfigError, match="another pipeline of this process runs at"),
        ):
            next(replay)
            next(pipeline().replay_sharded(1, address="auto"))
        assert not importlib.import_module("ray").is_initialized()


def test_an_address_without_a_cluster_is_refused() -> None:
    for address in (f"127.0.0.1:{(port := free_port())}", f"ray://127.0.0.1:{port}"):
        told = f"address='{address}': there is no cluster of Ray .*refused.*start"
        with pytest.raises(ConfigError, match=told):
            pipeline().run_sharded(2, address)
    wrong: Any
    for wrong in ("", 3):
        with pytest.raises(ConfigError, match="it is that of a cluster of Ray"):
            pipeline().run_sharded(2, wrong)


@contextmanager
def answering(answer: bytes) -> Generator[int]:
    """A service that answers this to whatever it is told, and ends the connection. Gives its
    port."""

    class Service(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"answers b'HTTP/1\.1 '"),
        (b"-ERR\r\n", r"answers b'-ERR\\r\\n'"),
        (b"", "ends the connection"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_another_service_at_the_address_is_refused_at_once(
    scheme: str, answer: bytes, told: str
) -> None:
    with answering(answer) as port:
        begun = time.monotonic()
        with pytest.raises(ConfigError, match=f"no cluster of Ray .*listens there {told}, as no"):
            pipeline().run_sharded(2, f"{scheme}127.0.0.1:{port}")
        assert time.monotonic() - begun < 5  # Ray itself takes twenty and more


@pytest.mark.parametrize("layout", [Layout.LONG, Layout.WIDE])
def test_actors_write_to_a_database_by_themselves(tmp_path: Path, layout: Layout) -> None:
    tasks: list[Any] = [mean("price"), count()]
    tasks += [ema, seen] if layout is Layout.LONG else []
    found: list[Any] = []
    with postgres() as url, nodes(0, 1, 1) as cluster:
        for table in ("one", "sharded"):
            made = pipeline(tasks)
            sink = HomeSink(url, table=table, layout=layout)
            made.stages[0].sink(sink, sharded=True)
            if table == "one":
                list(made.replay())
            else:
                replay = made.replay_sharded(2, address=cluster.address)
                for _ in range(4):
                    next(replay)
                os.kill(made.stats.shards["shard 1 of 2"].process, 9)
                list(replay)
                assert sum(one.restarts for one in made.stats.shards.values()) == 1
            assert bool(sink.keys_at_home) == (table == "one")
            found.append(sorted(sink.rows(), key=lambda row: (*row[:4], row.key, row.task)))
            sink.close()
    assert found[0]
    assert found[1] == found[0]
