"""``run-task run --shards N``: the same program over shards, and the same lines of it."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import run_here, run_task, start
from tests.support.shards import LocalTransport, local_shards
from tests.support.threads import eventually

from run_task.cli._project import Project
from run_task.cli._shards import ALONE, ShardChoice, ShardOptions
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
        (
            ["--shards", "2", "--ray", "foo"],
            "address='foo': it is that of a cluster of Ray, 'auto'",
        ),
        (["--shards", "2", "--ray", "ray://foo"], "'host:6379' or 'ray://host:10001'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "replay", "serve", "check"])
def test_what_contradicts_itself_is_refused(
    command: str, options: list[str], told: str, app: Path
) -> None:
    port = ["--port", "0"] if command == "serve" else []
    done = run_here(command, "app.py", *port, *options, cwd=app)
    assert done.exit_code != 0
    assert told in " ".join(done.output.replace("│", " ").split())


def test_a_task_that_cannot_be_sent_is_told_without_the_lines_of_libraries(app: Path) -> None:
    pytest.importorskip("cloudpickle")
    locked = KEYED.replace("    now = state + int", "    now = state + lock.locked() + int")
    lock = "import threading\n\nlock = threading.Lock()\n"
    (app / "app.py").write_text(lock + locked)
    done = run_task("replay", "app.py", "--shards", "2", cwd=app)
    assert done.returncode == 3
    assert done.stderr.startswith("ConfigError: stage 'totals': task 'total' cannot be sent")


def test_a_replay_that_is_refused_tells_the_cause_and_no_empty_table(app: Path) -> None:
    (app / "app.py").write_text(KEYED.replace('.sink(JsonLinesSink("all.jsonl"))', ""))
    transport = LocalTransport()
    transport.refuses = True
    with local_shards(transport):
        done = run_here("replay", "app.py", "--shards", "2", cwd=app)
    assert done.exit_code == 3
    assert "cannot be started: RuntimeError: there is no place for it" in done.output
    assert "windows" not in done.output


PROJECT = """
[pipelines.alone]
target = "app.py"

[pipelines.keyed]
target = "app.py"
shards = 2
"""


def over(options: ShardOptions, *given: str, name: str = "keyed") -> ShardChoice:
    return options.over(Project.load(given=given).target(name).over)


def test_what_the_project_says_is_overridden_by_the_command_line(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / "run-task.toml").write_text(PROJECT)
    monkeypatch.chdir(app)
    ray = "pipelines.keyed.ray=auto"
    assert over(ShardOptions(), name="alone") == over(ShardOptions(), name="app.py") == ALONE
    assert over(ShardOptions()) == over(ShardOptions(local=True)) == ShardChoice(2)
    assert over(ShardOptions(), ray) == ShardChoice(2, "auto")
    assert over(ShardOptions(count=5), ray) == ShardChoice(5, "auto")
    assert over(ShardOptions(ray="ray://a:1"), ray) == ShardChoice(2, "ray://a:1")
    assert over(ShardOptions(local=True), ray) == ShardChoice(2)
    monkeypatch.setenv("RUN_TASK__PIPELINES__KEYED__SHARDS", "3")
    assert over(ShardOptions()) == ShardChoice(3)


def test_a_project_is_run_over_its_shards(app: Path) -> None:
    (app / "run-task.toml").write_text(PROJECT)
    options = ("--quiet", "--log-level", "info", "--for", "30s")
    (app / "app.py").write_text(KEYED.replace("now, now\n\n\n@task\ndef keys", TELLS, 1))
    for name in ("alone", "keyed"):
        done = run_task("run", name, *options, cwd=app)
        assert done.returncode == 0, done.stderr
        processes = set((app / "processes").read_text().split())
        (app / "processes").unlink()
        assert len(processes) == {"alone": 1, "keyed": 2}[name]


TELLS = """_told(now), now


def _told(now: int) -> int:
    import os

    with open("processes", "a") as file:
        file.write(f"{os.getpid()} ")
    return now


@task
def keys"""


def test_check_tells_what_cannot_be_run_over_shards(app: Path) -> None:
    (app / "run-task.toml").write_text(PROJECT)
    plain = KEYED.replace('.sink(JsonLinesSink("all.jsonl"))', "")  # which stays open here
    (app / "app.py").write_text(plain)
    good = run_here("check", "keyed", cwd=app)
    assert good.exit_code == 0, good.output
    assert "pipeline keyed, over 2 shards (processes of this machine)" in good.output
    assert "over" not in run_here("check", "alone", cwd=app).output
    (app / "app.py").write_text(plain + CANNOT)

    def told(*options: str) -> str:
        done = run_here("check", "keyed", *options, cwd=app)
        assert done.exit_code == 3
        return " ".join(done.output.split())

    shards, ray = "pipelines.keyed.shards", "pipelines.keyed.ray"
    several = told("--set", f"{shards}=2000")
    assert "3 mistakes" in several
    assert "shards=2000: keys belong to one of 1,024 buckets" in several
    assert "stage 'held': max_keys=50 are fewer keys than 2000 shards" in several
    assert "stage 'held': task 'holds' cannot be sent to a shard" in several
    assert "shards=0: it is a positive int" in told("--set", f"{shards}=0")
    assert "it is that of a cluster of Ray" in told("--set", f"{ray}=")
    assert "Expected `int | null`, got `str`" in told("--set", f"{shards}=many")
    alone = told("--set", "pipelines.alone.ray=auto")
    assert "pipelines.alone.ray is for shards: say how many there are, shards = 8" in alone


PARTS = """
from run_task import *
from run_task.aggregates import count
from run_task.sources import CsvFile

