"""What a source's rows wait for before they enter shared data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from run_task.observe._log import Log
from run_task.pipeline._order import NEVER, Mark, Place, RowLimits, SourceMark, StageMark
from run_task.pipeline.live._coordinator import Coordinator, Turn
from run_task.pipeline.live._early_views import EarlyViews

_log = Log(__name__)

_ASK: RowLimits = RowLimits(-NEVER, -NEVER, firm=True)


class RowGate:
    """Lets the rows of one source enter, each in its order.

    What it has found out holds until a row comes that is later than that: so most rows cost a
    comparison, which the thread that reads the source makes itself.

    :param mark: how far the source is
    :param upstream_timeout: how many seconds to wait for others
    :param early_views: those that may be taken ahead, of some data for some stage
    :param coordinator: what it waits by
    """

    def __init__(
        self,
        mark: SourceMark,
        upstream_timeout: float,
        early_views: Callable[[tuple[StageMark, Place]], EarlyViews | None],
        coordinator: Coordinator,
    ) -> None:
        self._mark = mark
        self.timeout: float = upstream_timeout
        """How many seconds to wait for others."""
        self._early_views = early_views
        self._coordinator = coordinator
        self._writers_turn = Turn(coordinator)
        self._readers_turn = Turn(coordinator)
        self._found = _ASK
        self._found_at = 0  # after how many moves
        self.in_order_ns: float = -NEVER
        """A row that is in order may enter if it arrives before this; else :meth:`wait` first."""
        self.late_ns: float = -NEVER
        """The same of a row that is out of order."""

    def wait(self, arrival_ns: int, *, late: bool) -> float:
        """Wait until a row may enter.

        :param arrival_ns: when it arrives
        :param late: whether it is out of order
        :return: it may enter, and later ones that arrive before this, if they are in order or it
            is not; before all times, if it is not to enter, since the run was given up meanwhile
        """
        found = self._found
        if self._found_at == self._coordinator.moves:  # nothing has moved since
            limit_ns = found.late_ns if late else found.in_order_ns
            if arrival_ns < limit_ns:
                return limit_ns
        self._wait(arrival_ns, late)
        if self._coordinator.released and any(
            self._coordinator.before_row(self._mark, arrival_ns, late=late)
        ):
            return -NEVER
        arranged = self._coordinator.arranged
        self._found_at = self._coordinator.moves
        found = self._found = self._coordinator.row_limits(self._mark, arrival_ns)
        if found.firm:
            self.in_order_ns, self.late_ns = found.in_order_ns, found.late_ns
        else:
            self.in_order_ns = self.late_ns = -NEVER
        if self._coordinator.arranged != arranged:
            self.forget()
        limit_ns = found.late_ns if late else found.in_order_ns
        return max(limit_ns, arrival_ns + 1)  # this one has waited, even if not for all

    def forget(self) -> None:
        """The order is another one: look anew. A row that is entering now comes before all windows
        of what was added."""
        self._found = _ASK
        self.in_order_ns = self.late_ns = -NEVER

    def _wait(self, arrival_ns: int, late: bool) -> None:
        mark, coordinator = self._mark, self._coordinator
        before_ns = arrival_ns + 1 - mark.enters.holds_end

        def writers() -> Sequence[Mark]:
            return coordinator.before_row(mark, arrival_ns, late=late).writers

        def readers() -> Sequence[StageMark]:
            blind = coordinator.before_row(mark, arrival_ns, late=late).readers
            took = False
            for stage in blind:
                early_views = self._early_views((stage, mark.enters))
                if early_views is not None:
                    early_views.take_before(before_ns)
                    took = True
            if not took:
                return blind
            return coordinator.before_row(mark, arrival_ns, late=late).readers

        def unseen() -> bool:
            blind = coordinator.before_row(mark, arrival_ns, late=late).readers
            return any(self._early_views((stage, mark.enters)) for stage in blind)

        def due_ns() -> float:
            """A row may be ahead of the clock: then windows can have their views only later."""
            stages = coordinator.before_row(mark, arrival_ns, late=late).readers
            views = [
                coordinator.unseen_ns(stage, mark.enters)
                for stage in stages
                if self._early_views((stage, mark.enters))
            ]
            return min(views, default=NEVER)

        if coordinator.holding:
            coordinator.stand_by_with_row(arrival_ns, unseen)
        behind: list[Mark] = [*self._writers_turn.wait(writers, self.timeout)]
        behind += self._readers_turn.wait(readers, self.timeout, due_ns)
        for one in behind:
            _log.warning("rows of %r enter, although %r is behind", mark, one)
