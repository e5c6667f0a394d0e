from __future__ import annotations

from typing import Any

import pytest

from run_task import ConfigError, Task, task


def rate(data: list[float], start: int, end: int) -> float:
    """Events a second."""
    return len(data) / (end - start)


def test_a_task_has_the_name_of_its_function_and_stays_callable() -> None:
    made = task(rate)
    assert made.name == "rate"
    assert made.__doc__ == "Events a second."
    assert made([1.0, 2.0], 0, 4) == made.run([1.0, 2.0], 0, 4) == 0.5
    assert repr(made) == "<Task 'rate'>"


def test_a_task_may_be_given_a_name() -> None:
    assert task(name="events/s")(rate).name == Task(rate, "events/s").name == "events/s"


def test_a_callable_without_a_name_is_named_for_what_it_is() -> None:
    class Rate:
        def __call__(self, data: list[float], start: int, end: int) -> float:
            return 1.0

        def __repr__(self) -> str:
            return "Rate()"

    assert Task(Rate()).name == "Rate()"


@pytest.mark.parametrize("function", [5, "mean", None])
def test_a_task_is_made_of_what_can_be_called(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"made of a function \(data, start, end\)"):
        Task(function)
