"""A source that is started again when it fails, or when it ends and has no end."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import suppress
from dataclasses import replace
from typing import Any

from run_task.errors import ConfigError, SourceError, described
from run_task.observe._format import brief, seconds
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sources._batch import Batch, Batched
from run_task.sources._positioned import Position, positioned
from run_task.sources._protocol import AnyUnit, SourceInfo, about
from run_task.time._interval import TimeUnit
from run_task.time._retry import Retry, Then

_log = Log(__name__)


class FunctionRows:
    """What a function makes anew each time: how a generator is started again.

    :param function: called without arguments; it returns an iterable of rows
    """

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[Any]:
        return iter(self._function())

    def __repr__(self) -> str:
        return getattr(self._function, "__name__", None) or brief(self._function)


class AsyncFunctionRows:
    """The same of an async generator function."""

    def __init__(self, function: Callable[[], AsyncIterable[Any]]) -> None:
        self._function = function

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._function())

    def __repr__(self) -> str:
        return getattr(self._function, "__name__", None) or brief(self._function)


def restarted(where: str, source: Any, retry: Retry) -> RestartedSource:
    """A source that is started again.

    :param where: the source, for messages
    :param source: the source, or a function that makes one each time it is called
    :param retry: how often
    :raises ConfigError: if it cannot be
    """
    if not isinstance(retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(f"{where}: retry={brief(retry)}: it is a Retry(...), of run_task")
    if callable(source) and not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        made: Any = source
        is_async = inspect.isasyncgenfunction(made)
        source = AsyncFunctionRows(made) if is_async else FunctionRows(made)
    if not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        raise ConfigError(
            f"{where}: it is no iterable of (timestamp, row), and no function that makes one"
        )
    info = about(source)
    if info.once:
        raise ConfigError(
            f"{where}: retry=: it is an iterator, which cannot begin again: give the function that "
            f"makes it, without calling it"
        )
    if info.playback is not None:
        raise ConfigError(
            f"{where}: retry=: it plays a recording, whose time goes on: leave retry= out"
        )
    has_positions = positioned(source) is not None
    if not hasattr(source, "__iter__"):
        return (PositionedAsync if has_positions else RestartedAsync)(source, retry)
    if isinstance(source, Batched):
        return (PositionedBatches if has_positions else RestartedBatches)(source, retry)
    return (PositionedRows if has_positions else RestartedRows)(source, retry)


class RestartedSource:
    """A source that is started again after a wait, when it raises or ends by mistake.

    What has positions goes on behind the last row that it gave. What has an end and gives the same
    each time begins anew, and the rows that it gave before are left out. All else gives what comes.

    A SourceError and a ConfigError say that this would not help, and are raised.

    :param source: the source
    :param retry: how often
    """

    def __init__(self, source: Any, retry: Retry) -> None:
        self.inner: Any = source
        """The source."""
        self.retry = retry
        """How often it is started again."""
        self._positioned = positioned(source)
        self._endless = about(source).endless
        self._repeats = not (self._endless or self._positioned or isinstance(source, FunctionRows))
        self._closed = threading.Event()
        self._failures = Recurrence()
        self._in_a_row = 0  # failures, since it last gave a row

    def about(self) -> SourceInfo:
        """What the source says of itself, and how often it was started again."""
        known = about(self.inner)
        return replace(known, restarts=known.restarts + self._failures.count)

    def count_in(self, unit: TimeUnit, /) -> None:
        """Give timestamps in this unit, where it can."""
        if isinstance(self.inner, AnyUnit):
            self.inner.count_in(unit)

    def close(self) -> None:
        """Give no more rows. From any thread."""
        self._closed.set()
        close = getattr(self.inner, "close", None)
        if callable(close):
            close()

    def _has_ended(self) -> SourceError | None:
        """It gives no more rows. Returns what is wrong with that; None: nothing."""
        if self._closed.is_set() or not self._endless:
            return None
        return SourceError(repr(self), None, None, "it has ended, and it has no end")

    def _wait_after(self, error: Exception, *, ended: bool) -> float | None:
        """It has failed. Returns how many seconds to wait before it is started again; None: it
        ends.

        :param ended: whether it is the end that is the failure
        :raises Exception: the error, if it is not to be started again
        """
        if self._closed.is_set():
            raise error
        if isinstance(error, ConfigError) or (isinstance(error, SourceError) and not ended):
            raise error
        self._in_a_row += 1
        if self.retry.is_over(self._in_a_row):
            if self.retry.then is Then.RAISE:
                raise error
            _log.warning(
                "%r ends, after %s failures in a row: %s", self, self._in_a_row, described(error)
            )
            return None
        wait = self.retry.wait_after(self._in_a_row)
        if since := self._failures.happen():
            times = "" if since == 1 else f", {self._failures.count:,} times by now"
            _log.warning(
                "%r failed%s, and is started again in %s: %s",
                *(self, times, seconds(wait), described(error)),
            )
        return wait

    def _begin_again(self) -> None:
        """Go on behind what was given, where it has positions."""
        if self._positioned is not None:
            self._positioned.seek(self._positioned.position)

    def __repr__(self) -> str:
        return brief(self.inner)


class RestartedRows(RestartedSource):
    """One that gives rows."""

    def __iter__(self) -> Iterator[Any]:
        return self._given(lambda: iter(self.inner), lambda _: 1, lambda row, _: row)

    def _given(
        self,
        begin: Callable[[], Iterator[Any]],
        size: Callable[[Any], int],
        rest: Callable[[Any, int], Any],
    ) -> Generator[Any]:
        """What it gives: items of some rows each.

        :param begin: starts it
        :param size: how many rows an item has
        :param rest: an item without the first rows
        """
        given = 0
        while True:
            skip = given if self._repeats else 0
            items: Iterator[Any] | None = None
            ended = False
            try:
                items = begin()
                for item in items:
                    if skip:
                        skipped = min(skip, size(item))
                        skip -= skipped
                        if skipped == size(item):
                            continue
                        item = rest(item, skipped)  # noqa: PLW2901  what is left of it
                    given += size(item)
                    self._in_a_row = 0
                    yield item
                failure: Exception | None = self._has_ended()
                ended = True
            except Exception as error:
                failure = error
            finally:
                if isinstance(items, Generator):
                    items.close()
            if failure is None:
                return
            wait = self._wait_after(failure, ended=ended)
            if wait is None or self._closed.wait(wait):
                return
            self._begin_again()


class RestartedBatches(RestartedRows):
    """One that gives rows by column."""

    def batches(self) -> Iterator[Batch]:
        """The rows, by column."""
        return self._given(self.inner.batches, len, lambda batch, skipped: batch[skipped:])


class RestartedAsync(RestartedSource):
    """One that is read in an event loop."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            rows: AsyncIterator[Any] | None = None
            ended = False
            try:
                rows = aiter(self.inner)
                async for row in rows:
                    self._in_a_row = 0
                    yield row
                failure: Exception | None = self._has_ended()
                ended = True
            except Exception as error:
                failure = error
            finally:
                if isinstance(rows, AsyncGenerator):
                    with suppress(RuntimeError):  # it is being closed already
                        await rows.aclose()
            if failure is None:
                return
            wait = self._wait_after(failure, ended=ended)
            if wait is None:
                return
            await asyncio.sleep(wait)
            self._begin_again()


class _InnerPositions:
    """What it says of positions is what the source says."""

    _positioned: Any

    @property
    def position(self) -> Position:
        """Behind what was given last."""
        return self._positioned.position

    def seek(self, position: Position, /) -> None:
        """Begin behind a position."""
        self._positioned.seek(position)

    def commit(self, position: Position, /) -> None:
        """All rows up to a position are kept."""
        self._positioned.commit(position)

    @property
    def lag(self) -> int | None:
        """How many rows there are that it has not given."""
        lag: int | None = self._positioned.lag
        return lag


class PositionedRows(_InnerPositions, RestartedRows):
    """One that gives rows, and has positions."""


class PositionedBatches(_InnerPositions, RestartedBatches):
    """One that gives rows by column, and has positions."""


class PositionedAsync(_InnerPositions, RestartedAsync):
    """One that is read in an event loop, and has positions."""
