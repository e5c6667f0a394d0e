"""Results by HTTP: each is posted to a URL."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from run_task._version import __version__
from run_task.errors import ConfigError, SinkError
from run_task.observe._format import brief
from run_task.sinks._plain_json import as_plain, as_text, end_shown, result_as_json
from run_task.sinks._protocol import Result
from run_task.sinks._signature import Signer
from run_task.tasks._call import misfit
from run_task.time._length import IntervalLike, plain_length

_LARGEST_REPLY: Final = 65_536
"""How many bytes of a reply are read: nobody needs them, but a connection is used again after
them."""

_AWAY: Final = frozenset({408, 425, 429})
"""What a server says that may take the same later, besides 5xx."""

_OURS: Final = frozenset(
    {"content-type", "content-length", "host", "webhook-id", "webhook-timestamp"}
    | {"webhook-signature", "transfer-encoding"}
)

_CHARACTERS: Final = "!#$%&'()*+,/:;=?@[]~-._"


class WebhookSink:
    """Posts what each window gave to a URL, as JSON, signed as Standard Webhooks 1.0 has it.

    ::

        secret = os.environ["WEBHOOK_SECRET"]
        alarms.sink(WebhookSink("https://example.com/alarms", secret=secret, body=alert_changes))

    The body is an object of ``type``, ``"pipeline.stage"``, ``timestamp``, the end of the window,
    and ``data``: what ``body=`` returns, or the pipeline, the stage, the window, the results and
    the errors. The header ``webhook-id`` is the same each time for a pipeline, stage, window and
    bucket, so that who gets one twice can tell: after a failure, or a kill, a window is posted
    again. Values are plain JSON: a NamedTuple and a dataclass are objects, NaN and infinity are
    null.

    A reply of 2xx says that it was taken. Where the server is away, as after 408, 425, 429 and
    5xx, or a connection that fails or takes too long, ``write`` raises a ConnectionError or a
    TimeoutError: it is tried again as the ``retry=`` of the sink says. Any other reply refuses this
    result alone, by a ``SinkError``; redirects are not followed.

    :param url: where to, ``https://...`` or ``http://...``. Messages show no more than its host
    :param secret: what messages are signed with: a text that begins with ``whsec_``, or the
        ``Path`` of a file that holds one; None: they are not signed
    :param body: called with each :class:`Result`; what it returns is the ``data``. None: nothing is
        posted
    :param headers: further headers, such as ``{"Authorization": ...}``; messages do not show them
    :param timeout: how long to connect, to send and to wait for a reply at most, each
    :raises ConfigError: if something about it cannot work
    """

    takes_at_once: Final = True
    """What was written needs no flush: it is not written again if a later result fails."""

    def __init__(
        self,
        url: str,
        *,
        secret: str | Path | None = None,
        body: Callable[[Result], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: IntervalLike = "10s",
    ) -> None:
        self._address, self._target, where = _parts(url)
        self._where: Final = where
        self._secure = ssl.create_default_context() if where.startswith(_SECURE) else None
        self._signer = None if secret is None else Signer(secret, where)
        if body is not None:
            problem = misfit(body, None) if callable(body) else "it is no function"
            if problem:
                raise ConfigError(
                    f"{where}: body={brief(body)}: it cannot be called with a Result: {problem}"
                )
        self._body = body
        self._headers = _checked(headers or {}, where)
        self._timeout = plain_length(timeout, f"{where}: timeout={{}}").nanos / 1e9
        self._mutex = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def write(self, result: Result, /) -> None:
        """Post a result.

        :raises SinkError: if it has no form in JSON, or the server does not take it
        :raises OSError: if the server is away
        """
        data = result_as_json(result) if self._body is None else self._body(result)
        if data is None:
            return
        kind = f"{result.pipeline}.{result.stage}"
        tree = {"type": kind, "timestamp": end_shown(result), "data": as_plain(data, "body")}
        with self._mutex:
            self._post(identity_of(result), as_text(tree).encode("ascii"))

    def flush(self) -> None:
        """Nothing: what was written has been taken."""

    def close(self) -> None:
        """Let go of the connection. Any number of times."""
        with self._mutex:
            self._disconnect()

    def _post(self, identity: str, body: bytes) -> None:
        timestamp = int(time.time())
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
        }
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(identity, timestamp, body)
        used_before = self._connection is not None
        try:
            status, reason = self._exchange(body, headers)
        except ConnectionError:
            if not used_before:
                raise
            status, reason = self._exchange(body, headers)  # it was closed since the last result
        if 200 <= status < 300:
            return
        told = f"{self._where}: the server replied {status} {reason}".rstrip()
        if status >= 500 or status in _AWAY:
            raise ConnectionError(told)
        if 300 <= status < 400:
            told += ": redirects are not followed: give the URL that it leads to"
        raise SinkError(told)

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Post once, and read the reply.

        :raises OSError: if that cannot be done
        """
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connect()
            connection.request("POST", self._target, body, dict(headers))
            reply = connection.getresponse()
            rest = reply.read(_LARGEST_REPLY + 1)
            if len(rest) > _LARGEST_REPLY or reply.will_close:
                self._disconnect()
        except TimeoutError:
            self._disconnect()
            raise TimeoutError(f"{self._where}: no reply within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            told = f"{self._where}: {type(error).__name__}: {error}".rstrip(": ")
            raise ConnectionError(told) from None
        return reply.status, "".join(c for c in reply.reason if c.isprintable())[:80]

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._secure is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._secure)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __repr__(self) -> str:
        return self._where


_SECURE: Final = "WebhookSink('https:"


def identity_of(result: Result) -> str:
    """An id of a result's window that is the same each time, and no other's.

    :param result: of which pipeline, stage, window and bucket
    """
    parts = (result.pipeline, result.stage, *map(str, result.window), str(result.bucket))
    text = as_text(parts)
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _parts(url: Any) -> tuple[tuple[str, int | None], str, str]:
    """Where a URL leads: host and port, what is asked for there, and how messages name it.

    :raises ConfigError: if that is no URL of HTTP; the message does not show it
    """
    if not isinstance(url, str):
        raise ConfigError(f"WebhookSink: a {type(url).__name__} is no URL: give a text")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ConfigError(
            "WebhookSink: this is no URL: write https://host/path, with %20 for a blank"
        )
    where = f"WebhookSink('{parts.scheme}://{host}{'' if port is None else f':{port}'}/...')"
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{where}: it has a user or a password: give headers={{'Authorization': ...}}"
        )
    query = f"?{parts.query}" if parts.query else ""
    return (host, port), quote(f"{parts.path or '/'}{query}", safe=_CHARACTERS), where


def _checked(headers: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """Headers that may be sent.

    :raises ConfigError: if one may not; the message shows no value
    """
    for name, value in headers.items():
        if name.lower() in _OURS:
            raise ConfigError(
                f"{where}: headers= has {name!r}, which it sends itself: leave it out"
            )
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ConfigError(
                f"{where}: headers= has a {name!r} that is no text of printable ASCII"
            )
        if not name.isascii() or not name.isprintable() or set(name) & set(' :"'):
            raise ConfigError(f"{where}: headers= has {name!r}, which is no name of a header")
    return {"User-Agent": f"run-task/{__version__}", **headers}
