"""A pipeline with checkpoints whose shards read the partitions of a topic, or files that grow, by
themselves; started by test_cluster_topics and test_cluster_growing, which kill it."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.support import brokered
from tests.support.feeds import MODULES
from tests.support.forking import fork_when_told
from tests.support.writer import say


def run(kind: str, port: str, name: str, where: str, shards: str) -> None:
    """Run it until windows are done that come after the last row, as a file says it."""
    folder = Path(where)
    source = brokered.source_of(kind, int(port), name)
    made, every = brokered.pipeline(kind, source, folder, journal=None, partitioned=True)
    brokered.shut_down_once(brokered.past_the_last(every, folder / "last"), made)
    made.run_sharded(int(shards))
    (folder / "ended").touch()


def import_client(kind: str, *_: str) -> None:
    """Import the client of a kind of feed."""
    if kind in MODULES:
        importlib.import_module(MODULES[kind])


def main() -> None:
    brokered.import_all()
    say("ready")
    fork_when_told(run, before=import_client)


if __name__ == "__main__":
    main()
