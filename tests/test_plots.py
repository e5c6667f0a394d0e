"""Pictures of series and of results: what is drawn, what is not, and that no figure is shared."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from run_task import (
    CalendarInterval,
    ConfigError,
    DataSet,
    DataSets,
    KeyedDataSet,
    KeyedDataSets,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    Window,
    task,
)

dates: Any = importlib.import_module("matplotlib.dates")  # it comes without types

NOON = 1_719_835_200
SECOND = TaskInterval.seconds(1)


class Spread(NamedTuple):
    low: float
    high: float


@dataclasses.dataclass
class Level:
    bid: float
    ask: int


def results(*rows: dict[str, Any], interval: Any = SECOND) -> DataSets[Any]:
    """DataSets one after the other; ... stands for an error."""
    made: list[DataSet[Any]] = []
    for second, row in enumerate(rows):
        window = Window(NOON + second, NOON + second + 1)
        values = {name: value for name, value in row.items() if value is not ...}
        errors = {name: TaskError(name, window) for name in row if name not in values}
        made.append(DataSet(window, values, errors, interval=interval))
    return DataSets(made)


def prices(count: int, unit: TimeUnit = TimeUnit.SECONDS, **more: Any) -> TimeSeries:
    made = TimeSeries({"price": float}, unit, **more)
    first = NOON * 1_000_000_000 // unit.nanos
    made.extend(np.arange(first, first + count), price=np.arange(count, dtype=float))
    return made


def labels(axes: Axes) -> Sequence[str]:
    """The names of its lines, as its legend has them."""
    return [str(line.get_label()) for line in lines(axes)]


def lines(axes: Axes) -> Sequence[Any]:
    return [line for line in axes.lines if not str(line.get_label()).startswith("_")]


def values(axes: Axes, line: int = 0) -> Sequence[float]:
    found: list[float] = np.asarray(lines(axes)[line].get_ydata(), float).tolist()
    return found


def note(axes: Axes) -> str:
    return axes.get_title(loc="left")


def drawn(axes: Axes) -> int:
    """How many bytes a picture of it has: that it can be drawn at all is worth a test."""
    shown: Any = axes
    png = bytes(shown._repr_png_())
    assert png.startswith(b"\x89PNG")
    return len(png)


def test_a_line_a_column_at_the_times_of_its_rows() -> None:
    series = TimeSeries({"price": float, "size": int}, TimeUnit.MILLIS, zone="Europe/Berlin")
    times = [datetime(2024, 7, 1, hour, tzinfo=UTC) for hour in (12, 13, 14)]
    series.extend(times, price=[1.5, 2.5, 3.5], size=[1, 2, 3])
    for axes in (series.plot(), series.view().plot()):
        assert labels(axes) == ["price", "size"]
        assert values(axes) == [1.5, 2.5, 3.5]
        assert [dates.num2date(x) for x in lines(axes)[0].get_xdata()] == times
        assert axes.get_xlabel() == "Europe/Berlin"
        assert axes.get_legend() is not None
        assert not note(axes)
        assert drawn(axes)
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert "14:00" in ticks, "noon in UTC is two hours later in Berlin"
    alone = series.plot("size")
    assert labels(alone) == [alone.get_ylabel()] == ["size"]
    assert alone.get_legend() is None


def test_on_axes_that_are_given() -> None:
    figure = Figure()
    upper, lower = figure.subplots(2)
    assert prices(3).plot(ax=upper) is upper
    assert results({"x": 1}, {"x": 2}).plot(ax=lower) is lower
    assert labels(upper) == ["price"]
    assert labels(lower) == ["x"]


def test_no_figure_is_shared_and_nothing_is_imported_before_it_is_needed() -> None:
    program = """
import sys
from run_task import TimeSeries
series = TimeSeries({"x": float})
series.append(1, x=1.0)
assert "matplotlib" not in sys.modules
series.plot()
assert "matplotlib.pyplot" not in sys.modules
import matplotlib.pyplot
assert not matplotlib.pyplot.get_fignums()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_without_matplotlib_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (prices(1).plot, prices(1).view().plot, results({"x": 1}).plot):
        with pytest.raises(ConfigError, match=r"needs matplotlib, .*pip install .*\[plot\]"):
            draw()


