"""Runners, sources and sinks wired together."""

from run_task.pipeline.pipeline import Pipeline
from run_task.pipeline.stage import Stage

__all__ = ["Pipeline", "Stage"]