trades = TimeSeries({"key": str, "size": int}, TimeUnit.SECONDS, "1m", key="key")
pipeline = Pipeline("parts", checkpoint="state")
pipeline.source(CsvFile("rows", unit=TimeUnit.SECONDS), trades, partitioned=True, name="trades")
pipeline.stage("keyed", [count()], trades, "10s", by="key")
"""

KAFKA = """
from run_task.sources import KafkaSource, Stamp

prices = TimeSeries({"key": str, "price": float}, retention="1m", key="key")
pipeline.source(KafkaSource("t"), prices, partitioned=True)
pipeline.stage("prices", [count()], prices, "10s", by="key")
"""

NEED_ALL = """
for name in ("one", "two"):
    pipeline.stage(name, [count()], trades, "10s")
trades.append(1000, key="a", size=1)
"""


def test_check_takes_the_shards_that_run_takes_and_tells_what_that_would_refuse(app: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("confluent_kafka")
    (app / "rows").mkdir()
    (app / "rows" / "a.csv").write_text("timestamp,key,size\n1000,a,1\n")
    (app / "app.py").write_text(PARTS)
    shards = ("app.py", "--shards", "2")
    good = run_here("check", *shards, "--local", cwd=app)
    assert good.exit_code == 0, good.output
    assert "pipeline parts, over 2 shards (processes of this machine)" in good.output
    assert "partitioned: 1 part, read by shards" in good.output
    (app / "app.py").write_text(PARTS + KAFKA)
    of_kafka = run_here("check", "app.py", cwd=app)
    assert "which alone see a key that comes in two" in of_kafka.output, of_kafka.output
    (app / "app.py").write_text(PARTS + KAFKA.replace('"t"', '"t", timestamp=Stamp.ARRIVAL'))
    for options in (shards, ("app.py",)):
        done = run_here("check", *options, cwd=app)
        assert (done.exit_code, "timestamp=Stamp.ARRIVAL" in done.output) == (3, True), done.output
    (app / "app.py").write_text(PARTS + NEED_ALL)
    assert run_here("check", "app.py", cwd=app).exit_code == 0  # in one process it can be run
    done = run_here("check", *shards, cwd=app)
    told = " ".join(done.output.split())
    assert (done.exit_code, "3 mistakes" in told) == (3, True), done.output
    assert "stage 'one' reads" in told
    assert "stage 'two' reads" in told
    assert "let it begin empty" in told
    run = run_here("run", *shards, cwd=app)
    assert run.exit_code == 3
    assert "stage 'one' reads" in run.output
    assert not (app / "state").exists()


def test_check_over_shards_is_of_all_pipelines_of_a_project(app: Path) -> None:
    (app / "run-task.toml").write_text(PROJECT)
    (app / "app.py").write_text(KEYED.replace('.sink(JsonLinesSink("all.jsonl"))', ""))
    done = run_here("check", "--shards", "3", cwd=app)
    assert done.exit_code == 0, done.output
    assert done.output.count("over 3 shards") == 2


CANNOT = """
import threading

lock = threading.Lock()


class Holds:
    name = "holds"

    def __init__(self):
        self.lock = lock

    def run(self, view: TimeSeriesView, start: int, end: int) -> int:
        return 1


pipeline.stage("held", [Holds()], sizes, "10s", by="key", max_keys=50)
"""


LIVE_KEYS = """
import itertools

from run_task import *
from run_task.aggregates import count
from run_task.sources import polling

numbers = itertools.count()
rows = TimeSeries({"key": str, "size": int}, TimeUnit.MILLIS, "1m", key="key")
pipeline = Pipeline("live")
pipeline.source(
    polling(lambda: {"key": f"k{next(numbers) % 20}", "size": 1}, TaskInterval.millis(5)), rows
)
pipeline.stage("counts", [count()], rows, "200ms", RunnerConfig(upstream_timeout=60), by="key")
"""


@pytest.mark.parametrize("options", [("app.py", "--shards", "2"), ("keyed",)])
def test_a_service_runs_over_shards(app: Path, options: tuple[str, ...]) -> None:
    (app / "app.py").write_text(LIVE_KEYS)
    (app / "run-task.toml").write_text(PROJECT)
    started = start("serve", *options, "--port", "0", cwd=app)
    try:
        assert started.stderr is not None
        found = re.search(r"serving at (http://\S+)", started.stderr.readline())
        assert found is not None

        def shards() -> list[Any]:
            with urllib.request.urlopen(f"{found[1]}api/pipeline", timeout=60) as answer:
                return list(json.load(answer)["shards"])

        def are_at_work() -> bool:
            return len(shards()) == 2 and all(shard["results"] > 9 for shard in shards())

        eventually(are_at_work, 60, 0.05)
        processes = [shard["process"] for shard in shards()]
        assert len({*processes, started.pid}) == 3
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0
        eventually(lambda: not any(os.path.exists(f"/proc/{each}") for each in processes))
    finally:
        started.kill()
        started.communicate()


def test_shards_are_told_in_a_few_words() -> None:
    def shard(node: str) -> ShardStats:
        return ShardStats(node=node, state=ShardState.RUNNING if node else ShardState.LOST)

    assert shards_shown({"a": shard("x")}) == "1 shard on 1 node"
    assert shards_shown({"a": shard("x"), "b": shard("y")}) == "2 shards on 2 nodes"
    assert shards_shown({"a": shard("x"), "b": shard("")}) == "1 of 2 shards on 1 node"
