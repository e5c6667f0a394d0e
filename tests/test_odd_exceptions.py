"""Exceptions that refuse what exceptions allow, raised by tasks: with every executor."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
from tests.support.bench import RunnerBench

from run_task import TaskLost, task

by_executor = pytest.mark.parametrize("executor", ["inline", "threads", "processes"])


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Refuses(Exception):
    """Nothing can be assigned to it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.__dict__["code"] = code

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TypeError(f"{name} is not to be set")


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class FrozenSlots(Refuses):
    __slots__ = ("other",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        object.__setattr__(self, "other", code)


class WithoutNotes(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def add_note(self, note: str, /) -> None:
        raise SystemExit(note)


class WithoutTraceback(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def with_traceback(self, tb: object, /) -> NoReturn:
        raise SystemExit("no traceback")


class Unreadable(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


KINDS: list[Any] = [
    Frozen,
    Refuses,
    Slotted,
    FrozenSlots,
    WithoutNotes,
    WithoutTraceback,
    Unreadable,
]


class Raises:
    """A task that raises an exception of a kind."""

    def __init__(self, kind: Any) -> None:
        self.name: str = kind.__name__
        self.kind = kind

    def run(self, data: object, start: int, end: int) -> NoReturn:
        raise self.kind(7)


@task
def quick(data: object, start: int, end: int) -> int:
    return end


@by_executor
def test_they_are_the_cause_of_their_tasks_errors_and_cost_nothing_else(
    executor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench = RunnerBench(
        [*map(Raises, KINDS), quick], executor=executor, workers=1, task_timeout=10.0
    )
    with bench.runner:
        for end in (1, 2, 3):
            dataset = bench.next()
            assert dataset.to_dict() == {"quick": end}
            for kind in KINDS:
                error = dataset.errors[kind.__name__]
                cause: Any = error.__cause__
                assert type(cause) is kind
                assert cause.code == 7
                assert not isinstance(error, TaskLost)
                assert kind.__name__ in str(error)
                if executor == "processes":
                    (note,) = getattr(cause, "__notes__", None) or error.__notes__
                    assert note.startswith("in the worker process:\nTraceback")
    # The log could be written, and so could what it is about.
    assert "Unreadable, whose own text raises SystemExit" in caplog.text
