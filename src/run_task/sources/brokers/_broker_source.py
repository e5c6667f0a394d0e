"""What sources have in common that ask a broker for the next messages, in the thread that reads."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from run_task.errors import SourceError
from run_task.observe._log import Log
from run_task.sources._batch import Batch
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo
from run_task.sources.brokers._message import Message, MessageReader, batch_of
from run_task.sources.brokers._outage import Outage
from run_task.sync._alarm import Alarm

M = TypeVar("M")

_log = Log(__name__)

WAIT: Final = 0.1
"""How many seconds a broker is waited for at a time: so long a close may take, and so often it
shows, while nothing comes, that there is nothing."""

FRESH: Final = 0.35
"""For how many seconds it holds that there is nothing more, once the broker has shown it."""

CHUNK: Final = 1_000
"""How many messages are taken at a time, at most."""


class BrokerSource(abc.ABC, Generic[M]):
    """A source that pulls messages, reconnects, and knows how far it is in each stream.

    What is read at a time is a chunk of messages. Marks say how far each stream is read: they move
    with each message, right before its last row is given. Where a message has several rows, a
    position may lie between them; it then has the mark and how many rows were given beyond it.

    :param where: what it is and where it connects to, without secrets
    :param cure: what to look at where it cannot connect
    :param reader: makes rows of messages
    """

    def __init__(self, where: str, cure: str, reader: MessageReader) -> None:
        self._where = where
        self._reader = reader
        self._outage = Outage(where, cure)
        self._alarm = Alarm()
        self._closed = False
        self._marks: dict[str, M] = {}
        self._skip: dict[str, int] = {}  # how many rows of its next message were given before
        self._within: tuple[str, int] | None = None
        # Messages in hand, also those that are with who reads until that one asks for more: their
        # rows may not have entered yet.
        self._waiting = 0
        self._shown_at = float("-inf")  # when the broker showed last how much there is

    def about(self) -> SourceInfo:
        """Its unit, and that it has no end."""
        return SourceInfo(unit=self._reader.unit, endless=True, malformed=self._reader.malformed)

    @property
    def malformed(self) -> int:
        """How many malformed messages, and rows of messages, there were so far."""
        return self._reader.malformed

    def close(self) -> None:
        """Give no more rows, and disconnect. From any thread, any number of times."""
        self._closed = True
        self._alarm.ring()

    @property
    def position(self) -> Position:
        """How far each stream is read."""
        marks: dict[str, Any] = dict(self._marks)
        if self._within is not None:
            stream, rows = self._within
            marks[stream] = [marks[stream], rows]
        return marks

    def seek(self, position: Position, /) -> None:
        """Begin right behind a position of an earlier run.

        :raises SourceError: if it is none of this source's
        """
        if not isinstance(position, Mapping):
            raise SourceError(self._where, None, None, f"{position!r} is no position of it")
        marks = cast("Mapping[str, Any]", position)
        for stream, mark in marks.items():
            if isinstance(mark, list | tuple):
                self._marks[stream], self._skip[stream] = cast("Sequence[Any]", mark)
            else:
                self._marks[stream] = mark

    @property
    def lag(self) -> int | None:
        """How many messages there are at least that were not given, or whose rows are still with
        who reads; None: it is disconnected, or the broker has shown nothing for a while."""
        if self._outage.on or time.monotonic() - self._shown_at > FRESH:
            return None
        behind = self._behind()
        return None if behind is None else behind + self._waiting

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows as they come.

        :raises SourceError: at what no retry can cure, and at a malformed message where such are
            fatal
        """
        with contextlib.closing(self._chunks()) as chunks:
            for chunk, arrival_ns in chunks:
                yield from self._rows(chunk, arrival_ns)

    def batches(self) -> Iterator[Batch]:
        """The rows as they come, by column.

        :raises SourceError: as where they are given one by one
        """
        with contextlib.closing(self._chunks()) as chunks:
            for chunk, arrival_ns in chunks:
                if self._skip:
                    yield from (batch_of([row]) for row in self._rows(chunk, arrival_ns))
                else:
                    yield from self._batches(chunk, arrival_ns)

    def _rows(
        self, chunk: Sequence[Message], arrival_ns: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        rows_of = self._reader.rows
        self._waiting = len(chunk)
        for message in chunk:
            if self._closed:
                return
            rows = rows_of(message, arrival_ns)
            skip = self._skip.pop(self._stream(message), 0) if self._skip else 0
            if len(rows) <= skip:
                self._pass(message)
            for number, row in enumerate(rows[skip:], skip + 1):
                if number == len(rows):
                    self._within = None
                    self._move((message,))
                else:
                    self._within = self._stream(message), number
                yield row
            self._waiting -= 1

    def _batches(self, chunk: Sequence[Message], arrival_ns: int) -> Iterator[Batch]:
        at = 0
        self._waiting = len(chunk)
        for batch, done, within in self._reader.batches(chunk, arrival_ns):
            if self._closed:
                return
            self._within = (self._stream(chunk[done]), within) if within else None
            self._move(chunk[at:done])
            yield batch
            at = done
            self._waiting = len(chunk) - done
        for message in chunk[at:]:
            self._pass(message)
        self._waiting = 0

    def _chunks(self) -> Generator[tuple[Sequence[Message], int]]:
        """Messages, and when they came; it connects again as often as it has to."""
        is_open = False
        try:
            while not self._closed:
                try:
                    if not is_open:
                        self._open()
                        if self._closed:
                            return
                        is_open = True
                        self._outage.over()
                    chunk = self._pull()
                except self._failures() as error:
                    if self._closed:
                        return
                    is_open = False
                    self._shown_at = float("-inf")  # before what has come is forgotten
                    self._shut()
                    if (reason := self._fatal(error)) is not None:
                        raise SourceError(self._where, None, None, reason) from None
                    cause = self._cause(error)
                    self._alarm.wait(self._outage.failed(cause, self._secrets()))
                    continue
                if chunk:
                    yield chunk, time.time_ns()
        finally:
            # Who reads may have left in the middle of a row, and begin again.
            self._waiting, self._shown_at = 0, float("-inf")
            self._end()

    def _show(self, as_of: float | None = None) -> None:
        """The broker has shown how much there is.

        :param as_of: when it was asked, in seconds of :func:`time.monotonic`, since its answer may
            have been under way for a while; None: now
        """
        self._shown_at = time.monotonic() if as_of is None else as_of

    def _pass(self, message: Message) -> None:
        """Move beyond a message that has no rows."""
        self._within = None
        self._move((message,))

    def _end(self) -> None:
        """Nothing more is read."""
        self._shut()

    def _cause(self, error: BaseException) -> BaseException:
        """What tells best what went wrong."""
        return error

    def __repr__(self) -> str:
        return self._where

    @abc.abstractmethod
    def _open(self) -> None:
        """Connect, and go to where the marks are."""

    @abc.abstractmethod
    def _pull(self) -> Sequence[Message]:
        """The next messages; none, if none comes for a moment."""

    @abc.abstractmethod
    def _shut(self) -> None:
        """Disconnect, if it is connected. It raises nothing."""

    @abc.abstractmethod
    def _failures(self) -> tuple[type[BaseException], ...]:
        """What the client raises."""

    @abc.abstractmethod
    def _fatal(self, error: BaseException) -> str | None:
        """Why there is no use in trying again; None: there is."""

    @abc.abstractmethod
    def _secrets(self) -> Sequence[str]:
        """What stands in no message."""

    @abc.abstractmethod
    def _stream(self, message: Message) -> str:
        """Of which stream a message is."""

    @abc.abstractmethod
    def _move(self, messages: Sequence[Message]) -> None:
        """Move the marks beyond messages."""

    @abc.abstractmethod
    def _behind(self) -> int | None:
        """How many messages there are at least that are not in hand, as far as the broker has
        shown. From any thread."""
