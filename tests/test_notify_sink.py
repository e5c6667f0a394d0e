"""Notifications: mail by a real SMTP server, and JSON by a real HTTP server."""

from __future__ import annotations

import email
import email.policy
import logging
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from tests.support.receiver import receiver

from run_task import (
    Alert,
    ConfigError,
    DataSet,
    Pipeline,
    Retry,
    SinkError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    alert,
)
from run_task.sinks import NotifySink, Result

SECOND = TaskInterval.seconds(1)


@dataclass
class Mails:
    """What a server was sent."""

    port: int = 0
    refuses: int = 0
    """How many mails it refuses, before it takes any."""
    taken: list[Any] = field(default_factory=list[Any])

    async def handle_DATA(  # noqa: N802  as aiosmtpd calls it
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        if self.refuses:
            self.refuses -= 1
            return "451 try again later"
        self.taken.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


@contextmanager
def mail_server() -> Generator[Mails]:
    mails = Mails()
    with socket.create_server(("127.0.0.1", 0)) as free:
        mails.port = free.getsockname()[1]
    controller = Controller(mails, hostname="127.0.0.1", port=mails.port)
    controller.start()
    try:
        yield mails
    finally:
        controller.stop()


def mail_url(mails: Mails) -> str:
    return f"mailto://127.0.0.1:{mails.port}/?from=plant@example.com&to=me@example.com"


def result(values: dict[str, Any], end: int = 60) -> Result:
    dataset = DataSet(Window(end - 60, end), values, interval=SECOND)
    return Result.of("plant", "alarms", dataset)


def bodies(posted: list[Any]) -> list[str]:
    return [one.json["message"] for one in posted]


def hot(view: TimeSeriesView, start: int, end: int) -> bool:
    return bool(view.in_window["celsius"].max() > 80)


def test_people_are_told_by_mail_once_an_alert_has_changed() -> None:
    series = TimeSeries({"room": str, "celsius": float}, TimeUnit.SECONDS, key="room")
    for second, celsius in enumerate([70.0, 90, 90, 90, 90, 90, 90]):
        series.append(second, room="hall", celsius=celsius)
    with mail_server() as mails:
        pipeline = Pipeline("plant")
        stage = pipeline.stage("alarms", [alert(hot, hold="2s")], series, "1s", by="room")
        stage.sink(NotifySink(mail_url(mails)))
        list(pipeline.replay())
    (mail,) = mails.taken
    assert mail["Subject"] == "plant: alarms"
    assert mail["To"] == "me@example.com"
    body = mail.get_body(("plain", "html")).get_content()
    assert "hot of hall is on, as of 1970-01-01T00:00:04Z" in body


def test_a_server_that_does_not_take_it_is_tried_again_and_each_window_is_told_once() -> None:
    with mail_server() as mails:
        mails.refuses = 2
        series = TimeSeries({"celsius": float}, TimeUnit.SECONDS)
        series.extend(range(3), celsius=[90.0, 90, 70])
        pipeline = Pipeline("plant")
        stage = pipeline.stage("alarms", [alert(hot, hold=None)], series, "1s")
        stage.sink(NotifySink(mail_url(mails)), retry=Retry(5, "1ms", "2ms"))
        list(pipeline.replay())
    (mail,) = mails.taken
    body = mail.get_body(("plain", "html")).get_content()
    assert body.count("hot is on, as of 1970-01-01T00:00:01Z") == 1
    assert body.count("hot is off, as of 1970-01-01T00:00:03Z") == 1


def test_what_is_told_and_its_title_may_be_said() -> None:
    def text_of(result: Result) -> str | None:
        mean: Any = result.dataset["mean"]
        return f"the mean is {mean}" if mean > 5 else None

    with receiver() as to:
        sink = NotifySink(f"json://127.0.0.1:{to.port}", title="Means", message=text_of)
        for end, mean in enumerate((1, 6, 2, 7), 1):
            sink.write(result({"mean": mean}, end * 60))
            sink.flush()
        sink.close()
    assert bodies(to.posted) == ["the mean is 6", "the mean is 7"]
    assert {one.json["title"] for one in to.posted} == {"Means"}


def test_no_more_are_sent_than_was_said_and_what_waits_is_told_together() -> None:
    with receiver() as to:
        sink = NotifySink(
            f"json://127.0.0.1:{to.port}", message=lambda one: str(one.window.end), every="300ms"
        )
        for end in range(60, 301, 60):
            sink.write(result({}, end))
            sink.flush()
        assert bodies(to.posted) == ["60"]
        time.sleep(0.35)
        sink.flush()
        assert bodies(to.posted) == ["60", "120\n180\n240\n300"]
        sink.write(result({}, 360))
        sink.close()
        assert bodies(to.posted)[2:] == ["360"]


def test_a_notification_is_no_book() -> None:
    with receiver() as to:
        sink = NotifySink(f"json://127.0.0.1:{to.port}", message=lambda one: str(one.window.end))
        for end in range(1, 1001):
            sink.write(result({}, end))
        sink.flush()
    (body,) = bodies(to.posted)
    assert body.splitlines()[-1] == "and 950 more"


def test_several_are_told_and_urls_may_stand_in_a_file(tmp_path: Path) -> None:
    with receiver() as to, receiver() as other:
        urls = tmp_path / "urls"
        urls.write_text(f"# who\njson://127.0.0.1:{to.port}\n\njson://127.0.0.1:{other.port}\n")
        for given in (urls, urls.read_text().split()[2:]):
            sink = NotifySink(given)
            sink.write(result({"hot": Alert(True, 60)}))
            sink.close()
    assert (
        bodies(to.posted) == bodies(other.posted) == ["hot is on, as of 1970-01-01T00:01:00Z"] * 2
    )


def test_a_message_that_is_no_text_is_refused() -> None:
    def wrong(result: Result) -> Any:
        return 5

    sink = NotifySink("json://127.0.0.1:9", message=wrong)
    with pytest.raises(SinkError, match="message= gave a int, and no text"):
        sink.write(result({}))


def test_secrets_stand_in_no_message_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with receiver() as to:
        port = to.port
    with caplog.at_level(logging.INFO):
        sink = NotifySink(f"json://user:hush@127.0.0.1:{port}/hush/?+X-Token=hush")
        sink.write(result({"hot": Alert(True, 60)}))
        with pytest.raises(ConnectionError, match="it cannot be delivered") as away:
            sink.flush()
    told += [repr(sink), str(away.value), repr(away.value.__cause__)]
    for wrong in ("hush://hush:hush@x", "slack://hush", ["json://x", "nonsense hush"]):
        with pytest.raises(ConfigError, match="apprise knows no such URL") as refused:
            NotifySink(wrong)
        told.append(str(refused.value).replace("hush://...", ""))
    told += [record.getMessage() for record in caplog.records if record.name.startswith("run_task")]
    assert not [one for one in told if "hush" in one.replace("'nonsense hush://...'", "")]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": 5}, "give a URL"),
        ({"url": []}, "give a URL"),
        ({"url": Path("/no/such/file")}, "it cannot be read: FileNotFoundError"),
        ({"title": ""}, "title='': it is a text that is not empty"),
        ({"message": 5}, "message=5: it cannot be called with a Result"),
        ({"every": 5}, "every=5"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        options: dict[str, Any] = {"url": "json://127.0.0.1:9", **given}
        NotifySink(**options)
