"""Whether a source keeps a replay waiting: one that does not end may give nothing for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from run_task.observe._format import seconds
from run_task.observe._log import Log

_log = Log(__name__)

SILENCE_S: Final = 5.0
"""For how many seconds a source gives nothing before the log says so."""

_PAUSE_S: Final = 1.0
"""After how many seconds to look whether a source has been asked, if none is being waited for."""


class AwaitingReader(Protocol):
    """Who asks a source for rows."""

    @property
    def name(self) -> str:
        """The source, for messages."""
        ...

    @property
    def asked_s(self) -> float | None:
        """Since when it has been waiting for rows, in seconds of the monotonic clock; None: it is
        not."""
        ...

    @property
    def given(self) -> int:
        """How many rows have come since, where they come one by one."""
        ...


class Silence:
    """Tells the log, once a silence, of sources that give nothing for long while they are asked.

    A replay that nobody asks for its next result asks no source, and so that is no silence.

    :param readers: who asks them
    :param limit_s: for how many seconds a source may give nothing
    :param clock: the monotonic clock, in seconds
    """

    def __init__(
        self,
        readers: Sequence[AwaitingReader],
        limit_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = [_AskedSource(reader, limit_s) for reader in readers]
        self._clock = clock

    def look(self) -> float:
        """Tell of sources that have given nothing for too long.

        :return: in how many seconds to look again
        """
        now_s = self._clock()
        return min(source.look(now_s) for source in self._sources)


class _AskedSource:
    def __init__(self, reader: AwaitingReader, limit_s: float) -> None:
        self._reader = reader
        self._limit_s = limit_s
        self._seen: tuple[float, int] | None = None  # when it was asked, and what had come since
        self._since_s = 0.0
        self._told = False

    def look(self, now_s: float) -> float:
        asked_s, given = self._reader.asked_s, self._reader.given
        if asked_s is None:
            return _PAUSE_S
        if self._seen != (asked_s, given):
            self._seen = asked_s, given
            self._since_s = now_s if given else asked_s
            self._told = False
        left_s = self._since_s + self._limit_s - now_s
        if left_s > 0:
            return left_s
        if not self._told:
            self._told = True
            _log.warning(
                "%s: the replay has been waiting for %s for rows of it: a source that does not end "
                "is for run(), which takes rows as they come",
                *(self._reader.name, seconds(self._limit_s)),
            )
        return _PAUSE_S
