"""Messages to people, by mail, Slack and whatever else apprise knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SinkError, described
from run_task.observe._format import brief
from run_task.sinks._alerts import alert_changes
from run_task.sinks._plain_json import end_shown
from run_task.sinks._protocol import Result
from run_task.tasks._call import misfit
from run_task.time._length import IntervalLike, plain_length

_MOST_LINES: Final = 50
"""How many messages one notification has; of more, it has the first ones, and says how many."""


class NotifySink:
    """Tells people, by apprise (extra ``notify``): mail, Slack, Telegram, and a hundred others.

    ::

        alarms.sink(NotifySink("mailtos://user:password@example.com?to=me@example.com"))
        alarms.sink(NotifySink(Path("/run/secrets/notify"), message=text_of))

    Only of windows in which there is something to tell: where ``message`` returns a text. What it
    returns within a second goes into one notification, and with ``every=`` what comes until the
    next one may be sent, so that an alert that flickers, or a thousand keys at once, send no
    thousand messages. What waits for that waits in memory, and is sent when the sink is closed.

    What cannot be delivered is a ConnectionError, and is tried again as the ``retry=`` of the sink
    says: whoever was told and somebody else not is told again.

    :param url: a URL as apprise has it, or several, of which each is told; or the ``Path`` of a
        file that holds one a line. Messages and the log show no more of one than how it begins
    :param title: the title of a notification; None: the names of the pipeline and the stage
    :param message: what is told of a window, or None: called with the :class:`Result`. None: the
        alerts that it has switched, as :func:`alert_changes` gives them
    :param every: how long after a notification the next one is sent at the earliest; None: within a
        second
    :raises ConfigError: if something about it cannot work, or apprise is not installed
    """

    def __init__(
        self,
        url: str | Path | Sequence[str],
        *,
        title: str | None = None,
        message: Callable[[Result], str | None] | None = None,
        every: IntervalLike | None = None,
    ) -> None:
        urls = _urls(url)
        schemes = ", ".join(repr(f"{one.partition(':')[0][:20]}://...") for one in urls)
        self._where: Final = f"NotifySink({schemes})"
        apprise: Any = need("apprise", "notify")
        self._apprise: Any = apprise.Apprise()
        for one in urls:
            if not _is_known(self._apprise, one):
                raise ConfigError(
                    f"{self._where}: apprise knows no such URL: see its documentation for how "
                    f"those of this service look"
                )
        if title is not None and (type(title) is not str or not title):
            raise ConfigError(
                f"{self._where}: title={brief(title)}: it is a text that is not empty"
            )
        if message is not None:
            problem = misfit(message, None) if callable(message) else "it is no function"
            if problem:
                raise ConfigError(
                    f"{self._where}: message={brief(message)}: it cannot be called with a Result: "
                    f"{problem}"
                )
        self._title = title
        self._message = message or alerts_told
        length = None if every is None else plain_length(every, f"{self._where}: every={{}}")
        self._every_s = 0.0 if length is None else length.nanos / 1e9
        self._mutex = threading.Lock()
        # What is to be told, by the window that it is of: one that is written again is told once.
        self._waiting: dict[tuple[Any, ...], str] = {}
        self._title_told = ""
        self._next = 0.0  # when the next one may be sent, by the monotonic clock

    def write(self, result: Result, /) -> None:
        """Take what is to be told of a window.

        :raises SinkError: if the message is no text
        """
        told = self._message(result)
        if told is None:
            return
        if not isinstance(told, str):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise SinkError(f"{self._where}: message= gave a {type(told).__name__}, and no text")
        with self._mutex:
            if not self._waiting:
                self._title_told = self._title or f"{result.pipeline}: {result.stage}"
            self._waiting[result.pipeline, result.stage, *result.window, result.bucket] = told

    def flush(self) -> None:
        """Tell what is to be told, if it is time for that.

        :raises ConnectionError: if it cannot be delivered
        """
        with self._mutex:
            if self._waiting and time.monotonic() >= self._next:
                self._send()

    def close(self) -> None:
        """Tell what is to be told. Any number of times.

        :raises ConnectionError: if it cannot be delivered
        """
        with self._mutex:
            if self._waiting:
                self._send()

    def _send(self) -> None:
        lines = list(self._waiting.values())
        more = len(lines) - _MOST_LINES
        if more > 0:
            lines = [*lines[:_MOST_LINES], f"and {more:,} more"]
        try:
            delivered: object = self._apprise.notify(body="\n".join(lines), title=self._title_told)
        except Exception as error:  # of a service, which may quote its URL
            kind = described(error).partition(":")[0]
            raise ConnectionError(f"{self._where}: it cannot be delivered: {kind}") from None
        if not delivered:
            raise ConnectionError(
                f"{self._where}: it cannot be delivered: what is logged as 'apprise' may say why"
            )
        self._waiting.clear()
        self._next = time.monotonic() + self._every_s

    def __repr__(self) -> str:
        return self._where


def alerts_told(result: Result) -> str | None:
    """The alerts that a window has switched, as text; None: there are none."""
    changes = alert_changes(result)
    if changes is None:
        return None
    at = end_shown(result) or str(result.window.end)
    lines = [
        f"{change.task}{'' if change.key is None else f' of {change.key}'} is "
        f"{'on' if change.on else 'off'}, as of {at}"
        for change in changes
    ]
    return "\n".join(lines)


def _urls(given: Any) -> list[str]:
    """The URLs that were given.

    :raises ConfigError: if they are none; the message shows none
    """
    urls: Any = [given] if isinstance(given, str) else given
    if isinstance(given, Path):
        try:
            lines = given.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            kind = type(error).__name__
            raise ConfigError(f"NotifySink({str(given)!r}): it cannot be read: {kind}") from None
        urls = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    several: list[Any] = list(urls) if hasattr(urls, "__iter__") else []
    if not several or not all(type(one) is str for one in several):
        raise ConfigError(
            "NotifySink: give a URL, such as mailto://..., several as a list, or the Path of a file"
        )
    return several


def _is_known(apprise: Any, url: str) -> bool:
    try:
        return bool(apprise.add(url))
    except Exception:
        return False
