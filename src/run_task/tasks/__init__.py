"""What is run, and what comes of it."""

from run_task._public import present as _present
from run_task.tasks._alert import Alert, alert
from run_task.tasks._collect import DataSets, KeyedDataSets, acollect, collect
from run_task.tasks._dataset import DataSet
from run_task.tasks._decorator import task
from run_task.tasks._keyed import Keyed, KeyedDataSet
from run_task.tasks._stateful import StatefulTask
from run_task.tasks._task import Runnable, Task

__all__ = [
    "Alert",
    "DataSet",
    "DataSets",
    "Keyed",
    "KeyedDataSet",
    "KeyedDataSets",
    "Runnable",
    "StatefulTask",
    "Task",
    "acollect",
    "alert",
    "collect",
    "task",
]

_present(globals())
