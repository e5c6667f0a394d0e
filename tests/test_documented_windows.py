"""Windows and ticks as the documentation of other projects gives them, beside ours.

Of each page only the data are taken: the rows, the settings, and the windows that it says come of
them. Where ours differ by design, both are here, and why.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from run_task import (
    Align,
    CalendarInterval,
    Closed,
    Empty,
    MissedTick,
    Pipeline,
    RunnerConfig,
    Schedule,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)

PANDAS = "pandas.pydata.org/docs/reference/api/pandas.DataFrame.resample.html"
POLARS = "docs.pola.rs/api/python/stable/reference/dataframe/api/polars.DataFrame.group_by_dynamic"
FLINK_SQL = "nightlies.apache.org/flink/flink-docs-stable/docs/dev/table/sql/queries/window-tvf"
FLINK = "nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/windows"
KAFKA = "kafka.apache.org/28/javadoc/org/apache/kafka/streams/kstream/TimeWindows.html"
KAFKA_GRACE = "kafka.apache.org/28/javadoc/org/apache/kafka/streams/kstream/Windows.html"
BYTEWAX = "docs.bytewax.io/stable/guide/concepts/windowing.html"
QUIX = "quix.io/docs/quix-streams/windowing.html"
TOKIO = "docs.rs/tokio/latest/tokio/time/enum.MissedTickBehavior.html"
TOKIO_INTERVAL = "docs.rs/tokio/latest/tokio/time/fn.interval.html"

Row = tuple[int, float]
Held = dict[Window, list[float]]
"""The values of the rows that each window holds, in the order of time."""


@task
def values(view: TimeSeriesView, start: int, end: int) -> list[float]:
    found: list[float] = view.in_window["value"].tolist()
    return found


def at(text: str) -> int:
    """Seconds since the epoch of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def millis(text: str) -> int:
    """Milliseconds of a time of the first day since the epoch: hours, minutes, seconds."""
    hours, minutes, seconds = text.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000)


def numbered(times: Sequence[int], step: int = 1) -> list[Row]:
    return [(time, float(i * step)) for i, time in enumerate(times)]


def spans(day: str, *given: tuple[str, str, Sequence[float]]) -> Held:
    """Windows of hours and minutes of a day, or with dates of their own."""

    def whole(text: str) -> int:
        return at(text if " " in text else f"{day} {text}")

    return {Window(whole(start), whole(end)): list(held) for start, end, held in given}


def replayed(
    rows: Sequence[Row],
    interval: TaskInterval | CalendarInterval,
    *,
    closed: Closed = Closed.LEFT,
    unit: TimeUnit = TimeUnit.SECONDS,
    **config: Any,
) -> tuple[Held, int]:
    """What the windows of a replay hold, those without a row left out, and how many rows were late
    for all of theirs."""
    series = TimeSeries({"value": float}, unit, closed=closed)
    recorded = [(time, {"value": value}) for time, value in rows]
    pipeline = Pipeline("documented").source(recorded, into=series)
    config = {"empty": Empty.SKIP, "executor": "inline", **config}
    pipeline.stage("windows", [values], series, interval, RunnerConfig(**config))
    replay = pipeline.replay()
    held = {Window(*dataset.window): dataset[values] for _, dataset in replay}
    return held, sum(counts.late for counts in replay.summary.sources.values())


@dataclass(frozen=True)
class Vector:
    """An example of a page, and how ours is told to do the same.

    :param page: where it is
    :param name: what it shows
    :param late: how many of the rows are late
    """

    page: str
    name: str
    rows: Sequence[Row]
    interval: TaskInterval | CalendarInterval
    given: Held
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    late: int = 0

    def __str__(self) -> str:
        return f"{self.page}: {self.name}"


def offset(period: int, edge: int) -> str:
    """The offset of a grid of so many seconds that has this edge: ours are counted from the epoch,
    and those of others from a day, a row or a time of their own."""
    return f"{edge % period}s"


