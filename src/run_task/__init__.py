"""Live analytics in one process: typed tasks, run at an interval over data that keeps changing."""

import logging

from run_task.channel import Overflow, Receiver, Sender, channel
from run_task.clock import Clock, SystemClock, VirtualClock
from run_task.collect import DataSets, acollect, collect
from run_task.config import Align, OnError, RunnerConfig
from run_task.context import Context, ContextBuilder
from run_task.dataset import DataSet
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
from run_task.interval import TaskInterval, TimeUnit, Window
from run_task.pipeline import Pipeline, Stage
from run_task.runner import Runner
from run_task.schedule import MissedTick, Schedule
from run_task.shared import Access, Atom, RwLock, Shared, TimeSeries, TimeSeriesView
from run_task.stats import Percentiles, PipelineStats, RunnerStats
from run_task.task import Runnable, Task, task

__all__ = [
    "Access",
    "Align",
    "Atom",
    "ChannelClosed",
    "Clock",
    "ConfigError",
    "Context",
    "ContextBuilder",
    "DataSet",
    "DataSets",
    "Executor",
    "InlineExecutor",
    "LockTimeout",
    "MissedTick",
    "OnError",
    "Overflow",
    "Percentiles",
    "Pipeline",
    "PipelineStats",
    "ProcessesExecutor",
    "Receiver",
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
    "Stage",
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

__version__ = "0.1.0"

# A library says nothing unless it is asked to.
logging.getLogger(__name__).addHandler(logging.NullHandler())
