"""Over how many shards a command runs a pipeline, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from run_task.errors import ConfigError
    from run_task.pipeline import Pipeline, Replay
    from run_task.time._moment import TimeLike


@dataclass(frozen=True)
class ShardChoice:
    """Over how many shards a pipeline is run.

    :param count: how many; None: the pipeline runs in this process
    :param address: of a cluster of Ray; None: processes of this machine
    """

    count: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        where = "processes of this machine" if self.address is None else f"Ray, {self.address}"
        return f"over {self.count} shard{'' if self.count == 1 else 's'} ({where})"

    def run(self, pipeline: Pipeline) -> None:
        """Run a pipeline live."""
        if self.count is None:
            pipeline.run_sync()
        else:
            pipeline.run_sharded(self.count, self.address)

    def replay(self, pipeline: Pipeline, start: TimeLike | None, end: TimeLike | None) -> Replay:
        """Replay a pipeline."""
        if self.count is None:
            return pipeline.replay(start, end)
        return pipeline.replay_sharded(self.count, start, end, address=self.address)

    def mistakes(self, pipeline: Pipeline) -> Sequence[ConfigError]:
        """Why a pipeline cannot be run so."""
        if self.count is None:
            return pipeline.mistakes()
        return pipeline.mistakes(self.count, self.address)


ALONE = ShardChoice()
"""In this process."""


@dataclass(frozen=True)
class ShardOptions:
    """What the command line says of shards.

    :param count: ``--shards``
    :param ray: ``--ray``
    :param local: ``--local``
    """

    count: int | None = None
    ray: str | None = None
    local: bool = False

    def __post_init__(self) -> None:
        if self.ray is not None and self.local:
            raise typer.BadParameter("--ray and --local contradict each other: leave one out")

    def over(self, known: ShardChoice) -> ShardChoice:
        """What they make of what the project says.

        :param known: that
        :raises typer.BadParameter: if it is not said how many there are
        """
        count = known.count if self.count is None else self.count
        if count is None and (self.ray is not None or self.local):
            option = "--local" if self.local else "--ray"
            raise typer.BadParameter(f"{option} is for shards: say how many there are, --shards 8")
        return ShardChoice(count, self.ray or (None if self.local else known.address))


NOTHING_SAID = ShardOptions()
