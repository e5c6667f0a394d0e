"""Files that are read through fsspec: from its memory, and from a web server of this machine."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.web import Web, web

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeUnit, task
from run_task.sources import ArrowFile, CsvFile, FileOrder, JsonLinesFile, ParquetFile

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed, which fsspec reads http:// by")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS: dict[str, Any] = {"timestamp": "time", "unit": TimeUnit.SECONDS}
ROWS = [(time, {"price": time / 7}) for time in range(1, 200)]


def csv(rows: list[tuple[int, dict[str, float]]]) -> bytes:
    return b"time,price\n" + b"".join(b"%d,%r\n" % (time, row["price"]) for time, row in rows)


def json_lines(rows: list[tuple[int, dict[str, float]]]) -> bytes:
    return b"".join(b'{"time": %d, "price": %r}\n' % (time, row["price"]) for time, row in rows)


def table(rows: list[tuple[int, dict[str, float]]]) -> Any:
    return pa.table(
        {"time": [time for time, _ in rows], "price": [row["price"] for _, row in rows]}
    )


def in_parquet(rows: list[tuple[int, dict[str, float]]]) -> bytes:
    raw = io.BytesIO()
    parquet.write_table(table(rows), raw, row_group_size=50)
    return raw.getvalue()


def in_arrow(rows: list[tuple[int, dict[str, float]]]) -> bytes:
    raw = io.BytesIO()
    with pa.ipc.new_file(raw, table(rows).schema) as writer:
        writer.write_table(table(rows))
    return raw.getvalue()


FORMATS = [
    (CsvFile, csv),
    (JsonLinesFile, json_lines),
    (ParquetFile, in_parquet),
    (ArrowFile, in_arrow),
]
Write = Callable[[str, bytes], str]


@pytest.fixture
def memory() -> Iterator[Write]:
    """Writes a file into the memory of fsspec; gives its URL."""
    root = f"/{uuid.uuid4().hex}"
    files = fsspec.filesystem("memory")

    def write(name: str, content: bytes) -> str:
        files.pipe_file(f"{root}/{name}", content)
        return f"memory:/{root}/{name}"

    files.makedirs(root)
    yield write
    files.rm(root, recursive=True)


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as served:
        yield served
        # Its connections stay open otherwise, for as long as the program runs.
        fsspec.filesystem("http").clear_instance_cache()


@pytest.fixture(params=["memory", "http", "http without parts"])
def write(request: pytest.FixtureRequest) -> Write:
    if request.param == "memory":
        made: Write = request.getfixturevalue("memory")
        return made
    served: Web = request.getfixturevalue("server")
    served.ranges = request.param == "http"

    def write(name: str, content: bytes) -> str:
        served.files[name] = content
        return f"{served.url}/{name}"

    return write


@pytest.mark.parametrize(("make", "content"), FORMATS)
def test_each_format_is_read_as_one_of_this_machine_is(
    make: Any, content: Callable[..., bytes], write: Write, tmp_path: Path
) -> None:
    url = write("file", content(ROWS))
    source = make(url, **SECONDS)
    local = tmp_path / "file"
    local.write_bytes(content(ROWS))
    assert list(source) == ROWS
    assert list(source) == ROWS  # from its start, each time
    assert source.about() == make(local, **SECONDS).about()
    assert repr(source) == f"{make.__name__}({url!r})"


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_compressed_is_known_by_its_content(
    make: Any, pack: Callable[[bytes], bytes], write: Write
) -> None:
    content = csv if make is CsvFile else json_lines
    assert list(make(write("file.csv", pack(content(ROWS))), **SECONDS)) == ROWS


def test_a_folder_and_a_pattern_and_a_list(memory: Write, tmp_path: Path) -> None:
    parts = {"day-9.csv": ROWS[:50], "day-10.csv": ROWS[50:100], "day-11.csv.gz": ROWS[100:]}
    urls = {name: memory(f"days/{name}", csv(rows)) for name, rows in parts.items()}
    memory("days/_SUCCESS", b"not a csv")
    memory("days/.hidden", b"not a csv")
    folder = urls["day-9.csv"].rpartition("/")[0]
    assert list(CsvFile(folder, **SECONDS)) == ROWS
    assert list(CsvFile(f"{folder}/", **SECONDS)) == ROWS
    assert list(CsvFile(f"{folder}/day-*.csv*", **SECONDS)) == ROWS
    assert list(CsvFile(f"{folder}/day-?.csv", **SECONDS)) == ROWS[:50]
    backward = list(urls.values())[::-1]
    assert next(iter(CsvFile(backward, **SECONDS))) == ROWS[100]
    assert list(CsvFile(backward, order=FileOrder.FIRST_TIME, **SECONDS)) == ROWS
    assert list(CsvFile(backward, sort=True, **SECONDS)) == ROWS
    local = tmp_path / "local.csv"
    local.write_bytes(csv(ROWS[100:]))
    assert list(CsvFile([f"{folder}/day-*.csv", local], **SECONDS)) == ROWS
    with pytest.raises(ConfigError, match=r"days/day-9\.csv' is named twice"):
        CsvFile([folder, urls["day-9.csv"]], **SECONDS)
    with pytest.raises(ConfigError, match=r"no file matches 'memory://.*night-\*'"):
        CsvFile(f"{folder}/night-*", **SECONDS)
    memory("days/day-12.csv", csv([(1000, {"price": 1.0})]))  # and none of it is remembered
    assert len(list(CsvFile(folder, **SECONDS))) == len(ROWS) + 1


@pytest.mark.parametrize(("make", "content"), FORMATS)
def test_what_a_remote_file_ends_with_is_asked_for_once_for_each_reading(
    make: Any, content: Callable[..., bytes], server: Web
) -> None:
    server.files["file"] = content(ROWS)
    source = make(f"{server.url}/file", **SECONDS)
    known = source.about()
    server.asked.clear()
    assert source.about() == source.about() == known
    assert server.asked == []
    server.files["file"] = content(ROWS[:100])
    assert list(source) == ROWS[:100]
    if make is not ParquetFile:  # which looks it up once for good
        assert source.about().last == 100


def test_urls_within_urls_and_in_capitals(server: Web) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in.csv", csv(ROWS))
    server.files = {"a.zip": packed.getvalue(), "a.csv": csv(ROWS)}
    url = f"zip://in.csv::{server.url}/a.zip"
    source = CsvFile(url, **SECONDS)
    assert list(source) == ROWS
    assert repr(source) == f"CsvFile({url!r})"
    assert list(CsvFile(f"HTTP{server.url[4:]}/a.csv", **SECONDS)) == ROWS
    server.ranges = False
    fsspec.filesystem("http").clear_instance_cache()
    with pytest.raises(ConfigError, match=r"zip://in\.csv::.*its server gives no parts of a file"):
        CsvFile(url, **SECONDS)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "with space.csv"
    path.write_bytes(csv(ROWS))
    assert list(CsvFile(path.as_uri(), **SECONDS)) == ROWS


def test_a_pipeline_replays_a_remote_file(write: Write) -> None:
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)

    @task
    def total(view: Any, start: int, end: int) -> float:
        return float(view.in_window["price"].sum())

    pipeline = Pipeline("p")
    pipeline.source(CsvFile(write("file.csv", csv(ROWS)), **SECONDS), into=series)
    pipeline.stage("sums", [total], series, "100s")
    found = [dataset["total"] for _, dataset in pipeline.replay()]
    assert found == pytest.approx([sum(range(100)) / 7, sum(range(100, 200)) / 7])


def test_a_large_file_of_a_server_without_parts_is_read_on_as_a_whole(server: Web) -> None:
    rows = [(time, {"price": 1.5}) for time in range(1, 700_000)]
    content = csv(rows)
    assert len(content) > 5 << 20  # which is what is read at once
    server.files["file.csv"] = content
    for server.ranges in (True, False):
        source = CsvFile(f"{server.url}/file.csv", **SECONDS)
        server.asked.clear()
        times = [batch.timestamps for batch in source.batches()]
        assert [time for batch in times for time in batch.tolist()] == [time for time, _ in rows]
        wholes = [one for one in server.asked if one.startswith("GET") and "bytes=" not in one]
        assert len(wholes) == (0 if server.ranges else 1)


def test_parquet_of_a_server_without_parts_is_refused_where_it_is_large(server: Web) -> None:
    server.ranges = False
    rows = [(time, {"price": time / 7}) for time in range(1, 900_000)]
    server.files["file"] = in_parquet(rows)
    with pytest.raises(ConfigError, match="its server gives no parts of a file: copy it to this m"):
        ParquetFile(f"{server.url}/file", **SECONDS)


def test_a_connection_that_breaks_is_told(server: Web) -> None:
    server.files["file.csv"] = csv(ROWS)
    source = CsvFile(f"{server.url}/file.csv", **SECONDS)
    server.cut = 1_000
    with pytest.raises(SourceError, match=r"file\.csv, line 1: cannot be read on: .*payload"):
        list(source)
    server.cut = None
    server.files["file.csv"] += b"broken\n" + csv(ROWS)
    server.status = 503
    with pytest.raises(SourceError, match=r"cannot be read on: .*503|and is gone"):
        list(source)
    server.status = None
    server.files.clear()
    with pytest.raises(SourceError, match="it was there when the source was made, and is gone"):
        list(source)


@pytest.mark.parametrize("status", [404, 403, 500, 503])
@pytest.mark.parametrize("make", [CsvFile, ParquetFile])
def test_a_server_that_refuses_is_told_without_secrets(status: int, make: Any, server: Web) -> None:
    server.status = status
    with pytest.raises(ConfigError) as caught:
        make(f"{server.url}/a.csv?token=s3cr3t", **SECONDS)
    text = str(caught.value)
    assert text.startswith(f"{make.__name__}('{server.url}/a.csv...'): there is no such file")
    assert status == 404 or str(status) in text
    assert "s3cr3t" not in text


def test_nobody_who_answers_is_told(server: Web) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file \(it cannot be asked for: .*\)"):
        CsvFile("http://127.0.0.1:1/a.csv", **SECONDS)


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile])
@pytest.mark.parametrize("url", ["memory://a/b.csv", "s3://bucket/key", ["http://host/a"]])
def test_a_remote_file_cannot_be_followed(make: Any, url: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"follow= is for a file of this machine.* by polling\(\)"
    ):
        make(url, columns={"price": float}, follow=True, **SECONDS)


def test_what_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, driver in (("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")):
        monkeypatch.setitem(sys.modules, driver, None)
        with pytest.raises(ConfigError, match=rf"{scheme}:// needs a driver.*pip install {driver}"):
            CsvFile(f"{scheme}://bucket/key.csv", **SECONDS)
    with pytest.raises(ConfigError, match=r"this URL cannot be used: Protocol not known: soap"):
        CsvFile("soap://host/a.csv", **SECONDS)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "fsspec", None)
        with pytest.raises(ConfigError, match=r"needs fsspec.*run-task\[remote\].*pip install"):
            CsvFile("memory://a.csv", **SECONDS)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "aiohttp", None)
        with pytest.raises(ConfigError, match=r"needs aiohttp, of the .*\[remote\].*pip in"):
            CsvFile("http://host/a.csv", **SECONDS)


def test_options_reach_the_file_system_and_no_message(server: Web) -> None:
    server.files["a.csv"] = csv(ROWS)
    options = {"headers": {"Authorization": "Bearer s3cr3t-token"}}
    source = CsvFile(f"{server.url}/a.csv", storage_options=options, **SECONDS)
    assert list(source) == ROWS
    assert "s3cr3t" not in repr(source)
    with pytest.raises(ConfigError, match=r"storage_options= is a mapping, .* and not a str"):
        wrong: Any = "s3cr3t"
        CsvFile("memory://a", storage_options=wrong, **SECONDS)
    with pytest.raises(ConfigError, match="this URL cannot be used: 'int' object is not a mapping"):
        CsvFile(f"{server.url}/a.csv", storage_options={"client_kwargs": 5}, **SECONDS)
    with pytest.raises(ConfigError) as caught:
        CsvFile("memory://a", storage_options={"no such": "s3cr3t"}, **SECONDS)
    assert "s3cr3t" not in str(caught.value)


def test_errors_of_any_kind_come_as_ours_and_tell_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Odd(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Odd("memory://u:s3cr3t@x?key=s3cr3t has failed,\x1b[31m with s3cr3t")

    url = "memory://u:s3cr3t@x/a.csv?key=s3cr3t"
    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "info", fail)
    with pytest.raises(ConfigError) as caught:
        CsvFile(url, **SECONDS)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cr3t" not in f"{error} {error!r}"
        assert "\x1b" not in str(error)
        error = error.__cause__ or error.__context__
