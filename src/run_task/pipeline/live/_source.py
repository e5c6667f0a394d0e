"""A source of a live pipeline: a thread that reads it, and lets its rows enter when they may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._ingest import NEVER, Feed
from run_task.pipeline._route import Route
from run_task.pipeline.live._stage import LiveStage
from run_task.pipeline.live._watermarks import Patience, Watermarks

_log = Log(__name__)


@runtime_checkable
class Foreseen(Protocol):
    """A source that knows when its next row comes, as a recording does."""

    @property
    def next_ns(self) -> float:
        """When, in nanoseconds since the Unix epoch: all rows before were given, and dealt with.
        Infinity: there are no more."""
        ...


class LiveSource:
    """A source with its thread.

    A row that comes when a window falls due, or later, enters once that window has its view, so
    that what a window sees does not depend on how late it is.

    :param source: the source
    :param unit_ns: how many nanoseconds the unit of its timestamps has
    :param route: where its rows go
    :param index: where it stands among the sources
    :param marks: how far the stages are
    :param name: what the thread is called
    :param on_end: called with what it raised, or None, once there are no more rows, and before any
        window begins that comes after the last one
    """

    def __init__(
        self,
        source: Any,
        unit_ns: int,
        route: Route,
        index: int,
        marks: Watermarks,
        name: str,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self.route = route
        self.index = index
        self._source = source
        self._marks = marks
        self._patience = Patience(marks)
        self._view_patience = Patience(marks)
        self._on_end = on_end
        self._feed = Feed(source, unit_ns, route, 1)
        self._foreseen = source if isinstance(source, Foreseen) else None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.readers: Sequence[LiveStage] = ()  # of the data that its rows enter
        self.rivals: Sequence[LiveStage] = ()  # who write to it, too
        self.beside: Sequence[LiveSource] = ()  # whose rows enter it, too, at times known before
        self.ended: bool = False
        self._entered_ns: float = -NEVER  # all rows that arrive before have entered

    @property
    def is_foreseen(self) -> bool:
        """Whether it knows when its next row comes."""
        return self._foreseen is not None

    @property
    def next_ns(self) -> float:
        """When its next row enters, as far as it knows."""
        if self.ended or self._foreseen is None:
            return NEVER
        next_ns = self._feed.next_ns  # of what it has given
        if next_ns == NEVER:
            next_ns = self._foreseen.next_ns
        if next_ns == NEVER:  # that was the last row: what comes after it is for on_end to say
            last_ns = self._feed.last_ns
            next_ns = -NEVER if last_ns is None else last_ns + 1
        # Until the source goes on, it tells when the rows came that it gave last.
        return max(next_ns, self._entered_ns)

    @property
    def frontier_ns(self) -> float:
        """When the latest row comes that is known of."""
        next_ns = NEVER if self._foreseen is None else self._foreseen.next_ns
        last_ns = self._feed.last_ns
        known = [ns for ns in (next_ns, last_ns) if ns is not None and ns != NEVER]
        return max(known, default=-NEVER)

    @property
    def entered(self) -> int:
        """How many of its rows have entered the data."""
        return self._feed.entered

    @property
    def last_ns(self) -> int | None:
        """When the last row came that it has given."""
        return self._feed.last_ns

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to give no more rows."""
        close = getattr(self._source, "close", None)
        if not callable(close):
            return
        try:
            close()
        except ValueError:
            pass  # a generator that its thread is in: it ends with its next row
        except Exception:
            _log.exception("%r cannot be closed", self)

    def join(self, timeout: float) -> bool:
        """Wait until it has ended. Returns whether it has."""
        if self._thread.ident is not None:  # it has been started
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while not self._marks.stopped and (next_ns := self._feed.fetch()) != NEVER:
                self._feed.ingest_before(self._limit(next_ns))
                left_ns = self._feed.next_ns
                last_ns = self._feed.last_ns
                self._entered_ns = last_ns if left_ns == NEVER and last_ns is not None else left_ns
        except BaseException as error:
            failure = error
        self._on_end(failure)
        self.ended = True
        self._marks.move()

    def _limit(self, next_ns: float) -> float:
        """Wait for the windows that come before the next row. Returns up to when rows may enter."""

        def before() -> Sequence[LiveStage | LiveSource]:
            return [other for other, until_ns in self._writes() if until_ns <= next_ns]

        def blind() -> Sequence[LiveStage]:
            for stage in self.readers:
                stage.keep_views(next_ns + 1)
            return [stage for stage, until_ns in self._views() if until_ns <= next_ns]

        timeout = max(stage.config.upstream_timeout for stage in self.readers)
        late = self._patience.wait(before, timeout, glance=bool(self.beside))
        # A row may be ahead of the clock: then windows can have their views only later.
        glance = any(stage.keeps_views for stage in self.readers)
        for one in (*late, *self._view_patience.wait(blind, timeout, glance=glance)):
            _log.warning("rows of %r enter, although %r is behind", self, one)
        untils = (ns for _, ns in (*self._writes(), *self._views()) if ns > next_ns)
        return min(untils, default=NEVER)

    def _writes(self) -> Sequence[tuple[LiveStage | LiveSource, float]]:
        """Who has to change the data before rows do that arrive at a time or later."""
        done = [(stage, stage.due_ns) for stage in self.rivals if not stage.ended]
        # Of rows of one time, those of the source that was declared first are first.
        rows = [(s, s.next_ns + (s.index > self.index)) for s in self.beside if not s.ended]
        return [*done, *rows]

    def _views(self) -> Sequence[tuple[LiveStage, float]]:
        """Who has to see the data before rows change it that arrive at a time or later."""
        return [(stage, stage.unseen_ns) for stage in self.readers if not stage.ended]

    def __repr__(self) -> str:
        return f"source {brief(self._source)}"
