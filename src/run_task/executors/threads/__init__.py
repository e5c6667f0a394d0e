"""Tasks in threads of this process."""

from run_task.executors.threads._executor import ThreadsExecutor

__all__ = ["ThreadsExecutor"]
