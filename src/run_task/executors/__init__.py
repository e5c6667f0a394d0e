"""How one tick's tasks are run."""

from run_task.executors._inline import InlineExecutor
from run_task.executors._protocol import Crew, Executor, Tick, Ticks
from run_task.executors.processes._executor import ProcessesExecutor
from run_task.executors.threads._executor import ThreadsExecutor

__all__ = [
    "Crew",
    "Executor",
    "InlineExecutor",
    "ProcessesExecutor",
    "ThreadsExecutor",
    "Tick",
    "Ticks",
]
