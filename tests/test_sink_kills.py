"""kill -9 at random moments, and going on from what the sink holds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import writer

KILLS = 10
OVER = {"ended\n", "failed\n"}
"""What a writer says last, if it is not killed."""


def expected(count: int) -> list[tuple[int, str, object]]:
    rows: list[tuple[int, str, object]] = []
    for end in range(1, count + 1):
        dataset = writer.window(end)
        rows += ((end, task, value) for task, value in dataset.items())
        rows += ((end, task, str(error)) for task, error in dataset.errors.items())
    return rows


def held(kind: str, where: str) -> tuple[int, list[tuple[int, str, object]]]:
    """The end of the last window that a sink holds, and its rows, in order of windows."""
    sink = writer.opened(kind, where)
    last = sink.last(writer.STAGE) or 0
    rows = [(row.end, row.task, row.error or row.value) for row in sink.rows()]
    sink.close()
    return last, sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "sqlite", "postgres"])
def test_whole_windows_up_to_the_last_flush_survive_and_can_be_resumed_from(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue("postgres_url") if kind == "postgres" else str(tmp_path)
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    kills = 0
    ended = False
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.writer", kind, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while not ended:
            process.stdin.write("start\n")
            pid = int(process.stdout.readline().split()[1])
            flushed = 0
            lines: list[str] = []
            if kills < KILLS:
                wanted = chance.randrange(8)
                while len(lines) < wanted and OVER.isdisjoint(lines):
                    lines.append(process.stdout.readline())
                time.sleep(chance.random() * 0.003)  # the moment is to be a random one
                os.kill(pid, signal.SIGKILL)
                kills += 1
            process.stdin.write("reap\n")
            while not lines or lines[-1] != "gone\n":
                lines.append(process.stdout.readline())
            assert "failed\n" not in lines, f"seed {seed}"
            for line in lines:
                ended = ended or line == "ended\n"
                if line.startswith("flushed"):
                    flushed = int(line.split()[1])
            if chance.random() < 0.5 or ended:  # else, the next writer finds it as it was left
                last, rows = held(kind, where)
                assert flushed <= last, f"seed {seed}"
                assert rows == expected(last), f"seed {seed}"
        process.stdin.close()
        assert process.wait(10) == 0
    assert held(kind, where) == (writer.WINDOWS, expected(writer.WINDOWS))
