"""``run-task.toml``: pipelines with parameters, what overrides them, and the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.support.commands import run_here, run_task
from tests.support.threads import together

from run_task.cli._logs import JsonLines, show_log
from run_task.cli._project import GivenOptions, Project
from run_task.cli._user_error import UserError

APP = """
from dataclasses import dataclass, field
from pathlib import Path

from run_task import Pipeline, RwLock, TaskInterval, task


@dataclass
class Limits:
    low: float
    high: float = 10.0


@dataclass
class Params:
    every: TaskInterval
    limits: Limits
    names: list[str] = field(default_factory=list)
    password: str = ""
    out: Path = Path("out")
    dry: bool = False


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


def build(params: Params) -> Pipeline:
    print(params.every, params.limits, params.names, params.out, params.dry, len(params.password))
    pipeline = Pipeline("built")
    pipeline.stage("a", [end_of], RwLock(object()), params.every)
    return pipeline


def plain() -> Pipeline:
    pipeline = Pipeline("plain")
    pipeline.stage("a", [end_of], RwLock(object()), "1s")
    return pipeline


def loose(params):
    print(params)
    return plain()


def several(folder: str = "days", shards: int = 3):
    return plain()


def nothing():
    return 5


pipeline = plain()
"""

TOML = """
log_level = "error"

[pipelines.rooms]
target = "app.py:build"

[pipelines.rooms.params]
every = "250ms"
limits = { low = 1 }
names = ["a"]

[pipelines.plain]
target = "app.py:plain"

[serve]
port = 9999
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "run-task.toml").write_text(TOML)
    return tmp_path


def checked(folder: Path, *arguments: str) -> str:
    done = run_here("check", *arguments, cwd=folder)
    assert done.exit_code == 0, done.output
    return done.output


def refused(folder: Path, *arguments: str) -> str:
    done = run_here("check", *arguments, cwd=folder)
    assert done.exit_code == 3, done.output
    return done.output


def test_a_factory_is_given_its_parameters_as_their_types(folder: Path) -> None:
    told = checked(folder, "rooms")
    assert "250ms Limits(low=1.0, high=10.0) ['a'] out False 0" in told
    assert "every 250ms" in told
    assert "pipeline plain" in checked(folder, "plain")
    both = checked(folder)
    assert "pipeline built" in both
    assert "pipeline plain" in both


def test_the_environment_overrides_the_file_and_the_command_line_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_TASK__PIPELINES__ROOMS__PARAMS__EVERY", "5s")
    monkeypatch.setenv("RUN_TASK__PIPELINES__ROOMS__PARAMS__LIMITS__HIGH", "7")
    monkeypatch.setenv("RUN_TASK__PIPELINES__ROOMS__PARAMS__NAMES", '["b", "c"]')
    monkeypatch.setenv("RUN_TASK__PIPELINES__ROOMS__PARAMS__DRY", "true")
    assert "5s Limits(low=1.0, high=7.0) ['b', 'c'] out True" in checked(folder, "rooms")
    told = checked(folder, "rooms", "--set", "every=6s", "--set", "pipelines.rooms.params.dry=0")
    assert "6s Limits(low=1.0, high=7.0) ['b', 'c'] out False" in told
    monkeypatch.setenv("RUN_TASK__SERVE__PORT", "1234")
    project = Project.load(str(folder / "run-task.toml"), ["serve.max_lateness=3s"])
    assert project.settings is not None
    assert (project.settings.serve.port, project.settings.serve.max_lateness) == (1234, "3s")


