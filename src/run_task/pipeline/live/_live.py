"""Running live, by a conductor."""

from __future__ import annotations

from abc import abstractmethod

from run_task.errors import RunTaskError
from run_task.pipeline.live._conductor import Conductor
from run_task.runner._running import Running
from run_task.runner._signals import shut_down_on_sigterm
from run_task.sync._alarm import Alarm, AsyncAlarm


class Live(Running):
    """What can be run live: until it is shut down, or until every source has ended and every stage
    has seen its last row. All that went wrong is raised at the end, in an ``ExceptionGroup``.

    :param name: what it is called
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._conductor: Conductor | None = None
        self._stopping = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @abstractmethod
    def _make_conductor(self) -> Conductor:
        """What runs it.

        :raises ConfigError: if something about it cannot work
        """

    def shutdown(self) -> None:
        """Stop the sources, and then stage after stage, upstream first, each with what is due.

        Returns at once. It may be called from any thread, any number of times, and in a signal
        handler.
        """
        self._stopping = True
        if self._conductor is not None:
            self._conductor.shutdown()

    def _begin(self) -> None:
        if self._conductor is not None:
            raise RunTaskError(
                f"pipeline {self._name!r} has been run before, and runs live once: make a new one"
            )
        self._conductor = self._make_conductor()
        self._exit.enter_context(shut_down_on_sigterm(self.shutdown))
        try:
            self._conductor.start()
        except BaseException:
            self._exit.close()
            self._conductor = None  # it has not been run
            raise
        if self._stopping:
            self._conductor.shutdown()  # shut down before it began

    def _wait(self) -> None:
        assert self._conductor is not None
        alarm = Alarm()
        self._conductor.wake_at_end(alarm)
        while not self._conductor.ended:
            alarm.wait()
        self._conductor.join()

    async def _wait_async(self) -> None:
        assert self._conductor is not None
        alarm = AsyncAlarm()
        self._conductor.wake_at_end(alarm)
        while not self._conductor.ended:
            await alarm.wait()
        self._conductor.join()

    def _report(self, exc: BaseException | None) -> None:
        assert self._conductor is not None
        failures = self._conductor.failures
        if not failures:
            return
        if isinstance(exc, Exception):
            told = "; ".join(f"{type(failure).__name__}: {failure}" for failure in failures)
            exc.add_note(f"besides, pipeline {self._name!r} failed: {told}")
        else:
            raise BaseExceptionGroup(f"pipeline {self._name!r} failed", failures)
