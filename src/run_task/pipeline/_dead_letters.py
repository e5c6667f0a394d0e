"""Where rows go that are not stored, and results that a sink does not get."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from run_task._window import Window
from run_task.errors import ConfigError, SinkError, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sinks._protocol import DurableSink, Result
from run_task.tasks._call import misfit
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import KeyedDataSet

_log = Log(__name__)


class DeadLetter(NamedTuple):
    """A row that was not stored, or a result that a sink did not get."""

    row: Any
    """What the source gave: ``(timestamp, row)``, if it was that. Where the source itself could
    make no row of what it read: of a message its text, or its bytes if it is none, or the one of
    its rows that is wrong; else None. Or the :class:`~run_task.sinks.Result`."""
    reason: str
    """What became of a row: ``"malformed"``, ``"rejected"``, ``"ahead"``, ``"duplicate"`` or
    ``"expired"``; of a result: ``"refused"``, ``"dropped"``, ``"lost"`` or ``"rejected"``."""
    detail: str
    """More about that, in words."""


class _Recipient(Protocol):
    def begin(self) -> None: ...
    def take(self, letter: DeadLetter) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class DeadLetters:
    """Gives what is not stored to where it was said to go. What goes wrong there costs that letter,
    and is logged. From any thread.

    :param origin: where they come from, for messages
    :param target: where to
    """

    def __init__(self, origin: str, target: _Recipient) -> None:
        self._origin = origin
        self._target = target
        self._mutex = threading.Lock()
        self._lost = Recurrence()
        self._ways = 0  # how many of the source are open: it may go into several data

    @classmethod
    def checked(
        cls, where: str, pipeline: str, source: str, given: Any, origin: str | None = None
    ) -> DeadLetters | None:
        """Dead letters for what a user gave, if they can be.

        :param where: who declares them, for messages
        :param pipeline: the name of the pipeline
        :param source: the name of the source, or of the sink
        :param origin: which of both it is, for messages; None: a source
        :param given: a sink, shared data with an ingest, a function, or None
        :raises ConfigError: if it is none of these
        """
        if given is None:
            return None
        if origin is None:
            origin = f"source {source!r}"
        if type(given) is tuple:
            pair: Any = given  # pyright: ignore[reportUnknownVariableType]  of what, is looked at
            if len(pair) == 2 and callable(getattr(pair[0], "write", None)) and callable(pair[1]):
                if problem := misfit(pair[1], None, DeadLetter(None, "", "")):
                    raise ConfigError(
                        f"{where}: dead_letters={brief(given)}: the ingest cannot be called with "
                        f"(data, letter): {problem}"
                    )
                return cls(origin, _ToData(*pair))
        elif all(callable(getattr(given, name, None)) for name in ("write", "flush", "close")):
            if not isinstance(given, type):
                return cls(origin, _ToSink(pipeline, source, given))
        elif callable(given):
            if problem := misfit(given, *DeadLetter(None, "", "")):
                raise ConfigError(
                    f"{where}: dead_letters={brief(given)}: it cannot be called with (row, reason, "
                    f"detail): {problem}"
                )
            return cls(origin, _ToFunction(given))
        raise ConfigError(
            f"{where}: dead_letters={brief(given)}: it is a function of (row, reason, detail), a "
            f"sink, or shared data with an ingest, (data, ingest)"
        )

    def __repr__(self) -> str:
        return self._origin

    def begin(self) -> None:
        """A run begins, for one way of the source."""
        with self._mutex:
            self._ways += 1
            if self._ways > 1:
                return
        self._target.begin()

    def take(self, letter: DeadLetter) -> None:
        """Give a row away."""
        try:
            with self._mutex:
                self._target.take(letter)
        except Exception as error:
            if since := self._lost.happen():
                letters = "a dead letter" if since == 1 else f"{since:,} dead letters"
                _log.warning(
                    "%s: %s could not be delivered: %s",
                    *(self._origin, letters, described(error)),
                )

    def flush(self) -> None:
        """Let what was given last."""
        self._finish(self._target.flush)

    def close(self) -> None:
        """There are no more that go one way."""
        with self._mutex:
            self._ways -= 1
            if self._ways > 0:
                return
        self._finish(self._target.close)

    def _finish(self, finish: Callable[[], None]) -> None:
        try:
            with self._mutex:
                finish()
        except Exception as error:
            _log.warning(
                "%s: dead letters could not be delivered: %s",
                *(self._origin, described(error)),
            )


class _ToFunction:
    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def begin(self) -> None:
        pass

    def take(self, letter: DeadLetter) -> None:
        self._function(*letter)

    def flush(self) -> None:
        pass

    close = flush


class _ToData(_ToFunction):
    def __init__(self, shared: Any, ingest: Callable[..., object]) -> None:
        super().__init__(ingest)
        self._shared = shared

    def take(self, letter: DeadLetter) -> None:
        with self._shared.write() as data:
            self._function(data, letter)


class _ToSink:
    """Each letter is a Result of the source's name, in a window of the microsecond at which it
    came: so none replaces another."""

    def __init__(self, pipeline: str, source: str, sink: Any) -> None:
        self._pipeline = pipeline
        self._source = source
        self._sink = sink
        self._latest = 0

    def begin(self) -> None:
        if isinstance(self._sink, DurableSink):
            self._sink.begin(self._pipeline)

    def take(self, letter: DeadLetter) -> None:
        at = self._latest = max(self._latest + 1, time.time_ns() // 1000)
        window = Window(at, at + 1)
        row = letter.row

        def result(row: Any) -> Result:
            dataset = DataSet(window, {**letter._asdict(), "row": row})
            return Result.of(self._pipeline, self._source, dataset)

        if isinstance(row, Result):
            row = _as_mapping(row)
        try:
            self._sink.write(result(row))
        except SinkError:  # it holds what the sink cannot
            self._sink.write(result(brief(letter.row)))

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self._sink.close()


def _as_mapping(result: Result) -> Mapping[str, Any]:
    """A result as a sink can hold it."""
    dataset = result.dataset
    known: dict[str, Any] = {"stage": result.stage, "window": tuple(result.window)}
    if isinstance(dataset, KeyedDataSet):
        known["values"] = [[key, dict(values)] for key, values in dataset.rows()]
        errors = [[name, str(error)] for name, error in dataset.errors.items()]
    else:
        known["values"] = dict(dataset)
        errors = [[name, str(error)] for name, error in dataset.errors.items()]
    return {**known, "errors": errors}