def test_secrets_are_referred_to_and_told_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2-hunter2")
    (folder / "password").write_text("hunter2\n")
    by_variable, by_file = "password=env:SECRET", f"password=file:{folder / 'password'}"
    assert "False 15" in checked(folder, "rooms", "--set", by_variable)
    assert "False 7" in checked(folder, "rooms", "--set", by_file)
    assert "there is no NONE in the environment" in refused(
        folder, "rooms", "--set", "password=env:NONE"
    )
    assert "cannot be read" in refused(folder, "rooms", "--set", "password=file:none")
    monkeypatch.setenv("SECRET", "hunter2")
    told = refused(folder, "rooms", "--set", "every=env:SECRET", "--set", "limits=env:SECRET")
    assert "parameters: " in told
    # A URL is no reference.
    assert "False 12" in checked(folder, "rooms", "--set", "password=file:///a/bc")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("every=soon", "every"),
        ("limits=5", "limits"),
        ("ever=5s", "pipeline 'rooms': there is no parameter 'ever'; there are: 'every', 'limits'"),
        ("dry=maybe", "Expected `bool`"),
        ("names=[1", "no list or table of TOML"),
        ("=5", "say name=value"),
        ("serve.prot=80", "serve: there is no setting 'prot'; there are: 'host', 'port', "),
        ("serve.port=http", "serve.port: Expected `int`"),
        ("serve.token=0123456789abcdef", "no token stands in such a file"),
        ("log_level.x=1", "'log_level' is no table"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(given: str, told: str, folder: Path) -> None:
    assert told in refused(folder, "rooms", "--set", given).replace("\n", " ")


def test_mistakes_in_the_file_are_told(folder: Path) -> None:
    path = folder / "run-task.toml"
    for text, told in (
        ("[pipelines", "is no TOML"),
        ("[pipelines.x]\n", "pipelines.x: Object missing required field `target`"),
        (
            "[pipelines.x]\ntarget = 'app.py:plain'\n[pipelines.y]\ntraget = 'app.py:plain'\n",
            "pipelines.y: there is no setting 'traget'; there are: 'target', 'params', 'shards'",
        ),
        ("[pipelines.x]\ntarget = 1\n", "pipelines.x: target: Expected `str`"),
        ("pipelines = 1\n", "pipelines: Expected `object`"),
        ("log_levl = 'info'\n", "there is no setting 'log_levl'; there are: 'log_level', "),
        (
            "log_format = 'xml'\n",
            "log_format: Invalid enum value 'xml'; it is one of 'text', 'json'",
        ),
        (
            "log_level = 'loud'\n",
            "Invalid enum value 'loud'; it is one of 'debug', 'info', 'warning', 'error'",
        ),
        ("[pipelines.x]\ntarget = 'no.py:build'\n", "there is no file"),
        ("[pipelines.x]\ntarget = 'app.py:nothing'\n", "nothing() gave no Pipeline but a int"),
        ("[pipelines.x]\ntarget = 'app.py:build'\n", "missing required field `every`"),
        (
            "[pipelines.x]\ntarget = 'app.py:pipeline'\nparams = { a = 1 }\n",
            "it is a pipeline, which takes no parameters, and was given 'a'",
        ),
        (
            "[pipelines.x]\ntarget = 'app.py:plain'\nparams = { a = 1 }\n",
            "it takes no parameters, and was given 'a'",
        ),
        (
            "[pipelines.x]\ntarget = 'app.py:several'\nparams = { shards = 1 }\n",
            "'folder' is of the type str, which has no values with names: a factory takes nothing",
        ),
        ("", "which pipeline? name one"),
    ):
        path.write_text(text)
        assert told in refused(folder).replace("\n", " "), text
    with pytest.raises(UserError, match="cannot be read"):
        Project.load("nowhere.toml")


def test_a_project_may_stand_in_pyproject_toml_and_elsewhere(folder: Path) -> None:
    (folder / "run-task.toml").unlink()
    tables = TOML.replace("[pipelines", "[tool.run-task.pipelines").replace(
        "[serve", "[tool.run-task.serve"
    )
    (folder / "pyproject.toml").write_text(tables.replace('log_level = "error"', ""))
    assert "every 250ms" in checked(folder, "rooms")
    inner = folder / "inner"
    inner.mkdir()
    # Files are looked for from the folder of the project on.
    done = run_task("check", "rooms", "--config", "../pyproject.toml", cwd=inner)
    assert "every 250ms" in done.stdout, done.stderr
    (folder / "pyproject.toml").write_text("[tool.other]\n")
    assert "{'a': '1'}" in checked(folder, "app.py:loose", "--set", "a=1")
    assert "pipeline plain" in checked(folder, "app.py:plain")


def test_a_factory_runs(folder: Path) -> None:
    options = ("--for", "300ms", "--quiet", "--set", "every=50ms")
    done = run_task("run", "rooms", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "50ms Limits" in done.stdout


# The log


@contextmanager
def root_log() -> Generator[None]:
    """The root logger without handlers, which are put back."""
    log = logging.getLogger()
    before, level = log.handlers[:], log.level
    log.handlers.clear()
    try:
        yield
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers[:] = before
        log.setLevel(level)


def test_records_are_lines_of_json() -> None:
    log = logging.getLogger("test")
    extra = {"runner": "r", "task": None, "window": (0, 1)}
    record = log.makeRecord("test", 30, "f", 1, "two\nlines %s", ("x",), None, extra=extra)
    told = json.loads(JsonLines().format(record))
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "logger": "test",
        "message": "two\nlines x",
        "runner": "r",
        "window": "(0, 1)",
    }
    try:
        raise ValueError("no")
    except ValueError as error:
        raised = type(error), error, error.__traceback__
    line = JsonLines().format(log.makeRecord("test", 40, "f", 1, "m", (), raised))
    assert "\n" not in line
    assert "ValueError: no" in json.loads(line)["exception"]


def test_a_log_file_that_is_moved_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    log = logging.getLogger("test")
    moved = 0

    def write(thread: int) -> None:
        for number in range(200):
            log.info("%d %d", thread, number)

    def move() -> None:
        nonlocal moved
        while moved < 20:
            if path.exists():
                moved += 1
                path.rename(tmp_path / f"run.log.{moved}")
            log.info("moved %d", moved)

    with root_log():
        show_log("info", "json", str(path))
        together(*(partial(write, number) for number in range(4)), move)
    lines = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    told = {json.loads(line)["message"] for line in lines}
    assert moved == 20
    assert told >= {f"{thread} {number}" for thread in range(4) for number in range(200)}


def test_a_log_file_that_cannot_be_is_refused(folder: Path) -> None:
    done = run_here("serve", "plain", "--log-file", "none/run.log", cwd=folder)
    assert done.exit_code == 3
    assert "the log file 'none/run.log' cannot be written" in done.output


def test_paths_in_the_file_are_from_its_folder_on_and_others_from_here_on(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    for place, secret in ((folder, "in-its-folder"), (here, "here")):
        (place / "password").write_text(secret)
    (folder / "nested.py").write_text(NESTED)
    said = TOML + (
        '[pipelines.nested]\ntarget = "nested.py:build"\n[pipelines.nested.params]\n'
        'out = "out"\nplain = "file.txt"\nsecret = "file:password"\n'
        'several = ["a", "/b"]\nnamed = { x = "c" }\ninner = { path = "d", text = "e" }\n'
    )
    (folder / "run-task.toml").write_text(said)
    file = str(folder / "run-task.toml")

    def built(*given: str) -> str:
        project = Project.load(file, given)
        return project.target("nested").load().name

    assert built() == repr(
        (
            folder / "out",
            "file.txt",
            "in-its-folder",
            [folder / "a", Path("/b")],
            {"x": folder / "c"},
            folder / "d",
            "e",
            ["str", "str", "str"],
        )
    )
    monkeypatch.chdir(here)
    told = built("out=o", "secret=file:password", 'inner={ path = "p", text = "t" }')
    assert told.startswith(f"({Path('o')!r}, 'file.txt', 'here', [")
    assert f"{Path('p')!r}, 't'" in told
    monkeypatch.setenv("RUN_TASK__PIPELINES__NESTED__PARAMS__INNER__PATH", "q")
    assert f"{Path('q')!r}, 'e'" in built()


NESTED = """
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_task import Pipeline


@dataclass
class Inner:
    path: Path | None
    text: str


@dataclass
class Params:
    out: Path
    plain: str
    secret: str
    several: list[Path]
    named: dict[str, Path]
    inner: Inner


def build(params: Params) -> Pipeline:
    inner = params.inner
    texts = [type(text).__name__ for text in (params.plain, params.secret, inner.text)]
    told = (params.out, params.plain, params.secret, params.several, params.named)
    return Pipeline(repr((*told, inner.path, inner.text, texts)))
"""


def test_a_log_file_in_the_file_is_in_its_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "run-task.toml").write_text('log_file = "its.log"\n' + TOML)
    file = str(folder / "run-task.toml")
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    for log, given in ((folder / "its.log", None), (here / "own.log", "own.log")):
        with root_log():
            GivenOptions(file, log_file=given).project("warning")
            logging.getLogger().error("it is told")
        assert "it is told" in log.read_text()


def test_the_token_that_the_file_refers_to_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    inner = folder / "inner"
    inner.mkdir()
    (folder / "app.py").rename(inner / "app.py")
    token, file = inner / "token", inner / "run-task.toml"

    def told(line: str) -> str:
        file.write_text(TOML + line)
        done = run_here("check", "plain", "--config", file, cwd=folder)
        assert done.exit_code in (0, 3), done.output
        return "" if done.exit_code == 0 else done.output.replace("\n", " ")

    for line in ('token = "file:token"', 'token_file = "token"'):
        token.unlink(missing_ok=True)
        assert "cannot be read" in told(line)
        token.write_text("short")
        token.chmod(0o600)
        assert "a token is 16 or more characters" in told(line)
        assert "short" not in told(line).replace("shorter", "")
        token.write_text("0123456789abcdef-token\n")
        assert told(line) == ""
    token.chmod(0o644)
    for line in ('token = "file:token"', 'token_file = "token"'):
        assert "can be read or written by every user" in told(line)
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    assert "serve.token: there is no NO_SUCH_TOKEN" in told('token = "env:NO_SUCH_TOKEN"')
    monkeypatch.setenv("NO_SUCH_TOKEN", "0123456789abcdef-token")
    assert told('token = "env:NO_SUCH_TOKEN"') == ""


SERVED = """
from run_task import Pipeline, TimeSeries
from run_task.aggregates import mean

def build():
    readings = TimeSeries({"room": str, "celsius": float}, key="room")
    pipeline = Pipeline("heat")
    pipeline.stage("rooms", [mean("celsius")], readings, "1s", by="room")
    pipeline.stage("house", [mean("celsius")], readings, "1s")
    return pipeline
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("port = 99999", "port=99999"),
        ('host = ""', "host=''"),
        ('max_lateness = "soon"', "max_lateness='soon'"),
        ('names = ["https://heat.example.org"]', "name='https://heat.example.org' is no name"),
        ('gauges = ["house"]', "gauge='house' is no 'stage/task'"),
        ('gauges = ["rooms/celsius_mean"]', "stage 'rooms' is by key"),
        ('port = 80\n[pipelines.other]\ntarget = "served.py:build"', "two pipelines are called"),
    ],
)
def test_what_could_not_be_served_is_found_by_check(said: str, told: str, folder: Path) -> None:
    pytest.importorskip("uvicorn")
    (folder / "served.py").write_text(SERVED)
    file = folder / "run-task.toml"
    file.write_text(f'[pipelines.heat]\ntarget = "served.py:build"\n[serve]\n{said}\n')
    assert told in refused(folder).replace("\n", " ")
    well = said.replace("99999", "80").replace('"https://', '"').replace("soon", "5s")
    well = well.replace("rooms/", "house/").replace('["house"]', '["house/celsius_mean"]')
    well = well.replace('host = ""', 'host = "localhost"').partition("\n")[0]
    file.write_text(f'[pipelines.heat]\ntarget = "served.py:build"\n[serve]\n{well}\n')
    assert "stage house" in checked(folder)
