"""Rows that are sent by POST: what is taken, what is refused and how that is told, and the end."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    ConfigError,
    Pipeline,
    RwLock,
    SourceError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sources import Confirm, HttpIngest, OnFault, Positioned, about

JSON = "application/json"
LINES = "application/x-ndjson"


class Answer(NamedTuple):
    status: int
    told: dict[str, Any]
    headers: Mapping[str, str]


def send(
    port: int,
    body: bytes | str | object,
    kind: str | None = JSON,
    *,
    path: str = "/rows",
    method: str = "POST",
    **headers: str,
) -> Answer:
    """One request."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
    if content is None:
        content = json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(
            method, path, content, {**({"Content-Type": kind} if kind else {}), **named}
        )
        answer = connection.getresponse()
        text = answer.read()
        return Answer(answer.status, json.loads(text) if text else {}, dict(answer.headers))
    finally:
        connection.close()


def now() -> int:
    return time.time_ns() // 10**6


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@contextmanager
def serving(**options: Any) -> Generator[tuple[HttpIngest, Pipeline, TimeSeries]]:
    """A pipeline that takes rows."""
    ingest = HttpIngest(port=0, **options)
    series = TimeSeries({"price": float, "size": int, "symbol": str}, TimeUnit.MILLIS)
    pipeline = Pipeline("test").source(ingest, into=series, name="http")
    pipeline.stage("rows", [rows], series, "100ms")
    with pipeline:
        eventually(lambda: ingest.listens)
        yield ingest, pipeline, series


def row(**values: Any) -> dict[str, Any]:
    return {"timestamp": now(), "price": 1.5, "size": 3, "symbol": "a", **values}


# What is taken


def test_an_object_an_array_and_lines_are_rows() -> None:
    with serving() as (ingest, pipeline, series):
        one = send(ingest.port, row())
        assert (one.status, one.told) == (200, {"accepted": 1, "refused": 0, "reasons": []})
        with series.read() as view:  # an answer is given once the rows are in the data
            assert len(view) == 1
        assert send(ingest.port, [row(size=4), row(size=5)]).told["accepted"] == 2
        lines = "\n".join(json.dumps(row(size=n)) for n in (6, 7)) + "\n\n"
        assert send(ingest.port, lines, LINES).told["accepted"] == 2
        with series.read() as view:
            assert view["size"].tolist() == [3, 4, 5, 6, 7]
        assert pipeline.stats.sources["http"].stored == 5
        nothing = send(ingest.port, [])
        assert (nothing.status, nothing.told["accepted"]) == (200, 0)


def test_a_body_may_be_compressed() -> None:
    with serving() as (ingest, _, series):
        body = gzip.compress(json.dumps([row(), row()]).encode())
        assert send(ingest.port, body, Content_Encoding="gzip").told["accepted"] == 2
        two = gzip.compress(json.dumps(row()).encode() + b"\n")
        two += gzip.compress(json.dumps(row()).encode())
        assert send(ingest.port, two, LINES, Content_Encoding="gzip").told["accepted"] == 2
        with series.read() as view:
            assert len(view) == 4


def test_a_timestamp_may_be_a_text_and_of_another_key() -> None:
    with serving(timestamp="at") as (ingest, _, series):
        sent = {"at": "2024-01-31T12:00:00+01:00", "price": 1.0, "size": 1, "symbol": "é"}
        assert send(ingest.port, sent).status == 200
        with series.read() as view:
            assert view.time.tolist() == [1706698800000]
            assert list(view["symbol"]) == ["é"]


def test_rows_enter_any_data_by_an_ingest() -> None:
    ingest = HttpIngest(port=0, unit=TimeUnit.SECONDS)
    found: RwLock[list[Any]] = RwLock([])

    def enter(data: list[Any], row: Any) -> None:
        data.append(row)

    pipeline = Pipeline("test").source(ingest, into=found, ingest=enter)

    @task
    def count(data: list[Any], start: int, end: int) -> int:
        return len(data)

    pipeline.stage("count", [count], found, "1s")
    with pipeline:
        eventually(lambda: ingest.listens)
        assert send(ingest.port, {"timestamp": 1.5e9, "anything": [1, None]}).status == 200
        with found.read() as data:
            assert data == [{"anything": [1, None]}]


