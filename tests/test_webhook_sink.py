"""Webhooks: what is posted, that it is signed, and what becomes of it where a server is away."""

from __future__ import annotations

import base64
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import standardwebhooks
from tests.support.receiver import receiver
from tests.support.threads import eventually

from run_task import (
    ConfigError,
    DataSet,
    KeyedDataSet,
    Pipeline,
    Retry,
    RwLock,
    SinkError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    alert,
    task,
)
from run_task.sinks import AlertChange, Result, WebhookSink, alert_changes
from run_task.sinks.brokers._result_messages import messages_of

SECOND = TaskInterval.seconds(1)
SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def result(values: dict[str, Any] | None = None, end: int = 60) -> Result:
    dataset = DataSet(Window(end - 60, end), values or {"mean": 1.5}, interval=SECOND)
    return Result.of("plant", "minutes", dataset)


_made: list[WebhookSink] = []


def webhook(url: str, **options: Any) -> WebhookSink:
    """A sink that is closed once the test is over."""
    sink = WebhookSink(url, **options)
    _made.append(sink)
    return sink


@pytest.fixture(autouse=True)
def all_closed() -> Generator[None]:
    yield
    while _made:
        _made.pop().close()


def test_a_window_is_posted_as_json_that_says_what_it_is() -> None:
    with receiver() as to:
        sink = webhook(f"{to.url}/hooks/1?room=a b".replace(" ", "%20"))
        sink.write(result())
        sink.close()
    (posted,) = to.posted
    assert posted.path == "/hooks/1?room=a%20b"
    assert posted.headers["content-type"] == "application/json"
    assert "webhook-signature" not in posted.headers
    assert posted.json == {
        "type": "plant.minutes",
        "timestamp": "1970-01-01T00:01:00Z",
        "data": {
            "pipeline": "plant",
            "stage": "minutes",
            "start": 0,
            "end": 60,
            "unit": "s",
            "results": {"mean": 1.5},
            "errors": [],
        },
    }


def test_what_a_window_lacks_is_posted() -> None:
    away = ("shard 1 of 2",)
    keyed: dict[str, Any] = {"mean": {"a": 1.5}}
    plain = DataSet(Window(0, 60), {"mean": 1.5}, behind=away)
    by_key = KeyedDataSet[str, float](Window(0, 60), "k", keyed, behind=away)
    with receiver() as to:
        sink = webhook(to.url)
        sink.write(Result.of("plant", "minutes", plain))
        sink.write(Result.of("plant", "minutes", by_key))
        sink.close()
    assert [posted.json["data"]["behind"] for posted in to.posted] == [[*away]] * 2
    messages = list(messages_of(Result.of("plant", "minutes", by_key)))
    assert [json.loads(one.body)["behind"] for one in messages] == [[*away]]


def test_the_signature_is_verified_by_another_implementation() -> None:
    with receiver() as to:
        sink = webhook(to.url, secret=SECRET)
        for value in (1.5, "ü\n", {"nested": [1, 2]}):
            sink.write(result({"mean": value}))
        sink.close()
    verifier = standardwebhooks.Webhook(SECRET)
    for posted in to.posted:
        verifier.verify(posted.body, dict(posted.headers))
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verifier.verify(posted.body + b" ", dict(posted.headers))
    other = standardwebhooks.Webhook("whsec_" + base64.b64encode(b"x" * 32).decode())
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        other.verify(to.posted[0].body, dict(to.posted[0].headers))


def test_an_id_is_the_same_each_time_and_no_other_window_has_it() -> None:
    with receiver() as to:
        for _ in range(2):  # as in another process
            sink = webhook(to.url, secret=SECRET)
            for one in (
                result(),
                result({"mean": 2.0}),
                result(end=120),
                Result.of("plant", "hours", result().dataset),
                Result.of("other", "minutes", result().dataset),
                result()._replace(bucket=1),
            ):
                sink.write(one)
            sink.close()
    ids = [posted.headers["webhook-id"] for posted in to.posted]
    assert ids[:6] == ids[6:]
    assert len(set(ids)) == 5  # the second is of the same window as the first


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_is_away_is_tried_again_and_gets_the_same_id(status: int) -> None:
    with receiver() as to:
        to.statuses = [status, status]
        pipeline, sink = one_window(to.url, Retry(5, "1ms", "2ms"))
        list(pipeline.replay())
        sink.close()
    assert len(to.posted) == 3
    assert len({posted.headers["webhook-id"] for posted in to.posted}) == 1
    assert len({posted.body for posted in to.posted}) == 1


def one_window(url: str, retry: Retry, rows: int = 1) -> tuple[Pipeline, WebhookSink]:
    """A pipeline that gives as many windows to a webhook as there are rows."""
    pipeline = Pipeline("plant")
    data = RwLock[list[int]]([])
    pipeline.source([(i, i) for i in range(rows)], data, lambda data, row: data.append(row))
    sink = webhook(url, secret=SECRET, timeout="200ms")
    pipeline.stage("seconds", [count], data, SECOND).sink(sink, retry=retry)
    return pipeline, sink


