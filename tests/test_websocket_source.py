"""WebSockets: what a server sends, connections that are lost, and what is refused."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from tests.support.servers import gathering, messages
from tests.support.threads import eventually
from websockets.sync.server import Server, ServerConnection, serve

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import OnFault, Stamp, WebSocketSource, about


class Feed:
    """A server that sends what a test says."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.heard: list[str | bytes] = []
        self.headers: list[dict[str, str]] = []
        self.refuse: int | None = None
        self._server: Server | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        def handle(connection: ServerConnection) -> None:
            assert connection.request is not None
            self.headers.append({k.lower(): v for k, v in connection.request.headers.raw_items()})
            self.connections.append(connection)
            with contextlib.suppress(Exception):
                for message in connection:
                    self.heard.append(message)
            self.connections.remove(connection)

        def check(connection: ServerConnection, _: Any) -> Any:
            return None if self.refuse is None else connection.respond(self.refuse, "no\n")

        self._server = serve(handle, "127.0.0.1", self.port, process_request=check)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def send(self, bodies: Iterable[str | bytes]) -> None:
        eventually(lambda: self.connections)
        for body in bodies:
            self.connections[-1].send(body)

    def hang_up(self) -> None:
        for connection in list(self.connections):
            connection.socket.close()
            connection.close()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        for connection in list(self.connections):
            connection.close()
        eventually(lambda: not self.connections)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/feed"


@pytest.fixture
def feed() -> Generator[Feed]:
    made = Feed()
    yield made
    made.stop()


@pytest.mark.parametrize("batched", [True, False])
def test_messages_of_text_and_of_bytes_are_rows(feed: Feed, batched: bool) -> None:
    source = WebSocketSource(feed.url)
    with gathering(source, batched=batched) as found:
        one, two = messages(1, 2)
        feed.send([one.decode(), two, "[" + ", ".join(map(bytes.decode, messages(3, 4))) + "]"])
        assert found.until(4) == [1, 2, 3, 4]
        assert found.rows[0] == (1, {"value": 10})
    assert (about(source).endless, about(source).unit) == (True, TimeUnit.MILLIS)
    assert not hasattr(source, "commit")


def test_it_subscribes_anew_at_each_connection(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    source = WebSocketSource(feed.url, subscribe=['{"op": "trades"}', b"quotes"])
    with gathering(source) as found:
        feed.send(messages(1))
        found.until(1)
        eventually(lambda: feed.heard == ['{"op": "trades"}', b"quotes"])
        feed.stop()
        eventually(lambda: source.lag is None)
        feed.start()
        feed.send(messages(2))
        assert found.until(2) == [1, 2]
        eventually(lambda: feed.heard == ['{"op": "trades"}', b"quotes"] * 2)
    assert f"ws://127.0.0.1:{feed.port}/feed cannot be reached" in caplog.text
    assert "is there again" in caplog.text


def test_headers_are_sent_anew_and_told_nowhere(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.client").setLevel(logging.INFO)  # which tells all it sends
    logging.getLogger("websockets.server").setLevel(logging.INFO)
    tokens = iter(("s3cret-1", "s3cret-2"))

    def given() -> dict[str, str]:
        return {"Authorization": next(tokens, "s3cret-n")}

    source = WebSocketSource(feed.url, headers=given)
    with gathering(source):
        eventually(lambda: feed.headers)
        assert feed.headers[0]["authorization"] == "s3cret-1"
        feed.hang_up()
        eventually(lambda: len(feed.headers) == 2)
        assert "s3cret" not in caplog.text + repr(source)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_fatal(feed: Feed, status: int, caplog: pytest.LogCaptureFixture) -> None:
    feed.refuse = status
    source = WebSocketSource(
        feed.url.replace("feed", "feed?token=s3cret-q"), headers={"X-Token": "s3cret-h"}
    )
    with gathering(source) as found:
        error = found.fails()
    assert isinstance(error, SourceError)
    assert str(status) in str(error)
    assert "are the path and headers= right?" in str(error)
    assert "s3cret" not in str(error) + repr(source) + caplog.text


def test_a_server_that_is_busy_is_tried_again(feed: Feed) -> None:
    feed.refuse = 503
    source = WebSocketSource(feed.url)
    with gathering(source) as found:
        eventually(lambda: source.lag is None)
        feed.refuse = None
        feed.send(messages(1))
        assert found.until(1) == [1]


def test_a_server_that_is_not_there_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    feed.stop()
    source = WebSocketSource(feed.url)
    with gathering(source) as found:
        eventually(lambda: "cannot be reached" in caplog.text)
        assert f"127.0.0.1:{feed.port}" in caplog.text
        feed.start()
        feed.send(messages(1))
        assert found.until(1) == [1]
    feed.stop()


def test_messages_that_are_no_rows_are_counted_and_the_others_come(feed: Feed) -> None:
    source = WebSocketSource(feed.url, columns={"value": int}, largest=100)
    with gathering(source) as found:
        feed.send([*messages(1), b"{", b"\xff", "[1]", '{"value": 1}', "x" * 101, *messages(2)])
        assert found.until(2) == [1, 2]
        assert about(source).malformed == 5


def test_one_that_is_larger_than_is_read_at_all_costs_the_connection_and_is_told(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("run_task.sources.brokers._websocket._LARGEST_EVER", 200)
    with gathering(WebSocketSource(feed.url)) as found:
        feed.send([*messages(1), "x" * 201])
        assert found.until(1) == [1]
        eventually(lambda: len(feed.headers) == 2)  # it has come again
        eventually(lambda: feed.connections)
        feed.send(messages(2))
        assert found.until(2) == [1, 2]
    assert "message too big" in caplog.text


def test_a_malformed_message_may_end_it(feed: Feed) -> None:
    with gathering(WebSocketSource(feed.url, on_malformed=OnFault.RAISE)) as found:
        feed.send(["{"])
        assert "is not JSON" in str(found.fails())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://localhost"}, "its address is ws://host/path"),
        ({"url": "nonsense"}, "its address is ws://host/path"),
        ({"timestamp": Stamp.BROKER}, "a WebSocket tells no time of a message"),
        ({"key": "topic"}, "a WebSocket has no subjects"),
        ({"unit": "ms"}, "unit='ms'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given: dict[str, Any] = {"url": "ws://localhost", **arguments}
        WebSocketSource(**given)


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["value"].sum())


def test_a_pipeline_reads_it_and_ends_while_nothing_comes(feed: Feed) -> None:
    series = TimeSeries({"value": float}, TimeUnit.MILLIS)
    pipeline = Pipeline("test").source(WebSocketSource(feed.url), into=series, name="feed")
    pipeline.stage("totals", [total], series, "100ms")
    with pipeline:
        feed.send(messages(*range(100)))
        eventually(lambda: pipeline.stats.sources["feed"].stored == 100)
