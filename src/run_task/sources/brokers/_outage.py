"""A broker that is away: how long to wait before the next try, and what is told of it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Final

from run_task.errors import described
from run_task.observe._format import seconds
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.observe._url import redacted

_log = Log(__name__)

_FIRST: Final = 0.1
_LONGEST: Final = 5.0


def not_again(reason: str, cure: str | None = None) -> str:
    """What is told where trying again does not help.

    :param reason: why, as the broker or its client says it
    :param cure: what to do; None: that is not known
    """
    told = f"{reason.rstrip('. ')}. It is not tried again"
    return told if cure is None else f"{told}: {cure}"


class Outage:
    """Whether a broker is away. Used by the thread, or in the event loop, that reads.

    The first failure is logged at once, later ones at most once a minute, and that it is back once
    it is. Between two tries lies twice as long as before, from 0.1 s to 5 s, of which a random half
    is left out: so those that lost the same broker do not come back all at once. Who waits that
    long does so by itself, since it may be in a thread or in an event loop, and is to be woken when
    it is closed.

    :param where: the source or sink, with the address and without secrets
    :param cure: what to look at, as ``"is Redis there?"``
    """

    def __init__(self, where: str, cure: str) -> None:
        self._where = where
        self._cure = cure
        self._failures = Recurrence()
        self._tries = 0
        self._since = 0.0  # by the monotonic clock
        self._told = False

    @property
    def on(self) -> bool:
        """Whether it is away. From any thread."""
        return self._tries > 0

    def failed(self, error: BaseException | str, secrets: Iterable[str] = ()) -> float:
        """It cannot be reached, or is no longer there.

        :param error: why
        :param secrets: texts that are not to be told, whatever the error says
        :return: how many seconds to wait before the next try
        """
        if not self._tries:
            self._since = time.monotonic()
        if count := self._failures.happen():
            self._told = True
            reason = error if isinstance(error, str) else described(error)
            more = "" if count == 1 else f", {count:,} times by now"
            _log.warning(
                "%s cannot be reached%s: %s. %s It is tried again until it is there",
                *(self._where, more, redacted(reason, secrets).rstrip("."), self._cure),
            )
        longest: float = min(_FIRST * 2.0 ** min(self._tries, 16), _LONGEST)
        self._tries += 1
        return longest * random.uniform(0.5, 1.0)

    def over(self) -> None:
        """It is there."""
        if self._tries and self._told:
            away = seconds(time.monotonic() - self._since)
            _log.warning("%s is there again, after %s", self._where, away)
        self._tries = 0
        self._told = False
