"""Running live, one run of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from run_task.errors import RunTaskError, add_note, described
from run_task.pipeline._graph import Graph
from run_task.pipeline.live._run import LiveRun
from run_task.pipeline.live._stage_changes import StageChanges
from run_task.runner._running import Running
from run_task.runner._signals import shut_down_on_sigterm
from run_task.sync._alarm import AnyAlarm
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.sync._waiting import Wait


class Live(Running):
    """What can be run live: until it is shut down, or until every source has ended and every stage
    has seen its last row. All that went wrong is raised at the end, in an ``ExceptionGroup``.

    :param name: what it is called
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._wish = Lifecycle()  # STOPPING: it was shut down, perhaps before it began
        self._all_begun = False  # what is begun after a shutdown would have nobody to end it
        self._graph = Graph()
        self._changing = StageChanges(name, self._graph)

    @property
    def _run(self) -> LiveRun | None:
        return self._changing.run

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def is_running(self) -> bool:
        """Whether it runs live: from when all of it was started until it has ended."""
        run = self._run
        return run is not None and self._all_begun and run.lifecycle.phase < Phase.ENDED

    @property
    def failures(self) -> Sequence[BaseException]:
        """What has gone wrong up to now in a live run, and is raised at its end: a source or a
        stage that has failed, beside others that go on."""
        return () if self._run is None else tuple(self._run.failures)

    @abstractmethod
    def _make_run(self) -> LiveRun:
        """What runs it.

        :raises ConfigError: if something about it cannot work
        """

    def shutdown(self) -> None:
        """Stop the sources, and then stage after stage, upstream first, each with what is due.

        Returns at once. It may be called from any thread, any number of times, and in a signal
        handler.
        """
        self._wish.advance(Phase.STOPPING)
        if self._run is not None and self._all_begun:
            self._run.shutdown()

    def _begin(self) -> None:
        with self._changing.lock:  # what is changed meanwhile waits until it runs
            self._begin_alone()

    def _begin_alone(self) -> None:
        if self._run is not None:
            raise RunTaskError(
                f"pipeline {self._name!r} has been run before, and runs live once: make a new one"
            )
        run = self._changing.run = self._make_run()
        self._exit.enter_context(shut_down_on_sigterm(self.shutdown))
        try:
            run.start(lambda: self._wish.phase >= Phase.STOPPING)
        except BaseException:
            self._exit.close()
            self._changing.run = None  # it has not been run
            raise
        self._all_begun = True
        if self._wish.phase >= Phase.STOPPING:
            run.shutdown()  # shut down before it began, or while it did

    def _until_ended(self, alarm: AnyAlarm) -> Wait[bool]:
        assert self._run is not None
        return self._run.lifecycle.until(alarm, Phase.ENDED)

    def _settle(self) -> None:
        assert self._run is not None
        self._run.settle()

    def _report(self, exc: BaseException | None) -> None:
        assert self._run is not None
        failures = self._run.failures
        if not failures:
            return
        if isinstance(exc, Exception):
            told = "; ".join(map(described, failures))
            add_note(exc, f"besides, pipeline {self._name!r} failed: {told}")
        else:
            raise BaseExceptionGroup(f"pipeline {self._name!r} failed", failures)
