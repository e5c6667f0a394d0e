"""kill -9 at random moments: a pipeline with checkpoints gives what it would have given."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tests.support import checkpointed
from tests.support.forking import Forking

pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

KILLS = checkpointed.KILLS


def test_a_kill_between_two_steps_of_a_checkpoint_leaves_what_a_run_goes_on_from(
    tmp_path: Path,
) -> None:
    expected = undisturbed("ways", tmp_path / "undisturbed")
    where = tmp_path / "killed"
    where.mkdir()
    with Forking("checkpointed", "ways", str(where), *checkpointed.STEPS) as program:
        for step in checkpointed.STEPS:
            before = last_number(where / "state")
            program.start()
            lines = program.reap()  # it kills itself
            assert "ended\n" not in lines, step
            assert "failed\n" not in lines, step
            assert last_number(where / "state") - before >= checkpointed.AT - 1, step
        program.start()
        assert "ended\n" in program.reap()
        program.finish()
    assert [*checkpointed.results(where)] == expected
    texts = "".join(path.read_text() for path in (where / "state").glob("checkpoint-*.json"))
    for path in (where / "state").glob("part-*.bin"):  # none is left that nobody refers to
        assert path.stem.split("-", 2)[2] in texts


def undisturbed(kind: str, where: Path) -> list[object]:
    """What a replay gives, which is what a live run does that nobody disturbs."""
    where.mkdir()
    if kind == "csv":
        checkpointed.write_csv(where)
    with checkpointed.pipeline(kind, where, checkpoint=False).replay() as replay:
        for _ in replay:
            pass
    return [*checkpointed.results(where)]


def last_number(state: Path) -> int:
    """The number of the last checkpoint that is there."""
    paths = state.glob("checkpoint-*.json") if state.exists() else ()
    return max((int(path.stem.rpartition("-")[2]) for path in paths), default=0)


@pytest.mark.parametrize("kind", ["csv", "ways"])
def test_after_kills_the_results_are_those_of_an_undisturbed_run(kind: str, tmp_path: Path) -> None:
    expected = undisturbed(kind, tmp_path / "undisturbed")
    where = tmp_path / "killed"
    where.mkdir()
    if kind == "csv":
        checkpointed.write_csv(where)
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    kills = 0
    numbers: set[int] = set()
    with Forking("checkpointed", kind, str(where)) as program:
        while True:
            program.start()
            lines: list[str] = []
            if kills < KILLS:
                if chance.random() < 0.8:  # else it may only be about to begin
                    lines.append(program.line())
                time.sleep(chance.random() * 0.1)  # the moment is to be a random one
                program.kill()
                kills += 1
            lines += program.reap()
            numbers.add(last_number(where / "state"))
            assert "failed\n" not in lines, f"seed {seed}"
            if "ended\n" in lines:
                break
        program.finish()
    assert kills == KILLS, f"seed {seed}: it was over before"
    assert len(numbers) > KILLS / 2, "few runs came as far as to a checkpoint"
    found = [*checkpointed.results(where)]
    assert found == expected, f"seed {seed}"
