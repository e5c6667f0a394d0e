"""``run-task run --shards N``: the same program over shards, and the same lines of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import run_here, run_task

from run_task.runner._stats import ShardState, ShardStats, shards_shown

KEYED = """
from typing import NamedTuple

from run_task import *
from run_task.sinks import JsonLinesSink
from run_task.sources import paced

rows = [(1000 + t, {"key": f"k{t * t % 7}", "size": t}) for t in range(50)]
sizes = TimeSeries({"key": str, "size": int}, TimeUnit.SECONDS, key="key")


@task(state=int)
def total(view: TimeSeriesView, start: int, end: int, state: int) -> tuple[int, int]:
    now = state + int(view.in_window["size"].sum())
    return now, now


@task
def keys(view: TimeSeriesView, start: int, end: int) -> int:
    return len(set(view.in_window["key"].tolist()))


class Mean(NamedTuple):
    size: float = 0.0
    windows: int = 0


@task(state=Mean)
def running(view: TimeSeriesView, start: int, end: int, state: Mean) -> tuple[Mean, Mean]:
    now = Mean(state.size + view.in_window["size"].sum() / 3, state.windows + 1)
    return now, now


pipeline = Pipeline("keyed")
pipeline.source(paced(rows, 1e9, unit=TimeUnit.SECONDS), sizes)
totals = pipeline.stage("totals", [total, running], sizes, "10s", by="key")
pipeline.stage("all", [keys], totals.series(), "20s").sink(JsonLinesSink("all.jsonl"))
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(KEYED)
    return tmp_path


def lines(folder: Path, *options: str) -> list[Any]:
    done = run_task("run", "app.py", "--json", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    # Stages may come in another order; within one, it is that of windows and keys.
    return sorted(map(json.loads, done.stdout.splitlines()), key=lambda one: str(one["stage"]))


def test_a_run_over_shards_says_the_same(app: Path) -> None:
    alone = lines(app)
    assert [one["values"]["total"] for one in alone if one["stage"] == "totals"][:2] == [7, 15]
    assert lines(app, "--shards", "2", "--local") == alone


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--shards", "2", "--ray", "auto", "--local"], "--ray and --local contradict each other"),
        (["--local"], "--local is for shards: say how many there are"),
        (["--ray", "auto"], "--ray is for shards: say how many there are"),
        (["--shards", "0"], "shards=0: it is a positive int"),
    ],
)
@pytest.mark.parametrize("command", ["run", "replay"])
def test_what_contradicts_itself_is_refused(
    command: str, options: list[str], told: str, app: Path
) -> None:
    done = run_here(command, "app.py", *options, cwd=app)
    assert done.exit_code != 0
    assert told in " ".join(done.output.replace("│", " ").split())


def test_shards_are_told_in_a_few_words() -> None:
    def shard(node: str) -> ShardStats:
        return ShardStats(node=node, state=ShardState.RUNNING if node else ShardState.LOST)

    assert shards_shown({"a": shard("x")}) == "1 shard on 1 node"
    assert shards_shown({"a": shard("x"), "b": shard("y")}) == "2 shards on 2 nodes"
    assert shards_shown({"a": shard("x"), "b": shard("")}) == "1 of 2 shards on 1 node"
