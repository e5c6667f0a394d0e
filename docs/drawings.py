"""The timelines of the pages under Explanation: ``python docs/drawings.py`` draws them.

They stand in ``docs/images``, and a test sees to it that they are as this draws them. What can be
asked of the library, such as which windows are due, is asked of it.
"""

from __future__ import annotations

import enum
import html
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from run_task import CalendarInterval, MissedTick, Schedule, TaskInterval, TimeUnit

IMAGES: Final = Path(__file__).parent / "images"

_WIDTH: Final = 760.0
_LANE: Final = 38.0
_BAR: Final = 22.0
_AXIS: Final = 22.0
_TOP: Final = 12.0

_STYLE: Final = (
    # A page that is dark by its own button says so by color-scheme, which an image goes by, too.
    "svg{--ink:#24292f;--muted:#6b7280;--line:#c3c9d1;--window:#cfe2fb;--work:#fbe6bf;"
    "--wait:#e5e7eb;--good:#cdebd3;--bad:#f8cdcd}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e3e6ea;--muted:#9aa3af;--line:#4b5563;"
    "--window:#264a78;--work:#6b4f16;--wait:#374151;--good:#1f5130;--bad:#742f2f}}"
    "text{fill:var(--ink);font:12px system-ui,-apple-system,Segoe UI,DejaVu Sans,sans-serif}"
    ".muted{fill:var(--muted);font-size:11px}.name{font-weight:600}.mid{text-anchor:middle}"
    "rect{stroke:var(--muted);stroke-width:.8}line{stroke:var(--line)}"
    ".flag{stroke:var(--muted);stroke-dasharray:4 3}.dot{fill:var(--ink)}"
    ".move{fill:none;stroke:var(--ink)}"
)


class Kind(enum.Enum):
    """What a bar stands for. Its value is the colour's name."""

    WINDOW = "window"
    WORK = "work"
    WAIT = "wait"
    GOOD = "good"
    BAD = "bad"


class Timeline:
    """Lanes from top to bottom, and time from left to right.

    :param title: what is drawn, for those who cannot see it
    :param span: the first and the last time that is drawn
    :param lanes: what stands before each lane
    :param left: how many pixels that takes
    """

    def __init__(
        self, title: str, span: tuple[float, float], lanes: Sequence[str], left: float = 130.0
    ) -> None:
        self._title = title
        self._from, self._to = span
        self._left = left
        self._top = _TOP
        self._lanes = len(lanes)
        self._bottom = 4.0
        self._below: list[str] = []
        self._drawn: list[str] = []
        self._names = lanes

    def flag(self, at: float, text: str, lanes: tuple[int, int] | None = None) -> None:
        """A dashed line down through lanes, with a word above the first of them."""
        first, last = lanes or (0, self._lanes - 1)
        if first == 0:
            self._top = _TOP + 18.0
        x, top = self._x(at), self._y(first) - _LANE / 2
        self._below.append(_line(x, top, x, self._y(last) + _LANE / 2, "flag"))
        self._drawn.append(_text(x, top - 5, text, "muted mid"))

    def axis(self, labels: Mapping[float, str]) -> None:
        """Lines down through all lanes, and what is written below. Put it after the flags."""
        self._bottom = _AXIS
        bottom = self._y(self._lanes - 1) + _LANE / 2
        for at, label in labels.items():
            x = self._x(at)
            self._below.append(_line(x, self._y(0) - _LANE / 2, x, bottom))
            self._drawn.append(_text(x, bottom + 15, label, "muted mid"))

    def bar(self, lane: int, start: float, end: float, kind: Kind, text: str = "") -> None:
        """A bar from one time to another, with a word in it."""
        x, width = self._x(start), self._x(end) - self._x(start)
        self._drawn.append(
            f'<rect x="{x:.1f}" y="{self._y(lane) - _BAR / 2:.1f}" width="{width:.1f}" '
            f'height="{_BAR:.0f}" rx="3" style="fill:var(--{kind.value})"/>'
        )
        if text:
            self._drawn.append(_text(x + width / 2, self._y(lane) + 4, text, "mid"))

    def dot(self, lane: int, at: float) -> None:
        """A row."""
        self._drawn.append(
            f'<circle class="dot" cx="{self._x(at):.1f}" cy="{self._y(lane):.1f}" r="3.5"/>'
        )

    def move(self, lane: int, start: float, end: float) -> None:
        """A curved arrow, from one time of a lane to another."""
        a, b, y = self._x(start), self._x(end), self._y(lane) - 4
        self._drawn.append(
            f'<path class="move" d="M{a:.1f} {y:.1f}Q{(a + b) / 2:.1f} {y - 20:.1f} {b:.1f} {y:.1f}'
            f'm0 -7v7h7"/>'
        )

    def down(self, at: float, first: int, last: int) -> None:
        """A straight arrow, from one lane down to another."""
        x, y = self._x(at), self._y(last) - _BAR / 2
        self._drawn.append(
            f'<path class="move" d="M{x:.1f} {self._y(first) + _BAR / 2:.1f}V{y:.1f}'
            f'm-4 -6l4 6l4 -6"/>'
        )

    def note(self, lane: int, at: float, text: str) -> None:
        """A few words beginning at a time."""
        self._drawn.append(_text(self._x(at), self._y(lane) + 4, text, "muted"))

    def __str__(self) -> str:
        height = self._y(self._lanes - 1) + _LANE / 2 + self._bottom
        names = [_text(0, self._y(lane) + 4, name, "name") for lane, name in enumerate(self._names)]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" '
            f'width="{_WIDTH:.0f}" height="{height:.0f}" role="img">'
            f"<title>{html.escape(self._title)}</title><style>{_STYLE}</style>\n"
            + "\n".join((*self._below, *self._drawn, *names))
            + "\n</svg>\n"
        )

    def _x(self, at: float) -> float:
        share = (at - self._from) / (self._to - self._from)
        return self._left + share * (_WIDTH - self._left - 20)

    def _y(self, lane: int) -> float:
        return self._top + (lane + 0.5) * _LANE


