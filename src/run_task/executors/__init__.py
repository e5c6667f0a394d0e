"""How one tick's tasks are run."""

from run_task._public import present as _present
from run_task.data.series._keyed_view import KeyedView
from run_task.executors._inline import InlineExecutor
from run_task.executors._protocol import (
    Crew,
    Executor,
    Hanging,
    KeyedExecutor,
    LeadingCrew,
    SucceedingCrew,
    Ticks,
    drive,
    driver,
    failed,
)
from run_task.executors.processes._executor import ProcessesExecutor
from run_task.executors.threads._executor import ThreadsExecutor
from run_task.tasks._tick import Tick, TickParts

__all__ = [
    "Crew",
    "Executor",
    "Hanging",
    "InlineExecutor",
    "KeyedExecutor",
    "KeyedView",
    "LeadingCrew",
    "ProcessesExecutor",
    "SucceedingCrew",
    "ThreadsExecutor",
    "Tick",
    "TickParts",
    "Ticks",
    "drive",
    "driver",
    "failed",
]

_present(globals())
