from __future__ import annotations

import dataclasses
import math
import threading
from datetime import timedelta
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
        "data_timeout": 5.0,
        "upstream_timeout": 5.0,
        "task_timeout": None,
        "shutdown_timeout": 5.0,
        "on_error": OnError.RECORD,
        "missed_tick": MissedTick.BURST,
        "executor": "threads",
        "workers": None,
        "window": None,
        "grace": None,
        "align": Align.EPOCH,
        "empty": None,
        "channel_capacity": None,  # deprecated, as is the next
        "overflow": None,
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
        ("data_timeout", 0),
        ("data_timeout", None),
        ("data_timeout", math.inf),
        ("upstream_timeout", "1s"),
        ("task_timeout", -1),
        ("task_timeout", math.nan),
        ("shutdown_timeout", "5"),
        ("shutdown_timeout", True),
        ("on_error", None),
        ("missed_tick", "burst"),
        ("executor", "thread"),
        ("executor", 3),
        ("executor", InlineExecutor),
        ("workers", 0),
        ("window", 60),
        ("grace", "soon"),
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


def test_window_and_grace_may_be_timedeltas_and_texts() -> None:
    config = RunnerConfig(window="5m", grace=timedelta(milliseconds=1500))
    assert config.window == TaskInterval.seconds(300)
    assert config.grace == TaskInterval.millis(1500)
    assert dataclasses.replace(config, name="other").window == config.window


def test_the_old_name_of_two_timeouts() -> None:
    with pytest.warns(DeprecationWarning, match="data_timeout and upstream_timeout") as warned:
        config = RunnerConfig(lock_timeout=0.5)
    assert warned[0].filename == __file__
    assert (config.data_timeout, config.upstream_timeout) == (0.5, 0.5)
    assert config == RunnerConfig(data_timeout=0.5, upstream_timeout=0.5)
    assert config.lock_timeout == 0.5
    again = dataclasses.replace(config, name="again", data_timeout=2.0)  # warns no more
    assert (again.data_timeout, again.upstream_timeout) == (2.0, 0.5)
    for field in ("data_timeout", "upstream_timeout"):
        both: dict[str, Any] = {field: 1.0, "lock_timeout": 2.0}
        with pytest.raises(ConfigError, match=rf"lock_timeout=2.0.*old name of {field}"):
            RunnerConfig(**both)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [("channel_capacity", 7, r"capacity=\.\.\."), ("overflow", Overflow.DROP_OLDEST, r"overflow=")],
)
def test_what_is_said_of_the_channel_now(field: str, value: Any, told: str) -> None:
    arguments: dict[str, Any] = {field: value}
    with pytest.warns(DeprecationWarning, match=rf"ContextBuilder.with_channel\({told}"):
        config = RunnerConfig(**arguments)
    assert getattr(config, field) is value


@pytest.mark.parametrize("timeout", [1e10, 1e12, 1e300, 10**400])
def test_an_enormous_timeout_is_one_that_every_wait_can_count(timeout: Any) -> None:
    config = RunnerConfig(
        data_timeout=timeout,
        upstream_timeout=timeout,
        task_timeout=timeout,
        shutdown_timeout=timeout,
    )
    seconds = config.data_timeout
    assert 30 * 365 * 86_400 < seconds < threading.TIMEOUT_MAX / 2
    assert config.upstream_timeout == config.task_timeout == config.shutdown_timeout == seconds