def _line(x: float, y: float, to_x: float, to_y: float, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"{kind}/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(text)}</text>'


def _clock(seconds: int) -> str:
    return f"12:00:{seconds:02}"


def _by_clock(*seconds: int) -> dict[float, str]:
    return {at: _clock(at) for at in seconds}


# What is drawn


def windows() -> Timeline:
    """Windows of five seconds, and which rows are in them."""
    drawn = Timeline("Windows of five seconds tile time", (-1, 21), ["rows", "windows", "ticks"])
    drawn.axis(_by_clock(0, 5, 10, 15, 20))
    for at in (0.7, 2.2, 3.1, 5, 6.4, 8.8, 11.5, 12, 14.6, 16.2, 18):
        drawn.dot(0, at)
    for number, start in enumerate((0, 5, 10, 15)):
        kind = Kind.GOOD if number % 2 else Kind.WINDOW
        drawn.bar(1, start, start + 5, kind, f"[:{start:02}, :{start + 5:02})")
        drawn.bar(2, start + 5, start + 5.6, Kind.WORK)
        drawn.down(start + 5, 1, 2)
    return drawn


def align() -> Timeline:
    """Where the first window lies."""
    drawn = Timeline(
        "The grid since the epoch, and one since the start", (-1, 24), ["EPOCH", "START"]
    )
    drawn.flag(7, "the runner starts at 12:00:07")
    drawn.axis(_by_clock(0, 5, 10, 15, 20))
    for start in (5, 10, 15):
        drawn.bar(0, start, start + 5, Kind.WINDOW, f"[:{start:02}, :{start + 5:02})")
        drawn.bar(1, start + 2, start + 7, Kind.GOOD, f"[:{start + 2:02}, :{start + 7:02})")
    return drawn


def short_day() -> Timeline:
    """The day on which the clocks of Berlin are put forward."""
    return _changed_day("2024-03-31", "02:00 becomes 03:00")


def long_day() -> Timeline:
    """The day on which they are put back."""
    return _changed_day("2024-10-27", "03:00 becomes 02:00")


def _changed_day(day: str, change: str) -> Timeline:
    """The windows of days in Berlin, and of days of 24 hours, by the hour."""
    berlin = ZoneInfo("Europe/Berlin")
    hour = 3600
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=berlin).timestamp())
    lanes = ["rows, one an hour", "days in Berlin", "days of 24 hours"]
    drawn = Timeline(f"The days around {day}", (noon - 18 * hour, noon + 19 * hour), lanes)
    drawn.flag(int(datetime.fromisoformat(f"{day}T01:00Z").timestamp()), change)
    days = CalendarInterval.days(1, zone="Europe/Berlin").grid()
    midnights = days.edges(noon - 18 * hour, noon + 18 * hour).tolist()
    told = {at: f"{datetime.fromtimestamp(at, berlin):%d %b, %H:%M}" for at in midnights}
    drawn.axis({float(at): text for at, text in told.items()})
    first = noon - 17 * hour
    for at in range(first, first + 35 * hour, hour):
        drawn.dot(0, at)
    for lane, grid in ((1, days), (2, TaskInterval.days(1).with_unit(TimeUnit.SECONDS).grid())):
        start, end = grid.floor(noon), grid.after(noon)
        drawn.bar(lane, noon - 18 * hour, start, Kind.WINDOW)
        drawn.bar(lane, start, end, Kind.GOOD, f"{(end - start) // hour} hours")
        drawn.bar(lane, end, noon + 19 * hour, Kind.WINDOW)
    return drawn


