"""Over how many shards a command runs a pipeline, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline, Replay
    from run_task.time._moment import TimeLike


@dataclass(frozen=True)
class ShardChoice:
    """What the options say.

    :param count: how many; None: the pipeline runs in this process
    :param address: of a cluster of Ray; None: processes of this machine
    """

    count: int | None = None
    address: str | None = None

    @classmethod
    def of(cls, shards: int | None, ray: str | None, local: bool) -> ShardChoice:
        """What the options ask for.

        :raises typer.BadParameter: if they contradict each other
        """
        if ray is not None and local:
            raise typer.BadParameter("--ray and --local contradict each other: leave one out")
        if shards is None and (ray is not None or local):
            option = "--local" if local else "--ray"
            raise typer.BadParameter(f"{option} is for shards: say how many there are, --shards 8")
        return cls(shards, ray)

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


ALONE = ShardChoice()
"""In this process."""
