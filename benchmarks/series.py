"""What a TimeSeries costs: rows a second, how long an append takes, memory, late rows.

Each function gives one number, for a series of three columns: two of floats and one of ints.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.measure import Figure
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section
from run_task import TaskInterval, TimeSeries

BATCH = 1000


def series(retention: int | TaskInterval | None = None) -> TimeSeries:
    return TimeSeries({"bid": float, "ask": float, "size": int}, retention=retention)


def filled(rows: int) -> TimeSeries:
    made = series()
    made.extend(np.arange(rows), bid=np.ones(rows), ask=np.ones(rows), size=np.ones(rows, int))
    return made


def extend_rate(rows: int = 2_000_000, retention: int | TaskInterval | None = None) -> float:
    """Rows a second that batches of 1000 bring into a series that is empty at first."""
    target = series(retention)
    prices, sizes = np.random.default_rng(1).random(BATCH), np.arange(BATCH)
    batches = [np.arange(start, start + BATCH) for start in range(0, rows, BATCH)]
    begun = time.perf_counter()
    for times in batches:
        target.extend(times, bid=prices, ask=prices, size=sizes)
    return rows / (time.perf_counter() - begun)


def append_rate(
    rows: int = 200_000, retention: int | TaskInterval | None = None, late: float = 0.0
) -> float:
    """Rows a second, one by one.

    :param late: which part of them comes late, by up to 100 rows
    """
    target = series(retention)
    random = np.random.default_rng(2)
    lateness = np.where(random.random(rows) < late, random.integers(1, 101, rows), 0)
    times: list[int] = np.maximum(np.arange(rows) - lateness, 0).tolist()
    begun = time.perf_counter()
    for stamp in times:
        target.append(stamp, bid=1.5, ask=2.5, size=7)
    return rows / (time.perf_counter() - begun)


def append_p99_us(*, held: bool, seconds: float = 1.0, rows: int = 100_000) -> float:
    """Microseconds of the slowest append but for one in a hundred, with bursts of ten appends a
    millisecond.

    :param held: whether a task holds views for 100 ms each meanwhile, and looks at them
    """
    target = filled(rows)
    stop = threading.Event()

    def hold() -> None:
        while not stop.is_set():
            with target.read() as view:
                total = view["bid"].sum()
                time.sleep(0.1)
                assert view["bid"].sum() == total

    reader = threading.Thread(target=hold)
    if held:
        reader.start()
    took: list[float] = []
    until = time.perf_counter() + seconds
    stamp = rows
    while time.perf_counter() < until:
        for _ in range(10):
            stamp += 1
            begun = time.perf_counter()
            target.append(stamp, bid=1.0, ask=1.0, size=1)
            took.append(time.perf_counter() - begun)
        time.sleep(0.001)
    stop.set()
    if held:
        reader.join()
    return float(np.percentile(took, 99)) * 1e6


def read_us(rows: int = 1_000_000, times: int = 20_000) -> float:
    """Microseconds to take a view and let it go."""
    access = filled(rows).read()
    begun = time.perf_counter()
    for _ in range(times):
        with access:
            pass
    return (time.perf_counter() - begun) / times * 1e6


def window_us(rows: int = 1_000_000, times: int = 20_000) -> float:
    """Microseconds to take a view, a window of its last 100 rows, and a column of that."""
    access = filled(rows).read()
    begun = time.perf_counter()
    for _ in range(times):
        with access as view:
            view.between(rows - 100, rows)["bid"]
    return (time.perf_counter() - begun) / times * 1e6


_MEMORY = """
import sys
import numpy as np
import psutil
from run_task import TaskInterval, TimeSeries

rows, kind = int(sys.argv[1]), sys.argv[2]
retention = {"all": None, "rows": rows, "span": TaskInterval.millis(rows - 1)}[kind]
values = np.ones(1000)
series = TimeSeries({"bid": float, "ask": float, "size": int}, retention=retention)
process = psutil.Process()
before = process.memory_info().rss
steady = 0
for start in range(0, rows if retention is None else 8 * rows, 1000):
    series.extend(np.arange(start, start + 1000), bid=values, ask=values, size=values)
    if retention is None or start > 3 * rows:
        steady = max(steady, process.memory_info().rss - before)
