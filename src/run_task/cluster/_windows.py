"""The windows of a stage on their way to shards, and those that a shard has missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from run_task.cluster._link import ShardLost
from run_task.cluster._messages import ShardReply, StageSetup
from run_task.data.series._view import TimeSeriesView

LOOK: Final = 0.1
"""After how many seconds whoever waits looks whether it is still to wait."""

MOST_MISSED: Final = 1024
"""How many windows of a stage a shard that is away is to catch up with: their rows are kept."""


class GivenUp(ShardLost):
    """A shard runs what nobody waits for any more, so that it has to be ended."""


class WindowRun(NamedTuple):
    """A window that shards are to run."""

    stage: StageOnShards
    window: tuple[int, int]
    views: Mapping[int, TimeSeriesView]
    """What it is to see of each series, by feed."""

    values: Mapping[int, bytes]
    """Of inputs that are no series, by place."""

    sinks: Sequence[int] = ()
    """Those of the stage's sinks that shards are to write to, by place."""

    told: str = ""
    """What it is that shards write to, for messages."""


class NoAnswer(NamedTuple):
    """A shard that gave nothing for a window."""

    reason: str | None
    """Why its keys have no result: it was lost again and again. None: it is away."""


class ShardAnswer(NamedTuple):
    """What became of a window in a shard."""

    reply: ShardReply | NoAnswer
    caught_up: Sequence[ShardReply] = ()
    """What the windows gave, in order, that it had missed before."""


class StageOnShards:
    """A stage as the driver has it. All of it under the lock of the cluster.

    :param setup: what a shard is told of it, once
    :param begin: makes what a shard begins with: the states of its keys as they are
    """

    def __init__(self, setup: StageSetup, begin: Callable[[int], bytes]) -> None:
        self.number: Final = setup.stage
        """What shards call it."""
        self.name: Final = setup.name
        self._setup = setup
        self._begin = begin
        self._known: dict[int, int] = {}  # by shard, in which of its lives it was told
        self._begun: dict[int, int] = {}  # the same, in which it was told what to begin with
        self._missed: dict[int, list[WindowRun]] = {}  # by shard
        self._before: dict[int, bytes] = {}  # what such a shard begins with, before the first

    def is_known(self, shard: int, life: int) -> bool:
        """Whether a shard was told of it in one of its lives."""
        return self._known.get(shard) == life

    def setup(self, shard: int, life: int) -> StageSetup | None:
        """What a shard has to be told of it; None: it was. It counts as told."""
        if self.is_known(shard, life):
            return None
        self._known[shard] = life
        return self._setup

    def begin(self, shard: int, life: int) -> bytes | None:
        """What a shard has to begin with in its next window; None: it has begun. It counts as
        told."""
        if self._begun.get(shard) == life:
            return None
        self._begun[shard] = life
        before = self._before.get(shard)
        return self._begin(shard) if before is None else before

    def renew(self, shard: int) -> None:
        """A shard is to be told of it once more, with the states as they are then."""
        self._known.pop(shard, None)
        self._begun.pop(shard, None)

    def miss(self, shard: int, run: WindowRun) -> bool:
        """Note that a window went without a shard. Returns whether it can still catch up."""
        missed = self._missed.setdefault(shard, [])
        if not missed:
            self._before[shard] = self._begin(shard)
        missed.append(run._replace(sinks=(), told=""))  # sinks have it without this shard
        if len(missed) <= MOST_MISSED:
            return True
        self.caught_up(shard)
        return False

    def missed(self, shard: int) -> Sequence[WindowRun]:
        """The windows that a shard has to run first."""
        return tuple(self._missed.get(shard, ()))

    def caught_up(self, shard: int) -> None:
        """A shard has run these windows, or is not to run them any more."""
        self._missed.pop(shard, None)
        self._before.pop(shard, None)


def result_of(future: Future[ShardReply], given_up: threading.Event) -> ShardReply:
    """What a shard answers.

    :param given_up: set: nobody waits for it any more
    :raises ShardLost: if it is gone
    :raises GivenUp: if nobody waits
    """
    while True:
        try:
            return future.result(LOOK)
        except TimeoutError:
            if future.done():
                raise
            if given_up.is_set():
                raise GivenUp("a window that it runs is given up") from None
