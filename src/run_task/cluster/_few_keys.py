"""Whether there are fewer keys than shards, which is known once rows have come."""

from __future__ import annotations

from typing import Any, Final

from run_task.data.series._keyed_view import KeyedView
from run_task.observe._log import Log

_WINDOWS: Final = 10
"""In how many windows keys have had a chance to come."""

_log = Log(__name__)


class FewKeys:
    """Counts the keys of a stage until it is known whether there is one at least for each shard. If
    not, shards have nothing to do: that is told once.

    :param name: of the stage
    :param shards: how many shards there are
    """

    def __init__(self, name: str, shards: int) -> None:
        self._name = name
        self._shards = shards
        self._seen: set[Any] | None = set()
        self._windows = 0

    def note(self, keyed: KeyedView) -> None:
        """Note the keys that have rows in a window.

        :param keyed: what its tasks see. Once enough are known, it is not asked for them
        """
        seen = self._seen
        if seen is None or not (keys := keyed.keys):
            return
        if len(keys) >= self._shards:
            self._seen = None
            return
        seen.update(keys)
        self._windows += 1
        if len(seen) >= self._shards:
            self._seen = None
        elif self._windows == _WINDOWS:
            self.tell()

    def tell(self) -> None:
        """Tell of those that have come so far, if they are too few."""
        seen, self._seen = self._seen, None
        if not seen:
            return
        count, left = len(seen), self._shards - len(seen)
        _log.warning(
            "stage %r: %d key%s in %d window%s: fewer than the %d shards, of which %d %s nothing "
            "to do for it: give %d at most",
            *(self._name, count, "" if count == 1 else "s", self._windows),
            *("" if self._windows == 1 else "s", self._shards, left),
            *("has" if left == 1 else "have", count),
        )