NINE_MINUTES = numbered([at("2000-01-01 00:00") + 60 * i for i in range(9)])
SEVENS = numbered([at("2000-10-01 23:30") + 7 * 60 * i for i in range(9)], step=3)
PERIOD = 17 * 60
NIGHT = "2000-10-02"


def night(*ends: str) -> list[tuple[str, str]]:
    """Windows by their starts and ends, those before midnight on the day before."""
    dated = [f"2000-10-01 {end}" if end > "12" else f"{NIGHT} {end}" for end in ends]
    return list(itertools.pairwise(dated))


def sevens(edges: Sequence[str], *sums: float) -> Held:
    """The documented sums, as the values that they are of: each row is in one window."""
    left = [value for _, value in SEVENS]
    found: Held = {}
    for (start, end), total in zip(night(*edges), sums, strict=True):
        held: list[float] = [left.pop(0)]
        while left and sum(held) + left[0] <= total:
            held.append(left.pop(0))
        assert sum(held) == total, "the documented sum is one of rows that follow on one another"
        found |= spans(NIGHT, (start, end, held))
    assert not left
    return found


BIDS = [
    (at(f"2020-04-15 08:{minute:02}"), price)
    for minute, price in [(5, 4.0), (7, 2.0), (9, 5.0), (11, 3.0), (13, 1.0), (17, 6.0)]
]
HALF_HOURS = numbered([at("2021-12-16 00:00") + 1800 * i for i in range(7)])
VALUES = numbered(
    [at(f"2023-12-14 {time}") for time in ("00:00", "00:10", "00:15", "00:50", "01:00", "01:30")]
)
HOUR, HALF_HOUR = 3_600_000, 1_800_000
HOUR_AND_HALF = 90 * 60
QUARTER = "15m"

