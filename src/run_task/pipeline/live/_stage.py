"""A stage of a live pipeline: its runner, and where the runner's results go."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from run_task._window import Window
from run_task.data._protocol import Viewable
from run_task.errors import LockTimeout
from run_task.observe._log import Log
from run_task.pipeline._graph import AnyStage
from run_task.pipeline._route import Route
from run_task.pipeline.live._sink_thread import Writer
from run_task.pipeline.live._views import MOST, Kept, Views
from run_task.pipeline.live._watermarks import Patience, Watermarks
from run_task.runner._config import RunnerConfig
from run_task.runner._engine import Engine
from run_task.runner._timeline import Timeline
from run_task.tasks._dataset import DataSet
from run_task.time._clock import Clock

_log = Log(__name__)


class Arrivals(Protocol):
    """Rows that enter the data of a stage, at times that are known before."""

    @property
    def next_ns(self) -> float:
        """When the next row enters; all before have. Infinity: there are no more."""
        ...

    @property
    def frontier_ns(self) -> float:
        """When the latest row comes that is known of."""
        ...

    @property
    def ended(self) -> bool:
        """Whether there are no more, and that has been told."""
        ...


class LiveStage:
    """A stage with its runner. It stands in the place of the runner's sender and of its gate.

    All windows of a pipeline have an order: by when they are due, and at one time upstream first.
    That is the order in which a replay runs them. Live, windows of different stages may run at the
    same time, but where they share data, they see and change it in this order.

    :param stage: the stage
    :param config: how its runner behaves
    :param index: where it stands among the stages
    :param writers: the sinks of its results
    :param marks: how far all stages and sources are
    :param clock: where to read the time
    :param timeline: the time, which all stages share
    :param since_ns: the first window holds this time, in nanoseconds since the Unix epoch
    :param on_end: called when its runner has ended
    """

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        index: int,
        writers: Sequence[Writer],
        marks: Watermarks,
        clock: Clock,
        timeline: Timeline,
        since_ns: int | None,
        on_end: Callable[[], None],
    ) -> None:
        self.stage = stage
        self.config = config
        self.started: bool = False
        self.ended: bool = False
        self._index = index
        self._first_ns: float = -math.inf  # the end of the first window
        self._seen_ns: float = -math.inf  # the end of the window after the last that has its view
        self._done_ns: float = -math.inf  # the end of the window after the last that was ingested
        self._last_ns: float = math.inf  # the last window is to be the one that holds this time
        # Who else writes to what it reads; and who reads or writes what it writes.
        self._upstreams: Sequence[LiveStage] = ()
        self._readers: Sequence[LiveStage] = ()
        self._rivals: Sequence[LiveStage] = ()
        # Rows that say when they come: all, if the end of the run is told by them; and those that
        # enter what it reads or writes.
        self._rows: Sequence[Arrivals] = ()
        self._rows_read: Sequence[Arrivals] = ()
        self._rows_beside: Sequence[Arrivals] = ()
        self._writers = writers
        self._marks = marks
        self._read_patience = Patience(marks)
        self._write_patience = Patience(marks)
        self._view_patience = Patience(marks)
        self._on_end = on_end
        self._unit_ns = stage.interval.unit.nanos
        length_ns = config.window.nanos if config.window is not None else stage.interval.nanos
        self._overlap_ns = length_ns - stage.interval.nanos  # of a window with the one before
        self._grace_ns = config.grace_ns
        self._clock = clock
        self._views = Views(stage.data) if isinstance(stage.data, Viewable) else None
        self._hopeless = False  # so far behind that no more views are kept
        self._end_ns = 0  # of the window in hand
        self.engine = Engine(
            stage.tasks,
            stage.data,
            stage.interval,
            config,
            self,
            clock=clock,
            timeline=timeline,
            since_ns=since_ns,
            gate=self,
            rank=index,
        )

    def reads(self, data: object) -> bool:
        """Whether this is the data that it reads."""
        return self.stage.data is data

    def writes(self, data: object) -> bool:
        """Whether its results enter this data."""
        return any(route.leads_to(data) for route in self.stage.routes)

    def meet(
        self,
        stages: Sequence[LiveStage],
        rows: Sequence[tuple[Route, Arrivals]],
        ending: Sequence[Arrivals],
    ) -> None:
        """Learn who else there is.

        :param stages: all stages
        :param rows: the rows whose time is known before they come, and where they go
        :param ending: the rows after the last of which the run ends
        """
        self._rows = ending
        others = [stage for stage in stages if stage is not self]
        targets = [route.into for route in self.stage.routes]
        self._upstreams = [s for s in others if s.writes(self.stage.data)]
        self._readers = [s for s in others if any(map(s.reads, targets))]
        self._rivals = [s for s in others if any(map(s.writes, targets))]
        self._rows_read = [r for route, r in rows if route.leads_to(self.stage.data)]
        self._rows_beside = [r for route, r in rows if any(map(route.leads_to, targets))]

    def start(self) -> None:
        """Begin to run."""
        self.engine.start()
        self.started = True
        self._first_ns = self.engine.first_end_ns
        self._marks.move()  # those that were started before may be waiting to know that

    @property
    def due_ns(self) -> float:
        """When the first window falls due whose results are not ingested."""
        return self._due(max(self._first_ns, self._done_ns))

    @property
    def unseen_ns(self) -> float:
        """When the first window falls due that has no view of the data yet."""
        return self._due(max(self._first_ns, self._done_ns, self._seen_ns))

    @property
    def keeps_views(self) -> bool:
        """Whether its data has views that can be kept, so that nobody need wait for it to see."""
        return self._views is not None

    def keep_views(self, before_ns: float) -> None:
        """See to it that windows which are due before a time do not see what enters then.

        One that has no view yet gets its own, if the data has such as can be kept; for others,
        whoever lets something enter has to wait. What was to enter before is there.

        :param before_ns: the time, in nanoseconds since the Unix epoch
        """
        if self._views is None or not self.started or self.ended:
            return
        with self._views.mutex:
            limit_ns = min(before_ns, self._clock.time_ns() + 1)  # none before it is due
            while self.unseen_ns < limit_ns:
                end_ns = self.unseen_ns - self._grace_ns
                behind = self._missing(self.unseen_ns)
                if not self._views.keep(end_ns, [stage.stage.name for stage in behind]):
                    if self._rows:
                        return  # all rows are recordings', which can wait
                    if not self._hopeless:
                        self._hopeless = True
                        _log.warning(
                            "%r is %d windows behind: further ones may see what comes after them",
                            *(self, MOST),
                        )
                self._seen_ns = end_ns + self.stage.interval.nanos

    def _missing(self, due_ns: float) -> Sequence[LiveStage]:
        """Those whose results up to a time have not entered what it reads."""
        return [stage for stage in self._upstreams if stage.due_ns <= due_ns]

    def _due(self, end_ns: float) -> float:
        if self.ended and end_ns - self.stage.interval.nanos > self._last_ns:
            return math.inf  # there were to be no more
        return end_ns + self._grace_ns

    def finish(self, last_ns: int) -> None:
        """Run up to the window that holds this time, and end."""
        self._last_ns = last_ns
        self.engine.finish(last_ns)

    def finish_due(self, now_ns: int) -> None:
        """Run the windows that are due by now, and end."""
        self.finish(now_ns - self._grace_ns - self.stage.interval.nanos)

    # What a runner asks of its gate

    def wait(self, window: Window, /) -> Sequence[str] | None:
        """Wait for all that enters its data before a window, and until it is known whether there
        is a row as late as that. Returns the stages that took too long; None: do not run it."""
        self._end_ns = window[1] * self._unit_ns
        due_ns = self._end_ns + self._grace_ns
        start_ns = window[0] * self._unit_ns + self._overlap_ns

        def unsure() -> Sequence[Arrivals]:
            known = any(rows.frontier_ns >= start_ns for rows in self._rows)
            return () if known else self._rows

        def kept() -> Kept | None:
            return self._views.find(self._end_ns) if self._views is not None else None

        def awaited() -> Sequence[LiveStage | Arrivals]:
            left: list[LiveStage | Arrivals] = [rows for rows in unsure() if not rows.ended]
            if kept() is None:  # else all that comes before has come, or was given up by others
                left += (stage for stage in self._missing(due_ns) if not stage.ended)
                left += (rows for rows in self._rows_read if rows.next_ns < due_ns)
            return left

        glance = bool(self._rows or self._rows_read)
        late = self._read_patience.wait(awaited, self.config.upstream_timeout, glance=glance)
        view = kept()
        if view is not None:
            lacks = view.behind
        else:
            lacks = [stage.stage.name for stage in self._missing(due_ns)]
        if start_ns > self._last_ns or (self._marks.stopped and (lacks or awaited())):
            return None  # there was to be no such window; or it would not be what it should
        for one in late:
            _log.warning("%r goes on without %r, which is behind", self, one)
        return tuple(lacks)

    def read(self, timeout: float | None = None, /) -> AbstractContextManager[Any]:
        """Give a window its view of the data: its own, if something later has entered since."""
        if self._views is None:
            return self.stage.data.read(timeout)
        return contextlib.nullcontext(self._views.take(self._end_ns))

    def passed(self) -> None:
        """A window has its view of the data: what comes after it may enter."""
        next_ns = self.engine.next_end_ns
        self._hopeless = self._hopeless and self._seen_ns > next_ns
        self._seen_ns = max(self._seen_ns, next_ns)
        self._marks.move()

    def _wait_for_others(self, due_ns: int) -> None:
        """Wait for those who are to see or change what the results enter, before these do."""

        def before() -> Sequence[LiveStage | Arrivals]:
            me = due_ns, self._index
            return [
                *(s for s in self._rivals if (s.due_ns, s._index) < me and not s.ended),
                *(rows for rows in self._rows_beside if rows.next_ns < due_ns),
            ]

        def blind() -> Sequence[LiveStage]:
            return [s for s in self._readers if s.unseen_ns < due_ns and not s.ended]

        others = [self, *self._readers, *self._rivals]
        timeout = max(other.config.upstream_timeout for other in others)
        late = self._write_patience.wait(before, timeout, glance=bool(self._rows_beside))
        for reader in self._readers:
            reader.keep_views(due_ns)
        for one in (*late, *self._view_patience.wait(blind, timeout)):
            _log.warning("results of %r enter, although %r is behind", self, one)

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
        if self.stage.routes:
            self._wait_for_others(dataset.window[1] * self._unit_ns + self._grace_ns)
        for route in self.stage.routes:
            with contextlib.ExitStack() as opened:
                route.enter(self._open(route, opened), dataset)
        self._done_ns = self.engine.next_end_ns
        self._marks.move()
        for writer in self._writers:
            writer.write(self.stage.name, dataset)

    def _open(self, route: Route, opened: contextlib.ExitStack) -> Any:
        """What the results enter, however long somebody else holds it: else they would be lost."""
        while True:
            try:
                return opened.enter_context(route.into.write(self.config.data_timeout))
            except LockTimeout as error:
                if self.ended:  # given up by who shuts it down
                    raise
                _log.warning("%r waits on, with its results: %s", self, error)

    def unbound(self) -> None:
        """Wait for sinks no longer, if the whole pipeline ends: stages may share them."""
        if self._marks.stopped:
            for writer in self._writers:
                writer.unbound()

    def close(self) -> None:
        """The runner has ended."""
        self.ended = True
        if self._views is not None:
            self._views.clear()
        self._marks.move()
        self._on_end()

    def __repr__(self) -> str:
        return f"stage {self.stage.name!r}"
