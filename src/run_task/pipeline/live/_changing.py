"""Changes of a pipeline, before it runs and while it does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from run_task.errors import RunTaskError
from run_task.observe._log import Log
from run_task.pipeline._graph import Graph
from run_task.pipeline._route import Route
from run_task.pipeline.live._run import LiveRun
from run_task.runner._changes import Change, Changes
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Phase

_log = Log(__name__)


class Changing:
    """What the stages of a pipeline ask when something about them changes: one change at a time.

    :param name: the pipeline's name
    :param graph: its stages
    """

    def __init__(self, name: str, graph: Graph) -> None:
        self._name = name
        self._graph = graph
        self._changes = Changes(name, _log)
        self.run: LiveRun | None = None
        """The live run, from its beginning on."""
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """A forked child has none of the threads that may be changing something."""
        self.lock = threading.RLock()

    @property
    def is_running(self) -> bool:
        """Whether it runs live."""
        return self.run is not None and self.run.lifecycle.phase < Phase.ENDED

    @property
    def latest(self) -> Sequence[Change]:
        """What was changed while it ran."""
        return self._changes.latest

    def refuse(self, what: str) -> None:
        """Refuse what would take no effect any more.

        :param what: what was about to be changed
        :raises RunTaskError: while it runs
        """
        if self.is_running:
            raise RunTaskError(
                f"pipeline {self._name!r} runs, and {what} cannot be changed meanwhile: declare "
                f"everything before it is run, or shut it down and make a new one"
            )

    def connect(self, stage: Any, route: Route) -> None:
        """Let the results of a stage take one more route.

        :raises ConfigError: if they would come back to the stage
        """
        self._graph.connect(stage, route)

    def pause(self, stage: Any, *, paused: bool) -> None:
        """Let a stage run no windows, or run them again, from the next one on."""
        with self.lock:
            if stage.is_paused is paused:
                return
            stage.is_paused = paused
            if self.run is not None and self.is_running:
                self.run.pause(stage)
                self._note(f"stage {stage.name!r} is {'paused' if paused else 'resumed'}")

    def _note(self, what: str) -> None:
        assert self.run is not None
        self._changes.note(self.run.clock, what)
