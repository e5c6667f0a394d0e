"""What is tried again: how often, after which waits, and what becomes of it in the end."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import Final

from run_task.errors import ConfigError
from run_task.time._length import IntervalLike, plain_length

_DOUBLINGS: Final = 62
"""After so many, a wait is longer than any that can be asked for."""


class Then(enum.Enum):
    """What is done where trying again did not help."""

    RAISE = "raise"
    """The error is raised: it ends what failed."""

    DROP = "drop"
    """What cannot be delivered is left out and counted, and the rest goes on."""


@dataclass(frozen=True)
class Retry:
    """How often something that failed is tried again.

    ::

        stage.sink(sink, retry=Retry(attempts=20, longest="10s"))
        pipeline.source(feed, into=trades, retry=Retry())

    The wait doubles with each failure in a row, and a random half of it is left out, so that many
    programs do not come back to a server all at once: after the n-th failure it is between a half
    of ``min(wait * 2**(n-1), longest)`` and that.

    :param attempts: how many times in a row something may fail: the last of these is not followed
        by another attempt. 1: it is not tried again; None: it is tried for ever
    :param wait: how long to wait after the first failure, at most
    :param longest: how long to wait at most, however often it failed
    :param then: what is done after the last attempt
    :raises ConfigError: if it cannot be followed
    """

    attempts: int | None = None
    wait: IntervalLike = "100ms"
    longest: IntervalLike = "30s"
    then: Then = Then.RAISE

    def __post_init__(self) -> None:
        given: object = self.attempts
        if given is not None and (type(given) is not int or given < 1):
            raise ConfigError(f"Retry(attempts={given!r}): it is a positive int, or None: for ever")
        wait = plain_length(self.wait, "Retry(wait={})")
        longest = plain_length(self.longest, "Retry(longest={})")
        if longest.nanos < wait.nanos:
            raise ConfigError(
                f"Retry(wait={self.wait!r}, longest={self.longest!r}): the first wait is longer "
                f"than the longest: give longest= at least as much"
            )
        if not isinstance(self.then, Then):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"Retry(then={self.then!r}): it is Then.RAISE or Then.DROP")

    def is_over(self, failures: int) -> bool:
        """Whether it is tried no more.

        :param failures: how many times in a row it has failed
        """
        return self.attempts is not None and failures >= self.attempts

    def wait_after(self, failures: int) -> float:
        """How many seconds to wait before the next attempt.

        :param failures: how many times in a row it has failed, at least once
        """
        wait_ns = plain_length(self.wait, "wait={}").nanos
        longest_ns = plain_length(self.longest, "longest={}").nanos
        most_ns = min(wait_ns << min(failures - 1, _DOUBLINGS), longest_ns)
        return random.uniform(0.5, 1.0) * most_ns / 1e9
