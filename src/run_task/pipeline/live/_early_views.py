"""Views of the data for windows that are due while their stage is busy with an earlier one."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from run_task.data._protocol import Viewable
from run_task.observe._log import Log
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._order import NEVER, Place, StageMark
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._lags import Lags
from run_task.time._clock import Clock

_log = Log(__name__)

MOST: Final = 1024
"""How many are taken ahead for a stage that is behind. Each holds on to rows that others may have
no more use for."""


class PassedOver(enum.Enum):
    """What is said of a window that is passed over."""

    PASSED_OVER = "passed over"


PASSED_OVER: Final = PassedOver.PASSED_OVER


class EarlyView(NamedTuple):
    """A view that was taken for a window before it began."""

    end_ns: float
    """The end of the window, in nanoseconds since the Unix epoch."""

    view: Any
    """The data as it was when something later was about to enter."""

    missing: Sequence[str]
    """The stages whose results it lacks."""

    paused: bool = False
    """Whether there is none, since the window is passed over: its stage was paused when it was
    due."""


class EarlyViews:
    """The early views of one input of a stage, by window. Others take them, and its runner uses
    them.

    :param stage: how far the stage is
    :param place: the input, as far as the order is concerned
    :param data: the input
    :param windows: those of its windows that have been given
    :param given: those of all who read the data
    :param coordinator: keeps the marks
    :param clock: the time of the run
    :param lags: knows which sources are behind
    :param all_recordings: whether all rows that enter are recordings', which can wait
    """

    __slots__ = (
        "_all_recordings",
        "_clock",
        "_coordinator",
        "_data",
        "_given",
        "_lags",
        "_place",
        "_stage",
        "_taken",
        "_windows",
        "begun_ns",
        "lock",
        "overrun",
    )

    def __init__(
        self,
        stage: StageMark,
        place: Place,
        data: Viewable[Any],
        windows: ReaderWindows,
        given: GivenWindows,
        coordinator: Coordinator,
        clock: Clock,
        lags: Lags,
        *,
        all_recordings: bool,
    ) -> None:
        self._stage = stage
        self._place = place
        self._data = data
        self._windows = windows
        self._given = given
        self._coordinator = coordinator
        self._clock = clock
        self._lags = lags
        self._all_recordings = all_recordings
        self._taken: deque[EarlyView] = deque()
        self.overrun: bool = False
        """Whether the stage is so far behind that no more are taken."""
        self.begun_ns: float = -NEVER
        """The end of the window that has begun: it is run, whatever is paused from then on."""
        self.lock: Final = threading.RLock()
        """Held from looking which window has no view to taking one for it. The coordinator's lock
        is taken inside it, never the other way round."""

    @property
    def _feeds_itself(self) -> bool:
        """Whether what a window is to see is known once the one before has given its results."""
        return any(entered is self._place for entered, _ in self._stage.enters)

    def take_before(self, before_ns: float) -> None:
        """Take the views of windows that are due before a time: they must not see what enters then.

        What was to enter before is there. None is taken for a stage that has not started: which
        window is its first is not known, and who would let something enter waits for it.

        :param before_ns: the time, in nanoseconds since the Unix epoch
        """
        stage, place, coordinator = self._stage, self._place, self._coordinator
        if self._lags.any:
            due_ns = min(before_ns - 1, self._clock.time_ns())
            if not self._lags.wait(
                lambda: (
                    coordinator.owed(stage, due_ns, place)
                    if -NEVER < coordinator.unseen_ns(stage, place) <= due_ns
                    else ()
                )
            ):
                return  # windows that are to see more are not run
        with self.lock:
            limit_ns = min(before_ns, self._clock.time_ns() + 1)  # none before it is due
            if self._feeds_itself:
                limit_ns = min(limit_ns, coordinator.due_ns(stage) + 1)
            while (
                not stage.ended
                and -NEVER < (due_ns := coordinator.unseen_ns(stage, place)) < limit_ns
            ):
                end_ns = due_ns - stage.grace_ns
                if stage.paused and end_ns != self.begun_ns and len(self._taken) < MOST:
                    self._taken.append(EarlyView(end_ns, None, (), paused=True))
                elif len(self._taken) < MOST:
                    missing = [other.name for other in coordinator.missing(stage, end_ns, place)]
                    view = self._view(stage.windows.start_ns(end_ns), end_ns)
                    self._taken.append(EarlyView(end_ns, view, missing))
                elif self._all_recordings:
                    return
                elif not self.overrun:
                    self.overrun = True
                    _log.warning(
                        "%s is %d windows behind: further ones may %s",
                        *(stage, MOST),
                        "lack rows that pass out of retention"
                        if place.bounded
                        else "see what comes after them",
                    )
                coordinator.advance_stage(
                    stage, seen_ns=stage.windows.after_ns(end_ns), place=place
                )

    def find(self, end_ns: float) -> EarlyView | None:
        """The one that was taken for a window; those for windows before it are let go of."""
        with self.lock:  # a runner that was given up may come back while all are let go of
            while self._taken and self._taken[0].end_ns < end_ns:
                self._taken.popleft()
            return self._taken[0] if self._taken and self._taken[0].end_ns == end_ns else None

    def begin(self, start_ns: float, end_ns: float) -> Any:
        """Begin a window, unless it is passed over, since its stage is paused, or was when somebody
        wanted to know what it sees.

        :return: what it is to see, the view that was taken for it, or the data as it is now; or
            ``PASSED_OVER``
        """
        with self.lock:
            early_view = self.pop(end_ns) if self._taken else None
            if early_view is None:
                if self._stage.paused:
                    return PASSED_OVER
                self.begun_ns = end_ns
                return self._view(start_ns, end_ns)
            if early_view.paused:
                return PASSED_OVER
            if self._stage.paused:
                self._given.take_back(self._windows, start_ns, end_ns)
                return PASSED_OVER
            return early_view.view

    def pop(self, end_ns: float) -> EarlyView | None:
        """As :meth:`find`, and it is let go of."""
        with self.lock:
            early_view = self.find(end_ns)
            if early_view is not None:
                self._taken.popleft()
            return early_view

    def is_paused(self, end_ns: float) -> bool:
        """Whether it was noted that a window is passed over. Under the lock."""
        if not self._taken:
            return False
        early_view = self.find(end_ns)
        return early_view is not None and early_view.paused

    def take_back(self, start_ns: float, end_ns: float) -> None:
        """Let go of the view of a window that is passed over: no row is late for it."""
        early_view = self.pop(end_ns)
        if early_view is not None and not early_view.paused:
            self._given.take_back(self._windows, start_ns, end_ns)

    def _view(self, start_ns: float, end_ns: float) -> Any:
        with self._given.lock:  # a row is in the view of the window, or late for it
            self._given.note(self._windows, start_ns, end_ns)
            return self._data.view()

    def caught_up(self, next_ns: float) -> None:
        """The stage's windows before this end have their views."""
        with self.lock:
            self.overrun = self._stage.seen[self._place] > next_ns

    def clear(self) -> None:
        """Let go of all."""
        with self.lock:
            self._taken.clear()