AGREEING = [
    Vector(
        PANDAS,
        "bins of 3 minutes, labelled by their start, which is the window's, or by its end",
        NINE_MINUTES,
        TaskInterval.seconds(180),
        spans(
            "2000-01-01",
            ("00:00", "00:03", [0, 1, 2]),
            ("00:03", "00:06", [3, 4, 5]),
            ("00:06", "00:09", [6, 7, 8]),
        ),
    ),
    Vector(
        PANDAS,
        "closed and labelled on the right",
        NINE_MINUTES,
        TaskInterval.seconds(180),
        spans(
            "2000-01-01",
            ("1999-12-31 23:57", "00:00", [0]),
            ("00:00", "00:03", [1, 2, 3]),
            ("00:03", "00:06", [4, 5, 6]),
            ("00:06", "00:09", [7, 8]),
        ),
        {"closed": Closed.RIGHT},
    ),
    Vector(
        PANDAS,
        "17 minutes from the midnight of the first day, origin='start_day'",
        SEVENS,
        TaskInterval.seconds(PERIOD, offset=offset(PERIOD, at("2000-10-01 00:00"))),
        sevens(("23:14", "23:31", "23:48", "00:05", "00:22", "00:39"), 0, 9, 21, 54, 24),
    ),
    Vector(
        PANDAS,
        "17 minutes from the epoch, origin='epoch'",
        SEVENS,
        TaskInterval.seconds(PERIOD),
        sevens(("23:18", "23:35", "23:52", "00:09", "00:26", "00:43"), 0, 18, 27, 39, 24),
    ),
    Vector(
        PANDAS,
        "17 minutes from a time, origin='2000-01-01'",
        SEVENS,
        TaskInterval.seconds(PERIOD, offset=offset(PERIOD, at("2000-01-01 00:00"))),
        sevens(("23:24", "23:41", "23:58", "00:15", "00:32"), 3, 15, 45, 45),
    ),
    Vector(
        PANDAS,
        "17 minutes from the first row, origin='start'",
        SEVENS,
        TaskInterval.seconds(PERIOD),
        sevens(("23:30", "23:47", "00:04", "00:21", "00:38"), 9, 21, 54, 24),
        {"align": Align.START},
    ),
    Vector(
        PANDAS,
        "17 minutes, offset='23h30min' from the midnight of the first day",
        SEVENS,
        TaskInterval.seconds(PERIOD, offset=offset(PERIOD, at("2000-10-01 23:30"))),
        sevens(("23:30", "23:47", "00:04", "00:21", "00:38"), 9, 21, 54, 24),
    ),
    Vector(
        PANDAS,
        "17 minutes up to the last row, origin='end', which closes on the right",
        SEVENS,
        TaskInterval.seconds(PERIOD, offset=offset(PERIOD, at("2000-10-02 00:26"))),
        sevens(("23:18", "23:35", "23:52", "00:09", "00:26"), 0, 18, 27, 63),
        {"closed": Closed.RIGHT},
    ),
    Vector(
        PANDAS,
        "17 minutes up to the midnight after the last row, origin='end_day'",
        SEVENS,
        TaskInterval.seconds(PERIOD, offset=offset(PERIOD, at("2000-10-03 00:00"))),
        sevens(("23:21", "23:38", "23:55", "00:12", "00:29"), 3, 15, 45, 45),
        {"closed": Closed.RIGHT},
    ),
    Vector(
        POLARS,
        "every='1h', closed='left'",
        HALF_HOURS,
        TaskInterval.seconds(3600),
        spans(
            "2021-12-16",
            ("00:00", "01:00", [0, 1]),
            ("01:00", "02:00", [2, 3]),
            ("02:00", "03:00", [4, 5]),
            ("03:00", "04:00", [6]),
        ),
    ),
    Vector(
        POLARS,
        "every='1h', closed='right'",
        HALF_HOURS,
        TaskInterval.seconds(3600),
        spans(
            "2021-12-16",
            ("2021-12-15 23:00", "00:00", [0]),
            ("00:00", "01:00", [1, 2]),
            ("01:00", "02:00", [3, 4]),
            ("02:00", "03:00", [5, 6]),
        ),
        {"closed": Closed.RIGHT},
    ),
    # The starts of theirs are multiples of 2, and the ends of ours with an offset of 1.
    Vector(
        POLARS,
        "an index, every='2i', period='3i', closed='right'",
        numbered(range(6)),
        TaskInterval.seconds(2, offset="1s"),
        {
            Window(-2, 1): [0, 1],
            Window(0, 3): [1, 2, 3],
            Window(2, 5): [3, 4, 5],
            Window(4, 7): [5],
        },
        {"closed": Closed.RIGHT, "window": TaskInterval.seconds(3)},
    ),
    Vector(
        FLINK_SQL,
        "TUMBLE of 10 minutes",
        BIDS,
        TaskInterval.seconds(600),
        spans("2020-04-15", ("08:00", "08:10", [4, 2, 5]), ("08:10", "08:20", [3, 1, 6])),
    ),
    Vector(
        FLINK_SQL,
        "HOP by 5 minutes of 10",
        BIDS,
        TaskInterval.seconds(300),
        spans(
            "2020-04-15",
            ("08:00", "08:10", [4, 2, 5]),
            ("08:05", "08:15", [4, 2, 5, 3, 1]),
            ("08:10", "08:20", [3, 1, 6]),
            ("08:15", "08:25", [6]),
        ),
        {"window": TaskInterval.seconds(600)},
    ),
    # The page gives the first and the last millisecond of each window; these are the rows.
    Vector(
        FLINK,
        "hourly tumbling windows",
        numbered([millis(t) for t in ("1:00:00", "1:59:59.999", "2:00:00", "2:59:59.999")]),
        TaskInterval.millis(HOUR),
        {
            Window(millis("1:00:00"), millis("2:00:00")): [0, 1],
            Window(millis("2:00:00"), millis("3:00:00")): [2, 3],
        },
        {"unit": TimeUnit.MILLIS},
    ),
    Vector(
        FLINK,
        "hourly tumbling windows with an offset of 15 minutes",
        numbered([millis(t) for t in ("1:15:00", "2:14:59.999", "2:15:00", "3:14:59.999")]),
        TaskInterval.millis(HOUR, offset=QUARTER),
        {
            Window(millis("1:15:00"), millis("2:15:00")): [0, 1],
            Window(millis("2:15:00"), millis("3:15:00")): [2, 3],
        },
        {"unit": TimeUnit.MILLIS},
    ),
    # The windows before and after hold some of the rows as well: the page says "and so on".
    Vector(
        FLINK,
        "hourly windows that slide by 30 minutes",
        numbered([millis(t) for t in ("1:00:00", "1:30:00", "1:59:59.999", "2:29:59.999")]),
        TaskInterval.millis(HALF_HOUR),
        {
            Window(millis("0:30:00"), millis("1:30:00")): [0],
            Window(millis("1:00:00"), millis("2:00:00")): [0, 1, 2],
            Window(millis("1:30:00"), millis("2:30:00")): [1, 2, 3],
            Window(millis("2:00:00"), millis("3:00:00")): [3],
        },
        {"unit": TimeUnit.MILLIS, "window": TaskInterval.millis(HOUR)},
    ),
    Vector(
        FLINK,
        "hourly windows that slide by 30 minutes with an offset of 15",
        numbered([millis(t) for t in ("1:15:00", "1:45:00", "2:14:59.999", "2:44:59.999")]),
        TaskInterval.millis(HALF_HOUR, offset=QUARTER),
        {
            Window(millis("0:45:00"), millis("1:45:00")): [0],
            Window(millis("1:15:00"), millis("2:15:00")): [0, 1, 2],
            Window(millis("1:45:00"), millis("2:45:00")): [1, 2, 3],
            Window(millis("2:15:00"), millis("3:15:00")): [3],
        },
        {"unit": TimeUnit.MILLIS, "window": TaskInterval.millis(HOUR)},
    ),
    # Theirs fires at 12:05 and again for the row within the lateness, ours once, at 12:06.
    Vector(
        FLINK,
        "a window from 12:00 to 12:05 with an allowed lateness of 1 minute, which goes at 12:06",
        numbered(
            [at(f"2020-01-01 12:{time}") for time in ("01:00", "05:59", "04:59", "06:00", "03:00")]
        ),
        TaskInterval.seconds(300),
        spans("2020-01-01", ("12:00", "12:05", [0, 2]), ("12:05", "12:10", [1, 3])),
        {"grace": TaskInterval.seconds(60)},
        late=1,
    ),
    # The page's rule: accepted until stream_time >= window_end + grace_period.
    Vector(
        KAFKA_GRACE,
        "a window takes records until the time of the stream is its end plus the grace",
        numbered([1000, 6999, 4000, 7000, 4001]),
        TaskInterval.millis(5000),
        {Window(0, 5000): [0, 2], Window(5000, 10_000): [1, 3]},
        {"unit": TimeUnit.MILLIS, "grace": TaskInterval.millis(2000)},
        late=1,
    ),
    # Windows go on in both directions: the page shows those from 00:00 to 02:00.
    Vector(
        BYTEWAX,
        "windows of an hour each 30 minutes, aligned to a midnight",
        VALUES,
        TaskInterval.seconds(1800),
        spans(
            "2023-12-14",
            ("2023-12-13 23:30", "00:30", [0, 1, 2]),
            ("00:00", "01:00", [0, 1, 2, 3]),
            ("00:30", "01:30", [3, 4]),
            ("01:00", "02:00", [4, 5]),
            ("01:30", "02:30", [5]),
        ),
        {"window": TaskInterval.seconds(3600)},
    ),
    Vector(
        BYTEWAX,
        "windows of an hour each hour and a half: what falls into the gaps is in none",
        VALUES,
        TaskInterval.seconds(HOUR_AND_HALF, offset=offset(HOUR_AND_HALF, at("2023-12-14 01:00"))),
        spans("2023-12-14", ("00:00", "01:00", [0, 1, 2, 3]), ("01:30", "02:30", [5])),
        {"window": TaskInterval.seconds(3600)},
    ),
    Vector(
        BYTEWAX,
        "a replay out of order by 3 minutes, of which 5 are allowed",
        numbered([at(f"2024-01-01 10:{minute}:00") for minute in (35, 38, 39, 36)]),
        TaskInterval.seconds(60),
        spans(
            "2024-01-01",
            ("10:35", "10:36", [0]),
            ("10:36", "10:37", [3]),
            ("10:38", "10:39", [1]),
            ("10:39", "10:40", [2]),
        ),
        {"grace": TaskInterval.seconds(300)},
    ),
    Vector(
        QUIX,
        "a tumbling window of 10 seconds",
        [(10_001, 9999.0)],
        TaskInterval.millis(10_000),
        {Window(10_000, 20_000): [9999]},
        {"unit": TimeUnit.MILLIS},
    ),
    Vector(
        QUIX,
        "a tumbling window of an hour",
        [(100, 30.0), (200, 29.0), (300, 28.0)],
        TaskInterval.millis(HOUR),
        {Window(0, HOUR): [30, 29, 28]},
        {"unit": TimeUnit.MILLIS},
    ),
    # The page's example of rows by 10 minutes has starts that its own rule does not give.
    Vector(
        QUIX,
        "a time in two windows of an hour each 30 minutes",
        [(millis("00:33:13"), 1.0)],
        TaskInterval.millis(HALF_HOUR),
        {Window(0, HOUR): [1], Window(HALF_HOUR, HOUR + HALF_HOUR): [1]},
        {"unit": TimeUnit.MILLIS, "window": TaskInterval.millis(HOUR)},
    ),
    Vector(
        QUIX,
        "a window of an hour with a grace of 10 seconds",
        numbered([1000, HOUR + 9_999, HOUR - 1, HOUR + 10_000, HOUR - 2]),
        TaskInterval.millis(HOUR),
        {Window(0, HOUR): [0, 2], Window(HOUR, 2 * HOUR): [1, 3]},
        {"unit": TimeUnit.MILLIS, "grace": TaskInterval.millis(10_000)},
        late=1,
    ),
]


