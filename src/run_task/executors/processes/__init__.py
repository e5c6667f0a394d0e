"""Tasks in worker processes."""

from run_task.executors.processes._executor import ProcessesExecutor

__all__ = ["ProcessesExecutor"]