def sliding() -> Timeline:
    """Windows that overlap."""
    ends = (15, 20, 25)
    lanes = [f"tick at :{end}" for end in ends]
    drawn = Timeline("Windows of 15 seconds, each 5 seconds", (-1, 27), lanes)
    drawn.axis(_by_clock(0, 5, 10, 15, 20, 25))
    for lane, end in enumerate(ends):
        drawn.bar(lane, end - 15, end, Kind.WINDOW, f"[:{end - 15:02}, :{end:02})")
        drawn.bar(lane, end, end + 0.6, Kind.WORK)
    return drawn


def grace() -> Timeline:
    """A window that waits for late rows."""
    lanes = ["arrivals", "windows", "ticks"]
    drawn = Timeline("A grace of two seconds", (-1, 14), lanes)
    drawn.axis(_by_clock(0, 5, 10))
    drawn.dot(0, 2)
    drawn.dot(0, 6)
    drawn.move(0, 6, 4.2)
    drawn.note(0, 6.2, "stamped :04, counted")
    drawn.dot(0, 10.4)
    drawn.note(0, 10.6, "stamped :04, too late")
    drawn.bar(1, 0, 5, Kind.WINDOW, "[:00, :05)")
    drawn.bar(1, 5, 7, Kind.WAIT, "grace")
    drawn.bar(2, 7, 7.5, Kind.WORK)
    drawn.note(2, 7.7, "at :07, timestamp :05")
    drawn.down(7, 1, 2)
    return drawn


def late() -> Timeline:
    """Rows that come in time for their window, and one that comes late."""
    drawn = Timeline("A row that comes late", (-1, 14), ["arrivals", "windows", "ticks"])
    drawn.axis(_by_clock(0, 5, 10))
    drawn.dot(0, 2)
    drawn.dot(0, 4)
    drawn.dot(0, 7)
    drawn.move(0, 7, 3.2)
    drawn.note(0, 7.2, "stamped :03: stored, and late")
    drawn.bar(1, 0, 5, Kind.GOOD, "[:00, :05)")
    drawn.bar(1, 5, 10, Kind.WINDOW, "[:05, :10)")
    drawn.bar(2, 5, 5.5, Kind.WORK)
    drawn.note(2, 5.7, "given at :05, with two rows")
    drawn.down(5, 1, 2)
    return drawn