@pytest.mark.parametrize("vector", AGREEING, ids=str)
def test_windows_hold_what_the_page_says(vector: Vector) -> None:
    assert replayed(vector.rows, vector.interval, **vector.settings) == (vector.given, vector.late)


def test_days_of_china_by_an_offset_as_of_flink_and_by_their_zone() -> None:
    """Daily windows with an offset of -8 hours (see FLINK): of ours, which are positive, 16."""
    rows = numbered([at("2024-03-01 15:59:59"), at("2024-03-01 16:00"), at("2024-03-02 15:59:59")])
    given = spans(
        "2024-03-01",
        ("2024-02-29 16:00", "16:00", [0]),
        ("16:00", "2024-03-02 16:00", [1, 2]),
    )
    for interval in (
        TaskInterval.seconds(86_400, offset="16h"),
        CalendarInterval.days(1, zone="Asia/Shanghai"),
    ):
        assert replayed(rows, interval) == (given, 0)


def test_a_row_at_both_bounds_as_of_polars() -> None:
    """``closed="both"`` (see POLARS).

    Of windows side by side ours has each row in one, so that what is counted adds up. What polars
    gives is what both of ours hold together.
    """
    documented = spans(
        "2021-12-16",
        ("00:00", "01:00", [0, 1, 2]),
        ("01:00", "02:00", [2, 3, 4]),
        ("02:00", "03:00", [4, 5, 6]),
        ("03:00", "04:00", [6]),
    )
    left, right = (
        replayed(HALF_HOURS, TaskInterval.seconds(3600), closed=closed)[0]
        for closed in (Closed.LEFT, Closed.RIGHT)
    )
    both = {window: sorted({*held, *right.get(window, [])}) for window, held in left.items()}
    assert both == documented
    assert sum(map(len, left.values())) == sum(map(len, right.values())) == len(HALF_HOURS)


