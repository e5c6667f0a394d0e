"""Results of one version of a task do not come to stand beside those of another."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support import killed
from tests.support.bench import PipelineBench
from tests.support.forking import Forking
from tests.support.proof import in_proof
from tests.support.threads import eventually
from tests.support.writer import opened as opened_in

from run_task import (
    ConfigError,
    DataSet,
    Pipeline,
    Runnable,
    RwLock,
    StatefulTask,
    Task,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    Window,
    task,
)
from run_task.sinks import (
    CsvSink,
    DurableSink,
    JsonLinesSink,
    Layout,
    ParquetSink,
    Result,
    Row,
    SqlSink,
)

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("sqlalchemy")

FILES = ["jsonl", "csv", "wide-csv"]
OWN = [*FILES, "parquet", "wide-parquet", "sqlite", "wide-sqlite"]
KINDS = [*OWN, "postgres", "wide-postgres", "mariadb", "wide-mariadb", "duckdb", "wide-duckdb"]

Open = Callable[[], DurableSink]
"""Opens the same store, again and again."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    table = f"results_{random.randrange(10**9)}"
    sinks: list[DurableSink] = []
    layout = Layout.WIDE if kind.startswith("wide-") else Layout.LONG

    def open_it() -> DurableSink:
        sink: DurableSink
        match kind.removeprefix("wide-"):
            case "jsonl":
                sink = JsonLinesSink(tmp_path / "file.jsonl")
            case "csv":
                sink = CsvSink(tmp_path / "file.csv", layout=layout)
            case "parquet":
                sink = ParquetSink(tmp_path / "folder", layout=layout)
            case "sqlite":
                sink = SqlSink(tmp_path / "file.db", table=table, layout=layout)
            case "duckdb":
                pytest.importorskip("duckdb_engine")
                url = f"duckdb:///{tmp_path / 'file.duckdb'}"
                sink = SqlSink(url, table=table, layout=layout)
            case server:
                url = request.getfixturevalue(f"{server}_url")
                sink = SqlSink(url, table=table, layout=layout)
        sinks.append(sink)
        return sink

    yield open_it
    for sink in sinks:
        sink.close()


Ran = list[tuple[str, Any]]


def of_version(version: Any, ran: Ran, name: str = "a") -> Task[Any, int]:
    """A task of a version, or of none, that notes when it runs."""

    @task(name=name, version=version)
    def made(values: list[int], start: int, end: int) -> int:
        ran.append((name, version))
        return sum(values)

    return made


def pipeline(*tasks: Runnable[Any, Any], sinks: Any, name: str = "p", stage: str = "s") -> Pipeline:
    data = RwLock[list[int]]([])
    rows = [(second, second) for second in range(4)]
    made = Pipeline(name).source(rows, data, list[int].append, unit=TimeUnit.SECONDS)
    declared = made.stage(stage, tasks, data, "1s")
    for sink in sinks:
        declared.sink(sink)
    return made


def all_of(sink: DurableSink) -> list[Row]:
    return sorted(sink.rows(), key=lambda row: (row.start, row.task))


def test_results_of_another_version_are_refused_by_replay_resume_and_run(
    kind: str, opened: Open
) -> None:
    ran: Ran = []
    with closing(opened()) as sink:
        list(pipeline(of_version(1, ran), sinks=[sink]).replay())
    assert ran == [("a", 1)] * 4
    ran.clear()
    with closing(opened()) as sink:
        other = pipeline(of_version(2, ran), sinks=[sink])
        refused = (
            r"stage 's': task 'a' is of version 2, and .* has results of it of version 1, .*"
            r"another table, file or folder, or replay into an empty one, or put version=1 back"
        )
        with pytest.raises(ConfigError, match=refused):
            other.replay()
        with pytest.raises(ConfigError, match=refused):
            other.resume(sink)
        with pytest.raises(ConfigError, match=refused):
            other.run_sync()
    assert ran == []
    with closing(opened()) as sink:
        sink.begin("p")
        assert [(row.start, row.task, row.value) for row in all_of(sink)] == [
            *((0, "a", 0), (1, "a", 1), (2, "a", 3), (3, "a", 6))
        ]
        again = pipeline(of_version(1, ran), sinks=[sink])
        assert len(list(again.resume(sink))) == 1


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (None, 1, "is of version 1, and .* without a version, .* or take version= out again"),
        (1, None, "has no version, and .* of version 1, .* or put version=1 back"),
        (1, "1", "is of version '1', and .* of version 1, "),
        ("é\U0001f600", 2, "of version 'é\U0001f600', "),
    ],
)
def test_a_version_that_comes_goes_or_has_another_type_is_another_one(
    before: Any, now: Any, message: str, kind: str, opened: Open
) -> None:
    with closing(opened()) as sink:
        list(pipeline(of_version(before, []), sinks=[sink]).replay())
    ran: Ran = []
    with closing(opened()) as sink:
        with pytest.raises(ConfigError, match=message):
            pipeline(of_version(now, ran), sinks=[sink]).replay()
        list(pipeline(of_version(before, ran), sinks=[sink]).replay())
    assert ran == [("a", before)] * 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wide-csv"])
