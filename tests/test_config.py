from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from run_task import (
    Align,
    ConfigError,
    InlineExecutor,
    MissedTick,
    OnError,
    Overflow,
    RunnerConfig,
    TaskInterval,
)


def test_the_defaults() -> None:
    config = RunnerConfig()
    assert dataclasses.asdict(config) == {
        "name": "runner",
        "channel_capacity": 1024,
        "overflow": Overflow.BLOCK,
        "lock_timeout": 5.0,
        "task_timeout": None,
        "shutdown_timeout": 5.0,
        "on_error": OnError.RECORD,
        "missed_tick": MissedTick.BURST,
        "executor": "threads",
        "workers": None,
        "window": None,
        "grace": None,
        "align": Align.EPOCH,
    }
    assert config.worker_count >= 1


def test_is_frozen() -> None:
    config: Any = RunnerConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("channel_capacity", 0),
        ("channel_capacity", 1.5),
        ("channel_capacity", True),
        ("overflow", "block"),
        ("lock_timeout", 0),
        ("lock_timeout", None),
        ("lock_timeout", math.inf),
        ("task_timeout", -1),
        ("task_timeout", math.nan),
        ("shutdown_timeout", "5"),
        ("shutdown_timeout", True),
        ("on_error", None),
        ("missed_tick", "burst"),
        ("executor", "thread"),
        ("executor", 3),
        ("workers", 0),
        ("window", 60),
        ("grace", "1s"),
        ("align", "epoch"),
    ],
)
def test_refuses_what_cannot_be_and_names_it(field: str, value: Any) -> None:
    arguments: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError) as caught:
        RunnerConfig(**arguments)
    assert f"RunnerConfig({field}={value!r})" in str(caught.value)


def test_takes_an_executor_and_other_settings() -> None:
    executor = InlineExecutor()
    config = RunnerConfig(
        executor=executor,
        workers=3,
        task_timeout=1,
        window=TaskInterval.minutes(1),
        grace=TaskInterval.seconds(1),
    )
    assert config.executor_instance is executor
    assert config.worker_count == 3
