"""kill -9 at random moments, and going on from what the sink holds."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import pytest
from tests.support import writer
from tests.support.forking import Forking
from tests.support.proof import in_proof

KILLS = in_proof(10, short=4)
SERVERS = "postgres", "mariadb"
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


FEW = ["jsonl", "rotated-csv", "wide-csv", "wide-parquet", "sqlite", "postgres", "wide-mariadb"]
REST = [
    *("csv", "rotated-jsonl", "rotated-wide-csv", "parquet"),
    *("mariadb", "wide-sqlite", "wide-postgres", "wide-duckdb"),
]


@pytest.mark.parametrize("kind", in_proof([*FEW, *REST], short=FEW))
def test_whole_windows_up_to_the_last_flush_survive_and_can_be_resumed_from(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = kind.removeprefix("wide-")
    where = request.getfixturevalue(f"{server}_url") if server in SERVERS else str(tmp_path)
    if server == "duckdb":
        pytest.importorskip("duckdb_engine")
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    kills = 0
    ended = False
    with Forking("writer", kind, where) as program:
        while not ended:
            program.start()
            flushed = 0
            lines: list[str] = []
            if kills < KILLS:
                wanted = chance.randrange(8)
                while len(lines) < wanted and OVER.isdisjoint(lines):
                    lines.append(program.line())
                time.sleep(chance.random() * 0.003)  # the moment is to be a random one
                program.kill()
                kills += 1
            lines += program.reap()
            assert "failed\n" not in lines, f"seed {seed}"
            for line in lines:
                ended = ended or line == "ended\n"
                if line.startswith("flushed"):
                    flushed = int(line.split()[1])
            if chance.random() < 0.5 or ended:  # else, the next writer finds it as it was left
                last, rows = held(kind, where)
                assert flushed <= last, f"seed {seed}"
                assert rows == expected(last), f"seed {seed}"
        program.finish()
    assert held(kind, where) == (writer.WINDOWS, expected(writer.WINDOWS))


def wide_header(path: Path) -> bytes:
    """The header of a CSV file, as a wide one has it."""
    with path.open("rb") as file:
        line = file.readline()
    return line if line.startswith(b"window_start") else b""


def change(where: Path, chance: random.Random) -> None:
    """Do to the files of a sink what programs do that rotate logs, or people."""
    beside = {".lock", "file.columns"}  # which nobody rotates
    files = [path for path in where.rglob("*") if path.is_file() and path.name not in beside]
    if not files:
        return
    path = chance.choice(files)
    with contextlib.suppress(FileNotFoundError):  # the sink may have merged it meanwhile
        match chance.randrange(2 if path.suffix == ".parquet" else 4):
            case 0:
                path.unlink()
            case 1:
                path.rename(where.parent / f"{random.randrange(10**9)}")
            case 2:
                os.truncate(path, 0)
            case _:
                least = len(wide_header(path))  # a part of which could be anybody's
                os.truncate(path, max(least, chance.randrange(path.stat().st_size + 1)))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "wide-csv", "parquet", "wide-parquet"])
def test_what_others_rotate_holds_whole_windows_and_can_be_opened_at_any_moment(
    kind: str, tmp_path: Path
) -> None:
    where = tmp_path / "where"
    where.mkdir()
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    with (
        (tmp_path / "errors").open("w+") as told,
        Forking("writer", kind, str(where), errors=told) as program,
    ):
        for run in range(KILLS):
            program.start()
            line = "flushed 0 0"
            for _ in range(chance.randrange(1, 12)):
                if (line := program.line()) in OVER:
                    break
                time.sleep(chance.random() * 0.003)
                change(where, chance)
            changed = time.monotonic_ns()
            if run < KILLS - 1:
                # A flush notices what was changed before it, or meanwhile. Were it killed before it
                # does, the file could be one that begins with half a header, and is refused.
                while line not in OVER and int(line.split()[2]) < changed:
                    line = program.line()
                program.kill()
            program.reap()
            last, rows = held(kind, str(where))
            whole = expected(writer.WINDOWS)
            assert last <= writer.WINDOWS
            assert len(rows) % 3 == 0, f"seed {seed}"
            assert all(row in whole for row in rows), f"seed {seed}"
            assert len({end for end, _, _ in rows}) * 3 == len(rows), f"seed {seed}"
        program.finish()
        told.seek(0)
        errors = told.read()
    # Where a run was told of a change, it was by an error that names what was changed.
    for failure in errors.split(writer.FAILED)[:-1]:
        assert failure.splitlines()[-1].startswith("run_task.SinkError"), errors
