"""Topics of Kafka as a source."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, Unpack

from run_task._extras import need
from run_task.errors import ConfigError, SourceError
from run_task.observe._log import Log
from run_task.observe._url import redacted
from run_task.sources._faults import OnFault
from run_task.sources.brokers._broker_source import FRESH, WAIT, BrokerSource
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._kafka_ends import KafkaEnds
from run_task.sources.brokers._kafka_settings import KafkaSettings
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader
from run_task.sources.brokers._outage import not_again
from run_task.sources.brokers._stream_merge import IDLE_TIMEOUT, StreamMerge
from run_task.time._epoch import nanos_since_epoch

_log = Log(__name__)

_ANSWER_TIMEOUT: Final = 5.0
"""How many seconds an answer is waited for."""

_AT_ONCE: Final = 400
"""How many messages are taken at a time, at most: so many, with what is made of them, stay in the
cache of a core."""

_HELD: Final = 0.01
"""How many seconds more messages are waited for at a time, while some wait for other partitions."""

_NEW_PARTITIONS: Final = 30.0
"""How many seconds lie between two looks for partitions that were added."""

_POSSIBLE: Final = "'earliest', 'latest' or an aware datetime"


class KafkaKey(Enum):
    """What of a message of Kafka goes into the column ``key=``."""

    TOPIC = "topic"
    """The name of its topic."""

    RECORD = "record"
    """Its own key, as text; ``""`` if it has none."""


class KafkaSource(BrokerSource[int]):
    """The messages of topics of Kafka, and of what speaks its protocol, each a row or several.

    ::

        source = KafkaSource("trades", servers="localhost:9092", group="bars")
        pipeline.source(source, into=trades)

    It reads all partitions of its topics, or those of ``partitions=``, by itself: no rebalance
    takes some of them away, since the position, the offset of each partition, is the pipeline's
    with its states. Partitions that are added later are read from their beginning. Where no
    position is known, it goes on from the offsets that its group has committed, and else from
    ``start``.

    While the broker is away it connects again by itself; what was published meanwhile is read then.
    While it reads what was published before, it brings the rows of all partitions together by their
    timestamps. Messages that Kafka's retention removed before they were read are noticed.

    :param topics: the topic, or several
    :param servers: one or more addresses of brokers, ``"host:port"``, separated by commas
    :param group: the group for which offsets are committed, when a checkpoint or journal has the
        rows, or they are in the data; other tools tell its lag. None: nothing is committed
    :param start: what to begin with where no offset is known: "latest", with what is published from
        now on; "earliest"; or an aware datetime. A live run has windows from now on: what is of
        before is late
    :param partitions: the numbers of the partitions to read, of each topic; None: all of them
    :param key_from: what of a message the column ``key=`` has
    :param on_lost: what to do where messages were removed before they were read: RAISE ends the
        source, SKIP logs which and goes on
    :param config: settings of librdkafka besides, such as ``{"security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN"}``; no message shows their values
    :param username: the user, ``sasl.username``
    :param password: the password, ``sasl.password``; also by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``key``, ``largest`` and ``on_malformed``;
        ``Stamp.BROKER`` is the timestamp that Kafka has of a message
    :raises ConfigError: if one of these cannot be, or confluent-kafka or msgspec are not installed
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        *,
        servers: str = "localhost:9092",
        group: str | None = None,
        start: str | datetime = "latest",
        partitions: Sequence[int] | None = None,
        key_from: KafkaKey = KafkaKey.TOPIC,
        on_lost: OnFault = OnFault.RAISE,
        config: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        self._declared: Mapping[str, Any] = {
            "servers": servers,
            "group": group,
            "start": start,
            "key_from": key_from,
            "on_lost": on_lost,
            "config": config,
            "username": username,
            "password": password,
            "password_file": password_file,
            "password_env": password_env,
            **options,
        }
        names = [topics] if isinstance(topics, str) else list(topics)
        where = f"KafkaSource({', '.join(map(repr, names))}) at {servers}"
        if not names or not all(isinstance(name, str) and name for name in names):  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
            raise ConfigError(f"KafkaSource: topics={topics!r}: name one or several")
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ConfigError(f"{where}: start={start!r} names no time zone: give it one")
        elif start not in ("earliest", "latest"):
            raise ConfigError(f"{where}: start={start!r}: it is {_POSSIBLE}")
        if not isinstance(key_from, KafkaKey):  # pyright: ignore[reportUnnecessaryIsInstance]  as above
            raise ConfigError(f"{where}: key_from={key_from!r}: it is a KafkaKey")
        if not isinstance(on_lost, OnFault):  # pyright: ignore[reportUnnecessaryIsInstance]  as above
            raise ConfigError(f"{where}: on_lost={on_lost!r}: it is an OnFault")
        self._start = start
        self._kafka = need("confluent_kafka", "kafka")
        credentials = Credentials(where, username, password, password_file, password_env)
        self._settings = KafkaSettings(where, servers, config, credentials)
        self._group = group
        self._topics = names
        self._partitions = None if partitions is None else frozenset(partitions)
        self._divided_by: int | None = None  # how many partitions there are to be
        self._by_record = key_from is KafkaKey.RECORD
        self._on_lost = on_lost
        self._consumer: Any = None
        self._assigned: dict[str, Any] = {}  # a TopicPartition by stream
        self._ends = KafkaEnds()
        self._pulled: dict[str, int] = {}  # behind what has come of each
        self._merge: StreamMerge | None = None  # where there are several
        self._idle_timeout = IDLE_TIMEOUT
        self._paused: dict[str, Any] = {}  # those that are ahead of others, as in `_assigned`
        self._kept: Mapping[str, Any] | None = None  # what is to be committed
        self._denied: str | None = None  # why there is no use in trying again
        self._is_probe = True  # its client looks once, and whoever asks it tells what is wrong
        self._unreached: str | None = None  # of a probe: why there is no answer
        self._looked_at = 0.0
        cure = "Is Kafka there, and are servers= its addresses?"
        super().__init__(where, cure, MessageReader(where, "kafka", _place, **options))
        self._make().close()  # which refuses settings that there are not
        self._is_probe = False

    def partitions(self) -> Mapping[str, KafkaSource]:
        """Its partitions as they are now, each as a source that begins where this one would: for
        shards that read them by themselves, each those of its keys.

        :raises ConfigError: as of :meth:`check_partitions`
        :raises SourceError: if there is no such topic, or no broker answers
        """
        self.check_partitions()
        probe = self._again(self._topics, self._partitions)
        probe._is_probe = True
        try:
            probe._open()
        except self._kafka.KafkaException as error:
            reason = redacted(probe._unreached or str(error), self._secrets())
            raise SourceError(
                *(self._where, None, None),
                f"its partitions cannot be looked up in {_ANSWER_TIMEOUT:g} s ({reason}), and "
                f"shards can only begin once they are known. Is Kafka there, and are servers= its "
                f"addresses? It is not tried again: start the run once Kafka is there",
            ) from None
        finally:
            probe._end()
        found: dict[str, KafkaSource] = {}
        for stream, offset in probe._marks.items():
            topic, _, number = stream.rpartition("/")
            part = found[stream] = self._again([topic], [int(number)])
            part._marks = {stream: offset}
            if self._partitions is None:
                part._divided_by = sum(one.rpartition("/")[0] == topic for one in probe._marks)
        return found

    def check_partitions(self) -> None:
        """See whether shards can read its partitions by themselves. Nothing is asked of Kafka.

        :raises ConfigError: if its messages are stamped when they come, or it would go on without
            such as are lost
        """
        if not self._reader.stamps_by_message:
            raise ConfigError(
                f"{self._where}: partitioned=True, and timestamp=Stamp.ARRIVAL: a message that a "
                f"shard reads again would have another time: take a field, or Stamp.BROKER"
            )
        if self._on_lost is not OnFault.RAISE:
            raise ConfigError(
                f"{self._where}: partitioned=True, and on_lost={self._on_lost}: the driver knows "
                f"rows by how many came before them, and without some it would be others: leave "
                f"on_lost= out"
            )

    def _again(self, topics: Sequence[str], partitions: Collection[int] | None) -> KafkaSource:
        """Another one like it, of some topics and partitions."""
        return _made(topics, partitions, self._declared)

    def __reduce__(self) -> Any:
        state = {"_marks": self._marks, "_skip": self._skip, "_divided_by": self._divided_by}
        return _made, (self._topics, self._partitions, self._declared), state

    def commit(self, position: Any, /) -> None:
        """Have the group's offsets follow, if there is a group. By the thread that reads: where two
        threads ask librdkafka at a time, it may wait for itself."""
        if self._group is not None:
            self._kept = position

    def _store(self, *, wait: bool = False) -> None:
        """Have the group's offsets follow what is kept."""
        kept, self._kept = self._kept, None
        offsets: list[Any] = []
        for stream, mark in (kept or {}).items():
            topic, _, partition = stream.rpartition("/")
            offset: int = mark[0] if isinstance(mark, list | tuple) else mark  # pyright: ignore[reportUnknownVariableType]  of a mark with rows
            offsets.append(self._kafka.TopicPartition(topic, int(partition), offset))
        if offsets:
            # While the coordinator is away, a later one follows.
            with contextlib.suppress(self._kafka.KafkaException):
                self._consumer.commit(offsets=offsets, asynchronous=not wait)

    def _make(self) -> Any:
        base = {
            "group.id": self._group or "run-task",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": int(WAIT * 1e3),
            "statistics.interval.ms": int(WAIT * 1e3),
            "topic.metadata.refresh.interval.ms": int(_NEW_PARTITIONS * 1e3),
            "reconnect.backoff.max.ms": 5_000,
            "socket.timeout.ms": 10_000,
            "log_level": 0,  # what is wrong comes to the callback, too
        }
        own = {"error_cb": self._note, "stats_cb": self._take_statistics}
        return self._settings.client(self._kafka.Consumer, self._kafka, base, own)

    def _open(self) -> None:
        self._denied = None
        self._ends.is_up = False
        if self._consumer is None:
            self._consumer = self._make()
        # Only who polls is told that a broker is not there; who asks something waits for long.
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while not self._ends.is_up and not self._closed and self._denied is None:
            if time.monotonic() > deadline:
                errors = self._kafka.KafkaError
                raise self._kafka.KafkaException(errors(errors._TRANSPORT, "no broker answers"))
            self._consumer.poll(WAIT)
        if self._denied is not None:
            raise SourceError(self._where, None, None, self._denied)
        if self._closed:
            return
        self._assign()
        self._show()

    def _assign(self) -> None:
        """Read from where the marks are, all partitions that there are."""
        kafka, consumer = self._kafka, self._consumer
        at: list[Any] = []
        new: list[Any] = []
        for topic in self._topics:
            for partition in self._partitions_of(topic):
                stream = f"{topic}/{partition}"
                if stream in self._marks:
                    at.append(kafka.TopicPartition(topic, partition, self._marks[stream]))
                else:
                    new.append(kafka.TopicPartition(topic, partition))
        added_later = bool(self._assigned)
        at += [self._beginning(one, added_later) for one in self._committed(new, added_later)]
        for one in at:
            self._check_kept(one)
        if self._paused:
            consumer.resume([*self._paused.values()])
            self._paused = {}
        consumer.assign(at)
        streams = {f"{one.topic}/{one.partition}": one for one in at}
        self._pulled = {stream: one.offset for stream, one in streams.items()}
        self._merge = self._merge_of(len(at))
        self._assigned = streams
        self._looked_at = time.monotonic()

    def _merge_of(self, streams: int) -> StreamMerge | None:
        if streams < 2 or not self._reader.stamps_by_message:
            return None
        made = StreamMerge(self._where, self._reader.times, self._reader.now)
        made.idle_timeout = self._idle_timeout
        return made

    def wait_for_streams(self, seconds: float, /) -> None:
        """As of :class:`Merging`."""
        self._idle_timeout = seconds
        if self._merge is not None:
            self._merge.idle_timeout = seconds

    def _partitions_of(self, topic: str) -> Sequence[int]:
        told = self._consumer.list_topics(topic, timeout=_ANSWER_TIMEOUT).topics[topic]
        if told.error is not None:
            code = told.error.code()
            if code in (
                self._kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
                self._kafka.KafkaError._UNKNOWN_TOPIC,
            ):
                raise SourceError(
                    *(self._where, None, None),
                    f"there is no topic {topic!r}: create it, or name another one",
                )
            raise self._kafka.KafkaException(told.error)
        there = sorted(told.partitions)
        if self._divided_by not in (None, len(there)):
            raise SourceError(
                *(self._where, None, None),
                f"topic {topic!r} has {len(there)} partitions now, and had {self._divided_by} when "
                f"shards began to read it: rows of a key may be in another one now: run it anew",
            )
        if self._partitions is None:
            return there
        if absent := sorted(self._partitions.difference(there)):
            raise SourceError(
                *(self._where, None, None),
                f"topic {topic!r} has no partition {absent[0]}: it has those from 0 to {there[-1]}",
            )
        return sorted(self._partitions)

    def _committed(self, new: Sequence[Any], added_later: bool) -> Sequence[Any]:
        if self._group is None or added_later or not new:
            return new
        found: Sequence[Any] = self._consumer.committed(list(new), timeout=_ANSWER_TIMEOUT)
        for one in found:
            if one.error is not None:
                raise self._kafka.KafkaException(one.error)
        return found

    def _beginning(self, one: Any, added_later: bool) -> Any:
        """Where to begin in a partition of which no position is known, as a plain offset."""
        if one.offset < 0:
            low, high = self._consumer.get_watermark_offsets(one, timeout=_ANSWER_TIMEOUT)
            if added_later or self._start == "earliest":
                one.offset = low
            elif isinstance(self._start, datetime):
                one.offset = -(-nanos_since_epoch(self._start) // 1_000_000)
                (found,) = self._consumer.offsets_for_times([one], timeout=_ANSWER_TIMEOUT)
                if found.error is not None:
                    raise self._kafka.KafkaException(found.error)
                one.offset = found.offset if found.offset >= 0 else high
            else:
                one.offset = high
        self._marks[f"{one.topic}/{one.partition}"] = one.offset
        return one

    def _check_kept(self, one: Any) -> None:
        """Tell of messages that are no longer there and were not read, if there are some."""
        low, high = self._consumer.get_watermark_offsets(one, timeout=_ANSWER_TIMEOUT)
        stream = f"{one.topic}/{one.partition}"
        self._ends.of[stream] = high
        if low <= one.offset <= high:
            return
        if one.offset < low:
            text = (
                f"{low - one.offset:,} messages of {stream} that were not read, from offset "
                f"{one.offset} on, are no longer kept: have Kafka keep them longer (retention.ms)"
            )
            one.offset = low
        else:
            text = (
                f"{stream} ends at offset {high}, and was read up to {one.offset}: it was made "
                f"anew, or has lost messages"
            )
            one.offset = low
        if self._on_lost is OnFault.RAISE:
            reason = f"{text}, or go on from offset {low}, by on_lost=OnFault.SKIP"
            raise SourceError(self._where, None, None, reason)
        _log.error("%s: %s", self._where, text)
        self._marks[stream] = one.offset

    def _pull(self) -> Sequence[Message]:
        consumer = self._consumer
        if self._kept is not None:
            self._store()
        if time.monotonic() - self._looked_at > _NEW_PARTITIONS:
            self._look_for_partitions()
        merge = self._merge
        held = 0 if merge is None else len(merge)
        if merge is not None and held and (chunk := self._next(merge)):
            return chunk
        first = consumer.poll(_HELD if held else WAIT)
        if self._denied is not None:
            raise SourceError(self._where, None, None, self._denied)
        if first is None:
            return ()
        self._outage.over()
        found: list[Any] = [first, *consumer.consume(_AT_ONCE - 1, 0)]
        ended: dict[str, int] = {}  # where partitions end, behind what has come of them
        if wrong := [one for one in found if one.error() is not None]:
            found = [one for one in found if one.error() is None]
            for one in wrong:
                if one.error().code() == self._kafka.KafkaError._PARTITION_EOF:
                    ended[f"{one.topic()}/{one.partition()}"] = one.offset()
                elif self._take_error(one):
                    return ()  # what is here comes again, as it was not given
        return self._pulled_in(self._messages(found), ended)

    def _messages(self, found: Sequence[Any]) -> Sequence[Message]:
        if self._by_record:
            subjects = [_record_key(one) for one in found]
        elif len(self._topics) == 1:
            subjects = self._topics * len(found)
        else:
            subjects = [one.topic() for one in found]
        if not self._reader.needs_broker_time:
            return [(one.value(), subject, None, one) for one, subject in zip(found, subjects)]
        return [
            (one.value(), subject, _published_ns(one), one) for one, subject in zip(found, subjects)
        ]

    def _pulled_in(
        self, messages: Sequence[Message], ended: Mapping[str, int]
    ) -> Sequence[Message]:
        """Messages have come.

        :param messages: the messages
        :param ended: where partitions end that have no more, as far as the broker has shown
        :return: those that are to be given now
        """
        pulled = {stream: it.offset() + 1 for stream, it in self._last_of(messages).items()}
        are_several = len(pulled) > 1
        pulled.update(ended)
        merge = self._merge
        if merge is None or not (are_several or len(merge) or self._streams_behind(pulled)):
            # Counted as in hand before they are no longer counted as what is to come.
            self._waiting = len(messages)
            self._pulled.update(pulled)
            return messages
        by_stream: dict[str, list[Message]] = {}
        for message in messages:
            by_stream.setdefault(self._stream(message), []).append(message)
        for stream, some in by_stream.items():
            merge.put(stream, some)
        self._pulled.update(pulled)
        if full := [stream for stream in merge.full if stream not in self._paused]:
            paused = {stream: self._assigned[stream] for stream in full}
            self._consumer.pause([*paused.values()])
            self._paused |= paused
        return self._next(merge)

    def _next(self, merge: StreamMerge) -> Sequence[Message]:
        """The next messages of those that wait for other partitions."""
        chunk = merge.take(self._streams_behind({}))
        self._waiting = len(chunk)  # before they no longer count as waiting there
        merge.taken(len(chunk))
        if again := [stream for stream in self._paused if merge.has_room(stream)]:
            self._consumer.resume([self._paused.pop(stream) for stream in again])
        return chunk

    def _streams_behind(self, pulled: Mapping[str, int]) -> Collection[str]:
        """The partitions that may have more than has come; all, while brokers show nothing.

        :param pulled: behind what has come just now
        """
        if time.monotonic() - self._shown_at > FRESH:
            return self._assigned
        before, ends = self._pulled, self._ends.of
        return [
            stream
            for stream in self._assigned
            if not -1 < ends.get(stream, -1) <= pulled.get(stream, before[stream])
        ]

    def _look_for_partitions(self) -> None:
        self._looked_at = time.monotonic()
        try:
            counts = Counter(stream.rpartition("/")[0] for stream in self._assigned)
            if any(len(self._partitions_of(topic)) != counts[topic] for topic in self._topics):
                self._assign()
        except self._kafka.KafkaException as error:
            _log.debug("%s: its partitions cannot be looked at: %s", self._where, error)

    def _take_error(self, message: Any) -> bool:
        """Take note of an error. Returns whether partitions are read from their marks again."""
        error, errors = message.error(), self._kafka.KafkaError
        if error.code() in (errors._AUTO_OFFSET_RESET, errors.OFFSET_OUT_OF_RANGE):
            self._assign()  # which tells what is gone
            return True
        self._note(error)
        return False

    def _note(self, error: Any) -> None:
        """What librdkafka tells, in the thread that polls."""
        errors = self._kafka.KafkaError
        if error.fatal() or error.code() in (
            errors._AUTHENTICATION,
            errors.SASL_AUTHENTICATION_FAILED,
            errors.TOPIC_AUTHORIZATION_FAILED,
            errors.GROUP_AUTHORIZATION_FAILED,
            errors.UNSUPPORTED_SASL_MECHANISM,
            errors._UNKNOWN_TOPIC,
            errors.UNKNOWN_TOPIC_OR_PART,
        ):
            self._denied = not_again(redacted(error.str(), self._secrets()))
            return
        told = f"{error.name()}: {error.str()}"
        if self._is_probe:
            self._unreached = told
        else:
            self._outage.failed(told, self._secrets())

    def _take_statistics(self, text: str) -> None:
        shown_at = self._ends.take(text, self._paused)
        if shown_at > self._shown_at:
            self._shown_at = shown_at
            self._outage.over()

    def _shut(self) -> None:
        """Nothing: librdkafka connects again."""

    def _end(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            with contextlib.suppress(Exception):
                self._store(wait=True)
            with contextlib.suppress(Exception):
                consumer.close()
            self._consumer = None

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (self._kafka.KafkaException,)

    def _fatal(self, error: BaseException) -> str | None:
        # What came to the callback tells why, as wrong credentials do.
        self._consumer.poll(0)
        if self._denied is None and error.args:
            self._note(error.args[0])
        return self._denied

    def _secrets(self) -> Sequence[str]:
        return self._settings.secrets()

    def _stream(self, message: Message) -> str:
        it = message[3]
        return f"{it.topic()}/{it.partition()}"

    def _move(self, messages: Sequence[Message]) -> None:
        for stream, it in self._last_of(messages).items():
            self._marks[stream] = it.offset() + 1

    def _last_of(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The last of each stream, as confluent-kafka has it."""
        if messages and (len(messages) == 1 or len(self._assigned) == 1):
            return {self._stream(messages[-1]): messages[-1][3]}
        last: dict[Any, Any]
        if len(self._topics) == 1:
            last = {message[3].partition(): message[3] for message in messages}
        else:
            last = {
                (message[3].topic(), message[3].partition()): message[3] for message in messages
            }
        return {f"{it.topic()}/{it.partition()}": it for it in last.values()}

    def _behind(self) -> int | None:
        # In the order in which messages go on, so that none is missed between two of these.
        behind = 0
        for stream in tuple(self._assigned):
            end = self._ends.of.get(stream, -1)
            if end < 0:
                return None
            behind += max(0, end - self._pulled[stream])
        merge = self._merge
        return behind + (0 if merge is None else len(merge))


def _made(
    topics: Sequence[str], partitions: Collection[int] | None, declared: Mapping[str, Any]
) -> KafkaSource:
    some = None if partitions is None else sorted(partitions)
    return KafkaSource(topics, partitions=some, **declared)


def _record_key(message: Any) -> str:
    key: bytes | str | None = message.key()
    return key.decode(errors="replace") if isinstance(key, bytes) else key or ""


def _published_ns(message: Any) -> int | None:
    kind, sent_ms = message.timestamp()
    return sent_ms * 1_000_000 if kind else None


def _place(message: Any) -> str:
    return f"{message.topic()}/{message.partition()} at offset {message.offset()}"
