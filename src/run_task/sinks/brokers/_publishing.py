"""What sinks have in common that publish to a broker, and are told what it has taken."""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

from run_task.errors import ConfigError, SinkError
from run_task.sinks._protocol import Result
from run_task.sinks.brokers._place_template import PlaceTemplate
from run_task.sinks.brokers._result_messages import messages_of

ANSWER_TIMEOUT: Final = 10.0
"""How many seconds an answer of the broker is waited for."""


class Outgoing(NamedTuple):
    """A message on its way."""

    place: str
    """Its subject or topic."""
    about: dict[str, str]
    """What stands beside its body: its id, and the window."""
    body: bytes
    """The body."""


class PublishingSink(abc.ABC):
    """Sends messages as they come, and waits in :meth:`flush` until the broker has taken them.

    Where it has not, the connection is given up, and what was not flushed is written again by who
    retries. From then on until the next flush each result waits for its own answer, so that one
    which the broker does not take is known, and costs itself.

    :param where: what it is and where it connects to, without secrets
    :param place: of which the places of messages are made
    :param identity: under which name a message has its id
    """

    def __init__(self, where: str, place: PlaceTemplate, identity: str) -> None:
        self._where = where
        self._place = place
        self._identity = identity
        self._mutex = threading.RLock()
        self._is_open = False
        self._unsettled = False  # something was sent, and not answered as far as is known
        self._careful = False
        self._abandoned: ConnectionError | ConfigError | None = None

    def write(self, result: Result, /) -> None:
        """Send what a window gave; :meth:`flush` waits for it.

        :raises SinkError: if it has no form in JSON, or the broker does not take it
        :raises ConnectionError: if the broker is away
        :raises ConfigError: if trying again does not help, as where the password is wrong
        """
        start, end = map(str, result.window)
        outgoing = [
            Outgoing(
                self._place.of(message.path),
                {self._identity: message.identity, "start": start, "end": end},
                message.body,
            )
            for message in messages_of(result)
        ]
        with self._mutex:
            self._abandoned = None  # what was lost with it is written again, too
            with self._telling():
                self._connect()
            for one in outgoing:
                if (problem := self._misfit(one)) is not None:
                    raise SinkError(f"{self._where}: {problem}")
            before, self._unsettled = self._unsettled, True
            try:
                with self._telling():
                    self._send(outgoing)
                    if self._careful:
                        self._settle()
                        self._unsettled = False
            except (ConnectionError, ConfigError) as error:
                if before:  # whoever does not try again is to know that this is lost, too
                    self._abandoned = error
                raise

    def flush(self) -> None:
        """Wait until the broker has taken all that was written.

        :raises ConnectionError: if it has not in time, or does not take a message
        :raises ConfigError: if trying again does not help
        """
        with self._mutex:
            abandoned, self._abandoned = self._abandoned, None
            if abandoned is not None:
                raise abandoned
            with self._telling():
                if self._unsettled:
                    self._settle()
            self._unsettled = self._careful = False

    def close(self) -> None:
        """Flush, and disconnect. Any number of times."""
        with self._mutex:
            try:
                self.flush()
            finally:
                self._give_up()

    def _connect(self) -> None:
        if self._is_open and not self._unsettled and self._is_lost():
            self._give_up()  # since the last result, and all was taken
        if not self._is_open:
            self._open()
            self._is_open = True

    @contextlib.contextmanager
    def _telling(self) -> Generator[None]:
        """What goes wrong ends the connection, and is told as what it is to who retries."""
        careful = self._careful
        try:
            yield
        except (SinkError, ConfigError) as error:
            self._be_careful()
            if isinstance(error, SinkError) and not careful:  # it may be of another result
                raise ConnectionError(str(error)) from None
            raise
        except self._failures() as error:
            told, fatal = self._told(error), self._fatal(error)
            self._be_careful()
            if fatal is not None:
                raise ConfigError(f"{self._where}: {fatal}") from None
            raise ConnectionError(f"{self._where}: {told}") from None

    def _be_careful(self) -> None:
        self._careful = True
        self._give_up()

    def _give_up(self) -> None:
        self._is_open = self._unsettled = False
        self._shut()

    def __repr__(self) -> str:
        return self._where

    @abc.abstractmethod
    def _open(self) -> None:
        """Connect."""

    @abc.abstractmethod
    def _is_lost(self) -> bool:
        """Whether the connection is of no more use."""

    @abc.abstractmethod
    def _misfit(self, message: Outgoing) -> str | None:
        """Why the broker would not take a message; None: it may take it."""

    @abc.abstractmethod
    def _send(self, messages: Sequence[Outgoing]) -> None:
        """Send messages, in order."""

    @abc.abstractmethod
    def _settle(self) -> None:
        """Wait until the broker has taken what was sent.

        :raises SinkError: if it does not take a message, and may take the others
        :raises ConfigError: if trying again does not help
        """

    @abc.abstractmethod
    def _shut(self) -> None:
        """Disconnect, if it is connected. It raises nothing."""

    @abc.abstractmethod
    def _failures(self) -> tuple[type[BaseException], ...]:
        """What the client raises."""

    @abc.abstractmethod
    def _told(self, error: Any) -> str:
        """What an error says, without secrets, and what to look at."""

    @abc.abstractmethod
    def _fatal(self, error: Any) -> str | None:
        """Why there is no use in trying again; None: there is."""
