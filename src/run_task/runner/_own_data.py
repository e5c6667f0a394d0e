"""Results that are the data itself, which would change after they were given.

A task may return the very object that stands in an ``RwLock``: a dict, say, that goes on being
changed. Its DataSet, once received, would change with it. Such a result is refused.

To look at each result would be a good part of what a cheap tick costs. But a result is a reference:
so as long as there are as many references to the data after a tick as there were after the one
before, no task has returned it, and that is one look a tick, however many tasks there are. Only if
somebody lets go of the data in the very tick in which a task returns it for the first time, it is
missed. Where it has happened once, every result is looked at from then on.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import Any, Final

from run_task._window import Window
from run_task.data._several import Several
from run_task.errors import TaskError
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet

references: Final = sys.getrefcount

_UNKNOWN: Final = -1
"""A number of references that there never is."""

_STATELESS: Final = (type(None), types.FunctionType, types.BuiltinFunctionType, type)


class OwnData:
    """Sees to one runner's results.

    :param shared: where the data comes from

    :ivar references: how many references to the data there were after a tick none of whose results
        was the data
    """

    __slots__ = ("_changing", "_found", "references")

    def __init__(self, shared: object) -> None:
        self.references: int = _UNKNOWN
        # Of several inputs these are looked at after every tick: the tuple of them is another each
        # time, so references to it tell nothing.
        self._changing: Sequence[int] | None = None
        if isinstance(shared, Several):
            self._changing = shared.changing
        self._found = self._changing is not None

    def refuse(self, dataset: AnyDataSet, data: Any) -> AnyDataSet:
        """Look at each result of a tick.

        :param dataset: what the tasks gave
        :param data: what they were given, and what others change
        :return: the same, or one in which results that are the data are errors of their tasks
        """
        if self._changing is None:
            changing = [data] if _may_change(data) else []
        else:
            changing = [data[i] for i in self._changing if _may_change(data[i])]
            changing += [data] if changing else []
        if not changing:
            return dataset
        if not isinstance(dataset, DataSet):
            return self._refuse_of_keys(dataset, changing)
        own = [name for name, value in dataset.items() if any(value is one for one in changing)]
        if not own:
            return dataset
        self._found = True
        errors = dict(dataset.errors)
        for name in own:
            errors[name] = _refused(name, dataset.window, dataset[name])
        values = {name: value for name, value in dataset.items() if name not in own}
        timing = dataset.durations, dataset.lateness, dataset.took
        rest = dataset.behind, dataset.starts, dataset.interval
        return DataSet(dataset.window, values, errors, *timing, *rest)

    def _refuse_of_keys(
        self, dataset: KeyedDataSet[Any, Any], changing: Sequence[Any]
    ) -> KeyedDataSet[Any, Any]:
        """The same of results by key."""
        errors = dict(dataset.errors)
        values = dataset.to_dict()
        for name, of_task in dataset.items():
            for key, value in of_task.items():
                if any(value is one for one in changing):
                    del values[name][key]
                    errors[name, key] = _refused(name, dataset.window, value, key)
        if len(errors) == len(dataset.errors):
            return dataset
        self._found = True
        rest = dataset.durations, dataset.lateness, dataset.took, dataset.behind, dataset.interval
        return KeyedDataSet(dataset.window, dataset.by, values, errors, *rest)

    def settle(self, count: int) -> None:
        """Take the number of references that there are now for what is usual."""
        self.references = _UNKNOWN if self._found else count


def _refused(name: str, window: Window, value: object, key: Any = None) -> TaskError:
    reason = (
        f"it returned the data itself, of type {type(value).__name__}, which changes after the "
        f"window: return a copy, or what is wanted of it"
    )
    return TaskError(name, window, reason, key)


def _may_change(value: Any) -> bool:
    """Whether an object may be changed in place: such objects have no hash of their value."""
    if isinstance(value, _STATELESS) or type(value) is object:
        return False
    hashed: object = type(value).__hash__
    return hashed is None or hashed is object.__hash__