# What is refused


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"price": 1.0}, "'timestamp': there is no timestamp"),
        (row(timestamp="soon"), "'timestamp': 'soon' is"),
        (row(timestamp=None), "'timestamp': "),
        (row(price="dear"), "column 'price'"),
        (row(size=2.5), "2.5 has a fraction"),
        (row(symbol=None), "None is no str"),
        (row(prize=1), "there is no column 'prize': the columns are 'price', 'size', 'symbol'"),
        ({"timestamp": 1, "price": 1.0, "size": 1}, "column 'symbol' is missing"),
        ({"timestamp": 1, "self": 1}, "there is no column 'self'"),
        (dict.fromkeys(("price", "size", "symbol")) | {"timestamp": 1}, "no value in any column"),
        ([1, 2], "[1, 2] is no JSON object"),
        (None, "None is no JSON object"),
        (row(size=1 << 64), "size"),
    ],
)
def test_a_row_that_is_refused_costs_itself_and_who_sent_it_is_told(
    wrong: Any, reason: str
) -> None:
    with serving() as (ingest, pipeline, _):
        answer = send(ingest.port, [row(), wrong, row()])
        assert answer.status == 207
        assert (answer.told["accepted"], answer.told["refused"]) == (2, 1)
        (told,) = answer.told["reasons"]
        assert told["row"] == 1
        assert reason in told["reason"]
        alone = send(ingest.port, [wrong])
        assert (alone.status, alone.told["accepted"], alone.told["refused"]) == (422, 0, 1)
        eventually(lambda: pipeline.stats.sources["http"].malformed == 2)
        counts = pipeline.stats.sources["http"]
        assert (counts.received, counts.stored) == (4, 2)
        assert about(ingest).malformed == ingest.malformed == 2


def test_a_line_that_is_no_json_costs_itself() -> None:
    with serving() as (ingest, _, _):
        body = json.dumps(row()).encode() + b'\n{"a":\n\xff\n' + b"[" * 50_000 + b"\nNaN\n"
        answer = send(ingest.port, body, LINES)
        assert (answer.status, answer.told["accepted"], answer.told["refused"]) == (207, 1, 4)
        assert [told["row"] for told in answer.told["reasons"]] == [1, 2, 3, 4]
        assert "it is no JSON: Input data was truncated" in answer.told["reasons"][0]["reason"]


def test_an_answer_tells_of_the_first_hundred_and_counts_all() -> None:
    with serving() as (ingest, pipeline, _):
        answer = send(ingest.port, [1] * 250)
        assert (answer.told["refused"], len(answer.told["reasons"])) == (250, 100)
        eventually(lambda: pipeline.stats.sources["http"].malformed == 250)


def test_rows_that_are_refused_are_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    letters: list[Any] = []

    def take(*letter: Any) -> None:
        letters.append(letter)

    ingest = HttpIngest(port=0)
    series = TimeSeries({"price": float}, TimeUnit.MILLIS)
    pipeline = Pipeline("test").source(ingest, into=series, dead_letters=take)
    pipeline.stage("rows", [rows], series, "100ms")
    with pipeline:
        eventually(lambda: ingest.listens)
        assert send(ingest.port, {"timestamp": 1, "price": "dear"}).status == 422
        eventually(lambda: letters)
        later = {"timestamp": now() + 3_600_000, "price": 1}
        answer = send(ingest.port, [later, {"timestamp": now(), "price": 1}])
        assert (answer.status, answer.told["accepted"]) == (207, 1)
        assert "after the present, and max_ahead=60 s" in str(answer.told["reasons"])
        eventually(lambda: len(letters) == 2)
        counts = pipeline.stats.sources["source-1"]
        assert (counts.received, counts.malformed, counts.ahead) == (3, 1, 1)
    (given, reason, detail), (ahead, why, _) = letters
    assert (given, reason) == ({"timestamp": 1, "price": "dear"}, "malformed")
    assert "'dear' is no number" in detail
    assert (ahead, why) == (later, "ahead")


