"""What is tried again: how often, and after which waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, Retry, TaskInterval, Then


def test_waits_double_up_to_the_longest_and_a_random_half_of_each_is_left_out() -> None:
    retry = Retry(wait="100ms", longest="1s")
    for failures, most in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0), 1):
        waits = [retry.wait_after(failures) for _ in range(200)]
        assert most / 2 <= min(waits) < 0.7 * most < 0.8 * most < max(waits) <= most


@given(st.integers(1, 10**9))
def test_no_wait_is_longer_than_the_longest_however_often_it_failed(failures: int) -> None:
    assert 15 <= Retry().wait_after(failures * 100) <= 30


def test_it_is_over_after_as_many_failures_in_a_row_as_there_are_attempts() -> None:
    assert [Retry(3).is_over(failures) for failures in (1, 2, 3, 4)] == [False, False, True, True]
    assert Retry(1).is_over(1)
    assert not Retry(None).is_over(10**9)


def test_lengths_are_taken_in_each_form_that_intervals_have() -> None:
    for wait in ("2s", timedelta(seconds=2), TaskInterval.seconds(2)):
        assert 1 <= Retry(wait=wait, longest=timedelta(minutes=1)).wait_after(1) <= 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"attempts": 0}, r"Retry\(attempts=0\): it is a positive int, or None"),
        ({"attempts": True}, "it is a positive int"),
        ({"attempts": 1.5}, "it is a positive int"),
        ({"wait": 1}, r"Retry\(wait=1\): it is a TaskInterval"),
        ({"wait": "0s"}, "wait="),
        ({"longest": "soon"}, r"Retry\(longest='soon'\)"),
        ({"wait": "1m", "longest": "1s"}, "the first wait is longer than the longest"),
        ({"then": "drop"}, "it is Then.RAISE or Then.DROP"),
    ],
)
def test_what_cannot_be_followed_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Retry(**given)


def test_it_is_a_value() -> None:
    assert Retry(5, "1s", "10s", then=Then.DROP) == Retry(5, "1s", "10s", Then.DROP)
    assert len({Retry(5), Retry(5), Retry(6)}) == 2
    with pytest.raises(AttributeError):
        setattr(Retry(), "attempts", 2)  # noqa: B010  # an assignment is an error to type checkers