def early() -> Timeline:
    """Rows that are stamped after the present."""
    drawn = Timeline(
        "Rows that come before their time", (-1, 14), ["arrivals", "waiting", "stored"]
    )
    drawn.axis(_by_clock(0, 5, 10))
    for at in (1, 3.4, 4.4, 6.5):
        drawn.dot(0, at)
        drawn.dot(2, at)
    drawn.dot(0, 2)
    drawn.note(0, 7, "at :02, one stamped :09 comes")
    drawn.bar(1, 2, 9, Kind.WAIT, "the others enter meanwhile")
    drawn.dot(2, 9)
    drawn.down(9, 1, 2)
    drawn.note(2, 9.3, "it enters at :09")
    return drawn


def closed() -> Timeline:
    """What the tasks of a window see, by which end of it belongs to it."""
    lanes = ["timestamps", "Closed.LEFT", "Closed.RIGHT"]
    drawn = Timeline("The view that a window's tasks have, for LEFT and RIGHT", (-1.5, 15), lanes)
    drawn.flag(10, "tick of the window from :05 to :10")
    drawn.axis(_by_clock(0, 5, 10))
    for at in (0, 1.7, 3.3, 5, 6.7, 8.3, 10, 11.7):
        drawn.dot(0, at)
    beside = 0.25  # of a row whose timestamp is just the bound
    for lane, bound, cut in (
        (1, -beside, "cut off: stamped :10 or later"),
        (2, beside, "cut off: stamped after :10"),
    ):
        drawn.bar(lane, -1, 5 + bound, Kind.WAIT, "earlier rows")
        drawn.bar(lane, 5 + bound, 10 + bound, Kind.GOOD, "in_window")
        drawn.note(lane, 10.5, cut)
    return drawn


def missed() -> Timeline:
    """What each behaviour does after a tick that took too long, as the Schedule has it."""
    period, tick, long_tick, until = 300, 75, 650, 1660
    drawn = Timeline(
        "What is done about missed ticks, with a period of 300",
        (240, 1740),
        [missed.name for missed in MissedTick],
        left=90,
    )
    drawn.axis({at: f"{at} due" for at in range(period, until, period)})
    told = {
        MissedTick.DELAY: "the lag stays",
        MissedTick.SKIP: "without 900",
        MissedTick.COALESCE: "[300, 900)",
    }
    for lane, behaviour in enumerate(MissedTick):
        schedule = Schedule(period, period, behaviour)
        now, took, second = period, long_tick, False
        while now < until:
            window = schedule.poll(now)
            if window is None:
                now = schedule.deadline
                continue
            kind = Kind.BAD if took == long_tick else Kind.WORK
            more = " takes until 950" if took == long_tick else ""
            drawn.bar(lane, now, now + took, kind, f"{window.end}{more}")
            now += took
            if second and behaviour in told:
                drawn.note(lane, now + 12, told[behaviour])
            took, second = tick, took == long_tick
    return drawn


def lock_a_task() -> Timeline:
    """What goes wrong when each task locks on its own."""
    drawn = Timeline("Each task locks on its own", (0, 15), ["task bid", "task ask", "writer"])
    drawn.bar(0, 1, 4.5, Kind.WORK, "reads bid 100")
    drawn.bar(2, 2, 4.5, Kind.WAIT, "waits")
    drawn.bar(2, 4.5, 7.5, Kind.BAD, "writes 102, 103")
    drawn.bar(1, 5.5, 7.5, Kind.WAIT, "waits")
    drawn.bar(1, 7.5, 11, Kind.WORK, "reads ask 103")
    drawn.note(1, 11.2, "other prices, same window")
    return drawn


def lock_a_tick() -> Timeline:
    """Who waits for whom with an RwLock."""
    drawn = _view_a_tick("An RwLock is read once a tick", "read once, for the whole tick")
    drawn.bar(3, 3, 8, Kind.WAIT, "waits for the tick")
    drawn.bar(3, 8, 11, Kind.GOOD, "writes 102, 103")
    drawn.note(3, 11.2, "meanwhile, a tick would wait")
    return drawn


