"""kill -9 of a driver and of its shards at random moments: what the sinks hold in the end is what
an undisturbed run of one process would have written."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support import checkpointed, partitioned
from tests.support.databases import postgres
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
    # Another number each time: keys move, with their states. 0: one process.
    kill_and_go_on("sharded", where, (2, 3, 1, 0), KILLS, expected)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_after_kills_a_table_that_shards_write_is_that_of_one_process(
    kind: str, tmp_path: Path
) -> None:
    expected = undisturbed("ways", tmp_path / "undisturbed")
    where = tmp_path / "killed"
    where.mkdir()
    (where / "sharded").touch()
    with postgres() if kind == "postgres" else contextlib.nullcontext("") as url:
        if url:
            (where / "database").write_text(url)
        kill_and_go_on("sharded", where, (2, 3, 1, 0), KILLS, expected)


def test_after_kills_shards_that_read_by_themselves_give_the_same(tmp_path: Path) -> None:
    for where in (tmp_path / "undisturbed", tmp_path / "killed"):
        where.mkdir()
        partitioned.write_files(where)
    with partitioned.pipeline(tmp_path / "undisturbed", checkpoint=False).replay() as replay:
        for _ in replay:
            pass
    expected = [*checkpointed.results(tmp_path / "undisturbed")]
    kill_and_go_on("partitioned", tmp_path / "killed", (2, 3, 1), in_proof(10, short=3), expected)


def kill_and_go_on(
    module: str, where: Path, counts: Sequence[int], kills: int, expected: Sequence[object]
) -> None:
    """Kill a driver and its shards again and again, and see what the sink holds in the end.

    :param module: what runs it
    :param counts: how many shards there are, in turn
    :param kills: how often the driver is killed
    """
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    shards: list[int] = []
    with Forking(module) as program:
        for number in range(kills):
            program.start(where, counts[number % len(counts)], 1.0)
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
