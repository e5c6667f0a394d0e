"""Live analytics in one process: typed tasks, run at an interval over data that keeps changing."""

import logging
from typing import TYPE_CHECKING

from run_task._public import present as _present
from run_task._version import __version__ as __version__
from run_task.data import Access, Atom, Closed, RwLock, Shared, TimeSeries, TimeSeriesView
from run_task.errors import (
    ChannelClosed,
    ConfigError,
    LockTimeout,
    RunTaskError,
    ShutdownTimeout,
    SinkError,
    SourceError,
    TaskError,
    TaskLost,
    TaskTimeout,
)
from run_task.executors import Executor, InlineExecutor, ProcessesExecutor, ThreadsExecutor
from run_task.runner import (
    Align,
    Change,
    Context,
    ContextBuilder,
    Empty,
    KeyedContext,
    KeyedContextBuilder,
    OnError,
    Percentiles,
    PipelineStats,
    Runner,
    RunnerConfig,
    RunnerStats,
    SourceStats,
)
from run_task.sync import Overflow, Receiver, Sender, channel
from run_task.tasks import (
    DataSet,
    DataSets,
    Keyed,
    KeyedDataSet,
    KeyedDataSets,
    Runnable,
    StatefulTask,
    Task,
    acollect,
    collect,
    task,
)
from run_task.time import (
    CalendarInterval,
    Clock,
    MissedTick,
    Schedule,
    SystemClock,
    TaskInterval,
    TimeUnit,
    VirtualClock,
    Window,
)

if TYPE_CHECKING:
    from run_task.pipeline import DeadLetter, KeyedStage, Pipeline, Replay, ReplaySummary, Stage
    from run_task.sinks import Layout
    from run_task.sources import Arrived

__all__ = [
    "Access",
    "Align",
    "Arrived",
    "Atom",
    "CalendarInterval",
    "Change",
    "ChannelClosed",
    "Clock",
    "Closed",
    "ConfigError",
    "Context",
    "ContextBuilder",
    "DataSet",
    "DataSets",
    "DeadLetter",
    "Empty",
    "Executor",
    "InlineExecutor",
    "Keyed",
    "KeyedContext",
    "KeyedContextBuilder",
    "KeyedDataSet",
    "KeyedDataSets",
    "KeyedStage",
    "Layout",
    "LockTimeout",
    "MissedTick",
    "OnError",
    "Overflow",
    "Percentiles",
    "Pipeline",
    "PipelineStats",
    "ProcessesExecutor",
    "Receiver",
    "Replay",
    "ReplaySummary",
    "RunTaskError",
    "Runnable",
    "Runner",
    "RunnerConfig",
    "RunnerStats",
    "RwLock",
    "Schedule",
    "Sender",
    "Shared",
    "ShutdownTimeout",
    "SinkError",
    "SourceError",
    "SourceStats",
    "Stage",
    "StatefulTask",
    "SystemClock",
    "Task",
    "TaskError",
    "TaskInterval",
    "TaskLost",
    "TaskTimeout",
    "ThreadsExecutor",
    "TimeSeries",
    "TimeSeriesView",
    "TimeUnit",
    "VirtualClock",
    "Window",
    "acollect",
    "channel",
    "collect",
    "task",
]

# A library says nothing unless it is asked to.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_present(
    globals(),
    on_demand={
        "Arrived": "sources",
        "DeadLetter": "pipeline",
        "KeyedStage": "pipeline",
        "Layout": "sinks",
        "Pipeline": "pipeline",
        "Replay": "pipeline",
        "ReplaySummary": "pipeline",
        "Stage": "pipeline",
    },
)