@task
def count(values: list[int], start: int, end: int) -> int:
    return len(values)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_a_server_that_does_not_take_it_refuses_this_result_alone(status: int) -> None:
    with receiver() as to:
        to.statuses = [204, status, 204]
        pipeline, sink = one_window(to.url, Retry(5, "1ms", "2ms"), rows=3)
        list(pipeline.replay())
        sink.close()
    assert len(to.posted) == 3
    assert pipeline.stats.refused == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with receiver() as to, receiver() as other:
        to.statuses, to.location = [status], f"{other.url}/stolen"
        sink = webhook(to.url, secret=SECRET)
        with pytest.raises(SinkError, match=rf"replied {status} .*redirects are not followed"):
            sink.write(result())
        sink.close()
    assert not other.posted


def test_a_server_that_hangs_is_a_timeout_and_what_comes_after_is_not_mixed_up_with_it() -> None:
    with receiver() as to:
        to.hang = threading.Event()
        sink = webhook(to.url, timeout="100ms")
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no reply within 0\.1 s"):
            sink.write(result())
        assert time.monotonic() - began < 3
        to.hang.set()
        sink.write(result(end=120))
        sink.close()
    assert to.posted[-1].json["data"]["end"] == 120


def test_a_server_that_is_restarted_gets_all_that_came_meanwhile_each_once() -> None:
    with receiver() as before:
        pipeline, sink = one_window(before.url, Retry(wait="5ms", longest="20ms"), rows=6)
        replay = iter(pipeline.replay())
        for _ in range(3):
            next(replay)
        port = before.port
    rest: list[Any] = []
    going_on = threading.Thread(target=lambda: rest.extend(replay))
    going_on.start()
    time.sleep(0.1)
    with receiver(port) as after:
        going_on.join(10)
        assert not going_on.is_alive()
    sink.close()
    ends = [p.json["data"]["end"] for p in (*before.posted, *after.posted)]
    assert ends == [1, 2, 3, 4, 5, 6]


def test_a_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    with receiver() as to:
        to.hang_up = True
        sink = webhook(to.url)
        for end in (60, 120, 180):
            sink.write(result(end=end))
        sink.close()
    assert [posted.json["data"]["end"] for posted in to.posted] == [60, 120, 180]


def test_an_address_where_nobody_listens_is_a_connection_error() -> None:
    with receiver() as to:
        port = to.port
    with pytest.raises(ConnectionError, match="ConnectionRefusedError"):
        webhook(f"http://127.0.0.1:{port}/secret-path").write(result())


