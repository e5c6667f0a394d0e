"""The settings of a client of Kafka, and which of them no message shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from run_task.errors import ConfigError
from run_task.observe._url import redacted
from run_task.sources.brokers._credentials import Credentials

_HIDDEN: Final = ("password", "secret", "key.pem", "jaas", "oauth")
"""What is in the names of settings whose values are not to be told."""


class KafkaSettings:
    """What a source or a sink was given to connect by.

    :param where: whose they are, for errors
    :param servers: the addresses of brokers
    :param config: settings of librdkafka besides
    :param credentials: user and password
    """

    def __init__(
        self, where: str, servers: str, config: Mapping[str, Any] | None, credentials: Credentials
    ) -> None:
        self._where = where
        self._servers = servers
        self._config = dict(config or {})
        self._credentials = credentials

    def client(
        self,
        make: Callable[[dict[str, Any]], Any],
        kafka: Any,
        base: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> Any:
        """A client.

        :param make: the class of the client
        :param kafka: the library
        :param base: settings that those which were given replace
        :param own: settings that replace those
        :raises ConfigError: if there are no such settings
        """
        config: dict[str, Any] = {"bootstrap.servers": self._servers, **base, **self._config, **own}
        if self._credentials.username is not None:
            config["sasl.username"] = self._credentials.username
        if (password := self._credentials.password()) is not None:
            config["sasl.password"] = password
        try:
            return make(config)
        except (kafka.KafkaException, ValueError, TypeError) as error:
            reason = redacted(str(error), self.secrets())
            raise ConfigError(f"{self._where}: config= cannot be: {reason}") from None

    def secrets(self) -> list[str]:
        """What is not to be told, whatever an error of the library says."""
        hidden = [
            str(value)
            for name, value in self._config.items()
            if any(word in name for word in _HIDDEN)
        ]
        return [*self._credentials.secrets(), *filter(None, hidden)]