with series.read() as view:
    assert len(view) == rows
# Not ru_maxrss, which begins with what the parent had when it forked.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
retained = rows * 4 * 8
print(steady / retained, (peak - before) / retained)
"""


def memory(rows: int = 1_000_000, kind: str = "rows") -> tuple[float, float]:
    """How many times the bytes of the retained rows are in memory, and were at most.

    The first is the most that was seen once the retention was reached, or the series was full,
    the second the most at any time, stores being replaced included. It takes a process of its own,
    and Linux.

    :param kind: of retention: ``"all"``, ``"rows"``, or ``"span"``
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(rows), kind], capture_output=True, check=True, text=True
    )
    steady, peak = map(float, done.stdout.split())
    return steady, peak


def _figure(measure: Callable[[], float], effort: Effort) -> list[float]:
    return [measure() for _ in range(effort.repeats)]


def answer(effort: Effort) -> Iterator[Question]:
    rows = max(20_000, int(effort.seconds * 2_500_000))
    kept = rows // 10
    retentions = {"all rows": None, "a tenth": kept, "a tenth, by time": TaskInterval.millis(kept)}
    yield Question(
        f"Series: million rows/s by extend, in batches of {BATCH}, 3 columns",
        _rates(
            {name: partial(extend_rate, rows, kept) for name, kept in retentions.items()},
            1e6,
            "M rows/s",
            Goal(Bound.AT_LEAST, 20),
            effort,
        ),
    )
    some = rows // 10
    kept = some // 10
    retentions = {"all rows": None, "a tenth": kept, "a tenth, by time": TaskInterval.millis(kept)}
    yield Question(
        "Series: thousand rows/s by append, 3 columns",
        _rates(
            {name: partial(append_rate, some, kept) for name, kept in retentions.items()},
            1e3,
            "k rows/s",
            Goal(Bound.AT_LEAST, 400),
            effort,
        ),
    )
    ordered = _figure(lambda: append_rate(some), effort)
    late = _figure(lambda: append_rate(some, late=0.01), effort)
    slower = Figure.of_ratios(ordered, late)
    free = _figure(lambda: append_p99_us(held=False, seconds=effort.seconds), effort)
    held = _figure(lambda: append_p99_us(held=True, seconds=effort.seconds), effort)
    yield Question(
        "Series: what late rows and readers cost who appends",
        [
            Line(
                "in order over 1 % late by up to 100 rows",
                Role.OURS,
                "x",
                slower,
                goal=Goal(Bound.AT_MOST, 5),
            ),
            Line("p99 of append, no reader", Role.FLOOR, "µs", Figure.of(free)),
            Line(
                "p99 of append, a view held for 100 ms",
                Role.OURS,
                "µs",
                Figure.of(held),
                Figure.of_ratios(held, free),
                Goal(Bound.AT_MOST, 3),
            ),
        ],
    )
    limit = Goal(Bound.AT_MOST, 2.2)
    lines: list[Line] = []
    for name, kind in (("all rows", "all"), ("by number", "rows"), ("by time", "span")):
        # Below some millions of rows, what the interpreter takes besides would tell.
        both = [memory(max(rows, 1_000_000), kind) for _ in range(max(1, effort.repeats // 2))]
        steady, peak = (Figure.of([pair[i] for pair in both]) for i in (0, 1))
        lines.append(Line(f"{name}: steady", Role.OURS, "x", steady, goal=limit))
        lines.append(Line(f"{name}: peak", Role.OURS, "x", peak))
    yield Question("Series: memory, over the bytes of the retained rows", lines)


def _rates(
    measured: dict[str, Callable[[], float]], scale: float, unit: str, goal: Goal, effort: Effort
) -> list[Line]:
    """Rates with a goal, and how much slower they are with retention than without."""
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(effort.repeats):
        for name, measure in measured.items():
            rates[name].append(measure() / scale)
    first, *others = rates
    lines = [Line(name, Role.OURS, unit, Figure.of(rates[name]), goal=goal) for name in rates]
    return lines + [
        Line(
            f"all rows over {name}",
            Role.OURS,
            "x",
            Figure.of_ratios(rates[first], rates[name]),
            goal=Goal(Bound.AT_MOST, 2),
        )
        for name in others
    ]


SECTION = Section("series", answer)