def test_a_refusal_that_is_fatal_ends_the_source() -> None:
    ingest = HttpIngest(port=0, unit=TimeUnit.MILLIS, on_malformed=OnFault.RAISE)

    def read() -> None:
        with pytest.raises(SourceError, match="there is no timestamp"):
            list(ingest)

    with beside(read):
        eventually(lambda: ingest.listens)
        empty: dict[str, Any] = {}
        assert send(ingest.port, empty).status == 503


def _gzipped(body: bytes) -> bytes:
    """Compressed, without the time, since names of tests are made of it."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("body", "kind", "headers", "status", "error"),
    [
        (b"{", JSON, {}, 400, "the body is no JSON: Input data was truncated"),
        (b"[" * 99_999, JSON, {}, 400, "nested too deep"),
        (b"{}", "text/plain", {}, 415, "'text/plain': send application/json"),
        (b"{}", None, {}, 415, "application/x-ndjson"),
        (b"{}", JSON + "; charset=latin-1", {}, 415, "charset 'latin-1': it is UTF-8"),
        (b"{}", JSON, {"Content_Encoding": "br"}, 415, "'br': a body is compressed by gzip"),
        (b"{}", JSON, {"Content_Encoding": "gzip"}, 400, "the body is no gzip"),
        (_gzipped(b"{}")[:-4], JSON, {"Content_Encoding": "gzip"}, 400, "the body is cut"),
        (b" " * 200_001, JSON, {}, 413, "more than 200,000 bytes"),
        (_gzipped(b" " * 10**7), JSON, {"Content_Encoding": "gzip"}, 413, "also decompressed"),
        (b"[" + b"1," * 1000 + b"1]", JSON, {}, 413, "1,001 rows: at most 1,000 may wait"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused_as_a_whole(
    body: bytes, kind: str | None, headers: dict[str, str], status: int, error: str
) -> None:
    with serving(max_bytes=200_000, capacity=1000) as (ingest, pipeline, _):
        answer = send(ingest.port, body, kind, **headers)
        assert answer.status == status
        assert error in answer.told["error"]
        assert pipeline.stats.sources["http"].received == 0
        assert send(ingest.port, row(), "Application/JSON; charset=UTF-8").status == 200


def test_a_body_that_does_not_say_how_long_it_is_is_limited_all_the_same() -> None:
    with serving(max_bytes=1000) as (ingest, _, _):
        connection = http.client.HTTPConnection("127.0.0.1", ingest.port, timeout=PATIENCE)
        chunks: Iterator[bytes] = (b" " * 100 for _ in range(1000))
        # It may be answered, and hung up on, before all was sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/rows", chunks, {"Content-Type": JSON})
        answer = connection.getresponse()
        assert answer.status == 413
        connection.close()


def test_other_methods_and_paths_are_refused() -> None:
    with serving(path="/v1/rows") as (ingest, _, _):
        got = send(ingest.port, b"", method="GET", path="/v1/rows")
        assert (got.status, got.headers["allow"]) == (405, "POST")
        assert got.told == {"error": "Method Not Allowed: POST rows to /v1/rows"}
        for path in ("/", "/rows", "/v1/rows/", "/v1/rows/../rows"):
            assert send(ingest.port, row(), path=path).status == 404
        assert send(ingest.port, row(), path="/v1/rows").status == 200


def test_requests_that_are_no_http_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving() as (ingest, _, _):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", ingest.port), PATIENCE) as client:
                client.sendall(b"*1\r\n$4\r\nPING\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        logging.getLogger("uvicorn.error").warning("of another server")
    told = [one.getMessage() for one in caplog.records if "HTTP request" in one.getMessage()]
    where = "HttpIngest('127.0.0.1', 0)"
    assert told == [
        f"{where}: a request was refused: Invalid HTTP request received.",
        f"{where}: 19 requests were refused: Invalid HTTP request received.",
    ]
    others = [one.getMessage() for one in caplog.records if one.name.startswith("uvicorn")]
    assert others == ["of another server"]


# Tokens


def test_a_token_is_asked_for_and_told_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("s3cret-of-file\n")
    monkeypatch.setenv("INGEST_TOKEN", "s3cret-of-env")
    for options, token in (
        ({"token_file": file}, "s3cret-of-file"),
        ({"token_env": "INGEST_TOKEN"}, "s3cret-of-env"),
    ):
        with serving(**options) as (ingest, pipeline, _):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Basic {token}"},
                {"Authorization": token},
                {"Authorization": "Bearer s3cret\u00e9"},
            ):
                refused = send(ingest.port, row(), **headers)
                assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert "s3cret" not in json.dumps(refused.told)
            assert pipeline.stats.sources["http"].received == 0
            taken = send(ingest.port, row(), Authorization=f"bearer {token}")
            assert taken.status == 200
            assert "s3cret" not in f"{ingest!r} {ingest.about()} {pipeline.stats}"
    assert caplog.records
    assert "s3cret" not in caplog.text


def test_without_a_token_only_this_machine_is_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("0.0.0.0", "::", "example.org", "192.168.0.1", ""):
        with pytest.raises(ConfigError, match="host="):
            HttpIngest(host)
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(ConfigError, match="there is no token in it"):
        HttpIngest("0.0.0.0", token_file=tmp_path / "token")
    with pytest.raises(ConfigError, match="none' cannot be read"):
        HttpIngest("0.0.0.0", token_file=tmp_path / "none")
    monkeypatch.delenv("INGEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="token_env='INGEST_TOKEN': there is no token in it"):
        HttpIngest("0.0.0.0", token_env="INGEST_TOKEN")
    with pytest.raises(ConfigError, match="say one of them"):
        HttpIngest("0.0.0.0", token_env="INGEST_TOKEN", token_file=tmp_path / "token")
    monkeypatch.setenv("INGEST_TOKEN", "x")
    HttpIngest("0.0.0.0", token_env="INGEST_TOKEN")
    for host in ("localhost", "127.0.0.1", "::1", "127.1.2.3"):
        HttpIngest(host)


def test_a_browser_that_was_led_here_by_another_name_is_refused() -> None:
    with serving() as (ingest, _, _):
        assert send(ingest.port, row(), Host="evil.example:80").status == 403
        for host in ("localhost", "localhost:8080", "[::1]:8080", "127.0.0.1"):
            assert send(ingest.port, row(), Host=host).status == 200


# No room, and the end


@contextmanager
def read_by_hand(**options: Any) -> Generator[tuple[HttpIngest, Generator[Any]]]:
    """One of which the test takes the rows."""
    ingest = HttpIngest(port=0, unit=TimeUnit.MILLIS, **options)
    given = iter(ingest)
    with beside(lambda: next(given)) as first:
        eventually(lambda: ingest.listens)
        send_later(ingest.port, row())
        first.result(PATIENCE)
    try:
        yield ingest, given
    finally:
        given.close()


def send_later(port: int, sent: object) -> None:
    """Send, and don't wait for the answer."""
    body = json.dumps(sent).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = f"POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    _open.append(connection)


