"""Whether a tick begins with helpers: without threads, and without time."""

from __future__ import annotations

import pytest

from run_task.executors.threads._helper_policy import MIN_GAIN, SLOW, Help, HelperPolicy

CHEAP = {0: SLOW / 4, 1: SLOW / 4}
EIGHT = dict.fromkeys(range(8), 0.001)
ALONE, TOGETHER = 0.008, 0.004


def alone(policy: HelperPolicy, costs: dict[int, float] = EIGHT) -> None:
    """A tick that its leader has alone, as the threads executor tells of it."""
    took = sum(costs.values())
    if took <= SLOW:
        policy.slow = False
    elif policy.is_worth_a_look():
        policy.learn(costs, took, Help.NONE)


def slow_twice(tasks: int = 8, workers: int = 2) -> HelperPolicy:
    """One that has seen two slow ticks in a row."""
    policy = HelperPolicy(tasks, workers)
    alone(policy)
    assert not policy.wanted, "one alone may have lost the processor"
    alone(policy)
    assert policy.wanted
    return policy


def helped(policy: HelperPolicy, took: float, times: int = 1) -> None:
    for _ in range(times):
        assert policy.wanted
        policy.learn(EIGHT, took, Help.FULL)


def test_cheap_ticks_have_no_help() -> None:
    policy = HelperPolicy(2, workers=2)
    for _ in range(10):
        alone(policy, CHEAP)
    assert not policy.wanted


def test_slow_ticks_apart_have_no_help() -> None:
    policy = HelperPolicy(8, workers=2)
    for _ in range(10):
        alone(policy)
        alone(policy, CHEAP)
    assert not policy.wanted


def test_help_that_pays_goes_on() -> None:
    policy = slow_twice()
    helped(policy, TOGETHER, 1000)


@pytest.mark.parametrize("took", [ALONE, 1.2 * ALONE, 0.95 * ALONE])
def test_help_that_does_not_pay_is_tried_less_and_less_often(took: float) -> None:
    policy = slow_twice()
    rests: list[int] = []
    for _ in range(12):
        helped(policy, took, 3)
        assert not policy.wanted
        rest = 0
        while not policy.wanted:
            alone(policy)
            rest += 1
        rests.append(rest - 1)  # the last one is looked at
    assert rests == [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096, 4096]


def test_the_best_of_a_trial_counts() -> None:
    policy = slow_twice()
    helped(policy, 3 * ALONE)  # a first one starts threads
    helped(policy, ALONE)
    helped(policy, TOGETHER)
    helped(policy, ALONE)  # the verdict stands
    assert policy.wanted


def test_help_that_pays_again_is_tried_soon_after_it_does_not() -> None:
    policy = slow_twice()
    for pays in (False, False, True):
        helped(policy, TOGETHER if pays else ALONE, 3)
        while not policy.wanted:
            alone(policy)
    helped(policy, TOGETHER, 1024 - 3)
    assert not policy.wanted, "one in a thousand begins without help, to see what that takes"
    alone(policy)
    helped(policy, ALONE, 3)
    assert not policy.wanted
    for _ in range(16):
        alone(policy)
        assert not policy.wanted
    alone(policy)
    assert policy.wanted


def test_ticks_that_become_cheap_have_no_help_any_more() -> None:
    policy = slow_twice()
    policy.learn(CHEAP, 0.0003, Help.FULL)
    assert not policy.wanted


def test_late_help_tells_nothing_of_what_a_tick_takes_without() -> None:
    policy = HelperPolicy(8, workers=2)
    for _ in range(2):
        policy.learn(EIGHT, ALONE, Help.LATE)
    helped(policy, ALONE, 1000)  # there is nothing to judge by


def test_late_help_ends_a_rest_too() -> None:
    policy = slow_twice()
    helped(policy, ALONE, 3)
    for _ in range(16):
        policy.learn(EIGHT, ALONE, Help.LATE)
        assert not policy.wanted
    policy.learn(EIGHT, ALONE, Help.LATE)
    assert policy.wanted


def test_one_dear_task_cannot_be_helped_with() -> None:
    policy = HelperPolicy(3, workers=4)
    costs = {0: MIN_GAIN / 4, 1: 0.02, 2: MIN_GAIN / 4}
    for _ in range(3):
        alone(policy, costs)
    assert not policy.wanted
    assert list(policy.order) == [1, 0, 2]


def test_the_costliest_task_is_taken_first() -> None:
    policy = HelperPolicy(4, workers=2)
    for _ in range(2):
        alone(policy, {0: 0.001, 1: 0.004, 2: 0.002, 3: 0.003})
    assert list(policy.order) == [1, 3, 2, 0]