def test_hopping_windows_as_of_kafka_streams() -> None:
    """Windows of 5000 ms each 3000 ms (see KAFKA): the first starts at timestamp 0.

    The ends of ours are on the grid, so that it takes an offset. Nor is 0 special to ours: the
    window before it holds rows as well.
    """
    documented = {Window(0, 5000): [0.0, 1.0, 2.0, 3.0], Window(3000, 8000): [2.0, 3.0, 4.0]}
    held, late = replayed(
        numbered([0, 2999, 3000, 4999, 5000]),
        TaskInterval.millis(3000, offset="2s"),
        unit=TimeUnit.MILLIS,
        window=TaskInterval.millis(5000),
    )
    assert held == {Window(-3000, 2000): [0.0], **documented}
    assert not late


def test_final_results_as_of_quix_streams() -> None:
    """A sum over 10 seconds, emitted when the window is closed (see QUIX).

    There a window that no later row closes stays open; here the end of a recording closes it.
    """
    held, _ = replayed(
        [(100, 1.0), (101, 1.0), (10_001, 1.0)],
        TaskInterval.millis(10_000),
        unit=TimeUnit.MILLIS,
    )
    sums = {window: sum(values) for window, values in held.items()}
    documented = {Window(0, 10_000): 2.0}
    assert sums == {**documented, Window(10_000, 20_000): 1.0}


