"""Actors, nodes and the driver of a run over shards on Ray are killed at random: the table in a
database equals that of an undisturbed run of one process."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.databases import postgres
from tests.support.feeds import feed_of
from tests.support.forking import Forking
from tests.support.proof import in_proof
from tests.support.ray_nodes import add_node, nodes, shard_processes
from tests.support.threads import eventually

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("msgspec")
pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

from tests.test_broker_kills import (
    Published,
    last_number,
    replayed,
    results,
    rows_of,
    until,
    whole,
)

_log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = in_proof(20, short=2)
RATE = 1_000
"""How many rows are published a second."""


def kill_an_actor(cluster: Any, chance: random.Random) -> None:
    if found := shard_processes(cluster):
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)


def kill_a_node(cluster: Any, chance: random.Random) -> None:
    cluster.remove_node(chance.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
    add_node(cluster, 2)


def has_gone_on(published: Published, state: Path, before: int) -> bool:
    """Whether there is a checkpoint of what was published since one."""
    published.publish(RATE)
    time.sleep(0.01)
    return last_number(state) > before + 1  # a first one is made as it begins


def test_after_kills_the_table_is_that_of_one_process(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    folder = tmp_path / "disturbed"
    folder.mkdir()
    state, ended = folder / "state", folder / "ended"
    kills = ["actor", "node", "driver"] * -(-KILLS // 3)
    chance.shuffle(kills)
    kills = kills[:KILLS]
    begun = time.monotonic()
    with (
        postgres() as url,
        feed_of("redis", tmp_path / "server", restarts=False) as feed,
        nodes(0, 2, 2) as cluster,
        Forking("brokered") as program,
    ):
        assert program.line() == "ready\n"
        words = ("redis", feed.port, feed.name, folder, url, cluster.address, 2)
        lines: list[str] = []
        program.start(*words)
        try:
            until(lambda: last_number(state))
            published = Published(feed, chance, repeats=False)
            for kill in kills:
                until(partial(has_gone_on, published, state, last_number(state)))
                time.sleep(chance.random() * 0.4)  # the moment is to be a random one
                if kill == "driver":
                    program.kill()
                    lines += program.reap()
                    program.start(*words)
                else:
                    (kill_an_actor if kill == "actor" else kill_a_node)(cluster, chance)
            published.publish(RATE)
            published.say_the_last(folder / "last")
            until(ended.exists)
            eventually(lambda: not shard_processes(cluster))
        finally:
            if not ended.exists():
                program.kill()
            lines += program.reap()
        program.finish()
        assert "failed\n" not in lines, f"seed {seed}"
        got = results(url)
    rows = rows_of(published)
    expected = replayed("redis", rows, tmp_path / "undisturbed", None)
    took = time.monotonic() - begun
    _log.info("%s: %d rows in %.1f s", kills, len(rows), took)
    got, expected = whole(got, expected)
    assert len(got) == len(expected), f"seed {seed}"
    assert got == expected, f"seed {seed}"