def test_a_task_of_which_there_are_no_results_may_be_of_any_version(opened: Open) -> None:
    ran: Ran = []
    with closing(opened()) as sink:
        list(pipeline(of_version(None, ran, "a"), sinks=[sink]).replay())
    with closing(opened()) as sink:
        both = [of_version(None, ran, "a"), of_version(1, ran, "b")]
        list(pipeline(*both, sinks=[sink]).replay())
    with closing(opened()) as sink:
        both = [of_version(None, ran, "a"), of_version(2, ran, "b")]
        with pytest.raises(ConfigError, match=r"task 'b' is of version 2, and .* of version 1"):
            pipeline(*both, sinks=[sink]).resume(sink)
        # A task that is gone is asked for nothing, and is remembered.
        list(pipeline(of_version(None, ran, "a"), sinks=[sink]).resume(sink))
        with pytest.raises(ConfigError, match=r"task 'b' is of version 2, and .* of version 1"):
            pipeline(*both, sinks=[sink]).resume(sink)


def test_errors_of_a_task_are_results_of_its_version(kind: str, opened: Open) -> None:
    def fail(values: list[int], start: int, end: int) -> int:
        raise ValueError("no")

    sound = of_version(None, [], "sound")
    with closing(opened()) as sink:
        list(pipeline(sound, task(name="a", version=1)(fail), sinks=[sink]).replay())
    with closing(opened()) as sink, pytest.raises(ConfigError, match="has results of it of ver"):
        pipeline(sound, of_version(2, []), sinks=[sink]).replay()


@task(name="a", state=int, version=1)
def counts(view: Any, start: int, end: int, state: int) -> tuple[int, int]:
    return state + 1, state + 1


def test_versions_of_tasks_with_states_and_keys_are_known_too(kind: str, opened: Open) -> None:
    def by_key(sink: DurableSink, version: int) -> Pipeline:
        trades = TimeSeries({"symbol": str, "v": float}, unit=TimeUnit.SECONDS, key="symbol")
        rows = [(second, {"symbol": "AB"[second % 2], "v": 1.0}) for second in range(4)]
        made = Pipeline("p").source(rows, trades)
        stateful = StatefulTask(counts.step, int, "a", version=version)
        made.stage("s", [stateful], trades, "1s", by="symbol").sink(sink)
        return made

    with closing(opened()) as sink:
        list(by_key(sink, 1).replay())
        assert len(all_of(sink)) == 4
    with closing(opened()) as sink:
        with pytest.raises(ConfigError, match="task 'a' is of version 2"):
            by_key(sink, 2).replay()
        list(by_key(sink, 1).replay())


def test_a_store_without_results_tells_nothing(kind: str, opened: Open) -> None:
    with closing(opened()) as sink:
        _ = pipeline(of_version(1, []), sinks=[sink]).replay()  # begun, and never gone through
    with closing(opened()) as sink:
        list(pipeline(of_version(2, []), sinks=[sink]).replay())
    with closing(opened()) as sink, pytest.raises(ConfigError, match=r"of version 2, "):
        pipeline(of_version(1, []), sinks=[sink]).replay()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("wide")])
