"""No secret of a URL is told, wherever it stands in it, by whatever is made of it or refuses it."""

from __future__ import annotations

import logging
import random
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.proof import in_proof
from tests.support.web import web

from run_task import DataSet, Pipeline, RunTaskError, TaskInterval, TimeSeries, TimeUnit, Window
from run_task.sinks import CsvSink, JsonLinesSink, ParquetSink, Result, Rotation, SqlSink
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, OnFault, ParquetFile, paced

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed, which fsspec reads http:// by")
http = pytest.importorskip("fsspec.implementations.http")
pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

SECRET = "sEcr3t"
ENCODED = "%73Ecr3t"  # the same, in another spelling

WRITTEN = [
    "{scheme}://u:{secret}@{host}/{path}",
    "{scheme}://{secret}@{host}/{path}",
    "{scheme}://{secret}:@{host}/{path}",
    "{scheme}://:{secret}@{host}/{path}",
    "{scheme}://u:{secret}@{host}/{path}?x=1",
    "{scheme}://u:p@{secret}@{host}/{path}",
    "{scheme}://u:p/{secret}@{host}/{path}",
    "{scheme}://u:p?{secret}@{host}/{path}",
    "{scheme}://u:p#{secret}@{host}/{path}",
    "{scheme}://u:p {secret}@{host}/{path}",
    "{scheme}://u:p:{secret}@{host}/{path}",
    "{scheme}://u:p%40{secret}@{host}/{path}",
    "{scheme}://u:{secret}:{host}/{path}",
    "{scheme}://u:{secret}@/{path}",
    "{scheme}://{host}/{path}?password={secret}",
    "{scheme}://{host}/{path}?{secret}",
    "{scheme}://{host}/{path}?a=1&token={secret}&b=2",
    "{scheme}://{host}/{path}?a=1;token={secret}",
    "{scheme}://{host}/{path}?X-Amz-Signature={secret}&X-Amz-Date=20260101",
    "{scheme}://{host}/{path}#{secret}",
    "{scheme}://{host}/{path};password={secret}",
    "{scheme}://{host}/{path}&password={secret}",
    "{scheme}://{host}?password={secret}",
    "{scheme}://u:{secret}@[::1]:1/{path}",
    "{scheme}://u:{secret}@[::1/{path}",
    "{scheme}://u:{secret}@{host}:port/{path}",
    "{scheme}:/u:{secret}@{host}/{path}",
    "{scheme}:u:{secret}@{host}/{path}",
    "{scheme}//u:{secret}@{host}/{path}",
    "{scheme};//u:{secret}@{host}/{path}",
    "//u:{secret}@{host}/{path}",
    "u:{secret}@{host}/{path}",
    " {scheme}://u:{secret}@{host}/{path}",
    "{scheme}://u:{secret}@{host}/{path} ",
    "'{scheme}://u:{secret}@{host}/{path}'",
    "url={scheme}://u:{secret}@{host}/{path}",
    "{scheme}://u:p\n{secret}@{host}/{path}",
    "{scheme}\t://u:{secret}@{host}/{path}",
]
DATABASES = ["postgresql+psycopg", "mysql+pymysql", "POSTGRESQL", "oracle", "nonesuch", "sqlite"]
SCHEMES = ["s3", "gs", "http", "https", "ftp", "memory", "nonesuch", "simplecache::s3", "zip", "az"]


