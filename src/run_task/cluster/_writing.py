"""Results that a shard writes by itself, and what its driver knows of that.

What writes them is sent to the shard as something that opens it there. So who declares sinks
decides what a sink is, and shards only know that results can be given to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from run_task.cluster._bytes import Packing, of_bytes
from run_task.cluster._messages import SinkSetup
from run_task.errors import ConfigError, described
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.tasks._keyed import ApartKeys, KeyedDataSet
from run_task.tasks._task import Runnable

_log = Log(__name__)

_AGAIN: Final = (1.0, 60.0)
"""For how many seconds a shard leaves a sink alone that has failed there: at first, and at most."""


class ResultWriter(Protocol):
    """What writes results in a shard."""

    def write(self, dataset: KeyedDataSet[Any, Any], /) -> str | None:
        """Make what a window gave last, of the keys that it has. Why it cannot be stored; None: it
        lasts.

        :raises Exception: if it is not known whether it lasts: then it is closed next
        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class ShardSink:
    """A sink as a shard has it: opened before the first result, and again after it has failed.

    :param setup: what it is
    """

    def __init__(self, setup: SinkSetup) -> None:
        self._opener = setup.opener
        self._writer: ResultWriter | None = None
        self._problem = ""
        self._again_at = 0.0  # by the monotonic clock
        self._pause = _AGAIN[0]

    def write(self, dataset: KeyedDataSet[Any, Any]) -> str | None:
        """Make what a window gave last. Why it is not known to; None: it lasts."""
        if self._problem and time.monotonic() < self._again_at:
            return self._problem
        try:
            problem = self._opened().write(dataset)
        except Exception as error:
            return self._failed(error)
        self._problem, self._pause = "", _AGAIN[0]
        return problem

    def open(self) -> None:
        """Open it. What is in the way is told with the first result."""
        try:
            self._opened()
        except Exception as error:
            self._failed(error)

    def _opened(self) -> ResultWriter:
        if self._writer is None:
            open_writer: Callable[[], ResultWriter] = of_bytes(self._opener)
            self._writer = open_writer()
        return self._writer

    def _failed(self, error: Exception) -> str:
        # Before it is answered: what its driver writes then comes after all that this has.
        self.close()
        self._problem = described(error)
        self._again_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _AGAIN[1])
        return self._problem

    def close(self) -> None:
        """Let go of it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):
                writer.close()


class ShardedWriting(Protocol):
    """A sink of a stage, to which shards write, as who declares it has it."""

    @property
    def number(self) -> int:
        """By what a DataSet tells of it what was written."""
        ...

    def opener(self, tasks: Sequence[Runnable[Any, Any]], /) -> Callable[[], ResultWriter]:
        """What opens it in a shard.

        :param tasks: those of the stage
        :raises ConfigError: if shards cannot write to it
        """
        ...

    def has_all(self, given_up: threading.Event, /) -> bool:
        """Wait until it has all of the stage that was given to who writes it here. Returns whether
        it has; or else it is away.

        :param given_up: set: nobody waits any more
        """
        ...

    def held(self) -> float:
        """The end of the last window that it has of the stage; infinitely long ago: it has none.

        :raises Exception: if it cannot be known
        """
        ...


class StageSinks:
    """The sinks to which shards write what they have of a stage.

    :param name: of the stage, for messages
    :param packing: how what opens them is pickled
    :param sinks: the sinks
    :param tasks: those of the stage
    :raises ConfigError: if one cannot be sent to shards; the message names it
    """

    def __init__(
        self,
        name: str,
        packing: Packing,
        sinks: Sequence[ShardedWriting],
        tasks: Sequence[Runnable[Any, Any]],
    ) -> None:
        self._name = name
        self._sinks = sinks
        self.setups: Sequence[SinkSetup] = tuple(
            SinkSetup(place, _packed(packing, name, sink, tasks))
            for place, sink in enumerate(sinks)
        )
        self._held: dict[int, float] = {}  # by place: before shards wrote
        self._unwritten = Recurrence()

    def that_take(self, given_up: threading.Event) -> Sequence[int]:
        """The places of those that shards are to write the next window to. Of others, what waits
        has to come first: so it replaces nothing that is newer, and a sink that has a window has
        all before it.

        :param given_up: set: nobody waits any more
        """
        found: list[int] = []
        for place, sink in enumerate(self._sinks):
            if not sink.has_all(given_up):
                continue
            if place not in self._held:
                try:
                    self._held[place] = sink.held()
                except Exception:
                    continue  # it is away, as its driver is about to see
            found.append(place)
        return found

    def told(self, places: Sequence[int]) -> str:
        """What shards are to write, and to which sinks, for messages; empty: none."""
        sinks = ", ".join(repr(self._sinks[place]) for place in places)
        return f"what stage {self._name!r} gives to {sinks}" if sinks else ""

    def apart(
        self, end: int, asked: Sequence[int], parts: Sequence[tuple[Sequence[Any], Collection[int]]]
    ) -> Mapping[int, ApartKeys]:
        """What of a window was written by shards.

        :param end: where the window ends
        :param asked: the places of the sinks that were to be written to
        :param parts: of each part of the keys, these, and the places of those that have them not
        """
        found: dict[int, ApartKeys] = {}
        for place in asked:
            left = [key for keys, without in parts if place in without for key in keys]
            elsewhere: Collection[Any] | None = None
            if end <= self._held[place]:  # it may have keys of which there are no results now
                elsewhere = frozenset(
                    key for keys, without in parts if place not in without for key in keys
                )
            found[self._sinks[place].number] = ApartKeys(left, elsewhere)
        return found

    def note(self, shard: str, unwritten: Mapping[int, str]) -> None:
        """Tell of what a shard did not write."""
        for place, why in unwritten.items():
            if times := self._unwritten.happen():
                _log.warning(
                    "stage %r: %s could not write to %r, and this process writes what it gave "
                    "(%d times since this was told last): %s",
                    *(self._name, shard, self._sinks[place], times, why),
                )


def _packed(
    packing: Packing, stage: str, sink: ShardedWriting, tasks: Sequence[Runnable[Any, Any]]
) -> bytes:
    opener = sink.opener(tasks)
    try:
        return packing.sent_whole(opener)
    except Exception as error:
        raise ConfigError(
            f"stage {stage!r}: sink {sink!r} cannot be sent to a shard ({described(error)}): leave "
            f"sharded=True out, or give it only what can be pickled"
        ) from error