def test_other_stages_and_pipelines_have_versions_of_their_own(opened: Open) -> None:
    for number, (name, stage) in enumerate([("p", "s"), ("p", "t"), ("q", "s")]):
        with closing(opened()) as sink:
            made = pipeline(of_version(number, []), sinks=[sink], name=name, stage=stage)
            list(made.replay())
    for number, (name, stage) in enumerate([("p", "s"), ("p", "t"), ("q", "s")]):
        with closing(opened()) as sink:
            made = pipeline(of_version("x", []), sinks=[sink], name=name, stage=stage)
            with pytest.raises(ConfigError, match=rf"has results of it of version {number}, "):
                made.replay()


def test_without_versions_nothing_is_written_beside_results(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    with closing(opened()) as sink:
        list(pipeline(of_version(None, []), sinks=[sink]).replay())
        assert not has_versions(sink, tmp_path)
        with pytest.raises(ConfigError):
            pipeline(of_version(1, []), sinks=[sink]).replay()
        assert not has_versions(sink, tmp_path)


def has_versions(sink: DurableSink, folder: Path) -> bool:
    versions: Any = getattr(sink, "_versions")  # noqa: B009  # of a database, what only it can tell
    return bool(versions.held()) or any(folder.rglob("*.versions"))


@pytest.mark.parametrize("kind", OWN)
def test_nothing_is_told_before_all_sinks_have_agreed(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    second = opened()
    list(pipeline(of_version(1, []), sinks=[second]).replay())
    with (
        closing(JsonLinesSink(tmp_path / "first.jsonl")) as first,
        pytest.raises(ConfigError, match="task 'a' is of version 2"),
    ):
        pipeline(of_version(2, []), sinks=[first, second]).replay()
    assert not (tmp_path / "first.jsonl.versions").exists()


class Before:
    """A durable sink that knows nothing of versions."""

    def __init__(self) -> None:
        self.written: list[Result] = []

    def begin(self, pipeline: str, /) -> None:
        pass

    def last(self, stage: str, /) -> int | None:
        return None

    def rows(self, stage: str | None = None, /) -> Iterator[Row]:
        return iter(())

    def write(self, result: Result, /) -> None:
        self.written.append(result)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_sink_that_knows_nothing_of_versions_goes_on_working() -> None:
    sink = Before()
    assert isinstance(sink, DurableSink)
    for version in (None, 1, 2):
        list(pipeline(of_version(version, []), sinks=[sink]).replay())
    assert len(sink.written) == 12


# What others have


def beside(kind: str, folder: Path) -> Path:
    """The file that tells versions."""
    match kind:
        case "parquet" | "wide-parquet":
            return folder / "folder" / ".versions"
        case _:
            return folder / f"file.{kind.removeprefix('wide-')}.versions"


@pytest.mark.parametrize("kind", [*FILES, "parquet", "wide-parquet"])
@pytest.mark.parametrize("text", ["", "somebody's", '{"run_task_version', "folder", "link"])
def test_a_file_of_somebody_else_stays_and_is_in_the_way_only_of_versions(
    text: str, kind: str, opened: Open, tmp_path: Path
) -> None:
    with closing(opened()) as sink:
        path = beside(kind, tmp_path)
        elsewhere = tmp_path / "elsewhere"
        if text == "folder":
            path.mkdir()
        elif text == "link":
            elsewhere.write_text('{"run_task_versions":1,"tasks":[["p","s","a",3]]}')
            path.symlink_to(elsewhere)
        else:
            path.write_text(text)
        if kind != "wide-csv":  # which has the columns of its first results for good
            list(pipeline(of_version(None, [], "b"), sinks=[sink]).replay())
        with pytest.raises(ConfigError, match=r"\.versions' is to tell the versions .* something"):
            pipeline(of_version(1, []), sinks=[sink]).replay()
        if text == "folder":
            assert path.is_dir()
        elif text == "link":
            assert path.is_symlink()
            assert elsewhere.read_text().endswith('["p","s","a",3]]}')
        else:
            assert path.read_text() == text


@pytest.mark.parametrize("kind", [*FILES, "parquet", "wide-parquet"])
@pytest.mark.parametrize(
    "text",
    [
        '{"run_task_versions":1,"tasks":[',
        '{"run_task_versions":2,"tasks":[]}',
        '{"run_task_versions":1,"tasks":{}}',
        '{"run_task_versions":1,"tasks":[["p","s","a",1.5]]}',
        '{"run_task_versions":1,"tasks":' + "[" * 200_000,
        '{"run_task_versions":\xff',
    ],
    ids=range(6),
)
def test_versions_that_cannot_be_read_are_refused(
    text: str, kind: str, opened: Open, tmp_path: Path
) -> None:
    with closing(opened()) as sink:
        beside(kind, tmp_path).write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"\.versions', which tells .* cannot be read"):
            pipeline(of_version(1, []), sinks=[sink]).replay()
    assert beside(kind, tmp_path).read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize("kind", ["sqlite", "wide-sqlite"])
def test_a_table_of_somebody_else_stays_and_is_in_the_way_only_of_versions(
    opened: Open, tmp_path: Path
) -> None:
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "file.db")) as connection:
        connection.execute("CREATE TABLE run_task_versions (mine TEXT)")
        connection.execute("INSERT INTO run_task_versions VALUES ('kept')")
        connection.commit()
    with closing(opened()) as sink:
        list(pipeline(of_version(None, []), sinks=[sink]).replay())
        with pytest.raises(ConfigError, match=r"'run_task_versions' is to tell .* something else"):
            pipeline(of_version(1, [], "b"), sinks=[sink]).replay()
    with closing(sqlite3.connect(tmp_path / "file.db")) as connection:
        assert connection.execute("SELECT * FROM run_task_versions").fetchall() == [("kept",)]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_row_of_versions_that_cannot_be_read_is_refused(opened: Open, tmp_path: Path) -> None:
    import sqlite3

    with closing(opened()) as sink:
        list(pipeline(of_version(1, []), sinks=[sink]).replay())
    with closing(sqlite3.connect(tmp_path / "file.db")) as connection:
        connection.execute("UPDATE run_task_versions SET versions = 'x'")
        connection.commit()
    with closing(opened()) as sink, pytest.raises(ConfigError, match="tells of it cannot be read"):
        pipeline(of_version(1, []), sinks=[sink]).replay()