def test_nan_is_a_gap_and_what_stands_alone_is_a_point() -> None:
    series = TimeSeries({"x": float})
    gaps = np.arange(200.0)
    gaps[[50, 51, 100, 102]] = np.nan
    series.extend(range(200), x=gaps)
    axes = series.plot()
    assert np.isnan(values(axes)).tolist() == np.isnan(gaps).tolist()
    (points,) = (line for line in axes.lines if line not in lines(axes))
    assert np.asarray(points.get_ydata()).tolist() == [101.0]
    assert drawn(axes)


def test_results_at_the_ends_of_their_windows_with_gaps_for_errors() -> None:
    datasets = results({"mean": 1.5, "n": 1}, {"mean": ..., "n": 2}, {"mean": 2.5, "n": 3})
    axes = datasets.plot()
    assert labels(axes) == ["mean, 1 error", "n"]
    assert np.array_equal(values(axes), [1.5, np.nan, 2.5], equal_nan=True)
    assert [dates.num2date(x) for x in lines(axes)[0].get_xdata()] == [d.end_time for d in datasets]
    assert drawn(axes)

    @task
    def mean(data: object, start: int, end: int) -> float:
        return 0.0

    assert labels(datasets.plot(mean)) == ["mean, 1 error"]
    berlin = results({"x": 1}, interval=CalendarInterval.days(1, zone=ZoneInfo("Europe/Berlin")))
    assert berlin.plot().get_xlabel() == "Europe/Berlin"


def test_results_with_fields_have_a_line_for_each() -> None:
    rows = [
        {"spread": Spread(1.0, 2.0), "level": Level(1.5, 2), "by": {"a": 1}, "ratio": Decimal(1)},
        {"spread": Spread(2.0, 3.0), "level": ..., "by": {"b": 2}, "ratio": Decimal("0.5")},
    ]
    axes = results(*rows).plot()
    assert labels(axes) == [
        "spread_low",
        "spread_high",
        "level_bid, 1 error",
        "level_ask, 1 error",
        "by_a",
        "by_b",
        "ratio",
    ]
    assert values(axes, 1) == [2.0, 3.0]
    assert values(results(*rows).plot("by_b")) == pytest.approx([np.nan, 2.0], nan_ok=True)


def test_what_is_no_number_is_left_out_and_told() -> None:
    rows = {"x": 1.5, "side": "buy", "list": [1], "large": 2**2000, "none": None, "up": True}
    axes = results(rows).plot()
    assert labels(axes) == ["x", "up"]
    assert lines(axes)[1].get_drawstyle() == "steps-post"
    assert note(axes) == (
        "not drawn: side (str), list (list), large (ints beyond floats), none (no results)"
    )
    many = results({f"t{i}": "text" for i in range(7)} | {"x": 1})
    assert note(many.plot()).endswith("t3 (str), 3 more that are no numbers")
    series = TimeSeries({"x": float, "note": str, "raw": "S2", "at": "M8[s]"})
    series.append(1, x=1.0, note="a", raw=b"b", at=1)
    assert note(series.plot()) == "not drawn: note (texts), raw (bytes), at (times)"


def test_no_more_lines_than_can_be_told_apart_unless_they_are_asked_for() -> None:
    many = results(*({f"t{i}": i + second for i in range(14)} for second in range(3)))
    axes = many.plot()
    assert labels(axes) == [f"t{i}" for i in range(10)]
    assert note(axes) == "not drawn: 4 more columns"
    assert drawn(axes)
    names = [f"t{i}" for i in range(14)]
    assert labels(many.plot(*names)) == names


def test_a_line_a_key_of_those_that_have_the_most() -> None:
    kinds = {"symbol": str, "price": float, "size": int}
    for key, names in (("symbol", [f"K{i:02}" for i in range(12)]), ("size", range(12))):
        series = TimeSeries(kinds, TimeUnit.SECONDS, key=key)
        for place, name in enumerate(names):
            symbol, size = (name, 1) if key == "symbol" else ("A", name)
            for second in range(place + 1):
                series.append(NOON + second, symbol=symbol, price=float(place), size=size)
        axes = series.plot("price")
        assert labels(axes) == [str(name) for name in list(names)[2:]]
        assert values(axes) == [2.0, 2.0, 2.0]
        assert axes.get_ylabel() == "price"
        assert note(axes) == "not drawn: 2 more keys"
        chosen = series.plot("price", keys=[names[1], names[0]])
        assert labels(chosen) == [str(names[1]), str(names[0])]
        with pytest.raises(ConfigError, match="there is no number of 'none'"):
            series.plot(keys=["none"])
    two = TimeSeries({"symbol": str, "a": int, "b": int}, key="symbol")
    two.extend([1, 2], symbol=["X", "Y"], a=[1, 2], b=[3, 4])
    assert labels(two.plot()) == ["X a", "X b", "Y a", "Y b"]
    assert labels(two.view().between(1, 2).plot()) == ["a", "b"], "of one key there is no more"


