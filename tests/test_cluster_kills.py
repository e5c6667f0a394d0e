"""kill -9 of a driver and of its shards at random moments: what the sinks hold in the end is what
an undisturbed run of one process would have written."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.support import checkpointed
from tests.support.forking import Forking
from tests.support.proof import in_proof
from tests.test_checkpoint_kills import undisturbed

pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

KILLS = in_proof(20, short=3)


def shards_of(driver: int) -> list[int]:
    """The processes that a driver has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{driver}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += map(int, (thread / "children").read_text().split())
    return found


def test_after_kills_the_results_are_those_of_one_process(tmp_path: Path) -> None:
    expected = undisturbed("ways", tmp_path / "undisturbed")
    where = tmp_path / "killed"
    where.mkdir()
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    shards: list[int] = []
    with Forking("sharded") as program:
        for number in range(KILLS):
            # Another number each time: keys move, with their states. None: one process.
            program.start(where, (2, 3, 1, 0)[number % 4], 1.0)
            lines = [program.line()]
            shards = shards_of(program.pid)
            if shards and chance.random() < 0.7:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(shards), signal.SIGKILL)
                time.sleep(chance.random() * 0.5)
            time.sleep(chance.random() * 0.2)  # the moment is to be a random one
            program.kill()
            lines += program.reap()
            assert lines == ["runs\n", "gone\n"], f"seed {seed}"
        program.start(where, 2, 20.0)
        assert "ended\n" in program.reap(), f"seed {seed}"
        program.finish()
    assert [*checkpointed.results(where)] == expected, f"seed {seed}"
    for shard in shards:
        assert not Path(f"/proc/{shard}").exists()