_open: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _hang_up() -> Generator[None]:
    yield
    while _open:
        _open.pop().close()


def test_rows_for_which_there_is_no_room_are_to_come_again_later() -> None:
    with read_by_hand(capacity=10) as (ingest, given):
        send_later(ingest.port, [row()] * 8)
        eventually(lambda: ingest.lag == 8)
        full = send(ingest.port, [row()] * 3)
        assert (full.status, full.headers["retry-after"]) == (429, "1")
        assert "8 rows wait to enter, and there is no room for 3 more" in full.told["error"]
        assert ingest.lag == 8  # none of them was taken
        for _ in range(8):
            next(given)
        with beside(lambda: send(ingest.port, [row()] * 3)) as later:
            for _ in range(3):
                next(given)
            given.close()
            assert later.result(PATIENCE).status == 503
        assert about(ingest).dropped == 0


def test_rows_that_stand_still_are_not_confirmed() -> None:
    with read_by_hand(confirm_timeout=0.05) as (ingest, _):
        answer = send(ingest.port, row())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "not confirmed" in answer.told["error"]


def test_an_answer_waits_until_rows_are_kept() -> None:
    with read_by_hand(confirm=Confirm.KEPT) as (ingest, given):
        anything: object = ingest
        assert isinstance(anything, Positioned)
        assert ingest.position == 1
        with beside(lambda: send(ingest.port, [row(), row()])) as two:
            next(given)
            next(given)
            assert ingest.position == 3
            send_later(ingest.port, row())
            next(given)  # what comes behind the two rows of a request is known by now
            ingest.commit(2)
            assert not two.done()
            ingest.commit(3)
            assert two.result(PATIENCE).status == 200


