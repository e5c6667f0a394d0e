"""Sinks that shards write to, as a stage declares them by ``sharded=True``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._sink_start import output_of
from run_task.pipeline._stage import AnyStage
from run_task.sinks._in_shards import PartWriterOpener
from run_task.sinks._protocol import ShardedSink, Sink
from run_task.tasks._task import Runnable

HasAll: TypeAlias = Callable[[Sink, str, threading.Event], bool]
"""Waits until a sink has all that was given to who writes to it of the stage of a name. Returns
whether it has; not: it is away, or nobody waits any more."""


class StageSinkOnShards:
    """A sink to which shards write what they have of a stage.

    :param pipeline: the pipeline's name
    :param stage: the stage
    :param sink: the sink
    :param has_all: waits until a sink has all of a stage, as :class:`HasAll` says
    :param other_machines: whether shards may be on other machines
    """

    def __init__(
        self,
        pipeline: str,
        stage: AnyStage,
        sink: Sink,
        has_all: HasAll,
        *,
        other_machines: bool,
    ) -> None:
        self._pipeline = pipeline
        self._stage = stage
        self._sink: Any = sink
        self._has_all = has_all
        self._other_machines = other_machines
        self.number: Final = id(sink)

    def opener(self, tasks: Sequence[Runnable[Any, Any]]) -> PartWriterOpener:
        """What opens it in a shard.

        :param tasks: those of the stage
        :raises ConfigError: if shards cannot write to it; the message names it
        """
        stage, sink = self._stage, self._sink
        if not isinstance(sink, ShardedSink):
            raise ConfigError(
                f"stage {stage.name!r}: sink={brief(sink)}: sharded=True is for a sink of which a "
                f"window's keys can be replaced by themselves, as an SqlSink: take one, or leave "
                f"sharded=True out, so that this process writes to it"
            )
        if getattr(sink.for_shards, "__self__", sink) is not sink:
            raise ConfigError(
                f"stage {stage.name!r}: sink={brief(sink)}: sharded=True: its for_shards is that "
                f"of the sink that it is around, which shards would write to past it: give it a "
                f"for_shards() of its own, or leave sharded=True out"
            )
        output = output_of(self._pipeline, stage, tasks)
        try:
            opened = sink.for_shards(output, other_machines=self._other_machines)
        except ConfigError as error:
            raise ConfigError(
                f"stage {stage.name!r}: sink={brief(sink)}: sharded=True: {error}"
            ) from None
        return PartWriterOpener(opened, output)

    def has_all(self, given_up: threading.Event) -> bool:
        """Wait until it has all of the stage that was given to who writes it here. Returns whether
        it has; or else it is away.

        :param given_up: set: nobody waits any more
        """
        return self._has_all(self._sink, self._stage.name, given_up)

    def held(self) -> float:
        """The end of the last window that it has of the stage; infinitely long ago: it has none.

        :raises Exception: if it cannot be known
        """
        last: int | None = self._sink.last(self._stage.name)
        return float("-inf") if last is None else last

    def __repr__(self) -> str:
        return brief(self._sink)


def check_sharded(
    pipeline: str, stage: AnyStage, sink: Sink, tasks: Sequence[Runnable[Any, Any]]
) -> None:
    """See whether shards can write to a sink what they have of a stage.

    :param pipeline: the pipeline's name
    :param tasks: those of the stage
    :raises ConfigError: if they cannot
    """
    if stage.keys is None:
        raise ConfigError(
            f"stage {stage.name!r}: sink={brief(sink)}: sharded=True is for a stage by key, whose "
            f"keys shards share: give the stage by=, or leave sharded=True out"
        )
    StageSinkOnShards(pipeline, stage, sink, at_once, other_machines=False).opener(tasks)


def at_once(_sink: Sink, _stage: str, _given_up: threading.Event) -> bool:
    """Nothing is given to any sink but by shards."""
    return True
