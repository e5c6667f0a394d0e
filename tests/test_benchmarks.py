"""The benchmarks run where their peers are not installed. What they measure is not judged here."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from benchmarks import apart, peers, picture
from benchmarks.__main__ import LATEST, PICTURES, RESULTS
from benchmarks.__main__ import arguments as command_line
from benchmarks.measure import Figure, side_by_side
from benchmarks.question import (
    Bound,
    Effort,
    Goal,
    Line,
    Question,
    Role,
    Skipped,
    Verdict,
    compared,
)
from benchmarks.sections import SECTIONS
from benchmarks.workload import FLOOR
from tests.conftest import ROOT
from tests.support import measured
from tests.support.threads import PATIENCE


# Footprint looks at all objects of its process, of which there are many here.
@pytest.mark.parametrize("section", [section for section in SECTIONS if section != "footprint"])
def test_a_section_runs_and_finds_something(section: str) -> None:
    found = [*SECTIONS[section].answer(Effort(repeats=1, seconds=0.01, peers=frozenset()))]
    assert found
    for question in found:
        assert isinstance(question, Question), question
        assert any(line.role is Role.OURS for line in question.lines)
        for line in question.lines:
            assert line.figure.low <= line.figure.median <= line.figure.high
            assert math.isfinite(line.figure.median)


def test_what_the_sections_found_is_reported(tmp_path: Path) -> None:
    sections = ["footprint", "dispatch"]
    words = ["--quick", "--seconds", "0.01", "--only", ",".join(sections), "--peers", ""]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", *words, "--output", tmp_path],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 11,
        check=False,
        cwd=ROOT,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    report = json.loads((tmp_path / "latest.json").read_text())
    assert list(report["sections"]) == sections
    judged: list[dict[str, Any]] = []
    for answers in report["sections"].values():
        assert answers["questions"]
        assert not answers["skipped"]
        for question in answers["questions"]:
            assert question["title"].split()[0] in done.stdout
            judged += question["lines"]
    for line in judged:
        assert (line["goal"] is None) == (line["verdict"] is None)
    goals = sum(line["goal"] is not None for line in judged)
    met = sum(line["verdict"] == "met" for line in judged)
    assert f"{met} of {goals} goals are met" in done.stdout


_IMPORTED = """
import sys
from importlib.metadata import packages_distributions
before = set(sys.modules)
import benchmarks.sections, run_task.serve
known = packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(*{name.lower().replace("_", "-") for top in tops & known.keys() for name in known[top]})
"""


def test_the_environment_of_the_bench_has_what_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True, cwd=ROOT
    )
    locked = {
        line.partition("==")[0]
        for line in (ROOT / "requirements-bench.txt").read_text().splitlines()
        if "==" in line
    }
    imported = set(done.stdout.split()) - {"run-task"}
    assert {"numpy", "starlette"} <= imported
    assert imported <= locked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "dispatch,weather"), "--only: there is no 'weather', but footprint, on_time"),
        (("--peers", "Rey"), "--peers: there is no 'Rey', but ThreadPoolExecutor"),
        (("--repeats", "0"), "--repeats is 0: it is a positive number"),
        (("--seconds", "nan"), "--seconds is nan: it is a positive number"),
    ],
)
def test_a_mistake_in_the_command_line_is_named(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line(words)
    assert message in capsys.readouterr().err


def test_pictures_are_drawn_of_what_was_found(tmp_path: Path) -> None:
    pictures = picture.draw(RESULTS / LATEST, tmp_path)
    assert [path.name for path in pictures] == ["dispatch.svg", "executors.svg", "lateness.svg"]
    for path in pictures:
        drawn = path.read_text()
        ElementTree.fromstring(drawn)
        assert "run-task" in drawn or "threads" in drawn
        assert "currentColor" in drawn  # so that it reads on dark pages, too
        assert (PICTURES / path.name).is_file()


def test_pictures_without_figures_are_not_drawn(tmp_path: Path) -> None:
    (tmp_path / LATEST).write_text('{"machine": "abacus", "sections": {}}')
    assert picture.draw(tmp_path / LATEST, tmp_path) == []


def test_only_a_whole_run_replaces_the_results() -> None:
    assert command_line([]).output == RESULTS
    for words in (
        ["--quick"],
        ["--only", "dispatch"],
        ["--peers", ""],
        ["--repeats", "1"],
        ["--draw"],
    ):
        assert command_line(words).output is None


@pytest.mark.parametrize("peer", ["ThreadPoolExecutor", "asyncio.to_thread"])
def test_a_peer_is_measured_in_a_process_of_its_own(peer: str) -> None:
    every = apart.apart(peer, peers.measured, peer, [1, 3], 2, 0.002)
    assert not isinstance(every, Skipped)
    assert [list(rounds) for rounds in every] == [[FLOOR, peer]] * 2
    for rounds in every:
        assert all(len(values) == 2 and min(values) > 0 for values in rounds.values())


def test_a_peer_that_fails_is_skipped_with_a_word() -> None:
    assert apart.apart("peer", measured.missing) == Skipped(
        "peer", "ModuleNotFoundError: No module named 'peer'"
    )
    assert apart.apart("peer", measured.silent) == Skipped("peer", "it ended with 3")


def test_what_a_peer_prints_does_not_get_into_its_answer() -> None:
    assert apart.apart("peer", measured.chatty) == [1]


def test_what_a_peer_leaves_behind_is_ended() -> None:
    left = apart.apart("peer", measured.littering)
    assert isinstance(left, int)
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(left)
        deadline = time.monotonic() + PATIENCE
        while process.status() != psutil.STATUS_ZOMBIE:  # until whoever inherits it looks after it
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_peer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PATIENCE", 0.1)
    assert apart.apart("peer", measured.endless) == Skipped("peer", "it took more than 0.1 s")


def test_figures_are_medians_and_ratios_are_of_the_same_round() -> None:
    values = {"floor": [1.0, 2.0, 10.0], "ours": [4.0, 4.0, 30.0]}
    turns: list[str] = []

    def measure(name: str) -> float:
        turns.append(name)
        return values[name][turns.count(name) - 1]

    rounds = side_by_side({name: partial(measure, name) for name in values}, 3)
    assert turns == ["floor", "ours"] * 3
    assert rounds == values
    goal = Goal(Bound.AT_MOST, 3)
    floor, ours = compared(rounds, "µs", goals={"ours": goal})
    assert floor == Line("floor", Role.FLOOR, "µs", Figure(2, 1, 10))
    assert ours == Line("ours", Role.OURS, "µs", Figure(4, 4, 30), Figure(3, 2, 4), goal)
    assert (floor.verdict, ours.verdict) == (None, Verdict.MET)


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (Goal(Bound.AT_MOST, 1.5), 1.5, Verdict.MET),
        (Goal(Bound.AT_MOST, 1.5), 1.6, Verdict.MISSED),
        (Goal(Bound.AT_LEAST, 1.8), 1.8, Verdict.MET),
        (Goal(Bound.AT_LEAST, 1.8), 1.7, Verdict.MISSED),
        (Goal(Bound.AT_MOST, 0), 0.0, Verdict.MET),
    ],
)
def test_a_goal_is_met_or_missed(goal: Goal, value: float, verdict: Verdict) -> None:
    assert goal.judge(value) is verdict