def test_it_counts_on_behind_a_position() -> None:
    ingest = HttpIngest(port=0, unit=TimeUnit.MILLIS)
    ingest.seek(100)
    with beside(lambda: next(iter(ingest))):
        eventually(lambda: ingest.listens)
        send_later(ingest.port, row())
        eventually(lambda: ingest.position == 101)


def test_the_end_is_within_the_time_for_it_and_those_who_wait_are_told() -> None:
    with serving() as (ingest, pipeline, _):
        port = ingest.port
        idle = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        half = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        half.sendall(b"POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        send(port, row())
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert pipeline.stats.sources["http"].stored == 1
    idle.close()
    half.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    assert not ingest.listens


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with serving() as (ingest, _, _):
        other = HttpIngest(port=ingest.port, unit=TimeUnit.MILLIS)
        with pytest.raises(SourceError, match=r"it cannot listen on .*in use: take another port="):
            list(other)


def test_one_that_is_closed_before_it_begins_gives_nothing() -> None:
    ingest = HttpIngest(port=0, unit=TimeUnit.MILLIS)
    ingest.close()
    assert list(ingest) == []


def test_one_whose_unit_nobody_said_tells_so() -> None:
    with pytest.raises(ConfigError, match="say by unit= in which unit"):
        list(HttpIngest(port=0))
    ingest = HttpIngest(port=0, unit=TimeUnit.SECONDS)
    with pytest.raises(ConfigError, match="in seconds, and not in millis"):
        ingest.count_in(TimeUnit.MILLIS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1}, {"port": 65536}, {"port": "80"}, {"host": 1}, {"path": "rows"},
        {"timestamp": ""}, {"unit": "ms"}, {"stored": "ms"}, {"confirm": "kept"},
        {"confirm_timeout": 0}, {"max_bytes": 0}, {"capacity": 0}, {"on_malformed": "skip"},
        {"zone": "Nowhere/Land", "unit": TimeUnit.MILLIS},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        HttpIngest(**wrong)
    name, value = next(iter(wrong.items()))
    assert name in str(refused.value) or name == "on_malformed"
    assert repr(value).strip("'") in str(refused.value)


def test_rows_of_many_senders_are_all_counted() -> None:
    with serving() as (ingest, pipeline, series):

        def post(number: int) -> int:
            sent = [row(size=number)] * 50
            return int(send(ingest.port, sent).told["accepted"])

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(post, range(40))) == 2000
        assert pipeline.stats.sources["http"].stored == 2000
        with series.read() as view:
            assert len(view) == 2000