def series_a_tick() -> Timeline:
    """Who waits for whom with a TimeSeries: nobody."""
    title = "A TimeSeries gives a view that is frozen"
    drawn = _view_a_tick(title, "the rows up to here, for good")
    for at in (0.5, 2.1, 3, 3.6, 5.2, 6.3, 7, 8.6, 9.5, 10.4):
        drawn.dot(3, at)
    drawn.note(3, 11.2, "appends at any time")
    return drawn


def _view_a_tick(title: str, view: str) -> Timeline:
    """One view, and two tasks that read it."""
    drawn = Timeline(title, (0, 15), ["the view", "task bid", "task ask", "writer"])
    drawn.bar(0, 1, 8, Kind.WINDOW, view)
    drawn.bar(1, 1.3, 4.5, Kind.WORK, "reads bid 100")
    drawn.bar(2, 4.6, 7.8, Kind.WORK, "reads ask 101")
    return drawn


def shutdown() -> Timeline:
    """How a runner ends when all is well."""
    lanes = ["who shuts down", "runner", "receiver"]
    drawn = Timeline("A shutdown", (0, 15), lanes)
    drawn.flag(4.5, "shutdown()")
    drawn.bar(0, 4.5, 5, Kind.GOOD)
    drawn.note(0, 5.2, "returns at once")
    drawn.bar(1, 2, 7, Kind.WORK, "the window in hand")
    drawn.down(7, 1, 2)
    drawn.bar(1, 7, 9.5, Kind.WAIT, "threads end")
    drawn.note(1, 9.7, "join(), or the end of the block, returns")
    drawn.bar(2, 7, 7.9, Kind.WINDOW)
    drawn.note(2, 8.1, "gets that window's DataSet, and ends")
    return drawn


def hung() -> Timeline:
    """How a runner ends when a task hangs."""
    lanes = ["task count", "task stuck", "runner", "receiver"]
    drawn = Timeline("A shutdown while a task hangs", (0, 15), lanes)
    drawn.flag(3, "shutdown()")
    drawn.flag(9, "shutdown_timeout is over")
    drawn.bar(0, 1, 2.4, Kind.WORK, "returns")
    drawn.bar(1, 1, 14.6, Kind.BAD, "hangs, in a thread that is left to it")
    drawn.bar(2, 3, 9, Kind.WAIT, "waits for the task")
    drawn.note(2, 9.3, "raises ShutdownTimeout: stuck hangs")
    drawn.down(9, 2, 3)
    drawn.bar(3, 9, 9.6, Kind.WINDOW)
    drawn.note(3, 9.8, "gets count, and an error for stuck; ends")
    return drawn


def downstream() -> Timeline:
    """The order in which a pipeline ends."""
    lanes = ["live sources", "stage minutes", "stage features", "recordings", "sinks"]
    drawn = Timeline("A pipeline ends downstream", (0, 15), lanes)
    drawn.flag(2, "shutdown()")
    drawn.bar(0, 0, 2.6, Kind.GOOD, "rows")
    drawn.bar(1, 0.4, 1.4, Kind.WORK)
    drawn.bar(1, 2.6, 5.4, Kind.WORK, "what is due")
    drawn.down(5.4, 1, 2)
    drawn.bar(2, 5.4, 8.2, Kind.WORK, "what is due")
    drawn.bar(3, 0, 8.8, Kind.GOOD, "the rows that those windows are still to see")
    drawn.bar(4, 1.4, 11.4, Kind.WINDOW, "write DataSets as they come, and what waits")
    drawn.note(4, 11.6, "closed, and all is over")
    return drawn


DRAWINGS: Final[Mapping[str, Callable[[], Timeline]]] = {
    "windows": windows,
    "align": align,
    "short-day": short_day,
    "long-day": long_day,
    "sliding": sliding,
    "grace": grace,
    "late": late,
    "early": early,
    "closed": closed,
    "missed": missed,
    "lock-a-task": lock_a_task,
    "lock-a-tick": lock_a_tick,
    "series-a-tick": series_a_tick,
    "shutdown": shutdown,
    "hung": hung,
    "downstream": downstream,
}
"""What is drawn, by the name of its file."""


if __name__ == "__main__":
    for name, drawing in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(str(drawing()))
