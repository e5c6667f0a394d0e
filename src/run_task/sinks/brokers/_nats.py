"""Results as messages of NATS, which JetStream may keep."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SinkError
from run_task.sinks.brokers._place_template import PlaceTemplate
from run_task.sinks.brokers._publishing import ANSWER_TIMEOUT, Outgoing, PublishingSink
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._nats_link import CONNECTING, NatsLink, addressed, check_name
from run_task.sources.brokers._outage import not_again

_LONGEST: Final = 2_048
"""How many bytes a subject may have: a server takes lines of 4 096."""

_HEADER: Final = 256
"""How many bytes nats-py adds to the headers at most, as the name of the stream."""

_UNANSWERED: Final = 4_000
"""How many messages may be without an answer: a stream takes 10 000 at a time."""

_NO_STREAM: Final = 503
"""What stands for JetStream's code where nothing has answered."""

_TOO_LARGE: Final = 10054
"""JetStream's code of a message that is larger than its stream takes."""

_OTHER_STREAM: Final = 10060
"""JetStream's code of a message whose subject is of another stream."""


class NatsSink(PublishingSink):
    """Publishes what each window gave to a subject of NATS, as JSON: a message for each window, and
    of a stage by key for each window and key.

    ::

        bars.sink(NatsSink("bars.{key}", stream="BARS"))

    The subject may have the fields ``{pipeline}``, ``{stage}`` and ``{key}``. Each is one token: a
    dot, a space or a wildcard in it is written as in a URL, so that the key ``BRK.B`` is
    ``BRK%2EB``; where there is no key, it is ``_``. The body is an object with ``id``,
    ``pipeline``, ``stage``, ``start``, ``end``, ``unit``, ``key`` of a stage by key, ``results`` by
    task, and ``errors``. Its headers are ``Nats-Msg-Id``, ``start`` and ``end``. The id is the same
    each time for a pipeline, stage, window and key.

    With ``stream=``, a flush waits until that stream of JetStream has kept all that was written.
    What is published again, after a failure or a kill, has the same id, by which the server drops
    it: so each is there exactly once, as long as it comes within the stream's window for
    duplicates, which is two minutes unless it says otherwise (``nats stream add --dupe-window``).
    Make it longer than the pipeline may be away.

    Without ``stream=``, a flush waits until the server has what was written, and who listens then
    is told: at most once where nobody does or a connection breaks behind the server, and more than
    once after a failure or a kill.

    Where the server is away, or has not answered within ten seconds, ``write`` and ``flush`` raise
    a ConnectionError: it is tried again as the ``retry=`` of the sink says.

    :param subject: the subject, as ``"bars.{key}"``
    :param servers: the address, or several of a cluster, such as ``"nats://broker.example:4222"``
    :param stream: the stream of JetStream that keeps them; None: it is NATS alone
    :param username: the user
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param creds_file: a file of credentials, as NATS makes them (``.creds``)
    :param tls: how ``tls://`` is checked; None: as the system does
    :raises ConfigError: if one of these cannot be, or nats-py is not installed
    """

    def __init__(
        self,
        subject: str,
        servers: str | Sequence[str] = "nats://localhost:4222",
        *,
        stream: str | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        creds_file: str | Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        where, urls = addressed("NatsSink", subject, servers, stream)
        if stream is not None:
            check_name(where, "stream", stream)
        self._nats = need("nats", "nats")
        self._link = NatsLink(
            *(where, urls, Credentials(where, username, password, password_file, password_env)),
            creds_file=creds_file,
            tls=tls,
        )
        self._stream = stream
        self._number = 0  # of the last message that was sent
        self._inbox = ""  # where JetStream answers
        self._outbox: deque[Outgoing] = deque()
        self._publishing = asyncio.Lock()  # so that it is emptied in order
        self._waiting: dict[str, str] = {}  # by where its answer comes, the subject of a message
        self._refusal: tuple[str, int, str] | None = None  # of the first that it does not take
        self._failure: BaseException | None = None  # why the connection is of no more use
        self._changed = asyncio.Event()  # one of these; in the event loop
        self._over = asyncio.Event()  # there is a failure
        template = PlaceTemplate(where, "subject", subject, ".", "*> ", _LONGEST)
        super().__init__(where, template, "Nats-Msg-Id")

    def _open(self) -> None:
        self._waiting, self._refusal, self._failure = {}, None, None
        self._outbox, self._publishing = deque(), asyncio.Lock()
        self._changed, self._over = asyncio.Event(), asyncio.Event()
        self._link.open(self._fail)
        if self._stream is not None:
            self._link.call(self._listen())

    async def _listen(self) -> None:
        self._inbox = self._link.client.new_inbox()
        await self._link.client.subscribe(f"{self._inbox}.*", cb=self._answered)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._over.set()

    async def _answered(self, message: Any) -> None:
        """JetStream has answered. nats-py has a ``publish_async`` for this, which loses errors."""
        subject = self._waiting.pop(message.subject, None)
        if subject is None or self._refusal is not None:
            return
        headers: dict[str, str] = message.headers or {}
        if headers.get("Status") == "503":  # nobody has answered
            self._refusal = subject, _NO_STREAM, "no stream takes it"
        elif error := json.loads(message.data).get("error"):
            self._refusal = subject, error.get("err_code", 0), error.get("description", "")
        self._changed.set()

    def _is_lost(self) -> bool:
        return self._failure is not None

    def _misfit(self, message: Outgoing) -> str | None:
        headers = sum(len(name) + len(value) + 4 for name, value in message.about.items())
        size = len(message.body) + headers + _HEADER
        largest: int = self._link.client.max_payload
        if size <= largest:
            return None
        return f"a message of {size:,} bytes is larger than the server takes, {largest:,}"

    def _send(self, messages: Sequence[Outgoing]) -> None:
        if self._failure is not None:
            raise self._failure
        self._outbox.extend(messages)
        if len(self._outbox) > _UNANSWERED:
            self._settle()
        else:
            self._link.tell(self._publish())

    async def _publish(self) -> None:
        """Publish what is in the outbox, in order."""
        publish, stream = self._link.client.publish, self._stream
        try:
            async with self._publishing:
                while self._outbox and self._refusal is None:
                    if len(self._waiting) >= _UNANSWERED:
                        await self._change()
                        continue
                    place, about, body = self._outbox.popleft()
                    if stream is None:
                        await publish(place, body, headers=about)
                        continue
                    self._number += 1
                    answer = f"{self._inbox}.{self._number}"
                    self._waiting[answer] = place
                    about = {**about, "Nats-Expected-Stream": stream}
                    await publish(place, body, answer, headers=about)
        except self._nats.errors.Error as error:
            self._fail(error)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _settle(self) -> None:
        self._link.call(self._until_over(self._answers()), 2 * ANSWER_TIMEOUT)

    async def _answers(self) -> None:
        """Wait until all is published and answered."""
        await self._publish()
        if self._stream is None:
            await self._link.client.flush(ANSWER_TIMEOUT)
            return
        while self._waiting and self._refusal is None:
            await self._change()
        if self._refusal is None:
            return
        place, code, text = self._refusal
        told = f"{self._where}: {place!r}: {text} (JetStream's error {code})"
        if code == _NO_STREAM:
            await self._look_for_stream(place)
        elif code == _TOO_LARGE:
            raise SinkError(told)
        elif code == _OTHER_STREAM:
            raise ConfigError(not_again(told, "name the stream that takes it"))
        raise _RefusedError(f"{place!r}: {text}")

    async def _look_for_stream(self, place: str) -> None:
        """No stream has answered for a subject.

        :raises ConfigError: if there is none for it
        """
        stream = self._stream
        made = f"nats stream add {stream} --subjects {place!r}"
        try:
            context = self._link.client.jetstream(timeout=CONNECTING)
            config = (await context.stream_info(stream)).config
        except self._nats.js.errors.NotFoundError:
            raise ConfigError(
                f"{self._where}: there is no stream {stream!r}: make it, as by: {made}"
            ) from None
        if not config.sealed:
            takes = ", ".join(config.subjects or ())
            raise ConfigError(
                f"{self._where}: the stream {stream!r} does not take {place!r}: it takes {takes}"
            )

    async def _until_over(self, deed: Coroutine[Any, Any, None]) -> None:
        """Do something, unless the connection is lost meanwhile."""
        doing = asyncio.ensure_future(deed)
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait(
                (doing, over), timeout=ANSWER_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            if self._failure is not None:
                raise self._failure
            if not doing.done():
                raise TimeoutError(f"it has not answered for {ANSWER_TIMEOUT:g} s")
            doing.result()
        finally:
            doing.cancel()
            over.cancel()
            await asyncio.gather(doing, over, return_exceptions=True)

    def _shut(self) -> None:
        self._link.close()

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (_RefusedError, self._nats.errors.Error, OSError)

    def _told(self, error: Any) -> str:
        told = self._link.told(error)
        if isinstance(error, _RefusedError):
            return str(error)
        return f"{told}. Is the server there, and does it listen at this address?"

    def _fatal(self, error: Any) -> str | None:
        return self._link.fatal(error)


class _RefusedError(Exception):
    """JetStream does not take a message now."""
