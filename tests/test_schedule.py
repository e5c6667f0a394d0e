from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, MissedTick, Schedule, Window

# The timelines of tokio's tests of tokio::time::interval (tests/time_interval.rs): a period of
# 300 ms, polled 1 ms after the first ticks, then 650 ms late.
TIMELINES: dict[MissedTick, list[tuple[int, list[int]]]] = {
    MissedTick.BURST: [
        (1, [0]),
        (101, []),
        (301, [300]),
        (951, [600, 900]),
        (1151, []),
        (1251, [1200]),
        (1501, [1500]),
        (1801, [1800]),
    ],
    # The window that tokio's DELAY hands out at 1251 is the next on the grid, [600, 900).
    MissedTick.DELAY: [
        (1, [0]),
        (101, []),
        (301, [300]),
        (951, [600]),
        (1151, []),
        (1250, []),
        (1251, [900]),
        (1550, []),
        (1551, [1200]),
    ],
    MissedTick.SKIP: [
        (1, [0]),
        (101, []),
        (301, [300]),
        (951, [600]),
        (1151, []),
        (1251, [1200]),
        (1501, [1500]),
        (1801, [1800]),
    ],
    MissedTick.COALESCE: [
        (1, [0]),
        (101, []),
        (301, [300]),
        (951, [900]),
        (1151, []),
        (1251, [1200]),
        (1501, [1500]),
        (1801, [1800]),
    ],
}


def drain(schedule: Schedule, now: int) -> list[Window]:
    windows: list[Window] = []
    while (window := schedule.poll(now)) is not None:
        windows.append(window)
    return windows


@pytest.mark.parametrize("missed", MissedTick)
def test_follows_the_timeline_of_tokio(missed: MissedTick) -> None:
    schedule = Schedule(300, 0, missed)
    for now, ends in TIMELINES[missed]:
        assert [window.end for window in drain(schedule, now)] == ends, f"at {now}"


def test_coalesce_covers_all_that_was_due_and_skip_counts_what_it_left_out() -> None:
    coalesce, skip = (Schedule(300, 0, m) for m in (MissedTick.COALESCE, MissedTick.SKIP))
    for schedule in (coalesce, skip):
        drain(schedule, 301)
        schedule.poll(301)
    assert drain(coalesce, 951) == [Window(300, 900)]
    assert drain(skip, 951) == [Window(300, 600)]
    assert (coalesce.skipped, skip.skipped) == (0, 2)


def test_the_default_is_burst() -> None:
    schedule = Schedule(300, 0)
    assert [window.end for window in drain(schedule, 951)] == [0, 300, 600, 900]


polls = st.lists(st.integers(-1_000, 20_000), max_size=60)  # in any order: clocks step


@given(
    st.sampled_from([MissedTick.BURST, MissedTick.DELAY, MissedTick.COALESCE]),
    st.integers(1, 500),
    st.integers(-1_000, 1_000),
    polls,
)
def test_windows_tile_time(missed: MissedTick, period: int, start: int, polls: list[int]) -> None:
    schedule = Schedule(period, start, missed)
    end = start - period
    for now in polls:
        deadline = schedule.deadline
        window = schedule.poll(now)
        assert (window is not None) == (now >= deadline)
        if window is None:
            continue
        assert window.start == end
        end = window.end
        assert end <= now
        length = window.end - window.start
        assert length % period == 0
        assert length == period or missed is MissedTick.COALESCE


@given(st.integers(1, 500), st.integers(-1_000, 1_000), polls)
def test_skip_hands_out_or_counts_every_window(period: int, start: int, polls: list[int]) -> None:
    schedule = Schedule(period, start, MissedTick.SKIP)
    given_out = 0
    for now in polls:
        window = schedule.poll(now)
        if window is None:
            continue
        given_out += 1
        assert window.end - window.start == period
        assert (window.end - start) % period == 0
        assert schedule.deadline > now
        assert (schedule.deadline - start) // period == given_out + schedule.skipped


@given(st.integers(1, 500), polls)
def test_delay_leaves_a_period_between_two_once_it_is_behind(period: int, polls: list[int]) -> None:
    schedule = Schedule(period, 0, MissedTick.DELAY)
    for now in sorted(polls):
        overdue = now - schedule.deadline
        if schedule.poll(now) is not None and overdue >= period:
            assert schedule.deadline == now + period


@pytest.mark.parametrize("period", [0, -5, 2.5, True, None])
def test_refuses_a_period_that_is_no_positive_int(period: Any) -> None:
    with pytest.raises(ConfigError, match="period"):
        Schedule(period, 0)
