"""The examples and the README, run as they are printed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import pty
import re
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from examples import machine
from tests.conftest import ROOT
from tests.support.receiver import receiver
from tests.support.servers import mqtt_publish, own_mosquitto
from tests.support.threads import PATIENCE

from run_task import RwLock

HOUR = 3600


def python(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
        env={**os.environ, **more},
    )


def readme_block(name: str) -> str:
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def run_readme_block(name: str, folder: Path) -> list[str]:
    file = folder / "example.py"
    file.write_text(readme_block(name))
    done = subprocess.run(
        [sys.executable, file],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=folder,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_first_screen_of_the_readme_shows_a_task_by_key(tmp_path: Path) -> None:
    lines = run_readme_block("keys", tmp_path)
    assert len(lines) == 3
    assert all(line.startswith("KeyedDataSet [") for line in lines)
    assert lines[0].endswith(" of 1 tasks for 1,000 keys")
    assert len(readme_block("keys").splitlines()) < 20
    text = (ROOT / "README.md").read_text()
    assert text[: text.index(readme_block("keys"))].count("\n") < 25, "it is on the first screen"


def test_the_first_example_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    lines = run_readme_block("first", tmp_path)
    assert len(lines) == 5
    ends = [int(line.split("end=")[1].split(")")[0]) for line in lines]
    assert ends == list(range(ends[0], ends[0] + 500, 100))
    assert ends[0] % 100 == 0
    assert lines[0].endswith(") 100.0 1")
    assert lines[4].endswith(" 5")
    assert len(readme_block("first").splitlines()) <= 40, "it fits on a screen"


def test_the_pipeline_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    lines = run_readme_block("pipeline", tmp_path)
    # An hour that does not begin on the minute, and the windows of 15 minutes that hold its last.
    assert len(lines) == 61 + 14
    ends = [int(line.split()[0]) for line in lines]
    assert ends == list(range(ends[0], ends[0] + len(lines) * 60, 60))
    assert all(re.fullmatch(r"\d+ [+-]\d\.\d{2}", line) for line in lines)
    assert lines[0].endswith("+0.00"), "one mean does not move"
    assert len({line.split()[1] for line in lines}) > 20
    # What was printed had been written, too, and the same pipeline finds it there.
    database = tmp_path / "results.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        stored = connection.execute(
            "SELECT window_end, value FROM results WHERE stage = 'features' ORDER BY window_end"
        ).fetchall()
    assert [f"{end} {value:+.2f}" for end, value in stored] == lines


def test_every_python_block_of_the_readme_is_run() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("```python") == len(re.findall("<!-- example: ", text)) == 4


def test_the_live_feed_of_the_readme_outlives_a_kill_and_tells_of_an_alert(tmp_path: Path) -> None:
    with own_mosquitto(tmp_path) as broker, receiver() as told:
        (tmp_path / "notify.txt").write_text(f"json://127.0.0.1:{told.port}\n")
        text = readme_block("live").replace("//localhost", f"//127.0.0.1:{broker.port}")
        (tmp_path / "plant.py").write_text(text.replace('hold="5s"', 'hold="1s"'))

        def publish_until(happened: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE * 3
            while not happened():
                assert time.monotonic() < deadline
                body = json.dumps({"timestamp": time.time_ns() // 1_000_000, "celsius": 90.0})
                mqtt_publish("boilers/north", body.encode(), port=broker.port)

        def windows() -> list[int]:
            with contextlib.closing(sqlite3.connect(tmp_path / "plant.db")) as connection:
                tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
                if "means" not in tables:
                    return []
                rows = connection.execute("SELECT window_end FROM means ORDER BY window_end")
                return [round(datetime.fromisoformat(end).timestamp()) for (end,) in rows]

        def started() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "plant.py"], cwd=tmp_path)

        program = started()
        try:
            publish_until(lambda: len(windows()) >= 2)
            program.kill()
            program.wait(PATIENCE)
            before = windows()
            program = started()
            publish_until(lambda: len(windows()) >= len(before) + 2 and bool(told.posted))
            program.terminate()
            assert program.wait(PATIENCE) == 0
        finally:
            program.kill()
            program.wait(PATIENCE)
    ends = windows()
    assert ends == list(range(ends[0], ends[-1] + 1)), "each second once, also that of the kill"
    assert "boilers/north" in told.posted[0].json["message"]


# Machine temperature: the figures against polars, which shares no code with the pipeline


FEATURES = ("trend", "z_score", "shift")


class Run(NamedTuple):
    database: Path
    picture: Path
    lines: list[str]

    def table(self) -> list[tuple[Any, ...]]:
        """All that the database holds, in the order of its keys."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(
                "SELECT * FROM results ORDER BY pipeline, stage, window_end, task"
            ).fetchall()

    def results(self, task: str) -> dict[int, float | dict[str, float]]:
        """By the end of the window; those that failed are left out."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            found = connection.execute(
                "SELECT window_end, value, json FROM results WHERE task = ? AND error IS NULL",
                (task,),
            )
            return {end: value if text is None else json.loads(text) for end, value, text in found}


def machine_temperature(folder: Path, *arguments: str | Path) -> Run:
    run = Run(folder / "results.db", folder / "picture.png", [])
    done = python(
        "-Werror",
        ROOT / "examples/machine_temperature.py",
        *arguments,
        *("--database", run.database, "--picture", run.picture),
    )
    assert done.stderr == ""
    run.lines.extend(done.stdout.splitlines())
    return run


@pytest.fixture(scope="module")
def series(nab: Path) -> Path:
    return nab / "machine_temperature_system_failure.csv"


@pytest.fixture(scope="module")
def labelled(nab: Path, series: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return machine_temperature(
        tmp_path_factory.mktemp("labelled"), series, "--labels", nab / "labels.json"
    )


@pytest.fixture(scope="module")
def seattle(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return machine_temperature(tmp_path_factory.mktemp("seattle"))


def check_hours(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
    """The hours in the database are those of rows of time (seconds) and value."""
    value = pl.col("value")
    hours = (
        rows.group_by(end=(pl.col("time") // HOUR + 1) * HOUR)
        .agg(mean=value.mean(), std=value.std(ddof=0), min=value.min(), max=value.max())
        .sort("end")
    )
    ends = hours["end"].to_list()
    for task in ("mean", "std", "min", "max"):
        found = run.results(task)
        assert list(found) == ends
        assert list(found.values()) == pytest.approx(hours[task].to_list(), rel=1e-9, abs=1e-9)
    return hours


def check_features(run: Run, hours: pl.DataFrame) -> None:
    """The features in the database are those of these hours, by other formulas."""
    ends, means = hours["end"].to_numpy(), hours["mean"].to_numpy()
    wanted: dict[str, dict[int, float]] = {"trend": {}, "z_score": {}, "shift": {}}
    for end in ends.tolist():
        of_day = (ends > end - 24 * HOUR) & (ends <= end)
        time, day = ends[of_day], means[of_day]
        if len(day) < 12:
            continue
        wanted["trend"][end] = float(np.cov(time, day)[0, 1] / np.var(time, ddof=1) * HOUR)
        variance = np.var(day[:-1], ddof=1)
        wanted["z_score"][end] = float((day[-1] - np.mean(day[:-1])) / math.sqrt(variance))
        variances = [np.var(part, ddof=1) / len(part) for part in (day[:-6], day[-6:])]
        difference = np.mean(day[-6:]) - np.mean(day[:-6])
        wanted["shift"][end] = float(difference / math.sqrt(sum(variances)))
    for task, values in wanted.items():
        found = run.results(task)
        assert list(found) == list(values)
        assert list(found.values()) == pytest.approx(list(values.values()), rel=1e-9, abs=1e-9)


def check_alarms(run: Run) -> dict[int, dict[str, float]]:
    """The alarms in the database are the outliers among the features of a fortnight."""
    features = pl.DataFrame({task: run.results(task).values() for task in FEATURES}).to_numpy()
    ends = np.array(list(run.results("trend")))
    wanted: dict[int, dict[str, float]] = {}
    for i, end in enumerate(ends.tolist()):
        fortnight = features[np.searchsorted(ends, end - 14 * 24 * HOUR, side="right") : i + 1]
        if len(fortnight) < 7 * 24:
            continue
        deviations = fortnight - np.median(fortnight, axis=0)
        scores = 0.6745 * deviations[-1] / np.median(abs(deviations), axis=0)
        wanted[end] = {
            task: score
            for task, score in zip(FEATURES, scores.tolist(), strict=True)
            if abs(score) > 3.5
        }
    found = run.results("alarm")
    assert list(found) == list(wanted)
    for end, outliers in wanted.items():
        assert found[end] == pytest.approx(outliers, rel=1e-9)
    return wanted


def in_episodes(times: Iterable[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for stamp in times:
        if found and stamp - found[-1][-1] <= 24 * HOUR:
            found[-1].append(stamp)
        else:
            found.append([stamp])
    return found


def check_picture(path: Path) -> None:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1300, 900)
    assert 50_000 < len(data) < 1_000_000  # a panel without its lines would be far smaller


def test_machine_temperature_against_labelled_failures(
    labelled: Run, series: Path, nab: Path
) -> None:
    rows = pl.read_csv(series, try_parse_dates=True)
    rows = rows.select(time=pl.col("timestamp").dt.epoch("s"), value="value")
    hours = check_hours(labelled, rows)
    assert len(hours) > 1800
    check_features(labelled, hours)
    alarms = check_alarms(labelled)
    episodes = in_episodes(end for end, outliers in alarms.items() if outliers)
    spans = [
        [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in span]
        for span in json.loads((nab / "labels.json").read_text())[series.name]
    ]
    hits = sum(any(start <= t <= end for e in episodes for t in e) for start, end in spans)
    false = sum(not any(s <= t <= e for t in episode for s, e in spans) for episode in episodes)
    summary = (
        f"{series.name}: {len(episodes)} alarms, {hits} of {len(spans)} labelled windows hit, "
        f"{false} false alarms; "
    )
    assert labelled.lines[-1].startswith(summary)
    assert len([line for line in labelled.lines if line.startswith("alarm from")]) == len(episodes)
    assert hits > 0, "or it is of no use"
    check_picture(labelled.picture)


def test_machine_temperature_over_a_series_of_a_package(seattle: Run) -> None:
    dataset = importlib.metadata.distribution("vega-datasets")
    path = str(dataset.locate_file("vega_datasets/_data/seattle-temps.csv"))
    rows = pl.read_csv(path).select(
        time=pl.col("date").str.to_datetime("%Y/%m/%d %H:%M").dt.epoch("s"), value="temp"
    )
    hours = check_hours(seattle, rows)
    assert len(hours) == 8759
    check_features(seattle, hours)
    check_alarms(seattle)
    assert seattle.lines[-1].startswith("seattle-temps.csv: ")
    assert "labelled" not in seattle.lines[-1]
    check_picture(seattle.picture)


def test_machine_temperature_goes_on_after_a_run_that_was_killed(
    labelled: Run, series: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(labelled.database)) as whole:
        (windows,) = whole.execute(
            "SELECT count(*) FROM (SELECT DISTINCT stage, window_end FROM results)"
        ).fetchone()
        ends = [end for (end,) in whole.execute("SELECT DISTINCT window_end FROM results")]
        with contextlib.closing(sqlite3.connect(tmp_path / "results.db")) as killed:
            whole.backup(killed)
            # The stages had come as far as a transaction that ended between two of them.
            for stage, cut in (("hours", 1200), ("features", 1200), ("alarms", 1199)):
                killed.execute(
                    "DELETE FROM results WHERE stage = ? AND window_end > ?",
                    (stage, sorted(ends)[cut]),
                )
            killed.commit()
    missing = windows - (1201 + 1201 + 1200)
    # Those whose rows may have been incomplete are computed again: as far back as windows reach.
    again = 3 * (14 + 1 + 1) * 24
    run = machine_temperature(tmp_path, series)
    assert missing < computed(run) <= missing + again
    assert run.table() == labelled.table()
    run = machine_temperature(tmp_path, series)
    assert 0 < computed(run) <= again
    assert run.table() == labelled.table()


def computed(run: Run) -> int:
    number, said = run.lines[0].split(" ", 1)
    assert said == "windows computed"
    return int(number)


def test_machine_temperature_live_gives_what_the_replay_gives(
    labelled: Run, series: Path, tmp_path: Path
) -> None:
    run = machine_temperature(tmp_path, series, "--live", "2e6")
    assert run.table() == labelled.table()


def test_machine_temperature_says_what_is_wrong_with_its_files(
    series: Path, nab: Path, tmp_path: Path
) -> None:
    script = ROOT / "examples/machine_temperature.py"
    where = ("--database", tmp_path / "results.db", "--picture", tmp_path / "picture.png")
    done = python(script, tmp_path / "none.csv", *where)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "none.csv" in done.stderr
    other = tmp_path / "other.csv"
    other.write_text(
        "timestamp,value\n"
        + "".join(f"2020-01-01 00:0{minute}:00,{minute}\n" for minute in range(5))
        + "2020-01-01 00:05:00,hot\n"
    )
    done = python(script, other, "--labels", nab / "labels.json", *where)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "there is nothing about 'other.csv', but about ec2" in done.stderr
    empty = tmp_path / "empty.csv"
    empty.write_text("timestamp,value\n")
    done = python(script, empty, *where)
    assert (done.returncode, done.stderr) == (1, "empty.csv: there are no rows in it\n")
    done = python(script, other, *where)
    assert done.returncode == 0
    assert "other.csv, line 7" in done.stderr
    assert "'hot'" in done.stderr


# The demo


def test_the_demo_prints_plain_lines_into_a_pipe() -> None:
    done = python(ROOT / "examples/machine.py", "--seconds=2.2")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    *lines, summary = done.stdout.splitlines()
    assert len(lines) in (2, 3)
    assert all(re.match(r"\[\d+, \d+\) late=\d+\.\d\dms  .*cpu load", line) for line in lines)
    for name in ("busiest core", "network", "disk bytes", "memory trend", "cpu alarm"):
        assert f"{name}" in lines[-1]
    assert re.match(rf"{len(lines)} windows, 0 missed, late by", summary)


def test_the_demo_stops_cleanly_on_ctrl_c() -> None:
    with subprocess.Popen(
        [sys.executable, ROOT / "examples/machine.py", "--seconds=60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "late=" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    assert "windows, 0 missed" in out.splitlines()[-1]
    assert process.returncode == 0


def test_the_demo_draws_a_table_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, ROOT / "examples/machine.py", "--seconds=1.2"],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0
    assert "ms late" in text
    assert "\x1b[" in text
    assert "memory trend" in text
    assert "Traceback" not in text


def test_the_analytics_of_the_demo() -> None:
    data = RwLock(machine.Machine())
    with data.write() as watched:
        for i in range(11):
            watched.samples.append(
                machine.Sample(
                    time=100 + i / 2,
                    cores=(10.0 + i, 20.0 + i),
                    memory=2**30 + i * 2**20,
                    disk=i * 100,
                    received=i * 1024,
                    sent=i * 512,
                )
            )
        window = (100, 105)  # the last sample lies outside
        load = machine.cpu_load(watched, *window)
        assert load == pytest.approx((19.5, statistics.stdev(range(10))))
        assert machine.busiest_core(watched, *window) == 1
        assert machine.network(watched, *window) == pytest.approx((2048, 1024))
        assert machine.disk_bytes(watched, *window) == 900
        assert machine.memory_trend(watched, *window) == pytest.approx(120)
        assert machine.correlation(watched, *window) == pytest.approx(1)
        assert machine.alarm(watched, *window) is None
        watched.samples[9] = watched.samples[9]._replace(cores=(100.0, 100.0))
        assert "standard deviations off" in (machine.alarm(watched, *window) or "")
        with pytest.raises(ValueError, match="fewer than two"):
            machine.cpu_load(watched, 0, 1)
