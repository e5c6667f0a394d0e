"""The examples and the README, run as they are printed."""

from __future__ import annotations

import math
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from examples import machine, pipeline
from tests.conftest import ROOT
from tests.threads import PATIENCE

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
    done = python(file)
    assert done.stderr == ""
    return done.stdout.splitlines()


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
    assert len(lines) == 5
    assert all(re.fullmatch(r"DataSet \[\d+, \d+\) of 1 results", line) for line in lines)


def test_every_python_block_of_the_readme_is_run() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("```python") == len(re.findall("<!-- example: ", text)) == 2


# The pipeline over a real series, against numbers that are worked out another way


def expected(rows: Sequence[tuple[float, float]]) -> list[dict[str, float | None]]:
    """The same results by plain definition: no runner, no windows, no shared code."""
    times, column = np.array(rows).T
    first, last = math.floor(rows[0][0] / HOUR) * HOUR, rows[-1][0]
    means: dict[int, tuple[float, float]] = {}
    results: list[dict[str, float | None]] = []
    for end in range(first + HOUR, int(last // HOUR + 2) * HOUR, HOUR):
        values = column[(times >= end - 6 * HOUR) & (times < end)].tolist()
        result: dict[str, float | None] = dict.fromkeys(("mean", "std", "trend", "z", "unrest"))
        results.append(result)
        if len(values) >= 2:
            mean = math.fsum(values) / len(values)
            variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
            means[end] = mean, math.sqrt(variance)
        if values:
            result["mean"] = math.fsum(values) / len(values)
        if end in means:
            result["std"] = means[end][1]
        day = [
            (hour / HOUR, *means[hour])
            for hour in range(end - 23 * HOUR, end + HOUR, HOUR)
            if hour in means
        ]
        if len(day) < 3:
            continue
        n = len(day)
        x, y = math.fsum(d[0] for d in day) / n, math.fsum(d[1] for d in day) / n
        covariance = math.fsum((d[0] - x) * (d[1] - y) for d in day)
        result["trend"] = covariance / math.fsum((d[0] - x) ** 2 for d in day)
        others = [d[1] for d in day[:-1]]
        centre = math.fsum(others) / (n - 1)
        spread = math.sqrt(math.fsum((o - centre) ** 2 for o in others) / (n - 2))
        if spread:
            result["z"] = (day[-1][1] - centre) / spread
        if median := statistics.median(d[2] for d in day):
            result["unrest"] = day[-1][2] / median
    return results


def check(path: Path, hours: int) -> None:
    rows = pipeline.read(path)
    results = list(pipeline.run(rows))
    wanted = expected(rows)
    assert len(results) == len(wanted) == hours
    names = {"mean": "mean", "std": "std", "trend": "trend", "z": "z_score", "unrest": "unrest"}
    end = math.floor(rows[0][0] / HOUR) * 60
    compared = 0
    for (rolling, features), want in zip(results, wanted, strict=True):
        end += 60
        assert rolling.window == (end - 360, end)
        assert features.window == (end - 1440, end)
        for short, name in names.items():
            dataset = rolling if short in ("mean", "std") else features
            value = want[short]
            if value is None:
                assert name in dataset.errors
            else:
                assert dataset[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
                compared += 1
    assert compared > 4.5 * hours


def test_the_pipeline_over_a_series_of_a_package() -> None:
    check(pipeline.seattle(), hours=8760)


def test_the_pipeline_over_the_temperature_of_a_machine(nab: Path) -> None:
    check(nab / "machine_temperature_system_failure.csv", hours=1891)


def test_the_pipeline_prints_what_stands_out(nab: Path) -> None:
    done = python(
        ROOT / "examples/pipeline.py",
        nab / "machine_temperature_system_failure.csv",
        "--top=3",
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("machine_temperature_system_failure.csv: 1891 hours")
    assert lines[2].startswith("2013-12-15 22:00")
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("timestamp,value\n2013-12-02 21:15:00,73.9\nyesterday,4\n", "line 3"),
        ("timestamp,value\n2013-12-02 21:15:00,hot\n", "'hot'"),
        ("timestamp,value\n2013-12-02 21:15:00\n", "line 2"),
        ("timestamp,value\n", "no rows"),
    ],
)
def test_the_pipeline_says_what_is_wrong_with_a_file(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(SystemExit, match=re.escape(complaint)) as caught:
        pipeline.read(file)
    assert str(file) in str(caught.value)


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
