"""Streams of Redis, and of what speaks its protocol, as a source."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Unpack

from run_task._extras import need
from run_task.errors import ConfigError, SourceError, described
from run_task.observe._log import Log
from run_task.observe._url import redacted, secrets_in, url_shown
from run_task.sources._faults import OnFault
from run_task.sources.brokers._broker_source import CHUNK, WAIT, BrokerSource
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader
from run_task.sources.brokers._outage import not_again
from run_task.sources.brokers._stream_merge import StreamMerge
from run_task.time._epoch import nanos_since_epoch

_log = Log(__name__)

_ID: Final = re.compile(r"\d+(-\d+)?", re.ASCII)
_SILENCE: Final = 2.0
"""After how many seconds without an answer the connection is given up."""

_WHO: Final = "give username= and password="

_LOOK: Final = 0.5
"""How many seconds lie between two looks at what is trimmed, while it is behind."""


class RedisStreamSource(BrokerSource[str]):
    """The entries of streams of Redis, from 6.2 on, each a row or several.

    ::

        source = RedisStreamSource("trades", timestamp=Stamp.BROKER)
        pipeline.source(source, into=trades)

    It reads by ``XREAD``, without a consumer group: so nothing is pending or acknowledged, and a
    position is the id of the last entry of each stream. A stream that does not exist yet is waited
    for. Entries that were trimmed before they were read are noticed, where a checkpoint or journal
    goes on, and while it is behind.

    Connections that are lost are made again, with growing pauses; what was added meanwhile is read
    then. While it reads what was added before, it brings the rows of several streams together by
    their timestamps.

    :param streams: the stream, or several
    :param url: the address, as redis-py has it, such as ``"rediss://redis.example:6379/0"``
    :param field: the field of an entry that holds the message; None: all fields, as one JSON object
        whose values are texts
    :param start: what to begin with where no position is known: ``"latest"``, with what is added
        from now on; ``"earliest"``; an id, such as ``"1700000000000-0"``; or an aware datetime. A
        live run has windows from now on: what is of before is late
    :param on_lost: what to do where entries were trimmed before they were read: RAISE ends the
        source, SKIP logs which and goes on
    :param username: the user, where the server has several
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``key`` (which gets the name of the stream), ``largest``
        and ``on_malformed``; ``Stamp.BROKER`` is the time of an entry's id
    :raises ConfigError: if one of these cannot be, or redis-py or msgspec are not installed
    """

    def __init__(
        self,
        streams: str | Sequence[str],
        url: str = "redis://localhost:6379",
        *,
        field: str | None = "data",
        start: str | datetime = "latest",
        on_lost: OnFault = OnFault.RAISE,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        shown = ", ".join(map(repr, names))
        where = f"RedisStreamSource({shown}) at {url_shown(url)}"
        if not names or not all(isinstance(name, str) and name for name in names):  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
            raise ConfigError(f"RedisStreamSource: streams={streams!r}: name one or several")
        if not isinstance(on_lost, OnFault):  # pyright: ignore[reportUnnecessaryIsInstance]  as above
            raise ConfigError(f"{where}: on_lost={on_lost!r}: it is an OnFault")
        self._start = _start_of(where, start)
        self._redis = need("redis", "redis")
        self._credentials = Credentials(where, username, password, password_file, password_env)
        self._url = url
        try:
            self._redis.Redis.from_url(url)
        except ValueError:
            raise ConfigError(
                f"{where}: it is no URL of Redis: write redis://host:6379/0, rediss:// or unix://"
            ) from None
        self._field = None if field is None else field.encode()
        self._on_lost = on_lost
        self._streams = names
        self._absent: set[str] = set()
        self._client: Any = None
        self._pulled: dict[str, str] = {}  # the last that were taken
        self._sought: set[str] = set()  # of which streams it goes on from an earlier run
        self._known: dict[str, int] = {}  # how many entries there ever were up to those
        self._more: dict[str, int] = {}  # how many there are beyond what was pulled
        self._long: Collection[str] = ()  # streams that had more than was asked for
        self._looked_at = float("-inf")
        cure = "Is Redis there, and does it listen at this address?"
        reader = MessageReader(where, "redis", _place, **options)
        self._merge: StreamMerge | None = None
        if len(names) > 1 and reader.stamps_by_message:
            self._merge = StreamMerge(where, reader.times, reader.now)
        super().__init__(where, cure, reader)

    def seek(self, position: Any, /) -> None:
        """Begin right behind a position of an earlier run.

        :raises SourceError: if it is none of this source's. That entries are gone which come after
            it is found out, and raised, once it is iterated over
        """
        super().seek(position)
        self._sought = set(self._marks)

    def commit(self, position: Any, /) -> None:
        """Nothing: Redis remembers no position."""

    def wait_for_streams(self, seconds: float, /) -> None:
        """As of :class:`Merging`."""
        if self._merge is not None:
            self._merge.idle_timeout = seconds

    def _open(self) -> None:
        retry, backoff = need("redis.retry", "redis"), need("redis.backoff", "redis")
        options: dict[str, Any] = {
            "socket_timeout": _SILENCE,
            "socket_connect_timeout": _SILENCE,
            "protocol": 2,  # in which an answer is a list, whatever the server speaks besides
            "retry": retry.Retry(backoff.NoBackoff(), 0),
        }
        if self._credentials.username is not None:
            options["username"] = self._credentials.username
        if (password := self._credentials.password()) is not None:
            options["password"] = password
        self._client = self._redis.Redis.from_url(self._url, **options)
        for name in self._streams:
            self._look_at(name)
        self._pulled = dict(self._marks)
        self._long = ()
        if self._merge is not None:
            self._merge.clear()
        self._show()

    def _shut(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()

    def _pull(self) -> Sequence[Message]:
        merge = self._merge
        if merge is not None and len(merge) and (chunk := self._next(merge)):
            return chunk
        full = () if merge is None else merge.full
        asked = {name: last for name, last in self._pulled.items() if name not in full}
        asked_at = time.monotonic()
        found: Any = self._client.xread(asked, count=CHUNK, block=int(WAIT * 1e3))
        come: dict[str, list[Message]] = {}
        for stream, entries in found or ():
            name = _text(stream)
            some = come[name] = []
            self._add(some, name, entries)
        long = {name for name, some in come.items() if len(some) >= CHUNK}
        self._long = long.union(name for name in full if name in self._long)
        chunk = self._pulled_in(come)
        for name, some in come.items():
            self._pulled[name] = some[-1][3][1]
            if name in self._known:
                self._known[name] += len(some)
        if not self._long:
            self._more.clear()
        elif time.monotonic() - self._looked_at > _LOOK or not self._more:
            self._looked_at = time.monotonic()
            for name in self._streams:
                self._look_at(name)
        self._show(asked_at)  # not before what has come is counted
        return chunk

    def _pulled_in(self, come: Mapping[str, Sequence[Message]]) -> Sequence[Message]:
        """Entries have come. Returns those that are to be given now; they count as in hand before
        they are no longer counted as what is to come."""
        merge = self._merge
        if merge is None or not (len(merge) or self._long or len(come) > 1):
            chunk = [message for some in come.values() for message in some]
            self._waiting = len(chunk)
            return chunk
        for name, some in come.items():
            merge.put(name, some)
        return self._next(merge)

    def _next(self, merge: StreamMerge) -> Sequence[Message]:
        """The next entries of those that wait for other streams."""
        chunk = merge.take(self._long)
        self._waiting = len(chunk)  # before they no longer count as waiting there
        merge.taken(len(chunk))
        return chunk

    def _add(self, chunk: list[Message], name: str, entries: Sequence[Any]) -> None:
        field, stamps = self._field, self._reader.needs_broker_time
        for entry, fields in entries:
            # Entries that were deleted while they were read have none.
            given: Mapping[bytes, bytes] = fields or {}
            value = given.get(field) if field is not None else _as_json(given)
            number = _text(entry)
            sent_ns = int(number.partition("-")[0]) * 1_000_000 if stamps else None
            chunk.append((value, name, sent_ns, (name, number)))

    def _look_at(self, name: str) -> None:
        """Look at a stream: where to begin, how much there is, and whether entries are gone that
        were not read.

        :raises SourceError: if some are, and that is fatal
        """
        try:
            info: Mapping[Any, Any] = self._client.xinfo_stream(name)
        except self._redis.ResponseError as error:
            if "no such key" not in str(error):
                raise
            if name not in self._absent:
                self._absent.add(name)
                _log.warning("%s: there is no stream %r yet; it is waited for", self._where, name)
            begin = "0-0" if self._start in ("latest", "earliest") else self._start
            self._marks.setdefault(name, begin)
            return
        last, first = _text(info["last-generated-id"]), info["first-entry"]
        added: int | None = info.get("entries-added")  # from Redis 7 on
        gone = None if added is None else added - info["length"]
        if name not in self._marks:
            begin = {"latest": last, "earliest": "0-0"}.get(self._start, self._start)
            self._marks[name] = begin
            if begin == "0-0" and gone is not None:
                self._known[name] = gone
        mark = self._pulled.get(name, self._marks[name])
        known = self._known.get(name)
        if known is not None and (gone is None or added is None or known > added):
            del self._known[name]  # it is another stream of that name
            known = None
        self._lose(name, mark, first, known, gone)
        if added is None:
            self._more[name] = int(mark != last)
            return
        if mark == last:
            self._known[name] = added
        known = self._known.get(name)
        self._more[name] = int(mark != last) if known is None else max(0, added - known)

    def _lose(self, name: str, mark: str, first: Any, known: int | None, gone: int | None) -> None:
        """Tell of entries that are gone and were not read, if there are some."""
        lost = "entries"
        if known is not None and gone is not None:
            if gone <= known:
                return
            lost = "1 entry" if gone - known == 1 else f"{gone - known:,} entries"
            self._known[name] = gone
        else:
            # Streams are trimmed from the front: while the last that was read is there, so is all
            # that follows.
            was_sought = name in self._sought
            if (
                gone == 0
                or not was_sought
                or first is None
                or _order(mark) >= _order(_text(first[0]))
            ):
                return
            self._sought.discard(name)
            if self._client.xrange(name, mark, mark):
                return
        until = "" if first is None else f", up to {_text(first[0])}"
        text = (
            f"the stream {name!r} was trimmed: {lost} after {mark}{until} that had not been read "
            f"are gone. Keep more of it (MAXLEN, MINID)"
        )
        if self._on_lost is OnFault.RAISE:
            reason = f"{text}, or go on without them, by on_lost=OnFault.SKIP"
            raise SourceError(self._where, None, None, reason)
        _log.error("%s: %s", self._where, text)

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (self._redis.RedisError, OSError)

    def _fatal(self, error: BaseException) -> str | None:
        redis = self._redis
        if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
            return not_again(self._told(error), _WHO)
        is_busy = isinstance(error, redis.BusyLoadingError | redis.exceptions.ReadOnlyError)
        if isinstance(error, redis.ResponseError) and not is_busy:
            if "NOAUTH" in str(error) or "NOPERM" in str(error) or "WRONGPASS" in str(error):
                return not_again(self._told(error), _WHO)
            return not_again(self._told(error))
        return None

    def _told(self, error: BaseException) -> str:
        return redacted(described(error), self._secrets())

    def _secrets(self) -> Sequence[str]:
        return [*self._credentials.secrets(), *secrets_in(self._url, {})]

    def _stream(self, message: Message) -> str:
        name: str = message[3][0]
        return name

    def _move(self, messages: Sequence[Message]) -> None:
        marks = self._marks
        for message in messages:
            name, number = message[3]
            marks[name] = number

    def _behind(self) -> int:
        more = sum(self._more.values())  # first: what comes from there is counted among those then
        return more + (0 if self._merge is None else len(self._merge))


def _start_of(where: str, start: object) -> str:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError(
                f"{where}: start={start!r} names no time zone: give it one, as tzinfo=UTC"
            )
        first_ms = -(-nanos_since_epoch(start) // 1_000_000)
        # A position is behind an entry: so it is the last that there can be before.
        return f"{first_ms - 1}-{2**64 - 1}" if first_ms > 0 else "0-0"
    if start in ("latest", "earliest") or (isinstance(start, str) and _ID.fullmatch(start)):
        return str(start)
    raise ConfigError(
        f"{where}: start={start!r}: it is 'latest', 'earliest', the id of an entry or a datetime"
    )


def _place(place: tuple[str, str]) -> str:
    name, number = place
    return f"entry {number} of {name!r}"


def _text(value: bytes | str) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _order(number: str) -> tuple[int, int]:
    """An id as what it is ordered by."""
    time_ms, _, sequence = number.partition("-")
    return int(time_ms), int(sequence or 0)


def _as_json(fields: Mapping[bytes, bytes]) -> bytes:
    return json.dumps({_text(name): _text(value) for name, value in fields.items()}).encode()
