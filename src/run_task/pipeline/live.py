"""A pipeline as it runs live: a runner a stage, a thread a source, and a watermark for each."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from run_task.clock import Clock
from run_task.config import RunnerConfig
from run_task.context import Context
from run_task.dataset import DataSet
from run_task.errors import LockTimeout
from run_task.interval import Window
from run_task.pipeline.feed import NEVER, Feed
from run_task.pipeline.graph import AnyStage
from run_task.pipeline.stage import Route
from run_task.pipeline.writer import Writer
from run_task.runner import Runner

_logger = logging.getLogger(__name__)

_GLANCE: Final = 0.0005
"""How many seconds at a time to wait for a source that cannot say when it is further."""


@runtime_checkable
class Foreseen(Protocol):
    """A source that knows when its next row comes, as a recording does."""

    @property
    def next_ns(self) -> float:
        """When, in nanoseconds since the Unix epoch: all rows before were given, and dealt with.
        Infinity: there are no more."""
        ...


class Watermarks:
    """How far stages and sources have come, and a way to wait until they come further."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self.stopped: bool = False  # nobody waits any more

    def move(self) -> None:
        """Wake those who wait: something has moved."""
        with self._moved:
            self._moved.notify_all()

    def wait(self, until: Callable[[], bool], timeout: float, glance: float) -> bool:
        """Wait until something holds.

        :param until: whether it does
        :param timeout: how many seconds to wait at most
        :param glance: how many seconds to wait at a time, for what moves without a word
        :return: whether it does
        """
        deadline = time.monotonic() + timeout
        with self._moved:
            while not (held := until()) and not self.stopped:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._moved.wait(min(remaining, glance))
        return held


class LiveStage:
    """A stage with its runner, and where the runner's results go.

    It stands in the place of the runner's sender: results enter other data and go to sinks before
    the next window begins.

    :param stage: the stage
    :param config: how its runner behaves
    :param upstreams: who feeds it
    :param sources: the sources of its data
    :param writers: the sinks of its results
    :param marks: how far all of them are
    :param clock: where to read the time
    :param since_ns: the first window holds this time, in nanoseconds since the Unix epoch
    :param on_end: called when its runner has ended
    """

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        upstreams: Sequence[LiveStage],
        sources: Sequence[LiveSource],
        writers: Sequence[Writer],
        marks: Watermarks,
        clock: Clock,
        since_ns: int | None,
        on_end: Callable[[], None],
    ) -> None:
        self.stage = stage
        self.config = config
        self.ended: bool = False
        self._first_ns: float = -math.inf  # the end of the first window
        self._next_ns: float = -math.inf  # the end of the window after the last that was ingested
        self._upstreams = upstreams
        self._foreseen = [source for source in sources if source.is_foreseen]
        self._writers = writers
        self._marks = marks
        self._on_end = on_end
        self._unit_ns = stage.interval.unit.nanos
        self._grace_ns = config.grace.nanos if config.grace is not None else 0
        self._given_up: set[LiveStage] = set()  # those that took too long, until they catch up
        context = Context[Any, Any](
            tasks=stage.tasks, data=stage.data, interval=stage.interval, sender=self, config=config
        )
        self.runner: Runner[Any, Any] = Runner(
            context, clock=clock, since_ns=since_ns, gate=self._wait
        )

    def start(self) -> None:
        """Begin to run."""
        self.runner.start()
        self._first_ns = self.runner.first_end_ns

    @property
    def done_ns(self) -> float:
        """All windows that end before this have been ingested."""
        return max(self._first_ns, self._next_ns)

    @property
    def due_ns(self) -> float:
        """When the first window falls due that is not done yet."""
        return self.done_ns + self._grace_ns

    def finish(self, last_ns: float) -> None:
        """Run up to the window that holds this time, and end."""
        self.runner.finish(int(last_ns))

    def finish_due(self, now_ns: int) -> None:
        """Run the windows that are due by now, and end."""
        self.runner.finish(now_ns - self._grace_ns - self.stage.interval.nanos)

    def _wait(self, window: Window) -> Sequence[str]:
        """Wait for all that comes before a window. Returns the stages that took too long."""
        end_ns = window[1] * self._unit_ns
        due_ns = end_ns + self._grace_ns

        def is_ready() -> bool:
            return all(
                stage.done_ns > end_ns or stage.ended or stage in self._given_up
                for stage in self._upstreams
            ) and all(source.next_ns >= due_ns for source in self._foreseen)

        # Who took too long is not waited for again before it has caught up.
        self._given_up = {stage for stage in self._given_up if stage.done_ns <= end_ns}
        if not is_ready():
            self._marks.wait(
                is_ready, self.config.lock_timeout, _GLANCE if self._foreseen else math.inf
            )
        behind = [stage for stage in self._upstreams if stage.done_ns <= end_ns]
        self._given_up.update(behind)
        return tuple(stage.stage.name for stage in behind)

    # What a runner asks of its sender

    @property
    def dropped(self) -> int:
        """None: whoever is too slow is waited for."""
        return 0

    def send(self, dataset: DataSet[Any], /) -> None:
        """Let the results of a window enter other data, and go to sinks.

        :raises ChannelClosed: if a sink has failed
        :raises Exception: whatever ``ingest`` raises
        """
        for route in self.stage.routes:
            self._ingest(route, dataset)
        self._next_ns = self.runner.next_end_ns
        self._marks.move()
        for writer in self._writers:
            writer.write(self.stage.name, dataset)

    def _ingest(self, route: Route, dataset: DataSet[Any]) -> None:
        assert route.ingest is not None
        while True:
            try:
                with route.into.write(self.config.lock_timeout) as target:
                    try:
                        route.ingest(target, dataset)
                    except Exception as error:
                        error.add_note(f"in the ingest of stage {self.stage.name!r}")
                        raise
                return
            except LockTimeout as error:
                if self._marks.stopped:
                    raise
                _logger.warning("%s waits on: %s", self.stage.name, error)

    def unbound(self) -> None:
        """Wait for sinks no longer."""
        for writer in self._writers:
            writer.unbound()

    def close(self) -> None:
        """The runner has ended."""
        self.ended = True
        self._marks.move()
        self._on_end()


