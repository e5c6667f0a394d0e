"""A feed that begins with what is known of its past: history first, then live rows, without a gap
or a row twice."""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from run_task.columnar._any_frame import AnyFrame, is_frame
from run_task.errors import ChannelClosed, ConfigError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sources._arrived import is_arrived
from run_task.sources._positioned import Position, Positioned, positioned
from run_task.sources._protocol import AnyUnit, Rows, SourceInfo, about, warn_of_attributes
from run_task.sources.journal._journal import Journal, kind_of
from run_task.sync._channel import Receiver, Sender, channel
from run_task.time._interval import TimeUnit
from run_task.time._moment import InvalidTime, timestamp

_log = Log(__name__)

R = TypeVar("R")

_AHEAD: Final = 100_000


class Backfill(Generic[R]):
    """What :func:`backfill` gives."""

    def __init__(self, history: Any, live: Any, key: str | None, ahead: int) -> None:
        self.history: Any = history
        """What is read first."""
        self.inner: Any = live
        """What is read then."""
        self.overlap: int = 0
        """How many rows of the second were left out, since the first had given them."""
        self._live: Any = live  # the same, for threads
        self._key = key
        self._ahead = ahead
        self._unit: TimeUnit | None = None
        self._past = _Past()
        self._has_past = False  # history has been read
        self._sought_past = False  # some of it has been, by an earlier run
        self._closed = False
        self._sought: Position = None  # of the live source
        self._tracks = positioned(live) is not None
        self._at: Position = None  # where the live source was behind the row given last
        self._waiting: Receiver[Any] | None = None  # live rows that came while history was read

    def about(self) -> SourceInfo:
        """The unit of its timestamps, and that a replay reads the history."""
        past, live = about(self.history), about(self.inner)
        return SourceInfo(
            unit=past.unit or live.unit,
            malformed=past.malformed + live.malformed,
            recording=_Recording(self),
        )

    def count_in(self, unit: TimeUnit, /) -> None:
        """Give timestamps in this unit.

        :raises ConfigError: if one of the two cannot
        """
        for part in (self.history, self.inner):
            if isinstance(part, AnyUnit):
                part.count_in(unit)
            said = about(part).unit
            if said is not None and said is not unit:
                raise ConfigError(
                    f"{self!r}: the timestamps of {brief(part)} are in {said.name.lower()}, and "
                    f"not in {unit.name.lower()}: make them the same"
                )
        self._unit = unit

    @property
    def by_position(self) -> bool:
        """Whether positions tell where live rows begin: then these are not read before history has
        ended."""
        live = positioned(self.inner)
        if isinstance(self.history, Journal):
            return live is not None and self.history.kind == kind_of(live)
        return live is not None and type(self.history) is type(live)

    def read(self, rows: Iterable[Any]) -> None:
        """Read something else in the place of the live source: the same, for threads."""
        self._live = rows

    def resumed(self) -> None:
        """Its history is in the data by now: begin with live rows."""
        self._has_past = True

    def close(self) -> None:
        """Give no more rows. From any thread."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.close()
        for part in (self.history, self._live):
            if not isinstance(part, Generator):  # which only the thread that is in it can close
                close: object = getattr(part, "close", None)
                if callable(close):
                    close()

    def __iter__(self) -> Iterator[Any]:
        """The rows: those of history, then live ones that are not among these.

        :raises Exception: what one of the two raises
        """
        with contextlib.ExitStack() as opened:
            live: Iterator[Any] | None = None
            if not (self._has_past or self.by_position):
                live = self._read_ahead(opened)
            if not self._has_past:
                yield from self._of_history()
                if self._closed:
                    return
            self._has_past = True
            if live is None:
                self._turn()
                live = self._read_now(opened)
            for item in live:
                if self._is_new(item):
                    yield item
                else:
                    self.overlap += 1
            if self.overlap:
                _log.info("%r: %d live rows were those of history", self, self.overlap)

    def of_history(self) -> Iterator[Any]:
        """The rows of history, which are taken note of."""
        past = self._past if self._sought_past else _Past()
        self._past = past
        rows = iter(self.history)
        try:
            for item in rows:
                if (known := self._known(item)) is not None:
                    past.note(*known)
                yield item
        finally:
            if isinstance(rows, Generator):
                rows.close()

    def _of_history(self) -> Iterator[Any]:
        for item in self.of_history():
            if self._closed:
                return
            yield item

    def _turn(self) -> None:
        """History is over: let live rows be those behind it."""
        if self._sought is None and self.by_position:
            past = self.history
            _positioned(self.inner).seek(
                past.behind if isinstance(past, Journal) else past.position
            )
            self._past = _Past()  # all that comes is new
        start: object = getattr(self._live, "start", None)
        if self._live is not self.inner and callable(start):
            start()  # an async one, which was not to be read before

    def _read_now(self, opened: contextlib.ExitStack) -> Iterator[Any]:
        live: Any = self._live
        rows: Iterator[Any] = iter(live)
        if isinstance(rows, Generator):
            opened.callback(rows.close)
        item: Any
        for item in rows:
            if self._tracks:
                self._at = live.position
            yield item

    def _read_ahead(self, opened: contextlib.ExitStack) -> Iterator[Any]:
        """Begin to read live rows, in a thread of their own, as many as may wait."""
        ends: tuple[Sender[tuple[Any, Position]], Receiver[tuple[Any, Position]]]
        ends = channel(self._ahead)
        sender, receiver = ends
        self._waiting = receiver
        failures: list[BaseException] = []

        def run() -> None:
            rows: Iterator[Any] | None = None
            live: Any = self._live
            try:
                rows = iter(live)
                for item in rows:
                    sender.send((item, live.position if self._tracks else None))
                    if self._closed:
                        break
            except ChannelClosed:
                pass  # nobody wants them any more
            except BaseException as error:
                failures.append(error)
            try:
                if isinstance(rows, Generator):
                    rows.close()
            except BaseException as error:
                failures.append(error)
            sender.close()

        def items() -> Iterator[Any]:
            for item, position in receiver:
                self._at = position
                yield item
            thread.join()
            if failures:
                raise failures[0]

        context = contextvars.copy_context()  # so that it tells who listens of what is wrong
        name = f"{threading.current_thread().name}, live"
        thread = threading.Thread(target=context.run, args=(run,), name=name, daemon=True)
        thread.start()
        opened.callback(receiver.close)
        return items()

    def _known(self, item: Any) -> tuple[Any, int, Any] | None:
        """By what a row is known: its key, its timestamp, and the row; None: it is no row."""
        if item.__class__ is tuple and len(item) == 2:
            when, row = item
        elif is_arrived(item):
            when, row = item.timestamp, item.row
        else:
            return None
        try:
            stamp = timestamp(when, self._unit or about(self).unit or TimeUnit.MILLIS)
        except InvalidTime:
            return None
        key = _plain(_fields(row).get(self._key)) if self._key else None
        return key, stamp, row

    def _is_new(self, item: Any) -> bool:
        known = self._known(item) if self._past.last else None
        return known is None or not self._past.take(*known)

    def __repr__(self) -> str:
        return f"backfill({brief(self.history)}, then={brief(self.inner)})"


class PositionedBackfill(Backfill[R]):
    """What :func:`backfill` gives where both sources are ``Positioned``: it is, too."""

    @property
    def position(self) -> Position:
        """Which of the two is being read, and its position; of the second, what is to be known of
        the past, too."""
        if self._has_past:
            return {"live": self._at, "past": self._past.told()}
        past: Any = [] if self.by_position else self._past.told()
        return {"history": self.history.position, "past": past}

    def seek(self, position: Position, /) -> None:
        """Begin behind a position.

        :raises SourceError: if the source of which it is cannot
        """
        if "live" in position:
            self._has_past = True
            self._past = _Past(position["past"])
            self._at = self._sought = position["live"]
            _positioned(self.inner).seek(position["live"])
        else:
            self._sought_past = True
            self._past = _Past(position["past"])
            _positioned(self.history).seek(position["history"])

    def commit(self, position: Position, /) -> None:
        """Tell the source of which the position is."""
        if "live" in position:
            _positioned(self.inner).commit(position["live"])
        else:
            _positioned(self.history).commit(position["history"])

    @property
    def lag(self) -> int | None:
        """How many rows there are at least that it has not given yet."""
        live = _positioned(self.inner).lag
        past = 0 if self._has_past else _positioned(self.history).lag
        return None if live is None or past is None else live + past


class _Recording:
    """The history, for a replay."""

    def __init__(self, of: Backfill[Any]) -> None:
        self._of = of

    def about(self) -> SourceInfo:
        return about(self._of.history)

    def __iter__(self) -> Iterator[Any]:
        return self._of.of_history()

    def __repr__(self) -> str:
        return brief(self._of.history)


class _Past:
    """What tells rows of the past from new ones: by key, the time of the last one, and which rows
    there were of that time.

    :param told: what :meth:`told` was; None: nothing is known
    """

    def __init__(self, told: Any = None) -> None:
        self.last: dict[Any, int] = {}
        self._ties: dict[Any, Counter[str]] = {}
        self._told: Any = None
        for key, last, ties in told or ():
            self.last[key] = last
            self._ties[key] = Counter(ties)

    def note(self, key: Any, stamp: int, row: Any) -> None:
        """A row of the past."""
        last = self.last.get(key)
        if last is None or stamp > last:
            self.last[key] = stamp
            self._ties[key] = Counter()
        self._told = None
        if last is None or stamp >= last:
            self._ties[key][_values(row)] += 1

    def take(self, key: Any, stamp: int, row: Any) -> bool:
        """Whether a row that comes now is one of the past: each of these comes once."""
        last = self.last.get(key)
        if last is None or stamp > last:
            return False
        if stamp < last:
            return True
        ties, values = self._ties[key], _values(row)
        if not ties[values]:
            return False
        ties[values] -= 1
        self._told = None
        return True

    def told(self) -> Any:
        """The same, as JSON has it."""
        if self._told is None:
            self._told = [
                [key, last, {values: n for values, n in self._ties[key].items() if n}]
                for key, last in self.last.items()
            ]
        return self._told


def _values(row: Any) -> str:
    """The values of a row, as a text that is the same for equal ones, whatever their types."""
    if not isinstance(row, Mapping):
        return repr(row)
    named = {str(name): _plain(value) for name, value in _fields(row).items()}
    return json.dumps(named, sort_keys=True)


def _fields(row: Any) -> Mapping[Any, Any]:
    return row if isinstance(row, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]  of whatever


def _plain(given: Any) -> Any:
    value: Any = given.item() if hasattr(given, "dtype") else given
    if isinstance(value, bool | float) and value == value and abs(value) != math.inf:
        return int(value) if value == int(value) else value
    return value if isinstance(value, int | float | str | None) else repr(value)


def _positioned(source: Any) -> Positioned:
    found = positioned(source)
    assert found is not None
    return found


def backfill(
    history: Rows[R] | AnyFrame,
    then: Rows[R],
    *,
    key: str | None = None,
    ahead: int = _AHEAD,
) -> Backfill[R]:
    """A source that gives the rows of one source, and then those of a live one that are not among
    them::

        prices = backfill(CsvFile("today.csv"), then=feed(), key="symbol")
        pipeline.source(prices, into=series)

    Where both are of one type, and have positions, the live source goes on behind the position
    at which the other one has ended; so it does where the history is a :class:`Journal` of rows
    that came from a source of its type.

    Else time tells: of the live source, what is stamped before the last row of the history is
    taken for a row of the history, and left out; what is stamped with the same time is left out if
    the history has an equal row of that time. With a ``key``, that is the last row of the same key,
    and all rows of other keys are given. So a live row that is late across this border is left out
    if the history lacks it, too. :attr:`Backfill.overlap` counts what is left out, and the log
    tells it.

    Then the live source is read from the beginning on, so that nothing of it is missed; what it
    gives waits until the history has been read.

    A replay reads the history. It is ``Positioned`` if both are.

    :param history: what is read first, and has an end; or a frame
    :param then: what is read then: an iterable or an async iterable
    :param key: the field of a row that says to which of several series it belongs; None: there is
        one
    :param ahead: how many live rows may wait while the history is read; then the live source has
        to, too
    :raises ConfigError: if the history has no end, or is played, or one of these cannot be
    """
    given: Any = history
    if is_frame(given):
        from run_task.sources._frame_source import FrameSource

        given = FrameSource(given)
    live: Any = then
    for what, source in (("history", given), ("then", live)):
        if not hasattr(source, "__iter__") and not hasattr(source, "__aiter__"):
            raise ConfigError(f"backfill({what}={brief(source)}): it is no iterable of rows")
        warn_of_attributes(source)
        if about(source).playback is not None:
            raise ConfigError(
                f"backfill({what}={brief(source)}): it plays a recording: give what it plays"
            )
    if not hasattr(given, "__iter__") or about(given).endless:
        raise ConfigError(
            f"backfill(history={brief(given)}): it has no end: give what was recorded, such as a "
            f"file, a table or a Journal"
        )
    most: object = ahead
    if type(most) is not int or most < 1:
        raise ConfigError(f"backfill(ahead={brief(most)}): it is a number of rows")
    field: object = key
    if field is not None and type(field) is not str:
        raise ConfigError(f"backfill(key={brief(field)}): it is the name of a field")
    both = positioned(given) is not None and positioned(live) is not None
    return (PositionedBackfill if both else Backfill)(given, live, key, ahead)
