"""What the command line shows of stages by key, of however many."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.support.commands import run_here, run_task

from run_task import (
    KeyedDataSet,
    Pipeline,
    Task,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    Window,
)
from run_task.cli._screen import Screen
from run_task.cli._standard_output import as_text
from run_task.pipeline._key_watch import KeyWatch, Why
from run_task.sinks import Result

MANY = [f"dev-{number:05}" for number in range(10_000)]

APP = """\
from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import paced

rows = [(i, {"device": f"dev-{i % 500:03}", "temp": float(i % 500)}) for i in range(1000)]
series = TimeSeries({"device": str, "temp": float}, TimeUnit.SECONDS, key="device")


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    if view.in_window["temp"][0] in (7, 8):
        raise ValueError("sensor is broken")
    return float(view.in_window["temp"].mean())


pipeline = Pipeline("fleet").source(paced(rows, 1e9, unit=TimeUnit.SECONDS), series)
pipeline.stage("heat", [mean], series, "500s", by="device")
pipeline.stage("all", [mean], series, "500s")
"""


def window_of(
    number: int,
    keys: Sequence[Any],
    failing: Sequence[Any] = (),
    plain: bool = False,
    far: Mapping[str, float] = MappingProxyType({}),
) -> KeyedDataSet[Any, Any]:
    """A window of two tasks: all give 1.0 and less than a thousandth more, but those given."""
    window = Window(number, number + 1)
    errors: dict[Any, TaskError] = {}
    for key in failing:
        errors["a", key] = TaskError("a", window, "it is too hot", key)
    if plain:
        errors["b"] = TaskError("b", window, "no data")
    values = {key: 1.0 + place * 1e-8 for place, key in enumerate(keys)} | dict(far)
    a = {key: value for key, value in values.items() if key not in failing}
    b = {} if plain else {"b": dict.fromkeys(keys, "text")}
    return KeyedDataSet(window, "device", {"a": a, **b}, errors, interval=TaskInterval.seconds(1))


def made() -> Pipeline:
    def one(data: object, start: int, end: int) -> float:
        return 1.0

    pipeline = Pipeline("fleet")
    series = TimeSeries({"device": str, "v": float}, TimeUnit.SECONDS, key="device")
    tasks = [Task(one, "a"), Task(one, "b")]
    pipeline.stage("heat", tasks, series, "1s", by="device", max_keys=20_000)
    return pipeline


def drawn(screen: Screen, width: int = 80, height: int = 24) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", width=width, height=height,
        highlight=False, legacy_windows=False, _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    console.print(screen)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


def note(screen: Screen, *windows: KeyedDataSet[Any, Any]) -> None:
    for window in windows:
        screen.monitor.of("heat").note_next_at = -math.inf
        screen.monitor.note("heat", window)


def keys_in(lines: Sequence[str]) -> list[tuple[str, str]]:
    found = [re.match(r"(dev-\S+|new-\S+) +(fails|far off|new|furthest)?", line) for line in lines]
    return [(match[1], match[2] or "") for match in found if match]


def test_of_ten_thousand_keys_those_are_seen_that_are_worth_a_look() -> None:
    screen = Screen(made())
    note(
        screen,
        window_of(0, MANY),
        window_of(1, [*MANY, "new-1"], [MANY[3], MANY[7]], far={MANY[5]: 99.0}),
    )
    lines = drawn(screen)
    text = "\n".join(lines)
    assert "2 fail of 10,001 keys, median 1.00005" in text
    assert re.search(r"b +10,001 keys\s", text)  # no numbers: no median
    found = keys_in(lines)
    assert found[:3] == [(MANY[3], "fails"), (MANY[7], "fails"), (MANY[5], "far off")]
    assert found[-1] == ("new-1", "new")
    assert any(re.match(rf"{MANY[3]} +fails +no result +text", line) for line in lines)
    assert any(re.match(rf"{MANY[5]} +far off +99 +text", line) for line in lines)
    assert "it is too hot" in text
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)


def test_the_view_is_asked_for_keys() -> None:
    screen = Screen(made(), "EV-001")
    note(screen, window_of(0, MANY, [MANY[3]]))
    lines = drawn(screen)
    assert any(line.startswith("device, 100 with EV-001") for line in lines)
    shown = len(keys_in(lines))
    assert keys_in(lines) == [(key, "") for key in MANY[100 : 100 + shown]]
    assert f"and {100 - shown} more" in "\n".join(lines)
    nothing = Screen(made(), "nobody")
    note(nothing, window_of(0, MANY))
    assert "none" in [line.strip() for line in drawn(nothing)]


@pytest.mark.parametrize("height", [7, 10, 12, 16, 24])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_view_of_many_keys_fits_the_screen(height: int, width: int) -> None:
    screen = Screen(made())
    note(screen, window_of(0, MANY), window_of(1, [*MANY, "new-1"], MANY[:500], plain=True))
    lines = drawn(screen, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert any(line.startswith("a ") for line in lines)


def test_a_drawing_costs_the_same_for_any_number_of_keys() -> None:
    def least(keys: Sequence[str]) -> float:
        screen = Screen(made())
        note(screen, window_of(0, keys), window_of(1, keys, keys[:3]))
        took: list[float] = []
        for _ in range(7):
            began = time.perf_counter()
            drawn(screen)
            took.append(time.perf_counter() - began)
        return min(took)

    assert least(MANY) < 5 * least(MANY[:20])


def test_what_is_furthest_is_far_off_only_if_it_is_far() -> None:
    keys = [f"dev-{number}" for number in range(20)]  # each 1e-8 above the one before

    def told(far: Mapping[str, float]) -> dict[str, Why]:
        return {each.key: each.why for each in KeyWatch().look(window_of(0, keys, far=far)).keys}

    assert set(told({}).values()) == {Why.FURTHEST}
    # Half of all are up to 5e-8 from the median: far off is what is five times as far.
    near_and_far = told({"dev-3": 1 + 25e-8, "dev-4": 1 + 60e-8})
    assert (near_and_far["dev-3"], near_and_far["dev-4"]) == (Why.FURTHEST, Why.FAR_OFF)
    # With all the same but one, there is no usual distance.
    same = told(dict.fromkeys(keys, 1.0) | {"dev-9": 1.01})
    assert same == {"dev-9": Why.FAR_OFF}


def test_tasks_and_stages_that_come_and_go_are_seen() -> None:
    pipeline = made()
    (stage,) = pipeline.stages
    screen = Screen(pipeline, "V-1")
    note(screen, window_of(0, ["dev-1", "dev-2"]))

    def c(data: object, start: int, end: int) -> float:
        return 1.0

    stage.add(Task(c, "c"))
    pipeline.stage("plain", [Task(c, "of all")], TimeSeries({"v": float}, TimeUnit.SECONDS), "1s")
    lines = drawn(screen)
    assert any(line.startswith("heat / c ") for line in lines)
    assert any(line.startswith("plain / of all") for line in lines)
    pipeline.remove("heat")
    data = TimeSeries({"device": str, "v": float}, TimeUnit.SECONDS, key="device")
    pipeline.stage("heat", [Task(c, "c"), Task(c, "b")], data, "1s", by="device")
    (head,) = [line for line in drawn(screen) if line.startswith("heat / device")]
    # What a task gives that the latest window does not have is not told yet.
    assert re.fullmatch(r"heat / device, 1 with V-1 +b *", head)


def test_looking_at_many_keys_takes_a_small_part_of_the_time() -> None:
    screen = Screen(made())
    began = time.monotonic()
    screen.monitor.note("heat", window_of(0, MANY))
    took = time.monotonic() - began
    next_at = screen.monitor.of("heat").note_next_at
    assert next_at >= began + 0.05
    assert next_at - began <= 0.05 + 101 * took


def test_a_key_is_new_once_and_not_in_the_first_window() -> None:
    watch = KeyWatch()

    def new(number: int, *keys: str) -> list[Any]:
        shown = watch.look(window_of(number, keys)).keys
        return [each.key for each in shown if each.why is Why.NEW]

    assert new(0, "a", "b") == []
    assert new(1, "a", "b", "c") == ["c"]
    assert new(2, "a", "c", "d", "e", "f") == ["d", "e", "f"]
    assert new(3, "a", "b") == []


def of_heat(dataset: KeyedDataSet[Any, Any]) -> Result:
    return Result("p", "heat", dataset.window, 0, dataset)


def test_a_line_tells_what_many_keys_have_in_common() -> None:
    many = window_of(0, MANY, MANY[3:5], far={MANY[9]: 7.5})
    line = as_text(of_heat(many)).decode()
    assert line == (
        "heat [1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z)  10,000 device keys; "
        "a=1.00005 (1 to 7.5); b: 10,000 results; "
        "a failed for 2 keys, as dev-00003: it is too hot\n"
    )
    few = window_of(0, ["x", "y"], ["y"], plain=True)
    assert (
        as_text(of_heat(few))
        .decode()
        .endswith(
            "2 device keys; x: a=1; y: a failed; a failed for y: it is too hot; b failed: no data\n"
        )
    )
    lacking = KeyedDataSet(few.window, few.by, dict(few), few.errors, behind=("shard 1 of 2", "up"))
    assert as_text(of_heat(lacking)).endswith(b"; without shard 1 of 2; without up\n")
    asked = as_text(of_heat(many), "0000").decode()
    assert "10,000 device keys, 10 with 0000; dev-00000: a=1, b=text; " in asked
    assert "dev-00003: b=text, a failed; " in asked


def test_replay_check_and_lines_know_keys(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    replayed = run_here("replay", "app.py", "--out", "all.jsonl", cwd=tmp_path)
    assert replayed.exit_code == 0, replayed.stderr
    lines = replayed.stdout.splitlines()
    assert lines[0].split() == ["stage", "windows", "keys", "results", "failed"]
    assert lines[1].split() == ["heat", "2", "500", "996", "4"]
    assert lines[2].split() == ["all", "2", "2", "0"]
    written = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert sum(line["stage"] == "heat" for line in written) == 1000
    checked = run_here("check", "app.py", cwd=tmp_path)
    assert checked.exit_code == 0, checked.stderr
    assert "stage heat, every 500s, by device, threads" in checked.stdout
    assert (
        "reads TimeSeriesView of device str, temp float64; time in s; by device" in checked.stdout
    )
    run = run_task("run", "app.py", "--log-level", "warning", cwd=tmp_path)
    of_heat = [line for line in run.stdout.splitlines() if line.startswith("heat")]
    assert len(of_heat) == 2, run
    assert all("500 device keys; mean=" in line for line in of_heat)
    assert all("failed for 2 keys, as dev-007: ValueError: sensor" in line for line in of_heat)
    told = [line for line in run.stderr.splitlines() if "dev-0" in line]
    assert len(told) == 2, run.stderr  # a record a window, and not one a key
    assert all("(and none for 1 more keys)" in line for line in told)
    asked = run_task("run", "app.py", "--key", "V-123", cwd=tmp_path)
    assert "500 device keys, 1 with V-123; dev-123: mean=123; mean failed" in asked.stdout
    every = run_task("run", "app.py", "--json", cwd=tmp_path)
    assert sum('"stage":"heat"' in line for line in every.stdout.splitlines()) == 1000
    refused = run_here("run", "app.py", "--json", "--key", "x", cwd=tmp_path)
    assert refused.exit_code != 0
    assert "--key is for the live view and for lines" in refused.stderr


def test_a_drawing_of_a_pipeline_shows_its_keys() -> None:
    root = ElementTree.fromstring(made().draw())
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "by device" in texts
    assert "· device, the key" in texts