def test_results_by_key() -> None:
    datasets = KeyedDataSets(
        KeyedDataSet(
            Window(NOON + i, NOON + i + 1),
            "symbol",
            {"mean": {f"K{j:02}": i + j for j in range(12) if j < 8 or i < 2}, "n": {"K00": i}},
            {("mean", "K11"): TaskError("mean", Window(NOON + i, NOON + i + 1))} if i > 1 else {},
            interval=SECOND,
        )
        for i in range(4)
    )
    axes = datasets.plot("mean")
    assert labels(axes)[:2] == ["K00, 2 errors", "K01, 2 errors"]
    assert len(labels(axes)) == 10
    assert note(axes) == "not drawn: 2 more keys"
    assert axes.get_ylabel() == "mean"
    assert drawn(axes)
    assert labels(datasets.plot("n", keys=["K00"])) == ["K00"]
    assert len(labels(datasets.plot())) == 10
    with pytest.raises(ConfigError, match="there is no number of 'K77'"):
        datasets.plot(keys=["K77"])
    with pytest.raises(ConfigError, match=r"keys= is given, and it has none"):
        prices(3).plot(keys=["a"])


def test_a_long_line_is_drawn_by_its_least_and_greatest_values() -> None:
    series = prices(100_000)
    series.append(NOON + 50_000, price=-500.0)
    axes = series.plot()
    assert len(values(axes)) == 4_000
    assert min(values(axes)) == -500.0
    assert max(values(axes)) == 99_999.0


@pytest.mark.parametrize(
    ("unit", "times", "expected"),
    [
        (TimeUnit.NANOS, [NOON * 10**9, NOON * 10**9 + 40], "ns after 2024-07-01T12:00:00Z"),
        (TimeUnit.SECONDS, [0, 2**50], "s after 1970-01-01T00:00:00Z"),
        (TimeUnit.MINUTES, [-(2**62), 2**62], f"m after {-(2**62)}"),
        (TimeUnit.SECONDS, [NOON], "UTC"),
    ],
)
def test_times_that_no_calendar_tells_are_numbers(
    unit: TimeUnit, times: list[int], expected: str
) -> None:
    series = TimeSeries({"x": int}, unit)
    series.extend(times, x=range(len(times)))
    axes = series.plot()
    assert axes.get_xlabel() == expected
    assert drawn(axes)
    left, right = axes.get_xlim()
    assert right - left < 365 or expected != "UTC", "around one row there are no years"


def test_windows_of_which_nobody_knows_the_unit_are_numbers() -> None:
    axes = results({"x": 1}, {"x": 2}, interval=None).plot()
    assert axes.get_xlabel() == "timestamp"
    assert np.asarray(lines(axes)[0].get_xdata()).tolist() == [NOON + 1, NOON + 2]


def test_what_cannot_be_drawn_is_refused() -> None:
    datasets = results({"x": 1, "side": "buy"})
    refused: Sequence[tuple[Callable[[], object], str]] = (
        (lambda: datasets.plot("y"), r"<1 DataSets, .*: there is no 'y', but x, side"),
        (lambda: datasets.plot("side"), "'side' is str, and no number"),
        (lambda: results({"side": "buy"}).plot(), r"numbers, and there is side \(str\)"),
        (lambda: DataSets[Any]().plot(), "numbers, and there is nothing"),
        (lambda: prices(1).plot("size"), "there is no 'size', but price"),
        (lambda: prices(1).plot(ax=3), "ax=3: it is the axes of a figure"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  as it says
    )
    for draw, message in refused:
        with pytest.raises(ConfigError, match=message):
            draw()


def test_no_rows_are_an_empty_picture() -> None:
    axes = TimeSeries({"x": float}).plot()
    assert note(axes) == "no rows"
    assert drawn(axes)


def test_rows_that_asof_found_none_for_are_left_out() -> None:
    axes = prices(3).view().asof([NOON - 5, NOON + 1, NOON + 2]).plot()
    assert values(axes) == [1.0, 2.0]
    with pytest.raises(ConfigError, match="in no order"):
        prices(3).view().asof([NOON + 1, NOON]).plot()
