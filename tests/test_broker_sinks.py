"""Results that are published to NATS and to MQTT, at servers of this machine."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support import checkpointed
from tests.support.brokers import free_port
from tests.support.forking import Forking
from tests.support.published import Broker, JetStream, MqttTopics, broker, say_sink
from tests.support.servers import (
    MQTT_PORT,
    NATS_PORT,
    NatsAdmin,
    needs,
    own_mosquitto,
    own_nats,
    unique,
)
from tests.support.tcp_proxy import proxy

from run_task import (
    ConfigError,
    DataSet,
    Pipeline,
    Retry,
    SinkError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.aggregates import count, mean
from run_task.sinks import MqttSink, NatsSink, Result

pytest.importorskip("nats")
pytest.importorskip("paho.mqtt.client")

KINDS = ["nats", "mqtt"]
IDENTITY = {"nats": "Nats-Msg-Id", "mqtt": "id"}


def sink_at(kind: str, port: int, **options: Any) -> NatsSink | MqttSink:
    """A sink of a broker of this machine."""
    if kind == "nats":
        return NatsSink("a", f"nats://127.0.0.1:{port}", **options)
    return MqttSink("a", f"mqtt://127.0.0.1:{port}", **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    needs(*((NATS_PORT, "NATS") if found == "nats" else (MQTT_PORT, "Mosquitto")))
    return found


@pytest.fixture
def there(kind: str) -> Iterator[Broker]:
    with broker(kind) as found:
        yield found


@task
def long(view: TimeSeriesView, start: int, end: int) -> str:
    return "x" * (5_000 if end == 30 else 1)


def result(end: int, value: object = 1.5, stage: str = "s") -> Result:
    return Result.of("p", stage, DataSet(Window(end - 10, end), {"t": value}))


def ends(found: list[Any]) -> list[int]:
    return [one.body["end"] for one in found]


def test_each_window_is_a_message_with_an_id_that_is_the_same_each_time(
    kind: str, there: Broker
) -> None:
    sink = there.sink(rest="{stage}.{key}")
    for end in (10, 20, 10):
        sink.write(result(end, stage="by key"))
    sink.flush()
    sink.close()
    sink.close()
    found = there.received(2 if kind == "nats" else 3)
    # JetStream drops what comes again; MQTT has no memory of it.
    assert ends(found) == ([10, 20] if kind == "nats" else [10, 20, 10])
    first = found[0]
    assert first.place == ("by%20key._" if kind == "nats" else "by key/_")
    identity = first.about[IDENTITY[kind]]
    assert (first.about["start"], first.about["end"]) == ("0", "10")
    assert first.body == {
        "id": identity,
        "pipeline": "p",
        "stage": "by key",
        "start": 0,
        "end": 10,
        "unit": None,
        "results": {"t": 1.5},
        "errors": [],
    }
    assert found[1].about[IDENTITY[kind]] != identity
    assert found[2:] in ([], [first])


def test_a_stage_by_key_gives_a_message_a_key_at_a_place_of_its_own(
    kind: str, there: Broker
) -> None:
    data = TimeSeries({"k": str, "v": float}, unit=TimeUnit.MILLIS, key="k")
    pipeline = Pipeline("p")
    keys = ["$a.b", "c/>+*#%", ""]
    rows = [(at, {"k": keys[at % 3], "v": float(at)}) for at in range(18)]
    pipeline.source(rows, into=data)
    stage = pipeline.stage("s", [mean("v"), count()], data, "10ms", by="k")
    sink = there.sink(rest="{pipeline}.{key}")
    stage.sink(sink)
    for _ in pipeline.replay():
        pass
    sink.close()
    found = there.received(6)
    places = {
        "nats": {"$a.b": "p.%24a%2Eb", "c/>+*#%": "p.c/%3E+%2A#%25", "": "p._"},
        "mqtt": {"$a.b": "p/%24a.b", "c/>+*#%": "p/c%2F>%2B*%23%25", "": "p/_"},
    }[kind]
    assert {one.body["key"]: one.place for one in found} == places
    assert len({one.about[IDENTITY[kind]] for one in found}) == 6
    by = {(one.body["key"], one.body["end"]): one.body["results"] for one in found}
    assert by["", 10] == {"v_mean": 5.0, "count": 3}


def test_after_a_cut_what_was_not_taken_is_written_again_and_in_order(
    kind: str, there: Broker
) -> None:
    with proxy("127.0.0.1", there.port) as between:
        sink = there.sink(between.port)
        sink.write(result(10))
        sink.flush()
        between.cut()
        with pytest.raises(ConnectionError, match=r"Is the \w+ there, and does it listen"):
            for _ in range(100):  # sooner or later it is noticed
                sink.write(result(20))
                sink.flush()
                time.sleep(0.01)
        between.resume()
        for end in (20, 30):  # as who retries does
            sink.write(result(end))
        sink.close()
    found = there.received(3)
    assert list(dict.fromkeys(ends(found))) == [10, 20, 30]
    if kind == "nats":
        assert len(found) == 3


def test_a_network_that_is_gone_is_told_in_time(
    there: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_nats", "_mqtt"):
        monkeypatch.setattr(f"run_task.sinks.brokers.{module}.ANSWER_TIMEOUT", 0.3)
    with proxy("127.0.0.1", there.port) as between:
        sink = there.sink(between.port)
        sink.write(result(10))
        sink.flush()
        between.stall()
        sink.write(result(20))
        with pytest.raises(ConnectionError, match=r"it has not answered for 0\.3 s"):
            sink.flush()
        between.resume()
        sink.write(result(20))
        sink.close()
    assert list(dict.fromkeys(ends(there.received(2)))) == [10, 20]


def test_a_broker_that_is_not_there_is_told_at_once_with_the_cure(kind: str) -> None:
    port = free_port()
    sink = sink_at(kind, port)
    begun = time.monotonic()
    with pytest.raises(ConnectionError) as told:
        sink.write(result(10))
    assert time.monotonic() - begun < 3
    for text in (f"127.0.0.1:{port}", "refused", "listen at this address?"):
        assert text in str(told.value) or "Connect call failed" in str(told.value)
    sink.close()


def test_what_a_pipeline_gives_while_it_is_away_comes_once_it_is_there(
    there: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy("127.0.0.1", there.port) as between:
        between.cut()
        data = TimeSeries({"v": float}, unit=TimeUnit.MILLIS)
        pipeline = Pipeline("p")
        pipeline.source([(at, {"v": 1.0}) for at in range(50)], into=data)
        stage = pipeline.stage("s", [count()], data, "10ms")
        sink = there.sink(between.port)
        stage.sink(sink, retry=Retry(wait="10ms", longest="50ms"))
        back = threading.Timer(0.2, between.resume)
        back.start()
        for _ in pipeline.replay():
            pass
        back.join()
        sink.close()
    assert "works again" in caplog.text
    assert ends(there.received(5)) == [10, 20, 30, 40, 50]


def test_what_the_broker_does_not_take_costs_itself(kind: str, tmp_path: Path) -> None:
    options = ("max_packet_size 3000", "allow_anonymous true")
    with own_nats(tmp_path) if kind == "nats" else own_mosquitto(tmp_path, *options) as server:
        places = (
            JetStream(server.port, max_msg_size=3_000)
            if kind == "nats"
            else MqttTopics(server.port)
        )
        with places as there:
            sink = there.sink()
            data = TimeSeries({"v": float}, unit=TimeUnit.MILLIS)
            pipeline = Pipeline("p")
            pipeline.source([(at, {"v": at}) for at in range(50)], into=data)

            stage = pipeline.stage("s", [long], data, "10ms")
            refused: list[Any] = []

            def letter(result: Any, reason: Any, detail: Any) -> None:
                refused.append(result)

            stage.sink(sink, retry=Retry(5, "1ms"), dead_letters=letter)
            for _ in pipeline.replay():
                pass
            sink.close()
            assert ends(there.received(4))[-4:] == [10, 20, 40, 50]
    assert len(refused) == 1


def test_one_that_is_larger_than_the_server_takes_is_refused_before_it_is_sent(
    tmp_path: Path,
) -> None:
    needs(NATS_PORT, "NATS")
    with JetStream() as there:
        sink = there.sink()
        sink.write(result(10))
        with pytest.raises(SinkError, match="larger than the server takes, 1,048,576"):
            sink.write(result(20, "x" * 1_048_300))
        with pytest.raises(SinkError, match="has no form in plain JSON"):
            sink.write(result(30, object()))
        sink.close()
        assert ends(there.received(1)) == [10]


@pytest.mark.parametrize(
    "options", [{}, {"username": "me", "password": "wr0ng-s3cret"}], ids=["none", "wrong"]
)
def test_a_wrong_password_is_fatal_and_shown_nowhere(
    kind: str, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    passwords = tmp_path / "passwords"
    right_one = "right@s3cret" if kind == "mqtt" else "right-s3cret"
    if kind == "mqtt":
        subprocess.run(
            ["mosquitto_passwd", "-b", "-c", str(passwords), "me", right_one], check=True
        )
        passwords.chmod(0o600)
    with (
        own_nats(tmp_path, "--user", "me", "--pass", "right-s3cret")
        if kind == "nats"
        else own_mosquitto(tmp_path, f"password_file {passwords}")
    ) as server:
        sink = sink_at(kind, server.port, **options)
        with pytest.raises(ConfigError, match=r"It is not tried again: give username=") as refused:
            sink.write(result(10))
        sink.close()
        for text in (str(refused.value), repr(sink), caplog.text):
            assert "s3cret" not in text
        (tmp_path / "secret").write_text(f"{right_one}\n")
        right = sink_at(kind, server.port, username="me", password_file=tmp_path / "secret")
        right.write(result(10))
        right.close()
        within = type(sink)("a", f"{kind}://me:{quote(right_one)}@127.0.0.1:{server.port}")
        within.write(result(10))
        within.close()
        assert "s3cret" not in repr(within)


def test_who_may_not_publish_there_is_told_and_it_is_not_tried_again(
    kind: str, tmp_path: Path
) -> None:
    if kind == "nats":
        config = tmp_path / "nats.conf"
        config.write_text(
            'authorization { users = [{user: me, password: pw, permissions: {publish: "b"}}] }'
        )
        own = own_nats(tmp_path / "data", "-c", str(config))
    else:
        rights = tmp_path / "rights"
        rights.write_text("topic write b\n")
        rights.chmod(0o600)
        own = own_mosquitto(tmp_path, "allow_anonymous true", f"acl_file {rights}")
    with own as server:
        options = {"username": "me", "password": "pw"} if kind == "nats" else {}
        sink = sink_at(kind, server.port, **options)
        with pytest.raises(ConfigError, match=r"(?i)(permissions violation|not authorized)"):
            sink.write(result(10))
            sink.flush()
        sink.close()


def test_a_stream_that_is_not_there_or_takes_other_subjects_is_told() -> None:
    needs(NATS_PORT, "NATS")
    with JetStream() as there:
        for subject, stream, told in (
            (
                unique("n"),
                "none",
                "there is no stream 'none': make it, as by: nats stream add none",
            ),
            (unique("n"), there.name, rf"does not take 'n\w+': it takes {there.name}\.>"),
            (f"{there.name}.a", "none", "name the stream that takes it"),
        ):
            sink = NatsSink(subject, stream=stream)
            sink.write(result(10))
            with pytest.raises(ConfigError, match=told):
                sink.flush()
            sink.close()


def test_without_a_stream_who_listens_is_told() -> None:
    needs(NATS_PORT, "NATS")
    subject = unique("n")

    async def listened(client: Any) -> list[Any]:
        subscription = await client.subscribe(f"{subject}.*")
        await client.flush()
        sink = NatsSink(f"{subject}.{{stage}}")
        sink.write(result(10))
        sink.flush()
        sink.close()
        message = await subscription.next_msg(5)
        return [message.subject, message.headers["Nats-Msg-Id"][:4]]

    assert NatsAdmin().do(listened) == [f"{subject}.s", "msg_"]


def test_a_failure_that_is_not_tried_again_tells_that_what_was_written_before_is_lost(
    there: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = there.sink()
    sink.write(result(10))

    def fails(_: object) -> None:
        raise ConnectionResetError("it is gone")

    with monkeypatch.context() as patched:
        patched.setattr(sink, "_send", fails)
        with pytest.raises(ConnectionError, match="it is gone"):
            sink.write(result(20))
    with pytest.raises(ConnectionError, match="it is gone"):
        sink.close()
    sink.close()


@pytest.mark.parametrize(
    ("make", "text", "told"),
    [
        (NatsSink, "a.*", r"without '\*' '>'"),
        (NatsSink, "a b", "'a b' cannot be in it"),
        (NatsSink, "a..b", "nothing before or behind one of its dots"),
        (NatsSink, "", "subject='': it is a text, as 'bars.{key}'"),
        (NatsSink, "{symbol}", "it has {symbol}: its fields are {pipeline} {stage} {key}"),
        (NatsSink, "{key", "subject: expected '}' before end of string"),
        (MqttSink, "a/+", r"without '\+' '#'"),
        (MqttSink, "a/{key:>4}", "its fields are"),
        (MqttSink, None, "topic=None: it is a text, as 'bars/{key}'"),
    ],
)
def test_what_is_no_place_is_refused_by_name(make: Any, text: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(text)


def test_other_arguments_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"its address is mqtt://host:1883"):
        MqttSink("a", "localhost")
    with pytest.raises(ConfigError, match=r"say the same"):
        MqttSink("a", password="s3cret", password_env="X")
    with pytest.raises(ConfigError, match=r"client_id=5: it is a text"):
        MqttSink("a", client_id=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  what it is not
    with pytest.raises(ConfigError, match=r"servers: name one or several"):
        NatsSink("a", [])
    with pytest.raises(ConfigError, match=r"stream='a b': it is a text without spaces"):
        NatsSink("a", stream="a b")
    with pytest.raises(SinkError, match=r"is longer than 2,048 bytes"):
        NatsSink("{stage}").write(result(10, stage="x" * 3_000))


def test_after_kills_each_window_is_there_exactly_once_or_told_again_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    """A pipeline with checkpoints is killed twice. What a run gives that nobody disturbs is
    in JetStream exactly once, and was told to who has subscribed to MQTT at least once."""
    with broker(kind) as expected:
        where = tmp_path / "undisturbed"
        where.mkdir()
        checkpointed.write_csv(where)
        say_sink(kind, expected.name, where)
        rows = 0
        with checkpointed.pipeline("csv", where, checkpoint=False).replay() as replay:
            for stage, dataset in replay:
                rows += len(dataset["kept"]) if stage == "by key" else 1
        undisturbed = {one.about[IDENTITY[kind]]: one for one in expected.received(rows)}
        assert len(undisturbed) == rows
    where = tmp_path / "killed"
    where.mkdir()
    checkpointed.write_csv(where)
    with broker(kind) as there:
        say_sink(kind, there.name, where)
        with Forking("checkpointed", "csv", str(where), "", "") as program:
            for kills in range(3):
                program.start()
                lines = [program.line()]  # there is a checkpoint
                if kills < 2:
                    time.sleep(0.05 * kills)
                    program.kill()
                lines += program.reap()
                assert ("ended\n" in lines) == (kills == 2), lines
            program.finish()
        found = there.received(rows)
    assert {one.about[IDENTITY[kind]]: one for one in found} == undisturbed
    for one in found:
        assert one == undisturbed[one.about[IDENTITY[kind]]]
