"""Runs the tasks of a context at its interval."""

from run_task._public import present as _present
from run_task.runner._changes import Change
from run_task.runner._config import Align, Empty, OnError, RunnerConfig
from run_task.runner._context import Context, ContextBuilder, KeyedContext, KeyedContextBuilder
from run_task.runner._runner import Runner
from run_task.runner._stats import (
    CheckpointStats,
    Percentiles,
    PipelineStats,
    RunnerStats,
    ShardState,
    ShardStats,
    SinkStats,
    SourceStats,
)

__all__ = [
    "Align",
    "Change",
    "CheckpointStats",
    "Context",
    "ContextBuilder",
    "Empty",
    "KeyedContext",
    "KeyedContextBuilder",
    "OnError",
    "Percentiles",
    "PipelineStats",
    "Runner",
    "RunnerConfig",
    "RunnerStats",
    "ShardState",
    "ShardStats",
    "SinkStats",
    "SourceStats",
]

_present(globals())