@pytest.mark.parametrize("kind", FILES)
def test_the_file_is_no_more_open_than_that_of_the_results(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    with closing(opened()) as sink:
        path = beside(kind, tmp_path)
        path.with_suffix("").chmod(0o600)
        list(pipeline(of_version(1, []), sinks=[sink]).replay())
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"run_task_versions": 1, "tasks": [["p", "s", "a", 1]]}


@pytest.mark.parametrize("kind", ["csv"])
def test_a_disk_that_takes_no_versions_is_told_before_anything_runs(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    ran: Ran = []
    with closing(opened()) as sink:
        monkeypatch.setattr("run_task.sinks.files._disk.Draft.put", full)
        with pytest.raises(ConfigError, match=r"\.versions cannot be written: .*No space left"):
            pipeline(of_version(1, ran), sinks=[sink]).replay()
        monkeypatch.undo()
    assert ran == []
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


# Kills


def results_of(kind: str, where: str) -> list[tuple[int, Any]]:
    with closing(opened_in(kind, where)) as sink:
        return sorted((row.end, row.value) for row in sink.rows())


def accepts(kind: str, where: str, version: int | None) -> bool:
    with closing(opened_in(kind, where)) as sink:
        given: Any = sink
        return not given.other_versions("s", {"a": version})


@pytest.mark.parametrize(
    ("kind", "told_before"),
    in_proof(
        [(kind, told_before) for kind in OWN for told_before in ("7", "")],
        short=[("csv", "7"), ("wide-parquet", "7"), ("sqlite", ""), ("wide-sqlite", "7")],
    ),
)
def test_a_kill_between_any_two_steps_leaves_no_result_of_which_the_version_is_not_known(
    kind: str, told_before: str, tmp_path: Path
) -> None:
    with_results = without = 0
    ended = False
    with Forking("killed", kind, str(tmp_path), told_before) as program:
        for number in range(300):
            program.start()
            said = program.reap()
            assert "failed\n" not in said
            ended = "ended\n" in said
            where = str(tmp_path / str(number))
            if results_of(kind, where):
                with_results += 1
                assert not accepts(kind, where, 7), number
                assert not accepts(kind, where, None), number
                assert accepts(kind, where, 1), number
            else:
                without += 1
                assert accepts(kind, where, 7), number
                assert accepts(kind, where, 1), number
            with closing(opened_in(kind, where)) as sink:
                list(killed.pipeline(sink, 1).resume(sink))
            assert results_of(kind, where) == [(1, 0), (2, 1), (3, 3)]
            assert not accepts(kind, where, 7)
            if ended:
                break
        program.finish()
    assert ended
    assert with_results > 3
    assert without > 3


# While it runs


def test_a_task_of_another_version_is_refused_while_it_runs(tmp_path: Path) -> None:
    bench = PipelineBench()
    sink = JsonLinesSink(tmp_path / "file.jsonl")
    one = bench.stage(
        "s", RwLock[list[int]]([]), tasks=[of_version(1, []), of_version(None, [], "b")]
    )
    one.sink(sink)
    with bench.pipeline:
        # Whether a result is still on its way makes no difference.
        one.remove("a")
        with pytest.raises(ConfigError, match=r"task 'a' is of version 2, and .* of version 1"):
            one.add(of_version(2, []))
        bench.clock.advance(TaskInterval.seconds(1))
        one.add(of_version(1, []))
        one.add(of_version(5, [], "c"))
        bench.clock.advance(TaskInterval.seconds(1))
        eventually(lambda: bench.sink.of("s")[-1:] and "c" in bench.sink.of("s")[-1])
        assert [task.name for task in one.tasks] == ["b", "a", "c"]
    with closing(JsonLinesSink(tmp_path / "file.jsonl")) as again:
        again.begin("bench")
        assert again.other_versions("s", {"a": 2, "b": 1, "c": 6}) == {"a": 1, "b": None, "c": 5}
        assert again.other_versions("s", {"a": 1, "b": None, "c": 5, "d": 9}) == {}


def test_a_sink_that_is_added_while_it_runs_is_asked_too(tmp_path: Path) -> None:
    held = JsonLinesSink(tmp_path / "held.jsonl")
    held.begin("bench")
    interval = TaskInterval.seconds(1)
    held.write(Result.of("bench", "s", DataSet(Window(0, 1), {"a": 1}, interval=interval)))
    held.write(Result.of("bench", "t", DataSet(Window(0, 1), {"a": 1}, interval=interval)))
    held.flush()
    bench = PipelineBench()
    one = bench.stage("s", RwLock[list[int]]([]), tasks=[of_version(1, [])])
    with bench.pipeline:
        with pytest.raises(ConfigError, match=r"stage 's': .* without a version"):
            one.sink(held)
        assert list(one.sinks) == [bench.sink]
        other = bench.stage("u", RwLock[list[int]]([]), tasks=[of_version(1, [])])
        other.sink(held)  # which the run knows from then on
        third = bench.stage("t", RwLock[list[int]]([]), tasks=[of_version(1, [])])
        with pytest.raises(ConfigError, match=r"stage 't': .* without a version"):
            third.sink(held)


# Tasks


class Own:
    """A task of one's own."""

    name = "a"

    def __init__(self, version: Any) -> None:
        self.version = version

    def run(self, data: Any, start: int, end: int, /) -> int:
        return end


def test_a_task_of_ones_own_tells_its_version_by_an_attribute(tmp_path: Path) -> None:
    with closing(JsonLinesSink(tmp_path / "file")) as sink:
        list(pipeline(Own(1), sinks=[sink]).replay())
        with pytest.raises(ConfigError, match=r"task 'a' is of version 'b', and .* of version 1"):
            pipeline(Own("b"), sinks=[sink]).replay()
        # What is neither an int nor a text is something else that is called so.
        with pytest.raises(ConfigError, match="task 'a' has no version"):
            pipeline(Own(print), sinks=[sink]).replay()


def end_of(data: Any, start: int, end: int) -> int:
    return end


def test_a_task_without_a_state_keeps_its_version_in_other_processes() -> None:
    import pickle

    made = Task(end_of, "a", 3)
    assert pickle.loads(pickle.dumps(made)).version == 3
    with pytest.raises(ConfigError, match=r"task\(version=True\): it is an int or a text"):
        of_version(True, [])
