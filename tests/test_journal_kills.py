"""kill -9 at random moments: what a live feed gave is in its journal, and a replay of that gives
what the runs gave together, which went on from their checkpoints."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import Forking
from tests.support.threads import eventually

pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

from tests.support import journal_keeper  # which imports it

from run_task.sinks import SqlSink
from run_task.sources import Journal


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.journal"))


def results(path: Path) -> dict[tuple[int, str], Any]:
    sink = SqlSink(path)
    sink.begin("p")
    found = {(row.end, row.task): row.value for row in sink.rows()}
    sink.close()
    return found


def test_after_kills_the_results_are_those_of_a_replay_of_the_journal(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    kills = 0
    with Forking("journal_keeper", str(tmp_path)) as program:
        while True:
            program.start()
            lines: list[str] = []
            if kills < journal_keeper.KILLS:
                before = size_of(tmp_path / "raw")
                lines.append(program.line())
                eventually(lambda: size_of(tmp_path / "raw") > before)  # noqa: B023  asked at once
                time.sleep(chance.random() * 0.2)  # the moment is to be a random one
                program.kill()
                kills += 1
            lines += program.reap()
            assert "failed\n" not in lines, f"seed {seed}"
            if "ended\n" in lines:
                break
        program.finish()
    assert kills == journal_keeper.KILLS
    arrivals = [item.arrival for item in Journal(tmp_path / "raw")]
    assert arrivals == sorted(arrivals)
    sink = SqlSink(tmp_path / "replayed.db")
    with journal_keeper.pipeline(tmp_path, 0.0, sink, checkpoint=False).replay() as replay:
        for _ in replay:
            pass
    sink.close()
    expected, found = results(tmp_path / "replayed.db"), results(tmp_path / "results.db")
    assert len(expected) > 5 * kills
    wrong = [
        (key, value, found.get(key)) for key, value in expected.items() if found.get(key) != value
    ]
    assert not wrong, f"seed {seed}"
