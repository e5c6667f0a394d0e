"""A function as a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.sinks._protocol import Result
from run_task.tasks._call import misfit


class CallbackSink:
    """Calls a function with each DataSet.

    ::

        stage.sink(CallbackSink(lambda stage, dataset: print(stage, dataset)))

    It is called in the thread that writes, which waits for it. A ``SinkError`` of it says that it
    has no use for this DataSet: that is counted and logged, and the run goes on. What else it
    raises is tried again, or ends the run, as for every sink: then it is called again with this
    DataSet, and not with those before.

    :param fn: called with the stage's name and its DataSet; of a stage by key, a KeyedDataSet
    :raises ConfigError: if it cannot be called with these two
    """

    takes_at_once: Final = True
    """What it was called with has been dealt with."""

    def __init__(self, fn: Callable[[str, Any], object]) -> None:
        if not callable(fn):
            raise ConfigError(f"CallbackSink({fn!r}): it takes a callable of (stage, dataset)")
        if problem := misfit(fn, "stage", None):
            raise ConfigError(
                f"CallbackSink({fn!r}): it cannot be called with (stage, dataset): {problem}"
            )
        self._fn = fn

    def write(self, result: Result, /) -> None:
        """Call the function."""
        self._fn(result.stage, result.dataset)

    def flush(self) -> None:
        """Nothing: what was written has been dealt with."""

    def close(self) -> None:
        """Nothing: there is nothing open."""

    def __repr__(self) -> str:
        return f"CallbackSink({getattr(self._fn, '__name__', None) or brief(self._fn)})"
