"""A cluster of Ray of several nodes, all on this machine, for tests and measurements."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STORE = 80_000_000
"""How many bytes of objects a node holds."""


@contextmanager
def nodes(*cores: int, client_port: int | None = None) -> Generator[Any]:
    """A cluster of nodes, each with so many cores, the first of which is the head.

    :param client_port: where the head serves clients, for ``ray://``; None: it serves none
    """
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    make: Any = importlib.import_module("ray.cluster_utils").Cluster  # of no types
    head = {
        "num_cpus": cores[0],
        "include_dashboard": False,
        "object_store_memory": STORE,
        "ray_client_server_port": client_port,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _own_sigterm():
            cluster = make(initialize_head=True, head_node_args=head)
        try:
            for count_of_cores in cores[1:]:
                add_node(cluster, count_of_cores)
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Any, cores: int = 1) -> Any:
    """Add a node with so many cores."""
    with _own_sigterm():
        return cluster.add_node(num_cpus=cores, object_store_memory=STORE)


def shard_processes(cluster: Any) -> list[int]:
    """The processes of shards on all nodes of a cluster."""
    raylets = {
        raylet.process.pid
        for node in (*cluster.worker_nodes, cluster.head_node)
        for raylet in node.all_processes.get("raylet", ())
    }
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (folder / "cmdline").read_text().startswith("ray::ShardActor"):
                found.append(int(folder.name))
    return found


@contextmanager
def _own_sigterm() -> Generator[None]:
    """Keep what SIGTERM does in this program: with each node, Ray has it end the program."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
