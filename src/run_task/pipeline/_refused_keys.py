"""A result by key that a sink refuses, since it cannot store what is of some of the keys: it is
written without these, so that they cost no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from run_task.errors import SinkError
from run_task.pipeline._result_parts import of_keys
from run_task.sinks._protocol import Result, Sink
from run_task.tasks._keyed import KeyedDataSet

_MOST: Final = 16
"""How many keys are looked for at most: if there are more, it is likely not for the keys."""


class RefusedKeys:
    """Which keys of a result a sink cannot store. It is found out by writing parts of it, each in
    the place of the one before, as a durable sink takes them.

    :param sink: the sink
    :param result: the result, which it has refused
    """

    def __init__(self, sink: Sink, result: Result) -> None:
        self._sink = sink
        self._result = result
        self.problems: dict[Any, SinkError] = {}
        """What the sink has said of each key that it cannot store."""
        self._is_over = False

    def written(self) -> Result | None:
        """Write all that can be stored. Returns what that is; None: nothing, or it is not known.

        :raises Exception: what the sink raises, other than a SinkError
        """
        dataset = self._result.dataset
        if not isinstance(dataset, KeyedDataSet):
            return None
        keys = dataset.keys_of_rows
        # Where others write a part of the window, nothing may be left of this one.
        is_part = self._result.elsewhere is None or len(self._result.elsewhere) > 0
        most = len(keys) if is_part else len(keys) - 1
        if most < 1:
            return None
        middle = len(keys) // 2
        self._look(keys[:middle])
        self._look(keys[middle:])
        if self._is_over or not 0 < len(self.problems) <= most:
            return None
        rest = of_keys(self._result, [key for key in keys if key not in self.problems])
        try:
            self._sink.write(rest)
        except SinkError:
            return None
        return rest

    def refused(self, key: Any) -> Result:
        """What the sink has refused of a key."""
        return of_keys(self._result, [key], of_all=False)

    def _look(self, keys: Sequence[Any]) -> None:
        """Find those among some keys that cannot be stored."""
        if self._is_over:
            return
        try:
            self._sink.write(of_keys(self._result, keys))
        except SinkError as error:
            if len(keys) == 1:
                self.problems[keys[0]] = error
                self._is_over = len(self.problems) > _MOST
                return
            middle = len(keys) // 2
            self._look(keys[:middle])
            self._look(keys[middle:])
