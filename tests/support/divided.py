"""A pipeline with checkpoints whose shards read the partitions of a topic by themselves; started by
test_cluster_topics, which kills it."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.support import brokered
from tests.support.forking import fork_when_told
from tests.support.writer import say


def run(port: str, name: str, where: str, shards: str) -> None:
    """Run it until windows are done that come after the last row, as a file says it."""
    folder = Path(where)
    source = brokered.source_of("kafka", int(port), name)
    made, every = brokered.pipeline("kafka", source, folder, journal=None, partitioned=True)
    brokered.shut_down_once(brokered.past_the_last(every, folder / "last"), made)
    made.run_sharded(int(shards))
    (folder / "ended").touch()


def main() -> None:
    brokered.import_all()
    importlib.import_module("confluent_kafka")
    say("ready")
    fork_when_told(run)


if __name__ == "__main__":
    main()