def ticks(schedule: Schedule, count: int, work: Callable[[int], int]) -> list[int]:
    """When each tick is given to one who asks for the next after so much work for each."""
    given: list[int] = []
    asked = 0
    for number in range(count):
        now = max(asked, schedule.deadline)
        if now > asked:
            assert schedule.poll(now - 1) is None
        assert schedule.poll(now) is not None
        given.append(now)
        asked = now + work(number)
    return given


@pytest.mark.parametrize(
    ("missed", "documented"),
    [
        (MissedTick.BURST, [0, 12, 38, 45, 52, 60, 72]),
        (MissedTick.DELAY, [0, 12, 38, 50, 62, 74]),
        (MissedTick.SKIP, [0, 12, 38, 48, 60, 72]),
    ],
)
def test_drawn_timelines_of_tokio(missed: MissedTick, documented: list[int]) -> None:
    """The drawings of TOKIO, in characters: 12 a period, 7 for the work, 26 for the delayed one."""

    def work(number: int) -> int:
        return 26 if number == 1 else 7

    assert ticks(Schedule(12, 0, missed), len(documented), work) == documented


def test_burst_of_tokio_in_code() -> None:
    """TOKIO: with 50 ms and a task of 200, four resolve at once, and the next after 50 ms.

    The page counts from the tick at 50 ms on.
    """
    schedule = Schedule(50, 50, MissedTick.BURST)
    found = [schedule.poll(200) for _ in range(5)]
    assert found == [Window(0, 50), Window(50, 100), Window(100, 150), Window(150, 200), None]
    assert schedule.deadline == 200 + 50


def test_delay_of_tokio_in_code() -> None:
    """TOKIO: with 50 ms and a task of more, the next is 50 ms after the one that was missed.

    Theirs loses its grid. With ours the windows stay on it, and tile time; only their results come
    that much later.
    """
    schedule = Schedule(50, 0, MissedTick.DELAY)
    assert schedule.poll(75) == Window(-50, 0)
    assert schedule.deadline == 75 + 50
    assert schedule.poll(75 + 50) == Window(0, 50)


def test_skip_of_tokio_in_code() -> None:
    """TOKIO: with 50 ms and a task of 75, one resolves at once, and the next after 25 ms more."""
    schedule = Schedule(50, 0, MissedTick.SKIP)
    assert schedule.poll(75) == Window(-50, 0)
    assert schedule.poll(75) is None
    assert schedule.deadline == 75 + 25
    assert schedule.skipped == 1


def test_a_task_of_a_second_each_two_seconds_as_of_tokio() -> None:
    """TOKIO_INTERVAL: the time between ticks is counted from tick to tick, not from the work."""
    assert ticks(Schedule(2, 0), 5, lambda _: 1) == [0, 2, 4, 6, 8]
