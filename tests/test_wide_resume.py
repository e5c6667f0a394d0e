"""A pipeline that writes to a wide sink, is killed, and resumes from what that holds."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import resumer
from tests.support.forking import Forking
from tests.support.writer import opened

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("sqlalchemy")


KILLS = 4


def held(kind: str, folder: Path) -> list[Any]:
    sink = opened(kind, str(folder))
    rows = sorted((row.start, row.end, row.task, str(row.value)) for row in sink.rows())
    sink.close()
    return rows


@pytest.mark.parametrize("kind", ["wide-csv", "wide-parquet", "wide-sqlite"])
def test_a_run_that_is_killed_and_resumed_ends_up_as_an_undisturbed_one(
    kind: str, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    sink = opened(kind, str(whole))
    count = sum(1 for _ in resumer.pipeline(sink, rows=resumer.rows(), kind=kind).replay())
    sink.close()
    undisturbed = held(kind, whole)
    assert len(undisturbed) > count

    seed = random.randrange(10**9)
    chance = random.Random(seed)
    ended = False
    with Forking("resumer", kind, str(killed)) as program:
        for run in range(KILLS + 1):
            program.start()
            if run < KILLS:
                for _ in range(chance.randrange(4)):
                    if program.line() == "ended\n":
                        ended = True
                        break
                time.sleep(chance.random() * 0.004)  # the moment is to be a random one
                program.kill()
            ended = "ended\n" in program.reap() or ended
        program.finish()
    assert ended
    assert held(kind, killed) == undisturbed, f"seed {seed}"

    sink = opened(kind, str(killed))
    again = resumer.pipeline(sink, rows=resumer.rows(), kind=kind).resume(sink)
    ends = [dataset.timestamp for stage, dataset in again if stage == "means"]
    sink.close()
    assert ends == [max(row[1] for row in undisturbed)]
    assert held(kind, killed) == undisturbed
