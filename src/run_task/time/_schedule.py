"""Which windows are due: a pure state machine, without a clock and without a thread."""

from __future__ import annotations

import enum
from collections.abc import Callable

from run_task._window import Window
from run_task.errors import ConfigError
from run_task.observe._format import brief


class MissedTick(enum.Enum):
    """What to do when, at the time one window is handed out, the next ones are due already.

    Drawn for a period of 300; ``|`` is when a window falls due, ``work`` is a tick that took too
    long. The numbers are the ends of the windows.
    """

    BURST = "burst"
    """Hand out every window, one after another, until none is due.

    ::

        due    |300        |600        |900        |1200       |1500
        given  |300| work at 951 ->|600|900|       |1200       |1500
    """

    DELAY = "delay"
    """Hand out every window, but leave at least one period between two: the lag stays.

    ::

        due    |300        |600        |900        |1200       |1500
        given  |300| work at 951 ->|600            |900 (1251) |1200 (1551)
    """

    SKIP = "skip"
    """Hand out the oldest window that is due, leave out the rest, and go on with the grid.

    ::

        due    |300        |600        |900        |1200       |1500
        given  |300| work at 951 ->|600            |1200       |1500      900 is skipped
    """

    COALESCE = "coalesce"
    """Hand out one window that covers all that are due.

    ::

        due    |300        |600        |900        |1200       |1500
        given  |300| work at 951 ->|[300, 900)     |1200       |1500
    """


class _OnGrid:
    """How far a schedule has come.

    :param start: when the first window falls due; its end
    :param missed: what to do with windows that are overdue
    """

    __slots__ = ("_lag", "_missed", "_skipped", "end")

    def __init__(self, start: int, missed: MissedTick) -> None:
        self._missed = missed
        self.end: int = start
        """The end of the next window, or of the first of those that ``COALESCE`` will put in it."""
        # How long after its end it is handed out: more than 0 once DELAY put it off.
        self._lag: int = 0
        self._skipped: int = 0

    @property
    def deadline(self) -> int:
        """When the next window falls due, in the schedule's unit."""
        return self.end + self._lag

    @property
    def skipped(self) -> int:
        """How many windows ``SKIP`` has left out."""
        return self._skipped


class Schedule(_OnGrid):
    """Hands out windows of one period each, on a grid, every one exactly once and in order.

    Time is an int in any one unit. With ``BURST``, ``DELAY`` and ``COALESCE`` the windows tile
    time: each starts where the last one ended, whatever the times of the polls. ``SKIP`` leaves
    gaps, and counts them in :attr:`skipped`. A poll with an earlier time than the last is
    harmless: nothing is handed out twice.

    :param period: the length of a window, at least 1
    :param start: when the first window falls due; its end
    :param missed: what to do with windows that are overdue
    :raises ConfigError: if the period is not a positive int, the start no int, or missed no
        MissedTick
    """

    __slots__ = ("_period",)

    end: int  # told again to those who ask for the types of this class alone

    def __init__(self, period: int, start: int, missed: MissedTick = MissedTick.BURST) -> None:
        if type(period) is not int or period < 1:
            raise ConfigError(f"a schedule's period is a positive int, not {brief(period)}")
        if type(start) is not int:
            raise ConfigError(f"a schedule's start is an int, not {brief(start)}")
        if not isinstance(missed, MissedTick):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            choices = ", ".join(map(str, MissedTick))
            raise ConfigError(f"a schedule's missed={missed!r}: it is one of {choices}")
        super().__init__(start, missed)
        self._period = period

    def poll(self, now: int) -> Window | None:
        """Hand out a window that is due, one a call.

        :param now: the time, in the schedule's unit
        :return: the window; None if none is due
        """
        late = now - self.end - self._lag
        return None if late < 0 else Window(*self.take(late))

    def step(self) -> int:
        """Hand out the next window, for callers that know that it is due and that ``missed`` makes
        no difference to it: less than a period late, or with ``BURST``.

        :return: its end
        """
        end = self.end
        self.end = end + self._period
        return end

    def take(self, late: int) -> tuple[int, int]:
        """Hand out the window that is due, for callers that know that one is.

        :param late: how long ago it fell due, in the schedule's unit; not negative
        :return: its start and end; a plain tuple, which takes a third of the time of a
            :class:`Window`
        """
        period = self._period
        end = self.step()
        if late < period or self._missed is MissedTick.BURST:
            return end - period, end
        if self._missed is MissedTick.DELAY:
            self._lag += late
            return end - period, end
        more = late // period  # windows that are due besides this one
        self.end += more * period
        if self._missed is MissedTick.COALESCE:
            return end - period, end + more * period
        self._skipped += more
        return end - period, end


class GridSchedule(_OnGrid):
    """As :class:`Schedule`, for windows that end at the edges of a grid, and start anywhere.

    :param after: gives the first edge after one
    :param start: gives the start of the window that ends at an edge
    :param first: the first edge
    :param missed: what to do with windows that are overdue
    """

    __slots__ = ("_after", "_start")

    def __init__(
        self,
        after: Callable[[int], int],
        start: Callable[[int], int],
        first: int,
        missed: MissedTick,
    ) -> None:
        super().__init__(first, missed)
        self._after = after
        self._start = start

    def step(self) -> int:
        """As :meth:`Schedule.step`."""
        end = self.end
        self.end = self._after(end)
        return end

    def take(self, late: int) -> tuple[int, int]:
        """As :meth:`Schedule.take`."""
        end = self.end
        start = self._start(end)
        following = self._after(end)
        if self._missed is MissedTick.DELAY:
            self._lag += late if late >= following - end else 0
        elif self._missed is not MissedTick.BURST:
            now = end + late  # there is no lag
            while following <= now:
                if self._missed is MissedTick.COALESCE:
                    end = following
                else:
                    self._skipped += 1
                following = self._after(following)
        self.end = following
        return start, end