class Ohlc(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    room: str
    since: date


class Color(Enum):
    RED = "red"


def test_values_are_plain_json() -> None:
    values: dict[str, Any] = {
        "tuple": Ohlc(1.0, math.nan),
        "record": Place("hall", date(2026, 1, 2)),
        "enum": Color.RED,
        "array": np.array([[1.0, np.inf], [2.0, 3.0]]),
        "times": np.array(["2026-01-02", "NaT"], "M8[s]"),
        "numpy": np.float32(0.5),
        "decimal": Decimal("1.50"),
        "time": datetime(2026, 1, 2, 3, tzinfo=UTC),
        "length": timedelta(seconds=1.5),
        "set": {3, 1},
        "mapping": {1: "a", "b": None},
        "bool": True,
        "none": None,
    }
    with receiver() as to:
        sink = webhook(to.url)
        sink.write(result(values))
        sink.close()
    assert b"NaN" not in to.posted[0].body
    assert to.posted[0].json["data"]["results"] == {
        "tuple": {"low": 1.0, "high": None},
        "record": {"room": "hall", "since": "2026-01-02"},
        "enum": "red",
        "array": [[1.0, None], [2.0, 3.0]],
        "times": ["2026-01-02T00:00:00", "NaT"],
        "numpy": 0.5,
        "decimal": "1.50",
        "time": "2026-01-02T03:00:00+00:00",
        "length": 1.5,
        "set": [1, 3],
        "mapping": {"1": "a", "b": None},
        "bool": True,
        "none": None,
    }


@pytest.mark.parametrize("value", [object(), b"bytes", {(1, 2): 3}, {1: "a", "1": "b"}, 1j])
def test_a_value_without_a_form_in_plain_json_is_refused_by_name(value: Any) -> None:
    with receiver() as to:
        with pytest.raises(SinkError, match=r"task 'odd': .* has no form in plain JSON"):
            webhook(to.url).write(result({"odd": value}))
        nested: Any = []
        for _ in range(500):
            nested = [nested]
        with pytest.raises(SinkError, match="nested this deep"):
            webhook(to.url).write(result({"odd": nested}))
    assert not to.posted


def test_alerts_are_told_once_by_key_and_nothing_is_posted_of_other_windows() -> None:
    def hot(view: TimeSeriesView, start: int, end: int) -> bool:
        return bool(view.in_window["celsius"].max() > 80)

    series = TimeSeries({"room": str, "celsius": float}, TimeUnit.SECONDS, key="room")
    for second, celsius in enumerate([70.0, 90, 90, 90, 90, 70, 70, 70, 70]):
        series.append(second, room="hall", celsius=celsius)
        series.append(second, room="attic", celsius=70.0)
    with receiver() as to:
        sink = webhook(to.url, secret=SECRET, body=alert_changes)
        pipeline = Pipeline("plant")
        stage = pipeline.stage("alarms", [alert(hot, hold="2s")], series, "1s", by="room")
        stage.sink(sink)
        list(pipeline.replay())
        sink.close()
    assert [posted.json["data"] for posted in to.posted] == [
        [{"task": "hot", "key": "hall", "on": True, "since": 4}],
        [{"task": "hot", "key": "hall", "on": False, "since": 8}],
    ]


def test_the_changes_of_alerts_of_a_window() -> None:
    from run_task import Alert

    found = alert_changes(result({"a": Alert(True, 60), "b": Alert(True, 0), "c": 5}))
    assert found == [AlertChange("a", None, True, 60)]
    assert alert_changes(result({"b": Alert(False, None), "c": 5})) is None


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    with receiver() as to:
        webhook(to.url, secret=tmp_path / "secret").write(result())
    standardwebhooks.Webhook(SECRET).verify(to.posted[0].body, dict(to.posted[0].headers))


def test_secrets_stand_in_no_message_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    hidden = ("hush-path", "hush-query", "hush-header", SECRET[6:])
    told: list[str] = []
    with receiver() as to, caplog.at_level(logging.DEBUG):
        url = f"{to.url}/hush-path?token=hush-query"
        for status in (404, 503, 302):
            sink = webhook(url, secret=SECRET, headers={"Authorization": "hush-header"})
            to.statuses = [status]
            with pytest.raises((SinkError, ConnectionError)) as caught:
                sink.write(result())
            told += [repr(sink), str(sink), str(caught.value)]
    with pytest.raises(ConnectionError) as away:
        webhook(url, secret=SECRET).write(result())
    told.append(f"{away.value!r} {away.value.__cause__!r}")
    for given in (SECRET[:20], f"x{SECRET}", "whsec_???"):
        with pytest.raises(ConfigError) as refused:
            webhook(url, secret=given)
        told.append(str(refused.value))
        assert given not in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        webhook(url, headers={"X-Token": "hush-header\n"})
    told.append(str(refused.value))
    with pytest.raises(ConfigError) as refused:
        webhook("http://user:hush-path@host/")
    told.append(str(refused.value))
    told.append(caplog.text)
    assert not [one for one in told if any(secret in one for secret in hidden)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": 5}, "an? int is no URL"),
        ({"url": "example.com/hook"}, "this is no URL: write https://host/path"),
        ({"url": "ftp://example.com"}, "this is no URL"),
        ({"url": "https://"}, "this is no URL"),
        ({"url": "https://host:port/"}, "this is no URL"),
        ({"url": "https://host/a b"}, "this is no URL"),
        ({"url": "https://host/a\r\nX: 1"}, "this is no URL"),
        ({"secret": 5}, "secret= is a int"),
        ({"secret": "whsec_" + base64.b64encode(b"short").decode()}, "secret= has 5 bytes"),
        ({"secret": Path("/no/such/file")}, "secret=/no/such/file: it cannot be read"),
        ({"body": 5}, "body=5: it cannot be called with a Result"),
        ({"body": lambda: None}, "it cannot be called with a Result"),
        ({"headers": {"Content-Type": "text/plain"}}, "which it sends itself"),
        ({"headers": {"Webhook-Id": "1"}}, "which it sends itself"),
        ({"headers": {"X Y": "1"}}, "which is no name of a header"),
        ({"headers": {"X": 5}}, "no text of printable ASCII"),
        ({"timeout": 5}, r"timeout=5"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        webhook(**{"url": "https://example.com/hook", **given})


def test_a_live_pipeline_goes_on_while_its_webhook_is_away() -> None:
    series = TimeSeries({"x": float}, TimeUnit.MILLIS)
    with receiver() as to:
        to.statuses = [503] * 10
        pipeline = Pipeline("live")

        @task
        def rows(view: TimeSeriesView, start: int, end: int) -> int:
            return len(view.in_window)

        sink = webhook(to.url)
        stage = pipeline.stage("fast", [rows], series, "20ms")
        stage.sink(sink, retry=Retry(wait="20ms", longest="50ms"))
        with pipeline:
            eventually(lambda: len(to.posted) > 20)
            (of,) = pipeline.stats.sinks.values()
            assert of.failures == 10
        (of,) = pipeline.stats.sinks.values()
        assert of.written == of.results == pipeline.stats.stages["fast"].ticks
    taken = [posted.json["data"]["end"] for posted in to.posted[10:]]
    assert taken == sorted(set(taken))
