"""What shared data was like before a pipeline changed it, so that history can begin as it did."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from run_task.data import Atom, RwLock, TimeSeries
from run_task.errors import ConfigError, LockTimeout
from run_task.observe._format import brief

_CONTAINERS: Final = list, dict, set, deque, defaultdict, Counter, OrderedDict
_PLAIN: Final = type(None), bool, int, float, complex, str, bytes

_LONGEST_S: Final = 1.0
"""How many seconds to wait for a lock."""


class Before:
    """What data was like before a pipeline changed it. Nothing big is kept for that: a series that
    had no rows is known, an Atom, and a lock of a number, a text or an empty container.

    :param data: the data
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._begun: dict[int, Any] = {}
        self._data: list[Any] = []  # kept, so that their ids stay their own
        self.note(data)

    def note(self, data: Iterable[Any]) -> None:
        """More data is going to be changed; what is known of some already stays so."""
        for one in data:
            if id(one) not in self._begun:
                self._begun[id(one)] = _as_it_is(one)
                self._data.append(one)

    def knows(self, data: object) -> bool:
        """Whether it is known what it was like."""
        return self._begun.get(id(data)) is not None

    def begun(self, entered: Iterable[Any]) -> Mapping[int, Any]:
        """Data as it was: others like them, by the ids of these.

        :param entered: the data that rows and results enter
        :raises ConfigError: if it is not known of all what they were like
        """
        made: dict[int, Any] = {}
        for data in entered:
            before = self._begun.get(id(data))
            if before is None:
                raise ConfigError(
                    f"{brief(data)} is not known any more as it was before rows entered it: take "
                    f"a pipeline that has not been run, or have data in its place that begins "
                    f"empty, such as a TimeSeries"
                )
            made[id(data)] = copy.deepcopy(before)
        return made

    def is_unchanged(self, entered: Iterable[Any]) -> bool:
        """Whether nothing has entered some data by now, as far as is known."""
        return all(
            isinstance(data, TimeSeries) and self.knows(data) and not data.view()
            for data in entered
        )


def _as_it_is(data: Any) -> Any:
    """A copy of it; None: there is none that is as small as that."""
    if isinstance(data, TimeSeries):
        return None if data.view() else data.emptied()
    shared: Any = data  # of which the types are not known
    if isinstance(data, Atom):
        return copy.deepcopy(shared)
    if isinstance(data, RwLock):
        try:
            with shared.read(_LONGEST_S) as value:
                if type(value) in _PLAIN or (type(value) in _CONTAINERS and not value):
                    return RwLock(copy.copy(value))
        except LockTimeout:
            return None
    return None
