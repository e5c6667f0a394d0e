"""Runners, sources and sinks wired together."""

from run_task._public import present as _present
from run_task.pipeline._dead_letters import DeadLetter
from run_task.pipeline._pipeline import Pipeline
from run_task.pipeline._report import HtmlReport, report
from run_task.pipeline._stage import KeyedStage, Stage
from run_task.pipeline.checkpoint._folder import FolderStore
from run_task.pipeline.checkpoint._sql import SqlStore
from run_task.pipeline.checkpoint._store import CheckpointStore
from run_task.pipeline.replay._replay import Replay, ReplaySummary
from run_task.pipeline.replay._sink_replacement import RecomputeSummary

__all__ = [
    "CheckpointStore",
    "DeadLetter",
    "FolderStore",
    "HtmlReport",
    "KeyedStage",
    "Pipeline",
    "RecomputeSummary",
    "Replay",
    "ReplaySummary",
    "SqlStore",
    "Stage",
    "report",
]

_present(globals())