def spelled(schemes: Iterable[str]) -> list[str]:
    """In all ways with all schemes; of them, in each run other ones but in a proof."""
    urls = [
        shape.format(scheme=scheme, secret=secret, host="127.0.0.1:1", path="a.csv")
        for shape in WRITTEN
        for scheme in schemes
        for secret in (SECRET, ENCODED)
    ]
    return random.sample(urls, in_proof(len(urls), short=len(urls) // 3))


class Told:
    """All that was told, and a look whether a secret stands in it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.count = 0

    def of(self, url: str, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a call gives; None if it raises an error of ours, as it may."""
        made = None
        texts: list[str] = []
        try:
            made = make(*arguments, **options)
            texts += [repr(made), str(made)]
        except RunTaskError as error:
            texts += [str(error), repr(error), repr(error.args)]
            texts += traceback.format_exception(error)
        for record in self._caplog.records:
            texts += [record.getMessage(), repr(record.__dict__)]
        self._caplog.clear()
        for text in texts:
            assert not any(secret in text for secret in (SECRET, ENCODED)), (url, text)
        self.count += len(texts)
        return made


def all_of(pipeline: Pipeline) -> str:
    html = pipeline._repr_html_()  # pyright: ignore[reportPrivateUsage] it is for notebooks
    return f"{list(pipeline.replay())} {pipeline.stats} {html}"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    # Those of others tell what their users ask them to, as fsspec does of all that it reads.
    with caplog.at_level(logging.DEBUG, "run_task"):
        yield Told(caplog)
    http.HTTPFileSystem.clear_instance_cache()  # some of which would stay as a test has made them


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no URL is a path, also of a file that is made."""
    monkeypatch.chdir(tmp_path)


def test_sinks_of_databases(told: Told) -> None:
    for url in spelled(DATABASES):
        for given in (url, Path(url)):
            sink = told.of(url, SqlSink, given)
            if sink is None:
                continue
            told.of(url, sink.begin, "p")
            told.of(url, sink.write, Result.of("p", "s", DataSet(Window(0, 1), {"a": 1})))
            told.of(url, sink.flush)
            told.of(url, sink.rows)
            told.of(url, sink.last, "s")
            told.of(url, sink.close)
    assert told.count > 300


def test_sinks_of_files_that_are_given_a_url(told: Told) -> None:
    for url in spelled(SCHEMES):
        for make in (CsvSink, JsonLinesSink, ParquetSink):
            for given in (url, Path(url)):
                sink = told.of(url, make, given)
                if sink is not None:
                    told.of(url, sink.close)
        told.of(url, CsvSink, url, rotation=Rotation(max_bytes=1))
    assert told.count > 300


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile, ParquetFile, ArrowFile])
def test_sources_that_cannot_be_read(
    make: Any, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise ValueError(f"{arguments} cannot be asked, by {fsspec.__name__}")

    # As a host that is not there, without the time that it takes to find that out.
    monkeypatch.setattr(http.HTTPFileSystem, "info", refuse)
    for url in spelled(SCHEMES):
        for given in (url, Path(url), [url], [url, url], f"{url}/*.csv"):
            told.of(url, make, given, unit=TimeUnit.SECONDS)
        if make in (CsvFile, JsonLinesFile):
            told.of(url, make, url, follow=True)
        told.of(url, make, "s3://a/b", storage_options={"key": SECRET, "more": {"x": [SECRET]}})
    assert told.count > 300


def test_sources_that_can_be_read(told: Told) -> None:
    with web() as served:
        served.files = {
            "a.csv": b"timestamp,x\n" + b"1,1.5\n2,\n3,oops\n" * 10,
            "b.csv": b"timestamp,y\n1,1.5\n",
        }
        root = uuid.uuid4().hex
        fsspec.filesystem("memory").pipe_file(f"/{root}/{SECRET}@b/a.csv", served.files["a.csv"])
        urls = [
            f"{served.url}/a.csv?token={SECRET}",
            f"{served.url.replace('//', f'//u:{SECRET}@')}/a.csv",
            f"{served.url}/a.csv#{SECRET}",
            f"memory://{root}/{SECRET}@b/a.csv",
        ]
        for url in urls:
            other = url.replace("a.csv", "b.csv")
            for options in ({}, {"on_malformed": OnFault.RAISE}, {"max_malformed": 0.1}):
                source = told.of(url, CsvFile, url, unit=TimeUnit.SECONDS, **options)
                if source is not None:
                    told.of(url, source.about)
                    told.of(url, list, source)
                    told.of(url, paced, source)
                    pipeline = Pipeline("p")
                    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
                    told.of(url, pipeline.source, source, into=series)
                    told.of(url, all_of, pipeline)
            told.of(url, CsvFile, [url, other], unit=TimeUnit.SECONDS)
            told.of(url, CsvFile, [url, url], unit=TimeUnit.SECONDS)
            told.of(url, CsvFile, url, columns=["nonesuch"])
            told.of(url, ParquetFile, url)
        served.status = 403
        for url in urls:
            told.of(url, CsvFile, url)
    assert told.count > 50


def test_results_that_a_database_refuses(told: Told, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/results.db?key={SECRET}"
    sink = told.of(url, SqlSink, url)
    interval = TaskInterval.seconds(1)
    if sink is not None:
        told.of(url, sink.begin, "p")
        told.of(url, sink.write, Result.of("p", "s", DataSet(Window(0, 1), {"a": object()})))
        told.of(
            url, sink.write, Result.of("p", "s", DataSet(Window(0, 1), {"a": 1}, interval=interval))
        )
        told.of(url, sink.close)
        told.of(url, sink.flush)
    assert told.count > 0
