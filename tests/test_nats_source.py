"""NATS and JetStream: what is read, where it goes on, and what happens to those who may not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.subscription import Subscription
from tests.support import tcp_proxy
from tests.support.brokers import free_port
from tests.support.proxy import proxy
from tests.support.servers import (
    NATS_PORT,
    NatsAdmin,
    gathering,
    messages,
    needs,
    own_nats,
    unique,
)
from tests.support.threads import eventually

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import NatsSource, OnFault, Positioned, Stamp, about

URL = f"nats://127.0.0.1:{NATS_PORT}"


@pytest.fixture
def admin() -> NatsAdmin:
    needs(NATS_PORT, "NATS")
    return NatsAdmin()


class Stream:
    def __init__(self, admin: NatsAdmin, name: str, subject: str) -> None:
        self.admin, self.name, self.subject = admin, name, subject

    def publish(self, *numbers: int) -> None:
        self.admin.publish(self.subject, *messages(*numbers))

    def source(self, url: str = URL, **options: Any) -> Any:
        given: dict[str, Any] = {"start": "earliest", **options}
        return NatsSource(self.subject, url, stream=self.name, **given)


@pytest.fixture
def stream(admin: NatsAdmin) -> Generator[Stream]:
    made = Stream(admin, unique("S"), unique("s"))
    admin.make_stream(made.name, made.subject)
    yield made
    admin.delete_stream(made.name)


# NATS alone


@pytest.mark.parametrize("batched", [True, False])
def test_what_is_published_while_it_is_connected_comes_in_order(
    admin: NatsAdmin, batched: bool
) -> None:
    subject = unique("s")
    source = NatsSource(f"{subject}.*", URL, key="room")
    with gathering(source, batched=batched) as found:
        eventually(lambda: source.lag == 0)
        admin.publish(f"{subject}.a", *messages(1, 2))
        admin.publish(f"{subject}.b", *messages(3))
        assert found.until(3) == [1, 2, 3]
        assert [row for _, row in found.rows] == [
            {"value": 10, "room": f"{subject}.a"},
            {"value": 20, "room": f"{subject}.a"},
            {"value": 30, "room": f"{subject}.b"},
        ]
    assert (about(source).endless, about(source).unit) == (True, TimeUnit.MILLIS)
    assert not hasattr(source, "commit")  # it has no positions, and says so


def test_each_message_goes_to_one_of_a_queue_group(admin: NatsAdmin) -> None:
    subject = unique("s")
    one, other = (NatsSource(subject, URL, queue="workers") for _ in range(2))
    with gathering(one) as first, gathering(other) as second:
        eventually(lambda: one.lag == 0 and other.lag == 0)
        admin.publish(subject, *messages(*range(100)))
        eventually(lambda: len(first.rows) + len(second.rows) == 100)
        assert sorted(first.numbers() + second.numbers()) == list(range(100))
        assert first.rows
        assert second.rows


def test_messages_that_are_no_rows_are_counted_and_the_others_come(
    admin: NatsAdmin, caplog: pytest.LogCaptureFixture
) -> None:
    subject = unique("s")
    source = NatsSource(subject, URL, columns={"value": float}, largest=100)
    with gathering(source) as found:
        eventually(lambda: source.lag == 0)
        bad = [
            b"{",
            b"\xff\xfe",
            b"[1]",
            b'{"value": 1}',
            b'{"timestamp": 1, "value": "x"}',
            b"x" * 101,
        ]
        admin.publish(subject, *messages(1), *bad, *messages(2))
        assert found.until(2) == [1, 2]
        assert source.malformed == about(source).malformed == len(bad)
    assert "it has 101 bytes, and largest=100" in caplog.text


def test_the_time_of_nats_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="NATS tells no time without stream="):
        NatsSource("a", timestamp=Stamp.BROKER)


# JetStream


@pytest.mark.parametrize("batched", [True, False])
def test_a_stream_comes_from_its_first_message_on_and_then_what_is_added(
    stream: Stream, batched: bool
) -> None:
    stream.publish(1, 2, 3)
    source = stream.source()
    assert isinstance(source, Positioned)
    with gathering(source, batched=batched) as found:
        assert found.until(3) == [1, 2, 3]
        eventually(lambda: source.lag == 0)
        stream.publish(4)
        assert found.until(4) == [1, 2, 3, 4]
    assert source.position == {stream.subject: 4}


def test_messages_of_a_stream_that_are_no_rows_do_not_come_again(stream: Stream) -> None:
    bad = [b"{", b"[1]", b'{"value": 1}', b'{"timestamp": 1, "value": "x"}', b"x" * 101]
    stream.admin.publish(stream.subject, *messages(1), *bad, *messages(2), b"")
    source = stream.source(columns={"value": float}, largest=100)
    with gathering(source) as found:
        assert found.until(2) == [1, 2]
        eventually(lambda: source.position == {stream.subject: 8})
        assert source.malformed == 6
    again = stream.source()
    again.seek(source.position)
    with gathering(again) as found:
        eventually(lambda: again.lag == 0)
        assert (found.rows, again.malformed) == ([], 0)


def test_it_goes_on_right_behind_a_position(stream: Stream) -> None:
    stream.publish(*range(10))
    source = stream.source()
    source.seek({stream.subject: 6})
    with gathering(source) as found:
        assert found.until(4) == [6, 7, 8, 9]


def test_a_position_before_anything_was_read_is_none_of_a_message(stream: Stream) -> None:
    stream.publish(1)
    first = stream.source()
    position = first.position
    source = stream.source()
    source.seek(position)
    with gathering(source) as found:
        assert found.until(1) == [1]
    with pytest.raises(SourceError, match="is no position"):
        stream.source().seek(7)


def test_latest_begins_with_what_is_published_from_now_on_also_after_a_cut(
    stream: Stream,
) -> None:
    stream.publish(1, 2)
    cut = threading.Event()
    with proxy(("127.0.0.1", NATS_PORT), cut) as port:
        source = stream.source(f"nats://127.0.0.1:{port}", start="latest")
        with gathering(source) as found:
            eventually(lambda: source.lag == 0)
            cut.set()
            eventually(lambda: source.lag is None)
            stream.publish(3, 4)  # while it is away, and has had no message yet
            cut.clear()
            stream.publish(5)
            assert found.until(3) == [3, 4, 5]


def test_the_time_at_which_a_stream_got_a_message_may_be_its_timestamp(stream: Stream) -> None:
    before = time.time_ns()
    stream.admin.publish(stream.subject, b'{"value": 1}')
    after = time.time_ns()
    source = stream.source(timestamp=Stamp.BROKER, unit=TimeUnit.NANOS)
    with gathering(source) as found:
        (when,) = found.until(1)
    assert before - 10**9 <= when <= after + 10**9


def test_a_position_within_a_message_of_several_rows_is_gone_on_from(stream: Stream) -> None:
    body = b"[" + b", ".join(messages(1, 2, 3)) + b"]"
    stream.admin.publish(stream.subject, body, *messages(4))
    source = stream.source()
    rows: Any = iter(source)
    assert next(rows)[0] == 1
    position = source.position
    rows.close()
    again = stream.source()
    again.seek(position)
    with gathering(again) as found:
        assert found.until(3) == [2, 3, 4]


def test_what_waits_in_the_stream_is_its_lag(stream: Stream) -> None:
    stream.publish(*range(3000))
    source = stream.source()
    rows = source.batches()
    first = next(rows)
    eventually(lambda: source._behind() == 3000 - len(first))
    rows.close()


def test_what_is_on_its_way_from_the_server_counts_as_not_given(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.publish(*range(10))
    free = threading.Event()
    # What is between the connection and who is told; answers come by it, too.
    hand_on: Any = getattr(Subscription, "_wait_for_msgs")  # noqa: B009  it is untyped

    async def later(subscription: Any, *rest: Any) -> None:
        if "JetStream" in subscription._cb.__qualname__:
            await asyncio.to_thread(free.wait)
        await hand_on(subscription, *rest)

    monkeypatch.setattr(Subscription, "_wait_for_msgs", later)
    source = stream.source()
    with gathering(source) as found:
        eventually(lambda: source.lag is not None)  # the server has told how much there is
        time.sleep(0.3)  # in which it asks again
        lag = source.lag
        free.set()
        assert lag != 0
        found.until(10)
        eventually(lambda: source.lag == 0)


def test_while_the_network_is_gone_no_lag_is_known(stream: Stream) -> None:
    with tcp_proxy.proxy("127.0.0.1", NATS_PORT) as between:
        source = stream.source(f"nats://{between.address}")
        with gathering(source) as found:
            stream.publish(0)
            found.until(1)
            eventually(lambda: source.lag == 0)
            between.stall()
            began = time.monotonic()
            eventually(lambda: source.lag is None)
            assert time.monotonic() - began < 1.0
            stream.publish(1)
            between.resume()
            found.until(2)
            eventually(lambda: source.lag == 0)


def test_a_cut_loses_nothing_and_doubles_nothing(
    stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    cut = threading.Event()
    numbers = iter(range(10_000))
    with proxy(("127.0.0.1", NATS_PORT), cut) as port:
        source = stream.source(f"nats://127.0.0.1:{port}")
        with gathering(source) as found:
            for _ in range(3):
                stream.publish(*(next(numbers) for _ in range(500)))
                cut.set()
                stream.publish(*(next(numbers) for _ in range(500)))
                eventually(lambda: source.lag is None)
                cut.clear()
            assert found.until(3000) == list(range(3000))
    assert f"127.0.0.1:{port} cannot be reached" in caplog.text
    assert "is there again" in caplog.text


def stored_in(admin: NatsAdmin, stream: str) -> int:
    async def count(client: Any) -> int:
        messages: int = (await client.jetstream().stream_info(stream)).state.messages
        return messages

    found: int = admin.do(count)
    return found


def test_a_server_that_is_killed_and_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    with own_nats(tmp_path) as server:
        admin = NatsAdmin(server.port)
        stream = Stream(admin, "S", "s")
        admin.make_stream("S", "s")
        source = stream.source(admin.url)
        with gathering(source) as found:
            stream.publish(*range(1000))
            found.until(10)
            eventually(lambda: stored_in(admin, "S") == 1000)  # else the kill takes some with it
            server.kill()
            eventually(lambda: source.lag is None)
            server.start()
            stream.publish(*range(1000, 1500))
            assert found.until(1500) == list(range(1500))


def test_a_consumer_that_somebody_deletes_is_made_anew(stream: Stream) -> None:
    stream.publish(1)
    source = stream.source()

    async def delete(client: Any) -> None:
        context = client.jetstream()
        for consumer in await context.consumers_info(stream.name):
            await context.delete_consumer(stream.name, consumer.name)

    with gathering(source) as found:
        found.until(1)
        stream.admin.do(delete)
        stream.publish(2)
        assert found.until(2) == [1, 2]


def test_messages_that_the_stream_no_longer_keeps_are_told(
    admin: NatsAdmin, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(admin, unique("S"), unique("s"))
    admin.make_stream(stream.name, stream.subject, max_msgs=3)
    try:
        stream.publish(*range(10))
        source = stream.source()
        source.seek({stream.subject: 2})
        with gathering(source) as found:
            error = found.fails()
        assert isinstance(error, SourceError)
        assert "it keeps messages from 8 on, and those from 3 on are to come" in str(error)
        source = stream.source(on_lost=OnFault.SKIP)
        source.seek({stream.subject: 2})
        with gathering(source) as found:
            assert found.until(3) == [7, 8, 9]
        assert "are gone that were not read" in caplog.text
        source = stream.source()
        source.seek({stream.subject: 99})
        with gathering(source) as found:
            assert "its last message is 10, and 99 was read" in str(found.fails())
    finally:
        admin.delete_stream(stream.name)


def test_it_leaves_no_consumer_behind(stream: Stream) -> None:
    async def consumers(client: Any) -> int:
        return len(await client.jetstream().consumers_info(stream.name))

    source = stream.source()
    with gathering(source):
        eventually(lambda: source.lag == 0)
        assert stream.admin.do(consumers) == 1
    eventually(lambda: stream.admin.do(consumers) == 0)


# Those who may not, and what is not there


def test_a_stream_that_is_not_there_is_told_with_what_to_do(admin: NatsAdmin) -> None:
    with gathering(NatsSource("a.b", URL, stream=unique("S"))) as found:
        error = found.fails()
    assert isinstance(error, SourceError)
    assert "there is no stream" in str(error)
    assert "nats stream add" in str(error)


def test_a_stream_that_is_not_there_is_made_if_it_is_told_to(admin: NatsAdmin) -> None:
    name = unique("S")
    source = NatsSource(f"{name}.*", URL, stream=name, declare={"max_age": 60}, start="earliest")
    with gathering(source) as found:
        eventually(lambda: source.lag == 0)
        admin.publish(f"{name}.b", *messages(1))
        assert found.until(1) == [1]
    with gathering(
        NatsSource(f"{name}.*", URL, stream=name, declare={}, start="earliest")
    ) as found:
        assert found.until(1) == [1]  # it is there, and left as it is
    admin.delete_stream(name)


@pytest.mark.parametrize(
    "options", [{}, {"username": "me", "password": "wr0ng-s3cret"}, {"url": "me:wr0ng-s3cret@"}]
)
def test_a_wrong_password_is_fatal_and_shown_nowhere(
    options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with own_nats(tmp_path, "--user", "me", "--pass", "right-s3cret") as server:
        url = f"nats://{options.pop('url', '')}127.0.0.1:{server.port}"
        source = NatsSource("a", url, **options)
        begun = time.monotonic()
        with gathering(source) as found:
            error = found.fails()
        assert time.monotonic() - begun < 5
        assert isinstance(error, SourceError)
        assert "Authorization" in str(error)
        assert "give username= and password=" in str(error)
        for text in (str(error), repr(source), caplog.text):
            assert "s3cret" not in text
        right = NatsSource(
            "a", f"nats://127.0.0.1:{server.port}", username="me", password="right-s3cret"
        )
        with gathering(right):
            eventually(lambda: right.lag == 0)


def _is_there(source: NatsSource) -> bool:
    return source.lag == 0


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    monkeypatch.setenv("NATS_PASSWORD", "s3cret")
    with own_nats(tmp_path / "data", "--user", "me", "--pass", "s3cret") as server:
        url = f"nats://127.0.0.1:{server.port}"
        ways: list[dict[str, Any]] = [
            {"password_file": tmp_path / "password"},
            {"password_env": "NATS_PASSWORD"},
        ]
        for way in ways:
            source = NatsSource("a", url, username="me", **way)
            with gathering(source):
                eventually(partial(_is_there, source))


def test_servers_of_a_cluster_that_are_not_there_are_passed_over() -> None:
    needs(NATS_PORT, "NATS")
    away = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    source = NatsSource("a", [*away, f"nats://127.0.0.1:{NATS_PORT}"])
    with gathering(source):
        eventually(partial(_is_there, source))
        time.sleep(0.3)  # a failure of one of them would end the connection by now
        assert _is_there(source)


def test_a_server_that_is_not_there_is_told_at_once_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with own_nats(tmp_path) as server:
        server.kill()
        source = NatsSource("a", f"nats://127.0.0.1:{server.port}")
        with gathering(source) as found:
            eventually(lambda: "cannot be reached" in caplog.text)
            assert f"127.0.0.1:{server.port}" in caplog.text
            assert "does it listen at this address?" in caplog.text
            assert source.lag is None
            server.start()
            eventually(lambda: source.lag == 0)
            NatsAdmin(server.port).publish("a", *messages(1))
            assert found.until(1) == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": ""}, "subject=''"),
        ({"subject": "a b"}, "without spaces"),
        ({"subject": 1}, "subject=1"),
        ({"stream": "a b"}, "stream='a b'"),
        ({"servers": []}, "servers: name one or several"),
        ({"servers": [1]}, "servers: 1 is no address: write nats://host:4222"),
        ({"servers": "http://localhost"}, "http://localhost is no address"),
        ({"servers": "nats://localhost:x"}, "is no address"),
        ({"servers": ["nats://a:4222", "nats://:4222"]}, "is no address"),
        ({"servers": "nats://me:s3cret@"}, "is no address"),
        ({"start": "first"}, "start='first': it is 'latest' or 'earliest'"),
        ({"on_lost": "skip"}, "on_lost='skip': it is an OnFault"),
        ({"stream": "S", "queue": "q"}, "queue='q'"),
        ({"declare": {}}, "declare=: say by stream= which stream to make"),
        ({"creds_file": "/nowhere/x.creds"}, "x.creds' cannot be read"),
        ({"password": "s3cret", "password_env": "X"}, "say the same"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        given: dict[str, Any] = {"subject": "a", **arguments}
        NatsSource(**given)
    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)


# In a pipeline


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["value"].sum())


def test_a_pipeline_reads_a_stream_and_shuts_down_in_time(stream: Stream) -> None:
    series = TimeSeries({"value": float, "room": str}, TimeUnit.MILLIS, key="room")
    pipeline = Pipeline("test").source(stream.source(key="room"), into=series, name="nats")
    pipeline.stage("totals", [total], series, "100ms", by="room")
    stream.publish(*range(2000))
    with pipeline:
        eventually(lambda: pipeline.stats.sources["nats"].stored == 2000)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
