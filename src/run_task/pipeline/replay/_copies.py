"""Shared data as a replay has it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from run_task.errors import ConfigError
from run_task.observe._format import brief


class Copies:
    """Copies of shared data: one of each, however often it is asked for.

    :param data: what to copy, as it is now
    :raises ConfigError: if it cannot be copied
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._copies: dict[int, Any] = {}
        for shared in data:
            self.of(shared)

    def of(self, shared: Any) -> Any:
        """The copy of it.

        :raises ConfigError: if it cannot be copied
        """
        try:
            return copy.deepcopy(shared, self._copies)
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"a replay has copies of the shared data, and {brief(shared)} cannot be copied "
                f"({brief(error)}): give it a __deepcopy__, or keep out of it what belongs to this "
                f"process, such as a lock or an open file"
            ) from error
