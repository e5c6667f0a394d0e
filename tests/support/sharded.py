"""A pipeline with checkpoints over shards whose driver is killed; started by test_cluster_kills."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.checkpointed import pipeline, tell
from tests.support.forking import fork_when_told
from tests.support.preload import preload


def run(where: str, shards: str, speed: str) -> None:
    """Go on from the last checkpoint, with so many shards."""
    made = pipeline("ways", Path(where), speed=float(speed))
    threading.Thread(target=tell, args=[made], daemon=True).start()
    if shards == "0":
        made.run_sync()
    else:
        made.run_sharded(int(shards))


if __name__ == "__main__":
    preload("arrow", "sqlite", "postgres")
    fork_when_told(run)
