"""Shared data as a replay has it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from run_task.data import Atom, TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief

_NONE: Final[Mapping[int, Any]] = MappingProxyType({})


class Copies:
    """Copies of shared data: one of each, however often it is asked for, and also where one is part
    of another.

    :param data: what to copy, as it is now
    :param begun: by the ids of some, what their copies are: each is as it was earlier
    :raises ConfigError: if it cannot be copied
    """

    def __init__(self, data: Iterable[Any], begun: Mapping[int, Any] = _NONE) -> None:
        by_id = {id(shared): shared for shared in data}
        self._memo = _Memo(by_id)
        self._memo.update(begun)
        self._apart = {
            key for key, shared in by_id.items() if isinstance(shared, (Atom, TimeSeries))
        }
        for key, shared in by_id.items():
            self._memo.found.clear()
            self.of(shared)
            inside = self._memo.found - {key}
            self._apart -= {*inside, key} if inside else set()

    def of(self, shared: Any) -> Any:
        """The copy of it.

        :raises ConfigError: if it cannot be copied
        """
        try:
            return copy.deepcopy(shared, self._memo)
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"a replay has copies of the shared data, and {brief(shared)} cannot be copied "
                f"({brief(error)}): give it a __deepcopy__, or keep out of it what belongs to this "
                f"process, such as a lock or an open file"
            ) from error

    def is_apart(self, shared: Any) -> bool:
        """Whether its copy changes only by what enters it, and only its own readers see that.

        Not if it is part of other data, or contains some, or is of a kind of which that is not
        known.
        """
        return id(shared) in self._apart


class _Memo(dict[int, Any]):
    """What was copied, by its id; it notes which of some objects were met on the way.

    :param watched: the ids of these objects
    """

    def __init__(self, watched: Iterable[int]) -> None:
        super().__init__()
        self._watched = frozenset(watched)
        self.found: set[int] = set()

    def get(self, key: int, default: Any = None, /) -> Any:
        if key in self._watched:
            self.found.add(key)
        return super().get(key, default)
