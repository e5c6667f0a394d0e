from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import (
    CalendarInterval,
    ConfigError,
    RunnerConfig,
    Schedule,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    Window,
)

intervals = st.builds(TaskInterval, st.integers(1, 10**6), st.sampled_from(TimeUnit))


@pytest.mark.parametrize(
    ("interval", "unit", "micros", "millis", "secs"),
    [
        (TaskInterval.nanos(1_999), TimeUnit.NANOS, 1, 0, 0),
        (TaskInterval.micros(1_500), TimeUnit.MICROS, 1_500, 1, 0),
        (TaskInterval.millis(2_999), TimeUnit.MILLIS, 2_999_000, 2_999, 2),
        (TaskInterval.seconds(5), TimeUnit.SECONDS, 5_000_000, 5_000, 5),
        (TaskInterval.minutes(2), TimeUnit.MINUTES, 120_000_000, 120_000, 120),
        (TaskInterval.hours(1), TimeUnit.MINUTES, 3_600_000_000, 3_600_000, 3_600),
        (TaskInterval.days(1), TimeUnit.MINUTES, 86_400_000_000, 86_400_000, 86_400),
        (TaskInterval.weeks(1), TimeUnit.MINUTES, 604_800_000_000, 604_800_000, 604_800),
    ],
)
def test_converts_and_rounds_down(
    interval: TaskInterval, unit: TimeUnit, micros: int, millis: int, secs: int
) -> None:
    assert interval.unit is unit
    assert interval.as_micros() == micros
    assert interval.as_millis() == millis
    assert interval.as_secs() == secs
    assert interval.as_timedelta() == timedelta(microseconds=micros)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "1", None])
def test_refuses_a_count_that_is_no_positive_int(count: Any) -> None:
    with pytest.raises(ConfigError, match="positive int"):
        TaskInterval.seconds(count)
    with pytest.raises(ConfigError, match="positive int, not " + repr(count)):
        TaskInterval.weeks(count)
    with pytest.raises(ConfigError, match="positive int"):
        TaskInterval.nanos(count)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: TaskInterval.parse("9" * 5000 + "s"), "it has 5,000 digits, and 100 are the most"),
        (lambda: TaskInterval.parse("0." + "9" * 5000 + "s"), "it has 5,001 digits"),
        (lambda: TaskInterval.parse("9" * 50 + "s"), "fits in 64 bits"),
        (lambda: TaskInterval.seconds(10**5000), "and not <int of 16,610 bits>"),
        (lambda: TaskInterval.seconds(-(10**5000)), "not <int of 16,610 bits>"),
        (lambda: TaskInterval.seconds(5, offset="9" * 5000 + "s"), "it has 5,000 digits"),
        (lambda: CalendarInterval.days(10**5000), "days(<int of 16,610 bits>)"),
        (lambda: RunnerConfig(grace="9" * 5000 + "s"), "it has 5,000 digits"),
        (lambda: TimeSeries({"v": float}, retention=10**5000), "<int of 16,610 bits>"),
        (lambda: TimeSeries({"v": float}, retention="9" * 5000 + "s"), "it has 5,000 digits"),
        (lambda: Schedule(-(10**5000), 0), "<int of 16,610 bits>"),
    ],
)
def test_numbers_of_thousands_of_digits_are_refused_in_a_few_words(
    made: Callable[[], object], told: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        made()
    assert len(str(refused.value)) < 700


def test_refuses_a_unit_that_is_none() -> None:
    unit: Any = "s"
    with pytest.raises(ConfigError, match="TimeUnit"):
        TaskInterval(1, unit)


@given(intervals)
def test_parses_what_it_prints(interval: TaskInterval) -> None:
    again = TaskInterval.parse(str(interval))
    assert (again.count, again.unit) == (interval.count, interval.unit)
    assert eval(repr(interval)) == interval


@pytest.mark.parametrize(
    "text", ["", "s", "5", "5y", "-5s", ".5s", "1.s", "1,5s", "0s", "0.0s", "٣s", "5s5s", "1e3s"]
)
def test_refuses_a_text_that_is_no_interval(text: str) -> None:
    with pytest.raises(ConfigError):
        TaskInterval.parse(text)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("7ns", TaskInterval.nanos(7)),
        ("1.5s", TaskInterval.millis(1_500)),
        (" 1.0 s ", TaskInterval.seconds(1)),
        ("0.1us", TaskInterval.nanos(100)),
        ("0.000000001s", TaskInterval.nanos(1)),
        ("2.5m", TaskInterval.seconds(150)),
        ("1h", TaskInterval.minutes(60)),
        ("1.5h", TaskInterval.minutes(90)),
        ("0.001h", TaskInterval.millis(3_600)),
        ("1d", TaskInterval.days(1)),
        ("1w", TaskInterval.weeks(1)),
        ("60m", TaskInterval.minutes(60)),
        ("5000ms", TaskInterval.millis(5_000)),
    ],
)
def test_a_fraction_takes_the_unit_that_holds_it_and_what_is_longer_than_a_unit_minutes(
    text: str, interval: TaskInterval
) -> None:
    assert TaskInterval.parse(text) == interval


@given(st.integers(0, 10**9), st.integers(0, 10**9 - 1))
def test_reads_fractions_exactly(whole: int, nanos: int) -> None:
    if whole or nanos:
        assert TaskInterval.parse(f"{whole}.{nanos:09}s").nanos == whole * 10**9 + nanos


def test_refuses_less_than_a_nanosecond() -> None:
    with pytest.raises(ConfigError, match="whole number of nanoseconds"):
        TaskInterval.parse("0.0001us")


@given(intervals, intervals)
def test_orders_by_length_and_then_by_unit(one: TaskInterval, other: TaskInterval) -> None:
    if one.nanos != other.nanos:
        assert one != other
        assert (one < other) is (one.nanos < other.nanos)
    else:
        assert (one == other) is (one.unit is other.unit)
        assert (one < other) is (one.unit.nanos < other.unit.nanos)
    assert (one <= other) is not (one > other)


def test_the_same_length_in_two_units_is_two_intervals() -> None:
    second, millis = TaskInterval.seconds(1), TaskInterval.millis(1000)
    assert second != millis
    assert second.nanos == millis.nanos
    assert millis < second
    assert len({second, millis, TaskInterval.seconds(1), TaskInterval.millis(1000)}) == 2


def test_does_not_compare_with_other_things() -> None:
    assert TaskInterval.seconds(1) != 1
    number: Any = 1
    with pytest.raises(TypeError):
        assert TaskInterval.seconds(1) < number


def test_is_frozen() -> None:
    interval: Any = TaskInterval.seconds(1)
    with pytest.raises(AttributeError):
        interval.count = 2
    with pytest.raises(AttributeError):
        interval.other = 2


def test_a_window_is_a_pair() -> None:
    start, end = Window(3, 5)
    assert (start, end) == (3, 5)
