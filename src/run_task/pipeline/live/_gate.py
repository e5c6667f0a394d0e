"""What a stage's windows wait for before they begin, and the view that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from run_task.observe._log import Log
from run_task.pipeline._edges import Edges
from run_task.pipeline._lacking import Lacking, together
from run_task.pipeline._order import Mark, StageMark
from run_task.pipeline.live._catch_up import CatchUp
from run_task.pipeline.live._coordinator import Coordinator, Turn
from run_task.pipeline.live._lags import Lags
from run_task.pipeline.live._stage_views import StageViews
from run_task.runner._engine import LEFT_OUT, PAUSED, LeftOut

_log = Log(__name__)


class WindowGate:
    """The gate of a stage's runner.

    :param mark: how far the stage is
    :param views: what its windows are given to see
    :param unit_ns: how many nanoseconds the unit of its windows has
    :param edges: with which window the stage begins
    :param upstream_timeout: how many seconds to wait for others
    :param coordinator: what it waits by
    :param catch_up: lets sources run after an oversleep
    :param lags: knows which sources are behind
    :param lacking: knows what the results lack that the stage reads
    """

    __slots__ = (
        "_behind",
        "_catch_up",
        "_coordinator",
        "_edges",
        "_end_ns",
        "_lacking",
        "_lags",
        "_mark",
        "_overlap_ns",
        "_timeout",
        "_turn",
        "_unit_ns",
        "_views",
        "_waits_for_nobody",
        "next_end_ns",
        "read",
    )

    def __init__(
        self,
        mark: StageMark,
        views: StageViews,
        unit_ns: int,
        edges: Edges,
        upstream_timeout: float,
        coordinator: Coordinator,
        catch_up: CatchUp,
        lags: Lags,
        lacking: Lacking,
    ) -> None:
        self._catch_up = catch_up
        self._lags = lags
        self._lacking = lacking
        self._mark = mark
        self._views = views
        self.read: Final = views.read
        """Gives a window its view of the data: its own, if something later has entered since."""
        self._unit_ns = unit_ns
        self._edges = edges
        self._timeout = upstream_timeout
        self._coordinator = coordinator
        self._turn = Turn(coordinator)
        self._waits_for_nobody = False  # until the order is known
        self._overlap_ns = mark.windows.overlap_ns
        self._behind: Sequence[str] = ()  # what the window in hand lacks
        self._end_ns = 0  # of that, if it lacks something
        self.next_end_ns: int = 0
        """The end of the window after the one in hand, in nanoseconds since the Unix epoch."""

    def arranged(self) -> None:
        """The order is another one."""
        self._waits_for_nobody = self._coordinator.waits_for_nobody(self._mark)
        if self._lacking.noted:  # by who has been removed
            self._waits_for_nobody = False

    def catch_up(self, due_ns: int, /) -> None:
        """Let sources run until they block: their rows are there, and have yet to be read."""
        # Rows that come after a window wait for it where its view would not end with it.
        self._catch_up.wait(due_ns, each=not self._mark.bounded)

    def wait(self, start: int, end: int, next_end_ns: int, /) -> Sequence[str] | LeftOut | None:
        """Wait for all that enters its data before a window, and until it is known whether there
        is a row as late as that. Returns the stages that took too long, and what the results lack
        that it holds; None: run neither it nor any after it."""
        self._behind = ()
        mark, coordinator = self._mark, self._coordinator
        if self._catch_up.looks:
            self._catch_up.wait_if_stood_still(each=not mark.bounded)
        end_ns = end * self._unit_ns
        start_ns = start * self._unit_ns
        # Before it is looked whether it is held: rows may be, for long.
        if self._lags.any and not self._wait_for_rows(end_ns):
            return None
        if coordinator.holding:
            coordinator.stand_by(mark, end_ns)
        first_end_ns = self.next_end_ns or end_ns  # of several windows in one, the first counts
        self.next_end_ns = next_end_ns
        if not self._waits_for_nobody or coordinator.early:
            return self._wait_for_others(first_end_ns, start_ns, end_ns)
        return None if first_end_ns > mark.last_ns else self._left_out(start_ns, end_ns) or ()

    def _wait_for_rows(self, end_ns: int) -> bool:
        """Wait for sources that are behind. Returns whether what they owe may be there."""
        mark, coordinator = self._mark, self._coordinator
        due_ns = end_ns + mark.grace_ns
        return self._lags.wait(lambda: coordinator.owed(mark, due_ns))

    def _wait_for_others(
        self, first_end_ns: int, start_ns: int, end_ns: int
    ) -> Sequence[str] | LeftOut | None:
        """As :meth:`wait`, once the window is in hand.

        :param first_end_ns: its end, or that of the first of several in one
        :param start_ns: its start
        :param end_ns: its end
        """
        mark, coordinator = self._mark, self._coordinator
        # Of several windows in one, fresh is what is so in the first.
        if self._overlap_ns is not None:
            fresh_ns = start_ns + self._overlap_ns
        else:
            fresh_ns = mark.windows.fresh_ns(first_end_ns)

        def before() -> Sequence[Mark]:
            return coordinator.before_window(mark, fresh_ns, end_ns)

        def behind() -> Sequence[Mark]:
            return coordinator.behind_window(mark, fresh_ns, end_ns)

        late = self._turn.wait(before, self._timeout, behind=behind)
        missing = self._views.missing(end_ns)
        if first_end_ns > mark.last_ns or (coordinator.released and (missing or before())):
            return None  # there was to be no such window; or it would not be what it should
        if (left_out := self._left_out(start_ns, end_ns)) is not None:
            return left_out
        for one in late:
            _log.warning("%r goes on without %r, which is behind", mark, one)
        lacked = self._lacking.within(start_ns, end_ns)
        if missing or lacked:
            self._end_ns, self._behind = end_ns, together(missing, lacked)
        return self._behind

    def _left_out(self, start_ns: int, end_ns: int) -> LeftOut | None:
        """Begin the window in hand, unless it is given without a view: no row has come that it
        holds, which ended before the first one's begins; or it is not run, since its stage is
        paused."""
        views, next_ns = self._views, self.next_end_ns
        if end_ns < self._edges.given_from_ns and views.leave_out(start_ns, end_ns, next_ns):
            left_out = LEFT_OUT
        elif views.begin(start_ns, end_ns, next_ns):
            return None
        else:
            left_out = PAUSED
        self.done()
        return left_out

    def done(self) -> None:
        """A window gives nothing: what comes after its results may go on."""
        if self._behind:
            self._lacking.tell(self._end_ns, self._behind)
        self._coordinator.advance_done(self._mark, self.next_end_ns)
