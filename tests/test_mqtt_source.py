"""MQTT: what comes, what comes again and is recognised, and what happens to those who may not."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from tests.support.proxy import proxy
from tests.support.servers import (
    MQTT_PORT,
    gathering,
    messages,
    mqtt_publish,
    needs,
    own_mosquitto,
    unique,
)
from tests.support.tcp_proxy import proxy as tcp_proxy
from tests.support.threads import PATIENCE, eventually

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import MqttSource, OnFault, Positioned, Stamp, about
from run_task.sources.brokers._mailbox import Mailbox
from run_task.sources.brokers._mqtt_link import failure_of

URL = f"mqtt://127.0.0.1:{MQTT_PORT}"


@pytest.fixture
def topic() -> str:
    needs(MQTT_PORT, "MQTT broker")
    return unique("run_task/")


def source_of(
    topic: str, url: str = URL, client_id: str | None = None, **options: Any
) -> MqttSource:
    given: dict[str, Any] = {"session": "1m", **options}
    return MqttSource(topic, url, client_id=client_id or unique("c"), **given)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_come_in_order_with_their_topic(topic: str, batched: bool, qos: int) -> None:
    source = source_of(f"{topic}/+/c", key="topic", qos=qos)
    assert isinstance(source, Positioned)
    with gathering(source, batched=batched) as found:
        eventually(lambda: source.lag == 0)
        mqtt_publish(f"{topic}/a/c", *messages(1, 2))
        mqtt_publish(f"{topic}/b/c", *messages(3))
        mqtt_publish(f"{topic}/b/d", *messages(4))
        assert found.until(3) == [1, 2, 3]
        assert found.rows[2] == (3, {"value": 30, "topic": f"{topic}/b/c"})
    assert source.position == {"messages": 3}
    assert (about(source).endless, about(source).unit) == (True, TimeUnit.MILLIS)


def test_what_was_committed_does_not_come_again_and_what_was_not_does(topic: str) -> None:
    client_id = unique("c")
    first = source_of(topic, client_id=client_id)
    with gathering(first) as found:
        eventually(lambda: first.lag == 0)
        mqtt_publish(topic, *messages(*range(10)))
        found.until(10)
        first.commit({"messages": 6})
    mqtt_publish(topic, *messages(10, 11))  # while it is away
    second = source_of(topic, client_id=client_id)
    second.seek({"messages": 6})
    with gathering(second) as found:
        assert found.until(6) == [6, 7, 8, 9, 10, 11]
        assert second.position == {"messages": 12}
        second.commit(second.position)
    third = source_of(topic, client_id=client_id)
    with gathering(third) as found:
        eventually(lambda: third.lag == 0)
        mqtt_publish(topic, *messages(12))
        assert found.until(1) == [12]


def test_more_may_be_read_and_not_acknowledged_than_the_usual_twenty(topic: str) -> None:
    source = source_of(topic)
    with gathering(source) as found:
        eventually(lambda: source.lag == 0)
        mqtt_publish(topic, *messages(*range(3000)))
        assert found.until(3000) == list(range(3000))


def test_those_that_come_again_after_a_cut_are_recognised(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut = threading.Event()
    numbers = iter(range(10_000))
    with proxy(("127.0.0.1", MQTT_PORT), cut) as port:
        source = source_of(topic, f"mqtt://127.0.0.1:{port}")
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            for _ in range(3):
                mqtt_publish(topic, *messages(*(next(numbers) for _ in range(200))))
                cut.set()
                mqtt_publish(topic, *messages(*(next(numbers) for _ in range(50))))
                eventually(lambda: source.lag is None)
                cut.clear()
            assert found.until(750) == list(range(750))
            eventually(lambda: source.lag == 0)
            source.commit(source.position)  # also those that came by an earlier connection
            assert found.numbers() == list(range(750))
    assert f"127.0.0.1:{port} cannot be reached" in caplog.text


def test_what_was_acknowledged_by_a_later_connection_does_not_come_again(topic: str) -> None:
    cut, client_id = threading.Event(), unique("c")
    with proxy(("127.0.0.1", MQTT_PORT), cut) as port:
        source = source_of(topic, f"mqtt://127.0.0.1:{port}", client_id)
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            mqtt_publish(topic, *messages(1, 2, 3))
            found.until(3)
            cut.set()
            eventually(lambda: source.lag is None)
            cut.clear()
            eventually(lambda: source.lag == 0)
            source.commit(source.position)
            mqtt_publish(topic, *messages(4))
            found.until(4)
    again = source_of(topic, client_id=client_id)
    with gathering(again) as found:
        assert found.until(1) == [4]


def test_a_broker_that_is_killed_and_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    with own_mosquitto(tmp_path) as broker:
        source = source_of("t", f"mqtt://127.0.0.1:{broker.port}")
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            mqtt_publish("t", *messages(*range(100)), port=broker.port)
            found.until(100)
            broker.stop()
            eventually(lambda: source.lag is None)
            broker.start()
            eventually(lambda: source.lag == 0)
            mqtt_publish("t", *messages(*range(100, 200)), port=broker.port)
            assert found.until(200) == list(range(200))


def test_messages_that_are_no_rows_are_acknowledged_like_others(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    client_id = unique("c")
    source = source_of(topic, client_id=client_id, columns={"value": int}, largest=100)
    with gathering(source) as found:
        eventually(lambda: source.lag == 0)
        bad = [b"{", b"\xff\xfe", b"[1]", b'{"value": 1}', b"x" * 101, b""]
        mqtt_publish(topic, *messages(1), *bad, *messages(2))
        assert found.until(2) == [1, 2]
        assert source.malformed == about(source).malformed == len(bad)
        source.commit(source.position)
        mqtt_publish(topic, b"{")
        eventually(lambda: source.malformed == len(bad) + 1)
        eventually(lambda: source.position == {"messages": 9})
        source.commit(source.position)
    again = source_of(topic, client_id=client_id)
    with gathering(again) as found:
        eventually(lambda: again.lag == 0)
        assert (found.rows, again.malformed) == ([], 0)
    assert "message 6: it has 101 bytes, and largest=100" in caplog.text


def test_a_malformed_message_may_end_it(topic: str) -> None:
    source = source_of(topic, on_malformed=OnFault.RAISE)
    with gathering(source) as found:
        eventually(lambda: source.lag == 0)
        mqtt_publish(topic, b"{")
        assert "is not JSON" in str(found.fails())


def test_reasons_that_trying_again_does_not_mend_are_known() -> None:
    def reason(number: int) -> ReasonCode:
        return ReasonCode(PacketTypes.DISCONNECT, identifier=number)

    taken_over = failure_of(reason(142))
    assert taken_over.fatal is not None
    assert "another client has the same client_id=" in taken_over.fatal
    for number in (128, 137, 139, 141):  # unspecified, busy, shutting down, silent for too long
        assert failure_of(reason(number)).fatal is None


@pytest.mark.parametrize(
    "options", [{}, {"username": "me", "password": "wr0ng-s3cret"}, {"url": "me:wr0ng-s3cret@"}]
)
def test_a_wrong_password_is_fatal_and_shown_nowhere(
    options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "me", "right-s3cret"], check=True
    )
    passwords.chmod(0o600)
    with own_mosquitto(tmp_path, f"password_file {passwords}") as broker:
        where = {**options}
        url = f"mqtt://{where.pop('url', '')}127.0.0.1:{broker.port}"
        source = source_of("a", url, **where)
        begun = time.monotonic()
        with gathering(source) as found:
            error = found.fails()
        assert time.monotonic() - begun < 5
        assert isinstance(error, SourceError)
        assert "Not authorized" in str(error)
        assert "give username= and password=" in str(error)
        for text in (str(error), repr(source), caplog.text):
            assert "s3cret" not in text
        (tmp_path / "secret").write_text("right-s3cret\n")
        url = f"mqtt://127.0.0.1:{broker.port}"
        right = source_of("a", url, username="me", password_file=tmp_path / "secret")
        with gathering(right):
            eventually(lambda: right.lag == 0)


def test_a_broker_that_is_not_there_is_told_at_once_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with own_mosquitto(tmp_path) as broker:
        broker.kill()
        source = source_of("a", f"mqtt://127.0.0.1:{broker.port}")
        with gathering(source) as found:
            eventually(lambda: "cannot be reached" in caplog.text)
            assert f"127.0.0.1:{broker.port}" in caplog.text
            assert "does it listen at this address?" in caplog.text
            assert source.lag is None
            broker.start()
            eventually(lambda: source.lag == 0)
            mqtt_publish("a", *messages(1), port=broker.port)
            assert found.until(1) == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topics": ""}, "'' is no topic filter"),
        ({"topics": []}, "topics: name one or several"),
        ({"topics": "a/#/b"}, "'a/#/b' is no topic filter"),
        ({"topics": ["a", 1]}, "1 is no topic filter"),
        ({"url": "http://localhost"}, "its address is mqtt://host:1883"),
        ({"url": "mqtt://localhost:x"}, "its address is mqtt://host:1883"),
        ({"client_id": ""}, "client_id=''"),
        ({"qos": 2}, "qos=2: it is 1, at least once, or 0"),
        ({"session": "soon"}, "session='soon'"),
        ({"timestamp": Stamp.BROKER}, "MQTT tells no time of a message"),
        ({"password": "s3cret", "password_env": "X"}, "say the same"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        given: dict[str, Any] = {"topics": "a", "client_id": "c", **arguments}
        MqttSource(**given)
    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["value"].sum())


def test_a_pipeline_acknowledges_what_has_entered_and_shuts_down_in_time(topic: str) -> None:
    client_id = unique("c")
    series = TimeSeries({"value": float, "room": str}, TimeUnit.MILLIS, key="room")
    source = source_of(topic, client_id=client_id, key="room")
    pipeline = Pipeline("test").source(source, into=series, name="mqtt")
    pipeline.stage("totals", [total], series, "100ms", by="room")
    with pipeline:
        eventually(lambda: source.lag == 0)
        mqtt_publish(topic, *messages(*range(500)))
        eventually(lambda: pipeline.stats.sources["mqtt"].stored == 500)
        eventually(lambda: not source.unacknowledged)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    again = source_of(topic, client_id=client_id)
    with gathering(again) as found:
        eventually(lambda: again.lag == 0)
        assert found.rows == []


def test_a_broker_that_is_slow_has_read_what_was_acknowledged_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("run_task.sources.brokers._mqtt_link._SETTLING", PATIENCE)
    with own_mosquitto(tmp_path) as broker:
        url, client_id = f"mqtt://127.0.0.1:{broker.port}", unique("c")
        source = source_of("a", url, client_id=client_id)
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            mqtt_publish("a", *messages(*range(500)), port=broker.port)
            found.until(500)
            with broker.held_up():
                eventually(lambda: source.lag is None)  # it is asked, and does not answer
                source.commit(source.position)
                source.close()
                found.ends(0.5)  # as it would at once, if it did not wait for the broker
        again = source_of("a", url, client_id=client_id)
        with gathering(again) as found:
            eventually(lambda: again.lag == 0)
            assert found.rows == []


def test_what_a_session_has_comes_however_long_that_takes(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id = unique("c")
    with gathering(source_of(topic, client_id=client_id)) as found:
        eventually(lambda: found.source.lag == 0)
    mqtt_publish(topic, *messages(*range(400)))
    with subscribed_slowly(topic, client_id, monkeypatch) as source, gathering(source) as found:
        assert found.until(400) == list(range(400))


@contextmanager
def subscribed_slowly(
    topic: str, client_id: str, monkeypatch: pytest.MonkeyPatch
) -> Generator[MqttSource]:
    """A source whose messages each take 2 ms to be read: all of them take longer than a connection
    may, and the answer to the subscription comes behind them."""
    monkeypatch.setattr("run_task.sources.brokers._mqtt_link._CONNECTING", 0.4)
    source = source_of(topic, client_id=client_id)
    take = source._take  # pyright: ignore[reportPrivateUsage]  as just said

    def take_slowly(message: Any) -> None:
        time.sleep(0.002)
        take(message)

    monkeypatch.setattr(source, "_take", take_slowly)
    yield source


def test_while_the_network_says_nothing_no_lag_is_known(topic: str) -> None:
    with tcp_proxy("127.0.0.1", MQTT_PORT) as between:
        source = source_of(topic, f"mqtt://{between.address}")
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            between.stall()
            began = time.monotonic()
            eventually(lambda: source.lag is None)
            assert time.monotonic() - began < 2.0
            mqtt_publish(topic, *messages(1))
            between.resume()
            assert found.until(1) == [1]
            eventually(lambda: source.lag == 0)


def test_messages_that_come_one_by_one_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox(100)
    coming = iter(range(1, 40))

    def sleep(_: float) -> None:
        for _ in range(3):
            box.put((b"", "", None, next(coming)))

    monkeypatch.setattr("run_task.sources.brokers._mailbox.time.sleep", sleep)
    box.put((b"", "", None, 0))
    assert [message[3] for message in box.take()] == [0, 1, 2, 3]
    assert len(box) == 4  # they are with who reads
    for _ in range(20):
        box.put((b"", "", None, 9))
    assert len(box.take()) == 20  # these are enough
