"""Whether keys come again."""

from __future__ import annotations

from typing import Any, Final

from run_task.data.series._keyed_view import KeyedView
from run_task.observe._log import Log

_MANY: Final = 1_000
"""Of how many keys it is worth to know whether they come again; and they do once so many have."""

_WINDOWS: Final = 3
"""In how many windows they have had a chance to."""

_HARDLY: Final = 20
"""They hardly do if one in so many has."""

_log = Log(__name__)


class KeyCensus:
    """Sees whether keys come again in later windows. What does not, such as a time or the number of
    an order, is no key, and there is no end of it: that is told once.

    :param name: of the stage or runner
    :param by: the column of the key
    :param most: how many keys there may be
    """

    __slots__ = ("_again", "_by", "_most", "_name", "_seen", "_windows")

    def __init__(self, name: str, by: str, most: int) -> None:
        self._name = name
        self._by = by
        self._most = most
        self._seen: set[Any] | None = set()
        self._again = 0
        self._windows = 0

    def note(self, keyed: KeyedView) -> None:
        """Note the keys that have rows in a window.

        :param keyed: what its tasks see. Once it is known whether keys come again, it is not asked
            for them
        """
        seen = self._seen
        if seen is None or not (present := keyed.keys):
            return
        self._windows += 1
        before = len(seen)
        seen.update(present)
        self._again += len(present) - (len(seen) - before)
        if max(len(seen), self._again) < _MANY or self._windows < _WINDOWS:
            return
        self._seen = None  # it is known now
        if self._again * _HARDLY < len(seen):
            _log.warning(
                "%r: by=%r: %s keys have come in %d windows, and hardly any in two of them: is it "
                "a column of which values come again? Rows of more than %s keys are refused "
                "(max_keys)",
                *(self._name, self._by, f"{len(seen):,}", self._windows),
                f"{self._most:,}",
            )
