"""Async tasks are refused, by executors that cannot run them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from run_task.errors import ConfigError
from run_task.tasks._task import Runnable, called


def refuse_async(tasks: Iterable[Runnable[Any, Any]]) -> None:
    """See whether all tasks are synchronous.

    :param tasks: the tasks of one runner
    :raises ConfigError: if one is not
    """
    for task in tasks:
        if inspect.iscoroutinefunction(called(task.run)):
            raise ConfigError(
                f"task {task.name!r} is async, which this executor cannot run: a task computes and "
                f"does not wait; await in a feed that writes to the data, and make run() a plain "
                f"function, or give an executor of your own that runs coroutines"
            )
