"""Runners, sources and sinks wired together."""

from run_task._public import present as _present
from run_task.pipeline._dead_letters import DeadLetter
from run_task.pipeline._pipeline import Pipeline
from run_task.pipeline._stage import KeyedStage, Stage
from run_task.pipeline.replay._replay import Replay, ReplaySummary

__all__ = [
    "DeadLetter",
    "KeyedStage",
    "Pipeline",
    "Replay",
    "ReplaySummary",
    "Stage",
]

_present(globals())
