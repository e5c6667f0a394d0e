"""What is learned from ticks: without threads, and without time."""

from __future__ import annotations

import pytest

from run_task.executors.threads._helper_policy import DEAR, WORTH_HELP, Experience, Help

CHEAP = {0: DEAR / 4, 1: DEAR / 4}
EIGHT = dict.fromkeys(range(8), 0.001)
ALONE, TOGETHER = 0.008, 0.004


def alone(experience: Experience, costs: dict[int, float] = EIGHT) -> None:
    """A tick that its leader has alone, as the threads executor tells of it."""
    took = sum(costs.values())
    if took <= DEAR:
        experience.slow = False
    elif experience.is_news():
        experience.learn(costs, took, Help.NONE)


def dear(tasks: int = 8, workers: int = 2) -> Experience:
    """One that has seen two slow ticks in a row."""
    experience = Experience(tasks, workers)
    alone(experience)
    assert not experience.dear, "one alone may have lost the processor"
    alone(experience)
    assert experience.dear
    return experience


def helped(experience: Experience, took: float, times: int = 1) -> None:
    for _ in range(times):
        assert experience.dear
        experience.learn(EIGHT, took, Help.FULL)


def test_cheap_ticks_have_no_help() -> None:
    experience = Experience(2, workers=2)
    for _ in range(10):
        alone(experience, CHEAP)
    assert not experience.dear


def test_slow_ticks_apart_have_no_help() -> None:
    experience = Experience(8, workers=2)
    for _ in range(10):
        alone(experience)
        alone(experience, CHEAP)
    assert not experience.dear


def test_help_that_pays_goes_on() -> None:
    experience = dear()
    helped(experience, TOGETHER, 1000)


@pytest.mark.parametrize("took", [ALONE, 1.2 * ALONE, 0.95 * ALONE])
def test_help_that_does_not_pay_is_tried_less_and_less_often(took: float) -> None:
    experience = dear()
    rests: list[int] = []
    for _ in range(12):
        helped(experience, took, 3)
        assert not experience.dear
        rest = 0
        while not experience.dear:
            alone(experience)
            rest += 1
        rests.append(rest - 1)  # the last one is looked at
    assert rests == [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096, 4096]


def test_the_best_of_a_trial_counts() -> None:
    experience = dear()
    helped(experience, 3 * ALONE)  # a first one starts threads
    helped(experience, ALONE)
    helped(experience, TOGETHER)
    helped(experience, ALONE)  # the verdict stands
    assert experience.dear


def test_help_that_pays_again_is_tried_soon_after_it_does_not() -> None:
    experience = dear()
    for pays in (False, False, True):
        helped(experience, TOGETHER if pays else ALONE, 3)
        while not experience.dear:
            alone(experience)
    helped(experience, TOGETHER, 1024 - 3)
    assert not experience.dear, "one in a thousand begins without help, to see what that takes"
    alone(experience)
    helped(experience, ALONE, 3)
    assert not experience.dear
    for _ in range(16):
        alone(experience)
        assert not experience.dear
    alone(experience)
    assert experience.dear


def test_ticks_that_become_cheap_have_no_help_any_more() -> None:
    experience = dear()
    experience.learn(CHEAP, 0.0003, Help.FULL)
    assert not experience.dear


def test_late_help_tells_nothing_of_what_a_tick_takes_without() -> None:
    experience = Experience(8, workers=2)
    for _ in range(2):
        experience.learn(EIGHT, ALONE, Help.LATE)
    helped(experience, ALONE, 1000)  # there is nothing to judge by


def test_late_help_ends_a_rest_too() -> None:
    experience = dear()
    helped(experience, ALONE, 3)
    for _ in range(16):
        experience.learn(EIGHT, ALONE, Help.LATE)
        assert not experience.dear
    experience.learn(EIGHT, ALONE, Help.LATE)
    assert experience.dear


def test_one_dear_task_cannot_be_helped_with() -> None:
    experience = Experience(3, workers=4)
    costs = {0: WORTH_HELP / 4, 1: 0.02, 2: WORTH_HELP / 4}
    for _ in range(3):
        alone(experience, costs)
    assert not experience.dear
    assert list(experience.order) == [1, 0, 2]


def test_the_dearest_task_is_taken_first() -> None:
    experience = Experience(4, workers=2)
    for _ in range(2):
        alone(experience, {0: 0.001, 1: 0.004, 2: 0.002, 3: 0.003})
    assert list(experience.order) == [1, 3, 2, 0]