class LiveSource:
    """A source with a thread that lets its rows enter the data.

    A row that comes at the end of a window or later waits until that window is done, so that what
    a window sees does not depend on how late it is.

    :param source: the source
    :param unit_ns: how many nanoseconds the unit of its timestamps has
    :param route: where its rows go
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
        marks: Watermarks,
        name: str,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._source = source
        self._marks = marks
        self._on_end = on_end
        self._let_go: dict[LiveStage, float] = {}  # those that took too long, and how far they were
        self._feed = Feed(source, unit_ns, route, 1)
        self._foreseen = source if isinstance(source, Foreseen) else None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.readers: Sequence[LiveStage] = ()
        self.ended: bool = False

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
            next_ns = math.nextafter(self._feed.last_ns or -math.inf, math.inf)
        return next_ns

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
        if callable(close):
            # A generator that another thread is in cannot be closed, and ends with its next row.
            with contextlib.suppress(ValueError):
                close()

    def join(self, timeout: float) -> bool:
        """Wait until it has ended. Returns whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while not self._marks.stopped and (next_ns := self._feed.fetch()) != NEVER:
                self._feed.ingest_before(self._limit(next_ns))
        except BaseException as error:
            error.add_note(f"in the source {self._source!r}")
            failure = error
        self._on_end(failure)
        self.ended = True
        self._marks.move()

    def _limit(self, next_ns: float) -> float:
        """Wait for the windows that come before the next row. Returns up to when rows may enter."""

        def ahead() -> list[LiveStage]:
            return [
                stage
                for stage in self.readers
                if stage.due_ns <= next_ns and not stage.ended
                if self._let_go.get(stage) != stage.due_ns
            ]

        if waited_for := ahead():
            timeout = max(stage.config.lock_timeout for stage in waited_for)
            self._marks.wait(lambda: not ahead(), timeout, math.inf)
            self._let_go.update({stage: stage.due_ns for stage in ahead()})
        due = [stage.due_ns for stage in self.readers if stage.due_ns > next_ns]
        return min(due, default=NEVER)
