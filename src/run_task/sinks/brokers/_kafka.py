"""Results as messages of Kafka."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SinkError
from run_task.observe._url import redacted
from run_task.sinks._protocol import Result
from run_task.sinks.brokers._result_messages import messages_of
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._kafka_settings import KafkaSettings
from run_task.sources.brokers._outage import not_again

_DELIVERY_TIMEOUT: Final = 10.0
"""How many seconds delivery is waited for."""


class KafkaSink:
    """Publishes what each window gave to a topic of Kafka, as JSON: a message for each window, and
    of a stage by key for each window and key.

    ::

        bars.sink(KafkaSink("bars", servers="localhost:9092"))

    A message's key is ``pipeline/stage``, or ``pipeline/stage/key``: so those of one key are in one
    partition, in the order of their windows. Its headers ``id``, ``start`` and ``end`` stand in the
    body, too, with ``pipeline``, ``stage``, ``unit``, ``key``, ``results`` by task, and ``errors``.
    The ``id`` is the same each time for a pipeline, stage, window and key: after a failure, or a
    kill, windows are published again, and whoever reads can tell by it. Within a run, librdkafka's
    idempotent producer keeps order and publishes nothing twice when it tries again itself.

    A flush waits until Kafka has taken all that was written, of all replicas. Where it has not
    within ten seconds, it raises a ConnectionError, and what was not flushed is published again as
    the ``retry=`` of the sink says.

    :param topic: the name of the topic
    :param servers: one or more addresses of brokers, ``"host:port"``, separated by commas
    :param config: settings of librdkafka besides; no message shows their values
    :param username: the user, ``sasl.username``
    :param password: the password, ``sasl.password``; also by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :raises ConfigError: if one of these cannot be, or confluent-kafka is not installed
    """

    def __init__(
        self,
        topic: str,
        *,
        servers: str = "localhost:9092",
        config: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
    ) -> None:
        self._where = f"KafkaSink({topic!r}) at {servers}"
        if type(topic) is not str or not topic:
            raise ConfigError(f"{self._where}: topic={topic!r}: it is the name of a topic")
        self._kafka = need("confluent_kafka", "kafka")
        credentials = Credentials(self._where, username, password, password_file, password_env)
        self._topic = topic
        self._settings = KafkaSettings(self._where, servers, config, credentials)
        self._mutex = threading.RLock()
        self._failed: Any = None  # the first error of a delivery since the last flush
        self._denied: Any = None  # the last error that trying again does not cure
        self._told = ""  # what is wrong with the connection
        self._producer: Any = self._make()

    def write(self, result: Result, /) -> None:
        """Publish a result; :meth:`flush` waits for it.

        :raises SinkError: if it has no form in JSON, or a message of it is larger than the producer
            may publish, ``message.max.bytes``
        :raises ConfigError: if Kafka does not let this user in
        """
        messages = list(messages_of(result))
        start, end = result.window
        with self._mutex:
            producer = self._open()
            for identity, path, body in messages:
                headers = [("id", identity), ("start", str(start)), ("end", str(end))]
                key = "/".join(path)
                while True:
                    try:
                        producer.produce(
                            self._topic, body, key, headers=headers, on_delivery=self._report
                        )
                    except BufferError:  # it is full: some are delivered first
                        producer.poll(0.1)
                        self._check()
                    except self._kafka.KafkaException as error:
                        raise SinkError(f"{self._where}: {self._shown(error.args[0])}") from None
                    else:
                        break
            producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has taken all that was written.

        :raises ConnectionError: if it has not in time; what was not taken is to be written again
        :raises ConfigError: if there is no such topic, or Kafka does not let this user in
        """
        with self._mutex:
            if self._producer is None:
                return
            waiting = self._producer.flush(_DELIVERY_TIMEOUT)
            if waiting:
                # They are written again, by who retries: else they would be there twice.
                self._producer.purge()
                self._producer.flush(_DELIVERY_TIMEOUT)
            self._check()
            self._failed = None
            if waiting:
                told = f": {self._told}" if self._told else ""
                raise ConnectionError(
                    f"{self._where}: {waiting:,} messages were not taken within "
                    f"{_DELIVERY_TIMEOUT:g} s{told}. "
                    "Is Kafka there, and are servers= its addresses?"
                )

    def close(self) -> None:
        """Flush, and disconnect. Any number of times."""
        with self._mutex:
            try:
                self.flush()
            finally:
                self._producer = None

    def _open(self) -> Any:
        if self._producer is None:
            self._producer = self._make()
        return self._producer

    def _make(self) -> Any:
        base = {
            "linger.ms": 5,
            "log_level": 0,  # what is wrong comes to the callback, too
        }
        own = {"enable.idempotence": True, "error_cb": self._note}
        return self._settings.client(self._kafka.Producer, self._kafka, base, own)

    def _report(self, error: Any, message: Any) -> None:
        errors = self._kafka.KafkaError
        if error is None or error.code() in (errors._PURGE_QUEUE, errors._PURGE_INFLIGHT):
            return  # or a flush tells of it
        if self._failed is None:
            self._failed = error
        self._note(error)

    def _note(self, error: Any) -> None:
        errors = self._kafka.KafkaError
        self._told = self._shown(error)
        if error.fatal() or error.code() in (
            errors._AUTHENTICATION,
            errors.SASL_AUTHENTICATION_FAILED,
            errors.TOPIC_AUTHORIZATION_FAILED,
            errors.CLUSTER_AUTHORIZATION_FAILED,
            errors._UNKNOWN_TOPIC,
            errors.UNKNOWN_TOPIC_OR_PART,
        ):
            self._denied = error

    def _check(self) -> None:
        """Raise what was wrong with a delivery.

        :raises ConfigError: if trying again does not cure it
        :raises ConnectionError: if it may
        """
        failed, self._failed = self._failed, None
        denied, self._denied = self._denied, None
        if denied is not None:
            with contextlib.suppress(Exception):
                self._producer.purge()
            # One that had a fatal error is of no more use.
            self._producer = None
            raise ConfigError(not_again(f"{self._where}: {self._shown(denied)}"))
        if failed is not None:
            raise ConnectionError(f"{self._where}: {self._shown(failed)}")

    def _shown(self, error: Any) -> str:
        return redacted(f"{error.name()}: {error.str()}", self._settings.secrets())

    def __repr__(self) -> str:
        return self._where
