"""The projects that ``run-task new --template`` makes: each runs against its broker as made."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it is part of what makes the documentation
from tests.support.brokers import REDIS, mock_kafka
from tests.support.commands import run_here
from tests.support.servers import MQTT_PORT, NATS_PORT, OwnServer, needs, unique
from tests.support.threads import PATIENCE

KINDS = ["http", "kafka", "mqtt", "nats", "redis"]
MOST = 6 * PATIENCE


@contextlib.contextmanager
def broker(kind: str, name: str) -> Generator[str]:
    """The address of a broker, and what a project leaves there is removed."""
    if kind == "kafka":
        with mock_kafka() as address:
            yield address
        return
    if kind == "http":
        port = OwnServer([sys.executable]).port  # one that is free
        yield f"http://127.0.0.1:{port}"
        return
    port = {"mqtt": MQTT_PORT, "nats": NATS_PORT, "redis": REDIS}[kind]
    needs(port, kind)
    try:
        yield f"{kind}://127.0.0.1:{port}"
    finally:
        if kind == "redis":
            import redis

            redis.Redis(port=port).delete(f"{name}.readings")
        elif kind == "nats":
            from tests.support.servers import NatsAdmin

            NatsAdmin().delete_stream(name)


def made(kind: str, name: str, tmp_path: Path) -> Path:
    done = run_here("new", name, "--template", kind, cwd=tmp_path)
    assert done.exit_code == 0, done.output
    return tmp_path / name


def started(folder: Path, address: str, *command: str) -> subprocess.Popen[bytes]:
    with (folder / "told.txt").open("ab") as told:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "BROKER": address},
            stdout=told,
            stderr=told,
        )


def counted(folder: Path) -> int:
    """How many readings are in the results."""
    lines: dict[tuple[int, str], int] = {}
    file = folder / "data" / "rooms.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(line)
            if found["key"]:
                lines[found["window_start"], found["key"]] = found["values"]["count"]
    return sum(lines.values())


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in (folder / "data" / "state").glob("checkpoint-*.json")}


def at_last(condition: Callable[[], object]) -> None:
    """Wait for programs, which take a while to begin."""
    deadline = time.monotonic() + MOST
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_its_pipeline_computes_what_its_producer_sends_also_over_a_kill(
    kind: str, tmp_path: Path
) -> None:
    name = unique("new")
    folder = made(kind, name, tmp_path)
    with broker(kind, name) as address:
        program = "import sys; from run_task.cli import main; sys.exit(main())"
        run = ("-c", program, "serve", "pipeline.py", "--port", "0")
        told = folder / "told.txt"
        sent = 0
        processes: list[subprocess.Popen[bytes]] = []
        try:
            if kind == "http":  # who sends waits for the pipeline
                processes.append(started(folder, address, "producer.py", "16"))
                at_last(lambda: b"sent again" in told.read_bytes())
                sent = 1
            elif kind != "mqtt":  # it makes the stream, where there has to be one
                processes.append(started(folder, address, "producer.py", "1"))
                assert processes[-1].wait(MOST) == 0, told.read_text()
                sent = 1
            pipeline = started(folder, address, *run)
            processes.insert(0, pipeline)
            # It listens, or has a session, and will go on from there.
            at_last(lambda: checkpoints(folder))
            if kind != "http":
                processes.append(started(folder, address, "producer.py", "15"))
            assert processes[-1].wait(MOST) == 0, told.read_text()
            pipeline.kill()
            pipeline.wait(PATIENCE)
            before = checkpoints(folder)
            again = started(folder, address, *run)
            processes.append(again)
            at_last(lambda: counted(folder) >= 15 and checkpoints(folder) - before)
            again.terminate()
            assert again.wait(MOST) == 0, told.read_text()
            assert counted(folder) - 15 in range(sent + 1)  # the first one may have been too early
        finally:
            for process in processes:
                process.kill()
                process.wait(PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_its_files_are_what_they_should_be(kind: str, tmp_path: Path) -> None:
    name = "heat-pump.v2"
    folder = made(kind, name, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Dockerfile", "README.md", "compose.yaml", f"{name}.service", "pipeline.py",
        "producer.py", "requirements.txt",
    ]  # fmt: skip
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {name} if kind == "http" else {name, "broker"}
    assert services[name]["environment"]["BROKER"]
    assert services[name]["read_only"]
    assert kind in (folder / "requirements.txt").read_text()
    # What is run is the same everywhere, and where its health is asked for.
    service, image = ((folder / file).read_text() for file in (f"{name}.service", "Dockerfile"))
    (command,) = re.findall(r"^ExecStart=/opt/\S+/(run-task serve .*)$", service, re.MULTILINE)
    assert '", "'.join(command.split()) in image
    (port,) = re.findall(r"--port (\d+)", command)
    assert f"http://127.0.0.1:{port}/health" in image
    assert services[name].get("ports") != [f"{port}:{port}"]
    programs = [str(folder / file) for file in ("pipeline.py", "producer.py")]
    ruff = [sys.executable, "-m", "ruff"]
    plain = ["--isolated", "--line-length=100"]
    subprocess.run([*ruff, "check", "--select=E,F,I", *plain, *programs], check=True)
    subprocess.run([*ruff, "format", "--diff", *plain, *programs], check=True)
    if shutil.which("systemd-analyze") is not None:
        unit = folder / f"{name}.service"
        text = unit.read_text().replace(f"/opt/{name}/.venv/bin/run-task", "/bin/true")
        unit.write_text(text)
        told = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
        )
        assert str(unit) not in told.stderr, told.stderr


def test_a_template_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = run_here("new", "heat", "--template", "carrier-pigeon", cwd=tmp_path)
    assert done.exit_code == 2
    assert not (tmp_path / "heat").exists()
