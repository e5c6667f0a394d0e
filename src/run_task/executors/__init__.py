"""How one tick's tasks are run."""

from run_task.executors.inline import InlineExecutor
from run_task.executors.processes import ProcessesExecutor
from run_task.executors.protocol import Crew, Executor, Tick, Ticks
from run_task.executors.threads import ThreadsExecutor

__all__ = [
    "Crew",
    "Executor",
    "InlineExecutor",
    "ProcessesExecutor",
    "ThreadsExecutor",
    "Tick",
    "Ticks",
]
