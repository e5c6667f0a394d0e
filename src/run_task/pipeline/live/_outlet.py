"""Where the results of a stage go: into other data, in their order, and to sinks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from run_task.errors import ChannelClosed, LockTimeout, RunTaskError
from run_task.observe._log import Log
from run_task.pipeline._given import GivenWindows
from run_task.pipeline._lacking import Lacking
from run_task.pipeline._order import Mark, Place, StageMark
from run_task.pipeline._route import Route
from run_task.pipeline.live._coordinator import Coordinator, Turn
from run_task.pipeline.live._early_views import EarlyViews
from run_task.pipeline.live._gate import WindowGate
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.tasks._keyed import AnyDataSet

_log = Log(__name__)


class StageOutlet:
    """It stands in the place of the sender of a stage's runner.

    :param mark: how far the stage is
    :param routes: the ways of its results into other data
    :param sinks: the sinks that they go to
    :param unit_ns: how many nanoseconds the unit of its windows has
    :param data_timeout: how many seconds to wait for the data before that is logged
    :param upstream_timeout: how many seconds to wait for others
    :param early_views: those that may be taken ahead, of some data for some stage
    :param coordinator: what it waits by
    :param gate: what the stage's windows have passed
    :param given: the windows that have been given to those who read what the results enter
    :param lacking: tells those what the results lack
    :param on_close: called when nothing more comes
    """

    __slots__ = (
        "_coordinator",
        "_data_timeout",
        "_early_views",
        "_gate",
        "_given",
        "_lacking",
        "_mark",
        "_on_close",
        "_readers_turn",
        "_routes",
        "_unit_ns",
        "_writers_turn",
        "sinks",
        "timeout",
    )

    def __init__(
        self,
        mark: StageMark,
        routes: Sequence[Route],
        sinks: Sequence[SinkThread],
        unit_ns: int,
        data_timeout: float,
        upstream_timeout: float,
        early_views: Callable[[tuple[StageMark, Place]], EarlyViews | None],
        coordinator: Coordinator,
        gate: WindowGate,
        given: Sequence[GivenWindows],
        lacking: Lacking,
        on_close: Callable[[], None],
    ) -> None:
        self._mark = mark
        self._routes = routes
        self.sinks: Sequence[SinkThread] = sinks
        """Where the results of the next window go."""
        self._unit_ns = unit_ns
        self._data_timeout = data_timeout
        self.timeout: float = upstream_timeout
        """How many seconds to wait for others."""
        self._early_views = early_views
        self._coordinator = coordinator
        self._gate = gate
        self._given = given
        self._lacking = lacking
        self._on_close = on_close
        self._writers_turn = Turn(coordinator)
        self._readers_turn = Turn(coordinator)

    def connect(self, routes: Sequence[Route], given: Sequence[GivenWindows]) -> None:
        """Let the results of the next window take these routes.

        :param routes: the ways of its results into other data
        :param given: the windows that have been given to those who read that
        """
        self._given = given
        self._routes = routes

    @property
    def dropped(self) -> int:
        """None: a reader that is too slow is waited for."""
        return 0

    def send(self, dataset: AnyDataSet, /) -> None:
        """Let the results of a window enter other data, and go to sinks.

        :raises ChannelClosed: if a sink has failed
        :raises Exception: whatever ``ingest`` raises; a ChannelClosed as a RunTaskError's cause
        """
        if routes := self._routes:
            end_ns = dataset.window[1] * self._unit_ns
            self._wait_for_others(end_ns)
            for route in routes:
                self._enter(route, dataset)
            for given in self._given:
                given.enter_results(end_ns)
            if behind := dataset.behind:
                self._lacking.tell(end_ns, behind)
        mark, coordinator, sinks = self._mark, self._coordinator, self.sinks
        mark.sending = bool(sinks)  # before others see that it is done
        coordinator.advance_done(mark, self._gate.next_end_ns)
        for sink in sinks:
            sink.write(mark.name, dataset)
        mark.sending = False
        if coordinator.holding:
            coordinator.look_again()

    def _enter(self, route: Route, dataset: AnyDataSet) -> None:
        try:
            with contextlib.ExitStack() as opened:
                route.enter(self._open(route, opened), dataset)
        except ChannelClosed as error:
            # Of a channel of the program's own: to the engine it would say that nobody listens.
            raise RunTaskError(f"results of {self._mark!r} could not enter: {error}") from error

    def _wait_for_others(self, end_ns: int) -> None:
        """Wait for those who are to see or change what the results enter, before these do."""
        mark, coordinator = self._mark, self._coordinator

        def writers() -> Sequence[Mark]:
            return coordinator.before_results(mark, end_ns).writers

        def readers() -> Sequence[StageMark]:
            return coordinator.before_results(mark, end_ns).readers

        late: list[Mark] = [*self._writers_turn.wait(writers, self.timeout)]
        for reader in readers():
            for place in mark.shows:
                early_views = self._early_views((reader, place))
                if early_views is not None:
                    early_views.take_before(end_ns + mark.grace_ns)
        late += self._readers_turn.wait(readers, self.timeout)
        for one in late:
            _log.warning("results of %r enter, although %r is behind", mark, one)

    def _open(self, route: Route, opened: contextlib.ExitStack) -> Any:
        """What the results enter, however long somebody else holds it: else they would be lost."""
        while True:
            try:
                return opened.enter_context(route.into.write(self._data_timeout))
            except LockTimeout as error:
                if self._mark.ended:  # given up by who shuts it down
                    raise
                _log.warning("%r waits on, with its results: %s", self._mark, error)

    def unbound(self) -> None:
        """Wait for sinks no longer, if the whole pipeline ends: stages may share them."""
        if self._coordinator.released:
            for sink in self.sinks:
                sink.unbound()

    def close(self) -> None:
        """The runner has ended."""
        self._coordinator.advance_stage(self._mark, ended=True)
        for place in self._mark.reads:
            early_views = self._early_views((self._mark, place))
            if early_views is not None:
                early_views.clear()
        self._on_close()
