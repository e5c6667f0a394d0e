"""kill -9: rows that come again after a restart enter once."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from tests.support import redelivered
from tests.support.forking import Forking

pytest.importorskip("pyarrow")

KILLS = 3


def test_rows_that_come_again_after_a_kill_enter_once(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    with Forking("redelivered", str(tmp_path)) as program:
        for _ in range(KILLS):
            program.start()
            assert program.line() == "runs\n"
            time.sleep(chance.random() * 0.03)  # the moment is to be a random one
            program.kill()
            program.reap()
        program.start()
        said = [line for line in program.reap() if line.startswith("[")]
        program.finish()
    ids, stored, duplicate = json.loads(said[0])
    assert ids == [f"row {i}" for i in range(redelivered.ROWS)], f"seed {seed}"
    assert stored < redelivered.ROWS - redelivered.AGAIN, f"seed {seed}"
    assert duplicate == redelivered.AGAIN, f"seed {seed}"
